/* The pool of data buffers: slabs of IO_SIZE_MAX, each cut into buffers of one power of two from
 * BLOCK_SIZE up. Slabs come from the reactor's memory as they are first needed and are kept; one
 * that is wholly free may be cut anew. Nothing else is allocated once a slab exists.
 *
 * A part of the pool is kept for the volume's own copies (reconciling, resync, repair): the guest's
 * operations wait for them, so they must never wait for the guest's. */
#ifndef VOLUME_BUFFERS_H
#define VOLUME_BUFFERS_H

#include "engine/volume/volume.h"

#define VBUFFERS_CLASSES       9u	   /* 4 KiB to 1 MiB */
#define VBUFFERS_RESERVE_BYTES (16u << 20) /* of VOLUME_BUFFER_BYTES_MAX, for the volume's own */

struct vbuffers_slab;

struct vbuffers {
	struct reactor *reactor;
	struct vbuffers_slab *partial[VBUFFERS_CLASSES]; /* cut so, with room */
	struct vbuffers_slab *empty;			 /* wholly free */
	struct vbuffers_slab *all;
	uint32_t slab_count, slab_max, used_slabs; /* used: neither empty nor missing */
};

void vbuffers_init(struct vbuffers *p, struct reactor *reactor, uint64_t bytes_max);
/* Buffers still in use become invalid; the reactor keeps the memory. */
void vbuffers_deinit(struct vbuffers *p);

/* NULL: no room. own: may use the reserve. */
struct volume_buffer *vbuffers_get(struct vbuffers *p, uint32_t size, bool own);
/* True when the buffer became free. */
bool vbuffers_put(struct vbuffers *p, struct volume_buffer *b);

static inline void vbuffers_ref(struct volume_buffer *b)
{
	b->refs++;
}

#endif
