/* Unix sockets that servers of this host listen on: the NBD server's and the trace socket. */
#ifndef ATTACH_UNIX_SOCKET_H
#define ATTACH_UNIX_SOCKET_H

#include <stdint.h>
#include <sys/types.h>

#include "engine/base/error.h"

#define UNIX_PATH_MAX 108u /* with the terminating NUL */

/* Listens at path; its mode is set first unless mode is 0. A socket that nobody answers on is
 * replaced. -EADDRINUSE: somebody answers, also after wait_ms (UNIX_LISTEN_WAIT_MS outlasts what a
 * killed process leaves behind), or another server is just being started in the same folder, or it
 * is no socket; -EINVAL: the path is too long; or an errno. The text names the path and the way
 * out. Blocks for as long as that, not otherwise. */
#define UNIX_LISTEN_WAIT_MS 2000u
int unix_listen(const char *path, mode_t mode, int backlog, uint32_t wait_ms, int *ret_fd,
		struct error *err);

/* Ends it. No accept refers to fd. */
void unix_unlisten(int fd, const char *path);

#endif
