/* pave-inspect: the device, by blocking calls. */
#include <errno.h>
#include <string.h>

#include "engine/base/assert.h"
#include "engine/disk/disk.h"
#include "tools/pave-inspect/inspect.h"

#define BOUNCE_BYTES  (4u << 20)
#define IO_TIMEOUT_NS (300 * NS_PER_S)

struct io {
	struct disk_op op;
	bool done;
	int status;
};

static void io_done(struct disk_op *op, int status)
{
	struct io *io = container_of(op, struct io, op);

	io->status = status;
	io->done = true;
}

static int io_run(struct inspect_device *d, enum disk_op_kind kind, uint64_t offset, size_t size)
{
	static struct io io; /* the disk's until it is done, however long that takes */

	io = (struct io){.op = {.kind = kind,
				.durable = true,
				.offset = offset,
				.size = size,
				.iov = {{d->bounce, size}},
				.iov_count = 1,
				.done = io_done}};
	io.op.iovs = io.op.iov;
	disk_submit(d->disk, &io.op);
	reactor_refresh(d->reactor);
	if (reactor_run_until(d->reactor, &io.done, reactor_now_ns(d->reactor) + IO_TIMEOUT_NS) !=
	    0)
		return -EIO;
	return io.status;
}

static int read_device(void *arg, uint64_t offset, size_t size, void *data)
{
	struct inspect_device *d = arg;
	int rc = 0;

	for (size_t at = 0; at < size && rc == 0; at += BOUNCE_BYTES) {
		size_t part = MIN(size - at, (size_t)BOUNCE_BYTES);

		rc = io_run(d, DISK_READ, offset + at, part);
		if (rc == 0)
			memcpy((uint8_t *)data + at, d->bounce, part);
	}
	return rc;
}

int inspect_write_block(struct inspect_device *d, uint64_t offset, const void *block)
{
	memcpy(d->bounce, block, BLOCK_SIZE);
	return io_run(d, DISK_WRITE, offset, BLOCK_SIZE);
}

int inspect_open(const char *path, struct inspect_device *ret_device, struct error *err)
{
	const struct reactor_config config = {.name = "inspect"};
	struct inspect_device *d = ret_device;
	int rc;

	*d = (struct inspect_device){0};
	rc = reactor_create(&config, &d->reactor);
	if (rc != 0)
		return error_set(err, rc, "io_uring: %s", err_text(rc));
	rc = disk_file_open(d->reactor, path, &d->disk, err);
	if (rc == -E_IN_USE)
		error_set(err, rc,
			  "%s is in use: end its node first (a look from outside at what "
			  "changes would tell nothing)",
			  path);
	if (rc != 0)
		return rc;
	d->bounce = reactor_memory(d->reactor, BOUNCE_BYTES);
	if (d->bounce == NULL)
		return error_set(err, -ENOMEM, "no memory for I/O: raise the limit (ulimit -l)");
	d->survey = (struct survey_device){
	    .read = read_device, .arg = d, .size_bytes = d->disk->size_bytes, .name = path};
	return 0;
}

void inspect_close(struct inspect_device *d)
{
	disk_close(d->disk);
	reactor_destroy(d->reactor);
}

struct committing {
	struct kv_op op;
	bool done;
	int status;
};

static void committed(struct kv_op *op, int status)
{
	struct committing *c = container_of(op, struct committing, op);

	c->status = status;
	c->done = true;
}

int inspect_commit(struct kv *kv, struct kv_batch *batch, void *arg)
{
	static struct committing c;
	struct inspect_device *d = arg;

	c = (struct committing){.op = {.done = committed}};
	kv_commit(kv, batch, &c.op);
	reactor_refresh(d->reactor);
	if (reactor_run_until(d->reactor, &c.done, reactor_now_ns(d->reactor) + IO_TIMEOUT_NS) != 0)
		return -EIO;
	return c.status;
}

struct getting {
	struct kv_get_op op;
	bool done;
	int status;
};

static void got(struct kv_get_op *op, int status)
{
	struct getting *g = container_of(op, struct getting, op);

	g->status = status;
	g->done = true;
}

int inspect_get(struct inspect_device *d, struct kv *kv, uint32_t family, const uint8_t *key,
		size_t key_size, void *value, size_t value_max, size_t *ret_value_size)
{
	static struct getting g;

	PRE(key_size <= sizeof g.op.key);
	g = (struct getting){.op = {.done = got,
				    .family = family,
				    .key_size = key_size,
				    .value = value,
				    .value_max = value_max}};
	memcpy(g.op.key, key, key_size);
	kv_get(kv, &g.op);
	reactor_refresh(d->reactor);
	if (reactor_run_until(d->reactor, &g.done, reactor_now_ns(d->reactor) + IO_TIMEOUT_NS) != 0)
		return -EIO;
	*ret_value_size = g.op.value_size;
	return g.status;
}
