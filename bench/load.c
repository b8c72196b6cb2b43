/* load: see load.h.
 *
 * Happy path: each of `depth` slots picks a range, submits, and on completion checks, counts, and
 * picks the next, until the time is over or, for a pass over the range, until the end. Without room
 * in the volume's pool a slot waits for it. */
#include "bench/load.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/assert.h"

#define BUSY (1ull << 63)

struct load_stamps {
	uint64_t next; /* number of the next write */
	uint64_t blocks;
	uint64_t number[]; /* of the write that each block should hold; 0: zeroes; BUSY: an
			      operation is in flight */
};

struct slot {
	struct load *load;
	struct volume_op op;
	uint64_t begun_ns;
	bool idle, waiting;
};

struct load {
	struct load_config c;
	struct load_stamps *stamps;
	void (*done)(void *arg);
	void *arg;
	struct load_result result;
	uint64_t begun_ns, cursor, random_state;
	uint32_t active;
	bool stopping;
	struct reactor_task room;
	bool room_asked;
	struct reactor_task finished;
	struct slot slots[];
};

struct stamp {
	uint64_t offset, number, mix;
};

struct load_stamps *load_stamps_create(uint64_t volume_size)
{
	uint64_t blocks = volume_size / BLOCK_SIZE;
	struct load_stamps *s = calloc(1, sizeof *s + blocks * sizeof s->number[0]);

	if (s != NULL) {
		s->blocks = blocks;
		s->next = 1;
	}
	return s;
}

void load_stamps_destroy(struct load_stamps *s)
{
	free(s);
}

/* xorshift64*, Vigna 2016: enough for choosing offsets. */
static uint64_t next_random(struct load *l)
{
	uint64_t x = l->random_state;

	x ^= x >> 12;
	x ^= x << 25;
	x ^= x >> 27;
	l->random_state = x;
	return x * 0x2545f4914f6cdd1dull;
}

static void stamp_block(uint8_t *block, uint64_t offset, uint64_t number)
{
	const struct stamp s = {offset, number, (offset ^ number) * 0x9e3779b97f4a7c15ull};

	for (uint32_t at = 0; at < BLOCK_SIZE; at += BLOCK_SIZE / 4)
		memcpy(block + at, &s, sizeof s);
}

static bool block_is(const uint8_t *block, uint64_t offset, uint64_t number)
{
	const struct stamp s = {offset, number, (offset ^ number) * 0x9e3779b97f4a7c15ull};
	const struct stamp zero = {0};
	const struct stamp *want = number == 0 ? &zero : &s;

	for (uint32_t at = 0; at < BLOCK_SIZE; at += BLOCK_SIZE / 4)
		if (memcmp(block + at, want, sizeof s) != 0)
			return false;
	return true;
}

static void mark(struct load *l, const struct volume_op *op, bool busy)
{
	for (uint64_t b = op->offset / BLOCK_SIZE; b < (op->offset + op->size) / BLOCK_SIZE; b++)
		l->stamps->number[b] =
		    busy ? l->stamps->number[b] | BUSY : l->stamps->number[b] & ~BUSY;
}

static bool is_busy(const struct load *l, uint64_t offset)
{
	for (uint64_t b = offset / BLOCK_SIZE; b < (offset + l->c.size) / BLOCK_SIZE; b++)
		if ((l->stamps->number[b] & BUSY) != 0)
			return true;
	return false;
}

static bool pick(struct load *l, uint64_t *ret_offset)
{
	uint64_t places = l->c.range / l->c.size;

	if (l->c.duration_ns == 0) {
		if (l->cursor == places)
			return false;
		*ret_offset = l->cursor++ * l->c.size;
		return true;
	}
	do {
		if (l->c.random)
			*ret_offset = next_random(l) % places * l->c.size;
		else
			*ret_offset = l->cursor++ % places * l->c.size;
	} while (is_busy(l, *ret_offset));
	return true;
}

static void op_done(struct volume_op *op, int status);

static void finish_slot(struct load *l, struct slot *s)
{
	s->idle = true;
	if (--l->active > 0)
		return;
	l->result.elapsed_ns = reactor_now_ns(l->c.reactor) - l->begun_ns;
	reactor_defer(l->c.reactor, &l->finished);
}

static void finished(struct reactor_task *task)
{
	struct load *l = container_of(task, struct load, finished);

	l->done(l->arg);
}

static void ask_for_room(struct load *l, struct slot *s)
{
	s->waiting = true;
	if (!l->room_asked) {
		l->room_asked = true;
		volume_on_room(l->c.volume, &l->room);
	}
}

static void step(struct slot *s)
{
	struct load *l = s->load;
	struct volume_buffer *buffer;
	uint64_t now = reactor_now_ns(l->c.reactor);
	uint64_t offset;

	if (l->c.duration_ns != 0 && now - l->begun_ns >= l->c.duration_ns)
		l->stopping = true;
	if (l->stopping) {
		finish_slot(l, s);
		return;
	}
	buffer = volume_buffer_get(l->c.volume, l->c.size);
	if (buffer == NULL) {
		ask_for_room(l, s);
		return;
	}
	if (!pick(l, &offset)) {
		volume_buffer_put(l->c.volume, buffer);
		finish_slot(l, s);
		return;
	}
	s->op = (struct volume_op){
	    .done = op_done,
	    .kind = next_random(l) % 100 < l->c.read_percent ? VOLUME_READ : VOLUME_WRITE,
	    .offset = offset,
	    .size = l->c.size,
	    .buffer = buffer,
	};
	mark(l, &s->op, true);
	if (s->op.kind == VOLUME_WRITE) {
		uint64_t number = l->stamps->next++;

		for (uint32_t at = 0; at < l->c.size; at += BLOCK_SIZE) {
			stamp_block(buffer->data + at, offset + at, number);
			l->stamps->number[(offset + at) / BLOCK_SIZE] = number | BUSY;
		}
	}
	s->begun_ns = now;
	volume_submit(l->c.volume, &s->op);
}

static void check_read(struct load *l, const struct volume_op *op)
{
	for (uint32_t at = 0; at < op->size; at += BLOCK_SIZE) {
		uint64_t offset = op->offset + at;
		uint64_t number = l->stamps->number[offset / BLOCK_SIZE] & ~BUSY;

		if (block_is(op->buffer->data + at, offset, number))
			continue;
		if (l->result.mismatches++ == 0)
			l->result.first_bad_offset = offset;
	}
}

static void op_done(struct volume_op *op, int status)
{
	struct slot *s = container_of(op, struct slot, op);
	struct load *l = s->load;
	uint64_t took = reactor_now_ns(l->c.reactor) - s->begun_ns;

	mark(l, op, false);
	if (status != 0) {
		if (l->result.errors++ == 0)
			l->result.first_error = status;
		l->stopping = true;
	} else {
		l->result.operations++;
		l->result.bytes += op->size;
		histogram_add(op->kind == VOLUME_READ ? &l->result.reads : &l->result.writes, took);
		if (op->kind == VOLUME_READ && l->c.verify)
			check_read(l, op);
	}
	volume_buffer_put(l->c.volume, op->buffer);
	step(s);
}

static void room(struct reactor_task *task)
{
	struct load *l = container_of(task, struct load, room);

	l->room_asked = false;
	for (uint32_t i = 0; i < l->c.depth; i++) {
		if (l->slots[i].waiting) {
			l->slots[i].waiting = false;
			step(&l->slots[i]);
		}
	}
}

struct load *load_start(const struct load_config *config, struct load_stamps *stamps,
			void (*done)(void *arg), void *arg)
{
	struct load *l = calloc(1, sizeof *l + config->depth * sizeof l->slots[0]);

	PRE(config->depth > 0 && config->depth <= LOAD_DEPTH_MAX);
	PRE(config->size > 0 && config->size % BLOCK_SIZE == 0 && config->range >= config->size);
	if (l == NULL)
		return NULL;
	l->c = *config;
	l->stamps = stamps;
	l->done = done;
	l->arg = arg;
	l->room.run = room;
	l->finished.run = finished;
	l->random_state = config->seed * 2 + 1;
	l->begun_ns = reactor_now_ns(config->reactor);
	l->active = config->depth;
	for (uint32_t i = 0; i < config->depth; i++) {
		l->slots[i].load = l;
		step(&l->slots[i]);
	}
	return l;
}

void load_stop(struct load *l)
{
	l->stopping = true;
}

const struct load_result *load_result(const struct load *l)
{
	return &l->result;
}

void load_destroy(struct load *l)
{
	free(l);
}
