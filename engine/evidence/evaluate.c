/* evaluate: see evaluate.h, and DOCUMENTS.md for the meaning of the rules.
 *
 * Happy path: each rule looks at its part of the certificate and either notes until when what it
 * saw stays true, or appends what failed. No rule ends the evaluation: the verdict lists everything
 * that must change.
 *
 * Invariants: 1. no time, no memory, no I/O: the same arguments give the same verdict anywhere. 2.
 * what is missing fails (I2, fail closed). 3. eligible if and only if nothing failed, and then now
 * < until. */
#include "engine/evidence/evaluate.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "engine/base/assert.h"
#include "engine/base/text.h"
#include "engine/evidence/model.h"

#define EARTH_RADIUS_KM 6371.0088
#define BOUND_SIZE	160u
#define MISSING		"(missing)"
#define CLOCK_BOUND	((int64_t)(EVALUATE_CLOCK_BOUND_MS * NS_PER_MS))

struct evaluation {
	const struct site_document *site;
	const struct revocations_document *revocations;
	const struct policy_document *policy; /* NULL: the certificate alone */
	const struct root_document *root;     /* evaluate_root only */
	int64_t now;
	struct verdict *verdict;
	const char *rule; /* at work now */
};

/* Copies as much as fits without cutting a UTF-8 character in two. Documents hold no control
 * characters. */
static void copy_text(char *ret, size_t ret_size, const char *text)
{
	size_t len = strlen(text);

	if (len >= ret_size) {
		len = ret_size - 1;
		while (len > 0 && ((unsigned char)text[len] & 0xc0) == 0x80)
			len--;
	}
	memcpy(ret, text, len);
	ret[len] = '\0';
}

/* The document that says what the field says. */
static void source_of(const struct evaluation *ev, const char *field, char ret[SOURCE_SIZE])
{
	const struct revocations_document *r = ev->revocations;

	if (strncmp(field, "policy.", 7) == 0 && ev->policy != NULL)
		snprintf(ret, SOURCE_SIZE, "policy %s version %lld", ev->policy->name,
			 (long long)ev->policy->version);
	else if (strncmp(field, "root.", 5) == 0 && ev->root != NULL)
		snprintf(ret, SOURCE_SIZE, "root version %lld", (long long)ev->root->version);
	else if (strncmp(field, "revocations", 11) == 0 && r != NULL)
		snprintf(ret, SOURCE_SIZE, "revocations version %lld", (long long)r->version);
	else if (strncmp(field, "revocations", 11) != 0 && ev->site != NULL)
		snprintf(ret, SOURCE_SIZE, "site %s version %lld", ev->site->site,
			 (long long)ev->site->version);
	else
		snprintf(ret, SOURCE_SIZE, "(there is none)");
}

static void fail(struct evaluation *ev, const char *field, const char *value, const char *bound)
{
	struct verdict *v = ev->verdict;

	if (v->failed_count < FAILED_RULES_MAX) {
		struct failed_rule *f = &v->failed[v->failed_count];

		copy_text(f->rule, sizeof f->rule, ev->rule);
		copy_text(f->field, sizeof f->field, field);
		copy_text(f->value, sizeof f->value, value);
		copy_text(f->bound, sizeof f->bound, bound);
		source_of(ev, field, f->source);
	}
	v->failed_count++;
}

/* "ownership.holders[3].votes_ppm"; name may be NULL. */
static const char *item_field(char *buf, const char *list, uint32_t i, const char *name)
{
	snprintf(buf, BOUND_SIZE, "%s[%u]%s%s", list, i, name == NULL ? "" : ".",
		 name == NULL ? "" : name);
	return buf;
}

static const char *integer_text(char *buf, int64_t value)
{
	snprintf(buf, BOUND_SIZE, "%lld", (long long)value);
	return buf;
}

/* What holds now may end at t, which the field says. */
static void holds_until(struct evaluation *ev, int64_t t, const char *field)
{
	PRE(t > ev->now);
	if (t >= ev->verdict->until)
		return;
	ev->verdict->until = t;
	copy_text(ev->verdict->until_field, sizeof ev->verdict->until_field, field);
	source_of(ev, field, ev->verdict->until_source);
}

static void append_text(char *buf, size_t buf_size, const char *text)
{
	size_t len = strlen(buf);

	copy_text(buf + len, buf_size - len, text);
}

/* "one of A, B", of a list of texts or jurisdictions, whose items begin with their text. */
static const char *one_of(char *buf, const char *before, const struct list *list, size_t item_size)
{
	copy_text(buf, BOUND_SIZE, before);
	for (uint32_t i = 0; i < list->count; i++) {
		const char *const *text = (const void *)((const char *)list->items + i * item_size);

		append_text(buf, BOUND_SIZE, i == 0 ? " " : ", ");
		append_text(buf, BOUND_SIZE, *text);
	}
	if (list->count == 0)
		append_text(buf, BOUND_SIZE, " nothing");
	return buf;
}

static bool policy_states(struct evaluation *ev, bool stated, const char *field)
{
	if (!stated)
		fail(ev, field, MISSING, "the policy must state it");
	return stated;
}

static bool list_has(const struct list *list, const char *text)
{
	for (uint32_t i = 0; i < list->count; i++)
		if (strcmp(*LIST_AT(list, const char *, i), text) == 0)
			return true;
	return false;
}

/* -- certificate ------------------------------------------------------------------------------ */

static void rule_certificate(struct evaluation *ev)
{
	const struct site_document *s = ev->site;
	char value[40], now[40], bound[BOUND_SIZE];

	text_time(ev->now, now, sizeof now);
	snprintf(bound, sizeof bound, "not after %s (the time of the check)", now);
	if (s->not_before == TIME_MISSING)
		fail(ev, "not_before", MISSING, bound);
	else if (s->not_before > ev->now)
		fail(ev, "not_before", text_time(s->not_before, value, sizeof value), bound);
	snprintf(bound, sizeof bound, "after %s (the time of the check)", now);
	if (s->not_after == TIME_MISSING)
		fail(ev, "not_after", MISSING, bound);
	else if (s->not_after <= ev->now)
		fail(ev, "not_after", text_time(s->not_after, value, sizeof value), bound);
	else
		holds_until(ev, s->not_after, "not_after");
}

/* -- revocations ------------------------------------------------------------------------------ */

static void check_snapshot_age(struct evaluation *ev)
{
	const struct revocations_document *r = ev->revocations;
	char value[40], now[40], bound[BOUND_SIZE];
	int64_t end;

	text_time(ev->now, now, sizeof now);
	snprintf(bound, sizeof bound, "after %s (the time of the check)", now);
	if (r->not_after == TIME_MISSING)
		fail(ev, "revocations.not_after", MISSING, bound);
	else if (r->not_after <= ev->now)
		fail(ev, "revocations.not_after", text_time(r->not_after, value, sizeof value),
		     bound);
	else
		holds_until(ev, r->not_after, "revocations.not_after");
	snprintf(bound, sizeof bound, "not after %s (the time of the check)", now);
	if (r->issued_at == TIME_MISSING) {
		fail(ev, "revocations.issued_at", MISSING, bound);
		return;
	}
	text_time(r->issued_at, value, sizeof value);
	if (r->issued_at - ev->now > CLOCK_BOUND)
		fail(ev, "revocations.issued_at", value, bound);
	if (ev->policy == NULL ||
	    !policy_states(ev, ev->policy->staleness_s != INTEGER_MISSING, "policy.staleness_s"))
		return;
	if (__builtin_add_overflow(r->issued_at, ev->policy->staleness_s * (int64_t)NS_PER_S, &end))
		end = INT64_MAX;
	snprintf(bound, sizeof bound, "less than %lld s before %s (the policy's staleness_s)",
		 (long long)ev->policy->staleness_s, now);
	if (end <= ev->now)
		fail(ev, "revocations.issued_at", value, bound);
	else
		holds_until(ev, end, "revocations.issued_at");
}

static void check_current_version(struct evaluation *ev)
{
	uint64_t current = revocations_site_version(ev->revocations, ev->site->site);
	char field[BOUND_SIZE], value[BOUND_SIZE], bound[BOUND_SIZE];

	if (current == 0) {
		snprintf(field, sizeof field, "revocations.sites.%s", ev->site->site);
		fail(ev, field, MISSING, "the snapshot must list the site's current version");
	} else if (current != (uint64_t)ev->site->version) {
		snprintf(bound, sizeof bound, "%llu, the version in force by the snapshot",
			 (unsigned long long)current);
		fail(ev, "version", integer_text(value, ev->site->version), bound);
	}
}

static void check_withdrawal(struct evaluation *ev)
{
	const char *site = ev->site->site;
	int64_t next = revocations_next_withdrawal(ev->revocations, site, ev->now);
	char field[BOUND_SIZE], value[BOUND_SIZE], from[40];
	const char *reason;
	int64_t since;

	snprintf(field, sizeof field, "revocations.withdrawals.%s", site);
	if (next != INT64_MAX)
		holds_until(ev, next, field);
	if (!revocations_withdrawn(ev->revocations, site, ev->now, &since, &reason))
		return;
	copy_text(value, sizeof value, text_time(since, from, sizeof from));
	if (reason[0] != '\0') {
		append_text(value, sizeof value, ": ");
		append_text(value, sizeof value, reason);
	}
	fail(ev, field, value, "no withdrawal in effect");
}

static void rule_revocations(struct evaluation *ev)
{
	char value[40], bound[40];

	if (ev->revocations == NULL) {
		fail(ev, "revocations", MISSING, "a signed snapshot in force");
		return;
	}
	if (!uuid_equal(&ev->revocations->cluster.uuid, &ev->site->cluster.uuid))
		fail(ev, "revocations.cluster",
		     text_uuid(&ev->revocations->cluster.uuid, value, sizeof value),
		     text_uuid(&ev->site->cluster.uuid, bound, sizeof bound));
	check_snapshot_age(ev);
	check_current_version(ev);
	check_withdrawal(ev);
}

/* -- territory -------------------------------------------------------------------------------- */

static void rule_territory(struct evaluation *ev)
{
	const struct list *wanted = &ev->policy->territory;
	const char *country = ev->site->facility.country;
	const char *territory = ev->site->facility.territory;
	char bound[BOUND_SIZE];

	if (!policy_states(ev, wanted->present, "policy.territory"))
		return;
	one_of(bound, "in", wanted, sizeof(const char *));
	if (country == NULL)
		fail(ev, "facility.country", MISSING, bound);
	if (territory == NULL)
		fail(ev, "facility.territory", MISSING, bound);
	if (country == NULL || territory == NULL)
		return;
	for (uint32_t i = 0; i < wanted->count; i++)
		if (place_within(country, territory, *LIST_AT(wanted, const char *, i)))
			return;
	fail(ev, "facility.territory", territory, bound);
}

/* -- labels ----------------------------------------------------------------------------------- */

enum label_fault {
	LABEL_SCHEME = 1 << 0,
	LABEL_VERSION = 1 << 1,
	LABEL_LAYERS = 1 << 2,
	LABEL_STATUS = 1 << 3,
	LABEL_SERVICE = 1 << 4,
	LABEL_FROM = 1 << 5,
	LABEL_UNTIL = 1 << 6,
};

static bool has_layer(const struct label *l, const char *layer)
{
	for (uint32_t i = 0; i < l->layers.count; i++)
		if (strcasecmp(*LIST_AT(&l->layers, const char *, i), layer) == 0)
			return true;
	return false;
}

static unsigned label_faults(const struct evaluation *ev, const struct label *l,
			     const struct label_rule *rule)
{
	unsigned faults = 0;

	if (l->scheme == NULL || strcmp(l->scheme, rule->scheme) != 0)
		faults |= LABEL_SCHEME;
	if (l->version == NULL || !label_version_is_valid(l->version) ||
	    label_version_compare(l->version, rule->min_version) < 0)
		faults |= LABEL_VERSION;
	if (!has_layer(l, rule->layer))
		faults |= LABEL_LAYERS;
	if (l->status == NULL || strcmp(l->status, rule->status) != 0)
		faults |= LABEL_STATUS;
	if (l->service == NULL || !list_has(&ev->site->services, l->service))
		faults |= LABEL_SERVICE;
	if (l->from == TIME_MISSING || l->from > ev->now)
		faults |= LABEL_FROM;
	if (l->until == TIME_MISSING || l->until <= ev->now)
		faults |= LABEL_UNTIL;
	return faults;
}

static void fail_label_time(struct evaluation *ev, uint32_t i, const char *name, int64_t t)
{
	char field[BOUND_SIZE], value[40], bound[BOUND_SIZE], now[40];

	snprintf(bound, sizeof bound, "%s %s (the time of the check)",
		 strcmp(name, "from") == 0 ? "not after" : "after",
		 text_time(ev->now, now, sizeof now));
	fail(ev, item_field(field, "labels", i, name),
	     t == TIME_MISSING ? MISSING : text_time(t, value, sizeof value), bound);
}

/* Lists what keeps the nearest label from matching. */
static void fail_label(struct evaluation *ev, uint32_t i, unsigned faults,
		       const struct label_rule *rule)
{
	const struct label *l = LIST_AT(&ev->site->labels, struct label, i);
	char field[BOUND_SIZE], value[BOUND_SIZE], bound[BOUND_SIZE];

	if ((faults & LABEL_VERSION) != 0) {
		copy_text(bound, sizeof bound, "at least ");
		append_text(bound, sizeof bound, rule->min_version);
		fail(ev, item_field(field, "labels", i, "version"),
		     l->version == NULL ? MISSING : l->version, bound);
	}
	if ((faults & LABEL_LAYERS) != 0)
		fail(ev, item_field(field, "labels", i, "layers"),
		     l->layers.present ? one_of(value, "", &l->layers, sizeof(const char *)) + 1
				       : MISSING,
		     rule->layer);
	if ((faults & LABEL_STATUS) != 0)
		fail(ev, item_field(field, "labels", i, "status"),
		     l->status == NULL ? MISSING : l->status, rule->status);
	if ((faults & LABEL_SERVICE) != 0)
		fail(ev, item_field(field, "labels", i, "service"),
		     l->service == NULL ? MISSING : l->service,
		     one_of(bound, "a service of the site:", &ev->site->services,
			    sizeof(const char *)));
	if ((faults & LABEL_FROM) != 0)
		fail_label_time(ev, i, "from", l->from);
	if ((faults & LABEL_UNTIL) != 0)
		fail_label_time(ev, i, "until", l->until);
}

static void check_label_rule(struct evaluation *ev, const struct label_rule *rule)
{
	const struct list *labels = &ev->site->labels;
	unsigned nearest_faults = ~0u;
	uint32_t nearest = 0, longest = 0;
	int64_t until = 0;
	char bound[BOUND_SIZE], scheme[48], layer[48];

	for (uint32_t i = 0; i < labels->count; i++) {
		const struct label *l = LIST_AT(labels, struct label, i);
		unsigned faults = label_faults(ev, l, rule);

		if (faults == 0 && l->until > until) {
			until = l->until;
			longest = i;
		}
		if ((faults & LABEL_SCHEME) == 0 &&
		    __builtin_popcount(faults) < __builtin_popcount(nearest_faults)) {
			nearest_faults = faults;
			nearest = i;
		}
	}
	if (until > 0) {
		holds_until(ev, until, item_field(bound, "labels", longest, "until"));
	} else if (nearest_faults != ~0u) {
		fail_label(ev, nearest, nearest_faults, rule);
	} else {
		copy_text(scheme, sizeof scheme, rule->scheme);
		copy_text(layer, sizeof layer, rule->layer);
		snprintf(bound, sizeof bound, "%s at least %.20s, layer %s, %s", scheme,
			 rule->min_version, layer, rule->status);
		fail(ev, "labels", labels->present ? "(none of this scheme)" : MISSING, bound);
	}
}

static void rule_labels(struct evaluation *ev)
{
	const struct list *rules = &ev->policy->labels;
	char field[BOUND_SIZE];

	if (!policy_states(ev, rules->present, "policy.labels"))
		return;
	for (uint32_t i = 0; i < rules->count; i++) {
		const struct label_rule *rule = LIST_AT(rules, struct label_rule, i);
		bool stated = rule->scheme != NULL && rule->min_version != NULL &&
			      rule->layer != NULL && rule->status != NULL;

		snprintf(field, sizeof field, "policy.labels[%u].%s", i,
			 rule->scheme == NULL	     ? "scheme"
			 : rule->min_version == NULL ? "min_version"
			 : rule->layer == NULL	     ? "layer"
						     : "status");
		if (policy_states(ev, stated, field))
			check_label_rule(ev, rule);
	}
}

/* -- ownership -------------------------------------------------------------------------------- */

#define HOLDERS "ownership.holders"

static const struct {
	const char *name;
	size_t offset;
} share_kinds[] = {
    {"capital_ppm", offsetof(struct holder, capital_ppm)},
    {"votes_ppm", offsetof(struct holder, votes_ppm)},
};

static const struct {
	const char *name, *policy_field;
	size_t offset, policy_offset;
} control_kinds[] = {
    {"veto", "policy.ownership.veto", offsetof(struct holder, veto),
     offsetof(struct policy_document, ownership.veto)},
    {"board_majority", "policy.ownership.board_majority", offsetof(struct holder, board_majority),
     offsetof(struct policy_document, ownership.board_majority)},
};

/* A holder whose jurisdiction is not stated counts as outside. */
static bool is_outside(const struct evaluation *ev, const struct holder *h)
{
	return h->jurisdiction.text == NULL ||
	       !jurisdiction_within(&h->jurisdiction, &ev->policy->ownership.home);
}

static int64_t share_of(const struct holder *h, size_t offset)
{
	return *(const int64_t *)(const void *)((const char *)h + offset);
}

static bool same_holder(const struct holder *a, const struct holder *b)
{
	return a->name != NULL && b->name != NULL && a->jurisdiction.text != NULL &&
	       b->jurisdiction.text != NULL && strcmp(a->name, b->name) == 0 &&
	       strcmp(a->jurisdiction.text, b->jurisdiction.text) == 0;
}

/* What holder i has in all its entries, so that a share is not made small by splitting it; -1: an
 * earlier entry has told already. */
static int64_t whole_share(const struct list *holders, uint32_t i, size_t offset)
{
	const struct holder *h = LIST_AT(holders, struct holder, i);
	int64_t sum = 0;

	for (uint32_t k = 0; k < holders->count; k++) {
		const struct holder *other = LIST_AT(holders, struct holder, k);

		if (k != i && !same_holder(h, other))
			continue;
		if (k < i)
			return -1;
		if (share_of(other, offset) != INTEGER_MISSING)
			sum += share_of(other, offset);
	}
	return sum;
}

static void check_shares(struct evaluation *ev, const char *name, size_t offset)
{
	const struct list *holders = &ev->site->ownership.holders;
	int64_t individual = ev->policy->ownership.max_individual_ppm;
	int64_t collective = ev->policy->ownership.max_collective_ppm;
	char field[BOUND_SIZE], value[BOUND_SIZE], bound[BOUND_SIZE];
	int64_t sum = 0;

	for (uint32_t i = 0; i < holders->count; i++) {
		const struct holder *h = LIST_AT(holders, struct holder, i);
		int64_t share = share_of(h, offset), whole;

		if (!is_outside(ev, h))
			continue;
		item_field(field, HOLDERS, i, name);
		snprintf(bound, sizeof bound, "at most %lld for one holder outside %s",
			 (long long)individual, ev->policy->ownership.home.text);
		if (share == INTEGER_MISSING)
			fail(ev, field, MISSING, bound);
		else
			sum += share;
		whole = whole_share(holders, i, offset);
		if (individual != INTEGER_MISSING && whole > individual)
			fail(ev, field, integer_text(value, whole), bound);
	}
	snprintf(field, sizeof field, HOLDERS "[].%s", name);
	snprintf(bound, sizeof bound, "at most %lld for all holders outside %s together",
		 (long long)collective, ev->policy->ownership.home.text);
	if (collective != INTEGER_MISSING && sum > collective)
		fail(ev, field, integer_text(value, sum), bound);
}

static void check_control(struct evaluation *ev, size_t kind)
{
	const struct list *holders = &ev->site->ownership.holders;
	const enum tristate *tolerated =
	    (const void *)((const char *)ev->policy + control_kinds[kind].policy_offset);
	char field[BOUND_SIZE], bound[BOUND_SIZE];

	if (!policy_states(ev, *tolerated != UNSTATED, control_kinds[kind].policy_field) ||
	    *tolerated == TRUE)
		return;
	for (uint32_t i = 0; i < holders->count; i++) {
		const struct holder *h = LIST_AT(holders, struct holder, i);
		const enum tristate *has =
		    (const void *)((const char *)h + control_kinds[kind].offset);

		if (!is_outside(ev, h) || *has == FALSE)
			continue;
		snprintf(bound, sizeof bound, "false for holders outside %s",
			 ev->policy->ownership.home.text);
		fail(ev, item_field(field, HOLDERS, i, control_kinds[kind].name),
		     *has == UNSTATED ? MISSING : "true", bound);
	}
}

static void rule_ownership(struct evaluation *ev)
{
	const struct policy_document *p = ev->policy;
	const struct list *holders = &ev->site->ownership.holders;
	char field[BOUND_SIZE];

	policy_states(ev, p->ownership.max_individual_ppm != INTEGER_MISSING,
		      "policy.ownership.max_individual_ppm");
	policy_states(ev, p->ownership.max_collective_ppm != INTEGER_MISSING,
		      "policy.ownership.max_collective_ppm");
	if (!policy_states(ev, p->ownership.home.text != NULL, "policy.ownership.home"))
		return;
	if (!holders->present) {
		fail(ev, HOLDERS, MISSING, "every holder with jurisdiction and shares");
		return;
	}
	for (uint32_t i = 0; i < holders->count; i++)
		if (LIST_AT(holders, struct holder, i)->jurisdiction.text == NULL)
			fail(ev, item_field(field, HOLDERS, i, "jurisdiction"), MISSING,
			     p->ownership.home.text);
	for (size_t k = 0; k < ARRAY_SIZE(share_kinds); k++)
		check_shares(ev, share_kinds[k].name, share_kinds[k].offset);
	for (size_t k = 0; k < ARRAY_SIZE(control_kinds); k++)
		check_control(ev, k);
}

/* -- operator --------------------------------------------------------------------------------- */

static const struct {
	const char *field, *policy_field;
	size_t offset, policy_offset;
} operator_kinds[] = {
#define X(m)                                                                                       \
	{                                                                                          \
		"operator." #m, "policy.operator." #m, offsetof(struct site_document, operator.m), \
		    offsetof(struct policy_document, operator.m)                                   \
	}
    X(seat),
    X(central_administration),
    X(main_establishment),
#undef X
};

static void rule_operator(struct evaluation *ev)
{
	char bound[BOUND_SIZE];

	for (size_t k = 0; k < ARRAY_SIZE(operator_kinds); k++) {
		const struct jurisdiction *is =
		    (const void *)((const char *)ev->site + operator_kinds[k].offset);
		const struct jurisdiction *wanted =
		    (const void *)((const char *)ev->policy + operator_kinds[k].policy_offset);

		if (!policy_states(ev, wanted->text != NULL, operator_kinds[k].policy_field))
			continue;
		snprintf(bound, sizeof bound, "in %s", wanted->text);
		if (is->text == NULL)
			fail(ev, operator_kinds[k].field, MISSING, bound);
		else if (!jurisdiction_within(is, wanted))
			fail(ev, operator_kinds[k].field, is->text, bound);
	}
}

/* -- forbidden jurisdictions ------------------------------------------------------------------ */

static void check_forbidden(struct evaluation *ev, const char *field, const struct jurisdiction *is,
			    const struct list *forbidden)
{
	char bound[BOUND_SIZE];

	one_of(bound, "none of", forbidden, sizeof(struct jurisdiction));
	if (is->text == NULL) {
		fail(ev, field, MISSING, bound);
		return;
	}
	for (uint32_t i = 0; i < forbidden->count; i++)
		if (jurisdiction_meets(is, LIST_AT(forbidden, struct jurisdiction, i))) {
			fail(ev, field, is->text, bound);
			return;
		}
}

static void forbid_operator(struct evaluation *ev, const struct list *forbidden)
{
	for (size_t k = 0; k < ARRAY_SIZE(operator_kinds); k++)
		check_forbidden(ev, operator_kinds[k].field,
				(const void *)((const char *)ev->site + operator_kinds[k].offset),
				forbidden);
}

static void forbid_supplier(struct evaluation *ev, const struct list *forbidden)
{
	const struct list *suppliers = &ev->site->suppliers;
	char field[BOUND_SIZE];

	if (!suppliers->present)
		fail(ev, "suppliers", MISSING, "every supplier, or an empty list");
	for (uint32_t i = 0; i < suppliers->count; i++)
		check_forbidden(ev, item_field(field, "suppliers", i, "jurisdiction"),
				&LIST_AT(suppliers, struct supplier, i)->jurisdiction, forbidden);
}

static void forbid_technical_access(struct evaluation *ev, const struct list *forbidden)
{
	const struct list *suppliers = &ev->site->suppliers;
	char field[BOUND_SIZE];

	if (!suppliers->present)
		fail(ev, "suppliers", MISSING, "every supplier, or an empty list");
	for (uint32_t i = 0; i < suppliers->count; i++) {
		const struct supplier *s = LIST_AT(suppliers, struct supplier, i);

		if (s->technical_access == UNSTATED)
			fail(ev, item_field(field, "suppliers", i, "technical_access"), MISSING,
			     "true or false");
		else if (s->technical_access == TRUE)
			check_forbidden(ev, item_field(field, "suppliers", i, "jurisdiction"),
					&s->jurisdiction, forbidden);
	}
}

static void forbid_locations(struct evaluation *ev, const char *name, const struct list *locations,
			     const struct list *forbidden)
{
	char field[BOUND_SIZE];

	if (!locations->present)
		fail(ev, name, MISSING, "every location, or an empty list");
	for (uint32_t i = 0; i < locations->count; i++)
		check_forbidden(ev, item_field(field, name, i, NULL),
				LIST_AT(locations, struct jurisdiction, i), forbidden);
}

static void forbid_admin(struct evaluation *ev, const struct list *forbidden)
{
	forbid_locations(ev, "admin_locations", &ev->site->admin_locations, forbidden);
}

static void forbid_support(struct evaluation *ev, const struct list *forbidden)
{
	forbid_locations(ev, "support_locations", &ev->site->support_locations, forbidden);
}

static const struct {
	const char *policy_field;
	size_t offset;
	void (*check)(struct evaluation *ev, const struct list *forbidden);
} forbidden_roles[] = {
#define X(role)                                                                                    \
	{                                                                                          \
		"policy.forbidden_jurisdictions." #role,                                           \
		    offsetof(struct policy_document, forbidden.role), forbid_##role                \
	}
    X(operator), X(supplier), X(technical_access), X(admin), X(support),
#undef X
};

static void rule_forbidden(struct evaluation *ev)
{
	for (size_t k = 0; k < ARRAY_SIZE(forbidden_roles); k++) {
		const struct list *forbidden =
		    (const void *)((const char *)ev->policy + forbidden_roles[k].offset);

		/* Where nothing is forbidden nothing needs to be known. */
		if (policy_states(ev, forbidden->present, forbidden_roles[k].policy_field) &&
		    forbidden->count > 0)
			forbidden_roles[k].check(ev, forbidden);
	}
}

/* -- exposure --------------------------------------------------------------------------------- */

static void rule_exposure(struct evaluation *ev)
{
	const struct list *tolerated = &ev->policy->exposure;
	const struct list *exposure = &ev->site->exposure;
	char field[BOUND_SIZE], bound[BOUND_SIZE];

	if (!policy_states(ev, tolerated->present, "policy.exposure"))
		return;
	one_of(bound, "tolerated:", tolerated, sizeof(const char *));
	if (!exposure->present)
		fail(ev, "exposure", MISSING, "every law, or an empty list");
	for (uint32_t i = 0; i < exposure->count; i++) {
		const char *law = LIST_AT(exposure, struct exposure, i)->law;

		item_field(field, "exposure", i, "law");
		if (law == NULL)
			fail(ev, field, MISSING, bound);
		else if (!list_has(tolerated, "any") && !list_has(tolerated, law))
			fail(ev, field, law, bound);
	}
}

/* -- what choosing sites will need ------------------------------------------------------------ */

/* A site that doesn't say where it stands cannot be shown to be apart from another. */
static void rule_distinct(struct evaluation *ev)
{
	const char *distinct = ev->policy->distinct;

	if (policy_states(ev, distinct != NULL, "policy.distinct") &&
	    strcmp(distinct, "campus") == 0 && ev->site->facility.campus == NULL)
		fail(ev, "facility.campus", MISSING,
		     "the campus, since copies go to distinct ones");
}

static void rule_distance(struct evaluation *ev)
{
	char bound[BOUND_SIZE];

	if (!policy_states(ev, !isnan(ev->policy->min_distance_km), "policy.min_distance_km") ||
	    ev->policy->min_distance_km <= 0)
		return;
	snprintf(bound, sizeof bound, "the position, since copies are at least %g km apart",
		 ev->policy->min_distance_km);
	if (isnan(ev->site->facility.latitude))
		fail(ev, "facility.latitude", MISSING, bound);
	if (isnan(ev->site->facility.longitude))
		fail(ev, "facility.longitude", MISSING, bound);
}

static void rule_policy(struct evaluation *ev)
{
	const struct policy_document *p = ev->policy;

	policy_states(ev, p->replicas != INTEGER_MISSING, "policy.replicas");
	policy_states(ev, p->min_acks != INTEGER_MISSING, "policy.min_acks");
	policy_states(ev, p->hosts != NULL, "policy.hosts");
	policy_states(ev, p->on_loss.action != NULL, "policy.on_loss.action");
	policy_states(ev, p->on_loss.timeout_s != INTEGER_MISSING, "policy.on_loss.timeout_s");
}

/* -- all of them ------------------------------------------------------------------------------ */

static const struct {
	const char *name;
	void (*check)(struct evaluation *ev);
} rules[] = {
    {"certificate", rule_certificate},
    {"revocations", rule_revocations}, /* the first two need no policy */
    {"territory", rule_territory},
    {"labels", rule_labels},
    {"ownership", rule_ownership},
    {"operator", rule_operator},
    {"forbidden_jurisdictions", rule_forbidden},
    {"exposure", rule_exposure},
    {"distinct", rule_distinct},
    {"min_distance_km", rule_distance},
    {"policy", rule_policy},
};
#define RULES_WITHOUT_POLICY 2u

static void conclude(struct verdict *v)
{
	v->eligible = v->failed_count == 0;
	if (v->eligible)
		return;
	v->until = 0;
	v->until_field[0] = v->until_source[0] = '\0';
}

static void run(struct evaluation *ev, size_t rule_count)
{
	struct verdict *v = ev->verdict;

	v->failed_count = 0;
	v->until = INT64_MAX;
	v->until_field[0] = v->until_source[0] = '\0';
	if (ev->site == NULL) {
		ev->rule = "certificate";
		fail(ev, "site", MISSING, "a signed site certificate");
		if (ev->revocations == NULL) {
			ev->rule = "revocations";
			fail(ev, "revocations", MISSING, "a signed snapshot in force");
		}
	} else {
		for (size_t i = 0; i < rule_count; i++) {
			ev->rule = rules[i].name;
			rules[i].check(ev);
		}
	}
	conclude(v);
	POST(!v->eligible || v->until > ev->now);
}

void evaluate(const struct site_document *site, const struct revocations_document *revocations,
	      const struct policy_document *policy, int64_t now, struct verdict *ret_verdict)
{
	struct evaluation ev = {site, revocations, policy, NULL, MAX(now, 0), ret_verdict, NULL};

	PRE(policy != NULL);
	run(&ev, ARRAY_SIZE(rules));
}

void evaluate_site(const struct site_document *site, const struct revocations_document *revocations,
		   int64_t now, struct verdict *ret_verdict)
{
	struct evaluation ev = {site, revocations, NULL, NULL, MAX(now, 0), ret_verdict, NULL};

	run(&ev, RULES_WITHOUT_POLICY);
}

void evaluate_root(const struct root_document *root, int64_t now, struct verdict *verdict)
{
	struct evaluation ev = {.root = root, .now = now, .verdict = verdict, .rule = "root"};
	char value[40], now_text[40], bound[BOUND_SIZE];

	if (root->not_after > now) {
		if (verdict->eligible)
			holds_until(&ev, root->not_after, "root.not_after");
		return;
	}
	snprintf(bound, sizeof bound, "after %s (the time of the check)",
		 text_time(now, now_text, sizeof now_text));
	fail(&ev, "root.not_after", text_time(root->not_after, value, sizeof value), bound);
	conclude(verdict);
}

static double radians(double degrees)
{
	return degrees * (M_PI / 180.0);
}

double distance_km(double lat1, double lon1, double lat2, double lon2)
{
	double dlat = sin(radians(lat2 - lat1) / 2);
	double dlon = sin(radians(lon2 - lon1) / 2);
	double h = dlat * dlat + cos(radians(lat1)) * cos(radians(lat2)) * dlon * dlon;

	return 2 * EARTH_RADIUS_KM * asin(sqrt(fmin(h, 1.0)));
}
