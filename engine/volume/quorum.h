/* Counting copies: pure functions over masks of slots (bit i: the chunk's replica i).
 *
 * Majority of what: always of the configured replicas, never of those that happen to be reachable
 * or permitted. */
#ifndef VOLUME_QUORUM_H
#define VOLUME_QUORUM_H

#include <stdint.h>

#include "engine/base/types.h"

typedef uint32_t vmask_t; /* bit i: slot i of a chunk */

static inline vmask_t vmask_bit(uint32_t slot)
{
	return 1u << slot;
}

static inline uint32_t vmask_count(vmask_t m)
{
	return (uint32_t)__builtin_popcount(m);
}

static inline vmask_t vmask_all(uint32_t configured)
{
	return (1u << configured) - 1;
}

static inline uint32_t vquorum_majority(uint32_t configured)
{
	return configured / 2 + 1;
}

/* The copies that a guest's write needs: min_acks of the policy may ask for more than the majority,
 * never for less, and never for more than there are. */
static inline uint32_t vquorum_need(uint32_t configured, uint32_t min_acks)
{
	const uint32_t majority = vquorum_majority(configured);

	if (min_acks <= majority)
		return majority;
	return min_acks < configured ? min_acks : configured;
}

/* What is known of one write. */
struct vquorum_votes {
	vmask_t sent;	 /* may have left this host for the slot's node at least once */
	vmask_t ok;	 /* answered: durable there */
	vmask_t refused; /* answered: surely not stored (no space, bad checksum) */
	vmask_t unknown; /* answered with an error that says nothing of what was stored */
	vmask_t doubted; /* sent before, and not answered, or refused after it may have been carried
			  * out: what is refused the next time may be stored all the same */
};

/* A chunk has one slot more than replicas: while a replica is being replaced its successor, the
 * learner, is there too. Members are the slots of the configured replicas; they alone count. */
#define VSLOTS_MAX (REPLICAS_MAX + 1u)

enum vquorum_verdict { VQUORUM_PENDING, VQUORUM_ACKED, VQUORUM_FAILED };

/* members: the slots of the configured replicas. counted: slots whose node is in the permit now; an
 * answer of another is no copy. FAILED only when the answers themselves make the quorum impossible;
 * a slot that is away may still answer. */
static inline enum vquorum_verdict vquorum_judge(vmask_t members, uint32_t need,
						 const struct vquorum_votes *votes, vmask_t counted)
{
	const vmask_t lost = votes->refused | votes->unknown;

	if (vmask_count(votes->ok & counted & members) >= need)
		return VQUORUM_ACKED;
	if (vmask_count(members & ~lost) < need)
		return VQUORUM_FAILED;
	return VQUORUM_PENDING;
}

/* Of a write that failed: the slots that hold it or may hold it. They cannot stay current: a read
 * from one of them might show a write that a majority never had. */
static inline vmask_t vquorum_holders(const struct vquorum_votes *votes)
{
	return votes->sent & ~(votes->refused & ~votes->doubted);
}

#endif
