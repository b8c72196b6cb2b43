/* options: see options.h. */
#include "bench/options.h"

#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/text.h"
#include "tools/common/daemon.h"

static const char usage[] =
    "Usage: pave-bench --cluster DIR --volume NAME [options]\n"
    "       pave-bench --nbd URI [options]\n"
    "       pave-bench compare [--help]     Pavé beside the limit of the disk and its peers\n"
    "       pave-bench plot FILE.json DIR   SVG plots of a result of --json\n"
    "Loads a volume, and measures: through the volume client, as an attached host has it, or over\n"
    "NBD to any server. What is written carries stamps; written blocks are overwritten.\n"
    "\n"
    "What is loaded\n"
    "  --cluster DIR     of `pave dev up` (or PAVE_CLUSTER)\n"
    "  --volume NAME     its content is overwritten by writes and --fill\n"
    "  --nbd URI         nbd+unix:///NAME?socket=PATH or nbd://HOST:PORT/NAME, instead\n"
    "The load\n"
    "  --rw PATTERN      randwrite (default), randread, randrw (70 % reads), write, read, rw\n"
    "  --bs SIZES        of an operation, up to 1MiB: 4KiB (default), or a mix as "
    "4KiB:70,64KiB:30\n"
    "  --depth N         operations in flight (default 32); with --rate the bound of them\n"
    "  --rate N          open loop: so many a second are due, whatever the answers do; latency\n"
    "                    counts from when an operation was due\n"
    "  --arrivals HOW    of --rate: poisson (default) or even\n"
    "  --zipf S          popularity of places by Zipf's law with exponent S (0: uniform, default)\n"
    "  --start, --range SIZE  part of the volume that is used (default: all)\n"
    "  --job K=V,K=V...  one job with the keys name, rw, bs, depth, rate, arrivals, zipf, start,\n"
    "                    range over the options before it; up to 16 run at once\n"
    "  --ramp RANGE      depth=1..256 or rate=5000..80000[:STEPS]: one run for each, and the knee\n"
    "  --seconds N       length of a run (default 10)\n"
    "  --seed N          of places and arrivals (default 42)\n"
    "  --fill            write the range once before\n"
    "  --verify          compare every byte that is read of what this run wrote, and read the\n"
    "                    range back afterwards\n"
    "What comes out\n"
    "  --count TEXT      also measure processes whose command line contains TEXT (repeatable);\n"
    "                    those of the cluster are anyway, over NBD where --cluster says which\n"
    "  --calls           also count system calls (root, by perf's tracepoint)\n"
    "  --trace           where the time of the slowest operations went; costs a little of it\n"
    "  --json            the result as JSON on stdout\n"
    "  --svg DIR         plots, too (python3)\n"
    "  --hold            say \"held\" on stderr before and after the measurement, and wait for a\n"
    "                    line on stdin: for tools that count in between\n"
    "  --site SITE       where this host stands\n"
    "  --transport WHICH auto (default), tcp or rdma; --rdma-device NAME, --rdma-poll-us N\n"
    "  --insecure, --log-level LEVEL, --version, --help\n";

enum { START = 256, JOB, RAMP, SEED, COUNT, CALLS, SVG, NBD, RATE, ARRIVALS, ZIPF, TRACE };

/* -- values ------------------------------------------------------------------------------------ */

static int number(const char *text, double min, double max, bool whole, double *ret,
		  struct error *err)
{
	char *end;
	const double n = strtod(text, &end);

	if (end == text || *end != '\0' || !(n >= min && n <= max) ||
	    (whole && n != (double)(uint64_t)n))
		return error_set(err, -EINVAL, "'%s': a %snumber from %g to %g is needed", text,
				 whole ? "whole " : "", min, max);
	*ret = n;
	return 0;
}

static int whole(const char *text, unsigned min, unsigned max, unsigned *ret, struct error *err)
{
	double n = 0;
	int rc = number(text, min, max, true, &n, err);

	if (rc == 0)
		*ret = (unsigned)n;
	return rc;
}

static int size_of(const char *text, uint64_t *ret, struct error *err)
{
	if (text_parse_size(text, ret) != 0 || *ret % BLOCK_SIZE != 0)
		return error_set(err, -EINVAL, "'%s': a size as 1GiB is needed, of whole 4KiB",
				 text);
	return 0;
}

static int set_key(struct job_spec *j, const char *key, const char *value, struct error *err)
{
	if (strcmp(key, "name") == 0) {
		if (!text_is_name(value) || strlen(value) >= sizeof j->name)
			return error_set(err, -EINVAL, "'%s' is no name: a-z 0-9 . _ -, up to 31",
					 value);
		memcpy(j->name, value, strlen(value) + 1);
		return 0;
	}
	if (strcmp(key, "rw") == 0)
		return pattern_parse_rw(value, &j->pattern, err);
	if (strcmp(key, "bs") == 0)
		return pattern_parse_sizes(value, &j->pattern, err);
	if (strcmp(key, "depth") == 0) {
		j->depth_given = true;
		return whole(value, 1, LOAD_DEPTH_MAX, &j->depth, err);
	}
	if (strcmp(key, "rate") == 0)
		return number(value, 0, 1e8, false, &j->rate, err);
	if (strcmp(key, "zipf") == 0)
		return number(value, 0, 10, false, &j->pattern.zipf, err);
	if (strcmp(key, "start") == 0)
		return size_of(value, &j->pattern.start, err);
	if (strcmp(key, "range") == 0)
		return size_of(value, &j->pattern.range, err);
	if (strcmp(key, "arrivals") == 0 &&
	    (strcmp(value, "even") == 0 || strcmp(value, "poisson") == 0)) {
		j->even = value[0] == 'e';
		return 0;
	}
	return error_set(err, -EINVAL,
			 "%s=%s: the keys are name, rw, bs, depth, rate, arrivals (even, poisson), "
			 "zipf, start, range",
			 key, value);
}

int job_parse(const char *text, struct job_spec *job, struct error *err)
{
	struct job_spec j = *job;
	char buf[512];
	char *save = NULL;

	if (strlen(text) >= sizeof buf)
		return error_set(err, -EINVAL, "a job is over %zu characters long", sizeof buf - 1);
	memcpy(buf, text, strlen(text) + 1);
	for (char *one = strtok_r(buf, ",", &save); one != NULL; one = strtok_r(NULL, ",", &save)) {
		char *equals = strchr(one, '=');
		int rc;

		if (equals == NULL)
			return error_set(err, -EINVAL, "'%s': KEY=VALUE is needed", one);
		*equals = '\0';
		rc = set_key(&j, one, equals + 1, err);
		if (rc != 0)
			return rc;
	}
	*job = j;
	return 0;
}

/* -- the line ---------------------------------------------------------------------------------- */

static int add_job(struct options *o, const struct job_spec *plain, const char *text,
		   struct error *err)
{
	struct job_spec *j = &o->jobs[o->job_count];

	if (o->job_count == LOAD_JOBS_MAX)
		return error_set(err, -E_LIMIT, "over %u jobs", LOAD_JOBS_MAX);
	*j = *plain;
	snprintf(j->name, sizeof j->name, "job%u", o->job_count + 1);
	o->job_count++;
	o->after_jobs = NULL;
	return job_parse(text, j, err);
}

static int flag(struct options *o, int c)
{
	switch (c) {
	case 'f':
		o->fill = true;
		return 0;
	case 'y':
		o->verify = true;
		return 0;
	case 'H':
		o->hold = true;
		return 0;
	case 'j':
		o->json = true;
		return 0;
	case 'I':
		o->insecure = true;
		return 0;
	case CALLS:
		o->calls = true;
		return 0;
	case TRACE:
		o->trace = true;
		return 0;
	default:
		return -EINVAL;
	}
}

static int option(struct options *o, struct job_spec *plain, int c, const char *name,
		  const char *arg, struct error *err)
{
	switch (c) {
	case 'c':
		return cluster_resolve(arg, &o->cluster, err);
	case 'v':
		o->volume = arg;
		return 0;
	case NBD:
		o->nbd = arg;
		return 0;
	case 'S':
		o->site = arg;
		return 0;
	case SVG:
		o->svg = arg;
		return 0;
	case 's':
		return whole(arg, 1, 86400, &o->seconds, err);
	case SEED:
		return whole(arg, 1, 1000000000, &o->seed, err);
	case RAMP:
		return ramp_parse(arg, &o->ramp, err);
	case JOB:
		return add_job(o, plain, arg, err);
	case COUNT:
		if (o->count_count == USAGE_TEXTS_MAX - 1)
			return error_set(err, -E_LIMIT, "over %u texts", USAGE_TEXTS_MAX - 1);
		o->count[o->count_count++] = arg;
		return 0;
	case 'l':
		return daemon_log_level("pave-bench", arg);
	case 'p':
		o->after_jobs = name;
		return set_key(plain, name, arg, err);
	default:
		return flag(o, c);
	}
}

static const struct option options[] = {
    {"cluster", required_argument, NULL, 'c'},
    {"volume", required_argument, NULL, 'v'},
    {"nbd", required_argument, NULL, NBD},
    {"rw", required_argument, NULL, 'p'},
    {"bs", required_argument, NULL, 'p'},
    {"depth", required_argument, NULL, 'p'},
    {"rate", required_argument, NULL, 'p'},
    {"arrivals", required_argument, NULL, 'p'},
    {"zipf", required_argument, NULL, 'p'},
    {"start", required_argument, NULL, 'p'},
    {"range", required_argument, NULL, 'p'},
    {"job", required_argument, NULL, JOB},
    {"ramp", required_argument, NULL, RAMP},
    {"seconds", required_argument, NULL, 's'},
    {"seed", required_argument, NULL, SEED},
    {"site", required_argument, NULL, 'S'},
    {"svg", required_argument, NULL, SVG},
    {"count", required_argument, NULL, COUNT},
    {"calls", no_argument, NULL, CALLS},
    {"trace", no_argument, NULL, TRACE},
    {"fill", no_argument, NULL, 'f'},
    {"verify", no_argument, NULL, 'y'},
    {"hold", no_argument, NULL, 'H'},
    {"json", no_argument, NULL, 'j'},
    TRANSPORTS_LONG_OPTIONS,
    {"insecure", no_argument, NULL, 'I'},
    {"log-level", required_argument, NULL, 'l'},
    {"version", no_argument, NULL, 'V'},
    {"help", no_argument, NULL, 'h'},
    {0},
};

static int wrong(const char *what, const char *why)
{
	fprintf(stderr, "pave-bench: %s%s%s\nTry `pave-bench --help`.\n", what,
		what[0] != '\0' ? ": " : "", why);
	return 2;
}

static int check_target(struct options *o)
{
	const char *cluster = getenv("PAVE_CLUSTER");
	struct error err;

	if (o->cluster.pd[0] == '\0' && cluster != NULL && cluster[0] != '\0' &&
	    cluster_resolve(cluster, &o->cluster, &err) != 0)
		return wrong("PAVE_CLUSTER", err.text);
	if (o->nbd != NULL) {
		if (o->volume != NULL)
			return wrong("", "--volume and --nbd: one of the two");
		if (o->trace)
			return wrong("--trace", "over NBD: `pave trace` asks the attachment");
	} else if (o->cluster.pd[0] == '\0' || o->volume == NULL) {
		return wrong("", "--cluster and --volume are needed, or --nbd");
	} else if (o->cluster.dir[0] == '\0') {
		return wrong(o->cluster.pd, "the directory of a cluster is needed here, with its "
					    "trust root: --cluster DIR, or --nbd URI");
	}
	if (o->cluster.dir[0] != '\0') {
		/* With what ends the name: a directory beside it may begin so. */
		snprintf(o->cluster_files, sizeof o->cluster_files, "%.4096s/", o->cluster.dir);
		o->count[o->count_count++] = o->cluster_files;
	}
	return 0;
}

static int check_ramp(const struct options *o)
{
	if (o->ramp.kind == RAMP_NONE)
		return 0;
	if (o->job_count > 1)
		return wrong("--ramp", "goes with one job");
	if (o->jobs[0].rate > 0)
		return wrong("--ramp", "says the rate, or has none: without --rate");
	if (o->ramp.kind == RAMP_DEPTH && o->jobs[0].depth_given)
		return wrong("--ramp", "says the depth: without --depth");
	if (o->ramp.kind == RAMP_DEPTH && o->ramp.steps[o->ramp.count - 1] > LOAD_DEPTH_MAX)
		return wrong("--ramp", "a depth is over 1024");
	return 0;
}

static int check_jobs(const struct options *o)
{
	bool writes = o->fill;

	for (uint32_t i = 0; i < o->job_count; i++) {
		const struct job_spec *j = &o->jobs[i];

		writes = writes || j->pattern.read_percent < 100;
		if (j->pattern.zipf > 0 && !j->pattern.random)
			return wrong("--zipf", "a sequential load has no popular places");
		if (j->even && j->rate == 0 && o->ramp.kind != RAMP_RATE)
			return wrong("--arrivals", "of an open loop: with --rate");
	}
	if (o->verify && !writes)
		return wrong("--verify", "nothing is written that could be compared: --fill, or a "
					 "load that writes");
	return 0;
}

int options_parse(struct options *o, int argc, char **argv)
{
	struct job_spec plain = {.name = "all", .depth = 32};
	struct error err = {0};
	int c, rc, at = 0;

	o->seconds = 10;
	o->seed = 42;
	plain.pattern =
	    (struct pattern_spec){.random = true, .size_count = 1, .sizes = {{BLOCK_SIZE, 1}}};
	while ((c = getopt_long(argc, argv, "h", options, &at)) != -1) {
		if (c == 'V' || c == 'h') {
			fputs(c == 'V' ? "pave-bench " PAVE_VERSION "\n" : usage, stdout);
			return -1;
		}
		if (c == '?')
			return wrong("", "see above");
		rc = transports_option(&o->transport, "pave-bench", c, optarg);
		if (rc > 0)
			return rc;
		if (rc == 0)
			continue;
		snprintf(err.text, sizeof err.text, "not understood");
		if (option(o, &plain, c, options[at].name, optarg, &err) != 0)
			return wrong(options[at].name, err.text);
	}
	if (optind != argc)
		return wrong(argv[optind], "not understood");
	if (o->job_count > 0 && o->after_jobs != NULL)
		return wrong(o->after_jobs,
			     "comes after the last --job, which takes what is before "
			     "it");
	if (o->job_count == 0)
		o->jobs[o->job_count++] = plain;
	return check_ramp(o) != 0 || check_jobs(o) != 0 ? 2 : check_target(o);
}

void options_complete(struct options *o, uint64_t target_size)
{
	for (uint32_t i = 0; i < o->job_count; i++) {
		struct pattern_spec *p = &o->jobs[i].pattern;

		/* A range that was asked for is not cut short in silence: load_check refuses it. */
		if (p->start < target_size && p->range == 0)
			p->range = target_size - p->start;
	}
}
