/* The checks of what goes over the wire: no byte of the volume to or from a node, or a host, whose
 * site is not eligible (I1), no node is told to erase what a map says is there (I3), no node
 * answers without a lease (I2), and which generation each host was given. */
#ifndef SIM_WATCH_H
#define SIM_WATCH_H

#include "tests/sim/cluster.h"

void watch_begin(struct cluster *c);

/* The site of the node or host is eligible at this virtual time, in truth. */
bool watch_is_allowed(const struct cluster *c, const struct machine *m, uint64_t at_ns);

#endif
