/* pool: life, places, and what is told about the devices. See pool.h, core.h.
 *
 * Closing: the mover lets go -> a change under way ends -> every store is closed, one after the
 * other -> the disks -> done. */
#include "engine/pool/pool.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/assert.h"
#include "engine/base/log.h"
#include "engine/pool/core.h"

/* What a chunk is taken for before it is filled: else all that are begun at once would go to the
 * same device. */
#define CHUNK_CLAIM_BYTES (16 * MIB)

const char *pool_state_name(enum pool_device_state state)
{
	static const char *const names[] = {
	    [POOL_DEVICE_NONE] = "none",       [POOL_DEVICE_JOINING] = "joining",
	    [POOL_DEVICE_SERVING] = "serving", [POOL_DEVICE_RETIRING] = "retiring",
	    [POOL_DEVICE_FAILED] = "failed",   [POOL_DEVICE_MISSING] = "missing",
	};

	return names[state];
}

/* -- devices ---------------------------------------------------------------------------------- */

struct pool_device *pool_find_device(struct pool *pool, const struct uuid *uuid)
{
	for (uint32_t i = 0; i < POOL_DEVICES_MAX; i++) {
		struct pool_device *d = &pool->devices[i];

		if (d->state != POOL_DEVICE_NONE && memcmp(&d->uuid, uuid, sizeof d->uuid) == 0)
			return d;
	}
	return NULL;
}

const struct uuid *pool_node(const struct pool *pool)
{
	return &pool->node;
}

struct pool_device *pool_free_place(struct pool *pool)
{
	for (uint32_t i = 0; i < POOL_DEVICES_MAX; i++)
		if (pool->devices[i].state == POOL_DEVICE_NONE)
			return &pool->devices[i];
	return NULL;
}

bool pool_uses_slot(const struct pool *pool, uint32_t slot)
{
	for (uint32_t i = 0; i < POOL_DEVICES_MAX; i++)
		if (pool->devices[i].state != POOL_DEVICE_NONE && pool->devices[i].slot == slot)
			return true;
	return false;
}

uint32_t pool_free_slot(const struct pool *pool)
{
	uint32_t slot = 0;

	while (pool_uses_slot(pool, slot))
		slot++;
	return slot;
}

void pool_check_device(struct pool *pool, struct pool_device *d)
{
	int why = d->store != NULL ? store_failure(d->store) : 0;

	if (why == 0 || d->why != 0)
		return;
	log_error(
	    "pool",
	    "device %s has failed: %s; what lies on it (%llu chunks) is answered with errors, "
	    "the other devices go on",
	    d->path, err_text(why), (unsigned long long)d->chunk_count);
	d->why = why;
	if (d->state != POOL_DEVICE_RETIRING)
		d->state = POOL_DEVICE_FAILED;
	mover_kick(pool);
}

int pool_status(struct pool *pool, struct pool_device *d, int status)
{
	if (status >= 0 || d->store == NULL)
		return status;
	pool_check_device(pool, d);
	return d->why != 0 && status == d->why ? -E_DEVICE : status;
}

/* Thousandths of the device that are free. */
static int64_t free_share(const struct pool_device *d)
{
	struct store_stats s;
	int64_t used;

	store_get_stats(d->store, &s);
	used = (int64_t)MAX(s.live_bytes, d->chunk_count * CHUNK_CLAIM_BYTES);
	/* One that is full is the last choice, whatever else is said of it. */
	if (s.free_bytes == 0)
		return INT64_MIN + 1;
	return ((int64_t)s.size_bytes - used) / (int64_t)MAX(s.size_bytes / 1000, 1u);
}

struct pool_device *pool_choose(struct pool *pool, const struct pool_device *but)
{
	struct pool_device *best = NULL;
	int64_t best_share = INT64_MIN;

	for (uint32_t i = 0; i < POOL_DEVICES_MAX; i++) {
		struct pool_device *d = &pool->devices[i];
		int64_t share;

		if (d->state != POOL_DEVICE_SERVING || d == but)
			continue;
		pool_check_device(pool, d);
		if (d->state != POOL_DEVICE_SERVING)
			continue;
		share = free_share(d);
		if (share > best_share) {
			best_share = share;
			best = d;
		}
	}
	return best;
}

/* -- routes ----------------------------------------------------------------------------------- */

struct route *pool_add_route(struct pool *pool, volume_id_t volume, chunk_no_t chunk,
			     struct pool_device *d)
{
	struct route *r = routes_add(&pool->routes, volume, chunk, pool_place(pool, d));

	if (r != NULL)
		d->chunk_count++;
	return r;
}

void pool_settle_route(struct pool *pool, struct route *r)
{
	struct pool_device *d = &pool->devices[r->place];

	if (!route_is_quiet(r) || r->held || pool->mover.route == r || d->store == NULL ||
	    store_has_chunk(d->store, r->volume, r->chunk))
		return;
	d->chunk_count--;
	routes_remove(&pool->routes, r);
	if (d->state == POOL_DEVICE_RETIRING)
		mover_kick(pool);
}

int pool_keep_move(struct pool *pool, const struct move_record *r)
{
	struct move_record *kept = realloc(pool->kept, (pool->kept_count + 1) * sizeof *pool->kept);

	if (kept == NULL)
		return -ENOMEM;
	pool->kept = kept;
	kept[pool->kept_count++] = *r;
	return 0;
}

void pool_forget_moves(struct pool *pool, struct kv_batch *batch, const struct uuid *device)
{
	uint32_t left = 0;

	for (uint32_t i = 0; i < pool->kept_count; i++) {
		struct move_record r = pool->kept[i];
		const struct uuid *loser = r.state == MOVE_COPYING ? &r.to : &r.from;

		if (memcmp(loser, device, sizeof *loser) == 0)
			record_delete_move(pool->kv, batch, r.volume, r.chunk);
		else
			pool->kept[left++] = r;
	}
	pool->kept_count = left;
}

void pool_break(struct pool *pool, int status)
{
	if (pool->broken != 0)
		return;
	pool->broken = status;
	log_error("pool", "the index cannot be written: %s; no more changes are taken",
		  err_text(status));
}

/* -- closing ---------------------------------------------------------------------------------- */

static void pool_free(struct pool *pool)
{
	mover_deinit(pool);
	routes_deinit(&pool->routes);
	free(pool->kept);
	change_deinit(pool);
	free(pool);
}

void pool_abandon(struct pool *pool)
{
	if (pool == NULL)
		return;
	opening_abandon(pool);
	change_abandon(pool);
	for (uint32_t i = 0; i < POOL_DEVICES_MAX; i++)
		store_abandon(pool->devices[i].store);
	ops_free_fans(pool);
	pool_free(pool);
}

void pool_kick_closing(struct pool *pool)
{
	if (pool->closing != NULL && !pool->closing->waiting)
		reactor_defer(pool->reactor, &pool->closing->task);
}

static void store_closed(void *arg)
{
	struct pool *pool = arg;

	pool->closing->waiting = false;
	pool->devices[pool->closing->place].store = NULL;
	pool_kick_closing(pool);
}

static void closing_run(struct reactor_task *task)
{
	struct closing *c = container_of(task, struct closing, task);
	struct pool *pool = c->pool;
	void (*done)(void *arg) = c->done;
	void *arg = c->arg;

	if (pool->ops > 0 || !mover_is_idle(&pool->mover) || pool->mover.task.queued ||
	    pool->finish_task.queued)
		return; /* pool_end comes again */
	for (; c->place < POOL_DEVICES_MAX; c->place++) {
		struct pool_device *d = &pool->devices[c->place];

		if (d->store == NULL)
			continue;
		c->waiting = true;
		store_close(d->store, store_closed, pool);
		return;
	}
	for (uint32_t i = 0; i < POOL_DEVICES_MAX; i++)
		disk_close(pool->devices[i].disk);
	pool_free(pool);
	done(arg);
}

void pool_close(struct pool *pool, void (*done)(void *arg), void *arg)
{
	struct closing *c = &pool->closing_memory;

	PRE(pool->closing == NULL);
	*c = (struct closing){.pool = pool, .done = done, .arg = arg, .task = {.run = closing_run}};
	pool->closing = c;
	mover_pause(pool);
	pool_wipe_stop(pool);
	pool_kick_closing(pool);
}

void pool_begin(struct pool *pool)
{
	pool->ops++;
}

void pool_end(struct pool *pool)
{
	PRE(pool->ops > 0);
	pool->ops--;
	pool_kick_closing(pool);
}

/* -- what is told ----------------------------------------------------------------------------- */

/* A pass of the node is over when each device has had one. */
static void add_scrub(struct store_scrub_stats *sum, const struct store_scrub_stats *s, bool first)
{
	sum->running = sum->running || s->running;
	sum->period_s = s->period_s;
	sum->passes = first ? s->passes : MIN(sum->passes, s->passes);
	sum->started_at =
	    sum->started_at == 0 ? s->started_at : MIN(sum->started_at, s->started_at);
	sum->finished_at = MAX(sum->finished_at, s->finished_at);
	sum->total_bytes += s->total_bytes;
	sum->done_bytes += s->done_bytes;
	sum->rate += s->rate;
	sum->found += s->found;
	sum->repaired += s->repaired;
	sum->damaged += s->damaged;
	sum->needed_rate = MAX(sum->needed_rate, s->needed_rate);
	sum->max_rate = MAX(sum->max_rate, s->max_rate);
}

static void add_stats(struct store_stats *sum, const struct store_stats *s, bool first)
{
	add_scrub(&sum->scrub, &s->scrub, first);
	sum->size_bytes += s->size_bytes;
	sum->live_bytes += s->live_bytes;
	sum->free_bytes += s->free_bytes;
	sum->reserve_bytes += s->reserve_bytes;
	sum->writes += s->writes;
	sum->blocks_written += s->blocks_written;
	sum->groups += s->groups;
	sum->group_bytes += s->group_bytes;
	sum->reads += s->reads;
	sum->blocks_read += s->blocks_read;
	sum->cleaned_segments += s->cleaned_segments;
	sum->moved_blocks += s->moved_blocks;
	sum->tidied_blocks += s->tidied_blocks;
	sum->checkpoints += s->checkpoints;
	sum->releases += s->releases;
	sum->recovered_groups += s->recovered_groups;
	sum->recovered_bytes += s->recovered_bytes;
	sum->recovery_ms += s->recovery_ms;
	sum->bad_blocks += s->bad_blocks;
	sum->memory_bytes += s->memory_bytes;
	sum->index_pages += s->index_pages;
	sum->index_pages_loaded += s->index_pages_loaded;
	sum->index_reads += s->index_reads;
	sum->index_errors += s->index_errors;
	sum->index_evictions += s->index_evictions;
	sum->wiped_segments += s->wiped_segments;
	sum->wiping_segments += s->wiping_segments;
}

int pool_broken(const struct pool *pool)
{
	return pool->broken;
}

void pool_get_stats(const struct pool *pool, struct store_stats *ret_stats)
{
	bool first = true;

	*ret_stats = (struct store_stats){0};
	for (uint32_t i = 0; i < POOL_DEVICES_MAX; i++) {
		const struct pool_device *d = &pool->devices[i];
		struct store_stats s;

		if (d->store == NULL)
			continue;
		store_get_stats(d->store, &s);
		/* What nothing can be written to any more has no space to offer. */
		if (d->state != POOL_DEVICE_SERVING || store_failure(d->store) != 0) {
			s.size_bytes = s.live_bytes;
			s.free_bytes = 0;
			s.reserve_bytes = 0;
		}
		add_stats(ret_stats, &s, first);
		first = false;
	}
}

void pool_scrub(struct pool *pool)
{
	for (uint32_t i = 0; i < POOL_DEVICES_MAX; i++)
		if (pool->devices[i].store != NULL)
			store_scrub(pool->devices[i].store);
}

uint32_t pool_damage(const struct pool *pool, struct store_damage *ret_damage, uint32_t max)
{
	uint32_t count = 0;

	for (uint32_t i = 0; i < POOL_DEVICES_MAX && count < max; i++)
		if (pool->devices[i].store != NULL)
			count +=
			    store_damage(pool->devices[i].store, ret_damage + count, max - count);
	return count;
}

void pool_watch_damage(struct pool *pool, struct reactor_task *task)
{
	pool->damage_task = task;
	for (uint32_t i = 0; i < POOL_DEVICES_MAX; i++)
		if (pool->devices[i].store != NULL)
			store_watch_damage(pool->devices[i].store, task);
}

uint32_t pool_devices(const struct pool *pool, struct pool_device_info *ret_infos, uint32_t max)
{
	uint32_t count = 0;

	for (uint32_t i = 0; i < POOL_DEVICES_MAX && count < max; i++) {
		const struct pool_device *d = &pool->devices[i];
		struct pool_device_info *info = &ret_infos[count];
		struct store_stats s = {0};

		if (d->state == POOL_DEVICE_NONE)
			continue;
		count++;
		if (d->store != NULL)
			store_get_stats(d->store, &s);
		*info = (struct pool_device_info){
		    .state = d->state,
		    .uuid = d->uuid,
		    .why = d->why,
		    .size_bytes = s.size_bytes,
		    .live_bytes = s.live_bytes,
		    .free_bytes = d->state == POOL_DEVICE_SERVING ? s.free_bytes : 0,
		    .chunks = d->chunk_count,
		    .moved_bytes = d->moved_bytes,
		    .stuck = d->stuck,
		    .read_errors = d->read_errors,
		    .bad_blocks = s.bad_blocks,
		};
		memcpy(info->path, d->path, sizeof info->path);
	}
	return count;
}

struct store *pool_store(const struct pool *pool, uint32_t i)
{
	for (uint32_t place = 0; place < POOL_DEVICES_MAX; place++)
		if (pool->devices[place].state != POOL_DEVICE_NONE && i-- == 0)
			return pool->devices[place].store;
	return NULL;
}

void pool_trouble(const struct pool *pool, char *buf, size_t size)
{
	struct pool_device_info infos[POOL_DEVICES_MAX];
	uint32_t count = pool_devices(pool, infos, POOL_DEVICES_MAX);
	size_t at = 0;

	PRE(size > 0);
	buf[0] = '\0';
	if (pool_broken(pool) != 0)
		at += (size_t)snprintf(buf, size,
				       "the index cannot be written, and no change of any chunk is "
				       "taken: %s; restart the node once that is mended",
				       err_text(pool_broken(pool)));
	for (uint32_t i = 0; i < count && at < size; i++) {
		const struct pool_device_info *info = &infos[i];

		if (info->why == 0 && info->stuck == 0)
			continue;
		at += (size_t)snprintf(buf + at, size - at, "%sdevice %s is %s%s%s",
				       at > 0 ? "; " : "", info->path, pool_state_name(info->state),
				       info->why != 0 ? ": " : ", and some of it cannot be moved",
				       info->why != 0 ? err_text(info->why) : "");
	}
}
