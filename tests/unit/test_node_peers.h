/* Those that a node talks to, for its tests: a placement driver that says what the test wants, and
 * a host that speaks frames, right or wrong. On any reactor and transport: simulated, or real ones
 * against a pave-node process.
 *
 * Calls that end in a result wait for it, by the owner's wait. */
#ifndef TEST_NODE_PEERS_H
#define TEST_NODE_PEERS_H

#include "engine/evidence/demo.h"
#include "engine/evidence/permit.h"
#include "net/rpc/rpc.h"

/* Lets the world go on until *flag, for a bounded time; false: it did not come. */
struct peers_wait {
	bool (*until)(void *arg, const bool *flag);
	void *arg;
};

/* -- the driver ------------------------------------------------------------------------------- */

#define PEERS_PD_CONNS 8u

struct peer_pd_conn {
	struct peer_pd *pd;
	struct transport_conn *conn;
	struct rpc rpc;
	struct rpc_call call;
	bool called;
	int status;
};

struct peer_pd {
	struct reactor *reactor;
	struct transport *transport;
	struct transport_listener *listener;
	const struct demo *demo;
	struct peer_pd_conn conns[PEERS_PD_CONNS];

	/* What it says; change at will. */
	int refuse;	       /* 0, or the positive code with which every request is refused */
	bool silent;	       /* answers no lease request at all */
	uint32_t lifetime_ms;  /* of leases */
	int64_t wall_skew_ns;  /* of what it says the time is */
	uint64_t site_version; /* in leases */
	uint64_t revocations_version; /* in leases */
	bool wrong_nonce;
	struct signing_key *key;  /* that signs leases */
	const char *lease_node;	  /* NULL: the asker's name */
	char *revocations, *site; /* sent with every lease, if not NULL; lent */

	uint64_t asked, granted;
	bool flag;	   /* set by every request for a lease */
	uint64_t receipts; /* that came, and of the last one: */
	int64_t receipt_run;
};

/* listen: an address, or "" in the simulator. */
void peer_pd_start(struct peer_pd *pd, struct reactor *r, struct transport *t, const char *listen,
		   const struct demo *demo);
void peer_pd_notice(struct peer_pd *pd, const char *revocations);
/* Either may be NULL. */
void peer_pd_notice_root(struct peer_pd *pd, const char *root, const char *revocations);
/* Asks the node on the first connection to erase; returns its answer. */
int peer_pd_erase(struct peer_pd *pd, struct peers_wait wait, volume_id_t volume, bool whole,
		  chunk_no_t chunk);
void peer_pd_stop(struct peer_pd *pd);

/* -- permits ---------------------------------------------------------------------------------- */

struct peer_permit {
	const struct demo *demo;
	struct signing_key *key; /* NULL: the placement key */
	volume_id_t volume;
	generation_t generation;
	uint64_t serial, map_version;
	const char *nodes[3]; /* NULL: none */
	const char *sites[3];
	uint64_t site_version;
	int64_t issued_at; /* wall */
	uint32_t lifetime_ms;
	bool read_only;
	struct permit_layer layers[4]; /* id 0: no more */
};
Pave__V1__Signed *peer_permit_make(const struct peer_permit *p);
void peer_permit_free(Pave__V1__Signed *s);

/* -- the host --------------------------------------------------------------------------------- */

#define PEER_REQUESTS 4096u

struct peer_request {
	struct peer_host *host;
	struct transport_send send;
	uint32_t crcs[IO_BLOCKS_MAX];
	uint8_t *payload; /* of the request, own copy */
	bool sent, done;
	int status; /* of the reply, negative */
	struct frame reply;
	uint8_t *reply_payload; /* malloc'd */
	uint32_t reply_crcs[IO_BLOCKS_MAX];
};

struct peer_host {
	bool read_only; /* what its Open asks for */
	uint32_t layer; /* of the data frames of peer_host_write and the like, and of its pulls */
	bool exact;	/* its pulls */
	bool repair;	/* its pulls: of the blocks in ranges */
	uint32_t ranges[2];
	struct reactor *reactor;
	struct transport *transport;
	struct peers_wait wait;
	struct uuid cluster;
	struct transport_conn *conn;
	bool ready, closed;
	int reason;
	struct rpc rpc;
	bool rpc_live;
	struct rpc_call call;
	bool called;
	int call_status;
	char call_text[400];
	Pave__V1__Control *call_reply; /* the last one's, unpacked again */
	uint32_t inflight_max;
	uint8_t *rx_buffer;
	uint64_t next_id;
	struct peer_request *requests[PEER_REQUESTS]; /* by id % PEER_REQUESTS */
	uint64_t pull_progress;			      /* blocks, as last told */
	uint32_t gate_closed_count;
	int gate_closed_why;	       /* negative */
	uint32_t damage_count;	       /* notices */
	Pave__V1__DamagedRange damage; /* the first of the last notice */
	bool gate_closed;
	int vacate_status; /* what it answers to Vacate: 0, negative; 1: nothing */
	uint32_t vacates;
	chunk_no_t vacate_chunk; /* the first of the last one */
};

void peer_host_init(struct peer_host *h, struct reactor *r, struct transport *t,
		    struct peers_wait wait, const struct demo *demo);
/* 0, or the reason for which there is no connection. */
int peer_host_connect(struct peer_host *h, const char *address);
void peer_host_close(struct peer_host *h); /* waits for the end */

/* A control request; the answer's status, negative. The reply is in h->call_reply. */
int peer_host_ask(struct peer_host *h, const Pave__V1__Control *message);
/* The same in two steps. The host must be connected. */
void peer_host_ask_start(struct peer_host *h, const Pave__V1__Control *message);
int peer_host_ask_wait(struct peer_host *h);
int peer_host_hello(struct peer_host *h, const char *role, const char *name);
int peer_host_open(struct peer_host *h, Pave__V1__Signed *permit, uint64_t chunk_size);
int peer_host_update(struct peer_host *h, Pave__V1__Signed *permit);
void peer_host_pull_start(struct peer_host *h, chunk_no_t chunk, version_t above, const char *node,
			  const char *address);
int peer_host_pull_part(struct peer_host *h, chunk_no_t chunk, version_t above, version_t below,
			const uint32_t *ranges, size_t n_ranges, const char *node,
			const char *address);
int peer_host_pull(struct peer_host *h, chunk_no_t chunk, version_t above, const char *node,
		   const char *address);

/* Sends f with block_count blocks of payload if data is not NULL; CRCs are computed, and the first
 * is spoilt if bad_crc. request_id is filled in. */
struct peer_request *peer_host_send(struct peer_host *h, struct frame f, const void *data,
				    bool bad_crc);
/* Waits for the reply; false: the connection has ended instead. */
bool peer_host_wait(struct peer_host *h, struct peer_request *q);
void peer_request_free(struct peer_request *q);

/* The status of the reply, negative. -E_DISCONNECTED: the connection ended. */
int peer_host_write(struct peer_host *h, chunk_no_t chunk, block_no_t block, uint32_t block_count,
		    version_t version, const void *data);
int peer_host_zero(struct peer_host *h, chunk_no_t chunk, block_no_t block, uint32_t block_count,
		   version_t version, bool discard);
int peer_host_watermark(struct peer_host *h, chunk_no_t chunk, version_t watermark);
/* Checks the CRCs of what comes. */
int peer_host_read(struct peer_host *h, chunk_no_t chunk, block_no_t block, uint32_t block_count,
		   void *ret_data);

/* Blocks of text that depends on seed. */
void peer_fill(void *data, uint32_t block_count, uint64_t seed);

#endif
