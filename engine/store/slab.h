/* A slab: objects of one size, taken from the heap in bulk and never given back one by one. So the
 * data path allocates nothing: who will need objects later promises them first (slab_promise, which
 * may grow the slab and may fail), and takes them when it cannot fail any more.
 *
 * Invariant: free_count >= promised. Thread: the owner's. */
#ifndef STORE_SLAB_H
#define STORE_SLAB_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct slab {
	size_t object_size;
	uint32_t objects_max; /* the named bound, given by the owner */
	uint32_t total;
	uint32_t free_count;
	uint32_t promised;
	void *free_list;
	void *extents;
	uint64_t memory_bytes;
};

void slab_init(struct slab *slab, size_t object_size, uint32_t objects_max);
void slab_deinit(struct slab *slab);

/* Another bound; not below what it has already. */
void slab_limit(struct slab *slab, uint32_t objects_max);

/* Makes sure that `count` more objects can be taken. 0, -E_LIMIT (objects_max), -ENOMEM. */
int slab_promise(struct slab *slab, uint32_t count);

/* Gives a promise back, whether or not objects were taken under it. */
void slab_release(struct slab *slab, uint32_t count);

/* A zeroed object, where failing is allowed. 0, -E_LIMIT, -ENOMEM. */
int slab_make(struct slab *slab, void **ret_object);

/* A zeroed object. Only under a promise that is still held: never NULL. */
void *slab_take(struct slab *slab);
void slab_give(struct slab *slab, void *object);

#endif
