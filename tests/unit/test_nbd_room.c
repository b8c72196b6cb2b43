/* The NBD server and its bounds: buffers, parts, places. Who reaches one waits, and everybody goes
 * on when there is room again. */
#include <linux/sockios.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <sys/ioctl.h>

#include "tests/unit/nbd_world.h"

static _Atomic bool was_there;

static void is_there(struct reactor_task *task)
{
	(void)task;
	atomic_store(&was_there, true);
}

/* Until the server has received all that was sent there, and has done with it what it does when it
 * has: what the kernel took for it before a task was posted it sees before that runs. */
static void wait_until_received(int fd)
{
	struct reactor_task task = {.run = is_there};
	int left = 1;

	for (int i = 0; i < 20000 && left > 0; i++) {
		ck_assert_int_eq(ioctl(fd, SIOCOUTQ, &left), 0);
		if (left > 0)
			usleep(1000);
	}
	ck_assert_int_eq(left, 0);
	atomic_store(&was_there, false);
	reactor_post(t.reactor, &task);
	while (!atomic_load(&was_there))
		sched_yield();
}

START_TEST(few_buffers_slow_the_clients_down_and_lose_nothing)
{
	enum { DEPTH = 64 };
	struct nbd_handle *h[2];
	uint8_t *data = malloc(DEPTH * 65536);
	uint8_t *big = malloc(32u << 20);
	int64_t cookies[2][DEPTH];

	/* 33 are needed for one read of 32 MiB that begins inside of a block. */
	t.buffers_max = 34;
	start();
	h[0] = client();
	h[1] = client();
	fill(data, DEPTH * 65536, 5);
	for (int i = 0; i < DEPTH; i++)
		for (int k = 0; k < 2; k++)
			cookies[k][i] = nbd_aio_pwrite(h[k], data + i * 65536, 65536 - 512,
						       (uint64_t)(i * 2 + k) * 65536 + 512,
						       NBD_NULL_COMPLETION, 0);
	for (int i = 0; i < DEPTH; i++)
		for (int k = 0; k < 2; k++)
			while (nbd_aio_command_completed(h[k], (uint64_t)cookies[k][i]) == 0) {
				ck_assert_int_ge(nbd_poll(h[k], 10000), 0);
				nbd_poll(h[1 - k], 0);
			}
	ck_assert_int_eq(nbd_pread(h[0], big, 32u << 20, 77, 0), 0);
	for (int i = 0; i < DEPTH; i++)
		ck_assert_mem_eq(big + (size_t)(i * 2) * 65536 + 512 - 77, data + i * 65536,
				 65536 - 512);
	nbd_close(h[0]);
	nbd_close(h[1]);
	finish();
	free(data);
	free(big);
}
END_TEST

/* What waits for two buffers and finds one gives it back, which must not wake it again at once. */
START_TEST(requests_that_find_half_of_what_they_need_wait)
{
	struct nbd_handle *h[3];
	uint8_t data[4096];
	int64_t cookies[3];

	t.buffers_max = 2;
	start();
	memset(data, 6, sizeof data);
	for (int i = 0; i < 3; i++)
		h[i] = client();
	atomic_store(&t.volume->hold, true);
	/* The whole block takes one buffer and keeps it; a part needs two. */
	for (int i = 0; i < 3; i++) {
		cookies[i] = nbd_aio_pwrite(h[i], data, i == 0 ? 4096 : 512,
					    (uint64_t)i * 65536 + 4096, NBD_NULL_COMPLETION, 0);
		for (int k = 0; k < 20; k++)
			nbd_poll(h[i], 5);
	}
	fake_volume_release(t.volume);
	for (int i = 0; i < 3; i++)
		while (nbd_aio_command_completed(h[i], (uint64_t)cookies[i]) == 0)
			ck_assert_int_eq(nbd_poll(h[i], 10000), 1);
	for (int i = 0; i < 3; i++)
		nbd_close(h[i]);
	finish();
}
END_TEST

/* One client has all there are, and keeps quiet once it has its answers. */
START_TEST(who_waits_for_a_part_gets_one_when_the_last_answers_have_left)
{
	enum { CLIENTS = NBD_PARTS_MAX / NBD_INFLIGHT_MAX };
	struct timeval limit = {.tv_sec = 10};
	uint8_t reply[16];
	int fd[CLIENTS + 1];

	start();
	for (int i = 0; i <= CLIENTS; i++)
		fd[i] = raw_transmission();
	atomic_store(&t.volume->hold, true);
	for (int i = 0; i < CLIENTS; i++)
		for (uint32_t k = 0; k < NBD_INFLIGHT_MAX; k++)
			raw_request(fd[i], NBD_CMD_TRIM, k * 4096, 4096);
	wait_for_begun(NBD_PARTS_MAX);
	setsockopt(fd[CLIENTS], SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
	raw_request(fd[CLIENTS], NBD_CMD_TRIM, 0, 4096);
	wait_until_received(fd[CLIENTS]);
	fake_volume_release(t.volume);
	for (int i = 0; i < CLIENTS; i++)
		for (uint32_t k = 0; k < NBD_INFLIGHT_MAX; k++)
			must_recv(fd[i], reply, 16);
	must_recv(fd[CLIENTS], reply, 16);
	ck_assert_uint_eq(get_be32(reply + 4), 0);
	for (int i = 0; i <= CLIENTS; i++)
		close(fd[i]);
	finish();
}
END_TEST

/* One client does not take its answers, another waits for the buffers that these hold: both are
 * given up when the server has waited long enough. */
START_TEST(the_server_stops_though_somebody_waited_for_a_buffer)
{
	int fd[2];

	t.buffers_max = 2;
	start();
	for (int i = 0; i < 2; i++)
		fd[i] = raw_transmission();
	for (int i = 0; i < 2; i++)
		raw_request(fd[0], NBD_CMD_READ, 0, IO_SIZE_MAX);
	wait_for_begun(2);
	raw_request(fd[1], NBD_CMD_WRITE, 0, 4096);
	wait_until_received(fd[1]);
	finish();
	for (int i = 0; i < 2; i++)
		close(fd[i]);
}
END_TEST

/* Neither does one that takes no answers and leaves in the middle of a request: it is cut off for
 * that, as nothing else would end what is being sent to it. */
START_TEST(who_leaves_in_the_middle_of_a_request_does_not_keep_the_server_from_stopping)
{
	uint8_t head[28];
	int fd;

	start();
	fd = raw_transmission();
	raw_request(fd, NBD_CMD_READ, 0, NBD_DATA_MAX); /* far more than the socket holds */
	wait_for_begun(NBD_DATA_MAX / IO_SIZE_MAX);
	put_request(head, NBD_CMD_WRITE, 0, 4096);
	ck_assert_int_eq(send(fd, head, _i == 0 ? 28 : 10, MSG_NOSIGNAL), _i == 0 ? 28 : 10);
	wait_until_received(fd);
	ck_assert_int_eq(shutdown(fd, SHUT_WR), 0);
	finish();
	close(fd);
}
END_TEST

/* Its requests before that one are answered, and that one is, with an error. */
START_TEST(who_is_in_the_middle_of_a_request_when_the_server_stops_is_answered)
{
	uint8_t head[28], answer[16 + 4096];
	int fd;

	start();
	fd = raw_transmission();
	atomic_store(&t.volume->hold, true);
	raw_request(fd, NBD_CMD_READ, 0, 4096);
	wait_for_begun(1);
	put_request(head, NBD_CMD_WRITE, 0, 4096);
	ck_assert_int_eq(send(fd, head, sizeof head, MSG_NOSIGNAL), sizeof head);
	wait_until_received(fd);
	begin_stop();
	must_recv(fd, answer, 16);
	ck_assert_uint_eq(get_be32(answer + 4), NBD_ESHUTDOWN);
	fake_volume_release(t.volume);
	must_recv(fd, answer, sizeof answer);
	ck_assert_uint_eq(get_be32(answer + 4), 0);
	raw_must_end(fd);
	finish_stopped();
}
END_TEST

/* The answer of a read. */
static void take_answer(int fd, uint32_t size)
{
	uint8_t *answer = malloc(16 + size);

	must_recv(fd, answer, 16 + size);
	ck_assert_uint_eq(get_be32(answer + 4), 0);
	free(answer);
}

/* A client that reads 1 MiB and does not take the answer, which so keeps its buffer. */
static int keep_a_buffer(void)
{
	const uint32_t begun = atomic_load(&t.volume->ops_begun);
	int fd = raw_transmission();

	raw_request(fd, NBD_CMD_READ, 0, IO_SIZE_MAX);
	wait_for_begun(begun + 1);
	return fd;
}

/* Three reads, of several buffers each, and one buffer after the other that comes free: some of it
 * with each, or it spent on telling one that it is not its turn, and none of them would end. */
static void read_when_buffers_come_one_by_one(uint64_t offset, uint32_t size, uint32_t free_first)
{
	int keeper[2], fd;

	t.buffers_max = 2 + free_first;
	start();
	for (int i = 0; i < 2; i++)
		keeper[i] = keep_a_buffer();
	fd = raw_transmission();
	for (int i = 0; i < 3; i++)
		raw_request(fd, NBD_CMD_READ, offset, size);
	wait_until_received(fd);
	for (uint32_t i = 0; i < 2; i++) {
		wait_for_begun(2 + free_first + i);
		take_answer(keeper[i], IO_SIZE_MAX);
	}
	for (int i = 0; i < 3; i++)
		take_answer(fd, size);
	close(fd);
	for (int i = 0; i < 2; i++)
		close(keeper[i]);
	finish();
}

START_TEST(reads_that_straddle_two_buffers_do_not_keep_them_from_each_other)
{
	read_when_buffers_come_one_by_one(512, IO_SIZE_MAX, 0);
}
END_TEST

START_TEST(large_reads_do_not_keep_the_one_whose_turn_it_is_from_going_on)
{
	read_when_buffers_come_one_by_one(0, 3 * IO_SIZE_MAX, 1);
}
END_TEST

START_TEST(a_large_answer_that_is_not_taken_keeps_nobody_from_reading)
{
	int fd[2];

	start();
	for (int i = 0; i < 2; i++)
		fd[i] = raw_transmission();
	raw_request(fd[0], NBD_CMD_READ, 0, 2 * IO_SIZE_MAX);
	wait_for_begun(2);
	raw_request(fd[1], NBD_CMD_READ, 0, 2 * IO_SIZE_MAX);
	take_answer(fd[1], 2 * IO_SIZE_MAX);
	for (int i = 0; i < 2; i++)
		close(fd[i]);
	finish();
}
END_TEST

/* Nor do all the answers that it may ask for: it has to take some before its next ones count. */
START_TEST(answers_that_are_not_taken_leave_room_for_others)
{
	enum { BUFFERS = NBD_READ_BYTES_MAX / IO_SIZE_MAX + 1 };
	uint8_t requests[2 * BUFFERS][28];
	int fd[2];

	t.buffers_max = BUFFERS;
	start();
	for (int i = 0; i < 2; i++)
		fd[i] = raw_transmission();
	/* In one piece: the server receives no more of them once the first wait. */
	for (int i = 0; i < 2 * BUFFERS; i++)
		put_request(requests[i], NBD_CMD_READ, 0, IO_SIZE_MAX);
	ck_assert_int_eq(send(fd[0], requests, sizeof requests, MSG_NOSIGNAL), sizeof requests);
	wait_for_begun(BUFFERS - 1);
	wait_until_received(fd[0]); /* the others wait */
	raw_request(fd[1], NBD_CMD_READ, 0, 4096);
	take_answer(fd[1], 4096);
	for (int i = 0; i < 2 * BUFFERS; i++)
		take_answer(fd[0], IO_SIZE_MAX);
	for (int i = 0; i < 2; i++)
		close(fd[i]);
	finish();
}
END_TEST

/* Requests of three parts that get them one by one, until all parts are theirs and each still lacks
 * one. Each part that comes free finds two of them waiting in turn, the first when its operation is
 * done; an odd number of them so share evenly. */
START_TEST(requests_that_have_had_some_of_their_parts_do_not_wait_for_each_other)
{
	enum { ONES = NBD_PARTS_MAX / NBD_INFLIGHT_MAX, SPLIT = ONES / 2 + 1 };
	const uint32_t split_count = SPLIT * NBD_INFLIGHT_MAX - 1;
	uint8_t reply[16];
	int ones[ONES], split[SPLIT];

	t.buffers_max = 4 * NBD_PARTS_MAX;
	start();
	atomic_store(&t.volume->hold, true);
	for (uint32_t n = 0; n < NBD_PARTS_MAX; n++) {
		if (n % NBD_INFLIGHT_MAX == 0)
			ones[n / NBD_INFLIGHT_MAX] = raw_transmission();
		raw_request(ones[n / NBD_INFLIGHT_MAX], NBD_CMD_TRIM, (32u << 20) + n * 4096, 4096);
		if (n % NBD_INFLIGHT_MAX == NBD_INFLIGHT_MAX - 1)
			wait_for_begun(n + 1);
	}
	for (uint32_t n = 0; n < split_count; n++) {
		if (n % NBD_INFLIGHT_MAX == 0)
			split[n / NBD_INFLIGHT_MAX] = raw_transmission();
		raw_request(split[n / NBD_INFLIGHT_MAX], NBD_CMD_WRITE_ZEROES, n * 16384 + 512,
			    3 * 4096);
	}
	for (int i = 0; i < SPLIT; i++)
		wait_until_received(split[i]);
	for (uint32_t n = 0; n < NBD_PARTS_MAX; n++) {
		fake_volume_let_one(t.volume);
		must_recv(ones[n / NBD_INFLIGHT_MAX], reply, 16);
		while (atomic_load(&t.volume->ops_begun) < NBD_PARTS_MAX + n + 1)
			sched_yield();
	}
	fake_volume_release(t.volume);
	for (uint32_t n = 0; n < split_count; n++)
		must_recv(split[n / NBD_INFLIGHT_MAX], reply, 16);
	for (int i = 0; i < ONES; i++)
		close(ones[i]);
	for (int i = 0; i < SPLIT; i++)
		close(split[i]);
	finish();
}
END_TEST

START_TEST(who_says_nothing_keeps_no_place)
{
	uint8_t greeting[18];
	int fd[NBD_CONNECTIONS_MAX];

	start();
	for (uint32_t i = 0; i < NBD_CONNECTIONS_MAX; i++)
		fd[i] = raw_connect();
	nbd_close(client());
	must_recv(fd[0], greeting, sizeof greeting);
	raw_must_end(fd[0]);
	for (uint32_t i = 1; i < NBD_CONNECTIONS_MAX; i++)
		close(fd[i]);
	finish();
}
END_TEST

START_TEST(who_has_chosen_the_export_keeps_its_place)
{
	uint8_t reply[16];
	int fd[NBD_CONNECTIONS_MAX];

	start();
	for (uint32_t i = 0; i < NBD_CONNECTIONS_MAX; i++)
		fd[i] = raw_transmission();
	raw_must_end(raw_connect());
	for (uint32_t i = 0; i < NBD_CONNECTIONS_MAX; i++) {
		raw_request(fd[i], NBD_CMD_FLUSH, 0, 0);
		must_recv(fd[i], reply, sizeof reply);
		close(fd[i]);
	}
	finish();
}
END_TEST

/* The timer that the kernel has running for the connection to this port of ours: 2 for one that
 * keeps it alive. -1: there is no such connection. */
static int timer_of_connection(unsigned port)
{
	FILE *f = fopen("/proc/self/net/tcp", "re");
	unsigned local, state, timer;
	char line[256];
	int found = -1;

	ck_assert_ptr_nonnull(f);
	while (fgets(line, sizeof line, f) != NULL)
		if (sscanf(line, "%*d: %*x:%x %*x:%*x %x %*x:%*x %x:", &local, &state, &timer) ==
			3 &&
		    local == port && state == 1)
			found = (int)timer;
	fclose(f);
	return found;
}

/* A server on TCP, and a client of it. Returns the server's port. */
static unsigned start_tcp(struct nbd_handle *h)
{
	char port[8];
	unsigned number;

	t.address = "127.0.0.1:0";
	start();
	ck_assert_int_eq(sscanf(nbd_uri(t.server), "nbd://127.0.0.1:%u/", &number), 1);
	snprintf(port, sizeof port, "%u", number & 0xffff);
	ck_assert_int_eq(nbd_connect_tcp(h, "127.0.0.1", port), 0);
	return number;
}

START_TEST(who_is_silent_over_tcp_is_asked_whether_it_is_there)
{
	struct nbd_handle *h = nbd_create();
	const unsigned number = start_tcp(h);

	for (int i = 0; i < 1000 && timer_of_connection(number) != 2; i++)
		usleep(1000);
	ck_assert_int_eq(timer_of_connection(number), 2);
	nbd_close(h);
	finish();
}
END_TEST

/* The server's socket of the connection to this port of ours, or -1. */
static int socket_of_connection(unsigned port)
{
	for (int fd = 0; fd < 256; fd++) {
		struct sockaddr_in own = {0}, peer = {0};
		socklen_t own_size = sizeof own, peer_size = sizeof peer;

		if (getsockname(fd, (struct sockaddr *)&own, &own_size) == 0 &&
		    getpeername(fd, (struct sockaddr *)&peer, &peer_size) == 0 &&
		    own.sin_family == AF_INET && ntohs(own.sin_port) == port)
			return fd;
	}
	return -1;
}

/* While there is something to send to it, nobody asks: it is then that the kernel would wait for a
 * quarter of an hour, with the answers in buffers that others need. */
START_TEST(who_takes_nothing_over_tcp_is_given_up)
{
	struct nbd_handle *h = nbd_create();
	const unsigned number = start_tcp(h);
	unsigned limit_ms = 0;
	socklen_t size = sizeof limit_ms;
	int fd = socket_of_connection(number);

	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(getsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &limit_ms, &size), 0);
	ck_assert_uint_ge(limit_ms, 60000); /* it may only have been stopped */
	ck_assert_uint_le(limit_ms, 300000);
	nbd_close(h);
	finish();
}
END_TEST

int main(void)
{
	TCase *tc = tcase_create("nbd_room");
	Suite *s = suite_create("nbd_room");
	SRunner *sr = srunner_create(s);
	int failed;

	tcase_set_timeout(tc, 60);
	tcase_add_test(tc, few_buffers_slow_the_clients_down_and_lose_nothing);
	tcase_add_test(tc, requests_that_find_half_of_what_they_need_wait);
	tcase_add_test(tc, who_waits_for_a_part_gets_one_when_the_last_answers_have_left);
	tcase_add_test(tc, the_server_stops_though_somebody_waited_for_a_buffer);
	tcase_add_loop_test(
	    tc, who_leaves_in_the_middle_of_a_request_does_not_keep_the_server_from_stopping, 0, 2);
	tcase_add_test(tc, who_is_in_the_middle_of_a_request_when_the_server_stops_is_answered);
	tcase_add_test(tc, reads_that_straddle_two_buffers_do_not_keep_them_from_each_other);
	tcase_add_test(tc, large_reads_do_not_keep_the_one_whose_turn_it_is_from_going_on);
	tcase_add_test(tc, a_large_answer_that_is_not_taken_keeps_nobody_from_reading);
	tcase_add_test(tc, answers_that_are_not_taken_leave_room_for_others);
	tcase_add_test(tc, requests_that_have_had_some_of_their_parts_do_not_wait_for_each_other);
	tcase_add_test(tc, who_says_nothing_keeps_no_place);
	tcase_add_test(tc, who_has_chosen_the_export_keeps_its_place);
	tcase_add_test(tc, who_is_silent_over_tcp_is_asked_whether_it_is_there);
	tcase_add_test(tc, who_takes_nothing_over_tcp_is_given_up);
	suite_add_tcase(s, tc);
	srunner_run_all(sr, CK_NORMAL);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed == 0 ? 0 : 1;
}
