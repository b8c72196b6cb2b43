/* memory: what is registered with the device: the reactor's pools, what was added to the transport
 * (a guest's memory), and arenas for messages. See conn.h.
 *
 * Happy path: pools are registered as they grow, added memory when a payload first lies in it; both
 * stay registered until the device is closed, and are registered anew with the next. So what a
 * transport was given outlives its devices.
 *
 * Failure modes: what the device does not register is registered for each payload, if that is
 * possible, and warned of once. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/assert.h"
#include "engine/base/log.h"
#include "net/rdma/conn.h"

/* -- regions ---------------------------------------------------------------------------------- */

/* NULL: it is refused, from now on until the device is closed. */
static struct ibv_mr *register_region(struct rdma *t, void *base, size_t size_bytes)
{
	struct ibv_mr *mr;

	if (t->regions_refused)
		return NULL;
	mr = t->verbs->reg_mr(t->pd, base, size_bytes,
			      IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_READ);
	if (mr != NULL)
		return mr;
	t->regions_refused = true;
	log_warn("rdma",
		 "%zu MiB of I/O memory, beside %zu MiB, aren't registered with the device: %s; it "
		 "works, slower (raise the limit of locked memory, RLIMIT_MEMLOCK)",
		 size_bytes >> 20, t->regions_bytes >> 20, err_text(-errno));
	return NULL;
}

/* Registers what the reactor's memory has grown by. Each allocation lies within one growth. */
static void register_growth(struct rdma *t)
{
	struct rdma_region *r = &t->regions[t->region_count];
	void *base;
	size_t size;

	reactor_memory_range(t->head.reactor, &base, &size);
	if (size == t->regions_bytes || t->region_count == RDMA_REGIONS_MAX)
		return;
	r->base = (uint8_t *)base + t->regions_bytes;
	r->size_bytes = size - t->regions_bytes;
	r->mr = register_region(t, r->base, r->size_bytes);
	if (r->mr == NULL)
		return;
	t->region_count++;
	t->regions_bytes = size;
}

/* The region of these, in the order of their addresses, that holds it all, or NULL. */
static struct rdma_region *find(struct rdma_region *regions, uint32_t count, const uint8_t *at,
				size_t size_bytes)
{
	uint32_t low = 0, high = count;

	while (low < high) { /* the first that ends behind it */
		const uint32_t middle = low + (high - low) / 2;
		const struct rdma_region *r = &regions[middle];

		if (r->base + r->size_bytes <= at)
			low = middle + 1;
		else
			high = middle;
	}
	if (low == count || at < regions[low].base)
		return NULL;
	return size_bytes <= (size_t)(regions[low].base + regions[low].size_bytes - at)
		   ? &regions[low]
		   : NULL;
}

struct ibv_mr *rdma_region_find(struct rdma *t, const void *p, size_t size_bytes)
{
	struct rdma_region *r;

	register_growth(t);
	r = find(t->regions, t->region_count, p, size_bytes);
	if (r != NULL)
		return r->mr;
	r = find(t->added, t->added_count, p, size_bytes);
	if (r != NULL && r->mr == NULL)
		r->mr = register_region(t, r->base, r->size_bytes);
	return r != NULL ? r->mr : NULL;
}

/* -- memory that is not the reactor's --------------------------------------------------------- */

int rdma_memory_add(struct transport *head, void *base, size_t size_bytes)
{
	struct rdma *t = rdma_of(head);
	uint8_t *p = base;
	uint32_t at = 0;

	PRE((uintptr_t)base % BLOCK_SIZE == 0 && size_bytes > 0);
	while (at < t->added_count && t->added[at].base < p)
		at++;
	if ((at > 0 && t->added[at - 1].base + t->added[at - 1].size_bytes > p) ||
	    (at < t->added_count && t->added[at].base < p + size_bytes))
		return -EINVAL;
	if (t->added_count == TRANSPORT_MEMORIES_MAX)
		return -E_LIMIT;
	memmove(&t->added[at + 1], &t->added[at], (t->added_count - at) * sizeof t->added[0]);
	t->added[at] = (struct rdma_region){p, size_bytes, NULL};
	t->added_count++;
	return 0;
}

void rdma_memory_remove(struct transport *head, void *base)
{
	struct rdma *t = rdma_of(head);
	uint32_t at = 0;

	while (at < t->added_count && t->added[at].base != base)
		at++;
	PRE(at < t->added_count);
	if (t->added[at].mr != NULL)
		t->verbs->dereg_mr(t->added[at].mr);
	t->added_count--;
	memmove(&t->added[at], &t->added[at + 1], (t->added_count - at) * sizeof t->added[0]);
}

/* -- arenas ----------------------------------------------------------------------------------- */

static void arena_free(struct rdma *t, struct rdma_arena *arena)
{
	if (arena->mr != NULL)
		t->verbs->dereg_mr(arena->mr);
	free(arena->memory);
	free(arena);
}

static struct rdma_arena *arena_create(struct rdma *t)
{
	struct rdma_arena *arena = calloc(1, sizeof *arena);
	const size_t size = ROUND_UP((size_t)RDMA_ARENA_SLOTS * RDMA_SLOT_SIZE, (size_t)BLOCK_SIZE);

	if (arena == NULL)
		return NULL;
	arena->memory = aligned_alloc(BLOCK_SIZE, size);
	if (arena->memory != NULL)
		arena->mr = t->verbs->reg_mr(t->pd, arena->memory, size, IBV_ACCESS_LOCAL_WRITE);
	if (arena->mr == NULL) {
		arena_free(t, arena);
		return NULL;
	}
	return arena;
}

struct rdma_arena *rdma_arena_get(struct rdma *t)
{
	struct rdma_arena *arena = t->tx_arenas;

	if (arena == NULL)
		return arena_create(t);
	t->tx_arenas = arena->next;
	return arena;
}

void rdma_arena_put(struct rdma *t, struct rdma_arena *arena)
{
	arena->next = t->tx_arenas;
	t->tx_arenas = arena;
}

/* -- the end ---------------------------------------------------------------------------------- */

void rdma_memory_close(struct rdma *t)
{
	while (t->rx_arena_count > 0)
		arena_free(t, t->rx_arenas[--t->rx_arena_count]);
	while (t->tx_arenas != NULL) {
		struct rdma_arena *arena = t->tx_arenas;

		t->tx_arenas = arena->next;
		arena_free(t, arena);
	}
	while (t->region_count > 0)
		t->verbs->dereg_mr(t->regions[--t->region_count].mr);
	t->regions_bytes = 0;
	t->regions_refused = false;
	for (uint32_t i = 0; i < t->added_count; i++) {
		if (t->added[i].mr != NULL)
			t->verbs->dereg_mr(t->added[i].mr);
		t->added[i].mr = NULL;
	}
}
