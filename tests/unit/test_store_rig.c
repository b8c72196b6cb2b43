/* test_store_rig: see test_store_rig.h. */
#include "test_store_rig.h"

#include <errno.h>
#include <malloc.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/crc32c.h"
#include "engine/base/log.h"

/* Each ck_assert is a system call: where there are many they are only made to fail. */
#define CHECK(cond, ...)                                                                           \
	do {                                                                                       \
		if (!(cond))                                                                       \
			ck_abort_msg(__VA_ARGS__);                                                 \
	} while (0)

uint32_t rig_devices;

/* -- a machine -------------------------------------------------------------------------------- */

static void no_log(enum log_level level, const char *line)
{
	(void)level;
	(void)line;
}

void rig_init(struct rig *rig, uint64_t seed, uint32_t disk_mib)
{
	log_set_sink(no_log);
	/* Worlds come and go by the thousand: their memory stays in the process. */
	mallopt(M_MMAP_THRESHOLD, 256 << 20);
	mallopt(M_TRIM_THRESHOLD, 256 << 20);
	*rig = (struct rig){.segment_bytes = 1u << 20};
	rig->world = sim_world_create(seed);
	rig->world->trace_off = true;
	rig->process = sim_process_create(rig->world, "n1");
	rig->sim_disk = sim_disk_create(rig->process, "n1.disk", (uint64_t)disk_mib << 20, true);
	rig->sim_kv = sim_kv_create(rig->process, "n1.kv", STORE_KV_FAMILIES);
	rig->devices = rig_devices;
	rig->disks[0] = rig->sim_disk;
	for (uint32_t i = 1; i < RIG_DISKS_MAX && rig->devices > 0; i++)
		rig->disks[i] =
		    sim_disk_create(rig->process, rig_disk_path(i), (uint64_t)disk_mib << 20, true);
	rig->config.group_fill_blocks = 1; /* they overlap as much as they can */
	rig->config.identity = (struct store_identity){.node = "n1", .shard_count = 1};
	rig->config.cache_bytes = MIB;
	rig->config.identity.cluster.bytes[0] = 0xc1;
	rig->model.tries = calloc(RIG_TRIES_MAX, sizeof *rig->model.tries);
	rig->model.generation = 1;
	rig->ops = calloc(RIG_DEPTH_MAX, sizeof *rig->ops);
	for (uint32_t i = 0; i < RIG_DEPTH_MAX; i++) {
		rig->ops[i].rig = rig;
		rig->ops[i].data = aligned_alloc(BLOCK_SIZE, IO_SIZE_MAX);
		ck_assert_ptr_nonnull(rig->ops[i].data);
	}
}

void rig_deinit(struct rig *rig)
{
	if (rig->store != NULL || rig->pool != NULL)
		rig_crash(rig, SIM_KILL);
	sim_world_destroy(rig->world);
	for (uint32_t i = 0; i < rig->boots; i++)
		free(rig->fault_disks[i]); /* the disk below went with its process */
	for (uint32_t i = 0; i < RIG_DEPTH_MAX; i++)
		free(rig->ops[i].data);
	free(rig->ops);
	free(rig->model.tries);
}

static struct disk *over(struct rig *rig, struct disk *disk, struct disk_fault_plan *plan)
{
	CHECK(rig->boots < RIG_BOOTS_MAX, "too many boots");
	CHECK(disk_fault_open(disk, plan, &disk) == 0, "no memory");
	rig->fault_disks[rig->boots++] = disk;
	return disk;
}

void rig_boot(struct rig *rig)
{
	if (rig->process->alive)
		return;
	sim_process_start(rig->process);
	rig->config.reactor = sim_reactor(rig->process);
	if (rig->devices == 0) {
		rig->config.disk = sim_disk_open(rig->sim_disk);
		rig->config.disk->needs_priming = rig->primes;
	}
	if (rig->faults != NULL)
		rig->config.disk = over(rig, rig->config.disk, rig->faults);
	rig->config.kv = sim_kv_open(rig->sim_kv);
}

struct formatting {
	struct store_format_op op;
	struct rig *rig;
	bool done;
	int status;
};

static void format_done(struct store_format_op *op, int status, const struct error *err)
{
	struct formatting *f = container_of(op, struct formatting, op);

	f->done = true;
	f->status = status;
	f->rig->err = err != NULL ? *err : (struct error){0};
}

int rig_format(struct rig *rig, bool force)
{
	struct formatting *f;
	int status;

	if (rig->devices > 0)
		return 0; /* the pool does it */
	f = calloc(1, sizeof *f);
	rig_boot(rig);
	f->rig = rig;
	f->op.done = format_done;
	f->op.disk = rig->config.disk;
	f->op.identity = rig->config.identity;
	f->op.segment_bytes = rig->segment_bytes;
	f->op.force = force;
	store_format(&f->op);
	CHECK(!f->done, "done inside the call");
	if (!sim_run_flag(rig->world, &f->done)) {
		CHECK(!rig->process->alive, "formatting hangs");
		return -E_DISCONNECTED; /* f is the dead process's */
	}
	status = f->status;
	free(f);
	return status;
}

struct opening {
	struct store_open_op op;
	struct rig *rig;
	bool done;
	int status;
	struct store *store;
};

static void open_done(struct store_open_op *op, int status, struct store *store,
		      const struct error *err)
{
	struct opening *o = container_of(op, struct opening, op);

	o->done = true;
	o->status = status;
	o->store = store;
	o->rig->err = err != NULL ? *err : (struct error){0};
}

const char *rig_disk_path(uint32_t i)
{
	static const char *const paths[RIG_DISKS_MAX] = {"disk0", "disk1", "disk2", "disk3"};

	return paths[i];
}

struct disk *rig_disk(struct rig *rig, uint32_t i)
{
	struct disk *disk = sim_disk_open(rig->disks[i]);

	return rig->disk_faults[i] == NULL ? disk : over(rig, disk, rig->disk_faults[i]);
}

struct pool_opening {
	struct pool_open_op op;
	struct rig *rig;
	bool done;
	int status;
	struct pool *pool;
};

static void pool_opened(struct pool_open_op *op, int status, struct pool *pool,
			const struct error *err)
{
	struct pool_opening *o = container_of(op, struct pool_opening, op);

	o->done = true;
	o->status = status;
	o->pool = pool;
	o->rig->err = err != NULL ? *err : (struct error){0};
}

/* The devices that it had at first, and those that the index knows besides, as a node does. */
static void add_disks(struct rig *rig, struct pool_open_op *op)
{
	struct pool_known known[POOL_DEVICES_MAX];
	int count = pool_list_known(op->config.kv, known, POOL_DEVICES_MAX);

	CHECK(count >= 0, "the list of devices cannot be read");
	for (uint32_t i = 0; i < RIG_DISKS_MAX; i++) {
		bool wanted = i < rig->devices;

		for (int k = 0; k < count; k++)
			wanted = wanted || (!known[k].retired &&
					    strcmp(known[k].path, rig_disk_path(i)) == 0);
		if (wanted)
			op->disks[op->disk_count++] =
			    (struct pool_disk){.disk = rig_disk(rig, i), .path = rig_disk_path(i)};
	}
}

static int open_pool(struct rig *rig)
{
	struct pool_opening o = {.rig = rig, .op.done = pool_opened};

	rig_boot(rig);
	o.op.config = (struct pool_config){.reactor = rig->config.reactor,
					   .kv = rig->config.kv,
					   .identity = rig->config.identity,
					   .checkpoint_bytes = rig->config.checkpoint_bytes,
					   .cache_bytes = rig->config.cache_bytes,
					   .segment_bytes = rig->segment_bytes};
	add_disks(rig, &o.op);
	pool_open(&o.op);
	CHECK(!o.done, "done inside the call");
	if (!sim_run_flag(rig->world, &o.done)) {
		ck_assert_msg(!rig->process->alive, "opening hangs");
		pool_abandon(o.op.impl);
		return -E_DISCONNECTED;
	}
	rig->pool = o.pool;
	if (!rig->process->alive) {
		rig_crashed(rig);
		return -E_DISCONNECTED;
	}
	return o.status;
}

int rig_open(struct rig *rig)
{
	struct opening o = {.rig = rig};

	if (rig->devices > 0)
		return open_pool(rig);
	rig_boot(rig);
	o.op.done = open_done;
	o.op.config = rig->config;
	store_open(&o.op);
	CHECK(!o.done, "done inside the call");
	if (!sim_run_flag(rig->world, &o.done)) {
		ck_assert_msg(!rig->process->alive, "opening hangs");
		store_abandon(o.op.impl);
		return -E_DISCONNECTED;
	}
	rig->store = o.store;
	if (!rig->process->alive) {
		/* Opened, and crashed later in the same turn. */
		rig_crashed(rig);
		return -E_DISCONNECTED;
	}
	return o.status;
}

void rig_must_open(struct rig *rig)
{
	int rc = rig_open(rig);

	ck_assert_msg(rc == 0, "open: %d %s", rc, rig->err.text);
}

static void set_flag(void *arg)
{
	*(bool *)arg = true;
}

void rig_close(struct rig *rig)
{
	bool closed = false;

	if (rig->pool != NULL)
		pool_close(rig->pool, set_flag, &closed);
	else
		store_close(rig->store, set_flag, &closed);
	ck_assert(!closed);
	ck_assert(sim_run_flag(rig->world, &closed));
	rig->store = NULL;
	rig->pool = NULL;
	/* A node's devices come and go; its reactor stays. */
	CHECK(rig->process->memory == NULL, "what was closed has kept memory of the reactor's");
	sim_process_crash(rig->process, SIM_KILL);
}

void rig_crashed(struct rig *rig)
{
	store_abandon(rig->store);
	pool_abandon(rig->pool);
	rig->store = NULL;
	rig->pool = NULL;
	for (uint32_t i = 0; i < RIG_DEPTH_MAX; i++)
		rig->ops[i].busy = false;
	rig->in_flight = 0;
}

void rig_crash(struct rig *rig, enum sim_crash how)
{
	if (rig->process->alive)
		sim_process_crash(rig->process, how);
	rig_crashed(rig);
}

/* -- operations ------------------------------------------------------------------------------- */

void rig_content(uint64_t seq, block_no_t block, uint8_t *data)
{
	uint64_t x = seq * 0x9e3779b97f4a7c15ull ^ (uint64_t)block << 32;

	for (uint32_t i = 0; i < BLOCK_SIZE / 8; i++) {
		uint64_t word = x + i * 0x2545f4914f6cdd1dull;

		memcpy(data + i * 8, &word, 8);
	}
}

volume_id_t rig_volume_id(uint32_t volume)
{
	return 1000 + volume * 7;
}

static struct rig_op *op_take(struct rig *rig, enum rig_kind kind, uint32_t volume, uint32_t chunk)
{
	for (uint32_t i = 0; i < RIG_DEPTH_MAX && rig->process->alive; i++) {
		struct rig_op *op = &rig->ops[i];

		if (op->busy)
			continue;
		op->busy = true;
		op->done = false;
		op->kind = kind;
		op->volume = volume;
		op->chunk = chunk;
		rig->in_flight++;
		return op;
	}
	return NULL;
}

static void op_ended(struct rig_op *op, int status)
{
	CHECK(op->busy && !op->done, "done twice");
	op->done = true;
	op->busy = false;
	op->status = status;
	op->rig->in_flight--;
}

static void write_done(struct store_write *write, int status)
{
	struct rig_op *op = container_of(write, struct rig_op, write);
	struct rig *rig = op->rig;
	struct rig_chunk *chunk = &rig->model.chunks[op->volume][op->chunk];

	op_ended(op, status);
	if (status == -ENOSPC)
		rig->refused++;
	if (status != 0 || op->seq < chunk->erased_before)
		return;
	for (uint32_t i = 0; i < write->block_count; i++) {
		version_t *acked = &chunk->acked[write->block + i];

		*acked = MAX(*acked, write->version);
	}
	chunk->watermark_acked = MAX(chunk->watermark_acked, write->watermark);
}

enum rig_origin { RIG_CLIENT, RIG_RESYNC, RIG_SETTLES };

/* Submits it; every other small one as a node does, whose transport takes back what it lends. */
static void hand_over(struct rig *rig, struct store_write *write, bool lends)
{
	static uint8_t lent[STORE_COPY_MAX + 8];
	const size_t size = (size_t)write->block_count * BLOCK_SIZE;

	lends = lends && write->kind == STORE_DATA && size <= STORE_COPY_MAX;
	if (lends) {
		write->copy = (void *)(uintptr_t)write->data;
		write->data = memcpy(lent + 8, write->data, size);
		memset(write->copy, 0xc0, size);
	}
	if (rig->pool != NULL)
		pool_write(rig->pool, write);
	else
		store_write(rig->store, write);
	if (lends) {
		store_write_keep(write, lent + 8);
		memset(lent, 0x1e, sizeof lent);
	}
}

static struct rig_op *submit_write(struct rig *rig, struct rig_op *op, const struct rig_try *t,
				   uint64_t seq, enum rig_origin origin, version_t watermark)
{
	op->seq = seq;
	op->write = (struct store_write){
	    .done = write_done,
	    .kind = t->kind,
	    .volume = rig_volume_id(t->volume),
	    .chunk = t->chunk,
	    .block = t->block,
	    .block_count = t->block_count,
	    .version = t->version,
	    .watermark = watermark,
	    .crcs = op->crcs,
	    .data = op->data,
	    .resync = origin == RIG_RESYNC,
	    .settles = origin == RIG_SETTLES,
	};
	if (t->kind == STORE_DATA) {
		for (uint32_t i = 0; i < t->block_count; i++)
			rig_content(seq, t->block + i, op->data + (size_t)i * BLOCK_SIZE);
		crc32c_blocks(op->data, t->block_count, op->crcs);
	}
	hand_over(rig, &op->write, seq % 2 == 1);
	CHECK(!op->done, "done inside the call");
	return op;
}

static struct rig_op *new_write(struct rig *rig, enum store_write_kind kind, uint32_t volume,
				uint32_t chunk, block_no_t block, uint32_t block_count,
				enum rig_origin origin)
{
	struct rig_op *op = op_take(rig, RIG_WRITE, volume, chunk);
	struct rig_model *m = &rig->model;
	uint64_t seq = m->try_count + 1;

	if (op == NULL)
		return NULL;
	CHECK(seq < RIG_TRIES_MAX && block + block_count <= RIG_BLOCKS, "a mistake of the test");
	m->try_count++;
	m->tries[seq] = (struct rig_try){.kind = kind,
					 .version = version_make(m->generation, seq),
					 .volume = volume,
					 .chunk = chunk,
					 .block = block,
					 .block_count = block_count};
	return submit_write(rig, op, &m->tries[seq], seq, origin, 0);
}

struct rig_op *rig_write(struct rig *rig, enum store_write_kind kind, uint32_t volume,
			 uint32_t chunk, block_no_t block, uint32_t block_count)
{
	return new_write(rig, kind, volume, chunk, block, block_count, RIG_CLIENT);
}

struct rig_op *rig_resync(struct rig *rig, uint32_t volume, uint32_t chunk, block_no_t block,
			  uint32_t block_count)
{
	return new_write(rig, STORE_DATA, volume, chunk, block, block_count, RIG_RESYNC);
}

struct rig_op *rig_settle(struct rig *rig, uint32_t volume, uint32_t chunk, block_no_t block,
			  uint32_t block_count)
{
	return new_write(rig, STORE_DATA, volume, chunk, block, block_count, RIG_SETTLES);
}

struct rig_op *rig_repeat(struct rig *rig, uint64_t seq, bool resync)
{
	const struct rig_try *t = &rig->model.tries[seq];
	struct rig_op *op = op_take(rig, RIG_WRITE, t->volume, t->chunk);

	return op != NULL ? submit_write(rig, op, t, seq, resync ? RIG_RESYNC : RIG_CLIENT, 0)
			  : NULL;
}

static void far_done(struct store_write *write, int status)
{
	op_ended(container_of(write, struct rig_op, write), status);
}

struct rig_op *rig_discard_far(struct rig *rig, chunk_no_t chunk, block_no_t block,
			       uint32_t block_count)
{
	struct rig_op *op = op_take(rig, RIG_WRITE, 0, 0);

	if (op == NULL)
		return NULL;
	op->write = (struct store_write){
	    .done = far_done,
	    .kind = STORE_DISCARD,
	    .volume = 77,
	    .chunk = chunk,
	    .block = block,
	    .block_count = block_count,
	    .version = version_make(1, 1),
	};
	hand_over(rig, &op->write, false);
	return op;
}

static void fence_done(struct store_fence_op *fence, int status)
{
	struct rig_op *op = container_of(fence, struct rig_op, fence);
	generation_t *acked = &op->rig->model.fence_acked[op->volume];

	op_ended(op, status);
	if (status == 0)
		*acked = MAX(*acked, fence->generation);
}

struct rig_op *rig_fence(struct rig *rig, uint32_t volume, generation_t generation)
{
	struct rig_op *op = op_take(rig, RIG_FENCE, volume, 0);
	generation_t *tried = &rig->model.fence_tried[volume];

	if (op == NULL)
		return NULL;
	*tried = MAX(*tried, generation);
	rig->model.generation = MAX(rig->model.generation, generation);
	op->fence = (struct store_fence_op){
	    .done = fence_done, .volume = rig_volume_id(volume), .generation = generation};
	if (rig->pool != NULL)
		pool_fence(rig->pool, &op->fence);
	else
		store_fence(rig->store, &op->fence);
	CHECK(!op->done, "done inside the call");
	return op;
}

static void watermark_done(struct store_watermark_op *watermark, int status)
{
	struct rig_op *op = container_of(watermark, struct rig_op, watermark);
	struct rig_chunk *chunk = &op->rig->model.chunks[op->volume][op->chunk];

	op_ended(op, status);
	if (status == 0)
		chunk->watermark_acked = MAX(chunk->watermark_acked, watermark->watermark);
}

struct rig_op *rig_watermark(struct rig *rig, uint32_t volume, uint32_t chunk, version_t watermark)
{
	struct rig_op *op = op_take(rig, RIG_WATERMARK, volume, chunk);
	version_t *tried = &rig->model.chunks[volume][chunk].watermark_tried;

	if (op == NULL)
		return NULL;
	*tried = MAX(*tried, watermark);
	op->watermark = (struct store_watermark_op){.done = watermark_done,
						    .volume = rig_volume_id(volume),
						    .chunk = chunk,
						    .watermark = watermark};
	if (rig->pool != NULL)
		pool_watermark(rig->pool, &op->watermark);
	else
		store_watermark(rig->store, &op->watermark);
	CHECK(!op->done, "done inside the call");
	return op;
}

static void erase_done(struct store_erase_op *erase, int status)
{
	struct rig_op *op = container_of(erase, struct rig_op, erase);

	op_ended(op, status);
	if (status == 0)
		op->rig->model.chunks[op->volume][op->chunk].erased_before = op->seq;
}

/* The caller has nothing in flight for the chunk, and waits for the end. */
struct rig_op *rig_erase(struct rig *rig, uint32_t volume, uint32_t chunk)
{
	struct rig_op *op = op_take(rig, RIG_ERASE, volume, chunk);
	struct rig_chunk *c = &rig->model.chunks[volume][chunk];

	if (op == NULL)
		return NULL;
	/* From now on nothing of it is owed. */
	op->seq = rig->model.try_count + 1;
	memset(c->acked, 0, sizeof c->acked);
	c->watermark_acked = 0;
	op->erase = (struct store_erase_op){
	    .done = erase_done, .volume = rig_volume_id(volume), .chunk = chunk};
	if (rig->pool != NULL)
		pool_erase(rig->pool, &op->erase);
	else
		store_erase(rig->store, &op->erase);
	CHECK(!op->done, "done inside the call");
	return op;
}

/* -- waiting ---------------------------------------------------------------------------------- */

int rig_wait(struct rig *rig, struct rig_op *op)
{
	ck_assert_ptr_nonnull(op);
	if (!sim_run_flag(rig->world, &op->done)) {
		ck_assert_msg(!rig->process->alive, "an operation is never done");
		return -E_DISCONNECTED;
	}
	return op->status;
}

struct drain {
	struct rig *rig;
	uint32_t depth;
};

static bool is_drained(void *arg)
{
	const struct drain *d = arg;

	return d->rig->in_flight <= d->depth;
}

bool rig_drain_to(struct rig *rig, uint32_t depth)
{
	struct drain d = {rig, depth};
	int rc;

	if (!rig->process->alive)
		return false;
	rc = sim_run_until(rig->world, rig->world->now_ns + 3600 * NS_PER_S, is_drained, &d);
	CHECK(rc == 0 || !rig->process->alive, "%u operations are never done: %d", rig->in_flight,
	      rc);
	return rc == 0;
}

bool rig_drain(struct rig *rig)
{
	return rig_drain_to(rig, 0);
}

/* The stores that there are. */
static uint32_t stores_of(const struct rig *rig, struct store **ret_stores)
{
	uint32_t count = 0;

	if (rig->pool == NULL) {
		ret_stores[0] = rig->store;
		return 1;
	}
	for (uint32_t i = 0; i < RIG_DISKS_MAX; i++)
		if (pool_store(rig->pool, i) != NULL)
			ret_stores[count++] = pool_store(rig->pool, i);
	return count;
}

static bool has_checkpointed(void *arg)
{
	struct store *stores[RIG_DISKS_MAX];
	uint32_t count = stores_of(arg, stores);

	for (uint32_t i = 0; i < count; i++)
		if (store_is_checkpointing(stores[i]))
			return false;
	return true;
}

bool rig_checkpoint(struct rig *rig)
{
	struct store *stores[RIG_DISKS_MAX];
	uint32_t count;
	int rc;

	if (!rig->process->alive)
		return false;
	count = stores_of(rig, stores);
	for (uint32_t i = 0; i < count; i++)
		store_want_checkpoint(stores[i]);
	rc = sim_run_until(rig->world, rig->world->now_ns + 3600 * NS_PER_S, has_checkpointed, rig);
	ck_assert_msg(rc == 0 || !rig->process->alive, "a checkpoint never ends: %d", rc);
	return rc == 0;
}

/* -- reading and the model -------------------------------------------------------------------- */

struct reading {
	struct store_read op;
	bool done;
	int status;
};

static void read_done(struct store_read *op, int status)
{
	struct reading *r = container_of(op, struct reading, op);

	CHECK(!r->done, "done twice");
	r->done = true;
	r->status = status;
}

int rig_read(struct rig *rig, uint32_t volume, uint32_t chunk, block_no_t block,
	     uint32_t block_count, uint8_t *data, uint32_t *crcs, version_t *versions,
	     uint32_t *ret_bad_block)
{
	struct reading r = {
	    .op =
		{
		    .done = read_done,
		    .volume = rig_volume_id(volume),
		    .chunk = chunk,
		    .block = block,
		    .block_count = block_count,
		    .data = data,
		    .ret_crcs = crcs,
		    .ret_versions = versions,
		},
	};

	if (rig->pool != NULL)
		pool_read(rig->pool, &r.op);
	else
		store_read(rig->store, &r.op);
	CHECK(!r.done, "done inside the call");
	CHECK(sim_run_flag(rig->world, &r.done), "a read is never done");
	if (ret_bad_block != NULL)
		*ret_bad_block = r.op.bad_block;
	return r.status;
}

static void verify_block(struct rig *rig, uint32_t volume, uint32_t chunk, block_no_t block,
			 const uint8_t *data, uint32_t crc, version_t version)
{
	struct rig_chunk *c = &rig->model.chunks[volume][chunk];
	const struct rig_try *t = &rig->model.tries[version_seq(version)];
	uint8_t expected[BLOCK_SIZE] = {0};

	CHECK(version >= c->acked[block],
	      "seed %lu: volume %u chunk %u block %u: version %lx was acknowledged, %lx is there",
	      rig->world->seed, volume, chunk, block, c->acked[block], version);
	if (version != 0) {
		CHECK(version_seq(version) <= rig->model.try_count && t->version == version &&
			  t->volume == volume && t->chunk == chunk && block >= t->block &&
			  block < t->block + t->block_count,
		      "volume %u chunk %u block %u: version %lx was never written there", volume,
		      chunk, block, version);
		CHECK(version_seq(version) >= c->erased_before,
		      "volume %u chunk %u block %u: version %lx is back from its erasure", volume,
		      chunk, block, version);
		if (t->kind == STORE_DATA)
			rig_content(version_seq(version), block, expected);
	}
	CHECK(memcmp(expected, data, BLOCK_SIZE) == 0,
	      "volume %u chunk %u block %u: wrong content for version %lx", volume, chunk, block,
	      version);
	CHECK(crc == crc32c(0, data, BLOCK_SIZE), "block %u: wrong CRC", block);
	c->acked[block] = version;
}

void rig_verify_chunk(struct rig *rig, uint32_t volume, uint32_t chunk)
{
	uint8_t *data = aligned_alloc(BLOCK_SIZE, IO_SIZE_MAX);
	uint32_t crcs[IO_BLOCKS_MAX];
	version_t versions[IO_BLOCKS_MAX];

	for (block_no_t block = 0; block < RIG_BLOCKS; block += IO_BLOCKS_MAX) {
		int rc =
		    rig_read(rig, volume, chunk, block, IO_BLOCKS_MAX, data, crcs, versions, NULL);

		ck_assert_int_eq(rc, 0);
		for (uint32_t i = 0; i < IO_BLOCKS_MAX; i++)
			verify_block(rig, volume, chunk, block + i, data + (size_t)i * BLOCK_SIZE,
				     crcs[i], versions[i]);
	}
	free(data);
}

/* The changes above a random version are exactly the blocks with newer ones. */
static void verify_changes(struct rig *rig, uint32_t volume, uint32_t chunk);

static void verify_states(struct rig *rig, uint32_t volume)
{
	struct store_chunk_state states[RIG_CHUNKS + 1];
	const volume_id_t id = rig_volume_id(volume);
	uint32_t count = rig->pool != NULL
			     ? pool_chunks(rig->pool, id, 0, states, RIG_CHUNKS + 1)
			     : store_chunks(rig->store, id, 0, states, RIG_CHUNKS + 1);
	generation_t generation =
	    rig->pool != NULL ? pool_generation(rig->pool, id) : store_generation(rig->store, id);
	struct rig_model *m = &rig->model;
	uint32_t next = 0;

	ck_assert_uint_ge(generation, m->fence_acked[volume]);
	ck_assert_uint_le(generation, m->fence_tried[volume]);
	m->fence_acked[volume] = generation;
	ck_assert_uint_le(count, RIG_CHUNKS);
	for (uint32_t chunk = 0; chunk < RIG_CHUNKS; chunk++) {
		struct rig_chunk *c = &m->chunks[volume][chunk];
		version_t newest = 0, watermark = 0;

		if (next < count && states[next].chunk == chunk) {
			newest = states[next].newest;
			watermark = states[next++].watermark;
		}
		for (uint32_t b = 0; b < RIG_BLOCKS; b++)
			CHECK(c->acked[b] <= newest, "block %u is newer than its chunk", b);
		ck_assert_uint_ge(watermark, c->watermark_acked);
		ck_assert_uint_le(watermark, c->watermark_tried);
		c->watermark_acked = watermark;
	}
	ck_assert_uint_eq(next, count);
}

void rig_verify(struct rig *rig)
{
	struct store *stores[RIG_DISKS_MAX];
	struct error err;
	uint32_t count;

	for (uint32_t volume = 0; volume < RIG_VOLUMES; volume++) {
		for (uint32_t chunk = 0; chunk < RIG_CHUNKS; chunk++) {
			rig_verify_chunk(rig, volume, chunk);
			verify_changes(rig, volume, chunk);
		}
		verify_states(rig, volume);
	}
	count = stores_of(rig, stores);
	for (uint32_t i = 0; i < count; i++)
		ck_assert_msg(store_check(stores[i], &err) == 0, "%s", err.text);
}

struct asking {
	struct store_changes_op op;
	bool done;
	int status;
};

static void changes_done(struct store_changes_op *op, int status)
{
	struct asking *a = container_of(op, struct asking, op);

	a->done = true;
	a->status = status;
}

static void verify_changes(struct rig *rig, uint32_t volume, uint32_t chunk)
{
	const struct rig_chunk *c = &rig->model.chunks[volume][chunk];
	uint64_t seq = sim_random_below(rig->world, rig->model.try_count + 1);
	struct store_change changes[7];
	struct asking a;
	block_no_t block = 0;
	version_t above = seq > 0 ? rig->model.tries[seq].version : 0;

	for (block_no_t from = 0; from != UINT32_MAX; from = a.op.next) {
		a = (struct asking){.op = {.done = changes_done,
					   .volume = rig_volume_id(volume),
					   .chunk = chunk,
					   .above = above,
					   .from = from,
					   .changes = changes,
					   .max = ARRAY_SIZE(changes)}};
		if (rig->pool != NULL)
			pool_changes(rig->pool, &a.op);
		else
			store_changes(rig->store, &a.op);
		CHECK(sim_run_flag(rig->world, &a.done) && a.status == 0, "changes");
		for (uint32_t i = 0; i < a.op.count; i++) {
			for (; block < changes[i].block; block++)
				CHECK(c->acked[block] <= above, "block %u is missing", block);
			for (uint32_t k = 0; k < changes[i].block_count; k++, block++)
				CHECK(c->acked[block] == changes[i].version, "block %u", block);
			CHECK(changes[i].version > above, "an old change");
		}
	}
	for (; block < RIG_BLOCKS; block++)
		CHECK(c->acked[block] <= above, "block %u is missing", block);
}

static void begun_read_done(struct store_read *read, int status)
{
	struct rig_op *op = container_of(read, struct rig_op, read);
	const struct rig_model *m = &op->rig->model;
	uint8_t expected[BLOCK_SIZE];

	op_ended(op, status);
	CHECK(status == 0 || (status == -EIO && op->rig->ios_fail), "a read fails: %d", status);
	for (uint32_t i = 0; status == 0 && i < read->block_count; i++) {
		version_t version = read->ret_versions[i];
		uint64_t seq = version_seq(version);

		CHECK(version >= op->before[i], "an old version is read");
		memset(expected, 0, sizeof expected);
		if (version != 0 && m->tries[seq].kind == STORE_DATA)
			rig_content(seq, read->block + i, expected);
		CHECK(memcmp(expected, op->data + (size_t)i * BLOCK_SIZE, BLOCK_SIZE) == 0,
		      "block %u: not the content of its version", read->block + i);
		CHECK(read->ret_crcs[i] == crc32c(0, expected, BLOCK_SIZE), "wrong CRC");
	}
}

struct rig_op *rig_begin_read(struct rig *rig, uint32_t volume, uint32_t chunk, block_no_t block,
			      uint32_t block_count)
{
	struct rig_op *op = op_take(rig, RIG_READ, volume, chunk);

	if (op == NULL)
		return NULL;
	memcpy(op->before, &rig->model.chunks[volume][chunk].acked[block],
	       block_count * sizeof *op->before);
	memset(op->data, 0xee, (size_t)block_count * BLOCK_SIZE);
	op->read = (struct store_read){
	    .done = begun_read_done,
	    .volume = rig_volume_id(volume),
	    .chunk = chunk,
	    .block = block,
	    .block_count = block_count,
	    .data = op->data,
	    .ret_crcs = op->crcs,
	    .ret_versions = op->versions,
	};
	if (rig->pool != NULL)
		pool_read(rig->pool, &op->read);
	else
		store_read(rig->store, &op->read);
	CHECK(!op->done, "done inside the call");
	return op;
}

/* -- random work ------------------------------------------------------------------------------ */

static void random_range(struct rig *rig, block_no_t *ret_block, uint32_t *ret_count)
{
	static const uint32_t sizes[] = {1, 1, 1, 2, 5, 16, 17, 40, 256};
	struct sim_world *w = rig->world;

	*ret_count = sizes[sim_random_below(w, ARRAY_SIZE(sizes))];
	*ret_block = (block_no_t)sim_random_below(w, RIG_BLOCKS - *ret_count + 1);
}

void rig_random_op(struct rig *rig, bool with_erase)
{
	struct sim_world *w = rig->world;
	uint32_t volume = (uint32_t)sim_random_below(w, RIG_VOLUMES);
	uint32_t chunk = (uint32_t)sim_random_below(w, RIG_CHUNKS);
	uint64_t dice = sim_random_below(w, 100);
	uint64_t seq = sim_random_below(w, rig->model.try_count + 1);
	block_no_t block;
	uint32_t count;

	random_range(rig, &block, &count);
	if (dice < 50)
		rig_write(rig, STORE_DATA, volume, chunk, block, count);
	else if (dice < 70)
		rig_begin_read(rig, volume, chunk, block, count);
	else if (dice < 76)
		rig_write(rig, STORE_ZERO, volume, chunk, block, count);
	else if (dice < 82)
		rig_write(rig, STORE_DISCARD, volume, chunk, block, count);
	else if (dice < 88)
		rig_resync(rig, volume, chunk, block, count);
	else if (dice < 92)
		rig_watermark(rig, volume, chunk, version_make(rig->model.generation, seq));
	else if (dice < 94)
		rig_fence(rig, volume,
			  rig->model.fence_tried[volume] + (generation_t)sim_random_below(w, 2) +
			      1);
	else if (dice < 98 && seq > 0 &&
		 seq >= rig->model.chunks[rig->model.tries[seq].volume][rig->model.tries[seq].chunk]
			    .erased_before)
		rig_repeat(rig, seq, sim_chance(w, 1, 2));
	else if (with_erase && rig_drain(rig) && rig_erase(rig, volume, chunk) != NULL)
		rig_drain(rig);
}

/* -- devices of a pool ------------------------------------------------------------------------ */

struct adding {
	struct pool_add_op op;
	bool done;
	int status;
	char *text;
};

static void added(struct pool_add_op *op, int status, const struct error *err)
{
	struct adding *a = container_of(op, struct adding, op);

	if (err != NULL && a->text != NULL)
		memcpy(a->text, err->text, sizeof err->text);
	a->done = true;
	a->status = status;
}

int rig_add_device(struct rig *rig, uint32_t disk, char *ret_text)
{
	struct adding a = {
	    .op = {.done = added, .disk = rig_disk(rig, disk), .path = rig_disk_path(disk)},
	    .text = ret_text};

	pool_add(rig->pool, &a.op);
	ck_assert(!a.done);
	ck_assert(sim_run_flag(rig->world, &a.done));
	return a.status;
}
