/* Nodes on the simulated seams, a driver and hosts (test_node_peers.h), on virtual time. */
#ifndef TEST_NODE_RIG_H
#define TEST_NODE_RIG_H

#include "engine/node/node.h"
#include "tests/sim/disk.h"
#include "tests/sim/kv.h"
#include "tests/sim/net.h"
#include "tests/unit/test_node_peers.h"

#define RIG_NODES      2u
#define RIG_CHUNK_SIZE (64u << 20)
#define RIG_VOLUME     7u
#define RIG_DISK_SIZE  (256u << 20)

struct rig_node {
	struct rig *rig;
	const char *name, *site;
	struct sim_process *process;
	struct sim_disk *sim_disk;
	struct sim_kv *sim_kv;
	struct disk *disk;
	struct kv *kv;
	struct transport *transport;
	struct trust *trust;
	struct identity proof;
	struct pool *pool;
	struct store *store; /* the pool's one */
	struct node_shard *shard;
	struct node_lease *lease;
	bool opened;
	struct pool_open_op open;
	struct node_lease_state state; /* as `changed` told last */
	uint64_t changes;
	bool flag; /* set by every change */
};

struct rig {
	struct sim_world *world;
	struct demo demo;
	char *root;
	char *site_envelopes[RIG_NODES];
	char *revocations; /* version 1: all in force */
	struct sim_process *pd_process, *host_process;
	struct transport *pd_transport, *host_transport;
	struct peer_pd pd;
	struct rig_node nodes[RIG_NODES];
	uint64_t resync_rate; /* of nodes that are started from now on */
	struct peers_wait wait;
};

/* Starts everything, with leases granted; node 0 sends its own site's certificate to node 0 and so
 * on by the driver (one driver: it knows by the asker's site). */
struct rig *rig_create(uint64_t seed);
void rig_destroy(struct rig *rig);

/* One node of the rig: from nothing, or after a crash from what is on its disk. */
void rig_node_start(struct rig_node *n);
void rig_node_crash(struct rig_node *n, enum sim_crash how);

/* Waits until the node's lease is there (open), or has gone. */
void rig_wait_lease(struct rig_node *n, bool open);
void rig_run_ms(struct rig *rig, uint64_t ms);

/* A connected and greeted host. */
void rig_host(struct rig *rig, struct peer_host *h, uint32_t node);

/* A permit for both nodes, for now; change it before it is made. */
struct peer_permit rig_permit(struct rig *rig, generation_t generation, uint64_t serial);

/* Connects, opens with such a permit. */
void rig_open(struct rig *rig, struct peer_host *h, uint32_t node, generation_t generation);
int rig_try_open(struct peer_host *h, const struct peer_permit *p);
int rig_update(struct peer_host *h, const struct peer_permit *p);

/* An envelope of the next snapshot: site (NULL: none) withdrawn from that moment (wall). */
char *rig_revocations(struct rig *rig, uint64_t version, const char *site, int64_t from);

/* Blocks that the store of the node holds for the volume, by its own word: chunks with anything. */
uint32_t rig_chunks_held(struct rig_node *n);

#endif
