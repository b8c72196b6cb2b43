/* hedge: see hedge.h.
 *
 * INVARIANTS
 *  1. Every read that is SENT and not fixed is in exactly one of the two lists.
 *  2. `sent` is (nearly: the delay changes) in the order in which its reads are to be looked at, so
 * one timer, at its head, is enough. It is not moved when the head goes: it then fires early, and
 * is set anew. None is set while no more reads may be doubled; the tick sets it again.
 *
 * Failure modes: no other replica may answer, or no memory for a second answer: the read waits for
 * its replica, as long as the operation may. */
#include "engine/volume/hedge.h"

#include "engine/base/assert.h"
#include "engine/volume/core.h"

static bool is_allowed(const struct vhedge *h)
{
	return h->doubled_count < VHEDGE_MAX && h->credit >= VHEDGE_ONE_IN;
}

static void arm(struct volume *v)
{
	struct vhedge *h = &v->hedge;

	if (h->armed || h->sent.head == NULL || !is_allowed(h))
		return;
	h->armed = true;
	reactor_timer_arm(v->reactor, &h->timer, h->sent.head->hedge_ns);
}

static void double_it(struct volume *v, struct vread *rd)
{
	struct vhedge *h = &v->hedge;

	vread_list_remove(&h->sent, rd);
	vread_list_append(&h->doubled, rd);
	rd->doubled = true;
	h->doubled_count++;
	h->credit -= VHEDGE_ONE_IN;
	v->stats.hedges++;
}

static void timer_fire(struct reactor_timer *timer)
{
	struct volume *v = container_of(timer, struct volume, hedge.timer);
	struct vhedge *h = &v->hedge;
	const uint64_t now_ns = volume_now(v);
	struct vread *rd;

	h->armed = false;
	while ((rd = h->sent.head) != NULL && now_ns >= rd->hedge_ns && is_allowed(h)) {
		if (vread_second_leg(rd)) {
			double_it(v, rd);
			continue;
		}
		/* Not now. The others get their turn first. */
		rd->hedge_ns = now_ns + MAX(h->delay_ns, VHEDGE_AGAIN_NS);
		vread_list_remove(&h->sent, rd);
		vread_list_append(&h->sent, rd);
	}
	arm(v);
}

void vhedge_init(struct volume *v)
{
	v->hedge.timer.fire = timer_fire;
	v->hedge.delay_ns = VHEDGE_DELAY_NS;
	v->hedge.credit = VHEDGE_MAX * VHEDGE_ONE_IN;
}

void vhedge_stop(struct volume *v)
{
	reactor_timer_cancel(v->reactor, &v->hedge.timer);
	v->hedge.armed = true; /* for good */
}

void vhedge_sent(struct vread *rd)
{
	struct volume *v = rd->chunk->volume;
	struct vhedge *h = &v->hedge;

	rd->begun_ns = volume_now(v);
	rd->hedge_ns = rd->begun_ns + h->delay_ns;
	rd->doubled = false;
	vread_list_append(&h->sent, rd);
	h->credit = MIN(h->credit + 1, VHEDGE_MAX * VHEDGE_ONE_IN);
	arm(v);
}

void vhedge_over(struct vread *rd, bool answered)
{
	struct volume *v = rd->chunk->volume;
	struct vhedge *h = &v->hedge;

	vread_list_remove(rd->doubled ? &h->doubled : &h->sent, rd);
	h->doubled_count -= rd->doubled;
	rd->doubled = false;
	if (answered)
		vpace_note(&h->pace, volume_now(v) - rd->begun_ns);
}

void vhedge_tick(struct volume *v)
{
	struct vhedge *h = &v->hedge;
	const uint64_t p99_ns = vpace_p99_ns(&h->pace);
	struct vread *rd;

	if (p99_ns != 0)
		h->delay_ns = MIN(MAX(p99_ns, VHEDGE_DELAY_MIN_NS), VHEDGE_DELAY_MAX_NS);
	for (rd = h->doubled.head; rd != NULL; rd = rd->next)
		vread_check_stuck(rd, volume_now(v));
	arm(v);
}
