/* Ramp: the same load again and again, with more depth or a higher rate each time, and where the
 * knee is. Pure.
 *
 * The knee of a ramp of depths: the smallest depth that reaches RAMP_DEPTH_SHARE of the best
 * throughput. Of rates: the highest rate that was carried: of what was due at least RAMP_RATE_SHARE
 * was done in time, and so at every rate before it. What Poisson has fall due in a short step is
 * not the rate that was asked for: of 100 a second for one second, by chance, 90 or 110. */
#ifndef BENCH_RAMP_H
#define BENCH_RAMP_H

#include "engine/base/error.h"
#include "engine/base/types.h"

#define RAMP_STEPS_MAX	 32u
#define RAMP_DEPTH_SHARE 0.95
#define RAMP_RATE_SHARE	 0.98

enum ramp_kind { RAMP_NONE, RAMP_DEPTH, RAMP_RATE };

struct ramp {
	enum ramp_kind kind;
	uint32_t count;
	double steps[RAMP_STEPS_MAX]; /* depths, or operations a second */
};

/* "depth=1..256" (doubling, the end included), "rate=5000..80000" or "rate=5000..80000:9" (that
 * many, the ratio of neighbours the same; 8 by default). -EINVAL with its text. */
int ramp_parse(const char *text, struct ramp *ret, struct error *err);

/* The knee's place among the first count steps, in which done[i] of due[i] a second were done (due:
 * for rates); count: none. */
uint32_t ramp_knee(const struct ramp *r, uint32_t count, const double *done, const double *due);

#endif
