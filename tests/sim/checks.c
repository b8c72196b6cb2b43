/* checks: see checks.h. */
#include "tests/sim/checks.h"

#include <string.h>

#include "engine/volume/core.h"
#include "tests/sim/guest.h"
#include "tests/sim/maintainer.h"
#include "tests/sim/pds.h"
#include "tests/sim/watch.h"

#define BOUNDS_EVERY 32u /* steps: looking at all queues costs more than a step */

/* A host's clock may be wrong by as much, so its permit's deadline too; the nodes' clocks may not
 * (they get no lease), so this is about the host alone. */
#define CLOCK_SLACK_NS (2200 * NS_PER_MS)

static void check_replica(struct cluster *c, const struct vreplica *r)
{
	/* It is given up in the turn that comes after the one in which it grew too large. */
	const uint32_t ops_max = VOLUME_BACKLOG_OPS_MAX + VOLUME_OPS_MAX;

	if (r->inflight > VREPLICA_WINDOW_MAX || r->inflight > r->window + 1 ||
	    r->backlog_ops > ops_max)
		cluster_fail(c, "I8: %u requests on the wire of %u, %u in the backlog", r->inflight,
			     r->window, r->backlog_ops);
}

static void check_volume(struct cluster *c, const struct volume *v)
{
	if (v->op_count > VOLUME_OPS_MAX || v->marks_busy > VMARK_POOL_MAX ||
	    v->hedge.doubled_count > VHEDGE_MAX || v->waiter_count > VOLUME_WAITERS_MAX)
		cluster_fail(c, "I8: %u operations, %u watermarks, %u hedges, %u waiters",
			     v->op_count, v->marks_busy, v->hedge.doubled_count, v->waiter_count);
	for (uint32_t i = 0; v->nodes != NULL && i < v->node_count; i++)
		for (uint32_t k = 0; k < VREPLICA_SHARDS_MAX && v->nodes[i].replicas[k] != NULL;
		     k++)
			check_replica(c, v->nodes[i].replicas[k]);
}

static void check_node(struct cluster *c, const struct node_shard *shard)
{
	struct node_stats stats;

	node_shard_get_stats(shard, &stats);
	if (stats.sessions > NODE_SESSIONS_MAX || stats.memory_bytes > NODE_SHARD_MEMORY_MAX)
		cluster_fail(c, "I8: a node has %lu sessions, and has had %lu bytes of payloads",
			     stats.sessions, stats.memory_bytes);
}

void checks_step(struct cluster *c)
{
	pds_step(c);
	if (c->world->event_count % BOUNDS_EVERY != 0)
		return;
	for (uint32_t h = 0; h < CLUSTER_HOSTS; h++)
		if (c->hosts[h]->process->alive && c->hosts[h]->guest->volume != NULL)
			check_volume(c, c->hosts[h]->guest->volume);
	for (uint32_t n = 0; n < c->node_count; n++)
		if (maintainer_volume(c->nodes[n]->maintainer) != NULL)
			check_volume(c, maintainer_volume(c->nodes[n]->maintainer));
	for (uint32_t n = 0; n < c->node_count; n++)
		if (c->nodes[n]->process->alive && c->nodes[n]->node.shard != NULL)
			check_node(c, c->nodes[n]->node.shard);
}

void checks_permit_sent(struct cluster *c, uint32_t h)
{
	c->permit_sent_ns[h] = c->world->now_ns;
}

void checks_success(struct cluster *c, uint32_t h)
{
	const uint64_t until_ns =
	    c->permit_sent_ns[h] + (uint64_t)c->permit_lifetime_ms * NS_PER_MS + CLOCK_SLACK_NS;

	/* With pauses in mid-turn the guest hears of it later than it was decided. */
	if (c->world->check_mid_turns || c->world->now_ns <= until_ns)
		return;
	cluster_fail(c, "I2: %s acknowledges at %llu ms, its last permit was sent at %llu ms",
		     c->hosts[h]->process->name, c->world->now_ns / NS_PER_MS,
		     c->permit_sent_ns[h] / NS_PER_MS);
}

/* -- what counts as a copy ------------------------------------------------------------------- */

static bool node_is_allowed(const struct cluster *c, const char *name)
{
	for (uint32_t n = 0; n < c->node_count; n++)
		if (strcmp(c->nodes[n]->process->name, name) == 0)
			return watch_is_allowed(c, c->nodes[n]);
	return false;
}

/* Not a mutant: the linker shows every decision to this check. */
void __real_vwindow_decide(struct vwindow *w, struct vwindow_entry *e);
void __wrap_vwindow_decide(struct vwindow *w, struct vwindow_entry *e);
void __wrap_vwindow_decide(struct vwindow *w, struct vwindow_entry *e)
{
	const struct vwrite *write = vwrite_of_entry(e);
	const struct volume *v = write->chunk->volume;
	const struct machine *m = sim_process_of(v->reactor)->app;
	uint32_t copies = 0;

	__real_vwindow_decide(w, e);
	if (!write->acked)
		return;
	for (uint32_t i = 0; i < v->slot_count; i++)
		if ((write->votes.ok & write->chunk->members & vmask_bit(i)) != 0 &&
		    node_is_allowed(m->cluster, v->nodes[write->chunk->slots[i].node].name))
			copies++;
	if (copies < v->majority)
		cluster_fail(m->cluster,
			     "I1, I3: a write is acknowledged with %u copies in eligible sites; "
			     "%u are needed",
			     copies, v->majority);
}
