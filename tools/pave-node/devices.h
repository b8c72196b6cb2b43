/* What an admin asks of the node's devices: list, add, retire; one change at a time.
 *
 * Thread: the reactor's. */
#ifndef PAVE_NODE_DEVICES_H
#define PAVE_NODE_DEVICES_H

#include "control.pb-c.h"
#include "engine/pool/pool.h"

struct devices;

/* answer: called once for each devices_ask, inline for what is known at once; status < 0: text says
 * why, else message is the reply. 0 or -ENOMEM. */
int devices_start(struct reactor *r, struct pool *pool,
		  void (*answer)(uint64_t token, int status, const char *text,
				 const Pave__V1__Control *message, void *arg),
		  void *arg, struct devices **ret_devices);

/* what is valid until this returns. */
void devices_ask(struct devices *d, uint64_t token, const Pave__V1__NodeDevices *what);

/* Nothing may be under way: the pool has been closed. NULL is allowed. */
void devices_destroy(struct devices *d);

#endif
