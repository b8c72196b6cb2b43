/* A chunk as the host sees it (engine/ARCHITECTURE.md, "Replication"):
 *
 *   UNOPENED --majority present--> RECONCILING --sealed--> SERVING --no current slot left-->
 * UNOPENED
 *
 * Slots: the chunk's replicas, its members, and one more: while a replica is being replaced, the
 * learner that will take its place (move.h); else it is unused. A learner has the same states as a
 * member, and counts for nothing. CURRENT: holds everything acknowledged but for what is in flight
 * to it or waits in its backlog. BEHIND: anything else. Only CURRENT slots serve reads and are told
 * watermarks (and, of what it has got by then, one that resync makes CURRENT); every connected slot
 * that is *joined* gets new writes and counts for them.
 *
 * A volume with snapshots has a chunk of each number for each of its open layers: the top one,
 * which takes the guest's operations, and for a while one below it, which is being sealed
 * (layers.h). */
#ifndef VOLUME_CHUNK_H
#define VOLUME_CHUNK_H

#include "engine/volume/read.h"
#include "engine/volume/write.h"

#define VCHUNK_IDLE_MS	    1000u /* then its watermarks are sent by themselves */
#define VCHUNK_NO_SOURCE_MS 1000u /* no current slot reachable for so long: reconcile */

#define VSLOT_NONE 0xffu

struct vreconcile;
struct vresync;
struct vpiece;
struct vmove;

enum vchunk_state { VCHUNK_UNOPENED, VCHUNK_RECONCILING, VCHUNK_SERVING };

struct vslot {
	struct vreplica *replica;
	struct vchunk *chunk;
	struct vslot *resync_next, *resync_prev; /* of the engine's queue */
	struct vresync *resync;			 /* at work on it */
	uint64_t joined_epoch;			 /* of the replica, when it joined; 0: never */
	uint64_t refused_epoch; /* of the replica: since then its device for this chunk has failed;
				 * 0: no */
	uint64_t joined_seq;	/* it gets every write from this sequence on */
	version_t told;		/* the highest watermark that it answered */
	version_t reported_watermark, reported_newest;
	uint64_t resync_after_ns;
	uint32_t outstanding; /* writes on the wire, abandoned ones too */
	uint32_t zombies;     /* the abandoned ones: they may still arrive */
	uint32_t reading;     /* reads that were given to it */
	uint32_t marking;     /* watermarks likewise */
	uint16_t resync_tries;
	uint8_t node;
	bool current;
	bool fresh;	 /* reported_* is what it holds now */
	bool unreadable; /* a block that reconciling wanted of it, and of no other that could be
			  * read: until the chunk serves (reconcile.c) */
	bool resync_queued;
	bool lost; /* what it had answered for; until it is current again it is no copy of
		    * anything, and no part of a majority */
};

/* A range that one of the volume's own rewrites has for itself: guest writes to it wait. */
struct vlock {
	struct vlock *next, *prev;
	block_no_t block;
	uint32_t block_count;
};

/* The chunks of an open layer, and of one that was, until nothing of it is under way. A volume that
 * grows gets more of them, and those that there are stay where they are: whatever is under way
 * points to them. */
struct vset {
	volume_id_t layer;
	struct vset
	    *above; /* the layer above, whose top one takes the guest's operations; or NULL */
	struct vset *below;    /* the layer that is being sealed; or NULL */
	bool retired;	       /* sealed: nothing is begun any more */
	struct vchunk *chunks; /* base/growing.h, as slots and todo */
	struct vslot *slots;
	size_t slots_max_bytes;
	/* Being sealed: chunks below `looked` were looked at, and those of them that are not done
	 * are in todo, which has room for all. looks: so many of them, from todo_at on, are to be
	 * looked at again. */
	uint32_t *todo;
	uint32_t looked, todo_count, todo_at, looks;
	uint32_t swept; /* retired: chunks below are quiet, what they knew was taken
			 * over, and their memory may have been given back */
	struct vset *next;
};

struct vchunk {
	struct volume *volume;
	struct vset *set;
	chunk_no_t no;
	uint32_t layer;	  /* as frames name it */
	bool settled;	  /* being sealed: a majority has its last word, or none is needed */
	bool done;	  /* being sealed: it is not among what is to do (seal.c) */
	bool taken;	  /* retired: the sealed layer has what it knew */
	uint32_t good_at; /* good is valid when this is what it is of (layers.c) */
	vmask_t good;	  /* slots that hold all that the sealed layers have of the chunk */
	bool stale;	  /* changed since the layer above it was prepared (begin.c) */
	struct vchunk *stale_next;
	vmask_t sealing, sealed; /* slots that the seal was sent to, that answered it */
	uint32_t reads_begun, writes_begun, marks_begun; /* of the pools, not given back */
	enum vchunk_state state;
	bool kicked, troubled, dirty, reset_wanted;
	uint8_t reconcile_queued; /* 0: no, 1: in the background, 2: somebody waits */
	uint64_t
	    epoch; /* rises with each failed write and each new start: reads in flight are void */
	struct vwindow window;
	struct vslot *slots; /* volume->slot_count */
	vmask_t members;     /* slots of the configured replicas: they alone count */
	uint8_t learner;     /* slot; VSLOT_NONE: there is none */
	bool joint;	     /* writes after joint_seq need the members that are to be as well */
	uint64_t joint_seq;
	struct vmove *move;
	struct vpiece *writes;	 /* waiting (utlist) */
	struct vread_list reads; /* WAITING or HELD */
	struct vlock *locks;
	struct vreconcile *reconcile;
	struct vchunk *reconcile_next, *reconcile_prev; /* of the engine's queues */
	uint64_t reconcile_after_ns;
	uint32_t reconcile_tries;
	uint64_t no_source_ns; /* since when no current slot is ready; 0: not so */
	uint64_t dirty_ns;
	struct vchunk *kick_next;
	bool busy; /* in volume->busy: its window is not empty */
	struct vchunk *busy_next, *busy_prev;
	struct vchunk *troubled_next, *troubled_prev;
	struct vchunk *dirty_next, *dirty_prev;
};

/* The replica is connected, and its device for this chunk is not known to have failed. */
static inline bool vslot_ready(const struct vslot *s)
{
	return vreplica_ready(s->replica) && s->refused_epoch != s->replica->epoch;
}

static inline bool vslot_joined(const struct vslot *s)
{
	return vslot_ready(s) && s->joined_epoch == s->replica->epoch;
}

static inline vmask_t vchunk_used(const struct vchunk *c)
{
	return c->members | (c->learner != VSLOT_NONE ? vmask_bit(c->learner) : 0);
}

static inline struct vchunk *vchunk_above(const struct vchunk *c)
{
	return c->set->above != NULL ? &c->set->above->chunks[c->no] : NULL;
}

static inline struct vchunk *vchunk_below(const struct vchunk *c)
{
	return c->set->below != NULL ? &c->set->below->chunks[c->no] : NULL;
}

/* The one that takes the guest's operations. */
static inline struct vchunk *vchunk_top(struct vchunk *c)
{
	struct vset *set = c->set;

	while (set->above != NULL)
		set = set->above;
	return &set->chunks[c->no];
}

/* It serves, and its layer is open. */
static inline bool vchunk_serves(const struct vchunk *c)
{
	return c->state == VCHUNK_SERVING && !c->set->retired;
}

uint32_t vchunk_blocks(const struct vchunk *c); /* of this chunk's volume */

/* Its waiting operations are looked at in this turn. */
void vchunk_kick(struct vchunk *c);
void vchunk_run(struct vchunk *c);
/* Takes it out of the volume's lists of what is dirty or waits. */
void vchunk_forget(struct vchunk *c);

/* Members whose node is connected and in the permit. */
vmask_t vchunk_ready_slots(const struct vchunk *c);
/* Members and learner whose node is in the permit. */
vmask_t vchunk_permitted_slots(const struct vchunk *c);

/* Where a new write goes: learner included. */
vmask_t vchunk_targets(struct vchunk *c);
/* Whether copies in these slots may be enough for a new write that needs so many. */
bool vchunk_enough(const struct vchunk *c, vmask_t slots, uint32_t need);

/* For move.c: an unused slot becomes the learner; a slot that is neither member nor learner any
 * more lets go of everything but what is on the wire; the members have changed. */
void vchunk_slot_learns(struct vchunk *c, uint32_t slot, uint32_t node);
void vchunk_slot_leaves(struct vchunk *c, uint32_t slot);
void vchunk_members_changed(struct vchunk *c);

/* The watermark that a current slot may be told now. */
version_t vchunk_watermark(const struct vchunk *c, uint32_t slot);

/* The node has answered -E_DEVICE: until it connects again this slot counts as away. */
void vchunk_slot_refused(struct vchunk *c, uint32_t slot);

/* The slot lacks something, or may hold something that nobody else has. */
void vchunk_slot_behind(struct vchunk *c, uint32_t slot);
void vchunk_slot_current(struct vchunk *c, uint32_t slot);

/* A write of it was settled as failed. */
void vchunk_write_failed(struct vchunk *c, vmask_t holders);

/* Reconciled, or found clean: these slots are current, the chunk serves. */
void vchunk_serve(struct vchunk *c, vmask_t members);

/* Somebody waits for the chunk, which serves. When no current slot of it can be reached, but a
 * majority can, then after VCHUNK_NO_SOURCE_MS what those hold decides: reset_wanted is set. */
void vchunk_watch_source(struct vchunk *c);

/* All memory of the attachment about it is void; waits to be reconciled. */
void vchunk_reset(struct vchunk *c);

void vchunk_replica_ready(struct vchunk *c, uint32_t slot);
/* Whether the replica is a member or learner of the chunk, or anything is on its way there, in any
 * of the volume's layers. A chunk that the volume has not is not used. */
bool vchunk_uses(const struct vreplica *r, chunk_no_t no);
/* The member or learner there; UINT32_MAX: none. */
uint32_t vchunk_slot_of(const struct vchunk *c, const struct vreplica *r);

void vchunk_mark_dirty(struct vchunk *c);
/* Sends watermarks of chunks that are idle (all: now). Returns how many chunks are still dirty. */
uint32_t vchunk_settle(struct volume *v, bool all);

void vchunk_lock(struct vchunk *c, struct vlock *l);
void vchunk_unlock(struct vchunk *c, struct vlock *l);
bool vchunk_locked(const struct vchunk *c, block_no_t block, uint32_t block_count);

/* A part of a guest's operation within one chunk; embedded in the operation. */
struct vpiece {
	struct volume_op *op;
	struct vchunk *chunk;
	struct vpiece *next, *prev; /* chunk->writes */
	union {
		struct vwrite *write;
		struct vread *read;
	};
	block_no_t block;
	uint32_t block_count;
	uint32_t buffer_block;
	uint8_t state; /* enum vpiece_state */
	/* Of the write that it was last, which ended undecided and may have been seen; 0: it was
	 * not begun. It goes again before all that was begun later, or not yet. */
	uint64_t seq;
};
enum vpiece_state { VPIECE_FREE, VPIECE_WAITING, VPIECE_ACTIVE };

/* Puts a write's piece into the chunk's queue: in the order of seq, those without one last. */
void vchunk_queue_write(struct vchunk *c, struct vpiece *p);
void vchunk_unqueue_write(struct vpiece *p);

/* A watermark on its way to a slot; done(0) once it is durable there. From a pool. */
struct vmark {
	struct vrequest request;
	struct vchunk *chunk;
	uint32_t slot;
	version_t watermark;
	int status;
	void (*done)(struct vmark *m, int status); /* NULL: nobody waits for it */
	void *owner;
	struct vmark *next;
};
#define VMARK_POOL_MAX 512u
struct vmark *vmark_send(struct vchunk *c, uint32_t slot, version_t watermark,
			 void (*done)(struct vmark *m, int status), void *owner);
void vmark_cancel(struct vmark *m); /* no done follows */

#endif
