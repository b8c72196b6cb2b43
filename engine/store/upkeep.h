/* Small work in the background, a little at a time:
 *
 * - discarding segments that were given back, where the device makes use of it;
 * - priming: on a device where space written for the first time is slow to make durable (a file
 * with unwritten extents) the segment that is to be opened next is first written whole with zeroes.
 * One segment ahead of need, in large writes that aren't durable: it only saves time later. Only
 * while no write waits for its turn: then all of the disk is better used by those. */
#ifndef STORE_UPKEEP_H
#define STORE_UPKEEP_H

#include "engine/disk/disk.h"

#define UPKEEP_PAUSE_NS	      50000u
#define UPKEEP_PRIME_PAUSE_NS (5 * NS_PER_MS) /* when writes wait */
#define UPKEEP_PRIME_BYTES    (512 * KIB)     /* one write */

struct store;

struct upkeep {
	struct disk_op op; /* one I/O at a time */
	bool busy;
	bool priming;
	uint32_t segment;   /* being discarded or primed */
	uint32_t primed;    /* bytes of it */
	void *zeroes;	    /* UPKEEP_PRIME_BYTES, when the disk needs it */
	uint32_t *discards; /* segments to be discarded: a ring */
	uint32_t discard_head, discard_count;
	struct reactor_timer timer;
};

int upkeep_init(struct store *store);
void upkeep_deinit(struct store *store);

/* There may be something to do. */
void upkeep_kick(struct store *store);

/* A segment was given back, and nothing durable refers to it any more. */
void upkeep_freed(struct store *store, uint32_t segment);

/* No I/O in flight. */
bool upkeep_is_idle(const struct store *store);

#endif
