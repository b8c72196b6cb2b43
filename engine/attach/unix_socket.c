/* unix_socket: see unix_socket.h.
 *
 * Two servers that are given one path: the later one sees that the earlier one answers, and gives
 * up. What must not happen is that one removes the name of the other's socket, which nobody would
 * find then. So a name is removed only where connecting is refused for certain, and our own while
 * we still listen: whoever comes after that finds no name, and makes its own.
 *
 * A socket that is bound refuses like a dead one until it listens, and two that find a dead one
 * would both remove it, the slower one what the faster one has put there. So from looking to
 * listening a server has a lock on the folder, which is no file and goes with the process. */
#include "engine/attach/unix_socket.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "engine/base/types.h"

/* Each time a live server has a client that says nothing: not too often. */
#define UNIX_RETRY_MS 200u

_Static_assert(sizeof(((struct sockaddr_un *)0)->sun_path) == UNIX_PATH_MAX, "unix(7) says so");

/* 0: somebody answers, or so many wait for it that connecting would have to. */
static int find_answer(const struct sockaddr_un *addr)
{
	const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	int rc = 0;

	if (fd < 0)
		return -errno;
	if (connect(fd, (const struct sockaddr *)addr, sizeof *addr) != 0 && errno != EAGAIN)
		rc = -errno;
	close(fd);
	return rc;
}

/* *ret_fd holds the lock until it is closed. -EWOULDBLOCK: another has it. Where there can be no
 * lock (a folder that we may not read, a file system without) it is -1. */
static int lock_folder(const char *path, int *ret_fd)
{
	char folder[UNIX_PATH_MAX];
	int fd;

	snprintf(folder, sizeof folder, "%s", path);
	fd = open(dirname(folder), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) != 0) {
		const bool taken = errno == EWOULDBLOCK;

		close(fd);
		if (taken)
			return -EWOULDBLOCK;
		fd = -1;
	}
	*ret_fd = fd;
	return 0;
}

/* Somebody answers: in use, at least for now. Nobody: what a dead server left, and may be replaced.
 * Anything else that lies there is somebody's, and connecting to it is refused in the same way. */
static int clear_stale(const struct sockaddr_un *addr, bool *ret_for_now, struct error *err)
{
	struct stat status;
	int rc;

	if (stat(addr->sun_path, &status) == 0 && !S_ISSOCK(status.st_mode))
		return error_set(err, -EADDRINUSE,
				 "socket %s: something that is no socket lies there; give another "
				 "path, or move it away",
				 addr->sun_path);
	rc = find_answer(addr);
	if (rc == 0) {
		*ret_for_now = true;
		return error_set(err, -EADDRINUSE,
				 "socket %s: another server answers there; stop it, or "
				 "give another path",
				 addr->sun_path);
	}
	if (rc == -ECONNREFUSED)
		unlink(addr->sun_path);
	return 0;
}

static int bind_and_listen(const struct sockaddr_un *addr, mode_t mode, int backlog, int *ret_fd,
			   struct error *err)
{
	const char *path = addr->sun_path;
	int rc, fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (fd < 0 || bind(fd, (const struct sockaddr *)addr, sizeof *addr) != 0) {
		rc = error_set(err, -errno, "socket %s: %s", path, strerror(errno));
		if (fd >= 0)
			close(fd);
		return rc;
	}
	if ((mode != 0 && chmod(path, mode) != 0) || listen(fd, backlog) != 0) {
		rc = error_set(err, -errno, "socket %s: %s", path, strerror(errno));
		unix_unlisten(fd, path);
		return rc;
	}
	*ret_fd = fd;
	return 0;
}

/* *ret_for_now: it may be otherwise in a moment. */
static int try_to_listen(const struct sockaddr_un *addr, mode_t mode, int backlog, int *ret_fd,
			 bool *ret_for_now, struct error *err)
{
	int lock = -1;
	int rc = lock_folder(addr->sun_path, &lock);

	*ret_for_now = rc != 0;
	if (rc != 0)
		return error_set(err, -EADDRINUSE,
				 "socket %s: another process has locked its folder, as a server "
				 "does while it starts; try again",
				 addr->sun_path);
	rc = clear_stale(addr, ret_for_now, err);
	if (rc == 0)
		rc = bind_and_listen(addr, mode, backlog, ret_fd, err);
	if (lock >= 0)
		close(lock);
	return rc;
}

int unix_listen(const char *path, mode_t mode, int backlog, uint32_t wait_ms, int *ret_fd,
		struct error *err)
{
	const struct timespec pause = {.tv_nsec = (long)(UNIX_RETRY_MS * NS_PER_MS)};
	struct sockaddr_un addr = {.sun_family = AF_UNIX};

	if (strlen(path) >= sizeof addr.sun_path)
		return error_set(
		    err, -EINVAL,
		    "socket path '%s': %zu bytes, %zu are possible; give a shorter path", path,
		    strlen(path), sizeof addr.sun_path - 1);
	memcpy(addr.sun_path, path, strlen(path) + 1);
	/* A ring with an accept in it answers for a moment yet when its process was killed. */
	for (uint32_t waited_ms = 0;; waited_ms += UNIX_RETRY_MS) {
		bool for_now = false;
		const int rc = try_to_listen(&addr, mode, backlog, ret_fd, &for_now, err);

		if (!for_now || waited_ms >= wait_ms)
			return rc;
		nanosleep(&pause, NULL);
	}
}

void unix_unlisten(int fd, const char *path)
{
	unlink(path);
	close(fd);
}
