/* The memory behind reactor_memory: an address range reserved once, handed out from the bottom in
 * multiples of BLOCK_SIZE. It grows by extents; each extent is offered to the kernel as one
 * registered buffer, and no allocation straddles two of them. What is given back is kept for the
 * next who asks for as much, and never cut: the same sizes come again.
 *
 * Thread: the reactor's. Knows nothing of rings: whoever grows it registers. */
#ifndef REACTOR_MEMORY_H
#define REACTOR_MEMORY_H

#include <stddef.h>
#include <stdint.h>

#define MEMORY_EXTENT_SIZE (2u << 20) /* the granule; an extent is one or more of them */
#define MEMORY_NO_SLOT	   UINT16_MAX
#define MEMORY_SLOTS_MAX   8192u /* registered buffers; extents beyond it are used unregistered */
#define MEMORY_SLOT_SIZE_MAX                                                                       \
	(1u << 30) /* larger extents are used unregistered: the kernel's limit */

/* Lies in the first bytes of what was given back. */
struct memory_piece {
	struct memory_piece *next;
	size_t size_bytes;
};

struct memory {
	uint8_t *base;
	size_t size_bytes;  /* reserved; a multiple of MEMORY_EXTENT_SIZE */
	size_t used_bytes;  /* up to here it is handed out or wasted */
	size_t grown_bytes; /* up to here it belongs to extents */
	struct memory_piece *pieces;
	void *map; /* what mmap gave */
	size_t map_bytes;
	uint16_t *slots; /* of each granule: the registered buffer that covers it */
};

struct memory_extent {
	void *base;
	size_t size_bytes;
};

/* 0 or -ENOMEM. size_bytes is rounded up to granules. */
int memory_init(struct memory *m, size_t size_bytes);
void memory_deinit(struct memory *m);

/* Zeroed memory or NULL. ret_extent->size_bytes is not 0 when an extent was opened for it, which
 * the caller may then register. */
void *memory_alloc(struct memory *m, size_t size_bytes, struct memory_extent *ret_extent);

/* Gives back what memory_alloc gave for size_bytes. NULL is allowed. */
void memory_free(struct memory *m, void *p, size_t size_bytes);

/* Notes that the extent is the registered buffer of this number. */
void memory_set_slot(struct memory *m, const struct memory_extent *extent, uint16_t slot);

/* The registered buffer that holds all of [buf, buf + size_bytes), or MEMORY_NO_SLOT. */
static inline uint16_t memory_slot(const struct memory *m, const void *buf, size_t size_bytes)
{
	uintptr_t from = (uintptr_t)buf - (uintptr_t)m->base;
	uint16_t slot;

	/* Below base it wraps round and is far out of range. */
	if (from >= m->grown_bytes || size_bytes == 0 || size_bytes > m->grown_bytes - from)
		return MEMORY_NO_SLOT;
	slot = m->slots[from / MEMORY_EXTENT_SIZE];
	return slot == m->slots[(from + size_bytes - 1) / MEMORY_EXTENT_SIZE] ? slot
									      : MEMORY_NO_SLOT;
}

#endif
