/* A reactor for each test of engine/reactor. Each test program includes this once. */
#ifndef UNIT_REACTOR_RIG_H
#define UNIT_REACTOR_RIG_H

#include <check.h>

#include "engine/base/types.h"
#include "engine/reactor/reactor.h"

#define PATIENCE_NS (60 * NS_PER_S)

static struct reactor *reactor;

static inline void set_up(void)
{
	struct reactor_config config = {.name = "test"};

	ck_assert_int_eq(reactor_create(&config, &reactor), 0);
}

static inline void tear_down(void)
{
	reactor_destroy(reactor);
	reactor = NULL;
}

static inline void run_until(const bool *flag)
{
	reactor_refresh(reactor);
	ck_assert_int_eq(reactor_run_until(reactor, flag, reactor_now_ns(reactor) + PATIENCE_NS),
			 0);
}

#endif
