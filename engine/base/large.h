/* Memory for large tables that are read here and there: in large pages where the kernel has them,
 * for a miss of the TLB less in each access. That is only a hint. In the header, so that the memory
 * is its module's own (tests/unit/alloc_fail.h). */
#ifndef BASE_LARGE_H
#define BASE_LARGE_H

#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "engine/base/types.h"

#define LARGE_PAGE ((size_t)2 << 20)

/* Fresh from the kernel: the heap may give pages that were in use, which stay small ones. */
static inline void *large_map(size_t size_bytes)
{
	size_t whole = size_bytes + LARGE_PAGE, before;
	uint8_t *map = mmap(NULL, whole, PROT_READ | PROT_WRITE,
			    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (map == MAP_FAILED)
		return NULL;
	before = ROUND_UP((uintptr_t)map, LARGE_PAGE) - (uintptr_t)map;
	if (before > 0)
		munmap(map, before);
	if (before < LARGE_PAGE)
		munmap(map + before + size_bytes, LARGE_PAGE - before);
	madvise(map + before, size_bytes, MADV_HUGEPAGE);
	return map + before;
}

/* Whole large pages, unless that were more than half as much again. */
static inline size_t large_size(size_t size_bytes)
{
	size_t whole = ROUND_UP(size_bytes, LARGE_PAGE);

	return whole - size_bytes <= size_bytes / 2 ? whole : size_bytes;
}

/* large_size(size_bytes) bytes of zeroes, or NULL: no memory. */
static inline void *large_alloc(size_t size_bytes)
{
	size_t size = large_size(size_bytes);

	return size % LARGE_PAGE == 0 ? large_map(size) : calloc(1, size);
}

/* What large_alloc(size_bytes) gave, or NULL. */
static inline void large_free(void *p, size_t size_bytes)
{
	size_t size = large_size(size_bytes);

	if (p != NULL && size % LARGE_PAGE == 0)
		munmap(p, size);
	else
		free(p);
}

#endif
