/* The NBD server: serves one attached volume to hypervisors and tools, over a unix socket or TCP.
 *
 * Fixed newstyle; OPT_EXPORT_NAME, ABORT, LIST, INFO, GO, STRUCTURED_REPLY, LIST/SET_META_CONTEXT
 * (base:allocation); READ, WRITE, FLUSH, TRIM, WRITE_ZEROES, BLOCK_STATUS; FUA, DF, multi-conn.
 * A connection is told the volume's size when it is negotiated; what a volume that grows gets after
 * that it may use all the same. Requests that cover parts of blocks are done by read-modify-write
 * under a range lock.
 *
 * Thread: the reactor's. */
#ifndef ATTACH_NBD_H
#define ATTACH_NBD_H

#include "engine/base/error.h"
#include "engine/volume/volume.h"

#define NBD_CONNECTIONS_MAX 64u	 /* one more takes the place of one that negotiates, if any does */
#define NBD_INFLIGHT_MAX    256u /* requests of one connection; the next is read when one is done */
#define NBD_PARTS_MAX	    2048u /* volume operations of all connections */
#define NBD_READ_BYTES_MAX                                                                         \
	(32u << 20) /* of one connection, asked for and not yet taken: others need buffers, too */

struct nbd_server;

struct nbd_config {
	struct reactor *reactor;
	const char *export_name; /* the volume's name; the empty name means it too */
	const char *address;	 /* "unix:PATH" or "HOST:PORT" (loopback, unless insecure) */
	bool insecure;
};

/* Listens; clients that come now wait. So the address is known to be free before the volume is
 * attached, which would fence whoever serves it there. -EADDRINUSE (somebody answers on the
 * socket, or it is a file of another kind), -EACCES, -EINVAL; the text names the address and the
 * way out. A unix socket that nobody answers on is replaced. */
int nbd_listen(const struct nbd_config *config, struct nbd_server **ret_server, struct error *err);

/* Serves the volume, which is lent until the server has stopped. Once. */
void nbd_serve(struct nbd_server *server, struct volume *volume);

/* "nbd+unix:///NAME?socket=PATH" or "nbd://HOST:PORT/NAME". */
const char *nbd_uri(const struct nbd_server *server);

/* No new connections and requests; what is in flight is answered; then the connections end. Then
 * the server is gone; done once, never inline. */
void nbd_stop(struct nbd_server *server, void (*done)(void *arg), void *arg);

struct nbd_stats {
	uint64_t connections, requests, bytes_read, bytes_written, rmw, recv_calls, send_calls;
};
void nbd_get_stats(const struct nbd_server *server, struct nbd_stats *ret_stats);

#endif
