/* counts_preload: a library that is preloaded into a process and counts, thread by thread, what its
 * data path should not do: calls of the allocator, commits and look-ups in RocksDB, bytes copied,
 * and readings of the clock. Only for bench/counts; nothing links it.
 *
 * The counters lie in the file $PAVE_COUNTS_DIR/PID, mapped and shared, so that bench/counts reads
 * them at any moment while the process runs and knows nothing of it: no signal, no system call, no
 * lock. Without PAVE_COUNTS_DIR nothing is counted.
 *
 * INVARIANTS
 *  1. A line of counters is written by one thread only, so counting is a plain addition.
 *  2. Nothing here allocates or copies by way of what it counts: the allocator is reached by the
 *     names that glibc keeps for it, and the lines are static until the file is mapped.
 *
 * Failure modes: without the file the counters stay in static memory and bench/counts, which finds
 * no file, says so. More threads than COUNTS_THREADS_MAX share the last line (then inexactly).
 *
 * What it does not see: copies that the compiler put in line, and those of the kernel. */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define COUNTS_THREADS_MAX 64u
#define COUNTS_MAGIC	   0x31544e554f435650ull /* "PVCOUNT1" */

/* In the order that bench/counts knows. */
enum counts_kind {
	COUNTS_THREAD, /* its id, not a count */
	COUNTS_MALLOC, /* calloc, aligned ones and `new` included */
	COUNTS_REALLOC,
	COUNTS_FREE, /* of something */
	COUNTS_ALLOCATED_BYTES,
	COUNTS_KV_WRITE,
	COUNTS_KV_READ,
	COUNTS_COPIED_BYTES, /* memcpy and memmove of at least COUNTS_COPY_MIN */
	COUNTS_CLOCK_READ,
	COUNTS_KINDS = 15,
};

/* Shorter copies move headers, not payload. */
#define COUNTS_COPY_MIN 512u

struct counts_line {
	uint64_t n[COUNTS_KINDS + 1]; /* two cache lines, nobody else's */
};

struct counts_file {
	uint64_t magic;
	_Atomic uint32_t threads;
	uint32_t pad[29];
	struct counts_line lines[COUNTS_THREADS_MAX];
};

_Static_assert(sizeof(struct counts_line) == 128, "as bench/counts reads it");
_Static_assert(offsetof(struct counts_file, lines) == 128, "as bench/counts reads it");

/* glibc's own entrances to its allocator. */
extern void *__libc_malloc(size_t size);
extern void *__libc_calloc(size_t n, size_t size);
extern void *__libc_realloc(void *p, size_t size);
extern void *__libc_memalign(size_t alignment, size_t size);
extern void __libc_free(void *p);

/* The functions that this library stands in front of. */
int posix_memalign(void **ret, size_t alignment, size_t size);
void *memcpy(void *restrict to, const void *restrict from, size_t size);
void *memmove(void *to, const void *from, size_t size);
void rocksdb_write(void *db, const void *options, void *batch, char **error);
void *rocksdb_get_pinned_cf(void *db, const void *options, void *family, const char *key,
			    size_t key_size, char **error);

static struct counts_file counts_unmapped;
static struct counts_file *counts_all = &counts_unmapped;
static _Thread_local __attribute__((tls_model("initial-exec"))) struct counts_line *counts_mine;
static int (*counts_clock_gettime)(clockid_t, struct timespec *);
static void *(*counts_memcpy)(void *, const void *, size_t);
static void *(*counts_memmove)(void *, const void *, size_t);
static void (*counts_rocksdb_write)(void *, const void *, void *, char **);
static void *(*counts_rocksdb_get)(void *, const void *, void *, const char *, size_t, char **);

static struct counts_line *counts_line(void)
{
	uint32_t i;

	if (counts_mine != NULL)
		return counts_mine;
	if (counts_all == &counts_unmapped)
		return &counts_unmapped.lines[0];
	i = atomic_fetch_add(&counts_all->threads, 1);
	if (i >= COUNTS_THREADS_MAX)
		i = COUNTS_THREADS_MAX - 1;
	counts_mine = &counts_all->lines[i];
	counts_mine->n[COUNTS_THREAD] = (uint64_t)gettid();
	return counts_mine;
}

static void count(enum counts_kind kind, uint64_t by)
{
	counts_line()->n[kind] += by;
}

static __attribute__((constructor)) void counts_begin(void)
{
	const char *dir = getenv("PAVE_COUNTS_DIR");
	char path[4200];
	void *map;
	int fd;

	*(void **)&counts_clock_gettime = dlsym(RTLD_NEXT, "clock_gettime");
	*(void **)&counts_memcpy = dlsym(RTLD_NEXT, "memcpy");
	*(void **)&counts_memmove = dlsym(RTLD_NEXT, "memmove");
	*(void **)&counts_rocksdb_write = dlsym(RTLD_NEXT, "rocksdb_write");
	*(void **)&counts_rocksdb_get = dlsym(RTLD_NEXT, "rocksdb_get_pinned_cf");
	if (dir == NULL)
		return;
	snprintf(path, sizeof path, "%.4096s/%d", dir, (int)getpid());
	fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (fd < 0)
		return;
	if (ftruncate(fd, (off_t)sizeof(struct counts_file)) == 0) {
		map = mmap(NULL, sizeof(struct counts_file), PROT_READ | PROT_WRITE, MAP_SHARED, fd,
			   0);
		if (map != MAP_FAILED) {
			counts_all = map;
			counts_all->magic = COUNTS_MAGIC;
		}
	}
	close(fd);
}

/* -- the allocator --------------------------------------------------------------------------- */

static void count_allocation(size_t size)
{
	count(COUNTS_MALLOC, 1);
	count(COUNTS_ALLOCATED_BYTES, size);
}

void *malloc(size_t size)
{
	count_allocation(size);
	return __libc_malloc(size);
}

void *calloc(size_t n, size_t size)
{
	count_allocation(n * size);
	return __libc_calloc(n, size);
}

void *realloc(void *p, size_t size)
{
	count(COUNTS_REALLOC, 1);
	count(COUNTS_ALLOCATED_BYTES, size);
	return __libc_realloc(p, size);
}

void *aligned_alloc(size_t alignment, size_t size)
{
	count_allocation(size);
	return __libc_memalign(alignment, size);
}

int posix_memalign(void **ret, size_t alignment, size_t size)
{
	void *p;

	count_allocation(size);
	p = __libc_memalign(alignment, size);
	if (p == NULL)
		return ENOMEM;
	*ret = p;
	return 0;
}

void free(void *p)
{
	if (p != NULL)
		count(COUNTS_FREE, 1);
	__libc_free(p);
}

/* -- copies ---------------------------------------------------------------------------------- */

/* Before the constructor has run; byte by byte, and so that the compiler does not see a memmove. */
static void *copy_early(void *to, const void *from, size_t size)
{
	volatile uint8_t *t = to;
	const volatile uint8_t *f = from;

	if ((uintptr_t)to <= (uintptr_t)from)
		for (size_t i = 0; i < size; i++)
			t[i] = f[i];
	else
		for (size_t i = size; i > 0; i--)
			t[i - 1] = f[i - 1];
	return to;
}

void *memcpy(void *restrict to, const void *restrict from, size_t size)
{
	if (size >= COUNTS_COPY_MIN)
		count(COUNTS_COPIED_BYTES, size);
	return counts_memcpy != NULL ? counts_memcpy(to, from, size) : copy_early(to, from, size);
}

void *memmove(void *to, const void *from, size_t size)
{
	if (size >= COUNTS_COPY_MIN)
		count(COUNTS_COPIED_BYTES, size);
	return counts_memmove != NULL ? counts_memmove(to, from, size) : copy_early(to, from, size);
}

/* -- RocksDB, by the functions that engine/kv uses ------------------------------------------- */

void rocksdb_write(void *db, const void *options, void *batch, char **error)
{
	count(COUNTS_KV_WRITE, 1);
	counts_rocksdb_write(db, options, batch, error);
}

void *rocksdb_get_pinned_cf(void *db, const void *options, void *family, const char *key,
			    size_t key_size, char **error)
{
	count(COUNTS_KV_READ, 1);
	return counts_rocksdb_get(db, options, family, key, key_size, error);
}

/* -- the clock ------------------------------------------------------------------------------- */

int clock_gettime(clockid_t clock, struct timespec *ret)
{
	count(COUNTS_CLOCK_READ, 1);
	return counts_clock_gettime != NULL ? counts_clock_gettime(clock, ret)
					    : (int)syscall(SYS_clock_gettime, clock, ret);
}
