/* The part of recovery that reads the log: a step function over reads that its caller carries out.
 * See recovery.h for the rules. */
#ifndef STORE_RECOVERY_LOG_H
#define STORE_RECOVERY_LOG_H

#include "engine/store/format.h"

struct store;
struct recovery_group;

struct recovery_io {
	uint64_t offset;
	size_t size;
	void *data;
};

struct recovery_segment {
	uint32_t no;
	uint32_t start_block;
};

struct recovery_log {
	struct store *store;
	struct recovery_segment *segments; /* to scan */
	uint32_t segment_count, segment_max;
	uint32_t current;
	uint32_t position; /* block in the current segment */
	bool reading;
	bool any;     /* a valid group was found in the current segment */
	uint32_t gap; /* blocks that didn't check since the last group */
	uint8_t *window;
	uint32_t window_first;		/* block in the segment */
	uint32_t window_count;		/* blocks that were read */
	uint32_t window_max;		/* that were asked for */
	bool singly;			/* all at once failed: it is read block by block */
	bool cut;			/* the block behind those that were read cannot be read */
	struct recovery_group **groups; /* found, in all segments */
	uint32_t group_count, group_max;
	uint64_t last_seq[2]; /* accepted, of each stream */
	uint64_t max_seq;
	uint64_t accepted, accepted_bytes;
};

int recovery_log_init(struct recovery_log *l, struct store *store);
void recovery_log_deinit(struct recovery_log *l);

/* A segment to be scanned from start_block. 0 or -ENOMEM. */
int recovery_log_add(struct recovery_log *l, uint32_t segment, uint32_t start_block);

/* last_seq: up to which group of each stream the index covers the log. */
void recovery_log_start(struct recovery_log *l, const uint64_t *last_seq);

/* 1: *ret_io is to be read next, and its status given to the next call; 0: all is read; or an
 * error. */
int recovery_log_step(struct recovery_log *l, int io_status, struct recovery_io *ret_io,
		      struct error *err);

/* Which groups are accepted. */
int recovery_log_accept(struct recovery_log *l, struct error *err);

/* Begins to read the pages of the index that they change, in the order in which they lie there
 * (lookup_ahead): one after the other they take longer than all the rest. -ENOMEM: nothing was
 * begun, and replaying reads them. */
int recovery_log_load(struct recovery_log *l);

/* Applies what is accepted to the index, and sets the streams to go on from there. */
int recovery_log_replay(struct recovery_log *l, struct error *err);

#endif
