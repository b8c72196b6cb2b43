/* timeline: see timeline.h. */
#include "bench/timeline.h"

#include <string.h>

#include "engine/base/types.h"

static void halve(struct timeline *t)
{
	for (uint32_t i = 0; i < TIMELINE_STEPS_MAX / 2; i++) {
		const struct timeline_step a = t->steps[2 * i], b = t->steps[2 * i + 1];

		t->steps[i] = (struct timeline_step){
		    .operations = a.operations + b.operations,
		    .bytes = a.bytes + b.bytes,
		    .latency_max_ns = MAX(a.latency_max_ns, b.latency_max_ns),
		};
	}
	memset(t->steps + TIMELINE_STEPS_MAX / 2, 0, sizeof t->steps / 2);
	t->step_ns *= 2;
	t->count = (t->count + 1) / 2;
}

void timeline_add(struct timeline *t, uint64_t at_ns, uint32_t bytes, uint64_t latency_ns)
{
	struct timeline_step *s;

	if (t->step_ns == 0)
		t->step_ns = TIMELINE_STEP_NS;
	while (at_ns / t->step_ns >= TIMELINE_STEPS_MAX)
		halve(t);
	s = &t->steps[at_ns / t->step_ns];
	t->count = MAX(t->count, (uint32_t)(at_ns / t->step_ns) + 1);
	s->operations++;
	s->bytes += bytes;
	s->latency_max_ns = MAX(s->latency_max_ns, latency_ns);
}
