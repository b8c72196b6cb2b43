/* A whole cluster in one world: a placement driver (in some seeds two, of which one leads: pds.h),
 * three nodes on three certified sites (in every second seed four, so that copies can move), two
 * hosts that want the same volume, an administrator with the demo authority's keys. All above the
 * seams is production code.
 *
 * A machine is what is left when its process crashes: disk, kv, the trust state (which is durable
 * when the code says so), and what the simulated operator does with it: boot it again.
 *
 * machine_boot starts the process and the code in it; a crash frees what the code can give back
 * (the ..._abandon functions), and the machine is booted again after a while. Checks that fail call
 * cluster_fail, which keeps the first text. */
#ifndef SIM_CLUSTER_H
#define SIM_CLUSTER_H

#include "engine/evidence/demo.h"
#include "engine/evidence/identity.h"
#include "engine/node/node.h"
#include "engine/placement/pd.h"
#include "engine/volume/volume.h"
#include "net/rpc/rpc.h"
#include "tests/sim/etcd.h"
#include "tests/sim/kv.h"
#include "tests/sim/net.h"
#include "tests/sim/oracle.h"

#define CLUSTER_NODES	       4u /* the most */
#define CLUSTER_HOSTS	       2u
#define CLUSTER_PDS	       2u /* the most */
#define CLUSTER_MACHINES       (CLUSTER_PDS + CLUSTER_NODES + CLUSTER_HOSTS + 1u)
#define CLUSTER_CHUNK_SIZE     (16u << 20)
#define CLUSTER_VOLUME_SIZE    (4u * CLUSTER_CHUNK_SIZE)
#define CLUSTER_BLOCKS	       (CLUSTER_VOLUME_SIZE / BLOCK_SIZE)
#define CLUSTER_DEVICE_SIZE    (128u << 20)
#define CLUSTER_SEGMENT_SIZE   (1u << 20)
#define CLUSTER_VOLUME	       "data"
#define CLUSTER_FAULT_KINDS    32u			/* the most */
#define CLUSTER_CERTIFICATE_NS (86400 * 300 * NS_PER_S) /* life of a site's first certificate */

enum machine_kind { MACHINE_PD, MACHINE_NODE, MACHINE_HOST, MACHINE_ADMIN };

struct bays;
struct cluster;
struct faults_left_out;
struct guest;
struct maintainer;
struct stranger;
struct several;

struct machine {
	struct cluster *cluster;
	enum machine_kind kind;
	struct sim_process *process;
	const char *site;  /* nodes and hosts */
	struct bays *bays; /* nodes: their disks */
	struct sim_kv *kv;
	struct trust *trust;
	struct identity proof;	       /* nodes: who they are */
	struct maintainer *maintainer; /* nodes; outlives the process: maintainer.h */
	struct stranger *stranger;     /* nodes; likewise: stranger.h */
	bool dead_for_ever;
	bool boot_scheduled;

	/* What runs in the process now; NULL or zero when it doesn't. */
	struct transport *transport;
	union {
		struct {
			struct pd *pd; /* NULL: it follows */
			/* One of two; else NULL. */
			struct several *several;
			struct etcd *etcd;
			bool stopping;
			void (*ended)(void *arg); /* the driver; of pd_stop */
			void *ended_arg;
		} driver;
		struct {
			struct pool_open_op open;
			struct pool *pool;
			struct node_shard *shard;
			struct node_lease *lease;
			struct eraser *eraser;
			struct layer_work *layer_work;
			char address[ADDR_SIZE_MAX];
			const char *addresses[1];
		} node;
		struct guest *guest; /* outlives the process: guest.h */
	};
};

/* The administrator's errands, one at a time. */
struct admin {
	struct transport_conn *conn;
	struct rpc rpc;
	struct rpc_call call;
	struct reactor_timer retry;
	struct drivers drivers;
	char leader[ADDR_SIZE_MAX]; /* as one that does not lead has named it */
	bool open, busy;
	int status;	/* of the last errand of the setting up */
	bool unsure;	/* whether the driver has the newest snapshot */
	char *envelope; /* of the errand */
	void (*answered)(struct cluster *c, int status, const Pave__V1__Control *reply);
};

/* What is true about a site, whoever knows it. */
struct site_truth {
	const char *name;
	uint64_t certificate_version;
	uint64_t withdrawn_from_ns;  /* virtual time from which nothing may be accepted there;
				      * UINT64_MAX: it is eligible */
	uint64_t certified_until_ns; /* likewise, by its certificate: until then at most */
	uint64_t reissued_until_ns;  /* by the next one, if it is not known to be in force; or 0 */
};

/* A snapshot of the volume; in most seeds. */
#define CLUSTER_SHOTS 8u
struct shot {
	char name[NAME_SIZE_MAX]; /* with the volume's */
	bool exists;		  /* the driver has said so */
	bool settled;
	bool deleted; /* or about to be: nobody is to read it any more */
	struct oracle_shot *oracle;
};

struct cluster {
	struct sim_world *world;
	struct demo demo;
	char *root; /* envelope */
	struct machine machines[CLUSTER_MACHINES];
	uint32_t node_count, machine_count;
	uint32_t pd_count;
	char pd_addresses[DRIVERS_TEXT_MAX]; /* as nodes and hosts are told them */
	struct sim_etcd *etcd;		     /* of two drivers; NULL: one, with m->kv */
	struct machine *pds[CLUSTER_PDS], *nodes[CLUSTER_NODES], *hosts[CLUSTER_HOSTS],
	    *admin_machine;
	struct admin admin;
	struct site_truth sites[CLUSTER_NODES];
	uint64_t revocations_version;
	struct oracle *oracle;
	generation_t offered[CLUSTER_HOSTS]; /* of the last permit sent to the host */
	uint64_t permit_sent_ns[CLUSTER_HOSTS], lease_sent_ns[CLUSTER_NODES]; /* the last one */
	uint64_t fault_kinds;						      /* bits: faults.c */
	uint64_t fault_gap_ns;
	uint64_t fault_stream; /* faults.c: the randomness of the fault whose turn it is */
	uint32_t fault_count;
	const struct faults_left_out *left_out; /* NULL: nothing */
	uint32_t courses; /* bits: what this seed has of enum faults_course, be it left out */
	/* While a script wants it: a chunk of which guests do nothing but this kind of thing. */
	enum { FAVOUR_NONE, FAVOUR_WRITES, FAVOUR_READS } favour;
	uint32_t favoured_chunk;
	uint32_t rot_node;
	bool rot_everywhere; /* instead: on each node, other blocks */
	uint32_t permit_lifetime_ms;
	bool faults_over;
	struct shot *deleting; /* its deletion is in doubt; or NULL */
	uint32_t layers;       /* that the volume stands on, when it was last asked */
	int64_t snapshot_life_ns;
	uint64_t snapshot_until_ns; /* virtual time: no snapshot is in force for longer */
	uint64_t renewed_until_ns;  /* by the next one, if it is not known to be in force; or 0 */
	struct shot shots[CLUSTER_SHOTS];
	uint32_t shot_count; /* the last may not exist yet */
	int moves_active;    /* as the driver last said; -1: it has not */
	uint64_t moves_done;
	bool failed;
	char failure[4000];
	struct {
		uint64_t kills, power_losses, pauses, cuts, disconnects, revocations, clock_steps,
		    io_crashes, io_errors, slow_links, rot, contests, strands, moves, attaches,
		    shot_attaches, maintained, migrations, fenced, ops, op_errors, records,
		    receipts, strangers, full, certificates, elections, device_faults,
		    devices_added, devices_retired, devices_away, devices_lost, device_blocks,
		    settlings, slow_settlings, evidence_faults, stops, quarantines, contests_silent,
		    contests_deaf, strands_done;
		uint64_t faults[CLUSTER_FAULT_KINDS]; /* that took place, by kind: faults.c */
	} stats;
};

/* Everything is created and booted, sites and snapshot are accepted, every node has a lease and the
 * volume exists; false: it failed, and c->failure says how. trace_to: NULL, or gets the timeline.
 */
bool cluster_create(uint64_t seed, FILE *trace_to, struct cluster **ret_cluster);
void cluster_destroy(struct cluster *c);

void cluster_fail(struct cluster *c, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

void machine_boot(struct machine *m);

/* The machine is booted again after delay_ns, if it is down by then. */
void machine_boot_later(struct machine *m, uint64_t delay_ns);

/* Withdraws (or certifies again) a site, as soon as the driver can be reached. Nothing happens when
 * an errand is under way. False: it is. */
bool cluster_withdraw(struct cluster *c, uint32_t site, bool withdraw);

/* Drains a node, or takes that back, or asks for levelling (node NULL), likewise. */
bool cluster_rebalance(struct cluster *c, const char *node, bool undo);
/* Asks how many moves are under way, and have been done. Likewise. */
bool cluster_count_moves(struct cluster *c);

/* Takes a snapshot of the volume, or goes on asking for the last one; likewise. */
bool cluster_take_shot(struct cluster *c);
/* Deletes one of them, or goes on asking for that; likewise. */
bool cluster_delete_shot(struct cluster *c);
/* Asks how many layers the volume stands on: c->layers, 0 until then, and while one of them is to
 * be settled; likewise. */
bool cluster_count_layers(struct cluster *c);
/* Asks whether it is settled. Likewise. */
bool cluster_ask_shot(struct cluster *c, struct shot *s);

/* The site's next certificate, which ends life_ns from now, and a snapshot that puts it into force;
 * likewise. */
bool cluster_certify(struct cluster *c, uint32_t site, int64_t life_ns);

/* A newer snapshot with the same content, likewise. */
bool cluster_renew_snapshot(struct cluster *c);

/* Steps until cond or deadline_ns; failing checks end it too. */
bool cluster_run(struct cluster *c, uint64_t for_ns, bool (*cond)(struct cluster *c));

/* The volume as the host sees it that has it attached; NULL: none has. */
const struct volume *cluster_volume(const struct cluster *c);

#endif
