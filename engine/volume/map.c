/* map: where a volume's chunks lie, as the driver said it: nodes, their connections, chunks and
 * slots; and what a change of permit or address means for them. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <utlist.h>

#include "engine/base/assert.h"
#include "engine/base/growing.h"
#include "engine/base/log.h"
#include "engine/base/text.h"
#include "engine/volume/core.h"

/* -- what the driver said ---------------------------------------------------------------------- */

static int check_geometry(const struct volume *v, const Pave__V1__AttachReply *r, struct error *err)
{
	/* Not rounded up by adding, which a size near 2^64 would wrap around. */
	const uint64_t chunks =
	    r->chunk_size == 0 ? 0 : r->size / r->chunk_size + (r->size % r->chunk_size != 0);

	if (r->volume == 0 || r->volume != v->attach.permit.volume)
		return error_set(err, -E_BAD_DOCUMENT,
				 "the permit is for volume %llu, the answer for volume %llu",
				 (unsigned long long)v->attach.permit.volume,
				 (unsigned long long)r->volume);
	if (r->chunk_size < CHUNK_SIZE_MIN || r->chunk_size > CHUNK_SIZE_MAX ||
	    (r->chunk_size & (r->chunk_size - 1)) != 0)
		return error_set(err, -E_BAD_DOCUMENT, "the chunk size is %llu",
				 (unsigned long long)r->chunk_size);
	if (r->size == 0 || r->size % BLOCK_SIZE != 0 || chunks > VOLUME_CHUNKS_MAX)
		return error_set(err, -E_BAD_DOCUMENT, "the volume's size is %llu",
				 (unsigned long long)r->size);
	if (r->replicas < 1 || r->replicas > REPLICAS_MAX || r->min_acks > r->replicas)
		return error_set(err, -E_BAD_DOCUMENT, "%u replicas with min_acks %u", r->replicas,
				 r->min_acks);
	if (r->n_nodes < r->replicas || r->n_nodes > VOLUME_NODES_MAX ||
	    r->map.len != chunks * r->replicas)
		return error_set(err, -E_BAD_DOCUMENT,
				 "the map has %zu nodes and %zu bytes for %llu chunks of %u "
				 "replicas",
				 r->n_nodes, r->map.len, (unsigned long long)chunks, r->replicas);
	return 0;
}

static int check_map(const Pave__V1__AttachReply *r, struct error *err)
{
	for (size_t i = 0; i < r->n_nodes; i++) {
		if (!text_is_name(r->nodes[i]->node))
			return error_set(err, -E_BAD_DOCUMENT, "node %zu of the map has no name",
					 i);
		for (size_t k = 0; k < i; k++)
			if (strcmp(r->nodes[i]->node, r->nodes[k]->node) == 0)
				return error_set(err, -E_BAD_DOCUMENT,
						 "node %s is in the map twice", r->nodes[i]->node);
	}
	for (size_t i = 0; i < r->map.len; i++) {
		const size_t first = i - i % r->replicas;

		if (r->map.data[i] >= r->n_nodes)
			return error_set(err, -E_BAD_DOCUMENT, "the map names a node %u of %zu",
					 r->map.data[i], r->n_nodes);
		for (size_t k = first; k < i; k++)
			if (r->map.data[k] == r->map.data[i])
				return error_set(err, -E_BAD_DOCUMENT,
						 "two replicas of chunk %zu on one node",
						 i / r->replicas);
	}
	return 0;
}

static struct vreplica *replica_new(struct volume *v, uint32_t node, uint32_t shard)
{
	struct vreplica *r = calloc(1, sizeof(*r));

	if (r == NULL)
		return NULL;
	if (vreplica_init(r, v, node, shard) != 0) {
		vreplica_deinit(r);
		free(r);
		return NULL;
	}
	v->nodes[node].replicas[shard] = r;
	return r;
}

struct vreplica *volume_replica_of(struct volume *v, uint32_t node, chunk_no_t chunk)
{
	const struct vnode *n = &v->nodes[node];
	const uint32_t shards = MAX(n->shard_count, 1u);

	return n->replicas[chunk_shard(v->family, chunk, shards)];
}

int volume_grow_set(const struct volume *v, struct vset *set, uint32_t chunk_count)
{
	PRE(chunk_count > 0 && chunk_count <= VOLUME_CHUNKS_MAX);
	if (growing_grow(set->chunks, chunk_count * sizeof(*set->chunks)) != 0 ||
	    growing_grow(set->todo, chunk_count * sizeof(*set->todo)) != 0)
		return -ENOMEM;
	return growing_grow(set->slots, (size_t)chunk_count * v->slot_count * sizeof(*set->slots));
}

struct vset *volume_new_set(struct volume *v, volume_id_t layer)
{
	struct vset *set = calloc(1, sizeof(*set));

	if (set == NULL)
		return NULL;
	set->layer = layer;
	set->slots_max_bytes = (size_t)VOLUME_CHUNKS_MAX * v->slot_count * sizeof(*set->slots);
	set->chunks = growing_reserve(VOLUME_CHUNKS_MAX * sizeof(*set->chunks));
	set->slots = growing_reserve(set->slots_max_bytes);
	set->todo = growing_reserve(VOLUME_CHUNKS_MAX * sizeof(*set->todo));
	if (set->chunks == NULL || set->slots == NULL || set->todo == NULL ||
	    volume_grow_set(v, set, v->chunk_count) != 0) {
		volume_free_set(set);
		return NULL;
	}
	return set;
}

void volume_make_chunk(struct volume *v, struct vset *set, chunk_no_t no, const uint8_t *row)
{
	struct vchunk *c = &set->chunks[no];

	c->volume = v;
	c->set = set;
	c->no = no;
	c->layer = set->layer != v->id ? (uint32_t)set->layer : 0;
	c->slots = &set->slots[(size_t)no * v->slot_count];
	c->members = vmask_all(v->replicas);
	c->learner = VSLOT_NONE;
	for (uint32_t k = 0; row != NULL && k < v->replicas; k++) {
		c->slots[k].chunk = c;
		c->slots[k].node = row[k];
		c->slots[k].replica = volume_replica_of(v, c->slots[k].node, no);
	}
}

struct vset *volume_make_set(struct volume *v, volume_id_t layer, const uint8_t *map)
{
	struct vset *set = volume_new_set(v, layer);

	for (uint32_t i = 0; set != NULL && i < v->chunk_count; i++)
		volume_make_chunk(v, set, i, map != NULL ? map + (size_t)i * v->replicas : NULL);
	return set;
}

void volume_free_set(struct vset *set)
{
	if (set == NULL)
		return;
	growing_free(set->chunks, VOLUME_CHUNKS_MAX * sizeof(*set->chunks));
	growing_free(set->slots, set->slots_max_bytes);
	growing_free(set->todo, VOLUME_CHUNKS_MAX * sizeof(*set->todo));
	free(set);
}

uint32_t volume_find_node(const struct volume *v, const char *name)
{
	uint32_t i = 0;

	while (i < v->node_count && strcmp(v->nodes[i].name, name) != 0)
		i++;
	return i;
}

/* Takes the node, with its connections, out of where it was. */
static void move_node(struct vnode *to, uint32_t index, struct vnode *from)
{
	*to = *from;
	for (uint32_t k = 0; k < VREPLICA_SHARDS_MAX && to->replicas[k] != NULL; k++)
		to->replicas[k]->node = index;
	*from = (struct vnode){0};
}

/* In the order of the map, whose bytes are indices. Nodes that were connected to before there was a
 * map keep their connections; those that are not in it come after the others. */
static int make_nodes(struct volume *v, Pave__V1__MapNode *const *nodes, uint32_t count)
{
	const uint32_t earlier_count = v->node_count;
	struct vnode *earlier = v->nodes;
	struct vnode *made = calloc(count + earlier_count, sizeof(*made));

	if (made == NULL || count + earlier_count > VOLUME_NODES_MAX) {
		free(made);
		return -ENOMEM;
	}
	for (uint32_t i = 0; i < count; i++) {
		const uint32_t k = volume_find_node(v, nodes[i]->node);

		if (k < earlier_count)
			move_node(&made[i], i, &earlier[k]);
	}
	v->nodes = made;
	v->node_count = count;
	for (uint32_t k = 0; k < earlier_count; k++)
		if (earlier[k].name[0] != '\0') {
			move_node(&made[v->node_count], v->node_count, &earlier[k]);
			v->node_count++;
		}
	free(earlier);
	for (uint32_t i = 0; i < count; i++) {
		if (made[i].name[0] != '\0')
			continue;
		snprintf(made[i].name, sizeof(made[i].name), "%s", nodes[i]->node);
		snprintf(made[i].site, sizeof(made[i].site), "%s", nodes[i]->site);
		if (replica_new(v, i, 0) == NULL)
			return -ENOMEM;
	}
	return 0;
}

static int make_pools(struct volume *v)
{
	int rc = vwrite_pool_init(&v->writes, v->slot_count);

	if (rc == 0)
		rc = vread_pool_init(&v->reads);
	if (rc == 0)
		rc = vreconcile_init(v);
	if (rc == 0)
		rc = vresync_init(v);
	if (rc == 0)
		rc = vmove_init(v);
	if (rc == 0)
		rc = vrewrite_init(v);
	v->spans = calloc(VSPAN_BUCKETS, sizeof(struct vspan *));
	v->marks = calloc(VMARK_POOL_MAX, sizeof(*v->marks));
	if (rc != 0 || v->spans == NULL || v->marks == NULL)
		return -ENOMEM;
	for (uint32_t i = 0; i < VMARK_POOL_MAX; i++) {
		v->marks[i].next = v->marks_free;
		v->marks_free = &v->marks[i];
	}
	vbuffers_init(&v->buffers, v->reactor, VOLUME_BUFFER_BYTES_MAX);
	return 0;
}

int volume_take_map(struct volume *v, const Pave__V1__AttachReply *r, struct error *err)
{
	int rc = check_geometry(v, r, err);

	if (rc == 0)
		rc = check_map(r, err);
	if (rc != 0)
		return rc;
	v->id = r->volume;
	v->family = r->family != 0 ? r->family : r->volume;
	v->generation = v->attach.permit.generation;
	v->size = r->size;
	v->chunk_size = r->chunk_size;
	v->chunk_blocks = (uint32_t)(r->chunk_size / BLOCK_SIZE);
	v->chunk_count = (uint32_t)((r->size + r->chunk_size - 1) / r->chunk_size);
	v->replicas = r->replicas;
	v->slot_count = r->replicas + 1;
	v->majority = vquorum_majority(r->replicas);
	v->need = vquorum_need(r->replicas, r->min_acks);
	v->freeze_ns =
	    MAX(r->freeze_timeout_s * NS_PER_S, (uint64_t)VOLUME_HOLD_MIN_MS * NS_PER_MS);
	rc = make_pools(v);
	if (rc == 0)
		rc = make_nodes(v, r->nodes, (uint32_t)r->n_nodes);
	if (rc == 0)
		rc = vlayers_init(v, r->map.data);
	if (rc != 0) {
		/* No chunks: the sign that there is no map. Memory goes with the volume. */
		v->chunks = NULL;
		return error_set(err, rc, "no memory for a volume of %u chunks", v->chunk_count);
	}
	v->state = VOLUME_OPENING;
	v->opening_ns = volume_now(v);
	volume_take_addresses(v, r->nodes, r->n_nodes);
	log_info("volume",
		 "%s: attached as generation %u: %llu bytes, %u replicas, %u copies needed",
		 v->config.name, v->generation, (unsigned long long)v->size, v->replicas, v->need);
	return 0;
}

/* -- addresses --------------------------------------------------------------------------------- */

/* A node with several shards shows itself for the first time: its chunks find their shard. Nothing
 * was ever sent to it before, for its address was not known. */
static void take_shards(struct volume *v, uint32_t node, uint32_t count)
{
	struct vnode *n = &v->nodes[node];

	for (uint32_t i = 1; i < count; i++) {
		if (replica_new(v, node, i) == NULL) {
			log_error("volume", "%s: no memory for the shards of node %s",
				  v->config.name, n->name);
			return;
		}
		n->replicas[i]->permitted = n->replicas[i]->followed = n->permitted;
	}
	n->shard_count = count;
	vlayers_prepare_again(v);
	for (const struct vset *set = v->sets; set != NULL; set = set->next)
		for (uint32_t i = set->swept; i < v->chunk_count; i++)
			for (uint32_t k = 0; k < v->slot_count; k++)
				if ((vchunk_used(&set->chunks[i]) & vmask_bit(k)) != 0 &&
				    set->chunks[i].slots[k].node == node)
					set->chunks[i].slots[k].replica =
					    volume_replica_of(v, node, i);
}

static void take_node(struct volume *v, uint32_t node, const Pave__V1__MapNode *m)
{
	struct vnode *n = &v->nodes[node];

	if (m->n_addresses == 0)
		return; /* what we know may still be true */
	if (n->shard_count == 0)
		take_shards(v, node, (uint32_t)MIN(m->n_addresses, (size_t)VREPLICA_SHARDS_MAX));
	if (n->shard_count != m->n_addresses) {
		log_error("volume", "%s: node %s has %zu shards now, it had %u: not used",
			  v->config.name, n->name, m->n_addresses, n->shard_count);
		return;
	}
	for (uint32_t i = 0; i < n->shard_count; i++)
		vreplica_set_address(n->replicas[i], m->addresses[i]);
}

/* A node that was not in the map when the volume was attached: something moves to it. */
static bool add_node(struct volume *v, const Pave__V1__MapNode *m)
{
	struct vnode *larger;

	if (v->node_count == VOLUME_NODES_MAX || !text_is_name(m->node) ||
	    strlen(m->site) >= NAME_SIZE_MAX)
		return false;
	larger = realloc(v->nodes, (v->node_count + 1) * sizeof(*v->nodes));
	if (larger == NULL)
		return false;
	v->nodes = larger;
	v->nodes[v->node_count] = (struct vnode){0};
	snprintf(larger[v->node_count].name, sizeof(larger->name), "%s", m->node);
	snprintf(larger[v->node_count].site, sizeof(larger->site), "%s", m->site);
	if (replica_new(v, v->node_count, 0) == NULL)
		return false;
	v->node_count++;
	return true;
}

void volume_take_addresses(struct volume *v, Pave__V1__MapNode *const *nodes, size_t count)
{
	for (size_t k = 0; k < count && v->ended == 0; k++) {
		const uint32_t i = volume_find_node(v, nodes[k]->node);

		if (i < v->node_count || add_node(v, nodes[k]))
			take_node(v, i, nodes[k]);
	}
}

static void permit_node(struct vnode *n, bool permitted)
{
	n->permitted = permitted;
	for (uint32_t k = 0; k < VREPLICA_SHARDS_MAX && n->replicas[k] != NULL; k++)
		n->replicas[k]->permitted = permitted;
}

/* Once all that are out are known: what is dropped with one of them may be decided at that, by the
 * copies that count. */
static void follow_permit(struct volume *v)
{
	for (uint32_t i = 0; i < v->node_count; i++)
		for (uint32_t k = 0; k < VREPLICA_SHARDS_MAX && v->nodes[i].replicas[k] != NULL;
		     k++)
			vreplica_follow_permit(v->nodes[i].replicas[k]);
}

void volume_take_nodes(struct volume *v, Pave__V1__MapNode *const *nodes, size_t count)
{
	PRE(v->chunks == NULL);
	volume_take_addresses(v, nodes, count);
	for (uint32_t i = 0; i < v->node_count; i++) {
		size_t k = 0;

		while (k < count && strcmp(nodes[k]->node, v->nodes[i].name) != 0)
			k++;
		permit_node(&v->nodes[i], k < count);
	}
	follow_permit(v);
}

void volume_take_min_acks(struct volume *v, uint32_t min_acks)
{
	const uint32_t need = vquorum_need(v->replicas, min_acks);

	if (v->chunks == NULL || min_acks == 0 || need == v->need)
		return;
	log_info("volume", "%s: writes need %u copies from now on, and not %u", v->config.name,
		 need, v->need);
	v->need = need;
}

/* -- permits ----------------------------------------------------------------------------------- */

/* Undecided writes are counted again: the gate opened, or a copy stopped counting. What waits tries
 * again. Chunks of which neither is true need not be gone through. */
static void judge_all(struct volume *v)
{
	struct vchunk *c, *next_chunk;

	DL_FOREACH_SAFE2(v->busy, c, next_chunk, busy_next)
	{
		struct vwindow_entry *e = c->window.undecided;

		while (e != NULL) {
			struct vwindow_entry *next = e->next;

			vwrite_judge(vwrite_of_entry(e));
			/* Judging takes out no other write than this one. */
			e = next;
		}
		if (c->reads.head != NULL || c->writes != NULL)
			vchunk_kick(c);
	}
	DL_FOREACH2(v->troubled, c, troubled_next)
	vchunk_kick(c);
}

void volume_permit_changed(struct volume *v)
{
	const struct permit *p = &v->attach.permit;

	if (v->chunks == NULL || v->ended != 0)
		return;
	if (v->attach.gate.deadline_ns != 0)
		vlayers_permit(v);
	if (v->attach.gate.deadline_ns != 0) { /* else the gate alone was closed */
		for (uint32_t i = 0; i < v->node_count; i++)
			permit_node(&v->nodes[i], permit_find_node(p, v->nodes[i].name) != NULL);
		follow_permit(v);
	}
	for (uint32_t i = 0; i < v->node_count; i++)
		for (uint32_t k = 0; k < VREPLICA_SHARDS_MAX && v->nodes[i].replicas[k] != NULL;
		     k++)
			vreplica_pump(v->nodes[i].replicas[k]);
	judge_all(v);
	vreconcile_kick(v);
	vresync_kick(v);
	volume_event(v);
}

uint32_t volume_get_connections(const struct volume *v, struct volume_connection *ret, uint32_t max)
{
	uint32_t count = 0;

	for (uint32_t i = 0; i < v->node_count; i++) {
		for (uint32_t k = 0; k < v->nodes[i].shard_count; k++) {
			const struct transport_conn *conn = v->nodes[i].replicas[k]->conn;

			if (conn == NULL || count++ >= max)
				continue;
			snprintf(ret[count - 1].node, sizeof ret->node, "%s", v->nodes[i].name);
			snprintf(ret[count - 1].transport, sizeof ret->transport, "%s",
				 transport_name(conn));
			ret[count - 1].stats = conn->stats;
		}
	}
	return count;
}

/* -- for people -------------------------------------------------------------------------------- */

static void describe_connection(const struct transport_conn *conn, Pave__V1__ReplicaState *item)
{
	item->transport = transport_name(conn);
	item->tx_frames += conn->stats.tx_frames;
	item->tx_bytes += conn->stats.tx_bytes;
	item->rx_frames += conn->stats.rx_frames;
	item->rx_bytes += conn->stats.rx_bytes;
	item->rx_copied_bytes += conn->stats.rx_copied_bytes;
}

void volume_describe_replicas(const struct volume *v, Pave__V1__ReplicaState *items)
{
	static char current[] = "current", behind[] = "behind", catching_up[] = "catching-up",
		    away[] = "away", refused[] = "refused", left[] = "left", none[] = "";
	bool used[VOLUME_NODES_MAX] = {false};
	char *states[VOLUME_NODES_MAX];

	for (uint32_t i = 0; i < v->node_count; i++) {
		const struct vnode *n = &v->nodes[i];
		bool ready = n->shard_count > 0;

		pave__v1__replica_state__init(&items[i]);
		items[i].node = (char *)(uintptr_t)n->name;
		items[i].transport = none;
		for (uint32_t k = 0; k < n->shard_count; k++) {
			if (n->replicas[k]->conn != NULL)
				describe_connection(n->replicas[k]->conn, &items[i]);
			ready = ready && vreplica_ready(n->replicas[k]);
			items[i].lag += n->replicas[k]->backlog_ops;
			items[i].resync_rate += n->replicas[k]->catchup.rate_blocks * BLOCK_SIZE;
		}
		states[i] = !n->permitted ? refused : ready ? current : away;
	}
	for (uint32_t c = 0; c < v->chunk_count; c++) {
		for (uint32_t k = 0; k < v->slot_count; k++) {
			const struct vslot *s = &v->chunks[c].slots[k];

			if ((vchunk_used(&v->chunks[c]) & vmask_bit(k)) == 0)
				continue;
			used[s->node] = true;
			if (v->chunks[c].state != VCHUNK_SERVING || s->current)
				continue;
			items[s->node].chunks_behind++;
			items[s->node].resync_left += vresync_blocks_left(s) * BLOCK_SIZE;
			if (s->resync != NULL && states[s->node] != refused &&
			    states[s->node] != away)
				states[s->node] = catching_up;
			else if (states[s->node] == current)
				states[s->node] = behind;
		}
	}
	for (uint32_t i = 0; i < v->node_count; i++) {
		items[i].state = used[i] ? states[i] : left;
		if (items[i].chunks_behind == 0)
			items[i].resync_rate = 0;
	}
}
