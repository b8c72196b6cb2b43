/* node intake: documents of evidence on their way in, and this node's own verdict about its site.
 * See lease.h.
 *
 *   node_intake_begin --> own site withdrawn? close the gates at once --> worker: verify, persist
 * (fsync)
 *                --> hold the documents --> the verdict --> changed()
 *
 * Failure modes: a document that does not verify, or is older than one seen before, is refused and
 * logged; what was held stays in force until it ends by itself. A contradiction between lease,
 * certificate and snapshot counts as no lease. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/assert.h"
#include "engine/base/log.h"
#include "engine/evidence/evaluate.h"
#include "engine/node/lease.h"

/* -- the verdict ------------------------------------------------------------------------------ */

static void set_state(struct node_lease *k, const struct node_lease_state *state)
{
	struct reactor *r = k->config.reactor;
	const struct node_lease_state old = k->state;

	k->state = *state;
	k->stats.state = *state;
	if (state->deadline_ns != 0)
		reactor_timer_arm(r, &k->expiry_timer, state->deadline_ns);
	else
		reactor_timer_cancel(r, &k->expiry_timer);
	if (old.deadline_ns == state->deadline_ns && old.why == state->why &&
	    old.site_version == state->site_version && old.root_version == state->root_version)
		return;
	if ((old.deadline_ns == 0) != (state->deadline_ns == 0) || old.why != state->why)
		log_line(state->deadline_ns != 0 ? LOG_INFO : LOG_WARN, "lease", "%s",
			 state->deadline_ns != 0 ? "the node holds a lease" : err_text(state->why));
	k->config.changed(state, k->config.arg);
}

void node_lease_close(struct node_lease *k, int why)
{
	/* Permits are compared with the driver's time without a lease, too. */
	const struct node_lease_state state = {.why = why, .driver_clock_ns = k->driver_clock_ns};

	PRE(why < 0);
	k->lease = (struct lease){0};
	set_state(k, &state);
}

void node_lease_refuse(struct node_lease *k, int why)
{
	k->intake.refused = k->next.refused = true;
	node_lease_close(k, why);
}

uint64_t node_lease_site_version(const struct node_lease *k)
{
	return k->site != NULL ? site_version(k->site) : 0;
}

/* 0, or why the site is not in order by the documents held; *ret_until is the end of that. */
static int site_verdict(struct node_lease *k, int64_t wall_ns, int64_t *ret_until)
{
	const char *site = k->config.identity.site;
	struct verdict *verdict;
	int rc = 0;

	if (k->site == NULL || k->revocations == NULL)
		return -E_STALE_EVIDENCE;
	if (revocations_withdrawn(k->revocations, site, wall_ns, NULL, NULL))
		return -E_REVOKED;
	verdict = calloc(1, sizeof(*verdict));
	if (verdict == NULL)
		return -ENOMEM;
	evaluate_site(k->site, k->revocations, wall_ns, verdict);
	*ret_until = verdict->until;
	if (!verdict->eligible) {
		const struct failed_rule *f = &verdict->failed[0];

		rc = -E_STALE_EVIDENCE;
		log_warn("lease", "site %s: %s: %s is %s, %s is needed", site, f->rule, f->field,
			 f->value, f->bound);
	}
	free(verdict);
	return rc;
}

/* Whether the lease speaks of the evidence that is held. */
static int lease_matches(const struct node_lease *k)
{
	const struct lease *l = &k->lease;

	if (l->node[0] == '\0')
		return -E_NO_LEASE;
	/* Known, though not yet durable. */
	if (k->intake.withdraws || k->next.withdraws)
		return -E_REVOKED;
	if (l->site_version != node_lease_site_version(k) || k->revocations == NULL ||
	    l->revocations_version > revocations_version(k->revocations))
		return -E_STALE_EVIDENCE;
	return 0;
}

static int64_t evidence_wall(const struct node_lease *k)
{
	return node_evidence_wall_ns(reactor_wall_ns(k->config.reactor),
				     reactor_now_ns(k->config.reactor), k->driver_clock_ns);
}

int node_lease_end_reason(struct node_lease *k)
{
	/* By another clock of the cluster it may be so late already; and the two clocks of this
	 * machine may have drifted a little since the deadline was computed. */
	const int64_t wall_ns = evidence_wall(k) + (int64_t)(CLOCK_BOUND_NS + 10 * NS_PER_MS);
	int64_t until;
	const int rc = site_verdict(k, wall_ns, &until);

	return rc != 0 ? rc : -E_LEASE_EXPIRED;
}

void node_lease_evaluate(struct node_lease *k)
{
	struct reactor *r = k->config.reactor;
	const uint64_t now_ns = reactor_now_ns(r);
	const int64_t wall_ns = evidence_wall(k);
	struct node_lease_state state = {.site_version = k->lease.site_version,
					 .root_version = root_version(trust_root(k->config.trust)),
					 .driver_clock_ns = k->driver_clock_ns};
	int64_t until = 0;
	uint64_t end_ns;
	int rc = lease_matches(k);

	if (rc == 0 && !node_lease_holds(k))
		rc = -E_NO_LEASE;
	if (rc == 0)
		rc = site_verdict(k, wall_ns, &until);
	if (rc == 0 && until <= wall_ns + (int64_t)CLOCK_BOUND_NS)
		rc = node_lease_end_reason(k);
	if (rc == 0) {
		end_ns = until == INT64_MAX ? UINT64_MAX
					    : now_ns + (uint64_t)(until - wall_ns) - CLOCK_BOUND_NS;
		state.deadline_ns = MIN(MIN(k->lease.deadline_ns, k->lease_limit_ns), end_ns);
		if (state.deadline_ns <= now_ns)
			rc = -E_LEASE_EXPIRED;
	}
	if (rc != 0) {
		if (k->lease.node[0] != '\0')
			node_lease_close(k, rc);
		return;
	}
	set_state(k, &state);
}

/* -- documents -------------------------------------------------------------------------------- */

void node_intake_clear(struct intake *in)
{
	free(in->root);
	free(in->revocations);
	free(in->site);
	*in = (struct intake){0};
}

static void intake_work(struct reactor_work *work)
{
	struct node_lease *k = container_of(work, struct node_lease, work);
	struct trust *trust = k->config.trust;
	struct intake *in = &k->intake;
	int rc = 0;

	/* Each is refused or taken for itself: a bad certificate must not keep a withdrawal out. */
	if (in->revocations != NULL)
		rc = trust_accept_revocations(trust, in->revocations, in->revocations_size,
					      &k->new_revocations, &k->intake_err);
	if (in->site != NULL) {
		struct error err;
		const int site_rc =
		    trust_accept_site(trust, in->site, in->site_size, &k->new_site, &err);

		if (rc == 0 && site_rc != 0) {
			rc = site_rc;
			k->intake_err = err;
		}
	}
	k->intake_status = rc;
}

/* Takes *data. */
static void hold_envelope(struct held_envelope *e, uint8_t **data, size_t size)
{
	free(e->data);
	*e = (struct held_envelope){*data, size};
	*data = NULL;
}

/* The root has changed since they were verified. */
static void verify_again(struct node_lease *k)
{
	const struct root_document *root = trust_root(k->config.trust);
	struct revocations_document *revocations = NULL;
	struct site_document *site = NULL;
	struct error err;

	if (k->site != NULL &&
	    site_open(k->site_envelope.data, k->site_envelope.size, root, &site, &err) != 0) {
		log_warn("lease", "this site's certificate is void under the new trust root: %s",
			 err.text);
		site_free(k->site);
		k->site = NULL;
	}
	if (k->revocations != NULL &&
	    revocations_open(k->revocations_envelope.data, k->revocations_envelope.size, root,
			     &revocations, &err) != 0) {
		log_warn("lease", "the revocation snapshot is void under the new trust root: %s",
			 err.text);
		revocations_free(k->revocations);
		k->revocations = NULL;
	}
	site_free(site);
	revocations_free(revocations);
	node_lease_evaluate(k);
}

/* The documents that the worker accepted are held from now on. */
static void hold_documents(struct node_lease *k)
{
	const char *own = k->config.identity.site;

	if (k->new_revocations != NULL) {
		revocations_free(k->revocations);
		k->revocations = k->new_revocations;
		k->new_revocations = NULL;
		hold_envelope(&k->revocations_envelope, &k->intake.revocations,
			      k->intake.revocations_size);
	}
	if (k->new_site != NULL && strcmp(site_name(k->new_site), own) != 0) {
		k->intake_status = error_set(&k->intake_err, -E_WRONG_NODE,
					     "the driver sent the certificate of site %s to a node "
					     "of site %s",
					     site_name(k->new_site), own);
		site_free(k->new_site);
		k->new_site = NULL;
	}
	if (k->new_site != NULL) {
		site_free(k->site);
		k->site = k->new_site;
		k->new_site = NULL;
		hold_envelope(&k->site_envelope, &k->intake.site, k->intake.site_size);
	}
	if (trust_quarantined(k->config.trust, own)) {
		site_free(k->site);
		k->site = NULL;
	}
}

static void intake_start(struct node_lease *k);

static void intake_done(struct reactor_work *work)
{
	struct node_lease *k = container_of(work, struct node_lease, work);
	const bool with_lease = k->intake.has_lease;
	int status;

	k->working = false;
	hold_documents(k);
	status = k->intake_status;
	if (status != 0)
		log_warn("lease", "refused a document of evidence: %s", k->intake_err.text);
	if (with_lease && !k->intake.refused) {
		k->lease = k->intake.lease;
		k->lease_limit_ns = k->intake.lease_limit_ns;
	}
	node_intake_clear(&k->intake);
	if (k->step != LEASE_STOPPING)
		node_lease_evaluate(k);
	if (k->step != LEASE_STOPPING && (k->next.root != NULL || k->next.revocations != NULL ||
					  k->next.site != NULL || k->next.has_lease)) {
		k->intake = k->next;
		k->next = (struct intake){0};
		intake_start(k);
	}
	node_lease_taken_in(k, status, with_lease);
}

static void intake_start(struct node_lease *k)
{
	const uint64_t before = root_version(trust_root(k->config.trust));
	struct intake *in = &k->intake;
	struct error err;

	/* A new root is rarer than anything else here; it is in force for what comes with it. */
	if (in->root != NULL &&
	    trust_accept_root(k->config.trust, in->root, in->root_size, &err) != 0)
		log_warn("lease", "refused a trust root: %s", err.text);
	if (root_version(trust_root(k->config.trust)) != before)
		verify_again(k);
	k->working = true;
	k->intake_status = 0;
	k->work.work = intake_work;
	k->work.done = intake_done;
	reactor_offload(k->config.reactor, &k->work);
}

/* However old it is: a withdrawal that the authority signed closes. Whether the snapshot is taken
 * in is decided later; if it is not, the driver gives a new lease. */
static void close_if_withdrawn(struct node_lease *k, struct intake *in)
{
	struct revocations_document *d = NULL;
	struct error err;

	if (in->revocations == NULL || revocations_open(in->revocations, in->revocations_size,
							trust_root(k->config.trust), &d, &err) != 0)
		return;
	in->withdraws =
	    revocations_withdrawn(d, k->config.identity.site, evidence_wall(k), NULL, NULL);
	if (in->withdraws)
		node_lease_close(k, -E_REVOKED);
	revocations_free(d);
}

/* Moves what `from` has into *to; the later of two wins, for the driver sends the newest it has. */
static void intake_merge(struct intake *to, struct intake *from)
{
	if (from->root != NULL) {
		free(to->root);
		to->root = from->root;
		to->root_size = from->root_size;
	}
	if (from->revocations != NULL) {
		free(to->revocations);
		to->revocations = from->revocations;
		to->revocations_size = from->revocations_size;
		to->withdraws = from->withdraws;
	}
	if (from->site != NULL) {
		free(to->site);
		to->site = from->site;
		to->site_size = from->site_size;
	}
	if (from->has_lease) {
		to->has_lease = true;
		to->refused = false;
		to->lease = from->lease;
		to->lease_limit_ns = from->lease_limit_ns;
	}
	*from = (struct intake){0};
}

void node_intake_begin(struct node_lease *k, struct intake *in)
{
	close_if_withdrawn(k, in);
	if (k->working) {
		intake_merge(&k->next, in);
		return;
	}
	intake_merge(&k->intake, in);
	intake_start(k);
}
