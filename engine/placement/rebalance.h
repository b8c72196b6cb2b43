/* Which copies should move, and where to. Pure: no state, no clock, no randomness; the same input
 * gives the same plan.
 *
 * First what must leave where it is (its site isn't eligible, its node is lost), then one of copies
 * that lie closer together than the policy has it, then what is asked to (drain), then, if it is
 * wished, what makes the nodes alike in how much of their size is placed on them. A target is
 * eligible, takes more, and goes with those of the chunk's other copies that stay as the policy
 * wants; of those it is the one with the least placed on it for its size (planner.h says of a hot
 * one). One move a chunk, of a copy that has a place to go to, if there is one: what is left of a
 * chunk comes with the next plan.
 *
 * No move is planned that could leave fewer eligible copies than there are: a copy is taken off the
 * map only when its successor is complete (volume/move.h), and the successor is eligible. */
#ifndef PLACEMENT_REBALANCE_H
#define PLACEMENT_REBALANCE_H

#include "engine/placement/planner.h"
#include "engine/placement/register.h"

#define REBALANCE_TOLERANCE_PPM 10000u /* over the mean: left alone */

struct rebalance_policy {
	const char *distinct;
	double min_distance_km;
	const bool *eligible; /* by site */
};

struct rebalance_node {
	const char *name;
	uint32_t site;
	bool up;	      /* may be copied from */
	bool takes;	      /* may be copied to */
	enum move_why leaves; /* MOVE_WHY_NONE, _DRAIN, _LOST: all that is on it */
	uint64_t size_bytes;
	uint64_t placed_bytes; /* as if the moves that are under way were done */
	uint64_t load;	       /* operations a second */
};

struct rebalance_volume {
	uint32_t policy;
	uint32_t replicas, chunk_count;
	uint64_t chunk_size;
	const uint8_t *map;	  /* chunk_count x replicas indices into: */
	const uint32_t *nodes;	  /* indices into the input's nodes */
	uint32_t node_count;	  /* of them; with REG_MAP_NODES_MAX there is room for no other */
	const chunk_no_t *moving; /* chunks that have a move */
	uint32_t moving_count;
	bool served; /* attached: one copy that is up may be enough to copy from; else a majority */
};

struct rebalance_input {
	const struct planner_site *sites; /* position and campus; eligible is not looked at */
	uint32_t site_count;
	const struct rebalance_policy *policies;
	uint32_t policy_count;
	const struct rebalance_node *nodes;
	uint32_t node_count;
	const struct rebalance_volume *volumes;
	uint32_t volume_count;
	bool balance;
	size_t moves_max;
};

struct rebalance_move {
	uint32_t volume;
	chunk_no_t chunk;
	uint32_t from, to; /* nodes of the input */
	enum move_why why;
};

/* Copies that must leave and cannot. */
struct rebalance_stuck {
	uint64_t count;
	uint32_t volume; /* the first of them */
	chunk_no_t chunk;
	uint32_t from;
	enum move_why why;
	bool no_source; /* too few copies are up; else: no target */
};

struct rebalance_plan {
	struct rebalance_move *moves; /* in the order in which they are to be done; malloc'd */
	size_t count;
	bool more;		/* moves_max was reached */
	uint64_t bytes;		/* of chunks, whole */
	uint64_t *placed_after; /* by node; malloc'd */
	struct rebalance_stuck stuck;
};

int rebalance_make(const struct rebalance_input *in, struct rebalance_plan *ret); /* -ENOMEM */
void rebalance_plan_deinit(struct rebalance_plan *p); /* zeroed memory is allowed */

#endif
