/* process: see process.h. */
#include "tools/pave/process.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "engine/base/text.h"
#include "engine/evidence/file.h"
#include "tools/pave/cmd.h"

#define PATH_SIZE 4400
#define ARGV_SIZE 32768
#define KILL_MS	  10000u

static int64_t monotonic_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

/* -- which process is it ---------------------------------------------------------------------- */

/* The start time (clock ticks since boot, field 22 of /proc/PID/stat); 0: it doesn't run, or is
 * only waiting to be reaped. */
static unsigned long long start_time(pid_t pid)
{
	char path[64], buf[1024];
	unsigned long long ticks = 0;
	char state = 'Z';
	const char *p;
	FILE *f;
	size_t n;

	snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
	f = fopen(path, "r");
	if (f == NULL)
		return 0;
	n = fread(buf, 1, sizeof buf - 1, f);
	fclose(f);
	buf[n] = '\0';
	p = strrchr(buf, ')'); /* the name before it may hold anything */
	if (p == NULL ||
	    sscanf(p + 1,
		   " %c %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s "
		   "%*s %llu",
		   &state, &ticks) != 2)
		return 0;
	return state == 'Z' || state == 'X' ? 0 : ticks;
}

/* Its arguments, NUL-separated, with an empty one at the end; returns their size. */
static size_t read_argv(pid_t pid, char *argv, size_t size)
{
	char path[64];
	size_t n;
	FILE *f;

	snprintf(path, sizeof path, "/proc/%d/cmdline", (int)pid);
	f = fopen(path, "r");
	if (f == NULL)
		return 0;
	n = fread(argv, 1, size - 2, f);
	fclose(f);
	argv[n] = argv[n + 1] = '\0';
	return n;
}

/* Whether path is dir or lies below it, and not in another cluster that lies below dir. */
static bool lies_in(const char *path, const char *dir)
{
	const size_t dir_len = strlen(dir);
	char inner[PATH_SIZE];

	if (strncmp(path, dir, dir_len) != 0 || (path[dir_len] != '/' && path[dir_len] != '\0'))
		return false;
	for (const char *p = path + dir_len; p != NULL && *p == '/'; p = strchr(p + 1, '/')) {
		if (p != path + dir_len &&
		    snprintf(inner, sizeof inner, "%.*s/cluster.json", (int)(p - path), path) <
			(int)sizeof inner &&
		    access(inner, F_OK) == 0)
			return false;
	}
	return true;
}

/* Whether an argument is a path of the cluster's. */
static bool names_dir(const char *argv, size_t size, const char *dir)
{
	for (const char *a = argv; a < argv + size; a += strlen(a) + 1)
		if (lies_in(a, dir))
			return true;
	return false;
}

static void pid_path(char *buf, const char *dir, const char *name)
{
	snprintf(buf, PATH_SIZE, "%s/run/%s.pid", dir, name);
}

bool process_find(const char *dir, const char *name, pid_t *ret_pid)
{
	char path[PATH_SIZE], argv[ARGV_SIZE];
	unsigned long long ticks;
	int pid;
	FILE *f;
	bool there;

	pid_path(path, dir, name);
	f = fopen(path, "r");
	if (f == NULL)
		return false;
	there = fscanf(f, "%d %llu", &pid, &ticks) == 2 && pid > 1 && ticks != 0 &&
		start_time(pid) == ticks;
	fclose(f);
	/* In a copy of the directory the file tells of the other's. */
	there = there && names_dir(argv, read_argv(pid, argv, sizeof argv), dir);
	if (there && ret_pid != NULL)
		*ret_pid = pid;
	return there;
}

static int note_pid(const char *dir, const char *name, pid_t pid, struct error *err)
{
	char path[PATH_SIZE], text[64];

	pid_path(path, dir, name);
	snprintf(text, sizeof text, "%d %llu\n", (int)pid, start_time(pid));
	return file_replace(path, text, strlen(text), 0644, err);
}

/* -- starting --------------------------------------------------------------------------------- */

/* In the child: never returns. ready_fd becomes stdout, log_fd stderr. */
static _Noreturn void become(const char *path, char *const argv[], int ready_fd, int log_fd)
{
	int null_fd = open("/dev/null", O_RDONLY);
	sigset_t none;

	setsid();
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	signal(SIGPIPE, SIG_DFL);
	if (null_fd < 0 || dup2(null_fd, STDIN_FILENO) < 0 || dup2(ready_fd, STDOUT_FILENO) < 0 ||
	    dup2(log_fd, STDERR_FILENO) < 0)
		_exit(1);
	close_range(STDERR_FILENO + 1, ~0u, 0);
	execvp(path, argv); /* with a slash in it, as execv */
	dprintf(STDERR_FILENO, "%s: %s\n", path, strerror(errno));
	_exit(127);
}

/* The last line of the log, for a message. */
static void last_line(const char *log, char *buf, size_t size)
{
	char tail[2048];
	FILE *f = fopen(log, "r");
	size_t n;
	char *line;

	buf[0] = '\0';
	if (f == NULL)
		return;
	if (fseek(f, -(long)(sizeof tail - 1), SEEK_END) != 0)
		rewind(f);
	n = fread(tail, 1, sizeof tail - 1, f);
	fclose(f);
	while (n > 0 && tail[n - 1] == '\n')
		n--;
	tail[n] = '\0';
	line = strrchr(tail, '\n');
	snprintf(buf, size, "%.*s", (int)size - 1, line != NULL ? line + 1 : tail);
}

/* Reads "ready WHERE\n". 0, -ETIMEDOUT, or -E_DISCONNECTED when the child ended before. */
static int wait_ready(int fd, unsigned timeout_ms, char ret_ready[PROCESS_READY_SIZE])
{
	char buf[PROCESS_READY_SIZE + 16];
	size_t n = 0;
	int64_t end = monotonic_ms() + timeout_ms;

	for (;;) {
		struct pollfd p = {.fd = fd, .events = POLLIN};
		int64_t left = end - monotonic_ms();
		char *newline;
		ssize_t got;

		if (left <= 0)
			return -ETIMEDOUT;
		if (poll(&p, 1, (int)left) < 0 && errno != EINTR)
			return -errno;
		if (p.revents == 0)
			continue;
		got = read(fd, buf + n, sizeof buf - 1 - n);
		if (got <= 0)
			return -E_DISCONNECTED;
		n += (size_t)got;
		buf[n] = '\0';
		newline = strchr(buf, '\n');
		if (newline == NULL && n < sizeof buf - 1)
			continue;
		if (newline == NULL || strncmp(buf, "ready ", 6) != 0)
			return -E_BAD_FRAME;
		*newline = '\0';
		snprintf(ret_ready, PROCESS_READY_SIZE, "%.*s", (int)PROCESS_READY_SIZE - 1,
			 buf + 6);
		return 0;
	}
}

/* The child hasn't become ready: it is ended, if it hasn't itself. Returns its exit code, or -1. */
static int reap(pid_t pid)
{
	int status = 0;

	kill(pid, SIGKILL); /* our own child, not yet waited for: the pid is its */
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		continue;
	return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

int process_start(const char *dir, const char *name, const char *program, char *const argv[],
		  unsigned timeout_ms, char ret_ready[PROCESS_READY_SIZE], int *ret_exit,
		  struct error *err)
{
	char bin[PATH_SIZE], path[PATH_SIZE + 64], log[PATH_SIZE], line[600];
	int ready[2] = {-1, -1};
	int log_fd = -1;
	pid_t pid;
	int rc, code;

	if (ret_exit != NULL)
		*ret_exit = -1;
	rc = cmd_program_dir(bin, sizeof bin, err);
	if (rc != 0)
		return rc;
	snprintf(path, sizeof path, "%s/%s", bin, program);
	snprintf(log, sizeof log, "%s/log/%s.log", dir, name);
	log_fd = open(log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
	if (log_fd < 0 || pipe2(ready, O_CLOEXEC) != 0) {
		rc = error_set(err, -errno, "%s: %s", log, strerror(errno));
		goto out;
	}
	pid = fork();
	if (pid == 0)
		become(path, argv, ready[1], log_fd);
	if (pid < 0) {
		rc = error_set(err, -errno, "fork: %s", strerror(errno));
		goto out;
	}
	close(ready[1]);
	ready[1] = -1;
	rc = note_pid(dir, name, pid, err);
	if (rc == 0) {
		rc = wait_ready(ready[0], timeout_ms, ret_ready);
		if (rc != 0)
			error_set(err, rc, "%s",
				  rc == -ETIMEDOUT ? "it was not ready in time"
						   : "it ended at once");
	}
	if (rc != 0) {
		/* A moment for its own end, so that its exit code is its own. */
		for (int i = 0; i < 50 && rc == -E_DISCONNECTED && start_time(pid) != 0; i++)
			usleep(20000);
		code = reap(pid);
		if (ret_exit != NULL)
			*ret_exit = code;
		last_line(log, line, sizeof line);
		/* Not that of a connection, which would be an exit code for something else. */
		rc = error_set(err, -ECHILD, "%s was not started (%s); its log %s ends with: %s",
			       name, rc == -ETIMEDOUT ? "it was not ready in time" : "it ended",
			       log, line);
		pid_path(path, dir, name);
		unlink(path);
	}
out:
	if (log_fd >= 0)
		close(log_fd);
	if (ready[0] >= 0)
		close(ready[0]);
	if (ready[1] >= 0)
		close(ready[1]);
	return rc;
}

int process_spawn(const char *dir, const char *name, const char *program, char *const argv[],
		  struct error *err)
{
	char log[PATH_SIZE];
	int log_fd, rc;
	pid_t pid;

	snprintf(log, sizeof log, "%s/log/%s.log", dir, name);
	log_fd = open(log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
	if (log_fd < 0)
		return error_set(err, -errno, "%s: %s", log, strerror(errno));
	pid = fork();
	if (pid == 0)
		become(program, argv, log_fd, log_fd);
	rc = pid < 0 ? error_set(err, -errno, "fork: %s", strerror(errno))
		     : note_pid(dir, name, pid, err);
	close(log_fd);
	return rc;
}

/* -- stopping --------------------------------------------------------------------------------- */

static bool ends_within(int pidfd, unsigned timeout_ms)
{
	struct pollfd p = {.fd = pidfd, .events = POLLIN};
	int64_t end = monotonic_ms() + timeout_ms;

	for (;;) {
		int64_t left = end - monotonic_ms();

		if (left < 0)
			left = 0;
		if (poll(&p, 1, (int)left) > 0)
			return true;
		if (left == 0)
			return false;
	}
}

/* pidfd is the process, without a doubt. */
static int end_process(int pidfd, const char *name, pid_t pid, unsigned timeout_ms,
		       bool *ret_killed, struct error *err)
{
	pidfd_send_signal(pidfd, SIGTERM, NULL, 0);
	if (ends_within(pidfd, timeout_ms))
		return 0;
	pidfd_send_signal(pidfd, SIGKILL, NULL, 0);
	if (ret_killed != NULL)
		*ret_killed = true;
	if (ends_within(pidfd, KILL_MS))
		return 0;
	return error_set(err, -ETIMEDOUT, "%s (pid %d) does not end, not even by SIGKILL", name,
			 (int)pid);
}

int process_stop(const char *dir, const char *name, unsigned timeout_ms, bool *ret_killed,
		 struct error *err)
{
	char path[PATH_SIZE];
	pid_t pid;
	int fd;
	int rc = 0;

	if (ret_killed != NULL)
		*ret_killed = false;
	if (process_find(dir, name, &pid)) {
		/* From here on the descriptor stands for the process; looked at again, because it
		 * may have ended between. */
		fd = pidfd_open(pid, 0);
		if (fd >= 0 && process_find(dir, name, &pid))
			rc = end_process(fd, name, pid, timeout_ms, ret_killed, err);
		if (fd >= 0)
			close(fd);
	}
	if (rc == 0) {
		pid_path(path, dir, name);
		unlink(path);
	}
	return rc;
}

/* -- those that others started ---------------------------------------------------------------- */

bool process_argument(const char *dir, const char *name, const char *option, char *buf, size_t size)
{
	char argv[ARGV_SIZE];
	size_t n;
	pid_t pid;

	if (!process_find(dir, name, &pid))
		return false;
	n = read_argv(pid, argv, sizeof argv);
	for (const char *a = argv; a < argv + n; a += strlen(a) + 1) {
		const char *value = a + strlen(a) + 1;

		if (strcmp(a, option) != 0 || value >= argv + n || strlen(value) >= size)
			continue;
		memcpy(buf, value, strlen(value) + 1);
		return true;
	}
	return false;
}

/* The arguments, if it is this program with a path below dir among them. */
static bool belongs(pid_t pid, const char *dir, const char *program, char *argv, size_t size)
{
	size_t n = read_argv(pid, argv, size);
	const char *base = strrchr(n > 0 ? argv : "", '/');

	if (n == 0 || strcmp(base != NULL ? base + 1 : argv, program) != 0)
		return false;
	return names_dir(argv, n, dir) && start_time(pid) != 0;
}

int process_scan(const char *dir, const char *program,
		 void (*each)(pid_t pid, const char *argv, void *arg), void *arg, struct error *err)
{
	char argv[ARGV_SIZE];
	struct dirent *e;
	DIR *d = opendir("/proc");

	if (d == NULL)
		return error_set(err, -errno, "/proc: %s", strerror(errno));
	while ((e = readdir(d)) != NULL) {
		pid_t pid = (pid_t)strtol(e->d_name, NULL, 10);

		if (pid > 1 && pid != getpid() && belongs(pid, dir, program, argv, sizeof argv))
			each(pid, argv, arg);
	}
	closedir(d);
	return 0;
}

int process_stop_found(const char *dir, const char *program, pid_t pid, unsigned timeout_ms,
		       bool *ret_killed, struct error *err)
{
	char argv[ARGV_SIZE];
	int fd = pidfd_open(pid, 0);
	int rc = 0;

	*ret_killed = false;
	if (fd < 0)
		return 0;
	if (belongs(pid, dir, program, argv, sizeof argv))
		rc = end_process(fd, program, pid, timeout_ms, ret_killed, err);
	close(fd);
	return rc;
}

struct adoption {
	const char *dir;
	struct error *err;
	int rc;
};

static void adopt(pid_t pid, const char *argv, void *arg)
{
	struct adoption *a = arg;
	const char *option = argv, *name;

	while (*option != '\0' && strcmp(option, "--dir") != 0)
		option += strlen(option) + 1;
	if (*option == '\0')
		return;
	name = strrchr(option + strlen(option) + 1, '/');
	if (name != NULL && text_is_name(name + 1) && !process_find(a->dir, name + 1, NULL) &&
	    a->rc == 0)
		a->rc = note_pid(a->dir, name + 1, pid, a->err);
}

int process_adopt(const char *dir, struct error *err)
{
	struct adoption a = {.dir = dir, .err = err};
	int rc = process_scan(dir, "pave-pd", adopt, &a, err);

	if (rc == 0)
		rc = process_scan(dir, "pave-node", adopt, &a, err);
	return rc != 0 ? rc : a.rc;
}

int process_each(const char *dir, void (*each)(const char *name, void *arg), void *arg,
		 struct error *err)
{
	char path[PATH_SIZE];
	struct dirent **entries;
	int n;

	snprintf(path, sizeof path, "%s/run", dir);
	n = scandir(path, &entries, NULL, alphasort);
	if (n < 0)
		return error_set(err, -errno, "%s: %s", path, strerror(errno));
	for (int i = 0; i < n; i++) {
		char *name = entries[i]->d_name;
		size_t len = strlen(name);

		if (len > 4 && strcmp(name + len - 4, ".pid") == 0) {
			name[len - 4] = '\0';
			each(name, arg);
		}
		free(entries[i]);
	}
	free(entries);
	return 0;
}
