/* pave scrub start, pave scrub status. */
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "engine/base/text.h"
#include "tools/pave/client.h"
#include "tools/pave/cmd.h"
#include "tools/pave/view.h"

static const struct option no_options[] = {{0}};

/* The node that may be named, "" for all of them; NULL after a line on stderr. */
static const char *one_node_or_all(int argc, char **argv)
{
	if (getopt_long(argc, argv, "", no_options, NULL) != -1) {
		cmd_usage_error("it has no such option");
		return NULL;
	}
	return optind == argc ? "" : cmd_operand(argc, argv, "node");
}

static bool was_told(const Pave__V1__ScrubStartReply *r, const char *node)
{
	for (size_t i = 0; i < r->n_nodes; i++)
		if (strcmp(r->nodes[i], node) == 0)
			return true;
	return false;
}

/* The cluster's nodes that were not told, which therefore are not connected. */
static int not_told(const Pave__V1__ScrubStartReply *r, json_t **ret, struct error *err)
{
	Pave__V1__Control m = PAVE__V1__CONTROL__INIT;
	Pave__V1__NodeList list = PAVE__V1__NODE_LIST__INIT;
	Pave__V1__Control *reply;
	int rc;

	m.body_case = PAVE__V1__CONTROL__BODY_NODE_LIST;
	m.node_list = &list;
	rc = client_ask(&m, PAVE__V1__CONTROL__BODY_NODE_LIST_REPLY, 0, &reply, err);
	if (rc != 0)
		return rc;
	*ret = json_array();
	for (size_t i = 0; i < reply->node_list_reply->n_nodes; i++) {
		const char *node = reply->node_list_reply->nodes[i]->node;

		if (!was_told(r, node))
			json_array_append_new(*ret, json_string(node));
	}
	pave__v1__control__free_unpacked(reply, NULL);
	return 0;
}

static void print_told(const Pave__V1__ScrubStartReply *r, const json_t *missing)
{
	const json_t *node;
	size_t i;

	printf("Told to read everything again:");
	for (i = 0; i < r->n_nodes; i++)
		printf(" %s", r->nodes[i]);
	printf("%s. `pave scrub status` shows how far they are.\n",
	       r->n_nodes == 0 ? " no node, none is connected" : "");
	if (json_array_size(missing) == 0)
		return;
	printf("Not connected, and not told:");
	json_array_foreach (missing, i, node)
		printf(" %s", json_string_value(node));
	printf(". Start it again once they are there.\n");
}

int cmd_scrub_start(int argc, char **argv)
{
	Pave__V1__Control m = PAVE__V1__CONTROL__INIT;
	Pave__V1__ScrubStart start = PAVE__V1__SCRUB_START__INIT;
	const Pave__V1__ScrubStartReply *r;
	Pave__V1__Control *reply;
	struct error err;
	const char *node = one_node_or_all(argc, argv);
	json_t *missing = NULL;
	int rc = 0;

	if (node == NULL)
		return 2;
	start.node = (char *)(uintptr_t)node;
	m.body_case = PAVE__V1__CONTROL__BODY_SCRUB_START;
	m.scrub_start = &start;
	if (client_ask(&m, PAVE__V1__CONTROL__BODY_SCRUB_START_REPLY, 0, &reply, &err) != 0)
		return cmd_fail(&err);
	r = reply->scrub_start_reply;
	if (node[0] != '\0')
		missing = json_array();
	else if (not_told(r, &missing, &err) != 0) {
		pave__v1__control__free_unpacked(reply, NULL);
		return cmd_fail(&err);
	}
	if (cli.json) {
		json_t *nodes = json_array();

		for (size_t i = 0; i < r->n_nodes; i++)
			json_array_append_new(nodes, json_string(r->nodes[i]));
		rc = cmd_print_json(json_pack("{s:o,s:O}", "nodes", nodes, "not_told", missing));
	} else {
		print_told(r, missing);
	}
	json_decref(missing);
	pave__v1__control__free_unpacked(reply, NULL);
	return rc;
}

/* -- status ----------------------------------------------------------------------------------- */

/* Until the end of the pass; 0: not known. */
static uint64_t left_s(const Pave__V1__ScrubState *s)
{
	if (!s->running || s->rate == 0 || s->done_bytes >= s->total_bytes)
		return 0;
	return (s->total_bytes - s->done_bytes) / s->rate + 1;
}

/* The period asks for more than the scrub takes. */
static bool is_late(const Pave__V1__ScrubState *s)
{
	return s != NULL && s->needed_rate > s->max_rate;
}

/* The shortest period that would be kept: a pass takes four fifths of it. */
static uint64_t kept_period_s(const Pave__V1__ScrubState *s)
{
	return (uint64_t)((double)s->period_s * (double)s->needed_rate * 5 / 4 /
			  (double)MAX(s->max_rate, 1u)) +
	       1;
}

static json_t *scrub_json(const Pave__V1__NodeInfo *n)
{
	const Pave__V1__ScrubState *s = n->scrub;
	json_t *o = json_pack("{s:s,s:s}", "node", n->node, "node_state", n->state);
	json_t *left = json_null();

	if (s == NULL) {
		json_object_set_new(o, "state", json_string("unknown"));
		return o;
	}
	if (left_s(s) > 0)
		left = json_integer((json_int_t)left_s(s));
	json_object_set_new(o, "state", json_string(s->running ? "running" : "waiting"));
	json_object_set_new(o, "period_s", json_integer((json_int_t)s->period_s));
	json_object_set_new(o, "passes", json_integer((json_int_t)s->passes));
	json_object_set_new(o, "started_at", view_time(s->started_at));
	json_object_set_new(o, "finished_at", view_time(s->finished_at));
	json_object_set_new(o, "total_bytes", json_integer((json_int_t)s->total_bytes));
	json_object_set_new(o, "done_bytes", json_integer((json_int_t)s->done_bytes));
	json_object_set_new(o, "bytes_per_s", json_integer((json_int_t)s->rate));
	json_object_set_new(o, "left_s", left);
	json_object_set_new(o, "found_blocks", json_integer((json_int_t)s->found));
	json_object_set_new(o, "repaired_blocks", json_integer((json_int_t)s->repaired));
	json_object_set_new(o, "damaged_blocks", json_integer(s->damaged));
	json_object_set_new(o, "late", json_boolean(is_late(s)));
	json_object_set_new(o, "needed_bytes_per_s", json_integer((json_int_t)s->needed_rate));
	json_object_set_new(o, "max_bytes_per_s", json_integer((json_int_t)s->max_rate));
	return o;
}

static const char *period_text(uint64_t period_s, char *buf, size_t size)
{
	if (period_s == 0)
		return "when asked";
	if (period_s % 86400 == 0)
		snprintf(buf, size, "%" PRIu64 "d", period_s / 86400);
	else if (period_s % 3600 == 0)
		snprintf(buf, size, "%" PRIu64 "h", period_s / 3600);
	else
		snprintf(buf, size, "%" PRIu64 "s", period_s);
	return buf;
}

static const char *left_text(const Pave__V1__ScrubState *s, char *buf, size_t size)
{
	uint64_t left = left_s(s);

	if (left == 0)
		return "";
	if (left < 120)
		snprintf(buf, size, "%" PRIu64 "s", left);
	else if (left < 7200)
		snprintf(buf, size, "%" PRIu64 "min", left / 60);
	else
		snprintf(buf, size, "%" PRIu64 "h", left / 3600);
	return buf;
}

static void add_row(struct table *t, const Pave__V1__NodeInfo *n)
{
	const Pave__V1__ScrubState *s = n->scrub;
	char buf[40];

	table_add(t, "%s", n->node);
	if (s == NULL) {
		table_add(t, "not known");
		for (unsigned i = 2; i < t->columns; i++)
			table_add(t, "%s", "");
		return;
	}
	table_add(t, "%s", s->running ? "running" : "waiting");
	table_add(t, "%s", period_text(s->period_s, buf, sizeof buf));
	if (s->running && s->total_bytes > 0)
		table_add(t, "%.1f %%", 100.0 * (double)s->done_bytes / (double)s->total_bytes);
	else
		table_add(t, "%s", "");
	if (s->running && s->rate > 0)
		table_add(t, "%s/s", view_size_text(s->rate, buf, sizeof buf));
	else
		table_add(t, "%s", "");
	table_add(t, "%s", left_text(s, buf, sizeof buf));
	table_add(t, "%" PRIu64, s->passes);
	table_add(t, "%s", view_time_text(s->finished_at, buf, sizeof buf));
	table_add(t, "%" PRIu64, s->found);
	table_add(t, "%" PRIu64, s->repaired);
	table_add(t, "%u", s->damaged);
}

static void print_late(const Pave__V1__NodeInfo *n)
{
	char period[40], needed[40], max[40], kept[40];
	const Pave__V1__ScrubState *s = n->scrub;

	printf("%s: the scrub will be late: its period of %s asks for %s/s of a device, and it "
	       "takes no "
	       "more than %s/s from clients. "
	       "Give it a --scrub-period of %s or longer, or more devices.\n",
	       n->node, period_text(s->period_s, period, sizeof period),
	       view_size_text(s->needed_rate, needed, sizeof needed),
	       view_size_text(s->max_rate, max, sizeof max),
	       period_text(ROUND_UP(kept_period_s(s), 3600u), kept, sizeof kept));
}

static void print_table(Pave__V1__NodeInfo *const *list, size_t count, const char *node)
{
	static const char *const titles[] = {"NODE",  "SCRUB",	  "PERIOD", "DONE",
					     "RATE",  "LEFT",	  "PASSES", "LAST WHOLE PASS",
					     "FOUND", "REPAIRED", "DAMAGED"};
	bool damaged = false;
	struct table t;

	table_init(&t, ARRAY_SIZE(titles), titles);
	for (unsigned c = 3; c < ARRAY_SIZE(titles); c++)
		t.right[c] = c != 7;
	for (size_t i = 0; i < count; i++) {
		if (node[0] != '\0' && strcmp(list[i]->node, node) != 0)
			continue;
		add_row(&t, list[i]);
		damaged = damaged || (list[i]->scrub != NULL && list[i]->scrub->damaged > 0);
	}
	table_print(&t);
	for (size_t i = 0; i < count; i++)
		if ((node[0] == '\0' || strcmp(list[i]->node, node) == 0) &&
		    is_late(list[i]->scrub))
			print_late(list[i]);
	if (damaged)
		printf("Damaged blocks are written again, from another replica, by the host that "
		       "has the volume attached.\n"
		       "Those of a detached volume wait until it is attached.\n");
}

int cmd_scrub_status(int argc, char **argv)
{
	Pave__V1__Control m = PAVE__V1__CONTROL__INIT;
	Pave__V1__NodeList list = PAVE__V1__NODE_LIST__INIT;
	const Pave__V1__NodeListReply *r;
	Pave__V1__Control *reply;
	struct error err;
	const char *node = one_node_or_all(argc, argv);
	json_t *nodes;
	size_t found = 0;
	int rc = 0;

	if (node == NULL)
		return 2;
	m.body_case = PAVE__V1__CONTROL__BODY_NODE_LIST;
	m.node_list = &list;
	if (client_ask(&m, PAVE__V1__CONTROL__BODY_NODE_LIST_REPLY, 0, &reply, &err) != 0)
		return cmd_fail(&err);
	r = reply->node_list_reply;
	nodes = json_array();
	for (size_t i = 0; i < r->n_nodes; i++) {
		if (node[0] != '\0' && strcmp(r->nodes[i]->node, node) != 0)
			continue;
		json_array_append_new(nodes, scrub_json(r->nodes[i]));
		found++;
	}
	if (found == 0 && node[0] != '\0') {
		error_set(&err, -ENOENT, "there is no node \"%.64s\": pave node list", node);
		rc = cmd_fail(&err);
	} else if (cli.json) {
		rc = cmd_print_json(json_pack("{s:O}", "nodes", nodes));
	} else if (found == 0) {
		printf("No nodes have registered yet.\n");
	} else {
		print_table(r->nodes, r->n_nodes, node);
	}
	json_decref(nodes);
	pave__v1__control__free_unpacked(reply, NULL);
	return rc;
}
