/* volatile-disk: an nbdkit plugin that serves a file as a disk with a volatile write cache, so that
 * SIGKILL is a power loss. (A killed QEMU alone loses nothing: what it wrote is in the page cache.)
 *
 *   nbdkit volatile-disk.so file=IMAGE [seed=N] [destage=PERCENT] [atom=512|4096] [lie=PATH]
 *
 * What is written stays in this process's memory until a flush, or a write with FUA, brings it to
 * the file. As a drive does, the cache also writes some of it back at any time and in any order:
 * each atom of a write goes to the file at once with the chance `destage`. So what a kill leaves of
 * the writes since the last flush is a random part of them, torn at the size of an atom. A discard
 * takes effect at once: whoever should still need the data after a power loss has lost it.
 *
 * INVARIANTS
 *  1. A sector that is dirty lives in `cache`, whatever the file holds; one that is clean lives in
 *     the file.
 *  2. After a flush no sector is dirty, unless PATH exists: then the disk lies. Nothing reaches the
 *     file any more, whatever is flushed, so that a kill takes all disks that share PATH back to
 *     the instant at which it was made. The test's control: it must find out.
 *
 * The cache belongs to a connection and ends with it, unwritten. Failure modes: errors of the file
 * are the client's. */
#define NBDKIT_API_VERSION 2
#include <nbdkit-plugin.h>

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define THREAD_MODEL NBDKIT_THREAD_MODEL_SERIALIZE_ALL_REQUESTS

#define SECTOR		512u
#define CACHE_KEEP_MAX	(64u << 20) /* of clean memory, before it is given back */
#define REQUEST_MAX	(32u << 20)
#define REQUEST_OPTIMAL 4096u

static struct {
	char *file, *lie;
	unsigned seed, destage, atom;
} config = {.seed = 1, .destage = 25, .atom = SECTOR};

struct cached_disk {
	int fd;
	uint64_t size_bytes;
	uint8_t *cache;
	uint8_t *dirty;	      /* one a sector */
	uint64_t first, last; /* sectors: all that are dirty lie in [first, last) */
	uint64_t kept_bytes;  /* that went through the cache since memory was given back */
	uint64_t random;
};

static int volatile_config(const char *key, const char *value)
{
	if (strcmp(key, "file") == 0) {
		free(config.file);
		config.file = nbdkit_realpath(value);
		return config.file != NULL ? 0 : -1;
	}
	if (strcmp(key, "lie") == 0) {
		free(config.lie);
		config.lie = nbdkit_absolute_path(value);
		return config.lie != NULL ? 0 : -1;
	}
	if (strcmp(key, "seed") == 0)
		return nbdkit_parse_unsigned("seed", value, &config.seed);
	if (strcmp(key, "destage") == 0)
		return nbdkit_parse_unsigned("destage", value, &config.destage);
	if (strcmp(key, "atom") == 0)
		return nbdkit_parse_unsigned("atom", value, &config.atom);
	nbdkit_error("%s: no such parameter: file, seed, destage, atom, lie", key);
	return -1;
}

static int volatile_config_complete(void)
{
	if (config.file == NULL || config.destage > 100 || config.atom < SECTOR ||
	    config.atom % SECTOR != 0) {
		nbdkit_error("file=IMAGE is needed, destage is 0 to 100, atom a multiple of %u",
			     SECTOR);
		return -1;
	}
	return 0;
}

static void volatile_close(void *handle)
{
	struct cached_disk *d = handle;

	if (d->cache != NULL)
		munmap(d->cache, d->size_bytes);
	free(d->dirty);
	close(d->fd);
	free(d);
}

static void *volatile_open(int readonly)
{
	struct cached_disk *d = calloc(1, sizeof *d);
	struct stat st;
	void *memory;

	(void)readonly;
	if (d == NULL)
		return NULL;
	d->fd = open(config.file, O_RDWR | O_CLOEXEC);
	if (d->fd < 0 || fstat(d->fd, &st) < 0 || st.st_size == 0 || st.st_size % SECTOR != 0) {
		nbdkit_error("%s: it cannot be opened, or has no whole sectors: %m", config.file);
		goto failed;
	}
	d->size_bytes = (uint64_t)st.st_size;
	d->dirty = calloc(d->size_bytes / SECTOR, 1);
	memory = mmap(NULL, d->size_bytes, PROT_READ | PROT_WRITE,
		      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	d->cache = memory != MAP_FAILED ? memory : NULL;
	if (d->dirty == NULL || d->cache == NULL) {
		nbdkit_error("no memory for a cache of %s", config.file);
		goto failed;
	}
	d->first = d->size_bytes / SECTOR;
	d->random = 88172645463325252ull ^ (config.seed * 0x9e3779b97f4a7c15ull);
	return d;
failed:
	volatile_close(d);
	return NULL;
}

static int64_t volatile_get_size(void *handle)
{
	const struct cached_disk *d = handle;

	return (int64_t)d->size_bytes;
}

static int volatile_block_size(void *handle, uint32_t *minimum, uint32_t *preferred,
			       uint32_t *maximum)
{
	(void)handle;
	*minimum = SECTOR;
	*preferred = REQUEST_OPTIMAL;
	*maximum = REQUEST_MAX;
	return 0;
}

static int volatile_can_fua(void *handle)
{
	(void)handle;
	return NBDKIT_FUA_NATIVE;
}

static int check_aligned(uint32_t count, uint64_t offset)
{
	if (count % SECTOR == 0 && offset % SECTOR == 0)
		return 0;
	nbdkit_error("%u bytes at %llu: not whole sectors", count, (unsigned long long)offset);
	nbdkit_set_error(EINVAL);
	return -1;
}

static int write_file(const struct cached_disk *d, const uint8_t *from, uint64_t size,
		      uint64_t offset)
{
	while (size > 0) {
		ssize_t n = pwrite(d->fd, from, size, (off_t)offset);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0) {
			nbdkit_error("%s: write: %m", config.file);
			return -1;
		}
		from += n;
		size -= (uint64_t)n;
		offset += (uint64_t)n;
	}
	return 0;
}

static int read_file(const struct cached_disk *d, uint8_t *to, uint64_t size, uint64_t offset)
{
	while (size > 0) {
		ssize_t n = pread(d->fd, to, size, (off_t)offset);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0) {
			nbdkit_error("%s: read: %m", config.file);
			return -1;
		}
		to += n;
		size -= (uint64_t)n;
		offset += (uint64_t)n;
	}
	return 0;
}

static int volatile_pread(void *handle, void *buf, uint32_t count, uint64_t offset, uint32_t flags)
{
	const struct cached_disk *d = handle;

	(void)flags;
	if (check_aligned(count, offset) != 0 || read_file(d, buf, count, offset) != 0)
		return -1;
	for (uint32_t at = 0; at < count; at += SECTOR)
		if (d->dirty[(offset + at) / SECTOR])
			memcpy((uint8_t *)buf + at, d->cache + offset + at, SECTOR);
	return 0;
}

static int lies(void)
{
	return config.lie != NULL && access(config.lie, F_OK) == 0;
}

static unsigned percent(struct cached_disk *d)
{
	d->random ^= d->random << 13;
	d->random ^= d->random >> 7;
	d->random ^= d->random << 17;
	return (unsigned)((d->random >> 20) % 100);
}

static void mark_dirty(struct cached_disk *d, uint32_t count, uint64_t offset)
{
	const uint64_t first = offset / SECTOR, last = (offset + count) / SECTOR;

	memset(d->dirty + first, 1, last - first);
	d->kept_bytes += count;
	if (first < d->first)
		d->first = first;
	if (last > d->last)
		d->last = last;
}

/* Some atoms reach the file at once. They stay dirty, which changes nothing for who reads. */
static int destage(struct cached_disk *d, uint32_t count, uint64_t offset)
{
	const uint64_t end = offset + count;

	while (offset < end) {
		uint64_t next = (offset / config.atom + 1) * config.atom;

		if (next > end)
			next = end;
		if (percent(d) < config.destage &&
		    write_file(d, d->cache + offset, next - offset, offset) != 0)
			return -1;
		offset = next;
	}
	return 0;
}

static int volatile_pwrite(void *handle, const void *buf, uint32_t count, uint64_t offset,
			   uint32_t flags)
{
	struct cached_disk *d = handle;

	if (check_aligned(count, offset) != 0)
		return -1;
	if ((flags & NBDKIT_FLAG_FUA) && !lies()) {
		memset(d->dirty + offset / SECTOR, 0, count / SECTOR);
		return write_file(d, buf, count, offset);
	}
	memcpy(d->cache + offset, buf, count);
	mark_dirty(d, count, offset);
	return lies() ? 0 : destage(d, count, offset);
}

static int volatile_flush(void *handle, uint32_t flags)
{
	struct cached_disk *d = handle;
	uint64_t at = d->first;

	(void)flags;
	if (lies())
		return 0;
	while (at < d->last) {
		uint8_t *found = memchr(d->dirty + at, 1, d->last - at);
		uint64_t run = 0;

		if (found == NULL)
			break;
		at = (uint64_t)(found - d->dirty);
		while (at + run < d->last && d->dirty[at + run])
			run++;
		if (write_file(d, d->cache + at * SECTOR, run * SECTOR, at * SECTOR) != 0)
			return -1;
		memset(d->dirty + at, 0, run);
		at += run;
	}
	d->first = d->size_bytes / SECTOR;
	d->last = 0;
	if (d->kept_bytes > CACHE_KEEP_MAX) {
		d->kept_bytes = 0;
		madvise(d->cache, d->size_bytes, MADV_DONTNEED);
	}
	return 0;
}

static int volatile_trim(void *handle, uint32_t count, uint64_t offset, uint32_t flags)
{
	struct cached_disk *d = handle;

	(void)flags;
	if (check_aligned(count, offset) != 0)
		return -1;
	if (lies()) {
		memset(d->cache + offset, 0, count);
		mark_dirty(d, count, offset);
		return 0;
	}
	memset(d->dirty + offset / SECTOR, 0, count / SECTOR);
	if (fallocate(d->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)offset,
		      (off_t)count) < 0) {
		nbdkit_error("%s: discard: %m", config.file);
		return -1;
	}
	return 0;
}

static struct nbdkit_plugin plugin = {
    .name = "volatiledisk",
    .longname = "a disk with a volatile write cache",
    .config = volatile_config,
    .config_complete = volatile_config_complete,
    .config_help = "file=IMAGE seed=N destage=PERCENT atom=BYTES lie=PATH",
    .open = volatile_open,
    .close = volatile_close,
    .get_size = volatile_get_size,
    .block_size = volatile_block_size,
    .can_fua = volatile_can_fua,
    .pread = volatile_pread,
    .pwrite = volatile_pwrite,
    .flush = volatile_flush,
    .trim = volatile_trim,
};

NBDKIT_REGISTER_PLUGIN(plugin)
