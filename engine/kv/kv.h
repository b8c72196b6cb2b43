/* An ordered key-value store with atomic batches: the node's index checkpoints and the placement
 * driver's register. Production: RocksDB (rocks.c, the only file that includes rocksdb/c.h), every
 * blocking call on the reactor's workers. Simulation: a map that loses what was not committed.
 * Never in the path of a write.
 *
 * Thread: the reactor's that it was opened on. Completions: exactly one, never inline. */
#ifndef KV_KV_H
#define KV_KV_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "engine/base/error.h"
#include "engine/reactor/reactor.h"

#define KV_FAMILIES_MAX 8u

struct kv;
struct kv_batch;

struct kv_op {
	void (*done)(struct kv_op *op, int status); /* 0, -EIO, -E_CORRUPT, -ENOMEM */
	uint64_t impl[16];
};

struct kv_get_op {
	void (*done)(struct kv_get_op *op, int status); /* 0, -ENOENT, -EIO, -E_CORRUPT */
	uint32_t family;
	uint8_t key[64];
	size_t key_size;
	void *value; /* the caller's memory */
	size_t value_max;
	size_t value_size; /* set on success; larger than value_max: cut */
	uint64_t impl[16];
};

struct kv_ops {
	struct kv_batch *(*batch_create)(struct kv *kv);
	void (*batch_put)(struct kv_batch *b, uint32_t family, const void *key, size_t key_size,
			  const void *value, size_t value_size);
	void (*batch_delete)(struct kv_batch *b, uint32_t family, const void *key, size_t key_size);
	void (*batch_delete_range)(struct kv_batch *b, uint32_t family, const void *from,
				   size_t from_size, const void *to, size_t to_size);
	void (*batch_destroy)(struct kv_batch *b);
	void (*commit)(struct kv *kv, struct kv_batch *b, struct kv_op *op);
	void (*get)(struct kv *kv, struct kv_get_op *op);
	int (*scan)(struct kv *kv, uint32_t family, const void *prefix, size_t prefix_size,
		    int (*each)(const void *key, size_t key_size, const void *value,
				size_t value_size, void *arg),
		    void *arg);
	void (*close)(struct kv *kv);
};

struct kv {
	const struct kv_ops *ops;
	struct reactor *reactor;
};

/* A batch: built on the reactor, applied whole or not at all. delete_range is [from, to).
 *
 * NULL: there is no memory. It may be used all the same: nothing goes into it, and its commit
 * fails, as that of a batch does for which memory ran out later. So only who can wait has to look.
 */
static inline struct kv_batch *kv_batch_create(struct kv *kv)
{
	return kv->ops->batch_create(kv);
}
static inline void kv_batch_put(struct kv *kv, struct kv_batch *b, uint32_t family, const void *key,
				size_t key_size, const void *value, size_t value_size)
{
	if (b != NULL)
		kv->ops->batch_put(b, family, key, key_size, value, value_size);
}
static inline void kv_batch_delete(struct kv *kv, struct kv_batch *b, uint32_t family,
				   const void *key, size_t key_size)
{
	if (b != NULL)
		kv->ops->batch_delete(b, family, key, key_size);
}
static inline void kv_batch_delete_range(struct kv *kv, struct kv_batch *b, uint32_t family,
					 const void *from, size_t from_size, const void *to,
					 size_t to_size)
{
	if (b != NULL)
		kv->ops->batch_delete_range(b, family, from, from_size, to, to_size);
}
/* Only for a batch that is not committed. NULL is allowed. */
static inline void kv_batch_destroy(struct kv *kv, struct kv_batch *b)
{
	if (b != NULL)
		kv->ops->batch_destroy(b);
}

/* Takes b over. When done runs with 0 the batch is durable; commits take effect in the order of the
 * calls. NULL: done runs with an error. */
static inline void kv_commit(struct kv *kv, struct kv_batch *b, struct kv_op *op)
{
	kv->ops->commit(kv, b, op);
}

static inline void kv_get(struct kv *kv, struct kv_get_op *op)
{
	kv->ops->get(kv, op);
}

/* Blocks; for start-up and offline tools. In key order over all keys that begin with prefix; ends
 * early with what each returned if that isn't 0. */
static inline int kv_scan(struct kv *kv, uint32_t family, const void *prefix, size_t prefix_size,
			  int (*each)(const void *key, size_t key_size, const void *value,
				      size_t value_size, void *arg),
			  void *arg)
{
	return kv->ops->scan(kv, family, prefix, prefix_size, each, arg);
}

/* Nothing may be in flight. NULL is allowed. */
static inline void kv_close(struct kv *kv)
{
	if (kv != NULL)
		kv->ops->close(kv);
}

/* -- production only (rocks.c) --------------------------------------------------------------- */

/* Opens or creates the database in the directory path with these column families (indexed from 0).
 * Blocks. Memory is bounded: block cache and memtables together cache_bytes (0: the default, 64
 * MiB). */
int kv_rocks_open(struct reactor *r, const char *path, const char *const *families,
		  uint32_t family_count, size_t cache_bytes, struct kv **ret_kv, struct error *err);

/* To look at: not a byte in the directory changes, and nothing is created there. What a crash left
 * in the log is read into memory, so that it is there too (no more than the log holds, which who
 * writes it bounds by cache_bytes). Commits fail. -ENOENT: there is no database with these families
 * in path; -E_IN_USE: some process has it open to write; otherwise as kv_rocks_open. */
int kv_rocks_open_read_only(struct reactor *r, const char *path, const char *const *families,
			    uint32_t family_count, size_t cache_bytes, struct kv **ret_kv,
			    struct error *err);

#endif
