/* A development cluster under one directory D:
 *
 *   cluster.json    what there is: driver, nodes, addresses (struct dev_cluster)
 *   authority/      the demo authority's private keys, KEYID.pem; only its owner may look
 *   evidence/       root.dsse.json, site-SITE.dsse.json, revocations.dsse.json
 *   pd/             the driver's register and trust state
 *   nodes/NODE/     index, trust state, device
 *   run/NAME.pid    log/NAME.log    of the driver ("pd") and of each node (SITE-1)
 *   attach/VOLUME/  what `pave attach` keeps: the evidence seen, its log
 */
#ifndef PAVE_DEV_H
#define PAVE_DEV_H

#include "engine/base/error.h"
#include "engine/base/types.h"

#define DEV_SITES_MAX 16u

struct dev_node {
	char name[NAME_SIZE_MAX];
	char site[NAME_SIZE_MAX];
	char address[ADDR_SIZE_MAX]; /* the last one; "" before the first start */
};

struct dev_cluster {
	char dir[4096]; /* absolute */
	char pd[ADDR_SIZE_MAX];
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
int dev_start_pd(struct dev_cluster *d, struct error *err);
int dev_start_node(struct dev_cluster *d, struct dev_node *n, struct error *err);

#endif
