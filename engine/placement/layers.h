/* Layers, as the register knows them (engine/ARCHITECTURE.md, "Snapshots"): a tree, of which every
 * volume is the path from its top to a root. A volume that never had a snapshot, and is no clone,
 * has one layer, which has no record here: its id is the volume's.
 *
 *   OPEN: its owner's attachment writes it --sealed by that attachment--> SEALED, for ever
 *
 * Ids come from the same counter as those of volumes.
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

/* What a volume may have, one below what a permit can name: so that another snapshot is refused
 * before attaching is. */
#define LAYERS_MAX (PERMIT_LAYERS_MAX - 1)

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

/* The layer of v, below the top, that is not sealed; NULL: all are. */
struct reg_layer *layers_open_below(struct reg *reg, const struct reg_volume *v);

/* Says that v must wait for `open` to be sealed. Returns -E_IN_USE. */
int layers_unsettled(struct reg *reg, const struct reg_volume *v, const struct reg_layer *open,
		     struct error *err);

/* Of all layers at once. */
void layers_count_children(struct reg *reg);
uint32_t layers_children(const struct reg *reg, volume_id_t id);

/* The volume gives its top layer up: forgets it and what only it needed below. Puts the ids of
 * those that nodes are to erase into ret_ids (LAYERS_MAX places); returns how many. */
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
