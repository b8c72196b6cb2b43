/* The pace of reads: how long nearly all of them take. A pure core: no I/O, no clock.
 *
 * Durations are counted in buckets of a quarter of an octave; the count is halved again and again,
 * so that what was long ago weighs little. */
#ifndef VOLUME_PACE_H
#define VOLUME_PACE_H

#include <stdint.h>

#define VPACE_BUCKETS	 96u
#define VPACE_SAMPLE_MIN 100u  /* no percentile is known before */
#define VPACE_SAMPLE_MAX 8192u /* then all counts are halved */

struct vpace {
	uint32_t counts[VPACE_BUCKETS];
	uint32_t total;
};

/* Zeroed memory has seen nothing. */

void vpace_note(struct vpace *p, uint64_t took_ns);

/* At least 99 in 100 took no longer; 0: too few were seen. Rounded up, by less than a fifth. */
uint64_t vpace_p99_ns(const struct vpace *p);

#endif
