/* Unit tests of engine/reactor: posts, works, operations, memory, signals. Its clock, timers and
 * tasks: test_reactor_time.c. */
#include <arpa/inet.h>
#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "engine/base/log.h"
#include "engine/base/types.h"
#include "engine/reactor/io.h"
#include "engine/reactor/reactor.h"
#include "tests/unit/reactor_rig.h"

static bool finished;
static struct reactor_task task_a;

static void set_up_small(void)
{
	struct reactor_config config = {.name = "small", .ring_entries = 8};

	ck_assert_int_eq(reactor_create(&config, &reactor), 0);
}

static uint64_t rng_state = 0x9e3779b97f4a7c15ull;

static uint64_t rng(void)
{
	rng_state ^= rng_state << 13;
	rng_state ^= rng_state >> 7;
	rng_state ^= rng_state << 17;
	return rng_state;
}

/* -- other threads --------------------------------------------------------------------------- */

#define POSTERS	   2u
#define POSTS_EACH 20000u

struct post {
	struct reactor_task task;
	uint32_t thread, number;
};
static struct post posts[POSTERS][POSTS_EACH];
static uint32_t posts_seen[POSTERS];
static pthread_t main_thread;

static void post_arrived(struct reactor_task *t)
{
	struct post *p = container_of(t, struct post, task);

	ck_assert(pthread_equal(pthread_self(), main_thread));
	ck_assert_uint_eq(p->number, posts_seen[p->thread]);
	posts_seen[p->thread]++;
	finished = posts_seen[0] == POSTS_EACH && posts_seen[1] == POSTS_EACH;
}

static void *poster(void *arg)
{
	struct post *mine = arg;

	for (uint32_t i = 0; i < POSTS_EACH; i++)
		reactor_post(reactor, &mine[i].task);
	return NULL;
}

START_TEST(posts_of_two_threads_arrive_all_and_in_order)
{
	pthread_t threads[POSTERS];

	main_thread = pthread_self();
	for (uint32_t i = 0; i < POSTERS; i++) {
		for (uint32_t k = 0; k < POSTS_EACH; k++)
			posts[i][k] = (struct post){{.run = post_arrived}, i, k};
		ck_assert_int_eq(pthread_create(&threads[i], NULL, poster, posts[i]), 0);
	}
	run_until(&finished);
	for (uint32_t i = 0; i < POSTERS; i++)
		pthread_join(threads[i], NULL);
}
END_TEST

static struct reactor *partner;
static uint32_t volleys;

static void ping(struct reactor_task *t);

static void pong(struct reactor_task *t)
{
	t->run = ping;
	reactor_post(reactor, t);
}

static void ping(struct reactor_task *t)
{
	if (++volleys == 10000) {
		reactor_stop(partner);
		finished = true;
		return;
	}
	t->run = pong;
	reactor_post(partner, t);
}

static void *run_partner(void *arg)
{
	(void)arg;
	return reactor_run(partner) == 0 ? partner : NULL;
}

START_TEST(sleeping_reactors_wake_each_other)
{
	struct reactor_config config = {.name = "partner"};
	pthread_t thread;
	void *result;

	ck_assert_int_eq(reactor_create(&config, &partner), 0);
	ck_assert_int_eq(pthread_create(&thread, NULL, run_partner, NULL), 0);
	task_a.run = ping;
	reactor_post(reactor, &task_a);
	run_until(&finished);
	pthread_join(thread, &result);
	ck_assert_ptr_eq(result, partner);
	reactor_destroy(partner);
}
END_TEST

#define WORKS 300u

struct numbered_work {
	struct reactor_work work;
	pthread_t worker;
	uint32_t number, work_order;
};
static struct numbered_work works[WORKS];
static uint32_t work_order, works_done;

static void do_work(struct reactor_work *w)
{
	struct numbered_work *n = container_of(w, struct numbered_work, work);

	n->worker = pthread_self();
	n->work_order = work_order++; /* one worker: unsynchronised on purpose, TSan would tell */
}

static void work_done(struct reactor_work *w)
{
	struct numbered_work *n = container_of(w, struct numbered_work, work);

	ck_assert(pthread_equal(pthread_self(), main_thread));
	ck_assert(!pthread_equal(n->worker, main_thread));
	ck_assert_uint_eq(n->number, n->work_order);
	ck_assert_uint_eq(n->number, works_done);
	ck_assert_ptr_eq(n->work.reactor, reactor);
	finished = ++works_done == WORKS;
}

START_TEST(works_run_in_order_on_a_worker_and_end_at_home)
{
	struct reactor_stats stats;

	main_thread = pthread_self();
	for (uint32_t i = 0; i < WORKS; i++) {
		works[i] = (struct numbered_work){.work = {.work = do_work, .done = work_done},
						  .number = i};
		reactor_offload(reactor, &works[i].work);
	}
	ck_assert_uint_eq(works_done, 0);
	run_until(&finished);
	reactor_get_stats(reactor, &stats);
	ck_assert_uint_eq(stats.works, WORKS);
}
END_TEST

static atomic_uint met;

static void meet(struct reactor_work *w)
{
	(void)w;
	/* Ends only when another worker is in here too. */
	atomic_fetch_add(&met, 1);
	while (atomic_load(&met) < 2)
		sched_yield();
}

static void meet_done(struct reactor_work *w)
{
	(void)w;
	finished = ++works_done == 2;
}

START_TEST(several_workers_work_at_once)
{
	struct reactor_config config = {.name = "pool", .worker_count = 2};

	ck_assert_int_eq(reactor_create(&config, &reactor), 0);
	for (uint32_t i = 0; i < 2; i++) {
		works[i].work = (struct reactor_work){.work = meet, .done = meet_done};
		reactor_offload(reactor, &works[i].work);
	}
	run_until(&finished);
	tear_down();
}
END_TEST

/* -- stopping -------------------------------------------------------------------------------- */

static void *stop_it(void *arg)
{
	reactor_stop(arg);
	return NULL;
}

static void end_it(struct reactor_task *t)
{
	(void)t;
	finished = true;
}

START_TEST(stop_from_another_thread_and_again)
{
	for (uint32_t i = 0; i < 3; i++) {
		pthread_t thread;

		ck_assert_int_eq(pthread_create(&thread, NULL, stop_it, reactor), 0);
		ck_assert_int_eq(reactor_run(reactor), 0);
		pthread_join(thread, NULL);
	}
	/* Asked for before: the first turn still runs. */
	task_a.run = end_it;
	reactor_defer(reactor, &task_a);
	reactor_stop(reactor);
	ck_assert_int_eq(reactor_run(reactor), 0);
	ck_assert(finished);
}
END_TEST

static void stop_on_alarm(int signal_number)
{
	(void)signal_number;
	reactor_stop(reactor);
}

START_TEST(stop_from_a_signal_handler)
{
	struct sigaction action = {.sa_handler = stop_on_alarm};
	timer_t timer;
	struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGUSR1};
	struct itimerspec in = {.it_value.tv_nsec = 2 * NS_PER_MS};

	sigaction(SIGUSR1, &action, NULL);
	ck_assert_int_eq(timer_create(CLOCK_MONOTONIC, &event, &timer), 0);
	ck_assert_int_eq(timer_settime(timer, 0, &in, NULL), 0);
	ck_assert_int_eq(reactor_run(reactor), 0);
	timer_delete(timer);
}
END_TEST

static int terminated_by[2];
static uint32_t terminated_count;

static void on_terminate(int signal_number, void *arg)
{
	ck_assert_ptr_eq(arg, &terminated_count);
	terminated_by[terminated_count++] = signal_number;
	if (terminated_count == 1)
		kill(getpid(), SIGINT);
	else
		reactor_stop(reactor);
}

START_TEST(terminating_signals_are_events)
{
	ck_assert_int_eq(reactor_on_terminate(reactor, on_terminate, &terminated_count), 0);
	kill(getpid(), SIGTERM);
	ck_assert_int_eq(reactor_run(reactor), 0);
	ck_assert_int_eq(terminated_by[0], SIGTERM);
	ck_assert_int_eq(terminated_by[1], SIGINT);
}
END_TEST

static void on_user(int signal_number, void *arg)
{
	ck_assert_int_eq(signal_number, SIGUSR1);
	*(bool *)arg = true;
	kill(getpid(), SIGTERM);
}

static void on_terminate_stop(int signal_number, void *arg)
{
	ck_assert_int_eq(signal_number, SIGTERM);
	reactor_stop(arg);
}

START_TEST(the_user_signal_is_an_event_of_its_own)
{
	bool seen = false;

	ck_assert_int_eq(reactor_on_terminate(reactor, on_terminate_stop, reactor), 0);
	ck_assert_int_eq(reactor_on_user_signal(reactor, on_user, &seen), 0);
	kill(getpid(), SIGUSR1);
	ck_assert_int_eq(reactor_run(reactor), 0);
	ck_assert(seen);
}
END_TEST

/* -- operations ------------------------------------------------------------------------------ */

struct call {
	struct reactor_io io;
	int32_t result;
	uint32_t times;
};

static void call_done(struct reactor_io *io, int32_t result)
{
	struct call *c = container_of(io, struct call, io);

	c->result = result;
	c->times++;
	finished = true;
}

/* Runs until c is completed and returns its result. */
static int32_t finish(struct call *c)
{
	ck_assert_uint_eq(c->times, 0); /* never inline */
	while (c->times == 0) {
		finished = false;
		run_until(&finished);
	}
	return c->result;
}

#define CALL                                                                                       \
	(struct call)                                                                              \
	{                                                                                          \
		.io = {.done = call_done }                                                         \
	}

static int open_temp(void)
{
	char path[] = "/tmp/pave-test-reactor-XXXXXX";
	int fd = mkostemp(path, O_CLOEXEC);

	ck_assert_int_ge(fd, 0);
	unlink(path);
	return fd;
}

static void check_file_io(char *a, char *b)
{
	struct iovec iov[2] = {{a, 4096}, {a + 4096, 4096}},
		     back[2] = {{b, 4096}, {b + 4096, 4096}};
	int fd = open_temp();
	struct call c;

	for (uint32_t i = 0; i < 8192; i++)
		a[i] = (char)(i * 7 + i / 256);
	memset(b, 0, 8192);
	c = CALL;
	reactor_io_fallocate(reactor, &c.io, fd, 0, 0, 16384);
	ck_assert_int_eq(finish(&c), 0);
	c = CALL;
	reactor_io_write(reactor, &c.io, fd, a, 8192, 0, RWF_DSYNC);
	ck_assert_int_eq(finish(&c), 8192);
	c = CALL;
	reactor_io_read(reactor, &c.io, fd, b, 8192, 0);
	ck_assert_int_eq(finish(&c), 8192);
	ck_assert_mem_eq(a, b, 8192);
	memset(b, 0, 8192);
	c = CALL;
	reactor_io_writev(reactor, &c.io, fd, iov, 2, 8192, 0);
	ck_assert_int_eq(finish(&c), 8192);
	/* The flags reach the kernel: it refuses one that nobody has. */
	c = CALL;
	reactor_io_write(reactor, &c.io, fd, a, 4096, 0, 1 << 30);
	ck_assert_int_eq(finish(&c), -EOPNOTSUPP);
	c = CALL;
	reactor_io_writev(reactor, &c.io, fd, iov, 2, 0, 1 << 30);
	ck_assert_int_eq(finish(&c), -EOPNOTSUPP);
	c = CALL;
	reactor_io_fdatasync(reactor, &c.io, fd);
	ck_assert_int_eq(finish(&c), 0);
	c = CALL;
	reactor_io_readv(reactor, &c.io, fd, back, 2, 8192);
	ck_assert_int_eq(finish(&c), 8192);
	ck_assert_mem_eq(a, b, 8192);
	c = CALL;
	reactor_io_read(reactor, &c.io, fd, b, 4096, 16384);
	ck_assert_int_eq(finish(&c), 0);
	close(fd);
	c = CALL;
	reactor_io_read(reactor, &c.io, fd, b, 4096, 0);
	ck_assert_int_eq(finish(&c), -EBADF);
}

START_TEST(files_with_registered_memory)
{
	char *a = reactor_memory(reactor, 8192), *b = reactor_memory(reactor, 8192);

	check_file_io(a, b);
}
END_TEST

START_TEST(files_with_any_memory)
{
	static char a[8192], b[8192];

	check_file_io(a, b);
}
END_TEST

static char warning[512];

static void keep_warning(enum log_level level, const char *line)
{
	if (level == LOG_WARN)
		snprintf(warning, sizeof warning, "%s", line);
}

START_TEST(without_locked_memory_it_works_and_says_so)
{
	struct reactor_config config = {.name = "poor"};
	struct rlimit little = {MIB, MIB}; /* a ring fits, its memory does not */
	char *a, *b;

	/* The limit does not bind root. */
	ck_assert_int_eq(setrlimit(RLIMIT_MEMLOCK, &little), 0);
	if (geteuid() == 0)
		ck_assert_int_eq(setresuid(65534, 65534, 65534), 0);
	log_set_sink(keep_warning);
	ck_assert_int_eq(reactor_create(&config, &reactor), 0);
	a = reactor_memory(reactor, 8192);
	b = reactor_memory(reactor, 4 * MIB);
	ck_assert_ptr_nonnull(strstr(warning, "RLIMIT_MEMLOCK"));
	check_file_io(a, b);
	tear_down();
	log_set_sink(NULL);
}
END_TEST

START_TEST(memory_is_zeroed_aligned_and_bounded)
{
	static const uint8_t zero[3 * BLOCK_SIZE];
	struct reactor_config config = {.name = "memory", .memory_bytes = 8 * MIB};
	uint8_t *before = NULL;
	size_t got = 0;

	ck_assert_int_eq(reactor_create(&config, &reactor), 0);
	ck_assert_ptr_null(reactor_memory(reactor, 8 * MIB + 1));
	for (;;) {
		uint8_t *p = reactor_memory(reactor, 2 * BLOCK_SIZE + 1);

		if (p == NULL)
			break;
		ck_assert_uint_eq((uintptr_t)p % BLOCK_SIZE, 0);
		ck_assert_mem_eq(p, zero, sizeof zero);
		ck_assert(p >= before + (before != NULL ? sizeof zero : 0));
		memset(p, 0xee, sizeof zero);
		before = p;
		got += sizeof zero;
	}
	ck_assert_uint_le(got, 8 * MIB);
	ck_assert_uint_ge(got, 8 * MIB - 4 * sizeof zero);
	/* What is given back comes again, zeroed, to who asks for as much, and to nobody else. */
	reactor_memory_put(reactor, before, 2 * BLOCK_SIZE + 1);
	reactor_memory_put(reactor, NULL, 2 * BLOCK_SIZE + 1);
	ck_assert_ptr_null(reactor_memory(reactor, 4 * BLOCK_SIZE));
	ck_assert_ptr_eq(reactor_memory(reactor, 3 * BLOCK_SIZE), before);
	ck_assert_mem_eq(before, zero, sizeof zero);
	ck_assert_ptr_null(reactor_memory(reactor, 3 * BLOCK_SIZE));
	tear_down();
}
END_TEST

/* An echo of a message that fits into no socket buffer: the send must be whole. */
#define MESSAGE_SIZE (6u << 20)

static char outgoing[MESSAGE_SIZE], incoming[MESSAGE_SIZE];
static struct call receiver;
static uint32_t received;

static void receive(int fd)
{
	struct call c;

	while (received < MESSAGE_SIZE) {
		c = CALL;
		reactor_io_recv(reactor, &c.io, fd, incoming + received, MESSAGE_SIZE - received);
		ck_assert_int_gt(finish(&c), 0);
		received += (uint32_t)c.result;
	}
}

START_TEST(a_large_send_is_whole)
{
	struct iovec iov[2] = {{outgoing, 100}, {outgoing + 100, MESSAGE_SIZE - 100}};
	struct msghdr msg = {.msg_iov = iov, .msg_iovlen = 2};
	int fds[2];

	for (uint32_t i = 0; i < MESSAGE_SIZE; i += 8)
		*(uint64_t *)(void *)&outgoing[i] = rng();
	ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
	receiver = CALL;
	reactor_io_sendmsg(reactor, &receiver.io, fds[0], &msg);
	receive(fds[1]);
	if (receiver.times == 0)
		finish(&receiver);
	ck_assert_uint_eq(receiver.times, 1);
	ck_assert_int_eq(receiver.result, MESSAGE_SIZE);
	ck_assert_mem_eq(outgoing, incoming, MESSAGE_SIZE);
	/* A peer that went away is an error, not a signal. */
	close(fds[1]);
	receiver = CALL;
	reactor_io_sendmsg(reactor, &receiver.io, fds[0], &msg);
	ck_assert_int_eq(finish(&receiver), -EPIPE);
	close(fds[0]);
}
END_TEST

static void check_connection(void)
{
	struct sockaddr_in addr = {.sin_family = AF_INET,
				   .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t addr_size = sizeof addr;
	int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	int client = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	struct call accepted = CALL, connected = CALL, polled = CALL;

	ck_assert_int_eq(bind(listener, (struct sockaddr *)&addr, sizeof addr), 0);
	ck_assert_int_eq(getsockname(listener, (struct sockaddr *)&addr, &addr_size), 0);
	ck_assert_int_eq(listen(listener, 4), 0);
	reactor_io_accept(reactor, &accepted.io, listener);
	reactor_io_connect(reactor, &connected.io, client, (struct sockaddr *)&addr, addr_size);
	ck_assert_int_ge(finish(&accepted), 0);
	if (connected.times == 0)
		finish(&connected);
	ck_assert_int_eq(connected.result, 0);
	ck_assert_int_ne(fcntl(accepted.result, F_GETFD) & FD_CLOEXEC, 0);
	reactor_io_poll(reactor, &polled.io, client, POLLOUT);
	ck_assert_int_eq(finish(&polled), POLLOUT);
	close(accepted.result);
	close(client);
	close(listener);
}

START_TEST(connections_are_accepted_and_made)
{
	check_connection();
}
END_TEST

START_TEST(cancelled_operations_complete_once)
{
	struct call c = CALL, late = CALL;
	char byte;
	int fds[2];

	ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
	reactor_io_recv(reactor, &c.io, fds[0], &byte, 1);
	reactor_io_cancel(reactor, &c.io);
	ck_assert_int_eq(finish(&c), -ECANCELED);
	/* Too late: it has its result already, and the cancellation finds nothing. */
	ck_assert_int_eq(write(fds[1], "x", 1), 1);
	reactor_io_recv(reactor, &late.io, fds[0], &byte, 1);
	ck_assert_int_eq(finish(&late), 1);
	reactor_io_cancel(reactor, &late.io);
	c = CALL;
	reactor_io_poll(reactor, &c.io, fds[1], POLLOUT);
	finish(&c);
	ck_assert_uint_eq(late.times, 1);
	close(fds[0]);
	close(fds[1]);
}
END_TEST

#define FLOOD 3000u
static struct call flood[FLOOD];
static uint64_t counter_value[FLOOD];
static uint32_t flood_done;

static void flood_one(struct reactor_io *io, int32_t result)
{
	struct call *c = container_of(io, struct call, io);

	ck_assert_int_eq(result, 8);
	c->times++;
	finished = ++flood_done == FLOOD;
}

START_TEST(a_full_ring_is_submitted_and_loses_nothing)
{
	int fd = eventfd(FLOOD, EFD_CLOEXEC | EFD_SEMAPHORE);
	struct reactor_stats stats;

	/* 8 places for submissions, 32 for completions: both overflow many times over. */
	for (uint32_t i = 0; i < FLOOD; i++) {
		flood[i].io.done = flood_one;
		reactor_io_read(reactor, &flood[i].io, fd, &counter_value[i], 8, 0);
	}
	ck_assert_uint_eq(flood_done, 0);
	run_until(&finished);
	for (uint32_t i = 0; i < FLOOD; i++) {
		ck_assert_uint_eq(flood[i].times, 1);
		ck_assert_uint_eq(counter_value[i], 1);
	}
	reactor_get_stats(reactor, &stats);
	ck_assert_uint_eq(stats.ops, FLOOD);
	close(fd);
}
END_TEST

/* What was prepared leaves with one system call at the end of the turn. */
START_TEST(what_is_prepared_together_leaves_together)
{
	int fd = eventfd(64, EFD_CLOEXEC | EFD_SEMAPHORE);
	struct reactor_stats stats;

	flood_done = FLOOD - 64;
	for (uint32_t i = 0; i < 64; i++) {
		flood[i].io.done = flood_one;
		reactor_io_read(reactor, &flood[i].io, fd, &counter_value[i], 8, 0);
	}
	run_until(&finished);
	reactor_get_stats(reactor, &stats);
	ck_assert_uint_eq(stats.enter_calls, 1);
	ck_assert_uint_eq(stats.turns, 2);
	close(fd);
}
END_TEST

#define EARLY_READS 9u
static int early_fd;
static uint64_t early_enters; /* before the turn's end */

static void read_nine(struct reactor_task *task)
{
	struct reactor_stats before, after;

	(void)task;
	reactor_get_stats(reactor, &before);
	for (uint32_t i = 0; i < EARLY_READS; i++) {
		flood[i].io.done = flood_one;
		reactor_io_read(reactor, &flood[i].io, early_fd, &counter_value[i], 8, 0);
	}
	reactor_get_stats(reactor, &after);
	early_enters = after.enter_calls - before.enter_calls;
}

/* But many reads do before. */
START_TEST(many_reads_do_not_wait_for_each_other)
{
	struct reactor_task task = {.run = read_nine};

	early_fd = eventfd(EARLY_READS, EFD_CLOEXEC | EFD_SEMAPHORE);
	flood_done = FLOOD - EARLY_READS;
	reactor_defer(reactor, &task);
	run_until(&finished);
	ck_assert_uint_eq(early_enters, 2);
	for (uint32_t i = 0; i < EARLY_READS; i++)
		ck_assert_uint_eq(counter_value[i], 1);
	close(early_fd);
}
END_TEST

static void *run_it(void *arg)
{
	return reactor_run(arg) == 0 ? arg : NULL;
}

static void stop_after(struct reactor_io *io, int32_t result)
{
	ck_assert_int_eq(result, 8);
	(void)io;
	reactor_stop(reactor);
}

START_TEST(one_thread_prepares_and_another_runs)
{
	int fd = eventfd(1, EFD_CLOEXEC);
	struct call c = {.io.done = stop_after};
	pthread_t thread;
	void *result;

	reactor_io_read(reactor, &c.io, fd, &counter_value[0], 8, 0);
	ck_assert_ptr_nonnull(reactor_memory(reactor, 4096));
	ck_assert_int_eq(pthread_create(&thread, NULL, run_it, reactor), 0);
	pthread_join(thread, &result);
	ck_assert_ptr_eq(result, reactor);
	close(fd);
}
END_TEST

static struct reactor_timer timer;
static uint32_t ticks;

static void tick(struct reactor_timer *t)
{
	if (++ticks == 5)
		finished = true;
	else
		reactor_timer_arm(reactor, t, reactor_now_ns(reactor) + 2 * NS_PER_MS);
}

START_TEST(spinning_finds_what_arrives)
{
	struct reactor_config config = {.name = "spin", .spin_us = 200};
	pthread_t thread;

	ck_assert_int_eq(reactor_create(&config, &reactor), 0);
	main_thread = pthread_self();
	posts_seen[1] = POSTS_EACH;
	for (uint32_t k = 0; k < POSTS_EACH; k++)
		posts[0][k] = (struct post){{.run = post_arrived}, 0, k};
	ck_assert_int_eq(pthread_create(&thread, NULL, poster, posts[0]), 0);
	run_until(&finished);
	pthread_join(thread, NULL);
	ticks = 0;
	finished = false;
	timer.fire = tick;
	reactor_timer_arm(reactor, &timer, 0);
	run_until(&finished);
	check_connection();
	tear_down();
}
END_TEST

START_TEST(wall_time_and_randomness)
{
	uint8_t a[300], b[300];
	struct timespec before, after;
	int64_t wall;

	/* Not time(): that is of the last tick, and can be behind. */
	ck_assert_int_eq(clock_gettime(CLOCK_REALTIME, &before), 0);
	wall = reactor_wall_ns(reactor);
	ck_assert_int_eq(clock_gettime(CLOCK_REALTIME, &after), 0);
	ck_assert_int_ge(wall, before.tv_sec * (int64_t)NS_PER_S + before.tv_nsec);
	ck_assert_int_le(wall, after.tv_sec * (int64_t)NS_PER_S + after.tv_nsec);
	reactor_random(reactor, a, sizeof a);
	reactor_random(reactor, b, sizeof b);
	ck_assert_mem_ne(a, b, sizeof a);
	ck_assert_mem_ne(a + 284, b + 284, 16);
}
END_TEST

static void add_all(TCase *tc, TCase *small, TCase *bare)
{
	tcase_add_test(tc, posts_of_two_threads_arrive_all_and_in_order);
	tcase_add_test(tc, sleeping_reactors_wake_each_other);
	tcase_add_test(tc, works_run_in_order_on_a_worker_and_end_at_home);
	tcase_add_test(tc, stop_from_another_thread_and_again);
	tcase_add_test(tc, stop_from_a_signal_handler);
	tcase_add_test(tc, terminating_signals_are_events);
	tcase_add_test(tc, the_user_signal_is_an_event_of_its_own);
	tcase_add_test(tc, files_with_registered_memory);
	tcase_add_test(tc, files_with_any_memory);
	tcase_add_test(tc, a_large_send_is_whole);
	tcase_add_test(tc, connections_are_accepted_and_made);
	tcase_add_test(tc, cancelled_operations_complete_once);
	tcase_add_test(tc, what_is_prepared_together_leaves_together);
	tcase_add_test(tc, many_reads_do_not_wait_for_each_other);
	tcase_add_test(tc, one_thread_prepares_and_another_runs);
	tcase_add_test(tc, wall_time_and_randomness);
	tcase_add_test(small, a_full_ring_is_submitted_and_loses_nothing);
	tcase_add_test(bare, several_workers_work_at_once);
	tcase_add_test(bare, memory_is_zeroed_aligned_and_bounded);
	tcase_add_test(bare, without_locked_memory_it_works_and_says_so);
	tcase_add_test(bare, spinning_finds_what_arrives);
}

int main(void)
{
	TCase *tc = tcase_create("reactor");
	TCase *small = tcase_create("small"), *bare = tcase_create("bare");
	Suite *s = suite_create("reactor");
	SRunner *sr = srunner_create(s);
	int failed;

	tcase_add_checked_fixture(tc, set_up, tear_down);
	tcase_add_checked_fixture(small, set_up_small, tear_down);
	tcase_set_timeout(tc, 60);
	tcase_set_timeout(small, 60);
	tcase_set_timeout(bare, 60);
	add_all(tc, small, bare);
	suite_add_tcase(s, tc);
	suite_add_tcase(s, small);
	suite_add_tcase(s, bare);
	srunner_run_all(sr, CK_NORMAL);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed == 0 ? 0 : 1;
}
