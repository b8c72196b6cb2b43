/* damage: see damage.h. A pass counts that began after it was asked for: one that was under way may
 * have been past what rotted. Of a node that has lost a device for ever the copies move away, and
 * what is left of them, damaged or not, stays until an operator retires that device. */
#include "tests/sim/damage.h"

#include <stdio.h>

#include "engine/pool/pool.h"
#include "engine/store/store.h"
#include "tests/sim/bays.h"

#define LOOK_GAP_NS  (100 * NS_PER_MS)
#define PASS_OF_NONE (-1)

/* By node and place in its pool: when the last pass before this began, by the wall; PASS_OF_NONE:
 * it was not asked yet. */
static int64_t before[CLUSTER_NODES][POOL_DEVICES_MAX];
static uint64_t look_at_ns;
static char unmended[200];

static bool store_is_mended(const struct machine *m, struct store *store, int64_t *began)
{
	struct store_damage first;
	struct store_stats stats;

	store_get_stats(store, &stats);
	if (*began == PASS_OF_NONE) {
		*began = stats.scrub.started_at;
		store_scrub(store);
	}
	snprintf(unmended, sizeof(unmended), "%s is not scrubbed", m->process->name);
	if (stats.scrub.running || stats.scrub.started_at == *began)
		return false;
	if (store_damage(store, &first, 1) == 0)
		return true;
	snprintf(unmended, sizeof(unmended),
		 "%s has %u damaged blocks; of layer %lx chunk %u block %u is one",
		 m->process->name, stats.scrub.damaged, first.volume, first.chunk, first.block);
	return false;
}

static bool node_is_mended(const struct machine *m, int64_t *began)
{
	struct pool_device_info infos[POOL_DEVICES_MAX];
	bool all = m->process->alive && m->node.pool != NULL;
	const uint32_t count = all ? pool_devices(m->node.pool, infos, POOL_DEVICES_MAX) : 0;

	snprintf(unmended, sizeof(unmended), "%s is down", m->process->name);
	for (uint32_t i = 0; i < count && all; i++) {
		struct store *store = pool_store(m->node.pool, i);

		all = store == NULL || store_is_mended(m, store, &began[i]);
	}
	return all;
}

static bool is_mended(struct cluster *c)
{
	if (c->world->now_ns < look_at_ns)
		return false;
	look_at_ns = c->world->now_ns + LOOK_GAP_NS;
	for (uint32_t n = 0; n < c->node_count; n++)
		if (!c->nodes[n]->dead_for_ever && !bays_have_lost(c->nodes[n]->bays) &&
		    !node_is_mended(c->nodes[n], before[n]))
			return false;
	return true;
}

void damage_check(struct cluster *c, uint64_t for_ns)
{
	for (uint32_t n = 0; n < c->node_count; n++)
		for (uint32_t i = 0; i < POOL_DEVICES_MAX; i++)
			before[n][i] = PASS_OF_NONE;
	look_at_ns = 0;
	if (!cluster_run(c, for_ns, is_mended) && !c->failed)
		cluster_fail(c, "%lu s after the faults: %s", for_ns / (uint64_t)NS_PER_S,
			     unmended);
}
