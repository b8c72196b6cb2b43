/* Checks of the store's own bookkeeping, for tests and for offline tools. */
#ifndef STORE_CHECK_H
#define STORE_CHECK_H

#include "engine/store/store.h"

/* Compares the index, all of it, with the segments: every location lies in a segment of this shard
 * that is in use, no two slots refer to the same block, and live counts, counters of states and of
 * empty segments are those that a fresh count gives. 0, -ENOMEM, or -E_CORRUPT with what is wrong
 * in err. Slow. */
int store_check(const struct store *store, struct error *err);

/* What tests make happen, rather than wait for. */
void store_want_checkpoint(struct store *store);
bool store_is_checkpointing(const struct store *store);

#endif
