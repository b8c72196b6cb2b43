/* bays: see bays.h. */
#include "tests/sim/bays.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/assert.h"

#define KNOWN_MAX    128u
#define SMALL_SIZE   (96u << 20)
#define SLOW_MOVES   (512u * KIB) /* a second */
#define STREAM_PRIME 0xc2b2ae3d27d4eb4full

struct bay {
	struct sim_disk *disk;
	uint64_t size_bytes;
	const char *path;
	bool serving, retiring; /* when it was last looked */
	uint64_t moved_bytes;
};

struct bays {
	struct machine *node;
	uint32_t count, named;
	struct bay bays[BAYS_MAX];
	struct bay *away; /* or NULL */
	bool lost;	  /* for ever */
	uint64_t move_bytes_per_s;
	struct pool_add_op add;
	struct pool_retire_op retire;
};

bool bays_are_many(uint64_t seed)
{
	/* None of tests/sim/regressions, when this came. */
	const uint64_t x = seed % 13;

	return x == 4 || (x >= 7 && x <= 9);
}

/* -- made, booted ---------------------------------------------------------------------------- */

struct bays *bays_create(struct machine *node, bool volatile_cache)
{
	static const char *const paths[BAYS_MAX] = {"disk", "disk2", "disk3"};
	const uint64_t seed = node->cluster->world->seed;
	const uint64_t number = (uint64_t)(node - node->cluster->machines);
	/* Of its own: seeds with one device go on as they did before there were more. */
	const uint64_t draw = ((seed + 1) * STREAM_PRIME + number * 0x9e3779b97f4a7c15ull) >> 40;
	struct bays *b = calloc(1, sizeof(*b));

	INVARIANT(b != NULL);
	b->node = node;
	b->count = bays_are_many(seed) ? BAYS_MAX : 1;
	b->named = b->count > 1 && (draw & 1) != 0 ? 2 : 1;
	b->move_bytes_per_s = b->count > 1 && (draw & 2) != 0 ? SLOW_MOVES : 0;
	for (uint32_t i = 0; i < b->count; i++) {
		struct bay *bay = &b->bays[i];

		bay->path = paths[i];
		bay->size_bytes =
		    i > 0 && (draw & (2u << i)) != 0 ? SMALL_SIZE : CLUSTER_DEVICE_SIZE;
		bay->disk =
		    sim_disk_create(node->process, bay->path, bay->size_bytes, volatile_cache);
	}
	return b;
}

void bays_destroy(struct bays *b)
{
	free(b);
}

static struct bay *bay_named(struct bays *b, const char *path)
{
	for (uint32_t i = 0; i < b->count; i++)
		if (strcmp(b->bays[i].path, path) == 0)
			return &b->bays[i];
	return NULL;
}

static void offer(struct bays *b, struct pool_open_op *op, const char *path)
{
	struct bay *bay = bay_named(b, path);
	struct pool_disk *disk;

	INVARIANT(bay != NULL);
	for (uint32_t i = 0; i < op->disk_count; i++)
		if (op->disks[i].path == bay->path)
			return;
	disk = &op->disks[op->disk_count++];
	*disk = (struct pool_disk){.path = bay->path};
	if (bay == b->away)
		disk->why = -ENOENT;
	else
		disk->disk = sim_disk_open(bay->disk);
}

void bays_boot(struct bays *b, struct pool_open_op *op)
{
	static struct pool_known known[KNOWN_MAX];
	int count = 0;

	if (b->count > 1) {
		op->config.move_bytes_per_s = b->move_bytes_per_s;
		count = pool_list_known(op->config.kv, known, KNOWN_MAX);
	}
	for (uint32_t i = 0; i < b->named; i++)
		offer(b, op, b->bays[i].path);
	for (int i = 0; i < count; i++)
		if (!known[i].retired)
			offer(b, op, known[i].path);
}

void bays_node_crashed(struct bays *b)
{
	bays_look(b);
	for (uint32_t i = 0; i < b->count; i++)
		b->bays[i].moved_bytes = 0;
}

uint32_t bays_count(const struct bays *b)
{
	return b->count;
}

struct sim_disk *bays_disk(const struct bays *b, uint32_t i)
{
	PRE(i < b->count);
	return b->bays[i].disk;
}

uint64_t bays_size(const struct bays *b, uint32_t i)
{
	PRE(i < b->count);
	return b->bays[i].size_bytes;
}

void bays_set_slowness(struct bays *b, uint64_t factor)
{
	for (uint32_t i = 0; i < b->count; i++)
		sim_disk_set_slowness(b->bays[i].disk, factor);
}

/* -- looked at ------------------------------------------------------------------------------- */

/* NULL: the pool has no such device. */
static const struct pool_device_info *info_of(const struct pool_device_info *infos, uint32_t count,
					      const struct bay *bay)
{
	for (uint32_t i = 0; i < count; i++)
		if (strcmp(infos[i].path, bay->path) == 0)
			return &infos[i];
	return NULL;
}

void bays_check_opened(struct bays *b)
{
	struct pool_device_info infos[POOL_DEVICES_MAX];
	struct cluster *c = b->node->cluster;
	uint32_t count = pool_devices(b->node->node.pool, infos, POOL_DEVICES_MAX);

	for (uint32_t i = 0; i < count && b->count > 1; i++) {
		const struct pool_device_info *d = &infos[i];
		const bool away = b->away != NULL && strcmp(d->path, b->away->path) == 0;

		/* As for a node with one: I/O may fail, but what a device holds must open. */
		if (d->state == POOL_DEVICE_SERVING || d->state == POOL_DEVICE_RETIRING || away ||
		    (d->why == -EIO && c->stats.io_errors > 0))
			continue;
		cluster_fail(c, "I3: %s opens its device %s as one that is %s: %s",
			     b->node->process->name, d->path, pool_state_name(d->state),
			     err_name(d->why));
	}
	bays_look(b);
}

void bays_look(struct bays *b)
{
	struct pool_device_info infos[POOL_DEVICES_MAX];
	struct cluster *c = b->node->cluster;
	uint32_t count;

	if (b->node->node.pool == NULL || b->count == 1)
		return;
	count = pool_devices(b->node->node.pool, infos, POOL_DEVICES_MAX);
	for (uint32_t i = 0; i < b->count; i++) {
		struct bay *bay = &b->bays[i];
		const struct pool_device_info *d = info_of(infos, count, bay);

		if (d == NULL)
			c->stats.devices_retired += bay->retiring;
		else
			c->stats.device_blocks += (d->moved_bytes - bay->moved_bytes) / BLOCK_SIZE;
		bay->moved_bytes = d != NULL ? d->moved_bytes : 0;
		bay->serving = d != NULL && d->state == POOL_DEVICE_SERVING;
		bay->retiring = d != NULL && (d->state == POOL_DEVICE_RETIRING ||
					      (bay->retiring && d->state != POOL_DEVICE_SERVING));
	}
}

/* What is being emptied must become empty, unless what stays has no room for it. While a device is
 * lost, a chunk that was on the way to it or from it stays where it is (mover.c, may_move). */
bool bays_are_settled(const struct bays *b, char *why, size_t why_size)
{
	struct pool_device_info infos[POOL_DEVICES_MAX];
	const struct machine *m = b->node;
	uint64_t room = 0, waits = 0;
	uint32_t count;

	if (b->count == 1 || m->dead_for_ever || b->lost)
		return true;
	snprintf(why, why_size, "%s does not serve", m->process->name);
	if (m->node.pool == NULL)
		return false;
	count = pool_devices(m->node.pool, infos, POOL_DEVICES_MAX);
	for (uint32_t i = 0; i < count; i++) {
		if (infos[i].state == POOL_DEVICE_SERVING) {
			room += infos[i].free_bytes;
			continue;
		}
		waits += infos[i].live_bytes;
		snprintf(why, why_size, "%s's device %s is %s, with %lu chunks (%lu stuck)",
			 m->process->name, infos[i].path, pool_state_name(infos[i].state),
			 infos[i].chunks, infos[i].stuck);
		if (infos[i].state != POOL_DEVICE_RETIRING)
			return false;
		if (infos[i].chunks == 0)
			return false;
	}
	return waits == 0 || waits > room;
}

/* -- changed --------------------------------------------------------------------------------- */

/* Of the bays whose device is in that state (NONE: spare) the one that the draw falls on, or NULL.
 * others: devices that the pool must have beside it. */
static struct bay *choose(struct bays *b, enum pool_device_state state, uint32_t others,
			  uint64_t draw)
{
	struct pool_device_info infos[POOL_DEVICES_MAX];
	const uint32_t count = pool_devices(b->node->node.pool, infos, POOL_DEVICES_MAX);
	struct bay *found[BAYS_MAX];
	uint32_t found_count = 0;

	for (uint32_t i = 0; i < b->count; i++) {
		const struct pool_device_info *d = info_of(infos, count, &b->bays[i]);

		if ((d != NULL ? d->state : POOL_DEVICE_NONE) == state && &b->bays[i] != b->away)
			found[found_count++] = &b->bays[i];
	}
	if (found_count == 0 || (state != POOL_DEVICE_NONE && found_count <= others))
		return NULL;
	return found[draw % found_count];
}

static bool can_change(const struct bays *b)
{
	const struct machine *m = b->node;

	return m->process->alive && !m->process->paused && m->node.pool != NULL &&
	       !pool_is_changing(m->node.pool);
}

static void told(const struct bays *b, const char *what, int status, const struct error *err)
{
	sim_trace(b->node->cluster->world, b->node->process, "%s: %s%s%s", what, err_name(status),
		  err != NULL ? ": " : "", err != NULL ? err->text : "");
}

static void added(struct pool_add_op *op, int status, const struct error *err)
{
	struct bays *b = container_of(op, struct bays, add);

	b->node->cluster->stats.devices_added += status == 0;
	told(b, "a device is added", status, err);
}

bool bays_add(struct bays *b, uint64_t draw)
{
	struct bay *bay = can_change(b) ? choose(b, POOL_DEVICE_NONE, 0, draw) : NULL;

	if (bay == NULL)
		return false;
	bays_look(b);
	sim_trace(b->node->cluster->world, b->node->process, "adds device %s", bay->path);
	b->add = (struct pool_add_op){
	    .done = added, .disk = sim_disk_open(bay->disk), .path = bay->path};
	pool_add(b->node->node.pool, &b->add);
	return true;
}

static void retiring(struct pool_retire_op *op, int status, const struct error *err)
{
	told(container_of(op, struct bays, retire), "a device is to be retired", status, err);
}

bool bays_retire(struct bays *b, uint64_t draw)
{
	struct bay *bay = can_change(b) ? choose(b, POOL_DEVICE_SERVING, 1, draw) : NULL;

	if (bay == NULL)
		return false;
	bays_look(b);
	sim_trace(b->node->cluster->world, b->node->process, "retires device %s", bay->path);
	b->retire = (struct pool_retire_op){.done = retiring, .path = bay->path};
	pool_retire(b->node->node.pool, &b->retire);
	return true;
}

bool bays_take_away(struct bays *b, uint64_t draw)
{
	const enum pool_device_state state =
	    draw % 3 == 0 ? POOL_DEVICE_RETIRING : POOL_DEVICE_SERVING;
	struct bay *bay;

	if (!can_change(b) || b->away != NULL || choose(b, POOL_DEVICE_SERVING, 0, 0) == NULL)
		return false;
	bay = choose(b, state, state == POOL_DEVICE_SERVING ? 1 : 0, draw / 3);
	if (bay == NULL)
		return false;
	sim_trace(b->node->cluster->world, b->node->process, "device %s is away", bay->path);
	b->away = bay;
	return true;
}

bool bays_give_back(struct bays *b)
{
	if (b->away == NULL || b->lost)
		return false;
	sim_trace(b->node->cluster->world, b->node->process, "device %s is back", b->away->path);
	b->away = NULL;
	return true;
}

bool bays_lose(struct bays *b, uint64_t draw)
{
	struct bay *found[BAYS_MAX];
	uint32_t count = 0;

	bays_look(b);
	for (uint32_t i = 0; i < b->count; i++)
		if (b->bays[i].serving)
			found[count++] = &b->bays[i];
	if (count < 2)
		return false;
	b->away = found[draw % count];
	b->lost = true;
	sim_trace(b->node->cluster->world, b->node->process, "device %s is lost for ever",
		  b->away->path);
	return true;
}

bool bays_have_lost(const struct bays *b)
{
	return b->lost;
}
