/* Whether a word is due in the log about a driver of which nothing is heard. The keeper of the
 * lease (engine/node/lease.c) tells of each refusal, and when it loses a driver that it had; it
 * tries on in silence. Without this a node that was given a wrong address would never say that it
 * has no lease.
 *
 * A step function: no clock, no I/O. Zero-initialise. */
#ifndef PAVE_NODE_LEASE_WATCH_H
#define PAVE_NODE_LEASE_WATCH_H

#include <stdbool.h>
#include <stdint.h>

#include "engine/base/types.h"

#define LEASE_WATCH_STEP_NS  NS_PER_S	    /* between two steps */
#define LEASE_WATCH_AFTER_NS (5 * NS_PER_S) /* without a lease and without an answer */

struct lease_watch {
	uint64_t
	    heard_ns; /* when there was a lease or an answer last, or the first step; 0: none yet */
	uint64_t answers;
	bool told;
};

enum lease_word {
	LEASE_WORD_NONE,
	LEASE_WORD_SILENT, /* nothing is heard of the driver, and there is no lease: once */
	LEASE_WORD_OVER,   /* it is heard of again */
};

/* answers: how many answers of a driver, grants and refusals, there were so far. ret_ns, with a
 * word: how long nothing was heard. */
enum lease_word lease_watch_step(struct lease_watch *w, uint64_t now_ns, bool held,
				 uint64_t answers, uint64_t *ret_ns);

#endif
