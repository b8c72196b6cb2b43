/* spread: see spread.h. */
#include "engine/placement/spread.h"

#include <stdlib.h>
#include <string.h>

#include "engine/evidence/evaluate.h"

struct planner_site spread_site(const struct verdicts *v, const char *name)
{
	const struct verdict_site *s = verdicts_site(v, name);
	struct planner_site p = {.name = name, .campus = ""};

	if (s != NULL) {
		p.campus = site_campus(s->doc);
		p.has_position = site_position(s->doc, &p.latitude, &p.longitude);
	}
	return p;
}

static bool is_eligible(struct pd *pd, const struct reg_volume *v, const struct reg_node *n,
			int64_t now)
{
	return verdicts_get(&pd->verdicts, n->site, v->policy, now)->eligible;
}

static bool go_together(struct pd *pd, const struct policy_document *policy, const char *a,
			const char *b)
{
	const struct planner_site sites[2] = {spread_site(&pd->verdicts, a),
					      spread_site(&pd->verdicts, b)};

	/* The planner knows a site by its place in a list. */
	return planner_sites_go_together(policy_distinct(policy), policy_min_distance_km(policy),
					 &sites[0], &sites[strcmp(a, b) != 0]);
}

static const struct reg_node *node_at(const struct reg_volume *v, chunk_no_t chunk, uint32_t place)
{
	return v->nodes[v->map[(size_t)chunk * v->replicas + place]];
}

bool spread_is_too_close(struct pd *pd, const struct reg_volume *v, chunk_no_t chunk,
			 const struct reg_node *n, int64_t now)
{
	const struct policy_document *policy = verdicts_policy(&pd->verdicts, v->policy);

	for (uint32_t i = 0; policy != NULL && i < v->replicas; i++) {
		const struct reg_node *other = node_at(v, chunk, i);

		if (other != n && is_eligible(pd, v, other, now) &&
		    !go_together(pd, policy, n->site, other->site))
			return true;
	}
	return false;
}

/* -- in words --------------------------------------------------------------------------------- */

struct pair {
	const char *a, *b; /* sites */
	uint32_t chunks;
};

struct pairs {
	uint8_t known[REG_MAP_NODES_MAX + 1]
		     [REG_MAP_NODES_MAX + 1]; /* by node: 1 too close, 2 not */
	struct pair list[SPREAD_PAIRS_MAX];
	size_t count;
};

static void count_pair(struct pairs *p, const char *a, const char *b)
{
	size_t i = 0;

	if (strcmp(a, b) > 0) {
		const char *c = a;

		a = b;
		b = c;
	}
	while (i < p->count && (strcmp(p->list[i].a, a) != 0 || strcmp(p->list[i].b, b) != 0))
		i++;
	if (i == SPREAD_PAIRS_MAX)
		return;
	if (i == p->count)
		p->list[p->count++] = (struct pair){.a = a, .b = b};
	p->list[i].chunks++;
}

static void find_pairs(struct pd *pd, const struct policy_document *policy,
		       const struct reg_volume *v, int64_t now, struct pairs *p)
{
	for (chunk_no_t c = 0; c < v->chunk_count; c++) {
		const uint8_t *row = v->map + (size_t)c * v->replicas;

		for (uint32_t i = 0; i < v->replicas; i++)
			for (uint32_t j = 0; j < i; j++) {
				const struct reg_node *a = v->nodes[row[i]], *b = v->nodes[row[j]];
				uint8_t *known = &p->known[row[i]][row[j]];

				if (*known == 0)
					*known = is_eligible(pd, v, a, now) &&
							 is_eligible(pd, v, b, now) &&
							 !go_together(pd, policy, a->site, b->site)
						     ? 1
						     : 2;
				if (*known == 1)
					count_pair(p, a->site, b->site);
			}
	}
}

static char *sources(struct pd *pd, struct arena *a, const struct pair *p)
{
	const struct verdict_site *x = verdicts_site(&pd->verdicts, p->a);
	const struct verdict_site *y = verdicts_site(&pd->verdicts, p->b);

	return arena_printf(a, "site %s version %llu, site %s version %llu", p->a,
			    x != NULL ? (unsigned long long)site_version(x->doc) : 0, p->b,
			    y != NULL ? (unsigned long long)site_version(y->doc) : 0);
}

static Pave__V1__FailedRule *explain(struct pd *pd, struct arena *a,
				     const struct policy_document *policy, const struct pair *p)
{
	const struct planner_site sites[2] = {spread_site(&pd->verdicts, p->a),
					      spread_site(&pd->verdicts, p->b)};
	const bool apart = planner_sites_go_together(policy_distinct(policy), 0, &sites[0],
						     &sites[strcmp(p->a, p->b) != 0]);
	Pave__V1__FailedRule *f = arena_get(a, sizeof *f);

	if (f == NULL)
		return NULL;
	pave__v1__failed_rule__init(f);
	f->rule = arena_text(a, apart ? "min_distance_km" : "distinct");
	f->source = sources(pd, a, p);
	if (!apart) {
		const bool campus = strcmp(policy_distinct(policy), "campus") == 0;

		f->field = arena_text(a, campus ? "facility.campus" : "site");
		f->bound = arena_printf(a, "copies on distinct %s", campus ? "campuses" : "sites");
		f->value = arena_printf(a, "%s for %s, %s for %s (%u chunks)",
					campus ? sites[0].campus : p->a, p->a,
					campus ? sites[1].campus : p->b, p->b, p->chunks);
		return f;
	}
	f->field = arena_text(a, "facility.latitude, facility.longitude");
	f->bound = arena_printf(a, "at least %g km", policy_min_distance_km(policy));
	if (sites[0].has_position && sites[1].has_position)
		f->value = arena_printf(a, "%.1f km between %s and %s (%u chunks)",
					distance_km(sites[0].latitude, sites[0].longitude,
						    sites[1].latitude, sites[1].longitude),
					p->a, p->b, p->chunks);
	else
		f->value =
		    arena_printf(a, "missing for %s or %s (%u chunks)", p->a, p->b, p->chunks);
	return f;
}

Pave__V1__FailedRule **spread_explain(struct pd *pd, struct arena *a, const struct reg_volume *v,
				      int64_t now, size_t *ret_count)
{
	const struct policy_document *policy = verdicts_policy(&pd->verdicts, v->policy);
	struct pairs *p = arena_get(a, sizeof *p);
	Pave__V1__FailedRule **list = arena_get(a, (SPREAD_PAIRS_MAX + 1) * sizeof *list);

	*ret_count = 0;
	if (policy == NULL || p == NULL || list == NULL)
		return list;
	find_pairs(pd, policy, v, now, p);
	for (size_t i = 0; i < p->count; i++) {
		list[i] = explain(pd, a, policy, &p->list[i]);
		if (list[i] == NULL)
			return list;
		*ret_count = i + 1;
	}
	return list;
}
