/* attachment: see attachment.h.
 *
 * Happy path: Hello, Attach, then a Renew every renew_ms; each permit is verified once, becomes the
 * gate's deadline, and is taken to every node.
 *
 * Failure modes: the driver cannot be reached: the gate stays open until the permit's deadline, and
 * opens again with the next permit. It answers E_FENCED, or ENOENT (the volume was deleted after
 * the attachment had run out): the attachment is over. It refuses a permit: the gate closes at
 * once, and asking goes on. Before the first permit any refusal ends the opening.
 */
#include "engine/volume/attachment.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/assert.h"
#include "engine/base/log.h"
#include "engine/volume/core.h"

#define BACKOFF_MIN_MS 100u
#define BACKOFF_MAX_MS 2000u
/* Between rounds over several drivers: while they choose a leader, permits run out. */
#define BACKOFF_SEVERAL_MAX_MS 500u
#define RENEW_MIN_MS	       100u

static void begin(struct vattach *a);
static void connect_now(struct vattach *a);
static void renew(struct vattach *a);
static void send_detach(struct vattach *a);

static void remember(struct vattach *a, int why, const char *text)
{
	a->why = why;
	snprintf(a->why_text, sizeof(a->why_text), "%.200s", text);
}

/* The driver hangs, or does not lead: the connection is given up, and another may do. */
static bool is_elsewhere(int status)
{
	return status == -E_DISCONNECTED || status == -ETIMEDOUT || status == -E_NOT_LEADER;
}

static uint32_t call_timeout_ms(const struct vattach *a)
{
	return drivers_several(&a->drivers) ? VATTACH_ELSEWHERE_MS : 0;
}

static void arm(struct vattach *a, uint64_t ms)
{
	reactor_timer_arm(a->volume->reactor, &a->timer, volume_now(a->volume) + ms * NS_PER_MS);
}

/* A tenth of the time by chance, so that hosts which came all at once do not come so for ever. */
static void arm_renewal(struct vattach *a)
{
	uint32_t chance;

	reactor_random(a->volume->reactor, &chance, sizeof(chance));
	arm(a, a->renew_ms - chance % (a->renew_ms / 10 + 1));
}

static void disconnect(struct vattach *a)
{
	if (a->conn == NULL || a->closing)
		return;
	a->closing = true;
	transport_close(a->conn);
}

static void detached(struct vattach *a)
{
	a->state = VATTACH_OVER;
	reactor_timer_cancel(a->volume->reactor, &a->timer);
	disconnect(a);
	volume_event(a->volume);
}

/* Nothing came of opening; later failures only pass. */
static void fail(struct vattach *a, int why, const char *text)
{
	struct volume *v = a->volume;

	remember(a, why, text);
	if (a->state < VATTACH_ATTACHED)
		volume_end(v, why, text);
	else if (a->state == VATTACH_DETACHING)
		detached(a);
	else if (why == -E_FENCED || why == -ENOENT)
		volume_end(v, why, text);
}

/* -- permits ----------------------------------------------------------------------------------- */

static Pave__V1__Signed *copy_signed(const Pave__V1__Signed *s)
{
	const size_t size = pave__v1__signed__get_packed_size(s);
	uint8_t *packed = malloc(size + 1);
	Pave__V1__Signed *copy;

	if (packed == NULL)
		return NULL;
	pave__v1__signed__pack(s, packed);
	copy = pave__v1__signed__unpack(NULL, size, packed);
	free(packed);
	return copy;
}

static void close_gate(struct vattach *a, int why)
{
	a->gate = (struct gate){.why = why};
	volume_permit_changed(a->volume);
}

static int check_permit(const struct vattach *a, const struct permit *p, struct error *err)
{
	const struct volume *v = a->volume;

	if (a->state < VATTACH_ATTACHED)
		return 0; /* the first: it says which volume and generation */
	if (p->volume != v->id || p->generation != v->generation)
		return error_set(err, -E_BAD_DOCUMENT,
				 "the permit is for volume %llu generation %u; attached is volume "
				 "%llu generation %u",
				 (unsigned long long)p->volume, p->generation,
				 (unsigned long long)v->id, v->generation);
	if (p->serial < a->permit.serial)
		return error_set(err, -E_ROLLBACK, "the permit is older than the one in force");
	return 0;
}

/* Verifies it, once, and puts it in force. */
static int take_permit(struct vattach *a, const Pave__V1__Signed *signed_permit, struct error *err)
{
	struct volume *v = a->volume;
	Pave__V1__Signed *copy;
	struct permit permit;
	int rc = permit_open(signed_permit, trust_root(v->config.trust), volume_now(v),
			     reactor_wall_ns(v->reactor), &permit, err);

	if (rc != 0)
		return rc;
	rc = check_permit(a, &permit, err);
	copy = rc == 0 ? copy_signed(signed_permit) : NULL;
	if (rc == 0 && copy == NULL)
		rc = error_set(err, -ENOMEM, "no memory for a permit");
	if (rc != 0) {
		permit_deinit(&permit);
		return rc;
	}
	permit_deinit(&a->permit);
	if (a->signed_permit != NULL)
		pave__v1__signed__free_unpacked(a->signed_permit, NULL);
	a->permit = permit;
	a->signed_permit = copy;
	a->gate = (struct gate){.deadline_ns = permit.deadline_ns, .why = -E_PERMIT_EXPIRED};
	v->stats.permits++;
	return 0;
}

/* A permit, or word that there is none, while attached. True: the permit is in force. */
static bool take_news(struct vattach *a, const Pave__V1__Signed *signed_permit, uint32_t min_acks,
		      int why, const char *text)
{
	struct volume *v = a->volume;
	struct error err = {0};

	if (a->state != VATTACH_ATTACHED || v->ended != 0)
		return false;
	if (signed_permit == NULL) {
		log_warn("volume", "%s: no permit: %s", v->config.name, text);
		fail(a, why, text);
		close_gate(a, why);
		return false;
	}
	if (take_permit(a, signed_permit, &err) != 0) {
		/* The one in force stays; it runs out by itself. */
		log_warn("volume", "%s: the driver's permit is not valid: %s", v->config.name,
			 err.text);
		remember(a, err.code, err.text);
		return false;
	}
	a->why = 0;
	volume_take_min_acks(v, min_acks);
	volume_permit_changed(v);
	return true;
}

/* -- Attach ------------------------------------------------------------------------------------ */

/* A newer trust root, under which the next permit is verified. */
static void take_root(struct volume *v, const ProtobufCBinaryData *root)
{
	struct error err = {0};

	if (root->len > 0 && trust_accept_root(v->config.trust, root->data, root->len, &err) != 0)
		log_warn("volume", "the driver's trust root is not accepted: %s", err.text);
}

static void attach_done(struct rpc_call *call, int status, const Pave__V1__Control *reply,
			const char *text)
{
	struct vattach *a = container_of(call, struct vattach, call);
	struct volume *v = a->volume;
	const Pave__V1__AttachReply *r;
	struct error err = {0};

	a->calling = false;
	if (is_elsewhere(status)) {
		remember(a, status, text);
		disconnect(a);
		return;
	}
	if (status == 0 && reply->body_case != PAVE__V1__CONTROL__BODY_ATTACH_REPLY) {
		status = -E_BAD_FRAME;
		text = "the driver's answer is of another kind";
	}
	if (status != 0) {
		fail(a, status, text);
		return;
	}
	r = reply->attach_reply;
	take_root(v, &r->root);
	if (r->permit == NULL)
		error_set(&err, -E_NO_PERMIT, "the driver gave no permit");
	else if (take_permit(a, r->permit, &err) == 0)
		volume_take_map(v, r, &err);
	if (a->state < VATTACH_ATTACHED && v->chunks == NULL) {
		fail(a, err.code != 0 ? err.code : -E_BAD_DOCUMENT, err.text);
		return;
	}
	a->renew_ms = r->renew_ms != 0 ? MAX(r->renew_ms, RENEW_MIN_MS) : PERMIT_RENEW_MS;
	a->state = VATTACH_ATTACHED;
	arm_renewal(a);
	volume_permit_changed(v);
	vmove_take_list(v, r->moves, r->n_moves);
	volume_event(v);
}

static Pave__V1__Attach what_is_wanted(const struct vattach *a)
{
	const struct volume_config *config = &a->volume->config;
	Pave__V1__Attach attach = PAVE__V1__ATTACH__INIT;

	attach.volume = (char *)(uintptr_t)config->name;
	attach.holder = (char *)(uintptr_t)config->holder;
	attach.holder_site = (char *)(uintptr_t)config->holder_site;
	attach.endpoint = (char *)(uintptr_t)config->endpoint;
	attach.read_only = config->read_only;
	attach.if_free = config->if_free;
	attach.maintenance = config->maintenance;
	return attach;
}

static void send_attach(struct vattach *a)
{
	Pave__V1__Control message = PAVE__V1__CONTROL__INIT;
	Pave__V1__Attach attach = what_is_wanted(a);

	a->state = VATTACH_ATTACHING;
	message.body_case = PAVE__V1__CONTROL__BODY_ATTACH;
	message.attach = &attach;
	a->call.done = attach_done;
	a->calling = true;
	rpc_call_start(&a->rpc, &a->call, &message, 0);
}

/* -- Prepare, and the end of whoever has the volume -----------------------------------------------
 */

static void prepare_done(struct rpc_call *call, int status, const Pave__V1__Control *reply,
			 const char *text)
{
	struct vattach *a = container_of(call, struct vattach, call);

	a->calling = false;
	if (status == 0 && reply->body_case != PAVE__V1__CONTROL__BODY_PREPARE_REPLY)
		status = -E_BAD_FRAME;
	if (is_elsewhere(status) || status == -E_BAD_FRAME) {
		remember(a, status, text);
		disconnect(a);
		return;
	}
	if (status != 0) {
		fail(a, status, text);
		return;
	}
	take_root(a->volume, &reply->prepare_reply->root);
	a->prepared = true;
	a->state = VATTACH_PREPARED;
	volume_take_nodes(a->volume, reply->prepare_reply->nodes, reply->prepare_reply->n_nodes);
	if (a->take_over)
		begin(a);
	else
		volume_event(a->volume);
}

static void send_prepare(struct vattach *a)
{
	Pave__V1__Control message = PAVE__V1__CONTROL__INIT;
	Pave__V1__Prepare prepare = PAVE__V1__PREPARE__INIT;
	Pave__V1__Attach attach = what_is_wanted(a);

	a->state = VATTACH_PREPARING;
	prepare.attach = &attach;
	message.body_case = PAVE__V1__CONTROL__BODY_PREPARE;
	message.prepare = &prepare;
	a->call.done = prepare_done;
	a->calling = true;
	rpc_call_start(&a->rpc, &a->call, &message, call_timeout_ms(a));
}

static void release_done(struct rpc_call *call, int status, const Pave__V1__Control *reply,
			 const char *text)
{
	struct vattach *a = container_of(call, struct vattach, call);

	(void)reply;
	a->calling = false;
	if (is_elsewhere(status)) {
		remember(a, status, text);
		disconnect(a);
		return;
	}
	if (status != 0) {
		fail(a, status, text);
		return;
	}
	a->released = true;
	a->opened_ns = volume_now(a->volume);
	send_attach(a);
}

/* The answer comes when the other host has let go, or when its permit has run out. */
static void send_release(struct vattach *a)
{
	Pave__V1__Control message = PAVE__V1__CONTROL__INIT;
	Pave__V1__VolumeDetach detach = PAVE__V1__VOLUME_DETACH__INIT;

	a->state = VATTACH_RELEASING;
	detach.name = (char *)(uintptr_t)a->volume->config.name;
	message.body_case = PAVE__V1__CONTROL__BODY_VOLUME_DETACH;
	message.volume_detach = &detach;
	a->call.done = release_done;
	a->calling = true;
	rpc_call_start(&a->rpc, &a->call, &message, VATTACH_RELEASE_TIMEOUT_MS);
}

/* Greeted by the driver, and not attached. */
static void begin(struct vattach *a)
{
	if (!a->take_over)
		send_prepare(a);
	else if (a->volume->config.prepared != NULL && !a->released)
		send_release(a);
	else
		send_attach(a);
}

void vattach_take_over(struct vattach *a)
{
	if (a->take_over)
		return;
	a->take_over = true;
	a->opened_ns = volume_now(a->volume);
	if (a->state == VATTACH_PREPARED && a->greeted && !a->closing)
		begin(a);
}

/* -- Renew ------------------------------------------------------------------------------------- */

/* The driver has said that the volume is larger: it is asked what there is more, once. What comes
 * of nothing comes again with the next renewal. */
static void ask_growth(struct vattach *a)
{
	if (a->size_told <= a->volume->size || vattach_renew(a))
		a->size_told = 0;
}

static void take_growth(struct vattach *a, const Pave__V1__RenewReply *r)
{
	struct volume *v = a->volume;
	struct error err;

	if (r->growth == NULL)
		return;
	if (volume_take_growth(v, r->growth, r->nodes, r->n_nodes, &err) != 0)
		log_warn("volume", "%s: it does not grow: %s", v->config.name, err.text);
}

static void renew_done(struct rpc_call *call, int status, const Pave__V1__Control *reply,
		       const char *text)
{
	struct vattach *a = container_of(call, struct vattach, call);
	const uint64_t size = a->volume->size;

	a->calling = false;
	if (a->state == VATTACH_DETACHING) {
		/* Without a connection conn_closed, which called this, ends it. */
		if (a->conn != NULL)
			send_detach(a);
		return;
	}
	if (a->state != VATTACH_ATTACHED)
		return;
	if (status == 0 && reply->body_case != PAVE__V1__CONTROL__BODY_RENEW_REPLY)
		status = -E_BAD_FRAME;
	if (is_elsewhere(status) || status == -E_BAD_FRAME) {
		remember(a, status, text);
		disconnect(a);
		return;
	}
	arm_renewal(a);
	if (status != 0) {
		take_news(a, NULL, 0, status, text);
		return;
	}
	volume_take_addresses(a->volume, reply->renew_reply->nodes, reply->renew_reply->n_nodes);
	take_root(a->volume, &reply->renew_reply->root);
	if (take_news(a, reply->renew_reply->permit, reply->renew_reply->min_acks, -E_NO_PERMIT,
		      "the driver gave no permit"))
		take_growth(a, reply->renew_reply);
	vmove_take_list(a->volume, reply->renew_reply->moves, reply->renew_reply->n_moves);
	if (a->volume->size > size)
		vattach_renew(a); /* so that the driver can say what is served */
	else
		ask_growth(a);
}

static void renew(struct vattach *a)
{
	struct volume *v = a->volume;
	uint32_t moving[VMOVES_MAX];
	Pave__V1__Control message = PAVE__V1__CONTROL__INIT;
	Pave__V1__Renew renew_message = PAVE__V1__RENEW__INIT;
	Pave__V1__LayerStats layers = PAVE__V1__LAYER_STATS__INIT;
	Pave__V1__ReplicaState *items = calloc(v->node_count + 1, sizeof(*items));
	Pave__V1__ReplicaState **list = calloc(v->node_count + 1, sizeof(Pave__V1__ReplicaState *));

	renew_message.volume = v->id;
	renew_message.generation = v->generation;
	renew_message.sealed = vlayers_settled(v);
	renew_message.size = v->size;
	layers.begun = v->stats.layers_begun;
	layers.pause_ns = v->stats.layers_pause_ns;
	layers.work_ns = v->stats.layers_work_ns;
	if (layers.begun > 0)
		renew_message.layers = &layers;
	if (items != NULL && list != NULL) {
		volume_describe_replicas(v, items);
		for (uint32_t i = 0; i < v->node_count; i++)
			list[i] = &items[i];
		renew_message.n_replicas = v->node_count;
		renew_message.replicas = list;
	}
	renew_message.n_moving = vmove_chunks(v, moving);
	renew_message.moving = moving;
	message.body_case = PAVE__V1__CONTROL__BODY_RENEW;
	message.renew = &renew_message;
	a->call.done = renew_done;
	a->calling = true;
	rpc_call_start(&a->rpc, &a->call, &message, call_timeout_ms(a));
	free(items);
	free(list);
}

bool vattach_renew(struct vattach *a)
{
	if (a->conn == NULL || !a->greeted || a->closing || a->calling ||
	    a->state != VATTACH_ATTACHED)
		return false;
	renew(a);
	return true;
}

/* -- Detach ------------------------------------------------------------------------------------ */

static void detach_done(struct rpc_call *call, int status, const Pave__V1__Control *reply,
			const char *text)
{
	struct vattach *a = container_of(call, struct vattach, call);

	(void)reply;
	a->calling = false;
	if (status != 0)
		log_warn("volume", "%s: the permit could not be released, and runs out: %s",
			 a->volume->config.name, text);
	detached(a);
}

static void send_detach(struct vattach *a)
{
	Pave__V1__Control message = PAVE__V1__CONTROL__INIT;
	Pave__V1__Detach detach = PAVE__V1__DETACH__INIT;

	detach.volume = a->volume->id;
	detach.generation = a->volume->generation;
	message.body_case = PAVE__V1__CONTROL__BODY_DETACH;
	message.detach = &detach;
	a->call.done = detach_done;
	a->calling = true;
	rpc_call_start(&a->rpc, &a->call, &message, VATTACH_DETACH_TIMEOUT_MS);
}

void vattach_detach(struct vattach *a)
{
	if (a->state != VATTACH_ATTACHED || !a->greeted || a->closing) {
		detached(a);
		return;
	}
	a->state = VATTACH_DETACHING;
	a->gate = (struct gate){.why = -E_NO_PERMIT};
	arm(a, VATTACH_DETACH_TIMEOUT_MS);
	if (!a->calling)
		send_detach(a);
}

/* -- the connection ---------------------------------------------------------------------------- */

static void hello_done(struct rpc_call *call, int status, const Pave__V1__Control *reply,
		       const char *text)
{
	struct vattach *a = container_of(call, struct vattach, call);

	a->calling = false;
	if (is_elsewhere(status)) {
		remember(a, status, text);
		disconnect(a);
		return;
	}
	if (status == 0 && reply->body_case != PAVE__V1__CONTROL__BODY_HELLO_REPLY) {
		status = -E_BAD_FRAME;
		text = "the driver's answer is of another kind";
	}
	if (status == 0 &&
	    rpc_agree(&a->rpc, reply->hello_reply->version, reply->hello_reply->version) != 0) {
		status = -E_WIRE_VERSION;
		text = err_text(status);
	}
	if (status != 0) {
		fail(a, status, text);
		disconnect(a);
		return;
	}
	if (reply->hello_reply->standby) {
		remember(a, -E_NOT_LEADER, err_text(-E_NOT_LEADER));
		snprintf(a->leader, sizeof a->leader, "%.*s", (int)sizeof a->leader - 1,
			 reply->hello_reply->leader);
		disconnect(a);
		return;
	}
	a->greeted = true;
	a->backoff_ms = BACKOFF_MIN_MS;
	drivers_found(&a->drivers);
	if (a->state < VATTACH_ATTACHED)
		begin(a);
	else if (a->state == VATTACH_ATTACHED)
		renew(a);
	else if (a->state == VATTACH_DETACHING)
		send_detach(a);
}

static void conn_ready(struct transport_conn *conn, void *arg)
{
	struct vattach *a = arg;
	const struct uuid *cluster = root_cluster(trust_root(a->volume->config.trust));
	Pave__V1__Control message = PAVE__V1__CONTROL__INIT;
	Pave__V1__Hello hello = PAVE__V1__HELLO__INIT;
	char role[] = "host", software[] = "pave " PAVE_VERSION;

	(void)conn;
	if (a->closing)
		return;
	if (a->state == VATTACH_CONNECTING)
		a->state = VATTACH_GREETING;
	hello.version_min = FRAME_VERSION_MIN;
	hello.version_max = FRAME_VERSION;
	hello.cluster.len = sizeof(cluster->bytes);
	hello.cluster.data = (uint8_t *)(uintptr_t)cluster->bytes;
	hello.role = role;
	hello.name = (char *)(uintptr_t)a->volume->config.holder;
	hello.software = software;
	message.body_case = PAVE__V1__CONTROL__BODY_HELLO;
	message.hello = &hello;
	a->call.done = hello_done;
	a->calling = true;
	rpc_call_start(&a->rpc, &a->call, &message, call_timeout_ms(a));
}

static void handle(struct rpc *rpc, const struct rpc_request *request, void *arg)
{
	struct vattach *a = arg;
	const Pave__V1__Control *m = request->message;

	(void)rpc;
	if (m->body_case == PAVE__V1__CONTROL__BODY_PERMIT_NOTICE) {
		const Pave__V1__PermitNotice *n = m->permit_notice;
		const uint32_t status = MIN(n->status, (uint32_t)FRAME_STATUS_MAX);

		if (n->volume != a->volume->id)
			return;
		volume_take_addresses(a->volume, n->nodes, n->n_nodes);
		take_root(a->volume, &n->root);
		take_news(a, n->permit, n->min_acks, status != 0 ? -(int)status : -E_NO_PERMIT,
			  n->status_text);
		if (n->permit != NULL)
			vmove_take_list(a->volume, n->moves, n->n_moves);
		a->size_told = n->size;
		ask_growth(a);
	} else if (m->body_case == PAVE__V1__CONTROL__BODY_DETACH_NOTICE) {
		if (m->detach_notice->volume == a->volume->id)
			volume_detach_asked(a->volume);
	} else if (request->request_id != 0) {
		rpc_fail(&a->rpc, request->request_id, -EOPNOTSUPP,
			 "a host does not answer this kind of message");
	}
}

/* Another driver at once, or, when all were tried, after a pause. */
static void try_again(struct vattach *a)
{
	const bool pause = drivers_next(&a->drivers, a->leader);

	a->leader[0] = '\0';
	arm(a, pause ? a->backoff_ms : 0);
	if (pause)
		a->backoff_ms =
		    MIN(a->backoff_ms * 2,
			drivers_several(&a->drivers) ? BACKOFF_SEVERAL_MAX_MS : BACKOFF_MAX_MS);
}

static void conn_closed(struct transport_conn *conn, int reason, void *arg)
{
	struct vattach *a = arg;

	(void)conn;
	if (reason != 0)
		remember(a, reason, err_text(reason));
	a->conn = NULL;
	a->greeted = a->closing = false;
	rpc_closed(&a->rpc);
	a->calling = false;
	switch (a->state) {
	case VATTACH_GREETING:
	case VATTACH_PREPARING:
	case VATTACH_PREPARED:
	case VATTACH_RELEASING:
	case VATTACH_ATTACHING:
		a->state = VATTACH_CONNECTING;
		break;
	case VATTACH_DETACHING:
		detached(a);
		return;
	case VATTACH_OVER:
		volume_event(a->volume);
		return;
	default:
		break;
	}
	if (a->volume->ended != 0)
		return;
	try_again(a);
}

static void *conn_rx_buffer(struct transport_conn *conn, const struct frame *f, void *arg)
{
	struct vattach *a = arg;

	(void)conn;
	return f->op == FRAME_CONTROL ? rpc_rx_buffer(&a->rpc, f) : NULL;
}

static void conn_rx(struct transport_conn *conn, const struct frame *f, void *arg)
{
	struct vattach *a = arg;

	(void)conn;
	if (a->closing)
		return;
	if (f->op == FRAME_CONTROL)
		rpc_rx(&a->rpc, f);
	else
		disconnect(a);
}

static const struct transport_handler conn_handler = {
    .ready = conn_ready,
    .rx_buffer = conn_rx_buffer,
    .rx = conn_rx,
    .closed = conn_closed,
};

static void give_up_opening(struct vattach *a)
{
	char text[400];

	snprintf(text, sizeof(text), "the placement driver at %s cannot be reached: %s",
		 a->volume->config.pd_address, a->why != 0 ? a->why_text : "no answer in time");
	volume_end(a->volume, -E_UNREACHABLE, text);
}

static void connect_now(struct vattach *a)
{
	struct volume *v = a->volume;
	int rc = transport_connect(v->config.transport, drivers_current(&a->drivers), &conn_handler,
				   a, &a->conn);

	if (rc == 0) {
		rpc_init(&a->rpc, a->conn, handle, a);
		return;
	}
	a->conn = NULL;
	remember(a, rc, err_text(rc));
	if (a->state < VATTACH_ATTACHED && (rc == -EINVAL || rc == -EACCES)) {
		give_up_opening(a);
		return;
	}
	try_again(a);
}

static void timer_fire(struct reactor_timer *timer)
{
	struct vattach *a = container_of(timer, struct vattach, timer);

	if (a->state == VATTACH_DETACHING) {
		detached(a);
		return;
	}
	if (a->state == VATTACH_OVER || a->volume->ended != 0)
		return;
	if (a->conn == NULL)
		connect_now(a);
	else if (a->greeted && !a->calling && a->state == VATTACH_ATTACHED)
		renew(a);
}

/* While it waits, be it to be told or for another host, the driver may be away. */
static bool is_patient(const struct vattach *a)
{
	return (a->prepared && !a->take_over) || a->state == VATTACH_RELEASING;
}

void vattach_tick(struct vattach *a)
{
	if (a->state < VATTACH_ATTACHED && a->volume->ended == 0 && !is_patient(a) &&
	    volume_now(a->volume) > a->opened_ns + VATTACH_OPEN_TIMEOUT_MS * NS_PER_MS)
		give_up_opening(a);
}

void vattach_start(struct vattach *a, struct volume *v)
{
	struct error err;

	*a = (struct vattach){
	    .volume = v,
	    .timer = {.fire = timer_fire},
	    .backoff_ms = BACKOFF_MIN_MS,
	    .renew_ms = PERMIT_RENEW_MS,
	    .opened_ns = volume_now(v),
	    .take_over = v->config.prepared == NULL,
	    .gate = {.why = -E_NO_PERMIT},
	};
	if (drivers_parse(v->config.pd_address, &a->drivers, &err) != 0) {
		remember(a, err.code, err.text);
		give_up_opening(a);
		return;
	}
	connect_now(a);
}

void vattach_stop(struct vattach *a)
{
	if (a->state != VATTACH_OVER)
		detached(a);
}

void vattach_deinit(struct vattach *a)
{
	permit_deinit(&a->permit);
	if (a->signed_permit != NULL)
		pave__v1__signed__free_unpacked(a->signed_permit, NULL);
	a->signed_permit = NULL;
}
