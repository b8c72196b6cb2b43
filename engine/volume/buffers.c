/* buffers: see buffers.h.
 *
 * INVARIANT: a slab is in exactly one place: in partial[its class] (some free, some used), in empty
 * (nothing used), or in neither (all used). */
#include "engine/volume/buffers.h"

#include <stdlib.h>

#include "engine/base/assert.h"

struct vbuffers_slab {
	struct vbuffers_slab *next, *prev; /* of partial or empty */
	struct vbuffers_slab *all_next;
	uint8_t *data;
	struct volume_buffer *free;
	uint32_t class, used;
	uint32_t crcs[IO_BLOCKS_MAX];
	struct volume_buffer buffers[IO_BLOCKS_MAX];
};

void vbuffers_init(struct vbuffers *p, struct reactor *reactor, uint64_t bytes_max)
{
	*p = (struct vbuffers){.reactor = reactor, .slab_max = (uint32_t)(bytes_max / IO_SIZE_MAX)};
	PRE(p->slab_max > 2 * (VBUFFERS_RESERVE_BYTES / IO_SIZE_MAX));
}

void vbuffers_deinit(struct vbuffers *p)
{
	while (p->all != NULL) {
		struct vbuffers_slab *s = p->all;

		p->all = s->all_next;
		reactor_memory_put(p->reactor, s->data, IO_SIZE_MAX);
		free(s);
	}
	*p = (struct vbuffers){0};
}

static void list_push(struct vbuffers_slab **head, struct vbuffers_slab *s)
{
	s->prev = NULL;
	s->next = *head;
	if (*head != NULL)
		(*head)->prev = s;
	*head = s;
}

static void list_remove(struct vbuffers_slab **head, struct vbuffers_slab *s)
{
	if (s->prev != NULL)
		s->prev->next = s->next;
	else
		*head = s->next;
	if (s->next != NULL)
		s->next->prev = s->prev;
	s->next = s->prev = NULL;
}

static struct vbuffers_slab *slab_new(struct vbuffers *p)
{
	struct vbuffers_slab *s;

	if (p->slab_count == p->slab_max)
		return NULL;
	s = calloc(1, sizeof(*s));
	if (s == NULL)
		return NULL;
	s->data = reactor_memory(p->reactor, IO_SIZE_MAX);
	if (s->data == NULL) {
		free(s);
		p->slab_max = p->slab_count; /* the reactor has no more to give */
		return NULL;
	}
	s->all_next = p->all;
	p->all = s;
	p->slab_count++;
	return s;
}

static void slab_cut(struct vbuffers_slab *s, uint32_t class)
{
	const uint32_t blocks = 1u << class;

	s->class = class;
	s->used = 0;
	s->free = NULL;
	for (uint32_t i = IO_BLOCKS_MAX / blocks; i-- > 0;) {
		struct volume_buffer *b = &s->buffers[i];

		*b = (struct volume_buffer){
		    .data = s->data + (size_t)i * blocks * BLOCK_SIZE,
		    .size = blocks * BLOCK_SIZE,
		    .crcs = s->crcs + (size_t)i * blocks,
		    .next = s->free,
		    .slab = s,
		};
		s->free = b;
	}
}

struct volume_buffer *vbuffers_get(struct vbuffers *p, uint32_t size, bool own)
{
	const uint32_t reserve = own ? 0 : VBUFFERS_RESERVE_BYTES / IO_SIZE_MAX;
	struct vbuffers_slab *s;
	struct volume_buffer *b;
	uint32_t class = 0;

	PRE(size >= 1 && size <= IO_SIZE_MAX);
	while ((BLOCK_SIZE << class) < size)
		class ++;
	s = p->partial[class];
	if (s == NULL && p->used_slabs + reserve < p->slab_max) {
		s = p->empty;
		if (s != NULL)
			list_remove(&p->empty, s);
		else
			s = slab_new(p);
		if (s != NULL) {
			slab_cut(s, class);
			list_push(&p->partial[class], s);
			p->used_slabs++;
		}
	}
	for (uint32_t k = class + 1; s == NULL && k < VBUFFERS_CLASSES; k++)
		s = p->partial[k];
	if (s == NULL)
		return NULL;
	b = s->free;
	s->free = b->next;
	if (s->free == NULL)
		list_remove(&p->partial[s->class], s);
	s->used++;
	b->next = NULL;
	b->refs = 1;
	b->crcs_known = false;
	return b;
}

bool vbuffers_put(struct vbuffers *p, struct volume_buffer *b)
{
	struct vbuffers_slab *s;

	if (b == NULL)
		return false;
	PRE(b->refs > 0);
	if (--b->refs > 0)
		return false;
	s = b->slab;
	if (s->free == NULL)
		list_push(&p->partial[s->class], s);
	b->next = s->free;
	s->free = b;
	if (--s->used == 0) {
		list_remove(&p->partial[s->class], s);
		list_push(&p->empty, s);
		p->used_slabs--;
	}
	return true;
}
