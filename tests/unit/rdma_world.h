/* What the tests of the RDMA transport have in common: the transport over TCP on the loopback and a
 * device in memory (fake_verbs.h), with the two sides of tcp_world.h. Each test program includes
 * this once. */
#ifndef UNIT_RDMA_WORLD_H
#define UNIT_RDMA_WORLD_H

#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "net/rdma/rdma.h"
#include "tests/unit/fake_verbs.h"
#include "tests/unit/tcp_world.h"

static struct transport *carrier;
static struct rdma_config rdma_setup;

/* -- the world ------------------------------------------------------------------------------- */

static inline void world_begin(void)
{
	const struct reactor_config config = {.name = "test", .memory_bytes = 16 * MIB};
	struct error err;

	fake_device_reset();
	ck_assert_int_eq(reactor_create(&config, &reactor), 0);
	ck_assert_int_eq(transport_tcp_create(reactor, false, &carrier), 0);
	rdma_setup.reactor = reactor;
	rdma_setup.carrier = carrier;
	rdma_setup.verbs = &fake_verbs;
	ck_assert_int_eq(transport_rdma_create(&rdma_setup, &transport, &err), 0);
	ck_assert_uint_eq(fake_device.live, 0);
	ck_assert_int_eq(
	    transport_listen(transport, "127.0.0.1:0", accepted, &server, &listener, &err), 0);
	client = (struct side){.in_order = true};
	server = (struct side){.in_order = true};
	accepted_count = 0;
	outgoing_ok = 0;
	outgoing_failed = 0;
}

static inline bool is_device_used(void *arg)
{
	(void)arg;
	return fake_device.live > 0;
}

static inline void world_end(void)
{
	side_end(&client);
	side_end(&server);
	ck_assert_uint_eq(outgoing_alive, 0);
	if (listener != NULL)
		transport_unlisten(listener);
	listener = NULL;
	run_while(is_device_used, NULL); /* the last connection's end gives everything back */
	transport_destroy(transport);
	one_turn();
	transport_destroy(carrier);
	one_turn();
	one_turn();
	reactor_destroy(reactor);
	rdma_setup = (struct rdma_config){0};
}

static inline bool is_rdma(const struct transport_conn *conn)
{
	return strcmp(transport_name(conn), "rdma") == 0;
}

static inline void connect_sides(void)
{
	connect_client();
	ck_assert(is_rdma(client.conn) && is_rdma(server.conn));
}

static inline struct rdma_counters counters(void)
{
	struct rdma_counters c;

	transport_rdma_counters(transport, &c);
	return c;
}

/* Both sides may begin anew. */
static inline void forget_sides(void)
{
	side_end(&client);
	side_end(&server);
	client = (struct side){.in_order = true};
	server = (struct side){.in_order = true};
	accepted_count = 0;
}

static inline TCase *add_world(Suite *suite, const char *name, void (*begin)(void))
{
	TCase *tc = tcase_create(name);

	tcase_add_checked_fixture(tc, begin, world_end);
	tcase_set_timeout(tc, 60);
	suite_add_tcase(suite, tc);
	return tc;
}

/* Runs them all; the program's exit code. */
static inline int run_suite(Suite *suite)
{
	SRunner *runner = srunner_create(suite);
	int failed;

	srunner_run_all(runner, CK_NORMAL);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}

#endif
