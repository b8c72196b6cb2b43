/* index-memory: what the store's index takes, in memory and in RocksDB, for each TiB that is
 * stored.
 *
 *   index-memory --dir DIR [--data 64GiB]
 *
 * Pages of the index are made as the store makes them (engine/store/index.h), put into RocksDB in
 * batches as a checkpoint does, and counted: all of them in memory at once, and what lies in DIR
 * after everything was flushed. Three patterns: written in order, 1 MiB at a time; written in
 * order, with one block in 16 written again at random; every block written by itself, at random.
 * Figures are the counters' and the files', scaled to 1 TiB.
 *
 * The database in DIR is made anew and removed at the end. */
#include <dirent.h>
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "engine/base/text.h"
#include "engine/store/index.h"
#include "engine/store/store.h"

#define CHUNK_PAGES ((uint32_t)(CHUNK_SIZE_DEFAULT / PAGE_SIZE_BYTES))
#define VOLUME	    7u
#define TIB	    (1024 * GIB)

enum pattern { SEQUENTIAL, MIXED, RANDOM, PATTERNS };

static const struct {
	const char *name;
	uint32_t page_bytes; /* of memory, more than enough */
} patterns[PATTERNS] = {
    {"sequential", 160},
    {"one block in 16 again", 400},
    {"random", 400},
};

struct bench {
	struct index_collector collector;
	struct reactor *reactor;
	struct kv *kv;
	struct kv_batch *batch;
	struct index index;
	char path[300];
	uint64_t random_state, version, bytes;
	enum pattern pattern;
	bool done;
	int status;
	struct kv_op op;
};

static uint64_t next_random(struct bench *b)
{
	b->random_state ^= b->random_state << 13;
	b->random_state ^= b->random_state >> 7;
	b->random_state ^= b->random_state << 17;
	return b->random_state;
}

/* -- what a checkpoint does ------------------------------------------------------------------- */

static void put_page(struct index_collector *collector, struct index_page *page)
{
	struct bench *b = container_of(collector, struct bench, collector);
	uint8_t key[FORMAT_KEY_MAX], value[FORMAT_PAGE_VALUE_MAX];
	size_t key_size = format_key_page(0, VOLUME, page->chunk->no, page->no, key);
	struct format_slot slots[PAGE_BLOCKS];

	for (uint32_t i = 0; i < PAGE_BLOCKS; i++)
		slots[i] = index_slot(page, i);
	kv_batch_put(b->kv, b->batch, STORE_KV_PAGES, key, key_size, value,
		     format_page_encode(slots, value));
	index_clean_page(&b->index, page);
}

static void put_chunk(struct index_collector *collector, struct index_chunk *chunk)
{
	struct bench *b = container_of(collector, struct bench, collector);
	struct format_chunk r = {.newest = chunk->newest, .leaf_mask = 0xffff};
	uint8_t key[FORMAT_KEY_MAX], value[FORMAT_CHUNK_VALUE_MAX];
	size_t key_size = format_key_chunk(0, VOLUME, chunk->no, key);

	kv_batch_put(
	    b->kv, b->batch, STORE_KV_REPLICAS, key, key_size, value,
	    format_chunk_encode(&r, (const struct format_leaf *const *)chunk->leaves, value));
	index_clean_chunk(&b->index, chunk);
}

static void committed(struct kv_op *op, int status)
{
	struct bench *b = container_of(op, struct bench, op);

	b->status = status;
	b->done = true;
}

static int checkpoint(struct bench *b)
{
	struct index_page *page;
	struct index_chunk *chunk;

	b->batch = kv_batch_create(b->kv);
	index_begin_epoch(&b->index);
	while ((page = index_next_dirty_page(&b->index)) != NULL) {
		put_page(&b->collector, page);
		index_narrow_page(&b->index, page);
	}
	while ((chunk = index_next_dirty_chunk(&b->index)) != NULL)
		put_chunk(&b->collector, chunk);
	b->op.done = committed;
	b->done = false;
	kv_commit(b->kv, b->batch, &b->op);
	reactor_run_until(b->reactor, &b->done, UINT64_MAX);
	index_end_epoch(&b->index);
	return b->status;
}

/* -- what is written -------------------------------------------------------------------------- */

static void fill_page(struct bench *b, struct index_page *page, uint64_t page_number)
{
	uint64_t first = FORMAT_SEGMENTS_BLOCK + page_number * PAGE_BLOCKS;
	uint32_t again = (uint32_t)(next_random(b) % PAGE_BLOCKS);

	if (page->no % (IO_BLOCKS_MAX / PAGE_BLOCKS) == 0)
		b->version++;
	for (uint32_t i = 0; i < PAGE_BLOCKS; i++) {
		struct format_slot slot = {.location = (uint32_t)(first + i),
					   .crc = (uint32_t)next_random(b),
					   .version = version_make(1, b->version)};

		if (b->pattern == RANDOM || (b->pattern == MIXED && i == again)) {
			slot.location =
			    FORMAT_SEGMENTS_BLOCK + (uint32_t)(next_random(b) % (1u << 28));
			slot.version = version_make(1, next_random(b) % (1u << 30) + 1);
		}
		index_set_slot(page, i, &slot);
	}
}

static int fill_chunk(struct bench *b, chunk_no_t no)
{
	struct index_chunk *chunk;
	int rc = index_get_chunk(&b->index, VOLUME, no, &chunk);

	for (page_no_t i = 0; rc == 0 && i < CHUNK_PAGES; i++) {
		struct index_page *page;

		rc = index_make_page(&b->index, chunk, i, true, &page);
		if (rc < 0)
			break;
		index_dirty_page(&b->index, page);
		fill_page(b, page, (uint64_t)no * CHUNK_PAGES + i);
	}
	return rc < 0 ? rc : checkpoint(b);
}

/* -- measuring -------------------------------------------------------------------------------- */

static int open_kv(struct bench *b, struct error *err)
{
	return kv_rocks_open(b->reactor, b->path, store_kv_family_names, STORE_KV_FAMILIES, 0,
			     &b->kv, err);
}

static uint64_t table_bytes(const char *path)
{
	DIR *dir = opendir(path);
	struct dirent *e;
	uint64_t bytes = 0;

	while (dir != NULL && (e = readdir(dir)) != NULL) {
		char file[600];
		struct stat st;
		size_t size = strlen(e->d_name);

		snprintf(file, sizeof file, "%s/%s", path, e->d_name);
		if (size > 4 && strcmp(e->d_name + size - 4, ".sst") == 0 && stat(file, &st) == 0)
			bytes += (uint64_t)st.st_size;
	}
	if (dir != NULL)
		closedir(dir);
	return bytes;
}

static int remove_kv(const struct bench *b)
{
	char command[400];

	snprintf(command, sizeof command, "rm -rf '%s'", b->path);
	return system(command) == 0 ? 0 : -EIO;
}

static void print(const struct bench *b, uint64_t disk_bytes)
{
	const struct index *ix = &b->index;
	double pages = (double)ix->page_count;
	double scale = (double)TIB / (double)b->bytes;
	uint64_t memory = index_memory_bytes(ix);
	uint64_t resident = ix->leaves.memory_bytes + ix->chunks.memory_bytes;

	printf("%-22s %9.0f pages: %5.1f B of memory a page, %6.3f GiB a TiB (of these %5.1f MiB "
	       "resident, for chunks); RocksDB %5.1f B a page, %6.3f GiB a TiB\n",
	       patterns[b->pattern].name, pages, (double)memory / pages,
	       (double)memory * scale / (double)GIB, (double)resident * scale / (double)MIB,
	       (double)disk_bytes / pages, (double)disk_bytes * scale / (double)GIB);
	fflush(stdout);
}

static int run(struct bench *b, struct error *err)
{
	uint64_t pages = b->bytes / PAGE_SIZE_BYTES;
	int rc = remove_kv(b);

	if (rc == 0)
		rc = open_kv(b, err);
	if (rc < 0)
		return rc;
	rc = index_init(&b->index, (uint32_t)(b->bytes / BLOCK_SIZE),
			pages * patterns[b->pattern].page_bytes + 8 * MIB, &b->collector);
	for (chunk_no_t no = 0; rc == 0 && no < b->bytes / CHUNK_SIZE_DEFAULT; no++)
		rc = fill_chunk(b, no);
	if (rc < 0)
		return error_set(err, rc, "the index cannot be filled: %s", err_text(rc));
	if (b->index.evicted_count > 0)
		return error_set(err, -E_LIMIT, "the index does not fit into its memory");
	/* Opening writes what is in RocksDB's log to its tables. */
	kv_close(b->kv);
	b->kv = NULL;
	rc = open_kv(b, err);
	if (rc < 0)
		return rc;
	kv_close(b->kv);
	b->kv = NULL;
	print(b, table_bytes(b->path));
	index_deinit(&b->index);
	return remove_kv(b);
}

static int usage(void)
{
	fprintf(stderr, "usage: index-memory --dir DIR [--data SIZE]; SIZE in multiples of "
			"256MiB, default 64GiB\n");
	return 2;
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
	    {"dir", required_argument, NULL, 'd'}, {"data", required_argument, NULL, 's'}, {0}};
	struct bench b = {.collector = {.page = put_page, .chunk = put_chunk},
			  .random_state = 0x2545f4914f6cdd1dull,
			  .bytes = 64 * GIB};
	struct reactor_config config = {.name = "bench"};
	struct error err = {0};
	const char *dir = NULL;
	int c, rc;

	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
		if (c == 'd')
			dir = optarg;
		else if (c != 's' || text_parse_size(optarg, &b.bytes) < 0)
			return usage();
	}
	if (dir == NULL || b.bytes == 0 || b.bytes % CHUNK_SIZE_DEFAULT != 0 || b.bytes > 8 * TIB)
		return usage();
	snprintf(b.path, sizeof b.path, "%s/index-memory.kv", dir);
	rc = reactor_create(&config, &b.reactor);
	if (rc < 0)
		error_set(&err, rc, "io_uring: %s", err_text(rc));
	for (b.pattern = 0; rc == 0 && b.pattern < PATTERNS; b.pattern++)
		rc = run(&b, &err);
	reactor_destroy(b.reactor);
	if (rc < 0)
		fprintf(stderr, "index-memory: %s\n", err.text);
	return rc < 0 ? 1 : 0;
}
