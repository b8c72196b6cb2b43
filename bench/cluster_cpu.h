/* CPU time, context switches and system calls of every process of a cluster, from /proc. */
#ifndef BENCH_CLUSTER_CPU_H
#define BENCH_CLUSTER_CPU_H

#include <stdint.h>

#define CLUSTER_PROCESSES_MAX 64u

struct process_usage {
	int pid;
	char name[32];
	uint64_t cpu_us;
	uint64_t switches; /* voluntary and not */
};

struct cluster_usage {
	uint32_t count;
	struct process_usage processes[CLUSTER_PROCESSES_MAX];
};

/* Every process whose command line names dir, and this one. */
void cluster_usage_read(const char *dir, struct cluster_usage *ret);

/* after - before for the process at place i of after; a process that began in between counts from
 * 0. */
struct process_usage cluster_usage_diff(const struct cluster_usage *before,
					const struct cluster_usage *after, uint32_t i);

#endif
