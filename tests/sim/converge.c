/* converge: see converge.h.
 *
 * The stores are read by their own code, 256 blocks at a time, one node after the other. A block
 * that does not check (it rotted, and is not mended yet), a node that is down, and content that
 * differs are all the same here: not yet; it begins again after a while. What lay on a device that
 * is lost for ever is as good as on a node that is.
 *
 * Of a sealed layer it is compared what is seen from it: where it has no version of a block, that
 * is what lies below. Two attachments may have settled it, the second without a copy that has the
 * last word of the first. What it wrote again then, for it read it through the layers below, that
 * copy need not have in this layer; but it shows the same (engine/ARCHITECTURE.md, "Snapshots"). */
#include "tests/sim/converge.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/assert.h"
#include "engine/base/crc32c.h"
#include "engine/placement/driver.h"
#include "engine/placement/layers.h"
#include "engine/volume/core.h"
#include "tests/sim/bays.h"
#include "tests/sim/guest.h"
#include "tests/sim/pds.h"

#define AGAIN_NS (3 * NS_PER_S)

struct look {
	struct store_read op;
	bool done;
	int status;
	uint32_t crcs[IO_BLOCKS_MAX];
	version_t versions[IO_BLOCKS_MAX];
	uint8_t *data;
	uint32_t seen[IO_BLOCKS_MAX]; /* the result: CRCs of what was read */
};

static void look_done(struct store_read *op, int status)
{
	struct look *l = container_of(op, struct look, op);

	l->done = true;
	l->status = status;
}

/* False: not now. */
static bool read_range(struct cluster *c, struct machine *node, volume_id_t volume, uint64_t at,
		       struct look *l)
{
	const uint64_t chunk_blocks = CLUSTER_CHUNK_SIZE / BLOCK_SIZE;

	if (!node->process->alive || node->node.pool == NULL)
		return false;
	l->done = false;
	l->op = (struct store_read){
	    .done = look_done,
	    .volume = volume,
	    .chunk = (chunk_no_t)(at / chunk_blocks),
	    .block = (block_no_t)(at % chunk_blocks),
	    .block_count = IO_BLOCKS_MAX,
	    .data = l->data,
	    .ret_crcs = l->crcs,
	    .ret_versions = l->versions,
	};
	pool_read(node->node.pool, &l->op);
	while (!l->done && node->process->alive && !c->failed)
		if (!sim_step(c->world))
			return false;
	return l->done && l->status == 0;
}

static struct machine *node_named(struct cluster *c, const char *name)
{
	for (uint32_t n = 0; n < c->node_count; n++)
		if (strcmp(c->nodes[n]->process->name, name) == 0)
			return c->nodes[n];
	return NULL;
}

/* The nodes whose copies of the chunk count, as the host knows them. */
static uint32_t copies_of(struct cluster *c, const struct volume *v, uint64_t at,
			  struct machine **ret_nodes)
{
	const struct vchunk *chunk = &v->chunks[at / (CLUSTER_CHUNK_SIZE / BLOCK_SIZE)];
	uint32_t count = 0;

	for (uint32_t i = 0; i < v->slot_count; i++) {
		struct machine *m = (chunk->members & vmask_bit(i)) != 0
					? node_named(c, v->nodes[chunk->slots[i].node].name)
					: NULL;

		if (m != NULL && !m->dead_for_ever)
			ret_nodes[count++] = m;
	}
	return count;
}

/* From the top; 0: there are no more. */
static volume_id_t layer_id(const struct volume *v, uint32_t layer)
{
	if (layer == 0)
		return v->sets->layer;
	return layer <= v->sealed_count ? vlayers_id(v, layer - 1) : 0;
}

/* Layers that must be the same everywhere: the top one, and those that are sealed. */
static uint32_t layers_to_compare(const struct cluster *c)
{
	const struct volume *v = cluster_volume(c);

	return v == NULL ? 1 : 1 + v->sealed_count;
}

/* Only another sealed layer stands on it: it may be half of a merge, and nobody sees but through
 * that one what it holds. */
static bool may_be_merging(const struct cluster *c, uint32_t layer)
{
	const struct volume *v = cluster_volume(c);
	const struct pd *pd = pds_leading(c);
	const volume_id_t id = v != NULL ? layer_id(v, layer) : 0;
	uint32_t children = 0;

	if (layer == 0)
		return false;
	for (const struct reg_layer *l = pd != NULL ? pd->reg.layers : NULL; l != NULL;
	     l = l->hh.next) {
		if (l->parent != id)
			continue;
		if (!l->sealed)
			return false;
		children++;
	}
	return children < 2;
}

/* What the node's copy holds, and for a sealed layer shows. False: not now. */
static bool see_range(struct cluster *c, struct machine *node, uint32_t layer, uint64_t at,
		      struct look *l)
{
	bool has[IO_BLOCKS_MAX] = {false};
	bool lacks = true;

	for (uint32_t depth = layer; lacks; depth++) {
		const struct volume *v = cluster_volume(c);
		const volume_id_t id = v != NULL ? layer_id(v, depth) : 0;

		if (id == 0)
			return v != NULL && depth > layer; /* there is none below */
		if (!read_range(c, node, id, at, l))
			return false;
		lacks = false;
		for (uint32_t i = 0; i < IO_BLOCKS_MAX; i++) {
			if (has[i])
				continue;
			l->seen[i] = crc32c(0, l->data + (size_t)i * BLOCK_SIZE, BLOCK_SIZE);
			if (l->seen[i] != l->crcs[i])
				return false;
			has[i] = layer == 0 || l->versions[i] != 0;
			lacks = lacks || !has[i];
		}
	}
	return true;
}

static bool range_is_same(struct cluster *c, uint32_t layer, uint64_t at, struct look *l, char *why,
			  size_t why_size)
{
	struct machine *nodes[REPLICAS_MAX];
	const struct volume *v = cluster_volume(c);
	const uint32_t count = v != NULL ? copies_of(c, v, at, nodes) : 0;
	uint32_t is[IO_BLOCKS_MAX], seen = 0;

	snprintf(why, why_size, "the volume is not attached");
	for (uint32_t n = 0; n < count; n++) {
		snprintf(why, why_size, "%s cannot read block %lu", nodes[n]->process->name, at);
		l->status = 0;
		if (!see_range(c, nodes[n], layer, at, l)) {
			if (l->status == -E_DEVICE && bays_have_lost(nodes[n]->bays))
				continue;
			return false;
		}
		if (seen++ == 0)
			memcpy(is, l->seen, sizeof(is));
		for (uint32_t i = 0; i < IO_BLOCKS_MAX; i++) {
			if (is[i] == l->seen[i])
				continue;
			snprintf(why, why_size, "block %lu of layer %u differs on %s", at + i,
				 layer, nodes[n]->process->name);
			return false;
		}
	}
	return seen > 0;
}

static bool all_are_same(struct cluster *c, struct look *l, char *why, size_t why_size)
{
	for (uint32_t layer = 0; layer < layers_to_compare(c); layer++)
		for (uint64_t at = 0; at < CLUSTER_BLOCKS && !may_be_merging(c, layer);
		     at += IO_BLOCKS_MAX)
			if (!range_is_same(c, layer, at, l, why, why_size))
				return false;
	return true;
}

void converge_check(struct cluster *c, uint64_t for_ns)
{
	const uint64_t end_ns = c->world->now_ns + for_ns;
	struct look *l = calloc(1, sizeof(*l));
	char why[200] = "";

	INVARIANT(l != NULL);
	l->data = aligned_alloc(BLOCK_SIZE, IO_SIZE_MAX);
	INVARIANT(l->data != NULL);
	while (!c->failed && !all_are_same(c, l, why, sizeof(why))) {
		if (c->world->now_ns > end_ns)
			cluster_fail(c,
				     "convergence: %llu s after the faults the replicas are not "
				     "the same: %s",
				     for_ns / NS_PER_S, why);
		else
			cluster_run(c, AGAIN_NS, NULL);
	}
	/* A read that never ended may still write to these. */
	if (c->failed)
		return;
	free(l->data);
	free(l);
}
