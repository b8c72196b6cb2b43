/* pave node drain, undrain, remove; pave site evacuate; pave rebalance. */
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/text.h"
#include "tools/common/duration.h"
#include "tools/pave/client.h"
#include "tools/pave/cmd.h"
#include "tools/pave/dev.h"
#include "tools/pave/view.h"

#define BAR_WIDTH	40u
#define PLAN_SHOWN	20u /* moves, for people; --all shows more */
#define PLAN_SHOWN_MAX	10000u
#define PLAN_TIMEOUT_MS 60000u
#define RATE_NONE	"as fast as it goes"

static const struct option no_options[] = {{0}};

/* -- asking ----------------------------------------------------------------------------------- */

static int ask_empty(const Pave__V1__Control *m)
{
	Pave__V1__Control *reply;
	struct error err;

	if (client_ask(m, PAVE__V1__CONTROL__BODY_EMPTY, 0, &reply, &err) != 0)
		return cmd_fail(&err);
	pave__v1__control__free_unpacked(reply, NULL);
	return 0;
}

static int drain(const char *node, const char *site, bool undo)
{
	Pave__V1__Control m = PAVE__V1__CONTROL__INIT;
	Pave__V1__NodeDrain d = PAVE__V1__NODE_DRAIN__INIT;
	int rc;

	d.node = (char *)(uintptr_t)(node != NULL ? node : "");
	d.site = (char *)(uintptr_t)(site != NULL ? site : "");
	d.undo = undo;
	m.body_case = PAVE__V1__CONTROL__BODY_NODE_DRAIN;
	m.node_drain = &d;
	rc = ask_empty(&m);
	if (rc != 0)
		return rc;
	if (cli.json)
		return cmd_print_json(json_pack("{s:s,s:b}", node != NULL ? "node" : "site",
						node != NULL ? node : site, "drain", !undo));
	if (undo)
		printf("%s %s takes copies again\n", node != NULL ? "node" : "site",
		       node != NULL ? node : site);
	else
		printf("%s %s: nothing is placed there any more, and what is there moves away: "
		       "pave rebalance status\n",
		       node != NULL ? "node" : "site", node != NULL ? node : site);
	return 0;
}

static const char *only_operand(int argc, char **argv, const char *what)
{
	if (getopt_long(argc, argv, "", no_options, NULL) == -1)
		return cmd_operand(argc, argv, what);
	cmd_usage_error("it has no such option");
	return NULL;
}

int cmd_node_drain(int argc, char **argv)
{
	const char *node = only_operand(argc, argv, "NODE");

	return node == NULL ? 2 : drain(node, NULL, false);
}

int cmd_node_undrain(int argc, char **argv)
{
	const char *node = only_operand(argc, argv, "NODE");

	return node == NULL ? 2 : drain(node, NULL, true);
}

int cmd_site_evacuate(int argc, char **argv)
{
	static const struct option options[] = {{"undo", no_argument, NULL, 'u'}, {0}};
	bool undo = false;
	const char *site;
	int c;

	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
		if (c != 'u')
			return cmd_usage_error("it has no such option");
		undo = true;
	}
	site = cmd_operand(argc, argv, "SITE");
	return site == NULL ? 2 : drain(NULL, site, undo);
}

int cmd_node_remove(int argc, char **argv)
{
	static const struct option options[] = {{"force", no_argument, NULL, 'f'}, {0}};
	Pave__V1__Control m = PAVE__V1__CONTROL__INIT;
	Pave__V1__NodeRemove r = PAVE__V1__NODE_REMOVE__INIT;
	struct cluster_ref cluster;
	struct error err;
	int c, rc;

	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
		if (c != 'f')
			return cmd_usage_error("it has no such option");
		r.force = true;
	}
	r.node = (char *)(uintptr_t)cmd_operand(argc, argv, "NODE");
	if (r.node == NULL)
		return 2;
	m.body_case = PAVE__V1__CONTROL__BODY_NODE_REMOVE;
	m.node_remove = &r;
	rc = ask_empty(&m);
	if (rc != 0)
		return rc;
	rc = cmd_cluster(&cluster, &err);
	if (rc == 0 && cluster.dir[0] != '\0')
		rc = dev_forget_node(cluster.dir, r.node, &err);
	if (rc != 0) {
		error_wrap(&err, "node %s is removed, but dev up starts it again", r.node);
		return cmd_fail(&err);
	}
	if (cli.json)
		return cmd_print_json(json_pack("{s:s}", "removed", r.node));
	printf("node %s is removed; it is forgotten once no copy is placed on it\n", r.node);
	return 0;
}

/* -- plan ------------------------------------------------------------------------------------- */

static json_t *move_json(const Pave__V1__PlannedMove *m)
{
	return json_pack("{s:s,s:I,s:s,s:s,s:s}", "volume", m->volume, "chunk",
			 (json_int_t)m->chunk, "from", m->from, "to", m->to, "why", m->why);
}

static double percent(uint64_t part, uint64_t whole)
{
	return whole > 0 ? 100.0 * (double)part / (double)whole : 0;
}

static json_t *plan_json(const Pave__V1__RebalancePlanReply *r)
{
	json_t *moves = json_array(), *nodes = json_array();

	for (size_t i = 0; i < r->n_moves; i++)
		json_array_append_new(moves, move_json(r->moves[i]));
	for (size_t i = 0; i < r->n_loads; i++)
		json_array_append_new(
		    nodes,
		    json_pack("{s:s,s:s,s:I,s:I,s:I}", "node", r->loads[i]->node, "site",
			      r->loads[i]->site, "size_bytes", (json_int_t)r->loads[i]->size_bytes,
			      "placed_before_bytes", (json_int_t)r->loads[i]->placed_before,
			      "placed_after_bytes", (json_int_t)r->loads[i]->placed_after));
	return json_pack(
	    "{s:I,s:I,s:I,s:I,s:o,s:I,s:s,s:o,s:o}", "moves_total", (json_int_t)r->move_count,
	    "chunk_bytes", (json_int_t)r->chunk_bytes, "copy_bytes", (json_int_t)r->copy_bytes,
	    "rate_bytes_per_s", (json_int_t)r->rate, "seconds",
	    r->rate > 0 ? json_real((double)r->copy_bytes / (double)r->rate) : json_null(), "stuck",
	    (json_int_t)r->stuck, "stuck_why", r->stuck_why, "moves", moves, "nodes", nodes);
}

static void print_loads(const Pave__V1__RebalancePlanReply *r)
{
	static const char *const titles[] = {"NODE", "SITE", "SIZE", "PLACED", "AFTER"};
	double low[2] = {1e9, 1e9}, high[2] = {0, 0};
	struct table t;
	char size[32];

	table_init(&t, ARRAY_SIZE(titles), titles);
	t.right[2] = t.right[3] = t.right[4] = true;
	for (size_t i = 0; i < r->n_loads; i++) {
		const Pave__V1__NodeLoad *l = r->loads[i];
		const double p[2] = {percent(l->placed_before, l->size_bytes),
				     percent(l->placed_after, l->size_bytes)};

		for (int k = 0; k < 2; k++) {
			low[k] = MIN(low[k], p[k]);
			high[k] = MAX(high[k], p[k]);
		}
		table_add(&t, "%s", l->node);
		table_add(&t, "%s", l->site);
		table_add(&t, "%s", view_size_text(l->size_bytes, size, sizeof size));
		table_add(&t, "%.1f%%", p[0]);
		table_add(&t, "%.1f%%", p[1]);
	}
	table_print(&t);
	if (r->n_loads > 0)
		printf("placed, of the nodes' sizes: %.1f%% to %.1f%% before, %.1f%% to %.1f%% "
		       "after\n",
		       low[0], high[0], low[1], high[1]);
}

static void print_plan(const Pave__V1__RebalancePlanReply *r)
{
	static const char *const titles[] = {"VOLUME", "CHUNK", "FROM", "TO", "WHY"};
	char bytes[32], rate[32];
	struct table t;

	if (r->move_count == 0 && r->stuck == 0)
		printf("Nothing has to move.\n");
	if (r->n_moves > 0) {
		table_init(&t, ARRAY_SIZE(titles), titles);
		t.right[1] = true;
		for (size_t i = 0; i < r->n_moves; i++) {
			table_add(&t, "%s", r->moves[i]->volume);
			table_add(&t, "%u", r->moves[i]->chunk);
			table_add(&t, "%s", r->moves[i]->from);
			table_add(&t, "%s", r->moves[i]->to);
			table_add(&t, "%s", r->moves[i]->why);
		}
		table_print(&t);
		if (r->move_count > r->n_moves)
			printf("... and %" PRIu64 " more: --all\n", r->move_count - r->n_moves);
		printf("\n%" PRIu64 " moves, about %s to copy; ", r->move_count,
		       view_size_text(r->copy_bytes, bytes, sizeof bytes));
		if (r->rate > 0)
			printf("at %s/s: %.0f s\n", view_size_text(r->rate, rate, sizeof rate),
			       (double)r->copy_bytes / (double)r->rate);
		else
			printf(RATE_NONE " (--rate bounds it)\n");
	}
	if (r->stuck > 0)
		printf("%" PRIu64 " copies must leave and cannot; %s\n", r->stuck, r->stuck_why);
	putchar('\n');
	print_loads(r);
}

int cmd_rebalance_plan(int argc, char **argv)
{
	static const struct option options[] = {{"all", no_argument, NULL, 'a'}, {0}};
	Pave__V1__Control m = PAVE__V1__CONTROL__INIT;
	Pave__V1__RebalancePlan plan = PAVE__V1__REBALANCE_PLAN__INIT;
	Pave__V1__Control *reply;
	struct error err;
	int c, rc = 0;

	plan.balance = true;
	plan.moves_max = cli.json ? PLAN_SHOWN_MAX : PLAN_SHOWN;
	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
		if (c != 'a')
			return cmd_usage_error("it has no such option");
		plan.moves_max = PLAN_SHOWN_MAX;
	}
	if (optind != argc)
		return cmd_usage_error("it takes no operand");
	m.body_case = PAVE__V1__CONTROL__BODY_REBALANCE_PLAN;
	m.rebalance_plan = &plan;
	if (client_ask(&m, PAVE__V1__CONTROL__BODY_REBALANCE_PLAN_REPLY, PLAN_TIMEOUT_MS, &reply,
		       &err) != 0)
		return cmd_fail(&err);
	if (cli.json)
		rc = cmd_print_json(plan_json(reply->rebalance_plan_reply));
	else
		print_plan(reply->rebalance_plan_reply);
	pave__v1__control__free_unpacked(reply, NULL);
	return rc;
}

/* -- run, pause, resume, cancel, set ---------------------------------------------------------- */

static int parse_rate(const char *text, Pave__V1__RebalanceSet *s)
{
	s->has_rate = true;
	if (strcmp(text, "none") == 0)
		s->rate = 0;
	else if (text_parse_size(text, &s->rate) != 0 || s->rate == 0)
		return cmd_usage_error("--rate %s: bytes a second are wanted, as 100MiB, or none",
				       text);
	return 0;
}

static int parse_grace(const char *text, Pave__V1__RebalanceSet *s)
{
	uint64_t ms;

	if (duration_parse_ms(text, &ms) != 0 || ms < 1000 || ms / 1000 > UINT32_MAX)
		return cmd_usage_error("--replace-after %s: 1s to 49710d, as 15m", text);
	s->has_replace_after = true;
	s->replace_after_s = (uint32_t)(ms / 1000);
	return 0;
}

static int set(int argc, char **argv, const char *action, const char *said)
{
	static const struct option options[] = {{"rate", required_argument, NULL, 'r'},
						{"replace-after", required_argument, NULL, 'g'},
						{0}};
	Pave__V1__Control m = PAVE__V1__CONTROL__INIT;
	Pave__V1__RebalanceSet s = PAVE__V1__REBALANCE_SET__INIT;
	const bool only_sets = strcmp(action, "set") == 0;
	int c, rc = 0;

	s.action = (char *)(uintptr_t)action;
	while (rc == 0 && (c = getopt_long(argc, argv, "", options, NULL)) != -1) {
		if (c == 'r' && (only_sets || strcmp(action, "run") == 0))
			rc = parse_rate(optarg, &s);
		else if (c == 'g' && only_sets)
			rc = parse_grace(optarg, &s);
		else
			rc = cmd_usage_error("it has no such option");
	}
	if (rc != 0)
		return rc;
	if (optind != argc || (only_sets && !s.has_rate && !s.has_replace_after))
		return cmd_usage_error(only_sets ? "--rate or --replace-after is wanted"
						 : "it takes no operand");
	m.body_case = PAVE__V1__CONTROL__BODY_REBALANCE_SET;
	m.rebalance_set = &s;
	rc = ask_empty(&m);
	if (rc != 0)
		return rc;
	if (cli.json)
		return cmd_print_json(json_pack("{s:s}", "action", action));
	printf("%s\n", said);
	return 0;
}

int cmd_rebalance_run(int argc, char **argv)
{
	return set(argc, argv, "run", "the nodes are being levelled: pave rebalance status");
}

int cmd_rebalance_pause(int argc, char **argv)
{
	return set(argc, argv, "pause",
		   "no move begins until `pave rebalance resume`, but away from sites that are not "
		   "eligible, from lost nodes, and of copies that lie closer together than their "
		   "policy has it");
}

int cmd_rebalance_resume(int argc, char **argv)
{
	return set(argc, argv, "resume", "moves go on");
}

int cmd_rebalance_cancel(int argc, char **argv)
{
	return set(
	    argc, argv, "cancel",
	    "levelling has ended; what is under way for it is given up, what has moved stays; "
	    "drains and evacuations go on (pave node undrain, pave site evacuate --undo)");
}

int cmd_rebalance_set(int argc, char **argv)
{
	return set(argc, argv, "set", "the bounds are set: pave rebalance status");
}

/* -- status ----------------------------------------------------------------------------------- */

/* Bytes a second since it began; 0: not known. */
static double average_rate(const Pave__V1__RebalanceStatusReply *r)
{
	const double seconds = (double)(r->wall - r->started_at) / 1e9;

	return r->started_at != 0 && seconds > 0 ? (double)r->bytes_done / seconds : 0;
}

static json_t *status_json(const Pave__V1__RebalanceStatusReply *r)
{
	const double rate = average_rate(r);
	const double left = (double)r->bytes_total - (double)r->bytes_done;
	json_t *active = json_array();
	json_t *o;

	for (size_t i = 0; i < r->n_active; i++) {
		json_t *m = move_json(r->active[i]->move);

		json_object_set_new(m, "since", view_time(r->active[i]->since));
		json_array_append_new(active, m);
	}
	o = json_pack("{s:s,s:b,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:s,s:o}", "state", r->state,
		      "balancing", r->balancing, "rate_bytes_per_s", (json_int_t)r->rate,
		      "replace_after_s", (json_int_t)r->replace_after_s, "moves_total",
		      (json_int_t)r->moves_total, "moves_done", (json_int_t)r->moves_done,
		      "bytes_total", (json_int_t)r->bytes_total, "bytes_done",
		      (json_int_t)r->bytes_done, "erasing", (json_int_t)r->erasing, "stuck",
		      (json_int_t)r->stuck, "stuck_why", r->stuck_why, "active", active);
	json_object_set_new(o, "started_at", view_time(r->started_at));
	json_object_set_new(o, "average_bytes_per_s", json_real(rate));
	json_object_set_new(o, "seconds_left",
			    rate > 0 && r->started_at != 0 ? json_real(left / rate) : json_null());
	return o;
}

static void print_bar(const Pave__V1__RebalanceStatusReply *r)
{
	const double done = r->moves_total > 0 ? (double)r->moves_done / (double)r->moves_total : 0;
	const double rate = average_rate(r);
	char a[32], b[32], c[32];

	printf("[");
	for (unsigned i = 0; i < BAR_WIDTH; i++)
		putchar((double)i < done * BAR_WIDTH ? '#' : '.');
	printf("] %.0f%%  %" PRIu64 " of %" PRIu64 " copies, about %s of %s", done * 100,
	       r->moves_done, r->moves_total, view_size_text(r->bytes_done, a, sizeof a),
	       view_size_text(r->bytes_total, b, sizeof b));
	if (rate > 0)
		printf(", %s/s, %.0f s left", view_size_text((uint64_t)rate, c, sizeof c),
		       ((double)r->bytes_total - (double)r->bytes_done) / rate);
	putchar('\n');
}

static void print_status(const Pave__V1__RebalanceStatusReply *r)
{
	static const char *const titles[] = {"VOLUME", "CHUNK", "FROM", "TO", "WHY", "SINCE"};
	struct table t;
	char text[40];

	printf("%s%s%s; rate: %s%s; a node that is away is replaced after %u s\n", r->state,
	       strcmp(r->state, "planning") == 0 ? ", what has to move is not known yet" : "",
	       r->balancing ? ", levelling" : "",
	       r->rate > 0 ? view_size_text(r->rate, text, sizeof text) : RATE_NONE,
	       r->rate > 0 ? "/s" : "", r->replace_after_s);
	if (r->started_at != 0)
		print_bar(r);
	if (r->n_active > 0) {
		table_init(&t, ARRAY_SIZE(titles), titles);
		t.right[1] = true;
		for (size_t i = 0; i < r->n_active; i++) {
			const Pave__V1__PlannedMove *m = r->active[i]->move;

			table_add(&t, "%s", m->volume);
			table_add(&t, "%u", m->chunk);
			table_add(&t, "%s", m->from);
			table_add(&t, "%s", m->to);
			table_add(&t, "%s", m->why);
			table_add(&t, "%s", view_time_text(r->active[i]->since, text, sizeof text));
		}
		table_print(&t);
	}
	if (r->erasing > 0)
		printf("%" PRIu64 " old copies wait to be erased\n", r->erasing);
	if (r->stuck > 0)
		printf("%" PRIu64 " copies must leave and cannot; %s\n", r->stuck, r->stuck_why);
}

int cmd_rebalance_status(int argc, char **argv)
{
	Pave__V1__Control m = PAVE__V1__CONTROL__INIT;
	Pave__V1__RebalanceStatus status = PAVE__V1__REBALANCE_STATUS__INIT;
	Pave__V1__Control *reply;
	struct error err;
	int rc = 0;

	if (getopt_long(argc, argv, "", no_options, NULL) != -1 || optind != argc)
		return cmd_usage_error("it takes nothing");
	m.body_case = PAVE__V1__CONTROL__BODY_REBALANCE_STATUS;
	m.rebalance_status = &status;
	if (client_ask(&m, PAVE__V1__CONTROL__BODY_REBALANCE_STATUS_REPLY, 0, &reply, &err) != 0)
		return cmd_fail(&err);
	if (cli.json)
		rc = cmd_print_json(status_json(reply->rebalance_status_reply));
	else
		print_status(reply->rebalance_status_reply);
	pave__v1__control__free_unpacked(reply, NULL);
	return rc;
}
