/* mutants: see mutants.h. The linker is told of the wrapped functions in meson.build. */
#include "tests/sim/mutants.h"

#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/assert.h"
#include "engine/base/crc32c.h"
#include "engine/disk/disk.h"
#include "engine/evidence/evaluate.h"
#include "engine/evidence/model.h"
#include "engine/evidence/permit.h"
#include "engine/node/shard.h"
#include "engine/store/store.h"
#include "engine/volume/plan.h"
#include "engine/volume/read.h"
#include "engine/volume/write.h"
#include "tests/sim/process.h"

static enum mutant active;

static const char *const names[MUTANTS] = {
    [MUTANT_NONE] = "none",
    [MUTANT_NOT_DURABLE] = "not-durable",
    [MUTANT_FENCE_FORGOTTEN] = "fence-forgotten",
    [MUTANT_FENCE_IGNORED] = "fence-ignored",
    [MUTANT_EARLY_SERVE] = "early-serve",
    [MUTANT_UNANSWERED_READ] = "unanswered-read",
    [MUTANT_UNDECIDED_READ] = "undecided-read",
    [MUTANT_PULL_SKIPPED] = "pull-skipped",
    [MUTANT_PHANTOM_KEPT] = "phantom-kept",
    [MUTANT_UNSEALED] = "unsealed",
    [MUTANT_CRC_UNCHECKED] = "crc-unchecked",
    [MUTANT_REVOCATION_IGNORED] = "revocation-ignored",
    [MUTANT_ONE_COPY] = "one-copy",
    [MUTANT_WATERMARK_HIGH] = "watermark-high",
    [MUTANT_BEHIND_CURRENT] = "behind-current",
    [MUTANT_RECONCILE_IDLE] = "reconcile-idle",
    [MUTANT_RESYNC_SKIPPED] = "resync-skipped",
    [MUTANT_PULL_SHORT] = "pull-short",
    [MUTANT_PULL_OVERWRITES] = "pull-overwrites",
    [MUTANT_LOCK_IGNORED] = "lock-ignored",
    [MUTANT_UNREPAIRED] = "unrepaired",
    [MUTANT_PERMIT_FOREVER] = "permit-forever",
    [MUTANT_ACKED_EARLY] = "acked-early",
    [MUTANT_ZERO_DROPPED] = "zero-dropped",
    [MUTANT_SHORT_WRITE] = "short-write",
    [MUTANT_CHANGES_CUT] = "changes-cut",
    [MUTANT_GENERATION_LOST] = "generation-lost",
    [MUTANT_OLDER_FORGOTTEN] = "older-forgotten",
    [MUTANT_MERGE_DROPPED] = "merge-dropped",
    [MUTANT_PART_SERVED] = "part-served",
    [MUTANT_SEALED_EARLY] = "sealed-early",
    [MUTANT_LEARNER_BARE] = "learner-bare",
    [MUTANT_SHARED_ERASED] = "shared-erased",
    [MUTANT_HEDGE_STALE] = "hedge-stale",
    [MUTANT_CERTIFICATE_OUTLIVED] = "certificate-outlived",
    [MUTANT_FULL_ANSWERED] = "full-answered",
    [MUTANT_ISSUES_ALWAYS] = "issues-always",
    [MUTANT_LEASE_SHORT] = "lease-short",
    [MUTANT_MOVE_STALE] = "move-stale",
    [MUTANT_MOVE_UNRECORDED] = "move-unrecorded",
    [MUTANT_ABSENT_DENIED] = "absent-denied",
    [MUTANT_DEPOSED_WRITES] = "deposed-writes",
    [MUTANT_QUARANTINED_COUNTS] = "quarantined-counts",
    [MUTANT_LATE_COUNT] = "late-count",
    [MUTANT_LATE_ANSWER] = "late-answer",
    [MUTANT_STOP_UNSEEN] = "stop-unseen",
    [MUTANT_LEARNER_EARLY] = "learner-early",
    [MUTANT_JOINT_SKIPPED] = "joint-skipped",
    [MUTANT_HOST_ANYWHERE] = "host-anywhere",
};

const char *mutant_name(enum mutant m)
{
	return m < MUTANTS ? names[m] : NULL;
}

void mutant_set(enum mutant m)
{
	active = m;
}

enum mutant mutant_now(void)
{
	return active;
}

/* An answer without the deed, by the process whose turn it is. */
static void answer_later(void (*fn)(void *arg), void *op)
{
	struct sim_world *w = sim_world_now();

	sim_schedule(w, w->now, NS_PER_MS, fn, op);
}

/* -- disk and store -------------------------------------------------------------------------- */

void __real_disk_submit(struct disk *disk, struct disk_op *op);
void __wrap_disk_submit(struct disk *disk, struct disk_op *op);
void __wrap_disk_submit(struct disk *disk, struct disk_op *op)
{
	if (active == MUTANT_NOT_DURABLE && op->kind == DISK_WRITE &&
	    sim_chance(sim_process_of(disk->reactor)->world, 1, 3))
		op->durable = false;
	__real_disk_submit(disk, op);
}

static void fence_answered(void *arg)
{
	struct store_fence_op *op = arg;

	op->done(op, 0);
}

void __real_store_fence(struct store *store, struct store_fence_op *op);
void __wrap_store_fence(struct store *store, struct store_fence_op *op);
void __wrap_store_fence(struct store *store, struct store_fence_op *op)
{
	if (active == MUTANT_FENCE_FORGOTTEN || active == MUTANT_FENCE_IGNORED)
		answer_later(fence_answered, op);
	else
		__real_store_fence(store, op);
}

static void watermark_answered(void *arg)
{
	struct store_watermark_op *op = arg;

	op->done(op, 0);
}

void __real_store_watermark(struct store *store, struct store_watermark_op *op);
void __wrap_store_watermark(struct store *store, struct store_watermark_op *op);
void __wrap_store_watermark(struct store *store, struct store_watermark_op *op)
{
	if (active == MUTANT_UNSEALED)
		answer_later(watermark_answered, op);
	else
		__real_store_watermark(store, op);
}

void __real_node_shard_fence_sessions(struct node_shard *shard, struct node_volume *volume);
void __wrap_node_shard_fence_sessions(struct node_shard *shard, struct node_volume *volume);
void __wrap_node_shard_fence_sessions(struct node_shard *shard, struct node_volume *volume)
{
	if (active != MUTANT_FENCE_IGNORED)
		__real_node_shard_fence_sessions(shard, volume);
}

/* -- checksums ------------------------------------------------------------------------------- */

bool __real_crc32c_blocks_match(const void *data, uint32_t block_count, const uint32_t *crcs);
bool __wrap_crc32c_blocks_match(const void *data, uint32_t block_count, const uint32_t *crcs);
bool __wrap_crc32c_blocks_match(const void *data, uint32_t block_count, const uint32_t *crcs)
{
	return active == MUTANT_CRC_UNCHECKED ||
	       __real_crc32c_blocks_match(data, block_count, crcs);
}

/* The store's own check of what it read, which cannot be wrapped: its verdict is. */
struct unchecked {
	struct unchecked *next;
	struct store_read *op;
	void (*done)(struct store_read *op, int status);
};
static struct unchecked *unchecked;

static void read_unchecked(struct store_read *op, int status)
{
	struct unchecked **at = &unchecked, *u;

	while ((*at)->op != op)
		at = &(*at)->next;
	u = *at;
	*at = u->next;
	op->done = u->done;
	free(u);
	op->done(op, status == -E_BAD_CRC ? 0 : status);
}

void __real_store_read(struct store *store, struct store_read *op);
void __wrap_store_read(struct store *store, struct store_read *op);
void __wrap_store_read(struct store *store, struct store_read *op)
{
	struct unchecked *u;

	if (active == MUTANT_CRC_UNCHECKED) {
		u = malloc(sizeof(*u));
		INVARIANT(u != NULL);
		*u = (struct unchecked){.next = unchecked, .op = op, .done = op->done};
		unchecked = u;
		op->done = read_unchecked;
	}
	__real_store_read(store, op);
}

/* -- the volume ------------------------------------------------------------------------------ */

static bool in_second_leg;

bool __real_vread_second_leg(struct vread *rd);
bool __wrap_vread_second_leg(struct vread *rd);
bool __wrap_vread_second_leg(struct vread *rd)
{
	bool sent;

	in_second_leg = active == MUTANT_HEDGE_STALE;
	sent = __real_vread_second_leg(rd);
	in_second_leg = false;
	return sent;
}

struct vwrite_overlap __real_vwrite_overlaps(const struct vchunk *c, block_no_t block,
					     uint32_t block_count, uint64_t seq_max);
struct vwrite_overlap __wrap_vwrite_overlaps(const struct vchunk *c, block_no_t block,
					     uint32_t block_count, uint64_t seq_max);
struct vwrite_overlap __wrap_vwrite_overlaps(const struct vchunk *c, block_no_t block,
					     uint32_t block_count, uint64_t seq_max)
{
	struct vwrite_overlap o = __real_vwrite_overlaps(c, block, block_count, seq_max);

	if (active == MUTANT_UNANSWERED_READ)
		o.missing = 0;
	/* It is one of few that lack a write, so of the others none is asked. */
	if (in_second_leg && o.missing != 0)
		o.missing = ~o.missing;
	if (active == MUTANT_UNDECIDED_READ)
		o.undecided = false;
	return o;
}

int __real_vplan_phantoms(const struct vplan_list *theirs, const struct vplan_list *ours,
			  version_t limit, uint32_t chunk_blocks, struct vplan_copies *ret_phantoms,
			  bool *ret_pull);
int __wrap_vplan_phantoms(const struct vplan_list *theirs, const struct vplan_list *ours,
			  version_t limit, uint32_t chunk_blocks, struct vplan_copies *ret_phantoms,
			  bool *ret_pull);
int __wrap_vplan_phantoms(const struct vplan_list *theirs, const struct vplan_list *ours,
			  version_t limit, uint32_t chunk_blocks, struct vplan_copies *ret_phantoms,
			  bool *ret_pull)
{
	int rc = __real_vplan_phantoms(theirs, ours, limit, chunk_blocks, ret_phantoms, ret_pull);

	if (rc == 0 && active == MUTANT_PHANTOM_KEPT) {
		ret_phantoms->count = 0;
		ret_phantoms->block_count = 0;
	}
	if (rc == 0 && active == MUTANT_PULL_SKIPPED)
		*ret_pull = false;
	return rc;
}

/* -- evidence -------------------------------------------------------------------------------- */

int __real_permit_open(const Pave__V1__Signed *s, const struct root_document *root, uint64_t now_ns,
		       int64_t wall_ns, struct permit *ret_permit, struct error *err);
int __wrap_permit_open(const Pave__V1__Signed *s, const struct root_document *root, uint64_t now_ns,
		       int64_t wall_ns, struct permit *ret_permit, struct error *err);
int __wrap_permit_open(const Pave__V1__Signed *s, const struct root_document *root, uint64_t now_ns,
		       int64_t wall_ns, struct permit *ret_permit, struct error *err)
{
	int rc = __real_permit_open(s, root, now_ns, wall_ns, ret_permit, err);

	if (rc == 0 && active == MUTANT_EARLY_SERVE)
		ret_permit->serve_after_ns = 0;
	if (rc == 0 && active == MUTANT_PERMIT_FOREVER)
		ret_permit->deadline_ns += 3600 * NS_PER_S;
	if (rc == 0)
		mutant_permit_opened(ret_permit);
	return rc;
}

bool __real_policy_host_must_be_eligible(const struct policy_document *d);
bool __wrap_policy_host_must_be_eligible(const struct policy_document *d);
bool __wrap_policy_host_must_be_eligible(const struct policy_document *d)
{
	return active != MUTANT_HOST_ANYWHERE && __real_policy_host_must_be_eligible(d);
}

static void find_eligible(int64_t now, struct verdict *ret_verdict)
{
	memset(ret_verdict, 0, sizeof(*ret_verdict));
	ret_verdict->eligible = true;
	ret_verdict->until = now + 3600 * (int64_t)NS_PER_S;
}

/* NULL, or the same in *copy, but for the end of it. */
static const struct site_document *outlived(const struct site_document *site,
					    struct site_document *copy)
{
	if (active != MUTANT_CERTIFICATE_OUTLIVED || site == NULL)
		return site;
	*copy = *site;
	copy->not_after += 3600 * (int64_t)NS_PER_S;
	return copy;
}

void __real_evaluate(const struct site_document *site,
		     const struct revocations_document *revocations,
		     const struct policy_document *policy, int64_t now,
		     struct verdict *ret_verdict);
void __wrap_evaluate(const struct site_document *site,
		     const struct revocations_document *revocations,
		     const struct policy_document *policy, int64_t now,
		     struct verdict *ret_verdict);
void __wrap_evaluate(const struct site_document *site,
		     const struct revocations_document *revocations,
		     const struct policy_document *policy, int64_t now, struct verdict *ret_verdict)
{
	struct site_document copy;

	if (active == MUTANT_REVOCATION_IGNORED && site != NULL)
		find_eligible(now, ret_verdict);
	else
		__real_evaluate(outlived(site, &copy), revocations, policy, now, ret_verdict);
}

void __real_evaluate_site(const struct site_document *site,
			  const struct revocations_document *revocations, int64_t now,
			  struct verdict *ret_verdict);
void __wrap_evaluate_site(const struct site_document *site,
			  const struct revocations_document *revocations, int64_t now,
			  struct verdict *ret_verdict);
void __wrap_evaluate_site(const struct site_document *site,
			  const struct revocations_document *revocations, int64_t now,
			  struct verdict *ret_verdict)
{
	struct site_document copy;

	if (active == MUTANT_REVOCATION_IGNORED && site != NULL)
		find_eligible(now, ret_verdict);
	else
		__real_evaluate_site(outlived(site, &copy), revocations, now, ret_verdict);
}

bool __real_revocations_withdrawn(const struct revocations_document *d, const char *site,
				  int64_t now, int64_t *ret_from, const char **ret_reason);
bool __wrap_revocations_withdrawn(const struct revocations_document *d, const char *site,
				  int64_t now, int64_t *ret_from, const char **ret_reason);
bool __wrap_revocations_withdrawn(const struct revocations_document *d, const char *site,
				  int64_t now, int64_t *ret_from, const char **ret_reason)
{
	return active != MUTANT_REVOCATION_IGNORED &&
	       __real_revocations_withdrawn(d, site, now, ret_from, ret_reason);
}
