/* index: see index.h. Look-ups go through two hash tables with chains; each volume's chunks are
 * also in a treap, so that they can be listed in order without sorting and inserted without
 * allocation. */
#include "engine/store/index.h"

#include <errno.h>
#include <stdlib.h>
#include <utlist.h>

#include "engine/base/assert.h"

#define CHUNK_BUCKETS_FIRST  1024u
#define VOLUME_BUCKETS_FIRST 256u

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

int index_init(struct index *ix, uint32_t device_blocks)
{
	uint32_t pages_max =
	    (uint32_t)MIN((uint64_t)device_blocks + INDEX_PAGES_SPARE, (uint64_t)UINT32_MAX / 2);

	*ix = (struct index){
	    .pages_max = pages_max,
	    .chunk_bucket_count = CHUNK_BUCKETS_FIRST,
	    .volume_bucket_count = VOLUME_BUCKETS_FIRST,
	};
	slab_init(&ix->pages, sizeof(struct index_page), pages_max + INDEX_PAGES_FLIGHT);
	slab_init(&ix->leaves, sizeof(struct index_leaf), pages_max);
	slab_init(&ix->chunks, sizeof(struct index_chunk), INDEX_CHUNKS_MAX);
	slab_init(&ix->volumes, sizeof(struct index_volume), INDEX_VOLUMES_MAX);
	ix->chunk_buckets = calloc(ix->chunk_bucket_count, sizeof(struct index_chunk *));
	ix->volume_buckets = calloc(ix->volume_bucket_count, sizeof(struct index_volume *));
	if (ix->chunk_buckets == NULL || ix->volume_buckets == NULL) {
		index_deinit(ix);
		return -ENOMEM;
	}
	return 0;
}

void index_deinit(struct index *ix)
{
	slab_deinit(&ix->pages);
	slab_deinit(&ix->leaves);
	slab_deinit(&ix->chunks);
	slab_deinit(&ix->volumes);
	free(ix->chunk_buckets);
	free(ix->volume_buckets);
	*ix = (struct index){0};
}

/* -- promises --------------------------------------------------------------------------------- */

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

bool index_admits(struct index *ix, volume_id_t volume, chunk_no_t no, block_no_t block,
		  uint32_t block_count)
{
	page_no_t first = block >> PAGE_SHIFT;
	page_no_t last = (block + block_count - 1) >> PAGE_SHIFT;
	uint32_t used = ix->pages.total - ix->pages.free_count + ix->pages.promised;
	const struct index_chunk *chunk;

	if (used + (last - first + 1) <= ix->pages_max)
		return true;
	chunk = index_find_chunk(ix, volume, no);
	for (page_no_t p = first; p <= last; p++)
		if (chunk == NULL || index_find_page(chunk, p) == NULL)
			return false;
	return true;
}

int index_promise(struct index *ix, uint32_t entries, uint32_t pages)
{
	int rc = 0;

	if (ix->chunk_count + ix->chunks.promised >= ix->chunk_bucket_count)
		rc = grow_chunk_buckets(ix);
	if (rc == 0 && ix->volume_count + ix->volumes.promised >= ix->volume_bucket_count)
		rc = grow_volume_buckets(ix);
	if (rc < 0)
		return rc;
	rc = slab_promise(&ix->pages, pages);
	if (rc < 0)
		return rc;
	rc = slab_promise(&ix->leaves, 2 * entries);
	if (rc < 0)
		goto out_pages;
	rc = slab_promise(&ix->chunks, entries);
	if (rc < 0)
		goto out_leaves;
	rc = slab_promise(&ix->volumes, entries);
	if (rc < 0)
		goto out_chunks;
	return 0;
out_chunks:
	slab_release(&ix->chunks, entries);
out_leaves:
	slab_release(&ix->leaves, 2 * entries);
out_pages:
	slab_release(&ix->pages, pages);
	return rc;
}

void index_release(struct index *ix, uint32_t entries, uint32_t pages)
{
	slab_release(&ix->pages, pages);
	slab_release(&ix->leaves, 2 * entries);
	slab_release(&ix->chunks, entries);
	slab_release(&ix->volumes, entries);
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

struct index_volume *index_get_volume(struct index *ix, volume_id_t id)
{
	struct index_volume *v = index_find_volume(ix, id);
	uint64_t b = mix(id) & (ix->volume_bucket_count - 1);

	PRE(id != 0);
	if (v != NULL)
		return v;
	v = slab_take(&ix->volumes);
	v->id = id;
	v->hash_next = ix->volume_buckets[b];
	ix->volume_buckets[b] = v;
	ix->volume_count++;
	return v;
}

struct index_chunk *index_find_chunk(struct index *ix, volume_id_t volume, chunk_no_t no)
{
	struct index_chunk *c = ix->last_chunk;

	if (c != NULL && c->no == no && c->volume->id == volume)
		return c;
	c = ix->chunk_buckets[chunk_hash(volume, no) & (ix->chunk_bucket_count - 1)];
	while (c != NULL && (c->no != no || c->volume->id != volume))
		c = c->hash_next;
	if (c != NULL)
		ix->last_chunk = c;
	return c;
}

struct index_chunk *index_get_chunk(struct index *ix, volume_id_t volume, chunk_no_t no)
{
	struct index_chunk *c = index_find_chunk(ix, volume, no);
	uint64_t hash = chunk_hash(volume, no);
	struct index_chunk **bucket;

	if (c != NULL)
		return c;
	c = slab_take(&ix->chunks);
	c->volume = index_get_volume(ix, volume);
	c->no = no;
	c->priority = (uint32_t)(mix(hash) >> 32);
	bucket = &ix->chunk_buckets[hash & (ix->chunk_bucket_count - 1)];
	c->hash_next = *bucket;
	*bucket = c;
	c->volume->chunks = treap_insert(c->volume->chunks, c);
	ix->chunk_count++;
	ix->last_chunk = c;
	return c;
}

struct index_page *index_get_page(struct index *ix, struct index_chunk *chunk, page_no_t no)
{
	struct index_leaf **leaf = &chunk->leaves[no / INDEX_LEAF_PAGES];
	struct index_page **page;

	PRE(no < INDEX_CHUNK_LEAVES * INDEX_LEAF_PAGES);
	if (*leaf == NULL)
		*leaf = slab_take(&ix->leaves);
	page = &(*leaf)->pages[no % INDEX_LEAF_PAGES];
	if (*page == NULL) {
		*page = slab_take(&ix->pages);
		(*page)->chunk = chunk;
		(*page)->no = no;
	}
	return *page;
}

/* -- dirt ------------------------------------------------------------------------------------- */

void index_dirty_page(struct index *ix, struct index_page *page)
{
	if (page->dirty)
		return;
	page->dirty = true;
	DL_APPEND(ix->dirty_pages, page);
	ix->dirty_page_count++;
}

void index_dirty_chunk(struct index *ix, struct index_chunk *chunk)
{
	if (chunk->dirty)
		return;
	chunk->dirty = true;
	DL_APPEND(ix->dirty_chunks, chunk);
	ix->dirty_chunk_count++;
}

void index_dirty_volume(struct index *ix, struct index_volume *volume)
{
	if (volume->dirty)
		return;
	volume->dirty = true;
	DL_APPEND(ix->dirty_volumes, volume);
	ix->dirty_volume_count++;
}

void index_clean_page(struct index *ix, struct index_page *page)
{
	if (!page->dirty)
		return;
	page->dirty = false;
	DL_DELETE(ix->dirty_pages, page);
	ix->dirty_page_count--;
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

/* -- erasing ---------------------------------------------------------------------------------- */

void index_kill_chunk(struct index *ix, struct index_chunk *chunk)
{
	struct index_chunk **p;

	PRE(!chunk->dead);
	p = &ix->chunk_buckets[chunk_hash(chunk->volume->id, chunk->no) &
			       (ix->chunk_bucket_count - 1)];
	while (*p != chunk)
		p = &(*p)->hash_next;
	*p = chunk->hash_next;
	treap_remove(&chunk->volume->chunks, chunk);
	index_clean_chunk(ix, chunk);
	if (ix->last_chunk == chunk)
		ix->last_chunk = NULL;
	chunk->dead = true;
	chunk->grave_next = ix->graves;
	ix->graves = chunk;
	ix->chunk_count--;
}

/* Buries pages of one leaf. Returns how many; *ret_done when the leaf is empty. */
static uint32_t bury_leaf(struct index *ix, struct index_chunk *chunk, struct index_leaf *leaf,
			  uint32_t max, void (*each)(struct index_page *page, void *arg), void *arg)
{
	uint32_t count = 0;

	while (chunk->bury_page < INDEX_LEAF_PAGES && count < max) {
		struct index_page *page = leaf->pages[chunk->bury_page++];

		if (page == NULL)
			continue;
		each(page, arg);
		index_clean_page(ix, page);
		slab_give(&ix->pages, page);
		count++;
	}
	return count;
}

bool index_bury(struct index *ix, uint32_t max, void (*each)(struct index_page *page, void *arg),
		void *arg)
{
	while (ix->graves != NULL && max > 0) {
		struct index_chunk *chunk = ix->graves;
		struct index_leaf *leaf;

		if (chunk->holds > 0)
			break;
		if (chunk->bury_leaf == INDEX_CHUNK_LEAVES) {
			ix->graves = chunk->grave_next;
			slab_give(&ix->chunks, chunk);
			max--;
			continue;
		}
		leaf = chunk->leaves[chunk->bury_leaf];
		if (leaf != NULL) {
			max -= bury_leaf(ix, chunk, leaf, max, each, arg);
			if (chunk->bury_page < INDEX_LEAF_PAGES)
				break;
			slab_give(&ix->leaves, leaf);
		}
		chunk->bury_leaf++;
		chunk->bury_page = 0;
	}
	return ix->graves != NULL;
}

/* -- all of it -------------------------------------------------------------------------------- */

static void each_page_of(const struct index_chunk *chunk,
			 void (*each)(const struct index_page *page, void *arg), void *arg)
{
	for (uint32_t l = 0; l < INDEX_CHUNK_LEAVES; l++) {
		const struct index_leaf *leaf = chunk->leaves[l];

		for (uint32_t i = 0; leaf != NULL && i < INDEX_LEAF_PAGES; i++)
			if (leaf->pages[i] != NULL)
				each(leaf->pages[i], arg);
	}
}

void index_each_page(const struct index *ix, void (*each)(const struct index_page *page, void *arg),
		     void *arg)
{
	for (uint32_t b = 0; b < ix->chunk_bucket_count; b++)
		for (const struct index_chunk *c = ix->chunk_buckets[b]; c != NULL;
		     c = c->hash_next)
			each_page_of(c, each, arg);
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
	return ix->pages.memory_bytes + ix->leaves.memory_bytes + ix->chunks.memory_bytes +
	       ix->volumes.memory_bytes + ix->chunk_bucket_count * sizeof(struct index_chunk *) +
	       ix->volume_bucket_count * sizeof(struct index_volume *);
}
