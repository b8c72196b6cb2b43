/* One read of one chunk.
 *
 *   WAITING -- a current, ready slot that answered every acknowledged write to these blocks -->
 * SENT SENT -- answered, checks --> HELD, while a write to these blocks has no majority --> done(0)
 *   SENT -- bad, lost, gate closed, the chunk's epoch changed --> WAITING (another slot if bad)
 *   done, given up -- a leg is still under way --> ORPHAN --> the pool
 *
 * A read has two legs, one of which is used unless the first is slow (hedge.h). The first good
 * answer wins; what the other one brings is not looked at.
 *
 * When every current slot has answered wrongly, each may have another bad block among them: then it
 * is read block by block, and fails only if there is one that nobody can read.
 *
 * Memory: one leg at most may write to the read's buffer, the other writes to a spare one, for the
 * answer to a leg that nobody awaits any more may come when the guest has its buffer back. A
 * payload that is copied on its arrival needs none.
 *
 * Read, then unread: a node may have shown us a write that nobody else has yet. So an answer is
 * held until every write to these blocks that had begun when it came is decided; when one of them
 * fails, the read is done again. */
#ifndef VOLUME_READ_H
#define VOLUME_READ_H

#include "engine/volume/hedge.h"
#include "engine/volume/quorum.h"
#include "engine/volume/replica.h"
#include "engine/volume/trace.h"

#define VREAD_POOL_MAX	   (2 * VOLUME_OPS_MAX + 256)
#define VREAD_POOL_RESERVE 128u /* for the volume's own */
#define VREAD_FAR	   4u /* a replica in another site than the host's must be so much faster */

struct vchunk;

enum vread_state { VREAD_WAITING, VREAD_SENT, VREAD_HELD, VREAD_ORPHAN };

struct vread_leg {
	struct vrequest request;
	uint32_t slot;
	uint64_t epoch;	       /* of the chunk, when it was sent */
	uint64_t receiving_ns; /* since when its payload comes straight to its memory; 0: not so */
	bool ignored;	       /* nobody awaits its answer */
	bool spare;	       /* it writes to the spare buffer */
	bool good;	       /* it has answered, and waits for the other to let the buffer go */
};

struct vread {
	struct vread_leg legs[2];
	struct vchunk *chunk;
	block_no_t block; /* of the part that is being read: all, or block by block */
	uint32_t block_count;
	block_no_t whole_block;
	uint32_t whole_count;
	struct volume_buffer *buffer; /* one reference is the read's */
	struct volume_buffer *spare;  /* for large ones that were hedged */
	uint8_t *data;
	enum vread_state state;
	bool parted;	/* no slot could read all of it */
	bool fixed;	/* reconciling: from this slot, whatever the chunk's state */
	bool doubled;	/* hedge.h: which list it is in */
	vmask_t bad;	/* slots that answered wrongly */
	uint64_t epoch; /* of the leg that won */
	struct volume_trace_answer answer; /* the one that won, while a trace is on */
	uint64_t held_seq, held_seq_below; /* of the chunk, and of the one below it */
	uint64_t begun_ns, hedge_ns;	   /* hedge_ns: when it is looked at again */
	void (*done)(struct vread *rd, int status);
	void *owner;
	struct vread *next, *prev; /* WAITING, HELD: chunk->reads; SENT: the hedge's */
};

struct vread_pool {
	struct vread *memory;
	uint32_t touched;
	struct vread *free;
	uint32_t free_count; /* untouched ones too */
};

int vread_pool_init(struct vread_pool *p);
void vread_pool_deinit(struct vread_pool *p);

/* NULL: the pool is used up. The read waits in the chunk; vread_try or vchunk_kick set it going.
 * done follows, never from inside; then the read is back in the pool. */
struct vread *vread_start(struct vchunk *c, block_no_t block, uint32_t block_count,
			  struct volume_buffer *buffer, uint32_t buffer_block, bool own,
			  void (*done)(struct vread *rd, int status), void *owner);

/* As vread_start, from one slot, of a chunk that is being reconciled. NULL also when the slot is
 * not ready. */
struct vread *vread_start_fixed(struct vchunk *c, uint32_t slot, block_no_t block,
				uint32_t block_count, struct volume_buffer *buffer,
				void (*done)(struct vread *rd, int status), void *owner);

/* Tries to move a read that is WAITING or HELD. May end it: its done is called from here, so only
 * from vchunk_run. */
void vread_try(struct vread *rd);

/* A read that is WAITING or HELD, of a chunk that was retired: goes on from the top. */
void vread_leave(struct vread *rd);

/* No done follows. */
void vread_cancel(struct vread *rd);

/* -- for hedge.c ------------------------------------------------------------------------------- */

/* SENT: asks another slot as well. False: none may answer, or there is no memory for it. */
bool vread_second_leg(struct vread *rd);
/* One leg has answered, the other's payload stands still: ends that one's connection. */
void vread_check_stuck(struct vread *rd, uint64_t now_ns);
void vread_list_append(struct vread_list *l, struct vread *rd);
void vread_list_remove(struct vread_list *l, struct vread *rd);

#endif
