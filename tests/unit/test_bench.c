/* Unit tests of pave-bench: that its pure parts say the truth, and that its load does: on a target
 * whose latency and lies are known, on the simulated reactor. */
#include <check.h>
#include <getopt.h>
#include <math.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

#include "bench/options.h"
#include "engine/base/err.h"
#include "tests/sim/process.h"

/* -- pure parts -------------------------------------------------------------------------------- */

START_TEST(percentiles_are_within_their_bound)
{
	static struct histogram h, other;

	for (uint64_t i = 1; i <= 100000; i++)
		histogram_add(i % 2 == 0 ? &h : &other, i * 1000);
	histogram_merge(&h, &other);
	ck_assert_uint_eq(h.total, 100000);
	for (double p = 1; p < 100; p += 0.5) {
		const double want = p * 1e6, got = (double)histogram_percentile(&h, p);

		ck_assert_msg(got >= want && got <= want * 1.016 + 1, "%g: %g, not %g", p, got,
			      want);
	}
	ck_assert_uint_ge(histogram_percentile(&h, 99.99), 99990000);
	ck_assert_uint_lt(histogram_percentile(&h, 99.9), 99990000 + 1000000);
	ck_assert_uint_eq(histogram_percentile(&h, 100), 100000000);
	ck_assert_double_eq_tol(histogram_mean(&h), 50000500, 1);
}
END_TEST

START_TEST(what_waits_for_hours_is_not_told_shorter)
{
	/* An open loop that asks for twice what is done waits for half as long as it lasts. */
	static const uint64_t seconds[] = {30, 60, 3600, 43200};

	for (uint32_t i = 0; i < ARRAY_SIZE(seconds); i++) {
		struct histogram h = {0};
		const double want = (double)(seconds[i] * NS_PER_S);
		double got;

		for (uint32_t k = 0; k < 99; k++)
			histogram_add(&h, seconds[i] * NS_PER_S);
		histogram_add(&h, 2 * seconds[i] * NS_PER_S);
		got = (double)histogram_percentile(&h, 50);
		ck_assert_msg(got >= want && got <= want * 1.016, "%g, not %g", got, want);
	}
}
END_TEST

START_TEST(zipf_is_zipf)
{
	const double exponents[] = {0.8, 1.0, 1.2};
	const uint64_t count = 1000, draws = 400000;

	for (uint32_t e = 0; e < ARRAY_SIZE(exponents); e++) {
		struct pattern p = {.random_state = 7};
		uint64_t seen[1001] = {0};
		struct zipf z;
		double sum = 0;

		zipf_init(&z, count, exponents[e]);
		for (uint64_t i = 0; i < draws; i++) {
			const uint64_t k = zipf_next(&z, &p);

			ck_assert(k >= 1 && k <= count);
			seen[k]++;
		}
		for (uint64_t k = 1; k <= count; k++)
			sum += pow((double)k, -exponents[e]);
		for (uint64_t k = 1; k <= 20; k++) {
			const double want = (double)draws * pow((double)k, -exponents[e]) / sum;

			ck_assert_msg(fabs((double)seen[k] - want) < 5 * sqrt(want),
				      "exponent %g, rank %d: %d, not %g", exponents[e], (int)k,
				      (int)seen[k], want);
		}
	}
}
END_TEST

START_TEST(patterns_do_what_they_say)
{
	struct pattern_spec spec = {.start = 1 << 20, .range = 1 << 20};
	bool seen[256] = {false};
	struct pattern p;
	struct error err;
	uint32_t reads = 0, small = 0;

	ck_assert_int_eq(pattern_parse_rw("write", &spec, &err), 0);
	ck_assert_int_eq(pattern_parse_sizes("4KiB", &spec, &err), 0);
	pattern_init(&p, &spec, 1);
	for (uint32_t i = 0; i < 256; i++) {
		const struct pattern_op op = pattern_next(&p);

		ck_assert(op.write);
		ck_assert_uint_eq(op.offset, spec.start + i * 4096);
	}
	ck_assert_uint_eq(pattern_next(&p).offset, spec.start); /* around */

	ck_assert_int_eq(pattern_parse_rw("randrw", &spec, &err), 0);
	ck_assert_int_eq(pattern_parse_sizes("4KiB:3,64KiB:1", &spec, &err), 0);
	spec.zipf = 0.9;
	pattern_init(&p, &spec, 1);
	for (uint32_t i = 0; i < 100000; i++) {
		const struct pattern_op op = pattern_next(&p);

		ck_assert(op.offset >= spec.start && op.offset % op.size == 0 &&
			  op.offset + op.size <= spec.start + spec.range);
		reads += !op.write;
		small += op.size == 4096;
		if (op.size == 4096)
			seen[(op.offset - spec.start) / 4096] = true;
	}
	ck_assert_msg(reads > 69000 && reads < 71000, "%u reads of 100000", reads);
	ck_assert_msg(small > 74000 && small < 76000, "%u small of 100000", small);
	for (uint32_t i = 0; i < 256; i++)
		ck_assert_msg(seen[i], "block %u was never chosen", i);
}
END_TEST

START_TEST(what_is_not_understood_is_refused)
{
	static const char *const sizes[] = {"", "4097", "2MiB", "4KiB:0", "4KiB:x", "0"};
	static const char *const jobs[] = {"rw=both", "depth=0", "depth=9999", "rate=-1",
					   "bs=1KiB", "x=1",	 "name=A b",   "arrivals=late",
					   "depth",   "range=5"};
	static const char *const ramps[] = {"depth=1..1", "depth=1..8:3", "rate=1..2:33",
					    "rate=9..2",  "speed=1..2",	  "depth=0..4"};
	struct pattern_spec spec = {0};
	struct job_spec job = {.depth = 5};
	struct ramp ramp;
	struct error err;

	for (uint32_t i = 0; i < ARRAY_SIZE(sizes); i++)
		ck_assert_msg(pattern_parse_sizes(sizes[i], &spec, &err) != 0, "%s", sizes[i]);
	for (uint32_t i = 0; i < ARRAY_SIZE(jobs); i++)
		ck_assert_msg(job_parse(jobs[i], &job, &err) != 0, "%s", jobs[i]);
	for (uint32_t i = 0; i < ARRAY_SIZE(ramps); i++)
		ck_assert_msg(ramp_parse(ramps[i], &ramp, &err) != 0, "%s", ramps[i]);
	ck_assert_uint_eq(job.depth, 5);
	ck_assert_int_eq(job_parse("rw=randread,bs=4KiB:1/8KiB:2,depth=9,rate=100", &job, &err), 0);
	ck_assert_uint_eq(job.depth, 9);
	ck_assert_uint_eq(job.pattern.size_count, 2);
}
END_TEST

static int parse(const char *line, struct options *ret)
{
	static char buf[512];
	char *argv[24] = {"pave-bench"}, *save = NULL;
	int argc = 1;

	snprintf(buf, sizeof buf, "--nbd nbd://127.0.0.1/v %s", line);
	for (char *a = strtok_r(buf, " ", &save); a != NULL; a = strtok_r(NULL, " ", &save))
		argv[argc++] = a;
	*ret = (struct options){0};
	optind = 0;
	return options_parse(ret, argc, argv);
}

START_TEST(what_would_be_ignored_is_refused)
{
	static const char *const refused[] = {
	    "--job rw=read --depth 64", /* it is before no job */
	    "--depth 8 --job rw=read --bs 64KiB",
	    "--rw write --zipf 1.1",
	    "--zipf 1.1 --job rw=read,depth=4",
	    "--arrivals even",
	    "--job rate=5 --job arrivals=even,depth=1",
	    "--rate 77 --ramp rate=100..200:2",
	    "--rate 500 --ramp depth=1..4",
	    "--ramp depth=1..4 --depth 7",
	    "--ramp depth=1..4 --job depth=7",
	    "--rw randread --verify",
	};
	static const char *const taken[] = {
	    "--depth 8 --job rw=read --job rw=write",
	    "--depth 8 --job rw=read --seconds 3 --json",
	    "--zipf 1.1 --rw randrw",
	    "--rate 5 --arrivals even",
	    "--ramp rate=100..200:2 --arrivals even --depth 100",
	    "--ramp depth=1..4 --rw read",
	    "--rw randread --verify --fill",
	};
	struct options o;

	for (uint32_t i = 0; i < ARRAY_SIZE(refused); i++)
		ck_assert_msg(parse(refused[i], &o) == 2, "%s", refused[i]);
	for (uint32_t i = 0; i < ARRAY_SIZE(taken); i++)
		ck_assert_msg(parse(taken[i], &o) == 0, "%s", taken[i]);
	ck_assert_int_eq(parse("--depth 8 --job rw=read --depth 9 --job rw=write", &o), 0);
	ck_assert_uint_eq(o.jobs[0].depth, 8);
	ck_assert_uint_eq(o.jobs[1].depth, 9);
}
END_TEST

START_TEST(the_knee_is_where_it_bends)
{
	const double depth_done[] = {1000, 1900, 3500, 4900, 5000, 5050};
	const double rate_done[] = {999, 1990, 3950, 7000, 7100};
	const double rate_due[] = {1000, 2000, 4000, 8000, 16000};
	const double chance_done[] = {880, 1901, 4100, 7100},
		     chance_due[] = {884, 1910, 4105, 8000};
	struct ramp r;
	struct error err;

	ck_assert_int_eq(ramp_parse("depth=1..32", &r, &err), 0);
	ck_assert_uint_eq(r.count, 6);
	ck_assert_uint_eq(ramp_knee(&r, 6, depth_done, NULL), 3);
	ck_assert_int_eq(ramp_parse("rate=1000..16000:5", &r, &err), 0);
	ck_assert_double_eq(r.steps[1], 2000);
	ck_assert_uint_eq(ramp_knee(&r, 5, rate_done, rate_due), 2);
	ck_assert_uint_eq(ramp_knee(&r, 0, rate_done, rate_due), 0);
	/* Where chance had less fall due, no less was carried. */
	ck_assert_uint_eq(ramp_knee(&r, 4, chance_done, chance_due), 2);
	/* The end that was asked for is measured. */
	ck_assert_int_eq(ramp_parse("depth=3..10", &r, &err), 0);
	ck_assert_uint_eq(r.count, 3);
	ck_assert_double_eq(r.steps[2], 10);
}
END_TEST

START_TEST(a_long_timeline_keeps_every_operation)
{
	static struct timeline t;
	uint64_t sum = 0, max = 0;

	for (uint64_t i = 0; i < 5000; i++)
		timeline_add(&t, i * TIMELINE_STEP_NS, 4096, i == 4321 ? 99 : 5);
	ck_assert_uint_eq(t.step_ns, 8 * TIMELINE_STEP_NS);
	for (uint32_t i = 0; i < t.count; i++) {
		sum += t.steps[i].operations;
		if (t.steps[i].latency_max_ns == 99)
			max = i;
	}
	ck_assert_uint_eq(sum, 5000);
	ck_assert_uint_eq(max, 4321 / 8);
}
END_TEST

/* -- what processes use ------------------------------------------------------------------------ */

#define BURN_NS	  (50 * NS_PER_MS)
#define NAP_COUNT 25u

static pthread_barrier_t done_with_work, been_looked_at;

static uint64_t thread_cpu_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &ts);
	return (uint64_t)ts.tv_sec * NS_PER_S + (uint64_t)ts.tv_nsec;
}

static void *burn(void *arg)
{
	const struct timespec nap = {.tv_nsec = 100000};

	(void)arg;
	prctl(PR_SET_NAME, "burner");
	while (thread_cpu_ns() < BURN_NS)
		;
	/* Who goes to sleep is switched away, and its time is written down. */
	for (uint32_t i = 0; i < NAP_COUNT; i++)
		nanosleep(&nap, NULL);
	pthread_barrier_wait(&done_with_work);
	pthread_barrier_wait(&been_looked_at);
	return NULL;
}

START_TEST(each_thread_is_charged_with_what_it_used)
{
	static struct usage before, after;
	const struct thread_usage *burner = NULL;
	struct process_usage d;
	pthread_t thread;

	pthread_barrier_init(&done_with_work, NULL, 2);
	pthread_barrier_init(&been_looked_at, NULL, 2);
	usage_read(NULL, 0, &before);
	ck_assert_int_eq(pthread_create(&thread, NULL, burn, NULL), 0);
	pthread_barrier_wait(&done_with_work);
	usage_read(NULL, 0, &after);
	pthread_barrier_wait(&been_looked_at);
	pthread_join(thread, NULL);
	ck_assert_uint_eq(after.count, 1);
	ck_assert_int_eq(after.processes[0].pid, getpid());
	d = usage_diff(&before, &after, 0);
	ck_assert_uint_eq(d.thread_count, 2);
	for (uint32_t i = 0; i < d.thread_count; i++)
		if (strcmp(d.threads[i].name, "burner") == 0)
			burner = &d.threads[i];
	ck_assert_ptr_nonnull(burner);
	ck_assert_uint_ge(burner->cpu_us, BURN_NS / 1000);
	ck_assert_uint_ge(burner->switches, NAP_COUNT);
	ck_assert_uint_ge(d.cpu_us, burner->cpu_us);
	ck_assert_uint_ge(d.switches, burner->switches);
	/* Of the same moment nothing is left. */
	d = usage_diff(&after, &after, 0);
	ck_assert_uint_eq(d.cpu_us, 0);
	ck_assert_uint_eq(d.threads[0].cpu_us + d.threads[1].cpu_us, 0);
	ck_assert_uint_eq(d.switches, 0);
}
END_TEST

static void *nap(void *arg)
{
	const struct timespec t = {.tv_nsec = 10000};

	(void)arg;
	for (uint32_t i = 0; i < 20 * NAP_COUNT; i++)
		nanosleep(&t, NULL);
	pthread_barrier_wait(&done_with_work);
	pthread_barrier_wait(&been_looked_at);
	return NULL;
}

START_TEST(a_thread_that_ends_takes_nothing_from_the_others)
{
	const struct timespec t = {.tv_nsec = 10000};
	static struct usage before, after;
	pthread_t thread;

	pthread_barrier_init(&done_with_work, NULL, 2);
	pthread_barrier_init(&been_looked_at, NULL, 2);
	ck_assert_int_eq(pthread_create(&thread, NULL, nap, NULL), 0);
	pthread_barrier_wait(&done_with_work);
	usage_read(NULL, 0, &before);
	pthread_barrier_wait(&been_looked_at);
	pthread_join(thread, NULL);
	for (uint32_t i = 0; i < NAP_COUNT; i++)
		nanosleep(&t, NULL);
	usage_read(NULL, 0, &after);
	ck_assert_uint_ge(usage_diff(&before, &after, 0).switches, NAP_COUNT);
}
END_TEST

static uint64_t process_cpu_us(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &ts);
	return (uint64_t)ts.tv_sec * 1000000 + (uint64_t)ts.tv_nsec / 1000;
}

START_TEST(to_look_is_not_charged_to_the_load)
{
	static const char *const texts[] = {"no process is named so"};
	static struct usage before, after;
	uint64_t begun_us, looked_us;

	for (uint32_t i = 0; i < 3; i++) {
		begun_us = process_cpu_us();
		usage_read(texts, 1, &before);
		looked_us = process_cpu_us() - begun_us;
		usage_begin(&before);
		usage_read(texts, 1, &after);
		if (usage_diff(&before, &after, 0).cpu_us < looked_us / 4)
			return;
	}
	ck_abort_msg("%d of %d us", (int)usage_diff(&before, &after, 0).cpu_us, (int)looked_us);
}
END_TEST

/* -- the load, on a target that is known ---------------------------------------------------------
 */

#define DISK_SIZE  (4u << 20)
#define SERVICE_NS 100000u

/* Answers after SERVICE_NS; but nothing between stall_from and stall_to. */
struct fake {
	struct target target;
	struct sim_world *world;
	struct sim_process *process;
	uint8_t *disk;
	uint64_t stall_from_ns, stall_to_ns;
	uint64_t second_stall_ns; /* of 50 ms; 0: none */
	uint64_t permit_ns; /* a permit is renewed then, a resync begins at resync_ns; 0: not */
	uint64_t resync_ns;
	bool loses_a_write; /* once */
	bool fails;
	bool finished;
	uint64_t submitted;
};

struct fake_answer {
	struct fake *fake;
	struct target_op *op;
};

static int fake_prepare(struct target *t, struct target_op *op, uint32_t size_max)
{
	op->target = t;
	op->memory = malloc(size_max);
	return 0;
}

static void fake_release(struct target_op *op)
{
	free(op->memory);
}

static bool fake_get(struct target *t, struct target_op *op)
{
	(void)t;
	op->data = op->memory;
	return true;
}

static void fake_put(struct target *t, struct target_op *op)
{
	(void)t;
	op->data = NULL;
}

static void answer(void *arg)
{
	struct fake_answer *a = arg;
	struct target_op *op = a->op;
	struct fake *f = a->fake;

	free(a);
	if (!op->write)
		memcpy(op->data, f->disk + op->offset, op->size);
	else if (f->loses_a_write)
		f->loses_a_write = false;
	else
		memcpy(f->disk + op->offset, op->data, op->size);
	op->done(op, f->fails ? -E_FENCED : 0);
}

static void fake_submit(struct target *t, struct target_op *op)
{
	struct fake *f = container_of(t, struct fake, target);
	struct fake_answer *a = malloc(sizeof *a);
	const uint64_t now = f->world->now_ns;
	uint64_t at = now + SERVICE_NS;

	if (at >= f->stall_from_ns && at < f->stall_to_ns)
		at = f->stall_to_ns;
	if (f->second_stall_ns > 0 && at >= f->second_stall_ns &&
	    at < f->second_stall_ns + 50 * NS_PER_MS)
		at = f->second_stall_ns + 50 * NS_PER_MS;
	*a = (struct fake_answer){f, op};
	f->submitted++;
	sim_schedule(f->world, f->process, at - now, answer, a);
}

static void fake_on_room(struct target *t, struct reactor_task *task)
{
	reactor_defer(t->reactor, task);
}

static void fake_counts(struct target *t, struct target_counts *ret)
{
	const struct fake *f = container_of(t, struct fake, target);
	const uint64_t now = f->world->now_ns;

	*ret = (struct target_counts){
	    .permits = f->permit_ns > 0 && now >= f->permit_ns ? 8 : 7,
	    .resyncs = f->resync_ns > 0 && now >= f->resync_ns,
	};
}

static const struct target_ops fake_ops = {
    .prepare = fake_prepare,
    .release = fake_release,
    .get = fake_get,
    .put = fake_put,
    .submit = fake_submit,
    .on_room = fake_on_room,
    .counts = fake_counts,
};

static void fake_init(struct fake *f)
{
	*f = (struct fake){.world = sim_world_create(3)};
	f->process = sim_process_create(f->world, "bench");
	sim_process_start(f->process);
	f->disk = calloc(1, DISK_SIZE);
	f->target = (struct target){.ops = &fake_ops,
				    .reactor = sim_reactor(f->process),
				    .size = DISK_SIZE,
				    .depth_max = 1024};
}

static void fake_deinit(struct fake *f)
{
	sim_world_destroy(f->world);
	free(f->disk);
}

static void load_finished(void *arg)
{
	struct fake *f = arg;

	f->finished = true;
}

/* Runs one job to its end; the caller's, with load_destroy. */
static struct load *run(struct fake *f, const char *job, uint64_t duration_ns, bool once,
			struct stamps *stamps)
{
	struct job_spec spec = {.name = "j", .depth = 1};
	struct load_config c = {.reactor = f->target.reactor,
				.target = &f->target,
				.jobs = &spec,
				.job_count = 1,
				.duration_ns = duration_ns,
				.once = once,
				.verify = true,
				.seed = 5};
	struct error err = {0};
	struct load *l;

	spec.pattern = (struct pattern_spec){.size_count = 1, .sizes = {{BLOCK_SIZE, 1}}};
	spec.pattern.range = DISK_SIZE;
	ck_assert_msg(job_parse(job, &spec, &err) == 0, "%s", err.text);
	f->finished = false;
	l = load_start(&c, stamps, load_finished, f);
	ck_assert_ptr_nonnull(l);
	ck_assert(sim_run_flag(f->world, &f->finished));
	return l;
}

START_TEST(a_closed_loop_is_as_fast_as_its_target)
{
	struct stamps *stamps = stamps_create(DISK_SIZE, true);
	const struct load_result *r;
	struct fake f;
	struct load *l;

	fake_init(&f);
	l = run(&f, "rw=randrw,depth=8", NS_PER_S, false, stamps);
	r = load_total(l);
	/* 8 at once, 100 us each: 80,000 in a second. */
	ck_assert_msg(r->operations >= 79000 && r->operations <= 80100, "%d", (int)r->operations);
	ck_assert_uint_eq(r->mismatches, 0);
	ck_assert_uint_eq(r->missed, 0);
	ck_assert_uint_eq(r->reads + r->writes, r->operations);
	ck_assert_uint_le(r->read_latency.max_ns, SERVICE_NS + 1000);
	ck_assert_uint_ge(histogram_percentile(&r->write_latency, 1), SERVICE_NS);
	load_destroy(l);
	stamps_destroy(stamps);
	fake_deinit(&f);
}
END_TEST

START_TEST(an_open_loop_omits_nothing)
{
	struct stamps *stamps = stamps_create(DISK_SIZE, true);
	const struct load_result *r;
	struct fake f;
	struct load *l;
	uint64_t p50, p95;

	fake_init(&f);
	f.stall_from_ns = 2 * NS_PER_S;
	f.stall_to_ns = 3 * NS_PER_S;
	/* In a stall of one second of ten, 1000 of 10,000 are due; half of them wait over 500 ms. A
	 * loop that waits for answers would have seen four slow ones. */
	l = run(&f, "rw=randwrite,depth=4,rate=1000,arrivals=even", 10 * NS_PER_S, false, stamps);
	r = load_total(l);
	p50 = histogram_percentile(&r->write_latency, 50);
	p95 = histogram_percentile(&r->write_latency, 95.5);
	ck_assert_msg(r->operations >= 9990 && r->operations <= 10000, "%d", (int)r->operations);
	ck_assert_msg(p50 < 2 * SERVICE_NS, "%d us", (int)(p50 / 1000));
	ck_assert_msg(p95 > 400 * NS_PER_MS, "%d us", (int)(p95 / 1000));
	ck_assert_uint_gt(load_slowest(l)->ops[0].latency_ns, 990 * NS_PER_MS);
	ck_assert_uint_ge(load_slowest(l)->ops[0].at_ns, f.stall_to_ns - NS_PER_S);
	load_destroy(l);

	/* Twice what four at 100 us can do: it says so. */
	l = run(&f, "rw=randwrite,depth=4,rate=80000", NS_PER_S, false, stamps);
	r = load_total(l);
	ck_assert_uint_le(r->operations, 40100);
	ck_assert_uint_ge(r->missed, 38000);
	load_destroy(l);
	stamps_destroy(stamps);
	fake_deinit(&f);
}
END_TEST

/* Of the slowest: what happened while they were under way, and of the others nothing. */
static void check_causes(struct load *l, uint64_t slow_ns, const char *want)
{
	const struct slowest *s = load_slowest(l);
	uint32_t slow = 0;
	char buf[128];

	ck_assert_uint_eq(s->count, SLOWEST_MAX);
	for (uint32_t i = 0; i < s->count; i++) {
		const bool is_slow = s->ops[i].latency_ns >= slow_ns;

		slow += is_slow;
		ck_assert(i == 0 || s->ops[i].latency_ns <= s->ops[i - 1].latency_ns);
		ck_assert_str_eq(slowest_causes(&s->ops[i], buf, sizeof buf), is_slow ? want : "-");
	}
	ck_assert_uint_eq(slow, 4);
	load_destroy(l);
}

static void stop_it(void *arg)
{
	sim_process_pause(arg);
}

static void let_it_go_on(void *arg)
{
	sim_process_resume(arg);
}

START_TEST(slow_operations_have_their_causes)
{
	const char *const load = "rw=randwrite,depth=4";
	struct stamps *stamps = stamps_create(DISK_SIZE, true);
	struct fake f;

	fake_init(&f);
	f.stall_from_ns = 1 * NS_PER_S;
	f.stall_to_ns = 2 * NS_PER_S;
	check_causes(run(&f, load, 4 * NS_PER_S, false, stamps), NS_PER_S / 2, "-");
	f.stall_from_ns += 4 * NS_PER_S;
	f.stall_to_ns += 4 * NS_PER_S;
	f.permit_ns = f.stall_from_ns + NS_PER_S / 2;
	f.resync_ns = f.stall_to_ns + NS_PER_S; /* later: not a cause */
	check_causes(run(&f, load, 4 * NS_PER_S, false, stamps), NS_PER_S / 2, "permit renewed");
	f.stall_from_ns += 4 * NS_PER_S;
	f.stall_to_ns += 4 * NS_PER_S;
	f.permit_ns = f.stall_from_ns + NS_PER_S / 4;
	f.resync_ns = f.permit_ns + NS_PER_S / 4;
	check_causes(run(&f, load, 4 * NS_PER_S, false, stamps), NS_PER_S / 2,
		     "permit renewed, resync");
	/* The bench itself is stopped. */
	sim_schedule(f.world, NULL, NS_PER_S, stop_it, f.process);
	sim_schedule(f.world, NULL, 3 * NS_PER_S / 2, let_it_go_on, f.process);
	check_causes(run(&f, load, 4 * NS_PER_S, false, stamps), NS_PER_S / 4,
		     "this process did not run");
	stamps_destroy(stamps);
	fake_deinit(&f);
}
END_TEST

START_TEST(one_bad_moment_does_not_hide_the_others)
{
	struct stamps *stamps = stamps_create(DISK_SIZE, true);
	const struct slowest *s;
	uint32_t first = 0, second = 0;
	struct fake f;
	struct load *l;

	/* All of them are slow at once, first for 100 ms and then for 50. */
	fake_init(&f);
	f.stall_from_ns = 20 * NS_PER_MS;
	f.stall_to_ns = 120 * NS_PER_MS;
	f.second_stall_ns = 140 * NS_PER_MS;
	l = run(&f, "rw=randwrite,depth=128", NS_PER_S / 5, false, stamps);
	s = load_slowest(l);
	ck_assert_uint_eq(s->count, SLOWEST_MAX);
	for (uint32_t i = 0; i < s->count; i++) {
		first += s->ops[i].latency_ns >= 90 * NS_PER_MS;
		second += s->ops[i].latency_ns / (NS_PER_MS * 10) == 5;
	}
	ck_assert_uint_gt(first, 0);
	ck_assert_uint_gt(second, 0);
	load_destroy(l);
	stamps_destroy(stamps);
	fake_deinit(&f);
}
END_TEST

START_TEST(a_trace_explains_the_same_operation)
{
	static struct slowest s = {.begun_ns = NS_PER_S, .count = 3};
	static struct volume_trace t = {.count = 3};

	for (uint32_t i = 0; i < 3; i++) {
		s.ops[i] = (struct slow_op){.at_ns = 5 * NS_PER_MS, .offset = i * BLOCK_SIZE};
		t.slowest[i] = (struct volume_trace_op){.offset = i * BLOCK_SIZE,
							.told = true,
							.ended_ns = NS_PER_S + 5 * NS_PER_MS,
							.node = "par-1"};
		t.slowest[i].parts_ns[TRACE_NETWORK] = 3000;
		t.slowest[i].parts_ns[TRACE_LOG] = 5500;
	}
	t.slowest[1].told = false;
	t.slowest[2].ended_ns -= 2 * NS_PER_MS; /* an older one of the same block */
	slowest_explain(&s, &t);
	ck_assert_str_eq(s.ops[0].where, "log 5.5 us, node par-1");
	ck_assert_str_eq(s.ops[1].where, "");
	ck_assert_str_eq(s.ops[2].where, "");
}
END_TEST

START_TEST(a_lost_write_is_found)
{
	struct stamps *stamps = stamps_create(DISK_SIZE, true);
	struct fake f;
	struct load *l;

	fake_init(&f);
	load_destroy(run(&f, "rw=write,bs=64KiB,depth=4", 0, true, stamps)); /* the fill */
	ck_assert_uint_eq(f.submitted, DISK_SIZE / 65536);
	load_destroy(run(&f, "rw=randwrite,depth=16,zipf=1.1", NS_PER_S / 10, false, stamps));
	l = run(&f, "rw=read,bs=64KiB,depth=4", 0, true, stamps);
	ck_assert_uint_eq(load_total(l)->mismatches, 0);
	ck_assert_uint_eq(load_total(l)->operations, DISK_SIZE / 65536);
	ck_assert_uint_eq(load_total(l)->verified, DISK_SIZE / BLOCK_SIZE);
	load_destroy(l);

	f.loses_a_write = true;
	load_destroy(run(&f, "rw=randwrite,depth=16", NS_PER_S / 1000, false, stamps));
	l = run(&f, "rw=read,bs=64KiB,depth=4", 0, true, stamps);
	ck_assert_uint_eq(load_total(l)->mismatches, 1);
	load_destroy(l);

	f.disk[4096 + 1024]++; /* a torn block: only its second quarter is wrong */
	l = run(&f, "rw=read,bs=64KiB,depth=4", 0, true, stamps);
	ck_assert_uint_eq(load_total(l)->mismatches, 2);
	load_destroy(l);

	/* And of each other block one byte, wherever it is. */
	for (uint32_t i = 2; i < DISK_SIZE / BLOCK_SIZE; i++)
		f.disk[i * BLOCK_SIZE + i * 3 % BLOCK_SIZE] ^= 1;
	l = run(&f, "rw=read,bs=64KiB,depth=4", 0, true, stamps);
	ck_assert_uint_ge(load_total(l)->mismatches, DISK_SIZE / BLOCK_SIZE - 1);
	load_destroy(l);
	stamps_destroy(stamps);

	/* What was not written by this run is not known, and not said to be verified. */
	stamps = stamps_create(DISK_SIZE, true);
	l = run(&f, "rw=read,bs=64KiB,depth=4", 0, true, stamps);
	ck_assert_uint_eq(load_total(l)->verified, 0);
	load_destroy(l);
	stamps_destroy(stamps);
	fake_deinit(&f);
}
END_TEST

START_TEST(an_error_ends_the_load)
{
	struct stamps *stamps = stamps_create(DISK_SIZE, true);
	struct fake f;
	struct load *l;

	fake_init(&f);
	f.fails = true;
	l = run(&f, "rw=randwrite,depth=7", NS_PER_S, false, stamps);
	ck_assert_int_eq(load_total(l)->first_error, -E_FENCED);
	ck_assert_uint_eq(load_total(l)->errors, 7);
	ck_assert_uint_eq(load_total(l)->operations, 0);
	load_destroy(l);
	stamps_destroy(stamps);
	fake_deinit(&f);
}
END_TEST

START_TEST(a_place_is_found_however_few_are_wanted)
{
	struct stamps *stamps = stamps_create(DISK_SIZE, true);
	struct fake f;

	/* Nearly all draws are of the same block, and 31 of 32 must go elsewhere. */
	fake_init(&f);
	load_destroy(run(&f, "rw=randwrite,depth=32,zipf=10", NS_PER_S / 100, false, stamps));
	ck_assert_uint_gt(f.submitted, 3000);
	stamps_destroy(stamps);
	fake_deinit(&f);
}
END_TEST

START_TEST(a_slow_open_loop_ends_in_time)
{
	struct stamps *stamps = stamps_create(DISK_SIZE, true);
	struct fake f;
	struct load *l;

	/* The first is due after five seconds, and the load ends after one. */
	fake_init(&f);
	l = run(&f, "rw=randwrite,rate=0.2,arrivals=even", NS_PER_S, false, stamps);
	ck_assert_uint_ge(load_total(l)->elapsed_ns, NS_PER_S);
	ck_assert_uint_le(load_total(l)->elapsed_ns, NS_PER_S + NS_PER_MS);
	ck_assert_uint_eq(load_total(l)->operations + load_total(l)->missed, 0);
	load_destroy(l);
	stamps_destroy(stamps);
	fake_deinit(&f);
}
END_TEST

START_TEST(loads_that_cannot_run_are_refused)
{
	struct job_spec job = {.name = "j", .depth = 64};
	struct error err;

	job.pattern = (struct pattern_spec){.size_count = 1, .sizes = {{BLOCK_SIZE, 1}}};
	job.pattern.range = DISK_SIZE;
	ck_assert_int_eq(load_check(&job, 1, DISK_SIZE, 1024, &err), 0);
	ck_assert_int_ne(load_check(&job, 1, DISK_SIZE - 4096, 1024, &err), 0);
	ck_assert_int_ne(load_check(&job, 1, DISK_SIZE, 63, &err), 0);
	job.pattern.range = 4 * 64 * BLOCK_SIZE - BLOCK_SIZE;
	ck_assert_int_ne(load_check(&job, 1, DISK_SIZE, 1024, &err), 0);
	job.pattern.start = DISK_SIZE;
	job.pattern.range = 0;
	ck_assert_int_ne(load_check(&job, 1, DISK_SIZE, 1024, &err), 0);
	/* Its end is beyond all numbers. */
	job.pattern.start = UINT64_MAX - BLOCK_SIZE + 1;
	job.pattern.range = 4 * 64 * BLOCK_SIZE;
	ck_assert_int_ne(load_check(&job, 1, DISK_SIZE, 1024, &err), 0);
}
END_TEST

START_TEST(jobs_leave_room_for_one_another)
{
	struct job_spec jobs[8];
	struct error err;

	/* One has four times the room that it needs; eight at one place have half of it. */
	for (uint32_t i = 0; i < 8; i++) {
		jobs[i] = (struct job_spec){.name = "j", .depth = 64};
		jobs[i].pattern =
		    (struct pattern_spec){.size_count = 1, .sizes = {{BLOCK_SIZE, 1}}};
		jobs[i].pattern.range = 4 * 64 * BLOCK_SIZE;
	}
	ck_assert_int_eq(load_check(jobs, 1, 8 * DISK_SIZE, 1024, &err), 0);
	ck_assert_int_ne(load_check(jobs, 8, 8 * DISK_SIZE, 1024, &err), 0);
	ck_assert_ptr_nonnull(strstr(err.text, "job j"));
	for (uint32_t i = 0; i < 8; i++)
		jobs[i].pattern.start = i * jobs[i].pattern.range;
	ck_assert_int_eq(load_check(jobs, 8, 8 * DISK_SIZE, 1024, &err), 0);
	/* Small ones keep a large one from each place that they are in. */
	jobs[1].pattern.start = 0;
	jobs[1].pattern.range = DISK_SIZE;
	jobs[1].pattern.sizes[0].bytes = DISK_SIZE / 4;
	jobs[1].depth = 1;
	ck_assert_int_ne(load_check(jobs, 2, 8 * DISK_SIZE, 1024, &err), 0);
}
END_TEST

int main(void)
{
	TCase *tc = tcase_create("bench");
	Suite *s = suite_create("bench");
	SRunner *sr = srunner_create(s);
	int failed;

	tcase_set_timeout(tc, 100);
	tcase_add_test(tc, percentiles_are_within_their_bound);
	tcase_add_test(tc, what_waits_for_hours_is_not_told_shorter);
	tcase_add_test(tc, zipf_is_zipf);
	tcase_add_test(tc, patterns_do_what_they_say);
	tcase_add_test(tc, what_is_not_understood_is_refused);
	tcase_add_test(tc, what_would_be_ignored_is_refused);
	tcase_add_test(tc, the_knee_is_where_it_bends);
	tcase_add_test(tc, a_long_timeline_keeps_every_operation);
	tcase_add_test(tc, a_closed_loop_is_as_fast_as_its_target);
	tcase_add_test(tc, an_open_loop_omits_nothing);
	tcase_add_test(tc, slow_operations_have_their_causes);
	tcase_add_test(tc, one_bad_moment_does_not_hide_the_others);
	tcase_add_test(tc, a_trace_explains_the_same_operation);
	tcase_add_test(tc, each_thread_is_charged_with_what_it_used);
	tcase_add_test(tc, a_thread_that_ends_takes_nothing_from_the_others);
	tcase_add_test(tc, to_look_is_not_charged_to_the_load);
	tcase_add_test(tc, a_lost_write_is_found);
	tcase_add_test(tc, an_error_ends_the_load);
	tcase_add_test(tc, a_place_is_found_however_few_are_wanted);
	tcase_add_test(tc, a_slow_open_loop_ends_in_time);
	tcase_add_test(tc, loads_that_cannot_run_are_refused);
	tcase_add_test(tc, jobs_leave_room_for_one_another);
	suite_add_tcase(s, tc);
	srunner_run_all(sr, CK_NORMAL);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed == 0 ? 0 : 1;
}
