/* Tests of pave-inspect --index as its users see it: a store on a real file with a real index is
 * filled, one thing in either is spoilt on purpose, and what the program says, and its exit code,
 * are looked at. */
#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "engine/base/crc32c.h"
#include "engine/disk/disk.h"
#include "engine/store/check.h"
#include "engine/store/store.h"
#include "engine/store/survey.h"
#include "tests/unit/reactor_rig.h"
#include "tests/unit/tree_sum.h"

#define DEVICE_BYTES  (26 * MIB)
#define SEGMENT_BYTES (1u << 20)
#define VOLUME	      7u
#define WRITE_MAX     64u /* blocks */

static const char *program;
static char dir[64], device[96], index_dir[96];
static char said[1 << 16];

static struct disk *disk;
static struct kv *kv;
static struct store *store;
static struct store_identity identity = {.node = "n1", .shard_count = 1};
static uint64_t seq; /* of writes */
static generation_t generation = 1;
static bool done;
static void (*when_open)(void); /* before anything else happens to the store */

/* -- a store ---------------------------------------------------------------------------------- */

static void formatted(struct store_format_op *op, int status, const struct error *err)
{
	ck_assert_msg(status == 0, "%s", err != NULL ? err->text : "");
	identity = op->identity;
	done = true;
}

static void opened(struct store_open_op *op, int status, struct store *s, const struct error *err)
{
	(void)op;
	ck_assert_msg(status == 0, "%s", err != NULL ? err->text : "");
	store = s;
	if (when_open != NULL)
		when_open();
	done = true;
}

static void open_kv(void)
{
	struct error err = {0};

	ck_assert_msg(kv_rocks_open(reactor, index_dir, store_kv_family_names, STORE_KV_FAMILIES, 0,
				    &kv, &err) == 0,
		      "%s", err.text);
}

static void close_kv(void)
{
	kv_close(kv);
	kv = NULL;
}

static void open_disk(void)
{
	struct error err = {0};

	ck_assert_msg(disk_file_open(reactor, device, &disk, &err) == 0, "%s", err.text);
}

static void open_store(void)
{
	static struct store_open_op op;

	open_disk();
	open_kv();
	op = (struct store_open_op){
	    .done = opened,
	    .config = {.reactor = reactor, .disk = disk, .kv = kv, .identity = identity}};
	done = false;
	store_open(&op);
	run_until(&done);
}

static void closed(void *arg)
{
	*(bool *)arg = true;
}

static void let_go(void)
{
	store = NULL;
	disk_close(disk);
	disk = NULL;
	close_kv();
}

/* With a last checkpoint. */
static void close_store(void)
{
	done = false;
	store_close(store, closed, &done);
	run_until(&done);
	let_go();
}

static void shell(const char *format)
{
	char line[512];

	snprintf(line, sizeof line, format, dir);
	ck_assert_int_eq(system(line), 0);
}

/* What a process that is killed between two operations leaves behind: closing changes only what is
 * then replaced. */
static void kill_store(void)
{
	shell("cd %s && mkdir killed && cp -r --sparse=always device index killed");
	close_store();
	shell("cd %s && rm -r device index && mv killed/* . && rmdir killed");
}

static void begin_store(void)
{
	static struct store_format_op op;
	struct error err = {0};

	ck_assert_msg(disk_file_create(device, DEVICE_BYTES, &err) == 0, "%s", err.text);
	open_disk();
	op = (struct store_format_op){
	    .done = formatted, .disk = disk, .identity = identity, .segment_bytes = SEGMENT_BYTES};
	done = false;
	store_format(&op);
	run_until(&done);
	disk_close(disk);
	open_store();
}

/* -- operations ------------------------------------------------------------------------------- */

struct writing {
	struct store_write op;
	uint32_t crcs[WRITE_MAX];
	uint8_t *data;
	bool done;
};

static void written(struct store_write *op, int status)
{
	ck_assert_int_eq(status, 0);
	container_of(op, struct writing, op)->done = true;
}

static void submit(struct writing *w, enum store_write_kind kind, chunk_no_t chunk,
		   block_no_t block, uint32_t count)
{
	ck_assert_uint_le(count, WRITE_MAX);
	*w = (struct writing){.data = aligned_alloc(BLOCK_SIZE, WRITE_MAX * BLOCK_SIZE)};
	seq++;
	for (uint32_t i = 0; i < count; i++) {
		uint8_t *p = w->data + (size_t)i * BLOCK_SIZE;

		memset(p, (int)(block + i), BLOCK_SIZE);
		memcpy(p, &seq, sizeof seq);
		w->crcs[i] = crc32c(0, p, BLOCK_SIZE);
	}
	w->op = (struct store_write){.done = written,
				     .kind = kind,
				     .volume = VOLUME,
				     .chunk = chunk,
				     .block = block,
				     .block_count = count,
				     .version = version_make(generation, seq),
				     .crcs = w->crcs,
				     .data = w->data};
	store_write(store, &w->op);
}

static void finish(struct writing *w)
{
	run_until(&w->done);
	free(w->data);
}

static void write_as(enum store_write_kind kind, chunk_no_t chunk, block_no_t block, uint32_t count)
{
	static struct writing w;

	submit(&w, kind, chunk, block, count);
	finish(&w);
}

static void write_blocks(chunk_no_t chunk, block_no_t block, uint32_t count)
{
	write_as(STORE_DATA, chunk, block, count);
}

static void erased(struct store_erase_op *op, int status)
{
	(void)op;
	ck_assert_int_eq(status, 0);
	done = true;
}

static void erase_chunk(chunk_no_t chunk)
{
	static struct store_erase_op op;

	op = (struct store_erase_op){.done = erased, .volume = VOLUME, .chunk = chunk};
	done = false;
	store_erase(store, &op);
	run_until(&done);
}

static void nothing(struct reactor_timer *timer)
{
	(void)timer;
	done = true;
}

static void checkpoint(void)
{
	struct reactor_timer timer = {.fire = nothing};

	store_want_checkpoint(store);
	while (store_is_checkpointing(store)) {
		done = false;
		reactor_refresh(reactor);
		reactor_timer_arm(reactor, &timer, reactor_now_ns(reactor) + NS_PER_MS);
		run_until(&done);
	}
}

/* Of all kinds. Each write is a group of its own. Chunk 1 was erased, and page 6 of chunk 0 has
 * nothing in it. */
static void fill(void)
{
	for (uint32_t page = 0; page < 12; page++)
		if (page != 6)
			write_blocks(0, page * PAGE_BLOCKS, PAGE_BLOCKS);
	write_blocks(1, 0, 32);
	erase_chunk(1);
	write_blocks(0, 0, PAGE_BLOCKS);
	write_as(STORE_ZERO, 0, 32, 8);
	write_as(STORE_DISCARD, 0, 48, PAGE_BLOCKS);
	write_blocks(2, 100, 3);
}

/* -- the index and the device, to be spoilt --------------------------------------------------- */

static void committed(struct kv_op *op, int status)
{
	(void)op;
	ck_assert_int_eq(status, 0);
	done = true;
}

/* value NULL: deletes it. */
static void put(uint32_t family, const uint8_t *key, size_t key_size, const void *value,
		size_t value_size)
{
	struct kv_op op = {.done = committed};
	struct kv_batch *b;

	open_kv();
	b = kv_batch_create(kv);
	if (value != NULL)
		kv_batch_put(kv, b, family, key, key_size, value, value_size);
	else
		kv_batch_delete(kv, b, family, key, key_size);
	done = false;
	kv_commit(kv, b, &op);
	run_until(&done);
	close_kv();
}

static uint8_t found[FORMAT_CHUNK_VALUE_MAX];
static size_t found_size;

static int take(const void *key, size_t key_size, const void *value, size_t value_size, void *arg)
{
	(void)key;
	(void)key_size;
	(void)arg;
	ck_assert_uint_le(value_size, sizeof found);
	memcpy(found, value, value_size);
	found_size = value_size;
	return 0;
}

static void get(uint32_t family, const uint8_t *key, size_t key_size)
{
	found_size = 0;
	open_kv();
	ck_assert_int_eq(kv_scan(kv, family, key, key_size, take, NULL), 0);
	close_kv();
	ck_assert_uint_gt(found_size, 0);
}

static void get_page(chunk_no_t chunk, page_no_t page, struct format_slot *slots)
{
	uint8_t key[FORMAT_KEY_MAX];

	get(STORE_KV_PAGES, key, format_key_page(0, VOLUME, chunk, page, key));
	ck_assert_int_eq(format_page_decode(found, found_size, slots), 0);
}

static void put_page(chunk_no_t chunk, page_no_t page, const struct format_slot *slots)
{
	uint8_t key[FORMAT_KEY_MAX], value[FORMAT_PAGE_VALUE_MAX];
	size_t key_size = format_key_page(0, VOLUME, chunk, page, key);

	put(STORE_KV_PAGES, key, key_size, slots != NULL ? value : NULL,
	    slots != NULL ? format_page_encode(slots, value) : 0);
}

static uint32_t location_of(chunk_no_t chunk, block_no_t block)
{
	struct format_slot slots[PAGE_BLOCKS];

	get_page(chunk, block / PAGE_BLOCKS, slots);
	return slots[block % PAGE_BLOCKS].location;
}

static uint32_t segment_of(uint32_t location)
{
	return (location - FORMAT_SEGMENTS_BLOCK) / (SEGMENT_BYTES / BLOCK_SIZE);
}

static void change_segment(uint32_t no, int epoch, int live)
{
	uint8_t key[FORMAT_KEY_MAX], value[FORMAT_VALUE_MAX];
	size_t key_size = format_key_segment(0, no, key);
	struct format_segment record;
	struct format_traces traces;

	get(STORE_KV_SEGMENTS, key, key_size);
	ck_assert_int_eq(format_segment_decode(found, found_size, &record, &traces), 0);
	record.epoch += (uint32_t)epoch;
	record.live += (uint32_t)live;
	put(STORE_KV_SEGMENTS, key, key_size, value,
	    format_segment_encode(&record, &traces, value));
}

static void spoil(uint32_t location)
{
	int fd = open(device, O_RDWR | O_CLOEXEC);
	off_t at = (off_t)location * BLOCK_SIZE + 1000;
	uint8_t byte;

	ck_assert_int_eq(pread(fd, &byte, 1, at), 1);
	byte ^= 0x20;
	ck_assert_int_eq(pwrite(fd, &byte, 1, at), 1);
	ck_assert_int_eq(fsync(fd), 0);
	close(fd);
}

static int read_file(void *arg, uint64_t offset, size_t size, void *data)
{
	return pread(*(int *)arg, data, size, (off_t)offset) == (ssize_t)size ? 0 : -EIO;
}

struct search {
	uint8_t kind;
	uint64_t newer_than; /* version */
	uint32_t header;     /* where the first one lies */
};

static int look_at(const struct survey_group *group, void *arg)
{
	struct search *s = arg;

	for (uint32_t i = 0; i < group->header.entry_count; i++)
		if (group->entries[i].kind == s->kind &&
		    group->entries[i].version >= s->newer_than && s->header == 0)
			s->header = group->data_location - group->header.header_blocks;
	return 0;
}

/* The header of the first group with such an entry. */
static uint32_t find_header(enum format_kind kind, version_t newer_than)
{
	int fd = open(device, O_RDONLY | O_CLOEXEC);
	struct survey_device d = {
	    .read = read_file, .arg = &fd, .size_bytes = DEVICE_BYTES, .name = device};
	struct search s = {.kind = (uint8_t)kind, .newer_than = newer_than};
	struct survey_sink sink = {.group = look_at, .arg = &s};
	struct survey_super super;

	ck_assert_int_eq(survey_read_super(&d, &super, NULL), 0);
	ck_assert_int_eq(survey_run(&d, &super.copies[super.best], false, &sink), 0);
	close(fd);
	ck_assert_uint_gt(s.header, 0);
	return s.header;
}

/* -- the program ------------------------------------------------------------------------------ */

/* Runs it on the device with these words; what it says is in `said`. Returns the exit code. */
static int inspect(const char *words)
{
	char line[1024];
	size_t size;
	int rc;
	FILE *out;

	snprintf(line, sizeof line, "%s %s %s 2>&1", program, device, words);
	out = popen(line, "r");
	ck_assert_ptr_nonnull(out);
	size = fread(said, 1, sizeof said - 1, out);
	said[size] = '\0';
	rc = pclose(out);
	ck_assert(WIFEXITED(rc));
	return WEXITSTATUS(rc);
}

static int inspect_index(const char *more)
{
	char words[256];

	snprintf(words, sizeof words, "--index %s %s", index_dir, more);
	return inspect(words);
}

#define says(text)     ck_assert_msg(strstr(said, text) != NULL, "no \"%s\": %.4000s", text, said)
#define says_not(text) ck_assert_msg(strstr(said, text) == NULL, "\"%s\": %.4000s", text, said)

static void must_be_right(void)
{
	int rc = inspect_index("");

	ck_assert_msg(rc == 0, "exit %d: %.4000s", rc, said);
	says("Everything checks.");
}

/* With this text, and the way out. */
static void must_be_damaged(const char *text, const char *way_out)
{
	int rc = inspect_index("");

	ck_assert_msg(rc == 3, "exit %d: %.4000s", rc, said);
	says(text);
	says(way_out);
	says_not("Everything checks.");
}

static void must_be_right_when_rebuilt(void)
{
	char words[256];

	snprintf(index_dir, sizeof index_dir, "%s/anew", dir);
	snprintf(words, sizeof words, "--rebuild-index %s", index_dir);
	ck_assert_msg(inspect(words) == 0, "%s", said);
	must_be_right();
}

static void begin(void)
{
	set_up();
	snprintf(dir, sizeof dir, "/tmp/pave-test-inspect-XXXXXX");
	ck_assert_ptr_nonnull(mkdtemp(dir));
	snprintf(device, sizeof device, "%s/device", dir);
	snprintf(index_dir, sizeof index_dir, "%s/index", dir);
	begin_store();
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	(void)st;
	(void)type;
	(void)ftw;
	return remove(path);
}

static void end(void)
{
	tear_down();
	nftw(dir, remove_one, 8, FTW_DEPTH | FTW_PHYS);
}

/* -- what is right ---------------------------------------------------------------------------- */

START_TEST(what_is_right_is_said_to_be)
{
	fill();
	close_store();
	must_be_right();
	says("12 pages, 155 blocks: 155 as their groups say; 0 groups are later");
	/* A node that is killed has a log after its checkpoint. */
	open_store();
	write_blocks(0, 16, 2 * PAGE_BLOCKS);
	erase_chunk(2);
	kill_store();
	must_be_right();
	says("2 groups are later");
}
END_TEST

/* More references than are taken in at a time. */
START_TEST(a_large_index_is_gone_through_bit_by_bit)
{
	struct format_slot slots[PAGE_BLOCKS];

	for (uint32_t i = 0; i < 32; i++)
		write_blocks(0, i * WRITE_MAX, WRITE_MAX);
	close_store();
	ck_assert_msg(inspect_index("--memory 64KiB") == 0, "%s", said);
	says("2048 blocks: 2048 as their groups say");
	get_page(0, 127, slots);
	slots[0].crc++;
	put_page(0, 127, slots);
	get_page(0, 0, slots);
	slots[15].crc++;
	put_page(0, 0, slots);
	ck_assert_int_eq(inspect_index("--memory 64KiB"), 3);
	says("2046 as their groups say");
	says("2 BLOCKS: A GROUP SAYS SOMETHING ELSE");
	says("block 15 ");
	says("block 2032 ");
}
END_TEST

static struct writing first_write;

static void write_first(void)
{
	submit(&first_write, STORE_DATA, 3, 0, 4);
}

/* What recovery did not accept is not demanded of the index: a group that is torn, and one that is
 * whole behind it, of which nobody said that they were durable. */
START_TEST(what_recovery_dropped_is_not_missed)
{
	static struct writing w[5];
	uint32_t torn;

	fill();
	close_store();
	open_store();
	/* More than a group takes, so that some are in flight at a time. */
	for (uint32_t i = 0; i < ARRAY_SIZE(w); i++)
		submit(&w[i], STORE_DATA, 0, i * WRITE_MAX, WRITE_MAX);
	for (uint32_t i = 0; i < ARRAY_SIZE(w); i++)
		finish(&w[i]);
	kill_store();
	torn = find_header(FORMAT_DATA, version_make(1, seq + 1 - ARRAY_SIZE(w)));
	spoil(torn + 5);
	must_be_right();
	says("3 groups are later");
	/* At once: later it may go where those groups are. */
	when_open = write_first;
	open_store();
	finish(&first_write);
	close_store();
	must_be_right();
	says("0 groups are later");
	says("BLOCKS DO NOT CHECK"); /* that torn one */
	must_be_right_when_rebuilt();
}
END_TEST

/* The block that an old index refers to is spoilt, and was written again since. */
START_TEST(what_the_log_has_anew_is_no_damage)
{
	uint32_t before;

	fill();
	checkpoint();
	write_blocks(0, 64, PAGE_BLOCKS);
	kill_store();
	before = location_of(0, 64);
	spoil(before);
	ck_assert_msg(inspect_index("") == 0, "%s", said);
	says("1 blocks are not where the index has them, but the log after it has them anew");
	spoil(before + PAGE_BLOCKS * 2); /* another page's, which nobody wrote again */
	must_be_damaged("1 BLOCKS that the index refers to DO NOT CHECK", "pave scrub start");
}
END_TEST

/* -- whatever a node did ---------------------------------------------------------------------- */

#define BUSY_DEPTH  6u
#define BUSY_ROUNDS 8u
#define BUSY_BLOCKS 1024u /* of each of three chunks: half of the device, so that it is cleaned */

/* One after the other until it is killed; what was done is told in bytes. */
static void be_busy(void)
{
	static struct writing w[BUSY_DEPTH];

	for (;;) {
		for (uint32_t i = 0; i < BUSY_DEPTH; i++) {
			uint32_t count = 1 + (uint32_t)rand() % WRITE_MAX;
			uint32_t dice = (uint32_t)rand() % 16;
			enum store_write_kind kind = dice == 0	 ? STORE_ZERO
						     : dice == 1 ? STORE_DISCARD
								 : STORE_DATA;

			if (rand() % 2 == 0)
				count = 1;
			submit(&w[i], kind, (chunk_no_t)rand() % 3,
			       (block_no_t)rand() % (BUSY_BLOCKS - WRITE_MAX), count);
		}
		for (uint32_t i = 0; i < BUSY_DEPTH; i++)
			finish(&w[i]);
		if (rand() % 32 == 0)
			erase_chunk((chunk_no_t)rand() % 3);
		ck_assert_int_eq(write(STDOUT_FILENO, "x", 1), 1);
	}
}

static const char *busy_dir, *busy_round;

/* In that process: what checks must be in a test. */
START_TEST(being_busy)
{
	set_up();
	snprintf(device, sizeof device, "%s/device", busy_dir);
	snprintf(index_dir, sizeof index_dir, "%s/index", busy_dir);
	generation = (generation_t)atoi(busy_round);
	srand(generation);
	open_store();
	be_busy();
}
END_TEST

/* A process of its own, killed when it has done so much. */
static void be_busy_and_die(uint32_t round, uint32_t turns)
{
	char text[16], byte;
	int fds[2];
	pid_t child;

	snprintf(text, sizeof text, "%u", round);
	ck_assert_int_eq(pipe2(fds, O_CLOEXEC), 0);
	child = fork();
	if (child == 0) { /* this process has threads: only a new image may start others */
		dup2(fds[1], STDOUT_FILENO);
		execl("/proc/self/exe", "test_inspect", "--busy", dir, text, NULL);
		_exit(1);
	}
	close(fds[1]);
	for (uint32_t i = 0; i < turns; i++)
		ck_assert_int_eq(read(fds[0], &byte, 1), 1);
	kill(child, SIGKILL);
	ck_assert_int_eq(waitpid(child, NULL, 0), child);
	close(fds[0]);
}

/* Killed in the midst of writing, cleaning, erasing, releasing segments and using them again. */
START_TEST(whatever_a_node_did_is_right)
{
	close_store();
	for (uint32_t round = 1; round <= BUSY_ROUNDS; round++) {
		be_busy_and_die(round, 40 + 7 * round);
		must_be_right();
	}
	ck_assert_int_eq(inspect_index("--json"), 0);
	says_not("\"cold_groups\": 0"); /* it was cleaned */
	must_be_right_when_rebuilt();
}
END_TEST

/* It was erased; its pages are to be given back yet, and are counted until then. */
START_TEST(a_chunk_that_is_dead_is_right)
{
	uint8_t key[FORMAT_KEY_MAX], value[FORMAT_CHUNK_VALUE_MAX];
	size_t key_size = format_key_chunk(0, VOLUME, 2, key);
	struct format_leaf leaves[FORMAT_CHUNK_LEAVES] = {0};
	const struct format_leaf *places[FORMAT_CHUNK_LEAVES];
	struct format_chunk record;

	fill();
	close_store();
	get(STORE_KV_REPLICAS, key, key_size);
	ck_assert_int_eq(format_chunk_decode(found, found_size, &record, leaves), 0);
	for (uint32_t i = 0; i < FORMAT_CHUNK_LEAVES; i++)
		places[i] = &leaves[i];
	record.dead = true;
	put(STORE_KV_REPLICAS, key, key_size, value, format_chunk_encode(&record, places, value));
	must_be_right();
	says("11 pages, 152 blocks: 152 as their groups say");
	/* What becomes of them is nobody's loss. */
	spoil(location_of(2, 100));
	must_be_right();
}
END_TEST

/* -- what the index lacks --------------------------------------------------------------------- */

START_TEST(a_page_that_was_lost_is_missed)
{
	fill();
	close_store();
	put_page(0, 5, NULL);
	must_be_damaged("1 PAGES that exist, as their chunks say, ARE NOT THERE",
			"--rebuild-index makes a new one");
	says("volume 7 chunk 0 page 5 (blocks 80+16)");
	says("16 BLOCKS of groups that the index covers ARE NOT IN IT");
	says("volume 7 chunk 0 blocks 80+16 version 1.6 of group");
	says("the index has nothing");
	says("1 SEGMENTS ARE SAID TO HAVE MORE OR FEWER LIVE BLOCKS");
	ck_assert_int_eq(inspect_index("--json"), 3);
	says("\"missing_blocks\": 16");
	says("\"lost_pages\": 1");
	says("\"wrong_counts\": 1");
	says("\"damage\": true");
	must_be_right_when_rebuilt();
}
END_TEST

START_TEST(a_chunk_that_was_lost_is_missed)
{
	uint8_t key[FORMAT_KEY_MAX];

	fill();
	close_store();
	put_page(2, 6, NULL);
	put(STORE_KV_REPLICAS, key, format_key_chunk(0, VOLUME, 2, key), NULL, 0);
	must_be_damaged("3 BLOCKS of groups that the index covers ARE NOT IN IT",
			"--rebuild-index makes a new one");
	says("volume 7 chunk 2 blocks 100+3 version");
	says("1 SEGMENTS ARE SAID TO HAVE MORE OR FEWER LIVE BLOCKS");
	says_not("chunk 1"); /* which was erased */
}
END_TEST

START_TEST(an_older_page_is_missed)
{
	struct format_slot slots[PAGE_BLOCKS];

	fill();
	close_store();
	get_page(0, 1, slots);
	open_store();
	write_blocks(0, 16, 4);
	close_store();
	must_be_right();
	put_page(0, 1, slots);
	must_be_damaged("4 BLOCKS of groups that the index covers ARE NOT IN IT",
			"--rebuild-index makes a new one");
	says("blocks 16+4 version");
	says("the index has version 1.2");
}
END_TEST

/* Zeroes take no place, so no count misses them. */
START_TEST(a_tombstone_that_was_lost_is_missed)
{
	struct format_slot slots[PAGE_BLOCKS];

	fill();
	close_store();
	get_page(0, 2, slots);
	memset(slots, 0, 3 * sizeof *slots);
	put_page(0, 2, slots);
	must_be_damaged("blocks 32+3 version", "--rebuild-index makes a new one");
	says(
	    "6 BLOCKS of groups that the index covers ARE NOT IN IT"); /* and as they were before */
	says_not("LIVE BLOCKS");
}
END_TEST

/* The entry of the erase is gone, so the blocks might be missing: but the index counts none. */
START_TEST(what_may_have_been_erased_is_no_damage)
{
	struct format_slot slots[PAGE_BLOCKS];

	fill();
	close_store();
	spoil(find_header(FORMAT_ERASE, 0));
	ck_assert_msg(inspect_index("") == 0, "%s", said);
	says("32 blocks of groups are not in the index, nor does it count them");
	says("Everything checks.");
	/* It counts this one's. */
	get_page(0, 5, slots);
	memset(&slots[4], 0, sizeof slots[4]);
	put_page(0, 5, slots);
	must_be_damaged("BLOCKS of groups that the index covers ARE NOT IN IT",
			"--rebuild-index makes a new one");
	says("blocks 84+1 version");
	says("155 live blocks, and pages refer to 154");
}
END_TEST

START_TEST(records_that_disagree_are_told)
{
	struct format_slot slots[PAGE_BLOCKS];

	fill();
	close_store();
	change_segment(segment_of(location_of(0, 0)), 0, -3);
	must_be_damaged("1 SEGMENTS ARE SAID TO HAVE MORE OR FEWER LIVE BLOCKS",
			"--rebuild-index makes a new one");
	change_segment(segment_of(location_of(0, 0)), 0, 3);
	must_be_right();
	/* Of a page that nobody knows. */
	get_page(0, 5, slots);
	put_page(0, 6, slots);
	must_be_damaged("page 6: it is there, and its chunk says that no such page exists",
			"--rebuild-index makes a new one");
	put_page(0, 6, NULL);
	slots[0].version = version_make(9, 1);
	put_page(0, 5, slots);
	must_be_damaged("page 5: it holds newer versions than 1.",
			"--rebuild-index makes a new one");
	says("1 BLOCKS: A GROUP SAYS SOMETHING ELSE");
}
END_TEST

/* -- what the index has, and the device has not ----------------------------------------------- */

START_TEST(a_block_that_does_not_check_is_told)
{
	uint32_t location;

	fill();
	close_store();
	location = location_of(0, 70);
	spoil(location);
	must_be_damaged("1 BLOCKS that the index refers to DO NOT CHECK", "pave scrub start");
	says("volume 7 chunk 0 block 70 version 1.5");
}
END_TEST

START_TEST(blocks_under_no_header_are_told)
{
	uint32_t location;

	fill();
	close_store();
	location = location_of(0, 64);
	spoil(location - 1);
	spoil(location + 2);
	must_be_damaged("15 BLOCKS that the index refers to LIE UNDER NO VALID HEADER, and check",
			"pave scrub start");
	says("1 BLOCKS that the index refers to LIE UNDER NO VALID HEADER, and do not check");
	says("volume 7 chunk 0 block 66 version 1.5");
}
END_TEST

START_TEST(a_contradiction_is_told)
{
	struct format_slot slots[PAGE_BLOCKS];

	fill();
	close_store();
	get_page(0, 5, slots);
	slots[3].crc++;
	put_page(0, 5, slots);
	must_be_damaged("1 BLOCKS: A GROUP SAYS SOMETHING ELSE of their place than the index",
			"--rebuild-index makes a new one");
	says("volume 7 chunk 0 block 83 version 1.6");
	says("with another checksum");
	must_be_right_when_rebuilt();
}
END_TEST

START_TEST(places_that_are_shared_or_nowhere_are_told)
{
	struct format_slot slots[PAGE_BLOCKS], other[PAGE_BLOCKS];

	fill();
	close_store();
	get_page(0, 5, slots);
	get_page(0, 4, other);
	slots[3].location = other[2].location;
	slots[4].location = UINT32_MAX - 5;
	put_page(0, 5, slots);
	must_be_damaged("1 PLACES ARE REFERRED TO TWICE by the index",
			"--rebuild-index makes a new one");
	says("1 PLACES that the index refers to ARE NOT IN ANY SEGMENT of the shard");
	says("volume 7 chunk 0 block 84: the index has it in block 4294967290 of the device");
	says("1 BLOCKS: A GROUP SAYS SOMETHING ELSE");
}
END_TEST

START_TEST(an_old_index_is_told)
{
	fill();
	close_store();
	change_segment(segment_of(location_of(0, 64)), -1, 0);
	must_be_damaged("1 SEGMENTS HAVE BEEN USED AGAIN since: THE INDEX IS OLDER THAN THE DEVICE",
			"--rebuild-index makes a new one");
	ck_assert_int_eq(inspect_index("--json"), 3);
	says("\"stale\": true");
}
END_TEST

/* -- nothing is changed ----------------------------------------------------------------------- */

/* The index's last batches are in its log alone: who opens it to write makes a table of them. */
START_TEST(not_a_byte_changes)
{
	uint64_t before;

	fill();
	close_store();
	put_page(0, 5, NULL);
	before = tree_sum(dir);
	ck_assert_int_eq(inspect_index(""), 3);
	ck_assert_int_eq(inspect_index("--dump --json"), 3);
	ck_assert_uint_eq(tree_sum(dir), before);
}
END_TEST

START_TEST(a_wrong_directory_is_refused_and_left_alone)
{
	static const char *const others[] = {"register"};
	struct error err = {0};
	uint64_t before;
	char words[256];

	fill();
	close_store();
	before = tree_sum(dir);
	/* The node's own directory is easily named instead of the index in it. */
	snprintf(words, sizeof words, "--index %s", dir);
	ck_assert_int_eq(inspect(words), 1);
	says("holds no database");
	snprintf(words, sizeof words, "--index %s/nowhere", dir);
	ck_assert_int_eq(inspect(words), 1);
	says("nowhere");
	ck_assert_uint_eq(tree_sum(dir), before);
	/* A driver's. */
	snprintf(index_dir, sizeof index_dir, "%s/register", dir);
	ck_assert_int_eq(kv_rocks_open(reactor, index_dir, others, 1, 0, &kv, &err), 0);
	close_kv();
	before = tree_sum(dir);
	ck_assert_int_eq(inspect_index(""), 1);
	says("it is one of something else");
	ck_assert_uint_eq(tree_sum(dir), before);
}
END_TEST

static int run_suite(SRunner *sr, enum print_output how)
{
	int failed;

	srunner_run_all(sr, how);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed == 0 ? 0 : 1;
}

int main(int argc, char **argv)
{
	TCase *tc = tcase_create("index");
	Suite *s = suite_create("inspect");
	SRunner *sr = srunner_create(s);

	suite_add_tcase(s, tc);
	if (argc == 4 && strcmp(argv[1], "--busy") == 0) {
		busy_dir = argv[2];
		busy_round = argv[3];
		tcase_add_test(tc, being_busy);
		srunner_set_fork_status(sr, CK_NOFORK);
		return run_suite(sr, CK_SILENT);
	}
	if (argc != 2) {
		fputs("usage: test_inspect PAVE-INSPECT\n", stderr);
		return 2;
	}
	program = argv[1];
	tcase_add_checked_fixture(tc, begin, end);
	tcase_set_timeout(tc, 120);
	tcase_add_test(tc, what_is_right_is_said_to_be);
	tcase_add_test(tc, a_large_index_is_gone_through_bit_by_bit);
	tcase_add_test(tc, what_recovery_dropped_is_not_missed);
	tcase_add_test(tc, what_the_log_has_anew_is_no_damage);
	tcase_add_test(tc, whatever_a_node_did_is_right);
	tcase_add_test(tc, a_chunk_that_is_dead_is_right);
	tcase_add_test(tc, a_page_that_was_lost_is_missed);
	tcase_add_test(tc, a_chunk_that_was_lost_is_missed);
	tcase_add_test(tc, an_older_page_is_missed);
	tcase_add_test(tc, a_tombstone_that_was_lost_is_missed);
	tcase_add_test(tc, what_may_have_been_erased_is_no_damage);
	tcase_add_test(tc, records_that_disagree_are_told);
	tcase_add_test(tc, a_block_that_does_not_check_is_told);
	tcase_add_test(tc, blocks_under_no_header_are_told);
	tcase_add_test(tc, a_contradiction_is_told);
	tcase_add_test(tc, places_that_are_shared_or_nowhere_are_told);
	tcase_add_test(tc, an_old_index_is_told);
	tcase_add_test(tc, not_a_byte_changes);
	tcase_add_test(tc, a_wrong_directory_is_refused_and_left_alone);
	return run_suite(sr, CK_NORMAL);
}
