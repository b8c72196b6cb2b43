/* The register's records: packed with protobuf-c (register.proto), and read back strictly: a record
 * that contradicts itself or another ends the loading with -E_CORRUPT, naming its key, because a
 * driver that guesses could hand out permits twice. */
#include "engine/placement/register_codec.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/assert.h"
#include "engine/base/text.h"
#include "engine/placement/layers.h"
#include "register.pb-c.h"

#define META_KEY    "meta"
#define PLANNER_KEY "planner"

static void volume_key(volume_id_t id, uint8_t ret_key[8])
{
	for (int i = 0; i < 8; i++)
		ret_key[i] = (uint8_t)(id >> (56 - 8 * i));
}

void reg_put(struct reg *reg, uint32_t family, const void *key, size_t key_size,
	     const ProtobufCMessage *m)
{
	struct kv_batch *batch = reg_batch(reg);
	size_t size = protobuf_c_message_get_packed_size(m);
	uint8_t *value;

	if (batch == NULL)
		return;
	value = malloc(size + 1);
	if (value == NULL) {
		reg_break(reg, -ENOMEM);
		return;
	}
	protobuf_c_message_pack(m, value);
	kv_batch_put(reg->kv, batch, family, key, key_size, value, size);
	free(value);
}

/* -- saving ----------------------------------------------------------------------------------- */

void reg_save_meta(struct reg *reg)
{
	Pave__Reg__Meta m = PAVE__REG__META__INIT;

	m.format = REG_FORMAT;
	m.cluster.data = reg->cluster.bytes;
	m.cluster.len = sizeof reg->cluster.bytes;
	m.next_volume = reg->next_volume;
	m.wall_high = reg->wall_high;
	m.permit_lifetime_ms = reg->permit_lifetime_ms;
	reg_put(reg, PD_KV_META, META_KEY, strlen(META_KEY), &m.base);
}

void reg_save_planner(struct reg *reg)
{
	const struct reg_planner *p = &reg->planner;
	Pave__Reg__Planner m = PAVE__REG__PLANNER__INIT;

	m.format = REG_FORMAT;
	m.paused = p->paused;
	m.balancing = p->balancing;
	m.rate = p->rate;
	m.replace_after_s = p->replace_after_s;
	m.started_at = p->started_at;
	m.moves_total = p->moves_total;
	m.moves_done = p->moves_done;
	m.bytes_total = p->bytes_total;
	m.bytes_done = p->bytes_done;
	reg_put(reg, PD_KV_META, PLANNER_KEY, strlen(PLANNER_KEY), &m.base);
}

void reg_save_node(struct reg *reg, const struct reg_node *n)
{
	Pave__Reg__Node m = PAVE__REG__NODE__INIT;
	char *addresses[REG_ADDRESSES_MAX];

	PRE(n->address_count <= REG_ADDRESSES_MAX);
	m.format = REG_FORMAT;
	m.name = (char *)(uintptr_t)n->name;
	m.site = (char *)(uintptr_t)n->site;
	if (n->has_device) {
		m.device.data = (uint8_t *)(uintptr_t)n->device.bytes;
		m.device.len = sizeof n->device.bytes;
	}
	for (uint32_t i = 0; i < n->address_count; i++)
		addresses[i] = n->addresses[i];
	m.n_addresses = n->address_count;
	m.addresses = addresses;
	m.size_bytes = n->size_bytes;
	m.live_bytes = n->live_bytes;
	m.free_bytes = n->free_bytes;
	m.reserve_bytes = n->reserve_bytes;
	m.last_seen = n->last_seen;
	m.certificate = (ProtobufCBinaryData){n->certificate.size, n->certificate.data};
	m.ca = (ProtobufCBinaryData){n->ca.size, n->ca.data};
	m.drain = n->drain;
	m.removed = n->removed;
	m.receipt_run = n->receipt_run;
	m.receipt_serial = n->receipt_serial;
	reg_put(reg, PD_KV_NODES, n->name, strlen(n->name), &m.base);
}

void reg_save_volume(struct reg *reg, const struct reg_volume *v)
{
	Pave__Reg__Volume m = PAVE__REG__VOLUME__INIT;
	Pave__Reg__Attachment a = PAVE__REG__ATTACHMENT__INIT;
	Pave__Reg__Older older[REG_OLDER_MAX];
	Pave__Reg__Older *older_list[REG_OLDER_MAX];
	char *erase[REG_MAP_NODES_MAX];
	uint8_t key[8];

	PRE(v->erase_count <= REG_MAP_NODES_MAX);
	m.format = REG_FORMAT;
	m.id = v->id;
	m.name = (char *)(uintptr_t)v->name;
	m.size = v->size;
	m.chunk_size = v->chunk_size;
	m.policy = (char *)(uintptr_t)v->policy;
	m.replicas = v->replicas;
	m.min_acks = v->min_acks;
	m.generation = v->generation;
	m.created_at = v->created_at;
	m.map_version = v->map_version;
	m.deleted = v->deleted;
	if (v->attachment.generation != 0) {
		a.generation = v->attachment.generation;
		a.holder = (char *)(uintptr_t)v->attachment.holder;
		a.holder_site = (char *)(uintptr_t)v->attachment.holder_site;
		a.endpoint = (char *)(uintptr_t)v->attachment.endpoint;
		a.read_only = v->attachment.read_only;
		a.maintenance = v->attachment.maintenance;
		a.live = v->attachment.live;
		a.serial = v->attachment.serial;
		a.bound = v->attachment.bound;
		m.attachment = &a;
	}
	for (uint32_t i = 0; i < v->older_count; i++) {
		pave__reg__older__init(&older[i]);
		older[i].generation = v->older[i].generation;
		older[i].bound = v->older[i].bound;
		older_list[i] = &older[i];
	}
	m.n_older = v->older_count;
	m.older = older_list;
	for (uint32_t i = 0; i < v->erase_count; i++)
		erase[i] = v->erase[i]->name;
	m.n_erase = v->erase_count;
	m.erase = erase;
	m.top = v->top;
	m.family = v->family;
	m.origin = (char *)(uintptr_t)v->origin;
	m.erase_layer = v->erase_layer;
	m.erase_after = v->erase_after;
	m.seal_wanted = v->seal_wanted;
	volume_key(v->id, key);
	reg_put(reg, PD_KV_VOLUMES, key, sizeof key, &m.base);
}

static void fill_moves(const struct reg_volume *v, Pave__Reg__Map *m, Pave__Reg__Move *moves,
		       Pave__Reg__Move **list)
{
	for (uint32_t i = 0; i < v->move_count; i++) {
		pave__reg__move__init(&moves[i]);
		moves[i].chunk = v->moves[i].chunk;
		moves[i].from = v->moves[i].from->name;
		moves[i].to = v->moves[i].to->name;
		moves[i].why = v->moves[i].why;
		moves[i].since = v->moves[i].since;
		list[i] = &moves[i];
	}
	m->n_moves = v->move_count;
	m->moves = list;
}

/* NULL: no memory. Freed as one piece. */
static Pave__Reg__Drop **make_drops(const struct reg_volume *v)
{
	const size_t count = v->drop_count;
	Pave__Reg__Drop **list =
	    malloc((count + 1) * (sizeof(Pave__Reg__Drop *) + sizeof(Pave__Reg__Drop)));
	Pave__Reg__Drop *drops = (Pave__Reg__Drop *)(void *)(list + count + 1);

	for (size_t i = 0; list != NULL && i < count; i++) {
		pave__reg__drop__init(&drops[i]);
		drops[i].chunk = v->drops[i].chunk;
		drops[i].node = v->drops[i].node->name;
		drops[i].generation = v->drops[i].generation;
		list[i] = &drops[i];
	}
	return list;
}

void reg_save_map(struct reg *reg, const struct reg_volume *v)
{
	Pave__Reg__Map m = PAVE__REG__MAP__INIT;
	Pave__Reg__Move moves[REG_MOVES_MAX], *move_list[REG_MOVES_MAX];
	Pave__Reg__Drop **drops = make_drops(v);
	char *nodes[REG_MAP_NODES_MAX];
	uint8_t key[8];

	if (drops == NULL) {
		reg_break(reg, -ENOMEM);
		return;
	}

	PRE(v->node_count <= REG_MAP_NODES_MAX && v->map != NULL);
	for (uint32_t i = 0; i < v->node_count; i++)
		nodes[i] = v->nodes[i]->name;
	m.format = REG_FORMAT;
	m.n_nodes = v->node_count;
	m.nodes = nodes;
	m.map.data = v->map;
	m.map.len = (size_t)v->chunk_count * v->replicas;
	fill_moves(v, &m, moves, move_list);
	m.n_drops = v->drop_count;
	m.drops = drops;
	volume_key(v->id, key);
	reg_put(reg, PD_KV_MAPS, key, sizeof key, &m.base);
	free(drops);
}

void reg_save_document(struct reg *reg, const char *key, const void *data, size_t size)
{
	struct kv_batch *batch = reg_batch(reg);

	if (batch != NULL)
		kv_batch_put(reg->kv, batch, PD_KV_DOCUMENTS, key, strlen(key), data, size);
}

void reg_delete_document(struct reg *reg, const char *key)
{
	struct kv_batch *batch = reg_batch(reg);

	if (batch != NULL)
		kv_batch_delete(reg->kv, batch, PD_KV_DOCUMENTS, key, strlen(key));
}

void reg_delete_node(struct reg *reg, const struct reg_node *n)
{
	struct kv_batch *batch = reg_batch(reg);

	if (batch != NULL)
		kv_batch_delete(reg->kv, batch, PD_KV_NODES, n->name, strlen(n->name));
}

void reg_delete_volume(struct reg *reg, const struct reg_volume *v)
{
	struct kv_batch *batch = reg_batch(reg);
	uint8_t key[8];

	volume_key(v->id, key);
	if (batch == NULL)
		return;
	kv_batch_delete(reg->kv, batch, PD_KV_VOLUMES, key, sizeof key);
	kv_batch_delete(reg->kv, batch, PD_KV_MAPS, key, sizeof key);
}

/* -- loading ---------------------------------------------------------------------------------- */

struct load {
	struct reg *reg;
	int (*document)(const char *key, const void *data, size_t size, void *arg);
	void *arg;
	struct error *err;
	bool has_meta;
};

static int corrupt(struct load *l, const char *family, const char *key, const char *what)
{
	return error_set(l->err, -E_CORRUPT, "register: %s record \"%s\": %s", family, key, what);
}

static bool set_name(char dst[NAME_SIZE_MAX], const char *src)
{
	if (strlen(src) >= NAME_SIZE_MAX)
		return false;
	memcpy(dst, src, strlen(src) + 1);
	return true;
}

static int load_meta(const void *key, size_t key_size, const void *value, size_t value_size,
		     void *arg)
{
	struct load *l = arg;
	struct reg *reg = l->reg;
	Pave__Reg__Meta *m = pave__reg__meta__unpack(NULL, value_size, value);
	char want[40], have[40];
	struct uuid cluster;
	int rc = 0;

	(void)key;
	(void)key_size;
	if (m == NULL)
		return corrupt(l, "meta", META_KEY, "does not parse");
	if (m->format != REG_FORMAT) {
		rc = error_set(l->err, -E_CORRUPT,
			       "register: its format is %u, this pave-pd reads %u: use the version "
			       "that wrote it, or a newer one",
			       m->format, REG_FORMAT);
	} else if (m->cluster.len != sizeof cluster.bytes || m->next_volume == 0) {
		rc = corrupt(l, "meta", META_KEY, "contradicts itself");
	} else {
		memcpy(cluster.bytes, m->cluster.data, sizeof cluster.bytes);
		if (!uuid_equal(&cluster, &reg->cluster))
			rc = error_set(
			    l->err, -E_WRONG_CLUSTER,
			    "the register is of cluster %s, the trust root of %s: give the "
			    "directory and the root of the same cluster",
			    text_uuid(&cluster, have, sizeof have),
			    text_uuid(&reg->cluster, want, sizeof want));
		reg->next_volume = m->next_volume;
		reg->wall_high = m->wall_high;
		reg->wall_high_saved = m->wall_high;
		reg->permit_lifetime_ms = m->permit_lifetime_ms;
		l->has_meta = true;
	}
	pave__reg__meta__free_unpacked(m, NULL);
	return rc;
}

static int load_planner(const void *key, size_t key_size, const void *value, size_t value_size,
			void *arg)
{
	struct load *l = arg;
	Pave__Reg__Planner *m = pave__reg__planner__unpack(NULL, value_size, value);

	(void)key;
	(void)key_size;
	if (m == NULL || m->format != REG_FORMAT) {
		if (m != NULL)
			pave__reg__planner__free_unpacked(m, NULL);
		return corrupt(l, "planner", PLANNER_KEY,
			       "does not parse, or is of another format");
	}
	l->reg->planner = (struct reg_planner){.paused = m->paused,
					       .balancing = m->balancing,
					       .rate = m->rate,
					       .replace_after_s = m->replace_after_s,
					       .started_at = m->started_at,
					       .moves_total = m->moves_total,
					       .moves_done = m->moves_done,
					       .bytes_total = m->bytes_total,
					       .bytes_done = m->bytes_done};
	pave__reg__planner__free_unpacked(m, NULL);
	return 0;
}

static int load_node(const void *key, size_t key_size, const void *value, size_t value_size,
		     void *arg)
{
	struct load *l = arg;
	Pave__Reg__Node *m = pave__reg__node__unpack(NULL, value_size, value);
	struct reg_node *n;
	int rc = 0;

	if (m == NULL || m->format != REG_FORMAT || !text_is_name(m->name) ||
	    !text_is_name(m->site) || strlen(m->name) != key_size ||
	    memcmp(m->name, key, key_size) != 0 || m->n_addresses > REG_ADDRESSES_MAX ||
	    (m->device.len != 0 && m->device.len != sizeof(struct uuid))) {
		rc = corrupt(l, "node", m != NULL ? m->name : "?", "contradicts itself");
		goto out;
	}
	for (size_t i = 0; i < m->n_addresses; i++) {
		if (strlen(m->addresses[i]) >= ADDR_SIZE_MAX) {
			rc = corrupt(l, "node", m->name, "has an address that is too long");
			goto out;
		}
	}
	n = reg_node_add(l->reg, m->name, m->site);
	if (n == NULL || reg_node_set_addresses(n, m->addresses, m->n_addresses) != 0) {
		rc = error_set(l->err, -ENOMEM, "register: no memory for node %s", m->name);
		goto out;
	}
	n->has_device = m->device.len != 0;
	if (n->has_device)
		memcpy(n->device.bytes, m->device.data, sizeof n->device.bytes);
	n->receipt_run = m->receipt_run;
	n->receipt_serial = m->receipt_serial;
	if (reg_node_set_identity(n, &m->certificate, &m->ca) != 0) {
		rc = error_set(l->err, -ENOMEM, "register: no memory for node %s", m->name);
		goto out;
	}
	n->size_bytes = m->size_bytes;
	n->live_bytes = m->live_bytes;
	n->free_bytes = m->free_bytes;
	n->reserve_bytes = m->reserve_bytes;
	n->last_seen = m->last_seen;
	n->drain = m->drain;
	n->removed = m->removed;
out:
	if (m != NULL)
		pave__reg__node__free_unpacked(m, NULL);
	return rc;
}

static bool volume_is_sane(const Pave__Reg__Volume *m)
{
	return m->format == REG_FORMAT && m->id != 0 && m->size > 0 &&
	       m->chunk_size >= CHUNK_SIZE_MIN && m->chunk_size <= CHUNK_SIZE_MAX &&
	       (m->chunk_size & (m->chunk_size - 1)) == 0 && m->replicas >= 1 &&
	       m->replicas <= REPLICAS_MAX && m->generation <= GENERATION_MAX &&
	       (m->size + m->chunk_size - 1) / m->chunk_size <= REG_CHUNKS_MAX &&
	       m->n_older <= REG_OLDER_MAX && m->n_erase <= REG_MAP_NODES_MAX &&
	       (m->attachment == NULL || (m->attachment->generation == m->generation &&
					  strlen(m->attachment->endpoint) < REG_ENDPOINT_MAX));
}

static bool fill_volume(struct reg *reg, struct reg_volume *v, const Pave__Reg__Volume *m)
{
	const Pave__Reg__Attachment *a = m->attachment;

	v->id = m->id;
	v->size = m->size;
	v->chunk_size = m->chunk_size;
	v->replicas = m->replicas;
	v->min_acks = m->min_acks;
	v->generation = m->generation;
	v->created_at = m->created_at;
	v->map_version = m->map_version;
	v->deleted = m->deleted;
	v->top = m->top;
	v->family = m->family;
	v->erase_layer = m->erase_layer;
	v->erase_after = m->erase_after;
	v->seal_wanted = m->seal_wanted;
	if (!set_name(v->name, m->name) || !set_name(v->policy, m->policy) ||
	    !set_name(v->origin, m->origin))
		return false;
	if (a != NULL) {
		v->attachment.generation = a->generation;
		v->attachment.read_only = a->read_only;
		v->attachment.maintenance = a->maintenance;
		v->attachment.live = a->live;
		/* Some permits were given with serials that were not noted. */
		v->attachment.serial = a->serial + REG_SERIAL_GAP;
		v->attachment.bound = a->bound;
		v->attachment.durable = a->bound;
		memcpy(v->attachment.endpoint, a->endpoint, strlen(a->endpoint) + 1);
		if (!set_name(v->attachment.holder, a->holder) ||
		    !set_name(v->attachment.holder_site, a->holder_site))
			return false;
	}
	for (size_t i = 0; i < m->n_older; i++)
		v->older[i] = (struct reg_older){m->older[i]->generation, m->older[i]->bound, 0};
	v->older_count = (uint32_t)m->n_older;
	for (size_t i = 0; i < m->n_erase; i++) {
		v->erase[i] = reg_node_find(reg, m->erase[i]);
		if (v->erase[i] == NULL)
			return false;
	}
	v->erase_count = (uint32_t)m->n_erase;
	return true;
}

static int load_volume(const void *key, size_t key_size, const void *value, size_t value_size,
		       void *arg)
{
	struct load *l = arg;
	Pave__Reg__Volume *m = pave__reg__volume__unpack(NULL, value_size, value);
	struct reg_volume *v = NULL;
	uint8_t want[8];
	int rc = 0;

	volume_key(m != NULL ? m->id : 0, want);
	if (m == NULL || key_size != sizeof want || memcmp(key, want, sizeof want) != 0 ||
	    !volume_is_sane(m) || m->id >= l->reg->next_volume) {
		rc = corrupt(l, "volume", m != NULL ? m->name : "?", "contradicts itself");
		goto out;
	}
	v = calloc(1, sizeof *v);
	if (v != NULL)
		v->erase = calloc(m->n_erase + 1, sizeof *v->erase);
	if (v == NULL || v->erase == NULL) {
		rc = error_set(l->err, -ENOMEM, "register: no memory for volume %s", m->name);
		goto out;
	}
	if (!fill_volume(l->reg, v, m) || reg_volume_by_id(l->reg, v->id) != NULL ||
	    (!v->deleted && reg_volume_find(l->reg, v->name) != NULL)) {
		rc = corrupt(l, "volume", m->name, "contradicts another record");
		goto out;
	}
	rc = reg_volume_link(l->reg, v);
	if (rc == 0)
		v = NULL;
out:
	if (v != NULL)
		reg_volume_free(v);
	if (m != NULL)
		pave__reg__volume__free_unpacked(m, NULL);
	return rc;
}

/* Nodes and places of the map. false: it contradicts the volume. */
static bool fill_map(struct reg *reg, struct reg_volume *v, const Pave__Reg__Map *m)
{
	v->chunk_count = (uint32_t)((v->size + v->chunk_size - 1) / v->chunk_size);
	if (m->format != REG_FORMAT || m->n_nodes == 0 || m->n_nodes > REG_MAP_NODES_MAX ||
	    m->map.len != (size_t)v->chunk_count * v->replicas)
		return false;
	for (size_t i = 0; i < m->n_nodes; i++) {
		v->nodes[i] = reg_node_find(reg, m->nodes[i]);
		if (v->nodes[i] == NULL)
			return false;
	}
	v->node_count = (uint32_t)m->n_nodes;
	for (size_t i = 0; i < m->map.len; i++)
		if (m->map.data[i] >= v->node_count)
			return false;
	memcpy(v->map, m->map.data, m->map.len);
	return true;
}

static bool fill_moves_back(struct reg *reg, struct reg_volume *v, const Pave__Reg__Map *m)
{
	if (m->n_moves > REG_MOVES_MAX)
		return false;
	for (size_t i = 0; i < m->n_moves; i++) {
		struct reg_move *x = &v->moves[i];

		*x = (struct reg_move){.chunk = m->moves[i]->chunk,
				       .from = reg_node_find(reg, m->moves[i]->from),
				       .to = reg_node_find(reg, m->moves[i]->to),
				       .why = m->moves[i]->why,
				       .since = m->moves[i]->since};
		if (x->chunk >= v->chunk_count || x->from == NULL || x->to == NULL ||
		    x->why >= MOVE_WHY_COUNT || reg_move_find(v, x->chunk) != NULL ||
		    !reg_holds(v, x->chunk, x->from) || reg_holds(v, x->chunk, x->to))
			return false;
		v->move_count++;
	}
	return true;
}

/* false: they contradict the nodes. *ret_rc: -ENOMEM. */
static bool fill_drops(struct reg *reg, struct reg_volume *v, const Pave__Reg__Map *m, int *ret_rc)
{
	v->drops = calloc(m->n_drops + 1, sizeof *v->drops);
	if (v->drops == NULL) {
		*ret_rc = -ENOMEM;
		return true;
	}
	v->drop_room = (uint32_t)m->n_drops + 1;
	for (size_t i = 0; i < m->n_drops; i++) {
		v->drops[i] = (struct reg_drop){.chunk = m->drops[i]->chunk,
						.node = reg_node_find(reg, m->drops[i]->node),
						.generation = m->drops[i]->generation};
		if (v->drops[i].node == NULL || v->drops[i].chunk >= REG_CHUNKS_MAX ||
		    reg_holds(v, v->drops[i].chunk, v->drops[i].node))
			return false;
		v->drop_count++;
	}
	return true;
}

static int load_map(const void *key, size_t key_size, const void *value, size_t value_size,
		    void *arg)
{
	struct load *l = arg;
	Pave__Reg__Map *m = pave__reg__map__unpack(NULL, value_size, value);
	struct reg_volume *v = NULL;
	volume_id_t id = 0;
	int rc = 0;

	for (size_t i = 0; i < key_size && i < 8; i++)
		id = id << 8 | ((const uint8_t *)key)[i];
	v = key_size == 8 ? reg_volume_by_id(l->reg, id) : NULL;
	if (m == NULL || v == NULL || v->map != NULL) {
		rc = corrupt(l, "map", v != NULL ? v->name : "?",
			     "has no volume, or does not parse");
		goto out;
	}
	if (v->deleted)
		goto out;
	v->nodes = calloc(m->n_nodes + 1, sizeof *v->nodes);
	v->map = malloc(m->map.len + 1);
	if (v->nodes == NULL || v->map == NULL) {
		rc = error_set(l->err, -ENOMEM, "register: no memory for the map of %s", v->name);
		goto out;
	}
	if (!fill_map(l->reg, v, m) || !fill_moves_back(l->reg, v, m) ||
	    !fill_drops(l->reg, v, m, &rc)) {
		rc = corrupt(l, "map", v->name, "contradicts the volume or the nodes");
		goto out;
	}
	if (rc != 0) {
		error_set(l->err, rc, "register: no memory for the map of %s", v->name);
		goto out;
	}
	reg_count_placed(v, 1);
	reg_count_moves(v, 1);
out:
	if (m != NULL)
		pave__reg__map__free_unpacked(m, NULL);
	return rc;
}

static int load_document(const void *key, size_t key_size, const void *value, size_t value_size,
			 void *arg)
{
	struct load *l = arg;
	char name[NAME_SIZE_MAX + 16];

	if (key_size >= sizeof name)
		return corrupt(l, "document", "?", "the name is too long");
	memcpy(name, key, key_size);
	name[key_size] = '\0';
	return l->document(name, value, value_size, l->arg);
}

int reg_load(struct reg *reg, struct reactor *r, struct kv *kv, const struct uuid *cluster,
	     int (*document)(const char *key, const void *data, size_t size, void *arg), void *arg,
	     struct error *err)
{
	struct load l = {.reg = reg, .document = document, .arg = arg, .err = err};
	struct reg_volume *v;
	int rc;

	reg_init(reg, r, kv);
	reg->cluster = *cluster;
	rc = kv_scan(kv, PD_KV_META, META_KEY, strlen(META_KEY), load_meta, &l);
	if (rc == 0 && l.has_meta)
		rc = kv_scan(kv, PD_KV_META, LAYERS_KEY_PREFIX, strlen(LAYERS_KEY_PREFIX),
			     layers_load, reg);
	if (rc == 0)
		rc = kv_scan(kv, PD_KV_META, PLANNER_KEY, strlen(PLANNER_KEY), load_planner, &l);
	if (rc == 0)
		rc = kv_scan(kv, PD_KV_NODES, "", 0, load_node, &l);
	if (rc == 0)
		rc = kv_scan(kv, PD_KV_VOLUMES, "", 0, load_volume, &l);
	if (rc == 0)
		rc = kv_scan(kv, PD_KV_MAPS, "", 0, load_map, &l);
	if (rc == 0)
		rc = kv_scan(kv, PD_KV_DOCUMENTS, "", 0, load_document, &l);
	for (v = reg->volumes; rc == 0 && v != NULL; v = v->hh.next)
		if (!v->deleted && v->map == NULL)
			rc = corrupt(&l, "volume", v->name, "has no map");
	if (rc == 0 && !l.has_meta && (reg->nodes != NULL || reg->volumes != NULL))
		rc = corrupt(&l, "meta", META_KEY, "is missing, but there are others");
	if (rc == 0)
		rc = reg_link_families(reg);
	if (rc != 0) {
		if (err != NULL && err->code == 0)
			error_set(err, rc, "register: cannot be read: %s", err_text(rc));
		reg_deinit(reg);
		memset(reg, 0, sizeof *reg);
		return rc;
	}
	if (!l.has_meta)
		reg_save_meta(reg);
	return 0;
}
