/* A table that grows where it is: addresses for all that it may ever hold are taken at once, memory
 * as it grows. So who holds a pointer into it may keep it. In the header, so that the memory is its
 * module's own (tests/unit/alloc_fail.h). */
#ifndef BASE_GROWING_H
#define BASE_GROWING_H

#include <errno.h>
#include <stddef.h>
#include <sys/mman.h>

/* Nothing of it may be touched yet. NULL: no addresses. */
static inline void *growing_reserve(size_t max_bytes)
{
	void *p =
	    mmap(NULL, max_bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	return p != MAP_FAILED ? p : NULL;
}

/* Its first size_bytes, at least, may be used; what was not in use before is zeroes. size_bytes is
 * no more than was reserved. -ENOMEM: as before. */
static inline int growing_grow(void *table, size_t size_bytes)
{
	return mprotect(table, size_bytes, PROT_READ | PROT_WRITE) == 0 ? 0 : -ENOMEM;
}

/* What growing_reserve(max_bytes) gave, or NULL. */
static inline void growing_free(void *table, size_t max_bytes)
{
	if (table != NULL)
		munmap(table, max_bytes);
}

#endif
