/* A replica's connection: to one shard of one node of the volume's map. A node with several shards
 * has one of these for each.
 *
 *   AWAY --retry timer, permitted, address known--> CONNECTING --ready--> GREETING (Hello)
 *     ^                                                                     |
 *     |                               (waits for a permit, if there is none yet)
 *     |                                                   OPENING (Open: fences, verifies permit)
 *     |                                                                     |
 *     |                                                SCANNING (Chunks: every chunk's watermark)
 *     |                                                                     |
 *     +------ closed, for whatever reason: back-off 50 ms..2 s -------- READY
 *
 * Requests (one data frame and its answer each) are submitted at any time. They wait in queues, in
 * order, until the replica is READY, the host's gate is open, and the window has room. Exactly one
 * of answered and lost is called for each request that left; lost also when the connection ends.
 * What waits unsent stays queued over a disconnection, until it is cancelled.
 *
 * Nothing is sent to a node that the permit in force does not name: vreplica_forbid closes. */
#ifndef VOLUME_REPLICA_H
#define VOLUME_REPLICA_H

#include "engine/volume/volume.h"
#include "net/rpc/rpc.h"

#define VREPLICA_BACKOFF_MIN_MS 50u
#define VREPLICA_BACKOFF_MAX_MS 2000u
#define VREPLICA_SICK_MS	5000u /* a node that answered a write with an error of its own */
#define VREPLICA_STALL_MS	5000u /* a request unanswered for so long ends the connection */
#define VREPLICA_WINDOW_MAX	1024u /* requests on the wire; less if the node says so */
#define VREPLICA_WINDOW_BYTES	(32u << 20)
#define VREPLICA_SHARDS_MAX	64u

struct vreplica;
struct vrequest;
struct vset;

struct vrequest_ops {
	/* Sets frame (but for wire_version and request_id) and iov of q->send; it leaves now. */
	void (*fill)(struct vrequest *q);
	/* Memory for the answer's payload; NULL ends the connection. */
	void *(*rx_buffer)(struct vrequest *q, const struct frame *f);
	/* status: 0 or negative. f is valid until this returns. */
	void (*answered)(struct vrequest *q, int status, const struct frame *f);
	/* The connection ended before the answer. q may be submitted again. */
	void (*lost)(struct vrequest *q);
	/* After answered: the transport has let go, q is the owner's again. */
	void (*released)(struct vrequest *q);
	/* It was queued and never left; it may not be sent any more (the node is not in the permit,
	 * or its backlog was given up). q is the owner's again; it may be submitted again only if
	 * the replica was not forbidden. NULL: as lost. */
	void (*dropped)(struct vrequest *q);
};

enum vrequest_state { VREQUEST_IDLE, VREQUEST_QUEUED, VREQUEST_SENT, VREQUEST_ANSWERED };

struct vrequest {
	struct transport_send send;
	const struct vrequest_ops *ops;
	void *owner;
	struct vreplica *replica;
	struct vrequest *next, *prev;
	uint64_t id, sent_ns;
	uint8_t state; /* enum vrequest_state */
	bool bulk;     /* a write: its own queue, so that reads need not wait for a backlog */
	bool lent;     /* to the transport */
	uint32_t bytes;
};

struct vrequest_list {
	struct vrequest *head, *tail;
};

enum vreplica_state {
	VREPLICA_AWAY,
	VREPLICA_CONNECTING,
	VREPLICA_GREETING,
	VREPLICA_OPENING,
	VREPLICA_SCANNING,
	VREPLICA_READY,
};

/* How far its resync is: for people. */
struct vcatchup {
	uint64_t planned_chunks, planned_blocks; /* of all that were looked at */
	uint64_t rate_blocks;			 /* a second, lately */
	uint64_t since_ns, since_blocks;
};

struct vreplica {
	struct volume *volume;
	uint32_t node, shard;
	char address[ADDR_SIZE_MAX]; /* empty: not known now */
	enum vreplica_state state;
	bool permitted;	 /* the permit in force names the node */
	bool followed;	 /* what `permitted` was when it was last followed */
	bool overflowed; /* its backlog was given up; nothing more is kept until READY */
	bool overflow_wanted;
	bool closing;
	bool traces;	/* the node answers FRAME_F_TRACE */
	bool greeted;	/* the node has answered Hello; without a permit that is all there is */
	bool stopped;	/* for good */
	bool tried;	/* has been READY or failed at least once */
	int why;	/* it isn't READY: the last error */
	uint64_t epoch; /* rises each time it becomes READY */

	struct transport_conn *conn;
	struct rpc rpc;
	struct rpc_call call, permit_call;
	bool permit_calling, permit_again;
	uint32_t scan_from;
	struct vset *scan_set; /* being scanned; NULL: the sealed layer scan_sealed */
	uint32_t scan_sealed;
	bool held; /* nothing is sent until the permit in force was */
	struct reactor_timer retry;
	uint32_t backoff_ms;

	struct vrequest_list queue[2]; /* [bulk] */
	struct vrequest_list sent;
	bool turn;
	uint32_t inflight, window;
	uint64_t inflight_bytes;
	struct vrequest **table; /* VREPLICA_WINDOW_MAX places */
	uint16_t *free_places;
	uint32_t free_count;
	uint64_t id_count;

	/* Acknowledged writes that it hasn't answered. */
	uint32_t backlog_ops;
	uint64_t backlog_bytes;
	uint64_t latency_ns; /* of reads, smoothed; forgotten while none is asked of it */
	bool measured;	     /* since the last tick */
	uint64_t sick_ns; /* until then chunks are reconciled without it, if a majority is left */
	struct vcatchup catchup;
};

int vreplica_init(struct vreplica *r, struct volume *v, uint32_t node, uint32_t shard);
void vreplica_deinit(struct vreplica *r); /* AWAY, nothing queued; or in an abandon */

static inline bool vreplica_ready(const struct vreplica *r)
{
	return r->state == VREPLICA_READY && r->permitted;
}

/* A new address; connects when there was none. */
void vreplica_set_address(struct vreplica *r, const char *address);
/* The permit in force changed, and `permitted` of all replicas tells by it already: takes it to the
 * node, connects, or disconnects at once. What that drops is counted again without the others that
 * are out. */
void vreplica_follow_permit(struct vreplica *r);
/* The permit in force names other layers; vreplica_follow_permit comes in the same turn. */
void vreplica_layers_changed(struct vreplica *r);
/* Ends the connection; it comes back after the back-off. why: for people. */
void vreplica_disconnect(struct vreplica *r, int why);
/* Its disk fails, or the like: it answers, but not with success. */
static inline bool vreplica_sick(const struct vreplica *r, uint64_t now_ns)
{
	return now_ns < r->sick_ns;
}
/* Ends the connection for good. */
void vreplica_stop(struct vreplica *r);

void vreplica_submit(struct vreplica *r, struct vrequest *q);
/* True: q waited unsent and is the owner's again. False: it is on the wire. */
bool vreplica_cancel(struct vrequest *q);
/* Sends what may be sent now. */
void vreplica_pump(struct vreplica *r);
/* Gives the backlog up: a replica that is too slow or too long away becomes behind. */
void vreplica_overflow(struct vreplica *r);
/* A read took so long. */
void vreplica_note_latency(struct vreplica *r, uint64_t took_ns);
void vreplica_tick(struct vreplica *r, uint64_t now_ns);

/* -- request.c, for replica.c ------------------------------------------------------------------ */

int vrequests_init(struct vreplica *r);
void vrequests_rx(struct transport_conn *conn, const struct frame *f, void *arg);
void *vrequests_rx_buffer(struct transport_conn *conn, const struct frame *f, void *arg);
/* The connection is gone: lost for everything that was on the wire, in the order of sending. */
void vrequests_lost(struct vreplica *r);
/* Lets the owners take back what is queued. */
void vrequests_forbid(struct vreplica *r);

const char *vreplica_state_name(const struct vreplica *r);

#endif
