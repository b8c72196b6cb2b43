/* A disk as the store sees it: aligned reads and writes, and a way to make them durable.
 * Implementations: a file or block device on io_uring (file.c), the simulator's (tests/sim), and
 * the fault layer over either.
 *
 * Thread: the reactor's that the disk was opened on. Submit lends op, its iovecs and its memory
 * until `done`, which runs exactly once, never from inside disk_submit. status: 0 or a negative
 * errno: -EIO, -ENOSPC, -ENODEV; an I/O is whole or failed: short ones are continued inside.
 *
 * Durability: a write whose op->durable is set is on stable media when it completes, and so is
 * every write that completed before it was submitted (FUA, or write + flush where there is a
 * volatile cache). Without it a write may be kept, dropped or torn at 512 bytes by a power loss,
 * each independently, until a later DISK_FLUSH or durable write, submitted after its completion,
 * completes. */
#ifndef DISK_DISK_H
#define DISK_DISK_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

#include "engine/base/error.h"
#include "engine/base/types.h"
#include "engine/reactor/reactor.h"

enum disk_op_kind {
	DISK_READ,
	DISK_WRITE,
	DISK_FLUSH,   /* everything that completed before is durable; no range */
	DISK_DISCARD, /* the range reads as anything afterwards, and its space is given back: on a
		       * disk with needs_priming it needs priming again (a regular file gets a
		       * hole, so that it may also meet -ENOSPC later). A device that cannot
		       * discard answers 0 and keeps what it has. */
};

#define DISK_IOV_MAX	 64u
#define DISK_IO_SIZE_MAX (64u << 20) /* of one read or write, in bytes */

struct disk_op {
	enum disk_op_kind kind;
	bool durable;	 /* DISK_WRITE */
	uint64_t offset; /* bytes; multiple of BLOCK_SIZE */
	uint64_t size;	 /* bytes; multiple of BLOCK_SIZE; the sum of iov for reads and writes */
	struct iovec iov[2]; /* for the common case: set iovs = iov */
	struct iovec *iovs;  /* each aligned to BLOCK_SIZE in address and length */
	uint32_t iov_count;  /* up to DISK_IOV_MAX */
	void (*done)(struct disk_op *op, int status);
	uint64_t impl[24]; /* the implementation's */
};

struct disk;

struct disk_ops {
	void (*submit)(struct disk *disk, struct disk_op *op);
	void (*close)(struct disk *disk);
};

/* The head that every implementation embeds. */
struct disk {
	const struct disk_ops *ops;
	struct reactor *reactor;
	uint64_t size_bytes; /* multiple of BLOCK_SIZE */
	bool volatile_cache; /* durable costs a flush */
	bool needs_priming; /* space written for the first time is slow to make durable (a file with
			     * unwritten extents): write it once before it is needed */
	char name[ADDR_SIZE_MAX]; /* for errors: its path, or what the simulator calls it */
};

/* Out of range, unaligned or too many iovs is a mistake of the caller (PRE). */
void disk_submit(struct disk *disk, struct disk_op *op);

/* No operation may be in flight. NULL is allowed. */
void disk_close(struct disk *disk);

/* -- production only (file.c) ---------------------------------------------------------------- */

/* Opens a regular file or a block device with O_DIRECT, exclusively (a lock that a second opener
 * sees as -E_IN_USE, after waiting DISK_LOCK_WAIT_MS: the kernel may need a moment to let go of
 * what a killed process had in flight). Blocks: for start-up. Errors name the path: -ENOENT,
 * -EACCES, -EINVAL (size or alignment). */
#define DISK_LOCK_WAIT_MS 2000u
int disk_file_open(struct reactor *r, const char *path, struct disk **ret_disk, struct error *err);

/* Creates path with size_bytes, allocated but not written. -EEXIST, -ENOSPC. Blocks: for start-up
 * and tools. */
int disk_file_create(const char *path, uint64_t size_bytes, struct error *err);

#endif
