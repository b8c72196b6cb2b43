/* rewrite: see rewrite.h.
 *
 *   WAITING (locked; an overlapping write is undecided, or there is no memory) -> READING ->
 * WRITING
 *       -> done. Any failure ends it; whoever asked may ask again. */
#include "engine/volume/rewrite.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/assert.h"
#include "engine/base/crc32c.h"
#include "engine/volume/core.h"

enum rewrite_state { REWRITE_FREE, REWRITE_WAITING, REWRITE_READING, REWRITE_WRITING };

struct vrewrite {
	enum rewrite_state state;
	bool locked;
	struct vlock lock;
	struct vchunk *chunk;
	struct volume_buffer *buffer;
	struct vread *read;
	struct vwrite *write;
	uint64_t epoch;
	void (*done)(void *owner, int status);
	void *owner;
};

int vrewrite_init(struct volume *v)
{
	v->rewrites = calloc(VREWRITES_MAX, sizeof(*v->rewrites));
	return v->rewrites != NULL ? 0 : -ENOMEM;
}

void vrewrite_deinit(struct volume *v)
{
	free(v->rewrites);
	v->rewrites = NULL;
}

bool vrewrite_is_zero(const struct volume_buffer *b, uint32_t block_count)
{
	for (uint32_t i = 0; i < block_count; i++)
		if (b->crcs[i] != CRC32C_ZERO_BLOCK)
			return false;
	return b->data[0] == 0 &&
	       memcmp(b->data, b->data + 1, (size_t)block_count * BLOCK_SIZE - 1) == 0;
}

static void unlock(struct vrewrite *rw)
{
	if (rw->locked)
		vchunk_unlock(rw->chunk, &rw->lock);
	rw->locked = false;
}

static void clean(struct vrewrite *rw)
{
	struct volume *v = rw->chunk->volume;

	unlock(rw);
	if (vbuffers_put(&v->buffers, rw->buffer))
		volume_room(v);
	*rw = (struct vrewrite){0};
}

static void finish(struct vrewrite *rw, int status)
{
	void (*done)(void *, int) = rw->done;
	void *owner = rw->owner;

	clean(rw);
	if (done != NULL)
		done(owner, status);
}

static void written(struct vwrite *w, int status)
{
	struct vrewrite *rw = w->what.owner;

	rw->write = NULL;
	finish(rw, status);
}

static void write_back(struct vrewrite *rw)
{
	struct vchunk *c = rw->chunk;
	const uint32_t n = rw->lock.block_count;
	struct vwrite_what what = {
	    .block = rw->lock.block,
	    .block_count = n,
	    .buffer = rw->buffer,
	    .need = c->volume->majority,
	    .decided = written,
	    .owner = rw,
	};

	if (!vchunk_serves(c) || c->epoch != rw->epoch) {
		finish(rw, -E_STALE_REPLICA);
		return;
	}
	crc32c_blocks(rw->buffer->data, n, rw->buffer->crcs);
	rw->buffer->crcs_known = true;
	what.zero = what.discard = vrewrite_is_zero(rw->buffer, n);
	what.targets = vchunk_targets(c);
	if (!vchunk_serves(c) || !vchunk_enough(c, what.targets, what.need) ||
	    !vwrite_start(c, &what, true, &rw->write)) {
		finish(rw, -E_UNREACHABLE);
		return;
	}
	rw->state = REWRITE_WRITING;
	unlock(rw);
}

static void read_done(struct vread *rd, int status)
{
	struct vrewrite *rw = rd->owner;

	rw->read = NULL;
	if (status != 0)
		finish(rw, status);
	else
		write_back(rw);
}

static void tick(struct vrewrite *rw)
{
	struct vchunk *c = rw->chunk;

	if (rw->state != REWRITE_WAITING)
		return;
	if (!vchunk_serves(c) || c->epoch != rw->epoch) {
		finish(rw, -E_STALE_REPLICA);
		return;
	}
	if (vwrite_overlaps(c, rw->lock.block, rw->lock.block_count, UINT64_MAX).undecided)
		return;
	if (rw->buffer == NULL)
		rw->buffer =
		    vbuffers_get(&c->volume->buffers, rw->lock.block_count * BLOCK_SIZE, true);
	if (rw->buffer == NULL)
		return;
	rw->read = vread_start(c, rw->lock.block, rw->lock.block_count, rw->buffer, 0, true,
			       read_done, rw);
	if (rw->read != NULL)
		rw->state = REWRITE_READING;
}

struct vrewrite *vrewrite_start(struct vchunk *c, block_no_t block, uint32_t block_count,
				void (*done)(void *owner, int status), void *owner)
{
	struct volume *v = c->volume;

	PRE(block_count >= 1 && block_count <= IO_BLOCKS_MAX);
	for (uint32_t i = 0; i < VREWRITES_MAX; i++) {
		struct vrewrite *rw = &v->rewrites[i];

		if (rw->state != REWRITE_FREE)
			continue;
		*rw = (struct vrewrite){
		    .state = REWRITE_WAITING,
		    .locked = true,
		    .lock = {.block = block, .block_count = block_count},
		    .chunk = c,
		    .epoch = c->epoch,
		    .done = done,
		    .owner = owner,
		};
		vchunk_lock(c, &rw->lock);
		v->rewrites_begun = true;
		reactor_defer(v->reactor, &v->kick_task);
		return rw;
	}
	return NULL;
}

void vrewrite_cancel(struct vrewrite *rw)
{
	if (rw->read != NULL)
		vread_cancel(rw->read);
	if (rw->write != NULL) {
		rw->write->what.decided = vwrite_ignore;
		rw->write->what.owner = NULL;
	}
	clean(rw);
}

void vrewrite_repair(struct vchunk *c, block_no_t block, uint32_t block_count)
{
	if (!vchunk_serves(c) || vchunk_locked(c, block, block_count))
		return;
	if (vrewrite_start(c, block, block_count, NULL, NULL) != NULL)
		c->volume->stats.repairs++;
}

void vrewrite_tick(struct volume *v)
{
	for (uint32_t i = 0; i < VREWRITES_MAX; i++)
		if (v->rewrites[i].state != REWRITE_FREE)
			tick(&v->rewrites[i]);
}

void vrewrite_stop(struct volume *v)
{
	for (uint32_t i = 0; i < VREWRITES_MAX; i++)
		if (v->rewrites[i].state != REWRITE_FREE)
			vrewrite_cancel(&v->rewrites[i]);
}

bool vrewrite_idle(const struct volume *v)
{
	for (uint32_t i = 0; i < VREWRITES_MAX; i++)
		if (v->rewrites[i].state != REWRITE_FREE)
			return false;
	return true;
}
