/* Unit tests of the simulator (tests/sim): determinism, turns, crashes, the power-loss model of the
 * disk, the order of commits in the kv, and the contract of the network. */
#include <check.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/sim/disk.h"
#include "tests/sim/kv.h"
#include "tests/sim/net.h"
#include "tests/sim/pages.h"

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

/* Against plain memory: what is kept in few bytes and what is not, written whole and in parts. */
START_TEST(a_page_holds_any_content)
{
	struct sim_page *page = NULL, *copy = NULL;
	uint64_t plain[BLOCK_SIZE / sizeof(uint64_t)] = {0}, seen[BLOCK_SIZE / sizeof(uint64_t)];
	uint64_t before[BLOCK_SIZE / sizeof(uint64_t)];
	struct sim_world *w = sim_world_create(7);

	for (uint32_t round = 0; round < 2000; round++) {
		const uint64_t first = sim_random_below(w, 3) == 0 ? 0 : sim_random(w);
		const bool stamped = sim_chance(w, 2, 3), whole = sim_chance(w, 1, 2);
		const size_t offset = whole ? 0 : sim_random_below(w, BLOCK_SIZE);
		const size_t size = whole ? BLOCK_SIZE : BLOCK_SIZE - offset;
		uint8_t unaligned[BLOCK_SIZE + 1];

		memcpy(seen, plain, sizeof(seen));
		for (size_t i = 0; i < ARRAY_SIZE(seen); i++)
			seen[i] = i < 3 || !stamped ? first : first + i;
		if (sim_chance(w, 1, 3)) /* all but one word of it */
			seen[sim_random_below(w, ARRAY_SIZE(seen))]++;
		memcpy(unaligned + 1, seen, sizeof(seen));
		memcpy(before, plain, sizeof(before));
		sim_page_copy(&copy, page);
		sim_page_write(&page, offset, unaligned + 1, size);
		memcpy((uint8_t *)plain + offset, seen, size);
		memset(seen, 0xee, sizeof(seen));
		sim_page_read(page, 0, seen, BLOCK_SIZE);
		ck_assert_mem_eq(seen, plain, sizeof(plain));
		sim_page_read(page, offset, seen, size);
		ck_assert_mem_eq(seen, (uint8_t *)plain + offset, size);
		sim_page_read(copy, 0, seen, BLOCK_SIZE);
		ck_assert_mem_eq(seen, before, sizeof(before));
		sim_page_drop(&copy);
		sim_page_copy(&copy, page);
		sim_page_read(copy, 0, seen, BLOCK_SIZE);
		ck_assert_mem_eq(seen, plain, sizeof(plain));
		sim_page_drop(&copy);
		if (sim_chance(w, 1, 10)) {
			sim_page_drop(&page);
			memset(plain, 0, sizeof(plain));
		}
	}
	sim_page_drop(&page);
	sim_world_destroy(w);
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
	size_t used = strlen(c->order);

	snprintf(c->order + used, sizeof(c->order) - used, "%s", what);
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

/* -- the network ----------------------------------------------------------------------------- */

#define FRAMES_MAX 64u
#define LARGE	   (256u << 10)

struct side;

struct packet {
	struct transport_send send;
	struct side *side;
	uint32_t crcs[LARGE / BLOCK_SIZE];
	bool done;
	int status;
};

/* One side of a conversation: what it sent, and what it got, in order. */
struct side {
	struct sim_process *process;
	struct transport *transport;
	struct transport_listener *listener;
	struct transport_conn *conn;
	struct packet packets[FRAMES_MAX];
	unsigned sent, done;
	uint64_t ids[FRAMES_MAX];
	unsigned received, bad_crcs, buffers;
	bool ready, closed, refuse_buffers;
	int reason;
	uint8_t *payload, *buffer;
};

struct pair {
	struct sim_world *world;
	struct side a, b; /* a connects to b */
};

static void side_ready(struct transport_conn *conn, void *arg)
{
	struct side *s = arg;

	ck_assert_ptr_eq(conn, s->conn);
	s->ready = true;
}

static void *side_rx_buffer(struct transport_conn *conn, const struct frame *f, void *arg)
{
	struct side *s = arg;

	(void)conn;
	ck_assert_ptr_null(f->payload);
	s->buffers++;
	return s->refuse_buffers ? NULL : s->buffer;
}

static void side_rx(struct transport_conn *conn, const struct frame *f, void *arg)
{
	struct side *s = arg;

	ck_assert_ptr_eq(conn, s->conn);
	ck_assert(!s->closed);
	ck_assert_uint_lt(s->received, FRAMES_MAX);
	s->ids[s->received++] = f->request_id;
	if (!frame_payload_ok(f))
		s->bad_crcs++;
	if (f->payload_size > TRANSPORT_COPY_MAX)
		ck_assert_ptr_eq(f->payload, s->buffer);
}

static void side_closed(struct transport_conn *conn, int reason, void *arg)
{
	struct side *s = arg;

	ck_assert_ptr_eq(conn, s->conn);
	ck_assert_msg(!s->closed, "once");
	ck_assert_msg(s->done == s->sent, "after the done of every send");
	s->closed = true;
	s->reason = reason;
}

static const struct transport_handler side_handler = {
    .ready = side_ready, .rx_buffer = side_rx_buffer, .rx = side_rx, .closed = side_closed};

static void side_accepted(struct transport_conn *conn, void *arg)
{
	struct side *s = arg;

	conn->handler = &side_handler;
	conn->arg = s;
	s->conn = conn;
	s->ready = true;
	ck_assert(!conn->peer.verified);
}

static void packet_done(struct transport_send *send, int status)
{
	struct packet *p = container_of(send, struct packet, send);

	ck_assert(!p->done && !p->side->closed);
	p->done = true;
	p->status = status;
	p->side->done++;
}

/* size 0: a request without payload. */
static struct packet *side_send(struct side *s, uint32_t size)
{
	struct packet *p = &s->packets[s->sent];

	p->side = s;
	p->send.done = packet_done;
	p->send.frame = (struct frame){.wire_version = FRAME_VERSION,
				       .op = size > 0 ? FRAME_WRITE : FRAME_READ,
				       .request_id = ++s->sent,
				       .block_count = size > 0 ? size / BLOCK_SIZE : 1,
				       .payload_size = size,
				       .crc_count = frame_crc_count(size)};
	if (size > 0) {
		p->send.frame.version = version_make(1, s->sent);
		frame_payload_crcs(s->payload, size, p->crcs);
		p->send.frame.crcs = p->crcs;
		p->send.iov[0] = (struct iovec){.iov_base = s->payload, .iov_len = size};
		p->send.iov_count = 1;
	}
	transport_send(s->conn, &p->send);
	ck_assert_msg(!p->done, "never inline");
	return p;
}

static void side_init(struct side *s, struct sim_world *w, const char *name)
{
	s->process = sim_process_create(w, name);
	sim_process_start(s->process);
	s->transport = sim_transport_create(s->process);
	s->payload = reactor_memory(sim_reactor(s->process), LARGE);
	s->buffer = reactor_memory(sim_reactor(s->process), LARGE);
	memset(s->payload, 0x5a, LARGE);
}

static struct pair *pair_create(uint64_t seed)
{
	struct pair *p = calloc(1, sizeof(*p));

	p->world = sim_world_create(seed);
	side_init(&p->a, p->world, "a");
	side_init(&p->b, p->world, "b");
	ck_assert_int_eq(
	    transport_listen(p->b.transport, "", side_accepted, &p->b, &p->b.listener, NULL), 0);
	ck_assert_str_eq(p->b.listener->address, "b");
	ck_assert_int_eq(transport_connect(p->a.transport, "b", &side_handler, &p->a, &p->a.conn),
			 0);
	return p;
}

static void pair_connect(struct pair *p)
{
	ck_assert(!p->a.ready && sim_run_flag(p->world, &p->a.ready) && p->b.ready);
}

static void pair_destroy(struct pair *p)
{
	sim_world_destroy(p->world);
	free(p);
}

START_TEST(frames_arrive_whole_and_in_order)
{
	for (uint64_t seed = 1; seed <= 20; seed++) {
		struct pair *p = pair_create(seed);

		side_send(&p->a, 0); /* before it is ready: it waits */
		pair_connect(p);
		for (unsigned i = 1; i < 40; i++)
			side_send(&p->a, i % 3 == 0 ? LARGE : i % 3 == 1 ? BLOCK_SIZE : 0);
		ck_assert_uint_gt(p->a.conn->queued_bytes, 0);
		side_send(&p->b, BLOCK_SIZE);
		sim_run_for(p->world, NS_PER_S);
		ck_assert_uint_eq(p->b.received, 40);
		for (unsigned i = 0; i < 40; i++)
			ck_assert_uint_eq(p->b.ids[i], i + 1);
		ck_assert_uint_eq(p->b.bad_crcs, 0);
		ck_assert_uint_eq(p->b.buffers, 13);
		ck_assert_uint_eq(p->a.done, 40);
		ck_assert_uint_eq(p->a.conn->queued_bytes, 0);
		ck_assert_uint_eq(p->a.received, 1);
		pair_destroy(p);
	}
}
END_TEST

START_TEST(memory_used_again_before_done_shows)
{
	struct pair *p = pair_create(1);

	pair_connect(p);
	side_send(&p->a, BLOCK_SIZE);
	p->a.payload[0] ^= 1;
	sim_run_for(p->world, NS_PER_S);
	ck_assert_uint_eq(p->b.received, 1);
	ck_assert_uint_eq(p->b.bad_crcs, 1);
	pair_destroy(p);
}
END_TEST

START_TEST(a_close_is_told_to_both_sides)
{
	struct pair *p = pair_create(1);
	struct packet *last;

	pair_connect(p);
	side_send(&p->a, BLOCK_SIZE);
	sim_run_for(p->world, NS_PER_S);
	last = side_send(&p->a, BLOCK_SIZE);
	transport_close(p->a.conn);
	transport_close(p->a.conn);
	ck_assert(!p->a.closed);
	sim_run_for(p->world, NS_PER_S);
	ck_assert(p->a.closed && p->b.closed);
	ck_assert_int_eq(p->a.reason, 0);
	ck_assert_int_eq(last->status, -E_DISCONNECTED);
	ck_assert_int_eq(p->b.reason, -E_DISCONNECTED);
	ck_assert_uint_eq(p->b.received, 1);
	transport_unlisten(p->b.listener);
	transport_destroy(p->a.transport);
	transport_destroy(p->b.transport);
	pair_destroy(p);
}
END_TEST

START_TEST(a_refused_buffer_ends_the_connection)
{
	struct pair *p = pair_create(1);

	pair_connect(p);
	p->b.refuse_buffers = true;
	side_send(&p->a, LARGE);
	sim_run_for(p->world, NS_PER_S);
	ck_assert_int_eq(p->b.reason, -ENOBUFS);
	ck_assert_int_eq(p->a.reason, -E_DISCONNECTED);
	pair_destroy(p);
}
END_TEST

START_TEST(a_dead_peer_is_noticed)
{
	static const enum sim_crash crashes[] = {SIM_KILL, SIM_POWER_LOSS};

	for (unsigned i = 0; i < ARRAY_SIZE(crashes); i++) {
		struct pair *p = pair_create(1);
		struct transport_conn *conn;

		pair_connect(p);
		side_send(&p->a, LARGE);
		sim_process_crash(p->b.process, crashes[i]);
		ck_assert(!p->a.closed);
		ck_assert(sim_run_flag(p->world, &p->a.closed));
		ck_assert(!p->b.closed);
		p->a.closed = false;
		ck_assert_int_eq(
		    transport_connect(p->a.transport, "b", &side_handler, &p->a, &conn), 0);
		p->a.conn = conn;
		ck_assert(sim_run_flag(p->world, &p->a.closed));
		ck_assert_int_eq(p->a.reason, -ECONNREFUSED);
		pair_destroy(p);
	}
}
END_TEST

START_TEST(a_cut_link_holds_frames_back)
{
	struct pair *p = pair_create(1);

	pair_connect(p);
	sim_net_cut(p->a.process, p->b.process, true);
	side_send(&p->a, BLOCK_SIZE);
	side_send(&p->a, 0);
	side_send(&p->b, 0);
	sim_run_for(p->world, NS_PER_S);
	ck_assert_uint_eq(p->b.received, 0);
	ck_assert_uint_eq(p->a.received, 1);
	sim_net_heal_all(p->world);
	sim_run_for(p->world, NS_PER_S);
	ck_assert_uint_eq(p->b.received, 2);
	ck_assert_uint_eq(p->b.ids[1], 2);
	sim_net_isolate(p->b.process, true);
	side_send(&p->a, 0);
	sim_run_for(p->world, 60 * NS_PER_S);
	ck_assert_uint_eq(p->b.received, 2);
	ck_assert_int_eq(p->a.reason, -ETIMEDOUT);
	ck_assert_int_eq(p->b.reason, -E_DISCONNECTED);
	pair_destroy(p);
}
END_TEST

START_TEST(a_peer_that_stands_still_fills_the_window)
{
	struct pair *p = pair_create(1);

	pair_connect(p);
	sim_process_pause(p->b.process);
	for (unsigned i = 0; i < 40; i++)
		side_send(&p->a, LARGE);
	sim_run_for(p->world, NS_PER_S);
	ck_assert_uint_gt(p->a.conn->queued_bytes, 20 * LARGE);
	ck_assert_uint_lt(p->a.done, 20);
	sim_process_resume(p->b.process);
	sim_run_for(p->world, NS_PER_S);
	ck_assert_uint_eq(p->b.received, 40);
	ck_assert_uint_eq(p->a.done, 40);
	pair_destroy(p);
}
END_TEST

/* -- determinism ----------------------------------------------------------------------------- */

/* Some of everything; the hash of all that happened. */
static uint64_t run_everything(uint64_t seed)
{
	struct pair *p = pair_create(seed);
	struct sim_disk *sd = sim_disk_create(p->b.process, "disk", DISK_SIZE, true);
	struct machine m = {
	    .world = p->world, .process = p->b.process, .disk = sd, .open_disk = sim_disk_open(sd)};
	uint64_t hash;

	pair_connect(p);
	for (unsigned i = 0; i < 10; i++) {
		side_send(&p->a, BLOCK_SIZE);
		ck_assert_int_eq(io_run(&m, DISK_WRITE, i % 2 == 0, i, 1, 1), 0);
	}
	sim_process_crash(p->b.process, SIM_POWER_LOSS);
	sim_run_for(p->world, 30 * NS_PER_S);
	ck_assert(p->a.closed);
	hash = sim_trace_hash(p->world);
	pair_destroy(p);
	return hash;
}

START_TEST(a_run_is_a_function_of_its_seed)
{
	uint64_t hashes[10];

	for (uint64_t seed = 0; seed < 10; seed++) {
		hashes[seed] = run_everything(seed);
		ck_assert_uint_eq(run_everything(seed), hashes[seed]);
		for (uint64_t other = 0; other < seed; other++)
			ck_assert_uint_ne(hashes[seed], hashes[other]);
	}
}
END_TEST

static Suite *suite(void)
{
	Suite *s = suite_create("sim");
	TCase *t = tcase_create("machine");

	tcase_add_test(t, the_disk_reads_what_was_written);
	tcase_add_test(t, a_page_holds_any_content);
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
	t = tcase_create("network");
	tcase_add_test(t, frames_arrive_whole_and_in_order);
	tcase_add_test(t, memory_used_again_before_done_shows);
	tcase_add_test(t, a_close_is_told_to_both_sides);
	tcase_add_test(t, a_refused_buffer_ends_the_connection);
	tcase_add_test(t, a_dead_peer_is_noticed);
	tcase_add_test(t, a_cut_link_holds_frames_back);
	tcase_add_test(t, a_peer_that_stands_still_fills_the_window);
	tcase_add_test(t, a_run_is_a_function_of_its_seed);
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
