/* pave audit report: how many chunks of the volume each node held, over time. See audit.h. */
#include <stdlib.h>
#include <string.h>

#include "tools/pave/audit.h"
#include "tools/pave/view.h"

#define COLUMNS	   900u
#define LEFT	   110.0
#define ROW	   44.0
#define BAR_HEIGHT 24.0
#define WAIT_MIN   2.0 /* so that one chunk of many shows */

static struct audit_holder *holder_of(struct audit_copies *c, const char *node)
{
	struct audit_holder *larger;

	for (uint32_t i = 0; i < c->holder_count; i++)
		if (strcmp(c->holders[i].node, node) == 0)
			return &c->holders[i];
	larger = realloc(c->holders, (c->holder_count + 1) * sizeof *larger);
	if (larger == NULL) {
		c->failed = true;
		return NULL;
	}
	c->holders = larger;
	larger = &c->holders[c->holder_count++];
	*larger = (struct audit_holder){.chunks = 0};
	snprintf(larger->node, sizeof larger->node, "%s", node);
	return larger;
}

/* What differs from the last sample of each node. */
static void sample(struct audit_copies *c, int64_t at)
{
	for (uint32_t i = 0; i < c->holder_count; i++) {
		struct audit_holder *h = &c->holders[i];

		if (h->chunks == h->told_chunks && h->waiting == h->told_waiting)
			continue;
		if (c->count == c->room) {
			const size_t room = MAX(2 * c->room, (size_t)64);
			struct audit_sample *larger = realloc(c->samples, room * sizeof *larger);

			if (larger == NULL) {
				c->failed = true;
				return;
			}
			c->samples = larger;
			c->room = room;
		}
		c->samples[c->count++] = (struct audit_sample){
		    .at = at, .holder = i, .chunks = h->chunks, .waiting = h->waiting};
		h->told_chunks = h->chunks;
		h->told_waiting = h->waiting;
	}
}

static void take_map(struct audit_copies *c, const struct history_volume *v)
{
	uint32_t counts[256] = {0};

	for (size_t i = 0; i < (size_t)v->chunk_count * v->replicas; i++)
		counts[v->map[i]]++;
	for (uint32_t i = 0; i < c->holder_count; i++)
		c->holders[i].chunks = 0;
	for (uint32_t i = 0; i < v->node_count; i++) {
		struct audit_holder *h = holder_of(c, v->nodes[i]);

		if (h != NULL)
			h->chunks = counts[i];
	}
}

/* A chunk that a node does not hold does not leave it: history has a finding then. */
static void take_move(struct audit_copies *c, const Pave__V1__LedgerMove *m)
{
	struct audit_holder *from = holder_of(c, m->from), *to;

	if (from == NULL || from->chunks == 0)
		return;
	from->chunks--;
	from->waiting++;
	to = holder_of(c, m->to);
	if (to != NULL)
		to->chunks++;
}

static void take_end(struct audit_copies *c)
{
	for (uint32_t i = 0; i < c->holder_count; i++) {
		c->holders[i].waiting += c->holders[i].chunks;
		c->holders[i].chunks = 0;
	}
}

/* What is left there now; all of them, if the whole volume still is. */
static void take_erasure(struct audit_copies *c, const struct history_volume *v, const char *node)
{
	struct audit_holder *h = holder_of(c, node);
	uint32_t waiting = 0;

	for (const struct history_leftover *l = v->leftovers; h != NULL && l != NULL; l = l->next) {
		if (strcmp(l->node, node) != 0)
			continue;
		if (l->chunk == UINT32_MAX)
			return;
		waiting++;
	}
	if (h != NULL)
		h->waiting = waiting;
}

void audit_copies_event(struct audit_copies *c, const struct history_volume *v,
			const Pave__V1__LedgerRecord *r)
{
	if (r->body_case == PAVE__V1__LEDGER_RECORD__BODY_MAP && r->map->volume == v->id)
		take_map(c, v);
	else if (r->body_case == PAVE__V1__LEDGER_RECORD__BODY_MOVE && r->move->volume == v->id)
		take_move(c, r->move);
	else if (r->body_case == PAVE__V1__LEDGER_RECORD__BODY_VOLUME_END &&
		 r->volume_end->volume == v->id)
		take_end(c);
	else if (r->body_case == PAVE__V1__LEDGER_RECORD__BODY_ERASURE &&
		 r->erasure->volume == v->id)
		take_erasure(c, v, r->erasure->node);
	else
		return;
	sample(c, r->at);
}

void audit_copies_deinit(struct audit_copies *c)
{
	free(c->holders);
	free(c->samples);
	*c = (struct audit_copies){0};
}

/* -- what is shown of it ---------------------------------------------------------------------- */

static json_t *sample_json(const struct audit_copies *c, const struct audit_sample *s, int64_t at)
{
	return json_pack("{s:o,s:s,s:I,s:I}", "at", view_time(at), "node",
			 c->holders[s->holder].node, "chunks", (json_int_t)s->chunks, "not_erased",
			 (json_int_t)s->waiting);
}

/* The node's last sample before `from`; NULL: none. */
static const struct audit_sample *before(const struct audit_copies *c, uint32_t holder,
					 int64_t from)
{
	const struct audit_sample *last = NULL;

	for (size_t i = 0; i < c->count && c->samples[i].at < from; i++)
		if (c->samples[i].holder == holder)
			last = &c->samples[i];
	return last;
}

json_t *audit_copies_json(const struct audit_copies *c, int64_t from)
{
	json_t *list = json_array();

	for (uint32_t i = 0; i < c->holder_count; i++) {
		const struct audit_sample *s = before(c, i, from);

		if (s != NULL)
			json_array_append_new(list, sample_json(c, s, from));
	}
	for (size_t i = 0; i < c->count; i++)
		if (c->samples[i].at >= from)
			json_array_append_new(list,
					      sample_json(c, &c->samples[i], c->samples[i].at));
	return list;
}

/* The most that a node had in each column, whatever came and went in it. */
struct columns {
	uint32_t chunks[COLUMNS], waiting[COLUMNS];
};

static void fill(const struct audit_copies *c, uint32_t holder, int64_t from, int64_t to,
		 struct columns *ret)
{
	const struct audit_sample *s = before(c, holder, from);
	uint32_t chunks = s != NULL ? s->chunks : 0, waiting = s != NULL ? s->waiting : 0, at = 0;

	memset(ret, 0, sizeof *ret);
	for (size_t i = 0; i <= c->count; i++) {
		const struct audit_sample *next = i < c->count ? &c->samples[i] : NULL;
		uint32_t end = COLUMNS - 1;

		if (next != NULL && (next->holder != holder || next->at < from || next->at >= to))
			continue;
		if (next != NULL)
			end = (uint32_t)((double)(next->at - from) / (double)(to - from) * COLUMNS);
		for (uint32_t x = at; x <= end; x++) {
			ret->chunks[x] = MAX(ret->chunks[x], chunks);
			ret->waiting[x] = MAX(ret->waiting[x], waiting);
		}
		at = end;
		chunks = next != NULL ? next->chunks : 0;
		waiting = next != NULL ? next->waiting : 0;
	}
}

/* Rectangles for one row of values; columns that are alike are one. */
static void row(FILE *out, const char *class, const uint32_t values[COLUMNS], double scale,
		double height_min, double base, bool up)
{
	for (uint32_t x = 0; x < COLUMNS;) {
		uint32_t end = x + 1;
		const double height = MAX(values[x] * scale, height_min);

		while (end < COLUMNS && values[end] == values[x])
			end++;
		if (values[x] > 0)
			fprintf(out,
				"<rect class=\"%s\" x=\"%.0f\" y=\"%.1f\" width=\"%u\" "
				"height=\"%.1f\"><title>%u</title></rect>\n",
				class, LEFT + x, up ? base - height : base, end - x, height,
				values[x]);
		x = end;
	}
}

void audit_copies_svg(FILE *out, const struct audit_copies *c, int64_t from, int64_t to)
{
	struct columns columns;
	uint32_t most = 1;

	for (size_t i = 0; i < c->count; i++)
		most = MAX(most, MAX(c->samples[i].chunks, c->samples[i].waiting));
	to = MAX(to, from + 1);
	fprintf(out,
		"<svg viewBox=\"0 0 %.0f %.0f\" role=\"img\" aria-label=\"How many chunks each "
		"node held\">\n",
		LEFT + COLUMNS + 20, c->holder_count * ROW + 10);
	for (uint32_t i = 0; i < c->holder_count; i++) {
		const double base = i * ROW + BAR_HEIGHT + 6;

		fill(c, i, from, to, &columns);
		fprintf(out, "<text x=\"0\" y=\"%.0f\">", base - 4);
		audit_html_text(out, c->holders[i].node);
		fprintf(out,
			"</text><rect class=\"gap\" x=\"%.0f\" y=\"%.0f\" width=\"%u\" "
			"height=\"1\"/>\n",
			LEFT, base, COLUMNS);
		row(out, "bar", columns.chunks, BAR_HEIGHT / most, 1, base, true);
		row(out, "bad", columns.waiting, (ROW - BAR_HEIGHT - 8) / most, WAIT_MIN, base + 1,
		    false);
	}
	fputs("</svg>\n", out);
}
