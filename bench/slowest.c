/* slowest: see slowest.h. */
#include "bench/slowest.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void event(struct slowest *s, uint64_t from_ns, uint64_t to_ns, enum slowest_cause cause)
{
	s->events[s->event_count++ % SLOWEST_EVENTS] =
	    (struct slowest_event){from_ns, to_ns, cause};
}

static void look(struct slowest *s)
{
	const uint64_t now = reactor_now_ns(s->reactor);
	struct target_counts c;

	s->target->ops->counts(s->target, &c);
	if (now - s->last_ns > SLOWEST_TICK_NS + SLOWEST_STALL_NS)
		event(s, s->last_ns + SLOWEST_TICK_NS, now, SLOWEST_STALL);
	if (c.permits != s->last.permits)
		event(s, s->last_ns, now, SLOWEST_PERMIT);
	if (c.read_retries != s->last.read_retries)
		event(s, s->last_ns, now, SLOWEST_RETRY);
	if (c.reconciled_blocks != s->last.reconciled_blocks)
		event(s, s->last_ns, now, SLOWEST_RECONCILE);
	if (c.resyncs != s->last.resyncs)
		event(s, s->last_ns, now, SLOWEST_RESYNC);
	if (c.repairs != s->last.repairs)
		event(s, s->last_ns, now, SLOWEST_REPAIR);
	if (c.freezes != s->last.freezes)
		event(s, s->last_ns, now, SLOWEST_FREEZE);
	s->last = c;
	s->last_ns = now;
}

static void tick(struct reactor_timer *t)
{
	struct slowest *s = container_of(t, struct slowest, tick);

	look(s);
	reactor_timer_arm(s->reactor, t, reactor_now_ns(s->reactor) + SLOWEST_TICK_NS);
}

void slowest_begin(struct slowest *s, struct reactor *r, struct target *t)
{
	*s = (struct slowest){.reactor = r, .target = t, .tick = {.fire = tick}};
	s->begun_ns = s->last_ns = reactor_now_ns(r);
	t->ops->counts(t, &s->last);
	reactor_timer_arm(r, &s->tick, s->begun_ns + SLOWEST_TICK_NS);
}

uint64_t slowest_threshold(const struct slowest *s)
{
	return s->count < SLOWEST_MAX ? 0 : s->ops[s->fastest].latency_ns;
}

/* What happened while it was under way, as far as is known yet: the rest is added at the end. */
static void find_causes(const struct slowest *s, struct slow_op *op)
{
	const uint64_t to = s->begun_ns + op->at_ns, from = to - op->latency_ns;

	for (uint64_t i = 0; i < MIN(s->event_count, (uint64_t)SLOWEST_EVENTS); i++)
		if (s->events[i].from_ns < to && s->events[i].to_ns > from)
			op->causes |= 1u << s->events[i].cause;
}

static void find_fastest(struct slowest *s)
{
	s->fastest = 0;
	for (uint32_t i = 1; i < s->count; i++)
		if (s->ops[i].latency_ns < s->ops[s->fastest].latency_ns)
			s->fastest = i;
}

/* The fastest of those that ended at the same moment, when these are enough; or NULL. */
static struct slow_op *find_same(struct slowest *s, uint64_t at_ns)
{
	struct slow_op *fastest = NULL;
	uint32_t n = 0;

	for (uint32_t i = 0; i < s->count; i++) {
		struct slow_op *o = &s->ops[i];

		if (o->at_ns + NS_PER_MS <= at_ns || at_ns + NS_PER_MS <= o->at_ns)
			continue;
		n++;
		if (fastest == NULL || o->latency_ns < fastest->latency_ns)
			fastest = o;
	}
	return n < SLOWEST_SAME_MAX ? NULL : fastest;
}

void slowest_add(struct slowest *s, const struct slow_op *op)
{
	struct slow_op *same = find_same(s, op->at_ns);
	struct slow_op *place;

	if (same != NULL && op->latency_ns <= same->latency_ns)
		return;
	if (same != NULL)
		place = same;
	else if (s->count < SLOWEST_MAX)
		place = &s->ops[s->count++];
	else if (op->latency_ns > s->ops[s->fastest].latency_ns)
		place = &s->ops[s->fastest];
	else
		return;
	*place = *op;
	find_causes(s, place);
	find_fastest(s);
}

static int by_latency(const void *a, const void *b)
{
	const struct slow_op *x = a, *y = b;

	return x->latency_ns < y->latency_ns ? 1 : x->latency_ns > y->latency_ns ? -1 : 0;
}

void slowest_end(struct slowest *s)
{
	reactor_timer_cancel(s->reactor, &s->tick);
	look(s);
	for (uint32_t i = 0; i < s->count; i++)
		find_causes(s, &s->ops[i]);
	qsort(s->ops, s->count, sizeof s->ops[0], by_latency);
}

static void say_where(struct slow_op *op, const struct volume_trace_op *t)
{
	uint32_t most = 0;

	for (uint32_t i = 1; i < VOLUME_TRACE_PARTS; i++)
		if (t->parts_ns[i] > t->parts_ns[most])
			most = i;
	snprintf(op->where, sizeof op->where, "%s %.1f us%s%.32s",
		 volume_trace_part_name((enum volume_trace_part)most),
		 (double)t->parts_ns[most] / 1e3, t->node[0] != '\0' ? ", node " : "", t->node);
}

void slowest_explain(struct slowest *s, const struct volume_trace *t)
{
	for (uint32_t i = 0; i < s->count; i++) {
		struct slow_op *op = &s->ops[i];
		const uint64_t ended = s->begun_ns + op->at_ns;

		for (uint32_t k = 0; k < t->count; k++) {
			const struct volume_trace_op *o = &t->slowest[k];

			/* No other operation on this block can end so soon before or after. */
			if (o->told && o->offset == op->offset && o->ended_ns <= ended &&
			    ended - o->ended_ns < NS_PER_MS)
				say_where(op, o);
		}
	}
}

const char *slowest_cause_name(enum slowest_cause cause)
{
	static const char *const names[SLOWEST_CAUSES] = {
	    [SLOWEST_STALL] = "this process did not run",
	    [SLOWEST_PERMIT] = "permit renewed",
	    [SLOWEST_RETRY] = "read again elsewhere",
	    [SLOWEST_RECONCILE] = "reconciled",
	    [SLOWEST_RESYNC] = "resync",
	    [SLOWEST_REPAIR] = "repair",
	    [SLOWEST_FREEZE] = "held: too few copies",
	};

	return names[cause];
}

const char *slowest_causes(const struct slow_op *op, char *buf, size_t size)
{
	int n = 0;

	snprintf(buf, size, "-");
	for (unsigned i = 0; i < SLOWEST_CAUSES; i++)
		if ((op->causes & 1u << i) != 0 && (size_t)n < size)
			n += snprintf(buf + n, size - (size_t)n, "%s%s", n > 0 ? ", " : "",
				      slowest_cause_name((enum slowest_cause)i));
	return buf;
}
