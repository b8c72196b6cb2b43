/* node fetch: the source of a resync. Answers FETCH: what was changed in a chunk above a version,
 * runs with their versions, and their blocks. See run_table.h for the payload.
 *
 *   ask for the changes from `block` on --> read the blocks of as many as fit --> answer
 *
 * INVARIANTS
 *  1. The version of each block is the one that the store read together with its content, not the
 *     one of the list of changes: a block may have been written in between.
 *  2. CRCs are those that were stored with the blocks.
 *
 * Failure modes: a block that does not check on the disk fails the whole answer with E_BAD_CRC: the
 * puller takes another source. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/assert.h"
#include "engine/base/crc32c.h"
#include "engine/node/shard.h"

struct fetch_read {
	struct store_read op;
	struct node_fetch *fetch;
};

struct node_fetch {
	struct node_fetch *next;
	struct node_request *request;
	struct node_shard *shard;
	struct store_changes_op changes_op;
	struct store_change changes[RUN_TABLE_BLOCKS_MAX];
	struct fetch_read reads[RUN_TABLE_BLOCKS_MAX];
	uint32_t read_count;
	uint32_t reading; /* not yet done */
	int status;
	/* Of the place'th block of the payload. */
	block_no_t blocks[RUN_TABLE_BLOCKS_MAX];
	version_t versions[RUN_TABLE_BLOCKS_MAX];
	uint32_t block_count;
	struct node_run runs[RUN_TABLE_RUNS_MAX];
	uint32_t run_count;
	block_no_t go_on; /* UINT32_MAX: that was all */
};

static struct node_fetch *fetch_take(struct node_shard *shard)
{
	struct node_fetch *fetch = shard->free_fetches;

	if (fetch != NULL) {
		shard->free_fetches = fetch->next;
		return fetch;
	}
	if (shard->fetch_count == NODE_FETCHES_MAX)
		return NULL;
	fetch = calloc(1, sizeof(*fetch));
	if (fetch != NULL)
		shard->fetches[shard->fetch_count++] = fetch;
	return fetch;
}

static void fetch_give_back(struct node_shard *shard, struct node_fetch *fetch)
{
	fetch->next = shard->free_fetches;
	shard->free_fetches = fetch;
	if (shard->waiting != NULL)
		node_requests_wake(shard);
}

void node_fetch_free_all(struct node_shard *shard)
{
	for (uint32_t i = 0; i < shard->fetch_count; i++)
		free(shard->fetches[i]);
	shard->fetch_count = 0;
	shard->free_fetches = NULL;
}

static void fetch_finish(struct node_fetch *fetch, int status)
{
	struct node_request *q = fetch->request;

	if (status == 0) {
		fetch->shard->stats.fetches++;
		fetch->shard->stats.fetched_blocks += fetch->block_count;
	}
	fetch_give_back(fetch->shard, fetch);
	node_request_complete(q, status);
}

static bool is_zeroes(const uint8_t *block)
{
	return block[0] == 0 && memcmp(block, block + 1, BLOCK_SIZE - 1) == 0;
}

/* Adds the block to the last run, or begins a new one. */
static void add_to_runs(struct node_fetch *fetch, block_no_t block, version_t version, bool zeroes)
{
	struct node_run *last = &fetch->runs[fetch->run_count];

	if (fetch->run_count > 0) {
		last--;
		if (last->version == version && last->zeroes == zeroes &&
		    last->block + last->block_count == block) {
			last->block_count++;
			return;
		}
		last++;
	}
	*last = (struct node_run){block, 1, version, zeroes};
	fetch->run_count++;
}

/* What is as new as the bound (ask.watermark) reaches the puller by itself. */
static bool is_wanted(const struct node_request *q, version_t version)
{
	return version > q->ask.version && (q->ask.watermark == 0 || version < q->ask.watermark);
}

/* All blocks were read: what is zeroes is left out, what follows moves up, the table is written. */
static void fetch_assemble(struct node_fetch *fetch)
{
	struct node_request *q = fetch->request;
	uint8_t *payload = q->buffer.data;
	uint32_t place = 1;

	fetch->run_count = 0;
	for (uint32_t i = 0; i < fetch->block_count; i++) {
		const uint8_t *data = payload + (size_t)(1 + i) * BLOCK_SIZE;
		const bool zeroes = q->crcs[1 + i] == CRC32C_ZERO_BLOCK && is_zeroes(data);

		/* Gone, or written, since it was listed. */
		if (!is_wanted(q, fetch->versions[i]))
			continue;
		add_to_runs(fetch, fetch->blocks[i], fetch->versions[i], zeroes);
		if (zeroes)
			continue;
		if (place != 1 + i) {
			memcpy(payload + (size_t)place * BLOCK_SIZE, data, BLOCK_SIZE);
			q->crcs[place] = q->crcs[1 + i];
		}
		place++;
	}
	node_run_table_encode(fetch->runs, fetch->run_count, payload);
	q->crcs[0] = crc32c(0, payload, BLOCK_SIZE);
	q->ask.payload_size = place * BLOCK_SIZE;
	q->ask.flags = fetch->go_on != UINT32_MAX ? FRAME_F_MORE : 0;
	q->ask.block = fetch->go_on != UINT32_MAX ? fetch->go_on : 0;
}

static void fetch_read_done(struct store_read *op, int status)
{
	struct node_fetch *fetch = container_of(op, struct fetch_read, op)->fetch;

	if (fetch->status == 0)
		fetch->status = status;
	if (--fetch->reading > 0)
		return;
	if (fetch->status == 0)
		fetch_assemble(fetch);
	fetch_finish(fetch, fetch->status);
}

/* The blocks [block, block + count) get the next places; neighbours share a read. */
static void fetch_add(struct node_fetch *fetch, block_no_t block, uint32_t count)
{
	struct node_request *q = fetch->request;
	struct fetch_read *read = &fetch->reads[fetch->read_count];
	const uint32_t place = fetch->block_count;

	if (fetch->read_count > 0 && read[-1].op.block + read[-1].op.block_count == block) {
		read[-1].op.block_count += count;
	} else {
		read->fetch = fetch;
		read->op = (struct store_read){
		    .done = fetch_read_done,
		    .volume = q->layer,
		    .chunk = q->ask.chunk,
		    .block = block,
		    .block_count = count,
		    .data = q->buffer.data + (size_t)(1 + place) * BLOCK_SIZE,
		    .ret_crcs = &q->crcs[1 + place],
		    .ret_versions = &fetch->versions[place],
		};
		fetch->read_count++;
	}
	for (uint32_t i = 0; i < count; i++)
		fetch->blocks[place + i] = block + i;
	fetch->block_count += count;
}

static void fetch_changes_done(struct store_changes_op *op, int status)
{
	struct node_fetch *fetch = container_of(op, struct node_fetch, changes_op);
	const struct frame *ask = &fetch->request->ask;
	const block_no_t end = ask->block_count != 0 ? ask->block + ask->block_count : UINT32_MAX;

	if (status != 0) {
		fetch_finish(fetch, status);
		return;
	}
	fetch->go_on = op->next < end ? op->next : UINT32_MAX;
	for (uint32_t i = 0; i < op->count && fetch->changes[i].block < end; i++) {
		const struct store_change *c = &fetch->changes[i];
		const uint32_t room = RUN_TABLE_BLOCKS_MAX - fetch->block_count;
		const uint32_t count = MIN(c->block_count, end - c->block);

		if (!is_wanted(fetch->request, c->version))
			continue;
		if (room > 0)
			fetch_add(fetch, c->block, MIN(count, room));
		if (count > room) {
			fetch->go_on = c->block + room;
			break;
		}
	}
	if (fetch->read_count == 0) {
		fetch_assemble(fetch);
		fetch_finish(fetch, 0);
		return;
	}
	fetch->reading = fetch->read_count;
	for (uint32_t i = 0; i < fetch->read_count; i++)
		pool_read(fetch->shard->config.pool, &fetch->reads[i].op);
}

bool node_fetch_begin(struct node_request *q)
{
	struct node_shard *shard = q->session->shard;
	struct node_fetch *fetch = fetch_take(shard);

	if (fetch == NULL)
		return false;
	q->u.fetch = fetch;
	fetch->shard = shard;
	fetch->request = q;
	fetch->status = 0;
	fetch->block_count = 0;
	fetch->read_count = 0;
	fetch->changes_op = (struct store_changes_op){
	    .done = fetch_changes_done,
	    .volume = q->layer,
	    .chunk = q->ask.chunk,
	    .above = q->ask.version,
	    .from = q->ask.block,
	    .changes = fetch->changes,
	    .max = RUN_TABLE_BLOCKS_MAX,
	};
	pool_changes(shard->config.pool, &fetch->changes_op);
	return true;
}
