/* The administrator of a simulated cluster: a session of role "admin" with the driver that is made
 * again whenever it is lost, and one errand at a time. It never crashes. */
#ifndef SIM_ADMIN_H
#define SIM_ADMIN_H

#include "tests/sim/cluster.h"

void admin_boot(struct cluster *c);

/* The beginning: certificates, snapshot. Runs the world. */
bool admin_set_up_sites(struct cluster *c);
bool admin_create_volume(struct cluster *c);

#endif
