/* chunk: see chunk.h. Watermarks on their way are in mark.c.
 *
 * INVARIANTS
 *  1. Waiting operations move in vchunk_run only, from the kick task: nothing here is re-entered
 * from the answer that changed something.
 *  2. A slot that is not current is joined from the sequence joined_seq on, as long as its
 * replica's epoch is joined_epoch.
 *  3. A chunk without a current slot is reset: what it holds is asked of the nodes again. */
#include "engine/volume/chunk.h"

#include <errno.h>
#include <utlist.h>

#include "engine/base/assert.h"
#include "engine/base/log.h"
#include "engine/volume/core.h"

uint32_t vchunk_blocks(const struct vchunk *c)
{
	return c->volume->chunk_blocks;
}

/* -- slots ------------------------------------------------------------------------------------- */

vmask_t vchunk_ready_slots(const struct vchunk *c)
{
	vmask_t m = 0;

	for (uint32_t i = 0; i < c->volume->slot_count; i++)
		if ((c->members & vmask_bit(i)) != 0 && vslot_ready(&c->slots[i]))
			m |= vmask_bit(i);
	return m;
}

vmask_t vchunk_permitted_slots(const struct vchunk *c)
{
	vmask_t m = 0;

	for (uint32_t i = 0; i < c->volume->slot_count; i++)
		if ((vchunk_used(c) & vmask_bit(i)) != 0 && c->slots[i].replica->permitted)
			m |= vmask_bit(i);
	return m;
}

uint32_t vchunk_slot_of(const struct vchunk *c, const struct vreplica *r)
{
	for (uint32_t i = 0; i < c->volume->slot_count; i++)
		if (c->slots[i].replica == r && (vchunk_used(c) & vmask_bit(i)) != 0)
			return i;
	return UINT32_MAX;
}

static bool slot_in_use(const struct vchunk *c, uint32_t slot)
{
	const struct vslot *s = &c->slots[slot];

	return (!c->set->retired && (vchunk_used(c) & vmask_bit(slot)) != 0) ||
	       s->outstanding > 0 || s->reading > 0 || s->marking > 0 || s->resync != NULL ||
	       !vlayers_slot_is_quiet(c, slot);
}

bool vchunk_uses(const struct vreplica *r, chunk_no_t no)
{
	const struct volume *v = r->volume;

	for (const struct vset *set = v->sets; set != NULL && no < v->chunk_count; set = set->next)
		for (uint32_t i = 0; i < v->slot_count && no >= set->swept; i++)
			if (set->chunks[no].slots[i].replica == r &&
			    slot_in_use(&set->chunks[no], i))
				return true;
	return false;
}

static uint32_t current_count(const struct vchunk *c)
{
	uint32_t n = 0;

	for (uint32_t i = 0; i < c->volume->slot_count; i++)
		n += (c->members & vmask_bit(i)) != 0 && c->slots[i].current;
	return n;
}

/* Slots that would get a write and can be reached now. */
static vmask_t reachable_targets(const struct vchunk *c)
{
	vmask_t m = 0;

	for (uint32_t i = 0; i < c->volume->slot_count; i++) {
		const struct vslot *s = &c->slots[i];

		if ((vchunk_used(c) & vmask_bit(i)) != 0 && vslot_ready(s) &&
		    (s->current || vslot_joined(s)))
			m |= vmask_bit(i);
	}
	return m;
}

vmask_t vchunk_targets(struct vchunk *c)
{
	vmask_t m = reachable_targets(c);

	for (uint32_t i = 0; i < c->volume->slot_count; i++) {
		struct vslot *s = &c->slots[i];

		if ((vchunk_used(c) & vmask_bit(i)) == 0 || !s->current || (m & vmask_bit(i)) != 0)
			continue;
		/* Away: it goes on being current as long as what it misses is kept for it. */
		if (s->replica->permitted && !s->replica->overflowed)
			m |= vmask_bit(i);
		else
			vchunk_slot_behind(c, i);
	}
	return m;
}

bool vchunk_enough(const struct vchunk *c, vmask_t slots, uint32_t need)
{
	return vmask_count(slots & c->members) >= need &&
	       (!c->joint || vmask_count(slots & vmove_next_members(c)) >= need);
}

version_t vchunk_watermark(const struct vchunk *c, uint32_t slot)
{
	return version_make(c->volume->generation, vwindow_low(&c->window, slot));
}

static void join(struct vchunk *c, uint32_t slot)
{
	struct vslot *s = &c->slots[slot];

	s->joined_epoch = vslot_ready(s) ? s->replica->epoch : 0;
	s->joined_seq = c->window.last_seq + 1;
	if (s->joined_epoch != 0 && !c->settled)
		vresync_want(c, slot);
}

void vchunk_slot_behind(struct vchunk *c, uint32_t slot)
{
	struct vslot *s = &c->slots[slot];

	if ((vchunk_used(c) & vmask_bit(slot)) == 0)
		return;
	s->current = false;
	vresync_disturbed(c, slot);
	switch (c->state) {
	case VCHUNK_UNOPENED:
		break;
	case VCHUNK_RECONCILING:
		if (slot != c->learner)
			vreconcile_slot_failed(c, slot);
		break;
	case VCHUNK_SERVING:
		join(c, slot);
		if (current_count(c) == 0) {
			c->reset_wanted = true;
			vchunk_kick(c);
		}
		break;
	}
}

void vchunk_slot_refused(struct vchunk *c, uint32_t slot)
{
	struct vslot *s = &c->slots[slot];

	if (s->refused_epoch == s->replica->epoch)
		return;
	log_warn("volume", "%s: the device of node %s that holds chunk %u has failed",
		 c->volume->config.name, c->volume->nodes[s->node].name, c->no);
	s->refused_epoch = s->replica->epoch;
	vchunk_slot_behind(c, slot);
}

void vchunk_slot_current(struct vchunk *c, uint32_t slot)
{
	struct vslot *s = &c->slots[slot];

	s->current = true;
	s->lost = false;
	s->resync_tries = 0;
	vchunk_mark_dirty(c);
	vchunk_kick(c);
	if (slot == c->learner)
		vmove_kick(c->volume);
}

void vchunk_write_failed(struct vchunk *c, vmask_t holders)
{
	c->epoch++;
	for (uint32_t i = 0; i < c->volume->slot_count; i++)
		if ((holders & vmask_bit(i)) != 0)
			vchunk_slot_behind(c, i);
	vchunk_kick(c);
}

void vchunk_replica_ready(struct vchunk *c, uint32_t slot)
{
	struct vslot *s = &c->slots[slot];

	vlayers_replica_ready(c, slot);
	s->lost =
	    s->lost || (s->reported_watermark < s->told && s->refused_epoch != s->replica->epoch);
	switch (c->state) {
	case VCHUNK_RECONCILING:
		break;
	case VCHUNK_UNOPENED:
		vreconcile_want(c, c->reads.head != NULL || c->writes != NULL);
		break;
	case VCHUNK_SERVING:
		if (s->current && s->reported_watermark < s->told) {
			log_error("volume",
				  "%s: node %s has lost what it had answered for (chunk %u)",
				  c->volume->config.name, c->volume->nodes[s->node].name, c->no);
			s->told = s->reported_watermark;
			vchunk_slot_behind(c, slot);
		} else if (!s->current) {
			join(c, slot);
		} else if (s->told < vchunk_watermark(c, slot)) {
			vchunk_mark_dirty(c);
		}
		break;
	}
	if (c->reads.head != NULL || c->writes != NULL)
		vchunk_kick(c);
}

void vchunk_serve(struct vchunk *c, vmask_t members)
{
	c->state = VCHUNK_SERVING;
	c->epoch++;
	for (uint32_t i = 0; i < c->volume->slot_count; i++) {
		struct vslot *s = &c->slots[i];

		if ((vchunk_used(c) & vmask_bit(i)) == 0)
			continue;
		s->current = (members & vmask_bit(i)) != 0;
		s->told = MAX(s->told, s->fresh ? s->reported_watermark : 0);
		s->unreadable = false;
		if (!s->current)
			join(c, i);
	}
	vchunk_kick(c);
	if (c->move != NULL)
		vmove_kick(c->volume);
	if (c->volume->extents != NULL)
		vextents_run(c->volume);
}

/* -- moves ------------------------------------------------------------------------------------- */

void vchunk_slot_learns(struct vchunk *c, uint32_t slot, uint32_t node)
{
	struct vslot *s = &c->slots[slot];

	PRE(c->learner == VSLOT_NONE && (c->members & vmask_bit(slot)) == 0);
	PRE(s->outstanding == 0 && s->reading == 0 && s->marking == 0 && s->resync == NULL);
	*s = (struct vslot){.chunk = c,
			    .node = (uint8_t)node,
			    .replica = volume_replica_of(c->volume, node, c->no)};
	c->learner = (uint8_t)slot;
	vlayers_slot_begins(c, slot);
	if (c->state == VCHUNK_SERVING)
		join(c, slot);
}

void vchunk_slot_leaves(struct vchunk *c, uint32_t slot)
{
	struct vslot *s = &c->slots[slot];
	struct vwindow_entry *e = c->window.head;

	PRE((vchunk_used(c) & vmask_bit(slot)) == 0);
	s->current = false;
	s->joined_epoch = 0;
	vresync_forget(c, slot);
	while (e != NULL) {
		struct vwindow_entry *next = e->next;

		vwrite_forget(vwrite_of_entry(e), slot); /* which takes out no other write */
		e = next;
	}
}

void vchunk_members_changed(struct vchunk *c)
{
	struct vwindow_entry *e = c->window.undecided;

	vlayers_members_changed(c);
	if (c->state == VCHUNK_SERVING && current_count(c) == 0)
		c->reset_wanted = true;
	while (e != NULL) {
		struct vwindow_entry *next = e->next;

		vwrite_judge(vwrite_of_entry(e));
		e = next;
	}
	vchunk_kick(c);
	vreconcile_kick(c->volume);
}

/* -- a new start ------------------------------------------------------------------------------- */

void vchunk_reset(struct vchunk *c)
{
	log_info("volume", "%s: chunk %u has no current replica left, and is reconciled again",
		 c->volume->config.name, c->no);
	c->state = VCHUNK_UNOPENED;
	c->reset_wanted = false;
	c->no_source_ns = 0;
	if (!vmove_in_doubt(c))
		c->joint = false; /* the learner begins again, too */
	c->epoch++;
	for (uint32_t i = 0; i < c->volume->slot_count; i++) {
		c->slots[i].current = false;
		vresync_disturbed(c, i);
	}
	while (c->window.tail != NULL)
		vwrite_abandon(vwrite_of_entry(c->window.tail));
	vreconcile_want(c, true);
}

void vchunk_watch_source(struct vchunk *c)
{
	const struct volume *v = c->volume;
	const vmask_t ready = vchunk_ready_slots(c);

	for (uint32_t i = 0; i < v->slot_count; i++) {
		if (c->slots[i].current && (ready & vmask_bit(i)) != 0) {
			c->no_source_ns = 0;
			return;
		}
	}
	if (vmask_count(ready) < v->majority)
		c->no_source_ns = 0;
	else if (c->no_source_ns == 0)
		c->no_source_ns = volume_now(v);
	else if (volume_now(v) - c->no_source_ns >= VCHUNK_NO_SOURCE_MS * NS_PER_MS)
		c->reset_wanted = true;
}

/* -- waiting operations ------------------------------------------------------------------------ */

static void kick(struct vchunk *c)
{
	struct volume *v = c->volume;

	if (c->kicked)
		return;
	c->kicked = true;
	c->kick_next = NULL;
	if (v->kicked_tail != NULL)
		v->kicked_tail->kick_next = c;
	else
		v->kicked = c;
	v->kicked_tail = c;
	reactor_defer(v->reactor, &v->kick_task);
}

void vchunk_kick(struct vchunk *c)
{
	/* Reads of the layer above wait for what happens here. */
	struct vchunk *above = vchunk_above(c);

	if (!c->set->retired)
		kick(c);
	if (above != NULL && !above->set->retired)
		kick(above);
}

void vchunk_forget(struct vchunk *c)
{
	struct volume *v = c->volume;

	if (c->troubled)
		DL_DELETE2(v->troubled, c, troubled_prev, troubled_next);
	if (c->dirty)
		DL_DELETE2(v->dirty, c, dirty_prev, dirty_next);
	c->troubled = c->dirty = false;
}

static void set_troubled(struct vchunk *c, bool troubled)
{
	struct volume *v = c->volume;

	if (c->troubled == troubled)
		return;
	c->troubled = troubled;
	if (troubled)
		DL_APPEND2(v->troubled, c, troubled_prev, troubled_next);
	else
		DL_DELETE2(v->troubled, c, troubled_prev, troubled_next);
}

static void run_reads(struct vchunk *c)
{
	struct vread *rd = c->reads.head;

	while (rd != NULL) {
		struct vread *next = rd->next;

		vread_try(rd);
		rd = next;
	}
}

static void run_writes(struct vchunk *c)
{
	struct vpiece *p = c->writes;

	if (p == NULL || !volume_gate_open(c->volume))
		return;
	if (!vchunk_enough(c, reachable_targets(c), c->volume->need)) {
		volume_frozen(c->volume);
		return;
	}
	while (p != NULL && c->state == VCHUNK_SERVING && !c->reset_wanted) {
		struct vpiece *next = p->next;

		if (!volume_piece_start(p) && p->seq != 0)
			return;
		p = next;
	}
}

void vchunk_run(struct vchunk *c)
{
	struct vchunk *below = vchunk_below(c);

	if (c->set->retired)
		return;
	if (below != NULL && below->state == VCHUNK_UNOPENED &&
	    (c->reads.head != NULL || c->writes != NULL))
		vreconcile_want(below, true);
	if (c->reset_wanted && c->state == VCHUNK_SERVING)
		vchunk_reset(c);
	if (c->state == VCHUNK_SERVING) {
		run_reads(c);
		run_writes(c);
		if (c->reads.head != NULL || c->writes != NULL)
			vchunk_watch_source(c);
	} else if (c->reads.head != NULL || c->writes != NULL) {
		vreconcile_want(c, true);
	}
	set_troubled(c, c->reads.head != NULL || c->writes != NULL || c->reset_wanted);
}

void vchunk_queue_write(struct vchunk *c, struct vpiece *p)
{
	struct vpiece *next = p->seq != 0 ? c->writes : NULL;

	while (next != NULL && next->seq != 0 && next->seq < p->seq)
		next = next->next;
	p->state = VPIECE_WAITING;
	if (next != NULL)
		DL_PREPEND_ELEM(c->writes, next, p);
	else
		DL_APPEND(c->writes, p);
	vlayers_changed(c);
	vchunk_kick(c);
}

void vchunk_unqueue_write(struct vpiece *p)
{
	PRE(p->state == VPIECE_WAITING);
	DL_DELETE(p->chunk->writes, p);
}

/* -- locks ------------------------------------------------------------------------------------- */

void vchunk_lock(struct vchunk *c, struct vlock *l)
{
	DL_APPEND(c->locks, l);
}

void vchunk_unlock(struct vchunk *c, struct vlock *l)
{
	DL_DELETE(c->locks, l);
	if (c->writes != NULL)
		vchunk_kick(c);
}

bool vchunk_locked(const struct vchunk *c, block_no_t block, uint32_t block_count)
{
	const struct vlock *l;

	DL_FOREACH (c->locks, l)
		if (l->block < block + block_count && block < l->block + l->block_count)
			return true;
	return false;
}
