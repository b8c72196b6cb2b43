/* CPU time of the kernel's threads (workers, the journal, soft interrupts), which no process is
 * charged with: the end of a durable write runs there. As bench/comparing/machine.py counts it. */
#ifndef BENCH_KERNEL_CPU_H
#define BENCH_KERNEL_CPU_H

#include <stdint.h>

#define KERNEL_CPU_THREADS_MAX 4096u /* more are not counted */

struct kernel_cpu {
	uint32_t count;
	struct {
		int pid;
		uint64_t ns;
	} threads[KERNEL_CPU_THREADS_MAX];
};

/* As it is now. Where /proc shows none of them there are none. */
void kernel_cpu_read(struct kernel_cpu *ret);

/* What they used since, in ns. One by one: a worker that has ended since would take all that it
 * ever used from what the others did. */
uint64_t kernel_cpu_since(const struct kernel_cpu *before);

#endif
