/* grow: a volume that was made larger while it is attached.
 *
 * Happy path: the driver says in a PermitNotice how large the volume is; a host that has less
 * renews at once, with its size, and the answer has a permit that names the nodes of the new
 * chunks, and the map of these. Nothing that is there moves (base/growing.h), so nothing waits. The
 * new chunks are as any that nobody has used yet: opened when they are, for which each replica is
 * asked what it holds; nothing is presumed of it.
 *
 * Of the layers below nobody ever wrote to the new chunks, be it a last word: the driver gives room
 * only where nothing is left from before, and this attachment did not have them. So a layer that is
 * being sealed is settled there, and of those that are sealed everybody who is connected holds
 * nothing. That is why growth waits while the permit names another top: what is about to be sealed
 * must not get what its snapshot does not have.
 *
 * Failure modes: what the driver says is checked, and refused as a whole; without memory the volume
 * stays as it is. The next renewal tells the driver so, and it says it again. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/assert.h"
#include "engine/base/log.h"
#include "engine/volume/layers_parts.h"

static int check(const struct volume *v, const Pave__V1__Growth *g, struct error *err)
{
	/* Not rounded up by adding, which a size near 2^64 would wrap around. */
	const uint64_t chunks = g->size / v->chunk_size + (g->size % v->chunk_size != 0);

	if (g->size % BLOCK_SIZE != 0 || chunks > VOLUME_CHUNKS_MAX)
		return error_set(err, -E_BAD_DOCUMENT,
				 "a size of %llu bytes is no multiple of %u, or over %u chunks",
				 (unsigned long long)g->size, BLOCK_SIZE, VOLUME_CHUNKS_MAX);
	if (g->from != v->chunk_count || g->map.len != (chunks - v->chunk_count) * v->replicas)
		return error_set(err, -E_BAD_DOCUMENT,
				 "the map has %zu bytes from chunk %u on; there are %u chunks of "
				 "%u replicas, to become %llu",
				 g->map.len, g->from, v->chunk_count, v->replicas,
				 (unsigned long long)chunks);
	return 0;
}

/* The rows in this volume's numbers of nodes. malloc'd; NULL: *err. */
static uint8_t *read_rows(const struct volume *v, const Pave__V1__Growth *g,
			  Pave__V1__MapNode *const *nodes, size_t node_count, struct error *err)
{
	uint8_t *rows = malloc(g->map.len + 1);
	int rc = 0;

	if (rows == NULL) {
		error_set(err, -ENOMEM, "no memory for a map of %zu bytes", g->map.len);
		return NULL;
	}
	for (size_t i = 0; i < g->map.len && rc == 0; i++) {
		const uint8_t place = g->map.data[i];
		const uint32_t node =
		    place < node_count ? volume_find_node(v, nodes[place]->node) : UINT32_MAX;

		if (place >= node_count)
			rc = error_set(err, -E_BAD_DOCUMENT, "the map names a node %u of %zu",
				       place, node_count);
		else if (node >= v->node_count)
			rc = error_set(err, -ENOMEM, "there is no room for node %.64s",
				       nodes[place]->node);
		rows[i] = (uint8_t)node;
		for (size_t k = i - i % v->replicas; k < i && rc == 0; k++)
			if (rows[k] == rows[i])
				rc = error_set(err, -E_BAD_DOCUMENT,
					       "two replicas of chunk %zu on one node",
					       g->from + i / v->replicas);
	}
	if (rc == 0)
		return rows;
	free(rows);
	return NULL;
}

/* All that may fail. */
static int take_room(struct volume *v, uint32_t chunk_count)
{
	const size_t old_size = v->chunk_count * vlayers_stride(v);
	const size_t size = chunk_count * vlayers_stride(v);

	for (struct vset *set = v->sets; set != NULL; set = set->next)
		if (volume_grow_set(v, set, chunk_count) != 0)
			return -ENOMEM;
	for (uint32_t i = 0; i < v->sealed_count; i++) {
		uint8_t *larger = realloc(v->sealed[i].states, size);

		if (larger == NULL)
			return -ENOMEM;
		memset(larger + old_size, VSEALED_UNKNOWN, size - old_size);
		v->sealed[i].states = larger;
	}
	return 0;
}

/* What is known of the chunk in the layers below the top. */
static void begin_below(struct volume *v, chunk_no_t no)
{
	struct vset *lower = vlayers_below(v);

	if (lower != NULL)
		lower->chunks[no].settled = true;
	/* Of a retired one the states tell, now. */
	for (struct vset *set = v->sets; set != NULL; set = set->next)
		set->chunks[no].taken = set->retired;
	for (uint32_t i = 0; i < v->sealed_count; i++)
		for (uint32_t k = 0; k < v->replicas; k++)
			if (vreplica_ready(v->chunks[no].slots[k].replica))
				v->sealed[i].states[no * vlayers_stride(v) + k] = VSEALED_EMPTY;
}

static void begin(struct volume *v, uint64_t size, uint32_t chunk_count, const uint8_t *rows)
{
	const uint32_t from = v->chunk_count;

	vlayers_prepare_again(v); /* it would lack them */
	for (struct vset *set = v->sets; set != NULL; set = set->next)
		for (uint32_t i = from; i < chunk_count; i++)
			volume_make_chunk(v, set, i, rows + (size_t)(i - from) * v->replicas);
	for (uint32_t i = from; i < chunk_count; i++)
		begin_below(v, i);
	v->chunk_count = chunk_count;
	v->size = size;
	vlayers_learnt_all(v);
}

/* A scan may have passed what there is now. */
static void scan_again(struct volume *v)
{
	for (uint32_t n = 0; n < v->node_count; n++)
		for (uint32_t i = 0; i < VREPLICA_SHARDS_MAX && v->nodes[n].replicas[i] != NULL;
		     i++)
			if (v->nodes[n].replicas[i]->state == VREPLICA_SCANNING)
				vreplica_disconnect(v->nodes[n].replicas[i], -E_STALE_REPLICA);
}

int volume_take_growth(struct volume *v, const Pave__V1__Growth *g, Pave__V1__MapNode *const *nodes,
		       size_t node_count, struct error *err)
{
	uint32_t chunk_count;
	uint8_t *rows = NULL;
	int rc;

	if (v->chunks == NULL || v->ended != 0 || v->state >= VOLUME_CLOSING || g->size <= v->size)
		return 0;
	rc = check(v, g, err);
	if (rc != 0)
		return rc;
	if (v->attach.permit.layers[0].id != v->sets->layer)
		return error_set(err, -EAGAIN, "its top layer is about to be another");
	rows = read_rows(v, g, nodes, node_count, err);
	if (rows == NULL)
		return err->code;
	chunk_count = v->chunk_count + (uint32_t)(g->map.len / v->replicas);
	rc = take_room(v, chunk_count);
	if (rc != 0) {
		error_set(err, rc, "no memory for %u chunks", chunk_count);
		goto out;
	}
	begin(v, g->size, chunk_count, rows);
	scan_again(v);
	log_info("volume", "%s: has grown to %llu bytes, %u chunks", v->config.name,
		 (unsigned long long)v->size, v->chunk_count);
	volume_event(v);
out:
	free(rows);
	return rc;
}
