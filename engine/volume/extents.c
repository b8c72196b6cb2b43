/* extents: which parts of a range are allocated, asked of one current replica: the runs of blocks
 * that have a version and are not zeroes.
 *
 * An answer may cover less than was asked for: one chunk, a few pages of changes, max extents.
 * Whatever can't be known now (no current replica to ask) is said to be allocated, which is never
 * wrong. Nothing here waits for writes in flight: a block whose write was acknowledged is in the
 * lists of the replica that answered for it, or it is said to be allocated. */
#include <errno.h>
#include <stdlib.h>
#include <utlist.h>

#include "engine/base/assert.h"
#include "engine/volume/core.h"
#include "engine/volume/fetch.h"

#define EXTENTS_PAGES_MAX 4u	/* of the node's */
#define EXTENTS_WAIT_MS	  2000u /* for somebody to ask */

struct extents_state {
	struct volume *volume;
	struct reactor_task task;
	struct extents_ask *ask;
	int status;
};
_Static_assert(sizeof(struct extents_state) <= sizeof(((struct volume_extents_op *)0)->impl),
	       "impl is room");

/* What is under way; control path, so from the heap. */
struct extents_ask {
	struct volume_extents_op *op;
	struct vchunk *chunk;
	struct vfetch fetch;
	struct vplan_list list;
	uint64_t epoch;
	uint64_t since_ns;
	bool waiting; /* for the chunk to be opened, or for a replica that can be asked */
	struct extents_ask *next, *prev;
};

static struct extents_state *state_of(struct volume_extents_op *op)
{
	return (struct extents_state *)(void *)op->impl;
}

static void run_done(struct reactor_task *task)
{
	struct extents_state *s = container_of(task, struct extents_state, task);
	struct volume_extents_op *op = container_of((void *)s, struct volume_extents_op, impl);

	op->done(op, s->status);
}

static void finish(struct volume_extents_op *op, int status)
{
	state_of(op)->status = status;
	reactor_defer(state_of(op)->volume->reactor, &state_of(op)->task);
}

/* Appends; false: there is no more place. */
static bool add(struct volume_extents_op *op, uint64_t size, bool allocated)
{
	struct volume_extent *last = op->count > 0 ? &op->extents[op->count - 1] : NULL;

	if (size == 0)
		return true;
	if (last != NULL && last->allocated == allocated) {
		last->size += size;
		return true;
	}
	if (op->count == op->max)
		return false;
	op->extents[op->count++] = (struct volume_extent){.size = size, .allocated = allocated};
	return true;
}

/* As far as this chunk goes. */
static void all_allocated(struct volume_extents_op *op)
{
	const uint64_t chunk_size = state_of(op)->volume->chunk_size;

	op->count = 0;
	add(op, MIN(op->size, chunk_size - op->offset % chunk_size), true);
	finish(op, 0);
}

/* The list, in the order of blocks, becomes extents of [from, to), blocks of the chunk. */
static void answer(struct extents_ask *a, uint64_t from, uint64_t to)
{
	struct volume_extents_op *op = a->op;
	uint64_t at = from;

	for (uint32_t i = 0; i < a->list.count && at < to; i++) {
		const struct vplan_run *run = &a->list.runs[i];
		const uint64_t begin = MIN(MAX((uint64_t)run->block, at), to);
		const uint64_t end = MIN((uint64_t)run->block + run->block_count, to);

		if (end <= at)
			continue;
		if (!add(op, (begin - at) * BLOCK_SIZE, false) ||
		    !add(op, (end - begin) * BLOCK_SIZE, !run->zero))
			return;
		at = end;
	}
	if (at < to)
		add(op, (to - at) * BLOCK_SIZE, false);
}

static void ask_free(struct extents_ask *a)
{
	vfetch_cancel(&a->fetch);
	vplan_list_deinit(&a->list);
	free(a);
}

static void fetched(struct vfetch *f, int status)
{
	struct extents_ask *a = f->owner;
	struct volume_extents_op *op = a->op;
	struct volume *v = a->chunk->volume;
	const uint64_t from = op->offset % v->chunk_size / BLOCK_SIZE;
	uint64_t to = MIN(from + op->size / BLOCK_SIZE, (uint64_t)v->chunk_blocks);
	/* One layer's list says nothing of those below. */
	const bool known = status == 0 && vlayers_single(v) && a->chunk->epoch == a->epoch &&
			   a->chunk->slots[f->slot].current && v->ended == 0;

	DL_DELETE(v->extents, a);
	if (f->from != UINT32_MAX)
		to = MIN(to, (uint64_t)f->from);
	if (known && to > from) {
		answer(a, from, to);
		finish(op, 0);
	} else {
		all_allocated(op);
	}
	ask_free(a);
}

/* A replica that has answered everything that was acknowledged. */
static uint32_t find_slot(const struct vchunk *c)
{
	for (uint32_t i = 0; i < c->volume->slot_count; i++)
		if (c->state == VCHUNK_SERVING && (c->members & vmask_bit(i)) != 0 &&
		    c->slots[i].current && vslot_ready(&c->slots[i]) &&
		    vwindow_answered_below(&c->window, i, c->window.last_seq + 1))
			return i;
	return UINT32_MAX;
}

static int check(const struct volume *v, const struct volume_extents_op *op)
{
	if (v->ended != 0)
		return v->ended;
	if (v->state != VOLUME_OPEN)
		return -ECANCELED;
	if (op->size == 0 || op->max == 0 || op->offset % BLOCK_SIZE != 0 ||
	    op->size % BLOCK_SIZE != 0 || op->offset > v->size || op->size > v->size - op->offset)
		return -EINVAL;
	return 0;
}

/* Asks, if there is somebody to ask now. */
static void try_ask(struct extents_ask *a)
{
	struct vchunk *c = a->chunk;
	struct volume *v = c->volume;
	const uint32_t slot = find_slot(c);

	if (c->state == VCHUNK_UNOPENED)
		vreconcile_want(c, true);
	if (slot == UINT32_MAX || !volume_gate_open(v))
		return;
	a->waiting = false;
	a->epoch = c->epoch;
	vfetch_changes(&a->fetch, c, slot, 0,
		       (block_no_t)(a->op->offset % v->chunk_size / BLOCK_SIZE), EXTENTS_PAGES_MAX,
		       &a->list, fetched, a);
}

void vextents_run(struct volume *v)
{
	struct extents_ask *a, *next;

	DL_FOREACH_SAFE (v->extents, a, next) {
		struct volume_extents_op *op = a->op;

		if (!a->waiting)
			continue;
		try_ask(a);
		if (!a->waiting || (v->ended == 0 && v->state == VOLUME_OPEN &&
				    volume_now(v) < a->since_ns + EXTENTS_WAIT_MS * NS_PER_MS))
			continue;
		DL_DELETE(v->extents, a);
		ask_free(a);
		all_allocated(op);
	}
}

void volume_extents(struct volume *v, struct volume_extents_op *op)
{
	struct extents_state *s = state_of(op);
	const int rc = check(v, op);
	struct extents_ask *a;

	*s = (struct extents_state){.volume = v, .task = {.run = run_done}};
	op->count = 0;
	if (rc != 0) {
		finish(op, rc);
		return;
	}
	a = vlayers_single(v) ? calloc(1, sizeof(*a)) : NULL;
	if (a == NULL) {
		all_allocated(op);
		return;
	}
	a->op = op;
	a->chunk = &v->chunks[op->offset / v->chunk_size];
	a->since_ns = volume_now(v);
	a->waiting = true;
	DL_APPEND(v->extents, a);
	try_ask(a);
}

void vextents_deinit(struct volume *v)
{
	while (v->extents != NULL) {
		struct extents_ask *a = v->extents;

		DL_DELETE(v->extents, a);
		ask_free(a);
	}
}
