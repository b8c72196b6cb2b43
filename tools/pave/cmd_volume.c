/* pave volume: create, list, show, delete, map. */
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

#define CREATE_TIMEOUT_MS 60000u /* planning and writing a large map */

static const struct option no_options[] = {{0}};

/* The only operand of a command without options; NULL after a line on stderr. */
static const char *only_name(int argc, char **argv)
{
	if (getopt_long(argc, argv, "", no_options, NULL) != -1) {
		cmd_usage_error("it has no such option");
		return NULL;
	}
	return cmd_operand(argc, argv, "NAME");
}

/* -- create ----------------------------------------------------------------------------------- */

static int parse_create(int argc, char **argv, Pave__V1__VolumeCreate *c)
{
	static const struct option options[] = {{"size", required_argument, NULL, 's'},
						{"policy", required_argument, NULL, 'p'},
						{"chunk-size", required_argument, NULL, 'c'},
						{0}};
	uint64_t size;
	int o;

	while ((o = getopt_long(argc, argv, "", options, NULL)) != -1) {
		if (o == '?')
			return cmd_usage_error("an option is not understood");
		if (o == 'p') {
			c->policy = optarg;
			continue;
		}
		if (!cmd_size(o == 's' ? "--size" : "--chunk-size", optarg, &size))
			return 2;
		*(o == 's' ? &c->size : &c->chunk_size) = size;
	}
	c->name = (char *)(uintptr_t)cmd_operand(argc, argv, "NAME");
	if (c->name == NULL)
		return 2;
	if (!text_is_name(c->name))
		return cmd_usage_error("\"%s\" is no name: up to %u of a-z 0-9 . _ -, beginning "
				       "with a letter or digit",
				       c->name, NAME_SIZE_MAX - 1);
	if (c->size == 0)
		return cmd_usage_error("--size is missing, as --size 10GiB");
	if (c->size % BLOCK_SIZE != 0)
		return cmd_usage_error("a size of %" PRIu64 " bytes is no multiple of %u", c->size,
				       BLOCK_SIZE);
	return 0;
}

/* What every use of an answer relies on. Frees it when it is not so. */
static int check_info(Pave__V1__Control *reply)
{
	if (reply->volume_get_reply->info != NULL)
		return 0;
	pave__v1__control__free_unpacked(reply, NULL);
	fprintf(stderr, "pave %s: the driver's answer says nothing of the volume\n",
		cli.command->name);
	return 1;
}

static void print_created(const Pave__V1__VolumeGetReply *r)
{
	const Pave__V1__VolumeInfo *v = r->info;
	char size[32], chunk[32];

	printf("volume %s: %s in %" PRIu64 " chunks of %s, %u replicas under %s on", v->name,
	       text_size(v->size, size, sizeof size), (v->size + v->chunk_size - 1) / v->chunk_size,
	       text_size(v->chunk_size, chunk, sizeof chunk), v->replicas, v->policy);
	for (size_t i = 0; i < r->n_nodes; i++)
		printf("%s %s (%s)", i > 0 ? "," : "", r->nodes[i]->node, r->nodes[i]->site);
	putchar('\n');
}

int cmd_volume_create(int argc, char **argv)
{
	Pave__V1__Control m = PAVE__V1__CONTROL__INIT;
	Pave__V1__VolumeCreate c = PAVE__V1__VOLUME_CREATE__INIT;
	Pave__V1__Control *reply;
	struct error err;
	int rc = parse_create(argc, argv, &c);

	if (rc != 0)
		return rc;
	m.body_case = PAVE__V1__CONTROL__BODY_VOLUME_CREATE;
	m.volume_create = &c;
	if (client_ask(&m, PAVE__V1__CONTROL__BODY_VOLUME_GET_REPLY, CREATE_TIMEOUT_MS, &reply,
		       &err) != 0)
		return cmd_fail(&err);
	rc = check_info(reply);
	if (rc != 0)
		return rc;
	if (cli.json)
		rc = cmd_print_json(view_volume(reply->volume_get_reply->info));
	else
		print_created(reply->volume_get_reply);
	pave__v1__control__free_unpacked(reply, NULL);
	return rc;
}

/* -- list ------------------------------------------------------------------------------------- */

/* All pages of the list, one after the other. */
static int list_all(struct client *c, json_t *array, bool *ret_any, struct error *err)
{
	char after[NAME_SIZE_MAX] = "";
	bool more = true;

	while (more) {
		Pave__V1__Control m = PAVE__V1__CONTROL__INIT;
		Pave__V1__VolumeList list = PAVE__V1__VOLUME_LIST__INIT;
		Pave__V1__Control *reply;
		const Pave__V1__VolumeListReply *r;
		int rc;

		list.after = after;
		m.body_case = PAVE__V1__CONTROL__BODY_VOLUME_LIST;
		m.volume_list = &list;
		rc = client_call(c, &m, PAVE__V1__CONTROL__BODY_VOLUME_LIST_REPLY, 0, &reply, err);
		if (rc != 0)
			return rc;
		r = reply->volume_list_reply;
		if (cli.json)
			for (size_t i = 0; i < r->n_volumes; i++)
				json_array_append_new(array, view_volume(r->volumes[i]));
		else if (r->n_volumes > 0 || !*ret_any)
			view_volumes(r->volumes, r->n_volumes);
		more = r->more && r->n_volumes > 0;
		*ret_any = true;
		if (more)
			snprintf(after, sizeof after, "%s", r->volumes[r->n_volumes - 1]->name);
		pave__v1__control__free_unpacked(reply, NULL);
	}
	return 0;
}

int cmd_volume_list(int argc, char **argv)
{
	struct cluster_ref cluster;
	struct client *c = NULL;
	json_t *array = json_array();
	struct error err;
	bool any = false;
	int rc;

	if (getopt_long(argc, argv, "", no_options, NULL) != -1 || optind != argc) {
		json_decref(array);
		return cmd_usage_error("it takes nothing");
	}
	rc = cmd_cluster(&cluster, &err);
	if (rc == 0)
		rc = client_open(&cluster, &c, &err);
	if (rc == 0)
		rc = list_all(c, array, &any, &err);
	client_close(c);
	if (rc != 0) {
		json_decref(array);
		return cmd_fail(&err);
	}
	if (cli.json)
		return cmd_print_json(json_pack("{s:o}", "volumes", array));
	json_decref(array);
	return 0;
}

/* -- show, map -------------------------------------------------------------------------------- */

static int get(const char *name, bool with_map, Pave__V1__Control **ret)
{
	Pave__V1__Control m = PAVE__V1__CONTROL__INIT;
	Pave__V1__VolumeGet g = PAVE__V1__VOLUME_GET__INIT;
	struct error err;

	g.name = (char *)(uintptr_t)name;
	g.with_map = with_map;
	m.body_case = PAVE__V1__CONTROL__BODY_VOLUME_GET;
	m.volume_get = &g;
	if (client_ask(&m, PAVE__V1__CONTROL__BODY_VOLUME_GET_REPLY, 0, ret, &err) != 0)
		return cmd_fail(&err);
	return check_info(*ret);
}

static const Pave__V1__ReplicaState *report_of(const Pave__V1__VolumeInfo *v, const char *node)
{
	for (size_t i = 0; i < v->n_attached_replicas; i++)
		if (strcmp(v->attached_replicas[i]->node, node) == 0)
			return v->attached_replicas[i];
	return NULL;
}

static const Pave__V1__SiteVerdict *verdict_of(const Pave__V1__VolumeGetReply *r, const char *site)
{
	for (size_t i = 0; i < r->n_verdicts; i++)
		if (strcmp(r->verdicts[i]->site, site) == 0)
			return r->verdicts[i];
	return NULL;
}

/* Of one copy: quarantined (its site isn't eligible), what the holder says, or stored. */
static const char *copy_state(const Pave__V1__VolumeGetReply *r, const Pave__V1__MapNode *n)
{
	const Pave__V1__SiteVerdict *v = verdict_of(r, n->site);
	const Pave__V1__ReplicaState *s = report_of(r->info, n->node);

	if (v == NULL || !v->eligible)
		return "quarantined";
	return s != NULL ? s->state : "stored";
}

static void print_volume(const Pave__V1__VolumeGetReply *r)
{
	static const char *const titles[] = {"NODE",  "SITE",	 "STATE", "LAG", "UNDER THE POLICY",
					     "UNTIL", "WHICH IS"};
	const Pave__V1__VolumeInfo *v = r->info;
	struct table t;
	char a[40], b[40];

	printf("volume      %s (#%" PRIu64 "), made %s\n", v->name, v->id,
	       view_time_text(v->created_at, a, sizeof a));
	printf("size        %s in chunks of %s", text_size(v->size, a, sizeof a),
	       text_size(v->chunk_size, b, sizeof b));
	if (v->served_size != 0 && v->served_size != v->size)
		printf(", of which its host serves %s as yet",
		       text_size(v->served_size, a, sizeof a));
	printf("\n");
	printf("policy      %s, version %" PRIu64 ": %u replicas, %u acknowledge\n", v->policy,
	       v->policy_version, v->replicas, v->min_acks);
	printf("state       %s, generation %u\n", v->state, v->generation);
	if (v->holder[0] != '\0')
		printf("held by     %s as %s, permit until %s\n", v->holder,
		       v->endpoint[0] != '\0' ? v->endpoint : "?",
		       text_time(v->permit_until, a, sizeof a));
	table_init(&t, ARRAY_SIZE(titles), titles);
	t.right[3] = true;
	for (size_t i = 0; i < r->n_nodes; i++) {
		const Pave__V1__MapNode *n = r->nodes[i];
		const Pave__V1__SiteVerdict *s = verdict_of(r, n->site);
		const Pave__V1__ReplicaState *report = report_of(v, n->node);

		table_add(&t, "%s", n->node);
		table_add(&t, "%s", n->site);
		table_add(&t, "%s", copy_state(r, n));
		table_add(&t, "%" PRIu64, report != NULL ? report->lag : 0);
		table_add(&t, "%s", s != NULL && s->eligible ? "eligible" : "not eligible");
		table_add(&t, "%s",
			  s != NULL && s->eligible ? view_time_text(s->until, a, sizeof a) : "");
		if (s != NULL && s->eligible && s->until_field[0] != '\0')
			table_add(&t, "%s of %s", s->until_field, s->until_source);
		else
			table_add(&t, "%s", "");
	}
	putchar('\n');
	table_print(&t);
	for (size_t i = 0; i < r->n_verdicts; i++)
		for (size_t j = 0; j < r->verdicts[i]->n_failed; j++) {
			const Pave__V1__FailedRule *f = r->verdicts[i]->failed[j];

			printf("%s fails %s: %s is %s, the bound is %s (%s)\n",
			       r->verdicts[i]->site, f->rule, f->field, f->value, f->bound,
			       f->source);
		}
	for (size_t i = 0; i < r->n_spread; i++)
		printf("copies fail %s: %s is %s, the bound is %s (%s)\n", r->spread[i]->rule,
		       r->spread[i]->field, r->spread[i]->value, r->spread[i]->bound,
		       r->spread[i]->source);
}

int cmd_volume_show(int argc, char **argv)
{
	const char *name = only_name(argc, argv);
	Pave__V1__Control *reply;
	int rc;

	if (name == NULL)
		return 2;
	rc = get(name, false, &reply);
	if (rc != 0)
		return rc;
	if (cli.json) {
		const Pave__V1__VolumeGetReply *r = reply->volume_get_reply;
		json_t *o = view_volume(r->info);
		json_t *sites = json_object();
		json_t *nodes = json_array();

		for (size_t i = 0; i < r->n_verdicts; i++)
			json_object_set_new(sites, r->verdicts[i]->site,
					    view_verdict(r->verdicts[i]));
		for (size_t i = 0; i < r->n_nodes; i++)
			json_array_append_new(nodes,
					      json_pack("{s:s,s:s,s:s}", "node", r->nodes[i]->node,
							"site", r->nodes[i]->site, "state",
							copy_state(r, r->nodes[i])));
		json_object_set_new(o, "nodes", nodes);
		json_object_set_new(o, "sites", sites);
		json_object_set_new(o, "copies_failed", view_failed(r->spread, r->n_spread));
		rc = cmd_print_json(o);
	} else {
		print_volume(reply->volume_get_reply);
	}
	pave__v1__control__free_unpacked(reply, NULL);
	return rc;
}

/* ok, degraded (fewer good copies than replicas), frozen (fewer than must acknowledge). */
static const char *chunk_state(const Pave__V1__VolumeGetReply *r, const uint8_t *row)
{
	uint32_t good = 0, eligible = 0;

	for (uint32_t i = 0; i < r->info->replicas; i++) {
		const char *state = copy_state(r, r->nodes[row[i]]);

		eligible += strcmp(state, "quarantined") != 0;
		good += strcmp(state, "current") == 0 || strcmp(state, "stored") == 0;
	}
	if (eligible < r->info->min_acks)
		return "frozen";
	return good < r->info->replicas ? "degraded" : "ok";
}

static bool map_is_sane(const Pave__V1__VolumeGetReply *r)
{
	if (r->info->replicas == 0 || r->map.len % r->info->replicas != 0)
		return false;
	for (size_t i = 0; i < r->map.len; i++)
		if (r->map.data[i] >= r->n_nodes)
			return false;
	return true;
}

/* The move of the chunk, or NULL. */
static const Pave__V1__Move *move_of(const Pave__V1__VolumeGetReply *r, size_t chunk)
{
	for (size_t i = 0; i < r->n_moves; i++)
		if (r->moves[i]->chunk == chunk)
			return r->moves[i];
	return NULL;
}

static json_t *move_json(const Pave__V1__Move *m)
{
	return m != NULL ? json_pack("{s:s,s:s}", "from", m->from, "to", m->to) : json_null();
}

static json_t *map_json(const Pave__V1__VolumeGetReply *r)
{
	const Pave__V1__VolumeInfo *v = r->info;
	json_t *chunks = json_array();

	for (size_t c = 0; c < r->map.len / v->replicas; c++) {
		const uint8_t *row = r->map.data + c * v->replicas;
		json_t *copies = json_array();

		for (uint32_t i = 0; i < v->replicas; i++) {
			const Pave__V1__MapNode *n = r->nodes[row[i]];

			json_array_append_new(copies,
					      json_pack("{s:s,s:s,s:s}", "node", n->node, "site",
							n->site, "state", copy_state(r, n)));
		}
		json_array_append_new(chunks,
				      json_pack("{s:I,s:I,s:s,s:o,s:o}", "chunk", (json_int_t)c,
						"offset_bytes", (json_int_t)(c * v->chunk_size),
						"state", chunk_state(r, row), "replicas", copies,
						"move", move_json(move_of(r, c))));
	}
	return json_pack("{s:s,s:I,s:I,s:I,s:s,s:o}", "volume", v->name, "size_bytes",
			 (json_int_t)v->size, "chunk_size_bytes", (json_int_t)v->chunk_size,
			 "map_version", (json_int_t)v->map_version, "policy", v->policy, "chunks",
			 chunks);
}

static void print_map(const Pave__V1__VolumeGetReply *r)
{
	static const char *const titles[] = {"CHUNK", "FROM", "STATE", "COPIES: NODE (SITE) STATE"};
	const Pave__V1__VolumeInfo *v = r->info;
	struct table t;
	char from[32], copies[900];

	table_init(&t, ARRAY_SIZE(titles), titles);
	t.right[0] = t.right[1] = true;
	for (size_t c = 0; c < r->map.len / v->replicas; c++) {
		const uint8_t *row = r->map.data + c * v->replicas;
		const Pave__V1__Move *m = move_of(r, c);
		size_t len = 0;

		copies[0] = '\0';
		for (uint32_t i = 0; i < v->replicas && len < sizeof copies; i++) {
			const Pave__V1__MapNode *n = r->nodes[row[i]];

			len +=
			    (size_t)snprintf(copies + len, sizeof copies - len, "%s%s (%s) %s",
					     i > 0 ? ", " : "", n->node, n->site, copy_state(r, n));
		}
		if (m != NULL && len < sizeof copies)
			snprintf(copies + len, sizeof copies - len, "; moves from %s to %s",
				 m->from, m->to);
		table_add(&t, "%zu", c);
		table_add(&t, "%s", text_size(c * v->chunk_size, from, sizeof from));
		table_add(&t, "%s", chunk_state(r, row));
		table_add(&t, "%s", copies);
	}
	table_print(&t);
}

int cmd_volume_map(int argc, char **argv)
{
	const char *name = only_name(argc, argv);
	Pave__V1__Control *reply;
	int rc;

	if (name == NULL)
		return 2;
	rc = get(name, true, &reply);
	if (rc != 0)
		return rc;
	if (!map_is_sane(reply->volume_get_reply)) {
		fprintf(stderr, "pave volume map: the driver's map contradicts itself\n");
		rc = 1;
	} else if (cli.json) {
		rc = cmd_print_json(map_json(reply->volume_get_reply));
	} else {
		print_map(reply->volume_get_reply);
	}
	pave__v1__control__free_unpacked(reply, NULL);
	return rc;
}

/* -- delete ----------------------------------------------------------------------------------- */

int cmd_volume_delete(int argc, char **argv)
{
	Pave__V1__Control m = PAVE__V1__CONTROL__INIT;
	Pave__V1__VolumeDelete d = PAVE__V1__VOLUME_DELETE__INIT;
	Pave__V1__Control *reply;
	struct error err;

	d.name = (char *)(uintptr_t)only_name(argc, argv);
	if (d.name == NULL)
		return 2;
	m.body_case = PAVE__V1__CONTROL__BODY_VOLUME_DELETE;
	m.volume_delete = &d;
	if (client_ask(&m, PAVE__V1__CONTROL__BODY_EMPTY, 0, &reply, &err) != 0)
		return cmd_fail(&err);
	pave__v1__control__free_unpacked(reply, NULL);
	if (cli.json)
		return cmd_print_json(json_pack("{s:s}", "deleted", d.name));
	printf("volume %s is deleted; its nodes erase their copies\n", d.name);
	return 0;
}
