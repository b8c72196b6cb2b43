/* tx: the sending side of a connection. See conn.h and transport.h.
 *
 * Happy path: tx_send queues a frame and defers the flush; the flush, at the end of the turn,
 * gathers headers, CRCs and payloads of the queue into one sendmsg; when that is done the frames'
 * done run, and what was queued meanwhile makes the next. So frames of one turn leave in one
 * operation, and a slow peer makes the batches larger, not more.
 *
 * Failure modes: a short send goes on where it stopped. When the connection is broken the receive
 * in flight is about to end too, and first brings what the peer said last, such as why it hung up:
 * so sending only stops, and leaves the end to rx.c. Any other error ends the connection here. What
 * did not leave is completed by tx_fail, when nothing is in flight any more. */
#include <errno.h>

#include "engine/base/assert.h"
#include "net/tcp/conn.h"

static void submit(struct conn *c)
{
	c->tx.busy = true;
	c->head.stats.tx_calls++;
	reactor_io_sendmsg(conn_reactor(c), &c->tx.io, c->fd, &c->tx.msg);
}

/* Moves frames from the queue to the batch, as many as one sendmsg takes. */
static void gather(struct conn *c)
{
	struct conn_tx *tx = &c->tx;
	uint32_t n = 0;

	INVARIANT(tx->batch.first == NULL);
	tx->batch_bytes = 0;
	while (tx->queue.first != NULL && tx->batch_bytes < TCP_TX_BATCH_BYTES_MAX &&
	       n + 2 + tx->queue.first->iov_count <= TCP_TX_IOV_MAX) {
		struct transport_send *s = sends_take(&tx->queue);

		tx->iov[n++] = (struct iovec){s->header, FRAME_HEADER_SIZE};
		if (s->frame.crc_count != 0)
			tx->iov[n++] = (struct iovec){(void *)(uintptr_t)s->frame.crcs,
						      4ull * s->frame.crc_count};
		for (uint32_t i = 0; i < s->iov_count; i++)
			tx->iov[n++] = s->iov[i];
		tx->batch_bytes += sends_size(s);
		sends_append(&tx->batch, s);
	}
	tx->msg = (struct msghdr){.msg_iov = tx->iov, .msg_iovlen = n};
}

static void tx_flush(struct reactor_task *task)
{
	struct conn *c = container_of(task, struct conn, tx.flush);

	if (c->state != CONN_OPEN || c->tx.busy || c->tx.broken != 0 || c->tx.queue.first == NULL)
		return;
	/* Other tasks of this turn may send too: they go first, once. */
	if (!c->tx.late) {
		c->tx.late = true;
		reactor_defer(conn_reactor(c), &c->tx.flush);
		return;
	}
	c->tx.late = false;
	gather(c);
	submit(c);
}

/* Drops the first `size` bytes, which have left, from the front of msg. */
static void advance(struct conn_tx *tx, uint64_t size)
{
	struct msghdr *msg = &tx->msg;

	INVARIANT(size < tx->batch_bytes);
	tx->batch_bytes -= size;
	while (size >= msg->msg_iov->iov_len) {
		size -= msg->msg_iov->iov_len;
		msg->msg_iov++;
		msg->msg_iovlen--;
	}
	msg->msg_iov->iov_base = (char *)msg->msg_iov->iov_base + size;
	msg->msg_iov->iov_len -= size;
}

static void tx_done(struct reactor_io *io, int32_t result)
{
	struct conn *c = container_of(io, struct conn, tx.io);
	struct conn_tx *tx = &c->tx;
	struct transport_send *s;

	tx->busy = false;
	if (result > 0 && (uint64_t)result >= tx->batch_bytes) {
		struct sends sent = tx->batch;

		tx->batch.first = NULL;
		while ((s = sends_take(&sent)) != NULL)
			sends_end(&c->head, s, 0);
		tx_start(c);
	} else if (c->state == CONN_OPEN && (result > 0 || result == -EINTR || result == -EAGAIN)) {
		if (result > 0)
			advance(tx, (uint64_t)result);
		submit(c);
	} else if (result == -EPIPE || result == -ECONNRESET || result == -ETIMEDOUT) {
		tx->broken = conn_reason(-result);
	} else {
		conn_end(c, result < 0 ? conn_reason(-result) : -E_DISCONNECTED);
	}
	conn_settle(c);
}

void tx_init(struct conn *c)
{
	c->tx.io.done = tx_done;
	c->tx.flush.run = tx_flush;
}

void tx_start(struct conn *c)
{
	if (c->state == CONN_OPEN && !c->tx.busy && c->tx.queue.first != NULL)
		reactor_defer(conn_reactor(c), &c->tx.flush);
}

void tx_send(struct conn *c, struct transport_send *s)
{
	PRE(c->state != CONN_GONE);
	sends_begin(&c->tx.queue, &c->head, s);
	tx_start(c);
}

void tx_cancel(struct conn *c)
{
	if (c->tx.busy)
		reactor_io_cancel(conn_reactor(c), &c->tx.io);
}

void tx_fail(struct conn *c)
{
	struct transport_send *s;

	INVARIANT(!c->tx.busy);
	while ((s = sends_take(&c->tx.batch)) != NULL)
		sends_end(&c->head, s, -E_DISCONNECTED);
	while ((s = sends_take(&c->tx.queue)) != NULL)
		sends_end(&c->head, s, -E_DISCONNECTED);
}
