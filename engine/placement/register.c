/* The register: see register.h. Here: the state in memory, and its way to kv. The records are
 * packed and read in register_codec.c.
 *
 * The moves of volumes are in register_moves.c. Invariant: while a commit is in flight, what is
 * saved gathers in `open`, and its waiters in open_waiters; so commits are never more than one, and
 * their order is the order of the changes.
 *
 * Failure: the first failed commit breaks the register for good. Memory may then be ahead of the
 * disk, and nothing may be answered from it. */
#include "engine/placement/register.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/assert.h"
#include "engine/base/log.h"
#include "engine/placement/family.h"
#include "engine/placement/register_codec.h"

const char *const pd_kv_family_names[PD_KV_FAMILIES] = {"meta", "documents", "volumes",
							"maps", "nodes",     "ledger"};

/* -- commits ---------------------------------------------------------------------------------- */

void reg_break(struct reg *reg, int status)
{
	PRE(status < 0);
	if (reg->broken != 0)
		return;
	reg->broken = status;
	log_error("register",
		  "cannot be written (%s): the driver answers no more until it is started again",
		  err_text(status));
	if (reg->on_broken != NULL)
		reg->on_broken(reg);
}

static void complete(struct reg_commit *list, int status)
{
	while (list != NULL) {
		struct reg_commit *c = list;

		list = c->next;
		c->done(c, status);
	}
}

static void submit_open(struct reactor_task *task)
{
	struct reg *reg = container_of(task, struct reg, submit);
	struct kv_batch *batch = reg->open;

	if (reg->in_flight || (batch == NULL && reg->open_waiters == NULL))
		return;
	reg->flight_no = reg->open_no++;
	reg->flight_waiters = reg->open_waiters;
	reg->open_waiters = NULL;
	reg->open = NULL;
	if (batch == NULL && reg->broken == 0) {
		batch = kv_batch_create(reg->kv);
		if (batch == NULL)
			reg_break(reg, -ENOMEM);
	}
	if (reg->broken != 0) {
		struct reg_commit *waiters = reg->flight_waiters;

		reg->flight_waiters = NULL;
		kv_batch_destroy(reg->kv, batch);
		complete(waiters, reg->broken);
		return;
	}
	reg->in_flight = true;
	kv_commit(reg->kv, batch, &reg->op);
}

static void committed(struct kv_op *op, int status)
{
	struct reg *reg = container_of(op, struct reg, op);
	struct reg_commit *waiters = reg->flight_waiters;

	INVARIANT(reg->in_flight);
	reg->in_flight = false;
	reg->flight_waiters = NULL;
	if (status == 0)
		reg->durable_no = reg->flight_no;
	if (status != 0)
		reg_break(reg, status);
	/* What has gathered goes to the disk while those who waited are answered, which takes as
	 * long when they are hundreds, each with a signature. */
	submit_open(&reg->submit);
	complete(waiters, status);
}

struct kv_batch *reg_batch(struct reg *reg)
{
	if (reg->open == NULL && reg->broken == 0) {
		reg->open = kv_batch_create(reg->kv);
		if (reg->open == NULL)
			reg_break(reg, -ENOMEM);
	}
	return reg->open;
}

void reg_flush(struct reg *reg, struct reg_commit *c)
{
	struct reg_commit **end = &reg->open_waiters;

	while (*end != NULL)
		end = &(*end)->next;
	c->next = NULL;
	*end = c;
	reactor_defer(reg->reactor, &reg->submit);
}

uint64_t reg_batch_no(const struct reg *reg)
{
	return reg->open_no;
}

bool reg_is_durable(const struct reg *reg, uint64_t batch_no)
{
	return batch_no <= reg->durable_no;
}

bool reg_may_erase(const struct reg *reg)
{
	return reg_is_durable(reg, reg->parted_no);
}

bool reg_idle(const struct reg *reg)
{
	return !reg->in_flight && reg->open_waiters == NULL &&
	       (reg->open == NULL || reg->broken != 0);
}

void reg_init(struct reg *reg, struct reactor *r, struct kv *kv)
{
	memset(reg, 0, sizeof *reg);
	reg->reactor = r;
	reg->kv = kv;
	reg->op.done = committed;
	reg->submit.run = submit_open;
	reg->next_volume = 1;
	reg->open_no = 1;
}

/* -- nodes ------------------------------------------------------------------------------------ */

struct reg_node *reg_node_find(struct reg *reg, const char *name)
{
	struct reg_node *n;

	HASH_FIND_STR(reg->nodes, name, n);
	return n;
}

struct reg_node *reg_node_add(struct reg *reg, const char *name, const char *site)
{
	struct reg_node *n;

	PRE(strlen(name) < NAME_SIZE_MAX && strlen(site) < NAME_SIZE_MAX);
	PRE(reg_node_find(reg, name) == NULL);
	if (HASH_COUNT(reg->nodes) >= PD_NODES_MAX)
		return NULL;
	n = calloc(1, sizeof *n);
	if (n == NULL)
		return NULL;
	memcpy(n->name, name, strlen(name) + 1);
	memcpy(n->site, site, strlen(site) + 1);
	HASH_ADD_STR(reg->nodes, name, n);
	if (n->hh.tbl != NULL)
		return n;
	free(n);
	return NULL;
}

static void node_free(struct reg_node *n)
{
	free(n->addresses);
	identity_der_free(&n->certificate);
	identity_der_free(&n->ca);
	free(n);
}

void reg_node_forget(struct reg *reg, struct reg_node *n)
{
	PRE(n->placed_chunks == 0 && n->learners == 0 && n->session == NULL);
	reg_delete_node(reg, n);
	HASH_DELETE(hh, reg->nodes, n);
	node_free(n);
}

int reg_node_set_addresses(struct reg_node *n, char *const *addresses, size_t count)
{
	char(*list)[ADDR_SIZE_MAX] = NULL;

	PRE(count <= REG_ADDRESSES_MAX);
	if (count > 0) {
		list = calloc(count, sizeof *list);
		if (list == NULL)
			return -ENOMEM;
	}
	for (size_t i = 0; i < count; i++) {
		PRE(strlen(addresses[i]) < ADDR_SIZE_MAX);
		memcpy(list[i], addresses[i], strlen(addresses[i]) + 1);
	}
	free(n->addresses);
	n->addresses = list;
	n->address_count = (uint32_t)count;
	return 0;
}

static int copy_der(struct identity_der *dst, const ProtobufCBinaryData *src)
{
	*dst = (struct identity_der){.size = src->len};
	if (src->len == 0)
		return 0;
	dst->data = malloc(src->len);
	if (dst->data == NULL)
		return -ENOMEM;
	memcpy(dst->data, src->data, src->len);
	return 0;
}

int reg_node_set_identity(struct reg_node *n, const ProtobufCBinaryData *certificate,
			  const ProtobufCBinaryData *ca)
{
	struct identity_der a, b;

	if (copy_der(&a, certificate) != 0)
		return -ENOMEM;
	if (copy_der(&b, ca) != 0) {
		identity_der_free(&a);
		return -ENOMEM;
	}
	identity_der_free(&n->certificate);
	identity_der_free(&n->ca);
	n->certificate = a;
	n->ca = b;
	return 0;
}

/* -- volumes ---------------------------------------------------------------------------------- */

struct reg_volume *reg_volume_find(struct reg *reg, const char *name)
{
	struct reg_volume *v;

	HASH_FIND(hh_name, reg->names, name, strlen(name), v);
	return v;
}

struct reg_volume *reg_volume_by_id(struct reg *reg, volume_id_t id)
{
	struct reg_volume *v;

	HASH_FIND(hh, reg->volumes, &id, sizeof id, v);
	return v;
}

void reg_count_chunk(const struct reg_volume *v, struct reg_node *n, int sign)
{
	/* A snapshot's own layer is empty. */
	const uint64_t bytes = strchr(v->name, '@') == NULL ? v->chunk_size : 0;

	INVARIANT(sign > 0 || n->placed_chunks > 0);
	n->placed_chunks += (uint64_t)sign;
	n->placed_bytes += sign > 0 ? bytes : -bytes;
}

/* Adds (sign 1) or takes off (sign -1) what the map lays on its nodes. */
void reg_count_placed(const struct reg_volume *v, int sign)
{
	for (size_t i = 0; v->map != NULL && i < (size_t)v->chunk_count * v->replicas; i++)
		reg_count_chunk(v, v->nodes[v->map[i]], sign);
}

int reg_volume_link(struct reg *reg, struct reg_volume *v)
{
	HASH_ADD(hh, reg->volumes, id, sizeof v->id, v);
	if (v->hh.tbl == NULL)
		return -ENOMEM;
	if (!v->deleted)
		HASH_ADD_KEYPTR(hh_name, reg->names, v->name, strlen(v->name), v);
	if (!v->deleted && v->hh_name.tbl == NULL) {
		HASH_DEL(reg->volumes, v);
		return -ENOMEM;
	}
	reg->volume_count++;
	return 0;
}

struct reg_volume *reg_volume_add(struct reg *reg, const char *name, uint32_t chunk_count,
				  uint32_t replicas, uint64_t chunk_size, struct reg_node **nodes,
				  uint32_t node_count, uint8_t *map)
{
	struct reg_volume *v = calloc(1, sizeof *v);

	PRE(reg_volume_find(reg, name) == NULL && strlen(name) < NAME_SIZE_MAX);
	PRE(node_count <= REG_MAP_NODES_MAX && chunk_count <= REG_CHUNKS_MAX);
	if (v == NULL)
		return NULL;
	v->id = reg->next_volume++;
	memcpy(v->name, name, strlen(name) + 1);
	v->chunk_size = chunk_size;
	v->replicas = replicas;
	v->map_version = 1;
	v->nodes = nodes;
	v->node_count = node_count;
	v->map = map;
	v->chunk_count = chunk_count;
	if (reg_volume_link(reg, v) != 0) {
		free(v);
		return NULL;
	}
	reg_count_placed(v, 1);
	return v;
}

void reg_volume_join(struct reg_volume *v, struct reg_volume *of)
{
	PRE(v->kin_prev == NULL && v->kin_next == NULL && v != of);
	v->family = family_of(of);
	while (of->kin_next != NULL)
		of = of->kin_next;
	of->kin_next = v;
	v->kin_prev = of;
}

static void leave_family(struct reg_volume *v)
{
	if (v->kin_prev != NULL)
		v->kin_prev->kin_next = v->kin_next;
	if (v->kin_next != NULL)
		v->kin_next->kin_prev = v->kin_prev;
	v->kin_prev = v->kin_next = NULL;
}

static int by_family(const void *a, const void *b)
{
	const struct reg_volume *const *x = a;
	const struct reg_volume *const *y = b;
	const volume_id_t p = family_of(*x), q = family_of(*y);

	if (p != q)
		return p < q ? -1 : 1;
	return (*x)->id < (*y)->id ? -1 : (*x)->id > (*y)->id;
}

int reg_link_families(struct reg *reg)
{
	struct reg_volume **list = malloc((reg->volume_count + 1) * sizeof(struct reg_volume *));
	size_t count = 0;

	if (list == NULL)
		return -ENOMEM;
	for (struct reg_volume *v = reg->volumes; v != NULL; v = v->hh.next)
		if (!v->deleted)
			list[count++] = v;
	qsort(list, count, sizeof(struct reg_volume *), by_family);
	for (size_t i = 1; i < count; i++) {
		if (family_of(list[i]) != family_of(list[i - 1]))
			continue;
		list[i]->kin_prev = list[i - 1];
		list[i - 1]->kin_next = list[i];
	}
	free(list);
	return 0;
}

void reg_volume_set_map(struct reg_volume *v, struct reg_node **nodes, uint32_t node_count,
			uint8_t *map, uint32_t chunk_count)
{
	reg_count_placed(v, -1);
	free(v->nodes);
	free(v->map);
	v->nodes = nodes;
	v->node_count = node_count;
	v->map = map;
	v->chunk_count = chunk_count;
	reg_count_placed(v, 1);
}

int reg_volume_bury(struct reg *reg, struct reg_volume *v)
{
	int rc = reg_own_dropped(v);

	PRE(!v->deleted);
	if (rc != 0) {
		reg_break(reg, rc);
		return rc;
	}
	reg->parted_no = reg_batch_no(reg);
	reg_count_placed(v, -1);
	reg_count_moves(v, -1);
	v->move_count = 0;
	HASH_DELETE(hh_name, reg->names, v);
	leave_family(v);
	v->deleted = true;
	free(v->erase); /* one that was loaded has room for none */
	v->erase = v->nodes;
	v->erase_count = v->node_count;
	v->nodes = NULL;
	v->node_count = 0;
	free(v->drops);
	v->drops = NULL;
	v->drop_count = v->drop_room = 0;
	free(v->map);
	v->map = NULL;
	v->chunk_count = 0;
	return 0;
}

int reg_volume_also_erase(struct reg *reg, struct reg_volume *tombstone, const struct reg_volume *v)
{
	struct reg_node **larger = realloc(
	    tombstone->erase, (tombstone->erase_count + v->node_count + 1) * sizeof *larger);
	uint32_t count = tombstone->erase_count;

	if (larger == NULL) {
		reg_break(reg, -ENOMEM);
		return -ENOMEM;
	}
	tombstone->erase = larger;
	for (uint32_t i = 0; i < v->node_count; i++) {
		uint32_t k = 0;

		while (k < count && larger[k] != v->nodes[i])
			k++;
		if (k == count)
			larger[count++] = v->nodes[i];
	}
	if (count > REG_MAP_NODES_MAX)
		return -E_LIMIT;
	tombstone->erase_count = count;
	return 0;
}

void reg_volume_erased(struct reg_volume *v, const struct reg_node *n)
{
	uint32_t kept = 0;

	for (uint32_t i = 0; i < v->erase_count; i++)
		if (v->erase[i] != n)
			v->erase[kept++] = v->erase[i];
	v->erase_count = kept;
}

void reg_volume_free(struct reg_volume *v)
{
	free(v->nodes);
	free(v->map);
	free(v->erase);
	free(v->drops);
	free(v->reports);
	free(v);
}

void reg_volume_forget(struct reg *reg, struct reg_volume *v)
{
	PRE(v->deleted);
	reg_delete_volume(reg, v);
	HASH_DELETE(hh, reg->volumes, v);
	reg->volume_count--;
	reg_volume_free(v);
}

static int64_t end_of(const struct reg *reg, int64_t bound, uint64_t boot_ns, int64_t now)
{
	uint64_t boot_now = reactor_now_ns(reg->reactor);

	if (boot_ns > boot_now)
		bound = MAX(bound, now + (int64_t)(boot_ns - boot_now));
	return bound > now ? bound : 0;
}

int64_t reg_attachment_end(const struct reg *reg, const struct reg_volume *v, int64_t now)
{
	const struct reg_attachment *a = &v->attachment;

	return a->live ? end_of(reg, a->bound, a->boot_ns, now) : 0;
}

void reg_volume_add_older(struct reg_volume *v)
{
	const struct reg_attachment *a = &v->attachment;

	if (v->older_count == REG_OLDER_MAX) {
		/* The first two become one entry that only time releases: that is on the safe side.
		 */
		v->older[0].generation = 0;
		v->older[0].bound = MAX(v->older[0].bound, v->older[1].bound);
		v->older[0].boot_ns = MAX(v->older[0].boot_ns, v->older[1].boot_ns);
		memmove(&v->older[1], &v->older[2], (REG_OLDER_MAX - 2) * sizeof v->older[0]);
		v->older_count--;
	}
	v->older[v->older_count++] = (struct reg_older){a->generation, a->bound, a->boot_ns};
}

void reg_volume_drop_older(struct reg_volume *v, generation_t generation)
{
	uint32_t kept = 0;

	PRE(generation != 0);
	for (uint32_t i = 0; i < v->older_count; i++)
		if (v->older[i].generation != generation)
			v->older[kept++] = v->older[i];
	v->older_count = kept;
}

void reg_taken_over(struct reg *reg, uint64_t lifetime_ns)
{
	const uint64_t end = reactor_now_ns(reg->reactor) + lifetime_ns;

	for (struct reg_volume *v = reg->volumes; v != NULL; v = v->hh.next) {
		if (v->attachment.live)
			v->attachment.boot_ns = MAX(v->attachment.boot_ns, end);
		for (uint32_t i = 0; i < v->older_count; i++)
			v->older[i].boot_ns = MAX(v->older[i].boot_ns, end);
	}
}

int64_t reg_volume_older_end(const struct reg *reg, struct reg_volume *v, int64_t now)
{
	int64_t latest = 0;
	uint32_t kept = 0;

	for (uint32_t i = 0; i < v->older_count; i++) {
		int64_t end = end_of(reg, v->older[i].bound, v->older[i].boot_ns, now);

		if (end == 0)
			continue;
		latest = MAX(latest, end);
		v->older[kept++] = v->older[i];
	}
	v->older_count = kept;
	return latest;
}

/* -- the clock, and the end ------------------------------------------------------------------- */

int64_t reg_now(struct reg *reg, int64_t *ret_back_ns)
{
	int64_t wall = reactor_wall_ns(reg->reactor);

	if (wall > reg->wall_high)
		reg->wall_high = wall;
	if (ret_back_ns != NULL)
		*ret_back_ns = reg->wall_high - wall;
	if (reg->wall_high - reg->wall_high_saved >= REG_WALL_COARSE_NS) {
		/* Nobody waits for it. */
		reg->wall_high_saved = reg->wall_high;
		reg_save_meta(reg);
		reactor_defer(reg->reactor, &reg->submit);
	}
	return reg->wall_high;
}

void reg_deinit(struct reg *reg)
{
	struct reg_volume *v, *next_v;
	struct reg_node *n, *next_n;

	HASH_CLEAR(hh_name, reg->names);
	layers_free_all(reg);
	HASH_ITER (hh, reg->volumes, v, next_v) {
		HASH_DELETE(hh, reg->volumes, v);
		reg_volume_free(v);
	}
	HASH_ITER (hh, reg->nodes, n, next_n) {
		HASH_DELETE(hh, reg->nodes, n);
		node_free(n);
	}
	if (reg->kv != NULL)
		kv_batch_destroy(reg->kv, reg->open);
	reg->open = NULL;
}
