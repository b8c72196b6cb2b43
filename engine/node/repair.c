/* node repair: the pull of some blocks of a sealed layer that are damaged here. See pull.h, and
 * resync.c for the rest of its course.
 *
 *   list what this copy holds of a piece of the range --> READ the piece from the source, as seen
 * from that layer down --> write it again under the versions that it has here
 *
 * Whole copies of a sealed layer show the same and need not hold the same: what was written again
 * when the layer was settled a second time has another version there, or is there not at all, and
 * shows from below. So what is asked for is what the source shows. It is written as data, be it
 * zeroes, for only data takes the place of data of the same version.
 *
 * INVARIANTS
 *  1. Only blocks that this copy holds as data are written, under the versions that they have.
 *  2. What a merge has brought is not repaired while the permit still names the layer that it came
 *     from: the source may not have it yet, and what it shows would pass for what was merged.
 *
 * Failure modes: -EBUSY amid a merge; a source that shows damage itself: -E_BAD_CRC. The host is
 * told of the damage again, and asks for another pull. */
#include <errno.h>
#include <stdlib.h>

#include "engine/base/assert.h"
#include "engine/node/pull.h"

#define PIECE_BLOCKS_MAX RUN_TABLE_RUNS_MAX /* each block may be a run */

struct node_repair {
	struct node_pull *pull;
	struct store_changes_op list;
	struct store_change changes[PIECE_BLOCKS_MAX];
	block_no_t block, end; /* the piece */
	bool listed;	       /* what is here of it is known */
	struct node_run runs[PIECE_BLOCKS_MAX];
	uint32_t run_count;
};

struct node_repair *node_repair_create(struct node_pull *p)
{
	struct node_repair *r = calloc(1, sizeof(*r));

	if (r != NULL)
		r->pull = p;
	return r;
}

/* Where the range goes on behind the piece. */
static block_no_t behind(const struct node_repair *r)
{
	return r->end < r->pull->ranges[r->pull->range].end ? r->end : UINT32_MAX;
}

static bool is_being_merged(const struct node_pull *p, version_t version)
{
	return version_generation(version) == GENERATION_MAX &&
	       permit_find_layer(&p->session->permit, version_seq(version)) != NULL;
}

/* The data among the changes; 0 or -EBUSY. */
static int take_list(struct node_repair *r)
{
	r->run_count = 0;
	r->end = MIN(r->end, r->list.next);
	for (uint32_t i = 0; i < r->list.count; i++) {
		const struct store_change *c = &r->changes[i];
		const block_no_t first = MAX(c->block, r->block);
		const block_no_t end = MIN(c->block + c->block_count, r->end);

		if (c->zero || first >= end)
			continue;
		if (is_being_merged(r->pull, c->version))
			return -EBUSY;
		r->runs[r->run_count++] = (struct node_run){first, end - first, c->version, false};
	}
	return 0;
}

static void list_done(struct store_changes_op *op, int status)
{
	struct node_repair *r = container_of(op, struct node_repair, list);
	struct node_pull *p = r->pull;

	p->storing = false;
	if (status == 0)
		status = take_list(r);
	if (status != 0)
		pull_error(p, status);
	else if (r->run_count == 0)
		node_pull_advance(p, behind(r));
	else
		r->listed = true;
	pull_wake(p);
}

static void list(struct node_repair *r)
{
	struct node_pull *p = r->pull;

	r->block = p->from;
	r->end = MIN(p->ranges[p->range].end, p->from + PIECE_BLOCKS_MAX);
	p->storing = true;
	r->list = (struct store_changes_op){
	    .done = list_done,
	    .volume = p->layer,
	    .chunk = p->chunk,
	    .from = r->block,
	    .changes = r->changes,
	    .max = PIECE_BLOCKS_MAX,
	};
	pool_changes(p->session->shard->config.pool, &r->list);
}

bool node_repair_ask(struct node_pull *p, struct frame *f)
{
	const struct node_repair *r = p->repair;

	if (!r->listed) {
		list(p->repair);
		return false;
	}
	f->op = FRAME_READ;
	f->block = r->block;
	f->block_count = r->end - r->block;
	return true;
}

int node_repair_take(struct pull_batch *batch, const struct frame *f, uint32_t *ret_run_count)
{
	struct node_repair *r = batch->pull->repair;

	if (f->payload_size != (r->end - r->block) * BLOCK_SIZE)
		return -E_BAD_FRAME;
	PRE(r->listed);
	r->listed = false;
	batch->block = r->block;
	for (uint32_t i = 0; i < r->run_count; i++)
		batch->runs[i] = r->runs[i];
	*ret_run_count = r->run_count;
	node_pull_advance(batch->pull, behind(r));
	return 0;
}
