/* disk: a regular file or a block device, with O_DIRECT on the reactor's ring. See disk.h.
 *
 * INVARIANTS
 *  1. Durable means what disk.h says, the earlier writes included. A write with RWF_DSYNC may reach
 *     the medium by FUA, which says nothing of other writes in the device's cache. So we count the
 *     plain writes that completed and those that a flush has covered: while there are others, a
 *     durable write is a plain write and then a flush.
 *  2. On a regular file even a device without a volatile cache needs the sync: that a block is
 *     written at all may still be only in the file system's memory. Where blocks were written
 *     before, the kernel makes this one FUA write, or a plain one.
 *  3. An operation is whole or failed: what the kernel did in part is continued, one iovec at a
 *     time, so that the caller's iovecs are never changed.
 *
 * Steps of an operation, each awaiting one completion:
 *
 *   read             TRANSFER -> done
 *   write            TRANSFER -> done
 *   durable write    TRANSFER (dsync) -> done,  or  TRANSFER -> SYNC -> done  (invariant 1)
 *   flush            SYNC -> done,  or  NOTHING -> done  where all is stable already
 *   discard          DISCARD -> done
 *
 * Failure modes: the kernel's errors become -ENOSPC, -ENODEV or -EIO; what was lost in that is
 * logged, at most once a second. A flush that fails covers nothing: the next one has to do it all.
 * What the kernel refuses for want of memory or room is asked again: a store writes no more after
 * one write that has failed, and that is no fault of the device. */
#include "engine/disk/disk.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/sysmacros.h>
#include <time.h>
#include <unistd.h>

#include "engine/base/assert.h"
#include "engine/base/log.h"
#include "engine/base/text.h"
#include "engine/reactor/io.h"

/* <linux/fs.h> has a BLOCK_SIZE of its own. */
#pragma push_macro("BLOCK_SIZE")
#undef BLOCK_SIZE
#include <linux/fs.h>
#pragma pop_macro("BLOCK_SIZE")

/* An interrupted or refused try is repeated so often before it counts as an error; a refused one
 * after a millisecond, and then twice as many each time until it is the most: three seconds in all.
 */
#define FILE_TRIES_MAX	   32u
#define FILE_PAUSE_MAX_MS  128u
#define FILE_LOCK_RETRY_MS 20u

enum file_step { STEP_NOTHING, STEP_TRANSFER, STEP_SYNC, STEP_DISCARD };

struct file_disk {
	struct disk head;
	int fd;
	bool is_block;
	bool needs_sync; /* a completed plain write may be lost with the power */
	bool cannot_discard;
	uint64_t plain_count;	/* plain writes completed; begins at 1 for those before the start */
	uint64_t covered_count; /* of those, how many a completed flush has covered */
	uint64_t in_flight;
	uint64_t last_log_ns;
};

/* What an operation in flight needs, in op->impl. */
struct file_op {
	union {
		struct reactor_io io;
		struct reactor_task task;
		struct reactor_work work;
		struct reactor_timer timer; /* between two tries */
	};
	struct file_disk *file;
	uint64_t done_bytes;
	uint64_t covers; /* STEP_SYNC: the plain_count that it will cover */
	int status;	 /* STEP_DISCARD by a worker: its result */
	uint16_t tries;
	uint8_t step;
	bool dsync;
};
_Static_assert(sizeof(struct file_op) <= sizeof(((struct disk_op *)0)->impl), "impl is too small");

static struct file_op *file_op_of(struct disk_op *op)
{
	return (struct file_op *)(void *)op->impl;
}

static struct disk_op *op_of(struct file_op *f)
{
	return container_of(f, struct disk_op, impl);
}

static struct file_disk *file_of(struct disk *disk)
{
	return container_of(disk, struct file_disk, head);
}

static void finish(struct file_op *f, int status)
{
	struct disk_op *op = op_of(f);

	INVARIANT(f->file->in_flight > 0);
	f->file->in_flight--;
	if (status == 0 && op->kind == DISK_WRITE && !op->durable)
		f->file->plain_count++;
	op->done(op, status);
}

static void fail(struct file_op *f, int error)
{
	static const char *const kinds[] = {"read", "write", "flush", "discard"};
	struct file_disk *file = f->file;
	struct disk_op *op = op_of(f);
	uint64_t now_ns = reactor_now_ns(file->head.reactor);

	if (file->last_log_ns == 0 || now_ns - file->last_log_ns >= NS_PER_S) {
		file->last_log_ns = now_ns;
		log_error("disk", "%s: %s of %llu bytes at %llu: %s", file->head.name,
			  kinds[op->kind], (unsigned long long)op->size,
			  (unsigned long long)op->offset, err_text(error));
	}
	switch (error) {
	case -ENOSPC:
	case -EDQUOT:
		error = -ENOSPC;
		break;
	case -ENODEV:
	case -ENXIO:
		error = -ENODEV;
		break;
	default:
		error = -EIO;
	}
	finish(f, error);
}

/* -- steps ----------------------------------------------------------------------------------- */

static void io_done(struct reactor_io *io, int32_t result);

/* Starts what is left of the transfer. */
static void transfer(struct file_op *f)
{
	struct file_disk *file = f->file;
	struct reactor *r = file->head.reactor;
	struct disk_op *op = op_of(f);
	uint64_t offset = op->offset + f->done_bytes;
	int flags = f->dsync ? RWF_DSYNC : 0;
	struct iovec *iov = op->iovs;
	size_t skip = f->done_bytes;
	uint32_t size;
	char *buf;

	f->step = STEP_TRANSFER;
	f->io.done = io_done;
	if (f->done_bytes == 0 && op->iov_count > 1) {
		if (op->kind == DISK_READ)
			reactor_io_readv(r, &f->io, file->fd, iov, op->iov_count, offset);
		else
			reactor_io_writev(r, &f->io, file->fd, iov, op->iov_count, offset, flags);
		return;
	}
	while (skip >= iov->iov_len)
		skip -= (iov++)->iov_len;
	buf = (char *)iov->iov_base + skip;
	size = (uint32_t)(iov->iov_len - skip);
	if (op->kind == DISK_READ)
		reactor_io_read(r, &f->io, file->fd, buf, size, offset);
	else
		reactor_io_write(r, &f->io, file->fd, buf, size, offset, flags);
}

static void start_sync(struct file_op *f)
{
	f->step = STEP_SYNC;
	f->io.done = io_done;
	f->covers = f->file->plain_count;
	reactor_io_fdatasync(f->file->head.reactor, &f->io, f->file->fd);
}

static void transferred(struct file_op *f, uint32_t size_bytes)
{
	struct disk_op *op = op_of(f);

	f->done_bytes += size_bytes;
	f->tries = 0;
	INVARIANT(f->done_bytes <= op->size);
	if (f->done_bytes < op->size)
		transfer(f);
	else if (op->kind == DISK_WRITE && op->durable && f->file->needs_sync && !f->dsync)
		start_sync(f);
	else
		finish(f, 0);
}

static void try_again(struct file_op *f)
{
	struct disk_op *op = op_of(f);

	switch ((enum file_step)f->step) {
	case STEP_TRANSFER:
		transfer(f);
		break;
	case STEP_SYNC:
		start_sync(f);
		break;
	case STEP_DISCARD:
		f->io.done = io_done;
		reactor_io_fallocate(f->file->head.reactor, &f->io, f->file->fd,
				     FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, op->offset,
				     op->size);
		break;
	case STEP_NOTHING:
		INVARIANT(false);
	}
}

static void pause_over(struct reactor_timer *timer)
{
	try_again(container_of(timer, struct file_op, timer));
}

/* Whether the operation goes on. Not a flush without memory: the kernel tells once of what it could
 * not write, and to the next one that all is well. (A durable write is written again itself.) */
static bool is_tried_again(struct file_op *f, int32_t result)
{
	struct reactor *r = f->file->head.reactor;
	const bool refused = result == -EAGAIN || (result == -ENOMEM && f->step != STEP_SYNC);
	uint64_t pause_ms;

	if ((result != -EINTR && !refused) || ++f->tries >= FILE_TRIES_MAX)
		return false;
	if (!refused) {
		try_again(f);
		return true;
	}
	pause_ms = MIN(1ull << (f->tries - 1), FILE_PAUSE_MAX_MS);
	f->timer = (struct reactor_timer){.fire = pause_over};
	reactor_timer_arm(r, &f->timer, reactor_now_ns(r) + pause_ms * NS_PER_MS);
	return true;
}

static void discarded(struct file_op *f, int result)
{
	/* Giving space back is a favour: where it isn't possible nothing is lost. */
	if (result == -EOPNOTSUPP || result == -ENOTTY || result == -ENOSYS) {
		f->file->cannot_discard = true;
		result = 0;
	}
	if (result < 0)
		fail(f, result);
	else
		finish(f, 0);
}

static void io_done(struct reactor_io *io, int32_t result)
{
	struct file_op *f = container_of(io, struct file_op, io);

	if (is_tried_again(f, result))
		return;
	if (f->step == STEP_DISCARD) {
		discarded(f, result);
		return;
	}
	if (result < 0) {
		fail(f, result);
		return;
	}
	if (f->step == STEP_TRANSFER) {
		/* The size was checked when it was opened: somebody has cut the file since. */
		if (result == 0)
			fail(f, -EIO);
		else
			transferred(f, (uint32_t)result);
		return;
	}
	f->file->covered_count = MAX(f->file->covered_count, f->covers);
	finish(f, 0);
}

/* -- discard of block devices, and operations with nothing to do ------------------------------ */

static void discard_work(struct reactor_work *work)
{
	struct file_op *f = container_of(work, struct file_op, work);
	struct disk_op *op = op_of(f);
	uint64_t range[2] = {op->offset, op->size};

	f->status = ioctl(f->file->fd, BLKDISCARD, range) < 0 ? -errno : 0;
}

static void discard_done(struct reactor_work *work)
{
	struct file_op *f = container_of(work, struct file_op, work);

	discarded(f, f->status);
}

static void nothing_run(struct reactor_task *task)
{
	finish(container_of(task, struct file_op, task), 0);
}

static void start_nothing(struct file_op *f)
{
	f->step = STEP_NOTHING;
	f->task = (struct reactor_task){.run = nothing_run};
	reactor_defer(f->file->head.reactor, &f->task);
}

static void start_discard(struct file_op *f)
{
	struct file_disk *file = f->file;

	if (file->cannot_discard) {
		start_nothing(f);
		return;
	}
	f->step = STEP_DISCARD;
	if (file->is_block) {
		f->work = (struct reactor_work){.work = discard_work, .done = discard_done};
		reactor_offload(file->head.reactor, &f->work);
		return;
	}
	try_again(f);
}

static void file_submit(struct disk *disk, struct disk_op *op)
{
	struct file_disk *file = file_of(disk);
	struct file_op *f = file_op_of(op);
	bool all_covered = file->covered_count == file->plain_count;

	*f = (struct file_op){.file = file};
	file->in_flight++;
	switch (op->kind) {
	case DISK_WRITE:
		f->dsync = op->durable && file->needs_sync && all_covered;
		transfer(f);
		break;
	case DISK_READ:
		transfer(f);
		break;
	case DISK_FLUSH:
		if (file->needs_sync && !all_covered)
			start_sync(f);
		else
			start_nothing(f);
		break;
	case DISK_DISCARD:
		start_discard(f);
		break;
	}
}

static void file_close(struct disk *disk)
{
	struct file_disk *file = file_of(disk);

	PRE(file->in_flight == 0);
	close(file->fd); /* gives the lock back */
	free(file);
}

static const struct disk_ops file_ops = {.submit = file_submit, .close = file_close};

/* -- opening --------------------------------------------------------------------------------- */

/* Whether the block device loses its cache with the power. True when nobody knows. */
static bool has_volatile_cache(dev_t dev)
{
	/* A partition has no queue of its own, its parent has. */
	static const char *const places[] = {"queue/write_cache", "../queue/write_cache"};
	char path[128], text[32] = "";

	for (size_t i = 0; i < ARRAY_SIZE(places); i++) {
		FILE *in;
		bool got;

		snprintf(path, sizeof path, "/sys/dev/block/%u:%u/%s", major(dev), minor(dev),
			 places[i]);
		in = fopen(path, "re");
		if (in == NULL)
			continue;
		got = fgets(text, sizeof text, in) != NULL;
		fclose(in);
		if (got)
			return strncmp(text, "write through", 13) != 0;
	}
	return true;
}

static int open_fd(const char *path, int *ret_fd, struct stat *ret_st, struct error *err)
{
	int flags = O_RDWR | O_DIRECT | O_CLOEXEC;
	int fd;

	if (stat(path, ret_st) < 0)
		return error_set(err, -errno, "disk %s: %s", path, err_text(errno));
	if (!S_ISREG(ret_st->st_mode) && !S_ISBLK(ret_st->st_mode))
		return error_set(err, -EINVAL,
				 "disk %s: it is neither a regular file nor a block device", path);
	/* For a block device this also keeps the kernel's own users out: file systems, md, dm. */
	if (S_ISBLK(ret_st->st_mode))
		flags |= O_EXCL;
	fd = open(path, flags);
	if (fd < 0 && errno == EBUSY)
		return error_set(err, -E_IN_USE,
				 "disk %s: it is in use (mounted, or claimed by another process)",
				 path);
	if (fd < 0 && errno == EINVAL)
		return error_set(err, -EINVAL,
				 "disk %s: its file system has no direct I/O; put it on ext4, xfs "
				 "or a block device",
				 path);
	if (fd < 0)
		return error_set(err, -errno, "disk %s: %s", path, err_text(errno));
	*ret_fd = fd;
	return 0;
}

static int lock_fd(const char *path, int fd, struct error *err)
{
	struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};

	if (fcntl(fd, F_OFD_SETLK, &lock) == 0)
		return 0;
	if (errno != EAGAIN && errno != EACCES)
		return error_set(err, -errno, "disk %s: it cannot be locked: %s", path,
				 err_text(errno));
	return error_set(err, -E_IN_USE, "disk %s: it is in use by another process", path);
}

/* Opens it for us alone. The kernel refuses the opening of a block device, and the lock of a file,
 * for as long as it has not let go of what a killed process had in flight. */
static int open_alone(const char *path, int *ret_fd, struct stat *ret_st, struct error *err)
{
	const struct timespec pause = {.tv_nsec = (long)(FILE_LOCK_RETRY_MS * NS_PER_MS)};

	for (uint32_t waited_ms = 0;; waited_ms += FILE_LOCK_RETRY_MS) {
		int fd = -1;
		int rc = open_fd(path, &fd, ret_st, err);

		if (rc == 0)
			rc = lock_fd(path, fd, err);
		if (rc == 0) {
			*ret_fd = fd;
			return 0;
		}
		if (fd >= 0)
			close(fd);
		if (rc != -E_IN_USE || waited_ms >= DISK_LOCK_WAIT_MS)
			return rc;
		nanosleep(&pause, NULL);
	}
}

static int find_size(const char *path, int fd, const struct stat *st, uint64_t *ret_size,
		     struct error *err)
{
	uint64_t size;

	if (S_ISBLK(st->st_mode)) {
		if (ioctl(fd, BLKGETSIZE64, &size) < 0)
			return error_set(err, -errno, "disk %s: its size: %s", path,
					 err_text(errno));
		size -= size % BLOCK_SIZE;
	} else {
		size = (uint64_t)st->st_size;
		if (size % BLOCK_SIZE != 0)
			return error_set(err, -EINVAL,
					 "disk %s: its size, %llu bytes, is not a multiple of %u",
					 path, (unsigned long long)size, BLOCK_SIZE);
	}
	if (size == 0)
		return error_set(err, -EINVAL, "disk %s: it is empty", path);
	*ret_size = size;
	return 0;
}

/* One read of one block tells whether direct I/O works at our alignment. */
static int probe(const char *path, int fd, struct error *err)
{
	_Alignas(BLOCK_SIZE) char block[BLOCK_SIZE];
	ssize_t n = pread(fd, block, sizeof block, 0);

	if (n == (ssize_t)sizeof block)
		return 0;
	if (n < 0 && errno == EINVAL)
		return error_set(err, -EINVAL,
				 "disk %s: it takes no direct I/O in blocks of %u bytes", path,
				 BLOCK_SIZE);
	return error_set(err, n < 0 ? -errno : -EIO, "disk %s: its first block: %s", path,
			 n < 0 ? err_text(errno) : "cut short");
}

int disk_file_open(struct reactor *r, const char *path, struct disk **ret_disk, struct error *err)
{
	struct file_disk *file;
	uint64_t size = 0;
	struct stat st;
	int fd = -1;
	int rc;

	rc = open_alone(path, &fd, &st, err);
	if (rc != 0)
		return rc;
	/* Looked at again under the lock: before it, somebody may have been creating it. */
	if (fstat(fd, &st) < 0)
		rc = error_set(err, -errno, "disk %s: %s", path, err_text(errno));
	if (rc == 0)
		rc = find_size(path, fd, &st, &size, err);
	if (rc == 0)
		rc = probe(path, fd, err);
	if (rc != 0)
		goto out;
	file = calloc(1, sizeof *file);
	if (file == NULL) {
		rc = error_set(err, -ENOMEM, "disk %s: %s", path, err_text(-ENOMEM));
		goto out;
	}
	file->head = (struct disk){.ops = &file_ops, .reactor = r, .size_bytes = size};
	file->fd = fd;
	file->is_block = S_ISBLK(st.st_mode);
	file->head.volatile_cache = has_volatile_cache(file->is_block ? st.st_rdev : st.st_dev);
	file->head.needs_priming = !file->is_block;
	file->needs_sync = file->head.volatile_cache || !file->is_block;
	file->plain_count = 1;
	snprintf(file->head.name, sizeof file->head.name, "%s", path);
	*ret_disk = &file->head;
	return 0;
out:
	close(fd);
	return rc;
}

/* -- creating -------------------------------------------------------------------------------- */

static int sync_directory_of(const char *path)
{
	char *copy = strdup(path);
	int fd, rc = 0;

	if (copy == NULL)
		return -ENOMEM;
	fd = open(dirname(copy), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	free(copy);
	if (fd < 0)
		return -errno;
	if (fsync(fd) < 0)
		rc = -errno;
	close(fd);
	return rc;
}

/* Asks first: fallocate would eat up all that is free before it failed. */
static int check_space(const char *path, int fd, uint64_t size_bytes, struct error *err)
{
	struct statvfs fs;
	char need[32], have[32];
	uint64_t free_bytes;

	if (fstatvfs(fd, &fs) < 0)
		return error_set(err, -errno, "disk %s: %s", path, err_text(errno));
	free_bytes = (uint64_t)fs.f_bavail * fs.f_frsize;
	if (free_bytes < size_bytes)
		return error_set(err, -ENOSPC, "disk %s: it needs %s and its file system has %s",
				 path, text_size(size_bytes, need, sizeof need),
				 text_size(free_bytes, have, sizeof have));
	return 0;
}

int disk_file_create(const char *path, uint64_t size_bytes, struct error *err)
{
	int fd, rc;

	if (size_bytes == 0 || size_bytes % BLOCK_SIZE != 0 || size_bytes > INT64_MAX)
		return error_set(err, -EINVAL,
				 "disk %s: its size, %llu bytes, is not a multiple of %u", path,
				 (unsigned long long)size_bytes, BLOCK_SIZE);
	fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (fd < 0)
		return error_set(err, -errno, "disk %s: %s", path, err_text(errno));
	rc = check_space(path, fd, size_bytes, err);
	if (rc == 0 && fallocate(fd, 0, 0, (off_t)size_bytes) < 0)
		rc = error_set(err, -errno, "disk %s: space for it: %s", path, err_text(errno));
	if (rc == 0 && fsync(fd) < 0)
		rc = error_set(err, -errno, "disk %s: %s", path, err_text(errno));
	close(fd);
	if (rc == 0) {
		rc = sync_directory_of(path);
		if (rc != 0)
			error_set(err, rc, "disk %s: its directory: %s", path, err_text(rc));
	}
	if (rc != 0)
		unlink(path);
	return rc;
}
