/* faults: see faults.h.
 *
 * Each fault is chosen by weight and carries its own end (a boot, a heal, a resume at a random time
 * to come). Several may overlap, up to all machines being down at once. A seed takes some kinds of
 * faults and leaves out others, so that seeds differ in more than their details. */
#include "tests/sim/faults.h"

#include <stdlib.h>

#include "engine/base/assert.h"
#include "tests/sim/guest.h"

#define GAP_MIN_NS	  NS_PER_S
#define GAP_MAX_NS	  (16 * NS_PER_S)
#define CUT_MAX_NS	  (15 * NS_PER_S)
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
#define IO_AHEAD_MAX	  60u
#define SNAPSHOT_LONG_NS  (43200 * (int64_t)NS_PER_S)
#define SNAPSHOT_SHORT_NS (25 * (int64_t)NS_PER_S)
#define SNAPSHOT_RENEW_NS (6 * NS_PER_S)

/* One that goes on: what it takes to end it. */
struct ending {
	struct cluster *cluster;
	struct machine *a, *b;
	uint32_t site;
	void (*end)(struct ending *e);
};

static bool over(struct cluster *c);

static void run_ending(void *arg)
{
	struct ending *e = arg;

	e->end(e);
	free(e);
}

static struct ending *ending_create(struct cluster *c, struct machine *a, struct machine *b,
				    uint32_t site, void (*end)(struct ending *e))
{
	struct ending *e = calloc(1, sizeof(*e));

	INVARIANT(e != NULL);
	*e = (struct ending){.cluster = c, .a = a, .b = b, .site = site, .end = end};
	return e;
}

static void end_later(struct cluster *c, struct machine *a, struct machine *b, uint32_t site,
		      uint64_t max_ns, void (*end)(struct ending *e))
{
	sim_schedule(c->world, NULL, sim_random_below(c->world, max_ns), run_ending,
		     ending_create(c, a, b, site, end));
}

/* Not the administrator. */
static struct machine *any_machine(struct cluster *c)
{
	return &c->machines[sim_random_below(c->world, c->machine_count - 1)];
}

static struct machine *any_node(struct cluster *c)
{
	return c->nodes[sim_random_below(c->world, c->node_count)];
}

/* -- the faults ------------------------------------------------------------------------------ */

static void kill_one(struct cluster *c)
{
	struct machine *m = any_machine(c);

	c->stats.kills++;
	sim_process_crash(m->process, SIM_KILL);
}

static void power_loss_of_one(struct cluster *c)
{
	struct machine *m = any_machine(c);

	c->stats.power_losses++;
	sim_process_crash(m->process, SIM_POWER_LOSS);
}

static void power_loss_of_all(struct cluster *c)
{
	sim_trace(c->world, NULL, "power loss of everything");
	c->stats.power_losses++;
	for (uint32_t i = 0; i < c->machine_count - 1; i++) {
		sim_process_crash(c->machines[i].process, SIM_POWER_LOSS);
	}
}

static void power_loss_of_nodes(struct cluster *c)
{
	sim_trace(c->world, NULL, "power loss of all nodes");
	c->stats.power_losses++;
	for (uint32_t i = 0; i < c->node_count; i++) {
		sim_process_crash(c->nodes[i]->process, SIM_POWER_LOSS);
	}
}

/* At one of its next I/Os. */
static void crash_at_io(struct cluster *c)
{
	struct machine *m = sim_chance(c->world, 1, 6) ? c->pd : any_node(c);

	if (!m->process->alive)
		return;
	c->stats.io_crashes++;
	sim_process_on_io(m->process, 1 + sim_random_below(c->world, IO_AHEAD_MAX),
			  sim_chance(c->world, 1, 2) ? SIM_IO_KILL : SIM_IO_POWER_LOSS);
}

static void end_pause(struct ending *e)
{
	sim_process_resume(e->a->process);
}

static void pause_one(struct cluster *c)
{
	struct machine *m = any_machine(c);

	c->stats.pauses++;
	sim_process_pause(m->process);
	end_later(c, m, NULL, 0, PAUSE_MAX_NS, end_pause);
}

static void end_cut(struct ending *e)
{
	sim_net_cut(e->a->process, e->b->process, false);
}

static void cut_one_way(struct cluster *c)
{
	struct machine *a = any_machine(c), *b = any_machine(c);

	if (a == b)
		return;
	c->stats.cuts++;
	sim_net_cut(a->process, b->process, true);
	end_later(c, a, b, 0, CUT_MAX_NS, end_cut);
}

static void end_isolation(struct ending *e)
{
	sim_net_isolate(e->a->process, false);
}

static void isolate_one(struct cluster *c)
{
	struct machine *m = any_machine(c);

	c->stats.cuts++;
	sim_net_isolate(m->process, true);
	end_later(c, m, NULL, 0, CUT_MAX_NS, end_isolation);
}

static void disconnect_two(struct cluster *c)
{
	struct machine *a = any_machine(c), *b = any_machine(c);

	c->stats.disconnects++;
	if (a != b)
		sim_net_disconnect(a->process, b->process);
}

static void end_clock(struct ending *e)
{
	e->a->process->wall_offset_ns =
	    (int64_t)sim_random_below(e->cluster->world, 2 * CLOCK_OK_NS) - CLOCK_OK_NS;
}

static void step_clock(struct cluster *c)
{
	struct machine *m = any_machine(c);
	int64_t by = (int64_t)sim_random_below(c->world, 2 * CLOCK_MAX_NS) - CLOCK_MAX_NS;

	c->stats.clock_steps++;
	sim_trace(c->world, m->process, "wall clock steps to %ld ms", by / (int64_t)NS_PER_MS);
	m->process->wall_offset_ns = by;
	end_later(c, m, NULL, 0, CUT_MAX_NS, end_clock);
}

static void end_slowness(struct ending *e)
{
	sim_disk_set_slowness(e->a->disk, 1);
}

static void slow_disk(struct cluster *c)
{
	struct machine *m = any_node(c);

	sim_disk_set_slowness(m->disk, sim_random_range(c->world, 5, 400));
	end_later(c, m, NULL, 0, CUT_MAX_NS, end_slowness);
}

static void end_withdrawal(struct ending *e)
{
	/* The administrator is busy, or has no session: again, later. */
	if (!over(e->cluster) && !cluster_withdraw(e->cluster, e->site, false))
		end_later(e->cluster, NULL, NULL, e->site, NS_PER_S, end_withdrawal);
}

static void withdraw_one(struct cluster *c)
{
	uint32_t site = (uint32_t)sim_random_below(c->world, c->node_count);

	if (!cluster_withdraw(c, site, true))
		return;
	c->stats.revocations++;
	end_later(c, NULL, NULL, site, WITHDRAW_MAX_NS, end_withdrawal);
}

static void kill_it(struct ending *e)
{
	if (!over(e->cluster))
		sim_process_crash(e->a->process,
				  sim_chance(e->cluster->world, 1, 2) ? SIM_KILL : SIM_POWER_LOSS);
}

static struct machine *attached_host(struct cluster *c)
{
	for (uint32_t h = 0; h < CLUSTER_HOSTS; h++)
		if (c->hosts[h]->guest->phase == GUEST_ATTACHED)
			return c->hosts[h];
	return NULL;
}

/* One direction, or back, for some time. */
static void cut_for(struct cluster *c, struct machine *from, struct machine *to, uint64_t max_ns)
{
	sim_net_cut(from->process, to->process, true);
	end_later(c, from, to, 0, max_ns, end_cut);
}

/* Now the old host hears the nodes again; the two that the new host has opened have just restarted,
 * and it cannot open them anew yet: their fence must hold by itself. */
static void break_silence(struct ending *e)
{
	struct cluster *c = e->cluster;
	struct machine *old = e->a, *new = e->b;

	if (over(c))
		return;
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
	uint32_t deaf = (uint32_t)sim_random_below(c->world, c->node_count);

	for (uint32_t n = 0; n < c->node_count; n++) {
		sim_net_cut(c->nodes[n]->process, old->process, true);
		sim_net_cut(old->process, c->nodes[n]->process, true);
	}
	sim_net_cut(new->process, c->nodes[deaf]->process, true);
	sim_schedule(c->world, NULL, sim_random_range(c->world, SILENCE_MIN_NS, SILENCE_MAX_NS),
		     run_ending, ending_create(c, old, new, deaf, break_silence));
}

/* A node doesn't hear the new host; others may restart. */
static void contest_with_deaf_node(struct cluster *c, struct machine *new)
{
	cut_for(c, new, any_node(c), CONTEST_MAX_NS);
	if (sim_chance(c->world, 1, 2))
		end_later(c, any_node(c), NULL, 0, CONTEST_MAX_NS, kill_it);
}

/* The other host attaches while the driver cannot tell the one that has the volume. */
static void contest(struct cluster *c)
{
	struct machine *old = attached_host(c), *new;

	new = old == c->hosts[0] ? c->hosts[1] : c->hosts[0];
	if (old == NULL || !guest_attach_now(new->guest))
		return;
	c->stats.contests++;
	sim_trace(c->world, NULL, "contest: %s against %s", new->process->name, old->process->name);
	cut_for(c, c->pd, old, CUT_MAX_NS);
	if (sim_chance(c->world, 1, 2))
		contest_in_silence(c, old, new);
	else
		contest_with_deaf_node(c, new);
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
	if (sim_chance(c->world, 1, 3)) {
		c->favour = FAVOUR_NONE;
		return;
	}
	sim_trace(c->world, NULL, "strand: %s is back, %s away", e->a->process->name,
		  e->b->process->name);
	sim_net_isolate(e->b->process, true);
	end_later(c, e->b, NULL, 0, STRAND_AWAY_NS, end_strand);
	for (uint32_t h = 0; h < CLUSTER_HOSTS; h++)
		sim_process_crash(c->hosts[h]->process, SIM_KILL);
}

/* Act 2: the host dies, and the only node that got its last writes is away for long. */
static void strand_crash(struct ending *e)
{
	struct cluster *c = e->cluster;
	struct machine *host = attached_host(c), *other;

	if (over(c))
		return;
	c->favour = FAVOUR_READS;
	do
		other = any_node(c);
	while (other == e->a);
	sim_net_isolate(e->a->process, true);
	/* Without power: what was held back never gets there. */
	if (host != NULL)
		sim_process_crash(host->process, SIM_POWER_LOSS);
	for (uint32_t h = 0; h < CLUSTER_HOSTS; h++)
		for (uint32_t n = 0; n < c->node_count; n++)
			if (c->nodes[n] != e->a)
				sim_net_cut(c->hosts[h]->process, c->nodes[n]->process, false);
	sim_schedule(c->world, NULL, STRAND_AWAY_NS + sim_random_below(c->world, STRAND_AWAY_NS),
		     run_ending, ending_create(c, e->a, other, 0, strand_return));
}

/* Act 1: for a moment the writes of the host get to one node only. */
static void strand(struct cluster *c)
{
	struct machine *host = attached_host(c), *node = any_node(c);

	if (host == NULL || c->favour != FAVOUR_NONE)
		return;
	c->stats.strands++;
	c->favour = FAVOUR_WRITES;
	c->favoured_chunk =
	    (uint32_t)sim_random_below(c->world, CLUSTER_VOLUME_SIZE / CLUSTER_CHUNK_SIZE);
	sim_trace(c->world, NULL, "strand: what %s writes gets to %s only", host->process->name,
		  node->process->name);
	for (uint32_t n = 0; n < c->node_count; n++)
		if (c->nodes[n] != node)
			sim_net_cut(host->process, c->nodes[n]->process, true);
	end_later(c, node, NULL, 0, STRAND_MAX_NS, strand_crash);
}

/* Bit rot in a block of data, always of the same node: two copies of everything stay good. */
static void rot(struct cluster *c)
{
	struct machine *m = c->nodes[c->rot_node];
	uint64_t blocks = CLUSTER_DEVICE_SIZE / BLOCK_SIZE;

	for (unsigned tries = 0; tries < 500; tries++) {
		uint64_t offset = sim_random_below(c->world, blocks) * BLOCK_SIZE;
		uint64_t at = offset + sim_random_range(c->world, 16, BLOCK_SIZE - 1);
		uint8_t stamp[16], byte;

		sim_disk_peek(m->disk, offset, stamp, sizeof(stamp));
		if (!oracle_is_stamped(stamp))
			continue;
		sim_disk_peek(m->disk, at, &byte, 1);
		byte ^= (uint8_t)(1u << sim_random_below(c->world, 8));
		sim_disk_poke(m->disk, at, &byte, 1);
		sim_trace(c->world, m->process, "bit rot at %lu", at);
		c->stats.rot++;
		return;
	}
}

/* Snapshots that run out soon, and an administrator who doesn't always bring the next in time. */
static void next_snapshot(void *arg)
{
	struct cluster *c = arg;

	if (c->faults_over)
		return;
	if (!sim_chance(c->world, 1, 8))
		cluster_renew_snapshot(c);
	sim_schedule(c->world, NULL, SNAPSHOT_RENEW_NS, next_snapshot, c);
}

static void begin_short_snapshots(struct cluster *c)
{
	c->snapshot_life_ns = SNAPSHOT_SHORT_NS;
	sim_schedule(c->world, NULL, SNAPSHOT_RENEW_NS, next_snapshot, c);
}

static void drain_back(struct ending *e)
{
	/* The administrator is busy, or has no session: again, later. */
	if (!over(e->cluster) && !cluster_rebalance(e->cluster, e->a->process->name, true))
		end_later(e->cluster, e->a, NULL, 0, NS_PER_S, drain_back);
}

/* A node is drained, for a while or for long; or levelling is asked for. */
static void move_some(struct cluster *c)
{
	struct machine *m = any_node(c);

	c->stats.moves++;
	if (sim_chance(c->world, 1, 4)) {
		cluster_rebalance(c, NULL, sim_chance(c->world, 1, 4));
	} else if (cluster_rebalance(c, m->process->name, false)) {
		sim_trace(c->world, NULL, "%s is drained", m->process->name);
		end_later(c, m, NULL, 0, DRAIN_MAX_NS, drain_back);
	}
}

static void next_moves(void *arg)
{
	struct cluster *c = arg;

	if (c->faults_over)
		return;
	move_some(c);
	sim_schedule(c->world, NULL, sim_random_below(c->world, MOVES_GAP_NS), next_moves, c);
}

/* -- choosing -------------------------------------------------------------------------------- */

struct kind {
	void (*begin)(struct cluster *c);
	uint32_t weight;
};

static const struct kind kinds[] = {
    {kill_one, 30},
    {power_loss_of_one, 10},
    {power_loss_of_all, 2},
    {power_loss_of_nodes, 3},
    {crash_at_io, 20},
    {pause_one, 10},
    {cut_one_way, 12},
    {isolate_one, 8},
    {disconnect_two, 12},
    {step_clock, 5},
    {slow_disk, 5},
    {withdraw_one, 6},
    {rot, 8},
    {contest, 20},
    {strand, 20},
};

/* contest and strand */
#define SCRIPTS (3ull << (ARRAY_SIZE(kinds) - 2))

static uint32_t used(const struct cluster *c, size_t kind)
{
	return (c->fault_kinds >> kind) & 1 ? kinds[kind].weight : 0;
}

static bool over(struct cluster *c)
{
	return c->faults_over;
}

static void begin_one(struct cluster *c)
{
	uint64_t sum = 0, x;

	for (size_t i = 0; i < ARRAY_SIZE(kinds); i++)
		sum += used(c, i);
	if (sum == 0)
		return;
	x = sim_random_below(c->world, sum);
	for (size_t i = 0; i < ARRAY_SIZE(kinds); i++) {
		if (x < used(c, i)) {
			kinds[i].begin(c);
			return;
		}
		x -= used(c, i);
	}
}

static void next_fault(void *arg)
{
	struct cluster *c = arg;

	if (c->faults_over)
		return;
	begin_one(c);
	sim_schedule(c->world, NULL, sim_random_below(c->world, c->fault_gap_ns), next_fault, c);
}

void faults_begin(struct cluster *c)
{
	/* A third of the seeds has everything, a third a random half, a third the scripts and
	 * little else. */
	c->fault_kinds = sim_random(c->world);
	if (c->world->seed % 3 == 0)
		c->fault_kinds = UINT64_MAX;
	else if (c->world->seed % 3 == 1)
		c->fault_kinds = (c->fault_kinds & sim_random(c->world)) | SCRIPTS;
	c->rot_node = (uint32_t)sim_random_below(c->world, c->node_count);
	c->fault_gap_ns = sim_random_range(c->world, GAP_MIN_NS, GAP_MAX_NS);
	c->world->check_mid_turns = sim_chance(c->world, 1, 2);
	sim_schedule(c->world, NULL, sim_random_below(c->world, GAP_MAX_NS), next_fault, c);
	if (sim_chance(c->world, 1, 4))
		begin_short_snapshots(c);
	/* With three nodes nothing can move. */
	if (c->node_count > 3)
		sim_schedule(c->world, NULL, sim_random_below(c->world, MOVES_GAP_NS), next_moves,
			     c);
}

void faults_end(struct cluster *c, uint32_t lost_node)
{
	c->faults_over = true;
	c->favour = FAVOUR_NONE;
	c->snapshot_life_ns = SNAPSHOT_LONG_NS;
	c->world->check_mid_turns = false;
	sim_trace(c->world, NULL, "faults end");
	sim_net_heal_all(c->world);
	for (uint32_t i = 0; i < c->machine_count; i++) {
		struct machine *m = &c->machines[i];

		sim_process_on_io(m->process, 1, SIM_IO_NORMAL);
		m->process->wall_offset_ns = 0;
		if (m->disk != NULL)
			sim_disk_set_slowness(m->disk, 1);
		sim_process_resume(m->process); /* if it is paused */
		machine_boot_later(m, NS_PER_S);
	}
	if (lost_node < c->node_count) {
		sim_trace(c->world, c->nodes[lost_node]->process, "lost for ever");
		c->nodes[lost_node]->dead_for_ever = true;
		sim_process_crash(c->nodes[lost_node]->process, SIM_POWER_LOSS);
	}
}
