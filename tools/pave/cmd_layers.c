/* pave volume: snapshot, clone, rollback, resize, diff. Snapshots are volumes named NAME@SNAPSHOT:
 * list, show, attach and delete take them as they are. */
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
	if (!cmd_size("the new size", argv[optind + 1], &r.size))
		return 2;
	m.body_case = PAVE__V1__CONTROL__BODY_VOLUME_RESIZE;
	m.volume_resize = &r;
	return ask(&m, " is resized; a host that has it attached serves that at once, and clients "
		       "see it when they connect again");
}

/* -- diff ------------------------------------------------------------------------------------- */

struct diff {
	const char *from;
	char to[NAME_SIZE_MAX];
	json_t *extents; /* NULL: they are printed as they come */
	uint64_t size, from_size, changed, count;
	Pave__V1__DiffExtent last; /* size 0: none; not given out yet, the next may go on from it */
};

static void put_extent(struct diff *d)
{
	const Pave__V1__DiffExtent *x = &d->last;

	if (x->size == 0)
		return;
	d->changed += x->size;
	if (d->extents != NULL)
		json_array_append_new(
		    d->extents, json_pack("{s:I, s:I, s:b}", "offset", (json_int_t)x->offset,
					  "length", (json_int_t)x->size, "zero", (int)x->zero));
	else if (d->count++ == 0)
		printf("%20s %20s  %s\n", "OFFSET", "LENGTH", "CONTENT");
	if (d->extents == NULL)
		printf("%20" PRIu64 " %20" PRIu64 "  %s\n", x->offset, x->size,
		       x->zero ? "zeroes" : "data");
}

static void take_extents(struct diff *d, const Pave__V1__VolumeDiffReply *r)
{
	for (size_t i = 0; i < r->n_extents; i++) {
		const Pave__V1__DiffExtent *x = r->extents[i];

		if (d->last.size != 0 && d->last.offset + d->last.size == x->offset &&
		    d->last.zero == x->zero) {
			d->last.size += x->size;
			continue;
		}
		put_extent(d);
		d->last = *x;
	}
	d->size = r->size;
	d->from_size = r->from_size;
}

/* Chunk by chunk. The exit code. */
static int ask_diff(struct diff *d)
{
	Pave__V1__Control m = PAVE__V1__CONTROL__INIT;
	Pave__V1__VolumeDiff a = PAVE__V1__VOLUME_DIFF__INIT;
	Pave__V1__Control *reply;
	struct error err;
	bool more = true;

	m.body_case = PAVE__V1__CONTROL__BODY_VOLUME_DIFF;
	m.volume_diff = &a;
	a.from = (char *)(uintptr_t)d->from;
	a.to = d->to;
	while (more) {
		const Pave__V1__VolumeDiffReply *r;

		if (client_ask(&m, PAVE__V1__CONTROL__BODY_VOLUME_DIFF_REPLY, LAYERS_TIMEOUT_MS,
			       &reply, &err) != 0)
			return cmd_fail(&err);
		r = reply->volume_diff_reply;
		take_extents(d, r);
		more = r->more && r->next > a.offset;
		a.offset = r->next;
		pave__v1__control__free_unpacked(reply, NULL);
	}
	put_extent(d);
	return 0;
}

int cmd_volume_diff(int argc, char **argv)
{
	static const struct option no_options[] = {{0}};
	struct diff d = {0};
	char changed[32], size[32];
	const char *at;
	int rc;

	if (getopt_long(argc, argv, "", no_options, NULL) != -1)
		return cmd_usage_error("it has no such option");
	if (argc - optind < 1 || argc - optind > 2 || strchr(argv[optind], '@') == NULL)
		return cmd_usage_error("VOLUME@SNAPSHOT is wanted, and what to compare it with");
	d.from = argv[optind];
	at = strchr(d.from, '@');
	if (argc - optind == 2)
		snprintf(d.to, sizeof d.to, "%s", argv[optind + 1]);
	else
		snprintf(d.to, sizeof d.to, "%.*s", (int)(at - d.from), d.from);
	if (cli.json)
		d.extents = json_array();
	rc = ask_diff(&d);
	if (rc != 0) {
		json_decref(d.extents);
		return rc;
	}
	if (cli.json)
		return cmd_print_json(json_pack(
		    "{s:s, s:s, s:I, s:I, s:I, s:o}", "from", d.from, "to", d.to, "from_size_bytes",
		    (json_int_t)d.from_size, "size_bytes", (json_int_t)d.size, "changed_bytes",
		    (json_int_t)d.changed, "extents", d.extents));
	printf("%s of %s may differ between %s and %s\n",
	       text_size(d.changed, changed, sizeof changed), text_size(d.size, size, sizeof size),
	       d.from, d.to);
	return 0;
}
