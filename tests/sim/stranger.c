/* stranger: see stranger.h. */
#include "tests/sim/stranger.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/assert.h"
#include "engine/base/crc32c.h"

#define CHUNK_BLOCKS (CLUSTER_CHUNK_SIZE / BLOCK_SIZE)
#define AGAIN_NS     (100 * NS_PER_MS)

enum stranger_state { STRANGER_ABSENT, STRANGER_FILLING, STRANGER_LEAVING };

struct stranger {
	struct machine *node;
	enum stranger_state state;
	bool busy;	/* an operation is in flight */
	uint64_t next;	/* block to be written; all before are */
	uint32_t count; /* blocks of the next write: fewer where more did not fit */
	uint8_t *data;
	uint32_t crcs[IO_BLOCKS_MAX];
	struct store_write write;
	struct store_erase_op erase;
	struct reactor_timer again;
};

static void go_on(struct stranger *s);

static struct reactor *reactor_of(const struct stranger *s)
{
	return sim_reactor(s->node->process);
}

static void again(struct reactor_timer *t)
{
	go_on(container_of(t, struct stranger, again));
}

static void go_on_later(struct stranger *s)
{
	reactor_timer_arm(reactor_of(s), &s->again, reactor_now_ns(reactor_of(s)) + AGAIN_NS);
}

static void written(struct store_write *op, int status)
{
	struct stranger *s = container_of(op, struct stranger, write);
	struct cluster *c = s->node->cluster;

	s->busy = false;
	if (status == 0) {
		s->next += s->count;
		go_on(s);
		return;
	}
	if (status == -ENOSPC && s->count == 1)
		c->stats.full++;
	s->count = status == -ENOSPC && s->count > 1 ? s->count / 2 : 1;
	go_on_later(s);
}

static void fill(struct stranger *s)
{
	const uint64_t left = CHUNK_BLOCKS - s->next % CHUNK_BLOCKS;

	s->count = (uint32_t)MIN(s->count, left);
	s->busy = true;
	s->write = (struct store_write){.done = written,
					.kind = STORE_DATA,
					.volume = STRANGER_VOLUME,
					.chunk = (chunk_no_t)(s->next / CHUNK_BLOCKS),
					.block = (block_no_t)(s->next % CHUNK_BLOCKS),
					.block_count = s->count,
					.version = version_make(1, s->next + 1),
					.crcs = s->crcs,
					.data = s->data};
	pool_write(s->node->node.pool, &s->write);
}

static void erased(struct store_erase_op *op, int status)
{
	struct stranger *s = container_of(op, struct stranger, erase);

	s->busy = false;
	sim_trace(s->node->cluster->world, s->node->process, "the stranger has left: %s",
		  err_name(status));
	if (status != 0) {
		go_on_later(s);
		return;
	}
	s->next = 0;
	s->state = s->state == STRANGER_LEAVING ? STRANGER_ABSENT : s->state;
	go_on(s);
}

static void go_on(struct stranger *s)
{
	if (s->busy || s->node->node.pool == NULL || s->state == STRANGER_ABSENT)
		return;
	if (s->state == STRANGER_FILLING) {
		fill(s);
		return;
	}
	s->busy = true;
	s->erase =
	    (struct store_erase_op){.done = erased, .volume = STRANGER_VOLUME, .chunk = UINT32_MAX};
	pool_erase(s->node->node.pool, &s->erase);
}

void stranger_come(struct stranger *s)
{
	s->state = STRANGER_FILLING;
	s->count = IO_BLOCKS_MAX;
	go_on(s);
}

void stranger_leave(struct stranger *s)
{
	if (s->state == STRANGER_FILLING)
		s->state = STRANGER_LEAVING;
	go_on(s);
}

void stranger_node_serves(struct stranger *s)
{
	s->again = (struct reactor_timer){.fire = again};
	go_on(s);
}

void stranger_node_crashed(struct stranger *s)
{
	s->busy = false;
}

struct stranger *stranger_create(struct machine *node)
{
	struct stranger *s = calloc(1, sizeof(*s));

	INVARIANT(s != NULL);
	s->node = node;
	s->data = aligned_alloc(BLOCK_SIZE, IO_SIZE_MAX);
	INVARIANT(s->data != NULL);
	memset(s->data, 0, IO_SIZE_MAX);
	for (uint32_t i = 0; i < IO_BLOCKS_MAX; i++)
		s->crcs[i] = crc32c(0, s->data, BLOCK_SIZE);
	return s;
}

void stranger_destroy(struct stranger *s)
{
	if (s == NULL)
		return;
	free(s->data);
	free(s);
}
