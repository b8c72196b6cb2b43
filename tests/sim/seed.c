/* seed: see seed.h. */
#include "tests/sim/seed.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/sim/settle.h"
#include "tests/sim/sim_commit.h"

#define TRACE_ON_FAILURE 60u

/* The cluster of an assertion that fails, so that its timeline can be shown; and where to tell. */
static struct cluster *running;
static struct seed_outcome *outcome;

static void run_cluster(struct cluster *c, const struct seed_options *o)
{
	uint32_t lost = CLUSTER_NODES;

	c->left_out = &o->left_out;
	if (o->faults)
		faults_begin(c);
	cluster_run(c, (uint64_t)(o->minutes * 60.0 * (double)NS_PER_S), NULL);
	if (c->failed)
		return;
	if (o->faults && sim_chance(c->world, 1, 2))
		lost = c->stats.rot > 0 ? c->rot_node
					: (uint32_t)sim_random_below(c->world, c->node_count);
	/* With another node that is lost, what rotted may be. */
	if (c->rot_everywhere && c->stats.rot > 0)
		lost = CLUSTER_NODES;
	if (lost < CLUSTER_NODES && !faults_course(c, FAULTS_LOSS))
		lost = CLUSTER_NODES;
	faults_end(c, lost);
	settle(c, lost, o->faults);
}

static void print_statistics(const struct cluster *c)
{
	struct oracle_stats os;
	struct sim_net_stats ns = sim_net_stats(c->world);

	oracle_get_stats(c->oracle, &os);
	printf("seed %lu: %lu s, %lu events, hash %016lx; %lu attaches (%lu fenced, %lu migrated), "
	       "%lu "
	       "operations (%lu errors), %lu writes acknowledged, %lu refused, %lu blocks "
	       "checked, %lu undecided seen; %lu frames, %lu connects; %lu kills, %lu power "
	       "losses, %lu crashes at an I/O, %lu pauses, %lu cuts, %lu disconnects, %lu clock "
	       "steps, %lu withdrawals, %lu contests, %lu rotten blocks, %lu drains, %lu moves, "
	       "%lu maintenances; %lu records in the ledger, %lu of them receipts; %u snapshots "
	       "(%lu attaches, %lu "
	       "blocks); %lu strangers, disks full %lu times; %lu certificates; %lu starts of a "
	       "driver; %lu devices added, %lu retired, %lu away for a while, %lu lost, %lu blocks "
	       "moved "
	       "between them; disks slow %lu times while layers settled; %lu stops over the end "
	       "of a lease or permit, %lu quarantines in mid-write\n",
	       c->world->seed, c->world->now_ns / (uint64_t)NS_PER_S, c->world->event_count,
	       sim_trace_hash(c->world), c->stats.attaches, c->stats.fenced, c->stats.migrations,
	       c->stats.ops, c->stats.op_errors, os.acknowledged, os.failed, os.blocks_checked,
	       os.undecided_seen, ns.frames, ns.connects, c->stats.kills, c->stats.power_losses,
	       c->stats.io_crashes, c->stats.pauses, c->stats.cuts, c->stats.disconnects,
	       c->stats.clock_steps, c->stats.revocations, c->stats.contests, c->stats.rot,
	       c->stats.moves, c->moves_done, c->stats.maintained, c->stats.records,
	       c->stats.receipts, c->shot_count, c->stats.shot_attaches, os.shot_blocks,
	       c->stats.strangers, c->stats.full, c->stats.certificates, c->stats.elections,
	       c->stats.devices_added, c->stats.devices_retired, c->stats.devices_away,
	       c->stats.devices_lost, c->stats.device_blocks, c->stats.slow_settlings,
	       c->stats.stops, c->stats.quarantines);
}

/* Little enough for a signal's handler. */
static void tell_plan(void)
{
	outcome->fault_count = running->fault_count;
	outcome->courses = running->courses;
}

static void on_signal(int signal_number)
{
	if (running != NULL) {
		if (outcome->failure[0] == '\0')
			snprintf(outcome->failure, sizeof(outcome->failure), "signal %d",
				 signal_number);
		tell_plan();
		fprintf(stderr,
			"seed %lu (commit " SIM_COMMIT ") ended by signal %d at %lu.%09lu s\n",
			running->world->seed, signal_number,
			running->world->now_ns / (uint64_t)NS_PER_S,
			running->world->now_ns % (uint64_t)NS_PER_S);
		sim_trace_print(running->world, stderr, TRACE_ON_FAILURE);
	}
	_exit(1);
}

/* Not a mutant: the linker shows every assertion that fails to this. One of the simulator's own
 * says nothing of production code. */
_Noreturn void __real_assert_failed(const char *kind, const char *cond, const char *file, int line);
_Noreturn void __wrap_assert_failed(const char *kind, const char *cond, const char *file, int line);
_Noreturn void __wrap_assert_failed(const char *kind, const char *cond, const char *file, int line)
{
	if (outcome != NULL) {
		snprintf(outcome->failure, sizeof(outcome->failure), "%s violated: %s (%s:%d)",
			 kind, cond, file, line);
		outcome->told = strstr(file, "tests/sim/") == NULL;
	}
	__real_assert_failed(kind, cond, file, line);
}

static void show_failure(const struct cluster *c)
{
	fprintf(stderr,
		"seed %lu (commit " SIM_COMMIT ") FAILED at %lu.%09lu s: %s\n"
		"the last of the timeline:\n",
		c->world->seed, c->world->now_ns / (uint64_t)NS_PER_S,
		c->world->now_ns % (uint64_t)NS_PER_S, c->failure);
	sim_trace_print(c->world, stderr, TRACE_ON_FAILURE);
}

bool seed_run(uint64_t seed, const struct seed_options *o, struct seed_outcome *ret_outcome)
{
	struct cluster *c;
	bool ok;

	/* The sanitizers have a better story to tell of the others. */
	signal(SIGABRT, on_signal);
#ifndef __SANITIZE_ADDRESS__
	signal(SIGSEGV, on_signal);
	signal(SIGBUS, on_signal);
#endif
	*ret_outcome = (struct seed_outcome){0};
	outcome = ret_outcome;
	mutant_set(o->mutant);
	if (cluster_create(seed, o->trace ? stderr : NULL, &running))
		run_cluster(running, o);
	c = running;
	ok = !c->failed;
	tell_plan();
	coverage_take(c, &outcome->coverage);
	outcome->told = !ok;
	snprintf(outcome->failure, sizeof(outcome->failure), "%s", c->failure);
	if (!ok)
		show_failure(c);
	if (o->statistics)
		print_statistics(c);
	running = NULL;
	cluster_destroy(c);
	return ok;
}
