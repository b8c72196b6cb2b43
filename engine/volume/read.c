/* read: see read.h.
 *
 * Failure modes: -E_BAD_CRC or another error from a slot sends the read to another one, and what
 * was bad is written again (rewrite.h); a slot that is away is waited for as long as the operation
 * may wait; when every current slot has answered wrongly the read fails with -EIO. A slot that is
 * slow to answer is raced by another one (hedge.h). */
#include "engine/volume/read.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/assert.h"
#include "engine/base/crc32c.h"
#include "engine/base/log.h"
#include "engine/volume/core.h"
#include "engine/volume/rewrite.h"

int vread_pool_init(struct vread_pool *p)
{
	p->memory = calloc(VREAD_POOL_MAX, sizeof(*p->memory));
	p->free_count = VREAD_POOL_MAX;
	return p->memory != NULL ? 0 : -ENOMEM;
}

void vread_pool_deinit(struct vread_pool *p)
{
	free(p->memory);
	*p = (struct vread_pool){0};
}

static struct vread *pool_get(struct vread_pool *p, bool own)
{
	struct vread *rd = p->free;

	if (p->free_count <= (own ? 0 : VREAD_POOL_RESERVE))
		return NULL;
	p->free_count--;
	if (rd != NULL)
		p->free = rd->next;
	else
		rd = &p->memory[p->touched++];
	return rd;
}

static bool is_idle(const struct vread *rd)
{
	return rd->legs[0].request.state == VREQUEST_IDLE &&
	       rd->legs[1].request.state == VREQUEST_IDLE;
}

static void give_back(struct vread *rd)
{
	struct volume *v = rd->chunk->volume;

	PRE(is_idle(rd));
	rd->chunk->reads_begun--;
	vbuffers_put(&v->buffers, rd->buffer);
	vbuffers_put(&v->buffers, rd->spare);
	rd->next = v->reads.free;
	v->reads.free = rd;
	v->reads.free_count++;
	volume_room(v);
}

void vread_list_append(struct vread_list *l, struct vread *rd)
{
	rd->next = NULL;
	rd->prev = l->tail;
	if (l->tail != NULL)
		l->tail->next = rd;
	else
		l->head = rd;
	l->tail = rd;
}

void vread_list_remove(struct vread_list *l, struct vread *rd)
{
	if (rd->prev != NULL)
		rd->prev->next = rd->next;
	else
		l->head = rd->next;
	if (rd->next != NULL)
		rd->next->prev = rd->prev;
	else
		l->tail = rd->prev;
	rd->next = rd->prev = NULL;
}

static struct vread_leg *leg_of(struct vrequest *q)
{
	return container_of(q, struct vread_leg, request);
}

static struct vread_leg *other_leg(struct vread *rd, const struct vread_leg *leg)
{
	return &rd->legs[leg == &rd->legs[0]];
}

/* Its answer is awaited. */
static bool is_under_way(const struct vread_leg *leg)
{
	return !leg->ignored &&
	       (leg->request.state == VREQUEST_QUEUED || leg->request.state == VREQUEST_SENT);
}

/* -- ending ------------------------------------------------------------------------------------ */

/* In no list. A leg that is still under way does not write to the buffer. */
static void finish(struct vread *rd, int status)
{
	struct volume *v = rd->chunk->volume;
	void (*done)(struct vread *, int) = rd->done;
	const vmask_t bad = rd->bad;

	if (status == 0 && (bad != 0 || rd->parted) && !rd->fixed)
		vrewrite_repair(vchunk_top(rd->chunk), rd->whole_block, rd->whole_count);
	done(rd, status);
	rd->state = VREAD_ORPHAN;
	if (is_idle(rd)) {
		give_back(rd);
		return;
	}
	if (vbuffers_put(&v->buffers, rd->buffer))
		volume_room(v);
	rd->buffer = NULL;
}

/* Its layer is sealed: what the guest sees is seen from the top. */
static void leave_retired(struct vread *rd)
{
	struct vchunk *c = rd->chunk;

	if (!c->set->retired || rd->fixed)
		return;
	c->reads_begun--;
	rd->chunk = vchunk_top(c);
	rd->chunk->reads_begun++;
	/* What is under way is counted where it will end. */
	for (size_t i = 0; i < ARRAY_SIZE(rd->legs); i++) {
		if (rd->legs[i].request.state == VREQUEST_IDLE)
			continue;
		c->slots[rd->legs[i].slot].reading--;
		rd->chunk->slots[rd->legs[i].slot].reading++;
	}
}

void vread_leave(struct vread *rd)
{
	vread_list_remove(&rd->chunk->reads, rd);
	leave_retired(rd);
	rd->state = VREAD_WAITING;
	vread_list_append(&rd->chunk->reads, rd);
	vchunk_kick(rd->chunk);
}

/* Nobody is asked any more. */
static void wait_again(struct vread *rd)
{
	vhedge_over(rd, false);
	leave_retired(rd);
	rd->state = VREAD_WAITING;
	vread_list_append(&rd->chunk->reads, rd);
	vchunk_kick(rd->chunk);
}

/* What came is good as far as the checksums go, and is in the buffer. May it be shown? */
static void judge(struct vread *rd, const struct vread_leg *leg)
{
	struct vchunk *c = rd->chunk;

	if (c->set->retired && !rd->fixed) {
		wait_again(rd);
		return;
	}
	rd->state = VREAD_HELD;
	if (rd->fixed)
		return;
	vhedge_over(rd, true);
	if (c->volume->trace != NULL)
		rd->answer = c->volume->trace->answer;
	rd->epoch = leg->epoch;
	/* In the list, whatever follows: done is called from vchunk_run only. */
	rd->held_seq = c->window.last_seq;
	rd->held_seq_below = c->set->below != NULL ? vchunk_below(c)->window.last_seq : 0;
	vread_list_append(&c->reads, rd);
	vchunk_kick(c);
}

/* The leg's request is idle and unanswered, or over. */
static void leg_ends(struct vread_leg *leg)
{
	struct vslot *s = &((struct vread *)leg->request.owner)->chunk->slots[leg->slot];

	INVARIANT(s->reading > 0);
	s->reading--;
}

static bool take_back(struct vread_leg *leg)
{
	if (!vreplica_cancel(&leg->request))
		return false;
	leg_ends(leg);
	return true;
}

/* leg has a good answer, where it was told to put it. */
static void take_answer(struct vread *rd, struct vread_leg *leg)
{
	struct vread_leg *other = other_leg(rd, leg);

	if (leg->spare && other->receiving_ns != 0) {
		leg->good = true;
		return;
	}
	other->good = false;
	if (is_under_way(other)) {
		other->ignored = true;
		if (!take_back(other))
			other->spare = rd->spare != NULL;
	}
	if (leg->spare) {
		memcpy(rd->data, rd->spare->data, (size_t)rd->block_count * BLOCK_SIZE);
		rd->chunk->volume->stats.hedges_won++;
	} else if (leg == &rd->legs[1]) {
		rd->chunk->volume->stats.hedges_won++;
	}
	judge(rd, leg);
}

/* leg brought nothing. */
static void leg_failed(struct vread *rd, const struct vread_leg *leg)
{
	struct vread_leg *other = other_leg(rd, leg);

	if (other->good) {
		other->good = false;
		take_answer(rd, other);
	} else if (!is_under_way(other)) {
		wait_again(rd);
	}
}

/* Block by block from here on: the first one, or the next. The legs are idle, for what they are
 * answered must have the size that was asked for. */
static void next_part(struct vread *rd)
{
	if (rd->parted) {
		rd->block++;
		rd->data += BLOCK_SIZE;
	}
	rd->parted = true;
	rd->block_count = 1;
	rd->bad = 0;
	rd->state = VREAD_WAITING;
	vchunk_kick(rd->chunk);
}

/* Changes whenever what was read may have to be read again: when the layer below is retired, too.
 */
static uint64_t epoch_of(const struct vchunk *c)
{
	const uint64_t epoch = c->epoch + ((uint64_t)c->volume->layers.retired << 40);

	return epoch + (c->set->below != NULL ? vchunk_below(c)->epoch : 0);
}

static bool serves(const struct vchunk *c)
{
	return c->state == VCHUNK_SERVING &&
	       (c->set->below == NULL || vchunk_below(c)->state == VCHUNK_SERVING);
}

static void try_held(struct vread *rd)
{
	struct vchunk *c = rd->chunk;

	/* The pause: the clock is read again before anything is shown. */
	gate_refresh(c->volume->reactor);
	if (!volume_gate_open(c->volume) || rd->epoch != epoch_of(c) || !serves(c)) {
		/* Somebody else may have written since, or a write that it shows has failed. */
		rd->state = VREAD_WAITING;
		c->volume->stats.read_retries++;
		return;
	}
	if (vwrite_overlaps(c, rd->block, rd->block_count, rd->held_seq).undecided)
		return;
	if (c->set->below != NULL &&
	    vwrite_overlaps(vchunk_below(c), rd->block, rd->block_count, rd->held_seq_below)
		.undecided)
		return;
	if (rd->block + rd->block_count < rd->whole_block + rd->whole_count) {
		if (is_idle(rd))
			next_part(rd);
		return;
	}
	vread_list_remove(&c->reads, rd);
	finish(rd, 0);
}

/* -- choosing a slot --------------------------------------------------------------------------- */

/* The time in which an answer may be expected. What has not answered for long is at least so slow:
 * a process that was stopped answers nothing that could be measured. */
static uint64_t cost_of(const struct vreplica *r, uint64_t now_ns)
{
	const struct volume *v = r->volume;
	const struct vrequest *oldest = r->sent.head;
	const uint64_t age_ns =
	    oldest != NULL && now_ns > oldest->sent_ns ? now_ns - oldest->sent_ns : 0;
	const uint64_t cost = (MAX(r->latency_ns, age_ns) + 20000) * (r->inflight + 4);
	const bool near = v->config.holder_site[0] != '\0' &&
			  strcmp(v->config.holder_site, v->nodes[r->node].site) == 0;

	return near ? cost : cost * VREAD_FAR;
}

/* The nearest, then the least loaded. */
static uint32_t choose_slot(const struct vchunk *c, vmask_t candidates)
{
	const uint64_t now_ns = volume_now(c->volume);
	uint64_t best_cost = UINT64_MAX;
	uint32_t best = UINT32_MAX;

	for (uint32_t i = 0; i < c->volume->slot_count; i++) {
		uint64_t cost;

		if ((candidates & vmask_bit(i)) == 0)
			continue;
		cost = cost_of(c->slots[i].replica, now_ns);
		if (cost < best_cost) {
			best_cost = cost;
			best = i;
		}
	}
	return best;
}

/* Slots that hold everything that was acknowledged, in all layers. */
static vmask_t current_slots(struct vchunk *c)
{
	const struct vchunk *below = vchunk_below(c);
	vmask_t m = 0;

	for (uint32_t i = 0; i < c->volume->slot_count; i++)
		if ((c->members & vmask_bit(i)) != 0 && c->slots[i].current &&
		    (below == NULL || below->slots[i].current))
			m |= vmask_bit(i);
	return c->volume->sealed_count > 0 ? m & vlayers_good(c) : m;
}

/* Current, reachable, and without a gap in these blocks. */
static vmask_t slots_that_may_answer(const struct vread *rd)
{
	struct vchunk *c = rd->chunk;
	vmask_t m = current_slots(c) & ~rd->bad & vchunk_ready_slots(c);

	if (m != 0)
		m &= ~vwrite_overlaps(c, rd->block, rd->block_count, 0).missing;
	if (m != 0 && c->set->below != NULL)
		m &= ~vwrite_overlaps(vchunk_below(c), rd->block, rd->block_count, 0).missing;
	return m;
}

static void send(struct vread *rd, struct vread_leg *leg, uint32_t slot, bool spare)
{
	leg->slot = slot;
	leg->epoch = epoch_of(rd->chunk);
	leg->receiving_ns = 0;
	leg->ignored = leg->good = false;
	leg->spare = spare;
	rd->state = VREAD_SENT;
	rd->chunk->slots[slot].reading++;
	vreplica_submit(rd->chunk->slots[slot].replica, &leg->request);
}

static struct vread_leg *free_leg(struct vread *rd)
{
	for (size_t i = 0; i < ARRAY_SIZE(rd->legs); i++)
		if (rd->legs[i].request.state == VREQUEST_IDLE)
			return &rd->legs[i];
	return NULL;
}

static void try_waiting(struct vread *rd)
{
	struct vchunk *c = rd->chunk;
	struct vread_leg *leg = free_leg(rd);
	vmask_t current, candidates;

	if (!serves(c) || !volume_gate_open(c->volume) || leg == NULL)
		return;
	current = current_slots(c);
	if (current != 0 && (current & ~rd->bad) == 0 && rd->block_count > 1) {
		if (is_idle(rd))
			next_part(rd);
		return;
	}
	if (current != 0 && (current & ~rd->bad) == 0) {
		log_error("volume", "%s: chunk %u blocks %u+%u: no current replica can read them",
			  c->volume->config.name, c->no, rd->block, rd->block_count);
		vread_list_remove(&c->reads, rd);
		finish(rd, -EIO);
		return;
	}
	candidates = slots_that_may_answer(rd);
	if (candidates == 0)
		return;
	vread_list_remove(&c->reads, rd);
	vhedge_sent(rd);
	send(rd, leg, choose_slot(c, candidates), false);
}

void vread_try(struct vread *rd)
{
	if (rd->state == VREAD_HELD)
		try_held(rd);
	if (rd->state == VREAD_WAITING)
		try_waiting(rd);
}

/* -- the second leg ---------------------------------------------------------------------------- */

bool vread_second_leg(struct vread *rd)
{
	struct volume *v = rd->chunk->volume;
	const bool large = rd->block_count * BLOCK_SIZE > TRANSPORT_COPY_MAX;
	struct vread_leg *leg = free_leg(rd);
	vmask_t candidates;

	if (leg == NULL || !serves(rd->chunk) || !volume_gate_open(v))
		return false;
	candidates = slots_that_may_answer(rd) & ~vmask_bit(other_leg(rd, leg)->slot);
	if (candidates == 0)
		return false;
	if (large && rd->spare == NULL)
		rd->spare = vbuffers_get(&v->buffers, rd->block_count * BLOCK_SIZE, false);
	if (large && rd->spare == NULL)
		return false;
	send(rd, leg, choose_slot(rd->chunk, candidates), large);
	return true;
}

void vread_check_stuck(struct vread *rd, uint64_t now_ns)
{
	for (size_t i = 0; i < ARRAY_SIZE(rd->legs); i++) {
		const struct vread_leg *leg = &rd->legs[i];

		if (other_leg(rd, leg)->good && leg->receiving_ns != 0 &&
		    now_ns > leg->receiving_ns + VHEDGE_STUCK_NS)
			vreplica_disconnect(leg->request.replica, -ETIMEDOUT);
	}
}

/* -- the request ------------------------------------------------------------------------------- */

static void read_fill(struct vrequest *q)
{
	const struct vread *rd = q->owner;

	q->send.frame = (struct frame){
	    .op = FRAME_READ,
	    .chunk = rd->chunk->no,
	    .layer = rd->chunk->layer,
	    .block = rd->block,
	    .block_count = rd->block_count,
	};
}

static void *memory_of(const struct vread *rd, const struct vread_leg *leg)
{
	return leg->spare ? rd->spare->data : rd->data;
}

static void *read_rx_buffer(struct vrequest *q, const struct frame *f)
{
	struct vread *rd = q->owner;
	struct vread_leg *leg = leg_of(q);

	if (f->payload_size != rd->block_count * BLOCK_SIZE)
		return NULL;
	leg->receiving_ns = volume_now(rd->chunk->volume);
	return memory_of(rd, leg);
}

static int check_answer(const struct vread *rd, const struct vread_leg *leg, int status,
			const struct frame *f)
{
	uint8_t *data = memory_of(rd, leg);

	if (status != 0)
		return status;
	if (f->payload_size != rd->block_count * BLOCK_SIZE)
		return -E_BAD_FRAME;
	if (f->payload != data)
		memcpy(data, f->payload, f->payload_size);
	return crc32c_blocks_match(data, rd->block_count, f->crcs) ? 0 : -E_BAD_CRC;
}

static bool is_bad_data(int status)
{
	return status == -EIO || status == -E_BAD_CRC || status == -ENOMEM || status == -E_CORRUPT;
}

static void answer_is_bad(struct vread *rd, const struct vread_leg *leg, int status)
{
	struct vreplica *r = leg->request.replica;
	struct volume *v = rd->chunk->volume;

	v->stats.read_retries++;
	if (status == -E_FENCED) {
		volume_end(v, status, err_text(status));
	} else if (is_bad_data(status)) {
		log_warn("volume", "%s: node %s, chunk %u blocks %u+%u: %s", v->config.name,
			 v->nodes[r->node].name, rd->chunk->no, rd->block, rd->block_count,
			 err_text(status));
		rd->bad |= vmask_bit(leg->slot);
	} else {
		vreplica_disconnect(r, status);
	}
	if (rd->fixed)
		rd->bad |= vmask_bit(leg->slot);
	else
		leg_failed(rd, leg);
}

static void read_answered(struct vrequest *q, int status, const struct frame *f)
{
	struct vread *rd = q->owner;
	struct vread_leg *leg = leg_of(q);

	leg->receiving_ns = 0;
	vreplica_note_latency(q->replica, volume_now(rd->chunk->volume) - q->sent_ns);
	if (rd->state == VREAD_ORPHAN || leg->ignored)
		return;
	status = check_answer(rd, leg, status, f);
	if (status == 0)
		take_answer(rd, leg);
	else
		answer_is_bad(rd, leg, status);
}

/* Nothing of the leg is on the wire. */
static void went_home(struct vread *rd)
{
	if (rd->state == VREAD_ORPHAN) {
		if (is_idle(rd))
			give_back(rd);
	} else if (rd->fixed) {
		finish(rd, rd->bad == 0 ? 0 : -EIO);
	} else if (rd->state == VREAD_WAITING) {
		vchunk_kick(rd->chunk); /* it may have been held back for this */
	}
}

static void read_released(struct vrequest *q)
{
	leg_ends(leg_of(q));
	went_home(q->owner);
}

static void read_lost(struct vrequest *q)
{
	struct vread *rd = q->owner;
	struct vread_leg *leg = leg_of(q);

	leg->receiving_ns = 0;
	leg_ends(leg);
	if (rd->state == VREAD_ORPHAN || leg->ignored) {
		went_home(rd);
		return;
	}
	if (rd->fixed) {
		finish(rd, -E_DISCONNECTED);
		return;
	}
	rd->chunk->volume->stats.read_retries++;
	leg_failed(rd, leg);
}

static const struct vrequest_ops read_ops = {
    .fill = read_fill,
    .rx_buffer = read_rx_buffer,
    .answered = read_answered,
    .lost = read_lost,
    .released = read_released,
};

/* -- starting ---------------------------------------------------------------------------------- */

static struct vread *start(struct vchunk *c, block_no_t block, uint32_t block_count,
			   struct volume_buffer *buffer, bool own,
			   void (*done)(struct vread *rd, int status), void *owner)
{
	struct vread *rd = pool_get(&c->volume->reads, own);

	if (rd == NULL)
		return NULL;
	*rd = (struct vread){
	    .legs = {{.request = {.ops = &read_ops, .owner = rd}},
		     {.request = {.ops = &read_ops, .owner = rd}}},
	    .chunk = c,
	    .block = block,
	    .block_count = block_count,
	    .whole_block = block,
	    .whole_count = block_count,
	    .buffer = buffer,
	    .data = buffer->data,
	    .done = done,
	    .owner = owner,
	};
	c->reads_begun++;
	vbuffers_ref(buffer);
	return rd;
}

struct vread *vread_start(struct vchunk *c, block_no_t block, uint32_t block_count,
			  struct volume_buffer *buffer, uint32_t buffer_block, bool own,
			  void (*done)(struct vread *rd, int status), void *owner)
{
	struct vread *rd = start(c, block, block_count, buffer, own, done, owner);

	if (rd == NULL)
		return NULL;
	rd->data += (size_t)buffer_block * BLOCK_SIZE;
	rd->state = VREAD_WAITING;
	vread_list_append(&c->reads, rd);
	vchunk_kick(c);
	return rd;
}

struct vread *vread_start_fixed(struct vchunk *c, uint32_t slot, block_no_t block,
				uint32_t block_count, struct volume_buffer *buffer,
				void (*done)(struct vread *rd, int status), void *owner)
{
	struct vread *rd;

	if (!vslot_ready(&c->slots[slot]))
		return NULL;
	rd = start(c, block, block_count, buffer, true, done, owner);
	if (rd == NULL)
		return NULL;
	rd->fixed = true;
	send(rd, &rd->legs[0], slot, false);
	return rd;
}

void vread_cancel(struct vread *rd)
{
	if (!rd->fixed && rd->state == VREAD_SENT)
		vhedge_over(rd, false);
	else if (!rd->fixed)
		vread_list_remove(&rd->chunk->reads, rd);
	rd->state = VREAD_ORPHAN;
	for (size_t i = 0; i < ARRAY_SIZE(rd->legs); i++)
		take_back(&rd->legs[i]);
	if (is_idle(rd))
		give_back(rd);
}
