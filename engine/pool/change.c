/* change: devices that come and go while the pool serves. See pool.h.
 *
 *   add:    PROBE -> FORMAT -> OPEN -> EQUAL (fences) -> RECORD -> serving
 *             \--an error: what was opened is closed and forgotten, the place is free again
 *   retire: RECORD (retiring) -> the mover empties it -> CLOSE (its store) -> FORGET (what the
 * index has of it) -> WIPE -> gone
 *
 * One at a time; the mover works beside it.
 *
 * A crash: while adding, before RECORD: the device holds nothing, and the index forgets it when the
 * pool opens next (open.c). While retiring, up to FORGET: goes on when the pool opens next. After
 * FORGET, before WIPE has ended: its record says RETIRED, so it is not opened, but wiped again. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/assert.h"
#include "engine/base/log.h"
#include "engine/base/text.h"
#include "engine/pool/core.h"

enum change_step {
	CHANGE_PROBE,
	CHANGE_FORMAT,
	CHANGE_OPEN,
	CHANGE_EQUAL,
	CHANGE_RECORD_ADDED,
	CHANGE_RECORD_RETIRING,
	CHANGE_CLOSE,
	CHANGE_FORGET,
	CHANGE_WIPE,
	CHANGE_FAILED, /* the store is being closed, and then what the index has of it deleted */
};

struct change {
	struct pool *pool;
	struct pool_device *device;
	enum change_step step;
	struct pool_add_op *add;       /* or */
	struct pool_retire_op *retire; /* or neither: an empty device leaves */
	int status;
	struct error err;
	struct device_work work;
	struct equal equal;
	struct kv_op kv_op;
	struct reactor_task task;
};

int change_init(struct pool *pool)
{
	pool->change_memory = calloc(1, sizeof *pool->change_memory);
	return pool->change_memory != NULL ? 0 : -ENOMEM;
}

void change_deinit(struct pool *pool)
{
	free(pool->change_memory);
	pool->change_memory = NULL;
}

static void change_free(struct change *c)
{
	device_work_deinit(&c->work);
	equal_deinit(&c->equal);
}

void change_abandon(struct pool *pool)
{
	struct change *c = pool->change;

	if (c == NULL)
		return;
	/* One that is being opened is not the device's yet; one that is leaving is not any more. */
	if (c->step == CHANGE_FORMAT)
		store_format_abandon(&c->work.format);
	if (c->step == CHANGE_OPEN)
		store_abandon(c->work.open.impl);
	if (c->step == CHANGE_CLOSE || c->step == CHANGE_FAILED)
		store_abandon(c->work.store);
	change_free(c);
	pool->change = NULL;
}

bool pool_is_changing(const struct pool *pool)
{
	return pool->change != NULL || pool->closing != NULL;
}

static struct change *change_begin(struct pool *pool, struct pool_device *d, enum change_step step)
{
	struct change *c = pool->change_memory;

	PRE(pool->change == NULL);
	memset(c, 0, sizeof *c);
	c->pool = pool;
	c->device = d;
	c->step = step;
	c->work.pool = pool;
	pool->change = c;
	pool_begin(pool);
	return c;
}

static void change_end(struct change *c)
{
	struct pool *pool = c->pool;
	struct pool_add_op *add = c->add;
	struct pool_retire_op *retire = c->retire;
	struct error err = c->err;
	int status = c->status;

	pool->change = NULL;
	change_free(c);
	if (add != NULL)
		add->done(add, status, status < 0 ? &err : NULL);
	if (retire != NULL)
		retire->done(retire, status, status < 0 ? &err : NULL);
	mover_search(pool);
	pool_end(pool);
}

/* The place is free again, and so is the disk. */
static void drop_device(struct change *c)
{
	disk_close(c->device->disk);
	*c->device = (struct pool_device){0};
}

static void end_run(struct reactor_task *task)
{
	struct change *c = container_of(task, struct change, task);

	if (c->status < 0 && c->device != NULL && c->device->state == POOL_DEVICE_JOINING)
		drop_device(c);
	change_end(c);
}

static void end_later(struct change *c, int status)
{
	c->status = status;
	c->task.run = end_run;
	reactor_defer(c->pool->reactor, &c->task);
}

/* -- adding ----------------------------------------------------------------------------------- */

static void add_tick(struct change *c, int status);

static void worked(struct device_work *w, int status)
{
	add_tick(container_of(w, struct change, work), status);
}

static void equalled(struct equal *e, int status)
{
	add_tick(container_of(e, struct change, equal), status);
}

static void add_recorded(struct kv_op *op, int status)
{
	struct change *c = container_of(op, struct change, kv_op);

	if (status < 0)
		pool_break(c->pool, status);
	add_tick(c, status);
}

static void commit_device(struct change *c, enum record_state state)
{
	struct pool *pool = c->pool;
	struct kv_batch *batch = kv_batch_create(pool->kv);
	struct device_record r = {.uuid = c->device->uuid, .state = state, .slot = c->device->slot};

	memcpy(r.path, c->device->path, sizeof r.path);
	record_put_device(pool->kv, batch, &r);
	kv_commit(pool->kv, batch, &c->kv_op);
}

static void add_forgotten(struct kv_op *op, int status)
{
	struct change *c = container_of(op, struct change, kv_op);

	if (status < 0)
		pool_break(c->pool, status);
	drop_device(c);
	change_end(c);
}

/* The next device in its slot must not find what its store left there. */
static void add_closed(void *arg)
{
	struct change *c = arg;
	struct pool *pool = c->pool;
	struct kv_batch *batch = kv_batch_create(pool->kv);

	c->work.store = NULL;
	record_delete_device(pool->kv, batch, &c->device->uuid);
	record_delete_store(pool->kv, batch, c->device->slot, pool->config.identity.shard);
	c->kv_op.done = add_forgotten;
	kv_commit(pool->kv, batch, &c->kv_op);
}

/* What is opened already is closed first. */
static void add_fail(struct change *c, int status)
{
	c->status = status;
	if (c->err.code == 0)
		error_set(&c->err, status, "%s", err_text(status));
	error_wrap(&c->err, "device %s", c->device->path);
	if (c->device->store == NULL) {
		end_later(c, status);
		return;
	}
	c->step = CHANGE_FAILED;
	c->work.store = c->device->store;
	c->device->store = NULL;
	c->device->leaving = true;
	store_close(c->work.store, add_closed, c);
}

/* An empty device; or one of this node's that was begun to be added, or has been retired: nothing
 * on it is of use to anybody. */
static int check_found(struct change *c)
{
	const struct store_identity *id = &c->pool->config.identity;
	const struct format_super *s = &c->work.super;
	char text[40];

	if (c->work.found == FOUND_EMPTY)
		return 0;
	if (c->work.found == FOUND_SOMETHING)
		return error_set(&c->err, -E_IN_USE,
				 "it is not empty; if nobody needs what it holds, overwrite its "
				 "first 2 MiB with zeroes (dd if=/dev/zero of=%s bs=1M count=2 "
				 "conv=notrunc) and add it again",
				 c->device->path);
	if (memcmp(&s->cluster, &id->cluster, sizeof s->cluster) == 0 &&
	    strncmp(s->node, id->node, sizeof s->node) == 0) {
		if (pool_find_device(c->pool, &s->device) == NULL)
			return 0;
		return error_set(&c->err, -E_IN_USE, "this node has it already");
	}
	return error_set(&c->err, -E_IN_USE, "it belongs to node %s of cluster %s", s->node,
			 text_uuid(&s->cluster, text, sizeof text));
}

static void add_opened(struct change *c)
{
	struct pool_device *d = c->device;

	d->store = c->work.store;
	c->work.store = NULL;
	d->uuid = *store_device(d->store);
	if (c->pool->damage_task != NULL)
		store_watch_damage(d->store, c->pool->damage_task);
	c->step = CHANGE_EQUAL;
	equal_start(&c->equal, c->pool, equalled);
}

static void add_tick(struct change *c, int status)
{
	if (status < 0) {
		if (c->step < CHANGE_EQUAL)
			c->err = c->work.err;
		add_fail(c, status);
		return;
	}
	switch (c->step) {
	case CHANGE_PROBE:
		status = check_found(c);
		if (status < 0) {
			add_fail(c, status);
			return;
		}
		c->step = CHANGE_FORMAT;
		device_format(&c->work, true);
		return;
	case CHANGE_FORMAT:
		c->step = CHANGE_OPEN;
		device_open(&c->work);
		return;
	case CHANGE_OPEN:
		add_opened(c);
		return;
	case CHANGE_EQUAL:
		c->step = CHANGE_RECORD_ADDED;
		c->kv_op.done = add_recorded;
		commit_device(c, RECORD_SERVING);
		return;
	case CHANGE_RECORD_ADDED:
		c->device->state = POOL_DEVICE_SERVING;
		log_info("pool", "device %s serves", c->device->path);
		change_end(c);
		return;
	default:
		break;
	}
	INVARIANT(false);
}

static int add_check(struct pool *pool, const struct pool_add_op *op, struct error *err)
{
	for (uint32_t i = 0; i < POOL_DEVICES_MAX; i++)
		if (pool->devices[i].state != POOL_DEVICE_NONE &&
		    strcmp(pool->devices[i].path, op->path) == 0)
			return error_set(err, -E_IN_USE, "device %s: this node has it already",
					 op->path);
	if (strlen(op->path) >= POOL_PATH_MAX)
		return error_set(err, -EINVAL, "device %.60s...: the path is longer than %u bytes",
				 op->path, POOL_PATH_MAX - 1);
	if (pool_free_place(pool) == NULL)
		return error_set(err, -E_LIMIT, "device %s: this node has %u devices, the limit",
				 op->path, POOL_DEVICES_MAX);
	if (op->disk->size_bytes < DEVICE_PROBE_SIZE)
		return error_set(err, -EINVAL,
				 "device %s: %llu bytes are too few, at least %llu are needed",
				 op->path, (unsigned long long)op->disk->size_bytes,
				 (unsigned long long)DEVICE_PROBE_SIZE);
	return 0;
}

void pool_add(struct pool *pool, struct pool_add_op *op)
{
	struct pool_device *d = pool_free_place(pool);
	struct error err = {0};
	struct change *c;
	int status = add_check(pool, op, &err);

	PRE(pool->closing == NULL && pool->change == NULL);
	c = change_begin(pool, NULL, CHANGE_PROBE);
	c->add = op;
	if (status < 0) {
		c->err = err;
		disk_close(op->disk);
		end_later(c, status);
		return;
	}
	*d = (struct pool_device){
	    .state = POOL_DEVICE_JOINING, .disk = op->disk, .slot = pool_free_slot(pool)};
	memcpy(d->path, op->path, strlen(op->path) + 1);
	c->device = d;
	c->work.disk = d->disk;
	c->work.slot = d->slot;
	c->work.done = worked;
	device_probe(&c->work);
}

/* -- retiring --------------------------------------------------------------------------------- */

static void retire_recorded(struct kv_op *op, int status)
{
	struct change *c = container_of(op, struct change, kv_op);

	if (status < 0) {
		pool_break(c->pool, status);
		error_set(&c->err, status, "the index cannot be written: %s", err_text(status));
	} else {
		c->device->state = POOL_DEVICE_RETIRING;
		log_info("pool", "device %s is being retired: %llu chunks move to the others",
			 c->device->path, (unsigned long long)c->device->chunk_count);
	}
	c->status = status;
	change_end(c);
}

static struct pool_device *find_named(struct pool *pool, const char *name)
{
	char text[40];

	for (uint32_t i = 0; i < POOL_DEVICES_MAX; i++) {
		struct pool_device *d = &pool->devices[i];

		if (d->state != POOL_DEVICE_NONE && !d->leaving &&
		    (strcmp(d->path, name) == 0 ||
		     strcmp(text_uuid(&d->uuid, text, sizeof text), name) == 0))
			return d;
	}
	return NULL;
}

/* Whether what lies on d fits on the others that serve, beside what others that are being retired
 * have yet to move there. */
static int check_room(struct pool *pool, const struct pool_device *d, struct error *err)
{
	uint64_t room = 0, waits = 0, live;
	uint32_t others = 0;
	struct store_stats s;

	for (uint32_t i = 0; i < POOL_DEVICES_MAX; i++) {
		const struct pool_device *other = &pool->devices[i];

		if (other == d || other->store == NULL)
			continue;
		store_get_stats(other->store, &s);
		if (other->state == POOL_DEVICE_RETIRING)
			waits += s.live_bytes;
		if (other->state != POOL_DEVICE_SERVING)
			continue;
		room += s.free_bytes;
		others++;
	}
	if (others == 0)
		return error_set(err, -ENOSPC,
				 "device %s is the only one that serves on this node: add another "
				 "first, or drain the node",
				 d->path);
	store_get_stats(d->store, &s);
	live = s.live_bytes;
	if (live + waits <= room)
		return 0;
	return error_set(err, -ENOSPC,
			 "device %s holds %llu MiB, others that are being retired %llu MiB, and "
			 "the devices of this node that stay have %llu MiB free: %llu MiB are "
			 "lacking; add a device first, or move volumes away",
			 d->path, (unsigned long long)(live >> 20),
			 (unsigned long long)(waits >> 20), (unsigned long long)(room >> 20),
			 (unsigned long long)((live + waits - room + MIB - 1) >> 20));
}

static int retire_check(struct pool *pool, struct pool_device *d, const char *name,
			struct error *err)
{
	if (pool->broken != 0)
		return error_set(err, pool->broken, "the index cannot be written");
	if (d == NULL)
		return error_set(err, -ENOENT, "this node has no device %.200s", name);
	if (d->store != NULL)
		return check_room(pool, d, err);
	if (d->state == POOL_DEVICE_JOINING)
		return error_set(err, -EBUSY, "device %s is being added", d->path);
	return error_set(
	    err, -EINVAL,
	    "device %s cannot be read, and %llu chunks, if not more, lie on it: bring "
	    "it back; or have the copies replaced (drain the node), then start the node "
	    "anew without its index",
	    d->path, (unsigned long long)d->chunk_count);
}

void pool_retire(struct pool *pool, struct pool_retire_op *op)
{
	struct pool_device *d = find_named(pool, op->path);
	struct change *c;
	int status;

	PRE(pool->closing == NULL && pool->change == NULL);
	c = change_begin(pool, d, CHANGE_RECORD_RETIRING);
	c->retire = op;
	if (d != NULL)
		pool_check_device(pool, d);
	status = retire_check(pool, d, op->path, &c->err);
	if (status < 0 || d->state == POOL_DEVICE_RETIRING) {
		end_later(c, status);
		return;
	}
	c->kv_op.done = retire_recorded;
	commit_device(c, RECORD_RETIRING);
}

/* -- leaving ---------------------------------------------------------------------------------- */

static void leave_gone(struct change *c)
{
	log_info("pool", "device %s has been retired", c->device->path);
	drop_device(c);
	change_end(c);
}

static void leave_wiped(struct device_work *w, int status)
{
	struct change *c = container_of(w, struct change, work);

	if (status < 0)
		log_warn("pool", "device %s was retired, but not wiped: %s", c->device->path,
			 w->err.text);
	leave_gone(c);
}

static void leave_forgotten(struct kv_op *op, int status)
{
	struct change *c = container_of(op, struct change, kv_op);

	if (status < 0) {
		pool_break(c->pool, status);
		c->status = status;
		change_end(c);
		return;
	}
	c->step = CHANGE_WIPE;
	if (c->device->disk == NULL) {
		leave_gone(c);
		return;
	}
	c->work.disk = c->device->disk;
	c->work.done = leave_wiped;
	device_wipe(&c->work);
}

/* Everything that the index has of it goes at once; from now on it is not this node's. */
static void leave_closed(void *arg)
{
	struct change *c = arg;
	struct pool *pool = c->pool;
	struct kv_batch *batch = kv_batch_create(pool->kv);
	struct device_record r = {.uuid = c->device->uuid, .state = RECORD_RETIRED};

	c->work.store = NULL;
	memcpy(r.path, c->device->path, sizeof r.path);
	record_delete_store(pool->kv, batch, c->device->slot, pool->config.identity.shard);
	pool_forget_moves(pool, batch, &c->device->uuid);
	record_put_device(pool->kv, batch, &r);
	c->step = CHANGE_FORGET;
	c->kv_op.done = leave_forgotten;
	kv_commit(pool->kv, batch, &c->kv_op);
}

void change_device_empty(struct pool *pool, struct pool_device *d)
{
	struct change *c;

	if (pool->change != NULL || pool->closing != NULL || pool->broken != 0)
		return; /* its end kicks the mover again */
	c = change_begin(pool, d, CHANGE_CLOSE);
	d->leaving = true;
	c->work.store = d->store;
	d->store = NULL;
	if (c->work.store != NULL)
		store_close(c->work.store, leave_closed, c);
	else
		leave_closed(c);
}
