/* See test_placement_rig.h. */
#include "tests/unit/test_placement_rig.h"

#include <check.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/crc32c.h"
#include "ledger.pb-c.h"

const char *const rig_sites[RIG_SITES] = {"par", "lyo", "rbx", "mrs"};

#define DAY_NS (86400 * (int64_t)NS_PER_S)

/* -- the driver ------------------------------------------------------------------------------- */

int64_t rig_wall(const struct rig *r)
{
	return reactor_wall_ns(sim_reactor(r->pd_process));
}

void rig_run_ms(struct rig *r, uint64_t ms)
{
	sim_run_for(r->world, ms * NS_PER_MS);
}

static void pd_crashed(struct sim_process *p, enum sim_crash how)
{
	struct rig *r = p->app;

	(void)how;
	if (r->pd != NULL)
		pd_abandon(r->pd);
	r->pd = NULL;
}

static void register_failed(int status, void *arg)
{
	struct rig *r = arg;

	ck_assert_int_lt(status, 0);
	r->failed++;
}

int rig_pd_try(struct rig *r, struct error *err)
{
	struct pd_config config = {.listen_address = "",
				   .permit_lifetime_ms = r->lifetime_ms,
				   .trust = r->trust,
				   .only_added = r->only_added,
				   .placement_key = demo_key(&r->demo, DEMO_PLACEMENT)};

	sim_process_start(r->pd_process);
	r->transport = sim_transport_create(r->pd_process);
	config.shared = r->one_of_several ? &r->shared : NULL;
	config.failed = register_failed;
	config.arg = r;
	config.reactor = sim_reactor(r->pd_process);
	config.transport = r->transport;
	config.kv = sim_kv_open(r->kv);
	return pd_start(&config, &r->pd, err);
}

void rig_pd_start(struct rig *r)
{
	struct error err = {0};

	ck_assert_msg(rig_pd_try(r, &err) == 0, "%s", err.text);
}

void rig_pd_crash(struct rig *r, enum sim_crash how)
{
	sim_process_crash(r->pd_process, how);
	rig_run_ms(r, 100); /* so that the peers hear of it */
}

static int no_document(const char *key, const void *data, size_t size, void *arg)
{
	(void)key;
	(void)data;
	(void)size;
	(void)arg;
	return 0;
}

void rig_pd_load(struct rig *r, struct reg *ret)
{
	struct error err = {0};

	rig_pd_crash(r, SIM_KILL);
	sim_process_start(r->pd_process);
	ck_assert_msg(reg_load(ret, sim_reactor(r->pd_process), sim_kv_open(r->kv),
			       &r->demo.cluster, no_document, NULL, &err) == 0,
		      "%s", err.text);
}

static void is_durable(struct reg_commit *c, int status)
{
	ck_assert_int_eq(status, 0);
	c->done = NULL;
}

void rig_pd_start_with(struct rig *r, struct reg *reg)
{
	struct reg_commit commit = {.done = is_durable};

	reg_flush(reg, &commit);
	while (commit.done != NULL)
		rig_run_ms(r, 10);
	reg_deinit(reg);
	sim_process_crash(r->pd_process, SIM_KILL);
	rig_pd_start(r);
}

static void stopped(void *arg)
{
	*(bool *)arg = true;
}

static bool may_issue(void *arg)
{
	return ((const struct rig *)arg)->leads;
}

static size_t two_drivers(struct pd_driver list[PD_DRIVERS_MAX], void *arg)
{
	(void)arg;
	list[0] = (struct pd_driver){.name = "a", .address = "a:1", .leads = true};
	list[1] = (struct pd_driver){.name = "b", .address = "b:1"};
	return 2;
}

void rig_one_of_several(struct rig *r)
{
	r->shared = (struct pd_shared){.may_issue = may_issue, .drivers = two_drivers, .arg = r};
	r->one_of_several = r->leads = true;
	rig_pd_crash(r, SIM_KILL);
	rig_pd_start(r);
}

void rig_pd_end(struct rig *r)
{
	struct pd *pd = r->pd;
	bool done = false;

	r->pd = NULL;
	pd_stop(pd, stopped, &done);
	ck_assert(sim_run_flag(r->world, &done));
}

struct rig *rig_create(uint64_t seed)
{
	const uint8_t demo_seed[32] = {7};
	struct rig *r = calloc(1, sizeof *r);
	struct error err;
	int64_t now;

	ck_assert_ptr_nonnull(r);
	r->world = sim_world_create(seed);
	sim_world_take_log(r->world);
	r->lifetime_ms = LIFETIME_MS;
	r->pd_process = sim_process_create(r->world, "pd");
	r->pd_process->app = r;
	r->pd_process->on_crash = pd_crashed;
	r->kv = sim_kv_create(r->pd_process, "register", PD_KV_FAMILIES);
	sim_process_start(r->pd_process);
	now = rig_wall(r);
	sim_process_crash(r->pd_process, SIM_KILL);
	ck_assert_int_eq(demo_init(&r->demo, demo_seed, &err), 0);
	ck_assert_int_eq(demo_root(&r->demo, 1, now - DAY_NS, now + 365 * DAY_NS, &r->root, &err),
			 0);
	for (uint32_t i = 0; i < RIG_SITES; i++)
		ck_assert_int_eq(demo_site(&r->demo, rig_sites[i], 1, now - DAY_NS,
					   now + 30 * DAY_NS, &r->sites[i], &err),
				 0);
	ck_assert_int_eq(trust_open(NULL, r->root, strlen(r->root), &r->trust, &err), 0);
	rig_pd_start(r);
	return r;
}

void rig_destroy(struct rig *r)
{
	sim_world_destroy(r->world); /* crashes what runs, so that the driver is abandoned */
	for (uint32_t i = 0; i < r->peer_count; i++) {
		if (r->peers[i].reply != NULL)
			pave__v1__control__free_unpacked(r->peers[i].reply, NULL);
		permit_deinit(&r->peers[i].notice);
	}
	trust_close(r->trust);
	demo_deinit(&r->demo);
	free(r->root);
	for (uint32_t i = 0; i < RIG_SITES; i++)
		free(r->sites[i]);
	free(r);
}

/* -- peers ------------------------------------------------------------------------------------ */

struct in_ledger {
	const struct permit *permit;
	uint64_t named; /* a bit for each node of it that the last permit in the ledger names */
};

static void look_for_nodes(const void *key, size_t key_size, const void *value, size_t value_size,
			   void *arg)
{
	struct in_ledger *l = arg;
	Pave__V1__LedgerRecord *r =
	    key_size == 8 ? pave__v1__ledger_record__unpack(NULL, value_size, value) : NULL;
	Pave__V1__Permit *m = NULL;

	(void)key;
	if (r != NULL && r->body_case == PAVE__V1__LEDGER_RECORD__BODY_PERMIT)
		m = pave__v1__permit__unpack(NULL, r->permit->permit->payload.len,
					     r->permit->permit->payload.data);
	if (m != NULL && (m->volume != l->permit->volume || m->serial > l->permit->serial ||
			  m->generation != l->permit->generation)) {
		pave__v1__permit__free_unpacked(m, NULL);
		m = NULL;
	}
	if (m != NULL) {
		l->named = 0; /* the last one of those before it counts */
		for (uint32_t i = 0; i < l->permit->node_count; i++)
			for (size_t k = 0; k < m->n_nodes; k++)
				if (strcmp(l->permit->nodes[i].node, m->nodes[k]->node) == 0)
					l->named |= 1ull << i;
		pave__v1__permit__free_unpacked(m, NULL);
	}
	if (r != NULL)
		pave__v1__ledger_record__free_unpacked(r, NULL);
}

static uint32_t permit_crc(const struct permit *permit)
{
	uint32_t crc = crc32c(0, &permit->volume, sizeof permit->volume);

	crc = crc32c(crc, &permit->generation, sizeof permit->generation);
	for (uint32_t i = 0; i < permit->node_count; i++)
		crc = crc32c(crc, permit->nodes[i].node, strlen(permit->nodes[i].node) + 1);
	return crc;
}

/* I7: whoever is given a permit finds it in the ledger that is durable, be it with more nodes. One
 * like the last of its volume was found there already: to read the whole ledger takes long. */
static void check_ledger(struct rig *r, const struct permit *permit)
{
	uint32_t *checked = &r->checked[permit->volume % 64];
	struct in_ledger l = {.permit = permit};

	if (*checked == permit_crc(permit))
		return;
	*checked = permit_crc(permit);
	sim_kv_each(r->kv, PD_KV_LEDGER, look_for_nodes, &l);
	ck_assert_msg(l.named == (1ull << permit->node_count) - 1,
		      "permit %llu of generation %u names a node that the ledger has not",
		      (unsigned long long)permit->serial, permit->generation);
}

static void on_permit_notice(struct peer *p, const Pave__V1__PermitNotice *n)
{
	struct error err = {0};

	p->permit_notices++;
	p->notice_after_asks = p->answers;
	p->notice_status = -(int)n->status;
	p->notice_min_acks = n->min_acks;
	p->notice_size = n->size;
	permit_deinit(&p->notice);
	memset(&p->notice, 0, sizeof p->notice);
	if (n->permit == NULL)
		return;
	ck_assert_msg(permit_open(n->permit, trust_root(p->rig->trust),
				  reactor_now_ns(sim_reactor(p->process)),
				  reactor_wall_ns(sim_reactor(p->process)), &p->notice, &err) == 0,
		      "%s", err.text);
	check_ledger(p->rig, &p->notice);
}

static void on_evidence_notice(struct peer *p, const Pave__V1__EvidenceNotice *n)
{
	struct revocations_document *doc;
	struct error err;

	p->evidence_notices++;
	p->notice_after_asks = p->answers;
	if (n->revocations.len == 0)
		return;
	ck_assert_int_eq(revocations_open(n->revocations.data, n->revocations.len,
					  trust_root(p->rig->trust), &doc, &err),
			 0);
	p->evidence_version = revocations_version(doc);
	revocations_free(doc);
}

/* Of the upper layer it has the chunks in merge_has; each has merge_blocks to be written once. */
static void answer_merge(struct peer *p, struct rpc *rpc, const struct rpc_request *q)
{
	const Pave__V1__LayerMerge *ask = q->message->layer_merge;
	Pave__V1__Control m = PAVE__V1__CONTROL__INIT;
	Pave__V1__LayerMergeReply r = PAVE__V1__LAYER_MERGE_REPLY__INIT;

	if (!ask->look && ask->lower == p->merge_refuse) {
		rpc_fail(rpc, q->request_id, -E_BAD_CRC, "a checksum does not match");
		return;
	}
	r.chunk = ask->chunk;
	while (ask->look && r.chunk < 32 && (p->merge_has >> r.chunk & 1) == 0)
		r.chunk++;
	r.found = r.chunk < 32;
	r.upper_whole = true;
	r.lower_whole = p->merge_lower_whole;
	r.lower_empty = p->merge_lower_empty;
	if (!ask->look) {
		p->merges++;
		p->merge_upper = ask->upper;
		p->merge_lower = ask->lower;
		r.done = true;
	}
	if (!ask->look && ask->fresh) {
		p->merge_fresh = p->merge_lower_whole = p->merge_lower_empty = true;
	} else if (!ask->look) {
		if ((p->merge_done >> ask->chunk & 1) == 0)
			r.blocks = p->merge_blocks;
		p->merge_done |= 1u << ask->chunk;
	}
	if (!ask->look && p->merge_hold) {
		p->merge_held = q->request_id;
		return;
	}
	m.body_case = PAVE__V1__CONTROL__BODY_LAYER_MERGE_REPLY;
	m.layer_merge_reply = &r;
	rpc_reply(rpc, q->request_id, &m);
}

void peer_answer_merge(struct peer *p)
{
	Pave__V1__Control m = PAVE__V1__CONTROL__INIT;
	Pave__V1__LayerMergeReply r = PAVE__V1__LAYER_MERGE_REPLY__INIT;

	ck_assert_uint_ne(p->merge_held, 0);
	r.done = true;
	m.body_case = PAVE__V1__CONTROL__BODY_LAYER_MERGE_REPLY;
	m.layer_merge_reply = &r;
	rpc_reply(&p->rpc, p->merge_held, &m);
	p->merge_held = 0;
}

static void answer_changes(struct peer *p, struct rpc *rpc, const struct rpc_request *q)
{
	const Pave__V1__LayerChanges *ask = q->message->layer_changes;
	Pave__V1__Control m = PAVE__V1__CONTROL__INIT;
	Pave__V1__LayerChangesReply reply = PAVE__V1__LAYER_CHANGES_REPLY__INIT;
	bool has_runs = p->changes_of == 0;

	p->changes_layer_count = ask->n_layers;
	for (size_t i = 0; i < ask->n_layers && i < 4; i++)
		p->changes_layers[i] = ask->layers[i];
	for (size_t i = 0; i < ask->n_layers; i++)
		has_runs = has_runs || ask->layers[i] == p->changes_of;
	/* The second run comes with a second answer. */
	reply.more = has_runs && ask->from == 0 && p->run_values > 3 && !p->runs_at_once;
	reply.next = reply.more ? p->runs[3] : 0;
	reply.runs = ask->from == 0 ? p->runs : p->runs + 3;
	reply.n_runs = has_runs && p->run_values > (ask->from == 0 ? 0 : 3) ? 3 : 0;
	if (has_runs && p->runs_at_once)
		reply.n_runs = p->run_values;
	m.body_case = PAVE__V1__CONTROL__BODY_LAYER_CHANGES_REPLY;
	m.layer_changes_reply = &reply;
	if (p->changes_refuse)
		rpc_fail(rpc, q->request_id, -E_DEVICE, "as the test wants it");
	else
		rpc_reply(rpc, q->request_id, &m);
}

static void answer_erase(struct peer *p, uint64_t request_id)
{
	Pave__V1__Control m = PAVE__V1__CONTROL__INIT;
	Pave__V1__Erased erased = PAVE__V1__ERASED__INIT;

	m.body_case = PAVE__V1__CONTROL__BODY_ERASED;
	m.erased = &erased;
	erased.method = p->erase_less ? (char *)(uintptr_t) "" : p->erase_method;
	rpc_reply(&p->rpc, request_id, &m);
}

void peer_answer_erase(struct peer *p)
{
	ck_assert_uint_ne(p->erase_held, 0);
	answer_erase(p, p->erase_held);
	p->erase_held = 0;
}

static void on_erase(struct peer *p, struct rpc *rpc, const struct rpc_request *q)
{
	const Pave__V1__Erase *erase = q->message->erase;
	uint64_t layers = 1ull << (erase->volume & 63);

	p->erases++;
	p->erase_asked = true;
	p->erase_volume = erase->volume;
	p->erase_chunk_count = erase->n_chunks;
	for (size_t i = 0; i < erase->n_chunks && i < ARRAY_SIZE(p->erase_chunks); i++)
		p->erase_chunks[i] = erase->chunks[i];
	for (size_t i = 0; i < erase->n_more_layers; i++)
		layers |= 1ull << (erase->more_layers[i] & 63);
	p->erased_layers |= layers;
	snprintf(p->erase_method, sizeof p->erase_method, "%s", erase->method);
	ck_assert(erase->whole_volume || erase->n_chunks > 0);
	if (p->erase_refuse || (layers & p->erase_refuses) != 0)
		rpc_fail(rpc, q->request_id, -EIO, "as the test wants it");
	else if (p->erase_hold)
		p->erase_held = q->request_id;
	else
		answer_erase(p, q->request_id);
}

static void note_maintained(struct peer *p, const char *volume)
{
	const uint64_t number = strtoul(volume + 1, NULL, 10); /* of "#n" */

	p->maintains++;
	if (number < 64)
		p->maintain_volumes |= UINT64_C(1) << number;
}

static void on_message(struct rpc *rpc, const struct rpc_request *q, void *arg)
{
	struct peer *p = arg;

	switch (q->message->body_case) {
	case PAVE__V1__CONTROL__BODY_PERMIT_NOTICE:
		on_permit_notice(p, q->message->permit_notice);
		break;
	case PAVE__V1__CONTROL__BODY_EVIDENCE_NOTICE:
		on_evidence_notice(p, q->message->evidence_notice);
		break;
	case PAVE__V1__CONTROL__BODY_SCRUB:
		p->scrubs++;
		break;
	case PAVE__V1__CONTROL__BODY_DETACH_NOTICE:
		p->detach_notices++;
		break;
	case PAVE__V1__CONTROL__BODY_MAINTAIN:
		note_maintained(p, q->message->maintain->volume);
		break;
	case PAVE__V1__CONTROL__BODY_ERASE:
		on_erase(p, rpc, q);
		break;
	case PAVE__V1__CONTROL__BODY_LAYER_CHANGES:
		answer_changes(p, rpc, q);
		break;
	case PAVE__V1__CONTROL__BODY_LAYER_MERGE:
		answer_merge(p, rpc, q);
		break;
	default:
		ck_abort_msg("the driver sent something unexpected");
	}
}

static void on_ready(struct transport_conn *conn, void *arg)
{
	struct peer *p = arg;

	(void)conn;
	p->ready = true;
}

/* Of a connection that was lost when the driver crashed a peer may hear after it has the next. */
static bool is_old(const struct peer *p, const struct transport_conn *conn)
{
	return conn != p->conn;
}

static void on_rx(struct transport_conn *conn, const struct frame *f, void *arg)
{
	struct peer *p = arg;

	if (!is_old(p, conn))
		rpc_rx(&p->rpc, f);
}

static void *on_rx_buffer(struct transport_conn *conn, const struct frame *f, void *arg)
{
	struct peer *p = arg;

	return is_old(p, conn) ? NULL : rpc_rx_buffer(&p->rpc, f);
}

static void on_closed(struct transport_conn *conn, int reason, void *arg)
{
	struct peer *p = arg;

	if (is_old(p, conn))
		return;
	p->conn = NULL;
	p->closed = true;
	p->ready = true; /* nobody need wait for it */
	p->reason = reason;
	rpc_closed(&p->rpc);
}

static const struct transport_handler handler = {
    .ready = on_ready, .rx = on_rx, .rx_buffer = on_rx_buffer, .closed = on_closed};

static void on_answer(struct rpc_call *call, int status, const Pave__V1__Control *reply,
		      const char *text)
{
	struct peer *p = container_of(call, struct peer, call);
	size_t size;
	uint8_t *packed;

	p->answered = true;
	p->answers++;
	p->status = status;
	snprintf(p->text, sizeof p->text, "%s", text != NULL ? text : "");
	if (status != 0)
		return;
	size = pave__v1__control__get_packed_size(reply);
	packed = malloc(size + 1);
	pave__v1__control__pack(reply, packed);
	p->reply = pave__v1__control__unpack(NULL, size, packed);
	free(packed);
	if (reply->body_case == PAVE__V1__CONTROL__BODY_ATTACH_REPLY ||
	    reply->body_case == PAVE__V1__CONTROL__BODY_RENEW_REPLY) {
		struct permit permit = reply_permit(p);

		check_ledger(p->rig, &permit);
		permit_deinit(&permit);
	}
}

void peer_ask_start(struct peer *p, const Pave__V1__Control *m)
{
	if (p->reply != NULL)
		pave__v1__control__free_unpacked(p->reply, NULL);
	p->reply = NULL;
	p->answered = false;
	p->call.done = on_answer;
	rpc_call_start(&p->rpc, &p->call, m, 600000);
}

int peer_ask_wait(struct peer *p)
{
	/* A crash of the driver ends a run; the peer then hears of it, sooner or later. */
	for (int i = 0; i < 3 && !p->answered; i++)
		sim_run_flag(p->rig->world, &p->answered);
	ck_assert(p->answered);
	return p->status;
}

int peer_ask(struct peer *p, const Pave__V1__Control *m)
{
	peer_ask_start(p, m);
	return peer_ask_wait(p);
}

int peer_connect(struct peer *p, const char *role, const char *name)
{
	Pave__V1__Control m = PAVE__V1__CONTROL__INIT;
	Pave__V1__Hello hello = PAVE__V1__HELLO__INIT;

	p->ready = p->closed = false;
	ck_assert_int_eq(transport_connect(p->transport, "pd", &handler, p, &p->conn), 0);
	rpc_init(&p->rpc, p->conn, on_message, p);
	ck_assert(sim_run_flag(p->rig->world, &p->ready));
	if (p->closed)
		return p->reason;
	if (role == NULL)
		return 0;
	hello.version_min = hello.version_max = FRAME_VERSION;
	hello.role = (char *)(uintptr_t)role;
	hello.name = (char *)(uintptr_t)name;
	if (strcmp(role, "admin") != 0) {
		hello.cluster.data = p->rig->demo.cluster.bytes;
		hello.cluster.len = 16;
	}
	m.body_case = PAVE__V1__CONTROL__BODY_HELLO;
	m.hello = &hello;
	return peer_ask(p, &m);
}

struct peer *peer_new(struct rig *r, const char *role, const char *name)
{
	struct peer *p = &r->peers[r->peer_count];
	char machine[NAME_SIZE_MAX];

	ck_assert_uint_lt(r->peer_count, PEERS_MAX);
	p->rig = r;
	snprintf(machine, sizeof machine, "peer%u", r->peer_count++);
	p->process = sim_process_create(r->world, machine);
	sim_process_start(p->process);
	p->transport = sim_transport_create(p->process);
	ck_assert_int_eq(peer_connect(p, role, name), 0);
	return p;
}

void peer_close(struct peer *p)
{
	if (p->conn != NULL)
		transport_close(p->conn);
	ck_assert(sim_run_flag(p->rig->world, &p->closed));
	rig_run_ms(p->rig, 50);
}

/* -- evidence --------------------------------------------------------------------------------- */

char *rig_snapshot(struct rig *r, const char *withdrawn, int64_t from, int64_t valid_s)
{
	struct demo_entry entries[RIG_SITES];
	int64_t now = rig_wall(r);
	char *envelope = NULL;
	struct error err;

	for (uint32_t i = 0; i < RIG_SITES; i++)
		entries[i] = (struct demo_entry){
		    .site = rig_sites[i],
		    .version = 1,
		    .withdrawn_from =
			withdrawn != NULL && strstr(withdrawn, rig_sites[i]) != NULL ? from : 0};
	ck_assert_int_eq(demo_revocations(&r->demo, ++r->snapshot_version, now,
					  now + valid_s * (int64_t)NS_PER_S, entries, RIG_SITES,
					  &envelope, &err),
			 0);
	return envelope;
}

int rig_revoke(struct rig *r, struct peer *admin, const char *site, int64_t from)
{
	char *envelope = rig_snapshot(r, site, from, 86400);
	int rc = ask_revocations(admin, envelope);

	free(envelope);
	return rc;
}

int rig_put_policy(struct rig *r, struct peer *admin, int version, const char *what,
		   const char *with, bool by_tenant)
{
	static const char first[] = "\"version\": 1,";
	struct signing_key *keys[2] = {demo_key(&r->demo, by_tenant ? DEMO_TENANT : DEMO_AUTHORITY),
				       demo_key(&r->demo, DEMO_AUDITOR)};
	Pave__V1__Control m = PAVE__V1__CONTROL__INIT;
	Pave__V1__PolicyPut put = PAVE__V1__POLICY_PUT__INIT;
	const char *preset = policy_preset("secnumcloud-fr");
	const char *at = strstr(preset, first), *from = strstr(preset, what);
	char *json = NULL, *envelope;
	struct error err;
	int rc;

	ck_assert(at != NULL && from > at);
	at += strlen(first);
	ck_assert_int_gt(asprintf(&json, "%.*s\"version\": %d,%.*s%s%s",
				  (int)((size_t)(at - preset) - strlen(first)), preset, version,
				  (int)(from - at), at, with, from + strlen(what)),
			 0);
	ck_assert_int_eq(
	    dsse_sign(TYPE_POLICY, json, strlen(json), keys, by_tenant ? 1 : 2, &envelope, &err),
	    0);
	put.envelope.data = (uint8_t *)envelope;
	put.envelope.len = strlen(envelope);
	m.body_case = PAVE__V1__CONTROL__BODY_POLICY_PUT;
	m.policy_put = &put;
	rc = peer_ask(admin, &m);
	free(envelope);
	free(json);
	return rc;
}

void rig_three(struct rig *r, struct peer *admin, struct peer *nodes[3])
{
	static const char *const names[] = {"n1", "n2", "n3"};

	for (uint32_t i = 0; i < 3; i++)
		ck_assert_int_eq(ask_site_add(admin, r->sites[i]), 0);
	ck_assert_int_eq(rig_revoke(r, admin, NULL, 0), 0);
	for (uint32_t i = 0; i < 3; i++) {
		nodes[i] = peer_new(r, "node", names[i]);
		ck_assert_msg(ask_lease(nodes[i], names[i], rig_sites[i], (uint8_t)(i + 1), 0) == 0,
			      "%s", nodes[i]->text);
	}
}
