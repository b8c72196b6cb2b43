/* Hedged reads: one that its replica has not answered when nearly all others would have been
 * (pace.h) is asked of another replica as well, and the first good answer counts. So a replica that
 * stops, or falls slow, delays the reads that were on their way to it by little, and nobody else.
 *
 *   vread SENT ----> list `sent`, in order --delay--> a second leg; list `doubled`
 *                         |                                |
 *                         +---- answered, lost, given up --+----> in no list
 *
 * Bounds: a read has two legs at most; VHEDGE_MAX are doubled at a time; one read in
 * VHEDGE_ONE_IN may be, over time, so that a cluster that is slow as a whole gets no double load.
 */
#ifndef VOLUME_HEDGE_H
#define VOLUME_HEDGE_H

#include "engine/reactor/reactor.h"
#include "engine/volume/pace.h"

#define VHEDGE_MAX	    256u
#define VHEDGE_ONE_IN	    10u
#define VHEDGE_DELAY_MIN_NS (NS_PER_MS / 5)
#define VHEDGE_DELAY_MAX_NS (100 * NS_PER_MS)
#define VHEDGE_DELAY_NS	    (20 * NS_PER_MS)  /* while the pace is not known */
#define VHEDGE_AGAIN_NS	    (10 * NS_PER_MS)  /* no other replica may answer now */
#define VHEDGE_STUCK_NS	    (200 * NS_PER_MS) /* a payload that stands still for so long */

struct volume;
struct vread;

struct vread_list {
	struct vread *head, *tail;
};

struct vhedge {
	struct vread_list sent, doubled;
	struct vpace pace;
	uint64_t delay_ns;
	uint32_t doubled_count;
	uint32_t credit; /* in reads: VHEDGE_ONE_IN for one hedge */
	struct reactor_timer timer;
	bool armed;
};

void vhedge_init(struct volume *v);
void vhedge_stop(struct volume *v);

/* rd was sent: its first leg is under way. It is in no list of its chunk. */
void vhedge_sent(struct vread *rd);
/* It is no longer under way. answered: what it took counts. */
void vhedge_over(struct vread *rd, bool answered);
void vhedge_tick(struct volume *v);

#endif
