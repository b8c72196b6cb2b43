/* What must hold at every step, beside what the oracle (I3, I4, I5, I6) and watch.h (I1) see: I8,
 * all queues within their named limits; and I2, nothing is acknowledged without a permit. */
#ifndef SIM_CHECKS_H
#define SIM_CHECKS_H

#include "tests/sim/cluster.h"

/* After every step. */
void checks_step(struct cluster *c);

/* The driver has sent host h a permit. */
void checks_permit_sent(struct cluster *c, uint32_t h);

/* Host h has told its guest that an operation succeeded. */
void checks_success(struct cluster *c, uint32_t h);

#endif
