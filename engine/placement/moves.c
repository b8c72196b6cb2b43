/* The driver and moves: plans, gives them to hosts a few at a time, changes the map, has old copies
 * erased. See driver.h; what happens on the host: engine/volume/move.h.
 *
 *   must leave, or levelling --plan--> planned --reg_move_begin, permit and list to the host-->
 *     under way --MoveCommit--> in the map (one batch) --the host has left it--> Erase --> gone
 *        \--reason or target gone: reg_move_cancel--> the learner's copy is erased likewise
 *
 * What must leave follows from what is true now (drain flags, evidence, how long a node has been
 * away), so nothing but that, the moves under way and the copies to be erased is kept: after a new
 * start the planner finds the rest again. A tick each second: reviews what is under way, plans anew
 * when the facts have changed or the last plan is used up, starts what the limits allow.
 *
 * INVARIANTS
 *  1. The map changes in move_commit only, on the word of the newest attachment, with a target
 * whose site is eligible at that moment.
 *  2. A copy is erased only when no attachment that may have it in its map can use it: the newest
 *     says that its move is over, or that attachment has ended. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <utlist.h>

#include "engine/base/assert.h"
#include "engine/base/log.h"
#include "engine/placement/driver.h"
#include "engine/placement/family.h"
#include "engine/placement/spread.h"

static const char *const why_names[MOVE_WHY_COUNT] = {
    [MOVE_WHY_NONE] = "none",	[MOVE_WHY_BALANCE] = "balance",
    [MOVE_WHY_DRAIN] = "drain", [MOVE_WHY_INELIGIBLE] = "ineligible",
    [MOVE_WHY_LOST] = "lost",	[MOVE_WHY_TOO_CLOSE] = "too-close"};

const char *move_why_name(enum move_why why)
{
	return why < MOVE_WHY_COUNT ? why_names[why] : "?";
}

/* -- facts ------------------------------------------------------------------------------------ */

bool node_is_lost(const struct pd *pd, const struct reg_node *n, int64_t now)
{
	const int64_t seen = MAX(n->last_up, pd->started_at);

	if (n->removed)
		return true;
	return node_state(n, now) != NODE_UP &&
	       now - seen > (int64_t)pd->reg.planner.replace_after_s * (int64_t)NS_PER_S;
}

static bool is_eligible(struct pd *pd, const struct reg_volume *v, const struct reg_node *n,
			int64_t now)
{
	return verdicts_get(&pd->verdicts, n->site, v->policy, now)->eligible;
}

static enum move_why leaves(const struct pd *pd, const struct reg_node *n, int64_t now)
{
	if (node_is_lost(pd, n, now))
		return MOVE_WHY_LOST;
	return n->drain ? MOVE_WHY_DRAIN : MOVE_WHY_NONE;
}

/* Copies may come to it, if there is room. Not where a device is in trouble: of what may lie on
 * that one the node tells nothing, and takes nothing (pool.h), so a learner might never have all.
 */
static bool is_target(const struct reg_node *n, int64_t now)
{
	return node_state(n, now) == NODE_UP && !n->drain && n->trouble[0] == '\0';
}

uint64_t move_bytes(const struct reg_volume *v, const struct reg_node *from)
{
	if (from->placed_chunks == 0)
		return v->chunk_size;
	return MIN(v->chunk_size, from->live_bytes / from->placed_chunks);
}

/* -- the plan --------------------------------------------------------------------------------- */

/* What the planner sees: a copy of the facts, so that a worker may look at it for as long as it
 * needs to, while they change. The nodes themselves stay as long as a plan is being made. */
struct view {
	struct rebalance_input in;
	struct reg_node **nodes;
	uint64_t *copy_bytes; /* by node: what of a copy there is to be moved, estimated */
	volume_id_t *ids;     /* by volume */
};

struct pd_planning {
	struct reactor_work work;
	struct pd *pd;
	struct arena arena;
	struct view view;
	struct moves_plan plan;
	struct rebalance_stuck stuck;
	int status;
	moves_planned_fn *done;
	void *arg;
	struct pd_planning *next, *prev; /* in pd->plannings; the first is with the worker */
};

static uint32_t site_index(struct pd *pd, struct arena *a, struct planner_site *sites,
			   uint32_t *count, const char *name)
{
	struct planner_site *p;

	for (uint32_t i = 0; i < *count; i++)
		if (strcmp(sites[i].name, name) == 0)
			return i;
	p = &sites[*count];
	*p = spread_site(&pd->verdicts, name);
	p->name = arena_text(a, p->name);
	p->campus = arena_text(a, p->campus);
	return (*count)++;
}

static void view_nodes(struct pd *pd, struct arena *a, struct view *w, struct planner_site *sites,
		       struct rebalance_node *nodes, int64_t now)
{
	for (struct reg_node *n = pd->reg.nodes; n != NULL; n = n->hh.next) {
		const bool up = node_state(n, now) == NODE_UP;

		n->plan_index = w->in.node_count;
		w->nodes[n->plan_index] = n;
		w->copy_bytes[n->plan_index] =
		    n->placed_chunks == 0 ? UINT64_MAX : n->live_bytes / n->placed_chunks;
		nodes[w->in.node_count++] = (struct rebalance_node){
		    .name = n->name,
		    .site = site_index(pd, a, sites, &w->in.site_count, n->site),
		    .up = up,
		    .takes = is_target(n, now) && planner_has_room(n->size_bytes, n->free_bytes),
		    .leaves = leaves(pd, n, now),
		    .size_bytes = MAX(n->size_bytes, (uint64_t)1),
		    .placed_bytes = n->placed_bytes,
		    .load = n->load,
		};
	}
	w->in.nodes = nodes;
	w->in.sites = sites;
}

static uint32_t policy_index(struct pd *pd, struct arena *a, struct view *w,
			     struct rebalance_policy *policies, const char **names,
			     const char *name, int64_t now)
{
	const struct policy_document *p = verdicts_policy(&pd->verdicts, name);
	uint32_t i = 0;
	bool *eligible;

	while (i < w->in.policy_count && strcmp(names[i], name) != 0)
		i++;
	if (i < w->in.policy_count)
		return i;
	eligible = arena_get(a, w->in.site_count + 1);
	for (uint32_t s = 0; eligible != NULL && s < w->in.site_count; s++)
		eligible[s] = verdicts_get(&pd->verdicts, w->in.sites[s].name, name, now)->eligible;
	names[i] = name;
	policies[i] = (struct rebalance_policy){
	    .distinct = p != NULL ? arena_text(a, policy_distinct(p)) : "campus",
	    .min_distance_km = p != NULL ? policy_min_distance_km(p) : 0,
	    .eligible = eligible,
	};
	w->in.policy_count++;
	return i;
}

/* A policy that is not known makes no site eligible: then nothing of the volume can move. */
static void view_volume(struct pd *pd, struct arena *a, struct view *w, struct reg_volume *v,
			struct rebalance_node *nodes, uint32_t policy, struct rebalance_volume *ret,
			int64_t now)
{
	const size_t map_size = (size_t)v->chunk_count * v->replicas;
	uint32_t *indices = arena_get(a, (v->node_count + 1) * sizeof *indices);
	const bool snapshot = reg_volume_is_snapshot(v);
	const uint32_t moving_max = snapshot ? v->chunk_count : 0;
	chunk_no_t *moving = arena_get(a, (REG_MOVES_MAX + moving_max + 1) * sizeof *moving);
	uint8_t *map = arena_get(a, map_size + 1);
	uint32_t moving_count = v->move_count;

	if (indices == NULL || moving == NULL || map == NULL)
		return;
	memcpy(map, v->map, map_size);
	for (uint32_t i = 0; i < v->node_count; i++)
		indices[i] = v->nodes[i]->plan_index;
	for (uint32_t i = 0; i < v->move_count; i++) {
		struct rebalance_node *from = &nodes[v->moves[i].from->plan_index];

		moving[i] = v->moves[i].chunk;
		from->placed_bytes -= MIN(v->chunk_size, from->placed_bytes);
		nodes[v->moves[i].to->plan_index].placed_bytes += v->chunk_size;
	}
	/* These move when the volume does whose snapshot it is. */
	for (chunk_no_t c = 0; snapshot && c < v->chunk_count; c++)
		if (family_follows(&pd->reg, v, c, NULL))
			moving[moving_count++] = c;
	*ret = (struct rebalance_volume){
	    .policy = policy,
	    .replicas = v->replicas,
	    .chunk_count = v->chunk_count,
	    .chunk_size = v->chunk_size,
	    .map = map,
	    .nodes = indices,
	    .node_count = v->node_count,
	    .moving = moving,
	    .moving_count = moving_count,
	    .served = reg_attachment_end(&pd->reg, v, now) != 0,
	};
	w->ids[w->in.volume_count++] = v->id;
}

/* What the planner sees. -ENOMEM. */
static int make_view(struct pd *pd, struct arena *a, struct view *w)
{
	const size_t nodes_max = HASH_COUNT(pd->reg.nodes) + 1;
	const size_t volumes_max = pd->reg.volume_count + 1;
	struct planner_site *sites = arena_get(a, nodes_max * sizeof *sites);
	struct rebalance_node *nodes = arena_get(a, nodes_max * sizeof *nodes);
	struct rebalance_policy *policies =
	    arena_get(a, (VERDICT_POLICIES_MAX + 1) * sizeof *policies);
	const char **names = arena_get(a, (VERDICT_POLICIES_MAX + 1) * sizeof *names);
	struct rebalance_volume *volumes = arena_get(a, volumes_max * sizeof *volumes);
	const int64_t now = reg_now(&pd->reg, NULL);

	w->nodes = arena_get(a, nodes_max * sizeof *w->nodes);
	w->copy_bytes = arena_get(a, nodes_max * sizeof *w->copy_bytes);
	w->ids = arena_get(a, volumes_max * sizeof *w->ids);
	if (arena_failed(a))
		return -ENOMEM;
	view_nodes(pd, a, w, sites, nodes, now);
	w->in.policies = policies;
	for (struct reg_volume *v = pd->reg.volumes; v != NULL; v = v->hh.next) {
		uint32_t policy;

		if (v->deleted || verdicts_policy(&pd->verdicts, v->policy) == NULL)
			continue;
		policy = policy_index(pd, a, w, policies, names, v->policy, now);
		view_volume(pd, a, w, v, nodes, policy, &volumes[w->in.volume_count], now);
	}
	w->in.volumes = volumes;
	return arena_failed(a) ? -ENOMEM : 0;
}

/* From what the planner knows by numbers to what the driver knows. */
static int translate(const struct view *w, const struct rebalance_plan *plan,
		     struct moves_plan *ret)
{
	struct moves_plan p = {.count = plan->count,
			       .load_count = w->in.node_count,
			       .chunk_bytes = plan->bytes,
			       .more = plan->more,
			       .stuck = plan->stuck.count};

	p.moves = calloc(plan->count + 1, sizeof *p.moves);
	p.loads = calloc(w->in.node_count + 1, sizeof *p.loads);
	if (p.moves == NULL || p.loads == NULL) {
		moves_plan_deinit(&p);
		return -ENOMEM;
	}
	for (size_t i = 0; i < plan->count; i++) {
		const struct rebalance_move *m = &plan->moves[i];

		p.moves[i] = (struct planned_move){w->ids[m->volume], m->chunk, w->nodes[m->from],
						   w->nodes[m->to],   m->why,	false};
		p.copy_bytes += MIN(w->in.volumes[m->volume].chunk_size, w->copy_bytes[m->from]);
	}
	for (uint32_t i = 0; i < w->in.node_count; i++)
		p.loads[i] = (struct moves_load){w->nodes[i], w->in.nodes[i].placed_bytes,
						 plan->placed_after[i]};
	*ret = p;
	return 0;
}

/* On a worker: touches nothing but the copy. */
static void planning_work(struct reactor_work *work)
{
	struct pd_planning *p = container_of(work, struct pd_planning, work);
	struct rebalance_plan plan = {0};

	p->status = rebalance_make(&p->view.in, &plan);
	if (p->status == 0)
		p->status = translate(&p->view, &plan, &p->plan);
	p->stuck = plan.stuck;
	rebalance_plan_deinit(&plan);
}

static void tell_stuck(struct pd_planning *p)
{
	const struct rebalance_stuck *s = &p->stuck;
	const struct reg_volume *v;

	if (p->status != 0 || s->count == 0)
		return;
	v = reg_volume_by_id(&p->pd->reg, p->view.ids[s->volume]);
	snprintf(p->plan.stuck_why, sizeof p->plan.stuck_why,
		 "volume %s, chunk %u on node %s (%s): %s", v != NULL ? v->name : "that is gone",
		 s->chunk, p->view.nodes[s->from]->name, move_why_name(s->why),
		 s->no_source
		     ? "too few of its copies are up and eligible to copy from: bring their "
		       "nodes back, or have their sites restored"
		     : "no other node is up, without trouble, eligible, not full, and goes "
		       "together with the other copies: pave node add, or undrain one");
}

static void planning_free(struct pd_planning *p)
{
	DL_DELETE(p->pd->plannings, p);
	p->pd->planning_count--;
	arena_deinit(&p->arena);
	moves_plan_deinit(&p->plan);
	free(p);
}

static void planning_done(struct reactor_work *work)
{
	struct pd_planning *p = container_of(work, struct pd_planning, work);
	struct pd *pd = p->pd;

	tell_stuck(p);
	p->done(pd, p->status, &p->plan, p->arg);
	planning_free(p);
	if (pd->plannings != NULL)
		reactor_offload(pd->reactor, &pd->plannings->work);
	pd_stop_if_done(pd);
}

int moves_plan(struct pd *pd, bool balance, size_t moves_max, moves_planned_fn *done, void *arg)
{
	struct pd_planning *p;

	if (pd->planning_count >= PD_PLANS_MAX)
		return -E_LIMIT;
	p = calloc(1, sizeof *p);
	if (p == NULL)
		return -ENOMEM;
	p->pd = pd;
	p->view.in.balance = balance;
	p->view.in.moves_max = moves_max;
	p->work = (struct reactor_work){.work = planning_work, .done = planning_done};
	p->done = done;
	p->arg = arg;
	if (make_view(pd, &p->arena, &p->view) != 0) {
		arena_deinit(&p->arena);
		free(p);
		return -ENOMEM;
	}
	pd->planning_count++;
	DL_APPEND(pd->plannings, p);
	if (pd->plannings == p)
		reactor_offload(pd->reactor, &p->work);
	return 0;
}

void moves_planning_drop(struct pd *pd)
{
	while (pd->plannings != NULL)
		planning_free(pd->plannings);
}

void moves_plan_deinit(struct moves_plan *p)
{
	free(p->moves);
	free(p->loads);
	memset(p, 0, sizeof *p);
}

/* -- under way -------------------------------------------------------------------------------- */

Pave__V1__Move **moves_list(const struct pd *pd, struct arena *a, const struct reg_volume *v,
			    size_t *ret_count)
{
	Pave__V1__Move **list = arena_get(a, (REG_MOVES_MAX + 1) * sizeof *list);

	*ret_count = 0;
	for (uint32_t i = 0; list != NULL && i < v->move_count; i++) {
		Pave__V1__Move *m;

		if (!reg_is_durable(&pd->reg, v->moves[i].batch))
			continue;
		m = arena_get(a, sizeof *m);
		if (m == NULL)
			return NULL;
		pave__v1__move__init(m);
		m->chunk = v->moves[i].chunk;
		m->from = v->moves[i].from->name;
		m->to = v->moves[i].to->name;
		list[(*ret_count)++] = m;
	}
	return list;
}

/* Whether there is still a reason, and a target. */
static bool still_wanted(struct pd *pd, const struct reg_volume *v, const struct reg_move *m,
			 int64_t now)
{
	const bool reason =
	    !is_eligible(pd, v, m->from, now) || leaves(pd, m->from, now) != MOVE_WHY_NONE ||
	    (m->why == MOVE_WHY_BALANCE && pd->reg.planner.balancing) ||
	    (m->why == MOVE_WHY_TOO_CLOSE && spread_is_too_close(pd, v, m->chunk, m->from, now));
	const int64_t seen = MAX(m->to->last_up, pd->started_at);

	return reason && is_eligible(pd, v, m->to, now) && !m->to->drain &&
	       m->to->trouble[0] == '\0' &&
	       (node_state(m->to, now) == NODE_UP ||
		now - seen <= (int64_t)(PD_TARGET_DOWN_S * NS_PER_S));
}

static void review(struct pd *pd, struct reg_volume *v, int64_t now)
{
	bool changed = false;

	for (uint32_t i = v->move_count; i-- > 0;) {
		struct reg_move *m = &v->moves[i];
		const struct reg_move was = *m;

		if (still_wanted(pd, v, m, now) || reg_move_cancel(&pd->reg, v, m) != 0)
			continue;
		log_info("pd", "volume %s: chunk %u does not move from %s to %s any more", v->name,
			 was.chunk, was.from->name, was.to->name);
		changed = true;
	}
	if (!changed)
		return;
	host_push_later(pd, v->id);
}

static bool may_start(struct pd *pd, struct reg_volume *v, const struct planned_move *m,
		      int64_t now)
{
	const struct reg_planner *p = &pd->reg.planner;
	const bool pressing = m->why >= MOVE_WHY_INELIGIBLE;

	return v->holder != NULL && v->holder->conn != NULL && v->move_count < REG_MOVES_MAX &&
	       m->chunk < v->chunk_count && reg_holds(v, m->chunk, m->from) &&
	       !reg_holds(v, m->chunk, m->to) && reg_move_find(v, m->chunk) == NULL &&
	       layers_open_below(&pd->reg, v) == NULL &&
	       !family_drops(&pd->reg, v, m->chunk, m->to) && m->to->learners < PD_NODE_MOVES_MAX &&
	       (pressing || (m->from->leavers < PD_NODE_MOVES_MAX && !p->paused &&
			     reactor_now_ns(pd->reactor) >= pd->next_move_ns)) &&
	       is_eligible(pd, v, m->to, now) && is_target(m->to, now);
}

/* Where another of its family goes, it goes too, if it can. */
static void join_family(struct pd *pd, struct reg_volume *v, struct planned_move *m, int64_t now)
{
	struct reg_node *to = m->chunk < v->chunk_count && reg_holds(v, m->chunk, m->from)
				  ? family_target(&pd->reg, v, m->chunk, m->from)
				  : NULL;

	if (to != NULL && is_eligible(pd, v, to, now) && is_target(to, now) &&
	    reg_has_number(v, to))
		m->to = to;
}

/* True: the volume has a new move. */
static bool start(struct pd *pd, struct planned_move *m, int64_t now)
{
	struct reg_volume *v = reg_volume_by_id(&pd->reg, m->volume);
	const uint64_t rate = pd->reg.planner.rate;
	const uint64_t now_ns = reactor_now_ns(pd->reactor);

	if (v == NULL || v->deleted || m->done)
		return false;
	if (merge_is_of(pd, v)) {
		merge_gives_way(pd, v);
		return false;
	}
	join_family(pd, v, m, now);
	if (!may_start(pd, v, m, now) ||
	    reg_move_begin(&pd->reg, v, m->chunk, m->from, m->to, m->why, now) != 0)
		return false;
	m->done = true;
	if (rate > 0)
		pd->next_move_ns = MAX(now_ns, pd->next_move_ns) +
				   (uint64_t)((double)move_bytes(v, m->from) * 1e9 / (double)rate);
	log_info("pd", "volume %s: chunk %u moves from %s to %s (%s)", v->name, m->chunk,
		 m->from->name, m->to->name, move_why_name(m->why));
	return true;
}

static void start_some(struct pd *pd, int64_t now)
{
	struct reg_volume *v;
	bool any = false;

	for (size_t i = 0; i < pd->plan.count; i++) {
		struct planned_move *m = &pd->plan.moves[i];

		if (!start(pd, m, now))
			continue;
		v = reg_volume_by_id(&pd->reg, m->volume);
		v->moves_changed = any = true;
	}
	if (!any)
		return;
	for (v = pd->reg.volumes; v != NULL; v = v->hh.next) {
		if (!v->moves_changed)
			continue;
		v->moves_changed = false;
		host_push_later(pd, v->id);
	}
}

/* -- detached volumes ------------------------------------------------------------------------- */

static bool is_maintained(struct pd *pd, const struct reg_volume *v, int64_t now)
{
	return v->attachment.maintenance && reg_attachment_end(&pd->reg, v, now) != 0;
}

/* Has the volume attached by a node that gets a copy. A lapsed attachment counts as none. What the
 * attachment of another volume has to settle first waits for that one. */
static void ask_maintenance(struct pd *pd, struct reg_volume *v, struct reg_node *n, int64_t now)
{
	const uint64_t now_ns = reactor_now_ns(pd->reactor);
	const struct reg_layer *open = layers_open_below(&pd->reg, v);
	Pave__V1__Control m = PAVE__V1__CONTROL__INIT;
	Pave__V1__Maintain maintain = PAVE__V1__MAINTAIN__INIT;
	char number[24];

	if (open != NULL && open->owner != v->id)
		v = reg_volume_by_id(&pd->reg, open->owner);
	if (v == NULL || v->deleted)
		return;
	if (now_ns < v->maintain_after_ns || n->session == NULL ||
	    reg_attachment_end(&pd->reg, v, now) != 0 ||
	    reg_volume_older_end(&pd->reg, v, now) != 0)
		return;
	v->maintain_after_ns = now_ns + PD_MAINTAIN_AGAIN_S * NS_PER_S;
	/* Nodes are told no names of volumes. */
	snprintf(number, sizeof number, "#%llu", (unsigned long long)v->id);
	maintain.volume = number;
	m.body_case = PAVE__V1__CONTROL__BODY_MAINTAIN;
	m.maintain = &maintain;
	rpc_notify(&n->session->rpc, &m);
}

/* Nodes that are there and say that something is damaged: few, if any, while volumes are many. */
struct damaged {
	struct reg_node *nodes[PD_NODES_MAX];
	uint32_t count;
};

static void find_damaged(const struct pd *pd, struct damaged *ret)
{
	ret->count = 0;
	for (struct reg_node *n = pd->reg.nodes; n != NULL; n = n->hh.next)
		if (n->session != NULL && n->damaged_count > 0)
			ret->nodes[ret->count++] = n;
}

static bool lies_on(const struct reg_volume *v, const struct reg_node *n)
{
	for (chunk_no_t c = 0; c < v->chunk_count; c++)
		if (reg_holds(v, c, n))
			return true;
	return false;
}

/* One that says it of a layer of v, which lies there; NULL: none. *ret_seen_to: on all such nodes
 * who has another volume attached sees to it. */
static struct reg_node *damaged_node(struct pd *pd, const struct reg_volume *v,
				     const struct damaged *d, int64_t now, bool *ret_seen_to)
{
	struct reg_node *found = NULL;

	*ret_seen_to = true;
	for (uint32_t k = 0; k < d->count; k++)
		for (uint32_t i = 0; i < d->nodes[k]->damaged_count && *ret_seen_to; i++) {
			struct reg_node *n = d->nodes[k];

			if (!family_stands_on(&pd->reg, v, n->damaged[i]) || !lies_on(v, n))
				continue;
			*ret_seen_to = family_has_host(&pd->reg, v, n->damaged[i], n, now);
			found = n;
		}
	return found;
}

/* Whoever attaches the volume is told by the nodes what to write again. What cannot be repaired
 * does not keep a maintenance going for ever. */
static void maintain_damaged(struct pd *pd, struct reg_volume *v, const struct damaged *d,
			     int64_t now)
{
	const uint64_t now_ns = reactor_now_ns(pd->reactor);
	bool seen_to;
	struct reg_node *n = damaged_node(pd, v, d, now, &seen_to);

	/* A host that has it writes it again without being asked for. */
	if (n == NULL ||
	    (!v->attachment.maintenance && reg_attachment_end(&pd->reg, v, now) != 0)) {
		v->repair_until_ns = 0;
		v->repair_again_ns = 0;
		return;
	}
	/* How long it was tried for is not forgotten: two of a family would go on by turns. */
	if (seen_to)
		return;
	if (now_ns >= v->repair_again_ns) {
		v->repair_until_ns = now_ns + PD_REPAIR_S * NS_PER_S;
		v->repair_again_ns = now_ns + PD_REPAIR_AGAIN_S * NS_PER_S;
	}
	if (now_ns >= v->repair_until_ns)
		return;
	v->idle_ticks = 0;
	ask_maintenance(pd, v, n, now);
}

/* As many copies as may are on their way already. */
static bool must_wait(const struct planned_move *m)
{
	return m->to->learners >= PD_NODE_MOVES_MAX ||
	       (m->why < MOVE_WHY_INELIGIBLE && m->from->leavers >= PD_NODE_MOVES_MAX);
}

/* What is planned for volumes that nobody has. A node maintains one volume at a time, so one that
 * has to wait for moves under way leaves the place to those whose they are. */
static void maintain_planned(struct pd *pd, int64_t now)
{
	for (size_t i = 0; i < pd->plan.count; i++) {
		const struct planned_move *m = &pd->plan.moves[i];
		struct reg_volume *v = m->done ? NULL : reg_volume_by_id(&pd->reg, m->volume);

		if (v == NULL || v->deleted || must_wait(m) ||
		    (pd->reg.planner.paused && m->why < MOVE_WHY_INELIGIBLE))
			continue;
		v->idle_ticks = 0;
		ask_maintenance(pd, v, m->to, now);
	}
}

/* Whoever had it has gone without a word, and what it may believe to have keeps copies from being
 * erased. NULL: not so; else a node that can attach it for maintenance, which ends that. */
static struct reg_node *find_heir(struct pd *pd, const struct reg_volume *v, int64_t now)
{
	const int64_t gone_ns = now - v->attachment.bound;
	bool waits = false;

	for (uint32_t i = 0; i < v->drop_count; i++)
		waits = waits || (!v->drops[i].released && v->drops[i].generation == v->generation);
	if (!waits || !v->attachment.live || reg_attachment_end(&pd->reg, v, now) != 0 ||
	    gone_ns < (int64_t)(PD_GONE_S * NS_PER_S))
		return NULL;
	for (uint32_t i = 0; i < v->node_count; i++)
		if (node_state(v->nodes[i], now) == NODE_UP && is_eligible(pd, v, v->nodes[i], now))
			return v->nodes[i];
	return NULL;
}

/* Maintenance begins where something has to move, to be repaired, to be erased, or to be sealed so
 * that it can be, and nobody has the volume, and ends where nothing does. What is under way or to
 * be erased from before has to come to its end as well. */
static void maintain(struct pd *pd, int64_t now)
{
	struct damaged damaged;
	struct reg_volume *v;
	struct reg_node *n;

	find_damaged(pd, &damaged);
	maintain_planned(pd, now);
	for (v = pd->reg.volumes; v != NULL; v = v->hh.next) {
		if (v->deleted)
			continue;
		maintain_damaged(pd, v, &damaged, now);
		n = find_heir(pd, v, now);
		if (n != NULL)
			ask_maintenance(pd, v, n, now);
		n = merge_wants_host(pd, v, now);
		if (n != NULL) {
			v->idle_ticks = 0;
			ask_maintenance(pd, v, n, now);
		}
		if (v->move_count > 0) {
			v->idle_ticks = 0;
			ask_maintenance(pd, v, v->moves[0].to, now);
		} else if (is_maintained(pd, v, now) && v->holder != NULL &&
			   ++v->idle_ticks >= PD_MAINTAIN_IDLE) {
			host_notify_detach(v);
		}
	}
}

/* -- the tick --------------------------------------------------------------------------------- */

/* Changes when the facts do that a plan rests on. */
static uint64_t fingerprint(struct pd *pd, int64_t now)
{
	uint64_t h = pd->verdicts.epoch * 0x9e3779b97f4a7c15ull + pd->reg.planner.balancing;

	for (const struct reg_node *n = pd->reg.nodes; n != NULL; n = n->hh.next)
		h = (h ^ ((uint64_t)leaves(pd, n, now) << 2 | (uint64_t)is_target(n, now) << 1 |
			  (node_state(n, now) == NODE_UP))) *
		    0x100000001b3ull;
	return h ^ HASH_CNT(hh_name, pd->reg.names);
}

bool moves_plan_is_due(struct pd *pd)
{
	return pd->planning || pd->planned_fingerprint != fingerprint(pd, reg_now(&pd->reg, NULL));
}

static uint32_t moves_under_way(const struct pd *pd)
{
	uint32_t n = 0;

	for (const struct reg_volume *v = pd->reg.volumes; v != NULL; v = v->hh.next)
		n += v->move_count;
	return n;
}

static bool plan_is_used_up(const struct pd *pd)
{
	/* That nothing has to move does not change by itself, and a look at a million copies takes
	 * a while: the fingerprint of the facts tells, and PD_PLAN_STALE_MS. */
	if (pd->plan.count == 0 && pd->plan.stuck == 0 && moves_under_way(pd) == 0)
		return false;
	for (size_t i = 0; i < pd->plan.count; i++)
		if (!pd->plan.moves[i].done)
			return false;
	return true;
}

static void plan_done(struct pd *pd)
{
	struct reg_planner *p = &pd->reg.planner;

	if (p->started_at == 0)
		return;
	log_info("pd", "moves: nothing is left to do, %llu copies have moved",
		 (unsigned long long)p->moves_done);
	p->balancing = false;
	p->started_at = 0;
	reg_save_planner(&pd->reg);
	pd_background_flush(pd);
}

/* What it found takes the place of the plan before, unless the facts are others by now. */
static void planned(struct pd *pd, int status, struct moves_plan *plan, void *arg)
{
	struct reg_planner *p = &pd->reg.planner;
	const int64_t now = reg_now(&pd->reg, NULL);

	(void)arg;
	pd->planning = false;
	if (pd->stopping || pd->reg.broken != 0)
		return;
	if (status != 0) {
		log_warn("pd", "moves: no memory for a plan; trying again");
		moves_replan(pd);
		return;
	}
	if (pd->planned_fingerprint != fingerprint(pd, now)) {
		moves_replan(pd);
		return;
	}
	if (plan->stuck > 0 && strcmp(plan->stuck_why, pd->plan.stuck_why) != 0)
		log_warn("pd", "%llu copies must leave and cannot; %s",
			 (unsigned long long)plan->stuck, plan->stuck_why);
	moves_plan_deinit(&pd->plan);
	pd->plan = *plan;
	*plan = (struct moves_plan){0};
	if (pd->plan.count == 0 && moves_under_way(pd) == 0) {
		plan_done(pd);
	} else if (p->started_at == 0) {
		p->started_at = now;
		p->moves_total = p->moves_done = p->bytes_total = p->bytes_done = 0;
	}
	if (p->started_at != 0 && !pd->plan.more) {
		p->moves_total = p->moves_done + moves_under_way(pd) + pd->plan.count;
		p->bytes_total = p->bytes_done + pd->bytes_under_way + pd->plan.copy_bytes;
	}
	start_some(pd, now);
	maintain_planned(pd, now);
}

/* Nothing more of the last plan is begun: the next one does not know of it. */
static void plan_again(struct pd *pd, int64_t now)
{
	pd->planned_fingerprint = fingerprint(pd, now);
	pd->planned_ns = reactor_now_ns(pd->reactor);
	if (moves_plan(pd, pd->reg.planner.balancing, PD_PLAN_MOVES_MAX, planned, NULL) != 0) {
		log_warn("pd", "moves: no plan can be made now; trying again");
		moves_replan(pd);
		return;
	}
	pd->planning = true;
	pd->plan.count = 0;
}

void moves_replan(struct pd *pd)
{
	pd->planned_fingerprint = 0;
	pd->planned_ns = 0;
}

static void count_under_way(struct pd *pd, int64_t now)
{
	struct reg_volume *v;

	pd->bytes_under_way = 0;
	for (v = pd->reg.volumes; v != NULL; v = v->hh.next) {
		if (v->move_count > 0)
			review(pd, v, now);
		for (uint32_t i = 0; i < v->move_count; i++)
			pd->bytes_under_way += move_bytes(v, v->moves[i].from);
	}
}

/* Nodes that an admin removed, once nothing is placed on them. What lay there is lost. A plan that
 * is being made may name them, and so may a merge. */
static void forget_removed(struct pd *pd)
{
	struct reg_node *n, *next;

	if (pd->plannings != NULL || pd->merge != NULL)
		return;
	HASH_ITER (hh, pd->reg.nodes, n, next) {
		if (!n->removed || n->placed_chunks > 0 || n->learners > 0 || n->leavers > 0 ||
		    n->session != NULL || n->erasing || node_is_asking(pd, n))
			continue;
		node_forget_leftovers(pd, n);
		log_info("pd", "node %s is forgotten", n->name);
		moves_plan_deinit(&pd->plan);
		moves_replan(pd);
		reg_node_forget(&pd->reg, n);
		pd_background_flush(pd);
	}
}

static void tick(struct pd *pd)
{
	const int64_t now = reg_now(&pd->reg, NULL);
	const uint64_t now_ns = reactor_now_ns(pd->reactor);
	const uint64_t since_ns = now_ns - pd->planned_ns;

	for (struct reg_node *n = pd->reg.nodes; n != NULL; n = n->hh.next)
		if (node_state(n, now) == NODE_UP)
			n->last_up = now;
	forget_removed(pd);
	count_under_way(pd, now);
	if (!pd->planning && (pd->planned_fingerprint != fingerprint(pd, now) ||
			      (plan_is_used_up(pd) && since_ns >= PD_PLAN_AGAIN_MS * NS_PER_MS) ||
			      since_ns >= PD_PLAN_STALE_MS * NS_PER_MS))
		plan_again(pd, now);
	start_some(pd, now);
	maintain(pd, now);
	merge_tick(pd);
	node_erase_all(pd);
}

void moves_timer(struct reactor_timer *t)
{
	struct pd *pd = container_of(t, struct pd, moves_timer);

	if (pd->stopping || pd->reg.broken != 0)
		return;
	tick(pd);
	reactor_timer_arm(pd->reactor, t,
			  reactor_now_ns(pd->reactor) + PD_MOVES_TICK_MS * NS_PER_MS);
}

/* -- what the host says ----------------------------------------------------------------------- */

void moves_host_left(struct reg_volume *v, const uint32_t *moving, size_t count)
{
	for (uint32_t i = 0; i < v->drop_count; i++) {
		struct reg_drop *d = &v->drops[i];
		bool left = d->told && d->generation == v->generation;

		for (size_t k = 0; k < count && left; k++)
			left = moving[k] != d->chunk;
		d->released = d->released || left;
	}
}

/* What it says before that may have been on its way when the move began and was given up, and what
 * tells it of the move may be on its way to it still. */
void moves_host_told(struct reg_volume *v)
{
	for (uint32_t i = 0; i < v->drop_count; i++)
		v->drops[i].told = v->drops[i].told || v->drops[i].generation == v->generation;
}

bool moves_may_erase(const struct pd *pd, struct reg_volume *v, const struct reg_drop *d)
{
	if (d->released)
		return true;
	/* A lapsed attachment may be renewed, and believe in its map until it hears of the move. */
	if (d->generation == v->generation)
		return !v->attachment.live;
	return reg_volume_older_end(&pd->reg, v,
				    reg_now((struct reg *)(uintptr_t)&pd->reg, NULL)) == 0;
}

static void move_committed(struct pd_request *q)
{
	struct reg_volume *v = reg_volume_by_id(&q->pd->reg, q->volume);
	struct pd *pd = q->pd;

	request_done(q);
	if (v != NULL && !v->deleted && v->attachment.live)
		host_push_permit(pd, v);
}

/* The move that the host means; NULL: *err, or 0 when its end is in the map already. */
static struct reg_move *find_move(struct pd *pd, struct reg_volume *v,
				  const Pave__V1__MoveCommit *c, struct error *err)
{
	const struct reg_node *from = reg_node_find(&pd->reg, c->from);
	const struct reg_node *to = reg_node_find(&pd->reg, c->to);
	struct reg_move *m = reg_move_find(v, c->chunk);

	err->code = 0;
	if (m != NULL && m->from == from && m->to == to)
		return m;
	if (from == NULL || to == NULL || c->chunk >= v->chunk_count ||
	    !reg_holds(v, c->chunk, to) || reg_holds(v, c->chunk, from))
		error_set(err, -ENOENT, "volume %s: chunk %u does not move from %.63s to %.63s",
			  v->name, c->chunk, c->from, c->to);
	return NULL;
}

/* More than these move by themselves. */
#define FOLLOWERS_MAX LAYERS_MAX

/* Before the map of v changes. */
static uint32_t find_followers(struct reg *reg, const struct reg_volume *v, chunk_no_t chunk,
			       struct reg_volume **ret)
{
	uint32_t count = 0;

	for (struct reg_volume *s = reg->volumes; s != NULL && count < FOLLOWERS_MAX;
	     s = s->hh.next)
		if (family_of(s) == family_of(v) && family_follows(reg, s, chunk, v))
			ret[count++] = s;
	return count;
}

/* The snapshot lies where the volume does now. If it cannot be written down it moves by itself. */
static void follow(struct pd *pd, struct reg_volume *s, const struct reg_move *m)
{
	if (reg_drops(s, m->chunk, m->to) ||
	    reg_replace(&pd->reg, s, m->chunk, m->from, m->to) != 0)
		return;
	pd_ledger_move(&pd->ledger, s, m->chunk, m->from->name, m->to->name, move_why_name(m->why));
}

void move_commit(struct pd_request *q, struct reg_volume *v, const Pave__V1__MoveCommit *c)
{
	struct pd *pd = q->pd;
	struct reg_planner *p = &pd->reg.planner;
	const int64_t now = reg_now(&pd->reg, NULL);
	struct reg_volume *followers[FOLLOWERS_MAX];
	uint32_t follower_count;
	struct reg_move *m;
	struct reg_move was;
	struct error err;
	uint64_t bytes;

	m = find_move(pd, v, c, &err);
	if (m == NULL) {
		if (err.code != 0)
			request_fail(q, &err);
		else
			request_commit(q, request_done);
		return;
	}
	was = *m;
	bytes = move_bytes(v, was.from); /* while the copy counts there */
	follower_count = find_followers(&pd->reg, v, c->chunk, followers);
	if (!is_eligible(pd, v, was.to, now))
		error_set(&err, -E_DENIED, "volume %s: node %s may hold no copy: its site %s: %s",
			  v->name, was.to->name, was.to->site,
			  verdicts_get(&pd->verdicts, was.to->site, v->policy, now)->why);
	else if (reg_move_commit(&pd->reg, v, m) != 0)
		error_set(&err, -EAGAIN, "no memory");
	if (err.code != 0) {
		request_fail(q, &err);
		return;
	}
	log_info("pd", "volume %s: map version %llu: chunk %u on %s instead of %s", v->name,
		 (unsigned long long)v->map_version, was.chunk, was.to->name, was.from->name);
	pd_ledger_move(&pd->ledger, v, was.chunk, was.from->name, was.to->name,
		       move_why_name(was.why));
	for (uint32_t i = 0; i < follower_count; i++)
		follow(pd, followers[i], &was);
	p->moves_done++;
	p->bytes_done += bytes;
	reg_save_planner(&pd->reg);
	request_commit(q, move_committed);
}
