/* reader: see reader.h. */
#include "engine/store/reader.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/assert.h"
#include "engine/base/crc32c.h"
#include "engine/base/log.h"
#include "engine/store/core.h"

/* In a read's impl is an item_op. item.cursor is the next block to be read, item.parts the runs in
 * flight; item.gathered: it stands among the waiting. The pages are held until all runs are
 * submitted. */

int reader_init(struct store *store)
{
	struct reader *r = &store->reader;

	r->runs = calloc(READER_RUNS_MAX, sizeof *r->runs);
	if (r->runs == NULL)
		return -ENOMEM;
	for (uint32_t i = 0; i < READER_RUNS_MAX; i++) {
		r->runs[i].store = store;
		r->runs[i].next_free = r->free;
		r->free = &r->runs[i];
	}
	return 0;
}

void reader_deinit(struct store *store)
{
	free(store->reader.runs);
	store->reader.runs = NULL;
}

static void fill_slot(struct store_read *op, uint32_t i, const struct format_slot *slot)
{
	op->ret_crcs[i] = slot->version != 0 ? slot->crc : CRC32C_ZERO_BLOCK;
	if (op->ret_versions != NULL)
		op->ret_versions[i] = slot->version;
}

static uint8_t *block_memory(const struct store_read *op, uint32_t i)
{
	return (uint8_t *)op->data + (size_t)i * BLOCK_SIZE;
}

static void unpin(struct store *store, uint32_t no)
{
	struct segment *s = &store->segments.array[no];

	INVARIANT(s->pins > 0);
	if (--s->pins == 0 && s->state == SEGMENT_RESERVED)
		wlog_kick(store);
}

static void bad_block(struct store *store, struct store_read *op, uint32_t i, uint32_t location)
{
	struct item *item = ITEM_OF(op);

	if (item->status == 0 || (item->status == -E_BAD_CRC && i < op->bad_block)) {
		item->status = -E_BAD_CRC;
		op->bad_block = i;
	}
	store->stats.bad_blocks++;
	log_warn("store", "%s: block %u of chunk %u of volume %llu does not check",
		 store->disk->name, op->block + i, op->chunk, (unsigned long long)op->volume);
	scrub_note_damage(store, op->volume, op->chunk, op->block + i, location);
}

static void read_advance(struct store *store, struct store_read *op);

static void run_done(struct disk_op *disk_op, int status)
{
	struct reader_run *run = container_of(disk_op, struct reader_run, op);
	struct store *store = run->store;
	struct store_read *op = run->read;
	struct item *item = ITEM_OF(op);
	uint32_t location = (uint32_t)(disk_op->offset / BLOCK_SIZE);

	unpin(store, run->segment);
	if (status < 0)
		item->status = status;
	for (uint32_t i = run->first; status == 0 && i < run->first + run->count; i++)
		if (crc32c(0, block_memory(op, i), BLOCK_SIZE) != op->ret_crcs[i])
			bad_block(store, op, i, location + i - run->first);
	run->next_free = store->reader.free;
	store->reader.free = run;
	item->parts--;
	read_advance(store, op);
	while (store->reader.waiting.head != NULL && store->reader.free != NULL) {
		item = item_pop(&store->reader.waiting);
		item->gathered = false;
		read_advance(store, ITEM_OWNER(item, struct store_read));
	}
	store_close_tick(store);
}

/* Submits the run that begins at block `first` of the read, in slot. Returns how long it is. */
static uint32_t run_submit(struct store *store, struct store_read *op, uint32_t first,
			   struct format_slot slot)
{
	const struct lookup *l = &item_op_of(ITEM_OF(op))->lookup;
	struct reader_run *run = store->reader.free;
	uint32_t location = slot.location;
	uint32_t count = 0;

	store->reader.free = run->next_free;
	do {
		fill_slot(op, first + count, &slot);
		count++;
		if (first + count == op->block_count)
			break;
		slot = lookup_slot(store, l, op->block + first + count);
	} while (slot.location == location + count);
	run->read = op;
	run->first = first;
	run->count = count;
	run->segment = segments_of(&store->segments, location);
	store->segments.array[run->segment].pins++;
	run->op.kind = DISK_READ;
	run->op.offset = (uint64_t)location * BLOCK_SIZE;
	run->op.size = (uint64_t)count * BLOCK_SIZE;
	run->op.iov[0] = (struct iovec){block_memory(op, first), (size_t)run->op.size};
	run->op.iovs = run->op.iov;
	run->op.iov_count = 1;
	run->op.done = run_done;
	ITEM_OF(op)->parts++;
	disk_submit(store->disk, &run->op);
	return count;
}

/* From a completion or from the finish task: here the read may be completed at once. */
static void read_advance(struct store *store, struct store_read *op)
{
	struct item *item = ITEM_OF(op);
	struct lookup *l = &item_op_of(item)->lookup;

	if (item->gathered)
		return; /* it goes on when it has come to the head of the waiting */
	while (item->cursor < op->block_count && item->status == 0) {
		struct format_slot slot = lookup_slot(store, l, op->block + item->cursor);

		if (!format_slot_has_data(&slot)) {
			memset(block_memory(op, item->cursor), 0, BLOCK_SIZE);
			fill_slot(op, item->cursor, &slot);
			item->cursor++;
			continue;
		}
		if (item->parts == READER_RUNS_PER_READ)
			return;
		if (store->reader.free == NULL) {
			item->gathered = true;
			item_push(&store->reader.waiting, item);
			return;
		}
		item->cursor += run_submit(store, op, item->cursor, slot);
	}
	if (item->held)
		lookup_end(store, l);
	item->held = false;
	if (item->parts > 0)
		return;
	item_complete(store, item, item->status);
}

static void looked_up(struct lookup *lookup, int status)
{
	struct item_op *item_op = container_of(lookup, struct item_op, lookup);
	struct item *item = &item_op->item;

	item->held = status == 0;
	item->status = status;
	read_advance(item_op->store, ITEM_OWNER(item, struct store_read));
}

void reader_submit(struct store *store, struct store_read *op)
{
	struct item *item = ITEM_OF(op);
	struct lookup *l = &item_op_of(item)->lookup;
	int rc;

	*item_op_of(item) =
	    (struct item_op){.item = {.kind = ITEM_READ, .client = item->client}, .store = store};
	op->bad_block = 0;
	*l = (struct lookup){.done = looked_up,
			     .volume = op->volume,
			     .chunk = op->chunk,
			     .block = op->block,
			     .block_count = op->block_count};
	rc = lookup_begin(store, l);
	if (rc > 0)
		return;
	item->held = rc == 0;
	item->status = rc;
	/* Held by one part, so that it can not complete before submit returns. */
	item->parts = 1;
	read_advance(store, op);
	item->parts--;
	if (item->parts == 0 && !item->gathered)
		item_complete_later(store, item, item->status);
}
