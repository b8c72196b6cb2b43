/* The segments of a shard: who uses which, how much of it is live, and which may be used next.
 *
 *            checkpoint            stream            stream seals
 *   FREE ----------------> RESERVED ------> OPEN ----------------> SEALED
 *     ^                        ^                                     |
 *     +------------------------+----------- checkpoint --------------+   (when empty)
 *
 * Invariants:
 * 1. live is the number of slots of the index that refer to blocks of the segment, those of blind
 *    pages included, and those that dead chunks had in its former use (checkpoint.h, 4).
 * 2. A stream opens only a RESERVED segment: one that a durable checkpoint lists, so that recovery
 *    knows where to look.
 * 3. SEALED -> FREE or RESERVED only when no slot refers to it (live), no group in it waits to be
 *    applied (unapplied), and a checkpoint is durable that began after both were so, or that began
 *    after it was sealed, and a release since.
 * 4. A segment with pins (reads in flight) or busy (being discarded or primed) isn't opened, nor
 *    is one that is to be wiped.
 * 5. epoch rises with every RESERVED: a group of an older use is never taken for one of this.
 * 6. traces names every chunk of which anything may lie in the segment, whether or not the index
 *    refers to it; so does its record in kv, but for what recovery finds in the log. */
#ifndef STORE_SEGMENT_H
#define STORE_SEGMENT_H

#include "engine/store/format.h"

#define SEGMENT_NONE UINT32_MAX

enum segment_state {
	SEGMENT_FOREIGN, /* another shard's */
	SEGMENT_FREE,
	SEGMENT_RESERVED,
	SEGMENT_OPEN,
	SEGMENT_SEALED,
	SEGMENT_STATES,
};

enum segment_wipe { SEGMENT_WIPE_NOT, SEGMENT_WIPE_DISCARD, SEGMENT_WIPE_OVERWRITE };

struct segment {
	uint8_t state;
	uint8_t
	    planned; /* what the checkpoint under way makes of it, or SEGMENT_FOREIGN for nothing */
	uint8_t stream;
	bool primed;	 /* written whole at least once, as far as we know */
	bool busy;	 /* being discarded or primed */
	bool stuck;	 /* the cleaner could not empty it: a damaged block or header */
	bool unread;	 /* it is stuck because something could not be read: that may pass */
	bool given_up;	 /* the cleaner may move blocks that do not check as they are (cleaner.h) */
	bool empty;	 /* counted in empty_count */
	bool has_record; /* record is in kv, or in the checkpoint under way */
	bool put_record; /* it is still to be put there */
	bool wiped;	 /* record in kv names traces that are gone */
	uint8_t wipe;	 /* enum segment_wipe: what an erasure wants done with it */
	uint32_t epoch;
	uint32_t live;
	uint32_t blind; /* of these: what only blind pages refer to (blind.h) */
	uint32_t pins;
	uint32_t unapplied; /* groups that are not in the index yet */
	uint32_t used;	    /* blocks written */
	uint64_t last_seq;  /* of its last group: its age */
	struct format_segment record;
	struct format_traces traces;
};

struct segments {
	struct segment *array;
	uint32_t count; /* of the device */
	uint32_t own_count;
	uint32_t shard, shard_count;
	uint32_t blocks; /* in a segment */
	uint32_t shift;
	uint32_t state_counts[SEGMENT_STATES];
	uint32_t empty_count; /* SEALED, nothing live, nothing to apply: free after a checkpoint */
	uint64_t live_blocks; /* of all */
	uint32_t next_open;   /* where to look for the next segment to open */
};

int segments_init(struct segments *t, const struct format_super *super, uint32_t shard);
void segments_deinit(struct segments *t);

void segments_set_state(struct segments *t, uint32_t no, enum segment_state state);

/* Recounts whether the segment is empty, after live, unapplied or state changed. */
void segments_update(struct segments *t, uint32_t no);

static inline uint32_t segments_of(const struct segments *t, uint32_t location)
{
	return (location - FORMAT_SEGMENTS_BLOCK) >> t->shift;
}

static inline uint32_t segments_first_block(const struct segments *t, uint32_t no)
{
	return FORMAT_SEGMENTS_BLOCK + (no << t->shift);
}

/* Whether anything of a chunk may lie in it; chunk UINT32_MAX: of the whole volume. */
static inline bool segment_may_hold(const struct segment *s, volume_id_t volume, chunk_no_t chunk)
{
	return format_remains_may_hold(&s->traces.now, volume, chunk) ||
	       format_remains_may_hold(&s->traces.before, volume, chunk);
}

/* A slot begins, ceases to refer to location. */
void segments_ref(struct segments *t, uint32_t location);
void segments_unref(struct segments *t, uint32_t location);

/* FREE or RESERVED: what can still be opened, now or after a checkpoint. */
static inline uint32_t segments_available(const struct segments *t)
{
	return t->state_counts[SEGMENT_FREE] + t->state_counts[SEGMENT_RESERVED];
}

/* Opens a RESERVED segment for a stream, primed ones first. SEGMENT_NONE: there is none now. */
uint32_t segments_open(struct segments *t, uint8_t stream);

#endif
