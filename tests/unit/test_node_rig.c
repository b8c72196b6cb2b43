/* See test_node_rig.h. */
#include "tests/unit/test_node_rig.h"

#include <check.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const names[RIG_NODES] = {"n1", "n2"};
static const char *const sites[RIG_NODES] = {"par", "lyo"};

static bool rig_until(void *arg, const bool *flag)
{
	struct rig *rig = arg;

	return sim_run_flag(rig->world, flag);
}

void rig_run_ms(struct rig *rig, uint64_t ms)
{
	sim_run_for(rig->world, ms * NS_PER_MS);
}

/* -- a node ----------------------------------------------------------------------------------- */

static void node_opened(struct pool_open_op *op, int status, struct pool *pool,
			const struct error *err)
{
	struct rig_node *n = container_of(op, struct rig_node, open);

	ck_assert_msg(status == 0, "%s", err != NULL ? err->text : "");
	n->pool = pool;
	n->store = pool_store(pool, 0);
	n->opened = true;
}

static void node_changed(const struct node_lease_state *state, void *arg)
{
	struct rig_node *n = arg;

	n->state = *state;
	n->changes++;
	n->flag = true;
	node_shard_set_lease(n->shard, state);
}

static void node_stats_of(struct store_stats *ret_stats, void *arg)
{
	struct rig_node *n = arg;

	store_get_stats(n->store, ret_stats);
}

static void erase_answer(uint64_t token, const Pave__V1__Erase *what, void *arg)
{
	struct rig_node *n = arg;

	static const struct node_erasure done = {"overwrite", 2, 64 * MIB, 1500};

	node_lease_erased(n->lease, token, what->whole_volume ? 0 : -EIO, &done);
}

static void node_crashed(struct sim_process *p, enum sim_crash how)
{
	struct rig_node *n = p->app;

	(void)how;
	if (n->lease != NULL)
		node_lease_abandon(n->lease);
	if (n->shard != NULL)
		node_shard_abandon(n->shard);
	pool_abandon(n->pool);
	n->lease = NULL;
	n->shard = NULL;
	n->pool = NULL;
	n->store = NULL;
}

static void node_open_store(struct rig_node *n)
{
	struct rig *rig = n->rig;
	struct reactor *r = sim_reactor(n->process);
	struct store_identity identity = {.cluster = rig->demo.cluster, .shard_count = 1};

	snprintf(identity.node, sizeof(identity.node), "%s", n->name);
	n->disk = sim_disk_open(n->sim_disk);
	n->kv = sim_kv_open(n->sim_kv);
	n->opened = false;
	n->open = (struct pool_open_op){
	    .done = node_opened,
	    .config = {.reactor = r,
		       .kv = n->kv,
		       .identity = identity,
		       .segment_bytes = 4u << 20,
		       .cache_bytes = MIB},
	    .disks = {{.disk = n->disk, .path = "disk"}},
	    .disk_count = 1,
	};
	pool_open(&n->open);
	ck_assert(sim_run_flag(rig->world, &n->opened));
}

void rig_node_start(struct rig_node *n)
{
	struct rig *rig = n->rig;
	struct reactor *r = sim_reactor(n->process);
	struct node_shard_config shard = {
	    .reactor = r, .listen_address = n->name, .resync_rate = rig->resync_rate};
	struct node_lease_config lease = {
	    .reactor = r,
	    .pd_address = "pd",
	    .shard_addresses = &n->name,
	    .shard_count = 1,
	    .changed = node_changed,
	    .stats = node_stats_of,
	    .erase = erase_answer,
	    .proof = &n->proof,
	    .arg = n,
	};
	const uint32_t index = (uint32_t)(n - rig->nodes);
	struct error err = {0};

	n->state = (struct node_lease_state){.why = -E_NO_LEASE};
	sim_process_start(n->process);
	n->transport = sim_transport_create(n->process);
	if (n->trust == NULL)
		ck_assert_int_eq(trust_open(NULL, rig->root, strlen(rig->root), &n->trust, &err),
				 0);
	node_open_store(n);
	shard.transport = n->transport;
	shard.pool = n->pool;
	shard.trust = n->trust;
	shard.identity.cluster = rig->demo.cluster;
	snprintf(shard.identity.name, sizeof(shard.identity.name), "%s", n->name);
	snprintf(shard.identity.site, sizeof(shard.identity.site), "%s", n->site);
	ck_assert_msg(node_shard_start(&shard, &n->shard, &err) == 0, "%s", err.text);
	lease.transport = n->transport;
	lease.trust = n->trust;
	lease.identity = shard.identity;
	lease.site_certificate = rig->site_envelopes[index];
	lease.site_certificate_size = strlen(rig->site_envelopes[index]);
	ck_assert_msg(node_lease_start(&lease, &n->lease, &err) == 0, "%s", err.text);
}

void rig_node_crash(struct rig_node *n, enum sim_crash how)
{
	sim_process_crash(n->process, how);
}

void rig_wait_lease(struct rig_node *n, bool open)
{
	for (uint32_t i = 0; i < 1000 && (n->state.deadline_ns != 0) != open; i++) {
		n->flag = false;
		ck_assert(sim_run_flag(n->rig->world, &n->flag));
	}
	ck_assert((n->state.deadline_ns != 0) == open);
}

/* -- all -------------------------------------------------------------------------------------- */

char *rig_revocations(struct rig *rig, uint64_t version, const char *site, int64_t from)
{
	const int64_t now = reactor_wall_ns(sim_reactor(rig->pd_process));
	struct demo_entry entries[RIG_NODES];
	char *envelope = NULL;
	struct error err;

	for (uint32_t i = 0; i < RIG_NODES; i++)
		entries[i] = (struct demo_entry){
		    .site = sites[i],
		    .version = 1,
		    .withdrawn_from = site != NULL && strcmp(site, sites[i]) == 0 ? from : 0};
	ck_assert_int_eq(demo_revocations(&rig->demo, version, now - (int64_t)NS_PER_S,
					  now + 86400 * (int64_t)NS_PER_S, entries, RIG_NODES,
					  &envelope, &err),
			 0);
	return envelope;
}

static void rig_documents(struct rig *rig)
{
	const uint8_t seed[32] = {1, 2, 3};
	const int64_t day = 86400 * (int64_t)NS_PER_S;
	const int64_t now = reactor_wall_ns(sim_reactor(rig->pd_process));
	struct error err;

	ck_assert_int_eq(demo_init(&rig->demo, seed, &err), 0);
	ck_assert_int_eq(demo_root(&rig->demo, 1, now - day, now + 365 * day, &rig->root, &err), 0);
	for (uint32_t i = 0; i < RIG_NODES; i++)
		ck_assert_int_eq(demo_site(&rig->demo, sites[i], 1, now - day, now + 30 * day,
					   &rig->site_envelopes[i], &err),
				 0);
	rig->revocations = rig_revocations(rig, 1, NULL, 0);
}

struct rig *rig_create(uint64_t seed)
{
	const int64_t day = 86400 * (int64_t)NS_PER_S;
	struct rig *rig = calloc(1, sizeof(*rig));
	struct error err;
	int64_t now;

	rig->world = sim_world_create(seed);
	sim_world_take_log(rig->world);
	rig->wait = (struct peers_wait){rig_until, rig};
	rig->pd_process = sim_process_create(rig->world, "pd");
	rig->host_process = sim_process_create(rig->world, "host");
	sim_process_start(rig->pd_process);
	sim_process_start(rig->host_process);
	rig->pd_transport = sim_transport_create(rig->pd_process);
	rig->host_transport = sim_transport_create(rig->host_process);
	rig_documents(rig);
	now = reactor_wall_ns(sim_reactor(rig->pd_process));
	peer_pd_start(&rig->pd, sim_reactor(rig->pd_process), rig->pd_transport, "", &rig->demo);
	rig->pd.revocations = rig->revocations;
	for (uint32_t i = 0; i < RIG_NODES; i++) {
		struct rig_node *n = &rig->nodes[i];

		n->rig = rig;
		n->name = names[i];
		n->site = sites[i];
		ck_assert_int_eq(demo_identity(&rig->demo, sites[i], names[i], now - day, now + day,
					       &n->proof, &err),
				 0);
		n->process = sim_process_create(rig->world, names[i]);
		n->process->app = n;
		n->process->on_crash = node_crashed;
		n->sim_disk = sim_disk_create(n->process, names[i], RIG_DISK_SIZE, true);
		n->sim_kv = sim_kv_create(n->process, names[i], STORE_KV_FAMILIES);
		rig_node_start(n);
	}
	for (uint32_t i = 0; i < RIG_NODES; i++)
		rig_wait_lease(&rig->nodes[i], true);
	return rig;
}

static void set_flag(void *arg)
{
	*(bool *)arg = true;
}

static void node_stop(struct rig_node *n)
{
	bool done = false;

	if (!n->process->alive)
		return;
	node_lease_stop(n->lease, set_flag, &done);
	ck_assert(sim_run_flag(n->rig->world, &done));
	done = false;
	node_shard_stop(n->shard, set_flag, &done);
	ck_assert(sim_run_flag(n->rig->world, &done));
	done = false;
	pool_close(n->pool, set_flag, &done);
	ck_assert(sim_run_flag(n->rig->world, &done));
	n->lease = NULL;
	n->shard = NULL;
	n->pool = NULL;
	n->store = NULL;
}

void rig_destroy(struct rig *rig)
{
	peer_pd_stop(&rig->pd);
	for (uint32_t i = 0; i < RIG_NODES; i++) {
		node_stop(&rig->nodes[i]);
		trust_close(rig->nodes[i].trust);
		identity_deinit(&rig->nodes[i].proof);
		free(rig->site_envelopes[i]);
	}
	sim_world_destroy(rig->world);
	demo_deinit(&rig->demo);
	free(rig->root);
	free(rig->revocations);
	free(rig);
}

/* -- hosts ------------------------------------------------------------------------------------ */

void rig_host(struct rig *rig, struct peer_host *h, uint32_t node)
{
	peer_host_init(h, sim_reactor(rig->host_process), rig->host_transport, rig->wait,
		       &rig->demo);
	ck_assert_int_eq(peer_host_connect(h, rig->nodes[node].name), 0);
	ck_assert_int_eq(peer_host_hello(h, "host", "host"), 0);
}

struct peer_permit rig_permit(struct rig *rig, generation_t generation, uint64_t serial)
{
	return (struct peer_permit){
	    .demo = &rig->demo,
	    .volume = RIG_VOLUME,
	    .generation = generation,
	    .serial = serial,
	    .map_version = 1,
	    .nodes = {names[0], names[1]},
	    .sites = {sites[0], sites[1]},
	    .site_version = 1,
	    .issued_at = reactor_wall_ns(sim_reactor(rig->pd_process)),
	    .lifetime_ms = PERMIT_LIFETIME_MS,
	};
}

int rig_try_open(struct peer_host *h, const struct peer_permit *p)
{
	Pave__V1__Signed *s = peer_permit_make(p);
	const int rc = peer_host_open(h, s, RIG_CHUNK_SIZE);

	peer_permit_free(s);
	return rc;
}

int rig_update(struct peer_host *h, const struct peer_permit *p)
{
	Pave__V1__Signed *s = peer_permit_make(p);
	const int rc = peer_host_update(h, s);

	peer_permit_free(s);
	return rc;
}

void rig_open(struct rig *rig, struct peer_host *h, uint32_t node, generation_t generation)
{
	struct peer_permit p;

	rig_host(rig, h, node);
	p = rig_permit(rig, generation, 1);
	ck_assert_msg(rig_try_open(h, &p) == 0, "%s", h->call_text);
}

uint32_t rig_chunks_held(struct rig_node *n)
{
	struct store_chunk_state states[64];

	return store_chunks(n->store, RIG_VOLUME, 0, states, 64);
}
