/* wal: see wal.h.
 *
 * A log (RocksDB's db/log_format.h) is a row of blocks of 32 KiB. A block is a row of records, none
 * of which crosses its end: masked CRC32C of what follows the length (4 bytes), length (2), type
 * (1), and so many bytes. A batch is one FULL record, or a FIRST one, MIDDLE ones and a LAST one.
 *
 * A batch that is torn may lack any of its pages, so records of it may be whole behind one that is
 * not. But none of these is FULL or FIRST: the next batch is only begun when this one is synced.
 *
 * What doesn't check may be the length, so behind it a record is looked for at every byte up to the
 * end of the block. That 4 bytes fit by chance, at one of 32 Ki places where the type does too, is
 * less likely than one in ten million. */
#include "engine/kv/wal.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "engine/base/crc32c.h"
#include "engine/base/err.h"
#include "engine/base/types.h"

#define WAL_HEADER_SIZE 7u

enum wal_type { WAL_FULL = 1, WAL_FIRST = 2 };

static bool begins_batch(uint8_t type)
{
	return type == WAL_FULL || type == WAL_FIRST;
}

/* The size of the record at p, of which `size` bytes are there, or 0: it doesn't check. */
static uint32_t record_size(const uint8_t *p, uint32_t size)
{
	uint32_t crc, length;

	if (size < WAL_HEADER_SIZE)
		return 0;
	length = p[4] | (uint32_t)p[5] << 8;
	if (length > size - WAL_HEADER_SIZE)
		return 0;
	crc = crc32c(0, p + 6, 1 + length);
	crc = ((crc >> 15) | (crc << 17)) + 0xa282ead8u;
	if (p[0] != (crc & 0xff) || p[1] != (crc >> 8 & 0xff) || p[2] != (crc >> 16 & 0xff) ||
	    p[3] != crc >> 24)
		return 0;
	return WAL_HEADER_SIZE + length;
}

void wal_look(const uint8_t *block, uint32_t size, uint64_t offset, struct wal_damage *d)
{
	bool lost = false; /* where the next record begins is not known */
	uint32_t at = 0;

	/* The rest, where no header fits, is filled up. */
	while (at + WAL_HEADER_SIZE <= size && !d->batch_behind) {
		const bool begins = begins_batch(block[at + 6]);
		const uint32_t used = begins || !lost ? record_size(block + at, size - at) : 0;

		if (used == 0 && d->at == UINT64_MAX)
			d->at = offset + at;
		d->batch_behind = used != 0 && begins && d->at != UINT64_MAX;
		lost = used == 0;
		at += lost ? 1 : used;
	}
}

static int check_log(int fd, uint8_t *block, struct wal_damage *ret_damage)
{
	struct wal_damage d = {.at = UINT64_MAX};
	uint64_t offset = 0;
	ssize_t n = WAL_BLOCK_SIZE;

	while (n == WAL_BLOCK_SIZE && !d.batch_behind) {
		n = pread(fd, block, WAL_BLOCK_SIZE, (off_t)offset);
		if (n < 0)
			return -errno;
		wal_look(block, (uint32_t)n, offset, &d);
		offset += (uint64_t)n;
	}
	*ret_damage = d;
	return 0;
}

static bool is_log(const char *name)
{
	const size_t digits = strspn(name, "0123456789");

	return digits > 0 && strcmp(name + digits, ".log") == 0;
}

static int check_named(int dir_fd, const char *path, const char *name, uint8_t *block,
		       struct error *err)
{
	const int fd = openat(dir_fd, name, O_RDONLY | O_CLOEXEC);
	struct wal_damage d = {0};
	int rc = 0;

	/* Gone meanwhile, with the process that had it; what else is wrong RocksDB will say. */
	if (fd < 0)
		return 0;
	rc = check_log(fd, block, &d);
	close(fd);
	if (rc != 0)
		return error_set(err, -EIO, "database %s: %s: %s", path, name, strerror(-rc));
	if (d.batch_behind)
		return error_set(err, -E_CORRUPT,
				 "database %s: %s is damaged at byte %llu, and changes that were "
				 "confirmed come after that; restore it, or make it anew",
				 path, name, (unsigned long long)d.at);
	return 0;
}

int wal_check(const char *path, struct error *err)
{
	uint8_t *block = malloc(WAL_BLOCK_SIZE);
	DIR *dir = opendir(path);
	const struct dirent *e;
	int rc = 0;

	if (block == NULL)
		rc = error_set(err, -ENOMEM, "database %s: %s", path, err_text(-ENOMEM));
	while (rc == 0 && dir != NULL && (e = readdir(dir)) != NULL)
		if (is_log(e->d_name))
			rc = check_named(dirfd(dir), path, e->d_name, block, err);
	if (dir != NULL)
		closedir(dir);
	free(block);
	return rc;
}
