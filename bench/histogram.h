/* Latency histogram with bounded relative error: 64 linear steps in each power of two (1.6 %), 1 ns
 * to 39 hours, fixed size, no allocation. Written by hand because Debian 12 has no HdrHistogram for
 * C.
 */
#ifndef BENCH_HISTOGRAM_H
#define BENCH_HISTOGRAM_H

#include <stdint.h>

#define HISTOGRAM_STEPS 64u
#define HISTOGRAM_ROWS	42u

struct histogram {
	uint64_t counts[HISTOGRAM_ROWS * HISTOGRAM_STEPS];
	uint64_t total, sum_ns, max_ns;
};

void histogram_add(struct histogram *h, uint64_t ns);
void histogram_merge(struct histogram *to, const struct histogram *from);

/* The value that `percent` of all are not above, in ns; 0 when empty. percent: (0, 100]. */
uint64_t histogram_percentile(const struct histogram *h, double percent);
double histogram_mean(const struct histogram *h);

/* The largest value that falls into slot i, of HISTOGRAM_ROWS * HISTOGRAM_STEPS. */
uint64_t histogram_top(uint32_t i);

#endif
