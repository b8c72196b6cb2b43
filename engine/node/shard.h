/* What the parts of a shard (shard.c: the whole; session.c: the conversation; data.c: data
 * requests; fetch.c: the source of a resync; resync.c and repair.c: its target; layers.c: volumes
 * with several layers; vacate.c: what comes before an erase) know of each other. Private to
 * engine/node.
 *
 * INVARIANTS
 *  1. A session's gate is open only while: the permit that it holds has not run out, names this
 *     node, and for the same version of the site's certificate as the lease; the lease has not run
 *     out; and no newer generation of the volume was opened on this shard.
 *  2. A data request is carried out only if the gate was open when it arrived, and answered with 0
 *     only if it is still open then.
 *  3. A session is freed when its connection is gone and nothing of it (requests, control requests,
 *     pulls, the fence) is in flight. */
#ifndef NODE_SHARD_H
#define NODE_SHARD_H

/* Without memory for a place in a table the element is not in it (hh.tbl is NULL). */
#define HASH_NONFATAL_OOM 1
#include <uthash.h>

#include "engine/node/buffers.h"
#include "engine/node/node.h"
#include "engine/node/run_table.h"
#include "net/rpc/rpc.h"

struct node_session;
struct node_fetch;
struct node_pull;
struct node_changes;
struct node_layered;

/* One data request, from its arrival until its answer was handed to the network. */
struct node_request {
	struct node_request *next; /* in the free list, or of those of the session that wait */
	struct node_session *session;
	uint8_t op; /* enum frame_op */
	volume_id_t layer;
	struct node_buffer buffer;
	bool is_tx;	  /* buffer is of the shard's tx_memory, else of its rx_memory */
	struct frame ask; /* the header; crcs and payload are not kept */
	struct transport_send send;
	uint64_t received_ns, begun_ns, done_ns; /* for FRAME_F_TRACE: in the store */
	union {
		struct store_write write;
		struct store_read read;
		struct store_watermark_op watermark;
		struct node_fetch *fetch;
	} u;
	uint32_t crcs[IO_BLOCKS_MAX];
};

/* A volume that some session has open. */
struct node_volume {
	UT_hash_handle hh;
	volume_id_t id;
	generation_t generation; /* the newest that was opened, or is being opened, here */
	uint64_t map_version;	 /* the newest of any permit seen */
	uint32_t session_count;
	uint32_t opens_waiting; /* sessions with open_waiting */
};

enum session_state {
	SESSION_CONNECTED, /* awaits Hello */
	SESSION_GREETED,   /* awaits Open */
	SESSION_OPENING,   /* awaits the durable fence */
	SESSION_OPEN,
};

struct node_session {
	struct node_session *prev, *next;
	struct node_shard *shard;
	struct transport_conn *conn; /* NULL once it is gone */
	struct rpc rpc;
	enum session_state state;
	bool closing; /* transport_close was called */
	struct reactor_timer hello_timer;
	uint64_t greeted_ns;
	char peer[NAME_SIZE_MAX]; /* the name of Hello */
	bool peer_is_node;

	uint32_t inflight_max;	     /* as told at Hello */
	uint32_t reserved;	     /* of the shard's requests */
	uint32_t inflight;	     /* data requests */
	uint32_t controls;	     /* control requests that are being carried out */
	uint64_t rx_bytes, tx_bytes; /* of the payloads of its requests, as their pieces count */
	struct node_request *waiting, *waiting_last;	  /* reads and fetches without memory */
	struct node_session *waiting_prev, *waiting_next; /* in the shard's list */
	struct node_buffer rx_buffer; /* lent to the transport for the payload that is arriving */

	struct node_volume *volume; /* from OPENING on */
	generation_t generation;
	uint32_t chunk_blocks;
	bool read_only;
	bool fenced;
	struct permit permit;
	uint8_t *permit_packed; /* the Signed, for pulls */
	size_t permit_packed_size;
	struct gate gate;
	struct receipt_counter receipt;

	struct store_fence_op fence;
	bool fencing;
	bool open_waiting;     /* the fence is durable, an earlier session is not quiet yet */
	uint64_t open_request; /* the request_id of the Open that waits for the fence */
	struct node_pull *pulls;
	struct node_changes *changes; /* lists that are being made */
	struct rpc_call vacate_call;
	bool vacating; /* the shard's vacate waits for its word, or its end */
};

struct node_shard {
	struct node_shard_config config;
	char listen_address[ADDR_SIZE_MAX];
	struct transport_listener *listener;
	struct node_session *sessions;
	uint32_t session_count;
	struct node_volume *volumes;
	struct node_lease_state lease;

	struct node_request *free_requests;
	void *request_slabs;	/* a list, for the end */
	uint32_t request_count; /* allocated */
	uint32_t reserved;	/* by sessions */
	struct node_buffers rx_memory, tx_memory;
	struct node_session *waiting; /* sessions with requests that wait, by turns */
	bool short_of_memory; /* it was tried, and there was none, since some was given back */
	struct reactor_task serve_task;

	struct node_fetch *fetches[NODE_FETCHES_MAX]; /* made so far */
	uint32_t fetch_count;
	struct node_fetch *free_fetches;
	struct node_layered *layered[NODE_LAYERED_MAX]; /* made so far */
	uint32_t layered_count;
	struct node_layered *free_layered;
	struct node_pull *waiting_pulls;
	uint32_t pulls_active;
	uint64_t pull_after_ns; /* so much was fetched lately: the next goes then */

	struct node_vacate_op *vacate; /* NULL: none is under way */

	struct reactor_task damage_task;
	struct reactor_timer damage_timer;

	struct node_stats stats;
	bool stopping;
	void (*stop_done)(void *arg);
	void *stop_arg;
	struct reactor_task stop_task;
};

/* -- shard.c ---------------------------------------------------------------------------------- */

/* The entry of a volume, made if need be; NULL without memory. Put back once for each get. */
struct node_volume *node_shard_get_volume(struct node_shard *shard, volume_id_t id);
void node_shard_put_volume(struct node_shard *shard, struct node_volume *volume);

/* Fences what is open under an older generation than the volume's. */
void node_shard_fence_sessions(struct node_shard *shard, struct node_volume *volume);

/* A session is gone. */
void node_shard_session_gone(struct node_shard *shard);

static inline struct reactor *shard_reactor(const struct node_shard *shard)
{
	return shard->config.reactor;
}

/* -- damage.c --------------------------------------------------------------------------------- */

/* From now on hosts are told what the store knows to be damaged. Ends. */
void node_damage_start(struct node_shard *shard);
void node_damage_stop(struct node_shard *shard);

/* -- vacate.c --------------------------------------------------------------------------------- */

/* s is being freed. */
void node_vacate_session_gone(struct node_session *s);

/* -- session.c -------------------------------------------------------------------------------- */

/* Takes over an accepted connection. */
void node_session_accept(struct node_shard *shard, struct transport_conn *conn);

/* Computes the gate anew from permit, lease and fence; tells the host when it closes. */
void node_session_update_gate(struct node_session *s);

/* Memory for a payload of s, counted as its; none when it, or the shard, has no more. */
struct node_buffer node_session_rx_memory(struct node_session *s, uint32_t size_bytes);

/* Ends the connection; what is in flight ends by itself. */
void node_session_close(struct node_session *s);

/* Ends the receipt that is being counted, and hands it over. */
void node_session_close_receipt(struct node_session *s);

/* Frees it if nothing holds it any more. Call after letting go of something; s may be gone then. */
void node_session_release(struct node_session *s);

/* Frees it whatever is in flight: node_shard_abandon. */
void node_session_destroy(struct node_session *s);

/* 0, or the error for what arrives now, or is to be answered now. The clock is read afresh for an
 * answer, once in a callback (gate_refresh): the process may have been stopped since the turn
 * began. */
int node_session_check(const struct node_session *s);
int node_session_check_now(const struct node_session *s);

/* One more control request is being carried out; false: the limit, and it was answered. */
bool node_session_control_begin(struct node_session *s, uint64_t request_id);
void node_session_control_end(struct node_session *s);

/* Answers that are dropped when the connection is gone. */
void node_session_reply(struct node_session *s, uint64_t request_id,
			const Pave__V1__Control *message);
void node_session_fail(struct node_session *s, uint64_t request_id, int code, const char *text);
void node_session_reply_empty(struct node_session *s, uint64_t request_id);

/* The first message: version, cluster and name are settled. */
void node_session_hello(struct node_session *s, uint64_t request_id, const Pave__V1__Hello *hello);

/* -- open.c ----------------------------------------------------------------------------------- */

/* Something of a session of the volume ended: an Open may have waited for it. */
void node_open_resume(struct node_shard *shard, struct node_volume *volume);

/* rpc.handle of a session. */
void node_session_handle(struct rpc *rpc, const struct rpc_request *request, void *arg);

void node_changes_destroy_all(struct node_session *s); /* node_shard_abandon */

/* -- data.c ----------------------------------------------------------------------------------- */

/* Sets aside a share of the shard's requests for a session; the memory for them is allocated here.
 * 0 or -ENOMEM. */
int node_requests_reserve(struct node_shard *shard, struct node_session *s);
/* Whether a write, zero or watermark of the layer's chunk is in flight, of whichever session. Looks
 * at all requests: not for the path of an operation. */
bool node_requests_change(const struct node_shard *shard, volume_id_t layer, chunk_no_t chunk);
void node_requests_unreserve(struct node_shard *shard, struct node_session *s);
void node_requests_free(struct node_shard *shard);

/* A data request has arrived. */
void node_data_rx(struct node_session *s, const struct frame *f);

/* Answers a request and gives it back when the answer has left. status: 0 or negative. */
void node_request_finish(struct node_request *q, int status);

/* The store is done with q: what was carried out while the gate closed is not acknowledged. */
void node_request_complete(struct node_request *q, int status);

/* Something that requests wait for is free again. */
void node_requests_wake(struct node_shard *shard);

/* -- fetch.c ---------------------------------------------------------------------------------- */

/* Carries out a FETCH, for which q->buffer holds IO_SIZE_MAX; false: NODE_FETCHES_MAX are under
 * way.
 */
bool node_fetch_begin(struct node_request *q);
void node_fetch_free_all(struct node_shard *shard);

/* -- layers.c --------------------------------------------------------------------------------- */

/* Carries out a READ of a volume with several layers, for which q->buffer is there; false:
 * NODE_LAYERED_MAX are under way. */
bool node_layered_begin(struct node_request *q);
void node_layered_free_all(struct node_shard *shard);

/* s has a permit: what it calls sealed takes no more writes, whatever older permits of other
 * sessions say. */
void node_layers_sealed(struct node_session *s);

/* -- resync.c --------------------------------------------------------------------------------- */

void node_pull_begin(struct node_session *s, uint64_t request_id, const Pave__V1__Pull *what);

/* The session's permit is another: its pulls present it to their sources. */
void node_pull_permit_changed(struct node_session *s);

/* The session's connection is gone: its pulls end. */
void node_pull_abort_all(struct node_session *s);
void node_pull_destroy_all(struct node_session *s); /* node_shard_abandon */

#endif
