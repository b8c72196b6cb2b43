/* minimise: see minimise.h. */
#include "tests/sim/minimise.h"

#include <string.h>
#include <time.h>

struct search {
	struct minimise *m;
	time_t until;
	struct faults_left_out *left_out; /* without this it fails */
};

static bool may_go_on(struct search *s)
{
	/* time(2), as nothing of the simulator reads it: clock_gettime is virtual there. */
	if (s->m->runs >= s->m->runs_max || time(NULL) >= s->until)
		s->m->given_up = true;
	return !s->m->given_up;
}

/* Takes over what fails; false: it does not fail, or that was not tried any more. */
static bool try(struct search *s, const struct faults_left_out *less)
{
	if (!may_go_on(s))
		return false;
	s->m->runs++;
	if (!s->m->fails(less, s->m->arg))
		return false;
	*s->left_out = *less;
	return true;
}

static uint32_t courses_left(const struct search *s)
{
	return s->m->courses & ~s->left_out->courses;
}

static void leave_out_courses(struct search *s)
{
	struct faults_left_out less = *s->left_out;

	less.courses |= s->m->courses;
	if (courses_left(s) == 0 || try(s, &less))
		return;
	for (uint32_t i = 0; i < FAULTS_COURSES_COUNT; i++) {
		if ((courses_left(s) >> i & 1) == 0)
			continue;
		less = *s->left_out;
		less.courses |= 1u << i;
		try(s, &less);
	}
}

/* Leaves out the next `size` faults from *at on that are still in. False: there are none. */
static bool next_part(struct faults_left_out *less, uint32_t fault_count, uint32_t *at,
		      uint32_t size)
{
	uint32_t n = 0;

	for (; *at < fault_count && n < size; (*at)++) {
		if (less->faults[*at])
			continue;
		less->faults[*at] = true;
		n++;
	}
	return n > 0;
}

static void leave_out_faults(struct search *s)
{
	const uint32_t count = MIN(s->m->fault_count, FAULTS_MAX);

	for (uint32_t size = count; size > 0 && !s->m->given_up; size /= 2) {
		uint32_t at = 0;

		for (;;) {
			struct faults_left_out less = *s->left_out;

			if (!next_part(&less, count, &at, size))
				break;
			try(s, &less);
		}
	}
}

static uint32_t faults_left(const struct search *s)
{
	uint32_t left = 0;

	for (uint32_t i = 0; i < MIN(s->m->fault_count, FAULTS_MAX); i++)
		left += !s->left_out->faults[i];
	return left;
}

void minimise(struct minimise *m, struct faults_left_out *left_out)
{
	struct search s = {
	    .m = m, .until = time(NULL) + (time_t)m->patience_s, .left_out = left_out};
	const uint32_t before = faults_left(&s);

	m->runs = 0;
	m->given_up = false;
	leave_out_courses(&s);
	leave_out_faults(&s);
	if (faults_left(&s) < before && courses_left(&s) != 0)
		leave_out_courses(&s);
	m->courses_left = (uint32_t)__builtin_popcount(courses_left(&s));
	m->faults_left = faults_left(&s);
}
