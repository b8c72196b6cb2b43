/* What must hold beside what the oracle (I3, I4, I5, I6) and watch.h (I1) see: I8, all queues
 * within their named limits, looked at in each 32nd step; I2, no operation of a guest succeeds
 * later than its last permit can live, unless processes may stop in mid-turn; and whenever a write
 * is decided, enough of the copies that counted are in eligible sites (I1, I3). */
#ifndef SIM_CHECKS_H
#define SIM_CHECKS_H

#include "tests/sim/cluster.h"

/* After every step. */
void checks_step(struct cluster *c);

/* The driver has sent host h a permit. */
void checks_permit_sent(struct cluster *c, uint32_t h);

/* Host h has told its guest that an operation succeeded: not a flush. */
void checks_success(struct cluster *c, uint32_t h);

#endif
