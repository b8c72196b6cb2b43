/* restore: replicas get what they lack of sealed layers (layers.h). What is to be restored is
 * looked for in rounds over all chunks of all sealed layers, a piece at a time, for as long as the
 * last round found something, or something was learnt since. */
#include "engine/base/log.h"
#include "engine/volume/layers_parts.h"

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
			vlayers_states(v, i, r->chunk)[r->slot] = (uint8_t)state;
	vlayers_learnt(v, r->chunk);
	volume_event(v);
	if (v->state < VOLUME_CLOSING && v->ended == 0)
		vrestore_some(v);
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
	if (vlayers_states(v, sealed, c->no)[source] == VSEALED_WHOLE) {
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
	if (i == v->sealed_count || vlayers_states(v, i, c->no)[slot] != VSEALED_WHOLE)
		return 0;
	while (i < v->sealed_count)
		m &= vlayers_good_in(v, i++, c->no);
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
	const uint8_t *states = vlayers_states(v, sealed, c->no);

	if (vlayers_wants_look(c, states, slot))
		return true;
	return (vchunk_used(c) & ~vlayers_good_in(v, sealed, c->no) & vmask_bit(slot)) != 0 &&
	       states[slot] != VSEALED_DOUBT && states[slot] != VSEALED_UNKNOWN &&
	       !vlayers_has(v, sealed, c, slot);
}

/* Has a slot of the chunk that can be reached restore the layer. False: there is none to restore.
 */
static bool restore_chunk(struct volume *v, uint32_t sealed, chunk_no_t chunk)
{
	struct vchunk *c = &v->chunks[chunk];
	const uint8_t *states = vlayers_states(v, sealed, chunk);
	const vmask_t good = vlayers_good_in(v, sealed, chunk);
	vmask_t sources;
	bool found = false;

	if (good == c->members && c->learner == VSLOT_NONE)
		return false;
	sources = vlayers_wants_looks(c, states) ? 0 : good & vchunk_ready_slots(c);
	for (uint32_t i = 0; i < v->slot_count; i++) {
		struct vrestore *x = free_restore(v);

		if (!is_wanting(v, sealed, c, i))
			continue;
		found = true;
		if (x == NULL || !vreplica_ready(c->slots[i].replica) ||
		    has_enough(v, c->slots[i].replica) ||
		    is_restoring(v, v->sealed[sealed].id, chunk, i))
			continue;
		if (vlayers_wants_look(c, states, i))
			look(x, c, i, v->sealed[sealed].id);
		else if (sources != 0)
			restore(x, c, i, sources, sealed);
	}
	return found;
}

static bool restore_next(struct volume *v)
{
	struct vlayers *l = &v->layers;
	const uint64_t at = l->restore_next % ((uint64_t)v->sealed_count * v->chunk_count);

	l->restore_next = at + 1;
	l->restore_left--;
	return restore_chunk(v, (uint32_t)(at / v->chunk_count), (chunk_no_t)(at % v->chunk_count));
}

void vrestore_some(struct volume *v)
{
	struct vlayers *l = &v->layers;
	const uint64_t all = (uint64_t)v->sealed_count * v->chunk_count;

	if (!l->restore_wanted || volume_now(v) < l->restore_after_ns || !volume_gate_open(v))
		return;
	l->restore_left = l->restore_left == 0 ? all : MIN(l->restore_left, all);
	for (uint32_t n = l->piece; n > 0 && l->restore_left > 0 && free_restore(v) != NULL; n--)
		l->restore_found = restore_next(v) || l->restore_found;
	if (l->restore_left > 0) {
		if (free_restore(v) != NULL)
			vlayers_later(v);
		return;
	}
	/* Nothing left to do until something is learnt. */
	if (!l->restore_found && free_restore(v) != NULL)
		l->restore_wanted = false;
	l->restore_found = false;
}
