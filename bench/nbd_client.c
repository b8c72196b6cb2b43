/* nbd client: see nbd_client.h, and the NBD specification (proto.md): fixed newstyle, OPT_GO.
 *
 * Happy path: submit queues a request and defers the flush; the flush sends what is queued as one
 * sendmsg; replies are cut out of the receive buffer, found by the place that their cookie carries.
 *
 * Failure: whatever the server sends that is not a reply to what was asked, or the end of the
 * stream, fails everything in flight and everything that is submitted after it. */
#include "bench/nbd_client.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include "engine/attach/bytes.h"
#include "engine/attach/nbd_proto.h"
#include "engine/base/assert.h"
#include "engine/base/err.h"
#include "engine/base/types.h"
#include "net/tcp/address.h"

#define GREETING_SECONDS_MAX 10 /* for an answer while the connection is negotiated */

struct nbd_client {
	struct reactor *reactor;
	int fd;
	uint64_t size;
	bool broken;
	struct nbd_op *queue, *queue_tail; /* not sent yet */
	struct nbd_op *places[NBD_CLIENT_DEPTH_MAX];
	uint32_t free_places[NBD_CLIENT_DEPTH_MAX], free_count;
	struct reactor_task flush;
	struct reactor_io tx_io, rx_io;
	bool tx_busy, rx_busy;
	uint64_t tx_size;
	struct msghdr msg;
	struct iovec iov[NBD_CLIENT_IOV_MAX];
	struct nbd_op *reading; /* its payload is arriving */
	uint32_t reading_have;
	uint32_t head, tail;
	uint8_t *rx;
};

/* -- connecting -------------------------------------------------------------------------------- */

static int dial_unix(const char *path, size_t size, int *ret_fd)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	int fd;

	if (size == 0 || size >= sizeof a.sun_path)
		return -EINVAL;
	memcpy(a.sun_path, path, size);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -errno;
	if (connect(fd, (struct sockaddr *)&a, sizeof a) != 0) {
		const int rc = -errno;

		close(fd);
		return rc;
	}
	*ret_fd = fd;
	return 0;
}

static int dial_tcp(const char *text, size_t size, bool insecure, int *ret_fd)
{
	struct address a;
	char buf[ADDR_SIZE_MAX];
	const int one = 1;
	int fd;

	if (size >= sizeof buf)
		return -EINVAL;
	snprintf(buf, sizeof buf, "%.*s%s", (int)size, text,
		 memchr(text, ':', size) == NULL ? ":10809" : "");
	if (address_parse(buf, &a) != 0)
		return -EINVAL;
	if (!insecure && !address_is_loopback(&a))
		return -EACCES;
	fd = socket(a.storage.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -errno;
	if (connect(fd, (struct sockaddr *)&a.storage, a.size) != 0) {
		const int rc = -errno;

		close(fd);
		return rc;
	}
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
	*ret_fd = fd;
	return 0;
}

/* nbd+unix:///NAME?socket=PATH, nbd://HOST:PORT/NAME. *ret_name, of *ret_name_size, lies in uri. */
static int dial(const char *uri, bool insecure, const char **ret_name, size_t *ret_name_size,
		int *ret_fd)
{
	static const char unix_scheme[] = "nbd+unix:///", tcp_scheme[] = "nbd://";
	const char *at;

	if (strncmp(uri, unix_scheme, strlen(unix_scheme)) == 0) {
		const char *socket = strstr(uri, "?socket=");

		if (socket == NULL)
			return -EINVAL;
		*ret_name = uri + strlen(unix_scheme);
		*ret_name_size = (size_t)(socket - *ret_name);
		socket += strlen("?socket=");
		return dial_unix(socket, strcspn(socket, "&"), ret_fd);
	}
	if (strncmp(uri, tcp_scheme, strlen(tcp_scheme)) != 0)
		return -EINVAL;
	at = uri + strlen(tcp_scheme);
	*ret_name = at + strcspn(at, "/");
	*ret_name += **ret_name == '/';
	*ret_name_size = strlen(*ret_name);
	return dial_tcp(at, strcspn(at, "/"), insecure, ret_fd);
}

/* -- negotiating ------------------------------------------------------------------------------- */

static int read_all(int fd, void *buf, size_t size)
{
	for (size_t have = 0; have < size;) {
		const ssize_t n = recv(fd, (char *)buf + have, size - have, 0);

		if (n == 0)
			return -E_DISCONNECTED;
		if (n < 0 && errno != EINTR)
			return errno == EAGAIN ? -ETIMEDOUT : -errno;
		have += n > 0 ? (size_t)n : 0;
	}
	return 0;
}

static int write_all(int fd, const void *buf, size_t size)
{
	for (size_t sent = 0; sent < size;) {
		const ssize_t n = send(fd, (const char *)buf + sent, size - sent, MSG_NOSIGNAL);

		if (n < 0 && errno != EINTR)
			return -errno;
		sent += n > 0 ? (size_t)n : 0;
	}
	return 0;
}

/* 0: for ever. */
static void set_patience(int fd, time_t seconds)
{
	const struct timeval t = {.tv_sec = seconds};

	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &t, sizeof t);
}

static int greet(int fd, const char *name, size_t name_size)
{
	uint8_t buf[18 + 16 + 4 + 4096 + 2], *p;
	int rc = read_all(fd, buf, 18);

	if (rc != 0)
		return rc;
	if (get_be64(buf) != NBD_MAGIC_INIT || get_be64(buf + 8) != NBD_MAGIC_OPTION ||
	    (get_be16(buf + 16) & NBD_FLAG_FIXED_NEWSTYLE) == 0 || name_size > 4096)
		return -EPROTO;
	p = put_be32(buf, NBD_FLAG_FIXED_NEWSTYLE | (get_be16(buf + 16) & NBD_FLAG_NO_ZEROES));
	p = put_be64(p, NBD_MAGIC_OPTION);
	p = put_be32(p, NBD_OPT_GO);
	p = put_be32(p, (uint32_t)name_size + 6);
	p = put_be32(p, (uint32_t)name_size);
	memcpy(p, name, name_size);
	p = put_be16(p + name_size, 0);
	return write_all(fd, buf, (size_t)(p - buf));
}

/* The replies to GO, up to its ACK. */
static int take_export(int fd, uint64_t *ret_size, uint16_t *ret_flags)
{
	uint8_t head[20], body[4096];
	bool known = false;

	for (;;) {
		uint32_t type, size;
		int rc = read_all(fd, head, sizeof head);

		if (rc != 0)
			return rc;
		type = get_be32(head + 12);
		size = get_be32(head + 16);
		if (get_be64(head) != NBD_MAGIC_OPT_REPLY || size > sizeof body)
			return -EPROTO;
		rc = read_all(fd, body, size);
		if (rc != 0)
			return rc;
		if (type == NBD_REP_ACK)
			return known ? 0 : -EPROTO;
		if (type == NBD_REP_ERR_UNKNOWN)
			return -ENOENT;
		if (type != NBD_REP_INFO)
			return -EPROTO;
		if (size == 12 && get_be16(body) == NBD_INFO_EXPORT) {
			*ret_size = get_be64(body + 2);
			*ret_flags = get_be16(body + 10);
			known = true;
		}
	}
}

/* -- requests ---------------------------------------------------------------------------------- */

static void fail_all(struct nbd_client *c)
{
	c->broken = true;
	shutdown(c->fd, SHUT_RDWR);
	if (c->tx_busy) /* its payloads are lent still */
		return;
	c->queue = c->queue_tail = NULL;
	c->reading = NULL;
	for (uint32_t i = 0; i < NBD_CLIENT_DEPTH_MAX; i++) {
		struct nbd_op *op = c->places[i];

		if (op == NULL)
			continue;
		c->places[i] = NULL;
		c->free_places[c->free_count++] = i;
		op->done(op, -E_DISCONNECTED);
	}
}

static void send_queue(struct nbd_client *c)
{
	uint32_t n = 0;

	c->tx_size = 0;
	while (c->queue != NULL && n + 2 <= NBD_CLIENT_IOV_MAX) {
		struct nbd_op *op = c->queue;

		c->queue = op->next;
		c->iov[n++] = (struct iovec){op->header, sizeof op->header};
		c->tx_size += sizeof op->header;
		if (op->write) {
			c->iov[n++] = (struct iovec){op->data, op->size};
			c->tx_size += op->size;
		}
	}
	if (n == 0)
		return;
	c->msg = (struct msghdr){.msg_iov = c->iov, .msg_iovlen = n};
	c->tx_busy = true;
	reactor_io_sendmsg(c->reactor, &c->tx_io, c->fd, &c->msg);
}

static void flush(struct reactor_task *task)
{
	struct nbd_client *c = container_of(task, struct nbd_client, flush);

	if (c->broken)
		fail_all(c);
	else if (!c->tx_busy)
		send_queue(c);
}

static void tx_done(struct reactor_io *io, int32_t result)
{
	struct nbd_client *c = container_of(io, struct nbd_client, tx_io);

	c->tx_busy = false;
	if (c->broken || result < 0 || (uint64_t)result != c->tx_size)
		fail_all(c);
	else
		send_queue(c);
}

void nbd_client_submit(struct nbd_client *c, struct nbd_op *op)
{
	uint8_t *p;

	PRE(c->free_count > 0);
	op->place = c->free_places[--c->free_count];
	c->places[op->place] = op;
	op->next = NULL;
	p = put_be32(op->header, NBD_MAGIC_REQUEST);
	p = put_be16(p, 0);
	p = put_be16(p, op->write ? NBD_CMD_WRITE : NBD_CMD_READ);
	p = put_be64(p, op->place);
	p = put_be64(p, op->offset);
	put_be32(p, op->size);
	if (c->queue == NULL)
		c->queue = op;
	else
		c->queue_tail->next = op;
	c->queue_tail = op;
	reactor_defer(c->reactor, &c->flush);
}

/* -- replies ----------------------------------------------------------------------------------- */

static void complete(struct nbd_client *c, struct nbd_op *op, int status)
{
	c->places[op->place] = NULL;
	c->free_places[c->free_count++] = op->place;
	op->done(op, status);
}

/* False: more must arrive, or the connection is broken. */
static bool take_payload(struct nbd_client *c)
{
	struct nbd_op *op = c->reading;
	const uint32_t n = MIN(c->tail - c->head, op->size - c->reading_have);

	memcpy(op->data + c->reading_have, c->rx + c->head, n);
	c->head += n;
	c->reading_have += n;
	if (c->reading_have < op->size)
		return false;
	c->reading = NULL;
	complete(c, op, 0);
	return true;
}

static bool take_reply(struct nbd_client *c)
{
	const uint8_t *p = c->rx + c->head;
	struct nbd_op *op;
	uint32_t error;
	uint64_t place;

	if (c->reading != NULL)
		return take_payload(c);
	if (c->tail - c->head < 16)
		return false;
	error = get_be32(p + 4);
	place = get_be64(p + 8);
	op = place < NBD_CLIENT_DEPTH_MAX ? c->places[place] : NULL;
	if (get_be32(p) != NBD_MAGIC_SIMPLE || op == NULL) {
		fail_all(c);
		return false;
	}
	c->head += 16;
	if (error == 0 && !op->write) {
		c->reading = op;
		c->reading_have = 0;
		return true;
	}
	complete(c, op, -(int)error); /* the protocol's numbers are Linux's, where it has them */
	return true;
}

static void receive(struct nbd_client *c)
{
	memmove(c->rx, c->rx + c->head, c->tail - c->head);
	c->tail -= c->head;
	c->head = 0;
	c->rx_busy = true;
	reactor_io_recv(c->reactor, &c->rx_io, c->fd, c->rx + c->tail,
			NBD_CLIENT_RX_SIZE - c->tail);
}

static void rx_done(struct reactor_io *io, int32_t result)
{
	struct nbd_client *c = container_of(io, struct nbd_client, rx_io);

	c->rx_busy = false;
	if (result <= 0) {
		fail_all(c);
		return;
	}
	c->tail += (uint32_t)result;
	while (!c->broken && take_reply(c))
		;
	if (!c->broken)
		receive(c);
}

/* -- life -------------------------------------------------------------------------------------- */

int nbd_client_open(struct reactor *r, const char *uri, bool insecure, struct nbd_client **ret,
		    struct error *err)
{
	struct nbd_client *c = calloc(1, sizeof *c);
	const char *name = "";
	size_t name_size = 0;
	uint16_t flags = 0;
	int rc;

	if (c == NULL)
		return error_set(err, -ENOMEM, "no memory");
	c->fd = -1;
	c->reactor = r;
	c->rx = reactor_memory(r, NBD_CLIENT_RX_SIZE);
	rc = c->rx == NULL ? -ENOMEM : dial(uri, insecure, &name, &name_size, &c->fd);
	if (rc == 0) {
		set_patience(c->fd, GREETING_SECONDS_MAX);
		rc = greet(c->fd, name, name_size);
	}
	if (rc == 0)
		rc = take_export(c->fd, &c->size, &flags);
	if (rc == 0)
		set_patience(c->fd, 0);
	if (rc == 0 && (flags & NBD_EXPORT_READ_ONLY) != 0)
		rc = -EROFS;
	if (rc != 0) {
		if (c->fd >= 0)
			close(c->fd);
		free(c);
		return error_set(
		    err,
		    rc == -ECONNREFUSED || rc == -ENOENT || rc == -ETIMEDOUT ? -E_UNREACHABLE : rc,
		    "%.512s: %s; as nbd+unix:///NAME?socket=PATH or "
		    "nbd://HOST:PORT/NAME, on the loopback unless --insecure",
		    uri, err_text(rc));
	}
	for (uint32_t i = 0; i < NBD_CLIENT_DEPTH_MAX; i++)
		c->free_places[i] = NBD_CLIENT_DEPTH_MAX - 1 - i;
	c->free_count = NBD_CLIENT_DEPTH_MAX;
	c->flush.run = flush;
	c->tx_io.done = tx_done;
	c->rx_io.done = rx_done;
	receive(c);
	*ret = c;
	return 0;
}

uint64_t nbd_client_size(const struct nbd_client *c)
{
	return c->size;
}

static void send_disconnect(struct nbd_client *c)
{
	uint8_t header[28] = {0};
	uint8_t *p = put_be32(header, NBD_MAGIC_REQUEST);

	put_be16(p + 2, NBD_CMD_DISC);
	write_all(c->fd, header, sizeof header);
}

void nbd_client_close(struct nbd_client *c)
{
	PRE(c->free_count == NBD_CLIENT_DEPTH_MAX);
	if (!c->broken)
		send_disconnect(c);
	/* The receive that is in flight ends with the process: the ring goes first. */
	shutdown(c->fd, SHUT_RDWR);
}
