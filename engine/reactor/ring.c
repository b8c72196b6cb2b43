/* ring: see ring.h.
 *
 * The ring is set up for a single issuer with deferred task work: completions are then made only
 * while this thread is inside io_uring_enter, so nothing interrupts the callbacks, and everything
 * that became ready is delivered at once. An older kernel that refuses gets plainer flags and the
 * log says so. It begins disabled, so that the thread that first runs the reactor, which need not
 * be the one that created it, becomes the issuer.
 *
 * Failure modes: interrupted or partial submission: the rest stays in the queue for the next call.
 * Overflow of the completion queue: the kernel keeps the surplus and flags it, the next
 * io_uring_enter delivers it. A kernel that for RING_SUBMIT_TRIES_MAX calls takes nothing while the
 * queue is full is fatal. */
#include "engine/reactor/ring.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <time.h>

#include "engine/base/assert.h"
#include "engine/base/err.h"
#include "engine/base/log.h"
#include "engine/base/types.h"

#define RING_SUBMIT_TRIES_MAX 10000u

static int setup(struct ring *ring, uint32_t entries)
{
	static const struct {
		unsigned flags;
		const char *note;
	} ways[] = {
	    {IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_TASKRUN_FLAG |
		 IORING_SETUP_R_DISABLED | IORING_SETUP_SUBMIT_ALL,
	     NULL},
	    {IORING_SETUP_COOP_TASKRUN | IORING_SETUP_TASKRUN_FLAG | IORING_SETUP_R_DISABLED |
		 IORING_SETUP_SUBMIT_ALL,
	     "this kernel has no deferred task work (it came with 6.1): more interruptions"},
	    {IORING_SETUP_R_DISABLED,
	     "this kernel has neither deferred nor cooperative task work: more interruptions"},
	};
	int rc = -EINVAL;

	for (size_t i = 0; i < ARRAY_SIZE(ways) && rc == -EINVAL; i++) {
		struct io_uring_params params = {
		    .flags = ways[i].flags | IORING_SETUP_CQSIZE | IORING_SETUP_CLAMP,
		    .cq_entries = entries * RING_CQ_FACTOR,
		};

		rc = io_uring_queue_init_params(entries, &ring->uring, &params);
		if (rc == 0 && ways[i].note != NULL)
			log_warn("reactor", "%s", ways[i].note);
	}
	return rc;
}

int ring_init(struct ring *ring, uint32_t entries, uint32_t buffer_slots)
{
	int rc;

	PRE(entries > 0 && entries <= RING_ENTRIES_MAX);
	*ring = (struct ring){0};
	rc = setup(ring, entries);
	if (rc != 0)
		return rc;
	if ((ring->uring.features & IORING_FEAT_EXT_ARG) == 0 ||
	    (ring->uring.features & IORING_FEAT_NODROP) == 0) {
		io_uring_queue_exit(&ring->uring);
		return -ENOSYS;
	}
	/* Submissions are taken in the order of their places, so the indirection never changes. */
	if (ring->uring.sq.array != NULL) {
		for (unsigned i = 0; i < ring->uring.sq.ring_entries; i++)
			ring->uring.sq.array[i] = i;
	}
	rc = io_uring_register_buffers_sparse(&ring->uring, buffer_slots);
	ring->buffers_registered = rc == 0;
	if (rc != 0)
		log_info("reactor",
			 "the kernel registers no buffers (%s): I/O maps its memory "
			 "each time",
			 err_text(rc));
	return 0;
}

void ring_deinit(struct ring *ring)
{
	io_uring_queue_exit(&ring->uring);
}

int ring_enable(struct ring *ring)
{
	int rc;

	if (ring->enabled)
		return 0;
	/* Not by its name: liburing 2.3 declares io_uring_enable_rings but does not export it. */
	rc =
	    io_uring_register((unsigned)ring->uring.ring_fd, IORING_REGISTER_ENABLE_RINGS, NULL, 0);
	if (rc < 0)
		return rc;
	/* Saves looking the descriptor up at each call; harmless where it isn't known. */
	ring->fd_registered = io_uring_register_ring_fd(&ring->uring) == 1;
	ring->enabled = true;
	return 0;
}

int ring_register(struct ring *ring, uint32_t slot, void *base, size_t size_bytes)
{
	struct iovec iov = {.iov_base = base, .iov_len = size_bytes};
	int rc;

	if (!ring->buffers_registered)
		return -EOPNOTSUPP;
	rc = io_uring_register_buffers_update_tag(&ring->uring, slot, &iov, NULL, 1);
	return rc < 0 ? rc : 0;
}

uint32_t ring_unsubmitted(const struct ring *ring)
{
	const struct io_uring_sq *sq = &ring->uring.sq;

	return sq->sqe_tail - __atomic_load_n(sq->khead, __ATOMIC_ACQUIRE);
}

bool ring_wants_enter(const struct ring *ring)
{
	unsigned flags = __atomic_load_n(ring->uring.sq.kflags, __ATOMIC_RELAXED);

	return (flags & (IORING_SQ_TASKRUN | IORING_SQ_CQ_OVERFLOW)) != 0;
}

/* So that the kernel sees what is prepared. */
static void publish(struct ring *ring)
{
	struct io_uring_sq *sq = &ring->uring.sq;

	__atomic_store_n(sq->ktail, sq->sqe_tail, __ATOMIC_RELEASE);
	sq->sqe_head = sq->sqe_tail;
	ring->enter_calls++;
}

void ring_submit(struct ring *ring)
{
	if (!ring->enabled)
		return;
	publish(ring);
	io_uring_enter((unsigned)ring->uring.enter_ring_fd, ring_unsubmitted(ring), 0,
		       ring->fd_registered ? IORING_ENTER_REGISTERED_RING : 0, NULL);
}

int ring_enter(struct ring *ring, uint32_t wait_count, uint64_t timeout_ns)
{
	struct io_uring *u = &ring->uring;
	struct __kernel_timespec ts = {.tv_sec = (int64_t)(timeout_ns / NS_PER_S),
				       .tv_nsec = (long long)(timeout_ns % NS_PER_S)};
	struct io_uring_getevents_arg arg = {.sigmask_sz = _NSIG / 8, .ts = (uintptr_t)&ts};
	unsigned flags = IORING_ENTER_GETEVENTS;
	int rc;

	if (!ring->enabled) {
		rc = ring_enable(ring);
		if (rc != 0)
			return rc;
	}
	if (ring->fd_registered)
		flags |= IORING_ENTER_REGISTERED_RING;
	publish(ring);
	if (wait_count > 0 && timeout_ns != RING_NO_TIMEOUT)
		rc = io_uring_enter2((unsigned)u->enter_ring_fd, ring_unsubmitted(ring), wait_count,
				     flags | IORING_ENTER_EXT_ARG, (sigset_t *)&arg, sizeof arg);
	else
		rc = io_uring_enter((unsigned)u->enter_ring_fd, ring_unsubmitted(ring), wait_count,
				    flags, NULL);
	switch (rc) {
	case -EINTR:
	case -ETIME:
	case -EAGAIN:
	case -EBUSY:
		return 0;
	default:
		return rc < 0 ? rc : 0;
	}
}

struct io_uring_sqe *ring_sqe(struct ring *ring)
{
	struct io_uring_sqe *sqe = io_uring_get_sqe(&ring->uring);

	for (uint32_t tries = 0; sqe == NULL; tries++) {
		int rc = ring_enter(ring, 0, RING_NO_TIMEOUT);

		/* There is nobody to give this error to, and without submission nothing works. */
		if (rc != 0)
			log_error("reactor", "the ring takes no submission: %s", err_text(rc));
		INVARIANT(rc == 0 && tries < RING_SUBMIT_TRIES_MAX);
		sqe = io_uring_get_sqe(&ring->uring);
	}
	return sqe;
}
