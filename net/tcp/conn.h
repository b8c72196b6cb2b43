/* One TCP connection: its state, and what its three parts (life: conn.c, receiving: rx.c, sending:
 * tx.c) ask of each other. Private to net/tcp.
 *
 *   CONNECTING --connected--> OPEN --conn_end--> ENDING --nothing in flight--> GONE (in closed),
 * freed |                                         ^
 *        +---------------- conn_end ---------------+
 *
 * INVARIANTS
 *  1. At most one operation of each kind (connect, receive, send) is in flight.
 *  2. ENDING is entered once and keeps the first reason. From then on nothing is received or begun.
 *  3. The end (the rest of the sends, closed, freeing) runs as a deferred task, and only when
 *     nothing is in flight: so no callback runs from inside a call, and the kernel never holds
 *     memory that was given back. */
#ifndef TCP_CONN_H
#define TCP_CONN_H

#include <assert.h>
#include <limits.h>

#include "engine/reactor/io.h"
#include "net/sends.h"
#include "net/tcp/address.h"
#include "net/transport.h"

#define TCP_CONNS_MAX	       16384u /* of one transport; memory only for those there are */
#define TCP_BACKLOG	       128
#define TCP_CONNECT_TIMEOUT_MS 3000u
#define TCP_DEAD_PEER_MS       5000u /* unanswered for so long, data or keep-alive */
#define TCP_KEEPALIVE_IDLE_S   2
#define TCP_KEEPALIVE_PERIOD_S 1
#define TCP_KEEPALIVE_PROBES   3
#define TCP_ACCEPT_RETRY_MS    100u /* after accept(2) failed for want of something */
#define TCP_RX_BUFFER_SIZE     (256u << 10)
#define TCP_RX_WINDOW_LARGE    (TRANSPORT_COPY_MAX + 4096u)
#define TCP_RX_ROOM_MIN	       (64u << 10)
#define TCP_TX_IOV_MAX	       1024u
#define TCP_TX_BATCH_BYTES_MAX (2u << 20)

static_assert(TCP_TX_IOV_MAX <= IOV_MAX, "sendmsg(2) takes that many");
static_assert(TCP_TX_IOV_MAX >= 2 + TRANSPORT_IOV_MAX, "one frame always fits");
static_assert(FRAME_HEADER_SIZE + 4 * FRAME_CRCS_MAX <= TCP_RX_ROOM_MIN,
	      "what precedes a large payload fits beside the rest of the buffer");
static_assert(2 * TRANSPORT_COPY_MAX <= TCP_RX_ROOM_MIN, "a small frame fits there");
static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "CRCs are used as they lie on the wire");

struct tcp {
	struct transport head;
	bool insecure;
	bool destroyed;	    /* freed with the last listener */
	bool full_reported; /* TCP_CONNS_MAX, since there was room last */
	uint32_t conn_count;
	uint32_t listener_count; /* those that are ending included */
};

enum conn_state { CONN_CONNECTING, CONN_OPEN, CONN_ENDING, CONN_GONE };

/* Receiving: rx.c. Bytes [begin, end) of buf have arrived and are not yet used. While `large` is
 * being received (large_mem is not NULL), buf is empty, and is filled after the payload. */
struct conn_rx {
	struct reactor_io io;
	bool busy;
	uint8_t *buf; /* TCP_RX_BUFFER_SIZE */
	uint32_t begin, end;
	uint32_t window; /* how much to ask for at once */
	struct frame large;
	uint8_t *large_mem;
	uint32_t large_have; /* bytes of its payload that are there */
	struct msghdr msg;
	struct iovec iov[2];
	uint32_t crcs[FRAME_CRCS_MAX]; /* of the frame at hand, aligned */
};

/* Sending: tx.c. */
struct conn_tx {
	struct reactor_io io;
	bool busy;
	bool late;  /* the flush has let the turn's other tasks go first */
	int broken; /* why nothing can be sent any more: the receiving side ends the connection */
	struct reactor_task flush;
	struct sends queue;   /* not yet begun */
	struct sends batch;   /* in flight */
	uint64_t batch_bytes; /* of it, still to be sent */
	struct msghdr msg;    /* its rest */
	struct iovec iov[TCP_TX_IOV_MAX];
};

struct conn {
	struct transport_conn head;
	enum conn_state state;
	int reason; /* for closed */
	int fd;
	bool connecting; /* connect_io is in flight */
	struct reactor_io connect_io;
	struct reactor_timer connect_timer;
	struct address address; /* the peer's */
	struct reactor_task end_task;
	struct conn_rx rx;
	struct conn_tx tx;
};

static inline struct conn *conn_of(struct transport_conn *head)
{
	return container_of(head, struct conn, head);
}

static inline struct tcp *conn_tcp(const struct conn *c)
{
	return container_of(c->head.transport, struct tcp, head);
}

static inline struct reactor *conn_reactor(const struct conn *c)
{
	return c->head.transport->reactor;
}

/* On the loopback there is nothing to control, and Reno does the least work: BBR, where it is the
 * machine's default, keeps a timer a connection to pace what it sends. Elsewhere the choice of the
 * administrator stands (net.ipv4.tcp_congestion_control). Before the connection is made. */
void conn_choose_congestion(int fd, const struct address *address);

/* A connection to address, CONNECTING. 0, -E_LIMIT, -ENOMEM, or an errno of socket(2). */
int conn_connect(struct tcp *t, const struct address *address, struct conn **ret_conn);

/* Takes over fd, which accept(2) has given, in state OPEN; call conn_start when it has a handler.
 * 0, -E_LIMIT or -ENOMEM: then fd is closed. */
int conn_accept(struct tcp *t, int fd, struct conn **ret_conn);

/* Begins to receive and to send. */
void conn_start(struct conn *c);

/* Ends it for this reason (0: closed by us); harmless when it is ENDING already. */
void conn_end(struct conn *c, int reason);

/* To be called when an operation in flight is over: goes on with the end when it was the last. */
void conn_settle(struct conn *c);

/* The reason that an errno of a socket operation stands for. */
int conn_reason(int code);

void rx_init(struct conn *c, uint8_t *buf);
void rx_start(struct conn *c);
void rx_cancel(struct conn *c);

void tx_init(struct conn *c);
void tx_send(struct conn *c, struct transport_send *s);
void tx_start(struct conn *c);
void tx_cancel(struct conn *c);

/* Completes all that is left, and what is sent meanwhile, with -E_DISCONNECTED. */
void tx_fail(struct conn *c);

#endif
