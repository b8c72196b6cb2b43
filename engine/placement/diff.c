/* The driver and its admins: what differs between a snapshot and another state of its family. See
 * driver.h and layers.h.
 *
 * Blocks differ at most where a layer has them that only one of the two stands on, so the nodes are
 * asked what these layers hold of a chunk (LayerChanges), and no data is read:
 *
 *   VolumeDiff --> layers that are not common --> every node of the chunk's row is asked for those
 *   of its side, piece by piece --> a majority has answered, the others have answered or failed -->
 *   extents of that chunk
 *
 * INVARIANT: what a majority holds of a layer is all that was acknowledged in it, so nothing that
 * differs is left out. What was written again with the same content, or was never acknowledged, may
 * be in the answer: whoever copies the extents copies enough. But zeroes are only called so if they
 * are in `to`, and a majority says it: one node alone may have them from a write that was never
 * acknowledged, and whoever writes zeroes without reading would lose what is there.
 *
 * Failure modes: no majority answers: -E_UNREACHABLE. A layer that is merged or written meanwhile
 * is seen as it was before or after. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <utlist.h>

#include "engine/base/assert.h"
#include "engine/placement/driver.h"
#include "engine/placement/layers.h"

#define DIFFS_MAX	 8u /* at once, of all sessions */
#define DIFF_TIMEOUT_MS	 10000u
#define DIFF_EXTENTS_MAX 4096u /* in one answer */
#define CHUNK_BLOCKS_MAX (CHUNK_SIZE_MAX / BLOCK_SIZE)

/* Of a block; in between: so many nodes say that it is zeroes in `to`. */
#define UNCHANGED 0u
#define CHANGED	  UINT8_MAX

enum content { SAME, DATA, ZEROES };

enum { FROM, TO, SIDES };

struct diff_side {
	volume_id_t layers[LAYERS_MAX];
	uint32_t layer_count;
	uint32_t asked, answered;
	char silent[NAME_SIZE_MAX]; /* one that did not answer */
};

struct diff_call {
	struct rpc_call call;
	struct pd_diff *diff;
	struct diff_side *side;
	struct reg_node *node;
	block_no_t from;
	bool busy;
};

struct pd_diff {
	struct pd_request *q;
	struct diff_side sides[SIDES];
	struct diff_call calls[SIDES * REPLICAS_MAX];
	uint32_t call_count, calling;
	chunk_no_t chunk;
	uint64_t chunk_size, offset, size, from_size;
	uint32_t majority;
	uint8_t *marks; /* of the chunk's blocks */
	struct pd_diff *next, *prev;
};

static void diff_free(struct pd_diff *d)
{
	free(d->marks);
	free(d);
}

static void diff_end(struct pd_diff *d)
{
	DL_DELETE(d->q->pd->diffs, d);
	diff_free(d);
}

void diff_drop(struct pd *pd)
{
	struct pd_diff *d, *next;

	DL_FOREACH_SAFE (pd->diffs, d, next) {
		for (uint32_t i = 0; i < d->call_count; i++)
			if (d->calls[i].busy)
				rpc_call_cancel(&d->calls[i].call);
		diff_end(d);
	}
}

/* -- the answer ------------------------------------------------------------------------------- */

static enum content content_of(const struct pd_diff *d, block_no_t block)
{
	const uint8_t mark = d->marks[block];

	if (mark == UNCHANGED)
		return SAME;
	return mark != CHANGED && mark >= d->majority ? ZEROES : DATA;
}

static void answer(struct pd_diff *d)
{
	struct arena a = {0};
	Pave__V1__DiffExtent *items = arena_get(&a, DIFF_EXTENTS_MAX * sizeof *items);
	Pave__V1__DiffExtent **list = arena_get(&a, DIFF_EXTENTS_MAX * sizeof *list);
	const uint64_t begin = d->chunk * d->chunk_size;
	const uint32_t end = (uint32_t)((MIN(d->size, begin + d->chunk_size) - begin) / BLOCK_SIZE);
	block_no_t b = (block_no_t)((d->offset - begin) / BLOCK_SIZE);
	Pave__V1__Control m = PAVE__V1__CONTROL__INIT;
	Pave__V1__VolumeDiffReply r = PAVE__V1__VOLUME_DIFF_REPLY__INIT;
	struct pd_request *q = d->q;
	struct error err;

	if (arena_failed(&a)) {
		error_set(&err, -ENOMEM, "no memory for what differs");
		diff_end(d);
		request_fail(q, &err);
		arena_deinit(&a);
		return;
	}
	r.extents = list;
	while (b < end && r.n_extents < DIFF_EXTENTS_MAX) {
		const block_no_t first = b;
		const enum content content = content_of(d, first);
		Pave__V1__DiffExtent *x = &items[r.n_extents];

		while (b < end && content_of(d, b) == content)
			b++;
		if (content == SAME)
			continue;
		pave__v1__diff_extent__init(x);
		x->offset = begin + (uint64_t)first * BLOCK_SIZE;
		x->size = (uint64_t)(b - first) * BLOCK_SIZE;
		x->zero = content == ZEROES;
		list[r.n_extents++] = x;
	}
	r.next = begin + (uint64_t)b * BLOCK_SIZE;
	r.more = r.next < d->size;
	r.size = d->size;
	r.from_size = d->from_size;
	m.body_case = PAVE__V1__CONTROL__BODY_VOLUME_DIFF_REPLY;
	m.volume_diff_reply = &r;
	diff_end(d);
	request_reply(q, &m);
	arena_deinit(&a);
}

static void finish(struct pd_diff *d)
{
	struct pd_request *q = d->q;
	struct error err;

	for (uint32_t i = 0; i < ARRAY_SIZE(d->sides); i++) {
		const struct diff_side *s = &d->sides[i];

		if (s->asked == 0 || s->answered >= d->majority)
			continue;
		error_set(
		    &err, -E_UNREACHABLE,
		    "chunk %u: %u of its nodes could tell what they hold, %u are needed; node "
		    "%s could not: pave node list",
		    d->chunk, s->answered, d->majority, s->silent);
		diff_end(d);
		request_fail(q, &err);
		return;
	}
	answer(d);
}

/* -- asking the nodes ------------------------------------------------------------------------- */

/* A node has one word on each block: the runs come in order, from where it was asked to go on to
 * where it is asked to go on next. */
static bool is_in_order(const struct diff_call *c, const Pave__V1__LayerChangesReply *r)
{
	uint64_t at = c->from;

	if (r->more && r->next <= c->from)
		return false;
	for (size_t i = 0; i + 2 < r->n_runs; i += 3) {
		if (r->runs[i] < at)
			return false;
		at = (uint64_t)r->runs[i] + r->runs[i + 1];
	}
	return at <= (r->more ? MIN(r->next, CHUNK_BLOCKS_MAX) : CHUNK_BLOCKS_MAX);
}

static void take(struct pd_diff *d, const struct diff_side *s, const Pave__V1__LayerChangesReply *r)
{
	for (size_t i = 0; i + 2 < r->n_runs; i += 3) {
		const uint64_t end = (uint64_t)r->runs[i] + r->runs[i + 1];
		const bool zeroes = r->runs[i + 2] != 0 && s == &d->sides[TO];

		/* One that says that it is no zeroes has something newer, or something that nobody
		 * acknowledged. */
		for (uint64_t b = r->runs[i]; b < end; b++)
			if (!zeroes)
				d->marks[b] = CHANGED;
			else if (d->marks[b] < CHANGED - 1)
				d->marks[b]++;
	}
}

static bool call_node(struct diff_call *c);

static void answered(struct rpc_call *call, int status, const Pave__V1__Control *reply,
		     const char *text)
{
	struct diff_call *c = container_of(call, struct diff_call, call);
	struct pd_diff *d = c->diff;
	const Pave__V1__LayerChangesReply *r;

	(void)text;
	c->busy = false;
	if (status == 0 && reply->body_case != PAVE__V1__CONTROL__BODY_LAYER_CHANGES_REPLY)
		status = -E_BAD_FRAME;
	r = status == 0 ? reply->layer_changes_reply : NULL;
	if (r != NULL && !is_in_order(c, r))
		status = -E_BAD_FRAME;
	if (status == 0)
		take(d, c->side, r);
	if (status == 0 && r->more) {
		c->from = r->next;
		if (call_node(c))
			return;
		status = -E_DISCONNECTED;
	}
	if (status == 0)
		c->side->answered++;
	else
		memcpy(c->side->silent, c->node->name, sizeof c->side->silent);
	if (--d->calling == 0)
		finish(d);
}

/* False: it is not connected. */
static bool call_node(struct diff_call *c)
{
	Pave__V1__Control m = PAVE__V1__CONTROL__INIT;
	Pave__V1__LayerChanges changes = PAVE__V1__LAYER_CHANGES__INIT;

	if (c->node->session == NULL)
		return false;
	changes.chunk = c->diff->chunk;
	changes.from = c->from;
	changes.layers = c->side->layers;
	changes.n_layers = c->side->layer_count;
	m.body_case = PAVE__V1__CONTROL__BODY_LAYER_CHANGES;
	m.layer_changes = &changes;
	c->call.done = answered;
	c->busy = true;
	rpc_call_start(&c->node->session->rpc, &c->call, &m, DIFF_TIMEOUT_MS);
	return true;
}

/* The nodes of the chunk's row in the map of v. */
static void ask_side(struct pd_diff *d, struct diff_side *s, const struct reg_volume *v)
{
	if (s->layer_count == 0 || d->chunk >= v->chunk_count)
		return;
	for (uint32_t i = 0; i < v->replicas; i++) {
		struct diff_call *c = &d->calls[d->call_count];

		*c = (struct diff_call){
		    .diff = d,
		    .side = s,
		    .node = v->nodes[v->map[(size_t)d->chunk * v->replicas + i]],
		    .from = (block_no_t)((d->offset - d->chunk * d->chunk_size) / BLOCK_SIZE)};
		s->asked++;
		if (!call_node(c)) {
			memcpy(s->silent, c->node->name, sizeof s->silent);
			continue;
		}
		d->call_count++;
		d->calling++;
	}
}

/* -- what is asked ---------------------------------------------------------------------------- */

static bool is_in(volume_id_t id, const volume_id_t *ids, uint32_t count)
{
	for (uint32_t i = 0; i < count; i++)
		if (ids[i] == id)
			return true;
	return false;
}

/* The layers of v that other does not stand on. True: they have one in common. */
static bool fill_side(struct reg *reg, struct diff_side *s, const struct reg_volume *v,
		      const struct reg_volume *other)
{
	volume_id_t mine[LAYERS_MAX], others[LAYERS_MAX];
	const uint32_t count = layers_of(reg, v, mine, LAYERS_MAX);
	const uint32_t other_count = layers_of(reg, other, others, LAYERS_MAX);
	bool common = false;

	/* Nothing is ever written to a snapshot's own. */
	for (uint32_t i = reg_volume_is_snapshot(v); i < count; i++) {
		if (is_in(mine[i], others, other_count))
			common = true;
		else
			s->layers[s->layer_count++] = mine[i];
	}
	return common;
}

static int find_both(struct pd *pd, const Pave__V1__VolumeDiff *a, struct reg_volume **ret_from,
		     struct reg_volume **ret_to, struct error *err)
{
	struct reg_volume *both[2] = {reg_volume_find(&pd->reg, a->from),
				      reg_volume_find(&pd->reg, a->to)};
	const char *names[2] = {a->from, a->to};

	for (uint32_t i = 0; i < 2; i++) {
		const struct reg_layer *open;

		if (both[i] == NULL)
			return error_set(err, -ENOENT,
					 "there is no volume \"%.64s\": pave volume list",
					 names[i]);
		open = layers_open_below(&pd->reg, both[i]);
		if (open != NULL && !merge_settles(pd, both[i]))
			return layers_unsettled(&pd->reg, both[i], open, err);
	}
	if (!reg_volume_is_snapshot(both[0]))
		return error_set(err, -EINVAL,
				 "%s is no snapshot: what has changed since when? Say "
				 "NAME@SNAPSHOT",
				 both[0]->name);
	*ret_from = both[0];
	*ret_to = both[1];
	return 0;
}

static int check_room(struct pd *pd, struct error *err)
{
	struct pd_diff *d;
	unsigned count;

	DL_COUNT(pd->diffs, d, count);
	if (count < DIFFS_MAX)
		return 0;
	return error_set(err, -E_LIMIT, "%u differences are being looked for, the most", DIFFS_MAX);
}

void admin_volume_diff(struct pd_request *q, const Pave__V1__Control *m)
{
	const Pave__V1__VolumeDiff *a = m->volume_diff;
	struct pd *pd = q->pd;
	struct reg_volume *from = NULL, *to = NULL;
	struct pd_diff *d = NULL;
	struct error err;
	int rc = find_both(pd, a, &from, &to, &err);

	if (rc == 0)
		rc = check_room(pd, &err);
	if (rc == 0 && (a->offset >= to->size || a->offset % BLOCK_SIZE != 0))
		rc =
		    error_set(&err, -EINVAL, "volume %s ends before %llu, or no block begins there",
			      to->name, (unsigned long long)a->offset);
	if (rc == 0) {
		d = calloc(1, sizeof *d);
		if (d != NULL)
			d->marks = calloc(1, CHUNK_BLOCKS_MAX);
		if (d == NULL || d->marks == NULL)
			rc = error_set(&err, -ENOMEM, "no memory to compare %s", to->name);
	}
	if (rc == 0 && (!fill_side(&pd->reg, &d->sides[FROM], from, to) ||
			!fill_side(&pd->reg, &d->sides[TO], to, from)))
		rc = error_set(&err, -EINVAL,
			       "%s and %s have nothing in common: %s was not made "
			       "from one that the other stands on",
			       from->name, to->name, to->name);
	if (rc != 0) {
		if (d != NULL)
			diff_free(d);
		request_fail(q, &err);
		return;
	}
	d->q = q;
	d->chunk_size = to->chunk_size;
	d->chunk = (chunk_no_t)(a->offset / to->chunk_size);
	d->offset = a->offset;
	d->size = to->size;
	d->from_size = from->size;
	d->majority = to->replicas / 2 + 1;
	DL_APPEND(pd->diffs, d);
	ask_side(d, &d->sides[FROM], from);
	ask_side(d, &d->sides[TO], to);
	if (d->calling == 0)
		finish(d);
}
