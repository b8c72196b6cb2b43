/* equal: the fences of all volumes, alike on all devices: when the pool opens, and when a device is
 * added. See core.h.
 *
 *   list what is behind --EQUAL_DEPTH at a time--> fences --all done--> list again, until nothing
 * is
 *
 * A fence that is set meanwhile goes to all devices by itself (ops.c). A device that fails on the
 * way is left out. */
#include <errno.h>
#include <stdlib.h>

#include "engine/base/assert.h"
#include "engine/pool/core.h"

#define EQUAL_DEPTH 64u

struct lagging {
	volume_id_t volume;
	generation_t generation;
	struct store *store;
};

struct equal_op {
	struct store_fence_op op;
	struct equal *equal;
	struct store *store;
};

static void run(struct equal *e);

void equal_deinit(struct equal *e)
{
	free(e->list);
	free(e->ops);
	e->list = NULL;
	e->ops = NULL;
}

static void add(struct equal *e, volume_id_t volume, generation_t generation, struct store *store)
{
	if (e->count == e->max) {
		uint32_t max = MAX(256u, 2 * e->max);
		struct lagging *list = realloc(e->list, max * sizeof *list);

		if (list == NULL) {
			e->status = -ENOMEM;
			return;
		}
		e->list = list;
		e->max = max;
	}
	e->list[e->count++] = (struct lagging){volume, generation, store};
}

/* Volumes without a generation have no fence: they were written by resync alone. */
static void look(volume_id_t volume, generation_t generation, void *arg)
{
	struct equal *e = arg;

	for (uint32_t i = 0; i < POOL_DEVICES_MAX && generation > 0; i++) {
		struct store *store = e->pool->devices[i].store;

		if (store != NULL && store_failure(store) == 0 &&
		    store_generation(store, volume) < generation)
			add(e, volume, generation, store);
	}
}

static void fenced(struct store_fence_op *op, int status)
{
	struct equal_op *mine = container_of(op, struct equal_op, op);
	struct equal *e = mine->equal;

	/* -E_FENCED: a newer one came in between: all the better. */
	if (status < 0 && status != -E_FENCED && store_failure(mine->store) == 0 && e->status == 0)
		e->status = status;
	e->in_flight--;
	op->done = NULL;
	run(e);
}

static void submit_some(struct equal *e)
{
	for (uint32_t i = 0; i < EQUAL_DEPTH && e->next < e->count && e->status == 0; i++) {
		const struct lagging *l = &e->list[e->next];
		struct equal_op *op = &e->ops[i];

		if (op->op.done != NULL)
			continue;
		e->next++;
		e->in_flight++;
		op->equal = e;
		op->store = l->store;
		op->op = (struct store_fence_op){
		    .done = fenced, .volume = l->volume, .generation = l->generation};
		store_fence(l->store, &op->op);
	}
}

static void finish_run(struct reactor_task *task)
{
	struct equal *e = container_of(task, struct equal, task);

	e->done(e, e->status);
}

static void run(struct equal *e)
{
	if (e->next == e->count && e->in_flight == 0 && e->status == 0) {
		e->next = e->count = 0;
		for (uint32_t i = 0; i < POOL_DEVICES_MAX; i++)
			if (e->pool->devices[i].store != NULL)
				store_each_volume(e->pool->devices[i].store, look, e);
	}
	if (e->count > e->next)
		submit_some(e);
	if (e->in_flight == 0)
		reactor_defer(e->pool->reactor, &e->task);
}

void equal_start(struct equal *e, struct pool *pool, void (*done)(struct equal *e, int status))
{
	*e = (struct equal){.done = done, .pool = pool, .task = {.run = finish_run}};
	e->ops = calloc(EQUAL_DEPTH, sizeof *e->ops);
	if (e->ops == NULL)
		e->status = -ENOMEM;
	run(e);
}
