/* device: one disk of the pool: what is on it, formatting, opening, and wiping. See core.h.
 *
 * Each step ends with one call of done; what failed is told in err. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/assert.h"
#include "engine/base/log.h"
#include "engine/pool/core.h"

/* One discard. Devices take long for large ones, and other I/O waits. */
#define WIPE_STEP (64 * MIB)

static void submit(struct device_work *w, enum disk_op_kind kind, uint64_t offset, uint64_t size,
		   void (*done)(struct disk_op *op, int status))
{
	w->io = (struct disk_op){.kind = kind,
				 .durable = true,
				 .offset = offset,
				 .size = size,
				 .iov_count = 1,
				 .done = done};
	w->io.iov[0] = (struct iovec){w->probe, size};
	w->io.iovs = w->io.iov;
	disk_submit(w->disk, &w->io);
}

static struct device_work *work_of_io(struct disk_op *io)
{
	return container_of(io, struct device_work, io);
}

void device_work_deinit(struct device_work *w)
{
	free(w->probe);
	w->probe = NULL;
}

/* -- what is on it ---------------------------------------------------------------------------- */

static bool is_empty(const uint8_t *data, size_t size)
{
	return data[0] == 0 && memcmp(data, data + 1, size - 1) == 0;
}

/* A crash may have left a superblock half written; what else there is does not count as empty. */
static bool is_all_empty(const uint8_t *data)
{
	uint64_t from = BLOCK_SIZE, second = format_super_offset(1);

	return is_empty(data + from, second - from) &&
	       is_empty(data + second + BLOCK_SIZE, DEVICE_PROBE_SIZE - second - BLOCK_SIZE);
}

static void probed(struct disk_op *io, int status)
{
	struct device_work *w = work_of_io(io);
	struct format_super super;
	bool found = false;

	if (status < 0) {
		w->done(w, error_set(&w->err, -EIO, "device %s: it cannot be read: %s",
				     w->disk->name, err_text(status)));
		return;
	}
	for (uint32_t copy = 0; copy < FORMAT_SUPER_COPIES; copy++) {
		if (format_super_decode(w->probe + format_super_offset(copy), &super, NULL) != 0 ||
		    (found && super.sequence < w->super.sequence))
			continue;
		w->super = super;
		found = true;
	}
	w->found = FOUND_SOMETHING;
	if (found)
		w->found = FOUND_SUPER;
	else if (is_all_empty(w->probe))
		w->found = FOUND_EMPTY;
	w->done(w, 0);
}

static void no_memory_run(struct reactor_task *task)
{
	struct device_work *w = container_of(task, struct device_work, no_memory);

	w->done(w, error_set(&w->err, -ENOMEM,
			     "device %s: there is not enough memory to look at it", w->disk->name));
}

/* False: done will say so. */
static bool make_probe(struct device_work *w)
{
	if (w->probe == NULL)
		w->probe = aligned_alloc(BLOCK_SIZE, DEVICE_PROBE_SIZE);
	if (w->probe != NULL)
		return true;
	w->no_memory.run = no_memory_run;
	reactor_defer(w->pool->reactor, &w->no_memory);
	return false;
}

void device_probe(struct device_work *w)
{
	if (!make_probe(w))
		return;
	submit(w, DISK_READ, 0, DEVICE_PROBE_SIZE, probed);
}

/* -- opening ---------------------------------------------------------------------------------- */

static struct store_identity identity_of(const struct device_work *w)
{
	struct store_identity identity = w->pool->config.identity;

	identity.slot = w->slot;
	return identity;
}

static void formatted(struct store_format_op *format, int status, const struct error *err)
{
	struct device_work *w = container_of(format, struct device_work, format);

	if (status < 0) {
		w->err = *err;
		error_wrap(&w->err, "formatting");
	} else {
		log_info("pool", "formatted %s", w->disk->name);
	}
	w->done(w, status);
}

void device_format(struct device_work *w, bool force)
{
	w->format = (struct store_format_op){.done = formatted,
					     .disk = w->disk,
					     .identity = identity_of(w),
					     .segment_bytes = w->pool->config.segment_bytes,
					     .force = force};
	store_format(&w->format);
}

static void opened(struct store_open_op *open, int status, struct store *store,
		   const struct error *err)
{
	struct device_work *w = container_of(open, struct device_work, open);

	w->store = store;
	if (status < 0)
		w->err = *err;
	if (status == -E_WRONG_CLUSTER || status == -E_WRONG_NODE)
		error_set(&w->err, status,
			  "%s; nothing was changed: give this node its own device, or an empty one "
			  "(wipe it yourself if nobody needs what it holds)",
			  err->text);
	w->done(w, status);
}

void device_open(struct device_work *w)
{
	const struct pool_config *c = &w->pool->config;

	w->store = NULL;
	w->open = (struct store_open_op){
	    .done = opened,
	    .config = {.reactor = c->reactor,
		       .disk = w->disk,
		       .kv = c->kv,
		       .identity = identity_of(w),
		       .groups_in_flight = c->groups_in_flight,
		       .group_fill_blocks = c->group_fill_blocks,
		       .checkpoint_bytes = c->checkpoint_bytes,
		       .cache_bytes = c->cache_bytes,
		       .scrub_period_s = c->scrub_period_s,
		       .reserve_percent = c->reserve_percent},
	};
	store_open(&w->open);
}

/* -- wiping ----------------------------------------------------------------------------------- */

static void wiped(struct disk_op *io, int status)
{
	struct device_work *w = work_of_io(io);

	if (status < 0) {
		w->done(w, error_set(&w->err, status, "device %s: it cannot be wiped: %s",
				     w->disk->name, err_text(status)));
		return;
	}
	if (w->copy == 0) {
		w->done(w, 0);
		return;
	}
	w->copy--;
	submit(w, DISK_WRITE, format_super_offset(w->copy), BLOCK_SIZE, wiped);
}

/* A discard that fails costs nothing that was promised. */
static void discarded(struct disk_op *io, int status)
{
	struct device_work *w = work_of_io(io);
	uint64_t left = w->disk->size_bytes - w->offset;

	(void)status;
	if (left > 0) {
		uint64_t offset = w->offset;

		w->offset += MIN(left, WIPE_STEP);
		submit(w, DISK_DISCARD, offset, w->offset - offset, discarded);
		return;
	}
	/* The first superblock goes last: as long as it is there the device is known to be one that
	 * was retired, and is wiped again after a crash. */
	w->copy = FORMAT_SUPER_COPIES;
	submit(w, DISK_WRITE, FORMAT_SEGMENTS_OFFSET, BLOCK_SIZE, wiped);
}

void device_wipe(struct device_work *w)
{
	uint64_t size = MIN(w->disk->size_bytes - FORMAT_SEGMENTS_OFFSET, WIPE_STEP);

	if (!make_probe(w))
		return;
	memset(w->probe, 0, BLOCK_SIZE);
	w->offset = FORMAT_SEGMENTS_OFFSET + size;
	submit(w, DISK_DISCARD, FORMAT_SEGMENTS_OFFSET, size, discarded);
}
