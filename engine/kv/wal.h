/* A look at RocksDB's logs before it opens them. After a crash RocksDB reads a log as far as its
 * checksums fit and drops the rest, which is right for a batch that was torn: it was never
 * confirmed. It does the same when the disk has spoilt what was confirmed long ago, and then says
 * nothing of what came after that. */
#ifndef KV_WAL_H
#define KV_WAL_H

#include <stdbool.h>
#include <stdint.h>

#include "engine/base/error.h"

#define WAL_BLOCK_SIZE (32u * 1024)

/* What doesn't check in a log. */
struct wal_damage {
	uint64_t at;	   /* the first place, in bytes of the log; UINT64_MAX: everything checks */
	bool batch_behind; /* a batch begins after it */
};

/* Looks at one block of a log after the other, as long as no batch is behind damage. size: what is
 * there of the block that is at offset, a multiple of WAL_BLOCK_SIZE; less than a block only at the
 * end. damage: {.at = UINT64_MAX} before the first. Pure. */
void wal_look(const uint8_t *block, uint32_t size, uint64_t offset, struct wal_damage *damage);

/* Of the logs in the database's directory. 0: whatever doesn't check is the end of its log, or
 * there is no log; -E_CORRUPT: a batch begins behind it; -EIO; -ENOMEM. The text names the log and
 * the place. Holds for who has each batch synced before the next one is written. Blocks. */
int wal_check(const char *path, struct error *err);

#endif
