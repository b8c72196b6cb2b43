/* The TCP transport, on the real reactor and real sockets: connecting, listening, and all the ways
 * in which a connection ends. */
#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/unit/tcp_world.h"

/* -- ends ------------------------------------------------------------------------------------ */

START_TEST(test_close_with_queued_sends)
{
	const unsigned count = 300;
	int fd = connect_raw(); /* it never reads */

	for (unsigned i = 0; i < count; i++)
		send_control(&server, i + 1, 100000);
	one_turn();
	one_turn();
	ck_assert_uint_gt(server.conn->queued_bytes, 0);
	inside_call = true;
	transport_close(server.conn);
	inside_call = false;
	ck_assert(!server.is_closed);
	/* Sending goes on being allowed, and comes to nothing. */
	send_control(&server, count + 1, 100);
	wait_flag(&server.is_closed);
	ck_assert_int_eq(server.reason, 0);
	ck_assert_uint_eq(outgoing_alive, 0);
	ck_assert_uint_eq(outgoing_ok + outgoing_failed, count + 1);
	ck_assert_uint_gt(outgoing_failed, 0);
	ck_assert_uint_eq(server.stats.tx_frames, outgoing_ok);
	close(fd);
}
END_TEST

START_TEST(test_peer_death_with_queued_sends)
{
	int fd = connect_raw();

	for (unsigned i = 0; i < 300; i++)
		send_control(&server, i + 1, 100000);
	one_turn();
	close(fd);
	wait_flag(&server.is_closed);
	ck_assert_int_eq(server.reason, -E_DISCONNECTED);
	ck_assert_uint_eq(outgoing_alive, 0);
	ck_assert_uint_gt(outgoing_failed, 0);
}
END_TEST

/* What the peer said before it hung up is heard, although sending fails first: both happen in one
 * turn, in which the send is tried before the receive is looked at. */
START_TEST(test_last_words)
{
	uint8_t bytes[200];
	size_t size =
	    image((struct frame){.op = FRAME_CONTROL, .request_id = 1, .payload_size = 9}, bytes);
	int fd = connect_raw();

	send_control(&server, 1, 10);
	run_while(has_outgoing, NULL);
	write_all(fd, bytes, size);
	close(fd); /* with something unread: a reset */
	send_control(&server, 2, 10);
	wait_flag(&server.is_closed);
	ck_assert_int_eq(server.reason, -E_DISCONNECTED);
	ck_assert_uint_eq(server.rx_count, 1);
	ck_assert_uint_eq(outgoing_failed, 1);
}
END_TEST

START_TEST(test_close_in_rx)
{
	server.close_in_rx = true;
	connect_client();
	for (unsigned i = 0; i < 50; i++)
		send_control(&client, i + 1, 30);
	wait_flag(&server.is_closed);
	wait_flag(&client.is_closed);
	ck_assert_int_eq(server.reason, 0);
	ck_assert_uint_eq(server.rx_count, 1);
	ck_assert_int_eq(client.reason, -E_DISCONNECTED);
}
END_TEST

START_TEST(test_close_in_rx_of_a_large_frame)
{
	server.close_in_rx = true;
	connect_client();
	send_control(&client, 1, 400000);
	send_control(&client, 2, 400000);
	wait_flag(&server.is_closed);
	wait_flag(&client.is_closed);
	ck_assert_int_eq(server.reason, 0);
	ck_assert_uint_eq(server.rx_count, 1);
}
END_TEST

START_TEST(test_close_in_accepted)
{
	close_in_accepted = true;
	inside_call = true;
	ck_assert_int_eq(
	    transport_connect(transport, listener->address, &handler, &client, &client.conn), 0);
	inside_call = false;
	wait_flag(&server.is_closed);
	wait_flag(&client.is_closed);
	ck_assert_int_eq(server.reason, 0);
	ck_assert_int_eq(client.reason, -E_DISCONNECTED);
	close_in_accepted = false;
}
END_TEST

START_TEST(test_close_while_connecting)
{
	inside_call = true;
	ck_assert_int_eq(
	    transport_connect(transport, listener->address, &handler, &client, &client.conn), 0);
	transport_close(client.conn);
	inside_call = false;
	send_control(&client, 1, 100);
	wait_flag(&client.is_closed);
	ck_assert_int_eq(client.reason, 0);
	ck_assert(!client.is_ready);
	ck_assert_uint_eq(outgoing_failed, 1);
}
END_TEST

/* -- connecting and listening ---------------------------------------------------------------- */

/* A port that is taken but doesn't listen. */
static int quiet_socket(char *ret_address, size_t size, int backlog)
{
	struct address a;
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	ck_assert_int_eq(address_parse("127.0.0.1:0", &a), 0);
	ck_assert_int_eq(bind(fd, (struct sockaddr *)&a.storage, a.size), 0);
	ck_assert_int_eq(getsockname(fd, (struct sockaddr *)&a.storage, &a.size), 0);
	if (backlog >= 0)
		ck_assert_int_eq(listen(fd, backlog), 0);
	address_format(&a, ret_address, size);
	return fd;
}

START_TEST(test_refused)
{
	char address[ADDR_SIZE_MAX];
	int fd = quiet_socket(address, sizeof(address), -1);

	ck_assert_int_eq(transport_connect(transport, address, &handler, &client, &client.conn), 0);
	wait_flag(&client.is_closed);
	ck_assert_int_eq(client.reason, -ECONNREFUSED);
	ck_assert(!client.is_ready);
	close(fd);
}
END_TEST

/* A listener whose queue is full doesn't answer at all. */
START_TEST(test_connect_timeout)
{
	char address[ADDR_SIZE_MAX];
	struct address a;
	int fd = quiet_socket(address, sizeof(address), 0), fill_fds[4];
	uint64_t begin_ns;

	ck_assert_int_eq(address_parse(address, &a), 0);
	for (size_t i = 0; i < ARRAY_SIZE(fill_fds); i++) {
		fill_fds[i] = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
		(void)!connect(fill_fds[i], (struct sockaddr *)&a.storage, a.size);
	}
	reactor_refresh(reactor);
	begin_ns = reactor_now_ns(reactor);
	ck_assert_int_eq(transport_connect(transport, address, &handler, &client, &client.conn), 0);
	wait_flag(&client.is_closed);
	ck_assert_int_eq(client.reason, -ETIMEDOUT);
	ck_assert_uint_ge(reactor_now_ns(reactor) - begin_ns, 2900 * NS_PER_MS);
	ck_assert_uint_le(reactor_now_ns(reactor) - begin_ns, 4500 * NS_PER_MS);
	for (size_t i = 0; i < ARRAY_SIZE(fill_fds); i++)
		close(fill_fds[i]);
	close(fd);
}
END_TEST

/* A peer that lives but takes nothing for longer than TCP_USER_TIMEOUT is given up. */
START_TEST(test_stuck_peer)
{
	int fd = connect_raw();
	uint64_t begin_ns;

	reactor_refresh(reactor);
	begin_ns = reactor_now_ns(reactor);
	for (unsigned i = 0; i < 300; i++)
		send_control(&server, i + 1, 100000);
	wait_flag(&server.is_closed);
	/* The kernel tells the cause to the send in flight, whose short result hides it. */
	ck_assert(server.reason == -ETIMEDOUT || server.reason == -E_DISCONNECTED);
	ck_assert_uint_ge(reactor_now_ns(reactor) - begin_ns, 4000 * NS_PER_MS);
	ck_assert_uint_le(reactor_now_ns(reactor) - begin_ns, 15000 * NS_PER_MS);
	close(fd);
}
END_TEST

START_TEST(test_not_loopback)
{
	static const char *const outside[] = {"0.0.0.0:0",   "192.0.2.1:7400",
					      "[::]:0",	     "[2001:db8::1]:7400",
					      "128.0.0.1:1", "126.0.0.1:1"};
	struct transport_listener *l = NULL;

	for (size_t i = 0; i < ARRAY_SIZE(outside); i++) {
		struct error err = {0};

		ck_assert_int_eq(
		    transport_listen(transport, outside[i], accepted, &server, &l, &err), -EACCES);
		ck_assert_ptr_nonnull(strstr(err.text, outside[i]));
		ck_assert_ptr_nonnull(strstr(err.text, "--insecure"));
		ck_assert_ptr_null(l);
	}
	ck_assert_int_eq(
	    transport_connect(transport, "192.0.2.1:7400", &handler, &client, &client.conn),
	    -EACCES);
	ck_assert_int_eq(
	    transport_connect(transport, "[2001:db8::1]:1", &handler, &client, &client.conn),
	    -EACCES);
	ck_assert_ptr_null(client.conn);
}
END_TEST

START_TEST(test_insecure_allows_any_address)
{
	struct transport_listener *l;
	struct transport *open;
	struct error err;

	ck_assert_int_eq(transport_tcp_create(reactor, true, &open), 0);
	ck_assert_int_eq(transport_listen(open, "0.0.0.0:0", accepted, &server, &l, &err), 0);
	transport_unlisten(l);
	transport_destroy(open);
}
END_TEST

START_TEST(test_bad_addresses)
{
	static const char *const bad[] = {"",
					  ":",
					  "127.0.0.1",
					  "127.0.0.1:",
					  ":80",
					  "127.0.0.1:65536",
					  "127.0.0.1:-1",
					  "::1:80",
					  "[::1]",
					  "[::1]80",
					  "[::1:80",
					  "127.0.0.1:8a",
					  "example:1",
					  "[127.0.0.1]:1",
					  "127.0.1:1",
					  "127.0.0.1: 1"};
	struct transport_listener *l = NULL;

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		struct error err = {0};

		ck_assert_int_eq(transport_listen(transport, bad[i], accepted, &server, &l, &err),
				 -EINVAL);
		ck_assert_ptr_nonnull(strstr(err.text, bad[i]));
		ck_assert_int_eq(
		    transport_connect(transport, bad[i], &handler, &client, &client.conn), -EINVAL);
	}
	ck_assert_int_eq(
	    transport_connect(transport, "127.0.0.1:0", &handler, &client, &client.conn), -EINVAL);
}
END_TEST

START_TEST(test_ipv6)
{
	struct transport_listener *v4 = listener;
	struct error err;

	ck_assert_int_eq(transport_listen(transport, "[::1]:0", accepted, &server, &listener, &err),
			 0);
	ck_assert_int_eq(strncmp(listener->address, "[::1]:", 6), 0);
	connect_client();
	send_control(&client, 1, 5000);
	wait_count(&server.rx_count, 1);
	ck_assert_int_eq(strncmp(server.conn->peer.address, "[::1]:", 6), 0);
	transport_unlisten(v4);
}
END_TEST

/* A port is refused while it is in use, and free again as soon as its listener is gone, with
 * connections of it alive. */
START_TEST(test_listening_again)
{
	struct transport_listener *l = NULL;
	char address[ADDR_SIZE_MAX];
	struct error err;

	snprintf(address, sizeof(address), "%s", listener->address);
	connect_client();
	ck_assert_int_eq(transport_listen(transport, address, accepted, &server, &l, &err),
			 -EADDRINUSE);
	ck_assert_ptr_nonnull(strstr(err.text, address));
	ck_assert_ptr_nonnull(strstr(err.text, "in use")); /* `pave dev` then tries another */
	transport_unlisten(listener);
	one_turn();
	one_turn();
	ck_assert_int_eq(transport_listen(transport, address, accepted, &server, &listener, &err),
			 0);
	send_control(&client, 1, 10);
	wait_count(&server.rx_count, 1);
}
END_TEST

/* The other process of the next test, with none of Check's assertions: it listens, and says where.
 * Its memory is what the kernel needs time to let go of. */
static void child_accepted(struct transport_conn *conn, void *arg)
{
	(void)conn;
	(void)arg;
	_exit(1);
}

static int child_main(void)
{
	const struct reactor_config config = {.name = "child"};
	struct error err;

	if (reactor_create(&config, &reactor) != 0 ||
	    transport_tcp_create(reactor, false, &transport) != 0 ||
	    transport_listen(transport, "127.0.0.1:0", child_accepted, NULL, &listener, &err) != 0)
		return 1;
	if (reactor_memory(reactor, 64 * MIB) == NULL ||
	    write(STDOUT_FILENO, listener->address, ADDR_SIZE_MAX) != ADDR_SIZE_MAX)
		return 1;
	return reactor_run(reactor);
}

/* Where a process was killed another one can listen at once: the kernel lets go of a ring, and of
 * the listening socket that it works on, some time after the process is gone. */
START_TEST(test_listening_after_a_kill)
{
	struct transport_listener *l = NULL;
	char address[ADDR_SIZE_MAX];
	struct error err;
	int fds[2];
	pid_t child;

	ck_assert_int_eq(pipe2(fds, O_CLOEXEC), 0);
	child = fork();
	if (child == 0) { /* this process has threads: only a new image may start others */
		dup2(fds[1], STDOUT_FILENO);
		execl("/proc/self/exe", "test_tcp_life", "child", NULL);
		_exit(1);
	}
	close(fds[1]);
	ck_assert_int_eq(read(fds[0], address, sizeof(address)), sizeof(address));
	usleep(20000); /* so that it sleeps in its ring, most probably */
	kill(child, SIGKILL);
	ck_assert_int_eq(waitpid(child, NULL, 0), child);
	ck_assert_msg(transport_listen(transport, address, accepted, &server, &l, &err) == 0, "%s",
		      err.text);
	transport_unlisten(l);
	one_turn();
	close(fds[0]);
}
END_TEST

/* Descriptors run out: the listener waits and goes on. (An accept that is in flight has the limit
 * of the time when it began, so the first connection comes through.) */
START_TEST(test_out_of_descriptors)
{
	unsigned count = 1;
	struct rlimit limit, keep;
	int first = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	int second = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	struct address a;

	ck_assert_int_eq(address_parse(listener->address, &a), 0);
	ck_assert_int_eq(getrlimit(RLIMIT_NOFILE, &keep), 0);
	one_turn();
	limit = keep;
	limit.rlim_cur = 3;
	ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &limit), 0);
	ck_assert_int_eq(connect(first, (struct sockaddr *)&a.storage, a.size), 0);
	run_while(is_unaccepted, &count);
	close(first);
	wait_flag(&server.is_closed);
	server = (struct side){.in_order = true};
	ck_assert_int_eq(connect(second, (struct sockaddr *)&a.storage, a.size), 0);
	for (int i = 0; i < 5; i++)
		one_turn();
	ck_assert_uint_eq(accepted_count, 1);
	ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &keep), 0);
	count = 2;
	run_while(is_unaccepted, &count);
	close(second);
	wait_flag(&server.is_closed);
}
END_TEST

static void add_ends(TCase *tc)
{
	tcase_add_test(tc, test_close_with_queued_sends);
	tcase_add_test(tc, test_peer_death_with_queued_sends);
	tcase_add_test(tc, test_last_words);
	tcase_add_test(tc, test_close_in_rx);
	tcase_add_test(tc, test_close_in_rx_of_a_large_frame);
	tcase_add_test(tc, test_close_in_accepted);
	tcase_add_test(tc, test_close_while_connecting);
	tcase_add_test(tc, test_stuck_peer);
}

static void add_setup(TCase *tc)
{
	tcase_add_test(tc, test_refused);
	tcase_add_test(tc, test_connect_timeout);
	tcase_add_test(tc, test_not_loopback);
	tcase_add_test(tc, test_insecure_allows_any_address);
	tcase_add_test(tc, test_bad_addresses);
	tcase_add_test(tc, test_ipv6);
	tcase_add_test(tc, test_listening_again);
	tcase_add_loop_test(tc, test_listening_after_a_kill, 0, 10);
	tcase_add_test(tc, test_out_of_descriptors);
}

int main(int argc, char **argv)
{
	Suite *suite = suite_create("tcp_life");
	SRunner *runner = srunner_create(suite);
	int failed;

	(void)argv;
	if (argc > 1)
		return child_main();
	add_ends(add_case(suite, "ends"));
	add_setup(add_case(suite, "setup"));
	srunner_run_all(runner, CK_NORMAL);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
