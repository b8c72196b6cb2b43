/* kv: RocksDB. See kv.h. The only file that includes rocksdb/c.h.
 *
 * INVARIANTS
 *  1. At most one commit is on a worker, the head of the queue; so commits take effect in the order
 *     of the calls however many workers the reactor has.
 *  2. A commit is one RocksDB batch, written to its log and synced before done: whole or not at
 * all.
 *  3. The worker touches only the operation that it was given, its batch, and the database, which
 *     locks itself.
 *
 * Happy path: commit -> queue -> worker: sorted, rocksdb_write with sync -> reactor: next of the
 * queue, done. get -> worker: rocksdb_get_pinned_cf, one copy into the caller's memory -> reactor:
 * done.
 *
 * Failure modes: what RocksDB says is logged with its own words; to the caller it is -E_CORRUPT
 * where checksums failed and -EIO otherwise, for want of memory too. After a failed write RocksDB
 * refuses all others, so the queue behind it fails too: for ever when its log could not be written,
 * until there is room again, and some seconds, when a table could not. A torn end of the log, as a
 * crash leaves it, is cut off at opening: it was never confirmed. A log that is damaged before its
 * end is -E_CORRUPT (wal.h).
 *
 * Memory: block cache (index and filter blocks included) and memtables get half of cache_bytes
 * each. */
#include "engine/kv/kv.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <rocksdb/c.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "engine/base/assert.h"
#include "engine/base/log.h"
#include "engine/base/types.h"
#include "engine/kv/batch.h"
#include "engine/kv/wal.h"

#define ROCKS_CACHE_DEFAULT   (64 * MIB)
#define ROCKS_CACHE_MIN	      (8 * MIB)
#define ROCKS_OPEN_FILES_MAX  256
#define ROCKS_BACKGROUND_JOBS 2
#define ROCKS_BLOCK_SIZE      (16 * KIB)
#define ROCKS_INFO_LOG_BYTES  (4 * MIB)
#define ROCKS_INFO_LOGS	      4
#define ROCKS_BLOOM_BITS      10.0
#define ROCKS_LOG_LEVEL_WARN  2
#define ROCKS_PIECE_BYTES     (256 * KIB)

struct commit {
	struct reactor_work work;
	struct rocks *rocks;
	struct kv_batch *batch;
	struct kv_op *next;
	int status;
};
_Static_assert(sizeof(struct commit) <= sizeof(((struct kv_op *)0)->impl), "impl is too small");

struct get {
	struct reactor_work work;
	struct rocks *rocks;
	int status;
};
_Static_assert(sizeof(struct get) <= sizeof(((struct kv_get_op *)0)->impl), "impl is too small");

struct kv_batch {
	struct rocks *rocks;
	struct batch batch;
};

#define LOCK_WAIT_MS 5000u /* for a process that was killed to be gone */

struct rocks {
	struct kv head;
	rocksdb_t *db;
	rocksdb_options_t *options;
	rocksdb_writeoptions_t *write_options;
	rocksdb_readoptions_t *get_options;
	rocksdb_readoptions_t *scan_options;
	rocksdb_cache_t *cache;
	rocksdb_column_family_handle_t *families[KV_FAMILIES_MAX];
	rocksdb_column_family_handle_t *unused_default; /* which RocksDB always has */
	uint32_t family_count;
	struct kv_op *commits; /* the queue; its head is on a worker */
	struct kv_op **commits_tail;
	uint64_t in_flight;
};

static struct rocks *rocks_of(struct kv *kv)
{
	return container_of(kv, struct rocks, head);
}

static struct commit *commit_of(struct kv_op *op)
{
	return (struct commit *)(void *)op->impl;
}

/* Takes over what RocksDB allocated. From any thread. */
static int code_of(char *text, const char *doing)
{
	int code = 0;

	if (text == NULL)
		return 0;
	code = strncmp(text, "Corruption", 10) == 0 ? -E_CORRUPT : -EIO;
	log_error("kv", "%s: %s", doing, text);
	rocksdb_free(text);
	return code;
}

/* -- batches --------------------------------------------------------------------------------- */

static rocksdb_column_family_handle_t *family_of(const struct rocks *rocks, uint32_t family)
{
	PRE(family < rocks->family_count);
	return rocks->families[family];
}

static struct kv_batch *rocks_batch_create(struct kv *kv)
{
	struct kv_batch *b = malloc(sizeof *b);

	if (b == NULL)
		return NULL;
	*b = (struct kv_batch){.rocks = rocks_of(kv)};
	return b;
}

static void rocks_batch_put(struct kv_batch *b, uint32_t family, const void *key, size_t key_size,
			    const void *value, size_t value_size)
{
	PRE(family < b->rocks->family_count);
	batch_add(&b->batch, BATCH_PUT, family, key, key_size, value, value_size);
}

static void rocks_batch_delete(struct kv_batch *b, uint32_t family, const void *key,
			       size_t key_size)
{
	PRE(family < b->rocks->family_count);
	batch_add(&b->batch, BATCH_DELETE, family, key, key_size, NULL, 0);
}

static void rocks_batch_delete_range(struct kv_batch *b, uint32_t family, const void *from,
				     size_t from_size, const void *to, size_t to_size)
{
	PRE(family < b->rocks->family_count);
	batch_add(&b->batch, BATCH_DELETE_RANGE, family, from, from_size, to, to_size);
}

static void rocks_batch_destroy(struct kv_batch *b)
{
	batch_deinit(&b->batch);
	free(b);
}

struct writing {
	const struct rocks *rocks;
	rocksdb_writebatch_t *writes;
};

static void write_one(const struct batch_record *r, void *arg)
{
	const struct writing *w = arg;
	rocksdb_column_family_handle_t *family = family_of(w->rocks, r->family);
	const char *key = (const char *)r->bytes, *value = key + r->key_size;

	switch ((enum batch_kind)r->kind) {
	case BATCH_PUT:
		rocksdb_writebatch_put_cf(w->writes, family, key, r->key_size, value,
					  r->value_size);
		break;
	case BATCH_DELETE:
		rocksdb_writebatch_delete_cf(w->writes, family, key, r->key_size);
		break;
	case BATCH_DELETE_RANGE:
		rocksdb_writebatch_delete_range_cf(w->writes, family, key, r->key_size, value,
						   r->value_size);
		break;
	}
}

/* -- commits --------------------------------------------------------------------------------- */

/* On a worker. */
static void commit_work(struct reactor_work *work)
{
	struct commit *c = container_of(work, struct commit, work);
	struct writing w = {.rocks = c->rocks};
	char *text = NULL;

	if (c->batch == NULL || c->batch->batch.failed) {
		log_error("kv", "commit: there is not enough memory");
		c->status = -EIO;
	} else {
		w.writes = rocksdb_writebatch_create();
		batch_visit(&c->batch->batch, write_one, &w);
		rocksdb_write(c->rocks->db, c->rocks->write_options, w.writes, &text);
		c->status = code_of(text, "commit");
		rocksdb_writebatch_destroy(w.writes);
	}
	if (c->batch != NULL)
		rocks_batch_destroy(c->batch);
	c->batch = NULL;
}

static void start_next_commit(struct rocks *rocks)
{
	if (rocks->commits != NULL)
		reactor_offload(rocks->head.reactor, &commit_of(rocks->commits)->work);
}

static void commit_done(struct reactor_work *work)
{
	struct commit *c = container_of(work, struct commit, work);
	struct rocks *rocks = c->rocks;
	struct kv_op *op = container_of(c, struct kv_op, impl);

	INVARIANT(rocks->commits == op && rocks->in_flight > 0);
	rocks->commits = c->next;
	if (rocks->commits == NULL)
		rocks->commits_tail = &rocks->commits;
	rocks->in_flight--;
	start_next_commit(rocks);
	op->done(op, c->status);
}

static void rocks_commit(struct kv *kv, struct kv_batch *b, struct kv_op *op)
{
	struct rocks *rocks = rocks_of(kv);
	struct commit *c = commit_of(op);
	bool was_empty = rocks->commits == NULL;

	PRE(op->done != NULL && (b == NULL || b->rocks == rocks));
	*c = (struct commit){
	    .work = {.work = commit_work, .done = commit_done}, .rocks = rocks, .batch = b};
	*rocks->commits_tail = op;
	rocks->commits_tail = &c->next;
	rocks->in_flight++;
	if (was_empty)
		start_next_commit(rocks);
}

/* -- reading --------------------------------------------------------------------------------- */

/* On a worker. */
static void get_work(struct reactor_work *work)
{
	struct get *g = container_of(work, struct get, work);
	struct kv_get_op *op = container_of(g, struct kv_get_op, impl);
	rocksdb_pinnableslice_t *slice;
	const char *value;
	char *text = NULL;
	size_t size = 0;

	slice = rocksdb_get_pinned_cf(g->rocks->db, g->rocks->get_options,
				      family_of(g->rocks, op->family), (const char *)op->key,
				      op->key_size, &text);
	g->status = code_of(text, "get");
	if (slice == NULL) {
		if (g->status == 0)
			g->status = -ENOENT;
		return;
	}
	value = rocksdb_pinnableslice_value(slice, &size);
	if (MIN(size, op->value_max) > 0)
		memcpy(op->value, value, MIN(size, op->value_max));
	op->value_size = size;
	rocksdb_pinnableslice_destroy(slice);
}

static void get_done(struct reactor_work *work)
{
	struct get *g = container_of(work, struct get, work);
	struct kv_get_op *op = container_of(g, struct kv_get_op, impl);

	INVARIANT(g->rocks->in_flight > 0);
	g->rocks->in_flight--;
	op->done(op, g->status);
}

static void rocks_get(struct kv *kv, struct kv_get_op *op)
{
	struct rocks *rocks = rocks_of(kv);
	struct get *g = (struct get *)(void *)op->impl;

	PRE(op->done != NULL && op->family < rocks->family_count && op->key_size <= sizeof op->key);
	*g = (struct get){.work = {.work = get_work, .done = get_done}, .rocks = rocks};
	rocks->in_flight++;
	reactor_offload(kv->reactor, &g->work);
}

static int rocks_scan(struct kv *kv, uint32_t family, const void *prefix, size_t prefix_size,
		      int (*each)(const void *key, size_t key_size, const void *value,
				  size_t value_size, void *arg),
		      void *arg)
{
	struct rocks *rocks = rocks_of(kv);
	rocksdb_iterator_t *it;
	char *text = NULL;
	int rc = 0;

	it = rocksdb_create_iterator_cf(rocks->db, rocks->scan_options, family_of(rocks, family));
	for (rocksdb_iter_seek(it, prefix, prefix_size); rocksdb_iter_valid(it) && rc == 0;
	     rocksdb_iter_next(it)) {
		size_t key_size, value_size;
		const char *key = rocksdb_iter_key(it, &key_size);
		const char *value = rocksdb_iter_value(it, &value_size);

		if (key_size < prefix_size ||
		    (prefix_size > 0 && memcmp(key, prefix, prefix_size) != 0))
			break;
		rc = each(key, key_size, value, value_size, arg);
	}
	if (rc == 0) {
		rocksdb_iter_get_error(it, &text);
		rc = code_of(text, "scan");
	}
	rocksdb_iter_destroy(it);
	return rc;
}

/* -- life ------------------------------------------------------------------------------------ */

static void destroy(struct rocks *rocks)
{
	for (uint32_t i = 0; i < KV_FAMILIES_MAX; i++) {
		if (rocks->families[i] != NULL)
			rocksdb_column_family_handle_destroy(rocks->families[i]);
	}
	if (rocks->unused_default != NULL)
		rocksdb_column_family_handle_destroy(rocks->unused_default);
	if (rocks->db != NULL)
		rocksdb_close(rocks->db);
	if (rocks->options != NULL)
		rocksdb_options_destroy(rocks->options);
	if (rocks->write_options != NULL)
		rocksdb_writeoptions_destroy(rocks->write_options);
	if (rocks->get_options != NULL)
		rocksdb_readoptions_destroy(rocks->get_options);
	if (rocks->scan_options != NULL)
		rocksdb_readoptions_destroy(rocks->scan_options);
	if (rocks->cache != NULL)
		rocksdb_cache_destroy(rocks->cache);
	free(rocks);
}

static void rocks_close(struct kv *kv)
{
	struct rocks *rocks = rocks_of(kv);

	PRE(rocks->in_flight == 0);
	destroy(rocks);
}

static const struct kv_ops rocks_ops = {
    .batch_create = rocks_batch_create,
    .batch_put = rocks_batch_put,
    .batch_delete = rocks_batch_delete,
    .batch_delete_range = rocks_batch_delete_range,
    .batch_destroy = rocks_batch_destroy,
    .commit = rocks_commit,
    .get = rocks_get,
    .scan = rocks_scan,
    .close = rocks_close,
};

static void set_table_options(struct rocks *rocks)
{
	rocksdb_block_based_table_options_t *table = rocksdb_block_based_options_create();

	rocksdb_block_based_options_set_block_cache(table, rocks->cache);
	rocksdb_block_based_options_set_block_size(table, ROCKS_BLOCK_SIZE);
	/* Otherwise they would be memory that no limit counts. */
	rocksdb_block_based_options_set_cache_index_and_filter_blocks(table, 1);
	rocksdb_block_based_options_set_pin_l0_filter_and_index_blocks_in_cache(table, 1);
	rocksdb_block_based_options_set_filter_policy(
	    table, rocksdb_filterpolicy_create_bloom_full(ROCKS_BLOOM_BITS));
	rocksdb_options_set_block_based_table_factory(rocks->options, table);
	rocksdb_block_based_options_destroy(table);
}

/* What a batch or a new table writes leaves in pieces, each when the one before is on the disk. All
 * of it at once, when it is synced, would hold up what else is written there: 10 MB did so for four
 * milliseconds. */
static rocksdb_options_t *in_pieces(rocksdb_options_t *o)
{
	rocksdb_options_t *strict = rocksdb_options_create();
	char *error = NULL;

	rocksdb_options_set_bytes_per_sync(o, ROCKS_PIECE_BYTES);
	rocksdb_options_set_wal_bytes_per_sync(o, ROCKS_PIECE_BYTES);
	rocksdb_options_set_writable_file_max_buffer_size(o, ROCKS_PIECE_BYTES);
	/* The C interface has no function for this one. */
	rocksdb_get_options_from_string(o, "strict_bytes_per_sync=true", strict, &error);
	if (error != NULL) {
		log_warn("kv", "RocksDB writes are not paced: %s", error);
		rocksdb_free(error);
		rocksdb_options_destroy(strict);
		return o;
	}
	rocksdb_options_destroy(o);
	return strict;
}

static void set_options(struct rocks *rocks, size_t cache_bytes)
{
	/* What is young is soon written again: compressing it would be for nothing. */
	static const int compression[] = {rocksdb_no_compression, rocksdb_no_compression,
					  rocksdb_lz4_compression};
	rocksdb_options_t *o = in_pieces(rocksdb_options_create());

	rocks->options = o;
	rocks->cache = rocksdb_cache_create_lru(cache_bytes / 2);
	rocksdb_options_set_create_if_missing(o, 1);
	rocksdb_options_set_create_missing_column_families(o, 1);
	rocksdb_options_set_paranoid_checks(o, 1);
	/* Half for the memtables of all families together; one alone is flushed at a quarter. */
	rocksdb_options_set_db_write_buffer_size(o, cache_bytes / 2);
	rocksdb_options_set_write_buffer_size(o, cache_bytes / 4);
	rocksdb_options_set_max_write_buffer_number(o, 2);
	rocksdb_options_set_max_total_wal_size(o, cache_bytes);
	rocksdb_options_set_max_open_files(o, ROCKS_OPEN_FILES_MAX);
	rocksdb_options_set_max_background_jobs(o, ROCKS_BACKGROUND_JOBS);
	rocksdb_options_set_compression_per_level(o, compression, ARRAY_SIZE(compression));
	/* What was confirmed is before whatever a crash has torn; what else may be wrong with a log
	 * wal_check has seen. */
	rocksdb_options_set_wal_recovery_mode(o, rocksdb_point_in_time_recovery);
	rocksdb_options_set_info_log_level(o, ROCKS_LOG_LEVEL_WARN);
	rocksdb_options_set_max_log_file_size(o, ROCKS_INFO_LOG_BYTES);
	rocksdb_options_set_keep_log_file_num(o, ROCKS_INFO_LOGS);
	rocksdb_options_set_stats_dump_period_sec(o, 0);
	set_table_options(rocks);

	rocks->write_options = rocksdb_writeoptions_create();
	rocksdb_writeoptions_set_sync(rocks->write_options, 1);
	rocks->get_options = rocksdb_readoptions_create();
	rocks->scan_options = rocksdb_readoptions_create();
	/* A scan of everything at start-up would only push out what is used often. */
	rocksdb_readoptions_set_fill_cache(rocks->scan_options, 0);
}

static int open_error(char *text, const char *path, struct error *err)
{
	int code = -EIO;

	if (strncmp(text, "Corruption", 10) == 0)
		code = -E_CORRUPT;
	else if (strstr(text, "lock file") != NULL || strstr(text, "lock hold by") != NULL)
		code = -E_IN_USE;
	else if (strncmp(text, "Invalid argument", 16) == 0)
		code = -EINVAL;
	error_set(err, code, "database %s: %s", path, text);
	rocksdb_free(text);
	return code;
}

/* One try. The caller's text is set where it fails. */
typedef rocksdb_t *open_fn(const rocksdb_options_t *options, const char *path, int count,
			   const char *const *names, const rocksdb_options_t *const *family_options,
			   rocksdb_column_family_handle_t **ret_handles, char **ret_text);

static rocksdb_t *open_to_look(const rocksdb_options_t *options, const char *path, int count,
			       const char *const *names,
			       const rocksdb_options_t *const *family_options,
			       rocksdb_column_family_handle_t **ret_handles, char **ret_text)
{
	return rocksdb_open_for_read_only_column_families(options, path, count, names,
							  family_options, ret_handles, 0, ret_text);
}

static int open_db(struct rocks *rocks, open_fn *open_one, const char *path,
		   const char *const *families, uint32_t family_count, struct error *err)
{
	const char *names[KV_FAMILIES_MAX + 1] = {"default"};
	const rocksdb_options_t *options[KV_FAMILIES_MAX + 1];
	rocksdb_column_family_handle_t *handles[KV_FAMILIES_MAX + 1] = {NULL};
	sigset_t all, before;
	const struct timespec pause = {.tv_nsec = 50 * 1000 * 1000};
	char *text = NULL;

	for (uint32_t i = 0; i <= family_count; i++) {
		options[i] = rocks->options;
		if (i > 0)
			names[i] = families[i - 1];
	}
	/* The threads that it starts inherit the mask; none of them may take a signal that the
	 * process means to handle. */
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	/* A killed process holds its lock until the kernel has let go of what it had in flight. */
	for (unsigned waited_ms = 0;; waited_ms += 50) {
		rocks->db = open_one(rocks->options, path, (int)family_count + 1, names, options,
				     handles, &text);
		if (text == NULL || strstr(text, "lock file") == NULL || waited_ms >= LOCK_WAIT_MS)
			break;
		rocksdb_free(text);
		text = NULL;
		nanosleep(&pause, NULL);
	}
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	if (text != NULL)
		return open_error(text, path, err);
	rocks->unused_default = handles[0];
	memcpy(rocks->families, &handles[1], family_count * sizeof handles[0]);
	rocks->family_count = family_count;
	return 0;
}

static int open_with(struct reactor *r, open_fn *open_one, const char *path,
		     const char *const *families, uint32_t family_count, size_t cache_bytes,
		     struct kv **ret_kv, struct error *err)
{
	struct rocks *rocks = calloc(1, sizeof *rocks);
	int rc;

	PRE(family_count >= 1 && family_count <= KV_FAMILIES_MAX);
	if (rocks == NULL)
		return error_set(err, -ENOMEM, "database %s: %s", path, err_text(-ENOMEM));
	rocks->head = (struct kv){.ops = &rocks_ops, .reactor = r};
	rocks->commits_tail = &rocks->commits;
	if (cache_bytes == 0)
		cache_bytes = ROCKS_CACHE_DEFAULT;
	set_options(rocks, MAX(cache_bytes, ROCKS_CACHE_MIN));
	rc = wal_check(path, err);
	if (rc == 0)
		rc = open_db(rocks, open_one, path, families, family_count, err);
	if (rc != 0) {
		destroy(rocks);
		return rc;
	}
	*ret_kv = &rocks->head;
	return 0;
}

int kv_rocks_open(struct reactor *r, const char *path, const char *const *families,
		  uint32_t family_count, size_t cache_bytes, struct kv **ret_kv, struct error *err)
{
	return open_with(r, rocksdb_open_column_families, path, families, family_count, cache_bytes,
			 ret_kv, err);
}

/* -- only to look ------------------------------------------------------------------------------ */

/* Who opens to look takes no lock, but another's would mean that what is seen goes on changing:
 * whether there is one can be asked without taking it. */
static bool is_locked(const char *path)
{
	struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
	char name[4400];
	bool locked;
	int fd;

	snprintf(name, sizeof name, "%s/LOCK", path);
	fd = open(name, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return false;
	locked = fcntl(fd, F_GETLK, &lock) == 0 && lock.l_type != F_UNLCK;
	close(fd);
	return locked;
}

static int check_before_look(const char *path, struct error *err)
{
	const struct timespec pause = {.tv_nsec = 50 * 1000 * 1000};
	char current[4400];

	snprintf(current, sizeof current, "%s/CURRENT", path);
	if (access(current, F_OK) != 0 && (errno == ENOENT || errno == ENOTDIR))
		return error_set(err, -ENOENT,
				 "%s holds no database: there is no file CURRENT in it", path);
	if (access(current, F_OK) != 0)
		return error_set(err, -errno, "database %s: %s", path, strerror(errno));
	for (unsigned waited_ms = 0; is_locked(path); waited_ms += 50) {
		if (waited_ms >= LOCK_WAIT_MS)
			return error_set(err, -E_IN_USE,
					 "database %s: another process has it open: end that first",
					 path);
		nanosleep(&pause, NULL);
	}
	return 0;
}

static bool has_families(const char *path, const char *const *families, uint32_t count)
{
	rocksdb_options_t *options = rocksdb_options_create();
	char **names, *text = NULL;
	size_t there = 0;
	uint32_t found = 0;

	names = rocksdb_list_column_families(options, path, &there, &text);
	for (uint32_t i = 0; names != NULL && i < count; i++)
		for (size_t k = 0; k < there; k++)
			if (strcmp(names[k], families[i]) == 0) {
				found++;
				break;
			}
	if (names != NULL)
		rocksdb_list_column_families_destroy(names, there);
	rocksdb_options_destroy(options);
	if (text == NULL)
		return found == count;
	rocksdb_free(text); /* opening it will say the same */
	return true;
}

int kv_rocks_open_read_only(struct reactor *r, const char *path, const char *const *families,
			    uint32_t family_count, size_t cache_bytes, struct kv **ret_kv,
			    struct error *err)
{
	int rc = check_before_look(path, err);

	if (rc == 0 && !has_families(path, families, family_count))
		rc = error_set(err, -ENOENT,
			       "database %s: it is one of something else: it lacks what is kept "
			       "in such a one (%s)",
			       path, families[0]);
	if (rc != 0)
		return rc;
	return open_with(r, open_to_look, path, families, family_count, cache_bytes, ret_kv, err);
}
