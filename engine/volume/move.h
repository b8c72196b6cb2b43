/* Moving a chunk: one of its replicas is replaced by another node's (engine/ARCHITECTURE.md,
 * "Moving a chunk"). The driver says which (Move: chunk, from, to), and alone decides when the map
 * changes; the host makes the new copy complete, and asks for the change.
 *
 *   LEARNING  the new node's slot is the chunk's learner: it gets every new write, and what was
 *             before by resync. It counts for nothing.
 *   SETTLING  it is complete. From now on a write needs enough copies of the old members and of the
 *             new ones (joint); what began before is decided, and answered by the learner
 *   MARKING   its watermark is durable there: it holds the chunk's seal
 *   ASKING    MoveCommit on its way to the driver, for as long as it takes: what became of it must
 *             be known before the chunk may do anything that rests on its members
 *   LEAVING   committed: the slot of `from` is no member any more; given up: the learner's. What is
 *             on the wire to it comes home, then nobody needs that copy
 *
 * A learner that fails or falls behind before ASKING learns again. The driver drops a move by not
 * listing it any more: that is heeded in every state but ASKING, whose answer tells. */
#ifndef VOLUME_MOVE_H
#define VOLUME_MOVE_H

#include "control.pb-c.h"
#include "engine/volume/chunk.h"

#define VMOVES_MAX   32u  /* of a volume at once; the driver gives fewer */
#define VMOVE_ASK_MS 200u /* from an answer that tells nothing to the next question */

struct vmove_engine {
	struct vmove *moves; /* VMOVES_MAX */
	struct reactor_task task;
};

int vmove_init(struct volume *v);
void vmove_deinit(struct volume *v); /* memory only */
void vmove_stop(struct volume *v);   /* nothing is asked any more */
void vmove_kick(struct volume *v);

/* The moves that the driver wants, all of them. */
void vmove_take_list(struct volume *v, Pave__V1__Move *const *list, size_t count);

/* The members that the chunk will have; PRE: c->move. */
vmask_t vmove_next_members(const struct vchunk *c);

/* Whether the driver may have changed the chunk's members without our knowing. */
bool vmove_in_doubt(const struct vchunk *c);

/* Chunks whose move is not over, for Renew; ret has VMOVES_MAX places. */
uint32_t vmove_chunks(const struct volume *v, uint32_t *ret);

#endif
