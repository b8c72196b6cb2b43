/* Unit tests of engine/reactor: clock, timers and tasks. */
#include <check.h>
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include "engine/base/types.h"
#include "engine/reactor/io.h"
#include "engine/reactor/reactor.h"
#include "tests/unit/reactor_rig.h"

static bool finished;
static uint32_t ticks;

static void tick(struct reactor_timer *t)
{
	ck_assert_uint_ge(reactor_now_ns(reactor), t->deadline_ns);
	ck_assert_uint_eq(t->heap_slot, 0);
	if (++ticks == 5)
		finished = true;
	else
		reactor_timer_arm(reactor, t, reactor_now_ns(reactor) + 2 * NS_PER_MS);
}

static void must_not_fire(struct reactor_timer *t)
{
	(void)t;
	ck_abort_msg("a cancelled timer fired");
}

START_TEST(timers_fire_late_but_never_early)
{
	struct reactor_timer a = {.fire = tick}, b = {.fire = must_not_fire};
	uint64_t begin_ns;

	reactor_refresh(reactor);
	begin_ns = reactor_now_ns(reactor);
	reactor_timer_arm(reactor, &b, begin_ns + NS_PER_MS);
	reactor_timer_arm(reactor, &a, begin_ns + PATIENCE_NS);
	reactor_timer_arm(reactor, &a, begin_ns + 2 * NS_PER_MS); /* moved */
	reactor_timer_cancel(reactor, &b);
	run_until(&finished);
	ck_assert_uint_ge(reactor_now_ns(reactor), begin_ns + 10 * NS_PER_MS);
}
END_TEST

static void keep_busy(struct reactor_task *t)
{
	if (!finished)
		reactor_post(reactor, t);
}

/* The clock is looked at many times before the deadline, and not only when the kernel says so. */
START_TEST(timers_fire_on_time_in_a_busy_reactor)
{
	struct reactor_timer a = {.fire = tick};
	struct reactor_task busy = {.run = keep_busy};

	reactor_refresh(reactor);
	reactor_timer_arm(reactor, &a, reactor_now_ns(reactor) + 2 * NS_PER_MS);
	reactor_post(reactor, &busy);
	run_until(&finished);
	ck_assert_uint_eq(ticks, 5);
}
END_TEST

static uint64_t boottime_ns(void)
{
	struct timespec ts;

	ck_assert_int_eq(clock_gettime(CLOCK_BOOTTIME, &ts), 0);
	return (uint64_t)ts.tv_sec * NS_PER_S + (uint64_t)ts.tv_nsec;
}

#define CALLBACKS 10u /* two of each kind */

static void reads_once(struct reactor_task *t)
{
	const uint64_t begin_ns = boottime_ns();
	uint64_t seen_ns;

	(void)t;
	reactor_refresh_once(reactor);
	seen_ns = reactor_now_ns(reactor);
	ck_assert_uint_ge(seen_ns, begin_ns);
	while (boottime_ns() <= seen_ns)
		;
	reactor_refresh_once(reactor);
	ck_assert_uint_eq(reactor_now_ns(reactor), seen_ns);
	reactor_refresh(reactor);
	ck_assert_uint_gt(reactor_now_ns(reactor), seen_ns);
	while (boottime_ns() <= reactor_now_ns(reactor))
		;
	finished = ++ticks == CALLBACKS;
}

static void reads_once_by_timer(struct reactor_timer *t)
{
	(void)t;
	reads_once(NULL);
}

/* So that what a turn leaves behind is seen too. */
static void reads_once_last(struct reactor_timer *t)
{
	if (ticks == CALLBACKS - 1)
		reads_once(NULL);
	else
		reactor_timer_arm(reactor, t, reactor_now_ns(reactor) + NS_PER_MS);
}

static void reads_once_after_io(struct reactor_io *io, int32_t result)
{
	(void)io;
	ck_assert_int_gt(result, 0);
	reads_once(NULL);
}

static void nothing(struct reactor_work *w)
{
	(void)w;
}

static void reads_once_after_work(struct reactor_work *w)
{
	(void)w;
	reads_once(NULL);
}

/* Whatever kind of callback it is, and though several may run in one turn. */
START_TEST(the_clock_can_be_read_once_for_each_callback)
{
	struct reactor_task posted[2] = {{.run = reads_once}, {.run = reads_once}};
	struct reactor_task deferred[2] = {{.run = reads_once}, {.run = reads_once}};
	struct reactor_work works[2] = {{.work = nothing, .done = reads_once_after_work},
					{.work = nothing, .done = reads_once_after_work}};
	struct reactor_io ios[2] = {{.done = reads_once_after_io}, {.done = reads_once_after_io}};
	struct reactor_timer timer = {.fire = reads_once_by_timer},
			     last = {.fire = reads_once_last};
	int ready = eventfd(1, EFD_CLOEXEC);
	uint64_t outside_ns;

	for (size_t i = 0; i < 2; i++) {
		reactor_io_poll(reactor, &ios[i], ready, POLLIN);
		reactor_post(reactor, &posted[i]);
		reactor_defer(reactor, &deferred[i]);
		reactor_offload(reactor, &works[i]);
	}
	reactor_timer_arm(reactor, &timer, 0);
	reactor_timer_arm(reactor, &last, 0);
	run_until(&finished);
	ck_assert_uint_eq(ticks, CALLBACKS);
	outside_ns = boottime_ns();
	reactor_refresh_once(reactor);
	ck_assert_uint_ge(reactor_now_ns(reactor), outside_ns);
	close(ready);
}
END_TEST

START_TEST(run_until_times_out_and_not_before_time)
{
	uint64_t deadline_ns;

	reactor_refresh(reactor);
	deadline_ns = reactor_now_ns(reactor) + 3 * NS_PER_MS;
	ck_assert_int_eq(reactor_run_until(reactor, &finished, deadline_ns), -ETIMEDOUT);
	ck_assert_uint_ge(reactor_now_ns(reactor), deadline_ns);
	finished = true;
	ck_assert_int_eq(reactor_run_until(reactor, &finished, 0), 0);
}
END_TEST

static char trace[64];
static struct reactor_task task_a, task_b, task_c;
static struct reactor_timer trace_timer;

static void note(char c)
{
	size_t len = strlen(trace);

	ck_assert_uint_lt(len, sizeof trace - 1);
	trace[len] = c;
}

static void run_a(struct reactor_task *t)
{
	(void)t;
	note('a');
	reactor_defer(reactor, &task_b); /* meanwhile: still in this turn */
	reactor_defer(reactor, &task_b);
	note('A');
}

static void run_b(struct reactor_task *t)
{
	(void)t;
	note('b');
}

static void run_c(struct reactor_task *t)
{
	(void)t;
	note('c');
	finished = true;
}

static void fire_trace(struct reactor_timer *t)
{
	(void)t;
	note('t');
	reactor_defer(reactor, &task_c);
	note('T');
}

START_TEST(deferred_tasks_run_once_and_before_timers)
{
	struct reactor_stats stats;

	task_a.run = run_a;
	task_b.run = run_b;
	task_c.run = run_c;
	trace_timer.fire = fire_trace;
	reactor_timer_arm(reactor, &trace_timer, 0);
	reactor_defer(reactor, &task_a);
	reactor_defer(reactor, &task_a);
	ck_assert_str_eq(trace, "");
	run_until(&finished);
	ck_assert_str_eq(trace, "aAbtTc");
	reactor_get_stats(reactor, &stats);
	ck_assert_uint_eq(stats.turns, 1);
	ck_assert_uint_eq(stats.timers_fired, 1);
}
END_TEST

static uint32_t reposts;

static void post_again(struct reactor_task *t)
{
	if (++reposts == 1000)
		finished = true;
	else
		reactor_post(reactor, t);
}

START_TEST(posting_to_oneself_makes_no_system_call)
{
	struct reactor_stats stats;

	task_a.run = post_again;
	reactor_post(reactor, &task_a);
	run_until(&finished);
	ck_assert_uint_eq(reposts, 1000);
	reactor_get_stats(reactor, &stats);
	ck_assert_uint_eq(stats.turns, 1000);
	/* One to submit the wake-up event's read: after it there was nothing to ask the kernel. */
	ck_assert_uint_le(stats.enter_calls, 2);
}
END_TEST

int main(void)
{
	TCase *tc = tcase_create("time");
	Suite *s = suite_create("reactor_time");
	SRunner *sr = srunner_create(s);
	int failed;

	tcase_add_checked_fixture(tc, set_up, tear_down);
	tcase_set_timeout(tc, 60);
	tcase_add_test(tc, timers_fire_late_but_never_early);
	tcase_add_test(tc, timers_fire_on_time_in_a_busy_reactor);
	tcase_add_test(tc, the_clock_can_be_read_once_for_each_callback);
	tcase_add_test(tc, run_until_times_out_and_not_before_time);
	tcase_add_test(tc, deferred_tasks_run_once_and_before_timers);
	tcase_add_test(tc, posting_to_oneself_makes_no_system_call);
	suite_add_tcase(s, tc);
	srunner_run_all(sr, CK_NORMAL);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed == 0 ? 0 : 1;
}
