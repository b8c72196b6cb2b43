/* A simulated etcd behind engine/kv/http.h, so that engine/kv/etcd.h itself, its elections,
 * transactions and journal, runs here unchanged. It outlives all processes, and loses nothing.
 *
 * Its three servers are as good as one another; what it does is done at one moment (consensus).
 * What it is told travels for a while, sometimes for long: the asker gives up after its own time,
 * and never knows whether a request was lost, is still to be carried out, or was, and the answer
 * lost. What is sent while a server cannot be reached, or there is no majority, is lost, or comes
 * late: when that is over, in any order, perhaps from a process that is dead by then.
 *
 * Who posts on a worker waits there for virtual time (fiber.h); who posts on its reactor's thread
 * is stopped for as long, up to some seconds. Leases end some time after they might; all begin anew
 * after a time without majority. */
#ifndef SIM_ETCD_H
#define SIM_ETCD_H

#include "engine/kv/etcd.h"
#include "tests/sim/process.h"

#define SIM_ETCD_SERVERS 3u

struct sim_etcd;

/* Empty. One at a time; every http_post goes to it. Destroyed after its world's last step. */
struct sim_etcd *sim_etcd_create(struct sim_world *w);
void sim_etcd_destroy(struct sim_etcd *e); /* NULL is allowed */

/* From now on p does not reach these servers, one bit each; 0: it reaches all. */
void sim_etcd_cut(struct sim_etcd *e, const struct sim_process *p, uint32_t servers);
/* From now on there is no majority, or one again. */
void sim_etcd_halt(struct sim_etcd *e, bool halted);
/* From now on a transaction carries out at most so many operations of a batch (at least one); the
 * others take the journal. */
void sim_etcd_split(struct sim_etcd *e, uint32_t ops_max);
void sim_etcd_heal_all(struct sim_etcd *e);

/* What is in it in truth. The value of a key: borrowed until the next step; NULL: it isn't there.
 */
const void *sim_etcd_value(const struct sim_etcd *e, const char *key, size_t *ret_size);
/* Of all keys that begin with prefix, in order. */
void sim_etcd_each(const struct sim_etcd *e, const char *prefix,
		   void (*each)(const void *key, size_t key_size, const void *value,
				size_t value_size, void *arg),
		   void *arg);

/* etcd_may_issue by p's clock, asked from outside of its turns. */
bool sim_etcd_may_issue(const struct etcd *etcd, const struct sim_process *p);

#endif
