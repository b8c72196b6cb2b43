/* judge: permits, leases, receipts and taints of a ledger against the evidence that stands in it
 * (history.h). Each function says what it takes for a contradiction.
 *
 * Of permits and leases that are alike only the first is written, and the end of all. What came in
 * between is judged by how long the last of them lasted: whatever is given on evidence ends with
 * it, or within the longest lifetime after that evidence was replaced. So each claim (history.h)
 * keeps the latest moment that earlier evidence allows, and the gaps before it, in which none
 * allowed anything: a withdrawal that is lifted later excuses nothing that was given in between.
 * The evidence in force says the rest, of the time since it came.
 *
 * Receipts are placed by the serials and times of the permits that they name: a receipt that no
 * permit of the ledger covers is a finding, for then somebody took in bytes without one; so is one
 * of a time at which no permit could name the node any more. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/text.h"
#include "engine/evidence/evaluate.h"
#include "engine/ledger/history.h"

static struct history_volume *volume_of(const struct history *h, uint64_t id)
{
	struct history_volume *v;

	HASH_FIND(hh, h->volumes, &id, sizeof id, v);
	return v;
}

/* -- claims ----------------------------------------------------------------------------------- */

#define LIFETIME_MAX_NS ((int64_t)(PERMIT_LIFETIME_MAX_MS * NS_PER_MS))

/* Times in a file are whatever somebody wrote there. */
static int64_t shifted(int64_t at, int64_t by)
{
	int64_t sum;

	if (__builtin_add_overflow(at, by, &sum))
		return by > 0 ? INT64_MAX : INT64_MIN;
	return sum;
}

/* Of a lease, without a policy. */
static struct history_claim_key lease_key(const char *site, uint64_t version)
{
	struct history_claim_key k;

	memset(&k, 0, sizeof k);
	snprintf(k.site, sizeof k.site, "%.63s", site);
	k.version = version;
	return k;
}

static struct history_claim_key permit_key(const struct history_volume *v,
					   const Pave__V1__Permit *p, const char *site,
					   uint64_t version)
{
	struct history_claim_key k = lease_key(site, version);

	snprintf(k.policy, sizeof k.policy, "%s", v->policy);
	if (p->policy_digest.len == sizeof k.digest)
		memcpy(k.digest, p->policy_digest.data, sizeof k.digest);
	return k;
}

static void note_claim(struct history *h, const struct history_claim_key *key, int64_t at)
{
	struct history_claim *c;

	HASH_FIND(hh, h->claims, key, sizeof *key, c);
	if (c == NULL) {
		c = calloc(1, sizeof *c);
		if (c == NULL) {
			h->failed = true;
			return;
		}
		c->key = *key;
		c->past = INT64_MIN;
		HASH_ADD(hh, h->claims, key, sizeof c->key, c);
	}
	c->noted_at = at;
}

/* Until when a permit or lease that is given then, on the evidence in force, may last; INT64_MIN:
 * none may be given. */
static int64_t claim_until(const struct history *h, const struct history_claim *c, int64_t at)
{
	const struct site_document *site = history_site_in_force(h, c->key.site, c->key.version);
	const struct policy_document *policy = history_policy(h, c->key.policy);
	struct verdict verdict;

	if (c->key.policy[0] == '\0')
		evaluate_site(site, h->revocations, at, &verdict);
	else if (policy == NULL || memcmp(policy_digest(policy), c->key.digest, 32) != 0)
		return INT64_MIN;
	else
		evaluate(site, h->revocations, policy, at, &verdict);
	evaluate_root(h->root, at, &verdict);
	return verdict.eligible ? verdict.until : INT64_MIN;
}

static void note_gap(struct history *h, struct history_claim *c)
{
	struct history_gap *larger;

	if (c->past == INT64_MIN || c->past >= h->evidence_at)
		return;
	larger = realloc(c->gaps, (c->gap_count + 1) * sizeof *larger);
	if (larger == NULL) {
		h->failed = true;
		return;
	}
	c->gaps = larger;
	larger[c->gap_count++] = (struct history_gap){c->past, h->evidence_at};
}

/* What it does not allow any more it may have allowed until a moment since it came. */
void history_judge_evidence(struct history *h, int64_t at)
{
	for (struct history_claim *c = h->claims; c != NULL; c = c->hh.next) {
		int64_t until = claim_until(h, c, at);

		if (until == INT64_MIN)
			until = claim_until(h, c, MIN(MAX(h->evidence_at, c->noted_at), at));
		if (until == INT64_MIN)
			continue;
		note_gap(h, c);
		c->past = MAX(c->past, MIN(until, shifted(at, LIFETIME_MAX_NS)));
	}
	h->evidence_at = at;
}

/* Whether something that rests on the claim may have lasted until then, or until up to slack later:
 * so far the clock may be wrong that says so. */
static bool claim_allows(const struct history *h, const struct history_claim_key *key, int64_t end,
			 int64_t slack)
{
	const int64_t latest = shifted(end, slack);
	const struct history_claim *c;

	HASH_FIND(hh, h->claims, key, sizeof *key, c);
	if (c == NULL)
		return true;
	for (uint32_t i = 0; i < c->gap_count; i++)
		if (end > c->gaps[i].from && latest < c->gaps[i].to)
			return false;
	if (end <= c->past)
		return true;
	return (c->past == INT64_MIN || latest >= h->evidence_at) &&
	       claim_until(h, c, MAX(end - 1, h->evidence_at)) >= end;
}

/* -- permits ---------------------------------------------------------------------------------- */

static void judge_node(struct history *h, uint64_t seq, const struct history_volume *v,
		       const Pave__V1__Permit *p, const Pave__V1__PermitNode *pn)
{
	const struct policy_document *policy = history_policy(h, v->policy);
	const struct site_document *site = history_site_in_force(h, pn->site, pn->site_version);
	const struct history_node *n = history_find_node(h, pn->node);
	struct verdict verdict;

	if (n == NULL || strcmp(n->site, pn->site) != 0) {
		history_finding(h, seq, false,
				"permit %llu of volume %s names node %.63s in site %.63s, where "
				"no such node is",
				(unsigned long long)p->serial, v->name, pn->node, pn->site);
		return;
	}
	if (policy == NULL)
		return; /* judge_holder has said so */
	evaluate(site, h->revocations, policy, p->issued_at, &verdict);
	evaluate_root(h->root, p->issued_at, &verdict);
	if (!verdict.eligible)
		history_finding(h, seq, false,
				"permit %llu of volume %s names node %s, whose site %s was not "
				"eligible: %s: %s is %.60s, the bound is %.60s",
				(unsigned long long)p->serial, v->name, n->name, n->site,
				verdict.failed[0].rule, verdict.failed[0].field,
				verdict.failed[0].value, verdict.failed[0].bound);
	else if (p->expires_at > verdict.until)
		history_finding(h, seq, false,
				"permit %llu of volume %s outlives the evidence of site %s",
				(unsigned long long)p->serial, v->name, n->site);
}

static void judge_holder(struct history *h, uint64_t seq, const struct history_volume *v,
			 const Pave__V1__Permit *p)
{
	const struct policy_document *policy = history_policy(h, v->policy);
	struct verdict verdict;

	if (policy == NULL || p->policy_digest.len != 32 ||
	    memcmp(p->policy_digest.data, policy_digest(policy), 32) != 0) {
		history_finding(h, seq, false,
				"permit %llu of volume %s was given under another policy than %s "
				"as it was in force",
				(unsigned long long)p->serial, v->name, v->policy);
		return;
	}
	if (!policy_host_must_be_eligible(policy))
		return;
	evaluate(history_site_in_force(h, p->holder_site, 0), h->revocations, policy, p->issued_at,
		 &verdict);
	evaluate_root(h->root, p->issued_at, &verdict);
	if (!verdict.eligible)
		history_finding(h, seq, false,
				"permit %llu of volume %s went to host %.63s in site %.63s, which "
				"was not eligible",
				(unsigned long long)p->serial, v->name, p->holder, p->holder_site);
	else if (p->expires_at > verdict.until)
		history_finding(h, seq, false,
				"permit %llu of volume %s outlives the evidence of site %.63s, in "
				"which its host is",
				(unsigned long long)p->serial, v->name, p->holder_site);
}

/* I4: while an older generation may hold a permit, a newer one serves nothing. */
static void judge_order(struct history *h, uint64_t seq, const struct history_volume *v,
			const Pave__V1__Permit *p)
{
	for (uint32_t i = 0; i < v->permit_count; i++) {
		const struct history_permit *o = &v->permits[i];
		int64_t end = o->open ? INT64_MAX : o->expires_at;

		if (o->first->generation > p->generation)
			history_finding(h, seq, false,
					"volume %s: generation %u gets a permit after generation "
					"%u did",
					v->name, p->generation, o->first->generation);
		else if (o->first->generation < p->generation && strcmp(o->why, "released") != 0 &&
			 end > p->issued_at && p->serve_after < end)
			history_finding(h, seq, false,
					"volume %s: generation %u may serve while generation %u "
					"holds a permit",
					v->name, p->generation, o->first->generation);
	}
}

static void note_claims(struct history *h, const struct history_volume *v,
			const Pave__V1__Permit *p)
{
	struct history_claim_key key;

	for (size_t i = 0; i < p->n_nodes; i++) {
		key = permit_key(v, p, p->nodes[i]->site, p->nodes[i]->site_version);
		note_claim(h, &key, p->issued_at);
	}
	if (p->holder_site[0] == '\0')
		return;
	key = permit_key(v, p, p->holder_site, 0);
	note_claim(h, &key, p->issued_at);
}

void history_judge_permit(struct history *h, uint64_t seq, const Pave__V1__Signed *s)
{
	struct history_permit *larger;
	struct history_volume *v;
	struct error why = {0};
	Pave__V1__Permit *p = NULL;

	h->permits++;
	if (signed_verify(s, TYPE_PERMIT, h->root, &why) == 0) {
		p = pave__v1__permit__unpack(NULL, s->payload.len, s->payload.data);
		if (p == NULL)
			error_set(&why, -E_BAD_DOCUMENT, "it is malformed");
	}
	if (p == NULL) {
		history_finding(h, seq, false, "a permit: %.300s", why.text);
		return;
	}
	v = volume_of(h, p->volume);
	if (v == NULL || v->ended_at != 0) {
		history_finding(h, seq, false, "a permit for volume #%llu, which is not there",
				(unsigned long long)p->volume);
		pave__v1__permit__free_unpacked(p, NULL);
		return;
	}
	judge_holder(h, seq, v, p);
	judge_order(h, seq, v, p);
	for (size_t i = 0; i < p->n_nodes; i++)
		judge_node(h, seq, v, p, p->nodes[i]);
	note_claims(h, v, p);
	if (v->permit_count > 0 && v->permits[v->permit_count - 1].open)
		history_finding(h, seq, false,
				"volume %s: a permit unlike the one before, whose "
				"end is not told",
				v->name);
	larger = realloc(v->permits, (v->permit_count + 1) * sizeof *v->permits);
	if (larger == NULL) {
		h->failed = true;
		pave__v1__permit__free_unpacked(p, NULL);
		return;
	}
	v->permits = larger;
	v->permits[v->permit_count++] =
	    (struct history_permit){.first = p, .seq = seq, .open = true};
}

/* A site that no permit like p could name for so long; NULL: each may have been. */
static const char *find_outlived(const struct history *h, const struct history_volume *v,
				 const Pave__V1__Permit *p, int64_t end)
{
	struct history_claim_key key;

	for (size_t i = 0; i < p->n_nodes; i++) {
		key = permit_key(v, p, p->nodes[i]->site, p->nodes[i]->site_version);
		if (!claim_allows(h, &key, end, 0))
			return p->nodes[i]->site;
	}
	key = permit_key(v, p, p->holder_site, 0);
	return p->holder_site[0] == '\0' || claim_allows(h, &key, end, 0) ? NULL : p->holder_site;
}

/* The permits that went on like the first one, which was judged when it came. A driver that comes
 * back has not counted what was given before; and one of an earlier version told in some cases how
 * long the attachment might have had one, which is up to a lifetime more. */
static void judge_span(struct history *h, uint64_t seq, const struct history_volume *v,
		       const struct history_permit *p, const Pave__V1__LedgerPermitEnd *e)
{
	int64_t least = e->expires_at;
	const char *site;
	char until[40];

	if (strcmp(e->why, "restarted") == 0)
		return;
	if (strcmp(e->why, "changed") != 0 && strcmp(e->why, "released") != 0)
		least = MAX(shifted(least, -LIFETIME_MAX_NS), p->first->expires_at);
	site = find_outlived(h, v, p->first, least);
	/* Then it was as told: a host that was away went on after a restoration. */
	if (site != NULL && find_outlived(h, v, p->first, e->expires_at) != NULL)
		history_finding(h, seq, false,
				"volume %s: permits like number %llu of generation %u went on "
				"until %s, and the evidence of site %.63s, which they rest on, had "
				"ended",
				v->name, (unsigned long long)p->first->serial, p->first->generation,
				text_time(e->expires_at, until, sizeof until), site);
}

static void end_span(struct history_permit *p, const Pave__V1__LedgerPermitEnd *e)
{
	/* A span that had ended for another reason ends earlier when it is released. */
	p->expires_at = p->open ? e->expires_at : MIN(p->expires_at, e->expires_at);
	if (p->open)
		p->last_serial = e->last_serial;
	p->open = false;
	strncpy(p->why, e->why, sizeof p->why - 1);
}

void history_judge_permit_end(struct history *h, uint64_t seq, const Pave__V1__LedgerPermitEnd *e)
{
	const bool released = strcmp(e->why, "released") == 0;
	struct history_volume *v = volume_of(h, e->volume);
	bool found = false;

	for (uint32_t i = 0; v != NULL && i < v->permit_count; i++) {
		struct history_permit *p = &v->permits[i];

		if (p->first->generation != e->generation || (!p->open && !released))
			continue;
		if (p->open)
			judge_span(h, seq, v, p, e);
		end_span(p, e);
		found = true;
	}
	/* What a driver that came back ends, or a host lets go of, may never have been given. */
	if (!found && !released && strcmp(e->why, "restarted") != 0)
		history_finding(h, seq, false,
				"the end of a permit of volume #%llu generation %u that was "
				"never given",
				(unsigned long long)e->volume, e->generation);
}

/* -- leases ----------------------------------------------------------------------------------- */

void history_judge_lease(struct history *h, uint64_t seq, const Pave__V1__Signed *s)
{
	struct error why = {0};
	Pave__V1__Lease *l = NULL;
	struct history_node *n;
	struct history_claim_key key;
	struct verdict verdict;

	h->leases++;
	if (signed_verify(s, TYPE_LEASE, h->root, &why) == 0) {
		l = pave__v1__lease__unpack(NULL, s->payload.len, s->payload.data);
		if (l == NULL)
			error_set(&why, -E_BAD_DOCUMENT, "it is malformed");
	}
	if (l == NULL) {
		history_finding(h, seq, false, "a lease: %.300s", why.text);
		return;
	}
	n = history_find_node(h, l->node);
	evaluate_site(history_site_in_force(h, l->site, l->site_version), h->revocations,
		      l->issued_at, &verdict);
	evaluate_root(h->root, l->issued_at, &verdict);
	if (n == NULL || strcmp(n->site, l->site) != 0) {
		history_finding(h, seq, false,
				"a lease for node %.63s in site %.63s, where no such "
				"node is",
				l->node, l->site);
	} else if (!verdict.eligible) {
		history_finding(h, seq, false,
				"a lease for node %s, whose site %s was not in force: %s is %.60s",
				n->name, n->site, verdict.failed[0].field, verdict.failed[0].value);
	} else if (l->expires_at > verdict.until) {
		history_finding(h, seq, false,
				"a lease for node %s outlives the evidence of site %s: %s", n->name,
				n->site, verdict.until_field);
	} else {
		n->leased = true;
		n->lease_from = l->issued_at;
		n->lease_until = l->expires_at;
		n->lease_site_version = l->site_version;
		key = lease_key(l->site, l->site_version);
		note_claim(h, &key, l->issued_at);
	}
	pave__v1__lease__free_unpacked(l, NULL);
}

void history_judge_lease_end(struct history *h, uint64_t seq, const Pave__V1__LedgerLeaseEnd *e)
{
	struct history_node *n = history_find_node(h, e->node);
	struct history_claim_key key;
	char until[40];

	if (n == NULL)
		return;
	key = lease_key(n->site, n->lease_site_version);
	if (n->leased && !claim_allows(h, &key, e->expires_at, 0))
		history_finding(h, seq, false,
				"leases of node %s went on until %s, and the evidence of its site "
				"%s had ended",
				n->name, text_time(e->expires_at, until, sizeof until), n->site);
	n->leased = false;
	n->lease_until = e->expires_at;
}

/* -- receipts --------------------------------------------------------------------------------- */

static bool names(const Pave__V1__Permit *p, const Pave__V1__Receipt *r)
{
	for (size_t i = 0; i < p->n_nodes; i++)
		if (p->generation == r->generation && strcmp(p->nodes[i]->node, r->node) == 0 &&
		    p->nodes[i]->site_version == r->site_version)
			return true;
	return false;
}

/* Whether spans of permits that name the node, one after the other without a gap, cover the
 * receipt: a driver that was started again begins a new span, of which the node knows nothing. */
static bool covered(const struct history_volume *v, const Pave__V1__Receipt *r)
{
	const int64_t slack = (int64_t)CLOCK_BOUND_NS;
	int64_t end = INT64_MIN;

	for (uint32_t i = 0; v != NULL && i < v->permit_count; i++) {
		const struct history_permit *p = &v->permits[i];
		const bool begins = r->first_serial >= p->first->serial &&
				    r->from >= shifted(p->first->issued_at, -slack);
		const bool goes_on = end != INT64_MIN && p->first->issued_at <= end;

		if (!names(p->first, r) || (!begins && !goes_on))
			continue;
		end = p->open ? INT64_MAX : p->expires_at;
		if (r->until <= shifted(end, slack) &&
		    (p->open || r->last_serial <= p->last_serial))
			return true;
	}
	return false;
}

/* Whether a permit that names the node may have lasted until then: what is open has no end yet. */
static bool was_allowed(const struct history *h, const struct history_volume *v,
			const Pave__V1__Receipt *r)
{
	const int64_t until = shifted(r->until, -(int64_t)CLOCK_BOUND_NS);

	for (uint32_t i = 0; i < v->permit_count; i++) {
		const Pave__V1__Permit *p = v->permits[i].first;
		struct history_claim_key key;

		if (!names(p, r))
			continue;
		key = permit_key(v, p, r->site, r->site_version);
		if (claim_allows(h, &key, until, 2 * (int64_t)CLOCK_BOUND_NS))
			return true;
	}
	return false;
}

/* The node saw this head when it signed: a ledger that was written anew since contradicts it. */
static bool head_fits(const struct history *h, const Pave__V1__Receipt *r)
{
	if (r->head_seq == 0)
		return true;
	return r->head_seq <= h->tip.seq && r->head_hash.len == LEDGER_HASH_SIZE &&
	       memcmp(r->head_hash.data, h->hashes[r->head_seq - 1], LEDGER_HASH_SIZE) == 0;
}

/* Numbers rise by one within a run of the node. */
static void judge_number(struct history *h, uint64_t seq, struct history_node *n,
			 const Pave__V1__Receipt *r)
{
	uint64_t last = n->receipt_serial;

	if (r->run < n->receipt_run || (r->run == n->receipt_run && r->serial <= last)) {
		history_finding(h, seq, false, "receipt %llu of node %s comes after number %llu",
				(unsigned long long)r->serial, n->name, (unsigned long long)last);
		return;
	}
	if (r->run != n->receipt_run)
		last = 0;
	if (r->serial > last + 1)
		history_finding(h, seq, true, "receipts %llu to %llu of node %s are missing",
				(unsigned long long)last + 1, (unsigned long long)r->serial - 1,
				n->name);
	n->receipt_run = r->run;
	n->receipt_serial = r->serial;
}

static void judge_receipt(struct history *h, uint64_t seq, struct history_node *n,
			  const Pave__V1__Receipt *r)
{
	const struct history_volume *v = volume_of(h, r->volume);
	char until[40];

	if (strcmp(r->site, n->site) != 0)
		history_finding(h, seq, false, "a receipt of node %s claims site %.63s", n->name,
				r->site);
	judge_number(h, seq, n, r);
	if (!covered(v, r))
		history_finding(h, seq, false,
				"node %s took in %llu writes of volume #%llu under permits %llu to "
				"%llu of generation %u, of which the ledger has none that names "
				"it then",
				n->name, (unsigned long long)r->count,
				(unsigned long long)r->volume, (unsigned long long)r->first_serial,
				(unsigned long long)r->last_serial, r->generation);
	else if (!was_allowed(h, v, r))
		history_finding(h, seq, false,
				"node %s took in writes of volume %s until %s, and the evidence of "
				"its site %s, which its permits rest on, had ended",
				n->name, v->name, text_time(r->until, until, sizeof until),
				n->site);
	if (!head_fits(h, r))
		history_finding(h, seq, false,
				"node %s was told of another record %llu than the one in this "
				"ledger: there were two ledgers, or it was written anew",
				n->name, (unsigned long long)r->head_seq);
}

static bool in_taint(const struct history_taint *t, const Pave__V1__Receipt *r)
{
	return strcmp(t->site, r->site) == 0 && r->until > t->effective_from &&
	       r->from < shifted(t->noticed_at, (int64_t)CLOCK_BOUND_NS);
}

void history_judge_receipt(struct history *h, uint64_t seq, const Pave__V1__Signed *s)
{
	Pave__V1__Receipt *r =
	    s != NULL ? pave__v1__receipt__unpack(NULL, s->payload.len, s->payload.data) : NULL;
	struct history_node *n = r != NULL ? history_find_node(h, r->node) : NULL;
	struct history_receipt *larger;
	struct error why = {0};

	if (s == NULL)
		error_set(&why, -E_BAD_SIGNATURE, "there is none");
	else if (n == NULL || n->key == NULL)
		error_set(&why, -ENOENT, "no node with a proved identity is named");
	else
		signed_verify_by(s, TYPE_RECEIPT, n->key, &why);
	if (why.code == 0 &&
	    (r->cluster.len != sizeof(struct uuid) ||
	     memcmp(r->cluster.data, root_cluster(h->root)->bytes, sizeof(struct uuid)) != 0))
		error_set(&why, -E_WRONG_CLUSTER, "it is of another cluster");
	if (why.code != 0) {
		history_finding(h, seq, false, "a receipt: %.300s", why.text);
		goto out;
	}
	judge_receipt(h, seq, n, r);
	if (h->receipt_count == h->receipt_room) {
		uint32_t room = MAX(2 * h->receipt_room, 256u);

		larger = realloc(h->receipts, room * sizeof *h->receipts);
		if (larger == NULL) {
			h->failed = true;
			goto out;
		}
		h->receipts = larger;
		h->receipt_room = room;
	}
	h->receipts[h->receipt_count] = (struct history_receipt){.body = r, .seq = seq};
	h->receipt_count++;
	h->receipts_bytes += r->bytes;
	return;
out:
	if (r != NULL)
		pave__v1__receipt__free_unpacked(r, NULL);
}

/* -- erasures --------------------------------------------------------------------------------- */

/* What the node signed is what the record says. The two times of the end are not compared: the
 * driver's clock may have been set since the node measured it. */
static bool erasure_fits(const struct history *h, const Pave__V1__LedgerErasure *e,
			 const Pave__V1__ErasureReport *r)
{
	return r->cluster.len == sizeof(struct uuid) &&
	       memcmp(r->cluster.data, root_cluster(h->root)->bytes, sizeof(struct uuid)) == 0 &&
	       strcmp(r->node, e->node) == 0 && strcmp(r->site, e->site) == 0 &&
	       r->layer == (e->layer != 0 ? e->layer : e->volume) && r->whole == e->whole_volume &&
	       r->n_more_layers == e->n_more_layers &&
	       (r->n_more_layers == 0 || memcmp(r->more_layers, e->more_layers,
						r->n_more_layers * sizeof *r->more_layers) == 0) &&
	       r->n_chunks == e->n_chunks &&
	       (r->n_chunks == 0 ||
		memcmp(r->chunks, e->chunks, r->n_chunks * sizeof *r->chunks) == 0) &&
	       r->started_at <= r->done_at && r->started_at == e->started_at &&
	       (strcmp(r->method, e->method) == 0 || e->method[0] == '\0') &&
	       r->segments == e->segments && r->bytes == e->bytes && r->took_ms == e->took_ms;
}

/* The policy in force now, which may be stricter than that under which the node was asked. */
static void judge_method(struct history *h, uint64_t seq, const Pave__V1__LedgerErasure *e)
{
	const struct policy_document *policy;
	struct history_volume *v;

	HASH_FIND(hh, h->volumes, &e->volume, sizeof e->volume, v);
	policy = v != NULL ? history_policy(h, v->policy) : NULL;
	if (policy == NULL ||
	    policy_erase_strictness(e->method) >= policy_erase_strictness(policy_erase(policy)))
		return;
	history_finding(
	    h, seq, true,
	    "node %s has erased copies of volume %s by \"%.16s\", and policy %s version "
	    "%llu says \"%s\"",
	    e->node, v->name, e->method[0] != '\0' ? e->method : "drop", v->policy,
	    (unsigned long long)policy_version(policy), policy_erase(policy));
}

bool history_judge_erasure(struct history *h, uint64_t seq, const Pave__V1__LedgerErasure *e)
{
	const struct history_node *n = history_find_node(h, e->node);
	Pave__V1__ErasureReport *r = NULL;
	struct error why = {0};

	judge_method(h, seq, e);
	if (e->report == NULL) {
		if (n != NULL && n->key != NULL)
			history_finding(h, seq, true,
					"node %s has erased copies of volume #%llu, and has not "
					"signed that",
					n->name, (unsigned long long)e->volume);
		return true;
	}
	if (n == NULL || n->key == NULL)
		error_set(&why, -ENOENT, "no node with a proved identity is named");
	else
		signed_verify_by(e->report, TYPE_ERASURE, n->key, &why);
	if (why.code == 0) {
		r = pave__v1__erasure_report__unpack(NULL, e->report->payload.len,
						     e->report->payload.data);
		if (r == NULL || !erasure_fits(h, e, r))
			error_set(&why, -E_BAD_DOCUMENT,
				  "what node %s signed is not what the record says", n->name);
		if (r != NULL)
			pave__v1__erasure_report__free_unpacked(r, NULL);
	}
	if (why.code != 0) {
		history_finding(h, seq, false, "an erasure of volume #%llu: %.300s",
				(unsigned long long)e->volume, why.text);
		return false;
	}
	h->erasures_signed++;
	return true;
}

/* -- taints ----------------------------------------------------------------------------------- */

static void add_taint(struct history *h, const struct history_taint *t, const char *site)
{
	struct history_taint *larger = realloc(h->taints, (h->taint_count + 1) * sizeof *h->taints);

	if (larger == NULL) {
		h->failed = true;
		return;
	}
	h->taints = larger;
	h->taints[h->taint_count] = *t;
	snprintf(h->taints[h->taint_count].site, NAME_SIZE_MAX, "%.63s", site);
	h->taint_count++;
}

static struct history_taint *find_taint(struct history *h, const char *site, int64_t from)
{
	for (uint32_t i = h->taint_count; i-- > 0;)
		if (strcmp(h->taints[i].site, site) == 0 && h->taints[i].effective_from == from)
			return &h->taints[i];
	return NULL;
}

void history_judge_taint(struct history *h, uint64_t seq, const Pave__V1__LedgerTaint *t)
{
	const struct history_taint told = {
	    .seq = seq, .effective_from = t->effective_from, .noticed_at = t->noticed_at};
	struct history_taint *late = find_taint(h, t->site, t->effective_from);

	if (late == NULL || !late->untold) {
		add_taint(h, &told, t->site);
		return;
	}
	late->seq = seq;
	late->noticed_at = t->noticed_at;
	late->untold = false;
}

/* Later than by what a permit lasts. The driver's own notice comes after the snapshot. */
static void judge_late(struct history *h, uint64_t seq, int64_t at, const struct history_site *s)
{
	struct history_taint late = {.seq = seq, .noticed_at = at, .untold = true};

	if (revocations_withdrawn(h->revocations, s->name, at, &late.effective_from, NULL) &&
	    late.effective_from != s->told_from &&
	    shifted(late.effective_from, LIFETIME_MAX_NS) <= at &&
	    find_taint(h, s->name, late.effective_from) == NULL)
		add_taint(h, &late, s->name);
}

void history_judge_late(struct history *h, uint64_t seq, int64_t at)
{
	for (struct history_site *s = h->sites; s != NULL; s = s->hh.next) {
		if (history_site_in_force(h, s->name, 0) == NULL)
			continue;
		judge_late(h, seq, at, s);
		if (!revocations_withdrawn(h->revocations, s->name, INT64_MAX, &s->told_from, NULL))
			s->told_from = INT64_MIN;
	}
}

/* Also those receipts that came later, from a node that had been cut off. */
static uint32_t flag_receipts(struct history *h, const struct history_taint *t)
{
	uint32_t flagged = 0;

	for (uint32_t i = 0; i < h->receipt_count; i++) {
		if (!in_taint(t, h->receipts[i].body) || (t->untold && h->receipts[i].tainted))
			continue;
		h->receipts[i].tainted = true;
		flagged++;
	}
	return flagged;
}

void history_judge_taints(struct history *h)
{
	char from[40];

	for (uint32_t i = 0; i < h->taint_count; i++) {
		const struct history_taint *t = &h->taints[i];

		if (!t->untold)
			history_finding(h, t->seq, true,
					"site %s lost its eligibility from %s on, which was told "
					"late: %u receipts are tainted",
					t->site, text_time(t->effective_from, from, sizeof from),
					flag_receipts(h, t));
	}
	for (uint32_t i = 0; i < h->taint_count; i++) {
		const struct history_taint *t = &h->taints[i];
		const uint32_t flagged = t->untold ? flag_receipts(h, t) : 0;

		if (flagged > 0)
			history_finding(h, t->seq, true,
					"site %s lost its eligibility from %s on, which was told "
					"late, and the driver wrote no notice of it: %u more "
					"receipts are tainted",
					t->site, text_time(t->effective_from, from, sizeof from),
					flagged);
	}
}
