/* What every operation on the store has in common while it is under way: a place in one queue, and
 * how far it got. It lies in the operation's impl. Its owner is found again by its kind. */
#ifndef STORE_ITEM_H
#define STORE_ITEM_H

#include "engine/store/format.h"
#include "engine/store/store.h"

enum item_kind {
	ITEM_DATA = FORMAT_DATA,
	ITEM_ZERO = FORMAT_ZERO,
	ITEM_DISCARD = FORMAT_DISCARD,
	ITEM_FENCE = FORMAT_FENCE,
	ITEM_WATERMARK = FORMAT_WATERMARK,
	ITEM_ERASE = FORMAT_ERASE,
	ITEM_MOVE, /* the cleaner's */
	ITEM_READ,
	ITEM_CHANGES,
	ITEM_WIPE,
};

struct item {
	struct item *next; /* in the one queue that it is in */
	uint8_t kind;
	bool gathered;	 /* all of it is in groups, or given up */
	bool held;	 /* its look-up (lookup.h) is to be ended with it */
	bool client;	 /* a read or a write of the store's user: counted (clients.h) */
	uint16_t parts;	 /* groups that hold a part of it and are not applied yet */
	uint32_t cursor; /* blocks gathered */
	uint32_t growth; /* blocks that it may add to what is live */
	uint32_t stage;	 /* its payload lies in the buffer of this stage (wlog.h), or 0 */
	uint32_t staged; /* there, from this data block on */
	int status;
	uint64_t begun_ns; /* when its last group was handed to the disk */
};

struct item_queue {
	struct item *head;
	struct item *tail;
	uint32_t count;
};

static inline void item_push(struct item_queue *q, struct item *item)
{
	item->next = NULL;
	if (q->head == NULL)
		q->head = item;
	else
		q->tail->next = item;
	q->tail = item;
	q->count++;
}

static inline struct item *item_pop(struct item_queue *q)
{
	struct item *item = q->head;

	if (item != NULL) {
		q->head = item->next;
		q->count--;
	}
	return item;
}

_Static_assert(sizeof(struct item) <= sizeof((struct store_fence_op *)0)->impl,
	       "room in the operation");

/* From an item to its operation: ITEM_OWNER(item, struct store_write). */
#define ITEM_OWNER(item, type) ((type *)(void *)((char *)(uintptr_t)(item)-offsetof(type, impl)))
#define ITEM_OF(op)	       ((struct item *)(void *)(op)->impl)

/* Completes an operation of the store's user: calls its done, now. Never from inside a submit. */
void item_complete(struct store *store, struct item *item, int status);

/* The same, later in this turn or in the next: from anywhere. */
void item_complete_later(struct store *store, struct item *item, int status);

#endif
