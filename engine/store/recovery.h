/* Opening a store: superblocks, the index in kv, then the log after the last checkpoint.
 *
 *   SUPER (both copies) -> HEAL (a damaged copy) -> index from kv
 *     -> PROBE  (no index: the device must be unused) ----------------+
 *     -> SCAN   (each segment that may hold groups after the checkpoint)
 *     -> LOAD   (the pages of the index that they change, many at a time) -> replay -> FLUSH ->
 * done
 *
 * The groups found are put in the order of their sequence; those of a stream are accepted as long
 * as each names the one accepted before it; of several that do, the newest, for the log went on
 * from there without the others. What follows a gap was never acknowledged: a group is acknowledged
 * after all before it are durable. Unless a later group says that the stream was durable up to
 * there: then acknowledged groups are lost, and opening fails with -E_CORRUPT rather than serving
 * less than was promised. A group with good header and a damaged block, known to have been durable,
 * is accepted: reading the block gives -E_BAD_CRC, and it is repaired from another replica.
 *
 * A block that cannot be read is passed over where nothing acknowledged can lie: behind one that
 * should begin a group and does not, as in segments that are listed and were never opened. Anywhere
 * else opening fails with -EIO.
 *
 * FLUSH comes before anything is served: what was read may still lie in the disk's volatile cache
 * (after a kill), and what is served once must stay.
 *
 * Segments that were written are sealed and never continued; fresh ones are opened. */
#ifndef STORE_RECOVERY_H
#define STORE_RECOVERY_H

#include "engine/store/core.h"

/* Of a store that has only its configuration. Calls op->done, once, not from inside the call; or
 * returns -ENOMEM, and does not. */
int recovery_start(struct store *store, struct store_open_op *op);

/* All pages that were being read ahead have been (lookup_ahead). */
void recovery_pages_read(struct store *store);

/* Frees what an opening under way holds. NULL is allowed. */
void recovery_destroy(struct recovery *r);

#endif
