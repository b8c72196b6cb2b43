/* pave-bench: load on a volume through the volume client itself, as a host has it, or over NBD to
 * any server; verified, and with the CPU time of every process that takes part.
 *
 *   OPENING --open--> FILLING (--fill) -> RUNNING, once or for each step of a ramp -> VERIFYING
 *   (--verify) -> CLOSING -> exit
 *
 * Exit codes: 0 done, 1 failed or data that is not what was written, 2 usage, 3 refused by policy,
 * 4 unreachable. */
#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "bench/calls.h"
#include "bench/report.h"
#include "bench/scripts.h"
#include "engine/base/log.h"
#include "engine/reactor/io.h"
#include "tools/common/daemon.h"

#define PASS_SIZE  (128u << 10) /* of filling and verifying */
#define PASS_DEPTH 16u

enum phase { OPENING, FILLING, RUNNING, VERIFYING, CLOSING };

struct bench {
	struct options o;
	enum phase phase;
	int exit_code;
	bool interrupted; /* by a signal, and what was measured is told */
	const char *name; /* of what is loaded, for people */
	struct reactor *reactor;
	struct transports transports;
	struct trust *trust;
	struct target target;
	bool open_now; /* the target is open */
	struct stamps *stamps;
	struct load *load;
	uint32_t pass; /* job whose range is filled or verified */
	struct run *runs;
	uint32_t run_count, runs_wanted;
	struct target_counts counts_before;
	struct reactor_stats reactor_before;
	struct run_wire wire_before;
	struct calls calls;
	struct reactor_timer progress;
	bool signalled; /* once */
	uint64_t last_operations, verified_blocks;
	struct volume_open_op open;
};

static void next_phase(struct bench *b);

static void closed(void *arg)
{
	struct bench *b = arg;

	b->open_now = false;
	reactor_stop(b->reactor);
}

static void finish(struct bench *b, int exit_code)
{
	if (exit_code != 0)
		b->exit_code = exit_code;
	b->phase = CLOSING;
	reactor_timer_cancel(b->reactor, &b->progress);
	b->target.ops->close(&b->target, closed, b);
}

/* -- progress ---------------------------------------------------------------------------------- */

static void show_progress(struct reactor_timer *t)
{
	static const char *const names[] = {"opening", "filling", "running", "verifying",
					    "closing"};
	struct bench *b = container_of(t, struct bench, progress);
	const uint64_t n = load_operations(b->load);

	if (isatty(STDERR_FILENO))
		fprintf(stderr, "\r%-10s %3u/%-3u %9" PRIu64 " ops/s  %12" PRIu64 " ops\033[K",
			names[b->phase], b->run_count + (b->phase == RUNNING), b->runs_wanted,
			n - b->last_operations, n);
	b->last_operations = n;
	reactor_timer_arm(b->reactor, t, reactor_now_ns(b->reactor) + NS_PER_S);
}

/* Whoever started this reads its counters meanwhile. The end of stdin lets it go on, too. */
static void hold(struct bench *b)
{
	int c;

	if (!b->o.hold)
		return;
	fputs("held\n", stderr);
	do
		c = getchar();
	while (c != '\n' && c != EOF);
	reactor_refresh(b->reactor);
}

/* -- before and after a run -------------------------------------------------------------------- */

static void read_wire(const struct bench *b, struct run_wire *ret)
{
	*ret = (struct run_wire){0};
	if (b->target.volume == NULL)
		return;
	ret->count =
	    MIN(volume_get_connections(b->target.volume, ret->connections, RUN_CONNECTIONS_MAX),
		RUN_CONNECTIONS_MAX);
	if (b->transports.rdma != NULL)
		transport_rdma_counters(b->transports.rdma, &ret->rdma);
}

/* Takes `size` bytes of counters, all of uint64_t, from those after them. */
static void subtract(void *after, const void *before, size_t size)
{
	uint64_t *a = after;
	const uint64_t *b = before;

	for (size_t i = 0; i < size / sizeof *a; i++)
		a[i] -= MIN(a[i], b[i]);
}

static void measure_wire(const struct bench *b, struct run_wire *ret)
{
	const struct run_wire *before = &b->wire_before;

	read_wire(b, ret);
	subtract(&ret->rdma, &before->rdma, sizeof ret->rdma);
	for (uint32_t i = 0; i < ret->count; i++)
		for (uint32_t k = 0; k < before->count; k++)
			if (strcmp(ret->connections[i].node, before->connections[k].node) == 0)
				subtract(&ret->connections[i].stats, &before->connections[k].stats,
					 sizeof ret->connections[i].stats);
}

static void measure_before(struct bench *b, struct run *run)
{
	hold(b);
	usage_read(b->o.count, b->o.count_count, &run->before);
	if (b->o.calls) {
		const int rc = calls_open(&b->calls, &run->before);

		run->calls_counted = rc == 0;
		if (rc != 0)
			fprintf(stderr, "pave-bench: --calls: %s; root is needed, and tracefs\n",
				err_text(rc));
	}
	if (b->o.trace)
		run->traced = volume_trace_start(b->target.volume, &run->trace) == 0;
	reactor_get_stats(b->reactor, &b->reactor_before);
	b->target.ops->counts(&b->target, &b->counts_before);
	read_wire(b, &b->wire_before);
	usage_begin(&run->before);
	if (run->calls_counted)
		calls_start(&b->calls);
}

static void measure_after(struct bench *b, struct run *run)
{
	struct reactor_stats reactor;
	struct target_counts c;

	if (run->calls_counted)
		calls_stop(&b->calls);
	usage_read(b->o.count, b->o.count_count, &run->after);
	if (run->traced)
		volume_trace_stop(b->target.volume);
	reactor_get_stats(b->reactor, &reactor);
	b->target.ops->counts(&b->target, &c);
	measure_wire(b, &run->wire);
	hold(b);
	if (run->calls_counted) {
		calls_read(&b->calls, &run->after);
		calls_close(&b->calls);
	}
	run->enter_calls = reactor.enter_calls - b->reactor_before.enter_calls;
	run->counts = (struct target_counts){
	    .permits = c.permits - b->counts_before.permits,
	    .read_retries = c.read_retries - b->counts_before.read_retries,
	    .reconciled_blocks = c.reconciled_blocks - b->counts_before.reconciled_blocks,
	    .resyncs = c.resyncs - b->counts_before.resyncs,
	    .repairs = c.repairs - b->counts_before.repairs,
	    .freezes = c.freezes - b->counts_before.freezes,
	    .layers_begun = c.layers_begun - b->counts_before.layers_begun,
	    .layers_pause_ns = c.layers_pause_ns,
	    .layers_work_ns = c.layers_work_ns,
	};
}

static void keep_results(struct bench *b, struct run *run)
{
	run->total = *load_total(b->load);
	run->seconds = (double)run->total.elapsed_ns / 1e9;
	run->timeline = *load_timeline(b->load);
	run->slowest = *load_slowest(b->load);
	if (run->traced)
		slowest_explain(&run->slowest, &run->trace);
	if (b->o.job_count == 1)
		return;
	run->jobs = calloc(b->o.job_count, sizeof *run->jobs);
	for (uint32_t i = 0; run->jobs != NULL && i < b->o.job_count; i++)
		run->jobs[i] = *load_job(b->load, i);
}

/* -- loads ------------------------------------------------------------------------------------- */

static bool load_failed(struct bench *b, const struct load_result *r)
{
	if (r->first_error != 0) {
		fprintf(stderr, "pave-bench: %s: %s (%s)\n", b->name, err_text(r->first_error),
			err_name(r->first_error));
		finish(b, daemon_exit_code(r->first_error));
	} else if (r->mismatches > 0) {
		fprintf(stderr,
			"pave-bench: %s: %" PRIu64 " blocks are not what was written, the first at "
			"byte %" PRIu64 "\n",
			b->name, r->mismatches, r->first_bad_offset);
		finish(b, 1);
	}
	return r->first_error != 0 || r->mismatches > 0;
}

static void load_done(void *arg)
{
	struct bench *b = arg;
	bool failed;

	if (b->phase == RUNNING) {
		struct run *run = &b->runs[b->run_count];

		measure_after(b, run);
		keep_results(b, run);
		/* Of a ramp only whole steps are told. */
		if (!b->interrupted || b->o.ramp.kind == RAMP_NONE)
			b->run_count++;
	}
	reactor_timer_cancel(b->reactor, &b->progress);
	failed = load_failed(b, load_total(b->load));
	b->verified_blocks += load_total(b->load)->verified;
	load_destroy(b->load);
	b->load = NULL;
	if (failed) {
		b->interrupted = false;
		return;
	}
	if (b->exit_code != 0)
		finish(b, b->exit_code); /* told to end */
	else
		next_phase(b);
}

static void start_load(struct bench *b, const struct job_spec *jobs, uint32_t count, bool once)
{
	const struct load_config config = {
	    .reactor = b->reactor,
	    .target = &b->target,
	    .jobs = jobs,
	    .job_count = count,
	    .duration_ns = b->o.seconds * NS_PER_S,
	    .once = once,
	    .verify = b->o.verify,
	    .seed = b->o.seed + b->run_count,
	};

	b->last_operations = 0;
	b->load = load_start(&config, b->stamps, load_done, b);
	if (b->load == NULL) {
		fprintf(stderr, "pave-bench: no memory\n");
		finish(b, 1);
		return;
	}
	reactor_timer_arm(b->reactor, &b->progress, reactor_now_ns(b->reactor) + NS_PER_S);
}

/* Once over the range of the next job, in order. False: all are done. */
static bool start_pass(struct bench *b, bool reads)
{
	struct job_spec pass = {.name = "pass", .depth = PASS_DEPTH};

	if (b->pass == b->o.job_count)
		return false;
	pass.pattern = (struct pattern_spec){
	    .read_percent = reads ? 100 : 0,
	    .size_count = 1,
	    .sizes = {{PASS_SIZE, 1}},
	    .start = b->o.jobs[b->pass].pattern.start,
	    .range = b->o.jobs[b->pass].pattern.range,
	};
	/* A last piece that is shorter than the others' size: all are made as short. */
	while (pass.pattern.range % pass.pattern.sizes[0].bytes != 0)
		pass.pattern.sizes[0].bytes /= 2;
	b->pass++;
	start_load(b, &pass, 1, true);
	return true;
}

static void start_run(struct bench *b)
{
	struct run *run = &b->runs[b->run_count];
	struct job_spec *j = &b->o.jobs[0];

	if (b->o.ramp.kind != RAMP_NONE) {
		run->step = b->o.ramp.steps[b->run_count];
		if (b->o.ramp.kind == RAMP_DEPTH)
			j->depth = (uint32_t)run->step;
		else
			j->rate = run->step;
	}
	measure_before(b, run);
	start_load(b, b->o.jobs, b->o.job_count, false);
}

static void next_phase(struct bench *b)
{
	switch (b->phase) {
	case OPENING:
		b->phase = FILLING;
		b->pass = 0;
		/* fall through */
	case FILLING:
		if (b->o.fill && start_pass(b, false))
			return;
		b->phase = RUNNING;
		start_run(b);
		return;
	case RUNNING:
		if (b->run_count < b->runs_wanted) {
			start_run(b);
			return;
		}
		b->phase = VERIFYING;
		b->pass = 0;
		/* fall through */
	case VERIFYING:
		if (b->o.verify && start_pass(b, true))
			return;
		/* fall through */
	default:
		finish(b, 0);
	}
}

/* -- opening ----------------------------------------------------------------------------------- */

static int deepest_check(struct bench *b, struct error *err)
{
	struct job_spec jobs[LOAD_JOBS_MAX];

	memcpy(jobs, b->o.jobs, sizeof jobs);
	if (b->o.ramp.kind == RAMP_DEPTH)
		jobs[0].depth = (uint32_t)b->o.ramp.steps[b->o.ramp.count - 1];
	return load_check(jobs, b->o.job_count, b->target.size, b->target.depth_max, err);
}

static void target_open(struct bench *b)
{
	struct error err;

	b->open_now = true;
	options_complete(&b->o, b->target.size);
	b->stamps = stamps_create(b->target.size, b->o.verify);
	if (b->stamps == NULL)
		fprintf(stderr, "pave-bench: no memory for the stamps of %s\n", b->name);
	else if (deepest_check(b, &err) != 0)
		fprintf(stderr, "pave-bench: %s\n", err.text);
	else {
		next_phase(b);
		return;
	}
	finish(b, 2);
}

static void opened(struct volume_open_op *op, int status, struct volume *v, const struct error *err)
{
	struct bench *b = container_of(op, struct bench, open);

	if (status != 0) {
		fprintf(stderr, "pave-bench: %s\n", err->text);
		b->exit_code = daemon_exit_code(status);
		reactor_stop(b->reactor);
		return;
	}
	target_volume_init(&b->target, b->reactor, v);
	target_open(b);
}

static void on_ended(int why, void *arg)
{
	struct bench *b = arg;

	fprintf(stderr, "pave-bench: %s: the attachment has ended: %s\n", b->name, err_text(why));
	b->exit_code = 1;
	if (b->load != NULL)
		load_stop(b->load);
}

static void on_signal(int signal_number, void *arg)
{
	struct bench *b = arg;
	const bool again = b->signalled;
	const bool result =
	    b->run_count > 0 || (b->phase == RUNNING && b->o.ramp.kind == RAMP_NONE);

	b->signalled = true;
	if (b->exit_code == 0 || again)
		fprintf(stderr, "%spave-bench: %s: it ends %s%s\n",
			isatty(STDERR_FILENO) ? "\r\033[K" : "", strsignal(signal_number),
			again ? "at once" : "before its time",
			again || !result ? ", without a result" : "");
	if (again) /* operations that never end are not waited for any longer */
		_exit(1);
	b->interrupted = b->exit_code == 0 && result;
	b->exit_code = 1;
	if (b->load != NULL)
		load_stop(b->load);
	else if (b->phase == OPENING)
		reactor_stop(b->reactor);
}

static int open_volume(struct bench *b, struct error *err)
{
	char dir[4200];
	int rc;

	snprintf(dir, sizeof dir, "%.4096s/bench-host", b->o.cluster.dir);
	rc = daemon_open_trust(dir, b->o.cluster.root, &b->trust, err);
	if (rc != 0)
		return rc;
	rc = transports_open(&b->o.transport, b->reactor, b->o.insecure, b->o.cluster.pd,
			     &b->transports, err);
	if (rc != 0)
		return rc;
	b->open = (struct volume_open_op){
	    .done = opened,
	    .config =
		{
		    .reactor = b->reactor,
		    .transport = transports_use(&b->transports),
		    .trust = b->trust,
		    .pd_address = b->o.cluster.pd,
		    .name = b->o.volume,
		    .holder = "pave-bench",
		    .holder_site = b->o.site != NULL ? b->o.site : b->o.cluster.site,
		    .endpoint = "pave-bench",
		    .ended = on_ended,
		    .arg = b,
		},
	};
	volume_open(&b->open);
	return 0;
}

static int run(struct bench *b, struct error *err)
{
	const struct reactor_config config = {.name = "bench"};
	int rc = reactor_create(&config, &b->reactor);

	/* This one blocks: until it is open a signal ends the process, as it does by itself. */
	if (rc == 0 && b->o.nbd != NULL) {
		rc = target_nbd_open(&b->target, b->reactor, b->o.nbd, b->o.insecure, err);
		if (rc != 0)
			return rc;
	}
	if (rc == 0)
		rc = reactor_on_terminate(b->reactor, on_signal, b);
	if (rc != 0)
		return error_set(err, rc, "start: %s", err_text(rc));
	if (b->o.nbd != NULL)
		target_open(b);
	else
		rc = open_volume(b, err);
	if (rc != 0)
		return rc;
	rc = reactor_run(b->reactor);
	return rc == 0 ? 0 : error_set(err, rc, "reactor: %s", err_text(rc));
}

/* -- the result -------------------------------------------------------------------------------- */

static int print_result(struct bench *b)
{
	struct report r = {.options = &b->o,
			   .runs = b->runs,
			   .run_count = b->run_count,
			   .interrupted = b->interrupted,
			   .verified_blocks = b->verified_blocks};
	double done[RAMP_STEPS_MAX], due[RAMP_STEPS_MAX];
	json_t *j;
	int rc = 0;

	for (uint32_t i = 0; i < b->run_count && i < RAMP_STEPS_MAX; i++) {
		const struct load_result *t = &b->runs[i].total;

		done[i] = (double)t->operations / b->runs[i].seconds;
		due[i] = (double)(t->operations + t->missed) / b->o.seconds;
	}
	r.knee = b->interrupted ? r.run_count : ramp_knee(&b->o.ramp, b->run_count, done, due);
	if (isatty(STDERR_FILENO))
		fputs("\r\033[K", stderr);
	j = report_json(&r);
	if (b->o.json) {
		json_dumpf(j, stdout, JSON_INDENT(2) | JSON_REAL_PRECISION(9));
		puts("");
	} else {
		report_text(&r);
	}
	if (fflush(stdout) != 0 || ferror(stdout)) {
		fputs("pave-bench: the result cannot be written\n", stderr);
		rc = 1;
	}
	if (b->o.svg != NULL) {
		char *text = json_dumps(j, JSON_REAL_PRECISION(9));

		if (text == NULL || script_feed("plot.py", b->o.svg, text) != 0)
			rc = 1;
		free(text);
	}
	json_decref(j);
	return rc;
}

int main(int argc, char **argv)
{
	static struct bench b;
	struct error err = {0};
	int rc;

	if (argc > 1 && strcmp(argv[1], "compare") == 0)
		return script_exec("compare", argv + 1);
	if (argc > 1 && strcmp(argv[1], "plot") == 0)
		return script_exec("plot.py", argv + 1);
	log_set_level(LOG_WARN);
	rc = options_parse(&b.o, argc, argv);
	if (rc != 0)
		return rc < 0 ? 0 : rc;
	signal(SIGPIPE, SIG_IGN);
	b.name = b.o.nbd != NULL ? b.o.nbd : b.o.volume;
	b.progress.fire = show_progress;
	b.runs_wanted = b.o.ramp.kind != RAMP_NONE ? b.o.ramp.count : 1;
	b.runs = calloc(b.runs_wanted, sizeof *b.runs);
	if (b.runs == NULL)
		return 1;
	if (run(&b, &err) != 0) {
		fprintf(stderr, "pave-bench: %s\n", err.text);
		return daemon_exit_code(err.code);
	}
	if (b.exit_code == 0)
		b.exit_code = print_result(&b);
	else if (b.interrupted)
		print_result(&b);
	stamps_destroy(b.stamps);
	return b.exit_code;
}
