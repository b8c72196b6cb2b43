/* A register on an etcd cluster, for several processes of which one leads: who it is, and kv.h for
 * that one.
 *
 *   FOLLOWING --no leader: its key is ours--> LOADING --read--> LEADING
 *       ^                                        |                 |
 *       +---- etcd_follow (after lost) ----------+----- lost ------+
 *
 * WHO LEADS. The leader's key lives by a lease. Whoever leads gets a new lease from etcd every
 * quarter of its time, and puts its key under it in a transaction that compares the key's
 * revisions; both go through etcd's consensus. So the key stands for at least a lease's time from
 * the moment before the asking, whichever member of etcd fails and whatever its clock does; the
 * leader counts that time itself (CLOCK_BOOTTIME), less ETCD_CLOCK_BOUND_NS, and etcd_may_issue is
 * false when it is over. A successor needs the key to be gone, or to have seen it untouched for the
 * leader's ttl_s, which stands in it: then it deletes it, if it still is. Hence two never issue at
 * one time. (A new leader of etcd lets every lease begin anew, so to wait for the lease's end may
 * take twice as long.)
 *
 * WRITES are transactions that compare the revision at which the leader's key was created, and a
 * counter that each of them raises: nothing of a former leader is carried out late, and nothing
 * twice. A batch larger than a transaction may be is written down first (the journal), then marked
 * as whole, then carried out; a leader that takes over finishes what was marked.
 *
 * WITHOUT A MAJORITY of etcd nothing is lost: may_issue becomes false, commits wait, and go on when
 * it is back, unless somebody else leads by then.
 *
 * Every call to etcd blocks a worker, never the reactor.
 * Thread: the reactor's. */
#ifndef KV_ETCD_H
#define KV_ETCD_H

#include "engine/base/drivers.h"
#include "engine/kv/http.h"
#include "engine/kv/kv.h"

#define ETCD_TTL_DEFAULT_S  3u
#define ETCD_TTL_MIN_S	    2u /* etcd's own, with its default election time */
#define ETCD_TTL_MAX_S	    60u
#define ETCD_CLOCK_BOUND_NS (500 * NS_PER_MS)
#define ETCD_WORKERS	    4u	 /* that the reactor must have: to beat, commit, read, and others */
#define ETCD_PREFIX_MAX	    128u /* of all keys */
#define ETCD_MEMBERS_MAX    16u

struct etcd;

struct etcd_member { /* a process that shares the register */
	char name[NAME_SIZE_MAX];
	char address[ADDR_SIZE_MAX];
	bool leads;
};

struct etcd_config {
	struct reactor *reactor;
	struct drivers servers;	 /* of etcd: HOST:PORT */
	struct http_tls tls;	 /* to them; names lent until etcd_stop is done */
	const char *prefix;	 /* of all keys, as "/pave/CLUSTER/" */
	const char *name;	 /* of this process, unlike the others' */
	const char *address;	 /* that others are told */
	uint32_t ttl_s;		 /* 0: ETCD_TTL_DEFAULT_S */
	uint32_t family_count;	 /* up to KV_FAMILIES_MAX */
	uint32_t large_families; /* bit i: family i is not read at take-over */
	/* It leads, and etcd_kv is there. What kv_scan shows is what was read at take-over, until
	 * etcd_loaded; of large families it asks etcd, and blocks. */
	void (*elected)(void *arg);
	/* It leads no more, and all that kv is asked fails. The kv is to be closed, and etcd_follow
	 * called. Comes once after each elected, unless etcd_stop came before. */
	void (*lost)(void *arg);
	void *arg;
};

/* Begins to follow. -EINVAL, -ENOMEM. */
int etcd_open(const struct etcd_config *config, struct etcd **ret_etcd, struct error *err);

/* May be asked at any moment; reads the clock. */
bool etcd_may_issue(const struct etcd *e);
/* Whether etcd answered when it was asked last. */
bool etcd_reachable(const struct etcd *e);
/* Who leads, as it was last seen; "" in both: nobody. */
const struct etcd_member *etcd_leader(const struct etcd *e);
/* Those that are there, this one included; as they were last seen. */
size_t etcd_members(const struct etcd *e, const struct etcd_member **ret_members);

/* PRE: between elected and etcd_follow. Closed by whoever uses it. */
struct kv *etcd_kv(struct etcd *e);
void etcd_loaded(struct etcd *e);
/* What waits for etcd in kv fails now: for a process that has to end. */
void etcd_give_up(struct etcd *e);

/* It had better not lead: lost follows soon, if it does. */
void etcd_yield(struct etcd *e);

/* PRE: lost came, and the kv was closed. */
void etcd_follow(struct etcd *e);

/* Lets go of the leadership if it has it, then done. PRE: no kv is open. */
void etcd_stop(struct etcd *e, void (*done)(void *arg), void *arg);

#endif
