/* Memory for payloads: a bounded number of units of 1 MiB, each cut into pieces of one size while
 * any of it is in use. Grows by a unit when more is in use than ever before, and never shrinks.
 *
 * Thread: the reactor's. Taking and giving back are a few instructions, without allocation. */
#ifndef NODE_BUFFERS_H
#define NODE_BUFFERS_H

#include "engine/base/types.h"
#include "engine/reactor/reactor.h"

#define NODE_BUFFERS_UNIT_SIZE	  IO_SIZE_MAX
#define NODE_BUFFERS_CLASS_COUNT  7u /* 4, 16, 64, 128, 256, 512 KiB, 1 MiB */
#define NODE_BUFFERS_BITMAP_WORDS (NODE_BUFFERS_UNIT_SIZE / BLOCK_SIZE / 64u)

struct node_buffers_unit {
	struct node_buffers_unit *next, *prev; /* in the list of its class, or of free units */
	uint8_t *data;
	uint64_t free_pieces[NODE_BUFFERS_BITMAP_WORDS];
	uint32_t free_count, piece_count;
	uint32_t size_class;
};

/* A piece that was taken. data NULL: none. */
struct node_buffer {
	uint8_t *data; /* aligned to BLOCK_SIZE */
	struct node_buffers_unit *unit;
};

struct node_buffers {
	struct reactor *reactor;
	struct node_buffers_unit *units; /* unit_max places */
	uint32_t unit_count, unit_max;
	struct node_buffers_unit *free_units;
	struct node_buffers_unit *partial[NODE_BUFFERS_CLASS_COUNT]; /* units with free pieces */
	uint64_t used_bytes, peak_bytes;
};

/* 0 or -ENOMEM. No payload memory is taken yet. */
int node_buffers_init(struct node_buffers *b, struct reactor *r, uint64_t bytes_max);
void node_buffers_deinit(struct node_buffers *b); /* the payload memory stays the reactor's */

/* size: 1 to IO_SIZE_MAX. data is NULL when the bound is reached, or the reactor has no more. */
struct node_buffer node_buffers_get(struct node_buffers *b, uint32_t size_bytes);

/* What a piece counts for: its size. 0 for none. */
uint32_t node_buffer_size(const struct node_buffer *piece);

/* Harmless for none; *piece is none afterwards. */
void node_buffers_put(struct node_buffers *b, struct node_buffer *piece);

#endif
