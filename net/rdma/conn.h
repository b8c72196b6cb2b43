/* The transport's inside: the device with its queues (device.c), what is registered with it
 * (memory.c), a connection's life (conn.c), its set-up over the control connection (setup.c),
 * sending (tx.c) and receiving (rx.c). Private to net/rdma; the states are in rdma.h.
 *
 * INVARIANTS
 *  1. The device is open while there is a connection, and its descriptors are polled for as long.
 *  2. What is posted is counted: messages and READs of a connection in tx_posted, receive buffers,
 * with those that hold something, in rx_used. A connection's memory is given back when its queue
 * pair is destroyed, which happens when tx_posted is 0, or RDMA_FLUSH_MS after the end.
 *  3. A peer has at most RDMA_CREDITS messages under way, each of which has a buffer posted for it:
 *     the shared receive queue never runs dry, but for buffers that went down with a queue pair
 *     (rx_lost), which are replaced.
 *  4. One payload is fetched at a time, and frames behind it wait: rx keeps the order of sending.
 *  5. ENDING is entered once and keeps the first reason; the end (the rest of the sends, closed,
 *     freeing) runs as a deferred task. */
#ifndef RDMA_CONN_H
#define RDMA_CONN_H

#include "control.pb-c.h"
#include "engine/reactor/io.h"
#include "net/rdma/message.h"
#include "net/rdma/rdma.h"
#include "net/rdma/verbs.h"
#include "net/sends.h"

#define RDMA_SLOT_SIZE	     ROUND_UP(RDMA_MESSAGE_MAX, 64u)
#define RDMA_ARENA_SLOTS     64u
#define RDMA_RX_ARENAS_MAX   (RDMA_CONNS_MAX + 1) /* one for those that were lost */
#define RDMA_RX_SLOTS_MAX    (RDMA_RX_ARENAS_MAX * RDMA_ARENA_SLOTS)
#define RDMA_READS_MAX	     RDMA_SEGMENTS_MAX /* READs under way, a connection */
#define RDMA_SGES_MAX	     (1u + TRANSPORT_IOV_MAX)
#define RDMA_SEND_QUEUE	     (RDMA_SENDS_MAX + RDMA_READS_MAX)
#define RDMA_CONN_CQES	     (RDMA_CREDITS + RDMA_SEND_QUEUE)
#define RDMA_REGIONS_MAX     512u  /* of the reactor's memory */
#define RDMA_GATHER_MIN	     1024u /* a payload below this is copied beside its header */
#define RDMA_POLL_BATCH	     32
#define RDMA_POLL_BATCHES    16u /* in one turn; then others have theirs */
#define RDMA_QP_BUCKETS	     256u
#define RDMA_DEVICE_NAME_MAX 64u
#define RDMA_WR_RECEIVE	     (1ull << 63) /* wr_id: this and the slot; else connection and slot */
#define RDMA_WR_READ	     0xffffu	  /* in the place of the slot */

_Static_assert(RDMA_ARENA_SLOTS == RDMA_CREDITS && RDMA_ARENA_SLOTS == RDMA_SENDS_MAX,
	       "an arena for each direction of a connection");

/* Memory for RDMA_ARENA_SLOTS messages, registered as one. */
struct rdma_arena {
	uint8_t *memory;
	struct ibv_mr *mr;
	struct rdma_arena *next;
};

/* Memory in which payloads lie; mr: NULL while it is not registered. */
struct rdma_region {
	uint8_t *base;
	size_t size_bytes;
	struct ibv_mr *mr;
};

/* An address that is connected to over the carrier until then. */
struct rdma_fallback {
	char address[ADDR_SIZE_MAX];
	uint64_t until_ns;
};

struct rdma_conn;

struct rdma {
	struct transport head;
	struct transport *carrier;
	const struct rdma_verbs *verbs;
	char device[RDMA_DEVICE_NAME_MAX]; /* empty: any */
	bool required, destroyed, warned;
	const char *plain_addresses;
	uint64_t poll_ns;
	struct rdma_counters counters;
	struct rdma_fallback fallbacks[RDMA_FALLBACKS_MAX];
	uint32_t fallback_next;

	/* Of the open device; context is NULL while it is closed. */
	struct ibv_context *context;
	uint8_t port;
	struct ibv_port_attr port_attr;
	struct ibv_pd *pd;
	struct ibv_comp_channel *channel;
	struct ibv_cq *cq;
	struct ibv_srq *srq;
	uint32_t conns_max, sges_max;
	uint8_t reads_max;
	bool failed; /* all its connections end */
	bool regions_refused;
	struct rdma_region regions[RDMA_REGIONS_MAX];
	uint32_t region_count;
	size_t regions_bytes; /* of the reactor's memory, from its base on */
	struct rdma_region added[TRANSPORT_MEMORIES_MAX]; /* in the order of their addresses */
	uint32_t added_count;
	struct rdma_arena *rx_arenas[RDMA_RX_ARENAS_MAX];
	uint32_t rx_arena_count;
	uint16_t rx_free[RDMA_RX_SLOTS_MAX];
	uint32_t rx_free_count, rx_used, rx_lost;
	struct rdma_arena *tx_arenas; /* free ones */
	struct ibv_send_wr wrs[RDMA_SENDS_MAX];
	struct ibv_sge sges[RDMA_SENDS_MAX][RDMA_SGES_MAX];

	/* Waiting for completions and events. */
	struct reactor_io channel_io, event_io;
	bool channel_polled, event_polled;
	struct reactor_timer again; /* while completions are polled for without sleeping */
	uint64_t busy_until_ns;

	struct rdma_conn *conns; /* all of them */
	struct rdma_conn *by_qp[RDMA_QP_BUCKETS];
	uint32_t conn_count, qp_count;
	uint32_t id_count;
	uint32_t listener_count; /* those that are ending included */
};

enum rdma_state { RDMA_INTRODUCING, RDMA_ASKING, RDMA_GREETING, RDMA_OPEN, RDMA_ENDING, RDMA_GONE };

struct rdma_slot {
	struct transport_send *send; /* NULL: an acknowledgement of ours, or free */
	bool posted;
	bool pull; /* its place in pulls: */
	uint8_t pull_place;
};

/* A payload of ours that the peer fetches. */
struct rdma_pull {
	struct transport_send *send;
	bool sent; /* the message that announces it */
	uint8_t mr_count;
	struct ibv_mr *mrs[RDMA_SEGMENTS_MAX]; /* registered for it alone */
};

struct rdma_held {
	uint16_t slot;
	struct rdma_message message;
};

struct rdma_listener;

struct rdma_conn {
	struct transport_conn head;
	struct rdma_conn *next, *prev;
	struct rdma_conn *bucket_next;
	uint32_t id;
	enum rdma_state state;
	int reason;
	bool passive;			/* the peer asked; there is no owner before OPEN */
	bool owned;			/* handler is the owner's */
	char address[ADDR_SIZE_MAX];	/* that was connected to */
	struct rdma_listener *listener; /* of a passive one that is GREETING */
	struct transport_conn *control; /* NULL: closed */
	bool control_ready;
	uint64_t setup_id;	    /* request_id of the set-up */
	struct reactor_timer timer; /* set-up, then flush */
	bool flush_over;
	struct reactor_task end_task;

	struct ibv_qp *qp;
	struct ibv_gid_entry gid;
	uint32_t sequence;

	/* tx.c */
	struct reactor_task flush;
	bool flush_late;
	bool greet; /* an acknowledgement is due, whatever it says */
	struct sends queue;
	struct rdma_arena *arena;
	struct rdma_slot slots[RDMA_SENDS_MAX];
	uint8_t free_slots[RDMA_SENDS_MAX];
	uint32_t free_count;
	uint32_t tx_posted;
	uint32_t credits, credits_max; /* buffers at the peer */
	struct rdma_pull pulls[RDMA_SENDS_MAX];
	/* Counted on, not wrapped: [first, end) is outstanding, fetched up to `fetched`. */
	uint32_t pull_first, pull_fetched, pull_end;

	/* rx.c */
	struct rdma_held held[RDMA_CREDITS]; /* arrived, not yet delivered */
	uint32_t held_first, held_end;
	uint32_t owed;	      /* buffers free again, which the peer has not been told */
	uint32_t pulled_owed; /* payloads fetched, likewise */
	bool running;
	uint32_t reading; /* READs under way, for the first that is held */
	void *read_memory;
	struct ibv_mr *read_mr; /* registered for it alone */
};

static inline struct rdma *rdma_of(const struct transport *head)
{
	return container_of(head, struct rdma, head);
}

static inline struct rdma_conn *rdma_conn_of(struct transport_conn *head)
{
	return container_of(head, struct rdma_conn, head);
}

static inline struct rdma *conn_rdma(const struct rdma_conn *c)
{
	return rdma_of(c->head.transport);
}

/* -- device.c --------------------------------------------------------------------------------- */

/* Opens the device and makes its queues; harmless when it is open. As transport_rdma_create. */
int rdma_device_open(struct rdma *t, struct error *err);

/* Gives all of it back. No queue pair may be left. */
void rdma_device_close(struct rdma *t);

/* The entry of the device's table by which the peer at this address is reached best. -ENODEV. */
int rdma_device_gid(struct rdma *t, const char *peer_address, struct ibv_gid_entry *ret);

/* Buffers for one connection more; -ENOMEM, -E_LIMIT. And for one less. */
int rdma_receive_more(struct rdma *t);
void rdma_receive_less(struct rdma *t);
uint8_t *rdma_receive_memory(const struct rdma *t, uint16_t slot);
/* The buffer is posted again, or is one too many. */
void rdma_receive_again(struct rdma *t, uint16_t slot);

/* Takes the completions that are there to their connections. */
void rdma_poll(struct rdma *t);

/* Begins to wait for completions and events; harmless when it does. And ends it. */
void rdma_wait_begin(struct rdma *t);
void rdma_wait_end(struct rdma *t);

/* Frees t when it is destroyed and nothing is under way. */
void rdma_free_if_unused(struct rdma *t);

/* -- memory.c --------------------------------------------------------------------------------- */

/* The registration that holds [p, p + size_bytes), or NULL: it is memory of nobody's. */
struct ibv_mr *rdma_region_find(struct rdma *t, const void *p, size_t size_bytes);

/* As in transport.h. */
int rdma_memory_add(struct transport *head, void *base, size_t size_bytes);
void rdma_memory_remove(struct transport *head, void *base);

/* NULL: no memory, or none that the device registers. */
struct rdma_arena *rdma_arena_get(struct rdma *t);
void rdma_arena_put(struct rdma *t, struct rdma_arena *arena);

/* Nothing is registered any more; what was added to the transport stays known. */
void rdma_memory_close(struct rdma *t);

/* -- conn.c ----------------------------------------------------------------------------------- */

/* 0, -E_LIMIT, -ENOMEM. */
int rdma_conn_create(struct rdma *t, struct rdma_conn **ret_conn);

/* Ends it for this reason (0: closed by us); harmless when it is ENDING. */
void rdma_conn_end(struct rdma_conn *c, int reason);

/* To be called when something that the end waits for is over. */
void rdma_conn_settle(struct rdma_conn *c);

/* The peer's first message: the way works, in both directions. */
void rdma_conn_established(struct rdma_conn *c);

/* A completion that is not a success. */
void rdma_conn_failed(struct rdma_conn *c, enum ibv_wc_status status);

struct rdma_conn *rdma_conn_find(const struct rdma *t, uint32_t qp_num);

/* Its queue pair, with receive buffers and memory for sending. 0, -E_LIMIT, -ENOMEM, -ENODEV, or
 * what a verb returned. */
int rdma_conn_make_qp(struct rdma_conn *c);

/* Connects the queue pair with the peer's. 0, -EINVAL (what the peer said), or a verb's errno. */
int rdma_conn_join(struct rdma_conn *c, const Pave__V1__RdmaSetup *peer);

/* -- setup.c ---------------------------------------------------------------------------------- */

/* The control connection of one that connects, until it is gone. */
extern const struct transport_handler rdma_control_handler;

/* The first frame of a control connection; NULL: it is not a set-up, or does not check. */
Pave__V1__Control *rdma_setup_unpack(const struct frame *f);

/* Answers it: makes a passive connection, or says why not. control's handler is set. */
void rdma_setup_answer(struct rdma *t, struct rdma_listener *l, struct transport_conn *control,
		       uint64_t request_id, const Pave__V1__RdmaSetup *setup);

/* -- rdma.c ----------------------------------------------------------------------------------- */

/* A passive connection is made; then it is OPEN, and its owner takes it, or it has ended before. */
void rdma_listener_expect(struct rdma_listener *l, struct rdma_conn *c);
void rdma_listener_accept(struct rdma_conn *c);
void rdma_listener_forget(struct rdma_conn *c);

/* A set-up with this address failed. */
void rdma_fallback_note(struct rdma *t, const char *address, int reason);

/* -- tx.c ------------------------------------------------------------------------------------- */

void rdma_tx_init(struct rdma_conn *c);
void rdma_tx_send(struct rdma_conn *c, struct transport_send *s);
/* Something may be sendable now, or owed to the peer. */
void rdma_tx_kick(struct rdma_conn *c);
void rdma_tx_done(struct rdma_conn *c, uint16_t slot);
/* The peer has fetched so many payloads. false: more than there are. */
bool rdma_tx_pulled(struct rdma_conn *c, uint32_t count);
/* Completes all that is left with -E_DISCONNECTED. The queue pair is gone. */
void rdma_tx_fail(struct rdma_conn *c);

/* -- rx.c ------------------------------------------------------------------------------------- */

void rdma_rx_message(struct rdma_conn *c, uint16_t slot, uint32_t size_bytes);
void rdma_rx_read_done(struct rdma_conn *c);
/* Gives back what was held. */
void rdma_rx_drop(struct rdma_conn *c);

#endif
