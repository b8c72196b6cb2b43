/* What the three files of the NBD server share: nbd.c (listener, connections, bytes in and out),
 * nbd_negotiate.c (options), nbd_request.c (requests and the volume operations that they become).
 */
#ifndef ATTACH_NBD_PRIVATE_H
#define ATTACH_NBD_PRIVATE_H

#include <sys/socket.h>

#include "engine/attach/nbd.h"
#include "engine/attach/nbd_proto.h"
#include "engine/attach/unix_socket.h"
#include "engine/reactor/io.h"

#define IN_SIZE		(256u << 10)
#define OUT_SIZE	(16u << 10) /* answers to one option, with two names at most */
#define SEND_IOV_MAX	256u
#define REPLY_IOV_MAX	36u    /* of one answer: head, and the parts of the longest read */
#define DIRECT_MIN	16384u /* a rest of a payload this long is received where it belongs */
#define DRAIN_NS	(5 * NS_PER_S)
#define ACCEPT_RETRY_NS (100 * NS_PER_MS) /* after accept(2) failed for want of something */

/* Over TCP: a client is asked whether it is there after so much silence, and so often. It is gone
 * when it has not answered, or not taken anything of its answers, for DEAD_CLIENT_MS: not sooner,
 * for one that was only stopped sees errors then. */
#define KEEPALIVE_IDLE_S   10
#define KEEPALIVE_PERIOD_S 5
#define DEAD_CLIENT_MS	   120000

struct nbd_request;
struct nbd_conn;

/* One volume operation, at most IO_SIZE_MAX of a request.
 *
 *   whole blocks:     START -> [WAITING for the range] ------------------> SUBMITTED -> (done)
 *   parts of blocks:  START -> [WAITING for the range] -> HEAD -> TAIL --> SUBMITTED -> (unlock,
 * done)
 *
 * HEAD and TAIL read the first and last block and fill in what the request leaves as it is. While
 * such a part is between START and done its range is locked: no other change of these blocks
 * starts; nor does it start before those that did are done, for the volume gives no order to what
 * is under way at once, so its reads might not show them. */
enum part_state { PART_START, PART_WAITING, PART_HEAD, PART_TAIL, PART_SUBMITTED };

struct nbd_part {
	struct volume_op op;
	struct nbd_request *request;
	enum part_state state;
	enum volume_op_kind kind;
	uint64_t offset; /* bytes, as the client asked */
	uint32_t size;	 /* bytes, as the client asked */
	struct volume_buffer
	    *buffer; /* the whole blocks around the range; NULL for zero and discard */
	struct volume_buffer *edge;		/* one block that is being read for HEAD or TAIL */
	struct nbd_part *next;			/* in its request, in order */
	struct nbd_part *lock_prev, *lock_next; /* among the locked, the changing, or the waiting */
	struct nbd_part *free_next;
};

struct nbd_request {
	struct nbd_conn *conn;
	struct nbd_request_header q;
	uint32_t error;	  /* enum nbd_error: the first */
	const char *text; /* static: why */
	uint64_t issued;  /* bytes for which parts exist */
	uint32_t pending; /* parts not yet done */
	bool complete;	  /* all parts exist: answered when pending falls to 0 */
	bool starved;	  /* in the server's list of requests that wait for room */
	struct nbd_part *parts, *last_part; /* of a read: they are kept until its answer has left */
	struct volume_extents_op extents;
	struct volume_buffer *extents_buffer;
	uint8_t head[64]; /* of the answer */
	uint32_t head_size;
	struct nbd_request *next; /* free, to be sent, being sent, or starved */
};

enum rx_state { RX_FLAGS, RX_OPTION, RX_REQUEST, RX_PAYLOAD, RX_SKIP, RX_END };

struct nbd_conn {
	struct nbd_server *server;
	int fd;
	enum rx_state rx_state;
	enum rx_state after_skip;
	uint64_t skip; /* bytes to throw away */
	bool no_zeroes, structured, context;
	bool broken;  /* the peer is gone: answers are dropped */
	bool blocked; /* waits for a request, a part, a buffer, or for its answers to leave */

	uint8_t *in;
	uint32_t in_head, in_tail;
	struct reactor_io recv_io;
	bool recv_busy;
	bool recv_direct;

	struct nbd_request *payload_request; /* RX_PAYLOAD */
	struct nbd_part *payload_part;
	uint32_t payload_filled; /* bytes of payload_part */

	uint8_t out[OUT_SIZE]; /* negotiation only */
	uint32_t out_size;
	struct nbd_request *ready, *ready_last; /* answers to be sent */
	struct nbd_request *sending;
	struct reactor_io send_io;
	bool send_busy;
	uint32_t send_size;
	struct msghdr msg;
	struct iovec iov[SEND_IOV_MAX];
	struct reactor_task flush;

	uint32_t inflight;
	uint32_t read_bytes; /* of those that read */
	struct nbd_request *free_requests;
	struct nbd_request requests[NBD_INFLIGHT_MAX];
	struct reactor_timer drain;
	struct nbd_conn *prev, *next;
};

struct nbd_server {
	struct nbd_config config;
	struct volume *volume; /* NULL: not served yet */
	char export_name[NAME_SIZE_MAX];
	char uri[512];
	char unix_path[UNIX_PATH_MAX];
	int fd;
	struct reactor_io accept_io;
	struct reactor_timer accept_timer;
	bool accepting, stopping;
	struct nbd_conn *conns;
	uint32_t conn_count;
	struct nbd_part *parts, *free_parts;
	struct nbd_part *locked;		    /* parts of blocks, from HEAD or TAIL on */
	struct nbd_part *changing;		    /* whole blocks, submitted */
	struct nbd_part *waiting;		    /* in order */
	struct nbd_request *starved, *starved_last; /* by turns */
	struct nbd_request *large; /* a read that has some of its parts and waits for more: one at a
				      time, so that none waits for another */
	struct reactor_task room;  /* the volume's while room_asked */
	bool room_asked;
	struct reactor_task own_room;
	bool own_wanted; /* own_room is to run when a part, or the turn of a large read, is free */
	bool found_none; /* while those that wait are tried: one of them has not found room */
	struct nbd_stats stats;
	void (*stopped)(void *arg);
	void *stopped_arg;
	struct reactor_task stop_task;
};

/* nbd.c */
void conn_resume(struct nbd_conn *c); /* parses on, after something it was blocked on */
void conn_flush_later(struct nbd_conn *c);
void conn_fail(struct nbd_conn *c, const char *why);
void conn_maybe_free(struct nbd_conn *c);
void server_maybe_stopped(struct nbd_server *s);

/* nbd_negotiate.c: return false when the connection must end. */
bool negotiate_option(struct nbd_conn *c, uint32_t option, const uint8_t *data, uint32_t size);
void negotiate_too_big(struct nbd_conn *c, uint32_t option);

/* nbd_request.c */
void request_pools_init(struct nbd_server *s);
/* NULL: the connection has as many under way as it may, or reads as much. */
struct nbd_request *request_get(struct nbd_conn *c, const struct nbd_request_header *q);
void request_put(struct nbd_request *r); /* after its answer has left */
/* Starts everything but a write. */
void request_start(struct nbd_request *r);
/* A write's next part, whose payload is to be received; NULL: no room now (the server resumes the
 * connection). */
struct nbd_part *request_next_payload(struct nbd_request *r);
uint8_t *part_payload(const struct nbd_part *p);
void request_payload_done(struct nbd_part *p);
/* The connection ended in the middle of a payload: it broke, or the server stops. */
void request_payload_lost(struct nbd_request *r, struct nbd_part *p);
void request_fail(struct nbd_request *r, uint32_t error, const char *text);
void request_finish_if_done(struct nbd_request *r);
uint32_t request_reply_iov(struct nbd_request *r, struct iovec *iov, uint32_t max);
void server_room(struct reactor_task *t);
void server_own_room(struct reactor_task *t);

#endif
