/* plan: see plan.h. Versions are spread over one array a replica and block: a chunk has at most
 * 2^18 blocks, and plain arrays are easy to believe. */
#include "engine/volume/plan.h"

#include <errno.h>
#include <stdlib.h>

#include "engine/base/assert.h"
#include "engine/base/err.h"

int vplan_list_add(struct vplan_list *l, const struct vplan_run *run)
{
	if (l->count == l->room) {
		const uint32_t room = l->room == 0 ? 64 : l->room * 2;
		struct vplan_run *runs = realloc(l->runs, room * sizeof(*runs));

		if (runs == NULL)
			return -ENOMEM;
		l->runs = runs;
		l->room = room;
	}
	l->runs[l->count++] = *run;
	return 0;
}

void vplan_list_deinit(struct vplan_list *l)
{
	free(l->runs);
	*l = (struct vplan_list){0};
}

void vplan_copies_deinit(struct vplan_copies *c)
{
	free(c->copies);
	*c = (struct vplan_copies){0};
}

static int copies_append(struct vplan_copies *c, const struct vplan_copy *copy)
{
	if (c->count == c->room) {
		const uint32_t room = c->room == 0 ? 64 : c->room * 2;
		struct vplan_copy *copies = realloc(c->copies, room * sizeof(*copies));

		if (copies == NULL)
			return -ENOMEM;
		c->copies = copies;
		c->room = room;
	}
	c->copies[c->count++] = *copy;
	return 0;
}

int vplan_copies_split(struct vplan_copies *c, const struct vplan_copy *copy)
{
	int rc = 0;

	for (uint32_t i = 0; i < copy->block_count && rc == 0; i++)
		rc = copies_append(c, &(struct vplan_copy){.block = copy->block + i,
							   .block_count = 1,
							   .holders = copy->holders});
	return rc;
}

/* Appends one block, to the last copy where it fits. */
static int copies_add(struct vplan_copies *c, block_no_t block, vmask_t holders)
{
	struct vplan_copy *last = c->count > 0 ? &c->copies[c->count - 1] : NULL;

	PRE(holders != 0);
	c->block_count++;
	if (last != NULL && last->block + last->block_count == block && last->holders == holders &&
	    last->block_count < IO_BLOCKS_MAX) {
		last->block_count++;
		return 0;
	}
	return copies_append(
	    c, &(struct vplan_copy){.block = block, .block_count = 1, .holders = holders});
}

/* The slots of a mask, in order. */
#define FOR_EACH_SLOT(i, mask)                                                                     \
	for (uint32_t i = 0; i < VSLOTS_MAX; i++)                                                  \
		if (((mask)&vmask_bit(i)) != 0)

static bool near(version_t watermark, version_t best)
{
	return version_generation(watermark) == version_generation(best) &&
	       version_seq(best) - version_seq(watermark) <= VPLAN_NEAR_MAX;
}

/* R': the majority with the highest watermarks, and whoever is as good as they or nearly so. */
static vmask_t choose_members(const struct vplan_state *states, vmask_t configured, version_t best)
{
	vmask_t members = 0;
	version_t lowest = 0;

	for (uint32_t n = 0; n < vquorum_majority(vmask_count(configured)); n++) {
		uint32_t pick = UINT32_MAX;

		FOR_EACH_SLOT (i, configured) {
			if (!states[i].present || (members & vmask_bit(i)) != 0)
				continue;
			if (pick == UINT32_MAX || states[i].watermark > states[pick].watermark)
				pick = i;
		}
		INVARIANT(pick != UINT32_MAX);
		members |= vmask_bit(pick);
		lowest = states[pick].watermark;
	}
	FOR_EACH_SLOT (i, configured)
		if (states[i].present &&
		    (states[i].watermark >= lowest || near(states[i].watermark, best)))
			members |= vmask_bit(i);
	return members;
}

int vplan_choose(const struct vplan_state *states, vmask_t configured, struct vplan_choice *ret)
{
	struct vplan_choice c = {.clean = true};
	uint32_t present = 0;
	version_t best = 0, lowest;

	PRE(configured != 0 && configured < vmask_bit(VSLOTS_MAX));
	FOR_EACH_SLOT (i, configured) {
		if (!states[i].present) {
			c.clean = false;
			continue;
		}
		if (present == 0 || states[i].watermark > best) {
			c.best = i;
			best = states[i].watermark;
		}
		present++;
	}
	if (present < vquorum_majority(vmask_count(configured)))
		return -E_UNREACHABLE;
	c.members = choose_members(states, configured, best);
	lowest = best;
	FOR_EACH_SLOT (i, configured) {
		if (!states[i].present)
			continue;
		if (states[i].watermark != best || states[i].newest > states[i].watermark)
			c.clean = false;
		c.above[i] = states[i].watermark;
		if ((c.members & vmask_bit(i)) != 0)
			lowest = MIN(lowest, states[i].watermark);
	}
	c.above[c.best] = lowest; /* what it changed since the last of the members stood still */
	FOR_EACH_SLOT (i, configured)
		if (states[i].present && states[i].newest > c.above[i])
			c.ask |= vmask_bit(i);
	POST((c.members & vmask_bit(c.best)) != 0);
	*ret = c;
	return 0;
}

/* at[block] = version, for every block of the list; 0: not in it. NULL without memory. */
static int spread(const struct vplan_list *l, uint32_t chunk_blocks, version_t **ret)
{
	version_t *at = calloc(chunk_blocks, sizeof(*at));

	if (at == NULL)
		return -ENOMEM;
	for (uint32_t i = 0; i < l->count; i++) {
		const struct vplan_run *run = &l->runs[i];

		if (run->block_count > chunk_blocks ||
		    run->block > chunk_blocks - run->block_count) {
			free(at);
			return -E_BAD_FRAME;
		}
		for (uint32_t b = run->block; b < run->block + run->block_count; b++)
			at[b] = MAX(at[b], run->version);
	}
	*ret = at;
	return 0;
}

/* Decides about one block: which version wins, who holds it. Returns false when the block is in no
 * list, or every member holds the winner. */
static bool decide(const struct vplan_state *states, vmask_t configured,
		   const struct vplan_choice *choice, version_t *const *at, block_no_t b,
		   vmask_t *ret_holders)
{
	const version_t best = states[choice->best].watermark;
	version_t winner = at[choice->best][b];
	vmask_t holders = 0;
	bool listed = false;

	FOR_EACH_SLOT (i, configured) {
		const version_t v = at[i] != NULL ? at[i][b] : 0;

		listed = listed || v != 0;
		if (v > best && v > winner)
			winner = v;
	}
	if (!listed)
		return false;
	FOR_EACH_SLOT (i, configured) {
		const version_t v = at[i] != NULL ? at[i][b] : 0;

		if (!states[i].present)
			continue;
		/* A member that doesn't list the block holds what was decided up to its watermark,
		 * so m's version when that is not newer (0, m's own unlisted, never is). */
		if (v != 0 ? v == winner
			   : (choice->members & vmask_bit(i)) != 0 && winner <= states[i].watermark)
			holders |= vmask_bit(i);
	}
	INVARIANT(holders != 0);
	*ret_holders = holders;
	return (choice->members & ~holders) != 0;
}

int vplan_make(const struct vplan_state *states, vmask_t configured,
	       const struct vplan_choice *choice, const struct vplan_list *lists,
	       uint32_t chunk_blocks, struct vplan_copies *ret)
{
	version_t *at[VSLOTS_MAX] = {0};
	struct vplan_copies copies = {0};
	int rc = 0;

	FOR_EACH_SLOT (i, configured)
		if (rc == 0 && (lists[i].count > 0 || i == choice->best))
			rc = spread(&lists[i], chunk_blocks, &at[i]);
	for (block_no_t b = 0; b < chunk_blocks && rc == 0; b++) {
		vmask_t holders;

		if (decide(states, configured, choice, at, b, &holders))
			rc = copies_add(&copies, b, holders);
	}
	FOR_EACH_SLOT (i, configured)
		free(at[i]);
	if (rc != 0)
		vplan_copies_deinit(&copies);
	else
		*ret = copies;
	return rc;
}

int vplan_phantoms(const struct vplan_list *theirs, const struct vplan_list *ours, version_t limit,
		   uint32_t chunk_blocks, struct vplan_copies *ret_phantoms, bool *ret_pull)
{
	version_t *at_theirs = NULL, *at_ours = NULL;
	struct vplan_copies copies = {0};
	bool pull = false;
	int rc = spread(theirs, chunk_blocks, &at_theirs);

	if (rc == 0)
		rc = spread(ours, chunk_blocks, &at_ours);
	for (block_no_t b = 0; b < chunk_blocks && rc == 0; b++) {
		if (at_theirs[b] >= limit)
			continue;
		if (at_ours[b] > at_theirs[b])
			pull = true;
		else if (at_theirs[b] > at_ours[b])
			rc = copies_add(&copies, b, 1);
	}
	free(at_theirs);
	free(at_ours);
	if (rc != 0) {
		vplan_copies_deinit(&copies);
		return rc;
	}
	*ret_phantoms = copies;
	*ret_pull = pull;
	return 0;
}

/* The block is missing: in the last range, which ends with it, or the first of a new one. */
static void missing_add(struct vplan_missing *m, block_no_t block, bool apart)
{
	struct vplan_range *r = &m->ranges[m->range_count];

	m->block_count++;
	if (m->range_count > 0 && (!apart || m->range_count == VPLAN_RANGES_MAX)) {
		r[-1].block_count = block + 1 - r[-1].block;
		return;
	}
	*r = (struct vplan_range){block, 1};
	m->range_count++;
}

int vplan_missing(const struct vplan_list *theirs, const struct vplan_list *ours, version_t limit,
		  uint32_t chunk_blocks, struct vplan_missing *ret)
{
	struct vplan_missing missing = {0};
	version_t *at_theirs = NULL, *at_ours = NULL;
	bool apart = false; /* something that is held lies between the last one and this */
	int rc = spread(theirs, chunk_blocks, &at_theirs);

	if (rc == 0)
		rc = spread(ours, chunk_blocks, &at_ours);
	for (block_no_t b = 0; b < chunk_blocks && rc == 0; b++) {
		if (at_ours[b] == 0 || at_ours[b] >= limit)
			continue;
		if (at_ours[b] > at_theirs[b])
			missing_add(&missing, b, apart);
		apart = at_ours[b] <= at_theirs[b];
	}
	free(at_theirs);
	free(at_ours);
	if (rc == 0)
		*ret = missing;
	return rc;
}
