/* cleaner: see cleaner.h. */
#include "engine/store/cleaner.h"

#include "engine/store/core.h"

int cleaner_init(struct store *store)
{
	(void)store;
	return 0;
}
void cleaner_deinit(struct store *store)
{
	(void)store;
}
void cleaner_kick(struct store *store)
{
	(void)store;
}
bool cleaner_is_idle(const struct store *store)
{
	(void)store;
	return true;
}
void cleaner_describe(const struct item *item, struct format_entry *ret_entry,
		      const uint8_t **ret_data, const uint32_t **ret_crcs)
{
	(void)item;
	(void)ret_entry;
	(void)ret_data;
	(void)ret_crcs;
}
uint32_t cleaner_moved_from(const struct item *item, block_no_t block)
{
	(void)item;
	(void)block;
	return 0;
}
void cleaner_moved(struct store *store, struct item *item, int status)
{
	(void)store;
	(void)item;
	(void)status;
}
bool cleaner_lets_write(struct store *store, uint8_t stream)
{
	(void)store;
	(void)stream;
	return true;
}
void cleaner_charge(struct store *store, uint8_t stream, uint32_t blocks)
{
	(void)store;
	(void)stream;
	(void)blocks;
}
