/* The oracle: what the guests of one volume may see (I3, I4, I5), block by block.
 *
 * Every write of data carries a stamp of its own in each block, so a read tells which write it
 * returned. For each block the oracle keeps the writes that a read may still return. Time is a
 * count of the oracle's own calls: what it calls earlier really was earlier.
 *
 * A write w is superseded for all reads that begin after
 *   - a write that began after w had returned is acknowledged, or seen by a read;
 *   - a read, begun after w was certain, returned another write.
 * w is certain once it is acknowledged, or seen by a read; and so is the fate of what an older
 * attachment left undecided, as soon as a newer one serves: it is there by then or never.
 * A read that returns a superseded write, none, or parts of two is a violation.
 *
 * One writer: once an attachment has had anything acknowledged, no older one may. */
#ifndef SIM_ORACLE_H
#define SIM_ORACLE_H

#include "engine/base/types.h"

struct oracle;

/* text: the story of a violation, for a person; valid until the function returns. */
struct oracle *oracle_create(uint64_t block_count, void (*violated)(const char *text, void *arg),
			     void *arg);
void oracle_destroy(struct oracle *o);

enum oracle_kind { ORACLE_DATA, ORACLE_ZERO };

struct oracle_write {
	uint64_t id; /* the stamp; 0 is none */
	enum oracle_kind kind;
	generation_t generation;
	uint64_t block;
	uint32_t block_count;
};

/* Fills *ret_write. generation: of the attachment that it goes through. */
void oracle_write_begin(struct oracle *o, enum oracle_kind kind, generation_t generation,
			uint64_t block, uint32_t block_count, struct oracle_write *ret_write);

/* The content of the write's blocks (ORACLE_DATA). */
void oracle_fill(const struct oracle_write *w, void *data);

/* Whether a block of a disk holds what oracle_fill made, and which block of the volume that was
 * written to; its first bytes are enough. */
#define ORACLE_STAMP_SIZE 24u
bool oracle_is_stamped(const void *data);
uint64_t oracle_block_of(const void *data);

/* status 0: acknowledged. Otherwise it was refused after it may have had effect; for what never
 * had any, and for one whose host has crashed, oracle_write_end is not called. */
void oracle_write_end(struct oracle *o, const struct oracle_write *w, int status);

struct oracle_read {
	struct oracle_read *next, *prev; /* the oracle's */
	uint64_t begun;
	generation_t generation;
	uint64_t block;
	uint32_t block_count;
};

void oracle_read_begin(struct oracle *o, generation_t generation, uint64_t block,
		       uint32_t block_count, struct oracle_read *r);
/* data NULL: the read failed, or its host is gone. */
void oracle_read_end(struct oracle *o, struct oracle_read *r, const void *data);

/* A snapshot of the volume: it shows what reads could have returned at one moment between begin and
 * taken, which is the same moment for all blocks, and it shows the same for ever. */
struct oracle_shot;
struct oracle_shot *oracle_shot_begin(struct oracle *o);
/* It is complete by now. Again: nothing happens. */
void oracle_shot_taken(struct oracle *o, struct oracle_shot *s);
/* Blocks were read from it; PRE: it was taken. */
void oracle_shot_read(struct oracle *o, struct oracle_shot *s, uint64_t block, uint32_t block_count,
		      const void *data);

struct oracle_stats {
	uint64_t writes, acknowledged, failed, reads, blocks_checked, undecided_seen, shot_blocks;
};
void oracle_get_stats(const struct oracle *o, struct oracle_stats *ret_stats);

#endif
