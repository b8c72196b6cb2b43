/* A pull's state, and what its two parts (resync.c: the pull; repair.c: what it does instead of
 * fetching when it is a repair) ask of each other. Private to engine/node. */
#ifndef NODE_PULL_H
#define NODE_PULL_H

#include "engine/node/shard.h"

#define PULL_BATCHES 2u

struct node_repair;

enum pull_state {
	PULL_WAITING,
	PULL_ERASING,
	PULL_CONNECTING,
	PULL_GREETING,
	PULL_OPENING,
	PULL_FETCHING,
	PULL_SEALING,
	PULL_ENDING,
};

struct pull_write {
	struct store_write op;
	struct pull_batch *batch;
};

/* One answer while it is applied. */
struct pull_batch {
	struct node_pull *pull;
	bool busy;
	struct node_buffer buffer;
	uint32_t crcs[IO_BLOCKS_MAX];
	struct node_run runs[RUN_TABLE_RUNS_MAX];
	block_no_t block; /* of a repair: the first of the payload */
	struct pull_write writes[RUN_TABLE_RUNS_MAX];
	uint32_t writing;
};

struct pull_range {
	block_no_t block, end;
};

struct node_pull {
	struct node_pull *prev, *next;		 /* of the session */
	struct node_pull *wait_prev, *wait_next; /* of those that wait for a place */
	struct node_session *session;
	uint64_t request_id;
	chunk_no_t chunk;
	volume_id_t layer;
	version_t above, below; /* below 0: no bound */
	bool exact, is_repair;
	struct node_repair *repair; /* once it has begun */
	bool storing;		    /* store is in flight */
	union {
		struct store_erase_op erase;
		struct store_watermark_op seal;
	} store;
	char source[NAME_SIZE_MAX];
	char address[ADDR_SIZE_MAX];

	enum pull_state state;
	int status;    /* the first error */
	bool answered; /* the host has its answer */
	struct reactor_task tick_task;
	struct reactor_timer stall_timer, pace_timer;

	struct transport_conn *conn; /* NULL: none, or gone */
	struct rpc rpc;
	struct rpc_call call; /* Hello, Open */
	bool calling;
	bool call_done; /* with 0 */
	struct rpc_call permit_call;
	bool permit_calling, permit_changed;

	struct transport_send send; /* FETCH; of a repair READ */
	bool sending, fetching, all_fetched;
	uint64_t fetch_id;
	block_no_t from;
	struct node_buffer rx_buffer; /* lent to the transport */
	struct pull_batch *batches;   /* PULL_BATCHES */
	uint64_t block_count;
	uint64_t told_ns; /* when the host was last told of progress */
	uint32_t range, range_count;
	struct pull_range ranges[]; /* at least one; from is in [range] */
};

static inline void pull_wake(struct node_pull *p)
{
	reactor_defer(shard_reactor(p->session->shard), &p->tick_task);
}

static inline void pull_error(struct node_pull *p, int status)
{
	if (p->status == 0)
		p->status = status;
	pull_wake(p);
}

/* -- repair.c --------------------------------------------------------------------------------- */

/* NULL: no memory. free(3) gives it back. */
struct node_repair *node_repair_create(struct node_pull *p);

/* The range is to go on. True: f asks the source for the next piece of it. False: what is here of
 * it is looked up first, or there is nothing of it here, or it cannot be repaired; the pull's tick
 * follows. */
bool node_repair_ask(struct node_pull *p, struct frame *f);

/* The answer, which is in the batch's buffer and checks: fills the batch's runs, and the range goes
 * on. 0 or -E_BAD_FRAME. */
int node_repair_take(struct pull_batch *batch, const struct frame *f, uint32_t *ret_run_count);

/* -- resync.c, for repair.c ------------------------------------------------------------------- */

/* The range goes on at block (UINT32_MAX: there is no more of it), or is done; so are those that
 * the source ran over. */
void node_pull_advance(struct node_pull *p, block_no_t block);

#endif
