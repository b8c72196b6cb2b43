/* histogram: see histogram.h. Row r > 0 holds [64 << (r - 1), 128 << (r - 1)) in steps of 1 << (r -
 * 1); row 0 holds [0, 64). */
#include "bench/histogram.h"

#include <math.h>

static uint32_t slot_of(uint64_t ns)
{
	uint32_t row, slot;

	if (ns < HISTOGRAM_STEPS)
		return (uint32_t)ns;
	row = 63 - (uint32_t)__builtin_clzll(ns) - 5;
	slot = row * HISTOGRAM_STEPS + (uint32_t)(ns >> (row - 1)) - HISTOGRAM_STEPS;
	return slot < HISTOGRAM_ROWS * HISTOGRAM_STEPS ? slot
						       : HISTOGRAM_ROWS * HISTOGRAM_STEPS - 1;
}

uint64_t histogram_top(uint32_t slot)
{
	uint32_t row = slot / HISTOGRAM_STEPS;

	if (row == 0)
		return slot;
	return ((uint64_t)(slot % HISTOGRAM_STEPS + HISTOGRAM_STEPS + 1) << (row - 1)) - 1;
}

void histogram_add(struct histogram *h, uint64_t ns)
{
	h->counts[slot_of(ns)]++;
	h->total++;
	h->sum_ns += ns;
	if (ns > h->max_ns)
		h->max_ns = ns;
}

void histogram_merge(struct histogram *to, const struct histogram *from)
{
	for (uint32_t i = 0; i < HISTOGRAM_ROWS * HISTOGRAM_STEPS; i++)
		to->counts[i] += from->counts[i];
	to->total += from->total;
	to->sum_ns += from->sum_ns;
	if (from->max_ns > to->max_ns)
		to->max_ns = from->max_ns;
}

uint64_t histogram_percentile(const struct histogram *h, double percent)
{
	uint64_t want = (uint64_t)ceil((double)h->total * percent / 100.0);
	uint64_t seen = 0;

	for (uint32_t i = 0; i < HISTOGRAM_ROWS * HISTOGRAM_STEPS; i++) {
		seen += h->counts[i];
		if (seen >= want && seen > 0)
			return histogram_top(i) < h->max_ns ? histogram_top(i) : h->max_ns;
	}
	return h->max_ns;
}

double histogram_mean(const struct histogram *h)
{
	return h->total == 0 ? 0 : (double)h->sum_ns / (double)h->total;
}
