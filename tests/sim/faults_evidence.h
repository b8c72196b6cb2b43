/* The faults that hit evidence at the worst moment, which only some seeds have: a process that is
 * stopped just before the end of its lease or permit, and goes on just after it; and a site that is
 * withdrawn while writes have their only answer from there. */
#ifndef SIM_FAULTS_EVIDENCE_H
#define SIM_FAULTS_EVIDENCE_H

#include "tests/sim/cluster.h"

/* The ones of this seed. */
void faults_evidence_begin(struct cluster *c);

#endif
