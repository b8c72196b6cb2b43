/* permit: see permit.h.
 *
 * Happy path: signature, then shape, then times, and last the two deadlines. Failure modes: every
 * field is bounded before it is used, although a placement key signed it: a mistake of the driver
 * must not become a deadline in a hundred years. All times are non-negative, so that their
 * differences cannot overflow. */
#include "engine/evidence/permit.h"

#include <errno.h>
#include <inttypes.h>
#include <openssl/crypto.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/assert.h"
#include "engine/base/text.h"

#define BOUND_NS    ((int64_t)CLOCK_BOUND_NS)
#define LIFETIME_NS ((int64_t)(PERMIT_LIFETIME_MAX_MS * NS_PER_MS))
#define DIGEST_SIZE 32u

/* -- times ------------------------------------------------------------------------------------ */

static int check_span(const char *what, int64_t issued_at, int64_t expires_at, struct error *err)
{
	if (issued_at < 0 || expires_at <= issued_at)
		return error_set(err, -E_BAD_DOCUMENT, "%s: it expires before it is issued", what);
	if (expires_at - issued_at > LIFETIME_NS)
		return error_set(
		    err, -E_BAD_DOCUMENT, "%s: it lives %" PRId64 " ms, at most %u are believed",
		    what, (expires_at - issued_at) / (int64_t)NS_PER_MS, PERMIT_LIFETIME_MAX_MS);
	return 0;
}

/* From wall-clock times to a monotonic deadline, with the clock bound taken off. */
static int deadline(const char *what, int expired, const struct root_document *root,
		    int64_t issued_at, int64_t expires_at, uint64_t now_ns, int64_t wall_ns,
		    uint64_t *ret_deadline_ns, struct error *err)
{
	int64_t root_end = root_not_after(root);
	char text[40], wall[40];
	int rc = check_span(what, issued_at, expires_at, err);

	if (rc != 0)
		return rc;
	if (wall_ns < 0 || issued_at - wall_ns > BOUND_NS)
		return error_set(
		    err, -E_CLOCK_SKEW,
		    "%s: issued at %s, but it is %s here; the clocks may differ by %lld ms: "
		    "check the time service of both machines",
		    what, text_time(issued_at, text, sizeof text),
		    text_time(wall_ns, wall, sizeof wall),
		    (long long)(BOUND_NS / (int64_t)NS_PER_MS));
	if (root_end - wall_ns <= BOUND_NS)
		return error_set(err, -E_STALE_EVIDENCE,
				 "%s: the trust root ran out at %s; install a newer root", what,
				 text_time(root_end, text, sizeof text));
	if (expires_at - wall_ns <= BOUND_NS)
		return error_set(
		    err, expired, "%s: it ran out at %s (it is %s, clock bound %lld ms)", what,
		    text_time(expires_at, text, sizeof text), text_time(wall_ns, wall, sizeof wall),
		    (long long)(BOUND_NS / (int64_t)NS_PER_MS));
	*ret_deadline_ns = now_ns + (uint64_t)(MIN(expires_at, root_end) - wall_ns - BOUND_NS);
	POST(*ret_deadline_ns > now_ns);
	return 0;
}

/* -- shapes ----------------------------------------------------------------------------------- */

static int check_cluster(const char *what, const ProtobufCBinaryData *cluster,
			 const struct root_document *root, struct error *err)
{
	struct uuid theirs;
	char text[40], ours[40];

	if (cluster->len != sizeof theirs.bytes)
		return error_set(err, -E_BAD_DOCUMENT, "%s: cluster has %zu bytes, 16 are needed",
				 what, cluster->len);
	memcpy(theirs.bytes, cluster->data, sizeof theirs.bytes);
	if (root == NULL || uuid_equal(&theirs, root_cluster(root)))
		return 0;
	return error_set(err, -E_WRONG_CLUSTER, "%s: it is of cluster %s, this is %s", what,
			 text_uuid(&theirs, text, sizeof text),
			 text_uuid(root_cluster(root), ours, sizeof ours));
}

static int malformed(const char *what, const char *field, const char *bound, struct error *err)
{
	return error_set(err, -E_BAD_DOCUMENT, "%s: %s is malformed: %s", what, field, bound);
}

static int by_node(const void *a, const void *b)
{
	const Pave__V1__PermitNode *const *x = a, *const *y = b;

	return strcmp((*x)->node, (*y)->node);
}

/* Each once: in their order, because there may be hundreds. */
static int check_permit_distinct(const Pave__V1__Permit *p, struct error *err)
{
	const Pave__V1__PermitNode *sorted[PERMIT_NODES_MAX];

	for (size_t i = 0; i < p->n_nodes; i++)
		sorted[i] = p->nodes[i];
	qsort(sorted, p->n_nodes, sizeof sorted[0], by_node);
	for (size_t i = 1; i < p->n_nodes; i++)
		if (strcmp(sorted[i - 1]->node, sorted[i]->node) == 0)
			return error_set(err, -E_BAD_DOCUMENT, "permit: node %s is named twice",
					 sorted[i]->node);
	return 0;
}

static int check_permit_nodes(const Pave__V1__Permit *p, struct error *err)
{
	if (p->n_nodes < 1 || p->n_nodes > PERMIT_NODES_MAX)
		return error_set(err, -E_BAD_DOCUMENT,
				 "permit: it names %zu nodes, 1 to %u are allowed", p->n_nodes,
				 PERMIT_NODES_MAX);
	for (size_t i = 0; i < p->n_nodes; i++) {
		if (!text_is_name(p->nodes[i]->node) || !text_is_name(p->nodes[i]->site))
			return malformed("permit", "a node", "names of node and site are needed",
					 err);
		if (p->nodes[i]->site_version == 0)
			return malformed("permit", "a node", "site_version begins with 1", err);
	}
	return check_permit_distinct(p, err);
}

static int check_permit_layers(const Pave__V1__Permit *p, struct error *err)
{
	size_t open = 0;

	if (p->n_layers > PERMIT_LAYERS_MAX)
		return error_set(err, -E_BAD_DOCUMENT,
				 "permit: it names %zu layers, up to %u are allowed", p->n_layers,
				 PERMIT_LAYERS_MAX);
	for (size_t i = 0; i < p->n_layers; i++) {
		if (p->layers[i]->layer == 0 || p->layers[i]->layer > UINT32_MAX)
			return malformed("permit", "a layer", "it is from 1 to 2^32 - 1", err);
		if (p->layers[i]->open && (open++ != i || open > PERMIT_LAYERS_OPEN_MAX))
			return malformed("permit", "a layer",
					 "at most two are open, and they are the uppermost", err);
		for (size_t k = 0; k < i; k++)
			if (p->layers[k]->layer == p->layers[i]->layer)
				return malformed("permit", "a layer", "one is named twice", err);
	}
	if (p->n_layers > 0 && open == 0)
		return malformed("permit", "a layer", "the uppermost is open", err);
	return 0;
}

static int check_permit(const Pave__V1__Permit *p, const struct root_document *root,
			struct error *err)
{
	int rc = check_cluster("permit", &p->cluster, root, err);

	if (rc != 0)
		return rc;
	if (p->volume == 0)
		return malformed("permit", "volume", "it begins with 1", err);
	if (p->generation == 0 || p->generation > GENERATION_MAX)
		return malformed("permit", "generation", "it is from 1 to 2^24 - 1", err);
	if (p->policy_digest.len != DIGEST_SIZE)
		return malformed("permit", "policy_digest", "32 bytes are needed", err);
	if (!text_is_name(p->holder))
		return malformed("permit", "holder", "a name is needed", err);
	if (p->holder_site[0] != '\0' && !text_is_name(p->holder_site))
		return malformed("permit", "holder_site", "a name or nothing is needed", err);
	rc = check_span("permit", p->issued_at, p->expires_at, err);
	if (rc != 0)
		return rc;
	if (p->serve_after < 0 || p->serve_after - p->issued_at > 2 * LIFETIME_NS)
		return malformed("permit", "serve_after", "no older permit can live so long", err);
	rc = check_permit_layers(p, err);
	return rc != 0 ? rc : check_permit_nodes(p, err);
}

static int check_lease(const Pave__V1__Lease *l, const struct root_document *root,
		       struct error *err)
{
	int rc = check_cluster("lease", &l->cluster, root, err);

	if (rc != 0)
		return rc;
	if (!text_is_name(l->node) || !text_is_name(l->site))
		return malformed("lease", "node or site", "names are needed", err);
	if (l->site_version == 0 || l->revocations_version == 0)
		return malformed("lease", "site_version or revocations_version",
				 "they begin with 1", err);
	if (l->nonce.len == 0 || l->nonce.len > LEASE_NONCE_MAX)
		return malformed("lease", "nonce", "1 to 64 bytes are needed", err);
	return check_span("lease", l->issued_at, l->expires_at, err);
}

/* -- opening ---------------------------------------------------------------------------------- */

static void copy_name(char *ret, const char *name)
{
	PRE(strlen(name) < NAME_SIZE_MAX);
	memcpy(ret, name, strlen(name) + 1);
}

/* When the older permits have certainly run out: by this clock and its bound; and, should it go
 * before the driver's, not sooner after now than serve_after is after the moment of issue, which
 * was earlier. */
static uint64_t serve_after_ns(const Pave__V1__Permit *m, uint64_t now_ns, int64_t wall_ns)
{
	const int64_t wait_ns = m->serve_after - MIN(wall_ns, m->issued_at) + BOUND_NS;

	return m->serve_after > 0 && wait_ns > 0 ? now_ns + (uint64_t)wait_ns : 0;
}

static int take_permit(const Pave__V1__Permit *m, const struct root_document *root, uint64_t now_ns,
		       int64_t wall_ns, struct permit *p)
{
	p->volume = m->volume;
	p->generation = m->generation;
	p->serial = m->serial;
	p->map_version = m->map_version;
	memcpy(p->policy_digest, m->policy_digest.data, DIGEST_SIZE);
	copy_name(p->holder, m->holder);
	copy_name(p->holder_site, m->holder_site);
	p->issued_at = m->issued_at;
	p->expires_at = m->expires_at;
	p->serve_after = m->serve_after;
	p->serve_after_ns = serve_after_ns(m, now_ns, wall_ns);
	p->root_version = root_version(root);
	p->read_only = m->read_only;
	p->layer_count = (uint32_t)MAX(m->n_layers, (size_t)1);
	p->layers[0] = (struct permit_layer){m->volume, true};
	for (size_t i = 0; i < m->n_layers; i++)
		p->layers[i] = (struct permit_layer){m->layers[i]->layer, m->layers[i]->open};
	p->nodes = calloc(m->n_nodes, sizeof *p->nodes);
	if (p->nodes == NULL)
		return -ENOMEM;
	p->node_count = (uint32_t)m->n_nodes;
	for (size_t i = 0; i < m->n_nodes; i++) {
		copy_name(p->nodes[i].node, m->nodes[i]->node);
		copy_name(p->nodes[i].site, m->nodes[i]->site);
		p->nodes[i].site_version = m->nodes[i]->site_version;
	}
	return 0;
}

int permit_open(const Pave__V1__Signed *s, const struct root_document *root, uint64_t now_ns,
		int64_t wall_ns, struct permit *ret_permit, struct error *err)
{
	Pave__V1__Permit *m;
	struct permit p = {0};
	int rc = signed_verify(s, TYPE_PERMIT, root, err);

	if (rc != 0)
		return rc;
	m = pave__v1__permit__unpack(NULL, s->payload.len, s->payload.data);
	if (m == NULL)
		return error_set(err, -E_BAD_DOCUMENT, "permit: the payload is no permit");
	rc = check_permit(m, root, err);
	if (rc == 0)
		rc = deadline("permit", -E_PERMIT_EXPIRED, root, m->issued_at, m->expires_at,
			      now_ns, wall_ns, &p.deadline_ns, err);
	if (rc == 0) {
		rc = take_permit(m, root, now_ns, wall_ns, &p);
		if (rc != 0)
			error_set(err, rc, "permit: no memory");
	}
	pave__v1__permit__free_unpacked(m, NULL);
	if (rc == 0)
		*ret_permit = p;
	return rc;
}

const struct permit_node *permit_find_node(const struct permit *p, const char *node)
{
	for (uint32_t i = 0; i < p->node_count; i++)
		if (strcmp(p->nodes[i].node, node) == 0)
			return &p->nodes[i];
	return NULL;
}

const struct permit_layer *permit_find_layer(const struct permit *p, volume_id_t layer)
{
	if (layer == 0)
		layer = p->volume;
	for (uint32_t i = 0; i < p->layer_count; i++)
		if (p->layers[i].id == layer)
			return &p->layers[i];
	return NULL;
}

void permit_deinit(struct permit *p)
{
	free(p->nodes);
	*p = (struct permit){0};
}

/* s is as large as LEASE_SIGNED_MAX at most. */
static void take_lease(const Pave__V1__Signed *s, const Pave__V1__Lease *m,
		       const struct root_document *root, struct lease *l)
{
	copy_name(l->node, m->node);
	copy_name(l->site, m->site);
	l->site_version = m->site_version;
	l->revocations_version = m->revocations_version;
	l->serial = m->serial;
	l->issued_at = m->issued_at;
	l->expires_at = m->expires_at;
	l->root_version = root_version(root);
	memcpy(l->nonce, m->nonce.data, m->nonce.len);
	l->nonce_size = m->nonce.len;
	l->packed_size = pave__v1__signed__pack(s, l->packed);
}

int lease_open(const Pave__V1__Signed *s, const struct root_document *root, const void *nonce,
	       size_t nonce_size, uint64_t now_ns, int64_t wall_ns, struct lease *ret_lease,
	       struct error *err)
{
	Pave__V1__Lease *m;
	uint64_t deadline_ns = 0;
	int rc = signed_verify(s, TYPE_LEASE, root, err);

	if (rc != 0)
		return rc;
	if (pave__v1__signed__get_packed_size(s) > LEASE_SIGNED_MAX)
		return error_set(err, -E_BAD_DOCUMENT, "lease: it has more than %u bytes",
				 LEASE_SIGNED_MAX);
	m = pave__v1__lease__unpack(NULL, s->payload.len, s->payload.data);
	if (m == NULL)
		return error_set(err, -E_BAD_DOCUMENT, "lease: the payload is no lease");
	rc = check_lease(m, root, err);
	if (rc == 0 &&
	    (m->nonce.len != nonce_size || CRYPTO_memcmp(m->nonce.data, nonce, nonce_size) != 0))
		rc = error_set(err, -E_BAD_DOCUMENT,
			       "lease: it answers another request than the one that was sent");
	if (rc == 0)
		rc = deadline("lease", -E_LEASE_EXPIRED, root, m->issued_at, m->expires_at, now_ns,
			      wall_ns, &deadline_ns, err);
	if (rc == 0) {
		*ret_lease = (struct lease){.deadline_ns = deadline_ns};
		take_lease(s, m, root, ret_lease);
	}
	pave__v1__lease__free_unpacked(m, NULL);
	return rc;
}

int lease_open_again(const struct lease *lease, const struct root_document *root, uint64_t now_ns,
		     int64_t wall_ns, struct lease *ret_lease, struct error *err)
{
	Pave__V1__Signed *s = pave__v1__signed__unpack(NULL, lease->packed_size, lease->packed);
	struct lease again;
	int rc;

	if (s == NULL)
		return error_set(err, -ENOMEM, "lease: no memory");
	rc = lease_open(s, root, lease->nonce, lease->nonce_size, now_ns, wall_ns, &again, err);
	pave__v1__signed__free_unpacked(s, NULL);
	if (rc != 0)
		return rc;
	again.deadline_ns = MIN(again.deadline_ns, lease->deadline_ns);
	*ret_lease = again;
	return 0;
}

/* -- making ----------------------------------------------------------------------------------- */

static int make(const char *type, const ProtobufCMessage *message, struct signing_key *key,
		Pave__V1__Signed **ret, struct error *err)
{
	size_t size = protobuf_c_message_get_packed_size(message);
	uint8_t *payload;
	int rc;

	if (size > DOCUMENT_SIZE_MAX)
		return error_set(err, -E_BAD_DOCUMENT, "%s: %zu bytes, at most %u are allowed",
				 type, size, DOCUMENT_SIZE_MAX);
	payload = malloc(MAX(size, 1));
	if (payload == NULL)
		return error_set(err, -ENOMEM, "%s: no memory", type);
	protobuf_c_message_pack(message, payload);
	rc = signed_make(type, payload, size, key, ret, err);
	free(payload);
	return rc;
}

int permit_make(const Pave__V1__Permit *permit, struct signing_key *key, Pave__V1__Signed **ret,
		struct error *err)
{
	int rc = check_permit(permit, NULL, err);

	return rc != 0 ? rc : make(TYPE_PERMIT, &permit->base, key, ret, err);
}

int lease_make(const Pave__V1__Lease *lease, struct signing_key *key, Pave__V1__Signed **ret,
	       struct error *err)
{
	int rc = check_lease(lease, NULL, err);

	return rc != 0 ? rc : make(TYPE_LEASE, &lease->base, key, ret, err);
}
