/* The TCP transport, on the real reactor and real sockets of the loopback: transports on both
 * sides, or a raw socket that plays a peer that is slow, broken or hostile. */
#include <arpa/inet.h>
#include <check.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "engine/base/crc32c.h"
#include "engine/reactor/io.h"
#include "net/tcp/address.h"
#include "net/transport.h"

#define PATIENCE_MS 30000u
#define FRAMES_MAX  4096u

static struct reactor *reactor;
static struct transport *transport;
static struct transport_listener *listener;

/* -- short sends: the linker passes the transport's sendmsg through here --------------------- */

static size_t send_at_most; /* 0: no limit */
static unsigned sends_seen;

void __real_reactor_io_sendmsg(struct reactor *r, struct reactor_io *io, int fd,
			       const struct msghdr *msg);
void __wrap_reactor_io_sendmsg(struct reactor *r, struct reactor_io *io, int fd,
			       const struct msghdr *msg);

void __wrap_reactor_io_sendmsg(struct reactor *r, struct reactor_io *io, int fd,
			       const struct msghdr *msg)
{
	static struct msghdr cut;
	static struct iovec iov[1024];
	size_t room = send_at_most, n = 0;

	sends_seen++;
	if (send_at_most == 0) {
		__real_reactor_io_sendmsg(r, io, fd, msg);
		return;
	}
	for (; n < msg->msg_iovlen && room > 0; n++) {
		iov[n] = msg->msg_iov[n];
		iov[n].iov_len = MIN(iov[n].iov_len, room);
		room -= iov[n].iov_len;
	}
	cut = (struct msghdr){.msg_iov = iov, .msg_iovlen = n};
	__real_reactor_io_sendmsg(r, io, fd, &cut);
}

/* -- one side of a connection ---------------------------------------------------------------- */

struct side {
	struct transport_conn *conn;
	bool echo, refuse_buffers, close_in_rx;
	bool is_ready, is_closed;
	int reason;
	unsigned closed_count;
	uint64_t rx_count;
	bool rx_bad; /* a CRC did not match */
	struct frame last;
	uint8_t *last_payload; /* copied, of `last` */
	uint64_t last_id;
	bool in_order; /* request_id rises by one */
	void *buffer;  /* lent to the transport, at most one */
	struct transport_stats stats;
};

struct outgoing {
	struct transport_send send;
	uint32_t crcs[FRAME_CRCS_MAX];
	uint8_t *payload;
	int status;
	unsigned done_count;
	struct side *side;
};

static unsigned outgoing_alive, outgoing_ok, outgoing_failed;
static bool inside_call; /* of the transport: no callback may run */

static void outgoing_done(struct transport_send *send, int status)
{
	struct outgoing *o = container_of(send, struct outgoing, send);

	ck_assert(!inside_call);
	ck_assert(!o->side->is_closed);
	outgoing_alive--;
	if (status == 0)
		outgoing_ok++;
	else
		outgoing_failed++;
	ck_assert(status == 0 || status == -E_DISCONNECTED);
	free(o->payload);
	free(o);
}

static void send_payload(struct side *side, struct frame f, const uint8_t *payload)
{
	struct outgoing *o = calloc(1, sizeof(*o));

	o->side = side;
	o->payload = malloc(f.payload_size + 1);
	memcpy(o->payload, payload, f.payload_size);
	f.wire_version = FRAME_VERSION;
	f.crc_count = frame_crc_count(f.payload_size);
	frame_payload_crcs(o->payload, f.payload_size, o->crcs);
	f.crcs = o->crcs;
	o->send.frame = f;
	if (f.payload_size > 0) { /* in two pieces, so that gathering is seen to work */
		o->send.iov[0] = (struct iovec){o->payload, f.payload_size / 2};
		o->send.iov[1] = (struct iovec){o->payload + f.payload_size / 2,
						f.payload_size - f.payload_size / 2};
		o->send.iov_count = 2;
	}
	o->send.done = outgoing_done;
	outgoing_alive++;
	inside_call = true;
	transport_send(side->conn, &o->send);
	inside_call = false;
}

static void fill(uint8_t *p, uint32_t size, uint64_t seed)
{
	for (uint32_t i = 0; i < size; i++)
		p[i] = (uint8_t)((i * 2654435761u + seed * 40503u) >> 11);
}

static void send_control(struct side *side, uint64_t id, uint32_t size)
{
	uint8_t *p = malloc(size + 1);

	fill(p, size, id);
	send_payload(
	    side, (struct frame){.op = FRAME_CONTROL, .request_id = id, .payload_size = size}, p);
	free(p);
}

static void side_ready(struct transport_conn *conn, void *arg)
{
	struct side *side = arg;

	ck_assert(!inside_call && !side->is_ready && !side->is_closed);
	ck_assert_ptr_eq(conn, side->conn);
	side->is_ready = true;
}

static void *side_rx_buffer(struct transport_conn *conn, const struct frame *f, void *arg)
{
	struct side *side = arg;

	(void)conn;
	ck_assert(!inside_call && !side->is_closed);
	ck_assert_uint_gt(f->payload_size, TRANSPORT_COPY_MAX);
	ck_assert_ptr_null(f->payload);
	ck_assert_ptr_null(side->buffer);
	if (side->refuse_buffers)
		return NULL;
	side->buffer = aligned_alloc(BLOCK_SIZE, ROUND_UP(f->payload_size, BLOCK_SIZE));
	return side->buffer;
}

static void side_rx(struct transport_conn *conn, const struct frame *f, void *arg)
{
	struct side *side = arg;

	ck_assert(!inside_call && !side->is_closed);
	ck_assert_ptr_eq(conn, side->conn);
	if (f->payload_size > TRANSPORT_COPY_MAX)
		ck_assert_ptr_eq(f->payload, side->buffer);
	ck_assert_uint_eq((uintptr_t)f->crcs % 4, 0);
	side->rx_bad = side->rx_bad || !frame_payload_ok(f);
	side->in_order = side->in_order && f->request_id == side->last_id + 1;
	side->last_id = f->request_id;
	side->rx_count++;
	side->last = *f;
	free(side->last_payload);
	side->last_payload = malloc(f->payload_size + 1);
	memcpy(side->last_payload, f->payload, f->payload_size);
	if (side->echo) {
		struct frame reply = {.op = f->op,
				      .flags = f->op == FRAME_CONTROL ? FRAME_F_REPLY : f->flags,
				      .request_id = f->request_id,
				      .chunk = f->chunk,
				      .block = f->block,
				      .block_count = f->block_count,
				      .version = f->version,
				      .watermark = f->watermark,
				      .payload_size = f->payload_size};
		send_payload(side, reply, f->payload);
	}
	free(side->buffer);
	side->buffer = NULL;
	if (side->close_in_rx) {
		inside_call = true;
		transport_close(conn);
		transport_close(conn);
		inside_call = false;
	}
}

static void side_closed(struct transport_conn *conn, int reason, void *arg)
{
	struct side *side = arg;

	ck_assert(!inside_call && !side->is_closed);
	ck_assert_uint_eq(conn->queued_bytes, 0);
	side->stats = conn->stats;
	side->is_closed = true;
	side->reason = reason;
	side->closed_count++;
	side->conn = NULL;
	free(side->buffer);
	side->buffer = NULL;
}

static const struct transport_handler handler = {
    .ready = side_ready,
    .rx_buffer = side_rx_buffer,
    .rx = side_rx,
    .closed = side_closed,
};

/* -- the world ------------------------------------------------------------------------------- */

static struct side client, server;
static unsigned accepted_count;
static bool close_in_accepted;

static void accepted(struct transport_conn *conn, void *arg)
{
	struct side *side = arg;

	accepted_count++;
	side->conn = conn;
	conn->handler = &handler;
	conn->arg = side;
	if (close_in_accepted) {
		inside_call = true;
		transport_close(conn);
		inside_call = false;
	}
}

static bool ticked;

static void tick(struct reactor_timer *t)
{
	(void)t;
	ticked = true;
}

/* Runs the reactor until condition(arg), which is looked at each 0.2 ms; fails after PATIENCE_MS.
 */
static void run_while(bool (*condition)(void *arg), void *arg)
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

static bool is_false(void *flag)
{
	return !*(bool *)flag;
}

struct count {
	const uint64_t *now;
	uint64_t want;
};

static bool is_below(void *arg)
{
	const struct count *c = arg;

	return *c->now < c->want;
}

static bool is_unaccepted(void *arg)
{
	return accepted_count < *(unsigned *)arg;
}

static bool has_outgoing(void *arg)
{
	(void)arg;
	return outgoing_alive > 0;
}

static void wait_flag(bool *flag)
{
	run_while(is_false, flag);
}

static void wait_count(const uint64_t *now, uint64_t want)
{
	struct count c = {now, want};

	run_while(is_below, &c);
}

/* One more turn of the reactor, at least. */
static void one_turn(void)
{
	struct reactor_timer timer = {.fire = tick};

	ticked = false;
	reactor_timer_arm(reactor, &timer, 0);
	ck_assert_int_eq(reactor_run_until(reactor, &ticked, UINT64_MAX), 0);
}

static void setup(void)
{
	const struct reactor_config config = {.name = "test", .memory_bytes = 4 * MIB};
	struct error err;

	ck_assert_int_eq(reactor_create(&config, &reactor), 0);
	ck_assert_int_eq(transport_tcp_create(reactor, false, &transport), 0);
	ck_assert_int_eq(
	    transport_listen(transport, "127.0.0.1:0", accepted, &server, &listener, &err), 0);
	client = (struct side){.in_order = true};
	server = (struct side){.in_order = true};
	accepted_count = 0;
	outgoing_ok = 0;
	outgoing_failed = 0;
}

static void side_end(struct side *side)
{
	if (side->conn != NULL) {
		inside_call = true;
		transport_close(side->conn);
		inside_call = false;
		wait_flag(&side->is_closed);
		ck_assert_int_eq(side->reason, 0);
	}
	ck_assert_uint_le(side->closed_count, 1);
	free(side->last_payload);
}

static void teardown(void)
{
	side_end(&client);
	side_end(&server);
	ck_assert_uint_eq(outgoing_alive, 0);
	transport_unlisten(listener);
	listener = NULL;
	transport_destroy(transport);
	one_turn();
	one_turn();
	reactor_destroy(reactor);
}

static void connect_client(void)
{
	unsigned one = 1;

	inside_call = true;
	ck_assert_int_eq(
	    transport_connect(transport, listener->address, &handler, &client, &client.conn), 0);
	inside_call = false;
	wait_flag(&client.is_ready);
	run_while(is_unaccepted, &one);
}

/* A blocking socket of ours, connected to the listener. */
static int connect_raw(void)
{
	struct address a;
	unsigned one = 1;
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	ck_assert_int_eq(address_parse(listener->address, &a), 0);
	ck_assert_int_eq(connect(fd, (struct sockaddr *)&a.storage, a.size), 0);
	run_while(is_unaccepted, &one);
	return fd;
}

static void write_all(int fd, const void *data, size_t size)
{
	ck_assert_int_eq(send(fd, data, size, MSG_NOSIGNAL), (ssize_t)size);
}

/* A whole frame as it lies on the wire. Returns its size. */
static size_t image(struct frame f, uint8_t *ret)
{
	uint8_t *payload = ret + FRAME_HEADER_SIZE + 4u * frame_crc_count(f.payload_size);
	uint32_t crcs[FRAME_CRCS_MAX];

	f.wire_version = FRAME_VERSION;
	f.crc_count = frame_crc_count(f.payload_size);
	frame_encode_header(&f, ret);
	fill(payload, f.payload_size, f.request_id);
	frame_payload_crcs(payload, f.payload_size, crcs);
	memcpy(ret + FRAME_HEADER_SIZE, crcs, 4u * f.crc_count);
	return FRAME_HEADER_SIZE + 4u * f.crc_count + f.payload_size;
}

static const struct frame write_frame = {
    .op = FRAME_WRITE, .request_id = 1, .block_count = 1, .payload_size = BLOCK_SIZE, .version = 1};

static void reseal(uint8_t *h)
{
	const uint32_t crc = crc32c(0, h, 60);

	memcpy(h + 60, &crc, 4);
}

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

/* -- ends ------------------------------------------------------------------------------------ */

START_TEST(test_close_with_queued_sends)
{
	const unsigned count = 300;
	int fd = connect_raw(); /* it never reads */

	for (unsigned i = 0; i < count; i++)
		send_control(&server, i + 1, 100000);
	one_turn();
	one_turn();
	ck_assert_uint_gt(server.conn->queued_bytes, 0);
	inside_call = true;
	transport_close(server.conn);
	inside_call = false;
	ck_assert(!server.is_closed);
	/* Sending goes on being allowed, and comes to nothing. */
	send_control(&server, count + 1, 100);
	wait_flag(&server.is_closed);
	ck_assert_int_eq(server.reason, 0);
	ck_assert_uint_eq(outgoing_alive, 0);
	ck_assert_uint_eq(outgoing_ok + outgoing_failed, count + 1);
	ck_assert_uint_gt(outgoing_failed, 0);
	ck_assert_uint_eq(server.stats.tx_frames, outgoing_ok);
	close(fd);
}
END_TEST

START_TEST(test_peer_death_with_queued_sends)
{
	int fd = connect_raw();

	for (unsigned i = 0; i < 300; i++)
		send_control(&server, i + 1, 100000);
	one_turn();
	close(fd);
	wait_flag(&server.is_closed);
	ck_assert_int_eq(server.reason, -E_DISCONNECTED);
	ck_assert_uint_eq(outgoing_alive, 0);
	ck_assert_uint_gt(outgoing_failed, 0);
}
END_TEST

/* What the peer said before it hung up is heard, also when sending fails first. */
START_TEST(test_last_words)
{
	uint8_t bytes[200];
	size_t size =
	    image((struct frame){.op = FRAME_CONTROL, .request_id = 1, .payload_size = 9}, bytes);
	int fd = connect_raw();

	write_all(fd, bytes, size);
	send_at_most =
	    1; /* many sends: one of them meets the reset before the receive is looked at */
	for (unsigned i = 0; i < 300; i++)
		send_control(&server, i + 1, 100000);
	shutdown(fd, SHUT_RDWR);
	close(fd);
	wait_flag(&server.is_closed);
	send_at_most = 0;
	ck_assert_int_eq(server.reason, -E_DISCONNECTED);
	ck_assert_uint_eq(server.rx_count, 1);
}
END_TEST

START_TEST(test_close_in_rx)
{
	server.close_in_rx = true;
	connect_client();
	for (unsigned i = 0; i < 50; i++)
		send_control(&client, i + 1, 30);
	wait_flag(&server.is_closed);
	wait_flag(&client.is_closed);
	ck_assert_int_eq(server.reason, 0);
	ck_assert_uint_eq(server.rx_count, 1);
	ck_assert_int_eq(client.reason, -E_DISCONNECTED);
}
END_TEST

START_TEST(test_close_in_rx_of_a_large_frame)
{
	server.close_in_rx = true;
	connect_client();
	send_control(&client, 1, 400000);
	send_control(&client, 2, 400000);
	wait_flag(&server.is_closed);
	wait_flag(&client.is_closed);
	ck_assert_int_eq(server.reason, 0);
	ck_assert_uint_eq(server.rx_count, 1);
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
	ck_assert_int_eq(client.reason, -E_DISCONNECTED);
	close_in_accepted = false;
}
END_TEST

START_TEST(test_close_while_connecting)
{
	inside_call = true;
	ck_assert_int_eq(
	    transport_connect(transport, listener->address, &handler, &client, &client.conn), 0);
	transport_close(client.conn);
	inside_call = false;
	send_control(&client, 1, 100);
	wait_flag(&client.is_closed);
	ck_assert_int_eq(client.reason, 0);
	ck_assert(!client.is_ready);
	ck_assert_uint_eq(outgoing_failed, 1);
}
END_TEST

/* -- connecting and listening ---------------------------------------------------------------- */

/* A port that is taken but doesn't listen. */
static int quiet_socket(char *ret_address, size_t size, int backlog)
{
	struct address a;
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	ck_assert_int_eq(address_parse("127.0.0.1:0", &a), 0);
	ck_assert_int_eq(bind(fd, (struct sockaddr *)&a.storage, a.size), 0);
	ck_assert_int_eq(getsockname(fd, (struct sockaddr *)&a.storage, &a.size), 0);
	if (backlog >= 0)
		ck_assert_int_eq(listen(fd, backlog), 0);
	address_format(&a, ret_address, size);
	return fd;
}

START_TEST(test_refused)
{
	char address[ADDR_SIZE_MAX];
	int fd = quiet_socket(address, sizeof(address), -1);

	ck_assert_int_eq(transport_connect(transport, address, &handler, &client, &client.conn), 0);
	wait_flag(&client.is_closed);
	ck_assert_int_eq(client.reason, -ECONNREFUSED);
	ck_assert(!client.is_ready);
	close(fd);
}
END_TEST

/* A listener whose queue is full doesn't answer at all. */
START_TEST(test_connect_timeout)
{
	char address[ADDR_SIZE_MAX];
	struct address a;
	int fd = quiet_socket(address, sizeof(address), 0), fill_fds[4];
	uint64_t begin_ns;

	ck_assert_int_eq(address_parse(address, &a), 0);
	for (size_t i = 0; i < ARRAY_SIZE(fill_fds); i++) {
		fill_fds[i] = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
		(void)!connect(fill_fds[i], (struct sockaddr *)&a.storage, a.size);
	}
	reactor_refresh(reactor);
	begin_ns = reactor_now_ns(reactor);
	ck_assert_int_eq(transport_connect(transport, address, &handler, &client, &client.conn), 0);
	wait_flag(&client.is_closed);
	ck_assert_int_eq(client.reason, -ETIMEDOUT);
	ck_assert_uint_ge(reactor_now_ns(reactor) - begin_ns, 2900 * NS_PER_MS);
	ck_assert_uint_le(reactor_now_ns(reactor) - begin_ns, 6000 * NS_PER_MS);
	for (size_t i = 0; i < ARRAY_SIZE(fill_fds); i++)
		close(fill_fds[i]);
	close(fd);
}
END_TEST

/* A peer that lives but takes nothing for longer than TCP_USER_TIMEOUT is given up. */
START_TEST(test_stuck_peer)
{
	int fd = connect_raw();
	uint64_t begin_ns;

	reactor_refresh(reactor);
	begin_ns = reactor_now_ns(reactor);
	for (unsigned i = 0; i < 300; i++)
		send_control(&server, i + 1, 100000);
	wait_flag(&server.is_closed);
	/* The kernel tells the cause to the send in flight, whose short result hides it. */
	ck_assert(server.reason == -ETIMEDOUT || server.reason == -E_DISCONNECTED);
	ck_assert_uint_ge(reactor_now_ns(reactor) - begin_ns, 4000 * NS_PER_MS);
	ck_assert_uint_le(reactor_now_ns(reactor) - begin_ns, 15000 * NS_PER_MS);
	close(fd);
}
END_TEST

START_TEST(test_not_loopback)
{
	static const char *const outside[] = {"0.0.0.0:0", "192.0.2.1:7400", "[::]:0",
					      "[2001:db8::1]:7400", "128.0.0.1:1"};
	struct transport_listener *l = NULL;

	for (size_t i = 0; i < ARRAY_SIZE(outside); i++) {
		struct error err = {0};

		ck_assert_int_eq(
		    transport_listen(transport, outside[i], accepted, &server, &l, &err), -EACCES);
		ck_assert_ptr_nonnull(strstr(err.text, outside[i]));
		ck_assert_ptr_nonnull(strstr(err.text, "--insecure"));
		ck_assert_ptr_null(l);
	}
	ck_assert_int_eq(
	    transport_connect(transport, "192.0.2.1:7400", &handler, &client, &client.conn),
	    -EACCES);
	ck_assert_int_eq(
	    transport_connect(transport, "[2001:db8::1]:1", &handler, &client, &client.conn),
	    -EACCES);
	ck_assert_ptr_null(client.conn);
}
END_TEST

START_TEST(test_insecure_allows_any_address)
{
	struct transport_listener *l;
	struct transport *open;
	struct error err;

	ck_assert_int_eq(transport_tcp_create(reactor, true, &open), 0);
	ck_assert_int_eq(transport_listen(open, "0.0.0.0:0", accepted, &server, &l, &err), 0);
	transport_unlisten(l);
	transport_destroy(open);
}
END_TEST

START_TEST(test_bad_addresses)
{
	static const char *const bad[] = {"",
					  ":",
					  "127.0.0.1",
					  "127.0.0.1:",
					  ":80",
					  "127.0.0.1:65536",
					  "127.0.0.1:-1",
					  "::1:80",
					  "[::1]",
					  "[::1]80",
					  "[::1:80",
					  "127.0.0.1:8a",
					  "example:1",
					  "[127.0.0.1]:1",
					  "127.0.1:1",
					  "127.0.0.1: 1"};
	struct transport_listener *l = NULL;

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		struct error err = {0};

		ck_assert_int_eq(transport_listen(transport, bad[i], accepted, &server, &l, &err),
				 -EINVAL);
		ck_assert_ptr_nonnull(strstr(err.text, bad[i]));
		ck_assert_int_eq(
		    transport_connect(transport, bad[i], &handler, &client, &client.conn), -EINVAL);
	}
	ck_assert_int_eq(
	    transport_connect(transport, "127.0.0.1:0", &handler, &client, &client.conn), -EINVAL);
}
END_TEST

START_TEST(test_ipv6)
{
	struct transport_listener *v4 = listener;
	struct error err;

	ck_assert_int_eq(transport_listen(transport, "[::1]:0", accepted, &server, &listener, &err),
			 0);
	ck_assert_int_eq(strncmp(listener->address, "[::1]:", 6), 0);
	connect_client();
	send_control(&client, 1, 5000);
	wait_count(&server.rx_count, 1);
	ck_assert_int_eq(strncmp(server.conn->peer.address, "[::1]:", 6), 0);
	transport_unlisten(v4);
}
END_TEST

/* A port is refused while it is in use, and free again as soon as its listener is gone, with
 * connections of it alive. */
START_TEST(test_listening_again)
{
	struct transport_listener *l = NULL;
	char address[ADDR_SIZE_MAX];
	struct error err;

	snprintf(address, sizeof(address), "%s", listener->address);
	connect_client();
	ck_assert_int_eq(transport_listen(transport, address, accepted, &server, &l, &err),
			 -EADDRINUSE);
	ck_assert_ptr_nonnull(strstr(err.text, address));
	transport_unlisten(listener);
	one_turn();
	one_turn();
	ck_assert_int_eq(transport_listen(transport, address, accepted, &server, &listener, &err),
			 0);
	send_control(&client, 1, 10);
	wait_count(&server.rx_count, 1);
}
END_TEST

/* Descriptors run out: the listener waits and goes on. (An accept that is in flight has the limit
 * of the time when it began, so the first connection comes through.) */
START_TEST(test_out_of_descriptors)
{
	unsigned count = 1;
	struct rlimit limit, keep;
	int first = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	int second = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	struct address a;

	ck_assert_int_eq(address_parse(listener->address, &a), 0);
	ck_assert_int_eq(getrlimit(RLIMIT_NOFILE, &keep), 0);
	one_turn();
	limit = keep;
	limit.rlim_cur = 3;
	ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &limit), 0);
	ck_assert_int_eq(connect(first, (struct sockaddr *)&a.storage, a.size), 0);
	run_while(is_unaccepted, &count);
	close(first);
	wait_flag(&server.is_closed);
	server = (struct side){.in_order = true};
	ck_assert_int_eq(connect(second, (struct sockaddr *)&a.storage, a.size), 0);
	for (int i = 0; i < 5; i++)
		one_turn();
	ck_assert_uint_eq(accepted_count, 1);
	ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &keep), 0);
	count = 2;
	run_while(is_unaccepted, &count);
	close(second);
	wait_flag(&server.is_closed);
}
END_TEST

static TCase *add_case(Suite *suite, const char *name)
{
	TCase *tc = tcase_create(name);

	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_set_timeout(tc, 60);
	suite_add_tcase(suite, tc);
	return tc;
}

static void add_frames(TCase *tc)
{
	tcase_add_test(tc, test_echo);
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

static void add_ends(TCase *tc)
{
	tcase_add_test(tc, test_close_with_queued_sends);
	tcase_add_test(tc, test_peer_death_with_queued_sends);
	tcase_add_test(tc, test_last_words);
	tcase_add_test(tc, test_close_in_rx);
	tcase_add_test(tc, test_close_in_rx_of_a_large_frame);
	tcase_add_test(tc, test_close_in_accepted);
	tcase_add_test(tc, test_close_while_connecting);
	tcase_add_test(tc, test_stuck_peer);
}

static void add_setup(TCase *tc)
{
	tcase_add_test(tc, test_refused);
	tcase_add_test(tc, test_connect_timeout);
	tcase_add_test(tc, test_not_loopback);
	tcase_add_test(tc, test_insecure_allows_any_address);
	tcase_add_test(tc, test_bad_addresses);
	tcase_add_test(tc, test_ipv6);
	tcase_add_test(tc, test_listening_again);
	tcase_add_test(tc, test_out_of_descriptors);
}

int main(void)
{
	Suite *suite = suite_create("tcp");
	SRunner *runner = srunner_create(suite);
	int failed;

	add_frames(add_case(suite, "frames"));
	add_bad_input(add_case(suite, "bad input"));
	add_ends(add_case(suite, "ends"));
	add_setup(add_case(suite, "setup"));
	srunner_run_all(runner, CK_NORMAL);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
