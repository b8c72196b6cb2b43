/* pave node device list, add, retire: passed on by the driver to the node, which answers with the
 * list of its devices as they are then. */
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "engine/base/text.h"
#include "tools/pave/client.h"
#include "tools/pave/cmd.h"
#include "tools/pave/view.h"

#define DEVICE_TIMEOUT_MS 65000u

static const struct option no_options[] = {{0}};

static const char *uuid_of(const Pave__V1__DeviceInfo *d, char *buf, size_t size)
{
	struct uuid uuid = {{0}};

	if (d->uuid.len == sizeof uuid.bytes)
		memcpy(uuid.bytes, d->uuid.data, sizeof uuid.bytes);
	return text_uuid(&uuid, buf, size);
}

static json_t *device_json(const Pave__V1__DeviceInfo *d)
{
	char buf[40];
	json_t *o = json_pack("{s:s,s:s,s:s}", "path", d->path, "uuid", uuid_of(d, buf, sizeof buf),
			      "state", d->state);

	json_object_set_new(o, "reason",
			    d->reason[0] != '\0' ? json_string(d->reason) : json_null());
	json_object_set_new(o, "size_bytes", json_integer((json_int_t)d->size_bytes));
	json_object_set_new(o, "live_bytes", json_integer((json_int_t)d->live_bytes));
	json_object_set_new(o, "free_bytes", json_integer((json_int_t)d->free_bytes));
	json_object_set_new(o, "chunks", json_integer((json_int_t)d->chunks));
	json_object_set_new(o, "moved_bytes", json_integer((json_int_t)d->moved_bytes));
	json_object_set_new(o, "stuck_chunks", json_integer((json_int_t)d->stuck));
	json_object_set_new(o, "read_errors", json_integer((json_int_t)d->read_errors));
	json_object_set_new(o, "bad_blocks", json_integer((json_int_t)d->bad_blocks));
	return o;
}

static void print_table(const Pave__V1__NodeDevicesReply *r)
{
	static const char *const titles[] = {"DEVICE", "STATE", "SIZE",	  "LIVE", "FREE",
					     "CHUNKS", "MOVED", "ERRORS", "UUID"};
	struct table t;
	char buf[40];

	table_init(&t, ARRAY_SIZE(titles), titles);
	for (unsigned c = 2; c <= 7; c++)
		t.right[c] = true;
	for (size_t i = 0; i < r->n_devices; i++) {
		const Pave__V1__DeviceInfo *d = r->devices[i];

		table_add(&t, "%s", d->path);
		table_add(&t, "%s", d->state);
		table_add(&t, "%s", view_size_text(d->size_bytes, buf, sizeof buf));
		table_add(&t, "%s", view_size_text(d->live_bytes, buf, sizeof buf));
		table_add(&t, "%s", view_size_text(d->free_bytes, buf, sizeof buf));
		table_add(&t, "%" PRIu64, d->chunks);
		table_add(&t, "%s",
			  d->moved_bytes > 0 ? view_size_text(d->moved_bytes, buf, sizeof buf)
					     : "");
		table_add(&t, "%" PRIu64, d->read_errors + d->bad_blocks);
		table_add(&t, "%s", uuid_of(d, buf, sizeof buf));
	}
	table_print(&t);
	for (size_t i = 0; i < r->n_devices; i++) {
		const Pave__V1__DeviceInfo *d = r->devices[i];

		if (d->reason[0] != '\0')
			printf("%s: %s; what lies on it is answered with errors\n", d->path,
			       d->reason);
		if (d->stuck > 0)
			printf("%s: %" PRIu64 " chunks could not be moved, and are tried again; "
			       "damaged blocks must be repaired first: pave scrub status\n",
			       d->path, d->stuck);
	}
}

int cmd_node_device(int argc, char **argv)
{
	Pave__V1__Control m = PAVE__V1__CONTROL__INIT;
	Pave__V1__NodeDevices ask = PAVE__V1__NODE_DEVICES__INIT;
	const Pave__V1__NodeDevicesReply *r;
	Pave__V1__Control *reply;
	struct error err;
	bool list;
	int rc = 0;

	if (getopt_long(argc, argv, "", no_options, NULL) != -1)
		return cmd_usage_error("it has no such option");
	if (argc == optind)
		return cmd_usage_error("list, add or retire is needed");
	ask.action = argv[optind];
	list = strcmp(ask.action, "list") == 0;
	if (!list && strcmp(ask.action, "add") != 0 && strcmp(ask.action, "retire") != 0)
		return cmd_usage_error("it does not know %s: list, add or retire", ask.action);
	if (argc - optind != (list ? 2 : 3))
		return cmd_usage_error(list ? "a node is needed, and nothing else"
					    : "a node and a path are needed, and nothing else");
	ask.node = argv[optind + 1];
	if (!list)
		ask.path = argv[optind + 2];
	m.body_case = PAVE__V1__CONTROL__BODY_NODE_DEVICES;
	m.node_devices = &ask;
	if (client_ask(&m, PAVE__V1__CONTROL__BODY_NODE_DEVICES_REPLY, DEVICE_TIMEOUT_MS, &reply,
		       &err) != 0)
		return cmd_fail(&err);
	r = reply->node_devices_reply;
	if (cli.json) {
		json_t *devices = json_array();

		for (size_t i = 0; i < r->n_devices; i++)
			json_array_append_new(devices, device_json(r->devices[i]));
		rc = cmd_print_json(json_pack("{s:s,s:o}", "node", ask.node, "devices", devices));
	} else {
		print_table(r);
	}
	pave__v1__control__free_unpacked(reply, NULL);
	return rc;
}
