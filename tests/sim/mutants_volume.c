/* mutants of the volume client: see mutants.h. */
#include <stddef.h>

#include "engine/volume/core.h"
#include "engine/volume/plan.h"
#include "tests/sim/cluster.h"
#include "tests/sim/mutants.h"

static bool is(enum mutant m)
{
	return mutant_now() == m;
}

/* -- counting -------------------------------------------------------------------------------- */

bool __real_vwrite_start(struct vchunk *c, const struct vwrite_what *what, bool own,
			 struct vwrite **ret_write);
bool __wrap_vwrite_start(struct vchunk *c, const struct vwrite_what *what, bool own,
			 struct vwrite **ret_write);
bool __wrap_vwrite_start(struct vchunk *c, const struct vwrite_what *what, bool own,
			 struct vwrite **ret_write)
{
	struct vwrite_what changed = *what;

	if (is(MUTANT_ONE_COPY))
		changed.need = 1;
	return __real_vwrite_start(c, &changed, own, ret_write);
}

vmask_t __real_vchunk_permitted_slots(const struct vchunk *c);
vmask_t __wrap_vchunk_permitted_slots(const struct vchunk *c);
vmask_t __wrap_vchunk_permitted_slots(const struct vchunk *c)
{
	return is(MUTANT_QUARANTINED_COUNTS) ? vchunk_used(c) : __real_vchunk_permitted_slots(c);
}

/* -- the host's gate ------------------------------------------------------------------------- */

#define LATE_NS (3600 * NS_PER_S)

static bool is_host(const struct sim_process *p)
{
	return p != NULL && ((const struct machine *)p->app)->kind == MACHINE_HOST;
}

/* The gate closes in time as long as the process runs: at the tick after the deadline, and no
 * operation looks at the clock. When it was stopped, what is queued comes before the tick. */
void mutant_permit_opened(struct permit *p)
{
	if (is(MUTANT_LATE_COUNT) && is_host(sim_world_now()->now))
		p->deadline_ns += LATE_NS;
}

void __real_vattach_tick(struct vattach *a);
void __wrap_vattach_tick(struct vattach *a);
void __wrap_vattach_tick(struct vattach *a)
{
	__real_vattach_tick(a);
	if (is(MUTANT_LATE_COUNT) && is_host(sim_process_of(a->volume->reactor)) &&
	    a->gate.deadline_ns != 0 && volume_now(a->volume) + LATE_NS >= a->gate.deadline_ns)
		a->gate.deadline_ns = 1;
}

/* -- the window ------------------------------------------------------------------------------ */

uint64_t __real_vwindow_low(const struct vwindow *w, uint32_t slot);
uint64_t __wrap_vwindow_low(const struct vwindow *w, uint32_t slot);
uint64_t __wrap_vwindow_low(const struct vwindow *w, uint32_t slot)
{
	return is(MUTANT_WATERMARK_HIGH) ? w->last_seq : __real_vwindow_low(w, slot);
}

/* -- reconciling ----------------------------------------------------------------------------- */

int __real_vplan_choose(const struct vplan_state *states, uint32_t configured,
			struct vplan_choice *ret);
int __wrap_vplan_choose(const struct vplan_state *states, uint32_t configured,
			struct vplan_choice *ret);
int __wrap_vplan_choose(const struct vplan_state *states, uint32_t configured,
			struct vplan_choice *ret)
{
	int rc = __real_vplan_choose(states, configured, ret);

	for (uint32_t i = 0; rc == 0 && i < configured && is(MUTANT_BEHIND_CURRENT); i++)
		if (states[i].present)
			ret->members |= vmask_bit(i);
	return rc;
}

int __real_vplan_make(const struct vplan_state *states, uint32_t configured,
		      const struct vplan_choice *choice, const struct vplan_list *lists,
		      uint32_t chunk_blocks, struct vplan_copies *ret);
int __wrap_vplan_make(const struct vplan_state *states, uint32_t configured,
		      const struct vplan_choice *choice, const struct vplan_list *lists,
		      uint32_t chunk_blocks, struct vplan_copies *ret);
int __wrap_vplan_make(const struct vplan_state *states, uint32_t configured,
		      const struct vplan_choice *choice, const struct vplan_list *lists,
		      uint32_t chunk_blocks, struct vplan_copies *ret)
{
	int rc = __real_vplan_make(states, configured, choice, lists, chunk_blocks, ret);

	if (rc == 0 && is(MUTANT_RECONCILE_IDLE))
		ret->count = 0;
	return rc;
}

/* -- resync and rewriting -------------------------------------------------------------------- */

void __real_vresync_want(struct vchunk *c, uint32_t slot);
void __wrap_vresync_want(struct vchunk *c, uint32_t slot);
void __wrap_vresync_want(struct vchunk *c, uint32_t slot)
{
	if (is(MUTANT_RESYNC_SKIPPED) || (is(MUTANT_LEARNER_EARLY) && slot == c->learner))
		vchunk_slot_current(c, slot);
	else
		__real_vresync_want(c, slot);
}

int __real_vplan_missing(const struct vplan_list *theirs, const struct vplan_list *ours,
			 version_t limit, uint32_t chunk_blocks, struct vplan_missing *ret);
int __wrap_vplan_missing(const struct vplan_list *theirs, const struct vplan_list *ours,
			 version_t limit, uint32_t chunk_blocks, struct vplan_missing *ret);
int __wrap_vplan_missing(const struct vplan_list *theirs, const struct vplan_list *ours,
			 version_t limit, uint32_t chunk_blocks, struct vplan_missing *ret)
{
	int rc = __real_vplan_missing(theirs, ours, limit, chunk_blocks, ret);
	struct vplan_range *last;

	if (rc != 0 || !is(MUTANT_PULL_SHORT) || ret->range_count == 0)
		return rc;
	last = &ret->ranges[ret->range_count - 1];
	if (last->block_count > 1)
		last->block_count--;
	else if (ret->range_count > 1)
		ret->range_count--;
	return 0;
}

bool __real_vchunk_locked(const struct vchunk *c, block_no_t block, uint32_t block_count);
bool __wrap_vchunk_locked(const struct vchunk *c, block_no_t block, uint32_t block_count);
bool __wrap_vchunk_locked(const struct vchunk *c, block_no_t block, uint32_t block_count)
{
	return !is(MUTANT_LOCK_IGNORED) && __real_vchunk_locked(c, block, block_count);
}

void __real_vrewrite_repair(struct vchunk *c, block_no_t block, uint32_t block_count);
void __wrap_vrewrite_repair(struct vchunk *c, block_no_t block, uint32_t block_count);
void __wrap_vrewrite_repair(struct vchunk *c, block_no_t block, uint32_t block_count)
{
	if (!is(MUTANT_UNREPAIRED))
		__real_vrewrite_repair(c, block, block_count);
}

/* -- moving ---------------------------------------------------------------------------------- */

vmask_t __real_vmove_next_members(const struct vchunk *c);
vmask_t __wrap_vmove_next_members(const struct vchunk *c);
vmask_t __wrap_vmove_next_members(const struct vchunk *c)
{
	return is(MUTANT_JOINT_SKIPPED) ? c->members : __real_vmove_next_members(c);
}
