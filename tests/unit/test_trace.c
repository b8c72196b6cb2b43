/* The trace socket, over a volume that only knows whether it is traced: one client at a time, and
 * none of them for good. */
#include <check.h>
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "engine/attach/trace.h"
#include "engine/volume/trace.h"
#include "tests/unit/descriptors.h"

struct volume {
	_Atomic unsigned begun, ended;
};

static struct {
	char dir[32], path[64];
	struct volume volume;
	struct reactor *reactor;
	struct trace_server *server;
	struct reactor_task stop;
	pthread_t thread;
} t;

int volume_trace_start(struct volume *v, struct volume_trace *trace)
{
	*trace = (struct volume_trace){0};
	v->begun++;
	return 0;
}

void volume_trace_stop(struct volume *v)
{
	v->ended++;
}

const char *volume_trace_part_name(enum volume_trace_part part)
{
	(void)part;
	return "part";
}

static void *reactor_main(void *arg)
{
	(void)arg;
	ck_assert_int_eq(reactor_run(t.reactor), 0);
	return NULL;
}

static void stopped(void *arg)
{
	(void)arg;
	reactor_stop(t.reactor);
}

static void stop(struct reactor_task *task)
{
	(void)task;
	trace_stop(t.server, stopped, NULL);
}

static void setup(void)
{
	const struct reactor_config rc = {.name = "trace"};
	struct error err;

	snprintf(t.dir, sizeof t.dir, "/tmp/test-trace-XXXXXX");
	ck_assert_ptr_nonnull(mkdtemp(t.dir));
	snprintf(t.path, sizeof t.path, "%s/s", t.dir);
	ck_assert_int_eq(reactor_create(&rc, &t.reactor), 0);
	ck_assert_msg(trace_listen(t.reactor, t.path, &t.server, &err) == 0, "%s", err.text);
	trace_serve(t.server, &t.volume);
	ck_assert_int_eq(pthread_create(&t.thread, NULL, reactor_main, NULL), 0);
}

static void teardown(void)
{
	t.stop.run = stop;
	reactor_post(t.reactor, &t.stop);
	pthread_join(t.thread, NULL);
	reactor_destroy(t.reactor);
	ck_assert_uint_eq(t.volume.begun, t.volume.ended);
	ck_assert_int_eq(access(t.path, F_OK), -1);
	rmdir(t.dir);
	memset(&t, 0, sizeof t);
}

static int client(const char *line)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	const struct timeval limit = {.tv_sec = 40};
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);

	snprintf(addr.sun_path, sizeof addr.sun_path, "%s", t.path);
	ck_assert_int_eq(connect(fd, (struct sockaddr *)&addr, sizeof addr), 0);
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
	ck_assert_int_eq(send(fd, line, strlen(line), MSG_NOSIGNAL), (ssize_t)strlen(line));
	return fd;
}

/* Its answer is whole, or, if it has none, empty. */
static void expect_end(int fd, bool answered)
{
	char text[2000];
	ssize_t size = recv(fd, text, sizeof text, MSG_WAITALL);

	ck_assert_msg(size >= 0 || errno == ECONNRESET, "%s", strerror(errno));
	ck_assert_int_eq(size > 0, answered);
	if (answered)
		ck_assert(text[0] == '{' && text[size - 1] == '\n');
	close(fd);
}

static void wait_for_traces(unsigned count)
{
	for (int i = 0; i < 20000 && atomic_load(&t.volume.begun) < count; i++)
		usleep(1000);
	ck_assert_uint_eq(atomic_load(&t.volume.begun), count);
}

START_TEST(who_asks_is_answered)
{
	expect_end(client("trace 1 4\n"), true);
	expect_end(client("trace 0 4\n"), false);
	expect_end(
	    client("what is this, and why is it longer than the line that is expected here?"),
	    false);
	ck_assert_uint_eq(atomic_load(&t.volume.begun), 1);
}
END_TEST

START_TEST(who_says_nothing_keeps_no_place)
{
	int silent = client("");

	expect_end(client("trace 1 4\n"), true);
	expect_end(silent, false);
}
END_TEST

START_TEST(who_goes_away_ends_its_trace)
{
	int gone = client("trace 3600 4\n");

	wait_for_traces(1);
	close(gone);
	expect_end(client("trace 1 4\n"), true);
	ck_assert_uint_eq(atomic_load(&t.volume.begun), 2);
}
END_TEST

START_TEST(who_is_being_traced_for_is_answered_at_the_end)
{
	int fd = client("trace 3600 4\n");

	wait_for_traces(1);
	t.stop.run = stop;
	reactor_post(t.reactor, &t.stop);
	expect_end(fd, true);
	pthread_join(t.thread, NULL);
	reactor_destroy(t.reactor);
	rmdir(t.dir);
}
END_TEST

static void ask_without_descriptors(bool stop_meanwhile)
{
	const struct rlimit before = leave_one_descriptor();
	const int fd = client("trace 1 4\n");

	must_rest(t.thread);
	if (stop_meanwhile) {
		close(fd);
		return;
	}
	ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &before), 0);
	expect_end(fd, true);
}

START_TEST(without_descriptors_it_waits_for_some)
{
	ask_without_descriptors(false);
}
END_TEST

START_TEST(it_stops_while_it_waits_for_descriptors)
{
	ask_without_descriptors(true);
}
END_TEST

START_TEST(a_file_that_is_no_socket_is_left_alone)
{
	struct trace_server *server = NULL;
	struct error err;
	char path[] = "/tmp/test-trace-file-XXXXXX";
	int fd = mkstemp(path);

	ck_assert_int_ge(fd, 0);
	close(fd);
	ck_assert_int_eq(trace_listen(t.reactor, path, &server, &err), -EADDRINUSE);
	ck_assert_ptr_nonnull(strstr(err.text, path));
	ck_assert_ptr_null(server);
	ck_assert_int_eq(unlink(path), 0);
}
END_TEST

START_TEST(a_second_server_on_a_live_socket_is_refused)
{
	struct trace_server *second = NULL;
	struct error err;

	ck_assert_int_eq(trace_listen(t.reactor, t.path, &second, &err), -EADDRINUSE);
	ck_assert_ptr_nonnull(strstr(err.text, t.path));
	ck_assert_ptr_null(second);
	expect_end(client("trace 1 4\n"), true);
}
END_TEST

int main(void)
{
	TCase *tc = tcase_create("clients");
	Suite *s = suite_create("trace");
	SRunner *sr = srunner_create(s);
	int failed;

	tcase_set_timeout(tc, 60);
	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_add_test(tc, who_asks_is_answered);
	tcase_add_test(tc, who_says_nothing_keeps_no_place);
	tcase_add_test(tc, who_goes_away_ends_its_trace);
	tcase_add_test(tc, without_descriptors_it_waits_for_some);
	tcase_add_test(tc, it_stops_while_it_waits_for_descriptors);
	tcase_add_test(tc, a_file_that_is_no_socket_is_left_alone);
	tcase_add_test(tc, a_second_server_on_a_live_socket_is_refused);
	suite_add_tcase(s, tc);
	tc = tcase_create("the end");
	tcase_set_timeout(tc, 60);
	tcase_add_checked_fixture(tc, setup, NULL);
	tcase_add_test(tc, who_is_being_traced_for_is_answered_at_the_end);
	suite_add_tcase(s, tc);
	srunner_run_all(sr, CK_ENV);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed == 0 ? 0 : 1;
}
