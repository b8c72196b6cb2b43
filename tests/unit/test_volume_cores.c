/* Unit tests of the pure cores of engine/volume: quorum, window, plan; the traps of the protocol
 * that they must avoid, by name; and a model of a chunk's whole life over them, with crashes,
 * against what its readers may see. */
#include <check.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/err.h"
#include "engine/volume/plan.h"
#include "engine/volume/quorum.h"
#include "engine/volume/window.h"

#define V(g, s) version_make(g, s)

/* -- quorum ------------------------------------------------------------------------------------ */

START_TEST(majority_is_of_the_configured)
{
	const struct vquorum_votes two_of_five = {.sent = 3, .ok = 3};
	const struct vquorum_votes three_of_five = {.sent = 7, .ok = 7};

	ck_assert_uint_eq(vquorum_majority(1), 1);
	ck_assert_uint_eq(vquorum_majority(2), 2);
	ck_assert_uint_eq(vquorum_majority(3), 2);
	ck_assert_uint_eq(vquorum_majority(5), 3);
	/* Only two are permitted, and both have it: still no majority of five. */
	ck_assert_int_eq(vquorum_judge(vmask_all(5), 3, &two_of_five, 3), VQUORUM_PENDING);
	ck_assert_int_eq(vquorum_judge(vmask_all(5), 3, &three_of_five, 7), VQUORUM_ACKED);
}
END_TEST

START_TEST(copies_outside_of_the_permit_do_not_count)
{
	const struct vquorum_votes votes = {.sent = 7, .ok = 3};

	ck_assert_int_eq(vquorum_judge(vmask_all(3), 2, &votes, 7), VQUORUM_ACKED);
	ck_assert_int_eq(vquorum_judge(vmask_all(3), 2, &votes, 5), VQUORUM_PENDING);
}
END_TEST

START_TEST(min_acks_asks_for_more_never_for_less)
{
	ck_assert_uint_eq(vquorum_need(3, 0), 2);
	ck_assert_uint_eq(vquorum_need(3, 1), 2);
	ck_assert_uint_eq(vquorum_need(3, 3), 3);
	ck_assert_uint_eq(vquorum_need(3, 9), 3);
	ck_assert_uint_eq(vquorum_need(5, 4), 4);
}
END_TEST

START_TEST(refusals_fail_a_write_when_no_majority_is_left)
{
	const struct vquorum_votes one = {.sent = 7, .ok = 1, .refused = 2};
	const struct vquorum_votes two = {.sent = 7, .ok = 1, .refused = 6};
	const struct vquorum_votes mixed = {.sent = 7, .refused = 2, .unknown = 4};

	ck_assert_int_eq(vquorum_judge(vmask_all(3), 2, &one, 7), VQUORUM_PENDING);
	ck_assert_int_eq(vquorum_judge(vmask_all(3), 2, &two, 7), VQUORUM_FAILED);
	ck_assert_int_eq(vquorum_judge(vmask_all(3), 2, &mixed, 7), VQUORUM_FAILED);
	/* Who refused surely doesn't have it; who was sent it and didn't refuse may. */
	ck_assert_uint_eq(vquorum_holders(&two), 1);
	ck_assert_uint_eq(vquorum_holders(&mixed), 5);
}
END_TEST

/* -- window ------------------------------------------------------------------------------------ */

START_TEST(watermarks_rise_without_gaps)
{
	struct vwindow w = {0};
	struct vwindow_entry e[4] = {0};

	for (int i = 0; i < 4; i++)
		vwindow_add(&w, &e[i], 7);
	ck_assert_uint_eq(vwindow_low(&w, 0), 0);
	vwindow_clear(&w, &e[1], 0);
	vwindow_clear(&w, &e[1], 1);
	vwindow_decide(&w, &e[1]);
	ck_assert_uint_eq(vwindow_low(&w, 0), 0);
	vwindow_clear(&w, &e[0], 0);
	vwindow_clear(&w, &e[0], 1);
	vwindow_decide(&w, &e[0]);
	ck_assert_uint_eq(vwindow_low(&w, 0), 2);
	ck_assert_uint_eq(vwindow_low(&w, 1), 2);
	ck_assert_uint_eq(vwindow_low(&w, 2), 0);
	vwindow_clear(&w, &e[0], 2);
	vwindow_remove(&w, &e[0]);
	ck_assert_uint_eq(vwindow_low(&w, 2), 1);
	ck_assert(vwindow_decided_below(&w, 3));
	ck_assert(!vwindow_decided_below(&w, 4));
	ck_assert(vwindow_answered_below(&w, 2, 2));
	ck_assert(!vwindow_answered_below(&w, 2, 3));
}
END_TEST

START_TEST(phantom_below_the_watermark)
{
	struct vwindow w = {0};
	struct vwindow_entry first = {0}, second = {0};

	/* Slot 0 alone has answered the second write. Were its watermark 2, a later attachment that
	 * never hears of the write would not find it above the watermark when slot 0 returns. */
	vwindow_add(&w, &first, 7);
	for (uint32_t i = 0; i < 3; i++)
		vwindow_clear(&w, &first, i);
	vwindow_decide(&w, &first);
	vwindow_remove(&w, &first);
	vwindow_add(&w, &second, 7);
	vwindow_clear(&w, &second, 0);
	ck_assert_uint_eq(vwindow_low(&w, 0), 1);
	vwindow_clear(&w, &second, 1);
	vwindow_decide(&w, &second);
	ck_assert_uint_eq(vwindow_low(&w, 0), 2);
	ck_assert_uint_eq(vwindow_low(&w, 2), 1);
}
END_TEST

START_TEST(a_window_answers_as_a_plain_list_does)
{
	enum { WRITES = 400, SLOTS = 3 };
	struct vwindow w = {0};
	struct vwindow_entry e[WRITES] = {0};
	bool out[WRITES] = {0};
	int added = 0;

	srand(7);
	for (int step = 0; step < 8000; step++) {
		const int i = added > 0 ? rand() % added : 0;
		const uint32_t slot = (uint32_t)rand() % SLOTS;

		if (added < WRITES && rand() % 8 == 0)
			vwindow_add(&w, &e[added++], (vmask_t)(rand() % 8));
		else if (added > 0 && !out[i] && rand() % 3 == 0)
			vwindow_decide(&w, &e[i]);
		else if (added > 0 && !out[i])
			vwindow_clear(&w, &e[i], slot);
		if (added > 0 && !out[i] && e[i].decided && e[i].pending == 0) {
			vwindow_remove(&w, &e[i]);
			out[i] = true;
		}
		for (uint32_t s = 0; s < SLOTS; s++) {
			uint64_t low = (uint64_t)added;

			for (int k = added; k-- > 0;)
				if (!out[k] &&
				    (!e[k].decided || (e[k].pending & vmask_bit(s)) != 0))
					low = (uint64_t)k;
			ck_assert_uint_eq(vwindow_low(&w, s), low);
		}
	}
	ck_assert_int_eq(added, WRITES);
}
END_TEST

/* -- plan -------------------------------------------------------------------------------------- */

static void list_of(struct vplan_list *l, const struct vplan_run *runs, size_t count)
{
	*l = (struct vplan_list){0};
	for (size_t i = 0; i < count; i++)
		ck_assert_int_eq(vplan_list_add(l, &runs[i]), 0);
}

START_TEST(equal_and_complete_is_clean)
{
	struct vplan_state s[3] = {
	    {true, V(2, 5), V(2, 5)}, {true, V(2, 5), V(2, 1)}, {true, V(2, 5), 0}};
	struct vplan_choice c;

	ck_assert_int_eq(vplan_choose(s, vmask_all(3), &c), 0);
	ck_assert(c.clean);
	ck_assert_uint_eq(c.members, 7);
	/* With one away nothing is to be copied, but it must be sealed: who is away may hold more.
	 */
	s[2].present = false;
	ck_assert_int_eq(vplan_choose(s, vmask_all(3), &c), 0);
	ck_assert(!c.clean);
	ck_assert_uint_eq(c.members, 3);
	ck_assert_uint_eq(c.ask, 0);
	s[1].present = false;
	ck_assert_int_eq(vplan_choose(s, vmask_all(3), &c), -E_UNREACHABLE);
}
END_TEST

START_TEST(members_are_the_best_majority_and_whoever_is_near)
{
	struct vplan_state s[3] = {
	    {true, V(1, 9), V(3, 9)}, {true, V(3, 90), V(3, 95)}, {true, V(3, 80), V(3, 99)}};
	struct vplan_choice c;

	ck_assert_int_eq(vplan_choose(s, vmask_all(3), &c), 0);
	ck_assert_uint_eq(c.best, 1);
	ck_assert_uint_eq(c.members, 6);
	ck_assert_uint_eq(c.ask, 7);
	ck_assert_uint_eq(c.above[0], V(1, 9));
	ck_assert_uint_eq(c.above[1], V(3, 80)); /* what it changed since slot 2 stood still */
	ck_assert_uint_eq(c.above[2], V(3, 80));
	s[0].watermark = V(3, 70);
	ck_assert_int_eq(vplan_choose(s, vmask_all(3), &c), 0);
	ck_assert_uint_eq(c.members, 7);
	s[1].watermark = V(3, 80 + VPLAN_NEAR_MAX);
	s[1].newest = V(3, 95 + VPLAN_NEAR_MAX);
	ck_assert_int_eq(vplan_choose(s, vmask_all(3), &c), 0);
	ck_assert_uint_eq(c.members, 6);
}
END_TEST

/* Block 0 was acknowledged as (1,7) by slots 0 and 1, its neighbour as (1,8) by slots 1 and 2. By
 * page the newest of slot 2 would win whole, and block 0 would be lost. */
START_TEST(folded_versions)
{
	const struct vplan_state s[3] = {
	    {true, V(1, 6), V(1, 7)}, {false, 0, 0}, {true, V(1, 6), V(1, 8)}};
	const struct vplan_run first[] = {{0, 1, V(1, 7), false}};
	const struct vplan_run third[] = {{1, 1, V(1, 8), false}};
	struct vplan_list lists[3] = {0};
	struct vplan_choice c;
	struct vplan_copies copies;

	list_of(&lists[0], first, 1);
	list_of(&lists[2], third, 1);
	ck_assert_int_eq(vplan_choose(s, vmask_all(3), &c), 0);
	ck_assert_int_eq(vplan_make(s, vmask_all(3), &c, lists, 16, &copies), 0);
	ck_assert_uint_eq(copies.count, 2);
	ck_assert_uint_eq(copies.copies[0].block, 0);
	ck_assert_uint_eq(copies.copies[0].holders, 1);
	ck_assert_uint_eq(copies.copies[1].block, 1);
	ck_assert_uint_eq(copies.copies[1].holders, 4);
	vplan_copies_deinit(&copies);
	vplan_list_deinit(&lists[0]);
	vplan_list_deinit(&lists[2]);
}
END_TEST

/* Slot 0 was away while generation 2 sealed and served; what it holds of generation 1 above its
 * watermark was passed over. */
START_TEST(phantom)
{
	const struct vplan_state s[3] = {
	    {true, V(1, 10), V(1, 12)}, {true, V(2, 0), V(1, 10)}, {false, 0, 0}};
	const struct vplan_run theirs[] = {{4, 1, V(1, 12), false}};
	struct vplan_list lists[3] = {0}, ours = {0};
	struct vplan_choice c;
	struct vplan_copies copies;
	bool pull;

	list_of(&lists[0], theirs, 1);
	ck_assert_int_eq(vplan_choose(s, vmask_all(3), &c), 0);
	ck_assert_uint_eq(c.best, 1);
	ck_assert_int_eq(vplan_make(s, vmask_all(3), &c, lists, 16, &copies), 0);
	/* Written again, with what slot 1 has. */
	ck_assert_uint_eq(copies.count, 1);
	ck_assert_uint_eq(copies.copies[0].block, 4);
	ck_assert_uint_eq(copies.copies[0].holders, 2);
	vplan_copies_deinit(&copies);
	/* And by resync, when it comes back while the chunk serves. */
	ck_assert_int_eq(vplan_phantoms(&lists[0], &ours, V(2, 1), 16, &copies, &pull), 0);
	ck_assert_uint_eq(copies.count, 1);
	ck_assert_uint_eq(copies.copies[0].block, 4);
	ck_assert(!pull);
	vplan_copies_deinit(&copies);
	vplan_list_deinit(&lists[0]);
}
END_TEST

START_TEST(what_every_member_has_is_not_copied)
{
	const struct vplan_state s[3] = {
	    {true, V(1, 5), V(1, 9)}, {true, V(1, 7), V(1, 9)}, {true, V(1, 7), V(1, 8)}};
	const struct vplan_run a[] = {{0, 4, V(1, 6), false}, {8, 2, V(1, 9), false}};
	const struct vplan_run b[] = {{0, 4, V(1, 6), false}, {8, 2, V(1, 9), false}};
	const struct vplan_run none[] = {{12, 1, V(1, 8), false}};
	struct vplan_list lists[3] = {0};
	struct vplan_choice c;
	struct vplan_copies copies;

	list_of(&lists[0], a, 2);
	list_of(&lists[1], b, 2);
	list_of(&lists[2], none, 1);
	ck_assert_int_eq(vplan_choose(s, vmask_all(3), &c), 0);
	ck_assert_uint_eq(c.members, 7);
	ck_assert_int_eq(vplan_make(s, vmask_all(3), &c, lists, 16, &copies), 0);
	/* Blocks 0 to 3 at (1,6): slot 2 has them, for its watermark is 7. 8 and 9 are missing
	 * there, 12 is only there. */
	ck_assert_uint_eq(copies.count, 2);
	ck_assert_uint_eq(copies.copies[0].block, 8);
	ck_assert_uint_eq(copies.copies[0].block_count, 2);
	ck_assert_uint_eq(copies.copies[0].holders, 3);
	ck_assert_uint_eq(copies.copies[1].block, 12);
	ck_assert_uint_eq(copies.copies[1].holders, 4);
	vplan_copies_deinit(&copies);
	for (int i = 0; i < 3; i++)
		vplan_list_deinit(&lists[i]);
}
END_TEST

START_TEST(runs_outside_of_the_chunk_are_refused)
{
	const struct vplan_state s[3] = {
	    {true, V(1, 5), V(1, 9)}, {true, V(1, 7), V(1, 9)}, {false, 0, 0}};
	const struct vplan_run bad[] = {{15, 2, V(1, 9), false}};
	const struct vplan_run worse[] = {{UINT32_MAX, UINT32_MAX, V(1, 9), false}};
	struct vplan_list lists[3] = {0};
	struct vplan_choice c;
	struct vplan_copies copies;

	ck_assert_int_eq(vplan_choose(s, vmask_all(3), &c), 0);
	list_of(&lists[0], bad, 1);
	ck_assert_int_eq(vplan_make(s, vmask_all(3), &c, lists, 16, &copies), -E_BAD_FRAME);
	vplan_list_deinit(&lists[0]);
	list_of(&lists[0], worse, 1);
	ck_assert_int_eq(vplan_make(s, vmask_all(3), &c, lists, 16, &copies), -E_BAD_FRAME);
	vplan_list_deinit(&lists[0]);
}
END_TEST

START_TEST(what_is_missing_lies_around_what_is_held)
{
	struct vplan_missing missing;
	struct vplan_list t = {0}, o = {0};

	/* 0..9 missing, 20 held, 30..39 missing; 12..15 are older than all this. */
	list_of(&t, (const struct vplan_run[]){{20, 1, V(2, 5), false}}, 1);
	list_of(&o,
		(const struct vplan_run[]){{0, 4, V(2, 3), false},
					   {4, 6, V(2, 4), false},
					   {16, 2, V(2, 6), false},
					   {20, 1, V(2, 5), false},
					   {30, 10, V(2, 5), false}},
		5);
	ck_assert_int_eq(vplan_missing(&t, &o, V(3, 1), 512, &missing), 0);
	ck_assert_uint_eq(missing.block_count, 22);
	ck_assert_uint_eq(missing.range_count, 2);
	ck_assert_uint_eq(missing.ranges[0].block, 0);
	ck_assert_uint_eq(missing.ranges[0].block_count, 18);
	ck_assert_uint_eq(missing.ranges[1].block, 30);
	ck_assert_uint_eq(missing.ranges[1].block_count, 10);
	vplan_list_deinit(&t);
	vplan_list_deinit(&o);
	/* Every second one: the last range takes what is left. */
	t = o = (struct vplan_list){0};
	for (uint32_t b = 0; b < 512; b++) {
		const struct vplan_run run = {b, 1, V(2, 5), false};

		ck_assert_int_eq(vplan_list_add(&o, &run), 0);
		if (b % 2 != 0)
			ck_assert_int_eq(vplan_list_add(&t, &run), 0);
	}
	ck_assert_int_eq(vplan_missing(&t, &o, V(3, 1), 512, &missing), 0);
	ck_assert_uint_eq(missing.block_count, 256);
	ck_assert_uint_eq(missing.range_count, VPLAN_RANGES_MAX);
	ck_assert_uint_eq(missing.ranges[VPLAN_RANGES_MAX - 1].block, 126);
	ck_assert_uint_eq(missing.ranges[VPLAN_RANGES_MAX - 1].block_count, 385);
	vplan_list_deinit(&t);
	vplan_list_deinit(&o);
}
END_TEST

START_TEST(resync_leaves_out_what_comes_by_itself)
{
	const struct vplan_run theirs[] = {
	    {0, 1, V(3, 20), false}, {1, 1, V(2, 9), false}, {2, 1, V(2, 4), false}};
	const struct vplan_run ours[] = {{1, 1, V(3, 5), false}, {2, 1, V(2, 4), false}};
	struct vplan_list t, o;
	struct vplan_copies copies;
	struct vplan_missing missing;
	bool pull;

	list_of(&t, theirs, 3);
	list_of(&o, ours, 2);
	ck_assert_int_eq(vplan_phantoms(&t, &o, V(3, 10), 16, &copies, &pull), 0);
	ck_assert_uint_eq(copies.count, 0);
	ck_assert(pull);
	ck_assert_int_eq(vplan_missing(&t, &o, V(3, 10), 16, &missing), 0);
	ck_assert_uint_eq(missing.block_count, 1);
	ck_assert_uint_eq(missing.range_count, 1);
	ck_assert_uint_eq(missing.ranges[0].block, 1);
	ck_assert_uint_eq(missing.ranges[0].block_count, 1);
	/* The source has block 1 in a version that comes by itself. */
	ck_assert_int_eq(vplan_missing(&t, &o, V(3, 5), 16, &missing), 0);
	ck_assert_uint_eq(missing.range_count, 0);
	ck_assert_uint_eq(missing.block_count, 0);
	vplan_list_deinit(&t);
	vplan_list_deinit(&o);
}
END_TEST

/* -- the model --------------------------------------------------------------------------------- */

/* One chunk, its replicas, one host after another. A value stands for a block's content: the number
 * of the guest's write that made it (0: never written); a rewrite has a version of its own and the
 * same value. Sending, storing and answering are separate events in random order; a crash of the
 * host loses what is between them. */

enum { M_BLOCKS = 8, M_WRITES = 4000, M_REPLICAS_MAX = 5 };

struct m_block {
	version_t version;
	uint32_t value;
};

struct m_replica {
	struct m_block blocks[M_BLOCKS];
	version_t watermark;
	bool up;	 /* connected to the host */
	bool current;	 /* as the host thinks */
	uint64_t joined; /* from this sequence on it gets every write */
};

struct m_write {
	struct vwindow_entry entry;
	block_no_t block;
	uint32_t block_count;
	version_t version;
	uint32_t value; /* 0: a rewrite, of values */
	uint32_t values[M_BLOCKS];
	version_t watermarks[M_REPLICAS_MAX]; /* as the frame carried them */
	vmask_t stored, ok;
};

struct model {
	uint32_t n, majority;
	struct m_replica r[M_REPLICAS_MAX];
	generation_t generation;
	struct vwindow window;
	struct m_write *writes[M_WRITES];
	uint32_t write_count;
	uint32_t next_value;
	/* What a read may return: the truth, or an undecided write's. */
	uint32_t truth[M_BLOCKS];
	bool may[M_BLOCKS][M_WRITES];
	uint64_t copied, acked, reconciled, resynced, phantoms;
	bool
	    overlook_undecided; /* the mutant: watermarks over what only the replica has answered */
	bool by_page;		/* the mutant: folded versions */
	bool no_phantom_rule;	/* the mutant: resync without it */
	bool no_lock;		/* the mutant: rewrites over writes in flight */
	bool violated;
};

static uint32_t below(uint32_t n)
{
	return (uint32_t)rand() % n;
}

static version_t low_of(struct model *m, uint32_t slot)
{
	uint64_t low = vwindow_low(&m->window, slot);

	if (m->overlook_undecided) {
		low = m->window.last_seq;
		if (m->window.oldest[slot] != NULL)
			low = m->window.oldest[slot]->seq - 1;
	}
	return V(m->generation, low);
}

static void store(struct m_replica *r, const struct m_write *w, version_t watermark)
{
	for (uint32_t i = 0; i < w->block_count; i++) {
		struct m_block *b = &r->blocks[w->block + i];

		if (w->version > b->version)
			*b = (struct m_block){w->version, w->values[i]};
	}
	r->watermark = watermark > r->watermark ? watermark : r->watermark;
}

static struct m_write *model_write(struct model *m, block_no_t block, uint32_t count, vmask_t to)
{
	struct m_write *w = calloc(1, sizeof(*w));

	ck_assert_uint_lt(m->write_count, M_WRITES);
	m->writes[m->write_count++] = w;
	w->block = block;
	w->block_count = count;
	vwindow_add(&m->window, &w->entry, to);
	w->version = V(m->generation, w->entry.seq);
	for (uint32_t i = 0; i < m->n; i++)
		w->watermarks[i] = m->r[i].current ? low_of(m, i) : 0;
	return w;
}

static void model_judge(struct model *m, struct m_write *w)
{
	if (w->entry.decided || vmask_count(w->ok) < m->majority)
		return;
	vwindow_decide(&m->window, &w->entry);
	m->acked++;
	for (uint32_t i = 0; i < w->block_count && w->value != 0; i++) {
		const uint32_t b = w->block + i;

		/* Newer than every write that was decided before it was begun; between those that
		 * were in flight together the newest version wins. */
		if (w->value > m->truth[b])
			m->truth[b] = w->value;
	}
}

static void model_answer(struct model *m, struct m_write *w, uint32_t slot)
{
	if ((w->entry.pending & vmask_bit(slot)) == 0)
		return;
	w->ok |= vmask_bit(slot);
	vwindow_clear(&m->window, &w->entry, slot);
	model_judge(m, w);
	if (w->entry.decided && w->entry.pending == 0)
		vwindow_remove(&m->window, &w->entry);
}

static void model_store(struct model *m, struct m_write *w, uint32_t slot)
{
	if ((w->entry.pending & vmask_bit(slot)) == 0 || (w->stored & vmask_bit(slot)) != 0)
		return;
	store(&m->r[slot], w, w->watermarks[slot]);
	w->stored |= vmask_bit(slot);
}

static void list_above(const struct m_replica *r, version_t above, bool by_page,
		       struct vplan_list *ret)
{
	version_t newest = 0;

	for (uint32_t b = 0; b < M_BLOCKS; b++)
		newest = r->blocks[b].version > newest ? r->blocks[b].version : newest;
	*ret = (struct vplan_list){0};
	for (uint32_t b = 0; b < M_BLOCKS; b++) {
		const version_t v = by_page ? newest : r->blocks[b].version;
		const struct vplan_run run = {.block = b, .block_count = 1, .version = v};

		if (v > above)
			ck_assert_int_eq(vplan_list_add(ret, &run), 0);
	}
}

static version_t newest_of(const struct m_replica *r)
{
	version_t newest = 0;

	for (uint32_t b = 0; b < M_BLOCKS; b++)
		newest = r->blocks[b].version > newest ? r->blocks[b].version : newest;
	return newest;
}

/* The reader sees value in block b: it may be the truth, or what was undecided when the host died;
 * and from now on it is the truth. */
static void model_see(struct model *m, uint32_t b, uint32_t value)
{
	if (value != m->truth[b] && !m->may[b][value])
		m->violated = true;
	m->truth[b] = value;
	memset(m->may[b], 0, sizeof(m->may[b]));
}

static bool model_attach(struct model *m)
{
	struct vplan_state s[M_REPLICAS_MAX];
	struct vplan_list lists[M_REPLICAS_MAX] = {0};
	struct vplan_choice c;
	struct vplan_copies copies = {0};
	uint32_t up = 0;

	for (uint32_t i = 0; i < m->n; i++) {
		m->r[i].up = below(4) != 0;
		m->r[i].current = false;
		m->r[i].joined = 1;
		up += m->r[i].up;
		s[i] = (struct vplan_state){m->r[i].up, m->r[i].watermark, newest_of(&m->r[i])};
	}
	if (up < m->majority)
		return false;
	m->generation++;
	memset(&m->window, 0, sizeof(m->window));
	m->write_count = 0;
	ck_assert_int_eq(vplan_choose(s, vmask_all(m->n), &c), 0);
	for (uint32_t i = 0; i < m->n && !c.clean; i++)
		if ((c.ask & vmask_bit(i)) != 0)
			list_above(&m->r[i], c.above[i], m->by_page, &lists[i]);
	if (!c.clean)
		ck_assert_int_eq(vplan_make(s, vmask_all(m->n), &c, lists, M_BLOCKS, &copies), 0);
	for (uint32_t k = 0; k < copies.count; k++) {
		const struct vplan_copy *p = &copies.copies[k];
		const uint32_t from = (uint32_t)__builtin_ctz(p->holders);
		struct m_write *w = model_write(m, p->block, p->block_count, 0);

		for (uint32_t i = 0; i < p->block_count; i++)
			w->values[i] = m->r[from].blocks[p->block + i].value;
		for (uint32_t i = 0; i < m->n; i++)
			if (m->r[i].up)
				store(&m->r[i], w, 0);
		vwindow_decide(&m->window, &w->entry);
		vwindow_remove(&m->window, &w->entry);
		m->copied += p->block_count;
	}
	for (uint32_t i = 0; i < m->n; i++) {
		m->r[i].current = (c.members & vmask_bit(i)) != 0;
		if (m->r[i].current && !c.clean)
			m->r[i].watermark = V(m->generation, m->window.last_seq);
		m->r[i].joined = m->window.last_seq + 1;
		vplan_list_deinit(&lists[i]);
	}
	vplan_copies_deinit(&copies);
	m->reconciled++;
	/* Every current replica serves the same, and it is what a reader may see. */
	for (uint32_t b = 0; b < M_BLOCKS; b++)
		for (uint32_t i = 0; i < m->n; i++)
			if (m->r[i].current)
				model_see(m, b, m->r[i].blocks[b].value);
	return true;
}

static void model_guest_write(struct model *m)
{
	const block_no_t block = below(M_BLOCKS);
	const uint32_t count = 1 + below(3);
	vmask_t to = 0;
	struct m_write *w;

	if (m->write_count == M_WRITES / 2 || m->next_value + 1 >= M_WRITES)
		return;
	for (uint32_t i = 0; i < m->n; i++)
		if (m->r[i].up || m->r[i].current)
			to |= vmask_bit(i);
	w = model_write(m, block, block + count > M_BLOCKS ? M_BLOCKS - block : count, to);
	w->value = ++m->next_value;
	for (uint32_t i = 0; i < w->block_count; i++) {
		w->values[i] = w->value;
		m->may[w->block + i][w->value] = true;
	}
}

/* Its connection breaks, and what it misses is given up: it is behind from now on. */
static void model_away(struct model *m, uint32_t slot)
{
	uint32_t current = 0;

	for (uint32_t i = 0; i < m->n; i++)
		current += m->r[i].up && m->r[i].current;
	if (!m->r[slot].up || (m->r[slot].current && current < 2))
		return;
	m->r[slot].up = m->r[slot].current = false;
	for (uint32_t k = 0; k < m->write_count; k++) {
		struct m_write *w = m->writes[k];

		if (!w->entry.inside)
			continue;
		vwindow_clear(&m->window, &w->entry, slot);
		if (w->entry.decided && w->entry.pending == 0)
			vwindow_remove(&m->window, &w->entry);
	}
}

static void model_back(struct model *m, uint32_t slot)
{
	if (m->r[slot].up)
		return;
	m->r[slot].up = true;
	m->r[slot].joined = m->window.last_seq + 1;
}

/* A rewrite waits for the writes to its blocks that are in flight, and new ones wait for it. */
static bool is_busy(const struct model *m, const struct vplan_copies *ranges)
{
	for (uint32_t i = 0; i < ranges->count; i++) {
		const struct vplan_copy *p = &ranges->copies[i];

		for (uint32_t k = 0; k < m->write_count; k++) {
			const struct m_write *w = m->writes[k];

			if (w->entry.inside && w->block < p->block + p->block_count &&
			    p->block < w->block + w->block_count)
				return true;
		}
	}
	return false;
}

static void model_resync(struct model *m, uint32_t slot)
{
	struct m_replica *r = &m->r[slot];
	struct vplan_list theirs, ours;
	struct vplan_copies phantoms;
	uint32_t source = 0;
	bool pull;

	while (source < m->n && !(m->r[source].up && m->r[source].current))
		source++;
	if (!r->up || r->current || source == m->n ||
	    !vwindow_decided_below(&m->window, r->joined) ||
	    !vwindow_answered_below(&m->window, source, r->joined))
		return;
	list_above(r, r->watermark, false, &theirs);
	list_above(&m->r[source], r->watermark, false, &ours);
	ck_assert_int_eq(
	    vplan_phantoms(&theirs, &ours, V(m->generation, r->joined), M_BLOCKS, &phantoms, &pull),
	    0);
	if (is_busy(m, &phantoms) && !m->no_lock) {
		vplan_list_deinit(&theirs);
		vplan_list_deinit(&ours);
		vplan_copies_deinit(&phantoms);
		return;
	}
	for (uint32_t k = 0; k < phantoms.count && !m->no_phantom_rule; k++) {
		const struct vplan_copy *p = &phantoms.copies[k];
		struct m_write *w = model_write(m, p->block, p->block_count, 0);

		for (uint32_t i = 0; i < p->block_count; i++)
			w->values[i] = m->r[source].blocks[p->block + i].value;
		for (uint32_t i = 0; i < m->n; i++)
			if (m->r[i].up)
				store(&m->r[i], w, 0);
		/* Those that are current and away would get it from their backlog; here none are.
		 */
		vwindow_decide(&m->window, &w->entry);
		vwindow_remove(&m->window, &w->entry);
		m->phantoms += p->block_count;
	}
	for (uint32_t b = 0; b < M_BLOCKS && pull; b++)
		if (m->r[source].blocks[b].version > r->blocks[b].version)
			r->blocks[b] = m->r[source].blocks[b];
	r->current = true;
	m->resynced++;
	vplan_list_deinit(&theirs);
	vplan_list_deinit(&ours);
	vplan_copies_deinit(&phantoms);
}

static void model_step(struct model *m)
{
	struct m_write *w = m->write_count > 0 ? m->writes[below(m->write_count)] : NULL;
	const uint32_t slot = below(m->n);

	switch (below(16)) {
	case 0:
	case 1:
	case 2:
		model_guest_write(m);
		break;
	case 3:
		if (below(6) == 0)
			model_away(m, slot);
		break;
	case 4:
		model_back(m, slot);
		break;
	case 5:
		model_resync(m, slot);
		break;
	case 6: /* FRAME_WATERMARK */
		if (m->r[slot].up && m->r[slot].current && low_of(m, slot) > m->r[slot].watermark)
			m->r[slot].watermark = low_of(m, slot);
		break;
	default:
		if (w == NULL || !w->entry.inside)
			break;
		if ((w->stored & vmask_bit(slot)) != 0)
			model_answer(m, w, slot);
		else if (m->r[slot].up)
			model_store(m, w, slot);
		break;
	}
}

static void model_free_writes(struct model *m)
{
	for (uint32_t k = 0; k < m->write_count; k++)
		free(m->writes[k]);
	m->write_count = 0;
}

/* One chunk's life. */
static void model_run(struct model *m, unsigned seed, uint32_t replicas)
{
	srand(seed);
	m->n = replicas;
	m->majority = vquorum_majority(replicas);
	for (int life = 0; life < 40 && !m->violated; life++) {
		const uint32_t steps = below(120);

		if (!model_attach(m))
			continue;
		for (uint32_t i = 0; i < steps; i++)
			model_step(m);
		model_free_writes(m);
	}
}

static struct model *model_new(void)
{
	struct model *m = calloc(1, sizeof(*m));

	ck_assert_ptr_nonnull(m);
	return m;
}

START_TEST(a_chunk_lives_through_crashes)
{
	uint64_t copied = 0, resynced = 0, phantoms = 0, acked = 0;

	for (unsigned seed = 1; seed <= 400; seed++) {
		struct model *m = model_new();

		model_run(m, seed, seed % 4 == 0 ? 5 : 3);
		ck_assert_msg(!m->violated, "seed %u: a reader saw what it must not", seed);
		copied += m->copied;
		resynced += m->resynced;
		phantoms += m->phantoms;
		acked += m->acked;
		free(m);
	}
	/* The test has teeth only if all of it happened. */
	ck_assert_uint_gt(acked, 5000);
	ck_assert_uint_gt(copied, 5000);
	ck_assert_uint_gt(resynced, 500);
	ck_assert_uint_gt(phantoms, 50);
}
END_TEST

static bool some_life_is_violated(const struct model *mutant)
{
	bool found = false;

	for (unsigned seed = 1; seed <= 400 && !found; seed++) {
		struct model *m = model_new();

		*m = *mutant;
		model_run(m, seed, 3);
		found = m->violated;
		free(m);
	}
	return found;
}

/* The mutants: each trap, walked into, is seen by the model. */
START_TEST(the_model_sees_a_phantom_below_the_watermark)
{
	struct model *m = model_new();

	m->overlook_undecided = true;
	ck_assert(some_life_is_violated(m));
	free(m);
}
END_TEST

START_TEST(the_model_sees_folded_versions)
{
	struct model *m = model_new();

	m->by_page = true;
	ck_assert(some_life_is_violated(m));
	free(m);
}
END_TEST

START_TEST(the_model_sees_a_resync_without_the_phantom_rule)
{
	struct model *m = model_new();

	m->no_phantom_rule = true;
	ck_assert(some_life_is_violated(m));
	free(m);
}
END_TEST

START_TEST(the_model_sees_a_rewrite_over_a_write_in_flight)
{
	struct model *m = model_new();

	m->no_lock = true;
	ck_assert(some_life_is_violated(m));
	free(m);
}
END_TEST

int main(void)
{
	TCase *tc = tcase_create("cores");
	Suite *s = suite_create("volume_cores");
	SRunner *sr = srunner_create(s);
	int failed;

	tcase_set_timeout(tc, 100);
	tcase_add_test(tc, majority_is_of_the_configured);
	tcase_add_test(tc, copies_outside_of_the_permit_do_not_count);
	tcase_add_test(tc, min_acks_asks_for_more_never_for_less);
	tcase_add_test(tc, refusals_fail_a_write_when_no_majority_is_left);
	tcase_add_test(tc, watermarks_rise_without_gaps);
	tcase_add_test(tc, phantom_below_the_watermark);
	tcase_add_test(tc, a_window_answers_as_a_plain_list_does);
	tcase_add_test(tc, equal_and_complete_is_clean);
	tcase_add_test(tc, members_are_the_best_majority_and_whoever_is_near);
	tcase_add_test(tc, folded_versions);
	tcase_add_test(tc, phantom);
	tcase_add_test(tc, what_every_member_has_is_not_copied);
	tcase_add_test(tc, runs_outside_of_the_chunk_are_refused);
	tcase_add_test(tc, what_is_missing_lies_around_what_is_held);
	tcase_add_test(tc, resync_leaves_out_what_comes_by_itself);
	tcase_add_test(tc, a_chunk_lives_through_crashes);
	tcase_add_test(tc, the_model_sees_a_phantom_below_the_watermark);
	tcase_add_test(tc, the_model_sees_folded_versions);
	tcase_add_test(tc, the_model_sees_a_resync_without_the_phantom_rule);
	tcase_add_test(tc, the_model_sees_a_rewrite_over_a_write_in_flight);
	suite_add_tcase(s, tc);
	srunner_run_all(sr, CK_NORMAL);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed == 0 ? 0 : 1;
}
