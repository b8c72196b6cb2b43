/* arena: see arena.h. */
#include "engine/placement/arena.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PIECE_SIZE 16384u
#define ALIGNMENT  16u

struct arena_piece {
	struct arena_piece *next;
	_Alignas(ALIGNMENT) unsigned char bytes[];
};

void *arena_get(struct arena *a, size_t size_bytes)
{
	size_t need = (size_bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
	void *p;

	if (a->pieces == NULL || need > a->size - a->used) {
		size_t size = need > PIECE_SIZE ? need : PIECE_SIZE;
		struct arena_piece *piece = calloc(1, sizeof *piece + size);

		if (piece == NULL) {
			a->failed = true;
			return NULL;
		}
		piece->next = a->pieces;
		a->pieces = piece;
		a->size = size;
		a->used = 0;
	}
	p = a->pieces->bytes + a->used;
	a->used += need;
	return p;
}

char *arena_text(struct arena *a, const char *text)
{
	static char empty[1];
	size_t size = strlen(text) + 1;
	char *p = arena_get(a, size);

	if (p == NULL)
		return empty;
	memcpy(p, text, size);
	return p;
}

char *arena_printf(struct arena *a, const char *fmt, ...)
{
	char text[1024];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof text, fmt, ap);
	va_end(ap);
	return arena_text(a, text);
}

void arena_deinit(struct arena *a)
{
	while (a->pieces != NULL) {
		struct arena_piece *next = a->pieces->next;

		free(a->pieces);
		a->pieces = next;
	}
	a->used = a->size = 0;
}
