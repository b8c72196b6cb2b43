/* layers: see layers.h. */
#include "engine/volume/layers.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <utlist.h>

#include "engine/base/assert.h"
#include "engine/base/log.h"
#include "engine/volume/core.h"

static void restore_some(struct volume *v);

static struct vset *below(const struct volume *v)
{
	struct vset *set = v->sets != NULL ? v->sets->next : NULL;

	return set != NULL && !set->chunks[0].retired ? set : NULL;
}

/* -- set up ------------------------------------------------------------------------------------ */

static int add_sealed(struct volume *v, volume_id_t id, bool front)
{
	const size_t size = (size_t)v->chunk_count * v->slot_count;
	uint8_t *states = calloc(size, 1);

	if (states == NULL)
		return -ENOMEM;
	if (front)
		memmove(&v->sealed[1], &v->sealed[0], v->sealed_count * sizeof(*v->sealed));
	v->sealed[front ? 0 : v->sealed_count] = (struct vsealed){id, states};
	v->sealed_count++;
	v->layers.changes++;
	return 0;
}

static void link_sets(struct volume *v, struct vset *upper, struct vset *lower)
{
	for (uint32_t i = 0; i < v->chunk_count; i++) {
		upper->chunks[i].below = &lower->chunks[i];
		lower->chunks[i].above = &upper->chunks[i];
	}
}

int vlayers_init(struct volume *v, const uint8_t *map)
{
	const struct permit *p = &v->attach.permit;
	int rc = 0;

	for (uint32_t i = 0; i < VRESTORES_MAX; i++)
		v->layers.restores[i].volume = v;
	v->sealed = calloc(PERMIT_LAYERS_MAX, sizeof(*v->sealed));
	if (v->sealed == NULL)
		return -ENOMEM;
	for (uint32_t i = 0; i < p->layer_count && rc == 0; i++) {
		struct vset *set;

		if (!p->layers[i].open) {
			rc = add_sealed(v, p->layers[i].id, false);
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
	if (below(v) != NULL)
		link_sets(v, v->sets, below(v));
	return 0;
}

void vlayers_deinit(struct volume *v)
{
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
	for (uint32_t i = 0; i < VRESTORES_MAX; i++) {
		struct vrestore *r = &v->layers.restores[i];

		if (r->busy)
			rpc_call_cancel(&r->call);
		r->busy = false;
	}
}

bool vlayers_settled_below(const struct volume *v)
{
	return below(v) == NULL;
}

bool vlayers_single(const struct volume *v)
{
	return v->sealed_count == 0 && below(v) == NULL;
}

/* -- what replicas have of sealed layers ------------------------------------------------------- */

static uint8_t *states_of(const struct volume *v, uint32_t sealed, chunk_no_t chunk)
{
	return &v->sealed[sealed].states[(size_t)chunk * v->slot_count];
}

/* Slots that have all that the layer holds of the chunk; 0: that is not known. */
static vmask_t good_in(const struct volume *v, uint32_t sealed, chunk_no_t chunk)
{
	const uint8_t *states = states_of(v, sealed, chunk);
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
	return known >= v->majority ? empty : 0;
}

vmask_t vlayers_good(struct vchunk *c)
{
	const struct volume *v = c->volume;

	if (c->good_known)
		return c->good;
	c->good = c->members;
	for (uint32_t i = 0; i < v->sealed_count; i++)
		c->good &= good_in(v, i, c->no);
	c->good_known = true;
	return c->good;
}

vmask_t vlayers_whole(struct vchunk *c)
{
	vmask_t m = vlayers_good(c);

	for (uint32_t i = 0; c->below != NULL && i < c->volume->slot_count; i++)
		if (c->below->state != VCHUNK_SERVING || !c->below->slots[i].current)
			m &= ~vmask_bit(i);
	return m;
}

/* Something is known anew of what sealed layers hold. */
static void learnt(struct volume *v, chunk_no_t chunk)
{
	for (const struct vset *set = v->sets; set != NULL; set = set->next)
		set->chunks[chunk].good_known = false;
	v->layers.restore_wanted = true;
	if (v->chunks[chunk].move != NULL)
		vmove_kick(v);
	if (v->chunks[chunk].reads.head != NULL)
		vchunk_kick(&v->chunks[chunk]);
}

/* A learner, of which nothing is known, or a member that must say again that it holds nothing. */
static bool wants_look(const struct vchunk *c, const uint8_t *states, uint32_t slot)
{
	if (slot == c->learner)
		return states[slot] == VSEALED_UNKNOWN;
	return c->learner != VSLOT_NONE && states[slot] == VSEALED_WAS_EMPTY &&
	       (c->members & vmask_bit(slot)) != 0 && vreplica_ready(c->slots[slot].replica);
}

static bool wants_looks(const struct vchunk *c, const uint8_t *states)
{
	for (uint32_t i = 0; i < c->volume->slot_count; i++)
		if (wants_look(c, states, i))
			return true;
	return false;
}

static bool has_layer(const struct volume *v, uint32_t sealed, const struct vchunk *c,
		      uint32_t slot)
{
	const uint8_t *states = states_of(v, sealed, c->no);
	const vmask_t good = good_in(v, sealed, c->no);

	if (wants_looks(c, states))
		return false;
	if (good == 0 || states[slot] == VSEALED_WHOLE)
		return good != 0;
	return states[slot] == VSEALED_EMPTY && states[__builtin_ctz(good)] != VSEALED_WHOLE;
}

bool vlayers_slot_has_all(const struct vchunk *c, uint32_t slot)
{
	for (uint32_t i = 0; i < c->volume->sealed_count; i++)
		if (!has_layer(c->volume, i, c, slot))
			return false;
	return true;
}

bool vlayers_in_doubt(const struct vchunk *c, uint32_t slot)
{
	for (uint32_t i = 0; i < c->volume->sealed_count; i++)
		if (states_of(c->volume, i, c->no)[slot] == VSEALED_DOUBT)
			return true;
	return false;
}

void vlayers_slot_begins(struct vchunk *c, uint32_t slot)
{
	struct volume *v = c->volume;

	for (uint32_t i = 0; i < v->sealed_count; i++) {
		uint8_t *states = states_of(v, i, c->no);

		for (uint32_t k = 0; k < v->slot_count; k++)
			if (states[k] == VSEALED_EMPTY)
				states[k] = VSEALED_WAS_EMPTY;
		states[slot] = VSEALED_UNKNOWN;
	}
	learnt(v, c->no);
}

void vlayers_members_changed(struct vchunk *c)
{
	learnt(c->volume, c->no);
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
			states_of(v, sealed, i)[slot] = VSEALED_UNKNOWN;
	}
}

void vlayers_take_state(struct volume *v, uint32_t sealed, const struct vreplica *r,
			chunk_no_t chunk, version_t watermark, version_t newest)
{
	const uint32_t slot = vchunk_slot_of(&v->chunks[chunk], r);

	if (slot == UINT32_MAX)
		return;
	if (version_is_sealed(watermark))
		states_of(v, sealed, chunk)[slot] = VSEALED_WHOLE;
	else if (newest > 0)
		states_of(v, sealed, chunk)[slot] = VSEALED_PART;
}

void vlayers_doubt(struct volume *v, uint32_t sealed, const struct vreplica *r, chunk_no_t chunk)
{
	const uint32_t slot = vchunk_slot_of(&v->chunks[chunk], r);

	if (slot != UINT32_MAX)
		states_of(v, sealed, chunk)[slot] = VSEALED_DOUBT;
}

void vlayers_scanned(struct volume *v, uint32_t sealed, const struct vreplica *r)
{
	for (uint32_t i = 0; i < v->chunk_count; i++) {
		const uint32_t slot = vchunk_slot_of(&v->chunks[i], r);
		uint8_t *state;

		if (slot == UINT32_MAX)
			continue;
		state = &states_of(v, sealed, i)[slot];
		if (*state == VSEALED_UNKNOWN)
			*state = VSEALED_EMPTY; /* not listed */
		learnt(v, i);
	}
}

/* -- restoring --------------------------------------------------------------------------------- */

static struct vrestore *free_restore(struct volume *v)
{
	for (uint32_t i = 0; i < VRESTORES_MAX; i++)
		if (!v->layers.restores[i].busy)
			return &v->layers.restores[i];
	return NULL;
}

static bool has_enough(const struct volume *v, const struct vreplica *r)
{
	uint32_t n = 0;

	for (uint32_t i = 0; i < VRESTORES_MAX; i++)
		n += v->layers.restores[i].busy && v->layers.restores[i].replica == r;
	return n >= VRESTORES_EACH;
}

static bool is_restoring(const struct volume *v, volume_id_t layer, chunk_no_t chunk, uint32_t slot)
{
	for (uint32_t i = 0; i < VRESTORES_MAX; i++) {
		const struct vrestore *x = &v->layers.restores[i];

		if (x->busy && x->layer == layer && x->chunk == chunk && x->slot == slot)
			return true;
	}
	return false;
}

/* The slot is still its replica's. */
static void set_state(struct vrestore *r, enum vsealed_state state)
{
	struct volume *v = r->volume;
	const struct vchunk *c = &v->chunks[r->chunk];

	for (uint32_t i = 0; i < v->sealed_count; i++)
		if (v->sealed[i].id == r->layer && vchunk_slot_of(c, r->replica) == r->slot)
			states_of(v, i, r->chunk)[r->slot] = (uint8_t)state;
	learnt(v, r->chunk);
	volume_event(v);
	if (v->state < VOLUME_CLOSING && v->ended == 0)
		restore_some(v);
}

static void looked(struct rpc_call *call, int status, const Pave__V1__Control *reply,
		   const char *text)
{
	struct vrestore *r = container_of(call, struct vrestore, call);
	const Pave__V1__ChunksReply *c;
	const Pave__V1__ChunkState *s;

	(void)text;
	r->busy = r->looking = false;
	vmove_kick(r->volume);
	if (status != 0 || reply->body_case != PAVE__V1__CONTROL__BODY_CHUNKS_REPLY) {
		r->volume->layers.restore_after_ns =
		    volume_now(r->volume) + VRESTORE_RETRY_MS * NS_PER_MS;
		return;
	}
	c = reply->chunks_reply;
	s = c->n_chunks > 0 && c->chunks[0]->chunk == r->chunk ? c->chunks[0] : NULL;
	if (s != NULL ? s->status != 0 : c->absent_status != 0)
		set_state(r, VSEALED_DOUBT);
	else if (s != NULL && version_is_sealed(s->watermark))
		set_state(r, VSEALED_WHOLE);
	else
		set_state(r, s != NULL && s->newest > 0 ? VSEALED_PART : VSEALED_EMPTY);
}

/* What the node holds of the chunk was not in what it listed when it connected, or not yet. */
static void look(struct vrestore *x, struct vchunk *c, uint32_t slot, volume_id_t layer)
{
	Pave__V1__Control message = PAVE__V1__CONTROL__INIT;
	Pave__V1__Chunks chunks = PAVE__V1__CHUNKS__INIT;

	x->busy = x->looking = true;
	x->replica = c->slots[slot].replica;
	x->layer = layer;
	x->chunk = c->no;
	x->slot = slot;
	chunks.from = c->no;
	chunks.max = 1;
	chunks.layer = layer;
	message.body_case = PAVE__V1__CONTROL__BODY_CHUNKS;
	message.chunks = &chunks;
	x->call.done = looked;
	rpc_call_start(&x->replica->rpc, &x->call, &message, VRESYNC_PULL_MS);
}

static void restore_done(struct rpc_call *call, int status, const Pave__V1__Control *reply,
			 const char *text)
{
	struct vrestore *r = container_of(call, struct vrestore, call);
	struct volume *v = r->volume;

	r->busy = false;
	vmove_kick(v);
	if (status == 0 && reply->body_case != PAVE__V1__CONTROL__BODY_PULL_REPLY)
		status = -E_BAD_FRAME;
	if (status != 0) {
		log_info("volume", "%s: node %s could not restore chunk %u of layer %llu: %s",
			 v->config.name, v->nodes[r->replica->node].name, r->chunk,
			 (unsigned long long)r->layer, text != NULL ? text : err_text(status));
		v->layers.restore_after_ns = volume_now(v) + VRESTORE_RETRY_MS * NS_PER_MS;
		return;
	}
	set_state(r, VSEALED_WHOLE);
}

/* Now one, now another: a source may be damaged. */
static uint32_t choose_source(struct volume *v, vmask_t sources)
{
	uint32_t i = v->layers.restore_at++ % v->slot_count;

	while ((sources & vmask_bit(i)) == 0)
		i = (i + 1) % v->slot_count;
	return i;
}

/* From one of the sources; where those hold nothing, none is asked. */
static void restore(struct vrestore *x, struct vchunk *c, uint32_t slot, vmask_t sources,
		    uint32_t sealed)
{
	struct volume *v = c->volume;
	const uint32_t source = choose_source(v, sources);
	const volume_id_t layer = v->sealed[sealed].id;
	struct vreplica *from = c->slots[source].replica;
	Pave__V1__Control message = PAVE__V1__CONTROL__INIT;
	Pave__V1__Pull pull = PAVE__V1__PULL__INIT;

	x->busy = true;
	x->replica = c->slots[slot].replica;
	x->layer = layer;
	x->chunk = c->no;
	x->slot = slot;
	pull.chunk = c->no;
	pull.layer = layer;
	pull.exact = true;
	if (states_of(v, sealed, c->no)[source] == VSEALED_WHOLE) {
		pull.source_node = v->nodes[from->node].name;
		pull.source_address = from->address;
	}
	message.body_case = PAVE__V1__CONTROL__BODY_PULL;
	message.pull = &pull;
	x->call.done = restore_done;
	rpc_call_start(&x->replica->rpc, &x->call, &message, VRESYNC_PULL_MS);
}

static void repaired(struct rpc_call *call, int status, const Pave__V1__Control *reply,
		     const char *text)
{
	struct vrestore *x = container_of(call, struct vrestore, call);
	struct volume *v = x->volume;

	x->busy = x->repairing = false;
	vmove_kick(v);
	if (status == 0 && reply->body_case != PAVE__V1__CONTROL__BODY_PULL_REPLY)
		status = -E_BAD_FRAME;
	if (status == 0)
		v->stats.repairs += reply->pull_reply->blocks > 0;
	else
		log_info("volume", "%s: node %s could not repair chunk %u of layer %llu: %s",
			 v->config.name, v->nodes[x->replica->node].name, x->chunk,
			 (unsigned long long)x->layer, text != NULL ? text : err_text(status));
}

/* Slots that show what the layer, of which the slot has a whole copy, shows: good in it, and in all
 * below it. */
static vmask_t sources_of_repair(const struct volume *v, volume_id_t layer, const struct vchunk *c,
				 uint32_t slot)
{
	vmask_t m = vchunk_ready_slots(c);
	uint32_t i = 0;

	while (i < v->sealed_count && v->sealed[i].id != layer)
		i++;
	if (i == v->sealed_count || states_of(v, i, c->no)[slot] != VSEALED_WHOLE)
		return 0;
	while (i < v->sealed_count)
		m &= good_in(v, i++, c->no);
	return m;
}

void vlayers_repair(struct volume *v, struct vreplica *r, volume_id_t layer, chunk_no_t chunk,
		    block_no_t block, uint32_t block_count)
{
	struct vrestore *x = free_restore(v);
	struct vchunk *c = &v->chunks[chunk];
	const uint32_t slot = vchunk_slot_of(c, r);
	Pave__V1__Control message = PAVE__V1__CONTROL__INIT;
	Pave__V1__Pull pull = PAVE__V1__PULL__INIT;
	uint32_t ranges[2] = {block, block_count};
	const struct vreplica *from;
	const vmask_t sources = sources_of_repair(v, layer, c, slot) & ~vmask_bit(slot);

	if (x == NULL || sources == 0 || is_restoring(v, layer, chunk, slot) ||
	    !volume_gate_open(v))
		return;
	from = c->slots[choose_source(v, sources)].replica;
	x->busy = x->repairing = true;
	x->replica = r;
	x->layer = layer;
	x->chunk = chunk;
	x->slot = slot;
	pull.chunk = chunk;
	pull.layer = layer;
	pull.repair = true;
	pull.ranges = ranges;
	pull.n_ranges = 2;
	pull.source_node = v->nodes[from->node].name;
	pull.source_address = (char *)(uintptr_t)from->address;
	message.body_case = PAVE__V1__CONTROL__BODY_PULL;
	message.pull = &pull;
	x->call.done = repaired;
	rpc_call_start(&r->rpc, &x->call, &message, VRESYNC_PULL_MS);
}

/* The slot is to be looked at, or restored. */
static bool is_wanting(const struct volume *v, uint32_t sealed, struct vchunk *c, uint32_t slot)
{
	const uint8_t *states = states_of(v, sealed, c->no);

	if (wants_look(c, states, slot))
		return true;
	return (vchunk_used(c) & ~good_in(v, sealed, c->no) & vmask_bit(slot)) != 0 &&
	       states[slot] != VSEALED_DOUBT && states[slot] != VSEALED_UNKNOWN &&
	       !has_layer(v, sealed, c, slot);
}

/* Has a slot of the chunk that can be reached restore the layer. False: there is none to restore.
 */
static bool restore_chunk(struct volume *v, uint32_t sealed, chunk_no_t chunk)
{
	struct vchunk *c = &v->chunks[chunk];
	const uint8_t *states = states_of(v, sealed, chunk);
	const vmask_t good = good_in(v, sealed, chunk);
	vmask_t sources;
	bool found = false;

	if (good == c->members && c->learner == VSLOT_NONE)
		return false;
	sources = wants_looks(c, states) ? 0 : good & vchunk_ready_slots(c);
	for (uint32_t i = 0; i < v->slot_count; i++) {
		struct vrestore *x = free_restore(v);

		if (!is_wanting(v, sealed, c, i))
			continue;
		found = true;
		if (x == NULL || !vreplica_ready(c->slots[i].replica) ||
		    has_enough(v, c->slots[i].replica) ||
		    is_restoring(v, v->sealed[sealed].id, chunk, i))
			continue;
		if (wants_look(c, states, i))
			look(x, c, i, v->sealed[sealed].id);
		else if (sources != 0)
			restore(x, c, i, sources, sealed);
	}
	return found;
}

static void restore_some(struct volume *v)
{
	struct vlayers *l = &v->layers;
	bool found = false;

	if (!l->restore_wanted || volume_now(v) < l->restore_after_ns || !volume_gate_open(v))
		return;
	for (uint32_t s = 0; s < v->sealed_count && free_restore(v) != NULL; s++)
		for (uint32_t i = 0; i < v->chunk_count && free_restore(v) != NULL; i++)
			found = restore_chunk(v, s, i) || found;
	/* Nothing left to do until something is learnt. */
	if (!found && free_restore(v) != NULL)
		l->restore_wanted = false;
}

/* -- sealing ----------------------------------------------------------------------------------- */

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
	if ((c->sealed & vmask_bit(slot)) == 0 ||
	    version_is_sealed(c->slots[slot].reported_watermark))
		return;
	c->sealed &= ~vmask_bit(slot);
	c->sealing &= ~vmask_bit(slot);
	if (c->volume->layers.settled == 0)
		c->settled = vmask_count(c->sealed) >= c->volume->majority;
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
		present += vreplica_ready(s->replica) && s->fresh;
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

static void seal(struct volume *v)
{
	const struct vset *set = below(v);
	bool all = true;

	if (set == NULL || v->layers.settled != 0 || !volume_gate_open(v))
		return;
	for (uint32_t i = 0; i < v->chunk_count; i++)
		all = seal_chunk(&set->chunks[i]) && all;
	if (!all)
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

/* -- a layer ceases to be open ------------------------------------------------------------------
 */

static void retire_chunk(struct vchunk *c, uint8_t *states)
{
	struct volume *v = c->volume;
	struct vchunk *top = c->above;
	struct vread *rd, *next;

	for (uint32_t i = 0; i < v->slot_count; i++) {
		const struct vslot *s = &c->slots[i];

		if ((c->members & vmask_bit(i)) == 0)
			continue;
		if ((c->sealed & vmask_bit(i)) != 0)
			states[i] = VSEALED_WHOLE;
		else if (c->sealed != 0)
			states[i] = VSEALED_PART;
		else if (vreplica_ready(s->replica))
			states[i] = s->reported_newest == 0 ? VSEALED_EMPTY : VSEALED_PART;
	}
	/* Reads in flight above are done again: this sum is not that of before. */
	top->epoch += c->epoch + 1;
	top->below = NULL;
	c->retired = true;
	c->state = VCHUNK_UNOPENED;
	for (uint32_t i = 0; i < v->slot_count; i++)
		vresync_disturbed(c, i);
	vreconcile_retire(c);
	while (c->window.tail != NULL)
		vwrite_abandon(vwrite_of_entry(c->window.tail));
	for (rd = c->reads.head; rd != NULL; rd = next) {
		next = rd->next;
		vread_leave(rd);
	}
	vchunk_forget(c);
	vchunk_kick(top);
}

/* The permit says that the layer below the top is sealed. */
static void retire(struct volume *v)
{
	struct vset *set = below(v);

	if (add_sealed(v, set->layer, true) != 0) {
		volume_end(v, -ENOMEM, "no memory for another layer");
		return;
	}
	for (uint32_t i = 0; i < v->chunk_count; i++) {
		retire_chunk(&set->chunks[i], states_of(v, 0, i));
		learnt(v, i);
	}
	v->layers.settled = 0;
	vresync_kick(v);
}

static bool is_quiet(const struct vchunk *c)
{
	if (c->reads_begun > 0 || c->writes_begun > 0 || c->marks_begun > 0 || c->kicked ||
	    c->reconcile != NULL || c->locks != NULL || c->writes != NULL)
		return false;
	for (uint32_t i = 0; i < c->volume->slot_count; i++)
		if (c->slots[i].resync != NULL || c->slots[i].resync_queued)
			return false;
	return true;
}

static bool set_is_quiet(const struct volume *v, const struct vset *set)
{
	for (uint32_t i = 0; i < v->chunk_count; i++)
		if (!is_quiet(&set->chunks[i]))
			return false;
	return true;
}

/* Frees the retired sets of which nothing is under way. The oldest first, and none before it: what
 * is still under way in a set leaves it for the ones above. */
static void free_retired(struct volume *v)
{
	while (v->sets != NULL && v->extents == NULL) {
		struct vset *set = v->sets;

		while (set->next != NULL)
			set = set->next;
		if (!set->chunks[0].retired || !set_is_quiet(v, set))
			return;
		LL_DELETE(v->sets, set);
		volume_free_set(set);
	}
}

/* -- a layer begins -----------------------------------------------------------------------------
 */

/* Nobody but this attachment ever knew of the layer: it is empty everywhere. */
static void begin_chunk(struct vchunk *c, struct vchunk *old)
{
	struct volume *v = c->volume;
	struct vpiece *p, *next;

	c->state = VCHUNK_SERVING;
	/* Versions go on, so that what is above is always newer. */
	c->window.last_seq = old->window.last_seq;
	c->members = old->members;
	for (uint32_t i = 0; i < v->slot_count; i++) {
		struct vslot *s = &c->slots[i];

		if ((c->members & vmask_bit(i)) == 0)
			continue;
		s->chunk = c;
		s->node = old->slots[i].node;
		s->replica = old->slots[i].replica;
		s->current = true;
		s->fresh = vreplica_ready(s->replica);
		s->joined_epoch = s->fresh ? s->replica->epoch : 0;
		s->joined_seq = c->window.last_seq + 1;
	}
	DL_FOREACH_SAFE (old->writes, p, next) {
		vchunk_unqueue_write(p);
		p->chunk = c;
		vchunk_queue_write(c, p);
	}
}

static void begin(struct volume *v, volume_id_t layer)
{
	struct vset *old = v->sets;
	struct vset *set = volume_make_set(v, layer, NULL);

	if (set == NULL) {
		volume_end(v, -ENOMEM, "no memory for another layer");
		return;
	}
	log_info("volume", "%s: writes go to layer %llu from now on", v->config.name,
		 (unsigned long long)layer);
	link_sets(v, set, old);
	for (uint32_t i = 0; i < v->chunk_count; i++)
		begin_chunk(&set->chunks[i], &old->chunks[i]);
	LL_PREPEND(v->sets, set);
	v->chunks = set->chunks;
}

/* The permit's top layer is another. False: later, for a chunk changes its members now. */
static bool take_top(struct volume *v)
{
	const struct permit *p = &v->attach.permit;
	uint32_t moving[VMOVES_MAX];

	if (below(v) != NULL || p->layer_count < 2 || p->layers[1].id != v->sets->layer ||
	    !p->layers[1].open) {
		volume_end(v, -E_FENCED, "the volume has other layers now: attach it again");
		return true;
	}
	if (vmove_chunks(v, moving) > 0)
		return false;
	begin(v, p->layers[0].id);
	return true;
}

/* What the layer held is in the next one below now, everywhere. */
static void merged(struct volume *v, uint32_t sealed)
{
	uint8_t *states = v->sealed[sealed].states;

	for (uint32_t c = 0; c < v->chunk_count; c++) {
		const uint8_t *upper = &states[(size_t)c * v->slot_count];
		uint8_t *lower = states_of(v, sealed + 1, c);
		bool touched = false;

		for (uint32_t i = 0; i < v->slot_count; i++)
			touched = touched || upper[i] == VSEALED_WHOLE;
		/* Who was away is asked when it comes back; so is a learner, now. */
		for (uint32_t i = 0; i < v->slot_count && touched; i++) {
			if ((v->chunks[c].members & vmask_bit(i)) == 0)
				lower[i] = VSEALED_UNKNOWN;
			else if (upper[i] == VSEALED_WHOLE)
				lower[i] = VSEALED_WHOLE;
		}
		learnt(v, c);
	}
	log_info("volume", "%s: layer %llu is merged into %llu", v->config.name,
		 (unsigned long long)v->sealed[sealed].id,
		 (unsigned long long)v->sealed[sealed + 1].id);
	free(states);
	v->sealed_count--;
	v->layers.changes++;
	memmove(&v->sealed[sealed], &v->sealed[sealed + 1],
		(v->sealed_count - sealed) * sizeof(*v->sealed));
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

/* What the permit says of layers comes true. */
static void take_layers(struct volume *v)
{
	const struct permit *p = &v->attach.permit;
	bool changed = false;

	if (below(v) != NULL &&
	    (p->layer_count < 2 || !p->layers[1].open || p->layers[1].id != below(v)->layer)) {
		retire(v);
		changed = true;
	}
	if (v->ended == 0 && p->layers[0].id != v->sets->layer)
		changed = take_top(v) || changed;
	changed = take_merged(v) || changed;
	if (!changed || v->ended != 0)
		return;
	for (uint32_t n = 0; n < v->node_count; n++)
		for (uint32_t i = 0; i < VREPLICA_SHARDS_MAX && v->nodes[n].replicas[i] != NULL;
		     i++)
			vreplica_layers_changed(v->nodes[n].replicas[i]);
	volume_event(v);
}

void vlayers_permit(struct volume *v)
{
	take_layers(v);
}

/* -- time ---------------------------------------------------------------------------------------
 */

void vlayers_event(struct volume *v)
{
	seal(v);
	if (v->layers.settled != 0 && !v->layers.told)
		v->layers.told = vattach_renew(&v->attach);
}

void vlayers_tick(struct volume *v)
{
	if (v->attach.gate.deadline_ns != 0)
		take_layers(v);
	if (v->ended != 0 || (vlayers_single(v) && v->sets->next == NULL))
		return;
	if (v->state == VOLUME_OPEN)
		vlayers_event(v);
	if (v->state < VOLUME_CLOSING)
		restore_some(v);
	free_retired(v);
}
