/* Memory that runs out on demand. The code under test is compiled once more with this header in
 * front (-include), so that its calls of the allocator, and nobody else's, come to alloc_fail.c:
 * the simulator around it goes on having memory. Tests include it for the three functions. */
#ifndef TEST_ALLOC_FAIL_H
#define TEST_ALLOC_FAIL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

/* The n-th allocation from now on fails, once; 0: none does. */
void alloc_fail_at(uint64_t n);
/* It has failed. */
bool alloc_failed(void);
/* Allocations that were not freed. */
uint64_t alloc_live(void);

void *alloc_fail_malloc(size_t size);
void *alloc_fail_calloc(size_t count, size_t size);
void *alloc_fail_realloc(void *p, size_t size);
void *alloc_fail_aligned_alloc(size_t alignment, size_t size);
char *alloc_fail_strdup(const char *text);
void alloc_fail_free(void *p);
int alloc_fail_mprotect(void *p, size_t size, int protection); /* base/growing.h */

#ifdef ALLOC_FAIL_REPLACE
#include <string.h>
#include <sys/mman.h>
#undef strdup
#define malloc	      alloc_fail_malloc
#define calloc	      alloc_fail_calloc
#define realloc	      alloc_fail_realloc
#define aligned_alloc alloc_fail_aligned_alloc
#define strdup	      alloc_fail_strdup
#define free	      alloc_fail_free
#define mprotect      alloc_fail_mprotect
#endif

#endif
