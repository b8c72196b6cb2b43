/* One io_uring, as the reactor uses it: preparing never fails, one system call submits and waits,
 * and every call is counted. Private to engine/reactor: the only header that includes liburing.h.
 *
 * Thread: ring_init and ring_register on any one thread until ring_enable, which binds the ring to
 * the calling thread; everything else, and those too from then on, on that thread. */
#ifndef REACTOR_RING_H
#define REACTOR_RING_H

#include <stdbool.h>
#include <stdint.h>

#include "engine/base/types.h"

/* <linux/fs.h>, which it includes, has a BLOCK_SIZE of its own. */
#pragma push_macro("BLOCK_SIZE")
#undef BLOCK_SIZE
#include <liburing.h>
#pragma pop_macro("BLOCK_SIZE")

#define RING_ENTRIES_DEFAULT 1024u
#define RING_ENTRIES_MAX     4096u
#define RING_CQ_FACTOR	     4u /* completions that fit, for each submission that fits */
#define RING_NO_TIMEOUT	     UINT64_MAX

struct ring {
	struct io_uring uring;
	bool enabled;
	bool fd_registered;	 /* enter_ring_fd is an index, not a descriptor */
	bool buffers_registered; /* there is a table for ring_register */
	uint64_t enter_calls;
};

/* buffer_slots: registered buffers to make room for. 0, or what io_uring_setup(2) returns. */
int ring_init(struct ring *ring, uint32_t entries, uint32_t buffer_slots);
void ring_deinit(struct ring *ring);

/* Binds the ring to the calling thread and lets it run; harmless when it is done. */
int ring_enable(struct ring *ring);

/* Makes [base, base + size_bytes) the registered buffer of this number. -ENOMEM: the limit of
 * locked memory (RLIMIT_MEMLOCK); -EOPNOTSUPP. */
int ring_register(struct ring *ring, uint32_t slot, void *base, size_t size_bytes);

/* A free place in the submission queue; when it is full it is submitted first. Never NULL. */
struct io_uring_sqe *ring_sqe(struct ring *ring);

/* Prepared and not yet taken by the kernel. */
uint32_t ring_unsubmitted(const struct ring *ring);

/* The kernel has completions that it can only deliver inside ring_enter. */
bool ring_wants_enter(const struct ring *ring);

/* Submits what is prepared, now, and looks for nothing. What the kernel does not take stays for
 * ring_enter. */
void ring_submit(struct ring *ring);

/* One system call: submits all that is prepared, runs what the kernel deferred, and waits for
 * wait_count completions, up to timeout_ns. 0 (also when it was interrupted, timed out or could not
 * take everything: call again after looking at the completions), or a fatal negative errno. */
int ring_enter(struct ring *ring, uint32_t wait_count, uint64_t timeout_ns);

/* Completions that can be read without a system call. */
static inline uint32_t ring_ready(const struct ring *ring)
{
	return io_uring_cq_ready(&ring->uring);
}

#endif
