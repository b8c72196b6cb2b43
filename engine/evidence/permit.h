/* Permits and leases: made by the placement driver, verified once by host and node, and from then
 * on one deadline each. Times on the wire are wall-clock; what is compared per write is
 * CLOCK_BOOTTIME.
 *
 *   gate: closed -- gate_set(deadline) --> open until the deadline -- time, or gate_close(why) -->
 * closed
 *
 * The clock bound is taken off whenever a wall-clock expiry becomes a deadline, so that a clock
 * that is wrong by less than the bound never keeps a gate open too long; a wall clock that steps
 * later changes no deadline. */
#ifndef EVIDENCE_PERMIT_H
#define EVIDENCE_PERMIT_H

#include "engine/evidence/dsse.h"
#include "engine/reactor/reactor.h"

#define CLOCK_BOUND_NS	       (500 * NS_PER_MS) /* any two clocks of the cluster agree to this */
#define PERMIT_LIFETIME_MS     10000u
#define PERMIT_RENEW_MS	       3000u
#define PERMIT_LIFETIME_MAX_MS 60000u /* a longer one is not believed */
#define PERMIT_NODES_MAX       1024u
#define PERMIT_LAYERS_MAX      32u
#define PERMIT_LAYERS_OPEN_MAX 2u /* the top one, and one that is being sealed */
#define LEASE_NONCE_MAX	       64u
#define LEASE_SIGNED_MAX       4096u /* bytes of a lease with its signatures, packed */

/* One load and one compare for each operation. */
struct gate {
	uint64_t deadline_ns; /* CLOCK_BOOTTIME; 0: closed */
	int why;	      /* the error for what is refused: negative */
};

/* False only in a build that measures what the checks cost (-Dunchecked_permits): it says so
 * whenever a process starts, and cannot be installed. */
#ifdef PAVE_UNCHECKED_PERMITS
#define GATE_CHECKED false
#else
#define GATE_CHECKED true
#endif

static inline bool gate_open(const struct gate *g, uint64_t now_ns)
{
	return !GATE_CHECKED || now_ns < g->deadline_ns;
}

/* Before a check that must not trust the time at which the turn began: the clock is read once for
 * all that the callback which runs now decides. A stop of the process that comes after that reading
 * is one between check and effect wherever it falls, for the effects leave when the turn ends. */
static inline void gate_refresh(struct reactor *r)
{
	if (GATE_CHECKED)
		reactor_refresh_once(r);
}

/* A permit that was verified. Plain memory, no references into the message. */
struct permit {
	volume_id_t volume;
	generation_t generation;
	uint64_t serial;
	uint64_t map_version;
	uint8_t policy_digest[32];
	char holder[NAME_SIZE_MAX];
	char holder_site[NAME_SIZE_MAX];
	int64_t issued_at, expires_at, serve_after; /* wall, ns */
	uint64_t deadline_ns;			    /* CLOCK_BOOTTIME, clock bound taken off */
	uint64_t serve_after_ns; /* CLOCK_BOOTTIME, clock bound added; 0: at once */
	uint64_t root_version;	 /* of the trust root that it was verified under */
	bool read_only;
	uint32_t layer_count; /* at least one */
	struct permit_layer {
		volume_id_t id;
		bool open;	     /* may be written */
	} layers[PERMIT_LAYERS_MAX]; /* from the top; the open ones first */
	uint32_t node_count;
	struct permit_node {
		char node[NAME_SIZE_MAX];
		char site[NAME_SIZE_MAX];
		uint64_t site_version;
	} * nodes; /* malloc'd */
};

struct lease {
	char node[NAME_SIZE_MAX];
	char site[NAME_SIZE_MAX];
	uint64_t site_version;
	uint64_t revocations_version;
	uint64_t serial;
	int64_t issued_at, expires_at;
	uint64_t deadline_ns;
	/* To verify it again under another trust root than it was verified under. */
	uint64_t root_version;
	uint8_t nonce[LEASE_NONCE_MAX];
	size_t nonce_size;
	uint8_t packed[LEASE_SIGNED_MAX];
	size_t packed_size;
};

/* Verifies signature, cluster, type and sanity (expires after issued, lifetime <=
 * PERMIT_LIFETIME_MAX_MS, not issued in the future beyond the clock bound, not run out), and
 * computes the deadlines from now_ns (CLOCK_BOOTTIME) and wall_ns, which were read together:
 *   deadline = now + (expires_at - wall) - CLOCK_BOUND, and never beyond the trust root's own end
 *   serve_after = now + (serve_after - the earlier of wall and issued_at) + CLOCK_BOUND
 * On success the caller ends *ret_permit with permit_deinit. -E_BAD_SIGNATURE, -E_WRONG_CLUSTER,
 * -E_PERMIT_EXPIRED, -E_CLOCK_SKEW, -E_BAD_DOCUMENT, -E_STALE_EVIDENCE (the trust root has run
 * out), -ENOMEM. */
int permit_open(const Pave__V1__Signed *s, const struct root_document *root, uint64_t now_ns,
		int64_t wall_ns, struct permit *ret_permit, struct error *err);
/* The node's entry; NULL: the node is not in it. */
const struct permit_node *permit_find_node(const struct permit *p, const char *node);
/* The layer that a request names (0: the one with the volume's id); NULL: it is not in it. */
const struct permit_layer *permit_find_layer(const struct permit *p, volume_id_t layer);
void permit_deinit(struct permit *p); /* zeroed memory is allowed */

/* As permit_open, with -E_LEASE_EXPIRED; nonce must be the one that was asked with. The caller must
 * still compare node and site with its own. */
int lease_open(const Pave__V1__Signed *s, const struct root_document *root, const void *nonce,
	       size_t nonce_size, uint64_t now_ns, int64_t wall_ns, struct lease *ret_lease,
	       struct error *err);

/* The same lease under another root, in force for no longer than before. The errors of lease_open;
 * -ENOMEM. */
int lease_open_again(const struct lease *lease, const struct root_document *root, uint64_t now_ns,
		     int64_t wall_ns, struct lease *ret_lease, struct error *err);

/* Made by the placement driver. The message is the caller's; *ret is freed as in signed_make. What
 * permit_open would call malformed is refused here already: -E_BAD_DOCUMENT. */
int permit_make(const Pave__V1__Permit *permit, struct signing_key *key, Pave__V1__Signed **ret,
		struct error *err);
int lease_make(const Pave__V1__Lease *lease, struct signing_key *key, Pave__V1__Signed **ret,
	       struct error *err);

#endif
