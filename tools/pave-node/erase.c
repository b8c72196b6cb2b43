/* erase: see erase.h.
 *
 *   queued --it is the head--> layer by layer: vacating: no host's write can reach it any more -->
 *   leaving: no merge writes to it any more --> erasing, chunk by chunk --> erased
 *
 * INVARIANT: the head of the list is the one under way; the next begins when its last chunk is
 * done, or one of them has failed. */
#include "tools/pave-node/erase.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <utlist.h>

#include "engine/evidence/permit.h"

struct erasure {
	struct erasure *next;
	uint64_t token;
	uint32_t vacated; /* layers */
	volume_id_t layers[1 + PERMIT_LAYERS_MAX];
	uint32_t layer_count;
	uint32_t chunk_count;
	uint64_t done_count; /* of every chunk of every layer */
	chunk_no_t chunks[]; /* UINT32_MAX alone: the whole layer */
};

struct eraser {
	struct reactor *reactor;
	struct pool *pool;
	struct node_shard *const *shard;
	void (*erased)(uint64_t token, int status, void *arg);
	void *arg;
	struct erasure *list;
	struct store_erase_op op;
	struct node_vacate_op vacate;
	struct layer_work *work;
	struct layer_leave_op leave;
	bool busy; /* one of the three is under way */
	struct reactor_task task;
	bool stopping;
	void (*stop_done)(void *arg);
	void *stop_arg;
};

static void finish_head(struct eraser *e, int status)
{
	struct erasure *head = e->list;

	LL_DELETE(e->list, head);
	e->erased(head->token, status, e->arg);
	free(head);
}

static void chunk_erased(struct store_erase_op *op, int status)
{
	struct eraser *e = container_of(op, struct eraser, op);

	e->busy = false;
	e->list->done_count++;
	if (status != 0)
		finish_head(e, status);
	reactor_defer(e->reactor, &e->task);
}

static void eraser_end(struct eraser *e)
{
	void (*done)(void *arg) = e->stop_done;
	void *arg = e->stop_arg;
	struct erasure *x, *tmp;

	LL_FOREACH_SAFE(e->list, x, tmp)
	free(x);
	free(e);
	done(arg);
}

static void left(struct layer_leave_op *op)
{
	struct eraser *e = container_of(op, struct eraser, leave);

	e->busy = false;
	e->list->vacated++;
	reactor_defer(e->reactor, &e->task);
}

static void vacated(struct node_vacate_op *op)
{
	struct eraser *e = container_of(op, struct eraser, vacate);

	e->leave = (struct layer_leave_op){
	    .done = left,
	    .layer = e->list->layers[e->list->vacated],
	};
	layer_work_leave(e->work, &e->leave);
}

static bool is_whole(const struct erasure *x)
{
	return x->chunks[0] == UINT32_MAX;
}

/* Without a shard there are no sessions. */
static void vacate_head(struct eraser *e)
{
	const struct erasure *head = e->list;

	e->vacate = (struct node_vacate_op){
	    .done = vacated,
	    .volume = head->layers[head->vacated],
	    .whole = is_whole(head) || head->chunk_count > NODE_VACATE_CHUNKS_MAX,
	};
	if (*e->shard == NULL) {
		vacated(&e->vacate);
		return;
	}
	if (!e->vacate.whole) {
		e->vacate.chunk_count = head->chunk_count;
		memcpy(e->vacate.chunks, head->chunks, head->chunk_count * sizeof(head->chunks[0]));
	}
	node_shard_vacate(*e->shard, &e->vacate);
}

static void erase_next(struct eraser *e)
{
	const struct erasure *head = e->list;

	e->op = (struct store_erase_op){
	    .done = chunk_erased,
	    .volume = head->layers[head->done_count / head->chunk_count],
	    .chunk = head->chunks[head->done_count % head->chunk_count],
	};
	pool_erase(e->pool, &e->op);
}

static void eraser_tick(struct reactor_task *task)
{
	struct eraser *e = container_of(task, struct eraser, task);
	const struct erasure *head;

	if (e->busy)
		return;
	if (e->stopping) {
		eraser_end(e);
		return;
	}
	while (e->list != NULL &&
	       e->list->done_count == (uint64_t)e->list->chunk_count * e->list->layer_count)
		finish_head(e, 0);
	head = e->list;
	if (head == NULL)
		return;
	e->busy = true;
	if (head->vacated <= head->done_count / head->chunk_count)
		vacate_head(e);
	else
		erase_next(e);
}

int eraser_start(struct reactor *r, struct pool *pool, struct node_shard *const *shard,
		 struct layer_work *work, void (*erased)(uint64_t token, int status, void *arg),
		 void *arg, struct eraser **ret_eraser)
{
	struct eraser *e = calloc(1, sizeof(*e));

	if (e == NULL)
		return -ENOMEM;
	e->reactor = r;
	e->pool = pool;
	e->shard = shard;
	e->work = work;
	e->erased = erased;
	e->arg = arg;
	e->task.run = eraser_tick;
	*ret_eraser = e;
	return 0;
}

/* A chunk's number that stands for the whole volume is not taken for a chunk. */
static bool is_sane(const Pave__V1__Erase *what)
{
	for (size_t i = 0; !what->whole_volume && i < what->n_chunks; i++)
		if (what->chunks[i] == UINT32_MAX)
			return false;
	for (size_t i = 0; i < what->n_more_layers; i++)
		if (what->more_layers[i] == 0)
			return false;
	return what->volume != 0 && what->n_more_layers <= PERMIT_LAYERS_MAX;
}

void eraser_add(struct eraser *e, uint64_t token, const Pave__V1__Erase *what)
{
	const uint32_t count = what->whole_volume ? 1 : (uint32_t)what->n_chunks;
	struct erasure *x = NULL;

	if (!is_sane(what)) {
		e->erased(token, -EINVAL, e->arg);
		return;
	}
	x = calloc(1, sizeof(*x) + count * sizeof(x->chunks[0]));
	if (x == NULL) {
		e->erased(token, -ENOMEM, e->arg);
		return;
	}
	x->token = token;
	x->layers[0] = what->volume;
	x->layer_count = 1 + (uint32_t)what->n_more_layers;
	for (uint32_t i = 1; i < x->layer_count; i++)
		x->layers[i] = what->more_layers[i - 1];
	x->chunk_count = count;
	if (what->whole_volume)
		x->chunks[0] = UINT32_MAX;
	else if (count > 0)
		memcpy(x->chunks, what->chunks, count * sizeof(x->chunks[0]));
	LL_APPEND(e->list, x);
	reactor_defer(e->reactor, &e->task);
}

void eraser_stop(struct eraser *e, void (*done)(void *arg), void *arg)
{
	e->stopping = true;
	e->stop_done = done;
	e->stop_arg = arg;
	reactor_defer(e->reactor, &e->task);
}
