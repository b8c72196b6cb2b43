/* The end of a run: what has rotted is found and mended. */
#ifndef SIM_DAMAGE_H
#define SIM_DAMAGE_H

#include "tests/sim/cluster.h"

/* Has every device of the nodes that are not lost, nor one of their devices, scrubbed, and steps
 * until that is done and none knows of a damaged block, for at most for_ns; fails the cluster
 * otherwise. The volume is attached and nobody writes. */
void damage_check(struct cluster *c, uint64_t for_ns);

#endif
