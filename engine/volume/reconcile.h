/* Reconciling: makes a chunk's replicas agree before it serves (engine/ARCHITECTURE.md,
 * "Replication"). What is copied is decided by plan.h.
 *
 *   QUIET   nothing that we sent for the chunk is on the wire any more
 *   STATES  watermark and newest version of each present replica
 *   LISTS   the runs above them
 *   COPY    each range read from a holder, written again to all that are present
 *   SEAL    the watermark, durable on every member
 *   -> SERVING: the members are current, the others behind
 *
 * A member that goes away or fails on the way: it begins again, with whoever is there then. */
#ifndef VOLUME_RECONCILE_H
#define VOLUME_RECONCILE_H

#include "engine/volume/chunk.h"

#define VRECONCILES_MAX		8u
#define VRECONCILE_COPIES_MAX	8u
#define VRECONCILE_RETRY_MS	100u /* doubled up to: */
#define VRECONCILE_RETRY_MAX_MS 2000u

struct vreconcile_engine {
	struct vreconcile *contexts;	    /* VRECONCILES_MAX */
	struct vchunk *urgent, *background; /* utlist */
	struct reactor_task task;
};

int vreconcile_init(struct volume *v);
void vreconcile_deinit(struct volume *v);
void vreconcile_stop(struct volume *v);
void vreconcile_kick(struct volume *v);

/* The chunk is to be opened. urgent: operations wait for it; else only if its replicas are known to
 * differ. */
void vreconcile_want(struct vchunk *c, bool urgent);

/* The layer is sealed: whatever is under way ends. */
void vreconcile_retire(struct volume *v, const struct vset *set);

/* A slot failed a write, or lost its connection. */
void vreconcile_slot_failed(struct vchunk *c, uint32_t slot);

/* A request of the time before came home. */
void vreconcile_quiet(struct vchunk *c);

#endif
