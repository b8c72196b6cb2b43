/* What the parts of the register on etcd know of each other: etcd.c (who leads), etcd_kv.c (the
 * leader's kv), etcd_batch.c (batches as bytes). Private to engine/kv.
 *
 * Keys, behind the prefix:
 *   leader            {"name","address","ttl_s"}, under the leader's lease
 *   members/NAME      the address, under a lease of its own
 *   seq               "CREATED:N": the leader's N-th write
 *   f<I>/KEY 00 PPPP  part P of the value of KEY in family I: etcd bounds a request
 *   journal/XXXXXXXX  pieces of a large batch
 *   mark              how many pieces are to be carried out */
#ifndef KV_ETCD_CORE_H
#define KV_ETCD_CORE_H

#include <stdatomic.h>

#include "engine/kv/etcd.h"
#include "engine/kv/etcd_api.h"

/* etcd's own bounds, by default, are 128 operations and 1.5 MiB for a transaction. */
#define ETCD_PIECE_OPS	 100u
#define ETCD_PIECE_BYTES (768u << 10)
#define ETCD_PART_BYTES	 (512u << 10) /* of a value under one key */
#define ETCD_PARTS_MAX	 4096u
#define ETCD_KEY_MAX	 (ETCD_PREFIX_MAX + 128u)
#define ETCD_PAGE_MIN	 32u /* pairs asked for at once */
#define ETCD_PAGE_MAX	 1024u
#define ETCD_PAGE_BYTES	 (4u << 20) /* a page that is larger makes the next one smaller */
#define ETCD_TIMEOUT_MS	 2000u	    /* of one server, for data */
#define ETCD_BEAT_MS	 700u	    /* of one server, for who leads */

/* -- etcd_batch.c ----------------------------------------------------------------------------- */

struct etcd_bytes {
	uint8_t *data; /* malloc'd */
	size_t size, room;
	bool failed; /* no memory: what is in it is of no use */
};

void etcd_bytes_add(struct etcd_bytes *b, const void *data, size_t size);
void etcd_bytes_deinit(struct etcd_bytes *b);

struct etcd_piece { /* what one transaction carries out */
	struct etcd_bytes bytes;
	uint32_t ops;
};

struct etcd_pieces {
	struct etcd_piece *list; /* malloc'd */
	size_t count, room;
};

/* Takes the batch apart. -ENOMEM. */
int etcd_batch_pieces(const struct kv_batch *b, const char *prefix, struct etcd_pieces *ret);
void etcd_pieces_deinit(struct etcd_pieces *p);
/* Puts what a piece says into a transaction. -E_CORRUPT. */
int etcd_piece_fill(const void *data, size_t size, struct etcd_txn *t);

struct kv_batch *etcd_batch_create(struct kv *kv);
void etcd_batch_put(struct kv_batch *b, uint32_t family, const void *key, size_t key_size,
		    const void *value, size_t value_size);
void etcd_batch_delete(struct kv_batch *b, uint32_t family, const void *key, size_t key_size);
void etcd_batch_delete_range(struct kv_batch *b, uint32_t family, const void *from,
			     size_t from_size, const void *to, size_t to_size);
void etcd_batch_destroy(struct kv_batch *b);

struct etcd_record { /* of a family, whole again */
	uint32_t family;
	size_t key_size, value_size;
	uint8_t *data; /* malloc'd: key, value */
};

struct etcd_image {		  /* in the order of families and keys */
	struct etcd_record *list; /* malloc'd */
	size_t count, room;
	uint32_t parts_left; /* of the last one */
};

/* The next pair of etcd's, in order. -E_CORRUPT, -ENOMEM. */
int etcd_image_add(struct etcd_image *m, const char *prefix, const struct etcd_pair *pair);
void etcd_image_deinit(struct etcd_image *m);

/* The first key of KEY's parts; the second is behind the last. Returns the size. */
size_t etcd_part_key(uint8_t ret[ETCD_KEY_MAX], const char *prefix, uint32_t family,
		     const void *key, size_t key_size, uint32_t part);

/* -- etcd_kv.c -------------------------------------------------------------------------------- */

struct etcd_store; /* the kv of one leadership */

int etcd_store_create(const struct etcd_config *config, const char *prefix, int64_t created,
		      struct etcd_store **ret_store);
/* On a worker: claims the counter, finishes what an earlier leader marked, reads. -EIO: it leads no
 * more, or etcd is not reachable. */
int etcd_store_load(struct etcd_store *s);
struct kv *etcd_store_kv(struct etcd_store *s);
void etcd_store_loaded(struct etcd_store *s);
/* From now on everything fails. Any thread. */
void etcd_store_lose(struct etcd_store *s);
/* A write failed for good, on a worker. */
bool etcd_store_failed(const struct etcd_store *s);
void etcd_store_destroy(struct etcd_store *s); /* NULL is allowed */

#endif
