/* settle: see settle.h. Each phase waits for a condition, for so long that only a cluster that will
 * never get there misses it. */
#include "tests/sim/settle.h"

#include <string.h>

#include "engine/placement/driver.h"
#include "engine/volume/core.h"
#include "tests/sim/bays.h"
#include "tests/sim/converge.h"
#include "tests/sim/damage.h"
#include "tests/sim/faults.h"
#include "tests/sim/guest.h"
#include "tests/sim/ledger.h"
#include "tests/sim/pds.h"

#define SETTLE_NS (240 * NS_PER_S)
#define LEADS_NS  (20 * NS_PER_S)
#define COPIES	  3u

/* Who has the volume, from now on. */
static struct guest *keeper;

static bool is_verified(struct cluster *c)
{
	(void)c;
	return keeper->all_verified;
}

/* One host goes away, the other reads everything. */
static void read_back(struct cluster *c)
{
	const uint32_t reader = (uint32_t)sim_random_below(c->world, CLUSTER_HOSTS);

	for (uint32_t h = 0; h < CLUSTER_HOSTS; h++)
		c->hosts[h]->guest->wanted = h == reader;
	keeper = c->hosts[reader]->guest;
	guest_verify(keeper, NULL);
	if (!cluster_run(c, SETTLE_NS, is_verified))
		cluster_fail(c, "the volume could not be read back within %llu s after the faults",
			     SETTLE_NS / NS_PER_S);
}

/* Writing goes on, everywhere. */
static void overwrite(struct cluster *c)
{
	guest_overwrite(keeper);
	if (!cluster_run(c, SETTLE_NS, is_verified) && !c->failed)
		cluster_fail(c, "the volume could not be written within %llu s after the faults",
			     SETTLE_NS / NS_PER_S);
}

/* What has been moved, merged and mended since shows what was written. */
static void read_again(struct cluster *c)
{
	guest_verify(keeper, NULL);
	if (!cluster_run(c, SETTLE_NS, is_verified) && !c->failed)
		cluster_fail(c, "the volume could not be read again within %llu s",
			     SETTLE_NS / NS_PER_S);
}

static bool is_settled(struct cluster *c)
{
	bool all = true;

	for (uint32_t i = 0; i < c->shot_count; i++) {
		struct shot *s = &c->shots[i];

		if (s->deleted)
			continue;
		all = all && (s->settled || !s->exists);
		if (s->exists && !s->settled && !c->admin.busy)
			cluster_ask_shot(c, s);
	}
	return all;
}

static const struct guest *shot_reader;

static bool is_shot_read(struct cluster *c)
{
	(void)c;
	return shot_reader->all_verified;
}

/* The volume is attached: its snapshots must become readable; the other host reads them. */
static void read_shots(struct cluster *c)
{
	struct guest *g = c->hosts[keeper == c->hosts[0]->guest]->guest;

	if (c->shot_count > 0 && !cluster_run(c, SETTLE_NS, is_settled) && !c->failed)
		cluster_fail(c, "a snapshot is not settled %llu s after the faults",
			     SETTLE_NS / NS_PER_S);
	shot_reader = g;
	for (uint32_t i = 0; i < c->shot_count && !c->failed; i++) {
		if (!c->shots[i].exists || c->shots[i].deleted)
			continue;
		guest_verify(g, &c->shots[i]);
		if (!cluster_run(c, SETTLE_NS, is_shot_read) && !c->failed)
			cluster_fail(c,
				     "snapshot %s could not be read back within %llu s after the "
				     "faults",
				     c->shots[i].name, SETTLE_NS / NS_PER_S);
	}
}

static bool nothing_moves(struct cluster *c)
{
	if (c->moves_active == 0)
		return true;
	cluster_count_moves(c);
	return false;
}

/* The volume is attached: what moves must get to its end, or be given up. */
static void settle_moves(struct cluster *c)
{
	c->moves_active = -1;
	if (!cluster_run(c, SETTLE_NS, nothing_moves) && !c->failed)
		cluster_fail(c, "%d moves are still under way %llu s after the faults",
			     c->moves_active, SETTLE_NS / NS_PER_S);
}

static bool is_gone(const struct cluster *c, const char *name)
{
	for (uint32_t n = 0; n < c->node_count; n++)
		if (strcmp(c->nodes[n]->process->name, name) == 0)
			return c->nodes[n]->dead_for_ever ||
			       c->sites[n].withdrawn_from_ns != UINT64_MAX;
	return true;
}

/* Every chunk is where nobody is gone, as often as ever. */
static bool is_replaced(struct cluster *c)
{
	const struct volume *v = cluster_volume(c);

	for (chunk_no_t at = 0; v != NULL && at < CLUSTER_VOLUME_SIZE / CLUSTER_CHUNK_SIZE; at++) {
		const struct vchunk *chunk = &v->chunks[at];
		uint32_t copies = 0;

		for (uint32_t i = 0; i < v->slot_count; i++) {
			if ((chunk->members & vmask_bit(i)) == 0)
				continue;
			if (is_gone(c, v->nodes[chunk->slots[i].node].name))
				return false;
			copies++;
		}
		if (copies < COPIES)
			return false;
	}
	return v != NULL;
}

/* The administrator takes back what the faults have left. */
static bool none_is_drained(struct cluster *c)
{
	const struct pd *pd = pds_leading(c);

	for (const struct reg_node *n = pd != NULL ? pd->reg.nodes : NULL; n != NULL;
	     n = n->hh.next) {
		if (!n->drain)
			continue;
		if (!c->admin.busy)
			cluster_rebalance(c, n->name, true);
		return false;
	}
	return pd != NULL;
}

/* Of four nodes one is gone: the others get its copies. */
static void replace(struct cluster *c)
{
	if (!cluster_run(c, SETTLE_NS, none_is_drained) && !c->failed)
		cluster_fail(c, "a node is still drained");
	if (!cluster_run(c, SETTLE_NS, is_replaced) && !c->failed)
		cluster_fail(c, "%llu s after a node is gone not every chunk is on the others",
			     SETTLE_NS / NS_PER_S);
}

/* For good, while nothing else goes wrong: of a site in which no host is. */
static bool is_withdrawn(struct cluster *c)
{
	if (c->sites[c->node_count - 1].withdrawn_from_ns == UINT64_MAX)
		cluster_withdraw(c, c->node_count - 1, true);
	else if (c->admin.unsure && !c->admin.busy)
		cluster_renew_snapshot(c);
	return c->sites[c->node_count - 1].withdrawn_from_ns < UINT64_MAX - 1;
}

static void withdraw_one(struct cluster *c)
{
	c->stats.revocations++;
	if (!cluster_run(c, SETTLE_NS, is_withdrawn) && !c->failed)
		cluster_fail(c, "the driver did not take the last withdrawal");
	if (!c->failed)
		replace(c);
	if (!c->failed)
		settle_moves(c);
}

/* Some volume's top, for what deleted snapshots left below it. */
static bool wants_seal(const struct cluster *c)
{
	const struct pd *pd = pds_leading(c);

	for (const struct reg_volume *v = pd != NULL ? pd->reg.volumes : NULL; v != NULL;
	     v = v->hh.next)
		if (v->seal_wanted && !v->deleted)
			return true;
	return pd == NULL;
}

static bool is_merged(struct cluster *c)
{
	uint32_t shots = 0;

	for (uint32_t i = 0; i < c->shot_count; i++)
		shots += c->shots[i].exists && !c->shots[i].deleted;
	if (c->deleting != NULL && !c->admin.busy)
		cluster_delete_shot(c);
	else if (!c->admin.busy)
		cluster_count_layers(c);
	return c->deleting == NULL && c->layers != 0 && c->layers <= shots + 2 && !wants_seal(c);
}

/* What deleted snapshots stood on is merged: the volume stands on as many layers as it has
 * snapshots, and two; and is sealed where that pays. Every node must be there for that, and every
 * block good. */
static void settle_layers(struct cluster *c)
{
	c->layers = 0;
	if (!cluster_run(c, SETTLE_NS, is_merged) && !c->failed)
		cluster_fail(c,
			     "the volume stands on %u layers, more than its snapshots need, or "
			     "on one that is not settled (0), or its top should be sealed",
			     c->layers);
}

static char unsettled[200];

static bool devices_are_settled(struct cluster *c)
{
	for (uint32_t n = 0; n < c->node_count; n++)
		if (!bays_are_settled(c->nodes[n]->bays, unsettled, sizeof(unsettled)))
			return false;
	return true;
}

/* What devices that are being retired hold goes to others, and they leave. */
static void settle_devices(struct cluster *c)
{
	if (!cluster_run(c, SETTLE_NS, devices_are_settled) && !c->failed)
		cluster_fail(c, "%llu s after the faults: %s", SETTLE_NS / NS_PER_S, unsettled);
}

/* The next one that is wanted is asked for. */
static bool certificates_last(struct cluster *c)
{
	for (uint32_t i = 0; i < c->node_count; i++)
		if (c->sites[i].certified_until_ns < CLUSTER_CERTIFICATE_NS ||
		    c->sites[i].reissued_until_ns != 0) {
			cluster_certify(c, i, CLUSTER_CERTIFICATE_NS);
			return false;
		}
	return true;
}

static bool certified(struct cluster *c)
{
	if (!certificates_last(c))
		return false;
	if (c->snapshot_until_ns < c->world->now_ns + SETTLE_NS && !cluster_renew_snapshot(c))
		return false;
	for (uint32_t i = 0; i < c->node_count; i++)
		if (c->sites[i].withdrawn_from_ns != UINT64_MAX && !cluster_withdraw(c, i, false))
			return false;
	if (c->admin.unsure && !c->admin.busy)
		cluster_renew_snapshot(c);
	return !c->admin.busy && !c->admin.unsure;
}

void settle(struct cluster *c, uint32_t lost, bool faults)
{
	if (c->etcd != NULL && !cluster_run(c, LEADS_NS, pds_one_leads) && !c->failed)
		cluster_fail(c, "no driver leads %llu s after the faults", LEADS_NS / NS_PER_S);
	if (!cluster_run(c, SETTLE_NS, certified) && !c->failed)
		cluster_fail(c, "the driver did not take the last snapshot");
	if (!c->failed)
		read_back(c);
	if (!c->failed)
		read_shots(c);
	if (!c->failed)
		overwrite(c);
	if (!c->failed && c->node_count > COPIES && lost < c->node_count &&
	    c->nodes[lost]->dead_for_ever)
		replace(c);
	if (!c->failed)
		settle_moves(c);
	if (!c->failed && c->shot_count > 0 && lost >= c->node_count)
		settle_layers(c);
	if (!c->failed && bays_are_many(c->world->seed))
		settle_devices(c);
	if (!c->failed && c->node_count > COPIES && lost >= c->node_count && faults &&
	    sim_chance(c->world, 1, 2) && faults_course(c, FAULTS_LAST_WITHDRAWAL))
		withdraw_one(c);
	if (!c->failed && lost >= c->node_count && faults)
		faults_rot(c);
	if (!c->failed)
		damage_check(c, SETTLE_NS);
	if (!c->failed)
		converge_check(c, SETTLE_NS);
	if (!c->failed)
		read_again(c);
	if (!c->failed)
		ledger_check(c);
}
