/* node lease: the conversation with the placement driver. See node.h, lease.h; the documents are
 * taken in by intake.c.
 *
 *   WAITING --time--> CONNECTING --ready--> GREETING --HelloReply--> IDLE <--------------------+
 *      ^                  |                    |                      | time, or a notice      |
 *      |                  |                    |                    ASKING --LeaseReply-->
 * TAKING_IN
 *      +----- closed -----+--------------------+----------------------+-----------------------+
 *
 * Happy path: a lease each PERMIT_RENEW_MS (sooner for a short one), in force until it is replaced
 * or ends.
 *
 * Failure modes: an unreachable driver, or one that answers late, changes nothing until the lease
 * ends; a refusal that is a verdict (revoked, denied, clocks, evidence) closes the gates at once.
 * The connection is tried again after a back-off that doubles up to LEASE_BACKOFF_MAX_MS. Of
 * several drivers one leads: the others are tried at once, and there is a back-off when all were.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/assert.h"
#include "engine/base/log.h"
#include "engine/node/lease.h"

static void lease_ask(struct node_lease *k);

static uint64_t now(const struct node_lease *k)
{
	return reactor_now_ns(k->config.reactor);
}

static void wait_ms(struct node_lease *k, uint32_t ms)
{
	reactor_timer_arm(k->config.reactor, &k->timer, now(k) + ms * NS_PER_MS);
}

int64_t node_lease_driver_wall(const struct node_lease *k)
{
	if (k->driver_clock_ns == 0)
		return reactor_wall_ns(k->config.reactor);
	return (int64_t)now(k) + k->driver_clock_ns;
}

/* -- asking ----------------------------------------------------------------------------------- */

/* What the answer's arrival says about the two clocks. The driver read its clock somewhere between
 * our asking and now, so the middle of that time is off by no more than half of it. */
static int check_clocks(struct node_lease *k, int64_t driver_wall)
{
	const int64_t half = (int64_t)((now(k) - k->asked_ns) / 2);
	const int64_t offset = reactor_wall_ns(k->config.reactor) - half - driver_wall;
	const int64_t distance = offset < 0 ? -offset : offset;

	k->stats.clock_offset_ns = offset;
	if (distance - half > (int64_t)CLOCK_BOUND_NS) {
		log_error("lease",
			  "this node's clock is %lld ms away from the placement driver's; up to "
			  "%llu ms are allowed: set the clock (chrony, ntpd)",
			  (long long)(offset / (int64_t)NS_PER_MS), CLOCK_BOUND_NS / NS_PER_MS);
		return -E_CLOCK_SKEW;
	}
	/* Neither proved to be right nor wrong: a quicker answer will tell. */
	if (distance + half > (int64_t)CLOCK_BOUND_NS)
		return -EAGAIN;
	k->driver_clock_ns = driver_wall + half - (int64_t)now(k);
	return 0;
}

static int copy_bytes(const ProtobufCBinaryData *from, uint8_t **ret, size_t *ret_size)
{
	if (from->len == 0)
		return 0;
	if (from->len > ENVELOPE_SIZE_MAX)
		return -E_BAD_DOCUMENT;
	*ret = malloc(from->len);
	if (*ret == NULL)
		return -ENOMEM;
	memcpy(*ret, from->data, from->len);
	*ret_size = from->len;
	return 0;
}

/* The lease itself: verified now, in force once its documents are. */
static int open_lease(struct node_lease *k, const Pave__V1__LeaseReply *reply, struct intake *in)
{
	const struct node_identity *me = &k->config.identity;
	struct error err;
	int rc;

	if (reply->lease == NULL) {
		log_warn("lease", "the driver's answer carries no lease");
		return -E_NO_LEASE;
	}
	rc = check_clocks(k, reply->wall);
	if (rc != 0)
		return rc;
	rc = lease_open(reply->lease, trust_root(k->config.trust), k->nonce, sizeof(k->nonce),
			now(k), reactor_wall_ns(k->config.reactor), &in->lease, &err);
	if (rc == 0 &&
	    (strcmp(in->lease.node, me->name) != 0 || strcmp(in->lease.site, me->site) != 0))
		rc = error_set(&err, -E_WRONG_NODE, "the lease is of node %s in site %s",
			       in->lease.node, in->lease.site);
	if (rc != 0) {
		log_warn("lease", "refused a lease: %s", err.text);
		return rc;
	}
	in->has_lease = true;
	/* It was issued after it was asked for, so this is an end that needs no clock to agree. */
	in->lease_limit_ns = k->asked_ns + (uint64_t)(in->lease.expires_at - in->lease.issued_at);
	return 0;
}

bool node_lease_holds(struct node_lease *k)
{
	const struct root_document *root = trust_root(k->config.trust);
	struct error err;

	if (k->lease.root_version == root_version(root) ||
	    lease_open_again(&k->lease, root, now(k),
			     node_evidence_wall_ns(reactor_wall_ns(k->config.reactor), now(k),
						   k->driver_clock_ns),
			     &k->lease, &err) == 0)
		return true;
	log_warn("lease", "the lease is void under the new trust root: %s", err.text);
	return false;
}

/* Verdicts of the driver, which close at once; anything else may pass. */
static bool is_verdict(int status)
{
	switch (-status) {
	case E_REVOKED:
	case E_DENIED:
	case E_STALE_EVIDENCE:
	case E_CLOCK_SKEW:
	case E_WRONG_CLUSTER:
	case E_WRONG_NODE:
	case E_NO_LEASE:
		return true;
	default:
		return false;
	}
}

static void lease_refused(struct node_lease *k, int status)
{
	k->stats.refused++;
	if (is_verdict(status))
		node_lease_refuse(k, status);
	if (k->step == LEASE_ASKING)
		k->step = LEASE_IDLE;
	wait_ms(k, LEASE_ASK_AGAIN_MS);
}

static void lease_answered(struct node_lease *k, const Pave__V1__LeaseReply *reply)
{
	struct intake in = {0};
	int rc = copy_bytes(&reply->root, &in.root, &in.root_size);
	int lease_rc;

	if (rc == 0)
		rc = copy_bytes(&reply->revocations, &in.revocations, &in.revocations_size);
	if (rc == 0)
		rc = copy_bytes(&reply->site_certificate, &in.site, &in.site_size);
	if (rc != 0) {
		node_intake_clear(&in);
		lease_refused(k, rc);
		return;
	}
	lease_rc = open_lease(k, reply, &in);
	node_receipts_take_head(k, reply->ledger_head);
	if (lease_rc != 0)
		lease_refused(k, lease_rc);
	else
		k->step = LEASE_TAKING_IN;
	/* The documents are taken in whatever the lease is worth. */
	if (lease_rc == 0 || in.root != NULL || in.revocations != NULL || in.site != NULL)
		node_intake_begin(k, &in);
}

static void lease_called(struct rpc_call *call, int status, const Pave__V1__Control *reply,
			 const char *text)
{
	struct node_lease *k = container_of(call, struct node_lease, call);

	if (k->step != LEASE_ASKING)
		return;
	if (status == -E_DISCONNECTED)
		return; /* closed follows */
	if (status == 0 && reply->body_case == PAVE__V1__CONTROL__BODY_LEASE_REPLY) {
		lease_answered(k, reply->lease_reply);
		return;
	}
	if (status == -E_NOT_LEADER) {
		log_info("lease", "the driver at %s does not lead any more",
			 drivers_current(&k->drivers));
		if (k->conn != NULL)
			transport_close(k->conn);
		return;
	}
	/* Asked for again and again: said once, until the answer is another. */
	if (status != k->told_status)
		log_warn("lease", "the driver gives no lease: %s",
			 text != NULL ? text : err_text(status));
	k->told_status = status;
	lease_refused(k, status != 0 ? status : -E_BAD_FRAME);
	/* A driver that is there but does not answer may be another's turn next time. */
	if (status == -ETIMEDOUT && k->conn != NULL)
		transport_close(k->conn);
}

static void fill_scrub(Pave__V1__ScrubState *m, const struct store_scrub_stats *s)
{
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
}

/* The volumes (layers) of what is damaged, each once, as many as there is room for: the driver has
 * those that nobody attaches repaired. */
static uint32_t damaged_volumes(const struct node_lease *k, uint64_t *ret_ids, uint32_t max)
{
	struct store_damage damage[STORE_DAMAGE_MAX];
	uint32_t count = 0, n = 0;

	if (k->config.damage != NULL)
		count = k->config.damage(damage, ARRAY_SIZE(damage), k->config.arg);
	for (uint32_t i = 0; i < count && n < max; i++) {
		uint32_t at = 0;

		while (at < n && ret_ids[at] != damage[i].volume)
			at++;
		ret_ids[at] = damage[i].volume;
		n = MAX(n, at + 1);
	}
	return n;
}

static ProtobufCBinaryData der_bytes(const struct identity_der *der)
{
	return (ProtobufCBinaryData){der->size, der->data};
}

static void lease_ask(struct node_lease *k)
{
	const struct node_identity *me = &k->config.identity;
	Pave__V1__Control message = PAVE__V1__CONTROL__INIT;
	Pave__V1__LeaseRequest ask = PAVE__V1__LEASE_REQUEST__INIT;
	Pave__V1__ScrubState scrub;
	uint64_t damaged[NODE_DAMAGED_VOLUMES_MAX];
	struct store_stats sizes = {0};

	if (k->config.stats != NULL)
		k->config.stats(&sizes, k->config.arg);
	reactor_random(k->config.reactor, k->nonce, sizeof(k->nonce));
	reactor_refresh(k->config.reactor);
	k->asked_ns = now(k);
	ask.node = (char *)(uintptr_t)me->name;
	ask.site = (char *)(uintptr_t)me->site;
	ask.n_addresses = k->config.shard_count;
	ask.addresses = k->addresses;
	ask.nonce = (ProtobufCBinaryData){sizeof(k->nonce), k->nonce};
	ask.wall = reactor_wall_ns(k->config.reactor);
	ask.revocations_version = k->revocations != NULL ? revocations_version(k->revocations) : 0;
	ask.root_version = root_version(trust_root(k->config.trust));
	ask.site_version = node_lease_site_version(k);
	ask.size_bytes = sizes.size_bytes;
	ask.live_bytes = sizes.live_bytes;
	ask.free_bytes = sizes.free_bytes;
	ask.reserve_bytes = sizes.reserve_bytes;
	if (k->config.operations != NULL)
		ask.operations = k->config.operations(k->config.arg);
	ask.wiping_segments = sizes.wiping_segments;
	fill_scrub(&scrub, &sizes.scrub);
	scrub.volumes = damaged;
	scrub.n_volumes = damaged_volumes(k, damaged, ARRAY_SIZE(damaged));
	ask.scrub = &scrub;
	if (k->config.trouble != NULL)
		k->config.trouble(k->trouble, sizeof k->trouble, k->config.arg);
	ask.trouble = k->trouble;
	ask.device = (ProtobufCBinaryData){sizeof(k->config.device.bytes), k->config.device.bytes};
	if (k->config.proof != NULL) {
		ask.certificate = der_bytes(&k->config.proof->certificate);
		ask.ca = der_bytes(&k->config.proof->ca);
	}
	message.body_case = PAVE__V1__CONTROL__BODY_LEASE_REQUEST;
	message.lease_request = &ask;
	k->step = LEASE_ASKING;
	k->ask_soon = false;
	k->stats.asked++;
	rpc_call_start(&k->rpc, &k->call, &message, LEASE_REPLY_TIMEOUT_MS);
}

void node_lease_ask_soon(struct node_lease *k)
{
	if (k->step == LEASE_IDLE)
		wait_ms(k, 0);
	else
		k->ask_soon = true;
}

static void stop_if_settled(struct node_lease *k);

/* Three tenths of what is left, so that two attempts may fail: a driver may give short leases. */
static uint32_t renew_ms(const struct node_lease *k)
{
	uint64_t left_ns = k->state.deadline_ns > now(k) ? k->state.deadline_ns - now(k) : 0;

	return (uint32_t)MIN(left_ns / NS_PER_MS * 3 / 10, PERMIT_RENEW_MS);
}

void node_lease_taken_in(struct node_lease *k, int status, bool with_lease)
{
	if (k->step == LEASE_STOPPING) {
		stop_if_settled(k);
		return;
	}
	if (!with_lease || k->step != LEASE_TAKING_IN)
		return;
	k->step = LEASE_IDLE;
	if (status == 0 && k->state.deadline_ns != 0) {
		k->stats.granted++;
		k->told_status = 0;
		wait_ms(k, k->ask_soon ? 0 : renew_ms(k));
	} else {
		k->stats.refused++;
		wait_ms(k, LEASE_ASK_AGAIN_MS);
	}
	node_receipts_send(k);
}

static void lease_expired(struct reactor_timer *timer)
{
	struct node_lease *k = container_of(timer, struct node_lease, expiry_timer);

	node_lease_close(k, node_lease_end_reason(k));
	node_lease_ask_soon(k);
}

/* -- what the driver asks --------------------------------------------------------------------- */

static void handle_notice(struct node_lease *k, const Pave__V1__EvidenceNotice *notice)
{
	struct intake in = {0};

	k->stats.notices++;
	if (copy_bytes(&notice->revocations, &in.revocations, &in.revocations_size) != 0 ||
	    copy_bytes(&notice->root, &in.root, &in.root_size) != 0) {
		/* What was not understood may be our end: nothing is served until it is asked for.
		 */
		node_intake_clear(&in);
		node_lease_refuse(k, -E_STALE_EVIDENCE);
	} else if (in.revocations != NULL || in.root != NULL) {
		node_intake_begin(k, &in);
	}
	node_lease_ask_soon(k);
}

/* A token for a request that is answered later; 0: there are too many, and it was answered. */
static uint64_t ask_begin(struct node_lease *k, uint64_t request_id, bool can)
{
	struct lease_erase *e = NULL;

	for (uint32_t i = 0; i < LEASE_ERASES_MAX && e == NULL; i++)
		if (k->erases[i].token == 0)
			e = &k->erases[i];
	if (e == NULL || !can) {
		rpc_fail(&k->rpc, request_id, -E_LIMIT,
			 "too many requests are under way on this node: ask again later");
		return 0;
	}
	*e = (struct lease_erase){++k->next_token, request_id, k->connection, NULL};
	return e->token;
}

static void handle_erase(struct node_lease *k, uint64_t request_id, const Pave__V1__Erase *what)
{
	uint64_t token = ask_begin(k, request_id, k->config.erase != NULL);

	if (token == 0)
		return;
	for (uint32_t i = 0; i < LEASE_ERASES_MAX; i++) {
		struct lease_erase *e = &k->erases[i];

		if (e->token != token)
			continue;
		e->report = node_erasure_begin(what);
		if (e->report == NULL) {
			node_lease_erased(k, token, -ENOMEM, NULL);
			return;
		}
	}
	k->config.erase(token, what, k->config.arg);
}

static void handle_devices(struct node_lease *k, uint64_t request_id,
			   const Pave__V1__NodeDevices *what)
{
	uint64_t token = ask_begin(k, request_id, k->config.devices != NULL);

	if (token != 0)
		k->config.devices(token, what, k->config.arg);
}

/* Takes the place of the token, if who asked can still be answered. */
static bool ask_end(struct node_lease *k, uint64_t token, struct lease_erase *ret)
{
	*ret = (struct lease_erase){0};
	for (uint32_t i = 0; i < LEASE_ERASES_MAX; i++)
		if (k->erases[i].token == token) {
			*ret = k->erases[i];
			k->erases[i] = (struct lease_erase){0};
		}
	PRE(ret->token != 0);
	/* Who asked by another connection asks again. */
	return k->conn != NULL && ret->connection == k->connection && k->step != LEASE_STOPPING;
}

static void handle_layers(struct node_lease *k, uint64_t request_id, const Pave__V1__Control *what)
{
	uint64_t token;

	/* Here bytes of a volume are stored anew. */
	if (what->body_case == PAVE__V1__CONTROL__BODY_LAYER_MERGE && !node_lease_is_held(k)) {
		rpc_fail(&k->rpc, request_id, -E_NO_LEASE, err_text(-E_NO_LEASE));
		return;
	}
	token = ask_begin(k, request_id, k->config.layers != NULL);
	if (token != 0)
		k->config.layers(token, what, k->config.arg);
}

void node_lease_erased(struct node_lease *k, uint64_t token, int status,
		       const struct node_erasure *done)
{
	Pave__V1__Control message = PAVE__V1__CONTROL__INIT;
	Pave__V1__Erased erased = PAVE__V1__ERASED__INIT;
	struct lease_erase e;
	struct error err;
	const bool answer = ask_end(k, token, &e);

	if (status != 0)
		error_set(&err, status, "%s", err_text(status));
	else if (answer)
		status = node_erasure_sign(k, e.report, done, &erased.report, &err);
	if (status == 0) {
		erased.method = (char *)(uintptr_t)done->method;
		erased.segments = done->segments;
		erased.bytes = done->bytes;
		erased.took_ms = done->took_ms;
	}
	message.body_case = PAVE__V1__CONTROL__BODY_ERASED;
	message.erased = &erased;
	if (answer && status == 0)
		rpc_reply(&k->rpc, e.request_id, &message);
	else if (answer)
		rpc_fail(&k->rpc, e.request_id, status, err.text);
	if (erased.report != NULL)
		pave__v1__signed__free_unpacked(erased.report, NULL);
	if (e.report != NULL)
		pave__v1__erasure_report__free_unpacked(e.report, NULL);
}

void node_lease_answer(struct node_lease *k, uint64_t token, int status, const char *text,
		       const Pave__V1__Control *message)
{
	struct lease_erase e;

	if (!ask_end(k, token, &e))
		return;
	if (status == 0)
		rpc_reply(&k->rpc, e.request_id, message);
	else
		rpc_fail(&k->rpc, e.request_id, status, text);
}

static void lease_handle(struct rpc *rpc, const struct rpc_request *request, void *arg)
{
	struct node_lease *k = arg;
	const Pave__V1__Control *m = request->message;

	if (k->step == LEASE_STOPPING)
		return;
	if (m->body_case == PAVE__V1__CONTROL__BODY_EVIDENCE_NOTICE)
		handle_notice(k, m->evidence_notice);
	else if (m->body_case == PAVE__V1__CONTROL__BODY_SCRUB && k->config.scrub != NULL)
		k->config.scrub(k->config.arg);
	else if (m->body_case == PAVE__V1__CONTROL__BODY_MAINTAIN && k->config.maintain != NULL)
		k->config.maintain(m->maintain->volume, k->config.arg);
	else if (m->body_case == PAVE__V1__CONTROL__BODY_ERASE && request->request_id != 0)
		handle_erase(k, request->request_id, m->erase);
	else if (m->body_case == PAVE__V1__CONTROL__BODY_NODE_DEVICES && request->request_id != 0)
		handle_devices(k, request->request_id, m->node_devices);
	else if ((m->body_case == PAVE__V1__CONTROL__BODY_LAYER_CHANGES ||
		  m->body_case == PAVE__V1__CONTROL__BODY_LAYER_MERGE) &&
		 request->request_id != 0)
		handle_layers(k, request->request_id, m);
	else if (request->request_id != 0)
		rpc_fail(rpc, request->request_id, -EOPNOTSUPP,
			 "a node does not answer this kind of message");
}

/* -- the connection --------------------------------------------------------------------------- */

static void hello_called(struct rpc_call *call, int status, const Pave__V1__Control *reply,
			 const char *text)
{
	struct node_lease *k = container_of(call, struct node_lease, call);

	if (k->step != LEASE_GREETING || status == -E_DISCONNECTED)
		return;
	if (status != 0 || reply->body_case != PAVE__V1__CONTROL__BODY_HELLO_REPLY) {
		log_warn("lease", "the driver does not greet this node: %s",
			 text != NULL ? text : err_text(status));
		if (is_verdict(status))
			node_lease_refuse(k, status);
		transport_close(k->conn);
		return;
	}
	if (reply->hello_reply->standby) {
		snprintf(k->leader, sizeof k->leader, "%.*s", (int)sizeof k->leader - 1,
			 reply->hello_reply->leader);
		transport_close(k->conn);
		return;
	}
	if (rpc_agree(&k->rpc, reply->hello_reply->version, reply->hello_reply->version) != 0) {
		log_warn("lease",
			 "the driver has chosen wire version %u, this node speaks %u to %u",
			 reply->hello_reply->version, FRAME_VERSION_MIN, FRAME_VERSION);
		transport_close(k->conn);
		return;
	}
	k->backoff_ms = LEASE_BACKOFF_MIN_MS;
	drivers_found(&k->drivers);
	k->call.done = lease_called;
	lease_ask(k);
}

static void lease_ready(struct transport_conn *conn, void *arg)
{
	struct node_lease *k = arg;
	struct node_identity *me = &k->config.identity;
	Pave__V1__Control message = PAVE__V1__CONTROL__INIT;
	Pave__V1__Hello hello = PAVE__V1__HELLO__INIT;

	(void)conn;
	if (k->step != LEASE_CONNECTING)
		return;
	k->stats.connects++;
	hello.version_min = FRAME_VERSION_MIN;
	hello.version_max = FRAME_VERSION;
	hello.cluster = (ProtobufCBinaryData){sizeof(me->cluster.bytes), me->cluster.bytes};
	hello.role = (char *)(uintptr_t) "node";
	hello.name = me->name;
	hello.software = (char *)(uintptr_t) "pave-node " PAVE_VERSION;
	message.body_case = PAVE__V1__CONTROL__BODY_HELLO;
	message.hello = &hello;
	k->step = LEASE_GREETING;
	k->call.done = hello_called;
	rpc_call_start(&k->rpc, &k->call, &message, LEASE_REPLY_TIMEOUT_MS);
}

/* Doubles up to the bound, a quarter of it by chance, so that nodes do not come all at once. */
static void lease_back_off(struct node_lease *k)
{
	const bool pause = drivers_next(&k->drivers, k->leader);
	uint32_t chance;

	k->leader[0] = '\0';
	k->step = LEASE_WAITING;
	if (!pause) {
		wait_ms(k, 0);
		return;
	}
	reactor_random(k->config.reactor, &chance, sizeof(chance));
	wait_ms(k, k->backoff_ms - chance % (k->backoff_ms / 4));
	k->backoff_ms =
	    MIN(2 * k->backoff_ms,
		drivers_several(&k->drivers) ? LEASE_BACKOFF_SEVERAL_MAX_MS : LEASE_BACKOFF_MAX_MS);
}

static void lease_closed(struct transport_conn *conn, int reason, void *arg)
{
	struct node_lease *k = arg;

	(void)conn;
	rpc_closed(&k->rpc);
	k->conn = NULL;
	if (k->step == LEASE_STOPPING) {
		stop_if_settled(k);
		return;
	}
	if (k->step > LEASE_GREETING)
		log_warn("lease", "lost the placement driver at %s: %s",
			 drivers_current(&k->drivers),
			 reason != 0 ? err_text(reason) : "it does not answer");
	lease_back_off(k);
}

static void *lease_rx_buffer(struct transport_conn *conn, const struct frame *f, void *arg)
{
	struct node_lease *k = arg;

	(void)conn;
	return f->op == FRAME_CONTROL ? rpc_rx_buffer(&k->rpc, f) : NULL;
}

static void lease_rx(struct transport_conn *conn, const struct frame *f, void *arg)
{
	struct node_lease *k = arg;

	if (f->op == FRAME_CONTROL)
		rpc_rx(&k->rpc, f);
	else
		transport_close(conn);
}

static const struct transport_handler lease_handler = {
    .ready = lease_ready,
    .rx_buffer = lease_rx_buffer,
    .rx = lease_rx,
    .closed = lease_closed,
};

static void lease_connect(struct node_lease *k)
{
	int rc = transport_connect(k->config.transport, drivers_current(&k->drivers),
				   &lease_handler, k, &k->conn);

	if (rc != 0) {
		log_warn("lease", "cannot connect to %s: %s", drivers_current(&k->drivers),
			 err_text(rc));
		k->conn = NULL;
		lease_back_off(k);
		return;
	}
	k->connection++;
	k->step = LEASE_CONNECTING;
	rpc_init(&k->rpc, k->conn, lease_handle, k);
}

static void lease_timer(struct reactor_timer *timer)
{
	struct node_lease *k = container_of(timer, struct node_lease, timer);

	if (k->step == LEASE_WAITING)
		lease_connect(k);
	else if (k->step == LEASE_IDLE)
		lease_ask(k);
}

/* -- life ------------------------------------------------------------------------------------- */

static void lease_free(struct node_lease *k)
{
	if (k == NULL)
		return;
	for (uint32_t i = 0; k->addresses != NULL && i < k->config.shard_count; i++)
		free(k->addresses[i]);
	free(k->addresses);
	node_intake_clear(&k->intake);
	node_intake_clear(&k->next);
	node_receipts_deinit(k);
	for (uint32_t i = 0; i < LEASE_ERASES_MAX; i++)
		if (k->erases[i].report != NULL)
			pave__v1__erasure_report__free_unpacked(k->erases[i].report, NULL);
	site_free(k->site);
	site_free(k->new_site);
	revocations_free(k->revocations);
	revocations_free(k->new_revocations);
	free(k->site_envelope.data);
	free(k->revocations_envelope.data);
	free(k);
}

static int take_own_certificate(struct node_lease *k, struct error *err)
{
	const struct node_lease_config *c = &k->config;
	int rc;

	if (c->site_certificate == NULL)
		return 0;
	rc = trust_accept_site(c->trust, c->site_certificate, c->site_certificate_size, &k->site,
			       err);
	/* An old file, after a newer certificate or another root: the driver sends the one that
	 * counts. */
	if (rc == -E_ROLLBACK || rc == -E_BAD_SIGNATURE) {
		log_warn("lease", "the site certificate that was given is not used: %s", err->text);
		return 0;
	}
	if (rc != 0)
		return error_wrap(err, "the site certificate");
	k->site_envelope.data = malloc(c->site_certificate_size);
	if (k->site_envelope.data == NULL)
		return error_set(err, -ENOMEM, "no memory for the site certificate");
	memcpy(k->site_envelope.data, c->site_certificate, c->site_certificate_size);
	k->site_envelope.size = c->site_certificate_size;
	if (strcmp(site_name(k->site), c->identity.site) != 0)
		return error_set(err, -E_WRONG_NODE,
				 "the site certificate is of site %s, this node is in site %s",
				 site_name(k->site), c->identity.site);
	return 0;
}

static int copy_addresses(struct node_lease *k)
{
	k->addresses = calloc(k->config.shard_count, sizeof(*k->addresses));
	if (k->addresses == NULL)
		return -ENOMEM;
	for (uint32_t i = 0; i < k->config.shard_count; i++) {
		k->addresses[i] = strdup(k->config.shard_addresses[i]);
		if (k->addresses[i] == NULL)
			return -ENOMEM;
	}
	return 0;
}

int node_lease_start(const struct node_lease_config *config, struct node_lease **ret_lease,
		     struct error *err)
{
	struct node_lease *k = calloc(1, sizeof(*k));
	int rc = -ENOMEM;

	PRE(config->shard_count > 0);
	if (k == NULL)
		return error_set(err, -ENOMEM, "no memory for the lease");
	k->config = *config;
	rc = drivers_parse(config->pd_address, &k->drivers, err);
	if (rc != 0)
		goto fail;
	rc = -ENOMEM;
	if (copy_addresses(k) != 0) {
		error_set(err, rc, "no memory for the lease");
		goto fail;
	}
	rc = take_own_certificate(k, err);
	if (rc != 0)
		goto fail;
	k->state = (struct node_lease_state){.why = -E_NO_LEASE};
	k->stats.state = k->state;
	k->backoff_ms = LEASE_BACKOFF_MIN_MS;
	k->timer.fire = lease_timer;
	k->expiry_timer.fire = lease_expired;
	k->step = LEASE_WAITING;
	wait_ms(k, 0);
	*ret_lease = k;
	return 0;
fail:
	lease_free(k);
	return rc;
}

static void lease_stopped(struct reactor_task *task)
{
	struct node_lease *k = container_of(task, struct node_lease, stop_task);
	void (*done)(void *arg) = k->stop_done;
	void *arg = k->stop_arg;

	lease_free(k);
	done(arg);
}

static void stop_if_settled(struct node_lease *k)
{
	if (k->conn != NULL || k->working)
		return;
	k->stop_task.run = lease_stopped;
	reactor_defer(k->config.reactor, &k->stop_task);
}

static void stop_now(struct node_lease *k)
{
	k->draining = false;
	k->step = LEASE_STOPPING;
	reactor_timer_cancel(k->config.reactor, &k->drain_timer);
	reactor_timer_cancel(k->config.reactor, &k->timer);
	reactor_timer_cancel(k->config.reactor, &k->expiry_timer);
	if (k->conn != NULL)
		transport_close(k->conn);
	stop_if_settled(k);
}

static void drain_over(struct reactor_timer *timer)
{
	struct node_lease *k = container_of(timer, struct node_lease, drain_timer);

	log_warn("lease", "%u receipts were not delivered before the end", k->receipts.count);
	stop_now(k);
}

void node_lease_drained(struct node_lease *k)
{
	if (k->draining && k->receipts.count == 0)
		stop_now(k);
}

void node_lease_stop(struct node_lease *k, void (*done)(void *arg), void *arg)
{
	PRE(k->step != LEASE_STOPPING && !k->draining);
	k->stop_done = done;
	k->stop_arg = arg;
	if (k->receipts.count == 0 || k->conn == NULL) {
		stop_now(k);
		return;
	}
	k->draining = true;
	k->drain_timer.fire = drain_over;
	reactor_timer_arm(k->config.reactor, &k->drain_timer, now(k) + NODE_DRAIN_MS * NS_PER_MS);
	node_receipts_send(k);
}

void node_lease_abandon(struct node_lease *k)
{
	lease_free(k);
}

void node_lease_get_stats(const struct node_lease *k, struct node_lease_stats *ret_stats)
{
	*ret_stats = k->stats;
}

bool node_lease_is_held(const struct node_lease *k)
{
	return now(k) < k->state.deadline_ns;
}
