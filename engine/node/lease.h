/* What the two parts of the lease keeper (lease.c: the conversation with the driver; intake.c: the
 * documents and the verdict) know of each other. Private to engine/node.
 *
 * INVARIANTS
 *  1. A lease is in force only while: the documents that it was given under are verified and
 *     durable here, this node's own verdict about its site is good, and the earlier end of both has
 *     not come. `state` says so, and `changed` was told of every change of it.
 *  2. What is held, the lease too, verifies under the root in force: under a new one it is verified
 *     again, and dropped if it doesn't; then there is no lease until the driver has sent what does.
 *  3. The trust is written by one worker at a time, for `intake`; while that runs this thread reads
 *     nothing of it but the root. The root is replaced on this thread, between two intakes. */
#ifndef NODE_LEASE_H
#define NODE_LEASE_H

#include "engine/base/drivers.h"
#include "engine/ledger/chain.h"
#include "engine/node/node.h"
#include "net/rpc/rpc.h"

#define LEASE_NONCE_SIZE     16u
#define LEASE_BACKOFF_MIN_MS 100u
#define LEASE_BACKOFF_MAX_MS 2000u
/* Between rounds over several drivers: while they choose a leader, the lease runs out. */
#define LEASE_BACKOFF_SEVERAL_MAX_MS 500u
#define LEASE_ASK_AGAIN_MS	     250u /* after a refusal, or a measure that tells nothing */
#define LEASE_REPLY_TIMEOUT_MS	     4000u
#define LEASE_ERASES_MAX	     64u /* of the driver, not yet answered */

enum lease_step {
	LEASE_WAITING,	  /* for the time to connect */
	LEASE_CONNECTING, /* for ready */
	LEASE_GREETING,	  /* for HelloReply */
	LEASE_IDLE,	  /* for the time to ask */
	LEASE_ASKING,	  /* for LeaseReply */
	LEASE_TAKING_IN,  /* for the documents of the reply to be durable */
	LEASE_STOPPING,
};

/* Documents on their way in, and the lease that came with them. */
struct intake {
	uint8_t *root, *revocations, *site; /* envelopes, copied; NULL: none */
	size_t root_size, revocations_size, site_size;
	bool withdraws; /* the snapshot withdraws the own site */
	bool has_lease;
	bool refused;		 /* the driver has refused one since: that one is none any more */
	struct lease lease;	 /* verified */
	uint64_t lease_limit_ns; /* its end by the time it was asked for, whatever the clocks say */
};

struct lease_erase {
	uint64_t token; /* 0: the place is free */
	uint64_t request_id;
	uint64_t connection; /* the number of the one it came by */
	/* Of an Erase, to be signed when it is done; malloc'd, NULL: it is something else. */
	Pave__V1__ErasureReport *report;
};

struct node_receipts {
	int64_t run;	 /* when the first one was made; 0: none yet */
	uint64_t serial; /* of the last one */
	Pave__V1__Signed *queue[NODE_RECEIPTS_MAX];
	uint32_t first, count;
	uint32_t sending; /* of the queue, from first on */
	struct rpc_call call;
	struct ledger_tip head; /* the newest of which the driver told */
};

struct node_lease {
	struct node_lease_config config;
	struct node_receipts receipts;
	bool draining; /* stops when the receipts are delivered */
	struct drivers drivers;
	char leader[ADDR_SIZE_MAX]; /* whom a driver that does not lead named; "" */
	char **addresses;	    /* copies */
	enum lease_step step;
	struct node_lease_state state; /* as `changed` was told */
	struct node_lease_stats stats;

	struct transport_conn *conn;
	struct rpc rpc;
	struct rpc_call call;
	uint64_t connection;	    /* its number */
	struct reactor_timer timer; /* to connect, or to ask */
	struct reactor_timer expiry_timer, drain_timer;
	uint32_t backoff_ms;
	bool ask_soon; /* something changed while a request was under way */
	uint8_t nonce[LEASE_NONCE_SIZE];
	uint64_t asked_ns;	 /* CLOCK_BOOTTIME */
	int64_t driver_clock_ns; /* its wall clock less CLOCK_BOOTTIME, as last measured */

	struct lease lease; /* the last one taken; node[0] == 0: none */
	uint64_t lease_limit_ns;
	struct site_document *site;
	struct revocations_document *revocations;
	/* As they came, to be verified again under another root; malloc'd. */
	struct held_envelope {
		uint8_t *data;
		size_t size;
	} site_envelope, revocations_envelope;

	struct reactor_work work;
	bool working;
	struct intake intake;		/* with the worker */
	struct intake next;		/* came meanwhile */
	struct site_document *new_site; /* results of the worker */
	struct revocations_document *new_revocations;
	int intake_status;
	struct error intake_err;

	char trouble[256];
	struct lease_erase erases[LEASE_ERASES_MAX]; /* and what else is answered later */
	uint64_t next_token;
	struct reactor_task stop_task;
	void (*stop_done)(void *arg);
	void *stop_arg;
	int told_status; /* why there is no lease, as it was last logged; 0: there is one */
};

/* -- intake.c --------------------------------------------------------------------------------- */

/* Takes over *in (zeroed afterwards). A withdrawal of the own site in it closes the gates before
 * this returns. node_lease_taken_in runs later, when all of it is durable, or was refused. */
void node_intake_begin(struct node_lease *k, struct intake *in);
void node_intake_clear(struct intake *in);

/* Why the lease ends now: what the documents say, or only that its time is over. */
int node_lease_end_reason(struct node_lease *k);

/* What holds now, from the lease and the documents; tells `changed` if it is news. */
void node_lease_evaluate(struct node_lease *k);

/* Closed, with why, until the next lease is taken. */
void node_lease_close(struct node_lease *k, int why);
/* The same, by a word of the driver's that is newer than any lease which is on its way in. */
void node_lease_refuse(struct node_lease *k, int why);

/* The revision of the own site's certificate that is held; 0: none. */
uint64_t node_lease_site_version(const struct node_lease *k);

/* -- erased.c --------------------------------------------------------------------------------- */

/* What will be said of the erasure once it is done. NULL: no memory. */
Pave__V1__ErasureReport *node_erasure_begin(const Pave__V1__Erase *what);
/* Signed, if the node has a key; *ret NULL otherwise. */
int node_erasure_sign(struct node_lease *k, Pave__V1__ErasureReport *report,
		      const struct node_erasure *done, Pave__V1__Signed **ret, struct error *err);

/* -- receipts.c ------------------------------------------------------------------------------- */

/* Sends what waits, if that is possible now. */
void node_receipts_send(struct node_lease *k);
/* The driver tells of its ledger: verified, and named in the receipts from now on. */
void node_receipts_take_head(struct node_lease *k, const Pave__V1__Signed *head);
void node_receipts_deinit(struct node_lease *k);

/* -- lease.c ---------------------------------------------------------------------------------- */

/* The documents of an intake have been taken in; status: 0, or the first that was refused. */
void node_lease_taken_in(struct node_lease *k, int status, bool with_lease);

/* The receipts are delivered: a stop may have waited for that. */
void node_lease_drained(struct node_lease *k);

/* Whether the lease verifies under the root in force; its end may come sooner then. */
bool node_lease_holds(struct node_lease *k);

/* The time by the driver's clock, once a lease has measured it; before, by this machine's. */
int64_t node_lease_driver_wall(const struct node_lease *k);

/* Asks again as soon as possible. */
void node_lease_ask_soon(struct node_lease *k);

#endif
