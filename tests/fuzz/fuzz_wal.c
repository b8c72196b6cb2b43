/* The look at RocksDB's logs: the input is a log, in blocks of 32 KiB. What is said of it must be
 * what a plain reader finds that tries every place; and a log in which everything checks must not
 * be refused when it is cut off between two batches. Each input is tried as it is, and
 * with the checksums of its records put right. */
#include <string.h>
#include <sys/mman.h>

#include "engine/base/assert.h"
#include "engine/base/crc32c.h"
#include "engine/base/types.h"
#include "engine/kv/wal.h"
#include "tests/fuzz/fuzz.h"

#define HEADER_SIZE 7u
#define FULL	    1u
#define FIRST	    2u
#define LAST	    4u
#define LOG_MAX	    (4u * WAL_BLOCK_SIZE)

static uint32_t length_at(const uint8_t *p)
{
	return (uint32_t)p[4] + 256u * p[5];
}

static uint32_t checksum_of(const uint8_t *p)
{
	uint32_t crc = crc32c(0, p + 6, 1 + length_at(p));

	return (crc >> 15 | crc << 17) + 0xa282ead8u;
}

/* Whether a whole record that checks is at p. */
static bool is_record(const uint8_t *p, const uint8_t *end)
{
	uint32_t stored;

	if (end - p < (ptrdiff_t)HEADER_SIZE || (uint32_t)(end - p) - HEADER_SIZE < length_at(p))
		return false;
	stored = p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
	return stored == checksum_of(p);
}

static bool begins(const uint8_t *p)
{
	return p[6] == FULL || p[6] == FIRST;
}

/* Any place behind p at which a batch begins. */
static bool any_batch(const uint8_t *p, const uint8_t *end)
{
	for (; end - p >= (ptrdiff_t)HEADER_SIZE; p++)
		if (begins(p) && is_record(p, end))
			return true;
	return false;
}

static struct wal_damage expected(const uint8_t *log, size_t size)
{
	struct wal_damage d = {.at = UINT64_MAX};

	for (size_t at = 0; at < size && !d.batch_behind; at += WAL_BLOCK_SIZE) {
		const uint8_t *p = log + at, *end = log + MIN(size, at + WAL_BLOCK_SIZE);

		while (is_record(p, end) && !(begins(p) && d.at != UINT64_MAX))
			p += HEADER_SIZE + length_at(p);
		if (end - p < (ptrdiff_t)HEADER_SIZE)
			continue;
		if (d.at == UINT64_MAX)
			d.at = (uint64_t)(p - log);
		d.batch_behind = any_batch(p, end);
	}
	return d;
}

/* So much memory that ends where no more may be read: the checksum is not instrumented, so that no
 * sanitizer would see it read a byte too far. */
static uint8_t *before_the_end(size_t size)
{
	static uint8_t *end;

	if (end == NULL) {
		uint8_t *p = mmap(NULL, 2 * WAL_BLOCK_SIZE, PROT_READ | PROT_WRITE,
				  MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

		INVARIANT(p != MAP_FAILED);
		end = p + WAL_BLOCK_SIZE;
		INVARIANT(mprotect(end, WAL_BLOCK_SIZE, PROT_NONE) == 0);
	}
	return end - size;
}

/* As wal_check reads a file. */
static struct wal_damage look(const uint8_t *log, size_t size)
{
	struct wal_damage d = {.at = UINT64_MAX};

	for (size_t at = 0; at < size && !d.batch_behind; at += WAL_BLOCK_SIZE) {
		uint32_t part = (uint32_t)MIN(size - at, (size_t)WAL_BLOCK_SIZE);
		uint8_t *block = before_the_end(part);

		memcpy(block, log + at, part);
		wal_look(block, part, at, &d);
	}
	return d;
}

static void check(const uint8_t *log, size_t size)
{
	struct wal_damage d = look(log, size), e = expected(log, size);

	INVARIANT(d.at == e.at && d.batch_behind == e.batch_behind);
	INVARIANT(d.at == UINT64_MAX ? !d.batch_behind : d.at < size);
}

/* Of a log in which everything checks: cut off at the end of any batch it is one still. */
static void check_cuts(const uint8_t *log, size_t size)
{
	for (size_t at = 0; at < size; at += WAL_BLOCK_SIZE) {
		const uint8_t *p = log + at, *end = log + MIN(size, at + WAL_BLOCK_SIZE);

		while (is_record(p, end)) {
			bool ends = p[6] == FULL || p[6] == LAST;
			struct wal_damage d;

			p += HEADER_SIZE + length_at(p);
			if (!ends)
				continue;
			d = look(log, (size_t)(p - log));
			INVARIANT(d.at == UINT64_MAX && !d.batch_behind);
		}
	}
}

static void put_right(uint8_t *log, size_t size)
{
	for (size_t at = 0; at < size; at += WAL_BLOCK_SIZE) {
		uint8_t *p = log + at;
		const uint8_t *end = log + MIN(size, at + WAL_BLOCK_SIZE);

		while (end - p >= (ptrdiff_t)HEADER_SIZE &&
		       (uint32_t)(end - p) - HEADER_SIZE >= length_at(p)) {
			uint32_t crc = checksum_of(p);

			for (uint32_t i = 0; i < 4; i++)
				p[i] = (uint8_t)(crc >> 8 * i);
			p += HEADER_SIZE + length_at(p);
		}
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static uint8_t log[LOG_MAX];

	size = MIN(size, sizeof log);
	memcpy(log, data, size);
	check(log, size);
	put_right(log, size);
	check(log, size);
	if (look(log, size).at == UINT64_MAX)
		check_cuts(log, size);
	return 0;
}
