/* pages: see pages.h.
 *
 * A page is one of two: all its bytes; or a *series*: three words, and then words that rise by one,
 * as the oracle stamps blocks. The lowest bit of the pointer says which. Both are places of slabs.
 */
#include "tests/sim/pages.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/assert.h"

#define SLAB_SIZE  (1u << 20)
#define WORDS	   (BLOCK_SIZE / sizeof(uint64_t))
#define HEAD_WORDS 3u
#define SERIES_BIT 1u

struct series {
	uint64_t head[HEAD_WORDS], first;
};

struct place {
	struct place *next;
};

struct slab {
	size_t place_size;
	struct place *free;
	uint8_t *at, *end; /* of the newest, what was never used */
};

static struct slab wholes = {.place_size = BLOCK_SIZE};
static struct slab some = {.place_size = sizeof(struct series)};

static void *take(struct slab *s)
{
	struct place *p = s->free;
	void *place = s->at;

	if (p != NULL) {
		s->free = p->next;
		return p;
	}
	if (s->at == s->end) {
		s->at = place = aligned_alloc(BLOCK_SIZE, SLAB_SIZE);
		INVARIANT(place != NULL);
		s->end = s->at + SLAB_SIZE;
	}
	s->at += s->place_size;
	return place;
}

static void give_back(struct slab *s, void *place)
{
	struct place *p = place;

	p->next = s->free;
	s->free = p;
}

static bool is_series(const struct sim_page *page)
{
	return ((uintptr_t)page & SERIES_BIT) != 0;
}

static struct series *series_of(const struct sim_page *page)
{
	return (struct series *)((uintptr_t)page & ~(uintptr_t)SERIES_BIT);
}

void sim_page_drop(struct sim_page **page)
{
	if (is_series(*page))
		give_back(&some, series_of(*page));
	else if (*page != NULL)
		give_back(&wholes, *page);
	*page = NULL;
}

/* Of bytes that lie anywhere. */
typedef uint64_t loose_word __attribute__((aligned(1), may_alias));

static bool all_zero(const loose_word *words)
{
	uint64_t any = 0;

	for (size_t i = 0; i < WORDS; i++)
		any |= words[i];
	return any == 0;
}

static bool rises(const loose_word *words)
{
	uint64_t differ = 0;

	for (size_t i = HEAD_WORDS; i < WORDS; i++)
		differ |= words[i] ^ (words[HEAD_WORDS] + (i - HEAD_WORDS));
	return differ == 0;
}

static void write_whole(struct sim_page **page, const loose_word *from)
{
	const bool may_rise = from[HEAD_WORDS + 1] == from[HEAD_WORDS] + 1;

	if (from[0] == 0 && all_zero(from)) {
		sim_page_drop(page);
	} else if (may_rise && rises(from)) {
		struct series *s = take(&some);

		memcpy(s->head, from, sizeof(s->head));
		s->first = from[HEAD_WORDS];
		sim_page_drop(page);
		*page = (struct sim_page *)((uintptr_t)s | SERIES_BIT);
	} else {
		if (is_series(*page))
			sim_page_drop(page);
		if (*page == NULL)
			*page = take(&wholes);
		memcpy(*page, from, BLOCK_SIZE);
	}
}

static void unfold(const struct series *s, uint64_t *to)
{
	memcpy(to, s->head, sizeof(s->head));
	for (size_t i = HEAD_WORDS; i < WORDS; i++)
		to[i] = s->first + (i - HEAD_WORDS);
}

void sim_page_read(const struct sim_page *page, size_t offset, void *to, size_t size)
{
	uint64_t words[WORDS];

	PRE(offset + size <= BLOCK_SIZE);
	if (page == NULL) {
		memset(to, 0, size);
	} else if (!is_series(page)) {
		memcpy(to, (const uint8_t *)page + offset, size);
	} else {
		unfold(series_of(page), words);
		memcpy(to, (const uint8_t *)words + offset, size);
	}
}

void sim_page_write(struct sim_page **page, size_t offset, const void *from, size_t size)
{
	uint64_t words[WORDS];

	PRE(offset + size <= BLOCK_SIZE);
	if (size == BLOCK_SIZE) {
		write_whole(page, from);
		return;
	}
	sim_page_read(*page, 0, words, BLOCK_SIZE);
	memcpy((uint8_t *)words + offset, from, size);
	write_whole(page, words);
}

void sim_page_copy(struct sim_page **to, const struct sim_page *from)
{
	PRE(*to == NULL);
	if (is_series(from)) {
		struct series *s = take(&some);

		*s = *series_of(from);
		*to = (struct sim_page *)((uintptr_t)s | SERIES_BIT);
	} else if (from != NULL) {
		*to = take(&wholes);
		memcpy(*to, from, BLOCK_SIZE);
	}
}
