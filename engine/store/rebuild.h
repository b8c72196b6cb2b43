/* The index of a device made anew from its segments alone, for when the index was lost or is
 * damaged. For offline tools and tests; it blocks, and keeps the whole new index in memory
 * (REBUILD_PAGE_BYTES for each 64 KiB page that holds anything).
 *
 * Pass 1 reads everything: which blocks do not check; what was erased, and when; fences; the
 * numbers of the log; whether the log is complete, that is whether both streams' chains lead from
 * their first group to their last. Pass 2 goes through the groups again: for each block the newest
 * version wins, of several copies of it the last one that checks; what was erased after it was
 * written does not count, nor does a torn group at the log's end.
 *
 * What cannot be recovered exactly, when segments have been used again since (the log is not
 * complete):
 * - Zeroes and discards take no space, so the segment with their entry may be gone. If the segment
 *   with the older data is still there the older data comes back.
 * - Likewise the entry of an erase: a copy that was erased, and not overwritten, may come back.
 * - Watermarks. They would say "everything up to here is held", which is not certain any more.
 * Therefore all watermarks are then 0: the replica claims nothing but the versions that it shows,
 * any replica with a watermark beats it where they differ, and it gets everything that is newer by
 * resync before it serves. What was written and acknowledged here is all there. So a device may be
 * rebuilt as long as the other replicas of its chunks, or a majority of them, are not: zeroes and
 * discards are then theirs.
 * - Fences: the highest of those found and of all versions' generations. An older attachment whose
 *   permit has not run out could write; permits live ten seconds.
 * - The scrub's position and counters, priming: begun anew.
 *
 * When the log is complete everything is exact, watermarks included. */
#ifndef STORE_REBUILD_H
#define STORE_REBUILD_H

#include "engine/kv/kv.h"
#include "engine/store/survey.h"

#define REBUILD_PAGE_BYTES 500u

struct rebuild_stats {
	uint64_t groups, old_groups, torn_groups;
	uint64_t blocks;	    /* live, with data */
	uint64_t zero_blocks;	    /* zeroed or discarded */
	uint64_t bad_blocks;	    /* live, and they do not check: another replica repairs them */
	uint64_t lost_blocks;	    /* under headers that do not check: not in the new index */
	uint64_t unreadable_blocks; /* of the device */
	uint64_t pages, chunks, volumes, erases;
	bool complete;
};

struct rebuild;

/* device and super are lent. NULL: no memory. */
struct rebuild *rebuild_create(const struct survey_device *device,
			       const struct format_super *super);
/* Both passes. -ENOMEM, -E_LIMIT. */
int rebuild_run(struct rebuild *r, struct error *err);
void rebuild_get_stats(const struct rebuild *r, struct rebuild_stats *ret_stats);

/* Writes the index into kv, for all shards, under the device's slot there. commit makes a batch
 * durable, and takes it over; what it returns if not 0 ends the writing. */
int rebuild_write(struct rebuild *r, struct kv *kv, uint32_t slot,
		  int (*commit)(struct kv *kv, struct kv_batch *batch, void *arg), void *arg,
		  struct error *err);
void rebuild_destroy(struct rebuild *r); /* NULL is allowed */

#endif
