/* Many seeds, each in a process of its own, so that an assertion that fails or a sanitizer's
 * finding is a failure of that seed, and the next one starts afresh: until one fails; of that the
 * least that makes it fail; and the same with each mutant, which some seed must find. */
#ifndef SIM_EXPLORE_H
#define SIM_EXPLORE_H

#include "tests/sim/seed.h"

#define EXPLORE_JOBS_MAX 256u

struct explore_options {
	struct seed_options seed;
	uint64_t first, count;
	uint32_t jobs; /* at once; up to EXPLORE_JOBS_MAX */
	bool verbose;
	bool covered;		       /* every fault and event must have happened in some seed */
	bool minimise;		       /* the one that fails */
	uint32_t runs_max, patience_s; /* for that */
	bool mutants[MUTANTS];	       /* explore_mutants: these */
};

/* False: a seed failed (stderr says how), or had nothing acknowledged, or something that must
 * happen did not. */
bool explore(const struct explore_options *o);

/* o->first alone, which fails or not; false: it does, and the last line of stdout replays the
 * least.
 */
bool explore_least(const struct explore_options *o);

/* Each must be found by a check, in a seed that passes without it. */
bool explore_mutants(const struct explore_options *o);

#endif
