/* System calls of some processes, counted in the kernel (the tracepoint raw_syscalls:sys_enter, one
 * counter a thread). Root is needed, or perf_event_paranoid <= -1 and tracefs; where it cannot be
 * had nothing is counted, and the result says so. Counting costs about 0.1 us a call, so it is done
 * when asked for only. */
#ifndef BENCH_CALLS_H
#define BENCH_CALLS_H

#include <stdbool.h>

#include "bench/usage.h"

#define CALLS_COUNTERS_MAX 1024u

struct calls {
	unsigned count;
	struct calls_counter {
		int fd, pid;
	} counters[CALLS_COUNTERS_MAX];
};

/* For every thread of u, and those that it starts. 0, or a negative errno: nothing is counted. */
int calls_open(struct calls *c, const struct usage *u);

/* Counts between the two. */
void calls_start(const struct calls *c);
void calls_stop(const struct calls *c);

/* Sets calls of each process of u to what was counted. */
void calls_read(const struct calls *c, struct usage *u);
void calls_close(struct calls *c);

#endif
