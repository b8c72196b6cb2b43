/* Unit tests of the simulator (tests/sim): determinism, turns, crashes, the power-loss model of the
 * disk, the order of commits in the kv, and the contract of the network. */
#include <check.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "tests/sim/disk.h"
#include "tests/sim/kv.h"
#include "tests/sim/net.h"

#define DISK_SIZE (8u << 20)

/* -- a machine with a disk and a kv ---------------------------------------------------------- */

struct machine {
	struct sim_world *world;
	struct sim_process *process;
	struct sim_disk *disk;
	struct sim_kv *kv;
	struct disk *open_disk;
	struct kv *open_kv;
};

static void machine_boot(struct machine *m)
{
	sim_process_start(m->process);
	m->open_disk = sim_disk_open(m->disk);
	m->open_kv = sim_kv_open(m->kv);
}

static void machine_init(struct machine *m, uint64_t seed, bool volatile_cache)
{
	m->world = sim_world_create(seed);
	m->process = sim_process_create(m->world, "n1");
	m->disk = sim_disk_create(m->process, "n1.disk", DISK_SIZE, volatile_cache);
	m->kv = sim_kv_create(m->process, "n1.kv", 2);
	machine_boot(m);
}

/* -- disk operations ------------------------------------------------------------------------- */

struct io {
	struct disk_op op;
	bool done;
	int status;
	uint8_t *memory;
};

static void io_done(struct disk_op *op, int status)
{
	struct io *io = container_of(op, struct io, op);

	ck_assert(!io->done);
	io->done = true;
	io->status = status;
}

static void io_submit(struct machine *m, struct io *io, enum disk_op_kind kind, bool durable,
		      uint64_t block, uint32_t block_count, int fill)
{
	size_t size = (size_t)block_count * BLOCK_SIZE;

	memset(io, 0, sizeof(*io));
	io->op.kind = kind;
	io->op.durable = durable;
	io->op.offset = block * BLOCK_SIZE;
	io->op.size = size;
	io->op.done = io_done;
	if (kind == DISK_READ || kind == DISK_WRITE) {
		io->memory = aligned_alloc(BLOCK_SIZE, size);
		memset(io->memory, fill, size);
		io->op.iov[0] = (struct iovec){.iov_base = io->memory, .iov_len = size};
		io->op.iovs = io->op.iov;
		io->op.iov_count = 1;
	}
	disk_submit(m->open_disk, &io->op);
	ck_assert_msg(!io->done, "never inline");
}

static int io_run(struct machine *m, enum disk_op_kind kind, bool durable, uint64_t block,
		  uint32_t block_count, int fill)
{
	struct io io;

	io_submit(m, &io, kind, durable, block, block_count, fill);
	ck_assert(sim_run_flag(m->world, &io.done));
	free(io.memory);
	return io.status;
}

static int sector(struct machine *m, uint64_t block, uint32_t number)
{
	uint8_t buf[512];

	sim_disk_peek(m->disk, block * BLOCK_SIZE + number * 512u, buf, sizeof(buf));
	ck_assert_msg(memcmp(buf, buf + 1, sizeof(buf) - 1) == 0, "a sector is never torn");
	return buf[0];
}

START_TEST(the_disk_reads_what_was_written)
{
	struct machine m;
	struct io io;

	machine_init(&m, 1, true);
	ck_assert_int_eq(io_run(&m, DISK_WRITE, false, 3, 2, 0xaa), 0);
	io_submit(&m, &io, DISK_READ, false, 2, 4, 0xff);
	ck_assert(sim_run_flag(m.world, &io.done));
	ck_assert_int_eq(io.memory[0], 0);
	ck_assert_int_eq(io.memory[BLOCK_SIZE], 0xaa);
	ck_assert_int_eq(io.memory[2 * BLOCK_SIZE], 0xaa);
	ck_assert_int_eq(io.memory[3 * BLOCK_SIZE], 0);
	free(io.memory);
	ck_assert_uint_eq(sim_disk_io_count(m.disk), 2);
	sim_world_destroy(m.world);
}
END_TEST

START_TEST(power_loss_keeps_what_was_durable)
{
	unsigned kept = 0, dropped = 0, torn = 0;

	for (uint64_t seed = 1; seed <= 300; seed++) {
		struct machine m;
		unsigned sectors = 0;

		machine_init(&m, seed, true);
		ck_assert_int_eq(io_run(&m, DISK_WRITE, true, 0, 1, 1), 0);
		ck_assert_int_eq(io_run(&m, DISK_WRITE, false, 1, 1, 2), 0);
		ck_assert_int_eq(io_run(&m, DISK_FLUSH, false, 0, 0, 0), 0);
		ck_assert_int_eq(io_run(&m, DISK_WRITE, false, 1, 1, 3), 0);
		sim_process_crash(m.process, SIM_POWER_LOSS);
		for (uint32_t i = 0; i < 8; i++) {
			ck_assert_int_eq(sector(&m, 0, i), 1);
			ck_assert(sector(&m, 1, i) == 2 || sector(&m, 1, i) == 3);
			sectors += sector(&m, 1, i) == 3;
		}
		kept += sectors == 8;
		dropped += sectors == 0;
		torn += sectors > 0 && sectors < 8;
		sim_world_destroy(m.world);
	}
	ck_assert_uint_gt(kept, 50);
	ck_assert_uint_gt(dropped, 50);
	ck_assert_uint_gt(torn, 30);
}
END_TEST

START_TEST(a_durable_write_covers_what_completed_before_it)
{
	for (uint64_t seed = 1; seed <= 50; seed++) {
		struct machine m;

		machine_init(&m, seed, true);
		ck_assert_int_eq(io_run(&m, DISK_WRITE, false, 5, 1, 2), 0);
		ck_assert_int_eq(io_run(&m, DISK_WRITE, true, 6, 1, 4), 0);
		sim_process_crash(m.process, SIM_POWER_LOSS);
		ck_assert_int_eq(sector(&m, 5, 7), 2);
		ck_assert_int_eq(sector(&m, 6, 7), 4);
		sim_world_destroy(m.world);
	}
}
END_TEST

START_TEST(a_kill_keeps_what_completed_and_any_part_of_what_did_not)
{
	unsigned lost = 0;

	for (uint64_t seed = 1; seed <= 100; seed++) {
		struct machine m;
		struct io io;

		machine_init(&m, seed, true);
		ck_assert_int_eq(io_run(&m, DISK_WRITE, false, 0, 1, 1), 0);
		io_submit(&m, &io, DISK_WRITE, true, 1, 1, 7);
		sim_process_crash(m.process, SIM_KILL);
		sim_run_for(m.world, NS_PER_S);
		ck_assert_msg(!io.done, "no callback of the dead");
		ck_assert_int_eq(sector(&m, 0, 3), 1);
		lost += sector(&m, 1, 3) == 0;
		free(io.memory);
		sim_world_destroy(m.world);
	}
	ck_assert_uint_gt(lost, 20);
	ck_assert_uint_lt(lost, 80);
}
END_TEST

/* -- crash at I/O N -------------------------------------------------------------------------- */

static int crash_at(uint64_t n, enum sim_fate fate, unsigned *ret_acknowledged)
{
	struct machine m;
	int survived = 1;

	machine_init(&m, 42, false);
	m.world->trace_off = true;
	m.process->fate = fate;
	sim_disk_on_io(m.disk, n, SIM_IO_KILL);
	*ret_acknowledged = 0;
	for (unsigned i = 0; i < 4 && survived; i++) {
		struct io io;

		io_submit(&m, &io, DISK_WRITE, true, i, 1, 9);
		survived = sim_run_flag(m.world, &io.done);
		*ret_acknowledged += (unsigned)survived;
		free(io.memory);
	}
	if (!survived)
		machine_boot(&m);
	for (unsigned i = 0; i < *ret_acknowledged; i++)
		ck_assert_int_eq(sector(&m, i, 0), 9);
	if (!survived)
		ck_assert_int_eq(sector(&m, *ret_acknowledged, 0), fate == SIM_FATE_KEEP ? 9 : 0);
	sim_disk_on_io(m.disk, 1, SIM_IO_NORMAL);
	ck_assert_int_eq(io_run(&m, DISK_WRITE, true, 100, 1, 1), 0);
	sim_world_destroy(m.world);
	return survived;
}

START_TEST(a_crash_at_every_io)
{
	unsigned acknowledged;
	uint64_t n;

	for (n = 1; !crash_at(n, SIM_FATE_KEEP, &acknowledged); n++)
		ck_assert_uint_eq(acknowledged, n - 1);
	ck_assert_uint_eq(n, 5);
	for (n = 1; !crash_at(n, SIM_FATE_DROP, &acknowledged); n++)
		ck_assert_uint_eq(acknowledged, n - 1);
	ck_assert_uint_eq(n, 5);
}
END_TEST

START_TEST(an_io_fails_on_demand)
{
	struct machine m;

	machine_init(&m, 1, false);
	sim_disk_on_io(m.disk, 2, SIM_IO_FAIL);
	ck_assert_int_eq(io_run(&m, DISK_WRITE, true, 0, 1, 1), 0);
	ck_assert_int_eq(io_run(&m, DISK_WRITE, true, 0, 1, 2), -EIO);
	ck_assert_int_eq(io_run(&m, DISK_WRITE, true, 0, 1, 3), 0);
	sim_world_destroy(m.world);
}
END_TEST

/* -- kv -------------------------------------------------------------------------------------- */

struct commit {
	struct kv_op op;
	bool done;
	int status;
};

static void commit_done(struct kv_op *op, int status)
{
	struct commit *c = container_of(op, struct commit, op);

	c->done = true;
	c->status = status;
}

static void commit_put(struct machine *m, struct commit *c, const char *key, const char *value)
{
	struct kv_batch *b = kv_batch_create(m->open_kv);

	memset(c, 0, sizeof(*c));
	c->op.done = commit_done;
	kv_batch_put(m->open_kv, b, 1, key, strlen(key), value, strlen(value));
	kv_commit(m->open_kv, b, &c->op);
}

struct get {
	struct kv_get_op op;
	bool done;
	int status;
	char value[16];
};

static void get_done(struct kv_get_op *op, int status)
{
	struct get *g = container_of(op, struct get, op);

	g->done = true;
	g->status = status;
}

static bool has(struct machine *m, const char *key)
{
	struct get g = {.op = {.done = get_done, .family = 1, .key_size = strlen(key)}};

	memcpy(g.op.key, key, strlen(key));
	g.op.value = g.value;
	g.op.value_max = sizeof(g.value);
	kv_get(m->open_kv, &g.op);
	ck_assert(sim_run_flag(m->world, &g.done));
	ck_assert(g.status == 0 || g.status == -ENOENT);
	return g.status == 0;
}

static int collect(const void *key, size_t key_size, const void *value, size_t value_size,
		   void *arg)
{
	(void)value;
	(void)value_size;
	strncat(arg, key, key_size);
	return 0;
}

START_TEST(the_kv_is_ordered_and_batches_are_whole)
{
	struct machine m;
	struct commit c = {.op = {.done = commit_done}};
	struct kv_batch *b;
	char keys[64] = "";

	machine_init(&m, 1, false);
	b = kv_batch_create(m.open_kv);
	kv_batch_put(m.open_kv, b, 1, "pc", 2, "3", 1);
	kv_batch_put(m.open_kv, b, 1, "pa", 2, "1", 1);
	kv_batch_put(m.open_kv, b, 1, "q", 1, "4", 1);
	kv_batch_put(m.open_kv, b, 1, "pb", 2, "2", 1);
	kv_batch_put(m.open_kv, b, 1, "pd", 2, "2", 1);
	kv_batch_delete(m.open_kv, b, 1, "pb", 2);
	kv_batch_delete_range(m.open_kv, b, 1, "pd", 2, "q", 1);
	kv_commit(m.open_kv, b, &c.op);
	ck_assert(sim_run_flag(m.world, &c.done));
	ck_assert_int_eq(kv_scan(m.open_kv, 1, "p", 1, collect, keys), 0);
	ck_assert_str_eq(keys, "papc");
	ck_assert_uint_eq(sim_kv_key_count(m.kv, 1), 3);
	ck_assert_uint_eq(sim_kv_key_count(m.kv, 0), 0);
	kv_batch_destroy(m.open_kv, kv_batch_create(m.open_kv));
	kv_close(m.open_kv);
	sim_world_destroy(m.world);
}
END_TEST

START_TEST(a_crash_keeps_commits_up_to_some_point)
{
	unsigned kept_first = 0, kept_second = 0;

	for (uint64_t seed = 1; seed <= 100; seed++) {
		struct machine m;
		struct commit first, second, third;
		bool b, c;

		machine_init(&m, seed, false);
		commit_put(&m, &first, "a", "1");
		ck_assert(sim_run_flag(m.world, &first.done));
		commit_put(&m, &second, "b", "2");
		commit_put(&m, &third, "c", "3");
		sim_process_crash(m.process, SIM_POWER_LOSS);
		machine_boot(&m);
		ck_assert(has(&m, "a"));
		b = has(&m, "b");
		c = has(&m, "c");
		ck_assert_msg(b || !c, "in order");
		kept_first += b;
		kept_second += c;
		ck_assert(!second.done && !third.done);
		sim_world_destroy(m.world);
	}
	ck_assert_uint_gt(kept_first, 20);
	ck_assert_uint_lt(kept_first, 80);
	ck_assert_uint_gt(kept_second, 5);
}
END_TEST

/* -- the reactor ----------------------------------------------------------------------------- */

struct clockwork {
	struct reactor *reactor;
	struct reactor_timer timers[3];
	struct reactor_task task, posted;
	struct reactor_work work;
	char order[32];
	bool worked, done;
};

static void note(struct clockwork *c, const char *what)
{
	strcat(c->order, what);
}

static void fire0(struct reactor_timer *t)
{
	struct clockwork *c = container_of(t, struct clockwork, timers[0]);

	ck_assert_uint_ge(reactor_now_ns(c->reactor), t->deadline_ns);
	note(c, "0");
	reactor_defer(c->reactor, &c->task);
	reactor_defer(c->reactor, &c->task);
}

static void fire1(struct reactor_timer *t)
{
	note(container_of(t, struct clockwork, timers[1]), "1");
}

static void fire2(struct reactor_timer *t)
{
	note(container_of(t, struct clockwork, timers[2]), "2");
}

static void task_run(struct reactor_task *t)
{
	note(container_of(t, struct clockwork, task), "t");
}

static void posted_run(struct reactor_task *t)
{
	note(container_of(t, struct clockwork, posted), "p");
}

static void work_run(struct reactor_work *w)
{
	container_of(w, struct clockwork, work)->worked = true;
}

static void work_done(struct reactor_work *w)
{
	struct clockwork *c = container_of(w, struct clockwork, work);

	ck_assert(c->worked);
	c->done = true;
}

static struct clockwork *clockwork_create(struct sim_process *p)
{
	struct clockwork *c = calloc(1, sizeof(*c));

	c->reactor = sim_reactor(p);
	c->timers[0].fire = fire0;
	c->timers[1].fire = fire1;
	c->timers[2].fire = fire2;
	c->task.run = task_run;
	c->posted.run = posted_run;
	c->work.work = work_run;
	c->work.done = work_done;
	return c;
}

START_TEST(timers_tasks_and_work_run_in_their_order)
{
	struct sim_world *w = sim_world_create(3);
	struct sim_process *p = sim_process_create(w, "p");
	struct clockwork *c = clockwork_create(p);
	uint64_t now;

	sim_process_start(p);
	now = reactor_now_ns(c->reactor);
	reactor_timer_arm(c->reactor, &c->timers[0], now + 2 * NS_PER_S);
	reactor_timer_arm(c->reactor, &c->timers[1], now + 5 * NS_PER_S);
	reactor_timer_arm(c->reactor, &c->timers[2], now + 1 * NS_PER_S);
	reactor_timer_arm(c->reactor, &c->timers[1], now + 3 * NS_PER_S); /* moved */
	sim_run_for(w, 1500 * NS_PER_MS);
	ck_assert_str_eq(c->order, "2");
	ck_assert_uint_eq(reactor_now_ns(c->reactor), now + 1500 * NS_PER_MS);
	sim_run_for(w, 10 * NS_PER_S);
	ck_assert_str_eq(c->order, "20t1");
	reactor_timer_arm(c->reactor, &c->timers[2], now);
	reactor_timer_cancel(c->reactor, &c->timers[2]);
	reactor_post(c->reactor, &c->posted);
	reactor_defer(c->reactor, &c->task);
	reactor_offload(c->reactor, &c->work);
	ck_assert_str_eq(c->order, "20t1");
	ck_assert(sim_run_flag(w, &c->done));
	ck_assert_str_eq(c->order, "20t1tp");
	sim_world_destroy(w);
	free(c);
}
END_TEST

START_TEST(a_dead_process_does_nothing_and_a_paused_one_waits)
{
	struct sim_world *w = sim_world_create(3);
	struct sim_process *p = sim_process_create(w, "p"), *q = sim_process_create(w, "q");
	struct clockwork *c, *d = clockwork_create(q);
	uint8_t *memory;

	sim_process_start(p);
	sim_process_start(q);
	c = clockwork_create(p);
	p->app = c; /* c is abandoned by the crash, and no leak */
	memory = reactor_memory(c->reactor, 100000);
	ck_assert_uint_eq((uintptr_t)memory % BLOCK_SIZE, 0);
	ck_assert_int_eq(memory[99999], 0);
	reactor_timer_arm(c->reactor, &c->timers[0], reactor_now_ns(c->reactor) + NS_PER_S);
	reactor_defer(c->reactor, &c->task);
	reactor_post(c->reactor, &c->posted);
	sim_process_crash(p, SIM_KILL);
	sim_process_pause(q);
	reactor_timer_arm(d->reactor, &d->timers[1], reactor_now_ns(d->reactor) + NS_PER_S);
	sim_run_for(w, 10 * NS_PER_S);
	ck_assert_str_eq(c->order, "");
	ck_assert_uint_eq(c->timers[0].heap_slot, 0);
	ck_assert_str_eq(d->order, "");
	sim_process_resume(q);
	sim_run_for(w, 1);
	ck_assert_str_eq(d->order, "1");
	sim_process_start(p);
	sim_run_for(w, 10 * NS_PER_S);
	ck_assert_str_eq(c->order, "");
	sim_world_destroy(w);
	free(d);
}
END_TEST

START_TEST(wall_clocks_differ_and_step)
{
	struct sim_world *w = sim_world_create(3);
	struct sim_process *p = sim_process_create(w, "p");

	sim_process_start(p);
	ck_assert_int_eq(reactor_wall_ns(sim_reactor(p)), SIM_EPOCH_NS);
	p->wall_offset_ns = -5;
	sim_run_for(w, 1000);
	ck_assert_int_eq(reactor_wall_ns(sim_reactor(p)), SIM_EPOCH_NS + 995);
	sim_world_destroy(w);
}
END_TEST

static Suite *suite(void)
{
	Suite *s = suite_create("sim");
	TCase *t = tcase_create("machine");

	tcase_add_test(t, the_disk_reads_what_was_written);
	tcase_add_test(t, power_loss_keeps_what_was_durable);
	tcase_add_test(t, a_durable_write_covers_what_completed_before_it);
	tcase_add_test(t, a_kill_keeps_what_completed_and_any_part_of_what_did_not);
	tcase_add_test(t, a_crash_at_every_io);
	tcase_add_test(t, an_io_fails_on_demand);
	tcase_add_test(t, the_kv_is_ordered_and_batches_are_whole);
	tcase_add_test(t, a_crash_keeps_commits_up_to_some_point);
	tcase_add_test(t, timers_tasks_and_work_run_in_their_order);
	tcase_add_test(t, a_dead_process_does_nothing_and_a_paused_one_waits);
	tcase_add_test(t, wall_clocks_differ_and_step);
	suite_add_tcase(s, t);
	return s;
}

int main(void)
{
	SRunner *sr = srunner_create(suite());
	int failed;

	srunner_run_all(sr, CK_NORMAL);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed != 0;
}
