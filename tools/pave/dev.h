/* A development cluster under one directory D:
 *
 *   cluster.json    what there is: driver, nodes, addresses (struct dev_cluster)
 *   authority/      the demo authority's private keys, KEYID.pem; only its owner may look
 *   evidence/       root.dsse.json, site-SITE.dsse.json, revocations.dsse.json
 *   pd/             the driver's register and trust state; of several drivers also pd-2/ ...
 *   etcd-1/ ...     where several drivers keep their register
 *   nodes/NODE/     index, trust state, device
 *   run/NAME.pid    log/NAME.log    of the drivers ("pd", "pd-2" ...), etcd and each node (SITE-1)
 *   attach/VOLUME/  what `pave attach` keeps: the evidence seen, its log
 */
#ifndef PAVE_DEV_H
#define PAVE_DEV_H

#include <jansson.h>

#include "engine/base/drivers.h"
#include "engine/base/error.h"
#include "engine/base/types.h"
#include "engine/evidence/identity.h"

#define DEV_SITES_MAX 16u
#define DEV_PDS_MAX   5u
#define DEV_ETCDS_MAX 5u

struct dev_node {
	char name[NAME_SIZE_MAX];
	char site[NAME_SIZE_MAX];
	char address[ADDR_SIZE_MAX]; /* the last one; "" before the first start */
};

struct dev_pd {
	char name[NAME_SIZE_MAX];
	char address[ADDR_SIZE_MAX]; /* as that of a node */
};

struct dev_etcd {
	char name[NAME_SIZE_MAX];
	char address[ADDR_SIZE_MAX]; /* for clients; stays */
	char peer[ADDR_SIZE_MAX];    /* for the others of etcd; stays */
};

struct dev_cluster {
	char dir[4096];		   /* absolute */
	char pd[DRIVERS_TEXT_MAX]; /* the addresses of all drivers */
	struct dev_pd pds[DEV_PDS_MAX];
	unsigned pd_count;
	struct dev_etcd etcds[DEV_ETCDS_MAX];
	unsigned etcd_count; /* 0: the driver's register is its own */
	uint64_t device_size;
	uint64_t permit_lifetime_ms;
	struct dev_node nodes[DEV_SITES_MAX];
	unsigned node_count;
};

/* Which directory: --dir, else the cluster that was named, else PAVE_DEV_DIR, else ./pave-dev; made
 * absolute. -ENAMETOOLONG. */
int dev_dir(const char *option, char *buf, size_t size, struct error *err);

/* -ENOENT: there is none. */
int dev_load(const char *dir, struct dev_cluster *ret, struct error *err);
int dev_save(const struct dev_cluster *d, struct error *err);

/* Only one `dev` command at a time works on D; held until the process ends. */
int dev_lock(const char *dir, struct error *err);

/* Keys and trust root, when they are not there yet; certificates of the sites that have none. */
int dev_make_evidence(const struct dev_cluster *d, struct error *err);

/* Starts what isn't running and fills in where it listens. */
int dev_start_pds(struct dev_cluster *d, struct error *err); /* and etcd before */
int dev_start_node(struct dev_cluster *d, struct dev_node *n, struct error *err);

/* A port of the loopback: the one that it had, if that is free; else another. */
void dev_choose_address(char address[ADDR_SIZE_MAX]);
/* Starts a program of ours that listens where argv[listen_at] says. */
int dev_start(const char *dir, const char *name, const char *program, char **argv, size_t listen_at,
	      char address[ADDR_SIZE_MAX], struct error *err);

/* -- dev_drivers.c ---------------------------------------------------------------------------- */

/* What a new cluster gets: so many drivers; etcd_count 0: one, with a register of its own. */
void dev_name_drivers(struct dev_cluster *d, unsigned pd_count, unsigned etcd_count);
/* Of cluster.json. False: it is not as this version writes it. */
bool dev_load_drivers(struct dev_cluster *d, const json_t *o);
void dev_save_drivers(const struct dev_cluster *d, json_t *o);
/* Whether the name is that of a driver's process, or of etcd's. */
bool dev_is_pd(const struct dev_cluster *d, const char *name);
bool dev_is_etcd(const struct dev_cluster *d, const char *name);
/* The identity of another node of a site of this cluster, made by its demo authority and left where
 * the node finds it. */
int dev_make_node(struct dev_cluster *d, const char *node, const char *site, struct identity *ret,
		  struct error *err);
/* One that was removed is started no more, and may be added again; what it has stays in nodes/NODE.
 * The last one is kept. */
int dev_forget_node(const char *dir, const char *node, struct error *err);

#endif
