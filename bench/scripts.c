/* scripts: see scripts.h. */
#include "bench/scripts.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static void path_of(const char *name, char *buf, size_t size)
{
	const char *dir = getenv("PAVE_BENCH_SCRIPTS");

	snprintf(buf, size, "%s/%s", dir != NULL && dir[0] != '\0' ? dir : BENCH_SCRIPTS_DIR, name);
	/* Built here, or installed. */
	if ((dir == NULL || dir[0] == '\0') && access(buf, X_OK) != 0)
		snprintf(buf, size, "%s/%s", BENCH_SCRIPTS_INSTALLED_DIR, name);
}

static int not_run(const char *path)
{
	fprintf(stderr,
		"pave-bench: %s: %s; it needs python3 and the bench folder of the source tree "
		"(PAVE_BENCH_SCRIPTS)\n",
		path, strerror(errno));
	return 1;
}

int script_exec(const char *name, char **argv)
{
	char path[4200], self[4200];
	const ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);

	path_of(name, path, sizeof path);
	if (n > 0) {
		self[n] = '\0';
		setenv("PAVE_BENCH", self, 1);
	}
	argv[0] = path;
	execv(path, argv);
	return not_run(path);
}

int script_feed(const char *name, const char *argument, const char *text)
{
	char path[4200];
	int fds[2], status;
	FILE *in;
	pid_t pid;

	path_of(name, path, sizeof path);
	if (pipe(fds) != 0 || (pid = fork()) < 0)
		return not_run(path);
	if (pid == 0) {
		dup2(fds[0], STDIN_FILENO);
		close(fds[0]);
		close(fds[1]);
		execl(path, path, "-", argument, (char *)NULL);
		_exit(not_run(path));
	}
	close(fds[0]);
	in = fdopen(fds[1], "w");
	if (in != NULL) {
		fputs(text, in);
		fclose(in);
	}
	while (waitpid(pid, &status, 0) < 0)
		if (errno != EINTR)
			return 1;
	return WIFEXITED(status) ? WEXITSTATUS(status) : 1;
}
