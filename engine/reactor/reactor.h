/* The reactor: one thread's event loop, and the only source of time, randomness and concurrency for
 * everything above it. Production: an io_uring a thread (uring.c). Simulation: virtual time
 * (tests/sim). Code above uses this header and disk.h, kv.h, transport.h, and cannot tell the two
 * apart.
 *
 * A turn: 1. take all completions and messages that are ready, call their owners; 2. run the
 * deferred tasks, including those deferred meanwhile; 3. fire timers that are due; 4. submit
 * everything that was prepared and wait, in one system call. So work that arrives together leaves
 * together (one send a connection, one group a log), and work that arrives alone leaves at once.
 *
 * Threads: everything is called on the reactor's own thread, but for reactor_post and reactor_stop.
 * No callback is ever run from inside the call that asked for it. */
#ifndef REACTOR_REACTOR_H
#define REACTOR_REACTOR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct reactor;

/* Embedded by its owner; lent from arm until it fires or is cancelled. Zero-initialise. */
struct reactor_timer {
	void (*fire)(struct reactor_timer *timer);
	uint64_t deadline_ns;
	uint32_t heap_slot; /* the reactor's: 0 when not armed */
};

/* Embedded by its owner; lent from defer or post until run. Zero-initialise. */
struct reactor_task {
	void (*run)(struct reactor_task *task);
	struct reactor_task *next; /* the reactor's */
	bool queued;		   /* the reactor's, for defer */
};

/* Blocking work (RocksDB, signatures, file creation) for a worker thread. */
struct reactor_work {
	void (*work)(struct reactor_work *work); /* on a worker: touches only what this work owns */
	void (*done)(struct reactor_work *work); /* on the reactor that asked */
	struct reactor *reactor;		 /* the reactor's */
	struct reactor_work *next;		 /* the reactor's */
};

struct reactor_ops {
	int64_t (*wall_ns)(struct reactor *r);
	void (*random)(struct reactor *r, void *buf, size_t size_bytes);
	void (*timer_arm)(struct reactor *r, struct reactor_timer *t, uint64_t deadline_ns);
	void (*timer_cancel)(struct reactor *r, struct reactor_timer *t);
	void (*defer)(struct reactor *r, struct reactor_task *t);
	void (*post)(struct reactor *r, struct reactor_task *t);
	void (*offload)(struct reactor *r, struct reactor_work *w);
	void *(*memory)(struct reactor *r, size_t size_bytes);
	void (*memory_put)(struct reactor *r, void *p, size_t size_bytes);
	void (*refresh)(struct reactor *r);
};

/* The head that every implementation embeds. now_ns: CLOCK_BOOTTIME, read afresh each time that the
 * reactor wakes up, and by reactor_refresh; it never goes back. refreshed: since the callback began
 * that runs now; implementations make it false before each. */
struct reactor {
	const struct reactor_ops *ops;
	uint64_t now_ns;
	bool refreshed;
};

static inline uint64_t reactor_now_ns(const struct reactor *r)
{
	return r->now_ns;
}

/* Reads the clock into now_ns: for a check that must not trust the time at which the turn began. */
static inline void reactor_refresh(struct reactor *r)
{
	r->refreshed = true;
	r->ops->refresh(r);
}

/* The same, but only the first time in a callback: for a check that is made for each of many things
 * that one completion brings, all of which leave together at the end of the turn. */
static inline void reactor_refresh_once(struct reactor *r)
{
	if (!r->refreshed)
		reactor_refresh(r);
}

/* Nanoseconds since 1970, UTC, as the host believes. It may step. Only for evidence and for people.
 */
static inline int64_t reactor_wall_ns(struct reactor *r)
{
	return r->ops->wall_ns(r);
}

/* Cryptographically strong in production, from the seed in simulation. */
static inline void reactor_random(struct reactor *r, void *buf, size_t size_bytes)
{
	r->ops->random(r, buf, size_bytes);
}

/* Arms, or moves, t to fire once when now_ns >= deadline_ns. It may fire late, never early. A fired
 * timer is disarmed before its callback runs, which may arm it again. */
static inline void reactor_timer_arm(struct reactor *r, struct reactor_timer *t,
				     uint64_t deadline_ns)
{
	r->ops->timer_arm(r, t, deadline_ns);
}

/* After this t doesn't fire. Harmless when it isn't armed. */
static inline void reactor_timer_cancel(struct reactor *r, struct reactor_timer *t)
{
	r->ops->timer_cancel(r, t);
}

/* Runs t once in step 2 of this turn; deferring it again before that changes nothing. */
static inline void reactor_defer(struct reactor *r, struct reactor_task *t)
{
	r->ops->defer(r, t);
}

/* From any thread: runs t on r, in one of its next turns, in the order of the posts of each thread.
 * t must not be in a queue already. */
static inline void reactor_post(struct reactor *r, struct reactor_task *t)
{
	r->ops->post(r, t);
}

/* Queues w for a worker thread. Exactly one done follows, whatever happens. */
static inline void reactor_offload(struct reactor *r, struct reactor_work *w)
{
	w->reactor = r;
	r->ops->offload(r, w);
}

/* Memory for I/O: zeroed, aligned to BLOCK_SIZE, registered with the kernel where that helps, the
 * reactor's until it is destroyed. For start-up and pools, not for operations. NULL when there is
 * no more (REACTOR_MEMORY_MAX in uring.c). */
static inline void *reactor_memory(struct reactor *r, size_t size_bytes)
{
	return r->ops->memory(r, size_bytes);
}

/* Gives back what reactor_memory gave for size_bytes, for the next who asks for as much. NULL is
 * allowed. No operation on it is under way. */
static inline void reactor_memory_put(struct reactor *r, void *p, size_t size_bytes)
{
	r->ops->memory_put(r, p, size_bytes);
}

/* -- production only (uring.c) --------------------------------------------------------------- */

struct reactor_config {
	const char *name;      /* of the thread, up to 15 bytes */
	uint32_t ring_entries; /* 0: the default */
	uint32_t worker_count; /* threads for reactor_offload; 0: the default (1) */
	size_t memory_bytes;   /* bound of reactor_memory; 0: the default */
	uint32_t spin_us;      /* keeps polling so long before sleeping; 0: never. */
};

/* -ENOMEM, -ENOSYS and what io_uring_setup(2) returns. */
int reactor_create(const struct reactor_config *config, struct reactor **ret_reactor);

/* Runs turns on the calling thread until reactor_stop. Returns 0, or a fatal error of the ring. The
 * first thread to run a reactor is its own from then on; another may have created it and prepared
 * its first operations. */
int reactor_run(struct reactor *r);

/* From any thread, and from a signal handler: reactor_run returns after the present turn. */
void reactor_stop(struct reactor *r);

/* Runs turns until a callback has set *flag or deadline_ns is reached; for command-line tools. 0,
 * -ETIMEDOUT, -ECANCELED after reactor_stop, or a fatal error of the ring. */
int reactor_run_until(struct reactor *r, const bool *flag, uint64_t deadline_ns);

/* Every operation must have completed. NULL is allowed. */
void reactor_destroy(struct reactor *r);

/* The memory that reactor_memory has handed out from, or will before it grows: one range, which
 * only grows, at its end, and in which no allocation lies across what was its end at any time. For
 * whoever registers it with a device of its own (net/rdma). */
void reactor_memory_range(const struct reactor *r, void **ret_base, size_t *ret_size_bytes);

/* What the reactor did so far, for benches and for `pave status`. */
struct reactor_stats {
	uint64_t turns;
	uint64_t enter_calls; /* io_uring_enter(2) */
	uint64_t ops;	      /* operations submitted */
	uint64_t timers_fired;
	uint64_t works;
};
void reactor_get_stats(const struct reactor *r, struct reactor_stats *ret_stats);

#endif
