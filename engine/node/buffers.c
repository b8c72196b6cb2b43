/* buffers: see buffers.h.
 *
 * INVARIANTS
 *  1. A unit is in exactly one place: the free list (no piece taken), the list of its class (some
 *     taken, some free), or in no list (all taken).
 *  2. used_bytes is the sum of the sizes of all pieces taken, by class.
 *
 * Failure modes: pieces of one size that are spread over many units can keep those units from
 * serving another size; then a larger class is tried before giving up. */
#include "engine/node/buffers.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <utlist.h>

#include "engine/base/assert.h"

static const uint32_t class_sizes[NODE_BUFFERS_CLASS_COUNT] = {
    4u << 10, 16u << 10, 64u << 10, 128u << 10, 256u << 10, 512u << 10, NODE_BUFFERS_UNIT_SIZE};

int node_buffers_init(struct node_buffers *b, struct reactor *r, uint64_t bytes_max)
{
	const uint32_t unit_max = (uint32_t)(bytes_max / NODE_BUFFERS_UNIT_SIZE);

	PRE(unit_max > 0);
	*b = (struct node_buffers){.reactor = r, .unit_max = unit_max};
	b->units = calloc(unit_max, sizeof(*b->units));
	return b->units != NULL ? 0 : -ENOMEM;
}

void node_buffers_deinit(struct node_buffers *b)
{
	free(b->units);
	b->units = NULL;
}

/* A unit in which nothing is taken, in no list; NULL: the bound is reached. */
static struct node_buffers_unit *take_unit(struct node_buffers *b)
{
	struct node_buffers_unit *u = b->free_units;

	if (u != NULL) {
		DL_DELETE(b->free_units, u);
		return u;
	}
	if (b->unit_count == b->unit_max)
		return NULL;
	u = &b->units[b->unit_count];
	u->data = reactor_memory(b->reactor, NODE_BUFFERS_UNIT_SIZE);
	if (u->data == NULL) {
		b->unit_max = b->unit_count;
		return NULL;
	}
	b->unit_count++;
	return u;
}

static void cut_unit(struct node_buffers_unit *u, uint32_t size_class)
{
	const uint32_t count = NODE_BUFFERS_UNIT_SIZE / class_sizes[size_class];

	u->size_class = size_class;
	u->piece_count = count;
	u->free_count = count;
	for (uint32_t i = 0; i < NODE_BUFFERS_BITMAP_WORDS; i++) {
		const uint32_t here = count > 64 * i ? MIN(count - 64 * i, 64u) : 0;

		u->free_pieces[i] = here == 64 ? UINT64_MAX : ((uint64_t)1 << here) - 1;
	}
}

static struct node_buffer take_piece(struct node_buffers *b, struct node_buffers_unit *u)
{
	uint32_t word = 0;
	uint32_t piece;

	while (u->free_pieces[word] == 0)
		word++;
	INVARIANT(word < NODE_BUFFERS_BITMAP_WORDS && u->free_count > 0);
	piece = 64 * word + (uint32_t)__builtin_ctzll(u->free_pieces[word]);
	u->free_pieces[word] &= u->free_pieces[word] - 1;
	if (--u->free_count == 0)
		DL_DELETE(b->partial[u->size_class], u);
	b->used_bytes += class_sizes[u->size_class];
	b->peak_bytes = MAX(b->peak_bytes, b->used_bytes);
	return (struct node_buffer){u->data + (size_t)piece * class_sizes[u->size_class], u};
}

struct node_buffer node_buffers_get(struct node_buffers *b, uint32_t size_bytes)
{
	uint32_t wanted = 0;

	PRE(size_bytes > 0 && size_bytes <= NODE_BUFFERS_UNIT_SIZE);
	while (class_sizes[wanted] < size_bytes)
		wanted++;
	if (b->partial[wanted] == NULL) {
		struct node_buffers_unit *u = take_unit(b);

		if (u != NULL) {
			cut_unit(u, wanted);
			DL_APPEND(b->partial[wanted], u);
		}
	}
	for (uint32_t c = wanted; c < NODE_BUFFERS_CLASS_COUNT; c++)
		if (b->partial[c] != NULL)
			return take_piece(b, b->partial[c]);
	return (struct node_buffer){0};
}

uint32_t node_buffer_size(const struct node_buffer *piece)
{
	return piece->data != NULL ? class_sizes[piece->unit->size_class] : 0;
}

void node_buffers_put(struct node_buffers *b, struct node_buffer *piece)
{
	struct node_buffers_unit *u = piece->unit;
	uint32_t index;

	if (piece->data == NULL)
		return;
	index = (uint32_t)((size_t)(piece->data - u->data) / class_sizes[u->size_class]);
	PRE((u->free_pieces[index / 64] & ((uint64_t)1 << (index % 64))) == 0);
	u->free_pieces[index / 64] |= (uint64_t)1 << (index % 64);
	if (u->free_count++ == 0)
		DL_PREPEND(b->partial[u->size_class], u);
	if (u->free_count == u->piece_count) {
		DL_DELETE(b->partial[u->size_class], u);
		DL_PREPEND(b->free_units, u);
	}
	b->used_bytes -= class_sizes[u->size_class];
	*piece = (struct node_buffer){0};
}
