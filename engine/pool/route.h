/* Where each chunk lies: a table from (volume, chunk) to a device, and what is under way for it.
 *
 * In memory; found again from the stores when the pool opens. An entry is made when a chunk is
 * written for the first time, and goes when the chunk is erased.
 *
 * Invariant: an entry that has operations under way, or is held, is not removed. */
#ifndef POOL_ROUTE_H
#define POOL_ROUTE_H

#include "engine/store/slab.h"
#include "engine/store/store.h"

#define ROUTES_MAX (1u << 24)

struct route {
	struct route *next; /* in its bucket */
	volume_id_t volume;
	chunk_no_t chunk;
	uint8_t place;	   /* of the device */
	uint8_t turn;	   /* 0 or 1: changes with the device; reads are counted apart by it */
	bool held;	   /* changes wait: it is about to go elsewhere */
	uint32_t writes;   /* changes under way at the store */
	uint32_t reads[2]; /* the same, of what changes nothing */
};

struct routes {
	struct slab slab;
	struct route **buckets;
	uint32_t bucket_count; /* a power of two */
	uint32_t count;
	struct route *last; /* looked up last, or NULL */
};

/* 0 or -ENOMEM. */
int routes_init(struct routes *t);
void routes_deinit(struct routes *t);

/* NULL: the chunk is nowhere. */
struct route *routes_find(struct routes *t, volume_id_t volume, chunk_no_t chunk);

/* Makes an entry for a chunk that has none. NULL: there is no memory, or ROUTES_MAX. */
struct route *routes_add(struct routes *t, volume_id_t volume, chunk_no_t chunk, uint8_t place);
void routes_remove(struct routes *t, struct route *r);

static inline bool route_is_quiet(const struct route *r)
{
	return r->writes == 0 && r->reads[0] == 0 && r->reads[1] == 0;
}

/* Every entry, in no order; each may remove the one that it is given, and no other. */
void routes_each(struct routes *t, void (*each)(struct route *r, void *arg), void *arg);

#endif
