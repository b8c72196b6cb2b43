/* What the pool keeps in kv (engine/pool/records.h): any key and value are refused or give records
 * within their bounds, and those are found again as they were. Input: which scan, the size of the
 * key, the key, the value. */
#include <string.h>

#include "engine/base/assert.h"
#include "engine/base/text.h"
#include "engine/pool/records.h"
#include "engine/store/format.h"
#include "tests/fuzz/fuzz.h"

#define KEY_MAX	  64u
#define VALUE_MAX 1024u

/* A kv of one pair, and its batch. */
struct pair_kv {
	struct kv head;
	uint8_t key[KEY_MAX], value[VALUE_MAX];
	size_t key_size, value_size;
	bool put;
};

static struct pair_kv *the_kv;

static void batch_put(struct kv_batch *b, uint32_t family, const void *key, size_t key_size,
		      const void *value, size_t value_size)
{
	(void)b;
	INVARIANT(family == STORE_KV_NODE && key_size <= KEY_MAX && value_size <= VALUE_MAX);
	memcpy(the_kv->key, key, key_size);
	memcpy(the_kv->value, value, value_size);
	the_kv->key_size = key_size;
	the_kv->value_size = value_size;
	the_kv->put = true;
}

static int scan(struct kv *kv, uint32_t family, const void *prefix, size_t prefix_size,
		int (*each)(const void *key, size_t key_size, const void *value, size_t value_size,
			    void *arg),
		void *arg)
{
	const struct pair_kv *p = (const struct pair_kv *)(void *)kv;

	(void)family;
	if (p->key_size < prefix_size || memcmp(p->key, prefix, prefix_size) != 0)
		return 0;
	return each(p->key, p->key_size, p->value, p->value_size, arg);
}

static const struct kv_ops pair_ops = {.batch_put = batch_put, .scan = scan};

/* Nobody looks into it. */
static struct kv_batch *any_batch(struct pair_kv *p)
{
	return (struct kv_batch *)(void *)p;
}

static int keep_device(const struct device_record *r, void *arg)
{
	INVARIANT(r->state > 0 && r->state < RECORD_STATES && r->slot < FORMAT_SLOTS_MAX);
	INVARIANT(memchr(r->path, '\0', sizeof r->path) != NULL);
	*(struct device_record *)arg = *r;
	return 1;
}

static int keep_move(const struct move_record *r, void *arg)
{
	INVARIANT(r->state > 0 && r->state < MOVE_STATES);
	*(struct move_record *)arg = *r;
	return 1;
}

static int see_slot(uint32_t slot, const struct uuid *device, void *arg)
{
	(void)device;
	(void)arg;
	INVARIANT(slot < 1024);
	return 0;
}

static int see_chunk(volume_id_t volume, chunk_no_t chunk, void *arg)
{
	(void)volume;
	(void)arg;
	INVARIANT(chunk != UINT32_MAX);
	return 0;
}

static void check_devices(struct pair_kv *p)
{
	struct device_record r, again;

	if (record_scan_devices(&p->head, keep_device, &r) != 1)
		return;
	record_put_device(&p->head, any_batch(p), &r);
	INVARIANT(p->put && record_scan_devices(&p->head, keep_device, &again) == 1);
	INVARIANT(uuid_equal(&r.uuid, &again.uuid) && r.state == again.state &&
		  r.slot == again.slot && strcmp(r.path, again.path) == 0);
}

static void check_moves(struct pair_kv *p)
{
	struct move_record r, again;

	if (record_scan_moves(&p->head, keep_move, &r) != 1)
		return;
	record_put_move(&p->head, any_batch(p), &r);
	INVARIANT(p->put && record_scan_moves(&p->head, keep_move, &again) == 1);
	INVARIANT(r.volume == again.volume && r.chunk == again.chunk && r.state == again.state &&
		  uuid_equal(&r.from, &again.from) && uuid_equal(&r.to, &again.to));
}

static void check_node(struct pair_kv *p)
{
	struct uuid node = {.bytes = {0}}, again;

	if (record_get_node(&p->head, &node) != 0 || uuid_equal(&node, &(struct uuid){{0}}))
		return;
	record_put_node(&p->head, any_batch(p), &node);
	INVARIANT(p->put && record_get_node(&p->head, &again) == 0 && uuid_equal(&node, &again));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct pair_kv p = {.head.ops = &pair_ops};

	if (size < 2)
		return 0;
	p.key_size = MIN(MIN((size_t)data[1], size - 2), (size_t)KEY_MAX);
	p.value_size = MIN(size - 2 - p.key_size, (size_t)VALUE_MAX);
	memcpy(p.key, data + 2, p.key_size);
	memcpy(p.value, data + 2 + p.key_size, p.value_size);
	the_kv = &p;
	switch (data[0] % 4) {
	case 0:
		check_devices(&p);
		break;
	case 1:
		check_moves(&p);
		break;
	case 2:
		record_scan_slots(&p.head, p.key_size % 2, see_slot, NULL);
		break;
	default:
		record_scan_chunks(&p.head, 0, 0, see_chunk, NULL);
		check_node(&p);
		break;
	}
	return 0;
}
