/* memory: see memory.h. */
#include "engine/reactor/memory.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "engine/base/assert.h"
#include "engine/base/types.h"

int memory_init(struct memory *m, size_t size_bytes)
{
	size_t size = ROUND_UP(size_bytes, (size_t)MEMORY_EXTENT_SIZE);
	size_t granules = size / MEMORY_EXTENT_SIZE;
	size_t map_bytes = size + MEMORY_EXTENT_SIZE;
	uint16_t *slots = malloc(granules * sizeof *slots);
	void *map;

	PRE(size_bytes > 0);
	if (slots == NULL)
		return -ENOMEM;
	map = mmap(NULL, map_bytes, PROT_READ | PROT_WRITE,
		   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (map == MAP_FAILED) {
		free(slots);
		return -ENOMEM;
	}
	memset(slots, 0xff, granules * sizeof *slots); /* MEMORY_NO_SLOT */
	*m = (struct memory){
	    .base = (uint8_t *)ROUND_UP((uintptr_t)map, (uintptr_t)MEMORY_EXTENT_SIZE),
	    .size_bytes = size,
	    .map = map,
	    .map_bytes = map_bytes,
	    .slots = slots,
	};
	/* Large pages make a registered buffer one piece for the kernel; only a hint. */
	madvise(m->base, size, MADV_HUGEPAGE);
	return 0;
}

void memory_deinit(struct memory *m)
{
	if (m->map != NULL)
		munmap(m->map, m->map_bytes);
	free(m->slots);
	*m = (struct memory){0};
}

/* A piece of exactly this size that was given back, zeroed. NULL: there is none. */
static void *piece_take(struct memory *m, size_t size_bytes)
{
	for (struct memory_piece **p = &m->pieces; *p != NULL; p = &(*p)->next) {
		struct memory_piece *piece = *p;

		if (piece->size_bytes != size_bytes)
			continue;
		*p = piece->next;
		return memset(piece, 0, size_bytes);
	}
	return NULL;
}

void *memory_alloc(struct memory *m, size_t size_bytes, struct memory_extent *ret_extent)
{
	size_t size;
	void *p;

	*ret_extent = (struct memory_extent){0};
	if (size_bytes == 0 || size_bytes > m->size_bytes)
		return NULL;
	size = ROUND_UP(size_bytes, (size_t)BLOCK_SIZE);
	p = piece_take(m, size);
	if (p != NULL)
		return p;
	if (size > m->grown_bytes - m->used_bytes) {
		size_t grow = ROUND_UP(size, (size_t)MEMORY_EXTENT_SIZE);

		if (grow > m->size_bytes - m->grown_bytes)
			return NULL;
		/* The rest of the last extent is given up: an allocation lies in one extent. */
		*ret_extent = (struct memory_extent){m->base + m->grown_bytes, grow};
		m->used_bytes = m->grown_bytes;
		m->grown_bytes += grow;
	}
	p = m->base + m->used_bytes;
	m->used_bytes += size;
	POST(m->used_bytes <= m->grown_bytes && m->grown_bytes <= m->size_bytes);
	return p;
}

void memory_free(struct memory *m, void *p, size_t size_bytes)
{
	struct memory_piece *piece = p;

	if (p == NULL)
		return;
	PRE((uint8_t *)p >= m->base &&
	    size_bytes <= (size_t)(m->base + m->used_bytes - (uint8_t *)p));
	*piece = (struct memory_piece){m->pieces, ROUND_UP(size_bytes, (size_t)BLOCK_SIZE)};
	m->pieces = piece;
}

void memory_set_slot(struct memory *m, const struct memory_extent *extent, uint16_t slot)
{
	size_t first = (size_t)((uint8_t *)extent->base - m->base) / MEMORY_EXTENT_SIZE;

	PRE(slot < MEMORY_SLOTS_MAX);
	for (size_t i = 0; i < extent->size_bytes / MEMORY_EXTENT_SIZE; i++)
		m->slots[first + i] = slot;
}
