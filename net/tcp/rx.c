/* rx: the receiving side of a connection. See conn.h and transport.h.
 *
 * Happy path: one receive is in flight, into the connection's buffer. What arrives is cut into
 * frames; a small one is passed to the owner where it lies. When a payload over TRANSPORT_COPY_MAX
 * begins, the owner lends memory for it, what has arrived of it already is copied there, and the
 * rest is received straight into it; the next frame's beginning comes with the same operation.
 *
 * The window keeps that copy small: behind a large frame another one is likely, so no more than a
 * small frame's length is asked for, until a small frame is seen. Then batches of small frames come
 * in one operation of up to the whole buffer.
 *
 * Failure modes: the end of the stream, a socket's error, a header that doesn't decode and an owner
 * without memory end the connection, with that as the reason. The frames before it have been
 * delivered; of the one at fault, and of all after it, nothing is. */
#include <errno.h>
#include <string.h>

#include "engine/base/assert.h"
#include "net/tcp/conn.h"

static void deliver(struct conn *c, const struct frame *f)
{
	c->head.stats.rx_frames++;
	c->head.handler->rx(&c->head, f, c->head.arg);
}

/* The header and the CRCs at p are complete. Returns the bytes used of the `size` that are there.
 */
static uint32_t begin_large(struct conn *c, const struct frame *f, const uint8_t *p, uint32_t size)
{
	struct conn_rx *rx = &c->rx;
	const struct transport_handler *h = c->head.handler;
	const uint32_t before = FRAME_HEADER_SIZE + 4u * f->crc_count;
	uint32_t have = MIN(size - before, f->payload_size);
	uint8_t *mem = h->rx_buffer != NULL ? h->rx_buffer(&c->head, f, c->head.arg) : NULL;

	if (mem == NULL)
		conn_end(c, -ENOBUFS);
	if (c->state != CONN_OPEN)
		return 0;
	PRE((uintptr_t)mem % BLOCK_SIZE == 0);
	memcpy(rx->crcs, p + FRAME_HEADER_SIZE, 4u * f->crc_count);
	memcpy(mem, p + before, have);
	c->head.stats.rx_copied_bytes += have;
	rx->window = TCP_RX_WINDOW_LARGE;
	rx->large = *f;
	rx->large.crcs = rx->crcs;
	rx->large.payload = mem;
	rx->large_mem = mem;
	rx->large_have = have;
	return before + have;
}

static void end_large(struct conn *c)
{
	const struct frame f = c->rx.large;

	c->rx.large_mem = NULL;
	deliver(c, &f);
}

/* Cuts off one frame, or begins a large one. Returns the bytes used of the `size` at p; 0 when more
 * must arrive, or the connection has ended. */
static uint32_t take_frame(struct conn *c, const uint8_t *p, uint32_t size)
{
	struct frame f;
	uint32_t before;
	int rc;

	if (size < FRAME_HEADER_SIZE)
		return 0;
	rc = frame_decode_header(p, &f);
	if (rc != 0) {
		conn_end(c, rc);
		return 0;
	}
	before = FRAME_HEADER_SIZE + 4u * f.crc_count;
	if (size < before)
		return 0;
	if (f.payload_size > TRANSPORT_COPY_MAX)
		return begin_large(c, &f, p, size);
	if (size < before + f.payload_size)
		return 0;
	/* Frames may end at odd addresses, so the CRCs may lie at any. */
	memcpy(c->rx.crcs, p + FRAME_HEADER_SIZE, 4u * f.crc_count);
	f.crcs = c->rx.crcs;
	f.payload = p + before;
	c->rx.window = TCP_RX_BUFFER_SIZE;
	deliver(c, &f);
	return before + f.payload_size;
}

static void take_frames(struct conn *c)
{
	struct conn_rx *rx = &c->rx;
	uint32_t used = 1;

	while (c->state == CONN_OPEN && used != 0) {
		if (rx->large_mem != NULL) {
			if (rx->large_have < rx->large.payload_size)
				break;
			end_large(c);
			continue;
		}
		used = take_frame(c, rx->buf + rx->begin, rx->end - rx->begin);
		rx->begin += used;
	}
	if (rx->begin == rx->end) {
		rx->begin = 0;
		rx->end = 0;
	}
}

static void rx_done(struct reactor_io *io, int32_t result)
{
	struct conn *c = container_of(io, struct conn, rx.io);
	struct conn_rx *rx = &c->rx;

	rx->busy = false;
	if (c->state == CONN_ENDING) {
		conn_settle(c);
		return;
	}
	if (result > 0) {
		uint32_t arrived = (uint32_t)result;

		c->head.stats.rx_bytes += arrived;
		if (rx->large_mem != NULL) {
			uint32_t direct = MIN(arrived, rx->large.payload_size - rx->large_have);

			rx->large_have += direct;
			arrived -= direct;
		}
		rx->end += arrived;
		take_frames(c);
	} else if (result == 0) {
		conn_end(c, c->tx.broken != 0 ? c->tx.broken : -E_DISCONNECTED);
	} else if (result != -EINTR && result != -EAGAIN) {
		conn_end(c, conn_reason(-result));
	}
	if (c->state == CONN_OPEN)
		rx_start(c);
}

void rx_init(struct conn *c, uint8_t *buf)
{
	c->rx.io.done = rx_done;
	c->rx.buf = buf;
	c->rx.window = TCP_RX_BUFFER_SIZE;
}

static void receive_large(struct conn *c)
{
	struct conn_rx *rx = &c->rx;
	const uint32_t rest = rx->large.payload_size - rx->large_have;

	INVARIANT(rx->begin == 0 && rx->end == 0 && rest > 0);
	rx->iov[0] = (struct iovec){rx->large_mem + rx->large_have, rest};
	rx->iov[1] = (struct iovec){rx->buf, rx->window};
	rx->msg = (struct msghdr){.msg_iov = rx->iov, .msg_iovlen = 2};
	reactor_io_recvmsg(conn_reactor(c), &rx->io, c->fd, &rx->msg, 0);
}

void rx_start(struct conn *c)
{
	struct conn_rx *rx = &c->rx;

	INVARIANT(!rx->busy && c->state == CONN_OPEN);
	rx->busy = true;
	c->head.stats.rx_calls++;
	if (rx->large_mem != NULL) {
		receive_large(c);
		return;
	}
	if (TCP_RX_BUFFER_SIZE - rx->end < TCP_RX_ROOM_MIN) {
		memmove(rx->buf, rx->buf + rx->begin, rx->end - rx->begin);
		rx->end -= rx->begin;
		rx->begin = 0;
	}
	INVARIANT(TCP_RX_BUFFER_SIZE - rx->end >= TCP_RX_ROOM_MIN);
	reactor_io_recv(conn_reactor(c), &rx->io, c->fd, rx->buf + rx->end,
			MIN(rx->window, TCP_RX_BUFFER_SIZE - rx->end));
}

void rx_cancel(struct conn *c)
{
	if (c->rx.busy)
		reactor_io_cancel(conn_reactor(c), &c->rx.io);
}
