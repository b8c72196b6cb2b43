/* What the tests of the NBD server have in common: the server over a volume in memory, libnbd as
 * the honest client, and raw sockets as the other kind. Each test program includes this once. */
#ifndef UNIT_NBD_WORLD_H
#define UNIT_NBD_WORLD_H

#include <check.h>
#include <errno.h>
#include <libnbd.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "engine/attach/bytes.h"
#include "engine/attach/nbd.h"
#include "engine/attach/nbd_proto.h"
#include "fake_volume.h"

#define VOLUME_SIZE (48u << 20)

static struct {
	char dir[32], socket[64];
	struct reactor *reactor;
	struct volume *volume;
	struct nbd_server *server;
	pthread_t thread;
	struct reactor_task stop;
	/* Set before start(); 0: as usual. */
	const char *address;
	uint64_t size, allocated_blocks;
	bool read_only;
	uint32_t buffers_max;
	struct reactor_timer after;
	uint32_t after_ms; /* the reactor goes on for so long when the server has stopped */
} t;

static inline void *reactor_main(void *arg)
{
	(void)arg;
	ck_assert_int_eq(reactor_run(t.reactor), 0);
	return NULL;
}

static inline void stop_reactor(struct reactor_timer *timer)
{
	(void)timer;
	reactor_stop(t.reactor);
}

/* What the server has left behind in the reactor would run in memory that is gone. */
static inline void stopped(void *arg)
{
	(void)arg;
	t.after.fire = stop_reactor;
	reactor_timer_arm(t.reactor, &t.after, reactor_now_ns(t.reactor) + t.after_ms * NS_PER_MS);
}

static inline void stop(struct reactor_task *task)
{
	(void)task;
	nbd_stop(t.server, stopped, NULL);
}

static inline void start(void)
{
	const struct reactor_config rc = {.name = "nbd"};
	struct nbd_config config;
	struct error err;

	snprintf(t.dir, sizeof t.dir, "/tmp/test-nbd-XXXXXX");
	ck_assert_ptr_nonnull(mkdtemp(t.dir));
	snprintf(t.socket, sizeof t.socket, "unix:%s/s", t.dir);
	ck_assert_int_eq(reactor_create(&rc, &t.reactor), 0);
	t.volume = fake_volume_create(t.reactor, t.size != 0 ? t.size : VOLUME_SIZE);
	t.volume->read_only = t.read_only;
	memset(t.volume->allocated, 1, t.allocated_blocks);
	if (t.buffers_max != 0)
		t.volume->buffers_max = t.buffers_max;
	config = (struct nbd_config){
	    .reactor = t.reactor,
	    .export_name = "vol",
	    .address = t.address != NULL ? t.address : t.socket,
	};
	ck_assert_msg(nbd_listen(&config, &t.server, &err) == 0, "%s", err.text);
	nbd_serve(t.server, t.volume);
	ck_assert_int_eq(pthread_create(&t.thread, NULL, reactor_main, NULL), 0);
}

/* The server has been told to stop. It does with all connections gone and every buffer given back.
 */
static inline void finish_stopped(void)
{
	pthread_join(t.thread, NULL);
	fake_volume_destroy(t.volume);
	reactor_destroy(t.reactor);
	ck_assert_int_eq(access(t.socket + 5, F_OK), -1);
	rmdir(t.dir);
	memset(&t, 0, sizeof t);
}

static inline void begin_stop(void)
{
	t.stop.run = stop;
	reactor_post(t.reactor, &t.stop);
}

/* Every test ends here. */
static inline void finish(void)
{
	begin_stop();
	finish_stopped();
}

static inline struct nbd_handle *client(void)
{
	struct nbd_handle *h = nbd_create();

	ck_assert_ptr_nonnull(h);
	ck_assert_int_eq(nbd_add_meta_context(h, LIBNBD_CONTEXT_BASE_ALLOCATION), 0);
	ck_assert_int_eq(nbd_set_export_name(h, "vol"), 0);
	ck_assert_msg(nbd_connect_unix(h, t.socket + 5) == 0, "%s", nbd_get_error());
	/* The server's checks are what is tested, not the client's. */
	nbd_set_strict_mode(h, 0);
	return h;
}

static inline void fill(uint8_t *p, size_t size, unsigned seed)
{
	for (size_t i = 0; i < size; i++)
		p[i] = (uint8_t)(seed + i * 7 + (i >> 8));
}

/* -- raw sockets ----------------------------------------------------------------------------- */

static inline int raw_connect(void)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	const struct timeval limit = {.tv_sec = 20};
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);

	snprintf(addr.sun_path, sizeof addr.sun_path, "%.60s", t.socket + 5);
	ck_assert_int_eq(connect(fd, (struct sockaddr *)&addr, sizeof addr), 0);
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
	return fd;
}

static inline void must_recv(int fd, void *buf, size_t size)
{
	ck_assert_int_eq(recv(fd, buf, size, MSG_WAITALL), (ssize_t)size);
}

static inline void raw_greet(int fd)
{
	uint8_t greeting[18], flags[4] = {0, 0, 0, 3};

	must_recv(fd, greeting, sizeof greeting);
	ck_assert_uint_eq(get_be64(greeting), NBD_MAGIC_INIT);
	ck_assert_int_eq(send(fd, flags, 4, 0), 4);
}

static inline void raw_option(int fd, uint32_t option, const void *data, uint32_t size,
			      uint32_t claim)
{
	uint8_t head[16];
	uint8_t *p = put_be64(head, NBD_MAGIC_OPTION);

	p = put_be32(p, option);
	put_be32(p, claim);
	ck_assert_int_eq(send(fd, head, 16, MSG_NOSIGNAL), 16);
	if (size > 0)
		ck_assert_int_eq(send(fd, data, size, MSG_NOSIGNAL), (ssize_t)size);
}

static inline uint32_t raw_option_reply(int fd)
{
	uint8_t head[20];
	uint8_t data[8192];

	must_recv(fd, head, sizeof head);
	ck_assert_uint_eq(get_be64(head), NBD_MAGIC_OPT_REPLY);
	ck_assert_uint_lt(get_be32(head + 16), sizeof data);
	if (get_be32(head + 16) > 0)
		must_recv(fd, data, get_be32(head + 16));
	return get_be32(head + 12);
}

static inline void raw_must_end(int fd)
{
	char c;

	errno = 0;
	ck_assert_int_le(recv(fd, &c, 1, MSG_WAITALL), 0);
	ck_assert_int_ne(errno, EAGAIN);
	close(fd);
}

static inline int raw_transmission(void)
{
	uint8_t reply[10 + 124];
	int fd = raw_connect();

	raw_greet(fd);
	raw_option(fd, NBD_OPT_EXPORT_NAME, "vol", 3, 3);
	must_recv(fd, reply, 10);
	ck_assert_uint_eq(get_be64(reply), VOLUME_SIZE);
	return fd;
}

static inline void put_request(uint8_t head[28], uint16_t command, uint64_t offset, uint32_t length)
{
	uint8_t *p = put_be32(head, NBD_MAGIC_REQUEST);

	p = put_be16(p, 0);
	p = put_be16(p, command);
	p = put_be64(p, 0x1122334455667788ull);
	p = put_be64(p, offset);
	put_be32(p, length);
}

static inline void raw_request(int fd, uint16_t command, uint64_t offset, uint32_t length)
{
	uint8_t head[28];

	put_request(head, command, offset, length);
	ck_assert_int_eq(send(fd, head, 28, MSG_NOSIGNAL), 28);
}

static inline void wait_for_begun(uint32_t count)
{
	for (int i = 0; i < 10000 && atomic_load(&t.volume->ops_begun) < count; i++)
		usleep(1000);
	ck_assert_uint_eq(atomic_load(&t.volume->ops_begun), count);
}

#endif
