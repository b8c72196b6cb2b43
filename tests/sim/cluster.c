/* cluster: see cluster.h. Here: the machines, and the beginning and end of the whole. The
 * administrator is in admin.c, the checks of what goes over the wire in watch.c. */
#include "tests/sim/cluster.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/assert.h"
#include "engine/volume/core.h"
#include "tests/sim/admin.h"
#include "tests/sim/bays.h"
#include "tests/sim/checks.h"
#include "tests/sim/guest.h"
#include "tests/sim/maintainer.h"
#include "tests/sim/mutants.h"
#include "tests/sim/pds.h"
#include "tests/sim/stranger.h"
#include "tests/sim/watch.h"
#include "tools/pave-node/erase.h"
#include "tools/pave-node/layer_work.h"

#define LEASE_PATIENCE_NS (60 * NS_PER_S)
/* More attachments in the same time; nodes renew their leases each PERMIT_RENEW_MS. */
#define PERMIT_LIFETIME_SHORT_MS 5000u
#define DOWN_SHORT_NS		 (200 * NS_PER_MS)
#define DOWN_MAX_NS		 (4 * NS_PER_S)

static const char *const site_names[CLUSTER_NODES] = {"par", "lyo", "rbx", "mrs"};

void cluster_fail(struct cluster *c, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	if (!c->failed)
		vsnprintf(c->failure, sizeof(c->failure), fmt, ap);
	va_end(ap);
	if (!c->failed)
		sim_trace(c->world, c->world->now, "FAILED: %s", c->failure);
	c->failed = true;
}

static void violated(const char *text, void *arg)
{
	cluster_fail(arg, "%s", text);
}

/* -- the node -------------------------------------------------------------------------------- */

static void lease_changed(const struct node_lease_state *state, void *arg)
{
	struct machine *m = arg;

	sim_trace(m->cluster->world, m->process, "lease: %s",
		  state->deadline_ns != 0 ? "held" : err_name(state->why));
	node_shard_set_lease(m->node.shard, state);
}

static void receipt_made(const struct node_receipt *receipt, void *arg)
{
	struct machine *m = arg;

	if (m->node.lease != NULL)
		node_lease_receipt(m->node.lease, receipt);
}

static void lease_stats(struct store_stats *ret_stats, void *arg)
{
	pool_get_stats(((struct machine *)arg)->node.pool, ret_stats);
}

static void lease_erase(uint64_t token, const Pave__V1__Erase *what, void *arg)
{
	eraser_add(((struct machine *)arg)->node.eraser, token, what);
}

static void erased(uint64_t token, int status, const struct node_erasure *done, void *arg)
{
	struct machine *m = arg;

	if (m->node.lease != NULL)
		node_lease_erased(m->node.lease, token, status, done);
}

static void lease_layers(uint64_t token, const Pave__V1__Control *what, void *arg)
{
	layer_work_add(((struct machine *)arg)->node.layer_work, token, what);
}

static void lease_answer(uint64_t token, int status, const char *text,
			 const Pave__V1__Control *message, void *arg)
{
	struct machine *m = arg;

	if (m->node.lease != NULL)
		node_lease_answer(m->node.lease, token, status, text, message);
}

static void lease_trouble(char *buf, size_t size, void *arg)
{
	struct machine *m = arg;

	pool_trouble(m->node.pool, buf, size);
}

static uint32_t lease_damage(struct store_damage *ret_damage, uint32_t max, void *arg)
{
	const struct machine *m = arg;

	return pool_damage(m->node.pool, ret_damage, max);
}

static void lease_maintain(const char *volume, void *arg)
{
	maintainer_begin(((struct machine *)arg)->maintainer, volume);
}

static void fill_identity(const struct machine *m, struct node_identity *ret_identity)
{
	memset(ret_identity, 0, sizeof(*ret_identity));
	ret_identity->cluster = m->cluster->demo.cluster;
	snprintf(ret_identity->name, sizeof(ret_identity->name), "%s", m->process->name);
	snprintf(ret_identity->site, sizeof(ret_identity->site), "%s", m->site);
}

static void fill_store_identity(const struct machine *m, struct store_identity *ret_identity)
{
	memset(ret_identity, 0, sizeof(*ret_identity));
	ret_identity->cluster = m->cluster->demo.cluster;
	snprintf(ret_identity->node, sizeof(ret_identity->node), "%s", m->process->name);
	ret_identity->shard_count = 1;
}

static bool may_store(void *arg)
{
	const struct machine *m = arg;

	return m->node.lease != NULL && node_lease_is_held(m->node.lease);
}

static int start_serving(struct machine *m, struct error *err)
{
	struct node_shard_config shard = {.reactor = sim_reactor(m->process),
					  .transport = m->transport,
					  .pool = m->node.pool,
					  .trust = m->trust,
					  .listen_address = "",
					  .receipt = receipt_made,
					  .arg = m};
	struct node_lease_config lease = {.reactor = sim_reactor(m->process),
					  .transport = m->transport,
					  .trust = m->trust,
					  .pd_address = m->cluster->pd_addresses,
					  .shard_addresses = m->node.addresses,
					  .shard_count = 1,
					  .changed = lease_changed,
					  .stats = lease_stats,
					  .damage = lease_damage,
					  .trouble = lease_trouble,
					  .erase = lease_erase,
					  .layers = lease_layers,
					  .maintain = lease_maintain,
					  .proof = &m->proof,
					  .arg = m};
	const struct layer_work_config work = {.reactor = sim_reactor(m->process),
					       .pool = m->node.pool,
					       .may_store = may_store,
					       .answer = lease_answer,
					       .arg = m};
	int rc;

	fill_identity(m, &shard.identity);
	fill_identity(m, &lease.identity);
	rc = layer_work_start(&work, &m->node.layer_work);
	if (rc == 0)
		rc = eraser_start(sim_reactor(m->process), m->node.pool, &m->node.shard,
				  m->node.layer_work, erased, m, &m->node.eraser);
	if (rc != 0)
		return rc;
	rc = node_shard_start(&shard, &m->node.shard, err);
	if (rc != 0)
		return rc;
	snprintf(m->node.address, sizeof(m->node.address), "%s", node_shard_address(m->node.shard));
	m->node.addresses[0] = m->node.address;
	return node_lease_start(&lease, &m->node.lease, err);
}

/* A process that cannot start ends, and is started again. */
static void give_up(struct machine *m, const char *what, int status, const struct error *err)
{
	sim_trace(m->cluster->world, m->process, "%s: %s: %s", what, err_name(status),
		  err != NULL ? err->text : "");
	sim_process_crash(m->process, SIM_KILL);
}

static void pool_opened(struct pool_open_op *op, int status, struct pool *pool,
			const struct error *err)
{
	struct machine *m = container_of(op, struct machine, node.open);
	struct error start_err = {0};

	if (status == 0) {
		m->node.pool = pool;
		status = start_serving(m, &start_err);
		err = &start_err;
	}
	if (status == 0) {
		bays_check_opened(m->bays);
		stranger_node_serves(m->stranger);
		return;
	}
	/* The disks here may fail on demand, but what they hold must always open. */
	if (status != -EIO)
		cluster_fail(m->cluster, "I3: %s cannot start on its disk: %s: %s",
			     m->process->name, err_name(status), err != NULL ? err->text : "");
	give_up(m, "cannot start", status, err);
}

/* In no world does a node's index fit into memory: a few pages, some dozens, a few hundred. */
static uint64_t cache_bytes(const struct machine *m)
{
	static const uint64_t sizes[] = {8 * KIB, 16 * KIB, 64 * KIB};

	return sizes[m->cluster->world->seed % ARRAY_SIZE(sizes)];
}

static void boot_node(struct machine *m)
{
	struct pool_open_op *op = &m->node.open;

	m->transport = sim_transport_create(m->process);
	memset(op, 0, sizeof(*op));
	op->done = pool_opened;
	op->config =
	    (struct pool_config){.reactor = sim_reactor(m->process),
				 .kv = sim_kv_open(m->kv),
				 /* Some with groups that overlap as much as they can. */
				 .group_fill_blocks = (uint32_t)(m - m->cluster->machines) % 2,
				 .checkpoint_bytes = 4u << 20,
				 .cache_bytes = cache_bytes(m),
				 .scrub_period_s = 120,
				 .segment_bytes = CLUSTER_SEGMENT_SIZE};
	fill_store_identity(m, &op->config.identity);
	bays_boot(m->bays, op);
	pool_open(op);
}

static void node_crashed(struct machine *m)
{
	maintainer_crashed(m->maintainer);
	stranger_node_crashed(m->stranger);
	bays_node_crashed(m->bays);
	if (m->node.lease != NULL)
		node_lease_abandon(m->node.lease);
	if (m->node.shard != NULL)
		node_shard_abandon(m->node.shard);
	if (m->node.pool != NULL)
		pool_abandon(m->node.pool);
	else
		pool_abandon(m->node.open.impl);
	sim_abandon(m->node.eraser);
	m->node.eraser = NULL;
	layer_work_abandon(m->node.layer_work);
	m->node.layer_work = NULL;
	m->node.lease = NULL;
	m->node.shard = NULL;
	m->node.pool = NULL;
	m->node.open.impl = NULL;
}

/* -- every machine --------------------------------------------------------------------------- */

static struct machine *machine_of(struct sim_process *p)
{
	return p->app;
}

static void crashed(struct sim_process *p, enum sim_crash how)
{
	struct machine *m = machine_of(p);

	(void)how;
	switch (m->kind) {
	case MACHINE_PD:
		pds_crashed(m);
		break;
	case MACHINE_NODE:
		node_crashed(m);
		break;
	case MACHINE_HOST:
		guest_crashed(m->guest);
		break;
	case MACHINE_ADMIN:
		break;
	}
	m->transport = NULL;
	machine_boot_later(m, sim_random_below(p->world, sim_chance(p->world, 1, 2) ? DOWN_SHORT_NS
										    : DOWN_MAX_NS));
}

void machine_boot(struct machine *m)
{
	sim_process_start(m->process);
	switch (m->kind) {
	case MACHINE_PD:
		pds_boot(m);
		break;
	case MACHINE_NODE:
		boot_node(m);
		break;
	case MACHINE_HOST:
		m->transport = sim_transport_create(m->process);
		guest_boot(m->guest);
		break;
	case MACHINE_ADMIN:
		m->transport = sim_transport_create(m->process);
		admin_boot(m->cluster);
		break;
	}
}

static void boot_now(void *arg)
{
	struct machine *m = arg;

	m->boot_scheduled = false;
	if (!m->process->alive && !m->dead_for_ever)
		machine_boot(m);
}

void machine_boot_later(struct machine *m, uint64_t delay_ns)
{
	if (m->boot_scheduled)
		return;
	m->boot_scheduled = true;
	sim_schedule(m->cluster->world, NULL, delay_ns, boot_now, m);
}

static struct machine *add_machine(struct cluster *c, uint32_t i, enum machine_kind kind,
				   const char *name, const char *site)
{
	struct machine *m = &c->machines[i];
	struct error err = {0};

	m->cluster = c;
	m->kind = kind;
	m->site = site;
	m->process = sim_process_create(c->world, name);
	m->process->app = m;
	m->process->on_crash = crashed;
	m->process->wall_offset_ns =
	    (int64_t)sim_random_below(c->world, 400 * NS_PER_MS) - 200 * (int64_t)NS_PER_MS;
	if (trust_open(NULL, c->root, strlen(c->root), &m->trust, &err) != 0)
		cluster_fail(c, "trust of %s: %s", name, err.text);
	return m;
}

static void add_node(struct cluster *c, uint32_t i, uint32_t number)
{
	bool volatile_cache = sim_chance(c->world, 1, 2) || mutant_now() == MUTANT_NOT_DURABLE;
	char name[32];
	struct machine *m;
	struct error err = {0};

	snprintf(name, sizeof(name), "%s1", site_names[number]);
	m = add_machine(c, i, MACHINE_NODE, name, site_names[number]);
	m->bays = bays_create(m, volatile_cache);
	m->kv = sim_kv_create(m->process, "kv", STORE_KV_FAMILIES);
	if (demo_identity(&c->demo, m->site, name, SIM_EPOCH_NS - 86400 * (int64_t)NS_PER_S,
			  SIM_EPOCH_NS + 86400 * 365 * (int64_t)NS_PER_S, &m->proof, &err) != 0)
		cluster_fail(c, "node %s: %s", name, err.text);
	m->maintainer = maintainer_create(m);
	m->stranger = stranger_create(m);
	c->nodes[number] = m;
	c->sites[number] = (struct site_truth){.name = site_names[number],
					       .certificate_version = 1,
					       .withdrawn_from_ns = UINT64_MAX,
					       .certified_until_ns = CLUSTER_CERTIFICATE_NS};
}

/* -- the whole ------------------------------------------------------------------------------- */

static void make_machines(struct cluster *c)
{
	uint32_t i = 0;
	char name[32];

	pds_begin(c);
	for (uint32_t p = 0; p < c->pd_count; p++) {
		snprintf(name, sizeof(name), "pd%u", p);
		c->pds[p] = add_machine(c, i++, MACHINE_PD, c->pd_count > 1 ? name : "pd", "");
	}
	if (c->etcd == NULL)
		c->pds[0]->kv = sim_kv_create(c->pds[0]->process, "register", PD_KV_FAMILIES);
	for (uint32_t n = 0; n < c->node_count; n++)
		add_node(c, i++, n);
	for (uint32_t h = 0; h < CLUSTER_HOSTS; h++) {
		snprintf(name, sizeof(name), "host%u", h);
		c->hosts[h] = add_machine(c, i++, MACHINE_HOST, name, site_names[h]);
		c->hosts[h]->guest = guest_create(c->hosts[h], h);
	}
	c->admin_machine = add_machine(c, i++, MACHINE_ADMIN, "admin", "");
	c->machine_count = i;
}

static bool make_authority(struct cluster *c)
{
	struct error err = {0};
	uint8_t seed[32];

	for (size_t i = 0; i < sizeof(seed); i++)
		seed[i] = (uint8_t)sim_random(c->world);
	if (demo_init(&c->demo, seed, &err) != 0 ||
	    demo_root(&c->demo, 1, SIM_EPOCH_NS - 86400 * (int64_t)NS_PER_S,
		      SIM_EPOCH_NS + 86400 * 365 * (int64_t)NS_PER_S, &c->root, &err) != 0) {
		cluster_fail(c, "demo authority: %s", err.text);
		return false;
	}
	return true;
}

const struct volume *cluster_volume(const struct cluster *c)
{
	for (uint32_t h = 0; h < CLUSTER_HOSTS; h++)
		if (c->hosts[h]->guest->volume != NULL && c->hosts[h]->guest->shot == NULL)
			return c->hosts[h]->guest->volume;
	return NULL;
}

bool cluster_run(struct cluster *c, uint64_t for_ns, bool (*cond)(struct cluster *c))
{
	uint64_t deadline_ns = c->world->now_ns + for_ns;

	while (!c->failed && c->world->now_ns < deadline_ns) {
		if (cond != NULL && cond(c))
			return true;
		if (!sim_step(c->world))
			break;
		checks_step(c);
	}
	return cond == NULL && !c->failed;
}

static bool leases_held(struct cluster *c)
{
	for (uint32_t n = 0; n < c->node_count; n++) {
		struct node_lease_stats stats;

		if (c->nodes[n]->node.lease == NULL)
			return false;
		node_lease_get_stats(c->nodes[n]->node.lease, &stats);
		if (stats.state.deadline_ns == 0)
			return false;
	}
	return true;
}

static void start(struct cluster *c)
{
	for (uint32_t p = 0; p < c->pd_count; p++)
		machine_boot(c->pds[p]);
	machine_boot(c->admin_machine);
	if (!admin_set_up_sites(c))
		return;
	for (uint32_t n = 0; n < c->node_count; n++)
		machine_boot(c->nodes[n]);
	if (!cluster_run(c, LEASE_PATIENCE_NS, leases_held)) {
		cluster_fail(c, "not every node got a lease within %llu s",
			     LEASE_PATIENCE_NS / NS_PER_S);
		return;
	}
	if (!admin_create_volume(c))
		return;
	for (uint32_t h = 0; h < CLUSTER_HOSTS; h++)
		machine_boot(c->hosts[h]);
}

bool cluster_create(uint64_t seed, FILE *trace_to, struct cluster **ret_cluster)
{
	struct cluster *c = calloc(1, sizeof(*c));

	INVARIANT(c != NULL);
	c->world = sim_world_create(seed);
	c->world->trace_to = trace_to;
	c->world->stops_unseen = mutant_now() == MUTANT_STOP_UNSEEN;
	c->node_count = seed % 2 == 0 ? 3 : CLUSTER_NODES;
	c->oracle = oracle_create(CLUSTER_BLOCKS, violated, c);
	c->permit_lifetime_ms =
	    sim_chance(c->world, 3, 4) ? PERMIT_LIFETIME_SHORT_MS : PERMIT_LIFETIME_MS;
	c->snapshot_life_ns = 43200 * (int64_t)NS_PER_S;
	*ret_cluster = c;
	sim_world_take_log(c->world);
	if (!make_authority(c))
		return false;
	make_machines(c);
	watch_begin(c);
	if (!c->failed)
		start(c);
	return !c->failed;
}

void cluster_destroy(struct cluster *c)
{
	if (c == NULL)
		return;
	sim_world_destroy(c->world);
	pds_end(c);
	for (uint32_t i = 0; i < c->machine_count; i++) {
		trust_close(c->machines[i].trust);
		identity_deinit(&c->machines[i].proof);
		maintainer_destroy(c->machines[i].maintainer);
		stranger_destroy(c->machines[i].stranger);
		bays_destroy(c->machines[i].bays);
		if (c->machines[i].kind == MACHINE_HOST)
			guest_destroy(c->machines[i].guest);
	}
	oracle_destroy(c->oracle);
	demo_deinit(&c->demo);
	free(c->admin.envelope);
	free(c->root);
	free(c);
}
