/* stamps: see stamps.h. */
#include "bench/stamps.h"

#include <stdlib.h>
#include <string.h>

struct stamps {
	uint64_t next;	  /* number of the next write */
	uint64_t *number; /* of the write that each block should hold; 0: none yet. Or NULL */
	uint64_t busy[];  /* a bit for each block: an operation is in flight. Small, for it is asked
			     and changed for each operation */
};

/* Four times in a block, so that a torn one shows. Where blocks are checked, what is between them
 * depends on block and write too, so that each byte is; else it is the same again and again, and
 * costs nothing. */
struct stamp {
	uint64_t offset, number, mix;
};

#define WORDS	      (BLOCK_SIZE / sizeof(uint64_t))
#define STAMP_WORDS   (sizeof(struct stamp) / sizeof(uint64_t))
#define QUARTER_WORDS (WORDS / 4)

static uint64_t word_between(const struct stamp *s, uint32_t i)
{
	return s->mix + i * 0xbf58476d1ce4e5b9ull;
}

static struct stamp stamp_of(uint64_t offset, uint64_t number)
{
	return (struct stamp){offset, number, (offset ^ number) * 0x9e3779b97f4a7c15ull};
}

struct stamps *stamps_create(uint64_t volume_size, bool remember)
{
	const uint64_t blocks = volume_size / BLOCK_SIZE;
	struct stamps *s = calloc(1, sizeof *s + (blocks + 63) / 64 * sizeof s->busy[0]);

	if (s == NULL)
		return NULL;
	s->next = 1;
	if (!remember)
		return s;
	s->number = calloc(blocks, sizeof s->number[0]);
	if (s->number != NULL)
		return s;
	free(s);
	return NULL;
}

void stamps_destroy(struct stamps *s)
{
	if (s == NULL)
		return;
	free(s->number);
	free(s);
}

bool stamps_busy(const struct stamps *s, uint64_t offset, uint32_t size)
{
	for (uint64_t b = offset / BLOCK_SIZE; b < (offset + size) / BLOCK_SIZE; b++)
		if ((s->busy[b / 64] >> b % 64 & 1) != 0)
			return true;
	return false;
}

void stamps_take(struct stamps *s, uint64_t offset, uint32_t size)
{
	for (uint64_t b = offset / BLOCK_SIZE; b < (offset + size) / BLOCK_SIZE; b++)
		s->busy[b / 64] |= 1ull << b % 64;
}

void stamps_release(struct stamps *s, uint64_t offset, uint32_t size)
{
	for (uint64_t b = offset / BLOCK_SIZE; b < (offset + size) / BLOCK_SIZE; b++)
		s->busy[b / 64] &= ~(1ull << b % 64);
}

static void fill_between(uint8_t *block, const struct stamp *stamp)
{
	for (uint32_t i = 0; i < WORDS; i++) {
		const uint64_t word = word_between(stamp, i);

		if (i % QUARTER_WORDS >= STAMP_WORDS)
			memcpy(block + i * sizeof word, &word, sizeof word);
	}
}

/* Memory that is used for the first time is zero, and zeros may be cheaper for what is below than
 * what people write: it gets noise, as fio's has. */
static void fill_new_memory(uint8_t *block, const struct stamp *stamp)
{
	uint64_t word;

	memcpy(&word, block + BLOCK_SIZE - sizeof word, sizeof word);
	if (word == 0)
		fill_between(block, stamp);
}

void stamps_write(struct stamps *s, uint64_t offset, uint32_t size, uint8_t *data)
{
	const uint64_t number = s->next++;

	for (uint32_t at = 0; at < size; at += BLOCK_SIZE) {
		const struct stamp stamp = stamp_of(offset + at, number);

		for (uint32_t i = 0; i < BLOCK_SIZE; i += BLOCK_SIZE / 4)
			memcpy(data + at + i, &stamp, sizeof stamp);
		if (s->number == NULL) {
			fill_new_memory(data + at, &stamp);
			continue;
		}
		fill_between(data + at, &stamp);
		s->number[(offset + at) / BLOCK_SIZE] = number;
	}
}

static bool block_is(const uint8_t *block, uint64_t offset, uint64_t number)
{
	const struct stamp want = stamp_of(offset, number);

	for (uint32_t i = 0; i < BLOCK_SIZE; i += BLOCK_SIZE / 4)
		if (memcmp(block + i, &want, sizeof want) != 0)
			return false;
	for (uint32_t i = 0; i < WORDS; i++) {
		const uint64_t word = word_between(&want, i);

		if (i % QUARTER_WORDS >= STAMP_WORDS &&
		    memcmp(block + i * sizeof word, &word, sizeof word) != 0)
			return false;
	}
	return true;
}

struct stamps_checked stamps_check(const struct stamps *s, uint64_t offset, uint32_t size,
				   const uint8_t *data)
{
	struct stamps_checked c = {0};

	for (uint32_t at = 0; s->number != NULL && at < size; at += BLOCK_SIZE) {
		const uint64_t number = s->number[(offset + at) / BLOCK_SIZE];

		if (number == 0)
			continue;
		c.checked++;
		if (block_is(data + at, offset + at, number))
			continue;
		if (c.bad++ == 0)
			c.first_bad = offset + at;
	}
	return c;
}
