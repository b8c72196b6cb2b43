/* The NBD server over a volume in memory: libnbd as the honest client, raw sockets as the other
 * kind. */
#include <fcntl.h>
#include <signal.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "tests/unit/descriptors.h"
#include "tests/unit/nbd_world.h"

START_TEST(any_range_can_be_written_and_read)
{
	/* offset, size: aligned, inside of a block, across two, across many, over 1 MiB, up to the
	 * bound */
	static const uint32_t ranges[][2] = {
	    {0, 4096},
	    {4096, 8192},
	    {512, 512},
	    {1, 1},
	    {4095, 2},
	    {100, 9000},
	    {1u << 20, 1u << 20},
	    {(1u << 20) - 77, 3u << 20},
	    {333, 32u << 20},
	    {VOLUME_SIZE - 1, 1},
	};
	uint8_t *model = calloc(1, VOLUME_SIZE);
	uint8_t *buf = malloc(VOLUME_SIZE);
	struct nbd_handle *h;

	start();
	h = client();
	for (unsigned i = 0; i < ARRAY_SIZE(ranges); i++) {
		fill(buf, ranges[i][1], i + 3);
		memcpy(model + ranges[i][0], buf, ranges[i][1]);
		ck_assert_msg(nbd_pwrite(h, buf, ranges[i][1], ranges[i][0], 0) == 0, "%s",
			      nbd_get_error());
		memset(buf, 0, ranges[i][1]);
		ck_assert_msg(nbd_pread(h, buf, ranges[i][1], ranges[i][0], 0) == 0, "%s",
			      nbd_get_error());
		ck_assert_mem_eq(buf, model + ranges[i][0], ranges[i][1]);
	}
	for (uint32_t at = 0; at < VOLUME_SIZE; at += 16u << 20) {
		ck_assert_int_eq(nbd_pread(h, buf, 16u << 20, at, 0), 0);
		ck_assert_mem_eq(buf, model + at, 16u << 20);
	}
	nbd_shutdown(h, 0);
	nbd_close(h);
	finish();
	free(model);
	free(buf);
}
END_TEST

START_TEST(parts_of_one_block_from_many_clients_are_all_kept)
{
	struct nbd_handle *h[4];
	uint8_t sectors[4][2][512], block[4096];
	int64_t cookies[4][2];

	start();
	atomic_store(&t.volume->delay_reads, true);
	for (int i = 0; i < 4; i++)
		h[i] = client();
	/* Eight sectors of one block at once, two from each client: without the range lock they
	 * undo each other. */
	for (int i = 0; i < 4; i++)
		for (int k = 0; k < 2; k++) {
			memset(sectors[i][k], 1 + i * 2 + k, 512);
			cookies[i][k] =
			    nbd_aio_pwrite(h[i], sectors[i][k], 512, (uint64_t)(i * 2 + k) * 512,
					   NBD_NULL_COMPLETION, 0);
			ck_assert_int_ge(cookies[i][k], 0);
		}
	for (int i = 0; i < 4; i++)
		for (int k = 0; k < 2; k++)
			while (nbd_aio_command_completed(h[i], (uint64_t)cookies[i][k]) == 0)
				ck_assert_int_ge(nbd_poll(h[i], 10000), 0);
	ck_assert_int_eq(nbd_pread(h[0], block, sizeof block, 0, 0), 0);
	for (int i = 0; i < 8; i++)
		ck_assert_int_eq(block[i * 512], 1 + i);
	for (int i = 0; i < 4; i++)
		nbd_close(h[i]);
	finish();
}
END_TEST

/* Two writes at once. Either order of the two is right, a mixture that loses bytes outside of the
 * part is not. */
static void write_whole_and_part(bool part_first)
{
	struct nbd_handle *h = client();
	uint8_t part[512], whole[4096], got[4096];
	int64_t cookies[2];

	memset(part, 1, sizeof part);
	memset(whole, 2, sizeof whole);
	for (int i = 0; i < 2; i++)
		cookies[i] =
		    (i == 0) == part_first
			? nbd_aio_pwrite(h, part, sizeof part, 512, NBD_NULL_COMPLETION, 0)
			: nbd_aio_pwrite(h, whole, sizeof whole, 0, NBD_NULL_COMPLETION, 0);
	while (nbd_aio_command_completed(h, (uint64_t)cookies[0]) == 0 ||
	       nbd_aio_command_completed(h, (uint64_t)cookies[1]) == 0)
		if (nbd_aio_in_flight(h) > 0)
			ck_assert_int_ge(nbd_poll(h, 10000), 0);
		else
			break;
	atomic_store(&t.volume->delay_reads, false);
	atomic_store(&t.volume->early_reads, false);
	ck_assert_int_eq(nbd_pread(h, got, sizeof got, 0, 0), 0);
	ck_assert_int_eq(got[0], 2);
	ck_assert_int_eq(got[1024], 2);
	ck_assert(got[512] == 1 || got[512] == 2);
	nbd_close(h);
}

START_TEST(a_whole_block_is_not_undone_by_a_part_written_at_once)
{
	start();
	atomic_store(&t.volume->delay_reads, true);
	write_whole_and_part(true);
	finish();
}
END_TEST

START_TEST(a_part_written_after_a_whole_block_does_not_undo_it)
{
	start();
	atomic_store(&t.volume->early_reads, true);
	write_whole_and_part(false);
	finish();
}
END_TEST

START_TEST(zero_and_trim_keep_their_hands_off_the_neighbours)
{
	struct nbd_handle *h;
	uint8_t buf[5 * 4096];

	start();
	h = client();
	memset(buf, 9, sizeof buf);
	ck_assert_int_eq(nbd_pwrite(h, buf, sizeof buf, 0, 0), 0);
	ck_assert_int_eq(nbd_zero(h, 3 * 4096, 100, 0), 0);
	ck_assert_int_eq(nbd_pread(h, buf, sizeof buf, 0, 0), 0);
	ck_assert_int_eq(buf[99], 9);
	ck_assert_int_eq(buf[100], 0);
	ck_assert_int_eq(buf[3 * 4096 + 99], 0);
	ck_assert_int_eq(buf[3 * 4096 + 100], 9);
	memset(buf, 9, sizeof buf);
	ck_assert_int_eq(nbd_pwrite(h, buf, sizeof buf, 0, 0), 0);
	ck_assert_int_eq(nbd_trim(h, 3 * 4096, 100, 0), 0);
	ck_assert_int_eq(nbd_trim(h, 10, 100, 0), 0);
	ck_assert_int_eq(nbd_zero(h, 10, 4096 + 3, LIBNBD_CMD_FLAG_NO_HOLE), 0);
	ck_assert_int_eq(nbd_pread(h, buf, sizeof buf, 0, 0), 0);
	ck_assert_int_eq(buf[0], 9);
	ck_assert_int_eq(buf[4095], 9);
	ck_assert_int_eq(buf[4096 + 2], 0);
	ck_assert_int_eq(buf[4096 + 3], 0);
	ck_assert_int_eq(buf[4096 + 13], 0);
	ck_assert_int_eq(buf[3 * 4096], 9);
	ck_assert_int_eq(nbd_zero(h, VOLUME_SIZE, 0, 0), 0);
	ck_assert_int_eq(nbd_flush(h, 0), 0);
	nbd_close(h);
	finish();
}
END_TEST

struct extents {
	uint32_t n;
	uint32_t entries[64];
};

static int take_extents(void *opaque, const char *context, uint64_t offset, uint32_t *entries,
			size_t n, int *error)
{
	struct extents *e = opaque;

	(void)offset;
	(void)error;
	ck_assert_str_eq(context, LIBNBD_CONTEXT_BASE_ALLOCATION);
	ck_assert_uint_le(n, ARRAY_SIZE(e->entries));
	memcpy(e->entries, entries, n * sizeof *entries);
	e->n = (uint32_t)n;
	return 0;
}

START_TEST(block_status_tells_holes)
{
	struct extents e = {0};
	nbd_extent_callback callback = {.callback = take_extents, .user_data = &e};
	struct nbd_handle *h;
	uint8_t buf[8192] = {1};

	start();
	h = client();
	ck_assert_int_eq(nbd_can_meta_context(h, LIBNBD_CONTEXT_BASE_ALLOCATION), 1);
	ck_assert_int_eq(nbd_pwrite(h, buf, sizeof buf, 8192, 0), 0);
	ck_assert_int_eq(nbd_block_status(h, 65536, 0, callback, 0), 0);
	ck_assert_uint_eq(e.n, 6);
	ck_assert_uint_eq(e.entries[0], 8192);
	ck_assert_uint_eq(e.entries[1], NBD_STATE_HOLE | NBD_STATE_ZERO);
	ck_assert_uint_eq(e.entries[2], 8192);
	ck_assert_uint_eq(e.entries[3], 0);
	ck_assert_uint_eq(e.entries[4], 65536 - 16384);
	/* From the middle of a block, and only the first extent. */
	ck_assert_int_eq(nbd_block_status(h, 65536, 512, callback, LIBNBD_CMD_FLAG_REQ_ONE), 0);
	ck_assert_uint_eq(e.n, 2);
	ck_assert_uint_eq(e.entries[0], 8192 - 512);
	nbd_close(h);
	finish();
}
END_TEST

/* One descriptor tells of almost 4 GiB at most. What is cut off there must not be told as what
 * comes after it: from the middle of a block 4 GiB reach into two blocks more. */
START_TEST(block_status_does_not_tell_of_what_lies_beyond_what_it_cut_off)
{
	const uint64_t data_size = 1ull << 32;
	struct extents e = {0};
	nbd_extent_callback callback = {.callback = take_extents, .user_data = &e};
	struct nbd_handle *h;

	t.size = data_size + 2 * BLOCK_SIZE;
	t.allocated_blocks = data_size / BLOCK_SIZE;
	start();
	h = client();
	ck_assert_int_eq(nbd_block_status(h, UINT32_MAX, 100, callback, 0), 0);
	ck_assert_uint_eq(e.n, 2);
	ck_assert_uint_le(e.entries[0], data_size - 100);
	ck_assert_uint_eq(e.entries[1], 0);
	nbd_close(h);
	finish();
}
END_TEST

static struct reactor_task resize_task;
static atomic_uint_least64_t wanted_size; /* 0: it has it */

static void resize(struct reactor_task *task)
{
	(void)task;
	t.volume->size = atomic_load(&wanted_size);
	atomic_store(&wanted_size, 0);
}

/* Not to more than it began with. */
static void resize_to(uint64_t size)
{
	atomic_store(&wanted_size, size);
	resize_task.run = resize;
	reactor_post(t.reactor, &resize_task);
	while (atomic_load(&wanted_size) != 0)
		usleep(1000);
}

/* Whoever is connected goes on, and what there is more is no error any longer; whoever connects
 * then is told the new size. */
START_TEST(a_volume_that_grows_is_served_at_once)
{
	struct nbd_handle *h, *later;
	uint8_t buf[4096] = {7}, got[4096];

	start();
	resize_to(VOLUME_SIZE / 2);
	h = client();
	ck_assert_int_eq(nbd_get_size(h), VOLUME_SIZE / 2);
	ck_assert_int_eq(nbd_pwrite(h, buf, 4096, VOLUME_SIZE / 2, 0), -1);
	ck_assert_int_eq(nbd_get_errno(), ENOSPC);
	resize_to(VOLUME_SIZE);
	ck_assert_int_eq(nbd_pwrite(h, buf, 4096, VOLUME_SIZE / 2 - 4096, 0), 0);
	ck_assert_int_eq(nbd_get_size(h), VOLUME_SIZE / 2);
	later = client();
	ck_assert_int_eq(nbd_get_size(later), VOLUME_SIZE);
	ck_assert_int_eq(nbd_pwrite(later, buf, 4096, VOLUME_SIZE - 4096, 0), 0);
	ck_assert_int_eq(nbd_pread(h, got, 4096, VOLUME_SIZE - 4096, 0), 0);
	ck_assert_mem_eq(got, buf, 4096);
	nbd_close(h);
	nbd_close(later);
	finish();
}
END_TEST

START_TEST(bad_requests_get_errors_and_the_connection_goes_on)
{
	struct nbd_handle *h;
	uint8_t buf[4096] = {0};

	start();
	h = client();
	ck_assert_int_eq(nbd_pread(h, buf, 512, VOLUME_SIZE, 0), -1);
	ck_assert_int_eq(nbd_get_errno(), EINVAL);
	ck_assert_int_eq(nbd_pwrite(h, buf, 4096, VOLUME_SIZE - 512, 0), -1);
	ck_assert_int_eq(nbd_get_errno(), ENOSPC);
	ck_assert_int_eq(nbd_pwrite(h, buf, 512, UINT64_MAX - 100, 0), -1);
	ck_assert_int_eq(nbd_trim(h, 4096, VOLUME_SIZE, 0), -1);
	ck_assert_int_eq(nbd_flush(h, 0x8000), -1);
	ck_assert_int_eq(nbd_get_errno(), EINVAL);
	atomic_store(&t.volume->fail_writes, -ENOSPC);
	ck_assert_int_eq(nbd_pwrite(h, buf, 4096, 0, 0), -1);
	ck_assert_int_eq(nbd_get_errno(), ENOSPC);
	atomic_store(&t.volume->fail_writes, -E_FENCED);
	ck_assert_int_eq(nbd_pwrite(h, buf, 100, 5, 0), -1);
	ck_assert_int_eq(nbd_get_errno(), ESHUTDOWN);
	atomic_store(&t.volume->fail_writes, 0);
	ck_assert_int_eq(nbd_pwrite(h, buf, 4096, 0, LIBNBD_CMD_FLAG_FUA), 0);
	nbd_close(h);
	finish();
}
END_TEST

START_TEST(a_read_only_volume_says_so_and_refuses)
{
	struct nbd_handle *h;
	uint8_t buf[4096] = {0};

	t.read_only = true;
	start();
	h = client();
	ck_assert_int_eq(nbd_is_read_only(h), 1);
	ck_assert_int_eq(nbd_pwrite(h, buf, 4096, 0, 0), -1);
	ck_assert_int_eq(nbd_get_errno(), EPERM);
	ck_assert_int_eq(nbd_pread(h, buf, 4096, 0, 0), 0);
	nbd_close(h);
	finish();
}
END_TEST

/* -- a client that doesn't keep to the protocol
 * ---------------------------------------------------- */

START_TEST(a_malformed_negotiation_harms_nobody)
{
	static const uint8_t bad_go[6] = {0xff, 0xff, 0xff, 0xff, 0, 0};
	uint8_t big[20000] = {0};
	int fd;
	struct nbd_handle *h;

	start();
	fd = raw_connect();
	raw_greet(fd);
	raw_option(fd, 77, NULL, 0, 0);
	ck_assert_uint_eq(raw_option_reply(fd), NBD_REP_ERR_UNSUP);
	raw_option(fd, NBD_OPT_STARTTLS, NULL, 0, 0);
	ck_assert_uint_eq(raw_option_reply(fd), NBD_REP_ERR_UNSUP);
	raw_option(fd, NBD_OPT_GO, bad_go, sizeof bad_go, sizeof bad_go);
	ck_assert_uint_eq(raw_option_reply(fd), NBD_REP_ERR_INVALID);
	raw_option(fd, NBD_OPT_LIST, big, sizeof big, sizeof big);
	ck_assert_uint_eq(raw_option_reply(fd), NBD_REP_ERR_TOO_BIG);
	raw_option(fd, NBD_OPT_SET_META_CONTEXT, big, 8, 8);
	ck_assert_uint_eq(raw_option_reply(fd), NBD_REP_ERR_INVALID);
	raw_option(fd, NBD_OPT_GO, "\0\0\0\3abc\0\0", 9, 9);
	ck_assert_uint_eq(raw_option_reply(fd), NBD_REP_ERR_UNKNOWN);
	raw_option(fd, NBD_OPT_LIST, NULL, 0, 0);
	ck_assert_uint_eq(raw_option_reply(fd), NBD_REP_SERVER);
	ck_assert_uint_eq(raw_option_reply(fd), NBD_REP_ACK);
	send(fd, "garbage that is no option", 25, 0);
	raw_must_end(fd);
	fd = raw_connect();
	raw_greet(fd);
	raw_option(fd, NBD_OPT_ABORT, NULL, 0, 0);
	ck_assert_uint_eq(raw_option_reply(fd), NBD_REP_ACK);
	raw_must_end(fd);
	/* Half a header, and gone. */
	fd = raw_connect();
	raw_greet(fd);
	send(fd, "IHAVEO", 6, 0);
	close(fd);
	h = client();
	ck_assert_uint_eq((uint64_t)nbd_get_size(h), VOLUME_SIZE);
	nbd_close(h);
	finish();
}
END_TEST

/* Only structured replies could be fragmented. */
START_TEST(that_replies_are_whole_is_told_with_structured_replies_alone)
{
	struct nbd_handle *h;
	uint8_t reply[10];
	int fd;

	start();
	fd = raw_connect();
	raw_greet(fd);
	raw_option(fd, NBD_OPT_EXPORT_NAME, "vol", 3, 3);
	must_recv(fd, reply, sizeof reply);
	ck_assert_uint_eq(get_be16(reply + 8) & (NBD_EXPORT_DF | NBD_EXPORT_FUA), NBD_EXPORT_FUA);
	close(fd);
	h = client();
	ck_assert_int_eq(nbd_can_df(h), 1);
	nbd_close(h);
	finish();
}
END_TEST

START_TEST(requests_outside_of_the_protocol_harm_nobody)
{
	uint8_t reply[16], payload[4096] = {0};
	uint32_t sent;
	int fd;

	start();
	/* Oversized write: the payload is thrown away, the answer is an error, and the stream stays
	 * in step. */
	fd = raw_transmission();
	raw_request(fd, NBD_CMD_WRITE, 0, NBD_DATA_MAX + 4096);
	for (sent = 0; sent < NBD_DATA_MAX + 4096; sent += sizeof payload)
		ck_assert_int_eq(send(fd, payload, sizeof payload, MSG_NOSIGNAL), sizeof payload);
	must_recv(fd, reply, 16);
	ck_assert_uint_eq(get_be32(reply + 4), NBD_EINVAL);
	raw_request(fd, 99, 0, 4096);
	must_recv(fd, reply, 16);
	ck_assert_uint_eq(get_be32(reply + 4), NBD_EINVAL);
	raw_request(fd, NBD_CMD_READ, 0, 0xffffffffu);
	must_recv(fd, reply, 16);
	ck_assert_uint_eq(get_be32(reply + 4), NBD_EOVERFLOW);
	raw_request(fd, NBD_CMD_FLUSH, 0, 0);
	must_recv(fd, reply, 16);
	ck_assert_uint_eq(get_be32(reply + 4), 0);
	ck_assert_uint_eq(get_be64(reply + 8), 0x1122334455667788ull);
	/* A payload that breaks off must not be written. */
	raw_request(fd, NBD_CMD_WRITE, 0, 1u << 20);
	memset(payload, 7, sizeof payload);
	send(fd, payload, sizeof payload, MSG_NOSIGNAL);
	close(fd);
	fd = raw_transmission();
	send(fd, "0123456789012345678901234567", 28, 0);
	raw_must_end(fd);
	fd = raw_transmission();
	raw_request(fd, NBD_CMD_READ, 0, 4096);
	must_recv(fd, reply, 16);
	must_recv(fd, payload, sizeof payload);
	ck_assert_int_eq(payload[0], 0);
	/* Gone with an answer on the way. */
	raw_request(fd, NBD_CMD_READ, 0, 32u << 20);
	close(fd);
	finish();
}
END_TEST

static void accept_without_descriptors(bool stop_meanwhile)
{
	const struct rlimit before = leave_one_descriptor();
	const int fd = raw_connect();

	must_rest(t.thread);
	if (!stop_meanwhile) {
		ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &before), 0);
		raw_greet(fd);
	}
	close(fd);
	finish();
}

START_TEST(without_descriptors_it_waits_for_some)
{
	start();
	accept_without_descriptors(false);
}
END_TEST

START_TEST(it_stops_while_it_waits_for_descriptors)
{
	t.after_ms = 300;
	start();
	accept_without_descriptors(true);
}
END_TEST

/* Connecting to it is refused as it is to the socket of a dead server. */
START_TEST(a_file_that_is_no_socket_is_left_alone)
{
	struct nbd_config config = {.export_name = "vol"};
	struct nbd_server *server = NULL;
	struct error err;
	char address[] = "unix:/tmp/test-nbd-file-XXXXXX";
	char *path = address + 5;
	int fd = mkstemp(path);

	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(write(fd, "mine", 4), 4);
	close(fd);
	config.address = address;
	ck_assert_int_eq(nbd_listen(&config, &server, &err), -EADDRINUSE);
	ck_assert_ptr_nonnull(strstr(err.text, path));
	ck_assert_ptr_null(server);
	ck_assert_int_eq(access(path, F_OK), 0);
	unlink(path);
}
END_TEST

START_TEST(a_second_server_on_a_live_socket_is_refused)
{
	struct nbd_config config;
	struct nbd_server *second = NULL;
	struct error err;

	start();
	config =
	    (struct nbd_config){.reactor = t.reactor, .export_name = "vol", .address = t.socket};
	ck_assert_int_eq(nbd_listen(&config, &second, &err), -EADDRINUSE);
	ck_assert_ptr_nonnull(strstr(err.text, t.socket + 5));
	config.address = "192.0.2.1:10809";
	ck_assert_int_eq(nbd_listen(&config, &second, &err), -EACCES);
	config.address = "nonsense";
	ck_assert_int_eq(nbd_listen(&config, &second, &err), -EINVAL);
	ck_assert_ptr_null(second);
	finish();
}
END_TEST

/* It has more clients than it has taken yet: one that asks whether it answers must not queue up. */
START_TEST(a_server_that_is_behind_with_its_clients_is_there)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX, .sun_path = "/tmp/test-nbd-busy-XXXXXX"};
	const int busy = socket(AF_UNIX, SOCK_STREAM, 0);
	struct nbd_config config = {.export_name = "vol"};
	struct nbd_server *server = NULL;
	char address[sizeof addr.sun_path + 8];
	struct error err;
	int clients[8], count = 0;

	close(mkstemp(addr.sun_path));
	unlink(addr.sun_path);
	ck_assert_int_eq(bind(busy, (struct sockaddr *)&addr, sizeof addr), 0);
	ck_assert_int_eq(listen(busy, 0), 0);
	do
		clients[count] = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0);
	while (connect(clients[count++], (struct sockaddr *)&addr, sizeof addr) == 0 && count < 8);
	ck_assert_int_eq(errno, EAGAIN);
	snprintf(address, sizeof address, "unix:%s", addr.sun_path);
	config.address = address;
	ck_assert_int_eq(nbd_listen(&config, &server, &err), -EADDRINUSE);
	ck_assert_ptr_null(server);
	ck_assert_int_eq(unlink(addr.sun_path), 0);
	while (count > 0)
		close(clients[--count]);
	close(busy);
}
END_TEST

/* In front of the C library's: whether the socket was alive when its name was removed. */
static _Atomic int unlinked_alive;

int unlink(const char *path)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0);

	snprintf(addr.sun_path, sizeof addr.sun_path, "%s", path);
	if (connect(fd, (struct sockaddr *)&addr, sizeof addr) == 0)
		atomic_fetch_add(&unlinked_alive, 1);
	close(fd);
	return (int)syscall(SYS_unlinkat, AT_FDCWD, path, 0);
}

/* Once nobody answers, another server may put its own socket there: that is not ours to remove. */
START_TEST(the_name_goes_before_the_socket)
{
	start();
	finish();
	ck_assert_int_eq(atomic_load(&unlinked_alive), 1);
}
END_TEST

/* The other process of the next test, with none of Check's assertions: it serves, and says so. Its
 * memory is what the kernel needs time to let go of. */
static int child_main(const char *address)
{
	const struct reactor_config rc = {.name = "child"};
	struct nbd_config config = {.export_name = "vol", .address = address};
	struct error err;

	if (reactor_create(&rc, &config.reactor) != 0 || nbd_listen(&config, &t.server, &err) != 0)
		return 1;
	nbd_serve(t.server, fake_volume_create(config.reactor, VOLUME_SIZE));
	if (reactor_memory(config.reactor, 64u << 20) == NULL || write(STDOUT_FILENO, "r", 1) != 1)
		return 1;
	return reactor_run(config.reactor);
}

/* Its ring answers after it is gone. */
START_TEST(a_killed_server_is_replaced)
{
	char dir[] = "/tmp/test-nbd-killed-XXXXXX", address[64], ready;
	const struct reactor_config rc = {.name = "nbd"};
	struct nbd_config config = {.export_name = "vol", .address = address};
	struct error err;
	int fds[2];
	pid_t child;

	ck_assert_ptr_nonnull(mkdtemp(dir));
	snprintf(address, sizeof address, "unix:%s/s", dir);
	ck_assert_int_eq(pipe2(fds, O_CLOEXEC), 0);
	child = fork();
	if (child == 0) {
		dup2(fds[1], STDOUT_FILENO);
		execl("/proc/self/exe", "test_nbd", address, NULL);
		_exit(1);
	}
	close(fds[1]);
	ck_assert_int_eq(read(fds[0], &ready, 1), 1);
	usleep(20000); /* so that it sleeps in its ring, most probably */
	kill(child, SIGKILL);
	ck_assert_int_eq(waitpid(child, NULL, 0), child);
	ck_assert_int_eq(reactor_create(&rc, &t.reactor), 0);
	config.reactor = t.reactor;
	ck_assert_msg(nbd_listen(&config, &t.server, &err) == 0, "%s", err.text);
	close(fds[0]);
	unlink(address + 5);
	rmdir(dir);
}
END_TEST

int main(int argc, char **argv)
{
	TCase *tc = tcase_create("nbd");
	Suite *s = suite_create("nbd");
	SRunner *sr = srunner_create(s);
	int failed;

	if (argc > 1)
		return child_main(argv[1]);
	tcase_set_timeout(tc, 60);
	tcase_add_test(tc, any_range_can_be_written_and_read);
	tcase_add_test(tc, parts_of_one_block_from_many_clients_are_all_kept);
	tcase_add_test(tc, a_whole_block_is_not_undone_by_a_part_written_at_once);
	tcase_add_test(tc, a_part_written_after_a_whole_block_does_not_undo_it);
	tcase_add_test(tc, zero_and_trim_keep_their_hands_off_the_neighbours);
	tcase_add_test(tc, block_status_tells_holes);
	tcase_add_test(tc, block_status_does_not_tell_of_what_lies_beyond_what_it_cut_off);
	tcase_add_test(tc, a_volume_that_grows_is_served_at_once);
	tcase_add_test(tc, bad_requests_get_errors_and_the_connection_goes_on);
	tcase_add_test(tc, a_read_only_volume_says_so_and_refuses);
	tcase_add_test(tc, a_malformed_negotiation_harms_nobody);
	tcase_add_test(tc, that_replies_are_whole_is_told_with_structured_replies_alone);
	tcase_add_test(tc, requests_outside_of_the_protocol_harm_nobody);
	tcase_add_test(tc, without_descriptors_it_waits_for_some);
	tcase_add_test(tc, it_stops_while_it_waits_for_descriptors);
	tcase_add_test(tc, a_file_that_is_no_socket_is_left_alone);
	tcase_add_test(tc, a_second_server_on_a_live_socket_is_refused);
	tcase_add_test(tc, a_server_that_is_behind_with_its_clients_is_there);
	tcase_add_test(tc, the_name_goes_before_the_socket);
	tcase_add_loop_test(tc, a_killed_server_is_replaced, 0, 10);
	suite_add_tcase(s, tc);
	srunner_run_all(sr, CK_NORMAL);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed == 0 ? 0 : 1;
}
