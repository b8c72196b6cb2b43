/* seal: the layer below the top one is settled (layers.h). Its chunks move towards their end one by
 * one, from the first to the last, and then round by round those that are not there yet. */
#include "engine/base/log.h"
#include "engine/volume/layers_parts.h"

static void seal_answered(struct vmark *m, int status)
{
	struct vchunk *c = m->chunk;

	if (status == 0)
		c->sealed |= vmask_bit(m->slot);
	else
		c->sealing &= ~vmask_bit(m->slot);
	volume_event(c->volume);
}

void vlayers_replica_ready(struct vchunk *c, uint32_t slot)
{
	const struct vslot *s = &c->slots[slot];

	/* One that misses the device has told nothing: it may have the last word still. */
	if ((c->sealed & vmask_bit(slot)) == 0 || s->refused_epoch == s->replica->epoch ||
	    version_is_sealed(s->reported_watermark))
		return;
	c->sealed &= ~vmask_bit(slot);
	c->sealing &= ~vmask_bit(slot);
	if (c->volume->layers.settled == 0)
		c->settled = vmask_count(c->sealed) >= c->volume->majority;
	if (!c->settled)
		vlayers_undone(c);
}

/* A majority is there, and no replica that is holds, or was ever sent, anything of it; and nothing
 * will be sent to one. */
static bool is_untouched(const struct vchunk *c)
{
	uint32_t present = 0;

	if (c->window.last_seq != 0 || c->writes_begun > 0 || c->marks_begun > 0 ||
	    c->reconcile != NULL || c->reconcile_queued != 0)
		return false;
	for (uint32_t i = 0; i < c->volume->slot_count; i++) {
		const struct vslot *s = &c->slots[i];

		if ((c->members & vmask_bit(i)) == 0)
			continue;
		if (s->reported_watermark != 0 || s->reported_newest != 0 || s->told != 0 ||
		    s->resync != NULL)
			return false;
		present += vslot_ready(s) && s->fresh; /* not one whose device is away */
	}
	return present >= c->volume->majority;
}

bool vlayers_touch(struct vchunk *c)
{
	if (!c->settled || c->sealed != 0)
		return true;
	if (c->volume->layers.settled != 0)
		return false;
	c->settled = false;
	vlayers_undone(c);
	return true;
}

/* A majority has a watermark of all that was decided, so nothing that only others hold can win any
 * more: be the layer settled by another attachment, without the copies that get a last word now, it
 * shows the same. Who lacks the watermark is sent it. */
static bool is_held(struct vchunk *c)
{
	const version_t last = version_make(c->volume->generation, c->window.last_seq);
	uint32_t held = 0;

	for (uint32_t i = 0; i < c->volume->slot_count; i++) {
		const struct vslot *s = &c->slots[i];

		if ((c->members & vmask_bit(i)) == 0 || !s->current)
			continue;
		if (s->told >= last)
			held++;
		else if (s->marking == 0 && s->zombies == 0 && vchunk_watermark(c, i) >= last)
			vmark_send(c, i, last, NULL, NULL);
	}
	return held >= c->volume->majority;
}

/* Moves the chunk towards its end. True: nothing of it is open any more. */
static bool seal_chunk(struct vchunk *c)
{
	const version_t seal = version_make(c->volume->generation, VERSION_SEQ_MAX);
	bool zombies = false;

	for (uint32_t i = 0; i < c->volume->slot_count; i++)
		zombies = zombies || c->slots[i].zombies > 0;
	if (c->settled || is_untouched(c)) {
		c->settled = true;
		return !zombies;
	}
	if (c->state != VCHUNK_SERVING) {
		vreconcile_want(c, true);
		return false;
	}
	vchunk_watch_source(c);
	if (c->reset_wanted) {
		vchunk_kick(c);
		return false;
	}
	if (c->window.undecided != NULL || c->writes != NULL || c->locks != NULL || !is_held(c))
		return false;
	for (uint32_t i = 0; i < c->volume->slot_count; i++) {
		const struct vslot *s = &c->slots[i];

		if ((c->members & vmask_bit(i)) == 0 || !s->current ||
		    !vreplica_ready(s->replica) || c->window.oldest[i] != NULL || s->zombies > 0 ||
		    (c->sealing & vmask_bit(i)) != 0)
			continue;
		if (vmark_send(c, i, seal, seal_answered, c) != NULL)
			c->sealing |= vmask_bit(i);
	}
	c->settled = vmask_count(c->sealed) >= c->volume->majority;
	return c->settled && !zombies;
}

/* It is at its end, or among what is to do. */
static void look(struct vset *set, chunk_no_t chunk)
{
	struct vchunk *c = &set->chunks[chunk];

	c->done = seal_chunk(c);
	if (!c->done)
		set->todo[set->todo_count++] = chunk;
}

static void look_again(struct vset *set)
{
	struct vchunk *c;

	if (set->todo_at >= set->todo_count)
		set->todo_at = 0;
	c = &set->chunks[set->todo[set->todo_at]];
	if (!seal_chunk(c)) {
		set->todo_at++;
		return;
	}
	c->done = true;
	set->todo[set->todo_at] = set->todo[--set->todo_count];
}

void vlayers_undone(struct vchunk *c)
{
	struct vset *set = c->set;

	if (!c->done || set->retired)
		return;
	c->done = false;
	set->todo[set->todo_count++] = c->no;
	volume_event(c->volume);
}

void vseal_look(struct volume *v)
{
	struct vset *set = vlayers_below(v);

	if (set != NULL)
		set->looks = set->todo_count;
	vseal_run(v);
}

/* Without marks to send nothing comes of looking; they come back with an event. */
static bool has_more(const struct volume *v, const struct vset *set)
{
	return set->looked < v->chunk_count || (set->looks > 0 && v->marks_free != NULL);
}

void vseal_run(struct volume *v)
{
	struct vset *set = vlayers_below(v);

	if (set == NULL || v->layers.settled != 0 || !volume_gate_open(v))
		return;
	for (uint32_t left = v->layers.piece; left > 0 && has_more(v, set); left--) {
		if (set->looked < v->chunk_count) {
			look(set, set->looked++);
			continue;
		}
		look_again(set);
		set->looks = MIN(set->looks - 1, set->todo_count);
	}
	if (has_more(v, set))
		vlayers_later(v);
	if (set->looked < v->chunk_count || set->todo_count > 0)
		return;
	log_info("volume", "%s: layer %llu is settled", v->config.name,
		 (unsigned long long)set->layer);
	v->layers.settled = set->layer;
	v->layers.told = false;
}

volume_id_t vlayers_settled(const struct volume *v)
{
	return v->layers.settled;
}
