/* timers: see timers.h.
 *
 * INVARIANTS
 *  1. heap[timer->heap_slot].timer == timer for every armed timer; heap_slot is 0 for all others.
 *  2. An entry is never before its parent, slot / 2.
 *  3. next_order only grows: equal deadlines fire in the order in which they were armed.
 * The heap keeps copies of the deadlines: sifting touches no timer but to note its slot. */
#include "engine/reactor/timers.h"

#include <errno.h>
#include <sys/mman.h>

#include "engine/base/assert.h"
#include "engine/base/types.h"

#define HEAP_BYTES ((TIMERS_MAX + 1) * sizeof(struct timers_entry))

int timers_init(struct timers *ts)
{
	/* Reserved, not used: pages come when they are touched. */
	void *heap = mmap(NULL, HEAP_BYTES, PROT_READ | PROT_WRITE,
			  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (heap == MAP_FAILED)
		return -ENOMEM;
	*ts = (struct timers){.heap = heap, .next_order = 1};
	return 0;
}

void timers_deinit(struct timers *ts)
{
	if (ts->heap != NULL)
		munmap(ts->heap, HEAP_BYTES);
	ts->heap = NULL;
	ts->count = 0;
}

static bool is_before(const struct timers_entry *a, const struct timers_entry *b)
{
	if (a->deadline_ns != b->deadline_ns)
		return a->deadline_ns < b->deadline_ns;
	return a->order < b->order;
}

static void place(struct timers *ts, uint32_t slot, const struct timers_entry *e)
{
	ts->heap[slot] = *e;
	e->timer->heap_slot = slot;
}

/* Puts e where it belongs, given that slot is free and its neighbours are in order. */
static void sift(struct timers *ts, uint32_t slot, struct timers_entry e)
{
	while (slot > 1 && is_before(&e, &ts->heap[slot / 2])) {
		place(ts, slot, &ts->heap[slot / 2]);
		slot /= 2;
	}
	for (;;) {
		uint32_t child = slot * 2;

		if (child > ts->count)
			break;
		if (child < ts->count && is_before(&ts->heap[child + 1], &ts->heap[child]))
			child++;
		if (!is_before(&ts->heap[child], &e))
			break;
		place(ts, slot, &ts->heap[child]);
		slot = child;
	}
	place(ts, slot, &e);
}

void timers_arm(struct timers *ts, struct reactor_timer *t, uint64_t deadline_ns, uint64_t now_ns)
{
	struct timers_entry e = {MAX(deadline_ns, now_ns), ts->next_order++, t};
	uint32_t slot = t->heap_slot;

	PRE(t->fire != NULL);
	if (slot == 0) {
		PRE(ts->count < TIMERS_MAX);
		slot = ++ts->count;
	} else {
		PRE(slot <= ts->count && ts->heap[slot].timer == t);
	}
	t->deadline_ns = deadline_ns;
	sift(ts, slot, e);
}

void timers_cancel(struct timers *ts, struct reactor_timer *t)
{
	uint32_t slot = t->heap_slot;
	struct timers_entry last;

	if (slot == 0)
		return;
	PRE(slot <= ts->count && ts->heap[slot].timer == t);
	t->heap_slot = 0;
	last = ts->heap[ts->count--];
	if (last.timer != t)
		sift(ts, slot, last);
}

uint64_t timers_next(const struct timers *ts)
{
	return ts->count == 0 ? TIMERS_NEVER : ts->heap[1].deadline_ns;
}

uint32_t timers_fire(struct timers *ts, uint64_t now_ns)
{
	uint64_t order_limit = ts->next_order;
	uint32_t fired = 0;

	/* What is armed meanwhile has a deadline of now_ns at least, so it comes after all that was
	 * due before: meeting it means that those are done. */
	while (ts->count > 0 && ts->heap[1].deadline_ns <= now_ns &&
	       ts->heap[1].order < order_limit) {
		struct reactor_timer *t = ts->heap[1].timer;

		timers_cancel(ts, t);
		fired++;
		t->fire(t);
	}
	return fired;
}
