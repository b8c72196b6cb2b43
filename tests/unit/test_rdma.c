/* The RDMA transport, over TCP on the loopback and a device in memory (fake_verbs.h): how frames
 * travel, how connections begin and end, and the codec. What a device may do: test_rdma_device.c;
 * what a peer may say: test_rdma_peer.c.
 */
#include <check.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "net/rdma/message.h"
#include "tests/unit/rdma_world.h"

/* -- frames ---------------------------------------------------------------------------------- */

START_TEST(test_echo)
{
	static const uint32_t sizes[] = {
	    0,	   1,	  3,	 4095,	 4096,		 4097,
	    16383, 16384, 16385, 100001, (1u << 20) + 7, FRAME_CONTROL_MAX,
	    5,	   16384, 1};

	server.echo = true;
	connect_sides();
	for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
		uint8_t *want = malloc(sizes[i] + 1);

		send_control(&client, i + 1, sizes[i]);
		wait_count(&client.rx_count, i + 1);
		fill(want, sizes[i], i + 1);
		ck_assert_uint_eq(client.last.payload_size, sizes[i]);
		ck_assert_mem_eq(client.last_payload, want, sizes[i]);
		free(want);
	}
	ck_assert(client.in_order && server.in_order && !client.rx_bad && !server.rx_bad);
	run_while(has_outgoing, NULL);
	ck_assert_uint_eq(client.conn->stats.tx_frames, ARRAY_SIZE(sizes));
	ck_assert_uint_eq(client.conn->stats.tx_bytes, server.conn->stats.rx_bytes);
	ck_assert_uint_eq(client.conn->stats.rx_bytes, server.conn->stats.tx_bytes);
	ck_assert_uint_eq(client.conn->stats.rx_copied_bytes, 0);
	ck_assert_uint_eq(client.conn->queued_bytes, 0);
	ck_assert_uint_eq(counters().pulls, 2 * 4);
	ck_assert_uint_eq(counters().pulled_bytes,
			  2 * (16385 + 100001 + (1u << 20) + 7 + FRAME_CONTROL_MAX));
}
END_TEST

/* Many more messages than there are credits, both ways, with payloads that are fetched between. */
START_TEST(test_two_way_flood)
{
	static const uint32_t sizes[] = {1, 20000, 0, 16384, 16385, 7, 300001, 4096, 65537, 2};
	const unsigned count = 60 * ARRAY_SIZE(sizes);

	server.echo = true;
	connect_sides();
	for (unsigned i = 0; i < count; i++)
		send_control(&client, i + 1, sizes[i % ARRAY_SIZE(sizes)] + i / 10);
	wait_count(&client.rx_count, count);
	ck_assert(client.in_order && server.in_order && !client.rx_bad && !server.rx_bad);
	run_while(has_outgoing, NULL);
	ck_assert_uint_eq(outgoing_ok, 2 * count);
}
END_TEST

/* Both use up their credits in the same turn: neither waits for the other's last for ever. */
START_TEST(test_both_at_once)
{
	const unsigned count = 20 * RDMA_CREDITS;

	connect_sides();
	for (unsigned i = 0; i < count; i++) {
		send_control(&client, i + 1, 10);
		send_control(&server, i + 1, 10);
	}
	wait_count(&client.rx_count, count);
	wait_count(&server.rx_count, count);
	ck_assert(client.in_order && server.in_order);
}
END_TEST

/* One side alone sends: its credits come back in messages of their own. */
START_TEST(test_one_way_flood)
{
	connect_sides();
	for (unsigned i = 0; i < 5000; i++)
		send_control(&client, i + 1, 10);
	wait_count(&server.rx_count, 5000);
	ck_assert(server.in_order);
	ck_assert_uint_ge(counters().acks, 5000 / RDMA_CREDITS);
	ck_assert_uint_le(counters().acks, 2 + 5000 / (RDMA_CREDITS / 2));
}
END_TEST

START_TEST(test_one_turn_leaves_in_one_call)
{
	connect_sides();
	one_turn();
	fake_device.posts = 0;
	for (uint64_t id = 1; id <= 40; id++)
		send_control(&client, id, 100);
	wait_count(&server.rx_count, 40);
	ck_assert_uint_eq(client.conn->stats.tx_calls, 2); /* with the greeting */
}
END_TEST

START_TEST(test_sends_before_ready_wait)
{
	inside_call = true;
	ck_assert_int_eq(
	    transport_connect(transport, listener->address, &handler, &client, &client.conn), 0);
	inside_call = false;
	for (unsigned i = 0; i < 20; i++)
		send_control(&client, i + 1, 30000 * (i % 2));
	wait_count(&server.rx_count, 20);
	ck_assert(client.is_ready && server.in_order && !server.rx_bad);
}
END_TEST

struct pool_send {
	struct transport_send send;
	uint32_t crcs[FRAME_CRCS_MAX];
	bool done;
};

static void pool_send_done(struct transport_send *send, int status)
{
	ck_assert_int_eq(status, 0);
	container_of(send, struct pool_send, send)->done = true;
}

/* Sends a payload from where it lies, and waits until it has arrived. */
static void send_from(uint8_t *memory, uint32_t size, uint64_t id)
{
	static struct pool_send s;

	fill(memory, size, id);
	s = (struct pool_send){
	    .send = {.frame = {.wire_version = FRAME_VERSION,
			       .op = FRAME_CONTROL,
			       .request_id = id,
			       .payload_size = size,
			       .crc_count = frame_crc_count(size),
			       .crcs = s.crcs},
		     .iov = {{memory, size}},
		     .iov_count = 1,
		     .done = pool_send_done},
	};
	frame_payload_crcs(memory, size, s.crcs);
	transport_send(client.conn, &s.send);
	wait_flag(&s.done);
	wait_count(&server.rx_count, id);
	ck_assert_mem_eq(server.last_payload, memory, size);
}

/* Memory of the reactor's is registered once, and nothing of it is copied, but for tiny payloads.
 */
START_TEST(test_pools_are_registered_once)
{
	uint8_t *memory = reactor_memory(reactor, MIB);
	unsigned registered;

	connect_sides();
	for (unsigned i = 0; i < 10; i++) {
		send_from(memory, i % 2 == 0 ? BLOCK_SIZE : 256 * 1024, i + 1);
		if (i == 1)
			registered = fake_device.mr_count;
	}
	ck_assert_uint_eq(fake_device.mr_count, registered);
	ck_assert_uint_eq(counters().registrations, 5); /* where the test's owner received */
	ck_assert_uint_eq(counters().copied_bytes, 0);
}
END_TEST

/* Memory that was added is registered once with each device, and what lies in it is neither copied
 * nor registered again, as where it goes and as where it comes from. */
START_TEST(test_added_memory)
{
	const size_t size = 4 * MIB;
	uint8_t *guest = aligned_alloc(BLOCK_SIZE, size);
	unsigned before;

	ck_assert_int_eq(transport_memory_add(transport, guest + 2 * MIB, MIB), 0);
	ck_assert_int_eq(transport_memory_add(transport, guest, 2 * MIB), 0);
	ck_assert_int_eq(transport_memory_add(transport, guest + MIB, 4096), -EINVAL);
	ck_assert_int_eq(transport_memory_add(transport, guest + 3 * MIB - 4096, 8192), -EINVAL);
	ck_assert_int_eq(transport_memory_add(transport, guest + 2 * MIB - 4096, 4096), -EINVAL);
	for (unsigned round = 0; round < 2; round++) { /* the device is opened anew */
		connect_sides();
		server.memory = guest + 2 * MIB;
		before = fake_device.mr_count;
		for (uint64_t i = 0; i < 5; i++)
			send_from(guest + i * 65536, 256 * 1024, i + 1);
		ck_assert_uint_eq(fake_device.mr_count, before + 2);
		ck_assert_uint_eq(counters().registrations, 0);
		ck_assert_uint_eq(counters().copied_bytes, 0);
		forget_sides();
		run_while(is_device_used, NULL);
		ck_assert_uint_eq(fake_device.mr_count, 0);
	}
	transport_memory_remove(transport, guest);
	connect_sides();
	server.memory = guest + 2 * MIB;
	send_from(guest, 256 * 1024, 1); /* works, and costs a registration */
	ck_assert_uint_eq(counters().registrations, 1);
	before = fake_device.mr_count;
	transport_memory_remove(transport, guest + 2 * MIB);
	ck_assert_uint_eq(fake_device.mr_count, before - 1);
	free(guest);
}
END_TEST

START_TEST(test_so_many_memories)
{
	uint8_t *guest = aligned_alloc(BLOCK_SIZE, (TRANSPORT_MEMORIES_MAX + 1) * BLOCK_SIZE);

	for (uint32_t i = 0; i < TRANSPORT_MEMORIES_MAX; i++)
		ck_assert_int_eq(
		    transport_memory_add(transport, guest + i * BLOCK_SIZE, BLOCK_SIZE), 0);
	ck_assert_int_eq(transport_memory_add(
			     transport, guest + TRANSPORT_MEMORIES_MAX * BLOCK_SIZE, BLOCK_SIZE),
			 -E_LIMIT);
	for (uint32_t i = 0; i < TRANSPORT_MEMORIES_MAX; i++) /* in another order */
		transport_memory_remove(transport,
					guest + (i * 7 % TRANSPORT_MEMORIES_MAX) * BLOCK_SIZE);
	ck_assert_int_eq(transport_memory_add(carrier, guest, BLOCK_SIZE), 0); /* TCP needs none */
	transport_memory_remove(carrier, guest);
	free(guest);
}
END_TEST

/* A payload of three pieces, each of which is fetched by itself. Until the last is there it is not
 * delivered, and its memory is not given back, whatever else is said meanwhile. */
START_TEST(test_payload_is_the_senders_until_it_is_fetched)
{
	const uint32_t size = 300000;
	uint8_t *payload = malloc(size);
	struct pool_send s = {
	    .send = {.frame = {.wire_version = FRAME_VERSION,
			       .op = FRAME_CONTROL,
			       .request_id = 1,
			       .payload_size = size,
			       .crc_count = frame_crc_count(size),
			       .crcs = s.crcs},
		     .iov = {{payload, 100000},
			     {payload + 100000, 150000},
			     {payload + 250000, 50000}},
		     .iov_count = 3,
		     .done = pool_send_done},
	};

	connect_sides();
	fake_device.hold_reads = true;
	fill(payload, size, 9);
	frame_payload_crcs(payload, size, s.crcs);
	transport_send(client.conn, &s.send);
	send_control(&client, 2, 10); /* keeps its place behind it */
	for (unsigned i = 0; i < 3; i++) {
		send_control(&server, i + 1, 10); /* would tell the client */
		wait_count(&client.rx_count, i + 1);
		ck_assert(!s.done);
		ck_assert_uint_eq(server.rx_count, 0);
		ck_assert(fake_device_read_one());
	}
	wait_flag(&s.done);
	wait_count(&server.rx_count, 2);
	ck_assert(!fake_device_read_one());
	ck_assert(server.in_order && !server.rx_bad);
	free(payload);
}
END_TEST

static uint64_t taken_ns;

static void note_taken(void)
{
	struct timespec now;

	/* Later than the turn began, as after a stop. */
	do {
		clock_gettime(CLOCK_BOOTTIME, &now);
		taken_ns = (uint64_t)now.tv_sec * NS_PER_S + (uint64_t)now.tv_nsec;
	} while (taken_ns <= reactor_now_ns(reactor));
}

static void note_heard(struct transport_conn *conn, const struct frame *f, void *arg)
{
	ck_assert_uint_ge(reactor_now_ns(reactor), taken_ns);
	side_rx(conn, f, arg);
}

/* What came while the process was stopped, since its turn began, is judged by a time after that: a
 * gate that has closed meanwhile is closed for it. The same for a payload that is there by then. */
START_TEST(test_what_comes_is_no_older_than_the_time)
{
	struct transport_handler noting = handler;

	noting.rx = note_heard;
	connect_sides();
	server.conn->handler = &noting;
	for (unsigned i = 0; i < 2; i++) {
		fake_device.taken = note_taken;
		send_control(&client, i + 1, i == 0 ? 10 : 100000);
		wait_count(&server.rx_count, i + 1);
		fake_device.taken = NULL;
	}
	server.conn->handler = &handler;
}
END_TEST

START_TEST(test_polling_before_sleeping)
{
	server.echo = true;
	connect_sides();
	for (unsigned i = 0; i < 200; i++) {
		send_control(&client, i + 1, 4096);
		wait_count(&client.rx_count, i + 1);
	}
	/* With so long a time it is never asked to be woken while this goes on. */
	ck_assert_uint_lt(counters().notify_calls, 50);
}
END_TEST

static void begin_polling(void)
{
	rdma_setup.poll_us = 100000;
	world_begin();
}

/* -- who comes without asking for RDMA --------------------------------------------------------- */

static void connect_plainly(void)
{
	ck_assert_int_eq(
	    transport_connect(carrier, listener->address, &handler, &client, &client.conn), 0);
	wait_flag(&client.is_ready);
	ck_assert_uint_eq(accepted_count, 0); /* it has not said anything yet */
}

START_TEST(test_plain_peer)
{
	server.echo = true;
	connect_plainly();
	for (unsigned i = 0; i < 20; i++)
		send_control(&client, i + 1, i % 2 == 0 ? 100000 : 10);
	wait_count(&client.rx_count, 20);
	ck_assert(!is_rdma(server.conn) && client.in_order && !client.rx_bad);
	ck_assert_uint_eq(fake_device.live, 0);
}
END_TEST

START_TEST(test_plain_peer_that_goes_unheard)
{
	connect_plainly();
	side_end(&client);
	client = (struct side){.in_order = true};
	connect_sides();
}
END_TEST

START_TEST(test_unlisten_with_somebody_at_the_door)
{
	connect_plainly();
	transport_unlisten(listener);
	listener = NULL;
	wait_flag(&client.is_closed);
	ck_assert_uint_eq(accepted_count, 0);
}
END_TEST

START_TEST(test_address_without_offer)
{
	char plain[ADDR_SIZE_MAX];

	snprintf(plain, sizeof plain, "%.*s", (int)strcspn(listener->address, "+"),
		 listener->address);
	ck_assert_int_eq(transport_connect(transport, plain, &handler, &client, &client.conn), 0);
	send_control(&client, 1, 10);
	wait_count(&server.rx_count, 1);
	ck_assert(!is_rdma(client.conn) && !is_rdma(server.conn));
}
END_TEST

/* -- ends ------------------------------------------------------------------------------------ */

START_TEST(test_close)
{
	connect_sides();
	transport_close(client.conn);
	send_control(&client, 1, 100); /* allowed, and comes to nothing */
	wait_flag(&client.is_closed);
	wait_flag(&server.is_closed);
	ck_assert_int_eq(client.reason, 0);
	ck_assert_int_eq(server.reason, -E_DISCONNECTED);
	ck_assert_uint_eq(outgoing_failed, 1);
}
END_TEST

/* What was sent before the hang-up is heard, although the device's word of it comes after the end
 * of the control connection, or not at all. */
START_TEST(test_last_words)
{
	connect_sides();
	one_turn();
	fake_device.mute = true;
	for (unsigned i = 0; i < 3; i++)
		send_control(&server, i + 1, 100);
	one_turn();
	one_turn();
	transport_close(server.conn);
	wait_flag(&client.is_closed);
	ck_assert_uint_eq(client.rx_count, 3);
	ck_assert(client.in_order);
	ck_assert_int_eq(client.reason, -E_DISCONNECTED);
}
END_TEST

/* Another pair of sides, beside one that stays. */
static void keep_sides(struct side *first, struct side *second)
{
	connect_sides();
	*first = client;
	*second = server;
	first->conn->arg = first;
	second->conn->arg = second;
	client = (struct side){.in_order = true};
	server = (struct side){.in_order = true};
	accepted_count = 0;
}

/* Sent before anything is received. */
static void burst(struct side *some, struct side *others)
{
	const unsigned count = RDMA_CREDITS - 1; /* the last is for what gives some back */

	for (unsigned i = 0; i < count; i++) {
		send_control(some, i + 1, 100);
		send_control(others, i + 1, 100);
	}
}

static void wait_burst(const struct side *some, const struct side *others)
{
	wait_count(&some->rx_count, RDMA_CREDITS - 1);
	wait_count(&others->rx_count, RDMA_CREDITS - 1);
}

/* Queue pairs that take receive buffers with them when they are destroyed: all that peers have
 * credits for are there all the same. */
START_TEST(test_buffers_that_are_lost_are_replaced)
{
	struct side first, second;
	uint64_t lost;

	keep_sides(&first, &second);
	fake_device.eat_buffers = true;
	for (unsigned i = 0; i < RDMA_CREDITS / 2; i++) { /* a connection is two queue pairs */
		connect_sides();
		forget_sides();
	}
	fake_device.eat_buffers = false;
	connect_sides();
	lost = counters().lost;
	burst(&client, &server);
	burst(&first, &second);
	wait_burst(&client, &server);
	wait_burst(&first, &second);
	ck_assert_uint_eq(counters().lost, lost);
	side_end(&first);
	side_end(&second);
}
END_TEST

/* Connections that end with messages behind a payload that is not there yet: their buffers are
 * there for others. */
START_TEST(test_close_with_messages_held)
{
	struct side first, second;
	uint64_t lost;

	keep_sides(&first, &second);
	for (unsigned i = 0; i < 12; i++) {
		connect_sides();
		fake_device.hold_reads = true;
		send_control(&client, 1, 100000);
		for (unsigned k = 0; k < RDMA_CREDITS / 2; k++)
			send_control(&client, k + 2, 100);
		while (server.conn->stats.rx_calls < 1 + RDMA_CREDITS / 2)
			one_turn();
		ck_assert_uint_eq(server.rx_count, 0);
		transport_close(server.conn);
		ck_assert(fake_device_read_one());
		wait_flag(&server.is_closed);
		forget_sides();
		fake_device.hold_reads = false;
	}
	lost = counters().lost;
	burst(&first, &second);
	wait_burst(&first, &second);
	ck_assert_uint_eq(counters().lost, lost);
	side_end(&first);
	side_end(&second);
}
END_TEST

START_TEST(test_close_with_work_posted)
{
	connect_sides();
	fake_device.hold = true;
	for (unsigned i = 0; i < 200; i++)
		send_control(&client, i + 1, i % 3 == 0 ? 100000 : 100);
	one_turn();
	one_turn();
	transport_close(client.conn);
	ck_assert(!client.is_closed);
	wait_flag(&client.is_closed);
	ck_assert_uint_eq(outgoing_alive, 0);
	ck_assert_uint_eq(outgoing_failed, 200);
}
END_TEST

/* A device that never gives back what was posted: after RDMA_FLUSH_MS it is done without. */
START_TEST(test_flush_that_never_comes)
{
	connect_sides();
	fake_device.hold = true;
	fake_device.never_flush = true;
	send_control(&client, 1, 100);
	one_turn();
	one_turn();
	transport_close(client.conn);
	wait_flag(&client.is_closed);
	wait_flag(&server.is_closed);
	ck_assert_uint_eq(outgoing_failed, 1);
}
END_TEST

START_TEST(test_close_in_rx)
{
	server.close_in_rx = true;
	connect_sides();
	for (unsigned i = 0; i < 50; i++)
		send_control(&client, i + 1, i == 0 ? 50000 : 30);
	wait_flag(&server.is_closed);
	wait_flag(&client.is_closed);
	ck_assert_int_eq(server.reason, 0);
	ck_assert_uint_eq(server.rx_count, 1);
	ck_assert_int_eq(client.reason, -E_DISCONNECTED);
}
END_TEST

START_TEST(test_close_in_accepted)
{
	close_in_accepted = true;
	inside_call = true;
	ck_assert_int_eq(
	    transport_connect(transport, listener->address, &handler, &client, &client.conn), 0);
	inside_call = false;
	wait_flag(&server.is_closed);
	wait_flag(&client.is_closed);
	ck_assert_int_eq(server.reason, 0);
	close_in_accepted = false;
}
END_TEST

START_TEST(test_close_while_connecting)
{
	ck_assert_int_eq(
	    transport_connect(transport, listener->address, &handler, &client, &client.conn), 0);
	for (int i = _i; i > 0; i--)
		one_turn();
	transport_close(client.conn);
	send_control(&client, 1, 100);
	wait_flag(&client.is_closed);
	ck_assert_int_eq(client.reason, 0);
	ck_assert_uint_eq(outgoing_failed, 1);
	if (server.conn != NULL)
		wait_flag(&server.is_closed);
}
END_TEST

START_TEST(test_nobody_listens)
{
	char address[ADDR_SIZE_MAX];

	snprintf(address, sizeof address, "%s", listener->address);
	transport_unlisten(listener);
	listener = NULL;
	one_turn();
	one_turn();
	ck_assert_int_eq(transport_connect(transport, address, &handler, &client, &client.conn), 0);
	wait_flag(&client.is_closed);
	ck_assert_int_eq(client.reason, -ECONNREFUSED);
	ck_assert_uint_eq(counters().fallbacks, 0); /* over TCP it would be the same */
}
END_TEST

START_TEST(test_no_buffer)
{
	server.refuse_buffers = true;
	connect_sides();
	send_control(&client, 1, 100000);
	wait_flag(&server.is_closed);
	wait_flag(&client.is_closed);
	ck_assert_int_eq(server.reason, -ENOBUFS);
	ck_assert_uint_eq(server.rx_count, 0);
	ck_assert_uint_eq(outgoing_failed, 1);
}
END_TEST

START_TEST(test_addresses)
{
	static const char *const bad[] = {"127.0.0.1:7400+", "127.0.0.1:7400++rdma", "+rdma",
					  "127.0.0.1:7400+RDMA", "127.0.0.1:7400 +rdma"};
	char buf[ADDR_SIZE_MAX], longest[ADDR_SIZE_MAX];
	struct address a;

	ck_assert_int_eq(address_parse_offered("127.0.0.1:7400+future2+rdma", &a), 0);
	ck_assert_uint_eq(address_port(&a), 7400);
	ck_assert_int_eq(address_parse("127.0.0.1:7400+rdma", &a), -EINVAL);
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		ck_assert_int_eq(address_parse_offered(bad[i], &a), -EINVAL);
	ck_assert(address_offers("127.0.0.1:7400+future2+rdma", "rdma"));
	ck_assert(address_offers("127.0.0.1:7400+rdma+future2", "rdma"));
	ck_assert(!address_offers("127.0.0.1:7400+rdma2", "rdma"));
	ck_assert(!address_offers("rdma:7400", "rdma"));
	ck_assert_int_eq(address_offer("[::1]:1", "rdma", buf), 0);
	ck_assert_str_eq(buf, "[::1]:1+rdma");
	ck_assert_int_eq(address_offer("[::1]:1+rdma", "rdma", buf), 0);
	ck_assert_str_eq(buf, "[::1]:1+rdma");
	memset(longest, 'a', sizeof longest);
	longest[sizeof longest - 1] = '\0';
	ck_assert_int_eq(address_offer(longest, "rdma", buf), -E_LIMIT);
}
END_TEST

/* -- the codec -------------------------------------------------------------------------------- */

static uint32_t make_message(enum rdma_kind kind, uint32_t *bytes)
{
	static uint32_t crcs[FRAME_CRCS_MAX];
	const uint32_t size = kind == RDMA_PULL ? 20000 : kind == RDMA_FRAME ? 50 : 0;
	struct rdma_message m = {
	    .kind = (uint8_t)kind,
	    .credits = 3,
	    .pulled = 2,
	    .frame = {.wire_version = FRAME_VERSION,
		      .op = FRAME_CONTROL,
		      .request_id = 1,
		      .payload_size = size,
		      .crc_count = frame_crc_count(size),
		      .crcs = crcs},
	};
	uint8_t header[FRAME_HEADER_SIZE];

	if (kind == RDMA_PULL) {
		m.segment_count = 2;
		m.segments[0] = (struct rdma_segment){4096, 7, 19000};
		m.segments[1] = (struct rdma_segment){1 << 20, 8, 1000};
	}
	frame_encode_header(&m.frame, header);
	return rdma_message_encode(&m, header, (uint8_t *)bytes) + (kind == RDMA_FRAME ? size : 0);
}

/* Nothing but what an encoder makes is taken: not with a bit inverted, nor shorter, nor longer. */
START_TEST(test_codec)
{
	static uint32_t words[RDMA_MESSAGE_MAX / 4];
	uint8_t *bytes = (uint8_t *)words;
	struct rdma_message m;

	for (enum rdma_kind kind = RDMA_ACK; kind <= RDMA_PULL; kind++) {
		const uint32_t size = make_message(kind, words);
		const uint32_t fixed = kind == RDMA_FRAME  ? RDMA_HEAD_SIZE + FRAME_HEADER_SIZE
				       : kind == RDMA_PULL ? RDMA_HEAD_SIZE + 32 + FRAME_HEADER_SIZE
							   : RDMA_HEAD_SIZE;

		ck_assert_int_eq(rdma_message_decode(bytes, size, &m), 0);
		ck_assert_uint_eq(m.kind, kind);
		ck_assert_uint_eq(m.credits, 3);
		ck_assert_uint_eq(m.pulled, 2);
		for (uint32_t cut = 0; cut < size; cut++)
			ck_assert_int_lt(rdma_message_decode(bytes, cut, &m), 0);
		ck_assert_int_lt(rdma_message_decode(bytes, size + 4, &m), 0);
		for (uint32_t bit = 0; bit < 8 * fixed; bit++) {
			bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
			ck_assert_int_lt(rdma_message_decode(bytes, size, &m), 0);
			bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
		}
	}
}
END_TEST

/* Segments that are not what the frame says, although everything checks. */
START_TEST(test_codec_segments)
{
	static uint32_t words[RDMA_MESSAGE_MAX / 4];
	struct rdma_message m;
	uint32_t size = make_message(RDMA_PULL, words);

	ck_assert_int_eq(rdma_message_decode((uint8_t *)words, size, &m), 0);
	ck_assert_uint_eq(m.segment_count, 2);
	ck_assert_uint_eq(m.segments[1].address, 1 << 20);
	for (int i = 0; i < 3; i++) {
		struct rdma_message bad = m;
		uint8_t header[FRAME_HEADER_SIZE];
		uint8_t *copy = aligned_alloc(64, ROUND_UP(RDMA_MESSAGE_MAX, 64u));

		if (i == 0)
			bad.segments[0].size_bytes++;
		if (i == 1)
			bad.segments[1].size_bytes = 0;
		if (i == 2)
			bad.segment_count = 1;
		frame_encode_header(&bad.frame, header);
		size = rdma_message_encode(&bad, header, copy);
		ck_assert_int_eq(rdma_message_decode(copy, size, &bad), -E_BAD_FRAME);
		free(copy);
	}
}
END_TEST

/* -- all of it -------------------------------------------------------------------------------- */

static void add_frames(TCase *tc)
{
	tcase_add_test(tc, test_echo);
	tcase_add_test(tc, test_two_way_flood);
	tcase_add_test(tc, test_both_at_once);
	tcase_add_test(tc, test_one_way_flood);
	tcase_add_test(tc, test_one_turn_leaves_in_one_call);
	tcase_add_test(tc, test_sends_before_ready_wait);
	tcase_add_test(tc, test_pools_are_registered_once);
	tcase_add_test(tc, test_added_memory);
	tcase_add_test(tc, test_so_many_memories);
	tcase_add_test(tc, test_payload_is_the_senders_until_it_is_fetched);
	tcase_add_test(tc, test_what_comes_is_no_older_than_the_time);
	tcase_add_test(tc, test_plain_peer);
	tcase_add_test(tc, test_plain_peer_that_goes_unheard);
	tcase_add_test(tc, test_unlisten_with_somebody_at_the_door);
	tcase_add_test(tc, test_address_without_offer);
}

static void add_ends(TCase *tc)
{
	tcase_add_test(tc, test_close);
	tcase_add_test(tc, test_last_words);
	tcase_add_test(tc, test_buffers_that_are_lost_are_replaced);
	tcase_add_test(tc, test_close_with_messages_held);
	tcase_add_test(tc, test_close_with_work_posted);
	tcase_add_test(tc, test_flush_that_never_comes);
	tcase_add_test(tc, test_close_in_rx);
	tcase_add_test(tc, test_close_in_accepted);
	tcase_add_loop_test(tc, test_close_while_connecting, 0, 8);
	tcase_add_test(tc, test_nobody_listens);
	tcase_add_test(tc, test_no_buffer);
}

int main(void)
{
	Suite *suite = suite_create("rdma");
	TCase *codec = tcase_create("codec");

	tcase_add_test(codec, test_addresses);
	tcase_add_test(codec, test_codec);
	tcase_add_test(codec, test_codec_segments);
	suite_add_tcase(suite, codec);
	add_frames(add_world(suite, "frames", world_begin));
	tcase_add_test(add_world(suite, "polling", begin_polling), test_polling_before_sleeping);
	add_ends(add_world(suite, "ends", world_begin));
	return run_suite(suite);
}
