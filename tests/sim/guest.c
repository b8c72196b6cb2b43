/* guest: see guest.h. */
#include "tests/sim/guest.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/assert.h"
#include "tests/sim/checks.h"

#define THINK_MAX_NS	 (40 * NS_PER_MS)
#define ATTACH_RETRY_NS	 (2 * NS_PER_S)
#define AWAY_MAX_NS	 (10 * NS_PER_S)
#define PREPARED_MAX_NS	 (3 * NS_PER_S)
#define STAY_MIN_NS	 (2 * NS_PER_S)
#define STAY_MAX_NS	 (20 * NS_PER_S)
#define HOT_BLOCKS	 48u
#define VERIFY_BLOCKS	 64u
#define OVERWRITE_BLOCKS 512u /* of which some are written */
#define VERIFY_RETRY_NS	 (500 * NS_PER_MS)
#define ROOM_RETRY_NS	 (20 * NS_PER_MS)

static void think(struct guest_slot *s, uint64_t for_ns);
static void close_volume(struct guest *g);

static struct sim_world *world_of(const struct guest *g)
{
	return g->machine->cluster->world;
}

static struct reactor *reactor_of(const struct guest *g)
{
	return sim_reactor(g->machine->process);
}

static void arm(struct guest *g, struct reactor_timer *t, uint64_t for_ns)
{
	reactor_timer_arm(reactor_of(g), t, reactor_now_ns(reactor_of(g)) + for_ns);
}

/* -- operations ------------------------------------------------------------------------------ */

static bool is_idle(const struct guest *g)
{
	for (uint32_t i = 0; i < GUEST_SLOTS; i++)
		if (g->slots[i].in_flight)
			return false;
	return true;
}

static void end_op(struct guest_slot *s, int status)
{
	struct oracle *o = s->guest->machine->cluster->oracle;

	if (s->guest->shot != NULL) {
		if (status == 0)
			oracle_shot_read(o, s->guest->shot->oracle, s->op.offset / BLOCK_SIZE,
					 s->op.size / BLOCK_SIZE, s->buffer->data);
		return;
	}
	switch (s->op.kind) {
	case VOLUME_READ:
		oracle_read_end(o, &s->read, status == 0 ? s->buffer->data : NULL);
		break;
	case VOLUME_WRITE:
	case VOLUME_ZERO:
	case VOLUME_DISCARD:
		oracle_write_end(o, &s->write, status);
		break;
	case VOLUME_FLUSH:
		break;
	}
}

/* Blocks that one operation stands for, when quiet. */
static uint64_t part(const struct guest *g)
{
	return g->overwrites ? OVERWRITE_BLOCKS : VERIFY_BLOCKS;
}

static void op_done(struct volume_op *op, int status)
{
	struct guest_slot *s = container_of(op, struct guest_slot, op);
	struct guest *g = s->guest;
	struct cluster *c = g->machine->cluster;

	INVARIANT(s->in_flight);
	sim_trace(c->world, g->machine->process, "guest: op %u block %lu +%u done: %d",
		  (unsigned)op->kind, op->offset / BLOCK_SIZE, op->size / BLOCK_SIZE, status);
	s->in_flight = false;
	c->stats.ops++;
	c->stats.op_errors += status != 0;
	if (status == 0 && op->kind != VOLUME_FLUSH)
		checks_success(c, g->number);
	end_op(s, status);
	if (s->buffer != NULL)
		volume_buffer_put(g->volume, s->buffer);
	s->buffer = NULL;
	if (g->quiet && status != 0) {
		g->verify_errors++;
		g->verified = MIN(g->verified, op->offset / BLOCK_SIZE / part(g) * part(g));
	}
	if (g->phase != GUEST_ATTACHED)
		return;
	if (g->detach_due && is_idle(g))
		close_volume(g);
	else
		think(s, g->quiet ? (status == 0 ? 1 : VERIFY_RETRY_NS)
				  : sim_random_below(world_of(g), THINK_MAX_NS));
}

static enum volume_op_kind choose_kind(struct sim_world *w)
{
	uint64_t x = sim_random_below(w, 100);

	if (x < 45)
		return VOLUME_WRITE;
	if (x < 85)
		return VOLUME_READ;
	if (x < 90)
		return VOLUME_ZERO;
	if (x < 96)
		return VOLUME_DISCARD;
	return VOLUME_FLUSH;
}

/* Mostly few blocks close together, at the beginning of each chunk, so that operations meet. */
static void choose_range(struct sim_world *w, uint64_t *ret_block, uint32_t *ret_count)
{
	uint64_t chunk_blocks = CLUSTER_CHUNK_SIZE / BLOCK_SIZE;
	uint32_t count =
	    1 + (uint32_t)sim_random_below(w, sim_chance(w, 1, 10) ? GUEST_BLOCKS_MAX : 6);
	uint64_t chunks = CLUSTER_BLOCKS / chunk_blocks;
	/* Half of the chunks are used little: what one operation leaves isn't covered by the next.
	 */
	uint64_t chunk = sim_random_below(w, sim_chance(w, 1, 12) ? chunks : chunks / 2);
	uint64_t block = chunk * chunk_blocks;

	if (sim_chance(w, 1, 16)) /* across the border of two chunks, or pages, or anywhere */
		block =
		    sim_chance(w, 1, 2) ? chunk_blocks - 2 : sim_random_below(w, CLUSTER_BLOCKS);
	else
		block += sim_random_below(w, HOT_BLOCKS);
	*ret_block = block;
	*ret_count = (uint32_t)MIN(count, CLUSTER_BLOCKS - block);
}

/* A script's wish: half of the operations go to one chunk, where nothing but reads, or reads and
 * writes, are done. */
static void favour(struct cluster *c, enum volume_op_kind *kind, uint64_t *block, uint32_t *count)
{
	uint64_t chunk_blocks = CLUSTER_CHUNK_SIZE / BLOCK_SIZE;

	if (c->favour == FAVOUR_NONE || *kind == VOLUME_FLUSH)
		return;
	*count = MIN(*count, 4u);
	*block = MIN(*block, CLUSTER_BLOCKS - *count);
	if (sim_chance(c->world, 1, 2))
		*block = c->favoured_chunk * chunk_blocks + sim_random_below(c->world, HOT_BLOCKS);
	if (*block + *count > c->favoured_chunk * chunk_blocks &&
	    *block < (c->favoured_chunk + 1) * chunk_blocks)
		*kind = c->favour == FAVOUR_WRITES && sim_chance(c->world, 1, 2) ? VOLUME_WRITE
										 : VOLUME_READ;
}

static bool take_buffer(struct guest_slot *s, uint32_t size)
{
	s->buffer = volume_buffer_get(s->guest->volume, size);
	return s->buffer != NULL;
}

static void begin_op(struct guest_slot *s, enum volume_op_kind kind, uint64_t block, uint32_t count)
{
	struct guest *g = s->guest;
	struct oracle *o = g->machine->cluster->oracle;

	if (kind == VOLUME_READ && g->shot == NULL)
		oracle_read_begin(o, g->generation, block, count, &s->read);
	else if (kind != VOLUME_FLUSH && kind != VOLUME_READ)
		oracle_write_begin(o, kind == VOLUME_WRITE ? ORACLE_DATA : ORACLE_ZERO,
				   g->generation, block, count, &s->write);
	if (kind == VOLUME_WRITE) {
		s->buffer->crcs_known = false;
		oracle_fill(&s->write, s->buffer->data);
	} else if (kind == VOLUME_READ) {
		memset(s->buffer->data, 0xee, (size_t)count * BLOCK_SIZE);
	}
}

static void submit(struct guest_slot *s, enum volume_op_kind kind, uint64_t block, uint32_t count)
{
	struct guest *g = s->guest;
	uint32_t size = count * BLOCK_SIZE;

	if ((kind == VOLUME_READ || kind == VOLUME_WRITE) && !take_buffer(s, size)) {
		think(s, ROOM_RETRY_NS);
		return;
	}
	begin_op(s, kind, block, count);
	memset(&s->op, 0, sizeof(s->op));
	s->op.done = op_done;
	s->op.kind = kind;
	if (kind != VOLUME_FLUSH) {
		s->op.offset = block * BLOCK_SIZE;
		s->op.size = size;
	}
	s->op.buffer = s->buffer;
	s->in_flight = true;
	sim_trace(world_of(g), g->machine->process, "guest: op %u block %lu +%u id %lu",
		  (unsigned)kind, block, count,
		  kind != VOLUME_READ && kind != VOLUME_FLUSH ? s->write.id : 0);
	volume_submit(g->volume, &s->op);
}

static void verify_more(struct guest_slot *s)
{
	struct guest *g = s->guest;
	uint64_t block = g->verified;

	if (block < CLUSTER_BLOCKS) {
		g->verified += part(g);
		if (g->overwrites)
			submit(s, VOLUME_WRITE, block + sim_random_below(world_of(g), HOT_BLOCKS),
			       1 + (uint32_t)sim_random_below(world_of(g), VERIFY_BLOCKS));
		else
			submit(s, VOLUME_READ, block, VERIFY_BLOCKS);
	} else if (is_idle(g)) {
		g->all_verified = true;
	}
}

static void thought(struct reactor_timer *t)
{
	struct guest_slot *s = container_of(t, struct guest_slot, think);
	struct guest *g = s->guest;
	enum volume_op_kind kind;
	uint64_t block;
	uint32_t count;

	if (g->phase != GUEST_ATTACHED || g->detach_due || s->in_flight)
		return;
	if (g->quiet) {
		verify_more(s);
		return;
	}
	choose_range(world_of(g), &block, &count);
	kind = choose_kind(world_of(g));
	favour(g->machine->cluster, &kind, &block, &count);
	if (g->shot != NULL)
		kind = VOLUME_READ;
	submit(s, kind, block, count);
}

static void think(struct guest_slot *s, uint64_t for_ns)
{
	arm(s->guest, &s->think, for_ns);
}

/* -- the attachment -------------------------------------------------------------------------- */

/* Mostly it lets the other have the volume for a while: each attach takes it away from there. */
static void detached(struct guest *g)
{
	bool soon = g->quiet || sim_chance(world_of(g), 1, 3);

	g->phase = GUEST_DETACHED;
	g->detach_due = g->migrating = false;
	arm(g, &g->timer, sim_random_below(world_of(g), soon ? ATTACH_RETRY_NS : AWAY_MAX_NS));
}

static void closed(void *arg)
{
	struct guest *g = arg;

	sim_trace(world_of(g), g->machine->process, "guest: detached");
	g->volume = NULL;
	detached(g);
}

static void close_volume(struct guest *g)
{
	INVARIANT(g->phase == GUEST_ATTACHED);
	g->phase = GUEST_CLOSING;
	reactor_timer_cancel(reactor_of(g), &g->timer);
	for (uint32_t i = 0; i < GUEST_SLOTS; i++)
		reactor_timer_cancel(reactor_of(g), &g->slots[i].think);
	volume_close(g->volume, closed, g);
}

/* Half of the time operations are still in flight when the volume is closed. */
static void begin_detach(struct guest *g)
{
	if (g->phase != GUEST_ATTACHED)
		return;
	g->detach_due = true;
	if (is_idle(g) || sim_chance(world_of(g), 1, 2))
		close_volume(g);
}

static void ended(int why, void *arg)
{
	struct guest *g = arg;

	sim_trace(world_of(g), g->machine->process, "guest: the attachment ended: %s",
		  err_name(why));
	g->machine->cluster->stats.fenced += why == -E_FENCED;
	begin_detach(g);
}

static void opened(struct volume_open_op *op, int status, struct volume *v, const struct error *err)
{
	struct guest *g = container_of(op, struct guest, open);
	struct cluster *c = g->machine->cluster;

	if (status != 0) {
		sim_trace(c->world, g->machine->process, "guest: not attached: %s",
			  err != NULL ? err->text : err_name(status));
		detached(g);
		return;
	}
	g->volume = v;
	g->phase = GUEST_ATTACHED;
	g->generation = c->offered[g->number];
	c->stats.attaches++;
	c->stats.migrations += g->migrating;
	g->migrating = false;
	if (g->shot != NULL) {
		c->stats.shot_attaches++;
		oracle_shot_taken(c->oracle, g->shot->oracle);
	}
	/* It was wanted for something else meanwhile. */
	g->detach_due = g->quiet && g->shot != g->verifying;
	sim_trace(c->world, g->machine->process, "guest: attached, generation %u", g->generation);
	if (volume_size(v) != CLUSTER_VOLUME_SIZE)
		cluster_fail(c, "the volume has %lu bytes instead of %u", volume_size(v),
			     CLUSTER_VOLUME_SIZE);
	g->verified = 0;
	for (uint32_t i = 0; i < GUEST_SLOTS; i++)
		think(&g->slots[i], sim_random_below(c->world, THINK_MAX_NS));
	arm(g, &g->timer, sim_random_range(c->world, STAY_MIN_NS, STAY_MAX_NS));
	if (g->detach_due)
		close_volume(g);
}

/* Now and then a snapshot, when there are some. */
static struct shot *choose_shot(struct guest *g)
{
	struct cluster *c = g->machine->cluster;
	struct shot *s;

	if (g->quiet)
		return g->verifying;
	if (c->shot_count == 0 || !sim_chance(c->world, 1, 3))
		return NULL;
	s = &c->shots[sim_random_below(c->world, c->shot_count)];
	return s->exists && !s->deleted ? s : NULL;
}

static void prepared(void *arg)
{
	struct guest *g = arg;

	sim_trace(world_of(g), g->machine->process, "guest: prepared to take over");
	arm(g, &g->timer, sim_random_below(world_of(g), PREPARED_MAX_NS));
}

static void attach(struct guest *g)
{
	g->phase = GUEST_OPENING;
	g->shot = g->migrating ? NULL : choose_shot(g);
	memset(&g->open, 0, sizeof(g->open));
	g->open.done = opened;
	g->open.config = (struct volume_config){
	    .reactor = reactor_of(g),
	    .transport = g->machine->transport,
	    .trust = g->machine->trust,
	    .pd_address = g->machine->cluster->pd_addresses,
	    .name = g->shot != NULL ? g->shot->name : CLUSTER_VOLUME,
	    .read_only = g->shot != NULL,
	    .holder = g->machine->process->name,
	    .holder_site = g->machine->site,
	    .endpoint = "sim",
	    .if_free = g->migrating,
	    .layers_piece = g->machine->cluster->world->seed % 3 == 0,
	    .prepared = g->migrating ? prepared : NULL,
	    .ended = ended,
	    .arg = g,
	};
	volume_open(&g->open);
}

static void timer_fired(struct reactor_timer *t)
{
	struct guest *g = container_of(t, struct guest, timer);

	if (g->phase == GUEST_DETACHED && g->wanted) {
		attach(g);
		return;
	}
	if (g->phase == GUEST_OPENING && g->migrating)
		volume_take_over(&g->open);
	if (g->phase == GUEST_ATTACHED && !g->quiet &&
	    (!g->wanted || sim_chance(world_of(g), 1, 2)))
		begin_detach(g);
	arm(g, &g->timer, sim_random_below(world_of(g), ATTACH_RETRY_NS));
}

/* -- life ------------------------------------------------------------------------------------ */

struct guest *guest_create(struct machine *m, uint32_t number)
{
	struct guest *g = calloc(1, sizeof(*g));

	INVARIANT(g != NULL);
	g->machine = m;
	g->number = number;
	g->wanted = true;
	for (uint32_t i = 0; i < GUEST_SLOTS; i++)
		g->slots[i].guest = g;
	return g;
}

void guest_destroy(struct guest *g)
{
	free(g);
}

void guest_boot(struct guest *g)
{
	g->timer = (struct reactor_timer){.fire = timer_fired};
	for (uint32_t i = 0; i < GUEST_SLOTS; i++)
		g->slots[i].think = (struct reactor_timer){.fire = thought};
	detached(g);
}

void guest_crashed(struct guest *g)
{
	struct oracle *o = g->machine->cluster->oracle;

	for (uint32_t i = 0; i < GUEST_SLOTS; i++) {
		struct guest_slot *s = &g->slots[i];

		if (s->in_flight && s->op.kind == VOLUME_READ && g->shot == NULL)
			oracle_read_end(o, &s->read, NULL);
		s->in_flight = false;
		s->buffer = NULL;
	}
	if (g->volume != NULL)
		volume_abandon(g->volume);
	else if (g->phase == GUEST_OPENING)
		sim_abandon(g->open.impl);
	g->volume = NULL;
	g->phase = GUEST_DETACHED;
	g->detach_due = g->migrating = false;
	g->verified = 0;
}

bool guest_attach_now(struct guest *g)
{
	if (!g->machine->process->alive || g->machine->process->paused ||
	    g->phase != GUEST_DETACHED || !g->wanted)
		return false;
	arm(g, &g->timer, 0);
	return true;
}

bool guest_migrate(struct guest *g)
{
	if (g->quiet || !guest_attach_now(g))
		return false;
	g->migrating = true;
	return true;
}

static void begin_quiet(struct guest *g, struct shot *shot)
{
	g->quiet = true;
	g->wanted = true;
	g->verified = 0;
	g->all_verified = false;
	g->verifying = shot;
	if (g->phase == GUEST_ATTACHED && g->shot != shot)
		begin_detach(g);
	else if (g->phase == GUEST_ATTACHED)
		for (uint32_t i = 0; i < GUEST_SLOTS; i++)
			think(&g->slots[i], 1);
	if (g->machine->process->alive && g->phase == GUEST_DETACHED)
		detached(g);
}

void guest_verify(struct guest *g, struct shot *shot)
{
	g->overwrites = false;
	begin_quiet(g, shot);
}

void guest_overwrite(struct guest *g)
{
	g->overwrites = true;
	begin_quiet(g, NULL);
}
