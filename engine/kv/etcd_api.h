/* etcd's API (v3, by its HTTP/JSON gateway), as far as the register needs it; blocks. Keys and
 * values are bytes here, and base64 on the wire. Specification: etcd 3.4, rpc.proto and kv.proto.
 *
 * Thread: one at a time for each struct http. */
#ifndef KV_ETCD_API_H
#define KV_ETCD_API_H

#include "engine/kv/http.h"

struct etcd_pair { /* a key with its value; both malloc'd, a NUL behind each that isn't counted */
	uint8_t *key, *value;
	size_t key_size, value_size;
	int64_t create_revision, mod_revision, lease;
};

struct etcd_pairs {
	struct etcd_pair *list; /* malloc'd */
	size_t count;
	bool more;
};

void etcd_pairs_deinit(struct etcd_pairs *p); /* zeroed memory is allowed */

/* A transaction: all of `compare` hold, then all of `success`, else `failure`. */
struct etcd_txn {
	json_t *compare, *success, *failure;
};

/* Nothing else of a transaction may be used when one of these failed; etcd_txn_commit says so. */
void etcd_txn_init(struct etcd_txn *t);
void etcd_txn_drop(struct etcd_txn *t); /* instead of etcd_txn_commit */
void etcd_txn_if_created(struct etcd_txn *t, const char *key, int64_t revision); /* 0: not there */
void etcd_txn_if_changed(struct etcd_txn *t, const char *key, int64_t revision);
void etcd_txn_if_value(struct etcd_txn *t, const char *key, const char *value);
void etcd_txn_put(struct etcd_txn *t, const void *key, size_t key_size, const void *value,
		  size_t value_size, int64_t lease);
/* to_size 0: only this key. */
void etcd_txn_delete(struct etcd_txn *t, const void *from, size_t from_size, const void *to,
		     size_t to_size);
/* Read when the comparison fails. */
void etcd_txn_else_get(struct etcd_txn *t, const char *key);

struct etcd_txn_reply {
	bool succeeded;
	int64_t revision;
	struct etcd_pairs got[2]; /* of the etcd_txn_else_get, in order */
};

/* Frees what is in t. -E_UNREACHABLE: it may have been carried out, or be so later, or twice;
 * -EINVAL: it was not, and never will be; -ENOMEM. */
int etcd_txn_commit(struct http *h, struct etcd_txn *t, uint32_t timeout_ms,
		    struct etcd_txn_reply *ret, struct error *err);
void etcd_txn_reply_deinit(struct etcd_txn_reply *r);

/* Linearizable. Keys from `from` up to `to`, excluded; to_size 0: only `from`. In order. */
int etcd_range(struct http *h, const void *from, size_t from_size, const void *to, size_t to_size,
	       uint32_t limit, uint32_t timeout_ms, struct etcd_pairs *ret, struct error *err);

int etcd_grant(struct http *h, uint32_t ttl_s, uint32_t timeout_ms, int64_t *ret_lease,
	       struct error *err);
int etcd_revoke(struct http *h, int64_t lease, uint32_t timeout_ms, struct error *err);

/* The first key behind all that begin with prefix; in place. */
void etcd_after_prefix(uint8_t *prefix, size_t *size);

#endif
