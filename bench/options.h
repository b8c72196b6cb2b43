/* The command line of pave-bench. */
#ifndef BENCH_OPTIONS_H
#define BENCH_OPTIONS_H

#include "bench/load.h"
#include "bench/ramp.h"
#include "bench/usage.h"
#include "tools/common/cluster.h"
#include "tools/common/transports.h"

struct options {
	struct cluster_ref cluster;
	const char *volume, *nbd, *site, *svg;
	struct job_spec jobs[LOAD_JOBS_MAX]; /* --job, or the one that the plain options say */
	uint32_t job_count;
	const char *after_jobs; /* a plain option that no --job comes after */
	struct ramp ramp;
	const char
	    *count[USAGE_TEXTS_MAX]; /* whose processes are measured, by their command line */
	uint32_t count_count;
	char cluster_files[4200]; /* what the command lines of the cluster's processes contain */
	unsigned seconds, seed;
	struct transports_options transport;
	bool fill, verify, hold, json, insecure, calls, trace;
};

/* 0; 2 after a line on stderr; -1: --help or --version was answered. */
int options_parse(struct options *o, int argc, char **argv);

/* Ranges that were left open become all of the target. */
void options_complete(struct options *o, uint64_t target_size);

/* "name=x,rw=randread,bs=4KiB:70/64KiB:30,depth=8,rate=1000,arrivals=even,zipf=1.1,
 * start=0,range=1GiB", over what *job holds already. -EINVAL with its text. */
int job_parse(const char *text, struct job_spec *job, struct error *err);

#endif
