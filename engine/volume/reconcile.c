/* reconcile: see reconcile.h.
 *
 * INVARIANTS
 *  1. A chunk serves only after its seal is durable on every member, and the members are a majority
 *     of the configured replicas: so every later majority meets one whose watermark is at least
 * this generation's, and nothing older that is above it can win any more. The one exception is a
 *     chunk whose configured replicas are all present and equal: there is nothing that could win.
 *  2. While a chunk reconciles, only its reconciling writes to it.
 *
 * Happy path of a clean attach: every state is known from the scan and all are equal: a chunk opens
 * in the turn in which it is first used, without a message.
 *
 * Failure modes: too few replicas: waits for more. Anything else: abort, back-off, again. */
#include "engine/volume/reconcile.h"

#include <errno.h>
#include <stdlib.h>
#include <utlist.h>

#include "engine/base/assert.h"
#include "engine/base/crc32c.h"
#include "engine/base/log.h"
#include "engine/volume/core.h"
#include "engine/volume/fetch.h"

enum reconcile_step {
	RECONCILE_FREE,
	RECONCILE_QUIET,
	RECONCILE_STATES,
	RECONCILE_LISTS,
	RECONCILE_COPY,
	RECONCILE_SEAL,
};

struct copying {
	struct vreconcile *reconcile;
	struct vplan_copy copy; /* block_count 0: free */
	vmask_t tried, bad;	/* holders that did not give it; because it does not check there */
	struct volume_buffer *buffer;
	struct vread *read;
	struct vwrite *write;
};

struct vreconcile {
	struct vchunk *chunk;
	enum reconcile_step step;
	int failed;
	vmask_t present; /* R: in use since the beginning */
	uint64_t epochs[VSLOTS_MAX];
	struct vfetch fetches[VSLOTS_MAX];
	uint32_t fetching;
	struct vplan_state states[VSLOTS_MAX];
	struct vplan_choice choice;
	struct vplan_list lists[VSLOTS_MAX];
	struct vplan_copies plan;
	uint32_t next_copy;
	struct copying copies[VRECONCILE_COPIES_MAX];
	struct vmark *marks[VSLOTS_MAX];
	vmask_t sealed, sealing;
};

static void tick(struct vreconcile *x);

static void run_engine(struct reactor_task *task);
static void unqueue(struct vchunk *c);
static void abort_reconcile(struct vreconcile *x);

int vreconcile_init(struct volume *v)
{
	v->reconcile.task.run = run_engine;
	v->reconcile.contexts = calloc(VRECONCILES_MAX, sizeof(*v->reconcile.contexts));
	return v->reconcile.contexts != NULL ? 0 : -ENOMEM;
}

static void unqueue_set(struct vchunk *queue, const struct vset *set)
{
	struct vchunk *c, *next;

	DL_FOREACH_SAFE2(queue, c, next, reconcile_next)
	if (c->set == set)
		unqueue(c);
}

void vreconcile_retire(struct volume *v, const struct vset *set)
{
	PRE(set->retired);
	unqueue_set(v->reconcile.urgent, set);
	unqueue_set(v->reconcile.background, set);
	for (uint32_t i = 0; i < VRECONCILES_MAX; i++) {
		struct vreconcile *x = &v->reconcile.contexts[i];

		if (x->step == RECONCILE_FREE || x->chunk->set != set)
			continue;
		x->failed = -ECANCELED;
		abort_reconcile(x);
	}
}

void vreconcile_kick(struct volume *v)
{
	reactor_defer(v->reactor, &v->reconcile.task);
}

void vreconcile_quiet(struct vchunk *c)
{
	if (c->reconcile != NULL)
		vreconcile_kick(c->volume);
}

void vreconcile_slot_failed(struct vchunk *c, uint32_t slot)
{
	struct vreconcile *x = c->reconcile;

	if (x == NULL)
		return;
	if (x->step < RECONCILE_COPY || (x->choice.members & vmask_bit(slot)) != 0)
		x->failed = -E_DISCONNECTED;
	else
		x->present &= ~vmask_bit(slot);
	vreconcile_kick(c->volume);
}

/* -- the queues -------------------------------------------------------------------------------- */

/* The replicas to reconcile with. One that fails every write would make it begin again for ever,
 * and so would one that alone holds something and cannot be read, because that is damaged, or what
 * lies below this layer is on a device that it has lost: they are left out if enough others are
 * there. Where not all can be spared those that failed are, and not those in doubt, for these
 * matter only by what they alone hold. Nothing that was acknowledged goes with them, for it is on
 * one of every majority. */
static vmask_t healthy_members(const struct vchunk *c)
{
	const uint64_t now_ns = volume_now(c->volume);
	vmask_t ready = 0, failed = 0, doubted = 0;

	for (uint32_t i = 0; i < c->volume->slot_count; i++) {
		const struct vreplica *r = c->slots[i].replica;

		if ((c->members & vmask_bit(i)) == 0 || !vslot_ready(&c->slots[i]) ||
		    c->slots[i].lost)
			continue;
		ready |= vmask_bit(i);
		if (vreplica_sick(r, now_ns) || c->slots[i].unreadable)
			failed |= vmask_bit(i);
		if (vlayers_in_doubt(c, i))
			doubted |= vmask_bit(i);
	}
	if (vmask_count(ready & ~failed & ~doubted) >= c->volume->majority)
		return ready & ~failed & ~doubted;
	if (vmask_count(ready & ~failed) >= c->volume->majority)
		return ready & ~failed;
	return vmask_count(ready & ~doubted) >= c->volume->majority ? ready & ~doubted : ready;
}

/* R and their states, as far as they are known without asking. */
static vmask_t known_states(const struct vchunk *c, struct vplan_state *ret_states, bool *ret_fresh)
{
	const vmask_t present = healthy_members(c);
	bool fresh = true;

	for (uint32_t i = 0; i < c->volume->slot_count; i++) {
		const struct vslot *s = &c->slots[i];

		ret_states[i] = (struct vplan_state){0};
		if ((present & vmask_bit(i)) == 0)
			continue;
		fresh = fresh && s->fresh && s->outstanding == 0;
		ret_states[i].present = true;
		ret_states[i].watermark = s->reported_watermark;
		ret_states[i].newest = s->reported_newest;
	}
	*ret_fresh = fresh;
	return present;
}

/* The replicas that could be asked differ, so that reconciling would restore redundancy. */
static bool known_to_differ(const struct vchunk *c)
{
	struct vplan_state states[VSLOTS_MAX];
	const struct vplan_state *first = NULL;
	bool fresh;
	const vmask_t present = known_states(c, states, &fresh);

	if (vmask_count(present) < c->volume->majority || !fresh)
		return false;
	for (uint32_t i = 0; i < c->volume->slot_count; i++) {
		if (!states[i].present)
			continue;
		if (states[i].newest > states[i].watermark)
			return true;
		if (first != NULL && states[i].watermark != first->watermark)
			return true;
		first = &states[i];
	}
	return false;
}

static void unqueue(struct vchunk *c)
{
	struct vreconcile_engine *e = &c->volume->reconcile;

	if (c->reconcile_queued == 2)
		DL_DELETE2(e->urgent, c, reconcile_prev, reconcile_next);
	else if (c->reconcile_queued == 1)
		DL_DELETE2(e->background, c, reconcile_prev, reconcile_next);
	c->reconcile_queued = 0;
}

void vreconcile_want(struct vchunk *c, bool urgent)
{
	struct vreconcile_engine *e = &c->volume->reconcile;

	if (c->reconcile != NULL || c->state != VCHUNK_UNOPENED || c->set->retired)
		return;
	if (c->reconcile_queued >= (urgent ? 2 : 1)) {
		vreconcile_kick(c->volume);
		return;
	}
	if (!urgent && !known_to_differ(c))
		return;
	if (!vlayers_touch(c))
		return;
	unqueue(c);
	if (urgent)
		DL_APPEND2(e->urgent, c, reconcile_prev, reconcile_next);
	else
		DL_APPEND2(e->background, c, reconcile_prev, reconcile_next);
	c->reconcile_queued = urgent ? 2 : 1;
	vreconcile_kick(c->volume);
}

/* -- ends -------------------------------------------------------------------------------------- */

static void release(struct vreconcile *x)
{
	for (uint32_t i = 0; i < VSLOTS_MAX; i++)
		vplan_list_deinit(&x->lists[i]);
	vplan_copies_deinit(&x->plan);
	x->chunk->reconcile = NULL;
	*x = (struct vreconcile){0};
}

static void serve(struct vreconcile *x)
{
	struct vchunk *c = x->chunk;
	const struct vplan_choice choice = x->choice;

	log_debug("volume", "%s: chunk %u serves, reconciled %llu blocks", c->volume->config.name,
		  c->no, (unsigned long long)x->plan.block_count);
	c->volume->stats.reconciled_blocks += x->plan.block_count;
	release(x);
	c->reconcile_tries = 0;
	vchunk_serve(c, choice.members);
}

static void abort_copies(struct vreconcile *x)
{
	for (uint32_t i = 0; i < VRECONCILE_COPIES_MAX; i++) {
		struct copying *p = &x->copies[i];

		if (p->read != NULL)
			vread_cancel(p->read);
		if (p->write != NULL) {
			p->write->what.decided = vwrite_ignore;
			p->write = NULL;
		}
		vbuffers_put(&x->chunk->volume->buffers, p->buffer);
		*p = (struct copying){0};
	}
}

static void abort_reconcile(struct vreconcile *x)
{
	struct vchunk *c = x->chunk;
	struct volume *v = c->volume;
	uint64_t wait_ms;

	log_info("volume", "%s: reconciling chunk %u begins again: %s", v->config.name, c->no,
		 err_text(x->failed));
	for (uint32_t i = 0; i < VSLOTS_MAX; i++) {
		vfetch_cancel(&x->fetches[i]);
		if (x->marks[i] != NULL)
			vmark_cancel(x->marks[i]);
	}
	abort_copies(x);
	release(x);
	c->state = VCHUNK_UNOPENED;
	while (c->window.tail != NULL)
		vwrite_abandon(vwrite_of_entry(c->window.tail));
	wait_ms = (uint64_t)VRECONCILE_RETRY_MS << MIN(c->reconcile_tries, 5u);
	if (c->set->retired)
		return;
	c->reconcile_tries++;
	c->reconcile_after_ns =
	    volume_now(v) + MIN(wait_ms, (uint64_t)VRECONCILE_RETRY_MAX_MS) * NS_PER_MS;
	DL_APPEND2(v->reconcile.urgent, c, reconcile_prev, reconcile_next);
	c->reconcile_queued = 2;
}

/* -- COPY -------------------------------------------------------------------------------------- */

static void copy_end(struct copying *p, int status)
{
	struct vreconcile *x = p->reconcile;

	vbuffers_put(&x->chunk->volume->buffers, p->buffer);
	*p = (struct copying){0};
	if (status != 0 && x->failed == 0)
		x->failed = status;
	vreconcile_kick(x->chunk->volume);
}

static void copy_written(struct vwrite *w, int status)
{
	struct copying *p = w->what.owner;

	p->write = NULL;
	copy_end(p, status);
}

static bool copy_read_next(struct copying *p);

/* No holder gives it. Each may have another block that is bad, so it is read block by block; and
 * for a block that is bad in all of them there are the others, next time. */
static void copy_unreadable(struct copying *p, int status)
{
	struct vreconcile *x = p->reconcile;
	struct vchunk *c = x->chunk;

	if (p->copy.block_count > 1 && p->bad != 0) {
		copy_end(p, vplan_copies_split(&x->plan, &p->copy));
		return;
	}
	for (uint32_t i = 0; i < c->volume->slot_count; i++) {
		if ((p->bad & vmask_bit(i)) == 0)
			continue;
		c->slots[i].unreadable = true;
		log_warn(
		    "volume",
		    "%s: chunk %u block %u is damaged on node %s, and no other has it: without "
		    "that node, if a majority is left",
		    c->volume->config.name, c->no, p->copy.block,
		    c->volume->nodes[c->slots[i].node].name);
	}
	copy_end(p, status);
}

static void copy_read(struct vread *rd, int status)
{
	struct copying *p = rd->owner;
	struct vreconcile *x = p->reconcile;
	struct vchunk *c = x->chunk;
	struct vwrite_what what = {
	    .block = p->copy.block,
	    .block_count = p->copy.block_count,
	    .buffer = p->buffer,
	    .need = c->volume->majority,
	    .targets = x->present & vchunk_ready_slots(c),
	    .decided = copy_written,
	    .owner = p,
	};

	p->read = NULL;
	if (status != 0) {
		/* Another holder has the same, perhaps. */
		p->tried |= vmask_bit(rd->legs[0].slot);
		if (status == -EIO && vslot_ready(&c->slots[rd->legs[0].slot]))
			p->bad |= vmask_bit(rd->legs[0].slot);
		if (x->failed != 0)
			copy_end(p, status);
		else if (!copy_read_next(p))
			copy_unreadable(p, status);
		return;
	}
	crc32c_blocks(p->buffer->data, p->copy.block_count, p->buffer->crcs);
	p->buffer->crcs_known = true;
	what.zero = what.discard = vrewrite_is_zero(p->buffer, p->copy.block_count);
	if (x->failed != 0 || !vwrite_start(c, &what, true, &p->write))
		copy_end(p, -E_LIMIT);
}

static bool copy_read_next(struct copying *p)
{
	struct vchunk *c = p->reconcile->chunk;
	/* A holder may lack the block in this layer: then it shows what lies below. */
	const vmask_t good = vlayers_whole(c);

	for (uint32_t i = 0; i < c->volume->slot_count && p->read == NULL; i++)
		if ((p->copy.holders & ~p->tried & good & vmask_bit(i)) != 0)
			p->read = vread_start_fixed(c, i, p->copy.block, p->copy.block_count,
						    p->buffer, copy_read, p);
	return p->read != NULL;
}

static bool start_copies(struct vreconcile *x)
{
	bool working = false;

	for (uint32_t i = 0; i < VRECONCILE_COPIES_MAX; i++) {
		struct copying *p = &x->copies[i];

		if (p->copy.block_count == 0 && x->next_copy < x->plan.count && x->failed == 0) {
			*p = (struct copying){.reconcile = x, .copy = x->plan.copies[x->next_copy]};
			p->buffer = vbuffers_get(&x->chunk->volume->buffers,
						 p->copy.block_count * BLOCK_SIZE, true);
			if (p->buffer == NULL) {
				p->copy.block_count = 0;
				return true; /* the engine runs again soon */
			}
			x->next_copy++;
			if (!copy_read_next(p))
				copy_end(p, -E_UNREACHABLE);
		}
		working = working || p->copy.block_count != 0;
	}
	return working;
}

/* Every copy is on every member. */
static bool copies_everywhere(const struct vreconcile *x)
{
	for (uint32_t i = 0; i < x->chunk->volume->slot_count; i++)
		if ((x->choice.members & vmask_bit(i)) != 0 && x->chunk->window.oldest[i] != NULL)
			return false;
	return true;
}

/* -- SEAL -------------------------------------------------------------------------------------- */

static void sealed(struct vmark *m, int status)
{
	struct vreconcile *x = m->owner;

	x->marks[m->slot] = NULL;
	if (status == 0)
		x->sealed |= vmask_bit(m->slot);
	else if (x->failed == 0)
		x->failed = status;
	vreconcile_kick(x->chunk->volume);
}

static void send_seals(struct vreconcile *x)
{
	struct vchunk *c = x->chunk;
	const version_t seal = version_make(c->volume->generation, c->window.last_seq);

	for (uint32_t i = 0; i < c->volume->slot_count; i++) {
		if ((x->choice.members & ~x->sealing & vmask_bit(i)) == 0)
			continue;
		x->marks[i] = vmark_send(c, i, seal, sealed, x);
		if (x->marks[i] != NULL)
			x->sealing |= vmask_bit(i);
	}
}

/* -- STATES, LISTS ----------------------------------------------------------------------------- */

static void fetched(struct vfetch *f, int status)
{
	struct vreconcile *x = f->owner;

	x->fetching--;
	if (status == -E_DEVICE)
		vchunk_slot_refused(f->chunk, f->slot);
	if (status != 0 && x->failed == 0)
		x->failed = status;
	vreconcile_kick(f->chunk->volume);
}

static bool is_quiet(const struct vreconcile *x)
{
	for (uint32_t i = 0; i < x->chunk->volume->slot_count; i++)
		if (x->chunk->slots[i].outstanding != 0 && (x->present & vmask_bit(i)) != 0)
			return false;
	return true;
}

static void ask_states(struct vreconcile *x)
{
	for (uint32_t i = 0; i < x->chunk->volume->slot_count; i++) {
		if ((x->present & vmask_bit(i)) == 0 || x->chunk->slots[i].fresh)
			continue;
		x->fetching++;
		vfetch_state(&x->fetches[i], x->chunk, i, fetched, x);
	}
	x->step = RECONCILE_STATES;
}

static void ask_lists(struct vreconcile *x)
{
	const uint32_t slots = x->chunk->volume->slot_count;
	int rc;

	for (uint32_t i = 0; i < slots; i++) {
		const struct vslot *s = &x->chunk->slots[i];

		x->states[i] = (struct vplan_state){0};
		if ((x->present & vmask_bit(i)) == 0)
			continue;
		x->states[i].present = true;
		x->states[i].watermark = s->reported_watermark;
		x->states[i].newest = s->reported_newest;
	}
	rc = vplan_choose(x->states, x->chunk->members, &x->choice);
	if (rc != 0) {
		x->failed = rc;
		return;
	}
	for (uint32_t i = 0; i < slots && !x->choice.clean; i++) {
		if ((x->choice.ask & vmask_bit(i)) == 0)
			continue;
		x->fetching++;
		vfetch_changes(&x->fetches[i], x->chunk, i, x->choice.above[i], 0, 0, &x->lists[i],
			       fetched, x);
	}
	x->step = RECONCILE_LISTS;
}

/* -- the tick ---------------------------------------------------------------------------------- */

static void check_members(struct vreconcile *x)
{
	for (uint32_t i = 0; i < x->chunk->volume->slot_count; i++) {
		const struct vslot *s = &x->chunk->slots[i];

		if ((x->present & vmask_bit(i)) != 0 &&
		    (!vslot_ready(s) || s->replica->epoch != x->epochs[i]))
			vreconcile_slot_failed(x->chunk, i);
	}
}

static void step(struct vreconcile *x)
{
	const enum reconcile_step before = x->step;

	switch (x->step) {
	case RECONCILE_FREE:
		return;
	case RECONCILE_QUIET:
		if (is_quiet(x))
			ask_states(x);
		break;
	case RECONCILE_STATES:
		if (x->fetching == 0)
			ask_lists(x);
		break;
	case RECONCILE_LISTS:
		if (x->fetching != 0)
			break;
		if (x->choice.clean) {
			serve(x);
			return;
		}
		x->failed = vplan_make(x->states, x->chunk->members, &x->choice, x->lists,
				       x->chunk->volume->chunk_blocks, &x->plan);
		x->step = RECONCILE_COPY;
		break;
	case RECONCILE_COPY:
		if (!start_copies(x) && x->failed == 0 && copies_everywhere(x))
			x->step = RECONCILE_SEAL;
		break;
	case RECONCILE_SEAL:
		send_seals(x);
		if (x->sealed == x->choice.members) {
			serve(x);
			return;
		}
		break;
	}
	if (x->failed == 0 && x->step != before)
		step(x);
}

static void tick(struct vreconcile *x)
{
	if (x->step == RECONCILE_FREE)
		return;
	if (x->failed == 0)
		check_members(x);
	if (x->failed == 0)
		step(x);
	if (x->step != RECONCILE_FREE && x->failed != 0)
		abort_reconcile(x);
}

/* Waits a little for those that may come, once a majority is there: the more take part, the less is
 * left for resync. */
static bool in_grace(const struct vchunk *c)
{
	const struct volume *v = c->volume;

	if (v->majority_ns != 0 && volume_now(v) >= v->majority_ns + VOLUME_GRACE_MS * NS_PER_MS)
		return false;
	for (uint32_t i = 0; i < v->slot_count; i++)
		if ((c->members & vmask_bit(i)) != 0 && !c->slots[i].replica->tried &&
		    c->slots[i].replica->permitted)
			return true;
	return false;
}

/* True: the chunk left the queue. */
static bool begin(struct vchunk *c, struct vreconcile *free)
{
	struct volume *v = c->volume;
	struct vplan_state states[VSLOTS_MAX];
	struct vplan_choice choice;
	bool fresh;
	const vmask_t present = known_states(c, states, &fresh);

	if (vmask_count(present) < v->majority || in_grace(c) ||
	    volume_now(v) < c->reconcile_after_ns || !volume_gate_open(v) || vmove_in_doubt(c))
		return false;
	if (fresh && vplan_choose(states, c->members, &choice) == 0 && choice.clean) {
		unqueue(c);
		vchunk_serve(c, choice.members);
		return true;
	}
	if (free == NULL)
		return false;
	unqueue(c);
	*free = (struct vreconcile){.chunk = c, .step = RECONCILE_QUIET, .present = present};
	for (uint32_t i = 0; i < v->slot_count; i++)
		if ((c->members & vmask_bit(i)) != 0)
			free->epochs[i] = c->slots[i].replica->epoch;
	c->reconcile = free;
	c->state = VCHUNK_RECONCILING;
	tick(free);
	return true;
}

static struct vreconcile *find_free(struct volume *v)
{
	for (uint32_t i = 0; i < VRECONCILES_MAX; i++)
		if (v->reconcile.contexts[i].step == RECONCILE_FREE)
			return &v->reconcile.contexts[i];
	return NULL;
}

static void run_engine(struct reactor_task *task)
{
	struct volume *v = container_of(task, struct volume, reconcile.task);
	struct vchunk *c, *next;

	if (v->state >= VOLUME_STOPPING || v->ended != 0)
		return;
	for (uint32_t i = 0; i < VRECONCILES_MAX; i++)
		tick(&v->reconcile.contexts[i]);
	DL_FOREACH_SAFE2(v->reconcile.urgent, c, next, reconcile_next)
	begin(c, find_free(v));
	DL_FOREACH_SAFE2(v->reconcile.background, c, next, reconcile_next)
	{
		if (find_free(v) == NULL)
			break;
		begin(c, find_free(v));
	}
}

void vreconcile_stop(struct volume *v)
{
	for (uint32_t i = 0; v->reconcile.contexts != NULL && i < VRECONCILES_MAX; i++) {
		struct vreconcile *x = &v->reconcile.contexts[i];

		if (x->step == RECONCILE_FREE)
			continue;
		x->failed = -ECANCELED;
		abort_reconcile(x);
	}
}

void vreconcile_deinit(struct volume *v)
{
	for (uint32_t i = 0; v->reconcile.contexts != NULL && i < VRECONCILES_MAX; i++)
		if (v->reconcile.contexts[i].step != RECONCILE_FREE)
			release(&v->reconcile.contexts[i]);
	free(v->reconcile.contexts);
	v->reconcile.contexts = NULL;
}
