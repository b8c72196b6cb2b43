/* Erasures that the placement driver asks for, one after the other, chunk by chunk: first nothing
 * that a host has sent can reach them any more (node_shard_vacate), nor what a merge writes
 * (layer_work_leave), then they go, and then, if the driver asks for it, what of them lies on the
 * devices (pool_wipe).
 *
 * Thread: the reactor's. */
#ifndef PAVE_NODE_ERASE_H
#define PAVE_NODE_ERASE_H

#include "control.pb-c.h"
#include "engine/node/node.h"
#include "engine/pool/pool.h"
#include "tools/pave-node/layer_work.h"

struct eraser;

/* shard: *shard is looked at when an erasure begins; NULL while there is none. work outlives it.
 * erased: called once for each eraser_add, when all of it is done or failed, perhaps from inside
 * eraser_add; done is NULL with an error. -EOPNOTSUPP: a method that this node does not know;
 * -EALREADY: the driver, which asks for one thing at a time, has asked again, for the same or for
 * another. 0 or -ENOMEM. */
int eraser_start(struct reactor *r, struct pool *pool, struct node_shard *const *shard,
		 struct layer_work *work,
		 void (*erased)(uint64_t token, int status, const struct node_erasure *done,
				void *arg),
		 void *arg, struct eraser **ret_eraser);

/* what is valid until this returns. Whoever adds bounds how many (LEASE_ERASES_MAX). */
void eraser_add(struct eraser *e, uint64_t token, const Pave__V1__Erase *what);

/* Those that have not begun are forgotten; done, never inline, when none is under way. */
void eraser_stop(struct eraser *e, void (*done)(void *arg), void *arg);

#endif
