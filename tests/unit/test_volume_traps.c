/* Tests of engine/volume: evidence in the path of every operation, and the traps of the protocol,
 * each by its name (engine/ARCHITECTURE.md, "Replication"). The traps that are a matter of planning
 * alone are tested on the pure cores too: test_volume_cores.c. */
#include <check.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "engine/volume/core.h"
#include "tests/unit/test_volume_rig.h"

static struct rig *rig;
static struct rig_host *host, *second;

static void setup(void)
{
	rig = rig_create(2);
	host = &rig->hosts[0];
	second = &rig->hosts[1];
	rig_open(host);
}

static void teardown(void)
{
	rig_destroy(rig);
}

/* -- one writer -------------------------------------------------------------------------------- */

START_TEST(a_newer_attachment_fences_the_older)
{
	struct rig_op o;
	uint32_t stamp;

	ck_assert_int_eq(rig_write(host, 0, 1, 1), 0);
	/* The older one hears nothing from the driver. */
	sim_net_cut(rig->pd.process, host->process, true);
	rig_open(second);
	ck_assert_int_eq(rig_write(second, 0, 1, 2), 0);
	rig_start_write(host, &o, 0, 1, 3);
	ck_assert_int_ne(rig_finish(&o), 0);
	ck_assert(rig_wait(rig, &host->ended, 20000));
	ck_assert_int_eq(host->ended_why, -E_FENCED);
	ck_assert_int_eq(rig_read(host, 0, 1, &stamp), -E_FENCED);
	rig_must_read(second, 0, 1, 2);
	rig_close(host);
	/* It has nothing to release any more. */
	ck_assert_uint_eq(rig->pd.detaches, 0);
	rig_must_agree(rig);
}
END_TEST

/* Nobody could delete it before the permit had run out, and nobody will give another. */
START_TEST(an_attachment_ends_with_its_volume)
{
	uint32_t stamp;

	ck_assert_int_eq(rig_write(host, 0, 1, 1), 0);
	rig->pd.refuse = -ENOENT;
	ck_assert(rig_wait(rig, &host->ended, 20000));
	ck_assert_int_eq(host->ended_why, -ENOENT);
	ck_assert_int_eq(rig_read(host, 0, 1, &stamp), -ENOENT);
	rig_close(host);
}
END_TEST

START_TEST(operations_in_flight_are_fenced_too)
{
	struct rig_op w, r, held;

	rig->nodes[0].hold_writes = rig->nodes[1].hold_writes = rig->nodes[2].hold_writes = true;
	rig->nodes[0].hold_reads = rig->nodes[1].hold_reads = rig->nodes[2].hold_reads = true;
	rig_start_write(host, &w, 0, 1, 1);
	rig_start_read(host, &r, 9, 256);
	rig_start_read(host, &held, 0, 1);
	rig_run_ms(rig, 100);
	rig->pd.generation++; /* somebody else has it: the next renewal says so */
	ck_assert_int_eq(rig_finish(&w), -E_FENCED);
	ck_assert_int_eq(rig_finish(&r), -E_FENCED);
	ck_assert_int_eq(rig_finish(&held), -E_FENCED);
	ck_assert(rig_wait(rig, &host->ended, 1000));
	rig_close(host);
}
END_TEST

/* A fenced host might still read from a node that has not heard of the newer generation: so the
 * newer one serves nothing before the older permit has certainly run out. */
START_TEST(the_stale_reader)
{
	int64_t old_expiry, opened_at;

	ck_assert_int_eq(rig_write(host, 0, 1, 1), 0);
	rig_run_ms(rig, 4000);
	sim_net_cut(rig->pd.process, host->process, true);
	old_expiry = rig->pd.last_expiry;
	rig_open(second);
	opened_at = reactor_wall_ns(sim_reactor(second->process));
	ck_assert_int_ge(opened_at, old_expiry); /* the clocks of this world agree */
}
END_TEST

/* Nobody compares a host's clock with the driver's. */
START_TEST(the_stale_reader_when_a_clock_goes_before)
{
	int64_t old_expiry;

	ck_assert_int_eq(rig_write(host, 0, 1, 1), 0);
	rig_run_ms(rig, 4000);
	sim_net_cut(rig->pd.process, host->process, true);
	old_expiry = rig->pd.last_expiry;
	second->process->wall_offset_ns = 5 * (int64_t)NS_PER_S;
	rig_open(second);
	ck_assert_int_ge(reactor_wall_ns(sim_reactor(rig->pd.process)), old_expiry);
}
END_TEST

/* -- the permit -------------------------------------------------------------------------------- */

START_TEST(without_a_permit_operations_are_held_and_then_refused)
{
	struct rig_op o, r;
	uint64_t frames;

	ck_assert_int_eq(rig_write(host, 0, 1, 1), 0);
	rig->pd.silent = true;
	rig_run_ms(rig, PERMIT_LIFETIME_MS + 1000);
	frames = rig_stats(host).frames_sent;
	rig_start_write(host, &o, 0, 1, 2);
	rig_start_read(host, &r, 0, 1);
	rig_run_ms(rig, RIG_FREEZE_S * 1000 - 500);
	ck_assert(!o.done && !r.done);
	rig_run_ms(rig, 1000);
	ck_assert(o.done && r.done);
	ck_assert_int_eq(rig_finish(&o), -EIO);
	ck_assert_int_eq(rig_finish(&r), -EIO);
	ck_assert_uint_eq(rig_stats(host).frames_sent, frames);
	/* The driver is back. */
	rig_start_write(host, &o, 0, 1, 3);
	rig->pd.silent = false;
	ck_assert_int_eq(rig_finish(&o), 0);
	rig_must_read(host, 0, 1, 3);
}
END_TEST

START_TEST(a_driver_that_restarts_is_not_noticed)
{
	sim_net_disconnect(host->process, rig->pd.process);
	for (uint32_t i = 0; i < 20; i++) {
		ck_assert_int_eq(rig_write(host, i, 1, i + 1), 0);
		rig_run_ms(rig, 1000);
	}
	ck_assert_uint_ge(rig->pd.renews, 4);
}
END_TEST

START_TEST(a_refused_permit_closes_the_gate_at_once)
{
	struct rig_op o;

	rig->pd.refuse = -E_DENIED;
	rig_run_ms(rig, 4000);
	rig_start_write(host, &o, 0, 1, 2);
	rig_run_ms(rig, 2000);
	ck_assert(!o.done);
	ck_assert_uint_eq(fake_stamp(&rig->nodes[0], 0), 0);
	rig->pd.refuse = 0;
	ck_assert_int_eq(rig_finish(&o), 0);
}
END_TEST

START_TEST(permits_reach_the_nodes)
{
	rig_run_ms(rig, 20000);
	for (uint32_t i = 0; i < RIG_NODES; i++)
		ck_assert_uint_ge(rig->nodes[i].updates, 5);
	ck_assert_uint_ge(rig_stats(host).permits, 6);
}
END_TEST

/* Also while it still tells what it holds, and the permit before is on its way. */
START_TEST(a_permit_reaches_a_node_that_is_not_ready)
{
	struct fake_node *n = &rig->nodes[0];
	const uint64_t opens = n->opens;
	uint64_t updates;

	fake_crash(n);
	n->silent_chunks = true;
	fake_start(n);
	for (uint32_t i = 0; i < 500 && n->opens == opens; i++)
		rig_run_ms(rig, 10);
	ck_assert_uint_gt(n->opens, opens);
	rig_run_ms(rig, 50);
	updates = n->updates;
	for (uint32_t i = 0; i < 2; i++)
		rig_permit(rig, 7);
	rig_run_ms(rig, 100);
	ck_assert_uint_eq(n->updates, updates + 2);
	n->silent_chunks = false;
	rig_run_ms(rig, 10000);
	ck_assert_int_eq(rig_write(host, 0, 1, 2), 0);
}
END_TEST

/* One of many parts has no time limit for all of them: while parts are done it is not given up. */
START_TEST(a_long_zero_that_goes_on_is_not_given_up)
{
	const uint32_t step_ms = 1500, steps_max = 20, stops_after = _i == 0 ? steps_max : 2;
	uint32_t steps = 0;
	struct rig_op o;

	for (uint32_t i = 0; i < RIG_NODES; i++)
		rig->nodes[i].hold_writes = true;
	rig_start_zero(host, &o, 0, RIG_BLOCKS, false);
	for (; !o.done && steps < stops_after; steps++) {
		rig_run_ms(rig, step_ms);
		for (uint32_t i = 0; i < RIG_NODES; i++) {
			fake_release(&rig->nodes[i]);
			rig->nodes[i].hold_writes = true;
		}
	}
	ck_assert_int_eq(rig_finish(&o), _i == 0 ? 0 : -EIO);
	ck_assert(_i == 1 || steps * step_ms > RIG_FREEZE_S * 1000);
}
END_TEST

/* -- revocation -------------------------------------------------------------------------------- */

START_TEST(a_revoked_node_gets_nothing_more)
{
	uint64_t bytes, reads;

	ck_assert_int_eq(rig_write(host, 0, 16, 1), 0);
	rig_permit(rig, 3);
	rig_run_ms(rig, 50);
	bytes = rig->nodes[2].payload_bytes;
	reads = rig->nodes[2].reads;
	for (uint32_t i = 0; i < 100; i++) {
		ck_assert_int_eq(rig_write(host, i, 16, i + 2), 0);
		rig_must_read(host, i, 16, i + 2);
	}
	rig_run_ms(rig, 10000);
	ck_assert_uint_eq(rig->nodes[2].payload_bytes, bytes);
	ck_assert_uint_eq(rig->nodes[2].reads, reads);
	ck_assert_str_eq(rig->pd.states[2], "refused");
	/* Eligible again: it catches up. */
	rig_permit(rig, 7);
	rig_run_ms(rig, 5000);
	rig_must_agree(rig);
}
END_TEST

START_TEST(what_was_queued_for_a_revoked_node_is_not_sent_later)
{
	uint64_t bytes;

	rig->nodes[2].hold_writes = true;
	for (uint32_t i = 0; i < 200; i++) /* more than its window of 64 */
		ck_assert_int_eq(rig_write(host, i, 1, i + 1), 0);
	bytes = rig->nodes[2].payload_bytes;
	rig_permit(rig, 3);
	rig_run_ms(rig, 50);
	fake_release(&rig->nodes[2]);
	rig_run_ms(rig, 5000);
	ck_assert_uint_eq(rig->nodes[2].payload_bytes, bytes);
}
END_TEST

static uint32_t next_random(uint32_t *state)
{
	*state ^= *state << 13;
	*state ^= *state >> 17;
	*state ^= *state << 5;
	return *state;
}

/* What vwrite_overlaps finds by the span table, by looking at every write in the window. */
static struct vwrite_overlap overlaps_of_window(const struct vchunk *c, block_no_t block,
						uint32_t count, uint64_t seq_max)
{
	struct vwrite_overlap o = {0};

	for (struct vwindow_entry *e = c->window.head; e != NULL; e = e->next) {
		const struct vwrite *w = vwrite_of_entry(e);

		if (w->what.block >= block + count || block >= w->what.block + w->what.block_count)
			continue;
		o.any = true;
		if (w->acked)
			o.missing |= e->pending;
		else if (e->seq <= seq_max)
			o.undecided = true;
	}
	return o;
}

static void must_find_all(const struct vchunk *c, uint32_t *random)
{
	for (uint32_t i = 0; i < 2000; i++) {
		const uint32_t count = 1 + next_random(random) % IO_BLOCKS_MAX;
		const block_no_t block = next_random(random) % (2100 - count);
		const uint64_t seq = next_random(random) % (c->window.last_seq + 2);
		const uint32_t some = i % 2 == 0 ? 1 : count;
		const struct vwrite_overlap a = overlaps_of_window(c, block, some, seq);
		const struct vwrite_overlap b = vwrite_overlaps(c, block, some, seq);

		ck_assert_msg(a.any == b.any && a.missing == b.missing &&
				  a.undecided == b.undecided,
			      "blocks %u+%u", block, some);
	}
}

/* Writes of all sizes that one replica, or all of them, have not answered. */
START_TEST(every_write_in_flight_is_found)
{
	static const uint32_t sizes[] = {1, 1, 1, 2, 7, 8, 9, 63, 64, 65, 200, IO_BLOCKS_MAX};
	const struct vchunk *c = &host->volume->chunks[0];
	struct rig_op undecided[12];
	uint32_t random = 1;

	rig->nodes[2].hold_writes = true;
	for (uint32_t i = 0; i < 100; i++) {
		const uint32_t count = sizes[next_random(&random) % ARRAY_SIZE(sizes)];

		ck_assert_int_eq(
		    rig_write(host, next_random(&random) % (2000 - count), count, i + 1), 0);
	}
	rig->nodes[0].hold_writes = rig->nodes[1].hold_writes = true;
	for (uint32_t i = 0; i < ARRAY_SIZE(undecided); i++)
		rig_start_write(host, &undecided[i], next_random(&random) % 1700, sizes[i],
				200 + i);
	rig_run_ms(rig, 10);
	must_find_all(c, &random);
	for (uint32_t i = 0; i < RIG_NODES; i++)
		fake_release(&rig->nodes[i]);
	for (uint32_t i = 0; i < ARRAY_SIZE(undecided); i++)
		ck_assert_int_eq(rig_finish(&undecided[i]), 0);
	rig_run_ms(rig, 1000);
	ck_assert(!vwrite_overlaps(c, 0, RIG_CHUNK_BLOCKS, UINT64_MAX).any);
	ck_assert_uint_eq(host->volume->span_counts[0] + host->volume->span_counts[1], 0);
	rig_must_agree(rig);
}
END_TEST

/* Majority of what: of the configured replicas, not of those that are permitted. */
START_TEST(majority_of_what)
{
	struct rig_op o;

	ck_assert_int_eq(rig_write(host, 0, 1, 1), 0);
	rig_permit(rig, 1);
	rig_run_ms(rig, 50);
	rig_start_write(host, &o, 0, 1, 2);
	rig_run_ms(rig, RIG_FREEZE_S * 1000 - 1000);
	ck_assert(!o.done);
	ck_assert_int_eq(rig_finish(&o), -EIO);
	ck_assert_uint_ge(rig_stats(host).freezes, 1);
	/* Reading goes on, and shows nothing of it. */
	rig_must_read(host, 0, 1, 1);
	/* Thaw, without an error. */
	rig_start_write(host, &o, 0, 1, 3);
	rig_run_ms(rig, 1000);
	rig_permit(rig, 7);
	ck_assert_int_eq(rig_finish(&o), 0);
	rig_must_read(host, 0, 1, 3);
	rig_run_ms(rig, 5000);
	rig_must_agree(rig);
}
END_TEST

/* Who is away is not the reason where the evidence leaves too few. */
START_TEST(attaching_with_too_few_in_the_permit_is_a_refusal)
{
	const uint32_t all = rig->pd.nodes;

	rig_close(host);
	rig->pd.nodes = 1;
	rig_open_start(host);
	ck_assert(rig_wait(rig, &host->opened, 60000));
	ck_assert_int_eq(host->open_status, -E_NOT_IN_PERMIT);
	ck_assert_ptr_nonnull(strstr(host->open_error.text, "not in the permit"));
	host->volume = NULL;
	/* The permit was given back. */
	ck_assert_uint_eq(rig->pd.detaches, 2);
	/* Enough are, and one of them is away. */
	rig->pd.nodes = 3;
	fake_crash(&rig->nodes[1]);
	rig_open_start(host);
	ck_assert(rig_wait(rig, &host->opened, 60000));
	ck_assert_int_eq(host->open_status, -E_UNREACHABLE);
	host->volume = NULL;
	rig->pd.nodes = all;
	rig_open(host);
}
END_TEST

START_TEST(a_copy_that_lost_its_permit_is_not_counted)
{
	struct rig_op o;

	ck_assert_int_eq(rig_write(host, 0, 1, 1), 0);
	/* Node 2 has answered, then it is revoked; node 0 answers; node 1 doesn't. */
	rig->nodes[0].hold_writes = rig->nodes[1].hold_writes = true;
	rig_start_write(host, &o, 0, 1, 2);
	rig_run_ms(rig, 100);
	rig_permit(rig, 3);
	rig_run_ms(rig, 100);
	{
		struct fake_node *n = &rig->nodes[0];

		fake_release(n);
	}
	rig_run_ms(rig, 1000);
	ck_assert(!o.done);
	fake_release(&rig->nodes[1]);
	ck_assert_int_eq(rig_finish(&o), 0);
}
END_TEST

/* Nodes 1 and 2 answer when the permit has run out; the next one names node 2 alone. What waits for
 * node 0, which is away, is dropped before node 1 is known to be out. */
START_TEST(copies_that_lose_their_permit_together_are_not_counted)
{
	struct rig_op o;

	ck_assert_int_eq(rig_write(host, 0, 1, 1), 0);
	fake_crash(&rig->nodes[0]);
	rig_run_ms(rig, 100);
	rig->pd.silent = true;
	while (reactor_now_ns(sim_reactor(host->process)) + 1000 * NS_PER_MS <
	       host->volume->attach.gate.deadline_ns)
		rig_run_ms(rig, 50);
	rig->nodes[1].hold_writes = rig->nodes[2].hold_writes = true;
	rig_start_write(host, &o, 0, 1, 2);
	rig_run_ms(rig, 1500);
	ck_assert(!o.done);
	fake_release(&rig->nodes[1]);
	fake_release(&rig->nodes[2]);
	rig_run_ms(rig, 100);
	ck_assert(!o.done);
	rig->pd.silent = false;
	rig_permit(rig, 4);
	rig_run_ms(rig, 100);
	ck_assert_msg(!o.done, "acknowledged with one copy in the permit: status %d", o.status);
	fake_start(&rig->nodes[0]);
	rig_permit(rig, 7);
	ck_assert_int_eq(rig_finish(&o), 0);
}
END_TEST

START_TEST(a_node_whose_gate_is_closed_counts_again_when_it_opens)
{
	rig->nodes[1].write_lies = -E_LEASE_EXPIRED; /* it stores, and refuses late */
	for (uint32_t i = 0; i < 20; i++)
		ck_assert_int_eq(rig_write(host, i, 1, i + 1), 0);
	rig->nodes[1].open_status = -E_NO_LEASE;
	rig_run_ms(rig, 3000);
	rig->nodes[1].open_status = rig->nodes[1].write_lies = 0;
	rig_run_ms(rig, 5000);
	fake_crash(&rig->nodes[0]);
	ck_assert_int_eq(rig_write(host, 50, 1, 5), 0);
	fake_start(&rig->nodes[0]);
	rig_run_ms(rig, 5000);
	rig_must_agree(rig);
}
END_TEST

/* min_acks of the policy may ask for all. */
START_TEST(min_acks_of_the_policy_is_kept)
{
	struct rig_op o;

	rig_close(host);
	rig->pd.min_acks = 3;
	rig_open(host);
	rig->nodes[2].hold_writes = true;
	rig_start_write(host, &o, 0, 1, 2);
	rig_run_ms(rig, 1000);
	ck_assert(!o.done);
	fake_release(&rig->nodes[2]);
	ck_assert_int_eq(rig_finish(&o), 0);
}
END_TEST

/* And it may ask for more, or less, while the volume is attached. */
START_TEST(min_acks_changes_with_a_permit)
{
	struct rig_op before, after, last;
	const uint64_t permits = rig->pd.renews;

	rig->nodes[2].hold_writes = true;
	rig_start_write(host, &before, 0, 1, 2);
	ck_assert_int_eq(rig_finish(&before), 0);
	rig->pd.min_acks = 3;
	while (rig->pd.renews < permits + 2)
		rig_run_ms(rig, 100);
	rig_start_write(host, &after, 1, 1, 3);
	rig_run_ms(rig, 1000);
	ck_assert(!after.done);
	fake_release(&rig->nodes[2]);
	ck_assert_int_eq(rig_finish(&after), 0);
	rig->nodes[2].hold_writes = true;
	rig->pd.min_acks = 2;
	while (rig->pd.renews < permits + 5)
		rig_run_ms(rig, 100);
	rig_start_write(host, &last, 2, 1, 4);
	ck_assert_int_eq(rig_finish(&last), 0);
	fake_release(&rig->nodes[2]);
}
END_TEST

/* -- the pause --------------------------------------------------------------------------------- */

/* The host is stopped after it has sent a write and a read, until its permit has run out and
 * another attachment serves; the answers lie in its sockets when it goes on. */
START_TEST(the_pause)
{
	struct rig_op w, r;

	ck_assert_int_eq(rig_write(host, 0, 1, 1), 0);
	for (uint32_t i = 0; i < RIG_NODES; i++)
		rig->nodes[i].hold_writes = rig->nodes[i].hold_reads = true;
	rig_start_read(host, &r, 9, 1);
	rig_start_write(host, &w, 0, 1, 2);
	rig_run_ms(rig, 100);
	sim_process_pause(host->process);
	for (uint32_t i = 0; i < RIG_NODES; i++)
		fake_release(&rig->nodes[i]);
	rig_open(second);
	ck_assert_int_eq(rig_write(second, 0, 16, 3), 0);
	sim_process_resume(host->process);
	ck_assert_int_ne(rig_finish(&w), 0);
	ck_assert_int_ne(rig_finish(&r), 0);
	rig_must_read(second, 0, 16, 3);
}
END_TEST

/* -- read, then unread ------------------------------------------------------------------------- */

/* All have stored the write, nobody has answered: a read meets it on any node. */
START_TEST(read_then_unread)
{
	struct rig_op w, r;

	ck_assert_int_eq(rig_write(host, 0, 4, 1), 0);
	for (uint32_t i = 0; i < RIG_NODES; i++)
		rig->nodes[i].hold_writes = true;
	rig_start_write(host, &w, 1, 2, 2);
	rig_run_ms(rig, 100);
	ck_assert_uint_eq(fake_stamp(&rig->nodes[0], 1), 2);
	rig_start_read(host, &r, 1, 2);
	rig_run_ms(rig, 1000);
	ck_assert(!r.done);
	/* Others are not held up. */
	rig_must_read(host, 3, 1, 1);
	fake_release(&rig->nodes[0]);
	rig_run_ms(rig, 100);
	ck_assert(!r.done && !w.done);
	fake_release(&rig->nodes[1]);
	ck_assert_int_eq(rig_finish(&w), 0);
	ck_assert(rig_wait(rig, &r.done, 1000));
	ck_assert_uint_eq(rig_stamp_of(&r, 0), 2);
	ck_assert_int_eq(rig_finish(&r), 0);
	fake_release(&rig->nodes[2]);
}
END_TEST

/* The read was sent first; the write overtakes it on the node. */
START_TEST(read_then_unread_by_a_later_write)
{
	struct rig_op w, r;

	ck_assert_int_eq(rig_write(host, 0, 4, 1), 0);
	for (uint32_t i = 0; i < RIG_NODES; i++)
		rig->nodes[i].hold_writes = true;
	sim_net_cut(host->process, rig->nodes[0].process, true);
	sim_net_cut(host->process, rig->nodes[1].process, true);
	sim_net_cut(host->process, rig->nodes[2].process, true);
	rig_start_read(host, &r, 0, 4);
	rig_start_write(host, &w, 0, 4, 2);
	sim_net_heal_all(rig->world);
	rig_run_ms(rig, 1000);
	/* Whatever it has seen, it is not shown before the write is decided. */
	ck_assert(!r.done);
	for (uint32_t i = 0; i < RIG_NODES; i++)
		fake_release(&rig->nodes[i]);
	ck_assert_int_eq(rig_finish(&w), 0);
	ck_assert_int_eq(rig_finish(&r), 0);
}
END_TEST

/* The write that was seen fails: what is shown is what is left. */
START_TEST(read_then_unread_by_a_failed_write)
{
	struct rig_op w, r;
	uint32_t first, stamp;

	ck_assert_int_eq(rig_write(host, 0, 4, 1), 0);
	rig->nodes[0].hold_writes = rig->nodes[1].hold_writes = true;
	rig_start_write(host, &w, 0, 4, 2);
	rig_run_ms(rig, 3000);
	rig_start_read(host, &r, 0, 4);
	ck_assert_int_eq(rig_finish(&w), -EIO);
	fake_release(&rig->nodes[0]);
	fake_release(&rig->nodes[1]);
	ck_assert(rig_wait(rig, &r.done, 10000));
	ck_assert_int_eq(r.status, 0);
	first = rig_stamp_of(&r, 0);
	ck_assert_int_eq(rig_finish(&r), 0);
	for (int i = 0; i < 10; i++) {
		ck_assert_int_eq(rig_read(host, 0, 4, &stamp), 0);
		ck_assert_uint_eq(stamp, first);
	}
	rig_crash_host(host);
	rig_open(host);
	rig_must_read(host, 0, 4, first);
}
END_TEST

/* A write that all must have (min_acks) is on two nodes, and undecided, when the chunk is
 * reconciled: it is seen, and goes again when node 2 is back. Nothing may go wrong with what is
 * written over it meanwhile. */
static void make_seen(struct rig_op *again)
{
	struct fake_node *c = &rig->nodes[2];
	struct rig_op failing;

	rig_close(host);
	rig->pd.min_acks = 3;
	rig_open(host);
	ck_assert_int_eq(rig_write(host, 0, 8, 1), 0);
	c->delay_writes = true;
	rig_start_write(host, &failing, 100, 1, 5);
	rig_run_ms(rig, 3000);
	rig_start_write(host, again, 0, 8, 2);
	rig_run_ms(rig, 100);
	fake_crash(c);
	c->delay_writes = false;
	ck_assert_int_eq(rig_finish(&failing), -EIO);
	rig_must_read(host, 0, 8, 2);
	ck_assert(!again->done);
}

/* One of its blocks is being repaired when node 2 comes back: it waits, the other doesn't. */
START_TEST(seen_then_overtaken)
{
	struct fake_node *a = &rig->nodes[0], *b = &rig->nodes[1];
	struct rig_op again, over;

	make_seen(&again);
	a->hold_reads = b->hold_reads = true;
	fake_tell_damage(a, 0, 7, 1);
	rig_run_ms(rig, 50);
	rig_start_write(host, &over, 0, 1, 3);
	fake_start(&rig->nodes[2]);
	rig_run_ms(rig, 1000);
	ck_assert(!again.done);
	fake_release(a);
	fake_release(b);
	ck_assert_int_eq(rig_finish(&again), 0);
	ck_assert_int_eq(rig_finish(&over), 0);
	rig_must_read(host, 0, 1, 3);
	rig_must_read(host, 1, 7, 2);
	rig_run_ms(rig, 3000);
	rig_must_agree(rig);
}
END_TEST

/* Both are undecided when node 2 leaves the permit, and go again in the same order. */
START_TEST(seen_then_written_over_then_again)
{
	struct fake_node *c = &rig->nodes[2];
	struct rig_op again, over;

	make_seen(&again);
	c->hold_writes = true;
	fake_start(c);
	rig_run_ms(rig, 500);
	rig_start_write(host, &over, 0, 1, 3);
	rig_run_ms(rig, 100);
	rig_permit(rig, 3);
	rig_must_read(host, 0, 1, 3);
	ck_assert(!again.done && !over.done);
	fake_release(c);
	rig_permit(rig, 7);
	ck_assert_int_eq(rig_finish(&again), 0);
	ck_assert_int_eq(rig_finish(&over), 0);
	rig_must_read(host, 0, 1, 3);
	rig_must_read(host, 1, 7, 2);
	rig_run_ms(rig, 3000);
	rig_must_agree(rig);
}
END_TEST

/* -- the phantom ------------------------------------------------------------------------------- */

/* A write of an older attachment reached node 2 alone, which was then away while a newer one
 * served. */
static void make_phantom(void)
{
	struct rig_op o;

	ck_assert_int_eq(rig_write(host, 0, 8, 1), 0);
	rig_run_ms(rig, 3000);
	rig->nodes[0].write_status = rig->nodes[1].write_status = -E_LEASE_EXPIRED;
	rig_start_write(host, &o, 2, 1, 66);
	rig_run_ms(rig, 20);
	ck_assert_uint_eq(fake_stamp(&rig->nodes[2], 2), 66);
	fake_crash(&rig->nodes[2]);
	rig_crash_host(host);
	rig->nodes[0].write_status = rig->nodes[1].write_status = 0;
}

/* A node stores a write, its answer is lost, and when the write comes again the node is full: that
 * it refuses this one does not mean that it does not hold it. */
START_TEST(read_then_unread_by_a_write_that_was_refused_the_second_time)
{
	struct fake_node *a = &rig->nodes[0], *b = &rig->nodes[1], *c = &rig->nodes[2];
	uint32_t seen = 0, again;
	struct rig_op o;
	bool shown;

	ck_assert_int_eq(rig_write(host, 0, 1, 1), 0);
	a->hold_writes = true;
	b->write_status = -ENOSPC;
	c->delay_writes = true;
	rig_start_write(host, &o, 0, 1, 2);
	rig_run_ms(rig, 50);
	ck_assert_uint_eq(fake_stamp(a, 0), 2);
	fake_crash(a);
	a->hold_writes = false;
	a->write_status = -ENOSPC;
	fake_start(a);
	ck_assert_int_eq(rig_finish(&o), -ENOSPC);
	fake_crash(c);
	fake_crash(b);
	a->write_status = b->write_status = 0;
	shown = rig_read(host, 0, 1, &seen) == 0;
	fake_start(b);
	rig_run_ms(rig, 3000);
	fake_crash(a);
	fake_start(c);
	ck_assert_int_eq(rig_read(host, 0, 1, &again), 0);
	ck_assert(!shown || seen == again);
}
END_TEST

START_TEST(the_phantom_loses_by_resync)
{
	make_phantom();
	rig_open(host);
	rig_must_read(host, 2, 1, 1);
	fake_start(&rig->nodes[2]);
	rig_run_ms(rig, 5000);
	ck_assert_uint_ge(rig_stats(host).resyncs, 1);
	ck_assert_uint_eq(fake_stamp(&rig->nodes[2], 2), 1);
	rig_must_agree(rig);
	fake_crash(&rig->nodes[0]);
	ck_assert_int_eq(rig_write(host, 100, 1, 5), 0);
	rig_must_read(host, 2, 1, 1);
}
END_TEST

START_TEST(the_phantom_loses_by_the_seal)
{
	make_phantom();
	rig_open(host);
	rig_must_read(host, 2, 1, 1);
	/* Nothing is written; the next attachment meets node 2 and only one of the others. */
	rig_crash_host(host);
	fake_crash(&rig->nodes[0]);
	fake_start(&rig->nodes[2]);
	rig_open(host);
	rig_must_read(host, 2, 1, 1);
	ck_assert_uint_eq(fake_stamp(&rig->nodes[2], 2), 1);
	fake_start(&rig->nodes[0]);
	rig_run_ms(rig, 5000);
	rig_must_agree(rig);
}
END_TEST

/* A read-only attachment settles what it finds undecided, like any other; its guest writes nothing.
 */
START_TEST(a_read_only_attachment_settles_too)
{
	uint32_t first, stamp;

	make_phantom();
	host->read_only = true;
	fake_start(&rig->nodes[2]);
	rig_open(host);
	ck_assert_int_eq(rig_read(host, 2, 1, &first), 0);
	rig_run_ms(rig, 3000);
	rig_must_agree(rig);
	rig_crash_host(host);
	fake_crash(&rig->nodes[2]);
	rig_open(host);
	ck_assert_int_eq(rig_read(host, 2, 1, &stamp), 0);
	ck_assert_uint_eq(stamp, first);
}
END_TEST

/* If the newer attachment meets it before it has served anything, it may win as well; but then for
 * everybody, and for good. */
START_TEST(an_undecided_write_that_is_found_in_time_stays)
{
	uint32_t first, stamp;

	make_phantom();
	fake_start(&rig->nodes[2]);
	fake_crash(&rig->nodes[1]);
	rig_open(host);
	ck_assert_int_eq(rig_read(host, 2, 1, &first), 0);
	fake_start(&rig->nodes[1]);
	rig_run_ms(rig, 5000);
	rig_must_agree(rig);
	rig_crash_host(host);
	rig_open(host);
	ck_assert_int_eq(rig_read(host, 2, 1, &stamp), 0);
	ck_assert_uint_eq(stamp, first);
}
END_TEST

/* What must be written before a chunk can serve may use the reserve; a guest's writes may not. */
START_TEST(a_chunk_is_settled_although_its_nodes_are_full)
{
	uint32_t first, stamp;

	make_phantom();
	for (uint32_t i = 0; i < RIG_NODES; i++)
		rig->nodes[i].full = true;
	fake_start(&rig->nodes[2]);
	fake_crash(&rig->nodes[1]);
	rig_open(host);
	ck_assert_int_eq(rig_read(host, 2, 1, &first), 0);
	fake_start(&rig->nodes[1]);
	rig_run_ms(rig, 5000);
	ck_assert_int_eq(rig_write(host, 100, 1, 5), -ENOSPC);
	ck_assert_int_eq(rig_read(host, 2, 1, &stamp), 0);
	ck_assert_uint_eq(stamp, first);
}
END_TEST

/* What settles a chunk is sent to a node that is a version behind like any other write. */
START_TEST(a_node_one_version_behind_is_settled_too)
{
	uint32_t first;

	make_phantom();
	rig->nodes[0].wire_version = FRAME_VERSION_SETTLE - 1;
	rig->nodes[0].settles = rig->nodes[2].settles = 0;
	fake_start(&rig->nodes[2]);
	fake_crash(&rig->nodes[1]);
	rig_open(host);
	ck_assert_int_eq(rig_read(host, 2, 1, &first), 0);
	fake_start(&rig->nodes[1]);
	rig_run_ms(rig, 5000);
	rig_must_agree(rig);
	ck_assert_uint_eq(rig->nodes[0].settles, 0);
	ck_assert_uint_gt(rig->nodes[2].settles, 0);
}
END_TEST

/* Node 2 holds, above its watermark, a block that is older than what the others have acknowledged,
 * beside one that is newer: block by block, not by page. */
START_TEST(folded_versions_do_not_lose_a_neighbour)
{
	struct rig_op o;

	ck_assert_int_eq(rig_write(host, 0, 16, 1), 0);
	rig_run_ms(rig, 3000);
	rig->nodes[2].hold_writes = true; /* it stores, so late that it isn't waited for */
	ck_assert_int_eq(rig_write(host, 3, 1, 33), 0);
	rig->nodes[1].write_status = -E_LEASE_EXPIRED;
	rig_start_write(host, &o, 4, 1, 44);
	rig_run_ms(rig, 20);
	rig_crash_host(host);
	rig->nodes[1].write_status = 0;
	rig->nodes[2].hold_writes = false;
	/* Node 0 has both writes, nodes 1 and 2 have one or two; without node 0 the first must be
	 * there. */
	fake_crash(&rig->nodes[0]);
	rig_open(host);
	rig_must_read(host, 3, 1, 33);
	rig_must_read(host, 5, 1, 1);
}
END_TEST

/* -- what a node says of itself ---------------------------------------------------------------- */

/* A device is missing, and is back while the host is still being told what the node holds. */
START_TEST(a_device_that_is_back_in_time_costs_nothing)
{
	struct fake_node *n = &rig->nodes[1];
	const uint64_t opens = n->opens;

	fake_crash(n);
	n->device_failed = n->tells_half = true;
	fake_start(n);
	for (uint32_t i = 0; i < 500 && n->opens == opens; i++)
		rig_run_ms(rig, 10);
	rig_run_ms(rig, 100);
	fake_crash(n);
	n->device_failed = n->tells_half = false;
	fake_start(n);
	rig_run_ms(rig, 5000);
	ck_assert_int_eq(rig_write(host, RIG_CHUNK_BLOCKS, 8, 2), 0);
	rig_run_ms(rig, 1000);
	rig_must_agree(rig);
}
END_TEST

int main(void)
{
	TCase *tc = tcase_create("traps");
	Suite *s = suite_create("volume_traps");
	SRunner *sr = srunner_create(s);
	int failed;

	tcase_set_timeout(tc, 60);
	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_add_test(tc, a_newer_attachment_fences_the_older);
	tcase_add_test(tc, an_attachment_ends_with_its_volume);
	tcase_add_test(tc, operations_in_flight_are_fenced_too);
	tcase_add_test(tc, the_stale_reader);
	tcase_add_test(tc, the_stale_reader_when_a_clock_goes_before);
	tcase_add_test(tc, without_a_permit_operations_are_held_and_then_refused);
	tcase_add_test(tc, a_driver_that_restarts_is_not_noticed);
	tcase_add_test(tc, a_refused_permit_closes_the_gate_at_once);
	tcase_add_test(tc, permits_reach_the_nodes);
	tcase_add_test(tc, a_permit_reaches_a_node_that_is_not_ready);
	tcase_add_loop_test(tc, a_long_zero_that_goes_on_is_not_given_up, 0, 2);
	tcase_add_test(tc, a_revoked_node_gets_nothing_more);
	tcase_add_test(tc, what_was_queued_for_a_revoked_node_is_not_sent_later);
	tcase_add_test(tc, every_write_in_flight_is_found);
	tcase_add_test(tc, majority_of_what);
	tcase_add_test(tc, attaching_with_too_few_in_the_permit_is_a_refusal);
	tcase_add_test(tc, a_copy_that_lost_its_permit_is_not_counted);
	tcase_add_test(tc, copies_that_lose_their_permit_together_are_not_counted);
	tcase_add_test(tc, a_node_whose_gate_is_closed_counts_again_when_it_opens);
	tcase_add_test(tc, min_acks_of_the_policy_is_kept);
	tcase_add_test(tc, min_acks_changes_with_a_permit);
	tcase_add_test(tc, the_pause);
	tcase_add_test(tc, read_then_unread);
	tcase_add_test(tc, read_then_unread_by_a_later_write);
	tcase_add_test(tc, read_then_unread_by_a_failed_write);
	tcase_add_test(tc, seen_then_overtaken);
	tcase_add_test(tc, seen_then_written_over_then_again);
	tcase_add_test(tc, read_then_unread_by_a_write_that_was_refused_the_second_time);
	tcase_add_test(tc, the_phantom_loses_by_resync);
	tcase_add_test(tc, the_phantom_loses_by_the_seal);
	tcase_add_test(tc, a_read_only_attachment_settles_too);
	tcase_add_test(tc, an_undecided_write_that_is_found_in_time_stays);
	tcase_add_test(tc, a_chunk_is_settled_although_its_nodes_are_full);
	tcase_add_test(tc, a_node_one_version_behind_is_settled_too);
	tcase_add_test(tc, folded_versions_do_not_lose_a_neighbour);
	tcase_add_test(tc, a_device_that_is_back_in_time_costs_nothing);
	suite_add_tcase(s, tc);
	srunner_run_all(sr, CK_NORMAL);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed == 0 ? 0 : 1;
}
