/* A seed that fails, with as little of what goes wrong in it as still makes it fail. */
#ifndef SIM_MINIMISE_H
#define SIM_MINIMISE_H

#include "tests/sim/faults.h"

struct minimise {
	/* Runs the seed without that, in a process of its own; true: it fails as it did. */
	bool (*fails)(const struct faults_left_out *left_out, void *arg);
	void *arg;
	uint32_t courses;     /* bits: that the seed has */
	uint32_t fault_count; /* of the seed's; those from FAULTS_MAX on stay */
	uint32_t runs_max;
	uint32_t patience_s; /* no run begins later, by a real clock */

	/* What it came to. */
	uint32_t runs;
	uint32_t courses_left, faults_left;
	bool given_up; /* a bound was reached, so some of what is left may have nothing to do with
			  it */
};

/* Leaves out all courses at once, then one after the other; then one part of the faults after the
 * other, halves first, single ones at last; then the courses that are left once more: for as long
 * as it fails. left_out: what is left out already, and then what can be. */
void minimise(struct minimise *m, struct faults_left_out *left_out);

#endif
