/* The driver and its admins: site certificates, revocation snapshots, policies. See driver.h.
 *
 * New evidence: verified through trust (which notes its version durably), in force in memory,
 * written to the register; when that is durable every node gets the snapshot and every host a
 * permit of what is still eligible; then the admin is answered. A crash between trust and register
 * leaves a document that trust knows and the register doesn't: then it is missing, which refuses,
 * and the admin submits the same again. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/assert.h"
#include "engine/base/log.h"
#include "engine/placement/driver.h"

#define SUMMARY_FAILED_MAX   4u	   /* rules of a verdict in a list of all sites, */
#define SUMMARY_VERDICTS_MAX 1024u /* and of none when there are more verdicts than this */

/* -- what is said of sites -------------------------------------------------------------------- */

Pave__V1__SiteVerdict *admin_verdict(struct pd *pd, struct arena *a, const char *site,
				     const char *policy, int64_t now, uint32_t failed_max)
{
	Pave__V1__SiteVerdict *m = arena_get(a, sizeof *m);
	struct verdict *full = arena_get(a, sizeof *full);
	uint32_t count;

	if (m == NULL || full == NULL)
		return NULL;
	verdicts_full(&pd->verdicts, site, policy, now, full);
	pave__v1__site_verdict__init(m);
	m->site = arena_text(a, site);
	m->eligible = full->eligible;
	m->until = full->until;
	m->until_field = full->until_field;
	m->until_source = full->until_source;
	count = MIN(MIN(full->failed_count, (uint32_t)FAILED_RULES_MAX), failed_max);
	m->failed = arena_get(a, (count + 1) * sizeof *m->failed);
	for (uint32_t i = 0; m->failed != NULL && i < count; i++) {
		Pave__V1__FailedRule *f = arena_get(a, sizeof *f);

		if (f == NULL)
			return NULL;
		pave__v1__failed_rule__init(f);
		f->rule = full->failed[i].rule;
		f->field = full->failed[i].field;
		f->value = full->failed[i].value;
		f->bound = full->failed[i].bound;
		f->source = full->failed[i].source;
		m->failed[m->n_failed++] = f;
	}
	return m;
}

Pave__V1__SiteInfo *admin_site_info(struct pd *pd, struct arena *a, const struct verdict_site *s,
				    bool whole)
{
	struct verdicts *vs = &pd->verdicts;
	Pave__V1__SiteInfo *m = arena_get(a, sizeof *m);
	int64_t now = reg_now(&pd->reg, NULL);
	uint32_t failed_max = FAILED_RULES_MAX;
	const char *reason = "";

	if (m == NULL)
		return NULL;
	/* A list of all must fit into a message. */
	if (!whole)
		failed_max = HASH_COUNT(vs->sites) * vs->policy_count <= SUMMARY_VERDICTS_MAX
				 ? SUMMARY_FAILED_MAX
				 : 0;
	pave__v1__site_info__init(m);
	m->site = arena_text(a, s->name);
	m->version = site_version(s->doc);
	m->not_before = site_not_before(s->doc);
	m->not_after = site_not_after(s->doc);
	/* One that takes effect later is told, too; until then the site is as good as others. */
	if (vs->revocations != NULL &&
	    revocations_withdrawn(vs->revocations, s->name, INT64_MAX, &m->revoked_from, &reason))
		m->revoked = m->revoked_from <= now;
	m->reason = arena_text(a, reason);
	m->campus = arena_text(a, site_campus(s->doc));
	m->territory = arena_text(a, site_territory(s->doc));
	m->operator_name = arena_text(a, site_operator(s->doc));
	if (whole) {
		m->envelope.data = s->envelope;
		m->envelope.len = s->envelope_size;
	}
	m->verdicts = arena_get(a, (vs->policy_count + 1) * sizeof *m->verdicts);
	for (uint32_t i = 0; m->verdicts != NULL && i < vs->policy_count; i++) {
		Pave__V1__SitePolicyVerdict *p = arena_get(a, sizeof *p);

		if (p == NULL)
			return NULL;
		pave__v1__site_policy_verdict__init(p);
		p->policy = vs->policies[i].name;
		p->verdict = admin_verdict(pd, a, s->name, p->policy, now, failed_max);
		m->verdicts[m->n_verdicts++] = p;
	}
	return m;
}

void admin_site_list(struct pd_request *q, const Pave__V1__Control *m)
{
	struct pd *pd = q->pd;
	const char *only = m->site_list->site;
	Pave__V1__Control reply = PAVE__V1__CONTROL__INIT;
	Pave__V1__SiteListReply r = PAVE__V1__SITE_LIST_REPLY__INIT;
	struct arena a = {0};
	struct error err = {0};

	r.sites = arena_get(&a, (HASH_COUNT(pd->verdicts.sites) + 1) * sizeof *r.sites);
	for (const struct verdict_site *s = pd->verdicts.sites; r.sites != NULL && s != NULL;
	     s = s->hh.next)
		if (only[0] == '\0' || strcmp(only, s->name) == 0)
			r.sites[r.n_sites++] = admin_site_info(pd, &a, s, only[0] != '\0');
	if (arena_failed(&a))
		error_set(&err, -ENOMEM, "no memory for the answer");
	else if (only[0] != '\0' && r.n_sites == 0)
		error_set(&err, -ENOENT, "there is no site \"%.64s\": pave site list", only);
	reply.body_case = PAVE__V1__CONTROL__BODY_SITE_LIST_REPLY;
	reply.site_list_reply = &r;
	if (err.code != 0)
		request_fail(q, &err);
	else
		request_reply(q, &reply);
	arena_deinit(&a);
}

/* The payload of what was signed, or the preset. */
static int policy_text(struct arena *a, const struct verdict_policy *p, ProtobufCBinaryData *ret,
		       struct error *err)
{
	const void *payload = policy_preset(p->name);
	struct dsse_envelope *e = NULL;
	int rc;

	if (p->envelope == NULL) {
		INVARIANT(payload != NULL);
		ret->data = (uint8_t *)(uintptr_t)payload;
		ret->len = strlen(payload);
		return 0;
	}
	rc = dsse_parse(p->envelope, p->envelope_size, &e, err);
	if (rc != 0)
		return rc;
	payload = dsse_payload(e, &ret->len);
	ret->data = arena_get(a, ret->len);
	if (ret->data != NULL)
		memcpy(ret->data, payload, ret->len);
	dsse_free(e);
	return 0; /* the arena knows that it has failed */
}

/* Where the root has no tenant, all policies are the operator's. */
static const char *policy_signer(const struct pd *pd, const struct verdict_policy *p)
{
	const bool tenants = root_role_key(trust_root(pd->trust), "tenant", 0) != NULL;

	if (p->envelope == NULL)
		return "preset";
	return p->by_operator || !tenants ? "operator" : "tenant";
}

static Pave__V1__PolicyInfo *policy_info(const struct pd *pd, struct arena *a,
					 const struct verdict_policy *p)
{
	Pave__V1__PolicyInfo *m = arena_get(a, sizeof *m);

	if (m == NULL)
		return NULL;
	pave__v1__policy_info__init(m);
	m->policy = arena_text(a, p->name);
	m->version = policy_version(p->doc);
	m->digest.data = (uint8_t *)(uintptr_t)policy_digest(p->doc);
	m->digest.len = 32;
	m->signed_by = arena_text(a, policy_signer(pd, p));
	m->disputed = trust_policy_disputed(pd->trust, p->name);
	return m;
}

void admin_policy_list(struct pd_request *q, const Pave__V1__Control *m)
{
	const struct verdicts *vs = &q->pd->verdicts;
	const char *only = m->policy_list->policy;
	Pave__V1__Control reply = PAVE__V1__CONTROL__INIT;
	Pave__V1__PolicyListReply r = PAVE__V1__POLICY_LIST_REPLY__INIT;
	struct arena a = {0};
	struct error err = {0};

	r.policies = arena_get(&a, (vs->policy_count + 1) * sizeof *r.policies);
	for (uint32_t i = 0; r.policies != NULL && err.code == 0 && i < vs->policy_count; i++) {
		const struct verdict_policy *p = &vs->policies[i];
		Pave__V1__PolicyInfo *info;

		/* Of what the operator makes of it the driver may have the base only. */
		if (p->doc == NULL || (only[0] != '\0' && strcmp(only, p->name) != 0))
			continue;
		info = policy_info(q->pd, &a, p);
		r.policies[r.n_policies++] = info;
		if (info != NULL && only[0] != '\0')
			policy_text(&a, p, &info->document, &err);
	}
	if (err.code == 0 && arena_failed(&a))
		error_set(&err, -ENOMEM, "no memory for the answer");
	else if (err.code == 0 && only[0] != '\0' && r.n_policies == 0)
		error_set(&err, -ENOENT, "no policy \"%.64s\" is in force: pave policy list", only);
	reply.body_case = PAVE__V1__CONTROL__BODY_POLICY_LIST_REPLY;
	reply.policy_list_reply = &r;
	if (err.code != 0)
		request_fail(q, &err);
	else
		request_reply(q, &reply);
	arena_deinit(&a);
}

/* -- taking evidence in ----------------------------------------------------------------------- */

static void evidence_committed(struct pd_request *q)
{
	pd_evidence_changed(q->pd);
	request_done(q);
}

static void refuse(struct pd_request *q, const struct error *err)
{
	log_warn("pd", "evidence refused: %s", err->text);
	/* It may have put a site into quarantine. */
	if (err->code == -E_ROLLBACK)
		pd_evidence_changed(q->pd);
	request_fail(q, err);
}

/* "site/NAME": the register's key. */
static void document_key(char *buf, size_t size, const char *kind, const char *name)
{
	int n = snprintf(buf, size, "%s/%s", kind, name);

	POST(n > 0 && (size_t)n < size);
}

static int take_site(struct pd *pd, const ProtobufCBinaryData *e, struct error *err)
{
	char key[NAME_SIZE_MAX + 16];
	const char *name;
	int rc = verdicts_add_site(&pd->verdicts, e->data, e->len, &name, err);

	if (rc != 0)
		return rc;
	log_info("pd", "site %s: certificate version %llu", name,
		 (unsigned long long)site_version(verdicts_site(&pd->verdicts, name)->doc));
	document_key(key, sizeof key, "site", name);
	reg_save_document(&pd->reg, key, e->data, e->len);
	pd_ledger_document(&pd->ledger, "site", name,
			   site_version(verdicts_site(&pd->verdicts, name)->doc), e->data, e->len);
	return 0;
}

/* The answer to whoever brought a document. */
static void taken(struct pd_request *q, int rc, const struct error *err)
{
	if (rc != 0)
		refuse(q, err);
	else
		request_commit(q, evidence_committed);
}

void admin_site_add(struct pd_request *q, const Pave__V1__Control *m)
{
	struct error err = {0};

	taken(q, take_site(q->pd, &m->site_add->envelope, &err), &err);
}

void admin_revocations_get(struct pd_request *q, const Pave__V1__Control *m)
{
	struct pd *pd = q->pd;
	Pave__V1__Control reply = PAVE__V1__CONTROL__INIT;
	Pave__V1__RevocationsReply r = PAVE__V1__REVOCATIONS_REPLY__INIT;

	(void)m;
	if (pd->verdicts.revocations != NULL) {
		r.envelope.data = pd->verdicts.revocations_envelope;
		r.envelope.len = pd->verdicts.revocations_size;
	}
	reply.body_case = PAVE__V1__CONTROL__BODY_REVOCATIONS_REPLY;
	reply.revocations_reply = &r;
	request_reply(q, &reply);
}

void admin_note_told(struct pd *pd)
{
	const struct revocations_document *r = pd->verdicts.revocations;

	for (struct verdict_site *s = pd->verdicts.sites; r != NULL && s != NULL; s = s->hh.next)
		if (!revocations_withdrawn(r, s->name, INT64_MAX, &s->told_from, NULL))
			s->told_from = INT64_MIN;
}

/* Sites whose withdrawal took effect before it was told: what they took in since is flagged. A
 * snapshot that says what the one before has said tells nothing. */
static void note_late(struct pd *pd)
{
	const struct revocations_document *r = pd->verdicts.revocations;
	int64_t now = reg_now(&pd->reg, NULL);

	for (struct verdict_site *s = pd->verdicts.sites; s != NULL; s = s->hh.next) {
		int64_t from;

		if (revocations_withdrawn(r, s->name, now, &from, NULL) && from != s->told_from &&
		    from + (int64_t)NS_PER_S <= now)
			pd_ledger_taint(&pd->ledger, s->name, from, revocations_version(r));
	}
	admin_note_told(pd);
}

static int take_revocations(struct pd *pd, const ProtobufCBinaryData *e, struct error *err)
{
	int rc = verdicts_add_revocations(&pd->verdicts, e->data, e->len, err);

	if (rc != 0)
		return rc;
	log_info("pd", "revocation snapshot version %llu",
		 (unsigned long long)revocations_version(pd->verdicts.revocations));
	reg_save_document(&pd->reg, "revocations", e->data, e->len);
	pd_ledger_document(&pd->ledger, "revocations", "",
			   revocations_version(pd->verdicts.revocations), e->data, e->len);
	note_late(pd);
	return 0;
}

void admin_revocations_put(struct pd_request *q, const Pave__V1__Control *m)
{
	struct error err = {0};

	taken(q, take_revocations(q->pd, &m->revocations_put->envelope, &err), &err);
}

/* How many copies there are is decided when a volume is made: a policy that asks for more is one
 * for other volumes. The text is not verified yet; that is only the reason of a refusal. */
static int check_copies(struct pd *pd, const ProtobufCBinaryData *e, struct error *err)
{
	struct dsse_envelope *envelope = NULL;
	struct policy_document *d = NULL;
	struct error unreadable;
	const void *payload;
	size_t size;
	int rc = 0;

	if (dsse_parse(e->data, e->len, &envelope, &unreadable) != 0)
		return 0;
	payload = dsse_payload(envelope, &size);
	if (policy_parse(payload, size, &d, &unreadable) == 0)
		for (const struct reg_volume *v = pd->reg.volumes; rc == 0 && v != NULL;
		     v = v->hh.next)
			if (!v->deleted && strcmp(v->policy, policy_name(d)) == 0 &&
			    v->replicas < policy_replicas(d))
				rc = error_set(
				    err, -E_IN_USE,
				    "policy %s: version %llu asks for %u copies, and volume %s "
				    "under it has %u, which does not change while it lives; sign "
				    "the policy under another name, make a volume under that, copy "
				    "%s into it (nbdcopy), and delete it",
				    policy_name(d), (unsigned long long)policy_version(d),
				    policy_replicas(d), v->name, v->replicas, v->name);
	policy_free(d);
	dsse_free(envelope);
	return rc;
}

/* Hosts are told with their next permit, which they get at once. Of a volume with more copies than
 * the policy asks for by now a majority acknowledges all the same. */
static void set_min_acks(struct pd *pd, const struct policy_document *d)
{
	for (struct reg_volume *v = pd->reg.volumes; v != NULL; v = v->hh.next) {
		const uint32_t min_acks = MAX(policy_min_acks(d), v->replicas / 2 + 1);

		if (v->deleted || strcmp(v->policy, policy_name(d)) != 0 || v->min_acks == min_acks)
			continue;
		v->min_acks = min_acks;
		reg_save_volume(&pd->reg, v);
	}
}

/* What the tenant signed stays beside what the operator makes of it: a driver that has seen neither
 * can only believe the second after the first. */
static void save_policy(struct pd *pd, const char *name, const ProtobufCBinaryData *e,
			bool by_operator)
{
	char key[NAME_SIZE_MAX + 32];
	int n = snprintf(key, sizeof key, "policy/%s/operator", name);

	POST(n > 0 && (size_t)n < sizeof key);
	if (!by_operator) {
		reg_delete_document(&pd->reg, key);
		document_key(key, sizeof key, "policy", name);
	}
	reg_save_document(&pd->reg, key, e->data, e->len);
}

static int take_policy(struct pd *pd, const ProtobufCBinaryData *e, struct error *err)
{
	const char *name;
	bool by_operator;
	int rc = check_copies(pd, e, err);

	if (rc == 0)
		rc = verdicts_add_policy(&pd->verdicts, e->data, e->len, &name, &by_operator, err);
	if (rc == -E_DENIED) {
		pd_ledger_denial(&pd->ledger, "evidence", "policy", err);
		pd_background_flush(pd);
	}
	if (rc != 0)
		return rc;
	log_info("pd", "policy %s: version %llu%s", name,
		 (unsigned long long)policy_version(verdicts_policy(&pd->verdicts, name)),
		 by_operator ? ", tightened by the operator" : "");
	save_policy(pd, name, e, by_operator);
	set_min_acks(pd, verdicts_policy(&pd->verdicts, name));
	pd_ledger_document(&pd->ledger, "policy", name,
			   policy_version(verdicts_policy(&pd->verdicts, name)), e->data, e->len);
	return 0;
}

void admin_policy_put(struct pd_request *q, const Pave__V1__Control *m)
{
	struct error err = {0};

	taken(q, take_policy(q->pd, &m->policy_put->envelope, &err), &err);
}

int admin_take_document(struct pd *pd, const ProtobufCBinaryData *e, struct error *err)
{
	static const struct {
		const char *type;
		int (*take)(struct pd *pd, const ProtobufCBinaryData *e, struct error *err);
	} kinds[] = {{TYPE_SITE, take_site},
		     {TYPE_REVOCATIONS, take_revocations},
		     {TYPE_POLICY, take_policy}};
	struct dsse_envelope *envelope = NULL;
	int rc = dsse_parse(e->data, e->len, &envelope, err);

	if (rc != 0)
		return rc;
	rc = error_set(err, -E_BAD_DOCUMENT,
		       "a document of type %.80s: a site, a snapshot or a policy is wanted",
		       dsse_type(envelope));
	for (size_t i = 0; i < ARRAY_SIZE(kinds); i++)
		if (strcmp(kinds[i].type, dsse_type(envelope)) == 0)
			rc = kinds[i].take(pd, e, err);
	dsse_free(envelope);
	return rc;
}
