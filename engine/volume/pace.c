/* pace: see pace.h. */
#include "engine/volume/pace.h"

#define UNIT_SHIFT 12u /* the first bucket: up to 4 us */

/* The bucket's number is the place of the highest bit and the two bits after it. */
static uint32_t bucket_of(uint64_t took_ns)
{
	const uint64_t units = (took_ns >> UNIT_SHIFT) + 4;
	const uint32_t top = 63 - (uint32_t)__builtin_clzll(units);
	const uint32_t i = (top - 2) * 4 + (uint32_t)((units >> (top - 2)) & 3);

	return i < VPACE_BUCKETS ? i : VPACE_BUCKETS - 1;
}

static uint64_t bucket_end_ns(uint32_t i)
{
	return (((uint64_t)((i & 3) + 5) << (i / 4)) - 4) << UNIT_SHIFT;
}

void vpace_note(struct vpace *p, uint64_t took_ns)
{
	p->counts[bucket_of(took_ns)]++;
	if (++p->total < VPACE_SAMPLE_MAX)
		return;
	p->total = 0;
	for (uint32_t i = 0; i < VPACE_BUCKETS; i++) {
		p->counts[i] /= 2;
		p->total += p->counts[i];
	}
}

uint64_t vpace_p99_ns(const struct vpace *p)
{
	uint32_t above = 0;

	if (p->total < VPACE_SAMPLE_MIN)
		return 0;
	for (uint32_t i = VPACE_BUCKETS; i-- > 0;) {
		above += p->counts[i];
		if (above > p->total / 100)
			return bucket_end_ns(i);
	}
	return 0;
}
