/* Control messages: protobuf pave.v1.Control in FRAME_CONTROL frames, as requests with replies and
 * as one-way notices, over a connection that may carry data frames too.
 *
 * The owner of a connection embeds a struct rpc, and passes it what arrives; the rpc keeps the
 * table of requests in flight with their deadlines. It is not in the path of data frames: the
 * owner's rx looks at f->op first.
 *
 * Thread: the connection's reactor. Messages are packed when sent; nothing is lent but the
 * rpc_call. */
#ifndef RPC_RPC_H
#define RPC_RPC_H

#include "control.pb-c.h"
#include "net/transport.h"

#define RPC_CALLS_MAX  1024u
#define RPC_TIMEOUT_MS 10000u
#define RPC_QUEUE_BYTES_MAX                                                                        \
	(64u << 20)		   /* of memory, not yet sent: a peer that reads less is cut off */
#define RPC_UNPACK_MAX (64u << 20) /* memory that one message may take when unpacked */

struct rpc;

/* Embedded by the asker, zero-initialised; lent until done, or cancelled. */
struct rpc_call {
	/* status: 0; the error that the peer answered with; -ETIMEDOUT; -E_DISCONNECTED; -E_LIMIT
	 * (RPC_CALLS_MAX calls in flight, or a message over FRAME_CONTROL_MAX); -ENOMEM.
	 * reply: valid until done returns; NULL unless status is 0.
	 * text: never NULL; what the peer said about its error, or what status means. */
	void (*done)(struct rpc_call *call, int status, const Pave__V1__Control *reply,
		     const char *text);
	uint64_t request_id;	       /* the rpc's; 0: it could not be sent */
	struct reactor_timer deadline; /* the rpc's */
	struct reactor *reactor;       /* the rpc's; NULL when not in flight */
	struct rpc *rpc;	       /* the rpc's; NULL when it was started after rpc_closed */
	int failure;		       /* the rpc's: what it fails with when the deadline comes */
	struct rpc_call *next, *prev;  /* the rpc's */
};

/* A request from the peer; answer it once, now or later, with rpc_reply or rpc_fail. */
struct rpc_request {
	uint64_t request_id;
	const Pave__V1__Control *message; /* valid until the handler returns */
};

struct rpc {
	struct transport_conn *conn; /* NULL after rpc_closed */
	struct reactor *reactor;
	/* A request (or a notice: request_id 0, no answer is sent) arrived. */
	void (*handle)(struct rpc *rpc, const struct rpc_request *request, void *arg);
	void *arg;
	uint64_t next_id;
	uint8_t wire_version; /* that both sides speak: FRAME_VERSION_MIN until rpc_agree */
	struct rpc_call *calls;
	uint32_t call_count;
	uint64_t queued_bytes; /* memory of messages that are not yet sent */
	bool cut_off;	       /* RPC_QUEUE_BYTES_MAX was reached: nothing more is sent */
	void *rx_memory;       /* of the large message that is arriving */
};

void rpc_init(struct rpc *rpc, struct transport_conn *conn,
	      void (*handle)(struct rpc *rpc, const struct rpc_request *request, void *arg),
	      void *arg);

/* The wire version of the connection is the newest that both sides speak: by a Hello the peer's are
 * version_min to version_max; by its answer both are the one that the peer has chosen. Control
 * messages go in it from then on. -E_WIRE_VERSION: there is none, and nothing changes. */
int rpc_agree(struct rpc *rpc, uint32_t version_min, uint32_t version_max);

/* For the owner's rx with f->op == FRAME_CONTROL. A frame that doesn't check (CRCs, protobuf, a
 * reply that contradicts its header) is logged and closes the connection; nothing of it is passed
 * on. A reply to a call that has timed out or was cancelled is dropped. */
void rpc_rx(struct rpc *rpc, const struct frame *f);

/* For the owner's rx_buffer with f->op == FRAME_CONTROL: memory for a large message; freed by
 * rpc_rx, or by rpc_closed. */
void *rpc_rx_buffer(struct rpc *rpc, const struct frame *f);

/* For the owner's closed: every call in flight, be it one that could not be sent, is done with
 * -E_DISCONNECTED before this returns: what holds it may be freed. Calls started from now on fail
 * with that too, replies and notices are dropped; rpc may be freed.
 */
void rpc_closed(struct rpc *rpc);

/* timeout_ms 0: RPC_TIMEOUT_MS. Exactly one done follows, never inline. message is packed before
 * this returns. */
void rpc_call_start(struct rpc *rpc, struct rpc_call *call, const Pave__V1__Control *message,
		    uint32_t timeout_ms);

/* The call ends without done. Harmless when it isn't in flight. */
void rpc_call_cancel(struct rpc_call *call);

/* Message over FRAME_CONTROL_MAX: a notice is dropped and logged, a reply becomes -E_LIMIT. Without
 * memory for them the connection is closed. */
void rpc_notify(struct rpc *rpc, const Pave__V1__Control *message);
void rpc_reply(struct rpc *rpc, uint64_t request_id, const Pave__V1__Control *message);

/* code: negative. text: for a person; the thing, the value, the bound, the way out. */
void rpc_fail(struct rpc *rpc, uint64_t request_id, int code, const char *text);

#endif
