/* calls: see calls.h, perf_event_open(2). */
#include "bench/calls.h"

#include <errno.h>
#include <linux/perf_event.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

static int tracepoint(unsigned long long *ret_id)
{
	static const char *const paths[] = {
	    "/sys/kernel/tracing/events/raw_syscalls/sys_enter/id",
	    "/sys/kernel/debug/tracing/events/raw_syscalls/sys_enter/id"};

	for (unsigned i = 0; i < 2; i++) {
		FILE *f = fopen(paths[i], "r");
		int n;

		if (f == NULL)
			continue;
		n = fscanf(f, "%llu", ret_id);
		fclose(f);
		if (n == 1)
			return 0;
	}
	return -ENOENT;
}

int calls_open(struct calls *c, const struct usage *u)
{
	struct perf_event_attr attr = {
	    .type = PERF_TYPE_TRACEPOINT,
	    .size = sizeof attr,
	    .inherit = 1,
	    .disabled = 1,
	};
	unsigned long long id;
	int rc = tracepoint(&id);

	c->count = 0;
	if (rc != 0)
		return rc;
	attr.config = id;
	for (uint32_t i = 0; i < u->count; i++) {
		const struct process_usage *p = &u->processes[i];

		for (uint32_t k = 0; k < p->thread_count && c->count < CALLS_COUNTERS_MAX; k++) {
			const long fd = syscall(SYS_perf_event_open, &attr, p->threads[k].tid, -1,
						-1, PERF_FLAG_FD_CLOEXEC);

			if (fd < 0 && errno == ESRCH)
				continue;
			if (fd < 0) {
				rc = -errno;
				calls_close(c);
				return rc;
			}
			c->counters[c->count++] = (struct calls_counter){(int)fd, p->pid};
		}
	}
	return 0;
}

void calls_start(const struct calls *c)
{
	for (unsigned k = 0; k < c->count; k++)
		ioctl(c->counters[k].fd, PERF_EVENT_IOC_ENABLE, 0);
}

void calls_stop(const struct calls *c)
{
	for (unsigned k = 0; k < c->count; k++)
		ioctl(c->counters[k].fd, PERF_EVENT_IOC_DISABLE, 0);
}

void calls_read(const struct calls *c, struct usage *u)
{
	for (uint32_t i = 0; i < u->count; i++)
		u->processes[i].calls = 0;
	for (unsigned k = 0; k < c->count; k++) {
		uint64_t n = 0;

		if (read(c->counters[k].fd, &n, sizeof n) != sizeof n)
			continue;
		for (uint32_t i = 0; i < u->count; i++)
			if (u->processes[i].pid == c->counters[k].pid)
				u->processes[i].calls += n;
	}
}

void calls_close(struct calls *c)
{
	for (unsigned k = 0; k < c->count; k++)
		close(c->counters[k].fd);
	c->count = 0;
}
