/* pave volume: snapshot, clone, rollback, resize. Snapshots are volumes named NAME@SNAPSHOT: list,
 * show, attach and delete take them as they are. */
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/text.h"
#include "tools/pave/client.h"
#include "tools/pave/cmd.h"
#include "tools/pave/view.h"

#define LAYERS_TIMEOUT_MS 60000u /* settling what is in flight; planning */

/* The two operands of a command without other options than --force; false after a line on stderr.
 */
static bool two_operands(int argc, char **argv, const char *first, const char *second,
			 bool *ret_force)
{
	static const struct option options[] = {{"force", no_argument, NULL, 'f'}, {0}};
	int o;

	while ((o = getopt_long(argc, argv, "", options, NULL)) != -1) {
		if (o != 'f' || ret_force == NULL) {
			cmd_usage_error("it has no such option");
			return false;
		}
		*ret_force = true;
	}
	if (argc - optind == 2 && argv[optind][0] != '\0' && argv[optind + 1][0] != '\0')
		return true;
	cmd_usage_error("%s and %s are wanted", first, second);
	return false;
}

/* Asks, and prints the volume that comes back, or says what has become of it. */
static int ask(const Pave__V1__Control *m, const char *done)
{
	Pave__V1__Control *reply;
	const Pave__V1__VolumeInfo *v;
	struct error err;
	char size[32];
	int rc = 0;

	if (client_ask(m, PAVE__V1__CONTROL__BODY_VOLUME_GET_REPLY, LAYERS_TIMEOUT_MS, &reply,
		       &err) != 0)
		return cmd_fail(&err);
	v = reply->volume_get_reply->info;
	if (v == NULL) {
		fprintf(stderr, "pave %s: the driver's answer says nothing of the volume\n",
			cli.command->name);
		rc = 1;
	} else if (cli.json) {
		rc = cmd_print_json(view_volume(v));
	} else {
		printf("%s %s%s: %s", strchr(v->name, '@') != NULL ? "snapshot" : "volume", v->name,
		       done, text_size(v->size, size, sizeof size));
		if (v->settling)
			printf("; it can be read once what was in flight is settled: by the host "
			       "that has %s attached, or the next one",
			       v->origin);
		putchar('\n');
	}
	pave__v1__control__free_unpacked(reply, NULL);
	return rc;
}

int cmd_volume_snapshot(int argc, char **argv)
{
	Pave__V1__Control m = PAVE__V1__CONTROL__INIT;
	Pave__V1__VolumeSnapshot s = PAVE__V1__VOLUME_SNAPSHOT__INIT;

	if (!two_operands(argc, argv, "VOLUME", "SNAPSHOT", NULL))
		return 2;
	s.name = argv[optind];
	s.snapshot = argv[optind + 1];
	m.body_case = PAVE__V1__CONTROL__BODY_VOLUME_SNAPSHOT;
	m.volume_snapshot = &s;
	return ask(&m, " is taken");
}

int cmd_volume_clone(int argc, char **argv)
{
	Pave__V1__Control m = PAVE__V1__CONTROL__INIT;
	Pave__V1__VolumeClone c = PAVE__V1__VOLUME_CLONE__INIT;

	if (!two_operands(argc, argv, "VOLUME@SNAPSHOT", "NAME", NULL))
		return 2;
	c.source = argv[optind];
	c.name = argv[optind + 1];
	m.body_case = PAVE__V1__CONTROL__BODY_VOLUME_CLONE;
	m.volume_clone = &c;
	return ask(&m, " is cloned");
}

int cmd_volume_rollback(int argc, char **argv)
{
	static const struct option no_options[] = {{0}};
	Pave__V1__Control m = PAVE__V1__CONTROL__INIT;
	Pave__V1__VolumeRollback r = PAVE__V1__VOLUME_ROLLBACK__INIT;

	if (getopt_long(argc, argv, "", no_options, NULL) != -1)
		return cmd_usage_error("it has no such option");
	r.source = (char *)(uintptr_t)cmd_operand(argc, argv, "VOLUME@SNAPSHOT");
	if (r.source == NULL)
		return 2;
	m.body_case = PAVE__V1__CONTROL__BODY_VOLUME_ROLLBACK;
	m.volume_rollback = &r;
	return ask(&m, " is rolled back");
}

int cmd_volume_resize(int argc, char **argv)
{
	Pave__V1__Control m = PAVE__V1__CONTROL__INIT;
	Pave__V1__VolumeResize r = PAVE__V1__VOLUME_RESIZE__INIT;
	bool force = false;

	if (!two_operands(argc, argv, "VOLUME", "SIZE", &force))
		return 2;
	r.name = argv[optind];
	r.force = force;
	if (text_parse_size(argv[optind + 1], &r.size) != 0 || r.size == 0)
		return cmd_usage_error("\"%s\" is no size: as 512MiB, 10GiB", argv[optind + 1]);
	m.body_case = PAVE__V1__CONTROL__BODY_VOLUME_RESIZE;
	m.volume_resize = &r;
	return ask(&m,
		   " has another size, which an attached host serves once it has attached again");
}
