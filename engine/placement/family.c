/* family: see family.h. */
#include "engine/placement/family.h"

#include <errno.h>
#include <string.h>

#include "engine/base/assert.h"

bool family_stands_on(struct reg *reg, const struct reg_volume *v, volume_id_t layer)
{
	volume_id_t ids[PERMIT_LAYERS_MAX];
	const uint32_t count = v->deleted ? 0 : layers_of(reg, v, ids, PERMIT_LAYERS_MAX);

	for (uint32_t i = 0; i < count; i++)
		if (ids[i] == layer)
			return true;
	return false;
}

/* The other members of the family, in the order in which they were made; NULL: none, or no more. */
static struct reg_volume *first_other(const struct reg_volume *v)
{
	const struct reg_volume *w = v;

	while (w->kin_prev != NULL)
		w = w->kin_prev;
	return w != v ? (struct reg_volume *)(uintptr_t)w : v->kin_next;
}

static struct reg_volume *next_other(const struct reg_volume *v, const struct reg_volume *w)
{
	return w->kin_next != v ? w->kin_next : v->kin_next;
}

/* It holds the chunk there, is about to, or did and has not let go of it. */
static bool is_there(struct reg_volume *w, chunk_no_t chunk, const struct reg_node *n)
{
	const struct reg_move *m = reg_move_find(w, chunk);

	return reg_holds(w, chunk, n) || (m != NULL && m->to == n) || reg_drops(w, chunk, n);
}

static bool is_alone(const struct reg *reg, const struct reg_volume *v)
{
	return layers_find((struct reg *)(uintptr_t)reg, layers_top(v)) == NULL;
}

const struct reg_volume *family_other_on(struct reg *reg, const struct reg_volume *v,
					 volume_id_t layer)
{
	for (const struct reg_volume *w = is_alone(reg, v) ? NULL : first_other(v); w != NULL;
	     w = next_other(v, w))
		if (family_stands_on(reg, w, layer))
			return w;
	return NULL;
}

const struct reg_volume *family_sharer(struct reg *reg, const struct reg_volume *v)
{
	volume_id_t ids[LAYERS_MAX];
	const uint32_t count = layers_of(reg, v, ids, LAYERS_MAX);
	const struct reg_volume *other = NULL;

	for (uint32_t i = 0; other == NULL && i < count; i++)
		other = family_other_on(reg, v, ids[i]);
	return other;
}

bool family_drops(struct reg *reg, const struct reg_volume *v, chunk_no_t chunk,
		  const struct reg_node *n)
{
	if (reg_drops(v, chunk, n))
		return true;
	for (const struct reg_volume *w = is_alone(reg, v) ? NULL : first_other(v); w != NULL;
	     w = next_other(v, w))
		if (reg_drops(w, chunk, n))
			return true;
	return false;
}

/* Somebody but v stands on the layer, and has it there. */
static bool is_needed(struct reg *reg, const struct reg_volume *v, volume_id_t layer,
		      chunk_no_t chunk, const struct reg_node *n)
{
	for (struct reg_volume *w = first_other(v); w != NULL; w = next_other(v, w))
		if (is_there(w, chunk, n) && family_stands_on(reg, w, layer))
			return true;
	return false;
}

uint32_t family_erasable(struct reg *reg, const struct reg_volume *v, chunk_no_t chunk,
			 const struct reg_node *n, volume_id_t *ret_ids)
{
	volume_id_t ids[LAYERS_MAX];
	const uint32_t count = layers_of(reg, v, ids, LAYERS_MAX);
	uint32_t erasable = 0;

	for (uint32_t i = 0; i < count; i++)
		if (is_alone(reg, v) || !is_needed(reg, v, ids[i], chunk, n))
			ret_ids[erasable++] = ids[i];
	return erasable;
}

/* -- moving together -------------------------------------------------------------------------- */

static struct reg_node *node_at(const struct reg_volume *v, chunk_no_t chunk, uint32_t place)
{
	return v->nodes[v->map[(size_t)chunk * v->replicas + place]];
}

/* The chunk lies on the same nodes, but for these (NULL: none). */
static bool same_row(const struct reg_volume *a, const struct reg_node *but_a,
		     const struct reg_volume *b, const struct reg_node *but_b, chunk_no_t chunk)
{
	if (chunk >= a->chunk_count || chunk >= b->chunk_count || a->replicas != b->replicas ||
	    (but_a == NULL) != (but_b == NULL))
		return false;
	for (uint32_t i = 0; i < a->replicas; i++) {
		const struct reg_node *n = node_at(a, chunk, i);

		if (n != but_a && (n == but_b || !reg_holds(b, chunk, n)))
			return false;
	}
	return true;
}

struct reg_node *family_target(struct reg *reg, const struct reg_volume *v, chunk_no_t chunk,
			       const struct reg_node *from)
{
	for (struct reg_volume *w = is_alone(reg, v) ? NULL : first_other(v); w != NULL;
	     w = next_other(v, w)) {
		const struct reg_move *m;

		if (chunk >= w->chunk_count)
			continue;
		m = reg_move_find(w, chunk);
		if (m != NULL && m->from == from && same_row(v, NULL, w, NULL, chunk))
			return m->to;
		for (uint32_t i = 0; i < w->replicas; i++) {
			struct reg_node *n = node_at(w, chunk, i);

			if (!reg_holds(v, chunk, n) && !reg_holds(w, chunk, from) &&
			    same_row(v, from, w, n, chunk))
				return n;
		}
	}
	return NULL;
}

/* All that s stands on, v stands on too. */
static bool is_below(struct reg *reg, const struct reg_volume *s, const struct reg_volume *v)
{
	volume_id_t ids[PERMIT_LAYERS_MAX];
	const uint32_t count = layers_of(reg, s, ids, PERMIT_LAYERS_MAX);

	/* So it is with the rest when it is with the first. */
	return count < 2 || family_stands_on(reg, v, ids[1]);
}

static bool leads(struct reg *reg, const struct reg_volume *w, const struct reg_volume *s,
		  chunk_no_t chunk)
{
	return family_of(w) == family_of(s) && !reg_volume_is_snapshot(w) &&
	       same_row(s, NULL, w, NULL, chunk) && is_below(reg, s, w);
}

bool family_follows(struct reg *reg, struct reg_volume *s, chunk_no_t chunk,
		    const struct reg_volume *by)
{
	const struct reg_volume *origin = by != NULL ? by : reg_volume_find(reg, s->origin);
	const int64_t now = reg_now(reg, NULL);

	if (s->deleted || !reg_volume_is_snapshot(s) || s->attachment.live ||
	    reg_volume_older_end(reg, s, now) != 0 || reg_move_find(s, chunk) != NULL)
		return false;
	/* It is so as a rule, and families may be large. */
	if (origin != NULL && leads(reg, origin, s, chunk))
		return true;
	for (const struct reg_volume *w = by == NULL ? first_other(s) : NULL; w != NULL;
	     w = next_other(s, w))
		if (leads(reg, w, s, chunk))
			return true;
	return false;
}

/* w has on the node whatever v has there. */
static bool covers(const struct reg_volume *w, const struct reg_volume *v, const struct reg_node *n)
{
	for (chunk_no_t c = 0; c < v->chunk_count; c++)
		if (reg_holds(v, c, n) && !reg_holds(w, c, n))
			return false;
	return true;
}

bool family_has_host(struct reg *reg, const struct reg_volume *v, volume_id_t layer,
		     const struct reg_node *n, int64_t now)
{
	for (const struct reg_volume *w = is_alone(reg, v) ? NULL : first_other(v); w != NULL;
	     w = next_other(v, w))
		if (reg_attachment_end(reg, w, now) != 0 && !w->attachment.read_only &&
		    family_stands_on(reg, w, layer) && covers(w, v, n))
			return true;
	return false;
}

/* -- leaving ---------------------------------------------------------------------------------- */

static int leave_node(struct reg *reg, const struct reg_volume *v, struct reg_volume *heir,
		      volume_id_t layer, chunk_no_t chunk, struct reg_node *n)
{
	if (is_needed(reg, v, layer, chunk, n))
		return 0;
	return reg_drop_unused(reg, heir, chunk, n);
}

int family_leave(struct reg *reg, struct reg_volume *v, uint32_t dropped)
{
	volume_id_t ids[LAYERS_MAX];
	const uint32_t count = layers_of(reg, v, ids, LAYERS_MAX);
	struct reg_volume *heir = NULL;
	int rc = 0;

	if (dropped >= count)
		return 0;
	for (struct reg_volume *w = first_other(v); w != NULL && heir == NULL; w = next_other(v, w))
		if (family_stands_on(reg, w, ids[dropped]))
			heir = w;
	if (heir == NULL)
		return 0;
	for (chunk_no_t c = 0; c < v->chunk_count && rc == 0; c++)
		for (uint32_t i = 0; i < v->replicas && rc == 0; i++)
			rc = leave_node(reg, v, heir, ids[dropped], c, node_at(v, c, i));
	for (uint32_t i = 0; i < v->move_count && rc == 0; i++)
		rc = leave_node(reg, v, heir, ids[dropped], v->moves[i].chunk, v->moves[i].to);
	for (uint32_t i = 0; i < v->drop_count && rc == 0; i++)
		rc = leave_node(reg, v, heir, ids[dropped], v->drops[i].chunk, v->drops[i].node);
	return rc;
}
