/* The planner: which nodes hold the replicas of each chunk. Pure: no state, no clock, no
 * randomness; the same input gives the same map.
 *
 * Rules, in this order: the node's site is eligible; the node is up and has room; the replicas of a
 * chunk lie on distinct campuses or sites (always on distinct nodes), at least min_distance_km from
 * one another; among what is allowed, those with the least placed on them for their size, of which
 * a node that is *hot* counts as a little fuller than it is: chunks go elsewhere until the others
 * are fuller by that. Only hot ones are told apart: to follow every difference in load would put
 * all of a volume on the few that happen to rest. Volumes are thin, so what is placed may exceed
 * what a device has: only a node that is full takes no more.
 *
 * When a rule cannot be met the text says which, what it asks, and what there is. */
#ifndef PLACEMENT_PLANNER_H
#define PLACEMENT_PLANNER_H

#include <stdbool.h>
#include <stdint.h>

#include "engine/base/error.h"
#include "engine/base/types.h"

#define PLANNER_NODES_MAX  255u	  /* in one map: its entries are bytes */
#define PLANNER_STEPS_MAX  20000u /* tries for one chunk, before it is given up */
#define PLANNER_FULL_RATIO 50u	  /* a node with less than 1/50 free is full */
#define PLANNER_HOT_MIN	   200u	  /* operations a second; with less no node is hot */
#define PLANNER_HOT_RATIO  50u	  /* one that is counts as 1/50 of its size fuller */

struct planner_site {
	const char *name;
	const char *campus; /* "": not in the certificate */
	bool has_position;
	double latitude, longitude;
	bool eligible;
	const char *why; /* when it isn't, or NULL */
};

struct planner_node {
	const char *name;
	uint32_t site; /* index into sites */
	bool up;
	const char *why; /* when it isn't, or NULL */
	uint64_t size_bytes, free_bytes, placed_bytes;
	uint64_t load; /* operations a second */
};

/* What nodes carry together. */
struct planner_load {
	uint64_t load, size_bytes;
};

struct planner_input {
	const char *policy;   /* name, for the text */
	uint32_t replicas;    /* 1 to REPLICAS_MAX */
	const char *distinct; /* "campus", "site", "none" */
	double min_distance_km;
	const struct planner_site *sites;
	uint32_t site_count;
	const struct planner_node *nodes;
	uint32_t node_count;
	uint32_t chunk_count;
	uint64_t chunk_size;
};

struct planner_result {
	uint32_t *nodes; /* indices into the input's nodes; malloc'd */
	uint32_t node_count;
	uint8_t *map; /* chunk_count x replicas indices into `nodes` above; malloc'd */
};

/* 0; -E_DENIED: a rule cannot be met, *err says which; -ENOMEM. */
int planner_place(const struct planner_input *in, struct planner_result *ret, struct error *err);
/* Whether two replicas may lie in these two sites (pointers into one array: one site has one). */
bool planner_sites_go_together(const char *distinct, double min_distance_km,
			       const struct planner_site *a, const struct planner_site *b);
/* What counts as placed on a node on top of what is: it carries more than half again as much, for
 * its size, as all do together. */
uint64_t planner_hot_bytes(uint64_t size_bytes, uint64_t load, const struct planner_load *all);
/* A node that is full takes no more. */
bool planner_has_room(uint64_t size_bytes, uint64_t free_bytes);
void planner_result_deinit(struct planner_result *r);

#endif
