/* What one replica holds of one chunk, asked of its node: watermark and newest version (Chunks),
 * and the runs of blocks above a version (Changes, page by page). Control path. */
#ifndef VOLUME_FETCH_H
#define VOLUME_FETCH_H

#include "engine/volume/plan.h"
#include "net/rpc/rpc.h"

struct vchunk;

struct vfetch {
	struct rpc_call call;
	struct vchunk *chunk;
	uint32_t slot;
	bool busy;
	volume_id_t layer; /* as frames name it */
	version_t above;
	block_no_t from;
	uint32_t pages, pages_max;
	struct vplan_list *list;
	/* vfetch_state: what it said is in the slot (reported_*, fresh). */
	void (*done)(struct vfetch *f, int status);
	void *owner;
};

/* PRE: the slot's replica is ready. done follows, never from inside. The fetch is zeroed memory or
 * one that is done. */
void vfetch_state(struct vfetch *f, struct vchunk *c, uint32_t slot,
		  void (*done)(struct vfetch *f, int status), void *owner);

/* Appends to list, which is lent. pages_max 0: all; else at most so many pages of the node's, and
 * `from` says where to go on (UINT32_MAX: no more). */
void vfetch_changes(struct vfetch *f, struct vchunk *c, uint32_t slot, version_t above,
		    block_no_t from, uint32_t pages_max, struct vplan_list *list,
		    void (*done)(struct vfetch *f, int status), void *owner);

/* The same of a sealed layer, of the chunk's number. */
void vfetch_sealed(struct vfetch *f, struct vchunk *c, volume_id_t layer, uint32_t slot,
		   block_no_t from, uint32_t pages_max, struct vplan_list *list,
		   void (*done)(struct vfetch *f, int status), void *owner);

/* No done follows. */
void vfetch_cancel(struct vfetch *f);

#endif
