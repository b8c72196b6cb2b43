/* The volume client: an attached volume, replicated by the host itself (engine/ARCHITECTURE.md,
 * "Replication").
 *
 * It has two parts: the attachment (attachment.c: the conversation with the placement driver:
 * permits, map) and the volume (chunks, replicas, operations). Users see one `struct volume`.
 *
 * Thread: its reactor's. An operation is embedded by its owner and lent until `done`, which runs
 * exactly once, never inline. status: 0, or
 *   -EIO        no majority within the policy's freeze timeout (at least VOLUME_HOLD_MIN_MS), which
 *               begins anew with each part of a long zero or discard while others are to come
 *   -ENOSPC     so many nodes are full that no majority is possible
 *   -E_FENCED   a newer attachment has taken over; every later operation gets this too
 *   -ENOENT     the volume was deleted, after the attachment had run out; likewise
 *   -EROFS      a write on a read-only attachment
 *   -EINVAL     range not aligned to BLOCK_SIZE, empty, too large, or outside of the volume
 *   -E_LIMIT    VOLUME_OPS_MAX operations are in flight: retry when one is done
 *   -ECANCELED  the volume is closing
 * After an error a write may be there, whole or block by block, or not; reads agree on which.
 *
 * Operations that are under way at once have no order: a read may show what was there before a
 * write that was submitted earlier and is not done.
 *
 * Buffers: data lies in buffers of the volume's pool (counted references), because a slow replica
 * may need it after the guest has its acknowledgement. */
#ifndef VOLUME_VOLUME_H
#define VOLUME_VOLUME_H

#include "engine/evidence/permit.h"
#include "engine/evidence/trust.h"
#include "net/transport.h"

#define VOLUME_OPS_MAX 4096u
#define VOLUME_BUFFER_BYTES_MAX                                                                    \
	(192u << 20) /* of the pool: operations, and the backlog of slow replicas */
#define VOLUME_BACKLOG_OPS_MAX	 8192u /* unanswered writes of one replica */
#define VOLUME_BACKLOG_BYTES_MAX (64u << 20)

struct volume;

#define VOLUME_HOLD_MIN_MS                                                                         \
	1000u /* an operation waits at least so long, whatever the policy says                     \
	       */

struct vbuffers_slab;

/* One buffer of the pool: data is aligned to BLOCK_SIZE. */
struct volume_buffer {
	uint8_t *data;
	uint32_t size;	 /* room, bytes: at least what was asked for */
	uint32_t refs;	 /* the volume's */
	uint32_t *crcs;	 /* of the blocks from data on, one a block of size */
	bool crcs_known; /* crcs belong to data: a WRITE uses them, and else computes them.
			  * Whoever changes data after that clears it. */
	struct volume_buffer *next; /* the volume's */
	struct vbuffers_slab *slab; /* the volume's */
};

/* A buffer for up to size bytes (<= IO_SIZE_MAX) with one reference; NULL when the pool is used up:
 * wait for an operation's end (volume_on_room). */
struct volume_buffer *volume_buffer_get(struct volume *v, uint32_t size);
void volume_buffer_put(struct volume *v, struct volume_buffer *b);

enum volume_op_kind { VOLUME_READ, VOLUME_WRITE, VOLUME_ZERO, VOLUME_DISCARD, VOLUME_FLUSH };

struct volume_op {
	void (*done)(struct volume_op *op, int status);
	enum volume_op_kind kind;
	uint64_t offset; /* bytes, multiple of BLOCK_SIZE */
	uint32_t size;	 /* bytes, multiple of BLOCK_SIZE, up to IO_SIZE_MAX (discard, zero: up to 1
			    GiB) */
	struct volume_buffer
	    *buffer; /* READ: filled from its start. WRITE: its content, which must not change until
		      * the last reference is gone. The volume takes references of its own for both:
		      * after done the buffer may still be lent to a slow connection, so the caller
		      * puts its own and gets another */
	uint64_t impl[40];
};

/* FLUSH is done at once: everything acknowledged is durable already. */
void volume_submit(struct volume *v, struct volume_op *op);

/* Defers task once when a buffer or an operation's place is free again. The task is lent until
 * then; asking again for one that waits already changes nothing. At most VOLUME_WAITERS_MAX tasks
 * wait; one more is deferred at once. */
#define VOLUME_WAITERS_MAX 256u
void volume_on_room(struct volume *v, struct reactor_task *task);

/* Extents for BLOCK_STATUS: whether [offset, ..) is allocated, as far as current replicas know:
 * asks one node. */
struct volume_extent {
	uint64_t size;
	bool allocated;
};
struct volume_extents_op {
	void (*done)(struct volume_extents_op *op, int status);
	uint64_t offset, size;	       /* bytes, aligned */
	struct volume_extent *extents; /* the caller's, max places; in order, from offset */
	uint32_t max, count;
	uint64_t impl[32];
};
void volume_extents(struct volume *v, struct volume_extents_op *op);

struct volume_config {
	struct reactor *reactor;
	struct transport *transport; /* to nodes and to the driver */
	struct trust *trust;	     /* lent */
	const char *pd_address;	     /* or several, which base/drivers.h reads */
	const char *name;	     /* of the volume */
	const char *holder;	     /* name of this host's attachment, for people */
	const char *holder_site;     /* where this host is; "" when not known */
	const char *endpoint;	     /* for people */
	bool read_only;
	bool if_free;	  /* -E_IN_USE while another attachment is alive; else that one is fenced */
	bool maintenance; /* only so that copies move; -E_IN_USE while somebody else has it */
	uint32_t layers_piece; /* chunks that a turn goes through when layers change; 0: as many as
				* take about a millisecond. Tests have less */
	/* Not NULL: the volume is to be taken over. Attaching stops when all that needs no
	 * generation is done (the driver would give a permit, the nodes that it would name are
	 * connected as far as they can be); then this is called, once, and volume_take_over goes
	 * on. */
	void (*prepared)(void *arg);
	/* The attachment has ended by itself: -E_FENCED, -ENOENT, or 0 when somebody asked for a
	 * detach (the owner then calls volume_close). */
	void (*ended)(int why, void *arg);
	void *arg;
};

/* Attaches: done with 0 once the volume may be used (older permits run out, at least the fence and
 * the map in place), or with the error and its story: -ENOENT, -E_IN_USE (held by another live
 * attachment, and if_free), -E_DENIED, -E_NOT_IN_PERMIT (the permit names too few of its nodes for
 * a majority), -E_UNREACHABLE (too few answer), ... */
struct volume_open_op {
	void (*done)(struct volume_open_op *op, int status, struct volume *v,
		     const struct error *err);
	struct volume_config config; /* strings are copied */
	void *impl[6];
};
void volume_open(struct volume_open_op *op);

/* Goes on with an opening that waits since `prepared` (or that is not so far yet): has whoever has
 * the volume let go of it, or waits for the end of its permit, and attaches. After an op whose done
 * has not run; again: nothing. */
void volume_take_over(struct volume_open_op *op);

/* Rises when the volume is made larger; never falls while it is attached. */
uint64_t volume_size(const struct volume *v);
uint64_t volume_chunk_size(const struct volume *v);
bool volume_read_only(const struct volume *v);

/* Detaches cleanly: waits for all operations (refusing new ones), seals watermarks, releases the
 * permit. */
void volume_close(struct volume *v, void (*done)(void *arg), void *arg);

/* Frees everything without a word to anybody: the simulator's crash. */
void volume_abandon(struct volume *v);

struct volume_stats {
	uint64_t writes, reads, zeroes, blocks_written, blocks_read;
	uint64_t frames_sent, read_retries, hedges, hedges_won, reconciled_blocks, resyncs,
	    resync_blocks, repairs, permits, freezes, moves;
	/* Layers that were put above the top one; for how long writes were held back by the one of
	 * them for which that was longest: the turn in which they were, and the wait for a permit
	 * that names it. And the longest that work for layers ever kept the thread from all else.
	 */
	uint64_t layers_begun, layers_pause_ns, layers_work_ns;
};
void volume_get_stats(const struct volume *v, struct volume_stats *ret_stats);

/* A connection to a node: what it runs over, and what it has carried since it was made. */
struct volume_connection {
	char node[NAME_SIZE_MAX];
	char transport[16];
	struct transport_stats stats;
};

/* Returns how many there are; ret holds the first max of them. */
uint32_t volume_get_connections(const struct volume *v, struct volume_connection *ret,
				uint32_t max);

#endif
