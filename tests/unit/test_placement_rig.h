/* A placement driver on the simulated seams, and peers that speak to it: nodes, hosts, admins, each
 * on a machine of its own, on virtual time. */
#ifndef TEST_PLACEMENT_RIG_H
#define TEST_PLACEMENT_RIG_H

#include "engine/evidence/demo.h"
#include "engine/placement/pd.h"
#include "engine/placement/register.h"
#include "net/rpc/rpc.h"
#include "tests/sim/kv.h"
#include "tests/sim/net.h"

#define PEERS_MAX 12u
#define RIG_SITES 4u

/* Of each node's scrub, as it says with its lease: bytes a second. */
#define RIG_SCRUB_NEEDED (90u << 20)
#define RIG_SCRUB_MAX	 (64u << 20)
#define LIFETIME_MS	 10000u

struct peer {
	struct rig *rig;
	struct sim_process *process;
	struct transport *transport;
	struct transport_conn *conn;
	struct rpc rpc;
	bool ready, closed;
	int reason;

	/* The answer to the last request. */
	struct rpc_call call;
	bool answered;
	int status; /* negative, or 0 */
	char text[1000];
	Pave__V1__Control *reply; /* the peer's; until the next request */

	/* What it was told. */
	uint32_t evidence_notices, permit_notices, detach_notices, scrubs;
	uint64_t evidence_version; /* of the last snapshot that it was sent */
	int notice_status;	   /* of the last PermitNotice, negative */
	struct permit notice;	   /* its permit; volume 0: none */
	uint32_t notice_min_acks;
	uint64_t notice_size;
	uint64_t notice_after_asks; /* how many answers it had when the last notice came */
	uint64_t answers;
	bool erase_asked;
	bool erase_refuse;	/* answers Erase with an error, */
	uint64_t erase_refuses; /* and what names one of these layers: a bit for each */
	bool erase_hold;	/* doesn't answer it before peer_answer_erase */
	uint64_t erase_held;	/* the request; 0: none */
	bool erase_less;	/* does less than it is asked for, and says so */
	volume_id_t erase_volume;
	uint32_t erase_chunks[8]; /* of the last one */
	size_t erase_chunk_count;
	uint64_t erased_layers; /* ever: a bit for each of the first 64 */
	char erase_method[16];
	uint32_t erases, maintains;
	uint64_t maintain_volumes; /* of these: bit n is volume #n, up to 63 */
	uint32_t runs[6];	   /* what it says of the changes in layers; of two runs */
	size_t run_values;
	bool runs_at_once;		/* in one answer, not two */
	uint32_t merge_has, merge_done; /* chunks of the upper layer */
	uint64_t merge_blocks;
	bool merge_lower_whole, merge_lower_empty;
	bool merge_fresh;	  /* it was asked to give a last word */
	volume_id_t merge_refuse; /* to write into this lower layer */
	uint32_t merges;	  /* asked for */
	volume_id_t merge_upper, merge_lower;
	bool merge_hold;     /* doesn't answer one before peer_answer_merge */
	uint64_t merge_held; /* the request; 0: none */
	bool changes_refuse;
	volume_id_t changes_of;	       /* the runs are those of this layer alone; 0: of any */
	volume_id_t changes_layers[4]; /* that it was asked for last */
	size_t changes_layer_count;

	/* What it says, as a node. */
	uint64_t operations; /* answered since it was started */
	const char *trouble; /* of its devices, as it says; NULL: none */
	volume_id_t damaged; /* a layer of which blocks are damaged there; 0: none */
};

struct rig {
	struct sim_world *world;
	struct demo demo;
	char *root;
	char *sites[RIG_SITES];
	struct sim_process *pd_process;
	struct sim_kv *kv;
	struct transport *transport;
	struct trust *trust;
	struct pd_shared shared; /* of the drivers that start from now on, if one_of_several */
	bool one_of_several, leads;
	struct pd *pd;
	int failed; /* how often drivers said that the register cannot be written */
	struct peer peers[PEERS_MAX];
	uint32_t peer_count;
	uint64_t snapshot_version;
	bool only_added;      /* of drivers that are started from now on */
	uint32_t lifetime_ms; /* of permits, likewise; LIFETIME_MS at first */
	uint32_t checked[64]; /* by volume: the permit that was last found in the ledger, its CRC */
};

extern const char *const rig_sites[RIG_SITES]; /* par, lyo, rbx, mrs */

/* A driver without any evidence; started. */
struct rig *rig_create(uint64_t seed);
void rig_destroy(struct rig *r);
void rig_pd_start(struct rig *r);
int rig_pd_try(struct rig *r, struct error *err); /* it may fail; crash the process then */
void rig_pd_crash(struct rig *r, enum sim_crash how);
/* The driver crashes, and what it had written down is loaded in its place, for the caller to
 * reg_deinit. */
void rig_pd_load(struct rig *r, struct reg *ret);
/* What was saved in it is written down, and a driver started on that. Instead of reg_deinit. */
void rig_pd_start_with(struct rig *r, struct reg *reg);
/* It begins anew, as one of two drivers; it leads while rig->leads says so. */
void rig_one_of_several(struct rig *r);
/* The driver ends as one that leads no more; its process goes on. */
void rig_pd_end(struct rig *r);
void rig_run_ms(struct rig *r, uint64_t ms);
int64_t rig_wall(const struct rig *r); /* of the driver, ns */

/* Sites 0 to count - 1 with their certificates and a snapshot of a day, and a node n1... in each
 * with a lease. The peers are returned in nodes. */
void rig_three(struct rig *r, struct peer *admin, struct peer *nodes[3]);

/* Connects and says Hello. name is the name in Hello. */
struct peer *peer_new(struct rig *r, const char *role, const char *name);
/* The same on a peer that was disconnected. 0, or the status of Hello. */
int peer_connect(struct peer *p, const char *role, const char *name);
void peer_close(struct peer *p);
/* The Erase that it holds is done. */
void peer_answer_erase(struct peer *p);
/* The LayerMerge that it holds is done, and wrote nothing. */
void peer_answer_merge(struct peer *p);

/* Asks and waits: the status. */
int peer_ask(struct peer *p, const Pave__V1__Control *m);
/* The two halves of it. */
void peer_ask_start(struct peer *p, const Pave__V1__Control *m);
int peer_ask_wait(struct peer *p);

/* Requests. */
void start_lease(struct peer *p, const char *node, const char *site, uint8_t device,
		 int64_t skew_ns);
int ask_lease(struct peer *p, const char *node, const char *site, uint8_t device, int64_t skew_ns);
int ask_site_add(struct peer *p, const char *envelope);
int ask_revocations(struct peer *p, const char *envelope);
int ask_create(struct peer *p, const char *name, uint64_t size, const char *policy);
int ask_delete(struct peer *p, const char *name);
int ask_volume(struct peer *p, const char *name);
int ask_attach(struct peer *p, const char *volume, const char *holder, const char *site);
int ask_attach_if_free(struct peer *p, const char *volume, const char *holder, const char *site);
/* As h2 in par. */
int ask_attach_read_only(struct peer *p, const char *volume);
int ask_renew(struct peer *p, volume_id_t volume, generation_t generation);
int ask_resize(struct peer *p, const char *name, uint64_t size);
/* As a node of site par does. */
int ask_maintenance_of(struct peer *p, const char *volume, const char *holder);
int ask_detach(struct peer *p, volume_id_t volume, generation_t generation);
void start_volume_detach(struct peer *p, const char *volume);

void start_snapshot(struct peer *p, const char *name, const char *snapshot);
int ask_snapshot(struct peer *p, const char *name, const char *snapshot);
void start_rollback(struct peer *p, const char *source);
int ask_rollback(struct peer *p, const char *source);
int ask_clone(struct peer *p, const char *source, const char *name);
void start_remove(struct peer *p, const char *node, bool force);
int ask_remove(struct peer *p, const char *node, bool force);
void start_drain(struct peer *p, const char *node, bool undo);
int ask_drain(struct peer *p, const char *node, bool undo);
int ask_set(struct peer *p, const char *action); /* of rebalancing */
const Pave__V1__RebalanceStatusReply *ask_status(struct peer *p);
/* A renewal that says that the layer is sealed. */
int renew_sealed(struct peer *p, volume_id_t volume, generation_t generation, volume_id_t sealed);

/* The permit in the last reply (attach or renew), verified as a host would; the caller frees it. */
struct permit reply_permit(struct peer *p);
struct lease reply_lease(struct peer *p);

/* The next snapshot: one site (or NULL) withdrawn from this moment; lives for valid_s. malloc'd. */
char *rig_snapshot(struct rig *r, const char *withdrawn, int64_t from, int64_t valid_s);
/* And submits it: the status. */
int rig_revoke(struct rig *r, struct peer *admin, const char *site, int64_t from);
/* Submits a version of secnumcloud-fr, with `with` in the place of `what`, signed by the tenant or
 * by the operator: the status. */
int rig_put_policy(struct rig *r, struct peer *admin, int version, const char *what,
		   const char *with, bool by_tenant);

#endif
