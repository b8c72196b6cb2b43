/* micro store: how fast the store is by itself: one shard on the production reactor, disk and kv, a
 * closed loop of so many operations, nothing in between. Beside it fio shows what the disk gives
 * (bench/store-vs-fio).
 *
 * The volume takes --full percent of the device and is filled first, in order. With --turnover N
 * random writes then go on until the cleaner works, and are measured until N times the free space
 * was written; the file is written whole before, so that no space of it is new.
 *
 * A workload: write or read, rand or seq, block size in KiB, depth, such as write-rand-4-32; or
 * `settle`: waits until the store is at rest, as after a night without clients. One line for each:
 * operations and bytes a second, latency, CPU time of the whole process and, beside it, that of the
 * kernel's threads meanwhile (whoever asked for it), turns and io_uring_enter calls, groups, and
 * allocations made on the reactor's thread, for each operation.
 *
 * The files in DIR are made anew and removed at the end. */
#include "bench/micro.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <jansson.h>
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "bench/histogram.h"
#include "bench/kernel_cpu.h"
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
	uint32_t full_percent; /* of the device, that is live */
	double turnover;       /* how many times the free space is written; 0: by time */
	uint64_t ops_max;      /* 0: until the deadline */
	json_t *rows;	       /* NULL: lines for people */
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
	struct kernel_cpu kernel; /* when the workload began */
	uint64_t kernel_ns;	  /* of it */
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
		fprintf(stderr, "micro store: %s\n", err_text(status));
	histogram_add(&b->latency, now_ns - s->begun_ns);
	if (now_ns < b->deadline_ns && status == 0 &&
	    (b->ops_max == 0 || b->ops + b->in_flight < b->ops_max))
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

static json_t *describe(const struct bench *b, const struct sample *from, const struct sample *to)
{
	double seconds = (double)(to->now_ns - from->now_ns) / 1e9;
	double ops = (double)MAX(b->ops, 1u);
	double user = seconds_of(to->usage.ru_utime) - seconds_of(from->usage.ru_utime);
	double sys = seconds_of(to->usage.ru_stime) - seconds_of(from->usage.ru_stime);
	uint64_t groups = to->store.groups - from->store.groups;

	return json_pack(
	    "{s:s,s:I,s:f,s:f,s:f,s:f,s:f,s:f,s:f,s:f,s:f,s:f,s:f,s:f,s:f,s:I,s:f}", "workload",
	    b->workload->name, "operations", (json_int_t)b->ops, "seconds", seconds, "ops_per_s",
	    ops / seconds, "bytes_per_s", ops * b->workload->blocks * BLOCK_SIZE / seconds,
	    "p50_us", (double)histogram_percentile(&b->latency, 50) / 1e3, "p99_us",
	    (double)histogram_percentile(&b->latency, 99) / 1e3, "p999_us",
	    (double)histogram_percentile(&b->latency, 99.9) / 1e3, "cpu_us",
	    (user + sys) / ops * 1e6, "cpu_user_us", user / ops * 1e6, "cpu_sys_us",
	    sys / ops * 1e6, "kernel_cpu_us", (double)b->kernel_ns / ops / 1e3, "enters_per_op",
	    (double)(to->reactor.enter_calls - from->reactor.enter_calls) / ops,
	    "allocations_per_op", (double)(to->allocations - from->allocations) / ops,
	    "ops_per_group", groups > 0 ? ops / (double)groups : 0.0, "checkpoints",
	    (json_int_t)(to->store.checkpoints - from->store.checkpoints), "moved_per_op",
	    (double)(to->store.moved_blocks - from->store.moved_blocks) / ops);
}

static double number(const json_t *row, const char *key)
{
	return json_number_value(json_object_get(row, key));
}

static void print_row(const json_t *row)
{
	printf("%-18s %9.0f op/s %8.1f MB/s  p50 %6.0f p99 %6.0f p99.9 %6.0f us  cpu %5.2f us/op "
	       "(%.2f user %.2f sys) + %.2f  enter %.3f/op  alloc %.4f/op  ops/group %.1f  moved "
	       "%.2f/op  "
	       "ckpt %.0f\n",
	       json_string_value(json_object_get(row, "workload")), number(row, "ops_per_s"),
	       number(row, "bytes_per_s") / 1e6, number(row, "p50_us"), number(row, "p99_us"),
	       number(row, "p999_us"), number(row, "cpu_us"), number(row, "cpu_user_us"),
	       number(row, "cpu_sys_us"), number(row, "kernel_cpu_us"),
	       number(row, "enters_per_op"), number(row, "allocations_per_op"),
	       number(row, "ops_per_group"), number(row, "moved_per_op"),
	       number(row, "checkpoints"));
	fflush(stdout);
}

static void report(const struct bench *b, const struct sample *from, const struct sample *to)
{
	json_t *row = describe(b, from, to);

	if (b->rows != NULL) {
		json_array_append_new(b->rows, row);
		return;
	}
	print_row(row);
	json_decref(row);
}

static int run(struct bench *b, const struct workload *w, bool quietly)
{
	struct sample from, to;

	b->workload = w;
	b->cursor = 0;
	b->ops = 0;
	b->done = false;
	b->latency = (struct histogram){0};
	kernel_cpu_read(&b->kernel);
	take(b, &from);
	count_allocations = true;
	b->deadline_ns = b->ops_max > 0 ? UINT64_MAX : from.now_ns + (uint64_t)(b->seconds * 1e9);
	for (uint32_t i = 0; i < w->depth; i++)
		submit(&b->slots[i]);
	reactor_run_until(b->reactor, &b->done, UINT64_MAX);
	count_allocations = false;
	take(b, &to);
	b->kernel_ns = kernel_cpu_since(&b->kernel);
	if (!quietly)
		report(b, &from, &to);
	return b->failed == 0 ? 0 : -EIO;
}

/* With a turnover: first until nothing is free any more and the cleaner works, then what counts. */
static int run_turnover(struct bench *b, const struct workload *w)
{
	uint64_t device = b->size_bytes / BLOCK_SIZE;
	int rc;

	b->ops_max = device / 2 / w->blocks;
	rc = run(b, w, true);
	b->ops_max = (uint64_t)((double)(device - b->volume_blocks) * b->turnover) / w->blocks;
	if (rc == 0)
		rc = run(b, w, false);
	b->ops_max = 0;
	return rc;
}

static uint64_t work_done(const struct bench *b)
{
	struct store_stats stats;

	store_get_stats(b->store, &stats);
	return stats.moved_blocks + stats.tidied_blocks;
}

/* At rest: three seconds long nothing was moved. */
static int settle(struct bench *b)
{
	static const struct workload w = {.blocks = 1, .name = "settle"};
	struct sample from, to;
	uint64_t before;

	b->workload = &w;
	b->ops = 0;
	b->latency = (struct histogram){0};
	kernel_cpu_read(&b->kernel);
	take(b, &from);
	do {
		bool never = false;

		before = work_done(b);
		reactor_refresh(b->reactor);
		reactor_run_until(b->reactor, &never, reactor_now_ns(b->reactor) + 3 * NS_PER_S);
	} while (work_done(b) != before);
	take(b, &to);
	b->kernel_ns = kernel_cpu_since(&b->kernel);
	b->ops = to.store.moved_blocks - from.store.moved_blocks + to.store.tidied_blocks -
		 from.store.tidied_blocks;
	report(b, &from, &to);
	return 0;
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
		fprintf(stderr, "micro store: %s\n", err->text);
	o->bench->status = status;
	o->done = true;
}

static void opened(struct store_open_op *op, int status, struct store *store,
		   const struct error *err)
{
	struct opening *o = container_of(op, struct opening, op);

	if (status < 0)
		fprintf(stderr, "micro store: %s\n", err->text);
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

/* So that no space of the file is new: what is measured is what goes on for years. */
static int write_whole(const struct bench *b, struct error *err)
{
	int fd = open(b->disk_path, O_WRONLY | O_DIRECT | O_CLOEXEC);
	void *zeroes = aligned_alloc(BLOCK_SIZE, IO_SIZE_MAX);
	int rc = fd < 0 || zeroes == NULL ? -EIO : 0;

	if (rc == 0)
		memset(zeroes, 0, IO_SIZE_MAX);
	for (uint64_t at = 0; at < b->size_bytes && rc == 0; at += IO_SIZE_MAX)
		if (pwrite(fd, zeroes, IO_SIZE_MAX, (off_t)at) != IO_SIZE_MAX)
			rc = -EIO;
	if (rc == 0 && fsync(fd) < 0)
		rc = -errno;
	free(zeroes);
	if (fd >= 0)
		close(fd);
	return rc == 0 ? 0 : error_set(err, rc, "%s cannot be written", b->disk_path);
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
	if (rc == 0 && b->turnover > 0)
		rc = write_whole(b, err);
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
	b->volume_blocks = b->size_bytes / BLOCK_SIZE * b->full_percent / 100 / 256 * 256;
	if (b->volume_blocks == 0 || b->volume_blocks * BLOCK_SIZE > stats.size_bytes)
		return error_set(
		    err, -EINVAL,
		    "%u %% of %llu bytes is not between 1 MiB and what its store takes, "
		    "%llu bytes; ask for less, or for a larger device",
		    b->full_percent, (unsigned long long)b->size_bytes,
		    (unsigned long long)stats.size_bytes);
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
		fprintf(stderr, "micro store: %s is left\n", b->kv_path);
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

		if (strcmp(*name, "settle") == 0) {
			rc = settle(b);
			continue;
		}
		rc = parse_workload(*name, &w);
		if (rc < 0) {
			fprintf(stderr, "micro store: %s: unknown workload\n", *name);
			break;
		}
		/* So that reads find something, and the cleaner too. */
		if (!filled) {
			rc = fill(b);
			filled = true;
		}
		if (rc == 0)
			rc = b->turnover > 0 && w.write && w.random ? run_turnover(b, &w)
								    : run(b, &w, false);
	}
	return rc;
}

static int parse_options(struct bench *b, int argc, char **argv)
{
	static const struct option options[] = {
	    {"dir", required_argument, NULL, 'd'},     {"size", required_argument, NULL, 's'},
	    {"seconds", required_argument, NULL, 't'}, {"groups", required_argument, NULL, 'g'},
	    {"full", required_argument, NULL, 'f'},    {"turnover", required_argument, NULL, 'o'},
	    {"no-priming", no_argument, NULL, 'n'},    {"json", no_argument, NULL, 'j'},
	    {"help", no_argument, NULL, 'h'},	       {0},
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
		case 'f':
			b->full_percent = (uint32_t)strtoul(optarg, NULL, 10);
			break;
		case 'o':
			b->turnover = strtod(optarg, NULL);
			break;
		case 'j':
			b->rows = json_array();
			break;
		case 'h':
			return 1;
		case 'n':
			b->no_priming = true;
			break;
		default:
			return -EINVAL;
		}
	}
	return b->dir[0] != '\0' ? 0 : -EINVAL;
}

int micro_store(int argc, char **argv)
{
	static const char usage[] =
	    "usage: micro store --dir DIR [--size SIZE] [--full PERCENT] [--seconds N] [--turnover "
	    "N]\n"
	    "                   [--groups N] [--no-priming] [--json] [WORKLOAD ...]\n"
	    "The store alone on a file in DIR. A workload: write-rand-4-32 (write or read, rand "
	    "or\n"
	    "seq, KiB, depth), or settle: waits until the store is at rest.\n";
	static struct bench b = {.size_bytes = 4 * GIB,
				 .seconds = 5,
				 .full_percent = 50,
				 .random_state = 88172645463325252ull};
	struct error err = {0};
	int rc = parse_options(&b, argc, argv);

	if (rc != 0) {
		fputs(usage, rc > 0 ? stdout : stderr);
		return rc > 0 ? 0 : 2;
	}
	rc = set_up(&b, &err);
	if (rc < 0)
		fprintf(stderr, "micro store: %s\n", err.text);
	else
		rc = run_all(&b, argv + optind);
	tear_down(&b);
	if (rc == 0 && b.rows != NULL) {
		json_dumpf(b.rows, stdout, JSON_INDENT(2) | JSON_REAL_PRECISION(6));
		putchar('\n');
	}
	json_decref(b.rows);
	return rc == 0 ? 0 : 1;
}
