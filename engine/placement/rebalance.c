/* rebalance: see rebalance.h.
 *
 * Targets are kept in the order of their load, as in planner.c; which sites go together is computed
 * once for each pair and policy. Levelling goes from the most loaded node to the least: a chunk
 * moves when its node still has no less than the target after that, so that every move makes the
 * nodes more alike, and the plan ends. */
#include "engine/placement/rebalance.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/assert.h"

__extension__ typedef unsigned __int128 wide_t; /* a product of two sizes */

struct copy_of {
	uint32_t volume;
	chunk_no_t chunk;
};

struct work {
	const struct rebalance_input *in;
	struct rebalance_plan plan;
	size_t room;
	uint64_t *hot_bytes; /* by node: counts as placed, in the order */
	uint32_t *order;     /* nodes that take, by load */
	uint32_t order_count;
	uint8_t **together; /* by policy: site x site */
	uint8_t **done;	    /* by volume: a bit a chunk, which has a move */
	/* For levelling: copies by node. */
	struct copy_of *copies;
	size_t *first; /* by node; node_count + 1 */
};

/* -- loads ------------------------------------------------------------------------------------ */

static int compare_loads(const struct work *w, uint32_t a, uint64_t placed_a, uint32_t b,
			 uint64_t placed_b)
{
	const wide_t left = (wide_t)placed_a * w->in->nodes[b].size_bytes;
	const wide_t right = (wide_t)placed_b * w->in->nodes[a].size_bytes;

	return left < right ? -1 : left > right;
}

static int by_load(const void *a, const void *b, void *arg)
{
	const struct work *w = arg;
	const uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
	const int order = compare_loads(w, x, w->plan.placed_after[x] + w->hot_bytes[x], y,
					w->plan.placed_after[y] + w->hot_bytes[y]);

	return order != 0 ? order : strcmp(w->in->nodes[x].name, w->in->nodes[y].name);
}

/* The node's load has changed: moves it to where it belongs. */
static void resort(struct work *w, uint32_t node)
{
	uint32_t i = 0;

	while (i < w->order_count && w->order[i] != node)
		i++;
	if (i == w->order_count)
		return;
	while (i + 1 < w->order_count && by_load(&w->order[i], &w->order[i + 1], w) > 0) {
		w->order[i] = w->order[i + 1];
		w->order[++i] = node;
	}
	while (i > 0 && by_load(&w->order[i - 1], &w->order[i], w) > 0) {
		w->order[i] = w->order[i - 1];
		w->order[--i] = node;
	}
}

/* -- rules ------------------------------------------------------------------------------------ */

static bool eligible(const struct work *w, uint32_t policy, uint32_t node)
{
	return w->in->policies[policy].eligible[w->in->nodes[node].site];
}

static enum move_why why_leave(const struct work *w, uint32_t policy, uint32_t node)
{
	return eligible(w, policy, node) ? w->in->nodes[node].leaves : MOVE_WHY_INELIGIBLE;
}

/* What must leave, and does not count or is not there, takes up no place: a copy next to it is as
 * far from the others as the policy wants. When it comes back, one of the two moves (spread). */
static bool stays(const struct work *w, uint32_t policy, uint32_t node)
{
	return why_leave(w, policy, node) < MOVE_WHY_INELIGIBLE;
}

static uint32_t node_of(const struct rebalance_volume *v, chunk_no_t chunk, uint32_t place)
{
	return v->nodes[v->map[(size_t)chunk * v->replicas + place]];
}

/* It is one of the volume's nodes, or may become one. */
static bool has_number(const struct rebalance_volume *v, uint32_t node)
{
	uint32_t i = 0;

	if (v->node_count < REG_MAP_NODES_MAX)
		return true;
	while (i < v->node_count && v->nodes[i] != node)
		i++;
	return i < v->node_count;
}

static bool fits(const struct work *w, const struct rebalance_volume *v, chunk_no_t chunk,
		 uint32_t from, uint32_t to)
{
	const struct rebalance_node *nodes = w->in->nodes;
	const uint8_t *together = w->together[v->policy];

	if (!eligible(w, v->policy, to))
		return false;
	for (uint32_t i = 0; i < v->replicas; i++) {
		const uint32_t other = node_of(v, chunk, i);

		if (other == to ||
		    (other != from && stays(w, v->policy, other) &&
		     together[(size_t)nodes[to].site * w->in->site_count + nodes[other].site] == 0))
			return false;
	}
	return has_number(v, to);
}

/* How many of the chunk's copies lie closer to this one than the policy has it: in the same campus
 * or site, or not far enough away. It may have been tightened since they were placed, or a site's
 * certificate says something else by now. Only copies that stay are looked at. */
static uint32_t neighbours(const struct work *w, const struct rebalance_volume *v, chunk_no_t chunk,
			   uint32_t place)
{
	const struct rebalance_node *nodes = w->in->nodes;
	const uint8_t *together = w->together[v->policy];
	const uint32_t node = node_of(v, chunk, place);
	uint32_t count = 0;

	if (!stays(w, v->policy, node))
		return 0;
	for (uint32_t i = 0; i < v->replicas; i++) {
		const uint32_t other = node_of(v, chunk, i);

		count +=
		    i != place && stays(w, v->policy, other) &&
		    together[(size_t)nodes[node].site * w->in->site_count + nodes[other].site] == 0;
	}
	return count;
}

static bool has_source(const struct work *w, const struct rebalance_volume *v, chunk_no_t chunk)
{
	uint32_t n = 0;

	for (uint32_t i = 0; i < v->replicas; i++) {
		const uint32_t node = node_of(v, chunk, i);

		n += w->in->nodes[node].up && eligible(w, v->policy, node);
	}
	return n >= (v->served ? 1 : v->replicas / 2 + 1);
}

static bool is_done(const struct work *w, uint32_t volume, chunk_no_t chunk)
{
	return (w->done[volume][chunk / 8] & (1u << chunk % 8)) != 0;
}

static void set_done(struct work *w, uint32_t volume, chunk_no_t chunk)
{
	w->done[volume][chunk / 8] |= (uint8_t)(1u << chunk % 8);
}

/* -- moves ------------------------------------------------------------------------------------ */

static int add(struct work *w, const struct rebalance_move *m)
{
	struct rebalance_plan *p = &w->plan;
	const uint64_t bytes = w->in->volumes[m->volume].chunk_size;

	if (p->count == w->room) {
		const size_t room = w->room * 2 + 64;
		struct rebalance_move *larger = realloc(p->moves, room * sizeof *larger);

		if (larger == NULL)
			return -ENOMEM;
		p->moves = larger;
		w->room = room;
	}
	p->moves[p->count++] = *m;
	p->bytes += bytes;
	p->placed_after[m->from] -= MIN(bytes, p->placed_after[m->from]);
	p->placed_after[m->to] += bytes;
	set_done(w, m->volume, m->chunk);
	resort(w, m->from);
	resort(w, m->to);
	return 0;
}

static void stuck(struct work *w, const struct rebalance_move *m, bool no_source)
{
	struct rebalance_stuck *s = &w->plan.stuck;

	if (s->count++ == 0)
		*s = (struct rebalance_stuck){1, m->volume, m->chunk, m->from, m->why, no_source};
}

/* The least loaded node that the copy may go to. */
static bool find_target(const struct work *w, struct rebalance_move *m)
{
	const struct rebalance_volume *v = &w->in->volumes[m->volume];

	for (uint32_t i = 0; i < w->order_count; i++) {
		if (!fits(w, v, m->chunk, m->from, w->order[i]))
			continue;
		m->to = w->order[i];
		return true;
	}
	return false;
}

static int evict(struct work *w, struct rebalance_move *m)
{
	if (w->plan.count >= w->in->moves_max) {
		w->plan.more = true;
		return 0;
	}
	if (!has_source(w, &w->in->volumes[m->volume], m->chunk)) {
		stuck(w, m, true);
		return 0;
	}
	if (find_target(w, m))
		return add(w, m);
	stuck(w, m, false);
	return 0;
}

/* Of the chunk's copies that leave for a reason from `least` to `most` (why: by place of the map)
 * the most pressing one that has a place to go to: one that has none keeps no other. */
static int evict_chunk(struct work *w, uint32_t volume, chunk_no_t chunk, const enum move_why *why,
		       enum move_why least, enum move_why most)
{
	const struct rebalance_volume *v = &w->in->volumes[volume];
	const uint8_t *row = v->map + (size_t)chunk * v->replicas;
	int rc = 0;

	for (enum move_why reason = most; reason >= least; reason--)
		for (uint32_t k = 0; k < v->replicas; k++) {
			struct rebalance_move m = {.volume = volume,
						   .chunk = chunk,
						   .from = v->nodes[row[k]],
						   .why = reason};

			if (why[row[k]] == reason && rc == 0 && !is_done(w, volume, chunk))
				rc = evict(w, &m);
		}
	return rc;
}

static int evictions(struct work *w, enum move_why least, enum move_why most)
{
	for (uint32_t i = 0; i < w->in->volume_count; i++) {
		const struct rebalance_volume *v = &w->in->volumes[i];
		enum move_why why[REG_MAP_NODES_MAX + 1];
		bool any = false;

		for (uint32_t k = 0; k <= REG_MAP_NODES_MAX; k++)
			why[k] = MOVE_WHY_NONE;
		for (size_t k = 0; k < (size_t)v->chunk_count * v->replicas; k++) {
			const uint8_t place = v->map[k];

			if (why[place] == MOVE_WHY_NONE)
				why[place] = why_leave(w, v->policy, v->nodes[place]);
			any = any || (why[place] >= least && why[place] <= most);
		}
		for (chunk_no_t c = 0; any && c < v->chunk_count; c++) {
			const int rc = evict_chunk(w, i, c, why, least, most);

			if (rc != 0)
				return rc;
		}
	}
	return 0;
}

/* Of copies that lie too close to one another the one that most others are too close to, if there
 * is a place for it. */
static int spread_chunk(struct work *w, uint32_t volume, chunk_no_t chunk)
{
	const struct rebalance_volume *v = &w->in->volumes[volume];
	struct rebalance_move m = {.volume = volume, .chunk = chunk, .why = MOVE_WHY_TOO_CLOSE};
	uint32_t counts[REPLICAS_MAX], most = 0;
	bool first = true;

	for (uint32_t i = 0; i < v->replicas; i++) {
		counts[i] = neighbours(w, v, chunk, i);
		most = MAX(most, counts[i]);
	}
	for (; most > 0; most--)
		for (uint32_t i = 0; i < v->replicas; i++) {
			struct rebalance_move other = m;

			if (counts[i] != most)
				continue;
			other.from = node_of(v, chunk, i);
			if (first)
				m.from = other.from;
			first = false;
			if (find_target(w, &other))
				return evict(w, &other);
		}
	return first ? 0 : evict(w, &m); /* which finds no place */
}

static int spread(struct work *w)
{
	int rc = 0;

	for (uint32_t i = 0; i < w->in->volume_count && rc == 0; i++)
		for (chunk_no_t c = 0; c < w->in->volumes[i].chunk_count && rc == 0; c++)
			if (!is_done(w, i, c))
				rc = spread_chunk(w, i, c);
	return rc;
}

/* -- levelling -------------------------------------------------------------------------------- */

/* Lists the copies of each node. */
static int list_copies(struct work *w)
{
	const struct rebalance_input *in = w->in;
	size_t *next = calloc(in->node_count + 1, sizeof *next);
	size_t total = 0;

	w->first = calloc(in->node_count + 1, sizeof *w->first);
	if (next == NULL || w->first == NULL)
		goto fail;
	for (uint32_t i = 0; i < in->volume_count; i++) {
		const struct rebalance_volume *v = &in->volumes[i];

		for (size_t k = 0; k < (size_t)v->chunk_count * v->replicas; k++)
			w->first[v->nodes[v->map[k]]]++;
	}
	for (uint32_t n = 0; n <= in->node_count; n++) {
		const size_t count = w->first[n];

		w->first[n] = next[n] = total;
		total += count;
	}
	w->copies = malloc((total + 1) * sizeof *w->copies);
	if (w->copies == NULL)
		goto fail;
	for (uint32_t i = 0; i < in->volume_count; i++) {
		const struct rebalance_volume *v = &in->volumes[i];

		for (size_t k = 0; k < (size_t)v->chunk_count * v->replicas; k++)
			w->copies[next[v->nodes[v->map[k]]]++] =
			    (struct copy_of){i, (chunk_no_t)(k / v->replicas)};
	}
	free(next);
	return 0;
fail:
	free(next);
	return -ENOMEM;
}

/* Moves the copy to the least loaded node that it may go to, if that makes the two more alike. */
static int level_copy(struct work *w, uint32_t from, const struct copy_of *copy)
{
	const struct rebalance_volume *v = &w->in->volumes[copy->volume];
	const uint64_t *placed = w->plan.placed_after;
	struct rebalance_move m = {
	    .volume = copy->volume, .chunk = copy->chunk, .from = from, .why = MOVE_WHY_BALANCE};

	if (is_done(w, copy->volume, copy->chunk) || placed[from] < v->chunk_size ||
	    !eligible(w, v->policy, from) || !has_source(w, v, copy->chunk))
		return 0;
	for (uint32_t i = 0; i < w->order_count; i++) {
		const uint32_t to = w->order[i];

		if (compare_loads(w, to, placed[to] + v->chunk_size, from,
				  placed[from] - v->chunk_size) > 0)
			return 0; /* those after it are heavier */
		if (to == from || !fits(w, v, copy->chunk, from, to))
			continue;
		m.to = to;
		return add(w, &m);
	}
	return 0;
}

static bool is_over(const struct work *w, uint32_t node, wide_t placed, wide_t size)
{
	const wide_t bound = placed * (1000000u + REBALANCE_TOLERANCE_PPM) / 1000000u;

	return (wide_t)w->plan.placed_after[node] * size > bound * w->in->nodes[node].size_bytes;
}

static int level(struct work *w)
{
	const struct rebalance_input *in = w->in;
	uint32_t *sources = calloc(in->node_count + 1, sizeof *sources);
	uint32_t count = 0;
	wide_t placed = 0, size = 0;
	int rc = sources == NULL ? -ENOMEM : list_copies(w);

	for (uint32_t n = 0; rc == 0 && n < in->node_count; n++) {
		if (!in->nodes[n].up || in->nodes[n].leaves != MOVE_WHY_NONE)
			continue;
		placed += w->plan.placed_after[n];
		size += in->nodes[n].size_bytes;
		sources[count++] = n;
	}
	if (rc == 0)
		qsort_r(sources, count, sizeof *sources, by_load, w);
	for (uint32_t i = count; rc == 0 && i-- > 0;) {
		const uint32_t n = sources[i];

		for (size_t k = w->first[n]; rc == 0 && k < w->first[n + 1]; k++) {
			if (!is_over(w, n, placed, size))
				break;
			if (w->plan.count >= in->moves_max) {
				w->plan.more = true;
				break;
			}
			rc = level_copy(w, n, &w->copies[k]);
		}
	}
	free(sources);
	return rc;
}

/* -- the whole -------------------------------------------------------------------------------- */

static int prepare_policies(struct work *w)
{
	const struct rebalance_input *in = w->in;

	w->together = calloc(in->policy_count + 1, sizeof *w->together);
	if (w->together == NULL)
		return -ENOMEM;
	for (uint32_t p = 0; p < in->policy_count; p++) {
		uint8_t *t = w->together[p] = malloc((size_t)in->site_count * in->site_count + 1);

		if (t == NULL)
			return -ENOMEM;
		for (uint32_t a = 0; a < in->site_count; a++)
			for (uint32_t b = 0; b < in->site_count; b++)
				t[(size_t)a * in->site_count + b] = planner_sites_go_together(
				    in->policies[p].distinct, in->policies[p].min_distance_km,
				    &in->sites[a], &in->sites[b]);
	}
	return 0;
}

static int prepare(struct work *w)
{
	const struct rebalance_input *in = w->in;
	struct planner_load all = {0};

	w->order = calloc(in->node_count + 1, sizeof *w->order);
	w->hot_bytes = calloc(in->node_count + 1, sizeof *w->hot_bytes);
	w->plan.placed_after = calloc(in->node_count + 1, sizeof *w->plan.placed_after);
	w->done = calloc(in->volume_count + 1, sizeof *w->done);
	if (w->order == NULL || w->hot_bytes == NULL || w->plan.placed_after == NULL ||
	    w->done == NULL)
		return -ENOMEM;
	for (uint32_t n = 0; n < in->node_count; n++) {
		all.load += in->nodes[n].load;
		all.size_bytes += in->nodes[n].size_bytes;
	}
	for (uint32_t n = 0; n < in->node_count; n++) {
		w->hot_bytes[n] =
		    planner_hot_bytes(in->nodes[n].size_bytes, in->nodes[n].load, &all);
		w->plan.placed_after[n] = in->nodes[n].placed_bytes;
		if (in->nodes[n].takes && in->nodes[n].leaves == MOVE_WHY_NONE)
			w->order[w->order_count++] = n;
	}
	qsort_r(w->order, w->order_count, sizeof *w->order, by_load, w);
	for (uint32_t i = 0; i < in->volume_count; i++) {
		const struct rebalance_volume *v = &in->volumes[i];

		PRE(v->policy < in->policy_count);
		w->done[i] = calloc(v->chunk_count / 8 + 1, 1);
		if (w->done[i] == NULL)
			return -ENOMEM;
		for (uint32_t k = 0; k < v->moving_count; k++)
			set_done(w, i, v->moving[k]);
	}
	return prepare_policies(w);
}

int rebalance_make(const struct rebalance_input *in, struct rebalance_plan *ret)
{
	struct work w = {.in = in};
	int rc = prepare(&w);

	_Static_assert(MOVE_WHY_BALANCE < MOVE_WHY_DRAIN && MOVE_WHY_DRAIN < MOVE_WHY_INELIGIBLE &&
			   MOVE_WHY_INELIGIBLE < MOVE_WHY_LOST,
		       "by how much it presses");
	if (rc == 0)
		rc = evictions(&w, MOVE_WHY_INELIGIBLE, MOVE_WHY_LOST);
	if (rc == 0)
		rc = spread(&w);
	if (rc == 0)
		rc = evictions(&w, MOVE_WHY_DRAIN, MOVE_WHY_DRAIN);
	if (rc == 0 && in->balance)
		rc = level(&w);
	free(w.order);
	free(w.hot_bytes);
	free(w.copies);
	free(w.first);
	for (uint32_t p = 0; w.together != NULL && p < in->policy_count; p++)
		free(w.together[p]);
	free(w.together);
	for (uint32_t i = 0; w.done != NULL && i < in->volume_count; i++)
		free(w.done[i]);
	free(w.done);
	if (rc == 0)
		*ret = w.plan;
	else
		rebalance_plan_deinit(&w.plan);
	return rc;
}

void rebalance_plan_deinit(struct rebalance_plan *p)
{
	free(p->moves);
	free(p->placed_after);
	memset(p, 0, sizeof *p);
}
