/* A bounded pool of threads that run blocking work for one reactor, in the order of asking (with
 * one thread: one after the other). The reactor owns the way back: `finished` is called on the
 * worker thread, once for each work. */
#ifndef REACTOR_WORKERS_H
#define REACTOR_WORKERS_H

#include <stdint.h>

#include "engine/reactor/reactor.h"

#define WORKERS_MAX 16u

struct workers;

/* Starts count threads (1 to WORKERS_MAX) with all signals blocked, named after name. 0, -ENOMEM or
 * -EAGAIN. */
int workers_create(uint32_t count, const char *name, void (*finished)(struct reactor_work *work),
		   struct workers **ret_workers);

/* From any thread. Lends work until finished is called for it. */
void workers_submit(struct workers *ws, struct reactor_work *work);

/* Ends the threads after what is queued has been run, and waits for them. NULL is allowed. */
void workers_destroy(struct workers *ws);

#endif
