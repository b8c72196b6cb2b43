/* Blind pages: what is written to a page of the index that is still being read from kv. So a write
 * waits for the log alone, never for kv (ARCHITECTURE.md, "A node's disk").
 *
 *   LOADING --write looked up--> blind --applied--> blind, listed --read--> FULL, dirty
 *                                                     |  ^ again after BLIND_RETRY_NS
 *                                                     v  |
 *                                                    FAILED --BLIND_TRIES times--> store_fail
 *
 * Its slots are what was written, the newest version of each block; when the page has been read the
 * newer of both wins, block by block, as if the writes had been applied to it in the first place.
 *
 * Invariants:
 * 1. What a blind page refers to is live, and counted a second time in its segment (segment.blind):
 *    for a checkpoint, in which the page is as kv has it.
 * 2. The log that a checkpoint covers ends before the first write to a blind page (blind_position):
 *    all that follows is replayed, for the second time where it had been applied, which changes
 *    nothing. So no segment with a group behind that position may be given out again.
 * 3. Nobody but who writes sees a blind page: reads, moves and burying wait until it has been read.
 *
 * Failure: an index that cannot be read for what was acknowledged is a device that has failed. */
#ifndef STORE_BLIND_H
#define STORE_BLIND_H

#include "engine/store/index.h"
#include "engine/store/wlog.h"

#define BLIND_RETRY_NS (NS_PER_S / 2)
#define BLIND_TRIES    10u

struct store;

/* Before the first change of a blind page by the group that is being applied. */
void blind_note(struct store *store, struct index_page *page);

/* A slot of a blind page begins, ceases to refer to location; besides segments_ref and _unref. */
void blind_ref(struct store *store, uint32_t location);
void blind_unref(struct store *store, uint32_t location);

/* It has been read: these are its slots. */
void blind_see(struct store *store, struct index_page *page, const struct format_slot *slots);

/* Up to which group of each stream everything is in the index but what blind pages hold; and how
 * long the log was then (checkpoint.log_total). */
void blind_position(const struct store *store, uint64_t *ret_seqs, uint64_t *ret_log_at);

#endif
