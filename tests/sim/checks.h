/* What must hold beside what the oracle (I3, I4, I5, I6) and watch.h (I1) see: I8, all queues
 * within their named limits, looked at in each 32nd step; I2, no operation of a guest succeeds
 * later than its last permit can live, unless processes may stop in mid-turn, and no node answers
 * one later than its last lease; and whenever a write is decided, what is counted as a copy (I1,
 * I3). */
#ifndef SIM_CHECKS_H
#define SIM_CHECKS_H

#include "tests/sim/cluster.h"

/* A host's clock may be wrong by as much, so its permit's deadline too. A node's may not: it gets
 * no lease. */
#define CHECKS_CLOCK_SLACK_NS (2200 * NS_PER_MS)

/* After every step. */
void checks_step(struct cluster *c);

/* The virtual time at which what the machine does now takes effect: later than the present moment
 * when it was stopped in this turn. */
uint64_t checks_time(const struct machine *m);

/* The driver sends host h a permit, a node a lease. */
void checks_permit_sent(struct cluster *c, uint32_t h, uint64_t at_ns);
void checks_lease_sent(struct cluster *c, const struct machine *node, uint64_t at_ns);

/* A node answers a request of data with success. */
void checks_answer(struct cluster *c, const struct machine *node, uint64_t at_ns);

/* Host h has told its guest that an operation succeeded: not a flush. */
void checks_success(struct cluster *c, uint32_t h);

#endif
