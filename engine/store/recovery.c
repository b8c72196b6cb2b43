/* recovery: see recovery.h. The steps up to the index are here; recovery_log.c scans and replays.
 */
#include "engine/store/recovery.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/assert.h"
#include "engine/base/log.h"
#include "engine/base/text.h"
#include "engine/store/recovery_log.h"

enum recovery_state {
	RECOVERY_SUPER,
	RECOVERY_HEAL,
	RECOVERY_PROBE,
	RECOVERY_SCAN,
	RECOVERY_LOAD,
	RECOVERY_FLUSH,
	RECOVERY_DONE,
};

struct recovery {
	struct store *store;
	struct store_open_op *open;
	enum recovery_state state;
	struct disk_op op;
	int io_status;
	uint8_t *block;
	uint32_t copy; /* of the superblock, being read */
	struct format_super supers[FORMAT_SUPER_COPIES];
	int super_status[FORMAT_SUPER_COPIES];
	struct format_checkpoint checkpoint;
	bool has_checkpoint;
	uint32_t probe;					/* segment */
	struct format_leaf leaves[FORMAT_CHUNK_LEAVES]; /* of the chunk being loaded */
	struct recovery_log log;
	struct reactor_task finish;
	struct error err;
	uint64_t begun_ns;
};

static void tick(struct recovery *r);

static void io_done(struct disk_op *op, int status)
{
	struct recovery *r = container_of(op, struct recovery, op);

	/* Whatever the disk's error is: to who opens the store that is one. */
	r->io_status = status < 0 ? -EIO : 0;
	tick(r);
}

static void submit(struct recovery *r, enum disk_op_kind kind, uint64_t offset, void *data,
		   size_t size)
{
	r->op.kind = kind;
	r->op.durable = true;
	r->op.offset = offset;
	r->op.size = size;
	r->op.iov[0] = (struct iovec){data, size};
	r->op.iovs = r->op.iov;
	r->op.iov_count = 1;
	r->op.done = io_done;
	disk_submit(r->store->disk, &r->op);
}

static void finish_run(struct reactor_task *task)
{
	struct recovery *r = container_of(task, struct recovery, finish);
	struct store_open_op *op = r->open;
	struct store *store = r->store;
	struct error err = r->err;

	store->recovery = NULL;
	recovery_destroy(r);
	if (err.code != 0) {
		store_abandon(store);
		op->impl = NULL;
		op->done(op, err.code, NULL, &err);
		return;
	}
	store->serving = true;
	index_limit(&store->index);
	checkpoint_want(store);
	upkeep_kick(store);
	bury_kick(store);
	scrub_start(store);
	op->impl = NULL;
	op->done(op, 0, store, NULL);
}

static void finish(struct recovery *r)
{
	r->state = RECOVERY_DONE;
	if (r->err.code != 0)
		error_wrap(&r->err, "device %s", r->store->disk->name);
	reactor_defer(r->store->reactor, &r->finish);
}

void recovery_destroy(struct recovery *r)
{
	if (r == NULL)
		return;
	recovery_log_deinit(&r->log);
	free(r->block);
	free(r);
}

/* -- superblock ------------------------------------------------------------------------------- */

static int choose_super(struct recovery *r)
{
	struct format_super *a = &r->supers[0], *b = &r->supers[1];
	bool a_ok = r->super_status[0] == 0, b_ok = r->super_status[1] == 0;

	if (!a_ok && !b_ok) {
		/* r->err is of the last copy read; what the first one says counts more. */
		int code = r->super_status[0];

		if (code == -EIO || r->super_status[1] == -EIO)
			return error_set(&r->err, -EIO, "the superblocks cannot be read");
		return error_wrap(&r->err, "neither copy of the superblock is valid");
	}
	r->store->super = a_ok && (!b_ok || a->sequence >= b->sequence) ? *a : *b;
	return 0;
}

static int check_super(struct recovery *r)
{
	const struct store_identity *id = &r->store->config.identity;
	const struct format_super *s = &r->store->super;
	char ours[40], theirs[40];
	uint32_t fit = format_segments_fit(r->store->disk->size_bytes, s->segment_bytes);

	if (!uuid_equal(&s->cluster, &id->cluster))
		return error_set(&r->err, -E_WRONG_CLUSTER,
				 "it belongs to cluster %s, this node to %s",
				 text_uuid(&s->cluster, theirs, sizeof theirs),
				 text_uuid(&id->cluster, ours, sizeof ours));
	if (strncmp(s->node, id->node, sizeof s->node) != 0)
		return error_set(&r->err, -E_WRONG_NODE, "it belongs to node %s, this is %s",
				 s->node, id->node);
	if (s->shard_count != id->shard_count || id->shard >= id->shard_count)
		return error_set(&r->err, -EINVAL,
				 "it was formatted for %u shards, not for %u (shard %u)",
				 s->shard_count, id->shard_count, id->shard);
	if (s->segment_count > fit)
		return error_set(&r->err, -E_CORRUPT,
				 "it should have %u segments, but there is room for %u only",
				 s->segment_count, fit);
	if (s->segment_count / s->shard_count < FORMAT_SEGMENTS_MIN)
		return error_set(&r->err, -E_CORRUPT, "it has too few segments: %u",
				 s->segment_count);
	return 0;
}

/* The copy that is damaged or old is written again, by the first shard. True: begun. */
static bool heal_super(struct recovery *r)
{
	const struct format_super *s = &r->store->super;

	for (uint32_t i = 0; i < FORMAT_SUPER_COPIES && r->store->config.identity.shard == 0; i++) {
		if (r->super_status[i] == 0 && r->supers[i].sequence == s->sequence)
			continue;
		log_warn("store", "%s: copy %u of the superblock is written again",
			 r->store->disk->name, i);
		format_super_encode(s, r->block);
		submit(r, DISK_WRITE, format_super_offset(i), r->block, BLOCK_SIZE);
		return true;
	}
	return false;
}

/* -- the index -------------------------------------------------------------------------------- */

static int load_checkpoint(const void *key, size_t key_size, const void *value, size_t value_size,
			   void *arg)
{
	struct recovery *r = arg;

	(void)key;
	(void)key_size;
	r->has_checkpoint = true;
	return format_checkpoint_decode(value, value_size, &r->checkpoint);
}

static int load_segment(const void *key, size_t key_size, const void *value, size_t value_size,
			void *arg)
{
	struct recovery *r = arg;
	struct segments *t = &r->store->segments;
	struct format_segment record;
	struct format_traces traces;
	struct segment *s;
	uint32_t no;

	if (format_key_segment_decode(key, key_size, &no) < 0)
		return -E_CORRUPT;
	if (no == FORMAT_SCRUB_KEY)
		return scrub_load(r->store, value, value_size);
	if (format_segment_decode(value, value_size, &record, &traces) < 0 || no >= t->count ||
	    t->array[no].state == SEGMENT_FOREIGN || record.start_block > t->blocks ||
	    record.used_blocks > t->blocks || record.live > 2 * t->blocks)
		return -E_CORRUPT;
	s = &t->array[no];
	s->record = record;
	s->has_record = record.version == FORMAT_INDEX_VERSION;
	s->live = record.live;
	t->live_blocks += record.live;
	s->epoch = record.epoch;
	s->primed = record.primed != 0;
	s->stream = record.stream;
	s->used = record.used_blocks;
	s->last_seq = record.last_seq;
	s->traces = traces;
	/* What was being written to it is not all known. */
	if (record.state == FORMAT_SEGMENT_RESERVED || record.state == FORMAT_SEGMENT_LOG)
		format_remains_fill(&s->traces.before);
	switch (record.state) {
	case FORMAT_SEGMENT_FREE:
		break;
	case FORMAT_SEGMENT_RESERVED:
		segments_set_state(t, no, SEGMENT_RESERVED);
		return recovery_log_add(&r->log, no, 0);
	case FORMAT_SEGMENT_LOG:
		segments_set_state(t, no, SEGMENT_SEALED);
		return recovery_log_add(&r->log, no, record.start_block);
	default:
		segments_set_state(t, no, SEGMENT_SEALED);
		break;
	}
	return 0;
}

static int load_fence(struct store *store, volume_id_t id, const void *value, size_t value_size)
{
	struct index_volume *volume;
	generation_t generation;
	int rc = format_fence_decode(value, value_size, &generation);

	if (rc == 0)
		rc = index_get_volume(&store->index, id, &volume);
	if (rc < 0)
		return rc;
	volume->fence = generation;
	volume->fence_durable = generation;
	return 0;
}

static int load_replica(const void *key, size_t key_size, const void *value, size_t value_size,
			void *arg)
{
	struct recovery *r = arg;
	struct index *ix = &r->store->index;
	struct format_chunk record;
	struct index_chunk *chunk;
	volume_id_t volume;
	chunk_no_t no;
	int rc;

	if (format_key_chunk_decode(key, key_size, &volume, &no) < 0)
		return -E_CORRUPT;
	if (no == UINT32_MAX)
		return load_fence(r->store, volume, value, value_size);
	rc = format_chunk_decode(value, value_size, &record, r->leaves);
	if (rc == 0)
		rc = index_get_chunk(ix, volume, no, &chunk);
	for (uint32_t i = 0; rc == 0 && i < FORMAT_CHUNK_LEAVES; i++)
		if ((record.leaf_mask >> i & 1) != 0)
			rc = index_set_leaf(ix, chunk, i, &r->leaves[i]);
	if (rc < 0)
		return rc;
	chunk->watermark = record.watermark;
	chunk->newest = record.newest;
	chunk->buried = record.buried;
	if (record.dead) {
		index_kill_chunk(ix, chunk);
		index_clean_chunk(ix, chunk);
	}
	return 0;
}

/* Of an index of version 1, whose segments and chunks do not say what the pages are: counted once,
 * from now on it is written. */
static int count_page(const void *key, size_t key_size, const void *value, size_t value_size,
		      void *arg)
{
	struct recovery *r = arg;
	struct segments *t = &r->store->segments;
	struct format_slot slots[PAGE_BLOCKS];
	struct format_leaf leaf = {0};
	struct index_chunk *chunk;
	volume_id_t volume;
	chunk_no_t no;
	page_no_t page;
	int rc;

	if (format_key_page_decode(key, key_size, &volume, &no, &page) < 0 ||
	    format_page_decode(value, value_size, slots) < 0)
		return -E_CORRUPT;
	leaf.exists[page % FORMAT_LEAF_PAGES / 64] = 1ull << page % 64;
	rc = index_get_chunk(&r->store->index, volume, no, &chunk);
	if (rc == 0)
		rc = index_set_leaf(&r->store->index, chunk, page / FORMAT_LEAF_PAGES, &leaf);
	if (rc < 0)
		return rc;
	index_dirty_chunk(&r->store->index, chunk);
	for (uint32_t i = 0; i < PAGE_BLOCKS; i++) {
		uint32_t segment;

		chunk->newest = MAX(chunk->newest, slots[i].version);
		if (!format_slot_has_data(&slots[i]))
			continue;
		segment = segments_of(t, slots[i].location);
		if (segment >= t->count || t->array[segment].state == SEGMENT_FOREIGN ||
		    t->array[segment].state == SEGMENT_FREE || t->array[segment].live == t->blocks)
			return -E_CORRUPT;
		segments_ref(t, slots[i].location);
	}
	return 0;
}

static int check_checkpoint(struct recovery *r)
{
	const struct format_checkpoint *c = &r->checkpoint;
	const struct format_super *s = &r->store->super;
	char ours[40], theirs[40];

	if (!r->has_checkpoint)
		return 0;
	if (!uuid_equal(&c->device, &s->device))
		return error_set(&r->err, -E_CORRUPT,
				 "the index belongs to device %s, and this is device %s",
				 text_uuid(&c->device, theirs, sizeof theirs),
				 text_uuid(&s->device, ours, sizeof ours));
	if (c->shard != r->store->config.identity.shard || c->shard_count != s->shard_count ||
	    c->segment_bytes != s->segment_bytes || c->segment_count != s->segment_count)
		return error_set(&r->err, -E_CORRUPT,
				 "the index doesn't fit the device's superblock");
	return 0;
}

static int load_index(struct recovery *r)
{
	static const struct {
		enum store_family family;
		int (*each)(const void *key, size_t key_size, const void *value, size_t value_size,
			    void *arg);
	} loads[] = {
	    {STORE_KV_NODE, load_checkpoint},
	    {STORE_KV_SEGMENTS, load_segment},
	    {STORE_KV_REPLICAS, load_replica},
	    {STORE_KV_PAGES, count_page}, /* version 1 only */
	};
	struct store *store = r->store;
	uint8_t prefix[FORMAT_KEY_MAX];
	size_t prefix_size = format_key_node(store->prefix, prefix);

	for (uint32_t i = 0; i < ARRAY_SIZE(loads); i++) {
		int rc = 0;

		if (loads[i].family != STORE_KV_PAGES || r->checkpoint.version == 1)
			rc = kv_scan(store->kv, loads[i].family, prefix, prefix_size, loads[i].each,
				     r);

		if (rc < 0)
			return error_set(&r->err, rc, "the index (%s) cannot be read: %s",
					 store_kv_family_names[loads[i].family], err_text(rc));
		rc = i == 0 ? check_checkpoint(r) : 0;
		if (rc < 0)
			return rc;
	}
	if (!r->has_checkpoint && (store->index.chunk_count > 0 || r->log.segment_count > 0))
		return error_set(&r->err, -E_CORRUPT, "the index has no checkpoint record");
	store->checkpoint.number = r->checkpoint.number;
	store->wlog.next_seq = MAX(1u, r->checkpoint.next_seq);
	return 0;
}

/* -- the parts that need to know the device --------------------------------------------------- */

static int init_parts(struct recovery *r)
{
	struct store *store = r->store;
	uint64_t blocks;
	int rc;

	rc = segments_init(&store->segments, &store->super, store->config.identity.shard);
	if (rc == 0) {
		blocks = (uint64_t)store->segments.own_count * store->segments.blocks;
		rc = index_init(&store->index, (uint32_t)blocks,
				store->config.cache_bytes > 0 ? store->config.cache_bytes
							      : STORE_CACHE_BYTES,
				&store->checkpoint.collector);
	}
	if (rc == 0)
		rc = lookups_init(store);
	if (rc == 0)
		rc = wlog_init(store, store->config.groups_in_flight,
			       store->config.group_fill_blocks);
	if (rc == 0)
		rc = reader_init(store);
	if (rc == 0)
		rc = cleaner_init(store);
	if (rc == 0)
		rc = tidy_init(store);
	if (rc == 0)
		rc = upkeep_init(store);
	if (rc == 0)
		rc = wipe_init(store);
	if (rc == 0)
		rc = scrub_init(store);
	if (rc == 0)
		rc = checkpoint_init(store, store->config.checkpoint_bytes);
	if (rc == 0)
		rc = recovery_log_init(&r->log, store);
	if (rc < 0)
		return error_set(&r->err, rc, "there is not enough memory for the store");
	bury_init(store);
	space_init(store, store->config.reserve_percent);
	return 0;
}

static void account(struct recovery *r)
{
	struct store *store = r->store;
	struct store_stats *stats = &store->stats;

	stats->recovered_groups = r->log.accepted;
	stats->recovered_bytes = r->log.accepted_bytes;
	stats->recovery_ms = (reactor_now_ns(store->reactor) - r->begun_ns) / NS_PER_MS;
	log_info("store",
		 "%s: %llu groups, %llu bytes of log recovered in %llu ms; %llu live blocks, %llu "
		 "pages of the index read",
		 store->disk->name, (unsigned long long)stats->recovered_groups,
		 (unsigned long long)stats->recovered_bytes, (unsigned long long)stats->recovery_ms,
		 (unsigned long long)store->segments.live_blocks,
		 (unsigned long long)stats->index_reads);
}

/* -- steps ------------------------------------------------------------------------------------ */

static void read_super(struct recovery *r)
{
	submit(r, DISK_READ, format_super_offset(r->copy), r->block, BLOCK_SIZE);
}

static void begin_scan(struct recovery *r)
{
	r->state = RECOVERY_SCAN;
	recovery_log_start(&r->log, r->checkpoint.last_seq);
	tick(r);
}

static void begin_log(struct recovery *r)
{
	if (init_parts(r) < 0 || load_index(r) < 0) {
		finish(r);
		return;
	}
	if (r->has_checkpoint) {
		begin_scan(r);
		return;
	}
	/* An index that was lost must not be taken for that of a new device. */
	r->state = RECOVERY_PROBE;
	r->probe = r->store->segments.shard;
	submit(r, DISK_READ,
	       (uint64_t)segments_first_block(&r->store->segments, r->probe) * BLOCK_SIZE, r->block,
	       BLOCK_SIZE);
}

static void super_read(struct recovery *r)
{
	struct error err = {0};

	if (r->io_status == 0)
		r->super_status[r->copy] = format_super_decode(r->block, &r->supers[r->copy], &err);
	else
		r->super_status[r->copy] = r->io_status;
	/* The story of the first copy is kept, unless it is missing and the second is only damaged.
	 */
	if (err.code != 0 && (r->err.code == 0 || r->err.code == -ENOENT))
		r->err = err;
	if (++r->copy < FORMAT_SUPER_COPIES) {
		read_super(r);
		return;
	}
	if (r->super_status[0] == 0 || r->super_status[1] == 0)
		r->err = (struct error){0};
	if (choose_super(r) < 0 || check_super(r) < 0) {
		if (r->err.code == -ENOENT)
			r->err.code = -E_CORRUPT;
		finish(r);
		return;
	}
	r->state = RECOVERY_HEAL;
	if (!heal_super(r))
		begin_log(r);
}

static void super_healed(struct recovery *r)
{
	if (r->io_status < 0) {
		error_set(&r->err, r->io_status, "the superblock cannot be written");
		finish(r);
		return;
	}
	begin_log(r);
}

static void probed(struct recovery *r)
{
	const struct store *store = r->store;
	struct format_group g;

	if (r->io_status < 0) {
		error_set(&r->err, r->io_status, "segment %u cannot be read", r->probe);
		finish(r);
		return;
	}
	if (format_group_decode(r->block, BLOCK_SIZE, &g) == 0 &&
	    uuid_equal(&g.device, &store->super.device) && g.segment == r->probe) {
		error_set(&r->err, -E_CORRUPT,
			  "it holds data, but its index is empty: was the index's directory lost?");
		finish(r);
		return;
	}
	r->probe += store->segments.shard_count;
	if (r->probe >= store->segments.count) {
		begin_scan(r);
		return;
	}
	submit(r, DISK_READ,
	       (uint64_t)segments_first_block(&store->segments, r->probe) * BLOCK_SIZE, r->block,
	       BLOCK_SIZE);
}

static void loaded(struct recovery *r)
{
	if (recovery_log_replay(&r->log, &r->err) < 0) {
		finish(r);
		return;
	}
	account(r);
	r->state = RECOVERY_FLUSH;
	submit(r, DISK_FLUSH, 0, NULL, 0);
}

void recovery_pages_read(struct store *store)
{
	INVARIANT(store->recovery->state == RECOVERY_LOAD);
	loaded(store->recovery);
}

static void scanned(struct recovery *r)
{
	struct recovery_io io;
	int rc = recovery_log_step(&r->log, r->io_status, &io, &r->err);

	if (rc > 0) {
		submit(r, DISK_READ, io.offset, io.data, io.size);
		return;
	}
	if (rc < 0 || recovery_log_accept(&r->log, &r->err) < 0) {
		finish(r);
		return;
	}
	r->state = RECOVERY_LOAD;
	if (recovery_log_load(&r->log) < 0 || r->store->lookups.in_flight == 0)
		loaded(r);
}

static void flushed(struct recovery *r)
{
	if (r->io_status < 0)
		error_set(&r->err, r->io_status, "it cannot be flushed");
	finish(r);
}

static void tick(struct recovery *r)
{
	switch (r->state) {
	case RECOVERY_SUPER:
		super_read(r);
		return;
	case RECOVERY_HEAL:
		super_healed(r);
		return;
	case RECOVERY_PROBE:
		probed(r);
		return;
	case RECOVERY_SCAN:
		scanned(r);
		return;
	case RECOVERY_FLUSH:
		flushed(r);
		return;
	case RECOVERY_LOAD: /* goes on in recovery_pages_read */
	case RECOVERY_DONE:
		break;
	}
	INVARIANT(false);
}

int recovery_start(struct store *store, struct store_open_op *op)
{
	struct recovery *r = calloc(1, sizeof *r);

	if (r == NULL)
		return -ENOMEM;
	r->store = store;
	r->open = op;
	r->finish.run = finish_run;
	r->begun_ns = reactor_now_ns(store->reactor);
	store->recovery = r;
	r->block = aligned_alloc(BLOCK_SIZE, BLOCK_SIZE);
	if (r->block == NULL) {
		error_set(&r->err, -ENOMEM, "there is no memory");
		finish(r);
		return 0;
	}
	read_super(r);
	return 0;
}
