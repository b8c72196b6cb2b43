/* checks: see checks.h. */
#include "tests/sim/checks.h"

#include <string.h>

#include "engine/volume/core.h"
#include "tests/sim/guest.h"
#include "tests/sim/maintainer.h"
#include "tests/sim/pds.h"
#include "tests/sim/watch.h"

#define BOUNDS_EVERY 32u /* steps: looking at all queues costs more than a step */

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

/* -- evidence -------------------------------------------------------------------------------- */

uint64_t checks_time(const struct machine *m)
{
	return m->cluster->world->now_ns + sim_process_delay(m->process, 0);
}

void checks_permit_sent(struct cluster *c, uint32_t h, uint64_t at_ns)
{
	c->permit_sent_ns[h] = MAX(c->permit_sent_ns[h], at_ns);
}

void checks_lease_sent(struct cluster *c, const struct machine *node, uint64_t at_ns)
{
	for (uint32_t n = 0; n < c->node_count; n++)
		if (c->nodes[n] == node)
			c->lease_sent_ns[n] = MAX(c->lease_sent_ns[n], at_ns);
}

static uint64_t permit_until(const struct cluster *c, uint32_t h)
{
	return c->permit_sent_ns[h] + (uint64_t)c->permit_lifetime_ms * NS_PER_MS +
	       CHECKS_CLOCK_SLACK_NS;
}

void checks_success(struct cluster *c, uint32_t h)
{
	/* With pauses in mid-turn the guest hears of it later than it was decided. */
	if (c->world->check_mid_turns || c->world->now_ns <= permit_until(c, h))
		return;
	cluster_fail(c, "I2: %s acknowledges at %llu ms, its last permit was sent at %llu ms",
		     c->hosts[h]->process->name, c->world->now_ns / NS_PER_MS,
		     c->permit_sent_ns[h] / NS_PER_MS);
}

void checks_answer(struct cluster *c, const struct machine *node, uint64_t at_ns)
{
	for (uint32_t n = 0; n < c->node_count; n++) {
		/* A lease counts from the moment at which it was asked for. */
		const uint64_t until_ns =
		    c->lease_sent_ns[n] + (uint64_t)c->permit_lifetime_ms * NS_PER_MS;

		if (c->nodes[n] == node && at_ns > until_ns)
			cluster_fail(c,
				     "I2: node %s answers with success at %llu ms, its last lease "
				     "was sent at %llu ms",
				     node->process->name, at_ns / NS_PER_MS,
				     c->lease_sent_ns[n] / NS_PER_MS);
	}
}

static void check_decision(struct cluster *c, const struct machine *m, uint64_t at_ns)
{
	for (uint32_t h = 0; h < CLUSTER_HOSTS; h++)
		if (c->hosts[h] == m && at_ns > permit_until(c, h))
			cluster_fail(c,
				     "I2: %s counts the copies of a write at %llu ms, its last "
				     "permit was sent at %llu ms",
				     m->process->name, at_ns / NS_PER_MS,
				     c->permit_sent_ns[h] / NS_PER_MS);
}

/* -- what counts as a copy ------------------------------------------------------------------- */

/* The permit in force names the node, and its site is eligible. A copy in a site that was withdrawn
 * stops counting when the host hears of it, and not only when its last permit would have run out.
 */
static bool node_counts(const struct cluster *c, const struct volume *v, const char *name,
			uint64_t at_ns)
{
	if (permit_find_node(&v->attach.permit, name) == NULL)
		return false;
	for (uint32_t n = 0; n < c->node_count; n++)
		if (strcmp(c->nodes[n]->process->name, name) == 0)
			return watch_is_allowed(c, c->nodes[n], at_ns);
	return false;
}

static void check_copies(struct cluster *c, const struct volume *v, vmask_t copies,
			 const char *where)
{
	if (vmask_count(copies) < v->majority)
		cluster_fail(c,
			     "I1, I3: a write is acknowledged with %u copies %s in sites that are "
			     "eligible and in the permit; %u are needed",
			     vmask_count(copies), where, v->majority);
}

/* Not mutants: the linker shows every decision to this check, and what it has to be judged by. */
void __real_vwindow_decide(struct vwindow *w, struct vwindow_entry *e);
void __wrap_vwindow_decide(struct vwindow *w, struct vwindow_entry *e);
vmask_t __real_vmove_next_members(const struct vchunk *c);
void __wrap_vwindow_decide(struct vwindow *w, struct vwindow_entry *e)
{
	const struct vwrite *write = vwrite_of_entry(e);
	const struct vchunk *chunk = write->chunk;
	const struct volume *v = chunk->volume;
	const struct machine *m = sim_process_of(v->reactor)->app;
	const uint64_t at_ns = checks_time(m);
	vmask_t good = 0;

	__real_vwindow_decide(w, e);
	if (!write->acked)
		return;
	check_decision(m->cluster, m, at_ns);
	for (uint32_t i = 0; i < v->slot_count; i++)
		if ((write->votes.ok & vmask_bit(i)) != 0 &&
		    node_counts(m->cluster, v, v->nodes[chunk->slots[i].node].name, at_ns))
			good |= vmask_bit(i);
	check_copies(m->cluster, v, good & chunk->members, "of members");
	/* While the map may change, those that are members then must do as well. */
	if (chunk->joint && e->seq > chunk->joint_seq)
		check_copies(m->cluster, v, good & __real_vmove_next_members(chunk),
			     "of the members to be");
}
