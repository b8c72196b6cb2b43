/* The volume under everything at once, on virtual time: random operations, judged by the
 * simulator's oracle, while nodes crash, hang, refuse, lie, run full, lose their permit, and hosts
 * crash and take the volume from each other. pave-sim does the same with the real nodes; here they
 * do things that real ones hardly ever do, so that failing writes, backlogs given up and chunks
 * without a current replica are common.
 *
 * STORM_SEEDS=N and STORM_FROM=S run others than the few that are run always; STORM_TRACE shows
 * one. */
#include <check.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/sim/oracle.h"
#include "tests/unit/test_volume_rig.h"

#define OPS	 24u
#define STEPS	 160u
#define HOT	 40u
#define SETTLE_S 120u

struct storm_op {
	struct volume_op op;
	struct volume_buffer *buffer;
	struct oracle_write write;
	struct oracle_read read;
	struct storm *storm;
	struct rig_host *host;
	bool busy;
};

struct storm {
	struct rig *rig;
	struct oracle *oracle;
	struct storm_op ops[RIG_HOSTS][OPS];
	generation_t generations[RIG_HOSTS];
	uint64_t seed;
	uint64_t done, failed, full, resyncs, reconciled, repairs, freezes, attaches;
	bool calm;
};

static uint64_t below(struct storm *s, uint64_t n)
{
	return sim_random_below(s->rig->world, n);
}

static void violated(const char *text, void *arg)
{
	struct storm *s = arg;

	sim_trace_print(s->rig->world, stderr, 100);
	ck_abort_msg("seed %lu: %s", (unsigned long)s->seed, text);
}

/* -- operations -------------------------------------------------------------------------------- */

static void op_done(struct volume_op *op, int status)
{
	struct storm_op *o = container_of(op, struct storm_op, op);
	struct storm *s = o->storm;

	ck_assert(o->busy);
	o->busy = false;
	s->done++;
	s->failed += status != 0;
	s->full += status == -ENOSPC;
	if (op->kind == VOLUME_READ)
		oracle_read_end(s->oracle, &o->read, status == 0 ? o->buffer->data : NULL);
	else
		oracle_write_end(s->oracle, &o->write, status);
	if (o->buffer != NULL)
		volume_buffer_put(o->host->volume, o->buffer);
	o->buffer = NULL;
}

static void choose_range(struct storm *s, uint64_t *ret_block, uint32_t *ret_count)
{
	const bool large = below(s, 8) == 0;

	*ret_count = large ? 256 : 1 + (uint32_t)below(s, 6);
	*ret_block = below(s, RIG_CHUNKS) * RIG_CHUNK_BLOCKS + below(s, HOT);
	if (large && below(s, 2) == 0)
		*ret_block = RIG_CHUNK_BLOCKS - 100; /* over the border */
}

static void start_op(struct storm *s, uint32_t host, struct storm_op *o, bool read, uint64_t block,
		     uint32_t count)
{
	const generation_t generation = s->generations[host];
	const bool zero = !read && below(s, 6) == 0;

	o->storm = s;
	o->host = &s->rig->hosts[host];
	o->op = (struct volume_op){
	    .done = op_done,
	    .kind = read   ? VOLUME_READ
		    : zero ? VOLUME_DISCARD
			   : VOLUME_WRITE,
	    .offset = block * BLOCK_SIZE,
	    .size = count * BLOCK_SIZE,
	};
	if (!zero) {
		o->buffer = volume_buffer_get(o->host->volume, count * BLOCK_SIZE);
		if (o->buffer == NULL)
			return;
	}
	o->op.buffer = o->buffer;
	o->busy = true;
	if (read) {
		oracle_read_begin(s->oracle, generation, block, count, &o->read);
	} else {
		oracle_write_begin(s->oracle, zero ? ORACLE_ZERO : ORACLE_DATA, generation, block,
				   count, &o->write);
		if (!zero)
			oracle_fill(&o->write, o->buffer->data);
	}
	volume_submit(o->host->volume, &o->op);
}

static void some_ops(struct storm *s)
{
	for (uint32_t h = 0; h < RIG_HOSTS; h++) {
		struct rig_host *host = &s->rig->hosts[h];

		if (host->volume == NULL || !host->opened || host->ended || host->closed)
			continue;
		for (uint32_t i = 0; i < OPS; i++) {
			uint64_t block;
			uint32_t count;

			if (s->ops[h][i].busy || below(s, 3) != 0)
				continue;
			choose_range(s, &block, &count);
			start_op(s, h, &s->ops[h][i], below(s, 2) == 0, block, count);
		}
	}
}

/* -- hosts ------------------------------------------------------------------------------------- */

static void count_stats(struct storm *s, struct rig_host *h)
{
	struct volume_stats stats = rig_stats(h);

	s->resyncs += stats.resyncs;
	s->reconciled += stats.reconciled_blocks;
	s->repairs += stats.repairs;
	s->freezes += stats.freezes;
}

static void crash_host(struct storm *s, uint32_t h)
{
	struct rig_host *host = &s->rig->hosts[h];

	if (host->volume != NULL && host->opened)
		count_stats(s, host);
	rig_crash_host(host);
	host->opened = false;
	for (uint32_t i = 0; i < OPS; i++) {
		struct storm_op *o = &s->ops[h][i];

		if (o->busy && o->op.kind == VOLUME_READ)
			oracle_read_end(s->oracle, &o->read, NULL);
		o->busy = false;
		o->buffer = NULL;
	}
}

/* One of them is to have the volume. Whoever was ended is put out of the way. */
static void want_host(struct storm *s, uint32_t h)
{
	struct rig_host *host = &s->rig->hosts[h];

	if (host->volume != NULL && !host->ended)
		return;
	crash_host(s, h);
	rig_open_start(host);
	for (uint32_t i = 0; i < 40000 && !host->opened; i++)
		rig_run_ms(s->rig, 1);
	ck_assert(host->opened);
	if (host->open_status != 0) {
		host->volume = NULL;
		return;
	}
	s->generations[h] = s->rig->pd.generation;
	s->attaches++;
}

/* -- faults ------------------------------------------------------------------------------------ */

static void fault(struct storm *s, struct fake_node *n)
{
	switch (below(s, 14)) {
	case 0:
		fake_crash(n);
		break;
	case 1:
		n->hold_writes = true;
		break;
	case 2:
		n->write_status = -ENOSPC;
		break;
	case 3:
		n->write_lies = -EIO;
		break;
	case 4:
		n->write_lies = -E_LEASE_EXPIRED;
		break;
	case 5:
		n->open_status = -E_NO_LEASE;
		sim_net_disconnect(n->process, s->rig->hosts[below(s, RIG_HOSTS)].process);
		break;
	case 6:
		n->read_status = -EIO;
		break;
	case 7:
		n->corrupt_reads = true;
		break;
	case 8:
		n->hold_reads = true;
		break;
	case 9:
		n->hold_pulls = true;
		break;
	case 10:
		n->delay_writes = true;
		break;
	case 11:
		n->delay_writes = true;
		s->rig->nodes[below(s, RIG_NODES)].write_status = -ENOSPC;
		break;
	case 12:
		sim_net_disconnect(n->process, s->rig->hosts[below(s, RIG_HOSTS)].process);
		break;
	default:
		rig_permit(s->rig, 7u & ~(1u << n->number));
		break;
	}
}

static void mend(struct storm *s, struct fake_node *n)
{
	if (!n->process->alive)
		fake_start(n);
	/* The pulls that it held it never answers: a real node does, or goes away. */
	for (uint32_t h = 0; n->hold_pulls && h < RIG_HOSTS; h++)
		sim_net_disconnect(n->process, s->rig->hosts[h].process);
	n->write_status = n->write_lies = n->open_status = n->read_status = 0;
	n->corrupt_reads = false;
	fake_release(n);
}

static void mend_all(struct storm *s)
{
	for (uint32_t i = 0; i < RIG_NODES; i++)
		mend(s, &s->rig->nodes[i]);
	rig_permit(s->rig, 7);
}

static void step(struct storm *s)
{
	struct fake_node *n = &s->rig->nodes[below(s, RIG_NODES)];
	const uint64_t x = below(s, 100);

	if (x < 25)
		fault(s, n);
	else if (x < 55)
		mend(s, n);
	else if (x < 62)
		rig_permit(s->rig, 7);
	else if (x < 64)
		crash_host(s, (uint32_t)below(s, RIG_HOSTS));
	else if (x < 66)
		want_host(s, (uint32_t)below(s, RIG_HOSTS));
	some_ops(s);
	rig_run_ms(s->rig, below(s, 4) == 0 ? below(s, 3000) : below(s, 60));
	for (uint32_t h = 0; h < RIG_HOSTS; h++)
		if (s->rig->hosts[h].volume != NULL)
			return;
	mend_all(s);
	want_host(s, (uint32_t)below(s, RIG_HOSTS));
}

/* -- the end ----------------------------------------------------------------------------------- */

static bool idle(const struct storm *s)
{
	for (uint32_t h = 0; h < RIG_HOSTS; h++)
		for (uint32_t i = 0; i < OPS; i++)
			if (s->ops[h][i].busy)
				return false;
	return true;
}

/* Everything is mended: operations end, all can be read, and all replicas agree. */
static void settle(struct storm *s)
{
	struct rig_host *host = &s->rig->hosts[0];
	uint64_t failed;

	mend_all(s);
	for (uint32_t i = 0; i < 60 && !idle(s); i++)
		rig_run_ms(s->rig, 1000);
	ck_assert_msg(idle(s), "seed %lu: operations hang", (unsigned long)s->seed);
	crash_host(s, 1);
	want_host(s, 0);
	ck_assert_int_eq(host->open_status, 0);
	failed = s->failed;
	for (uint64_t block = 0; block < RIG_BLOCKS; block += 64) {
		struct storm_op *o = &s->ops[0][0];

		start_op(s, 0, o, true, block, 64);
		for (uint32_t i = 0; i < 60000 && o->busy; i++)
			rig_run_ms(s->rig, 1);
		ck_assert(!o->busy);
		ck_assert_uint_eq(s->failed, failed);
	}
	for (uint32_t i = 0; i < SETTLE_S; i++)
		rig_run_ms(s->rig, 1000);
	rig_must_agree(s->rig);
	count_stats(s, host);
}

static void run(struct storm *s, uint64_t seed)
{
	*s = (struct storm){.seed = seed, .rig = rig_create(seed)};
	s->oracle = oracle_create(RIG_BLOCKS, violated, s);
	for (uint32_t i = 0; i < RIG_NODES; i++)
		s->rig->nodes[i].any_content = true;
	want_host(s, 0);
	for (uint32_t i = 0; i < STEPS; i++)
		step(s);
	settle(s);
	oracle_destroy(s->oracle);
	rig_destroy(s->rig);
}

START_TEST(what_readers_see_is_right)
{
	const char *seeds = getenv("STORM_SEEDS"), *from = getenv("STORM_FROM");
	const uint64_t first = from != NULL ? strtoull(from, NULL, 10) : 1;
	const uint64_t count = seeds != NULL ? strtoull(seeds, NULL, 10) : 12;
	struct storm *s = malloc(sizeof(*s));
	uint64_t done = 0, failed = 0, full = 0, resyncs = 0, reconciled = 0, repairs = 0;

	ck_assert_ptr_nonnull(s);
	for (uint64_t seed = first; seed < first + count; seed++) {
		run(s, seed);
		done += s->done;
		failed += s->failed;
		full += s->full;
		resyncs += s->resyncs;
		reconciled += s->reconciled;
		repairs += s->repairs;
	}
	free(s);
	fprintf(stderr,
		"%lu seeds: %lu operations, %lu failed (%lu for space), %lu resyncs, %lu blocks "
		"reconciled, %lu repairs\n",
		(unsigned long)count, (unsigned long)done, (unsigned long)failed,
		(unsigned long)full, (unsigned long)resyncs, (unsigned long)reconciled,
		(unsigned long)repairs);
	/* It has teeth only if all of it happens. */
	ck_assert_uint_gt(done, 400 * count);
	ck_assert_uint_gt(failed, count);
	ck_assert_uint_gt(resyncs, 10 * count);
	ck_assert_uint_gt(reconciled, 100 * count);
}
END_TEST

int main(void)
{
	TCase *tc = tcase_create("storm");
	Suite *s = suite_create("volume_storm");
	SRunner *sr = srunner_create(s);
	int failed;

	tcase_set_timeout(tc, 0);
	tcase_add_test(tc, what_readers_see_is_right);
	suite_add_tcase(s, tc);
	srunner_run_all(sr, CK_NORMAL);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed == 0 ? 0 : 1;
}
