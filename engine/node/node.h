/* The node: answers hosts and other nodes over the wire, checks the evidence of every request, and
 * keeps its lease. It owns no data: that is the store's.
 *
 * One `struct node_shard` a reactor, shared nothing; one `struct node_lease` a process, on the
 * first shard's reactor, which tells the others by post.
 *
 * Session (one a connection):
 *
 *   CONNECTED --Hello--> GREETED --Open--> OPENING --fence durable--> OPEN --closed--> gone
 *                                    \--(another node: no fence)------^
 *
 * In OPEN each data request passes the session's gate on receipt and again before the answer. The
 * gate's deadline is the minimum of the permit's and the lease's; it is set when either is taken
 * in, and closed when the lease is withdrawn, the permit no longer names this node, the versions of
 * the site's certificate in permit and lease differ, or a newer generation opens the volume.
 *
 * A host that opens a volume again under the same generation replaces its earlier session: that one
 * is closed, and the Open is answered when nothing of it is under way any more, so that what the
 * host is then told of the store's content stays true.
 *
 * A session of role "node" (resync: another node fetches from this one) presents the permit of the
 * attachment that asked for it, which must name that node too; it can only read, and fences
 * nothing.
 *
 * Limits. There are NODE_SESSIONS_MAX sessions; one more is refused, and ends the one that was
 * greeted longest ago and has opened nothing since (a host may wait so for as long as it wants to,
 * before it takes a volume over): whoever was refused comes again. A session is told at Hello how
 * many data requests it may have in flight (HelloReply.inflight_max, up to NODE_INFLIGHT_MAX: a
 * share of what is left of NODE_REQUESTS_MAX); one that has a quarter more is ended. Payloads lie
 * in memory of the shard, up to NODE_RX_MEMORY_MAX for what is written and NODE_TX_MEMORY_MAX for
 * what is read, and of that up to the ..._SESSION_MAX a session. A read waits for memory, and
 * sessions take turns; a write that finds none ends its connection with -ENOBUFS: the host connects
 * again, and sends again what was not answered. */
#ifndef NODE_NODE_H
#define NODE_NODE_H

#include "engine/evidence/identity.h"
#include "engine/evidence/permit.h"
#include "engine/evidence/trust.h"
#include "engine/node/receipt.h"
#include "engine/pool/pool.h"
#include "net/transport.h"

#define NODE_SESSIONS_MAX	 256u
#define NODE_DAMAGED_VOLUMES_MAX 32u /* that the driver is told of */
#define NODE_INFLIGHT_MAX	 1024u
#define NODE_INFLIGHT_MIN	 16u	/* what the last of all sessions still gets */
#define NODE_REQUESTS_MAX	 10240u /* data requests of all sessions of a shard */
#define NODE_RX_MEMORY_MAX	 (384u << 20)
#define NODE_TX_MEMORY_MAX	 (64u << 20)
/* Twice the backlog of a host (VOLUME_BACKLOG_BYTES_MAX), for payloads are rounded up. */
#define NODE_RX_SESSION_MAX (128u << 20)
#define NODE_TX_SESSION_MAX (16u << 20)
/* What the two grow to at most, and what start takes: for reactor_config.memory_bytes. */
#define NODE_SHARD_MEMORY_MAX  (NODE_RX_MEMORY_MAX + NODE_TX_MEMORY_MAX)
#define NODE_CONTROLS_MAX      1024u /* control requests of a session that are being carried out */
#define NODE_PULLS_ACTIVE_MAX  4u    /* of a shard; more wait for their turn */
#define NODE_FETCHES_MAX       8u    /* of a shard, as the source; more wait */
#define NODE_LAYERED_MAX       64u   /* reads over several layers, of a shard; more wait */
#define NODE_HELLO_TIMEOUT_MS  5000u
#define NODE_GREETED_MS	       10000u /* after which who has opened nothing makes room for others */
#define NODE_RESYNC_RATE       (200ull << 20) /* a sensible resync_rate: a fifth of 10 Gbit/s */
#define NODE_RECEIPTS_MAX      4096u	      /* that wait for the driver */
#define NODE_VACATE_CHUNKS_MAX 1024u
#define NODE_VACATE_MS	       5000u
#define NODE_DRAIN_MS	       2000u /* for the last receipts, when the node ends */

struct node_shard;
struct node_lease;

struct node_identity {
	struct uuid cluster;
	char name[NAME_SIZE_MAX];
	char site[NAME_SIZE_MAX];
};

/* The lease as the gates see it. */
struct node_lease_state {
	uint64_t deadline_ns;  /* CLOCK_BOOTTIME; 0: there is none */
	int why;	       /* then: why not, negative */
	uint64_t site_version; /* of the certificate that it was given for */
	uint64_t root_version; /* of the trust root that it holds under */
	/* The driver's clock less CLOCK_BOOTTIME, as measured when the lease was asked for:
	 * receipts tell the driver's time, whatever is done to this machine's. */
	int64_t driver_clock_ns;
};

/* The wall clock that evidence is compared with: this machine's, or the driver's if that is later.
 * So a clock that steps back between two leases revives nothing. driver_clock_ns 0: not measured.
 */
static inline int64_t node_evidence_wall_ns(int64_t wall_ns, uint64_t now_ns,
					    int64_t driver_clock_ns)
{
	return driver_clock_ns == 0 ? wall_ns : MAX(wall_ns, (int64_t)now_ns + driver_clock_ns);
}

struct node_shard_config {
	struct reactor *reactor;
	struct transport *transport;
	struct pool *pool;	   /* lent; opened */
	const struct trust *trust; /* lent; the root is read when a permit is verified */
	struct node_identity identity;
	const char *listen_address;
	uint64_t resync_rate; /* bytes a second that its pulls may fetch together; 0: no limit */
	/* A receipt is complete; on this shard's reactor. NULL: none are kept. */
	void (*receipt)(const struct node_receipt *receipt, void *arg);
	void *arg;
};

/* Listens. There is no lease yet: everything is refused with E_NO_LEASE. What transport_listen
 * returns, or -ENOMEM. */
int node_shard_start(const struct node_shard_config *config, struct node_shard **ret_shard,
		     struct error *err);
const char *node_shard_address(const struct node_shard *shard); /* where it listens */

/* Takes effect on every session before it returns: under another trust root permits are verified
 * again, and those that it does not bear out are void. Sessions are told (GateClosed) when it
 * closes their gate. */
void node_shard_set_lease(struct node_shard *shard, const struct node_lease_state *state);

/* Ends all sessions and frees the shard; done, never inline, when nothing is in flight any more.
 * The pool is the caller's to close, after that. */
void node_shard_stop(struct node_shard *shard, void (*done)(void *arg), void *arg);

/* Embedded by the asker; lent until done. */
struct node_vacate_op {
	void (*done)(struct node_vacate_op *op);
	volume_id_t volume; /* whose sessions, or a layer that they have open */
	bool whole;
	chunk_no_t chunks[NODE_VACATE_CHUNKS_MAX]; /* unless whole */
	uint32_t chunk_count;
	uint32_t waiting; /* the shard's: sessions */
	struct reactor_task task;
};

/* Sees to it that nothing that a host has sent before can reach these copies any more, so that they
 * can be erased: each session of the volume is asked whether its host has left them (Vacate), and
 * one that does not say so within NODE_VACATE_MS is ended, its requests included. With `whole` all
 * are ended at once. done, never inline, when that is so; it always comes, and may come after the
 * shard was stopped. One at a time. */
void node_shard_vacate(struct node_shard *shard, struct node_vacate_op *op);

/* Frees everything at once, without a word to anybody: the simulator's crash. Nothing that was in
 * flight may complete after it. */
void node_shard_abandon(struct node_shard *shard);

/* Counters for `pave status`, tests, and the table in ARCHITECTURE.md. */
struct node_stats {
	uint64_t sessions;	/* now */
	uint64_t writes, reads; /* answered with 0 */
	uint64_t refused_gate;	/* data requests: on receipt */
	uint64_t
	    refused_late; /* data requests: carried out, but the gate closed before the answer */
	uint64_t refused_fence; /* data requests and Opens of an older generation */
	uint64_t refused_crc, refused_invalid;
	uint64_t refused_opens; /* Opens and PermitUpdates, for whatever reason */
	uint64_t waited_memory; /* reads that waited for memory */
	uint64_t dropped;	/* sessions ended for a limit or malformed requests */
	uint64_t pulls, pulled_blocks, fetches, fetched_blocks;
	uint64_t memory_bytes; /* of payloads, at the peak */
};
void node_shard_get_stats(const struct node_shard *shard, struct node_stats *ret_stats);

/* Keeps the lease with the placement driver: asks at PERMIT_RENEW_MS, measures the clocks'
 * difference, verifies what comes, takes in newer revocation snapshots (own site withdrawn: closes
 * at once, whatever the driver says), reconnects with bounded back-off.
 *
 * A lease counts only together with this node's own verdict about its site (evaluate_site, from the
 * certificate and the snapshot that it holds and has verified itself), and only until the first of
 * both ends. The clocks: half the round trip is the uncertainty of the measure; a lease is taken
 * when the clocks are proved to agree within CLOCK_BOUND_NS, refused with E_CLOCK_SKEW when they
 * are proved not to, and asked for again when the answer took too long to tell. */
struct node_lease_config {
	struct reactor *reactor;
	struct transport *transport;
	struct trust *trust; /* lent; a worker thread writes it while documents are taken in */
	struct node_identity identity;
	struct uuid device;	/* who it is, whatever its name: pool_node; all zeroes: not told */
	const char *pd_address; /* or several, which base/drivers.h reads */
	const char *const *shard_addresses;
	uint32_t shard_count;
	const void *site_certificate; /* DSSE envelope given by the operator, or NULL: the driver
					 sends it */
	size_t site_certificate_size;
	/* Who this node is; lent. NULL: it signs no receipts. */
	const struct identity *proof;
	/* Called on every change; the caller passes it on to its shards. */
	void (*changed)(const struct node_lease_state *state, void *arg);
	/* Fills in sizes for the driver. */
	void (*stats)(struct store_stats *ret_stats, void *arg);
	/* Reads and writes of hosts that were answered with 0, ever. May be NULL. */
	uint64_t (*operations)(void *arg);
	/* Gives what is known to be damaged, as store_damage. May be NULL. */
	uint32_t (*damage)(struct store_damage *ret_damage, uint32_t max, void *arg);
	/* The driver asks for everything to be read again. NULL: that does nothing. */
	void (*scrub)(void *arg);
	/* An admin asks for, or for a change of, the devices; answer by node_lease_answer, once.
	 * `what` is valid until this returns. */
	void (*devices)(uint64_t token, const Pave__V1__NodeDevices *what, void *arg);
	/* Fills in what the driver is told to be wrong with the devices; "" for nothing. */
	void (*trouble)(char *buf, size_t size, void *arg);
	/* The driver asks for the maintenance of a detached volume, which need not come about. May
	 * be NULL. */
	void (*maintain)(const char *volume, void *arg);
	/* The driver asks for copies to be erased; answer by calling node_lease_erased once.
	 * `what` is valid until this returns. */
	void (*erase)(uint64_t token, const Pave__V1__Erase *what, void *arg);
	/* The driver asks for what a node does with layers by itself (layer_changes); answer by
	 * node_lease_answer, once. `what` is valid until this returns. */
	void (*layers)(uint64_t token, const Pave__V1__Control *what, void *arg);
	void *arg;
};

/* Takes in the operator's certificate (blocks; start-up) and connects. -ENOMEM, -EINVAL, and what
 * trust_accept_site returns; -E_WRONG_NODE: a certificate of another site. */
int node_lease_start(const struct node_lease_config *config, struct node_lease **ret_lease,
		     struct error *err);

/* What was done, when status is 0. */
struct node_erasure {
	const char *method; /* "drop", "discard", "overwrite" */
	uint64_t segments, bytes, took_ms;
};
void node_lease_erased(struct node_lease *lease, uint64_t token, int status,
		       const struct node_erasure *done);
/* status < 0: text tells why; else message. */
void node_lease_answer(struct node_lease *lease, uint64_t token, int status, const char *text,
		       const Pave__V1__Control *message);

/* A receipt of one of the shards: signed, and brought to the driver. On the lease's reactor. */
void node_lease_receipt(struct node_lease *lease, const struct node_receipt *receipt);

/* Ends the conversation and frees it, once the receipts that wait are delivered, or after
 * NODE_DRAIN_MS; done, never inline. `changed` is not called any more. */
void node_lease_stop(struct node_lease *lease, void (*done)(void *arg), void *arg);
void node_lease_abandon(struct node_lease *lease); /* the simulator's crash */

struct node_lease_stats {
	uint64_t asked, granted, refused, connects, notices;
	int64_t clock_offset_ns; /* own wall clock minus the driver's, as last measured */
	struct node_lease_state state;
};
void node_lease_get_stats(const struct node_lease *lease, struct node_lease_stats *ret_stats);
/* Whether it is in force now: bytes of volumes may be stored here. */
bool node_lease_is_held(const struct node_lease *lease);

#endif
