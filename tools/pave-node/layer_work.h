/* What the placement driver has a node do with the copies of layers that it holds, one request
 * after the other:
 *
 *   LayerChanges  which blocks of a chunk have a version in any of some layers
 *   LayerMerge    the blocks of a chunk of a sealed layer are written to the sealed layer below too
 *
 * Thread: the reactor's. */
#ifndef PAVE_NODE_LAYER_WORK_H
#define PAVE_NODE_LAYER_WORK_H

#include "control.pb-c.h"
#include "engine/pool/pool.h"

#define LAYER_MERGE_BYTES (16u << 20) /* written for one request; then the driver asks again */

struct layer_work;

struct layer_work_config {
	struct reactor *reactor;
	struct pool *pool;
	uint64_t rate; /* bytes a second that merging writes at most; 0: no limit */
	/* Whether bytes of volumes may be stored here now: asked before each write of a merge. */
	bool (*may_store)(void *arg);
	/* Once for each layer_work_add, inline only for what is refused at once; status < 0: text
	 * says why, else message is the reply. */
	void (*answer)(uint64_t token, int status, const char *text,
		       const Pave__V1__Control *message, void *arg);
	void *arg;
};

/* 0 or -ENOMEM. */
int layer_work_start(const struct layer_work_config *config, struct layer_work **ret_work);

/* what is valid until this returns. Whoever adds bounds how many (LEASE_ERASES_MAX). */
void layer_work_add(struct layer_work *w, uint64_t token, const Pave__V1__Control *what);

/* The layer is about to be erased here: merges of it that have been asked for end with -EBUSY.
 * Done, never inline, when nothing of them is under way, which could write what was erased anew. op
 * is lent until then. */
struct layer_leave_op {
	void (*done)(struct layer_leave_op *op);
	volume_id_t layer;
	struct layer_leave_op *next;
};
void layer_work_leave(struct layer_work *w, struct layer_leave_op *op);

/* Those that have not begun are forgotten; done, never inline, when none is under way. */
void layer_work_stop(struct layer_work *w, void (*done)(void *arg), void *arg);

/* Frees it, without a word: the simulator's crash. NULL is allowed. */
void layer_work_abandon(struct layer_work *w);

#endif
