/* ramp: see ramp.h. */
#include "bench/ramp.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int bad(const char *text, struct error *err)
{
	return error_set(err, -EINVAL,
			 "'%.100s': as depth=1..256, rate=5000..80000 or rate=5000..80000:9 "
			 "(at most %u steps)",
			 text, RAMP_STEPS_MAX);
}

int ramp_parse(const char *text, struct ramp *ret, struct error *err)
{
	struct ramp r = {.kind = RAMP_DEPTH};
	char kind[8];
	unsigned from, to, count = 8;
	double ratio;
	int used = 0, rest = 0;

	if (sscanf(text, "%7[a-z]=%u..%u%n", kind, &from, &to, &used) < 3 || used == 0)
		return bad(text, err);
	if (text[used] == ':' && sscanf(text + used, ":%u%n", &count, &rest) != 1)
		return bad(text, err);
	if (text[used + rest] != '\0')
		return bad(text, err);
	if (strcmp(kind, "rate") == 0)
		r.kind = RAMP_RATE;
	else if (strcmp(kind, "depth") != 0 || text[used] == ':')
		return bad(text, err);
	if (from < 1 || to <= from || to > 100000000 || count < 2 || count > RAMP_STEPS_MAX)
		return bad(text, err);
	ratio = r.kind == RAMP_DEPTH ? 2 : pow((double)to / from, 1.0 / (count - 1));
	for (double at = from; at <= to * 1.0001 && r.count < RAMP_STEPS_MAX; at *= ratio)
		r.steps[r.count++] = floor(at + 0.5);
	/* Between the last doubling and the end there is one step more. */
	if (r.kind == RAMP_DEPTH && r.steps[r.count - 1] < to && r.count < RAMP_STEPS_MAX)
		r.steps[r.count++] = to;
	*ret = r;
	return 0;
}

uint32_t ramp_knee(const struct ramp *r, uint32_t count, const double *done, const double *due)
{
	uint32_t knee = count;
	double best = 0;

	for (uint32_t i = 0; i < count; i++)
		best = done[i] > best ? done[i] : best;
	for (uint32_t i = 0; i < count; i++) {
		if (r->kind == RAMP_DEPTH && done[i] >= best * RAMP_DEPTH_SHARE)
			return i;
		if (r->kind != RAMP_RATE)
			continue;
		if (done[i] < due[i] * RAMP_RATE_SHARE)
			break;
		knee = i;
	}
	return knee;
}
