/* Layers, as the register knows them (engine/ARCHITECTURE.md, "Snapshots"): a tree, of which every
 * volume is the path from its top to a root. A volume that never had a snapshot, and is no clone,
 * has one layer, which has no record here: its id is the volume's.
 *
 *   OPEN: its owner's attachment writes it --sealed by that attachment--> SEALED, for ever
 *
 * Ids come from the same counter as those of volumes.
 *
 * What a deleted snapshot alone showed, and what others deleted, is given back by merging sealed
 * layers (merge.c). When it lies in a layer on which nothing stands any more but the top of a
 * volume that is written, that top is sealed once, without a snapshot:
 *
 *   none --the last but the top goes (layers_drop)--> WANTED: reg_volume.seal_wanted, in the batch
 *   of the deletion --the nodes say that both layers have something of one chunk--> it PAYS (a
 *   note of the running driver) --a host, or a maintenance that is asked for, has it--> the top
 *   gets another one above it, and nothing is WANTED any more, in one batch; the holder settles
 *   the two as those of a snapshot --sealed--> what has become of the top is merged as any other
 *
 * Whatever else gives the volume another top (a snapshot, a rollback) ends WANTED as well, and so
 * does the nodes' word that there is nothing to gain. After the merge the volume stands on as many
 * layers as before; only another deletion begins anew. A driver that takes over finds WANTED, or
 * both layers, in the register, and asks again.
 *
 * Invariants:
 * 1. A layer with children takes no new guest writes; only the owner's attachment may still settle
 *    it, until it is sealed.
 * 2. The volumes of a family (they share layers) have one policy; where they lie: family.h.
 * 3. A layer goes when it has neither children nor a volume of which it is the top.
 *
 * Thread: the driver's reactor. Changes are saved as those of the register are. */
#ifndef PLACEMENT_LAYERS_H
#define PLACEMENT_LAYERS_H

#include <string.h>

#include "engine/evidence/permit.h"
#include "engine/placement/register.h"

/* What a volume may have: what a permit can name. Snapshots leave one of them for a top that is
 * sealed without one: or nothing could ever be merged of a volume with the most layers. */
#define LAYERS_MAX	     PERMIT_LAYERS_MAX
#define LAYERS_SNAPSHOTS_MAX (LAYERS_MAX - 2)

/* From a deletion to a seal: whoever deletes a snapshot may take another, which seals too, or want
 * more of a volume that nobody must have for that. */
#define LAYERS_SEAL_AFTER_S 20u

struct reg_layer {
	volume_id_t id;
	volume_id_t parent; /* 0: a root */
	volume_id_t owner;  /* the volume that writes it, or wrote it */
	bool sealed;
	volume_id_t merging; /* the one above it, of which something is in it already; else 0 */
	uint32_t children;   /* when they were last counted; not kept */
	UT_hash_handle hh;
};

struct reg_layer *layers_find(struct reg *reg, volume_id_t id);
/* Not saved yet. NULL: no memory. */
struct reg_layer *layers_add(struct reg *reg, volume_id_t id, volume_id_t parent,
			     volume_id_t owner);
void layers_save(struct reg *reg, const struct reg_layer *l);
/* Nothing stands on it any more. It is freed. */
void layers_forget(struct reg *reg, struct reg_layer *l);
void layers_free_all(struct reg *reg);
/* A new id; 0: there are no more. */
volume_id_t layers_new_id(struct reg *reg);

/* The volume's layers from the top. Returns how many (at most max). */
uint32_t layers_of(struct reg *reg, const struct reg_volume *v, volume_id_t *ret_ids, uint32_t max);
volume_id_t layers_top(const struct reg_volume *v);
/* The volume writes to this one from now on. Of the one before no seal is wanted any more. */
void layers_set_top(struct reg_volume *v, volume_id_t top);

/* The layer of v, below the top, that is not sealed; NULL: all are. */
struct reg_layer *layers_open_below(struct reg *reg, const struct reg_volume *v);

/* Says that v must wait for `open` to be sealed. Returns -E_IN_USE. */
int layers_unsettled(struct reg *reg, const struct reg_volume *v, const struct reg_layer *open,
		     struct error *err);

/* Of all layers at once. */
void layers_count_children(struct reg *reg);
uint32_t layers_children(const struct reg *reg, volume_id_t id);

/* The volume gives its top layer up: forgets it and what only it needed below. Puts the ids of
 * those that nodes are to erase into ret_ids (LAYERS_MAX places); returns how many. The volume that
 * is left alone on what stays is saved as one whose top is to be sealed. */
uint32_t layers_drop(struct reg *reg, volume_id_t top, volume_id_t *ret_ids);

/* kv_scan's callback for "layer/..." of META; arg is the register. */
int layers_load(const void *key, size_t key_size, const void *value, size_t value_size, void *arg);
#define LAYERS_KEY_PREFIX "layer/"

/* NAME@SNAPSHOT is a volume that is only read. */
static inline bool reg_volume_is_snapshot(const struct reg_volume *v)
{
	return strchr(v->name, '@') != NULL;
}

#endif
