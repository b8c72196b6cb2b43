/* pds: see pds.h. Two drivers' register is known here by its keys, as engine/kv/etcd_core.h has
 * them, and a driver in several.c by what the linker shows of it (--wrap). */
#include "tests/sim/pds.h"

#include <stdio.h>
#include <string.h>

#include "engine/base/assert.h"
#include "engine/base/text.h"
#include "engine/placement/driver.h"
#include "tools/pave-pd/several.h"

#define REPLACE_AFTER_S 20u
#define PREFIX_SIZE_MAX 64u
#define TWO_ONE_IN	7u
#define TWO_REST	3u
#define SPLIT_OPS	1u
#define PART_TAIL	3u /* behind a key: 00 and the number of the part */
#define PART_HEAD	3u /* in front of a value: the format, and how many parts there are */

/* One seed in so many. No seed of tests/sim/regressions that is older than this is one of them. */
bool pds_are_two(uint64_t seed)
{
	return seed % TWO_ONE_IN == TWO_REST;
}

void pds_begin(struct cluster *c)
{
	c->pd_count = 1;
	snprintf(c->pd_addresses, sizeof(c->pd_addresses), "pd");
	if (!pds_are_two(c->world->seed))
		return;
	c->pd_count = 2;
	snprintf(c->pd_addresses, sizeof(c->pd_addresses), "pd0,pd1");
	c->etcd = sim_etcd_create(c->world);
	/* In every second of them what takes more than one operation goes by the journal. */
	if (c->world->seed / TWO_ONE_IN % 2 == 1)
		sim_etcd_split(c->etcd, SPLIT_OPS);
}

void pds_end(struct cluster *c)
{
	sim_etcd_destroy(c->etcd);
}

/* -- life ------------------------------------------------------------------------------------ */

static void fill_config(struct machine *m, struct pd_config *ret)
{
	*ret = (struct pd_config){.reactor = sim_reactor(m->process),
				  .transport = m->transport,
				  .trust = m->trust,
				  .placement_key = demo_key(&m->cluster->demo, DEMO_PLACEMENT),
				  .permit_lifetime_ms = m->cluster->permit_lifetime_ms,
				  .replace_after_s = REPLACE_AFTER_S};
}

static int boot_alone(struct machine *m, struct error *err)
{
	struct pd_config config;
	struct pd *pd;

	fill_config(m, &config);
	config.kv = sim_kv_open(m->kv);
	config.listen_address = "";
	return pd_start(&config, &pd, err);
}

/* Leases are not the same everywhere: how long each counts stands in its key. */
static int boot_as_one_of_two(struct machine *m, struct error *err)
{
	const struct cluster *c = m->cluster;
	struct several_config config = {
	    .register_url = "etcd://127.0.0.1:1,127.0.0.1:2,127.0.0.1:3",
	    .listen_address = "",
	    .name = m->process->name,
	    .leader_ttl_s =
		m == c->pds[0] ? 0 : ETCD_TTL_MIN_S + (uint32_t)(c->world->seed / TWO_ONE_IN % 3),
	};

	m->process->workers_block = true;
	fill_config(m, &config.pd);
	return several_start(&config, &m->driver.several, err);
}

void pds_boot(struct machine *m)
{
	struct error err = {0};
	int rc;

	m->transport = sim_transport_create(m->process);
	rc = m->cluster->etcd != NULL ? boot_as_one_of_two(m, &err) : boot_alone(m, &err);
	if (rc == 0)
		return;
	cluster_fail(m->cluster, "the driver cannot start: %s: %s", err_name(rc), err.text);
	sim_process_crash(m->process, SIM_KILL);
}

void pds_crashed(struct machine *m)
{
	if (m->driver.pd != NULL && !m->driver.pd->stopping)
		pd_abandon(m->driver.pd);
	else
		sim_abandon(m->driver.pd);
	sim_abandon(m->driver.several);
	memset(&m->driver, 0, sizeof(m->driver));
}

static void stopped(void *arg)
{
	struct machine *m = arg;

	m->driver.several = NULL;
	m->driver.etcd = NULL;
	sim_process_crash(m->process, SIM_KILL);
}

static void stop_now(void *arg)
{
	struct machine *m = arg;

	if (m->driver.stopping)
		return;
	m->driver.stopping = true;
	several_stop(m->driver.several, stopped, m);
}

void pds_stop(struct machine *m)
{
	PRE(m->cluster->etcd != NULL);
	if (!m->process->alive)
		return;
	sim_trace(m->cluster->world, m->process, "is told to end");
	sim_schedule(m->cluster->world, m->process, 0, stop_now, m);
}

/* -- what runs, as the linker shows it ------------------------------------------------------- */

static struct machine *machine_of(const struct reactor *r)
{
	return sim_process_of(r)->app;
}

int __real_pd_start(const struct pd_config *config, struct pd **ret_pd, struct error *err);
int __wrap_pd_start(const struct pd_config *config, struct pd **ret_pd, struct error *err);
int __wrap_pd_start(const struct pd_config *config, struct pd **ret_pd, struct error *err)
{
	const int rc = __real_pd_start(config, ret_pd, err);

	if (rc == 0)
		machine_of(config->reactor)->driver.pd = *ret_pd;
	machine_of(config->reactor)->cluster->stats.elections += rc == 0;
	return rc;
}

static void pd_ended(void *arg)
{
	struct machine *m = arg;

	m->driver.pd = NULL;
	m->driver.ended(m->driver.ended_arg);
}

void __real_pd_stop(struct pd *pd, void (*done)(void *arg), void *arg);
void __wrap_pd_stop(struct pd *pd, void (*done)(void *arg), void *arg);
void __wrap_pd_stop(struct pd *pd, void (*done)(void *arg), void *arg)
{
	struct machine *m = machine_of(pd->reactor);

	m->driver.ended = done;
	m->driver.ended_arg = arg;
	__real_pd_stop(pd, pd_ended, m);
}

int __real_etcd_open(const struct etcd_config *config, struct etcd **ret_etcd, struct error *err);
int __wrap_etcd_open(const struct etcd_config *config, struct etcd **ret_etcd, struct error *err);
int __wrap_etcd_open(const struct etcd_config *config, struct etcd **ret_etcd, struct error *err)
{
	const int rc = __real_etcd_open(config, ret_etcd, err);

	if (rc == 0)
		machine_of(config->reactor)->driver.etcd = *ret_etcd;
	return rc;
}

/* -- who leads ------------------------------------------------------------------------------- */

static void prefix_of(const struct cluster *c, const char *what, char ret[PREFIX_SIZE_MAX])
{
	char id[40];

	snprintf(ret, PREFIX_SIZE_MAX, "/pave/%s/%s", text_uuid(&c->demo.cluster, id, sizeof(id)),
		 what);
}

/* In truth. */
static bool holds_key(const struct cluster *c, const struct machine *m)
{
	char key[PREFIX_SIZE_MAX], start[NAME_SIZE_MAX + 16];
	size_t size = 0;
	const void *value;

	prefix_of(c, "leader", key);
	snprintf(start, sizeof(start), "{\"name\":\"%s\"", m->process->name);
	value = sim_etcd_value(c->etcd, key, &size);
	return value != NULL && size >= strlen(start) && memcmp(value, start, strlen(start)) == 0;
}

struct machine *pds_leader(const struct cluster *c)
{
	for (uint32_t i = 0; i < c->pd_count; i++) {
		const struct pd *pd = c->pds[i]->driver.pd;

		if (pd != NULL && !pd->stopping && (c->etcd == NULL || holds_key(c, c->pds[i])))
			return c->pds[i];
	}
	return c->pds[0];
}

const struct pd *pds_leading(const struct cluster *c)
{
	const struct machine *m = pds_leader(c);

	return m->driver.pd != NULL && !m->driver.pd->stopping &&
		       (c->etcd == NULL || holds_key(c, m))
		   ? m->driver.pd
		   : NULL;
}

bool pds_one_leads(struct cluster *c)
{
	return pds_leading(c) != NULL;
}

void pds_step(struct cluster *c)
{
	for (uint32_t i = 0; c->etcd != NULL && i < c->pd_count; i++) {
		const struct machine *m = c->pds[i];

		if (m->process->alive && m->driver.pd != NULL && !m->driver.stopping &&
		    sim_etcd_may_issue(m->driver.etcd, m->process) && !holds_key(c, m))
			cluster_fail(c, "I4: %s may issue permits, and does not hold the key",
				     m->process->name);
	}
}

void pds_issued(struct cluster *c, const struct machine *from, const char *what)
{
	if (c->etcd != NULL && !holds_key(c, from))
		cluster_fail(c, "I4: %s sends a %s, and another driver may lead already",
			     from->process->name, what);
}

/* -- the register ---------------------------------------------------------------------------- */

struct visit {
	size_t prefix_size;
	void (*each)(const void *key, size_t key_size, const void *value, size_t value_size,
		     void *arg);
	void *arg;
};

static void visit_one(const void *key, size_t key_size, const void *value, size_t value_size,
		      void *arg)
{
	const struct visit *v = arg;
	const uint8_t *k = key, *b = value;

	/* What is asked for here is smaller than a part. */
	INVARIANT(key_size >= v->prefix_size + PART_TAIL && value_size >= PART_HEAD && b[1] == 1 &&
		  b[2] == 0);
	v->each(k + v->prefix_size, key_size - v->prefix_size - PART_TAIL, b + PART_HEAD,
		value_size - PART_HEAD, v->arg);
}

void pds_register_each(struct cluster *c, uint32_t family,
		       void (*each)(const void *key, size_t key_size, const void *value,
				    size_t value_size, void *arg),
		       void *arg)
{
	struct visit v = {.each = each, .arg = arg};
	char name[8], prefix[PREFIX_SIZE_MAX];

	if (c->etcd == NULL) {
		sim_kv_each(c->pds[0]->kv, family, each, arg);
		return;
	}
	snprintf(name, sizeof(name), "f%u/", family);
	prefix_of(c, name, prefix);
	v.prefix_size = strlen(prefix);
	sim_etcd_each(c->etcd, prefix, visit_one, &v);
}
