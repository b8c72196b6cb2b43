/* A real pave-node, and a test that speaks frames straight to it: what a host has no right to is
 * refused by the node itself, with its code, and nothing of it is stored. The placement driver is
 * the test's own, so that evidence can be made to run out, be revoked, forged or contradict itself.
 *
 * Each test has a node of its own, on a device file under a new directory, on loopback. */
#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "engine/base/text.h"
#include "tests/unit/test_node_peers.h"
#include "tools/common/transports.h"

#define VOLUME	   11u
#define CHUNK_SIZE CHUNK_SIZE_DEFAULT
#define TIMEOUT_NS (30 * NS_PER_S)
#define DEVICE	   "400MiB"

static struct reactor *reactor;
static struct transports transports; /* the hosts' as PAVE_TEST_TRANSPORT says, the driver's TCP */
static struct demo demo;
static char *revocations, *site_certificate;
static struct peer_pd pd;
static char dir[64];
static pid_t node_pid;
static int node_err = -1; /* its stderr, when it is expected to fail */
static char node_address[ADDR_SIZE_MAX];
static struct peer_host host, other;
static struct peers_wait wait_real;
static uint8_t *data, *back;

static bool until(void *arg, const bool *flag)
{
	(void)arg;
	reactor_refresh(reactor);
	return reactor_run_until(reactor, flag, reactor_now_ns(reactor) + TIMEOUT_NS) == 0;
}

/* Time that must pass for evidence to run out. */
static void let_pass_ms(uint64_t ms)
{
	const bool never = false;

	reactor_refresh(reactor);
	ck_assert_int_eq(
	    reactor_run_until(reactor, &never, reactor_now_ns(reactor) + ms * NS_PER_MS),
	    -ETIMEDOUT);
}

static const char *in_dir(const char *name)
{
	static char path[4][128];
	static unsigned next;
	char *p = path[next++ % 4];

	snprintf(p, sizeof(path[0]), "%s/%s", dir, name);
	return p;
}

/* -- the process ------------------------------------------------------------------------------ */

static const char *program(void)
{
	static char path[4096];
	const char *build = getenv("PAVE_BUILD");

	ck_assert_msg(build != NULL, "PAVE_BUILD must name the build directory");
	snprintf(path, sizeof(path), "%s/tools/pave-node", build);
	return path;
}

/* Runs it with these arguments; its stdout is readable at *ret_out, its stderr at *ret_err if that
 * is not NULL. */
static pid_t spawn(char *const argv[], int *ret_out, int *ret_err)
{
	int out[2], err[2];
	pid_t pid;

	ck_assert_int_eq(pipe2(out, O_CLOEXEC), 0);
	ck_assert_int_eq(pipe2(err, O_CLOEXEC), 0);
	pid = fork();
	ck_assert_int_ge(pid, 0);
	if (pid == 0) {
		dup2(out[1], STDOUT_FILENO);
		if (ret_err != NULL)
			dup2(err[1], STDERR_FILENO);
		execv(program(), argv);
		_exit(127);
	}
	close(out[1]);
	close(err[1]);
	*ret_out = out[0];
	if (ret_err != NULL)
		*ret_err = err[0];
	else
		close(err[0]);
	return pid;
}

/* One line, or what there is at the end of the file. */
static void read_line(int fd, char *line, size_t size)
{
	size_t have = 0;

	while (have + 1 < size) {
		struct pollfd p = {.fd = fd, .events = POLLIN};

		ck_assert_int_eq(poll(&p, 1, 60000), 1);
		if (read(fd, line + have, 1) != 1 || line[have] == '\n')
			break;
		have++;
	}
	line[have] = '\0';
}

static int exit_code(pid_t pid)
{
	int status;

	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

static pid_t spawn_node(const char *name, const char *state, int *ret_out, int *ret_err)
{
	char *const argv[] = {"pave-node",
			      "--name",
			      (char *)(uintptr_t)name,
			      "--site",
			      "par",
			      "--pd",
			      pd.listener->address,
			      "--root",
			      (char *)(uintptr_t)in_dir("root"),
			      "--dir",
			      (char *)(uintptr_t)in_dir(state),
			      "--device",
			      (char *)(uintptr_t)in_dir("device"),
			      "--device-size",
			      DEVICE,
			      "--log-level",
			      "warn",
			      NULL};

	return spawn(argv, ret_out, ret_err);
}

static void start_node(void)
{
	char line[256];
	int out;

	node_pid = spawn_node("n1", "state", &out, NULL);
	read_line(out, line, sizeof(line));
	close(out);
	ck_assert_msg(strncmp(line, "ready ", 6) == 0, "%s", line);
	ck_assert_uint_lt(strlen(line + 6), sizeof(node_address));
	memcpy(node_address, line + 6, strlen(line + 6) + 1);
}

static void end_node(int signal_number, int expected)
{
	kill(node_pid, signal_number);
	ck_assert_int_eq(exit_code(node_pid), expected);
	node_pid = 0;
}

static void choose_transports(void)
{
	const char *wanted = getenv("PAVE_TEST_TRANSPORT");
	struct transports_options options = {.choice = TRANSPORTS_TCP};
	struct error err = {0};

	if (wanted != NULL)
		ck_assert_int_eq(
		    transports_option(&options, "node_refuses", TRANSPORTS_OPTION, wanted), 0);
	ck_assert_msg(transports_open(&options, reactor, false, "", &transports, &err) == 0, "%s",
		      err.text);
}

/* -- evidence --------------------------------------------------------------------------------- */

static int64_t wall(void)
{
	return reactor_wall_ns(reactor);
}

static char *make_revocations(uint64_t version, uint64_t site_version, int64_t withdrawn_from)
{
	const struct demo_entry entry = {"par", site_version, withdrawn_from};
	char *envelope = NULL;
	struct error err;

	ck_assert_int_eq(demo_revocations(&demo, version, wall() - (int64_t)NS_PER_S,
					  wall() + 3600 * (int64_t)NS_PER_S, &entry, 1, &envelope,
					  &err),
			 0);
	return envelope;
}

static struct peer_permit permit(generation_t generation, uint64_t serial)
{
	return (struct peer_permit){
	    .demo = &demo,
	    .volume = VOLUME,
	    .generation = generation,
	    .serial = serial,
	    .map_version = 1,
	    .nodes = {"n1", "n2"},
	    .sites = {"par", "lyo"},
	    .site_version = 1,
	    .issued_at = wall(),
	    .lifetime_ms = 20000,
	};
}

static int try_open(struct peer_host *h, const struct peer_permit *p)
{
	Pave__V1__Signed *s = peer_permit_make(p);
	const int rc = peer_host_open(h, s, CHUNK_SIZE);

	peer_permit_free(s);
	return rc;
}

static int update(struct peer_host *h, const struct peer_permit *p)
{
	Pave__V1__Signed *s = peer_permit_make(p);
	const int rc = peer_host_update(h, s);

	peer_permit_free(s);
	return rc;
}

static void greet(struct peer_host *h)
{
	peer_host_close(h);
	peer_host_init(h, reactor, transports_use(&transports), wait_real, &demo);
	reactor_refresh(reactor); /* deadlines begin now, however long the node took to start */
	ck_assert_int_eq(peer_host_connect(h, node_address), 0);
	ck_assert_int_eq(peer_host_hello(h, "host", "host"), 0);
}

/* Opens as soon as the node has its lease. */
static void open_volume(struct peer_host *h, generation_t generation, uint64_t serial)
{
	struct peer_permit p;
	int rc = -E_NO_LEASE;

	greet(h);
	for (unsigned i = 0; i < 200 && (rc == -E_NO_LEASE || rc == -E_LEASE_EXPIRED); i++) {
		p = permit(generation, serial);
		rc = try_open(h, &p);
		if (rc != 0)
			let_pass_ms(50);
	}
	ck_assert_msg(rc == 0, "%s", h->call_text);
}

static version_t v(generation_t generation, uint64_t seq)
{
	return version_make(generation, seq);
}

/* -- what is refused -------------------------------------------------------------------------- */

/* Small and large writes and zeroes are refused with this code. */
static void expect_refused(struct peer_host *h, generation_t generation, int code)
{
	ck_assert_int_eq(peer_host_write(h, 9, 0, 1, v(generation, 900), data), code);
	ck_assert_int_eq(peer_host_write(h, 9, 16, 4, v(generation, 901), data), code);
	ck_assert_int_eq(peer_host_write(h, 9, 64, 256, v(generation, 902), data), code);
	ck_assert_int_eq(peer_host_zero(h, 9, 0, 256, v(generation, 903), false), code);
	ck_assert_int_eq(peer_host_zero(h, 9, 0, 1, v(generation, 904), true), code);
}

/* Seen by a session that has the right to look: of all that was refused, nothing is there. */
static void expect_nothing_stored(struct peer_host *h)
{
	Pave__V1__Chunks ask = PAVE__V1__CHUNKS__INIT;
	Pave__V1__Control message = PAVE__V1__CONTROL__INIT;

	message.body_case = PAVE__V1__CONTROL__BODY_CHUNKS;
	message.chunks = &ask;
	ck_assert_int_eq(peer_host_ask(h, &message), 0);
	for (size_t i = 0; i < h->call_reply->chunks_reply->n_chunks; i++)
		ck_assert_uint_ne(h->call_reply->chunks_reply->chunks[i]->chunk, 9);
}

static void setup(void)
{
	const struct reactor_config config = {.name = "test"};
	const int64_t day = 86400 * (int64_t)NS_PER_S;
	struct error err;
	char *root;
	FILE *f;

	snprintf(dir, sizeof(dir), "/tmp/node-refuses-XXXXXX");
	ck_assert_ptr_nonnull(mkdtemp(dir));
	wait_real.until = until;
	ck_assert_int_eq(reactor_create(&config, &reactor), 0);
	choose_transports();
	ck_assert_int_eq(demo_init(&demo, NULL, &err), 0);
	ck_assert_int_eq(demo_root(&demo, 1, wall() - day, wall() + day, &root, &err), 0);
	f = fopen(in_dir("root"), "w");
	ck_assert_ptr_nonnull(f);
	fputs(root, f);
	fclose(f);
	free(root);
	ck_assert_int_eq(
	    demo_site(&demo, "par", 1, wall() - day, wall() + day, &site_certificate, &err), 0);
	revocations = make_revocations(1, 1, 0);
	peer_pd_start(&pd, reactor, transports.tcp, "127.0.0.1:0", &demo);
	pd.revocations = revocations;
	pd.site = site_certificate;
	data = aligned_alloc(BLOCK_SIZE, IO_SIZE_MAX);
	back = aligned_alloc(BLOCK_SIZE, IO_SIZE_MAX);
	peer_fill(data, IO_BLOCKS_MAX, 1);
	start_node();
}

static void teardown(void)
{
	char command[128];

	if (node_pid > 0)
		end_node(SIGTERM, 0);
	peer_host_close(&host);
	peer_host_close(&other);
	peer_pd_stop(&pd);
	let_pass_ms(10);
	transports_close(&transports, reactor);
	reactor_destroy(reactor);
	demo_deinit(&demo);
	free(revocations);
	free(site_certificate);
	free(data);
	free(back);
	snprintf(command, sizeof(command), "rm -rf %s", dir);
	ck_assert_int_eq(system(command), 0);
}

START_TEST(test_serves)
{
	open_volume(&host, 1, 1);
	ck_assert_int_eq(peer_host_write(&host, 1, 5, 1, v(1, 1), data), 0);
	ck_assert_int_eq(peer_host_write(&host, 1, 100, 256, v(1, 2), data), 0);
	ck_assert_int_eq(peer_host_read(&host, 1, 100, 256, back), 0);
	ck_assert_mem_eq(back, data, IO_SIZE_MAX);
	/* All of it survives SIGKILL; and so does a clean end. */
	end_node(SIGKILL, 128 + SIGKILL);
	start_node();
	open_volume(&host, 1, 2);
	ck_assert_int_eq(peer_host_read(&host, 1, 100, 256, back), 0);
	ck_assert_mem_eq(back, data, IO_SIZE_MAX);
	end_node(SIGTERM, 0);
	start_node();
	open_volume(&host, 1, 3);
	ck_assert_int_eq(peer_host_read(&host, 1, 5, 1, back), 0);
	ck_assert_mem_eq(back, data, BLOCK_SIZE);
}
END_TEST

START_TEST(test_permit_expired)
{
	struct peer_permit p;

	open_volume(&host, 1, 1);
	ck_assert_int_eq(peer_host_write(&host, 1, 0, 1, v(1, 1), data), 0);
	p = permit(1, 2);
	p.lifetime_ms = 1000;
	ck_assert_int_eq(update(&host, &p), 0);
	let_pass_ms(1000);
	expect_refused(&host, 1, -E_PERMIT_EXPIRED);
	ck_assert_int_eq(peer_host_read(&host, 1, 0, 1, back), -E_PERMIT_EXPIRED);
	p = permit(1, 3);
	p.issued_at -= 60 * (int64_t)NS_PER_S;
	ck_assert_int_eq(update(&host, &p), -E_PERMIT_EXPIRED);
	p = permit(1, 3);
	ck_assert_int_eq(update(&host, &p), 0);
	expect_nothing_stored(&host);
	ck_assert_int_eq(peer_host_write(&host, 1, 0, 1, v(1, 2), data), 0);
}
END_TEST

START_TEST(test_lease_expired)
{
	struct peer_permit p;

	pd.lifetime_ms = 3000;
	end_node(SIGTERM, 0);
	start_node();
	open_volume(&host, 1, 1);
	pd.silent = true;
	ck_assert(until(NULL, &host.gate_closed));
	ck_assert_int_eq(host.gate_closed_why, -E_LEASE_EXPIRED);
	p = permit(1, 2);
	ck_assert_int_eq(update(&host, &p), -E_LEASE_EXPIRED);
	expect_refused(&host, 1, -E_LEASE_EXPIRED);
	greet(&other);
	ck_assert_int_eq(try_open(&other, &p), -E_LEASE_EXPIRED);
	pd.silent = false;
	open_volume(&other, 1, 3);
	expect_nothing_stored(&other);
}
END_TEST

START_TEST(test_no_lease)
{
	struct peer_permit p;

	pd.refuse = E_DENIED;
	end_node(SIGTERM, 0);
	start_node();
	greet(&host);
	p = permit(1, 1);
	pd.flag = false;
	ck_assert(until(NULL, &pd.flag));
	let_pass_ms(100);
	ck_assert_int_eq(try_open(&host, &p), -E_DENIED);
	expect_refused(&host, 1, -E_NO_PERMIT);
}
END_TEST

START_TEST(test_certificate_revoked)
{
	char *next = make_revocations(2, 1, wall() - (int64_t)NS_PER_S);
	struct peer_permit p;

	open_volume(&host, 1, 1);
	ck_assert_int_eq(peer_host_write(&host, 1, 0, 1, v(1, 1), data), 0);
	/* The driver goes on granting leases; the node goes by the authority's word. */
	peer_pd_notice(&pd, next);
	ck_assert(until(NULL, &host.gate_closed));
	ck_assert_int_eq(host.gate_closed_why, -E_REVOKED);
	expect_refused(&host, 1, -E_REVOKED);
	p = permit(1, 2);
	ck_assert_int_eq(update(&host, &p), -E_REVOKED);
	ck_assert_int_eq(peer_host_read(&host, 1, 0, 1, back), -E_REVOKED);
	/* The older snapshot, that says otherwise, is of no use; nor is a restart. */
	pd.flag = false;
	ck_assert(until(NULL, &pd.flag));
	expect_refused(&host, 1, -E_REVOKED);
	end_node(SIGKILL, 128 + SIGKILL);
	start_node();
	greet(&host);
	pd.flag = false;
	ck_assert(until(NULL, &pd.flag));
	let_pass_ms(100);
	p = permit(1, 3);
	ck_assert_int_ne(try_open(&host, &p), 0);
	expect_refused(&host, 1, -E_NO_PERMIT);
	free(next);
}
END_TEST

START_TEST(test_certificate_expired)
{
	struct error err;

	free(site_certificate);
	ck_assert_int_eq(demo_site(&demo, "par", 2, wall() - 10 * (int64_t)NS_PER_S,
				   wall() + 4 * (int64_t)NS_PER_S, &site_certificate, &err),
			 0);
	free(revocations);
	revocations = make_revocations(2, 2, 0);
	pd.site = site_certificate;
	pd.revocations = revocations;
	pd.site_version = 2;
	pd.revocations_version = 2;
	end_node(SIGTERM, 0);
	start_node();
	greet(&host);
	for (int rc = -E_NO_LEASE; rc == -E_NO_LEASE;) {
		struct peer_permit p = permit(1, 1);

		p.site_version = 2;
		rc = try_open(&host, &p);
		ck_assert(rc == 0 || rc == -E_NO_LEASE);
	}
	ck_assert(until(NULL, &host.gate_closed));
	expect_refused(&host, 1, host.gate_closed_why);
	ck_assert_int_eq(host.gate_closed_why, -E_STALE_EVIDENCE);
}
END_TEST

START_TEST(test_not_in_permit)
{
	struct peer_permit p;

	open_volume(&host, 1, 1);
	p = permit(1, 2);
	p.nodes[0] = "n7";
	ck_assert_int_eq(update(&host, &p), -E_NOT_IN_PERMIT);
	expect_refused(&host, 1, -E_NOT_IN_PERMIT);
	greet(&other);
	p = permit(2, 1);
	p.nodes[0] = "n2";
	p.sites[0] = "lyo";
	p.nodes[1] = NULL;
	ck_assert_int_eq(try_open(&other, &p), -E_NOT_IN_PERMIT);
	p = permit(2, 1);
	p.sites[0] = "lyo";
	ck_assert_int_eq(try_open(&other, &p), -E_NOT_IN_PERMIT);
	p = permit(2, 1);
	p.site_version = 3;
	ck_assert_int_eq(try_open(&other, &p), -E_STALE_EVIDENCE);
	expect_refused(&other, 2, -E_NO_PERMIT);
	p = permit(1, 3);
	ck_assert_int_eq(update(&host, &p), 0);
	expect_nothing_stored(&host);
}
END_TEST

START_TEST(test_forged)
{
	struct peer_permit p;
	struct demo stranger;
	struct error err;

	ck_assert_int_eq(demo_init(&stranger, NULL, &err), 0);
	open_volume(&other, 1, 1);
	greet(&host);
	p = permit(2, 1);
	p.key = demo_key(&stranger, DEMO_PLACEMENT);
	ck_assert_int_eq(try_open(&host, &p), -E_BAD_SIGNATURE);
	p.key = demo_key(&demo, DEMO_TENANT);
	ck_assert_int_eq(try_open(&host, &p), -E_BAD_SIGNATURE);
	p.demo = &stranger;
	p.key = demo_key(&demo, DEMO_PLACEMENT);
	ck_assert_int_eq(try_open(&host, &p), -E_WRONG_CLUSTER);
	expect_refused(&host, 2, -E_NO_PERMIT);
	p = permit(1, 2);
	p.key = demo_key(&stranger, DEMO_PLACEMENT);
	ck_assert_int_eq(update(&other, &p), -E_BAD_SIGNATURE);
	ck_assert_int_eq(peer_host_write(&other, 1, 0, 1, v(1, 1), data), 0);
	expect_nothing_stored(&other);
	demo_deinit(&stranger);
}
END_TEST

START_TEST(test_older_generation)
{
	struct peer_permit p;

	open_volume(&host, 1, 1);
	open_volume(&other, 2, 1);
	expect_refused(&host, 1, -E_FENCED);
	greet(&host);
	p = permit(1, 5);
	ck_assert_int_eq(try_open(&host, &p), -E_FENCED);
	ck_assert_int_eq(peer_host_write(&other, 9, 0, 1, v(1, 5), data), -E_FENCED);
	expect_nothing_stored(&other);
	end_node(SIGKILL, 128 + SIGKILL);
	start_node();
	open_volume(&other, 2, 2);
	greet(&host);
	ck_assert_int_eq(try_open(&host, &p), -E_FENCED);
}
END_TEST

START_TEST(test_bad_requests)
{
	const uint32_t blocks = CHUNK_SIZE / BLOCK_SIZE;
	struct peer_request *q;
	struct peer_permit p;

	open_volume(&host, 1, 1);
	for (uint32_t count = 1; count <= 256; count *= 16) {
		const struct frame f = {
		    .op = FRAME_WRITE, .chunk = 9, .block_count = count, .version = v(1, 1)};

		q = peer_host_send(&host, f, data, true);
		ck_assert(peer_host_wait(&host, q));
		ck_assert_int_eq(q->status, -E_BAD_CRC);
		peer_request_free(q);
	}
	ck_assert_int_eq(peer_host_write(&host, 9, blocks, 1, v(1, 1), data), -EINVAL);
	ck_assert_int_eq(peer_host_write(&host, 9, blocks - 1, 2, v(1, 1), data), -EINVAL);
	ck_assert_int_eq(peer_host_write(&host, 9, 0, 1, v(2, 1), data), -EINVAL);
	expect_nothing_stored(&host);
	greet(&other);
	p = permit(1, 2);
	other.read_only = true;
	ck_assert_int_eq(try_open(&other, &p), 0);
	expect_refused(&other, 1, -EROFS);
	ck_assert_int_eq(peer_host_read(&other, 9, 0, 1, back), 0);
	expect_nothing_stored(&other);
}
END_TEST

/* -- the process itself ----------------------------------------------------------------------- */

static void expect_fails(char *const argv[], int code, const char *text)
{
	char line[1200];
	int out, err;
	pid_t pid = spawn(argv, &out, &err);

	read_line(err, line, sizeof(line));
	ck_assert_int_eq(exit_code(pid), code);
	ck_assert_msg(strstr(line, text) != NULL, "%s", line);
	close(out);
	close(err);
}

START_TEST(test_usage)
{
	char *const nothing[] = {"pave-node", NULL};
	char *const unknown[] = {"pave-node", "--colour", NULL};
	char *const shards[] = {"pave-node", "--shards", "2", NULL};
	char *const size[] = {"pave-node", "--device-size", "many", NULL};
	char *const level[] = {"pave-node", "--log-level", "loud", NULL};
	char *const name[] = {"pave-node", "--name", "N 1",   "--site", "par",	    "--pd", "x",
			      "--root",	   "x",	     "--dir", "x",	"--device", "x",    NULL};
	char *const version[] = {"pave-node", "--version", NULL};
	char line[256];
	int out;
	pid_t pid;

	expect_fails(nothing, 2, "are needed");
	expect_fails(unknown, 2, "colour");
	expect_fails(shards, 2, "one shard");
	expect_fails(size, 2, "8GiB");
	expect_fails(level, 2, "choose");
	expect_fails(name, 2, "--name");
	pid = spawn(version, &out, NULL);
	read_line(out, line, sizeof(line));
	close(out);
	ck_assert_int_eq(exit_code(pid), 0);
	ck_assert_str_eq(line, "pave-node " PAVE_VERSION);
}
END_TEST

/* Everything that a process says on stderr until it ends. */
static void expect_refuses_device(const char *name, const char *state, const char *text)
{
	char all[8192];
	size_t have = 0;
	int out;
	pid_t pid = spawn_node(name, state, &out, &node_err);

	for (;;) {
		const ssize_t n = read(node_err, all + have, sizeof(all) - 1 - have);

		if (n <= 0)
			break;
		have += (size_t)n;
	}
	all[have] = '\0';
	ck_assert_int_eq(exit_code(pid), 1);
	ck_assert_msg(strstr(all, text) != NULL, "%s", all);
	ck_assert_msg(strstr(all, in_dir("device")) != NULL, "%s", all);
	close(out);
	close(node_err);
}

START_TEST(test_devices_of_others)
{
	open_volume(&host, 1, 1);
	ck_assert_int_eq(peer_host_write(&host, 1, 0, 1, v(1, 1), data), 0);
	expect_refuses_device("n1", "state2", "in use");
	end_node(SIGTERM, 0);
	/* Another node, with the index of its own. */
	expect_refuses_device("n2", "state2", "n1");
	/* This node, with its index lost; then with the device lost. */
	expect_refuses_device("n1", "state2", "index");
	start_node();
	open_volume(&host, 1, 2);
	ck_assert_int_eq(peer_host_read(&host, 1, 0, 1, back), 0);
	ck_assert_mem_eq(back, data, BLOCK_SIZE);
	end_node(SIGTERM, 0);
	ck_assert_int_eq(rename(in_dir("device"), in_dir("device.away")), 0);
	expect_refuses_device("n1", "state", "cannot be read");
	ck_assert_int_eq(rename(in_dir("device.away"), in_dir("device")), 0);
	start_node();
	open_volume(&host, 1, 3);
	ck_assert_int_eq(peer_host_read(&host, 1, 0, 1, back), 0);
	ck_assert_mem_eq(back, data, BLOCK_SIZE);
}
END_TEST

static Suite *suite(void)
{
	Suite *s = suite_create("node_refuses");
	TCase *t = tcase_create("process");

	tcase_add_checked_fixture(t, setup, teardown);
	tcase_add_test(t, test_serves);
	tcase_add_test(t, test_permit_expired);
	tcase_add_test(t, test_lease_expired);
	tcase_add_test(t, test_no_lease);
	tcase_add_test(t, test_certificate_revoked);
	tcase_add_test(t, test_certificate_expired);
	tcase_add_test(t, test_not_in_permit);
	tcase_add_test(t, test_forged);
	tcase_add_test(t, test_older_generation);
	tcase_add_test(t, test_bad_requests);
	tcase_add_test(t, test_usage);
	tcase_add_test(t, test_devices_of_others);
	tcase_set_timeout(t, 180);
	suite_add_tcase(s, t);
	return s;
}

int main(void)
{
	SRunner *runner = srunner_create(suite());
	int failed;

	srunner_run_all(runner, CK_NORMAL);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed != 0;
}
