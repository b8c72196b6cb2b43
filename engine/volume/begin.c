/* begin: a layer is put above the top one (layers.h), between two writes of the guest.
 *
 *   vbegin_prepare, turn by turn: a set of chunks is made, a piece at a time; a chunk of the top
 * layer that changes after its successor was made goes into a list, and is taken over again -->
 *   the list is empty --vbegin_switch, in that same turn--> the set is the top one
 *
 * INVARIANTS
 *  1. Until the switch nobody sees the set, and every write goes to the old one: the permit that
 *     names the new layer names the old one as open, too.
 *  2. What a chunk of the set takes from the old one is its members, its last sequence and the
 *     writes that wait for it. Members do not change while there is a set to come
 *     (vlayers_settled_below); of the other two vlayers_changed tells.
 *  3. At the switch every chunk is as the old one is: all that changed since is in the lists, and
 *     what is in them is taken over then. They are short, for they were emptied in this turn. */
#include <errno.h>
#include <stdlib.h>
#include <utlist.h>

#include "engine/base/assert.h"
#include "engine/base/log.h"
#include "engine/volume/layers_parts.h"

/* Versions go on, so that what is above is always newer. */
static void take_last(struct vset *set, const struct vchunk *old)
{
	set->chunks[old->no].window.last_seq = old->window.last_seq;
}

/* Nobody but this attachment ever knew of the layer: it is empty everywhere, on nodes that are
 * away, too. So every slot is current, and what it is known to hold is true. */
static void prepare(struct volume *v, struct vset *set, struct vchunk *old)
{
	struct vlayers *l = &v->layers;
	struct vchunk *c = &set->chunks[old->no];

	volume_make_chunk(v, set, old->no, NULL);
	c->state = VCHUNK_SERVING;
	c->members = old->members;
	for (uint32_t i = 0; i < v->slot_count; i++) {
		struct vslot *s = &c->slots[i];

		if ((c->members & vmask_bit(i)) == 0)
			continue;
		s->chunk = c;
		s->node = old->slots[i].node;
		s->replica = old->slots[i].replica;
		s->current = s->fresh = true;
	}
	take_last(set, old);
	if (old->writes == NULL)
		return;
	old->stale = true;
	LL_PREPEND2(l->queued, old, stale_next);
}

void vlayers_changed(struct vchunk *c)
{
	struct volume *v = c->volume;
	struct vlayers *l = &v->layers;

	if (l->coming == NULL || c->set != v->sets || c->no >= l->prepared || c->stale)
		return;
	c->stale = true;
	LL_PREPEND2(l->stale, c, stale_next);
}

static void clear(struct vchunk **list)
{
	while (*list != NULL) {
		struct vchunk *c = *list;

		LL_DELETE2(*list, c, stale_next);
		c->stale = false;
	}
}

void vbegin_drop(struct volume *v)
{
	clear(&v->layers.stale);
	clear(&v->layers.queued);
	volume_free_set(v->layers.coming);
	v->layers.coming = NULL;
	v->layers.prepared = 0;
}

void vlayers_prepare_again(struct volume *v)
{
	if (v->layers.coming != NULL)
		vbegin_drop(v);
}

bool vbegin_prepare(struct volume *v, volume_id_t layer)
{
	struct vlayers *l = &v->layers;
	uint32_t left = l->piece;

	if (l->coming != NULL && l->coming->layer != layer)
		vbegin_drop(v);
	if (l->coming == NULL)
		l->coming = volume_new_set(v, layer);
	if (l->coming == NULL) {
		volume_end(v, -ENOMEM, "no memory for another layer");
		return false;
	}
	for (; left > 0 && l->prepared < v->chunk_count; left--)
		prepare(v, l->coming, &v->chunks[l->prepared++]);
	for (; left > 0 && l->stale != NULL; left--) {
		struct vchunk *old = l->stale;

		LL_DELETE2(l->stale, old, stale_next);
		take_last(l->coming, old);
		if (old->writes != NULL)
			LL_PREPEND2(l->queued, old, stale_next);
		else
			old->stale = false;
	}
	if (l->prepared == v->chunk_count && l->stale == NULL)
		return true;
	vlayers_later(v);
	return false;
}

/* The writes that wait go with the guest's next ones. */
static void take_writes(struct vset *set, struct vchunk *old)
{
	struct vchunk *c = &set->chunks[old->no];
	struct vpiece *p, *next;

	DL_FOREACH_SAFE (old->writes, p, next) {
		vchunk_unqueue_write(p);
		p->chunk = c;
		vchunk_queue_write(c, p);
	}
}

void vbegin_switch(struct volume *v)
{
	struct vlayers *l = &v->layers;
	struct vset *old = v->sets, *set = l->coming;
	struct vchunk *c;

	PRE(set != NULL && l->prepared == v->chunk_count && l->stale == NULL);
	PRE(old->below == NULL);
	for (c = l->queued; c != NULL; c = c->stale_next) {
		take_last(set, c);
		take_writes(set, c);
	}
	clear(&l->queued);
	set->below = old;
	old->above = set;
	LL_PREPEND(v->sets, set);
	v->chunks = set->chunks;
	l->coming = NULL;
	l->prepared = 0;
	v->stats.layers_begun++;
}
