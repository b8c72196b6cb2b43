/* The driver and its admins: snapshots, clones, rollback, resize. See driver.h and layers.h.
 *
 * A snapshot of an attached volume:
 *
 *   VolumeSnapshot -> the top layer T gets a child N, which is the volume's top from now on, and a
 *                     volume NAME@SNAPSHOT above T; durable
 *                  -> a permit with [N, T] to the holder, whose next write goes to N
 *                  -> the holder settles what is in flight to T, and says "sealed" when it renews
 *                  -> durable; a permit in which T is sealed; the admin is answered
 *
 * If the holder goes away in between, the next attachment of the volume finds [N, T], settles both,
 * and goes on from there. Nobody reads the snapshot before T is sealed.
 *
 * While the volume's top is sealed without a snapshot (layers.h) another snapshot waits for that.
 *
 * Failure modes: whoever waits longer than SETTLE_WAIT_MS is answered with `settling`: the snapshot
 * is there, and can be read later; or is refused, if it was not taken yet. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <utlist.h>

#include "engine/base/assert.h"
#include "engine/base/log.h"
#include "engine/base/text.h"
#include "engine/placement/driver.h"
#include "engine/placement/family.h"

#define SETTLE_WAIT_MS 30000u

static struct reg_volume *find(struct pd_request *q, const char *name, struct error *err)
{
	struct reg_volume *v = reg_volume_find(&q->pd->reg, name);

	if (v == NULL)
		error_set(err, -ENOENT, "there is no volume \"%.64s\": pave volume list", name);
	return v;
}

/* NAME@SNAPSHOT. */
static struct reg_volume *find_snapshot(struct pd_request *q, const char *name, struct error *err)
{
	struct reg_volume *s = find(q, name, err);

	if (s == NULL || reg_volume_is_snapshot(s))
		return s;
	error_set(err, -EINVAL, "volume %s is no snapshot: say NAME@SNAPSHOT", s->name);
	return NULL;
}

/* An attachment that has lapsed must not come back with the map and the layers that it knows. */
static void end_lapsed(struct pd *pd, struct reg_volume *v)
{
	if (!v->attachment.live)
		return;
	pd_ledger_released(&pd->ledger, v, v->attachment.generation);
	v->attachment.live = false;
	v->holder = NULL;
	v->report_count = 0;
}

static int check_room(const struct pd *pd, const char *name, struct error *err)
{
	if (pd->reg.volume_count + 1 >= PD_VOLUMES_MAX)
		return error_set(err, -E_LIMIT, "volume %s: there are %u volumes already, the most",
				 name, pd->reg.volume_count);
	if (pd->reg.next_volume + 2 > UINT32_MAX)
		return error_set(err, -E_LIMIT, "volume %s: the numbers of layers are used up",
				 name);
	return 0;
}

static void note_volume(struct pd *pd, const struct reg_volume *v)
{
	const struct policy_document *policy = verdicts_policy(&pd->verdicts, v->policy);

	pd_ledger_volume(&pd->ledger, v, policy != NULL ? policy_version(policy) : 0);
}

/* The ledger tells of it: there is a volume, or it lies in other places now. */
static void note(struct pd *pd, const struct reg_volume *v)
{
	note_volume(pd, v);
	pd_ledger_map(&pd->ledger, v);
}

/* -- members of a family ---------------------------------------------------------------------- */

/* A volume of its own above the layer `parent`, in the places of `of`. NULL: no memory, and nothing
 * has changed. */
static struct reg_volume *add_member(struct pd *pd, struct reg_volume *of, const char *name,
				     volume_id_t parent)
{
	const size_t map_size = (size_t)of->chunk_count * of->replicas;
	struct reg_node **nodes = calloc(of->node_count + 1, sizeof *nodes);
	uint8_t *map = malloc(map_size + 1);
	struct reg_volume *v = NULL;
	struct reg_layer *l = NULL;
	const volume_id_t id = pd->reg.next_volume;

	if (nodes == NULL || map == NULL)
		goto out;
	l = layers_add(&pd->reg, id, parent, id);
	if (l == NULL)
		goto out;
	memcpy(nodes, of->nodes, of->node_count * sizeof *nodes);
	memcpy(map, of->map, map_size);
	v = reg_volume_add(&pd->reg, name, of->chunk_count, of->replicas, of->chunk_size, nodes,
			   of->node_count, map);
	if (v == NULL) {
		layers_drop(&pd->reg, id, (volume_id_t[LAYERS_MAX]){0});
		goto out;
	}
	INVARIANT(v->id == id);
	reg_volume_trim_nodes(v); /* without the targets of moves that are the other's */
	reg_volume_join(v, of);
	v->size = of->size;
	v->min_acks = of->min_acks;
	/* Its writes are newer than any that it sees below. */
	v->generation = of->generation;
	v->created_at = reg_now(&pd->reg, NULL);
	v->map_version = of->map_version;
	snprintf(v->policy, sizeof v->policy, "%s", of->policy);
	snprintf(v->origin, sizeof v->origin, "%s", of->name);
	layers_save(&pd->reg, l);
	reg_save_volume(&pd->reg, v);
	reg_save_map(&pd->reg, v);
	note(pd, v);
	return v;
out:
	free(nodes);
	free(map);
	return NULL;
}

struct reg_volume *admin_first_snapshot(struct pd *pd, const struct reg_volume *v)
{
	const size_t length = strlen(v->name);
	struct reg_volume *s;

	for (s = pd->reg.volumes; s != NULL; s = s->hh.next)
		if (!s->deleted && strncmp(s->name, v->name, length) == 0 && s->name[length] == '@')
			return s;
	return NULL;
}

/* -- dropping layers -------------------------------------------------------------------------- */

int admin_check_leftovers(const struct reg_volume *v, struct error *err)
{
	if (reg_volume_fits_tombstone(v))
		return 0;
	return error_set(
	    err, -E_IN_USE,
	    "volume %s: it lies on %u nodes, and copies that have moved away wait to "
	    "be erased on others, which are together more than %u: again when they are "
	    "(pave rebalance status)",
	    v->name, v->node_count, REG_MAP_NODES_MAX);
}

/* A tombstone for a layer that no tombstone of its volume stands for. */
struct reg_volume *admin_add_tombstone(struct pd *pd, const struct reg_volume *of)
{
	struct reg_node **nodes = calloc(of->node_count + of->drop_count + 1, sizeof *nodes);
	uint32_t node_count = of->node_count;
	struct reg_volume *t = NULL;
	char name[NAME_SIZE_MAX];

	if (nodes == NULL)
		return NULL;
	memcpy(nodes, of->nodes, of->node_count * sizeof *nodes);
	/* Where it was, and has not been erased yet. */
	for (uint32_t i = 0; i < of->drop_count; i++) {
		uint32_t k = 0;

		while (k < node_count && nodes[k] != of->drops[i].node)
			k++;
		if (k == node_count && node_count < REG_MAP_NODES_MAX)
			nodes[node_count++] = of->drops[i].node;
	}
	/* A name that nobody can give. */
	snprintf(name, sizeof name, "@%llu", (unsigned long long)pd->reg.next_volume);
	t = reg_volume_add(&pd->reg, name, 0, of->replicas, of->chunk_size, nodes, node_count,
			   NULL);
	if (t == NULL) {
		free(nodes);
		return NULL;
	}
	t->size = of->size;
	snprintf(t->policy, sizeof t->policy, "%s", of->policy);
	reg_volume_bury(&pd->reg, t);
	return t;
}

/* How many layers would go with the top of v. */
static uint32_t count_dropped(struct pd *pd, const struct reg_volume *v)
{
	volume_id_t ids[LAYERS_MAX];
	const uint32_t count = layers_of(&pd->reg, v, ids, LAYERS_MAX);
	uint32_t n = 1;

	while (n < count && layers_children(&pd->reg, ids[n]) == 1)
		n++;
	return n;
}

/* Tombstones for `count` layers of v. -ENOMEM: none is left. */
static int add_tombstones(struct pd *pd, const struct reg_volume *v, struct reg_volume **ret,
			  uint32_t count)
{
	for (uint32_t i = 0; i < count; i++) {
		ret[i] = admin_add_tombstone(pd, v);
		if (ret[i] != NULL)
			continue;
		while (i > 0)
			reg_volume_forget(&pd->reg, ret[--i]);
		return -ENOMEM;
	}
	return 0;
}

int admin_drop_layers(struct pd *pd, struct reg_volume *v)
{
	const volume_id_t top = layers_top(v);
	struct reg_volume *graves[LAYERS_MAX];
	volume_id_t ids[LAYERS_MAX];
	uint32_t count = count_dropped(pd, v);

	if (add_tombstones(pd, v, graves, count - 1) != 0)
		return -ENOMEM;
	if (family_leave(&pd->reg, v, count) != 0) {
		while (--count > 0)
			reg_volume_forget(&pd->reg, graves[count - 1]);
		return -ENOMEM;
	}
	pd->merge_after_ns = 0;
	reg_volume_bury(&pd->reg, v);
	v->erase_layer = top;
	reg_save_volume(&pd->reg, v);
	count = layers_drop(&pd->reg, top, ids);
	for (uint32_t i = 1; i < count; i++) {
		graves[i - 1]->erase_layer = ids[i];
		reg_save_volume(&pd->reg, graves[i - 1]);
	}
	reg_save_meta(&pd->reg);
	return 0;
}

/* -- snapshot --------------------------------------------------------------------------------- */

static void settling_arm(struct pd *pd)
{
	if (pd->settling != NULL)
		reactor_timer_arm(pd->reactor, &pd->settling_timer,
				  reactor_now_ns(pd->reactor) + NS_PER_S);
}

void admin_settling_timer(struct reactor_timer *t)
{
	admin_settling_check(container_of(t, struct pd, settling_timer));
}

static void answer(struct pd_request *q)
{
	struct reg_volume *v = reg_volume_by_id(&q->pd->reg, q->volume);
	struct error err;

	if (v != NULL && !v->deleted) {
		admin_send_volume(q, v, false);
		return;
	}
	error_set(&err, -ENOENT, "the volume was deleted meanwhile");
	request_fail(q, &err);
}

static void take_waiting(struct pd_request *q);

void admin_settling_check(struct pd *pd)
{
	const uint64_t now_ns = reactor_now_ns(pd->reactor);
	struct pd_request *q, *next;

	DL_FOREACH_SAFE (pd->settling, q, next) {
		const struct reg_volume *v = reg_volume_by_id(&pd->reg, q->volume);

		if (v != NULL && !v->deleted && layers_open_below(&pd->reg, v) != NULL &&
		    now_ns < (uint64_t)q->bound)
			continue;
		DL_DELETE(pd->settling, q);
		DL_APPEND(pd->requests, q);
		request_commit(q, q->snapshot[0] != '\0' ? take_waiting : answer);
	}
	settling_arm(pd);
}

void admin_layer_sealed(struct pd *pd, struct reg_volume *v, volume_id_t layer)
{
	struct reg_layer *l = layers_open_below(&pd->reg, v);

	if (l == NULL || l->id != layer || l->owner != v->id)
		return; /* said before */
	pd->merge_after_ns = 0;
	l->sealed = true;
	layers_save(&pd->reg, l);
	log_info("pd", "volume %s: layer %llu is sealed", v->name, (unsigned long long)layer);
}

static void settle_wait(struct pd_request *q)
{
	struct pd *pd = q->pd;

	q->bound = (int64_t)(reactor_now_ns(pd->reactor) + SETTLE_WAIT_MS * NS_PER_MS);
	DL_DELETE(pd->requests, q);
	DL_APPEND(pd->settling, q);
	settling_arm(pd);
}

/* It is durable: the holder's next write goes to the new layer. */
static void snapshot_committed(struct pd_request *q)
{
	struct pd *pd = q->pd;
	const struct reg_volume *s = reg_volume_by_id(&pd->reg, q->volume);
	const struct reg_layer *open = s != NULL ? layers_open_below(&pd->reg, s) : NULL;
	struct reg_volume *v = open != NULL ? reg_volume_by_id(&pd->reg, open->owner) : NULL;

	if (v == NULL || v->holder == NULL || !v->attachment.live) {
		answer(q);
		return;
	}
	host_push_permit(pd, v);
	settle_wait(q);
}

static int refuse_unsettled(const struct reg_volume *v, struct error *err)
{
	return error_set(err, -E_IN_USE, "volume %s: its last snapshot is not settled yet%s",
			 v->name,
			 v->attachment.live ? ": again in a moment"
					    : ": again in a moment, or attach the volume once");
}

static int check_snapshot(struct pd_request *q, struct reg_volume *v, const char *snapshot,
			  char ret_name[NAME_SIZE_MAX], struct error *err)
{
	struct pd *pd = q->pd;
	volume_id_t ids[LAYERS_MAX];
	char name[NAME_SIZE_MAX + 66] = "";

	if (v == NULL)
		return err->code;
	if (reg_volume_is_snapshot(v))
		return error_set(err, -EINVAL,
				 "%s is a snapshot: it stays as it is, and needs none of its own",
				 v->name);
	if (!text_is_name(snapshot) || strlen(v->name) + 1 + strlen(snapshot) >= NAME_SIZE_MAX)
		return error_set(
		    err, -EINVAL,
		    "\"%.64s\" is no name for a snapshot of %s: [a-z0-9._-], beginning "
		    "with a letter or digit, both names together up to %u long",
		    snapshot, v->name, NAME_SIZE_MAX - 2);
	snprintf(name, sizeof name, "%s@%.64s", v->name, snapshot);
	memcpy(ret_name, name, NAME_SIZE_MAX);
	if (reg_volume_find(&pd->reg, ret_name) != NULL)
		return error_set(err, -EEXIST, "snapshot %s is there already", ret_name);
	if (layers_open_below(&pd->reg, v) != NULL)
		return refuse_unsettled(v, err);
	if (layers_of(&pd->reg, v, ids, LAYERS_MAX) > LAYERS_SNAPSHOTS_MAX)
		return error_set(err, -E_LIMIT, "volume %s: it stands on %u snapshots, the most",
				 v->name, LAYERS_SNAPSHOTS_MAX);
	return check_room(pd, v->name, err);
}

/* What moves begins anew when the chunks have their new layer. False: no memory. */
static bool cancel_moves(struct reg *reg, struct reg_volume *v)
{
	while (v->move_count > 0)
		if (reg_move_cancel(reg, v, &v->moves[v->move_count - 1]) != 0)
			return false;
	return true;
}

/* T gets N and the snapshot's volume above it. NULL: no memory. */
static struct reg_volume *take_snapshot(struct pd *pd, struct reg_volume *v, const char *name)
{
	struct reg *reg = &pd->reg;
	struct reg_layer *t = layers_find(reg, layers_top(v));
	struct reg_layer *n;
	struct reg_volume *s;

	if (!cancel_moves(reg, v))
		return NULL;
	if (t == NULL)
		t = layers_add(reg, v->id, 0, v->id);
	if (t == NULL)
		return NULL;
	n = layers_add(reg, layers_new_id(reg), t->id, v->id);
	if (n == NULL)
		return NULL;
	s = add_member(pd, v, name, t->id);
	if (s == NULL) {
		layers_drop(reg, n->id, (volume_id_t[LAYERS_MAX]){0});
		return NULL;
	}
	/* What was never attached was never written. */
	t->sealed = v->attachment.generation == 0;
	layers_set_top(v, n->id);
	layers_save(reg, t);
	layers_save(reg, n);
	reg_save_volume(reg, v);
	reg_save_meta(reg);
	return s;
}

/* v is NULL: *err says why. */
static void take(struct pd_request *q, struct reg_volume *v, const char *snapshot,
		 struct error *err)
{
	struct reg_volume *s = NULL;
	char name[NAME_SIZE_MAX];

	if (check_snapshot(q, v, snapshot, name, err) == 0) {
		s = take_snapshot(q->pd, v, name);
		if (s == NULL)
			error_set(err, -ENOMEM, "no memory for snapshot %s", name);
	}
	if (s == NULL) {
		request_fail(q, err);
		return;
	}
	log_info("pd", "snapshot %s: volume %s writes to layer %llu from now on", s->name, v->name,
		 (unsigned long long)v->top);
	q->volume = s->id;
	request_commit(q, snapshot_committed);
}

static void take_waiting(struct pd_request *q)
{
	char snapshot[NAME_SIZE_MAX];
	struct error err = {0};
	struct reg_volume *v = reg_volume_by_id(&q->pd->reg, q->volume);

	if (v == NULL || v->deleted) {
		answer(q);
		return;
	}
	memcpy(snapshot, q->snapshot, sizeof snapshot);
	q->snapshot[0] = '\0';
	take(q, v, snapshot, &err);
}

void admin_volume_snapshot(struct pd_request *q, const Pave__V1__Control *m)
{
	const Pave__V1__VolumeSnapshot *a = m->volume_snapshot;
	struct error err = {0};
	struct reg_volume *v = find(q, a->name, &err);

	if (v != NULL && v->holder != NULL && merge_settles(q->pd, v) &&
	    text_is_name(a->snapshot) && strlen(a->snapshot) < sizeof q->snapshot) {
		memcpy(q->snapshot, a->snapshot, strlen(a->snapshot) + 1);
		q->volume = v->id;
		settle_wait(q);
	} else {
		take(q, v, a->snapshot, &err);
	}
}

/* -- clone ------------------------------------------------------------------------------------ */

void admin_volume_clone(struct pd_request *q, const Pave__V1__Control *m)
{
	const Pave__V1__VolumeClone *a = m->volume_clone;
	struct pd *pd = q->pd;
	struct error err = {0};
	struct reg_volume *s = find_snapshot(q, a->source, &err);
	struct reg_volume *v = NULL;

	if (s == NULL)
		goto out;
	if (!text_is_name(a->name))
		error_set(&err, -EINVAL,
			  "\"%.80s\" is no name for a volume: up to %u of [a-z0-9._-], beginning "
			  "with a letter or digit",
			  a->name, NAME_SIZE_MAX - 1);
	else if (reg_volume_find(&pd->reg, a->name) != NULL)
		error_set(&err, -EEXIST, "volume %s is there already", a->name);
	else if (check_room(pd, a->name, &err) == 0) {
		v = add_member(pd, s, a->name, layers_find(&pd->reg, layers_top(s))->parent);
		if (v == NULL)
			error_set(&err, -ENOMEM, "no memory for volume %s", a->name);
	}
out:
	if (v == NULL) {
		request_fail(q, &err);
		return;
	}
	log_info("pd", "volume %s (#%llu) is a clone of %s", v->name, (unsigned long long)v->id,
		 s->name);
	reg_save_meta(&pd->reg);
	q->volume = v->id;
	pd_arm_evidence_timer(pd);
	request_commit(q, answer);
}

/* -- rollback --------------------------------------------------------------------------------- */

static void rolled_back(struct pd_request *q)
{
	struct pd *pd = q->pd;

	answer(q);
	node_erase_all(pd);
}

static int check_rollback(struct pd *pd, const struct reg_volume *s, struct reg_volume *v,
			  struct error *err)
{
	int rc = admin_check_not_held(pd, v, err);

	if (rc != 0)
		return rc;
	/* What no snapshot waits for goes with the rest. */
	if (layers_open_below(&pd->reg, v) != NULL && !merge_settles(pd, v))
		return refuse_unsettled(v, err);
	if (admin_check_leftovers(v, err) != 0)
		return err->code;
	if (s->size != v->size)
		return error_set(err, -EINVAL,
				 "volume %s was resized since %s was taken: clone the snapshot "
				 "instead",
				 v->name, s->name);
	return check_room(pd, v->name, err);
}

/* v lies where the snapshot does. What it has elsewhere is seen to (family_leave, tombstones).
 * -ENOMEM: nothing has changed. */
static int take_places(struct pd *pd, const struct reg_volume *s, struct reg_volume *v)
{
	const size_t size = (size_t)s->chunk_count * s->replicas;
	struct reg_node **nodes = calloc(s->node_count + 1, sizeof *nodes);
	uint8_t *map = malloc(size + 1);

	if (nodes == NULL || map == NULL) {
		free(nodes);
		free(map);
		return -ENOMEM;
	}
	memcpy(nodes, s->nodes, s->node_count * sizeof *nodes);
	memcpy(map, s->map, size);
	v->drop_count = 0;
	reg_volume_set_map(v, nodes, s->node_count, map, s->chunk_count);
	reg_volume_trim_nodes(v);
	v->map_version = MAX(v->map_version, s->map_version) + 1;
	reg_save_map(&pd->reg, v);
	note(pd, v);
	return 0;
}

/* v begins anew above the snapshot's layer; what was above that is given up. -ENOMEM. */
static int roll_back(struct pd *pd, const struct reg_volume *s, struct reg_volume *v)
{
	struct reg *reg = &pd->reg;
	const volume_id_t parent = layers_find(reg, layers_top(s))->parent;
	const volume_id_t old = layers_top(v);
	struct reg_volume *graves[LAYERS_MAX];
	volume_id_t ids[LAYERS_MAX];
	uint32_t count = count_dropped(pd, v);
	struct reg_layer *n;

	if (!cancel_moves(reg, v) || add_tombstones(pd, v, graves, count) != 0)
		return -ENOMEM;
	n = layers_add(reg, layers_new_id(reg), parent, v->id);
	if (n == NULL || family_leave(reg, v, count) != 0 || take_places(pd, s, v) != 0) {
		if (n != NULL)
			layers_drop(reg, n->id, (volume_id_t[LAYERS_MAX]){0});
		while (count > 0)
			reg_volume_forget(reg, graves[--count]);
		return -ENOMEM;
	}
	end_lapsed(pd, v);
	layers_set_top(v, n->id);
	layers_save(reg, n);
	reg_save_volume(reg, v);
	/* The snapshot still stands on its layer, so no more than counted goes. */
	count = layers_drop(reg, old, ids);
	for (uint32_t i = 0; i < count; i++) {
		graves[i]->erase_layer = ids[i];
		reg_save_volume(reg, graves[i]);
	}
	reg_save_meta(reg);
	moves_replan(pd);
	return 0;
}

void admin_volume_rollback(struct pd_request *q, const Pave__V1__Control *m)
{
	struct pd *pd = q->pd;
	struct error err = {0};
	struct reg_volume *s = find_snapshot(q, m->volume_rollback->source, &err);
	struct reg_volume *v = s != NULL ? find(q, s->origin, &err) : NULL;
	int rc = v != NULL ? check_rollback(pd, s, v, &err) : err.code;

	if (rc == 0 && roll_back(pd, s, v) != 0)
		rc = error_set(&err, -ENOMEM, "no memory to roll volume %s back", v->name);
	if (rc != 0) {
		request_fail(q, &err);
		return;
	}
	log_info("pd", "volume %s is rolled back to %s", v->name, s->name);
	q->volume = v->id;
	request_commit(q, rolled_back);
}

/* -- resize ----------------------------------------------------------------------------------- */

/* What lies beyond the new end is lost, and must not be there again should the volume grow later:
 * so whole chunks go, which nodes erase, with every layer, and which nobody else has. */
static int check_shrink(struct pd *pd, const Pave__V1__VolumeResize *a, struct reg_volume *v,
			struct error *err)
{
	const struct reg_volume *other = family_sharer(&pd->reg, v);
	const uint64_t chunks = a->size / v->chunk_size;
	char now[32], size[32], low[32], high[32];

	text_size(v->size, now, sizeof now);
	text_size(a->size, size, sizeof size);
	if (!a->force)
		return error_set(err, -E_IN_USE,
				 "volume %s: it is %s now, and what lies beyond %s would be lost "
				 "for good; if that is meant, --force",
				 v->name, now, size);
	if (chunks == 0)
		return error_set(err, -EINVAL,
				 "volume %s: it cannot be smaller than one of its chunks, %s",
				 v->name, text_size(v->chunk_size, low, sizeof low));
	if (a->size % v->chunk_size != 0)
		return error_set(
		    err, -EINVAL,
		    "volume %s: it becomes smaller by whole chunks of %s: to %s, or %s", v->name,
		    text_size(v->chunk_size, size, sizeof size),
		    text_size(chunks * v->chunk_size, low, sizeof low),
		    text_size(MIN((chunks + 1) * v->chunk_size, v->size), high, sizeof high));
	if (other != NULL)
		return error_set(err, -E_IN_USE,
				 "volume %s: %s has a part of it in common, which would come back "
				 "should %s grow again: delete that first",
				 v->name, other->name, v->name);
	return admin_check_not_held(pd, v, err);
}

static int check_resize(struct pd *pd, const Pave__V1__VolumeResize *a, struct reg_volume *v,
			struct error *err)
{
	char size[32], max[32];

	if (reg_volume_is_snapshot(v))
		return error_set(err, -EROFS, "%s is a snapshot: it stays as it is", v->name);
	if (a->size == 0 || a->size % BLOCK_SIZE != 0)
		return error_set(err, -EINVAL,
				 "volume %s: a size of %llu bytes is no positive multiple of %u",
				 v->name, (unsigned long long)a->size, BLOCK_SIZE);
	if (a->size > REG_CHUNKS_MAX * v->chunk_size)
		return error_set(err, -EINVAL, "volume %s: %s is over %s, the most for its chunks",
				 v->name, text_size(a->size, size, sizeof size),
				 text_size(REG_CHUNKS_MAX * v->chunk_size, max, sizeof max));
	return a->size < v->size ? check_shrink(pd, a, v, err) : 0;
}

/* The map goes on with chunks of the new plan. -ENOMEM, -E_LIMIT. */
static int append_map(struct reg_volume *v, struct reg_node **nodes, uint32_t node_count,
		      const uint8_t *map, uint32_t chunk_count, struct error *err)
{
	const size_t old_size = (size_t)v->chunk_count * v->replicas;
	const size_t more = (size_t)chunk_count * v->replicas;
	struct reg_node **all = calloc(REG_MAP_NODES_MAX + 1, sizeof *all);
	uint8_t *whole = malloc(old_size + more + 1);
	uint32_t count = v->node_count;
	uint8_t place[REG_MAP_NODES_MAX];
	int rc = 0;

	if (all == NULL || whole == NULL)
		rc = error_set(err, -ENOMEM, "no memory for the map of %s", v->name);
	if (rc == 0)
		memcpy(all, v->nodes, v->node_count * sizeof *all);
	for (uint32_t i = 0; rc == 0 && i < node_count; i++) {
		uint32_t k = 0;

		while (k < count && all[k] != nodes[i])
			k++;
		if (k == REG_MAP_NODES_MAX) {
			rc = error_set(err, -E_LIMIT,
				       "volume %s: its chunks would lie on more than %u nodes",
				       v->name, REG_MAP_NODES_MAX);
			break;
		}
		if (k == count)
			all[count++] = nodes[i];
		place[i] = (uint8_t)k;
	}
	if (rc != 0) {
		free(all);
		free(whole);
		return rc;
	}
	memcpy(whole, v->map, old_size);
	for (size_t i = 0; i < more; i++)
		whole[old_size + i] = place[map[i]];
	reg_volume_set_map(v, all, count, whole, v->chunk_count + chunk_count);
	v->map_version++;
	return 0;
}

/* A node of the new rows on which a member of the family still has something of the chunk to let go
 * of: of the layers that v shares it would be there again. NULL: none. */
static const struct reg_node *find_leftover(const struct reg *reg, const struct reg_volume *v,
					    struct reg_node *const *nodes, const uint8_t *map,
					    uint32_t chunk_count)
{
	for (const struct reg_volume *w = reg->volumes; w != NULL; w = w->hh.next) {
		for (uint32_t i = 0; family_of(w) == family_of(v) && i < w->drop_count; i++) {
			const struct reg_drop *d = &w->drops[i];

			if (d->chunk < v->chunk_count || d->chunk - v->chunk_count >= chunk_count)
				continue;
			for (uint32_t k = 0; k < v->replicas; k++)
				if (nodes[map[(size_t)(d->chunk - v->chunk_count) * v->replicas +
					      k]] == d->node)
					return d->node;
		}
	}
	return NULL;
}

static int grow(struct pd *pd, struct reg_volume *v, uint64_t size, struct error *err)
{
	const uint32_t chunks = (uint32_t)((size + v->chunk_size - 1) / v->chunk_size);
	const struct reg_node *leftover = NULL;
	struct reg_node **nodes = NULL;
	uint32_t node_count;
	uint8_t *map = NULL;
	int rc = 0;

	if (chunks > v->chunk_count) {
		rc = admin_place(pd, v->name, chunks - v->chunk_count, v->chunk_size, v->replicas,
				 v->policy, &nodes, &node_count, &map, err);
		if (rc == 0)
			leftover = find_leftover(&pd->reg, v, nodes, map, chunks - v->chunk_count);
		if (leftover != NULL)
			rc = error_set(err, -E_IN_USE,
				       "volume %s: node %s has not erased yet what lay beyond its "
				       "end: again when it has (pave node list)",
				       v->name, leftover->name);
		if (rc == 0)
			rc = append_map(v, nodes, node_count, map, chunks - v->chunk_count, err);
		if (rc == 0)
			reg_save_map(&pd->reg, v);
		free(nodes);
		free(map);
	}
	return rc;
}

static int shrink(struct pd *pd, struct reg_volume *v, uint64_t size, struct error *err)
{
	const uint32_t chunks = (uint32_t)(size / v->chunk_size);

	end_lapsed(pd, v);
	if (!cancel_moves(&pd->reg, v) || reg_shrink(&pd->reg, v, chunks) != 0)
		return error_set(err, -ENOMEM, "no memory to make volume %s smaller", v->name);
	moves_replan(pd); /* should it grow again its chunks lie elsewhere */
	return 0;
}

/* A host that has it attached hears how large it is, and asks for the rest. */
static void resized(struct pd_request *q)
{
	struct pd *pd = q->pd;
	struct reg_volume *v = reg_volume_by_id(&pd->reg, q->volume);

	if (v != NULL && !v->deleted && v->attachment.live)
		host_push_permit(pd, v);
	answer(q);
	node_erase_all(pd);
}

void admin_volume_resize(struct pd_request *q, const Pave__V1__Control *m)
{
	const Pave__V1__VolumeResize *a = m->volume_resize;
	struct error err = {0};
	struct reg_volume *v = find(q, a->name, &err);
	int rc = v != NULL ? check_resize(q->pd, a, v, &err) : err.code;

	const uint64_t map_version = v != NULL ? v->map_version : 0;

	if (rc == 0)
		rc = a->size < v->size ? shrink(q->pd, v, a->size, &err)
				       : grow(q->pd, v, a->size, &err);
	if (rc != 0) {
		request_fail(q, &err);
		return;
	}
	v->size = a->size;
	v->size_batch = reg_batch_no(&q->pd->reg);
	reg_save_volume(&q->pd->reg, v);
	note_volume(q->pd, v);
	if (v->map_version != map_version)
		pd_ledger_map(&q->pd->ledger, v);
	log_info("pd", "volume %s has %llu bytes now", v->name, (unsigned long long)v->size);
	q->volume = v->id;
	request_commit(q, resized);
}
