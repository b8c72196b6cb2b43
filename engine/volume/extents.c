/* extents: which parts of a range are allocated, asked of one current replica: the runs of blocks
 * that have a version and are not zeroes. Of a volume with several layers it is one that is good in
 * all of them, and is asked for one after the other, from the top; the first that has a block
 * decides. While a layer is being sealed everything is said to be allocated.
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

enum block_mark { BLOCK_UNKNOWN, BLOCK_DATA, BLOCK_ZERO };

/* What is under way; control path, so from the heap. */
struct extents_ask {
	struct volume_extents_op *op;
	struct vchunk *chunk;
	struct vfetch fetch;
	struct vplan_list list; /* of the layer that is asked for */
	uint32_t sealed;	/* how many of the sealed layers were asked for */
	uint32_t changes;	/* of their list, when it began */
	uint8_t *marks;		/* of blocks [from, to) of the chunk: enum block_mark */
	uint64_t from, to;
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

/* What the layer has, as far as its answer goes; no layer above it has it. */
static void mark(struct extents_ask *a, const struct vfetch *f)
{
	if (f->from != UINT32_MAX)
		a->to = MIN(a->to, (uint64_t)f->from);
	for (uint32_t i = 0; i < a->list.count; i++) {
		const struct vplan_run *run = &a->list.runs[i];
		const uint64_t end = MIN((uint64_t)run->block + run->block_count, a->to);

		for (uint64_t b = MAX((uint64_t)run->block, a->from); b < end; b++)
			if (a->marks[b - a->from] == BLOCK_UNKNOWN)
				a->marks[b - a->from] = run->zero ? BLOCK_ZERO : BLOCK_DATA;
	}
}

static void answer(struct extents_ask *a)
{
	for (uint64_t b = a->from; b < a->to; b++)
		if (!add(a->op, BLOCK_SIZE, a->marks[b - a->from] == BLOCK_DATA))
			return;
}

static void ask_free(struct extents_ask *a)
{
	vfetch_cancel(&a->fetch);
	vplan_list_deinit(&a->list);
	free(a->marks);
	free(a);
}

static void fetched(struct vfetch *f, int status)
{
	struct extents_ask *a = f->owner;
	struct volume_extents_op *op = a->op;
	struct volume *v = a->chunk->volume;
	const bool known = status == 0 && a->chunk == &v->chunks[a->chunk->no] &&
			   vlayers_settled_below(v) && a->chunk->epoch == a->epoch &&
			   v->layers.changes == a->changes &&
			   (vlayers_good(a->chunk) & vmask_bit(f->slot)) != 0 &&
			   a->chunk->slots[f->slot].current && v->ended == 0;

	if (known)
		mark(a, f);
	if (known && a->sealed < v->sealed_count && a->to > a->from) {
		a->list.count = 0;
		vfetch_sealed(f, a->chunk, vlayers_id(v, a->sealed++), f->slot, (block_no_t)a->from,
			      EXTENTS_PAGES_MAX, &a->list, fetched, a);
		return;
	}
	DL_DELETE(v->extents, a);
	if (known && a->to > a->from) {
		answer(a);
		finish(op, 0);
	} else {
		all_allocated(op);
	}
	ask_free(a);
}

/* A replica that has answered everything that was acknowledged, and has all below. */
static uint32_t find_slot(struct vchunk *c)
{
	const vmask_t good = vlayers_good(c);

	for (uint32_t i = 0; i < c->volume->slot_count; i++)
		if (c->state == VCHUNK_SERVING && (good & vmask_bit(i)) != 0 &&
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
	const uint32_t slot = vlayers_settled_below(v) ? find_slot(c) : UINT32_MAX;

	if (c->state == VCHUNK_UNOPENED)
		vreconcile_want(c, true);
	if (slot == UINT32_MAX || !volume_gate_open(v))
		return;
	a->waiting = false;
	a->epoch = c->epoch;
	a->changes = v->layers.changes;
	vfetch_changes(&a->fetch, c, slot, 0, (block_no_t)a->from, EXTENTS_PAGES_MAX, &a->list,
		       fetched, a);
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
	a = calloc(1, sizeof(*a));
	if (a != NULL) {
		a->from = op->offset % v->chunk_size / BLOCK_SIZE;
		a->to = MIN(a->from + op->size / BLOCK_SIZE, (uint64_t)v->chunk_blocks);
		a->marks = calloc(a->to - a->from, 1);
	}
	if (a == NULL || a->marks == NULL) {
		free(a);
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
