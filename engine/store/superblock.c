/* superblock: store_format, see store.h.
 *
 *   READ both copies -> refuse, or WRITE copy 0 -> WRITE copy 1 -> done
 *
 * Both writes are durable. The new sequence is above the old one's: a crash in between leaves
 * either the old device or the new one. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/assert.h"
#include "engine/base/text.h"
#include "engine/store/format.h"
#include "engine/store/store.h"

enum formatting_state { FORMATTING_READ, FORMATTING_WRITE };

/* In store_format_op.impl. */
struct formatting {
	struct disk_op op;
	struct reactor_task finish;
	enum formatting_state state;
	uint32_t copy;
	int status;
	uint64_t sequence; /* the highest found */
	bool in_use;
	bool unreadable;
	uint8_t *block;
	struct error *err;
};
_Static_assert(sizeof(struct formatting) <= sizeof((struct store_format_op *)0)->impl, "room");

static struct formatting *formatting_of(struct store_format_op *op)
{
	return (struct formatting *)(void *)op->impl;
}

static struct store_format_op *op_of(struct formatting *f)
{
	return (struct store_format_op *)(void *)((char *)f -
						  offsetof(struct store_format_op, impl));
}

static void finish_run(struct reactor_task *task)
{
	struct formatting *f = container_of(task, struct formatting, finish);
	struct store_format_op *op = op_of(f);
	struct error err = {0};
	int status = f->status;

	if (f->err != NULL)
		err = *f->err;
	else
		error_set(&err, status, "there is no memory");
	free(f->err);
	free(f->block);
	op->done(op, status, status < 0 ? &err : NULL);
}

static void finish(struct formatting *f, int status)
{
	f->status = status;
	reactor_defer(op_of(f)->disk->reactor, &f->finish);
}

static void io_done(struct disk_op *disk_op, int status);

static void submit(struct formatting *f, enum disk_op_kind kind)
{
	f->op.kind = kind;
	f->op.durable = true;
	f->op.offset = format_super_offset(f->copy);
	f->op.size = BLOCK_SIZE;
	f->op.iov[0] = (struct iovec){f->block, BLOCK_SIZE};
	f->op.iovs = f->op.iov;
	f->op.iov_count = 1;
	f->op.done = io_done;
	disk_submit(op_of(f)->disk, &f->op);
}

static uint32_t segment_bytes_of(const struct store_format_op *op)
{
	return op->segment_bytes > 0 ? op->segment_bytes
				     : format_segment_bytes(op->disk->size_bytes);
}

static void write_begin(struct formatting *f)
{
	struct store_format_op *op = op_of(f);
	uint32_t segment_bytes = segment_bytes_of(op);
	struct format_super super = {
	    .cluster = op->identity.cluster,
	    .sequence = f->sequence + 1,
	    .segment_bytes = segment_bytes,
	    .segment_count = format_segments_fit(op->disk->size_bytes, segment_bytes),
	    .shard_count = op->identity.shard_count,
	};

	reactor_random(op->disk->reactor, super.device.bytes, sizeof super.device.bytes);
	op->identity.device = super.device;
	memcpy(super.node, op->identity.node, sizeof super.node);
	format_super_encode(&super, f->block);
	f->state = FORMATTING_WRITE;
	f->copy = 0;
	submit(f, DISK_WRITE);
}

static void read_done(struct formatting *f, int status)
{
	struct store_format_op *op = op_of(f);
	struct format_super super;
	char text[40];

	if (status < 0)
		f->unreadable = true;
	else if (format_super_decode(f->block, &super, NULL) == 0) {
		f->in_use = true;
		f->sequence = MAX(f->sequence, super.sequence);
		if (!op->force)
			error_set(f->err, -E_IN_USE,
				  "device %s already belongs to node %s of cluster %s",
				  op->disk->name, super.node,
				  text_uuid(&super.cluster, text, sizeof text));
	}
	if (++f->copy < FORMAT_SUPER_COPIES) {
		submit(f, DISK_READ);
		return;
	}
	if (f->in_use && !op->force)
		finish(f, -E_IN_USE);
	else if (f->unreadable && !op->force)
		finish(f, error_set(f->err, -EIO, "device %s: the superblocks cannot be read",
				    op->disk->name));
	else
		write_begin(f);
}

static void write_done(struct formatting *f, int status)
{
	if (status < 0) {
		finish(f, error_set(f->err, status, "device %s: the superblock cannot be written",
				    op_of(f)->disk->name));
		return;
	}
	if (++f->copy < FORMAT_SUPER_COPIES)
		submit(f, DISK_WRITE);
	else
		finish(f, 0);
}

static void io_done(struct disk_op *disk_op, int status)
{
	struct formatting *f = container_of(disk_op, struct formatting, op);

	if (f->state == FORMATTING_READ)
		read_done(f, status);
	else
		write_done(f, status);
}

static int check(const struct store_format_op *op, struct error *err)
{
	uint32_t bytes = segment_bytes_of(op);
	uint32_t shards = op->identity.shard_count;
	uint64_t least;

	if (bytes < FORMAT_SEGMENT_BYTES_MIN || bytes > FORMAT_SEGMENT_BYTES_MAX ||
	    (bytes & (bytes - 1)) != 0)
		return error_set(err, -EINVAL,
				 "segments of %u bytes: it must be a power of two from %u to %u",
				 bytes, FORMAT_SEGMENT_BYTES_MIN, FORMAT_SEGMENT_BYTES_MAX);
	if (shards == 0 || shards > FORMAT_SHARDS_MAX)
		return error_set(err, -EINVAL, "%u shards: there may be 1 to %u", shards,
				 FORMAT_SHARDS_MAX);
	least = FORMAT_SEGMENTS_OFFSET + (uint64_t)FORMAT_SEGMENTS_MIN * shards * bytes;
	if (op->disk->size_bytes < least)
		return error_set(err, -EINVAL,
				 "device %s has %llu bytes; %u shards need at least %llu",
				 op->disk->name, (unsigned long long)op->disk->size_bytes, shards,
				 (unsigned long long)least);
	return 0;
}

void store_format(struct store_format_op *op)
{
	struct formatting *f = formatting_of(op);
	int rc;

	PRE(text_is_name(op->identity.node));
	*f = (struct formatting){.finish.run = finish_run};
	f->err = calloc(1, sizeof *f->err);
	f->block = aligned_alloc(BLOCK_SIZE, BLOCK_SIZE);
	if (f->err == NULL || f->block == NULL)
		rc = error_set(f->err, -ENOMEM, "there is no memory");
	else
		rc = check(op, f->err);
	if (rc < 0)
		finish(f, rc);
	else
		submit(f, DISK_READ);
}

void store_format_abandon(struct store_format_op *op)
{
	struct formatting *f = formatting_of(op);

	free(f->err);
	free(f->block);
}
