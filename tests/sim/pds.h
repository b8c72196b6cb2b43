/* The placement drivers of a simulated cluster: one with a register of its own, or, in some seeds,
 * two that share one on a simulated etcd (etcd.h), of which one leads: tools/pave-pd/several.c. */
#ifndef SIM_PDS_H
#define SIM_PDS_H

#include "tests/sim/cluster.h"

/* Whether the seed has two. */
bool pds_are_two(uint64_t seed);

/* Before the machines are made; they are the first of them. */
void pds_begin(struct cluster *c);
void pds_end(struct cluster *c); /* after the world's */

void pds_boot(struct machine *m);
void pds_crashed(struct machine *m);
/* Ends the process as its operator would, and it is booted again. */
void pds_stop(struct machine *m);

/* The driver that leads, in truth; NULL: none does just now. */
const struct pd *pds_leading(const struct cluster *c);
/* Its machine; the first one when none leads. */
struct machine *pds_leader(const struct cluster *c);

bool pds_one_leads(struct cluster *c); /* for cluster_run */

/* What is in a family of the register, in the order of the keys. */
void pds_register_each(struct cluster *c, uint32_t family,
		       void (*each)(const void *key, size_t key_size, const void *value,
				    size_t value_size, void *arg),
		       void *arg);

/* -- checks ---------------------------------------------------------------------------------- */

/* Whoever may issue holds the leader's key; so two never may. */
void pds_step(struct cluster *c);
/* A driver sends a permit, or a lease. */
void pds_issued(struct cluster *c, const struct machine *from, const char *what);

#endif
