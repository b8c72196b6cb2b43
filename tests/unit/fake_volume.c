/* fake_volume: see fake_volume.h. */
#include "fake_volume.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "engine/base/assert.h"

#define READ_DELAY_TURNS 3u
#define READ_ALREADY	 UINT64_MAX /* in impl[1]: the content was taken when it was submitted */

static struct volume_op **link_of(struct volume_op *op)
{
	return (struct volume_op **)(void *)&op->impl[0];
}

static void room(struct volume *v)
{
	struct reactor_task *task = v->room;

	v->room = NULL;
	if (task != NULL)
		reactor_defer(v->reactor, task);
}

static void complete(struct volume *v, struct volume_op *op)
{
	uint8_t *at = v->data + op->offset;
	int status = 0;

	atomic_fetch_add(&v->ops_seen, 1);
	switch (op->kind) {
	case VOLUME_READ:
		if (op->impl[1] == 0)
			memcpy(op->buffer->data, at, op->size);
		break;
	case VOLUME_WRITE:
		status = atomic_load(&v->fail_writes);
		if (status == 0) {
			memcpy(at, op->buffer->data, op->size);
			memset(v->allocated + op->offset / BLOCK_SIZE, 1, op->size / BLOCK_SIZE);
		}
		break;
	case VOLUME_ZERO:
	case VOLUME_DISCARD:
		memset(at, 0, op->size);
		memset(v->allocated + op->offset / BLOCK_SIZE, 0, op->size / BLOCK_SIZE);
		break;
	case VOLUME_FLUSH:
		break;
	}
	op->done(op, status);
	room(v); /* an operation's place */
}

/* One turn: completes what is queued; a delayed read goes to the end of the queue a few times
 * first. */
static void run(struct reactor_task *t)
{
	struct volume *v = container_of(t, struct volume, run);
	struct volume_op *op = v->queue;

	if (atomic_load(&v->hold))
		return;
	v->queue = v->queue_last = NULL;
	while (op != NULL) {
		struct volume_op *next = *link_of(op);

		if (op->kind == VOLUME_READ && atomic_load(&v->delay_reads) &&
		    op->impl[1] < READ_DELAY_TURNS) {
			uint64_t turns = op->impl[1] + 1;

			/* What it returns is what was there before the delay. */
			if (turns == 1)
				memcpy(op->buffer->data, v->data + op->offset, op->size);
			volume_submit(v, op);
			op->impl[1] = turns;
		} else {
			complete(v, op);
		}
		op = next;
	}
}

void volume_submit(struct volume *v, struct volume_op *op)
{
	PRE(op->offset % BLOCK_SIZE == 0 && op->size % BLOCK_SIZE == 0);
	PRE(op->offset + op->size <= v->size);
	PRE(op->size <= IO_SIZE_MAX || op->kind == VOLUME_ZERO || op->kind == VOLUME_DISCARD);
	atomic_fetch_add(&v->ops_begun, 1);
	*link_of(op) = NULL;
	op->impl[1] = 0;
	if (op->kind == VOLUME_READ && atomic_load(&v->early_reads)) {
		memcpy(op->buffer->data, v->data + op->offset, op->size);
		op->impl[1] = READ_ALREADY;
	}
	if (v->queue == NULL)
		v->queue = op;
	else
		*link_of(v->queue_last) = op;
	v->queue_last = op;
	/* A post, not a deferral: other work of the reactor comes in between. */
	if (!v->run.queued) {
		v->run.queued = true;
		reactor_post(v->reactor, &v->run);
	}
}

static void run_posted(struct reactor_task *t)
{
	t->queued = false;
	run(t);
}

static void run_released(struct reactor_task *t)
{
	run(&container_of(t, struct volume, release)->run);
}

void fake_volume_release(struct volume *v)
{
	atomic_store(&v->hold, false);
	v->release.run = run_released;
	reactor_post(v->reactor, &v->release);
}

static void run_one(struct reactor_task *t)
{
	struct volume *v = container_of(t, struct volume, release);
	struct volume_op *op = v->queue;

	PRE(op != NULL);
	v->queue = *link_of(op);
	if (v->queue == NULL)
		v->queue_last = NULL;
	complete(v, op);
}

void fake_volume_let_one(struct volume *v)
{
	v->release.run = run_one;
	reactor_post(v->reactor, &v->release);
}

/* Address space; what is not touched takes no memory. */
static void *reserve(uint64_t size)
{
	void *p = mmap(NULL, size, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	PRE(p != MAP_FAILED);
	return p;
}

struct volume *fake_volume_create(struct reactor *r, uint64_t size)
{
	struct volume *v = calloc(1, sizeof *v);

	PRE(v != NULL);
	v->reactor = r;
	v->size = size;
	v->data = reserve(size);
	v->allocated = calloc(size / BLOCK_SIZE, sizeof *v->allocated);
	v->buffers_max = 1000;
	v->run.run = run_posted;
	PRE(v->allocated != NULL);
	return v;
}

void fake_volume_destroy(struct volume *v)
{
	POST(v->buffers_used == 0);
	munmap(v->data, v->size);
	free(v->allocated);
	free(v);
}

struct volume_buffer *volume_buffer_get(struct volume *v, uint32_t size)
{
	struct volume_buffer *b;

	PRE(size <= IO_SIZE_MAX);
	if (v->buffers_used == v->buffers_max)
		return NULL;
	b = calloc(1, sizeof *b);
	PRE(b != NULL);
	b->data = aligned_alloc(BLOCK_SIZE, ROUND_UP(size, BLOCK_SIZE));
	PRE(b->data != NULL);
	/* Whoever relies on memory that it did not fill in is seen. */
	memset(b->data, 0xa5, ROUND_UP(size, BLOCK_SIZE));
	b->size = (uint32_t)ROUND_UP(size, BLOCK_SIZE);
	b->refs = 1;
	v->buffers_used++;
	return b;
}

void volume_buffer_put(struct volume *v, struct volume_buffer *b)
{
	PRE(b->refs > 0);
	if (--b->refs > 0)
		return;
	free(b->data);
	free(b);
	v->buffers_used--;
	room(v);
}

void volume_on_room(struct volume *v, struct reactor_task *task)
{
	PRE(v->room == NULL);
	v->room = task;
}

static void extents_run(struct reactor_task *t);

struct extents_call {
	struct reactor_task task;
	struct volume *v;
	struct volume_extents_op *op;
};

void volume_extents(struct volume *v, struct volume_extents_op *op)
{
	struct extents_call *call = calloc(1, sizeof *call);

	PRE(call != NULL);
	call->task.run = extents_run;
	call->v = v;
	call->op = op;
	reactor_defer(v->reactor, &call->task);
}

static void extents_run(struct reactor_task *t)
{
	struct extents_call *call = container_of(t, struct extents_call, task);
	struct volume_extents_op *op = call->op;
	const bool *allocated = call->v->allocated;

	op->count = 0;
	for (uint64_t at = op->offset; at < op->offset + op->size; at += BLOCK_SIZE) {
		bool a = allocated[at / BLOCK_SIZE];

		if (op->count > 0 && op->extents[op->count - 1].allocated == a) {
			op->extents[op->count - 1].size += BLOCK_SIZE;
			continue;
		}
		if (op->count == op->max)
			break;
		op->extents[op->count++] = (struct volume_extent){BLOCK_SIZE, a};
	}
	free(call);
	op->done(op, 0);
}

uint64_t volume_size(const struct volume *v)
{
	return v->size;
}

bool volume_read_only(const struct volume *v)
{
	return v->read_only;
}
