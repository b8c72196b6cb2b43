/* pave node list, pave status. */
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

static int takes_nothing(int argc, char **argv)
{
	if (getopt_long(argc, argv, "", no_options, NULL) != -1 || optind != argc)
		return cmd_usage_error("it takes nothing");
	return 0;
}

static json_t *nodes_json(Pave__V1__NodeInfo *const *list, size_t count)
{
	json_t *array = json_array();

	for (size_t i = 0; i < count; i++)
		json_array_append_new(array, view_node(list[i]));
	return array;
}

int cmd_node_list(int argc, char **argv)
{
	Pave__V1__Control m = PAVE__V1__CONTROL__INIT;
	Pave__V1__NodeList list = PAVE__V1__NODE_LIST__INIT;
	Pave__V1__Control *reply;
	const Pave__V1__NodeListReply *r;
	struct error err;
	int rc = takes_nothing(argc, argv);

	if (rc != 0)
		return rc;
	m.body_case = PAVE__V1__CONTROL__BODY_NODE_LIST;
	m.node_list = &list;
	if (client_ask(&m, PAVE__V1__CONTROL__BODY_NODE_LIST_REPLY, 0, &reply, &err) != 0)
		return cmd_fail(&err);
	r = reply->node_list_reply;
	if (cli.json)
		rc = cmd_print_json(json_pack("{s:s,s:o}", "default_policy", r->default_policy,
					      "nodes", nodes_json(r->nodes, r->n_nodes)));
	else
		view_nodes(r->nodes, r->n_nodes, r->default_policy);
	pave__v1__control__free_unpacked(reply, NULL);
	return rc;
}

static json_t *status_json(const Pave__V1__StatusReply *r)
{
	json_t *o = json_object();
	json_t *sites = json_array();
	json_t *volumes = json_array();
	json_t *drivers = json_array();
	struct uuid cluster = {{0}};
	char buf[40];

	if (r->cluster.len == sizeof cluster.bytes)
		memcpy(cluster.bytes, r->cluster.data, sizeof cluster.bytes);
	for (size_t i = 0; i < r->n_sites; i++)
		json_array_append_new(sites, view_site(r->sites[i]));
	for (size_t i = 0; i < r->n_volumes; i++)
		json_array_append_new(volumes, view_volume(r->volumes[i]));
	for (size_t i = 0; i < r->n_drivers; i++)
		json_array_append_new(
		    drivers, json_pack("{s:s,s:s,s:b}", "name", r->drivers[i]->name, "address",
				       r->drivers[i]->address, "leads", (int)r->drivers[i]->leads));
	json_object_set_new(o, "cluster", json_string(text_uuid(&cluster, buf, sizeof buf)));
	json_object_set_new(o, "software", json_string(r->software));
	json_object_set_new(o, "started_at", view_time(r->started_at));
	json_object_set_new(o, "now", view_time(r->wall));
	json_object_set_new(o, "revocations_version",
			    json_integer((json_int_t)r->revocations_version));
	json_object_set_new(o, "revocations_until", view_time(r->revocations_until));
	json_object_set_new(o, "default_policy", json_string(r->default_policy));
	json_object_set_new(o, "permit_lifetime_ms", json_integer(r->permit_lifetime_ms));
	json_object_set_new(o, "permits_issued", json_integer((json_int_t)r->permits_issued));
	json_object_set_new(o, "permits_refused", json_integer((json_int_t)r->permits_refused));
	json_object_set_new(o, "drivers", drivers);
	json_object_set_new(o, "nodes", nodes_json(r->nodes, r->n_nodes));
	json_object_set_new(o, "sites", sites);
	json_object_set_new(o, "volumes", volumes);
	json_object_set_new(o, "volumes_more", json_boolean(r->volumes_more));
	return o;
}

static void print_resync(const Pave__V1__ReplicaState *s)
{
	char left[32], rate[32];

	printf(" (%u chunks, about %s left", s->chunks_behind,
	       text_size(s->resync_left, left, sizeof left));
	if (s->resync_rate > 0)
		printf(", %s/s, %" PRIu64 " s", text_size(s->resync_rate, rate, sizeof rate),
		       s->resync_left / s->resync_rate + 1);
	putchar(')');
}

static void print_replicas(const Pave__V1__StatusReply *r)
{
	char out[32], in[32];

	for (size_t i = 0; i < r->n_volumes; i++) {
		const Pave__V1__VolumeInfo *v = r->volumes[i];

		if (v->n_attached_replicas == 0)
			continue;
		printf("%s:", v->name);
		for (size_t j = 0; j < v->n_attached_replicas; j++) {
			const Pave__V1__ReplicaState *s = v->attached_replicas[j];

			printf("%s %s %s", j > 0 ? "," : "", s->node, s->state);
			if (s->transport[0] != '\0')
				printf(" over %s (%s out, %s in)", s->transport,
				       text_size(s->tx_bytes, out, sizeof out),
				       text_size(s->rx_bytes, in, sizeof in));
			if (s->lag > 0)
				printf(" (%" PRIu64 " writes behind)", s->lag);
			if (s->chunks_behind > 0)
				print_resync(s);
		}
		putchar('\n');
	}
}

static void print_status(const Pave__V1__StatusReply *r)
{
	struct uuid cluster = {{0}};
	char id[40], a[40], b[40];

	if (r->cluster.len == sizeof cluster.bytes)
		memcpy(cluster.bytes, r->cluster.data, sizeof cluster.bytes);
	printf("cluster %s, driver %s up since %s\n", text_uuid(&cluster, id, sizeof id),
	       r->software, view_time_text(r->started_at, a, sizeof a));
	for (size_t i = 0; i < r->n_drivers; i++)
		printf("%s%s at %s%s", i > 0 ? ", " : "drivers: ", r->drivers[i]->name,
		       r->drivers[i]->address, r->drivers[i]->leads ? " (leads)" : "");
	if (r->n_drivers > 0)
		putchar('\n');
	if (r->revocations_version != 0 && r->revocations_until > r->wall)
		printf("revocation snapshot: version %" PRIu64 ", until %s\n",
		       r->revocations_version, view_time_text(r->revocations_until, b, sizeof b));
	else if (r->revocations_version != 0)
		printf("revocation snapshot: version %" PRIu64
		       " RAN OUT at %s, so every site counts "
		       "as revoked until there is another: pave site refresh\n",
		       r->revocations_version, view_time_text(r->revocations_until, b, sizeof b));
	else
		printf("revocation snapshot: none, so every site counts as revoked\n");
	printf("permits of %u ms: %" PRIu64 " given, %" PRIu64 " refused\n\n",
	       r->permit_lifetime_ms, r->permits_issued, r->permits_refused);
	view_nodes(r->nodes, r->n_nodes, r->default_policy);
	putchar('\n');
	view_sites(r->sites, r->n_sites);
	putchar('\n');
	view_volumes(r->volumes, r->n_volumes);
	if (r->volumes_more)
		printf("... and more: pave volume list\n");
	print_replicas(r);
}

int cmd_status(int argc, char **argv)
{
	Pave__V1__Control m = PAVE__V1__CONTROL__INIT;
	Pave__V1__StatusGet get = PAVE__V1__STATUS_GET__INIT;
	Pave__V1__Control *reply;
	struct error err;
	int rc = takes_nothing(argc, argv);

	if (rc != 0)
		return rc;
	m.body_case = PAVE__V1__CONTROL__BODY_STATUS_GET;
	m.status_get = &get;
	if (client_ask(&m, PAVE__V1__CONTROL__BODY_STATUS_REPLY, 0, &reply, &err) != 0)
		return cmd_fail(&err);
	if (cli.json)
		rc = cmd_print_json(status_json(reply->status_reply));
	else
		print_status(reply->status_reply);
	pave__v1__control__free_unpacked(reply, NULL);
	return rc;
}
