/* The placement driver: certificates, policies, the register, permits and leases. One instance on
 * one reactor; what it knows is in kv (the register), what it decides are pure functions over that
 * (planner.h, engine/evidence/evaluate.h).
 *
 * It answers, over net/rpc: nodes (leases), hosts (attach, renew, detach), admins (the CLI).
 * A change of evidence takes effect in one turn: it is made durable, every verdict is computed
 * anew, and every connected node and host is told (EvidenceNotice, PermitNotice) before the admin
 * gets the answer.
 *
 * Permits: only for nodes whose site is eligible under the volume's policy now, and that hold
 * replicas of the volume; expires_at <= min(until) of them. Also when these are fewer than
 * min_acks: reads go on, and the host freezes writes by itself for lack of a majority. No permit at
 * all when no node is eligible, or the host's site is not while the policy asks for it.
 */
#ifndef PLACEMENT_PD_H
#define PLACEMENT_PD_H

#include "engine/evidence/permit.h"
#include "engine/evidence/trust.h"
#include "engine/kv/kv.h"
#include "net/transport.h"

enum pd_family {
	PD_KV_META,
	PD_KV_DOCUMENTS,
	PD_KV_VOLUMES,
	PD_KV_MAPS,
	PD_KV_NODES,
	PD_KV_LEDGER,
	PD_KV_FAMILIES
};
extern const char *const pd_kv_family_names[PD_KV_FAMILIES];

/* One more is refused, and ends the one that has asked for nothing for the longest time, if that is
 * long enough: whoever was refused comes again. */
#define PD_SESSIONS_MAX 16000u
#define PD_VOLUMES_MAX	65536u
#define PD_NODES_MAX	1024u
#define PD_WORKERS	3u /* that the reactor should have: to commit, to read, and to plan */

struct pd;

struct pd_driver { /* one of several */
	char name[NAME_SIZE_MAX];
	char address[ADDR_SIZE_MAX];
	bool leads;
};
#define PD_DRIVERS_MAX 16u

/* Of a driver that is one of several on a register: whoever holds this leads. */
struct pd_shared {
	/* Asked before each permit and lease is signed, before a host or a node is answered, and
	 * before a node is told to erase or to merge: false when another may lead already. */
	bool (*may_issue)(void *arg);
	/* Fills list, for people; returns how many there are. */
	size_t (*drivers)(struct pd_driver list[PD_DRIVERS_MAX], void *arg);
	void *arg;
};

struct pd_config {
	struct reactor *reactor;
	struct transport *transport;
	struct kv *kv;			   /* lent, opened with pd_kv_family_names */
	struct trust *trust;		   /* lent */
	struct signing_key *placement_key; /* lent */
	const char *listen_address;	   /* NULL: connections come by pd_accept */
	const struct pd_shared *shared;	   /* lent; NULL: the register is its own */
	/* 0: PERMIT_LIFETIME_MS; renewal at 3/10 of it. While anything is attached that of the
	 * register goes before it, so that all who share one agree, and hosts renew in time. */
	uint32_t permit_lifetime_ms;
	/* A node that is away for so long is replaced; 0: PD_REPLACE_AFTER_S. What an admin sets
	 * later is kept in the register, and goes before it. */
	uint32_t replace_after_s;
	const char *default_policy; /* NULL: secnumcloud-fr */
	bool only_added;	    /* nodes that no admin has added are refused */
	/* The register cannot be written any more: nothing but a new start helps. May be NULL. */
	void (*failed)(int status, void *arg);
	void *arg;
};

/* Loads the register (blocks), listens. A driver that shares the register takes it over from
 * another: permits that were given before this moment count as valid for a lifetime from now,
 * whatever the clocks say. */
int pd_start(const struct pd_config *config, struct pd **ret_pd, struct error *err);
const char *pd_address(const struct pd *pd); /* PRE: it listens itself */
/* A connection that somebody else's listener has accepted; from its `accepted`. */
void pd_accept(struct pd *pd, struct transport_conn *conn);
void pd_stop(struct pd *pd, void (*done)(void *arg), void *arg);
void pd_abandon(struct pd *pd); /* the simulator's crash */

#endif
