/* How much may be written, by whom: the reserve, and the bound of what may be live.
 *
 * Clients may not open the last reserve_segments: the cleaner and resync work in them. What is live
 * may not exceed live_max, which leaves enough garbage among the other segments that cleaning
 * always gains (a cleaned segment is packed more densely than the average of the others). So a
 * write either is refused at once, because live data is really too much, or it may wait for the
 * cleaner, which will make room.
 *
 * As free space runs low clients are slowed down: below clean_below the cleaner runs; below
 * tight_below a client's group costs credit, which the cleaner earns by what it reclaims. */
#ifndef STORE_SPACE_H
#define STORE_SPACE_H

#include "engine/store/item.h"

#define SPACE_RESERVE_PERCENT	   8u
#define SPACE_RESERVE_SEGMENTS_MIN 4u

enum space_user { SPACE_CLIENT, SPACE_URGENT, SPACE_RESYNC, SPACE_CLEANER };

struct space {
	uint32_t reserve_segments;
	uint32_t clean_below; /* segments, empty ones included */
	uint32_t tight_below;
	uint64_t live_max;	  /* blocks, for clients */
	uint64_t live_max_resync; /* blocks, for resync */
	int64_t credit;		  /* blocks that clients may write while it is tight */
};

void space_init(struct store *store, uint32_t reserve_percent);

/* May this user's stream open another segment now? */
bool space_may_open(const struct store *store, enum space_user user);

/* Of data that is about to be gathered: 0; -ENOSPC; or -EAGAIN: what is in flight must be applied
 * before it can be told. Sets item->growth. */
int space_admit(struct store *store, struct item *item);

/* Segments that are empty or will be after a checkpoint. */
uint32_t space_reclaimed(const struct store *store);

static inline bool space_is_tight(const struct space *space, uint32_t reclaimed)
{
	return reclaimed < space->tight_below;
}

#endif
