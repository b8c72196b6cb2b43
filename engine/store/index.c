/* index: see index.h. Here: volumes and chunks; the pages are in index_page.c. Look-ups go through
 * two hash tables with chains; each volume's live chunks are also in a treap, so that they can be
 * listed in order without sorting and inserted without allocation. */
#include "engine/store/index.h"

#include <errno.h>
#include <stdlib.h>
#include <utlist.h>

#include "engine/base/assert.h"
#include "engine/base/err.h"
#include "engine/base/large.h"

#define CHUNK_BUCKETS_FIRST  1024u
#define VOLUME_BUCKETS_FIRST 256u
#define PAGE_BUCKETS_MIN     64u
#define CELLS_MIN	     (4 * INDEX_PAGE_CELLS)

static uint64_t mix(uint64_t x)
{
	x ^= x >> 31;
	x *= 0x9e3779b97f4a7c15ull;
	x ^= x >> 29;
	x *= 0xbf58476d1ce4e5b9ull;
	return x ^ x >> 32;
}

static uint64_t chunk_hash(volume_id_t volume, chunk_no_t no)
{
	return mix(volume * 0x100000001b3ull ^ (uint64_t)no << 20);
}

/* A bucket for two cells, out of the same memory; the rest is for the cells. */
static void share_out(struct index *ix, uint64_t cache_bytes)
{
	uint64_t buckets = PAGE_BUCKETS_MIN;
	uint64_t pages;

	while (buckets * 2 <= cache_bytes / (2 * INDEX_CELL) && buckets < 1u << 30)
		buckets *= 2;
	ix->page_bucket_count = (uint32_t)buckets;
	ix->cells_max = CELLS_MIN;
	if (cache_bytes > buckets * sizeof(struct index_page *))
		ix->cells_max =
		    MAX(ix->cells_max,
			(cache_bytes - buckets * sizeof(struct index_page *)) / INDEX_CELL);
	pages = ix->cells_max / INDEX_PAGE_CELLS;
	ix->dirty_max = (uint32_t)MIN(MAX(pages / 4, 1u), (uint64_t)INDEX_DIRTY_MAX);
	/* One who holds pages may look up others: the tidier reads what it holds. */
	ix->held_max = (uint32_t)MIN(MAX(pages / 8, (uint64_t)4 * INDEX_LOOKUP_PAGES),
				     (uint64_t)INDEX_HELD_MAX);
}

int index_init(struct index *ix, uint32_t device_blocks, uint64_t cache_bytes,
	       struct index_collector *collector)
{
	*ix = (struct index){
	    .collector = collector,
	    .pages_max = (uint64_t)device_blocks + INDEX_PAGES_SPARE,
	    .chunk_bucket_count = CHUNK_BUCKETS_FIRST,
	    .volume_bucket_count = VOLUME_BUCKETS_FIRST,
	};
	share_out(ix, cache_bytes);
	slab_init(&ix->cells, INDEX_CELL, UINT32_MAX / 2);
	slab_init(&ix->leaves, sizeof(struct format_leaf), UINT32_MAX / 2);
	slab_init(&ix->chunks, sizeof(struct index_chunk), INDEX_CHUNKS_MAX);
	slab_init(&ix->volumes, sizeof(struct index_volume), INDEX_VOLUMES_MAX);
	ix->page_buckets = large_alloc(ix->page_bucket_count * sizeof(struct index_page *));
	ix->chunk_buckets = calloc(ix->chunk_bucket_count, sizeof(struct index_chunk *));
	ix->volume_buckets = calloc(ix->volume_bucket_count, sizeof(struct index_volume *));
	if (ix->page_buckets == NULL || ix->chunk_buckets == NULL || ix->volume_buckets == NULL) {
		index_deinit(ix);
		return -ENOMEM;
	}
	return 0;
}

void index_limit(struct index *ix)
{
	/* What is held may go beyond the cache for a moment: see lookup.h. */
	uint64_t cells = ix->cells_max + ix->cells_max / 8 +
			 INDEX_PAGE_CELLS * (INDEX_MOVES_MAX + 16 * INDEX_LOOKUP_PAGES);

	slab_limit(&ix->cells, (uint32_t)MIN(cells, (uint64_t)UINT32_MAX / 2));
}

void index_deinit(struct index *ix)
{
	slab_deinit(&ix->cells);
	slab_deinit(&ix->leaves);
	slab_deinit(&ix->chunks);
	slab_deinit(&ix->volumes);
	large_free(ix->page_buckets, ix->page_bucket_count * sizeof(struct index_page *));
	free(ix->chunk_buckets);
	free(ix->volume_buckets);
	*ix = (struct index){0};
}

/* -- tables ----------------------------------------------------------------------------------- */

/* The tables grow here, where failing is allowed, by doubling. */
static int grow_chunk_buckets(struct index *ix)
{
	uint32_t count = ix->chunk_bucket_count * 2;
	struct index_chunk **buckets = calloc(count, sizeof(struct index_chunk *));

	if (buckets == NULL)
		return -ENOMEM;
	for (uint32_t i = 0; i < ix->chunk_bucket_count; i++) {
		struct index_chunk *c = ix->chunk_buckets[i];

		while (c != NULL) {
			struct index_chunk *next = c->hash_next;
			uint64_t b = chunk_hash(c->volume->id, c->no) & (count - 1);

			c->hash_next = buckets[b];
			buckets[b] = c;
			c = next;
		}
	}
	free(ix->chunk_buckets);
	ix->chunk_buckets = buckets;
	ix->chunk_bucket_count = count;
	return 0;
}

static int grow_volume_buckets(struct index *ix)
{
	uint32_t count = ix->volume_bucket_count * 2;
	struct index_volume **buckets = calloc(count, sizeof(struct index_volume *));

	if (buckets == NULL)
		return -ENOMEM;
	for (uint32_t i = 0; i < ix->volume_bucket_count; i++) {
		struct index_volume *v = ix->volume_buckets[i];

		while (v != NULL) {
			struct index_volume *next = v->hash_next;
			uint64_t b = mix(v->id) & (count - 1);

			v->hash_next = buckets[b];
			buckets[b] = v;
			v = next;
		}
	}
	free(ix->volume_buckets);
	ix->volume_buckets = buckets;
	ix->volume_bucket_count = count;
	return 0;
}

/* -- the treap of a volume's chunks ----------------------------------------------------------- */

static struct index_chunk *rotate_right(struct index_chunk *t)
{
	struct index_chunk *l = t->left;

	t->left = l->right;
	l->right = t;
	return l;
}

static struct index_chunk *rotate_left(struct index_chunk *t)
{
	struct index_chunk *r = t->right;

	t->right = r->left;
	r->left = t;
	return r;
}

/* Depth is logarithmic with overwhelming probability: priorities are hashes of the numbers. */
static struct index_chunk *treap_insert(struct index_chunk *t, struct index_chunk *c)
{
	if (t == NULL)
		return c;
	if (c->no < t->no) {
		t->left = treap_insert(t->left, c);
		return t->left->priority > t->priority ? rotate_right(t) : t;
	}
	t->right = treap_insert(t->right, c);
	return t->right->priority > t->priority ? rotate_left(t) : t;
}

static struct index_chunk *treap_merge(struct index_chunk *a, struct index_chunk *b)
{
	if (a == NULL)
		return b;
	if (b == NULL)
		return a;
	if (a->priority > b->priority) {
		a->right = treap_merge(a->right, b);
		return a;
	}
	b->left = treap_merge(a, b->left);
	return b;
}

static void treap_remove(struct index_chunk **root, struct index_chunk *c)
{
	while (*root != c) {
		INVARIANT(*root != NULL);
		root = c->no < (*root)->no ? &(*root)->left : &(*root)->right;
	}
	*root = treap_merge(c->left, c->right);
	c->left = NULL;
	c->right = NULL;
}

struct index_chunk *index_next_chunk(const struct index_volume *volume, chunk_no_t from)
{
	struct index_chunk *t = volume->chunks;
	struct index_chunk *best = NULL;

	while (t != NULL) {
		if (t->no >= from) {
			best = t;
			t = t->left;
		} else {
			t = t->right;
		}
	}
	return best;
}

/* -- look-ups --------------------------------------------------------------------------------- */

struct index_volume *index_find_volume(const struct index *ix, volume_id_t id)
{
	struct index_volume *v = ix->volume_buckets[mix(id) & (ix->volume_bucket_count - 1)];

	while (v != NULL && v->id != id)
		v = v->hash_next;
	return v;
}

int index_get_volume(struct index *ix, volume_id_t id, struct index_volume **ret_volume)
{
	struct index_volume *v = index_find_volume(ix, id);
	uint64_t b;

	PRE(id != 0);
	if (v == NULL && ix->volume_count >= ix->volume_bucket_count && grow_volume_buckets(ix) < 0)
		return -ENOMEM;
	if (v == NULL) {
		int rc = slab_make(&ix->volumes, (void **)&v);

		if (rc < 0)
			return rc;
		b = mix(id) & (ix->volume_bucket_count - 1);
		v->id = id;
		v->hash_next = ix->volume_buckets[b];
		ix->volume_buckets[b] = v;
		ix->volume_count++;
	}
	*ret_volume = v;
	return 0;
}

/* Dead ones too. */
static struct index_chunk *find_any_chunk(const struct index *ix, volume_id_t volume, chunk_no_t no)
{
	struct index_chunk *c =
	    ix->chunk_buckets[chunk_hash(volume, no) & (ix->chunk_bucket_count - 1)];

	while (c != NULL && (c->no != no || c->volume->id != volume))
		c = c->hash_next;
	return c;
}

struct index_chunk *index_find_chunk(struct index *ix, volume_id_t volume, chunk_no_t no)
{
	struct index_chunk *c = ix->last_chunk;

	if (c != NULL && c->no == no && c->volume->id == volume)
		return c;
	c = find_any_chunk(ix, volume, no);
	if (c == NULL || c->dead)
		return NULL;
	ix->last_chunk = c;
	return c;
}

bool index_is_dead(const struct index *ix, volume_id_t volume, chunk_no_t no)
{
	const struct index_chunk *c = find_any_chunk(ix, volume, no);

	return c != NULL && c->dead;
}

static uint32_t slab_used(const struct slab *slab)
{
	return slab->total - slab->free_count;
}

int index_get_chunk(struct index *ix, volume_id_t volume, chunk_no_t no,
		    struct index_chunk **ret_chunk)
{
	struct index_chunk *c = index_find_chunk(ix, volume, no);
	uint64_t hash = chunk_hash(volume, no);
	struct index_chunk **bucket;
	struct index_volume *v;
	int rc;

	if (c == NULL && find_any_chunk(ix, volume, no) != NULL)
		return -EBUSY;
	if (c != NULL) {
		*ret_chunk = c;
		return 0;
	}
	if (slab_used(&ix->chunks) >= ix->chunk_bucket_count && grow_chunk_buckets(ix) < 0)
		return -ENOMEM;
	rc = index_get_volume(ix, volume, &v);
	if (rc < 0)
		return rc;
	rc = slab_make(&ix->chunks, (void **)&c);
	if (rc < 0) {
		index_settle_volume(ix, v);
		return rc;
	}
	v->chunk_count++;
	c->volume = v;
	c->no = no;
	c->hash = hash;
	c->priority = (uint32_t)(mix(hash) >> 32);
	bucket = &ix->chunk_buckets[hash & (ix->chunk_bucket_count - 1)];
	c->hash_next = *bucket;
	*bucket = c;
	v->chunks = treap_insert(v->chunks, c);
	ix->chunk_count++;
	ix->last_chunk = c;
	*ret_chunk = c;
	return 0;
}

/* -- what exists ------------------------------------------------------------------------------ */

page_no_t index_next_page(const struct index_chunk *chunk, page_no_t from)
{
	while (from < FORMAT_CHUNK_LEAVES * FORMAT_LEAF_PAGES) {
		const struct format_leaf *leaf = chunk->leaves[from / FORMAT_LEAF_PAGES];
		uint32_t i = from % FORMAT_LEAF_PAGES;
		uint64_t word;

		if (leaf == NULL) {
			from = (from / FORMAT_LEAF_PAGES + 1) * FORMAT_LEAF_PAGES;
			continue;
		}
		word = leaf->exists[i / 64] >> i % 64;
		if (word != 0)
			return from + (page_no_t)__builtin_ctzll(word);
		from += 64 - i % 64;
	}
	return UINT32_MAX;
}

int index_set_leaf(struct index *ix, struct index_chunk *chunk, uint32_t leaf,
		   const struct format_leaf *exists)
{
	struct format_leaf **place = &chunk->leaves[leaf];
	int rc = *place == NULL ? slab_make(&ix->leaves, (void **)place) : 0;

	if (rc < 0)
		return rc;
	for (uint32_t i = 0; i < ARRAY_SIZE(exists->exists); i++) {
		uint64_t added = exists->exists[i] & ~(*place)->exists[i];

		ix->page_count += (uint64_t)__builtin_popcountll(added);
		(*place)->exists[i] |= added;
	}
	return 0;
}

/* -- dirt ------------------------------------------------------------------------------------- */

void index_dirty_chunk(struct index *ix, struct index_chunk *chunk)
{
	if (chunk->dirty && chunk->epoch == ix->epoch)
		return;
	if (chunk->dirty)
		ix->collector->chunk(ix->collector, chunk);
	INVARIANT(!chunk->dirty);
	chunk->dirty = true;
	chunk->epoch = ix->epoch;
	DL_APPEND(ix->dirty_chunks, chunk);
	ix->dirty_chunk_count++;
}

void index_dirty_volume(struct index *ix, struct index_volume *volume)
{
	if (volume->dirty && volume->epoch == ix->epoch)
		return;
	if (volume->dirty)
		ix->collector->volume(ix->collector, volume);
	INVARIANT(!volume->dirty);
	volume->dirty = true;
	volume->epoch = ix->epoch;
	DL_APPEND(ix->dirty_volumes, volume);
	ix->dirty_volume_count++;
}

struct index_chunk *index_next_dirty_chunk(const struct index *ix)
{
	struct index_chunk *c = ix->dirty_chunks;

	return c != NULL && c->epoch != ix->epoch ? c : NULL;
}

struct index_volume *index_next_dirty_volume(const struct index *ix)
{
	struct index_volume *v = ix->dirty_volumes;

	return v != NULL && v->epoch != ix->epoch ? v : NULL;
}

void index_clean_chunk(struct index *ix, struct index_chunk *chunk)
{
	if (!chunk->dirty)
		return;
	chunk->dirty = false;
	DL_DELETE(ix->dirty_chunks, chunk);
	ix->dirty_chunk_count--;
}

void index_clean_volume(struct index *ix, struct index_volume *volume)
{
	if (!volume->dirty)
		return;
	volume->dirty = false;
	DL_DELETE(ix->dirty_volumes, volume);
	ix->dirty_volume_count--;
}

void index_begin_epoch(struct index *ix)
{
	PRE(!ix->committing);
	ix->epoch++;
	ix->committing = true;
}

void index_end_epoch(struct index *ix)
{
	PRE(ix->committing);
	ix->committing = false;
	ix->collected_count = 0;
}

/* -- erasing ---------------------------------------------------------------------------------- */

void index_kill_chunk(struct index *ix, struct index_chunk *chunk)
{
	PRE(!chunk->dead && chunk->writers == 0);
	index_dirty_chunk(ix, chunk);
	treap_remove(&chunk->volume->chunks, chunk);
	if (ix->last_chunk == chunk)
		ix->last_chunk = NULL;
	chunk->dead = true;
	chunk->grave_next = NULL;
	LL_PREPEND2(ix->graves, chunk, grave_next);
	ix->chunk_count--;
}

void index_settle_volume(struct index *ix, struct index_volume *volume)
{
	struct index_volume **p =
	    &ix->volume_buckets[mix(volume->id) & (ix->volume_bucket_count - 1)];

	if (volume->chunk_count > 0 || volume->fence > 0 || volume->erasures > 0 || volume->dirty)
		return;
	INVARIANT(volume->writers == 0 && volume->chunks == NULL);
	while (*p != volume)
		p = &(*p)->hash_next;
	*p = volume->hash_next;
	ix->volume_count--;
	slab_give(&ix->volumes, volume);
}

void index_remove_chunk(struct index *ix, struct index_chunk *chunk)
{
	struct index_volume *volume = chunk->volume;
	struct index_chunk **p = &ix->chunk_buckets[chunk_hash(chunk->volume->id, chunk->no) &
						    (ix->chunk_bucket_count - 1)];

	PRE(chunk->dead && chunk->holds == 0 && index_next_page(chunk, 0) == UINT32_MAX);
	/* What a checkpoint under way still lacks of it, it gets. */
	index_dirty_chunk(ix, chunk);
	index_clean_chunk(ix, chunk);
	while (*p != chunk)
		p = &(*p)->hash_next;
	*p = chunk->hash_next;
	LL_DELETE2(ix->graves, chunk, grave_next);
	for (uint32_t i = 0; i < FORMAT_CHUNK_LEAVES; i++)
		if (chunk->leaves[i] != NULL)
			slab_give(&ix->leaves, chunk->leaves[i]);
	slab_give(&ix->chunks, chunk);
	volume->chunk_count--;
	index_settle_volume(ix, volume);
}

/* -- all of it -------------------------------------------------------------------------------- */

void index_each_chunk(const struct index *ix,
		      void (*each)(const struct index_chunk *chunk, void *arg), void *arg)
{
	for (uint32_t b = 0; b < ix->chunk_bucket_count; b++)
		for (const struct index_chunk *c = ix->chunk_buckets[b]; c != NULL;
		     c = c->hash_next)
			each(c, arg);
}

void index_each_volume(const struct index *ix,
		       void (*each)(const struct index_volume *volume, void *arg), void *arg)
{
	for (uint32_t i = 0; i < ix->volume_bucket_count; i++)
		for (const struct index_volume *v = ix->volume_buckets[i]; v != NULL;
		     v = v->hash_next)
			each(v, arg);
}

uint64_t index_memory_bytes(const struct index *ix)
{
	return ix->cells.memory_bytes + ix->leaves.memory_bytes + ix->chunks.memory_bytes +
	       ix->volumes.memory_bytes + ix->page_bucket_count * sizeof(struct index_page *) +
	       ix->chunk_bucket_count * sizeof(struct index_chunk *) +
	       ix->volume_bucket_count * sizeof(struct index_volume *);
}
