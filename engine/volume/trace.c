/* trace: see trace.h. */
#include "engine/volume/trace.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "engine/volume/core.h"

int volume_trace_start(struct volume *v, struct volume_trace *t)
{
	if (v->trace != NULL)
		return -EBUSY;
	*t = (struct volume_trace){.begun_ns = volume_now(v)};
	v->trace = t;
	return 0;
}

static int by_total(const void *a, const void *b)
{
	const struct volume_trace_op *x = a, *y = b;

	return x->total_ns < y->total_ns ? 1 : x->total_ns > y->total_ns ? -1 : 0;
}

void volume_trace_stop(struct volume *v)
{
	struct volume_trace *t = v->trace;

	v->trace = NULL;
	if (t != NULL)
		qsort(t->slowest, t->count, sizeof t->slowest[0], by_total);
}

const char *volume_trace_part_name(enum volume_trace_part part)
{
	static const char *const names[VOLUME_TRACE_PARTS] = {
	    [TRACE_HOST_QUEUE] = "host queue", [TRACE_NETWORK] = "network",
	    [TRACE_NODE_QUEUE] = "node queue", [TRACE_LOG] = "log",
	    [TRACE_ANSWER] = "answer",	       [TRACE_HOST_END] = "host end",
	};

	return names[part];
}

static uint64_t less(uint64_t a, uint64_t b)
{
	return a > b ? a - b : 0;
}

void vtrace_answer(struct volume *v, const struct vrequest *q, const struct frame *f)
{
	struct volume_trace_answer *a = &v->trace->answer;
	uint64_t on_node;

	reactor_refresh(v->reactor);
	*a = (struct volume_trace_answer){
	    .told = (f->flags & FRAME_F_TRACE) != 0,
	    .sent_ns = q->sent_ns,
	    .answered_ns = volume_now(v),
	    .node = q->replica->node,
	};
	if (!a->told)
		return;
	a->parts_ns[TRACE_NODE_QUEUE] = f->chunk;
	a->parts_ns[TRACE_LOG] = f->block;
	a->parts_ns[TRACE_ANSWER] = f->block_count;
	on_node = (uint64_t)f->chunk + f->block + f->block_count;
	a->parts_ns[TRACE_NETWORK] = less(a->answered_ns - a->sent_ns, on_node);
}

static void keep(struct volume_trace *t, const struct volume_trace_op *op)
{
	if (t->count < VOLUME_TRACE_MAX)
		t->slowest[t->count++] = *op;
	else if (op->total_ns > t->slowest[t->fastest].total_ns)
		t->slowest[t->fastest] = *op;
	else
		return;
	t->fastest = 0;
	for (uint32_t i = 1; i < t->count; i++)
		if (t->slowest[i].total_ns < t->slowest[t->fastest].total_ns)
			t->fastest = i;
}

void vtrace_done(struct volume *v, const struct volume_op *op, uint64_t submitted_ns, int status)
{
	struct volume_trace *t = v->trace;
	const struct volume_trace_answer *a = &t->answer;
	const uint32_t changes = op->kind != VOLUME_READ;
	struct volume_trace_op o = {
	    .kind = op->kind,
	    .offset = op->offset,
	    .size = op->size,
	    .ended_ns = volume_now(v),
	    .total_ns = volume_now(v) - submitted_ns,
	};

	t->operations[changes]++;
	/* An answer from before it was submitted is another one's. */
	o.told = status == 0 && a->told && a->sent_ns >= submitted_ns;
	if (o.told) {
		snprintf(o.node, sizeof o.node, "%s", v->nodes[a->node].name);
		for (uint32_t i = TRACE_NETWORK; i < TRACE_HOST_END; i++)
			o.parts_ns[i] = a->parts_ns[i];
		o.parts_ns[TRACE_HOST_QUEUE] = a->sent_ns - submitted_ns;
		o.parts_ns[TRACE_HOST_END] = less(o.ended_ns, a->answered_ns);
		t->told[changes]++;
		t->total_ns[changes] += o.total_ns;
		for (uint32_t i = 0; i < VOLUME_TRACE_PARTS; i++)
			t->parts_ns[changes][i] += o.parts_ns[i];
	}
	keep(t, &o);
}
