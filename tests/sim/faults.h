/* What goes wrong in a simulated cluster: at random moments a random fault, and what mends it. */
#ifndef SIM_FAULTS_H
#define SIM_FAULTS_H

#include "tests/sim/cluster.h"

#define FAULTS_MAX 4096u /* that can be left out */

/* Faults begin now: number 0, 1, ..., but for those that c->faults_left_out names. */
void faults_begin(struct cluster *c);

/* No new ones; everything is mended: links heal, processes go on or are booted, clocks are right,
 * sites are certified again. A node may be chosen to be lost for ever: pass its number, or
 * CLUSTER_NODES for none. */
void faults_end(struct cluster *c, uint32_t lost_node);

/* Once more after the end, when no node is lost: some blocks rot where others have rotted, when
 * nobody writes them anew any more. */
void faults_rot(struct cluster *c);

#endif
