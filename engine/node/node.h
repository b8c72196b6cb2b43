/* The node: answers hosts and other nodes over the wire, checks the evidence of every request, and
 * keeps its lease. It owns no data: that is the store's.
 *
 * One `struct node_shard` a reactor, shared nothing; one `struct node_lease` a process, on the
 * first shard's reactor, which tells the others by post.
 *
 * Session (one a connection), of a host:
 *
 *   CONNECTED --Hello--> GREETED --Open (permit verified, fence durable)--> OPEN --closed--> gone
 *                                                        OPEN --newer generation opened by another
 * session--> FENCED
 *
 * In OPEN each data request passes the session's gate on receipt and again before the answer. The
 * gate's deadline is the minimum of the permit's and the lease's; it is set when either is taken
 * in, and closed when the lease is withdrawn, the permit no longer names this node, or the session
 * is fenced.
 *
 * Limits: NODE_SESSIONS_MAX connections, NODE_INFLIGHT_MAX data requests a session: one more ends
 * the connection. */
#ifndef NODE_NODE_H
#define NODE_NODE_H

#include "engine/evidence/permit.h"
#include "engine/evidence/trust.h"
#include "engine/store/store.h"
#include "net/transport.h"

#define NODE_SESSIONS_MAX  256u
#define NODE_INFLIGHT_MAX  1024u
#define NODE_LARGE_BUFFERS 256u /* of IO_SIZE_MAX... bounded by NODE_MEMORY_MAX */

struct node_shard;
struct node_lease;

struct node_identity {
	struct uuid cluster;
	char name[NAME_SIZE_MAX];
	char site[NAME_SIZE_MAX];
};

struct node_shard_config {
	struct reactor *reactor;
	struct transport *transport;
	struct store *store;	   /* lent; opened */
	const struct trust *trust; /* lent; the root is read when a permit is verified */
	struct node_identity identity;
	const char *listen_address;
};

int node_shard_start(const struct node_shard_config *config, struct node_shard **ret_shard,
		     struct error *err);
const char *node_shard_address(const struct node_shard *shard); /* where it listens */

/* A lease, or why there is none. Takes effect on every session before it returns. deadline_ns 0:
 * closed, with why (negative). */
void node_shard_set_lease(struct node_shard *shard, uint64_t deadline_ns, int why);

/* Ends all sessions; done when none is left. The store is the caller's to close. */
void node_shard_stop(struct node_shard *shard, void (*done)(void *arg), void *arg);

/* Counters for `pave status`, tests, and the table in ARCHITECTURE.md. */
struct node_stats {
	uint64_t sessions, writes, reads, refused_gate, refused_fence, refused_crc, pulled_blocks;
};
void node_shard_get_stats(const struct node_shard *shard, struct node_stats *ret_stats);

/* Keeps the lease with the placement driver: asks at PERMIT_RENEW_MS, measures the clocks'
 * difference, verifies what comes, takes in newer revocation snapshots (own site withdrawn: closes
 * at once, whatever the driver says), reconnects with bounded back-off. */
struct node_lease_config {
	struct reactor *reactor;
	struct transport *transport;
	struct trust *trust; /* lent */
	struct node_identity identity;
	const char *pd_address;
	const char *const *shard_addresses;
	uint32_t shard_count;
	const void *site_certificate; /* DSSE envelope given by the operator, or NULL: the driver
					 sends it */
	size_t site_certificate_size;
	/* Called on every change; the caller passes it on to its shards. */
	void (*changed)(uint64_t deadline_ns, int why, void *arg);
	/* Fills in sizes for the driver. */
	void (*stats)(struct store_stats *ret_stats, void *arg);
	/* The driver asks for copies to be dropped; answer by calling node_lease_erased(lease,
	 * token, status) once. */
	void (*erase)(uint64_t token, const Pave__V1__Erase *what, void *arg);
	void *arg;
};
int node_lease_start(const struct node_lease_config *config, struct node_lease **ret_lease,
		     struct error *err);
void node_lease_erased(struct node_lease *lease, uint64_t token, int status);
void node_lease_stop(struct node_lease *lease, void (*done)(void *arg), void *arg);

#endif
