/* Resync: a replica that is behind catches up while the chunk serves.
 *
 *   SETTLE   everything from before it joined is decided, a current replica (the source) has it,
 * and no write that failed is on its way to it any more LISTS    what it holds above its watermark,
 * and what the source holds above the same REWRITE  its phantoms: blocks that it holds newer than
 * they are, written again from a current one PULL     its node fetches the rest from the source's
 * node, by itself MARK     a watermark of all that, durable there
 *   -> current
 *
 * An error of it to a new write, a failed write of the chunk, or a lost connection: from the start.
 */
#ifndef VOLUME_RESYNC_H
#define VOLUME_RESYNC_H

#include "engine/volume/chunk.h"

#define VRESYNCS_MAX	      4u
#define VRESYNCS_LEARNERS_MAX 2u   /* so that members never wait for them */
#define VRESYNCS_REPLICA_MAX  2u   /* of one connection: a node that hangs holds up no other */
#define VRESYNC_RETRY_MS      200u /* doubled up to: */
#define VRESYNC_RETRY_MAX_MS  30000u
#define VRESYNC_PULL_MS	      600000u

struct vresync_engine {
	struct vresync *contexts; /* VRESYNCS_MAX */
	struct vslot *queue;	  /* utlist */
	struct reactor_task task;
};

int vresync_init(struct volume *v);
void vresync_deinit(struct volume *v);
void vresync_stop(struct volume *v);
/* The layer is sealed: what is under way in it ends, and what waits does not begin. */
void vresync_retire(struct volume *v, const struct vset *set);
void vresync_kick(struct volume *v);
void vresync_want(struct vchunk *c, uint32_t slot);
void vresync_disturbed(struct vchunk *c, uint32_t slot);
/* The slot's replica has left the chunk. */
void vresync_forget(struct vchunk *c, uint32_t slot);

/* The replica's node has told how much of a pull is done. */
void vresync_progress(struct vreplica *r, chunk_no_t chunk, uint64_t pulled);
/* What the slot, which is behind, still lacks; of one that was not looked at yet: as much as the
 * others of its replica on average. */
uint64_t vresync_blocks_left(const struct vslot *s);

#endif
