/* admin: see admin.h.
 *
 * An errand is one message. It is sent when there is a session; an answer ends it, a lost session
 * sends it again: the driver takes the same document twice, and a volume only once. */
#include "tests/sim/admin.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/assert.h"

#define RETRY_NS	  (300 * NS_PER_MS)
#define ERRAND_TIMEOUT_MS 3000u
#define SETUP_PATIENCE_NS (60 * NS_PER_S)
#define SETUP_TRIES	  5u

static void connect_now(struct cluster *c);

static struct reactor *reactor_of(struct cluster *c)
{
	return sim_reactor(c->admin_machine->process);
}

static struct cluster *cluster_of_timer(struct reactor_timer *t)
{
	return container_of(t, struct cluster, admin.retry);
}

static void retry_later(struct cluster *c)
{
	reactor_timer_arm(reactor_of(c), &c->admin.retry, reactor_now_ns(reactor_of(c)) + RETRY_NS);
}

/* -- the session ----------------------------------------------------------------------------- */

static void greeted(struct rpc_call *call, int status, const Pave__V1__Control *reply,
		    const char *text)
{
	struct cluster *c = container_of(call, struct cluster, admin.call);

	if (status == 0 && reply->hello_reply->standby) {
		snprintf(c->admin.leader, sizeof(c->admin.leader), "%s",
			 reply->hello_reply->leader);
		status = -E_NOT_LEADER;
	}
	if (status != 0) {
		sim_trace(c->world, c->admin_machine->process, "no session: %s",
			  text != NULL ? text : err_name(status));
		if (c->admin.conn != NULL)
			transport_close(c->admin.conn);
		return;
	}
	c->admin.open = true;
	drivers_found(&c->admin.drivers);
}

static void ready(struct transport_conn *conn, void *arg)
{
	struct cluster *c = arg;
	Pave__V1__Control m = PAVE__V1__CONTROL__INIT;
	Pave__V1__Hello hello = PAVE__V1__HELLO__INIT;

	(void)conn;
	hello.version_min = FRAME_VERSION_MIN;
	hello.version_max = FRAME_VERSION;
	hello.role = (char *)(uintptr_t) "admin";
	hello.name = (char *)(uintptr_t) "sim";
	m.body_case = PAVE__V1__CONTROL__BODY_HELLO;
	m.hello = &hello;
	memset(&c->admin.call, 0, sizeof(c->admin.call));
	c->admin.call.done = greeted;
	rpc_call_start(&c->admin.rpc, &c->admin.call, &m,
		       drivers_several(&c->admin.drivers) ? ERRAND_TIMEOUT_MS : 0);
}

static void rx(struct transport_conn *conn, const struct frame *f, void *arg)
{
	struct cluster *c = arg;

	(void)conn;
	if (f->op == FRAME_CONTROL)
		rpc_rx(&c->admin.rpc, f);
}

static void *rx_buffer(struct transport_conn *conn, const struct frame *f, void *arg)
{
	struct cluster *c = arg;

	(void)conn;
	return f->op == FRAME_CONTROL ? rpc_rx_buffer(&c->admin.rpc, f) : NULL;
}

static void closed(struct transport_conn *conn, int reason, void *arg)
{
	struct cluster *c = arg;

	(void)conn;
	(void)reason;
	if (!c->admin.open)
		drivers_next(&c->admin.drivers, c->admin.leader);
	c->admin.leader[0] = '\0';
	c->admin.open = false;
	c->admin.conn = NULL;
	rpc_closed(&c->admin.rpc);
	retry_later(c);
}

static void handle(struct rpc *rpc, const struct rpc_request *request, void *arg)
{
	(void)arg;
	if (request->request_id != 0)
		rpc_fail(rpc, request->request_id, -ENOSYS, "the administrator answers nothing");
}

static const struct transport_handler handler = {
    .ready = ready, .rx_buffer = rx_buffer, .rx = rx, .closed = closed};

static void connect_now(struct cluster *c)
{
	if (transport_connect(c->admin_machine->transport, drivers_current(&c->admin.drivers),
			      &handler, c, &c->admin.conn) != 0) {
		retry_later(c);
		return;
	}
	rpc_init(&c->admin.rpc, c->admin.conn, handle, c);
}

static void retry(struct reactor_timer *t)
{
	struct cluster *c = cluster_of_timer(t);

	if (c->admin.conn == NULL)
		connect_now(c);
}

void admin_boot(struct cluster *c)
{
	struct error err;

	if (drivers_parse(c->pd_addresses, &c->admin.drivers, &err) != 0)
		cluster_fail(c, "addresses of the drivers: %s", err.text);
	c->admin.retry = (struct reactor_timer){.fire = retry};
	connect_now(c);
}

/* -- errands --------------------------------------------------------------------------------- */

static void answered(struct rpc_call *call, int status, const Pave__V1__Control *reply,
		     const char *text)
{
	struct cluster *c = container_of(call, struct cluster, admin.call);

	sim_trace(c->world, c->admin_machine->process, "errand: %s %s", err_name(status),
		  text != NULL ? text : "");
	c->admin.busy = false;
	c->admin.answered(c, status, reply);
	/* Another may lead: the next session is with that one. */
	if (status == -E_NOT_LEADER && c->admin.open && c->admin.conn != NULL) {
		c->admin.open = false;
		transport_close(c->admin.conn);
	}
}

/* False: there is no session now. */
static bool send_errand(struct cluster *c, const Pave__V1__Control *m,
			void (*done)(struct cluster *c, int status, const Pave__V1__Control *reply))
{
	if (!c->admin.open || c->admin.busy)
		return false;
	c->admin.busy = true;
	c->admin.answered = done;
	memset(&c->admin.call, 0, sizeof(c->admin.call));
	c->admin.call.done = answered;
	rpc_call_start(&c->admin.rpc, &c->admin.call, m, ERRAND_TIMEOUT_MS);
	return true;
}

static bool session_open(struct cluster *c)
{
	return c->admin.open;
}

static bool errand_done(struct cluster *c)
{
	return !c->admin.busy;
}

static void note_status(struct cluster *c, int status, const Pave__V1__Control *reply)
{
	(void)reply;
	c->admin.status = status;
}

/* A driver that is deposed meanwhile may have carried it out, or not: the next one is asked. */
static bool run_errand(struct cluster *c, const Pave__V1__Control *m)
{
	bool again = false;

	for (uint32_t i = 0; i < SETUP_TRIES; i++) {
		if (!cluster_run(c, SETUP_PATIENCE_NS, session_open)) {
			cluster_fail(c, "setting up: no session with the driver");
			return false;
		}
		send_errand(c, m, note_status);
		if (!cluster_run(c, SETUP_PATIENCE_NS, errand_done))
			return false;
		if (c->admin.status == 0 || (again && c->admin.status == -EEXIST))
			return !c->failed;
		again = true;
		if (c->admin.status != -E_NOT_LEADER && c->admin.status != -E_DISCONNECTED)
			break;
	}
	cluster_fail(c, "setting up: the driver answered %s", err_name(c->admin.status));
	return false;
}

/* -- documents ------------------------------------------------------------------------------- */

static int64_t wall_now(const struct cluster *c)
{
	return SIM_EPOCH_NS + (int64_t)c->world->now_ns;
}

/* Its certificate of the present version, which ends at this virtual time. */
static bool make_site(struct cluster *c, const struct site_truth *s, uint64_t until_ns,
		      char **ret_envelope)
{
	struct error err = {0};

	if (demo_site(&c->demo, s->name, s->certificate_version,
		      SIM_EPOCH_NS - 86400 * (int64_t)NS_PER_S, SIM_EPOCH_NS + (int64_t)until_ns,
		      ret_envelope, &err) == 0)
		return true;
	cluster_fail(c, "certificate of %s: %s", s->name, err.text);
	return false;
}

/* As the sites are in truth. */
static bool make_snapshot(struct cluster *c, char **ret_envelope)
{
	int64_t not_after = wall_now(c) + c->snapshot_life_ns;
	struct demo_entry entries[CLUSTER_NODES];
	struct error err = {0};

	for (uint32_t i = 0; i < c->node_count; i++) {
		bool out = c->sites[i].withdrawn_from_ns != UINT64_MAX;

		entries[i] = (struct demo_entry){.site = c->sites[i].name,
						 .version = c->sites[i].certificate_version,
						 .withdrawn_from =
						     out ? wall_now(c) - (int64_t)NS_PER_S : 0};
	}
	if (demo_revocations(&c->demo, ++c->revocations_version,
			     wall_now(c) - 2 * (int64_t)NS_PER_S, not_after, entries, c->node_count,
			     ret_envelope, &err) == 0) {
		c->renewed_until_ns = (uint64_t)(not_after - SIM_EPOCH_NS);
		c->snapshot_until_ns = MAX(c->snapshot_until_ns, c->renewed_until_ns);
		return true;
	}
	cluster_fail(c, "snapshot: %s", err.text);
	return false;
}

static void fill_bytes(ProtobufCBinaryData *to, char *envelope)
{
	to->data = (uint8_t *)envelope;
	to->len = strlen(envelope);
}

static void fill_site(Pave__V1__Control *m, Pave__V1__SiteAdd *add, char *envelope)
{
	pave__v1__control__init(m);
	pave__v1__site_add__init(add);
	fill_bytes(&add->envelope, envelope);
	m->body_case = PAVE__V1__CONTROL__BODY_SITE_ADD;
	m->site_add = add;
}

static bool send_sites(struct cluster *c)
{
	for (uint32_t i = 0; i < c->node_count; i++) {
		Pave__V1__Control m;
		Pave__V1__SiteAdd add;
		char *envelope;
		bool ok;

		if (!make_site(c, &c->sites[i], c->sites[i].certified_until_ns, &envelope))
			return false;
		fill_site(&m, &add, envelope);
		ok = run_errand(c, &m);
		free(envelope);
		if (!ok)
			return false;
	}
	return true;
}

static void fill_snapshot(Pave__V1__Control *m, Pave__V1__RevocationsPut *put, char *envelope)
{
	pave__v1__control__init(m);
	pave__v1__revocations_put__init(put);
	fill_bytes(&put->envelope, envelope);
	m->body_case = PAVE__V1__CONTROL__BODY_REVOCATIONS_PUT;
	m->revocations_put = put;
}

bool admin_set_up_sites(struct cluster *c)
{
	Pave__V1__Control m;
	Pave__V1__RevocationsPut put;
	char *envelope;
	bool ok;

	if (!send_sites(c) || !make_snapshot(c, &envelope))
		return false;
	fill_snapshot(&m, &put, envelope);
	ok = run_errand(c, &m);
	free(envelope);
	return ok;
}

bool admin_create_volume(struct cluster *c)
{
	Pave__V1__Control m = PAVE__V1__CONTROL__INIT;
	Pave__V1__VolumeCreate create = PAVE__V1__VOLUME_CREATE__INIT;

	create.name = (char *)(uintptr_t)CLUSTER_VOLUME;
	create.size = CLUSTER_VOLUME_SIZE;
	create.chunk_size = CLUSTER_CHUNK_SIZE;
	create.policy = (char *)(uintptr_t) "secnumcloud-fr";
	m.body_case = PAVE__V1__CONTROL__BODY_VOLUME_CREATE;
	m.volume_create = &create;
	return run_errand(c, &m);
}

/* -- withdrawals ----------------------------------------------------------------------------- */

/* Once the driver has answered nobody may accept anything on a site that the snapshot withdraws, or
 * beyond the end of the snapshot, or of the certificate that it names, but for permits and leases
 * that were given before and that nobody could take back: they run out. */
static void snapshot_taken(struct cluster *c, int status, const Pave__V1__Control *reply)
{
	const uint64_t run_out_ns = c->world->now_ns + c->permit_lifetime_ms * NS_PER_MS;

	(void)reply;
	c->admin.unsure = status != 0;
	if (status != 0)
		return; /* it is not known whether it is in force; nothing is checked */
	c->snapshot_until_ns = MAX(c->renewed_until_ns, run_out_ns);
	for (uint32_t i = 0; i < c->node_count; i++) {
		struct site_truth *s = &c->sites[i];

		if (s->withdrawn_from_ns == UINT64_MAX - 1)
			s->withdrawn_from_ns = run_out_ns;
		if (s->reissued_until_ns != 0)
			s->certified_until_ns = MAX(s->reissued_until_ns, run_out_ns);
		s->reissued_until_ns = 0;
	}
}

bool cluster_renew_snapshot(struct cluster *c)
{
	Pave__V1__Control m;
	Pave__V1__RevocationsPut put;
	char *envelope;
	bool ok;

	if (!c->admin.open || c->admin.busy || !make_snapshot(c, &envelope))
		return false;
	fill_snapshot(&m, &put, envelope);
	ok = send_errand(c, &m, snapshot_taken);
	free(envelope);
	return ok;
}

bool cluster_withdraw(struct cluster *c, uint32_t site, bool withdraw)
{
	struct site_truth *s = &c->sites[site];

	PRE(site < c->node_count);
	if (!c->admin.open || c->admin.busy)
		return false;
	/* From the moment of the asking until the answer it may be in force, or not. */
	s->withdrawn_from_ns = withdraw ? UINT64_MAX - 1 : UINT64_MAX;
	sim_trace(c->world, c->admin_machine->process, "%s site %s",
		  withdraw ? "withdraw" : "certify", s->name);
	return cluster_renew_snapshot(c);
}

/* Whether or not the driver took it, the next snapshot names it, and nothing older counts. */
static void site_taken(struct cluster *c, int status, const Pave__V1__Control *reply)
{
	(void)reply;
	if (status != 0 || !cluster_renew_snapshot(c))
		c->admin.unsure = true;
}

bool cluster_certify(struct cluster *c, uint32_t site, int64_t life_ns)
{
	struct site_truth *s = &c->sites[site];
	Pave__V1__Control m;
	Pave__V1__SiteAdd add;
	char *envelope;
	bool ok;

	PRE(site < c->node_count);
	if (!c->admin.open || c->admin.busy)
		return false;
	s->certificate_version++;
	/* Written in whole seconds. What came before may be in force for as long as it lasts. */
	s->reissued_until_ns = (c->world->now_ns + (uint64_t)life_ns) / NS_PER_S * NS_PER_S;
	s->certified_until_ns = MAX(s->certified_until_ns, s->reissued_until_ns);
	if (!make_site(c, s, s->reissued_until_ns, &envelope))
		return false;
	sim_trace(c->world, c->admin_machine->process, "site %s is certified until %llu ms",
		  s->name, (unsigned long long)(s->reissued_until_ns / NS_PER_MS));
	fill_site(&m, &add, envelope);
	ok = send_errand(c, &m, site_taken);
	free(envelope);
	return ok;
}

/* -- moves ----------------------------------------------------------------------------------- */

static void moves_asked(struct cluster *c, int status, const Pave__V1__Control *reply)
{
	(void)c;
	(void)status;
	(void)reply;
}

bool cluster_rebalance(struct cluster *c, const char *node, bool undo)
{
	Pave__V1__Control m = PAVE__V1__CONTROL__INIT;
	Pave__V1__NodeDrain drain = PAVE__V1__NODE_DRAIN__INIT;
	Pave__V1__RebalanceSet set = PAVE__V1__REBALANCE_SET__INIT;

	if (node != NULL) {
		drain.node = (char *)(uintptr_t)node;
		drain.undo = undo;
		m.body_case = PAVE__V1__CONTROL__BODY_NODE_DRAIN;
		m.node_drain = &drain;
	} else {
		set.action = (char *)(uintptr_t)(undo ? "cancel" : "run");
		m.body_case = PAVE__V1__CONTROL__BODY_REBALANCE_SET;
		m.rebalance_set = &set;
	}
	return send_errand(c, &m, moves_asked);
}

static void moves_counted(struct cluster *c, int status, const Pave__V1__Control *reply)
{
	if (status != 0 || reply->body_case != PAVE__V1__CONTROL__BODY_REBALANCE_STATUS_REPLY)
		return;
	c->moves_active = (int)reply->rebalance_status_reply->n_active;
	c->moves_done = reply->rebalance_status_reply->moves_done;
}

bool cluster_count_moves(struct cluster *c)
{
	Pave__V1__Control m = PAVE__V1__CONTROL__INIT;
	Pave__V1__RebalanceStatus status = PAVE__V1__REBALANCE_STATUS__INIT;

	m.body_case = PAVE__V1__CONTROL__BODY_REBALANCE_STATUS;
	m.rebalance_status = &status;
	if (!send_errand(c, &m, moves_counted))
		return false;
	c->moves_active = -1;
	return true;
}

/* -- snapshots of the volume ----------------------------------------------------------------- */

static void shot_is(struct cluster *c, struct shot *s, const Pave__V1__Control *reply)
{
	const Pave__V1__VolumeInfo *info;

	s->exists = true;
	if (reply == NULL || reply->body_case != PAVE__V1__CONTROL__BODY_VOLUME_GET_REPLY)
		return;
	info = reply->volume_get_reply->info;
	if (info == NULL || info->settling)
		return;
	s->settled = true;
	oracle_shot_taken(c->oracle, s->oracle);
}

static void shot_taken(struct cluster *c, int status, const Pave__V1__Control *reply)
{
	/* Whatever else came of it, it is asked for again. */
	if (status == 0 || status == -EEXIST)
		shot_is(c, &c->shots[c->shot_count - 1], status == 0 ? reply : NULL);
}

bool cluster_take_shot(struct cluster *c)
{
	struct shot *s = &c->shots[c->shot_count - (c->shot_count > 0)];
	Pave__V1__Control m = PAVE__V1__CONTROL__INIT;
	Pave__V1__VolumeSnapshot v = PAVE__V1__VOLUME_SNAPSHOT__INIT;

	if (!c->admin.open || c->admin.busy)
		return false;
	if (c->shot_count == 0 || s->exists) {
		if (c->shot_count == CLUSTER_SHOTS)
			return false;
		s = &c->shots[c->shot_count++];
		snprintf(s->name, sizeof(s->name), CLUSTER_VOLUME "@%u", c->shot_count);
		s->oracle = oracle_shot_begin(c->oracle);
	}
	v.name = (char *)(uintptr_t)CLUSTER_VOLUME;
	v.snapshot = strchr(s->name, '@') + 1;
	m.body_case = PAVE__V1__CONTROL__BODY_VOLUME_SNAPSHOT;
	m.volume_snapshot = &v;
	sim_trace(c->world, c->admin_machine->process, "snapshot %s", s->name);
	return send_errand(c, &m, shot_taken);
}

static void shot_asked(struct cluster *c, int status, const Pave__V1__Control *reply)
{
	for (uint32_t i = 0; status == 0 && i < c->shot_count; i++)
		if (reply->body_case == PAVE__V1__CONTROL__BODY_VOLUME_GET_REPLY &&
		    reply->volume_get_reply->info != NULL &&
		    strcmp(reply->volume_get_reply->info->name, c->shots[i].name) == 0)
			shot_is(c, &c->shots[i], reply);
}

bool cluster_ask_shot(struct cluster *c, struct shot *s)
{
	Pave__V1__Control m = PAVE__V1__CONTROL__INIT;
	Pave__V1__VolumeGet g = PAVE__V1__VOLUME_GET__INIT;

	g.name = s->name;
	m.body_case = PAVE__V1__CONTROL__BODY_VOLUME_GET;
	m.volume_get = &g;
	return send_errand(c, &m, shot_asked);
}

/* When it is in doubt, or refused because somebody reads it, it is asked for again. */
static void shot_deleted(struct cluster *c, int status, const Pave__V1__Control *reply)
{
	(void)reply;
	if (status == 0 || status == -ENOENT)
		c->deleting = NULL;
}

bool cluster_delete_shot(struct cluster *c)
{
	Pave__V1__Control m = PAVE__V1__CONTROL__INIT;
	Pave__V1__VolumeDelete d = PAVE__V1__VOLUME_DELETE__INIT;
	struct shot *s;

	if (!c->admin.open || c->admin.busy || c->shot_count == 0)
		return false;
	s = c->deleting;
	if (s == NULL)
		s = &c->shots[sim_random_below(c->world, c->shot_count)];
	if (c->deleting == NULL && (!s->exists || s->deleted))
		return false;
	s->deleted = true;
	c->deleting = s;
	d.name = s->name;
	m.body_case = PAVE__V1__CONTROL__BODY_VOLUME_DELETE;
	m.volume_delete = &d;
	sim_trace(c->world, c->admin_machine->process, "deletes %s", s->name);
	return send_errand(c, &m, shot_deleted);
}

static void layers_counted(struct cluster *c, int status, const Pave__V1__Control *reply)
{
	c->layers = 0;
	if (status == 0 && reply->body_case == PAVE__V1__CONTROL__BODY_VOLUME_GET_REPLY &&
	    reply->volume_get_reply->info != NULL && !reply->volume_get_reply->info->settling)
		c->layers = (uint32_t)reply->volume_get_reply->info->n_layers;
}

bool cluster_count_layers(struct cluster *c)
{
	Pave__V1__Control m = PAVE__V1__CONTROL__INIT;
	Pave__V1__VolumeGet g = PAVE__V1__VOLUME_GET__INIT;
	char name[] = CLUSTER_VOLUME;

	g.name = name;
	m.body_case = PAVE__V1__CONTROL__BODY_VOLUME_GET;
	m.volume_get = &g;
	return send_errand(c, &m, layers_counted);
}
