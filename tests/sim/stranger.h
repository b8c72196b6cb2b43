/* A volume of somebody else's in the store of a node: it fills the disk until the store refuses,
 * and goes on for as long as it stays, so that what the cleaner makes free is taken again; then it
 * is erased. It writes to the pool itself, without a host.
 *
 *   ABSENT --come--> FILLING --leave--> LEAVING --erased--> ABSENT
 *
 * What it wrote outlives the process, so it must leave by name, be it after a crash. */
#ifndef SIM_STRANGER_H
#define SIM_STRANGER_H

#include "tests/sim/cluster.h"

#define STRANGER_VOLUME (1ull << 40) /* no register counts so far */

struct stranger *stranger_create(struct machine *node);
void stranger_destroy(struct stranger *s); /* NULL is allowed */

/* Comes, or goes on, as soon as the node serves. */
void stranger_come(struct stranger *s);
/* Is erased as soon as the node serves. */
void stranger_leave(struct stranger *s);

/* The node's pool is open. */
void stranger_node_serves(struct stranger *s);
void stranger_node_crashed(struct stranger *s);

#endif
