/* mutants of drivers that share a register: see mutants.h. */
#include "engine/kv/etcd.h"
#include "engine/kv/etcd_api.h"
#include "tests/sim/mutants.h"

static bool is(enum mutant m)
{
	return mutant_now() == m;
}

bool __real_etcd_may_issue(const struct etcd *e);
bool __wrap_etcd_may_issue(const struct etcd *e);
bool __wrap_etcd_may_issue(const struct etcd *e)
{
	return is(MUTANT_ISSUES_ALWAYS) || __real_etcd_may_issue(e);
}

int __real_etcd_grant(struct http *h, uint32_t ttl_s, uint32_t timeout_ms, int64_t *ret_lease,
		      struct error *err);
int __wrap_etcd_grant(struct http *h, uint32_t ttl_s, uint32_t timeout_ms, int64_t *ret_lease,
		      struct error *err);
int __wrap_etcd_grant(struct http *h, uint32_t ttl_s, uint32_t timeout_ms, int64_t *ret_lease,
		      struct error *err)
{
	return __real_etcd_grant(h, is(MUTANT_LEASE_SHORT) ? 1 : ttl_s, timeout_ms, ret_lease, err);
}

/* Of a leader's writes: who leads, and which of its writes is the next. */
void __real_etcd_txn_if_created(struct etcd_txn *t, const char *key, int64_t revision);
void __wrap_etcd_txn_if_created(struct etcd_txn *t, const char *key, int64_t revision);
void __wrap_etcd_txn_if_created(struct etcd_txn *t, const char *key, int64_t revision)
{
	if (revision == 0 || !is(MUTANT_DEPOSED_WRITES))
		__real_etcd_txn_if_created(t, key, revision);
}

void __real_etcd_txn_if_value(struct etcd_txn *t, const char *key, const char *value);
void __wrap_etcd_txn_if_value(struct etcd_txn *t, const char *key, const char *value);
void __wrap_etcd_txn_if_value(struct etcd_txn *t, const char *key, const char *value)
{
	if (!is(MUTANT_DEPOSED_WRITES))
		__real_etcd_txn_if_value(t, key, value);
}
