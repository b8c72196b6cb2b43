/* Which blocks a job touches, and how: a pure stream of (offset, size, write) from a description
 * and a seed. No I/O, no clock.
 *
 * Offsets are multiples of the operation's size, counted from the start of the job's range, so that
 * sequential streams and random ones of one size meet the same blocks. */
#ifndef BENCH_PATTERN_H
#define BENCH_PATTERN_H

#include "engine/base/error.h"
#include "engine/base/types.h"

#define PATTERN_SIZES_MAX 8u

struct pattern_size {
	uint32_t bytes;	 /* multiple of BLOCK_SIZE, up to IO_SIZE_MAX */
	uint32_t weight; /* share, of the sum of all */
};

struct pattern_spec {
	bool random;
	uint32_t read_percent; /* 0: writes only, 100: reads only */
	double zipf;	       /* exponent; 0: uniform. Random only */
	uint32_t size_count;
	struct pattern_size sizes[PATTERN_SIZES_MAX];
	uint64_t start, range; /* bytes of the target; multiples of BLOCK_SIZE */
};

/* "4KiB", or a mix with weights: "4KiB:70,64KiB:30"; '/' separates too. -EINVAL with its text. */
int pattern_parse_sizes(const char *text, struct pattern_spec *spec, struct error *err);

/* randwrite, randread, randrw (70 % reads), write, read, rw. -EINVAL with its text. */
int pattern_parse_rw(const char *text, struct pattern_spec *spec, struct error *err);

uint32_t pattern_size_max(const struct pattern_spec *spec);

/* Rejection inversion (Hoermann and Derflinger 1996): exact, no table, whatever the exponent. */
struct zipf {
	double exponent, h_x1, h_n, s;
	uint64_t count;
};

struct pattern {
	struct pattern_spec spec;
	uint64_t random_state;
	uint64_t cursor; /* sequential: where the next one begins, from the start of the range */
	uint32_t weight_sum;
	struct zipf zipf[PATTERN_SIZES_MAX]; /* one a size */
	uint64_t scatter[PATTERN_SIZES_MAX]; /* odd step that spreads the popular ones out */
};

struct pattern_op {
	uint64_t offset;
	uint32_t size;
	bool write;
};

/* Every size must fit into the range. */
void pattern_init(struct pattern *p, const struct pattern_spec *spec, uint64_t seed);
struct pattern_op pattern_next(struct pattern *p);

/* Another place for the same operation, for a caller that may not use the one it got. */
void pattern_again(struct pattern *p, struct pattern_op *op);

/* The place after it, around at the end of the range: all are met before one comes again. */
void pattern_beside(const struct pattern *p, struct pattern_op *op);

uint64_t pattern_random(struct pattern *p);
double pattern_uniform(struct pattern *p); /* in (0, 1] */

void zipf_init(struct zipf *z, uint64_t count, double exponent);
uint64_t zipf_next(const struct zipf *z, struct pattern *p); /* 1 to count */

#endif
