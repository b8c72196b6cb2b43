/* A conversation with the placement driver, for one command: connect, ask, wait. Blocks. */
#ifndef PAVE_CLIENT_H
#define PAVE_CLIENT_H

#include "control.pb-c.h"
#include "tools/common/cluster.h"

struct client;

#define CLIENT_CONNECT_MS 5000u
#define CLIENT_CALL_MS	  15000u

/* Connects to the driver of the cluster that leads, and greets it. -E_UNREACHABLE, -E_NOT_LEADER,
 * -E_WIRE_VERSION, ... */
int client_open(const struct cluster_ref *cluster, struct client **ret, struct error *err);
/* Asks, and waits for a reply with this body; *ret is the caller's
 * (pave__v1__control__free_unpacked). The driver's error with its text, -E_UNREACHABLE when it is
 * lost or slow. timeout_ms 0: CLIENT_CALL_MS. */
int client_call(struct client *c, const Pave__V1__Control *m, Pave__V1__Control__BodyCase expected,
		uint32_t timeout_ms, Pave__V1__Control **ret, struct error *err);
void client_close(struct client *c); /* NULL is allowed */

/* cmd_cluster, client_open, client_call, client_close in one; for commands that ask once. */
int client_ask(const Pave__V1__Control *m, Pave__V1__Control__BodyCase expected,
	       uint32_t timeout_ms, Pave__V1__Control **ret, struct error *err);

#endif
