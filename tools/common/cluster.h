/* What --cluster and PAVE_CLUSTER name: the directory of a cluster (of `pave dev up`, with
 * cluster.json), or the addresses of its placement drivers. */
#ifndef COMMON_CLUSTER_H
#define COMMON_CLUSTER_H

#include "engine/base/drivers.h"
#include "engine/base/error.h"
#include "engine/base/types.h"

struct cluster_ref {
	char dir[4096];		   /* "" when an address was given */
	char pd[DRIVERS_TEXT_MAX]; /* HOST:PORT[,HOST:PORT...] */
	char root[4200];	   /* file of the trust root; "" when an address was given */
	char site[NAME_SIZE_MAX];  /* where this host stands, in a development cluster; else "" */
};

/* -ENOENT, -E_BAD_DOCUMENT, -EINVAL; the text names what was given and what is possible. */
int cluster_resolve(const char *text, struct cluster_ref *ret_ref, struct error *err);

#endif
