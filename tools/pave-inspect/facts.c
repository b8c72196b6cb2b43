/* facts: see facts.h. */
#include "tools/pave-inspect/facts.h"

#include <errno.h>
#include <stdlib.h>

#include "engine/base/assert.h"

#define STREAMS 2u
#define HOT	0u /* where erases are */

/* Of a segment's newest use, which is a part of one stream. */
struct part {
	uint64_t first, last; /* seq of its groups; 0: none */
	uint64_t prev;	      /* the group before the first */
	uint64_t before;      /* the newest group before the first that was told to be durable */
	uint64_t told;	      /* the newest of its own that another group vouches for */
	uint64_t accepted;    /* or the checkpoint */
	uint32_t no;
	uint8_t shard, stream;
	bool whole; /* no group of it is missing */
};

struct erase {
	volume_id_t volume;
	chunk_no_t chunk; /* UINT32_MAX: the whole volume */
	uint32_t shard;
	uint64_t seq; /* the last one */
};

struct later {
	volume_id_t volume;
	version_t version;
	chunk_no_t chunk;
	block_no_t block;
	uint32_t location; /* of its first block, or none */
	uint16_t block_count;
	uint8_t shard, flags;
};

struct facts {
	const struct format_super *super;
	struct format_checkpoint checkpoints[FORMAT_SHARDS_MAX];
	struct part *by_no; /* segments */
	struct part *parts; /* those with groups, by shard, stream and first group */
	uint32_t part_count;
	struct erase *erases;
	size_t erase_count, erase_room;
	uint64_t erase_unknown[FORMAT_SHARDS_MAX]; /* up to here there may be more */
	struct later *later;
	size_t later_count, later_room;
	bool later_unknown; /* there are more */
	uint64_t erases_since[FORMAT_SHARDS_MAX];
};

/* Room for one more, up to max. 0, -ENOSPC, -ENOMEM. */
static int grow(void **array, size_t *room, size_t count, size_t max, size_t size)
{
	size_t more = MIN(max, MAX((size_t)1024, 2 * *room));
	void *p;

	if (count < *room)
		return 0;
	if (count == max)
		return -ENOSPC;
	p = realloc(*array, more * size);
	if (p == NULL)
		return -ENOMEM;
	*array = p;
	*room = more;
	return 0;
}

static int compare_u64(uint64_t a, uint64_t b)
{
	return (a > b) - (a < b);
}

/* -- learning --------------------------------------------------------------------------------- */

static int by_chunk(const void *a, const void *b)
{
	const struct erase *ea = a, *eb = b;

	if (ea->shard != eb->shard)
		return compare_u64(ea->shard, eb->shard);
	if (ea->volume != eb->volume)
		return compare_u64(ea->volume, eb->volume);
	return compare_u64(ea->chunk, eb->chunk);
}

/* Of several of one chunk the last one is enough. */
static void settle_erases(struct facts *f)
{
	size_t kept = 0;

	if (f->erase_count > 0)
		qsort(f->erases, f->erase_count, sizeof *f->erases, by_chunk);
	for (size_t i = 0; i < f->erase_count; i++) {
		struct erase *e = &f->erases[i];

		if (kept > 0 && by_chunk(&f->erases[kept - 1], e) == 0)
			f->erases[kept - 1].seq = MAX(f->erases[kept - 1].seq, e->seq);
		else
			f->erases[kept++] = *e;
	}
	f->erase_count = kept;
}

static int note_erase(struct facts *f, uint32_t shard, const struct format_entry *e, uint64_t seq)
{
	int rc;

	if (f->erase_count == FACTS_ERASES_MAX)
		settle_erases(f);
	rc = grow((void **)&f->erases, &f->erase_room, f->erase_count, FACTS_ERASES_MAX,
		  sizeof *f->erases);
	if (rc == -ENOSPC) {
		f->erase_unknown[shard] = MAX(f->erase_unknown[shard], seq);
		return 0;
	}
	if (rc == 0)
		f->erases[f->erase_count++] = (struct erase){
		    .volume = e->volume, .chunk = e->chunk, .shard = shard, .seq = seq};
	return rc;
}

static int note_later(struct facts *f, uint32_t shard, const struct format_entry *e,
		      const struct survey_group *group)
{
	int rc = grow((void **)&f->later, &f->later_room, f->later_count, FACTS_LATER_MAX,
		      sizeof *f->later);

	if (rc == -ENOSPC) {
		f->later_unknown = true;
		return 0;
	}
	if (rc == 0)
		f->later[f->later_count++] = (struct later){
		    .volume = e->volume,
		    .version = e->version,
		    .chunk = e->chunk,
		    .block = e->block,
		    .location = e->kind == FORMAT_DATA ? group->data_location + e->data_first
						       : LOCATION_NONE,
		    .block_count = e->block_count,
		    .shard = (uint8_t)shard,
		    .flags = e->flags,
		};
	return rc;
}

static int learn_group(const struct survey_group *group, void *arg)
{
	const struct format_group *g = &group->header;
	struct facts *f = arg;
	uint32_t shard = g->segment % f->super->shard_count;
	bool is_later = g->seq > f->checkpoints[shard].last_seq[g->stream];
	struct part *p = &f->by_no[g->segment];
	int rc = 0;

	if (p->last == 0)
		*p = (struct part){.first = g->seq,
				   .prev = g->prev_seq,
				   .no = g->segment,
				   .shard = (uint8_t)shard,
				   .stream = g->stream,
				   .whole = true};
	else if (g->prev_seq != p->last || g->stream != p->stream)
		p->whole = false;
	p->last = MAX(p->last, g->seq);
	if (g->durable_seq >= p->first)
		p->told = MAX(p->told, g->durable_seq);
	else
		p->before = MAX(p->before, g->durable_seq);
	for (uint32_t i = 0; i < g->entry_count && rc == 0; i++) {
		const struct format_entry *e = &group->entries[i];

		if (e->kind == FORMAT_ERASE)
			rc = note_erase(f, shard, e, g->seq);
		else if (is_later && e->kind <= FORMAT_DISCARD)
			rc = note_later(f, shard, e, group);
	}
	return rc;
}

static int learn_segment(const struct survey_segment *segment, void *arg)
{
	struct facts *f = arg;

	if (segment->lost > 0 || segment->unreadable > 0)
		f->by_no[segment->no].whole = false;
	return 0;
}

/* -- which groups count ----------------------------------------------------------------------- */

static int by_stream(const void *a, const void *b)
{
	const struct part *pa = a, *pb = b;

	if (pa->shard != pb->shard)
		return pa->shard - pb->shard;
	if (pa->stream != pb->stream)
		return pa->stream - pb->stream;
	return compare_u64(pa->first, pb->first);
}

static void sort_parts(struct facts *f)
{
	for (uint32_t no = 0; no < f->super->segment_count; no++)
		if (f->by_no[no].last != 0)
			f->parts[f->part_count++] = f->by_no[no];
	if (f->part_count > 0)
		qsort(f->parts, f->part_count, sizeof *f->parts, by_stream);
}

/* The part of the stream in which a group of this number would lie, or NULL. */
static struct part *part_of(const struct facts *f, uint32_t shard, uint32_t stream, uint64_t seq)
{
	const struct part key = {.shard = (uint8_t)shard, .stream = (uint8_t)stream, .first = seq};
	uint32_t low = 0, high = f->part_count;
	struct part *p;

	while (low < high) {
		uint32_t mid = low + (high - low) / 2;

		if (by_stream(&f->parts[mid], &key) <= 0)
			low = mid + 1;
		else
			high = mid;
	}
	p = low > 0 ? &f->parts[low - 1] : NULL;
	return p != NULL && p->shard == shard && p->stream == stream && seq <= p->last ? p : NULL;
}

static void vouch(struct facts *f, uint32_t shard, uint32_t stream, uint64_t seq, bool by_group)
{
	struct part *p = part_of(f, shard, stream, seq);

	if (p == NULL)
		return;
	if (by_group)
		p->told = MAX(p->told, seq);
	p->accepted = MAX(p->accepted, seq);
}

/* Backwards, so that who vouches has been vouched for. */
static void find_accepted(struct facts *f)
{
	for (uint32_t i = 0; i < f->super->shard_count; i++)
		for (uint32_t k = 0; k < STREAMS; k++)
			vouch(f, i, k, f->checkpoints[i].last_seq[k], false);
	for (uint32_t i = f->part_count; i-- > 0;) {
		struct part *p = &f->parts[i];

		p->accepted = MAX(p->accepted, p->told);
		vouch(f, p->shard, p->stream, p->before, true);
		if (p->told >= p->first)
			vouch(f, p->shard, p->stream, p->prev, true);
		else if (p->accepted >= p->first)
			vouch(f, p->shard, p->stream, p->prev, false);
	}
	for (uint32_t i = 0; i < f->part_count; i++)
		f->by_no[f->parts[i].no] = f->parts[i];
}

/* Back from the newest hot group, as long as none is missing. */
static void find_erases_since(struct facts *f, uint32_t shard)
{
	const struct part *p = part_of(f, shard, HOT, f->checkpoints[shard].last_seq[HOT]);

	f->erases_since[shard] = UINT64_MAX;
	if (f->checkpoints[shard].last_seq[HOT] == 0)
		f->erases_since[shard] = 0; /* there was none */
	while (p != NULL && p->whole) {
		f->erases_since[shard] = p->prev == 0 ? 0 : p->first;
		if (p->prev == 0)
			break;
		p = part_of(f, shard, HOT, p->prev);
	}
	if (f->erases_since[shard] < f->erase_unknown[shard])
		f->erases_since[shard] = f->erase_unknown[shard];
}

/* -- all of it -------------------------------------------------------------------------------- */

static int by_block(const void *a, const void *b)
{
	const struct later *la = a, *lb = b;

	if (la->shard != lb->shard)
		return la->shard - lb->shard;
	if (la->volume != lb->volume)
		return compare_u64(la->volume, lb->volume);
	if (la->chunk != lb->chunk)
		return compare_u64(la->chunk, lb->chunk);
	return compare_u64(la->block, lb->block);
}

int facts_learn(const struct survey_device *device, const struct format_super *super,
		const struct format_checkpoint *checkpoints, struct facts **ret_facts)
{
	struct facts *f = calloc(1, sizeof *f);
	struct survey_sink sink = {.group = learn_group, .segment = learn_segment, .arg = f};
	int rc = -ENOMEM;

	if (f == NULL)
		return -ENOMEM;
	f->super = super;
	for (uint32_t i = 0; i < super->shard_count; i++)
		f->checkpoints[i] = checkpoints[i];
	f->by_no = calloc(super->segment_count, sizeof *f->by_no);
	f->parts = calloc(super->segment_count, sizeof *f->parts);
	if (f->by_no != NULL && f->parts != NULL)
		rc = survey_run(device, super, false, &sink);
	if (rc != 0) {
		facts_destroy(f);
		return rc;
	}
	settle_erases(f);
	sort_parts(f);
	find_accepted(f);
	for (uint32_t i = 0; i < super->shard_count; i++)
		find_erases_since(f, i);
	if (f->later_count > 0)
		qsort(f->later, f->later_count, sizeof *f->later, by_block);
	*ret_facts = f;
	return 0;
}

void facts_destroy(struct facts *f)
{
	if (f == NULL)
		return;
	free(f->by_no);
	free(f->parts);
	free(f->erases);
	free(f->later);
	free(f);
}

/* -- answers ---------------------------------------------------------------------------------- */

bool facts_is_covered(const struct facts *f, const struct survey_group *group)
{
	const struct format_group *g = &group->header;
	const struct part *p = &f->by_no[g->segment];

	if (g->seq > f->checkpoints[p->shard].last_seq[g->stream] || g->stream != p->stream)
		return false;
	/* An index that was made anew covers all numbers that it saw, and lacks what was torn. */
	if (group->bad_blocks > group->known_bad_blocks)
		return g->seq <= p->told;
	return g->seq <= p->accepted;
}

static uint64_t erased_at(const struct facts *f, uint32_t shard, volume_id_t volume,
			  chunk_no_t chunk)
{
	const struct erase key = {.volume = volume, .chunk = chunk, .shard = shard};
	const struct erase *e = NULL;

	if (f->erase_count > 0)
		e = bsearch(&key, f->erases, f->erase_count, sizeof *f->erases, by_chunk);
	return e != NULL ? e->seq : 0;
}

bool facts_is_erased(const struct facts *f, uint32_t shard, volume_id_t volume, chunk_no_t chunk,
		     uint64_t seq)
{
	return erased_at(f, shard, volume, chunk) > seq ||
	       erased_at(f, shard, volume, UINT32_MAX) > seq;
}

bool facts_has_erases(const struct facts *f, uint32_t shard, uint64_t seq)
{
	return seq >= f->erases_since[shard];
}

static bool covers(const struct later *l, const struct facts_place *place)
{
	uint32_t i = place->block - l->block;
	bool same = (l->flags & (FORMAT_FLAG_MOVE | FORMAT_FLAG_RESYNC)) != 0;

	if (place->block < l->block || i >= l->block_count)
		return false;
	/* What the checkpoint is ahead of the position that it names: the block as it is. */
	if (l->location != LOCATION_NONE && l->location + i == place->location)
		return false;
	return same ? l->version >= place->version : l->version > place->version;
}

bool facts_is_superseded(const struct facts *f, const struct facts_place *place)
{
	const struct later key = {.volume = place->volume,
				  .chunk = place->chunk,
				  .shard = (uint8_t)place->shard,
				  .block = place->block - MIN(place->block, IO_BLOCKS_MAX - 1)};
	size_t low = 0, high = f->later_count;

	while (low < high) {
		size_t mid = low + (high - low) / 2;

		if (by_block(&f->later[mid], &key) < 0)
			low = mid + 1;
		else
			high = mid;
	}
	for (; low < f->later_count; low++) {
		const struct later *l = &f->later[low];

		if (l->shard != place->shard || l->volume != place->volume ||
		    l->chunk != place->chunk || l->block > place->block)
			break;
		if (covers(l, place))
			return true;
	}
	return f->later_unknown || facts_is_erased(f, place->shard, place->volume, place->chunk,
						   f->checkpoints[place->shard].last_seq[HOT]);
}
