/* permit-watch: a host that asks every placement driver of a cluster for permits, all the time,
 * each over a connection of its own, whatever they say about who leads.
 *
 *   permit-watch ROOT VOLUME ADDRESS...
 *
 * Attaches the volume at whichever of them leads, then renews it at each of them every few
 * milliseconds (a process each), and prints a line for every permit that it gets:
 *
 *   ADDRESS ISSUED_AT EXPIRES_AT SERIAL      (ns since 1970, by the driver's clock)
 *
 * until it is ended by a signal. On one machine, where all clocks are one, no permit of one driver
 * may be issued between two of another's unless that one had led in between. */
#include <check.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "engine/evidence/documents.h"
#include "tests/unit/test_node_peers.h"

#define RENEW_NS  (10 * NS_PER_MS)
#define AGAIN_NS  (50 * NS_PER_MS)
#define ANSWER_NS (2 * NS_PER_S) /* a driver that waits for etcd gives none */
#define WAIT_NS	  (60 * NS_PER_S)

static struct reactor *reactor;
static struct transport *transport;
static struct demo demo; /* its id alone */
static struct peers_wait wait_real;
static struct peer_host driver;

static _Noreturn void die(const char *what, const char *why)
{
	fprintf(stderr, "permit-watch: %s: %s\n", what, why);
	exit(1);
}

/* The peer is one of the unit tests', and asserts with Check. */
void _mark_point(const char *file, int line)
{
	(void)file;
	(void)line;
}

void _ck_assert_failed(const char *file, int line, const char *expr, const char *msg, ...)
{
	fprintf(stderr, "permit-watch: %s:%d: %s %s\n", file, line, expr, msg != NULL ? msg : "");
	exit(1);
}

static uint64_t now(void)
{
	reactor_refresh(reactor);
	return reactor_now_ns(reactor);
}

static bool until(void *arg, const bool *flag)
{
	(void)arg;
	return reactor_run_until(reactor, flag, now() + WAIT_NS) == 0;
}

static void pass(uint64_t ns)
{
	const bool never = false;

	reactor_run_until(reactor, &never, now() + ns);
}

static void start(void)
{
	const struct reactor_config config = {.name = "watch"};

	wait_real = (struct peers_wait){.until = until};
	if (reactor_create(&config, &reactor) != 0 ||
	    transport_tcp_create(reactor, true, &transport) != 0)
		die("start", "no memory, or no io_uring");
}

static void read_cluster(const char *path)
{
	struct root_document *root;
	struct error err;
	char data[65536];
	FILE *f = fopen(path, "r");
	size_t size;

	if (f == NULL)
		die(path, strerror(errno));
	size = fread(data, 1, sizeof data, f);
	fclose(f);
	if (root_open(data, size, NULL, &root, &err) != 0)
		die(path, err.text);
	demo.cluster = *root_cluster(root);
	root_free(root);
}

/* False: nobody is there, or it only says who leads. */
static bool greet(const char *address)
{
	peer_host_init(&driver, reactor, transport, wait_real, &demo);
	if (peer_host_connect(&driver, address) == 0 &&
	    peer_host_hello(&driver, "host", "watch") == 0 &&
	    !driver.call_reply->hello_reply->standby)
		return true;
	if (driver.conn != NULL)
		peer_host_close(&driver);
	return false;
}

static int attach(const char *volume, volume_id_t *ret_volume, generation_t *ret_generation)
{
	Pave__V1__Control m = PAVE__V1__CONTROL__INIT;
	Pave__V1__Attach a = PAVE__V1__ATTACH__INIT;
	const Pave__V1__AttachReply *r;
	Pave__V1__Permit *permit;

	a.volume = (char *)(uintptr_t)volume;
	a.holder = (char *)(uintptr_t) "watch";
	a.holder_site = (char *)(uintptr_t) "par";
	a.endpoint = (char *)(uintptr_t) "none";
	m.body_case = PAVE__V1__CONTROL__BODY_ATTACH;
	m.attach = &a;
	if (peer_host_ask(&driver, &m) != 0)
		return -1;
	r = driver.call_reply->attach_reply;
	permit = pave__v1__permit__unpack(NULL, r->permit->payload.len, r->permit->payload.data);
	if (permit == NULL)
		die("a permit", "does not parse");
	*ret_volume = r->volume;
	*ret_generation = permit->generation;
	pave__v1__permit__free_unpacked(permit, NULL);
	return 0;
}

static void find_leader(char *const addresses[], const char *volume, volume_id_t *ret_volume,
			generation_t *ret_generation)
{
	const uint64_t end = now() + WAIT_NS;

	for (size_t i = 0; now() < end; i++) {
		if (addresses[i] == NULL) {
			pass(AGAIN_NS);
			i = 0;
		}
		if (!greet(addresses[i]))
			continue;
		if (attach(volume, ret_volume, ret_generation) == 0) {
			peer_host_close(&driver);
			return;
		}
		fprintf(stderr, "permit-watch: %s: %s\n", addresses[i], driver.call_text);
		peer_host_close(&driver);
	}
	die(volume, "nobody lets it be attached");
}

static void tell(const char *address, const Pave__V1__Signed *s)
{
	Pave__V1__Permit *p = pave__v1__permit__unpack(NULL, s->payload.len, s->payload.data);
	char line[256];
	int n;

	if (p == NULL)
		die("a permit", "does not parse");
	n = snprintf(line, sizeof line, "%s %lld %lld %llu\n", address, (long long)p->issued_at,
		     (long long)p->expires_at, (unsigned long long)p->serial);
	pave__v1__permit__free_unpacked(p, NULL);
	/* One write each: the lines of several processes do not mix. */
	if (write(STDOUT_FILENO, line, (size_t)n) != n)
		die("stdout", strerror(errno));
}

static _Noreturn void watch(const char *address, volume_id_t volume, generation_t generation)
{
	Pave__V1__Control m = PAVE__V1__CONTROL__INIT;
	Pave__V1__Renew r = PAVE__V1__RENEW__INIT;

	r.volume = volume;
	r.generation = generation;
	m.body_case = PAVE__V1__CONTROL__BODY_RENEW;
	m.renew = &r;
	for (;;) {
		if (!greet(address)) {
			pass(AGAIN_NS);
			continue;
		}
		while (driver.rpc_live) {
			peer_host_ask_start(&driver, &m);
			if (reactor_run_until(reactor, &driver.called, now() + ANSWER_NS) != 0)
				break;
			if (driver.call_status == 0)
				tell(address, driver.call_reply->renew_reply->permit);
			pass(RENEW_NS);
		}
		if (driver.conn != NULL)
			peer_host_close(&driver);
		pass(AGAIN_NS);
	}
}

int main(int argc, char **argv)
{
	volume_id_t volume;
	generation_t generation;

	if (argc < 4) {
		fprintf(stderr, "usage: permit-watch ROOT VOLUME ADDRESS...\n");
		return 2;
	}
	signal(SIGPIPE, SIG_IGN);
	read_cluster(argv[1]);
	start();
	find_leader(argv + 3, argv[2], &volume, &generation);
	/* A ring is no child's: the children begin with one of their own. */
	for (int i = 3; i < argc; i++) {
		const pid_t parent = getpid();
		const pid_t pid = fork();

		if (pid < 0)
			die("fork", strerror(errno));
		if (pid > 0)
			continue;
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (getppid() != parent)
			_exit(1);
		start();
		watch(argv[i], volume, generation);
	}
	for (;;)
		pause();
}
