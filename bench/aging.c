/* aging: what a year does to a store. The production store runs in virtual time on a modelled disk
 * (bench/model_disk.h); a simulated year of random overwrites passes over it, and each quarter
 * shows what the cleaner wrote and how long the clients waited.
 *
 *   aging [--size 1GiB] [--segment 4MiB] [--full 50,70,85] [--pattern uniform,zipf]
 *         [--overwrites 20] [--rate 20000] [--burst] [--seed 1] [--json]
 *
 * A year is --overwrites times the device's size in 4 KiB writes: 20, as of a volume that is
 * overwritten every 18 days. `full` is the share of the device, headers and reserve included, that
 * is live; "most" is all that the store takes. Clients come as an open loop: so many writes a
 * second at random moments, whatever becomes of those before, and the latency of each counts from
 * when it was due. With --burst they come as fast as they are answered, 32 at a time.
 *
 * The modelled disk moves 1 GiB/s and 200,000 operations a second, with a latency of 80 us for a
 * read and 30 us for a durable write. Write amplification: everything written to it, by what
 * clients wrote. What RocksDB writes for the index is not in it.
 *
 * Exit codes: 0; 1 the store failed; 2 usage. */
#include <errno.h>
#include <getopt.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench/histogram.h"
#include "bench/model_disk.h"
#include "engine/base/assert.h"
#include "engine/base/crc32c.h"
#include "engine/base/log.h"
#include "engine/base/text.h"
#include "engine/store/store.h"
#include "tests/sim/kv.h"

#define OPS_MAX	     8192u /* waiting at once; beyond it arrivals are late, which counts */
#define BURST_DEPTH  32u
#define CHUNK_BLOCKS ((uint32_t)(CHUNK_SIZE_DEFAULT / BLOCK_SIZE))
#define VOLUME	     7u
#define PHASES	     4u /* of a year */
#define ZIPF_THETA   0.99
#define FULL_MOST    0u

struct op {
	struct store_write write;
	struct run *run;
	uint64_t due_ns;
	uint32_t blocks;
	struct op *next_free;
};

struct zipf {
	uint64_t n;
	double zeta, alpha, eta;
};

struct run {
	/* what is asked for */
	uint64_t size_bytes, rate, overwrites, seed;
	uint32_t segment_bytes, full_percent;
	bool zipf, burst;
	/* the machine */
	struct sim_world *world;
	struct sim_process *process;
	struct disk *disk;
	struct kv *kv;
	struct store *store;
	int status;
	bool opened;
	/* the load */
	uint64_t volume_blocks, seq, cursor;
	struct zipf z;
	struct op *ops, *free;
	uint8_t *data;
	uint32_t *crcs;
	uint32_t in_flight;
	uint64_t writes_left, next_due_ns;
	bool fills, done;
	struct histogram latency;
};

struct sample {
	struct store_stats store;
	struct model_disk_stats disk;
	uint64_t now_ns;
};

/* -- where the writes go ---------------------------------------------------------------------- */

/* Gray et al., "Quickly generating billion-record synthetic databases". */
static void zipf_init(struct zipf *z, uint64_t n)
{
	double zeta2 = 1 + pow(0.5, ZIPF_THETA);

	*z = (struct zipf){.n = n, .alpha = 1 / (1 - ZIPF_THETA)};
	for (uint64_t i = 1; i <= n; i++)
		z->zeta += pow(1.0 / (double)i, ZIPF_THETA);
	z->eta = (1 - pow(2.0 / (double)n, 1 - ZIPF_THETA)) / (1 - zeta2 / z->zeta);
}

static uint64_t zipf_rank(const struct zipf *z, double u)
{
	double uz = u * z->zeta;

	if (uz < 1)
		return 0;
	if (uz < 1 + pow(0.5, ZIPF_THETA))
		return 1;
	return MIN(z->n - 1, (uint64_t)((double)z->n * pow(z->eta * u - z->eta + 1, z->alpha)));
}

/* What is hot lies scattered over the volume: times a prime that is larger than n. */
static uint64_t scatter(uint64_t rank, uint64_t n)
{
	return rank * 2654435761u % n;
}

static double random_unit(struct run *r)
{
	return (double)(sim_random(r->world) >> 11) / (double)(1ull << 53);
}

static uint64_t next_block(struct run *r)
{
	if (r->fills)
		return r->cursor++;
	if (!r->zipf)
		return sim_random_below(r->world, r->volume_blocks);
	return scatter(zipf_rank(&r->z, random_unit(r)), r->volume_blocks);
}

/* -- the load --------------------------------------------------------------------------------- */

static void write_done(struct store_write *w, int status);

static void submit(struct run *r, uint64_t due_ns)
{
	struct op *op = r->free;
	uint32_t count = r->fills ? 256 : 1;
	uint64_t block = next_block(r) * count;

	r->free = op->next_free;
	r->in_flight++;
	r->writes_left--;
	op->due_ns = due_ns;
	op->write = (struct store_write){
	    .done = write_done,
	    .kind = STORE_DATA,
	    .volume = VOLUME,
	    .chunk = (chunk_no_t)(block / CHUNK_BLOCKS),
	    .block = (block_no_t)(block % CHUNK_BLOCKS),
	    .block_count = count,
	    .version = version_make(1, ++r->seq),
	    .crcs = r->crcs,
	    .data = r->data,
	};
	store_write(r->store, &op->write);
}

static void write_done(struct store_write *w, int status)
{
	struct op *op = container_of(w, struct op, write);
	struct run *r = op->run;

	histogram_add(&r->latency, r->world->now_ns - op->due_ns);
	op->next_free = r->free;
	r->free = op;
	r->in_flight--;
	if (status < 0 && r->status == 0) {
		fprintf(stderr, "aging: a write failed: %s\n", err_text(status));
		r->status = status;
		r->writes_left = 0;
	}
	if ((r->burst || r->fills) && r->writes_left > 0)
		submit(r, r->world->now_ns);
	if (r->writes_left == 0 && r->in_flight == 0)
		r->done = true;
}

/* Those that are due: gaps are exponential, so that they come as from many independent clients. */
static void arrive(void *arg)
{
	struct run *r = arg;
	uint64_t now_ns = r->world->now_ns;

	while (r->writes_left > 0 && r->next_due_ns <= now_ns && r->free != NULL) {
		submit(r, r->next_due_ns);
		r->next_due_ns +=
		    (uint64_t)(-log(1 - random_unit(r)) * (double)NS_PER_S / (double)r->rate);
	}
	if (r->writes_left > 0)
		sim_schedule(r->world, r->process, MAX(r->next_due_ns, now_ns + 1000) - now_ns,
			     arrive, r);
}

static bool is_done(void *arg)
{
	return ((const struct run *)arg)->done;
}

static int run_load(struct run *r, uint64_t writes)
{
	r->writes_left = writes;
	r->done = false;
	r->latency = (struct histogram){0};
	if (r->burst || r->fills) {
		for (uint32_t i = 0; i < BURST_DEPTH && r->writes_left > 0; i++)
			submit(r, r->world->now_ns);
	} else {
		r->next_due_ns = r->world->now_ns;
		sim_schedule(r->world, r->process, 0, arrive, r);
	}
	if (sim_run_until(r->world, UINT64_MAX, is_done, r) != 0 && r->status == 0)
		r->status = -EIO;
	return r->status;
}

/* -- the machine ------------------------------------------------------------------------------ */

struct formatting {
	struct store_format_op op;
	bool done;
	int status;
};

static void formatted(struct store_format_op *op, int status, const struct error *err)
{
	struct formatting *f = container_of(op, struct formatting, op);

	if (status < 0)
		fprintf(stderr, "aging: %s\n", err->text);
	f->status = status;
	f->done = true;
}

struct opening {
	struct store_open_op op;
	struct run *run;
};

static void opened(struct store_open_op *op, int status, struct store *store,
		   const struct error *err)
{
	struct run *r = container_of(op, struct opening, op)->run;

	if (status < 0)
		fprintf(stderr, "aging: %s\n", err->text);
	r->store = store;
	r->status = status;
	r->opened = true;
}

static int open_store(struct run *r)
{
	struct store_identity id = {.node = "aging", .shard_count = 1};
	struct formatting f = {
	    .op = {.done = formatted,
		   .disk = r->disk,
		   .identity = id,
		   .segment_bytes = r->segment_bytes},
	};
	struct opening o = {
	    .op = {.done = opened,
		   .config = {.reactor = sim_reactor(r->process),
			      .disk = r->disk,
			      .kv = r->kv,
			      .identity = id,
			      /* The device is small: so is what lies between two. */
			      .checkpoint_bytes = r->size_bytes / 16}},
	    .run = r,
	};

	store_format(&f.op);
	if (!sim_run_flag(r->world, &f.done) || f.status < 0)
		return f.status < 0 ? f.status : -EIO;
	store_open(&o.op);
	return sim_run_flag(r->world, &r->opened) ? r->status : -EIO;
}

static int set_up(struct run *r)
{
	struct model_disk_config disk = {.size_bytes = r->size_bytes,
					 .bytes_per_s = GIB,
					 .op_ns = 5000,
					 .read_ns = 80000,
					 .write_ns = 30000};
	int rc;

	r->world = sim_world_create(r->seed);
	r->world->trace_off = true;
	r->process = sim_process_create(r->world, "n1");
	sim_process_start(r->process);
	r->disk = model_disk_create(r->process, &disk);
	r->kv = sim_kv_open(sim_kv_create(r->process, "n1.kv", STORE_KV_FAMILIES));
	r->ops = calloc(OPS_MAX, sizeof *r->ops);
	r->data = aligned_alloc(BLOCK_SIZE, IO_SIZE_MAX);
	r->crcs = calloc(IO_BLOCKS_MAX, sizeof *r->crcs);
	if (r->disk == NULL || r->ops == NULL || r->data == NULL || r->crcs == NULL)
		return -ENOMEM;
	memset(r->data, 0x5a, IO_SIZE_MAX);
	crc32c_blocks(r->data, IO_BLOCKS_MAX, r->crcs);
	for (uint32_t i = 0; i < OPS_MAX; i++) {
		r->ops[i].run = r;
		r->ops[i].next_free = r->free;
		r->free = &r->ops[i];
	}
	rc = open_store(r);
	return rc;
}

static void tear_down(struct run *r)
{
	sim_process_crash(r->process, SIM_KILL);
	store_abandon(r->store);
	disk_close(r->disk);
	sim_world_destroy(r->world);
	free(r->ops);
	free(r->data);
	free(r->crcs);
}

/* -- what is reported ------------------------------------------------------------------------- */

static void take(const struct run *r, struct sample *s)
{
	store_get_stats(r->store, &s->store);
	s->disk = *model_disk_stats(r->disk);
	s->now_ns = r->world->now_ns;
}

static json_t *describe(const struct run *r, const char *phase, const struct sample *from,
			const struct sample *to)
{
	double client = (double)(to->store.blocks_written - from->store.blocks_written);
	double written = (double)(to->disk.written_bytes - from->disk.written_bytes) / BLOCK_SIZE;
	double seconds = (double)(to->now_ns - from->now_ns) / 1e9;

	return json_pack("{s:s,s:s,s:f,s:f,s:f,s:f,s:f,s:f,s:f,s:f,s:f}", "pattern",
			 r->zipf ? "zipf" : "uniform", "phase", phase, "full",
			 (double)to->store.live_bytes / (double)r->size_bytes,
			 "write_amplification", written / client, "moved_per_write",
			 (double)(to->store.moved_blocks - from->store.moved_blocks) / client,
			 "writes_per_s", (double)r->latency.total / seconds, "disk_busy",
			 (double)(to->disk.busy_ns - from->disk.busy_ns) / 1e9 / seconds, "p50_us",
			 (double)histogram_percentile(&r->latency, 50) / 1e3, "p99_us",
			 (double)histogram_percentile(&r->latency, 99) / 1e3, "p999_us",
			 (double)histogram_percentile(&r->latency, 99.9) / 1e3, "max_us",
			 (double)r->latency.max_ns / 1e3);
}

static double number(const json_t *row, const char *key)
{
	return json_number_value(json_object_get(row, key));
}

static void print_row(const json_t *row)
{
	printf(
	    "| %-7s | %4.0f %% | %-9s | %5.2f | %5.2f | %7.0f | %3.0f %% | %7.0f | %7.0f | %7.0f "
	    "| %8.0f |\n",
	    json_string_value(json_object_get(row, "pattern")), 100 * number(row, "full"),
	    json_string_value(json_object_get(row, "phase")), number(row, "write_amplification"),
	    number(row, "moved_per_write"), number(row, "writes_per_s"),
	    100 * number(row, "disk_busy"), number(row, "p50_us"), number(row, "p99_us"),
	    number(row, "p999_us"), number(row, "max_us"));
	fflush(stdout);
}

static void print_head(void)
{
	printf("| pattern | full   | phase     | WA    | moved | writes/s | busy | p50 us | p99 us "
	       "| p99.9 us | max us |\n"
	       "|---|---:|---|---:|---:|---:|---:|---:|---:|---:|---:|\n");
}

static void report(const struct run *r, const char *phase, const struct sample *from,
		   const struct sample *to, json_t *rows)
{
	json_t *row = describe(r, phase, from, to);

	if (rows != NULL) {
		json_array_append_new(rows, row);
		return;
	}
	print_row(row);
	json_decref(row);
}

/* -- a year ----------------------------------------------------------------------------------- */

static int age(struct run *r, json_t *rows)
{
	uint64_t writes = r->overwrites * (r->size_bytes / BLOCK_SIZE) / PHASES;
	struct store_stats stats;
	struct sample from, to;
	char phase[16];
	int rc = set_up(r);

	if (rc < 0)
		return rc;
	store_get_stats(r->store, &stats);
	r->volume_blocks = r->full_percent == FULL_MOST
			       ? stats.size_bytes / BLOCK_SIZE
			       : r->size_bytes / BLOCK_SIZE * r->full_percent / 100;
	r->volume_blocks = r->volume_blocks / 256 * 256;
	if (r->volume_blocks * BLOCK_SIZE > stats.size_bytes) {
		fprintf(
		    stderr,
		    "aging: %u %% of the device is more than the store takes (%.1f %%); ask for "
		    "\"most\"\n",
		    r->full_percent, 100.0 * (double)stats.size_bytes / (double)r->size_bytes);
		return -EINVAL;
	}
	if (r->zipf)
		zipf_init(&r->z, r->volume_blocks);
	r->fills = true;
	rc = run_load(r, r->volume_blocks / 256);
	r->fills = false;
	for (uint32_t i = 0; i < PHASES && rc == 0; i++) {
		take(r, &from);
		rc = run_load(r, writes);
		take(r, &to);
		snprintf(phase, sizeof phase, "quarter %u", i + 1);
		if (rc == 0)
			report(r, phase, &from, &to, rows);
	}
	return rc;
}

/* -- options ---------------------------------------------------------------------------------- */

struct options {
	struct run run;
	const char *full, *patterns;
	bool json;
};

static const char usage[] =
    "usage: aging [--size SIZE] [--segment SIZE] [--full 50,70,85,most] [--pattern uniform,zipf]\n"
    "             [--overwrites N] [--rate WRITES_A_SECOND] [--burst] [--seed N] [--json]\n"
    "Ages a store by a simulated year of random overwrites, in virtual time on a modelled disk.\n";

static int set_option(struct options *o, int c)
{
	uint64_t segment;

	switch (c) {
	case 's':
		return text_parse_size(optarg, &o->run.size_bytes);
	case 'g':
		if (text_parse_size(optarg, &segment) < 0 || segment > 64 * MIB)
			return -EINVAL;
		o->run.segment_bytes = (uint32_t)segment;
		return 0;
	case 'f':
		o->full = optarg;
		return 0;
	case 'p':
		o->patterns = optarg;
		return 0;
	case 'o':
		o->run.overwrites = strtoull(optarg, NULL, 10);
		return o->run.overwrites > 0 ? 0 : -EINVAL;
	case 'r':
		o->run.rate = strtoull(optarg, NULL, 10);
		return o->run.rate > 0 ? 0 : -EINVAL;
	case 'b':
		o->run.burst = true;
		return 0;
	case 'S':
		o->run.seed = strtoull(optarg, NULL, 10);
		return 0;
	case 'j':
		o->json = true;
		return 0;
	default:
		return -EINVAL;
	}
}

/* 1: help was asked for. */
static int parse(struct options *o, int argc, char **argv)
{
	static const struct option options[] = {
	    {"size", required_argument, NULL, 's'},
	    {"segment", required_argument, NULL, 'g'},
	    {"full", required_argument, NULL, 'f'},
	    {"pattern", required_argument, NULL, 'p'},
	    {"overwrites", required_argument, NULL, 'o'},
	    {"rate", required_argument, NULL, 'r'},
	    {"burst", no_argument, NULL, 'b'},
	    {"seed", required_argument, NULL, 'S'},
	    {"json", no_argument, NULL, 'j'},
	    {"help", no_argument, NULL, 'h'},
	    {0},
	};
	int c;

	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
		if (c == 'h')
			return 1;
		if (set_option(o, c) < 0)
			return -EINVAL;
	}
	return optind == argc ? 0 : -EINVAL;
}

static int run_one(const struct options *o, const char *pattern, const char *full, json_t *rows)
{
	struct run r = o->run;
	int rc;

	r.zipf = strcmp(pattern, "zipf") == 0;
	r.full_percent = (uint32_t)strtoul(full, NULL, 10);
	if ((!r.zipf && strcmp(pattern, "uniform") != 0) || r.full_percent > 99 ||
	    (r.full_percent == FULL_MOST && strcmp(full, "most") != 0))
		return -EINVAL;
	rc = age(&r, rows);
	tear_down(&r);
	return rc;
}

/* Each pattern with each share. */
static int run_all(const struct options *o, json_t *rows)
{
	char patterns[64], fulls[64];
	char *p, *f, *p_rest, *f_rest;
	int rc = 0;

	snprintf(patterns, sizeof patterns, "%s", o->patterns);
	for (p = strtok_r(patterns, ",", &p_rest); p != NULL && rc == 0;
	     p = strtok_r(NULL, ",", &p_rest)) {
		snprintf(fulls, sizeof fulls, "%s", o->full);
		for (f = strtok_r(fulls, ",", &f_rest); f != NULL && rc == 0;
		     f = strtok_r(NULL, ",", &f_rest))
			rc = run_one(o, p, f, rows);
	}
	return rc;
}

static void quiet_log(enum log_level level, const char *line)
{
	if (level <= LOG_WARN)
		fprintf(stderr, "aging: %s\n", line);
}

int main(int argc, char **argv)
{
	struct options o = {
	    .run = {.size_bytes = GIB,
		    .segment_bytes = 4 * MIB,
		    .overwrites = 20,
		    .rate = 20000,
		    .seed = 1},
	    .full = "50,70,85",
	    .patterns = "uniform,zipf",
	};
	json_t *rows = NULL;
	int rc = parse(&o, argc, argv);

	if (rc != 0) {
		fputs(usage, rc > 0 ? stdout : stderr);
		return rc > 0 ? 0 : 2;
	}
	log_set_sink(quiet_log);
	if (o.json)
		rows = json_array();
	else
		print_head();
	rc = run_all(&o, rows);
	if (rc == 0 && rows != NULL) {
		json_dumpf(rows, stdout, JSON_INDENT(2) | JSON_REAL_PRECISION(6));
		putchar('\n');
	}
	json_decref(rows);
	if (rc == -EINVAL)
		fputs(usage, stderr);
	return rc == 0 ? 0 : rc == -EINVAL ? 2 : 1;
}
