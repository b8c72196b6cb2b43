/* layer_work: see layer_work.h.
 *
 *   LayerChanges: layer by layer from the top, piece by piece of its changes --> a map of the
 *   chunk's blocks --> runs, as many as an answer takes
 *
 *   LayerMerge: if nobody has anything of the chunk in the lower layer: its last word, so that the
 *   copy is whole at every moment --> LOWER (the versions that the lower layer has) --> UPPER (some
 *   changes of the upper one) --> read --> write --> the next run that the lower one lacks ... -->
 *   the next changes ... --> answered
 *
 * INVARIANTS
 *  1. The head of the list is the one under way, if `busy`; the next begins when it is answered.
 *  2. What a merge writes has a version of its own, newer than any that a host gives, and the later
 *     the upper layer was made the newer: so the upper layer wins whatever the versions of the two
 *     are (what was settled in the lower one is as new as what was written above it meanwhile), and
 *     a merge may break off, and be begun again, anywhere.
 *  3. A merge writes to a copy that is whole, and says of none that it is: but for one that is
 *     empty, like all others. So a copy that a merge has left half done can be read and restored
 *     from like any other.
 *  4. Nothing of a merge is under way in a layer that is being erased, and no more is begun.
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
	bool merge; /* layers[0] into layers[1] */
	bool look, fresh;
	bool left; /* a layer of it is being erased */
	chunk_no_t chunk;
	block_no_t from;
	uint32_t layer_count;
	volume_id_t layers[PERMIT_LAYERS_MAX];
};

enum block_mark { UNCHANGED, CHANGED, ZEROED };
enum merge_step { MERGE_LOWER, MERGE_UPPER };

struct merge {
	enum merge_step step;
	uint32_t at; /* of w->changes */
	block_no_t next;
	block_no_t run_block; /* under way */
	uint32_t run_count;
	uint64_t blocks;
	union {
		struct store_read read;
		struct store_write write;
		struct store_watermark_op seal;
	} op;
	uint32_t crcs[IO_BLOCKS_MAX];
	struct reactor_timer pace;
};

struct layer_work {
	struct layer_work_config config;
	struct job *list;
	struct layer_leave_op *leaving; /* when the head of the list has ended */
	bool busy;
	uint32_t at; /* layer */
	uint8_t *marks;
	version_t *lower; /* versions that the lower layer has */
	uint8_t *data;	  /* IO_SIZE_MAX */
	struct store_changes_op op;
	struct store_change changes[STORE_CHANGES_MAX];
	struct merge merge;
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
	w->config.answer(head->token, status, err_text(status), message, w->config.arg);
	free(head);
	reactor_defer(w->config.reactor, &w->task);
}

/* Of all blocks that come from the upper layer. Layers are numbered as they are made. */
static version_t merged_version(const struct layer_work *w)
{
	return version_make(GENERATION_MAX, w->list->layers[0]);
}

static void list_changes(struct layer_work *w, volume_id_t layer, block_no_t from,
			 void (*done)(struct store_changes_op *op, int status))
{
	w->op = (struct store_changes_op){
	    .done = done,
	    .volume = layer,
	    .chunk = w->list->chunk,
	    .from = from,
	    .changes = w->changes,
	    .max = STORE_CHANGES_MAX,
	};
	pool_changes(w->config.pool, &w->op);
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

static void listed(struct store_changes_op *op, int status)
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
			if (b < CHUNK_BLOCKS_MAX && w->marks[b] == UNCHANGED)
				w->marks[b] = c->zero ? ZEROED : CHANGED;
	}
	if (op->next != UINT32_MAX)
		list_changes(w, w->list->layers[w->at], op->next, listed);
	else if (++w->at < w->list->layer_count)
		list_changes(w, w->list->layers[w->at], w->list->from, listed);
	else
		answer_changes(w);
}

/* -- LayerMerge ------------------------------------------------------------------------------- */

static void answer_merge(struct layer_work *w, bool done)
{
	Pave__V1__Control message = PAVE__V1__CONTROL__INIT;
	Pave__V1__LayerMergeReply reply = PAVE__V1__LAYER_MERGE_REPLY__INIT;

	reply.chunk = w->list->chunk;
	reply.done = done;
	reply.blocks = w->merge.blocks;
	message.body_case = PAVE__V1__CONTROL__BODY_LAYER_MERGE_REPLY;
	message.layer_merge_reply = &reply;
	finish_head(w, 0, &message);
}

/* 0, or why nothing may be written any more. */
static int merge_refused(const struct layer_work *w)
{
	if (w->list->left)
		return -EBUSY;
	return w->config.may_store(w->config.arg) ? 0 : -E_NO_LEASE;
}

static void merge_listed(struct store_changes_op *op, int status);

static void merge_list_lower(struct layer_work *w)
{
	memset(w->lower, 0, CHUNK_BLOCKS_MAX * sizeof(w->lower[0]));
	list_changes(w, w->list->layers[1], 0, merge_listed);
}

static void merge_sealed(struct store_watermark_op *op, int status)
{
	struct layer_work *w =
	    container_of(container_of((void *)op, struct merge, op), struct layer_work, merge);

	if (status != 0)
		finish_head(w, status, NULL);
	else
		answer_merge(w, true);
}

/* The lower layer has nothing of the chunk anywhere. */
static void merge_seal_lower(struct layer_work *w)
{
	w->merge.op.seal = (struct store_watermark_op){
	    .done = merge_sealed,
	    .volume = w->list->layers[1],
	    .chunk = w->list->chunk,
	    .watermark = version_make(GENERATION_MAX, VERSION_SEQ_MAX),
	};
	pool_watermark(w->config.pool, &w->merge.op.seal);
}

static void merge_next(struct layer_work *w);

static void merge_paced(struct reactor_timer *timer)
{
	struct layer_work *w =
	    container_of(container_of(timer, struct merge, pace), struct layer_work, merge);

	if (w->stopping)
		answer_merge(w, false);
	else
		merge_next(w);
}

static void merge_written(struct store_write *op, int status)
{
	struct layer_work *w =
	    container_of(container_of((void *)op, struct merge, op), struct layer_work, merge);
	struct merge *m = &w->merge;
	const uint64_t bytes = (uint64_t)m->run_count * BLOCK_SIZE;

	if (status != 0) {
		finish_head(w, status, NULL);
		return;
	}
	m->blocks += m->run_count;
	for (uint32_t i = 0; i < m->run_count; i++)
		w->lower[m->run_block + i] = op->version;
	if (m->blocks >= LAYER_MERGE_BYTES / BLOCK_SIZE || w->stopping)
		answer_merge(w, false);
	else if (w->config.rate > 0)
		reactor_timer_arm(w->config.reactor, &m->pace,
				  reactor_now_ns(w->config.reactor) +
				      bytes * NS_PER_S / w->config.rate);
	else
		merge_next(w);
}

static void merge_write(struct layer_work *w, bool zero)
{
	struct merge *m = &w->merge;
	const int refused = merge_refused(w);

	if (refused != 0) {
		finish_head(w, refused, NULL);
		return;
	}
	m->op.write = (struct store_write){
	    .done = merge_written,
	    .kind = zero ? STORE_ZERO : STORE_DATA,
	    .volume = w->list->layers[1],
	    .chunk = w->list->chunk,
	    .block = m->run_block,
	    .block_count = m->run_count,
	    .version = merged_version(w),
	    .crcs = m->crcs,
	    .data = w->data,
	    .resync = true,
	};
	pool_write(w->config.pool, &m->op.write);
}

static void merge_read(struct store_read *op, int status)
{
	struct layer_work *w =
	    container_of(container_of((void *)op, struct merge, op), struct layer_work, merge);

	if (status != 0)
		finish_head(w, status, NULL);
	else
		merge_write(w, false);
}

/* The next blocks of the listed changes that the lower layer lacks. False: there are none. */
static bool merge_find(struct layer_work *w)
{
	const version_t version = merged_version(w);
	struct merge *m = &w->merge;

	for (; m->at < w->op.count; m->at++) {
		const struct store_change *c = &w->changes[m->at];
		block_no_t b = c->block;

		while (b < c->block + c->block_count && w->lower[b] >= version)
			b++;
		m->run_block = b;
		while (b < c->block + c->block_count && b - m->run_block < IO_BLOCKS_MAX &&
		       w->lower[b] < version)
			b++;
		m->run_count = b - m->run_block;
		if (m->run_count > 0)
			return true;
	}
	return false;
}

static void merge_next(struct layer_work *w)
{
	struct merge *m = &w->merge;

	if (!merge_find(w)) {
		if (m->next != UINT32_MAX)
			list_changes(w, w->list->layers[0], m->next, merge_listed);
		else
			answer_merge(w, true);
		return;
	}
	if (w->changes[m->at].zero) {
		merge_write(w, true);
		return;
	}
	m->op.read = (struct store_read){
	    .done = merge_read,
	    .volume = w->list->layers[0],
	    .chunk = w->list->chunk,
	    .block = m->run_block,
	    .block_count = m->run_count,
	    .data = w->data,
	    .ret_crcs = m->crcs,
	};
	pool_read(w->config.pool, &m->op.read);
}

/* What the lower layer has. */
static void merge_take(struct layer_work *w)
{
	for (uint32_t i = 0; i < w->op.count; i++) {
		const struct store_change *c = &w->op.changes[i];

		for (block_no_t b = c->block; b < c->block + c->block_count; b++)
			w->lower[b] = c->version;
	}
}

static void merge_listed(struct store_changes_op *op, int status)
{
	struct layer_work *w = container_of(op, struct layer_work, op);
	struct merge *m = &w->merge;

	if (status == 0 && op->count > 0 &&
	    op->changes[op->count - 1].block + op->changes[op->count - 1].block_count >
		CHUNK_BLOCKS_MAX)
		status = -E_CORRUPT;
	if (status != 0) {
		finish_head(w, status, NULL);
		return;
	}
	m->next = op->next;
	if (m->step == MERGE_UPPER) {
		m->at = 0;
		merge_next(w);
		return;
	}
	merge_take(w);
	if (op->next != UINT32_MAX) {
		list_changes(w, w->list->layers[1], op->next, merge_listed);
		return;
	}
	m->step = MERGE_UPPER;
	list_changes(w, w->list->layers[0], 0, merge_listed);
}

/* The first chunk from this one on that is here. False: none is. */
static bool find_chunk(struct layer_work *w, volume_id_t layer, chunk_no_t from,
		       struct store_chunk_state *ret)
{
	return pool_chunks(w->config.pool, layer, from, ret, 1) == 1;
}

static void answer_look(struct layer_work *w, const struct store_chunk_state *upper,
			const struct store_chunk_state *lower)
{
	Pave__V1__Control message = PAVE__V1__CONTROL__INIT;
	Pave__V1__LayerMergeReply reply = PAVE__V1__LAYER_MERGE_REPLY__INIT;

	reply.found = upper != NULL;
	if (upper != NULL) {
		reply.chunk = upper->chunk;
		reply.upper_whole = version_is_sealed(upper->watermark);
		reply.lower_whole = lower != NULL && version_is_sealed(lower->watermark);
		reply.lower_empty = lower == NULL || lower->newest == 0;
	}
	message.body_case = PAVE__V1__CONTROL__BODY_LAYER_MERGE_REPLY;
	message.layer_merge_reply = &reply;
	finish_head(w, 0, &message);
}

/* Whether the chunk's copies are as a merge needs them. */
static int merge_check(const struct job *j, const struct store_chunk_state *upper,
		       const struct store_chunk_state *lower)
{
	if (upper == NULL || !version_is_sealed(upper->watermark))
		return -EBUSY;
	/* One that lacks blocks, or has too many, is restored by a host first. */
	if (j->fresh)
		return lower == NULL || lower->newest == 0 ? 0 : -EBUSY;
	return lower != NULL && version_is_sealed(lower->watermark) ? 0 : -EBUSY;
}

static void merge_begin(struct layer_work *w)
{
	struct job *j = w->list;
	struct store_chunk_state upper, lower;
	const bool has_upper =
	    find_chunk(w, j->layers[0], j->chunk, &upper) && (j->look || upper.chunk == j->chunk);
	bool has_lower;
	int status;

	w->merge = (struct merge){.step = MERGE_LOWER, .pace.fire = merge_paced};
	if (j->look && has_upper)
		j->chunk = upper.chunk;
	has_lower = find_chunk(w, j->layers[1], j->chunk, &lower) && lower.chunk == j->chunk;
	status = has_upper ? upper.status : pool_absent(w->config.pool);
	if (status == 0)
		status = has_lower ? lower.status : pool_absent(w->config.pool);
	if (status == 0 && !j->look)
		status = merge_check(j, has_upper ? &upper : NULL, has_lower ? &lower : NULL);
	if (status == 0 && !j->look)
		status = merge_refused(w);
	if (status != 0)
		finish_head(w, status, NULL);
	else if (j->look)
		answer_look(w, has_upper ? &upper : NULL, has_lower ? &lower : NULL);
	else if (j->fresh)
		merge_seal_lower(w);
	else
		merge_list_lower(w);
}

/* -- life ------------------------------------------------------------------------------------- */

static void work_free(struct layer_work *w)
{
	struct job *x, *tmp;

	LL_FOREACH_SAFE(w->list, x, tmp)
	free(x);
	free(w->marks);
	free(w->lower);
	free(w->data);
	free(w);
}

static bool is_merge_of(const struct job *x, volume_id_t layer)
{
	return x->merge && (x->layers[0] == layer || x->layers[1] == layer);
}

/* What is left, and not under way, ends by itself: it is refused when it begins. */
static void tell_left(struct layer_work *w)
{
	struct layer_leave_op *op, *next;

	LL_FOREACH_SAFE(w->leaving, op, next)
	{
		if (w->busy && is_merge_of(w->list, op->layer))
			continue;
		LL_DELETE(w->leaving, op);
		op->done(op);
	}
}

static void tick(struct reactor_task *task)
{
	struct layer_work *w = container_of(task, struct layer_work, task);

	tell_left(w);
	if (w->busy)
		return;
	if (w->stopping) {
		w->stop_done(w->stop_arg);
		work_free(w);
		return;
	}
	if (w->list == NULL)
		return;
	w->busy = true;
	if (w->list->merge) {
		merge_begin(w);
		return;
	}
	w->at = 0;
	memset(w->marks, UNCHANGED, CHUNK_BLOCKS_MAX);
	list_changes(w, w->list->layers[0], w->list->from, listed);
}

int layer_work_start(const struct layer_work_config *config, struct layer_work **ret_work)
{
	struct layer_work *w = calloc(1, sizeof(*w));

	if (w == NULL)
		return -ENOMEM;
	w->marks = malloc(CHUNK_BLOCKS_MAX);
	w->lower = malloc(CHUNK_BLOCKS_MAX * sizeof(w->lower[0]));
	w->data = aligned_alloc(BLOCK_SIZE, IO_SIZE_MAX);
	if (w->marks == NULL || w->lower == NULL || w->data == NULL) {
		work_free(w);
		return -ENOMEM;
	}
	w->config = *config;
	w->task.run = tick;
	*ret_work = w;
	return 0;
}

static bool fill_changes(struct job *x, const Pave__V1__LayerChanges *c)
{
	if (c->n_layers == 0 || c->n_layers > PERMIT_LAYERS_MAX || c->chunk == UINT32_MAX ||
	    c->from >= CHUNK_BLOCKS_MAX)
		return false;
	x->chunk = c->chunk;
	x->from = c->from;
	x->layer_count = (uint32_t)c->n_layers;
	for (uint32_t i = 0; i < x->layer_count; i++) {
		x->layers[i] = c->layers[i];
		if (x->layers[i] == 0)
			return false;
	}
	return true;
}

static bool fill_merge(struct job *x, const Pave__V1__LayerMerge *m)
{
	x->merge = true;
	x->chunk = m->chunk;
	x->layers[0] = m->upper;
	x->layers[1] = m->lower;
	x->look = m->look;
	x->fresh = m->fresh;
	return m->upper != 0 && m->lower != 0 && m->upper != m->lower && m->chunk != UINT32_MAX;
}

void layer_work_add(struct layer_work *w, uint64_t token, const Pave__V1__Control *what)
{
	struct job *x = calloc(1, sizeof(*x));
	bool good;

	if (x == NULL) {
		w->config.answer(token, -ENOMEM, err_text(-ENOMEM), NULL, w->config.arg);
		return;
	}
	x->token = token;
	good = what->body_case == PAVE__V1__CONTROL__BODY_LAYER_MERGE
		   ? fill_merge(x, what->layer_merge)
		   : fill_changes(x, what->layer_changes);
	if (!good) {
		free(x);
		w->config.answer(token, -EINVAL, err_text(-EINVAL), NULL, w->config.arg);
		return;
	}
	LL_APPEND(w->list, x);
	reactor_defer(w->config.reactor, &w->task);
}

void layer_work_leave(struct layer_work *w, struct layer_leave_op *op)
{
	struct job *x;

	LL_FOREACH (w->list, x)
		x->left = x->left || is_merge_of(x, op->layer);
	LL_APPEND(w->leaving, op);
	reactor_defer(w->config.reactor, &w->task);
}

void layer_work_stop(struct layer_work *w, void (*done)(void *arg), void *arg)
{
	w->stopping = true;
	w->stop_done = done;
	w->stop_arg = arg;
	reactor_defer(w->config.reactor, &w->task);
}

void layer_work_abandon(struct layer_work *w)
{
	if (w != NULL)
		work_free(w);
}
