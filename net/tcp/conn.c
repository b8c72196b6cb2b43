/* conn: the life of a connection. See conn.h.
 *
 * Happy path: conn_connect, connected, conn_start, ready; or conn_accept, conn_start. Then
 * conn_end, by the owner or because of an error; the operations in flight come back cancelled;
 * conn_finish.
 *
 * Failure modes: connecting takes longer than TCP_CONNECT_TIMEOUT_MS; the peer is silent for
 * TCP_DEAD_PEER_MS: the kernel reports both through the operation in flight. */
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "engine/base/assert.h"
#include "engine/base/log.h"
#include "net/tcp/conn.h"

int conn_reason(int code)
{
	switch (code) {
	case ECONNRESET:
	case EPIPE:
	case ENOTCONN:
		return -E_DISCONNECTED;
	default:
		return -code;
	}
}

/* Gives everything back, and closed, the last word. */
static void conn_finish(struct reactor_task *task)
{
	struct conn *c = container_of(task, struct conn, end_task);
	struct tcp *t = conn_tcp(c);

	INVARIANT(c->state == CONN_ENDING && !c->connecting && !c->rx.busy && !c->tx.busy);
	tx_fail(c);
	POST(c->head.queued_bytes == 0);
	close(c->fd);
	INVARIANT(t->conn_count > 0);
	t->conn_count--;
	t->full_reported = false;
	c->state = CONN_GONE;
	c->head.handler->closed(&c->head, c->reason, c->head.arg);
	free(c->rx.buf);
	free(c);
}

void conn_settle(struct conn *c)
{
	if (c->state == CONN_ENDING && !c->connecting && !c->rx.busy && !c->tx.busy)
		reactor_defer(conn_reactor(c), &c->end_task);
}

void conn_end(struct conn *c, int reason)
{
	PRE(reason <= 0);
	if (c->state == CONN_ENDING || c->state == CONN_GONE)
		return;
	c->state = CONN_ENDING;
	c->reason = reason;
	reactor_timer_cancel(conn_reactor(c), &c->connect_timer);
	/* What is in flight would end by this alone, the cancellations make it certain. */
	shutdown(c->fd, SHUT_RDWR);
	if (c->connecting)
		reactor_io_cancel(conn_reactor(c), &c->connect_io);
	rx_cancel(c);
	tx_cancel(c);
	conn_settle(c);
}

void conn_start(struct conn *c)
{
	if (c->state != CONN_OPEN)
		return;
	rx_start(c);
	tx_start(c);
}

static void set_option(int fd, int level, int option, int value)
{
	/* None of them can fail on a TCP socket; without one the connection works, only worse. */
	if (setsockopt(fd, level, option, &value, sizeof(value)) != 0)
		log_warn("tcp", "socket option %d: %s", option, err_text(errno));
}

static void set_options(int fd)
{
	set_option(fd, IPPROTO_TCP, TCP_NODELAY, 1);
	set_option(fd, SOL_SOCKET, SO_KEEPALIVE, 1);
	set_option(fd, IPPROTO_TCP, TCP_KEEPIDLE, TCP_KEEPALIVE_IDLE_S);
	set_option(fd, IPPROTO_TCP, TCP_KEEPINTVL, TCP_KEEPALIVE_PERIOD_S);
	set_option(fd, IPPROTO_TCP, TCP_KEEPCNT, TCP_KEEPALIVE_PROBES);
	set_option(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, TCP_DEAD_PEER_MS);
}

void conn_choose_congestion(int fd, const struct address *address)
{
	static const char reno[] = "reno";

	if (address_is_loopback(address) &&
	    setsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, reno, sizeof(reno) - 1) != 0)
		log_warn("tcp", "congestion control: %s", err_text(errno));
}

/* A connection that ended by connecting to itself: a port of the range that the kernel gives out,
 * on which nobody listens, may be given to the very socket that asks for it. */
static bool is_self(const struct conn *c)
{
	struct address own = {.size = sizeof(own.storage)};

	return getsockname(c->fd, (struct sockaddr *)&own.storage, &own.size) == 0 &&
	       address_equal(&own, &c->address);
}

static void connect_done(struct reactor_io *io, int32_t result)
{
	struct conn *c = container_of(io, struct conn, connect_io);

	c->connecting = false;
	if (c->state == CONN_ENDING) {
		conn_settle(c);
	} else if (result < 0) {
		conn_end(c, conn_reason(-result));
	} else if (is_self(c)) {
		conn_end(c, -ECONNREFUSED);
	} else {
		reactor_timer_cancel(conn_reactor(c), &c->connect_timer);
		c->state = CONN_OPEN;
		conn_start(c);
		if (c->head.handler->ready != NULL)
			c->head.handler->ready(&c->head, c->head.arg);
	}
}

static void connect_timeout(struct reactor_timer *timer)
{
	conn_end(container_of(timer, struct conn, connect_timer), -ETIMEDOUT);
}

/* Closes fd when it fails. */
static int conn_create(struct tcp *t, int fd, struct conn **ret_conn)
{
	struct conn *c = calloc(1, sizeof(*c));
	uint8_t *buf = aligned_alloc(BLOCK_SIZE, TCP_RX_BUFFER_SIZE);

	if (c == NULL || buf == NULL) {
		free(buf);
		free(c);
		close(fd);
		return -ENOMEM;
	}
	c->head.transport = &t->head;
	c->fd = fd;
	c->connect_io.done = connect_done;
	c->connect_timer.fire = connect_timeout;
	c->end_task.run = conn_finish;
	rx_init(c, buf);
	tx_init(c);
	set_options(fd);
	t->conn_count++;
	*ret_conn = c;
	return 0;
}

int conn_accept(struct tcp *t, int fd, struct conn **ret_conn)
{
	struct conn *c;
	int rc;

	if (t->conn_count >= TCP_CONNS_MAX) {
		close(fd);
		return -E_LIMIT;
	}
	rc = conn_create(t, fd, &c);
	if (rc != 0)
		return rc;
	c->state = CONN_OPEN;
	c->address.size = sizeof(c->address.storage);
	/* It fails when the peer has gone already, which the first receive will tell. */
	if (getpeername(fd, (struct sockaddr *)&c->address.storage, &c->address.size) == 0)
		address_format(&c->address, c->head.peer.address, sizeof(c->head.peer.address));
	*ret_conn = c;
	return 0;
}

int conn_connect(struct tcp *t, const struct address *address, struct conn **ret_conn)
{
	struct reactor *r = t->head.reactor;
	struct conn *c;
	int rc, fd;

	if (t->conn_count >= TCP_CONNS_MAX)
		return -E_LIMIT;
	fd = socket(address->storage.ss_family, SOCK_STREAM | SOCK_CLOEXEC, IPPROTO_TCP);
	if (fd < 0)
		return -errno;
	rc = conn_create(t, fd, &c);
	if (rc != 0)
		return rc;
	/* So that our own port, when it is the one of a node that is down, doesn't keep that node
	 * from listening again. */
	set_option(fd, SOL_SOCKET, SO_REUSEADDR, 1);
	conn_choose_congestion(fd, address);
	c->state = CONN_CONNECTING;
	c->address = *address;
	address_format(address, c->head.peer.address, sizeof(c->head.peer.address));
	c->connecting = true;
	reactor_io_connect(r, &c->connect_io, fd, (const struct sockaddr *)&c->address.storage,
			   c->address.size);
	reactor_timer_arm(r, &c->connect_timer,
			  reactor_now_ns(r) + TCP_CONNECT_TIMEOUT_MS * NS_PER_MS);
	*ret_conn = c;
	return 0;
}
