/* The receiving side of a TCP connection, without a network: this file is the reactor. The input is
 * a stream of bytes in which headers get their magic and checksum put right, so that frames are
 * found, and how it is cut into arrivals. What the connection delivers, and the reason of its end,
 * must be what a plain walk over the stream says, however it was cut. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "engine/base/assert.h"
#include "engine/base/crc32c.h"
#include "engine/base/log.h"
#include "net/tcp/conn.h"
#include "tests/fuzz/fuzz.h"

#define STREAM_MAX (1u << 20)

/* -- the reactor ----------------------------------------------------------------------------- */

static struct reactor_io *receiving;
static struct iovec room[2];
static size_t room_count;
static struct reactor_task *deferred;

static void fake_cancel(struct reactor *r, struct reactor_timer *t)
{
	(void)r;
	(void)t;
}

/* Only the end of a connection is ever deferred here: nothing is sent. */
static void fake_defer(struct reactor *r, struct reactor_task *t)
{
	(void)r;
	INVARIANT(deferred == NULL || deferred == t);
	deferred = t;
}

static const struct reactor_ops fake_ops = {.timer_cancel = fake_cancel, .defer = fake_defer};
static struct reactor reactor = {.ops = &fake_ops};

static void take_room(struct reactor_io *io, const struct iovec *iov, size_t count)
{
	INVARIANT(receiving == NULL && count >= 1 && count <= 2);
	receiving = io;
	room_count = count;
	memcpy(room, iov, count * sizeof(*iov));
}

void reactor_io_recv(struct reactor *r, struct reactor_io *io, int fd, void *buf, uint32_t size)
{
	(void)r;
	(void)fd;
	take_room(io, &(struct iovec){buf, size}, 1);
}

void reactor_io_recvmsg(struct reactor *r, struct reactor_io *io, int fd, struct msghdr *msg,
			int flags)
{
	(void)r;
	(void)fd;
	(void)flags;
	take_room(io, msg->msg_iov, msg->msg_iovlen);
}

void reactor_io_cancel(struct reactor *r, struct reactor_io *io)
{
	(void)r;
	INVARIANT(io == receiving);
}

void reactor_io_sendmsg(struct reactor *r, struct reactor_io *io, int fd, const struct msghdr *msg)
{
	(void)r;
	(void)io;
	(void)fd;
	(void)msg;
	abort(); /* nothing is sent */
}

void reactor_io_connect(struct reactor *r, struct reactor_io *io, int fd,
			const struct sockaddr *addr, socklen_t addr_size)
{
	(void)r;
	(void)io;
	(void)fd;
	(void)addr;
	(void)addr_size;
	abort(); /* nothing connects */
}

void reactor_io_accept(struct reactor *r, struct reactor_io *io, int fd)
{
	(void)r;
	(void)io;
	(void)fd;
	abort(); /* nothing is accepted */
}

static void complete(int32_t result)
{
	struct reactor_io *io = receiving;

	receiving = NULL;
	io->done(io, result);
}

/* Puts up to `size` bytes where the connection wants them. Returns how many it took. */
static size_t arrive(const uint8_t *p, size_t size)
{
	size_t taken = 0;

	for (size_t i = 0; i < room_count && taken < size; i++) {
		const size_t n = MIN(room[i].iov_len, size - taken);

		memcpy(room[i].iov_base, p + taken, n);
		taken += n;
	}
	complete((int32_t)taken);
	return taken;
}

/* -- the owner, who compares ----------------------------------------------------------------- */

static const uint8_t *stream;
static size_t stream_size, walked; /* walked: where the next frame begins */
static bool ended;
static int end_reason;
static void *lent;

static void *owner_rx_buffer(struct transport_conn *conn, const struct frame *f, void *arg)
{
	(void)conn;
	(void)arg;
	INVARIANT(f->payload_size > TRANSPORT_COPY_MAX && lent == NULL);
	lent = aligned_alloc(BLOCK_SIZE, ROUND_UP((size_t)f->payload_size, BLOCK_SIZE));
	return lent;
}

static void owner_rx(struct transport_conn *conn, const struct frame *f, void *arg)
{
	const uint8_t *p = stream + walked;
	const size_t before = FRAME_HEADER_SIZE + 4u * f->crc_count;
	struct frame want;

	(void)conn;
	(void)arg;
	INVARIANT(walked + before + f->payload_size <= stream_size);
	INVARIANT(frame_decode_header(p, &want) == 0);
	INVARIANT(want.request_id == f->request_id && want.payload_size == f->payload_size);
	INVARIANT(memcmp(f->crcs, p + FRAME_HEADER_SIZE, 4u * f->crc_count) == 0);
	INVARIANT(memcmp(f->payload, p + before, f->payload_size) == 0);
	INVARIANT(f->payload_size <= TRANSPORT_COPY_MAX || f->payload == lent);
	walked += before + f->payload_size;
	free(lent);
	lent = NULL;
}

static void owner_closed(struct transport_conn *conn, int reason, void *arg)
{
	(void)conn;
	(void)arg;
	INVARIANT(!ended);
	ended = true;
	end_reason = reason;
	free(lent);
	lent = NULL;
}

static const struct transport_handler handler = {
    .rx_buffer = owner_rx_buffer, .rx = owner_rx, .closed = owner_closed};

/* -- the input ------------------------------------------------------------------------------- */

/* Where a header would begin, magic and checksum are put right, as long as headers decode; a byte
 * of the request number says otherwise for one in 16. Returns the reason for which the stream must
 * end. */
static int prepare(uint8_t *p, size_t size)
{
	static const uint32_t magic = FRAME_MAGIC;
	size_t at = 0;

	while (size - at >= FRAME_HEADER_SIZE) {
		struct frame f;
		uint32_t crc;
		int rc;

		if (p[at + 8] % 16 != 15) {
			memcpy(p + at, &magic, 4);
			crc = crc32c(0, p + at, 60);
			memcpy(p + at + 60, &crc, 4);
		}
		rc = frame_decode_header(p + at, &f);
		if (rc != 0)
			return rc;
		if (size - at < FRAME_HEADER_SIZE + 4u * f.crc_count + f.payload_size)
			break;
		at += FRAME_HEADER_SIZE + 4u * f.crc_count + f.payload_size;
	}
	return -E_DISCONNECTED;
}

static void feed(size_t step, size_t growth)
{
	size_t fed = 0;

	while (fed < stream_size && receiving != NULL && deferred == NULL) {
		fed += arrive(stream + fed, MIN(step, stream_size - fed));
		step = step * growth % 300007 + 1;
	}
	if (receiving != NULL)
		complete(deferred == NULL ? 0 : -ECANCELED);
}

/* One byte says how it is cut, one how often the rest is repeated: large frames need long streams.
 */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static uint8_t copy[STREAM_MAX];
	struct tcp t = {.head.reactor = &reactor};
	struct conn *c;
	int want;

	if (size < 3)
		return 0;
	stream_size = 0;
	for (unsigned i = 0; i <= data[1] % 64u && stream_size + size - 2 <= STREAM_MAX; i++) {
		memcpy(copy + stream_size, data + 2, size - 2);
		stream_size += size - 2;
	}
	want = prepare(copy, stream_size);
	stream = copy;
	walked = 0;
	ended = false;
	deferred = NULL;
	log_set_level(LOG_ERROR);
	if (conn_accept(&t, socket(AF_INET, SOCK_STREAM, 0), &c) != 0)
		abort();
	c->head.handler = &handler;
	conn_start(c);
	feed(data[0] % 16u == 0 ? STREAM_MAX : data[0], data[0] % 7u);
	INVARIANT(deferred != NULL && receiving == NULL && !ended);
	deferred->run(deferred);
	INVARIANT(ended && t.conn_count == 0 && end_reason == want);
	return 0;
}
