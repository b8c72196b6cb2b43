/* kv (simulated): see kv.h.
 *
 * Each family is an array of entries sorted by key. A batch is the list of its changes; it is
 * applied in one event, so nothing is ever seen of half a batch. */
#include "tests/sim/kv.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/assert.h"

#define GET_DELAY_MIN_NS    3000u
#define GET_DELAY_MAX_NS    200000u
#define COMMIT_DELAY_MIN_NS 50000u
#define COMMIT_DELAY_MAX_NS (3 * NS_PER_MS)

struct entry {
	size_t key_size, value_size;
	uint8_t bytes[]; /* the key, then the value */
};

struct family {
	struct entry **entries;
	size_t count, max;
};

enum change_kind { PUT, DELETE, DELETE_RANGE };

struct change {
	enum change_kind kind;
	uint32_t family;
	struct entry *entry; /* DELETE_RANGE: key is from, value is to */
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
	struct family families[KV_FAMILIES_MAX];
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

static struct entry *entry_create(const void *key, size_t key_size, const void *value,
				  size_t value_size)
{
	struct entry *e = malloc(sizeof(*e) + key_size + value_size);

	INVARIANT(e != NULL);
	e->key_size = key_size;
	e->value_size = value_size;
	if (key_size > 0)
		memcpy(e->bytes, key, key_size);
	if (value_size > 0)
		memcpy(e->bytes + key_size, value, value_size);
	return e;
}

static int compare(const void *a, size_t a_size, const void *b, size_t b_size)
{
	size_t n = MIN(a_size, b_size);
	int order = n > 0 ? memcmp(a, b, n) : 0;

	if (order != 0)
		return order;
	return a_size < b_size ? -1 : a_size > b_size;
}

/* The first entry whose key is not below key. */
static size_t lower_bound(const struct family *f, const void *key, size_t key_size)
{
	size_t from = 0, to = f->count;

	while (from < to) {
		size_t mid = from + (to - from) / 2;
		const struct entry *e = f->entries[mid];

		if (compare(e->bytes, e->key_size, key, key_size) < 0)
			from = mid + 1;
		else
			to = mid;
	}
	return from;
}

static bool is_at(const struct family *f, size_t at, const void *key, size_t key_size)
{
	return at < f->count &&
	       compare(f->entries[at]->bytes, f->entries[at]->key_size, key, key_size) == 0;
}

static void remove_range(struct family *f, size_t from, size_t to)
{
	if (from >= to)
		return;
	for (size_t i = from; i < to; i++)
		free(f->entries[i]);
	memmove(f->entries + from, f->entries + to, (f->count - to) * sizeof(*f->entries));
	f->count -= to - from;
}

/* Takes e over. */
static void insert(struct family *f, struct entry *e)
{
	size_t at = lower_bound(f, e->bytes, e->key_size);

	if (is_at(f, at, e->bytes, e->key_size)) {
		free(f->entries[at]);
		f->entries[at] = e;
		return;
	}
	if (f->count == f->max) {
		f->max = f->max == 0 ? 64 : f->max * 2;
		f->entries = reallocarray(f->entries, f->max, sizeof(struct entry *));
		INVARIANT(f->entries != NULL);
	}
	memmove(f->entries + at + 1, f->entries + at, (f->count - at) * sizeof(*f->entries));
	f->entries[at] = e;
	f->count++;
}

static void apply_change(struct sim_kv *k, struct change *c)
{
	struct family *f = &k->families[c->family];
	struct entry *e = c->entry;
	size_t at;

	switch (c->kind) {
	case PUT:
		insert(f, e);
		c->entry = NULL;
		break;
	case DELETE:
		at = lower_bound(f, e->bytes, e->key_size);
		if (is_at(f, at, e->bytes, e->key_size))
			remove_range(f, at, at + 1);
		break;
	case DELETE_RANGE:
		remove_range(f, lower_bound(f, e->bytes, e->key_size),
			     lower_bound(f, e->bytes + e->key_size, e->value_size));
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

static void add(struct kv_batch *b, enum change_kind kind, uint32_t family, struct entry *e)
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
	add(b, PUT, family, entry_create(key, key_size, value, value_size));
}

static void sim_batch_delete(struct kv_batch *b, uint32_t family, const void *key, size_t key_size)
{
	add(b, DELETE, family, entry_create(key, key_size, NULL, 0));
}

static void sim_batch_delete_range(struct kv_batch *b, uint32_t family, const void *from,
				   size_t from_size, const void *to, size_t to_size)
{
	add(b, DELETE_RANGE, family, entry_create(from, from_size, to, to_size));
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
	struct family *f = &k->families[op->family];
	size_t at = lower_bound(f, op->key, op->key_size);
	const struct entry *e;
	size_t n;

	k->gets--;
	if (k->failing_gets > 0) {
		k->failing_gets--;
		op->done(op, -EIO);
		return;
	}
	if (!is_at(f, at, op->key, op->key_size)) {
		op->done(op, -ENOENT);
		return;
	}
	e = f->entries[at];
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
	struct family *f = &k->families[family];
	int rc = 0;

	PRE(k->open && family < k->family_count);
	for (size_t i = lower_bound(f, prefix, prefix_size); rc == 0 && i < f->count; i++) {
		const struct entry *e = f->entries[i];

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

	for (uint32_t i = 0; i < k->family_count; i++) {
		remove_range(&k->families[i], 0, k->families[i].count);
		free(k->families[i].entries);
	}
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
	struct family *f = &k->families[family];

	PRE(family < k->family_count);
	for (size_t i = 0; i < f->count; i++) {
		const struct entry *e = f->entries[i];

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
