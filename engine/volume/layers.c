/* layers: see layers.h. */
#include "engine/volume/layers.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <utlist.h>

#include "engine/base/assert.h"
#include "engine/base/log.h"
#include "engine/volume/layers_parts.h"

struct vset *vlayers_below(const struct volume *v)
{
	return v->sets != NULL ? v->sets->below : NULL;
}

/* -- set up ------------------------------------------------------------------------------------ */

int vlayers_add_sealed(struct volume *v, volume_id_t id, bool front)
{
	uint8_t *states = calloc(v->chunk_count, vlayers_stride(v));

	if (states == NULL)
		return -ENOMEM;
	if (front)
		memmove(&v->sealed[1], &v->sealed[0], v->sealed_count * sizeof(*v->sealed));
	v->sealed[front ? 0 : v->sealed_count] = (struct vsealed){.id = id, .states = states};
	v->sealed_count++;
	v->layers.changes++;
	return 0;
}

int vlayers_init(struct volume *v, const uint8_t *map)
{
	const struct permit *p = &v->attach.permit;
	int rc = 0;

	v->layers.piece = v->config.layers_piece > 0 ? v->config.layers_piece : VLAYERS_PIECE;
	for (uint32_t i = 0; i < VRESTORES_MAX; i++)
		v->layers.restores[i].volume = v;
	v->sealed = calloc(PERMIT_LAYERS_MAX, sizeof(*v->sealed));
	if (v->sealed == NULL)
		return -ENOMEM;
	for (uint32_t i = 0; i < p->layer_count && rc == 0; i++) {
		struct vset *set;

		if (!p->layers[i].open) {
			rc = vlayers_add_sealed(v, p->layers[i].id, false);
			continue;
		}
		set = volume_make_set(v, p->layers[i].id, map);
		if (set == NULL)
			return -ENOMEM;
		LL_APPEND(v->sets, set);
	}
	if (rc != 0)
		return rc;
	v->chunks = v->sets->chunks;
	v->sets->below = v->sets->next;
	if (v->sets->below != NULL)
		v->sets->below->above = v->sets;
	return 0;
}

void vlayers_deinit(struct volume *v)
{
	reactor_timer_cancel(v->reactor, &v->layers.work);
	volume_free_set(v->layers.coming);
	while (v->sets != NULL) {
		struct vset *set = v->sets;

		v->sets = set->next;
		volume_free_set(set);
	}
	v->chunks = NULL;
	for (uint32_t i = 0; i < v->sealed_count; i++)
		free(v->sealed[i].states);
	free(v->sealed);
}

void vlayers_stop(struct volume *v)
{
	reactor_timer_cancel(v->reactor, &v->layers.work);
	for (uint32_t i = 0; i < VRESTORES_MAX; i++) {
		struct vrestore *r = &v->layers.restores[i];

		if (r->busy)
			rpc_call_cancel(&r->call);
		r->busy = false;
	}
}

bool vlayers_settled_below(const struct volume *v)
{
	return vlayers_below(v) == NULL && v->layers.coming == NULL;
}

bool vlayers_single(const struct volume *v)
{
	return v->sealed_count == 0 && vlayers_below(v) == NULL;
}

/* -- what replicas have of sealed layers ------------------------------------------------------- */

uint8_t *vlayers_states(const struct volume *v, uint32_t sealed, chunk_no_t chunk)
{
	const struct vsealed *x = &v->sealed[sealed];
	uint8_t *states = &x->states[chunk * vlayers_stride(v)];

	if (x->set != NULL && chunk >= x->set->swept && !x->set->chunks[chunk].taken)
		vretire_take(&x->set->chunks[chunk], states);
	return states;
}

/* Slots that have all that the layer holds of the chunk; 0: that is not known. */
vmask_t vlayers_good_in(const struct volume *v, uint32_t sealed, chunk_no_t chunk)
{
	const uint8_t *states = vlayers_states(v, sealed, chunk);
	const vmask_t members = v->chunks[chunk].members;
	vmask_t whole = 0, empty = 0;
	uint32_t known = 0;

	for (uint32_t i = 0; i < v->slot_count; i++) {
		if ((members & vmask_bit(i)) == 0)
			continue;
		known += states[i] != VSEALED_UNKNOWN && states[i] != VSEALED_DOUBT;
		if (states[i] == VSEALED_WHOLE)
			whole |= vmask_bit(i);
		else if (states[i] == VSEALED_EMPTY || states[i] == VSEALED_WAS_EMPTY)
			empty |= vmask_bit(i);
	}
	if (whole != 0)
		return whole;
	return known >= v->majority && !vlayers_touched(v, states) ? empty : 0;
}

vmask_t vlayers_good(struct vchunk *c)
{
	const struct volume *v = c->volume;

	if (c->good_at == v->layers.changes + 1)
		return c->good;
	c->good = c->members;
	for (uint32_t i = 0; i < v->sealed_count; i++)
		c->good &= vlayers_good_in(v, i, c->no);
	c->good_at = v->layers.changes + 1;
	return c->good;
}

vmask_t vlayers_whole(struct vchunk *c)
{
	const struct vchunk *below = vchunk_below(c);
	vmask_t m = vlayers_good(c);

	for (uint32_t i = 0; below != NULL && i < c->volume->slot_count; i++)
		if (below->state != VCHUNK_SERVING || !below->slots[i].current)
			m &= ~vmask_bit(i);
	return m;
}

static void want_restore(struct volume *v)
{
	v->layers.restore_wanted = true;
	v->layers.restore_left = (uint64_t)v->sealed_count * v->chunk_count;
}

void vlayers_learnt(struct volume *v, chunk_no_t chunk)
{
	for (const struct vset *set = v->sets; set != NULL && !set->retired; set = set->next)
		set->chunks[chunk].good_at = 0;
	want_restore(v);
	if (v->chunks[chunk].move != NULL)
		vmove_kick(v);
	if (v->chunks[chunk].reads.head != NULL)
		vchunk_kick(&v->chunks[chunk]);
}

void vlayers_learnt_all(struct volume *v)
{
	struct vchunk *c;

	v->layers.changes++; /* no chunk's good is valid */
	want_restore(v);
	vmove_kick(v);
	DL_FOREACH2(v->troubled, c, troubled_next)
	vchunk_kick(c);
}

bool vlayers_wants_look(const struct vchunk *c, const uint8_t *states, uint32_t slot)
{
	if (slot == c->learner)
		return states[slot] == VSEALED_UNKNOWN;
	return c->learner != VSLOT_NONE && states[slot] == VSEALED_WAS_EMPTY &&
	       (c->members & vmask_bit(slot)) != 0 && vreplica_ready(c->slots[slot].replica);
}

bool vlayers_wants_looks(const struct vchunk *c, const uint8_t *states)
{
	for (uint32_t i = 0; i < c->volume->slot_count; i++)
		if (vlayers_wants_look(c, states, i))
			return true;
	return false;
}

bool vlayers_has(const struct volume *v, uint32_t sealed, const struct vchunk *c, uint32_t slot)
{
	const uint8_t *states = vlayers_states(v, sealed, c->no);
	const vmask_t good = vlayers_good_in(v, sealed, c->no);

	if (vlayers_wants_looks(c, states))
		return false;
	if (good == 0 || states[slot] == VSEALED_WHOLE)
		return good != 0;
	return states[slot] == VSEALED_EMPTY && states[__builtin_ctz(good)] != VSEALED_WHOLE;
}

bool vlayers_slot_has_all(const struct vchunk *c, uint32_t slot)
{
	for (uint32_t i = 0; i < c->volume->sealed_count; i++)
		if (!vlayers_has(c->volume, i, c, slot))
			return false;
	return true;
}

bool vlayers_in_doubt(const struct vchunk *c, uint32_t slot)
{
	for (uint32_t i = 0; i < c->volume->sealed_count; i++)
		if (vlayers_states(c->volume, i, c->no)[slot] == VSEALED_DOUBT)
			return true;
	return false;
}

void vlayers_slot_begins(struct vchunk *c, uint32_t slot)
{
	struct volume *v = c->volume;

	for (uint32_t i = 0; i < v->sealed_count; i++) {
		uint8_t *states = vlayers_states(v, i, c->no);

		for (uint32_t k = 0; k < v->slot_count; k++)
			if (states[k] == VSEALED_EMPTY)
				states[k] = VSEALED_WAS_EMPTY;
		states[slot] = VSEALED_UNKNOWN;
	}
	vlayers_learnt(v, c->no);
}

void vlayers_members_changed(struct vchunk *c)
{
	vlayers_learnt(c->volume, c->no);
}

bool vlayers_slot_is_quiet(const struct vchunk *c, uint32_t slot)
{
	const struct vlayers *l = &c->volume->layers;

	for (uint32_t i = 0; i < VRESTORES_MAX; i++)
		if (l->restores[i].busy && l->restores[i].chunk == c->no &&
		    l->restores[i].slot == slot)
			return false;
	return true;
}

volume_id_t vlayers_id(const struct volume *v, uint32_t sealed)
{
	return v->sealed[sealed].id;
}

void vlayers_scan_begin(struct volume *v, uint32_t sealed, const struct vreplica *r)
{
	for (uint32_t i = 0; i < v->chunk_count; i++) {
		const uint32_t slot = vchunk_slot_of(&v->chunks[i], r);

		if (slot != UINT32_MAX)
			vlayers_states(v, sealed, i)[slot] = VSEALED_UNKNOWN;
	}
}

void vlayers_take_state(struct volume *v, uint32_t sealed, const struct vreplica *r,
			chunk_no_t chunk, version_t watermark, version_t newest)
{
	const uint32_t slot = vchunk_slot_of(&v->chunks[chunk], r);
	uint8_t *states;

	if (slot == UINT32_MAX)
		return;
	states = vlayers_states(v, sealed, chunk);
	if (version_is_sealed(watermark)) {
		states[slot] = VSEALED_WHOLE;
		if (newest > 0)
			vlayers_touch_states(v, states);
	} else if (newest > 0) {
		states[slot] = VSEALED_PART;
	}
}

void vlayers_doubt(struct volume *v, uint32_t sealed, const struct vreplica *r, chunk_no_t chunk)
{
	const uint32_t slot = vchunk_slot_of(&v->chunks[chunk], r);

	if (slot != UINT32_MAX)
		vlayers_states(v, sealed, chunk)[slot] = VSEALED_DOUBT;
}

void vlayers_scanned(struct volume *v, uint32_t sealed, const struct vreplica *r)
{
	for (uint32_t i = 0; i < v->chunk_count; i++) {
		const uint32_t slot = vchunk_slot_of(&v->chunks[i], r);
		uint8_t *state;

		if (slot == UINT32_MAX)
			continue;
		state = &vlayers_states(v, sealed, i)[slot];
		if (*state == VSEALED_UNKNOWN)
			*state = VSEALED_EMPTY; /* not listed */
		vlayers_learnt(v, i);
	}
}

/* -- what permits say ---------------------------------------------------------------------------
 */

/* The permit's top layer is another. False: later, for a chunk changes its members now, or not all
 * is prepared. */
static bool take_top(struct volume *v)
{
	const struct permit *p = &v->attach.permit;
	uint32_t moving[VMOVES_MAX];

	if (vlayers_below(v) != NULL || p->layer_count < 2 || p->layers[1].id != v->sets->layer ||
	    !p->layers[1].open) {
		volume_end(v, -E_FENCED, "the volume has other layers now: attach it again");
		return true;
	}
	if (vmove_chunks(v, moving) > 0 || !vbegin_prepare(v, p->layers[0].id))
		return false;
	vbegin_switch(v);
	v->layers.switched_ns = v->layers.began_ns;
	return true;
}

/* A learner is asked what it has now; the others' states were taken over with all others. */
static void forget_learners(struct volume *v, uint32_t sealed)
{
	uint32_t moving[VMOVES_MAX];
	const uint32_t count = vmove_chunks(v, moving);

	for (uint32_t k = 0; k < count; k++) {
		const struct vchunk *c = &v->chunks[moving[k]];
		uint8_t *states = vlayers_states(v, sealed, c->no);

		if (c->learner != VSLOT_NONE)
			states[c->learner] = VSEALED_UNKNOWN;
	}
}

/* What the layer held is in the next one below now, everywhere. Only the states are gone through,
 * a byte a slot. */
static void merged(struct volume *v, uint32_t sealed)
{
	uint8_t *upper = v->sealed[sealed].states;

	for (uint32_t c = 0; c < v->chunk_count; c++) {
		const uint8_t *from = vlayers_states(v, sealed, c);
		uint8_t *to = vlayers_states(v, sealed + 1, c);

		/* Who was away is asked when it comes back. */
		for (uint32_t i = 0; i < v->slot_count; i++)
			if (from[i] == VSEALED_WHOLE)
				to[i] = VSEALED_WHOLE;
		if (vlayers_touched(v, from))
			vlayers_touch_states(v, to);
	}
	forget_learners(v, sealed + 1);
	log_info("volume", "%s: layer %llu is merged into %llu", v->config.name,
		 (unsigned long long)v->sealed[sealed].id,
		 (unsigned long long)v->sealed[sealed + 1].id);
	free(upper);
	v->sealed_count--;
	memmove(&v->sealed[sealed], &v->sealed[sealed + 1],
		(v->sealed_count - sealed) * sizeof(*v->sealed));
	vlayers_learnt_all(v);
}

/* Sealed layers that the permit names no more. The lowest first: one may have been merged into
 * another that was merged. */
static bool take_merged(struct volume *v)
{
	const struct permit *p = &v->attach.permit;
	bool any = false;

	for (uint32_t i = v->sealed_count; i-- > 0;) {
		if (i + 1 == v->sealed_count || permit_find_layer(p, v->sealed[i].id) != NULL)
			continue;
		merged(v, i);
		any = true;
	}
	return any;
}

/* How many nodes are sent nothing before they have the permit. */
static uint32_t held_nodes(const struct volume *v)
{
	uint32_t count = 0;

	for (uint32_t n = 0; n < v->node_count; n++) {
		bool held = false;

		for (uint32_t i = 0; i < VREPLICA_SHARDS_MAX && v->nodes[n].replicas[i] != NULL;
		     i++)
			held = held || v->nodes[n].replicas[i]->held;
		count += held;
	}
	return count;
}

void vlayers_released(struct volume *v)
{
	uint64_t took_ns;

	/* A write can do without so many copies, or with them coming later. */
	if (v->layers.switched_ns == 0 || held_nodes(v) > v->replicas - v->need)
		return;
	reactor_refresh(v->reactor);
	took_ns = volume_now(v) - v->layers.switched_ns;
	v->layers.switched_ns = 0;
	v->stats.layers_pause_ns = MAX(v->stats.layers_pause_ns, took_ns);
	log_info("volume", "%s: writes go to layer %llu, and were held back for %llu us",
		 v->config.name, (unsigned long long)v->sets->layer,
		 (unsigned long long)(took_ns / 1000));
}

/* All that is done for layers in one turn is measured: meanwhile the guest's operations wait. */
static void begin_work(struct volume *v)
{
	reactor_refresh(v->reactor);
	v->layers.began_ns = volume_now(v);
}

static void end_work(struct volume *v)
{
	reactor_refresh(v->reactor);
	v->stats.layers_work_ns = MAX(v->stats.layers_work_ns, volume_now(v) - v->layers.began_ns);
	vlayers_released(v);
}

/* What the permit says of layers comes true. */
static void take_layers(struct volume *v)
{
	const struct permit *p = &v->attach.permit;
	bool changed = false;

	if (vlayers_below(v) != NULL && (p->layer_count < 2 || !p->layers[1].open ||
					 p->layers[1].id != vlayers_below(v)->layer)) {
		vretire(v);
		changed = true;
	}
	if (v->ended == 0 && p->layers[0].id != v->sets->layer)
		changed = take_top(v) || changed;
	else if (v->ended == 0)
		vlayers_prepare_again(v); /* for nobody any more */
	changed = take_merged(v) || changed;
	if (!changed || v->ended != 0)
		return;
	for (uint32_t n = 0; n < v->node_count; n++)
		for (uint32_t i = 0; i < VREPLICA_SHARDS_MAX && v->nodes[n].replicas[i] != NULL;
		     i++)
			vreplica_layers_changed(v->nodes[n].replicas[i]);
	volume_event(v);
}

/* -- time ---------------------------------------------------------------------------------------
 */

void vlayers_permit(struct volume *v)
{
	begin_work(v);
	take_layers(v);
	end_work(v);
}

static void tell_settled(struct volume *v)
{
	if (v->layers.settled != 0 && !v->layers.told)
		v->layers.told = vattach_renew(&v->attach);
}

void vlayers_event(struct volume *v)
{
	if (vlayers_below(v) == NULL)
		return;
	begin_work(v);
	vseal_look(v);
	end_work(v);
	tell_settled(v);
}

static void work(struct volume *v, bool ticks)
{
	if (v->attach.gate.deadline_ns != 0)
		take_layers(v);
	if (v->ended != 0 || (vlayers_single(v) && v->sets->next == NULL))
		return;
	if (v->state == VOLUME_OPEN && ticks)
		vseal_look(v);
	else if (v->state == VOLUME_OPEN)
		vseal_run(v);
	if (v->state < VOLUME_CLOSING)
		vrestore_some(v);
	vretire_sweep(v);
}

void vlayers_tick(struct volume *v)
{
	begin_work(v);
	work(v, true);
	end_work(v);
	if (v->state == VOLUME_OPEN && v->ended == 0)
		tell_settled(v);
}

static void work_fire(struct reactor_timer *timer)
{
	struct volume *v = container_of(timer, struct volume, layers.work);

	if (v->chunks == NULL || v->ended != 0 || v->state >= VOLUME_STOPPING)
		return;
	begin_work(v);
	work(v, false);
	end_work(v);
	if (v->state == VOLUME_OPEN && v->ended == 0)
		tell_settled(v);
}

void vlayers_later(struct volume *v)
{
	v->layers.work.fire = work_fire;
	reactor_timer_arm(v->reactor, &v->layers.work, volume_now(v) + VLAYERS_STEP_NS);
}
