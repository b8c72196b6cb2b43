/* Burying: what an erased chunk's slots refer to is given back, bit by bit, in the background.
 *
 *   dead chunk --pages looked up, a few at a time--> unreferred --all of them--> gone
 *
 * A dead chunk keeps its pages in kv until they are accounted for, and its record says how far that
 * has come (format_chunk.buried); after a crash it goes on from the last checkpoint. Until the end
 * no new chunk takes its place: whoever wants to write one waits (lookup.h).
 *
 * Failure: a page that cannot be read is tried again every BURY_RETRY_NS; what it refers to stays
 * live until then. After BURY_TRIES in a row that is a device that has failed (store_fail), as for
 * blind pages: writes and erasures that wait for the chunk would wait for ever, and the cleaner
 * would take the same segments again and again. */
#ifndef STORE_BURY_H
#define STORE_BURY_H

#include "engine/store/lookup.h"

#define BURY_PAGES    256u /* in one turn */
#define BURY_PAUSE_NS 50000u
#define BURY_RETRY_NS (1 * NS_PER_S)
#define BURY_TRIES    10u

struct bury {
	bool looking_up;
	bool ready;	      /* it was looked up, and waits for the timer */
	struct lookup lookup; /* of pages of its chunk `held` */
	uint32_t tries;	      /* in a row, that pages could not be read */
	struct reactor_timer timer;
};

void bury_init(struct store *store);
void bury_deinit(struct store *store);

/* There may be something to do. */
void bury_kick(struct store *store);

/* The dead chunk as a whole, where it stands: for recovery. 0, or why a page could not be read. */
int bury_now(struct store *store, struct index_chunk *chunk);

bool bury_is_idle(const struct store *store);

#endif
