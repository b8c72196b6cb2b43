/* The inside of the driver, shared by pd.c (sessions, dispatch, evidence changes), nodes.c, hosts.c
 * and admin*.c; nobody else's. What each peer may ask is the table in pd.c.
 *
 * A request lives from its arrival to its answer:
 *
 *   arrived -> handler -- request_reply / request_fail ------------------------> gone
 *                  \-- request_commit(resume) -> [durable] -> resume -- reply --/
 *                  \-- request_park (a volume's waiters) -> [the holder let go] -/
 *
 * It may outlive its session: then the answer goes nowhere. A handler reads the message only before
 * it returns. */
#ifndef PLACEMENT_DRIVER_H
#define PLACEMENT_DRIVER_H

#include "control.pb-c.h"
#include "engine/placement/arena.h"
#include "engine/placement/layers.h"
#include "engine/placement/ledger.h"
#include "engine/placement/pd.h"
#include "engine/placement/permits.h"
#include "engine/placement/rebalance.h"
#include "engine/placement/register.h"
#include "engine/placement/verdicts.h"
#include "net/rpc/rpc.h"

#define PD_REQUESTS_MAX	      64u   /* of one session, unanswered */
#define PD_HELLO_TIMEOUT_MS   5000u /* from connecting to Hello */
#define PD_SILENT_S	      30u   /* after which who asks for nothing makes room for others */
#define PD_ERASE_TIMEOUT_MS   120000u
#define PD_ERASE_RETRY_MS     5000u
#define PD_ERASE_CHUNKS_MAX   1024u /* in one Erase */
#define PD_LOAD_SPAN_MS	      1000  /* between two looks at what a node has answered */
#define PD_LOAD_SHARE	      8	    /* the part that the newest of them has in its load */
#define PD_MOVES_TICK_MS      1000u
#define PD_PLAN_MOVES_MAX     2048u  /* planned ahead */
#define PD_PLANS_MAX	      4u     /* being made at once */
#define PD_PLAN_AGAIN_MS      2000u  /* after a plan that is used up */
#define PD_PLAN_STALE_MS      30000u /* after any plan */
#define PD_NODE_MOVES_MAX     4u     /* at once to a node, and from one that isn't lost */
#define PD_TARGET_DOWN_S      30u    /* a target that is away for longer is given up */
#define PD_MAINTAIN_AGAIN_S   10u    /* from asking for a maintenance to asking again */
#define PD_MAINTAIN_PAUSE_S   5u     /* after somebody asked for a detach */
#define PD_GONE_S	      60u    /* a holder that lapsed for longer is gone */
#define PD_MAINTAIN_IDLE      3u     /* ticks without a move or damage: then it ends */
#define PD_REPAIR_S	      120u   /* for which damage keeps a maintenance going */
#define PD_REPAIR_AGAIN_S     3600u  /* after which what could not be repaired is tried again */
#define PD_REPLACE_AFTER_S    900u   /* default: a node that is away for longer is lost */
#define PD_LIST_VOLUMES_MAX   4096u  /* in one answer */
#define PD_STATUS_VOLUMES_MAX 512u

enum pd_role { ROLE_NONE = 0, ROLE_ADMIN = 1, ROLE_HOST = 2, ROLE_NODE = 4 };

struct pd_session {
	struct pd *pd;
	struct transport_conn *conn; /* NULL once closed */
	struct rpc rpc;
	enum pd_role role;
	char name[NAME_SIZE_MAX];
	uint32_t requests;     /* unanswered */
	uint64_t root_told;    /* version of the trust root that this peer was sent */
	struct reg_node *node; /* that speaks over it */
	struct reactor_timer hello_timer;
	uint64_t heard_ns; /* when it asked for something last, or was greeted */
	bool ending;	   /* for want of room */
	struct pd_session *next, *prev;
};

struct pd_request {
	struct pd *pd;
	struct pd_session *session;
	uint64_t id; /* on the session's connection */
	struct reg_commit commit;
	struct rpc_call forwarded; /* to a node, which answers it */
	void (*resume)(struct pd_request *q);
	struct error *why; /* malloc'd: it is refused once that is sure; or NULL */
	/* What the handler keeps over a commit. */
	volume_id_t volume;
	generation_t generation;
	int64_t bound;
	char snapshot[NAME_SIZE_MAX]; /* to be taken of the volume */
	struct reg_node *node;
	uint8_t nonce[64];
	size_t nonce_size;
	uint64_t revocations_version, site_version, root_version; /* that the asker holds */
	uint32_t plan_moves_max;
	struct pd_request *next, *prev; /* in pd->requests or pd->parked */
};

struct pd_erase { /* an Erase on its way to a node */
	struct rpc_call call;
	struct pd *pd;
	struct reg_node *node;
	volume_id_t volume;
	volume_id_t layers[LAYERS_MAX]; /* that are erased */
	size_t layer_count;
	chunk_no_t *chunks; /* malloc'd; NULL: the whole volume */
	size_t chunk_count;
	char method[16]; /* what the policy wants */
	struct pd_erase *next, *prev;
};

struct planned_move {
	volume_id_t volume;
	chunk_no_t chunk;
	struct reg_node *from, *to;
	enum move_why why;
	bool done; /* begun */
};

struct moves_load {
	struct reg_node *node;
	uint64_t before, after; /* placed, bytes of whole chunks */
};

struct moves_plan {
	struct planned_move *moves; /* malloc'd */
	size_t count;
	struct moves_load *loads; /* malloc'd; every node */
	size_t load_count;
	uint64_t chunk_bytes, copy_bytes; /* whole chunks; what is written of them, estimated */
	bool more;			  /* moves_max was reached */
	uint64_t stuck;			  /* copies that must leave and cannot; of the first: */
	char stuck_why[400];
};

struct pd {
	struct reactor *reactor;
	struct transport *transport;
	struct transport_listener *listener;
	struct trust *trust;
	struct reg reg;
	struct verdicts verdicts;
	struct permits permits;
	const struct pd_shared *shared; /* NULL: it is the only driver */
	struct pd_ledger ledger;
	struct pd_push *pushes; /* permits that wait for the ledger */
	struct pd_ledger_read *ledger_reads;
	struct pd_diff *diffs;
	struct pd_merge *merge; /* of two layers, under way; NULL: none */
	uint64_t merge_after_ns;
	char default_policy[NAME_SIZE_MAX];
	uint32_t lifetime_ms, renew_ms;
	bool only_added; /* nodes that nobody has added are refused */
	int64_t started_at;

	struct pd_session *sessions;
	uint32_t session_count;
	struct pd_request *requests; /* with a handler or a commit */
	struct pd_request *parked;   /* wait for the end of an attachment */
	struct pd_request *settling; /* wait for a snapshot, or to take one */
	struct pd_erase *erases;
	uint64_t erase_failures; /* counted */

	struct reactor_timer evidence_timer; /* the next moment at which a verdict may change */
	struct reactor_timer parked_timer;   /* the next look at the parked */
	struct reactor_timer erase_timer;
	struct reactor_timer moves_timer;
	struct moves_plan plan;	       /* what is to be started */
	bool planning;		       /* the next one is being made */
	struct pd_planning *plannings; /* those of admins included */
	uint32_t planning_count;
	uint64_t planned_fingerprint; /* of the facts that it rests on */
	uint64_t planned_ns;
	uint64_t next_move_ns; /* not before, for the rate */
	uint64_t bytes_under_way;
	struct reactor_timer settling_timer;
	struct reg_commit background; /* changes that nobody waits for */
	bool background_busy;

	void (*failed)(int status, void *arg);
	void *failed_arg;
	bool stopping;
	struct reactor_task stop_task;
	void (*stopped)(void *arg);
	void *stopped_arg;
};

/* -- pd.c ------------------------------------------------------------------------------------- */

void request_reply(struct pd_request *q, const Pave__V1__Control *message);
/* An administrator hears -EEXIST and -ENOENT only when what they rest on is durable. */
void request_fail(struct pd_request *q, const struct error *err);
void request_done(struct pd_request *q); /* replies Empty */
/* resume runs when all that was saved is durable; if that fails, q is answered with why. */
void request_commit(struct pd_request *q, void (*resume)(struct pd_request *q));
void request_park(struct pd_request *q);
/* A change that nobody waits for becomes durable soon. */
void pd_background_flush(struct pd *pd);

/* Evidence has changed, or time has passed: tells every connected node (snapshot) and every host
 * (a permit of the nodes that are still eligible), and arms the timer for the next change. */
void pd_evidence_changed(struct pd *pd);
/* Arms the timer; cheap; for those who made new verdicts. */
void pd_arm_evidence_timer(struct pd *pd);

void pd_stop_if_done(struct pd *pd);

/* -- ledger_read.c ---------------------------------------------------------------------------- */

void admin_ledger_read(struct pd_request *q, const Pave__V1__Control *m);
/* Without a word: for pd_abandon. */
void ledger_read_drop(struct pd *pd);

/* -- nodes.c ---------------------------------------------------------------------------------- */

void node_lease_request(struct pd_request *q, const Pave__V1__Control *m);
void node_receipts(struct pd_request *q, const Pave__V1__Control *m);
void node_session_closed(struct pd *pd, struct pd_session *s);
void node_send_evidence(struct pd *pd, struct pd_session *s);
bool node_send_scrub(struct reg_node *n); /* false: it is not connected */
enum node_state node_state(const struct reg_node *n, int64_t now);
/* Whether something may lie on it that is to be erased. */
bool node_has_leftovers(const struct reg *reg, const struct reg_node *n);
/* The same, or anything is placed on it, or moves to it or away. */
bool node_holds_any(const struct reg *reg, const struct reg_node *n);
/* A request of its own, whose answer needs the node, waits for a commit. */
bool node_is_asking(const struct pd *pd, const struct reg_node *n);
/* The node is gone for ever: nothing waits for it to erase anything, and no session is its own. */
void node_forget_leftovers(struct pd *pd, struct reg_node *n);
/* Sends what is to be erased to the nodes that are there. */
void node_erase_all(struct pd *pd);
void node_erase_timer(struct reactor_timer *t);
/* Without a word: for pd_abandon. */
void node_erase_drop(struct pd *pd);

/* -- hosts.c ---------------------------------------------------------------------------------- */

void host_attach(struct pd_request *q, const Pave__V1__Control *m);
void host_prepare(struct pd_request *q, const Pave__V1__Control *m);
void host_renew(struct pd_request *q, const Pave__V1__Control *m);
void host_detach(struct pd_request *q, const Pave__V1__Control *m);
/* The wish, of an admin or of a host that is to take over, that an attachment ends. */
void host_volume_detach(struct pd_request *q, const Pave__V1__Control *m);
void host_session_closed(struct pd *pd, struct pd_session *s);
/* A newer permit for the holder, if it is connected; or why there is none. */
void host_push_permit(struct pd *pd, struct reg_volume *v);
/* The same once what was saved so far is durable. */
void host_push_later(struct pd *pd, volume_id_t volume);
void host_push_drop(struct pd *pd); /* without a word: for pd_abandon */
/* Asks the holder, which is connected, to let go. */
void host_notify_detach(const struct reg_volume *v);
void host_parked_timer(struct reactor_timer *t);

/* Messages of the map, in the arena. */
Pave__V1__MapNode **host_map_nodes(struct arena *a, const struct reg_volume *v);

/* The learner of a chunk is complete. */
void host_move_commit(struct pd_request *q, const Pave__V1__Control *m);

/* -- moves.c ---------------------------------------------------------------------------------- */

const char *move_why_name(enum move_why why);
bool node_is_lost(const struct pd *pd, const struct reg_node *n, int64_t now);
/* What a copy has to be read and written for a move, estimated. */
uint64_t move_bytes(const struct reg_volume *v, const struct reg_node *from);
/* 0 and a plan, which the callback may take over, or -ENOMEM. The driver may be stopping. */
typedef void moves_planned_fn(struct pd *pd, int status, struct moves_plan *plan, void *arg);
/* A plan from the facts as they are now, which are copied; a worker makes it, one after the other,
 * and the reactor goes on meanwhile. 0: done follows, not inline. -E_LIMIT: PD_PLANS_MAX are being
 * made; -ENOMEM. */
int moves_plan(struct pd *pd, bool balance, size_t moves_max, moves_planned_fn *done, void *arg);
/* Without a word: for pd_abandon. */
void moves_planning_drop(struct pd *pd);
void moves_plan_deinit(struct moves_plan *p);
/* What was planned is void: nodes or volumes may be gone, or lie elsewhere. */
void moves_replan(struct pd *pd);
/* Whether the plan rests on other facts than there are now, and says nothing, or is being made. */
bool moves_plan_is_due(struct pd *pd);
void moves_timer(struct reactor_timer *t);
/* For a host: the moves of the volume, all that are durable: of another one nobody would know after
 * a crash what it left on its target. */
Pave__V1__Move **moves_list(const struct pd *pd, struct arena *a, const struct reg_volume *v,
			    size_t *ret_count);
/* The volume is v, and its newest attachment asks. */
void move_commit(struct pd_request *q, struct reg_volume *v, const Pave__V1__MoveCommit *c);
/* The newest attachment's word: it has no move under way but of these chunks. It counts for copies
 * of which that attachment knew, when it said so, that they are not wanted: */
void moves_host_left(struct reg_volume *v, const uint32_t *moving, size_t count);
/* It renewed, and is answered with the moves as they are now. */
void moves_host_told(struct reg_volume *v);
bool moves_may_erase(const struct pd *pd, struct reg_volume *v, const struct reg_drop *d);

/* -- admin_moves.c ---------------------------------------------------------------------------- */

void admin_node_add(struct pd_request *q, const Pave__V1__Control *m);
void admin_node_drain(struct pd_request *q, const Pave__V1__Control *m);
void admin_node_remove(struct pd_request *q, const Pave__V1__Control *m);
void admin_rebalance_plan(struct pd_request *q, const Pave__V1__Control *m);
void admin_rebalance_set(struct pd_request *q, const Pave__V1__Control *m);
void admin_rebalance_status(struct pd_request *q, const Pave__V1__Control *m);
/* -- admin_layers.c --------------------------------------------------------------------------- */

void admin_volume_snapshot(struct pd_request *q, const Pave__V1__Control *m);
void admin_volume_clone(struct pd_request *q, const Pave__V1__Control *m);
void admin_volume_rollback(struct pd_request *q, const Pave__V1__Control *m);
void admin_volume_resize(struct pd_request *q, const Pave__V1__Control *m);
/* -E_IN_USE: somebody has the volume attached, or may believe so; *err says who, and the way out.
 */
int admin_check_not_held(struct pd *pd, struct reg_volume *v, struct error *err);
/* The holder of v says so. The caller saves and flushes with v. */
void admin_layer_sealed(struct pd *pd, struct reg_volume *v, volume_id_t layer);
/* Goes on with those who wait for a volume to be settled, or have waited long enough. */
void admin_settling_check(struct pd *pd);
void admin_settling_timer(struct reactor_timer *t);
/* v, which nobody holds, gives up its layers: they are erased, but for what others need. The caller
 * flushes, and calls node_erase_all then. -ENOMEM: nothing has changed. */
/* Some snapshot of v, or NULL. */
struct reg_volume *admin_first_snapshot(struct pd *pd, const struct reg_volume *v);
int admin_drop_layers(struct pd *pd, struct reg_volume *v);
/* -E_IN_USE: copies wait to be erased on more nodes than a tombstone of v could name. */
int admin_check_leftovers(const struct reg_volume *v, struct error *err);
/* A tombstone for one more layer of the volume, wherever it may lie; not saved yet. NULL: no
 * memory.
 */
struct reg_volume *admin_add_tombstone(struct pd *pd, const struct reg_volume *of);

/* -- merge.c ---------------------------------------------------------------------------------- */

/* Begins a merge of layers, if there is one to be made. */
void merge_tick(struct pd *pd);
/* A member of the volume's family is to move: that comes first. */
void merge_gives_way(struct pd *pd, const struct reg_volume *v);
/* One is under way of layers that the volume stands on. */
bool merge_is_of(struct pd *pd, const struct reg_volume *v);
/* The volume's own attachment has to settle a layer on which nobody stands but it: no snapshot
 * waits for that. */
bool merge_settles(struct pd *pd, const struct reg_volume *v);
/* A node to have the volume attached by, so that its top can be sealed, or what a snapshot or a
 * seal left open can be settled. NULL: there is no reason for that, or none that could. */
struct reg_node *merge_wants_host(struct pd *pd, struct reg_volume *v, int64_t now);
/* Without a word: for pd_abandon. */
void merge_drop(struct pd *pd);

/* -- diff.c ----------------------------------------------------------------------------------- */

void admin_volume_diff(struct pd_request *q, const Pave__V1__Control *m);
/* Without a word: for pd_abandon. */
void diff_drop(struct pd *pd);

/* -- admin.c, admin_evidence.c ---------------------------------------------------------------- */

/* Answers q with what is known of v. */
void admin_send_volume(struct pd_request *q, struct reg_volume *v, bool with_map);
/* Places chunk_count chunks of so many replicas under the policy: nodes and map are malloc'd.
 * -E_DENIED, -ENOMEM. */
int admin_place(struct pd *pd, const char *name, uint32_t chunk_count, uint64_t chunk_size,
		uint32_t replicas, const char *policy, struct reg_node ***ret_nodes,
		uint32_t *ret_node_count, uint8_t **ret_map, struct error *err);
void admin_volume_create(struct pd_request *q, const Pave__V1__Control *m);
void admin_volume_list(struct pd_request *q, const Pave__V1__Control *m);
void admin_volume_get(struct pd_request *q, const Pave__V1__Control *m);
void admin_volume_delete(struct pd_request *q, const Pave__V1__Control *m);
void admin_node_list(struct pd_request *q, const Pave__V1__Control *m);
void admin_scrub_start(struct pd_request *q, const Pave__V1__Control *m);
void admin_node_devices(struct pd_request *q, const Pave__V1__Control *m);
void admin_status(struct pd_request *q, const Pave__V1__Control *m);
void admin_site_add(struct pd_request *q, const Pave__V1__Control *m);
void admin_site_list(struct pd_request *q, const Pave__V1__Control *m);
void admin_revocations_get(struct pd_request *q, const Pave__V1__Control *m);
void admin_revocations_put(struct pd_request *q, const Pave__V1__Control *m);
void admin_policy_put(struct pd_request *q, const Pave__V1__Control *m);
void admin_policy_list(struct pd_request *q, const Pave__V1__Control *m);
/* A site, a snapshot or a policy, taken in, not flushed. */
int admin_take_document(struct pd *pd, const ProtobufCBinaryData *e, struct error *err);
/* What the snapshot in force says of withdrawals is no news any more, those to come included. */
void admin_note_told(struct pd *pd);

/* -- admin_root.c ----------------------------------------------------------------------------- */

/* Among the register's documents; the first of them, since the others rest on it. */
#define PD_ROOT_KEY "anchor"
void admin_root_get(struct pd_request *q, const Pave__V1__Control *m);
void admin_root_put(struct pd_request *q, const Pave__V1__Control *m);

Pave__V1__SiteInfo *admin_site_info(struct pd *pd, struct arena *a, const struct verdict_site *s,
				    bool whole);
Pave__V1__SiteVerdict *admin_verdict(struct pd *pd, struct arena *a, const char *site,
				     const char *policy, int64_t now, uint32_t failed_max);

#endif
