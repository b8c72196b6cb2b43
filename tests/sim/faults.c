/* faults: see faults.h.
 *
 * Each fault is chosen by weight and carries its own end (a boot, a heal, a resume at a random time
 * to come). Several may overlap, up to all machines being down at once. A seed takes some kinds of
 * faults and leaves out others, so that seeds differ in more than their details.
 *
 * Faults are numbered, and each draws from a stream of its own, which depends on the seed and its
 * number alone: one that is left out (minimise.h) changes nothing in the plan of the others. What
 * has no numbers is left out by its name (enum faults_course); snapshots and migrations of the
 * volume, and the administrator who renews revocation snapshots, have no stream of their own, and
 * come at other moments when others are left out. */
#include "tests/sim/faults.h"

#include "tests/sim/bays.h"
#include "tests/sim/fault.h"
#include "tests/sim/faults_disks.h"
#include "tests/sim/faults_evidence.h"
#include "tests/sim/guest.h"
#include "tests/sim/pds.h"
#include "tests/sim/stranger.h"

#define GAP_MIN_NS	  NS_PER_S
#define GAP_MAX_NS	  (16 * NS_PER_S)
#define CUT_MAX_NS	  (15 * NS_PER_S)
#define CUT_LONG_NS	  (30 * NS_PER_S)
#define LINK_MIN_NS	  (NS_PER_MS / 2)
#define LINK_MAX_NS	  (2 * NS_PER_MS)
#define LINK_SLOW_NS	  (400 * NS_PER_MS)
#define PAUSE_MAX_NS	  (15 * NS_PER_S)
#define CLOCK_MAX_NS	  (2 * (int64_t)NS_PER_S)
#define CLOCK_OK_NS	  (200 * (int64_t)NS_PER_MS)
#define WITHDRAW_MAX_NS	  (20 * NS_PER_S)
#define CONTEST_MAX_NS	  (6 * NS_PER_S)
#define SILENCE_MIN_NS	  (300 * NS_PER_MS)
#define SILENCE_MAX_NS	  (1500 * NS_PER_MS)
#define STRAND_MAX_NS	  (300 * NS_PER_MS)
#define STRAND_AWAY_NS	  (9 * NS_PER_S)
#define DRAIN_MAX_NS	  (40 * NS_PER_S)
#define MOVES_GAP_NS	  (12 * NS_PER_S)
#define SHOTS_GAP_NS	  (15 * NS_PER_S)
#define MIGRATIONS_GAP_NS (8 * NS_PER_S)
#define CERTIFY_GAP_NS	  (8 * NS_PER_S)
#define CERTIFIED_MIN_NS  (10 * NS_PER_S)
#define CERTIFIED_MAX_NS  (60 * NS_PER_S)
#define FULL_GAP_NS	  (15 * NS_PER_S)
#define FULL_MAX_NS	  (40 * NS_PER_S)
#define IO_AHEAD_MAX	  60u
#define ROTTEN_AT_LAST	  6u
#define ALL_OF_ETCD	  ((1u << SIM_ETCD_SERVERS) - 1)
#define REGISTER_CUT_NS	  (12 * NS_PER_S)
#define REGISTER_HALT_NS  (8 * NS_PER_S)
#define SNAPSHOT_LONG_NS  (43200 * (int64_t)NS_PER_S)
#define SNAPSHOT_SHORT_NS (25 * (int64_t)NS_PER_S)
#define SNAPSHOT_RENEW_NS (6 * NS_PER_S)

static bool over(struct cluster *c);

/* Not the administrator. */
static struct machine *any_machine(struct cluster *c)
{
	return &c->machines[fault_below(c, c->machine_count - 1)];
}

/* -- the faults ------------------------------------------------------------------------------ */

/* A machine that is down loses power, too, and with it what was not synced. */
static bool crash(struct machine *m, enum sim_crash how)
{
	const bool was_alive = m->process->alive;

	sim_process_crash(m->process, how);
	return was_alive;
}

static bool kill_one(struct cluster *c)
{
	c->stats.kills++;
	return crash(any_machine(c), SIM_KILL);
}

static bool power_loss_of_one(struct cluster *c)
{
	c->stats.power_losses++;
	return crash(any_machine(c), SIM_POWER_LOSS);
}

static bool power_loss_of_all(struct cluster *c)
{
	sim_trace(c->world, NULL, "power loss of everything");
	c->stats.power_losses++;
	for (uint32_t i = 0; i < c->machine_count - 1; i++) {
		sim_process_crash(c->machines[i].process, SIM_POWER_LOSS);
	}
	return true;
}

static bool power_loss_of_nodes(struct cluster *c)
{
	sim_trace(c->world, NULL, "power loss of all nodes");
	c->stats.power_losses++;
	for (uint32_t i = 0; i < c->node_count; i++) {
		sim_process_crash(c->nodes[i]->process, SIM_POWER_LOSS);
	}
	return true;
}

/* At one of its next I/Os. */
static bool crash_at_io(struct cluster *c)
{
	struct machine *m = fault_chance(c, 1, 6) ? pds_leader(c) : fault_node(c);

	if (!m->process->alive)
		return false;
	c->stats.io_crashes++;
	sim_process_on_io(m->process, 1 + fault_below(c, IO_AHEAD_MAX),
			  fault_chance(c, 1, 2) ? SIM_IO_KILL : SIM_IO_POWER_LOSS);
	return true;
}

static void end_pause(struct ending *e)
{
	sim_process_resume(e->a->process);
}

static bool pause_it(struct cluster *c, struct machine *m)
{
	const bool ran = m->process->alive && !m->process->paused;

	c->stats.pauses++;
	sim_process_pause(m->process);
	fault_end_later(c, m, NULL, 0, PAUSE_MAX_NS, end_pause);
	return ran;
}

static bool pause_one(struct cluster *c)
{
	return pause_it(c, any_machine(c));
}

static void end_cut(struct ending *e)
{
	sim_net_cut(e->a->process, e->b->process, false);
}

static bool cut_one_way(struct cluster *c)
{
	struct machine *a = any_machine(c), *b = any_machine(c);

	if (a == b)
		return false;
	c->stats.cuts++;
	sim_net_cut(a->process, b->process, true);
	fault_end_later(c, a, b, 0, CUT_MAX_NS, end_cut);
	return true;
}

static void end_isolation(struct ending *e)
{
	sim_net_isolate(e->a->process, false);
	if (e->cluster->etcd != NULL)
		sim_etcd_cut(e->cluster->etcd, e->a->process, 0);
}

static bool isolate(struct cluster *c, struct machine *m)
{
	c->stats.cuts++;
	sim_net_isolate(m->process, true);
	/* The register lies elsewhere, or beside it. */
	if (m->kind == MACHINE_PD && c->etcd != NULL && fault_chance(c, 1, 2))
		sim_etcd_cut(c->etcd, m->process, ALL_OF_ETCD);
	fault_end_later(c, m, NULL, 0, CUT_MAX_NS, end_isolation);
	return true;
}

static bool isolate_one(struct cluster *c)
{
	return isolate(c, any_machine(c));
}

static bool disconnect_two(struct cluster *c)
{
	struct machine *a = any_machine(c), *b = any_machine(c);

	c->stats.disconnects++;
	if (a != b)
		sim_net_disconnect(a->process, b->process);
	return a != b;
}

static void end_clock(struct ending *e)
{
	e->a->process->wall_offset_ns =
	    (int64_t)fault_below(e->cluster, 2 * CLOCK_OK_NS) - CLOCK_OK_NS;
}

static bool step_clock_of(struct cluster *c, struct machine *m)
{
	int64_t by = (int64_t)fault_below(c, 2 * CLOCK_MAX_NS) - CLOCK_MAX_NS;

	c->stats.clock_steps++;
	sim_trace(c->world, m->process, "wall clock steps to %ld ms", by / (int64_t)NS_PER_MS);
	m->process->wall_offset_ns = by;
	fault_end_later(c, m, NULL, 0, CUT_MAX_NS, end_clock);
	return true;
}

static bool step_clock(struct cluster *c)
{
	return step_clock_of(c, any_machine(c));
}

static bool withdraw_one(struct cluster *c)
{
	uint32_t site = (uint32_t)fault_below(c, c->node_count);

	if (!cluster_withdraw(c, site, true))
		return false;
	c->stats.revocations++;
	fault_end_later(c, NULL, NULL, site, WITHDRAW_MAX_NS, fault_end_withdrawal);
	return true;
}

/* One direction, or back, for some time. */
static void cut_for(struct cluster *c, struct machine *from, struct machine *to, uint64_t max_ns)
{
	sim_net_cut(from->process, to->process, true);
	fault_end_later(c, from, to, 0, max_ns, end_cut);
}

/* Now the old host hears the nodes again; the two that the new host has opened have just restarted,
 * and it cannot open them anew yet: their fence must hold by itself. */
static void break_silence(struct ending *e)
{
	struct cluster *c = e->cluster;
	struct machine *old = e->a, *new = e->b;

	if (over(c))
		return;
	c->stats.contests_silent++;
	for (uint32_t n = 0; n < c->node_count; n++) {
		if (n != e->site)
			sim_process_crash(c->nodes[n]->process, SIM_POWER_LOSS);
		cut_for(c, new, c->nodes[n], CONTEST_MAX_NS);
		sim_net_cut(c->nodes[n]->process, old->process, false);
		sim_net_cut(old->process, c->nodes[n]->process, false);
	}
}

/* The old host hears nothing for a moment, in which the new one opens the volume on two nodes. */
static void contest_in_silence(struct cluster *c, struct machine *old, struct machine *new)
{
	uint32_t deaf = (uint32_t)fault_below(c, c->node_count);

	for (uint32_t n = 0; n < c->node_count; n++) {
		sim_net_cut(c->nodes[n]->process, old->process, true);
		sim_net_cut(old->process, c->nodes[n]->process, true);
	}
	sim_net_cut(new->process, c->nodes[deaf]->process, true);
	sim_schedule(c->world, NULL, fault_range(c, SILENCE_MIN_NS, SILENCE_MAX_NS),
		     fault_run_ending, fault_ending(c, old, new, deaf, break_silence));
}

/* A node doesn't hear the new host; others may restart. */
static void contest_with_deaf_node(struct cluster *c, struct machine *new)
{
	c->stats.contests_deaf++;
	cut_for(c, new, fault_node(c), CONTEST_MAX_NS);
	if (fault_chance(c, 1, 2))
		fault_end_later(c, fault_node(c), NULL, 0, CONTEST_MAX_NS, fault_kill);
}

/* The other host attaches while the driver cannot tell the one that has the volume. */
static bool contest(struct cluster *c)
{
	struct machine *old = fault_attached_host(c), *new;

	new = old == c->hosts[0] ? c->hosts[1] : c->hosts[0];
	if (old == NULL || !guest_attach_now(new->guest))
		return false;
	c->stats.contests++;
	sim_trace(c->world, NULL, "contest: %s against %s", new->process->name, old->process->name);
	for (uint32_t p = 0; p < c->pd_count; p++)
		cut_for(c, c->pds[p], old, CUT_MAX_NS);
	if (fault_chance(c, 1, 2))
		contest_in_silence(c, old, new);
	else
		contest_with_deaf_node(c, new);
	return true;
}

/* -- a stranded write, in three acts --------------------------------------------------------- */

static void end_strand(struct ending *e)
{
	sim_net_isolate(e->a->process, false);
	e->cluster->favour = FAVOUR_NONE;
}

/* Act 3: the node that holds it is back, another is away, and the volume is attached anew. */
static void strand_return(struct ending *e)
{
	struct cluster *c = e->cluster;

	if (over(c))
		return;
	sim_net_isolate(e->a->process, false);
	if (fault_chance(c, 1, 3)) {
		c->favour = FAVOUR_NONE;
		return;
	}
	c->stats.strands_done++;
	sim_trace(c->world, NULL, "strand: %s is back, %s away", e->a->process->name,
		  e->b->process->name);
	sim_net_isolate(e->b->process, true);
	fault_end_later(c, e->b, NULL, 0, STRAND_AWAY_NS, end_strand);
	for (uint32_t h = 0; h < CLUSTER_HOSTS; h++)
		sim_process_crash(c->hosts[h]->process, SIM_KILL);
}

/* Act 2: the host dies, and the only node that got its last writes is away for long. */
static void strand_crash(struct ending *e)
{
	struct cluster *c = e->cluster;
	struct machine *host = fault_attached_host(c), *other;

	if (over(c))
		return;
	c->favour = FAVOUR_READS;
	do
		other = fault_node(c);
	while (other == e->a);
	sim_net_isolate(e->a->process, true);
	/* Without power: what was held back never gets there. */
	if (host != NULL)
		sim_process_crash(host->process, SIM_POWER_LOSS);
	for (uint32_t h = 0; h < CLUSTER_HOSTS; h++)
		for (uint32_t n = 0; n < c->node_count; n++)
			if (c->nodes[n] != e->a)
				sim_net_cut(c->hosts[h]->process, c->nodes[n]->process, false);
	sim_schedule(c->world, NULL, STRAND_AWAY_NS + fault_below(c, STRAND_AWAY_NS),
		     fault_run_ending, fault_ending(c, e->a, other, 0, strand_return));
}

/* Act 1: for a moment the writes of the host get to one node only. */
static bool strand(struct cluster *c)
{
	struct machine *host = fault_attached_host(c), *node = fault_node(c);

	if (host == NULL || c->favour != FAVOUR_NONE)
		return false;
	c->stats.strands++;
	c->favour = FAVOUR_WRITES;
	c->favoured_chunk = (uint32_t)fault_below(c, CLUSTER_VOLUME_SIZE / CLUSTER_CHUNK_SIZE);
	sim_trace(c->world, NULL, "strand: what %s writes gets to %s only", host->process->name,
		  node->process->name);
	for (uint32_t n = 0; n < c->node_count; n++)
		if (c->nodes[n] != node)
			sim_net_cut(host->process, c->nodes[n]->process, true);
	fault_end_later(c, node, NULL, 0, STRAND_MAX_NS, strand_crash);
	return true;
}

/* Whether this copy of what was written to a block of the volume may rot. Two copies of everything
 * stay good: all that rots is on one node, or, where every node has some of it, each block only
 * ever rots on one. */
static bool may_rot(const struct cluster *c, uint32_t node, uint64_t block)
{
	return !c->rot_everywhere || (block + c->world->seed) % c->node_count == node;
}

/* Bit rot in a block of data. */
static bool rot(struct cluster *c)
{
	const uint32_t node =
	    c->rot_everywhere ? (uint32_t)fault_below(c, c->node_count) : c->rot_node;
	struct machine *m = c->nodes[node];
	const uint32_t count = bays_count(m->bays);
	const uint32_t bay = count > 1 ? (uint32_t)fault_below(c, count) : 0;
	struct sim_disk *disk = bays_disk(m->bays, bay);
	uint64_t blocks = bays_size(m->bays, bay) / BLOCK_SIZE;

	for (unsigned tries = 0; tries < 500; tries++) {
		uint64_t offset = fault_below(c, blocks) * BLOCK_SIZE;
		uint64_t at = offset + fault_range(c, ORACLE_STAMP_SIZE, BLOCK_SIZE - 1);
		uint8_t stamp[ORACLE_STAMP_SIZE], byte;

		sim_disk_peek(disk, offset, stamp, sizeof(stamp));
		if (!oracle_is_stamped(stamp) || !may_rot(c, node, oracle_block_of(stamp)))
			continue;
		sim_disk_peek(disk, at, &byte, 1);
		byte ^= (uint8_t)(1u << fault_below(c, 8));
		sim_disk_poke(disk, at, &byte, 1);
		sim_trace(c->world, m->process, "bit rot at %lu", at);
		c->stats.rot++;
		return true;
	}
	return false;
}

/* Snapshots that run out soon, and an administrator who doesn't always bring the next in time. */
static void next_snapshot(void *arg)
{
	struct cluster *c = arg;

	if (c->faults_over)
		return;
	if (!fault_chance(c, 1, 8))
		cluster_renew_snapshot(c);
	sim_schedule(c->world, NULL, SNAPSHOT_RENEW_NS, next_snapshot, c);
}

static void begin_short_snapshots(struct cluster *c)
{
	c->snapshot_life_ns = SNAPSHOT_SHORT_NS;
	sim_schedule(c->world, NULL, SNAPSHOT_RENEW_NS, next_snapshot, c);
}

/* Certificates that end soon, and an authority that does not always issue the next in time. */
static void next_certificate(void *arg)
{
	struct cluster *c = arg;

	if (c->faults_over)
		return;
	c->fault_stream = c->world->seed * 0xaef17502108ef2d9ull + c->stats.certificates++;
	cluster_certify(c, (uint32_t)fault_below(c, c->node_count),
			(int64_t)fault_range(c, CERTIFIED_MIN_NS, CERTIFIED_MAX_NS));
	sim_schedule(c->world, NULL, fault_below(c, CERTIFY_GAP_NS), next_certificate, c);
}

static void drain_back(struct ending *e)
{
	/* The administrator is busy, or has no session: again, later. */
	if (!over(e->cluster) && !cluster_rebalance(e->cluster, e->a->process->name, true))
		fault_end_later(e->cluster, e->a, NULL, 0, NS_PER_S, drain_back);
}

/* A node is drained, for a while or for long; or levelling is asked for. */
static void move_some(struct cluster *c)
{
	struct machine *m = fault_node(c);

	c->stats.moves++;
	if (fault_chance(c, 1, 4)) {
		cluster_rebalance(c, NULL, fault_chance(c, 1, 4));
	} else if (cluster_rebalance(c, m->process->name, false)) {
		sim_trace(c->world, NULL, "%s is drained", m->process->name);
		fault_end_later(c, m, NULL, 0, DRAIN_MAX_NS, drain_back);
	}
}

static void next_moves(void *arg)
{
	struct cluster *c = arg;

	if (c->faults_over)
		return;
	c->fault_stream = c->world->seed * 0xd1342543de82ef95ull + c->stats.moves;
	move_some(c);
	sim_schedule(c->world, NULL, fault_below(c, MOVES_GAP_NS), next_moves, c);
}

/* -- more faults of the network and the disk ------------------------------------------------- */

static bool is_in(uint64_t mask, uint32_t machine)
{
	return (mask >> machine & 1) != 0;
}

static void cut_between(struct cluster *c, uint64_t mask, bool cut)
{
	for (uint32_t i = 0; i < c->machine_count - 1; i++)
		for (uint32_t j = 0; j < c->machine_count - 1; j++)
			if (is_in(mask, i) != is_in(mask, j))
				sim_net_cut(c->machines[i].process, c->machines[j].process, cut);
}

static void end_partition(struct ending *e)
{
	cut_between(e->cluster, e->site, false);
}

/* The machines fall into two groups, which do not hear each other. */
static bool partition(struct cluster *c)
{
	uint32_t mask = (uint32_t)fault_range(c, 1, (1u << (c->machine_count - 1)) - 2);

	c->stats.cuts++;
	sim_trace(c->world, NULL, "partition: %x against the rest", mask);
	cut_between(c, mask, true);
	fault_end_later(c, NULL, NULL, mask, CUT_MAX_NS, end_partition);
	return true;
}

/* One machine and the driver, in one direction or both, for longer than a permit lives. */
static bool cut_from_driver(struct cluster *c)
{
	struct machine *m = any_machine(c);
	bool cut = false;

	if (m->kind == MACHINE_PD)
		return false;
	c->stats.cuts++;
	for (uint32_t p = 0; p < c->pd_count; p++) {
		if (fault_chance(c, 2, 3)) {
			cut_for(c, c->pds[p], m, CUT_LONG_NS);
			cut = true;
		}
		if (fault_chance(c, 2, 3)) {
			cut_for(c, m, c->pds[p], CUT_LONG_NS);
			cut = true;
		}
	}
	return cut;
}

static void end_slow_link(struct ending *e)
{
	sim_net_set_delay(e->a->process, e->b->process, LINK_MIN_NS, LINK_MAX_NS);
}

static void slow_link(struct cluster *c, struct machine *a, struct machine *b, uint64_t ns)
{
	sim_net_set_delay(a->process, b->process, ns / 8, ns);
	fault_end_later(c, a, b, 0, CUT_MAX_NS, end_slow_link);
}

/* Its messages, or those to it, or both, take long, and overtake each other on different
 * connections. */
static bool slow_machine(struct cluster *c)
{
	struct machine *m = any_machine(c);
	uint64_t ns = fault_range(c, LINK_MAX_NS, LINK_SLOW_NS);
	uint64_t ways = fault_range(c, 1, 3);

	c->stats.slow_links++;
	sim_trace(c->world, m->process, "messages take up to %llu ms", ns / NS_PER_MS);
	for (uint32_t i = 0; i < c->machine_count - 1; i++) {
		if (&c->machines[i] == m)
			continue;
		if ((ways & 1) != 0)
			slow_link(c, m, &c->machines[i], ns);
		if ((ways & 2) != 0)
			slow_link(c, &c->machines[i], m, ns);
	}
	return true;
}

/* A disk, or the index, refuses one of its next I/Os; the operator restarts the node later. */
static bool fail_io(struct cluster *c)
{
	struct machine *m = fault_node(c);

	if (!m->process->alive)
		return false;
	c->stats.io_errors++;
	sim_process_on_io(m->process, 1 + fault_below(c, IO_AHEAD_MAX), SIM_IO_FAIL);
	fault_end_later(c, m, NULL, 0, CUT_MAX_NS, fault_kill);
	return true;
}

static bool kill_driver(struct cluster *c)
{
	c->stats.kills++;
	return crash(pds_leader(c), fault_chance(c, 1, 2) ? SIM_KILL : SIM_POWER_LOSS);
}

static bool kill_host(struct cluster *c)
{
	struct machine *m = fault_attached_host(c);

	if (m == NULL)
		return false;
	c->stats.kills++;
	return crash(m, fault_chance(c, 1, 2) ? SIM_KILL : SIM_POWER_LOSS);
}

static void next_shot(void *arg)
{
	struct cluster *c = arg;

	if (c->faults_over)
		return;
	if (c->shot_count < 2 || fault_chance(c, 1, 2))
		cluster_take_shot(c);
	else
		cluster_delete_shot(c);
	sim_schedule(c->world, NULL, fault_below(c, SHOTS_GAP_NS), next_shot, c);
}

/* The other host prepares to take the volume over, and does so a little later. */
static void next_migration(void *arg)
{
	struct cluster *c = arg;
	struct machine *old = fault_attached_host(c), *new;

	if (c->faults_over)
		return;
	new = old == c->hosts[0] ? c->hosts[1] : c->hosts[0];
	if (old != NULL && guest_migrate(new->guest))
		sim_trace(c->world, NULL, "migration: from %s to %s", old->process->name,
			  new->process->name);
	sim_schedule(c->world, NULL, fault_below(c, MIGRATIONS_GAP_NS), next_migration, c);
}

static void end_stranger(struct ending *e)
{
	stranger_leave(e->a->stranger);
}

/* The disk of a node becomes full, and it is not the volume that can change that. */
static void next_stranger(void *arg)
{
	struct cluster *c = arg;
	struct machine *m;

	if (c->faults_over)
		return;
	c->fault_stream = c->world->seed * 0xda942042e4dd58b5ull + c->stats.strangers++;
	m = fault_node(c);
	sim_trace(c->world, m->process, "a stranger fills the disk");
	stranger_come(m->stranger);
	fault_end_later(c, m, NULL, 0, FULL_MAX_NS, end_stranger);
	sim_schedule(c->world, NULL, fault_below(c, FULL_GAP_NS), next_stranger, c);
}

/* -- two drivers and their register, in the seeds that have them ------------------------------ */

static void end_register_cut(struct ending *e)
{
	sim_etcd_cut(e->cluster->etcd, e->a->process, 0);
}

/* Of one driver, mostly the one that leads; from some servers, or all. */
static bool cut_from_register(struct cluster *c)
{
	struct machine *m =
	    fault_chance(c, 2, 3) ? pds_leader(c) : c->pds[fault_below(c, c->pd_count)];

	c->stats.cuts++;
	sim_etcd_cut(c->etcd, m->process,
		     fault_chance(c, 2, 3) ? ALL_OF_ETCD
					   : (uint32_t)fault_range(c, 1, ALL_OF_ETCD));
	fault_end_later(c, m, NULL, 0, REGISTER_CUT_NS, end_register_cut);
	return true;
}

static void end_halt(struct ending *e)
{
	sim_etcd_halt(e->cluster->etcd, false);
}

static bool halt_register(struct cluster *c)
{
	c->stats.cuts++;
	sim_etcd_halt(c->etcd, true);
	fault_end_later(c, NULL, NULL, 0, REGISTER_HALT_NS, end_halt);
	return true;
}

static bool pause_leader(struct cluster *c)
{
	return pause_it(c, pds_leader(c));
}

/* Nobody hears it any more, and it may lead on; or another does. */
static bool isolate_leader(struct cluster *c)
{
	return isolate(c, pds_leader(c));
}

static bool stop_leader(struct cluster *c)
{
	struct machine *m = pds_leader(c);
	const bool was_alive = m->process->alive;

	c->stats.kills++;
	pds_stop(m);
	return was_alive;
}

static bool step_leaders_clock(struct cluster *c)
{
	return step_clock_of(c, pds_leader(c));
}

/* -- choosing -------------------------------------------------------------------------------- */

struct kind {
	const char *name;
	bool (*begin)(struct cluster *c); /* false: there was nothing that it could be done to */
	uint32_t weight;
};

static const struct kind kinds[] = {
    {"kill", kill_one, 30},
    {"power loss", power_loss_of_one, 10},
    {"power loss of everything", power_loss_of_all, 2},
    {"power loss of all nodes", power_loss_of_nodes, 3},
    {"crash at an I/O", crash_at_io, 20},
    {"pause", pause_one, 10},
    {"one-way cut", cut_one_way, 12},
    {"isolation", isolate_one, 8},
    {"disconnection", disconnect_two, 12},
    {"clock step", step_clock, 5},
    {"slow disk", faults_slow_disk, 5},
    {"withdrawal", withdraw_one, 6},
    {"bit rot", rot, 8},
    {"partition", partition, 6},
    {"cut from the driver", cut_from_driver, 8},
    {"slow messages", slow_machine, 8},
    {"I/O error", fail_io, 5},
    {"driver crash", kill_driver, 5},
    {"host crash", kill_host, 8},
    {"contest", contest, 20},
    {"strand", strand, 20},
    {"cut from the register", cut_from_register, 25},
    {"register without majority", halt_register, 10},
    {"leader crash", kill_driver, 20},
    {"leader pause", pause_leader, 20},
    {"leader isolation", isolate_leader, 12},
    {"leader ended", stop_leader, 10},
    {"leader's clock step", step_leaders_clock, 5},
};
_Static_assert(ARRAY_SIZE(kinds) == FAULTS_KINDS && FAULTS_KINDS <= CLUSTER_FAULT_KINDS,
	       "each is counted");

const char *faults_kind_name(uint32_t kind)
{
	return kinds[kind].name;
}

/* In front of them: contest and strand. From here on those of two drivers, which all seeds that
 * have them take. */
#define FIRST_OF_TWO 21u
#define SCRIPTS	     (3ull << (FIRST_OF_TWO - 2))

static uint32_t used(const struct cluster *c, size_t kind)
{
	if (kind >= FIRST_OF_TWO)
		return c->etcd != NULL ? kinds[kind].weight : 0;
	return (c->fault_kinds >> kind) & 1 ? kinds[kind].weight : 0;
}

static bool over(struct cluster *c)
{
	return c->faults_over;
}

static size_t choose_kind(struct cluster *c)
{
	uint64_t sum = 0, x;
	size_t i;

	for (i = 0; i < ARRAY_SIZE(kinds); i++)
		sum += used(c, i);
	if (sum == 0)
		return ARRAY_SIZE(kinds);
	x = fault_below(c, sum);
	for (i = 0; x >= used(c, i); i++)
		x -= used(c, i);
	return i;
}

static bool is_left_out(const struct cluster *c, uint32_t number)
{
	return number < FAULTS_MAX && c->left_out != NULL && c->left_out->faults[number];
}

static void begin_one(struct cluster *c, uint32_t number)
{
	size_t kind = choose_kind(c);

	if (kind == ARRAY_SIZE(kinds) || is_left_out(c, number))
		return;
	sim_trace(c->world, NULL, "fault %u: %s", number, kinds[kind].name);
	c->stats.faults[kind] += kinds[kind].begin(c);
}

static void next_fault(void *arg)
{
	struct cluster *c = arg;
	uint32_t number = c->fault_count;

	if (c->faults_over)
		return;
	c->fault_count++;
	c->fault_stream = c->world->seed * 0x2545f4914f6cdd1dull + number;
	fault_random(&c->fault_stream);
	begin_one(c, number);
	c->fault_stream = c->world->seed * 0x9e6c63d0876a9a47ull + number;
	sim_schedule(c->world, NULL, fault_below(c, c->fault_gap_ns), next_fault, c);
}

/* What is left out takes its draw, too, so that the others have theirs. */
static void begin_course(struct cluster *c, enum faults_course course, uint64_t gap_ns,
			 void (*next)(void *arg))
{
	const uint64_t delay_ns = fault_below(c, gap_ns);

	if (faults_course(c, course))
		sim_schedule(c->world, NULL, delay_ns, next, c);
}

void faults_begin(struct cluster *c)
{
	const uint64_t seed = c->world->seed;

	/* A third of the seeds has everything, a third a random half, a third the scripts and
	 * little else. */
	c->fault_stream = ~seed;
	c->fault_kinds = fault_random(&c->fault_stream);
	if (seed % 3 == 0)
		c->fault_kinds = UINT64_MAX;
	else if (seed % 3 == 1)
		c->fault_kinds = (c->fault_kinds & fault_random(&c->fault_stream)) | SCRIPTS;
	c->rot_node = (uint32_t)fault_below(c, c->node_count);
	c->rot_everywhere = seed % 5 < 2;
	c->fault_gap_ns = fault_range(c, GAP_MIN_NS, GAP_MAX_NS);
	c->world->check_mid_turns = fault_chance(c, 1, 2) && faults_course(c, FAULTS_STALLS);
	sim_schedule(c->world, NULL, fault_below(c, GAP_MAX_NS), next_fault, c);
	if (fault_chance(c, 1, 4) && faults_course(c, FAULTS_EXPIRY))
		begin_short_snapshots(c);
	/* With three nodes nothing can move. */
	if (c->node_count > 3)
		begin_course(c, FAULTS_MOVES, MOVES_GAP_NS, next_moves);
	if (c->node_count <= 3 || fault_chance(c, 2, 3) || faults_slow_settling(seed))
		begin_course(c, FAULTS_SNAPSHOTS, SHOTS_GAP_NS, next_shot);
	if (seed % 4 == 3)
		begin_course(c, FAULTS_MIGRATIONS, MIGRATIONS_GAP_NS, next_migration);
	if (seed % 11 == 0 || seed % 11 == 3)
		begin_course(c, FAULTS_CERTIFICATES, CERTIFY_GAP_NS, next_certificate);
	if (seed % 11 == 1 || seed % 11 == 8)
		begin_course(c, FAULTS_STRANGERS, FULL_GAP_NS, next_stranger);
	faults_disks_begin(c);
	faults_evidence_begin(c);
}

/* For good: the other one has to do. */
static void lose_driver(struct cluster *c)
{
	struct machine *m = c->pds[sim_random_below(c->world, c->pd_count)];

	sim_trace(c->world, m->process, "lost for ever");
	m->dead_for_ever = true;
	sim_process_crash(m->process, SIM_POWER_LOSS);
}

void faults_end(struct cluster *c, uint32_t lost_node)
{
	c->faults_over = true;
	c->favour = FAVOUR_NONE;
	c->snapshot_life_ns = SNAPSHOT_LONG_NS;
	c->world->check_mid_turns = false;
	sim_trace(c->world, NULL, "faults end");
	sim_net_heal_all(c->world);
	if (c->etcd != NULL)
		sim_etcd_heal_all(c->etcd);
	for (uint32_t i = 0; i < c->machine_count; i++) {
		struct machine *m = &c->machines[i];

		sim_process_on_io(m->process, 1, SIM_IO_NORMAL);
		m->process->wall_offset_ns = 0;
		if (m->stranger != NULL)
			stranger_leave(m->stranger);
		sim_process_resume(m->process); /* if it is paused */
		machine_boot_later(m, NS_PER_S);
	}
	if (c->etcd != NULL && sim_chance(c->world, 1, 2) && faults_course(c, FAULTS_LOSS))
		lose_driver(c);
	/* The operator restarts nodes whose disks have failed. */
	for (uint32_t i = 0; i < c->node_count && c->stats.io_errors > 0; i++)
		sim_process_crash(c->nodes[i]->process, SIM_KILL);
	faults_disks_end(c);
	if (lost_node < c->node_count && !faults_disks_lose(c, c->nodes[lost_node])) {
		sim_trace(c->world, c->nodes[lost_node]->process, "lost for ever");
		c->nodes[lost_node]->dead_for_ever = true;
		sim_process_crash(c->nodes[lost_node]->process, SIM_POWER_LOSS);
	}
}

void faults_rot(struct cluster *c)
{
	if (!faults_course(c, FAULTS_LAST_ROT))
		return;
	c->fault_stream = c->world->seed * 0xd1342543de82ef95ull;
	for (unsigned i = 0; i < ROTTEN_AT_LAST; i++)
		rot(c);
}
