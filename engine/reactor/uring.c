/* reactor: the production event loop on io_uring. See reactor.h and io.h.
 *
 * INVARIANTS
 *  1. All state but `posted`, `finished`, `sleeping` and `stop` belongs to the reactor's thread.
 *  2. user_data of every submission is the address of a reactor_io; the reactor's own operations
 *     (the wake-up event, signals, cancellations) embed one too. So a completion is one indirect
 *     call, with no lookup and no allocation.
 *  3. A thread that posts makes a system call only when the reactor sleeps: the reactor raises
 *     `sleeping` and then looks at the queues, the poster fills the queue and then looks at
 *     `sleeping`, both sequentially consistent, so one of them sees the other.
 *
 * Happy path: turn() = completions, posts, finished works; deferred tasks; timers; one
 * io_uring_enter that submits what all of these prepared and waits. Many reads are submitted
 * before.
 *
 * Failure modes: an error of io_uring_enter itself that isn't "again" ends reactor_run with it;
 * errors of operations go to their owners. Waiting is on CLOCK_MONOTONIC while deadlines are on
 * CLOCK_BOOTTIME: after a suspend timers are late by it at most once, never early. */
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/random.h>
#include <sys/signalfd.h>
#include <time.h>
#include <unistd.h>

#include "engine/base/assert.h"
#include "engine/base/err.h"
#include "engine/base/log.h"
#include "engine/base/types.h"
#include "engine/reactor/io.h"
#include "engine/reactor/memory.h"
#include "engine/reactor/reactor.h"
#include "engine/reactor/ring.h"
#include "engine/reactor/timers.h"
#include "engine/reactor/workers.h"

/* The default bound of reactor_memory, reserved as addresses and populated as it is used. */
#define REACTOR_MEMORY_MAX (256 * MIB)

/* So many reads are not kept for the end of a turn: a disk that serves one operation after the
 * other, and tells of several at once, would stand still while the next ones are collected. */
#define READS_KEPT_MAX 4u

struct uring {
	struct reactor head;
	struct ring ring;
	struct timers timers;
	struct memory memory;
	struct workers *workers;
	struct reactor_task *deferred;
	struct reactor_task **deferred_tail;
	uint32_t next_slot;  /* of the registered buffers */
	uint32_t reads_kept; /* prepared in this turn, and not submitted */
	bool slots_refused;
	bool running;
	pid_t thread; /* the one that first ran it; 0 before */
	uint64_t spin_ns;
	uint64_t works_in_flight;
	uint64_t ops_in_flight; /* the owners', not the reactor's own */
	struct reactor_stats stats;
	char name[16];

	struct reactor_io wake_io;
	uint64_t wake_value;
	struct reactor_io cancel_io; /* shared: it has no state */

	struct reactor_io signal_io;
	struct signalfd_siginfo signal_info;
	int signal_fd; /* -1 for none */
	void (*on_terminate)(int signal_number, void *arg);
	void *on_terminate_arg;
	void (*on_user)(int signal_number, void *arg); /* or NULL */
	void *on_user_arg;

	/* Shared with other threads, on cache lines of their own. */
	_Alignas(64) _Atomic(struct reactor_task *) posted; /* newest first */
	_Atomic(struct reactor_work *) finished;	    /* newest first */
	_Alignas(64) atomic_bool sleeping;
	atomic_bool stop;
	int event_fd;
};

static const struct reactor_ops uring_ops;

static struct uring *uring_of(const struct reactor *r)
{
	PRE(r->ops == &uring_ops);
	return container_of(r, struct uring, head);
}

/* -- time and randomness --------------------------------------------------------------------- */

static uint64_t boottime_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_BOOTTIME, &ts);
	return (uint64_t)ts.tv_sec * NS_PER_S + (uint64_t)ts.tv_nsec;
}

static void uring_refresh(struct reactor *r)
{
	uint64_t now_ns = boottime_ns();

	if (now_ns > r->now_ns)
		r->now_ns = now_ns;
}

static int64_t uring_wall_ns(struct reactor *r)
{
	struct timespec ts;

	(void)r;
	clock_gettime(CLOCK_REALTIME, &ts);
	return (int64_t)ts.tv_sec * (int64_t)NS_PER_S + ts.tv_nsec;
}

static void uring_random(struct reactor *r, void *buf, size_t size_bytes)
{
	uint8_t *p = buf;

	(void)r;
	while (size_bytes > 0) {
		ssize_t n = getrandom(p, size_bytes, 0);

		/* Only an interruption can fail it; anything else would be a silent zero key. */
		INVARIANT(n > 0 || errno == EINTR);
		if (n > 0) {
			p += n;
			size_bytes -= (size_t)n;
		}
	}
}

/* -- timers, tasks, works -------------------------------------------------------------------- */

static void uring_timer_arm(struct reactor *r, struct reactor_timer *t, uint64_t deadline_ns)
{
	timers_arm(&uring_of(r)->timers, t, deadline_ns, r->now_ns);
}

static void uring_timer_cancel(struct reactor *r, struct reactor_timer *t)
{
	timers_cancel(&uring_of(r)->timers, t);
}

static void uring_defer(struct reactor *r, struct reactor_task *t)
{
	struct uring *u = uring_of(r);

	if (t->queued)
		return;
	PRE(t->run != NULL);
	t->queued = true;
	t->next = NULL;
	*u->deferred_tail = t;
	u->deferred_tail = &t->next;
}

static void run_deferred(struct uring *u)
{
	while (u->deferred != NULL) {
		struct reactor_task *t = u->deferred;

		u->deferred = t->next;
		if (u->deferred == NULL)
			u->deferred_tail = &u->deferred;
		t->queued = false;
		u->head.refreshed = false;
		t->run(t);
	}
}

/* From any thread, and from a signal handler. */
static void wake(struct uring *u, bool always)
{
	static const uint64_t one = 1;

	if (!always && (!atomic_load(&u->sleeping) || !atomic_exchange(&u->sleeping, false)))
		return;
	/* It can only fail when the counter is full, and then the reactor wakes up anyway. */
	if (write(u->event_fd, &one, sizeof one) < 0)
		return;
}

static void uring_post(struct reactor *r, struct reactor_task *t)
{
	struct uring *u = uring_of(r);
	struct reactor_task *first = atomic_load_explicit(&u->posted, memory_order_relaxed);

	PRE(t->run != NULL);
	do
		t->next = first;
	while (!atomic_compare_exchange_weak(&u->posted, &first, t));
	wake(u, false);
}

static void run_posted(struct uring *u)
{
	struct reactor_task *newest, *t = NULL;

	if (atomic_load_explicit(&u->posted, memory_order_relaxed) == NULL)
		return;
	newest = atomic_exchange(&u->posted, NULL);
	while (newest != NULL) { /* turned round: oldest first */
		struct reactor_task *older = newest->next;

		newest->next = t;
		t = newest;
		newest = older;
	}
	while (t != NULL) {
		struct reactor_task *next = t->next; /* the task may be gone after its run */

		u->head.refreshed = false;
		t->run(t);
		t = next;
	}
}

static void uring_offload(struct reactor *r, struct reactor_work *w)
{
	struct uring *u = uring_of(r);

	u->works_in_flight++;
	u->stats.works++;
	workers_submit(u->workers, w);
}

/* On a worker. */
static void work_finished(struct reactor_work *w)
{
	struct uring *u = uring_of(w->reactor);
	struct reactor_work *first = atomic_load_explicit(&u->finished, memory_order_relaxed);

	do
		w->next = first;
	while (!atomic_compare_exchange_weak(&u->finished, &first, w));
	wake(u, false);
}

static void run_finished(struct uring *u)
{
	struct reactor_work *newest, *w = NULL;

	if (atomic_load_explicit(&u->finished, memory_order_relaxed) == NULL)
		return;
	newest = atomic_exchange(&u->finished, NULL);
	while (newest != NULL) {
		struct reactor_work *older = newest->next;

		newest->next = w;
		w = newest;
		newest = older;
	}
	while (w != NULL) {
		struct reactor_work *next = w->next;

		u->works_in_flight--;
		u->head.refreshed = false;
		w->done(w);
		w = next;
	}
}

/* -- memory ---------------------------------------------------------------------------------- */

static void register_extent(struct uring *u, const struct memory_extent *extent)
{
	int rc;

	if (u->slots_refused || u->next_slot == MEMORY_SLOTS_MAX ||
	    extent->size_bytes > MEMORY_SLOT_SIZE_MAX)
		return;
	rc = ring_register(&u->ring, u->next_slot, extent->base, extent->size_bytes);
	if (rc == 0) {
		memory_set_slot(&u->memory, extent, (uint16_t)u->next_slot++);
		return;
	}
	u->slots_refused = true;
	log_warn(
	    "reactor",
	    "%s: I/O memory beyond %zu MiB isn't registered with the kernel: %s%s; it works, a "
	    "little slower",
	    u->name, (size_t)((uint8_t *)extent->base - u->memory.base) >> 20, err_text(rc),
	    rc == -ENOMEM ? " (raise the limit of locked memory, RLIMIT_MEMLOCK)" : "");
}

static void *uring_memory(struct reactor *r, size_t size_bytes)
{
	struct uring *u = uring_of(r);
	struct memory_extent extent;
	void *p = memory_alloc(&u->memory, size_bytes, &extent);

	if (extent.size_bytes > 0)
		register_extent(u, &extent);
	return p;
}

static void uring_memory_put(struct reactor *r, void *p, size_t size_bytes)
{
	memory_free(&uring_of(r)->memory, p, size_bytes);
}

void reactor_memory_range(const struct reactor *r, void **ret_base, size_t *ret_size_bytes)
{
	const struct uring *u = uring_of(r);

	*ret_base = u->memory.base;
	*ret_size_bytes = u->memory.grown_bytes;
}

static const struct reactor_ops uring_ops = {
    .wall_ns = uring_wall_ns,
    .random = uring_random,
    .timer_arm = uring_timer_arm,
    .timer_cancel = uring_timer_cancel,
    .defer = uring_defer,
    .post = uring_post,
    .offload = uring_offload,
    .memory = uring_memory,
    .memory_put = uring_memory_put,
    .refresh = uring_refresh,
};

/* -- operations ------------------------------------------------------------------------------ */

static struct io_uring_sqe *sqe_for(struct uring *u, struct reactor_io *io)
{
	struct io_uring_sqe *sqe = ring_sqe(&u->ring);

	PRE(io->done != NULL);
	u->ops_in_flight++;
	u->stats.ops++;
	return sqe;
}

void reactor_io_read(struct reactor *r, struct reactor_io *io, int fd, void *buf, uint32_t size,
		     uint64_t offset)
{
	struct uring *u = uring_of(r);
	struct io_uring_sqe *sqe = sqe_for(u, io);
	uint16_t slot = memory_slot(&u->memory, buf, size);

	if (slot != MEMORY_NO_SLOT)
		io_uring_prep_read_fixed(sqe, fd, buf, size, offset, slot);
	else
		io_uring_prep_read(sqe, fd, buf, size, offset);
	io_uring_sqe_set_data(sqe, io);
	if (++u->reads_kept == READS_KEPT_MAX) {
		u->reads_kept = 0;
		ring_submit(&u->ring);
	}
}

void reactor_io_write(struct reactor *r, struct reactor_io *io, int fd, const void *buf,
		      uint32_t size, uint64_t offset, int rw_flags)
{
	struct uring *u = uring_of(r);
	struct io_uring_sqe *sqe = sqe_for(u, io);
	uint16_t slot = memory_slot(&u->memory, buf, size);

	if (slot != MEMORY_NO_SLOT)
		io_uring_prep_write_fixed(sqe, fd, buf, size, offset, slot);
	else
		io_uring_prep_write(sqe, fd, buf, size, offset);
	sqe->rw_flags = rw_flags;
	io_uring_sqe_set_data(sqe, io);
}

void reactor_io_readv(struct reactor *r, struct reactor_io *io, int fd, const struct iovec *iov,
		      uint32_t iov_count, uint64_t offset)
{
	struct io_uring_sqe *sqe = sqe_for(uring_of(r), io);

	io_uring_prep_readv(sqe, fd, iov, iov_count, offset);
	io_uring_sqe_set_data(sqe, io);
}

void reactor_io_writev(struct reactor *r, struct reactor_io *io, int fd, const struct iovec *iov,
		       uint32_t iov_count, uint64_t offset, int rw_flags)
{
	struct io_uring_sqe *sqe = sqe_for(uring_of(r), io);

	io_uring_prep_writev2(sqe, fd, iov, iov_count, offset, rw_flags);
	io_uring_sqe_set_data(sqe, io);
}

void reactor_io_fdatasync(struct reactor *r, struct reactor_io *io, int fd)
{
	struct io_uring_sqe *sqe = sqe_for(uring_of(r), io);

	io_uring_prep_fsync(sqe, fd, IORING_FSYNC_DATASYNC);
	io_uring_sqe_set_data(sqe, io);
}

void reactor_io_fallocate(struct reactor *r, struct reactor_io *io, int fd, int mode,
			  uint64_t offset, uint64_t size)
{
	struct io_uring_sqe *sqe = sqe_for(uring_of(r), io);

	io_uring_prep_fallocate(sqe, fd, mode, (off_t)offset, (off_t)size);
	io_uring_sqe_set_data(sqe, io);
}

void reactor_io_recv(struct reactor *r, struct reactor_io *io, int fd, void *buf, uint32_t size)
{
	struct io_uring_sqe *sqe = sqe_for(uring_of(r), io);

	io_uring_prep_recv(sqe, fd, buf, size, 0);
	io_uring_sqe_set_data(sqe, io);
}

void reactor_io_recvmsg(struct reactor *r, struct reactor_io *io, int fd, struct msghdr *msg,
			int flags)
{
	struct io_uring_sqe *sqe = sqe_for(uring_of(r), io);

	io_uring_prep_recvmsg(sqe, fd, msg, (unsigned)flags);
	io_uring_sqe_set_data(sqe, io);
}

void reactor_io_sendmsg(struct reactor *r, struct reactor_io *io, int fd, const struct msghdr *msg)
{
	struct io_uring_sqe *sqe = sqe_for(uring_of(r), io);

	/* WAITALL makes the kernel go on after a short send; without NOSIGNAL a peer that went away
	 * would end the process. */
	io_uring_prep_sendmsg(sqe, fd, msg, MSG_WAITALL | MSG_NOSIGNAL);
	io_uring_sqe_set_data(sqe, io);
}

void reactor_io_accept(struct reactor *r, struct reactor_io *io, int fd)
{
	struct io_uring_sqe *sqe = sqe_for(uring_of(r), io);

	io_uring_prep_accept(sqe, fd, NULL, NULL, SOCK_CLOEXEC);
	io_uring_sqe_set_data(sqe, io);
}

void reactor_io_connect(struct reactor *r, struct reactor_io *io, int fd,
			const struct sockaddr *addr, socklen_t addr_size)
{
	struct io_uring_sqe *sqe = sqe_for(uring_of(r), io);

	io_uring_prep_connect(sqe, fd, addr, addr_size);
	io_uring_sqe_set_data(sqe, io);
}

void reactor_io_poll(struct reactor *r, struct reactor_io *io, int fd, uint32_t poll_mask)
{
	struct io_uring_sqe *sqe = sqe_for(uring_of(r), io);

	io_uring_prep_poll_add(sqe, fd, poll_mask);
	io_uring_sqe_set_data(sqe, io);
}

static bool is_own(const struct uring *u, const struct reactor_io *io)
{
	return io == &u->wake_io || io == &u->cancel_io || io == &u->signal_io;
}

static void cancel_done(struct reactor_io *io, int32_t result)
{
	/* Whether it was found or had just completed, its own completion tells its owner. */
	(void)io;
	(void)result;
}

void reactor_io_cancel(struct reactor *r, struct reactor_io *io)
{
	struct uring *u = uring_of(r);
	struct io_uring_sqe *sqe = ring_sqe(&u->ring);

	io_uring_prep_cancel(sqe, io, 0);
	io_uring_sqe_set_data(sqe, &u->cancel_io);
}

/* -- the reactor's own operations ------------------------------------------------------------ */

static void wake_arm(struct uring *u)
{
	struct io_uring_sqe *sqe = ring_sqe(&u->ring);

	io_uring_prep_read(sqe, u->event_fd, &u->wake_value, sizeof u->wake_value, 0);
	io_uring_sqe_set_data(sqe, &u->wake_io);
}

static void wake_done(struct reactor_io *io, int32_t result)
{
	struct uring *u = container_of(io, struct uring, wake_io);

	if (result < 0 && result != -EINTR && result != -EAGAIN)
		log_error("reactor", "%s: the wake-up event: %s", u->name, err_text(result));
	wake_arm(u);
}

static void signal_arm(struct uring *u)
{
	struct io_uring_sqe *sqe = ring_sqe(&u->ring);

	io_uring_prep_read(sqe, u->signal_fd, &u->signal_info, sizeof u->signal_info, 0);
	io_uring_sqe_set_data(sqe, &u->signal_io);
}

static void signal_done(struct reactor_io *io, int32_t result)
{
	struct uring *u = container_of(io, struct uring, signal_io);
	const int number = (int)u->signal_info.ssi_signo;

	if (result == (int32_t)sizeof u->signal_info && number == SIGUSR1)
		u->on_user(number, u->on_user_arg);
	else if (result == (int32_t)sizeof u->signal_info)
		u->on_terminate(number, u->on_terminate_arg);
	signal_arm(u);
}

int reactor_on_terminate(struct reactor *r, void (*fn)(int signal_number, void *arg), void *arg)
{
	struct uring *u = uring_of(r);
	sigset_t set;

	PRE(fn != NULL && u->signal_fd < 0);
	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	u->signal_fd = signalfd(-1, &set, SFD_CLOEXEC);
	if (u->signal_fd < 0)
		return -errno;
	/* Blocked first here: threads that start from now on inherit it, the workers block all. */
	pthread_sigmask(SIG_BLOCK, &set, NULL);
	u->on_terminate = fn;
	u->on_terminate_arg = arg;
	signal_arm(u);
	return 0;
}

int reactor_on_user_signal(struct reactor *r, void (*fn)(int signal_number, void *arg), void *arg)
{
	struct uring *u = uring_of(r);
	sigset_t set;

	PRE(fn != NULL && u->signal_fd >= 0);
	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGUSR1);
	u->on_user = fn;
	u->on_user_arg = arg;
	if (signalfd(u->signal_fd, &set, 0) < 0)
		return -errno;
	pthread_sigmask(SIG_BLOCK, &set, NULL);
	return 0;
}

/* -- turns ----------------------------------------------------------------------------------- */

static void run_completions(struct uring *u)
{
	struct io_uring *ring = &u->ring.uring;

	/* Those that arrive while these run, when a full queue is submitted, are for the next turn.
	 */
	for (uint32_t n = ring_ready(&u->ring); n > 0; n--) {
		struct io_uring_cqe *cqe = &ring->cq.cqes[*ring->cq.khead & ring->cq.ring_mask];
		struct reactor_io *io = io_uring_cqe_get_data(cqe);
		int32_t result = cqe->res;

		io_uring_cq_advance(ring, 1);
		if (!is_own(u, io)) {
			INVARIANT(u->ops_in_flight > 0);
			u->ops_in_flight--;
		}
		u->head.refreshed = false;
		io->done(io, result);
	}
}

static bool has_messages(struct uring *u)
{
	return atomic_load(&u->posted) != NULL || atomic_load(&u->finished) != NULL ||
	       atomic_load(&u->stop);
}

/* Waits awake for spin_ns at most. Returns true when there is something to do. */
static bool spin(struct uring *u, uint64_t now_ns, uint64_t deadline_ns)
{
	uint64_t end_ns = MIN(now_ns + u->spin_ns, deadline_ns);

	do {
		if (ring_ready(&u->ring) > 0 || ring_wants_enter(&u->ring) || has_messages(u))
			return true;
#if defined(__x86_64__)
		__builtin_ia32_pause();
#endif
	} while (boottime_ns() < end_ns);
	return end_ns == deadline_ns;
}

/* Step 4. Sleeps until something happens, or deadline_ns; not at all when *flag is set. */
static int submit_and_wait(struct uring *u, const bool *flag, uint64_t deadline_ns)
{
	uint64_t now_ns = 0, timeout_ns = RING_NO_TIMEOUT;
	bool busy = *flag || ring_ready(&u->ring) > 0 || has_messages(u);
	int rc = 0;

	u->reads_kept = 0;

	/* The callbacks took time since the turn began: a stale clock would oversleep. */
	if (!busy && deadline_ns != TIMERS_NEVER) {
		now_ns = boottime_ns();
		busy = deadline_ns <= now_ns;
		timeout_ns = deadline_ns - now_ns;
	}
	if (!busy && u->spin_ns > 0) {
		if (ring_unsubmitted(&u->ring) > 0)
			rc = ring_enter(&u->ring, 0, RING_NO_TIMEOUT);
		if (rc != 0)
			return rc;
		busy = spin(u, boottime_ns(), deadline_ns);
	}
	if (busy) {
		if (ring_unsubmitted(&u->ring) == 0 && !ring_wants_enter(&u->ring))
			return 0;
		return ring_enter(&u->ring, 0, RING_NO_TIMEOUT);
	}
	atomic_store(&u->sleeping, true);
	if (has_messages(u))
		rc = ring_enter(&u->ring, 0, RING_NO_TIMEOUT);
	else
		rc = ring_enter(&u->ring, 1, timeout_ns);
	atomic_store(&u->sleeping, false);
	return rc;
}

static int turn(struct uring *u, const bool *flag, uint64_t deadline_ns)
{
	u->stats.turns++;
	uring_refresh(&u->head);
	run_completions(u);
	run_posted(u);
	run_finished(u);
	run_deferred(u);
	u->head.refreshed = false;
	u->stats.timers_fired += timers_fire(&u->timers, u->head.now_ns);
	run_deferred(u); /* what the timers deferred leaves with this turn too */
	u->head.refreshed = false;
	return submit_and_wait(u, flag, MIN(deadline_ns, timers_next(&u->timers)));
}

/* Begins running on this thread. */
static int enter_thread(struct uring *u)
{
	int rc = ring_enable(&u->ring);

	if (rc != 0)
		return rc;
	PRE(!u->running);
	if (u->thread == 0) {
		u->thread = gettid();
		/* The main thread's name is the process's: it stays what users look for. */
		if (u->thread != getpid())
			pthread_setname_np(pthread_self(), u->name);
	}
	PRE(u->thread == gettid());
	u->running = true;
	return 0;
}

int reactor_run(struct reactor *r)
{
	struct uring *u = uring_of(r);
	static const bool never = false;
	int rc = enter_thread(u);

	while (rc == 0) {
		rc = turn(u, &never, TIMERS_NEVER);
		if (atomic_load(&u->stop))
			break;
	}
	atomic_store(&u->stop, false);
	u->running = false;
	return rc;
}

int reactor_run_until(struct reactor *r, const bool *flag, uint64_t deadline_ns)
{
	struct uring *u = uring_of(r);
	int rc = enter_thread(u);

	/* The flag is set by callbacks: what the last turn prepared is submitted before it is read.
	 */
	while (rc == 0 && !*flag) {
		uring_refresh(r);
		if (r->now_ns >= deadline_ns)
			rc = -ETIMEDOUT;
		else if (atomic_load(&u->stop))
			rc = -ECANCELED;
		else
			rc = turn(u, flag, deadline_ns);
	}
	u->running = false;
	return rc;
}

void reactor_stop(struct reactor *r)
{
	struct uring *u = uring_of(r);

	atomic_store(&u->stop, true);
	wake(u, true);
}

void reactor_get_stats(const struct reactor *r, struct reactor_stats *ret_stats)
{
	const struct uring *u = uring_of(r);

	*ret_stats = u->stats;
	ret_stats->enter_calls = u->ring.enter_calls;
}

/* -- life ------------------------------------------------------------------------------------ */

static int init_parts(struct uring *u, const struct reactor_config *config)
{
	uint32_t entries = config->ring_entries > 0 ? config->ring_entries : RING_ENTRIES_DEFAULT;
	uint32_t workers = config->worker_count > 0 ? config->worker_count : 1;
	int rc;

	rc = timers_init(&u->timers);
	if (rc != 0)
		return rc;
	rc = memory_init(&u->memory,
			 config->memory_bytes > 0 ? config->memory_bytes : REACTOR_MEMORY_MAX);
	if (rc != 0)
		return rc;
	u->event_fd = eventfd(0, EFD_CLOEXEC);
	if (u->event_fd < 0)
		return -errno;
	rc = workers_create(MIN(workers, WORKERS_MAX), u->name, work_finished, &u->workers);
	if (rc != 0)
		return rc;
	return ring_init(
	    &u->ring, MIN(entries, RING_ENTRIES_MAX),
	    (uint32_t)MIN(u->memory.size_bytes / MEMORY_EXTENT_SIZE, (size_t)MEMORY_SLOTS_MAX));
}

static void deinit_parts(struct uring *u)
{
	workers_destroy(u->workers);
	if (u->event_fd >= 0)
		close(u->event_fd);
	if (u->signal_fd >= 0)
		close(u->signal_fd);
	memory_deinit(&u->memory);
	timers_deinit(&u->timers);
	free(u);
}

static const char *create_hint(int rc)
{
	switch (rc) {
	case -EPERM:
	case -ENOSYS:
		return " (see kernel.io_uring_disabled, and the container's seccomp profile)";
	case -ENOMEM:
		return " (raise the limit of locked memory, RLIMIT_MEMLOCK)";
	default:
		return "";
	}
}

int reactor_create(const struct reactor_config *config, struct reactor **ret_reactor)
{
	struct uring *u = aligned_alloc(_Alignof(struct uring), sizeof *u);
	int rc;

	if (u == NULL)
		return -ENOMEM;
	*u = (struct uring){
	    .head = {.ops = &uring_ops, .now_ns = boottime_ns()},
	    .spin_ns = config->spin_us * 1000ull,
	    .wake_io = {.done = wake_done},
	    .cancel_io = {.done = cancel_done},
	    .signal_io = {.done = signal_done},
	    .event_fd = -1,
	    .signal_fd = -1,
	};
	u->deferred_tail = &u->deferred;
	snprintf(u->name, sizeof u->name, "%s", config->name != NULL ? config->name : "reactor");
	rc = init_parts(u, config);
	if (rc != 0) {
		log_error("reactor", "%s: io_uring cannot be used: %s%s", u->name, err_text(rc),
			  create_hint(rc));
		deinit_parts(u);
		return rc;
	}
	wake_arm(u);
	*ret_reactor = &u->head;
	return 0;
}

void reactor_destroy(struct reactor *r)
{
	struct uring *u;

	if (r == NULL)
		return;
	u = uring_of(r);
	PRE(!u->running && u->works_in_flight == 0);
	if (u->ops_in_flight > 0)
		log_warn("reactor", "%s: destroyed with %llu operations in flight", u->name,
			 (unsigned long long)u->ops_in_flight);
	ring_deinit(&u->ring);
	deinit_parts(u);
}
