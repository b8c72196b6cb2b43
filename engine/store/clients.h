/* How much of the time clients are at work: a read or a write of theirs is under way. For what has
 * to leave them the disk (tidy.h). */
#ifndef STORE_CLIENTS_H
#define STORE_CLIENTS_H

#include <stdint.h>

#include "engine/base/assert.h"

struct clients {
	uint32_t in_flight; /* reads and writes */
	uint64_t since_ns;  /* in_flight is not 0 */
	uint64_t ended_ns;  /* of all times before */
};

static inline void clients_begin(struct clients *c, uint64_t now_ns)
{
	if (c->in_flight++ == 0)
		c->since_ns = now_ns;
}

static inline void clients_end(struct clients *c, uint64_t now_ns)
{
	INVARIANT(c->in_flight > 0);
	if (--c->in_flight == 0)
		c->ended_ns += now_ns - c->since_ns;
}

/* All the time that they were at work until now. */
static inline uint64_t clients_busy_ns(const struct clients *c, uint64_t now_ns)
{
	return c->ended_ns + (c->in_flight > 0 ? now_ns - c->since_ns : 0);
}

#endif
