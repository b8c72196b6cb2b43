/* survey: see survey.h. A segment is read whole (64 MiB at most), then its groups are found: first
 * which use is the newest, then that one's groups in order. */
#include "engine/store/survey.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/assert.h"
#include "engine/base/crc32c.h"
#include "engine/base/text.h"

#define READ_BYTES (4u << 20)
#define UNREADABLE 0xa5

struct survey {
	const struct survey_device *device;
	const struct format_super *super;
	const struct survey_sink *sink;
	bool with_data;
	uint8_t *segment; /* its blocks */
	uint32_t blocks;  /* in a segment */
	bool *bad;	  /* FORMAT_GROUP_DATA_MAX */
	struct format_entry *entries;
	uint32_t *crcs;
};

/* -- superblocks ------------------------------------------------------------------------------ */

int survey_read_super(const struct survey_device *d, struct survey_super *ret_super,
		      struct error *err)
{
	uint8_t *block = aligned_alloc(BLOCK_SIZE, BLOCK_SIZE);
	const struct format_super *best;

	if (block == NULL)
		return error_set(err, -ENOMEM, "no memory");
	*ret_super = (struct survey_super){.best = -1};
	for (uint32_t i = 0; i < FORMAT_SUPER_COPIES; i++) {
		int rc = d->read(d->arg, format_super_offset(i), BLOCK_SIZE, block);

		if (rc < 0)
			error_set(&ret_super->errors[i], rc, "it cannot be read");
		else
			rc = format_super_decode(block, &ret_super->copies[i],
						 &ret_super->errors[i]);
		ret_super->status[i] = rc;
		if (rc == 0 &&
		    (ret_super->best < 0 ||
		     ret_super->copies[i].sequence > ret_super->copies[ret_super->best].sequence))
			ret_super->best = (int)i;
	}
	free(block);
	if (ret_super->best < 0)
		return error_set(err, -E_CORRUPT, "%s: neither copy of the superblock is valid: %s",
				 d->name, ret_super->errors[0].text);
	best = &ret_super->copies[ret_super->best];
	if (best->segment_count > format_segments_fit(d->size_bytes, best->segment_bytes))
		return error_set(err, -E_CORRUPT,
				 "%s: it should have %u segments of %u bytes, and is too small for "
				 "them: %llu bytes",
				 d->name, best->segment_count, best->segment_bytes,
				 (unsigned long long)d->size_bytes);
	return 0;
}

/* -- segments --------------------------------------------------------------------------------- */

static uint32_t first_block(const struct survey *s, uint32_t no)
{
	return FORMAT_SEGMENTS_BLOCK + no * s->blocks;
}

/* Block by block where a large read fails. */
static uint32_t read_piece(const struct survey *s, uint64_t offset, uint32_t size, uint8_t *data)
{
	const struct survey_device *d = s->device;
	uint32_t unreadable = 0;

	if (d->read(d->arg, offset, size, data) == 0)
		return 0;
	for (uint32_t at = 0; at < size; at += BLOCK_SIZE)
		if (d->read(d->arg, offset + at, BLOCK_SIZE, data + at) < 0) {
			memset(data + at, UNREADABLE, BLOCK_SIZE);
			unreadable++;
		}
	return unreadable;
}

static uint32_t read_segment(const struct survey *s, uint32_t no)
{
	uint64_t offset = (uint64_t)first_block(s, no) * BLOCK_SIZE;
	uint32_t size = s->super->segment_bytes, unreadable = 0;

	for (uint32_t at = 0; at < size; at += READ_BYTES)
		unreadable +=
		    read_piece(s, offset + at, MIN(READ_BYTES, size - at), s->segment + at);
	return unreadable;
}

/* The header at block `at`, if there is one that is in its place. */
static bool header_at(const struct survey *s, uint32_t no, uint32_t at, struct format_group *ret)
{
	const uint8_t *p = s->segment + (size_t)at * BLOCK_SIZE;
	size_t left = (size_t)(s->blocks - at) * BLOCK_SIZE;

	return format_group_decode(p, left, ret) == 0 &&
	       uuid_equal(&ret->device, &s->super->device) && ret->segment == no &&
	       ret->first_block == at && ret->header_blocks + ret->data_blocks <= s->blocks - at;
}

static uint32_t newest_epoch(const struct survey *s, uint32_t no)
{
	struct format_group g;
	uint32_t epoch = 0;

	for (uint32_t at = 0; at < s->blocks;) {
		if (header_at(s, no, at, &g)) {
			epoch = MAX(epoch, g.epoch);
			at += g.header_blocks + g.data_blocks;
		} else {
			at++;
		}
	}
	return epoch;
}

static uint32_t count_known_bad(const struct survey *s, const struct format_group *g)
{
	uint32_t count = 0;

	for (uint32_t i = 0; i < g->entry_count; i++) {
		const struct format_entry *e = &s->entries[i];

		count += (e->flags & FORMAT_FLAG_BAD) != 0 && s->bad[e->data_first];
	}
	return count;
}

static int give_group(struct survey *s, uint32_t at, const struct format_group *g)
{
	const uint8_t *p = s->segment + (size_t)at * BLOCK_SIZE;
	const uint8_t *data = p + (size_t)g->header_blocks * BLOCK_SIZE;
	struct survey_group group = {
	    .header = *g,
	    .entries = s->entries,
	    .crcs = s->crcs,
	    .data_location = first_block(s, g->segment) + at + g->header_blocks,
	};

	format_group_entries(p, g, s->entries, s->crcs);
	for (uint32_t i = 0; s->with_data && i < g->data_blocks; i++) {
		s->bad[i] = crc32c(0, data + (size_t)i * BLOCK_SIZE, BLOCK_SIZE) != s->crcs[i];
		group.bad_blocks += s->bad[i];
	}
	if (s->with_data) {
		group.block_is_bad = s->bad;
		group.known_bad_blocks = count_known_bad(s, g);
	}
	return s->sink->group != NULL ? s->sink->group(&group, s->sink->arg) : 0;
}

static int survey_one(struct survey *s, uint32_t no)
{
	struct survey_segment r = {.no = no};
	struct format_group g;
	uint32_t gap = 0;
	int rc = 0;

	r.unreadable = read_segment(s, no);
	r.epoch = newest_epoch(s, no);
	for (uint32_t at = 0; at < s->blocks && rc == 0;) {
		if (!header_at(s, no, at, &g)) {
			gap++;
			at++;
			continue;
		}
		if (g.epoch != r.epoch) {
			/* Remains: nothing of the newest use lies behind them. */
			r.old_groups++;
			at += g.header_blocks + g.data_blocks;
			continue;
		}
		if (gap > 0 && r.lost == 0)
			r.first_lost = r.used;
		r.lost += gap;
		gap = 0;
		rc = give_group(s, at, &g);
		at += g.header_blocks + g.data_blocks;
		r.groups++;
		r.used = at;
		r.last_seq = MAX(r.last_seq, g.seq);
	}
	if (rc == 0 && s->sink->segment != NULL)
		rc = s->sink->segment(&r, s->sink->arg);
	return rc;
}

int survey_run(const struct survey_device *d, const struct format_super *super, bool with_data,
	       const struct survey_sink *sink)
{
	struct survey s = {
	    .device = d,
	    .super = super,
	    .sink = sink,
	    .with_data = with_data,
	    .blocks = super->segment_bytes / BLOCK_SIZE,
	};
	int rc = -ENOMEM;

	s.segment = aligned_alloc(BLOCK_SIZE, super->segment_bytes);
	s.bad = calloc(FORMAT_GROUP_DATA_MAX, sizeof *s.bad);
	s.entries = calloc(FORMAT_GROUP_ENTRIES_MAX, sizeof *s.entries);
	s.crcs = calloc(FORMAT_GROUP_DATA_MAX, sizeof *s.crcs);
	if (s.segment != NULL && s.bad != NULL && s.entries != NULL && s.crcs != NULL)
		rc = 0;
	for (uint32_t no = 0; no < super->segment_count && rc == 0; no++)
		rc = survey_one(&s, no);
	free(s.segment);
	free(s.bad);
	free(s.entries);
	free(s.crcs);
	return rc;
}
