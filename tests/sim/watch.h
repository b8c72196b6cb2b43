/* The checks of what goes over the wire: no byte of the volume to or from a node whose site is not
 * eligible (I1), no node is told to erase what a map says is there (I3), and which generation each
 * host was given. */
#ifndef SIM_WATCH_H
#define SIM_WATCH_H

#include "tests/sim/cluster.h"

void watch_begin(struct cluster *c);

/* The node's site is eligible now, in truth. */
bool watch_is_allowed(const struct cluster *c, const struct machine *node);

#endif
