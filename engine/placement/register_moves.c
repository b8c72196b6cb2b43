/* The register: moves of copies between nodes, and copies that are to be erased. See register.h.
 *
 *   begin: the node is one of the volume's, so permits name it
 *   commit: row of the map, map version, drop of the old copy, and the end of the move: one batch
 *   cancel: the end of the move and the drop of the learner's copy: one batch
 *
 * INVARIANTS
 *  1. The nodes of a volume are those of its map and of its moves, and no others: a node that has
 *     nothing of it any more is in no permit.
 *  2. A chunk has one move at most; a node never both holds a chunk and has a drop of it. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/assert.h"
#include "engine/placement/register_codec.h"

struct reg_move *reg_move_find(struct reg_volume *v, chunk_no_t chunk)
{
	for (uint32_t i = 0; i < v->move_count; i++)
		if (v->moves[i].chunk == chunk)
			return &v->moves[i];
	return NULL;
}

static uint8_t *row_of(const struct reg_volume *v, chunk_no_t chunk)
{
	return v->map + (size_t)chunk * v->replicas;
}

/* The place in the chunk's row; UINT32_MAX: it isn't there. */
static uint32_t place_of(const struct reg_volume *v, chunk_no_t chunk, const struct reg_node *n)
{
	const uint8_t *row = row_of(v, chunk);

	for (uint32_t i = 0; i < v->replicas; i++)
		if (v->nodes[row[i]] == n)
			return i;
	return UINT32_MAX;
}

bool reg_holds(const struct reg_volume *v, chunk_no_t chunk, const struct reg_node *n)
{
	return chunk < v->chunk_count && place_of(v, chunk, n) != UINT32_MAX;
}

bool reg_has_number(const struct reg_volume *v, const struct reg_node *n)
{
	uint32_t i = 0;

	while (i < v->node_count && v->nodes[i] != n)
		i++;
	return i < v->node_count || i < REG_MAP_NODES_MAX;
}

bool reg_drops(const struct reg_volume *v, chunk_no_t chunk, const struct reg_node *n)
{
	for (uint32_t i = 0; i < v->drop_count; i++)
		if (v->drops[i].chunk == chunk && v->drops[i].node == n)
			return true;
	return false;
}

void reg_count_moves(const struct reg_volume *v, int sign)
{
	for (uint32_t i = 0; i < v->move_count; i++) {
		v->moves[i].to->learners += (uint32_t)sign;
		v->moves[i].from->leavers += (uint32_t)sign;
	}
}

/* -- nodes of a volume ------------------------------------------------------------------------ */

static int find_or_append(struct reg_volume *v, struct reg_node *n, uint32_t *ret)
{
	struct reg_node **larger;

	for (uint32_t i = 0; i < v->node_count; i++) {
		if (v->nodes[i] != n)
			continue;
		*ret = i;
		return 0;
	}
	if (v->node_count == REG_MAP_NODES_MAX)
		return -E_LIMIT;
	larger = realloc(v->nodes, (v->node_count + 1) * sizeof(struct reg_node *));
	if (larger == NULL)
		return -ENOMEM;
	v->nodes = larger;
	v->nodes[v->node_count] = n;
	*ret = v->node_count++;
	return 0;
}

bool reg_volume_fits_tombstone(const struct reg_volume *v)
{
	const struct reg_node *others[REG_MAP_NODES_MAX];
	uint32_t count = 0;

	for (uint32_t i = 0; i < v->drop_count; i++) {
		const struct reg_node *n = v->drops[i].node;
		uint32_t k = 0, place = 0;

		while (k < count && others[k] != n)
			k++;
		while (place < v->node_count && v->nodes[place] != n)
			place++;
		if (k < count || place < v->node_count)
			continue;
		if (v->node_count + count == REG_MAP_NODES_MAX)
			return false;
		others[count++] = n;
	}
	return true;
}

int reg_own_dropped(struct reg_volume *v)
{
	uint32_t place;

	for (uint32_t i = 0; i < v->drop_count; i++)
		if (find_or_append(v, v->drops[i].node, &place) == -ENOMEM)
			return -ENOMEM;
	return 0;
}

/* Takes n out when neither map nor moves name it; the last one takes its place. */
static void forget_unused(struct reg_volume *v, const struct reg_node *n)
{
	const size_t size = (size_t)v->chunk_count * v->replicas;
	uint32_t place = 0;

	while (place < v->node_count && v->nodes[place] != n)
		place++;
	if (place == v->node_count || memchr(v->map, (int)place, size) != NULL)
		return;
	for (uint32_t i = 0; i < v->move_count; i++)
		if (v->moves[i].from == n || v->moves[i].to == n)
			return;
	v->node_count--;
	if (place == v->node_count)
		return;
	v->nodes[place] = v->nodes[v->node_count];
	for (size_t i = 0; i < size; i++)
		if (v->map[i] == v->node_count)
			v->map[i] = (uint8_t)place;
}

void reg_volume_trim_nodes(struct reg_volume *v)
{
	for (uint32_t i = v->node_count; i > 0; i--)
		forget_unused(v, v->nodes[i - 1]);
}

/* -- drops ------------------------------------------------------------------------------------ */

static int drops_reserve(struct reg_volume *v, uint32_t count)
{
	const uint32_t room = MAX(v->drop_room * 2 + 8, v->drop_count + count);
	struct reg_drop *larger;

	if (v->drop_count + count <= v->drop_room)
		return 0;
	larger = realloc(v->drops, room * sizeof *larger);
	if (larger == NULL)
		return -ENOMEM;
	v->drops = larger;
	v->drop_room = room;
	return 0;
}

static int drop_add(struct reg *reg, struct reg_volume *v, chunk_no_t chunk, struct reg_node *n)
{
	int rc = drops_reserve(v, 1);

	if (rc != 0)
		return rc;
	reg->parted_no = reg_batch_no(reg);
	v->drops[v->drop_count++] =
	    (struct reg_drop){.chunk = chunk, .node = n, .generation = v->generation};
	return 0;
}

static bool is_one_of(chunk_no_t chunk, const chunk_no_t *chunks, size_t count)
{
	for (size_t i = 0; i < count; i++)
		if (chunks[i] == chunk)
			return true;
	return count == 0;
}

void reg_dropped(struct reg *reg, struct reg_volume *v, const struct reg_node *n,
		 const chunk_no_t *chunks, size_t count)
{
	uint32_t kept = 0;

	for (uint32_t i = 0; i < v->drop_count; i++)
		if (v->drops[i].node != n || !is_one_of(v->drops[i].chunk, chunks, count))
			v->drops[kept++] = v->drops[i];
	if (kept == v->drop_count)
		return;
	v->drop_count = kept;
	reg_save_map(reg, v);
}

/* Sifts out those that stay in place, then brings the others behind them: by as many exchanges as
 * there are drops, whose order means nothing else. */
void reg_drops_last(struct reg_volume *v, const struct reg_node *n, const chunk_no_t *chunks,
		    size_t count)
{
	uint32_t first = 0;

	for (uint32_t i = 0; i < v->drop_count; i++) {
		const struct reg_drop d = v->drops[i];

		if (d.node == n && is_one_of(d.chunk, chunks, count))
			continue;
		v->drops[i] = v->drops[first];
		v->drops[first++] = d;
	}
}

/* -- moves ------------------------------------------------------------------------------------ */

int reg_move_begin(struct reg *reg, struct reg_volume *v, chunk_no_t chunk, struct reg_node *from,
		   struct reg_node *to, enum move_why why, int64_t now)
{
	uint32_t place;
	int rc;

	PRE(chunk < v->chunk_count && reg_holds(v, chunk, from) && !reg_holds(v, chunk, to));
	PRE(reg_move_find(v, chunk) == NULL && !reg_drops(v, chunk, to));
	if (v->move_count == REG_MOVES_MAX)
		return -E_LIMIT;
	rc = find_or_append(v, to, &place);
	if (rc != 0)
		return rc;
	v->moves[v->move_count++] = (struct reg_move){.chunk = chunk,
						      .from = from,
						      .to = to,
						      .why = why,
						      .since = now,
						      .batch = reg_batch_no(reg)};
	to->learners++;
	from->leavers++;
	reg_save_map(reg, v);
	return 0;
}

static void move_end(struct reg_volume *v, struct reg_move *m)
{
	INVARIANT(m->to->learners > 0);
	m->to->learners--;
	m->from->leavers--;
	*m = v->moves[--v->move_count];
}

int reg_move_commit(struct reg *reg, struct reg_volume *v, struct reg_move *m)
{
	const struct reg_move move = *m;
	uint8_t *row = row_of(v, move.chunk);
	uint32_t to;
	int rc = find_or_append(v, move.to, &to);

	INVARIANT(rc == 0); /* it is there since the move began */
	rc = drop_add(reg, v, move.chunk, move.from);
	if (rc != 0)
		return rc;
	v->drops[v->drop_count - 1].told = true; /* it asks for it */
	row[place_of(v, move.chunk, move.from)] = (uint8_t)to;
	reg_count_chunk(v, move.from, -1);
	reg_count_chunk(v, move.to, 1);
	v->map_version++;
	move_end(v, m);
	forget_unused(v, move.from);
	reg_save_volume(reg, v);
	reg_save_map(reg, v);
	return 0;
}

int reg_move_cancel(struct reg *reg, struct reg_volume *v, struct reg_move *m)
{
	const struct reg_move move = *m;
	int rc = drop_add(reg, v, move.chunk, move.to);

	if (rc != 0)
		return rc;
	move_end(v, m);
	forget_unused(v, move.to);
	reg_save_map(reg, v);
	return 0;
}

int reg_replace(struct reg *reg, struct reg_volume *v, chunk_no_t chunk, struct reg_node *from,
		struct reg_node *to)
{
	uint32_t place;
	int rc;

	PRE(reg_holds(v, chunk, from) && !reg_holds(v, chunk, to));
	PRE(reg_move_find(v, chunk) == NULL && !v->attachment.live);
	rc = find_or_append(v, to, &place);
	if (rc == 0)
		rc = drop_add(reg, v, chunk, from);
	if (rc != 0)
		return rc;
	row_of(v, chunk)[place_of(v, chunk, from)] = (uint8_t)place;
	reg_count_chunk(v, from, -1);
	reg_count_chunk(v, to, 1);
	v->map_version++;
	forget_unused(v, from);
	reg_save_volume(reg, v);
	reg_save_map(reg, v);
	return 0;
}

int reg_drop_unused(struct reg *reg, struct reg_volume *v, chunk_no_t chunk, struct reg_node *n)
{
	int rc;

	PRE(!reg_holds(v, chunk, n));
	if (reg_drops(v, chunk, n))
		return 0;
	rc = drop_add(reg, v, chunk, n);
	if (rc != 0)
		return rc;
	v->drops[v->drop_count - 1].generation = 0;
	v->drops[v->drop_count - 1].released = true;
	reg_save_map(reg, v);
	return 0;
}

int reg_shrink(struct reg *reg, struct reg_volume *v, uint32_t chunk_count)
{
	int rc = drops_reserve(v, (v->chunk_count - chunk_count) * v->replicas);

	PRE(chunk_count > 0 && chunk_count < v->chunk_count);
	PRE(v->move_count == 0 && !v->attachment.live);
	if (rc != 0)
		return rc;
	reg->parted_no = reg_batch_no(reg);
	for (chunk_no_t c = chunk_count; c < v->chunk_count; c++)
		for (uint32_t i = 0; i < v->replicas; i++) {
			struct reg_node *n = v->nodes[row_of(v, c)[i]];

			reg_count_chunk(v, n, -1);
			v->drops[v->drop_count++] =
			    (struct reg_drop){.chunk = c, .node = n, .released = true};
		}
	v->chunk_count = chunk_count;
	v->map_version++;
	reg_volume_trim_nodes(v);
	reg_save_volume(reg, v);
	reg_save_map(reg, v);
	return 0;
}
