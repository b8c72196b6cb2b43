/* net (simulated): see net.h. */
#include "tests/sim/net.h"

void sim_net_crash(struct sim_process *p, enum sim_crash how)
{
	(void)p;
	(void)how;
}

void sim_net_destroy(struct sim_world *w)
{
	(void)w;
}
