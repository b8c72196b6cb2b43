/* pave-bench: load on a volume through the volume client itself, as a host has it, with no NBD in
 * between; verified, and with the CPU time of every process of the cluster.
 *
 *   OPENING --attached--> FILLING (--fill) -> RUNNING -> VERIFYING (--verify) -> CLOSING -> exit
 *
 * Exit codes: 0 done, 1 failed or data that is not what was written, 2 usage, 3 refused by policy,
 * 4 unreachable. */
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <jansson.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "bench/cluster_cpu.h"
#include "bench/load.h"
#include "engine/base/log.h"
#include "engine/base/text.h"
#include "engine/reactor/io.h"
#include "tools/common/cluster.h"
#include "tools/common/daemon.h"

enum phase { OPENING, FILLING, RUNNING, VERIFYING, CLOSING };

struct bench {
	enum phase phase;
	struct cluster_ref cluster;
	const char *volume_name, *rw, *site;
	uint64_t size, range;
	unsigned depth, seconds;
	bool fill, verify, hold, json, insecure;
	int exit_code;
	struct reactor *reactor;
	struct transport *transport;
	struct trust *trust;
	struct volume *volume;
	struct load_stamps *stamps;
	struct load *load;
	struct load_result run;
	struct cluster_usage before, after;
	struct reactor_stats reactor_before, reactor_after;
	struct volume_stats volume_before, volume_after;
	struct reactor_timer progress;
	uint64_t last_operations;
	struct volume_open_op open;
};

static const char usage[] =
    "Usage: pave-bench --cluster DIR --volume NAME [options]\n"
    "Loads a volume through the volume client, as an attached host does, and measures.\n"
    "\n"
    "  --cluster DIR     of `pave dev up` (or PAVE_CLUSTER)\n"
    "  --volume NAME     its content is overwritten by writes and --fill\n"
    "  --rw PATTERN      randwrite (default), randread, randrw (70 % reads), write, read\n"
    "  --bs SIZE         of an operation (default 4KiB, up to 1MiB)\n"
    "  --depth N         operations in flight (default 32)\n"
    "  --seconds N       length of the measurement (default 10)\n"
    "  --range SIZE      part of the volume that is used, from its start (default: all)\n"
    "  --fill            write the range once before\n"
    "  --verify          check every read, and read the range back afterwards\n"
    "  --hold            say \"held\" on stderr before and after the measurement, and wait for a\n"
    "                    line on stdin: for tools that count in between\n"
    "  --site SITE       where this host stands\n"
    "  --json            the result as JSON on stdout\n"
    "  --insecure, --log-level LEVEL, --version, --help\n";

static void next_phase(struct bench *b);

static void closed(void *arg)
{
	struct bench *b = arg;

	b->volume = NULL;
	reactor_stop(b->reactor);
}

static void finish(struct bench *b, int exit_code)
{
	if (exit_code != 0)
		b->exit_code = exit_code;
	b->phase = CLOSING;
	reactor_timer_cancel(b->reactor, &b->progress);
	volume_close(b->volume, closed, b);
}

/* -- progress -------------------------------------------------------------------------------- */

static void show_progress(struct reactor_timer *t)
{
	static const char *const names[] = {"opening", "filling", "running", "verifying",
					    "closing"};
	struct bench *b = container_of(t, struct bench, progress);
	const struct load_result *r = load_result(b->load);

	if (!b->json && isatty(STDERR_FILENO))
		fprintf(
		    stderr, "\r%-10s %9" PRIu64 " ops/s  %12" PRIu64 " ops  %" PRIu64 " errors ",
		    names[b->phase], r->operations - b->last_operations, r->operations, r->errors);
	b->last_operations = r->operations;
	reactor_timer_arm(b->reactor, t, reactor_now_ns(b->reactor) + NS_PER_S);
}

/* -- phases ---------------------------------------------------------------------------------- */

/* Whoever started this reads its counters meanwhile. The end of stdin lets it go on, too. */
static void hold(struct bench *b)
{
	int c;

	if (!b->hold)
		return;
	fputs("held\n", stderr);
	do
		c = getchar();
	while (c != '\n' && c != EOF);
	reactor_refresh(b->reactor);
}

static void load_done(void *arg)
{
	struct bench *b = arg;
	const struct load_result *r = load_result(b->load);
	uint64_t bad = r->mismatches;
	uint64_t bad_offset = r->first_bad_offset;
	int error = r->first_error;

	if (b->phase == RUNNING) {
		hold(b);
		cluster_usage_read(b->cluster.dir, &b->after);
		reactor_get_stats(b->reactor, &b->reactor_after);
		volume_get_stats(b->volume, &b->volume_after);
		b->run = *r;
	}
	load_destroy(b->load);
	b->load = NULL;
	reactor_timer_cancel(b->reactor, &b->progress);
	if (error != 0) {
		fprintf(stderr, "pave-bench: volume %s: %s (%s)\n", b->volume_name, err_text(error),
			err_name(error));
		finish(b, daemon_exit_code(error));
		return;
	}
	if (bad > 0) {
		fprintf(stderr,
			"pave-bench: volume %s: %" PRIu64
			" blocks are not what was written, the first at "
			"byte %" PRIu64 "\n",
			b->volume_name, bad, bad_offset);
		finish(b, 1);
		return;
	}
	next_phase(b);
}

static void start_load(struct bench *b, bool random, unsigned read_percent, uint64_t size,
		       uint64_t duration_ns)
{
	const struct load_config config = {
	    .reactor = b->reactor,
	    .volume = b->volume,
	    .random = random,
	    .read_percent = read_percent,
	    .size = (uint32_t)size,
	    .depth = duration_ns == 0 ? 16 : b->depth,
	    .range = b->range / size * size,
	    .duration_ns = duration_ns,
	    .seed = 42,
	    .verify = b->verify,
	};

	b->last_operations = 0;
	b->load = load_start(&config, b->stamps, load_done, b);
	reactor_timer_arm(b->reactor, &b->progress, reactor_now_ns(b->reactor) + NS_PER_S);
}

static void start_run(struct bench *b)
{
	bool random = strncmp(b->rw, "rand", 4) == 0;
	const char *kind = random ? b->rw + 4 : b->rw;
	unsigned read_percent = strcmp(kind, "read") == 0 ? 100 : strcmp(kind, "rw") == 0 ? 70 : 0;

	cluster_usage_read(b->cluster.dir, &b->before);
	reactor_get_stats(b->reactor, &b->reactor_before);
	volume_get_stats(b->volume, &b->volume_before);
	hold(b);
	start_load(b, random, read_percent, b->size, b->seconds * NS_PER_S);
}

static void next_phase(struct bench *b)
{
	uint64_t pass = MIN(IO_SIZE_MAX, 128 * KIB);

	switch (b->phase) {
	case OPENING:
		b->phase = FILLING;
		if (b->fill) {
			start_load(b, false, 0, pass, 0);
			return;
		}
		/* fall through */
	case FILLING:
		b->phase = RUNNING;
		start_run(b);
		return;
	case RUNNING:
		b->phase = VERIFYING;
		if (b->verify) {
			start_load(b, false, 100, pass, 0);
			return;
		}
		/* fall through */
	default:
		finish(b, 0);
	}
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
	b->volume = v;
	if (b->range == 0 || b->range > volume_size(v))
		b->range = volume_size(v);
	b->stamps = load_stamps_create(volume_size(v));
	if (b->stamps == NULL || b->range < b->size) {
		fprintf(stderr, "pave-bench: no memory, or --range below --bs\n");
		finish(b, 1);
		return;
	}
	next_phase(b);
}

static void on_ended(int why, void *arg)
{
	struct bench *b = arg;

	fprintf(stderr, "pave-bench: volume %s: the attachment has ended: %s\n", b->volume_name,
		err_text(why));
	b->exit_code = 1;
	if (b->load != NULL)
		load_stop(b->load);
}

static void on_signal(int signal_number, void *arg)
{
	struct bench *b = arg;

	(void)signal_number;
	b->exit_code = 1;
	if (b->load != NULL)
		load_stop(b->load);
	else if (b->phase == OPENING)
		reactor_stop(b->reactor);
}

/* -- the result ------------------------------------------------------------------------------ */

static json_t *latency_json(const struct histogram *h)
{
	return json_pack(
	    "{s:I, s:f, s:f, s:f, s:f, s:f, s:f, s:f}", "operations", (json_int_t)h->total,
	    "mean_us", histogram_mean(h) / 1e3, "p50_us", (double)histogram_percentile(h, 50) / 1e3,
	    "p95_us", (double)histogram_percentile(h, 95) / 1e3, "p99_us",
	    (double)histogram_percentile(h, 99) / 1e3, "p99_9_us",
	    (double)histogram_percentile(h, 99.9) / 1e3, "p99_99_us",
	    (double)histogram_percentile(h, 99.99) / 1e3, "max_us", (double)h->max_ns / 1e3);
}

static double per_op(const struct bench *b, double n)
{
	return b->run.operations == 0 ? 0 : n / (double)b->run.operations;
}

static void print_json(const struct bench *b)
{
	double seconds = (double)b->run.elapsed_ns / 1e9;
	json_t *processes = json_array();
	uint64_t cpu_us = 0;
	json_t *j;

	for (uint32_t i = 0; i < b->after.count; i++) {
		struct process_usage u = cluster_usage_diff(&b->before, &b->after, i);

		cpu_us += u.cpu_us;
		json_array_append_new(processes,
				      json_pack("{s:s, s:i, s:f, s:f}", "name", u.name, "pid",
						u.pid, "cpu_us_per_op", per_op(b, (double)u.cpu_us),
						"switches_per_op", per_op(b, (double)u.switches)));
	}
	j = json_pack(
	    "{s:s, s:s, s:I, s:i, s:f, s:I, s:f, s:f, s:f, s:f, s:I, s:b, s:o, s:o, s:o}", "volume",
	    b->volume_name, "rw", b->rw, "bs", (json_int_t)b->size, "depth", (int)b->depth,
	    "seconds", seconds, "operations", (json_int_t)b->run.operations, "iops",
	    (double)b->run.operations / seconds, "mib_per_s",
	    (double)b->run.bytes / seconds / (double)MIB, "cpu_us_per_op",
	    per_op(b, (double)cpu_us), "host_enter_calls_per_op",
	    per_op(b, (double)(b->reactor_after.enter_calls - b->reactor_before.enter_calls)),
	    "permits_renewed", (json_int_t)(b->volume_after.permits - b->volume_before.permits),
	    "verified", b->verify, "reads", latency_json(&b->run.reads), "writes",
	    latency_json(&b->run.writes), "processes", processes);
	json_dumpf(j, stdout, JSON_INDENT(2));
	puts("");
	json_decref(j);
}

static void print_latency(const char *name, const struct histogram *h)
{
	if (h->total == 0)
		return;
	printf("  %-6s mean %8.1f  p50 %8.1f  p99 %8.1f  p99.9 %8.1f  p99.99 %8.1f  max %8.1f us\n",
	       name, histogram_mean(h) / 1e3, (double)histogram_percentile(h, 50) / 1e3,
	       (double)histogram_percentile(h, 99) / 1e3,
	       (double)histogram_percentile(h, 99.9) / 1e3,
	       (double)histogram_percentile(h, 99.99) / 1e3, (double)h->max_ns / 1e3);
}

static void print_table(const struct bench *b)
{
	double seconds = (double)b->run.elapsed_ns / 1e9;
	char bs[32];
	double total = 0;

	if (isatty(STDERR_FILENO))
		fputs("\r\033[K", stderr);
	printf("%s, %s, depth %u, %.1f s: %.0f/s, %.1f MiB/s%s\n", b->rw,
	       text_size(b->size, bs, sizeof bs), b->depth, seconds,
	       (double)b->run.operations / seconds, (double)b->run.bytes / seconds / (double)MIB,
	       b->verify ? ", all data verified" : "");
	print_latency("read", &b->run.reads);
	print_latency("write", &b->run.writes);
	for (uint32_t i = 0; i < b->after.count; i++) {
		struct process_usage u = cluster_usage_diff(&b->before, &b->after, i);

		total += (double)u.cpu_us;
		printf("  %-16s %7d  %7.2f us CPU, %5.3f context switches an operation\n", u.name,
		       u.pid, per_op(b, (double)u.cpu_us), per_op(b, (double)u.switches));
	}
	printf("  all processes             %7.2f us CPU; host: %.3f io_uring_enter an operation, "
	       "%" PRIu64 " permits\n",
	       per_op(b, total),
	       per_op(b, (double)(b->reactor_after.enter_calls - b->reactor_before.enter_calls)),
	       b->volume_after.permits - b->volume_before.permits);
}

/* -- start ----------------------------------------------------------------------------------- */

static bool number(const char *text, unsigned min, unsigned max, unsigned *ret)
{
	char *end;
	unsigned long n = strtoul(text, &end, 10);

	if (end == text || *end != '\0' || n < min || n > max) {
		fprintf(stderr, "pave-bench: '%s': a number from %u to %u is needed\n", text, min,
			max);
		return false;
	}
	*ret = (unsigned)n;
	return true;
}

static bool pattern_is_known(const char *rw)
{
	static const char *const known[] = {"randwrite", "randread", "randrw", "write", "read"};

	for (size_t i = 0; i < ARRAY_SIZE(known); i++)
		if (strcmp(rw, known[i]) == 0)
			return true;
	fprintf(stderr, "pave-bench: --rw %s: choose randwrite, randread, randrw, write or read\n",
		rw);
	return false;
}

static bool option(struct bench *b, int c, const char *arg, struct error *err)
{
	switch (c) {
	case 'c':
		if (cluster_resolve(arg, &b->cluster, err) == 0)
			return true;
		fprintf(stderr, "pave-bench: %s\n", err->text);
		return false;
	case 'v':
		b->volume_name = arg;
		return true;
	case 'r':
		b->rw = arg;
		return pattern_is_known(arg);
	case 'b':
		if (text_parse_size(arg, &b->size) == 0 && b->size > 0 && b->size <= IO_SIZE_MAX &&
		    b->size % BLOCK_SIZE == 0)
			return true;
		fprintf(stderr, "pave-bench: --bs %s: a multiple of 4KiB up to 1MiB is needed\n",
			arg);
		return false;
	case 'R':
		if (text_parse_size(arg, &b->range) == 0)
			return true;
		fprintf(stderr, "pave-bench: --range %s: a size as 1GiB is needed\n", arg);
		return false;
	case 'd':
		return number(arg, 1, LOAD_DEPTH_MAX, &b->depth);
	case 's':
		return number(arg, 1, 86400, &b->seconds);
	case 'S':
		b->site = arg;
		return true;
	case 'f':
		b->fill = true;
		return true;
	case 'y':
		b->verify = true;
		return true;
	case 'H':
		b->hold = true;
		return true;
	case 'j':
		b->json = true;
		return true;
	case 'I':
		b->insecure = true;
		return true;
	case 'l':
		return daemon_log_level("pave-bench", arg) == 0;
	default:
		return false;
	}
}

static int parse(struct bench *b, int argc, char **argv)
{
	static const struct option options[] = {
	    {"cluster", required_argument, NULL, 'c'},
	    {"volume", required_argument, NULL, 'v'},
	    {"rw", required_argument, NULL, 'r'},
	    {"bs", required_argument, NULL, 'b'},
	    {"range", required_argument, NULL, 'R'},
	    {"depth", required_argument, NULL, 'd'},
	    {"seconds", required_argument, NULL, 's'},
	    {"site", required_argument, NULL, 'S'},
	    {"fill", no_argument, NULL, 'f'},
	    {"verify", no_argument, NULL, 'y'},
	    {"hold", no_argument, NULL, 'H'},
	    {"json", no_argument, NULL, 'j'},
	    {"insecure", no_argument, NULL, 'I'},
	    {"log-level", required_argument, NULL, 'l'},
	    {"version", no_argument, NULL, 'V'},
	    {"help", no_argument, NULL, 'h'},
	    {0},
	};
	struct error err;
	int c;

	while ((c = getopt_long(argc, argv, "h", options, NULL)) != -1) {
		if (c == 'V' || c == 'h') {
			fputs(c == 'V' ? "pave-bench " PAVE_VERSION "\n" : usage, stdout);
			return -1;
		}
		if (!option(b, c, optarg, &err)) {
			fputs("Try `pave-bench --help`.\n", stderr);
			return 2;
		}
	}
	if (b->cluster.pd[0] == '\0' && getenv("PAVE_CLUSTER") != NULL &&
	    !option(b, 'c', getenv("PAVE_CLUSTER"), &err))
		return 2;
	if (b->cluster.pd[0] == '\0' || b->volume_name == NULL || optind != argc) {
		fputs("pave-bench: --cluster and --volume are needed\nTry `pave-bench --help`.\n",
		      stderr);
		return 2;
	}
	return 0;
}

static int run(struct bench *b, struct error *err)
{
	const struct reactor_config config = {.name = "bench"};
	char dir[4200];
	int rc;

	snprintf(dir, sizeof dir, "%.4096s/bench-host", b->cluster.dir);
	rc = daemon_open_trust(dir, b->cluster.root, &b->trust, err);
	if (rc != 0)
		return rc;
	rc = reactor_create(&config, &b->reactor);
	if (rc == 0)
		rc = transport_tcp_create(b->reactor, b->insecure, &b->transport);
	if (rc == 0)
		rc = reactor_on_terminate(b->reactor, on_signal, b);
	if (rc != 0)
		return error_set(err, rc, "start: %s", err_text(rc));
	b->open = (struct volume_open_op){
	    .done = opened,
	    .config =
		{
		    .reactor = b->reactor,
		    .transport = b->transport,
		    .trust = b->trust,
		    .pd_address = b->cluster.pd,
		    .name = b->volume_name,
		    .holder = "pave-bench",
		    .holder_site = b->site != NULL ? b->site : b->cluster.site,
		    .endpoint = "pave-bench",
		    .ended = on_ended,
		    .arg = b,
		},
	};
	volume_open(&b->open);
	rc = reactor_run(b->reactor);
	return rc == 0 ? 0 : error_set(err, rc, "reactor: %s", err_text(rc));
}

int main(int argc, char **argv)
{
	static struct bench b = {.rw = "randwrite", .size = 4096, .depth = 32, .seconds = 10};
	struct error err = {0};
	int rc = parse(&b, argc, argv);

	if (rc != 0)
		return rc < 0 ? 0 : rc;
	signal(SIGPIPE, SIG_IGN);
	log_set_level(LOG_WARN);
	b.progress.fire = show_progress;
	if (run(&b, &err) != 0) {
		fprintf(stderr, "pave-bench: %s\n", err.text);
		return 1;
	}
	if (b.exit_code == 0 && b.json)
		print_json(&b);
	else if (b.exit_code == 0)
		print_table(&b);
	load_stamps_destroy(b.stamps);
	return b.exit_code;
}
