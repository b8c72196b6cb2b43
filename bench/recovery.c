/* store-recovery: how long the store takes to open after a crash at the longest distance to its
 * last checkpoint that it allows.
 *
 *   store-recovery --dir DIR [--size 16GiB] [--cache 1GiB]
 *
 * On the production reactor, disk and kv: a volume is written in order; then from one moment on kv
 * holds every commit back, as one that hangs would, and blocks of 4 KiB are written at random until
 * the store lets no more in. There it is abandoned, without closing, and opened again. Printed: how
 * much of the log and how many pages of the index were read, and the time, all as the store counts
 * them (store_stats). The pages of the index are cold then, and so is the log, for both files are
 * dropped from the page cache.
 *
 * The files in DIR are made anew and removed at the end. */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "engine/base/crc32c.h"
#include "engine/base/text.h"
#include "engine/store/store.h"

#define DEPTH	     128u
#define SEQ_DEPTH    8u
#define CHUNK_BLOCKS ((uint32_t)(CHUNK_SIZE_DEFAULT / BLOCK_SIZE))
#define VOLUME	     7u
#define QUIET_NS     (2 * NS_PER_S) /* so long without an answer: the store lets nothing in */

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
	struct kv_batch *held; /* the store has one under way at most */
};

struct bench {
	struct reactor *reactor;
	struct disk *disk;
	struct holding_kv kv;
	struct store *store;
	char disk_path[300], kv_path[300];
	uint64_t size_bytes, cache_bytes, volume_blocks;
	struct slot slots[DEPTH];
	uint64_t seq, cursor, random_state, answered;
	uint32_t in_flight, blocks;
	bool random, stopping, done;
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

	if (h->holds)
		h->held = batch;
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

	kv_batch_destroy(h->below, h->held);
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
	if (b->status < 0 || b->stopping || (!b->random && b->cursor >= b->volume_blocks)) {
		b->done = b->done || b->in_flight == 0;
		return;
	}
	submit(s);
}

static void submit(struct slot *s)
{
	struct bench *b = s->bench;
	uint64_t at = b->cursor;

	if (b->random)
		at = next_random(b) % b->volume_blocks;
	else
		b->cursor += b->blocks;
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
	store_write(b->store, &s->write);
}

static int write_in_order(struct bench *b)
{
	b->random = false;
	b->blocks = IO_BLOCKS_MAX;
	b->done = false;
	for (uint32_t i = 0; i < SEQ_DEPTH; i++)
		submit(&b->slots[i]);
	reactor_run_until(b->reactor, &b->done, UINT64_MAX);
	return b->status;
}

/* Until nothing has been answered for a while. */
static int write_until_held(struct bench *b)
{
	uint64_t before = UINT64_MAX;

	b->kv.holds = true;
	b->random = true;
	b->blocks = 1;
	b->done = false;
	for (uint32_t i = 0; i < DEPTH; i++)
		submit(&b->slots[i]);
	while (b->answered != before && b->status == 0) {
		bool never = false;

		before = b->answered;
		reactor_refresh(b->reactor);
		reactor_run_until(b->reactor, &never, reactor_now_ns(b->reactor) + QUIET_NS);
	}
	return b->status;
}

/* -- opening ---------------------------------------------------------------------------------- */

struct opening {
	struct store_format_op format;
	struct store_open_op op;
	struct bench *bench;
	struct error err;
	bool done;
};

static void formatted(struct store_format_op *op, int status, const struct error *err)
{
	struct opening *o = container_of(op, struct opening, format);

	if (status < 0)
		o->err = *err;
	o->done = true;
}

static void opened(struct store_open_op *op, int status, struct store *store,
		   const struct error *err)
{
	struct opening *o = container_of(op, struct opening, op);

	o->bench->store = store;
	if (status < 0)
		o->err = *err;
	o->done = true;
}

static int open_store(struct bench *b, bool format, struct error *err)
{
	const struct store_identity id = {.node = "bench", .shard_count = 1};
	struct opening o = {.bench = b};
	int rc = disk_file_open(b->reactor, b->disk_path, &b->disk, err);

	if (rc == 0)
		rc = open_kv(b, err);
	if (rc < 0)
		return rc;
	if (format) {
		o.format.done = formatted;
		o.format.disk = b->disk;
		o.format.identity = id;
		store_format(&o.format);
		reactor_run_until(b->reactor, &o.done, UINT64_MAX);
		o.done = false;
	}
	if (o.err.code == 0) {
		o.op.done = opened;
		o.op.config = (struct store_config){.reactor = b->reactor,
						    .disk = b->disk,
						    .kv = &b->kv.head,
						    .identity = id,
						    .cache_bytes = b->cache_bytes};
		store_open(&o.op);
		reactor_run_until(b->reactor, &o.done, UINT64_MAX);
	}
	*err = o.err;
	return err->code;
}

/* As if the process had gone: what the store had in flight is dropped with it. */
static void crash(struct bench *b)
{
	char command[700];

	store_abandon(b->store);
	b->store = NULL;
	kv_close(&b->kv.head);
	disk_close(b->disk);
	b->disk = NULL;
	snprintf(command, sizeof command,
		 "find '%s' '%s' -type f -exec dd if='{}' iflag=nocache "
		 "count=0 status=none \\;",
		 b->disk_path, b->kv_path);
	if (system(command) != 0)
		fprintf(stderr, "store-recovery: the page cache keeps the index\n");
}

static int measure(struct bench *b, struct error *err)
{
	struct store_stats stats;
	int rc;

	unlink(b->disk_path);
	rc = disk_file_create(b->disk_path, b->size_bytes, err);
	if (rc == 0)
		rc = open_store(b, true, err);
	if (rc < 0)
		return rc;
	store_get_stats(b->store, &stats);
	b->volume_blocks = stats.size_bytes / BLOCK_SIZE / 2 / IO_BLOCKS_MAX * IO_BLOCKS_MAX;
	rc = write_in_order(b);
	if (rc == 0)
		rc = write_until_held(b);
	if (rc < 0)
		return error_set(err, rc, "a write failed: %s", err_text(rc));
	crash(b);
	rc = open_store(b, false, err);
	if (rc < 0)
		return rc;
	store_get_stats(b->store, &stats);
	printf(
	    "recovery after a crash: %.0f MiB of log, %llu groups, %llu pages of the index read: "
	    "%.2f s; memory %.0f MiB\n",
	    (double)stats.recovered_bytes / (double)MIB, (unsigned long long)stats.recovered_groups,
	    (unsigned long long)stats.index_reads, (double)stats.recovery_ms / 1e3,
	    (double)stats.memory_bytes / (double)MIB);
	return 0;
}

static void closed(void *arg)
{
	*(bool *)arg = true;
}

static void tear_down(struct bench *b)
{
	bool is_closed = false;
	char command[400];

	if (b->store != NULL) {
		store_close(b->store, closed, &is_closed);
		reactor_run_until(b->reactor, &is_closed, UINT64_MAX);
	}
	if (b->kv.below != NULL)
		kv_close(&b->kv.head);
	disk_close(b->disk);
	reactor_destroy(b->reactor);
	unlink(b->disk_path);
	snprintf(command, sizeof command, "rm -rf '%s'", b->kv_path);
	if (system(command) != 0)
		fprintf(stderr, "store-recovery: %s is left\n", b->kv_path);
}

static int set_up(struct bench *b, const char *dir, struct error *err)
{
	struct reactor_config config = {.name = "bench", .worker_count = 4};
	int rc = reactor_create(&config, &b->reactor);

	snprintf(b->disk_path, sizeof b->disk_path, "%s/store-recovery.disk", dir);
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

int main(int argc, char **argv)
{
	static const struct option options[] = {{"dir", required_argument, NULL, 'd'},
						{"size", required_argument, NULL, 's'},
						{"cache", required_argument, NULL, 'c'},
						{0}};
	static struct bench b = {.size_bytes = 16 * GIB, .random_state = 88172645463325252ull};
	const char *dir = NULL;
	struct error err = {0};
	int c, rc;

	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
		uint64_t *size = c == 's' ? &b.size_bytes : &b.cache_bytes;

		if (c == 'd') {
			dir = optarg;
		} else if (c == '?' || text_parse_size(optarg, size) < 0) {
			dir = NULL;
			break;
		}
	}
	if (dir == NULL || strlen(dir) > 200) {
		fprintf(stderr, "usage: store-recovery --dir DIR [--size SIZE] [--cache SIZE]\n");
		return 2;
	}
	rc = set_up(&b, dir, &err);
	if (rc == 0)
		rc = measure(&b, &err);
	if (rc < 0)
		fprintf(stderr, "store-recovery: %s\n", err.text);
	tear_down(&b);
	return rc < 0 ? 1 : 0;
}
