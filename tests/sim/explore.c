/* explore: see explore.h.
 *
 * A child tells its outcome in memory shared with this process. It may have died before it could:
 * then how it ended is all that is known. Seeds are begun in order, and those that run when one
 * fails are waited for; so the lowest that fails is the same whatever their number. */
#include "tests/sim/explore.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "engine/base/assert.h"
#include "tests/sim/minimise.h"
#include "tests/sim/sim_commit.h"

#define PROGRESS_EVERY	50u
#define FAILURE_SHORT	120
#define SEEDS_CLEAN_MAX 64u

static void *shared_memory(size_t size)
{
	void *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	INVARIANT(p != MAP_FAILED);
	return p;
}

/* -- one child ------------------------------------------------------------------------------- */

struct child {
	pid_t pid; /* 0: none */
	uint64_t seed;
	struct seed_outcome *outcome; /* shared */
};

/* silent: what a mutant makes of the code, and what fails again and again, is nobody's news. */
static void start_child(struct child *child, uint64_t seed, const struct seed_options *o,
			bool silent)
{
	*child->outcome = (struct seed_outcome){0};
	child->seed = seed;
	fflush(NULL);
	child->pid = fork();
	if (child->pid == 0) {
		bool ok;

		if (silent && freopen("/dev/null", "w", stderr) == NULL)
			_exit(2);
		ok = seed_run(seed, o, child->outcome);
		fflush(NULL);
		_exit(ok ? 0 : 1);
	}
	if (child->pid < 0) {
		perror("pave-sim: fork");
		exit(2);
	}
}

/* True: it failed, and its outcome says how as far as that is known. */
static bool has_failed(const struct child *child, int status)
{
	struct seed_outcome *out = child->outcome;

	if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
		return false;
	if (out->failure[0] != '\0')
		return true;
	if (WIFSIGNALED(status))
		snprintf(out->failure, sizeof(out->failure), "ended by signal %d",
			 WTERMSIG(status));
	else
		snprintf(out->failure, sizeof(out->failure), "exit code %d", WEXITSTATUS(status));
	return true;
}

static bool fails_alone(struct child *child, uint64_t seed, const struct seed_options *o,
			bool silent)
{
	int status;

	start_child(child, seed, o, silent);
	while (waitpid(child->pid, &status, 0) < 0)
		INVARIANT(errno == EINTR);
	return has_failed(child, status);
}

/* -- many ------------------------------------------------------------------------------------ */

struct found {
	uint64_t passed, idle; /* idle: of them, with nothing acknowledged */
	uint64_t first_idle;
	uint64_t crashed; /* ended without a word of a check, and were passed over */
	struct coverage coverage;
	bool failed;
	uint64_t seed; /* the lowest that failed */
	struct seed_outcome outcome;
};

static void note_passed(struct found *f, const struct child *child)
{
	coverage_add(&f->coverage, &child->outcome->coverage);
	if (coverage_count(&child->outcome->coverage, "writes acknowledged") == 0 &&
	    (f->idle++ == 0 || child->seed < f->first_idle))
		f->first_idle = child->seed;
	if (++f->passed % PROGRESS_EVERY == 0)
		fprintf(stderr, "%" PRIu64 " seeds passed\n", f->passed);
}

static void note_failed(struct found *f, const struct child *child, bool told_only)
{
	if (told_only && !child->outcome->told) {
		f->crashed++;
		return;
	}
	if (f->failed && f->seed < child->seed)
		return;
	f->failed = true;
	f->seed = child->seed;
	f->outcome = *child->outcome;
}

static struct child *child_of(struct child *children, uint32_t jobs, pid_t pid)
{
	for (uint32_t i = 0; i < jobs; i++)
		if (children[i].pid == pid)
			return &children[i];
	return NULL;
}

/* Until one fails. told_only: one that a check told of; the others count as crashed. */
static void run_many(const struct explore_options *o, uint64_t first, bool told_only,
		     struct found *ret_found)
{
	static struct child children[EXPLORE_JOBS_MAX];
	const uint64_t end = o->first + o->count;
	uint64_t next = first;
	uint32_t running = 0;

	*ret_found = (struct found){0};
	while ((!ret_found->failed && next < end) || running > 0) {
		struct child *child = child_of(children, o->jobs, 0);
		int status;
		pid_t pid;

		if (!ret_found->failed && next < end && child != NULL) {
			if (child->outcome == NULL)
				child->outcome = shared_memory(sizeof(*child->outcome));
			start_child(child, next++, &o->seed, told_only);
			running++;
			continue;
		}
		pid = wait(&status);
		INVARIANT(pid > 0 || errno == EINTR);
		child = pid > 0 ? child_of(children, o->jobs, pid) : NULL;
		if (child == NULL)
			continue;
		child->pid = 0;
		running--;
		if (has_failed(child, status))
			note_failed(ret_found, child, told_only);
		else
			note_passed(ret_found, child);
	}
}

/* -- the least that fails -------------------------------------------------------------------- */

struct least {
	const struct explore_options *o;
	uint64_t seed;
	bool told; /* as it was */
	struct child child;
};

static bool fails_without(const struct faults_left_out *left_out, void *arg)
{
	struct least *l = arg;
	struct seed_options less = l->o->seed;

	less.left_out = *left_out;
	less.trace = less.statistics = false;
	return fails_alone(&l->child, l->seed, &less, true) && l->child.outcome->told == l->told;
}

static void print_courses(uint32_t courses)
{
	const char *before = " --without ";

	for (uint32_t i = 0; i < FAULTS_COURSES_COUNT; i++) {
		if ((courses >> i & 1) == 0)
			continue;
		printf("%s%s", before, faults_course_name(i));
		before = ",";
	}
}

static void print_faults(const struct faults_left_out *left_out, uint32_t count)
{
	const char *before = " --only ";

	for (uint32_t i = 0; i < MIN(count, FAULTS_MAX); i++) {
		if (left_out->faults[i])
			continue;
		printf("%s%" PRIu32, before, i);
		before = ",";
	}
	if (*before == ' ')
		fputs(" --only none", stdout);
}

static void print_command(const struct least *l, const struct faults_left_out *left_out,
			  const struct minimise *m)
{
	const struct seed_options *o = &l->o->seed;

	printf("pave-sim --seed %" PRIu64 " --minutes %g", l->seed, o->minutes);
	if (!o->faults)
		fputs(" --no-faults", stdout);
	if (o->mutant != MUTANT_NONE)
		printf(" --mutant %s", mutant_name(o->mutant));
	print_courses(left_out->courses);
	if (o->faults)
		print_faults(left_out, m->fault_count);
	putchar('\n');
	fflush(stdout);
}

/* first: how it failed with everything. The last line of stdout is the command. */
static void show_least(const struct explore_options *o, uint64_t seed,
		       const struct seed_outcome *first)
{
	struct least l = {.o = o,
			  .seed = seed,
			  .told = first->told,
			  .child = {.outcome = shared_memory(sizeof(*l.child.outcome))}};
	struct faults_left_out left_out = o->seed.left_out;
	struct seed_options again = o->seed;
	struct minimise m = {.fails = fails_without,
			     .arg = &l,
			     .courses = first->courses & ~left_out.courses,
			     .fault_count = first->fault_count,
			     .runs_max = o->runs_max,
			     .patience_s = o->patience_s};

	printf("seed %" PRIu64 ": leaving out what it fails without, in at most %" PRIu32
	       " runs, begun within %" PRIu32 " s\n",
	       seed, m.runs_max, m.patience_s);
	fflush(stdout);
	/* It had none of those that come after. What fails without others may fail later. */
	for (uint32_t i = m.fault_count; i < FAULTS_MAX; i++)
		left_out.faults[i] = true;
	minimise(&m, &left_out);
	again.left_out = left_out;
	again.trace = again.statistics = false;
	if (!fails_alone(&l.child, seed, &again, false))
		snprintf(l.child.outcome->failure, sizeof(l.child.outcome->failure),
			 "but not when it ran once more, so something is not as its seed says");
	printf("seed %" PRIu64 " (commit " SIM_COMMIT ") fails with %" PRIu32 " of %" PRIu32
	       " faults and %" PRIu32 " of %d courses, after %" PRIu32 " runs%s: %s\n",
	       seed, m.faults_left, m.fault_count, m.courses_left, __builtin_popcount(m.courses),
	       m.runs, m.given_up ? " (the most there may be: it may be less)" : "",
	       l.child.outcome->failure);
	print_command(&l, &left_out, &m);
	munmap(l.child.outcome, sizeof(*l.child.outcome));
}

bool explore_least(const struct explore_options *o)
{
	struct child child = {.outcome = shared_memory(sizeof(*child.outcome))};
	const bool failed = fails_alone(&child, o->first, &o->seed, false);

	if (failed)
		show_least(o, o->first, child.outcome);
	else
		printf("seed %" PRIu64 " does not fail\n", o->first);
	munmap(child.outcome, sizeof(*child.outcome));
	return !failed;
}

/* -- seeds until one fails ------------------------------------------------------------------- */

static bool is_covered(const struct explore_options *o, const struct found *f)
{
	char missing[2000];
	const uint32_t count = coverage_missing(&f->coverage, missing, sizeof(missing));

	if (f->passed == 0)
		return false;
	if (o->verbose || (o->covered && count > 0))
		coverage_print(&f->coverage, stdout);
	printf("%" PRIu64 " writes acknowledged, %" PRIu64 " blocks checked, %" PRIu64
	       " attachments, %" PRIu64 " copies moved; ",
	       coverage_count(&f->coverage, "writes acknowledged"),
	       coverage_count(&f->coverage, "blocks checked"),
	       coverage_count(&f->coverage, "attachments"),
	       coverage_count(&f->coverage, "copies moved"));
	if (count == 0)
		printf("each of %" PRIu32 " faults and events in some seed\n",
		       f->coverage.row_count);
	else
		printf("in no seed: %s\n", missing);
	return count == 0;
}

bool explore(const struct explore_options *o)
{
	static struct found f;
	bool covered;

	run_many(o, o->first, false, &f);
	printf("%" PRIu64 " of %" PRIu64 " seeds from %" PRIu64
	       " passed, %.1f virtual minutes with faults each\n",
	       f.passed, o->count, o->first, o->seed.minutes);
	covered = is_covered(o, &f);
	if (f.failed) {
		printf("seed %" PRIu64 " (commit " SIM_COMMIT ") failed: %s\n", f.seed,
		       f.outcome.failure);
		if (o->minimise)
			show_least(o, f.seed, &f.outcome);
		return false;
	}
	if (f.idle > 0)
		printf("FAILED: %" PRIu64 " seeds had no write acknowledged, seed %" PRIu64
		       " is the first\n",
		       f.idle, f.first_idle);
	if (o->covered && !covered)
		puts("FAILED: something that seeds are made of never happened in any of them; more "
		     "seeds, or a look at what begins it (tests/sim/coverage.c), would tell why");
	return f.idle == 0 && (covered || !o->covered);
}

/* -- mutants --------------------------------------------------------------------------------- */

/* Without the mutant; runs it once, however many mutants it finds. */
static bool is_clean(const struct explore_options *o, uint64_t seed)
{
	static uint64_t clean[SEEDS_CLEAN_MAX];
	static uint32_t clean_count;
	static struct child child;
	struct seed_options without = o->seed;

	for (uint32_t i = 0; i < clean_count; i++)
		if (clean[i] == seed)
			return true;
	if (child.outcome == NULL)
		child.outcome = shared_memory(sizeof(*child.outcome));
	without.mutant = MUTANT_NONE;
	if (fails_alone(&child, seed, &without, false)) {
		printf("seed %" PRIu64 " (commit " SIM_COMMIT
		       ") fails without a mutant, and proves nothing: %s\n",
		       seed, child.outcome->failure);
		return false;
	}
	if (clean_count < SEEDS_CLEAN_MAX)
		clean[clean_count++] = seed;
	return true;
}

/* Its first words, on one line. */
static void print_short(const char *failure)
{
	const int length = (int)strcspn(failure, "\n");

	printf("%.*s%s\n", MIN(length, FAILURE_SHORT), failure,
	       length > FAILURE_SHORT ? "..." : "");
}

static bool find_mutant(const struct explore_options *o, bool *all_clean)
{
	static struct found f;
	uint64_t first = o->first, crashed = 0;

	for (;;) {
		run_many(o, first, true, &f);
		crashed += f.crashed;
		if (!f.failed || is_clean(o, f.seed))
			break;
		*all_clean = false;
		first = f.seed + 1;
	}
	printf("mutant %-20s ", mutant_name(o->seed.mutant));
	if (f.failed)
		printf("found by seed %" PRIu64 " (commit " SIM_COMMIT "), number %" PRIu64, f.seed,
		       f.seed - o->first + 1);
	else
		printf("NOT FOUND in %" PRIu64 " seeds", o->count);
	if (crashed > 0)
		printf(", %" PRIu64 " more crashed, which does not count", crashed);
	fputs(": ", stdout);
	print_short(f.failed ? f.outcome.failure : "no check told of it");
	fflush(stdout);
	return f.failed;
}

bool explore_mutants(const struct explore_options *o)
{
	static struct explore_options one;
	bool all = true, all_clean = true;

	one = *o;
	for (enum mutant m = MUTANT_NONE + 1; m < MUTANTS; m++) {
		one.seed.mutant = m;
		if (o->mutants[m])
			all = find_mutant(&one, &all_clean) && all;
	}
	return all && all_clean;
}
