/* The cleaner */
#ifndef STORE_CLEANER_H
#define STORE_CLEANER_H

#include "engine/store/item.h"

struct cleaner {
	int x;
};

int cleaner_init(struct store *store);
void cleaner_deinit(struct store *store);
void cleaner_kick(struct store *store);
bool cleaner_is_idle(const struct store *store);

/* -- for the log ------------------------------------------------------------------------------ */

void cleaner_describe(const struct item *item, struct format_entry *ret_entry,
		      const uint8_t **ret_data, const uint32_t **ret_crcs);
uint32_t cleaner_moved_from(const struct item *item, block_no_t block);
void cleaner_moved(struct store *store, struct item *item, int status);
bool cleaner_lets_write(struct store *store, uint8_t stream);
void cleaner_charge(struct store *store, uint8_t stream, uint32_t blocks);

#endif
