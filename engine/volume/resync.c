/* resync: see resync.h.
 *
 * INVARIANTS
 *  1. A slot becomes current only when it holds everything that was decided, no phantom, and is
 *     awaited for whatever is in flight: everything below joined_seq comes by the pull, everything
 *     from it on directly.
 *  2. What it holds is asked only when no write that was settled as failed is on its way to it any
 *     more: that would arrive as a phantom after we looked for them.
 *  3. No write of the chunk may fail meanwhile: the source might hold what failed, and hand it on.
 *  4. It has answered a watermark before it is current: so when it comes back without its content,
 *     be it at once, it is known to have lost it.
 *
 * Failure modes: anything that goes wrong sends the slot back into the queue, with a back-off. */
#include "engine/volume/resync.h"

#include <errno.h>
#include <stdlib.h>
#include <utlist.h>

#include "engine/base/assert.h"
#include "engine/base/log.h"
#include "engine/volume/core.h"
#include "engine/volume/fetch.h"

#define RESYNC_REWRITES_MAX 4u
#define RATE_NS		    NS_PER_S

enum resync_step {
	RESYNC_FREE,
	RESYNC_SETTLE,
	RESYNC_STATE,
	RESYNC_LISTS,
	RESYNC_REWRITE,
	RESYNC_ARRIVE, /* the rewrites are answered by the slot too */
	RESYNC_PULL,
	RESYNC_PULLED,
	RESYNC_MARK,
};

struct resync_rewrite {
	struct vresync *resync;
	struct vrewrite *rewrite;
};

struct vresync {
	struct vchunk *chunk;
	uint32_t slot, source;
	enum resync_step step;
	int failed;
	uint64_t epoch, replica_epoch, source_epoch, joined_seq, rewritten_seq;
	struct vfetch theirs, ours;
	uint32_t fetching;
	struct vplan_list theirs_list, ours_list;
	struct vplan_copies phantoms;
	uint32_t next_phantom;
	struct resync_rewrite rewrites[RESYNC_REWRITES_MAX];
	bool need_pull, pulling;
	struct vplan_missing missing;
	uint64_t pulled; /* blocks, so far */
	struct rpc_call pull;
	struct vmark *mark;
};

static void run_engine(struct reactor_task *task);

int vresync_init(struct volume *v)
{
	v->resync.task.run = run_engine;
	v->resync.contexts = calloc(VRESYNCS_MAX, sizeof(*v->resync.contexts));
	return v->resync.contexts != NULL ? 0 : -ENOMEM;
}

void vresync_kick(struct volume *v)
{
	reactor_defer(v->reactor, &v->resync.task);
}

void vresync_want(struct vchunk *c, uint32_t slot)
{
	struct vslot *s = &c->slots[slot];

	if (s->resync != NULL || s->resync_queued)
		return;
	s->resync_queued = true;
	DL_APPEND2(c->volume->resync.queue, s, resync_prev, resync_next);
	vresync_kick(c->volume);
}

void vresync_disturbed(struct vchunk *c, uint32_t slot)
{
	struct vresync *x = c->slots[slot].resync;

	if (x == NULL || x->failed != 0)
		return;
	x->failed = -E_STALE_REPLICA;
	vresync_kick(c->volume);
}

void vresync_forget(struct vchunk *c, uint32_t slot)
{
	struct vslot *s = &c->slots[slot];

	if (s->resync_queued)
		DL_DELETE2(c->volume->resync.queue, s, resync_prev, resync_next);
	s->resync_queued = false;
	vresync_disturbed(c, slot);
}

/* -- ends -------------------------------------------------------------------------------------- */

static void release(struct vresync *x)
{
	vplan_list_deinit(&x->theirs_list);
	vplan_list_deinit(&x->ours_list);
	vplan_copies_deinit(&x->phantoms);
	x->chunk->slots[x->slot].resync = NULL;
	if (x->chunk->move != NULL)
		vmove_kick(x->chunk->volume);
	*x = (struct vresync){0};
}

static void abort_resync(struct vresync *x)
{
	struct vchunk *c = x->chunk;
	struct volume *v = c->volume;
	const uint32_t slot = x->slot;
	struct vslot *s = &c->slots[slot];
	uint64_t wait_ms;

	log_debug("volume", "%s: resync of chunk %u on node %s begins again: %s", v->config.name,
		  c->no, v->nodes[s->node].name, err_text(x->failed));
	vfetch_cancel(&x->theirs);
	vfetch_cancel(&x->ours);
	if (x->pulling)
		rpc_call_cancel(&x->pull);
	if (x->mark != NULL)
		vmark_cancel(x->mark);
	for (uint32_t i = 0; i < RESYNC_REWRITES_MAX; i++)
		if (x->rewrites[i].rewrite != NULL)
			vrewrite_cancel(x->rewrites[i].rewrite);
	release(x);
	wait_ms = (uint64_t)VRESYNC_RETRY_MS << MIN(s->resync_tries, 10u);
	s->resync_tries++;
	s->resync_after_ns =
	    volume_now(v) + MIN(wait_ms, (uint64_t)VRESYNC_RETRY_MAX_MS) * NS_PER_MS;
	if (vchunk_serves(c) && vslot_joined(s) && !c->settled)
		vresync_want(c, slot);
}

static void finish(struct vresync *x)
{
	struct vchunk *c = x->chunk;
	const uint32_t slot = x->slot;

	log_info("volume", "%s: chunk %u on node %s is current again", c->volume->config.name,
		 c->no, c->volume->nodes[c->slots[slot].node].name);
	c->volume->stats.resyncs++;
	release(x);
	vchunk_slot_current(c, slot);
}

/* -- steps ------------------------------------------------------------------------------------- */

static void fetched(struct vfetch *f, int status)
{
	struct vresync *x = f->owner;

	x->fetching--;
	if (status == -E_DEVICE)
		vchunk_slot_refused(f->chunk, f->slot);
	if (status != 0 && x->failed == 0)
		x->failed = status;
	vresync_kick(f->chunk->volume);
}

static void ask_lists(struct vresync *x)
{
	const struct vslot *s = &x->chunk->slots[x->slot];

	x->fetching = 1;
	vfetch_changes(&x->ours, x->chunk, x->source, s->reported_watermark, 0, 0, &x->ours_list,
		       fetched, x);
	if (s->reported_newest > s->reported_watermark) {
		x->fetching++;
		vfetch_changes(&x->theirs, x->chunk, x->slot, s->reported_watermark, 0, 0,
			       &x->theirs_list, fetched, x);
	}
	x->step = RESYNC_LISTS;
}

static void rewritten(void *owner, int status)
{
	struct resync_rewrite *p = owner;
	struct vresync *x = p->resync;

	p->rewrite = NULL;
	if (status != 0 && x->failed == 0)
		x->failed = status;
	vresync_kick(x->chunk->volume);
}

/* -- how far it is ----------------------------------------------------------------------------- */

static void catchup_planned(struct vcatchup *u, uint32_t block_count)
{
	u->planned_chunks++;
	u->planned_blocks += block_count;
}

/* The rate is that of the last second or more in which something came. */
static void progress(struct vresync *x, uint64_t pulled)
{
	struct vcatchup *u = &x->chunk->slots[x->slot].replica->catchup;
	const uint64_t now_ns = volume_now(x->chunk->volume);

	if (pulled <= x->pulled)
		return;
	if (now_ns > u->since_ns + 10 * RATE_NS) {
		u->since_ns = now_ns;
		u->since_blocks = 0;
	}
	u->since_blocks += pulled - x->pulled;
	x->chunk->volume->stats.resync_blocks += pulled - x->pulled;
	x->pulled = pulled;
	if (now_ns < u->since_ns + RATE_NS)
		return;
	u->rate_blocks = u->since_blocks * NS_PER_S / (now_ns - u->since_ns);
	u->since_ns = now_ns;
	u->since_blocks = 0;
}

void vresync_progress(struct vreplica *r, chunk_no_t chunk, uint64_t pulled)
{
	for (uint32_t i = 0; i < VRESYNCS_MAX; i++) {
		struct vresync *x = &r->volume->resync.contexts[i];

		if (x->step == RESYNC_PULL && x->chunk->no == chunk &&
		    x->chunk->slots[x->slot].replica == r)
			progress(x, pulled);
	}
}

uint64_t vresync_blocks_left(const struct vslot *s)
{
	const struct vcatchup *u = &s->replica->catchup;
	const struct vresync *x = s->resync;

	if (x != NULL && x->step > RESYNC_LISTS)
		return x->missing.block_count - MIN(x->pulled, x->missing.block_count);
	return u->planned_chunks > 0 ? u->planned_blocks / u->planned_chunks : 0;
}

static void make_plan(struct vresync *x)
{
	struct vchunk *c = x->chunk;

	x->failed = vplan_phantoms(&x->theirs_list, &x->ours_list,
				   version_make(c->volume->generation, x->joined_seq),
				   c->volume->chunk_blocks, &x->phantoms, &x->need_pull);
	if (x->failed == 0)
		x->failed = vplan_missing(&x->theirs_list, &x->ours_list,
					  version_make(c->volume->generation, x->joined_seq),
					  c->volume->chunk_blocks, &x->missing);
	x->need_pull = x->need_pull && x->missing.block_count > 0;
	catchup_planned(&c->slots[x->slot].replica->catchup, x->missing.block_count);
	vplan_list_deinit(&x->theirs_list);
	vplan_list_deinit(&x->ours_list);
	x->step = RESYNC_REWRITE;
}

static bool start_rewrites(struct vresync *x)
{
	bool working = false;

	for (uint32_t i = 0; i < RESYNC_REWRITES_MAX; i++) {
		struct resync_rewrite *r = &x->rewrites[i];

		if (r->rewrite == NULL && x->next_phantom < x->phantoms.count && x->failed == 0) {
			const struct vplan_copy *p = &x->phantoms.copies[x->next_phantom];

			r->resync = x;
			r->rewrite =
			    vrewrite_start(x->chunk, p->block, p->block_count, rewritten, r);
			if (r->rewrite == NULL)
				return true;
			x->next_phantom++;
		}
		working = working || r->rewrite != NULL;
	}
	return working;
}

static void pulled(struct rpc_call *call, int status, const Pave__V1__Control *reply,
		   const char *text)
{
	struct vresync *x = container_of(call, struct vresync, pull);
	struct volume *v = x->chunk->volume;

	x->pulling = false;
	if (status == 0 && reply->body_case != PAVE__V1__CONTROL__BODY_PULL_REPLY)
		status = -E_BAD_FRAME;
	if (status != 0) {
		log_info("volume", "%s: node %s could not pull chunk %u: %s", v->config.name,
			 v->nodes[x->chunk->slots[x->slot].node].name, x->chunk->no, text);
		if (status == -E_DEVICE)
			vchunk_slot_refused(x->chunk, x->slot);
		x->failed = x->failed != 0 ? x->failed : status;
	} else {
		progress(x, reply->pull_reply->blocks);
		x->step = RESYNC_PULLED;
	}
	vresync_kick(v);
}

static void send_pull(struct vresync *x)
{
	struct vchunk *c = x->chunk;
	struct volume *v = c->volume;
	const struct vslot *s = &c->slots[x->slot], *m = &c->slots[x->source];
	Pave__V1__Control message = PAVE__V1__CONTROL__INIT;
	Pave__V1__Pull pull = PAVE__V1__PULL__INIT;

	pull.chunk = c->no;
	pull.layer = c->layer;
	pull.above = s->reported_watermark;
	pull.below = version_make(v->generation, x->joined_seq);
	_Static_assert(sizeof(x->missing.ranges[0]) == 2 * sizeof(uint32_t), "as the message has");
	pull.ranges = &x->missing.ranges[0].block;
	pull.n_ranges = 2 * x->missing.range_count;
	pull.source_node = v->nodes[m->node].name;
	pull.source_address = m->replica->address;
	message.body_case = PAVE__V1__CONTROL__BODY_PULL;
	message.pull = &pull;
	x->pull.done = pulled;
	x->pulling = true;
	rpc_call_start(&s->replica->rpc, &x->pull, &message, VRESYNC_PULL_MS);
	x->step = RESYNC_PULL;
}

static void marked(struct vmark *m, int status)
{
	struct vresync *x = m->owner;

	x->mark = NULL;
	if (status != 0 && x->failed == 0)
		x->failed = status;
	vresync_kick(x->chunk->volume);
}

/* It holds all below joined_seq, which is decided. Without a place for the mark the next tick sends
 * it. */
static void send_mark(struct vresync *x)
{
	struct vchunk *c = x->chunk;

	x->mark = vmark_send(c, x->slot, version_make(c->volume->generation, x->joined_seq - 1),
			     marked, x);
	if (x->mark != NULL)
		x->step = RESYNC_MARK;
}

static void check(struct vresync *x)
{
	const struct vchunk *c = x->chunk;
	const struct vslot *s = &c->slots[x->slot], *m = &c->slots[x->source];

	if (c->state != VCHUNK_SERVING || c->epoch != x->epoch || !vslot_joined(s) ||
	    s->replica->epoch != x->replica_epoch || s->joined_seq != x->joined_seq ||
	    !m->current || !vslot_ready(m) || m->replica->epoch != x->source_epoch)
		x->failed = -E_STALE_REPLICA;
}

static void step(struct vresync *x)
{
	struct vwindow *w = &x->chunk->window;
	const enum resync_step before = x->step;

	switch (x->step) {
	case RESYNC_FREE:
		return;
	case RESYNC_SETTLE:
		if (x->chunk->slots[x->slot].zombies > 0 ||
		    !vwindow_decided_below(w, x->joined_seq) ||
		    !vwindow_answered_below(w, x->source, x->joined_seq))
			break;
		x->fetching = 1;
		vfetch_state(&x->theirs, x->chunk, x->slot, fetched, x);
		x->step = RESYNC_STATE;
		break;
	case RESYNC_STATE:
		if (x->fetching == 0)
			ask_lists(x);
		break;
	case RESYNC_LISTS:
		if (x->fetching == 0)
			make_plan(x);
		break;
	case RESYNC_REWRITE:
		if (start_rewrites(x))
			break;
		x->rewritten_seq = x->phantoms.count > 0 ? w->last_seq : 0;
		x->step = RESYNC_ARRIVE;
		break;
	case RESYNC_ARRIVE:
		if (!vwindow_answered_below(w, x->slot, x->rewritten_seq + 1))
			break;
		if (x->need_pull)
			send_pull(x);
		else
			x->step = RESYNC_PULLED;
		break;
	case RESYNC_PULL:
		break;
	case RESYNC_PULLED:
		send_mark(x);
		break;
	case RESYNC_MARK:
		if (x->mark != NULL)
			break;
		finish(x);
		return;
	}
	if (x->failed == 0 && x->step != before)
		step(x);
}

static void tick(struct vresync *x)
{
	if (x->step == RESYNC_FREE)
		return;
	if (x->failed == 0)
		check(x);
	if (x->failed == 0)
		step(x);
	if (x->step != RESYNC_FREE && x->failed != 0)
		abort_resync(x);
}

/* -- the queue --------------------------------------------------------------------------------- */

static uint32_t find_source(const struct vchunk *c, uint32_t slot)
{
	uint32_t best = UINT32_MAX;

	for (uint32_t i = 0; i < c->volume->slot_count; i++) {
		const struct vreplica *r = c->slots[i].replica;

		if (i == slot || (c->members & vmask_bit(i)) == 0 || !c->slots[i].current ||
		    !vslot_ready(&c->slots[i]))
			continue;
		if (best == UINT32_MAX || r->inflight < c->slots[best].replica->inflight)
			best = i;
	}
	return best;
}

static uint32_t at_work_on(const struct volume *v, const struct vreplica *r)
{
	uint32_t n = 0;

	for (uint32_t i = 0; i < VRESYNCS_MAX; i++) {
		const struct vresync *x = &v->resync.contexts[i];

		n += x->step != RESYNC_FREE && x->chunk->slots[x->slot].replica == r;
	}
	return n;
}

static uint32_t learners_at_work(const struct volume *v)
{
	uint32_t n = 0;

	for (uint32_t i = 0; i < VRESYNCS_MAX; i++) {
		const struct vresync *x = &v->resync.contexts[i];

		n += x->step != RESYNC_FREE && x->slot == x->chunk->learner;
	}
	return n;
}

static void begin(struct vslot *s, struct vresync *free)
{
	struct vchunk *c = s->chunk;
	struct volume *v = c->volume;
	const uint32_t slot = (uint32_t)(s - c->slots);
	uint32_t source;

	if (!vchunk_serves(c) || s->current || !vslot_joined(s) || c->settled) {
		DL_DELETE2(v->resync.queue, s, resync_prev, resync_next);
		s->resync_queued = false; /* its replica's return will want it again */
		return;
	}
	source = find_source(c, slot);
	if (slot == c->learner && learners_at_work(v) >= VRESYNCS_LEARNERS_MAX)
		return;
	if (source == UINT32_MAX || volume_now(v) < s->resync_after_ns || !volume_gate_open(v) ||
	    at_work_on(v, s->replica) >= VRESYNCS_REPLICA_MAX)
		return;
	DL_DELETE2(v->resync.queue, s, resync_prev, resync_next);
	s->resync_queued = false;
	*free = (struct vresync){
	    .chunk = c,
	    .slot = slot,
	    .source = source,
	    .step = RESYNC_SETTLE,
	    .epoch = c->epoch,
	    .replica_epoch = s->replica->epoch,
	    .source_epoch = c->slots[source].replica->epoch,
	    .joined_seq = s->joined_seq,
	};
	s->resync = free;
	tick(free);
}

static struct vresync *find_free(struct volume *v)
{
	for (uint32_t i = 0; i < VRESYNCS_MAX; i++)
		if (v->resync.contexts[i].step == RESYNC_FREE)
			return &v->resync.contexts[i];
	return NULL;
}

static void run_engine(struct reactor_task *task)
{
	struct volume *v = container_of(task, struct volume, resync.task);
	struct vslot *s, *next;

	if (v->state >= VOLUME_CLOSING || v->ended != 0)
		return;
	for (uint32_t i = 0; i < VRESYNCS_MAX; i++)
		tick(&v->resync.contexts[i]);
	DL_FOREACH_SAFE2(v->resync.queue, s, next, resync_next)
	{
		if (find_free(v) == NULL)
			break;
		begin(s, find_free(v));
	}
}

void vresync_retire(struct volume *v, const struct vset *set)
{
	PRE(set->retired);
	for (uint32_t i = 0; i < VRESYNCS_MAX; i++) {
		const struct vresync *x = &v->resync.contexts[i];

		if (x->step != RESYNC_FREE && x->chunk->set == set)
			vresync_disturbed(x->chunk, x->slot);
	}
	vresync_kick(v);
}

void vresync_stop(struct volume *v)
{
	for (uint32_t i = 0; v->resync.contexts != NULL && i < VRESYNCS_MAX; i++) {
		struct vresync *x = &v->resync.contexts[i];

		if (x->step == RESYNC_FREE)
			continue;
		x->failed = -ECANCELED;
		abort_resync(x);
	}
}

void vresync_deinit(struct volume *v)
{
	for (uint32_t i = 0; v->resync.contexts != NULL && i < VRESYNCS_MAX; i++)
		if (v->resync.contexts[i].step != RESYNC_FREE)
			release(&v->resync.contexts[i]);
	free(v->resync.contexts);
	v->resync.contexts = NULL;
}
