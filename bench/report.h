/* What a run gave, and its forms: a table for people, JSON for programs (and for bench/plot.py). */
#ifndef BENCH_REPORT_H
#define BENCH_REPORT_H

#include <jansson.h>

#include "bench/options.h"
#include "net/rdma/rdma.h"

#define RUN_CONNECTIONS_MAX 16u /* told of */

/* What the connections to nodes carried. */
struct run_wire {
	struct volume_connection connections[RUN_CONNECTIONS_MAX];
	uint32_t count;
	struct rdma_counters rdma; /* zeroed: TCP */
};

/* One run: a step of a ramp, or the only one. */
struct run {
	double step; /* the ramp's; 0 without one */
	double seconds;
	struct load_result total;
	struct load_result *jobs; /* job_count of them; NULL when there is but one */
	struct timeline timeline;
	struct slowest slowest;
	struct usage before, after;
	uint64_t enter_calls; /* io_uring_enter of this process */
	struct target_counts counts;
	struct run_wire wire;
	bool calls_counted, traced;
	struct volume_trace trace; /* where traced */
};

struct report {
	const struct options *options;
	bool interrupted; /* by a signal: what is told is what was measured until then */
	const struct run *runs;
	uint32_t run_count;
	uint32_t knee;		  /* place among runs; run_count: none */
	uint64_t verified_blocks; /* that were read and compared, during the runs and after them */
};

void report_text(const struct report *r);

/* The whole as one object; the caller's. With the latency curves and the timeline. */
json_t *report_json(const struct report *r);

/* Operations of all kinds: reads and writes together. */
void run_latency(const struct run *run, struct histogram *ret);

#endif
