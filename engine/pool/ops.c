/* ops: the operations of store.h, each sent to the device on which its chunk lies.
 *
 * An operation on a chunk borrows its hook from submit until its end: there lies the owner's
 * `done`, which is called with what the store answered. So the pool knows what is under way for
 * each chunk (route.h), which is what moving one needs. Fences and erases go to several devices at
 * once (a fan), and are done when the last one has answered.
 *
 * Invariants:
 * 1. done never runs inside the call: what the pool answers by itself goes through `finished`.
 * 2. A change goes to the device that its chunk's route names at the moment of submission; while
 * the route is held it waits, in order.
 *
 * Failure modes: a device that has failed, or is missing: -E_DEVICE (pool.h). */
#include <errno.h>
#include <stdlib.h>
#include <utlist.h>

#include "engine/base/assert.h"
#include "engine/pool/core.h"

static struct pool_hook *hook_of(struct store_hook *hook)
{
	return (struct pool_hook *)(void *)hook;
}

#define OP_OF(h, type) container_of((struct store_hook *)(void *)(h), struct type, hook)

static void queue_push(struct hook_queue *q, struct pool_hook *h)
{
	h->next = NULL;
	if (q->head == NULL)
		q->head = h;
	else
		q->tail->next = h;
	q->tail = h;
}

static struct pool_hook *queue_pop(struct hook_queue *q)
{
	struct pool_hook *h = q->head;

	if (h != NULL)
		q->head = h->next;
	return h;
}

/* -- beginning and end ------------------------------------------------------------------------ */

static struct pool_hook *hook_begin(struct pool *pool, struct store_hook *hook, enum hook_kind kind)
{
	struct pool_hook *h = hook_of(hook);

	PRE(pool->closing == NULL);
	*h = (struct pool_hook){.pool = pool, .kind = (uint8_t)kind};
	pool_begin(pool);
	return h;
}

/* The operation is its owner's again; h is gone when this returns. */
static void hook_end(struct pool_hook *h, int status)
{
	struct pool_hook hook = *h;
	struct store_write *write;
	struct store_watermark_op *watermark;
	struct store_read *read;
	struct store_changes_op *changes;
	struct store_fence_op *fence;
	struct store_erase_op *erase;
	struct store_wipe_op *wipe;

	switch ((enum hook_kind)hook.kind) {
	case HOOK_WRITE:
		write = OP_OF(h, store_write);
		write->done = hook.done.write;
		write->done(write, status);
		break;
	case HOOK_WATERMARK:
		watermark = OP_OF(h, store_watermark_op);
		watermark->done = hook.done.watermark;
		watermark->done(watermark, status);
		break;
	case HOOK_READ:
		read = OP_OF(h, store_read);
		read->done = hook.done.read;
		read->done(read, status);
		break;
	case HOOK_CHANGES:
		changes = OP_OF(h, store_changes_op);
		changes->done = hook.done.changes;
		changes->done(changes, status);
		break;
	case HOOK_FENCE:
		fence = OP_OF(h, store_fence_op);
		fence->done = hook.done.fence;
		fence->done(fence, status);
		break;
	case HOOK_ERASE:
		erase = OP_OF(h, store_erase_op);
		erase->done = hook.done.erase;
		erase->done(erase, status);
		break;
	case HOOK_WIPE:
		wipe = OP_OF(h, store_wipe_op);
		wipe->done = hook.done.wipe;
		wipe->done(wipe, status);
		break;
	}
	pool_end(hook.pool);
}

void ops_finish_run(struct reactor_task *task)
{
	struct pool *pool = container_of(task, struct pool, finish_task);
	struct hook_queue q = pool->finished;
	struct pool_hook *h;

	pool->finished = (struct hook_queue){0};
	while ((h = queue_pop(&q)) != NULL)
		hook_end(h, h->status);
}

static void end_later(struct pool_hook *h, int status)
{
	struct pool *pool = h->pool;

	h->status = status;
	queue_push(&pool->finished, h);
	reactor_defer(pool->reactor, &pool->finish_task);
}

/* -- places ----------------------------------------------------------------------------------- */

/* Of which volume nobody here can tell: what is open now may not have been here when something was
 * written, and a layer may come with another volume than the one that wrote it. */
int pool_absent(const struct pool *pool)
{
	return pool->absent ? -E_DEVICE : 0;
}

/* The route for a change of a chunk, made if it has none. NULL: *ret_status says why not. */
static struct route *route_for_change(struct pool *pool, volume_id_t volume, chunk_no_t chunk,
				      int *ret_status)
{
	struct route *r = routes_find(&pool->routes, volume, chunk);
	struct pool_device *d;

	*ret_status = pool->broken;
	if (pool->broken != 0)
		return NULL;
	if (r == NULL) {
		*ret_status = pool_absent(pool);
		if (*ret_status != 0)
			return NULL;
		d = pool_choose(pool, NULL);
		*ret_status = -E_DEVICE;
		if (d == NULL)
			return NULL;
		*ret_status = -ENOSPC;
		return pool_add_route(pool, volume, chunk, d);
	}
	*ret_status = -E_DEVICE;
	return pool->devices[r->place].store != NULL ? r : NULL;
}

/* -- changes of a chunk ----------------------------------------------------------------------- */

static void change_submit(struct pool_hook *h)
{
	struct pool_device *d = &h->pool->devices[h->route->place];

	h->place = h->route->place;
	h->route->writes++;
	if (h->kind == HOOK_WRITE)
		store_write(d->store, OP_OF(h, store_write));
	else
		store_watermark(d->store, OP_OF(h, store_watermark_op));
}

static void change_begin(struct pool_hook *h, volume_id_t volume, chunk_no_t chunk)
{
	int status;

	h->route = route_for_change(h->pool, volume, chunk, &status);
	if (h->route == NULL)
		end_later(h, status);
	else if (h->route->held)
		queue_push(&h->pool->held, h);
	else
		change_submit(h);
}

static void change_end(struct pool_hook *h, int status)
{
	struct pool *pool = h->pool;
	struct route *r = h->route;
	const bool moving = pool->mover.route == r;

	r->writes--;
	if (status < 0) {
		status = pool_status(pool, &pool->devices[h->place], status);
		pool_settle_route(pool, r);
	}
	hook_end(h, status);
	if (moving)
		mover_kick(pool);
}

static void write_done(struct store_write *op, int status)
{
	struct pool_hook *h = hook_of(&op->hook);

	if (h->pool->mover.route == h->route)
		mover_note_change(h->pool, op->block, op->block_count);
	change_end(h, status);
}

void pool_write(struct pool *pool, struct store_write *op)
{
	struct pool_hook *h = hook_begin(pool, &op->hook, HOOK_WRITE);

	h->done.write = op->done;
	op->done = write_done;
	change_begin(h, op->volume, op->chunk);
}

void pool_look_ahead(struct pool *pool, volume_id_t volume, chunk_no_t chunk, block_no_t block,
		     enum store_ahead what)
{
	const struct route *r = routes_find(&pool->routes, volume, chunk);

	if (r != NULL && pool->devices[r->place].store != NULL)
		store_look_ahead(pool->devices[r->place].store, volume, chunk, block, what);
}

static void watermark_done(struct store_watermark_op *op, int status)
{
	change_end(hook_of(&op->hook), status);
}

void pool_watermark(struct pool *pool, struct store_watermark_op *op)
{
	struct pool_hook *h = hook_begin(pool, &op->hook, HOOK_WATERMARK);

	h->done.watermark = op->done;
	op->done = watermark_done;
	if (op->watermark == 0)
		end_later(h, 0);
	else
		change_begin(h, op->volume, op->chunk);
}

void ops_release_held(struct pool *pool, int status)
{
	struct hook_queue q = pool->held;
	struct pool_hook *h;

	pool->held = (struct hook_queue){0};
	while ((h = queue_pop(&q)) != NULL) {
		if (status < 0)
			end_later(h, status);
		else
			change_submit(h);
	}
}

/* -- questions about a chunk ------------------------------------------------------------------ */

/* Any device can say that there is nothing. */
static struct pool_device *any_open(struct pool *pool)
{
	for (uint32_t i = 0; i < POOL_DEVICES_MAX; i++)
		if (pool->devices[i].store != NULL)
			return &pool->devices[i];
	return NULL;
}

/* The device to ask, and the hook's share in its route; NULL: the answer is *ret_status. */
static struct pool_device *ask_begin(struct pool_hook *h, volume_id_t volume, chunk_no_t chunk,
				     int *ret_status)
{
	struct pool *pool = h->pool;
	struct route *r = routes_find(&pool->routes, volume, chunk);
	struct pool_device *d;

	*ret_status = -E_DEVICE;
	h->route = r;
	if (r == NULL) {
		d = pool_absent(pool) == 0 ? any_open(pool) : NULL;
		h->place = d != NULL ? pool_place(pool, d) : 0;
		return d;
	}
	d = &pool->devices[r->place];
	if (d->store == NULL)
		return NULL;
	h->place = r->place;
	h->turn = r->turn;
	r->reads[h->turn]++;
	return d;
}

static void ask_end(struct pool_hook *h, int status)
{
	struct pool *pool = h->pool;
	struct pool_device *d = &pool->devices[h->place];
	struct route *r = h->route;
	bool moving = false;

	if (status == -EIO)
		d->read_errors++;
	status = pool_status(pool, d, status);
	if (r != NULL) {
		r->reads[h->turn]--;
		moving = pool->mover.route == r;
		if (!moving)
			pool_settle_route(pool, r);
	}
	hook_end(h, status);
	if (moving)
		mover_kick(pool);
}

static void read_done(struct store_read *op, int status)
{
	ask_end(hook_of(&op->hook), status);
}

void pool_read(struct pool *pool, struct store_read *op)
{
	struct pool_hook *h = hook_begin(pool, &op->hook, HOOK_READ);
	struct pool_device *d;
	int status;

	h->done.read = op->done;
	op->done = read_done;
	d = ask_begin(h, op->volume, op->chunk, &status);
	if (d != NULL)
		store_read(d->store, op);
	else
		end_later(h, status);
}

static void changes_done(struct store_changes_op *op, int status)
{
	ask_end(hook_of(&op->hook), status);
}

void pool_changes(struct pool *pool, struct store_changes_op *op)
{
	struct pool_hook *h = hook_begin(pool, &op->hook, HOOK_CHANGES);
	struct pool_device *d;
	int status;

	h->done.changes = op->done;
	op->done = changes_done;
	d = ask_begin(h, op->volume, op->chunk, &status);
	if (d != NULL)
		store_changes(d->store, op);
	else
		end_later(h, status);
}

/* -- fans ------------------------------------------------------------------------------------- */

struct fan {
	struct fan *prev, *next; /* of the pool */
	struct pool_hook *h;
	uint32_t left;
	bool some;    /* one has done it */
	int status;   /* the first error, of a device that goes on if there is one */
	bool refused; /* -E_FENCED */
	union {
		struct store_fence_op fences[POOL_DEVICES_MAX];
		struct store_erase_op erases[POOL_DEVICES_MAX];
		struct store_wipe_op wipes[POOL_DEVICES_MAX];
	};
};

/* NULL: the operation has ended already. */
static struct fan *fan_create(struct pool_hook *h)
{
	struct pool *pool = h->pool;
	struct fan *fan = NULL;
	int status = pool->broken;

	if (status == 0)
		status = any_open(pool) != NULL ? 0 : -E_DEVICE;
	if (status == 0) {
		fan = calloc(1, sizeof *fan);
		status = -ENOMEM;
	}
	if (fan == NULL) {
		end_later(h, status);
		return NULL;
	}
	DL_APPEND(pool->fans, fan);
	fan->h = h;
	for (uint32_t i = 0; i < POOL_DEVICES_MAX; i++)
		fan->left += pool->devices[i].store != NULL;
	return fan;
}

static void fan_free(struct fan *fan)
{
	DL_DELETE(fan->h->pool->fans, fan);
	free(fan);
}

void ops_free_fans(struct pool *pool)
{
	struct fan *fan, *next;

	DL_FOREACH_SAFE (pool->fans, fan, next) {
		DL_DELETE(pool->fans, fan);
		free(fan);
	}
}

static void fan_note(struct fan *fan, uint32_t place, int status)
{
	struct pool *pool = fan->h->pool;

	if (status == 0)
		fan->some = true;
	else if (status == -E_FENCED)
		fan->refused = true;
	else if (fan->status == 0 || fan->status == -E_DEVICE)
		fan->status = pool_status(pool, &pool->devices[place], status);
	fan->left--;
}

/* A fence that a failing device did not take holds there all the same: it takes nothing any more,
 * and gets its fences when it is opened again. One that goes on would take older writes. */
static void fence_done(struct store_fence_op *op, int status)
{
	struct fan *fan = op->hook.hook[0];
	struct pool_hook *h = fan->h;

	fan_note(fan, (uint32_t)(op - fan->fences), status);
	if (fan->left > 0)
		return;
	status = fan->status;
	if (fan->refused)
		status = -E_FENCED;
	else if (fan->some && status == -E_DEVICE)
		status = 0;
	fan_free(fan);
	hook_end(h, status);
}

void pool_fence(struct pool *pool, struct store_fence_op *op)
{
	struct pool_hook *h = hook_begin(pool, &op->hook, HOOK_FENCE);
	struct fan *fan;

	h->done.fence = op->done;
	fan = fan_create(h);
	for (uint32_t i = 0; fan != NULL && i < POOL_DEVICES_MAX; i++) {
		if (pool->devices[i].store == NULL)
			continue;
		fan->fences[i] = (struct store_fence_op){
		    .done = fence_done, .volume = op->volume, .generation = op->generation};
		fan->fences[i].hook.hook[0] = fan;
		store_fence(pool->devices[i].store, &fan->fences[i]);
	}
}

generation_t pool_generation(const struct pool *pool, volume_id_t volume)
{
	generation_t generation = 0;

	for (uint32_t i = 0; i < POOL_DEVICES_MAX; i++)
		if (pool->devices[i].store != NULL)
			generation =
			    MAX(generation, store_generation(pool->devices[i].store, volume));
	return generation;
}

static void settle_one(struct route *r, void *arg)
{
	struct fan *fan = arg;
	const struct store_erase_op *op = OP_OF(fan->h, store_erase_op);

	if (r->volume == op->volume)
		pool_settle_route(fan->h->pool, r);
}

static void erase_done(struct store_erase_op *op, int status)
{
	struct fan *fan = op->hook.hook[0];
	struct pool_hook *h = fan->h;
	struct pool *pool = h->pool;
	struct store_erase_op *whole = OP_OF(h, store_erase_op);
	struct route *r;

	fan_note(fan, (uint32_t)(op - fan->erases), status);
	if (fan->left > 0)
		return;
	status = fan->status;
	if (whole->chunk == UINT32_MAX) {
		routes_each(&pool->routes, settle_one, fan);
	} else {
		r = routes_find(&pool->routes, whole->volume, whole->chunk);
		if (r != NULL)
			pool_settle_route(pool, r);
	}
	fan_free(fan);
	/* It may have kept the mover from a chunk. */
	mover_search(pool);
	hook_end(h, status);
}

bool ops_erasing(const struct pool *pool, volume_id_t volume, chunk_no_t chunk)
{
	const struct fan *fan;

	DL_FOREACH (pool->fans, fan) {
		const struct store_erase_op *op;

		if (fan->h->kind != HOOK_ERASE)
			continue;
		op = OP_OF(fan->h, store_erase_op);
		if (op->volume == volume && (op->chunk == UINT32_MAX || op->chunk == chunk))
			return true;
	}
	return false;
}

/* A copy that does not count any more, and could not be erased. */
static bool is_left_on_absent(struct pool *pool, const struct store_erase_op *op)
{
	for (uint32_t i = 0; i < pool->kept_count; i++) {
		const struct move_record *r = &pool->kept[i];
		const struct pool_device *d =
		    pool_find_device(pool, r->state == MOVE_COPYING ? &r->to : &r->from);

		if (r->volume == op->volume && r->chunk == op->chunk && d != NULL &&
		    device_is_absent(d))
			return true;
	}
	return false;
}

/* An absent device may hold something of it: that is not erased. */
static int erase_absent(struct pool *pool, const struct store_erase_op *op)
{
	const struct route *r;

	if (op->chunk == UINT32_MAX)
		return pool_absent(pool);
	r = routes_find(&pool->routes, op->volume, op->chunk);
	if (r == NULL)
		return pool_absent(pool);
	return pool->devices[r->place].store == NULL || is_left_on_absent(pool, op) ? -E_DEVICE : 0;
}

static void erase_begin(struct pool_hook *h)
{
	struct store_erase_op *op = OP_OF(h, store_erase_op);
	struct pool *pool = h->pool;
	struct fan *fan = fan_create(h);

	if (fan == NULL)
		return;
	fan->status = erase_absent(pool, op);
	for (uint32_t i = 0; i < POOL_DEVICES_MAX; i++) {
		if (pool->devices[i].store == NULL)
			continue;
		fan->erases[i] = (struct store_erase_op){
		    .done = erase_done, .volume = op->volume, .chunk = op->chunk};
		fan->erases[i].hook.hook[0] = fan;
		store_erase(pool->devices[i].store, &fan->erases[i]);
	}
}

void pool_erase(struct pool *pool, struct store_erase_op *op)
{
	struct pool_hook *h = hook_begin(pool, &op->hook, HOOK_ERASE);

	h->done.erase = op->done;
	/* What is being copied could come back after the erase. */
	if (mover_let_go(pool, op->volume, op->chunk))
		queue_push(&pool->erases, h);
	else
		erase_begin(h);
}

void ops_release_erases(struct pool *pool)
{
	struct hook_queue q = pool->erases;
	struct pool_hook *h;

	pool->erases = (struct hook_queue){0};
	while ((h = queue_pop(&q)) != NULL)
		erase_begin(h);
}

/* -- wiping ----------------------------------------------------------------------------------- */

static void wipe_done(struct store_wipe_op *op, int status)
{
	struct fan *fan = op->hook.hook[0];
	struct pool_hook *h = fan->h;
	struct store_wipe_op *whole = OP_OF(h, store_wipe_op);

	whole->segments += op->segments;
	whole->bytes += op->bytes;
	fan_note(fan, (uint32_t)(op - fan->wipes), status);
	if (fan->left > 0)
		return;
	status = fan->status;
	fan_free(fan);
	hook_end(h, status);
}

/* On all of them: what lies on one now may have lain on another before. An absent one may hold
 * something too. */
void pool_wipe(struct pool *pool, struct store_wipe_op *op)
{
	struct pool_hook *h = hook_begin(pool, &op->hook, HOOK_WIPE);
	struct fan *fan;

	h->done.wipe = op->done;
	op->segments = 0;
	op->bytes = 0;
	fan = fan_create(h);
	if (fan == NULL)
		return;
	fan->status = pool_absent(pool);
	for (uint32_t i = 0; i < POOL_DEVICES_MAX; i++) {
		if (pool->devices[i].store == NULL)
			continue;
		fan->wipes[i] = (struct store_wipe_op){.done = wipe_done,
						       .keys = op->keys,
						       .key_count = op->key_count,
						       .overwrite = op->overwrite};
		fan->wipes[i].hook.hook[0] = fan;
		store_wipe(pool->devices[i].store, &fan->wipes[i]);
	}
}

void pool_wipe_stop(struct pool *pool)
{
	for (uint32_t i = 0; i < POOL_DEVICES_MAX; i++)
		if (pool->devices[i].store != NULL)
			store_wipe_stop(pool->devices[i].store);
}

/* -- the list of chunks ----------------------------------------------------------------------- */

/* The next chunk of a device's list from `from` that lies there: a copy that does not count, or not
 * any more, is left out. */
static bool next_of(struct pool *pool, uint32_t place, volume_id_t volume, chunk_no_t from,
		    struct store_chunk_state *ret_state)
{
	struct pool_device *d = &pool->devices[place];

	while (store_chunks(d->store, volume, from, ret_state, 1) == 1) {
		const struct route *r = routes_find(&pool->routes, volume, ret_state->chunk);

		if (r != NULL && r->place == place) {
			ret_state->status =
			    d->why != 0 && store_failure(d->store) != 0 ? -E_DEVICE : 0;
			return true;
		}
		from = ret_state->chunk + 1;
	}
	return false;
}

uint32_t pool_chunks(struct pool *pool, volume_id_t volume, chunk_no_t from,
		     struct store_chunk_state *ret_states, uint32_t max)
{
	struct store_chunk_state heads[POOL_DEVICES_MAX];
	bool has[POOL_DEVICES_MAX] = {false};
	uint32_t count = 0;

	for (uint32_t i = 0; i < POOL_DEVICES_MAX; i++)
		has[i] =
		    pool->devices[i].store != NULL && next_of(pool, i, volume, from, &heads[i]);
	while (count < max) {
		uint32_t best = POOL_DEVICES_MAX;

		for (uint32_t i = 0; i < POOL_DEVICES_MAX; i++)
			if (has[i] &&
			    (best == POOL_DEVICES_MAX || heads[i].chunk < heads[best].chunk))
				best = i;
		if (best == POOL_DEVICES_MAX)
			break;
		ret_states[count++] = heads[best];
		has[best] = next_of(pool, best, volume, heads[best].chunk + 1, &heads[best]);
	}
	return count;
}
