/* records: see records.h. */
#include "engine/pool/records.h"

#include <string.h>

#include "engine/store/format.h"

#define RECORD_VERSION 1u
#define RECORD_KEY_MAX 19u

static const uint8_t device_prefix[] = {0xff, 0xff, 'D'};
static const uint8_t node_key[] = {0xff, 0xff, 'N'};
static const uint8_t move_prefix[] = {0xff, 0xff, 'M'};

struct device_disk {
	uint8_t version;
	uint8_t state;
	uint16_t slot;
	char path[POOL_PATH_MAX];
};
_Static_assert(sizeof(struct device_disk) == 260, "a format");

struct move_disk {
	uint8_t version;
	uint8_t state;
	uint16_t reserved;
	struct uuid from, to;
};
_Static_assert(sizeof(struct move_disk) == 36, "a format");

struct node_disk {
	uint8_t version;
	uint8_t reserved[3];
	struct uuid node;
};
_Static_assert(sizeof(struct node_disk) == 20, "a format");

/* -- writing ---------------------------------------------------------------------------------- */

static size_t device_key(const struct uuid *uuid, uint8_t *ret_key)
{
	memcpy(ret_key, device_prefix, sizeof device_prefix);
	memcpy(ret_key + sizeof device_prefix, uuid->bytes, sizeof uuid->bytes);
	return sizeof device_prefix + sizeof uuid->bytes;
}

static size_t move_key(volume_id_t volume, chunk_no_t chunk, uint8_t *ret_key)
{
	uint8_t *p = ret_key + sizeof move_prefix;

	memcpy(ret_key, move_prefix, sizeof move_prefix);
	for (uint32_t i = 0; i < 8; i++)
		p[i] = (uint8_t)(volume >> (56 - 8 * i));
	for (uint32_t i = 0; i < 4; i++)
		p[8 + i] = (uint8_t)(chunk >> (24 - 8 * i));
	return sizeof move_prefix + 12;
}

void record_put_device(struct kv *kv, struct kv_batch *batch, const struct device_record *r)
{
	struct device_disk d = {
	    .version = RECORD_VERSION, .state = (uint8_t)r->state, .slot = (uint16_t)r->slot};
	uint8_t key[RECORD_KEY_MAX];
	size_t size = device_key(&r->uuid, key);

	memcpy(d.path, r->path, strnlen(r->path, sizeof d.path - 1));
	kv_batch_put(kv, batch, STORE_KV_NODE, key, size, &d, sizeof d);
}

void record_delete_device(struct kv *kv, struct kv_batch *batch, const struct uuid *uuid)
{
	uint8_t key[RECORD_KEY_MAX];
	size_t size = device_key(uuid, key);

	kv_batch_delete(kv, batch, STORE_KV_NODE, key, size);
}

void record_put_node(struct kv *kv, struct kv_batch *batch, const struct uuid *node)
{
	const struct node_disk d = {.version = RECORD_VERSION, .node = *node};

	kv_batch_put(kv, batch, STORE_KV_NODE, node_key, sizeof node_key, &d, sizeof d);
}

void record_put_move(struct kv *kv, struct kv_batch *batch, const struct move_record *r)
{
	struct move_disk d = {
	    .version = RECORD_VERSION, .state = (uint8_t)r->state, .from = r->from, .to = r->to};
	uint8_t key[RECORD_KEY_MAX];
	size_t size = move_key(r->volume, r->chunk, key);

	kv_batch_put(kv, batch, STORE_KV_NODE, key, size, &d, sizeof d);
}

void record_delete_move(struct kv *kv, struct kv_batch *batch, volume_id_t volume, chunk_no_t chunk)
{
	uint8_t key[RECORD_KEY_MAX];
	size_t size = move_key(volume, chunk, key);

	kv_batch_delete(kv, batch, STORE_KV_NODE, key, size);
}

void record_delete_store(struct kv *kv, struct kv_batch *batch, uint32_t slot, uint32_t shard)
{
	uint8_t from[FORMAT_KEY_MAX], to[FORMAT_KEY_MAX];
	size_t from_size = format_key_node(format_prefix(slot, shard), from);
	size_t to_size = format_key_node(format_prefix(slot, shard) + 1, to);

	for (uint32_t family = 0; family < STORE_KV_FAMILIES; family++)
		kv_batch_delete_range(kv, batch, family, from, from_size, to, to_size);
}

/* -- scanning --------------------------------------------------------------------------------- */

struct scan {
	int (*device)(const struct device_record *r, void *arg);
	int (*move)(const struct move_record *r, void *arg);
	int (*slot)(uint32_t slot, const struct uuid *device, void *arg);
	int (*chunk)(volume_id_t volume, chunk_no_t chunk, void *arg);
	uint32_t shard;
	void *arg;
};

static int scan_device(const void *key, size_t key_size, const void *value, size_t value_size,
		       void *arg)
{
	const struct scan *scan = arg;
	struct device_record r = {0};
	struct device_disk d;

	if (key_size != sizeof device_prefix + sizeof r.uuid.bytes || value_size != sizeof d)
		return -E_CORRUPT;
	memcpy(&d, value, sizeof d);
	if (d.version != RECORD_VERSION || d.state == 0 || d.state >= RECORD_STATES ||
	    d.slot >= FORMAT_SLOTS_MAX || d.path[sizeof d.path - 1] != '\0')
		return -E_CORRUPT;
	memcpy(r.uuid.bytes, (const uint8_t *)key + sizeof device_prefix, sizeof r.uuid.bytes);
	r.state = d.state;
	r.slot = d.slot;
	memcpy(r.path, d.path, sizeof r.path);
	return scan->device(&r, scan->arg);
}

int record_scan_devices(struct kv *kv, int (*each)(const struct device_record *r, void *arg),
			void *arg)
{
	struct scan scan = {.device = each, .arg = arg};

	return kv_scan(kv, STORE_KV_NODE, device_prefix, sizeof device_prefix, scan_device, &scan);
}

static int scan_node(const void *key, size_t key_size, const void *value, size_t value_size,
		     void *arg)
{
	struct uuid *node = arg;
	struct node_disk d;

	(void)key;
	if (key_size != sizeof node_key || value_size != sizeof d)
		return -E_CORRUPT;
	memcpy(&d, value, sizeof d);
	if (d.version != RECORD_VERSION)
		return -E_CORRUPT;
	*node = d.node;
	return 0;
}

int record_get_node(struct kv *kv, struct uuid *ret_node)
{
	return kv_scan(kv, STORE_KV_NODE, node_key, sizeof node_key, scan_node, ret_node);
}

static uint64_t get_be(const uint8_t *p, uint32_t bytes)
{
	uint64_t value = 0;

	for (uint32_t i = 0; i < bytes; i++)
		value = value << 8 | p[i];
	return value;
}

static int scan_move(const void *key, size_t key_size, const void *value, size_t value_size,
		     void *arg)
{
	const uint8_t *p = (const uint8_t *)key + sizeof move_prefix;
	const struct scan *scan = arg;
	struct move_record r;
	struct move_disk d;

	if (key_size != sizeof move_prefix + 12 || value_size != sizeof d)
		return -E_CORRUPT;
	memcpy(&d, value, sizeof d);
	if (d.version != RECORD_VERSION || d.state == 0 || d.state >= MOVE_STATES)
		return -E_CORRUPT;
	r = (struct move_record){.volume = get_be(p, 8),
				 .chunk = (chunk_no_t)get_be(p + 8, 4),
				 .state = d.state,
				 .from = d.from,
				 .to = d.to};
	return scan->move(&r, scan->arg);
}

int record_scan_moves(struct kv *kv, int (*each)(const struct move_record *r, void *arg), void *arg)
{
	struct scan scan = {.move = each, .arg = arg};

	return kv_scan(kv, STORE_KV_NODE, move_prefix, sizeof move_prefix, scan_move, &scan);
}

static int scan_slot(const void *key, size_t key_size, const void *value, size_t value_size,
		     void *arg)
{
	const struct scan *scan = arg;
	struct format_checkpoint checkpoint;
	uint32_t prefix;

	/* Those of the pool are not of a store. */
	if (key_size != 2)
		return 0;
	if (format_key_node_decode(key, key_size, &prefix) < 0 ||
	    format_checkpoint_decode(value, value_size, &checkpoint) < 0)
		return -E_CORRUPT;
	if (prefix % FORMAT_SHARDS_MAX != scan->shard)
		return 0;
	return scan->slot(prefix / FORMAT_SHARDS_MAX, &checkpoint.device, scan->arg);
}

int record_scan_slots(struct kv *kv, uint32_t shard,
		      int (*each)(uint32_t slot, const struct uuid *device, void *arg), void *arg)
{
	struct scan scan = {.slot = each, .shard = shard, .arg = arg};

	return kv_scan(kv, STORE_KV_NODE, "", 0, scan_slot, &scan);
}

static int scan_chunk(const void *key, size_t key_size, const void *value, size_t value_size,
		      void *arg)
{
	const struct scan *scan = arg;
	volume_id_t volume;
	chunk_no_t chunk;

	(void)value;
	(void)value_size;
	if (format_key_chunk_decode(key, key_size, &volume, &chunk) < 0)
		return -E_CORRUPT;
	return chunk != UINT32_MAX ? scan->chunk(volume, chunk, scan->arg) : 0;
}

int record_scan_chunks(struct kv *kv, uint32_t slot, uint32_t shard,
		       int (*each)(volume_id_t volume, chunk_no_t chunk, void *arg), void *arg)
{
	struct scan scan = {.chunk = each, .arg = arg};
	uint8_t prefix[FORMAT_KEY_MAX];
	size_t size = format_key_node(format_prefix(slot, shard), prefix);

	return kv_scan(kv, STORE_KV_REPLICAS, prefix, size, scan_chunk, &scan);
}
