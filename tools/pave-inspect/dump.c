/* pave-inspect --dump: every segment, group and entry; a line each, or a JSON object a line. */
#include <inttypes.h>
#include <stdio.h>

#include "tools/pave-inspect/inspect.h"

static const char *const kinds[FORMAT_KINDS] = {
    [FORMAT_DATA] = "data",   [FORMAT_ZERO] = "zero",		[FORMAT_DISCARD] = "discard",
    [FORMAT_FENCE] = "fence", [FORMAT_WATERMARK] = "watermark", [FORMAT_ERASE] = "erase",
};

static const char *kind_name(const struct format_entry *e)
{
	return e->kind < FORMAT_KINDS && kinds[e->kind] != NULL ? kinds[e->kind] : "?";
}

static void print_json(json_t *o)
{
	json_dumpf(o, stdout, JSON_COMPACT);
	putchar('\n');
	json_decref(o);
}

static json_t *entry_json(const struct format_entry *e)
{
	json_t *o =
	    json_pack("{s:s,s:I,s:I,s:i,s:i,s:I,s:I}", "kind", kind_name(e), "volume",
		      (json_int_t)e->volume, "chunk", (json_int_t)e->chunk, "block", (int)e->block,
		      "block_count", (int)e->block_count, "version", (json_int_t)e->version,
		      "watermark", (json_int_t)format_entry_watermark(e));

	json_object_set_new(o, "move", json_boolean((e->flags & FORMAT_FLAG_MOVE) != 0));
	json_object_set_new(o, "bad", json_boolean((e->flags & FORMAT_FLAG_BAD) != 0));
	json_object_set_new(o, "resync", json_boolean((e->flags & FORMAT_FLAG_RESYNC) != 0));
	return o;
}

static json_t *group_json(const struct survey_group *group)
{
	const struct format_group *g = &group->header;
	json_t *entries = json_array();

	for (uint32_t i = 0; i < g->entry_count; i++)
		json_array_append_new(entries, entry_json(&group->entries[i]));
	return json_pack("{s:i,s:i,s:s,s:I,s:I,s:I,s:I,s:i,s:i,s:i,s:o}", "segment",
			 (int)g->segment, "first_block", (int)g->first_block, "stream",
			 g->stream == 0 ? "hot" : "cold", "seq", (json_int_t)g->seq, "prev_seq",
			 (json_int_t)g->prev_seq, "durable_seq", (json_int_t)g->durable_seq,
			 "other_durable_seq", (json_int_t)g->other_durable_seq, "epoch",
			 (int)g->epoch, "data_blocks", (int)g->data_blocks, "bad_blocks",
			 (int)group->bad_blocks, "entries", entries);
}

void dump_group(const struct survey_group *group, bool json)
{
	const struct format_group *g = &group->header;

	if (json) {
		print_json(group_json(group));
		return;
	}
	printf("  group %" PRIu64 " at block %u, %s, after %" PRIu64 ", durable up to %" PRIu64
	       ": %u entries, %u blocks%s\n",
	       g->seq, g->first_block, g->stream == 0 ? "hot" : "cold", g->prev_seq, g->durable_seq,
	       g->entry_count, g->data_blocks, group->bad_blocks > 0 ? ", SOME DO NOT CHECK" : "");
	for (uint32_t i = 0; i < g->entry_count; i++) {
		const struct format_entry *e = &group->entries[i];

		printf("    %s volume %" PRIu64 " chunk %u blocks %u+%u version %u.%" PRIu64,
		       kind_name(e), e->volume, e->chunk, e->block, e->block_count,
		       version_generation(e->version), version_seq(e->version));
		if (format_entry_watermark(e) != 0)
			printf(" watermark %u.%" PRIu64, version_generation(e->watermark),
			       version_seq(e->watermark));
		printf("%s%s%s\n", (e->flags & FORMAT_FLAG_MOVE) != 0 ? " moved" : "",
		       (e->flags & FORMAT_FLAG_BAD) != 0 ? ", known to be damaged" : "",
		       (e->flags & FORMAT_FLAG_RESYNC) != 0 ? " by resync" : "");
	}
}

void dump_segment(const struct survey_segment *s, bool json)
{
	if (s->epoch == 0 && s->unreadable == 0)
		return; /* never used */
	if (json) {
		print_json(json_pack("{s:i,s:i,s:i,s:i,s:i,s:i,s:i}", "segment", (int)s->no,
				     "epoch", (int)s->epoch, "groups", (int)s->groups, "old_groups",
				     (int)s->old_groups, "used_blocks", (int)s->used, "lost_blocks",
				     (int)s->lost, "unreadable_blocks", (int)s->unreadable));
		return;
	}
	printf("segment %u, use %u: %u groups in %u blocks", s->no, s->epoch, s->groups, s->used);
	if (s->old_groups > 0)
		printf(", behind them %u of earlier uses", s->old_groups);
	if (s->lost > 0)
		printf(", %u BLOCKS BELONG TO NO GROUP, the first is %u", s->lost, s->first_lost);
	if (s->unreadable > 0)
		printf(", %u CANNOT BE READ", s->unreadable);
	putchar('\n');
}
