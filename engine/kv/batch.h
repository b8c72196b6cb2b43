/* What a batch holds until a worker applies it: puts, deletes and deletes of ranges, in the order
 * in which they came; and that order made better.
 *
 * RocksDB keeps what was written last in a skip list, and finds the place of each key from its top:
 * keys that come in order find the way still in the caches, those at random none of it. So before
 * it is applied everything between two deletes of ranges is sorted by family and key, and what has
 * the same key keeps its order: the outcome is the same.
 *
 * Thread: filled on the reactor's, visited on any, one at a time. Memory comes in pieces; when
 * there is none the batch is marked as failed and applied by nobody; when there is none for sorting
 * it is visited as it came. */
#ifndef KV_BATCH_H
#define KV_BATCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum batch_kind { BATCH_PUT, BATCH_DELETE, BATCH_DELETE_RANGE };

struct batch_record {
	uint64_t seq;
	uint32_t family;
	uint32_t key_size;
	uint32_t value_size; /* BATCH_DELETE_RANGE: of the key that is the end of the range */
	uint32_t kind;
	uint8_t bytes[]; /* key, value */
};

struct batch {
	struct batch_piece *first, *last;
	uint64_t count;
	bool failed; /* for want of memory: it isn't whole */
};

void batch_add(struct batch *b, enum batch_kind kind, uint32_t family, const void *key,
	       size_t key_size, const void *value, size_t value_size);

/* Everything that was added, in an order with the same outcome. Not of one that failed. */
void batch_visit(const struct batch *b, void (*visit)(const struct batch_record *record, void *arg),
		 void *arg);

/* Gives its memory back. */
void batch_deinit(struct batch *b);

#endif
