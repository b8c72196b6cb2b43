/* etcd_batch: batches of the register on etcd as bytes, and values out of their parts. See
 * etcd_core.h.
 *
 * A batch keeps its operations in order, the last one on a key only: etcd refuses a transaction
 * that touches a key twice. A range to be deleted is a piece by itself, for the same reason.
 *
 * A piece: operations one after the other, each
 *   type 1, from_size 2, to_size 2, value_size 4 (little-endian), from, to, value
 * with whole keys of etcd's. A part of a value begins with PART_FORMAT and the number of parts (2).
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define HASH_NONFATAL_OOM 1
#include <uthash.h>

#include "engine/base/assert.h"
#include "engine/kv/etcd_core.h"

#define PART_FORMAT	 1u
#define PART_HEADER_SIZE 3u
#define OP_HEADER_SIZE	 9u

enum op_type { OP_VOID, OP_PUT, OP_DELETE, OP_DELETE_RANGE };

struct op {
	enum op_type type;
	uint32_t family;
	size_t key_size, to_size, value_size;
	struct op *next;
	UT_hash_handle hh;
	uint8_t data[]; /* family as a byte, key, to, value; the first two are the hash's key */
};

struct kv_batch {
	struct op *first, **end;
	struct op *keys; /* since the last range */
	bool failed;	 /* no memory */
};

/* -- bytes ------------------------------------------------------------------------------------ */

void etcd_bytes_add(struct etcd_bytes *b, const void *data, size_t size)
{
	if (b->size + size > b->room) {
		const size_t room = MAX((b->size + size) * 2, (size_t)256);
		uint8_t *larger = b->failed ? NULL : realloc(b->data, room);

		if (larger == NULL) {
			b->failed = true;
			return;
		}
		b->data = larger;
		b->room = room;
	}
	if (size > 0)
		memcpy(b->data + b->size, data, size);
	b->size += size;
}

void etcd_bytes_deinit(struct etcd_bytes *b)
{
	free(b->data);
	*b = (struct etcd_bytes){.data = NULL};
}

static void put_le(uint8_t *p, uint32_t value, unsigned size)
{
	for (unsigned i = 0; i < size; i++)
		p[i] = (uint8_t)(value >> (8 * i));
}

static uint32_t get_le(const uint8_t *p, unsigned size)
{
	uint32_t value = 0;

	for (unsigned i = 0; i < size; i++)
		value |= (uint32_t)p[i] << (8 * i);
	return value;
}

/* -- batches ---------------------------------------------------------------------------------- */

struct kv_batch *etcd_batch_create(struct kv *kv)
{
	struct kv_batch *b = calloc(1, sizeof *b);

	(void)kv;
	if (b != NULL)
		b->end = &b->first;
	return b;
}

void etcd_batch_destroy(struct kv_batch *b)
{
	struct op *op, *next;

	HASH_CLEAR(hh, b->keys);
	for (op = b->first; op != NULL; op = next) {
		next = op->next;
		free(op);
	}
	free(b);
}

static struct op *op_create(struct kv_batch *b, enum op_type type, uint32_t family, const void *key,
			    size_t key_size, size_t more)
{
	struct op *op = calloc(1, sizeof *op + 1 + key_size + more);

	PRE(family < KV_FAMILIES_MAX && key_size <= 64);
	if (op == NULL) {
		b->failed = true;
		return NULL;
	}
	op->type = type;
	op->family = family;
	op->key_size = key_size;
	op->data[0] = (uint8_t)family;
	memcpy(op->data + 1, key, key_size);
	*b->end = op;
	b->end = &op->next;
	return op;
}

/* An earlier operation on the same key is of no use any more. */
static void replace(struct kv_batch *b, struct op *op)
{
	struct op *old = NULL;

	HASH_FIND(hh, b->keys, op->data, 1 + op->key_size, old);
	if (old != NULL) {
		HASH_DEL(b->keys, old);
		old->type = OP_VOID;
	}
	HASH_ADD_KEYPTR(hh, b->keys, op->data, 1 + op->key_size, op);
	if (op->hh.tbl == NULL)
		b->failed = true;
}

void etcd_batch_put(struct kv_batch *b, uint32_t family, const void *key, size_t key_size,
		    const void *value, size_t value_size)
{
	struct op *op = op_create(b, OP_PUT, family, key, key_size, value_size);

	if (op == NULL)
		return;
	op->value_size = value_size;
	if (value_size > 0)
		memcpy(op->data + 1 + key_size, value, value_size);
	replace(b, op);
}

void etcd_batch_delete(struct kv_batch *b, uint32_t family, const void *key, size_t key_size)
{
	struct op *op = op_create(b, OP_DELETE, family, key, key_size, 0);

	if (op != NULL)
		replace(b, op);
}

void etcd_batch_delete_range(struct kv_batch *b, uint32_t family, const void *from,
			     size_t from_size, const void *to, size_t to_size)
{
	struct op *op = op_create(b, OP_DELETE_RANGE, family, from, from_size, to_size);

	if (op == NULL)
		return;
	op->to_size = to_size;
	memcpy(op->data + 1 + from_size, to, to_size);
	HASH_CLEAR(hh, b->keys);
}

/* -- pieces ----------------------------------------------------------------------------------- */

size_t etcd_part_key(uint8_t ret[ETCD_KEY_MAX], const char *prefix, uint32_t family,
		     const void *key, size_t key_size, uint32_t part)
{
	const size_t size = strlen(prefix);
	uint8_t *at = ret + size;

	PRE(size <= ETCD_PREFIX_MAX && family < KV_FAMILIES_MAX && key_size <= 64);
	memcpy(ret, prefix, size);
	*at++ = 'f';
	*at++ = (uint8_t)('0' + family);
	*at++ = '/';
	if (key_size > 0)
		memcpy(at, key, key_size);
	at += key_size;
	*at++ = 0;
	*at++ = (uint8_t)(part >> 8);
	*at++ = (uint8_t)part;
	return (size_t)(at - ret);
}

void etcd_pieces_deinit(struct etcd_pieces *p)
{
	for (size_t i = 0; i < p->count; i++)
		etcd_bytes_deinit(&p->list[i].bytes);
	free(p->list);
	*p = (struct etcd_pieces){.list = NULL};
}

/* The piece that has room for so many bytes more. NULL: no memory. */
static struct etcd_piece *piece_for(struct etcd_pieces *p, size_t size, bool fresh)
{
	struct etcd_piece *last = p->count > 0 ? &p->list[p->count - 1] : NULL;

	if (!fresh && last != NULL && last->ops < ETCD_PIECE_OPS &&
	    last->bytes.size + size <= ETCD_PIECE_BYTES)
		return last;
	if (p->count == p->room) {
		const size_t room = p->room * 2 + 4;
		struct etcd_piece *larger = realloc(p->list, room * sizeof *larger);

		if (larger == NULL)
			return NULL;
		p->list = larger;
		p->room = room;
	}
	last = &p->list[p->count++];
	*last = (struct etcd_piece){.ops = 0};
	return last;
}

struct encoded {
	enum op_type type;
	const uint8_t *from, *to, *head, *value;
	size_t from_size, to_size, head_size, value_size;
};

static int add(struct etcd_pieces *p, const struct encoded *e, bool fresh)
{
	const size_t value_size = e->head_size + e->value_size;
	struct etcd_piece *piece =
	    piece_for(p, OP_HEADER_SIZE + e->from_size + e->to_size + value_size, fresh);
	uint8_t header[OP_HEADER_SIZE];

	if (piece == NULL)
		return -ENOMEM;
	header[0] = (uint8_t)e->type;
	put_le(header + 1, (uint32_t)e->from_size, 2);
	put_le(header + 3, (uint32_t)e->to_size, 2);
	put_le(header + 5, (uint32_t)value_size, 4);
	etcd_bytes_add(&piece->bytes, header, sizeof header);
	etcd_bytes_add(&piece->bytes, e->from, e->from_size);
	etcd_bytes_add(&piece->bytes, e->to, e->to_size);
	etcd_bytes_add(&piece->bytes, e->head, e->head_size);
	etcd_bytes_add(&piece->bytes, e->value, e->value_size);
	piece->ops++;
	return piece->bytes.failed ? -ENOMEM : 0;
}

static int add_put(struct etcd_pieces *p, const char *prefix, const struct op *op)
{
	const uint8_t *value = op->data + 1 + op->key_size;
	const size_t parts =
	    MAX((op->value_size + ETCD_PART_BYTES - 1) / ETCD_PART_BYTES, (size_t)1);
	uint8_t key[ETCD_KEY_MAX], head[PART_HEADER_SIZE] = {PART_FORMAT};
	int rc = parts <= ETCD_PARTS_MAX ? 0 : -E_LIMIT;

	put_le(head + 1, (uint32_t)parts, 2);
	for (size_t i = 0; rc == 0 && i < parts; i++) {
		const size_t at = i * ETCD_PART_BYTES;
		struct encoded e = {
		    .type = OP_PUT,
		    .from = key,
		    .from_size = etcd_part_key(key, prefix, op->family, op->data + 1, op->key_size,
					       (uint32_t)i),
		    .to = key,
		    .head = head,
		    .head_size = sizeof head,
		    .value = value + at,
		    .value_size = MIN(op->value_size - at, (size_t)ETCD_PART_BYTES)};

		rc = add(p, &e, false);
	}
	return rc;
}

static int add_delete(struct etcd_pieces *p, const char *prefix, const struct op *op)
{
	const bool range = op->type == OP_DELETE_RANGE;
	uint8_t from[ETCD_KEY_MAX], to[ETCD_KEY_MAX];
	struct encoded e = {.type = OP_DELETE, .from = from, .to = to, .head = to, .value = to};

	e.from_size = etcd_part_key(from, prefix, op->family, op->data + 1, op->key_size, 0);
	if (range) {
		e.to_size = etcd_part_key(to, prefix, op->family, op->data + 1 + op->key_size,
					  op->to_size, 0);
	} else {
		/* All its parts: up to KEY 01. */
		e.to_size = etcd_part_key(to, prefix, op->family, op->data + 1, op->key_size, 0);
		to[e.to_size - 3] = 1;
	}
	return add(p, &e, range);
}

int etcd_batch_pieces(const struct kv_batch *b, const char *prefix, struct etcd_pieces *ret)
{
	struct etcd_pieces p = {.list = NULL};
	bool alone = false; /* what comes next begins a piece */
	int rc = b->failed ? -ENOMEM : 0;

	for (const struct op *op = b->first; rc == 0 && op != NULL; op = op->next) {
		if (op->type == OP_VOID)
			continue;
		if (alone && piece_for(&p, 0, true) == NULL)
			rc = -ENOMEM;
		else if (op->type == OP_PUT)
			rc = add_put(&p, prefix, op);
		else
			rc = add_delete(&p, prefix, op);
		alone = op->type == OP_DELETE_RANGE;
	}
	if (rc == 0)
		*ret = p;
	else
		etcd_pieces_deinit(&p);
	return rc;
}

int etcd_piece_fill(const void *data, size_t size, struct etcd_txn *t)
{
	const uint8_t *at = data;
	const uint8_t *const end = at + size;

	while (at < end) {
		size_t from_size, to_size, value_size;
		uint8_t type;

		if ((size_t)(end - at) < OP_HEADER_SIZE)
			return -E_CORRUPT;
		type = at[0];
		from_size = get_le(at + 1, 2);
		to_size = get_le(at + 3, 2);
		value_size = get_le(at + 5, 4);
		at += OP_HEADER_SIZE;
		if ((size_t)(end - at) < from_size + to_size + value_size)
			return -E_CORRUPT;
		if (type == OP_PUT)
			etcd_txn_put(t, at, from_size, at + from_size + to_size, value_size, 0);
		else if (type == OP_DELETE)
			etcd_txn_delete(t, at, from_size, at + from_size, to_size);
		else
			return -E_CORRUPT;
		at += from_size + to_size + value_size;
	}
	return 0;
}

/* -- values out of their parts ---------------------------------------------------------------- */

void etcd_image_deinit(struct etcd_image *m)
{
	for (size_t i = 0; i < m->count; i++)
		free(m->list[i].data);
	free(m->list);
	*m = (struct etcd_image){.list = NULL};
}

static int image_append(struct etcd_image *m, uint32_t family, const uint8_t *key, size_t key_size,
			const uint8_t *value, size_t value_size)
{
	struct etcd_record *r;

	if (m->count == m->room) {
		const size_t room = m->room * 2 + 64;
		struct etcd_record *larger = realloc(m->list, room * sizeof *larger);

		if (larger == NULL)
			return -ENOMEM;
		m->list = larger;
		m->room = room;
	}
	r = &m->list[m->count];
	*r = (struct etcd_record){family, key_size, value_size, malloc(key_size + value_size + 1)};
	if (r->data == NULL)
		return -ENOMEM;
	memcpy(r->data, key, key_size);
	memcpy(r->data + key_size, value, value_size);
	m->count++;
	return 0;
}

static int image_extend(struct etcd_image *m, const uint8_t *value, size_t value_size)
{
	struct etcd_record *r = &m->list[m->count - 1];
	uint8_t *larger = realloc(r->data, r->key_size + r->value_size + value_size + 1);

	if (larger == NULL)
		return -ENOMEM;
	memcpy(larger + r->key_size + r->value_size, value, value_size);
	r->data = larger;
	r->value_size += value_size;
	m->parts_left--;
	return 0;
}

int etcd_image_add(struct etcd_image *m, const char *prefix, const struct etcd_pair *pair)
{
	const size_t prefix_size = strlen(prefix);
	const size_t frame = prefix_size + 3 + 3; /* f<I>/ and 00 PPPP */
	const uint8_t *key = pair->key + prefix_size + 3, *tail;
	const struct etcd_record *last = m->count > 0 ? &m->list[m->count - 1] : NULL;
	size_t key_size;
	uint32_t family, part, parts;
	bool same;

	if (pair->key_size < frame || pair->value_size < PART_HEADER_SIZE ||
	    pair->value[0] != PART_FORMAT || pair->key[prefix_size] != 'f')
		return -E_CORRUPT;
	family = (uint32_t)(pair->key[prefix_size + 1] - '0');
	key_size = pair->key_size - frame;
	tail = key + key_size;
	part = (uint32_t)tail[1] << 8 | tail[2];
	parts = get_le(pair->value + 1, 2);
	if (family >= KV_FAMILIES_MAX || tail[0] != 0 || parts == 0)
		return -E_CORRUPT;
	same = last != NULL && last->family == family && last->key_size == key_size &&
	       memcmp(last->data, key, key_size) == 0;
	if (part == 0) {
		if (m->parts_left != 0)
			return -E_CORRUPT;
		m->parts_left = parts - 1;
		return image_append(m, family, key, key_size, pair->value + PART_HEADER_SIZE,
				    pair->value_size - PART_HEADER_SIZE);
	}
	if (!same)
		return -E_CORRUPT;
	if (m->parts_left == 0)
		return 0; /* of a longer value that was there before */
	return image_extend(m, pair->value + PART_HEADER_SIZE, pair->value_size - PART_HEADER_SIZE);
}
