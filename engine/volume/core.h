/* The volume's inside: what its parts share. The parts, each with its header:
 *
 *   attachment   the driver: permits, the host's gate       plan, window, quorum   pure decisions
 *   replica      connections to nodes, requests             reconcile, resync, rewrite   copies
 *   chunk        states, slots, waiting operations          buffers   data memory
 *   hedge, pace  reads that are slow
 *   move         a replica is replaced
 *   layers       snapshots: what replicas have of sealed layers, and what permits say of layers;
 *                begin, seal, retire, restore: what follows from it, in pieces
 *   write, read  one operation on one chunk                 volume    operations, open, close
 *
 * All on one thread. Callbacks into owners' code (done, ended) are made from deferred tasks only.
 */
#ifndef VOLUME_CORE_H
#define VOLUME_CORE_H

#include "engine/volume/attachment.h"
#include "engine/volume/buffers.h"
#include "engine/volume/chunk.h"
#include "engine/volume/layers.h"
#include "engine/volume/move.h"
#include "engine/volume/reconcile.h"
#include "engine/volume/resync.h"
#include "engine/volume/rewrite.h"
#include "engine/volume/trace.h"

#define VOLUME_TICK_MS	   100u
#define VOLUME_CHUNKS_MAX  (1u << 20)
#define VOLUME_NODES_MAX   256u	  /* of one attachment: those that left are kept too */
#define VOLUME_GRACE_MS	   200u	  /* for replicas beyond the majority, when opening */
#define VOLUME_OPEN_MAX_MS 10000u /* for the majority, once older permits have run out */

struct vnode {
	char name[NAME_SIZE_MAX];
	char site[NAME_SIZE_MAX];
	bool permitted;
	uint32_t shard_count; /* 0: not known yet; replicas[0] stands in */
	struct vreplica *replicas[VREPLICA_SHARDS_MAX];
};

enum volume_state {
	VOLUME_ATTACHING, /* no permit yet */
	VOLUME_OPENING,	  /* nodes are opened, older permits run out */
	VOLUME_OPEN,
	VOLUME_CLOSING, /* operations end, watermarks are sealed */
	VOLUME_STOPPING,
	VOLUME_GONE,
};

struct volume {
	struct volume_config config; /* strings are ours */
	char *strings;
	struct reactor *reactor;
	enum volume_state state;
	int ended; /* why no operation is accepted any more; 0: not so */
	bool ended_told, detach_asked;

	struct vattach attach;
	volume_id_t id, family;
	generation_t generation;
	uint64_t size, chunk_size, freeze_ns;
	uint32_t chunk_blocks, chunk_count, replicas, majority, need;
	uint32_t slot_count; /* of a chunk: replicas + 1 */
	struct vnode *nodes;
	uint32_t node_count;
	struct vchunk *chunks;	/* of the top layer: sets' */
	struct vset *sets;	/* of the open layers, from the top; then of retired ones */
	struct vsealed *sealed; /* layers below, from the top; sealed_count of PERMIT_LAYERS_MAX */
	uint32_t sealed_count;
	struct vlayers layers;

	struct vbuffers buffers;
	struct vwrite_pool writes;
	struct vread_pool reads;
	struct vhedge hedge;
	struct vmark *marks, *marks_free; /* VMARK_POOL_MAX */
	uint32_t marks_busy;
	struct vspan **spans;	 /* VSPAN_BUCKETS */
	uint32_t span_counts[2]; /* [wide]: in it */

	struct volume_op *ops, *ops_tail; /* in the order in which their time is up */
	uint32_t op_count;
	struct volume_op *done_head, *done_tail;
	struct reactor_task done_task, kick_task, event_task;
	struct vchunk *kicked, *kicked_tail;
	struct vchunk *troubled; /* have waiting operations */
	struct vchunk *dirty;	 /* watermarks to send; oldest write first (utlist) */
	struct vchunk *busy;	 /* have writes in their windows (utlist) */
	bool writes_starved;	 /* troubled chunks wait for the pool of writes */
	struct reactor_task *waiters[VOLUME_WAITERS_MAX];
	uint32_t waiter_count;
	struct reactor_timer tick;

	struct vreconcile_engine reconcile;
	struct vresync_engine resync;
	struct vmove_engine moves;
	struct vrewrite *rewrites;   /* VREWRITES_MAX */
	bool rewrites_begun;	     /* some are to be looked at before the next tick */
	struct extents_ask *extents; /* questions under way */

	struct volume_open_op *open_op;
	bool prepared_told;
	struct error open_error;
	uint64_t opening_ns, majority_ns;
	void (*close_done)(void *arg);
	void *close_arg;
	uint64_t close_ns;
	bool frozen;
	struct volume_trace *trace; /* NULL: off */
	struct volume_stats stats;
};

static inline uint64_t volume_now(const struct volume *v)
{
	return reactor_now_ns(v->reactor);
}

static inline bool volume_gate_open(const struct volume *v)
{
	return vattach_gate_open(&v->attach, volume_now(v));
}

/* -- what the parts tell the volume (volume.c, open.c) ------------------------------------------
 */

/* The driver's answer to Attach, checked; sets the volume up. -E_BAD_DOCUMENT, -ENOMEM. */
int volume_take_map(struct volume *v, const Pave__V1__AttachReply *reply, struct error *err);
void volume_take_addresses(struct volume *v, Pave__V1__MapNode *const *nodes, size_t count);
/* The volume was made larger (grow.c). After its permit was taken, and the addresses of the same
 * nodes. -E_BAD_DOCUMENT, -ENOMEM, -EAGAIN (its top layer is about to be another): nothing has
 * changed, and the next renewal asks again. 0: also when there is nothing new. */
int volume_take_growth(struct volume *v, const Pave__V1__Growth *g, Pave__V1__MapNode *const *nodes,
		       size_t node_count, struct error *err);
/* Before there is a map: the nodes that a permit would name; connects to them. */
void volume_take_nodes(struct volume *v, Pave__V1__MapNode *const *nodes, size_t count);
/* The permit in force is another, or the gate was closed. */
/* The policy asks for so many copies of what is written from now on; 0: as before. */
void volume_take_min_acks(struct volume *v, uint32_t min_acks);
void volume_permit_changed(struct volume *v);
/* The attachment is over: why is -E_FENCED, or the reason why it could not begin. */
void volume_end(struct volume *v, int why, const char *text);
void volume_detach_asked(struct volume *v);
/* For the driver's `pave status`: items has node_count places, which get static strings. */
void volume_describe_replicas(const struct volume *v, Pave__V1__ReplicaState *items);
void volume_replica_ready(struct volume *v, struct vreplica *r);
void volume_replica_away(struct volume *v, struct vreplica *r);
void volume_event(struct volume *v); /* something that open or close waits for may have happened */
void volume_room(struct volume *v);  /* a buffer, a write or an operation's place became free */
/* Chunks of one layer; the map is as that of the volume, or NULL: slots are filled in by the
 * caller, who owns it. NULL: no memory. */
struct vset *volume_make_set(struct volume *v, volume_id_t layer, const uint8_t *map);
/* The same in pieces: a set of chunks that are all zeroes, and one of them, with its row of the
 * map, or NULL. */
struct vset *volume_new_set(struct volume *v, volume_id_t layer);
void volume_make_chunk(struct volume *v, struct vset *set, chunk_no_t no, const uint8_t *row);
void volume_free_set(struct vset *set); /* NULL is allowed */
/* Memory for so many chunks, which are not begun yet. -ENOMEM: as before. */
int volume_grow_set(const struct volume *v, struct vset *set, uint32_t chunk_count);
struct vreplica *volume_replica_of(struct volume *v, uint32_t node, chunk_no_t chunk);
uint32_t volume_find_node(const struct volume *v, const char *name); /* v->node_count: none */

/* Questions that wait are asked, when that is possible now. */
void vextents_run(struct volume *v);
void vextents_deinit(struct volume *v);

/* -- pieces (ops.c) ---------------------------------------------------------------------------- */

/* Starts a waiting piece of a write. False: it must go on waiting. */
bool volume_piece_start(struct vpiece *p);
void volume_piece_done(struct vpiece *p, int status);
void volume_ops_tick(struct volume *v, uint64_t now_ns);
void volume_ops_end(struct volume *v, int status); /* all of them, now */
void volume_ops_init(struct volume *v);
void volume_relieve(struct volume *v); /* a pool ran out */
void volume_frozen(struct volume *v);  /* operations are held: counted once a freeze */

#endif
