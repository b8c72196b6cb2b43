/* A look at RocksDB's logs before it opens them. After a crash RocksDB reads a log as far as its
 * checksums fit and drops the rest, which is right for a batch that was torn: it was never
 * confirmed. It does the same when the disk has spoilt what was confirmed long ago, and then says
 * nothing of what came after that. */
#ifndef KV_WAL_H
#define KV_WAL_H

#include "engine/base/error.h"

/* Of the logs in the database's directory. 0: whatever doesn't check is the end of its log, or
 * there is no log; -E_CORRUPT: a batch begins behind it; -EIO; -ENOMEM. The text names the log and
 * the place. Holds for who has each batch synced before the next one is written. Blocks. */
int wal_check(const char *path, struct error *err);

#endif
