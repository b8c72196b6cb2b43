/* Rewrites: blocks read from a current replica and written again under a new version, so that every
 * replica holds the same. Used where one of them holds something else: a phantom (resync), or data
 * that does not check (repair).
 *
 * The range is locked against the guest's writes from before the reading until the new version is
 * in flight, for otherwise an older content would get a newer version than a write in between. */
#ifndef VOLUME_REWRITE_H
#define VOLUME_REWRITE_H

#include "engine/volume/chunk.h"

#define VREWRITES_MAX 64u

struct vrewrite;
struct volume;

/* NULL: VREWRITES_MAX are at work. block_count up to IO_BLOCKS_MAX. done(status) follows, never
 * from inside, when a majority has the new version; 0 or why not. */
struct vrewrite *vrewrite_start(struct vchunk *c, block_no_t block, uint32_t block_count,
				void (*done)(void *owner, int status), void *owner);
void vrewrite_cancel(struct vrewrite *rw); /* no done follows */

/* As vrewrite_start, and nobody waits. Does nothing when there is no place: the next read will find
 * it again. */
void vrewrite_repair(struct vchunk *c, block_no_t block, uint32_t block_count);

int vrewrite_init(struct volume *v);
void vrewrite_deinit(struct volume *v);
void vrewrite_tick(struct volume *v);
void vrewrite_stop(struct volume *v);
bool vrewrite_idle(const struct volume *v);

/* All blocks are zeroes, told by their CRCs first. */
bool vrewrite_is_zero(const struct volume_buffer *b, uint32_t block_count);

#endif
