/* The window of a chunk: its writes in the order of their sequence, from the oldest that somebody
 * still waits for. A pure core: no I/O, no clock, no memory of its own.
 *
 * It answers one question in O(1): up to which sequence does slot i hold everything (vwindow_low)?
 * That is the watermark that the slot may be told.
 *
 * INVARIANT: a watermark never covers a write that is undecided. A replica that answered a write
 * which no majority has holds a phantom as soon as this host dies; only what lies above its
 * watermark is looked at again, so the watermark must stay below it. (Covering what the replica
 * alone answered would let the phantom hide under it: test phantom_below_the_watermark.) */
#ifndef VOLUME_WINDOW_H
#define VOLUME_WINDOW_H

#include <stdbool.h>

#include "engine/base/types.h"
#include "engine/volume/quorum.h"

/* Embedded in the write. */
struct vwindow_entry {
	struct vwindow_entry *next, *prev;
	uint64_t seq;
	vmask_t pending; /* slots that have not answered yet */
	bool decided;	 /* acknowledged, or failed and settled */
	bool inside;
};

struct vwindow {
	struct vwindow_entry *head, *tail;
	struct vwindow_entry *oldest[VSLOTS_MAX]; /* the first with the slot's bit; NULL: none */
	struct vwindow_entry *undecided;	  /* the first that is not; NULL: none */
	uint64_t last_seq;			  /* given to the newest write; 0: none yet */
	uint32_t count;
};

/* Zeroed memory is an empty window. */

/* Gives e the next sequence and puts it at the end, undecided, awaited from the slots of pending.
 */
void vwindow_add(struct vwindow *w, struct vwindow_entry *e, vmask_t pending);

/* Slot is awaited no more. Harmless when it wasn't. */
void vwindow_clear(struct vwindow *w, struct vwindow_entry *e, uint32_t slot);

void vwindow_decide(struct vwindow *w, struct vwindow_entry *e);

/* Takes e out: PRE nobody is awaited and it is decided, or the chunk starts anew. */
void vwindow_remove(struct vwindow *w, struct vwindow_entry *e);

/* Everything up to this sequence is decided, and answered by the slot if it was awaited. */
uint64_t vwindow_low(const struct vwindow *w, uint32_t slot);

/* Everything below seq is decided. */
bool vwindow_decided_below(const struct vwindow *w, uint64_t seq);

/* Nothing below seq is awaited from the slot. */
bool vwindow_answered_below(const struct vwindow *w, uint32_t slot, uint64_t seq);

#endif
