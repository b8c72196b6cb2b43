/* dev: the placement drivers of a development cluster, and the etcd under several of them. See
 * dev.h.
 *
 * The members of etcd know each other by their ports, which they keep; drivers may move to other
 * ports when theirs are taken. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "engine/base/text.h"
#include "engine/evidence/demo.h"
#include "tools/pave/dev.h"
#include "tools/pave/process.h"

#define PATH_SIZE 4400

/* The addresses of all, for those who are told them. */
static void join(struct dev_cluster *d)
{
	size_t n = 0;

	d->pd[0] = '\0';
	for (unsigned i = 0; i < d->pd_count; i++)
		n += (size_t)snprintf(d->pd + n, sizeof d->pd - n, "%s%s", i > 0 ? "," : "",
				      d->pds[i].address);
}

void dev_name_drivers(struct dev_cluster *d, unsigned pd_count, unsigned etcd_count)
{
	d->pd_count = pd_count;
	d->etcd_count = etcd_count;
	for (unsigned i = 0; i < pd_count; i++) {
		d->pds[i] = (struct dev_pd){.name = "pd"};
		if (i > 0)
			snprintf(d->pds[i].name, sizeof d->pds[i].name, "pd-%u", i + 1);
	}
	for (unsigned i = 0; i < etcd_count; i++) {
		d->etcds[i] = (struct dev_etcd){.address = ""};
		snprintf(d->etcds[i].name, sizeof d->etcds[i].name, "etcd-%u", i + 1);
	}
}

static bool take(char *dst, size_t size, const json_t *o, const char *name)
{
	const char *text = json_string_value(json_object_get(o, name));

	if (text == NULL || strlen(text) >= size)
		return false;
	memcpy(dst, text, strlen(text) + 1);
	return true;
}

bool dev_load_drivers(struct dev_cluster *d, const json_t *o)
{
	const json_t *pds = json_object_get(o, "pds"), *etcds = json_object_get(o, "etcd");
	const size_t pd_count = json_array_size(pds), etcd_count = json_array_size(etcds);
	bool ok = true;

	if (pd_count > DEV_PDS_MAX || etcd_count > DEV_ETCDS_MAX)
		return false;
	dev_name_drivers(d, pd_count > 0 ? (unsigned)pd_count : 1, (unsigned)etcd_count);
	if (pd_count == 0)
		return take(d->pds[0].address, sizeof d->pds[0].address, o, "pd");
	for (size_t i = 0; ok && i < pd_count; i++)
		ok = take(d->pds[i].address, sizeof d->pds[i].address, json_array_get(pds, i),
			  "address");
	for (size_t i = 0; ok && i < etcd_count; i++) {
		const json_t *e = json_array_get(etcds, i);

		ok = take(d->etcds[i].address, sizeof d->etcds[i].address, e, "address") &&
		     take(d->etcds[i].peer, sizeof d->etcds[i].peer, e, "peer");
	}
	return ok;
}

void dev_save_drivers(const struct dev_cluster *d, json_t *o)
{
	json_t *pds = json_array(), *etcds = json_array();

	for (unsigned i = 0; i < d->pd_count; i++)
		json_array_append_new(pds, json_pack("{s:s,s:s}", "name", d->pds[i].name, "address",
						     d->pds[i].address));
	for (unsigned i = 0; i < d->etcd_count; i++)
		json_array_append_new(etcds, json_pack("{s:s,s:s,s:s}", "name", d->etcds[i].name,
						       "address", d->etcds[i].address, "peer",
						       d->etcds[i].peer));
	json_object_set_new(o, "pds", pds);
	json_object_set_new(o, "etcd", etcds);
}

bool dev_is_pd(const struct dev_cluster *d, const char *name)
{
	for (unsigned i = 0; i < d->pd_count; i++)
		if (strcmp(d->pds[i].name, name) == 0)
			return true;
	return false;
}

bool dev_is_etcd(const struct dev_cluster *d, const char *name)
{
	for (unsigned i = 0; i < d->etcd_count; i++)
		if (strcmp(d->etcds[i].name, name) == 0)
			return true;
	return false;
}

/* -- processes -------------------------------------------------------------------------------- */

static int start_etcd(const struct dev_cluster *d, const struct dev_etcd *e, struct error *err)
{
	char dir[PATH_SIZE], client[ADDR_SIZE_MAX + 8], peer[ADDR_SIZE_MAX + 8];
	char members[DEV_ETCDS_MAX * (ADDR_SIZE_MAX + NAME_SIZE_MAX + 16)];
	size_t n = 0;
	const char *argv[] = {"etcd",	  "--name",
			      e->name,	  "--data-dir",
			      dir,	  "--listen-client-urls",
			      client,	  "--advertise-client-urls",
			      client,	  "--listen-peer-urls",
			      peer,	  "--initial-advertise-peer-urls",
			      peer,	  "--initial-cluster",
			      members,	  "--auto-compaction-mode",
			      "revision", "--auto-compaction-retention",
			      "10000",	  NULL};

	if (process_find(d->dir, e->name, NULL))
		return 0;
	snprintf(dir, sizeof dir, "%s/%s", d->dir, e->name);
	snprintf(client, sizeof client, "http://%s", e->address);
	snprintf(peer, sizeof peer, "http://%s", e->peer);
	for (unsigned i = 0; i < d->etcd_count; i++)
		n += (size_t)snprintf(members + n, sizeof members - n, "%s%s=http://%s",
				      i > 0 ? "," : "", d->etcds[i].name, d->etcds[i].peer);
	return process_spawn(d->dir, e->name, "etcd", (char *const *)(uintptr_t)argv, err);
}

static int start_pd(struct dev_cluster *d, struct dev_pd *p, struct error *err)
{
	char dir[PATH_SIZE], root[PATH_SIZE], key[PATH_SIZE], lifetime[32];
	char reg[sizeof "etcd://" + DEV_ETCDS_MAX * ADDR_SIZE_MAX] = "etcd://";
	size_t n = strlen(reg), listen_at = 10;
	const char *argv[20] = {"pave-pd", "--dir",	      dir, "--root",
				root,	   "--placement-key", key, "--permit-lifetime",
				lifetime,  "--listen"};

	/* It listens where it was told to, whatever cluster.json has come to know of it. */
	if (process_argument(d->dir, p->name, "--listen", p->address, sizeof p->address))
		return 0;
	snprintf(dir, sizeof dir, "%s/%s", d->dir, p->name);
	snprintf(root, sizeof root, "%s/evidence/root.dsse.json", d->dir);
	snprintf(key, sizeof key, "%s/authority/%s.pem", d->dir, DEMO_PLACEMENT);
	snprintf(lifetime, sizeof lifetime, "%llums", (unsigned long long)d->permit_lifetime_ms);
	if (d->etcd_count > 0) {
		for (unsigned i = 0; i < d->etcd_count; i++)
			n += (size_t)snprintf(reg + n, sizeof reg - n, "%s%s", i > 0 ? "," : "",
					      d->etcds[i].address);
		argv[11] = "--register";
		argv[12] = reg;
		argv[13] = "--name";
		argv[14] = p->name;
	}
	return dev_start(d->dir, p->name, "pave-pd", (char **)(uintptr_t)argv, listen_at,
			 p->address, err);
}

int dev_start_pds(struct dev_cluster *d, struct error *err)
{
	int rc = 0;

	for (unsigned i = 0; i < d->etcd_count; i++)
		if (d->etcds[i].address[0] == '\0') {
			dev_choose_address(d->etcds[i].address);
			dev_choose_address(d->etcds[i].peer);
		}
	if (d->etcd_count > 0)
		rc = dev_save(d, err); /* before anybody knows them */
	for (unsigned i = 0; rc == 0 && i < d->etcd_count; i++)
		rc = start_etcd(d, &d->etcds[i], err);
	for (unsigned i = 0; rc == 0 && i < d->pd_count; i++)
		rc = start_pd(d, &d->pds[i], err);
	join(d);
	return rc;
}
