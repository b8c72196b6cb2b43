/* What the log as a whole says, learnt in a survey before the one that compares: so that a group
 * can be judged when it is met.
 *
 * - Which groups count. After a crash groups may lie on the device that recovery did not accept:
 *   they come after one that was torn. A group counts when it is known to have been accepted: a
 *   later one of its stream was made when the stream was durable up to it, or names it as the one
 *   before, or the checkpoint covers the log up to it. The last few groups of a segment may lack
 *   such a witness when the segment that came after it has been used again.
 * - What was erased, and since when no erase can have been missed: as long as the hot stream, in
 *   which they are, leads back from group to group.
 * - What the log after the checkpoint says: where the index is not right any more, recovery is.
 *
 * Memory: 112 bytes a segment, and FACTS_ERASES_MAX and FACTS_LATER_MAX entries of 24 and 32 bytes
 * at most (56 MiB). Where these are not enough facts are answered with "perhaps", which never makes
 * damage of what is none. */
#ifndef PAVE_INSPECT_FACTS_H
#define PAVE_INSPECT_FACTS_H

#include "engine/store/survey.h"

#define FACTS_ERASES_MAX (1u << 20)
#define FACTS_LATER_MAX	 (1u << 20)

struct facts;

/* Reads the whole device. checkpoints: by shard; copied. 0, -ENOMEM, -EIO. */
int facts_learn(const struct survey_device *device, const struct format_super *super,
		const struct format_checkpoint *checkpoints, struct facts **ret_facts);
void facts_destroy(struct facts *f); /* NULL is allowed */

/* Whether the checkpoint covers the group, and recovery is known to have accepted it. */
bool facts_is_covered(const struct facts *f, const struct survey_group *group);

/* Whether all of a chunk was erased after the group `seq`. */
bool facts_is_erased(const struct facts *f, uint32_t shard, volume_id_t volume, chunk_no_t chunk,
		     uint64_t seq);

/* Whether every erase after the group `seq` is on the device still, so that facts_is_erased is
 * sure. */
bool facts_has_erases(const struct facts *f, uint32_t shard, uint64_t seq);

struct facts_place {
	uint32_t shard;
	volume_id_t volume;
	chunk_no_t chunk;
	block_no_t block;
	version_t version;
	uint32_t location; /* where it is, or LOCATION_NONE */
};

/* Whether the log after the checkpoint has the block elsewhere, in this version or a newer one, or
 * erases it. */
bool facts_is_superseded(const struct facts *f, const struct facts_place *place);

#endif
