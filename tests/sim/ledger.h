/* Checks I7: the ledger that is in the driver's register, as an auditor would who has it exported:
 * the chain is whole, and nothing in it contradicts the evidence. Calls cluster_fail. */
#ifndef SIM_LEDGER_H
#define SIM_LEDGER_H

#include "tests/sim/cluster.h"

void ledger_check(struct cluster *c);

#endif
