/* disk (simulated): see disk.h.
 *
 * The present contents are a sparse map of 4 KiB pages. A page that differs from what is on stable
 * media keeps its stable contents beside it, and the unsynced writes are a list in the order of
 * their completion; a flush moves those that it covers from the list into the stable contents, a
 * power loss applies to them what survives of each write.
 *
 * Invariant: without unsynced writes no page has a stable copy. */
#include "tests/sim/disk.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/assert.h"
#include "tests/sim/pages.h"

#define SECTOR_SIZE   512u
#define EXTENT_PAGES  256u
#define EXTENT_SIZE   (EXTENT_PAGES * BLOCK_SIZE)
#define READ_BASE_NS  60000u
#define WRITE_BASE_NS 15000u
#define FLUSH_BASE_NS 80000u
#define JITTER_NS     30000u
#define NS_PER_KIB    400u
#define SLOW_ONE_IN   500u
#define SLOW_MAX_NS   (20 * NS_PER_MS)

struct extent {
	struct sim_page *data[EXTENT_PAGES];
	struct sim_page *stable[EXTENT_PAGES]; /* where dirty */
	bool dirty[EXTENT_PAGES];
};

/* A completed write or discard that no flush has covered. */
struct unsynced {
	struct unsynced *next;
	uint64_t completion; /* its place among all completions */
	uint64_t offset, size;
	bool discard;
	struct sim_page *pages[]; /* of a write: one for each block */
};

/* In disk_op.impl. */
struct flight {
	struct sim_disk *disk;
	struct disk_op *next, *prev;
	uint64_t covers; /* completions before this were done when it was submitted */
	int status;
	bool begun; /* submitted before the crash, so that some of it may survive */
};
_Static_assert(sizeof(struct flight) <= sizeof(((struct disk_op *)0)->impl), "impl");

struct sim_disk {
	struct disk head;
	struct sim_media media;
	struct sim_process *process;
	bool open;
	struct extent **extents;
	uint64_t extent_count;
	struct disk_op *flights;
	struct unsynced *unsynced, **unsynced_tail;
	uint64_t *dirty; /* pages, by number, in the order in which they became so */
	size_t dirty_count, dirty_max;
	uint64_t completion_count;
	uint64_t slowness;
	bool obeys_discards;
	uint64_t io_count, fault_at;
	enum sim_io_action fault;
	struct sim_disk_stats stats;
};

static struct flight *flight_of(struct disk_op *op)
{
	return (struct flight *)(void *)op->impl;
}

static struct sim_disk *disk_of(struct disk *d)
{
	return container_of(d, struct sim_disk, head);
}

/* -- contents -------------------------------------------------------------------------------- */

static struct extent *extent_at(struct sim_disk *d, uint64_t offset, bool make)
{
	struct extent **e = &d->extents[offset / EXTENT_SIZE];

	if (*e == NULL && make) {
		*e = calloc(1, sizeof(**e));
		INVARIANT(*e != NULL);
	}
	return *e;
}

static uint32_t page_in_extent(uint64_t offset)
{
	return (uint32_t)(offset % EXTENT_SIZE / BLOCK_SIZE);
}

/* All of the page at the offset is about to change, but for what is stable. */
static void keep_stable(struct sim_disk *d, struct extent *e, uint64_t offset)
{
	uint32_t page = page_in_extent(offset);

	if (e->dirty[page])
		return;
	e->dirty[page] = true;
	if (d->dirty_count == d->dirty_max) {
		d->dirty_max = d->dirty_max == 0 ? 256 : d->dirty_max * 2;
		d->dirty = reallocarray(d->dirty, d->dirty_max, sizeof(*d->dirty));
		INVARIANT(d->dirty != NULL);
	}
	d->dirty[d->dirty_count++] = offset / BLOCK_SIZE;
	e->stable[page] = e->data[page];
	e->data[page] = NULL;
}

/* Puts bytes into the present contents and the stable ones. */
static void store_bytes(struct sim_disk *d, uint64_t offset, const uint8_t *from, size_t size)
{
	while (size > 0) {
		struct extent *e = extent_at(d, offset, true);
		uint32_t page = page_in_extent(offset);
		size_t n = MIN(size, BLOCK_SIZE - offset % BLOCK_SIZE);

		sim_page_write(&e->data[page], offset % BLOCK_SIZE, from, n);
		if (e->dirty[page])
			sim_page_write(&e->stable[page], offset % BLOCK_SIZE, from, n);
		offset += n;
		from += n;
		size -= n;
	}
}

/* What was written becomes the stable contents of its pages, which are another by now perhaps. */
static void stabilise_write(struct sim_disk *d, struct unsynced *u)
{
	for (uint64_t i = 0; i < u->size / BLOCK_SIZE; i++) {
		const uint64_t offset = u->offset + i * BLOCK_SIZE;
		struct extent *e = extent_at(d, offset, true);
		uint32_t page = page_in_extent(offset);

		INVARIANT(e->dirty[page]);
		sim_page_drop(&e->stable[page]);
		sim_page_copy(&e->stable[page], u->pages[i]);
	}
}

static void load_bytes(struct sim_disk *d, uint64_t offset, uint8_t *to, size_t size)
{
	while (size > 0) {
		struct extent *e = extent_at(d, offset, false);
		size_t n = MIN(size, BLOCK_SIZE - offset % BLOCK_SIZE);

		sim_page_read(e != NULL ? e->data[page_in_extent(offset)] : NULL,
			      offset % BLOCK_SIZE, to, n);
		offset += n;
		to += n;
		size -= n;
	}
}

static void discard_pages(struct sim_disk *d, uint64_t offset, uint64_t size, bool unsynced)
{
	for (uint64_t at = offset; at < offset + size; at += BLOCK_SIZE) {
		struct extent *e = extent_at(d, at, false);
		uint32_t page = page_in_extent(at);

		if (e == NULL) {
			at = ROUND_UP(at + 1, EXTENT_SIZE) - BLOCK_SIZE;
			continue;
		}
		if (e->data[page] == NULL ||
		    (!d->obeys_discards && sim_chance(d->process->world, 1, 4)))
			continue;
		if (unsynced)
			keep_stable(d, e, at);
		sim_page_drop(&e->data[page]);
		if (!unsynced && e->dirty[page])
			sim_page_drop(&e->stable[page]);
	}
}

/* -- what is durable ------------------------------------------------------------------------- */

static void all_stable(struct sim_disk *d)
{
	INVARIANT(d->unsynced == NULL);
	d->unsynced_tail = &d->unsynced;
	for (size_t i = 0; i < d->dirty_count; i++) {
		struct extent *e = extent_at(d, d->dirty[i] * BLOCK_SIZE, false);
		uint32_t page = page_in_extent(d->dirty[i] * BLOCK_SIZE);

		sim_page_drop(&e->stable[page]);
		e->dirty[page] = false;
	}
	d->dirty_count = 0;
}

/* The caller fills in the pages of a write. */
static struct unsynced *add_unsynced(struct sim_disk *d, const struct disk_op *op)
{
	const bool discard = op->kind == DISK_DISCARD;
	const uint64_t pages = discard ? 0 : op->size / BLOCK_SIZE;
	struct unsynced *u = calloc(1, sizeof(*u) + pages * sizeof(struct sim_page *));

	INVARIANT(u != NULL);
	u->completion = d->completion_count;
	u->offset = op->offset;
	u->size = op->size;
	u->discard = discard;
	*d->unsynced_tail = u;
	d->unsynced_tail = &u->next;
	return u;
}

/* The oldest one goes. */
static void drop_unsynced(struct sim_disk *d)
{
	struct unsynced *u = d->unsynced;

	d->unsynced = u->next;
	for (uint64_t i = 0; !u->discard && i < u->size / BLOCK_SIZE; i++)
		sim_page_drop(&u->pages[i]);
	free(u);
}

/* A discard that became durable: its pages are stable as they are now, unless written since. */
static void stabilise_discard(struct sim_disk *d, const struct unsynced *u)
{
	for (uint64_t at = u->offset; at < u->offset + u->size; at += BLOCK_SIZE) {
		struct extent *e = extent_at(d, at, false);
		uint32_t page = page_in_extent(at);

		if (e != NULL && e->dirty[page] && e->data[page] == NULL)
			sim_page_drop(&e->stable[page]);
	}
}

/* Everything that completed before `covers` is on stable media. */
static void sync_before(struct sim_disk *d, uint64_t covers)
{
	while (d->unsynced != NULL && d->unsynced->completion < covers) {
		struct unsynced *u = d->unsynced;

		if (u->discard)
			stabilise_discard(d, u);
		else
			stabilise_write(d, u);
		drop_unsynced(d);
	}
	if (d->unsynced == NULL)
		all_stable(d);
}

static enum sim_fate choose_fate(struct sim_disk *d)
{
	if (d->process->fate != SIM_FATE_RANDOM)
		return d->process->fate;
	return (enum sim_fate)sim_random_range(d->process->world, SIM_FATE_KEEP, SIM_FATE_TEAR);
}

/* Some of the sectors arrive: a first part of them, or any. */
static void store_torn(struct sim_disk *d, uint64_t offset, const uint8_t *from, size_t size)
{
	struct sim_world *w = d->process->world;
	size_t sectors = size / SECTOR_SIZE;
	bool first_part = sim_chance(w, 1, 2);
	size_t cut = sim_random_below(w, sectors + 1);

	for (size_t i = 0; i < sectors; i++) {
		if (first_part ? i < cut : sim_chance(w, 1, 2))
			store_bytes(d, offset + i * SECTOR_SIZE, from + i * SECTOR_SIZE,
				    SECTOR_SIZE);
	}
}

static void survive(struct sim_disk *d, enum sim_fate fate, uint64_t offset, const uint8_t *from,
		    size_t size)
{
	if (fate == SIM_FATE_KEEP)
		store_bytes(d, offset, from, size);
	else if (fate == SIM_FATE_TEAR)
		store_torn(d, offset, from, size);
}

/* Back to the stable contents. */
static void lose_cache(struct sim_disk *d)
{
	for (size_t i = 0; i < d->dirty_count; i++) {
		struct extent *e = extent_at(d, d->dirty[i] * BLOCK_SIZE, false);
		uint32_t page = page_in_extent(d->dirty[i] * BLOCK_SIZE);

		sim_page_drop(&e->data[page]);
		e->data[page] = e->stable[page];
		e->stable[page] = NULL;
		e->dirty[page] = false;
	}
	d->dirty_count = 0;
}

static void survive_unsynced(struct sim_disk *d, enum sim_fate fate, const struct unsynced *u)
{
	uint8_t *data = malloc(u->size);

	INVARIANT(data != NULL);
	for (uint64_t i = 0; i < u->size / BLOCK_SIZE; i++)
		sim_page_read(u->pages[i], 0, data + i * BLOCK_SIZE, BLOCK_SIZE);
	survive(d, fate, u->offset, data, u->size);
	free(data);
}

static void lose_power(struct sim_disk *d)
{
	lose_cache(d);
	while (d->unsynced != NULL) {
		struct unsynced *u = d->unsynced;
		enum sim_fate fate = choose_fate(d);

		if (u->discard && fate != SIM_FATE_DROP)
			discard_pages(d, u->offset, u->size, false);
		else if (!u->discard)
			survive_unsynced(d, fate, u);
		drop_unsynced(d);
	}
	d->unsynced_tail = &d->unsynced;
}

/* -- operations ------------------------------------------------------------------------------ */

static void unlink_flight(struct sim_disk *d, struct disk_op *op)
{
	struct flight *f = flight_of(op);

	if (f->prev != NULL)
		flight_of(f->prev)->next = f->next;
	else
		d->flights = f->next;
	if (f->next != NULL)
		flight_of(f->next)->prev = f->prev;
}

/* One that no flush has covered: the same pages are in the contents and in the list. */
static void perform_unsynced(struct sim_disk *d, const struct disk_op *op)
{
	struct unsynced *u = add_unsynced(d, op);
	struct sim_page **page = u->pages;
	uint64_t at = op->offset;

	for (uint32_t i = 0; i < op->iov_count; i++) {
		const uint8_t *from = op->iovs[i].iov_base;

		for (size_t n = 0; n < op->iovs[i].iov_len; n += BLOCK_SIZE) {
			struct extent *e = extent_at(d, at, true);
			struct sim_page **data = &e->data[page_in_extent(at)];

			sim_page_write(page, 0, from + n, BLOCK_SIZE);
			keep_stable(d, e, at);
			sim_page_drop(data);
			sim_page_copy(data, *page++);
			at += BLOCK_SIZE;
		}
	}
}

static void perform_write(struct sim_disk *d, const struct disk_op *op)
{
	uint64_t offset = op->offset;

	if (d->head.volatile_cache && !op->durable) {
		perform_unsynced(d, op);
		return;
	}
	for (uint32_t i = 0; i < op->iov_count; i++) {
		store_bytes(d, offset, op->iovs[i].iov_base, op->iovs[i].iov_len);
		offset += op->iovs[i].iov_len;
	}
}

static void perform_read(struct sim_disk *d, const struct disk_op *op)
{
	uint64_t offset = op->offset;

	for (uint32_t i = 0; i < op->iov_count; i++) {
		load_bytes(d, offset, op->iovs[i].iov_base, op->iovs[i].iov_len);
		offset += op->iovs[i].iov_len;
	}
}

static void perform(struct sim_disk *d, struct disk_op *op)
{
	switch (op->kind) {
	case DISK_READ:
		perform_read(d, op);
		break;
	case DISK_WRITE:
		if (op->durable)
			sync_before(d, flight_of(op)->covers);
		perform_write(d, op);
		break;
	case DISK_FLUSH:
		sync_before(d, flight_of(op)->covers);
		break;
	case DISK_DISCARD:
		if (d->head.volatile_cache)
			add_unsynced(d, op);
		discard_pages(d, op->offset, op->size, d->head.volatile_cache);
		break;
	}
	d->completion_count++;
}

/* What is left of an I/O that didn't complete well. */
static void end_badly(struct sim_disk *d, struct disk_op *op)
{
	enum sim_fate fate = choose_fate(d);
	uint64_t offset = op->offset;

	if (!flight_of(op)->begun)
		return;
	if (op->kind == DISK_DISCARD && fate != SIM_FATE_DROP)
		discard_pages(d, op->offset, op->size, false);
	for (uint32_t i = 0; op->kind == DISK_WRITE && i < op->iov_count; i++) {
		survive(d, fate, offset, op->iovs[i].iov_base, op->iovs[i].iov_len);
		offset += op->iovs[i].iov_len;
	}
}

/* Of the disk's name the first letters. */
static void note(const struct sim_disk *d, sim_trace_words *words, const struct disk_op *op,
		 int status)
{
	uint64_t values[7] = {op->kind, op->durable, op->offset, op->size, (uint64_t)status};

	memcpy(&values[5], d->head.name,
	       MIN(strlen(d->head.name), sizeof(values) - 5 * sizeof(*values) - 1));
	sim_trace_note(d->process->world, d->process, words, values, ARRAY_SIZE(values));
}

static void done_words(const struct sim_world *w, const uint64_t *v, char *buf, size_t size)
{
	(void)w;
	snprintf(buf, size, "%s done %d at %lu size %lu", (const char *)&v[5], (int)v[4], v[2],
		 v[3]);
}

static void begun_words(const struct sim_world *w, const uint64_t *v, char *buf, size_t size)
{
	static const char *const names[] = {"read", "write", "flush", "discard"};

	(void)w;
	snprintf(buf, size, "%s %s%s at %lu size %lu", (const char *)&v[5], names[v[0]],
		 v[0] == DISK_WRITE && v[1] != 0 ? " durable" : "", v[2], v[3]);
}

static void complete(void *arg)
{
	struct disk_op *op = arg;
	struct flight *f = flight_of(op);
	struct sim_disk *d = f->disk;
	int status = f->status;

	unlink_flight(d, op);
	if (status == 0)
		perform(d, op);
	else
		end_badly(d, op);
	note(d, done_words, op, status);
	op->done(op, status);
}

static uint64_t delay_of(struct sim_disk *d, const struct disk_op *op)
{
	static const uint64_t base_ns[] = {
	    [DISK_READ] = READ_BASE_NS,
	    [DISK_WRITE] = WRITE_BASE_NS,
	    [DISK_FLUSH] = FLUSH_BASE_NS,
	    [DISK_DISCARD] = WRITE_BASE_NS,
	};
	struct sim_world *w = d->process->world;
	uint64_t ns = base_ns[op->kind] + sim_random_below(w, JITTER_NS);

	if (op->kind == DISK_READ || op->kind == DISK_WRITE)
		ns += op->size / KIB * NS_PER_KIB;
	if (op->kind == DISK_WRITE && op->durable && d->head.volatile_cache)
		ns += FLUSH_BASE_NS;
	if (sim_chance(w, 1, SLOW_ONE_IN))
		ns += sim_random_below(w, SLOW_MAX_NS);
	return ns * d->slowness;
}

static void count(struct sim_disk *d, const struct disk_op *op)
{
	d->io_count++;
	switch (op->kind) {
	case DISK_READ:
		d->stats.reads++;
		d->stats.read_bytes += op->size;
		break;
	case DISK_WRITE:
		d->stats.writes++;
		d->stats.written_bytes += op->size;
		break;
	case DISK_FLUSH:
		d->stats.flushes++;
		break;
	case DISK_DISCARD:
		d->stats.discards++;
		break;
	}
}

static void sim_submit(struct disk *disk, struct disk_op *op)
{
	struct sim_disk *d = disk_of(disk);
	struct sim_process *p = d->process;
	struct flight *f = flight_of(op);
	bool begun = !p->doomed;
	enum sim_io_action action;

	PRE(d->open && p->alive);
	count(d, op);
	if (d->fault != SIM_IO_NORMAL && d->io_count == d->fault_at) {
		sim_process_on_io(p, 1, d->fault);
		d->fault = SIM_IO_NORMAL;
	}
	action = sim_process_io(p);
	*f = (struct flight){.disk = d,
			     .next = d->flights,
			     .covers = d->completion_count,
			     .status = action == SIM_IO_FAIL ? -EIO : 0,
			     .begun = begun};
	if (f->next != NULL)
		flight_of(f->next)->prev = op;
	d->flights = op;
	note(d, begun_words, op, 0);
	sim_schedule(p->world, p, sim_process_delay(p, delay_of(d, op)), complete, op);
}

static void sim_close(struct disk *disk)
{
	struct sim_disk *d = disk_of(disk);

	PRE(d->flights == NULL);
	d->open = false;
}

static const struct disk_ops sim_disk_ops = {.submit = sim_submit, .close = sim_close};

/* -- the machine ----------------------------------------------------------------------------- */

static void media_crash(struct sim_media *m, enum sim_crash how)
{
	struct sim_disk *d = container_of(m, struct sim_disk, media);

	if (how == SIM_POWER_LOSS)
		lose_power(d);
	while (d->flights != NULL) {
		struct disk_op *op = d->flights;

		/* What dies with the process is still unsynced for a power loss that follows, but
		 * a disk cannot tell: it counts as synced. */
		unlink_flight(d, op);
		end_badly(d, op);
		sim_abandon(op);
	}
	d->open = false;
	d->fault = SIM_IO_NORMAL;
}

static void media_destroy(struct sim_media *m)
{
	struct sim_disk *d = container_of(m, struct sim_disk, media);

	while (d->unsynced != NULL)
		drop_unsynced(d);
	for (uint64_t i = 0; i < d->extent_count; i++) {
		for (uint32_t page = 0; d->extents[i] != NULL && page < EXTENT_PAGES; page++) {
			sim_page_drop(&d->extents[i]->data[page]);
			sim_page_drop(&d->extents[i]->stable[page]);
		}
		free(d->extents[i]);
	}
	free(d->extents);
	free(d->dirty);
	free(d);
}

struct sim_disk *sim_disk_create(struct sim_process *p, const char *name, uint64_t size_bytes,
				 bool volatile_cache)
{
	struct sim_disk *d = calloc(1, sizeof(*d));

	INVARIANT(d != NULL);
	PRE(size_bytes % BLOCK_SIZE == 0 && strlen(name) < sizeof(d->head.name));
	snprintf(d->head.name, sizeof(d->head.name), "%s", name);
	d->head.ops = &sim_disk_ops;
	d->head.size_bytes = size_bytes;
	d->head.volatile_cache = volatile_cache;
	d->extent_count = size_bytes / EXTENT_SIZE + 1;
	d->extents = calloc(d->extent_count, sizeof(struct extent *));
	INVARIANT(d->extents != NULL);
	d->media.crash = media_crash;
	d->media.destroy = media_destroy;
	d->process = p;
	d->unsynced_tail = &d->unsynced;
	d->slowness = 1;
	sim_process_add_media(p, &d->media);
	return d;
}

struct disk *sim_disk_open(struct sim_disk *d)
{
	PRE(!d->open && d->process->alive);
	d->open = true;
	d->head.reactor = &d->process->reactor;
	return &d->head;
}

uint64_t sim_disk_io_count(const struct sim_disk *d)
{
	return d->io_count;
}

const struct sim_disk_stats *sim_disk_stats(const struct sim_disk *d)
{
	return &d->stats;
}

void sim_disk_on_io(struct sim_disk *d, uint64_t n, enum sim_io_action action)
{
	PRE(n > 0);
	d->fault_at = d->io_count + n;
	d->fault = action;
}

void sim_disk_set_slowness(struct sim_disk *d, uint64_t factor)
{
	PRE(factor > 0);
	d->slowness = factor;
}

void sim_disk_obey_discards(struct sim_disk *d)
{
	d->obeys_discards = true;
}

void sim_disk_peek(struct sim_disk *d, uint64_t offset, void *buf, size_t size_bytes)
{
	PRE(offset + size_bytes <= d->head.size_bytes);
	load_bytes(d, offset, buf, size_bytes);
}

void sim_disk_poke(struct sim_disk *d, uint64_t offset, const void *buf, size_t size_bytes)
{
	PRE(offset + size_bytes <= d->head.size_bytes);
	store_bytes(d, offset, buf, size_bytes);
}
