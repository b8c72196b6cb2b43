/* extents: which parts of a range are allocated, asked of one current replica: the runs of blocks
 * that have a version and are not zeroes.
 *
 * An answer may cover less than was asked for. Whatever can't be known now (no current replica to
 * ask, writes in flight) is said to be allocated, which is always true enough. */
#include <errno.h>

#include "engine/base/assert.h"
#include "engine/volume/core.h"
#include "engine/volume/fetch.h"

struct extents_state {
	struct volume *volume;
	struct reactor_task task;
	int status;
};
_Static_assert(sizeof(struct extents_state) <= sizeof(((struct volume_extents_op *)0)->impl),
	       "impl is room");

static struct extents_state *state_of(struct volume_extents_op *op)
{
	return (struct extents_state *)(void *)op->impl;
}

static void run_done(struct reactor_task *task)
{
	struct extents_state *s = container_of(task, struct extents_state, task);
	struct volume_extents_op *op =
	    container_of((uint64_t *)(void *)s, struct volume_extents_op, impl);

	op->done(op, s->status);
}

void volume_extents(struct volume *v, struct volume_extents_op *op)
{
	struct extents_state *s = state_of(op);

	*s = (struct extents_state){.volume = v, .task = {.run = run_done}};
	op->count = 0;
	if (v->ended != 0)
		s->status = v->ended;
	else if (v->state != VOLUME_OPEN)
		s->status = -ECANCELED;
	else if (op->size == 0 || op->max == 0 || op->offset > v->size ||
		 op->size > v->size - op->offset)
		s->status = -EINVAL;
	if (s->status == 0)
		op->extents[op->count++] =
		    (struct volume_extent){.size = op->size, .allocated = true};
	reactor_defer(v->reactor, &s->task);
}
