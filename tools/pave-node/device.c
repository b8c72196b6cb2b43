/* device: see device.h. */
#include "tools/pave-node/device.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#include "engine/base/log.h"
#include "tools/pave-node/faults.h"

#define KNOWN_MAX 256u

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

static bool is_listed(const struct pool_open_op *op, const char *path)
{
	for (uint32_t i = 0; i < op->disk_count; i++)
		if (strcmp(op->disks[i].path, path) == 0)
			return true;
	return false;
}

/* A device that somebody else has open, or that may not be opened, is a mistake of who named it, to
 * be told at once; one that is broken or gone is not: the others go on. */
static bool is_mistake(int why)
{
	return why == -E_IN_USE || why == -EACCES || why == -EPERM;
}

static int device_add(struct pool_open_op *op, const char *path, bool is_named, struct error *err)
{
	struct pool_disk *disk;

	if (is_listed(op, path))
		return 0;
	if (op->disk_count == POOL_DEVICES_MAX)
		return error_set(err, -E_LIMIT, "device %s: a node may have %u devices", path,
				 POOL_DEVICES_MAX);
	disk = &op->disks[op->disk_count++];
	*disk = (struct pool_disk){.path = path};
	disk->why = disk_file_open(op->config.reactor, path, &disk->disk, err);
	return is_named && is_mistake(disk->why) ? disk->why : 0;
}

static const struct pool_known *find_known(const struct pool_known *known, int count,
					   const char *path)
{
	for (int i = 0; i < count; i++)
		if (strcmp(known[i].path, path) == 0)
			return &known[i];
	return NULL;
}

int device_open_all(struct pool_open_op *op, const char *const *paths, uint32_t path_count,
		    uint64_t size_bytes, const char *node, struct error *err)
{
	static struct pool_known known[KNOWN_MAX];
	int count = pool_list_known(op->config.kv, known, KNOWN_MAX);
	int rc =
	    count < 0 ? error_set(err, count, "the index cannot be read: %s", err_text(count)) : 0;

	for (uint32_t i = 0; i < path_count && rc == 0; i++) {
		if (strlen(paths[i]) >= POOL_PATH_MAX)
			rc = error_set(err, -EINVAL,
				       "device %.60s...: the path is longer than %u bytes",
				       paths[i], POOL_PATH_MAX - 1);
		if (rc == 0 && find_known(known, count, paths[i]) == NULL)
			rc = device_create_missing(paths[i], size_bytes, err);
		if (rc == 0)
			rc = device_add(op, paths[i], true, err);
	}
	for (int i = 0; i < count && rc == 0; i++)
		if (!known[i].retired)
			rc = device_add(op, known[i].path, false, err);
	if (rc == 0 && op->disks[0].disk != NULL)
		rc = faults_from_environment(node, &op->disks[0].disk, err);
	return rc;
}
