/* window: see window.h. Cursors only move towards newer entries, so that keeping them costs O(1) a
 * write, taken over its life. */
#include "engine/volume/window.h"

#include "engine/base/assert.h"

void vwindow_add(struct vwindow *w, struct vwindow_entry *e, vmask_t pending)
{
	PRE(!e->inside);
	PRE(w->last_seq < VERSION_SEQ_MAX);
	*e = (struct vwindow_entry){
	    .prev = w->tail,
	    .seq = ++w->last_seq,
	    .pending = pending,
	    .inside = true,
	};
	if (w->tail != NULL)
		w->tail->next = e;
	else
		w->head = e;
	w->tail = e;
	w->count++;
	for (uint32_t i = 0; i < VSLOTS_MAX; i++)
		if ((pending & vmask_bit(i)) != 0 && w->oldest[i] == NULL)
			w->oldest[i] = e;
	if (w->undecided == NULL)
		w->undecided = e;
}

static void advance_slot(struct vwindow *w, uint32_t slot)
{
	struct vwindow_entry *e = w->oldest[slot];

	while (e != NULL && (e->pending & vmask_bit(slot)) == 0)
		e = e->next;
	w->oldest[slot] = e;
}

static void advance_undecided(struct vwindow *w)
{
	while (w->undecided != NULL && w->undecided->decided)
		w->undecided = w->undecided->next;
}

void vwindow_clear(struct vwindow *w, struct vwindow_entry *e, uint32_t slot)
{
	PRE(slot < VSLOTS_MAX);
	e->pending &= ~vmask_bit(slot);
	if (e->inside && w->oldest[slot] == e)
		advance_slot(w, slot);
}

void vwindow_decide(struct vwindow *w, struct vwindow_entry *e)
{
	PRE(e->inside);
	e->decided = true;
	advance_undecided(w);
}

void vwindow_remove(struct vwindow *w, struct vwindow_entry *e)
{
	PRE(e->inside);
	e->decided = true;
	e->pending = 0;
	advance_undecided(w);
	for (uint32_t i = 0; i < VSLOTS_MAX; i++)
		if (w->oldest[i] == e)
			advance_slot(w, i);
	if (e->prev != NULL)
		e->prev->next = e->next;
	else
		w->head = e->next;
	if (e->next != NULL)
		e->next->prev = e->prev;
	else
		w->tail = e->prev;
	e->next = e->prev = NULL;
	e->inside = false;
	w->count--;
}

uint64_t vwindow_low(const struct vwindow *w, uint32_t slot)
{
	uint64_t low = w->last_seq;

	if (w->undecided != NULL)
		low = MIN(low, w->undecided->seq - 1);
	if (w->oldest[slot] != NULL)
		low = MIN(low, w->oldest[slot]->seq - 1);
	return low;
}

bool vwindow_decided_below(const struct vwindow *w, uint64_t seq)
{
	return w->undecided == NULL || w->undecided->seq >= seq;
}

bool vwindow_answered_below(const struct vwindow *w, uint32_t slot, uint64_t seq)
{
	return w->oldest[slot] == NULL || w->oldest[slot]->seq >= seq;
}
