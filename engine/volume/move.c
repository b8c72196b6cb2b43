/* move: see move.h.
 *
 * INVARIANTS
 *  1. MoveCommit is asked only when the learner holds everything that was decided, is awaited for
 *     whatever is in flight, holds a watermark of this generation, and every write that is
 *     acknowledged from then on has enough copies among the old members and among the new ones. So
 *     whichever map the next attachment gets, a majority of it holds what was acknowledged, and the
 *     seal. It has every sealed layer whole, too.
 *  2. While the answer is in doubt the chunk is not reconciled: that would rest on members that may
 *     not be its members any more.
 *  3. A slot is used again only when nothing of its earlier replica is on the wire.
 *
 * Failure modes: the driver cannot be reached: asked again, for ever; a refusal that says that the
 * map was not changed gives the learner up, and the next list may bring it back. */
#include "engine/volume/move.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <utlist.h>

#include "engine/base/assert.h"
#include "engine/base/log.h"
#include "engine/volume/core.h"

enum vmove_state {
	VMOVE_FREE,
	VMOVE_LEARNING,
	VMOVE_SETTLING,
	VMOVE_MARKING,
	VMOVE_ASKING,
	VMOVE_LEAVING,
};

struct vmove {
	struct vchunk *chunk;
	enum vmove_state state;
	uint8_t from, learner; /* slots */
	uint8_t leaving;       /* the one that leaves */
	bool listed;	       /* in the driver's last list */
	bool calling;
	struct vmark *mark;
	int marked; /* its result; 1: none yet */
	uint64_t ask_after_ns;
	struct rpc_call call;
};

static void run_engine(struct reactor_task *task);

int vmove_init(struct volume *v)
{
	v->moves.task.run = run_engine;
	v->moves.moves = calloc(VMOVES_MAX, sizeof(*v->moves.moves));
	return v->moves.moves != NULL ? 0 : -ENOMEM;
}

void vmove_deinit(struct volume *v)
{
	free(v->moves.moves);
	v->moves.moves = NULL;
}

void vmove_kick(struct volume *v)
{
	if (v->moves.moves != NULL)
		reactor_defer(v->reactor, &v->moves.task);
}

vmask_t vmove_next_members(const struct vchunk *c)
{
	const struct vmove *x = c->move;

	PRE(x != NULL && c->learner == x->learner);
	return (c->members & ~vmask_bit(x->from)) | vmask_bit(x->learner);
}

bool vmove_in_doubt(const struct vchunk *c)
{
	return c->move != NULL && c->move->state == VMOVE_ASKING;
}

uint32_t vmove_chunks(const struct volume *v, uint32_t *ret)
{
	uint32_t n = 0;

	for (uint32_t i = 0; v->moves.moves != NULL && i < VMOVES_MAX; i++)
		if (v->moves.moves[i].state != VMOVE_FREE)
			ret[n++] = v->moves.moves[i].chunk->no;
	return n;
}

/* -- ends -------------------------------------------------------------------------------------- */

static const char *node_name(const struct vmove *x, uint32_t slot)
{
	return x->chunk->volume->nodes[x->chunk->slots[slot].node].name;
}

static void leave(struct vmove *x, uint8_t slot)
{
	x->leaving = slot;
	x->state = VMOVE_LEAVING;
	vchunk_slot_leaves(x->chunk, slot);
	vmove_kick(x->chunk->volume);
}

/* The learner is no learner any more. */
static void give_up(struct vmove *x, const char *why)
{
	struct vchunk *c = x->chunk;

	log_info("volume", "%s: chunk %u does not move from %s to %s: %s", c->volume->config.name,
		 c->no, node_name(x, x->from), node_name(x, x->learner), why);
	if (x->mark != NULL)
		vmark_cancel(x->mark);
	x->mark = NULL;
	c->joint = false;
	c->learner = VSLOT_NONE;
	leave(x, x->learner);
}

static void committed(struct vmove *x)
{
	struct vchunk *c = x->chunk;

	log_info("volume", "%s: chunk %u has moved from %s to %s", c->volume->config.name, c->no,
		 node_name(x, x->from), node_name(x, x->learner));
	c->members = vmove_next_members(c);
	c->learner = VSLOT_NONE;
	c->joint = false;
	c->volume->stats.moves++;
	leave(x, x->from);
	vchunk_members_changed(c);
}

static bool has_left(const struct vmove *x)
{
	const struct vslot *s = &x->chunk->slots[x->leaving];

	return s->outstanding == 0 && s->reading == 0 && s->marking == 0 && s->resync == NULL &&
	       x->mark == NULL && vlayers_slot_is_quiet(x->chunk, x->leaving);
}

/* -- steps ------------------------------------------------------------------------------------- */

static void marked(struct vmark *m, int status)
{
	struct vmove *x = m->owner;

	x->mark = NULL;
	x->marked = status;
	vmove_kick(x->chunk->volume);
}

static void asked(struct rpc_call *call, int status, const Pave__V1__Control *reply,
		  const char *text)
{
	struct vmove *x = container_of(call, struct vmove, call);
	struct volume *v = x->chunk->volume;

	x->calling = false;
	if (status == 0 && reply->body_case != PAVE__V1__CONTROL__BODY_EMPTY)
		status = -E_BAD_FRAME;
	if (status == 0) {
		committed(x);
	} else if (status == -ENOENT || status == -E_DENIED) {
		give_up(x, text); /* the driver says that it has not changed the map */
	} else if (status == -E_FENCED) {
		volume_end(v, status, text);
	} else {
		/* Whether it has, nobody knows. */
		x->ask_after_ns = volume_now(v) + VMOVE_ASK_MS * NS_PER_MS;
	}
	vmove_kick(v);
}

static void ask(struct vmove *x)
{
	struct vchunk *c = x->chunk;
	struct volume *v = c->volume;
	Pave__V1__Control message = PAVE__V1__CONTROL__INIT;
	Pave__V1__MoveCommit commit = PAVE__V1__MOVE_COMMIT__INIT;

	if (x->calling || v->attach.state != VATTACH_ATTACHED || !v->attach.greeted ||
	    v->attach.closing || volume_now(v) < x->ask_after_ns)
		return;
	commit.volume = v->id;
	commit.generation = v->generation;
	commit.chunk = c->no;
	commit.from = (char *)(uintptr_t)node_name(x, x->from);
	commit.to = (char *)(uintptr_t)node_name(x, x->learner);
	message.body_case = PAVE__V1__CONTROL__BODY_MOVE_COMMIT;
	message.move_commit = &commit;
	x->call.done = asked;
	x->calling = true;
	rpc_call_start(&v->attach.rpc, &x->call, &message, 0);
}

/* Back to the beginning, if the learner is not what SETTLING and MARKING need. */
static bool is_complete(struct vmove *x)
{
	struct vchunk *c = x->chunk;

	if (c->state == VCHUNK_SERVING && !c->reset_wanted && c->slots[x->learner].current &&
	    vlayers_slot_has_all(c, x->learner))
		return true;
	c->joint = false;
	if (x->mark != NULL)
		vmark_cancel(x->mark);
	x->mark = NULL;
	x->state = VMOVE_LEARNING;
	return false;
}

static void settle(struct vmove *x)
{
	struct vchunk *c = x->chunk;
	struct vslot *s = &c->slots[x->learner];

	if (!is_complete(x) || !vwindow_decided_below(&c->window, c->joint_seq + 1) ||
	    !vwindow_answered_below(&c->window, x->learner, c->joint_seq + 1))
		return;
	if (s->told >= version_make(c->volume->generation, c->joint_seq)) {
		x->state = VMOVE_ASKING;
		return;
	}
	x->marked = 1;
	x->mark = vmark_send(c, x->learner, vchunk_watermark(c, x->learner), marked, x);
	if (x->mark != NULL)
		x->state = VMOVE_MARKING;
}

static void step(struct vmove *x)
{
	const enum vmove_state before = x->state;
	struct vchunk *c = x->chunk;

	switch (x->state) {
	case VMOVE_FREE:
		return;
	case VMOVE_LEARNING:
		if (c->state == VCHUNK_UNOPENED)
			vreconcile_want(c, true);
		if (c->state != VCHUNK_SERVING || c->reset_wanted ||
		    !c->slots[x->learner].current || !volume_gate_open(c->volume) ||
		    !vlayers_slot_has_all(c, x->learner))
			break;
		c->joint = true;
		c->joint_seq = c->window.last_seq;
		x->state = VMOVE_SETTLING;
		break;
	case VMOVE_SETTLING:
		settle(x);
		break;
	case VMOVE_MARKING:
		if (!is_complete(x) || x->marked == 1)
			break;
		x->state = x->marked == 0 ? VMOVE_ASKING : VMOVE_SETTLING;
		break;
	case VMOVE_ASKING:
		ask(x);
		break;
	case VMOVE_LEAVING:
		if (!has_left(x))
			break;
		c->move = NULL;
		*x = (struct vmove){0};
		return;
	}
	/* A failed mark waits for the next tick. */
	if (x->state != before && x->state > before)
		step(x);
}

static void run_engine(struct reactor_task *task)
{
	struct volume *v = container_of(task, struct volume, moves.task);

	if (v->state != VOLUME_OPEN || v->ended != 0)
		return;
	for (uint32_t i = 0; i < VMOVES_MAX; i++)
		step(&v->moves.moves[i]);
}

void vmove_stop(struct volume *v)
{
	for (uint32_t i = 0; v->moves.moves != NULL && i < VMOVES_MAX; i++) {
		struct vmove *x = &v->moves.moves[i];

		if (x->calling)
			rpc_call_cancel(&x->call);
		x->calling = false;
		if (x->mark != NULL)
			vmark_cancel(x->mark);
		x->mark = NULL;
	}
}

/* -- the driver's list ------------------------------------------------------------------------- */

static uint32_t find_node(const struct volume *v, const char *name)
{
	for (uint32_t i = 0; i < v->node_count; i++)
		if (strcmp(v->nodes[i].name, name) == 0)
			return i;
	return UINT32_MAX;
}

static uint32_t slot_on(const struct vchunk *c, uint32_t node, vmask_t among)
{
	for (uint32_t i = 0; i < c->volume->slot_count; i++)
		if ((among & vmask_bit(i)) != 0 && c->slots[i].node == node)
			return i;
	return UINT32_MAX;
}

static void begin(struct vchunk *c, uint32_t from, uint32_t to)
{
	struct volume *v = c->volume;
	struct vmove *x = NULL;
	uint32_t place = 0;

	for (uint32_t i = 0; i < VMOVES_MAX && x == NULL; i++)
		if (v->moves.moves[i].state == VMOVE_FREE)
			x = &v->moves.moves[i];
	while ((vchunk_used(c) & vmask_bit(place)) != 0)
		place++;
	if (x == NULL || !vlayers_settled_below(v))
		return; /* the list comes again */
	INVARIANT(place < v->slot_count);
	*x = (struct vmove){.chunk = c,
			    .state = VMOVE_LEARNING,
			    .from = (uint8_t)from,
			    .learner = (uint8_t)place,
			    .listed = true};
	c->move = x;
	log_info("volume", "%s: chunk %u moves from %s to %s", v->config.name, c->no,
		 v->nodes[c->slots[from].node].name, v->nodes[to].name);
	vchunk_slot_learns(c, place, to);
	vmove_kick(v);
}

static void take(struct volume *v, const Pave__V1__Move *m)
{
	const uint32_t from_node = find_node(v, m->from), to_node = find_node(v, m->to);
	struct vchunk *c;
	struct vmove *x;
	uint32_t from;

	if (m->chunk >= v->chunk_count || from_node == UINT32_MAX || to_node == UINT32_MAX)
		return;
	c = &v->chunks[m->chunk];
	x = c->move;
	from = slot_on(c, from_node, c->members);
	if (from == UINT32_MAX)
		return;
	if (x != NULL) {
		x->listed = x->from == from && c->learner == x->learner &&
			    c->slots[x->learner].node == to_node;
		return;
	}
	if (slot_on(c, to_node, vchunk_used(c)) == UINT32_MAX)
		begin(c, from, to_node);
}

void vmove_take_list(struct volume *v, Pave__V1__Move *const *list, size_t count)
{
	if (v->moves.moves == NULL || v->chunks == NULL || v->ended != 0 ||
	    v->state >= VOLUME_CLOSING)
		return;
	for (uint32_t i = 0; i < VMOVES_MAX; i++)
		v->moves.moves[i].listed = false;
	for (size_t i = 0; i < count; i++)
		take(v, list[i]);
	for (uint32_t i = 0; i < VMOVES_MAX; i++) {
		struct vmove *x = &v->moves.moves[i];

		if (!x->listed && x->state >= VMOVE_LEARNING && x->state <= VMOVE_MARKING)
			give_up(x, "the driver does not want it any more");
	}
}
