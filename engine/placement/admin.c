/* The driver and its admins: volumes, nodes, status. Evidence: admin_evidence.c. See driver.h. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/assert.h"
#include "engine/base/log.h"
#include "engine/base/text.h"
#include "engine/placement/driver.h"
#include "engine/placement/family.h"
#include "engine/placement/layers.h"
#include "engine/placement/planner.h"
#include "engine/placement/spread.h"

static void fail(struct pd_request *q, int code, const char *fmt, const char *name)
{
	struct error err;

	error_set(&err, code, fmt, name);
	request_fail(q, &err);
}

/* -- what is said of volumes and nodes -------------------------------------------------------- */

/* Whether some chunk has fewer eligible copies than the policy asks acknowledgements of. */
static bool is_frozen(struct pd *pd, const struct reg_volume *v, int64_t now)
{
	bool eligible[REG_MAP_NODES_MAX];
	bool all = true;

	for (uint32_t i = 0; i < v->node_count; i++) {
		eligible[i] =
		    verdicts_get(&pd->verdicts, v->nodes[i]->site, v->policy, now)->eligible;
		all = all && eligible[i];
	}
	for (uint32_t c = 0; !all && c < v->chunk_count; c++) {
		const uint8_t *row = v->map + (size_t)c * v->replicas;
		uint32_t n = 0;

		for (uint32_t i = 0; i < v->replicas; i++)
			n += eligible[row[i]];
		if (n < v->min_acks)
			return true;
	}
	return false;
}

static const char *volume_state(struct pd *pd, const struct reg_volume *v, int64_t now)
{
	if (!v->attachment.live)
		return "detached";
	if (reg_attachment_end(&pd->reg, v, now) == 0)
		return "lapsed";
	if (v->attachment.maintenance)
		return "maintenance";
	return is_frozen(pd, v, now) ? "frozen" : "attached";
}

static void add_reports(struct arena *a, const struct reg_volume *v, Pave__V1__VolumeInfo *m)
{
	Pave__V1__ReplicaState **list = arena_get(a, (v->report_count + 1) * sizeof *list);

	for (uint32_t i = 0; list != NULL && i < v->report_count; i++) {
		struct replica_report *p = &v->reports[i];
		Pave__V1__ReplicaState *s = arena_get(a, sizeof *s);

		if (s == NULL)
			return;
		pave__v1__replica_state__init(s);
		s->node = p->node;
		s->state = p->state;
		s->transport = p->transport;
		s->lag = p->lag;
		s->chunks_behind = p->chunks_behind;
		s->resync_left = p->resync_left;
		s->resync_rate = p->resync_rate;
		s->tx_frames = p->tx_frames;
		s->tx_bytes = p->tx_bytes;
		s->rx_frames = p->rx_frames;
		s->rx_bytes = p->rx_bytes;
		s->rx_copied_bytes = p->rx_copied_bytes;
		list[i] = s;
	}
	if (list == NULL)
		return;
	m->attached_replicas = list;
	m->n_attached_replicas = v->report_count;
}

static void add_layer_stats(struct arena *a, const struct reg_volume *v, Pave__V1__VolumeInfo *m)
{
	Pave__V1__LayerStats *s;

	if (v->report_count == 0 || v->layers_begun == 0)
		return;
	s = arena_get(a, sizeof *s);
	if (s == NULL)
		return;
	pave__v1__layer_stats__init(s);
	s->begun = v->layers_begun;
	s->pause_ns = v->layers_pause_ns;
	s->work_ns = v->layers_work_ns;
	m->layer_stats = s;
}

static Pave__V1__VolumeInfo *volume_info(struct pd *pd, struct arena *a, struct reg_volume *v,
					 int64_t now)
{
	Pave__V1__VolumeInfo *m = arena_get(a, sizeof *m);
	const struct policy_document *policy = verdicts_policy(&pd->verdicts, v->policy);

	if (m == NULL)
		return NULL;
	pave__v1__volume_info__init(m);
	m->name = v->name;
	m->id = v->id;
	m->size = v->size;
	m->served_size = v->holder != NULL ? v->host_size : 0;
	m->chunk_size = v->chunk_size;
	m->policy = v->policy;
	m->policy_version = policy != NULL ? policy_version(policy) : 0;
	m->replicas = v->replicas;
	m->min_acks = v->min_acks;
	m->generation = v->generation;
	m->state = (char *)(uintptr_t)volume_state(pd, v, now);
	if (v->attachment.live) {
		m->holder = v->attachment.holder;
		m->endpoint = v->attachment.endpoint;
		m->permit_until = v->attachment.bound;
	}
	m->created_at = v->created_at;
	m->map_version = v->map_version;
	m->origin = v->origin;
	m->layers = arena_get(a, PERMIT_LAYERS_MAX * sizeof *m->layers);
	if (m->layers != NULL)
		m->n_layers = layers_of(&pd->reg, v, m->layers, PERMIT_LAYERS_MAX);
	m->settling = layers_open_below(&pd->reg, v) != NULL;
	add_reports(a, v, m);
	add_layer_stats(a, v, m);
	return m;
}

static uint64_t node_lag(const struct pd *pd, const struct reg_node *n)
{
	uint64_t lag = 0;

	for (const struct reg_volume *v = pd->reg.volumes; v != NULL; v = v->hh.next)
		for (uint32_t i = 0; i < v->report_count; i++)
			if (strcmp(v->reports[i].node, n->name) == 0)
				lag += v->reports[i].lag;
	return lag;
}

static Pave__V1__ScrubState *scrub_state(struct arena *a, const struct reg_node *n)
{
	const struct reg_scrub *s = &n->scrub;
	Pave__V1__ScrubState *m = n->has_scrub ? arena_get(a, sizeof *m) : NULL;

	if (m == NULL)
		return NULL;
	pave__v1__scrub_state__init(m);
	m->running = s->running;
	m->period_s = s->period_s;
	m->passes = s->passes;
	m->started_at = s->started_at;
	m->finished_at = s->finished_at;
	m->total_bytes = s->total_bytes;
	m->done_bytes = s->done_bytes;
	m->rate = s->rate;
	m->found = s->found;
	m->repaired = s->repaired;
	m->damaged = s->damaged;
	m->needed_rate = s->needed_rate;
	m->max_rate = s->max_rate;
	return m;
}

static Pave__V1__NodeInfo *node_info(struct pd *pd, struct arena *a, struct reg_node *n,
				     int64_t now)
{
	static const char *const states[] = {
	    [NODE_DOWN] = "down", [NODE_UP] = "up", [NODE_REFUSED] = "refused"};
	const struct verdict_brief *b;
	Pave__V1__NodeInfo *m = arena_get(a, sizeof *m);
	char **addresses = arena_get(a, (n->address_count + 1) * sizeof *addresses);

	if (m == NULL || addresses == NULL)
		return NULL;
	pave__v1__node_info__init(m);
	for (uint32_t i = 0; i < n->address_count; i++)
		addresses[i] = n->addresses[i];
	m->node = n->name;
	m->site = n->site;
	m->addresses = addresses;
	m->n_addresses = n->address_count;
	m->state = (char *)(uintptr_t)states[node_state(n, now)];
	m->reason = n->reason;
	m->lease_until = n->lease_until;
	m->last_seen = n->last_seen;
	m->size_bytes = n->size_bytes;
	m->live_bytes = n->live_bytes;
	m->free_bytes = n->free_bytes;
	m->reserve_bytes = n->reserve_bytes;
	m->operations_per_s = n->load;
	m->clock_offset_ns = n->clock_offset_ns;
	m->chunks = (uint32_t)MIN(n->placed_chunks, (uint64_t)UINT32_MAX);
	b = verdicts_get(&pd->verdicts, n->site, pd->default_policy, now);
	m->eligible = b->eligible;
	m->eligible_until = b->eligible ? b->until : 0;
	m->ineligible_why = arena_text(a, b->why);
	m->lag = node_lag(pd, n);
	m->scrub = scrub_state(a, n);
	m->trouble = (char *)(uintptr_t)n->trouble;
	m->wiping_segments = n->wiping_segments;
	m->drain = n->drain;
	m->draining = n->drain && node_holds_any(&pd->reg, n);
	m->learners = n->learners;
	return m;
}

static Pave__V1__NodeInfo **all_nodes(struct pd *pd, struct arena *a, int64_t now, size_t *ret)
{
	size_t count = HASH_COUNT(pd->reg.nodes);
	Pave__V1__NodeInfo **list = arena_get(a, (count + 1) * sizeof *list);
	size_t i = 0;

	for (struct reg_node *n = pd->reg.nodes; list != NULL && n != NULL; n = n->hh.next)
		list[i++] = node_info(pd, a, n, now);
	*ret = i;
	return list;
}

/* Volumes after the name `after`, in the order of their names, up to max. */
static int by_name(const void *a, const void *b)
{
	const struct reg_volume *const *x = a;
	const struct reg_volume *const *y = b;

	return strcmp((*x)->name, (*y)->name);
}

static Pave__V1__VolumeInfo **some_volumes(struct pd *pd, struct arena *a, const char *after,
					   size_t max, int64_t now, size_t *ret_count,
					   bool *ret_more)
{
	size_t total = HASH_CNT(hh_name, pd->reg.names);
	struct reg_volume **sorted = arena_get(a, (total + 1) * sizeof *sorted);
	Pave__V1__VolumeInfo **list;
	size_t n = 0;
	size_t count;

	if (sorted == NULL)
		return NULL;
	for (struct reg_volume *v = pd->reg.names; v != NULL; v = v->hh_name.next)
		if (strcmp(v->name, after) > 0)
			sorted[n++] = v;
	qsort(sorted, n, sizeof *sorted, by_name);
	count = MIN(n, max);
	list = arena_get(a, (count + 1) * sizeof *list);
	for (size_t i = 0; list != NULL && i < count; i++)
		list[i] = volume_info(pd, a, sorted[i], now);
	*ret_count = count;
	*ret_more = n > count;
	return list;
}

/* Sends m, or an error when a piece of it couldn't be made; frees the pieces. */
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

/* -- volumes ---------------------------------------------------------------------------------- */

static int check_create(struct pd *pd, const Pave__V1__VolumeCreate *c, uint64_t chunk_size,
			const char *policy, struct error *err)
{
	char size[32], max[32];

	if (!text_is_name(c->name))
		return error_set(err, -EINVAL,
				 "\"%.80s\" is no name for a volume: up to %u of [a-z0-9._-], "
				 "beginning with a letter or digit",
				 c->name, NAME_SIZE_MAX - 1);
	if (reg_volume_find(&pd->reg, c->name) != NULL)
		return error_set(err, -EEXIST, "volume %s is there already", c->name);
	if (chunk_size < CHUNK_SIZE_MIN || chunk_size > CHUNK_SIZE_MAX ||
	    (chunk_size & (chunk_size - 1)) != 0)
		return error_set(err, -EINVAL,
				 "volume %s: a chunk size of %s is no power of two from 16MiB to "
				 "1GiB",
				 c->name, text_size(chunk_size, size, sizeof size));
	if (c->size == 0 || c->size % BLOCK_SIZE != 0)
		return error_set(err, -EINVAL,
				 "volume %s: a size of %llu bytes is no positive multiple of %u",
				 c->name, (unsigned long long)c->size, BLOCK_SIZE);
	if (c->size > REG_CHUNKS_MAX * chunk_size)
		return error_set(err, -EINVAL,
				 "volume %s: %s is over %s, the most for chunks of this size: take "
				 "larger chunks",
				 c->name, text_size(c->size, size, sizeof size),
				 text_size(REG_CHUNKS_MAX * chunk_size, max, sizeof max));
	if (verdicts_policy(&pd->verdicts, policy) == NULL)
		return error_set(
		    err, -ENOENT,
		    "volume %s: policy \"%.64s\" is not known; there are presets "
		    "(secnumcloud-fr, cloud-de-confiance, hds, dev) and those that were put",
		    c->name, policy);
	if (pd->reg.volume_count >= PD_VOLUMES_MAX)
		return error_set(err, -E_LIMIT, "volume %s: there are %u volumes already, the most",
				 c->name, pd->reg.volume_count);
	return 0;
}

static void add_planner_site(struct pd *pd, struct arena *a, const char *name, const char *policy,
			     int64_t now, struct planner_site *ret)
{
	const struct verdict_site *s = verdicts_site(&pd->verdicts, name);
	const struct verdict_brief *b = verdicts_get(&pd->verdicts, name, policy, now);

	*ret = (struct planner_site){.name = name, .campus = "", .eligible = b->eligible};
	if (!b->eligible)
		ret->why = arena_text(a, b->why);
	if (s == NULL)
		return;
	ret->campus = site_campus(s->doc);
	ret->has_position = site_position(s->doc, &ret->latitude, &ret->longitude);
}

/* The planner's view of sites and nodes. -ENOMEM. */
static int planner_view(struct pd *pd, struct arena *a, const char *policy, bool spared,
			struct planner_input *in, struct reg_node ***ret_nodes)
{
	size_t sites_max = HASH_COUNT(pd->verdicts.sites) + HASH_COUNT(pd->reg.nodes);
	struct planner_site *sites = arena_get(a, (sites_max + 1) * sizeof *sites);
	struct planner_node *nodes = arena_get(a, (HASH_COUNT(pd->reg.nodes) + 1) * sizeof *nodes);
	struct reg_node **back = arena_get(a, (HASH_COUNT(pd->reg.nodes) + 1) * sizeof *back);
	int64_t now = reg_now(&pd->reg, NULL);

	if (sites == NULL || nodes == NULL || back == NULL)
		return -ENOMEM;
	for (const struct verdict_site *s = pd->verdicts.sites; s != NULL; s = s->hh.next)
		add_planner_site(pd, a, s->name, policy, now, &sites[in->site_count++]);
	for (struct reg_node *n = pd->reg.nodes; n != NULL; n = n->hh.next) {
		enum node_state state = node_state(n, now);
		uint32_t site = 0;

		while (site < in->site_count && strcmp(sites[site].name, n->site) != 0)
			site++;
		if (site == in->site_count)
			add_planner_site(pd, a, n->site, policy, now, &sites[in->site_count++]);
		back[in->node_count] = n;
		nodes[in->node_count++] = (struct planner_node){
		    .name = n->name,
		    .site = site,
		    .up = state == NODE_UP && !n->drain && (!spared || n->trouble[0] == '\0'),
		    .why = state == NODE_REFUSED ? n->reason
			   : n->drain		 ? "it is drained"
						 : "down",
		    .size_bytes = n->size_bytes,
		    .free_bytes = n->free_bytes,
		    .placed_bytes = n->placed_bytes,
		    .load = n->load};
	}
	in->sites = sites;
	in->nodes = nodes;
	*ret_nodes = back;
	return 0;
}

/* Not on nodes that miss a device, for these take no chunk that they cannot tell to be new; but
 * where there are no others, a volume that begins with a copy less is better than none. */
static int find_places(struct pd *pd, struct arena *a, const char *name, const char *policy,
		       struct planner_input *in, struct planner_result *plan,
		       struct reg_node ***ret_nodes, struct error *err)
{
	int rc = 0;

	for (bool spared = true;; spared = false) {
		struct planner_input seen = *in;

		rc = planner_view(pd, a, policy, spared, &seen, ret_nodes);
		if (rc != 0)
			return error_set(err, rc, "no memory for planning volume %s", name);
		rc = planner_place(&seen, plan, err);
		if (rc == 0 || !spared)
			break;
	}
	if (rc != 0)
		error_wrap(err, "volume %s cannot be placed", name);
	return rc;
}

int admin_place(struct pd *pd, const char *name, uint32_t chunk_count, uint64_t chunk_size,
		uint32_t replicas, const char *policy_name, struct reg_node ***ret_nodes,
		uint32_t *ret_node_count, uint8_t **ret_map, struct error *err)
{
	const struct policy_document *policy = verdicts_policy(&pd->verdicts, policy_name);
	struct planner_input in = {.policy = policy_name,
				   .replicas = replicas,
				   .chunk_count = chunk_count,
				   .chunk_size = chunk_size};
	struct planner_result plan = {0};
	struct reg_node **nodes = NULL;
	struct reg_node **all = NULL;
	struct arena a = {0};
	int rc;

	if (policy == NULL)
		return error_set(err, -E_DENIED,
				 "volume %s: its policy %s is not in force: have it signed under "
				 "the trust root in force, and put it (pave policy put)",
				 name, policy_name);
	in.distinct = policy_distinct(policy);
	in.min_distance_km = policy_min_distance_km(policy);
	if (in.replicas < 1 || in.replicas > REPLICAS_MAX) {
		rc = error_set(err, -E_DENIED,
			       "policy %s asks for %u replicas, this driver makes 1 to %u",
			       policy_name, in.replicas, REPLICAS_MAX);
		goto out;
	}
	rc = find_places(pd, &a, name, policy_name, &in, &plan, &all, err);
	if (rc != 0)
		goto out;
	nodes = calloc(plan.node_count, sizeof(struct reg_node *));
	if (nodes == NULL) {
		rc = error_set(err, -ENOMEM, "no memory for volume %s", name);
		goto out;
	}
	for (uint32_t i = 0; i < plan.node_count; i++)
		nodes[i] = all[plan.nodes[i]];
	*ret_nodes = nodes;
	*ret_node_count = plan.node_count;
	*ret_map = plan.map;
	plan.map = NULL; /* the caller's now */
out:
	planner_result_deinit(&plan);
	arena_deinit(&a);
	return rc;
}

/* Plans the volume and puts it into the register. NULL: *err. */
static struct reg_volume *place(struct pd *pd, const char *name, uint64_t size, uint64_t chunk_size,
				const char *policy, struct error *err)
{
	const uint32_t chunk_count = (uint32_t)((size + chunk_size - 1) / chunk_size);
	const uint32_t replicas = policy_replicas(verdicts_policy(&pd->verdicts, policy));
	struct reg_volume *v;
	struct reg_node **nodes;
	uint32_t node_count;
	uint8_t *map;

	if (admin_place(pd, name, chunk_count, chunk_size, replicas, policy, &nodes, &node_count,
			&map, err) != 0)
		return NULL;
	v = reg_volume_add(&pd->reg, name, chunk_count, replicas, chunk_size, nodes, node_count,
			   map);
	if (v == NULL) {
		error_set(err, -ENOMEM, "no memory for volume %s", name);
		free(nodes);
		free(map);
	}
	return v;
}

void admin_send_volume(struct pd_request *q, struct reg_volume *v, bool with_map)
{
	struct pd *pd = q->pd;
	Pave__V1__Control m = PAVE__V1__CONTROL__INIT;
	Pave__V1__VolumeGetReply r = PAVE__V1__VOLUME_GET_REPLY__INIT;
	struct arena a = {0};
	int64_t now = reg_now(&pd->reg, NULL);

	r.info = volume_info(pd, &a, v, now);
	r.verdicts = arena_get(&a, (v->node_count + 1) * sizeof *r.verdicts);
	for (uint32_t i = 0; r.verdicts != NULL && i < v->node_count; i++) {
		bool seen = false;

		for (uint32_t j = 0; j < i && !seen; j++)
			seen = strcmp(v->nodes[j]->site, v->nodes[i]->site) == 0;
		if (!seen)
			r.verdicts[r.n_verdicts++] = admin_verdict(
			    pd, &a, v->nodes[i]->site, v->policy, now, FAILED_RULES_MAX);
	}
	r.spread = spread_explain(pd, &a, v, now, &r.n_spread);
	r.nodes = host_map_nodes(&a, v);
	r.n_nodes = v->node_count;
	if (with_map) {
		r.map.data = v->map;
		r.map.len = (size_t)v->chunk_count * v->replicas;
		r.moves = moves_list(pd, &a, v, &r.n_moves);
	}
	m.body_case = PAVE__V1__CONTROL__BODY_VOLUME_GET_REPLY;
	m.volume_get_reply = &r;
	answer(q, &m, &a);
}

static void created(struct pd_request *q)
{
	struct reg_volume *v = reg_volume_by_id(&q->pd->reg, q->volume);

	if (v == NULL || v->deleted)
		fail(q, -ENOENT, "the volume was deleted meanwhile%s", "");
	else
		admin_send_volume(q, v, false);
}

void admin_volume_create(struct pd_request *q, const Pave__V1__Control *m)
{
	const Pave__V1__VolumeCreate *c = m->volume_create;
	struct pd *pd = q->pd;
	uint64_t chunk_size = c->chunk_size != 0 ? c->chunk_size : CHUNK_SIZE_DEFAULT;
	const char *policy = c->policy[0] != '\0' ? c->policy : pd->default_policy;
	struct reg_volume *v = NULL;
	struct error err;

	if (check_create(pd, c, chunk_size, policy, &err) == 0)
		v = place(pd, c->name, c->size, chunk_size, policy, &err);
	if (v == NULL) {
		request_fail(q, &err);
		return;
	}
	v->size = c->size;
	v->min_acks = policy_min_acks(verdicts_policy(&pd->verdicts, policy));
	v->created_at = reg_now(&pd->reg, NULL);
	snprintf(v->policy, sizeof v->policy, "%s", policy);
	reg_save_meta(&pd->reg);
	reg_save_volume(&pd->reg, v);
	reg_save_map(&pd->reg, v);
	pd_ledger_volume(&pd->ledger, v, policy_version(verdicts_policy(&pd->verdicts, policy)));
	pd_ledger_map(&pd->ledger, v);
	log_info("pd", "volume %s is new: #%llu, %u chunks under %s", v->name,
		 (unsigned long long)v->id, v->chunk_count, v->policy);
	q->volume = v->id;
	pd_arm_evidence_timer(pd);
	request_commit(q, created);
}

void admin_volume_get(struct pd_request *q, const Pave__V1__Control *m)
{
	struct reg_volume *v = reg_volume_find(&q->pd->reg, m->volume_get->name);

	if (v == NULL)
		fail(q, -ENOENT, "there is no volume \"%.64s\": pave volume list",
		     m->volume_get->name);
	else
		admin_send_volume(q, v, m->volume_get->with_map);
}

void admin_volume_list(struct pd_request *q, const Pave__V1__Control *m)
{
	Pave__V1__Control reply = PAVE__V1__CONTROL__INIT;
	Pave__V1__VolumeListReply r = PAVE__V1__VOLUME_LIST_REPLY__INIT;
	struct arena a = {0};
	bool more = false;

	r.volumes = some_volumes(q->pd, &a, m->volume_list->after, PD_LIST_VOLUMES_MAX,
				 reg_now(&q->pd->reg, NULL), &r.n_volumes, &more);
	r.more = more;
	reply.body_case = PAVE__V1__CONTROL__BODY_VOLUME_LIST_REPLY;
	reply.volume_list_reply = &r;
	answer(q, &reply, &a);
}

static void deleted(struct pd_request *q)
{
	struct pd *pd = q->pd;

	request_done(q);
	node_erase_all(pd);
}

int admin_check_not_held(struct pd *pd, struct reg_volume *v, struct error *err)
{
	const int64_t now = reg_now(&pd->reg, NULL);
	const int64_t end =
	    MAX(reg_attachment_end(&pd->reg, v, now), reg_volume_older_end(&pd->reg, v, now));
	char until[40];

	if (end == 0)
		return 0;
	if (v->attachment.maintenance)
		return error_set(err, -E_IN_USE,
				 "volume %s: node %s has it for maintenance, which ends by itself: "
				 "again in a moment, or pave detach %s",
				 v->name, v->attachment.holder, v->name);
	return error_set(err, -E_IN_USE,
			 "volume %s is attached by %s, until %s at least: pave detach %s", v->name,
			 v->attachment.holder, text_time(end, until, sizeof until), v->name);
}

static int check_delete(struct pd *pd, struct reg_volume *v, struct error *err)
{
	const struct reg_volume *snapshot = admin_first_snapshot(pd, v);
	const struct reg_layer *open = layers_open_below(&pd->reg, v);
	const struct reg_volume *other = NULL;

	if (snapshot != NULL)
		return error_set(err, -E_IN_USE,
				 "volume %s has snapshots, %s among them: delete them first",
				 v->name, snapshot->name);
	if (admin_check_not_held(pd, v, err) != 0 || admin_check_leftovers(v, err) != 0)
		return err->code;
	/* Nobody but v's own attachment settles it. */
	if (open != NULL && open->owner == v->id)
		other = family_other_on(&pd->reg, v, open->id);
	if (other == NULL)
		return 0;
	return error_set(err, -E_IN_USE,
			 "volume %s: %s stands on a snapshot of it that is not settled yet: attach "
			 "%s once, then delete it",
			 v->name, other->name, v->name);
}

void admin_volume_delete(struct pd_request *q, const Pave__V1__Control *m)
{
	struct pd *pd = q->pd;
	struct reg_volume *v = reg_volume_find(&pd->reg, m->volume_delete->name);
	struct error err;

	if (v == NULL) {
		fail(q, -ENOENT, "there is no volume \"%.64s\": pave volume list",
		     m->volume_delete->name);
		return;
	}
	if (check_delete(pd, v, &err) != 0) {
		request_fail(q, &err);
		return;
	}
	v->attachment.live = false;
	v->holder = NULL;
	v->report_count = 0;
	log_info("pd", "volume %s (#%llu) is deleted; %u nodes have to erase it", v->name,
		 (unsigned long long)v->id, v->node_count);
	if (admin_drop_layers(pd, v) != 0) {
		fail(q, -ENOMEM, "no memory to delete volume %s", v->name);
		return;
	}
	pd_ledger_permit_end(&pd->ledger, v->id, v->attachment.bound, "deleted");
	pd_ledger_volume_end(&pd->ledger, v);
	request_commit(q, deleted);
}

/* -- nodes, status ---------------------------------------------------------------------------- */

void admin_node_list(struct pd_request *q, const Pave__V1__Control *m)
{
	struct pd *pd = q->pd;
	Pave__V1__Control reply = PAVE__V1__CONTROL__INIT;
	Pave__V1__NodeListReply r = PAVE__V1__NODE_LIST_REPLY__INIT;
	struct arena a = {0};

	(void)m;
	r.nodes = all_nodes(pd, &a, reg_now(&pd->reg, NULL), &r.n_nodes);
	r.default_policy = pd->default_policy;
	reply.body_case = PAVE__V1__CONTROL__BODY_NODE_LIST_REPLY;
	reply.node_list_reply = &r;
	answer(q, &reply, &a);
	pd_arm_evidence_timer(pd);
}

/* Told to nodes that are connected; whether they are at it `scrub status` shows. */
void admin_scrub_start(struct pd_request *q, const Pave__V1__Control *m)
{
	const char *name = m->scrub_start->node;
	struct pd *pd = q->pd;
	Pave__V1__Control reply = PAVE__V1__CONTROL__INIT;
	Pave__V1__ScrubStartReply r = PAVE__V1__SCRUB_START_REPLY__INIT;
	struct arena a = {0};

	if (name[0] != '\0' && reg_node_find(&pd->reg, name) == NULL) {
		fail(q, -ENOENT, "there is no node \"%.64s\": pave node list", name);
		return;
	}
	r.nodes = arena_get(&a, (HASH_COUNT(pd->reg.nodes) + 1) * sizeof *r.nodes);
	for (struct reg_node *n = pd->reg.nodes; r.nodes != NULL && n != NULL; n = n->hh.next)
		if ((name[0] == '\0' || strcmp(n->name, name) == 0) && node_send_scrub(n))
			r.nodes[r.n_nodes++] = n->name;
	if (r.nodes != NULL && name[0] != '\0' && r.n_nodes == 0) {
		fail(q, -E_UNREACHABLE, "node %s is not connected now: pave node list", name);
		arena_deinit(&a);
		return;
	}
	reply.body_case = PAVE__V1__CONTROL__BODY_SCRUB_START_REPLY;
	reply.scrub_start_reply = &r;
	answer(q, &reply, &a);
}

static Pave__V1__DriverInfo **all_drivers(struct pd *pd, struct arena *a, size_t *ret_count)
{
	struct pd_driver list[PD_DRIVERS_MAX];
	const size_t count = pd->shared != NULL ? pd->shared->drivers(list, pd->shared->arg) : 0;
	Pave__V1__DriverInfo **ret = arena_get(a, (count + 1) * sizeof *ret);

	*ret_count = 0;
	for (size_t i = 0; ret != NULL && i < count; i++) {
		Pave__V1__DriverInfo *d = arena_get(a, sizeof *d);

		if (d == NULL)
			return NULL;
		pave__v1__driver_info__init(d);
		d->name = arena_text(a, list[i].name);
		d->address = arena_text(a, list[i].address);
		d->leads = list[i].leads;
		ret[(*ret_count)++] = d;
	}
	return ret;
}

void admin_status(struct pd_request *q, const Pave__V1__Control *m)
{
	struct pd *pd = q->pd;
	Pave__V1__Control reply = PAVE__V1__CONTROL__INIT;
	Pave__V1__StatusReply r = PAVE__V1__STATUS_REPLY__INIT;
	struct arena a = {0};
	int64_t now = reg_now(&pd->reg, NULL);
	bool more = false;

	(void)m;
	r.cluster.data = pd->reg.cluster.bytes;
	r.cluster.len = sizeof pd->reg.cluster.bytes;
	r.software = (char *)(uintptr_t)("pave " PAVE_VERSION);
	r.started_at = pd->started_at;
	r.wall = reactor_wall_ns(pd->reactor);
	if (pd->verdicts.revocations != NULL) {
		r.revocations_version = revocations_version(pd->verdicts.revocations);
		r.revocations_until = revocations_not_after(pd->verdicts.revocations);
	}
	r.nodes = all_nodes(pd, &a, now, &r.n_nodes);
	r.sites = arena_get(&a, (HASH_COUNT(pd->verdicts.sites) + 1) * sizeof *r.sites);
	for (const struct verdict_site *s = pd->verdicts.sites; r.sites != NULL && s != NULL;
	     s = s->hh.next)
		r.sites[r.n_sites++] = admin_site_info(pd, &a, s, false);
	r.volumes = some_volumes(pd, &a, "", PD_STATUS_VOLUMES_MAX, now, &r.n_volumes, &more);
	r.volumes_more = more;
	r.drivers = all_drivers(pd, &a, &r.n_drivers);
	r.permits_issued = pd->permits.issued;
	r.permits_refused = pd->permits.refused;
	r.default_policy = pd->default_policy;
	r.permit_lifetime_ms = pd->lifetime_ms;
	reply.body_case = PAVE__V1__CONTROL__BODY_STATUS_REPLY;
	reply.status_reply = &r;
	answer(q, &reply, &a);
}
