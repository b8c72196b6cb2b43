/* Permits and leases: see permits.h. */
#include "engine/placement/permits.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/assert.h"
#include "engine/base/text.h"
#include "engine/placement/layers.h"

int permits_now(struct permits *p, int64_t *ret_now, struct error *err)
{
	int64_t back;
	int64_t now = reg_now(p->reg, &back);
	char seen[40];

	if (back > (int64_t)CLOCK_BOUND_NS)
		return error_set(err, -E_CLOCK_SKEW,
				 "the placement driver's clock went back by %lld ms, the bound is "
				 "%llu ms: it has seen %s already, and issues nothing before that; "
				 "set its clock right",
				 (long long)(back / (int64_t)NS_PER_MS),
				 (unsigned long long)(CLOCK_BOUND_NS / NS_PER_MS),
				 text_time(now, seen, sizeof seen));
	*ret_now = now;
	return 0;
}

int permits_leads(const struct permits *p, struct error *err)
{
	if (p->shared == NULL || p->shared->may_issue(p->shared->arg))
		return 0;
	return error_set(err, -E_NOT_LEADER,
			 "this placement driver cannot be sure to lead at this moment, and issues "
			 "nothing: another one may, or etcd has no majority");
}

/* Of each node of the map. A volume may lie on two hundred of them, and this is asked for every
 * permit: once. */
struct looks {
	const struct verdict_brief *of[REG_MAP_NODES_MAX];
};

static void look_at_nodes(struct permits *p, const struct reg_volume *v, int64_t now,
			  struct looks *ret)
{
	for (uint32_t i = 0; i < v->node_count; i++)
		ret->of[i] = verdicts_get(p->verdicts, v->nodes[i]->site, v->policy, now);
}

/* How long the evidence of all eligible nodes but those that end at once lasts; 0: none is
 * eligible. */
static int64_t nodes_until(const struct reg_volume *v, const struct looks *looks, int64_t now,
			   int64_t *ret_from)
{
	int64_t longest = 0;
	int64_t until = INT64_MAX;

	for (uint32_t i = 0; i < v->node_count; i++)
		if (looks->of[i]->eligible)
			longest = MAX(longest, looks->of[i]->until);
	if (longest == 0)
		return 0;
	/* Those that last beyond the margin; or, when none does, all. */
	*ret_from = longest > now + PERMIT_MARGIN_NS ? now + PERMIT_MARGIN_NS : now;
	for (uint32_t i = 0; i < v->node_count; i++)
		if (looks->of[i]->eligible && looks->of[i]->until > *ret_from)
			until = MIN(until, looks->of[i]->until);
	return until;
}

static int check_nodes(struct permits *p, const struct reg_volume *v, int64_t now,
		       struct error *err)
{
	const struct reg_node *first = v->nodes[0];

	for (uint32_t i = 0; i < v->node_count; i++)
		if (verdicts_get(p->verdicts, v->nodes[i]->site, v->policy, now)->eligible)
			return 0;
	return error_set(err, -E_DENIED,
			 "volume %s: none of its %u nodes is in a site that is eligible under "
			 "policy %s; %s in %s: %s",
			 v->name, v->node_count, v->policy, first->name, first->site,
			 verdicts_get(p->verdicts, first->site, v->policy, now)->why);
}

int permits_check(struct permits *p, struct reg_volume *v, const char *holder_site,
		  int64_t *ret_until, struct error *err)
{
	const struct policy_document *policy = verdicts_policy(p->verdicts, v->policy);
	const struct verdict_brief *b;
	int64_t until = INT64_MAX;
	int64_t now;
	int rc = permits_now(p, &now, err);

	if (rc != 0)
		return rc;
	if (policy == NULL)
		return error_set(err, -E_DENIED,
				 "volume %s: its policy %s is not in force: have it signed under "
				 "the trust root in force, and put it (pave policy put)",
				 v->name, v->policy);
	if (policy_host_must_be_eligible(policy)) {
		if (holder_site[0] == '\0')
			return error_set(err, -E_DENIED,
					 "volume %s: policy %s (hosts: eligible) wants the "
					 "attaching host in an eligible site, and it names none: "
					 "give its site",
					 v->name, v->policy);
		b = verdicts_get(p->verdicts, holder_site, v->policy, now);
		if (!b->eligible)
			return error_set(err, -E_DENIED,
					 "volume %s: policy %s (hosts: eligible) refuses a host in "
					 "site %s: %s",
					 v->name, v->policy, holder_site, b->why);
		until = b->until;
	}
	rc = check_nodes(p, v, now, err);
	if (rc == 0 && ret_until != NULL)
		*ret_until = until;
	return rc;
}

void permits_durable(struct reg_volume *v, int64_t bound)
{
	INVARIANT(bound <= v->attachment.bound);
	v->attachment.durable = MAX(v->attachment.durable, bound);
}

int permits_reserve(struct permits *p, struct reg_volume *v, int64_t *ret_bound, struct error *err)
{
	int64_t now;
	int rc = permits_now(p, &now, err);

	PRE(v->attachment.live);
	if (rc != 0)
		return rc;
	v->attachment.bound = MAX(v->attachment.bound, now + p->lifetime_ns);
	v->attachment.boot_ns = reactor_now_ns(p->reg->reactor) + (uint64_t)p->lifetime_ns;
	v->attachment.serial++;
	reg_save_volume(p->reg, v);
	*ret_bound = v->attachment.bound;
	return 0;
}

/* The nodes of the permit: eligible, and for longer than from. */
static size_t fill_nodes(struct permits *p, const struct reg_volume *v, const struct looks *looks,
			 int64_t from, Pave__V1__PermitNode *nodes, Pave__V1__PermitNode **list)
{
	size_t count = 0;

	for (uint32_t i = 0; i < v->node_count; i++) {
		const struct reg_node *n = v->nodes[i];
		const struct verdict_brief *b = looks->of[i];

		if (!b->eligible || b->until <= from)
			continue;
		pave__v1__permit_node__init(&nodes[count]);
		nodes[count].node = (char *)(uintptr_t)n->name;
		nodes[count].site = (char *)(uintptr_t)n->site;
		nodes[count].site_version = site_version(verdicts_site(p->verdicts, n->site)->doc);
		list[count] = &nodes[count];
		count++;
	}
	return count;
}

/* The volume's layers, if it has others than the one with its id. A layer below that is not sealed
 * may be written by its owner's attachment only; any other waits for that. */
static int fill_layers(struct permits *p, const struct reg_volume *v, Pave__V1__PermitLayer *layers,
		       Pave__V1__PermitLayer **list, size_t *ret_count, struct error *err)
{
	volume_id_t ids[PERMIT_LAYERS_MAX];
	const uint32_t count = layers_of(p->reg, v, ids, PERMIT_LAYERS_MAX);
	const struct reg_layer *open = layers_open_below(p->reg, v);

	*ret_count = 0;
	if (open != NULL && (open->owner != v->id || count < 2 || open->id != ids[1]))
		return layers_unsettled(p->reg, v, open, err);
	if (count == 1 && ids[0] == v->id)
		return 0;
	for (uint32_t i = 0; i < count; i++) {
		pave__v1__permit_layer__init(&layers[i]);
		layers[i].layer = ids[i];
		layers[i].open = i == 0 || (open != NULL && open->id == ids[i]);
		list[i] = &layers[i];
	}
	*ret_count = count;
	return 0;
}

static int make(struct permits *p, struct reg_volume *v, Pave__V1__Signed **ret, struct error *err)
{
	const struct policy_document *policy = verdicts_policy(p->verdicts, v->policy);
	struct reg_attachment *a = &v->attachment;
	Pave__V1__Permit m = PAVE__V1__PERMIT__INIT;
	Pave__V1__PermitNode nodes[REG_MAP_NODES_MAX];
	Pave__V1__PermitNode *list[REG_MAP_NODES_MAX];
	Pave__V1__PermitLayer layers[PERMIT_LAYERS_MAX];
	Pave__V1__PermitLayer *layer_list[PERMIT_LAYERS_MAX];
	int64_t host_until, until, now, from;
	struct looks looks;
	int rc;

	if (!a->live)
		return error_set(err, -E_FENCED, "volume %s: the attachment was released", v->name);
	rc = permits_check(p, v, a->holder_site, &host_until, err);
	if (rc == 0)
		rc = permits_now(p, &now, err);
	if (rc != 0)
		return rc;
	look_at_nodes(p, v, now, &looks);
	until = nodes_until(v, &looks, now, &from);
	if (until == 0)
		return check_nodes(p, v, now, err);
	m.expires_at = MIN(MIN(until, host_until), a->durable);
	if (m.expires_at <= now)
		return error_set(err, -E_STALE_EVIDENCE,
				 "volume %s: the permit would have run out before it was given: "
				 "the register is too slow",
				 v->name);
	rc = fill_layers(p, v, layers, layer_list, &m.n_layers, err);
	if (rc != 0)
		return rc;
	m.layers = layer_list;
	m.cluster.data = p->reg->cluster.bytes;
	m.cluster.len = sizeof p->reg->cluster.bytes;
	m.volume = v->id;
	m.generation = a->generation;
	m.serial = a->serial;
	m.policy_digest.data = (uint8_t *)(uintptr_t)policy_digest(policy);
	m.policy_digest.len = 32;
	m.holder = a->holder;
	if (policy_host_must_be_eligible(policy))
		m.holder_site = a->holder_site;
	m.map_version = v->map_version;
	m.n_nodes = fill_nodes(p, v, &looks, from, nodes, list);
	m.nodes = list;
	m.issued_at = now;
	m.serve_after = reg_volume_older_end(p->reg, v, now);
	m.read_only = a->read_only;
	/* Last: time may have passed since anything else was asked. */
	rc = permits_leads(p, err);
	return rc == 0 ? permit_make(&m, p->key, ret, err) : rc;
}

int permits_make(struct permits *p, struct reg_volume *v, Pave__V1__Signed **ret, struct error *err)
{
	int rc = make(p, v, ret, err);

	if (rc == 0)
		p->issued++;
	else
		p->refused++;
	return rc;
}

/* Which error tells the node why its site has no lease. */
static int lease_refusal(const struct permits *p, const char *site, int64_t now)
{
	const struct revocations_document *r = p->verdicts->revocations;

	if (r == NULL || revocations_not_after(r) <= now)
		return -E_STALE_EVIDENCE;
	if (revocations_withdrawn(r, site, now, NULL, NULL))
		return -E_REVOKED;
	return verdicts_site(p->verdicts, site) != NULL ? -E_REVOKED : -E_DENIED;
}

int permits_lease(struct permits *p, const struct reg_node *n, const void *nonce, size_t nonce_size,
		  Pave__V1__Signed **ret, int64_t *ret_until, struct error *err)
{
	const struct verdict_brief *b;
	Pave__V1__Lease m = PAVE__V1__LEASE__INIT;
	int64_t now;
	int rc = permits_now(p, &now, err);

	if (rc != 0)
		return rc;
	b = verdicts_get(p->verdicts, n->site, NULL, now);
	if (!b->eligible)
		return error_set(err, lease_refusal(p, n->site, now),
				 "node %s gets no lease: its site %s is not eligible: %s", n->name,
				 n->site, b->why);
	m.cluster.data = p->reg->cluster.bytes;
	m.cluster.len = sizeof p->reg->cluster.bytes;
	m.node = (char *)(uintptr_t)n->name;
	m.site = (char *)(uintptr_t)n->site;
	m.site_version = site_version(verdicts_site(p->verdicts, n->site)->doc);
	m.revocations_version = revocations_version(p->verdicts->revocations);
	m.serial = ++p->lease_serial;
	m.issued_at = now;
	m.expires_at = MIN(now + p->lifetime_ns, b->until);
	m.nonce.data = (uint8_t *)(uintptr_t)nonce;
	m.nonce.len = nonce_size;
	rc = permits_leads(p, err);
	if (rc == 0)
		rc = lease_make(&m, p->key, ret, err);
	if (rc == 0)
		*ret_until = m.expires_at;
	return rc;
}
