/* Where the members of a family lie: volumes that share layers (layers.h). Each has a map of its
 * own, and moves on its own; a layer lies wherever one of the volumes that stand on it does.
 *
 *   a member leaves a node: a drop (register.h) --its layers, without those that another member
 *   still has there, or has not let go of yet--> Erase --> the drop is gone
 *
 * So the last one to leave has the shared layers erased. A snapshot that nobody has attached, all
 * of whose layers a volume brings along when it moves, changes its map together with that volume's.
 *
 * Thread: the driver's reactor. Changes are saved as those of the register are. */
#ifndef PLACEMENT_FAMILY_H
#define PLACEMENT_FAMILY_H

#include "engine/placement/layers.h"

static inline volume_id_t family_of(const struct reg_volume *v)
{
	return v->family != 0 ? v->family : v->id;
}

/* Whether the layer is one of the volume's. */
bool family_stands_on(struct reg *reg, const struct reg_volume *v, volume_id_t layer);

/* Another member that stands on the layer; NULL: none. */
const struct reg_volume *family_other_on(struct reg *reg, const struct reg_volume *v,
					 volume_id_t layer);

/* Another member that stands on a layer of v's; NULL: none. */
const struct reg_volume *family_sharer(struct reg *reg, const struct reg_volume *v);

/* Somebody has another member attached that stands on the layer, and that has on the node whatever
 * v has there: its host is told of damage there, and repairs it. One who only reads is not. */
bool family_has_host(struct reg *reg, const struct reg_volume *v, volume_id_t layer,
		     const struct reg_node *n, int64_t now);

/* A member that still has something to let go of there: no target for the chunk. */
bool family_drops(struct reg *reg, const struct reg_volume *v, chunk_no_t chunk,
		  const struct reg_node *n);

/* What is to be erased of the chunk that v has dropped: its layers that no other member has there.
 * Returns how many (LAYERS_MAX places). */
uint32_t family_erasable(struct reg *reg, const struct reg_volume *v, chunk_no_t chunk,
			 const struct reg_node *n, volume_id_t *ret_ids);

/* A node that another member moves the same copy to, or has moved it to: then what they share is
 * copied once, and lies in one place. NULL: none. */
struct reg_node *family_target(struct reg *reg, const struct reg_volume *v, chunk_no_t chunk,
			       const struct reg_node *from);

/* Whether the snapshot's copy of the chunk moves by itself when `by` (NULL: some volume's) moves:
 * nobody has it, and all that it stands on comes along. */
bool family_follows(struct reg *reg, struct reg_volume *s, chunk_no_t chunk,
		    const struct reg_volume *by);

/* v gives up its chain of layers, of which the first `dropped` go: what it alone had of the others
 * on some node is to be erased there. -ENOMEM. */
int family_leave(struct reg *reg, struct reg_volume *v, uint32_t dropped);

#endif
