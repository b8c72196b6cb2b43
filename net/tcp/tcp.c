/* tcp: the transport on TCP: its operations, and its listeners. The contract is net/transport.h;
 * the connection is conn.c, rx.c and tx.c.
 *
 * INVARIANTS
 *  1. A listener has one accept in flight, or its retry timer armed, or is passing on a connection.
 *     Its descriptor is closed when no accept refers to it, prepared ones included.
 *  2. The transport's memory lives as long as a listener that is ending.
 *
 * Failure modes: an accept that fails for want of memory or descriptors is tried again after
 * TCP_ACCEPT_RETRY_MS; a connection over TCP_CONNS_MAX is closed as soon as it is accepted. */
#include <errno.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "engine/base/assert.h"
#include "engine/base/log.h"
#include "net/tcp/conn.h"

struct listener {
	struct transport_listener head;
	void (*accepted)(struct transport_conn *conn, void *arg);
	void *arg;
	int fd;
	bool ending;
	bool accepting; /* io is in flight */
	bool taking;	/* accepted is running */
	struct reactor_io io;
	struct reactor_timer retry;
};

static struct tcp *tcp_of(struct transport *head)
{
	return container_of(head, struct tcp, head);
}

static void tcp_free_if_unused(struct tcp *t)
{
	if (t->destroyed && t->listener_count == 0)
		free(t);
}

static void listener_free(struct listener *l)
{
	struct tcp *t = tcp_of(l->head.transport);

	INVARIANT(!l->accepting && t->listener_count > 0);
	t->listener_count--;
	close(l->fd);
	free(l);
	tcp_free_if_unused(t);
}

static void listener_accept(struct listener *l)
{
	INVARIANT(!l->accepting && !l->ending);
	l->accepting = true;
	reactor_io_accept(l->head.transport->reactor, &l->io, l->fd);
}

static void listener_take(struct listener *l, int fd)
{
	struct tcp *t = tcp_of(l->head.transport);
	struct conn *c;
	int rc = conn_accept(t, fd, &c);

	if (rc != 0) {
		if (!t->full_reported)
			log_warn("tcp", "%s: a connection was refused: %s (%u are open, of %u)",
				 l->head.address, err_text(rc), t->conn_count, TCP_CONNS_MAX);
		t->full_reported = true;
		return;
	}
	l->taking = true;
	l->accepted(&c->head, l->arg);
	l->taking = false;
	PRE(c->head.handler != NULL);
	conn_start(c);
}

static void accept_done(struct reactor_io *io, int32_t result)
{
	struct listener *l = container_of(io, struct listener, io);
	struct reactor *r = l->head.transport->reactor;

	l->accepting = false;
	if (l->ending) {
		if (result >= 0)
			close(result);
		listener_free(l);
		return;
	}
	if (result >= 0)
		listener_take(l, result);
	if (l->ending) { /* by its owner, in accepted */
		listener_free(l);
	} else if (result >= 0 || result == -ECONNABORTED || result == -EINTR) {
		listener_accept(l);
	} else {
		log_error("tcp", "%s: accept: %s; trying again", l->head.address, err_text(result));
		reactor_timer_arm(r, &l->retry,
				  reactor_now_ns(r) + TCP_ACCEPT_RETRY_MS * NS_PER_MS);
	}
}

static void accept_retry(struct reactor_timer *timer)
{
	listener_accept(container_of(timer, struct listener, retry));
}

/* A socket that listens at *address, which is then the one with the true port. Or a negative errno.
 */
static int listen_socket(struct address *address)
{
	int fd, rc;

	fd = socket(address->storage.ss_family, SOCK_STREAM | SOCK_CLOEXEC, IPPROTO_TCP);
	if (fd < 0)
		return -errno;
	conn_choose_congestion(fd, address); /* which those that are accepted inherit */
	rc = address_listen(address, fd, TCP_BACKLOG);
	if (rc != 0) {
		close(fd);
		return rc;
	}
	return fd;
}

static int listen_error(int code, const char *text, struct error *err)
{
	switch (-code) {
	case EADDRINUSE:
		return error_set(err, code,
				 "cannot listen on %s: it is in use by another process; stop that, "
				 "or give another port",
				 text);
	case EINVAL:
		return error_set(err, code,
				 "\"%s\" is not an address to listen on: give a numeric HOST:PORT "
				 "with a port up to 65535, as 127.0.0.1:7400 or [::1]:7400",
				 text);
	default:
		return error_set(err, code, "cannot listen on %s: %s", text, err_text(code));
	}
}

static int tcp_listen(struct transport *head, const char *text,
		      void (*accepted)(struct transport_conn *conn, void *arg), void *arg,
		      struct transport_listener **ret_listener, struct error *err)
{
	struct tcp *t = tcp_of(head);
	struct address address;
	struct listener *l;
	int fd;

	PRE(accepted != NULL);
	if (address_parse_offered(text, &address) != 0)
		return listen_error(-EINVAL, text, err);
	if (!t->insecure && !address_is_loopback(&address))
		return error_set(err, -EACCES,
				 "%s is not a loopback address, and without TLS nobody else may "
				 "connect; listen on 127.0.0.1 or give --insecure",
				 text);
	fd = listen_socket(&address);
	if (fd < 0)
		return listen_error(fd, text, err);
	l = calloc(1, sizeof(*l));
	if (l == NULL) {
		close(fd);
		return listen_error(-ENOMEM, text, err);
	}
	l->head.transport = head;
	address_format(&address, l->head.address, sizeof(l->head.address));
	l->accepted = accepted;
	l->arg = arg;
	l->fd = fd;
	l->io.done = accept_done;
	l->retry.fire = accept_retry;
	t->listener_count++;
	listener_accept(l);
	*ret_listener = &l->head;
	return 0;
}

static void tcp_unlisten(struct transport_listener *head)
{
	struct listener *l = container_of(head, struct listener, head);
	struct reactor *r = head->transport->reactor;

	PRE(!l->ending);
	l->ending = true;
	reactor_timer_cancel(r, &l->retry);
	if (l->accepting)
		reactor_io_cancel(r, &l->io);
	else if (!l->taking)
		listener_free(l); /* otherwise accept_done, which is at work, does it */
}

static int tcp_connect(struct transport *head, const char *text, const struct transport_handler *h,
		       void *arg, struct transport_conn **ret_conn)
{
	struct tcp *t = tcp_of(head);
	struct address address;
	struct conn *c;
	int rc;

	PRE(h != NULL && h->rx != NULL && h->closed != NULL);
	if (address_parse_offered(text, &address) != 0 || address_port(&address) == 0)
		return -EINVAL;
	if (!t->insecure && !address_is_loopback(&address))
		return -EACCES;
	rc = conn_connect(t, &address, &c);
	if (rc != 0)
		return rc;
	c->head.handler = h;
	c->head.arg = arg;
	*ret_conn = &c->head;
	return 0;
}

static void tcp_send(struct transport_conn *head, struct transport_send *s)
{
	tx_send(conn_of(head), s);
}

static void tcp_close(struct transport_conn *head)
{
	conn_end(conn_of(head), 0);
}

static void tcp_destroy(struct transport *head)
{
	struct tcp *t = tcp_of(head);

	PRE(t->conn_count == 0 && !t->destroyed);
	t->destroyed = true;
	tcp_free_if_unused(t);
}

static const struct transport_ops tcp_ops = {
    .name = "tcp",
    .connect = tcp_connect,
    .listen = tcp_listen,
    .unlisten = tcp_unlisten,
    .send = tcp_send,
    .close = tcp_close,
    .destroy = tcp_destroy,
};

int transport_tcp_create(struct reactor *r, bool insecure, struct transport **ret_transport)
{
	struct tcp *t = calloc(1, sizeof(*t));

	if (t == NULL)
		return -ENOMEM;
	t->head.ops = &tcp_ops;
	t->head.reactor = r;
	t->insecure = insecure;
	*ret_transport = &t->head;
	return 0;
}
