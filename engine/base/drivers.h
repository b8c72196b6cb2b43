/* The addresses of a cluster's placement drivers, of which one leads: whom to ask, and whom next
 * when that one did not do. Pure; any thread that owns the struct. */
#ifndef BASE_DRIVERS_H
#define BASE_DRIVERS_H

#include <stdbool.h>
#include <stdint.h>

#include "engine/base/error.h"
#include "engine/base/types.h"

#define DRIVERS_MAX	 8u
#define DRIVERS_TEXT_MAX (DRIVERS_MAX * ADDR_SIZE_MAX) /* of a list, as text */

struct drivers {
	char list[DRIVERS_MAX][ADDR_SIZE_MAX];
	uint32_t count;
	uint32_t at;		    /* in the list */
	uint32_t tried;		    /* in this round */
	char leader[ADDR_SIZE_MAX]; /* as a follower named it, goes before the list; "": none did */
};

/* ADDRESS[,ADDRESS...]. -EINVAL: one is empty, or none is given; -ENAMETOOLONG; -E_LIMIT: over
 * DRIVERS_MAX. */
int drivers_parse(const char *text, struct drivers *ret_drivers, struct error *err);

/* Whom to ask now. */
const char *drivers_current(const struct drivers *d);

/* There may be another one to ask: so none is worth a long wait. */
bool drivers_several(const struct drivers *d);

/* The current one is unreachable, or does not lead. leader: whom it named instead; "" or NULL:
 * nobody. True: all were tried since the last drivers_found, so there should be a pause. */
bool drivers_next(struct drivers *d, const char *leader);

/* The current one leads. */
void drivers_found(struct drivers *d);

#endif
