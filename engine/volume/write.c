/* write: see write.h.
 *
 * INVARIANTS
 *  1. A write is counted as acknowledged at one place (vwrite_judge), and only with the gate open
 * at that moment, over slots that the permit in force names.
 *  2. A slot that may hold a write which failed, or lacks one that was acknowledged, is behind.
 *  3. An abandoned write is in neither window nor table; it exists until its requests come home.
 *
 * Failure modes: a lost connection keeps the write queued for the slot (its backlog); a refusal by
 * the node's gate ends the connection and does the same; E_FENCED ends the attachment. */
#include "engine/volume/write.h"

#include <errno.h>
#include <stdlib.h>
#include <utlist.h>

#include "engine/base/assert.h"
#include "engine/volume/core.h"

/* -- pool -------------------------------------------------------------------------------------- */

int vwrite_pool_init(struct vwrite_pool *p, uint32_t slots)
{
	p->stride = ROUND_UP(sizeof(struct vwrite) + slots * sizeof(struct vrequest), 64);
	p->memory = calloc(VWRITE_POOL_MAX, p->stride);
	p->free_count = VWRITE_POOL_MAX;
	return p->memory != NULL ? 0 : -ENOMEM;
}

void vwrite_pool_deinit(struct vwrite_pool *p)
{
	free(p->memory);
	*p = (struct vwrite_pool){0};
}

static struct vwrite *pool_get(struct vwrite_pool *p, bool own)
{
	struct vwrite *w = p->free;

	if (p->free_count <= (own ? 0 : VWRITE_POOL_RESERVE))
		return NULL;
	p->free_count--;
	if (w != NULL)
		p->free = w->next;
	else
		w = (struct vwrite *)(void *)(p->memory + p->stride * p->touched++);
	return w;
}

/* -- the span table ---------------------------------------------------------------------------- */

static uint32_t span_bucket(chunk_no_t chunk, uint32_t shift, uint32_t group)
{
	return (uint32_t)(((chunk * 0x9e3779b97f4a7c15ull) + ((uint64_t)shift << 32 | group)) *
			      0xd6e8feb86659fd93ull >>
			  40) %
	       VSPAN_BUCKETS;
}

static uint32_t span_shift(bool wide)
{
	return wide ? VSPAN_SHIFT_WIDE : VSPAN_SHIFT_NARROW;
}

static void spans_add(struct vwrite *w)
{
	struct volume *v = w->chunk->volume;
	const block_no_t end = w->what.block + w->what.block_count;
	uint32_t shift, first;

	w->wide = w->what.block_count > 1u << VSPAN_SHIFT_NARROW;
	shift = span_shift(w->wide);
	first = w->what.block >> shift;
	w->span_count = ((end - 1) >> shift) - first + 1;
	INVARIANT(w->span_count <= VSPANS_MAX);
	v->span_counts[w->wide] += w->span_count;
	for (uint32_t i = 0; i < w->span_count; i++) {
		struct vspan *s = &w->spans[i];
		struct vspan **head = &v->spans[span_bucket(w->chunk->no, shift, first + i)];

		*s = (struct vspan){
		    .next = *head, .link = head, .write = w, .block = w->what.block, .end = end};
		if (*head != NULL)
			(*head)->link = &s->next;
		*head = s;
	}
}

static void spans_remove(struct vwrite *w)
{
	for (uint32_t i = 0; i < w->span_count; i++) {
		struct vspan *s = &w->spans[i];

		*s->link = s->next;
		if (s->next != NULL)
			s->next->link = s->link;
	}
	w->chunk->volume->span_counts[w->wide] -= w->span_count;
	w->span_count = 0;
}

/* Adds what the table has of the blocks, in entries of one width. A write may be met twice. */
static void look_through(const struct vchunk *c, bool wide, block_no_t block, block_no_t end,
			 uint64_t seq_max, struct vwrite_overlap *o)
{
	const uint32_t shift = span_shift(wide);

	for (uint32_t g = block >> shift; g <= (end - 1) >> shift; g++) {
		const struct vspan *s = c->volume->spans[span_bucket(c->no, shift, g)];

		for (; s != NULL; s = s->next) {
			const struct vwrite *w = s->write;

			if (s->block >= end || block >= s->end || w->chunk != c)
				continue;
			o->any = true;
			if (w->acked)
				o->missing |= w->entry.pending;
			else if (w->entry.seq <= seq_max)
				o->undecided = true;
		}
	}
}

struct vwrite_overlap vwrite_overlaps(const struct vchunk *c, block_no_t block,
				      uint32_t block_count, uint64_t seq_max)
{
	const struct volume *v = c->volume;
	struct vwrite_overlap o = {0};

	for (int wide = 0; wide <= 1; wide++)
		if (v->span_counts[wide] > 0)
			look_through(c, wide, block, block + block_count, seq_max, &o);
	return o;
}

/* -- bookkeeping ------------------------------------------------------------------------------- */

static uint32_t slot_of(const struct vwrite *w, const struct vrequest *q)
{
	return (uint32_t)(q - w->requests);
}

static struct vwrite *write_of(struct vrequest *q)
{
	return q->owner;
}

static void give_back(struct vwrite *w)
{
	struct volume *v = w->chunk->volume;

	w->chunk->writes_begun--;
	vbuffers_put(&v->buffers, w->what.buffer);
	w->next = v->writes.free;
	v->writes.free = w;
	v->writes.free_count++;
	volume_room(v);
}

static void window_add(struct vwrite *w, vmask_t pending)
{
	struct vchunk *c = w->chunk;

	vwindow_add(&c->window, &w->entry, pending);
	if (!c->busy)
		DL_APPEND2(c->volume->busy, c, busy_prev, busy_next);
	c->busy = true;
	vlayers_changed(c);
}

static void window_remove(struct vwrite *w)
{
	struct vchunk *c = w->chunk;

	vwindow_remove(&c->window, &w->entry);
	if (c->window.head != NULL)
		return;
	DL_DELETE2(c->volume->busy, c, busy_prev, busy_next);
	c->busy = false;
}

/* Frees what nobody needs any more. w may be gone after this. */
static void retire(struct vwrite *w)
{
	if (!w->decided)
		return;
	if (w->entry.inside && w->entry.pending == 0) {
		window_remove(w);
		spans_remove(w);
	}
	if (!w->entry.inside && w->busy == 0)
		give_back(w);
}

/* The slot is awaited no more. */
static void clear_pending(struct vwrite *w, uint32_t slot)
{
	struct vreplica *r = w->chunk->slots[slot].replica;

	if ((w->entry.pending & vmask_bit(slot)) == 0)
		return;
	if (w->acked) {
		r->backlog_ops--;
		r->backlog_bytes -= vwrite_bytes(w);
	}
	vwindow_clear(&w->chunk->window, &w->entry, slot);
}

static void count_backlog(struct vwrite *w)
{
	for (uint32_t i = 0; i < w->chunk->volume->slot_count; i++) {
		struct vreplica *r = w->chunk->slots[i].replica;

		if ((w->entry.pending & vmask_bit(i)) == 0)
			continue;
		r->backlog_ops++;
		r->backlog_bytes += vwrite_bytes(w);
		if ((r->backlog_ops > VOLUME_BACKLOG_OPS_MAX ||
		     r->backlog_bytes > VOLUME_BACKLOG_BYTES_MAX) &&
		    !r->overflow_wanted) {
			r->overflow_wanted = true;
			vchunk_kick(w->chunk);
		}
	}
}

/* Out of everything; what is on the wire comes home to a zombie. */
static void take_out(struct vwrite *w)
{
	for (uint32_t i = 0; i < w->chunk->volume->slot_count; i++) {
		clear_pending(w, i);
		if (w->requests[i].state == VREQUEST_QUEUED && vreplica_cancel(&w->requests[i]))
			w->busy--;
		else if (w->requests[i].state == VREQUEST_SENT)
			w->chunk->slots[i].zombies++;
	}
	vlayers_undone(w->chunk);
	w->retry = 0;
	if (w->entry.inside) {
		window_remove(w);
		spans_remove(w);
	}
	w->abandoned = true;
}

/* -- deciding ---------------------------------------------------------------------------------- */

static void decide_acked(struct vwrite *w)
{
	struct vchunk *c = w->chunk;
	const struct vchunk *above = vchunk_above(c);
	const vmask_t lacking = w->votes.refused | w->votes.unknown;

	w->decided = w->acked = true;
	vwindow_decide(&c->window, &w->entry);
	count_backlog(w);
	for (uint32_t i = 0; i < c->volume->slot_count; i++)
		if ((lacking & vmask_bit(i)) != 0)
			vchunk_slot_behind(c, i);
	if (c->reads.head != NULL || (above != NULL && above->reads.head != NULL))
		vchunk_kick(c);
	if (above != NULL)
		volume_event(c->volume); /* it may be the last before the seal */
	w->what.decided(w, 0);
	retire(w);
}

static void settle_failed(struct vwrite *w, int status, bool tell)
{
	struct vchunk *c = w->chunk;
	const vmask_t holders = vquorum_holders(&w->votes);

	w->decided = true;
	take_out(w);
	vchunk_write_failed(c, holders);
	if (tell)
		w->what.decided(w, status);
	retire(w);
}

void vwrite_fail(struct vwrite *w)
{
	if (!w->decided)
		settle_failed(w, 0, false);
}

/* Of a chunk that moves, the members that are to be must agree to what began after they were asked
 * for. */
static enum vquorum_verdict judge(const struct vwrite *w, vmask_t permitted)
{
	const struct vchunk *c = w->chunk;
	const enum vquorum_verdict v =
	    vquorum_judge(c->members, w->what.need, &w->votes, permitted);
	enum vquorum_verdict next;

	if (!c->joint || w->entry.seq <= c->joint_seq || v == VQUORUM_FAILED)
		return v;
	next = vquorum_judge(vmove_next_members(c), w->what.need, &w->votes, permitted);
	return next == VQUORUM_ACKED ? v : next;
}

static bool may_be_enough(const struct vwrite *w, vmask_t permitted)
{
	const struct vchunk *c = w->chunk;
	const vmask_t copies = (w->votes.ok & permitted) | w->entry.pending;

	return vmask_count(copies & c->members) >= w->what.need &&
	       (!c->joint || w->entry.seq <= c->joint_seq ||
		vmask_count(copies & vmove_next_members(c)) >= w->what.need);
}

void vwrite_judge(struct vwrite *w)
{
	struct vchunk *c = w->chunk;
	struct volume *v = c->volume;
	const vmask_t permitted = vchunk_permitted_slots(c);

	if (w->decided)
		return;
	switch (judge(w, permitted)) {
	case VQUORUM_ACKED:
		/* The pause: the clock is read again, for this may run long after the turn began.
		 */
		gate_refresh(v->reactor);
		if (volume_gate_open(v))
			decide_acked(w);
		return;
	case VQUORUM_FAILED:
		settle_failed(w, w->error != 0 ? w->error : -EIO, true);
		return;
	case VQUORUM_PENDING:
		/* Its copies were given up with their nodes: it must begin again where it can. */
		if (!may_be_enough(w, permitted))
			settle_failed(w, -E_STALE_REPLICA, true);
		return;
	}
}

void vwrite_forget(struct vwrite *w, uint32_t slot)
{
	if (w->requests[slot].state == VREQUEST_QUEUED && vreplica_cancel(&w->requests[slot]))
		w->busy--;
	clear_pending(w, slot);
	retire(w);
}

void vwrite_abandon(struct vwrite *w)
{
	const bool tell = !w->decided;

	w->decided = true;
	take_out(w);
	if (tell)
		w->what.decided(w, -E_STALE_REPLICA);
	retire(w);
}

/* -- requests ---------------------------------------------------------------------------------- */

static bool is_gate_refusal(int status)
{
	switch (-status) {
	case E_NO_LEASE:
	case E_LEASE_EXPIRED:
	case E_NO_PERMIT:
	case E_PERMIT_EXPIRED:
	case E_NOT_IN_PERMIT:
	case E_REVOKED:
	case E_CLOCK_SKEW:
	case E_MAP_VERSION:
	case E_DENIED:
	case E_STALE_EVIDENCE:
	case E_LIMIT: /* not the gate's, but the same cure: later, again */
		return true;
	default:
		return false;
	}
}

static void write_fill(struct vrequest *q)
{
	struct vwrite *w = write_of(q);
	struct vchunk *c = w->chunk;
	const uint32_t slot = slot_of(w, q);
	struct frame *f = &q->send.frame;

	w->votes.sent |= vmask_bit(slot);
	c->slots[slot].outstanding++;
	c->slots[slot].fresh = false;
	*f = (struct frame){
	    .op = w->what.zero ? FRAME_ZERO : FRAME_WRITE,
	    .flags =
		(uint16_t)((w->what.discard ? FRAME_F_DISCARD : 0) | (w->own ? FRAME_F_SETTLE : 0)),
	    .chunk = c->no,
	    .layer = c->layer,
	    .block = w->what.block,
	    .block_count = w->what.block_count,
	    .version = version_make(c->volume->generation, w->entry.seq),
	    .watermark = c->slots[slot].current ? vchunk_watermark(c, slot) : 0,
	};
	if (w->what.zero)
		return;
	f->payload_size = w->what.block_count * BLOCK_SIZE;
	f->crc_count = frame_crc_count(f->payload_size);
	f->crcs = w->what.buffer->crcs + w->what.buffer_block;
	q->send.iov[0].iov_base = w->what.buffer->data + (size_t)w->what.buffer_block * BLOCK_SIZE;
	q->send.iov[0].iov_len = f->payload_size;
	q->send.iov_count = 1;
}

/* An answer of a slot that is still awaited. */
static void take_answer(struct vwrite *w, struct vrequest *q, uint32_t slot, int status)
{
	struct vchunk *c = w->chunk;
	const vmask_t bit = vmask_bit(slot);

	if (status == 0) {
		w->votes.ok |= bit;
		if (q->send.frame.watermark > c->slots[slot].told)
			c->slots[slot].told = q->send.frame.watermark;
	} else if (status == -ENOSPC || status == -E_BAD_CRC || status == -EINVAL ||
		   status == -EROFS) {
		w->votes.refused |= bit;
	} else {
		w->votes.unknown |= bit;
		q->replica->sick_ns = volume_now(c->volume) + VREPLICA_SICK_MS * NS_PER_MS;
	}
	if (status != 0 && (w->error == 0 || status == -ENOSPC))
		w->error = status == -ENOSPC ? -ENOSPC : -EIO;
	clear_pending(w, slot);
	if (status == -E_DEVICE)
		vchunk_slot_refused(c, slot);
	/* A current slot that refused a write which is undecided may stay so, if the write fails.
	 */
	if (status != 0 && (w->acked || !c->slots[slot].current))
		vchunk_slot_behind(c, slot);
	vwrite_judge(w);
}

/* It is on the wire no more. */
static void home(struct vwrite *w, uint32_t slot)
{
	struct vslot *s = &w->chunk->slots[slot];

	s->outstanding--;
	if (w->chunk->move != NULL)
		vmove_kick(w->chunk->volume);
	if (!w->abandoned)
		return;
	s->zombies--;
	vreconcile_quiet(w->chunk);
	if (s->resync != NULL)
		vresync_kick(w->chunk->volume);
}

static void write_answered(struct vrequest *q, int status, const struct frame *f)
{
	struct vwrite *w = write_of(q);
	const uint32_t slot = slot_of(w, q);

	(void)f;
	home(w, slot);
	if (status == -E_FENCED) {
		volume_end(w->chunk->volume, status, err_text(status));
		return;
	}
	if (is_gate_refusal(status)) {
		w->votes.doubted |= vmask_bit(slot);
		w->retry |= vmask_bit(slot);
		vreplica_disconnect(q->replica, status);
		return;
	}
	if (!w->abandoned && (w->entry.pending & vmask_bit(slot)) != 0)
		take_answer(w, q, slot, status);
}

/* The request is idle and unanswered: again, or the slot goes without. */
static void again_or_not(struct vwrite *w, uint32_t slot)
{
	struct vslot *s = &w->chunk->slots[slot];
	struct vreplica *r = s->replica;

	if (!w->abandoned && (w->entry.pending & vmask_bit(slot)) != 0 && r->permitted &&
	    !r->stopped && (!w->decided || (s->current && !r->overflowed))) {
		vreplica_submit(r, &w->requests[slot]);
		return;
	}
	w->busy--;
	if (!w->abandoned) {
		clear_pending(w, slot);
		vchunk_slot_behind(w->chunk, slot);
		vwrite_judge(w);
	}
}

static void write_lost(struct vrequest *q)
{
	struct vwrite *w = write_of(q);
	const uint32_t slot = slot_of(w, q);

	w->busy++; /* held: judging may settle it */
	w->votes.doubted |= vmask_bit(slot);
	home(w, slot);
	again_or_not(w, slot);
	w->busy--;
	retire(w);
}

static void write_dropped(struct vrequest *q)
{
	struct vwrite *w = write_of(q);

	w->busy++;
	again_or_not(w, slot_of(w, q));
	w->busy--;
	retire(w);
}

static void write_released(struct vrequest *q)
{
	struct vwrite *w = write_of(q);
	const uint32_t slot = slot_of(w, q);

	w->busy++;
	if ((w->retry & vmask_bit(slot)) != 0) {
		w->retry &= ~vmask_bit(slot);
		again_or_not(w, slot);
	} else {
		w->busy--;
	}
	w->busy--;
	retire(w);
}

static const struct vrequest_ops write_ops = {
    .fill = write_fill,
    .answered = write_answered,
    .lost = write_lost,
    .released = write_released,
    .dropped = write_dropped,
};

void vwrite_ignore(struct vwrite *w, int status)
{
	(void)w;
	(void)status;
}

/* -- starting ---------------------------------------------------------------------------------- */

bool vwrite_start(struct vchunk *c, const struct vwrite_what *what, bool own,
		  struct vwrite **ret_write)
{
	struct volume *v = c->volume;
	struct vwrite *w = pool_get(&v->writes, own);

	if (w == NULL)
		return false;
	PRE(what->zero || what->buffer->crcs_known);
	*w = (struct vwrite){.chunk = c, .what = *what, .own = own};
	c->writes_begun++;
	if (what->zero)
		w->what.buffer = NULL;
	else
		vbuffers_ref(what->buffer);
	window_add(w, what->targets);
	spans_add(w);
	vchunk_mark_dirty(c);
	for (uint32_t i = 0; i < v->slot_count; i++)
		w->requests[i] = (struct vrequest){.ops = &write_ops, .owner = w, .bulk = true};
	*ret_write = w;
	for (uint32_t i = 0; i < v->slot_count; i++) {
		if ((what->targets & vmask_bit(i)) == 0)
			continue;
		w->busy++;
		vreplica_submit(c->slots[i].replica, &w->requests[i]);
	}
	return true;
}
