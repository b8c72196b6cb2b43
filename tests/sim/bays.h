/* The devices of a simulated node. In most seeds it has one, for ever. In the others
 * (bays_are_many) a node has BAYS_MAX bays: the devices in one or two of them are named on its
 * command line, the others lie there; devices are added and retired while it serves, and one may be
 * away for a while, as if its cable had been pulled.
 *
 * What stands between pool and files in production (tools/pave-node/device.c, devices.c) is done
 * here likewise: a node that starts opens what its command line names and what its index knows.
 *
 *   SPARE --bays_add--> in the pool --bays_retire--> retiring --emptied, wiped--> SPARE
 *                          ^ \--bays_take_away, at a crash--> AWAY
 *                           \--bays_give_back, at the next--/     (bays_lose: for ever)
 *
 * The disks, and who is away, outlive the process. */
#ifndef SIM_BAYS_H
#define SIM_BAYS_H

#include "tests/sim/cluster.h"
#include "tests/sim/disk.h"

#define BAYS_MAX 3u

struct bays;

bool bays_are_many(uint64_t seed);

struct bays *bays_create(struct machine *node, bool volatile_cache);
void bays_destroy(struct bays *b); /* NULL is allowed; the disks go with the world */

/* The node's process has started: opens the disks that it has, into op, whose config.kv is open. */
void bays_boot(struct bays *b, struct pool_open_op *op);

/* The node's pool is open: every device that is not away must be there, and hold what it held. */
void bays_check_opened(struct bays *b);
void bays_node_crashed(struct bays *b);

uint32_t bays_count(const struct bays *b);
struct sim_disk *bays_disk(const struct bays *b, uint32_t i);
uint64_t bays_size(const struct bays *b, uint32_t i);
/* Of the pool's as well as of the spare ones. */
void bays_set_slowness(struct bays *b, uint64_t factor);

/* For the seeds with many; `draw` chooses among those that can be. False: none can be just now. */
bool bays_add(struct bays *b, uint64_t draw);
bool bays_retire(struct bays *b, uint64_t draw);
/* From the node's next start on: the caller crashes it. */
bool bays_take_away(struct bays *b, uint64_t draw);
bool bays_give_back(struct bays *b);
/* One is away for ever, from the node's next start on, be it down now. */
bool bays_lose(struct bays *b, uint64_t draw);
bool bays_have_lost(const struct bays *b);

/* Counts what has moved and left since it was last looked; now and then. */
void bays_look(struct bays *b);

/* Nothing is being added or retired, or there is no room for what is. */
bool bays_are_settled(const struct bays *b, char *why, size_t why_size);

#endif
