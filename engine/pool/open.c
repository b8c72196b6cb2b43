/* open: what devices there are, when the pool opens, and what lies on them. See pool.h.
 *
 *   records from kv -> PROBE (each disk: no two may be the same) -> PROBE (each disk again)
 *     -> WIPE (one that was retired, and not wiped) | FORMAT (an empty one); its store begins to
 * open
 *     -> ... -> STORES (all that were begun have ended) -> the empty ones likewise
 *     -> RECORD (which devices there are) -> EQUAL (fences)
 *     -> MOVES (of each chunk that is on two devices the copy that does not count is erased)
 *     -> routes -> done
 *   an error: STORES -> CLOSE (what is open) -> done
 *
 * Disks are looked at one after the other, and what is to become of each is decided in their order;
 * but their stores, which read and replay their logs, open side by side, so that a node with many
 * devices takes as long as the one with the longest log. Their results are taken in the order of
 * the disks, too: which error is told does not depend on who was faster.
 *
 * Invariants:
 * 1. Nothing is served before the fences are alike and each chunk is on one device.
 * 2. A device that the index knows is never taken for a new one, nor a new one for it.
 * 3. No two disks are opened as one device. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/assert.h"
#include "engine/base/log.h"
#include "engine/base/text.h"
#include "engine/pool/core.h"

enum open_step {
	OPEN_PROBE,
	OPEN_FORMAT,
	OPEN_STORES,
	OPEN_WIPE,
	OPEN_RECORD,
	OPEN_EQUAL,
	OPEN_MOVES,
	OPEN_CLEAR,
	OPEN_CLOSE,
};

/* Every disk is looked at before any is opened; those that are empty come last. */
enum open_round { ROUND_LOOK, ROUND_OPEN, ROUND_EMPTY };

struct orphan {
	uint32_t slot;
	struct uuid device;
};

/* A store that is being opened, or that was, and nobody has looked at it yet. */
struct store_opening {
	struct opening *opening;
	struct device_work work;
	struct pool_device *device; /* NULL: not known to be one of ours before it opens */
	bool begun, ended;
	int status;
};

struct opening {
	struct pool *pool;
	struct pool_open_op *op;
	enum open_step step;
	enum open_round round;
	uint32_t next;			     /* of the disks */
	struct uuid uuids[POOL_DEVICES_MAX]; /* of each, as it says; all zeroes: it says nothing */
	bool was_empty[POOL_DEVICES_MAX];
	struct pool_device *device; /* at work on it; NULL: as in store_opening */
	struct store_opening stores[POOL_DEVICES_MAX]; /* of each disk */
	uint32_t running;			       /* of these */
	uint32_t failed_at;			       /* the disk whose error is told */
	struct device_record *retired;
	uint32_t retired_count;
	struct orphan orphans[FORMAT_SLOTS_MAX]; /* devices that were never taken in */
	uint32_t orphan_count;
	bool any_record;
	struct move_record *moves;
	uint32_t move_count, move_next;
	struct device_work work;
	struct equal equal;
	struct store_erase_op erase;
	struct kv_op kv_op;
	struct reactor_task task;
	uint32_t closing;
	int status;
	struct error err;
};

static void tick(struct opening *o);
static void next_disk(struct opening *o);

static void opening_free(struct opening *o)
{
	device_work_deinit(&o->work);
	for (uint32_t i = 0; i < POOL_DEVICES_MAX; i++)
		device_work_deinit(&o->stores[i].work);
	equal_deinit(&o->equal);
	free(o->retired);
	free(o->moves);
	o->pool->opening = NULL;
	free(o);
}

void opening_abandon(struct pool *pool)
{
	struct opening *o = pool->opening;

	if (o == NULL)
		return;
	if (o->step == OPEN_FORMAT)
		store_format_abandon(&o->work.format);
	for (uint32_t i = 0; i < POOL_DEVICES_MAX; i++) {
		const struct store_opening *s = &o->stores[i];

		if (s->begun)
			store_abandon(s->ended ? s->work.store : s->work.open.impl);
	}
	opening_free(o);
}

/* -- the end ---------------------------------------------------------------------------------- */

static void store_closed(void *arg);

static void finish(struct opening *o)
{
	struct pool_open_op *op = o->op;
	struct pool *pool = o->pool;
	struct error err = o->err;
	int status = o->status;

	opening_free(o);
	op->impl = NULL;
	if (status == 0) {
		mover_search(pool);
		op->done(op, 0, pool, NULL);
		return;
	}
	for (uint32_t i = 0; i < POOL_DEVICES_MAX; i++)
		disk_close(pool->devices[i].disk);
	for (uint32_t i = 0; i < op->disk_count; i++)
		disk_close(op->disks[i].disk);
	pool_abandon(pool);
	op->done(op, status, NULL, &err);
}

static void close_next(struct opening *o)
{
	o->step = OPEN_CLOSE;
	for (; o->closing < POOL_DEVICES_MAX; o->closing++)
		if (o->pool->devices[o->closing].store != NULL) {
			store_close(o->pool->devices[o->closing].store, store_closed, o);
			return;
		}
	finish(o);
}

static void store_closed(void *arg)
{
	struct opening *o = arg;

	o->pool->devices[o->closing].store = NULL;
	close_next(o);
}

static void run(struct reactor_task *task)
{
	tick(container_of(task, struct opening, task));
}

static void take_stores(struct opening *o);

/* What is being opened is waited for: an earlier disk may have an error, which is told then. */
static void fail(struct opening *o, int status)
{
	o->status = status;
	o->failed_at = o->next;
	if (o->err.code == 0)
		error_set(&o->err, status, "%s", err_text(status));
	o->step = OPEN_STORES;
	if (o->running > 0)
		return;
	take_stores(o);
	close_next(o);
}

/* -- what the index knows --------------------------------------------------------------------- */

static int take_retired(struct opening *o, const struct device_record *r)
{
	struct device_record *retired =
	    realloc(o->retired, (o->retired_count + 1) * sizeof *retired);

	if (retired == NULL)
		return -ENOMEM;
	o->retired = retired;
	retired[o->retired_count++] = *r;
	return 0;
}

static int take_record(const struct device_record *r, void *arg)
{
	struct opening *o = arg;
	struct pool_device *d;

	if (r->state == RECORD_RETIRED)
		return take_retired(o, r);
	o->any_record = true;
	d = pool_free_place(o->pool);
	if (d == NULL)
		return -E_CORRUPT;
	*d = (struct pool_device){.state = POOL_DEVICE_MISSING,
				  .slot = r->slot,
				  .uuid = r->uuid,
				  .recorded = true,
				  .why = -ENODEV};
	d->is_retiring = r->state == RECORD_RETIRING;
	memcpy(d->path, r->path, sizeof d->path);
	return 0;
}

/* A store in the index without a record of its device: of the time before there were records, when
 * a node had one; or one that was being added. */
static int take_slot(uint32_t slot, const struct uuid *device, void *arg)
{
	struct opening *o = arg;
	struct pool_device *d = pool_find_device(o->pool, device);

	if (d != NULL)
		return d->slot == slot ? 0 : -E_CORRUPT;
	if (slot != 0 || o->any_record) {
		o->orphans[o->orphan_count++] = (struct orphan){slot, *device};
		return 0;
	}
	d = pool_free_place(o->pool);
	if (d == NULL)
		return -E_CORRUPT;
	*d = (struct pool_device){
	    .state = POOL_DEVICE_MISSING, .slot = slot, .uuid = *device, .why = -ENODEV};
	memcpy(d->path, "(unknown)", sizeof "(unknown)");
	return 0;
}

static int take_move(const struct move_record *r, void *arg)
{
	struct opening *o = arg;
	struct move_record *moves = realloc(o->moves, (o->move_count + 1) * sizeof *moves);

	if (moves == NULL)
		return -ENOMEM;
	o->moves = moves;
	moves[o->move_count++] = *r;
	return 0;
}

static int read_index(struct opening *o)
{
	struct kv *kv = o->pool->kv;
	int rc = record_scan_devices(kv, take_record, o);

	if (rc == 0)
		rc = record_scan_slots(kv, o->pool->config.identity.shard, take_slot, o);
	if (rc == 0)
		rc = record_scan_moves(kv, take_move, o);
	if (rc == 0)
		rc = record_get_node(kv, &o->pool->node);
	if (rc < 0)
		error_set(&o->err, rc, "the index's list of devices cannot be read: %s",
			  err_text(rc));
	return rc;
}

/* -- one disk --------------------------------------------------------------------------------- */

static const struct pool_disk *current(const struct opening *o)
{
	return &o->op->disks[o->next];
}

static bool is_retired_path(const struct opening *o, const char *path)
{
	for (uint32_t i = 0; i < o->retired_count; i++)
		if (strcmp(o->retired[i].path, path) == 0)
			return true;
	return false;
}

static bool is_retired_uuid(const struct opening *o, const struct uuid *uuid)
{
	for (uint32_t i = 0; i < o->retired_count; i++)
		if (memcmp(&o->retired[i].uuid, uuid, sizeof *uuid) == 0)
			return true;
	return false;
}

static uint32_t count_state(const struct pool *pool, enum pool_device_state state)
{
	uint32_t count = 0;

	for (uint32_t i = 0; i < POOL_DEVICES_MAX; i++)
		count += pool->devices[i].state == state;
	return count;
}

static void disk_done(struct opening *o)
{
	o->next++;
	next_disk(o);
}

static void drop(struct pool_disk *disk)
{
	disk_close(disk->disk);
	disk->disk = NULL;
}

/* The disk is not the node's, or of no use. */
static void leave_out(struct opening *o)
{
	drop(&o->op->disks[o->next]);
	disk_done(o);
}

/* It cannot be read: the others go on without it. */
static void unreadable(struct opening *o, struct pool_disk *disk, int status)
{

	log_error("pool", "device %s cannot be read: %s; the node goes on without it", disk->path,
		  err_text(status));
	for (uint32_t i = 0; i < POOL_DEVICES_MAX; i++) {
		struct pool_device *d = &o->pool->devices[i];

		if (d->state == POOL_DEVICE_MISSING && strcmp(d->path, disk->path) == 0) {
			d->state = POOL_DEVICE_FAILED;
			d->why = status;
		}
	}
	if (o->err.code == 0)
		error_set(&o->err, status, "device %s: it cannot be read: %s", disk->path,
			  err_text(status));
	drop(disk);
}

/* The node's own, and what it holds does not check: that is no reason for the others to stand
 * still. */
static void damaged(struct opening *o, struct pool_disk *disk, struct store_opening *s)
{
	struct error err = s->work.err;

	error_wrap(&err, "device %s", disk->path);
	log_error("pool", "%s; the node goes on without it", err.text);
	s->device->state = POOL_DEVICE_FAILED;
	s->device->why = s->status;
	if (o->err.code == 0)
		o->err = err;
	drop(disk);
}

static bool is_orphans_slot(const struct opening *o, uint32_t slot)
{
	for (uint32_t i = 0; i < o->orphan_count; i++)
		if (o->orphans[i].slot == slot)
			return true;
	return false;
}

static bool is_opening_slot(const struct opening *o, uint32_t slot)
{
	for (uint32_t i = 0; i < POOL_DEVICES_MAX; i++)
		if (o->stores[i].begun && o->stores[i].work.slot == slot)
			return true;
	return false;
}

/* Of a device that is not listed the one that it had while it was being added; or one in which
 * nothing of another is left. */
static uint32_t new_slot(const struct opening *o)
{
	uint32_t slot = 0;

	for (uint32_t i = 0; i < o->orphan_count && o->round != ROUND_EMPTY; i++)
		if (o->work.found == FOUND_SUPER &&
		    uuid_equal(&o->orphans[i].device, &o->work.super.device) &&
		    !pool_uses_slot(o->pool, o->orphans[i].slot))
			return o->orphans[i].slot;
	while (pool_uses_slot(o->pool, slot) || is_orphans_slot(o, slot) ||
	       is_opening_slot(o, slot))
		slot++;
	return slot;
}

static void store_ended(struct device_work *w, int status);

/* It begins, and the next disk is looked at. */
static void open_store(struct opening *o)
{
	struct store_opening *s = &o->stores[o->next];

	s->opening = o;
	s->device = o->device;
	s->work.pool = o->pool;
	s->work.done = store_ended;
	s->work.disk = current(o)->disk;
	s->work.slot = o->device != NULL ? o->device->slot : new_slot(o);
	s->begun = true;
	s->ended = false;
	o->running++;
	device_open(&s->work);
	disk_done(o);
}

static void probed_super(struct opening *o)
{
	const struct uuid *uuid = &o->work.super.device;

	o->device = pool_find_device(o->pool, uuid);
	if (o->device == NULL && is_retired_uuid(o, uuid)) {
		log_info("pool", "device %s was retired: it is wiped, and not used",
			 current(o)->path);
		o->step = OPEN_WIPE;
		device_wipe(&o->work);
		return;
	}
	open_store(o);
}

/* Of two copies nobody can tell which one holds what was acknowledged; and their stores would write
 * one index. */
static void look(struct opening *o)
{
	const struct uuid *uuid = &o->work.super.device;
	const bool is_one = o->work.found == FOUND_SUPER && !is_retired_uuid(o, uuid);

	for (uint32_t i = 0; i < o->next && is_one; i++)
		if (uuid_equal(&o->uuids[i], uuid)) {
			fail(o,
			     error_set(&o->err, -E_CORRUPT,
				       "device %s is a copy of %s, or the same under another name: "
				       "take away the one that this node is not to use",
				       current(o)->path, o->op->disks[i].path));
			return;
		}
	if (is_one)
		o->uuids[o->next] = *uuid;
	disk_done(o);
}

static void probed(struct opening *o)
{
	o->device = NULL;
	if (o->round == ROUND_LOOK) {
		look(o);
	} else if (o->work.found == FOUND_SUPER) {
		probed_super(o);
	} else if (o->work.found == FOUND_SOMETHING) {
		open_store(o); /* which says what is wrong with it */
	} else if (is_retired_path(o, current(o)->path)) {
		log_info("pool",
			 "device %s was retired, and is empty: it is not used; add it again if it "
			 "is to be",
			 current(o)->path);
		leave_out(o);
	} else {
		o->was_empty[o->next] = true;
		disk_done(o);
	}
}

/* An empty device beside an index that knows one which is not there may be that one, lost or
 * swapped. To go on with it would let this node say that it holds nothing, where it had
 * acknowledged writes: so a person decides. */
static void take_empty(struct opening *o)
{
	const struct pool_disk *disk = current(o);
	uint32_t missing =
	    count_state(o->pool, POOL_DEVICE_MISSING) + count_state(o->pool, POOL_DEVICE_FAILED);

	if (missing > 0) {
		error_set(
		    &o->err, -E_WRONG_NODE,
		    "device %s is empty, but the index belongs to a device that held data: put "
		    "that device back; or, if it is lost for good, remove the index and this "
		    "node begins empty",
		    disk->path);
		log_error("pool", "%s", o->err.text);
		leave_out(o);
		return;
	}
	if (o->pool->config.no_format) {
		fail(o, error_set(&o->err, -E_CORRUPT, "device %s is empty", disk->path));
		return;
	}
	o->device = NULL;
	o->work.disk = disk->disk;
	o->work.slot = new_slot(o);
	o->step = OPEN_FORMAT;
	device_format(&o->work, true);
}

static void format_done(struct opening *o)
{
	o->device = NULL;
	open_store(o);
}

/* The error of the first disk that has one is what fails the opening. */
static void fail_disk(struct opening *o, uint32_t i, int status)
{
	if (o->status < 0 && i >= o->failed_at)
		return;
	o->status = status;
	o->failed_at = i;
	o->err = o->stores[i].work.err;
	error_wrap(&o->err, "device %s", o->op->disks[i].path);
}

/* All places are of devices that the index knows, and some of those are not here: one of these
 * keeps the store until it is closed. */
static void no_place(struct opening *o, uint32_t i)
{
	struct store_opening *s = &o->stores[i];
	uint32_t k = 0;

	while (o->pool->devices[k].store != NULL)
		k++;
	INVARIANT(k < POOL_DEVICES_MAX);
	o->pool->devices[k].store = s->work.store;
	error_set(&s->work.err, -E_LIMIT, "the index knows %u other devices, and no node has more",
		  POOL_DEVICES_MAX);
	fail_disk(o, i, -E_LIMIT);
}

static void take_opened(struct opening *o, uint32_t i)
{
	struct store_opening *s = &o->stores[i];
	struct pool_disk *disk = &o->op->disks[i];
	struct pool_device *d = s->device;

	if (d == NULL) {
		d = pool_free_place(o->pool);
		if (d == NULL) {
			no_place(o, i);
			return;
		}
		*d = (struct pool_device){.slot = s->work.slot};
	}
	d->state = d->is_retiring ? POOL_DEVICE_RETIRING : POOL_DEVICE_SERVING;
	d->recorded = d->recorded && strcmp(d->path, disk->path) == 0;
	d->why = 0;
	d->uuid = *store_device(s->work.store);
	d->store = s->work.store;
	d->disk = disk->disk;
	disk->disk = NULL;
	memset(d->path, 0, sizeof d->path);
	memcpy(d->path, disk->path, MIN(strlen(disk->path), sizeof d->path - 1));
}

/* One that has ended. */
static void take_store(struct opening *o, uint32_t i)
{
	struct store_opening *s = &o->stores[i];

	s->begun = false;
	if (s->status == 0)
		take_opened(o, i);
	else if (s->status == -EIO)
		unreadable(o, &o->op->disks[i], s->status);
	else if (s->status == -E_CORRUPT && s->device != NULL)
		damaged(o, &o->op->disks[i], s);
	else
		fail_disk(o, i, s->status);
}

static void take_stores(struct opening *o)
{
	for (uint32_t i = 0; i < o->op->disk_count; i++)
		if (o->stores[i].begun)
			take_store(o, i);
}

static void disks_done(struct opening *o);

static void stores_done(struct opening *o)
{
	take_stores(o);
	if (o->status < 0) {
		close_next(o);
		return;
	}
	if (o->round == ROUND_EMPTY) {
		disks_done(o);
		return;
	}
	o->round = ROUND_EMPTY;
	o->next = 0;
	next_disk(o);
}

static void store_ended(struct device_work *w, int status)
{
	struct store_opening *s = container_of(w, struct store_opening, work);
	struct opening *o = s->opening;

	s->ended = true;
	s->status = status;
	o->running--;
	if (o->running == 0 && o->step == OPEN_STORES)
		stores_done(o);
}

static void worked(struct device_work *w, int status)
{
	struct opening *o = container_of(w, struct opening, work);

	if (status == -EIO) {
		unreadable(o, &o->op->disks[o->next], status);
		disk_done(o);
		return;
	}
	if (status < 0 && o->step != OPEN_WIPE) {
		o->err = w->err;
		if (o->step != OPEN_PROBE)
			error_wrap(&o->err, "device %s", current(o)->path);
		fail(o, status);
		return;
	}
	switch (o->step) {
	case OPEN_PROBE:
		probed(o);
		return;
	case OPEN_FORMAT:
		format_done(o);
		return;
	default:
		leave_out(o);
		return;
	}
}

/* -- all of them ------------------------------------------------------------------------------ */

static void next_disk(struct opening *o)
{
	for (; o->next < o->op->disk_count; o->next++) {
		const struct pool_disk *disk = current(o);

		if (disk->disk == NULL && o->round == ROUND_LOOK && disk->why < 0)
			unreadable(o, &o->op->disks[o->next], disk->why);
		if (disk->disk == NULL || (o->round == ROUND_EMPTY && !o->was_empty[o->next]))
			continue;
		if (o->round == ROUND_EMPTY) {
			take_empty(o);
			return;
		}
		if (disk->disk->size_bytes < DEVICE_PROBE_SIZE) {
			fail(o, error_set(
				    &o->err, -EINVAL,
				    "device %s: %llu bytes are too few, at least %llu are needed",
				    disk->path, (unsigned long long)disk->disk->size_bytes,
				    (unsigned long long)DEVICE_PROBE_SIZE));
			return;
		}
		o->work.disk = disk->disk;
		o->step = OPEN_PROBE;
		device_probe(&o->work);
		return;
	}
	if (o->round == ROUND_LOOK) {
		o->round = ROUND_OPEN;
		o->next = 0;
		next_disk(o);
		return;
	}
	o->step = OPEN_STORES;
	if (o->running == 0)
		stores_done(o);
}

static void recorded(struct kv_op *op, int status)
{
	struct opening *o = container_of(op, struct opening, kv_op);

	if (status < 0) {
		fail(o, error_set(&o->err, status, "the index cannot be written: %s",
				  err_text(status)));
		return;
	}
	tick(o);
}

/* The first of them, with an index that does not know who the node is: it is new, or made anew. */
static void name_node(struct opening *o, struct kv_batch *batch)
{
	static const struct uuid unknown;
	struct pool *pool = o->pool;
	const struct pool_device *first = NULL;

	if (!uuid_equal(&pool->node, &unknown))
		return;
	for (uint32_t i = 0; i < POOL_DEVICES_MAX; i++)
		if (pool->devices[i].state != POOL_DEVICE_NONE &&
		    (first == NULL || pool->devices[i].slot < first->slot))
			first = &pool->devices[i];
	pool->node = first->uuid;
	record_put_node(pool->kv, batch, &pool->node);
}

/* Which devices there are; and nothing is left of those that were never taken in. */
static void disks_done(struct opening *o)
{
	struct pool *pool = o->pool;
	struct kv_batch *batch;

	if (count_state(pool, POOL_DEVICE_SERVING) + count_state(pool, POOL_DEVICE_RETIRING) == 0) {
		fail(o, o->err.code != 0 ? o->err.code
					 : error_set(&o->err, -ENODEV, "there is no device"));
		return;
	}
	o->err = (struct error){0};
	batch = kv_batch_create(pool->kv);
	for (uint32_t i = 0; i < POOL_DEVICES_MAX; i++) {
		struct pool_device *d = &pool->devices[i];
		struct device_record r = {.uuid = d->uuid, .slot = d->slot};

		if (d->state == POOL_DEVICE_NONE || d->recorded)
			continue;
		r.state = d->state == POOL_DEVICE_RETIRING ? RECORD_RETIRING : RECORD_SERVING;
		memcpy(r.path, d->path, sizeof r.path);
		record_put_device(pool->kv, batch, &r);
		d->recorded = true;
	}
	for (uint32_t i = 0; i < o->orphan_count; i++)
		if (!pool_uses_slot(pool, o->orphans[i].slot))
			record_delete_store(pool->kv, batch, o->orphans[i].slot,
					    pool->config.identity.shard);
	name_node(o, batch);
	o->step = OPEN_RECORD;
	kv_commit(pool->kv, batch, &o->kv_op);
}

/* -- chunks on two devices -------------------------------------------------------------------- */

static void move_cleared(struct kv_op *op, int status)
{
	recorded(op, status);
}

static void clear_move(struct opening *o)
{
	struct pool *pool = o->pool;
	const struct move_record *r = &o->moves[o->move_next++];
	struct kv_batch *batch = kv_batch_create(pool->kv);

	record_delete_move(pool->kv, batch, r->volume, r->chunk);
	o->step = OPEN_CLEAR;
	o->kv_op.done = move_cleared;
	kv_commit(pool->kv, batch, &o->kv_op);
}

static void loser_erased(struct store_erase_op *op, int status)
{
	struct opening *o = container_of(op, struct opening, erase);

	if (status < 0) {
		const struct move_record *r = &o->moves[o->move_next++];

		if (pool_keep_move(o->pool, r) < 0) {
			fail(o, -ENOMEM);
			return;
		}
		tick(o);
		return;
	}
	clear_move(o);
}

/* The next record of a move: its copy that does not count goes. */
static void settle_moves(struct opening *o)
{
	while (o->move_next < o->move_count) {
		const struct move_record *r = &o->moves[o->move_next];
		struct pool_device *d =
		    pool_find_device(o->pool, r->state == MOVE_COPYING ? &r->to : &r->from);

		if (d == NULL) {
			clear_move(o);
			return;
		}
		if (d->store != NULL) {
			o->step = OPEN_MOVES;
			o->erase = (struct store_erase_op){
			    .done = loser_erased, .volume = r->volume, .chunk = r->chunk};
			store_erase(d->store, &o->erase);
			return;
		}
		if (pool_keep_move(o->pool, r) < 0) {
			fail(o, -ENOMEM);
			return;
		}
		o->move_next++;
	}
	o->step = OPEN_MOVES;
	reactor_defer(o->pool->reactor, &o->task);
}

/* -- steps ------------------------------------------------------------------------------------ */

static void equalled(struct equal *e, int status)
{
	struct opening *o = container_of(e, struct opening, equal);

	if (status < 0)
		fail(o, error_set(&o->err, status, "the fences cannot be written: %s",
				  err_text(status)));
	else
		settle_moves(o);
}

static void tick(struct opening *o)
{
	switch (o->step) {
	case OPEN_PROBE: /* the beginning */
		o->status = read_index(o);
		if (o->status < 0)
			fail(o, o->status);
		else
			next_disk(o);
		return;
	case OPEN_RECORD:
		o->step = OPEN_EQUAL;
		equal_start(&o->equal, o->pool, equalled);
		return;
	case OPEN_CLEAR:
		settle_moves(o);
		return;
	case OPEN_MOVES:
		if (o->move_next < o->move_count) {
			settle_moves(o);
			return;
		}
		o->status = place_chunks(o->pool, &o->err);
		if (o->status < 0)
			fail(o, o->status);
		else
			finish(o);
		return;
	default:
		break;
	}
	INVARIANT(false);
}

static void no_memory_run(struct reactor_task *task)
{
	struct pool_open_op *op = container_of(task, struct pool_open_op, no_memory);
	struct error err;

	for (uint32_t i = 0; i < op->disk_count; i++)
		disk_close(op->disks[i].disk);
	error_set(&err, -ENOMEM, "there is not enough memory for the node's devices");
	op->done(op, -ENOMEM, NULL, &err);
}

static struct pool *pool_create(const struct pool_config *config)
{
	struct pool *pool = calloc(1, sizeof *pool);

	if (pool == NULL)
		return NULL;
	pool->config = *config;
	if (pool->config.move_bytes_per_s == 0)
		pool->config.move_bytes_per_s = MOVER_BYTES_PER_S;
	pool->reactor = config->reactor;
	pool->kv = config->kv;
	pool->finish_task.run = ops_finish_run;
	mover_init(pool);
	if (routes_init(&pool->routes) == 0 && change_init(pool) == 0)
		return pool;
	pool_abandon(pool);
	return NULL;
}

void pool_open(struct pool_open_op *op)
{
	struct pool *pool = pool_create(&op->config);
	struct opening *o = calloc(1, sizeof *o);

	PRE(op->disk_count <= POOL_DEVICES_MAX);
	op->impl = NULL;
	op->no_memory = (struct reactor_task){.run = no_memory_run};
	if (pool == NULL || o == NULL) {
		pool_abandon(pool);
		free(o);
		reactor_defer(op->config.reactor, &op->no_memory);
		return;
	}
	pool->opening = o;
	*o = (struct opening){.pool = pool, .op = op, .task = {.run = run}};
	o->work.pool = pool;
	o->work.done = worked;
	o->kv_op.done = recorded;
	op->impl = pool;
	reactor_defer(pool->reactor, &o->task);
}

/* -- for start-up ----------------------------------------------------------------------------- */

struct known {
	struct pool_known *list;
	uint32_t count, max;
	bool retired; /* these, or the others */
};

static int note_known(const struct device_record *r, void *arg)
{
	struct known *k = arg;

	if ((r->state == RECORD_RETIRED) == k->retired && k->count < k->max) {
		k->list[k->count].retired = k->retired;
		memcpy(k->list[k->count++].path, r->path, sizeof r->path);
	}
	return 0;
}

int pool_list_known(struct kv *kv, struct pool_known *ret_known, uint32_t max)
{
	struct known k = {.list = ret_known, .max = max};
	int rc = record_scan_devices(kv, note_known, &k);

	k.retired = true;
	if (rc == 0)
		rc = record_scan_devices(kv, note_known, &k);
	return rc < 0 ? rc : (int)k.count;
}
