/* What happened in the runs of many seeds, added up: a fault, or an event, that no seed has any
 * more is a hole in every check that waits for it. */
#ifndef SIM_COVERAGE_H
#define SIM_COVERAGE_H

#include <stdio.h>

#include "tests/sim/cluster.h"

#define COVERAGE_ROWS_MAX 96u

struct coverage {
	uint32_t row_count;
	struct coverage_row {
		const char *name; /* valid in this process, and those forked from it */
		uint64_t count;
		uint64_t seeds; /* in which it happened */
	} rows[COVERAGE_ROWS_MAX];
};

/* Of one run, at its end: all rows, in an order that is always the same. */
void coverage_take(const struct cluster *c, struct coverage *ret_coverage);

/* total: {0}, or what was added before. */
void coverage_add(struct coverage *total, const struct coverage *one);

void coverage_print(const struct coverage *k, FILE *to);

/* The names of the rows that are 0, by commas. Returns how many there are. */
uint32_t coverage_missing(const struct coverage *k, char *buf, size_t size);

/* By its name; 0: there is none. */
uint64_t coverage_count(const struct coverage *k, const char *name);

#endif
