/* retire: the permit calls the layer below the top one sealed (layers.h).
 *
 * From that turn on nothing of it is begun, and reads rest on what is known of the sealed layer.
 * What is under way ends in that turn; it is found in lists, so that its chunks need not be gone
 * through. What each chunk knew of its copies is taken over when somebody asks (vlayers_states),
 * and by the sweep, which goes through the chunks piece by piece, and frees the set when all are
 * quiet. */
#include <errno.h>
#include <sys/mman.h>
#include <unistd.h>
#include <utlist.h>

#include "engine/base/assert.h"
#include "engine/volume/layers_parts.h"

/* A node that has come back meanwhile has said for the sealed layer what it holds, which asked for
 * the states first: so what its slot knew here does not count any more. */
void vretire_take(struct vchunk *c, uint8_t *states)
{
	PRE(c->set->retired && !c->taken);
	c->taken = true;
	if (c->sealed != 0)
		vlayers_touch_states(c->volume, states);
	for (uint32_t i = 0; i < c->volume->slot_count; i++) {
		const struct vslot *s = &c->slots[i];

		if ((c->members & vmask_bit(i)) == 0)
			continue;
		/* Its device has failed, or is away: of what lies there nothing is known. */
		if (s->refused_epoch != 0 && s->refused_epoch == s->replica->epoch)
			states[i] = VSEALED_DOUBT;
		else if ((c->sealed & vmask_bit(i)) != 0)
			states[i] = VSEALED_WHOLE;
		else if (c->sealed != 0)
			states[i] = VSEALED_PART;
		else if (vreplica_ready(s->replica))
			states[i] = s->reported_newest == 0 ? VSEALED_EMPTY : VSEALED_PART;
	}
}

static void leave_reads(struct vchunk *c)
{
	struct vread *rd, *next;

	for (rd = c->reads.head; rd != NULL; rd = next) {
		next = rd->next;
		vread_leave(rd);
	}
}

/* Every chunk with reads or writes that wait is kicked, or troubled. */
static void end_what_runs(struct volume *v, const struct vset *set)
{
	struct vchunk *c, *next;

	vresync_retire(v, set);
	vreconcile_retire(v, set);
	DL_FOREACH_SAFE2(v->busy, c, next, busy_next)
	while (c->set == set && c->window.tail != NULL)
		vwrite_abandon(vwrite_of_entry(c->window.tail));
	for (c = v->kicked; c != NULL; c = c->kick_next)
		if (c->set == set)
			leave_reads(c);
	DL_FOREACH_SAFE2(v->troubled, c, next, troubled_next)
	{
		if (c->set != set)
			continue;
		leave_reads(c);
		vchunk_forget(c);
	}
}

bool vretire(struct volume *v)
{
	struct vset *set = vlayers_below(v);

	if (vlayers_add_sealed(v, set->layer, true) != 0) {
		volume_end(v, -ENOMEM, "no memory for another layer");
		return false;
	}
	v->sealed[0].set = set;
	set->retired = true;
	v->sets->below = NULL;
	/* Reads in flight above are done again: what they saw below is not looked after any more.
	 */
	v->layers.retired++;
	v->layers.settled = 0;
	end_what_runs(v, set);
	vlayers_learnt_all(v);
	vresync_kick(v);
	return true;
}

static bool is_quiet(const struct vchunk *c)
{
	if (c->reads_begun > 0 || c->writes_begun > 0 || c->marks_begun > 0 || c->kicked ||
	    c->reconcile != NULL || c->locks != NULL || c->writes != NULL)
		return false;
	for (uint32_t i = 0; i < c->volume->slot_count; i++)
		if (c->slots[i].resync != NULL || c->slots[i].resync_queued)
			return false;
	return true;
}

static uint32_t sealed_of(const struct volume *v, const struct vset *set)
{
	uint32_t i = 0;

	while (i < v->sealed_count && v->sealed[i].set != set)
		i++;
	return i;
}

/* Of an array, all before to is not needed any more, and all before from has gone: whole pages go
 * back. To free 200 MiB takes tens of milliseconds, if all are there. */
static void give_back(uint8_t *array, size_t from, size_t to)
{
	const uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
	const uintptr_t first = ROUND_UP((uintptr_t)array, page);
	const uintptr_t begin = MAX(first, ((uintptr_t)array + from) / page * page);
	const uintptr_t end = ((uintptr_t)array + to) / page * page;

	if (end > begin)
		madvise(array + (begin - (uintptr_t)array), end - begin, MADV_DONTNEED);
}

static void give_back_chunks(const struct volume *v, struct vset *set, uint32_t from)
{
	const size_t slots_size = v->slot_count * sizeof(*set->slots);

	give_back((uint8_t *)set->chunks, from * sizeof(*set->chunks),
		  set->swept * sizeof(*set->chunks));
	give_back((uint8_t *)set->slots, from * slots_size, set->swept * slots_size);
}

/* True: to its end. */
static bool sweep(struct volume *v, struct vset *set, uint32_t *left)
{
	const uint32_t sealed = sealed_of(v, set); /* none: it was merged already */
	const uint32_t from = set->swept;

	for (; *left > 0 && set->swept < v->chunk_count; (*left)--) {
		vchunk_forget(&set->chunks[set->swept]);
		/* Nothing begins in it any more: once quiet is quiet. The tick looks again. */
		if (!is_quiet(&set->chunks[set->swept]))
			return false;
		if (sealed < v->sealed_count)
			vlayers_states(v, sealed, set->swept);
		set->swept++;
	}
	if (set->swept < v->chunk_count) {
		give_back_chunks(v, set, from);
		vlayers_later(v);
		return false;
	}
	if (sealed < v->sealed_count)
		v->sealed[sealed].set = NULL;
	return true;
}

/* The oldest first, and none before it: what is still under way in a set leaves it for the ones
 * above. */
void vretire_sweep(struct volume *v)
{
	uint32_t left = v->layers.piece;

	while (v->sets != NULL && v->extents == NULL) {
		struct vset *set = v->sets;

		while (set->next != NULL)
			set = set->next;
		if (!set->retired || !sweep(v, set, &left))
			return;
		LL_DELETE(v->sets, set);
		volume_free_set(set);
	}
}
