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
#include "engine/placement/ledger.h"
#include "engine/placement/pd.h"
#include "engine/placement/permits.h"
#include "engine/placement/register.h"
#include "engine/placement/verdicts.h"
#include "net/rpc/rpc.h"

#define PD_REQUESTS_MAX	      64u   /* of one session, unanswered */
#define PD_HELLO_TIMEOUT_MS   5000u /* from connecting to Hello */
#define PD_ERASE_TIMEOUT_MS   120000u
#define PD_ERASE_RETRY_MS     5000u
#define PD_LIST_VOLUMES_MAX   4096u /* in one answer */
#define PD_STATUS_VOLUMES_MAX 512u

enum pd_role { ROLE_NONE = 0, ROLE_ADMIN = 1, ROLE_HOST = 2, ROLE_NODE = 4 };

struct pd_session {
	struct pd *pd;
	struct transport_conn *conn; /* NULL once closed */
	struct rpc rpc;
	enum pd_role role;
	char name[NAME_SIZE_MAX];
	uint32_t requests;     /* unanswered */
	struct reg_node *node; /* that speaks over it */
	struct reactor_timer hello_timer;
	struct pd_session *next, *prev;
};

struct pd_request {
	struct pd *pd;
	struct pd_session *session;
	uint64_t id; /* on the session's connection */
	struct reg_commit commit;
	void (*resume)(struct pd_request *q);
	/* What the handler keeps over a commit. */
	volume_id_t volume;
	generation_t generation;
	int64_t bound;
	struct reg_node *node;
	uint8_t nonce[64];
	size_t nonce_size;
	uint64_t revocations_version, site_version, root_version; /* that the asker holds */
	struct pd_request *next, *prev; /* in pd->requests or pd->parked */
};

struct pd_erase { /* an Erase on its way to a node */
	struct rpc_call call;
	struct pd *pd;
	struct reg_node *node;
	volume_id_t volume;
	struct pd_erase *next, *prev;
};

struct pd {
	struct reactor *reactor;
	struct transport *transport;
	struct transport_listener *listener;
	struct trust *trust;
	struct reg reg;
	struct verdicts verdicts;
	struct permits permits;
	struct pd_ledger ledger;
	struct pd_push *pushes; /* permits that wait for the ledger */
	struct pd_ledger_read *ledger_reads;
	char default_policy[NAME_SIZE_MAX];
	uint32_t lifetime_ms, renew_ms;
	int64_t started_at;

	struct pd_session *sessions;
	uint32_t session_count;
	struct pd_request *requests; /* with a handler or a commit */
	struct pd_request *parked;   /* wait for the end of an attachment */
	struct pd_erase *erases;

	struct reactor_timer evidence_timer; /* the next moment at which a verdict may change */
	struct reactor_timer parked_timer;   /* the next look at the parked */
	struct reactor_timer erase_timer;
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
/* Sends what is to be erased to the nodes that are there. */
void node_erase_all(struct pd *pd);
void node_erase_timer(struct reactor_timer *t);
/* Without a word: for pd_abandon. */
void node_erase_drop(struct pd *pd);

/* -- hosts.c ---------------------------------------------------------------------------------- */

void host_attach(struct pd_request *q, const Pave__V1__Control *m);
void host_renew(struct pd_request *q, const Pave__V1__Control *m);
void host_detach(struct pd_request *q, const Pave__V1__Control *m);
/* The admin's wish that an attachment ends. */
void host_volume_detach(struct pd_request *q, const Pave__V1__Control *m);
void host_session_closed(struct pd *pd, struct pd_session *s);
/* A newer permit for the holder, if it is connected; or why there is none. */
void host_push_permit(struct pd *pd, struct reg_volume *v);
void host_push_drop(struct pd *pd); /* without a word: for pd_abandon */
void host_parked_timer(struct reactor_timer *t);

/* Messages of the map, in the arena. */
Pave__V1__MapNode **host_map_nodes(struct arena *a, const struct reg_volume *v);

/* -- admin.c, admin_evidence.c ---------------------------------------------------------------- */

void admin_volume_create(struct pd_request *q, const Pave__V1__Control *m);
void admin_volume_list(struct pd_request *q, const Pave__V1__Control *m);
void admin_volume_get(struct pd_request *q, const Pave__V1__Control *m);
void admin_volume_delete(struct pd_request *q, const Pave__V1__Control *m);
void admin_node_list(struct pd_request *q, const Pave__V1__Control *m);
void admin_scrub_start(struct pd_request *q, const Pave__V1__Control *m);
void admin_status(struct pd_request *q, const Pave__V1__Control *m);
void admin_site_add(struct pd_request *q, const Pave__V1__Control *m);
void admin_site_list(struct pd_request *q, const Pave__V1__Control *m);
void admin_revocations_get(struct pd_request *q, const Pave__V1__Control *m);
void admin_revocations_put(struct pd_request *q, const Pave__V1__Control *m);
void admin_policy_put(struct pd_request *q, const Pave__V1__Control *m);

Pave__V1__SiteInfo *admin_site_info(struct pd *pd, struct arena *a, const struct verdict_site *s,
				    bool whole);
Pave__V1__SiteVerdict *admin_verdict(struct pd *pd, struct arena *a, const char *site,
				     const char *policy, int64_t now, uint32_t failed_max);

#endif
