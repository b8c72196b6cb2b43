/* A simulated kv (engine/kv/kv.h) that outlives the process that uses it.
 *
 * Batches take effect and become durable together, in the order of the commits, each after a delay.
 * A crash, of either kind, keeps some first ones of those in flight (their done never runs) and
 * loses the rest; the process's fate can force all or none. */
#ifndef SIM_KV_H
#define SIM_KV_H

#include "engine/kv/kv.h"
#include "tests/sim/process.h"

struct sim_kv;

/* A database of p's machine, empty. It goes with the world. */
struct sim_kv *sim_kv_create(struct sim_process *p, const char *name, uint32_t family_count);

/* For p's present incarnation. One opener at a time (PRE); a crash closes it. */
struct kv *sim_kv_open(struct sim_kv *k);

/* The n-th commit from now on (1 is the next one) meets this action. */
void sim_kv_on_commit(struct sim_kv *k, uint64_t n, enum sim_io_action action);

/* For the next `count` batches there is no memory. */
void sim_kv_fail_batches(struct sim_kv *k, uint64_t count);

/* What is committed, in key order, whoever has it open. */
void sim_kv_each(struct sim_kv *k, uint32_t family,
		 void (*each)(const void *key, size_t key_size, const void *value,
			      size_t value_size, void *arg),
		 void *arg);

/* The next `count` gets fail with -EIO. */
void sim_kv_fail_gets(struct sim_kv *k, uint64_t count);

/* From now on a get, or a commit, takes so much longer. */
void sim_kv_slow_gets(struct sim_kv *k, uint64_t delay_ns);
void sim_kv_slow_commits(struct sim_kv *k, uint64_t delay_ns);

uint64_t sim_kv_commit_count(const struct sim_kv *k);
uint64_t sim_kv_key_count(const struct sim_kv *k, uint32_t family);

#endif
