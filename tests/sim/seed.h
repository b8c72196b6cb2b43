/* One seed: a cluster is set up; faults and work for some minutes of virtual time; the faults end,
 * and (in every second seed) one node is lost for ever; then the whole volume must be read back and
 * be right. */
#ifndef SIM_SEED_H
#define SIM_SEED_H

#include "tests/sim/coverage.h"
#include "tests/sim/faults.h"
#include "tests/sim/mutants.h"

struct seed_options {
	double minutes;
	bool faults;
	bool trace;	 /* the whole timeline goes to stderr */
	bool statistics; /* one line, to stdout */
	enum mutant mutant;
	struct faults_left_out left_out;
};

/* As far as the run came; what it was before an assertion or a signal ended the process, too. */
struct seed_outcome {
	bool told;	    /* a check, or an assertion of production code, says what is wrong */
	char failure[4000]; /* by then; or empty */
	uint32_t fault_count;
	uint32_t courses; /* that it has: bits of enum faults_course */
	struct coverage coverage;
};

/* False: it failed, and stderr says how. An assertion that fails ends the process, with 1; its
 * outcome is filled before that, so it may lie in memory shared with another one. Once a process.
 */
bool seed_run(uint64_t seed, const struct seed_options *o, struct seed_outcome *ret_outcome);

#endif
