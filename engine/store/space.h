/* How much may be written, by whom: the bound of what may be live, and the segments that are kept
 * free.
 *
 * The reserve is a bound of what is live. live_max leaves so much garbage among the segments that
 * cleaning always gains (a cleaned segment is packed more densely than the average of the others),
 * and reserve_segments on top, for resync and for what a host must write to bring a chunk into
 * service. So a write either is refused at once, because live data is really too much, or it may
 * wait for the cleaner, which will make room. Nothing is gained by keeping the reserve empty: space
 * that garbage may lie in makes cleaning cheaper, so only a few segments are.
 *
 *   segments available or empty
 *     above clean_below   the cleaner rests
 *     below               it runs, the faster the fewer there are
 *     below tight_below   it runs as fast as it can, and clients pay for each group with credit,
 *                         which it earns
 *     floor_segments      clients may open no more of them: what is left is for entries without
 *                         data, for resync, and at last for the cleaner alone */
#ifndef STORE_SPACE_H
#define STORE_SPACE_H

#include "engine/store/item.h"

#define SPACE_RESERVE_PERCENT	   8u
#define SPACE_RESERVE_SEGMENTS_MIN 4u
#define SPACE_RESERVE_KEPT	   3u /* of it at least: so that cleaning still gains */
#define SPACE_FLOOR_SEGMENTS	   4u
/* From the floor to where it is tight, and from there to where cleaning begins: a hundredth of all
 * segments; at least four, and at least what is written while a checkpoint is under way, when none
 * becomes free, but for that no more than a fortieth. */
#define SPACE_STEP_MIN	     4u
#define SPACE_STEP_DEN	     100u
#define SPACE_STEP_BYTES     (96 * MIB)
#define SPACE_STEP_BYTES_DEN 40u

enum space_user { SPACE_CLIENT, SPACE_URGENT, SPACE_RESYNC, SPACE_CLEANER };

struct space {
	uint32_t reserve_segments;
	uint32_t floor_segments;
	uint32_t clean_below; /* segments, empty ones included */
	uint32_t tight_below;
	uint64_t live_max;	   /* blocks, for clients */
	uint64_t live_max_reserve; /* blocks, for resync and what settles a chunk */
	int64_t credit;		   /* blocks that clients may write while it is tight */
};

void space_init(struct store *store, uint32_t reserve_percent);

/* May this user's stream open another segment now? */
bool space_may_open(const struct store *store, enum space_user user);

/* Of data that is about to be gathered: 0; -ENOSPC; or -EAGAIN: what is in flight must be applied,
 * or a page of the index be read, before it can be told. Sets item->growth. */
int space_admit(struct store *store, struct item *item);

/* Segments that are empty or will be after a checkpoint. */
uint32_t space_reclaimed(const struct store *store);

static inline bool space_is_tight(const struct space *space, uint32_t reclaimed)
{
	return reclaimed < space->tight_below;
}

#endif
