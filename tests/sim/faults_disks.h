/* The faults of disks that only some seeds have: devices that are added, retired, and away for a
 * while (bays.h); and slow disks while layers settle, merge and are erased. */
#ifndef SIM_FAULTS_DISKS_H
#define SIM_FAULTS_DISKS_H

#include "tests/sim/cluster.h"

/* Whether this seed's disks are slow, more than others, while layers settle. */
bool faults_slow_settling(uint64_t seed);

/* The ones of this seed. */
void faults_disks_begin(struct cluster *c);
/* Disks are as fast as ever, and all that were away are back. */
void faults_disks_end(struct cluster *c);
/* After that: one device of the node is lost for ever, where this seed wants that. Else false. */
bool faults_disks_lose(struct cluster *c, struct machine *m);

/* Of any node, for a while; every seed may have it. True: it took place (always). */
bool faults_slow_disk(struct cluster *c);

#endif
