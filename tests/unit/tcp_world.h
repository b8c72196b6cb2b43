/* What the tests of the TCP transport have in common: a listener, two sides that record what
 * happens to them and judge the order of callbacks, and a raw socket that plays a peer that is
 * slow, broken or hostile. Each test program includes this once. */
#ifndef UNIT_TCP_WORLD_H
#define UNIT_TCP_WORLD_H

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "engine/base/crc32c.h"
#include "engine/reactor/io.h"
#include "net/tcp/address.h"
#include "net/transport.h"
#include "tests/unit/net_wait.h"

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
	void *memory;  /* to be lent, instead of one that is made for each payload */
	struct transport_stats stats;
};

struct outgoing {
	struct transport_send send;
	uint32_t crcs[FRAME_CRCS_MAX];
	uint8_t *payload;
	struct side *side;
};

static unsigned outgoing_alive, outgoing_ok, outgoing_failed;
static bool inside_call; /* of the transport: no callback may run */

static inline void outgoing_done(struct transport_send *send, int status)
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

static inline void send_payload(struct side *side, struct frame f, const uint8_t *payload)
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

static inline void fill(uint8_t *p, uint32_t size, uint64_t seed)
{
	for (uint32_t i = 0; i < size; i++)
		p[i] = (uint8_t)((i * 2654435761u + seed * 40503u) >> 11);
}

static inline void send_control(struct side *side, uint64_t id, uint32_t size)
{
	uint8_t *p = malloc(size + 1);

	fill(p, size, id);
	send_payload(
	    side, (struct frame){.op = FRAME_CONTROL, .request_id = id, .payload_size = size}, p);
	free(p);
}

static inline void side_drop_buffer(struct side *side)
{
	if (side->buffer != side->memory)
		free(side->buffer);
	side->buffer = NULL;
}

static inline void side_ready(struct transport_conn *conn, void *arg)
{
	struct side *side = arg;

	ck_assert(!inside_call && !side->is_ready && !side->is_closed);
	ck_assert_ptr_eq(conn, side->conn);
	side->is_ready = true;
}

static inline void *side_rx_buffer(struct transport_conn *conn, const struct frame *f, void *arg)
{
	struct side *side = arg;

	(void)conn;
	ck_assert(!inside_call && !side->is_closed);
	ck_assert_uint_gt(f->payload_size, TRANSPORT_COPY_MAX);
	ck_assert_ptr_null(f->payload);
	ck_assert_ptr_null(side->buffer);
	if (side->refuse_buffers)
		return NULL;
	side->buffer = side->memory != NULL
			   ? side->memory
			   : aligned_alloc(BLOCK_SIZE, ROUND_UP(f->payload_size, BLOCK_SIZE));
	return side->buffer;
}

static inline void side_rx(struct transport_conn *conn, const struct frame *f, void *arg)
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
	side_drop_buffer(side);
	if (side->close_in_rx) {
		inside_call = true;
		transport_close(conn);
		transport_close(conn);
		inside_call = false;
	}
}

static inline void side_closed(struct transport_conn *conn, int reason, void *arg)
{
	struct side *side = arg;

	ck_assert(!inside_call && !side->is_closed);
	ck_assert_uint_eq(conn->queued_bytes, 0);
	side->stats = conn->stats;
	side->is_closed = true;
	side->reason = reason;
	side->closed_count++;
	side->conn = NULL;
	side_drop_buffer(side);
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

static inline void accepted(struct transport_conn *conn, void *arg)
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

static inline bool is_unaccepted(void *arg)
{
	return accepted_count < *(unsigned *)arg;
}

static inline bool has_outgoing(void *arg)
{
	(void)arg;
	return outgoing_alive > 0;
}

static inline void setup(void)
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

static inline void side_end(struct side *side)
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

static inline void teardown(void)
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

static inline void connect_client(void)
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
static inline int connect_raw(void)
{
	struct address a;
	unsigned one = 1;
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	ck_assert_int_eq(address_parse(listener->address, &a), 0);
	ck_assert_int_eq(connect(fd, (struct sockaddr *)&a.storage, a.size), 0);
	run_while(is_unaccepted, &one);
	return fd;
}

static inline void write_all(int fd, const void *data, size_t size)
{
	ck_assert_int_eq(send(fd, data, size, MSG_NOSIGNAL), (ssize_t)size);
}

/* A whole frame as it lies on the wire. Returns its size. */
static inline size_t image(struct frame f, uint8_t *ret)
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

static inline void reseal(uint8_t *h)
{
	const uint32_t crc = crc32c(0, h, 60);

	memcpy(h + 60, &crc, 4);
}

static inline TCase *add_case(Suite *suite, const char *name)
{
	TCase *tc = tcase_create(name);

	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_set_timeout(tc, 60);
	suite_add_tcase(suite, tc);
	return tc;
}

#endif
