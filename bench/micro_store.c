/* micro-store: how fast the store is by itself: one shard on the production reactor, disk and kv, a
 * closed loop of so many operations, nothing in between. Beside it fio shows what the disk gives.
 *
 *   micro-store --dir DIR [--size 4GiB] [--seconds 5] [--groups N] [--live 50] [--no-priming]
 * [WORKLOAD ...]
 *
 * A workload: write or read, rand or seq, block size in KiB, depth, such as write-rand-4-32. One
 * line for each: operations and bytes a second, latency, CPU time of the whole process, turns and
 * io_uring_enter calls, groups, and allocations made on the reactor's thread, for each operation.
 *
 * The files in DIR are made anew and removed at the end. */
#include <errno.h>
#include <getopt.h>
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "bench/histogram.h"
#include "engine/base/crc32c.h"
#include "engine/base/text.h"
#include "engine/store/store.h"

#define DEPTH_MAX    256u
#define CHUNK_BYTES  CHUNK_SIZE_DEFAULT
#define CHUNK_BLOCKS ((uint32_t)(CHUNK_BYTES / BLOCK_SIZE))
#define VOLUME	     7u

/* -- allocations ------------------------------------------------------------------------------ */

/* Every allocation of the reactor's thread, RocksDB's batches included, passes here; but for builds
 * with a sanitizer, which has an allocator of its own. */
static _Thread_local bool count_allocations;
static uint64_t allocation_count;

#ifndef __SANITIZE_ADDRESS__

void *__libc_malloc(size_t size);
void *__libc_calloc(size_t count, size_t size);
void *__libc_realloc(void *p, size_t size);
void *malloc(size_t size);
void *calloc(size_t count, size_t size);
void *realloc(void *p, size_t size);

void *malloc(size_t size)
{
	allocation_count += count_allocations;
	return __libc_malloc(size);
}

void *calloc(size_t count, size_t size)
{
	allocation_count += count_allocations;
	return __libc_calloc(count, size);
}

void *realloc(void *p, size_t size)
{
	allocation_count += count_allocations;
	return __libc_realloc(p, size);
}
#endif

/* -- what runs -------------------------------------------------------------------------------- */

struct workload {
	bool write, random;
	uint32_t blocks, depth;
	const char *name;
};

struct slot {
	union {
		struct store_write write;
		struct store_read read;
	};
	struct bench *bench;
	uint64_t begun_ns;
	uint8_t *data;
	uint32_t crcs[IO_BLOCKS_MAX];
};

struct bench {
	struct reactor *reactor;
	struct disk *disk;
	struct kv *kv;
	struct store *store;
	char dir[256], disk_path[300], kv_path[300];
	uint64_t size_bytes, volume_blocks;
	uint32_t groups_in_flight;
	uint32_t live_percent; /* of what the store takes */
	bool no_priming;
	double seconds;
	struct slot slots[DEPTH_MAX];
	const struct workload *workload;
	uint64_t seq, cursor, random_state;
	uint64_t deadline_ns, ops, failed;
	uint32_t in_flight;
	bool done;
	int status;
	struct histogram latency;
};

static uint64_t next_random(struct bench *b)
{
	b->random_state ^= b->random_state << 13;
	b->random_state ^= b->random_state >> 7;
	b->random_state ^= b->random_state << 17;
	return b->random_state;
}

static void submit(struct slot *s);

static void ended(struct slot *s, int status)
{
	struct bench *b = s->bench;
	uint64_t now_ns = reactor_now_ns(b->reactor);

	b->in_flight--;
	b->ops++;
	if (status < 0 && b->failed++ == 0)
		fprintf(stderr, "micro-store: %s\n", err_text(status));
	histogram_add(&b->latency, now_ns - s->begun_ns);
	if (now_ns < b->deadline_ns && status == 0)
		submit(s);
	else if (b->in_flight == 0)
		b->done = true;
}

static void write_done(struct store_write *op, int status)
{
	ended(container_of(op, struct slot, write), status);
}

static void read_done(struct store_read *op, int status)
{
	ended(container_of(op, struct slot, read), status);
}

static void submit(struct slot *s)
{
	struct bench *b = s->bench;
	const struct workload *w = b->workload;
	uint64_t units = b->volume_blocks / w->blocks;
	uint64_t at = (w->random ? next_random(b) % units : b->cursor++ % units) * w->blocks;

	s->begun_ns = reactor_now_ns(b->reactor);
	b->in_flight++;
	if (w->write) {
		/* The content changes, so that its checksum must be computed, as a host does. */
		memcpy(s->data, &b->seq, sizeof b->seq);
		crc32c_blocks(s->data, w->blocks, s->crcs);
		s->write = (struct store_write){
		    .done = write_done,
		    .kind = STORE_DATA,
		    .volume = VOLUME,
		    .chunk = (chunk_no_t)(at / CHUNK_BLOCKS),
		    .block = (block_no_t)(at % CHUNK_BLOCKS),
		    .block_count = w->blocks,
		    .version = version_make(1, ++b->seq),
		    .crcs = s->crcs,
		    .data = s->data,
		};
		store_write(b->store, &s->write);
		return;
	}
	s->read = (struct store_read){
	    .done = read_done,
	    .volume = VOLUME,
	    .chunk = (chunk_no_t)(at / CHUNK_BLOCKS),
	    .block = (block_no_t)(at % CHUNK_BLOCKS),
	    .block_count = w->blocks,
	    .data = s->data,
	    .ret_crcs = s->crcs,
	};
	store_read(b->store, &s->read);
}

/* -- measuring -------------------------------------------------------------------------------- */

struct sample {
	struct rusage usage;
	struct reactor_stats reactor;
	struct store_stats store;
	uint64_t allocations, now_ns;
};

static void take(struct bench *b, struct sample *s)
{
	reactor_refresh(b->reactor);
	getrusage(RUSAGE_SELF, &s->usage);
	reactor_get_stats(b->reactor, &s->reactor);
	store_get_stats(b->store, &s->store);
	s->allocations = allocation_count;
	s->now_ns = reactor_now_ns(b->reactor);
}

static double seconds_of(struct timeval t)
{
	return (double)t.tv_sec + (double)t.tv_usec / 1e6;
}

static void print(const struct bench *b, const struct sample *from, const struct sample *to)
{
	double seconds = (double)(to->now_ns - from->now_ns) / 1e9;
	double ops = (double)b->ops;
	double user = seconds_of(to->usage.ru_utime) - seconds_of(from->usage.ru_utime);
	double sys = seconds_of(to->usage.ru_stime) - seconds_of(from->usage.ru_stime);
	uint64_t groups = to->store.groups - from->store.groups;

	printf("%-18s %9.0f op/s %8.1f MB/s  p50 %6.0f p99 %6.0f us  cpu %5.2f us/op (%.2f user "
	       "%.2f sys)  enter %.3f/op  alloc %.4f/op  ops/group %.1f  moved %lu  ckpt %lu\n",
	       b->workload->name, ops / seconds,
	       ops * b->workload->blocks * BLOCK_SIZE / seconds / 1e6,
	       (double)histogram_percentile(&b->latency, 50) / 1e3,
	       (double)histogram_percentile(&b->latency, 99) / 1e3, (user + sys) / ops * 1e6,
	       user / ops * 1e6, sys / ops * 1e6,
	       (double)(to->reactor.enter_calls - from->reactor.enter_calls) / ops,
	       (double)(to->allocations - from->allocations) / ops,
	       groups > 0 ? ops / (double)groups : 0.0,
	       to->store.moved_blocks - from->store.moved_blocks,
	       to->store.checkpoints - from->store.checkpoints);
	fflush(stdout);
}

static int run(struct bench *b, const struct workload *w)
{
	struct sample from, to;

	b->workload = w;
	b->cursor = 0;
	b->ops = 0;
	b->done = false;
	b->latency = (struct histogram){0};
	take(b, &from);
	count_allocations = true;
	b->deadline_ns = from.now_ns + (uint64_t)(b->seconds * 1e9);
	for (uint32_t i = 0; i < w->depth; i++)
		submit(&b->slots[i]);
	reactor_run_until(b->reactor, &b->done, UINT64_MAX);
	count_allocations = false;
	take(b, &to);
	print(b, &from, &to);
	return b->failed == 0 ? 0 : -EIO;
}

/* Writes the volume once, so that reads find something. */
static int fill(struct bench *b)
{
	static const struct workload w = {.write = true, .blocks = 256, .depth = 8, .name = "fill"};
	double seconds = b->seconds;
	int rc;

	/* As often as it takes: the loop ends by time, so in pieces. */
	b->seconds = 1e9;
	b->workload = &w;
	b->cursor = 0;
	b->done = false;
	b->deadline_ns = UINT64_MAX;
	for (uint32_t i = 0; i < w.depth; i++)
		submit(&b->slots[i]);
	while (b->cursor < b->volume_blocks / w.blocks) {
		bool never = false;

		reactor_refresh(b->reactor);
		reactor_run_until(b->reactor, &never, reactor_now_ns(b->reactor) + 50 * NS_PER_MS);
	}
	b->deadline_ns = 0;
	reactor_run_until(b->reactor, &b->done, UINT64_MAX);
	rc = b->failed == 0 ? 0 : -EIO;
	b->seconds = seconds;
	return rc;
}

/* -- set-up ----------------------------------------------------------------------------------- */

struct opening {
	struct store_format_op format;
	struct store_open_op op;
	struct bench *bench;
	bool done;
};

static void formatted(struct store_format_op *op, int status, const struct error *err)
{
	struct opening *o = container_of(op, struct opening, format);

	if (status < 0)
		fprintf(stderr, "micro-store: %s\n", err->text);
	o->bench->status = status;
	o->done = true;
}

static void opened(struct store_open_op *op, int status, struct store *store,
		   const struct error *err)
{
	struct opening *o = container_of(op, struct opening, op);

	if (status < 0)
		fprintf(stderr, "micro-store: %s\n", err->text);
	o->bench->store = store;
	o->bench->status = status;
	o->done = true;
}

static void closed(void *arg)
{
	*(bool *)arg = true;
}

static int open_store(struct bench *b)
{
	struct opening o = {.bench = b};
	struct store_identity id = {.node = "bench", .shard_count = 1};

	o.format.done = formatted;
	o.format.disk = b->disk;
	o.format.identity = id;
	store_format(&o.format);
	reactor_run_until(b->reactor, &o.done, UINT64_MAX);
	if (b->status < 0)
		return b->status;
	o.done = false;
	o.op.done = opened;
	o.op.config = (struct store_config){
	    .reactor = b->reactor,
	    .disk = b->disk,
	    .kv = b->kv,
	    .identity = id,
	    .groups_in_flight = b->groups_in_flight,
	};
	store_open(&o.op);
	reactor_run_until(b->reactor, &o.done, UINT64_MAX);
	return b->status;
}

static int set_up(struct bench *b, struct error *err)
{
	struct reactor_config config = {.name = "bench"};
	struct store_stats stats;
	int rc;

	snprintf(b->disk_path, sizeof b->disk_path, "%s/micro-store.disk", b->dir);
	snprintf(b->kv_path, sizeof b->kv_path, "%s/micro-store.kv", b->dir);
	unlink(b->disk_path);
	rc = reactor_create(&config, &b->reactor);
	if (rc < 0)
		return error_set(err, rc, "io_uring: %s", err_text(rc));
	rc = disk_file_create(b->disk_path, b->size_bytes, err);
	if (rc == 0)
		rc = disk_file_open(b->reactor, b->disk_path, &b->disk, err);
	if (rc == 0)
		rc = kv_rocks_open(b->reactor, b->kv_path, store_kv_family_names, STORE_KV_FAMILIES,
				   0, &b->kv, err);
	if (rc < 0)
		return rc;
	if (b->no_priming)
		b->disk->needs_priming = false;
	for (uint32_t i = 0; i < DEPTH_MAX; i++) {
		b->slots[i].bench = b;
		b->slots[i].data = reactor_memory(b->reactor, i < 32 ? IO_SIZE_MAX : 16 * KIB);
		if (b->slots[i].data == NULL)
			return error_set(err, -ENOMEM, "there is no memory for the buffers");
		for (uint32_t k = 0; k < BLOCK_SIZE; k++)
			b->slots[i].data[k] = (uint8_t)(next_random(b));
	}
	rc = open_store(b);
	if (rc < 0)
		return error_set(err, rc, "the store cannot be opened");
	store_get_stats(b->store, &stats);
	b->volume_blocks = stats.size_bytes / BLOCK_SIZE * b->live_percent / 100 / 256 * 256;
	return 0;
}

static void tear_down(struct bench *b)
{
	char command[400];
	bool is_closed = false;

	if (b->store != NULL) {
		store_close(b->store, closed, &is_closed);
		reactor_run_until(b->reactor, &is_closed, UINT64_MAX);
	}
	kv_close(b->kv);
	disk_close(b->disk);
	reactor_destroy(b->reactor);
	unlink(b->disk_path);
	snprintf(command, sizeof command, "rm -rf '%s'", b->kv_path);
	if (system(command) != 0)
		fprintf(stderr, "micro-store: %s is left\n", b->kv_path);
}

static int parse_workload(const char *name, struct workload *w)
{
	char what[8], how[8];
	unsigned kib, depth;

	if (sscanf(name, "%7[a-z]-%7[a-z]-%u-%u", what, how, &kib, &depth) != 4 || kib < 4 ||
	    kib % 4 != 0 || kib > IO_SIZE_MAX / KIB || depth == 0 || depth > DEPTH_MAX ||
	    (depth > 32 && kib > 16))
		return -EINVAL;
	*w = (struct workload){.write = strcmp(what, "write") == 0,
			       .random = strcmp(how, "rand") == 0,
			       .blocks = kib / 4,
			       .depth = depth,
			       .name = name};
	return 0;
}

static int run_all(struct bench *b, char **names)
{
	static const char *const usual[] = {"write-seq-1024-8", "write-rand-4-1", "write-rand-4-32",
					    "write-rand-4-128", "read-rand-4-32", NULL};
	bool filled = false;
	int rc = 0;

	for (const char *const *name = names[0] != NULL ? (const char *const *)names : usual;
	     *name != NULL && rc == 0; name++) {
		struct workload w;

		rc = parse_workload(*name, &w);
		if (rc < 0) {
			fprintf(stderr, "micro-store: %s: unknown workload\n", *name);
			break;
		}
		/* Reads find something, and the cleaner too. */
		if ((!w.write || b->live_percent > 60) && !filled) {
			rc = fill(b);
			filled = true;
		}
		if (rc == 0)
			rc = run(b, &w);
	}
	return rc;
}

static int parse_options(struct bench *b, int argc, char **argv)
{
	static const struct option options[] = {
	    {"dir", required_argument, NULL, 'd'},
	    {"size", required_argument, NULL, 's'},
	    {"seconds", required_argument, NULL, 't'},
	    {"groups", required_argument, NULL, 'g'},
	    {"live", required_argument, NULL, 'l'},
	    {"no-priming", no_argument, NULL, 'n'},
	    {0},
	};
	int c;

	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
		switch (c) {
		case 'd':
			snprintf(b->dir, sizeof b->dir, "%s", optarg);
			break;
		case 's':
			if (text_parse_size(optarg, &b->size_bytes) < 0)
				return -EINVAL;
			break;
		case 't':
			b->seconds = strtod(optarg, NULL);
			break;
		case 'g':
			b->groups_in_flight = (uint32_t)strtoul(optarg, NULL, 10);
			break;
		case 'l':
			b->live_percent = (uint32_t)strtoul(optarg, NULL, 10);
			break;
		case 'n':
			b->no_priming = true;
			break;
		default:
			return -EINVAL;
		}
	}
	return b->dir[0] != '\0' ? 0 : -EINVAL;
}

int main(int argc, char **argv)
{
	static struct bench b = {.size_bytes = 4 * GIB,
				 .seconds = 5,
				 .live_percent = 50,
				 .random_state = 88172645463325252ull};
	struct error err = {0};
	int rc;

	if (parse_options(&b, argc, argv) < 0) {
		fprintf(stderr,
			"usage: micro-store --dir DIR [--size SIZE] [--seconds N] [--groups N] "
			"[--live PERCENT] [--no-priming] [WORKLOAD ...]\n");
		return 2;
	}
	rc = set_up(&b, &err);
	if (rc < 0)
		fprintf(stderr, "micro-store: %s\n", err.text);
	else
		rc = run_all(&b, argv + optind);
	tear_down(&b);
	return rc == 0 ? 0 : 1;
}
