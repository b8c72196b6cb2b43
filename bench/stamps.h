/* What the blocks of a volume should hold.
 *
 * A written block carries its own offset and the number of the write that made it (its version);
 * the bench remembers the number for each block, so that every read, during the run and after it,
 * can be checked. Two operations of the bench on one block are never in flight at once: a block is
 * busy meanwhile, and another is taken. */
#ifndef BENCH_STAMPS_H
#define BENCH_STAMPS_H

#include "engine/base/types.h"

struct stamps;

/* NULL without memory: a bit for each block of the volume, and 8 bytes where they are remembered.
 * What isn't checked needn't be: then stamps_check lets all pass. */
struct stamps *stamps_create(uint64_t volume_size, bool remember);
void stamps_destroy(struct stamps *s);

bool stamps_busy(const struct stamps *s, uint64_t offset, uint32_t size);
void stamps_take(struct stamps *s, uint64_t offset, uint32_t size); /* busy from now on */
void stamps_release(struct stamps *s, uint64_t offset, uint32_t size);

/* Fills data with the next write's stamps, and remembers them. The range is busy. */
void stamps_write(struct stamps *s, uint64_t offset, uint32_t size, uint8_t *data);

struct stamps_checked {
	uint64_t checked; /* blocks of which it is known what they should hold */
	uint64_t bad,
	    first_bad; /* of these, not that; the byte at which the first of them begins */
};

/* What this run has not written is not known: it is not checked. */
struct stamps_checked stamps_check(const struct stamps *s, uint64_t offset, uint32_t size,
				   const uint8_t *data);

#endif
