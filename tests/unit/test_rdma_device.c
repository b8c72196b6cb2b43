/* The RDMA transport on a device that refuses and fails in every way that a device can, and what
 * becomes of the connections: each ends as any other does, the next one works, over TCP if need be.
 */
#include <check.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/log.h"
#include "tests/unit/rdma_world.h"

static struct transport *spare;

/* What one connection to ourselves and one payload that lies outside of the pools take: two arenas
 * for sending, two for receiving, two pieces of the payload, and its destination. */
#define REGISTRATIONS 7

/* -- what a device may do --------------------------------------------------------------------- */

/* Every status that a completion can have, of each kind of operation: the connection ends on both
 * sides as any other does, with everything answered, and the next one works. */
START_TEST(test_every_status)
{
	const enum fake_op op = (enum fake_op)(_i % FAKE_OPS);
	const enum ibv_wc_status status = (enum ibv_wc_status)(1 + _i / FAKE_OPS);

	connect_sides();
	send_control(&client, 1, 10);
	wait_count(&server.rx_count, 1);
	fake_device.next_status[op] = status;
	for (unsigned i = 0; i < 10; i++)
		send_control(&client, i + 2, 50000);
	wait_flag(&client.is_closed);
	wait_flag(&server.is_closed);
	ck_assert_int_eq(client.reason, -E_DISCONNECTED);
	ck_assert_int_eq(server.reason, -E_DISCONNECTED);
	ck_assert_uint_eq(outgoing_alive, 0);
	ck_assert_uint_ge(outgoing_failed, 9);
	ck_assert_uint_ge(counters().lost, 1);
	forget_sides();
	connect_sides();
	send_control(&client, 1, 50000);
	wait_count(&server.rx_count, 1);
}
END_TEST

/* During the set-up too. */
START_TEST(test_every_status_in_setup)
{
	const enum fake_op op = _i % 2 == 0 ? FAKE_SEND : FAKE_RECEIVE;

	fake_device.next_status[op] = (enum ibv_wc_status)(1 + _i / 2);
	ck_assert_int_eq(
	    transport_connect(transport, listener->address, &handler, &client, &client.conn), 0);
	wait_flag(&client.is_closed);
	ck_assert_int_eq(client.reason, -E_DISCONNECTED);
	ck_assert_uint_eq(counters().fallbacks, 1);
	forget_sides();
	ck_assert_int_eq(
	    transport_connect(transport, listener->address, &handler, &client, &client.conn), 0);
	send_control(&client, 1, 10);
	wait_count(&server.rx_count, 1);
	ck_assert(!is_rdma(client.conn));
}
END_TEST

/* Work is under way. */
static void begin_what_ends(void)
{
	connect_sides();
	fake_device.hold = true;
	send_control(&client, 1, 50000);
	one_turn();
}

static void expect_end_and_another_beginning(void)
{
	wait_flag(&client.is_closed);
	wait_flag(&server.is_closed);
	ck_assert_uint_eq(outgoing_failed, 1);
	ck_assert_int_eq(client.reason, -E_DISCONNECTED);
	run_while(is_device_used, NULL);
	fake_device.hold = false;
	forget_sides();
	connect_sides(); /* it is opened anew */
	send_control(&client, 1, 50000);
	wait_count(&server.rx_count, 1);
}

static void expect_events_end(enum ibv_event_type type)
{
	begin_what_ends();
	fake_device_event(type);
	expect_end_and_another_beginning();
}

/* Nobody says a word: its descriptors hang up. */
START_TEST(test_device_is_removed)
{
	begin_what_ends();
	fake_device_hang_up(_i == 0);
	expect_end_and_another_beginning();
}
END_TEST

/* Who comes while the old connections still hold a failed device is told so, and does not get it.
 */
START_TEST(test_nobody_gets_a_failed_device)
{
	struct side late = {.in_order = true};

	begin_what_ends();
	fake_device.never_flush = true; /* for RDMA_FLUSH_MS */
	fake_device_event(IBV_EVENT_DEVICE_FATAL);
	while (counters().lost < 2)
		one_turn();
	ck_assert_int_eq(
	    transport_connect(transport, listener->address, &handler, &late, &late.conn), 0);
	wait_flag(&late.is_closed);
	ck_assert_int_eq(late.reason, -ENODEV);
	ck_assert(!client.is_closed);
	fake_device.never_flush = false;
	expect_end_and_another_beginning();
}
END_TEST

START_TEST(test_device_fails)
{
	expect_events_end(IBV_EVENT_DEVICE_FATAL);
}
END_TEST

START_TEST(test_completion_queue_overruns)
{
	expect_events_end(IBV_EVENT_CQ_ERR);
}
END_TEST

START_TEST(test_receive_queue_breaks)
{
	expect_events_end(IBV_EVENT_SRQ_ERR);
}
END_TEST

START_TEST(test_queue_pair_breaks)
{
	expect_events_end(IBV_EVENT_QP_FATAL);
}
END_TEST

START_TEST(test_harmless_events)
{
	static const enum ibv_event_type types[] = {
	    IBV_EVENT_COMM_EST,	  IBV_EVENT_PORT_ACTIVE, IBV_EVENT_PORT_ERR,
	    IBV_EVENT_GID_CHANGE, IBV_EVENT_LID_CHANGE,	 IBV_EVENT_QP_LAST_WQE_REACHED};

	connect_sides();
	for (size_t i = 0; i < ARRAY_SIZE(types); i++) {
		fake_device_event(types[i]);
		one_turn();
		send_control(&client, i + 1, 10);
		wait_count(&server.rx_count, i + 1);
	}
}
END_TEST

static void end_whatever_happened(struct side *side)
{
	if (side->conn != NULL)
		transport_close(side->conn);
	if (side->conn != NULL)
		wait_flag(&side->is_closed);
}

/* The N-th call that can fail does: the connection works, or ends; everything is given back, and
 * the next one works, over TCP if need be. For each N until there is no such call. */
START_TEST(test_every_call_fails_once)
{
	unsigned n = 0, worked = 0;

	do {
		world_end();
		world_begin();
		fake_device.calls = 0;
		fake_device.fail_at = ++n;
		server.echo = true;
		ck_assert_int_eq(transport_connect(transport, listener->address, &handler, &client,
						   &client.conn),
				 0);
		send_control(&client, 1, 10);
		send_control(&client, 2, 50000);
		while (client.rx_count < 2 && !client.is_closed)
			one_turn();
		worked += client.rx_count == 2;
		end_whatever_happened(&client);
		end_whatever_happened(&server);
		forget_sides();
		run_while(is_device_used, NULL);
		fake_device.fail_at = fake_device.calls < n ? 0 : UINT_MAX;
		ck_assert_int_eq(transport_connect(transport, listener->address, &handler, &client,
						   &client.conn),
				 0);
		send_control(&client, 1, 10);
		wait_count(&server.rx_count, 1);
	} while (fake_device.fail_at != 0);
	ck_assert_uint_gt(n, 100);
	ck_assert_uint_ge(worked, 1);
	ck_assert_uint_lt(worked, n / 2);
}
END_TEST

START_TEST(test_every_call_of_opening_fails_once)
{
	struct rdma_config config = {.reactor = reactor, .carrier = carrier, .verbs = &fake_verbs};
	struct transport *t = NULL;
	struct error err;
	unsigned n = 0;
	int rc;

	do {
		fake_device.calls = 0;
		fake_device.fail_at = ++n;
		rc = transport_rdma_create(&config, &t, &err);
		ck_assert(rc == 0 || rc == -ENOMEM || rc == -ENODEV);
		ck_assert_uint_eq(fake_device.live, 0);
	} while (rc != 0);
	ck_assert_uint_gt(n, 5);
	transport_destroy(t);
}
END_TEST

START_TEST(test_no_more_queue_pairs)
{
	fake_device.attr.max_qp = 1; /* the peer's is one too many */
	ck_assert_int_eq(
	    transport_connect(transport, listener->address, &handler, &client, &client.conn), 0);
	wait_flag(&client.is_closed);
	ck_assert_int_eq(client.reason, -E_LIMIT);
	forget_sides();
	ck_assert_int_eq(
	    transport_connect(transport, listener->address, &handler, &client, &client.conn), 0);
	send_control(&client, 1, 10);
	wait_count(&server.rx_count, 1);
	ck_assert(!is_rdma(client.conn));
}
END_TEST

/* Too few completions, receive buffers, or work requests for a single connection. */
START_TEST(test_small_device)
{
	struct rdma_config config = {.reactor = reactor, .carrier = carrier, .verbs = &fake_verbs};
	struct transport *t = NULL;
	struct error err;
	int *limits[] = {&fake_device.attr.max_cqe, &fake_device.attr.max_srq_wr,
			 &fake_device.attr.max_qp, &fake_device.attr.max_qp_wr,
			 &fake_device.attr.max_qp_rd_atom};

	for (size_t i = 0; i < ARRAY_SIZE(limits); i++) {
		const int before = *limits[i];

		*limits[i] = _i;
		ck_assert_int_eq(transport_rdma_create(&config, &t, &err), -E_LIMIT);
		*limits[i] = before;
	}
	ck_assert_uint_eq(fake_device.live, 0);
}
END_TEST

#define SMALL_CONNS 4u

/* Connects this many pairs, one beside the other, and talks over each. Returns how many of them are
 * over RDMA; the others fell back, for want of the device's resources. */
static unsigned connect_many(struct side *clients, struct side *servers)
{
	unsigned over_rdma = 0;

	for (unsigned i = 0; i < SMALL_CONNS; i++) {
		do {
			if (client.is_closed) {
				ck_assert_int_eq(client.reason, -E_LIMIT);
				forget_sides();
			}
			ck_assert_int_eq(transport_connect(transport, listener->address, &handler,
							   &client, &client.conn),
					 0);
			send_control(&client, 1, 50000);
			while (server.rx_count == 0 && !client.is_closed)
				one_turn();
		} while (client.is_closed);
		over_rdma += is_rdma(client.conn);
		clients[i] = client;
		servers[i] = server;
		clients[i].conn->arg = &clients[i];
		servers[i].conn->arg = &servers[i];
		client = (struct side){.in_order = true};
		server = (struct side){.in_order = true};
	}
	return over_rdma;
}

/* A device with room for some connections: those work, all at once, and the others fall back. Its
 * queues never overrun. */
static void check_room(int *limit, int most)
{
	struct side clients[SMALL_CONNS], servers[SMALL_CONNS];
	unsigned last = 0, over_rdma = 0, seen = 0;

	for (int n = 256; n <= most && over_rdma < SMALL_CONNS; n *= 2) {
		*limit = n; /* of a device as new */
		if (transport_rdma_create(&rdma_setup, &spare, &(struct error){0}) == -E_LIMIT)
			continue; /* not one: told at the start */
		transport_destroy(spare);
		over_rdma = connect_many(clients, servers);
		ck_assert_uint_ge(over_rdma, last);
		seen += over_rdma > 0 && over_rdma < SMALL_CONNS;
		last = over_rdma;
		for (unsigned i = 0; i < SMALL_CONNS; i++)
			for (uint64_t id = 2; id < 80; id++)
				send_control(&clients[i], id, id % 16 == 0 ? 50000 : 100);
		for (unsigned i = 0; i < SMALL_CONNS; i++)
			wait_count(&servers[i].rx_count, 79);
		ck_assert_uint_eq(counters().lost, 0);
		for (unsigned i = 0; i < SMALL_CONNS; i++) {
			side_end(&clients[i]);
			side_end(&servers[i]);
		}
		run_while(is_device_used, NULL);
		world_end();
		world_begin();
	}
	ck_assert_uint_eq(over_rdma, SMALL_CONNS);
	ck_assert_uint_ge(seen, 1);
}

START_TEST(test_room_for_completions)
{
	check_room(&fake_device.attr.max_cqe, 65536);
}
END_TEST

START_TEST(test_room_for_receive_buffers)
{
	check_room(&fake_device.attr.max_srq_wr, 65536);
}
END_TEST

/* A completion queue that is full before it should be: it overruns, and all connections end. */
START_TEST(test_completion_queue_is_full)
{
	fake_device.cq_max = 16;
	connect_sides();
	for (unsigned i = 0; i < 40; i++)
		send_control(&client, i + 1, 100);
	wait_flag(&client.is_closed);
	wait_flag(&server.is_closed);
	ck_assert_int_eq(client.reason, -E_DISCONNECTED);
	ck_assert_uint_eq(outgoing_alive, 0);
	run_while(is_device_used, NULL);
	fake_device.cq_max = 0;
	forget_sides();
	connect_sides(); /* it is opened anew */
	send_control(&client, 1, 50000);
	wait_count(&server.rx_count, 1);
}
END_TEST

/* A device that registers so many regions and no more: what does not fit ends as -ENOMEM, on the
 * side that met the limit, and everything is given back. */
START_TEST(test_limit_of_registrations)
{
	unsigned worked = 0;

	fake_device.attr.max_mr = _i;
	ck_assert_int_eq(
	    transport_connect(transport, listener->address, &handler, &client, &client.conn), 0);
	send_control(&client, 1, 10);
	send_control(&client, 2, 50000);
	while (server.rx_count < 2 && !client.is_closed)
		one_turn();
	worked = server.rx_count == 2;
	ck_assert(worked == (_i >= REGISTRATIONS));
	if (!worked)
		ck_assert(client.reason == -ENOMEM || client.reason == -E_DISCONNECTED);
	end_whatever_happened(&client);
	end_whatever_happened(&server);
	forget_sides();
	run_while(is_device_used, NULL);
	ck_assert_uint_eq(fake_device.mr_count, 0);
}
END_TEST

/* The device registers no more: the pools are then registered payload by payload, if at all. */
START_TEST(test_no_more_registrations)
{
	fake_device.attr.max_mr = 4; /* what two connections' queues take */
	connect_sides();
	send_control(&client, 1, 100);
	wait_count(&server.rx_count, 1);
	fake_device.attr.max_mr = (int)fake_device.mr_count;
	send_control(&client, 2, 50000);
	wait_flag(&client.is_closed);
	ck_assert_int_eq(client.reason, -ENOMEM);
	wait_flag(&server.is_closed);
	ck_assert_uint_eq(outgoing_failed, 1);
}
END_TEST

START_TEST(test_no_device)
{
	struct rdma_config config = {.reactor = reactor, .carrier = carrier, .verbs = &fake_verbs};
	struct transport *t = NULL;
	struct error err;

	config.device = "mlx5_7";
	ck_assert_int_eq(transport_rdma_create(&config, &t, &err), -ENODEV);
	ck_assert_ptr_nonnull(strstr(err.text, "mlx5_7"));
	config.device = NULL;
	fake_device.port_state = IBV_PORT_DOWN;
	ck_assert_int_eq(transport_rdma_create(&config, &t, &err), -ENODEV);
	ck_assert_ptr_nonnull(strstr(err.text, "active port"));
	fake_device.absent = true;
	ck_assert_int_eq(transport_rdma_create(&config, &t, &err), -ENODEV);
	ck_assert_ptr_nonnull(strstr(err.text, "no RDMA device"));
	ck_assert_uint_eq(fake_device.live, 0);
}
END_TEST

/* -- falling back ----------------------------------------------------------------------------- */

/* The set-up is agreed on, but nothing that is sent arrives. */
START_TEST(test_way_that_does_not_carry)
{
	fake_device.deaf = true;
	ck_assert_int_eq(
	    transport_connect(transport, listener->address, &handler, &client, &client.conn), 0);
	wait_flag(&client.is_closed);
	/* Whose time runs out first. */
	ck_assert(client.reason == -ETIMEDOUT || client.reason == -E_DISCONNECTED);
	ck_assert_uint_eq(accepted_count, 0);
	forget_sides();
	ck_assert_int_eq(
	    transport_connect(transport, listener->address, &handler, &client, &client.conn), 0);
	send_control(&client, 1, 10);
	wait_count(&server.rx_count, 1);
	ck_assert(!is_rdma(client.conn));
}
END_TEST

static unsigned told;

static void count_fallbacks_told(enum log_level level, const char *line)
{
	told += level <= LOG_WARN && strstr(line, "TCP is used for now") != NULL;
}

/* Every address falls back by itself; who reads the log is told once. */
START_TEST(test_one_warning)
{
	struct transport_listener *other;
	struct error err;

	ck_assert_int_eq(
	    transport_listen(transport, "127.0.0.1:0", accepted, &server, &other, &err), 0);
	fake_device.attr.max_qp = 1;
	log_set_sink(count_fallbacks_told);
	for (int i = 0; i < 2; i++) {
		const char *address = i == 0 ? listener->address : other->address;

		ck_assert_int_eq(
		    transport_connect(transport, address, &handler, &client, &client.conn), 0);
		wait_flag(&client.is_closed);
		forget_sides();
	}
	log_set_sink(NULL);
	ck_assert_uint_eq(counters().fallbacks, 2);
	ck_assert_uint_eq(told, 1);
	transport_unlisten(other);
}
END_TEST

static void begin_required(void)
{
	rdma_setup.required = true;
	rdma_setup.plain_addresses = "127.0.0.1:2,127.0.0.1:1";
	world_begin();
}

START_TEST(test_required)
{
	char plain[ADDR_SIZE_MAX];

	snprintf(plain, sizeof plain, "%.*s", (int)strcspn(listener->address, "+"),
		 listener->address);
	ck_assert_int_eq(transport_connect(transport, plain, &handler, &client, &client.conn),
			 -ENODEV);
	/* The driver's is reached as ever. */
	ck_assert_int_eq(
	    transport_connect(transport, "127.0.0.1:1", &handler, &client, &client.conn), 0);
	wait_flag(&client.is_closed);
	ck_assert_int_eq(client.reason, -ECONNREFUSED);
	forget_sides();
	fake_device.attr.max_qp = 1;
	for (int i = 0; i < 2; i++) {
		ck_assert_int_eq(transport_connect(transport, listener->address, &handler, &client,
						   &client.conn),
				 0);
		wait_flag(&client.is_closed);
		ck_assert_int_eq(client.reason, -E_LIMIT);
		forget_sides();
	}
	run_while(is_device_used, NULL);
	fake_device.attr.max_qp = 10;
	connect_sides();
}
END_TEST

/* -- all of it -------------------------------------------------------------------------------- */

static void add_device(TCase *tc)
{
	const int statuses = IBV_WC_TM_RNDV_INCOMPLETE;

	tcase_add_loop_test(tc, test_every_status, 0, statuses * FAKE_OPS);
	tcase_add_loop_test(tc, test_every_status_in_setup, 0, statuses * 2);
	tcase_add_loop_test(tc, test_device_is_removed, 0, 2);
	tcase_add_test(tc, test_device_fails);
	tcase_add_test(tc, test_completion_queue_overruns);
	tcase_add_test(tc, test_receive_queue_breaks);
	tcase_add_test(tc, test_queue_pair_breaks);
	tcase_add_test(tc, test_harmless_events);
	tcase_add_test(tc, test_every_call_fails_once);
	tcase_add_test(tc, test_every_call_of_opening_fails_once);
	tcase_add_test(tc, test_no_more_queue_pairs);
	tcase_add_loop_test(tc, test_small_device, 0, 1);
	tcase_add_test(tc, test_no_more_registrations);
	tcase_add_loop_test(tc, test_limit_of_registrations, 0, REGISTRATIONS + 2);
	tcase_add_test(tc, test_room_for_completions);
	tcase_add_test(tc, test_room_for_receive_buffers);
	tcase_add_test(tc, test_completion_queue_is_full);
	tcase_add_test(tc, test_no_device);
	tcase_add_test(tc, test_way_that_does_not_carry);
	tcase_add_test(tc, test_one_warning);
}

int main(void)
{
	Suite *suite = suite_create("rdma_device");

	add_device(add_world(suite, "device", world_begin));
	tcase_add_test(add_world(suite, "required", begin_required), test_required);
	tcase_add_test(add_world(suite, "failed", begin_required),
		       test_nobody_gets_a_failed_device);
	return run_suite(suite);
}
