/* oracle: see oracle.h. */
#include "tests/sim/oracle.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/assert.h"

#define NEVER	    UINT64_MAX
#define MAGIC	    0x70617665f00dull
#define WORDS	    (BLOCK_SIZE / sizeof(uint64_t))
#define PRUNE_ABOVE 6u

/* A write as one block sees it. */
struct version {
	struct version *next;
	uint64_t id;
	generation_t generation;
	bool zero;
	bool acknowledged;
	uint64_t begun, returned; /* returned: acknowledged or refused */
	uint64_t certain;	  /* acknowledged or seen */
	uint64_t superseded;
};

/* What a block of a snapshot may show. */
struct candidate {
	struct candidate *next;
	uint64_t id;
	bool zero;
	uint64_t begun, superseded;
};

struct oracle_shot {
	struct oracle_shot *next;
	uint64_t begun, taken;		  /* taken 0: not yet */
	struct candidate **blocks;	  /* NULL: zeroes */
	uint64_t *seen;			  /* 0: not read yet; else 1 + the write's id (0: zeroes) */
	uint64_t earliest, latest;	  /* the moment that it shows, as far as it is known */
	uint64_t first_block, last_block; /* that say so */
};

struct oracle {
	uint64_t block_count;
	struct version **blocks;
	struct version **past; /* what only a snapshot that is being taken may still show */
	uint64_t tick;
	uint64_t next_id;
	generation_t acknowledging; /* the newest attachment that had anything acknowledged */
	struct oracle_read *reads;  /* in flight, oldest first */
	struct oracle_read *reads_last;
	struct oracle_shot *shots;
	void (*violated)(const char *text, void *arg);
	void *arg;
	struct oracle_stats stats;
};

struct oracle *oracle_create(uint64_t block_count, void (*violated)(const char *text, void *arg),
			     void *arg)
{
	struct oracle *o = calloc(1, sizeof(*o));

	INVARIANT(o != NULL);
	o->blocks = calloc(block_count, sizeof(struct version *));
	o->past = calloc(block_count, sizeof(struct version *));
	INVARIANT(o->blocks != NULL && o->past != NULL);
	o->block_count = block_count;
	o->next_id = 1;
	o->violated = violated;
	o->arg = arg;
	return o;
}

static void free_versions(struct version *v)
{
	while (v != NULL) {
		struct version *next = v->next;

		free(v);
		v = next;
	}
}

void oracle_destroy(struct oracle *o)
{
	if (o == NULL)
		return;
	for (uint64_t b = 0; b < o->block_count; b++) {
		free_versions(o->blocks[b]);
		free_versions(o->past[b]);
	}
	free(o->blocks);
	free(o->past);
	while (o->shots != NULL) {
		struct oracle_shot *s = o->shots;

		o->shots = s->next;
		for (uint64_t b = 0; b < o->block_count; b++)
			while (s->blocks[b] != NULL) {
				struct candidate *c = s->blocks[b];

				s->blocks[b] = c->next;
				free(c);
			}
		free(s->blocks);
		free(s->seen);
		free(s);
	}
	free(o);
}

/* -- stamps ---------------------------------------------------------------------------------- */

static void fill_block(uint64_t id, uint64_t block, uint64_t *words)
{
	words[0] = MAGIC;
	words[1] = id;
	words[2] = block;
	for (size_t i = 3; i < WORDS; i++)
		words[i] = id * 0x9e3779b97f4a7c15ull + block * 0xc2b2ae3d27d4eb4full + i;
}

void oracle_fill(const struct oracle_write *w, void *data)
{
	PRE(w->kind == ORACLE_DATA);
	for (uint32_t i = 0; i < w->block_count; i++)
		fill_block(w->id, w->block + i,
			   (uint64_t *)(void *)((uint8_t *)data + (size_t)i * BLOCK_SIZE));
}

bool oracle_is_stamped(const void *data)
{
	uint64_t magic;

	memcpy(&magic, data, sizeof(magic));
	return magic == MAGIC;
}

uint64_t oracle_block_of(const void *data)
{
	uint64_t block;

	memcpy(&block, (const uint8_t *)data + 2 * sizeof(uint64_t), sizeof(block));
	return block;
}

static bool is_zero(const uint64_t *words)
{
	for (size_t i = 0; i < WORDS; i++)
		if (words[i] != 0)
			return false;
	return true;
}

/* -- versions -------------------------------------------------------------------------------- */

/* Every block begins as zeroes that were always there. */
static struct version **versions_of(struct oracle *o, uint64_t block)
{
	struct version **at = &o->blocks[block];

	PRE(block < o->block_count);
	if (*at == NULL) {
		*at = calloc(1, sizeof(**at));
		INVARIANT(*at != NULL);
		**at = (struct version){.zero = true, .acknowledged = true, .superseded = NEVER};
	}
	return at;
}

/* Since when some snapshot may be taken that is not yet; NEVER: there is none. */
static uint64_t oldest_shot(const struct oracle *o)
{
	uint64_t oldest = NEVER;

	for (const struct oracle_shot *s = o->shots; s != NULL; s = s->next)
		if (s->taken == 0)
			oldest = MIN(oldest, s->begun);
	return oldest;
}

/* Takes off what no read in flight or to come may return; keeps one, for the story. A snapshot may
 * be long in coming: what only it may show lies aside, where no read and no write has to pass it.
 */
static void prune(struct oracle *o, uint64_t block)
{
	const uint64_t reads_from = o->reads != NULL ? o->reads->begun : o->tick;
	const uint64_t shots_from = oldest_shot(o);
	struct version **at = &o->blocks[block];
	unsigned seen = 0;

	if (shots_from == NEVER) {
		free_versions(o->past[block]);
		o->past[block] = NULL;
	}
	while (*at != NULL) {
		struct version *v = *at;

		if (++seen <= PRUNE_ABOVE || v->superseded >= reads_from) {
			at = &v->next;
			continue;
		}
		*at = v->next;
		if (v->superseded > shots_from) {
			v->next = o->past[block];
			o->past[block] = v;
		} else {
			free(v);
		}
	}
}

/* v took effect, if ever, before anything that began at `begun` through `generation`. */
static bool is_before(const struct version *v, uint64_t begun, generation_t generation)
{
	return v->returned < begun || v->certain < begun || v->generation < generation;
}

/* v is certain as of now: what was before it cannot be seen any more. */
static void make_certain(struct oracle *o, uint64_t block, struct version *v)
{
	v->certain = MIN(v->certain, o->tick);
	for (struct version *other = o->blocks[block]; other != NULL; other = other->next)
		if (other != v && is_before(other, v->begun, v->generation))
			other->superseded = MIN(other->superseded, o->tick);
}

static struct version *find(struct oracle *o, uint64_t block, uint64_t id)
{
	struct version *v = *versions_of(o, block);

	while (v != NULL && v->id != id)
		v = v->next;
	return v;
}

static void add_version(struct oracle *o, uint64_t block, const struct oracle_write *w)
{
	struct version **at = versions_of(o, block);
	struct version *v = calloc(1, sizeof(*v));

	INVARIANT(v != NULL);
	*v = (struct version){.next = *at,
			      .id = w->id,
			      .generation = w->generation,
			      .zero = w->kind == ORACLE_ZERO,
			      .begun = o->tick,
			      .returned = NEVER,
			      .certain = NEVER,
			      .superseded = NEVER};
	*at = v;
	prune(o, block);
}

/* -- writes ---------------------------------------------------------------------------------- */

void oracle_write_begin(struct oracle *o, enum oracle_kind kind, generation_t generation,
			uint64_t block, uint32_t block_count, struct oracle_write *ret_write)
{
	o->tick++;
	o->stats.writes++;
	*ret_write = (struct oracle_write){.id = o->next_id++,
					   .kind = kind,
					   .generation = generation,
					   .block = block,
					   .block_count = block_count};
	for (uint32_t i = 0; i < block_count; i++)
		add_version(o, block + i, ret_write);
}

static void check_one_writer(struct oracle *o, generation_t generation, const char *what)
{
	char text[200];

	if (generation >= o->acknowledging) {
		o->acknowledging = generation;
		return;
	}
	snprintf(text, sizeof(text),
		 "I4: a %s of generation %u was acknowledged after one of generation %u", what,
		 generation, o->acknowledging);
	o->violated(text, o->arg);
}

void oracle_write_end(struct oracle *o, const struct oracle_write *w, int status)
{
	o->tick++;
	if (status == 0)
		o->stats.acknowledged++;
	else
		o->stats.failed++;
	if (status == 0)
		check_one_writer(o, w->generation, "write");
	for (uint32_t i = 0; i < w->block_count; i++) {
		struct version *v = find(o, w->block + i, w->id);

		if (v == NULL) /* superseded long ago */
			continue;
		v->returned = o->tick;
		v->acknowledged = status == 0;
		if (status == 0)
			make_certain(o, w->block + i, v);
	}
}

/* -- reads ----------------------------------------------------------------------------------- */

void oracle_read_begin(struct oracle *o, generation_t generation, uint64_t block,
		       uint32_t block_count, struct oracle_read *r)
{
	*r = (struct oracle_read){.prev = o->reads_last,
				  .begun = ++o->tick,
				  .generation = generation,
				  .block = block,
				  .block_count = block_count};
	if (o->reads_last != NULL)
		o->reads_last->next = r;
	else
		o->reads = r;
	o->reads_last = r;
}

static void unlink_read(struct oracle *o, struct oracle_read *r)
{
	if (r->prev != NULL)
		r->prev->next = r->next;
	else
		o->reads = r->next;
	if (r->next != NULL)
		r->next->prev = r->prev;
	else
		o->reads_last = r->prev;
}

static size_t describe(const struct version *v, char *buf, size_t size)
{
	int n = snprintf(buf, size, "\n    write %lu%s of generation %u, begun %lu%s%s", v->id,
			 v->zero ? " (zeroes)" : "", v->generation, v->begun,
			 v->acknowledged	? ", acknowledged"
			 : v->returned != NEVER ? ", refused"
						: ", undecided",
			 v->certain != NEVER && !v->acknowledged ? ", seen" : "");

	if (n > 0 && (size_t)n < size && v->superseded != NEVER)
		n += snprintf(buf + n, size - (size_t)n, ", superseded at %lu", v->superseded);
	return n > 0 ? MIN((size_t)n, size - 1) : 0;
}

static void wrong_read(struct oracle *o, const struct oracle_read *r, uint64_t block,
		       const char *what, uint64_t id)
{
	char text[2000];
	size_t used = (size_t)snprintf(
	    text, sizeof(text), "I5: block %lu: a read of generation %u, begun %lu, returned %s",
	    block, r->generation, r->begun, what);

	if (id != 0)
		used += (size_t)snprintf(text + used, sizeof(text) - used, " %lu", id);
	used += (size_t)snprintf(text + used, sizeof(text) - used, "; known:");
	for (const struct version *v = *versions_of(o, block); v != NULL && used + 1 < sizeof(text);
	     v = v->next)
		used += describe(v, text + used, sizeof(text) - used);
	o->violated(text, o->arg);
}

/* The read returned `zero` or write id: everything else that was certain before it is past. */
static void seen(struct oracle *o, const struct oracle_read *r, uint64_t block, bool zero,
		 uint64_t id)
{
	struct version *only = NULL;
	unsigned candidates = 0;

	for (struct version *v = *versions_of(o, block); v != NULL; v = v->next) {
		if ((zero ? v->zero : v->id == id) && v->superseded > r->begun) {
			only = v;
			candidates++;
		} else if (v->certain < r->begun || v->generation < r->generation) {
			v->superseded = MIN(v->superseded, o->tick);
		}
	}
	/* Zeroes have no stamp: with several candidates it is not known which was seen. */
	if (candidates == 1) {
		o->stats.undecided_seen += only->certain == NEVER;
		make_certain(o, block, only);
	} else if (candidates == 0) {
		wrong_read(o, r, block, zero ? "zeroes" : "superseded write", id);
	}
}

static void check_block(struct oracle *o, const struct oracle_read *r, uint64_t block,
			const uint64_t *words)
{
	uint64_t expected[WORDS];

	o->stats.blocks_checked++;
	if (is_zero(words)) {
		seen(o, r, block, true, 0);
		return;
	}
	fill_block(words[1], block, expected);
	if (memcmp(words, expected, sizeof(expected)) != 0)
		wrong_read(o, r, block,
			   words[0] == MAGIC && words[2] != block
			       ? "another block's content, write"
			       : "torn or foreign content, write",
			   words[1]);
	else if (find(o, block, words[1]) == NULL)
		wrong_read(o, r, block, "a write that is past or never was:", words[1]);
	else
		seen(o, r, block, false, words[1]);
}

void oracle_read_end(struct oracle *o, struct oracle_read *r, const void *data)
{
	o->tick++;
	if (data != NULL) {
		o->stats.reads++;
		check_one_writer(o, r->generation, "read");
		for (uint32_t i = 0; i < r->block_count; i++)
			check_block(o, r, r->block + i,
				    (const uint64_t *)(const void *)((const uint8_t *)data +
								     (size_t)i * BLOCK_SIZE));
	}
	unlink_read(o, r);
}

/* -- snapshots ------------------------------------------------------------------------------- */

struct oracle_shot *oracle_shot_begin(struct oracle *o)
{
	struct oracle_shot *s = calloc(1, sizeof(*s));

	INVARIANT(s != NULL);
	s->blocks = calloc(o->block_count, sizeof(struct candidate *));
	s->seen = calloc(o->block_count, sizeof(*s->seen));
	INVARIANT(s->blocks != NULL && s->seen != NULL);
	s->begun = s->earliest = ++o->tick;
	s->latest = NEVER;
	s->next = o->shots;
	o->shots = s;
	return s;
}

static void add_candidates(struct oracle_shot *s, uint64_t block, const struct version *versions)
{
	for (const struct version *v = versions; v != NULL; v = v->next) {
		struct candidate *c;

		if (v->superseded <= s->begun)
			continue;
		c = calloc(1, sizeof(*c));
		INVARIANT(c != NULL);
		*c = (struct candidate){.next = s->blocks[block],
					.id = v->id,
					.zero = v->zero,
					.begun = v->begun,
					.superseded = v->superseded};
		s->blocks[block] = c;
	}
}

void oracle_shot_taken(struct oracle *o, struct oracle_shot *s)
{
	if (s->taken != 0)
		return;
	s->taken = s->latest = ++o->tick;
	for (uint64_t b = 0; b < o->block_count; b++) {
		add_candidates(s, b, o->past[b]);
		add_candidates(s, b, o->blocks[b]);
	}
}

static void wrong_shot(struct oracle *o, const struct oracle_shot *s, uint64_t block,
		       const char *what, uint64_t id)
{
	char text[2000];
	size_t used =
	    (size_t)snprintf(text, sizeof(text),
			     "a snapshot, begun %lu, taken %lu, of a moment from %lu "
			     "(block %lu) to %lu (block %lu): block %lu: %s %lu; possible:",
			     s->begun, s->taken, s->earliest, s->first_block, s->latest,
			     s->last_block, block, what, id);

	for (const struct candidate *c = s->blocks[block]; c != NULL && used + 1 < sizeof(text);
	     c = c->next)
		used +=
		    (size_t)MAX(0, snprintf(text + used, sizeof(text) - used,
					    "\n    write %lu%s, begun %lu, superseded %lu", c->id,
					    c->zero ? " (zeroes)" : "", c->begun, c->superseded));
	o->violated(text, o->arg);
}

/* The block shows this write: so the moment lies in its time. */
static void shot_shows(struct oracle *o, struct oracle_shot *s, uint64_t block,
		       const struct candidate *c)
{
	if (c->begun > s->earliest) {
		s->earliest = c->begun;
		s->first_block = block;
	}
	if (c->superseded < s->latest) {
		s->latest = c->superseded;
		s->last_block = block;
	}
	if (s->earliest > s->latest)
		wrong_shot(o, s, block, "no moment fits all blocks, this one shows write", c->id);
}

static void check_shot_block(struct oracle *o, struct oracle_shot *s, uint64_t block,
			     const uint64_t *words)
{
	const bool zero = is_zero(words);
	const uint64_t id = zero ? 0 : words[1];
	const struct candidate *found = NULL;
	uint64_t expected[WORDS];
	unsigned count = 0;

	o->stats.shot_blocks++;
	if (!zero) {
		fill_block(id, block, expected);
		if (memcmp(words, expected, sizeof(expected)) != 0) {
			wrong_shot(o, s, block, "torn or foreign content, write", id);
			return;
		}
	}
	if (s->seen[block] != 0) {
		if (s->seen[block] != id + 1)
			wrong_shot(o, s, block, "it has changed to write", id);
		return;
	}
	s->seen[block] = id + 1;
	for (const struct candidate *c = s->blocks[block]; c != NULL; c = c->next)
		if (zero ? c->zero : c->id == id) {
			found = c;
			count++;
		}
	if (count == 0 && !(zero && s->blocks[block] == NULL))
		wrong_shot(o, s, block, zero ? "zeroes, write" : "another time's write", id);
	/* Zeroes have no stamp. */
	if (count == 1)
		shot_shows(o, s, block, found);
}

void oracle_shot_read(struct oracle *o, struct oracle_shot *s, uint64_t block, uint32_t block_count,
		      const void *data)
{
	PRE(s->taken != 0);
	for (uint32_t i = 0; i < block_count; i++)
		check_shot_block(o, s, block + i,
				 (const uint64_t *)(const void *)((const uint8_t *)data +
								  (size_t)i * BLOCK_SIZE));
}

void oracle_get_stats(const struct oracle *o, struct oracle_stats *ret_stats)
{
	*ret_stats = o->stats;
}
