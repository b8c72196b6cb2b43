/* Workers that block: what a simulated process does on a worker thread (reactor_offload) runs on a
 * stack of its own, and may wait there for virtual time, while everything else goes on.
 *
 * A fiber runs within turns of its process, and is gone with the incarnation in which it was
 * started: what it had on its stack and on the heap is leaked then, as with any crash. */
#ifndef SIM_FIBER_H
#define SIM_FIBER_H

#include "tests/sim/process.h"

struct sim_fiber;

/* Runs fn(arg) until it ends or waits. PRE: in a turn of p, not on a fiber. */
void sim_fiber_start(struct sim_process *p, void (*fn)(void *arg), void *arg);

/* The one that runs now; NULL: none does. */
struct sim_fiber *sim_fiber_now(void);

/* On a fiber: comes back when it is woken. */
void sim_fiber_wait(void);
/* On a fiber: comes back after so long. */
void sim_fiber_sleep(uint64_t ns);

/* Goes on with one that waits, until it ends or waits again. PRE: in a turn of its process, in the
 * incarnation in which it was started. */
void sim_fiber_wake(struct sim_fiber *f);

/* -- for process.c --------------------------------------------------------------------------- */

/* The process has crashed. */
void sim_fiber_drop_all(struct sim_process *p);
void sim_fiber_destroy_all(struct sim_process *p);

#endif
