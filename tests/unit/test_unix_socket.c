/* Two servers that are given one path at one moment: the other one comes where the first one has
 * looked and not acted yet, which the C library's functions in this program tell. */
#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "engine/attach/unix_socket.h"

#define BACKLOG 4

enum moment { NEVER, BEFORE_LISTEN, BEFORE_UNLINK };

static struct {
	char dir[32], path[64];
	enum moment moment; /* at which the other one comes, once */
	bool die;	    /* instead of that */
	bool came;
	int other_rc, other;
	struct error other_err;
} t;

static void it_is(enum moment moment)
{
	if (t.moment != moment)
		return;
	t.moment = NEVER;
	if (t.die)
		raise(SIGKILL);
	t.came = true;
	t.other_rc = unix_listen(t.path, 0, BACKLOG, 0, &t.other, &t.other_err);
}

/* In front of the C library's. */
int listen(int fd, int backlog)
{
	it_is(BEFORE_LISTEN);
	return (int)syscall(SYS_listen, fd, backlog);
}

int unlink(const char *path)
{
	it_is(BEFORE_UNLINK);
	return (int)syscall(SYS_unlinkat, AT_FDCWD, path, 0);
}

static void setup(void)
{
	snprintf(t.dir, sizeof t.dir, "/tmp/test-unix-XXXXXX");
	ck_assert_ptr_nonnull(mkdtemp(t.dir));
	snprintf(t.path, sizeof t.path, "%s/s", t.dir);
}

/* Nothing else may lie there. */
static void teardown(void)
{
	unlink(t.path);
	ck_assert_int_eq(rmdir(t.dir), 0);
}

static void leave_a_dead_socket(void)
{
	struct error err;
	int fd;

	ck_assert_msg(unix_listen(t.path, 0, BACKLOG, 0, &fd, &err) == 0, "%s", err.text);
	close(fd);
	ck_assert_int_eq(access(t.path, F_OK), 0);
}

/* Whoever comes to the path comes to this server. */
static void is_found(int fd)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	struct pollfd waiting = {.fd = fd, .events = POLLIN};
	const int client = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

	snprintf(addr.sun_path, sizeof addr.sun_path, "%s", t.path);
	ck_assert_int_eq(connect(client, (struct sockaddr *)&addr, sizeof addr), 0);
	ck_assert_int_eq(poll(&waiting, 1, 0), 1);
	close(client);
}

static void one_of_two_has_it(enum moment moment)
{
	struct error err;
	int rc, fd = -1;

	t.moment = moment;
	rc = unix_listen(t.path, 0, BACKLOG, 0, &fd, &err);
	ck_assert(t.came);
	ck_assert_msg((rc == 0) != (t.other_rc == 0), "%d and %d", rc, t.other_rc);
	ck_assert_int_eq(rc == 0 ? t.other_rc : rc, -EADDRINUSE);
	ck_assert_ptr_nonnull(strstr(rc == 0 ? t.other_err.text : err.text, t.path));
	is_found(rc == 0 ? fd : t.other);
	unix_unlisten(rc == 0 ? fd : t.other, t.path);
}

START_TEST(the_other_comes_before_the_first_one_listens)
{
	one_of_two_has_it(BEFORE_LISTEN);
}
END_TEST

START_TEST(the_other_comes_before_the_first_one_listens_where_a_dead_one_was)
{
	leave_a_dead_socket();
	one_of_two_has_it(BEFORE_LISTEN);
}
END_TEST

START_TEST(both_find_the_dead_one)
{
	leave_a_dead_socket();
	one_of_two_has_it(BEFORE_UNLINK);
}
END_TEST

/* Whatever keeps the other one away goes with the process. */
START_TEST(who_is_killed_meanwhile_keeps_nobody_away)
{
	struct error err;
	int status, fd = -1;
	pid_t child;

	t.moment = BEFORE_LISTEN;
	t.die = true;
	child = fork();
	if (child == 0)
		_exit(unix_listen(t.path, 0, BACKLOG, 0, &fd, &err) == 0);
	t.moment = NEVER;
	ck_assert_int_eq(waitpid(child, &status, 0), child);
	ck_assert(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
	ck_assert_msg(unix_listen(t.path, 0, BACKLOG, 0, &fd, &err) == 0, "%s", err.text);
	is_found(fd);
	unix_unlisten(fd, t.path);
}
END_TEST

int main(void)
{
	TCase *tc = tcase_create("at one moment");
	Suite *s = suite_create("unix_socket");
	SRunner *sr = srunner_create(s);
	int failed;

	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_add_test(tc, the_other_comes_before_the_first_one_listens);
	tcase_add_test(tc, the_other_comes_before_the_first_one_listens_where_a_dead_one_was);
	tcase_add_test(tc, both_find_the_dead_one);
	tcase_add_test(tc, who_is_killed_meanwhile_keeps_nobody_away);
	suite_add_tcase(s, tc);
	srunner_run_all(sr, CK_ENV);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed == 0 ? 0 : 1;
}
