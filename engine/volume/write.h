/* One write of one chunk: sent to all its replicas at once under one version, decided when enough
 * have answered, kept until every connected replica has.
 *
 *   start -> in the window and the span table, a request to each target
 *         -> decided(0): a majority (need) of counted copies, and the gate is open
 *         -> decided(error): the answers make that impossible, or the owner fails it
 *         -> gone: nobody is awaited, nothing is lent: back to the pool
 *   abandon (the chunk starts anew): out of window and table at once; a zombie until released */
#ifndef VOLUME_WRITE_H
#define VOLUME_WRITE_H

#include "engine/volume/quorum.h"
#include "engine/volume/replica.h"
#include "engine/volume/window.h"

#define VWRITE_POOL_MAX	    24576u
#define VWRITE_POOL_RESERVE 512u /* for the volume's own */
#define VSPAN_BUCKETS	    8192u
#define VSPANS_MAX	    (IO_BLOCKS_MAX / (1u << VSPAN_SHIFT_WIDE) + 1)

/* How many blocks an entry in the span table stands for. What a slow replica has not answered stays
 * in the table, thousands of small writes, and every read of these blocks looks through those that
 * share an entry with it: so theirs are narrow. */
#define VSPAN_SHIFT_NARROW 3u /* of writes up to so many blocks: 32 KiB */
#define VSPAN_SHIFT_WIDE   6u /* of others: 256 KiB */

struct vchunk;
struct vwrite;

struct vspan {
	struct vspan *next, **link;
	struct vwrite *write;
	block_no_t block, end; /* the write's, here, for it lies elsewhere in memory */
};

/* What to write. */
struct vwrite_what {
	block_no_t block;
	uint32_t block_count;
	bool zero, discard;
	struct volume_buffer *buffer; /* NULL for zero; a reference is taken */
	uint32_t buffer_block;	      /* where in buffer it begins, blocks; crcs are known */
	uint32_t need;		      /* copies */
	vmask_t targets;	      /* slots to send to */
	void (*decided)(struct vwrite *w, int status);
	void *owner;
};

struct vwrite {
	struct vwindow_entry entry;
	struct vchunk *chunk;
	struct vwrite_what what;
	struct vquorum_votes votes;
	int error; /* the first that a replica answered with; -ENOSPC goes before others */
	bool decided, acked, abandoned;
	bool own;      /* of reconciling and the like, not of a guest */
	vmask_t retry; /* refused by a node's gate: goes back into the queue when released */
	uint32_t busy; /* requests that are not idle */
	bool wide;     /* which its spans are */
	uint32_t span_count;
	struct vspan spans[VSPANS_MAX];
	struct vwrite *next; /* of the pool */
	struct vrequest requests[];
};

struct vwrite_pool {
	uint8_t *memory; /* VWRITE_POOL_MAX places; touched only as they are first used */
	size_t stride;
	uint32_t touched;
	struct vwrite *free;
	uint32_t free_count; /* untouched ones too */
};

int vwrite_pool_init(struct vwrite_pool *p, uint32_t slots);
void vwrite_pool_deinit(struct vwrite_pool *p);

/* False: the pool is used up (own: the reserve too). decided follows, never from inside. */
bool vwrite_start(struct vchunk *c, const struct vwrite_what *what, bool own,
		  struct vwrite **ret_write);

/* The owner gives up: the write is settled as failed. No decided follows. */
void vwrite_fail(struct vwrite *w);

/* For an owner that has gone. */
void vwrite_ignore(struct vwrite *w, int status);

/* The slot is awaited no more: its replica has left the chunk. */
void vwrite_forget(struct vwrite *w, uint32_t slot);

/* Counts again: the gate or the permit changed. */
void vwrite_judge(struct vwrite *w);

/* The chunk starts anew. An undecided write gets decided(-E_STALE_REPLICA): its owner may start it
 * again later. */
void vwrite_abandon(struct vwrite *w);

static inline uint64_t vwrite_bytes(const struct vwrite *w)
{
	return w->what.buffer != NULL ? (uint64_t)w->what.block_count * BLOCK_SIZE : 0;
}

static inline struct vwrite *vwrite_of_entry(struct vwindow_entry *e)
{
	return container_of(e, struct vwrite, entry);
}

/* What is in flight to some blocks of a chunk. */
struct vwrite_overlap {
	bool undecided; /* a write up to the given sequence has no majority yet */
	bool any;
	vmask_t missing; /* slots that have not answered an acknowledged write */
};
struct vwrite_overlap vwrite_overlaps(const struct vchunk *c, block_no_t block,
				      uint32_t block_count, uint64_t seq_max);

#endif
