/* revocation: how long a site that is revoked goes on accepting bytes.
 *
 *   revocation [--trials 200] [--cut-trials 200] [--apart-trials 200] [--lifetime 10s]
 *              [--cut-lifetime 2s]
 *
 * A development cluster of three sites, real processes on this machine. This program is the host:
 * it has attached a volume, and keeps four writes of 4 KiB under way to a node, whatever happens. A
 * trial revokes the node's site (a signed snapshot, given to the driver), and takes the time from
 * *before* the snapshot was sent until the last write that the node answered with success was
 * answered: the verification and the two syncs of the driver are in it.
 *
 *   connected  the driver's push reaches the node. The host is stubborn: it never hands the node a
 *              newer permit, so that only the node's own lease stops it.
 *   cut        before the snapshot is sent, everything stops between the driver and the nodes,
 *              and between the driver and the host (proxies that forward no more); the host
 *              still reaches the nodes, and goes on under the permit that it has. That is the
 *              worst that a cut can do. Each of the three sites is a trial.
 *   apart      the same, and nothing passes between the host and the nodes either: site, host
 *              and driver are cut from one another. What the host had sent is not lost but late:
 *              at some moment up to one and a half lifetimes it is delivered, and the host
 *              reaches the nodes again, while the driver stays cut off.
 *
 * In all three the node must answer E_REVOKED, E_LEASE_EXPIRED or the like in the end, and take
 * writes again when the site is restored and the cut healed. Exit code 1: a trial of the last two
 * lasted longer than the lifetime of a permit, or the median of the connected ones was 50 ms or
 * more. */
#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "engine/base/text.h"
#include "tests/unit/test_node_peers.h"
#include "tools/common/cluster.h"
#include "tools/common/duration.h"

#define SITES	      3u
#define DEPTH	      4u
#define STEP_NS	      (100 * 1000ull) /* how finely an answer's time is taken */
#define WAIT_NS	      (60 * NS_PER_S)
#define TRIALS_MAX    10000u
#define MEDIAN_MAX_NS (50 * NS_PER_MS)
#define BLOCKS	      1024u
#define PROXY_PAIRS   32u
#define QUIET_SETTLE_NS                                                                            \
	(20 * NS_PER_MS) /* no success for so long after a refusal: it is the end                  \
			  */

extern char **environ;

static const char *const sites[SITES] = {"par", "lyo", "rbx"};

/* One node, and the writes that are under way to it. */
struct target {
	char name[NAME_SIZE_MAX], address[ADDR_SIZE_MAX];
	struct peer_host host;
	struct peer_request *requests[DEPTH];
	uint64_t sequence;
	uint64_t last_ok_ns, last_refused_ns;
	int refused_with;
	pid_t pid; /* started by this program; 0: by pave */
};

static struct reactor *reactor;
static struct transport *transport;
static struct demo demo;
static struct peers_wait wait_real;
static struct cluster_ref cluster;
static char dir[64], tools[4096], owner_address[ADDR_SIZE_MAX];
static struct peer_host admin, owner; /* two conversations with the driver */
static struct target targets[SITES];
static volume_id_t volume;
static generation_t generation;
static uint64_t snapshot_version, chunk_size;
static uint8_t block[BLOCK_SIZE];

static void cluster_down(void);

/* Once: the cluster may be what does not do. */
static _Noreturn void give_up(void)
{
	static bool given_up;

	if (!given_up && dir[0] != '\0') {
		given_up = true;
		cluster_down();
	}
	exit(1);
}

static _Noreturn void die(const char *what, const char *why)
{
	fprintf(stderr, "revocation: %s: %s\n", what, why);
	give_up();
}

/* The peers are those of the tests, and assert with Check; here no test is running, and what they
 * assert ends the program. */
void _mark_point(const char *file, int line)
{
	(void)file;
	(void)line;
}

void _ck_assert_failed(const char *file, int line, const char *expr, const char *msg, ...)
{
	fprintf(stderr, "revocation: %s:%d: %s %s\n", file, line, expr, msg != NULL ? msg : "");
	give_up();
}

static bool until(void *arg, const bool *flag)
{
	(void)arg;
	reactor_refresh(reactor);
	return reactor_run_until(reactor, flag, reactor_now_ns(reactor) + WAIT_NS) == 0;
}

static void step(void)
{
	const bool never = false;

	reactor_refresh(reactor);
	reactor_run_until(reactor, &never, reactor_now_ns(reactor) + STEP_NS);
	reactor_refresh(reactor);
}

static uint64_t now(void)
{
	reactor_refresh(reactor);
	return reactor_now_ns(reactor);
}

/* -- processes -------------------------------------------------------------------------------- */

static void pave(const char *const argv[])
{
	posix_spawn_file_actions_t actions;
	char program[4200];
	int status;
	pid_t pid;

	snprintf(program, sizeof program, "%s/pave", tools);
	posix_spawn_file_actions_init(&actions);
	posix_spawn_file_actions_addopen(&actions, 1, "/dev/null", O_WRONLY, 0);
	if (posix_spawn(&pid, program, &actions, NULL, (char *const *)(uintptr_t)argv, environ) !=
		0 ||
	    waitpid(pid, &status, 0) != pid || status != 0)
		die(program, argv[1]);
	posix_spawn_file_actions_destroy(&actions);
}

static void cluster_up(const char *lifetime)
{
	struct error err;

	snprintf(dir, sizeof dir, "/tmp/pave-revocation-XXXXXX");
	if (mkdtemp(dir) == NULL)
		die(dir, strerror(errno));
	pave((const char *const[]){"pave", "dev", "up", "--dir", dir, "--sites", "par,lyo,rbx",
				   "--device-size", "400MiB", "--permit-lifetime", lifetime, NULL});
	pave((const char *const[]){"pave", "--cluster", dir, "volume", "create", "v", "--size",
				   "64MiB", "--chunk-size", "16MiB", "--policy", "secnumcloud-fr",
				   NULL});
	if (cluster_resolve(dir, &cluster, &err) != 0)
		die(dir, err.text);
}

static void cluster_down(void)
{
	pid_t pid;

	for (unsigned i = 0; i < SITES; i++)
		if (targets[i].pid != 0) {
			kill(targets[i].pid, SIGTERM);
			waitpid(targets[i].pid, NULL, 0);
			targets[i].pid = 0;
		}
	pave((const char *const[]){"pave", "dev", "down", "--dir", dir, NULL});
	if (posix_spawnp(
		&pid, "rm", NULL, NULL,
		(char *const[]){(char *)(uintptr_t) "rm", (char *)(uintptr_t) "-rf", dir, NULL},
		environ) == 0)
		waitpid(pid, NULL, 0);
	dir[0] = '\0';
}

static void load_keys(void)
{
	char path[200];
	struct error err;

	demo.cluster = owner.cluster;
	for (unsigned i = 0; i < DEMO_KEY_COUNT; i++) {
		snprintf(path, sizeof path, "%s/authority/%s.pem", dir, demo_key_names[i]);
		if (signing_key_read(path, demo_key_names[i], &demo.keys[i], &err) != 0)
			die(path, err.text);
	}
}

/* -- what stands between the driver and the nodes --------------------------------------------- */

static struct proxy {
	int listener;
	unsigned port;
	/* What goes to the target while it is cut is delivered when it is not any more, and what
	 * comes back passes, so that whatever the target has done is seen at once. Else what was on
	 * its way is lost with the connections. */
	bool late;
	struct sockaddr_in target;
	struct {
		int a, b; /* 0: the place is free */
	} pairs[PROXY_PAIRS];
	atomic_bool cut, ends;
	pthread_t thread;
} nodes_to_driver, host_to_driver, host_to_node[SITES];

static void pair_close(struct proxy *p, unsigned i)
{
	close(p->pairs[i].a);
	close(p->pairs[i].b);
	p->pairs[i].a = p->pairs[i].b = 0;
}

static bool forward(int from, int to)
{
	char data[65536];
	ssize_t n = recv(from, data, sizeof data, MSG_DONTWAIT);

	if (n < 0)
		return errno == EAGAIN;
	for (ssize_t at = 0; at < n;) {
		ssize_t sent = send(to, data + at, (size_t)(n - at), MSG_NOSIGNAL);

		if (sent <= 0)
			return false;
		at += sent;
	}
	return n > 0;
}

static void proxy_accept(struct proxy *p)
{
	int a = accept4(p->listener, NULL, NULL, SOCK_CLOEXEC);
	int b = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	unsigned i = 0;

	while (i < PROXY_PAIRS && p->pairs[i].a != 0)
		i++;
	if (a < 0 || b < 0 || i == PROXY_PAIRS ||
	    connect(b, (struct sockaddr *)&p->target, sizeof p->target) != 0) {
		close(a);
		close(b);
		return;
	}
	p->pairs[i].a = a;
	p->pairs[i].b = b;
}

static void *proxy_main(void *arg)
{
	struct proxy *p = arg;
	bool was_cut = false;

	while (!atomic_load(&p->ends)) {
		struct pollfd fds[1 + 2 * PROXY_PAIRS] = {{.fd = p->listener, .events = POLLIN}};
		const bool cut = atomic_load(&p->cut);

		for (unsigned i = 0; was_cut && !cut && !p->late && i < PROXY_PAIRS; i++)
			if (p->pairs[i].a != 0)
				pair_close(p, i);
		was_cut = cut;
		for (unsigned i = 0; i < PROXY_PAIRS; i++) {
			const bool used = p->pairs[i].a != 0, to = used && !cut;
			const bool back = used && (!cut || p->late);

			fds[1 + 2 * i] = (struct pollfd){to ? p->pairs[i].a : -1, POLLIN, 0};
			fds[2 + 2 * i] = (struct pollfd){back ? p->pairs[i].b : -1, POLLIN, 0};
		}
		if (poll(fds, 1 + 2 * PROXY_PAIRS, 5) <= 0)
			continue;
		for (unsigned i = 0; i < PROXY_PAIRS; i++) {
			const bool is_cut = atomic_load(&p->cut);

			if ((fds[1 + 2 * i].revents != 0 && !is_cut &&
			     !forward(p->pairs[i].a, p->pairs[i].b)) ||
			    (fds[2 + 2 * i].revents != 0 && (!is_cut || p->late) &&
			     !forward(p->pairs[i].b, p->pairs[i].a)))
				pair_close(p, i);
		}
		if (fds[0].revents != 0)
			proxy_accept(p);
	}
	return NULL;
}

static void proxy_start(struct proxy *p, const char *target, bool late)
{
	struct sockaddr_in a = {.sin_family = AF_INET};
	socklen_t size = sizeof a;

	a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	p->target = a;
	p->target.sin_port = htons((uint16_t)strtoul(strrchr(target, ':') + 1, NULL, 10));
	p->late = late;
	p->listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (bind(p->listener, (struct sockaddr *)&a, sizeof a) != 0 ||
	    listen(p->listener, 16) != 0 ||
	    getsockname(p->listener, (struct sockaddr *)&a, &size) != 0)
		die("proxy", strerror(errno));
	p->port = ntohs(a.sin_port);
	atomic_store(&p->cut, false);
	atomic_store(&p->ends, false);
	if (pthread_create(&p->thread, NULL, proxy_main, p) != 0)
		die("proxy", "no thread");
}

static void proxy_address(const struct proxy *p, char *buf, size_t size)
{
	snprintf(buf, size, "127.0.0.1:%u", p->port);
}

static void proxy_stop(struct proxy *p)
{
	atomic_store(&p->ends, true);
	pthread_join(p->thread, NULL);
	for (unsigned i = 0; i < PROXY_PAIRS; i++)
		if (p->pairs[i].a != 0)
			pair_close(p, i);
	close(p->listener);
}

static void cut_driver(bool cut)
{
	atomic_store(&nodes_to_driver.cut, cut);
	atomic_store(&host_to_driver.cut, cut);
}

static void cut_nodes(bool cut)
{
	for (unsigned i = 0; i < SITES; i++)
		atomic_store(&host_to_node[i].cut, cut);
}

/* The node once more, with the proxy for its driver. */
static void restart_behind_proxy(struct target *t)
{
	char path[200], args[8192], through[32];
	posix_spawn_file_actions_t quiet;
	char *argv[64];
	size_t argc = 0, size;
	FILE *f;
	int pid = 0;

	snprintf(path, sizeof path, "%s/run/%s.pid", dir, t->name);
	f = fopen(path, "r");
	if (f == NULL || fscanf(f, "%d", &pid) != 1 || pid <= 1)
		die(path, "cannot be read");
	fclose(f);
	snprintf(path, sizeof path, "/proc/%d/cmdline", pid);
	f = fopen(path, "r");
	if (f == NULL)
		die(path, strerror(errno));
	size = fread(args, 1, sizeof args - 1, f);
	fclose(f);
	args[size] = '\0';
	proxy_address(&nodes_to_driver, through, sizeof through);
	for (char *a = args; a < args + size && argc < 63; a += strlen(a) + 1) {
		argv[argc] = argc > 0 && strcmp(argv[argc - 1], "--pd") == 0 ? through : a;
		argc++;
	}
	argv[argc] = NULL;
	kill(pid, SIGTERM);
	while (kill(pid, 0) == 0)
		step();
	snprintf(path, sizeof path, "%.150s/pave-node", tools);
	posix_spawn_file_actions_init(&quiet);
	posix_spawn_file_actions_addopen(&quiet, 1, "/dev/null", O_WRONLY, 0);
	posix_spawn_file_actions_addopen(&quiet, 2, "/dev/null", O_WRONLY, 0);
	if (posix_spawn(&t->pid, path, &quiet, NULL, argv, environ) != 0)
		die(path, strerror(errno));
	posix_spawn_file_actions_destroy(&quiet);
}

/* -- the driver ------------------------------------------------------------------------------- */

static void greet(struct peer_host *h, const char *address, const char *role)
{
	int rc;

	reactor_refresh(reactor); /* processes were waited for: time limits count from now */
	peer_host_init(h, reactor, transport, wait_real, &demo);
	rc = peer_host_connect(h, address);
	if (rc == 0)
		rc = peer_host_hello(h, role, "bench");
	if (rc != 0)
		die("the driver does not greet", err_text(rc));
}

static char *make_snapshot(unsigned withdrawn)
{
	const int64_t wall = reactor_wall_ns(reactor);
	struct demo_entry entries[SITES];
	char *envelope = NULL;
	struct error err;

	for (unsigned i = 0; i < SITES; i++)
		entries[i] = (struct demo_entry){sites[i], 1, withdrawn & (1u << i) ? wall : 0};
	if (demo_revocations(&demo, ++snapshot_version, wall - (int64_t)NS_PER_S,
			     wall + 3600 * (int64_t)NS_PER_S, entries, SITES, &envelope, &err) != 0)
		die("snapshot", err.text);
	return envelope;
}

/* The answer comes to admin.called. */
static void submit_start(const char *envelope)
{
	Pave__V1__Control m = PAVE__V1__CONTROL__INIT;
	Pave__V1__RevocationsPut put = PAVE__V1__REVOCATIONS_PUT__INIT;

	put.envelope.data = (uint8_t *)(uintptr_t)envelope;
	put.envelope.len = strlen(envelope);
	m.body_case = PAVE__V1__CONTROL__BODY_REVOCATIONS_PUT;
	m.revocations_put = &put;
	peer_host_ask_start(&admin, &m);
}

static void submit(unsigned withdrawn)
{
	char *envelope = make_snapshot(withdrawn);

	submit_start(envelope);
	if (peer_host_ask_wait(&admin) != 0)
		die("the driver refuses a snapshot", admin.call_text);
	free(envelope);
}

static void read_snapshot_version(void)
{
	Pave__V1__Control m = PAVE__V1__CONTROL__INIT;
	Pave__V1__StatusGet get = PAVE__V1__STATUS_GET__INIT;

	m.body_case = PAVE__V1__CONTROL__BODY_STATUS_GET;
	m.status_get = &get;
	if (peer_host_ask(&admin, &m) != 0)
		die("status", admin.call_text);
	snapshot_version = admin.call_reply->status_reply->revocations_version;
}

/* -- the host --------------------------------------------------------------------------------- */

static Pave__V1__Signed *attach(void)
{
	Pave__V1__Control m = PAVE__V1__CONTROL__INIT;
	Pave__V1__Attach a = PAVE__V1__ATTACH__INIT;
	const Pave__V1__AttachReply *r;
	Pave__V1__Permit *permit;

	a.volume = (char *)(uintptr_t) "v";
	a.holder = (char *)(uintptr_t) "bench";
	a.holder_site = (char *)(uintptr_t)sites[0];
	a.endpoint = (char *)(uintptr_t) "none";
	m.body_case = PAVE__V1__CONTROL__BODY_ATTACH;
	m.attach = &a;
	if (peer_host_ask(&owner, &m) != 0)
		die("attach", owner.call_text);
	r = owner.call_reply->attach_reply;
	volume = r->volume;
	chunk_size = r->chunk_size;
	permit = pave__v1__permit__unpack(NULL, r->permit->payload.len, r->permit->payload.data);
	if (permit == NULL || r->n_nodes != SITES)
		die("attach", "not three nodes");
	generation = permit->generation;
	pave__v1__permit__free_unpacked(permit, NULL);
	for (unsigned i = 0; i < SITES; i++)
		for (size_t k = 0; k < r->n_nodes; k++)
			if (strcmp(r->nodes[k]->site, sites[i]) == 0) {
				snprintf(targets[i].name, sizeof targets[i].name, "%s",
					 r->nodes[k]->node);
				snprintf(targets[i].address, sizeof targets[i].address, "%s",
					 r->nodes[k]->addresses[0]);
			}
	return r->permit;
}

/* NULL: refused, as it is while no site is eligible; or a connection that was cut has ended. Lives
 * until the next question. */
static Pave__V1__Signed *renew(void)
{
	Pave__V1__Control m = PAVE__V1__CONTROL__INIT;
	Pave__V1__Renew r = PAVE__V1__RENEW__INIT;

	if (owner.closed)
		greet(&owner, owner_address, "host");
	r.volume = volume;
	r.generation = generation;
	m.body_case = PAVE__V1__CONTROL__BODY_RENEW;
	m.renew = &r;
	return peer_host_ask(&owner, &m) == 0 ? owner.call_reply->renew_reply->permit : NULL;
}

static void target_connect(struct target *t, Pave__V1__Signed *permit)
{
	const uint64_t end = now() + WAIT_NS;
	int rc = -1;

	peer_host_init(&t->host, reactor, transport, wait_real, &demo);
	while (rc != 0 && now() < end) {
		rc = peer_host_connect(&t->host, t->address);
		if (rc == 0)
			rc = peer_host_hello(&t->host, "host", "bench");
		if (rc == 0)
			rc = peer_host_open(&t->host, permit, chunk_size);
		if (rc != 0) {
			if (t->host.conn != NULL)
				peer_host_close(&t->host);
			peer_host_init(&t->host, reactor, transport, wait_real, &demo);
			for (int i = 0; i < 500; i++)
				step();
			permit = renew();
		}
	}
	if (rc != 0)
		die(t->name, t->host.call_text);
}

/* Takes what was answered, and sends as much again. */
static void keep_writing(struct target *t)
{
	for (unsigned i = 0; i < DEPTH; i++) {
		struct peer_request *q = t->requests[i];

		if (q != NULL && !q->done)
			continue;
		if (q != NULL && q->status == 0) {
			t->last_ok_ns = now();
		} else if (q != NULL) {
			t->last_refused_ns = now();
			t->refused_with = q->status;
		}
		if (q != NULL)
			peer_request_free(q);
		t->requests[i] = NULL;
		if (t->host.conn == NULL)
			continue;
		t->requests[i] = peer_host_send(
		    &t->host,
		    (struct frame){.op = FRAME_WRITE,
				   .chunk = 0,
				   .block = (block_no_t)(t->sequence % BLOCKS),
				   .block_count = 1,
				   .version = version_make(generation, ++t->sequence)},
		    block, false);
	}
}

static bool is_over(const struct target *t, uint64_t since_ns)
{
	return t->last_refused_ns > since_ns && now() - t->last_ok_ns > QUIET_SETTLE_NS &&
	       t->last_refused_ns > t->last_ok_ns;
}

/* Until every one of them takes writes under a permit that names it. */
static void restore(unsigned which)
{
	const uint64_t end = now() + WAIT_NS;
	uint64_t since;
	bool all = false;

	submit(0);
	since = now();
	while (!all) {
		Pave__V1__Signed *permit = renew();

		if (now() > end)
			die("a site that was restored", "its node takes no writes again");
		all = permit != NULL;
		for (unsigned i = 0; i < SITES && permit != NULL; i++)
			if (which & (1u << i))
				peer_host_update(&targets[i].host, permit);
		for (int n = 0; n < 100; n++) {
			for (unsigned i = 0; i < SITES; i++)
				if (which & (1u << i))
					keep_writing(&targets[i]);
			step();
		}
		for (unsigned i = 0; i < SITES; i++)
			if (which & (1u << i))
				all = all && targets[i].last_ok_ns > since &&
				      targets[i].last_ok_ns > targets[i].last_refused_ns;
	}
}

enum kind { CONNECTED, CUT, APART };

/* Revokes these sites; *ret_ns of each: the last success after the sending. */
static void trial(unsigned which, enum kind kind, uint64_t lifetime_ns, uint64_t ret_ns[SITES])
{
	char *envelope = make_snapshot(which);
	uint64_t begun, late_ns = 0;
	bool over = false;

	if (kind == APART) {
		reactor_random(reactor, &late_ns, sizeof late_ns);
		late_ns %= lifetime_ns * 3 / 2;
	}
	cut_driver(kind != CONNECTED);
	cut_nodes(kind == APART);
	begun = now();
	submit_start(envelope);
	while (!over) {
		if (now() - begun >= late_ns)
			cut_nodes(false);
		over = admin.called && now() - begun >= late_ns;
		for (unsigned i = 0; i < SITES; i++)
			if (which & (1u << i)) {
				keep_writing(&targets[i]);
				over = over && is_over(&targets[i], begun);
			}
		step();
		if (now() - begun > WAIT_NS)
			die("a revoked site", "its node goes on taking writes");
	}
	if (peer_host_ask_wait(&admin) != 0)
		die("the driver refuses a snapshot", admin.call_text);
	free(envelope);
	for (unsigned i = 0; i < SITES; i++)
		ret_ns[i] = targets[i].last_ok_ns > begun ? targets[i].last_ok_ns - begun : 0;
	cut_driver(false);
}

/* -- all kinds -------------------------------------------------------------------------------- */

static int compare(const void *a, const void *b)
{
	const uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return x < y ? -1 : x > y;
}

struct result {
	uint64_t times[TRIALS_MAX];
	unsigned count;
};

static double ms(uint64_t ns)
{
	return (double)ns / 1e6;
}

static void print(const char *kind, struct result *r)
{
	qsort(r->times, r->count, sizeof r->times[0], compare);
	printf("%-10s %u trials: median %.2f ms, 99 %% %.2f ms, longest %.2f ms\n", kind, r->count,
	       ms(r->times[r->count / 2]), ms(r->times[r->count * 99 / 100]),
	       ms(r->times[r->count - 1]));
	fflush(stdout);
}

static void open_all(bool behind_proxies)
{
	Pave__V1__Signed *permit;

	snprintf(owner_address, sizeof owner_address, "%.100s", cluster.pd);
	if (behind_proxies) {
		proxy_start(&nodes_to_driver, cluster.pd, false);
		proxy_start(&host_to_driver, cluster.pd, false);
		proxy_address(&host_to_driver, owner_address, sizeof owner_address);
	}
	greet(&admin, cluster.pd, "admin");
	greet(&owner, owner_address, "host");
	read_snapshot_version();
	permit = attach();
	if (behind_proxies) {
		for (unsigned i = 0; i < SITES; i++) {
			restart_behind_proxy(&targets[i]);
			proxy_start(&host_to_node[i], targets[i].address, true);
			proxy_address(&host_to_node[i], targets[i].address,
				      sizeof targets[i].address);
		}
		permit = renew();
	}
	for (unsigned i = 0; i < SITES; i++)
		target_connect(&targets[i], permit);
}

static void close_all(bool behind_proxies)
{
	for (unsigned i = 0; i < SITES; i++) {
		peer_host_close(&targets[i].host);
		for (unsigned k = 0; k < DEPTH; k++)
			if (targets[i].requests[k] != NULL)
				peer_request_free(targets[i].requests[k]);
	}
	peer_host_close(&admin);
	peer_host_close(&owner);
	cluster_down();
	if (behind_proxies) {
		proxy_stop(&nodes_to_driver);
		proxy_stop(&host_to_driver);
		for (unsigned i = 0; i < SITES; i++)
			proxy_stop(&host_to_node[i]);
	}
	demo_deinit(&demo);
	memset(&demo, 0, sizeof demo);
	memset(targets, 0, sizeof targets);
}

static void read_cluster_id(void)
{
	struct root_document *root;
	struct error err;
	char data[65536];
	size_t size;
	FILE *f = fopen(cluster.root, "r");

	if (f == NULL)
		die(cluster.root, strerror(errno));
	size = fread(data, 1, sizeof data - 1, f);
	fclose(f);
	if (root_open(data, size, NULL, &root, &err) != 0)
		die(cluster.root, err.text);
	demo.cluster = *root_cluster(root);
	owner.cluster = demo.cluster;
	root_free(root);
}

static void connected(unsigned trials, const char *lifetime, struct result *r)
{
	cluster_up(lifetime);
	read_cluster_id();
	load_keys();
	open_all(false);
	restore(7);
	for (unsigned n = 0; n < trials; n++) {
		const unsigned site = n % SITES;
		uint64_t times[SITES];

		trial(1u << site, CONNECTED, 0, times);
		if (targets[site].refused_with != -E_REVOKED)
			die("a connected node", err_text(targets[site].refused_with));
		r->times[r->count++] = times[site];
		restore(1u << site);
	}
	close_all(false);
}

static void cut(enum kind kind, unsigned trials, const char *lifetime, uint64_t lifetime_ns,
		struct result *r)
{
	cluster_up(lifetime);
	read_cluster_id();
	load_keys();
	open_all(true);
	restore(7);
	while (r->count < trials) {
		uint64_t times[SITES];

		trial(7, kind, lifetime_ns, times);
		for (unsigned i = 0; i < SITES && r->count < trials; i++)
			r->times[r->count++] = times[i];
		restore(7);
	}
	close_all(true);
}

struct options {
	unsigned long trials[3]; /* by kind */
	const char *lifetime, *cut_lifetime;
	uint64_t cut_lifetime_ns;
};

static const char help[] =
    "Usage: revocation [OPTION...]\n"
    "How long a site that is revoked goes on accepting bytes: from before the signed snapshot is\n"
    "sent to the driver until the last write that the site's node answered with success. On a\n"
    "development cluster of its own, of three sites, in a directory that goes afterwards.\n\n"
    "  --trials N          connected: the driver reaches the node            (200)\n"
    "  --cut-trials N      cut: driver and host, driver and nodes are cut    (200)\n"
    "  --apart-trials N    apart: site, host and driver are cut from one another,\n"
    "                      and what was sent is delivered late               (200)\n"
    "  --lifetime TIME     of permits, for connected                         (10s)\n"
    "  --cut-lifetime TIME of permits, for the two others                    (2s)\n"
    "  --help\n\n"
    "N: 0 (not tried) to 10000. Printed: median, 99th percentile and the longest of each kind.\n"
    "Exit status: 0 within the bounds (connected: median under 50 ms; the others: never over the\n"
    "lifetime), 1 a bound is missed or the cluster did not come up, 2 usage.\n";

static int bad_usage(const char *option, const char *text, const char *wanted)
{
	fprintf(stderr, "revocation: --%s %s: %s\nTry `revocation --help`.\n", option, text,
		wanted);
	return 2;
}

/* -1: all is said. */
static int parse(int argc, char **argv, struct options *o)
{
	static const struct option options[] = {{"trials", required_argument, NULL, CONNECTED},
						{"cut-trials", required_argument, NULL, CUT},
						{"apart-trials", required_argument, NULL, APART},
						{"lifetime", required_argument, NULL, 'l'},
						{"cut-lifetime", required_argument, NULL, 'L'},
						{"help", no_argument, NULL, 'h'},
						{0}};
	uint64_t ms;
	char *end;
	int c, i;

	while ((c = getopt_long(argc, argv, "", options, &i)) != -1) {
		if (c == '?') {
			fputs("Try `revocation --help`.\n", stderr);
			return 2;
		}
		if (c == 'h') {
			fputs(help, stdout);
			return -1;
		}
		if (c == 'l' || c == 'L') {
			*(c == 'l' ? &o->lifetime : &o->cut_lifetime) = optarg;
			if (duration_parse_ms(optarg, &ms) != 0)
				return bad_usage(options[i].name, optarg,
						 "a time is wanted, as 2s");
			continue;
		}
		o->trials[c] = strtoul(optarg, &end, 10);
		if (end == optarg || *end != '\0' || *optarg == '-' || o->trials[c] > TRIALS_MAX)
			return bad_usage(options[i].name, optarg,
					 "a number from 0 to 10000 is wanted");
	}
	if (optind != argc) {
		fprintf(stderr,
			"revocation: %s: it takes no arguments but options\n"
			"Try `revocation --help`.\n",
			argv[optind]);
		return 2;
	}
	if (o->trials[CONNECTED] + o->trials[CUT] + o->trials[APART] == 0)
		return bad_usage("trials", "0", "with no other trials nothing would be measured");
	if (duration_parse_ms(o->cut_lifetime, &ms) == 0)
		o->cut_lifetime_ns = ms * NS_PER_MS;
	return 0;
}

static void start(void)
{
	const struct reactor_config config = {.name = "bench"};
	ssize_t n = readlink("/proc/self/exe", tools, sizeof tools - 16);
	char *slash;

	if (n < 0)
		die("/proc/self/exe", strerror(errno));
	tools[n] = '\0';
	slash = strrchr(tools, '/'); /* BUILD/bench/revocation */
	snprintf(slash, 16, "/../tools");
	signal(SIGPIPE, SIG_IGN);
	wait_real = (struct peers_wait){.until = until};
	if (reactor_create(&config, &reactor) != 0 ||
	    transport_tcp_create(reactor, false, &transport) != 0)
		die("reactor", "cannot be made");
	peer_fill(block, 1, 1);
}

int main(int argc, char **argv)
{
	static const char *const names[] = {"connected", "cut", "apart"};
	static struct result results[3];
	struct options o = {{200, 200, 200}, "10s", "2s", 0};
	bool good = true;
	int rc = parse(argc, argv, &o);

	if (rc != 0)
		return MAX(rc, 0);
	start();
	if (o.trials[CONNECTED] > 0) {
		struct result *r = &results[CONNECTED];

		connected((unsigned)o.trials[CONNECTED], o.lifetime, r);
		print(names[CONNECTED], r);
		good = r->times[r->count / 2] < MEDIAN_MAX_NS;
	}
	for (enum kind kind = CUT; kind <= APART; kind++) {
		struct result *r = &results[kind];

		if (o.trials[kind] == 0)
			continue;
		cut(kind, (unsigned)o.trials[kind], o.cut_lifetime, o.cut_lifetime_ns, r);
		print(names[kind], r);
		printf("           the lifetime of a permit is %.0f ms\n", ms(o.cut_lifetime_ns));
		good = good && r->times[r->count - 1] <= o.cut_lifetime_ns;
	}
	puts(good ? "within the bounds" : "OVER a bound");
	return good ? 0 : 1;
}
