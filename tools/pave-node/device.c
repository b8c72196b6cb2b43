/* device: see device.h.
 *
 *   read the place of the superblocks --not all zeroes-----------------> open the store
 *                  \--all zeroes, index empty--> format --> open the store
 *                   \--all zeroes, index not empty: refused
 *
 * An empty device beside an index that is not empty is a device that was lost or swapped. Going on
 * with it would let this node say that it holds nothing, where it had acknowledged writes: so a
 * person decides. */
#include "tools/pave-node/device.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#include "engine/base/log.h"

static void device_fail(struct device_open *op, int status, const struct error *err)
{
	op->done(op, status, NULL, err);
}

static void store_opened(struct store_open_op *open, int status, struct store *store,
			 const struct error *err)
{
	struct device_open *op = container_of(open, struct device_open, open);
	struct error told;

	if (status == 0) {
		op->done(op, 0, store, NULL);
		return;
	}
	told = *err;
	if (status == -E_WRONG_CLUSTER || status == -E_WRONG_NODE)
		error_set(
		    &told, status,
		    "device %s: %s; nothing was changed: give this node its own device, or an "
		    "empty one (wipe it yourself if nobody needs what it holds)",
		    op->device, err->text);
	else
		error_wrap(&told, "device %s", op->device);
	device_fail(op, status, &told);
}

static void device_open_store(struct device_open *op)
{
	op->open = (struct store_open_op){
	    .done = store_opened,
	    .config = {.reactor = op->reactor,
		       .disk = op->disk,
		       .kv = op->kv,
		       .identity = op->identity,
		       .scrub_period_s = op->scrub_period_s},
	};
	store_open(&op->open);
}

static void store_formatted(struct store_format_op *format, int status, const struct error *err)
{
	struct device_open *op = container_of(format, struct device_open, format);
	struct error told;

	if (status != 0) {
		told = *err;
		error_wrap(&told, "device %s: formatting", op->device);
		device_fail(op, status, &told);
		return;
	}
	log_info("node", "formatted %s", op->device);
	device_open_store(op);
}

static bool is_empty(const uint8_t *data, size_t size)
{
	return data[0] == 0 && memcmp(data, data + 1, size - 1) == 0;
}

static void device_probed(struct disk_op *io, int status)
{
	struct device_open *op = container_of(io, struct device_open, io);
	struct error err;

	if (status != 0) {
		error_set(&err, status, "device %s: it cannot be read: %s", op->device,
			  err_text(status));
		device_fail(op, status, &err);
		return;
	}
	if (!is_empty(op->probe, DEVICE_PROBE_SIZE)) {
		device_open_store(op);
		return;
	}
	if (op->index_used) {
		error_set(
		    &err, -E_WRONG_NODE,
		    "device %s is empty, but the index in %s belongs to a device that held "
		    "data: put that device back; or, if it is lost for good, remove the index "
		    "and this node begins empty",
		    op->device, op->index);
		device_fail(op, err.code, &err);
		return;
	}
	op->format = (struct store_format_op){
	    .done = store_formatted, .disk = op->disk, .identity = op->identity};
	store_format(&op->format);
}

static int any_key(const void *key, size_t key_size, const void *value, size_t value_size,
		   void *arg)
{
	(void)key;
	(void)key_size;
	(void)value;
	(void)value_size;
	*(bool *)arg = true;
	return 1;
}

void device_open(struct device_open *op)
{
	op->index_used = false;
	for (uint32_t family = 0; family < STORE_KV_FAMILIES && !op->index_used; family++)
		kv_scan(op->kv, family, "", 0, any_key, &op->index_used);
	op->io = (struct disk_op){
	    .kind = DISK_READ, .size = DEVICE_PROBE_SIZE, .iov_count = 1, .done = device_probed};
	op->io.iov[0] = (struct iovec){op->probe, DEVICE_PROBE_SIZE};
	op->io.iovs = op->io.iov;
	disk_submit(op->disk, &op->io);
}

int device_create_missing(const char *path, uint64_t size_bytes, struct error *err)
{
	struct stat st;
	int rc;

	if (stat(path, &st) == 0)
		return 0;
	if (errno != ENOENT)
		return error_set(err, -errno, "device %s: %s", path, err_text(errno));
	if (size_bytes == 0)
		return error_set(err, -ENOENT,
				 "device %s: there is none; give --device-size to create it", path);
	rc = disk_file_create(path, size_bytes, err);
	if (rc == 0)
		log_info("node", "created %s with %llu bytes", path,
			 (unsigned long long)size_bytes);
	return rc;
}
