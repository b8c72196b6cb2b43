/* A set of timers: a binary heap ordered by deadline and, among equal deadlines, by the order of
 * arming. It knows no clock: the production reactor and the simulator's both sit on it.
 *
 * Thread: one. Memory is reserved at init, so that arming never fails or allocates. */
#ifndef REACTOR_TIMERS_H
#define REACTOR_TIMERS_H

#include <stdint.h>

#include "engine/reactor/reactor.h"

/* The most timers that may be armed at once on a reactor; arming one more is a mistake (PRE). */
#define TIMERS_MAX   (1u << 18)
#define TIMERS_NEVER UINT64_MAX

struct timers_entry {
	uint64_t deadline_ns;
	uint64_t order;
	struct reactor_timer *timer;
};

struct timers {
	struct timers_entry *heap; /* from 1, so that slot 0 means "not armed" */
	uint32_t count;
	uint64_t next_order;
};

/* 0 or -ENOMEM. */
int timers_init(struct timers *ts);

/* Timers that are still armed are forgotten, not touched. */
void timers_deinit(struct timers *ts);

/* As reactor_timer_arm and reactor_timer_cancel. A deadline in the past counts as now_ns, so that a
 * timer that always arms itself again in the past cannot starve the others. */
void timers_arm(struct timers *ts, struct reactor_timer *t, uint64_t deadline_ns, uint64_t now_ns);
void timers_cancel(struct timers *ts, struct reactor_timer *t);

/* The earliest deadline, or TIMERS_NEVER. */
uint64_t timers_next(const struct timers *ts);

/* Fires what is due at now_ns in order, except what the callbacks arm meanwhile: that waits for the
 * next call. Returns how many fired. */
uint32_t timers_fire(struct timers *ts, uint64_t now_ns);

#endif
