/* micro frame|crc|permit|group|index|all: what costs only CPU time, in a loop on one thread.
 *
 *   frame    the 64 bytes of a header, encoded and decoded
 *   crc      CRC32C of a 4 KiB block, cold (64 MiB in turn) and hot
 *   permit   the check of each operation (one load, one compare), the reading of the clock once a
 *            callback, and the signature once a permit
 *   group    a group's header of 8 and of 256 entries, encoded and decoded: what a group commit
 *            costs beside its write
 *   index    where a block is: random look-ups over an index of --blocks blocks (1 Mi)
 *
 * Each runs for --seconds and gives nanoseconds for each operation. */
#include <errno.h>
#include <getopt.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "bench/micro.h"
#include "engine/base/assert.h"
#include "engine/base/crc32c.h"
#include "engine/evidence/demo.h"
#include "engine/evidence/permit.h"
#include "engine/store/index.h"
#include "net/frame/frame.h"

#define BATCH	     256u
#define WALL	     ((int64_t)1795428000 * (int64_t)NS_PER_S)
#define DAY	     ((int64_t)86400 * (int64_t)NS_PER_S)
#define CRC_MEMORY   (64 * MIB)
#define CHUNK_BLOCKS ((uint32_t)(CHUNK_SIZE_DEFAULT / BLOCK_SIZE))
#define VOLUME	     7u

static struct {
	double seconds;
	uint32_t blocks;
	json_t *rows;  /* NULL: lines for people */
	uint64_t sink; /* so that nothing is optimised away */
} micro = {.seconds = 1, .blocks = 1u << 20};

static uint64_t cpu_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &ts);
	return (uint64_t)ts.tv_sec * NS_PER_S + (uint64_t)ts.tv_nsec;
}

static uint64_t next_random(uint64_t *state)
{
	*state ^= *state << 13;
	*state ^= *state >> 7;
	*state ^= *state << 17;
	return *state;
}

/* Runs fn, which does BATCH operations, until the time is up. bytes: of one operation, or 0. */
static void measure(const char *name, void (*fn)(void *arg), void *arg, uint32_t bytes)
{
	uint64_t limit_ns = (uint64_t)(micro.seconds * 1e9);
	uint64_t from_ns = cpu_ns(), ops = 0, taken_ns;
	double each_ns;

	do {
		fn(arg);
		ops += BATCH;
		taken_ns = cpu_ns() - from_ns;
	} while (taken_ns < limit_ns);
	each_ns = (double)taken_ns / (double)ops;
	if (micro.rows != NULL) {
		json_array_append_new(micro.rows,
				      json_pack("{s:s,s:I,s:f,s:f}", "what", name, "operations",
						(json_int_t)ops, "ns", each_ns, "bytes_per_s",
						bytes * 1e9 / each_ns));
		return;
	}
	printf("%-28s %10.1f ns", name, each_ns);
	if (bytes > 0)
		printf("  %8.2f GB/s", bytes / each_ns);
	putchar('\n');
	fflush(stdout);
}

/* -- frame ------------------------------------------------------------------------------------ */

static void frame_batch(void *arg)
{
	uint8_t header[FRAME_HEADER_SIZE];
	struct frame f = {.wire_version = FRAME_VERSION,
			  .op = FRAME_WRITE,
			  .block_count = 1,
			  .payload_size = BLOCK_SIZE,
			  .crc_count = 1,
			  .version = version_make(3, 4)};

	(void)arg;
	for (uint32_t i = 0; i < BATCH; i++) {
		f.request_id = ++micro.sink;
		frame_encode_header(&f, header);
		INVARIANT(frame_decode_header(header, &f) == 0);
	}
}

static int run_frame(void)
{
	measure("frame encode + decode", frame_batch, NULL, 0);
	return 0;
}

/* -- crc -------------------------------------------------------------------------------------- */

struct crc_run {
	uint8_t *data;
	size_t size, at;
};

static void crc_batch(void *arg)
{
	struct crc_run *c = arg;

	for (uint32_t i = 0; i < BATCH; i++) {
		micro.sink += crc32c(0, c->data + c->at, BLOCK_SIZE);
		c->at = (c->at + BLOCK_SIZE) % c->size;
	}
}

static int run_crc(void)
{
	struct crc_run c = {.data = malloc(CRC_MEMORY), .size = BLOCK_SIZE};

	if (c.data == NULL)
		return -ENOMEM;
	memset(c.data, 0x5a, CRC_MEMORY);
	measure("crc of 4 KiB, hot", crc_batch, &c, BLOCK_SIZE);
	c.size = CRC_MEMORY;
	measure("crc of 4 KiB, cold", crc_batch, &c, BLOCK_SIZE);
	free(c.data);
	return 0;
}

/* -- permit ----------------------------------------------------------------------------------- */

struct permit_run {
	struct gate gate;
	const Pave__V1__Signed *message;
	const struct root_document *root;
};

static void gate_batch(void *arg)
{
	const struct permit_run *p = arg;

	for (uint64_t i = 0; i < BATCH; i++) {
		const volatile struct gate *gate = &p->gate;
		const struct gate g = {.deadline_ns = gate->deadline_ns};

		micro.sink += gate_open(&g, i);
	}
}

/* What a check reads that must not trust the turn's time. */
static void clock_batch(void *arg)
{
	struct timespec ts;

	(void)arg;
	for (uint32_t i = 0; i < BATCH; i++) {
		clock_gettime(CLOCK_BOOTTIME, &ts);
		micro.sink += (uint64_t)ts.tv_nsec;
	}
}

static void permit_batch(void *arg)
{
	const struct permit_run *p = arg;

	for (uint32_t i = 0; i < BATCH; i++) {
		struct permit permit = {0};
		struct error err;

		INVARIANT(permit_open(p->message, p->root, NS_PER_S, WALL, &permit, &err) == 0);
		permit_deinit(&permit);
	}
}

static int make_permit(const struct demo *demo, Pave__V1__Signed **ret)
{
	Pave__V1__Permit permit = PAVE__V1__PERMIT__INIT;
	Pave__V1__PermitNode nodes[3], *list[3];
	uint8_t digest[32] = {0};
	struct error err;

	for (uint32_t i = 0; i < 3; i++) {
		static char names[3][8] = {"par-1", "lyo-1", "rbx-1"};

		nodes[i] = (Pave__V1__PermitNode)PAVE__V1__PERMIT_NODE__INIT;
		nodes[i].node = names[i];
		nodes[i].site = names[i];
		nodes[i].site_version = 1;
		list[i] = &nodes[i];
	}
	permit.cluster = (ProtobufCBinaryData){sizeof demo->cluster.bytes,
					       (uint8_t *)(uintptr_t)demo->cluster.bytes};
	permit.policy_digest = (ProtobufCBinaryData){sizeof digest, digest};
	permit.volume = VOLUME;
	permit.generation = 1;
	permit.serial = 1;
	permit.map_version = 1;
	permit.holder = (char *)(uintptr_t) "host-1";
	permit.issued_at = WALL;
	permit.expires_at = WALL + PERMIT_LIFETIME_MS * (int64_t)NS_PER_MS;
	permit.nodes = list;
	permit.n_nodes = 3;
	return permit_make(&permit, demo_key(demo, DEMO_PLACEMENT), ret, &err);
}

static int run_permit(void)
{
	static const uint8_t seed[32] = "micro";
	struct permit_run p = {.gate = {.deadline_ns = UINT64_MAX}};
	struct root_document *root = NULL;
	Pave__V1__Signed *message = NULL;
	struct demo demo = {0};
	char *text = NULL;
	int rc = demo_init(&demo, seed, NULL);

	if (rc == 0)
		rc = demo_root(&demo, 1, WALL - DAY, WALL + DAY, &text, NULL);
	if (rc == 0)
		rc = root_open(text, strlen(text), NULL, &root, NULL);
	if (rc == 0)
		rc = make_permit(&demo, &message);
	if (rc == 0) {
		p.message = message;
		p.root = root;
		measure("permit, each operation", gate_batch, &p, 0);
		measure("permit, a reading of the clock", clock_batch, NULL, 0);
		measure("permit, verified once", permit_batch, &p, 0);
	}
	if (message != NULL)
		pave__v1__signed__free_unpacked(message, NULL);
	root_free(root);
	free(text);
	demo_deinit(&demo);
	return rc;
}

/* -- group ------------------------------------------------------------------------------------ */

struct group_run {
	uint32_t entry_count;
	struct format_entry entries[FORMAT_GROUP_ENTRIES_MAX];
	uint32_t crcs[FORMAT_GROUP_DATA_MAX];
	_Alignas(BLOCK_SIZE) uint8_t header[FORMAT_GROUP_HEADER_MAX * BLOCK_SIZE];
};

static void group_batch(void *arg)
{
	struct group_run *r = arg;
	struct format_group g = {
	    .header_blocks = (uint8_t)format_header_blocks(r->entry_count, r->entry_count),
	    .entry_count = r->entry_count,
	    .data_blocks = r->entry_count,
	};

	for (uint32_t i = 0; i < BATCH; i++) {
		g.seq = ++micro.sink;
		format_group_encode(&g, r->entries, r->crcs, r->header);
		INVARIANT(format_group_decode(r->header, sizeof r->header, &g) == 0);
		format_group_entries(r->header, &g, r->entries, r->crcs);
	}
}

static int run_group(void)
{
	static const uint32_t counts[] = {8, 256};
	struct group_run *r = aligned_alloc(BLOCK_SIZE, ROUND_UP(sizeof *r, BLOCK_SIZE));

	if (r == NULL)
		return -ENOMEM;
	memset(r, 0, sizeof *r);
	for (uint32_t i = 0; i < FORMAT_GROUP_ENTRIES_MAX; i++)
		r->entries[i] = (struct format_entry){.kind = FORMAT_DATA,
						      .block_count = 1,
						      .block = i,
						      .volume = VOLUME,
						      .data_first = i,
						      .version = version_make(1, i + 1)};
	for (uint32_t i = 0; i < ARRAY_SIZE(counts); i++) {
		char name[40];

		r->entry_count = counts[i];
		snprintf(name, sizeof name, "group of %u, header", counts[i]);
		measure(name, group_batch, r, 0);
	}
	free(r);
	return 0;
}

/* -- index ------------------------------------------------------------------------------------ */

struct index_run {
	struct index index;
	uint64_t random;
};

static void index_batch(void *arg)
{
	struct index_run *r = arg;

	for (uint32_t i = 0; i < BATCH; i++) {
		uint32_t at = (uint32_t)(next_random(&r->random) % micro.blocks);
		const struct index_chunk *chunk =
		    index_find_chunk(&r->index, VOLUME, at / CHUNK_BLOCKS);

		micro.sink += index_find_slot(&r->index, chunk, at % CHUNK_BLOCKS).location;
	}
}

static int run_index(void)
{
	struct index_run r = {.random = 88172645463325252ull};
	const uint64_t cache_bytes = (uint64_t)micro.blocks / PAGE_BLOCKS * 400 + MIB;
	int rc = index_init(&r.index, micro.blocks, cache_bytes, NULL);

	for (uint32_t at = 0; at < micro.blocks && rc == 0; at += PAGE_BLOCKS) {
		struct index_chunk *chunk;
		struct index_page *page;

		rc = index_get_chunk(&r.index, VOLUME, at / CHUNK_BLOCKS, &chunk);
		if (rc == 0)
			rc = index_make_page(&r.index, chunk, at % CHUNK_BLOCKS >> PAGE_SHIFT, true,
					     &page);
		if (rc == 0)
			page->pins++;
	}
	if (rc == 0)
		measure("index look-up, random", index_batch, &r, 0);
	index_deinit(&r.index);
	return rc;
}

/* -- command ---------------------------------------------------------------------------------- */

static const struct {
	const char *name;
	int (*run)(void);
} parts[] = {{"frame", run_frame},
	     {"crc", run_crc},
	     {"permit", run_permit},
	     {"group", run_group},
	     {"index", run_index}};

static int parse(int argc, char **argv)
{
	static const struct option options[] = {
	    {"seconds", required_argument, NULL, 's'},
	    {"blocks", required_argument, NULL, 'b'},
	    {"json", no_argument, NULL, 'j'},
	    {"help", no_argument, NULL, 'h'},
	    {0},
	};
	int c;

	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
		switch (c) {
		case 's':
			micro.seconds = strtod(optarg, NULL);
			break;
		case 'b':
			micro.blocks = (uint32_t)strtoul(optarg, NULL, 10);
			break;
		case 'j':
			micro.rows = json_array();
			break;
		case 'h':
			return 1;
		default:
			return -EINVAL;
		}
	}
	return optind == argc && micro.blocks >= PAGE_BLOCKS ? 0 : -EINVAL;
}

int micro_cpu(int argc, char **argv)
{
	int rc = parse(argc, argv);
	bool found = false;

	for (size_t i = 0; i < ARRAY_SIZE(parts) && rc == 0; i++) {
		if (strcmp(argv[0], "all") != 0 && strcmp(argv[0], parts[i].name) != 0)
			continue;
		found = true;
		rc = parts[i].run();
		if (rc < 0)
			fprintf(stderr, "micro %s: %s\n", parts[i].name, err_text(rc));
	}
	if (rc > 0 || rc == -EINVAL || !found) {
		fprintf(rc > 0 ? stdout : stderr,
			"usage: micro frame|crc|permit|group|index|all [--seconds N] [--blocks N] "
			"[--json]\n");
		return rc > 0 ? 0 : 2;
	}
	if (rc == 0 && micro.rows != NULL) {
		json_dumpf(micro.rows, stdout, JSON_INDENT(2) | JSON_REAL_PRECISION(6));
		putchar('\n');
	}
	json_decref(micro.rows);
	return rc == 0 ? 0 : 1;
}
