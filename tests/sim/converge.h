/* The end of a run: all replicas hold the same, block by block. */
#ifndef SIM_CONVERGE_H
#define SIM_CONVERGE_H

#include "tests/sim/cluster.h"

/* Steps until every node that is not lost holds the same content of the whole volume, for at most
 * for_ns; fails the cluster otherwise. The volume is attached and nobody writes. */
void converge_check(struct cluster *c, uint64_t for_ns);

#endif
