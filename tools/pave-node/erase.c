/* erase: see erase.h.
 *
 *   queued --it is the head--> layer by layer: vacating: no host's write can reach it any more -->
 *   leaving: no merge writes to it any more --> erasing, chunk by chunk --> of all layers: wiping,
 *   what lay on the devices goes (store_wipe) --> erased
 *
 * The driver asks for one thing at a time: when it asks anew it has waited long enough, or has come
 * back, or is another, and what it asked for before and was not begun is forgotten. Who asks for
 * what is under way takes the place of who asked before.
 *
 * INVARIANTS
 *  1. The head of the list is the one under way; the next begins when it is done or has failed.
 *  2. Nothing begins that was asked for before what was answered last: what was erased then may be
 *     a copy again.
 *
 * Failure: whatever fails is told, and nothing is kept: who asks again has all of it done again,
 * which for what is gone already costs nothing. A crash is the same. */
#include "tools/pave-node/erase.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <utlist.h>

#include "engine/base/log.h"
#include "engine/evidence/documents.h"
#include "engine/evidence/permit.h"

struct erasure {
	struct erasure *next;
	uint64_t token;
	uint8_t strictness; /* policy_erase_strictness */
	bool wiped;
	uint64_t begun_ns;
	uint32_t vacated; /* layers */
	volume_id_t layers[1 + PERMIT_LAYERS_MAX];
	uint32_t layer_count;
	uint32_t chunk_count;
	uint32_t key_count, done_count;
	struct store_wipe_key keys[]; /* every chunk of every layer, layer by layer; UINT32_MAX
					 alone: the whole layer */
};

struct eraser {
	struct reactor *reactor;
	struct pool *pool;
	struct node_shard *const *shard;
	void (*erased)(uint64_t token, int status, const struct node_erasure *done, void *arg);
	void *arg;
	struct erasure *list;
	struct store_erase_op op;
	struct store_wipe_op wipe;
	struct node_vacate_op vacate;
	struct layer_work *work;
	struct layer_leave_op leave;
	bool busy; /* one of the four is under way */
	struct reactor_task task;
	bool stopping;
	void (*stop_done)(void *arg);
	void *stop_arg;
};

static bool is_whole(const struct erasure *x)
{
	return x->key_count > 0 && x->keys[0].chunk == UINT32_MAX;
}

static void finish_head(struct eraser *e, int status)
{
	static const char *const methods[] = {"drop", "discard", "overwrite"};
	struct erasure *head = e->list;
	struct node_erasure done = {
	    .method = methods[head->strictness],
	    .took_ms = (reactor_now_ns(e->reactor) - head->begun_ns) / NS_PER_MS,
	};

	if (head->wiped) {
		done.segments = e->wipe.segments;
		done.bytes = e->wipe.bytes;
	}
	if (status == 0)
		log_info("node",
			 "erased %s %llu and %u more layers: %s, %llu segments, %llu bytes, in "
			 "%llu ms",
			 is_whole(head) ? "volume" : "chunks of volume",
			 (unsigned long long)head->layers[0], head->layer_count - 1, done.method,
			 (unsigned long long)done.segments, (unsigned long long)done.bytes,
			 (unsigned long long)done.took_ms);
	LL_DELETE(e->list, head);
	e->erased(head->token, status, status == 0 ? &done : NULL, e->arg);
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
		for (uint32_t i = 0; i < head->chunk_count; i++)
			e->vacate.chunks[i] = head->keys[i].chunk;
	}
	node_shard_vacate(*e->shard, &e->vacate);
}

static void erase_next(struct eraser *e)
{
	const struct erasure *head = e->list;

	e->op = (struct store_erase_op){
	    .done = chunk_erased,
	    .volume = head->keys[head->done_count].volume,
	    .chunk = head->keys[head->done_count].chunk,
	};
	pool_erase(e->pool, &e->op);
}

static void wiped(struct store_wipe_op *op, int status)
{
	struct eraser *e = container_of(op, struct eraser, wipe);

	e->busy = false;
	e->list->wiped = true;
	if (status != 0)
		finish_head(e, status);
	reactor_defer(e->reactor, &e->task);
}

static void wipe_head(struct eraser *e)
{
	const struct erasure *head = e->list;

	e->wipe = (struct store_wipe_op){
	    .done = wiped,
	    .keys = head->keys,
	    .key_count = head->key_count,
	    .overwrite = head->strictness == policy_erase_strictness("overwrite"),
	};
	pool_wipe(e->pool, &e->wipe);
}

/* Nothing, or nothing more, has to be done for it. */
static bool is_done(const struct erasure *x)
{
	return x->done_count == x->key_count &&
	       (x->wiped || x->key_count == 0 || x->strictness == policy_erase_strictness("drop"));
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
	while (e->list != NULL && is_done(e->list))
		finish_head(e, 0);
	head = e->list;
	if (head == NULL)
		return;
	e->busy = true;
	if (head->done_count == head->key_count)
		wipe_head(e);
	else if (head->vacated <= head->done_count / head->chunk_count)
		vacate_head(e);
	else
		erase_next(e);
}

int eraser_start(struct reactor *r, struct pool *pool, struct node_shard *const *shard,
		 struct layer_work *work,
		 void (*erased)(uint64_t token, int status, const struct node_erasure *done,
				void *arg),
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
static int check(const Pave__V1__Erase *what)
{
	if (what->volume == 0 || what->n_more_layers > PERMIT_LAYERS_MAX ||
	    what->n_chunks > STORE_WIPE_KEYS_MAX / (1 + PERMIT_LAYERS_MAX))
		return -EINVAL;
	for (size_t i = 0; !what->whole_volume && i < what->n_chunks; i++)
		if (what->chunks[i] == UINT32_MAX)
			return -EINVAL;
	for (size_t i = 0; i < what->n_more_layers; i++)
		if (what->more_layers[i] == 0)
			return -EINVAL;
	/* What is more than this node knows how to do is not done by less. */
	return policy_erase_strictness(what->method) < 0 ? -EOPNOTSUPP : 0;
}

static bool is_same(const struct erasure *a, const struct erasure *b)
{
	if (a->strictness != b->strictness || a->key_count != b->key_count)
		return false;
	for (uint32_t i = 0; i < a->key_count; i++)
		if (a->keys[i].volume != b->keys[i].volume || a->keys[i].chunk != b->keys[i].chunk)
			return false;
	return true;
}

/* What has not begun is not asked for any more. */
static void forget_waiting(struct eraser *e)
{
	struct erasure *x, *tmp;

	if (e->list == NULL)
		return;
	for (x = e->list->next; x != NULL; x = tmp) {
		tmp = x->next;
		e->erased(x->token, -EALREADY, NULL, e->arg);
		free(x);
	}
	e->list->next = NULL;
}

/* Who asked before is told that somebody has asked again; he waits for it no more. */
static bool take_over(struct eraser *e, const struct erasure *x)
{
	struct erasure *head = e->list;

	if (head == NULL || !is_same(head, x))
		return false;
	e->erased(head->token, -EALREADY, NULL, e->arg);
	head->token = x->token;
	return true;
}

static void fill(struct eraser *e, struct erasure *x, uint64_t token, const Pave__V1__Erase *what)
{
	x->token = token;
	x->strictness = (uint8_t)policy_erase_strictness(what->method);
	x->begun_ns = reactor_now_ns(e->reactor);
	x->layers[0] = what->volume;
	x->layer_count = 1 + (uint32_t)what->n_more_layers;
	for (uint32_t i = 1; i < x->layer_count; i++)
		x->layers[i] = what->more_layers[i - 1];
	x->chunk_count = what->whole_volume ? 1 : (uint32_t)what->n_chunks;
	for (uint32_t l = 0; l < x->layer_count; l++)
		for (uint32_t c = 0; c < x->chunk_count; c++)
			x->keys[x->key_count++] = (struct store_wipe_key){
			    x->layers[l], what->whole_volume ? UINT32_MAX : what->chunks[c]};
}

void eraser_add(struct eraser *e, uint64_t token, const Pave__V1__Erase *what)
{
	const size_t count = (what->whole_volume ? 1 : what->n_chunks) * (1 + what->n_more_layers);
	struct erasure *x = NULL;
	int rc = check(what);

	if (rc == 0)
		x = calloc(1, sizeof(*x) + count * sizeof(x->keys[0]));
	if (x == NULL) {
		e->erased(token, rc != 0 ? rc : -ENOMEM, NULL, e->arg);
		return;
	}
	fill(e, x, token, what);
	forget_waiting(e);
	if (take_over(e, x)) {
		free(x);
		return;
	}
	LL_APPEND(e->list, x);
	reactor_defer(e->reactor, &e->task);
}

void eraser_stop(struct eraser *e, void (*done)(void *arg), void *arg)
{
	e->stopping = true;
	e->stop_done = done;
	e->stop_arg = arg;
	pool_wipe_stop(e->pool);
	reactor_defer(e->reactor, &e->task);
}
