/* The load of pave-bench: a closed loop of operations on a volume, stamped blocks, and their
 * verification.
 *
 * A written block carries its own offset and the number of the write that made it; the load
 * remembers the number for each block, so that every read, during the run and after it, can be
 * checked. Two operations on one block are never in flight at once. Thread: the reactor's. */
#ifndef BENCH_LOAD_H
#define BENCH_LOAD_H

#include "bench/histogram.h"
#include "engine/volume/volume.h"

#define LOAD_DEPTH_MAX 1024u

struct load_config {
	struct reactor *reactor;
	struct volume *volume;
	bool random;
	uint32_t read_percent; /* 0: writes only, 100: reads only */
	uint32_t size;	       /* of an operation, bytes */
	uint32_t depth;
	uint64_t range;	      /* of the volume that is used, bytes from its start */
	uint64_t duration_ns; /* 0: once over the range, in order */
	uint64_t seed;
	bool verify; /* every read is checked */
};

struct load_result {
	uint64_t operations, bytes, errors, mismatches;
	uint64_t elapsed_ns;
	int first_error;
	uint64_t first_bad_offset;
	struct histogram reads, writes;
};

struct load;

/* What the blocks of a volume should hold; shared by the loads that run after each other. */
struct load_stamps;
struct load_stamps *load_stamps_create(uint64_t volume_size);
void load_stamps_destroy(struct load_stamps *s);

/* Starts; done once, when the last operation has ended. */
struct load *load_start(const struct load_config *config, struct load_stamps *stamps,
			void (*done)(void *arg), void *arg);

/* No more operations begin; done follows. */
void load_stop(struct load *l);
const struct load_result *load_result(const struct load *l);
void load_destroy(struct load *l);

#endif
