/* Unit tests of engine/disk: files with direct I/O, and the fault layer over them. The reactor's
 * operations are wrapped (-Wl,--wrap), to count them and to cut them short. */
#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "engine/disk/disk.h"
#include "engine/disk/fault.h"
#include "engine/reactor/io.h"

#define DISK_SIZE   (4 * MIB)
#define DISK_BLOCKS (DISK_SIZE / BLOCK_SIZE)
#define PATIENCE_NS (60 * NS_PER_S)

static struct reactor *reactor;
static struct disk *disk;
static char dir[64], path[96];
static bool finished;

/* -- the wrapped operations ------------------------------------------------------------------- */

static uint32_t dsync_writes, plain_writes, syncs;
static uint32_t cut_to; /* bytes; 0: not at all */
static bool break_next; /* the next operation gets a bad descriptor */

/* The kernel refuses so many operations, with this, before it takes one. */
static struct {
	uint32_t left, refused;
	int32_t with;
	struct reactor_io *io;
	struct reactor_task task;
} refusal;

static void refuse(struct reactor_task *task)
{
	(void)task;
	refusal.io->done(refusal.io, refusal.with);
}

static bool is_refused(struct reactor *r, struct reactor_io *io)
{
	if (refusal.left == 0)
		return false;
	refusal.left--;
	refusal.refused++;
	refusal.io = io;
	refusal.task.run = refuse;
	reactor_defer(r, &refusal.task);
	return true;
}

/* In front of the C library's: so many times the disk is busy, as a block device is that another
 * process has open. */
static uint32_t busy_opens;

int open(const char *name, int flags, ...)
{
	mode_t mode = 0;
	va_list ap;

	if (busy_opens > 0 && strcmp(name, path) == 0) {
		busy_opens--;
		errno = EBUSY;
		return -1;
	}
	va_start(ap, flags);
	if ((flags & O_CREAT) != 0)
		mode = va_arg(ap, mode_t);
	va_end(ap);
	return (int)syscall(SYS_openat, AT_FDCWD, name, flags, mode);
}

static int seen_fd(int fd)
{
	bool broken = break_next;

	break_next = false;
	return broken ? -1 : fd;
}

static uint32_t cut(uint32_t size)
{
	return cut_to > 0 ? MIN(size, cut_to) : size;
}

static void count_write(int rw_flags)
{
	if ((rw_flags & RWF_DSYNC) != 0)
		dsync_writes++;
	else
		plain_writes++;
}

void __real_reactor_io_read(struct reactor *r, struct reactor_io *io, int fd, void *buf,
			    uint32_t size, uint64_t offset);
void __real_reactor_io_write(struct reactor *r, struct reactor_io *io, int fd, const void *buf,
			     uint32_t size, uint64_t offset, int rw_flags);
void __real_reactor_io_readv(struct reactor *r, struct reactor_io *io, int fd,
			     const struct iovec *iov, uint32_t iov_count, uint64_t offset);
void __real_reactor_io_writev(struct reactor *r, struct reactor_io *io, int fd,
			      const struct iovec *iov, uint32_t iov_count, uint64_t offset,
			      int rw_flags);
void __real_reactor_io_fdatasync(struct reactor *r, struct reactor_io *io, int fd);
void __wrap_reactor_io_read(struct reactor *r, struct reactor_io *io, int fd, void *buf,
			    uint32_t size, uint64_t offset);
void __wrap_reactor_io_write(struct reactor *r, struct reactor_io *io, int fd, const void *buf,
			     uint32_t size, uint64_t offset, int rw_flags);
void __wrap_reactor_io_readv(struct reactor *r, struct reactor_io *io, int fd,
			     const struct iovec *iov, uint32_t iov_count, uint64_t offset);
void __wrap_reactor_io_writev(struct reactor *r, struct reactor_io *io, int fd,
			      const struct iovec *iov, uint32_t iov_count, uint64_t offset,
			      int rw_flags);
void __wrap_reactor_io_fdatasync(struct reactor *r, struct reactor_io *io, int fd);

void __wrap_reactor_io_read(struct reactor *r, struct reactor_io *io, int fd, void *buf,
			    uint32_t size, uint64_t offset)
{
	if (is_refused(r, io))
		return;
	__real_reactor_io_read(r, io, seen_fd(fd), buf, cut(size), offset);
}

void __wrap_reactor_io_write(struct reactor *r, struct reactor_io *io, int fd, const void *buf,
			     uint32_t size, uint64_t offset, int rw_flags)
{
	count_write(rw_flags);
	if (is_refused(r, io))
		return;
	__real_reactor_io_write(r, io, seen_fd(fd), buf, cut(size), offset, rw_flags);
}

void __wrap_reactor_io_readv(struct reactor *r, struct reactor_io *io, int fd,
			     const struct iovec *iov, uint32_t iov_count, uint64_t offset)
{
	if (is_refused(r, io))
		return;
	if (cut_to > 0)
		__real_reactor_io_read(r, io, seen_fd(fd), iov[0].iov_base,
				       cut((uint32_t)iov[0].iov_len), offset);
	else
		__real_reactor_io_readv(r, io, seen_fd(fd), iov, iov_count, offset);
}

void __wrap_reactor_io_writev(struct reactor *r, struct reactor_io *io, int fd,
			      const struct iovec *iov, uint32_t iov_count, uint64_t offset,
			      int rw_flags)
{
	count_write(rw_flags);
	if (is_refused(r, io))
		return;
	/* Cut short in the second iovec: the continuation begins in the middle of one. */
	if (cut_to > 0)
		__real_reactor_io_writev(r, io, seen_fd(fd), iov, iov_count - 1, offset, rw_flags);
	else
		__real_reactor_io_writev(r, io, seen_fd(fd), iov, iov_count, offset, rw_flags);
}

void __wrap_reactor_io_fdatasync(struct reactor *r, struct reactor_io *io, int fd)
{
	syncs++;
	if (is_refused(r, io))
		return;
	__real_reactor_io_fdatasync(r, io, seen_fd(fd));
}

static void forget_counts(void)
{
	dsync_writes = plain_writes = syncs = 0;
}

/* -- fixtures and helpers ---------------------------------------------------------------------- */

static void set_up(void)
{
	struct reactor_config config = {.name = "test"};

	snprintf(dir, sizeof dir, "/tmp/pave-test-disk-XXXXXX");
	ck_assert_ptr_nonnull(mkdtemp(dir));
	snprintf(path, sizeof path, "%s/disk", dir);
	ck_assert_int_eq(reactor_create(&config, &reactor), 0);
}

static void set_up_disk(void)
{
	struct error err = {0};

	set_up();
	ck_assert_msg(disk_file_create(path, DISK_SIZE, &err) == 0, "%s", err.text);
	ck_assert_msg(disk_file_open(reactor, path, &disk, &err) == 0, "%s", err.text);
}

static void tear_down(void)
{
	disk_close(disk);
	reactor_destroy(reactor);
	unlink(path);
	rmdir(dir);
}

struct call {
	struct disk_op op;
	int status;
	uint32_t times;
};

static void call_done(struct disk_op *op, int status)
{
	struct call *c = container_of(op, struct call, op);

	c->status = status;
	c->times++;
	finished = true;
}

static void start(struct call *c, enum disk_op_kind kind, uint64_t block, void *buf,
		  uint32_t block_count, bool durable)
{
	*c = (struct call){
	    .op = {.kind = kind,
		   .durable = durable,
		   .offset = block * BLOCK_SIZE,
		   .size = block_count * (uint64_t)BLOCK_SIZE,
		   .iov = {{buf, block_count * (size_t)BLOCK_SIZE}},
		   .iov_count = 1,
		   .done = call_done},
	    .status = 1,
	};
	c->op.iovs = c->op.iov;
	disk_submit(disk, &c->op);
	ck_assert_uint_eq(c->times, 0); /* never inline */
}

static int finish(struct call *c)
{
	while (c->times == 0) {
		finished = false;
		reactor_refresh(reactor);
		ck_assert_int_eq(
		    reactor_run_until(reactor, &finished, reactor_now_ns(reactor) + PATIENCE_NS),
		    0);
	}
	ck_assert_uint_eq(c->times, 1);
	return c->status;
}

static int run(enum disk_op_kind kind, uint64_t block, void *buf, uint32_t block_count,
	       bool durable)
{
	struct call c;

	start(&c, kind, block, buf, block_count, durable);
	return finish(&c);
}

static uint64_t rng_state = 0x9e3779b97f4a7c15ull;

static uint64_t rng(void)
{
	rng_state ^= rng_state << 13;
	rng_state ^= rng_state >> 7;
	rng_state ^= rng_state << 17;
	return rng_state;
}

static void fill(void *buf, size_t size_bytes)
{
	uint64_t *words = buf;

	for (size_t i = 0; i < size_bytes / 8; i++)
		words[i] = rng();
}

/* -- creating and opening ---------------------------------------------------------------------- */

START_TEST(creating_allocates_all_of_it)
{
	struct error err = {0};
	struct stat st;

	ck_assert_int_eq(disk_file_create(path, DISK_SIZE, &err), 0);
	ck_assert_int_eq(stat(path, &st), 0);
	ck_assert_int_eq(st.st_size, DISK_SIZE);
	ck_assert_int_ge(st.st_blocks * 512, DISK_SIZE);
	ck_assert_int_eq(disk_file_create(path, DISK_SIZE, &err), -EEXIST);
	ck_assert_ptr_nonnull(strstr(err.text, path));
	ck_assert_int_eq(stat(path, &st), 0);
}
END_TEST

START_TEST(creating_what_cannot_be_leaves_nothing)
{
	struct error err = {0};
	struct statvfs fs;
	uint64_t free_bytes;

	ck_assert_int_eq(statvfs(dir, &fs), 0);
	free_bytes = ROUND_UP((uint64_t)fs.f_bfree * fs.f_frsize, BLOCK_SIZE);
	ck_assert_int_eq(disk_file_create(path, free_bytes + 1024 * GIB, &err), -ENOSPC);
	ck_assert_ptr_nonnull(strstr(err.text, path));
	ck_assert_int_eq(access(path, F_OK), -1);
	ck_assert_int_eq(disk_file_create(path, BLOCK_SIZE + 512, &err), -EINVAL);
	ck_assert_int_eq(disk_file_create(path, 0, &err), -EINVAL);
	ck_assert_int_eq(access(path, F_OK), -1);
	ck_assert_int_eq(disk_file_create("/nowhere/at/all", DISK_SIZE, &err), -ENOENT);
}
END_TEST

static void check_refused(const char *p, int code)
{
	struct error err = {0};

	ck_assert_int_eq(disk_file_open(reactor, p, &disk, &err), code);
	ck_assert_ptr_null(disk);
	ck_assert_int_eq(err.code, code);
	ck_assert_msg(strstr(err.text, p) != NULL, "%s", err.text);
}

START_TEST(opening_names_what_is_wrong)
{
	struct error err = {0};

	check_refused(path, -ENOENT);
	check_refused(dir, -EINVAL);
	check_refused("/dev/zero", -EINVAL);
	ck_assert_int_eq(disk_file_create(path, DISK_SIZE, &err), 0);
	ck_assert_int_eq(truncate(path, DISK_SIZE - 512), 0);
	check_refused(path, -EINVAL);
	ck_assert_int_eq(truncate(path, 0), 0);
	check_refused(path, -EINVAL);
}
END_TEST

START_TEST(a_disk_is_opened_once)
{
	struct disk *second = NULL;
	struct error err = {0};

	ck_assert_int_eq(disk_file_open(reactor, path, &second, &err), -E_IN_USE);
	ck_assert_ptr_null(second);
	ck_assert_ptr_nonnull(strstr(err.text, path));
	disk_close(disk);
	ck_assert_int_eq(disk_file_open(reactor, path, &disk, &err), 0);
	ck_assert_uint_eq(disk->size_bytes, DISK_SIZE);
	ck_assert(disk->needs_priming);
	ck_assert_str_eq(disk->name, path);
}
END_TEST

/* Whoever was killed may have it for a moment yet. */
START_TEST(a_block_device_that_is_busy_is_waited_for)
{
	struct error err = {0};

	disk_close(disk);
	disk = NULL;
	busy_opens = 3;
	ck_assert_msg(disk_file_open(reactor, path, &disk, &err) == 0, "%s", err.text);
	ck_assert_uint_eq(busy_opens, 0);
	disk_close(disk);
	disk = NULL;
	busy_opens = UINT32_MAX;
	ck_assert_int_eq(disk_file_open(reactor, path, &disk, &err), -E_IN_USE);
	ck_assert_ptr_nonnull(strstr(err.text, path));
	ck_assert_uint_lt(busy_opens, UINT32_MAX - 3);
	busy_opens = 0;
}
END_TEST

/* The other process of the next test, with none of Check's assertions: it holds the disk, always
 * with writes in flight, and says so. */
static void child_again(struct disk_op *op, int status)
{
	if (status != 0 || write(STDOUT_FILENO, "r", 1) < 0)
		_exit(1);
	disk_submit(disk, op);
}

static int child_main(const char *held_path)
{
	struct reactor_config config = {.name = "child"};
	struct disk_op ops[8];
	char *buf;

	if (reactor_create(&config, &reactor) != 0 ||
	    disk_file_open(reactor, held_path, &disk, NULL) != 0)
		return 1;
	buf = reactor_memory(reactor, MIB);
	for (uint32_t i = 0; i < ARRAY_SIZE(ops); i++) {
		ops[i] = (struct disk_op){.kind = DISK_WRITE,
					  .durable = true,
					  .size = MIB,
					  .iov = {{buf, MIB}},
					  .iovs = ops[i].iov,
					  .iov_count = 1,
					  .done = child_again};
		disk_submit(disk, &ops[i]);
	}
	return reactor_run(reactor);
}

START_TEST(a_killed_process_lets_go)
{
	struct error err = {0};
	int fds[2];
	char ready;
	pid_t child;

	ck_assert_int_eq(pipe2(fds, O_CLOEXEC), 0);
	ck_assert_int_eq(disk_file_create(path, DISK_SIZE, &err), 0);
	child = fork();
	if (child == 0) { /* this process has threads: only a new image may start others */
		dup2(fds[1], STDOUT_FILENO);
		execl("/proc/self/exe", "test_disk", path, NULL);
		_exit(1);
	}
	close(fds[1]);
	ck_assert_int_eq(read(fds[0], &ready, 1), 1);
	kill(child, SIGKILL);
	ck_assert_msg(disk_file_open(reactor, path, &disk, &err) == 0, "%s", err.text);
	ck_assert_int_eq(waitpid(child, NULL, 0), child);
	close(fds[0]);
}
END_TEST

/* -- reading and writing ----------------------------------------------------------------------- */

START_TEST(what_is_written_is_read_back)
{
	char *a = reactor_memory(reactor, 64 * KIB), *b = reactor_memory(reactor, 64 * KIB);
	char *plain = aligned_alloc(BLOCK_SIZE, 64 * KIB);
	struct error err = {0};

	fill(a, 64 * KIB);
	ck_assert_int_eq(run(DISK_WRITE, 3, a, 16, false), 0);
	ck_assert_int_eq(run(DISK_WRITE, DISK_BLOCKS - 1, a, 1, true), 0);
	ck_assert_int_eq(run(DISK_READ, 3, b, 16, false), 0);
	ck_assert_mem_eq(a, b, 64 * KIB);
	ck_assert_int_eq(run(DISK_READ, 3, plain, 16, false), 0);
	ck_assert_mem_eq(a, plain, 64 * KIB);
	fill(plain, 64 * KIB);
	ck_assert_int_eq(run(DISK_WRITE, 40, plain, 16, true), 0);
	disk_close(disk);
	ck_assert_int_eq(disk_file_open(reactor, path, &disk, &err), 0);
	ck_assert_int_eq(run(DISK_READ, 40, b, 16, false), 0);
	ck_assert_mem_eq(plain, b, 64 * KIB);
	ck_assert_int_eq(run(DISK_READ, DISK_BLOCKS - 1, b, 1, false), 0);
	ck_assert_mem_eq(a, b, BLOCK_SIZE);
	free(plain);
}
END_TEST

static void start_vectored(struct call *c, enum disk_op_kind kind, struct iovec *iovs,
			   uint32_t iov_count)
{
	*c = (struct call){.op = {.kind = kind,
				  .offset = 7 * BLOCK_SIZE,
				  .iovs = iovs,
				  .iov_count = iov_count,
				  .done = call_done}};
	for (uint32_t i = 0; i < iov_count; i++)
		c->op.size += iovs[i].iov_len;
	disk_submit(disk, &c->op);
}

static void check_vectored(void)
{
	char *a = reactor_memory(reactor, 64 * KIB), *b = reactor_memory(reactor, 64 * KIB);
	struct iovec out[3] = {{a + 16 * KIB, 8 * KIB}, {a, 16 * KIB}, {a + 24 * KIB, 40 * KIB}};
	struct iovec in[2] = {{b, 12 * KIB}, {b + 12 * KIB, 52 * KIB}}, before[3];
	struct call c;

	memcpy(before, out, sizeof out);
	fill(a, 64 * KIB);
	start_vectored(&c, DISK_WRITE, out, 3);
	ck_assert_int_eq(finish(&c), 0);
	ck_assert_mem_eq(before, out, sizeof out);
	start_vectored(&c, DISK_READ, in, 2);
	ck_assert_int_eq(finish(&c), 0);
	ck_assert_mem_eq(b, a + 16 * KIB, 8 * KIB);
	ck_assert_mem_eq(b + 8 * KIB, a, 16 * KIB);
	ck_assert_mem_eq(b + 24 * KIB, a + 24 * KIB, 40 * KIB);
}

START_TEST(vectors_are_gathered_and_scattered)
{
	check_vectored();
}
END_TEST

START_TEST(short_transfers_are_continued)
{
	char *a = reactor_memory(reactor, 64 * KIB), *b = reactor_memory(reactor, 64 * KIB);

	cut_to = 12 * KIB;
	check_vectored();
	fill(a, 64 * KIB);
	forget_counts();
	ck_assert_int_eq(run(DISK_WRITE, 0, a, 16, false), 0);
	ck_assert_uint_eq(plain_writes, 6);
	ck_assert_int_eq(run(DISK_READ, 0, b, 16, false), 0);
	ck_assert_mem_eq(a, b, 64 * KIB);
	/* The rest of a durable write is as durable as its beginning. */
	ck_assert_int_eq(run(DISK_FLUSH, 0, NULL, 0, false), 0);
	forget_counts();
	ck_assert_int_eq(run(DISK_WRITE, 0, a, 16, true), 0);
	ck_assert_uint_eq(dsync_writes, 6);
	ck_assert_uint_eq(plain_writes + syncs, 0);
}
END_TEST

START_TEST(a_file_that_was_cut_is_an_error)
{
	char *a = reactor_memory(reactor, 64 * KIB);

	ck_assert_int_eq(truncate(path, DISK_SIZE / 2), 0);
	ck_assert_int_eq(run(DISK_READ, DISK_BLOCKS - 1, a, 1, false), -EIO);
	ck_assert_int_eq(run(DISK_READ, 0, a, 1, false), 0);
}
END_TEST

START_TEST(many_operations_at_once_agree_with_a_model)
{
	enum { DEPTH = 48, ROUNDS = 40 };
	static struct call calls[DEPTH];
	char *model = calloc(1, DISK_SIZE), *buf = reactor_memory(reactor, DEPTH * 16 * KIB);

	memset(buf, 0, DEPTH * 16 * KIB);
	for (uint64_t b = 0; b < DISK_BLOCKS; b += 4)
		ck_assert_int_eq(run(DISK_WRITE, b, buf, 4, false), 0);
	for (uint32_t round = 0; round < ROUNDS; round++) {
		for (uint32_t i = 0; i < DEPTH; i++) { /* each in its own stripe of the disk */
			uint64_t stripe = DISK_BLOCKS / DEPTH;
			uint64_t at = i * stripe + rng() % (stripe - 4);
			char *mine = buf + i * 16 * KIB;

			if (rng() % 2 == 0) {
				fill(mine, 16 * KIB);
				memcpy(model + at * BLOCK_SIZE, mine, 16 * KIB);
				start(&calls[i], DISK_WRITE, at, mine, 4, rng() % 2 == 0);
			} else {
				start(&calls[i], DISK_READ, at, mine, 4, false);
			}
		}
		for (uint32_t i = 0; i < DEPTH; i++) {
			ck_assert_int_eq(finish(&calls[i]), 0);
			ck_assert_mem_eq(buf + i * 16 * KIB, model + calls[i].op.offset, 16 * KIB);
		}
	}
	for (uint64_t b = 0; b < DISK_BLOCKS; b += 4) {
		ck_assert_int_eq(run(DISK_READ, b, buf, 4, false), 0);
		ck_assert_mem_eq(buf, model + b * BLOCK_SIZE, 16 * KIB);
	}
	free(model);
}
END_TEST

/* -- durability -------------------------------------------------------------------------------- */

START_TEST(durable_covers_what_came_before)
{
	char *a = reactor_memory(reactor, 64 * KIB);

	/* What a process before us left in the device's cache is nobody's: the first one syncs. */
	ck_assert_int_eq(run(DISK_WRITE, 0, a, 1, true), 0);
	ck_assert_uint_eq(plain_writes, 1);
	ck_assert_uint_eq(syncs, 1);
	forget_counts();
	ck_assert_int_eq(run(DISK_WRITE, 1, a, 1, true), 0);
	ck_assert_uint_eq(dsync_writes, 1);
	ck_assert_uint_eq(plain_writes + syncs, 0);
	ck_assert_int_eq(run(DISK_FLUSH, 0, NULL, 0, false), 0); /* nothing to flush */
	ck_assert_uint_eq(syncs, 0);
	/* FUA would leave the plain one in the cache. */
	forget_counts();
	ck_assert_int_eq(run(DISK_WRITE, 2, a, 1, false), 0);
	ck_assert_int_eq(run(DISK_WRITE, 3, a, 1, true), 0);
	ck_assert_uint_eq(plain_writes, 2);
	ck_assert_uint_eq(syncs, 1);
	ck_assert_uint_eq(dsync_writes, 0);
	forget_counts();
	ck_assert_int_eq(run(DISK_WRITE, 2, a, 1, false), 0);
	ck_assert_int_eq(run(DISK_FLUSH, 0, NULL, 0, false), 0);
	ck_assert_int_eq(run(DISK_WRITE, 3, a, 1, true), 0);
	ck_assert_uint_eq(syncs, 1);
	ck_assert_uint_eq(dsync_writes, 1);
}
END_TEST

START_TEST(a_flush_covers_only_what_had_completed)
{
	char *a = reactor_memory(reactor, 64 * KIB);
	struct call flush, write;

	ck_assert_int_eq(run(DISK_WRITE, 0, a, 1, false), 0);
	start(&flush, DISK_FLUSH, 0, NULL, 0, false);
	start(&write, DISK_WRITE, 1, a, 1, false); /* completes while or after the flush runs */
	ck_assert_int_eq(finish(&flush), 0);
	ck_assert_int_eq(finish(&write), 0);
	forget_counts();
	ck_assert_int_eq(run(DISK_FLUSH, 0, NULL, 0, false), 0);
	ck_assert_uint_eq(syncs, 1);
}
END_TEST

static void refuse_next(uint32_t count, int with)
{
	refusal.left = count;
	refusal.refused = 0;
	refusal.with = with;
}

/* No memory for it, say: that passes, and a device that has failed is failed for good. */
START_TEST(what_is_refused_for_the_moment_is_asked_again)
{
	static const int reasons[] = {-ENOMEM, -EAGAIN, -EINTR};
	_Alignas(BLOCK_SIZE) static char out[2 * BLOCK_SIZE], in[2 * BLOCK_SIZE];

	for (size_t i = 0; i < ARRAY_SIZE(reasons); i++) {
		fill(out, sizeof out);
		memset(in, 0, sizeof in);
		refuse_next(5, reasons[i]);
		ck_assert_int_eq(run(DISK_WRITE, 8, out, 2, i % 2 == 0), 0);
		ck_assert_uint_eq(refusal.refused, 5);
		refuse_next(5, reasons[i]);
		ck_assert_int_eq(run(DISK_READ, 8, in, 2, false), 0);
		ck_assert_uint_eq(refusal.refused, 5);
		ck_assert_mem_eq(in, out, sizeof in);
	}
}
END_TEST

START_TEST(what_is_refused_for_good_has_failed)
{
	_Alignas(BLOCK_SIZE) static char block[BLOCK_SIZE];

	refuse_next(UINT32_MAX, -ENOMEM);
	ck_assert_int_eq(run(DISK_WRITE, 0, block, 1, false), -EIO);
	refuse_next(0, 0);
	ck_assert_int_eq(run(DISK_WRITE, 0, block, 1, false), 0);
}
END_TEST

/* The kernel tells once of what it could not write: the second answer would be a good one. */
START_TEST(a_flush_that_got_no_memory_has_failed)
{
	_Alignas(BLOCK_SIZE) static char block[BLOCK_SIZE];

	ck_assert_int_eq(run(DISK_WRITE, 0, block, 1, false), 0);
	refuse_next(1, -ENOMEM);
	ck_assert_int_eq(run(DISK_FLUSH, 0, NULL, 0, false), -EIO);
	ck_assert_int_eq(run(DISK_FLUSH, 0, NULL, 0, false), 0);
}
END_TEST

START_TEST(a_failed_flush_covers_nothing)
{
	char *a = reactor_memory(reactor, 64 * KIB);

	ck_assert_int_eq(run(DISK_WRITE, 0, a, 1, false), 0);
	break_next = true;
	ck_assert_int_eq(run(DISK_FLUSH, 0, NULL, 0, false), -EIO);
	forget_counts();
	ck_assert_int_eq(run(DISK_WRITE, 0, a, 1, true), 0);
	ck_assert_uint_eq(syncs, 1);
	break_next = true;
	ck_assert_int_eq(run(DISK_WRITE, 0, a, 1, true), -EIO);
	break_next = true;
	ck_assert_int_eq(run(DISK_READ, 0, a, 1, true), -EIO);
}
END_TEST

START_TEST(discarded_space_is_given_back)
{
	char *a = reactor_memory(reactor, MIB);
	struct stat before, after;

	fill(a, MIB);
	for (uint64_t b = 0; b < DISK_BLOCKS; b += 256)
		ck_assert_int_eq(run(DISK_WRITE, b, a, 256, false), 0);
	ck_assert_int_eq(stat(path, &before), 0);
	ck_assert_int_eq(run(DISK_DISCARD, 256, NULL, 512, false), 0);
	ck_assert_int_eq(stat(path, &after), 0);
	ck_assert_int_eq(after.st_size, DISK_SIZE);
	ck_assert_int_le(after.st_blocks * 512, before.st_blocks * 512 - (int64_t)(2 * MIB));
	ck_assert_int_eq(run(DISK_READ, 300, a, 1, false), 0);
	ck_assert_int_eq(run(DISK_WRITE, 300, a, 1, true), 0);
}
END_TEST

START_TEST(mistakes_of_the_caller_are_caught)
{
	char *a = reactor_memory(reactor, 64 * KIB);
	struct call c;

	/* tear_down is not reached. */
	unlink(path);
	rmdir(dir);
	switch (_i) {
	case 0:
		start(&c, DISK_READ, DISK_BLOCKS, a, 1, false);
		break;
	case 1:
		start(&c, DISK_READ, 0, a + 512, 1, false);
		break;
	case 2:
		start(&c, DISK_READ, 0, a, 0, false);
		break;
	case 3:
		start(&c, DISK_DISCARD, UINT64_MAX / BLOCK_SIZE, a, 2, false);
		break;
	default:
		break;
	}
}
END_TEST

/* -- the fault layer -----------------------------------------------------------------------------
 */

static struct disk_fault_plan plan;
static char *data, *back;

static void set_up_fault(void)
{
	struct disk *inner;

	set_up_disk();
	inner = disk;
	ck_assert_int_eq(disk_fault_open(inner, &plan, &disk), 0);
	ck_assert_uint_eq(disk->size_bytes, DISK_SIZE);
	data = reactor_memory(reactor, 64 * KIB);
	back = reactor_memory(reactor, 64 * KIB);
	fill(data, 64 * KIB);
	for (uint64_t b = 0; b < 64; b += 16)
		ck_assert_int_eq(run(DISK_WRITE, b, data, 16, true), 0);
	fill(data, 64 * KIB);
	memset(plan.submitted, 0, sizeof plan.submitted);
	forget_counts();
}

static void plan_one(struct disk_fault fault)
{
	plan.faults[0] = fault;
	plan.count = 1;
}

START_TEST(a_fault_strikes_the_operation_that_it_names)
{
	plan_one((struct disk_fault){.kind = DISK_FAULT_ERROR,
				     .on_kinds = DISK_FAULT_ON(DISK_WRITE),
				     .skip = 2,
				     .times = 2,
				     .status = -ENOSPC});
	for (uint32_t i = 0; i < 6; i++) {
		ck_assert_int_eq(run(DISK_WRITE, i, data, 1, false), i / 2 == 1 ? -ENOSPC : 0);
		ck_assert_int_eq(run(DISK_READ, i, back, 1, false), 0);
		ck_assert_int_eq(memcmp(data, back, BLOCK_SIZE) == 0, i / 2 != 1);
	}
	ck_assert_uint_eq(plan.faults[0].hits, 2);
	ck_assert_uint_eq(plan.submitted[DISK_WRITE], 6);
	ck_assert_uint_eq(plan.submitted[DISK_READ], 6);
	ck_assert_uint_eq(plain_writes, 4);
}
END_TEST

START_TEST(a_fault_strikes_where_it_says)
{
	plan_one((struct disk_fault){.kind = DISK_FAULT_ERROR,
				     .on_kinds = DISK_FAULT_ON_ALL,
				     .from = 4 * BLOCK_SIZE,
				     .to = 5 * BLOCK_SIZE,
				     .times = DISK_FAULT_FOREVER,
				     .status = -EIO});
	ck_assert_int_eq(run(DISK_READ, 0, back, 4, false), 0);
	ck_assert_int_eq(run(DISK_READ, 0, back, 5, false), -EIO);
	ck_assert_int_eq(run(DISK_WRITE, 4, data, 1, false), -EIO);
	ck_assert_int_eq(run(DISK_READ, 5, back, 1, false), 0);
	ck_assert_int_eq(run(DISK_FLUSH, 0, NULL, 0, false), 0);
	ck_assert_int_eq(run(DISK_DISCARD, 3, NULL, 4, false), -EIO);
	plan.count = 0;
	ck_assert_int_eq(run(DISK_READ, 0, back, 5, false), 0);
}
END_TEST

START_TEST(dropped_and_misdirected_writes_succeed)
{
	plan.faults[0] = (struct disk_fault){
	    .kind = DISK_FAULT_DROP, .on_kinds = DISK_FAULT_ON(DISK_WRITE), .times = 1};
	plan.faults[1] = (struct disk_fault){.kind = DISK_FAULT_MISDIRECT,
					     .on_kinds = DISK_FAULT_ON(DISK_WRITE),
					     .skip = 1,
					     .times = 1,
					     .elsewhere = 20 * BLOCK_SIZE};
	plan.count = 2;
	ck_assert_int_eq(run(DISK_WRITE, 0, data, 1, true), 0);
	ck_assert_int_eq(run(DISK_READ, 0, back, 1, false), 0);
	ck_assert_mem_ne(data, back, BLOCK_SIZE);
	ck_assert_int_eq(run(DISK_WRITE, 0, data, 1, true), 0);
	ck_assert_int_eq(run(DISK_READ, 0, back, 1, false), 0);
	ck_assert_mem_ne(data, back, BLOCK_SIZE);
	ck_assert_int_eq(run(DISK_READ, 20, back, 1, false), 0);
	ck_assert_mem_eq(data, back, BLOCK_SIZE);
	ck_assert_int_eq(run(DISK_WRITE, 0, data, 1, true), 0);
	ck_assert_int_eq(run(DISK_READ, 0, back, 1, false), 0);
	ck_assert_mem_eq(data, back, BLOCK_SIZE);
}
END_TEST

START_TEST(a_read_has_one_bit_flipped)
{
	struct iovec in[2] = {{back, 4 * KIB}, {back + 8 * KIB, 8 * KIB}};
	struct call c;

	ck_assert_int_eq(run(DISK_WRITE, 7, data, 3, false), 0);
	plan_one((struct disk_fault){.kind = DISK_FAULT_FLIP,
				     .on_kinds = DISK_FAULT_ON(DISK_READ),
				     .times = 1,
				     .bit = 8 * 5000 + 3});
	start_vectored(&c, DISK_READ, in, 2);
	ck_assert_int_eq(finish(&c), 0);
	ck_assert_mem_eq(back, data, 4 * KIB);
	/* Byte 5000 of the read is in its second iovec. */
	ck_assert_uint_eq((uint8_t)back[8 * KIB + 904] ^ (uint8_t)data[5000], 8);
	back[8 * KIB + 904] = data[5000];
	ck_assert_mem_eq(back + 8 * KIB, data + 4 * KIB, 8 * KIB);
	start_vectored(&c, DISK_READ, in, 2);
	ck_assert_int_eq(finish(&c), 0);
	ck_assert_mem_eq(back + 8 * KIB, data + 4 * KIB, 8 * KIB);
}
END_TEST

START_TEST(a_write_leaves_one_bit_flipped)
{
	char *before = malloc(12 * KIB);

	memcpy(before, data, 12 * KIB);
	plan_one((struct disk_fault){.kind = DISK_FAULT_FLIP,
				     .on_kinds = DISK_FAULT_ON(DISK_WRITE),
				     .times = 2,
				     .every = 2,
				     .bit = 8 * 5000 + 3});
	for (uint32_t i = 0; i < 5; i++) {
		ck_assert_int_eq(run(DISK_WRITE, 7, data, 3, true), 0);
		ck_assert_mem_eq(before, data, 12 * KIB); /* the caller's is as it was */
		ck_assert_int_eq(run(DISK_READ, 7, back, 3, false), 0);
		if (i == 1 || i == 3) {
			ck_assert_uint_eq((uint8_t)back[5000] ^ (uint8_t)data[5000], 8);
			back[5000] = data[5000];
		}
		ck_assert_mem_eq(data, back, 12 * KIB);
	}
	ck_assert_uint_eq(plan.faults[0].hits, 2);
	free(before);
}
END_TEST

START_TEST(a_short_operation_does_half_and_fails)
{
	struct iovec in[2] = {{data, 4 * KIB}, {data + 8 * KIB, 8 * KIB}};
	struct call c;

	plan_one((struct disk_fault){
	    .kind = DISK_FAULT_SHORT, .on_kinds = DISK_FAULT_ON_ALL, .times = 3, .status = -EIO});
	ck_assert_int_eq(run(DISK_READ, 0, back, 4, false), -EIO);
	ck_assert_int_eq(run(DISK_WRITE, 0, data, 1, false), -EIO); /* half of one is none */
	c = (struct call){0};
	start_vectored(&c, DISK_WRITE, in, 2); /* three blocks at 7 */
	ck_assert_int_eq(finish(&c), -EIO);
	ck_assert_int_eq(run(DISK_READ, 0, back, 1, false), 0);
	ck_assert_mem_ne(back, data, BLOCK_SIZE);
	ck_assert_int_eq(run(DISK_READ, 7, back, 3, false), 0);
	ck_assert_mem_eq(back, data, BLOCK_SIZE);
	ck_assert_mem_ne(back + BLOCK_SIZE, data + 2 * BLOCK_SIZE, BLOCK_SIZE);
}
END_TEST

START_TEST(flushes_lie)
{
	plan.faults[0] = (struct disk_fault){.kind = DISK_FAULT_LIE,
					     .on_kinds = DISK_FAULT_ON(DISK_WRITE),
					     .times = DISK_FAULT_FOREVER};
	plan.faults[1] = (struct disk_fault){.kind = DISK_FAULT_DROP,
					     .on_kinds = DISK_FAULT_ON(DISK_FLUSH),
					     .times = DISK_FAULT_FOREVER};
	plan.count = 2;
	ck_assert_int_eq(run(DISK_WRITE, 0, data, 1, true), 0);
	ck_assert_int_eq(run(DISK_FLUSH, 0, NULL, 0, false), 0);
	ck_assert_uint_eq(plain_writes, 1);
	ck_assert_uint_eq(dsync_writes + syncs, 0);
	ck_assert_int_eq(run(DISK_READ, 0, back, 1, false), 0);
	ck_assert_mem_eq(data, back, BLOCK_SIZE);
}
END_TEST

START_TEST(a_delayed_operation_is_late_and_others_are_not)
{
	struct call slow, fast;
	uint64_t begin_ns;

	plan_one((struct disk_fault){.kind = DISK_FAULT_DELAY,
				     .on_kinds = DISK_FAULT_ON(DISK_WRITE),
				     .times = 1,
				     .delay_ns = 20 * NS_PER_MS});
	reactor_refresh(reactor);
	begin_ns = reactor_now_ns(reactor);
	start(&slow, DISK_WRITE, 0, data, 1, false);
	start(&fast, DISK_WRITE, 1, data, 1, false);
	ck_assert_int_eq(finish(&fast), 0);
	ck_assert_uint_eq(slow.times, 0);
	ck_assert_int_eq(finish(&slow), 0);
	ck_assert_uint_ge(reactor_now_ns(reactor), begin_ns + 20 * NS_PER_MS);
	ck_assert_int_eq(run(DISK_READ, 0, back, 1, false), 0);
	ck_assert_mem_eq(data, back, BLOCK_SIZE);
}
END_TEST

static void add_all(TCase *bare, TCase *tc, TCase *fault)
{
	tcase_add_test(fault, a_fault_strikes_the_operation_that_it_names);
	tcase_add_test(fault, a_fault_strikes_where_it_says);
	tcase_add_test(fault, dropped_and_misdirected_writes_succeed);
	tcase_add_test(fault, a_read_has_one_bit_flipped);
	tcase_add_test(fault, a_write_leaves_one_bit_flipped);
	tcase_add_test(fault, a_short_operation_does_half_and_fails);
	tcase_add_test(fault, flushes_lie);
	tcase_add_test(fault, a_delayed_operation_is_late_and_others_are_not);
	tcase_add_test(bare, creating_allocates_all_of_it);
	tcase_add_test(bare, creating_what_cannot_be_leaves_nothing);
	tcase_add_test(bare, opening_names_what_is_wrong);
	tcase_add_test(bare, a_killed_process_lets_go);
	tcase_add_test(tc, a_disk_is_opened_once);
	tcase_add_test(tc, a_block_device_that_is_busy_is_waited_for);
	tcase_add_test(tc, what_is_written_is_read_back);
	tcase_add_test(tc, vectors_are_gathered_and_scattered);
	tcase_add_test(tc, short_transfers_are_continued);
	tcase_add_test(tc, a_file_that_was_cut_is_an_error);
	tcase_add_test(tc, many_operations_at_once_agree_with_a_model);
	tcase_add_test(tc, durable_covers_what_came_before);
	tcase_add_test(tc, a_flush_covers_only_what_had_completed);
	tcase_add_test(tc, a_failed_flush_covers_nothing);
	tcase_add_test(tc, what_is_refused_for_the_moment_is_asked_again);
	tcase_add_test(tc, what_is_refused_for_good_has_failed);
	tcase_add_test(tc, a_flush_that_got_no_memory_has_failed);
	tcase_add_test(tc, discarded_space_is_given_back);
	tcase_add_loop_test_raise_signal(tc, mistakes_of_the_caller_are_caught, SIGABRT, 0, 4);
}

int main(int argc, char **argv)
{
	TCase *bare = tcase_create("opening"), *tc = tcase_create("disk");
	TCase *fault = tcase_create("fault");
	Suite *s = suite_create("disk");
	SRunner *sr = srunner_create(s);
	int failed;

	if (argc > 1)
		return child_main(argv[1]);
	tcase_add_checked_fixture(bare, set_up, tear_down);
	tcase_add_checked_fixture(tc, set_up_disk, tear_down);
	tcase_add_checked_fixture(fault, set_up_fault, tear_down);
	tcase_set_timeout(fault, 60);
	tcase_set_timeout(bare, 60);
	tcase_set_timeout(tc, 60);
	add_all(bare, tc, fault);
	suite_add_tcase(s, bare);
	suite_add_tcase(s, tc);
	suite_add_tcase(s, fault);
	srunner_run_all(sr, CK_NORMAL);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed == 0 ? 0 : 1;
}
