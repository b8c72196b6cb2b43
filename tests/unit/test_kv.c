/* Unit tests of engine/kv: RocksDB behind kv.h. */
#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <fnmatch.h>
#include <ftw.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "engine/base/types.h"
#include "engine/kv/kv.h"
#include "tests/unit/tree_sum.h"

#define PATIENCE_NS (60 * NS_PER_S)

static const char *const families[] = {"pages", "replicas", "node"};
enum { PAGES, REPLICAS, NODE };

static struct reactor *reactor;
static struct kv *kv;
static char dir[64];
static bool finished;

static void open_kv(void)
{
	struct error err = {0};
	int rc = kv_rocks_open(reactor, dir, families, ARRAY_SIZE(families), 0, &kv, &err);

	ck_assert_msg(rc == 0, "%s", err.text);
}

static void set_up(void)
{
	struct reactor_config config = {.name = "test", .worker_count = 3};

	snprintf(dir, sizeof dir, "/tmp/pave-test-kv-XXXXXX");
	ck_assert_ptr_nonnull(mkdtemp(dir));
	ck_assert_int_eq(reactor_create(&config, &reactor), 0);
	open_kv();
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	(void)st;
	(void)type;
	(void)ftw;
	return remove(path);
}

static void tear_down(void)
{
	kv_close(kv);
	reactor_destroy(reactor);
	nftw(dir, remove_one, 8, FTW_DEPTH | FTW_PHYS);
}

/* In front of the C library's, for RocksDB too: how often something was made durable. */
static atomic_uint sync_count;

int fdatasync(int fd)
{
	atomic_fetch_add(&sync_count, 1);
	return (int)syscall(SYS_fdatasync, fd);
}

static void run(void)
{
	finished = false;
	reactor_refresh(reactor);
	ck_assert_int_eq(
	    reactor_run_until(reactor, &finished, reactor_now_ns(reactor) + PATIENCE_NS), 0);
}

static int last_status;

static void commit_done(struct kv_op *op, int status)
{
	(void)op;
	last_status = status;
	finished = true;
}

static int commit(struct kv_batch *b)
{
	struct kv_op op = {.done = commit_done};

	finished = false;
	last_status = 1;
	kv_commit(kv, b, &op);
	ck_assert(!finished); /* never inline */
	run();
	return last_status;
}

static void put(struct kv_batch *b, uint32_t family, const char *key, const char *value)
{
	kv_batch_put(kv, b, family, key, strlen(key), value, strlen(value));
}

static void get_done(struct kv_get_op *op, int status)
{
	(void)op;
	last_status = status;
	finished = true;
}

/* The value as text, or NULL when there is none. */
static const char *get(uint32_t family, const char *key)
{
	static char value[64];
	struct kv_get_op op = {.done = get_done,
			       .family = family,
			       .key_size = strlen(key),
			       .value = value,
			       .value_max = sizeof value - 1};

	memcpy(op.key, key, op.key_size);
	kv_get(kv, &op);
	run();
	if (last_status == -ENOENT)
		return NULL;
	ck_assert_int_eq(last_status, 0);
	value[op.value_size] = '\0';
	return value;
}

static char scanned[256];

static int append(const void *key, size_t key_size, const void *value, size_t value_size, void *arg)
{
	size_t len = strlen(scanned);
	int *stop_after = arg;

	snprintf(scanned + len, sizeof scanned - len, "%.*s=%.*s ", (int)key_size,
		 (const char *)key, (int)value_size, (const char *)value);
	return stop_after != NULL && --*stop_after == 0 ? -ECANCELED : 0;
}

static const char *scan(uint32_t family, const char *prefix)
{
	scanned[0] = '\0';
	ck_assert_int_eq(kv_scan(kv, family, prefix, strlen(prefix), append, NULL), 0);
	return scanned;
}

START_TEST(what_is_committed_is_there_after_reopening)
{
	struct kv_batch *b = kv_batch_create(kv);

	put(b, PAGES, "a", "1");
	put(b, NODE, "a", "2");
	put(b, NODE, "empty", "");
	ck_assert_int_eq(commit(b), 0);
	for (uint32_t i = 0; i < 2; i++) {
		ck_assert_str_eq(get(PAGES, "a"), "1");
		ck_assert_str_eq(get(NODE, "a"), "2");
		ck_assert_str_eq(get(NODE, "empty"), "");
		ck_assert_ptr_null(get(REPLICAS, "a"));
		kv_close(kv);
		open_kv();
	}
}
END_TEST

START_TEST(a_batch_that_is_destroyed_leaves_nothing)
{
	struct kv_batch *b = kv_batch_create(kv);

	put(b, PAGES, "a", "1");
	kv_batch_destroy(kv, b);
	kv_batch_destroy(kv, NULL);
	ck_assert_ptr_null(get(PAGES, "a"));
}
END_TEST

/* For which there was no memory. */
START_TEST(a_batch_that_is_none_fails_and_no_other)
{
	struct kv_batch *b = kv_batch_create(kv);

	put(b, PAGES, "a", "1");
	put(b, PAGES, "b", "2");
	ck_assert_int_eq(commit(b), 0);
	put(NULL, PAGES, "c", "3");
	kv_batch_delete(kv, NULL, PAGES, "a", 1);
	kv_batch_delete_range(kv, NULL, PAGES, "a", 1, "z", 1);
	ck_assert_int_eq(commit(NULL), -EIO);
	b = kv_batch_create(kv);
	put(b, PAGES, "d", "4");
	ck_assert_int_eq(commit(b), 0);
	ck_assert_str_eq(scan(PAGES, ""), "a=1 b=2 d=4 ");
}
END_TEST

START_TEST(deletes_and_ranges)
{
	struct kv_batch *b = kv_batch_create(kv);

	for (char c = 'a'; c <= 'h'; c++)
		kv_batch_put(kv, b, PAGES, &c, 1, &c, 1);
	put(b, REPLICAS, "c", "kept");
	ck_assert_int_eq(commit(b), 0);
	b = kv_batch_create(kv);
	kv_batch_delete(kv, b, PAGES, "a", 1);
	kv_batch_delete_range(kv, b, PAGES, "c", 1, "f", 1); /* [c, f) */
	put(b, PAGES, "d", "again");			     /* later in the batch: it stays */
	ck_assert_int_eq(commit(b), 0);
	ck_assert_str_eq(scan(PAGES, ""), "b=b d=again f=f g=g h=h ");
	kv_close(kv);
	open_kv();
	ck_assert_str_eq(scan(PAGES, ""), "b=b d=again f=f g=g h=h ");
	ck_assert_ptr_null(get(PAGES, "c"));
	ck_assert_str_eq(get(REPLICAS, "c"), "kept");
}
END_TEST

/* What a batch says of one key holds in the order in which it was said, however much else it holds
 * and in whatever order the keys come. */
START_TEST(the_last_word_on_a_key_counts)
{
	static const uint32_t keys = 500;
	struct kv_batch *b = kv_batch_create(kv);
	int32_t expected[500];
	uint64_t dice = 7;
	char key[8], value[64];

	memset(expected, -1, sizeof expected);
	for (int32_t i = 0; i < 20000; i++) {
		const uint32_t k =
		    (uint32_t)((dice = dice * 6364136223846793005ull + 1) >> 40) % keys;

		snprintf(key, sizeof key, "k%03u", k);
		snprintf(value, sizeof value, "%031d", i); /* more than fits one piece of memory */
		if (i % 5000 == 4999) {
			kv_batch_delete_range(kv, b, PAGES, "k100", 4, "k200", 4);
			memset(&expected[100], -1, 100 * sizeof expected[0]);
		} else if (i % 7 == 0) {
			kv_batch_delete(kv, b, PAGES, key, strlen(key));
			expected[k] = -1;
		} else {
			put(b, PAGES, key, value);
			put(b, NODE, key, "elsewhere");
			expected[k] = i;
		}
	}
	ck_assert_int_eq(commit(b), 0);
	for (uint32_t k = 0; k < keys; k++) {
		const char *found;

		snprintf(key, sizeof key, "k%03u", k);
		found = get(PAGES, key);
		ck_assert_int_eq(found != NULL ? atoi(found) : -1, expected[k]);
	}
}
END_TEST

START_TEST(a_scan_sees_its_prefix_in_order)
{
	struct kv_batch *b = kv_batch_create(kv);
	int stop_after = 2;

	put(b, PAGES, "v2", "x");
	put(b, PAGES, "v10", "b");
	put(b, PAGES, "v1", "a");
	put(b, PAGES, "v11", "c");
	put(b, PAGES, "w", "y");
	put(b, PAGES, "v1\xff", "d");
	ck_assert_int_eq(commit(b), 0);
	ck_assert_str_eq(scan(PAGES, "v1"), "v1=a v10=b v11=c v1\xff=d ");
	ck_assert_str_eq(scan(PAGES, "x"), "");
	ck_assert_str_eq(scan(PAGES, "v111"), "");
	scanned[0] = '\0';
	ck_assert_int_eq(kv_scan(kv, PAGES, "v", 1, append, &stop_after), -ECANCELED);
	ck_assert_str_eq(scanned, "v1=a v10=b ");
}
END_TEST

START_TEST(a_value_that_is_too_long_is_cut)
{
	struct kv_batch *b = kv_batch_create(kv);
	char small[5] = "....";
	struct kv_get_op op = {
	    .done = get_done, .family = NODE, .key = "k", .key_size = 1, .value = small};

	put(b, NODE, "k", "0123456789");
	ck_assert_int_eq(commit(b), 0);
	op.value_max = 3;
	kv_get(kv, &op);
	run();
	ck_assert_int_eq(last_status, 0);
	ck_assert_uint_eq(op.value_size, 10);
	ck_assert_str_eq(small, "012.");
}
END_TEST

#define COMMITS 50u
static struct kv_op ops[COMMITS];
static uint32_t commits_done;

static void ordered_done(struct kv_op *op, int status)
{
	ck_assert_int_eq(status, 0);
	ck_assert_ptr_eq(op, &ops[commits_done]);
	finished = ++commits_done == COMMITS;
}

START_TEST(commits_take_effect_in_the_order_of_the_calls)
{
	char expected[16];

	for (uint32_t i = 0; i < COMMITS; i++) {
		struct kv_batch *b = kv_batch_create(kv);

		snprintf(expected, sizeof expected, "%u", i);
		put(b, NODE, "last", expected);
		ops[i].done = ordered_done;
		kv_commit(kv, b, &ops[i]);
	}
	run();
	ck_assert_str_eq(get(NODE, "last"), expected);
}
END_TEST

/* The other process of the next test, with none of Check's assertions: it commits (i in one family,
 * i in another) and then writes i to its output, for ever. */
static uint32_t child_next;

static void child_commit(struct kv_op *op);

static void child_committed(struct kv_op *op, int status)
{
	if (status != 0 || write(STDOUT_FILENO, &child_next, sizeof child_next) < 0)
		_exit(1);
	child_next++;
	child_commit(op);
}

static void child_commit(struct kv_op *op)
{
	struct kv_batch *b = kv_batch_create(kv);
	char text[16];

	snprintf(text, sizeof text, "%u", child_next);
	put(b, PAGES, "n", text);
	put(b, REPLICAS, "n", text);
	kv_commit(kv, b, op);
}

static int child_main(const char *path)
{
	struct reactor_config config = {.name = "child"};
	struct kv_op op = {.done = child_committed};

	child_next = 1;
	if (reactor_create(&config, &reactor) != 0 ||
	    kv_rocks_open(reactor, path, families, ARRAY_SIZE(families), 0, &kv, NULL) != 0)
		return 1;
	child_commit(&op);
	return reactor_run(reactor);
}

/* Another process that commits until it is killed. *ret_fd: the numbers that it has committed. */
static pid_t start_child(int *ret_fd)
{
	int fds[2];
	pid_t child;

	ck_assert_int_eq(pipe2(fds, O_CLOEXEC), 0);
	child = fork();
	if (child == 0) { /* this process has threads: only a new image may start others */
		dup2(fds[1], STDOUT_FILENO);
		execl("/proc/self/exe", "test_kv", dir, NULL);
		_exit(1);
	}
	close(fds[1]);
	*ret_fd = fds[0];
	return child;
}

/* Killed at any moment, what it has confirmed is there, and the two families agree. */
START_TEST(a_killed_process_has_committed_whole_batches)
{
	uint32_t confirmed = 0, next, wanted = 20 + 13 * (uint32_t)_i;
	int fd;
	pid_t child;
	const char *pages;

	kv_close(kv);
	kv = NULL;
	child = start_child(&fd);
	while (read(fd, &next, sizeof next) == (ssize_t)sizeof next) {
		ck_assert_uint_eq(next, confirmed + 1);
		confirmed = next;
		if (confirmed == wanted)
			kill(child, SIGKILL);
	}
	ck_assert_int_eq(waitpid(child, NULL, 0), child);
	ck_assert_uint_ge(confirmed, wanted);
	open_kv();
	pages = get(PAGES, "n");
	ck_assert_ptr_nonnull(pages);
	ck_assert_uint_ge(strtoul(pages, NULL, 10), confirmed);
	ck_assert_uint_le(strtoul(pages, NULL, 10), confirmed + 1);
	snprintf(scanned, sizeof scanned, "%s", pages);
	ck_assert_str_eq(get(REPLICAS, "n"), scanned);
	close(fd);
}
END_TEST

static int look(const char *path, const char *const *names, struct error *err)
{
	return kv_rocks_open_read_only(reactor, path, names, 3, 0, &kv, err);
}

/* What is committed is in its log alone: who opens it to write makes tables of that, and who opens
 * it to look must see it all the same. */
START_TEST(looking_sees_everything_and_changes_nothing)
{
	struct error err = {0};
	struct kv_batch *b;
	uint64_t before;
	uint32_t next;
	pid_t child;
	int fd;

	kv_close(kv);
	kv = NULL;
	child = start_child(&fd);
	for (uint32_t i = 0; i < 5; i++)
		ck_assert_int_eq(read(fd, &next, sizeof next), sizeof next);
	/* It has it open. */
	ck_assert_int_eq(look(dir, families, &err), -E_IN_USE);
	ck_assert_ptr_null(kv);
	ck_assert_msg(strstr(err.text, "another process") != NULL, "%s", err.text);
	kill(child, SIGKILL);
	ck_assert_int_eq(waitpid(child, NULL, 0), child);
	close(fd);
	before = tree_sum(dir);
	ck_assert_msg(look(dir, families, &err) == 0, "%s", err.text);
	ck_assert_uint_ge(strtoul(get(PAGES, "n"), NULL, 10), 5);
	ck_assert_uint_ge(strtoul(get(REPLICAS, "n"), NULL, 10), 5);
	b = kv_batch_create(kv);
	put(b, PAGES, "n", "0");
	ck_assert_int_lt(commit(b), 0);
	kv_close(kv);
	kv = NULL;
	ck_assert_uint_eq(tree_sum(dir), before);
}
END_TEST

START_TEST(looking_makes_no_database)
{
	static const char *const others[] = {"pages", "replicas", "ledger"};
	struct error err = {0};
	char path[96];
	uint64_t before;

	kv_close(kv);
	kv = NULL;
	snprintf(path, sizeof path, "%s/empty", dir);
	ck_assert_int_eq(look(path, families, &err), -ENOENT);
	ck_assert_int_eq(access(path, F_OK), -1);
	ck_assert_int_eq(mkdir(path, 0700), 0);
	before = tree_sum(dir);
	ck_assert_int_eq(look(path, families, &err), -ENOENT);
	ck_assert_msg(strstr(err.text, "holds no database") != NULL, "%s", err.text);
	ck_assert_int_eq(look(dir, others, &err), -ENOENT);
	ck_assert_msg(strstr(err.text, "something else") != NULL, "%s", err.text);
	ck_assert_ptr_null(kv);
	ck_assert_uint_eq(tree_sum(dir), before);
}
END_TEST

START_TEST(a_commit_is_synced_before_it_is_done)
{
	for (uint32_t i = 0; i < 5; i++) {
		struct kv_batch *b = kv_batch_create(kv);
		uint32_t before = atomic_load(&sync_count);

		put(b, PAGES, "a", "1");
		ck_assert_uint_eq(atomic_load(&sync_count), before);
		ck_assert_int_eq(commit(b), 0);
		ck_assert_uint_gt(atomic_load(&sync_count), before);
	}
}
END_TEST

static const char *damage_pattern;
static uint32_t damaged;

/* Cuts the last bytes off a log; spoils the first ones, a data block, of a table. */
static int damage(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	static const char rubbish[] = "bytes that no checksum fits....";
	int fd;

	if (type != FTW_F || fnmatch(damage_pattern, path + ftw->base, 0) != 0 || st->st_size == 0)
		return 0;
	damaged++;
	if (strcmp(damage_pattern, "*.log") == 0)
		return truncate(path, st->st_size - 3);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	ck_assert_int_eq(write(fd, rubbish, sizeof rubbish), sizeof rubbish);
	return close(fd);
}

static void damage_files(const char *pattern)
{
	damage_pattern = pattern;
	damaged = 0;
	ck_assert_int_eq(nftw(dir, damage, 8, FTW_PHYS), 0);
	ck_assert_uint_gt(damaged, 0);
}

START_TEST(a_torn_batch_is_gone_altogether)
{
	struct kv_batch *b = kv_batch_create(kv);

	put(b, PAGES, "a", "1");
	put(b, NODE, "a", "1");
	ck_assert_int_eq(commit(b), 0);
	b = kv_batch_create(kv);
	put(b, PAGES, "a", "2");
	put(b, NODE, "a", "2");
	ck_assert_int_eq(commit(b), 0);
	kv_close(kv);
	damage_files("*.log");
	open_kv();
	ck_assert_str_eq(get(PAGES, "a"), "1");
	ck_assert_str_eq(get(NODE, "a"), "1");
}
END_TEST

START_TEST(spoilt_data_is_never_returned)
{
	static char value[64];
	struct kv_get_op op = {
	    .done = get_done, .key = "a", .key_size = 1, .value = value, .value_max = sizeof value};
	struct kv_batch *b = kv_batch_create(kv);

	put(b, PAGES, "a", "a value of some length, so that it is hit");
	ck_assert_int_eq(commit(b), 0);
	kv_close(kv);
	open_kv(); /* makes a table of the log */
	kv_close(kv);
	damage_files("*.sst");
	open_kv();
	kv_get(kv, &op);
	run();
	ck_assert_int_eq(last_status, -E_CORRUPT);
	ck_assert_int_eq(kv_scan(kv, PAGES, "", 0, append, NULL), -E_CORRUPT);
	ck_assert_str_eq(scanned, "");
}
END_TEST

static void commit_value(uint32_t family, const char *key, const char *value)
{
	struct kv_batch *b = kv_batch_create(kv);

	put(b, family, key, value);
	ck_assert_int_eq(commit(b), 0);
}

#define BIG_SIZE 100000u /* in four blocks of the log */

static void commit_big(void)
{
	struct kv_batch *b = kv_batch_create(kv);
	char *value = malloc(BIG_SIZE);

	memset(value, 'b', BIG_SIZE);
	memcpy(value, "begin", 5);
	memcpy(value + BIG_SIZE / 2, "middle", 6);
	memcpy(value + BIG_SIZE - 3, "end", 3);
	kv_batch_put(kv, b, NODE, "big", 3, value, BIG_SIZE);
	ck_assert_int_eq(commit(b), 0);
	free(value);
}

/* What is spoilt in the only log: so many bytes, from so far behind where this text is found. */
struct spoiling {
	const char *text;
	int delta, size;
};
static const struct spoiling *spoiling;

static int spoil(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	char *bytes, *at;
	int fd;

	if (type != FTW_F || fnmatch("*.log", path + ftw->base, 0) != 0 || st->st_size == 0)
		return 0;
	fd = open(path, O_RDWR | O_CLOEXEC);
	bytes = calloc(1, (size_t)st->st_size);
	ck_assert_int_eq(pread(fd, bytes, (size_t)st->st_size, 0), st->st_size);
	at = memmem(bytes, (size_t)st->st_size, spoiling->text, strlen(spoiling->text));
	ck_assert_ptr_nonnull(at);
	at += spoiling->delta;
	memset(at, 0, (size_t)spoiling->size);
	ck_assert_int_eq(pwrite(fd, at, (size_t)spoiling->size, at - bytes), spoiling->size);
	free(bytes);
	damaged++;
	return close(fd);
}

static void spoil_log(const struct spoiling *what)
{
	kv_close(kv);
	kv = NULL;
	spoiling = what;
	damaged = 0;
	ck_assert_int_eq(nftw(dir, spoil, 8, FTW_PHYS), 0);
	ck_assert_uint_eq(damaged, 1);
}

/* It was confirmed, and so was what comes after it: without them the database would be an older
 * one, in which what a driver gave out once is free again. */
static const struct spoiling confirmed_parts[] = {
    {"first", 0, 1},   {"first", -24, 1}, /* its checksum */
    {"first", -20, 2},			  /* its length */
    {"begin", 0, 1},   {"middle", 0, 4096},
    {"end", 0, 1},     {"begin", 0, 40000}, /* more than one block */
};

START_TEST(a_confirmed_batch_that_is_spoilt_is_not_cut_off)
{
	struct error err = {0};

	commit_value(PAGES, "a", "first");
	commit_big();
	commit_value(PAGES, "a", "third");
	spoil_log(&confirmed_parts[_i]);
	ck_assert_int_eq(kv_rocks_open(reactor, dir, families, 3, 0, &kv, &err), -E_CORRUPT);
	ck_assert_ptr_null(kv);
	ck_assert_msg(strstr(err.text, dir) != NULL, "%s", err.text);
}
END_TEST

/* Any of its pages may be what the power took away. */
static const struct spoiling torn_parts[] = {
    {"begin", -13, 1}, {"begin", 0, 4096}, {"middle", 0, 4096},
    {"end", 0, 1},     {"end", -4096, 1},  {"begin", 0, 40000},
};

START_TEST(a_batch_that_lacks_any_of_its_pages_is_gone_altogether)
{
	commit_value(PAGES, "a", "first");
	commit_big();
	spoil_log(&torn_parts[_i]);
	open_kv();
	ck_assert_str_eq(get(PAGES, "a"), "first");
	ck_assert_str_eq(scan(NODE, ""), "");
}
END_TEST

START_TEST(a_database_is_opened_once)
{
	struct error err = {0};
	struct kv *second = NULL;

	ck_assert_int_eq(kv_rocks_open(reactor, dir, families, 3, 0, &second, &err), -E_IN_USE);
	ck_assert_ptr_null(second);
	ck_assert_msg(strstr(err.text, dir) != NULL, "%s", err.text);
}
END_TEST

START_TEST(a_database_that_cannot_be_says_so)
{
	static const char *const fewer[] = {"pages"};
	struct error err = {0};
	struct kv *other = NULL;
	char path[96];
	int fd;

	ck_assert_int_lt(kv_rocks_open(reactor, "/proc/no/such", families, 3, 0, &other, &err), 0);
	ck_assert_ptr_nonnull(strstr(err.text, "/proc/no/such"));
	kv_close(kv);
	kv = NULL;
	/* Not for want of anybody letting go of its lock. */
	snprintf(path, sizeof path, "%s/LOCK", dir);
	ck_assert_int_eq(unlink(path), 0);
	ck_assert_int_eq(mkdir(path, 0700), 0);
	ck_assert_int_eq(kv_rocks_open(reactor, dir, families, 3, 0, &other, &err), -EIO);
	ck_assert_int_eq(rmdir(path), 0);
	/* Written by a version that knows more families. */
	ck_assert_int_eq(kv_rocks_open(reactor, dir, fewer, 1, 0, &other, &err), -EINVAL);
	snprintf(path, sizeof path, "%s/CURRENT", dir);
	fd = open(path, O_WRONLY | O_TRUNC | O_CLOEXEC);
	ck_assert_int_eq(write(fd, "rubbish\n", 8), 8);
	close(fd);
	ck_assert_int_lt(kv_rocks_open(reactor, dir, families, 3, 0, &other, &err), 0);
	ck_assert_ptr_null(other);
	ck_assert_msg(strstr(err.text, dir) != NULL, "%s", err.text);
}
END_TEST

int main(int argc, char **argv)
{
	TCase *tc = tcase_create("rocks");
	Suite *s = suite_create("kv");
	SRunner *sr = srunner_create(s);
	int failed;

	if (argc > 1)
		return child_main(argv[1]);
	tcase_add_checked_fixture(tc, set_up, tear_down);
	tcase_set_timeout(tc, 60);
	tcase_add_test(tc, what_is_committed_is_there_after_reopening);
	tcase_add_test(tc, a_batch_that_is_destroyed_leaves_nothing);
	tcase_add_test(tc, a_batch_that_is_none_fails_and_no_other);
	tcase_add_test(tc, deletes_and_ranges);
	tcase_add_test(tc, the_last_word_on_a_key_counts);
	tcase_add_test(tc, a_scan_sees_its_prefix_in_order);
	tcase_add_test(tc, a_value_that_is_too_long_is_cut);
	tcase_add_test(tc, commits_take_effect_in_the_order_of_the_calls);
	tcase_add_loop_test(tc, a_killed_process_has_committed_whole_batches, 0, 3);
	tcase_add_test(tc, looking_sees_everything_and_changes_nothing);
	tcase_add_test(tc, looking_makes_no_database);
	tcase_add_test(tc, a_commit_is_synced_before_it_is_done);
	tcase_add_test(tc, a_torn_batch_is_gone_altogether);
	tcase_add_test(tc, spoilt_data_is_never_returned);
	tcase_add_loop_test(tc, a_confirmed_batch_that_is_spoilt_is_not_cut_off, 0,
			    ARRAY_SIZE(confirmed_parts));
	tcase_add_loop_test(tc, a_batch_that_lacks_any_of_its_pages_is_gone_altogether, 0,
			    ARRAY_SIZE(torn_parts));
	tcase_add_test(tc, a_database_is_opened_once);
	tcase_add_test(tc, a_database_that_cannot_be_says_so);
	suite_add_tcase(s, tc);
	srunner_run_all(sr, CK_NORMAL);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed == 0 ? 0 : 1;
}
