/* history: see history.h. Here: the replay, and what records change. What is judged is in judge.c.
 */
#include "engine/ledger/history.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/assert.h"
#include "engine/base/text.h"
#include "engine/evidence/tighten.h"

/* -- small things ----------------------------------------------------------------------------- */

void history_finding(struct history *h, uint64_t seq, bool note, const char *fmt, ...)
{
	struct history_finding *f;
	va_list args;

	if (note)
		h->note_count++;
	else
		h->finding_count++;
	if (h->kept_count == HISTORY_FINDINGS_MAX)
		return;
	if (h->findings == NULL)
		h->findings = calloc(HISTORY_FINDINGS_MAX, sizeof *h->findings);
	if (h->findings == NULL) {
		h->failed = true;
		return;
	}
	f = &h->findings[h->kept_count++];
	f->seq = seq;
	f->note = note;
	va_start(args, fmt);
	vsnprintf(f->text, sizeof f->text, fmt, args);
	va_end(args);
}

static bool take_name(char *dst, const char *src)
{
	if (src == NULL || strlen(src) >= NAME_SIZE_MAX)
		return false;
	memcpy(dst, src, strlen(src) + 1);
	return true;
}

struct history_node *history_find_node(const struct history *h, const char *name)
{
	struct history_node *n;

	HASH_FIND_STR(h->nodes, name, n);
	return n;
}

static struct history_volume *find_volume(const struct history *h, uint64_t id)
{
	struct history_volume *v;

	HASH_FIND(hh, h->volumes, &id, sizeof id, v);
	return v;
}

struct history_volume *history_find_volume(const struct history *h, const char *name_or_id)
{
	struct history_volume *v, *found = NULL;
	char id[24];

	for (v = h->volumes; v != NULL; v = v->hh.next) {
		snprintf(id, sizeof id, "#%llu", (unsigned long long)v->id);
		/* A name may have been used before: the one that is there, else the last. */
		if (strcmp(v->name, name_or_id) == 0 && (found == NULL || found->ended_at != 0))
			found = v;
		if (strcmp(id, name_or_id) == 0)
			return v;
	}
	return found;
}

static const struct history_certificate *find_certificate(const struct history *h, const char *site,
							  uint64_t version)
{
	struct history_site *s;

	HASH_FIND_STR(h->sites, site, s);
	if (s == NULL || s->version_count == 0)
		return NULL;
	if (version == 0)
		return &s->versions[s->version_count - 1];
	/* The last one: a version may be used again after its signer was replaced. */
	for (uint32_t i = s->version_count; i-- > 0;)
		if (site_version(s->versions[i].document) == version)
			return &s->versions[i];
	return NULL;
}

const struct site_document *history_site_version(const struct history *h, const char *site,
						 uint64_t version)
{
	const struct history_certificate *c = find_certificate(h, site, version);

	return c != NULL ? c->document : NULL;
}

const struct site_document *history_site_in_force(const struct history *h, const char *site,
						  uint64_t version)
{
	const struct history_certificate *c = find_certificate(h, site, version);

	return c != NULL && !c->is_void ? c->document : NULL;
}

const struct policy_document *history_policy(const struct history *h, const char *name)
{
	struct history_policy *p;

	HASH_FIND_STR(h->policies, name, p);
	return p != NULL ? p->document : NULL;
}

/* -- evidence --------------------------------------------------------------------------------- */

static const struct root_document *newest_root(const struct history *h)
{
	return h->last_root != NULL ? h->last_root : h->root;
}

static bool keep_envelope(struct history_envelope *e, const void *data, size_t size)
{
	void *copy = malloc(MAX(size, (size_t)1));

	if (copy == NULL)
		return false;
	memcpy(copy, data, size);
	free(e->data);
	*e = (struct history_envelope){copy, size};
	return true;
}

static bool policy_holds(const struct history *h, const struct history_policy *p)
{
	struct policy_document *d = NULL;
	struct error why;
	bool holds = p->envelope.data == NULL;

	if (!holds)
		holds = (p->by_operator ? policy_open_by_operator : policy_open)(
			    p->envelope.data, p->envelope.size, h->root, &d, &why) == 0;
	policy_free(d);
	d = NULL;
	if (holds && p->base.data != NULL)
		holds = policy_open(p->base.data, p->base.size, h->root, &d, &why) == 0;
	policy_free(d);
	return holds;
}

/* The root has changed: what does not verify under it is void from here on, as the driver had to
 * take it. */
static void verify_again(struct history *h)
{
	struct revocations_document *r = NULL;
	struct error why;

	for (struct history_site *s = h->sites; s != NULL; s = s->hh.next)
		for (uint32_t i = 0; i < s->version_count; i++) {
			struct history_certificate *c = &s->versions[i];
			struct site_document *d = NULL;

			c->is_void = c->is_void || site_open(c->envelope.data, c->envelope.size,
							     h->root, &d, &why) != 0;
			site_free(d);
		}
	for (struct history_policy *p = h->policies; p != NULL; p = p->hh.next)
		if (p->document != NULL && !policy_holds(h, p)) {
			policy_free(p->document);
			p->document = NULL;
		}
	if (h->revocations != NULL &&
	    revocations_open(h->revocations_envelope.data, h->revocations_envelope.size, h->root,
			     &r, &why) != 0) {
		revocations_free(h->revocations);
		h->revocations = NULL;
	}
	revocations_free(r);
}

/* A root says who may follow it, not whom it follows: anybody can make one, let it be followed by
 * the auditor's own, and add the signatures that this needs. So one that comes before the auditor's
 * is believed if the keys of its successor have signed it, too. */
static int check_earlier_root(struct history *h, const struct root_document *next,
			      struct error *err)
{
	const struct history_envelope *before = &h->earlier_root;
	struct dsse_envelope *envelope = NULL;
	struct error why;
	int rc;

	if (before->data == NULL)
		return 0;
	rc = dsse_parse(before->data, before->size, &envelope, err);
	if (rc == 0 && dsse_verify_role(envelope, next, "root", &why) != 0)
		rc = error_set(
		    err, -E_BAD_SIGNATURE,
		    "it is version %llu, and its keys have not signed version %llu, which "
		    "the ledger has before it: give that one, if you trust it",
		    (unsigned long long)root_version(next),
		    (unsigned long long)root_version(newest_root(h)));
	dsse_free(envelope);
	return rc;
}

/* Whether it leads to the auditor's root, or follows that. */
static int link_root(struct history *h, const ProtobufCBinaryData *e,
		     const struct root_document *root, struct error *err)
{
	int rc = h->linked ? 0 : check_earlier_root(h, root, err);

	if (rc != 0)
		return rc;
	h->linked = h->linked || memcmp(root_digest(root), root_digest(h->trusted), 32) == 0;
	if (!h->linked && !keep_envelope(&h->earlier_root, e->data, e->len))
		rc = error_set(err, -ENOMEM, "no memory for it");
	return rc;
}

/* Each follows from the one before, whenever it came. */
static int open_root(struct history *h, uint64_t seq, const ProtobufCBinaryData *e,
		     struct root_document **ret, struct error *err)
{
	const struct root_document *old = newest_root(h);
	struct root_document *root = NULL;
	int rc;

	/* The first one: the auditor's, a later one than that, or an earlier one whose successors
	 * must lead to it. */
	if (old == NULL) {
		rc = root_open(e->data, e->len, h->trusted, &root, err);
		h->linked = rc == 0;
		if (rc != 0)
			rc = root_open(e->data, e->len, NULL, &root, err);
		if (rc == 0 && memcmp(root_cluster(root)->bytes, root_cluster(h->trusted)->bytes,
				      sizeof(struct uuid)) != 0)
			rc = error_set(err, -E_WRONG_CLUSTER,
				       "the ledger is of another cluster than the trust root");
	} else {
		rc = root_open(e->data, e->len, old, &root, err);
	}
	if (rc == 0)
		rc = link_root(h, e, root, err);
	if (rc != 0) {
		root_free(root);
		return error_wrap(err, "record %llu: the trust root in it",
				  (unsigned long long)seq);
	}
	*ret = root;
	return 0;
}

static int take_root(struct history *h, uint64_t seq, const ProtobufCBinaryData *e,
		     struct error *err)
{
	struct root_document *root;
	int rc = open_root(h, seq, e, &root, err);

	if (rc != 0)
		return rc;
	root_free(h->root);
	h->root = root;
	verify_again(h);
	return 0;
}

static void add_site(struct history *h, struct site_document *d, const void *e, size_t size)
{
	struct history_certificate *larger, *c;
	struct history_site *s;

	HASH_FIND_STR(h->sites, site_name(d), s);
	if (s == NULL) {
		s = calloc(1, sizeof *s);
		if (s == NULL)
			goto no_memory;
		take_name(s->name, site_name(d));
		s->told_from = INT64_MIN;
		HASH_ADD_STR(h->sites, name, s);
	}
	larger = realloc(s->versions, (s->version_count + 1) * sizeof *larger);
	if (larger == NULL)
		goto no_memory;
	s->versions = larger;
	c = &s->versions[s->version_count];
	*c = (struct history_certificate){.document = d};
	if (!keep_envelope(&c->envelope, e, size))
		goto no_memory;
	s->version_count++;
	return;
no_memory:
	h->failed = true;
	site_free(d);
}

/* The entry of that name, made when there is none. NULL: no memory. */
static struct history_policy *policy_entry(struct history *h, const char *name)
{
	struct history_policy *p;

	HASH_FIND_STR(h->policies, name, p);
	if (p != NULL)
		return p;
	p = calloc(1, sizeof *p);
	if (p == NULL)
		return NULL;
	take_name(p->name, name);
	HASH_ADD_STR(h->policies, name, p);
	return p;
}

/* Takes d. e NULL: a preset. */
static void add_policy(struct history *h, struct policy_document *d, const void *e, size_t size,
		       bool by_operator)
{
	struct history_policy *p = policy_entry(h, policy_name(d));

	if (p == NULL) {
		h->failed = true;
		policy_free(d);
		return;
	}
	if (by_operator && !p->by_operator) {
		free(p->base.data);
		p->base = p->envelope;
		p->envelope = (struct history_envelope){0};
	} else if (!by_operator) {
		free(p->base.data);
		p->base = (struct history_envelope){0};
	}
	p->by_operator = by_operator;
	if (e != NULL && !keep_envelope(&p->envelope, e, size))
		h->failed = true;
	policy_free(p->document);
	p->document = d;
}

/* One that the operator signed counts if it tightens the one before it. */
static void take_policy(struct history *h, const void *e, size_t size, struct error *why)
{
	struct policy_document *d = NULL;
	struct error other;
	bool by_operator = false;

	if (policy_open(e, size, h->root, &d, why) != 0) {
		if (why->code != -E_BAD_SIGNATURE ||
		    policy_open_by_operator(e, size, h->root, &d, &other) != 0)
			return;
		why->code = 0;
		by_operator = true;
		if (policy_check_tightening(history_policy(h, policy_name(d)), d, why) != 0) {
			policy_free(d);
			return;
		}
	}
	add_policy(h, d, e, size, by_operator);
}

static void take_revocations(struct history *h, const void *e, size_t size, struct error *why)
{
	struct revocations_document *d = NULL;

	if (revocations_open(e, size, h->root, &d, why) != 0)
		return;
	if (!keep_envelope(&h->revocations_envelope, e, size))
		h->failed = true;
	revocations_free(h->revocations);
	h->revocations = d;
}

static int take_document(struct history *h, uint64_t seq, int64_t at,
			 const Pave__V1__LedgerDocument *d, struct error *err)
{
	const void *e = d->envelope.data;
	size_t size = d->envelope.len;
	struct policy_document *policy;
	struct site_document *site;
	struct error why = {0};

	if (strcmp(d->kind, "root") == 0)
		return take_root(h, seq, &d->envelope, err);
	if (strcmp(d->kind, "preset") == 0) {
		struct history_policy *p;

		/* Nobody signs those that ship with the product, and the next version of it may
		 * bring others; a policy of the same name that was signed stays in force, or void.
		 */
		HASH_FIND_STR(h->policies, d->name, p);
		if ((p == NULL || (p->envelope.data == NULL && p->document != NULL)) &&
		    policy_parse(e, size, &policy, &why) == 0)
			add_policy(h, policy, NULL, 0, false);
		return 0;
	}
	if (strcmp(d->kind, "site") == 0) {
		if (site_open(e, size, h->root, &site, &why) == 0)
			add_site(h, site, e, size);
	} else if (strcmp(d->kind, "policy") == 0) {
		take_policy(h, e, size, &why);
	} else if (strcmp(d->kind, "revocations") == 0) {
		take_revocations(h, e, size, &why);
		if (why.code == 0)
			history_judge_late(h, seq, at);
	} else {
		error_set(&why, -E_BAD_DOCUMENT, "no such kind of document");
	}
	if (why.code != 0)
		history_finding(h, seq, false, "document %.20s %.64s: %.250s", d->kind, d->name,
				why.text);
	return 0;
}

static void take_node(struct history *h, uint64_t seq, int64_t at, const Pave__V1__LedgerNode *m)
{
	struct history_node *n = history_find_node(h, m->node);
	const struct site_document *site = history_site_version(h, m->site, 0);
	struct error why = {0};

	if (n == NULL) {
		n = calloc(1, sizeof *n);
		if (n == NULL || !take_name(n->name, m->node) || !take_name(n->site, m->site)) {
			free(n);
			history_finding(h, seq, false, "a node without a sane name");
			return;
		}
		HASH_ADD_STR(h->nodes, name, n);
	} else if (strcmp(n->site, m->site) != 0) {
		history_finding(h, seq, false,
				"node %s moves from site %s to %.63s: a node stays "
				"in its site",
				n->name, n->site, m->site);
		return;
	}
	public_key_free(n->key);
	n->key = NULL;
	if (m->certificate.len == 0) {
		history_finding(h, seq, true, "node %s has no identity: its receipts prove nothing",
				n->name);
		return;
	}
	if (site == NULL)
		error_set(&why, -ENOENT, "the certificate of its site is not in the ledger");
	else
		identity_verify(m->certificate.data, m->certificate.len, m->ca.data, m->ca.len,
				site, m->node, at, &n->key, &why);
	if (why.code != 0)
		history_finding(h, seq, false, "node %s: its identity is not proved: %.250s",
				n->name, why.text);
}

/* -- volumes and maps ------------------------------------------------------------------------- */

static void take_volume(struct history *h, uint64_t seq, int64_t at,
			const Pave__V1__LedgerVolume *m)
{
	struct history_volume *v = find_volume(h, m->volume);

	if (v == NULL) {
		v = calloc(1, sizeof *v);
		if (v == NULL) {
			h->failed = true;
			return;
		}
		v->id = m->volume;
		v->created_at = at;
		HASH_ADD(hh, h->volumes, id, sizeof v->id, v);
	}
	if (!take_name(v->name, m->name) || !take_name(v->policy, m->policy))
		history_finding(h, seq, false, "a volume without a sane name or policy");
	/* The map has rows of that many. */
	if (v->map != NULL && m->replicas != v->replicas)
		history_finding(h, seq, false,
				"volume %s has %u copies of each chunk, and its map is of %u",
				v->name, m->replicas, v->replicas);
	else
		v->replicas = m->replicas;
	v->size = m->size;
	v->chunk_size = m->chunk_size;
	v->min_acks = m->min_acks;
}

static bool map_is_sane(const struct history_volume *v, const Pave__V1__LedgerMap *m)
{
	if (v == NULL || v->replicas == 0 || m->n_nodes == 0 || m->n_nodes > 255 ||
	    m->map.len % v->replicas != 0)
		return false;
	for (size_t i = 0; i < m->map.len; i++)
		if (m->map.data[i] >= m->n_nodes)
			return false;
	for (size_t i = 0; i < m->n_nodes; i++)
		if (strlen(m->nodes[i]) >= NAME_SIZE_MAX)
			return false;
	return true;
}

static void add_leftover(struct history *h, struct history_volume *v, const char *node,
			 chunk_no_t chunk, int64_t at)
{
	struct history_leftover *l = calloc(1, sizeof *l);

	if (l == NULL || !take_name(l->node, node)) {
		free(l);
		h->failed = true;
		return;
	}
	l->chunk = chunk;
	l->since = at;
	l->next = v->leftovers;
	v->leftovers = l;
}

/* The volume became smaller: what lay beyond its end is there until it is erased. */
static void leave_beyond(struct history *h, struct history_volume *v, uint32_t chunk_count,
			 int64_t at)
{
	for (chunk_no_t c = chunk_count; c < v->chunk_count; c++)
		for (uint32_t i = 0; i < v->replicas; i++)
			add_leftover(h, v, v->nodes[v->map[(size_t)c * v->replicas + i]], c, at);
}

static void take_map(struct history *h, uint64_t seq, int64_t at, const Pave__V1__LedgerMap *m)
{
	struct history_volume *v = find_volume(h, m->volume);

	if (!map_is_sane(v, m) || m->map_version <= v->map_version) {
		history_finding(h, seq, false,
				"the map of volume #%llu contradicts itself, or is "
				"older than the one before",
				(unsigned long long)m->volume);
		return;
	}
	leave_beyond(h, v, (uint32_t)(m->map.len / v->replicas), at);
	free(v->nodes);
	free(v->map);
	v->nodes = calloc(m->n_nodes, sizeof *v->nodes);
	v->map = malloc(MAX(m->map.len, 1));
	if (v->nodes == NULL || v->map == NULL) {
		h->failed = true;
		v->node_count = v->chunk_count = 0;
		return;
	}
	for (size_t i = 0; i < m->n_nodes; i++)
		take_name(v->nodes[i], m->nodes[i]);
	v->node_count = (uint32_t)m->n_nodes;
	if (m->map.len > 0)
		memcpy(v->map, m->map.data, m->map.len);
	v->chunk_count = (uint32_t)(m->map.len / v->replicas);
	v->map_version = m->map_version;
}

static uint32_t map_node(struct history *h, struct history_volume *v, const char *name)
{
	char(*larger)[NAME_SIZE_MAX];

	for (uint32_t i = 0; i < v->node_count; i++)
		if (strcmp(v->nodes[i], name) == 0)
			return i;
	larger = v->node_count < 255 && strlen(name) < NAME_SIZE_MAX
		     ? realloc(v->nodes, (v->node_count + 1) * sizeof *v->nodes)
		     : NULL;
	if (larger == NULL) {
		h->failed = true;
		return UINT32_MAX;
	}
	v->nodes = larger;
	take_name(v->nodes[v->node_count], name);
	return v->node_count++;
}

static void take_move(struct history *h, uint64_t seq, int64_t at, const Pave__V1__LedgerMove *m)
{
	struct history_volume *v = find_volume(h, m->volume);
	uint32_t from, to;

	if (v == NULL || v->map == NULL || m->chunk >= v->chunk_count ||
	    m->map_version < v->map_version) {
		history_finding(h, seq, false, "a move in volume #%llu fits no map",
				(unsigned long long)m->volume);
		return;
	}
	from = map_node(h, v, m->from);
	to = map_node(h, v, m->to);
	if (from == UINT32_MAX || to == UINT32_MAX)
		return;
	for (uint32_t i = 0; i < v->replicas; i++) {
		uint8_t *place = &v->map[(size_t)m->chunk * v->replicas + i];

		if (*place != from)
			continue;
		*place = (uint8_t)to;
		v->map_version = m->map_version;
		add_leftover(h, v, m->from, m->chunk, at);
		return;
	}
	history_finding(h, seq, false,
			"chunk %u of volume %s moves from %.63s, which does not "
			"hold it",
			m->chunk, v->name, m->from);
}

static void end_volume(struct history *h, uint64_t seq, int64_t at, uint64_t id)
{
	struct history_volume *v = find_volume(h, id);

	if (v == NULL || v->ended_at != 0) {
		history_finding(h, seq, false, "volume #%llu ends, and is not there",
				(unsigned long long)id);
		return;
	}
	v->ended_at = at;
	for (uint32_t i = 0; i < v->node_count; i++)
		add_leftover(h, v, v->nodes[i], UINT32_MAX, at);
}

static bool erased(const Pave__V1__LedgerErasure *m, const struct history_leftover *l)
{
	if (strcmp(m->node, l->node) != 0)
		return false;
	if (m->whole_volume)
		return true;
	for (size_t i = 0; i < m->n_chunks; i++)
		if (m->chunks[i] == l->chunk)
			return true;
	return false;
}

static void note_erasure(struct history *h, struct history_volume *v,
			 const Pave__V1__LedgerErasure *m)
{
	const int strictness = policy_erase_strictness(m->method);
	struct history_erasure *e = calloc(1, sizeof *e);
	struct history_erasure **last = &v->erasures;

	if (e == NULL) {
		h->failed = true;
		return;
	}
	h->erasures_by[MAX(strictness, 0)]++;
	h->erased_bytes += m->bytes;
	h->erasure_longest_ms = MAX(h->erasure_longest_ms, m->took_ms);
	snprintf(e->node, sizeof e->node, "%s", m->node);
	snprintf(e->method, sizeof e->method, "%s", strictness > 0 ? m->method : "drop");
	e->whole = m->whole_volume;
	e->is_signed = m->report != NULL;
	e->chunk_count = (uint32_t)m->n_chunks;
	e->segments = m->segments;
	e->bytes = m->bytes;
	e->took_ms = m->took_ms;
	e->done_at = m->done_at;
	while (*last != NULL)
		last = &(*last)->next;
	*last = e;
}

static void take_erasure(struct history *h, uint64_t seq, const Pave__V1__LedgerErasure *m)
{
	struct history_volume *v = find_volume(h, m->volume);
	struct history_leftover **p = v != NULL ? &v->leftovers : NULL;

	h->erasures++;
	if (!history_judge_erasure(h, seq, m))
		return; /* what is not proved is not gone */
	if (v != NULL)
		note_erasure(h, v, m);
	while (p != NULL && *p != NULL) {
		struct history_leftover *l = *p;

		if (erased(m, l)) {
			*p = l->next;
			free(l);
		} else {
			p = &l->next;
		}
	}
}

/* -- the replay ------------------------------------------------------------------------------- */

/* A driver that starts knows of no lease that another gave. */
static int take_start(struct history *h, uint64_t seq, int64_t at, const Pave__V1__LedgerStart *m,
		      struct error *err)
{
	for (struct history_node *n = h->nodes; n != NULL; n = n->hh.next) {
		if (n->leased)
			n->lease_until = at + (int64_t)PERMIT_LIFETIME_MAX_MS * (int64_t)NS_PER_MS;
		n->leased = false;
	}
	if (h->root != NULL && m->root.len == 0)
		return 0;
	return take_root(h, seq, &m->root, err);
}

static int take_record(struct history *h, const Pave__V1__LedgerRecord *r, struct error *err)
{
	switch (r->body_case) {
	case PAVE__V1__LEDGER_RECORD__BODY_START:
		history_judge_evidence(h, r->at);
		return take_start(h, r->seq, r->at, r->start, err);
	case PAVE__V1__LEDGER_RECORD__BODY_DOCUMENT:
		history_judge_evidence(h, r->at);
		return take_document(h, r->seq, r->at, r->document, err);
	case PAVE__V1__LEDGER_RECORD__BODY_NODE:
		take_node(h, r->seq, r->at, r->node);
		break;
	case PAVE__V1__LEDGER_RECORD__BODY_VOLUME:
		take_volume(h, r->seq, r->at, r->volume);
		break;
	case PAVE__V1__LEDGER_RECORD__BODY_MAP:
		take_map(h, r->seq, r->at, r->map);
		break;
	case PAVE__V1__LEDGER_RECORD__BODY_MOVE:
		take_move(h, r->seq, r->at, r->move);
		break;
	case PAVE__V1__LEDGER_RECORD__BODY_VOLUME_END:
		end_volume(h, r->seq, r->at, r->volume_end->volume);
		break;
	case PAVE__V1__LEDGER_RECORD__BODY_PERMIT:
		history_judge_permit(h, r->seq, r->permit->permit);
		break;
	case PAVE__V1__LEDGER_RECORD__BODY_PERMIT_END:
		history_judge_permit_end(h, r->seq, r->permit_end);
		break;
	case PAVE__V1__LEDGER_RECORD__BODY_LEASE:
		history_judge_lease(h, r->seq, r->lease->lease);
		break;
	case PAVE__V1__LEDGER_RECORD__BODY_LEASE_END:
		history_judge_lease_end(h, r->seq, r->lease_end);
		break;
	case PAVE__V1__LEDGER_RECORD__BODY_DENIAL:
		h->denials++;
		break;
	case PAVE__V1__LEDGER_RECORD__BODY_ERASURE:
		take_erasure(h, r->seq, r->erasure);
		break;
	case PAVE__V1__LEDGER_RECORD__BODY_RECEIPT:
		history_judge_receipt(h, r->seq, r->receipt->receipt);
		break;
	case PAVE__V1__LEDGER_RECORD__BODY_TAINT:
		history_judge_taint(h, r->seq, r->taint);
		break;
	default:
		history_finding(h, r->seq, true,
				"a record of a kind that this version does not know");
		break;
	}
	return 0;
}

/* Of what came after the moment asked for only the roots count: by them the head is signed, and one
 * of them may be the auditor's. */
static int follow_root(struct history *h, const Pave__V1__LedgerRecord *r, struct error *err)
{
	const ProtobufCBinaryData *e = NULL;
	struct root_document *root;
	int rc;

	if (r->body_case == PAVE__V1__LEDGER_RECORD__BODY_START)
		e = &r->start->root;
	else if (r->body_case == PAVE__V1__LEDGER_RECORD__BODY_DOCUMENT &&
		 strcmp(r->document->kind, "root") == 0)
		e = &r->document->envelope;
	if (e == NULL || (e->len == 0 && newest_root(h) != NULL))
		return 0;
	rc = open_root(h, r->seq, e, &root, err);
	if (rc != 0)
		return rc;
	root_free(h->last_root);
	h->last_root = root;
	return 0;
}

static int keep_hash(struct history *h)
{
	if (h->tip.seq > h->hash_room) {
		size_t room = MAX(2 * h->hash_room, 1024);
		uint8_t(*larger)[LEDGER_HASH_SIZE] = realloc(h->hashes, room * sizeof *h->hashes);

		if (larger == NULL)
			return -ENOMEM;
		h->hashes = larger;
		h->hash_room = room;
	}
	memcpy(h->hashes[h->tip.seq - 1], h->tip.hash, LEDGER_HASH_SIZE);
	return 0;
}

static int feed_record(struct history *h, const struct ledger_item *item,
		       const struct history_options *options, struct error *err)
{
	Pave__V1__LedgerRecord *r;
	int rc = ledger_follow(&h->tip, item->bytes, item->size, &r, err);

	if (rc != 0)
		return rc;
	if (r->seq == 1) {
		h->first_at = r->at;
		if (r->body_case != PAVE__V1__LEDGER_RECORD__BODY_START)
			rc = error_set(err, -E_BAD_DOCUMENT,
				       "record 1 was changed: it does not begin a ledger");
	}
	if (rc == 0 && keep_hash(h) != 0)
		rc = error_set(err, -ENOMEM, "no memory for the ledger");
	if (rc == 0 && r->at > options->until) {
		rc = follow_root(h, r, err);
	} else if (rc == 0) {
		rc = take_record(h, r, err);
		if (rc == 0 && options->each != NULL)
			options->each(h, r, options->arg);
	}
	pave__v1__ledger_record__free_unpacked(r, NULL);
	return rc;
}

static int feed_head(struct history *h, const struct ledger_item *item, struct error *err)
{
	Pave__V1__Signed *s = pave__v1__signed__unpack(NULL, item->size, item->bytes);
	struct ledger_tip head;
	int rc;

	if (s == NULL)
		return error_set(err, -E_BAD_DOCUMENT,
				 "the signed head after record %llu cannot "
				 "be read",
				 (unsigned long long)h->tip.seq);
	if (newest_root(h) == NULL) {
		rc = error_set(err, -E_BAD_DOCUMENT, "the file has no record before its head");
		goto out;
	}
	rc = ledger_head_open(s, newest_root(h), &head, err);
	if (rc != 0)
		goto out;
	if (head.seq == 0 || head.seq > h->tip.seq)
		rc = error_set(err, -E_BAD_DOCUMENT,
			       "the signed head is of record %llu, and the file ends with record "
			       "%llu: the records after that were cut off",
			       (unsigned long long)head.seq, (unsigned long long)h->tip.seq);
	else if (memcmp(head.hash, h->hashes[head.seq - 1], LEDGER_HASH_SIZE) != 0)
		rc = error_set(err, -E_BAD_DOCUMENT,
			       "record %llu is not the one whose hash was signed: the ledger was "
			       "written anew up to there",
			       (unsigned long long)head.seq);
	else if (head.seq >= h->head.seq)
		h->head = head;
out:
	pave__v1__signed__free_unpacked(s, NULL);
	return rc;
}

/* The whole was read: what can be told only now. */
static int conclude(struct history *h, const struct history_options *options, struct error *err)
{
	char first[40], until[40];

	if (h->failed)
		return error_set(err, -ENOMEM, "no memory for the ledger");
	if (h->tip.seq == 0)
		return error_set(err, -E_BAD_DOCUMENT, "the ledger is empty");
	history_judge_taints(h);
	if (!h->linked)
		return error_set(err, -E_BAD_SIGNATURE,
				 "the trust root that was given (version %llu) is none of those "
				 "that this ledger was written under, nor signed on from them",
				 (unsigned long long)root_version(h->trusted));
	if (h->head.seq != h->tip.seq)
		return error_set(err, -E_BAD_DOCUMENT,
				 "the records after %llu, up to %llu, are under no signed head: "
				 "the end of the file was cut off or added",
				 (unsigned long long)h->head.seq, (unsigned long long)h->tip.seq);
	if (h->root == NULL)
		return error_set(err, -ENOENT,
				 "it tells of nothing up to %s: it begins at %s, ask for a later "
				 "time",
				 text_time(options->until, until, sizeof until),
				 text_time(h->first_at, first, sizeof first));
	return 0;
}

int history_replay(const void *file, size_t size, const void *root, size_t root_size,
		   const struct history_options *options, struct history **ret, struct error *err)
{
	struct history *h = calloc(1, sizeof *h);
	struct root_document *trusted = NULL;
	struct ledger_item item;
	size_t offset = 0;
	int rc;

	if (h == NULL)
		return error_set(err, -ENOMEM, "no memory for the ledger");
	rc = root_open(root, root_size, NULL, &trusted, err);
	if (rc != 0)
		error_wrap(err, "the trust root");
	h->trusted = trusted;
	while (rc == 0) {
		rc = ledger_item_next(file, size, &offset, &item, err);
		if (rc != 0 && rc != -ENOENT && h->tip.seq > 0)
			error_wrap(err, "after record %llu", (unsigned long long)h->tip.seq);
		if (rc != 0)
			break;
		rc = item.kind == LEDGER_ITEM_RECORD ? feed_record(h, &item, options, err)
						     : feed_head(h, &item, err);
	}
	if (rc == -ENOENT)
		rc = conclude(h, options, err);
	h->trusted = NULL;
	root_free(trusted);
	if (rc != 0) {
		history_free(h);
		return rc;
	}
	*ret = h;
	return 0;
}

/* -- the end ---------------------------------------------------------------------------------- */

static void volume_free(struct history_volume *v)
{
	for (struct history_erasure *e = v->erasures, *next; e != NULL; e = next) {
		next = e->next;
		free(e);
	}
	for (struct history_leftover *l = v->leftovers, *next; l != NULL; l = next) {
		next = l->next;
		free(l);
	}
	for (uint32_t i = 0; i < v->permit_count; i++)
		pave__v1__permit__free_unpacked(v->permits[i].first, NULL);
	free(v->permits);
	free(v->nodes);
	free(v->map);
	free(v);
}

void history_free(struct history *h)
{
	struct history_site *s, *next_s;
	struct history_policy *p, *next_p;
	struct history_node *n, *next_n;
	struct history_volume *v, *next_v;
	struct history_claim *c, *next_c;

	if (h == NULL)
		return;
	HASH_ITER (hh, h->sites, s, next_s) {
		HASH_DEL(h->sites, s);
		for (uint32_t i = 0; i < s->version_count; i++) {
			site_free(s->versions[i].document);
			free(s->versions[i].envelope.data);
		}
		free(s->versions);
		free(s);
	}
	HASH_ITER (hh, h->policies, p, next_p) {
		HASH_DEL(h->policies, p);
		policy_free(p->document);
		free(p->envelope.data);
		free(p->base.data);
		free(p);
	}
	HASH_ITER (hh, h->nodes, n, next_n) {
		HASH_DEL(h->nodes, n);
		public_key_free(n->key);
		free(n);
	}
	HASH_ITER (hh, h->volumes, v, next_v) {
		HASH_DEL(h->volumes, v);
		volume_free(v);
	}
	HASH_ITER (hh, h->claims, c, next_c) {
		HASH_DEL(h->claims, c);
		free(c->gaps);
		free(c);
	}
	for (uint32_t i = 0; i < h->receipt_count; i++)
		pave__v1__receipt__free_unpacked(h->receipts[i].body, NULL);
	free(h->receipts);
	free(h->taints);
	free(h->findings);
	free(h->hashes);
	revocations_free(h->revocations);
	free(h->revocations_envelope.data);
	free(h->earlier_root.data);
	root_free(h->root);
	root_free(h->last_root);
	free(h);
}
