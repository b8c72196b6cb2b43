/* open: what devices there are, when the pool opens, and what lies on them. See pool.h.
 *
 *   records from kv -> PROBE (each disk: no two may be the same) -> PROBE (each disk again)
 *     -> WIPE (one that was retired, and not wiped) | FORMAT (an empty one) | OPEN (its store)
 *     -> ... -> RECORD (which devices there are) -> EQUAL (fences)
 *     -> MOVES (of each chunk that is on two devices the copy that does not count is erased)
 *     -> routes -> done
 *   an error: CLOSE (what is open) -> done
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
	OPEN_STORE,
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

struct opening {
	struct pool *pool;
	struct pool_open_op *op;
	enum open_step step;
	enum open_round round;
	uint32_t next;			     /* of the disks */
	struct uuid uuids[POOL_DEVICES_MAX]; /* of each, as it says; all zeroes: it says nothing */
	bool was_empty[POOL_DEVICES_MAX];
	struct pool_device *device; /* at work on it; not known to be one of ours before it opens */
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
	if (o->step == OPEN_STORE)
		store_abandon(o->work.open.impl);
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

static void fail(struct opening *o, int status)
{
	o->status = status;
	if (o->err.code == 0)
		error_set(&o->err, status, "%s", err_text(status));
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

/* The disk is not the node's, or of no use. */
static void leave_out(struct opening *o)
{
	struct pool_disk *disk = &o->op->disks[o->next];

	disk_close(disk->disk);
	disk->disk = NULL;
	disk_done(o);
}

/* It cannot be read: the others go on without it. */
static void unreadable(struct opening *o, int status)
{
	const struct pool_disk *disk = current(o);

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
	leave_out(o);
}

/* The node's own, and what it holds does not check: that is no reason for the others to stand
 * still. */
static void damaged(struct opening *o, int status)
{
	struct error err = o->work.err;

	error_wrap(&err, "device %s", current(o)->path);
	log_error("pool", "%s; the node goes on without it", err.text);
	o->device->state = POOL_DEVICE_FAILED;
	o->device->why = status;
	if (o->err.code == 0)
		o->err = err;
	leave_out(o);
}

static bool is_orphans_slot(const struct opening *o, uint32_t slot)
{
	for (uint32_t i = 0; i < o->orphan_count; i++)
		if (o->orphans[i].slot == slot)
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
	while (pool_uses_slot(o->pool, slot) || is_orphans_slot(o, slot))
		slot++;
	return slot;
}

static void open_store(struct opening *o)
{
	o->work.slot = o->device != NULL ? o->device->slot : new_slot(o);
	o->step = OPEN_STORE;
	device_open(&o->work);
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

static void store_opened(struct opening *o)
{
	struct pool_disk *disk = &o->op->disks[o->next];
	struct pool_device *d = o->device;

	if (d == NULL)
		d = pool_free_place(o->pool);
	if (d == NULL) {
		/* Cannot be: there are no more disks than places, and known ones were found. */
		o->pool->devices[0].store = o->work.store;
		fail(o, -E_LIMIT);
		return;
	}
	if (o->device == NULL)
		*d = (struct pool_device){.slot = o->work.slot};
	d->state = d->is_retiring ? POOL_DEVICE_RETIRING : POOL_DEVICE_SERVING;
	d->recorded = d->recorded && strcmp(d->path, disk->path) == 0;
	d->why = 0;
	d->uuid = *store_device(o->work.store);
	d->store = o->work.store;
	d->disk = disk->disk;
	disk->disk = NULL;
	memset(d->path, 0, sizeof d->path);
	memcpy(d->path, disk->path, MIN(strlen(disk->path), sizeof d->path - 1));
	disk_done(o);
}

static void worked(struct device_work *w, int status)
{
	struct opening *o = container_of(w, struct opening, work);

	if (status == -EIO) {
		unreadable(o, status);
		return;
	}
	if (status == -E_CORRUPT && o->step == OPEN_STORE && o->device != NULL) {
		damaged(o, status);
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
		open_store(o);
		return;
	case OPEN_STORE:
		store_opened(o);
		return;
	default:
		leave_out(o);
		return;
	}
}

/* -- all of them ------------------------------------------------------------------------------ */

static void disks_done(struct opening *o);

static void next_disk(struct opening *o)
{
	for (; o->next < o->op->disk_count; o->next++) {
		const struct pool_disk *disk = current(o);

		if (disk->disk == NULL && o->round == ROUND_LOOK && disk->why < 0) {
			unreadable(o, disk->why);
			return;
		}
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
	if (o->round != ROUND_EMPTY) {
		o->round = o->round == ROUND_LOOK ? ROUND_OPEN : ROUND_EMPTY;
		o->next = 0;
		next_disk(o);
		return;
	}
	disks_done(o);
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

/* -- routes ----------------------------------------------------------------------------------- */

struct placing {
	struct opening *o;
	struct pool_device *d;
	int status;
};

static bool is_kept_loser(const struct pool *pool, const struct pool_device *d, volume_id_t volume,
			  chunk_no_t chunk)
{
	for (uint32_t i = 0; i < pool->kept_count; i++) {
		const struct move_record *r = &pool->kept[i];
		const struct uuid *loser = r->state == MOVE_COPYING ? &r->to : &r->from;

		if (r->volume == volume && r->chunk == chunk &&
		    memcmp(loser, &d->uuid, sizeof *loser) == 0)
			return true;
	}
	return false;
}

static int take_chunk(volume_id_t volume, chunk_no_t chunk, void *arg)
{
	struct placing *p = arg;
	struct pool *pool = p->o->pool;
	const struct route *r = routes_find(&pool->routes, volume, chunk);

	if (is_kept_loser(pool, p->d, volume, chunk))
		return 0;
	if (r != NULL && p->d->store == NULL)
		return 0; /* what the index of an absent device says may be old */
	if (r != NULL) {
		p->status = error_set(&p->o->err, -E_CORRUPT,
				      "chunk %u of volume %llu is on %s and on %s, and no record "
				      "says which copy counts",
				      chunk, (unsigned long long)volume,
				      pool->devices[r->place].path, p->d->path);
		return p->status;
	}
	if (pool_add_route(pool, volume, chunk, p->d) == NULL)
		p->status = -ENOMEM;
	return p->status;
}

static void place_volume(volume_id_t volume, generation_t generation, void *arg)
{
	struct store_chunk_state states[256];
	struct placing *p = arg;
	chunk_no_t from = 0;
	uint32_t count;

	(void)generation;
	do {
		count = store_chunks(p->d->store, volume, from, states, ARRAY_SIZE(states));
		for (uint32_t i = 0; i < count && p->status == 0; i++)
			take_chunk(volume, states[i].chunk, p);
		if (count > 0)
			from = states[count - 1].chunk + 1;
	} while (count == ARRAY_SIZE(states) && p->status == 0);
}

static void doubt_volume(volume_id_t volume, generation_t generation, void *arg)
{
	struct placing *p = arg;
	struct pool *pool = p->o->pool;
	volume_id_t *doubts;

	if (generation == 0)
		return;
	doubts = realloc(pool->doubts, (pool->doubt_count + 1) * sizeof *doubts);
	if (doubts == NULL) {
		p->status = -ENOMEM;
		return;
	}
	pool->doubts = doubts;
	doubts[pool->doubt_count++] = volume;
}

static int compare_volumes(const void *a, const void *b)
{
	const volume_id_t *va = a, *vb = b;

	return (*va > *vb) - (*va < *vb);
}

/* Fences are alike, so any device that is open knows every volume that was ever opened here. */
static int find_doubts(struct opening *o, struct pool_device *d)
{
	struct placing p = {.o = o, .d = d};

	store_each_volume(d->store, doubt_volume, &p);
	if (o->pool->doubts != NULL)
		qsort(o->pool->doubts, o->pool->doubt_count, sizeof *o->pool->doubts,
		      compare_volumes);
	return p.status;
}

static int place_chunks(struct opening *o)
{
	struct pool_device *open = NULL;
	struct pool *pool = o->pool;
	bool absent = false;

	for (uint32_t i = 0; i < POOL_DEVICES_MAX; i++) {
		struct placing p = {.o = o, .d = &pool->devices[i]};

		if (p.d->store == NULL)
			continue;
		open = p.d;
		store_each_volume(p.d->store, place_volume, &p);
		if (p.status < 0)
			return p.status;
	}
	for (uint32_t i = 0; i < POOL_DEVICES_MAX; i++) {
		struct placing p = {.o = o, .d = &pool->devices[i]};
		int rc;

		if (!device_is_absent(p.d))
			continue;
		absent = true;
		rc = record_scan_chunks(pool->kv, p.d->slot, pool->config.identity.shard,
					take_chunk, &p);
		if (rc < 0)
			return rc;
		log_error("pool",
			  "device %s is %s: what lies on it (%llu chunks, if not more) is answered "
			  "with errors",
			  p.d->path, pool_state_name(p.d->state),
			  (unsigned long long)p.d->chunk_count);
	}
	return absent ? find_doubts(o, open) : 0;
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
		o->status = place_chunks(o);
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
