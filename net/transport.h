/* The transport: ordered, reliable connections that carry frames (net/frame). Implementations: TCP
 * (net/tcp), RDMA (net/rdma), the simulator's (tests/sim).
 *
 * Thread: the reactor's that the transport was made on. No callback runs from inside a call of this
 * header. Frames sent on one connection arrive in the order of the calls, or the connection ends.
 * What is sent in one turn of the reactor leaves together.
 *
 * Life of a connection:
 *
 *   transport_connect -> CONNECTING -- ready(0) ----> OPEN -- closed(reason) --> gone
 *                            |                         ^
 *                            +-- closed(reason)        |
 *   listener's accepted(conn) -------------------------+
 *
 * closed runs exactly once for each connection, also after transport_close, and after the done of
 * every send; the connection is gone when it returns. */
#ifndef NET_TRANSPORT_H
#define NET_TRANSPORT_H

#include <sys/uio.h>

#include "engine/base/error.h"
#include "engine/reactor/reactor.h"
#include "net/frame/frame.h"

/* A payload above this is received straight into memory from rx_buffer, and sent from where it
 * lies. */
#define TRANSPORT_COPY_MAX 16384u
#define TRANSPORT_IOV_MAX  4u
/* Of memory that is not the reactor's: a guest has a handful. */
#define TRANSPORT_MEMORIES_MAX 64u

struct transport;
struct transport_conn;
struct transport_listener;

/* Who is at the other end. Until TLS comes (a later issue) nothing is verified and verified is
 * false. */
struct transport_peer {
	bool verified;
	char name[NAME_SIZE_MAX]; /* from the certificate; empty until then */
	char address[ADDR_SIZE_MAX];
};

struct transport_handler {
	/* Connected and ready to send. Only for connections made by transport_connect. May be NULL.
	 */
	void (*ready)(struct transport_conn *conn, void *arg);
	/* Asked before a payload over TRANSPORT_COPY_MAX is received: memory of f->payload_size
	 * bytes, aligned to BLOCK_SIZE, lent until rx or closed. NULL refuses it: the connection
	 * ends with -ENOBUFS. f has no crcs and no payload yet. */
	void *(*rx_buffer)(struct transport_conn *conn, const struct frame *f, void *arg);
	/* A frame has arrived; crcs and payload are valid until this returns (payload from
	 * rx_buffer: as long as its owner likes). Other payloads lie at any address: no alignment
	 * is promised. The payload's CRCs are not yet checked: whoever uses it does that once. */
	void (*rx)(struct transport_conn *conn, const struct frame *f, void *arg);
	/* reason: -E_DISCONNECTED, -E_BAD_FRAME, -E_BAD_CRC (of a header), -E_WIRE_VERSION,
	 * -ENOBUFS, -ECONNREFUSED, -ETIMEDOUT, or another errno of the system. 0: closed by us. A
	 * peer that fell silent is -ETIMEDOUT, or -E_DISCONNECTED when a send was in flight. */
	void (*closed)(struct transport_conn *conn, int reason, void *arg);
};

/* One frame to send; embedded by its owner, lent with its memory from transport_send until done.
 * frame.wire_version is the one that was negotiated; frame.crcs and iov hold what the header says
 * (payload_size, crc_count); iov_count may be 0; frame.payload is not looked at. */
struct transport_send {
	struct frame frame;
	struct iovec iov[TRANSPORT_IOV_MAX];
	uint32_t iov_count;
	/* status: 0 handed to the network, or -E_DISCONNECTED. Not a word of whether it arrived. */
	void (*done)(struct transport_send *send, int status);
	struct transport_send *next;	   /* the transport's */
	uint8_t header[FRAME_HEADER_SIZE]; /* the transport's */
};

struct transport_ops {
	const char *name; /* "tcp", "rdma", "sim": for people */
	int (*connect)(struct transport *t, const char *address, const struct transport_handler *h,
		       void *arg, struct transport_conn **ret_conn);
	int (*listen)(struct transport *t, const char *address,
		      void (*accepted)(struct transport_conn *conn, void *arg), void *arg,
		      struct transport_listener **ret_listener, struct error *err);
	void (*unlisten)(struct transport_listener *l);
	void (*send)(struct transport_conn *conn, struct transport_send *s);
	void (*close)(struct transport_conn *conn);
	/* NULL, both: payloads may lie anywhere. */
	int (*memory_add)(struct transport *t, void *base, size_t size_bytes);
	void (*memory_remove)(struct transport *t, void *base);
	void (*destroy)(struct transport *t);
};

struct transport {
	const struct transport_ops *ops;
	struct reactor *reactor;
};

/* Counters of one connection, for `pave status`, benches and tests. A call is one operation handed
 * to the network, so tx_frames / tx_calls says how many frames leave together. */
struct transport_stats {
	uint64_t tx_frames; /* handed to the network whole */
	uint64_t tx_bytes;  /* with headers and CRCs, as rx_bytes */
	uint64_t tx_calls;
	uint64_t rx_frames; /* passed to rx */
	uint64_t rx_bytes;
	uint64_t rx_calls;
	uint64_t rx_copied_bytes; /* of payloads over TRANSPORT_COPY_MAX, that had to be moved */
};

/* The heads that every implementation embeds. */
struct transport_conn {
	struct transport *transport;
	const struct transport_handler *handler;
	void *arg;
	struct transport_peer peer;
	uint64_t queued_bytes; /* handed over, not yet sent; the owner's measure of a slow peer */
	struct transport_stats stats;
};

struct transport_listener {
	struct transport *transport;
	char address[ADDR_SIZE_MAX]; /* where it really listens: the port is filled in */
};

/* What it runs over: "tcp", "rdma", "sim". */
static inline char *transport_name(const struct transport_conn *conn)
{
	return (char *)(uintptr_t)
	    conn->transport->ops->name; /* for protobuf-c: not to be written */
}

/* address: "HOST:PORT" or "[HOST]:PORT" (tcp), numeric or "localhost", and what else the peer
 * offers: "HOST:PORT+rdma", which who does not have it connects to over TCP; the simulator: a
 * node's name. Frames may be sent before ready: they wait. Returns 0 and then exactly one of ready
 * or closed follows; or -EINVAL, -EACCES (not a loopback address and not allowed), -E_LIMIT (of
 * connections), -ENOMEM, or an errno of socket(2), and nothing does. */
static inline int transport_connect(struct transport *t, const char *address,
				    const struct transport_handler *h, void *arg,
				    struct transport_conn **ret_conn)
{
	return t->ops->connect(t, address, h, arg, ret_conn);
}

/* accepted must set conn->handler and conn->arg before it returns. -EADDRINUSE, -EINVAL, -EACCES
 * (not a loopback address and not allowed). Blocks, for a moment, while an address is in use
 * (net/tcp/address.h): for start-up. */
static inline int transport_listen(struct transport *t, const char *address,
				   void (*accepted)(struct transport_conn *conn, void *arg),
				   void *arg, struct transport_listener **ret_listener,
				   struct error *err)
{
	return t->ops->listen(t, address, accepted, arg, ret_listener, err);
}

/* Its connections live on; its address is free again after the reactor's next turn, in which the
 * last of its memory is given back too. NULL is allowed. */
static inline void transport_unlisten(struct transport_listener *l)
{
	if (l != NULL)
		l->transport->ops->unlisten(l);
}

/* Never fails: what cannot be sent completes with -E_DISCONNECTED. Allowed until closed runs.
 * Limits are the owner's business: it counts its requests in flight, and queued_bytes. */
static inline void transport_send(struct transport_conn *conn, struct transport_send *s)
{
	conn->transport->ops->send(conn, s);
}

/* No rx after this. Sends that have not left complete with -E_DISCONNECTED; closed follows, with 0.
 * Harmless twice. */
static inline void transport_close(struct transport_conn *conn)
{
	conn->transport->ops->close(conn);
}

/* Memory in which payloads will lie, beside the reactor's (reactor_memory): a guest's, say. What is
 * added is registered once with the devices that want that, so that nothing of it is copied nor
 * registered for each payload; memory that was not added works too. It stays the caller's. base:
 * aligned to BLOCK_SIZE. -EINVAL: it overlaps what was added before; -E_LIMIT: so many regions were
 * (TRANSPORT_MEMORIES_MAX). */
static inline int transport_memory_add(struct transport *t, void *base, size_t size_bytes)
{
	return t->ops->memory_add != NULL ? t->ops->memory_add(t, base, size_bytes) : 0;
}

/* Before it is unmapped: nothing may be in flight that lies there, in either direction, so no send
 * that is not done and no memory from rx_buffer that has not come with rx or closed. */
static inline void transport_memory_remove(struct transport *t, void *base)
{
	if (t->ops->memory_remove != NULL)
		t->ops->memory_remove(t, base);
}

/* No connection may be left, and no listener that was not given to transport_unlisten. The reactor
 * must outlive it by a turn if there were listeners. NULL is allowed. */
static inline void transport_destroy(struct transport *t)
{
	if (t != NULL)
		t->ops->destroy(t);
}

/* -- production: TCP (net/tcp) --------------------------------------------------------------- */

/* insecure: allows listening on and connecting to addresses other than loopback (until TLS comes).
 */
int transport_tcp_create(struct reactor *r, bool insecure, struct transport **ret_transport);

#endif
