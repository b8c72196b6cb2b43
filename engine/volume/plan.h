/* What to copy so that a chunk's replicas agree: pure functions over what the replicas said. No
 * I/O, no clock; memory only for the answer (control path).
 *
 * Words of engine/ARCHITECTURE.md, "Replication": R are the replicas that are present, W_r their
 * watermarks, L_r the runs that r holds above W_r, m the one with the highest watermark, R' the
 * members: those that will be current, the others of R are behind and get resync.
 *
 * Rules that the decisions rest on:
 *   1. r holds everything decided up to W_r, and nothing undecided at or below W_r.
 *   2. A version names one content: two replicas with the same version of a block hold the same.
 *   3. A version <= W_m that m doesn't have was passed over: the phantom. It loses.
 *   4. A version > W_m may have been acknowledged: the newest of them wins. */
#ifndef VOLUME_PLAN_H
#define VOLUME_PLAN_H

#include <stdbool.h>

#include "engine/base/types.h"
#include "engine/volume/quorum.h"

/* A replica that is at most so many writes short of the best is made whole by reconciling too, not
 * left to resync. */
#define VPLAN_NEAR_MAX 4096u

struct vplan_run {
	block_no_t block;
	uint32_t block_count;
	version_t version;
	bool zero; /* of zeroes, written or discarded */
};

/* Runs in no particular order. Owner: whoever holds it; vplan_list_deinit. */
struct vplan_list {
	struct vplan_run *runs;
	uint32_t count, room;
};
int vplan_list_add(struct vplan_list *l, const struct vplan_run *run); /* -ENOMEM */
void vplan_list_deinit(struct vplan_list *l);			       /* zeroed is allowed */

struct vplan_state {
	bool present;
	version_t watermark; /* W_r */
	version_t newest;    /* newest <= watermark: L_r is empty */
};

struct vplan_choice {
	bool clean; /* every configured replica is present, and they agree: nothing to do, not even
		       to seal */
	uint32_t best;	 /* m */
	vmask_t members; /* R', at least a majority of the configured */
	vmask_t ask;	 /* whose runs are needed, above: */
	version_t above[VSLOTS_MAX];
};

/* configured: the slots of the chunk's members; states has a place for each. -E_UNREACHABLE: fewer
 * than a majority of them are present; *ret is untouched. */
int vplan_choose(const struct vplan_state *states, vmask_t configured, struct vplan_choice *ret);

/* Blocks to be written again, from one of the holders. */
struct vplan_copy {
	block_no_t block;
	uint32_t block_count; /* up to IO_BLOCKS_MAX */
	vmask_t holders;      /* never empty; all hold the same content */
};
struct vplan_copies {
	struct vplan_copy *copies; /* in order, disjoint; behind these the pieces of some */
	uint32_t count, room;
	uint64_t block_count;
};
void vplan_copies_deinit(struct vplan_copies *c);
/* Appends each block of the copy as one of its own: what no holder can read whole is read in
 * pieces. block_count stays: nothing more is copied. -ENOMEM. */
int vplan_copies_split(struct vplan_copies *c, const struct vplan_copy *copy);

/* lists[i]: what slot i holds above choice->above[i]; empty where it wasn't asked. Runs must lie
 * within chunk_blocks (-E_BAD_FRAME). A block that every member holds in the winner's version
 * already is not copied. -ENOMEM. */
int vplan_make(const struct vplan_state *states, vmask_t configured,
	       const struct vplan_choice *choice, const struct vplan_list *lists,
	       uint32_t chunk_blocks, struct vplan_copies *ret);

/* Resync of a replica that is behind: theirs is what it holds above its watermark, ours what a
 * current replica (which holds everything below limit) holds above the same watermark.
 * ret_phantoms: blocks that it holds newer than they are, to be written again from a current
 * replica. *ret_pull: a current replica holds something newer. Versions from limit on are writes
 * that it gets by itself, and are left out. -ENOMEM, -E_BAD_FRAME. */
int vplan_phantoms(const struct vplan_list *theirs, const struct vplan_list *ours, version_t limit,
		   uint32_t chunk_blocks, struct vplan_copies *ret_phantoms, bool *ret_pull);

/* Of the same two: what the pull is to fetch, so that one that was interrupted goes on where it
 * stopped, and what came directly is not copied again. Ranges, in order, around what is held
 * already; more of these than there are places are in a range all the same. -ENOMEM, -E_BAD_FRAME.
 */
#define VPLAN_RANGES_MAX 64u
struct vplan_missing {
	uint32_t block_count, range_count;
	struct vplan_range {
		block_no_t block;
		uint32_t block_count;
	} ranges[VPLAN_RANGES_MAX];
};
int vplan_missing(const struct vplan_list *theirs, const struct vplan_list *ours, version_t limit,
		  uint32_t chunk_blocks, struct vplan_missing *ret);

#endif
