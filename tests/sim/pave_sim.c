/* pave-sim: runs simulated clusters, each from its seed, and checks them.
 *
 * A run: the cluster is set up; faults and work for some minutes of virtual time; the faults end,
 * and (in every second seed) one node is lost for ever; then the whole volume must be read back and
 * be right. With several seeds each runs in a process of its own, so that an assertion that fails
 * or a sanitizer's finding is a failure of that seed, and the next one starts afresh.
 *
 * Exit codes: 0 every seed passed, 1 one failed, 2 usage. */
#include <errno.h>
#include <getopt.h>
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/sim/faults.h"
#include "tests/sim/minimise.h"
#include "tests/sim/mutants.h"
#include "tests/sim/settle.h"
#include "tests/sim/sim_commit.h"

/* Memory that is given back is soon asked for again; the pools of a process that starts are fresh
 * pages, which cost nothing until they are touched. */
#define MEMORY_KEPT_BYTES (256 << 20)
#define MEMORY_POOL_BYTES (1 << 20)

#define TRACE_ON_FAILURE 60u
#define PROGRESS_EVERY	 50u

struct options {
	uint64_t seed, seeds, from, jobs;
	double minutes;
	bool one, trace, faults, verbose, mutants, silent, minimise;
	struct faults_left_out left_out;
	enum mutant mutant;
};

static const char usage[] =
    "Usage: pave-sim --seed S [--trace] | --seeds N [--from S] [--jobs J]\n"
    "Runs a whole cluster in one process on virtual time, with faults, and checks it.\n"
    "\n"
    "  --seed S      runs this seed\n"
    "  --seeds N     runs N seeds, each in a process of its own; stops at the first that fails\n"
    "  --from S      the first of them (default 1)\n"
    "  --jobs J      so many at once (default 1)\n"
    "  --minutes M   virtual time with faults (default 1)\n"
    "  --no-faults   nothing goes wrong\n"
    "  --minimise    of a seed that fails: leaves out as many faults as it can\n"
    "  --only LIST   of all faults only these, by number: as --minimise printed it\n"
    "  --trace       the whole timeline goes to stderr\n"
    "  --mutant NAME breaks one promise of the code on purpose; some seed must find it\n"
    "  --mutants     every mutant, each with up to --seeds seeds: fails when one is not found\n"
    "  --verbose     what happened in each seed\n"
    "  --help\n";

/* What a crash abandons is not a leak (process.h). Asked by the leak sanitizer. */
int __lsan_is_turned_off(void);
int __lsan_is_turned_off(void)
{
	return 1;
}

/* -- one seed -------------------------------------------------------------------------------- */

static void run_cluster(struct cluster *c, const struct options *o)
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
	if (lost < CLUSTER_NODES && !faults_course(c, FAULTS_LOSS))
		lost = CLUSTER_NODES;
	faults_end(c, lost);
	settle(c, lost, o->faults);
}

static void print_stats(const struct cluster *c)
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
	       "between them; disks slow %lu times while layers settled\n",
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
	       c->stats.devices_lost, c->stats.device_blocks, c->stats.slow_settlings);
}

/* How many faults the seed had, for the parent. */
static uint32_t *shared_fault_count;

/* The cluster of an assertion that fails: so that its timeline can be shown. */
static struct cluster *running;

static void on_signal(int signal_number)
{
	if (running != NULL) {
		if (shared_fault_count != NULL)
			*shared_fault_count = running->fault_count;
		fprintf(stderr,
			"seed %lu (commit " SIM_COMMIT ") ended by signal %d at %lu.%09lu s\n",
			running->world->seed, signal_number,
			running->world->now_ns / (uint64_t)NS_PER_S,
			running->world->now_ns % (uint64_t)NS_PER_S);
		sim_trace_print(running->world, stderr, TRACE_ON_FAILURE);
	}
	_exit(1);
}

static bool run_seed(uint64_t seed, const struct options *o)
{
	struct cluster *c;
	bool ok;

	/* The sanitizers have a better story to tell of the others. */
	signal(SIGABRT, on_signal);
#ifndef __SANITIZE_ADDRESS__
	signal(SIGSEGV, on_signal);
	signal(SIGBUS, on_signal);
#endif
	mutant_set(o->mutant);
	if (cluster_create(seed, o->trace ? stderr : NULL, &c)) {
		running = c;
		run_cluster(c, o);
	}
	ok = !c->failed;
	if (!ok) {
		fprintf(stderr,
			"seed %lu (commit " SIM_COMMIT ") FAILED at %lu.%09lu s: %s\n"
			"the last of the timeline:\n",
			seed, c->world->now_ns / (uint64_t)NS_PER_S,
			c->world->now_ns % (uint64_t)NS_PER_S, c->failure);
		sim_trace_print(c->world, stderr, TRACE_ON_FAILURE);
	}
	if (o->verbose || o->one)
		print_stats(c);
	if (shared_fault_count != NULL)
		*shared_fault_count = c->fault_count;
	running = NULL;
	cluster_destroy(c);
	return ok;
}

/* -- many seeds ------------------------------------------------------------------------------ */

static int start_child(uint64_t seed, const struct options *o)
{
	pid_t pid = fork();

	if (pid == 0) {
		bool ok;

		if (o->silent && freopen("/dev/null", "w", stderr) == NULL)
			_exit(2);
		ok = run_seed(seed, o);

		fflush(NULL);
		_exit(ok ? 0 : 1);
	}
	return pid;
}

/* -- the least that fails -------------------------------------------------------------------- */

static bool fails_without(const bool *left_out, void *arg)
{
	const struct options *o = arg;
	struct options less = *o;
	int status = 0;

	memcpy(less.left_out.faults, left_out, sizeof(less.left_out.faults));
	less.silent = true;
	less.one = less.verbose = less.trace = false;
	if (start_child(o->seed, &less) < 0 || wait(&status) < 0)
		return false;
	return !WIFEXITED(status) || WEXITSTATUS(status) != 0;
}

static bool find_least(struct options *o)
{
	uint32_t left, count;
	const char *comma = "";

	shared_fault_count = mmap(NULL, sizeof(*shared_fault_count), PROT_READ | PROT_WRITE,
				  MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (shared_fault_count == MAP_FAILED || !fails_without(o->left_out.faults, o)) {
		fprintf(stderr, "pave-sim: seed %lu does not fail\n", o->seed);
		return false;
	}
	count = MIN(*shared_fault_count, FAULTS_MAX);
	left = minimise(count, fails_without, o, o->left_out.faults);
	printf("seed %lu (commit " SIM_COMMIT
	       ") fails with %u of %u faults: --seed %lu --minutes %g "
	       "--only ",
	       o->seed, left, count, o->seed, o->minutes);
	memset(o->left_out.faults + count, true, FAULTS_MAX - count);
	for (uint32_t i = 0; i < count; i++) {
		if (o->left_out.faults[i])
			continue;
		printf("%s%u", comma, i);
		comma = ",";
	}
	puts(left == 0 ? "none" : "");
	fflush(stdout);
	o->one = true;
	return run_seed(o->seed, o);
}

/* Until one fails. True: all passed. */
static bool run_many(const struct options *o, uint64_t *ret_passed)
{
	uint64_t next = o->from, end = o->from + o->seeds, running_count = 0, passed = 0;
	bool ok = true;

	while ((ok && next < end) || running_count > 0) {
		int status;

		if (ok && next < end && running_count < o->jobs) {
			if (start_child(next++, o) < 0) {
				perror("fork");
				return false;
			}
			running_count++;
			continue;
		}
		if (wait(&status) < 0)
			break;
		running_count--;
		if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
			ok = false;
		else if (++passed % PROGRESS_EVERY == 0)
			fprintf(stderr, "%lu seeds passed\n", passed);
	}
	*ret_passed = passed;
	return ok;
}

static bool explore(const struct options *o)
{
	uint64_t passed;
	bool ok = run_many(o, &passed);

	printf("%lu of %lu seeds from %lu passed, %.1f virtual minutes with faults each\n", passed,
	       o->seeds, o->from, o->minutes);
	return ok;
}

/* Each must be found. What a mutant makes of the code is nobody's news: it goes to /dev/null. */
static bool find_mutants(struct options *o)
{
	bool all = true;

	for (o->mutant = MUTANT_NONE + 1; o->mutant < MUTANTS; o->mutant++) {
		uint64_t passed;
		bool found;

		o->silent = true;
		found = !run_many(o, &passed);
		printf("mutant %-20s %s after %lu seeds\n", mutant_name(o->mutant),
		       found ? "found" : "NOT FOUND", passed + found);
		fflush(stdout);
		all = all && found;
	}
	return all;
}

static bool parse_mutant(const char *text, enum mutant *ret_mutant)
{
	for (enum mutant m = MUTANT_NONE; m < MUTANTS; m++) {
		if (strcmp(mutant_name(m), text) == 0) {
			*ret_mutant = m;
			return true;
		}
	}
	fprintf(stderr, "pave-sim: there is no mutant %s\n", text);
	return false;
}

static bool parse_only(struct options *o, const char *text)
{
	memset(o->left_out.faults, true, sizeof(o->left_out.faults));
	while (*text != '\0' && strcmp(text, "none") != 0) {
		char *end;
		unsigned long n = strtoul(text, &end, 10);

		if (end == text || n >= FAULTS_MAX || (*end != ',' && *end != '\0')) {
			fprintf(stderr,
				"pave-sim: --only %s: numbers below %u are needed, as 3,17\n", text,
				FAULTS_MAX);
			return false;
		}
		o->left_out.faults[n] = false;
		text = *end == ',' ? end + 1 : end;
	}
	return true;
}

static const struct option options[] = {
    {"seed", required_argument, NULL, 's'},    {"seeds", required_argument, NULL, 'n'},
    {"from", required_argument, NULL, 'f'},    {"jobs", required_argument, NULL, 'j'},
    {"minutes", required_argument, NULL, 'm'}, {"no-faults", no_argument, NULL, 'F'},
    {"trace", no_argument, NULL, 't'},	       {"verbose", no_argument, NULL, 'v'},
    {"mutant", required_argument, NULL, 'M'},  {"mutants", no_argument, NULL, 'A'},
    {"minimise", no_argument, NULL, 'i'},      {"only", required_argument, NULL, 'o'},
    {"help", no_argument, NULL, 'h'},	       {0},
};

static int parse(struct options *o, int argc, char **argv)
{
	int ch;

	while ((ch = getopt_long(argc, argv, "h", options, NULL)) != -1) {
		switch (ch) {
		case 's':
			o->seed = strtoull(optarg, NULL, 0);
			o->one = true;
			break;
		case 'n':
			o->seeds = strtoull(optarg, NULL, 0);
			break;
		case 'f':
			o->from = strtoull(optarg, NULL, 0);
			break;
		case 'j':
			o->jobs = strtoull(optarg, NULL, 0);
			break;
		case 'm':
			o->minutes = strtod(optarg, NULL);
			break;
		case 'F':
			o->faults = false;
			break;
		case 't':
			o->trace = true;
			break;
		case 'M':
			if (!parse_mutant(optarg, &o->mutant))
				return -1;
			break;
		case 'i':
			o->minimise = true;
			break;
		case 'o':
			if (!parse_only(o, optarg))
				return -1;
			break;
		case 'A':
			o->mutants = true;
			break;
		case 'v':
			o->verbose = true;
			break;
		case 'h':
			fputs(usage, stdout);
			return 1;
		default:
			return -1;
		}
	}
	return optind == argc && o->one != (o->seeds > 0) && o->jobs > 0 ? 0 : -1;
}

int main(int argc, char **argv)
{
	static struct options o = {.from = 1, .jobs = 1, .minutes = 1.0, .faults = true};
	int rc = parse(&o, argc, argv);
	bool ok;

	if (rc < 0) {
		fputs(usage, stderr);
		return 2;
	}
	if (rc > 0)
		return 0;
	mallopt(M_MMAP_THRESHOLD, MEMORY_POOL_BYTES);
	mallopt(M_TRIM_THRESHOLD, MEMORY_KEPT_BYTES);
	if (o.minimise && o.one)
		ok = !find_least(&o);
	else if (o.mutants)
		ok = find_mutants(&o);
	else
		ok = o.one ? run_seed(o.seed, &o) : explore(&o);
	return ok ? 0 : 1;
}
