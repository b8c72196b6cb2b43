/* route: see route.h. Buckets are doubled when there are more entries than buckets: the one moment
 * at which a first write to a chunk costs more than a few cache misses. */
#include "engine/pool/route.h"

#include <errno.h>
#include <stdlib.h>

#include "engine/base/assert.h"

#define BUCKETS_MIN 1024u

int routes_init(struct routes *t)
{
	*t = (struct routes){.bucket_count = BUCKETS_MIN};
	slab_init(&t->slab, sizeof(struct route), ROUTES_MAX);
	t->buckets = calloc(t->bucket_count, sizeof *t->buckets);
	return t->buckets != NULL ? 0 : -ENOMEM;
}

void routes_deinit(struct routes *t)
{
	if (t->buckets == NULL)
		return;
	slab_deinit(&t->slab);
	free(t->buckets);
	*t = (struct routes){0};
}

static struct route **bucket_of(const struct routes *t, volume_id_t volume, chunk_no_t chunk)
{
	uint64_t x = volume * 0x9e3779b97f4a7c15ull + chunk;

	x ^= x >> 32;
	x *= 0xd6e8feb86659fd93ull;
	x ^= x >> 32;
	return &t->buckets[x & (t->bucket_count - 1)];
}

struct route *routes_find(struct routes *t, volume_id_t volume, chunk_no_t chunk)
{
	struct route *r = t->last;

	if (r != NULL && r->volume == volume && r->chunk == chunk)
		return r;
	for (r = *bucket_of(t, volume, chunk); r != NULL; r = r->next)
		if (r->volume == volume && r->chunk == chunk)
			break;
	if (r != NULL)
		t->last = r;
	return r;
}

static void insert(struct routes *t, struct route *r)
{
	struct route **bucket = bucket_of(t, r->volume, r->chunk);

	r->next = *bucket;
	*bucket = r;
}

/* Without memory for more buckets it stays as it is, only slower. */
static void grow(struct routes *t)
{
	struct route **old = t->buckets;
	uint32_t old_count = t->bucket_count;
	struct route **buckets = calloc(2 * (size_t)old_count, sizeof *buckets);

	if (buckets == NULL)
		return;
	t->buckets = buckets;
	t->bucket_count = 2 * old_count;
	for (uint32_t i = 0; i < old_count; i++)
		while (old[i] != NULL) {
			struct route *r = old[i];

			old[i] = r->next;
			insert(t, r);
		}
	free(old);
}

struct route *routes_add(struct routes *t, volume_id_t volume, chunk_no_t chunk, uint8_t place)
{
	struct route *r;

	if (slab_promise(&t->slab, 1) != 0)
		return NULL;
	r = slab_take(&t->slab);
	slab_release(&t->slab, 1);
	r->volume = volume;
	r->chunk = chunk;
	r->place = place;
	if (t->count == t->bucket_count)
		grow(t);
	insert(t, r);
	t->count++;
	return r;
}

void routes_remove(struct routes *t, struct route *r)
{
	struct route **at = bucket_of(t, r->volume, r->chunk);

	PRE(route_is_quiet(r) && !r->held);
	while (*at != r)
		at = &(*at)->next;
	*at = r->next;
	if (t->last == r)
		t->last = NULL;
	t->count--;
	slab_give(&t->slab, r);
}

void routes_each(struct routes *t, void (*each)(struct route *r, void *arg), void *arg)
{
	for (uint32_t i = 0; i < t->bucket_count; i++)
		for (struct route *r = t->buckets[i], *next; r != NULL; r = next) {
			next = r->next;
			each(r, arg);
		}
}
