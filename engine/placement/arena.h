/* Memory for the pieces of one message: handed out bit by bit, freed together. Zeroed; an
 * allocation that fails is remembered, and the builder asks once at the end (arena_failed). */
#ifndef PLACEMENT_ARENA_H
#define PLACEMENT_ARENA_H

#include <stdbool.h>
#include <stddef.h>

struct arena_piece;

struct arena {
	struct arena_piece *pieces;
	size_t used, size; /* of the newest piece */
	bool failed;
};

/* NULL without memory. */
void *arena_get(struct arena *a, size_t size_bytes);
/* A copy; never NULL: without memory it is an empty static string. */
char *arena_text(struct arena *a, const char *text);
char *arena_printf(struct arena *a, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static inline bool arena_failed(const struct arena *a)
{
	return a->failed;
}
void arena_deinit(struct arena *a); /* zeroed memory is allowed */

#endif
