/* The placement driver: sessions, dispatch, changes of evidence, start and end. See pd.h, driver.h.
 *
 * Happy path: accepted -> Hello (role, cluster) -> requests, each passed to the handler that the
 * table names for the role -> answers.
 *
 * Failure modes: a peer that says no Hello within PD_HELLO_TIMEOUT_MS, or anything before it, or
 * sends a data frame, is disconnected; a request that the role may not ask, or one too many, is
 * answered with an error; a register that cannot be written fails every request from then on. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <utlist.h>

#include "engine/base/assert.h"
#include "engine/base/log.h"
#include "engine/base/text.h"
#include "engine/placement/driver.h"

/* -- requests --------------------------------------------------------------------------------- */

static void session_free_if_done(struct pd_session *s);

static void request_drop(struct pd_request *q)
{
	free(q->why);
	free(q);
}

static void request_free(struct pd_request *q)
{
	struct pd *pd = q->pd;
	struct pd_session *s = q->session;

	DL_DELETE(pd->requests, q);
	INVARIANT(s->requests > 0);
	s->requests--;
	session_free_if_done(s);
	request_drop(q);
	pd_stop_if_done(pd);
}

void request_reply(struct pd_request *q, const Pave__V1__Control *message)
{
	if (q->session->conn != NULL)
		rpc_reply(&q->session->rpc, q->id, message);
	request_free(q);
}

void request_done(struct pd_request *q)
{
	Pave__V1__Control m = PAVE__V1__CONTROL__INIT;
	Pave__V1__Empty empty = PAVE__V1__EMPTY__INIT;

	m.body_case = PAVE__V1__CONTROL__BODY_EMPTY;
	m.empty = &empty;
	request_reply(q, &m);
}

static void refuse(struct pd_request *q)
{
	request_fail(q, q->why);
}

/* That something is there already, or is not there, an administrator who asks again takes for done.
 * So it is told when all that it may rest on is durable, and, of several drivers, by the one that
 * leads: another may have undone it. Without memory it is told as it is. */
static bool must_be_sure(struct pd_request *q, const struct error *err)
{
	const struct pd *pd = q->pd;

	if (q->session->role != ROLE_ADMIN || (err->code != -EEXIST && err->code != -ENOENT) ||
	    q->why != NULL || pd->stopping || pd->reg.broken != 0 ||
	    (pd->shared == NULL && reg_idle(&pd->reg)))
		return false;
	q->why = malloc(sizeof *q->why);
	if (q->why != NULL)
		*q->why = *err;
	return q->why != NULL;
}

void request_fail(struct pd_request *q, const struct error *err)
{
	PRE(err->code < 0);
	if (must_be_sure(q, err)) {
		request_commit(q, refuse);
		return;
	}
	if (q->session->conn != NULL)
		rpc_fail(&q->session->rpc, q->id, err->code, err->text);
	request_free(q);
}

/* One of several is not asked for good: another will lead. */
static void cannot_write(const struct pd *pd, int status, struct error *err)
{
	error_set(err, pd->shared != NULL ? -E_NOT_LEADER : status,
		  "the placement driver cannot write its register%s: %s; see its log",
		  pd->shared != NULL ? " any more, and leads no more" : "", err_text(status));
}

static void request_committed(struct reg_commit *c, int status)
{
	struct pd_request *q = container_of(c, struct pd_request, commit);
	struct error err;

	if (status == 0) {
		q->resume(q);
		return;
	}
	cannot_write(q->pd, status, &err);
	request_fail(q, &err);
}

void request_commit(struct pd_request *q, void (*resume)(struct pd_request *q))
{
	q->resume = resume;
	q->commit.done = request_committed;
	reg_flush(&q->pd->reg, &q->commit);
}

void request_park(struct pd_request *q)
{
	DL_DELETE(q->pd->requests, q);
	DL_APPEND(q->pd->parked, q);
}

static void background_done(struct reg_commit *c, int status)
{
	struct pd *pd = container_of(c, struct pd, background);

	(void)status; /* the register says so itself */
	pd->background_busy = false;
	pd_stop_if_done(pd);
}

void pd_background_flush(struct pd *pd)
{
	if (pd->background_busy)
		return; /* what was saved meanwhile goes with the next commit of anybody */
	pd->background_busy = true;
	pd->background.done = background_done;
	reg_flush(&pd->reg, &pd->background);
}

/* -- dispatch --------------------------------------------------------------------------------- */

static const struct {
	Pave__V1__Control__BodyCase body;
	unsigned roles;
	void (*handle)(struct pd_request *q, const Pave__V1__Control *m);
} handlers[] = {
    {PAVE__V1__CONTROL__BODY_LEASE_REQUEST, ROLE_NODE, node_lease_request},
    {PAVE__V1__CONTROL__BODY_ATTACH, ROLE_HOST, host_attach},
    {PAVE__V1__CONTROL__BODY_PREPARE, ROLE_HOST, host_prepare},
    {PAVE__V1__CONTROL__BODY_RENEW, ROLE_HOST, host_renew},
    {PAVE__V1__CONTROL__BODY_DETACH, ROLE_HOST, host_detach},
    {PAVE__V1__CONTROL__BODY_MOVE_COMMIT, ROLE_HOST, host_move_commit},
    {PAVE__V1__CONTROL__BODY_VOLUME_CREATE, ROLE_ADMIN, admin_volume_create},
    {PAVE__V1__CONTROL__BODY_VOLUME_LIST, ROLE_ADMIN, admin_volume_list},
    {PAVE__V1__CONTROL__BODY_VOLUME_GET, ROLE_ADMIN | ROLE_HOST, admin_volume_get},
    {PAVE__V1__CONTROL__BODY_VOLUME_DELETE, ROLE_ADMIN, admin_volume_delete},
    {PAVE__V1__CONTROL__BODY_VOLUME_DETACH, ROLE_ADMIN | ROLE_HOST, host_volume_detach},
    {PAVE__V1__CONTROL__BODY_VOLUME_SNAPSHOT, ROLE_ADMIN, admin_volume_snapshot},
    {PAVE__V1__CONTROL__BODY_VOLUME_CLONE, ROLE_ADMIN, admin_volume_clone},
    {PAVE__V1__CONTROL__BODY_VOLUME_ROLLBACK, ROLE_ADMIN, admin_volume_rollback},
    {PAVE__V1__CONTROL__BODY_VOLUME_RESIZE, ROLE_ADMIN, admin_volume_resize},
    {PAVE__V1__CONTROL__BODY_VOLUME_DIFF, ROLE_ADMIN, admin_volume_diff},
    {PAVE__V1__CONTROL__BODY_SITE_ADD, ROLE_ADMIN, admin_site_add},
    {PAVE__V1__CONTROL__BODY_SITE_LIST, ROLE_ADMIN, admin_site_list},
    {PAVE__V1__CONTROL__BODY_REVOCATIONS_GET, ROLE_ADMIN, admin_revocations_get},
    {PAVE__V1__CONTROL__BODY_REVOCATIONS_PUT, ROLE_ADMIN, admin_revocations_put},
    {PAVE__V1__CONTROL__BODY_POLICY_PUT, ROLE_ADMIN, admin_policy_put},
    {PAVE__V1__CONTROL__BODY_POLICY_LIST, ROLE_ADMIN, admin_policy_list},
    {PAVE__V1__CONTROL__BODY_ROOT_GET, ROLE_ADMIN, admin_root_get},
    {PAVE__V1__CONTROL__BODY_ROOT_PUT, ROLE_ADMIN, admin_root_put},
    {PAVE__V1__CONTROL__BODY_NODE_ADD, ROLE_ADMIN, admin_node_add},
    {PAVE__V1__CONTROL__BODY_NODE_DRAIN, ROLE_ADMIN, admin_node_drain},
    {PAVE__V1__CONTROL__BODY_NODE_REMOVE, ROLE_ADMIN, admin_node_remove},
    {PAVE__V1__CONTROL__BODY_REBALANCE_PLAN, ROLE_ADMIN, admin_rebalance_plan},
    {PAVE__V1__CONTROL__BODY_REBALANCE_SET, ROLE_ADMIN, admin_rebalance_set},
    {PAVE__V1__CONTROL__BODY_REBALANCE_STATUS, ROLE_ADMIN, admin_rebalance_status},
    {PAVE__V1__CONTROL__BODY_NODE_LIST, ROLE_ADMIN, admin_node_list},
    {PAVE__V1__CONTROL__BODY_SCRUB_START, ROLE_ADMIN, admin_scrub_start},
    {PAVE__V1__CONTROL__BODY_NODE_DEVICES, ROLE_ADMIN, admin_node_devices},
    {PAVE__V1__CONTROL__BODY_STATUS_GET, ROLE_ADMIN, admin_status},
    {PAVE__V1__CONTROL__BODY_RECEIPTS, ROLE_NODE, node_receipts},
    {PAVE__V1__CONTROL__BODY_LEDGER_READ, ROLE_ADMIN, admin_ledger_read},
};

static int hello(struct pd_session *s, const Pave__V1__Hello *h, struct error *err)
{
	static const struct {
		const char *name;
		enum pd_role role;
	} roles[] = {
	    {"admin", ROLE_ADMIN}, {"host", ROLE_HOST}, {"bench", ROLE_HOST}, {"node", ROLE_NODE}};

	if (rpc_agree(&s->rpc, h->version_min, h->version_max) != 0)
		return error_set(err, -E_WIRE_VERSION,
				 "the peer speaks wire versions %u to %u, this placement driver "
				 "%u to %u: update the older of both",
				 h->version_min, h->version_max, FRAME_VERSION_MIN, FRAME_VERSION);
	if ((h->cluster.len != 0 || strcmp(h->role, "admin") != 0) &&
	    (h->cluster.len != sizeof s->pd->reg.cluster.bytes ||
	     memcmp(h->cluster.data, s->pd->reg.cluster.bytes, h->cluster.len) != 0))
		return error_set(err, -E_WRONG_CLUSTER,
				 "the peer (%s %.64s) belongs to another cluster than this "
				 "placement driver: check its trust root",
				 h->role, h->name);
	if (strlen(h->name) >= NAME_SIZE_MAX)
		return error_set(err, -EINVAL, "the peer's name is over %u bytes",
				 NAME_SIZE_MAX - 1);
	for (size_t i = 0; i < ARRAY_SIZE(roles); i++)
		if (strcmp(roles[i].name, h->role) == 0)
			s->role = roles[i].role;
	if (s->role == ROLE_NONE)
		return error_set(err, -EINVAL, "role \"%.32s\" is not known", h->role);
	memcpy(s->name, h->name, strlen(h->name) + 1);
	return 0;
}

static void handle_hello(struct pd_session *s, const struct rpc_request *r)
{
	Pave__V1__Control m = PAVE__V1__CONTROL__INIT;
	Pave__V1__HelloReply reply = PAVE__V1__HELLO_REPLY__INIT;
	struct error err;
	int rc;

	if (r->message->body_case != PAVE__V1__CONTROL__BODY_HELLO || s->role != ROLE_NONE)
		rc = error_set(&err, -EINVAL, "the first message, and only that, must be Hello");
	else
		rc = hello(s, r->message->hello, &err);
	if (rc != 0) {
		rpc_fail(&s->rpc, r->request_id, err.code, err.text);
		log_info("pd", "%s: refused: %s", s->conn->peer.address, err.text);
		return; /* hello_timer ends it, after the answer has left */
	}
	reactor_timer_cancel(s->pd->reactor, &s->hello_timer);
	s->heard_ns = reactor_now_ns(s->pd->reactor);
	reply.version = s->rpc.wire_version;
	reply.cluster.data = s->pd->reg.cluster.bytes;
	reply.cluster.len = sizeof s->pd->reg.cluster.bytes;
	reply.name = (char *)(uintptr_t) "pave-pd";
	reply.software = (char *)(uintptr_t)("pave " PAVE_VERSION);
	m.body_case = PAVE__V1__CONTROL__BODY_HELLO_REPLY;
	m.hello_reply = &reply;
	rpc_reply(&s->rpc, r->request_id, &m);
}

static void is_stopping(const struct pd *pd, struct error *err)
{
	error_set(err, pd->shared != NULL ? -E_NOT_LEADER : -E_UNREACHABLE,
		  "the placement driver is stopping");
}

static struct pd_request *request_create(struct pd_session *s, uint64_t id)
{
	struct pd_request *q = NULL;

	if (s->requests < PD_REQUESTS_MAX)
		q = calloc(1, sizeof *q);
	if (q == NULL) {
		rpc_fail(&s->rpc, id, -E_LIMIT, "too many requests wait on this connection");
		return NULL;
	}
	q->pd = s->pd;
	q->session = s;
	q->id = id;
	s->requests++;
	DL_APPEND(s->pd->requests, q);
	return q;
}

/* What another driver has done since nobody here knows: that an attachment is over, that a chunk
 * does not move, or that a copy is to be erased may be true no more, and would be believed. The end
 * of an attachment and receipts are only written down, and answered when that is durable. */
static int check_leads(const struct pd_session *s, Pave__V1__Control__BodyCase body,
		       struct error *err)
{
	if (s->role == ROLE_ADMIN || body == PAVE__V1__CONTROL__BODY_DETACH ||
	    body == PAVE__V1__CONTROL__BODY_RECEIPTS)
		return 0;
	return permits_leads(&s->pd->permits, err);
}

static void handle(struct rpc *rpc, const struct rpc_request *r, void *arg)
{
	struct pd_session *s = arg;
	struct pd_request *q;
	struct error err;

	(void)rpc;
	if (s->role == ROLE_NONE || r->message->body_case == PAVE__V1__CONTROL__BODY_HELLO) {
		handle_hello(s, r);
		return;
	}
	if (r->request_id == 0)
		return; /* nobody owes the driver a notice */
	s->heard_ns = reactor_now_ns(s->pd->reactor);
	q = request_create(s, r->request_id);
	if (q == NULL)
		return;
	if (s->pd->stopping || s->pd->reg.broken != 0) {
		if (s->pd->stopping)
			is_stopping(s->pd, &err);
		else
			cannot_write(s->pd, s->pd->reg.broken, &err);
		request_fail(q, &err);
		return;
	}
	for (size_t i = 0; i < ARRAY_SIZE(handlers); i++) {
		if (handlers[i].body != r->message->body_case)
			continue;
		if ((handlers[i].roles & s->role) == 0)
			error_set(&err, -EPERM,
				  "this request is not for the role of the connection");
		else if (check_leads(s, handlers[i].body, &err) == 0) {
			handlers[i].handle(q, r->message);
			return;
		}
		request_fail(q, &err);
		return;
	}
	error_set(&err, -EOPNOTSUPP, "this placement driver does not know the request (%d)",
		  (int)r->message->body_case);
	request_fail(q, &err);
}

/* -- sessions --------------------------------------------------------------------------------- */

static void session_free_if_done(struct pd_session *s)
{
	struct pd *pd = s->pd;

	if (s->conn != NULL || s->requests > 0)
		return;
	DL_DELETE(pd->sessions, s);
	pd->session_count--;
	free(s);
}

static void session_rx(struct transport_conn *conn, const struct frame *f, void *arg)
{
	struct pd_session *s = arg;

	if (f->op != FRAME_CONTROL) {
		log_warn("pd", "%s: %s frame to a placement driver: closing", conn->peer.address,
			 frame_op_name(f->op));
		transport_close(conn);
		return;
	}
	rpc_rx(&s->rpc, f);
}

static void *session_rx_buffer(struct transport_conn *conn, const struct frame *f, void *arg)
{
	struct pd_session *s = arg;

	(void)conn;
	return f->op == FRAME_CONTROL ? rpc_rx_buffer(&s->rpc, f) : NULL;
}

static void session_closed(struct transport_conn *conn, int reason, void *arg)
{
	struct pd_session *s = arg;
	struct pd *pd = s->pd;

	(void)conn;
	if (s->role == ROLE_HOST || s->role == ROLE_NODE)
		log_info("pd", "%s %s: the connection ended: %s",
			 s->role == ROLE_HOST ? "host" : "node", s->name,
			 reason == 0 ? "by us" : err_text(reason));
	rpc_closed(&s->rpc);
	s->conn = NULL;
	reactor_timer_cancel(pd->reactor, &s->hello_timer);
	node_session_closed(pd, s);
	host_session_closed(pd, s);
	session_free_if_done(s);
	pd_stop_if_done(pd);
}

static const struct transport_handler session_handler = {
    .rx = session_rx, .rx_buffer = session_rx_buffer, .closed = session_closed};

/* For a connection that there is no room for: nothing is read from it. */
static void refused_rx(struct transport_conn *conn, const struct frame *f, void *arg)
{
	(void)conn;
	(void)f;
	(void)arg;
}

static void refused_closed(struct transport_conn *conn, int reason, void *arg)
{
	(void)conn;
	(void)reason;
	(void)arg;
}

static const struct transport_handler refused_handler = {.rx = refused_rx,
							 .closed = refused_closed};

static void hello_missing(struct reactor_timer *t)
{
	struct pd_session *s = container_of(t, struct pd_session, hello_timer);

	if (s->conn != NULL)
		transport_close(s->conn);
}

/* Hosts that have a volume, and nodes, ask several times in the time of a permit; one that waits
 * for an answer is not silent. */
static bool is_silent(const struct pd_session *s, uint64_t now_ns)
{
	const uint64_t ms = MAX(PD_SILENT_S * 1000ull, 2ull * s->pd->lifetime_ms);

	return s->role != ROLE_NONE && s->requests == 0 && s->conn != NULL && !s->ending &&
	       now_ns >= s->heard_ns + ms * NS_PER_MS;
}

/* There is no room: whoever was silent for the longest time makes some. Its connection ends later;
 * the next one that comes finds the place. */
static void end_silent_session(struct pd *pd)
{
	const uint64_t now_ns = reactor_now_ns(pd->reactor);
	struct pd_session *s, *oldest = NULL;

	DL_FOREACH (pd->sessions, s)
		if (is_silent(s, now_ns) && (oldest == NULL || s->heard_ns < oldest->heard_ns))
			oldest = s;
	if (oldest == NULL)
		return;
	log_info("pd",
		 "%s: ends the session of %s: it has asked for nothing for %llu s, and "
		 "others want to",
		 oldest->conn->peer.address, oldest->name[0] != '\0' ? oldest->name : "no name",
		 (unsigned long long)((now_ns - oldest->heard_ns) / NS_PER_S));
	oldest->ending = true;
	transport_close(oldest->conn);
}

void pd_accept(struct pd *pd, struct transport_conn *conn)
{
	struct pd_session *s = NULL;

	if (pd->session_count < PD_SESSIONS_MAX && !pd->stopping)
		s = calloc(1, sizeof *s);
	if (s == NULL) {
		conn->handler = &refused_handler;
		conn->arg = NULL;
		log_warn("pd", "%s: refused, %u connections are the most", conn->peer.address,
			 PD_SESSIONS_MAX);
		transport_close(conn);
		end_silent_session(pd);
		return;
	}
	s->pd = pd;
	s->conn = conn;
	rpc_init(&s->rpc, conn, handle, s);
	s->hello_timer.fire = hello_missing;
	reactor_timer_arm(pd->reactor, &s->hello_timer,
			  reactor_now_ns(pd->reactor) + PD_HELLO_TIMEOUT_MS * NS_PER_MS);
	DL_APPEND(pd->sessions, s);
	pd->session_count++;
	conn->handler = &session_handler;
	conn->arg = s;
}

static void accepted(struct transport_conn *conn, void *arg)
{
	pd_accept(arg, conn);
}

/* -- evidence --------------------------------------------------------------------------------- */

void pd_arm_evidence_timer(struct pd *pd)
{
	int64_t now = reg_now(&pd->reg, NULL);
	int64_t next = verdicts_next_change(&pd->verdicts, now);
	int64_t wait;

	if (next == INT64_MAX) {
		reactor_timer_cancel(pd->reactor, &pd->evidence_timer);
		return;
	}
	/* A little before the change, so that nothing ends for those whom it doesn't touch; and
	 * again at the change itself. At least once an hour, because the wall clock may be set. */
	wait = next - now;
	if (wait > PERMIT_MARGIN_NS)
		wait -= PERMIT_MARGIN_NS;
	wait = MIN(wait, 3600 * (int64_t)NS_PER_S);
	reactor_timer_arm(pd->reactor, &pd->evidence_timer,
			  reactor_now_ns(pd->reactor) + (uint64_t)wait + NS_PER_MS);
}

void pd_evidence_changed(struct pd *pd)
{
	struct pd_session *s, *next;
	struct reg_volume *v;

	DL_FOREACH_SAFE (pd->sessions, s, next)
		if (s->role == ROLE_NODE && s->conn != NULL)
			node_send_evidence(pd, s);
	for (v = pd->reg.volumes; v != NULL; v = v->hh.next)
		if (!v->deleted && v->attachment.live && v->holder != NULL)
			host_push_permit(pd, v);
	pd_arm_evidence_timer(pd);
}

static void evidence_timer_fired(struct reactor_timer *t)
{
	struct pd *pd = container_of(t, struct pd, evidence_timer);

	log_debug("pd", "evidence may have run out: judging anew");
	pd_evidence_changed(pd);
}

/* A preset does not take the place of what was signed under its name and does not count any more.
 * key: "policy/NAME", or that and "/operator". */
static void void_policy(struct pd *pd, const char *key)
{
	const char *name = strchr(key, '/') + 1;
	char buf[NAME_SIZE_MAX];

	snprintf(buf, sizeof buf, "%.*s", (int)strcspn(name, "/"), name);
	verdicts_void_policy(&pd->verdicts, buf);
}

/* The tenant's comes before what the operator has made of it. */
static int load_policy(struct pd *pd, const char *key, const void *data, size_t size,
		       struct error *err)
{
	const char *name;
	struct error why;
	int rc = verdicts_add_policy(&pd->verdicts, data, size, &name, NULL, err);

	if (rc == -E_ROLLBACK && verdicts_hold_base(&pd->verdicts, data, size, &why) == 0)
		return 0;
	if (rc != 0)
		void_policy(pd, key);
	return rc;
}

/* Documents of the register, at the start. One that trust refuses now (a newer version was seen,
 * the root has changed) is left out, which refuses what depends on it; it isn't a reason not to
 * start. */
static int load_document(const char *key, const void *data, size_t size, void *arg)
{
	struct pd *pd = arg;
	struct error err = {0};
	const char *name;
	int rc;

	if (strcmp(key, PD_ROOT_KEY) == 0) {
		rc = trust_accept_root(pd->trust, data, size, &err);
		if (rc == -E_ROLLBACK)
			return 0; /* this driver has been given a newer one */
	} else if (strncmp(key, "site/", 5) == 0)
		rc = verdicts_add_site(&pd->verdicts, data, size, &name, &err);
	else if (strncmp(key, "policy/", 7) == 0)
		rc = load_policy(pd, key, data, size, &err);
	else if (strcmp(key, "revocations") == 0)
		rc = verdicts_add_revocations(&pd->verdicts, data, size, &err);
	else
		rc = error_set(&err, -E_CORRUPT, "nobody knows such a key");
	if (rc != 0)
		log_warn("pd", "register: document %s is not used: %s", key, err.text);
	return rc == -ENOMEM ? rc : 0;
}

static void register_broken(struct reg *reg)
{
	struct pd *pd = container_of(reg, struct pd, reg);

	if (pd->failed != NULL)
		pd->failed(reg->broken, pd->failed_arg);
}

/* -- start and end ---------------------------------------------------------------------------- */

static void pd_free(struct pd *pd)
{
	pd_ledger_deinit(&pd->ledger);
	moves_plan_deinit(&pd->plan);
	verdicts_deinit(&pd->verdicts);
	reg_deinit(&pd->reg);
	free(pd);
}

static int listen_on(struct pd *pd, const char *address, struct error *err)
{
	int rc;

	if (address == NULL)
		return 0;
	rc = transport_listen(pd->transport, address, accepted, pd, &pd->listener, err);
	if (rc != 0)
		error_wrap(err, "listening on %s", address);
	return rc;
}

static int start_ledger(struct pd *pd, const struct pd_config *config, struct error *err)
{
	size_t size = 0;
	const void *root = trust_root_envelope(config->trust, &size);

	return pd_ledger_start(&pd->ledger, &pd->reg, config->placement_key, root, size, err);
}

static bool any_attached(const struct reg *reg)
{
	for (const struct reg_volume *v = reg->volumes; v != NULL; v = v->hh.next)
		if (!v->deleted && v->attachment.live)
			return true;
	return false;
}

/* How long permits last is the cluster's matter, not a driver's: hosts renew as they were told when
 * they attached, and whoever takes over counts on what was given before. */
static void choose_lifetime(struct pd *pd, uint32_t wished_ms)
{
	struct reg *reg = &pd->reg;
	const uint32_t kept_ms = reg->permit_lifetime_ms;

	pd->lifetime_ms = wished_ms != 0 ? wished_ms : PERMIT_LIFETIME_MS;
	if (kept_ms != 0 && kept_ms <= PERMIT_LIFETIME_MAX_MS && any_attached(reg))
		pd->lifetime_ms = kept_ms;
	if (wished_ms != 0 && wished_ms != pd->lifetime_ms)
		log_warn(
		    "pd",
		    "permits last %u ms, as the register has it; the %u ms that this driver "
		    "was started with (--permit-lifetime) count when it starts, or takes over, "
		    "while no volume is attached",
		    pd->lifetime_ms, wished_ms);
	pd->renew_ms = pd->lifetime_ms * 3 / 10;
	if (pd->shared != NULL)
		reg_taken_over(reg, MAX(pd->lifetime_ms, kept_ms) * NS_PER_MS);
	if (pd->lifetime_ms == kept_ms)
		return;
	reg->permit_lifetime_ms = pd->lifetime_ms;
	reg_save_meta(reg);
}

int pd_start(const struct pd_config *config, struct pd **ret_pd, struct error *err)
{
	struct pd *pd = calloc(1, sizeof *pd);
	const char *policy =
	    config->default_policy != NULL ? config->default_policy : "secnumcloud-fr";
	int rc;

	if (pd == NULL)
		return error_set(err, -ENOMEM, "no memory");
	pd->reactor = config->reactor;
	pd->transport = config->transport;
	pd->trust = config->trust;
	pd->evidence_timer.fire = evidence_timer_fired;
	pd->parked_timer.fire = host_parked_timer;
	pd->erase_timer.fire = node_erase_timer;
	pd->moves_timer.fire = moves_timer;
	pd->settling_timer.fire = admin_settling_timer;
	if (config->permit_lifetime_ms > PERMIT_LIFETIME_MAX_MS) {
		rc =
		    error_set(err, -EINVAL, "a permit lifetime of %u ms is over the bound of %u ms",
			      config->permit_lifetime_ms, PERMIT_LIFETIME_MAX_MS);
		goto fail;
	}
	rc = verdicts_init(&pd->verdicts, config->trust, err);
	if (rc == 0)
		rc = reg_load(&pd->reg, config->reactor, config->kv,
			      root_cluster(trust_root(config->trust)), load_document, pd, err);
	if (rc != 0)
		goto fail;
	/* One that is void does not keep the driver from starting: only so can it be put again. */
	if (strlen(policy) >= NAME_SIZE_MAX ||
	    (verdicts_policy(&pd->verdicts, policy) == NULL && policy_preset(policy) == NULL)) {
		rc = error_set(err, -EINVAL, "the default policy %s is not known", policy);
		goto fail;
	}
	snprintf(pd->default_policy, sizeof pd->default_policy, "%s", policy);
	pd->shared = config->shared;
	choose_lifetime(pd, config->permit_lifetime_ms);
	pd->permits = (struct permits){.reg = &pd->reg,
				       .shared = config->shared,
				       .verdicts = &pd->verdicts,
				       .key = config->placement_key,
				       .lifetime_ns = (int64_t)(pd->lifetime_ms * NS_PER_MS)};
	if (pd->reg.planner.replace_after_s == 0)
		pd->reg.planner.replace_after_s =
		    config->replace_after_s != 0 ? config->replace_after_s : PD_REPLACE_AFTER_S;
	pd->only_added = config->only_added;
	pd->reg.on_broken = register_broken;
	pd->failed = config->failed;
	pd->failed_arg = config->arg;
	admin_note_told(pd);
	rc = start_ledger(pd, config, err);
	if (rc == 0)
		rc = listen_on(pd, config->listen_address, err);
	if (rc != 0)
		goto fail;
	/* Nothing fails any more: from here on tasks and timers know the driver. */
	pd->started_at = reg_now(&pd->reg, NULL);
	pd->permits.lease_serial = (uint64_t)pd->started_at;
	pd_background_flush(pd);
	pd_evidence_changed(pd);
	reactor_timer_arm(pd->reactor, &pd->moves_timer,
			  reactor_now_ns(pd->reactor) + PD_MOVES_TICK_MS * NS_PER_MS);
	*ret_pd = pd;
	return 0;
fail:
	pd_free(pd);
	return rc;
}

const char *pd_address(const struct pd *pd)
{
	PRE(pd->listener != NULL);
	return pd->listener->address;
}

static void cancel_timers(struct pd *pd)
{
	reactor_timer_cancel(pd->reactor, &pd->evidence_timer);
	reactor_timer_cancel(pd->reactor, &pd->parked_timer);
	reactor_timer_cancel(pd->reactor, &pd->erase_timer);
	reactor_timer_cancel(pd->reactor, &pd->moves_timer);
	reactor_timer_cancel(pd->reactor, &pd->settling_timer);
}

static void finish_stop(struct reactor_task *task)
{
	struct pd *pd = container_of(task, struct pd, stop_task);
	void (*stopped)(void *arg) = pd->stopped;
	void *arg = pd->stopped_arg;

	if (!reg_idle(&pd->reg)) {
		pd_stop_if_done(pd);
		return;
	}
	cancel_timers(pd); /* what was answered last may have armed one again */
	merge_drop(pd);	   /* between two of its steps it waits for a tick */
	pd_free(pd);
	stopped(arg);
}

void pd_stop_if_done(struct pd *pd)
{
	if (!pd->stopping || pd->sessions != NULL || pd->requests != NULL || pd->parked != NULL ||
	    pd->settling != NULL || pd->erases != NULL || pd->background_busy ||
	    pd->pushes != NULL || pd->ledger_reads != NULL || pd->plannings != NULL)
		return;
	/* What was saved since the last commit began waits for nobody, and nobody for it. */
	if (!reg_idle(&pd->reg)) {
		pd_background_flush(pd); /* whose end brings us here again */
		return;
	}
	pd->stop_task.run = finish_stop;
	reactor_defer(pd->reactor, &pd->stop_task);
}

void pd_stop(struct pd *pd, void (*done)(void *arg), void *arg)
{
	struct pd_session *s, *next;
	struct pd_request *q, *next_q;
	struct error err;

	PRE(!pd->stopping);
	pd->stopping = true;
	pd->stopped = done;
	pd->stopped_arg = arg;
	transport_unlisten(pd->listener);
	pd->listener = NULL;
	cancel_timers(pd);
	is_stopping(pd, &err);
	DL_FOREACH_SAFE (pd->parked, q, next_q) {
		DL_DELETE(pd->parked, q);
		DL_APPEND(pd->requests, q);
		request_fail(q, &err);
	}
	DL_FOREACH_SAFE (pd->settling, q, next_q) {
		DL_DELETE(pd->settling, q);
		DL_APPEND(pd->requests, q);
		request_fail(q, &err);
	}
	DL_FOREACH_SAFE (pd->sessions, s, next)
		if (s->conn != NULL)
			transport_close(s->conn);
	/* Also with nothing left: the commit ends in background_done. */
	pd_background_flush(pd);
}

void pd_abandon(struct pd *pd)
{
	struct pd_session *s, *next;
	struct pd_request *q, *next_q;

	cancel_timers(pd);
	node_erase_drop(pd);
	host_push_drop(pd);
	ledger_read_drop(pd);
	diff_drop(pd);
	moves_planning_drop(pd);
	merge_drop(pd);
	DL_FOREACH_SAFE (pd->requests, q, next_q)
		request_drop(q);
	DL_FOREACH_SAFE (pd->parked, q, next_q)
		request_drop(q);
	DL_FOREACH_SAFE (pd->settling, q, next_q)
		request_drop(q);
	DL_FOREACH_SAFE (pd->sessions, s, next) {
		reactor_timer_cancel(pd->reactor, &s->hello_timer);
		free(s);
	}
	pd_free(pd);
}
