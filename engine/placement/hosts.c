/* The driver and the attaching hosts: attach, take-over, renewal, release. See driver.h.
 *
 * The attachment of a volume:
 *
 *   DETACHED --Attach--> ATTACHED --Renew--> ATTACHED --Detach--> DETACHED
 *                          |  \--Attach of another--> its generation is over: E_FENCED, and its
 *                          |                          bound joins `older` until released or past
 *                          \--bound past--> LAPSED --Renew of the same generation--> ATTACHED
 *
 * INVARIANTS
 *  1. A permit is given only for the newest generation, and expires no later than a bound that is
 *     durable.
 *  2. serve_after of a permit is the highest bound of all older generations that were not released;
 *     so two generations never serve at once (I4), whatever crashes.
 *
 * A request to end an attachment (VolumeDetach) is parked until the holder has let go, or its
 * permit has run out; from DETACH_GRACE on the holder gets no more permits. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <utlist.h>

#include "engine/base/assert.h"
#include "engine/base/log.h"
#include "engine/base/text.h"
#include "engine/placement/driver.h"
#include "engine/placement/layers.h"

#define DETACH_GRACE_LIFETIMES 2u

void host_session_closed(struct pd *pd, struct pd_session *s)
{
	for (struct reg_volume *v = pd->reg.volumes; v != NULL; v = v->hh.next)
		if (v->holder == s)
			v->holder = NULL;
}

Pave__V1__MapNode **host_map_nodes(struct arena *a, const struct reg_volume *v)
{
	Pave__V1__MapNode **list = arena_get(a, v->node_count * sizeof *list);

	for (uint32_t i = 0; list != NULL && i < v->node_count; i++) {
		const struct reg_node *n = v->nodes[i];
		Pave__V1__MapNode *m = arena_get(a, sizeof *m);
		char **addresses = arena_get(a, (n->address_count + 1) * sizeof *addresses);

		if (m == NULL || addresses == NULL)
			return NULL;
		pave__v1__map_node__init(m);
		m->node = (char *)(uintptr_t)n->name;
		m->site = (char *)(uintptr_t)n->site;
		for (uint32_t j = 0; j < n->address_count; j++)
			addresses[j] = n->addresses[j];
		m->addresses = addresses;
		m->n_addresses = n->address_count;
		list[i] = m;
	}
	return list;
}

/* -- notices ---------------------------------------------------------------------------------- */

static void notify_refusal(struct pd_session *s, const struct reg_volume *v,
			   const struct error *err)
{
	Pave__V1__Control m = PAVE__V1__CONTROL__INIT;
	Pave__V1__PermitNotice notice = PAVE__V1__PERMIT_NOTICE__INIT;

	notice.volume = v->id;
	notice.status = (uint32_t)-err->code;
	notice.status_text = (char *)(uintptr_t)err->text;
	m.body_case = PAVE__V1__CONTROL__BODY_PERMIT_NOTICE;
	m.permit_notice = &notice;
	rpc_notify(&s->rpc, &m);
}

void host_notify_detach(const struct reg_volume *v)
{
	struct pd_session *s = v->holder;
	Pave__V1__Control m = PAVE__V1__CONTROL__INIT;
	Pave__V1__DetachNotice notice = PAVE__V1__DETACH_NOTICE__INIT;

	notice.volume = v->id;
	m.body_case = PAVE__V1__CONTROL__BODY_DETACH_NOTICE;
	m.detach_notice = &notice;
	if (s->conn != NULL)
		rpc_notify(&s->rpc, &m);
}

/* No permit for what is attached. */
static void note_refusal(struct pd *pd, const struct reg_volume *v, const struct error *why)
{
	char subject[24];

	/* Another driver may lead: what is refused here is no verdict, and nothing is written. */
	if (why->code == -E_NOT_LEADER)
		return;
	snprintf(subject, sizeof subject, "#%llu", (unsigned long long)v->id);
	pd_ledger_permit_end(&pd->ledger, v->id, v->attachment.bound, "denied");
	pd_ledger_denial(&pd->ledger, "permit", subject, why);
	pd_background_flush(pd);
}

/* What the permits are signed under, if this host was not told yet; in force before the permit. */
static void tell_root(struct pd *pd, struct pd_session *s, ProtobufCBinaryData *ret)
{
	if (s->root_told >= root_version(trust_root(pd->trust)))
		return;
	ret->data = (uint8_t *)(uintptr_t)trust_root_envelope(pd->trust, &ret->len);
	s->root_told = root_version(trust_root(pd->trust));
}

/* A permit that waits until the ledger tells of it. */
struct pd_push {
	struct reg_commit commit;
	struct pd *pd;
	volume_id_t volume;
	struct pd_push *next, *prev;
};

static void push_again(struct reg_commit *c, int status)
{
	struct pd_push *p = container_of(c, struct pd_push, commit);
	struct pd *pd = p->pd;
	struct reg_volume *v = reg_volume_by_id(&pd->reg, p->volume);

	DL_DELETE(pd->pushes, p);
	free(p);
	if (status == 0 && v != NULL && !v->deleted && v->attachment.live && !pd->stopping)
		host_push_permit(pd, v);
	pd_stop_if_done(pd);
}

/* Without memory the holder gets it when it renews. */
void host_push_later(struct pd *pd, volume_id_t volume)
{
	struct pd_push *p = calloc(1, sizeof *p);

	if (p == NULL)
		return;
	p->pd = pd;
	p->volume = volume;
	p->commit.done = push_again;
	DL_APPEND(pd->pushes, p);
	reg_flush(&pd->reg, &p->commit);
}

void host_push_drop(struct pd *pd)
{
	struct pd_push *p, *next;

	DL_FOREACH_SAFE (pd->pushes, p, next) {
		DL_DELETE(pd->pushes, p);
		free(p);
	}
}

void host_push_permit(struct pd *pd, struct reg_volume *v)
{
	Pave__V1__Control m = PAVE__V1__CONTROL__INIT;
	Pave__V1__PermitNotice notice = PAVE__V1__PERMIT_NOTICE__INIT;
	struct arena arena = {0};
	struct error err;

	if (v->holder == NULL || v->holder->conn == NULL)
		return;
	v->attachment.serial++;
	if (permits_make(&pd->permits, v, &notice.permit, &err) != 0) {
		log_warn("pd", "no permit: %s", err.text);
		note_refusal(pd, v, &err);
		if (err.code != -E_NOT_LEADER) /* that is heard by whoever asks */
			notify_refusal(v->holder, v, &err);
		return;
	}
	if (!pd_ledger_permit(&pd->ledger, notice.permit)) {
		pave__v1__signed__free_unpacked(notice.permit, NULL);
		host_push_later(pd, v->id);
		return;
	}
	notice.volume = v->id;
	notice.nodes = host_map_nodes(&arena, v);
	notice.n_nodes = notice.nodes != NULL ? v->node_count : 0;
	notice.moves = moves_list(pd, &arena, v, &notice.n_moves);
	notice.min_acks = v->min_acks;
	notice.size = reg_is_durable(&pd->reg, v->size_batch) ? v->size : 0;
	m.body_case = PAVE__V1__CONTROL__BODY_PERMIT_NOTICE;
	m.permit_notice = &notice;
	/* Without memory the next renewal tells. */
	if (!arena_failed(&arena)) {
		tell_root(pd, v->holder, &notice.root);
		rpc_notify(&v->holder->rpc, &m);
	}
	pave__v1__signed__free_unpacked(notice.permit, NULL);
	arena_deinit(&arena);
}

/* -- attach ----------------------------------------------------------------------------------- */

/* Printable, no blanks: it is shown to people. */
static bool is_label(const char *text, size_t size_max)
{
	if (strlen(text) >= size_max)
		return false;
	for (; *text != '\0'; text++)
		if (*text <= ' ' || *text > '~')
			return false;
	return true;
}

/* Two hosts that try again and again would take it from each other for ever. One that is not
 * connected any more is no obstacle: the newer attachment waits until its permit has run out. */
static int check_free(struct pd *pd, const struct reg_volume *v, struct error *err)
{
	const struct reg_attachment *a = &v->attachment;

	if (v->holder == NULL || a->maintenance ||
	    reg_attachment_end(&pd->reg, v, reg_now(&pd->reg, NULL)) == 0)
		return 0;
	return error_set(
	    err, -E_IN_USE,
	    "volume %s: %s has attached it (generation %u, as %s), and is alive; detach "
	    "it there, or take it over with --force: then that attachment ends at once",
	    v->name, a->holder, a->generation, a->endpoint);
}

static int check_attach(struct pd *pd, const Pave__V1__Attach *a, struct reg_volume *v,
			struct error *err)
{
	const struct reg_layer *open;

	if (v == NULL)
		return error_set(err, -ENOENT, "there is no volume \"%.64s\": pave volume list",
				 a->volume);
	/* A holder that no permit can name must not end the attachment that is there. */
	if (!text_is_name(a->holder) || !is_label(a->endpoint, REG_ENDPOINT_MAX) ||
	    (a->holder_site[0] != '\0' && !text_is_name(a->holder_site)))
		return error_set(err, -EINVAL,
				 "volume %s: holder, site or endpoint of the attachment is empty, "
				 "too long or not printable",
				 v->name);
	if (reg_volume_is_snapshot(v) && !a->read_only && !a->maintenance)
		return error_set(err, -EROFS,
				 "volume %s is a snapshot, which is only read: attach it with "
				 "--read-only, or write to a clone (pave volume clone %s NAME)",
				 v->name, v->name);
	if (a->maintenance && (reg_attachment_end(&pd->reg, v, reg_now(&pd->reg, NULL)) != 0 ||
			       reg_volume_older_end(&pd->reg, v, reg_now(&pd->reg, NULL)) != 0))
		return error_set(err, -E_IN_USE,
				 "volume %s: %s has it, so nobody attaches it for maintenance",
				 v->name, v->attachment.holder);
	if (v->generation >= GENERATION_MAX)
		return error_set(err, -E_LIMIT, "volume %s was attached %u times, the most",
				 v->name, v->generation);
	if (a->if_free && check_free(pd, v, err) != 0)
		return err->code;
	open = layers_open_below(&pd->reg, v);
	if (open != NULL && open->owner != v->id)
		return layers_unsettled(&pd->reg, v, open, err);
	return permits_check(&pd->permits, v, a->holder_site, NULL, err);
}

/* The newer attachment is in force: the older gets no permit from now on. */
static void take_over(struct pd *pd, struct reg_volume *v, const char *by)
{
	struct reg_attachment *a = &v->attachment;
	struct error err;

	if (reg_attachment_end(&pd->reg, v, reg_now(&pd->reg, NULL)) == 0) {
		/* With the batch that makes the newer one durable: after a crash between that and
		 * its first permit nobody would know of this one. */
		pd_ledger_permit_end(&pd->ledger, v->id, a->bound, "lapsed");
		return;
	}
	reg_volume_add_older(v);
	pd_ledger_permit_end(&pd->ledger, v->id, a->bound, "taken-over");
	log_info("pd", "volume %s: %s takes over from %s (generation %u)", v->name, by, a->holder,
		 a->generation);
	if (v->holder == NULL)
		return;
	error_set(&err, -E_FENCED,
		  "volume %s: %s has attached it; this attachment (generation %u) "
		  "is over",
		  v->name, by, a->generation);
	notify_refusal(v->holder, v, &err);
}

static void attach_send(struct pd_request *q, struct reg_volume *v, Pave__V1__Signed *permit)
{
	struct pd *pd = q->pd;
	Pave__V1__Control m = PAVE__V1__CONTROL__INIT;
	Pave__V1__AttachReply r = PAVE__V1__ATTACH_REPLY__INIT;
	struct arena arena = {0};
	struct error err;

	r.volume = v->id;
	r.size = v->size;
	r.chunk_size = v->chunk_size;
	r.replicas = v->replicas;
	r.min_acks = v->min_acks;
	r.freeze_timeout_s = policy_freeze_timeout_s(verdicts_policy(&pd->verdicts, v->policy));
	r.map_version = v->map_version;
	r.family = v->family;
	r.n_nodes = v->node_count;
	r.nodes = host_map_nodes(&arena, v);
	r.map.data = v->map;
	r.map.len = (size_t)v->chunk_count * v->replicas;
	r.moves = moves_list(pd, &arena, v, &r.n_moves);
	r.permit = permit;
	r.wall = reactor_wall_ns(pd->reactor);
	r.renew_ms = pd->renew_ms;
	q->session->root_told = 0; /* to an attachment it is always told */
	tell_root(pd, q->session, &r.root);
	m.body_case = PAVE__V1__CONTROL__BODY_ATTACH_REPLY;
	m.attach_reply = &r;
	if (arena_failed(&arena)) {
		error_set(&err, -ENOMEM, "no memory for the map of %s", v->name);
		request_fail(q, &err);
	} else {
		request_reply(q, &m);
	}
	arena_deinit(&arena);
}

/* The volume of q, if q's generation is still the newest. NULL: *err. */
static struct reg_volume *still_current(struct pd_request *q, struct error *err)
{
	struct reg_volume *v = reg_volume_by_id(&q->pd->reg, q->volume);

	if (v == NULL || v->deleted) {
		error_set(err, -ENOENT, "the volume was deleted meanwhile");
		return NULL;
	}
	if (v->generation != q->generation) {
		error_set(err, -E_FENCED,
			  "volume %s: generation %u is over, %s has attached it since (generation "
			  "%u)",
			  v->name, q->generation, v->attachment.holder, v->generation);
		return NULL;
	}
	return v;
}

static void attach_committed(struct pd_request *q)
{
	struct pd *pd = q->pd;
	struct error err;
	struct reg_volume *v = still_current(q, &err);
	Pave__V1__Signed *permit;

	if (v == NULL) {
		request_fail(q, &err);
		return;
	}
	if (!reg_is_durable(&pd->reg, v->size_batch)) {
		/* Resized meanwhile: a crash might undo what this host would write to. */
		request_commit(q, attach_committed);
		return;
	}
	permits_durable(v, q->bound);
	v->holder = q->session->conn != NULL ? q->session : NULL;
	if (permits_make(&pd->permits, v, &permit, &err) != 0) {
		note_refusal(pd, v, &err);
		request_fail(q, &err);
	} else {
		if (pd_ledger_permit(&pd->ledger, permit))
			attach_send(q, v, permit);
		else
			request_commit(q, attach_committed);
		pave__v1__signed__free_unpacked(permit, NULL);
	}
	pd_arm_evidence_timer(pd);
}

/* A node that maintains a volume knows its number alone. */
static struct reg_volume *find_volume(struct pd *pd, const Pave__V1__Attach *a)
{
	struct reg_volume *v = reg_volume_find(&pd->reg, a->volume);
	char *end;
	uint64_t id;

	if (v != NULL || !a->maintenance || a->volume[0] != '#')
		return v;
	id = strtoull(a->volume + 1, &end, 10);
	v = *end == '\0' ? reg_volume_by_id(&pd->reg, id) : NULL;
	return v == NULL || v->deleted ? NULL : v;
}

void host_attach(struct pd_request *q, const Pave__V1__Control *m)
{
	const Pave__V1__Attach *a = m->attach;
	struct pd *pd = q->pd;
	struct reg_volume *v = find_volume(pd, a);
	struct reg_attachment *now_held;
	struct error err;

	if (check_attach(pd, a, v, &err) != 0) {
		log_info("pd", "attach refused: %s", err.text);
		if (v != NULL) {
			pd_ledger_denial(&pd->ledger, "attach", v->name, &err);
			pd_background_flush(pd);
		}
		pd->permits.refused++;
		request_fail(q, &err);
		return;
	}
	take_over(pd, v, a->holder);
	v->generation++;
	now_held = &v->attachment;
	*now_held = (struct reg_attachment){.generation = v->generation,
					    .read_only = a->read_only,
					    .maintenance = a->maintenance,
					    .live = true};
	snprintf(now_held->holder, sizeof now_held->holder, "%s", a->holder);
	snprintf(now_held->holder_site, sizeof now_held->holder_site, "%s", a->holder_site);
	snprintf(now_held->endpoint, sizeof now_held->endpoint, "%s", a->endpoint);
	v->holder = NULL; /* until it is durable: nobody gets a permit before */
	v->report_count = 0;
	v->host_size = 0;
	v->detach_deadline_ns = 0;
	q->volume = v->id;
	q->generation = v->generation;
	if (permits_reserve(&pd->permits, v, &q->bound, &err) != 0) {
		/* The generation is used up, and nobody holds it. */
		now_held->live = false;
		reg_save_volume(&pd->reg, v);
		pd_background_flush(pd);
		request_fail(q, &err);
		return;
	}
	log_info("pd", "volume %s: attached by %s%s%s, generation %u%s", v->name, a->holder,
		 a->holder_site[0] != '\0' ? " in " : "", a->holder_site, v->generation,
		 a->read_only ? ", read-only" : "");
	request_commit(q, attach_committed);
}

/* -- before a host takes a volume over ----------------------------------------------------------
 */

/* The nodes that a permit would name now, in the arena. */
static Pave__V1__MapNode **eligible_nodes(struct pd *pd, struct arena *a,
					  const struct reg_volume *v, int64_t now,
					  size_t *ret_count)
{
	Pave__V1__MapNode **nodes = host_map_nodes(a, v);

	*ret_count = 0;
	for (uint32_t i = 0; nodes != NULL && i < v->node_count; i++)
		if (verdicts_get(&pd->verdicts, v->nodes[i]->site, v->policy, now)->eligible)
			nodes[(*ret_count)++] = nodes[i];
	return nodes;
}

void host_prepare(struct pd_request *q, const Pave__V1__Control *m)
{
	Pave__V1__Control reply = PAVE__V1__CONTROL__INIT;
	Pave__V1__PrepareReply r = PAVE__V1__PREPARE_REPLY__INIT;
	Pave__V1__Attach attach = PAVE__V1__ATTACH__INIT;
	struct pd *pd = q->pd;
	struct reg_volume *v;
	struct arena arena = {0};
	struct error err = {0};
	int64_t now;

	if (m->prepare->attach != NULL)
		attach = *m->prepare->attach;
	attach.if_free = attach.maintenance = false;
	v = reg_volume_find(&pd->reg, attach.volume);
	if (check_attach(pd, &attach, v, &err) != 0 || permits_now(&pd->permits, &now, &err) != 0) {
		request_fail(q, &err);
		return;
	}
	r.nodes = eligible_nodes(pd, &arena, v, now, &r.n_nodes);
	if (arena_failed(&arena)) {
		error_set(&err, -ENOMEM, "no memory for the nodes of %s", v->name);
		request_fail(q, &err);
	} else {
		tell_root(pd, q->session, &r.root);
		reply.body_case = PAVE__V1__CONTROL__BODY_PREPARE_REPLY;
		reply.prepare_reply = &r;
		request_reply(q, &reply);
	}
	arena_deinit(&arena);
}

/* -- renew ------------------------------------------------------------------------------------ */

static void take_reports(struct reg_volume *v, const Pave__V1__Renew *r)
{
	uint32_t count = (uint32_t)MIN(r->n_replicas, (size_t)REG_MAP_NODES_MAX);

	if (count > v->report_count || v->reports == NULL) {
		struct replica_report *larger =
		    realloc(v->reports, (count + 1) * sizeof *v->reports);

		if (larger == NULL)
			return; /* only people look at it */
		v->reports = larger;
	}
	for (uint32_t i = 0; i < count; i++) {
		const Pave__V1__ReplicaState *s = r->replicas[i];
		struct replica_report *p = &v->reports[i];

		snprintf(p->node, sizeof p->node, "%.63s", s->node);
		snprintf(p->state, sizeof p->state, "%.23s", s->state);
		snprintf(p->transport, sizeof p->transport, "%.15s", s->transport);
		p->lag = s->lag;
		p->chunks_behind = s->chunks_behind;
		p->resync_left = s->resync_left;
		p->resync_rate = s->resync_rate;
		p->tx_frames = s->tx_frames;
		p->tx_bytes = s->tx_bytes;
		p->rx_frames = s->rx_frames;
		p->rx_bytes = s->rx_bytes;
		p->rx_copied_bytes = s->rx_copied_bytes;
	}
	v->report_count = count;
	v->layers_begun = r->layers != NULL ? r->layers->begun : 0;
	v->layers_pause_ns = r->layers != NULL ? r->layers->pause_ns : 0;
	v->layers_work_ns = r->layers != NULL ? r->layers->work_ns : 0;
}

/* What the holder has not of its volume; NULL: nothing, or it would not know what to do with it. */
static Pave__V1__Growth *growth(const struct pd *pd, struct arena *a, const struct reg_volume *v)
{
	Pave__V1__Growth *g;
	uint64_t from;

	if (v->host_size == 0 || v->host_size >= v->size ||
	    !reg_is_durable(&pd->reg, v->size_batch))
		return NULL;
	g = arena_get(a, sizeof *g);
	if (g == NULL)
		return NULL;
	pave__v1__growth__init(g);
	from = (v->host_size + v->chunk_size - 1) / v->chunk_size;
	g->size = v->size;
	g->from = (uint32_t)from;
	g->map.data = v->map + from * v->replicas;
	g->map.len = (v->chunk_count - from) * v->replicas;
	return g;
}

static void renew_committed(struct pd_request *q)
{
	struct pd *pd = q->pd;
	Pave__V1__Control m = PAVE__V1__CONTROL__INIT;
	Pave__V1__RenewReply r = PAVE__V1__RENEW_REPLY__INIT;
	struct arena arena = {0};
	struct error err;
	struct reg_volume *v = still_current(q, &err);

	if (v != NULL) {
		permits_durable(v, q->bound);
		if (permits_make(&pd->permits, v, &r.permit, &err) != 0)
			note_refusal(pd, v, &err);
	}
	if (r.permit == NULL) {
		request_fail(q, &err);
		return;
	}
	if (!pd_ledger_permit(&pd->ledger, r.permit)) {
		pave__v1__signed__free_unpacked(r.permit, NULL);
		request_commit(q, renew_committed);
		return;
	}
	r.wall = reactor_wall_ns(pd->reactor);
	r.nodes = host_map_nodes(&arena, v);
	r.n_nodes = r.nodes != NULL ? v->node_count : 0;
	r.moves = moves_list(pd, &arena, v, &r.n_moves);
	r.min_acks = v->min_acks;
	r.growth = growth(pd, &arena, v);
	m.body_case = PAVE__V1__CONTROL__BODY_RENEW_REPLY;
	m.renew_reply = &r;
	if (arena_failed(&arena)) { /* half a list of moves would end the others */
		error_set(&err, -ENOMEM, "no memory for the nodes of %s", v->name);
		request_fail(q, &err);
	} else {
		tell_root(pd, q->session, &r.root);
		request_reply(q, &m);
		moves_host_told(v);
	}
	pave__v1__signed__free_unpacked(r.permit, NULL);
	arena_deinit(&arena);
	pd_arm_evidence_timer(pd);
	admin_settling_check(pd);
}

static int check_renew(struct pd_request *q, struct reg_volume *v, struct error *err)
{
	const struct reg_attachment *a;

	if (v == NULL)
		return err->code;
	a = &v->attachment;
	if (!a->live)
		return error_set(err, -E_FENCED, "volume %s: generation %u was released", v->name,
				 q->generation);
	if (v->detach_deadline_ns != 0 && reactor_now_ns(q->pd->reactor) >= v->detach_deadline_ns)
		return error_set(
		    err, -E_FENCED,
		    "volume %s: somebody asked for the end of this attachment, and its "
		    "time is over",
		    v->name);
	return permits_check(&q->pd->permits, v, a->holder_site, NULL, err);
}

void host_renew(struct pd_request *q, const Pave__V1__Control *m)
{
	const Pave__V1__Renew *r = m->renew;
	struct pd *pd = q->pd;
	struct reg_volume *v;
	struct error err = {0};

	q->volume = r->volume;
	q->generation = r->generation;
	v = still_current(q, &err);
	if (check_renew(q, v, &err) != 0 ||
	    permits_reserve(&pd->permits, v, &q->bound, &err) != 0) {
		pd->permits.refused++;
		/* It stays the holder: evidence may come back, and it is told then. */
		if (v != NULL && v->attachment.live && err.code != -E_FENCED) {
			v->holder = q->session;
			note_refusal(pd, v, &err);
		}
		request_fail(q, &err);
		return;
	}
	/* After a reconnection it is another session. */
	v->holder = q->session;
	take_reports(v, r);
	v->host_size = r->size;
	moves_host_left(v, r->moving, r->n_moving);
	if (r->sealed != 0)
		admin_layer_sealed(pd, v, r->sealed);
	if (v->detach_deadline_ns != 0)
		host_notify_detach(v);
	request_commit(q, renew_committed);
}

void host_move_commit(struct pd_request *q, const Pave__V1__Control *m)
{
	const Pave__V1__MoveCommit *c = m->move_commit;
	struct reg_volume *v;
	struct error err = {0};

	q->volume = c->volume;
	q->generation = c->generation;
	v = still_current(q, &err);
	if (v != NULL && !v->attachment.live)
		error_set(&err, -E_FENCED, "volume %s: generation %u was released", v->name,
			  q->generation);
	if (err.code != 0)
		request_fail(q, &err);
	else
		move_commit(q, v, c);
}

/* -- the end of an attachment ----------------------------------------------------------------- */

static void release(struct pd *pd, struct reg_volume *v)
{
	log_info("pd", "volume %s: generation %u of %s has ended", v->name,
		 v->attachment.generation, v->attachment.holder);
	pd_ledger_released(&pd->ledger, v, v->attachment.generation);
	v->attachment.live = false;
	v->holder = NULL;
	v->report_count = 0;
	v->detach_deadline_ns = 0;
	reg_save_volume(&pd->reg, v);
}

/* Looks at every parked request again. */
static void check_parked(struct pd *pd)
{
	struct pd_request *q, *next;
	int64_t now = reg_now(&pd->reg, NULL);
	int64_t wait = INT64_MAX;

	DL_FOREACH_SAFE (pd->parked, q, next) {
		struct reg_volume *v = reg_volume_by_id(&pd->reg, q->volume);
		int64_t end = 0;

		if (v != NULL && !v->deleted && v->generation == q->generation)
			end = reg_attachment_end(&pd->reg, v, now);
		if (end != 0) {
			wait = MIN(wait, end - now);
			continue;
		}
		if (v != NULL && v->generation == q->generation && v->attachment.live)
			release(pd, v);
		DL_DELETE(pd->parked, q);
		DL_APPEND(pd->requests, q);
		request_commit(q, request_done);
	}
	if (wait != INT64_MAX)
		reactor_timer_arm(pd->reactor, &pd->parked_timer,
				  reactor_now_ns(pd->reactor) + (uint64_t)wait + NS_PER_MS);
}

void host_parked_timer(struct reactor_timer *t)
{
	check_parked(container_of(t, struct pd, parked_timer));
}

static void detach_committed(struct pd_request *q)
{
	struct pd *pd = q->pd;
	struct reg_volume *v = reg_volume_by_id(&pd->reg, q->volume);

	/* A newer holder needn't wait for it any longer. */
	if (v != NULL && !v->deleted && v->attachment.live && v->generation != q->generation)
		host_push_permit(pd, v);
	request_done(q);
	check_parked(pd);
}

void host_detach(struct pd_request *q, const Pave__V1__Control *m)
{
	const Pave__V1__Detach *d = m->detach;
	struct pd *pd = q->pd;
	struct reg_volume *v = reg_volume_by_id(&pd->reg, d->volume);
	struct error err;

	if (v == NULL || d->generation == 0 || d->generation > v->generation) {
		error_set(&err, -ENOENT, "there is no volume #%llu with generation %u to detach",
			  (unsigned long long)d->volume, d->generation);
		request_fail(q, &err);
		return;
	}
	q->volume = v->id;
	q->generation = d->generation;
	if (d->generation == v->generation) {
		if (v->attachment.live)
			release(pd, v);
	} else {
		reg_volume_drop_older(v, d->generation);
		pd_ledger_released(&pd->ledger, v, d->generation);
		reg_save_volume(&pd->reg, v);
	}
	request_commit(q, detach_committed);
}

void host_volume_detach(struct pd_request *q, const Pave__V1__Control *m)
{
	struct pd *pd = q->pd;
	struct reg_volume *v = reg_volume_find(&pd->reg, m->volume_detach->name);
	int64_t now = reg_now(&pd->reg, NULL);
	struct error err;

	if (v == NULL) {
		error_set(&err, -ENOENT, "there is no volume \"%.64s\": pave volume list",
			  m->volume_detach->name);
		request_fail(q, &err);
		return;
	}
	q->volume = v->id;
	q->generation = v->generation;
	/* Whoever asked may want to do something with it. */
	v->maintain_after_ns = reactor_now_ns(pd->reactor) + PD_MAINTAIN_PAUSE_S * NS_PER_S;
	if (reg_attachment_end(&pd->reg, v, now) != 0) {
		if (v->holder != NULL)
			host_notify_detach(v);
		if (v->detach_deadline_ns == 0)
			v->detach_deadline_ns =
			    reactor_now_ns(pd->reactor) +
			    DETACH_GRACE_LIFETIMES * (uint64_t)pd->permits.lifetime_ns;
	}
	request_park(q);
	check_parked(pd);
}
