/* stamps: see stamps.h. */
#include "bench/stamps.h"

#include <stdlib.h>
#include <string.h>

#define BUSY (1ull << 63)

struct stamps {
	uint64_t next;	   /* number of the next write */
	uint64_t number[]; /* of the write that each block should hold; 0: none yet; BUSY: an
			      operation is in flight */
};

/* Four times in a block, so that a torn one shows. */
struct stamp {
	uint64_t offset, number, mix;
};

static struct stamp stamp_of(uint64_t offset, uint64_t number)
{
	return (struct stamp){offset, number, (offset ^ number) * 0x9e3779b97f4a7c15ull};
}

struct stamps *stamps_create(uint64_t volume_size)
{
	struct stamps *s = calloc(1, sizeof *s + volume_size / BLOCK_SIZE * sizeof s->number[0]);

	if (s != NULL)
		s->next = 1;
	return s;
}

void stamps_destroy(struct stamps *s)
{
	free(s);
}

bool stamps_busy(const struct stamps *s, uint64_t offset, uint32_t size)
{
	for (uint64_t b = offset / BLOCK_SIZE; b < (offset + size) / BLOCK_SIZE; b++)
		if ((s->number[b] & BUSY) != 0)
			return true;
	return false;
}

void stamps_take(struct stamps *s, uint64_t offset, uint32_t size)
{
	for (uint64_t b = offset / BLOCK_SIZE; b < (offset + size) / BLOCK_SIZE; b++)
		s->number[b] |= BUSY;
}

void stamps_release(struct stamps *s, uint64_t offset, uint32_t size)
{
	for (uint64_t b = offset / BLOCK_SIZE; b < (offset + size) / BLOCK_SIZE; b++)
		s->number[b] &= ~BUSY;
}

void stamps_write(struct stamps *s, uint64_t offset, uint32_t size, uint8_t *data)
{
	const uint64_t number = s->next++;

	for (uint32_t at = 0; at < size; at += BLOCK_SIZE) {
		const struct stamp stamp = stamp_of(offset + at, number);

		for (uint32_t i = 0; i < BLOCK_SIZE; i += BLOCK_SIZE / 4)
			memcpy(data + at + i, &stamp, sizeof stamp);
		s->number[(offset + at) / BLOCK_SIZE] = number | BUSY;
	}
}

static bool block_is(const uint8_t *block, uint64_t offset, uint64_t number)
{
	const struct stamp want = stamp_of(offset, number);

	for (uint32_t i = 0; i < BLOCK_SIZE; i += BLOCK_SIZE / 4)
		if (memcmp(block + i, &want, sizeof want) != 0)
			return false;
	return true;
}

uint64_t stamps_check(const struct stamps *s, uint64_t offset, uint32_t size, const uint8_t *data,
		      uint64_t *ret_first)
{
	uint64_t bad = 0;

	for (uint32_t at = 0; at < size; at += BLOCK_SIZE) {
		const uint64_t number = s->number[(offset + at) / BLOCK_SIZE] & ~BUSY;

		if (number == 0 || block_is(data + at, offset + at, number))
			continue;
		if (bad++ == 0)
			*ret_first = offset + at;
	}
	return bad;
}
