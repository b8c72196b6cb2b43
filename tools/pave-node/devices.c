/* devices: see devices.h. A path is taken as it is given, so it must be absolute: the node finds
 * the device by it when it starts again. */
#include "tools/pave-node/devices.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "engine/base/assert.h"

struct devices {
	struct reactor *reactor;
	struct pool *pool;
	void (*answer)(uint64_t token, int status, const char *text,
		       const Pave__V1__Control *message, void *arg);
	void *arg;
	bool busy;
	uint64_t token;
	char path[POOL_PATH_MAX];
	struct pool_add_op add;
	struct pool_retire_op retire;
};

static void answer_list(struct devices *d, uint64_t token)
{
	struct pool_device_info infos[POOL_DEVICES_MAX];
	Pave__V1__DeviceInfo items[POOL_DEVICES_MAX], *list[POOL_DEVICES_MAX];
	Pave__V1__Control m = PAVE__V1__CONTROL__INIT;
	Pave__V1__NodeDevicesReply reply = PAVE__V1__NODE_DEVICES_REPLY__INIT;

	reply.n_devices = pool_devices(d->pool, infos, POOL_DEVICES_MAX);
	reply.devices = list;
	for (size_t i = 0; i < reply.n_devices; i++) {
		struct pool_device_info *info = &infos[i];

		list[i] = &items[i];
		pave__v1__device_info__init(&items[i]);
		items[i].uuid = (ProtobufCBinaryData){sizeof info->uuid.bytes, info->uuid.bytes};
		items[i].path = info->path;
		items[i].state = (char *)(uintptr_t)pool_state_name(info->state);
		items[i].reason = (char *)(uintptr_t)(info->why != 0 ? err_text(info->why) : "");
		items[i].size_bytes = info->size_bytes;
		items[i].live_bytes = info->live_bytes;
		items[i].free_bytes = info->free_bytes;
		items[i].chunks = info->chunks;
		items[i].moved_bytes = info->moved_bytes;
		items[i].stuck = info->stuck;
		items[i].read_errors = info->read_errors;
		items[i].bad_blocks = info->bad_blocks;
	}
	m.body_case = PAVE__V1__CONTROL__BODY_NODE_DEVICES_REPLY;
	m.node_devices_reply = &reply;
	d->answer(token, 0, NULL, &m, d->arg);
}

static void changed(struct devices *d, int status, const struct error *err)
{
	d->busy = false;
	if (status < 0)
		d->answer(d->token, status, err->text, NULL, d->arg);
	else
		answer_list(d, d->token);
}

static void added(struct pool_add_op *op, int status, const struct error *err)
{
	changed(container_of(op, struct devices, add), status, err);
}

static void retired(struct pool_retire_op *op, int status, const struct error *err)
{
	changed(container_of(op, struct devices, retire), status, err);
}

/* Whether somebody has it open, without waiting for him, as disk_file_open would. */
static bool is_locked(const char *path)
{
	struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
	int fd = open(path, O_RDWR | O_CLOEXEC);
	bool locked = fd >= 0 && fcntl(fd, F_OFD_SETLK, &lock) != 0;

	if (fd >= 0)
		close(fd);
	return locked;
}

static bool has_already(const struct devices *d, const char *path)
{
	struct pool_device_info infos[POOL_DEVICES_MAX];
	uint32_t count = pool_devices(d->pool, infos, POOL_DEVICES_MAX);

	for (uint32_t i = 0; i < count; i++)
		if (strcmp(infos[i].path, path) == 0)
			return true;
	return false;
}

static void add_begin(struct devices *d)
{
	struct disk *disk = NULL;
	struct error err;
	int rc;

	if (d->path[0] != '/') {
		error_set(&err, -EINVAL, "device %s: a path that begins with / is needed", d->path);
		changed(d, -EINVAL, &err);
		return;
	}
	if (has_already(d, d->path))
		rc = error_set(&err, -E_IN_USE, "device %s: this node has it already", d->path);
	else if (is_locked(d->path))
		rc = error_set(&err, -E_IN_USE, "device %s: it is in use", d->path);
	else
		rc = disk_file_open(d->reactor, d->path, &disk, &err);
	if (rc != 0) {
		changed(d, rc, &err);
		return;
	}
	d->add = (struct pool_add_op){.done = added, .disk = disk, .path = d->path};
	pool_add(d->pool, &d->add);
}

void devices_ask(struct devices *d, uint64_t token, const Pave__V1__NodeDevices *what)
{
	const bool add = strcmp(what->action, "add") == 0;

	if (strcmp(what->action, "list") == 0) {
		answer_list(d, token);
		return;
	}
	if (!add && strcmp(what->action, "retire") != 0) {
		d->answer(token, -EOPNOTSUPP, "this node knows only list, add and retire", NULL,
			  d->arg);
		return;
	}
	if (d->busy || pool_is_changing(d->pool)) {
		d->answer(
		    token, -EBUSY,
		    "another device of this node is being added or let go of: ask again later",
		    NULL, d->arg);
		return;
	}
	if (strlen(what->path) >= sizeof d->path) {
		d->answer(token, -EINVAL, "the device's path is too long", NULL, d->arg);
		return;
	}
	d->busy = true;
	d->token = token;
	memcpy(d->path, what->path, strlen(what->path) + 1);
	if (add) {
		add_begin(d);
		return;
	}
	d->retire = (struct pool_retire_op){.done = retired, .path = d->path};
	pool_retire(d->pool, &d->retire);
}

int devices_start(struct reactor *r, struct pool *pool,
		  void (*answer)(uint64_t token, int status, const char *text,
				 const Pave__V1__Control *message, void *arg),
		  void *arg, struct devices **ret_devices)
{
	struct devices *d = calloc(1, sizeof(*d));

	if (d == NULL)
		return -ENOMEM;
	d->reactor = r;
	d->pool = pool;
	d->answer = answer;
	d->arg = arg;
	*ret_devices = d;
	return 0;
}

void devices_destroy(struct devices *d)
{
	free(d);
}
