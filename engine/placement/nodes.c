/* The driver and its nodes: leases, identity, evidence, erasure. See driver.h.
 *
 * A lease request: identity (name, site, device are those of the register, or new) -> clock ->
 * the site's evidence -> durable, if anything about the node changed -> lease.
 *
 * A tombstone (a deleted volume) names the nodes that may still hold copies. Each that is connected
 * is asked to erase, one volume at a time; its confirmation takes it off the tombstone, durably;
 * with none left the tombstone goes. What fails is tried again, after everything else that the node
 * is to erase, by erase_timer, or when it comes back. A site that lost its eligibility is asked
 * too: erasing needs no lease. Nobody is asked before it is durable that something is to be erased:
 * after a crash it might be a copy that somebody needs. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <utlist.h>

#include "engine/base/assert.h"
#include "engine/base/log.h"
#include "engine/base/text.h"
#include "engine/placement/driver.h"
#include "engine/placement/family.h"

#define NONCE_SIZE_MIN 8u
#define CLOCK_LATE_MAX 2u

enum node_state node_state(const struct reg_node *n, int64_t now)
{
	if (n->session == NULL)
		return NODE_DOWN;
	if (n->refused)
		return NODE_REFUSED;
	return n->lease_until > now ? NODE_UP : NODE_DOWN;
}

void node_session_closed(struct pd *pd, struct pd_session *s)
{
	(void)pd; /* its calls were done with -E_DISCONNECTED by rpc_closed */
	if (s->node != NULL && s->node->session == s)
		s->node->session = NULL;
}

void node_send_evidence(struct pd *pd, struct pd_session *s)
{
	Pave__V1__Control m = PAVE__V1__CONTROL__INIT;
	Pave__V1__EvidenceNotice notice = PAVE__V1__EVIDENCE_NOTICE__INIT;

	if (pd->verdicts.revocations != NULL) {
		notice.revocations.data = pd->verdicts.revocations_envelope;
		notice.revocations.len = pd->verdicts.revocations_size;
	}
	if (s->root_told < root_version(trust_root(pd->trust))) {
		notice.root.data =
		    (uint8_t *)(uintptr_t)trust_root_envelope(pd->trust, &notice.root.len);
		s->root_told = root_version(trust_root(pd->trust));
	}
	m.body_case = PAVE__V1__CONTROL__BODY_EVIDENCE_NOTICE;
	m.evidence_notice = &notice;
	rpc_notify(&s->rpc, &m);
}

bool node_send_scrub(struct reg_node *n)
{
	Pave__V1__Control m = PAVE__V1__CONTROL__INIT;
	Pave__V1__Empty scrub = PAVE__V1__EMPTY__INIT;

	if (n->session == NULL)
		return false;
	m.body_case = PAVE__V1__CONTROL__BODY_SCRUB;
	m.scrub = &scrub;
	rpc_notify(&n->session->rpc, &m);
	return true;
}

/* -- erasure ---------------------------------------------------------------------------------- */

static void erase_free(struct pd_erase *e)
{
	DL_DELETE(e->pd->erases, e);
	e->node->erasing = false;
	free(e->chunks);
	free(e);
}

static void retry_later(struct pd *pd)
{
	if (!pd->stopping)
		reactor_timer_arm(pd->reactor, &pd->erase_timer,
				  reactor_now_ns(pd->reactor) + PD_ERASE_RETRY_MS * NS_PER_MS);
}

/* It says what was asked for, and nothing else. */
static bool says_it(const struct pd_erase *e, const Pave__V1__ErasureReport *r,
		    const Pave__V1__Erased *answer)
{
	return strcmp(r->node, e->node->name) == 0 && strcmp(r->site, e->node->site) == 0 &&
	       r->layer == e->layers[0] && r->n_more_layers == e->layer_count - 1 &&
	       (r->n_more_layers == 0 ||
		memcmp(r->more_layers, e->layers + 1, r->n_more_layers * sizeof *e->layers) == 0) &&
	       r->whole == (e->chunks == NULL) && r->n_chunks == e->chunk_count &&
	       (e->chunk_count == 0 ||
		memcmp(r->chunks, e->chunks, e->chunk_count * sizeof *e->chunks) == 0) &&
	       strcmp(r->method, answer->method) == 0 && r->segments == answer->segments &&
	       r->bytes == answer->bytes && r->took_ms == answer->took_ms;
}

/* It did no less than it was asked for. */
static int check_method(const struct pd_erase *e, const Pave__V1__Control *reply, struct error *err)
{
	const char *method =
	    reply->body_case == PAVE__V1__CONTROL__BODY_ERASED ? reply->erased->method : "";

	if (policy_erase_strictness(method) >= policy_erase_strictness(e->method))
		return 0;
	return error_set(err, -EOPNOTSUPP,
			 "its copies are erased by \"%.16s\", and the policy wants \"%s\": its "
			 "build does not know that; install this driver's",
			 method[0] != '\0' ? method : "drop", e->method);
}

/* A node that has an identity signs what it has erased. ret_started_at: of the report; 0: it is a
 * node without one. */
static int check_report(struct pd *pd, const struct pd_erase *e, const Pave__V1__Control *reply,
			int64_t *ret_started_at, struct error *err)
{
	const struct reg_node *n = e->node;
	const struct verdict_site *site = verdicts_site(&pd->verdicts, n->site);
	const Pave__V1__Signed *s =
	    reply->body_case == PAVE__V1__CONTROL__BODY_ERASED ? reply->erased->report : NULL;
	Pave__V1__ErasureReport *r = NULL;
	struct public_key *key = NULL;
	int rc;

	*ret_started_at = 0;
	rc = check_method(e, reply, err);
	if (rc != 0 || n->certificate.size == 0)
		return rc;
	if (site == NULL)
		return error_set(err, -E_STALE_EVIDENCE,
				 "its report cannot be verified without a certificate of site %s",
				 n->site);
	rc = identity_verify(n->certificate.data, n->certificate.size, n->ca.data, n->ca.size,
			     site->doc, n->name, reg_now(&pd->reg, NULL), &key, err);
	if (rc == 0)
		rc = signed_verify_by(s, TYPE_ERASURE, key, err);
	public_key_free(key);
	if (rc != 0)
		return rc;
	r = pave__v1__erasure_report__unpack(NULL, s->payload.len, s->payload.data);
	if (r == NULL || !says_it(e, r, reply->erased))
		rc = error_set(err, -E_BAD_DOCUMENT,
			       "its report is malformed, or of something else than was asked for");
	else
		*ret_started_at = r->started_at;
	if (r != NULL)
		pave__v1__erasure_report__free_unpacked(r, NULL);
	return rc;
}

static void note_erasure(struct pd *pd, const struct pd_erase *e, const Pave__V1__Control *reply,
			 int64_t started_at)
{
	const struct reg_node *n = e->node;
	Pave__V1__LedgerErasure m = PAVE__V1__LEDGER_ERASURE__INIT;

	m.volume = e->volume;
	m.layer = e->layers[0] != e->volume ? e->layers[0] : 0;
	m.more_layers = (uint64_t *)(uintptr_t)(e->layers + 1);
	m.n_more_layers = e->layer_count - 1;
	m.node = (char *)(uintptr_t)n->name;
	m.site = (char *)(uintptr_t)n->site;
	m.whole_volume = e->chunks == NULL;
	m.chunks = e->chunks;
	m.n_chunks = e->chunk_count;
	m.started_at = started_at;
	m.done_at = reg_now(&pd->reg, NULL);
	if (reply->body_case == PAVE__V1__CONTROL__BODY_ERASED) {
		m.report = reply->erased->report;
		m.method = reply->erased->method;
		m.segments = reply->erased->segments;
		m.bytes = reply->erased->bytes;
		m.took_ms = reply->erased->took_ms;
	}
	pd_ledger_erasure(&pd->ledger, &m);
}

/* Everything that is to be erased of the chunk there now was asked for. */
static bool erase_covers(struct pd *pd, const struct pd_erase *e, const struct reg_volume *v,
			 chunk_no_t chunk)
{
	volume_id_t ids[LAYERS_MAX];
	const uint32_t count = family_erasable(&pd->reg, v, chunk, e->node, ids);

	for (uint32_t i = 0; i < count; i++) {
		uint32_t k = 0;

		while (k < e->layer_count && e->layers[k] != ids[i])
			k++;
		if (k == e->layer_count)
			return false;
	}
	return true;
}

/* Another member of the family, which was to let go of a layer there as well, may have been deleted
 * meanwhile, and have left that to this one: then the copy is erased once more, with that layer.
 * Otherwise it would stay, be merged into nowhere, and be taken for whole if the chunk came back.
 */
static void erased_chunks(struct pd *pd, struct pd_erase *e, struct reg_volume *v)
{
	size_t covered = 0;

	for (size_t i = 0; i < e->chunk_count; i++)
		if (erase_covers(pd, e, v, e->chunks[i]))
			e->chunks[covered++] = e->chunks[i];
	if (covered > 0)
		reg_dropped(&pd->reg, v, e->node, e->chunks, covered);
}

/* It is asked for again when there is nothing else to do there. (One that is not done yet is asked
 * for at once: the node goes on with it, and does nothing else before.) */
static void erase_failed(struct pd *pd, const struct pd_erase *e, struct reg_volume *v)
{
	v->erase_failed = ++pd->erase_failures;
	e->node->erase_again_ns = reactor_now_ns(pd->reactor) + PD_ERASE_RETRY_MS * NS_PER_MS;
	if (e->chunks != NULL)
		reg_drops_last(v, e->node, e->chunks, e->chunk_count);
}

static void erase_done(struct rpc_call *call, int status, const Pave__V1__Control *reply,
		       const char *text)
{
	struct pd_erase *e = container_of(call, struct pd_erase, call);
	struct pd *pd = e->pd;
	struct reg_volume *v = reg_volume_by_id(&pd->reg, e->volume);
	int64_t started_at = 0;
	struct error err;

	if (status == 0) {
		status = check_report(pd, e, reply, &started_at, &err);
		text = err.text; /* read only where status is one of its */
	}
	if (status == 0 && v != NULL && e->chunks != NULL) {
		log_info("pd", "node %s has erased %zu chunks of volume %s that it holds no more",
			 e->node->name, e->chunk_count, v->name);
		note_erasure(pd, e, reply, started_at);
		erased_chunks(pd, e, v);
		pd_background_flush(pd);
	} else if (status == 0 && v != NULL) {
		log_info("pd", "node %s has erased its copies of volume #%llu (%s)", e->node->name,
			 (unsigned long long)v->id, v->name);
		note_erasure(pd, e, reply, started_at);
		reg_volume_erased(v, e->node);
		if (v->erase_count > 0)
			reg_save_volume(&pd->reg, v);
		else
			reg_volume_forget(&pd->reg, v);
		pd_background_flush(pd);
	} else if (status != 0) {
		if (v != NULL && status != -ETIMEDOUT)
			erase_failed(pd, e, v);
		log_warn("pd", "node %s has not erased volume #%llu%s: %s; asking again",
			 e->node->name, (unsigned long long)e->volume,
			 status == -ETIMEDOUT ? " yet" : "",
			 text != NULL ? text : err_text(status));
	}
	if (status == 0)
		e->node->erase_again_ns = 0;
	erase_free(e);
	if (status == 0)
		node_erase_all(pd);
	else
		retry_later(pd);
}

/* Of these layers: takes chunks over; NULL: all of each. */
static void erase_start(struct pd *pd, struct reg_volume *v, struct reg_node *n, chunk_no_t *chunks,
			size_t chunk_count, volume_id_t *layers, size_t layer_count)
{
	Pave__V1__Control m = PAVE__V1__CONTROL__INIT;
	Pave__V1__Erase erase = PAVE__V1__ERASE__INIT;
	const struct policy_document *policy = verdicts_policy(&pd->verdicts, v->policy);
	struct pd_erase *e = calloc(1, sizeof *e);

	if (e == NULL) {
		free(chunks);
		retry_later(pd);
		return;
	}
	e->pd = pd;
	e->node = n;
	e->volume = v->id;
	e->chunks = chunks;
	e->chunk_count = chunk_count;
	e->call.done = erase_done;
	n->erasing = true;
	DL_APPEND(pd->erases, e);
	e->layer_count = layer_count;
	memcpy(e->layers, layers, layer_count * sizeof *layers);
	erase.volume = layers[0];
	erase.more_layers = layers + 1;
	erase.n_more_layers = layer_count - 1;
	erase.whole_volume = chunks == NULL;
	erase.chunks = chunks;
	erase.n_chunks = chunk_count;
	snprintf(e->method, sizeof e->method, "%s",
		 policy != NULL ? policy_erase(policy) : "overwrite");
	erase.method = e->method;
	m.body_case = PAVE__V1__CONTROL__BODY_ERASE;
	m.erase = &erase;
	rpc_call_start(&n->session->rpc, &e->call, &m, PD_ERASE_TIMEOUT_MS);
}

/* The drops of one node that are like the first: the same layers are to be erased. Returns how many
 * chunks. */
static size_t gather_drops(struct pd *pd, struct reg_volume *v, uint32_t first, chunk_no_t *chunks,
			   volume_id_t *layers, uint32_t *ret_layer_count)
{
	struct reg_node *n = v->drops[first].node;
	const uint32_t layer_count = family_erasable(&pd->reg, v, v->drops[first].chunk, n, layers);
	size_t count = 0;

	for (uint32_t k = first; k < v->drop_count && count < PD_ERASE_CHUNKS_MAX; k++) {
		volume_id_t ids[LAYERS_MAX];

		if (v->drops[k].node != n || !moves_may_erase(pd, v, &v->drops[k]))
			continue;
		if (family_erasable(&pd->reg, v, v->drops[k].chunk, n, ids) == layer_count &&
		    memcmp(ids, layers, layer_count * sizeof *ids) == 0)
			chunks[count++] = v->drops[k].chunk;
	}
	*ret_layer_count = layer_count;
	return count;
}

/* False: there is nothing to ask for, others have all of it there. */
static bool erase_drops(struct pd *pd, struct reg_volume *v, uint32_t first)
{
	struct reg_node *n = v->drops[first].node;
	chunk_no_t *chunks = malloc(PD_ERASE_CHUNKS_MAX * sizeof *chunks);
	volume_id_t layers[LAYERS_MAX];
	uint32_t layer_count;
	size_t count;

	if (chunks == NULL) {
		retry_later(pd);
		return true;
	}
	count = gather_drops(pd, v, first, chunks, layers, &layer_count);
	if (layer_count > 0) {
		erase_start(pd, v, n, chunks, count, layers, layer_count);
		return true;
	}
	reg_dropped(&pd->reg, v, n, chunks, count);
	pd_background_flush(pd);
	free(chunks);
	return false;
}

static void erase_whole(struct pd *pd, struct reg_volume *v, struct reg_node *n)
{
	volume_id_t layer = v->erase_layer != 0 ? v->erase_layer : v->id;

	erase_start(pd, v, n, NULL, 0, &layer, 1);
}

/* Whether the node is to be asked for something of v rather than for what was found so far. */
static bool is_next(const struct pd *pd, const struct reg_volume *v, const struct reg_node *n)
{
	return n->session != NULL && !n->erasing &&
	       (v->erase_failed == 0 || reactor_now_ns(pd->reactor) >= n->erase_again_ns) &&
	       (n->erase_next == NULL || v->erase_failed < n->erase_next->erase_failed);
}

static void note_next(struct pd *pd, struct reg_volume *v, int64_t now)
{
	for (uint32_t i = 0; i < v->drop_count; i++)
		if (is_next(pd, v, v->drops[i].node) && moves_may_erase(pd, v, &v->drops[i]))
			v->drops[i].node->erase_next = v;
	for (uint32_t i = 0; v->deleted && v->erase_after <= now && i < v->erase_count; i++)
		if (is_next(pd, v, v->erase[i]))
			v->erase[i]->erase_next = v;
}

/* Copies that the map names no more, or all of a tombstone's. False: as erase_drops. */
static bool start_next(struct pd *pd, struct reg_node *n)
{
	struct reg_volume *v = n->erase_next;

	n->erase_next = NULL;
	for (uint32_t i = 0; i < v->drop_count; i++)
		if (v->drops[i].node == n && moves_may_erase(pd, v, &v->drops[i]))
			return erase_drops(pd, v, i);
	for (uint32_t i = 0; v->deleted && i < v->erase_count; i++)
		if (v->erase[i] == n) {
			erase_whole(pd, v, n);
			break;
		}
	return true;
}

/* One node erases one thing at a time, so of two members that leave it the second sees that the
 * first is gone. First comes what has never failed, then, after a pause, what failed longest ago:
 * so what fails again and again keeps nothing else waiting. */
void node_erase_all(struct pd *pd)
{
	const int64_t now = reg_now(&pd->reg, NULL);
	/* Where another leads by now, a copy may have come back since. */
	bool again =
	    !pd->stopping && reg_may_erase(&pd->reg) && permits_leads(&pd->permits, NULL) == 0;

	while (again) {
		again = false;
		for (struct reg_volume *v = pd->reg.volumes; v != NULL; v = v->hh.next)
			note_next(pd, v, now);
		for (struct reg_node *n = pd->reg.nodes; n != NULL; n = n->hh.next)
			if (n->erase_next != NULL && !start_next(pd, n))
				again = true;
	}
}

void node_erase_timer(struct reactor_timer *t)
{
	node_erase_all(container_of(t, struct pd, erase_timer));
}

void node_erase_drop(struct pd *pd)
{
	struct pd_erase *e, *next;

	DL_FOREACH_SAFE (pd->erases, e, next) {
		rpc_call_cancel(&e->call);
		erase_free(e);
	}
}

/* -- leases ----------------------------------------------------------------------------------- */

static int check_form(const Pave__V1__LeaseRequest *l, struct error *err)
{
	if (!text_is_name(l->node) || !text_is_name(l->site))
		return error_set(err, -EINVAL,
				 "a lease wants the names of node and site in [a-z0-9._-], up to "
				 "%u long",
				 NAME_SIZE_MAX - 1);
	if (l->nonce.len < NONCE_SIZE_MIN || l->nonce.len > 64)
		return error_set(err, -EINVAL, "node %s: the nonce has %zu bytes, of %u to 64",
				 l->node, l->nonce.len, NONCE_SIZE_MIN);
	if (l->device.len != sizeof(struct uuid))
		return error_set(err, -EINVAL, "node %s: the device's uuid has %zu bytes, not 16",
				 l->node, l->device.len);
	if (l->n_addresses == 0 || l->n_addresses > REG_ADDRESSES_MAX)
		return error_set(err, -EINVAL, "node %s: it gives %zu addresses, of 1 to %u",
				 l->node, l->n_addresses, REG_ADDRESSES_MAX);
	for (size_t i = 0; i < l->n_addresses; i++)
		if (l->addresses[i][0] == '\0' || strlen(l->addresses[i]) >= ADDR_SIZE_MAX)
			return error_set(err, -EINVAL, "node %s: address %zu has no sane length",
					 l->node, i);
	return 0;
}

bool node_is_asking(const struct pd *pd, const struct reg_node *n)
{
	const struct pd_request *q;

	DL_FOREACH (pd->requests, q)
		if (q->node == n)
			return true;
	return false;
}

void node_forget_leftovers(struct pd *pd, struct reg_node *n)
{
	struct reg_volume *v, *next;
	struct pd_session *s;

	/* One that it had before its last may not have ended yet. */
	DL_FOREACH (pd->sessions, s)
		if (s->node == n)
			s->node = NULL;
	HASH_ITER (hh, pd->reg.volumes, v, next) {
		reg_dropped(&pd->reg, v, n, NULL, 0);
		if (!v->deleted)
			continue;
		reg_volume_erased(v, n);
		if (v->erase_count > 0)
			reg_save_volume(&pd->reg, v);
		else
			reg_volume_forget(&pd->reg, v);
	}
}

bool node_has_leftovers(const struct reg *reg, const struct reg_node *n)
{
	for (const struct reg_volume *v = reg->volumes; v != NULL; v = v->hh.next) {
		for (uint32_t i = 0; i < v->erase_count; i++)
			if (v->erase[i] == n)
				return true;
		for (uint32_t i = 0; i < v->drop_count; i++)
			if (v->drops[i].node == n)
				return true;
	}
	return false;
}

bool node_holds_any(const struct reg *reg, const struct reg_node *n)
{
	return n->placed_chunks > 0 || n->learners > 0 || n->leavers > 0 ||
	       node_has_leftovers(reg, n);
}

/* A name belongs to a site and to a device for as long as copies are placed on it: an empty device
 * under an old name would count in majorities for what it no longer has. */
static int check_identity(const struct reg *reg, const struct reg_node *n,
			  const Pave__V1__LeaseRequest *l, struct error *err)
{
	static const struct uuid unknown; /* what nodes said once */
	struct uuid device;
	char have[40], want[40];

	if (n->removed)
		return error_set(err, -E_DENIED,
				 "node %s was removed, and its copies are being replaced: give the "
				 "new one another name, or wait",
				 n->name);
	if (strcmp(n->site, l->site) != 0)
		return error_set(err, -E_WRONG_NODE,
				 "node %s is registered in site %s, and now says %s: a node stays "
				 "in its site; take another name for the other site",
				 n->name, n->site, l->site);
	memcpy(device.bytes, l->device.data, sizeof device.bytes);
	if (n->has_device && !uuid_equal(&n->device, &unknown) &&
	    !uuid_equal(&n->device, &device) &&
	    (n->placed_chunks > 0 || n->learners > 0 || node_has_leftovers(reg, n)))
		return error_set(
		    err, -E_WRONG_NODE,
		    "node %s is registered with device %s, which %llu chunks are placed "
		    "on, and now comes with %s: give it its device back; if that is lost, pave "
		    "node remove --force %s, and another name for what comes instead",
		    n->name, text_uuid(&n->device, want, sizeof want),
		    (unsigned long long)n->placed_chunks, text_uuid(&device, have, sizeof have),
		    n->name);
	return 0;
}

/* The difference as it looks from here is the clocks' difference less the time that the request
 * took. So a node that looks early is early; one that looks late may only have had a slow road, or
 * a driver that was busy: it is told to ask again, until that has been so CLOCK_LATE_MAX times
 * without one quick exchange between. The node itself measures with the round trip as well
 * (LeaseReply.wall), and takes no lease that its own measure doesn't bear out. */
static int check_clock(struct pd *pd, struct reg_node *n, const Pave__V1__LeaseRequest *l,
		       struct error *err)
{
	int64_t wall = reactor_wall_ns(pd->reactor);
	int64_t offset;

	if (__builtin_sub_overflow(l->wall, wall, &offset))
		offset = l->wall > wall ? INT64_MAX : INT64_MIN;
	n->clock_offset_ns = offset;
	if (offset <= (int64_t)CLOCK_BOUND_NS && offset >= -(int64_t)CLOCK_BOUND_NS) {
		n->clock_late = 0;
		return 0;
	}
	if (offset < 0 && n->clock_late < CLOCK_LATE_MAX) {
		n->clock_late++;
		return error_set(
		    err, -EAGAIN,
		    "node %s: its request took too long, or its clock is late, by %lld "
		    "ms: a quicker exchange will tell",
		    n->name, -((long long)offset / (long long)NS_PER_MS));
	}
	return error_set(err, -E_CLOCK_SKEW,
			 "node %s: its clock differs from the placement driver's by %+lld ms, the "
			 "bound is %llu ms: synchronise both",
			 n->name, (long long)offset / (long long)NS_PER_MS,
			 (unsigned long long)(CLOCK_BOUND_NS / NS_PER_MS));
}

static void note_scrub(struct reg_node *n, const Pave__V1__ScrubState *s)
{
	n->has_scrub = s != NULL;
	n->damaged_count = 0;
	if (s == NULL)
		return;
	for (size_t i = 0; i < s->n_volumes && n->damaged_count < REG_DAMAGED_MAX; i++)
		n->damaged[n->damaged_count++] = s->volumes[i];
	n->scrub = (struct reg_scrub){
	    .running = s->running,
	    .period_s = s->period_s,
	    .passes = s->passes,
	    .total_bytes = s->total_bytes,
	    .done_bytes = s->done_bytes,
	    .rate = s->rate,
	    .found = s->found,
	    .repaired = s->repaired,
	    .started_at = s->started_at,
	    .finished_at = s->finished_at,
	    .damaged = s->damaged,
	    .needed_rate = s->needed_rate,
	    .max_rate = s->max_rate,
	};
}

static bool same_der(const struct identity_der *a, const ProtobufCBinaryData *b)
{
	return a->size == b->len && (b->len == 0 || memcmp(a->data, b->data, b->len) == 0);
}

/* A node that shows who it is must be believable; one that doesn't signs no receipts. */
static int check_certificate(struct pd *pd, const struct reg_node *n,
			     const Pave__V1__LeaseRequest *l, struct error *err)
{
	const struct verdict_site *site = verdicts_site(&pd->verdicts, n->site);
	struct public_key *key;
	int rc;

	if (l->certificate.len == 0 && n->certificate.size == 0)
		return 0;
	if (l->certificate.len == 0)
		return error_set(err, -E_WRONG_NODE,
				 "node %s had an identity when it came before, and now shows none: "
				 "give it its key back",
				 n->name);
	if (site == NULL ||
	    (same_der(&n->certificate, &l->certificate) && same_der(&n->ca, &l->ca)))
		return 0; /* without a certificate of the site there is no lease either */
	rc = identity_verify(l->certificate.data, l->certificate.len, l->ca.data, l->ca.len,
			     site->doc, n->name, reg_now(&pd->reg, NULL), &key, err);
	if (rc == 0)
		public_key_free(key);
	return rc;
}

/* A count that has gone back is of a node that was started again. */
static void note_load(struct reg_node *n, uint64_t operations, int64_t now)
{
	const int64_t span_ns = now - n->operations_at;
	uint64_t rate;

	if (n->operations_at != 0 && span_ns < PD_LOAD_SPAN_MS * (int64_t)NS_PER_MS)
		return;
	if (n->operations_at != 0 && operations >= n->operations) {
		rate =
		    (uint64_t)((double)(operations - n->operations) * NS_PER_S / (double)span_ns);
		n->load = (n->load * (PD_LOAD_SHARE - 1) + rate) / PD_LOAD_SHARE;
	}
	n->operations = operations;
	n->operations_at = now;
}

/* Notes what the node says of itself. true: something that must be durable has changed. */
static bool note_node(struct pd *pd, struct reg_node *n, const Pave__V1__LeaseRequest *l,
		      bool *ret_no_memory)
{
	bool identity = !n->has_device || !same_der(&n->certificate, &l->certificate) ||
			!same_der(&n->ca, &l->ca) ||
			memcmp(n->device.bytes, l->device.data, sizeof n->device.bytes) != 0;
	bool changed = !n->has_device || n->address_count != l->n_addresses ||
		       memcmp(n->device.bytes, l->device.data, sizeof n->device.bytes) != 0 ||
		       n->size_bytes != l->size_bytes;

	for (size_t i = 0; !changed && i < l->n_addresses; i++)
		changed = strcmp(n->addresses[i], l->addresses[i]) != 0;
	n->size_bytes = l->size_bytes;
	n->live_bytes = l->live_bytes;
	n->free_bytes = l->free_bytes;
	n->reserve_bytes = l->reserve_bytes;
	note_scrub(n, l->scrub);
	note_load(n, l->operations, reg_now(&pd->reg, NULL));
	snprintf(n->trouble, sizeof n->trouble, "%s", l->trouble);
	n->wiping_segments = l->wiping_segments;
	*ret_no_memory = false;
	if (!changed && !identity)
		return false;
	if (reg_node_set_addresses(n, l->addresses, l->n_addresses) != 0 ||
	    reg_node_set_identity(n, &l->certificate, &l->ca) != 0) {
		*ret_no_memory = true;
		return false;
	}
	memcpy(n->device.bytes, l->device.data, sizeof n->device.bytes);
	n->has_device = true;
	if (identity)
		pd_ledger_node(&pd->ledger, n);
	return true;
}

static void refuse(struct pd_request *q, struct reg_node *n, const struct error *err)
{
	struct pd_session *s = q->session;

	if (n != NULL && err->code != -E_NOT_LEADER) { /* which is no verdict */
		if (!n->refused || strcmp(n->reason, err->text) != 0)
			log_warn("pd", "%s", err->text);
		pd_ledger_lease_end(&q->pd->ledger, n->name, "refused");
		pd_ledger_denial(&q->pd->ledger, "lease", n->name, err);
		pd_background_flush(q->pd);
		n->refused = true;
		n->lease_until = 0;
		snprintf(n->reason, sizeof n->reason, "%.*s", (int)sizeof n->reason - 1, err->text);
	} else {
		log_warn("pd", "%s: %s", s->conn != NULL ? s->conn->peer.address : "?", err->text);
	}
	/* It may hold older evidence than what refuses it. */
	if (s->conn != NULL &&
	    (q->root_version < root_version(trust_root(q->pd->trust)) ||
	     (q->pd->verdicts.revocations != NULL &&
	      q->revocations_version < revocations_version(q->pd->verdicts.revocations))))
		node_send_evidence(q->pd, s);
	request_fail(q, err);
}

static void lease_grant(struct pd_request *q)
{
	struct pd *pd = q->pd;
	struct reg_node *n = q->node;
	const struct verdict_site *site = verdicts_site(&pd->verdicts, n->site);
	Pave__V1__Control m = PAVE__V1__CONTROL__INIT;
	Pave__V1__LeaseReply reply = PAVE__V1__LEASE_REPLY__INIT;
	struct error err;

	if (permits_lease(&pd->permits, n, q->nonce, q->nonce_size, &reply.lease, &n->lease_until,
			  &err) != 0) {
		refuse(q, n, &err);
		pd_arm_evidence_timer(pd);
		return;
	}
	if (!pd_ledger_lease(&pd->ledger, reply.lease)) {
		pave__v1__signed__free_unpacked(reply.lease, NULL);
		request_commit(q, lease_grant);
		return;
	}
	if (n->refused || n->reason[0] != '\0')
		log_info("pd", "node %s has a lease again", n->name);
	n->refused = false;
	n->reason[0] = '\0';
	reply.wall = reactor_wall_ns(pd->reactor);
	if (q->revocations_version < revocations_version(pd->verdicts.revocations)) {
		reply.revocations.data = pd->verdicts.revocations_envelope;
		reply.revocations.len = pd->verdicts.revocations_size;
	}
	if (q->site_version < site_version(site->doc)) {
		reply.site_certificate.data = site->envelope;
		reply.site_certificate.len = site->envelope_size;
	}
	if (q->root_version < root_version(trust_root(pd->trust)))
		reply.root.data =
		    (uint8_t *)(uintptr_t)trust_root_envelope(pd->trust, &reply.root.len);
	reply.ledger_head = (Pave__V1__Signed *)(uintptr_t)pd_ledger_head(&pd->ledger);
	m.body_case = PAVE__V1__CONTROL__BODY_LEASE_REPLY;
	m.lease_reply = &reply;
	request_reply(q, &m);
	pave__v1__signed__free_unpacked(reply.lease, NULL);
	pd_arm_evidence_timer(pd);
}

/* The node's entry, made when its site is known and it is not there. NULL: *err. */
static struct reg_node *find_or_add(struct pd *pd, const Pave__V1__LeaseRequest *l,
				    struct error *err)
{
	struct reg_node *n = reg_node_find(&pd->reg, l->node);
	const struct verdict_brief *b;
	int64_t now;

	if (n != NULL)
		return n;
	if (permits_now(&pd->permits, &now, err) != 0)
		return NULL;
	if (pd->only_added) {
		error_set(err, -E_DENIED,
			  "node %s is not known, and this driver takes in none that was not added: "
			  "pave node add %s --site %s",
			  l->node, l->node, l->site);
		return NULL;
	}
	/* Strangers leave no trace. */
	b = verdicts_get(&pd->verdicts, l->site, NULL, now);
	if (!b->eligible) {
		error_set(err, -E_DENIED,
			  "node %s is not registered: its site %s is not eligible: %s", l->node,
			  l->site, b->why);
		return NULL;
	}
	n = reg_node_add(&pd->reg, l->node, l->site);
	if (n == NULL)
		error_set(err, -E_LIMIT, "node %s: there are %u nodes already, the most is %u",
			  l->node, HASH_COUNT(pd->reg.nodes), PD_NODES_MAX);
	else
		log_info("pd", "node %s of site %s is new", l->node, l->site);
	return n;
}

/* The node speaks over this session from now on. False: it did so before. */
static bool bind_session(struct pd_session *s, struct reg_node *n)
{
	if (n->session == s)
		return false;
	if (n->session != NULL)
		log_info("pd", "node %s has come back over another connection", n->name);
	if (s->node != NULL && s->node->session == s)
		s->node->session = NULL;
	s->node = n;
	n->session = s;
	return true;
}

void node_lease_request(struct pd_request *q, const Pave__V1__Control *m)
{
	const Pave__V1__LeaseRequest *l = m->lease_request;
	struct pd *pd = q->pd;
	struct reg_node *n = NULL;
	struct error err;
	bool changed, no_memory, came_back;

	q->revocations_version = l->revocations_version;
	q->site_version = l->site_version;
	q->root_version = l->root_version;
	q->session->root_told = l->root_version;
	if (check_form(l, &err) != 0)
		goto refused;
	memcpy(q->nonce, l->nonce.data, l->nonce.len);
	q->nonce_size = l->nonce.len;
	n = find_or_add(pd, l, &err);
	if (n == NULL)
		goto refused;
	if (check_identity(&pd->reg, n, l, &err) != 0) {
		n = NULL; /* it isn't the node, so the node's state is none of its business */
		goto refused;
	}
	came_back = bind_session(q->session, n);
	n->last_seen = reg_now(&pd->reg, NULL);
	if (check_clock(pd, n, l, &err) != 0) {
		if (err.code != -EAGAIN)
			goto refused;
		log_info("pd", "%s", err.text); /* what it holds, it keeps meanwhile */
		request_fail(q, &err);
		return;
	}
	if (check_certificate(pd, n, l, &err) != 0)
		goto refused;
	changed = note_node(pd, n, l, &no_memory);
	if (no_memory) {
		error_set(&err, -ENOMEM, "node %s: no memory for its addresses", n->name);
		goto refused;
	}
	q->node = n;
	if (came_back) { /* what else there is to erase, each tick of the moves sees to */
		n->erase_again_ns = 0;
		node_erase_all(pd);
	}
	if (changed) {
		reg_save_node(&pd->reg, n);
		request_commit(q, lease_grant);
	} else {
		lease_grant(q);
	}
	return;
refused:
	refuse(q, n, &err);
}

/* -- receipts --------------------------------------------------------------------------------- */

#define RECEIPTS_MAX	 64u   /* in one message */
#define RECEIPT_SIZE_MAX 4096u /* of one, packed */

static int check_receipts(const struct pd_session *s, const Pave__V1__Receipts *r,
			  struct error *err)
{
	/* A driver that may not lead has refused the lease request unseen. */
	if (s->node == NULL && permits_leads(&s->pd->permits, err) != 0)
		return err->code;
	if (s->node == NULL)
		return error_set(err, -EINVAL, "receipts come after a first lease request");
	/* Under a new root, until its certificate is signed again: they are not lost. */
	if (verdicts_site(&s->pd->verdicts, s->node->site) == NULL)
		return error_set(err, -E_STALE_EVIDENCE,
				 "node %s: receipts are taken once its site has a certificate",
				 s->node->name);
	if (r->n_receipts > RECEIPTS_MAX)
		return error_set(err, -E_LIMIT, "%zu receipts at once, of at most %u",
				 r->n_receipts, RECEIPTS_MAX);
	for (size_t i = 0; i < r->n_receipts; i++)
		if (pave__v1__signed__get_packed_size(r->receipts[i]) > RECEIPT_SIZE_MAX)
			return error_set(err, -E_BAD_DOCUMENT, "a receipt is over %u bytes",
					 RECEIPT_SIZE_MAX);
	return 0;
}

/* One that is in the ledger already was sent again because its answer was lost. */
static bool is_new(struct reg_node *n, const Pave__V1__Receipt *r)
{
	if (r->run < n->receipt_run || (r->run == n->receipt_run && r->serial <= n->receipt_serial))
		return false;
	n->receipt_run = r->run;
	n->receipt_serial = r->serial;
	return true;
}

/* Whether the node signed it and says no more than it may: nobody fills the ledger with what no
 * auditor could use. *ret_new: it is not there yet. */
static int check_receipt(struct pd *pd, struct reg_node *n, const Pave__V1__Signed *s,
			 bool *ret_new, struct error *err)
{
	const struct verdict_site *site = verdicts_site(&pd->verdicts, n->site);
	Pave__V1__Receipt *r = NULL;
	struct public_key *key = NULL;
	int rc = -E_BAD_DOCUMENT;

	if (n->certificate.size == 0 || site == NULL)
		return error_set(err, -E_BAD_SIGNATURE, "node %s has no identity that could sign",
				 n->name);
	rc = identity_verify(n->certificate.data, n->certificate.size, n->ca.data, n->ca.size,
			     site->doc, n->name, reg_now(&pd->reg, NULL), &key, err);
	if (rc == 0)
		rc = signed_verify_by(s, TYPE_RECEIPT, key, err);
	if (rc == 0) {
		r = pave__v1__receipt__unpack(NULL, s->payload.len, s->payload.data);
		if (r == NULL || strcmp(r->node, n->name) != 0)
			rc = error_set(err, -E_BAD_DOCUMENT,
				       "a receipt by %s is malformed, or not its own", n->name);
	}
	*ret_new = rc == 0 && is_new(n, r);
	if (r != NULL)
		pave__v1__receipt__free_unpacked(r, NULL);
	public_key_free(key);
	return rc;
}

void node_receipts(struct pd_request *q, const Pave__V1__Control *m)
{
	const Pave__V1__Receipts *r = m->receipts;
	struct pd *pd = q->pd;
	struct error err;

	if (check_receipts(q->session, r, &err) != 0) {
		request_fail(q, &err);
		return;
	}
	for (size_t i = 0; i < r->n_receipts; i++) {
		bool new = false;

		if (check_receipt(pd, q->session->node, r->receipts[i], &new, &err) != 0)
			log_warn("pd", "a receipt is dropped: %s", err.text);
		else if (new)
			pd_ledger_receipt(&pd->ledger, r->receipts[i]);
	}
	reg_save_node(&pd->reg, q->session->node);
	request_commit(q, request_done);
}
