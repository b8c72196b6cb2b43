/* slab: see slab.h. */
#include "engine/store/slab.h"

#include <stdlib.h>
#include <string.h>

#include "engine/base/assert.h"
#include "engine/base/err.h"
#include "engine/base/large.h"
#include "engine/base/types.h"

#include <errno.h>

/* Extents grow with the slab, from the first size to the second. */
#define SLAB_EXTENT_MIN (64u << 10)
#define SLAB_EXTENT_MAX LARGE_PAGE

struct extent {
	struct extent *next;
	size_t size;
};

void slab_init(struct slab *slab, size_t object_size, uint32_t objects_max)
{
	PRE(object_size >= sizeof(void *) && object_size % 8 == 0);
	PRE(object_size <= SLAB_EXTENT_MIN / 16);
	*slab = (struct slab){.object_size = object_size, .objects_max = objects_max};
}

void slab_deinit(struct slab *slab)
{
	struct extent *e = slab->extents;

	while (e != NULL) {
		struct extent *next = e->next;

		large_free(e, e->size);
		e = next;
	}
	*slab = (struct slab){.object_size = slab->object_size};
}

static int slab_grow(struct slab *slab)
{
	uint64_t bytes = MIN(MAX(slab->memory_bytes, SLAB_EXTENT_MIN), SLAB_EXTENT_MAX);
	uint32_t count = (uint32_t)((bytes - sizeof(struct extent)) / slab->object_size);
	struct extent *e;
	size_t size;
	uint8_t *p;

	count = MIN(count, slab->objects_max - slab->total);
	if (count == 0)
		return -E_LIMIT;
	size = sizeof *e + count * slab->object_size;
	e = large_alloc(size);
	if (e == NULL)
		return -ENOMEM;
	e->next = slab->extents;
	e->size = size;
	slab->extents = e;
	slab->memory_bytes += size;
	p = (uint8_t *)(e + 1);
	for (uint32_t i = 0; i < count; i++) {
		void *object = p + i * slab->object_size;

		memcpy(object, &slab->free_list, sizeof slab->free_list);
		slab->free_list = object;
	}
	slab->total += count;
	slab->free_count += count;
	return 0;
}

void slab_limit(struct slab *slab, uint32_t objects_max)
{
	slab->objects_max = MAX(objects_max, slab->total);
}

int slab_promise(struct slab *slab, uint32_t count)
{
	while (slab->free_count < slab->promised + count) {
		int rc = slab_grow(slab);

		if (rc < 0)
			return rc;
	}
	slab->promised += count;
	return 0;
}

void slab_release(struct slab *slab, uint32_t count)
{
	PRE(slab->promised >= count);
	slab->promised -= count;
}

void *slab_take(struct slab *slab)
{
	void *object = slab->free_list;

	INVARIANT(object != NULL && slab->free_count > 0);
	memcpy(&slab->free_list, object, sizeof slab->free_list);
	slab->free_count--;
	memset(object, 0, slab->object_size);
	return object;
}

int slab_make(struct slab *slab, void **ret_object)
{
	int rc = slab_promise(slab, 1);

	if (rc < 0)
		return rc;
	*ret_object = slab_take(slab);
	slab_release(slab, 1);
	return 0;
}

void slab_give(struct slab *slab, void *object)
{
	memcpy(object, &slab->free_list, sizeof slab->free_list);
	slab->free_list = object;
	slab->free_count++;
}
