/* The load of pave-bench: jobs on one target, all on the reactor's thread.
 *
 * Closed loop (rate 0): `depth` operations are in flight always; the next begins when one ends, and
 * its time runs from then.
 * Open loop (rate > 0): operations are due at times that do not depend on how fast earlier ones
 * were answered. `depth` bounds those in flight; one that cannot begin when it is due waits, and
 * its latency counts from when it was due: no coordinated omission. What was due and had not begun
 * when the time was over is counted as missed.
 *
 * Once over the range (once: true): every block in order, whatever the time. */
#ifndef BENCH_LOAD_H
#define BENCH_LOAD_H

#include "bench/histogram.h"
#include "bench/pattern.h"
#include "bench/slowest.h"
#include "bench/stamps.h"
#include "bench/target.h"
#include "bench/timeline.h"

#define LOAD_DEPTH_MAX 1024u /* of all jobs together */
#define LOAD_JOBS_MAX  16u

struct job_spec {
	char name[32];
	struct pattern_spec pattern;
	uint32_t depth;
	bool depth_given; /* by the user */
	double rate;	  /* operations a second; 0: closed loop */
	bool even;	  /* open loop: evenly spaced; else as Poisson has them */
};

struct load_config {
	struct reactor *reactor;
	struct target *target;
	const struct job_spec *jobs;
	uint32_t job_count;
	uint64_t duration_ns;
	bool once;
	bool verify; /* every read is checked */
	uint64_t seed;
};

struct load_result {
	uint64_t operations, bytes, errors, missed;
	uint64_t verified, mismatches; /* blocks that were read and checked; of these, wrong */
	uint64_t reads, writes;
	uint64_t elapsed_ns;
	int first_error;
	uint64_t first_bad_offset;
	struct histogram read_latency, write_latency;
};

struct load;

/* Starts; done once, when the last operation has ended. NULL without memory. Depths must not exceed
 * LOAD_DEPTH_MAX and the target's together; each range must hold four times what may be in flight
 * in it, so that a place that is not busy is found. */
struct load *load_start(const struct load_config *config, struct stamps *stamps,
			void (*done)(void *arg), void *arg);

/* No more operations begin; done follows. */
void load_stop(struct load *l);

uint64_t load_operations(const struct load *l);
const struct load_result *load_total(struct load *l); /* all jobs together */
const struct load_result *load_job(const struct load *l, uint32_t job);
const struct timeline *load_timeline(const struct load *l);
const struct slowest *load_slowest(const struct load *l);
void load_destroy(struct load *l);

/* 0, or why these jobs cannot run on a target of this size and depth. */
int load_check(const struct job_spec *jobs, uint32_t job_count, uint64_t target_size,
	       uint32_t depth_max, struct error *err);

#endif
