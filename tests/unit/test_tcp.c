/* The TCP transport, on the real reactor and real sockets: how frames travel, and what bad input
 * does. Ends and beginnings are in test_tcp_life.c. */
#include <check.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "net/tcp/conn.h"
#include "tests/unit/tcp_world.h"

/* -- frames ---------------------------------------------------------------------------------- */

START_TEST(test_echo)
{
	static const uint32_t sizes[] = {
	    0,	   1,	  3,	 4095,	 4096,		 4097,
	    16383, 16384, 16385, 100001, (1u << 20) + 7, FRAME_CONTROL_MAX,
	    5,	   16384, 1};

	server.echo = true;
	connect_client();
	for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
		uint8_t *want = malloc(sizes[i] + 1);

		send_control(&client, i + 1, sizes[i]);
		wait_count(&client.rx_count, i + 1);
		fill(want, sizes[i], i + 1);
		ck_assert_uint_eq(client.last.op, FRAME_CONTROL);
		ck_assert_uint_eq(client.last.flags, FRAME_F_REPLY);
		ck_assert_uint_eq(client.last.payload_size, sizes[i]);
		ck_assert_mem_eq(client.last_payload, want, sizes[i]);
		free(want);
	}
	ck_assert(client.in_order && server.in_order && !client.rx_bad && !server.rx_bad);
	ck_assert_uint_eq(client.conn->stats.tx_frames, ARRAY_SIZE(sizes));
	ck_assert_uint_eq(client.conn->stats.tx_bytes, server.conn->stats.rx_bytes);
	ck_assert_uint_eq(client.conn->stats.rx_bytes, server.conn->stats.tx_bytes);
	ck_assert_uint_eq(client.conn->queued_bytes, 0);
	ck_assert_str_eq(client.conn->peer.address, listener->address);
	ck_assert(!client.conn->peer.verified);
}
END_TEST

/* All sizes at once, both ways, so that every frame begins at an odd place in some buffer. */
static void expect_reno(const struct transport_conn *conn)
{
	const struct conn *c = container_of(conn, struct conn, head);
	char name[16] = "";
	socklen_t size = sizeof(name);

	ck_assert_int_eq(getsockopt(c->fd, IPPROTO_TCP, TCP_CONGESTION, name, &size), 0);
	ck_assert_str_eq(name, "reno");
}

/* Whatever the machine's default: nothing is paced on the loopback, in either direction. */
START_TEST(test_no_pacing_on_the_loopback)
{
	connect_client();
	send_control(&client, 1, 1);
	wait_count(&server.rx_count, 1);
	expect_reno(client.conn);
	expect_reno(server.conn);
}
END_TEST
START_TEST(test_mixed_sizes_in_one_stream)
{
	static const uint32_t sizes[] = {1, 20000, 0, 16384, 16385, 7, 300001, 4096, 65537, 2};
	const unsigned count = 40 * ARRAY_SIZE(sizes);

	server.echo = true;
	connect_client();
	for (unsigned i = 0; i < count; i++)
		send_control(&client, i + 1, sizes[i % ARRAY_SIZE(sizes)] + i / 10);
	wait_count(&client.rx_count, count);
	ck_assert(client.in_order && server.in_order && !client.rx_bad && !server.rx_bad);
	ck_assert_uint_eq(server.rx_count, count);
	run_while(has_outgoing, NULL);
	ck_assert_uint_eq(outgoing_ok, 2 * count);
}
END_TEST

START_TEST(test_one_turn_leaves_in_one_send)
{
	uint8_t block[BLOCK_SIZE];

	connect_client();
	sends_seen = 0;
	fill(block, sizeof(block), 1);
	for (uint64_t id = 1; id <= 100; id++) {
		struct frame f = write_frame;

		f.request_id = id;
		send_payload(&client, f, block);
	}
	ck_assert_uint_eq(client.conn->queued_bytes, 100u * (64 + 4 + 4096));
	wait_count(&server.rx_count, 100);
	ck_assert(server.in_order && !server.rx_bad);
	ck_assert_uint_eq(client.conn->stats.tx_calls, 1);
	ck_assert_uint_eq(sends_seen, 1);
	/* One sendmsg may arrive in a few pieces, never one for each frame. */
	ck_assert_uint_le(server.conn->stats.rx_calls, 12);
}
END_TEST

static void send_late(struct reactor_task *task)
{
	(void)task;
	send_control(&client, 2, 10);
}

/* What a deferred task sends leaves with what was sent before it was run. */
START_TEST(test_deferred_sends_leave_together)
{
	struct reactor_task task = {.run = send_late};

	connect_client();
	send_control(&client, 1, 10);
	reactor_defer(reactor, &task);
	wait_count(&server.rx_count, 2);
	ck_assert(server.in_order);
	ck_assert_uint_eq(client.conn->stats.tx_calls, 1);
}
END_TEST

/* More frames than an iovec array and more bytes than a batch: several sends, one at a time. */
START_TEST(test_long_queue)
{
	const unsigned count = 3000;

	connect_client();
	for (unsigned i = 0; i < count; i++)
		send_control(&client, i + 1, i % 50 == 0 ? 200000 : 100);
	wait_count(&server.rx_count, count);
	ck_assert(server.in_order && !server.rx_bad);
	ck_assert_uint_lt(client.conn->stats.tx_calls, 40);
	ck_assert_uint_gt(client.conn->stats.tx_calls, 5);
}
END_TEST

START_TEST(test_sends_before_ready_wait)
{
	inside_call = true;
	ck_assert_int_eq(
	    transport_connect(transport, listener->address, &handler, &client, &client.conn), 0);
	inside_call = false;
	send_control(&client, 1, 100);
	send_control(&client, 2, 100000);
	wait_count(&server.rx_count, 2);
	ck_assert(client.is_ready && server.in_order && !server.rx_bad);
}
END_TEST

START_TEST(test_short_sends_go_on)
{
	static const size_t steps[] = {1, 63, 64, 65, 1000, 70001};

	connect_client();
	for (size_t i = 0; i < ARRAY_SIZE(steps); i++) {
		send_at_most = steps[i];
		send_control(&client, 2 * i + 1, (uint32_t)(steps[i] * 5));
		send_control(&client, 2 * i + 2, 77);
		wait_count(&server.rx_count, 2 * (i + 1));
	}
	send_at_most = 0;
	ck_assert(server.in_order && !server.rx_bad);
	ck_assert_uint_eq(outgoing_ok, 2 * ARRAY_SIZE(steps));
	ck_assert_uint_eq(outgoing_failed, 0);
}
END_TEST

START_TEST(test_byte_by_byte)
{
	uint8_t *bytes = malloc(100000);
	struct frame large = {.op = FRAME_CONTROL, .request_id = 3, .payload_size = 17000};
	size_t size = 0;
	int fd = connect_raw();

	size +=
	    image((struct frame){.op = FRAME_CONTROL, .request_id = 1, .payload_size = 333}, bytes);
	size += image((struct frame){.op = FRAME_READ, .request_id = 2, .block_count = 1},
		      bytes + size);
	size += image(large, bytes + size);
	for (size_t i = 0; i < size; i++) {
		write_all(fd, bytes + i, 1);
		if (i < 700 || i > size - 300) /* one arrival each; the middle may come together */
			wait_count(&server.conn->stats.rx_bytes, i + 1);
	}
	wait_count(&server.rx_count, 3);
	ck_assert(server.in_order && !server.rx_bad);
	ck_assert_uint_ge(server.conn->stats.rx_calls, 1000);
	ck_assert_uint_eq(server.last.payload_size, 17000);
	close(fd);
	wait_flag(&server.is_closed);
	ck_assert_int_eq(server.reason, -E_DISCONNECTED);
	free(bytes);
}
END_TEST

/* Large frames: nearly all of the payload goes straight to the owner's memory. */
START_TEST(test_large_frames_are_not_copied)
{
	const unsigned count = 64;

	connect_client();
	for (unsigned i = 0; i < count; i++)
		send_control(&client, i + 1, IO_SIZE_MAX);
	wait_count(&server.rx_count, count);
	ck_assert(server.in_order && !server.rx_bad);
	ck_assert_uint_le(server.conn->stats.rx_copied_bytes,
			  TRANSPORT_COPY_MAX * 16 + count * (TRANSPORT_COPY_MAX + 4096));
}
END_TEST

static bool flood_goes_on(void *arg)
{
	const uint64_t *want = arg;

	return client.rx_count < *want || server.rx_count < *want;
}

/* Both sides send much more than any socket holds before either receives anything. */
START_TEST(test_two_way_flood)
{
	uint64_t count = 400;

	connect_client();
	for (uint64_t i = 1; i <= count; i++) {
		send_control(&client, i, i % 3 == 0 ? 100 : 131072);
		send_control(&server, i, i % 5 == 0 ? 500 : 200000);
	}
	run_while(flood_goes_on, &count);
	ck_assert(client.in_order && server.in_order && !client.rx_bad && !server.rx_bad);
}
END_TEST

/* -- bad input ------------------------------------------------------------------------------- */

/* Sends a good frame and then these bytes: the good one is delivered, and the connection ends. */
static void expect_end(const void *bytes, size_t size, int reason)
{
	uint8_t good[200];
	size_t good_size =
	    image((struct frame){.op = FRAME_CONTROL, .request_id = 1, .payload_size = 9}, good);
	int fd = connect_raw();
	char byte;

	write_all(fd, good, good_size);
	if (size > 0)
		write_all(fd, bytes, size);
	if (reason == -E_DISCONNECTED)
		shutdown(fd, SHUT_WR);
	wait_flag(&server.is_closed);
	ck_assert_int_eq(server.reason, reason);
	ck_assert_uint_eq(server.rx_count, 1);
	ck_assert_uint_eq(server.stats.rx_frames, 1);
	/* The peer sees the end, by a FIN or a reset. */
	ck_assert_int_le(recv(fd, &byte, 1, 0), 0);
	close(fd);
}

START_TEST(test_garbage)
{
	uint8_t bytes[500];

	memset(bytes, 'x', sizeof(bytes));
	expect_end(bytes, sizeof(bytes), -E_BAD_FRAME);
}
END_TEST

START_TEST(test_bad_header_crc)
{
	uint8_t bytes[5000];
	size_t size = image(write_frame, bytes);

	bytes[9] ^= 1;
	expect_end(bytes, size, -E_BAD_CRC);
}
END_TEST

START_TEST(test_wrong_version)
{
	uint8_t bytes[5000];
	size_t size = image(write_frame, bytes);

	bytes[4] = FRAME_VERSION + 1;
	reseal(bytes);
	expect_end(bytes, size, -E_WIRE_VERSION);
}
END_TEST

START_TEST(test_unknown_op)
{
	uint8_t bytes[5000];
	size_t size = image(write_frame, bytes);

	bytes[5] = 77;
	reseal(bytes);
	expect_end(bytes, size, -E_BAD_FRAME);
}
END_TEST

START_TEST(test_oversized)
{
	uint8_t bytes[200];
	size_t size = image((struct frame){.op = FRAME_CONTROL, .request_id = 2}, bytes);
	const uint32_t too_much = FRAME_CONTROL_MAX + 1;

	memcpy(bytes + 28, &too_much, 4);
	memset(bytes + 52, 4, 1);
	reseal(bytes);
	expect_end(bytes, size, -E_BAD_FRAME);
}
END_TEST

START_TEST(test_end_of_stream)
{
	expect_end("", 0, -E_DISCONNECTED);
}
END_TEST

START_TEST(test_truncated_header)
{
	uint8_t bytes[5000];

	image(write_frame, bytes);
	expect_end(bytes, 63, -E_DISCONNECTED);
}
END_TEST

START_TEST(test_truncated_crcs)
{
	uint8_t bytes[5000];

	image(write_frame, bytes);
	expect_end(bytes, 66, -E_DISCONNECTED);
}
END_TEST

START_TEST(test_truncated_payload)
{
	uint8_t bytes[5000];
	size_t size = image(write_frame, bytes);

	expect_end(bytes, size - 1, -E_DISCONNECTED);
}
END_TEST

START_TEST(test_truncated_large_payload)
{
	uint8_t *bytes = malloc(200000);
	size_t size = image(
	    (struct frame){.op = FRAME_CONTROL, .request_id = 2, .payload_size = 100000}, bytes);

	expect_end(bytes, size - 1, -E_DISCONNECTED);
	free(bytes);
}
END_TEST

START_TEST(test_no_buffer)
{
	uint8_t *bytes = malloc(200000);
	size_t size = image(
	    (struct frame){.op = FRAME_CONTROL, .request_id = 2, .payload_size = 100000}, bytes);

	server.refuse_buffers = true;
	expect_end(bytes, size, -ENOBUFS);
	free(bytes);
}
END_TEST

/* A damaged payload is the owner's to judge: the transport passes it on, marked by its CRCs. */
START_TEST(test_bad_payload_crc_is_passed_on)
{
	uint8_t bytes[5000];
	size_t size = image(write_frame, bytes);
	int fd = connect_raw();

	bytes[size - 1] ^= 1;
	write_all(fd, bytes, size);
	wait_count(&server.rx_count, 1);
	ck_assert(server.rx_bad);
	ck_assert(!server.is_closed);
	close(fd);
	wait_flag(&server.is_closed);
}
END_TEST

START_TEST(test_reset_in_the_middle_of_a_payload)
{
	const struct linger at_once = {.l_onoff = 1, .l_linger = 0};
	uint8_t *bytes = malloc(200000);
	int fd = connect_raw();

	image((struct frame){.op = FRAME_CONTROL, .request_id = 1, .payload_size = 100000}, bytes);
	write_all(fd, bytes, 50000);
	wait_count(&server.conn->stats.rx_bytes, 50000);
	setsockopt(fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof(at_once));
	close(fd);
	wait_flag(&server.is_closed);
	ck_assert_int_eq(server.reason, -E_DISCONNECTED);
	ck_assert_uint_eq(server.rx_count, 0);
	free(bytes);
}
END_TEST

static void add_frames(TCase *tc)
{
	tcase_add_test(tc, test_echo);
	tcase_add_test(tc, test_no_pacing_on_the_loopback);
	tcase_add_test(tc, test_mixed_sizes_in_one_stream);
	tcase_add_test(tc, test_one_turn_leaves_in_one_send);
	tcase_add_test(tc, test_deferred_sends_leave_together);
	tcase_add_test(tc, test_long_queue);
	tcase_add_test(tc, test_sends_before_ready_wait);
	tcase_add_test(tc, test_short_sends_go_on);
	tcase_add_test(tc, test_byte_by_byte);
	tcase_add_test(tc, test_large_frames_are_not_copied);
	tcase_add_test(tc, test_two_way_flood);
}

static void add_bad_input(TCase *tc)
{
	tcase_add_test(tc, test_garbage);
	tcase_add_test(tc, test_bad_header_crc);
	tcase_add_test(tc, test_wrong_version);
	tcase_add_test(tc, test_unknown_op);
	tcase_add_test(tc, test_oversized);
	tcase_add_test(tc, test_end_of_stream);
	tcase_add_test(tc, test_truncated_header);
	tcase_add_test(tc, test_truncated_crcs);
	tcase_add_test(tc, test_truncated_payload);
	tcase_add_test(tc, test_truncated_large_payload);
	tcase_add_test(tc, test_no_buffer);
	tcase_add_test(tc, test_bad_payload_crc_is_passed_on);
	tcase_add_test(tc, test_reset_in_the_middle_of_a_payload);
}

int main(void)
{
	Suite *suite = suite_create("tcp");
	SRunner *runner = srunner_create(suite);
	int failed;

	add_frames(add_case(suite, "frames"));
	add_bad_input(add_case(suite, "bad input"));
	srunner_run_all(runner, CK_NORMAL);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
