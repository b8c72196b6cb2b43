/* unix_socket: see unix_socket.h.
 *
 * Two servers that are given one path: the later one sees that the earlier one answers, and gives
 * up. What must not happen is that one removes the name of the other's socket, which nobody would
 * find then. So a name is removed only where connecting is refused for certain, and our own while
 * we still listen: whoever comes after that finds no name, and makes its own. */
#include "engine/attach/unix_socket.h"

#include <errno.h>
#include <string.h>
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

/* Somebody answers: in use. But a ring with an accept in it answers for a moment yet when its
 * process was killed. Nobody: what a dead server left, and may be replaced. Anything else that lies
 * there is somebody's, and connecting to it is refused in the same way. */
static int clear_stale(const struct sockaddr_un *addr, uint32_t wait_ms, struct error *err)
{
	const struct timespec pause = {.tv_nsec = (long)(UNIX_RETRY_MS * NS_PER_MS)};
	struct stat status;
	int rc;

	if (stat(addr->sun_path, &status) == 0 && !S_ISSOCK(status.st_mode))
		return error_set(err, -EADDRINUSE,
				 "socket %s: something that is no socket lies there; give another "
				 "path, or move it away",
				 addr->sun_path);
	for (uint32_t waited_ms = 0; (rc = find_answer(addr)) == 0; waited_ms += UNIX_RETRY_MS) {
		if (waited_ms >= wait_ms)
			return error_set(err, -EADDRINUSE,
					 "socket %s: another server answers there; stop it, or "
					 "give another path",
					 addr->sun_path);
		nanosleep(&pause, NULL);
	}
	if (rc == -ECONNREFUSED)
		unlink(addr->sun_path);
	return 0;
}

int unix_listen(const char *path, mode_t mode, int backlog, uint32_t wait_ms, int *ret_fd,
		struct error *err)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	int rc, fd;

	if (strlen(path) >= sizeof addr.sun_path)
		return error_set(
		    err, -EINVAL,
		    "socket path '%s': %zu bytes, %zu are possible; give a shorter path", path,
		    strlen(path), sizeof addr.sun_path - 1);
	memcpy(addr.sun_path, path, strlen(path) + 1);
	rc = clear_stale(&addr, wait_ms, err);
	if (rc != 0)
		return rc;
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0 || bind(fd, (const struct sockaddr *)&addr, sizeof addr) != 0) {
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

void unix_unlisten(int fd, const char *path)
{
	unlink(path);
	close(fd);
}
