/* alloc_fail: see alloc_fail.h. */
#include <errno.h>
#include <stdbool.h>
#include <string.h>
#include <sys/mman.h>

#include "alloc_fail.h"

static uint64_t at, count, live;
static bool failed;

void alloc_fail_at(uint64_t n)
{
	at = n;
	count = 0;
	failed = false;
}

bool alloc_failed(void)
{
	return failed;
}

uint64_t alloc_live(void)
{
	return live;
}

static bool fails(void)
{
	if (at == 0 || ++count != at)
		return false;
	failed = true;
	return true;
}

static void *counted(void *p)
{
	live += p != NULL;
	return p;
}

void *alloc_fail_malloc(size_t size)
{
	return fails() ? NULL : counted(malloc(size));
}

void *alloc_fail_calloc(size_t n, size_t size)
{
	return fails() ? NULL : counted(calloc(n, size));
}

void *alloc_fail_aligned_alloc(size_t alignment, size_t size)
{
	return fails() ? NULL : counted(aligned_alloc(alignment, size));
}

char *alloc_fail_strdup(const char *text)
{
	return fails() ? NULL : counted(strdup(text));
}

void *alloc_fail_realloc(void *p, size_t size)
{
	void *q = fails() ? NULL : realloc(p, size);

	live += p == NULL && q != NULL;
	return q;
}

void alloc_fail_free(void *p)
{
	live -= p != NULL;
	free(p);
}

int alloc_fail_mprotect(void *p, size_t size, int protection)
{
	if (!fails())
		return mprotect(p, size, protection);
	errno = ENOMEM;
	return -1;
}
