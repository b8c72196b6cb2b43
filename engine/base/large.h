/* Memory for large tables that are read here and there: in large pages where the kernel has them,
 * for a miss of the TLB less in each access. It is only a hint. In the header, so that the memory
 * is its module's own (tests/unit/alloc_fail.h). */
#ifndef BASE_LARGE_H
#define BASE_LARGE_H

#include <stdlib.h>
#include <sys/mman.h>

#include "engine/base/types.h"

#define LARGE_PAGE ((size_t)2 << 20)

/* At least size_bytes, not initialised, to be freed by free(); or NULL: no memory. Rounded up to
 * whole large pages, unless that were more than twice as much. */
static inline void *large_alloc(size_t size_bytes)
{
	size_t whole = ROUND_UP(size_bytes, LARGE_PAGE);
	void *p;

	if (whole > 2 * size_bytes)
		return malloc(size_bytes);
	p = aligned_alloc(LARGE_PAGE, whole);
	if (p != NULL)
		madvise(p, whole, MADV_HUGEPAGE);
	return p;
}

#endif
