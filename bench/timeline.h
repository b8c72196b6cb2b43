/* Operations, bytes and the slowest operation over time, in even steps. When the run is longer than
 * the table, two steps become one: memory is bounded whatever the length. */
#ifndef BENCH_TIMELINE_H
#define BENCH_TIMELINE_H

#include <stdint.h>

#define TIMELINE_STEPS_MAX 1200u
#define TIMELINE_STEP_NS   100000000ull /* at first */

struct timeline_step {
	uint64_t operations, bytes, latency_max_ns;
};

struct timeline {
	uint64_t step_ns; /* 0: nothing was added yet */
	uint32_t count;
	struct timeline_step steps[TIMELINE_STEPS_MAX];
};

/* at_ns: since the begin of the run. */
void timeline_add(struct timeline *t, uint64_t at_ns, uint32_t bytes, uint64_t latency_ns);

#endif
