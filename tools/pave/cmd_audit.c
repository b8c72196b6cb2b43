/* pave audit: export, verify, where, report. */
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "engine/base/text.h"
#include "engine/evidence/file.h"
#include "tools/pave/audit.h"
#include "tools/pave/cmd.h"
#include "tools/pave/view.h"

struct audit_options {
	struct audit_source source;
	const char *out;
	int64_t at, from, to; /* 0, 0, INT64_MAX: not given */
	bool has_at;
};

static int64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_REALTIME, &t);
	return t.tv_sec * (int64_t)NS_PER_S + t.tv_nsec;
}

static int take_time(const char *option, const char *text, int64_t *ret)
{
	if (text_parse_time(text, ret) == 0)
		return 0;
	return cmd_usage_error("--%s %s: a time is needed, as 2026-11-23T10:00:00Z", option, text);
}

/* allowed: the letters of the options that this command has. */
static int parse(int argc, char **argv, const char *allowed, struct audit_options *o)
{
	static const struct option options[] = {{"root", required_argument, NULL, 'r'},
						{"file", required_argument, NULL, 'f'},
						{"out", required_argument, NULL, 'o'},
						{"at", required_argument, NULL, 'a'},
						{"from", required_argument, NULL, 'F'},
						{"to", required_argument, NULL, 'T'},
						{0}};
	int c, rc = 0, index = 0;

	*o = (struct audit_options){.to = INT64_MAX};
	while (rc == 0 && (c = getopt_long(argc, argv, "", options, &index)) != -1) {
		if (c != '?' && strchr(allowed, c) == NULL)
			rc = cmd_usage_error("it has no option --%s", options[index].name);
		else if (c == 'r')
			o->source.root = optarg;
		else if (c == 'f')
			o->source.file = optarg;
		else if (c == 'o')
			o->out = optarg;
		else if (c == 'a')
			rc = take_time("at", optarg, &o->at);
		else if (c == 'F')
			rc = take_time("from", optarg, &o->from);
		else if (c == 'T')
			rc = take_time("to", optarg, &o->to);
		else
			rc = cmd_usage_error("it has no such option");
		o->has_at = o->has_at || c == 'a';
	}
	return rc;
}

/* -- export ----------------------------------------------------------------------------------- */

int cmd_audit_export(int argc, char **argv)
{
	struct audit_options o;
	struct error err = {0};
	uint64_t records = 0;
	FILE *out = stdout;
	char path[4200];
	int rc = parse(argc, argv, "o", &o);

	if (rc != 0)
		return rc;
	if (optind != argc || o.out == NULL)
		return cmd_usage_error("--out FILE is needed, and nothing else");
	if (strcmp(o.out, "-") == 0 && cli.json)
		return cmd_usage_error("--out -: the ledger goes to standard output, so --json "
				       "cannot; give --out FILE");
	/* A file of the name is there only once it is whole. */
	if (strcmp(o.out, "-") != 0) {
		if (file_may_replace(o.out, &err) != 0)
			return cmd_fail(&err);
		/* Its own: another that writes the same file is whole, too. */
		snprintf(path, sizeof path, "%.4100s.%d.part", o.out, (int)getpid());
		out = fopen(path, "w");
		if (out == NULL) {
			error_set(&err, -errno, "%s: %s", path, strerror(errno));
			return cmd_fail(&err);
		}
	}
	rc = audit_write(out, &records, &err);
	if (out != stdout) {
		if (rc == 0 && fsync(fileno(out)) != 0)
			rc = error_set(&err, -errno, "%s: %s", path, strerror(errno));
		fclose(out);
		if (rc == 0 && rename(path, o.out) != 0)
			rc = error_set(&err, -errno, "%s: %s", o.out, strerror(errno));
		if (rc != 0)
			unlink(path);
	}
	if (rc != 0)
		return cmd_fail(&err);
	if (out == stdout)
		return 0;
	if (cli.json)
		return cmd_print_json(
		    json_pack("{s:s,s:I}", "file", o.out, "records", (json_int_t)records));
	printf("%s: %" PRIu64 " records, and the signed head\n", o.out, records);
	return 0;
}

/* -- verify ----------------------------------------------------------------------------------- */

static void print_verified(const char *file, const struct history *h)
{
	char a[40], b[40], size[40], hash[2 * LEDGER_HASH_SIZE + 1];

	printf("%s: %" PRIu64 " records from %s to %s, every one chained to the one before\n", file,
	       h->tip.seq, view_time_text(h->first_at, a, sizeof a),
	       view_time_text(h->tip.at, b, sizeof b));
	printf("head: record %" PRIu64 ", %s, signed; what came later is not in this file\n",
	       h->head.seq, text_hex(h->head.hash, sizeof h->head.hash, hash, sizeof hash));
	printf("permits %" PRIu64 ", leases %" PRIu64 " (kinds: each stands for those alike), "
	       "receipts %u (%s), erasures %" PRIu64 " (%" PRIu64 " signed by their nodes; %" PRIu64
	       " overwritten, %" PRIu64 " discarded, %" PRIu64 " dropped; the longest took %" PRIu64
	       " ms), denials %" PRIu64 "\n",
	       h->permits, h->leases, h->receipt_count,
	       view_size_text(h->receipts_bytes, size, sizeof size), h->erasures,
	       h->erasures_signed, h->erasures_by[2], h->erasures_by[1], h->erasures_by[0],
	       h->erasure_longest_ms, h->denials);
	for (uint32_t i = 0; i < h->kept_count; i++)
		printf("%s, record %" PRIu64 ": %s\n",
		       h->findings[i].note ? "note" : "CONTRADICTION", h->findings[i].seq,
		       h->findings[i].text);
	printf("%u contradictions, %u notes\n%s\n", h->finding_count, h->note_count, audit_proves);
}

int cmd_audit_verify(int argc, char **argv)
{
	const struct history_options all = {.until = INT64_MAX};
	struct audit_options o;
	struct history *h;
	struct error err = {0};
	int rc = parse(argc, argv, "r", &o);

	if (rc != 0)
		return rc;
	o.source.file = cmd_operand(argc, argv, "FILE");
	if (o.source.file == NULL)
		return 2;
	if (audit_replay(&o.source, &all, &h, &err) != 0) {
		if (cli.json)
			cmd_print_json(json_pack("{s:b,s:s}", "whole", 0, "error", err.text));
		return cmd_fail(&err);
	}
	rc = h->finding_count == 0 ? 0 : 1;
	if (cli.json)
		cmd_print_json(json_pack(
		    "{s:b,s:o,s:i,s:i,s:o,s:s}", "whole", 1, "ledger", audit_ledger_json(h),
		    "contradictions", (int)h->finding_count, "notes", (int)h->note_count,
		    "findings", audit_findings_json(h), "proves", audit_proves));
	else
		print_verified(o.source.file, h);
	history_free(h);
	return rc;
}

/* -- where ------------------------------------------------------------------------------------ */

static void sum_receipts(const struct history *h, const struct history_volume *v, const char *node,
			 uint64_t *ret_count, uint64_t *ret_bytes, uint64_t *ret_tainted)
{
	*ret_count = *ret_bytes = *ret_tainted = 0;
	for (uint32_t i = 0; i < h->receipt_count; i++) {
		const Pave__V1__Receipt *r = h->receipts[i].body;

		if (r->volume != v->id || strcmp(r->node, node) != 0)
			continue;
		*ret_count += r->count;
		*ret_bytes += r->bytes + r->pulled_blocks * BLOCK_SIZE;
		*ret_tainted += h->receipts[i].tainted ? r->bytes : 0;
	}
}

/* One node of the map, or one that left it and has not confirmed the erasure. */
static json_t *copy_json(const struct history *h, const struct history_volume *v, const char *node,
			 int64_t at, const char *state)
{
	const struct history_node *n = history_find_node(h, node);
	uint64_t version = 0, writes, bytes, tainted;
	const struct history_permit *p = audit_permit_at(v, node, at, &version);
	const char *site_name = n != NULL ? n->site : "";
	const struct site_document *site = history_site_version(h, site_name, version);
	uint32_t count;
	json_t *chunks = audit_chunks_json(v, node, &count);
	json_t *o;

	sum_receipts(h, v, node, &writes, &bytes, &tainted);
	o = json_pack("{s:s,s:s,s:o,s:s,s:I,s:o,s:b,s:I,s:I,s:I}", "node", node, "site", site_name,
		      "withdrawn_from", audit_withdrawn_from(h, site_name, at), "state", state,
		      "chunk_count", (json_int_t)count, "chunks", chunks, "permitted", p != NULL,
		      "receipt_writes", (json_int_t)writes, "receipt_bytes", (json_int_t)bytes,
		      "tainted_bytes", (json_int_t)tainted);
	if (site != NULL)
		json_object_update_new(
		    o, json_pack("{s:I,s:s,s:s,s:s}", "site_version",
				 (json_int_t)site_version(site), "territory", site_territory(site),
				 "campus", site_campus(site), "operator", site_operator(site)));
	if (p != NULL)
		json_object_update_new(o, json_pack("{s:I,s:s}", "generation",
						    (json_int_t)p->first->generation, "holder",
						    p->first->holder));
	return o;
}

static json_t *erasures_json(const struct history_volume *v)
{
	json_t *list = json_array();

	for (const struct history_erasure *e = v->erasures; e != NULL; e = e->next)
		json_array_append_new(
		    list,
		    json_pack("{s:s,s:s,s:b,s:I,s:I,s:I,s:I,s:o,s:b}", "node", e->node, "method",
			      e->method, "whole", e->whole, "chunk_count",
			      (json_int_t)e->chunk_count, "segments", (json_int_t)e->segments,
			      "bytes", (json_int_t)e->bytes, "took_ms", (json_int_t)e->took_ms,
			      "done_at", view_time(e->done_at), "signed", e->is_signed));
	return list;
}

static void print_erasures(json_t *list)
{
	json_t *e;
	size_t i;

	json_array_foreach (list, i, e) {
		char size[40];
		const bool whole = json_is_true(json_object_get(e, "whole"));

		printf("erased on node %s at %s: ", json_string_value(json_object_get(e, "node")),
		       json_string_value(json_object_get(e, "done_at")));
		if (whole)
			printf("its copies");
		else
			printf("%lld chunks",
			       (long long)json_integer_value(json_object_get(e, "chunk_count")));
		printf(", %s of %s in %lld ms%s\n", json_string_value(json_object_get(e, "method")),
		       view_size_text((uint64_t)json_integer_value(json_object_get(e, "bytes")),
				      size, sizeof size),
		       (long long)json_integer_value(json_object_get(e, "took_ms")),
		       json_is_true(json_object_get(e, "signed")) ? "" : "; not signed");
	}
}

/* Others that had its name before, by their numbers: of them this tells nothing. */
static json_t *same_name_json(const struct history *h, const struct history_volume *v)
{
	json_t *list = json_array();

	for (const struct history_volume *o = h->volumes; o != NULL; o = o->hh.next)
		if (o != v && strcmp(o->name, v->name) == 0)
			json_array_append_new(list, json_integer((json_int_t)o->id));
	return list;
}

/* What could be taken for told and is not. */
static void print_limits(json_t *o)
{
	json_t *same = json_object_get(o, "same_name"), *id;
	json_int_t contradictions = json_integer_value(json_object_get(o, "contradictions"));
	size_t i;

	if (json_is_string(json_object_get(o, "not_told_after")))
		printf("what came after %s is not in this file\n",
		       json_string_value(json_object_get(o, "not_told_after")));
	if (json_array_size(same) > 0)
		printf("others of this name were deleted, of which this tells nothing:");
	json_array_foreach (same, i, id)
		printf(" #%lld", (long long)json_integer_value(id));
	if (json_array_size(same) > 0)
		putchar('\n');
	if (contradictions > 0)
		printf("%lld CONTRADICTIONS in the ledger: pave audit verify tells them\n",
		       (long long)contradictions);
}

static void print_withdrawn(json_t *copies)
{
	json_t *c;
	size_t i;

	json_array_foreach (copies, i, c)
		if (json_is_string(json_object_get(c, "withdrawn_from")))
			printf("node %s: the certificate of site %s is withdrawn from %s on\n",
			       json_string_value(json_object_get(c, "node")),
			       json_string_value(json_object_get(c, "site")),
			       json_string_value(json_object_get(c, "withdrawn_from")));
}

static json_t *where_json(const struct history *h, const struct history_volume *v, int64_t at,
			  bool of_file)
{
	json_t *copies = json_array();

	for (uint32_t i = 0; i < v->node_count && v->ended_at == 0; i++) {
		json_t *o = copy_json(h, v, v->nodes[i], at, "copy");

		if (json_integer_value(json_object_get(o, "chunk_count")) > 0)
			json_array_append_new(copies, o);
		else
			json_decref(o);
	}
	for (const struct history_leftover *l = v->leftovers; l != NULL; l = l->next) {
		json_t *o = copy_json(h, v, l->node, at, "erasure not confirmed");

		json_object_set_new(o, "since", view_time(l->since));
		if (l->chunk != UINT32_MAX)
			json_object_set_new(o, "chunk", json_integer(l->chunk));
		json_array_append_new(copies, o);
	}
	return json_pack("{s:s,s:I,s:o,s:s,s:o,s:o,s:o,s:b,s:I,s:o,s:o,s:I,s:s}", "volume", v->name,
			 "id", (json_int_t)v->id, "same_name", same_name_json(h, v), "policy",
			 v->policy, "at", view_time(at), "not_told_after",
			 audit_not_told_after(h, at, of_file), "ended_at", view_time(v->ended_at),
			 "deleted", v->ended_at != 0, "map_version", (json_int_t)v->map_version,
			 "copies", copies, "erasures", erasures_json(v), "contradictions",
			 (json_int_t)h->finding_count, "proves", audit_proves);
}

static void print_where(json_t *o)
{
	static const char *const titles[] = {"NODE",   "SITE",	 "CERTIFICATE", "TERRITORY",
					     "CHUNKS", "STATE",	 "PERMIT",	"WRITES",
					     "BYTES",  "TAINTED"};
	struct table t;
	json_t *c;
	size_t i;

	printf("volume %s (#%lld) under %s at %s%s\n",
	       json_string_value(json_object_get(o, "volume")),
	       (long long)json_integer_value(json_object_get(o, "id")),
	       json_string_value(json_object_get(o, "policy")),
	       json_string_value(json_object_get(o, "at")),
	       json_is_true(json_object_get(o, "deleted")) ? ": deleted" : "");
	print_limits(o);
	table_init(&t, 10, titles);
	t.right[4] = t.right[7] = t.right[8] = t.right[9] = true;
	json_array_foreach (json_object_get(o, "copies"), i, c) {
		char a[40], b[40];
		const char *holder = json_string_value(json_object_get(c, "holder"));

		table_add(&t, "%s", json_string_value(json_object_get(c, "node")));
		table_add(&t, "%s", json_string_value(json_object_get(c, "site")));
		table_add(&t, "%lld",
			  (long long)json_integer_value(json_object_get(c, "site_version")));
		table_add(&t, "%s",
			  json_object_get(c, "territory") != NULL
			      ? json_string_value(json_object_get(c, "territory"))
			      : "");
		table_add(&t, "%lld",
			  (long long)json_integer_value(json_object_get(c, "chunk_count")));
		table_add(&t, "%s%s", json_string_value(json_object_get(c, "state")),
			  json_is_string(json_object_get(c, "withdrawn_from")) ? ", site withdrawn"
									       : "");
		table_add(&t, "%s", holder != NULL ? holder : "none");
		table_add(&t, "%lld",
			  (long long)json_integer_value(json_object_get(c, "receipt_writes")));
		table_add(&t, "%s",
			  view_size_text(
			      (uint64_t)json_integer_value(json_object_get(c, "receipt_bytes")), a,
			      sizeof a));
		table_add(&t, "%s",
			  view_size_text(
			      (uint64_t)json_integer_value(json_object_get(c, "tainted_bytes")), b,
			      sizeof b));
	}
	table_print(&t);
	print_withdrawn(json_object_get(o, "copies"));
	print_erasures(json_object_get(o, "erasures"));
	printf("%s\n", audit_proves);
}

static const struct history_volume *find(const struct history *h, const char *name,
					 struct error *err)
{
	const struct history_volume *v = history_find_volume(h, name);

	if (v == NULL)
		error_set(err, -ENOENT, "the ledger tells of no volume \"%.64s\" up to that time",
			  name);
	return v;
}

int cmd_audit_where(int argc, char **argv)
{
	struct history_options options = {.until = INT64_MAX};
	struct audit_options o;
	struct history *h;
	const struct history_volume *v;
	struct error err = {0};
	const char *name;
	json_t *json;
	int rc = parse(argc, argv, "rfa", &o);

	if (rc != 0)
		return rc;
	name = cmd_operand(argc, argv, "VOLUME");
	if (name == NULL)
		return 2;
	if (o.has_at && o.at > now_ns())
		return cmd_usage_error("--at is after now, of which nobody can tell");
	if (!o.has_at)
		o.at = now_ns();
	else
		options.until = o.at;
	if (audit_replay(&o.source, &options, &h, &err) != 0)
		return cmd_fail(&err);
	v = find(h, name, &err);
	if (v == NULL) {
		history_free(h);
		return cmd_fail(&err);
	}
	json = where_json(h, v, o.at, o.source.file != NULL);
	history_free(h);
	if (cli.json)
		return cmd_print_json(json);
	print_where(json);
	json_decref(json);
	return 0;
}

/* -- report ----------------------------------------------------------------------------------- */

static int write_report(const struct audit_options *o, const struct audit_report *report,
			const struct history *h, const struct history_volume *v, struct error *err)
{
	FILE *out = strcmp(o->out, "-") == 0 ? stdout : fopen(o->out, "w");
	int rc = 0;

	if (out == NULL)
		return error_set(err, -errno, "%s: %s", o->out, strerror(errno));
	audit_report_html(out, report, h, v);
	if (out == stdout)
		return 0;
	if (fflush(out) != 0 || ferror(out))
		rc = error_set(err, -EIO, "%s: it cannot be written: %s", o->out, strerror(errno));
	if (fclose(out) != 0 && rc == 0)
		rc = error_set(err, -EIO, "%s: it cannot be written: %s", o->out, strerror(errno));
	return rc;
}

int cmd_audit_report(int argc, char **argv)
{
	struct audit_report report = {0};
	struct history_options options = {
	    .until = INT64_MAX, .each = audit_report_event, .arg = &report};
	const struct history_volume *v = NULL;
	struct audit_options o;
	struct history *h = NULL;
	struct error err = {0};
	int rc = parse(argc, argv, "rfoFT", &o);

	if (rc != 0)
		return rc;
	report.volume = cmd_operand(argc, argv, "VOLUME");
	if (report.volume == NULL)
		return 2;
	if (o.out == NULL && !cli.json)
		return cmd_usage_error("--out FILE.html, or --json, or both");
	if (o.out != NULL && strcmp(o.out, "-") == 0 && cli.json)
		return cmd_usage_error("--out -: the page goes to standard output, so --json "
				       "cannot; give --out FILE.html");
	report.of_file = o.source.file != NULL;
	report.from = o.from;
	report.to = MIN(o.to, now_ns());
	if (report.from >= report.to)
		return cmd_usage_error("--from is not before --to, nor before now");
	options.until = report.to;
	rc = audit_replay(&o.source, &options, &h, &err);
	if (rc == 0) {
		v = find(h, report.volume, &err);
		rc = v == NULL	     ? err.code
		     : report.failed ? error_set(&err, -ENOMEM, "no memory")
				     : 0;
	}
	if (rc == 0 && o.out != NULL)
		rc = write_report(&o, &report, h, v, &err);
	if (rc == 0 && cli.json)
		cmd_print_json(audit_report_json(&report, h, v));
	else if (rc == 0 && strcmp(o.out, "-") != 0)
		printf("%s: volume %s, %zu events\n", o.out, v->name, report.count);
	audit_report_deinit(&report);
	history_free(h);
	return rc == 0 ? 0 : cmd_fail(&err);
}
