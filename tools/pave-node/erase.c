/* erase: see erase.h.
 *
 *   queued --it is the head--> vacating: no host's write can reach it any more --> erasing, chunk
 *   by chunk --> erased
 *
 * INVARIANT: the head of the list is the one under way; the next begins when its last chunk is
 * done, or one of them has failed. */
#include "tools/pave-node/erase.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <utlist.h>

struct erasure {
	struct erasure *next;
	uint64_t token;
	volume_id_t volume;
	bool vacated;
	uint32_t count, done_count;
	chunk_no_t chunks[]; /* UINT32_MAX alone: the whole volume */
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
	bool busy; /* one of the two is under way */
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

static void vacated(struct node_vacate_op *op)
{
	struct eraser *e = container_of(op, struct eraser, vacate);

	e->busy = false;
	e->list->vacated = true;
	reactor_defer(e->reactor, &e->task);
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
	    .volume = head->volume,
	    .whole = is_whole(head) || head->count > NODE_VACATE_CHUNKS_MAX,
	};
	if (!e->vacate.whole) {
		e->vacate.chunk_count = head->count;
		memcpy(e->vacate.chunks, head->chunks, head->count * sizeof(head->chunks[0]));
	}
	node_shard_vacate(*e->shard, &e->vacate);
}

static void erase_next(struct eraser *e)
{
	e->op = (struct store_erase_op){
	    .done = chunk_erased,
	    .volume = e->list->volume,
	    .chunk = e->list->chunks[e->list->done_count],
	};
	pool_erase(e->pool, &e->op);
}

static void eraser_tick(struct reactor_task *task)
{
	struct eraser *e = container_of(task, struct eraser, task);

	if (e->busy)
		return;
	if (e->stopping) {
		eraser_end(e);
		return;
	}
	while (e->list != NULL && e->list->done_count == e->list->count)
		finish_head(e, 0);
	if (e->list == NULL)
		return;
	e->busy = true;
	if (!e->list->vacated && *e->shard != NULL)
		vacate_head(e);
	else
		erase_next(e);
}

int eraser_start(struct reactor *r, struct pool *pool, struct node_shard *const *shard,
		 void (*erased)(uint64_t token, int status, void *arg), void *arg,
		 struct eraser **ret_eraser)
{
	struct eraser *e = calloc(1, sizeof(*e));

	if (e == NULL)
		return -ENOMEM;
	e->reactor = r;
	e->pool = pool;
	e->shard = shard;
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
	return what->volume != 0;
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
	x->volume = what->volume;
	x->count = count;
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
