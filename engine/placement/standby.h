/* A placement driver that does not lead: it greets whoever comes, says so, names the one that does,
 * and answers everything else with E_NOT_LEADER.
 *
 * Thread: the driver's reactor. */
#ifndef PLACEMENT_STANDBY_H
#define PLACEMENT_STANDBY_H

#include "engine/base/types.h"
#include "net/transport.h"

#define STANDBY_SESSIONS_MAX 16000u
#define STANDBY_TIMEOUT_MS   10000u /* for a connection: to be greeted, and to go elsewhere */

struct standby;

/* leader: the address of the one that leads; "" when that is not known; asked at each greeting.
 * -ENOMEM. */
int standby_create(struct reactor *r, const struct uuid *cluster, const char *(*leader)(void *arg),
		   void *arg, struct standby **ret_standby);
/* From a listener's `accepted`. */
void standby_accept(struct standby *s, struct transport_conn *conn);
/* Ends the connections that are there: whoever comes back meets a leader. */
void standby_disconnect(struct standby *s);
/* done runs, never inline, when none is left; the standby is gone then. */
void standby_stop(struct standby *s, void (*done)(void *arg), void *arg);

#endif
