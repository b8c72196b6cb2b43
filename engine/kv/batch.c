/* batch: see batch.h. */
#include "engine/kv/batch.h"

#include <stdlib.h>
#include <string.h>

#include "engine/base/assert.h"
#include "engine/base/types.h"

#define PIECE_SIZE (256 * KIB)

struct batch_piece {
	struct batch_piece *next;
	size_t size, used; /* of bytes */
	_Alignas(struct batch_record) uint8_t bytes[];
};

static size_t record_size(size_t key_size, size_t value_size)
{
	return ROUND_UP(sizeof(struct batch_record) + key_size + value_size,
			_Alignof(struct batch_record));
}

static struct batch_piece *piece_with(struct batch *b, size_t size)
{
	size_t bytes = MAX(size, PIECE_SIZE - sizeof(struct batch_piece));
	struct batch_piece *p = b->last;

	if (p != NULL && p->size - p->used >= size)
		return p;
	p = malloc(sizeof *p + bytes);
	if (p == NULL)
		return NULL;
	p->next = NULL;
	p->size = bytes;
	p->used = 0;
	if (b->last == NULL)
		b->first = p;
	else
		b->last->next = p;
	b->last = p;
	return p;
}

void batch_add(struct batch *b, enum batch_kind kind, uint32_t family, const void *key,
	       size_t key_size, const void *value, size_t value_size)
{
	size_t size = record_size(key_size, value_size);
	struct batch_piece *p = piece_with(b, size);
	struct batch_record *r;

	PRE(key_size <= UINT32_MAX && value_size <= UINT32_MAX);
	if (p == NULL) {
		b->failed = true;
		return;
	}
	r = (struct batch_record *)(void *)(p->bytes + p->used);
	r->seq = b->count++;
	r->family = family;
	r->key_size = (uint32_t)key_size;
	r->value_size = (uint32_t)value_size;
	r->kind = kind;
	memcpy(r->bytes, key, key_size);
	if (value_size > 0)
		memcpy(r->bytes + key_size, value, value_size);
	p->used += size;
}

/* -- visiting --------------------------------------------------------------------------------- */

static void each(const struct batch *b, void (*visit)(const struct batch_record *record, void *arg),
		 void *arg)
{
	for (const struct batch_piece *p = b->first; p != NULL; p = p->next)
		for (size_t at = 0; at < p->used;) {
			const struct batch_record *r =
			    (const struct batch_record *)(const void *)(p->bytes + at);

			visit(r, arg);
			at += record_size(r->key_size, r->value_size);
		}
}

static int by_key(const void *a, const void *b)
{
	const struct batch_record *ra = *(const struct batch_record *const *)a;
	const struct batch_record *rb = *(const struct batch_record *const *)b;
	int order;

	if (ra->family != rb->family)
		return ra->family < rb->family ? -1 : 1;
	order = memcmp(ra->bytes, rb->bytes, MIN(ra->key_size, rb->key_size));
	if (order != 0)
		return order;
	if (ra->key_size != rb->key_size)
		return ra->key_size < rb->key_size ? -1 : 1;
	return ra->seq < rb->seq ? -1 : 1;
}

struct sorting {
	const struct batch_record **records;
	size_t count; /* that wait to be visited, between two deletes of ranges */
	void (*visit)(const struct batch_record *record, void *arg);
	void *arg;
};

static void visit_sorted(struct sorting *s)
{
	qsort(s->records, s->count, sizeof(*s->records), by_key);
	for (size_t i = 0; i < s->count; i++)
		s->visit(s->records[i], s->arg);
	s->count = 0;
}

static void sort_one(const struct batch_record *r, void *arg)
{
	struct sorting *s = arg;

	if (r->kind == BATCH_DELETE_RANGE) {
		visit_sorted(s);
		s->visit(r, s->arg);
		return;
	}
	s->records[s->count++] = r;
}

void batch_visit(const struct batch *b, void (*visit)(const struct batch_record *record, void *arg),
		 void *arg)
{
	struct sorting s = {.visit = visit, .arg = arg};

	PRE(!b->failed);
	s.records = calloc(b->count + 1, sizeof(*s.records));
	if (s.records == NULL) {
		each(b, visit, arg);
		return;
	}
	each(b, sort_one, &s);
	visit_sorted(&s);
	free(s.records);
}

void batch_deinit(struct batch *b)
{
	struct batch_piece *p = b->first;

	while (p != NULL) {
		struct batch_piece *next = p->next;

		free(p);
		p = next;
	}
	*b = (struct batch){0};
}
