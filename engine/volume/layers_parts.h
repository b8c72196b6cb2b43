/* What the files of layers.h share: layers.c (what replicas have of sealed layers, what permits
 * say), begin.c, seal.c, retire.c, restore.c.
 *
 * None of them goes through all chunks of a volume in one turn, for at REG_CHUNKS_MAX of them that
 * takes up to 130 ms, in which the guest's operations stand still. They do v->layers.piece of them,
 * and ask for another turn (vlayers_later); what must be true from one moment on is a change of
 * pointers and counters. */
#ifndef VOLUME_LAYERS_PARTS_H
#define VOLUME_LAYERS_PARTS_H

#include "engine/volume/core.h"

/* -- layers.c ---------------------------------------------------------------------------------- */

/* There is more to do: the turn after VLAYERS_STEP_NS goes on with it. */
void vlayers_later(struct volume *v);
/* The set that is being sealed; NULL: none is. */
struct vset *vlayers_below(const struct volume *v);
/* enum vsealed_state of the chunk's slots, and whether it was touched (struct vsealed). */
uint8_t *vlayers_states(const struct volume *v, uint32_t sealed, chunk_no_t chunk);

static inline size_t vlayers_stride(const struct volume *v)
{
	return v->slot_count + 1;
}

static inline bool vlayers_touched(const struct volume *v, const uint8_t *states)
{
	return states[v->slot_count] != 0;
}

static inline void vlayers_touch_states(const struct volume *v, uint8_t *states)
{
	states[v->slot_count] = 1;
}

/* Slots that have all that the layer holds of the chunk; 0: that is not known. */
vmask_t vlayers_good_in(const struct volume *v, uint32_t sealed, chunk_no_t chunk);
/* A learner, of which nothing is known, or a member that must say again that it holds nothing. */
bool vlayers_wants_look(const struct vchunk *c, const uint8_t *states, uint32_t slot);
bool vlayers_wants_looks(const struct vchunk *c, const uint8_t *states); /* any slot */
/* The slot has all that the layer holds of the chunk, and need not be restored. */
bool vlayers_has(const struct volume *v, uint32_t sealed, const struct vchunk *c, uint32_t slot);
/* Something is known anew of what sealed layers hold of the chunk; of every chunk. */
void vlayers_learnt(struct volume *v, chunk_no_t chunk);
void vlayers_learnt_all(struct volume *v);
/* -ENOMEM. front: above those that there are. */
int vlayers_add_sealed(struct volume *v, volume_id_t id, bool front);

/* -- begin.c: a layer is put above the top one ------------------------------------------------- */

/* True: it may be switched to in this turn. */
bool vbegin_prepare(struct volume *v, volume_id_t layer);
void vbegin_switch(struct volume *v);
/* What was prepared is void. */
void vbegin_drop(struct volume *v);

/* -- seal.c: the one below it is settled ------------------------------------------------------- */

/* Something has happened: all that is not done is looked at again. */
void vseal_look(struct volume *v);
void vseal_run(struct volume *v);

/* -- retire.c: and ceases to be open ----------------------------------------------------------- */

/* False: no memory, the volume has ended. */
bool vretire(struct volume *v);
/* What a chunk of a retired set knew of its copies goes to the sealed layer's states. */
void vretire_take(struct vchunk *c, uint8_t *states);
/* Frees retired sets of which nothing is under way. */
void vretire_sweep(struct volume *v);

/* -- restore.c --------------------------------------------------------------------------------- */

void vrestore_some(struct volume *v);

#endif
