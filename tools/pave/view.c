/* view: see view.h. */
#include "tools/pave/view.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/text.h"
#include "tools/pave/cmd.h"

json_t *view_time(int64_t unix_ns)
{
	char buf[40];

	return unix_ns <= 0 || unix_ns == INT64_MAX
		   ? json_null()
		   : json_string(text_time(unix_ns, buf, sizeof buf));
}

const char *view_time_text(int64_t unix_ns, char *buf, size_t size)
{
	if (unix_ns <= 0)
		return "";
	if (unix_ns == INT64_MAX)
		return "always";
	return text_time(unix_ns / (int64_t)NS_PER_S * (int64_t)NS_PER_S, buf, size);
}

const char *view_size_text(uint64_t bytes, char *buf, size_t size)
{
	static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB"};
	double n = (double)bytes;
	unsigned unit = 0;

	while (n >= 1024 && unit + 1 < ARRAY_SIZE(units)) {
		n /= 1024;
		unit++;
	}
	snprintf(buf, size, unit == 0 ? "%.0f%s" : "%.1f%s", n, units[unit]);
	return buf;
}

static json_t *integer(uint64_t n)
{
	return json_integer((json_int_t)n);
}

static void set(json_t *o, const char *name, json_t *value)
{
	json_object_set_new(o, name, value);
}

static json_t *layer_stats(const Pave__V1__LayerStats *s)
{
	json_t *o;

	if (s == NULL)
		return json_null();
	o = json_object();
	set(o, "begun", integer(s->begun));
	set(o, "longest_pause_ms", json_real((double)s->pause_ns / 1e6));
	set(o, "longest_work_ms", json_real((double)s->work_ns / 1e6));
	return o;
}

json_t *view_volume(const Pave__V1__VolumeInfo *v)
{
	json_t *o = json_object();
	json_t *layers = json_array();
	json_t *replicas = json_array();

	set(o, "name", json_string(v->name));
	set(o, "id", integer(v->id));
	set(o, "size_bytes", integer(v->size));
	set(o, "served_bytes", v->served_size != 0 ? integer(v->served_size) : json_null());
	set(o, "chunk_size_bytes", integer(v->chunk_size));
	set(o, "policy", json_string(v->policy));
	set(o, "policy_version", integer(v->policy_version));
	set(o, "replicas", integer(v->replicas));
	set(o, "min_acks", integer(v->min_acks));
	set(o, "generation", integer(v->generation));
	set(o, "state", json_string(v->state));
	set(o, "holder", v->holder[0] != '\0' ? json_string(v->holder) : json_null());
	set(o, "endpoint", v->endpoint[0] != '\0' ? json_string(v->endpoint) : json_null());
	set(o, "permit_until", view_time(v->permit_until));
	set(o, "created_at", view_time(v->created_at));
	set(o, "map_version", integer(v->map_version));
	set(o, "origin", v->origin[0] != '\0' ? json_string(v->origin) : json_null());
	for (size_t i = 0; i < v->n_layers; i++)
		json_array_append_new(layers, integer(v->layers[i]));
	set(o, "layers", layers);
	set(o, "settling", json_boolean(v->settling));
	for (size_t i = 0; i < v->n_attached_replicas; i++) {
		const Pave__V1__ReplicaState *r = v->attached_replicas[i];
		json_t *m = json_object();

		set(m, "node", json_string(r->node));
		set(m, "state", json_string(r->state));
		set(m, "lag", integer(r->lag));
		set(m, "transport", json_string(r->transport));
		set(m, "tx_frames", integer(r->tx_frames));
		set(m, "tx_bytes", integer(r->tx_bytes));
		set(m, "rx_frames", integer(r->rx_frames));
		set(m, "rx_bytes", integer(r->rx_bytes));
		set(m, "rx_copied_bytes", integer(r->rx_copied_bytes));
		set(m, "chunks_behind", integer(r->chunks_behind));
		set(m, "resync_left_bytes", integer(r->resync_left));
		set(m, "resync_bytes_per_s", integer(r->resync_rate));
		json_array_append_new(replicas, m);
	}
	set(o, "attached_replicas", replicas);
	set(o, "layer_stats", layer_stats(v->layer_stats));
	return o;
}

/* An older driver tells it by the counts alone. */
static bool is_draining(const Pave__V1__NodeInfo *n)
{
	return n->draining || (n->drain && (n->chunks > 0 || n->learners > 0));
}

/* Hosts get ENOSPC from it. */
static bool is_full(const Pave__V1__NodeInfo *n)
{
	return n->size_bytes > 0 && n->free_bytes <= n->reserve_bytes;
}

json_t *view_node(const Pave__V1__NodeInfo *n)
{
	json_t *o = json_object();
	json_t *addresses = json_array();

	for (size_t i = 0; i < n->n_addresses; i++)
		json_array_append_new(addresses, json_string(n->addresses[i]));
	set(o, "node", json_string(n->node));
	set(o, "site", json_string(n->site));
	set(o, "state", json_string(n->state));
	set(o, "reason", n->reason[0] != '\0' ? json_string(n->reason) : json_null());
	set(o, "addresses", addresses);
	set(o, "lease_until", view_time(n->lease_until));
	set(o, "last_seen", view_time(n->last_seen));
	set(o, "size_bytes", integer(n->size_bytes));
	set(o, "live_bytes", integer(n->live_bytes));
	set(o, "free_bytes", integer(n->free_bytes));
	set(o, "reserve_bytes", integer(n->reserve_bytes));
	set(o, "full", json_boolean(is_full(n)));
	set(o, "operations_per_s", integer(n->operations_per_s));
	set(o, "clock_offset_ms", json_real((double)n->clock_offset_ns / 1e6));
	set(o, "chunks", integer(n->chunks));
	set(o, "eligible", json_boolean(n->eligible));
	set(o, "eligible_until", view_time(n->eligible_until));
	set(o, "ineligible_why",
	    n->ineligible_why[0] != '\0' ? json_string(n->ineligible_why) : json_null());
	set(o, "lag", integer(n->lag));
	set(o, "trouble", n->trouble[0] != '\0' ? json_string(n->trouble) : json_null());
	set(o, "wiping_segments", integer(n->wiping_segments));
	set(o, "drain", json_boolean(n->drain));
	set(o, "draining", json_boolean(is_draining(n)));
	set(o, "learners", integer(n->learners));
	return o;
}

json_t *view_failed(Pave__V1__FailedRule *const *list, size_t count)
{
	json_t *failed = json_array();

	for (size_t i = 0; i < count; i++) {
		json_t *f = json_object();

		set(f, "rule", json_string(list[i]->rule));
		set(f, "field", json_string(list[i]->field));
		set(f, "value", json_string(list[i]->value));
		set(f, "bound", json_string(list[i]->bound));
		set(f, "source", json_string(list[i]->source));
		json_array_append_new(failed, f);
	}
	return failed;
}

json_t *view_verdict(const Pave__V1__SiteVerdict *v)
{
	json_t *o = json_object();
	json_t *failed = view_failed(v->failed, v->n_failed);

	set(o, "eligible", json_boolean(v->eligible));
	set(o, "until", v->eligible ? view_time(v->until) : json_null());
	set(o, "until_field", v->eligible ? json_string(v->until_field) : json_null());
	set(o, "until_source", v->eligible ? json_string(v->until_source) : json_null());
	set(o, "failed", failed);
	return o;
}

json_t *view_site(const Pave__V1__SiteInfo *s)
{
	json_t *o = json_object();
	json_t *policies = json_object();

	set(o, "site", json_string(s->site));
	set(o, "version", integer(s->version));
	set(o, "campus", json_string(s->campus));
	set(o, "territory", json_string(s->territory));
	set(o, "operator", json_string(s->operator_name));
	set(o, "not_before", view_time(s->not_before));
	set(o, "not_after", view_time(s->not_after));
	set(o, "revoked", json_boolean(s->revoked));
	set(o, "revoked_from", view_time(s->revoked_from));
	set(o, "reason", s->reason[0] != '\0' ? json_string(s->reason) : json_null());
	for (size_t i = 0; i < s->n_verdicts; i++)
		if (s->verdicts[i]->verdict != NULL)
			set(policies, s->verdicts[i]->policy,
			    view_verdict(s->verdicts[i]->verdict));
	set(o, "policies", policies);
	return o;
}

/* -- tables ----------------------------------------------------------------------------------- */

void view_volumes(Pave__V1__VolumeInfo *const *list, size_t count)
{
	static const char *const titles[] = {"VOLUME",	   "SIZE",     "CHUNK",
					     "POLICY",	   "REPLICAS", "STATE",
					     "GENERATION", "HOLDER",   "SERVED AS"};
	struct table t;
	char size[32], chunk[32];

	if (count == 0) {
		printf("No volumes. `pave volume create NAME --size 10GiB` makes one.\n");
		return;
	}
	table_init(&t, ARRAY_SIZE(titles), titles);
	t.right[1] = t.right[2] = t.right[4] = t.right[6] = true;
	for (size_t i = 0; i < count; i++) {
		const Pave__V1__VolumeInfo *v = list[i];

		table_add(&t, "%s", v->name);
		table_add(&t, "%s", text_size(v->size, size, sizeof size));
		table_add(&t, "%s", text_size(v->chunk_size, chunk, sizeof chunk));
		table_add(&t, "%s", v->policy);
		table_add(&t, "%u", v->replicas);
		table_add(&t, "%s", v->state);
		table_add(&t, "%u", v->generation);
		table_add(&t, "%s", v->holder);
		table_add(&t, "%s", v->endpoint);
	}
	table_print(&t);
}

void view_nodes(Pave__V1__NodeInfo *const *list, size_t count, const char *policy)
{
	const char *titles[] = {"NODE",	  "SITE",  "STATE", "SIZE", "LIVE",  "FREE",   "RESERVE",
				"CHUNKS", "OPS/S", "LAG",   policy, "UNTIL", "ADDRESS"};
	struct table t;
	char buf[40];

	if (count == 0) {
		printf("No nodes have registered yet.\n");
		return;
	}
	table_init(&t, ARRAY_SIZE(titles), titles);
	for (unsigned c = 3; c <= 9; c++)
		t.right[c] = true;
	for (size_t i = 0; i < count; i++) {
		const Pave__V1__NodeInfo *n = list[i];

		table_add(&t, "%s", n->node);
		table_add(&t, "%s", n->site);
		table_add(&t, "%s%s%s", n->state,
			  is_draining(n) ? ", draining"
			  : n->drain	 ? ", drained"
					 : "",
			  is_full(n) ? ", full" : "");
		table_add(&t, "%s", view_size_text(n->size_bytes, buf, sizeof buf));
		table_add(&t, "%s", view_size_text(n->live_bytes, buf, sizeof buf));
		table_add(&t, "%s", view_size_text(n->free_bytes, buf, sizeof buf));
		table_add(&t, "%s", view_size_text(n->reserve_bytes, buf, sizeof buf));
		table_add(&t, "%u", n->chunks);
		table_add(&t, "%" PRIu64, n->operations_per_s);
		table_add(&t, "%" PRIu64, n->lag);
		table_add(&t, "%s", n->eligible ? "eligible" : "not eligible");
		table_add(&t, "%s", view_time_text(n->eligible_until, buf, sizeof buf));
		table_add(&t, "%s", n->n_addresses > 0 ? n->addresses[0] : "");
	}
	table_print(&t);
	for (size_t i = 0; i < count; i++) {
		if (!list[i]->eligible)
			printf("%s: %s\n", list[i]->node, list[i]->ineligible_why);
		else if (list[i]->reason[0] != '\0')
			printf("%s: %s\n", list[i]->node, list[i]->reason);
		if (list[i]->trouble[0] != '\0')
			printf("%s: %s (pave node device list %s)\n", list[i]->node,
			       list[i]->trouble, list[i]->node);
		if (list[i]->wiping_segments > 0)
			printf("%s: erases: %" PRIu64 " segments are still to be wiped\n",
			       list[i]->node, list[i]->wiping_segments);
	}
}

void view_sites(Pave__V1__SiteInfo *const *list, size_t count)
{
	static const char *const titles[] = {"SITE",	  "VERSION",	   "CAMPUS",
					     "TERRITORY", "OPERATOR",	   "VALID UNTIL",
					     "REVOKED",	  "ELIGIBLE UNDER"};
	struct table t;
	char buf[40], policies[512];

	if (count == 0) {
		printf("No sites. `pave site add FILE` submits a certificate.\n");
		return;
	}
	table_init(&t, ARRAY_SIZE(titles), titles);
	t.right[1] = true;
	for (size_t i = 0; i < count; i++) {
		const Pave__V1__SiteInfo *s = list[i];
		size_t len = 0;

		policies[0] = '\0';
		for (size_t j = 0; j < s->n_verdicts; j++) {
			if (s->verdicts[j]->verdict == NULL || !s->verdicts[j]->verdict->eligible)
				continue;
			len += (size_t)snprintf(policies + len, sizeof policies - len, "%s%s",
						len > 0 ? " " : "", s->verdicts[j]->policy);
			if (len >= sizeof policies)
				break;
		}
		table_add(&t, "%s", s->site);
		table_add(&t, "%" PRIu64, s->version);
		table_add(&t, "%s", s->campus);
		table_add(&t, "%s", s->territory);
		table_add(&t, "%s", s->operator_name);
		table_add(&t, "%s", view_time_text(s->not_after, buf, sizeof buf));
		/* The site is as good as any until then, but not for long. */
		if (!s->revoked && s->revoked_from != 0)
			table_add(&t, "from %s", view_time_text(s->revoked_from, buf, sizeof buf));
		else
			table_add(&t, "%s", s->revoked ? "yes" : "no");
		table_add(&t, "%s", policies[0] != '\0' ? policies : "none");
	}
	table_print(&t);
}
