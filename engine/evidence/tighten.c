/* tighten: see tighten.h.
 *
 * Each rule for itself, and all of them: rules are conjunctive (evaluate.h), so a policy whose
 * every rule is at least as strict lets no site pass that the other refused. A rule that is missing
 * refuses everything, so leaving one out is strict, and stating one that was missing is not. */
#include "engine/evidence/tighten.h"

#include <math.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "engine/evidence/model.h"
#include "engine/evidence/places.h"

struct comparison {
	const struct policy_document *was, *is;
	struct policy_change *ret;
};

#define MISSING "(missing)"

static bool loosened(struct comparison *c, const char *field, const char *was, const char *is)
{
	snprintf(c->ret->field, sizeof c->ret->field, "%s", field);
	snprintf(c->ret->was, sizeof c->ret->was, "%s", was != NULL ? was : MISSING);
	snprintf(c->ret->is, sizeof c->ret->is, "%s", is != NULL ? is : MISSING);
	return true;
}

static const char *list_text(char *buf, size_t size, const struct list *l, size_t item_size)
{
	size_t len = 0;

	buf[0] = '\0';
	if (!l->present)
		return MISSING;
	for (uint32_t i = 0; i < l->count && len < size; i++) {
		const char *const *text = (const void *)((const char *)l->items + i * item_size);

		len += (size_t)snprintf(buf + len, size - len, "%s%s", i > 0 ? ", " : "", *text);
	}
	return l->count > 0 ? buf : "nothing";
}

static bool list_change(struct comparison *c, const char *field, const struct list *was,
			const struct list *is, size_t item_size)
{
	char a[160], b[160];

	return loosened(c, field, list_text(a, sizeof a, was, item_size),
			list_text(b, sizeof b, is, item_size));
}

/* -- numbers and choices ---------------------------------------------------------------------- */

enum direction { UP, DOWN }; /* the strict one */

static bool number_loosens(struct comparison *c, const char *field, double was, double is,
			   bool was_stated, bool is_stated, enum direction strict)
{
	char a[32], b[32];

	if (!is_stated || (was_stated && (strict == UP ? is >= was : is <= was)))
		return false;
	snprintf(a, sizeof a, "%.10g", was);
	snprintf(b, sizeof b, "%.10g", is);
	return loosened(c, field, was_stated ? a : NULL, b);
}

static bool numbers_loosen(struct comparison *c)
{
#define N(m, strict)                                                                               \
	{                                                                                          \
#m, offsetof(struct policy_document, m), strict                                    \
	}
	static const struct {
		const char *field;
		size_t offset;
		enum direction strict;
	} numbers[] = {
	    N(ownership.max_individual_ppm, DOWN),
	    N(ownership.max_collective_ppm, DOWN),
	    N(replicas, UP),
	    N(min_acks, UP),
	    N(staleness_s, DOWN),
	};
#undef N
	for (size_t i = 0; i < ARRAY_SIZE(numbers); i++) {
		const int64_t *was = (const void *)((const char *)c->was + numbers[i].offset);
		const int64_t *is = (const void *)((const char *)c->is + numbers[i].offset);

		if (number_loosens(c, numbers[i].field, (double)*was, (double)*is,
				   *was != INTEGER_MISSING, *is != INTEGER_MISSING,
				   numbers[i].strict))
			return true;
	}
	return number_loosens(c, "min_distance_km", c->was->min_distance_km, c->is->min_distance_km,
			      !isnan(c->was->min_distance_km), !isnan(c->is->min_distance_km), UP);
}

/* Whether a right of holders outside is tolerated. */
static bool control_loosens(struct comparison *c, const char *field, enum tristate was,
			    enum tristate is)
{
	if (is == UNSTATED || was == TRUE || (was == FALSE && is == FALSE))
		return false;
	return loosened(c, field, was == UNSTATED ? NULL : "false", is == TRUE ? "true" : "false");
}

/* values: from the loosest to the strictest. */
static bool choice_loosens(struct comparison *c, const char *field, const char *was, const char *is,
			   const char *const *values)
{
	int a = -1, b = -1;

	if (is == NULL)
		return false;
	for (int i = 0; values[i] != NULL; i++) {
		if (was != NULL && strcmp(values[i], was) == 0)
			a = i;
		if (strcmp(values[i], is) == 0)
			b = i;
	}
	return a >= 0 && b >= a ? false : loosened(c, field, was, is);
}

/* What is done on loss, and for how long, is no matter of strictness; but a policy that leaves it
 * out refuses everything. */
static bool on_loss_loosens(struct comparison *c)
{
	static const char *const actions[] = {"freeze", NULL};
	const int64_t was = c->was->on_loss.timeout_s, is = c->is->on_loss.timeout_s;

	return choice_loosens(c, "on_loss.action", c->was->on_loss.action, c->is->on_loss.action,
			      actions) ||
	       (was == INTEGER_MISSING && number_loosens(c, "on_loss.timeout_s", 0, (double)is,
							 false, is != INTEGER_MISSING, DOWN));
}

static bool choices_loosen(struct comparison *c)
{
	static const char *const distinct[] = {"none", "site", "campus", NULL};
	static const char *const hosts[] = {"any", "eligible", NULL};
	static const char *const erase[] = {"discard", "overwrite", NULL};

	return control_loosens(c, "ownership.veto", c->was->ownership.veto,
			       c->is->ownership.veto) ||
	       control_loosens(c, "ownership.board_majority", c->was->ownership.board_majority,
			       c->is->ownership.board_majority) ||
	       choice_loosens(c, "distinct", c->was->distinct, c->is->distinct, distinct) ||
	       choice_loosens(c, "hosts", c->was->hosts, c->is->hosts, hosts) ||
	       choice_loosens(c, "erase", policy_erase(c->was), policy_erase(c->is), erase) ||
	       on_loss_loosens(c);
}

/* -- sets ------------------------------------------------------------------------------------- */

static bool jurisdiction_loosens(struct comparison *c, const char *field,
				 const struct jurisdiction *was, const struct jurisdiction *is)
{
	if (is->text == NULL || (was->text != NULL && jurisdiction_within(is, was)))
		return false;
	return loosened(c, field, was->text, is->text);
}

static bool jurisdictions_loosen(struct comparison *c)
{
#define J(m)                                                                                       \
	{                                                                                          \
#m, offsetof(struct policy_document, m)                                            \
	}
	static const struct {
		const char *field;
		size_t offset;
	} members[] = {
	    J(ownership.home),
	    J(operator.seat),
	    J(operator.central_administration),
	    J(operator.main_establishment),
	};
#undef J
	for (size_t i = 0; i < ARRAY_SIZE(members); i++)
		if (jurisdiction_loosens(c, members[i].field,
					 (const void *)((const char *)c->was + members[i].offset),
					 (const void *)((const char *)c->is + members[i].offset)))
			return true;
	return false;
}

/* Every code that is allowed now lies in one that was. */
static bool territory_loosens(struct comparison *c)
{
	const struct list *was = &c->was->territory, *is = &c->is->territory;

	for (uint32_t i = 0; i < is->count; i++) {
		bool held = false;

		for (uint32_t k = 0; k < was->count && !held; k++)
			held = territory_within(*LIST_AT(is, const char *, i),
						*LIST_AT(was, const char *, k));
		if (!held)
			return list_change(c, "territory", was, is, sizeof(const char *));
	}
	return false;
}

/* A predicate without one of its members refuses everything. */
static bool is_whole(const struct label_rule *r)
{
	return r->scheme != NULL && r->min_version != NULL && r->layer != NULL && r->status != NULL;
}

static bool all_whole(const struct list *rules)
{
	for (uint32_t i = 0; i < rules->count; i++)
		if (!is_whole(LIST_AT(rules, struct label_rule, i)))
			return false;
	return rules->present;
}

static bool covers(const struct label_rule *is, const struct label_rule *was)
{
	return strcmp(is->scheme, was->scheme) == 0 && strcasecmp(is->layer, was->layer) == 0 &&
	       strcmp(is->status, was->status) == 0 &&
	       label_version_compare(is->min_version, was->min_version) >= 0;
}

/* Every label that was asked for is asked for still, in no older version. */
static bool labels_loosen(struct comparison *c)
{
	const struct list *was = &c->was->labels, *is = &c->is->labels;
	char text[160];

	if (!all_whole(is))
		return false;
	if (!all_whole(was))
		return loosened(c, "labels", NULL, "stated");
	for (uint32_t i = 0; i < was->count; i++) {
		const struct label_rule *w = LIST_AT(was, struct label_rule, i);
		bool held = false;

		for (uint32_t k = 0; k < is->count && !held; k++)
			held = covers(LIST_AT(is, struct label_rule, k), w);
		snprintf(text, sizeof text, "%.60s at least %.20s, layer %.30s, %.20s", w->scheme,
			 w->min_version, w->layer, w->status);
		if (!held)
			return loosened(c, "labels", text, "not asked for");
	}
	return false;
}

/* Every jurisdiction that was forbidden is so still. */
static bool role_loosens(struct comparison *c, const char *field, const struct list *was,
			 const struct list *is)
{
	if (!is->present)
		return false;
	if (!was->present)
		return list_change(c, field, was, is, sizeof(struct jurisdiction));
	for (uint32_t i = 0; i < was->count; i++) {
		struct jurisdiction left = *LIST_AT(was, struct jurisdiction, i);

		for (uint32_t k = 0; k < is->count; k++)
			for (size_t w = 0; w < COUNTRY_WORDS; w++)
				left.countries[w] &=
				    ~LIST_AT(is, struct jurisdiction, k)->countries[w];
		if (!jurisdiction_within(&left, &(const struct jurisdiction){0}))
			return list_change(c, field, was, is, sizeof(struct jurisdiction));
	}
	return false;
}

static bool forbidden_loosens(struct comparison *c)
{
#define R(role)                                                                                    \
	{                                                                                          \
		"forbidden_jurisdictions." #role, offsetof(struct policy_document, forbidden.role) \
	}
	static const struct {
		const char *field;
		size_t offset;
	} roles[] = {R(operator), R(supplier), R(technical_access), R(admin), R(support)};
#undef R
	for (size_t i = 0; i < ARRAY_SIZE(roles); i++)
		if (role_loosens(c, roles[i].field,
				 (const void *)((const char *)c->was + roles[i].offset),
				 (const void *)((const char *)c->is + roles[i].offset)))
			return true;
	return false;
}

static bool tolerates(const struct list *l, const char *law)
{
	for (uint32_t i = 0; i < l->count; i++)
		if (strcmp(*LIST_AT(l, const char *, i), law) == 0 ||
		    strcmp(*LIST_AT(l, const char *, i), "any") == 0)
			return true;
	return false;
}

static bool exposure_loosens(struct comparison *c)
{
	const struct list *was = &c->was->exposure, *is = &c->is->exposure;

	if (is->present && !was->present)
		return list_change(c, "exposure", was, is, sizeof(const char *));
	for (uint32_t i = 0; i < is->count; i++)
		if (!tolerates(was, *LIST_AT(is, const char *, i)))
			return list_change(c, "exposure", was, is, sizeof(const char *));
	return false;
}

bool policy_loosens(const struct policy_document *was, const struct policy_document *is,
		    struct policy_change *ret)
{
	struct comparison c = {was, is, ret};

	return territory_loosens(&c) || labels_loosen(&c) || numbers_loosen(&c) ||
	       choices_loosen(&c) || jurisdictions_loosen(&c) || forbidden_loosens(&c) ||
	       exposure_loosens(&c);
}

int policy_check_tightening(const struct policy_document *in_force,
			    const struct policy_document *next, struct error *err)
{
	struct policy_change change;

	if (in_force == NULL || strcmp(in_force->name, next->name) != 0)
		return error_set(
		    err, -E_DENIED,
		    "policy %s: it is signed by the operator, who may only tighten a "
		    "policy that is in force, and none of this name is; have the tenant "
		    "sign it",
		    next->name);
	if (next->version <= in_force->version &&
	    memcmp(next->digest, in_force->digest, sizeof next->digest) != 0)
		return error_set(err, -E_ROLLBACK,
				 "policy %s: this is version %lld, and version %lld is in force; "
				 "take a higher one",
				 next->name, (long long)next->version,
				 (long long)in_force->version);
	if (!policy_loosens(in_force, next, &change))
		return 0;
	return error_set(err, -E_DENIED,
			 "policy %s: version %lld would loosen it: %s is %s, and version %lld in "
			 "force says %s; the operator may only tighten it: have the tenant sign "
			 "this",
			 next->name, (long long)next->version, change.field, change.is,
			 (long long)in_force->version, change.was);
}
