/* Which copies of a volume lie closer together than its policy has it (`distinct`,
 * `min_distance_km`): the policy was tightened since they were placed, or a certificate says
 * something else by now. Only copies that count are looked at: what is not eligible leaves anyway.
 *
 * Thread: the driver's reactor. */
#ifndef PLACEMENT_SPREAD_H
#define PLACEMENT_SPREAD_H

#include "engine/placement/driver.h"

#define SPREAD_PAIRS_MAX 16u

/* Where it lies, by its certificate; the texts are lent by that. */
struct planner_site spread_site(const struct verdicts *v, const char *name);

/* Whether another copy of the chunk lies too close to the one on n. */
bool spread_is_too_close(struct pd *pd, const struct reg_volume *v, chunk_no_t chunk,
			 const struct reg_node *n, int64_t now);

/* A rule that failed for each pair of sites with such copies, up to SPREAD_PAIRS_MAX, in the arena:
 * which, how many chunks, how close, and by which documents. */
Pave__V1__FailedRule **spread_explain(struct pd *pd, struct arena *a, const struct reg_volume *v,
				      int64_t now, size_t *ret_count);

#endif
