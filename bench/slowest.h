/* The slowest operations of a run, and why, as far as the bench can see: what the target counted
 * (permits, resyncs, ...) and whether the bench itself was kept from running, while the operation
 * was under way.
 *
 * A tick every SLOWEST_TICK_NS looks at the counters; a tick that is late by more than
 * SLOWEST_STALL_NS says that this process did not run. */
#ifndef BENCH_SLOWEST_H
#define BENCH_SLOWEST_H

#include "bench/target.h"
#include "engine/volume/trace.h"

#define SLOWEST_MAX	 32u
#define SLOWEST_SAME_MAX 4u   /* of one millisecond: all that is under way is slow at once then */
#define SLOWEST_EVENTS	 256u /* the latest */
#define SLOWEST_TICK_NS	 (10 * NS_PER_MS)
#define SLOWEST_STALL_NS (3 * NS_PER_MS)

enum slowest_cause {
	SLOWEST_STALL,	/* this process did not run */
	SLOWEST_PERMIT, /* a permit was renewed */
	SLOWEST_RETRY,	/* a read went to another replica */
	SLOWEST_RECONCILE,
	SLOWEST_RESYNC,
	SLOWEST_REPAIR,
	SLOWEST_FREEZE, /* writes were held */
	SLOWEST_CAUSES,
};

struct slow_op {
	uint64_t at_ns, latency_ns; /* at: when it ended, since the begin of the run */
	uint64_t offset;
	uint32_t size;
	bool write;
	uint32_t causes; /* bits */
	char where[96];	 /* where most of its time went, if it was traced; "" */
};

struct slowest_event {
	uint64_t from_ns, to_ns;
	enum slowest_cause cause;
};

struct slowest {
	struct reactor *reactor;
	struct target *target;
	uint64_t begun_ns, last_ns;
	struct target_counts last;
	struct slowest_event events[SLOWEST_EVENTS];
	uint64_t event_count;
	struct reactor_timer tick;
	struct slow_op ops[SLOWEST_MAX]; /* slowest first, once ended */
	uint32_t count, fastest;	 /* of ops: the one to go */
};

void slowest_begin(struct slowest *s, struct reactor *r, struct target *t);

/* The latency above which an operation is worth adding. */
uint64_t slowest_threshold(const struct slowest *s);
void slowest_add(struct slowest *s, const struct slow_op *op);

/* Sorts, and tells causes apart. */
void slowest_end(struct slowest *s);

/* Fills in where: what the trace of the same run says about the same operations. */
void slowest_explain(struct slowest *s, const struct volume_trace *t);

const char *slowest_cause_name(enum slowest_cause cause);

/* "permit renewed, host stalled", or "-". */
const char *slowest_causes(const struct slow_op *op, char *buf, size_t size);

#endif
