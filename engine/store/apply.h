/* Applies one entry of a durable group to the index: at run time when the group's turn comes, and
 * in recovery when it is replayed. The newest version wins, whatever the order. */
#ifndef STORE_APPLY_H
#define STORE_APPLY_H

#include "engine/store/format.h"

struct store;

struct apply_context {
	const uint32_t *crcs; /* of the group's data blocks */
	uint32_t data_block;  /* the device's block of the group's first data block */
	uint32_t moved_from;  /* FORMAT_FLAG_MOVE: the run's first block before, or LOCATION_NONE in
				 recovery: whatever it was */
	struct index_page *page; /* the one that the look-up of the entry holds first, or NULL */
};

/* What the entry changes is held by a look-up (lookup.h); a fence's volume exists. */
void apply_entry(struct store *store, const struct format_entry *entry,
		 const struct apply_context *context);

#endif
