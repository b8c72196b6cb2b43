/* item: see item.h. */
#include "engine/store/item.h"

#include "engine/base/assert.h"
#include "engine/store/core.h"

void item_complete(struct store *store, struct item *item, int status)
{
	if (item->held && item->kind == ITEM_ERASE) {
		lookup_erased(store, item);
	} else if (item->held) {
		item->held = false;
		lookup_end(store, &item_op_of(item)->lookup);
	}
	if (item->kind != ITEM_MOVE) {
		INVARIANT(store->ops_in_flight > 0);
		store->ops_in_flight--;
	}
	if (item->client)
		clients_end(&store->clients, reactor_now_ns(store->reactor));
	switch ((enum item_kind)item->kind) {
	case ITEM_DATA:
	case ITEM_ZERO:
	case ITEM_DISCARD: {
		struct store_write *op = ITEM_OWNER(item, struct store_write);

		op->done(op, status);
		return;
	}
	case ITEM_FENCE: {
		struct store_fence_op *op = ITEM_OWNER(item, struct store_fence_op);

		op->done(op, status);
		return;
	}
	case ITEM_WATERMARK: {
		struct store_watermark_op *op = ITEM_OWNER(item, struct store_watermark_op);

		op->done(op, status);
		return;
	}
	case ITEM_ERASE: {
		struct store_erase_op *op = ITEM_OWNER(item, struct store_erase_op);

		op->done(op, status);
		return;
	}
	case ITEM_CHANGES: {
		struct store_changes_op *op = ITEM_OWNER(item, struct store_changes_op);

		op->done(op, status);
		return;
	}
	case ITEM_WIPE: {
		struct store_wipe_op *op = ITEM_OWNER(item, struct store_wipe_op);

		op->done(op, status);
		return;
	}
	case ITEM_READ: {
		struct store_read *op = ITEM_OWNER(item, struct store_read);

		op->done(op, status);
		return;
	}
	case ITEM_MOVE:
		cleaner_moved(store, item, status);
		return;
	}
	INVARIANT(false);
}

void item_complete_later(struct store *store, struct item *item, int status)
{
	item->status = status;
	item_push(&store->finished, item);
	reactor_defer(store->reactor, &store->finish_task);
}
