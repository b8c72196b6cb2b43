/* For tests of servers that run out of descriptors. */
#ifndef UNIT_DESCRIPTORS_H
#define UNIT_DESCRIPTORS_H

#include <check.h>
#include <pthread.h>
#include <stdint.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "engine/base/types.h"

/* One more can be opened in this process. Returns the limit of before, to be set again. */
static inline struct rlimit leave_one_descriptor(void)
{
	const int probe = dup(STDERR_FILENO);
	struct rlimit before, one;

	close(probe);
	ck_assert_int_eq(getrlimit(RLIMIT_NOFILE, &before), 0);
	one = before;
	one.rlim_cur = (rlim_t)probe + 1;
	ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &one), 0);
	return before;
}

static inline uint64_t cpu_ns_of(pthread_t thread)
{
	struct timespec ts;
	clockid_t clock;

	ck_assert_int_eq(pthread_getcpuclockid(thread, &clock), 0);
	ck_assert_int_eq(clock_gettime(clock, &ts), 0);
	return (uint64_t)ts.tv_sec * NS_PER_S + (uint64_t)ts.tv_nsec;
}

/* It does something now and then; all the time would take a core. */
static inline void must_rest(pthread_t thread)
{
	const uint64_t used = cpu_ns_of(thread);

	usleep(500000);
	ck_assert_uint_lt(cpu_ns_of(thread) - used, 100 * NS_PER_MS);
}

#endif
