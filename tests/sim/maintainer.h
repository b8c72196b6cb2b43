/* What a node starts beside itself when the driver asks for the maintenance of a detached volume:
 * production runs `pave-attach --maintain` (tools/pave-node/maintain.h); here it is an attachment
 * in the node's own process, with a trust state of its own, that ends with that process. It serves
 * nobody; copies move, and what is damaged is written again, while it is there. */
#ifndef SIM_MAINTAINER_H
#define SIM_MAINTAINER_H

#include "tests/sim/cluster.h"

struct maintainer;

struct maintainer *maintainer_create(struct machine *node);
void maintainer_destroy(struct maintainer *m); /* after the world; NULL is allowed */

/* Attaches the volume (its number, with a #), unless one is attached already. */
void maintainer_begin(struct maintainer *m, const char *volume);

/* The node's process has crashed. */
void maintainer_crashed(struct maintainer *m);

/* The attachment; NULL: there is none. */
const struct volume *maintainer_volume(const struct maintainer *m);

#endif
