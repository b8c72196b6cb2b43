/* store-recovery: how long a node's devices take to open after a crash at the longest distance to
 * their last checkpoints that stores allow.
 *
 *   store-recovery --dir DIR [--shape mild|worst] [--devices N] [--size 16GiB] [--cache 1GiB]
 *                  [--pages 262144] [--bound 10]
 *
 * On the production reactor, disk, kv and pool, with files in DIR. From one moment on kv holds
 * every commit back, as one that hangs would, and blocks are written until the stores let no more
 * in. There all is abandoned, without closing, and opened again: from before the first file is
 * opened (RocksDB's and the check of its log included) until everything may be served.
 *
 *   mild   a volume written in order, 1 MiB at a time; then blocks of 4 KiB at random, depth 128
 *   worst  --pages pages of the index on each device, of one block each, so that all are cold; then
 *          one write of 4 KiB to each, depth 1, so that each is a group of its own: 8 KiB of log
 *
 * Printed: how much of the log and how many pages of the index were read, the time, and the longest
 * of the devices as the store counts it (store_stats). Both files are dropped from the page cache
 * before.
 *
 * Exit codes: 0 within --bound seconds, 1 not, or failed, 2 usage. The files in DIR are made anew
 * and removed at the end. */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "engine/base/crc32c.h"
#include "engine/base/text.h"
#include "engine/pool/pool.h"

#define DEPTH	     128u
#define SEQ_DEPTH    8u
#define CHUNK_BLOCKS ((uint32_t)(CHUNK_SIZE_DEFAULT / BLOCK_SIZE))
#define VOLUME	     7u
#define QUIET_NS     (5 * NS_PER_S) /* so long without an answer: the store lets nothing in */
#define HELD_MAX     64u

struct slot {
	struct store_write write;
	struct bench *bench;
	uint8_t *data;
	uint32_t crcs[IO_BLOCKS_MAX];
};

/* A layer over kv that may hold commits back. */
struct holding_kv {
	struct kv head;
	struct kv *below;
	bool holds;
	struct kv_batch *held[HELD_MAX]; /* a store has one under way at most */
	uint32_t held_count;
};

struct bench {
	struct reactor *reactor;
	struct disk *disks[POOL_DEVICES_MAX]; /* the pool's, but for a crash */
	struct holding_kv kv;
	struct pool *pool;
	char disk_paths[POOL_DEVICES_MAX][300], kv_path[300];
	uint64_t size_bytes, cache_bytes, volume_blocks;
	uint64_t devices, pages, bound_s;
	bool worst;
	struct slot slots[DEPTH];
	uint64_t seq, cursor, limit, random_state, answered;
	uint32_t in_flight, blocks;
	enum { IN_ORDER, AT_RANDOM, PAGE_BY_PAGE, PAGES_SCATTERED } order;
	bool stopping, done;
	int status;
};

static uint64_t next_random(struct bench *b)
{
	b->random_state ^= b->random_state << 13;
	b->random_state ^= b->random_state >> 7;
	b->random_state ^= b->random_state << 17;
	return b->random_state;
}

/* -- the layer -------------------------------------------------------------------------------- */

static struct holding_kv *holding(struct kv *kv)
{
	return container_of(kv, struct holding_kv, head);
}

static struct kv_batch *hold_batch_create(struct kv *kv)
{
	return kv_batch_create(holding(kv)->below);
}

static void hold_commit(struct kv *kv, struct kv_batch *batch, struct kv_op *op)
{
	struct holding_kv *h = holding(kv);

	if (h->holds && h->held_count < HELD_MAX)
		h->held[h->held_count++] = batch;
	else
		kv_commit(h->below, batch, op);
}

static void hold_get(struct kv *kv, struct kv_get_op *op)
{
	kv_get(holding(kv)->below, op);
}

static int hold_scan(struct kv *kv, uint32_t family, const void *prefix, size_t prefix_size,
		     int (*each)(const void *key, size_t key_size, const void *value,
				 size_t value_size, void *arg),
		     void *arg)
{
	return kv_scan(holding(kv)->below, family, prefix, prefix_size, each, arg);
}

static void hold_close(struct kv *kv)
{
	struct holding_kv *h = holding(kv);

	for (uint32_t i = 0; i < h->held_count; i++)
		kv_batch_destroy(h->below, h->held[i]);
	kv_close(h->below);
	*h = (struct holding_kv){0};
}

static int open_kv(struct bench *b, struct error *err)
{
	static struct kv_ops ops;
	struct kv *below;
	int rc = kv_rocks_open(b->reactor, b->kv_path, store_kv_family_names, STORE_KV_FAMILIES, 0,
			       &below, err);

	if (rc < 0)
		return rc;
	ops = *below->ops;
	ops.batch_create = hold_batch_create;
	ops.commit = hold_commit;
	ops.get = hold_get;
	ops.scan = hold_scan;
	ops.close = hold_close;
	b->kv = (struct holding_kv){.head = {.ops = &ops, .reactor = b->reactor}, .below = below};
	return 0;
}

/* -- writing ---------------------------------------------------------------------------------- */

static void submit(struct slot *s);

static void write_done(struct store_write *op, int status)
{
	struct slot *s = container_of(op, struct slot, write);
	struct bench *b = s->bench;

	b->in_flight--;
	b->answered++;
	if (status < 0)
		b->status = status;
	if (b->status < 0 || b->stopping || b->cursor >= b->limit) {
		b->done = b->done || b->in_flight == 0;
		return;
	}
	submit(s);
}

/* Of all pages, in an order in which no two that lie together follow one another. */
static uint64_t scattered(const struct bench *b, uint64_t i)
{
	return i * 2654435761u % (b->pages * b->devices);
}

static uint64_t next_block(struct bench *b)
{
	const uint64_t i = b->cursor;

	b->cursor += b->order == IN_ORDER ? b->blocks : 1;
	switch (b->order) {
	case AT_RANDOM:
		return next_random(b) % b->volume_blocks;
	case PAGE_BY_PAGE:
		return i * PAGE_BLOCKS;
	case PAGES_SCATTERED:
		return scattered(b, i) * PAGE_BLOCKS + i % PAGE_BLOCKS;
	default:
		return i;
	}
}

static void submit(struct slot *s)
{
	struct bench *b = s->bench;
	const uint64_t at = next_block(b);

	b->in_flight++;
	b->seq++;
	memcpy(s->data, &b->seq, sizeof b->seq);
	crc32c_blocks(s->data, b->blocks, s->crcs);
	s->write = (struct store_write){
	    .done = write_done,
	    .kind = STORE_DATA,
	    .volume = VOLUME,
	    .chunk = (chunk_no_t)(at / CHUNK_BLOCKS),
	    .block = (block_no_t)(at % CHUNK_BLOCKS),
	    .block_count = b->blocks,
	    .version = version_make(1, b->seq),
	    .crcs = s->crcs,
	    .data = s->data,
	};
	pool_write(b->pool, &s->write);
}

static void begin_writes(struct bench *b, uint32_t blocks, uint32_t depth)
{
	b->blocks = blocks;
	b->cursor = 0;
	b->done = false;
	for (uint32_t i = 0; i < depth && b->cursor < b->limit; i++)
		submit(&b->slots[i]);
}

/* What the index will have when kv stops. */
static int fill(struct bench *b)
{
	b->order = b->worst ? PAGE_BY_PAGE : IN_ORDER;
	b->limit = b->worst ? b->pages * b->devices : b->volume_blocks;
	begin_writes(b, b->worst ? 1 : IO_BLOCKS_MAX, b->worst ? DEPTH : SEQ_DEPTH);
	reactor_run_until(b->reactor, &b->done, UINT64_MAX);
	return b->status;
}

/* Until nothing has been answered for a while, or every page was written to. */
static int write_until_held(struct bench *b)
{
	uint64_t before = UINT64_MAX;

	b->kv.holds = true;
	b->order = b->worst ? PAGES_SCATTERED : AT_RANDOM;
	b->limit = b->worst ? b->pages * b->devices : UINT64_MAX;
	begin_writes(b, 1, b->worst ? 1 : DEPTH);
	while (b->answered != before && b->status == 0 && !b->done) {
		before = b->answered;
		reactor_refresh(b->reactor);
		reactor_run_until(b->reactor, &b->done, reactor_now_ns(b->reactor) + QUIET_NS);
	}
	return b->status;
}

/* -- opening ---------------------------------------------------------------------------------- */

struct opening {
	struct pool_open_op op;
	struct bench *bench;
	struct error err;
	bool done;
};

static void opened(struct pool_open_op *op, int status, struct pool *pool, const struct error *err)
{
	struct opening *o = container_of(op, struct opening, op);

	o->bench->pool = pool;
	if (status < 0)
		o->err = *err;
	o->done = true;
}

static int open_pool(struct bench *b, struct error *err)
{
	static struct opening o;
	int rc = 0;

	o = (struct opening){.bench = b,
			     .op = {.done = opened, .disk_count = (uint32_t)b->devices}};
	for (uint32_t i = 0; i < b->devices && rc == 0; i++) {
		rc = disk_file_open(b->reactor, b->disk_paths[i], &b->disks[i], err);
		o.op.disks[i] = (struct pool_disk){.disk = b->disks[i], .path = b->disk_paths[i]};
	}
	if (rc == 0)
		rc = open_kv(b, err);
	if (rc < 0)
		return rc;
	o.op.config = (struct pool_config){.reactor = b->reactor,
					   .kv = &b->kv.head,
					   .identity = {.node = "bench", .shard_count = 1},
					   .cache_bytes = b->cache_bytes};
	pool_open(&o.op);
	reactor_run_until(b->reactor, &o.done, UINT64_MAX);
	*err = o.err;
	return err->code;
}

static void closed(void *arg)
{
	*(bool *)arg = true;
}

static void close_pool(struct bench *b)
{
	bool is_closed = false;

	if (b->pool != NULL) {
		pool_close(b->pool, closed, &is_closed);
		reactor_run_until(b->reactor, &is_closed, UINT64_MAX);
	}
	b->pool = NULL;
	if (b->kv.below != NULL)
		kv_close(&b->kv.head);
	memset(b->disks, 0, sizeof b->disks);
}

/* As if the process had gone: what the stores had in flight is dropped with it. */
static void crash(struct bench *b)
{
	char command[700];

	pool_abandon(b->pool);
	b->pool = NULL;
	kv_close(&b->kv.head);
	for (uint32_t i = 0; i < b->devices; i++)
		disk_close(b->disks[i]);
	memset(b->disks, 0, sizeof b->disks);
	snprintf(command, sizeof command,
		 "find '%s' '%s'* -type f -exec dd if='{}' iflag=nocache "
		 "count=0 status=none \\;",
		 b->kv_path, b->disk_paths[0]);
	if (system(command) != 0)
		fprintf(stderr, "store-recovery: the page cache keeps the index\n");
}

static int measure(struct bench *b, struct error *err, double *ret_s)
{
	struct store_stats stats, one;
	uint64_t begun_ns, longest_ms = 0;
	int rc = 0;

	for (uint32_t i = 0; i < b->devices && rc == 0; i++) {
		unlink(b->disk_paths[i]);
		rc = disk_file_create(b->disk_paths[i], b->size_bytes, err);
	}
	if (rc == 0)
		rc = open_pool(b, err);
	if (rc < 0)
		return rc;
	pool_get_stats(b->pool, &stats);
	b->volume_blocks = stats.size_bytes / BLOCK_SIZE / 2 / IO_BLOCKS_MAX * IO_BLOCKS_MAX;
	rc = fill(b);
	if (rc == 0 && b->worst) { /* so that all pages are in RocksDB */
		close_pool(b);
		rc = open_pool(b, err);
		if (rc < 0)
			return rc;
	}
	if (rc == 0)
		rc = write_until_held(b);
	if (rc < 0)
		return error_set(err, rc, "a write failed: %s", err_text(rc));
	crash(b);
	reactor_refresh(b->reactor);
	begun_ns = reactor_now_ns(b->reactor);
	rc = open_pool(b, err);
	if (rc < 0)
		return rc;
	reactor_refresh(b->reactor);
	*ret_s = (double)(reactor_now_ns(b->reactor) - begun_ns) / 1e9;
	for (uint32_t i = 0; i < b->devices; i++) {
		store_get_stats(pool_store(b->pool, i), &one);
		longest_ms = MAX(longest_ms, one.recovery_ms);
	}
	pool_get_stats(b->pool, &stats);
	printf("recovery after a crash, %s, %llu devices: %.0f MiB of log, %llu groups, %llu pages "
	       "of the index read: %.2f s, of these %.2f s in the slowest store; memory %.0f MiB\n",
	       b->worst ? "worst shape" : "mild shape", (unsigned long long)b->devices,
	       (double)stats.recovered_bytes / (double)MIB,
	       (unsigned long long)stats.recovered_groups, (unsigned long long)stats.index_reads,
	       *ret_s, (double)longest_ms / 1e3, (double)stats.memory_bytes / (double)MIB);
	return 0;
}

static void tear_down(struct bench *b)
{
	char command[400];

	close_pool(b);
	reactor_destroy(b->reactor);
	for (uint32_t i = 0; i < b->devices; i++)
		unlink(b->disk_paths[i]);
	snprintf(command, sizeof command, "rm -rf '%s'", b->kv_path);
	if (system(command) != 0)
		fprintf(stderr, "store-recovery: %s is left\n", b->kv_path);
}

static int set_up(struct bench *b, const char *dir, struct error *err)
{
	struct reactor_config config = {.name = "bench", .worker_count = 4};
	int rc = reactor_create(&config, &b->reactor);

	for (uint32_t i = 0; i < b->devices; i++)
		snprintf(b->disk_paths[i], sizeof b->disk_paths[i], "%s/store-recovery.disk%u", dir,
			 i);
	snprintf(b->kv_path, sizeof b->kv_path, "%s/store-recovery.kv", dir);
	if (rc < 0)
		return error_set(err, rc, "io_uring: %s", err_text(rc));
	for (uint32_t i = 0; i < DEPTH; i++) {
		b->slots[i].bench = b;
		b->slots[i].data =
		    reactor_memory(b->reactor, i < SEQ_DEPTH ? IO_SIZE_MAX : BLOCK_SIZE);
		if (b->slots[i].data == NULL)
			return error_set(err, -ENOMEM, "there is no memory for the buffers");
	}
	return 0;
}

static int usage(void)
{
	fprintf(stderr,
		"usage: store-recovery --dir DIR [--shape mild|worst] [--devices N] [--size SIZE]\n"
		"                      [--cache SIZE] [--pages N] [--bound SECONDS]\n"
		"N: 1 to %u devices, 1 to 262144 pages on each\n",
		POOL_DEVICES_MAX);
	return 2;
}

static bool parse_number(const char *text, uint64_t max, uint64_t *ret)
{
	char *end;

	*ret = strtoull(text, &end, 10);
	return *text != '\0' && *end == '\0' && *ret > 0 && *ret <= max;
}

static bool parse(struct bench *b, int option, const char *text, const char **ret_dir)
{
	switch (option) {
	case 'd':
		*ret_dir = text;
		return strlen(text) <= 200;
	case 'w':
		b->worst = strcmp(text, "worst") == 0;
		return b->worst || strcmp(text, "mild") == 0;
	case 's':
		return text_parse_size(text, &b->size_bytes) == 0;
	case 'c':
		return text_parse_size(text, &b->cache_bytes) == 0;
	case 'n':
		return parse_number(text, POOL_DEVICES_MAX, &b->devices);
	case 'p':
		return parse_number(text, 262144, &b->pages);
	case 'b':
		return parse_number(text, 3600, &b->bound_s);
	default:
		return false;
	}
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
	    {"dir", required_argument, NULL, 'd'},     {"shape", required_argument, NULL, 'w'},
	    {"size", required_argument, NULL, 's'},    {"cache", required_argument, NULL, 'c'},
	    {"devices", required_argument, NULL, 'n'}, {"pages", required_argument, NULL, 'p'},
	    {"bound", required_argument, NULL, 'b'},   {0}};
	static struct bench b = {.size_bytes = 16 * GIB,
				 .devices = 1,
				 .pages = 262144,
				 .bound_s = 10,
				 .random_state = 88172645463325252ull};
	const char *dir = NULL;
	struct error err = {0};
	double took_s = 0;
	int c, rc;

	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1)
		if (!parse(&b, c, optarg, &dir))
			return usage();
	if (dir == NULL)
		return usage();
	rc = set_up(&b, dir, &err);
	if (rc == 0)
		rc = measure(&b, &err, &took_s);
	if (rc < 0)
		fprintf(stderr, "store-recovery: %s\n", err.text);
	tear_down(&b);
	if (rc == 0 && took_s > (double)b.bound_s)
		fprintf(stderr, "store-recovery: %.2f s are more than the bound of %llu s\n",
			took_s, (unsigned long long)b.bound_s);
	return rc < 0 || took_s > (double)b.bound_s ? 1 : 0;
}
