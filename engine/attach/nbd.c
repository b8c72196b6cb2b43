/* The NBD server's connections: bytes in, parsed; answers out, those of one turn in one send.
 *
 * Happy path of a connection:
 *   RX_FLAGS -> RX_OPTION ... (GO) -> RX_REQUEST -> [RX_PAYLOAD] -> RX_REQUEST ... -> DISC or end
 * of stream: RX_END Invariants:
 *  1. One recv and one sendmsg are in flight at most.
 *  2. A connection is freed when no I/O of it is in flight and no request: conn_maybe_free is
 * called where either may have become true.
 *  3. What cannot go on for lack of room is not read from the socket: the client feels it (I8).
 * Failure: a peer that sends what cannot be parsed, or goes away, is `broken`: its requests run to
 * their end, their answers are dropped. */
#include "engine/attach/nbd.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <utlist.h>

#include "engine/attach/bytes.h"
#include "engine/attach/nbd_private.h"
#include "engine/base/assert.h"
#include "engine/base/log.h"
#include "net/tcp/address.h"

static void conn_recv(struct nbd_conn *c);

/* -- the end of a connection ----------------------------------------------------------------- */

void conn_fail(struct nbd_conn *c, const char *why)
{
	if (c->broken)
		return;
	log_info("nbd", "connection ended: %s", why);
	c->broken = true;
	c->rx_state = RX_END;
	shutdown(c->fd, SHUT_RDWR);
}

void server_maybe_stopped(struct nbd_server *s)
{
	if (s->stopping && s->conns == NULL && !s->accepting && !s->room_asked &&
	    !s->own_room.queued && !s->stop_task.queued)
		reactor_defer(s->config.reactor, &s->stop_task);
}

static void drop_answers(struct nbd_conn *c)
{
	for (struct nbd_request *r = c->ready, *next; r != NULL; r = next) {
		next = r->next;
		request_put(r);
	}
	c->ready = c->ready_last = NULL;
	c->out_size = 0;
}

void conn_maybe_free(struct nbd_conn *c)
{
	struct nbd_server *s = c->server;

	if (c->rx_state != RX_END)
		return;
	if (c->payload_request != NULL) {
		struct nbd_request *r = c->payload_request;
		struct nbd_part *p = c->payload_part;

		if (c->recv_busy && c->recv_direct)
			return;
		c->payload_request = NULL;
		c->payload_part = NULL;
		request_payload_lost(r, p);
	}
	if (c->broken && !c->send_busy)
		drop_answers(c);
	if (c->recv_busy || c->send_busy || c->inflight > 0 || c->out_size > 0 || c->flush.queued)
		return;
	reactor_timer_cancel(s->config.reactor, &c->drain);
	DL_DELETE(s->conns, c);
	s->conn_count--;
	close(c->fd);
	free(c->in);
	free(c);
	server_maybe_stopped(s);
}

/* The peer takes no more answers, or sends nothing more, although it was told that this ends. */
static void drain_over(struct reactor_timer *t)
{
	struct nbd_conn *c = container_of(t, struct nbd_conn, drain);

	conn_fail(c, "the client did not take its answers while the server stops");
	conn_maybe_free(c);
}

/* -- out ------------------------------------------------------------------------------------ */

static void send_next(struct nbd_conn *c)
{
	uint32_t n = 0;

	if (c->send_busy)
		return;
	if (c->broken) {
		drop_answers(c);
		return;
	}
	if (c->out_size > 0)
		c->iov[n++] = (struct iovec){c->out, c->out_size};
	while (c->ready != NULL) {
		struct nbd_request *r = c->ready;
		uint32_t used = request_reply_iov(r, c->iov + n, SEND_IOV_MAX - n);

		if (used == 0)
			break;
		n += used;
		c->ready = r->next;
		r->next = c->sending;
		c->sending = r;
	}
	if (c->ready == NULL)
		c->ready_last = NULL;
	if (n == 0)
		return;
	c->send_size = 0;
	for (uint32_t i = 0; i < n; i++)
		c->send_size += (uint32_t)c->iov[i].iov_len;
	c->msg = (struct msghdr){.msg_iov = c->iov, .msg_iovlen = n};
	c->send_busy = true;
	c->server->stats.send_calls++;
	reactor_io_sendmsg(c->server->config.reactor, &c->send_io, c->fd, &c->msg);
}

static void send_done(struct reactor_io *io, int32_t result)
{
	struct nbd_conn *c = container_of(io, struct nbd_conn, send_io);

	c->send_busy = false;
	c->out_size = 0;
	for (struct nbd_request *r = c->sending, *next; r != NULL; r = next) {
		next = r->next;
		request_put(r);
	}
	c->sending = NULL;
	if (result < 0 || (uint32_t)result != c->send_size)
		conn_fail(c, "the client is gone");
	send_next(c);
	conn_resume(c);
}

static void flush_task(struct reactor_task *t)
{
	struct nbd_conn *c = container_of(t, struct nbd_conn, flush);

	send_next(c);
	conn_maybe_free(c);
}

void conn_flush_later(struct nbd_conn *c)
{
	reactor_defer(c->server->config.reactor, &c->flush);
}

/* -- in ------------------------------------------------------------------------------------- */

static uint32_t in_bytes(const struct nbd_conn *c)
{
	return c->in_tail - c->in_head;
}

static bool parse_flags(struct nbd_conn *c)
{
	uint32_t flags;

	if (in_bytes(c) < 4)
		return false;
	flags = get_be32(c->in + c->in_head);
	c->in_head += 4;
	if ((flags & NBD_FLAG_FIXED_NEWSTYLE) == 0 ||
	    (flags & ~(NBD_FLAG_FIXED_NEWSTYLE | NBD_FLAG_NO_ZEROES)) != 0) {
		conn_fail(c, "the client does not speak fixed newstyle NBD");
		return false;
	}
	c->no_zeroes = (flags & NBD_FLAG_NO_ZEROES) != 0;
	c->rx_state = RX_OPTION;
	return true;
}

static bool parse_option(struct nbd_conn *c)
{
	const uint8_t *p = c->in + c->in_head;
	uint32_t option, size;

	if (c->send_busy || c->out_size > 0) {
		c->blocked = true;
		return false;
	}
	if (in_bytes(c) < 16)
		return false;
	if (get_be64(p) != NBD_MAGIC_OPTION) {
		conn_fail(c, "an option without its magic number");
		return false;
	}
	option = get_be32(p + 8);
	size = get_be32(p + 12);
	if (size > NBD_OPTION_SIZE_MAX) {
		c->in_head += 16;
		c->skip = size;
		c->rx_state = RX_SKIP;
		c->after_skip = RX_OPTION;
		negotiate_too_big(c, option);
		conn_flush_later(c);
		return true;
	}
	if (in_bytes(c) < 16 + size)
		return false;
	if (!negotiate_option(c, option, p + 16, size))
		return false;
	c->in_head += 16 + size;
	conn_flush_later(c);
	return true;
}

static bool parse_request(struct nbd_conn *c)
{
	struct nbd_server *s = c->server;
	struct nbd_limits limits = {
	    .size = volume_size(s->volume),
	    .read_only = volume_read_only(s->volume),
	    .structured = c->structured,
	    .context = c->context,
	};
	struct nbd_request_header q;
	struct nbd_request *r;
	const char *text = NULL;

	if (in_bytes(c) < NBD_REQUEST_SIZE)
		return false;
	if (!nbd_decode_request(c->in + c->in_head, &q)) {
		conn_fail(c, "a request without its magic number");
		return false;
	}
	if (q.command == NBD_CMD_DISC) {
		c->rx_state = RX_END;
		return false;
	}
	r = request_get(c, &q);
	if (r == NULL) {
		c->blocked = true;
		return false;
	}
	c->in_head += NBD_REQUEST_SIZE;
	r->error = nbd_check_request(&q, &limits, &text);
	r->text = text;
	if (r->error != 0) {
		r->complete = true;
		if (q.command == NBD_CMD_WRITE) {
			c->skip = q.length;
			c->rx_state = RX_SKIP;
			c->after_skip = RX_REQUEST;
		}
		request_finish_if_done(r);
	} else if (q.command == NBD_CMD_WRITE) {
		c->payload_request = r;
		c->rx_state = RX_PAYLOAD;
	} else {
		request_start(r);
	}
	return true;
}

static void payload_progress(struct nbd_conn *c)
{
	struct nbd_part *p = c->payload_part;

	if (c->payload_filled < p->size)
		return;
	c->payload_part = NULL;
	if (c->payload_request->issued == c->payload_request->q.length) {
		c->payload_request = NULL;
		c->rx_state = RX_REQUEST;
	}
	request_payload_done(p);
}

static bool parse_payload(struct nbd_conn *c)
{
	uint32_t n;

	if (c->payload_part == NULL) {
		c->payload_part = request_next_payload(c->payload_request);
		c->payload_filled = 0;
		if (c->payload_part == NULL) {
			c->blocked = true;
			return false;
		}
	}
	n = MIN(in_bytes(c), c->payload_part->size - c->payload_filled);
	if (n == 0)
		return false;
	memcpy(part_payload(c->payload_part) + c->payload_filled, c->in + c->in_head, n);
	c->in_head += n;
	c->payload_filled += n;
	payload_progress(c);
	return true;
}

static bool parse_skip(struct nbd_conn *c)
{
	uint32_t n = (uint32_t)MIN(c->skip, in_bytes(c));

	c->in_head += n;
	c->skip -= n;
	if (c->skip > 0)
		return false;
	c->rx_state = c->after_skip;
	return true;
}

static bool parse_one(struct nbd_conn *c)
{
	switch (c->rx_state) {
	case RX_FLAGS:
		return parse_flags(c);
	case RX_OPTION:
		return parse_option(c);
	case RX_REQUEST:
		return parse_request(c);
	case RX_PAYLOAD:
		return parse_payload(c);
	case RX_SKIP:
		return parse_skip(c);
	case RX_END:
		break;
	}
	return false;
}

void conn_resume(struct nbd_conn *c)
{
	if (c->recv_busy || c->rx_state == RX_END) {
		conn_maybe_free(c);
		return;
	}
	c->blocked = false;
	while (parse_one(c))
		;
	if (!c->blocked && c->rx_state != RX_END)
		conn_recv(c);
	conn_maybe_free(c);
}

static void conn_recv(struct nbd_conn *c)
{
	struct reactor *r = c->server->config.reactor;
	struct nbd_part *p = c->payload_part;

	c->recv_busy = true;
	c->server->stats.recv_calls++;
	c->recv_direct = p != NULL && p->size - c->payload_filled >= DIRECT_MIN;
	if (c->recv_direct) {
		INVARIANT(in_bytes(c) == 0);
		reactor_io_recv(r, &c->recv_io, c->fd, part_payload(p) + c->payload_filled,
				p->size - c->payload_filled);
		return;
	}
	if (c->in_head > 0) {
		memmove(c->in, c->in + c->in_head, in_bytes(c));
		c->in_tail -= c->in_head;
		c->in_head = 0;
	}
	reactor_io_recv(r, &c->recv_io, c->fd, c->in + c->in_tail, IN_SIZE - c->in_tail);
}

static void recv_done(struct reactor_io *io, int32_t result)
{
	struct nbd_conn *c = container_of(io, struct nbd_conn, recv_io);

	c->recv_busy = false;
	if (result <= 0) {
		/* The end of the stream between requests is how some clients say goodbye: what is
		 * in flight is answered, as when it is we who end it. In the middle of one it is
		 * not: nothing else would end what is being sent to who takes nothing. */
		if (result < 0 ||
		    (!c->server->stopping && (c->rx_state == RX_PAYLOAD || in_bytes(c) > 0)))
			conn_fail(c, "the client is gone");
		c->rx_state = RX_END;
		conn_maybe_free(c);
		return;
	}
	if (c->rx_state == RX_END) {
		conn_maybe_free(c);
		return;
	}
	if (c->recv_direct) {
		c->payload_filled += (uint32_t)result;
		payload_progress(c);
	} else {
		c->in_tail += (uint32_t)result;
	}
	conn_resume(c);
}

/* -- new connections ------------------------------------------------------------------------ */

/* Who has not said yet what it wants, or NULL. */
static struct nbd_conn *find_negotiating(struct nbd_server *s)
{
	struct nbd_conn *c;

	DL_FOREACH (s->conns, c) {
		const enum rx_state state = c->rx_state == RX_SKIP ? c->after_skip : c->rx_state;

		if (state == RX_FLAGS || state == RX_OPTION)
			break;
	}
	return c;
}

/* At the limit one that negotiates gives way: it would not have to be heard of ever again. Until it
 * is gone there is one more than the limit, and no other comes. */
static bool has_place(struct nbd_server *s)
{
	struct nbd_conn *negotiating;

	if (s->conn_count != NBD_CONNECTIONS_MAX)
		return s->conn_count < NBD_CONNECTIONS_MAX;
	negotiating = find_negotiating(s);
	if (negotiating != NULL)
		conn_fail(negotiating, "all places are taken, and it had not chosen an export");
	return negotiating != NULL;
}

/* They fail on a unix socket, where they aren't needed. A client whose machine dies says nothing of
 * it: without keep-alive it would have its place for ever. While answers are on the way to it the
 * kernel asks nothing: it sends them again for a quarter of an hour, or, to a client that is there
 * and does not take them, waits for ever, and others need the buffers in which they lie. So there
 * is one time for all of that, which takes the place of a number of questions (tcp(7)). */
static void set_options(int fd)
{
	static const struct {
		int level, option, value;
	} options[] = {
	    {IPPROTO_TCP, TCP_NODELAY, 1},
	    {SOL_SOCKET, SO_KEEPALIVE, 1},
	    {IPPROTO_TCP, TCP_KEEPIDLE, KEEPALIVE_IDLE_S},
	    {IPPROTO_TCP, TCP_KEEPINTVL, KEEPALIVE_PERIOD_S},
	    {IPPROTO_TCP, TCP_USER_TIMEOUT, DEAD_CLIENT_MS},
	};

	for (size_t i = 0; i < ARRAY_SIZE(options); i++)
		setsockopt(fd, options[i].level, options[i].option, &options[i].value,
			   sizeof options[i].value);
}

static void conn_create(struct nbd_server *s, int fd)
{
	struct nbd_conn *c = calloc(1, sizeof *c);
	uint8_t *in = malloc(IN_SIZE);
	uint8_t *p;

	if (c == NULL || in == NULL || !has_place(s)) {
		log_warn("nbd", "connection refused: %u are open (the limit is %u) or no memory",
			 s->conn_count, NBD_CONNECTIONS_MAX);
		free(c);
		free(in);
		close(fd);
		return;
	}
	set_options(fd);
	c->server = s;
	c->fd = fd;
	c->in = in;
	c->recv_io.done = recv_done;
	c->send_io.done = send_done;
	c->flush.run = flush_task;
	c->drain.fire = drain_over;
	for (uint32_t i = 0; i < NBD_INFLIGHT_MAX; i++) {
		c->requests[i].next = c->free_requests;
		c->free_requests = &c->requests[i];
	}
	DL_APPEND(s->conns, c);
	s->conn_count++;
	s->stats.connections++;
	p = put_be64(c->out, NBD_MAGIC_INIT);
	p = put_be64(p, NBD_MAGIC_OPTION);
	put_be16(p, NBD_FLAG_FIXED_NEWSTYLE | NBD_FLAG_NO_ZEROES);
	c->out_size = 18;
	send_next(c);
	conn_recv(c);
}

static void accept_next(struct nbd_server *s)
{
	s->accepting = true;
	reactor_io_accept(s->config.reactor, &s->accept_io, s->fd);
}

static void accept_done(struct reactor_io *io, int32_t result)
{
	struct nbd_server *s = container_of(io, struct nbd_server, accept_io);

	s->accepting = false;
	if (s->stopping) {
		if (result >= 0)
			close(result);
		server_maybe_stopped(s);
		return;
	}
	if (result >= 0)
		conn_create(s, result);
	if (result >= 0 || result == -ECONNABORTED || result == -EINTR) {
		accept_next(s);
		return;
	}
	/* There are no descriptors left, say: at once it would be the same. */
	log_warn("nbd", "accept: %s; trying again", strerror(-result));
	reactor_timer_arm(s->config.reactor, &s->accept_timer,
			  reactor_now_ns(s->config.reactor) + ACCEPT_RETRY_NS);
}

static void accept_again(struct reactor_timer *timer)
{
	accept_next(container_of(timer, struct nbd_server, accept_timer));
}

/* -- the server ----------------------------------------------------------------------------- */

static int listen_unix(struct nbd_server *s, const char *path, struct error *err)
{
	int rc;

	if (path[0] == '\0')
		return error_set(err, -EINVAL,
				 "NBD address 'unix:': the path is missing; give unix:PATH");
	rc = unix_listen(path, 0, SOMAXCONN, UNIX_LISTEN_WAIT_MS, &s->fd, err);
	if (rc != 0)
		return rc;
	snprintf(s->unix_path, sizeof s->unix_path, "%s", path);
	snprintf(s->uri, sizeof s->uri, "nbd+unix:///%s?socket=%s", s->export_name, path);
	return 0;
}

static int listen_tcp(struct nbd_server *s, struct error *err)
{
	const char *text = s->config.address;
	struct address address;
	char real[ADDR_SIZE_MAX];
	int rc;

	if (address_parse(text, &address) != 0)
		return error_set(
		    err, -EINVAL,
		    "NBD address '%s': give unix:PATH, or HOST:PORT with a numeric host", text);
	if (!s->config.insecure && !address_is_loopback(&address))
		return error_set(err, -EACCES,
				 "NBD address %s: without TLS it is served on the loopback only; "
				 "use 127.0.0.1, a unix socket, or --insecure",
				 text);
	s->fd = socket(address.storage.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
	rc = s->fd < 0 ? -errno : address_listen(&address, s->fd, SOMAXCONN);
	if (rc != 0)
		return error_set(err, rc, "NBD address %s: %s; give another port, or 0 for any",
				 text, strerror(-rc));
	address_format(&address, real, sizeof real);
	snprintf(s->uri, sizeof s->uri, "nbd://%s/%s", real, s->export_name);
	return 0;
}

static void server_free(struct nbd_server *s)
{
	if (s->unix_path[0] != '\0')
		unix_unlisten(s->fd, s->unix_path);
	else if (s->fd >= 0)
		close(s->fd);
	free(s->parts);
	free(s);
}

int nbd_listen(const struct nbd_config *config, struct nbd_server **ret_server, struct error *err)
{
	struct nbd_server *s = calloc(1, sizeof *s);
	int rc;

	if (s == NULL)
		return error_set(err, -ENOMEM, "NBD server: no memory");
	s->config = *config;
	s->fd = -1;
	snprintf(s->export_name, sizeof s->export_name, "%s", config->export_name);
	s->room.run = server_room;
	s->own_room.run = server_own_room;
	s->accept_io.done = accept_done;
	s->accept_timer.fire = accept_again;
	s->parts = calloc(NBD_PARTS_MAX, sizeof *s->parts);
	if (s->parts == NULL) {
		rc = error_set(err, -ENOMEM, "NBD server: no memory");
		goto fail;
	}
	request_pools_init(s);
	if (strncmp(config->address, "unix:", 5) == 0)
		rc = listen_unix(s, config->address + 5, err);
	else
		rc = listen_tcp(s, err);
	if (rc != 0)
		goto fail;
	*ret_server = s;
	return 0;
fail:
	server_free(s);
	return rc;
}

void nbd_serve(struct nbd_server *server, struct volume *volume)
{
	PRE(server->volume == NULL && !server->stopping);
	server->volume = volume;
	accept_next(server);
}

const char *nbd_uri(const struct nbd_server *server)
{
	return server->uri;
}

void nbd_get_stats(const struct nbd_server *server, struct nbd_stats *ret_stats)
{
	*ret_stats = server->stats;
}

static void stop_task(struct reactor_task *t)
{
	struct nbd_server *s = container_of(t, struct nbd_server, stop_task);
	void (*done)(void *arg) = s->stopped;
	void *arg = s->stopped_arg;

	server_free(s);
	done(arg);
}

void nbd_stop(struct nbd_server *server, void (*done)(void *arg), void *arg)
{
	struct reactor *r = server->config.reactor;

	server->stopping = true;
	server->stopped = done;
	server->stopped_arg = arg;
	server->stop_task.run = stop_task;
	if (server->accepting)
		reactor_io_cancel(r, &server->accept_io);
	reactor_timer_cancel(r, &server->accept_timer);
	for (struct nbd_conn *c = server->conns, *next; c != NULL; c = next) {
		next = c->next;
		reactor_timer_arm(r, &c->drain, reactor_now_ns(r) + DRAIN_NS);
		shutdown(c->fd, SHUT_RD);
		conn_maybe_free(c);
	}
	server_maybe_stopped(server);
}
