/* CPU time and context switches of every process and thread of what is measured, from /proc, and
 * the machine's as a whole. */
#ifndef BENCH_USAGE_H
#define BENCH_USAGE_H

#include <stdint.h>

#define USAGE_PROCESSES_MAX 64u
#define USAGE_THREADS_MAX   64u /* of a process; later ones are added to the last */
#define USAGE_TEXTS_MAX	    8u

struct thread_usage {
	int tid;
	char name[16];
	uint64_t cpu_us;
	uint64_t switches; /* voluntary and not */
};

struct process_usage {
	int pid;
	char name[32];
	uint64_t cpu_us;   /* of all threads, those that have ended included */
	uint64_t switches; /* of the threads that there are */
	uint64_t calls;	   /* system calls; set by the owner of struct calls */
	uint32_t thread_count;
	struct thread_usage threads[USAGE_THREADS_MAX];
};

struct usage {
	uint64_t machine_busy_us; /* all that was not idle, interrupts included */
	uint32_t count;
	struct process_usage processes[USAGE_PROCESSES_MAX];
};

/* Every process whose command line contains one of the texts, and this one, which comes first. */
void usage_read(const char *const *texts, uint32_t text_count, struct usage *ret);

/* What was read is where a measurement begins: what it cost to read it is not counted. */
void usage_begin(struct usage *u);

/* after - before for the process at place i of after; what began in between counts from 0. */
struct process_usage usage_diff(const struct usage *before, const struct usage *after, uint32_t i);

#endif
