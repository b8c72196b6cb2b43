/* Mutants: production code with one promise broken, which the simulator must find. They are made at
 * link time (ld's --wrap), so that production code knows nothing of them; but for stop-unseen, of
 * the simulated clock (world.h), for the reading that it leaves out is inlined. */
#ifndef SIM_MUTANTS_H
#define SIM_MUTANTS_H

enum mutant {
	MUTANT_NONE,
	MUTANT_NOT_DURABLE,	   /* the log is acknowledged before it is durable */
	MUTANT_FENCE_FORGOTTEN,	   /* a node's fence doesn't survive its restart */
	MUTANT_FENCE_IGNORED,	   /* a node lets older generations write */
	MUTANT_EARLY_SERVE,	   /* a newer attachment serves while the older permit may live */
	MUTANT_UNANSWERED_READ,	   /* a read goes to a replica that hasn't answered a write */
	MUTANT_UNDECIDED_READ,	   /* a read doesn't wait for the majority of a write in flight */
	MUTANT_PULL_SKIPPED,	   /* resync doesn't fetch what the returning replica missed */
	MUTANT_PHANTOM_KEPT,	   /* resync leaves what only the returning replica holds */
	MUTANT_UNSEALED,	   /* a watermark is answered, and not kept */
	MUTANT_CRC_UNCHECKED,	   /* checksums always match */
	MUTANT_REVOCATION_IGNORED, /* every site is always eligible */
	MUTANT_ONE_COPY,	   /* a write is acknowledged after one copy */
	MUTANT_WATERMARK_HIGH,	   /* a watermark covers what is undecided or unanswered */
	MUTANT_BEHIND_CURRENT,	   /* reconciling makes replicas current that are far behind */
	MUTANT_RECONCILE_IDLE,	   /* reconciling copies nothing */
	MUTANT_RESYNC_SKIPPED,	   /* a replica that was behind is current at once */
	MUTANT_PULL_SHORT,	   /* a pull leaves out the last block that is missing */
	MUTANT_PULL_OVERWRITES,	   /* what is pulled beats what was written meanwhile */
	MUTANT_LOCK_IGNORED,	   /* the guest writes into ranges that are being rewritten */
	MUTANT_UNREPAIRED,	   /* what does not check is not written again */
	MUTANT_PERMIT_FOREVER,	   /* a permit never runs out */
	MUTANT_ACKED_EARLY,	   /* a node answers before it has done anything */
	MUTANT_ZERO_DROPPED,	   /* a node answers a zeroing, and does not do it */
	MUTANT_SHORT_WRITE,	   /* a store keeps all but the last block of a write */
	MUTANT_CHANGES_CUT,	   /* a node lists the first few changes only */
	MUTANT_GENERATION_LOST,	   /* the driver does not make a generation durable */
	MUTANT_OLDER_FORGOTTEN,	   /* the driver forgets the permit of an older attachment */
	MUTANT_MERGE_DROPPED,	   /* a merge leaves the lower layer as it is */
	MUTANT_PART_SERVED,	   /* a replica that lacks parts of sealed layers serves reads */
	MUTANT_SEALED_EARLY,	   /* a layer is called sealed before all of it is settled */
	MUTANT_LEARNER_BARE,	   /* a learner replaces a member without its sealed layers */
	MUTANT_SHARED_ERASED,	   /* what a member gives up is erased with what others share */
	MUTANT_HEDGE_STALE,	   /* the second leg of a read asks a replica that lacks a write */
	MUTANT_CERTIFICATE_OUTLIVED, /* a site's certificate ends an hour later for everybody */
	MUTANT_FULL_ANSWERED, /* a node answers what its store refuses for want of space as done */
	MUTANT_ISSUES_ALWAYS, /* a driver issues permits though another may lead */
	MUTANT_LEASE_SHORT,   /* the leader's key goes before its holder thinks so */
	MUTANT_MOVE_STALE,    /* what is written while a chunk moves is not copied again */
	MUTANT_MOVE_UNRECORDED, /* no record says which copy of a chunk that moves counts */
	MUTANT_ABSENT_DENIED,	/* what may be on a device that is away is said not to be there */
	MUTANT_DEPOSED_WRITES,	/* the register takes the writes of a driver that leads no more */
	MUTANT_QUARANTINED_COUNTS, /* a copy counts though its node is not in the permit any more */
	MUTANT_LATE_COUNT,  /* a host that was stopped counts copies before it looks at the clock */
	MUTANT_LATE_ANSWER, /* a node does not look at the clock again before it answers */
	MUTANT_STOP_UNSEEN, /* what is decided goes by the clock before a stop in mid-turn */
	MUTANT_LEARNER_EARLY, /* a learner passes for complete before it has caught up */
	MUTANT_JOINT_SKIPPED, /* while the map changes, the members that are to be are not asked */
	MUTANT_HOST_ANYWHERE, /* nobody asks where the host is */
	MUTANTS
};

/* "none", "not-durable", ... NULL: no such number. */
const char *mutant_name(enum mutant m);

/* From now on. */
void mutant_set(enum mutant m);
enum mutant mutant_now(void);

/* For mutants.c: a permit has been opened, by the process whose turn it is. */
struct permit;
void mutant_permit_opened(struct permit *p);

#endif
