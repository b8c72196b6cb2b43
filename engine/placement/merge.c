/* The driver merges a sealed layer that only one other, sealed too, stands on, into that one's
 * place: what a deleted snapshot leaves behind. So a volume whose snapshots come and go stands on
 * as many layers as it has snapshots, and two; and what is hidden by now gives its space back.
 *
 *        v           v          L: the lower layer, which nobody stands on but U, and nothing but
 *        |           |             through U sees
 *        U     -->   L'         L': what L held, with what U held above it; under the id of L
 *        |
 *        L
 *
 *   LOOKING   every node of the chunks' rows says what it has of U, and whether it is whole
 *   WORDS     where L holds nothing of a chunk, its copies get the last word (LayerMerge.fresh)
 *   PASS      each node writes what U has and L lacks to L, on itself (LayerMerge), chunk by chunk
 *     |        ^
 *     |        +-- something had to be written
 *     v
 *   the last pass wrote nothing anywhere --> what stands on U stands on L, in one batch; permits
 *   without U to all that are attached; U is erased when no permit that names it can live any more
 *
 * Whoever reads through U and L sees the same at every moment, so a merge may break off anywhere:
 * by a crash of anybody, or because a member is to move, and is begun again by the next driver.
 *
 * When U is the top of a volume that wants a seal (layers.h) the look is all: it says whether the
 * seal pays. Then, as soon as somebody has the volume attached, U gets another layer above it, is
 * settled by that attachment, and is merged like any. Nothing is merged into a layer that is
 * written: its copies differ in what is in flight, and what came from below would be a phantom to
 * the reconciling of one copy and missing from the other (I5); and L is the larger one as a rule.
 *
 * INVARIANTS
 *  1. The driver exchanges the layers only when every copy that some row names has said, after all
 *     of them had it, that it has all of U in L.
 *  2. No member of the family moves, or has something to be erased, meanwhile; one that must move
 *     ends the merge.
 *  3. None begins before it is durable that nobody stands on L but U: after a crash a snapshot that
 *     was being deleted would be there again, and show what was merged.
 *  4. What has begun to write ends before its neighbours begin, over a crash too: L's record says
 *     which U it is. While U is half in L, L goes nowhere: a block that came from U and is damaged
 *     in L cannot be repaired before U is gone (node/repair.c). While L is half in what is below,
 *     nothing comes into L: what is there of L already would pass for what L has by then.
 *  5. A top is sealed once for each deletion that wants it, only above a layer that all its copies
 *     can be merged into now, and after what is below that can be merged by itself.
 *
 * Failure modes: a node that is away, not eligible, or not whole in one of the layers: the merge is
 * given up, and tried again. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <utlist.h>

#include "engine/base/assert.h"
#include "engine/base/log.h"
#include "engine/placement/driver.h"
#include "engine/placement/family.h"

#define MERGE_TIMEOUT_MS 60000u
#define MERGE_AGAIN_S	 20u /* after one that was given up */
#define MERGE_PASSES_MAX 8u

enum { HAS_UPPER = 1, HAS_LOWER = 2, HAS_BLOCKS = 4 /* of the lower one */ };

struct merge_node {
	struct rpc_call call;
	struct pd_merge *merge;
	struct reg_node *node;
	bool busy;
	chunk_no_t chunk; /* asked for */
	uint8_t *has;	  /* by chunk: HAS_... */
};

struct pd_merge {
	struct pd *pd;
	volume_id_t upper, lower;
	uint32_t pass; /* 0: looking */
	bool seals;    /* the upper one is a top, and looking is all */
	bool words;    /* in the pass that gives last words */
	uint64_t blocks, all_blocks;
	uint64_t map_versions; /* of the members: a hash */
	uint32_t chunk_count;
	bool given_up;
	bool marked; /* in the register; the first pass begins when that is durable: */
	uint64_t marked_no;
	uint32_t node_count, running;
	struct merge_node nodes[];
};

static void merge_free(struct pd_merge *x)
{
	for (uint32_t i = 0; i < x->node_count; i++)
		free(x->nodes[i].has);
	free(x);
}

void merge_drop(struct pd *pd)
{
	struct pd_merge *x = pd->merge;

	pd->merge = NULL;
	if (x == NULL)
		return;
	for (uint32_t i = 0; i < x->node_count; i++)
		if (x->nodes[i].busy)
			rpc_call_cancel(&x->nodes[i].call);
	merge_free(x);
}

/* -- what can be merged ----------------------------------------------------------------------- */

static bool is_planned(const struct pd *pd, const struct reg_volume *v)
{
	for (size_t i = 0; i < pd->plan.count; i++)
		if (!pd->plan.moves[i].done && pd->plan.moves[i].volume == v->id)
			return true;
	return false;
}

/* Every node that has a copy can be asked, and may store it. */
static bool is_ready(struct pd *pd, const struct reg_volume *v, int64_t now)
{
	if (v->move_count > 0 || v->drop_count > 0 || layers_open_below(&pd->reg, v) != NULL ||
	    is_planned(pd, v))
		return false;
	for (uint32_t i = 0; i < v->node_count; i++)
		if (node_state(v->nodes[i], now) != NODE_UP ||
		    !verdicts_get(&pd->verdicts, v->nodes[i]->site, v->policy, now)->eligible)
			return false;
	return true;
}

/* The only layer that stands on the lower one, when the two can be merged; NULL: they can't. */
static struct reg_layer *upper_of(struct reg *reg, const struct reg_layer *lower)
{
	struct reg_layer *upper = NULL;

	if (!lower->sealed)
		return NULL;
	for (struct reg_layer *l = reg->layers; l != NULL; l = l->hh.next) {
		if (l->parent != lower->id)
			continue;
		if (upper != NULL || !l->sealed)
			return NULL;
		upper = l;
	}
	for (const struct reg_volume *v = reg->volumes; upper != NULL && v != NULL; v = v->hh.next)
		if (!v->deleted && layers_top(v) == lower->id)
			return NULL;
	return upper;
}

static uint64_t mix(uint64_t hash, uint64_t number)
{
	return (hash ^ number) * 0x100000001b3ull;
}

/* All members that stand on the layer are ready. *ret_versions: who they are, and their maps. A
 * snapshot, which may come and go meanwhile, lies where a volume does, or moves by itself. */
static bool members_are_ready(struct pd *pd, volume_id_t layer, uint64_t *ret_versions)
{
	const int64_t now = reg_now(&pd->reg, NULL);

	*ret_versions = 0xcbf29ce484222325ull;
	for (const struct reg_volume *v = pd->reg.volumes; v != NULL; v = v->hh.next) {
		if (!family_stands_on(&pd->reg, v, layer))
			continue;
		if (!is_ready(pd, v, now))
			return false;
		if (!reg_volume_is_snapshot(v))
			*ret_versions = mix(mix(*ret_versions, v->id), v->map_version);
	}
	return true;
}

/* -- passes ----------------------------------------------------------------------------------- */

static void step(struct pd_merge *x, struct merge_node *n);

static void give_up(struct pd_merge *x, const char *node, const char *why)
{
	if (!x->given_up)
		log_info("pd", "layers %llu and %llu are not merged now: node %s: %s",
			 (unsigned long long)x->upper, (unsigned long long)x->lower, node, why);
	x->given_up = true;
}

static void take_look(struct pd_merge *x, struct merge_node *n, const Pave__V1__LayerMergeReply *r)
{
	if (!r->found || r->chunk < n->chunk || r->chunk >= x->chunk_count) {
		n->chunk = x->chunk_count;
		return;
	}
	if (r->upper_whole || x->seals)
		n->has[r->chunk] = (uint8_t)(HAS_UPPER | (r->lower_whole ? HAS_LOWER : 0) |
					     (r->lower_whole && !r->lower_empty ? HAS_BLOCKS : 0));
	n->chunk = r->chunk + 1;
}

static void answered(struct rpc_call *call, int status, const Pave__V1__Control *reply,
		     const char *text)
{
	struct merge_node *n = container_of(call, struct merge_node, call);
	struct pd_merge *x = n->merge;

	n->busy = false;
	if (status == 0 && reply->body_case != PAVE__V1__CONTROL__BODY_LAYER_MERGE_REPLY)
		status = -E_BAD_FRAME;
	if (status != 0) {
		give_up(x, n->node->name, text != NULL ? text : err_text(status));
	} else if (x->pass == 0) {
		take_look(x, n, reply->layer_merge_reply);
	} else {
		x->blocks += reply->layer_merge_reply->blocks;
		if (reply->layer_merge_reply->done)
			n->chunk++;
	}
	step(x, n);
}

/* The lower layer holds nothing of the chunk anywhere. Some copies may have a last word already,
 * of a merge that broke off. */
static bool is_fresh(const struct pd_merge *x, chunk_no_t chunk)
{
	for (uint32_t i = 0; i < x->node_count; i++)
		if ((x->nodes[i].has[chunk] & HAS_BLOCKS) != 0)
			return false;
	return true;
}

/* The node has something to do there in the pass that is under way. */
static bool is_due(const struct pd_merge *x, const struct merge_node *n, chunk_no_t chunk)
{
	if (x->words)
		return (n->has[chunk] & (HAS_UPPER | HAS_LOWER)) == HAS_UPPER && is_fresh(x, chunk);
	return (n->has[chunk] & HAS_UPPER) != 0;
}

static void ask(struct pd_merge *x, struct merge_node *n)
{
	Pave__V1__Control m = PAVE__V1__CONTROL__INIT;
	Pave__V1__LayerMerge merge = PAVE__V1__LAYER_MERGE__INIT;

	merge.upper = x->upper;
	merge.lower = x->lower;
	merge.chunk = n->chunk;
	merge.look = x->pass == 0;
	merge.fresh = x->words;
	m.body_case = PAVE__V1__CONTROL__BODY_LAYER_MERGE;
	m.layer_merge = &merge;
	n->call.done = answered;
	n->busy = true;
	rpc_call_start(&n->node->session->rpc, &n->call, &m, MERGE_TIMEOUT_MS);
}

static void pass_begin(struct pd_merge *x);

static void end(struct pd_merge *x)
{
	x->pd->merge = NULL;
	x->pd->merge_after_ns =
	    x->given_up ? reactor_now_ns(x->pd->reactor) + MERGE_AGAIN_S * NS_PER_S : 0;
	merge_free(x);
}

/* Every node of the chunk's rows has all of it, or none has any block. */
static bool rows_agree(const struct pd_merge *x, const struct reg_volume *v)
{
	if (v->chunk_count > x->chunk_count)
		return false; /* it has grown meanwhile: nobody was asked about the new chunks */
	for (chunk_no_t c = 0; c < v->chunk_count; c++) {
		const uint8_t looked_at = is_fresh(x, c) ? HAS_UPPER : HAS_UPPER | HAS_LOWER;
		uint8_t want = 0;

		for (uint32_t i = 0; i < x->node_count; i++)
			want |= x->nodes[i].has[c] & HAS_UPPER;
		if (want != 0)
			want = looked_at;
		for (uint32_t i = 0; i < x->node_count; i++)
			if (reg_holds(v, c, x->nodes[i].node) &&
			    (x->nodes[i].has[c] & looked_at) != want)
				return false;
	}
	return true;
}

static bool looks_agree(struct pd_merge *x)
{
	for (const struct reg_volume *v = x->pd->reg.volumes; v != NULL; v = v->hh.next)
		if (family_stands_on(&x->pd->reg, v, x->upper) && !rows_agree(x, v))
			return false;
	return true;
}

static void exchange(struct pd_merge *x);
static void looked_for_seal(struct pd_merge *x);

/* merge_tick goes on. */
static void mark(struct pd_merge *x)
{
	struct reg *reg = &x->pd->reg;
	struct reg_layer *lower = layers_find(reg, x->lower);

	x->marked = true;
	if (lower == NULL)
		return; /* then there is nothing to exchange either */
	lower->merging = x->upper;
	layers_save(reg, lower);
	x->marked_no = reg_batch_no(reg);
	pd_background_flush(x->pd);
}

static void pass_over(struct pd_merge *x)
{
	if (x->given_up) {
		end(x);
		return;
	}
	if (x->seals) {
		looked_for_seal(x);
		end(x);
		return;
	}
	if (x->pass == 0 && !looks_agree(x)) {
		give_up(x, "of some chunk", "it is not whole there yet, a host restores it");
		end(x);
		return;
	}
	if (x->words) {
		/* Now every copy of each chunk is whole: a merge that breaks off from here on is
		 * begun again, however far it had come. */
		x->words = false;
		pass_begin(x);
		return;
	}
	x->all_blocks += x->blocks;
	if (x->pass > 1 && x->blocks == 0) {
		exchange(x);
		end(x);
		return;
	}
	if (x->pass == MERGE_PASSES_MAX) {
		give_up(x, "some", "copies are restored all the time");
		end(x);
		return;
	}
	x->pass++;
	x->words = x->pass == 1;
	if (x->pass == 1)
		mark(x);
	else
		pass_begin(x);
}

static void step(struct pd_merge *x, struct merge_node *n)
{
	while (x->pass > 0 && n->chunk < x->chunk_count && !is_due(x, n, n->chunk))
		n->chunk++;
	if (n->chunk < x->chunk_count && n->node->session == NULL)
		give_up(x, n->node->name, "it is not connected");
	if (n->chunk < x->chunk_count && permits_leads(&x->pd->permits, NULL) != 0)
		give_up(x, n->node->name, "this driver may lead no more, and asks it for nothing");
	if (n->chunk < x->chunk_count && !x->given_up) {
		ask(x, n);
		return;
	}
	if (--x->running == 0)
		pass_over(x);
}

static void pass_begin(struct pd_merge *x)
{
	x->blocks = 0;
	x->running = x->node_count;
	for (uint32_t i = 0; i < x->node_count; i++)
		x->nodes[i].chunk = 0;
	/* The last step of a pass may free it. */
	for (uint32_t i = 0, count = x->node_count; i < count; i++)
		step(x, &x->nodes[i]);
}

/* -- the exchange ----------------------------------------------------------------------------- */

static bool is_still_right(struct pd_merge *x, struct reg_layer **ret_upper)
{
	struct reg *reg = &x->pd->reg;
	const struct reg_layer *lower = layers_find(reg, x->lower);
	uint64_t versions;

	*ret_upper = lower != NULL ? upper_of(reg, lower) : NULL;
	return *ret_upper != NULL && (*ret_upper)->id == x->upper &&
	       members_are_ready(x->pd, x->upper, &versions) && versions == x->map_versions;
}

/* When no permit can live any more that names the upper layer. Those to come do not. */
static int64_t permits_end(struct pd_merge *x, int64_t now)
{
	struct reg *reg = &x->pd->reg;
	int64_t until = now;

	for (struct reg_volume *v = reg->volumes; v != NULL; v = v->hh.next) {
		if (!family_stands_on(reg, v, x->upper))
			continue;
		until = MAX(until, reg_attachment_end(reg, v, now));
		until = MAX(until, reg_volume_older_end(reg, v, now));
		if (v->attachment.live)
			host_push_later(x->pd, v->id);
	}
	return until;
}

/* The upper layer is to be erased wherever one of those who stand on it lies: a tombstone, or as
 * many as it takes to name all nodes. False: no memory, or nobody stands on it. */
static bool bury_upper(struct pd_merge *x, int64_t erase_after)
{
	struct reg *reg = &x->pd->reg;
	struct reg_volume *grave = NULL;

	for (struct reg_volume *v = reg->volumes; v != NULL && reg->broken == 0; v = v->hh.next) {
		struct reg_volume *next;

		if (!family_stands_on(reg, v, x->upper) ||
		    (grave != NULL && reg_volume_also_erase(reg, grave, v) == 0))
			continue;
		next = admin_add_tombstone(x->pd, v);
		if (next == NULL && grave != NULL)
			reg_break(reg, -ENOMEM);
		if (next == NULL)
			return false;
		next->erase_layer = x->upper;
		next->erase_after = erase_after;
		if (grave != NULL)
			reg_save_volume(reg, grave);
		grave = next;
	}
	if (grave != NULL)
		reg_save_volume(reg, grave);
	return grave != NULL && reg->broken == 0;
}

static void exchange(struct pd_merge *x)
{
	struct pd *pd = x->pd;
	struct reg *reg = &pd->reg;
	struct reg_layer *upper, *lower = layers_find(reg, x->lower);

	if (!is_still_right(x, &upper) || !bury_upper(x, permits_end(x, reg_now(reg, NULL))))
		return; /* again later */
	for (struct reg_layer *l = reg->layers; l != NULL; l = l->hh.next) {
		if (l->parent != x->upper)
			continue;
		l->parent = x->lower;
		layers_save(reg, l);
	}
	lower->owner = upper->owner;
	lower->merging = 0;
	layers_save(reg, lower);
	layers_forget(reg, upper);
	reg_save_meta(reg);
	pd_background_flush(pd);
	log_info("pd", "layer %llu is merged into %llu: %llu blocks", (unsigned long long)x->upper,
		 (unsigned long long)x->lower, (unsigned long long)x->all_blocks);
}

/* -- sealing a top without a snapshot --------------------------------------------------------- */

/* Of whole chunks: that there is a block in both would have to be looked for in all of them. */
static bool has_both(const struct pd_merge *x)
{
	for (uint32_t i = 0; i < x->node_count; i++)
		for (chunk_no_t c = 0; c < x->chunk_count; c++)
			if ((x->nodes[i].has[c] & HAS_LOWER) != 0)
				return true;
	return false;
}

static void no_seal(struct pd *pd, struct reg_volume *v)
{
	v->seal_wanted = v->seal_pays = false;
	reg_save_volume(&pd->reg, v);
	pd_background_flush(pd);
}

static void looked_for_seal(struct pd_merge *x)
{
	struct reg_volume *v = x->pd->reg.volumes;

	while (v != NULL && (v->deleted || layers_top(v) != x->upper))
		v = v->hh.next;
	if (v == NULL || !v->seal_wanted)
		return;
	if (has_both(x))
		v->seal_pays = true;
	else
		no_seal(x->pd, v);
}

static bool can_seal(struct pd *pd, struct reg_volume *v, int64_t now)
{
	volume_id_t ids[LAYERS_MAX];

	return v->seal_pays && !merge_is_of(pd, v) && is_ready(pd, v, now) &&
	       layers_of(&pd->reg, v, ids, LAYERS_MAX) < LAYERS_MAX;
}

/* Somebody has it who can settle layers, and stays. */
static bool is_served(const struct pd *pd, const struct reg_volume *v, int64_t now)
{
	return v->holder != NULL && v->holder->conn != NULL && !v->attachment.read_only &&
	       v->detach_deadline_ns == 0 && reg_attachment_end(&pd->reg, v, now) != 0;
}

/* Without memory, or a number for the layer: again with the next tick. */
static void seal(struct pd *pd, struct reg_volume *v)
{
	struct reg *reg = &pd->reg;
	const volume_id_t old = layers_top(v), id = layers_new_id(reg);
	const struct reg_layer *n = id != 0 ? layers_add(reg, id, old, v->id) : NULL;

	if (n == NULL)
		return;
	layers_set_top(v, id);
	layers_save(reg, n);
	reg_save_volume(reg, v);
	reg_save_meta(reg);
	host_push_later(pd, v->id);
	pd_background_flush(pd);
	log_info("pd", "volume %s: layer %llu is sealed for what deleted snapshots left below it",
		 v->name, (unsigned long long)old);
}

static void seal_some(struct pd *pd)
{
	const int64_t now = reg_now(&pd->reg, NULL);

	for (struct reg_volume *v = pd->reg.volumes; v != NULL; v = v->hh.next)
		if (v->seal_pays && !v->deleted && is_served(pd, v, now) && can_seal(pd, v, now))
			seal(pd, v);
}

bool merge_settles(struct pd *pd, const struct reg_volume *v)
{
	const struct reg_layer *open = layers_open_below(&pd->reg, v);

	return open != NULL && open->owner == v->id &&
	       family_other_on(&pd->reg, v, open->id) == NULL;
}

struct reg_node *merge_wants_host(struct pd *pd, struct reg_volume *v, int64_t now)
{
	const struct reg_layer *open = layers_open_below(&pd->reg, v);

	if (!can_seal(pd, v, now) && (open == NULL || open->owner != v->id))
		return NULL;
	for (uint32_t i = 0; i < v->node_count; i++)
		if (node_state(v->nodes[i], now) == NODE_UP &&
		    verdicts_get(&pd->verdicts, v->nodes[i]->site, v->policy, now)->eligible)
			return v->nodes[i];
	return NULL;
}

/* -- begin ------------------------------------------------------------------------------------ */

static void add_nodes(struct pd_merge *x, const struct reg_volume *v)
{
	for (uint32_t i = 0; i < v->node_count; i++) {
		uint32_t k = 0;

		while (k < x->node_count && x->nodes[k].node != v->nodes[i])
			k++;
		if (k < x->node_count)
			continue;
		x->nodes[x->node_count++] = (struct merge_node){
		    .merge = x, .node = v->nodes[i], .has = calloc(x->chunk_count + 1, 1)};
	}
}

static bool begin(struct pd *pd, const struct reg_layer *lower, const struct reg_layer *upper,
		  uint64_t map_versions)
{
	const size_t nodes_max = HASH_COUNT(pd->reg.nodes);
	struct pd_merge *x = calloc(1, sizeof *x + nodes_max * sizeof x->nodes[0]);
	bool memory = x != NULL;

	if (x == NULL)
		return false;
	x->pd = pd;
	x->upper = upper->id;
	x->lower = lower->id;
	x->seals = !upper->sealed;
	x->map_versions = map_versions;
	for (const struct reg_volume *v = pd->reg.volumes; v != NULL; v = v->hh.next)
		if (family_stands_on(&pd->reg, v, upper->id))
			x->chunk_count = MAX(x->chunk_count, v->chunk_count);
	for (const struct reg_volume *v = pd->reg.volumes; v != NULL; v = v->hh.next)
		if (family_stands_on(&pd->reg, v, upper->id))
			add_nodes(x, v);
	for (uint32_t i = 0; i < x->node_count; i++)
		memory = memory && x->nodes[i].has != NULL;
	if (!memory || x->node_count == 0) {
		merge_free(x);
		return false;
	}
	pd->merge = x;
	pass_begin(x);
	return true;
}

static bool is_unfinished(struct reg *reg, const struct reg_layer *lower)
{
	const struct reg_layer *upper =
	    lower->merging != 0 ? layers_find(reg, lower->merging) : NULL;

	return upper != NULL && upper->parent == lower->id;
}

/* Invariant 4. */
static bool waits_for_another(struct reg *reg, const struct reg_layer *lower,
			      const struct reg_layer *upper)
{
	const struct reg_layer *below = lower->parent != 0 ? layers_find(reg, lower->parent) : NULL;

	return is_unfinished(reg, upper) || (below != NULL && below->merging == lower->id);
}

/* Asks whether it pays to seal the volume's top. */
static bool begin_look(struct pd *pd, struct reg_volume *v)
{
	struct reg *reg = &pd->reg;
	const struct reg_layer *top = layers_find(reg, layers_top(v));
	const struct reg_layer *lower = top != NULL ? layers_find(reg, top->parent) : NULL;
	uint64_t versions;

	if (lower == NULL || lower->children != 1) {
		no_seal(pd, v);
		return false;
	}
	return members_are_ready(pd, lower->id, &versions) && begin(pd, lower, top, versions);
}

static void begin_first(struct pd *pd)
{
	const uint64_t now_ns = reactor_now_ns(pd->reactor);

	layers_count_children(&pd->reg);
	for (const struct reg_layer *l = pd->reg.layers; l != NULL; l = l->hh.next) {
		const struct reg_layer *upper =
		    l->sealed && l->children == 1 ? upper_of(&pd->reg, l) : NULL;
		uint64_t versions;

		if (upper != NULL && !waits_for_another(&pd->reg, l, upper) &&
		    members_are_ready(pd, upper->id, &versions) && begin(pd, l, upper, versions))
			return;
	}
	/* Now that nothing can be merged as it is. */
	for (struct reg_volume *v = pd->reg.volumes; v != NULL; v = v->hh.next)
		if (v->seal_wanted && !v->seal_pays && !v->deleted && now_ns >= v->seal_after_ns &&
		    begin_look(pd, v))
			return;
	/* Not each second anew, when there are many. */
	pd->merge_after_ns = now_ns + MERGE_AGAIN_S * NS_PER_S / 4;
}

void merge_tick(struct pd *pd)
{
	struct pd_merge *x = pd->merge;

	if (x != NULL && x->marked && reg_is_durable(&pd->reg, x->marked_no)) {
		x->marked = false;
		pass_begin(x);
		return;
	}
	if (pd->reg.layers != NULL && reg_may_erase(&pd->reg))
		seal_some(pd);
	if (x == NULL && pd->reg.layers != NULL && reg_may_erase(&pd->reg) &&
	    reactor_now_ns(pd->reactor) >= pd->merge_after_ns)
		begin_first(pd);
}

void merge_gives_way(struct pd *pd, const struct reg_volume *v)
{
	if (pd->merge != NULL && family_stands_on(&pd->reg, v, pd->merge->upper))
		give_up(pd->merge, "of the family", "copies are to move");
}

bool merge_is_of(struct pd *pd, const struct reg_volume *v)
{
	return pd->merge != NULL && family_stands_on(&pd->reg, v, pd->merge->upper);
}
