/* pave audit report: what happened to one volume, as a page for a person (whole in itself: no
 * script, no font, no picture from elsewhere) and as JSON. See audit.h. */
#include <inttypes.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/text.h"
#include "engine/evidence/documents.h"
#include "tools/pave/audit.h"
#include "tools/pave/view.h"

/* -- collecting ------------------------------------------------------------------------------- */

static void add(struct audit_report *a, const Pave__V1__LedgerRecord *r, const char *kind,
		const char *fmt, ...) __attribute__((format(printf, 4, 5)));

static void add(struct audit_report *a, const Pave__V1__LedgerRecord *r, const char *kind,
		const char *fmt, ...)
{
	struct audit_event *e;
	va_list args;

	if (a->count == a->room) {
		size_t room = a->room > 0 ? 2 * a->room : 64;
		struct audit_event *larger = realloc(a->events, room * sizeof *larger);

		if (larger == NULL) {
			a->failed = true;
			return;
		}
		a->events = larger;
		a->room = room;
	}
	e = &a->events[a->count++];
	e->at = r->at;
	e->seq = r->seq;
	snprintf(e->kind, sizeof e->kind, "%s", kind);
	va_start(args, fmt);
	vsnprintf(e->text, sizeof e->text, fmt, args);
	va_end(args);
}

/* Whether the node has, or had, something of the volume. */
static bool concerns_node(const struct history_volume *v, const char *node)
{
	for (uint32_t i = 0; i < v->node_count; i++)
		if (strcmp(v->nodes[i], node) == 0)
			return true;
	return false;
}

static bool concerns_site(const struct history *h, const struct history_volume *v, const char *site)
{
	for (uint32_t i = 0; i < v->node_count; i++) {
		const struct history_node *n = history_find_node(h, v->nodes[i]);

		if (n != NULL && strcmp(n->site, site) == 0)
			return true;
	}
	return false;
}

/* With those sites of the volume that it withdraws, now or later. */
static void add_snapshot(struct audit_report *a, const struct history *h,
			 const struct history_volume *v, const Pave__V1__LedgerRecord *r)
{
	char text[256] = "", from[40];
	size_t n = 0;

	for (const struct history_site *s = h->sites; s != NULL; s = s->hh.next) {
		int64_t since;

		if (n < sizeof text && h->revocations != NULL && concerns_site(h, v, s->name) &&
		    revocations_withdrawn(h->revocations, s->name, INT64_MAX, &since, NULL))
			n += (size_t)snprintf(text + n, sizeof text - n,
					      ", site %s withdrawn from %s", s->name,
					      text_time(since, from, sizeof from));
	}
	add(a, r, "revocations", "snapshot version %" PRIu64 "%s", r->document->version, text);
}

static void permit_event(struct audit_report *a, const Pave__V1__LedgerRecord *r,
			 const struct history_volume *v)
{
	const struct history_permit *p;
	char nodes[200] = "";
	size_t used = 0;

	if (v->permit_count == 0)
		return;
	p = &v->permits[v->permit_count - 1];
	if (p->seq != r->seq)
		return; /* another volume's */
	for (size_t i = 0; i < p->first->n_nodes && used < sizeof nodes; i++)
		used += (size_t)snprintf(nodes + used, sizeof nodes - used, "%s%s v%" PRIu64,
					 i > 0 ? ", " : "", p->first->nodes[i]->site,
					 p->first->nodes[i]->site_version);
	add(a, r, "permit", "generation %u of %s: %zu nodes (%s)", p->first->generation,
	    p->first->holder, p->first->n_nodes, nodes);
}

static void other_event(struct audit_report *a, const struct history *h,
			const Pave__V1__LedgerRecord *r, const struct history_volume *v)
{
	char when[40], id[24];

	snprintf(id, sizeof id, "#%" PRIu64, v->id);
	switch (r->body_case) {
	case PAVE__V1__LEDGER_RECORD__BODY_DOCUMENT:
		if (strcmp(r->document->kind, "site") == 0 &&
		    concerns_site(h, v, r->document->name))
			add(a, r, "certificate", "site %.63s: version %" PRIu64, r->document->name,
			    r->document->version);
		if (strcmp(r->document->kind, "revocations") == 0)
			add_snapshot(a, h, v, r);
		break;
	case PAVE__V1__LEDGER_RECORD__BODY_LEASE_END:
		if (concerns_node(v, r->lease_end->node) &&
		    strcmp(r->lease_end->why, "changed") != 0)
			add(a, r, "lease", "node %.63s has no lease any more: %.20s",
			    r->lease_end->node, r->lease_end->why);
		break;
	case PAVE__V1__LEDGER_RECORD__BODY_DENIAL:
		if (strcmp(r->denial->subject, id) == 0 ||
		    strcmp(r->denial->subject, v->name) == 0 ||
		    concerns_node(v, r->denial->subject))
			add(a, r, "denial", "%.12s: %.240s", r->denial->what, r->denial->text);
		break;
	case PAVE__V1__LEDGER_RECORD__BODY_TAINT:
		if (concerns_site(h, v, r->taint->site))
			add(a, r, "taint", "site %.63s lost its eligibility from %s on; told late",
			    r->taint->site,
			    view_time_text(r->taint->effective_from, when, sizeof when));
		break;
	default:
		break;
	}
}

void audit_report_event(const struct history *h, const Pave__V1__LedgerRecord *r, void *report)
{
	struct audit_report *a = report;
	const struct history_volume *v = history_find_volume(h, a->volume);
	char size[40];

	if (v != NULL)
		audit_copies_event(&a->copies, v, r);
	a->failed = a->failed || a->copies.failed;
	if (v == NULL || r->at < a->from)
		return;
	switch (r->body_case) {
	case PAVE__V1__LEDGER_RECORD__BODY_VOLUME:
		if (r->volume->volume == v->id)
			add(a, r, "volume", "%s under policy %s",
			    text_size(r->volume->size, size, sizeof size), v->policy);
		break;
	case PAVE__V1__LEDGER_RECORD__BODY_MAP:
		if (r->map->volume == v->id)
			add(a, r, "map", "version %" PRIu64 ": %u chunks on %u nodes",
			    r->map->map_version, v->chunk_count, v->node_count);
		break;
	case PAVE__V1__LEDGER_RECORD__BODY_MOVE:
		if (r->move->volume == v->id)
			add(a, r, "move", "chunk %u: %.63s to %.63s (%.20s)", r->move->chunk,
			    r->move->from, r->move->to, r->move->why);
		break;
	case PAVE__V1__LEDGER_RECORD__BODY_VOLUME_END:
		if (r->volume_end->volume == v->id)
			add(a, r, "deleted", "its nodes erase their copies");
		break;
	case PAVE__V1__LEDGER_RECORD__BODY_PERMIT:
		permit_event(a, r, v);
		break;
	case PAVE__V1__LEDGER_RECORD__BODY_PERMIT_END:
		if (r->permit_end->volume == v->id)
			add(a, r, "permit end", "generation %u: %.20s", r->permit_end->generation,
			    r->permit_end->why);
		break;
	case PAVE__V1__LEDGER_RECORD__BODY_ERASURE:
		if (r->erasure->volume == v->id)
			add(a, r, "erasure",
			    "node %.63s has erased its copy%s: %.16s of %llu segments, in %llu "
			    "ms%s",
			    r->erasure->node, r->erasure->whole_volume ? "" : " of some chunks",
			    r->erasure->method[0] != '\0' ? r->erasure->method : "drop",
			    (unsigned long long)r->erasure->segments,
			    (unsigned long long)r->erasure->took_ms,
			    r->erasure->report != NULL ? ", and has signed that"
						       : "; it has signed nothing");
		break;
	default:
		other_event(a, h, r, v);
		break;
	}
}

void audit_report_deinit(struct audit_report *a)
{
	free(a->events);
	audit_copies_deinit(&a->copies);
	*a = (struct audit_report){0};
}

/* -- receipts by node ------------------------------------------------------------------------- */

struct node_sum {
	uint64_t receipts, writes, bytes, pulled, tainted;
	int64_t first, last;
};

static struct node_sum sum_of(const struct history *h, const struct history_volume *v,
			      const char *node, int64_t from)
{
	struct node_sum s = {.first = INT64_MAX};

	for (uint32_t i = 0; i < h->receipt_count; i++) {
		const Pave__V1__Receipt *r = h->receipts[i].body;

		if (r->volume != v->id || strcmp(r->node, node) != 0 || r->until < from)
			continue;
		s.receipts++;
		s.writes += r->count;
		s.bytes += r->bytes;
		s.pulled += r->pulled_blocks * BLOCK_SIZE;
		s.tainted += h->receipts[i].tainted ? r->count : 0;
		s.first = MIN(s.first, r->from);
		s.last = MAX(s.last, r->until);
	}
	return s;
}

/* Of the sites that have, or had, something of the volume. */
static json_t *certificates_json(const struct history *h, const struct history_volume *v)
{
	json_t *list = json_array();

	for (const struct history_site *s = h->sites; s != NULL; s = s->hh.next)
		for (uint32_t i = 0; concerns_site(h, v, s->name) && i < s->version_count; i++) {
			const struct site_document *d = s->versions[i].document;

			json_array_append_new(
			    list, json_pack("{s:s,s:I,s:o,s:o,s:s,s:s,s:s,s:b}", "site", s->name,
					    "version", (json_int_t)site_version(d), "not_before",
					    view_time(site_not_before(d)), "not_after",
					    view_time(site_not_after(d)), "territory",
					    site_territory(d), "campus", site_campus(d), "operator",
					    site_operator(d), "void", s->versions[i].is_void));
		}
	return list;
}

json_t *audit_report_json(const struct audit_report *a, const struct history *h,
			  const struct history_volume *v)
{
	json_t *events = json_array(), *nodes = json_array();

	for (size_t i = 0; i < a->count; i++)
		json_array_append_new(
		    events, json_pack("{s:o,s:I,s:s,s:s}", "at", view_time(a->events[i].at),
				      "record", (json_int_t)a->events[i].seq, "kind",
				      a->events[i].kind, "text", a->events[i].text));
	for (uint32_t i = 0; i < v->node_count; i++) {
		const struct history_node *n = history_find_node(h, v->nodes[i]);
		struct node_sum s = sum_of(h, v, v->nodes[i], a->from);
		uint32_t count;
		json_t *chunks = audit_chunks_json(v, v->nodes[i], &count);

		json_array_append_new(
		    nodes,
		    json_pack("{s:s,s:s,s:o,s:o,s:I,s:I,s:I,s:I,s:I}", "node", v->nodes[i], "site",
			      n != NULL ? n->site : "", "withdrawn_from",
			      audit_withdrawn_from(h, n != NULL ? n->site : "", a->to), "chunks",
			      chunks, "receipts", (json_int_t)s.receipts, "writes",
			      (json_int_t)s.writes, "bytes", (json_int_t)s.bytes, "pulled_bytes",
			      (json_int_t)s.pulled, "tainted_writes", (json_int_t)s.tainted));
	}
	return json_pack(
	    "{s:s,s:I,s:s,s:o,s:o,s:o,s:o,s:o,s:o,s:o,s:o,s:o,s:s}", "volume", v->name, "id",
	    (json_int_t)v->id, "policy", v->policy, "from", view_time(a->from), "to",
	    view_time(a->to), "not_told_after", audit_not_told_after(h, a->to, a->of_file), "nodes",
	    nodes, "certificates", certificates_json(h, v), "copies",
	    audit_copies_json(&a->copies, MAX(a->from, v->created_at)), "events", events, "ledger",
	    audit_ledger_json(h), "findings", audit_findings_json(h), "proves", audit_proves);
}

/* -- the page --------------------------------------------------------------------------------- */

static const char style[] =
    ":root{color-scheme:light dark}"
    "body{font:15px/1.5 system-ui,sans-serif;max-width:64rem;margin:2rem auto;padding:0 1rem}"
    "h1{font-size:1.5rem}h2{font-size:1.15rem;margin-top:2rem}"
    "table{border-collapse:collapse;width:100%}th,td{text-align:left;padding:.25rem .6rem;"
    "border-bottom:1px solid "
    "#8884;vertical-align:top}td:first-child{white-space:nowrap}th{font-weight:600}td.n,th.n{text-"
    "align:right;"
    "font-variant-numeric:tabular-nums}"
    ".wide{overflow-x:auto}figure{margin:0;max-width:26rem}svg{width:100%;height:auto}"
    ".land{fill:#8882;stroke:#888;stroke-width:1.5;stroke-linejoin:round}"
    ".holds{fill:#1a7f5a}.held{fill:none;stroke:#b3541e;stroke-width:3}"
    "svg text{font:600 15px system-ui,sans-serif;fill:currentColor}"
    "svg text.small{font:12px system-ui,sans-serif}"
    ".bar{fill:#1a7f5a}.gap{fill:#8883}.bad{fill:#b3541e}"
    ".denial td,.taint td{background:#b3541e22}.proves{border-left:4px solid "
    "#888;padding-left:1rem}";

static void cell(FILE *out, const char *text)
{
	fputs("<td>", out);
	audit_html_text(out, text);
	fputs("</td>", out);
}

static void sites_table(FILE *out, const struct audit_report *a, const struct history *h,
			const struct history_volume *v)
{
	fputs("<div class=\"wide\"><table><tr><th>Node</th><th>Site</th><th "
	      "class=\"n\">Certificate</th>"
	      "<th>Territory</th><th>Campus</th><th>Operator</th><th class=\"n\">Chunks</th>"
	      "<th class=\"n\">Writes</th><th class=\"n\">Bytes</th><th class=\"n\">Tainted "
	      "writes</th></tr>\n",
	      out);
	for (uint32_t i = 0; i < v->node_count; i++) {
		const struct history_node *n = history_find_node(h, v->nodes[i]);
		const struct site_document *site =
		    n != NULL ? history_site_version(h, n->site, 0) : NULL;
		struct node_sum s = sum_of(h, v, v->nodes[i], a->from);
		json_t *withdrawn = audit_withdrawn_from(h, n != NULL ? n->site : "", a->to);
		char size[40];
		uint32_t count;

		json_decref(audit_chunks_json(v, v->nodes[i], &count));
		fputs("<tr>", out);
		cell(out, v->nodes[i]);
		cell(out, n != NULL ? n->site : "?");
		fprintf(out, "<td class=\"n\">%" PRIu64 "%s%s</td>",
			site != NULL ? site_version(site) : 0,
			json_is_string(withdrawn) ? ", withdrawn from " : "",
			json_is_string(withdrawn) ? json_string_value(withdrawn) : "");
		json_decref(withdrawn);
		cell(out, site != NULL ? site_territory(site) : "");
		cell(out, site != NULL ? site_campus(site) : "");
		cell(out, site != NULL ? site_operator(site) : "");
		fprintf(out,
			"<td class=\"n\">%u</td><td class=\"n\">%" PRIu64
			"</td><td class=\"n\">%s</td><td class=\"n\">%" PRIu64 "</td></tr>\n",
			v->ended_at == 0 ? count : 0, s.writes,
			view_size_text(s.bytes + s.pulled, size, sizeof size), s.tainted);
	}
	fputs("</table></div>\n", out);
}

static void certificates_table(FILE *out, const struct history *h, const struct history_volume *v)
{
	char when[40];

	fputs(
	    "<div class=\"wide\"><table><tr><th>Site</th><th class=\"n\">Version</th>"
	    "<th>From</th><th>Until</th><th>Territory</th><th>Campus</th><th>Operator</th></tr>\n",
	    out);
	for (const struct history_site *s = h->sites; s != NULL; s = s->hh.next)
		for (uint32_t i = 0; concerns_site(h, v, s->name) && i < s->version_count; i++) {
			const struct site_document *d = s->versions[i].document;

			fputs("<tr>", out);
			cell(out, s->name);
			fprintf(out, "<td class=\"n\">%" PRIu64 "%s</td>", site_version(d),
				s->versions[i].is_void ? " (void)" : "");
			cell(out, view_time_text(site_not_before(d), when, sizeof when));
			cell(out, view_time_text(site_not_after(d), when, sizeof when));
			cell(out, site_territory(d));
			cell(out, site_campus(d));
			cell(out, site_operator(d));
			fputs("</tr>\n", out);
		}
	fputs("</table></div>\n", out);
}

/* One row a node: when a permit named it (a write to it was possible), and where it was tainted. */
static void timeline(FILE *out, const struct audit_report *a, const struct history *h,
		     const struct history_volume *v)
{
	const int64_t from = MAX(a->from, v->created_at);
	const double width = 900.0, left = 110.0;
	const double span = (double)MAX(a->to - from, 1);
	char t0[40], t1[40];

	fprintf(out,
		"<svg viewBox=\"0 0 %.0f %u\" role=\"img\" aria-label=\"When permits named each "
		"node\">\n",
		left + width + 20, v->node_count * 26 + 40);
	for (uint32_t i = 0; i < v->node_count; i++) {
		double y = i * 26.0 + 8;

		fprintf(out, "<text x=\"0\" y=\"%.0f\">", y + 13);
		audit_html_text(out, v->nodes[i]);
		fprintf(out,
			"</text><rect class=\"gap\" x=\"%.0f\" y=\"%.0f\" width=\"%.0f\" "
			"height=\"16\"/>\n",
			left, y, width);
		for (uint32_t j = 0; j < v->permit_count; j++) {
			const struct history_permit *p = &v->permits[j];
			int64_t b = MAX(p->first->issued_at, from);
			int64_t e = MIN(p->open ? a->to : p->expires_at, a->to);
			bool named = false;

			for (size_t k = 0; k < p->first->n_nodes && !named; k++)
				named = strcmp(p->first->nodes[k]->node, v->nodes[i]) == 0;
			if (named && e > b)
				fprintf(out,
					"<rect class=\"bar\" x=\"%.1f\" y=\"%.0f\" width=\"%.1f\" "
					"height=\"16\"/>\n",
					left + (double)(b - from) / span * width, y,
					MAX((double)(e - b) / span * width, 1.0));
		}
		for (uint32_t j = 0; j < h->taint_count; j++) {
			const struct history_node *n = history_find_node(h, v->nodes[i]);
			int64_t b = MAX(h->taints[j].effective_from, from);
			int64_t e = MIN(h->taints[j].noticed_at, a->to);

			if (n != NULL && strcmp(n->site, h->taints[j].site) == 0 && e > b)
				fprintf(out,
					"<rect class=\"bad\" x=\"%.1f\" y=\"%.0f\" width=\"%.1f\" "
					"height=\"6\"/>\n",
					left + (double)(b - from) / span * width, y + 16,
					MAX((double)(e - b) / span * width, 1.0));
		}
	}
	fprintf(out,
		"<text class=\"small\" x=\"%.0f\" y=\"%u\">%s</text><text class=\"small\" "
		"text-anchor=\"end\" x=\"%.0f\" y=\"%u\">%s</text></svg>\n",
		left, v->node_count * 26 + 30, view_time_text(from, t0, sizeof t0), left + width,
		v->node_count * 26 + 30, view_time_text(a->to, t1, sizeof t1));
}

static void events_table(FILE *out, const struct audit_report *a)
{
	char when[40];

	fputs("<div class=\"wide\"><table><tr><th>When</th><th "
	      "class=\"n\">Record</th><th>What</th><th></th>"
	      "</tr>\n",
	      out);
	for (size_t i = 0; i < a->count; i++) {
		const struct audit_event *e = &a->events[i];

		fprintf(out, "<tr class=\"%s\"><td>%s</td><td class=\"n\">%" PRIu64 "</td>",
			e->kind, text_time(e->at, when, sizeof when), e->seq);
		cell(out, e->kind);
		cell(out, e->text);
		fputs("</tr>\n", out);
	}
	fputs("</table></div>\n", out);
}

static void findings_list(FILE *out, const struct history *h)
{
	if (h->kept_count == 0) {
		fputs("<p>No contradiction, no note.</p>\n", out);
		return;
	}
	fputs("<ul>\n", out);
	for (uint32_t i = 0; i < h->kept_count; i++) {
		fprintf(out, "<li>%s, record %" PRIu64 ": ",
			h->findings[i].note ? "Note" : "<strong>Contradiction</strong>",
			h->findings[i].seq);
		audit_html_text(out, h->findings[i].text);
		fputs("</li>\n", out);
	}
	fputs("</ul>\n", out);
}

void audit_report_html(FILE *out, const struct audit_report *a, const struct history *h,
		       const struct history_volume *v)
{
	char from[40], to[40], hash[2 * LEDGER_HASH_SIZE + 1];

	fprintf(out,
		"<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">"
		"<meta name=\"viewport\" content=\"width=device-width\">"
		"<title>Residency of volume %s</title><style>%s</style></head><body>\n"
		"<h1>Residency of volume %s (#%" PRIu64 ")</h1>\n",
		v->name, style, v->name, v->id);
	fprintf(out, "<p>From %s to %s, under policy %s.",
		view_time_text(MAX(a->from, v->created_at), from, sizeof from),
		view_time_text(a->to, to, sizeof to), v->policy);
	if (a->of_file && a->to > h->head.at)
		fprintf(out, " What came after %s is not in the file that this was made from.",
			text_time(h->head.at, to, sizeof to));
	fputs("</p>\n", out);
	fputs("<h2>Where its copies are</h2>\n<figure>\n", out);
	audit_map_svg(out, h, v);
	fputs("<figcaption>Filled: holds chunks at the end of the time. Ring: held some "
	      "before.</figcaption></figure>\n",
	      out);
	sites_table(out, a, h, v);
	fputs(
	    "<h2>When bytes could be written to each node</h2>\n<p>Green: a permit named it. Below "
	    "the bar: the time for which its site's loss of eligibility was told late.</p>\n",
	    out);
	timeline(out, a, h, v);
	fputs("<h2>Copies over time</h2>\n<p>Above the line: how many chunks the node held. Below "
	      "it: how many had left it, and were not yet erased.</p>\n",
	      out);
	audit_copies_svg(out, &a->copies, MAX(a->from, v->created_at), a->to);
	fputs("<h2>Certificates in the ledger</h2>\n", out);
	certificates_table(out, h, v);
	fputs("<h2>Contradictions and notes</h2>\n", out);
	findings_list(out, h);
	fputs("<h2>What happened</h2>\n", out);
	events_table(out, a);
	fprintf(out,
		"<h2>The ledger</h2>\n<p>%" PRIu64 " records, each chained to the one before; head "
		"%" PRIu64
		" <code>%s</code>, signed by the placement key.</p>\n<p class=\"proves\">",
		h->tip.seq, h->head.seq,
		text_hex(h->head.hash, sizeof h->head.hash, hash, sizeof hash));
	audit_html_text(out, audit_proves);
	fputs("</p></body></html>\n", out);
}
