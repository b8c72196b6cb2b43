/* Operations on file descriptors, for the two modules that own descriptors: engine/disk and net/tcp
 * (and the servers of engine/attach). The only place that includes liburing.h is uring.c behind
 * this.
 *
 * Each function prepares one operation; it is submitted at the end of the turn. `io` is embedded by
 * the owner and lent until its `done` runs, exactly once, with a non-negative result or a negative
 * errno, as the system call of the same name would return. Buffers, iovecs and msghdrs are lent for
 * as long. When the ring is full the reactor submits at once: preparing never fails. Descriptors
 * stay in blocking mode: with O_NONBLOCK the kernel answers -EAGAIN instead of waiting. The owner
 * closes a descriptor only when nothing is in flight on it. */
#ifndef REACTOR_IO_H
#define REACTOR_IO_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include "engine/reactor/reactor.h"

struct reactor_io {
	void (*done)(struct reactor_io *io, int32_t result);
};

/* Files. rw_flags: RWF_DSYNC and the like. Buffers from reactor_memory go as registered ones where
 * io is not vectored. */
void reactor_io_read(struct reactor *r, struct reactor_io *io, int fd, void *buf, uint32_t size,
		     uint64_t offset);
void reactor_io_write(struct reactor *r, struct reactor_io *io, int fd, const void *buf,
		      uint32_t size, uint64_t offset, int rw_flags);
void reactor_io_readv(struct reactor *r, struct reactor_io *io, int fd, const struct iovec *iov,
		      uint32_t iov_count, uint64_t offset);
void reactor_io_writev(struct reactor *r, struct reactor_io *io, int fd, const struct iovec *iov,
		       uint32_t iov_count, uint64_t offset, int rw_flags);
void reactor_io_fdatasync(struct reactor *r, struct reactor_io *io, int fd);
void reactor_io_fallocate(struct reactor *r, struct reactor_io *io, int fd, int mode,
			  uint64_t offset, uint64_t size);

/* Sockets. A full send: MSG_WAITALL semantics, the result is less than asked for only with an
 * error. */
void reactor_io_recv(struct reactor *r, struct reactor_io *io, int fd, void *buf, uint32_t size);
/* flags: MSG_WAITALL, to complete only when all is there, or at the end of the stream. */
void reactor_io_recvmsg(struct reactor *r, struct reactor_io *io, int fd, struct msghdr *msg,
			int flags);
void reactor_io_sendmsg(struct reactor *r, struct reactor_io *io, int fd, const struct msghdr *msg);
void reactor_io_accept(struct reactor *r, struct reactor_io *io,
		       int fd); /* one connection; CLOEXEC */
void reactor_io_connect(struct reactor *r, struct reactor_io *io, int fd,
			const struct sockaddr *addr, socklen_t addr_size);
void reactor_io_poll(struct reactor *r, struct reactor_io *io, int fd, uint32_t poll_mask);

/* Asks that io end early; it still completes once, with -ECANCELED or with its result. */
void reactor_io_cancel(struct reactor *r, struct reactor_io *io);

/* Signals as events: from now on SIGTERM and SIGINT call fn on the reactor's thread instead of
 * ending the process. One reactor a process; before other reactors' threads are started, since they
 * inherit that the signals are blocked, as do child processes. 0 or a negative errno. */
int reactor_on_terminate(struct reactor *r, void (*fn)(int signal_number, void *arg), void *arg);

/* The same of SIGUSR1; after reactor_on_terminate. */
int reactor_on_user_signal(struct reactor *r, void (*fn)(int signal_number, void *arg), void *arg);

#endif
