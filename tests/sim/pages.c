/* pages: see pages.h.
 *
 * A page is one of two: all its bytes; or a *series*: three words, and then words that rise by one,
 * as the oracle stamps blocks. The lowest bit of the pointer says which. Both are places of slabs,
 * and do not change once they are made: so copies of a page are one, counted. */
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
	uint64_t copies;
	uint64_t head[HEAD_WORDS], first;
};

struct whole {
	uint64_t copies;
	uint8_t bytes[BLOCK_SIZE];
};

struct place {
	struct place *next;
};

struct slab {
	size_t place_size;
	struct place *free;
	uint8_t *at, *end; /* of the newest, what was never used */
};

static struct slab wholes = {.place_size = sizeof(struct whole)};
static struct slab some = {.place_size = sizeof(struct series)};

static void *take(struct slab *s)
{
	struct place *p = s->free;
	void *place;

	if (p != NULL) {
		s->free = p->next;
		return p;
	}
	if ((size_t)(s->end - s->at) < s->place_size) {
		s->at = malloc(SLAB_SIZE);
		INVARIANT(s->at != NULL);
		s->end = s->at + SLAB_SIZE;
	}
	place = s->at;
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

static struct whole *whole_of(const struct sim_page *page)
{
	return (struct whole *)(uintptr_t)page;
}

void sim_page_drop(struct sim_page **page)
{
	if (is_series(*page)) {
		if (--series_of(*page)->copies == 0)
			give_back(&some, series_of(*page));
	} else if (*page != NULL && --whole_of(*page)->copies == 0) {
		give_back(&wholes, *page);
	}
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

static struct sim_page *make_series(const loose_word *from)
{
	struct series *s = take(&some);

	s->copies = 1;
	memcpy(s->head, from, sizeof(s->head));
	s->first = from[HEAD_WORDS];
	return (struct sim_page *)((uintptr_t)s | SERIES_BIT);
}

static struct sim_page *make_whole(const loose_word *from)
{
	struct whole *w = take(&wholes);

	w->copies = 1;
	memcpy(w->bytes, from, BLOCK_SIZE);
	return (struct sim_page *)w;
}

static void write_whole(struct sim_page **page, const loose_word *from)
{
	const bool may_rise = from[HEAD_WORDS + 1] == from[HEAD_WORDS] + 1;

	sim_page_drop(page);
	if (from[0] == 0 && all_zero(from))
		return;
	*page = may_rise && rises(from) ? make_series(from) : make_whole(from);
}

static void unfold(const struct series *s, loose_word *to)
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
		memcpy(to, whole_of(page)->bytes + offset, size);
	} else if (size == BLOCK_SIZE) {
		unfold(series_of(page), to);
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
	if (is_series(from))
		series_of(from)->copies++;
	else if (from != NULL)
		whole_of(from)->copies++;
	*to = (struct sim_page *)(uintptr_t)from;
}
