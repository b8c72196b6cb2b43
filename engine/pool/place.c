/* place: which chunk lies on which device, and what may lie on one that is missing, as the stores
 * and the index say when the pool opens. See core.h. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/log.h"
#include "engine/pool/core.h"

struct placing {
	struct pool *pool;
	struct error *err;
	struct pool_device *d;
	int status;
};

static bool is_kept_loser(const struct pool *pool, const struct pool_device *d, volume_id_t volume,
			  chunk_no_t chunk)
{
	for (uint32_t i = 0; i < pool->kept_count; i++) {
		const struct move_record *r = &pool->kept[i];
		const struct uuid *loser = r->state == MOVE_COPYING ? &r->to : &r->from;

		if (r->volume == volume && r->chunk == chunk &&
		    memcmp(loser, &d->uuid, sizeof *loser) == 0)
			return true;
	}
	return false;
}

static int take_chunk(volume_id_t volume, chunk_no_t chunk, void *arg)
{
	struct placing *p = arg;
	struct pool *pool = p->pool;
	const struct route *r = routes_find(&pool->routes, volume, chunk);

	if (is_kept_loser(pool, p->d, volume, chunk))
		return 0;
	if (r != NULL && p->d->store == NULL)
		return 0; /* what the index of an absent device says may be old */
	if (r != NULL) {
		p->status = error_set(p->err, -E_CORRUPT,
				      "chunk %u of volume %llu is on %s and on %s, and no record "
				      "says which copy counts",
				      chunk, (unsigned long long)volume,
				      pool->devices[r->place].path, p->d->path);
		return p->status;
	}
	if (pool_add_route(pool, volume, chunk, p->d) == NULL)
		p->status = -ENOMEM;
	return p->status;
}

static void place_volume(volume_id_t volume, generation_t generation, void *arg)
{
	struct store_chunk_state states[256];
	struct placing *p = arg;
	chunk_no_t from = 0;
	uint32_t count;

	(void)generation;
	do {
		count = store_chunks(p->d->store, volume, from, states, ARRAY_SIZE(states));
		for (uint32_t i = 0; i < count && p->status == 0; i++)
			take_chunk(volume, states[i].chunk, p);
		if (count > 0)
			from = states[count - 1].chunk + 1;
	} while (count == ARRAY_SIZE(states) && p->status == 0);
}

int place_chunks(struct pool *pool, struct error *err)
{
	for (uint32_t i = 0; i < POOL_DEVICES_MAX; i++) {
		struct placing p = {.pool = pool, .err = err, .d = &pool->devices[i]};

		if (p.d->store == NULL)
			continue;
		store_each_volume(p.d->store, place_volume, &p);
		if (p.status < 0)
			return p.status;
	}
	for (uint32_t i = 0; i < POOL_DEVICES_MAX; i++) {
		struct placing p = {.pool = pool, .err = err, .d = &pool->devices[i]};
		int rc;

		if (!device_is_absent(p.d))
			continue;
		pool->absent = true;
		rc = record_scan_chunks(pool->kv, p.d->slot, pool->config.identity.shard,
					take_chunk, &p);
		if (rc < 0)
			return rc;
		log_error("pool",
			  "device %s is %s: what lies on it (%llu chunks, if not more) is answered "
			  "with errors",
			  p.d->path, pool_state_name(p.d->state),
			  (unsigned long long)p.d->chunk_count);
	}
	return 0;
}
