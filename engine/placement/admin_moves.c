/* The driver and its admins: draining and removing nodes, rebalancing. See driver.h, moves.c. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/assert.h"
#include "engine/base/log.h"
#include "engine/base/text.h"
#include "engine/placement/driver.h"

#define PLAN_LIST_MAX 10000u /* moves in one answer */

static void answer(struct pd_request *q, Pave__V1__Control *m, struct arena *a)
{
	struct error err;

	if (arena_failed(a)) {
		error_set(&err, -ENOMEM, "no memory for the answer");
		request_fail(q, &err);
	} else {
		request_reply(q, m);
	}
	arena_deinit(a);
}

/* -- nodes ------------------------------------------------------------------------------------ */

static int check_add(struct pd *pd, const Pave__V1__NodeAdd *a, struct error *err)
{
	const struct verdict_site *site = verdicts_site(&pd->verdicts, a->site);
	struct reg_node *n = reg_node_find(&pd->reg, a->node);
	struct public_key *key = NULL;
	int rc;

	if (!text_is_name(a->node) || !text_is_name(a->site))
		return error_set(err, -EINVAL,
				 "a node and its site have names in [a-z0-9._-], up to %u long",
				 NAME_SIZE_MAX - 1);
	if (site == NULL)
		return error_set(
		    err, -ENOENT,
		    "node %s: there is no site \"%s\" with a certificate: pave site add "
		    "comes first",
		    a->node, a->site);
	if (n != NULL && strcmp(n->site, a->site) != 0)
		return error_set(err, -E_IN_USE,
				 "node %s is there already, in site %s: take another name", n->name,
				 n->site);
	if (n != NULL && n->certificate.size > 0)
		return error_set(
		    err, -E_IN_USE,
		    "node %s is there already, with an identity: take another name, or "
		    "pave node remove %s first",
		    n->name, n->name);
	rc = identity_verify(a->certificate.data, a->certificate.len, a->ca.data, a->ca.len,
			     site->doc, a->node, reg_now(&pd->reg, NULL), &key, err);
	if (rc == 0)
		public_key_free(key);
	return rc;
}

void admin_node_add(struct pd_request *q, const Pave__V1__Control *m)
{
	const Pave__V1__NodeAdd *a = m->node_add;
	struct pd *pd = q->pd;
	struct reg_node *n = NULL;
	struct error err;
	int rc = check_add(pd, a, &err);

	if (rc == 0) {
		n = reg_node_find(&pd->reg, a->node);
		if (n == NULL)
			n = reg_node_add(&pd->reg, a->node, a->site);
		if (n == NULL)
			rc = error_set(&err, -E_LIMIT, "there are %u nodes already, the most is %u",
				       HASH_COUNT(pd->reg.nodes), PD_NODES_MAX);
	}
	if (rc == 0 && reg_node_set_identity(n, &a->certificate, &a->ca) != 0)
		rc = error_set(&err, -ENOMEM, "no memory for the identity of node %s", a->node);
	if (rc != 0) {
		request_fail(q, &err);
		return;
	}
	log_info("pd", "node %s of site %s is added", n->name, n->site);
	reg_save_node(&pd->reg, n);
	pd_ledger_node(&pd->ledger, n);
	request_commit(q, request_done);
}

void admin_node_drain(struct pd_request *q, const Pave__V1__Control *m)
{
	const Pave__V1__NodeDrain *d = m->node_drain;
	struct pd *pd = q->pd;
	uint32_t found = 0;
	struct error err;

	for (struct reg_node *n = pd->reg.nodes; n != NULL; n = n->hh.next) {
		if (d->site[0] != '\0' ? strcmp(n->site, d->site) != 0
				       : strcmp(n->name, d->node) != 0)
			continue;
		found++;
		if (n->drain == !d->undo)
			continue;
		n->drain = !d->undo;
		log_info("pd", "node %s: %s", n->name, n->drain ? "drain" : "takes copies again");
		reg_save_node(&pd->reg, n);
	}
	if (found == 0) {
		if (d->site[0] != '\0')
			error_set(&err, -ENOENT, "no node is in a site \"%.63s\": pave node list",
				  d->site);
		else
			error_set(&err, -ENOENT, "there is no node \"%.63s\": pave node list",
				  d->node);
		request_fail(q, &err);
		return;
	}
	moves_replan(pd);
	request_commit(q, request_done);
}

static int check_remove(struct pd *pd, const struct reg_node *n, const Pave__V1__NodeRemove *r,
			struct error *err)
{
	if (n == NULL)
		return error_set(err, -ENOENT, "there is no node \"%.63s\": pave node list",
				 r->node);
	if (n->session != NULL)
		return error_set(err, -E_IN_USE,
				 "node %s is connected, and would come back by itself: stop its "
				 "pave-node first",
				 n->name);
	if (r->force || !node_holds_any(&pd->reg, n))
		return 0;
	return error_set(
	    err, -E_IN_USE,
	    "node %s: %llu chunks are placed on it%s: pave node drain %s first, or, if "
	    "it is lost, --force",
	    n->name, (unsigned long long)n->placed_chunks,
	    n->placed_chunks == 0 ? ", and copies wait to be erased" : "", n->name);
}

void admin_node_remove(struct pd_request *q, const Pave__V1__Control *m)
{
	const Pave__V1__NodeRemove *r = m->node_remove;
	struct pd *pd = q->pd;
	struct reg_node *n = reg_node_find(&pd->reg, r->node);
	struct error err;

	if (check_remove(pd, n, r, &err) != 0) {
		request_fail(q, &err);
		return;
	}
	/* Its copies are replaced at once, and then it is forgotten: moves.c. */
	log_info("pd", "node %s is removed; %llu chunks have to be replaced", n->name,
		 (unsigned long long)n->placed_chunks);
	n->removed = true;
	reg_save_node(&pd->reg, n);
	moves_replan(pd);
	request_commit(q, request_done);
}

/* -- rebalancing ------------------------------------------------------------------------------ */

static Pave__V1__PlannedMove *planned(struct arena *a, const char *volume, chunk_no_t chunk,
				      struct reg_node *from, struct reg_node *to, enum move_why why)
{
	Pave__V1__PlannedMove *m = arena_get(a, sizeof *m);

	if (m == NULL)
		return NULL;
	pave__v1__planned_move__init(m);
	m->volume = arena_text(a, volume);
	m->chunk = chunk;
	m->from = from->name;
	m->to = to->name;
	m->why = arena_text(a, move_why_name(why));
	return m;
}

static void fill_loads(struct arena *a, const struct moves_plan *plan,
		       Pave__V1__RebalancePlanReply *r)
{
	r->loads = arena_get(a, (plan->load_count + 1) * sizeof *r->loads);
	for (size_t i = 0; r->loads != NULL && i < plan->load_count; i++) {
		Pave__V1__NodeLoad *l = arena_get(a, sizeof *l);

		if (l == NULL)
			return;
		pave__v1__node_load__init(l);
		l->node = plan->loads[i].node->name;
		l->site = plan->loads[i].node->site;
		l->size_bytes = plan->loads[i].node->size_bytes;
		l->placed_before = plan->loads[i].before;
		l->placed_after = plan->loads[i].after;
		r->loads[r->n_loads++] = l;
	}
}

static void send_plan(struct pd *pd, int status, struct moves_plan *plan, void *arg)
{
	struct pd_request *q = arg;
	const size_t count = MIN(plan->count, (size_t)q->plan_moves_max);
	Pave__V1__Control reply = PAVE__V1__CONTROL__INIT;
	Pave__V1__RebalancePlanReply r = PAVE__V1__REBALANCE_PLAN_REPLY__INIT;
	struct arena a = {0};
	struct error err;

	if (status != 0) {
		error_set(&err, status, "no memory for a plan");
		request_fail(q, &err);
		return;
	}
	r.moves = arena_get(&a, (count + 1) * sizeof *r.moves);
	for (size_t i = 0; r.moves != NULL && i < count; i++) {
		const struct planned_move *p = &plan->moves[i];
		const struct reg_volume *v = reg_volume_by_id(&pd->reg, p->volume);

		if (v != NULL) /* it may be deleted since */
			r.moves[r.n_moves++] =
			    planned(&a, v->name, p->chunk, p->from, p->to, p->why);
	}
	r.move_count = plan->count;
	r.chunk_bytes = plan->chunk_bytes;
	r.copy_bytes = plan->copy_bytes;
	r.rate = pd->reg.planner.rate;
	fill_loads(&a, plan, &r);
	r.stuck = plan->stuck;
	r.stuck_why = plan->stuck_why;
	reply.body_case = PAVE__V1__CONTROL__BODY_REBALANCE_PLAN_REPLY;
	reply.rebalance_plan_reply = &r;
	answer(q, &reply, &a);
}

void admin_rebalance_plan(struct pd_request *q, const Pave__V1__Control *m)
{
	struct error err;
	int rc;

	q->plan_moves_max = MIN(m->rebalance_plan->moves_max, PLAN_LIST_MAX);
	rc = moves_plan(q->pd, m->rebalance_plan->balance, SIZE_MAX, send_plan, q);
	if (rc == 0)
		return;
	if (rc == -E_LIMIT)
		error_set(&err, rc, "%u plans are being made already, the most: try again later",
			  PD_PLANS_MAX);
	else
		error_set(&err, rc, "no memory for a plan");
	request_fail(q, &err);
}

void admin_rebalance_set(struct pd_request *q, const Pave__V1__Control *m)
{
	const Pave__V1__RebalanceSet *s = m->rebalance_set;
	struct pd *pd = q->pd;
	struct reg_planner *p = &pd->reg.planner;
	struct error err;

	if (s->has_replace_after && s->replace_after_s == 0) {
		error_set(&err, -EINVAL, "a lost node is replaced after at least a second");
		request_fail(q, &err);
		return;
	}
	if (strcmp(s->action, "run") == 0) {
		p->balancing = true;
		p->paused = false;
	} else if (strcmp(s->action, "pause") == 0) {
		p->paused = true;
	} else if (strcmp(s->action, "resume") == 0) {
		p->paused = false;
	} else if (strcmp(s->action, "cancel") == 0) {
		p->balancing = p->paused = false;
	} else if (strcmp(s->action, "set") != 0) {
		error_set(&err, -EINVAL, "there is no action \"%.32s\"", s->action);
		request_fail(q, &err);
		return;
	}
	if (s->has_rate)
		p->rate = s->rate;
	if (s->has_replace_after)
		p->replace_after_s = s->replace_after_s;
	log_info("pd", "rebalance: %s; %llu bytes a second, lost nodes are replaced after %u s",
		 s->action, (unsigned long long)p->rate, p->replace_after_s);
	pd->next_move_ns = 0;
	reg_save_planner(&pd->reg);
	moves_replan(pd);
	request_commit(q, request_done);
}

static void fill_active(struct pd *pd, struct arena *a, Pave__V1__RebalanceStatusReply *r)
{
	size_t count = 0;

	for (const struct reg_volume *v = pd->reg.volumes; v != NULL; v = v->hh.next) {
		count += v->move_count;
		r->erasing += v->drop_count;
	}
	r->active = arena_get(a, (count + 1) * sizeof *r->active);
	for (struct reg_volume *v = pd->reg.volumes; r->active != NULL && v != NULL; v = v->hh.next)
		for (uint32_t i = 0; i < v->move_count; i++) {
			const struct reg_move *m = &v->moves[i];
			Pave__V1__ActiveMove *x = arena_get(a, sizeof *x);

			if (x == NULL)
				return;
			pave__v1__active_move__init(x);
			x->move = planned(a, v->name, m->chunk, m->from, m->to, m->why);
			x->since = m->since;
			r->active[r->n_active++] = x;
		}
}

/* That nothing is to do is known only by a plan of the facts as they are: the tick after a drain
 * makes it. */
static const char *state_name(struct pd *pd)
{
	const struct reg_planner *p = &pd->reg.planner;

	if (p->paused)
		return "paused";
	if (p->started_at != 0)
		return "running";
	return moves_plan_is_due(pd) ? "planning" : "idle";
}

void admin_rebalance_status(struct pd_request *q, const Pave__V1__Control *m)
{
	struct pd *pd = q->pd;
	const struct reg_planner *p = &pd->reg.planner;
	Pave__V1__Control reply = PAVE__V1__CONTROL__INIT;
	Pave__V1__RebalanceStatusReply r = PAVE__V1__REBALANCE_STATUS_REPLY__INIT;
	struct arena a = {0};

	(void)m;
	r.state = arena_text(&a, state_name(pd));
	r.balancing = p->balancing;
	r.rate = p->rate;
	r.replace_after_s = p->replace_after_s;
	r.started_at = p->started_at;
	r.moves_total = MAX(p->moves_total, p->moves_done);
	r.moves_done = p->moves_done;
	r.bytes_total = MAX(p->bytes_total, p->bytes_done);
	r.bytes_done = p->bytes_done;
	fill_active(pd, &a, &r);
	r.stuck = pd->plan.stuck;
	r.stuck_why = pd->plan.stuck_why;
	r.wall = reactor_wall_ns(pd->reactor);
	reply.body_case = PAVE__V1__CONTROL__BODY_REBALANCE_STATUS_REPLY;
	reply.rebalance_status_reply = &r;
	answer(q, &reply, &a);
}
