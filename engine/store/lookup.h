/* Looking up: makes sure that pages of the index are in memory, and keeps them there while somebody
 * uses them. The index holds only some of its pages; the others lie in kv and are fetched by
 * workers. Whoever wants to know where blocks are begins a look-up of their range:
 *
 *   rc = lookup_begin(store, &lookup);	  0: they are here; 1: lookup.done follows
 *   ... index_find_chunk, index_find_slot, index_find_page of this range: nothing is missing ...
 *   lookup_end(store, &lookup);
 *
 * Between the two, pages of the range don't leave memory; their content may change, for writes go
 * on: what must be of one moment is read in one turn. The chunk may be erased meanwhile: then
 * index_find_chunk returns NULL, as for one that never was.
 *
 * A page that was never written costs no look-up in kv, nor does one that is in memory: then the
 * answer is 0, at once.
 *
 * Failure: a page that cannot be read, or does not check, fails those who asked for it (-EIO,
 * -E_CORRUPT), and nobody else; nothing is lost, it is tried again by whoever asks next. */
#ifndef STORE_LOOKUP_H
#define STORE_LOOKUP_H

#include "engine/store/index.h"

struct store;

/* Embedded by its owner; lent from begin to end, or to a done with an error. */
struct lookup {
	/* Never from inside lookup_begin. 0, or why a page could not be read: then nothing is held,
	 * and lookup_end must not follow. */
	void (*done)(struct lookup *lookup, int status);
	volume_id_t volume;
	chunk_no_t chunk;
	block_no_t block;
	uint32_t block_count; /* 1 to IO_BLOCKS_MAX; within the chunk */

	struct index_chunk *held; /* the module's from here on; NULL: nothing is there */
	struct lookup *next;
};

/* 0: the pages are here, until lookup_end. 1: done follows. */
int lookup_begin(struct store *store, struct lookup *lookup);
void lookup_end(struct store *store, struct lookup *lookup);

#endif
