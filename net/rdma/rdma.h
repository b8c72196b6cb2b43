/* The transport on RDMA (libibverbs), over another transport, the carrier (TCP), which introduces
 * the peers to each other and watches that they live. See README.md for how it works.
 *
 * A node that has it listens as "HOST:PORT+rdma": the carrier's address, and what it offers. Who
 * connects to such an address with this transport gets a connection whose frames go over RDMA; to
 * any other address, the carrier's own connection. Who comes without asking for RDMA is given to
 * `accepted` as the carrier's connection, when its first frame has arrived.
 *
 *   connect:  INTRODUCING --control ready, asked--> ASKING --answer--> GREETING --first message-->
 *             OPEN --end--> ENDING --nothing in flight--> GONE (in closed)
 *   accept:   (control's first frame asks) --answered--> GREETING --first message--> OPEN ...
 *
 * Errors beyond transport.h's: closed(-E_DISCONNECTED) for every completion that is not a success
 * and for every end of the control connection; -ENODEV when the device is gone; -E_LIMIT when it,
 * or the peer's, has no more queue pairs, completions, or receive buffers; -ENOMEM when it
 * registers no more memory. Where RDMA is not required, an address whose set-up failed is connected
 * to over the carrier for RDMA_FALLBACK_MS: the owner's next attempt works. One warning tells of
 * it. */
#ifndef RDMA_RDMA_H
#define RDMA_RDMA_H

#include "net/transport.h"

struct rdma_verbs; /* verbs.h */

#define RDMA_CONNS_MAX	   128u	 /* of one transport; fewer where the device has less */
#define RDMA_CREDITS	   64u	 /* messages that a peer may have under way to us */
#define RDMA_SENDS_MAX	   64u	 /* messages of ours under way, a connection */
#define RDMA_INTRODUCE_MS  5000u /* for the first frame of who connects */
#define RDMA_INTROS_MAX	   256u /* of a listener, whose first frame is awaited: a descriptor each */
#define RDMA_SETUP_MS	   3000u /* from the control connection's being ready to OPEN */
#define RDMA_FLUSH_MS	   500u	 /* for what is in flight to come back after the end */
#define RDMA_FALLBACK_MS   60000u
#define RDMA_FALLBACKS_MAX 64u /* addresses remembered; then the oldest is tried again */
#define RDMA_GIDS_MAX	   256u
#define RDMA_TRANSPORT	   "rdma"
#define RDMA_POLL_US_MAX   1000000u

struct rdma_config {
	struct reactor *reactor;	/* the production one (reactor_memory_range) */
	struct transport *carrier;	/* outlives this transport */
	const struct rdma_verbs *verbs; /* NULL: the library's */
	const char *device;		/* NULL: the first with an active port */
	bool required;			/* never falls back to the carrier ... */
	const char *plain_addresses; /* ... but for these (the drivers), with commas; NULL: none */
	uint32_t poll_us;	     /* keeps polling so long before it sleeps */
};

/* Tries the device out: opens it and makes every queue once. -ENODEV: there is none, or it has no
 * active port, or not the one that was asked for; or what a verb returned. */
int transport_rdma_create(const struct rdma_config *config, struct transport **ret_transport,
			  struct error *err);

/* What all connections of this transport did so far. */
struct rdma_counters {
	uint64_t post_calls;   /* post_send; a system call each on a device in software */
	uint64_t poll_calls;   /* poll_cq: none is a system call */
	uint64_t events;       /* times that the completion channel woke us: one read(2) each */
	uint64_t notify_calls; /* req_notify_cq */
	uint64_t messages;     /* sent, acknowledgements of ours included */
	uint64_t acks;	       /* of them, those that carried no frame */
	uint64_t pulls;	       /* payloads fetched with RDMA READ */
	uint64_t pulled_bytes;
	uint64_t copied_bytes;	/* of small payloads, into the message */
	uint64_t registrations; /* of memory, for one payload that lay outside of the pools */
	uint64_t fallbacks;	/* set-ups that failed, after which the carrier is used */
	uint64_t lost;		/* connections that ended by the peer or by an error */
};
void transport_rdma_counters(const struct transport *t, struct rdma_counters *ret);

#endif
