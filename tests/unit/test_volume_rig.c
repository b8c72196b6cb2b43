/* See test_volume_rig.h: the world, the driver, the hosts. The nodes: test_volume_nodes.c. */
#include "tests/unit/test_volume_rig.h"

#include <check.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/assert.h"

static const char *const node_names[RIG_ALL_NODES] = {"par1", "lyo1", "rbx1", "mrs1"};
static const char *const second_addresses[RIG_ALL_NODES] = {"par1.1", "lyo1.1", "rbx1.1", "mrs1.1"};
static const char *const site_names[RIG_ALL_NODES] = {"par", "lyo", "rbx", "mrs"};
static const char *const host_names[RIG_HOSTS] = {"host0", "host1"};

/* -- the driver -------------------------------------------------------------------------------- */

static struct rig *rig_of_pd(struct fake_pd *pd)
{
	return container_of(pd, struct rig, pd);
}

static Pave__V1__Signed *make_permit(struct fake_pd *pd, bool read_only)
{
	struct rig *rig = rig_of_pd(pd);
	const int64_t now = reactor_wall_ns(sim_reactor(pd->process));
	Pave__V1__Permit permit = PAVE__V1__PERMIT__INIT;
	Pave__V1__PermitNode nodes[RIG_ALL_NODES], *list[RIG_ALL_NODES];
	Pave__V1__PermitLayer layers[RIG_LAYERS], *layer_list[RIG_LAYERS];
	Pave__V1__Signed *ret = NULL;
	uint8_t digest[32] = {1};
	struct error err;

	for (uint32_t i = 0; i < RIG_ALL_NODES; i++) {
		if ((pd->nodes & (1u << i)) == 0)
			continue;
		pave__v1__permit_node__init(&nodes[i]);
		nodes[i].node = (char *)(uintptr_t)node_names[i];
		nodes[i].site = (char *)(uintptr_t)site_names[i];
		nodes[i].site_version = 1;
		list[permit.n_nodes++] = &nodes[i];
	}
	for (uint32_t i = 0; pd->open_layers > 0 && i <= pd->snapshots; i++) {
		pave__v1__permit_layer__init(&layers[i]);
		layers[i].layer = RIG_VOLUME + pd->snapshots - i;
		layers[i].open = i < pd->open_layers;
		layer_list[permit.n_layers++] = &layers[i];
	}
	permit.layers = layer_list;
	permit.cluster = (ProtobufCBinaryData){16, rig->demo.cluster.bytes};
	permit.volume = RIG_VOLUME;
	permit.generation = pd->generation;
	permit.serial = ++pd->serial;
	permit.policy_digest = (ProtobufCBinaryData){sizeof(digest), digest};
	permit.holder = (char *)(uintptr_t) "host";
	permit.map_version = 1;
	permit.nodes = list;
	permit.issued_at = now;
	permit.expires_at = now + (int64_t)(pd->lifetime_ms * NS_PER_MS);
	permit.serve_after = pd->older_bound > now ? pd->older_bound : 0;
	permit.read_only = read_only;
	pd->last_expiry = permit.expires_at;
	ck_assert_int_eq(permit_make(&permit, demo_key(&rig->demo, DEMO_PLACEMENT), &ret, &err), 0);
	return ret;
}

struct map_nodes {
	Pave__V1__MapNode nodes[RIG_ALL_NODES], *list[RIG_ALL_NODES];
	char *addresses[RIG_ALL_NODES][2];
	size_t count;
	Pave__V1__Move move, *moves[1];
	size_t move_count;
};

static void make_nodes(const struct fake_pd *pd, struct map_nodes *m)
{
	m->count = pd->moving || pd->moved || pd->on_new_node ? RIG_ALL_NODES : RIG_NODES;
	m->move_count = pd->moving && !pd->moved;
	pave__v1__move__init(&m->move);
	m->move.chunk = pd->move_chunk;
	m->move.from = (char *)(uintptr_t)node_names[pd->move_from];
	m->move.to = (char *)(uintptr_t)node_names[pd->move_to];
	m->moves[0] = &m->move;
	for (uint32_t i = 0; i < RIG_ALL_NODES; i++) {
		pave__v1__map_node__init(&m->nodes[i]);
		m->addresses[i][0] = (char *)(uintptr_t)node_names[i];
		m->addresses[i][1] = (char *)(uintptr_t)second_addresses[i];
		m->nodes[i].node = (char *)(uintptr_t)node_names[i];
		m->nodes[i].site = (char *)(uintptr_t)site_names[i];
		m->nodes[i].n_addresses = (pd->unknown & (1u << i)) != 0 ? 0 : pd->shards;
		m->nodes[i].addresses = m->addresses[i];
		m->list[i] = &m->nodes[i];
	}
}

static uint32_t chunk_count(uint64_t bytes)
{
	return (uint32_t)((bytes + RIG_CHUNK_SIZE - 1) / RIG_CHUNK_SIZE);
}

/* The whole map of the volume as it is now. */
static uint32_t make_map(const struct fake_pd *pd, uint8_t map[RIG_CHUNKS_MAX * RIG_NODES])
{
	const uint32_t count = MIN(chunk_count(pd->bytes), RIG_CHUNKS_MAX) * RIG_NODES;

	for (uint32_t i = 0; i < count; i++) {
		map[i] = (uint8_t)((i + i / RIG_NODES) % RIG_NODES);
		if (pd->on_new_node && i / RIG_NODES >= RIG_CHUNKS && map[i] == 0)
			map[i] = RIG_NODES;
	}
	for (uint32_t i = 0; pd->moved && i < RIG_NODES; i++) {
		uint8_t *row = &map[pd->move_chunk * RIG_NODES];

		if (row[i] == pd->move_from)
			row[i] = (uint8_t)pd->move_to;
	}
	return count;
}

static void answer_attach(struct fake_pd *pd, struct rpc *rpc, uint64_t id,
			  const Pave__V1__Attach *ask)
{
	Pave__V1__Control m = PAVE__V1__CONTROL__INIT;
	Pave__V1__AttachReply r = PAVE__V1__ATTACH_REPLY__INIT;
	struct map_nodes nodes;
	uint8_t map[RIG_CHUNKS_MAX * RIG_NODES];
	uint32_t map_size;

	pd->attaches++;
	pd->generation++;
	pd->serial = 0;
	pd->older_bound = MAX(pd->older_bound, pd->last_expiry);
	pd->last_expiry = 0;
	make_nodes(pd, &nodes);
	map_size = make_map(pd, map);
	r.volume = RIG_VOLUME;
	r.size = pd->size != 0 ? pd->size : pd->bytes;
	r.chunk_size = RIG_CHUNK_SIZE;
	r.replicas = RIG_NODES;
	r.min_acks = pd->min_acks;
	r.freeze_timeout_s = RIG_FREEZE_S;
	r.map_version = 1;
	r.n_nodes = nodes.count;
	r.nodes = nodes.list;
	r.n_moves = nodes.move_count;
	r.moves = nodes.moves;
	r.map = (ProtobufCBinaryData){pd->size != 0 ? 0 : map_size, map};
	r.permit = make_permit(pd, ask->read_only);
	r.renew_ms = pd->lifetime_ms * 3 / 10;
	m.body_case = PAVE__V1__CONTROL__BODY_ATTACH_REPLY;
	m.attach_reply = &r;
	rpc_reply(rpc, id, &m);
	pave__v1__signed__free_unpacked(r.permit, NULL);
}

/* What a host that has so many bytes has not. */
static void make_growth(const struct fake_pd *pd, uint64_t bytes, Pave__V1__Growth *g,
			uint8_t map[RIG_CHUNKS_MAX * RIG_NODES])
{
	const uint32_t count = make_map(pd, map), from = chunk_count(bytes);
	uint8_t *rows = map + from * RIG_NODES;

	g->size = pd->bytes;
	g->from = from;
	g->map = (ProtobufCBinaryData){count - from * RIG_NODES, rows};
	switch (pd->growth_lies) {
	case 1:
		g->size++;
		break;
	case 2:
		g->size = UINT64_MAX / BLOCK_SIZE * BLOCK_SIZE;
		break;
	case 3:
		g->from++;
		break;
	case 4:
		g->map.len--;
		break;
	case 5:
		rows[g->map.len - 1] = RIG_ALL_NODES;
		break;
	case 6:
		rows[g->map.len - 1] = rows[g->map.len - 2];
		break;
	}
}

static void answer_renew(struct fake_pd *pd, struct rpc *rpc, uint64_t id,
			 const Pave__V1__Renew *ask)
{
	Pave__V1__Control m = PAVE__V1__CONTROL__INIT;
	Pave__V1__RenewReply r = PAVE__V1__RENEW_REPLY__INIT;
	Pave__V1__Growth growth = PAVE__V1__GROWTH__INIT;
	uint8_t map[RIG_CHUNKS_MAX * RIG_NODES];
	struct map_nodes nodes;

	pd->renews++;
	pd->moving_reported = (uint32_t)ask->n_moving;
	pd->size_reported = ask->size;
	for (size_t i = 0; i < ask->n_replicas && i < RIG_NODES; i++)
		snprintf(pd->states[i], sizeof(pd->states[i]), "%s", ask->replicas[i]->state);
	if (pd->silent)
		return;
	if (ask->generation != pd->generation) {
		rpc_fail(rpc, id, -E_FENCED, "a newer attachment has it");
		return;
	}
	if (pd->refuse != 0) {
		rpc_fail(rpc, id, pd->refuse, "as the test wants it");
		return;
	}
	make_nodes(pd, &nodes);
	r.n_nodes = nodes.count;
	r.nodes = nodes.list;
	r.n_moves = nodes.move_count;
	r.moves = nodes.moves;
	r.min_acks = pd->min_acks;
	r.permit = make_permit(pd, false);
	if (ask->size != 0 && ask->size < pd->bytes) {
		make_growth(pd, ask->size, &growth, map);
		r.growth = &growth;
	}
	m.body_case = PAVE__V1__CONTROL__BODY_RENEW_REPLY;
	m.renew_reply = &r;
	rpc_reply(rpc, id, &m);
	pave__v1__signed__free_unpacked(r.permit, NULL);
}

/* Made once, answered as the test wants it. */
static void answer_commit(struct fake_pd *pd, struct rpc *rpc, uint64_t id,
			  const Pave__V1__MoveCommit *ask)
{
	Pave__V1__Control m = PAVE__V1__CONTROL__INIT;
	Pave__V1__Empty empty = PAVE__V1__EMPTY__INIT;

	pd->commits++;
	ck_assert_uint_eq(ask->chunk, pd->move_chunk);
	ck_assert_str_eq(ask->from, node_names[pd->move_from]);
	ck_assert_str_eq(ask->to, node_names[pd->move_to]);
	if (ask->generation != pd->generation) {
		rpc_fail(rpc, id, -E_FENCED, "a newer attachment has it");
		return;
	}
	if (pd->commit_status != 0) {
		rpc_fail(rpc, id, pd->commit_status, "as the test wants it");
		return;
	}
	pd->moved = true;
	if (pd->commit_silent)
		return;
	m.body_case = PAVE__V1__CONTROL__BODY_EMPTY;
	m.empty = &empty;
	rpc_reply(rpc, id, &m);
}

static void tell_detach(struct fake_pd *pd)
{
	Pave__V1__Control m = PAVE__V1__CONTROL__INIT;
	Pave__V1__DetachNotice notice = PAVE__V1__DETACH_NOTICE__INIT;

	notice.volume = RIG_VOLUME;
	m.body_case = PAVE__V1__CONTROL__BODY_DETACH_NOTICE;
	m.detach_notice = &notice;
	for (uint32_t i = 0; i < ARRAY_SIZE(pd->conns); i++)
		if (pd->in_use[i])
			rpc_notify(&pd->rpcs[i], &m);
}

static void answer_prepare(struct fake_pd *pd, struct rpc *rpc, uint64_t id)
{
	Pave__V1__Control m = PAVE__V1__CONTROL__INIT;
	Pave__V1__PrepareReply r = PAVE__V1__PREPARE_REPLY__INIT;
	struct map_nodes nodes;

	pd->prepares++;
	if (pd->prepare_status != 0) {
		rpc_fail(rpc, id, pd->prepare_status, "it is not for this host");
		return;
	}
	make_nodes(pd, &nodes);
	for (uint32_t i = 0; i < nodes.count; i++)
		if ((pd->nodes >> i & 1) != 0) /* in a permit */
			nodes.list[r.n_nodes++] = nodes.list[i];
	r.nodes = nodes.list;
	m.body_case = PAVE__V1__CONTROL__BODY_PREPARE_REPLY;
	m.prepare_reply = &r;
	rpc_reply(rpc, id, &m);
}

static void answer_release(struct fake_pd *pd)
{
	Pave__V1__Control m = PAVE__V1__CONTROL__INIT;
	Pave__V1__Empty empty = PAVE__V1__EMPTY__INIT;

	m.body_case = PAVE__V1__CONTROL__BODY_EMPTY;
	m.empty = &empty;
	if (pd->release_rpc != NULL)
		rpc_reply(pd->release_rpc, pd->release_id, &m);
	pd->release_rpc = NULL;
}

static void pd_handle(struct rpc *rpc, const struct rpc_request *request, void *arg)
{
	struct fake_pd *pd = arg;
	const Pave__V1__Control *ask = request->message;
	Pave__V1__Control m = PAVE__V1__CONTROL__INIT;
	Pave__V1__HelloReply hello = PAVE__V1__HELLO_REPLY__INIT;
	Pave__V1__Empty empty = PAVE__V1__EMPTY__INIT;

	switch (ask->body_case) {
	case PAVE__V1__CONTROL__BODY_HELLO:
		hello.version = FRAME_VERSION;
		hello.name = (char *)(uintptr_t) "pd";
		m.body_case = PAVE__V1__CONTROL__BODY_HELLO_REPLY;
		m.hello_reply = &hello;
		rpc_reply(rpc, request->request_id, &m);
		break;
	case PAVE__V1__CONTROL__BODY_ATTACH:
		answer_attach(pd, rpc, request->request_id, ask->attach);
		break;
	case PAVE__V1__CONTROL__BODY_RENEW:
		answer_renew(pd, rpc, request->request_id, ask->renew);
		break;
	case PAVE__V1__CONTROL__BODY_MOVE_COMMIT:
		answer_commit(pd, rpc, request->request_id, ask->move_commit);
		break;
	case PAVE__V1__CONTROL__BODY_DETACH:
		pd->detaches++;
		if (ask->detach->generation == pd->generation)
			pd->last_expiry = 0;
		m.body_case = PAVE__V1__CONTROL__BODY_EMPTY;
		m.empty = &empty;
		rpc_reply(rpc, request->request_id, &m);
		answer_release(pd);
		break;
	case PAVE__V1__CONTROL__BODY_PREPARE:
		answer_prepare(pd, rpc, request->request_id);
		break;
	case PAVE__V1__CONTROL__BODY_VOLUME_DETACH:
		pd->release_rpc = rpc;
		pd->release_id = request->request_id;
		tell_detach(pd);
		break;
	default:
		ck_abort_msg("the driver is asked something odd");
	}
}

static uint32_t pd_index(struct fake_pd *pd, const struct transport_conn *conn)
{
	for (uint32_t i = 0; i < ARRAY_SIZE(pd->conns); i++)
		if (pd->in_use[i] && pd->conns[i] == conn)
			return i;
	ck_abort_msg("no such connection");
}

static void *pd_rx_buffer(struct transport_conn *conn, const struct frame *f, void *arg)
{
	struct fake_pd *pd = arg;

	return rpc_rx_buffer(&pd->rpcs[pd_index(pd, conn)], f);
}

static void pd_rx(struct transport_conn *conn, const struct frame *f, void *arg)
{
	struct fake_pd *pd = arg;

	rpc_rx(&pd->rpcs[pd_index(pd, conn)], f);
}

static void pd_closed(struct transport_conn *conn, int reason, void *arg)
{
	struct fake_pd *pd = arg;
	const uint32_t i = pd_index(pd, conn);

	(void)reason;
	rpc_closed(&pd->rpcs[i]);
	pd->in_use[i] = false;
}

static const struct transport_handler pd_handler = {
    .rx_buffer = pd_rx_buffer, .rx = pd_rx, .closed = pd_closed};

static void pd_accepted(struct transport_conn *conn, void *arg)
{
	struct fake_pd *pd = arg;
	uint32_t i = 0;

	while (i < ARRAY_SIZE(pd->conns) && pd->in_use[i])
		i++;
	ck_assert_uint_lt(i, ARRAY_SIZE(pd->conns));
	pd->in_use[i] = true;
	pd->conns[i] = conn;
	conn->handler = &pd_handler;
	conn->arg = pd;
	rpc_init(&pd->rpcs[i], conn, pd_handle, pd);
}

void rig_permit(struct rig *rig, uint32_t nodes)
{
	Pave__V1__Control m = PAVE__V1__CONTROL__INIT;
	Pave__V1__PermitNotice notice = PAVE__V1__PERMIT_NOTICE__INIT;
	struct map_nodes map_nodes;

	rig->pd.nodes = nodes;
	make_nodes(&rig->pd, &map_nodes);
	notice.volume = RIG_VOLUME;
	notice.nodes = map_nodes.list;
	notice.n_nodes = map_nodes.count;
	notice.moves = map_nodes.moves;
	notice.n_moves = map_nodes.move_count;
	notice.permit = make_permit(&rig->pd, false);
	notice.size = rig->pd.bytes;
	m.body_case = PAVE__V1__CONTROL__BODY_PERMIT_NOTICE;
	m.permit_notice = &notice;
	for (uint32_t i = 0; i < ARRAY_SIZE(rig->pd.conns); i++)
		if (rig->pd.in_use[i])
			rpc_notify(&rig->pd.rpcs[i], &m);
	pave__v1__signed__free_unpacked(notice.permit, NULL);
}

void rig_grow(struct rig *rig, uint64_t bytes, bool notice)
{
	ck_assert_uint_le(chunk_count(bytes), RIG_CHUNKS_MAX);
	rig->pd.bytes = bytes;
	if (rig->pd.on_new_node)
		rig->pd.nodes |= 1u << RIG_NODES;
	if (notice)
		rig_permit(rig, rig->pd.nodes);
}

void rig_move(struct rig *rig, uint32_t chunk, uint32_t from, uint32_t to)
{
	rig->pd.moving = true;
	rig->pd.moved = false;
	rig->pd.move_chunk = chunk;
	rig->pd.move_from = from;
	rig->pd.move_to = to;
	rig_permit(rig, rig->pd.nodes | (1u << to));
}

void rig_move_drop(struct rig *rig)
{
	rig->pd.moving = false;
	rig_permit(rig, rig->pd.nodes);
}

void rig_notify_detach(struct rig *rig)
{
	tell_detach(&rig->pd);
}

/* -- the world --------------------------------------------------------------------------------- */

static void start_pd(struct rig *rig)
{
	struct fake_pd *pd = &rig->pd;
	struct error err;

	pd->process = sim_process_create(rig->world, "pd");
	sim_process_start(pd->process);
	pd->transport = sim_transport_create(pd->process);
	pd->nodes = (1u << RIG_NODES) - 1;
	pd->lifetime_ms = PERMIT_LIFETIME_MS;
	pd->shards = 1;
	pd->bytes = RIG_CHUNKS * RIG_CHUNK_SIZE;
	ck_assert_int_eq(
	    transport_listen(pd->transport, "pd", pd_accepted, pd, &pd->listener, &err), 0);
}

static void start_host(struct rig_host *h)
{
	struct error err;

	sim_process_start(h->process);
	h->transport = sim_transport_create(h->process);
	ck_assert_int_eq(trust_open(NULL, h->rig->root, strlen(h->rig->root), &h->trust, &err), 0);
}

struct rig *rig_create(uint64_t seed)
{
	struct rig *rig = calloc(1, sizeof(*rig));
	uint8_t key_seed[32] = {7};
	struct error err;

	ck_assert_ptr_nonnull(rig);
	rig->world = sim_world_create(seed);
	sim_world_take_log(rig->world);
	if (getenv("RIG_TRACE") != NULL)
		rig->world->trace_to = stderr;
	ck_assert_int_eq(demo_init(&rig->demo, key_seed, &err), 0);
	ck_assert_int_eq(demo_root(&rig->demo, 1, SIM_EPOCH_NS,
				   SIM_EPOCH_NS + (int64_t)(365 * 86400 * NS_PER_S), &rig->root,
				   &err),
			 0);
	start_pd(rig);
	for (uint32_t i = 0; i < RIG_ALL_NODES; i++) {
		struct fake_node *n = &rig->nodes[i];

		n->rig = rig;
		n->number = i;
		n->name = node_names[i];
		n->site = site_names[i];
		n->second_address = second_addresses[i];
		n->process = sim_process_create(rig->world, n->name);
		fake_start(n);
	}
	for (uint32_t i = 0; i < RIG_HOSTS; i++) {
		struct rig_host *h = &rig->hosts[i];

		h->rig = rig;
		h->name = host_names[i];
		h->process = sim_process_create(rig->world, h->name);
		start_host(h);
	}
	return rig;
}

static void free_node(struct fake_node *n)
{
	for (uint32_t c = 0; c < RIG_CHUNKS_MAX; c++)
		for (uint32_t b = 0; b < RIG_CHUNK_BLOCKS; b++)
			free(n->chunks[c].blocks[b].data);
}

void rig_destroy(struct rig *rig)
{
	for (uint32_t i = 0; i < RIG_HOSTS; i++) {
		struct rig_host *h = &rig->hosts[i];

		sim_process_crash(h->process, SIM_KILL);
		volume_abandon(h->volume);
		trust_close(h->trust);
	}
	for (uint32_t i = 0; i < RIG_ALL_NODES; i++)
		fake_crash(&rig->nodes[i]);
	sim_world_destroy(rig->world);
	for (uint32_t i = 0; i < RIG_ALL_NODES; i++)
		free_node(&rig->nodes[i]);
	demo_deinit(&rig->demo);
	free(rig->root);
	free(rig);
}

void rig_run_ms(struct rig *rig, uint64_t ms)
{
	sim_run_for(rig->world, ms * NS_PER_MS);
}

bool rig_wait(struct rig *rig, const bool *flag, uint64_t ms)
{
	for (uint64_t i = 0; i < ms && !*flag; i++)
		sim_run_for(rig->world, NS_PER_MS);
	return *flag;
}

/* -- hosts ------------------------------------------------------------------------------------- */

static void open_done(struct volume_open_op *op, int status, struct volume *v,
		      const struct error *err)
{
	struct rig_host *h = container_of(op, struct rig_host, open);

	h->opened = true;
	h->open_status = status;
	h->volume = v;
	if (err != NULL)
		h->open_error = *err;
}

static void host_ended(int why, void *arg)
{
	struct rig_host *h = arg;

	h->ended = true;
	h->ended_why = why;
}

static void host_prepared(void *arg)
{
	struct rig_host *h = arg;

	ck_assert(!h->prepared);
	h->prepared = true;
}

void rig_open_start(struct rig_host *h)
{
	h->opened = h->ended = h->closed = h->prepared = false;
	h->open = (struct volume_open_op){
	    .done = open_done,
	    .config =
		{
		    .reactor = sim_reactor(h->process),
		    .transport = h->transport,
		    .trust = h->trust,
		    .pd_address = "pd",
		    .name = "data",
		    .holder = h->name,
		    .holder_site = "par",
		    .endpoint = "test",
		    .read_only = h->read_only,
		    .prepared = h->migrates ? host_prepared : NULL,
		    .ended = host_ended,
		    .arg = h,
		},
	};
	volume_open(&h->open);
}

void rig_open(struct rig_host *h)
{
	rig_open_start(h);
	ck_assert(rig_wait(h->rig, &h->opened, 30000));
	ck_assert_msg(h->open_status == 0, "open: %s", h->open_error.text);
}

static void close_done(void *arg)
{
	struct rig_host *h = arg;

	h->closed = true;
	h->volume = NULL;
}

void rig_close(struct rig_host *h)
{
	volume_close(h->volume, close_done, h);
	ck_assert(rig_wait(h->rig, &h->closed, 30000));
}

void rig_crash_host(struct rig_host *h)
{
	sim_process_crash(h->process, SIM_KILL);
	volume_abandon(h->volume);
	h->volume = NULL;
	trust_close(h->trust);
	start_host(h);
}

/* -- operations -------------------------------------------------------------------------------- */

static void fill(uint8_t *data, uint64_t block, uint32_t stamp)
{
	uint32_t words[BLOCK_SIZE / 4];

	for (uint32_t i = 0; i < ARRAY_SIZE(words); i++)
		words[i] = stamp == 0 ? 0 : i == 0 ? stamp : stamp ^ ((uint32_t)block << 12) ^ i;
	memcpy(data, words, sizeof(words));
}

/* The stamp of a block's content; the content must be whole. */
static uint32_t stamp_in(const uint8_t *data, uint64_t block)
{
	uint8_t whole[BLOCK_SIZE];
	uint32_t stamp;

	memcpy(&stamp, data, 4);
	fill(whole, block, stamp);
	ck_assert_msg(memcmp(whole, data, BLOCK_SIZE) == 0, "block %lu is not whole",
		      (unsigned long)block);
	return stamp;
}

static void op_done(struct volume_op *op, int status)
{
	struct rig_op *o = container_of(op, struct rig_op, op);

	ck_assert(!o->done);
	o->done = true;
	o->status = status;
}

static void start(struct rig_host *h, struct rig_op *o, enum volume_op_kind kind, uint64_t block,
		  uint32_t count)
{
	o->host = h;
	o->op = (struct volume_op){
	    .done = op_done,
	    .kind = kind,
	    .offset = block * BLOCK_SIZE,
	    .size = count * BLOCK_SIZE,
	    .buffer = o->buffer,
	};
	volume_submit(h->volume, &o->op);
	ck_assert(!o->done);
}

void rig_start_write(struct rig_host *h, struct rig_op *o, uint64_t block, uint32_t count,
		     uint32_t stamp)
{
	*o = (struct rig_op){.buffer = volume_buffer_get(h->volume, count * BLOCK_SIZE)};
	ck_assert_ptr_nonnull(o->buffer);
	for (uint32_t i = 0; i < count; i++)
		fill(o->buffer->data + (size_t)i * BLOCK_SIZE, block + i, stamp);
	start(h, o, VOLUME_WRITE, block, count);
}

void rig_start_zero(struct rig_host *h, struct rig_op *o, uint64_t block, uint32_t count,
		    bool discard)
{
	*o = (struct rig_op){0};
	start(h, o, discard ? VOLUME_DISCARD : VOLUME_ZERO, block, count);
}

void rig_start_read(struct rig_host *h, struct rig_op *o, uint64_t block, uint32_t count)
{
	*o = (struct rig_op){.buffer = volume_buffer_get(h->volume, count * BLOCK_SIZE)};
	ck_assert_ptr_nonnull(o->buffer);
	memset(o->buffer->data, 0xee, (size_t)count * BLOCK_SIZE);
	start(h, o, VOLUME_READ, block, count);
}

uint32_t rig_stamp_of(const struct rig_op *o, uint32_t i)
{
	return stamp_in(o->buffer->data + (size_t)i * BLOCK_SIZE, o->op.offset / BLOCK_SIZE + i);
}

int rig_finish(struct rig_op *o)
{
	ck_assert_msg(rig_wait(o->host->rig, &o->done, 60000), "the operation never ended");
	if (o->buffer != NULL)
		volume_buffer_put(o->host->volume, o->buffer);
	o->buffer = NULL;
	return o->status;
}

int rig_write(struct rig_host *h, uint64_t block, uint32_t count, uint32_t stamp)
{
	struct rig_op o;

	rig_start_write(h, &o, block, count, stamp);
	return rig_finish(&o);
}

int rig_read(struct rig_host *h, uint64_t block, uint32_t count, uint32_t *ret_stamp)
{
	struct rig_op o;

	rig_start_read(h, &o, block, count);
	ck_assert(rig_wait(h->rig, &o.done, 60000));
	if (o.status == 0) {
		*ret_stamp = rig_stamp_of(&o, 0);
		for (uint32_t i = 1; i < count; i++)
			ck_assert_uint_eq(rig_stamp_of(&o, i), *ret_stamp);
	}
	return rig_finish(&o);
}

void rig_must_read(struct rig_host *h, uint64_t block, uint32_t count, uint32_t stamp)
{
	uint32_t got = 0;

	ck_assert_int_eq(rig_read(h, block, count, &got), 0);
	ck_assert_uint_eq(got, stamp);
}

struct volume_stats rig_stats(struct rig_host *h)
{
	struct volume_stats s;

	volume_get_stats(h->volume, &s);
	return s;
}

/* -- what the nodes hold ----------------------------------------------------------------------- */

static const struct fake_block *block_at(const struct fake_node *n, uint64_t block)
{
	return &n->chunks[block / RIG_CHUNK_BLOCKS].blocks[block % RIG_CHUNK_BLOCKS];
}

uint32_t fake_stamp(const struct fake_node *n, uint64_t block)
{
	const struct fake_block *b = block_at(n, block);

	return b->data == NULL ? 0 : stamp_in(b->data, block);
}

version_t fake_version(const struct fake_node *n, uint64_t block)
{
	return block_at(n, block)->version;
}

void fake_put(struct fake_node *n, uint64_t block, version_t version, uint32_t stamp)
{
	struct fake_block *b =
	    &n->chunks[block / RIG_CHUNK_BLOCKS].blocks[block % RIG_CHUNK_BLOCKS];

	b->version = version;
	if (b->data == NULL)
		b->data = malloc(BLOCK_SIZE);
	ck_assert_ptr_nonnull(b->data);
	fill(b->data, block, stamp);
}

static bool is_same(const struct fake_block *a, const struct fake_block *b)
{
	static const uint8_t zeroes[BLOCK_SIZE];

	return memcmp(a->data != NULL ? a->data : zeroes, b->data != NULL ? b->data : zeroes,
		      BLOCK_SIZE) == 0;
}

void rig_must_agree(struct rig *rig)
{
	for (uint64_t b = 0; b < RIG_CHUNKS_MAX * RIG_CHUNK_BLOCKS; b++)
		for (uint32_t i = 1; i < RIG_NODES; i++) {
			const struct fake_node *n = &rig->nodes[i], *first = &rig->nodes[0];

			if (is_same(block_at(n, b), block_at(first, b)))
				continue;
			ck_abort_msg("block %lu: %s holds version %lx (%u), %s holds %lx (%u)",
				     (unsigned long)b, first->name,
				     (unsigned long)fake_version(first, b),
				     n->any_content ? 0 : fake_stamp(first, b), n->name,
				     (unsigned long)fake_version(n, b),
				     n->any_content ? 0 : fake_stamp(n, b));
		}
}
