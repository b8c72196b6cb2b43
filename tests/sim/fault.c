/* fault: see fault.h. */
#include "tests/sim/fault.h"

#include <stdlib.h>

#include "engine/base/assert.h"
#include "tests/sim/faults.h"
#include "tests/sim/guest.h"

#define AGAIN_NS NS_PER_S

/* splitmix64 */
uint64_t fault_random(uint64_t *stream)
{
	uint64_t z = (*stream += 0x9e3779b97f4a7c15ull);

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
	return z ^ (z >> 31);
}

uint64_t fault_below(struct cluster *c, uint64_t n)
{
	return fault_random(&c->fault_stream) % n;
}

uint64_t fault_range(struct cluster *c, uint64_t from, uint64_t to)
{
	return from + fault_below(c, to - from + 1);
}

bool fault_chance(struct cluster *c, uint64_t numerator, uint64_t denominator)
{
	return fault_below(c, denominator) < numerator;
}

struct machine *fault_node(struct cluster *c)
{
	return c->nodes[fault_below(c, c->node_count)];
}

struct machine *fault_attached_host(struct cluster *c)
{
	for (uint32_t h = 0; h < CLUSTER_HOSTS; h++)
		if (c->hosts[h]->guest->phase == GUEST_ATTACHED)
			return c->hosts[h];
	return NULL;
}

void fault_run_ending(void *arg)
{
	struct ending *e = arg;

	e->cluster->fault_stream = e->stream;
	e->end(e);
	free(e);
}

struct ending *fault_ending(struct cluster *c, struct machine *a, struct machine *b, uint32_t site,
			    void (*end)(struct ending *e))
{
	struct ending *e = calloc(1, sizeof(*e));

	INVARIANT(e != NULL);
	*e = (struct ending){.cluster = c,
			     .stream = fault_random(&c->fault_stream),
			     .a = a,
			     .b = b,
			     .site = site,
			     .end = end};
	return e;
}

void fault_end_later(struct cluster *c, struct machine *a, struct machine *b, uint32_t site,
		     uint64_t max_ns, void (*end)(struct ending *e))
{
	struct ending *e = fault_ending(c, a, b, site, end);

	sim_schedule(c->world, NULL, fault_below(c, max_ns), fault_run_ending, e);
}

void fault_kill(struct ending *e)
{
	struct cluster *c = e->cluster;

	if (!c->faults_over)
		sim_process_crash(e->a->process, fault_chance(c, 1, 2) ? SIM_KILL : SIM_POWER_LOSS);
}

void fault_end_withdrawal(struct ending *e)
{
	struct cluster *c = e->cluster;

	/* The administrator is busy, or has no session: again, later. */
	if (!c->faults_over && !cluster_withdraw(c, e->site, false))
		fault_end_later(c, NULL, NULL, e->site, AGAIN_NS, fault_end_withdrawal);
}

const char *faults_course_name(enum faults_course course)
{
#define FAULTS_COURSE_(name, text) text,
	static const char *const names[] = {FAULTS_COURSES(FAULTS_COURSE_)};
#undef FAULTS_COURSE_

	return names[course];
}

bool faults_course(struct cluster *c, enum faults_course course)
{
	c->courses |= 1u << course;
	return c->left_out == NULL || (c->left_out->courses >> course & 1) == 0;
}
