/* One read of one chunk.
 *
 *   WAITING -- a current, ready slot that answered every acknowledged write to these blocks -->
 * SENT SENT -- answered, checks --> HELD, while a write to these blocks has no majority --> done(0)
 *   SENT -- bad, lost, gate closed, the chunk's epoch changed --> WAITING (another slot if bad)
 *
 * Read, then unread: a node may have shown us a write that nobody else has yet. So an answer is
 * held until every write to these blocks that had begun when it came is decided; when one of them
 * fails, the read is done again. */
#ifndef VOLUME_READ_H
#define VOLUME_READ_H

#include "engine/volume/quorum.h"
#include "engine/volume/replica.h"

#define VREAD_POOL_MAX	   (2 * VOLUME_OPS_MAX + 256)
#define VREAD_POOL_RESERVE 128u /* for the volume's own */

struct vchunk;

enum vread_state { VREAD_WAITING, VREAD_SENT, VREAD_HELD, VREAD_ORPHAN };

struct vread {
	struct vrequest request;
	struct vchunk *chunk;
	block_no_t block;
	uint32_t block_count;
	struct volume_buffer *buffer; /* one reference is the read's */
	uint8_t *data;
	enum vread_state state;
	bool fixed; /* reconciling: from this slot, whatever the chunk's state */
	uint32_t slot;
	vmask_t bad; /* slots that answered wrongly */
	uint64_t epoch, held_seq;
	void (*done)(struct vread *rd, int status);
	void *owner;
	struct vread *next, *prev; /* chunk->reads, while WAITING or HELD */
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

/* No done follows. */
void vread_cancel(struct vread *rd);

#endif
