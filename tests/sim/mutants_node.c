/* mutants of nodes, their stores and the driver: see mutants.h. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/assert.h"
#include "engine/node/shard.h"
#include "engine/placement/register.h"
#include "engine/store/store.h"
#include "tests/sim/mutants.h"
#include "tests/sim/process.h"
#include "tests/sim/stranger.h"

#define EARLY_NS (300 * NS_PER_MS)

static bool is(enum mutant m)
{
	return mutant_now() == m;
}

/* -- writes ---------------------------------------------------------------------------------- */

/* A write of which the node has told already that it is done. */
struct early {
	struct store_write op;
	struct store *store;
	struct store_write *asked;
	struct sim_process *process;
	uint64_t incarnation;
	uint32_t crcs[IO_BLOCKS_MAX];
	uint8_t *data;
};

void __real_store_write(struct store *store, struct store_write *op);

static void early_done(struct store_write *op, int status)
{
	struct early *e = container_of(op, struct early, op);

	(void)status;
	free(e->data);
	free(e);
}

static void early_write(void *arg)
{
	struct early *e = arg;

	__real_store_write(e->store, &e->op);
}

static void write_answered(void *arg)
{
	struct store_write *op = arg;

	op->done(op, 0);
}

static void answer_early(struct store *store, struct store_write *op)
{
	struct sim_world *w = sim_world_now();
	struct early *e = calloc(1, sizeof(*e));

	INVARIANT(e != NULL);
	e->store = store;
	e->op = *op;
	e->op.done = early_done;
	if (op->kind == STORE_DATA) {
		e->data = aligned_alloc(BLOCK_SIZE, (size_t)op->block_count * BLOCK_SIZE);
		INVARIANT(e->data != NULL);
		memcpy(e->data, op->data, (size_t)op->block_count * BLOCK_SIZE);
		memcpy(e->crcs, op->crcs, op->block_count * sizeof(e->crcs[0]));
		e->op.data = e->data;
		e->op.crcs = e->crcs;
	}
	sim_schedule(w, w->now, EARLY_NS, early_write, e);
	sim_schedule(w, w->now, NS_PER_MS, write_answered, op);
}

struct refused {
	struct refused *next;
	struct store_write *op;
	void (*done)(struct store_write *op, int status);
};
static struct refused *may_be_refused;

static void refused_done(struct store_write *op, int status)
{
	struct refused **at = &may_be_refused, *r;

	while ((*at)->op != op)
		at = &(*at)->next;
	r = *at;
	*at = r->next;
	op->done = r->done;
	free(r);
	op->done(op, status == -ENOSPC ? 0 : status);
}

static void answer_refused(struct store_write *op)
{
	struct refused *r = malloc(sizeof(*r));

	INVARIANT(r != NULL);
	*r = (struct refused){.next = may_be_refused, .op = op, .done = op->done};
	may_be_refused = r;
	op->done = refused_done;
}

void __wrap_store_write(struct store *store, struct store_write *op);
void __wrap_store_write(struct store *store, struct store_write *op)
{
	struct sim_world *w = sim_world_now();

	if (is(MUTANT_PULL_OVERWRITES) && op->resync)
		op->version =
		    version_make(version_generation(op->version), version_seq(op->version) + 1000);
	if (is(MUTANT_SHORT_WRITE) && op->block_count > 1)
		op->block_count--;
	if (is(MUTANT_ACKED_EARLY) && !op->resync && sim_chance(w, 1, 3)) {
		answer_early(store, op);
		return;
	}
	if (is(MUTANT_ZERO_DROPPED) && op->kind == STORE_ZERO) {
		sim_schedule(w, w->now, NS_PER_MS, write_answered, op);
		return;
	}
	/* No host gives a version of this generation. */
	if (is(MUTANT_MERGE_DROPPED) && version_generation(op->version) == GENERATION_MAX) {
		sim_schedule(w, w->now, NS_PER_MS, write_answered, op);
		return;
	}
	if (is(MUTANT_FULL_ANSWERED) && op->volume != STRANGER_VOLUME)
		answer_refused(op);
	__real_store_write(store, op);
}

/* -- lists of changes ------------------------------------------------------------------------ */

#define FEW_CHANGES 3u

struct cut_list {
	struct cut_list *next;
	struct store_changes_op *op;
	void (*done)(struct store_changes_op *op, int status);
};
static struct cut_list *cut_lists;

static void list_done(struct store_changes_op *op, int status)
{
	struct cut_list **at = &cut_lists, *l;

	while ((*at)->op != op)
		at = &(*at)->next;
	l = *at;
	*at = l->next;
	op->done = l->done;
	free(l);
	if (status == 0)
		op->next = UINT32_MAX;
	op->done(op, status);
}

void __real_store_changes(struct store *store, struct store_changes_op *op);
void __wrap_store_changes(struct store *store, struct store_changes_op *op);
void __wrap_store_changes(struct store *store, struct store_changes_op *op)
{
	struct cut_list *l;

	if (is(MUTANT_CHANGES_CUT)) {
		l = malloc(sizeof(*l));
		INVARIANT(l != NULL);
		*l = (struct cut_list){.next = cut_lists, .op = op, .done = op->done};
		cut_lists = l;
		op->done = list_done;
		op->max = MIN(op->max, FEW_CHANGES);
	}
	__real_store_changes(store, op);
}

/* -- the gate -------------------------------------------------------------------------------- */

int __real_node_session_check_now(const struct node_session *s);
int __wrap_node_session_check_now(const struct node_session *s);
int __wrap_node_session_check_now(const struct node_session *s)
{
	if (!is(MUTANT_LATE_ANSWER))
		return __real_node_session_check_now(s);
	if (s->state != SESSION_OPEN)
		return -E_NO_PERMIT;
	return s->gate.deadline_ns != 0 ? 0 : s->gate.why;
}

/* -- the driver ------------------------------------------------------------------------------ */

void __real_reg_save_volume(struct reg *reg, const struct reg_volume *v);
void __wrap_reg_save_volume(struct reg *reg, const struct reg_volume *v);
void __wrap_reg_save_volume(struct reg *reg, const struct reg_volume *v)
{
	if (!is(MUTANT_GENERATION_LOST) || !v->attachment.live)
		__real_reg_save_volume(reg, v);
}

int64_t __real_reg_volume_older_end(const struct reg *reg, struct reg_volume *v, int64_t now);
int64_t __wrap_reg_volume_older_end(const struct reg *reg, struct reg_volume *v, int64_t now);
int64_t __wrap_reg_volume_older_end(const struct reg *reg, struct reg_volume *v, int64_t now)
{
	return is(MUTANT_OLDER_FORGOTTEN) ? 0 : __real_reg_volume_older_end(reg, v, now);
}
