/* The end of a run: what must come of it once the faults are over. */
#ifndef SIM_SETTLE_H
#define SIM_SETTLE_H

#include "tests/sim/cluster.h"

/* After faults_end, to which `lost` was given. Everything that was written is read back, what is
 * under way gets to its end, and all replicas become the same; fails the cluster otherwise.
 * `faults`: there were some. */
void settle(struct cluster *c, uint32_t lost, bool faults);

#endif
