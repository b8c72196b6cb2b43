/* kv (simulated): see kv.h.
 *
 * Each family is a map (map.h). A batch is the list of its changes; it is applied in one event, so
 * nothing is ever seen of half a batch. */
#include "tests/sim/kv.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/assert.h"
#include "tests/sim/map.h"

#define GET_DELAY_MIN_NS    3000u
#define GET_DELAY_MAX_NS    200000u
#define COMMIT_DELAY_MIN_NS 50000u
#define COMMIT_DELAY_MAX_NS (3 * NS_PER_MS)

enum change_kind { PUT, DELETE, DELETE_RANGE };

struct change {
	enum change_kind kind;
	uint32_t family;
	struct sim_entry *entry; /* DELETE_RANGE: key is from, value is to */
};

struct kv_batch {
	struct kv_batch *next; /* commits in flight */
	struct sim_kv *kv;
	struct kv_op *op;
	int status;
	bool begun; /* committed before the crash began */
	struct change *changes;
	size_t count, max;
};

struct sim_kv {
	struct kv head;
	struct sim_media media;
	struct sim_process *process;
	char name[ADDR_SIZE_MAX];
	bool open;
	uint32_t family_count;
	struct sim_map families[KV_FAMILIES_MAX];
	struct kv_batch *commits, **commits_tail;
	uint64_t last_commit_ns;  /* virtual time at which the last one in flight is done */
	uint64_t gets;		  /* in flight */
	uint64_t failing_gets;	  /* so many more fail */
	uint64_t failing_batches; /* so many more cannot be made */
	uint64_t get_delay_ns;	  /* on top of what it takes */
	uint64_t commit_delay_ns;
	uint64_t commit_count, fault_at;
	enum sim_io_action fault;
};

static struct sim_kv *kv_of(struct kv *kv)
{
	return container_of(kv, struct sim_kv, head);
}

/* -- contents -------------------------------------------------------------------------------- */

static void apply_change(struct sim_kv *k, struct change *c)
{
	struct sim_map *f = &k->families[c->family];
	struct sim_entry *e = c->entry;

	switch (c->kind) {
	case PUT:
		sim_map_insert(f, e);
		c->entry = NULL;
		break;
	case DELETE:
		sim_map_remove(f, e->bytes, e->key_size);
		break;
	case DELETE_RANGE:
		sim_map_remove_range(f, sim_map_lower_bound(f, e->bytes, e->key_size),
				     sim_map_lower_bound(f, e->bytes + e->key_size, e->value_size));
		break;
	}
}

/* -- batches --------------------------------------------------------------------------------- */

static struct kv_batch *batch_of(struct sim_kv *k)
{
	struct kv_batch *b = calloc(1, sizeof(*b));

	INVARIANT(b != NULL);
	b->kv = k;
	return b;
}

static struct kv_batch *sim_batch_create(struct kv *kv)
{
	struct sim_kv *k = kv_of(kv);

	if (k->failing_batches == 0)
		return batch_of(k);
	k->failing_batches--;
	return NULL;
}

static void add(struct kv_batch *b, enum change_kind kind, uint32_t family, struct sim_entry *e)
{
	PRE(family < b->kv->family_count);
	if (b->count == b->max) {
		b->max = b->max == 0 ? 16 : b->max * 2;
		b->changes = reallocarray(b->changes, b->max, sizeof(*b->changes));
		INVARIANT(b->changes != NULL);
	}
	b->changes[b->count++] = (struct change){.kind = kind, .family = family, .entry = e};
}

static void sim_batch_put(struct kv_batch *b, uint32_t family, const void *key, size_t key_size,
			  const void *value, size_t value_size)
{
	add(b, PUT, family, sim_entry_create(key, key_size, value, value_size));
}

static void sim_batch_delete(struct kv_batch *b, uint32_t family, const void *key, size_t key_size)
{
	add(b, DELETE, family, sim_entry_create(key, key_size, NULL, 0));
}

static void sim_batch_delete_range(struct kv_batch *b, uint32_t family, const void *from,
				   size_t from_size, const void *to, size_t to_size)
{
	add(b, DELETE_RANGE, family, sim_entry_create(from, from_size, to, to_size));
}

static void sim_batch_destroy(struct kv_batch *b)
{
	for (size_t i = 0; i < b->count; i++)
		free(b->changes[i].entry);
	free(b->changes);
	free(b);
}

static void apply(struct sim_kv *k, struct kv_batch *b)
{
	for (size_t i = 0; i < b->count; i++)
		apply_change(k, &b->changes[i]);
}

/* Commits complete in their order, so it is always the first. */
static void commit_done(void *arg)
{
	struct kv_batch *b = arg;
	struct sim_kv *k = b->kv;
	struct kv_op *op = b->op;
	int status = b->status;

	INVARIANT(k->commits == b);
	k->commits = b->next;
	if (k->commits == NULL)
		k->commits_tail = &k->commits;
	if (status == 0)
		apply(k, b);
	sim_trace(k->process->world, k->process, "%s commit of %lu done %d", k->name, b->count,
		  status);
	sim_batch_destroy(b);
	op->done(op, status);
}

static void sim_commit(struct kv *kv, struct kv_batch *b, struct kv_op *op)
{
	struct sim_kv *k = kv_of(kv);
	struct sim_process *p = k->process;
	struct sim_world *w = p->world;
	bool failed = b == NULL;
	uint64_t at_ns =
	    w->now_ns + k->commit_delay_ns +
	    sim_process_delay(p, sim_random_range(w, COMMIT_DELAY_MIN_NS, COMMIT_DELAY_MAX_NS));

	if (failed)
		b = batch_of(k);
	PRE(k->open && p->alive && b->kv == k && op->done != NULL);
	b->begun = !p->doomed;
	k->commit_count++;
	if (k->fault != SIM_IO_NORMAL && k->commit_count == k->fault_at) {
		sim_process_on_io(p, 1, k->fault);
		k->fault = SIM_IO_NORMAL;
	}
	b->status = sim_process_io(p) == SIM_IO_FAIL || failed ? -EIO : 0;
	b->op = op;
	*k->commits_tail = b;
	k->commits_tail = &b->next;
	k->last_commit_ns = MAX(k->last_commit_ns, at_ns);
	sim_schedule(w, p, k->last_commit_ns - w->now_ns, commit_done, b);
}

/* -- reading --------------------------------------------------------------------------------- */

/* In kv_get_op.impl. */
struct get {
	struct sim_kv *kv;
};
_Static_assert(sizeof(struct get) <= sizeof(((struct kv_get_op *)0)->impl), "impl");

static void get_done(void *arg)
{
	struct kv_get_op *op = arg;
	struct sim_kv *k = ((struct get *)(void *)op->impl)->kv;
	const struct sim_entry *e = sim_map_find(&k->families[op->family], op->key, op->key_size);
	size_t n;

	k->gets--;
	if (k->failing_gets > 0) {
		k->failing_gets--;
		op->done(op, -EIO);
		return;
	}
	if (e == NULL) {
		op->done(op, -ENOENT);
		return;
	}
	n = MIN(e->value_size, op->value_max);
	if (n > 0)
		memcpy(op->value, e->bytes + e->key_size, n);
	op->value_size = e->value_size;
	op->done(op, 0);
}

static void sim_get(struct kv *kv, struct kv_get_op *op)
{
	struct sim_kv *k = kv_of(kv);
	struct sim_process *p = k->process;
	uint64_t delay_ns =
	    k->get_delay_ns + sim_random_range(p->world, GET_DELAY_MIN_NS, GET_DELAY_MAX_NS);

	PRE(k->open && p->alive && op->family < k->family_count && op->done != NULL);
	PRE(op->key_size <= sizeof(op->key));
	((struct get *)(void *)op->impl)->kv = k;
	k->gets++;
	sim_schedule(p->world, p, sim_process_delay(p, delay_ns), get_done, op);
}

static int sim_scan(struct kv *kv, uint32_t family, const void *prefix, size_t prefix_size,
		    int (*each)(const void *key, size_t key_size, const void *value,
				size_t value_size, void *arg),
		    void *arg)
{
	struct sim_kv *k = kv_of(kv);
	struct sim_map *f = &k->families[family];
	int rc = 0;

	PRE(k->open && family < k->family_count);
	for (size_t i = sim_map_lower_bound(f, prefix, prefix_size); rc == 0 && i < f->count; i++) {
		const struct sim_entry *e = f->entries[i];

		if (e->key_size < prefix_size ||
		    (prefix_size > 0 && memcmp(e->bytes, prefix, prefix_size) != 0))
			break;
		rc = each(e->bytes, e->key_size, e->bytes + e->key_size, e->value_size, arg);
	}
	return rc;
}

static void sim_close(struct kv *kv)
{
	struct sim_kv *k = kv_of(kv);

	PRE(k->commits == NULL && k->gets == 0);
	k->open = false;
}

static const struct kv_ops sim_kv_ops = {
    .batch_create = sim_batch_create,
    .batch_put = sim_batch_put,
    .batch_delete = sim_batch_delete,
    .batch_delete_range = sim_batch_delete_range,
    .batch_destroy = sim_batch_destroy,
    .commit = sim_commit,
    .get = sim_get,
    .scan = sim_scan,
    .close = sim_close,
};

/* -- the machine ----------------------------------------------------------------------------- */

/* A first part of the commits in flight survives. */
static void media_crash(struct sim_media *m, enum sim_crash how)
{
	struct sim_kv *k = container_of(m, struct sim_kv, media);
	bool keep = true;

	(void)how;
	while (k->commits != NULL) {
		struct kv_batch *b = k->commits;

		if (k->process->fate == SIM_FATE_RANDOM)
			keep = keep && sim_chance(k->process->world, 1, 2);
		else
			keep = k->process->fate == SIM_FATE_KEEP;
		if (keep && b->begun && b->status == 0)
			apply(k, b);
		k->commits = b->next;
		sim_abandon(b->op);
		sim_batch_destroy(b);
	}
	k->commits_tail = &k->commits;
	k->last_commit_ns = 0;
	k->gets = 0;
	k->failing_gets = 0;
	k->failing_batches = 0;
	k->open = false;
	k->fault = SIM_IO_NORMAL;
}

static void media_destroy(struct sim_media *m)
{
	struct sim_kv *k = container_of(m, struct sim_kv, media);

	for (uint32_t i = 0; i < k->family_count; i++)
		sim_map_deinit(&k->families[i]);
	free(k);
}

struct sim_kv *sim_kv_create(struct sim_process *p, const char *name, uint32_t family_count)
{
	struct sim_kv *k = calloc(1, sizeof(*k));

	INVARIANT(k != NULL);
	PRE(family_count > 0 && family_count <= KV_FAMILIES_MAX && strlen(name) < sizeof(k->name));
	snprintf(k->name, sizeof(k->name), "%s", name);
	k->head.ops = &sim_kv_ops;
	k->family_count = family_count;
	k->process = p;
	k->commits_tail = &k->commits;
	k->media.crash = media_crash;
	k->media.destroy = media_destroy;
	sim_process_add_media(p, &k->media);
	return k;
}

struct kv *sim_kv_open(struct sim_kv *k)
{
	PRE(!k->open && k->process->alive);
	k->open = true;
	k->head.reactor = &k->process->reactor;
	return &k->head;
}

void sim_kv_on_commit(struct sim_kv *k, uint64_t n, enum sim_io_action action)
{
	PRE(n > 0);
	k->fault_at = k->commit_count + n;
	k->fault = action;
}

void sim_kv_each(struct sim_kv *k, uint32_t family,
		 void (*each)(const void *key, size_t key_size, const void *value,
			      size_t value_size, void *arg),
		 void *arg)
{
	struct sim_map *f = &k->families[family];

	PRE(family < k->family_count);
	for (size_t i = 0; i < f->count; i++) {
		const struct sim_entry *e = f->entries[i];

		each(e->bytes, e->key_size, e->bytes + e->key_size, e->value_size, arg);
	}
}

void sim_kv_fail_gets(struct sim_kv *k, uint64_t count)
{
	k->failing_gets = count;
}

void sim_kv_fail_batches(struct sim_kv *k, uint64_t count)
{
	k->failing_batches = count;
}

void sim_kv_slow_gets(struct sim_kv *k, uint64_t delay_ns)
{
	k->get_delay_ns = delay_ns;
}

void sim_kv_slow_commits(struct sim_kv *k, uint64_t delay_ns)
{
	k->commit_delay_ns = delay_ns;
}

uint64_t sim_kv_commit_count(const struct sim_kv *k)
{
	return k->commit_count;
}

uint64_t sim_kv_key_count(const struct sim_kv *k, uint32_t family)
{
	PRE(family < k->family_count);
	return k->families[family].count;
}
