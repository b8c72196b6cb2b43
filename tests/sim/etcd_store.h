/* What a simulated etcd holds, and what its API does to it: requests and replies as JSON, as etcd
 * 3.4's gateway has them, so far as engine/kv/etcd_api.c uses it. No time, no network: etcd.c. */
#ifndef SIM_ETCD_STORE_H
#define SIM_ETCD_STORE_H

#include <jansson.h>

#include "tests/sim/map.h"

struct sim_lease {
	struct sim_lease *next;
	int64_t id;
	uint64_t ttl_ns, until_ns; /* virtual time; the user's */
};

struct sim_etcd_store {
	struct sim_map keys;
	struct sim_lease *leases;
	int64_t revision;
	int64_t last_lease;
};

void sim_etcd_store_init(struct sim_etcd_store *s);
void sim_etcd_store_deinit(struct sim_etcd_store *s);

/* Carries a request out, whole. NULL: it is refused for good (4xx), and changed nothing. */
json_t *sim_etcd_store_post(struct sim_etcd_store *s, const char *path, const json_t *body);

/* The lease is over, and the keys under it gone. */
void sim_etcd_store_end_lease(struct sim_etcd_store *s, int64_t id);

/* NULL: there is none. */
struct sim_lease *sim_etcd_store_lease(struct sim_etcd_store *s, int64_t id);

/* A key's value as it was put; borrowed. */
const void *sim_etcd_store_value(const struct sim_entry *e, size_t *ret_size);

#endif
