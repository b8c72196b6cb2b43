/* The planner: see planner.h.
 *
 * Candidates are kept in the order of their load. For each chunk a depth-first search takes the
 * first in that order that goes with those taken already, and backs off when there is none; in one
 * depth a second node of a site that failed isn't tried, as all rules are about sites. The common
 * case takes `replicas` steps. What was chosen then moves back in the order. */
#include "engine/placement/planner.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/assert.h"
#include "engine/evidence/evaluate.h"

__extension__ typedef unsigned __int128 wide_t; /* a product of two sizes */

struct candidate {
	uint32_t node; /* in the input */
	uint64_t placed_bytes;
	uint64_t size_bytes;
	uint32_t slot; /* in the result; UINT32_MAX: not used yet */
};

struct search {
	const struct planner_input *in;
	struct candidate *candidates; /* in order of load */
	uint32_t count;
	uint32_t chosen[REPLICAS_MAX]; /* places in candidates */
	uint32_t steps;
};

uint64_t planner_hot_bytes(uint64_t size_bytes, uint64_t load, const struct planner_load *all)
{
	if (load < PLANNER_HOT_MIN ||
	    (wide_t)load * all->size_bytes * 2 <= (wide_t)all->load * size_bytes * 3)
		return 0;
	return size_bytes / PLANNER_HOT_RATIO;
}

bool planner_has_room(uint64_t size_bytes, uint64_t free_bytes)
{
	return size_bytes > 0 && free_bytes >= size_bytes / PLANNER_FULL_RATIO;
}

static bool node_is_candidate(const struct planner_input *in, const struct planner_node *n)
{
	return in->sites[n->site].eligible && n->up &&
	       planner_has_room(n->size_bytes, n->free_bytes);
}

/* Whether a has less on it than b, for its size; equal ones in the order of their names. */
static bool lighter(const struct planner_input *in, const struct candidate *a,
		    const struct candidate *b)
{
	wide_t left = (wide_t)a->placed_bytes * b->size_bytes;
	wide_t right = (wide_t)b->placed_bytes * a->size_bytes;

	if (left != right)
		return left < right;
	return strcmp(in->nodes[a->node].name, in->nodes[b->node].name) < 0;
}

bool planner_sites_go_together(const char *distinct, double min_distance_km,
			       const struct planner_site *a, const struct planner_site *b)
{
	if (strcmp(distinct, "campus") == 0) {
		if (a->campus[0] == '\0' || b->campus[0] == '\0' ||
		    strcmp(a->campus, b->campus) == 0)
			return false;
	} else if (strcmp(distinct, "none") != 0 && a == b) {
		return false;
	}
	if (min_distance_km <= 0)
		return true;
	return a->has_position && b->has_position &&
	       distance_km(a->latitude, a->longitude, b->latitude, b->longitude) >= min_distance_km;
}

static bool sites_go_together(const struct planner_input *in, uint32_t a, uint32_t b)
{
	return planner_sites_go_together(in->distinct, in->min_distance_km, &in->sites[a],
					 &in->sites[b]);
}

static bool fits(const struct search *s, uint32_t place, uint32_t depth)
{
	const struct planner_node *nodes = s->in->nodes;
	uint32_t node = s->candidates[place].node;

	for (uint32_t i = 0; i < depth; i++) {
		uint32_t other = s->candidates[s->chosen[i]].node;

		if (node == other || !sites_go_together(s->in, nodes[node].site, nodes[other].site))
			return false;
	}
	return true;
}

static bool search(struct search *s, uint32_t depth)
{
	if (depth == s->in->replicas)
		return true;
	for (uint32_t i = 0; i < s->count; i++) {
		uint32_t site = s->in->nodes[s->candidates[i].node].site;
		bool tried = false;

		if (++s->steps > PLANNER_STEPS_MAX)
			return false;
		if (!fits(s, i, depth))
			continue;
		/* A site that went together with the chosen ones and failed deeper fails again. */
		for (uint32_t j = 0; j < i && !tried; j++)
			tried =
			    s->in->nodes[s->candidates[j].node].site == site && fits(s, j, depth);
		if (tried)
			continue;
		s->chosen[depth] = i;
		if (search(s, depth + 1))
			return true;
	}
	return false;
}

/* The candidate at place has become heavier: moves it back to where it belongs. */
static void resort(struct search *s, uint32_t place)
{
	while (place + 1 < s->count &&
	       lighter(s->in, &s->candidates[place + 1], &s->candidates[place])) {
		struct candidate c = s->candidates[place];

		s->candidates[place] = s->candidates[place + 1];
		s->candidates[place + 1] = c;
		place++;
	}
}

static void take(struct search *s, struct planner_result *r, uint8_t *row)
{
	uint32_t replicas = s->in->replicas;

	for (uint32_t i = 0; i < replicas; i++) {
		struct candidate *c = &s->candidates[s->chosen[i]];

		if (c->slot == UINT32_MAX) {
			INVARIANT(r->node_count < PLANNER_NODES_MAX);
			c->slot = r->node_count;
			r->nodes[r->node_count++] = c->node;
		}
		row[i] = (uint8_t)c->slot;
		c->placed_bytes += s->in->chunk_size;
	}
	/* From the back, so that the places of the others stay true. */
	for (;;) {
		uint32_t last = UINT32_MAX;
		uint32_t which = 0;

		for (uint32_t i = 0; i < replicas; i++) {
			if (s->chosen[i] != UINT32_MAX &&
			    (last == UINT32_MAX || s->chosen[i] > last)) {
				last = s->chosen[i];
				which = i;
			}
		}
		if (last == UINT32_MAX)
			return;
		s->chosen[which] = UINT32_MAX;
		resort(s, last);
	}
}

/* -- what to say ------------------------------------------------------------------------------ */

struct text {
	char buf[900];
	size_t len;
};

static void __attribute__((format(printf, 2, 3))) say(struct text *t, const char *fmt, ...)
{
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vsnprintf(t->buf + t->len, sizeof t->buf - t->len, fmt, ap);
	va_end(ap);
	if (n > 0)
		t->len = MIN(t->len + (size_t)n, sizeof t->buf - 1);
}

static bool site_has_candidate(const struct planner_input *in, uint32_t site)
{
	for (uint32_t i = 0; i < in->node_count; i++)
		if (in->nodes[i].site == site && node_is_candidate(in, &in->nodes[i]))
			return true;
	return false;
}

/* Whether this site is the first of its campus (or just itself, when sites count) among those that
 * pass. */
static bool counts_anew(const struct planner_input *in, uint32_t site, bool with_nodes)
{
	bool by_campus = strcmp(in->distinct, "campus") == 0;

	if (by_campus && in->sites[site].campus[0] == '\0')
		return false;
	for (uint32_t i = 0; by_campus && i < site; i++)
		if (in->sites[i].eligible && (!with_nodes || site_has_candidate(in, i)) &&
		    strcmp(in->sites[i].campus, in->sites[site].campus) == 0)
			return false;
	return true;
}

static uint32_t count_places(const struct planner_input *in, bool with_nodes)
{
	uint32_t n = 0;

	for (uint32_t i = 0; i < in->site_count; i++)
		if (in->sites[i].eligible && (!with_nodes || site_has_candidate(in, i)) &&
		    counts_anew(in, i, with_nodes))
			n++;
	return n;
}

static void say_sites(struct text *t, const struct planner_input *in)
{
	const char *sep = "";

	for (uint32_t i = 0; i < in->site_count; i++) {
		const struct planner_site *s = &in->sites[i];

		if (!s->eligible)
			continue;
		say(t, "%s%s (campus %s)", sep, s->name,
		    s->campus[0] != '\0' ? s->campus : "missing");
		sep = ", ";
	}
	if (sep[0] == '\0')
		say(t, "none");
	sep = ". Not eligible: ";
	for (uint32_t i = 0; i < in->site_count; i++) {
		const struct planner_site *s = &in->sites[i];

		if (s->eligible)
			continue;
		say(t, "%s%s (%s)", sep, s->name, s->why != NULL ? s->why : "no reason known");
		sep = ", ";
	}
}

static void say_nodes(struct text *t, const struct planner_input *in)
{
	const char *sep = "; cannot take any now: ";

	for (uint32_t i = 0; i < in->node_count; i++) {
		const struct planner_node *n = &in->nodes[i];

		if (!in->sites[n->site].eligible || node_is_candidate(in, n))
			continue;
		say(t, "%s%s of site %s (%s)", sep, n->name, in->sites[n->site].name,
		    n->up	     ? "full"
		    : n->why != NULL ? n->why
				     : "down");
		sep = ", ";
	}
	for (uint32_t i = 0; i < in->site_count; i++) {
		bool any = false;

		for (uint32_t j = 0; j < in->node_count; j++)
			any |= in->nodes[j].site == i;
		if (in->sites[i].eligible && !any) {
			say(t, "%ssite %s has no node", sep, in->sites[i].name);
			sep = ", ";
		}
	}
}

static int explain(const struct planner_input *in, struct error *err)
{
	const char *what = strcmp(in->distinct, "campus") == 0 ? "distinct campuses"
			   : strcmp(in->distinct, "none") == 0 ? "distinct nodes"
							       : "distinct sites";
	bool by_node = strcmp(in->distinct, "none") == 0;
	uint32_t eligible = count_places(in, false);
	uint32_t usable = count_places(in, true);
	struct text t = {.len = 0};

	say(&t, "policy %s needs %u replicas on %u %s", in->policy, in->replicas, in->replicas,
	    what);
	if (eligible < in->replicas && !by_node) {
		say(&t, ", only %u %s eligible: ", eligible, eligible == 1 ? "is" : "are");
		say_sites(&t, in);
	} else if (usable < in->replicas || by_node) {
		uint32_t nodes = 0;

		for (uint32_t i = 0; i < in->node_count; i++)
			nodes += node_is_candidate(in, &in->nodes[i]);
		if (by_node)
			say(&t, ", only %u can take one", nodes);
		else
			say(&t, ", only %u of the %u eligible have a node that can take one",
			    usable, eligible);
		say_nodes(&t, in);
	} else {
		say(&t,
		    ", at least %g km from one another (min_distance_km): no %u of the "
		    "eligible sites are: ",
		    in->min_distance_km, in->replicas);
		say_sites(&t, in);
	}
	return error_set(err, -E_DENIED, "%s", t.buf);
}

/* -- the whole -------------------------------------------------------------------------------- */

static int compare_candidates(const void *a, const void *b, void *arg)
{
	if (lighter(arg, a, b))
		return -1;
	return lighter(arg, b, a) ? 1 : 0;
}

static void gather(struct search *s)
{
	const struct planner_input *in = s->in;
	struct planner_load all = {0};

	for (uint32_t i = 0; i < in->node_count; i++) {
		PRE(in->nodes[i].site < in->site_count);
		if (!node_is_candidate(in, &in->nodes[i]))
			continue;
		all.load += in->nodes[i].load;
		all.size_bytes += in->nodes[i].size_bytes;
	}
	for (uint32_t i = 0; i < in->node_count; i++) {
		const struct planner_node *n = &in->nodes[i];
		const uint64_t hot_bytes = planner_hot_bytes(n->size_bytes, n->load, &all);

		if (!node_is_candidate(in, n))
			continue;
		s->candidates[s->count++] =
		    (struct candidate){.node = i,
				       .placed_bytes = n->placed_bytes + hot_bytes,
				       .size_bytes = n->size_bytes,
				       .slot = UINT32_MAX};
	}
	qsort_r(s->candidates, s->count, sizeof *s->candidates, compare_candidates,
		(void *)(uintptr_t)in);
}

int planner_place(const struct planner_input *in, struct planner_result *ret, struct error *err)
{
	struct search s = {.in = in};
	struct planner_result r = {0};
	int rc = -ENOMEM;

	PRE(in->replicas >= 1 && in->replicas <= REPLICAS_MAX && in->chunk_count > 0);
	s.candidates = calloc(in->node_count + 1, sizeof *s.candidates);
	r.nodes = calloc(PLANNER_NODES_MAX, sizeof *r.nodes);
	r.map = malloc((size_t)in->chunk_count * in->replicas);
	if (s.candidates == NULL || r.nodes == NULL || r.map == NULL) {
		error_set(err, rc, "no memory for a map of %u chunks", in->chunk_count);
		goto out;
	}
	gather(&s);
	for (uint32_t chunk = 0; chunk < in->chunk_count; chunk++) {
		if (r.node_count + in->replicas > PLANNER_NODES_MAX && r.node_count > 0) {
			/* The map is full of nodes: go on with those that are in it. */
			uint32_t kept = 0;

			for (uint32_t i = 0; i < s.count; i++)
				if (s.candidates[i].slot != UINT32_MAX)
					s.candidates[kept++] = s.candidates[i];
			s.count = kept;
		}
		s.steps = 0;
		if (!search(&s, 0)) {
			rc = explain(in, err);
			goto out;
		}
		take(&s, &r, r.map + (size_t)chunk * in->replicas);
	}
	*ret = r;
	r = (struct planner_result){0};
	rc = 0;
out:
	free(s.candidates);
	planner_result_deinit(&r);
	return rc;
}

void planner_result_deinit(struct planner_result *r)
{
	free(r->nodes);
	free(r->map);
	memset(r, 0, sizeof *r);
}
