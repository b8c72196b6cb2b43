/* The evidence in force: see verdicts.h. */
#include "engine/placement/verdicts.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/assert.h"
#include "engine/base/log.h"

#define REFUSAL_KEPT_NS ((int64_t)NS_PER_S)

/* Everything is to be judged anew. */
static void new_epoch(struct verdicts *v)
{
	v->epoch++;
	v->next_change = INT64_MAX;
}

int verdicts_init(struct verdicts *v, struct trust *trust, struct error *err)
{
	const char *const *names = policy_preset_names();

	memset(v, 0, sizeof *v);
	v->trust = trust;
	new_epoch(v);
	for (; *names != NULL; names++) {
		struct verdict_policy *p = &v->policies[v->policy_count];
		const char *json = policy_preset(*names);
		int rc;

		INVARIANT(v->policy_count < VERDICT_POLICIES_MAX && json != NULL);
		rc = policy_parse(json, strlen(json), &p->doc, err);
		if (rc != 0) {
			error_wrap(err, "preset %s", *names);
			verdicts_deinit(v);
			return rc;
		}
		snprintf(p->name, sizeof p->name, "%s", *names);
		v->policy_count++;
	}
	return 0;
}

static void policy_deinit(struct verdict_policy *p)
{
	policy_free(p->doc);
	free(p->envelope);
	free(p->base);
	memset(p, 0, sizeof *p);
}

void verdicts_deinit(struct verdicts *v)
{
	struct verdict_site *s, *next;

	HASH_ITER (hh, v->sites, s, next) {
		HASH_DELETE(hh, v->sites, s);
		site_free(s->doc);
		free(s->envelope);
		free(s);
	}
	for (uint32_t i = 0; i < v->policy_count; i++)
		policy_deinit(&v->policies[i]);
	revocations_free(v->revocations);
	free(v->revocations_envelope);
	memset(v, 0, sizeof *v);
}

/* -- taking evidence in ----------------------------------------------------------------------- */

static void *copy(const void *data, size_t size, struct error *err)
{
	void *p = malloc(size + 1);

	if (p == NULL)
		error_set(err, -ENOMEM, "no memory for an envelope of %zu bytes", size);
	else if (size > 0)
		memcpy(p, data, size);
	return p;
}

int verdicts_add_site(struct verdicts *v, const void *envelope, size_t size, const char **ret_name,
		      struct error *err)
{
	struct site_document *doc = NULL;
	struct verdict_site *s = NULL;
	void *kept = copy(envelope, size, err);
	int rc = -ENOMEM;

	if (kept == NULL)
		goto out;
	rc = trust_accept_site(v->trust, envelope, size, &doc, err);
	if (rc != 0)
		goto out;
	HASH_FIND_STR(v->sites, site_name(doc), s);
	if (s == NULL) {
		if (HASH_COUNT(v->sites) >= VERDICT_SITES_MAX) {
			rc = error_set(err, -E_LIMIT, "there are %u sites already, the most is %u",
				       HASH_COUNT(v->sites), VERDICT_SITES_MAX);
			goto out;
		}
		s = calloc(1, sizeof *s);
		if (s == NULL) {
			rc = error_set(err, -ENOMEM, "no memory for site %s", site_name(doc));
			goto out;
		}
		snprintf(s->name, sizeof s->name, "%s", site_name(doc));
		s->told_from = INT64_MIN;
		HASH_ADD_STR(v->sites, name, s);
		if (s->hh.tbl == NULL) {
			free(s);
			rc = error_set(err, -ENOMEM, "no memory for site %s", site_name(doc));
			goto out;
		}
	}
	site_free(s->doc);
	free(s->envelope);
	s->doc = doc;
	s->envelope = kept;
	s->envelope_size = size;
	doc = NULL;
	kept = NULL;
	*ret_name = s->name;
out:
	/* A refusal counts too: it may have put a site into quarantine. */
	new_epoch(v);
	site_free(doc);
	free(kept);
	return rc;
}

int verdicts_add_revocations(struct verdicts *v, const void *envelope, size_t size,
			     struct error *err)
{
	struct revocations_document *doc = NULL;
	void *kept = copy(envelope, size, err);
	int rc = -ENOMEM;

	/* A refusal counts too: two contents under one version put every site into quarantine. */
	new_epoch(v);
	if (kept != NULL)
		rc = trust_accept_revocations(v->trust, envelope, size, &doc, err);
	if (rc != 0) {
		free(kept);
		return rc;
	}
	revocations_free(v->revocations);
	free(v->revocations_envelope);
	v->revocations = doc;
	v->revocations_envelope = kept;
	v->revocations_size = size;
	return 0;
}

static int find_policy(const struct verdicts *v, const char *name)
{
	for (uint32_t i = 0; i < v->policy_count; i++)
		if (strcmp(v->policies[i].name, name) == 0)
			return (int)i;
	return -1;
}

static const struct policy_document *in_force(const char *name, void *arg)
{
	return verdicts_policy(arg, name);
}

/* Takes kept. */
static void keep_policy(struct verdict_policy *p, void *kept, size_t size, bool by_operator)
{
	if (by_operator && !p->by_operator && p->envelope != NULL) {
		free(p->base);
		p->base = p->envelope;
		p->base_size = p->envelope_size;
		p->envelope = NULL;
	} else if (!by_operator) {
		free(p->base);
		p->base = NULL;
	}
	free(p->envelope);
	p->envelope = kept;
	p->envelope_size = size;
	p->by_operator = by_operator;
}

/* The entry of that name, made when there is none. NULL: there is no room. */
static struct verdict_policy *policy_entry(struct verdicts *v, const char *name, struct error *err)
{
	int i = find_policy(v, name);
	struct verdict_policy *p;

	if (i < 0 && v->policy_count == VERDICT_POLICIES_MAX) {
		error_set(err, -E_LIMIT, "there are %u policies already, the most",
			  VERDICT_POLICIES_MAX);
		return NULL;
	}
	p = &v->policies[i < 0 ? v->policy_count++ : (uint32_t)i];
	snprintf(p->name, sizeof p->name, "%s", name);
	return p;
}

int verdicts_hold_base(struct verdicts *v, const void *envelope, size_t size, struct error *err)
{
	struct verdict_policy *p = NULL;
	struct policy_document *d = NULL;
	void *kept = copy(envelope, size, err);
	int rc = -ENOMEM;

	if (kept != NULL)
		rc = policy_open(envelope, size, trust_root(v->trust), &d, err);
	if (rc == 0)
		p = policy_entry(v, policy_name(d), err);
	if (rc == 0 && p == NULL)
		rc = err->code;
	if (p != NULL) {
		policy_free(p->doc);
		free(p->envelope);
		free(p->base);
		p->doc = NULL;
		p->envelope = NULL;
		p->by_operator = false;
		p->base = kept;
		p->base_size = size;
		kept = NULL;
		new_epoch(v);
	}
	policy_free(d);
	free(kept);
	return rc;
}

/* What the operator has signed counts beside what it tightens, which is in force or held. */
static int check_base(const struct verdicts *v, const char *name, struct error *err)
{
	const int i = find_policy(v, name);

	if (i >= 0 && (v->policies[i].doc != NULL || v->policies[i].base != NULL))
		return 0;
	return error_set(err, -E_DENIED,
			 "policy %s: it is signed by the operator, and what it tightens is not in "
			 "force any more; have the tenant sign it",
			 name);
}

int verdicts_add_policy(struct verdicts *v, const void *envelope, size_t size,
			const char **ret_name, bool *ret_by_operator, struct error *err)
{
	const struct trust_policies now = {in_force, v};
	struct policy_document *doc = NULL;
	struct verdict_policy *p = NULL;
	void *kept = copy(envelope, size, err);
	bool by_operator;
	int rc = -ENOMEM;

	new_epoch(v); /* a refusal may have put two contents under one version in dispute */
	if (kept != NULL)
		rc = trust_accept_policy(v->trust, envelope, size, &now, &doc, &by_operator, err);
	if (rc == 0 && by_operator)
		rc = check_base(v, policy_name(doc), err);
	if (rc == 0)
		p = policy_entry(v, policy_name(doc), err);
	if (p == NULL) {
		policy_free(doc);
		free(kept);
		return rc != 0 ? rc : err->code;
	}
	policy_free(p->doc);
	p->doc = doc;
	keep_policy(p, kept, size, by_operator);
	*ret_name = p->name;
	if (ret_by_operator != NULL)
		*ret_by_operator = by_operator;
	return 0;
}

void verdicts_void_policy(struct verdicts *v, const char *name)
{
	int i = find_policy(v, name);

	if (i < 0)
		return;
	policy_deinit(&v->policies[i]);
	v->policy_count--;
	memmove(&v->policies[i], &v->policies[i + 1],
		(v->policy_count - (uint32_t)i) * sizeof v->policies[0]);
	memset(&v->policies[v->policy_count], 0, sizeof v->policies[0]);
	new_epoch(v);
}

/* -- another root ----------------------------------------------------------------------------- */

static bool policy_holds(const struct verdict_policy *p, const struct root_document *root)
{
	struct policy_document *d = NULL;
	struct error err;
	bool holds = p->envelope == NULL;

	if (p->envelope != NULL)
		holds = p->by_operator
			    ? policy_open_by_operator(p->envelope, p->envelope_size, root, &d,
						      &err) == 0
			    : policy_open(p->envelope, p->envelope_size, root, &d, &err) == 0;
	policy_free(d);
	d = NULL;
	if (holds && p->base != NULL)
		holds = policy_open(p->base, p->base_size, root, &d, &err) == 0;
	policy_free(d);
	return holds;
}

static uint32_t drop_policies(struct verdicts *v, const struct root_document *root)
{
	uint32_t kept = 0, dropped = 0;

	for (uint32_t i = 0; i < v->policy_count; i++) {
		struct verdict_policy *p = &v->policies[i];

		if (policy_holds(p, root)) {
			v->policies[kept++] = *p;
			continue;
		}
		log_warn("pd", "policy %s is void under the new trust root: have it signed again",
			 p->name);
		policy_deinit(p);
		dropped++;
	}
	memset(&v->policies[kept], 0, (v->policy_count - kept) * sizeof v->policies[0]);
	v->policy_count = kept;
	return dropped;
}

uint32_t verdicts_root_changed(struct verdicts *v)
{
	const struct root_document *root = trust_root(v->trust);
	struct revocations_document *revocations = NULL;
	struct verdict_site *s, *next;
	uint32_t dropped = drop_policies(v, root);
	struct error err;

	HASH_ITER (hh, v->sites, s, next) {
		struct site_document *d = NULL;

		if (site_open(s->envelope, s->envelope_size, root, &d, &err) == 0) {
			site_free(d);
			continue;
		}
		log_warn("pd", "the certificate of site %s is void under the new trust root: %s",
			 s->name, err.text);
		HASH_DELETE(hh, v->sites, s);
		site_free(s->doc);
		free(s->envelope);
		free(s);
		dropped++;
	}
	if (v->revocations != NULL && revocations_open(v->revocations_envelope, v->revocations_size,
						       root, &revocations, &err) != 0) {
		log_warn("pd", "the revocation snapshot is void under the new trust root: %s",
			 err.text);
		revocations_free(v->revocations);
		free(v->revocations_envelope);
		v->revocations = NULL;
		v->revocations_envelope = NULL;
		v->revocations_size = 0;
		dropped++;
	}
	revocations_free(revocations);
	new_epoch(v);
	return dropped;
}

/* -- asking ----------------------------------------------------------------------------------- */

const struct verdict_site *verdicts_site(const struct verdicts *v, const char *site)
{
	struct verdict_site *s;

	HASH_FIND_STR(v->sites, site, s);
	return s;
}

const struct policy_document *verdicts_policy(const struct verdicts *v, const char *policy)
{
	int i = find_policy(v, policy);

	return i < 0 ? NULL : v->policies[i].doc;
}

static void refuse(struct verdict *ret, const char *rule, const char *field, const char *value,
		   const char *bound)
{
	memset(ret, 0, sizeof *ret);
	ret->failed_count = 1;
	snprintf(ret->failed[0].rule, sizeof ret->failed[0].rule, "%s", rule);
	snprintf(ret->failed[0].field, sizeof ret->failed[0].field, "%s", field);
	snprintf(ret->failed[0].value, sizeof ret->failed[0].value, "%s", value);
	snprintf(ret->failed[0].bound, sizeof ret->failed[0].bound, "%s", bound);
	snprintf(ret->failed[0].source, sizeof ret->failed[0].source, "the placement driver");
}

void verdicts_full(struct verdicts *v, const char *site, const char *policy, int64_t now,
		   struct verdict *ret)
{
	const struct verdict_site *s = verdicts_site(v, site);
	const struct policy_document *p = policy != NULL ? verdicts_policy(v, policy) : NULL;

	if (trust_quarantined(v->trust, site))
		refuse(ret, "certificate", "version", "two contents under one version",
		       "one: a newer certificate ends the quarantine");
	else if (s == NULL)
		refuse(ret, "certificate", "site", "(missing)",
		       "a certificate of the site: pave site add");
	else if (policy == NULL)
		evaluate_site(s->doc, v->revocations, now, ret);
	else if (p == NULL)
		refuse(ret, "policy", "name", policy, "a policy that the driver knows");
	else if (trust_policy_disputed(v->trust, policy))
		refuse(ret, "policy", "version", "two contents under one version",
		       "one: a higher version ends the dispute");
	else
		evaluate(s->doc, v->revocations, p, now, ret);
	evaluate_root(trust_root(v->trust), now, ret);
}

static void brief(const struct verdict *full, uint64_t epoch, int64_t now,
		  struct verdict_brief *ret)
{
	ret->epoch = epoch;
	ret->eligible = full->eligible;
	/* A refusal has no end of its own (a certificate may begin later): it is looked at again.
	 */
	ret->until = full->eligible ? full->until : now + REFUSAL_KEPT_NS;
	ret->why[0] = '\0';
	if (!full->eligible)
		snprintf(ret->why, sizeof ret->why, "%.47s: %.80s is %.60s, the bound is %.80s%s",
			 full->failed[0].rule, full->failed[0].field, full->failed[0].value,
			 full->failed[0].bound, full->failed_count > 1 ? ", and more" : "");
}

const struct verdict_brief *verdicts_get(struct verdicts *v, const char *site, const char *policy,
					 int64_t now)
{
	/* Too large for a stack that others share; it is filled and read in this call only. */
	struct verdict *full;
	struct verdict_site *s;
	struct verdict_brief *b = &v->unknown;
	int i = policy != NULL ? find_policy(v, policy) : -1;

	HASH_FIND_STR(v->sites, site, s);
	if (s != NULL && policy == NULL)
		b = &s->own;
	else if (s != NULL && i >= 0)
		b = &s->under[i];
	if (b != &v->unknown && b->epoch == v->epoch && now < b->until)
		return b;
	full = malloc(sizeof *full);
	if (full == NULL) {
		/* Evidence that cannot be looked at is a refusal. */
		b = &v->unknown;
		*b = (struct verdict_brief){.until = now, .why = "no memory for the evaluation"};
		return b;
	}
	verdicts_full(v, site, policy, now, full);
	brief(full, v->epoch, now, b);
	if (b->eligible)
		v->next_change = MIN(v->next_change, b->until);
	free(full);
	return b;
}

int64_t verdicts_next_change(struct verdicts *v, int64_t now)
{
	if (v->next_change > now)
		return v->next_change;
	v->next_change = INT64_MAX;
	for (const struct verdict_site *s = v->sites; s != NULL; s = s->hh.next) {
		if (s->own.epoch == v->epoch && s->own.eligible && s->own.until > now)
			v->next_change = MIN(v->next_change, s->own.until);
		for (uint32_t i = 0; i < v->policy_count; i++)
			if (s->under[i].epoch == v->epoch && s->under[i].eligible &&
			    s->under[i].until > now)
				v->next_change = MIN(v->next_change, s->under[i].until);
	}
	return v->next_change;
}
