/* layer_work: see layer_work.h.
 *
 *   LayerChanges: layer by layer from the top, piece by piece of its changes --> a map of the
 *   chunk's blocks --> runs, as many as an answer takes
 *
 * INVARIANT: the head of the list is the one under way, if `busy`; the next begins when it is
 * answered.
 *
 * Failure modes: an error of the store ends the request with it; whoever asked asks another node,
 * or again. */
#include "tools/pave-node/layer_work.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <utlist.h>

#include "engine/base/assert.h"
#include "engine/evidence/permit.h"

#define CHUNK_BLOCKS_MAX (CHUNK_SIZE_MAX / BLOCK_SIZE)
#define RUNS_MAX	 4096u /* in one answer */

struct job {
	struct job *next;
	uint64_t token;
	chunk_no_t chunk;
	block_no_t from;
	uint32_t layer_count;
	volume_id_t layers[PERMIT_LAYERS_MAX];
};

enum block_mark { UNCHANGED, CHANGED, ZEROED };

struct layer_work {
	struct reactor *reactor;
	struct pool *pool;
	void (*answer)(uint64_t token, int status, const char *text,
		       const Pave__V1__Control *message, void *arg);
	void *arg;
	struct job *list;
	bool busy;
	uint32_t at; /* layer */
	uint8_t *marks;
	struct store_changes_op op;
	struct store_change changes[STORE_CHANGES_MAX];
	struct reactor_task task;
	bool stopping;
	void (*stop_done)(void *arg);
	void *stop_arg;
};

static void finish_head(struct layer_work *w, int status, const Pave__V1__Control *message)
{
	struct job *head = w->list;

	LL_DELETE(w->list, head);
	w->busy = false;
	w->answer(head->token, status, err_text(status), message, w->arg);
	free(head);
	reactor_defer(w->reactor, &w->task);
}

/* -- LayerChanges ----------------------------------------------------------------------------- */

static void answer_changes(struct layer_work *w)
{
	uint32_t runs[3 * RUNS_MAX];
	Pave__V1__Control message = PAVE__V1__CONTROL__INIT;
	Pave__V1__LayerChangesReply reply = PAVE__V1__LAYER_CHANGES_REPLY__INIT;
	block_no_t b = w->list->from;

	reply.runs = runs;
	while (b < CHUNK_BLOCKS_MAX && reply.n_runs < ARRAY_SIZE(runs)) {
		const block_no_t first = b;
		const uint8_t mark = w->marks[b];

		while (b < CHUNK_BLOCKS_MAX && w->marks[b] == mark)
			b++;
		if (mark == UNCHANGED)
			continue;
		runs[reply.n_runs++] = first;
		runs[reply.n_runs++] = b - first;
		runs[reply.n_runs++] = mark == ZEROED;
	}
	reply.more = b < CHUNK_BLOCKS_MAX;
	reply.next = reply.more ? b : 0;
	message.body_case = PAVE__V1__CONTROL__BODY_LAYER_CHANGES_REPLY;
	message.layer_changes_reply = &reply;
	finish_head(w, 0, &message);
}

static void ask(struct layer_work *w, block_no_t from);

static void changes_done(struct store_changes_op *op, int status)
{
	struct layer_work *w = container_of(op, struct layer_work, op);

	if (status != 0) {
		finish_head(w, status, NULL);
		return;
	}
	for (uint32_t i = 0; i < op->count; i++) {
		const struct store_change *c = &op->changes[i];

		/* A layer further up hides it. */
		for (block_no_t b = c->block; b < c->block + c->block_count; b++)
			if (w->marks[b] == UNCHANGED)
				w->marks[b] = c->zero ? ZEROED : CHANGED;
	}
	if (op->next != UINT32_MAX) {
		ask(w, op->next);
	} else if (++w->at < w->list->layer_count) {
		ask(w, w->list->from);
	} else {
		answer_changes(w);
	}
}

static void ask(struct layer_work *w, block_no_t from)
{
	w->op = (struct store_changes_op){
	    .done = changes_done,
	    .volume = w->list->layers[w->at],
	    .chunk = w->list->chunk,
	    .from = from,
	    .changes = w->changes,
	    .max = STORE_CHANGES_MAX,
	};
	pool_changes(w->pool, &w->op);
}

/* -- life ------------------------------------------------------------------------------------- */

static void tick(struct reactor_task *task)
{
	struct layer_work *w = container_of(task, struct layer_work, task);
	struct job *x, *tmp;

	if (w->busy)
		return;
	if (!w->stopping) {
		if (w->list == NULL)
			return;
		w->busy = true;
		w->at = 0;
		memset(w->marks, UNCHANGED, CHUNK_BLOCKS_MAX);
		ask(w, w->list->from);
		return;
	}
	LL_FOREACH_SAFE(w->list, x, tmp)
	free(x);
	w->stop_done(w->stop_arg);
	free(w->marks);
	free(w);
}

int layer_work_start(struct reactor *r, struct pool *pool,
		     void (*answer)(uint64_t token, int status, const char *text,
				    const Pave__V1__Control *message, void *arg),
		     void *arg, struct layer_work **ret_work)
{
	struct layer_work *w = calloc(1, sizeof(*w));

	if (w != NULL)
		w->marks = malloc(CHUNK_BLOCKS_MAX);
	if (w == NULL || w->marks == NULL) {
		free(w);
		return -ENOMEM;
	}
	w->reactor = r;
	w->pool = pool;
	w->answer = answer;
	w->arg = arg;
	w->task.run = tick;
	*ret_work = w;
	return 0;
}

static bool is_sane(const Pave__V1__LayerChanges *c)
{
	for (size_t i = 0; i < c->n_layers; i++)
		if (c->layers[i] == 0)
			return false;
	return c->n_layers > 0 && c->n_layers <= PERMIT_LAYERS_MAX && c->chunk != UINT32_MAX &&
	       c->from < CHUNK_BLOCKS_MAX;
}

void layer_work_add(struct layer_work *w, uint64_t token, const Pave__V1__Control *what)
{
	const Pave__V1__LayerChanges *c = what->layer_changes;
	struct job *x = NULL;

	if (!is_sane(c)) {
		w->answer(token, -EINVAL, err_text(-EINVAL), NULL, w->arg);
		return;
	}
	x = calloc(1, sizeof(*x));
	if (x == NULL) {
		w->answer(token, -ENOMEM, err_text(-ENOMEM), NULL, w->arg);
		return;
	}
	x->token = token;
	x->chunk = c->chunk;
	x->from = c->from;
	x->layer_count = (uint32_t)c->n_layers;
	for (uint32_t i = 0; i < x->layer_count; i++)
		x->layers[i] = c->layers[i];
	LL_APPEND(w->list, x);
	reactor_defer(w->reactor, &w->task);
}

void layer_work_stop(struct layer_work *w, void (*done)(void *arg), void *arg)
{
	w->stopping = true;
	w->stop_done = done;
	w->stop_arg = arg;
	reactor_defer(w->reactor, &w->task);
}
