/* mark: watermarks that are sent by themselves: the seal of a reconciled chunk, and what an idle
 * chunk's replicas are told, so that the next attachment finds nothing to reconcile.
 *
 * A chunk is dirty from its first write until every current slot that can be reached has been told
 * of its last. The list of dirty chunks is in the order of their last write. */
#include <stdlib.h>
#include <utlist.h>

#include "engine/base/assert.h"
#include "engine/volume/core.h"

static void give_back(struct vmark *m)
{
	struct volume *v = m->chunk->volume;

	m->chunk->slots[m->slot].marking--;
	m->next = v->marks_free;
	v->marks_free = m;
	v->marks_busy--;
	m->chunk->marks_begun--;
	volume_event(v);
}

/* The owner hears of it when the request is idle. */
static void finish(struct vmark *m, int status)
{
	void (*done)(struct vmark *, int) = m->done;
	struct vslot *s = &m->chunk->slots[m->slot];

	if (status == 0)
		s->told = MAX(s->told, m->watermark);
	if (done != NULL)
		done(m, status);
	else if (status != 0 && s->current)
		vchunk_mark_dirty(m->chunk);
	give_back(m);
}

static void mark_fill(struct vrequest *q)
{
	const struct vmark *m = q->owner;

	m->chunk->slots[m->slot].fresh = false;
	q->send.frame = (struct frame){
	    .op = FRAME_WATERMARK,
	    .chunk = m->chunk->no,
	    .layer = m->chunk->layer,
	    .watermark = m->watermark,
	};
}

static void mark_answered(struct vrequest *q, int status, const struct frame *f)
{
	struct vmark *m = q->owner;

	(void)f;
	m->status = status;
	if (status == -E_FENCED)
		volume_end(m->chunk->volume, status, err_text(status));
	else if (status == -E_DEVICE)
		vchunk_slot_refused(m->chunk, m->slot);
	else if (status != 0)
		vreplica_disconnect(q->replica, status);
}

static void mark_released(struct vrequest *q)
{
	struct vmark *m = q->owner;

	finish(m, m->status);
}

static void mark_lost(struct vrequest *q)
{
	finish(q->owner, -E_DISCONNECTED);
}

static const struct vrequest_ops mark_ops = {
    .fill = mark_fill,
    .answered = mark_answered,
    .released = mark_released,
    .lost = mark_lost,
};

struct vmark *vmark_send(struct vchunk *c, uint32_t slot, version_t watermark,
			 void (*done)(struct vmark *m, int status), void *owner)
{
	struct volume *v = c->volume;
	struct vmark *m = v->marks_free;

	if (m == NULL || !vslot_ready(&c->slots[slot]))
		return NULL;
	v->marks_free = m->next;
	v->marks_busy++;
	c->slots[slot].marking++;
	c->marks_begun++;
	*m = (struct vmark){
	    .request = {.ops = &mark_ops, .owner = m},
	    .chunk = c,
	    .slot = slot,
	    .watermark = watermark,
	    .done = done,
	    .owner = owner,
	};
	vreplica_submit(c->slots[slot].replica, &m->request);
	return m;
}

static void ignore(struct vmark *m, int status)
{
	(void)m;
	(void)status;
}

void vmark_cancel(struct vmark *m)
{
	m->done = ignore;
	if (vreplica_cancel(&m->request))
		give_back(m);
}

/* -- dirty chunks ------------------------------------------------------------------------------ */

void vchunk_mark_dirty(struct vchunk *c)
{
	struct volume *v = c->volume;

	if (c->set->retired)
		return;
	if (c->dirty)
		DL_DELETE2(v->dirty, c, dirty_prev, dirty_next);
	c->dirty = true;
	c->dirty_ns = volume_now(v);
	DL_APPEND2(v->dirty, c, dirty_prev, dirty_next);
}

/* True when every current slot that can be reached has been told, or is being told, of the last
 * write. False: something is unanswered, or there was no place in the pool. */
static bool settle_chunk(struct vchunk *c)
{
	const version_t last = version_make(c->volume->generation, c->window.last_seq);
	bool settled = true;

	if (c->settled || c->set->retired)
		return true; /* it has its last word, or must get none (layers.h) */
	for (uint32_t i = 0; i < c->volume->slot_count; i++) {
		struct vslot *s = &c->slots[i];
		version_t watermark;

		if ((vchunk_used(c) & vmask_bit(i)) == 0 || !s->current || !vslot_ready(s))
			continue; /* when it comes back the chunk is dirty again */
		watermark = vchunk_watermark(c, i);
		if (watermark < last)
			settled = false;
		else if (s->told < watermark && vmark_send(c, i, watermark, NULL, NULL) == NULL)
			settled = false;
	}
	return settled;
}

uint32_t vchunk_settle(struct volume *v, bool all)
{
	const uint64_t now_ns = volume_now(v);
	struct vchunk *c, *next;
	uint32_t left = 0;

	DL_FOREACH_SAFE2(v->dirty, c, next, dirty_next)
	{
		if (!all && now_ns - c->dirty_ns < VCHUNK_IDLE_MS * NS_PER_MS)
			break;
		if (v->marks_free == NULL)
			return 1;
		if (c->state == VCHUNK_SERVING && !settle_chunk(c)) {
			left++;
			continue;
		}
		DL_DELETE2(v->dirty, c, dirty_prev, dirty_next);
		c->dirty = false;
	}
	return left;
}
