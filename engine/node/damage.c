/* node damage: tells hosts which blocks of their volumes do not check here, so that they write them
 * again from another replica. See shard.h.
 *
 *   QUIET --the store has found something--> ARMED (a little later: more may come) --> told
 *     ^                                                                                 |
 *     +-- nothing is damaged any more -- asked again after TELL_AGAIN_NS <--------------+
 *
 * What belongs to volumes that nobody has open is told to the next host that opens them.
 *
 * Failure modes: a notice that is lost, or that the host had no time for, is followed by another.
 */
#include <stdlib.h>
#include <string.h>
#include <utlist.h>

#include "engine/base/assert.h"
#include "engine/base/log.h"
#include "engine/node/shard.h"

#define TELL_SOON_NS  (50 * NS_PER_MS)
#define TELL_AGAIN_NS (3 * NS_PER_S)

static int by_place(const void *a, const void *b)
{
	const struct store_damage *da = a, *db = b;

	if (da->volume != db->volume)
		return da->volume > db->volume ? 1 : -1;
	if (da->chunk != db->chunk)
		return da->chunk > db->chunk ? 1 : -1;
	return (da->block > db->block) - (da->block < db->block);
}

/* The runs of damage in a layer. */
static uint32_t ranges_of(volume_id_t volume, bool top, const struct store_damage *damage,
			  uint32_t count, Pave__V1__DamagedRange *ret_ranges)
{
	Pave__V1__DamagedRange *last = NULL;
	uint32_t n = 0;

	for (uint32_t i = 0; i < count; i++) {
		if (damage[i].volume != volume)
			continue;
		if (last != NULL && last->chunk == damage[i].chunk &&
		    last->block + last->block_count == damage[i].block &&
		    last->block_count < IO_BLOCKS_MAX) {
			last->block_count++;
			continue;
		}
		last = &ret_ranges[n++];
		pave__v1__damaged_range__init(last);
		last->chunk = damage[i].chunk;
		last->block = damage[i].block;
		last->block_count = 1;
		last->layer = top ? 0 : volume;
	}
	return n;
}

static void tell(struct node_session *s, const struct store_damage *damage, uint32_t count)
{
	Pave__V1__DamagedRange ranges[STORE_DAMAGE_MAX];
	Pave__V1__DamagedRange *list[STORE_DAMAGE_MAX];
	Pave__V1__Control message = PAVE__V1__CONTROL__INIT;
	Pave__V1__Damage notice = PAVE__V1__DAMAGE__INIT;
	uint32_t n = 0;

	/* What is damaged lies in one layer, so there are no more ranges than that. */
	for (uint32_t i = 0; i < s->permit.layer_count; i++)
		n += ranges_of(s->permit.layers[i].id, i == 0, damage, count, &ranges[n]);
	if (n == 0)
		return;
	for (uint32_t i = 0; i < n; i++)
		list[i] = &ranges[i];
	notice.ranges = list;
	notice.n_ranges = n;
	message.body_case = PAVE__V1__CONTROL__BODY_DAMAGE;
	message.damage = &notice;
	rpc_notify(&s->rpc, &message);
}

static void timer_fire(struct reactor_timer *timer)
{
	struct node_shard *shard = container_of(timer, struct node_shard, damage_timer);
	struct store_damage damage[STORE_DAMAGE_MAX];
	uint32_t count = pool_damage(shard->config.pool, damage, STORE_DAMAGE_MAX);
	struct node_session *s;

	if (count == 0)
		return;
	qsort(damage, count, sizeof damage[0], by_place);
	DL_FOREACH (shard->sessions, s)
		if (s->state == SESSION_OPEN && !s->peer_is_node && !s->read_only &&
		    s->conn != NULL && !s->closing && node_session_check(s) == 0)
			tell(s, damage, count);
	reactor_timer_arm(shard_reactor(shard), timer,
			  reactor_now_ns(shard_reactor(shard)) + TELL_AGAIN_NS);
}

static void found(struct reactor_task *task)
{
	struct node_shard *shard = container_of(task, struct node_shard, damage_task);

	if (!shard->stopping)
		reactor_timer_arm(shard_reactor(shard), &shard->damage_timer,
				  reactor_now_ns(shard_reactor(shard)) + TELL_SOON_NS);
}

void node_damage_start(struct node_shard *shard)
{
	shard->damage_task.run = found;
	shard->damage_timer.fire = timer_fire;
	pool_watch_damage(shard->config.pool, &shard->damage_task);
}

void node_damage_stop(struct node_shard *shard)
{
	if (shard->damage_timer.fire == NULL)
		return; /* it was never started */
	pool_watch_damage(shard->config.pool, NULL);
	reactor_timer_cancel(shard_reactor(shard), &shard->damage_timer);
}
