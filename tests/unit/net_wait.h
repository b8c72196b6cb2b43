/* Waiting for a reactor in unit tests: conditions are looked at between turns, with a time-out, and
 * never by sleeping. Each test program includes this once. */
#ifndef UNIT_NET_WAIT_H
#define UNIT_NET_WAIT_H

#include <check.h>

#include "engine/base/types.h"
#include "engine/reactor/reactor.h"

#define PATIENCE_MS 30000u

static struct reactor *reactor;
static bool ticked;

static inline void tick(struct reactor_timer *t)
{
	(void)t;
	ticked = true;
}

/* Runs the reactor until condition(arg), which is looked at each 0.2 ms; fails after PATIENCE_MS.
 */
static inline void run_while(bool (*condition)(void *arg), void *arg)
{
	struct reactor_timer timer = {.fire = tick};
	uint64_t end_ns;

	reactor_refresh(reactor);
	end_ns = reactor_now_ns(reactor) + PATIENCE_MS * NS_PER_MS;
	while (condition(arg)) {
		ticked = false;
		reactor_timer_arm(reactor, &timer, reactor_now_ns(reactor) + 200000);
		ck_assert_int_eq(reactor_run_until(reactor, &ticked, end_ns), 0);
	}
}

static inline bool is_false(void *flag)
{
	return !*(bool *)flag;
}

struct count {
	const uint64_t *now;
	uint64_t want;
};

static inline bool is_below(void *arg)
{
	const struct count *c = arg;

	return *c->now < c->want;
}

static inline void wait_flag(bool *flag)
{
	run_while(is_false, flag);
}

static inline void wait_count(const uint64_t *now, uint64_t want)
{
	struct count c = {now, want};

	run_while(is_below, &c);
}

/* One more turn of the reactor, at least. */
static inline void one_turn(void)
{
	struct reactor_timer timer = {.fire = tick};

	ticked = false;
	reactor_timer_arm(reactor, &timer, 0);
	ck_assert_int_eq(reactor_run_until(reactor, &ticked, UINT64_MAX), 0);
}

#endif
