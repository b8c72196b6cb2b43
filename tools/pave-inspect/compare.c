/* pave-inspect --index: the index against the device, both ways.
 *
 *   index --references, by place--> each group ticks off those that it bears out; what none has
 *                                   named at the end lies under no header
 *   groups --blocks that it does not refer to there--> looked up in the index: each must be there,
 *                                   in this version or a newer one, or have been erased
 *
 * The first way goes through the index once for each window of segments (refs.h), so that its
 * memory does not grow with the device. The second one holds nothing: it asks the index for a page
 * at a time. What must be known of the log as a whole before a group can be judged has been learnt
 * in a survey before (facts.h).
 *
 * That a block of a group is not in the index is damage when it cannot have been erased: the index
 * says that the page exists, or counts more live blocks in the segment than its pages refer to, or
 * every erase since is on the device still. Otherwise an erase whose entry is gone may be the
 * reason; then the blocks are counted, and that is all. (In a segment of which a count says that
 * something is missing it can't be told which; all that may be is.) */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/assert.h"
#include "engine/base/crc32c.h"
#include "engine/store/store.h"
#include "tools/pave-inspect/facts.h"
#include "tools/pave-inspect/refs.h"

struct compare {
	struct inspect_device *device;
	const struct format_super *super;
	struct findings *findings;
	struct refs *refs;
	struct facts *facts;
	uint32_t window_first, window_end;     /* segments */
	bool borne_out[FORMAT_GROUP_DATA_MAX]; /* by the data block of the group being looked at */
	struct compare_totals totals;
};

int compare_open(struct inspect_device *d, const char *path, const struct format_super *super,
		 uint64_t memory_bytes, struct findings *findings, struct compare **ret_compare,
		 struct error *err)
{
	struct compare *c = calloc(1, sizeof *c);
	int rc;

	if (c == NULL)
		return error_set(err, -ENOMEM, "no memory");
	c->device = d;
	c->super = super;
	c->findings = findings;
	rc = refs_open(d, path, super, memory_bytes, findings, &c->refs, err);
	if (rc == 0) {
		rc = facts_learn(&d->survey, super, refs_checkpoints(c->refs), &c->facts);
		if (rc != 0)
			error_set(err, rc, "%s: %s", d->survey.name, err_text(rc));
	}
	if (rc != 0) {
		compare_close(c);
		return rc;
	}
	for (uint32_t i = 0; i < super->shard_count; i++)
		c->totals.checkpoint =
		    MAX(c->totals.checkpoint, refs_checkpoints(c->refs)[i].number);
	c->totals.pages = refs_page_count(c->refs);
	c->totals.blocks = refs_count(c->refs);
	*ret_compare = c;
	return 0;
}

void compare_close(struct compare *c)
{
	if (c == NULL)
		return;
	refs_close(c->refs);
	facts_destroy(c->facts);
	free(c);
}

/* -- from the index to the groups ------------------------------------------------------------- */

static uint32_t segment_of(const struct compare *c, uint32_t location)
{
	return (location - FORMAT_SEGMENTS_BLOCK) / (c->super->segment_bytes / BLOCK_SIZE);
}

/* Something is wrong with a reference: unless recovery is going to replace it. */
static void tell_ref(struct compare *c, const struct ref *r, enum finding_kind kind,
		     const char *what)
{
	const struct facts_place place = {.shard = r->shard,
					  .volume = r->volume,
					  .chunk = r->chunk,
					  .block = r->block,
					  .version = r->version,
					  .location = r->location};

	if (kind != FINDING_SHARED && facts_is_superseded(c->facts, &place))
		kind = FINDING_SUPERSEDED;
	findings_add(c->findings, kind, 1,
		     "volume %" PRIu64 " chunk %u block %u version %u.%" PRIu64
		     ": block %u of the device, in segment %u%s%s",
		     r->volume, r->chunk, r->block, version_generation(r->version),
		     version_seq(r->version), r->location, segment_of(c, r->location),
		     what[0] != '\0' ? ": " : "", what);
}

static void tell_contradiction(struct compare *c, const struct ref *r,
			       const struct survey_group *group, const struct format_entry *e,
			       uint32_t n)
{
	char what[160];

	snprintf(what, sizeof what,
		 "group %" PRIu64 " has volume %" PRIu64 " chunk %u block %u version %u.%" PRIu64
		 " there%s",
		 group->header.seq, e->volume, e->chunk, e->block + n,
		 version_generation(e->version), version_seq(e->version),
		 r->crc != group->crcs[e->data_first + n] ? ", with another checksum" : "");
	tell_ref(c, r, FINDING_CONTRADICTION, what);
}

static void bear_out(struct compare *c, const struct survey_group *group,
		     const struct format_entry *e)
{
	uint32_t first = group->data_location + e->data_first;
	struct ref *end, *r = refs_find(c->refs, first, &end);

	for (; r < end && r->location - first < e->block_count; r++) {
		uint32_t n = r->location - first, at = e->data_first + n;

		r->named = true;
		if (r->volume != e->volume || r->chunk != e->chunk || r->block != e->block + n ||
		    r->version != e->version || r->crc != group->crcs[at]) {
			tell_contradiction(c, r, group, e, n);
			continue;
		}
		c->borne_out[at] = true;
		if (group->block_is_bad[at])
			tell_ref(c, r, FINDING_BAD, "");
		else
			c->totals.matching++;
	}
}

/* What no group of the window has named: whether the block checks all the same. */
static void finish_ref(struct compare *c, const struct ref *r, uint8_t *block)
{
	const struct survey_device *d = &c->device->survey;
	bool good = d->read(d->arg, (uint64_t)r->location * BLOCK_SIZE, BLOCK_SIZE, block) == 0 &&
		    crc32c(0, block, BLOCK_SIZE) == r->crc;

	tell_ref(c, r, good ? FINDING_HEADERLESS_GOOD : FINDING_HEADERLESS_BAD, "");
}

static int finish_window(struct compare *c)
{
	uint8_t *block = aligned_alloc(BLOCK_SIZE, BLOCK_SIZE);
	struct ref *end, *first = refs_find(c->refs, 0, &end);

	if (block == NULL)
		return -ENOMEM;
	for (struct ref *r = first; r < end; r++) {
		if (r > first && r->location == r[-1].location)
			tell_ref(c, r, FINDING_SHARED, "another block is there too");
		if (!r->named)
			finish_ref(c, r, block);
	}
	free(block);
	return 0;
}

/* So that the window holds the segment; or, with the device's segment count, to its end. */
static int go_to(struct compare *c, uint32_t segment)
{
	int rc = 0;

	while (rc == 0 && segment >= c->window_end) {
		if (c->window_end > 0)
			rc = finish_window(c);
		if (rc != 0 || c->window_end == c->super->segment_count)
			break;
		c->window_first = c->window_end;
		rc = refs_load_window(c->refs, c->window_first, &c->window_end);
	}
	return rc;
}

/* -- from the groups to the index ------------------------------------------------------------- */

enum state { THERE, GONE, UNSURE, MISSING };

struct block_state {
	enum state state;
	version_t version; /* that the index has; 0: none */
};

/* A block of a group that is not in the index in this version or a newer one. */
static int judge_missing(struct compare *c, const struct survey_group *group,
			 const struct format_entry *e, block_no_t block, enum state *ret_state)
{
	const struct format_group *g = &group->header;
	const struct refs_segment *s = &refs_segments(c->refs)[g->segment];
	uint32_t shard = g->segment % c->super->shard_count;
	const struct facts_place place = {.shard = shard,
					  .volume = e->volume,
					  .chunk = e->chunk,
					  .block = block,
					  .version = e->version};
	const struct refs_chunk *chunk;
	int rc = refs_chunk(c->refs, shard, e->volume, e->chunk, &chunk);

	if (rc < 0)
		return rc;
	*ret_state = UNSURE;
	if ((chunk->found && chunk->record.dead) ||
	    facts_is_erased(c->facts, shard, e->volume, e->chunk, g->seq) ||
	    facts_is_superseded(c->facts, &place))
		*ret_state = GONE;
	else if (facts_has_erases(c->facts, shard, g->seq) || s->record.live > s->live)
		*ret_state = MISSING;
	return 0;
}

static int look_up(struct compare *c, const struct survey_group *group,
		   const struct format_entry *e, block_no_t block, struct block_state *ret)
{
	uint32_t shard = group->header.segment % c->super->shard_count;
	page_no_t page = block >> PAGE_SHIFT;
	const struct format_slot *slots = NULL;
	const struct refs_chunk *chunk;
	bool lost = false;
	int rc = refs_chunk(c->refs, shard, e->volume, e->chunk, &chunk);

	*ret = (struct block_state){.state = THERE};
	if (rc < 0)
		return rc;
	if (chunk->found && (chunk->record.version == 1 || refs_chunk_has_page(chunk, page))) {
		rc = refs_page(c->refs, shard, e->volume, e->chunk, page, &slots);
		lost = slots == NULL && chunk->record.version > 1 && !chunk->record.dead;
	}
	if (rc < 0)
		return rc;
	ret->version = slots != NULL ? slots[block % PAGE_BLOCKS].version : 0;
	if (ret->version >= e->version)
		return 0;
	rc = judge_missing(c, group, e, block, &ret->state);
	if (lost && ret->state == UNSURE)
		ret->state = MISSING;
	return rc;
}

static void tell_missing(struct compare *c, const struct survey_group *group,
			 const struct format_entry *e, block_no_t first, uint32_t count,
			 const struct block_state *state)
{
	char has[64] = "nothing";

	if (state->version != 0)
		snprintf(has, sizeof has, "version %u.%" PRIu64, version_generation(state->version),
			 version_seq(state->version));
	findings_add(c->findings, state->state == MISSING ? FINDING_MISSING : FINDING_UNSURE, count,
		     "volume %" PRIu64 " chunk %u blocks %u+%u version %u.%" PRIu64
		     " of group %" PRIu64 ", segment %u block %u: the index has %s",
		     e->volume, e->chunk, first, count, version_generation(e->version),
		     version_seq(e->version), group->header.seq, group->header.segment,
		     group->header.first_block, has);
}

/* Blocks that are alike are told together. */
static int seek_entry(struct compare *c, const struct survey_group *group,
		      const struct format_entry *e)
{
	struct block_state run = {.state = THERE}, now;
	uint32_t begun = 0;

	for (uint32_t i = 0; i <= e->block_count; i++) {
		int rc = 0;

		now = (struct block_state){.state = THERE};
		if (i < e->block_count &&
		    (e->kind != FORMAT_DATA || !c->borne_out[e->data_first + i]))
			rc = look_up(c, group, e, e->block + i, &now);
		if (rc < 0)
			return rc;
		if (now.state == run.state && now.version == run.version)
			continue;
		if (run.state == MISSING || run.state == UNSURE)
			tell_missing(c, group, e, e->block + begun, i - begun, &run);
		run = now;
		begun = i;
	}
	return 0;
}

/* -- the survey's sinks ----------------------------------------------------------------------- */

int compare_group(struct compare *c, const struct survey_group *group)
{
	const struct format_group *g = &group->header;
	const struct format_checkpoint *k =
	    &refs_checkpoints(c->refs)[g->segment % c->super->shard_count];
	int rc = go_to(c, g->segment);

	if (rc != 0)
		return rc;
	c->totals.later_groups += g->seq > k->last_seq[g->stream];
	memset(c->borne_out, 0, sizeof c->borne_out);
	for (uint32_t i = 0; i < g->entry_count; i++)
		if (group->entries[i].kind == FORMAT_DATA)
			bear_out(c, group, &group->entries[i]);
	if (!facts_is_covered(c->facts, group))
		return 0;
	for (uint32_t i = 0; i < g->entry_count && rc == 0; i++)
		if (group->entries[i].kind <= FORMAT_DISCARD)
			rc = seek_entry(c, group, &group->entries[i]);
	return rc;
}

int compare_segment(struct compare *c, const struct survey_segment *segment)
{
	const struct refs_segment *s = &refs_segments(c->refs)[segment->no];

	if (segment->epoch > s->record.epoch)
		findings_add(c->findings, FINDING_STALE, 1,
			     "segment %u: its groups are of its use number %u, and the index knows "
			     "of %u",
			     segment->no, segment->epoch, s->record.epoch);
	return 0;
}

int compare_finish(struct compare *c, struct compare_totals *ret_totals)
{
	int rc = go_to(c, c->super->segment_count);

	if (rc == 0)
		*ret_totals = c->totals;
	return rc;
}
