/* scale: a placement driver with a large register, driven by a simulator of hosts.
 *
 *   scale [--volumes 10000] [--chunks 100] [--nodes 200] [--seconds 30] [--register URL]
 *
 * Starts a pave-pd (a process of its own, on a new directory) and gives it evidence, nodes in
 * twenty sites, and volumes of 256 MiB chunks under secnumcloud-fr: a tenth of the nodes comes
 * last, so that there is something to level. Every volume is attached by a host with a connection
 * of its own, which asks for its permit again three tenths of its lifetime after it got the last
 * one, as pave-attach does; nodes do likewise with their leases. What these hosts and nodes are
 * asked to move they ignore. When all are attached it measures for so many seconds, and in the
 * middle asks for a plan.
 *
 * Printed: renewals a second; how old a permit was when the next one came (within a third of its
 * lifetime: renewed in time); the driver's CPU time for each; how long the plan took; the driver's
 * largest memory. Exit code 1: a bound of the design is missed. */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "engine/evidence/demo.h"
#include "engine/evidence/file.h"
#include "engine/evidence/permit.h"
#include "engine/placement/pd.h"
#include "net/rpc/rpc.h"

#define SITES	       20u
#define NODE_BYTES     (16ull << 40)
#define CHUNK_BYTES    CHUNK_SIZE_DEFAULT
#define WAIT_NS	       (600 * NS_PER_S)
#define CREATING_MAX   32u
#define OPENING_MAX    64u
#define AGES_MAX       (4u << 20)
#define PLAN_MAX_NS    (10 * NS_PER_S)
#define MEMORY_MAX     (2ull << 30)
#define PROGRESS_EVERY 2000u
#define SPREAD_ROUNDS  6u

extern char **environ;

enum kind { ADMIN, NODE, HOST };

struct peer { /* whoever talks to the driver */
	enum kind kind;
	uint32_t index;
	struct transport_conn *conn;
	struct rpc rpc;
	struct rpc_call call;
	struct reactor_timer timer;
	bool up;
	volume_id_t volume;
	generation_t generation;
	uint64_t asked_ns;
	uint64_t given_ns; /* when the driver had made the permit at the latest */
};

static struct reactor *reactor;
static struct transport *transport;
static struct demo demo;
static char dir[64], address[ADDR_SIZE_MAX];
static pid_t driver;
static uint32_t volume_count = 10000, chunk_count = 100, node_count = 200, seconds = 30;
static const char *register_url;

static struct peer admin, *nodes, *hosts;
static Pave__V1__Control *admin_reply;
static bool admin_flag, never;
static uint32_t created, creating, nodes_up, attached, opening, next_host, failures, slow_leases;
static uint64_t lease_ms = PERMIT_LIFETIME_MS * 3 / 10;

static bool measuring;
static uint32_t *ages_us, *latencies_us; /* of permits; of renewals */
static uint32_t age_count;

static _Noreturn void die(const char *what, const char *why)
{
	fprintf(stderr, "scale: %s: %s\n", what, why);
	if (driver > 0)
		kill(driver, SIGKILL);
	exit(1);
}

static uint64_t now(void)
{
	reactor_refresh(reactor);
	return reactor_now_ns(reactor);
}

static void run_for(uint64_t ns)
{
	reactor_run_until(reactor, &never, now() + ns);
}

/* -- the driver ------------------------------------------------------------------------------- */

static void write_file(const char *name, const char *text)
{
	char path[200];
	struct error err;

	snprintf(path, sizeof path, "%s/%s", dir, name);
	if (file_replace(path, text, strlen(text), 0600, &err) != 0)
		die(path, err.text);
}

static void start_driver(void)
{
	char program[4200], pd_dir[100], root[100], key[100], line[256];
	const char *argv[16] = {"pave-pd",	   "--dir", pd_dir,	   "--root", root,
				"--placement-key", key,	    "--log-level", "error"};
	posix_spawn_file_actions_t actions;
	int out[2];
	ssize_t n = readlink("/proc/self/exe", program, 4000);
	char *slash;
	size_t have = 0;

	if (n < 0 || pipe2(out, O_CLOEXEC) != 0)
		die("start", strerror(errno));
	program[n] = '\0';
	slash = strrchr(program, '/'); /* BUILD/bench/scale */
	snprintf(slash, 100, "/../tools/pave-pd");
	snprintf(pd_dir, sizeof pd_dir, "%s/pd", dir);
	snprintf(root, sizeof root, "%s/root", dir);
	snprintf(key, sizeof key, "%s/key", dir);
	if (register_url != NULL) {
		argv[9] = "--register";
		argv[10] = register_url;
	}
	posix_spawn_file_actions_init(&actions);
	posix_spawn_file_actions_adddup2(&actions, out[1], 1);
	if (posix_spawn(&driver, program, &actions, NULL, (char *const *)(uintptr_t)argv,
			environ) != 0)
		die(program, strerror(errno));
	posix_spawn_file_actions_destroy(&actions);
	close(out[1]);
	while (have + 1 < sizeof line && read(out[0], line + have, 1) == 1 && line[have] != '\n')
		have++;
	line[have] = '\0';
	close(out[0]);
	if (strncmp(line, "ready ", 6) != 0)
		die(program, "it is not ready");
	snprintf(address, sizeof address, "%.100s", line + 6);
}

static uint64_t driver_cpu_ns(void)
{
	char path[64], text[1024];
	unsigned long user = 0, system = 0;
	FILE *f;
	size_t n;

	snprintf(path, sizeof path, "/proc/%d/stat", (int)driver);
	f = fopen(path, "r");
	if (f == NULL)
		return 0;
	n = fread(text, 1, sizeof text - 1, f);
	fclose(f);
	text[n] = '\0';
	if (sscanf(strrchr(text, ')') + 1, " %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu",
		   &user, &system) != 2)
		return 0;
	return (user + system) * (NS_PER_S / (uint64_t)sysconf(_SC_CLK_TCK));
}

/* The most that it ever had in memory. */
static uint64_t driver_memory(void)
{
	char path[64], line[256];
	unsigned long kib = 0;
	FILE *f;

	snprintf(path, sizeof path, "/proc/%d/status", (int)driver);
	f = fopen(path, "r");
	while (f != NULL && fgets(line, sizeof line, f) != NULL)
		if (sscanf(line, "VmHWM: %lu kB", &kib) == 1)
			break;
	if (f != NULL)
		fclose(f);
	return (uint64_t)kib << 10;
}

/* -- peers ------------------------------------------------------------------------------------ */

static void node_lease(struct peer *p);
static void host_attach(struct peer *p);
static void host_renew(struct peer *p);

static void ask(struct peer *p, const Pave__V1__Control *m,
		void (*done)(struct rpc_call *call, int status, const Pave__V1__Control *reply,
			     const char *text))
{
	p->call.done = done;
	p->asked_ns = now();
	rpc_call_start(&p->rpc, &p->call, m, 60000);
}

static void greeted(struct rpc_call *call, int status, const Pave__V1__Control *reply,
		    const char *text)
{
	struct peer *p = container_of(call, struct peer, call);

	if (status != 0)
		die("hello", text);
	if (reply->hello_reply->standby)
		die("hello", "the driver does not lead yet");
	p->up = true;
	if (p->kind == ADMIN)
		admin_flag = true;
	else if (p->kind == NODE)
		node_lease(p);
	else
		host_attach(p);
}

static void on_ready(struct transport_conn *conn, void *arg)
{
	static const char *const roles[] = {"admin", "node", "host"};
	struct peer *p = arg;
	Pave__V1__Control m = PAVE__V1__CONTROL__INIT;
	Pave__V1__Hello hello = PAVE__V1__HELLO__INIT;

	(void)conn;
	hello.version_min = FRAME_VERSION_MIN;
	hello.version_max = FRAME_VERSION;
	hello.cluster.data = demo.cluster.bytes;
	hello.cluster.len = sizeof demo.cluster.bytes;
	hello.role = (char *)(uintptr_t)roles[p->kind];
	hello.name = (char *)(uintptr_t) "scale";
	m.body_case = PAVE__V1__CONTROL__BODY_HELLO;
	m.hello = &hello;
	ask(p, &m, greeted);
}

static void on_rx(struct transport_conn *conn, const struct frame *f, void *arg)
{
	struct peer *p = arg;

	(void)conn;
	rpc_rx(&p->rpc, f);
}

static void *on_rx_buffer(struct transport_conn *conn, const struct frame *f, void *arg)
{
	struct peer *p = arg;

	(void)conn;
	return rpc_rx_buffer(&p->rpc, f);
}

static void on_closed(struct transport_conn *conn, int reason, void *arg)
{
	(void)conn;
	(void)arg;
	die("a connection to the driver ended", err_text(reason));
}

static const struct transport_handler handler = {
    .ready = on_ready, .rx = on_rx, .rx_buffer = on_rx_buffer, .closed = on_closed};

static void on_request(struct rpc *rpc, const struct rpc_request *r, void *arg)
{
	(void)arg;
	if (r->request_id != 0)
		rpc_fail(rpc, r->request_id, -EOPNOTSUPP, "a simulated one does nothing");
}

static void peer_connect(struct peer *p, enum kind kind, uint32_t index)
{
	int rc;

	p->kind = kind;
	p->index = index;
	rc = transport_connect(transport, address, &handler, p, &p->conn);
	if (rc != 0)
		die("connect", err_text(rc));
	rpc_init(&p->rpc, p->conn, on_request, p);
}

/* -- nodes ------------------------------------------------------------------------------------ */

static void node_timer(struct reactor_timer *t)
{
	node_lease(container_of(t, struct peer, timer));
}

static void node_leased(struct rpc_call *call, int status, const Pave__V1__Control *reply,
			const char *text)
{
	struct peer *p = container_of(call, struct peer, call);

	(void)reply;
	/* A driver that is busy takes a slow request for a slow clock. */
	if (status != 0 && status != -EAGAIN && status != -E_CLOCK_SKEW)
		die("a lease", text);
	slow_leases += status != 0;
	if (status == 0 && p->given_ns == 0) {
		p->given_ns = now();
		nodes_up++;
	}
	p->timer.fire = node_timer;
	reactor_timer_arm(reactor, &p->timer, now() + (status == 0 ? lease_ms : 100) * NS_PER_MS);
}

static void node_lease(struct peer *p)
{
	Pave__V1__Control m = PAVE__V1__CONTROL__INIT;
	Pave__V1__LeaseRequest l = PAVE__V1__LEASE_REQUEST__INIT;
	char name[32], site[32], where[32], *addresses[1] = {where};
	uint8_t device[16] = {1}, nonce[16];

	snprintf(name, sizeof name, "n%03u", p->index);
	snprintf(site, sizeof site, "s%02u", p->index % SITES);
	snprintf(where, sizeof where, "127.0.0.1:%u", 10000 + p->index);
	memcpy(device + 1, &p->index, sizeof p->index);
	reactor_random(reactor, nonce, sizeof nonce);
	l.node = name;
	l.site = site;
	l.addresses = addresses;
	l.n_addresses = 1;
	l.nonce = (ProtobufCBinaryData){sizeof nonce, nonce};
	l.device = (ProtobufCBinaryData){sizeof device, device};
	l.wall = reactor_wall_ns(reactor);
	l.revocations_version = 1;
	l.root_version = 1;
	l.site_version = 1;
	l.size_bytes = NODE_BYTES;
	l.free_bytes = NODE_BYTES;
	m.body_case = PAVE__V1__CONTROL__BODY_LEASE_REQUEST;
	m.lease_request = &l;
	ask(p, &m, node_leased);
}

/* -- hosts ------------------------------------------------------------------------------------ */

static void open_hosts(void)
{
	while (opening < OPENING_MAX && next_host < volume_count) {
		opening++;
		peer_connect(&hosts[next_host], HOST, next_host);
		next_host++;
	}
}

static void host_timer(struct reactor_timer *t)
{
	host_renew(container_of(t, struct peer, timer));
}

/* A tenth of it by chance, as pave-attach does. */
static void renew_later(struct peer *p, uint64_t ms)
{
	uint32_t chance;

	reactor_random(reactor, &chance, sizeof chance);
	p->timer.fire = host_timer;
	reactor_timer_arm(reactor, &p->timer, now() + (ms - chance % (ms / 10 + 1)) * NS_PER_MS);
}

static void host_attached(struct rpc_call *call, int status, const Pave__V1__Control *reply,
			  const char *text)
{
	struct peer *p = container_of(call, struct peer, call);
	const Pave__V1__AttachReply *r;
	Pave__V1__Permit *permit;

	if (status != 0)
		die("an attachment", text);
	r = reply->attach_reply;
	permit = pave__v1__permit__unpack(NULL, r->permit->payload.len, r->permit->payload.data);
	if (permit == NULL)
		die("a permit", "does not parse");
	p->volume = r->volume;
	p->generation = permit->generation;
	pave__v1__permit__free_unpacked(permit, NULL);
	p->given_ns = p->asked_ns;
	attached++;
	opening--;
	if (attached % PROGRESS_EVERY == 0)
		fprintf(stderr, "%u attached\n", attached);
	renew_later(p, r->renew_ms);
	open_hosts();
}

static void host_attach(struct peer *p)
{
	Pave__V1__Control m = PAVE__V1__CONTROL__INIT;
	Pave__V1__Attach a = PAVE__V1__ATTACH__INIT;
	char name[32], site[32];

	snprintf(name, sizeof name, "v%05u", p->index);
	snprintf(site, sizeof site, "s%02u", p->index % SITES);
	a.volume = name;
	a.holder = (char *)(uintptr_t) "scale";
	a.holder_site = site;
	a.endpoint = (char *)(uintptr_t) "none";
	m.body_case = PAVE__V1__CONTROL__BODY_ATTACH;
	m.attach = &a;
	ask(p, &m, host_attached);
}

static void host_renewed(struct rpc_call *call, int status, const Pave__V1__Control *reply,
			 const char *text)
{
	struct peer *p = container_of(call, struct peer, call);
	const uint64_t at = now();

	(void)reply;
	if (status != 0) {
		failures++;
		fprintf(stderr, "scale: a renewal: %s\n", text);
	} else {
		if (measuring && age_count < AGES_MAX) {
			ages_us[age_count] = (uint32_t)((at - p->given_ns) / 1000);
			latencies_us[age_count] = (uint32_t)((at - p->asked_ns) / 1000);
			age_count++;
		}
		/* It cannot have been made before it was asked for. */
		p->given_ns = p->asked_ns;
	}
	renew_later(p, lease_ms);
}

static void host_renew(struct peer *p)
{
	Pave__V1__Control m = PAVE__V1__CONTROL__INIT;
	Pave__V1__Renew r = PAVE__V1__RENEW__INIT;

	r.volume = p->volume;
	r.generation = p->generation;
	m.body_case = PAVE__V1__CONTROL__BODY_RENEW;
	m.renew = &r;
	ask(p, &m, host_renewed);
}

/* -- the admin -------------------------------------------------------------------------------- */

static void admin_answered(struct rpc_call *call, int status, const Pave__V1__Control *reply,
			   const char *text)
{
	size_t size;
	uint8_t *packed;

	(void)call;
	if (status != 0)
		die("the driver refuses", text);
	size = pave__v1__control__get_packed_size(reply);
	packed = malloc(size + 1);
	if (packed == NULL)
		die("admin", "no memory");
	pave__v1__control__pack(reply, packed);
	admin_reply = pave__v1__control__unpack(NULL, size, packed);
	free(packed);
	admin_flag = true;
}

/* The reply is the caller's. */
static Pave__V1__Control *admin_ask(const Pave__V1__Control *m)
{
	admin_flag = false;
	ask(&admin, m, admin_answered);
	if (reactor_run_until(reactor, &admin_flag, now() + WAIT_NS) != 0)
		die("admin", "no answer");
	return admin_reply;
}

static void submit_evidence(void)
{
	const int64_t wall = reactor_wall_ns(reactor);
	const int64_t day = 86400 * (int64_t)NS_PER_S;
	struct demo_entry entries[SITES];
	char names[SITES][8], *text;
	Pave__V1__Control m = PAVE__V1__CONTROL__INIT;
	Pave__V1__RevocationsPut put = PAVE__V1__REVOCATIONS_PUT__INIT;
	struct error err;

	for (unsigned i = 0; i < SITES; i++) {
		Pave__V1__Control s = PAVE__V1__CONTROL__INIT;
		Pave__V1__SiteAdd add = PAVE__V1__SITE_ADD__INIT;

		snprintf(names[i], sizeof names[i], "s%02u", i);
		if (demo_site(&demo, names[i], 1, wall - day, wall + 30 * day, &text, &err) != 0)
			die("site", err.text);
		add.envelope = (ProtobufCBinaryData){strlen(text), (uint8_t *)text};
		s.body_case = PAVE__V1__CONTROL__BODY_SITE_ADD;
		s.site_add = &add;
		pave__v1__control__free_unpacked(admin_ask(&s), NULL);
		free(text);
		entries[i] = (struct demo_entry){names[i], 1, 0};
	}
	if (demo_revocations(&demo, 1, wall - (int64_t)NS_PER_S, wall + day, entries, SITES, &text,
			     &err) != 0)
		die("snapshot", err.text);
	put.envelope = (ProtobufCBinaryData){strlen(text), (uint8_t *)text};
	m.body_case = PAVE__V1__CONTROL__BODY_REVOCATIONS_PUT;
	m.revocations_put = &put;
	pave__v1__control__free_unpacked(admin_ask(&m), NULL);
	free(text);
}

struct creation {
	struct rpc_call call;
	bool busy;
};
static struct creation creations[CREATING_MAX];

static void create_some(void);

static void volume_created(struct rpc_call *call, int status, const Pave__V1__Control *reply,
			   const char *text)
{
	struct creation *c = container_of(call, struct creation, call);

	(void)reply;
	if (status != 0)
		die("a volume", text);
	c->busy = false;
	created++;
	if (created % PROGRESS_EVERY == 0)
		fprintf(stderr, "%u volumes\n", created);
	create_some();
}

static void create_some(void)
{
	for (unsigned i = 0; i < CREATING_MAX && creating < volume_count; i++) {
		Pave__V1__Control m = PAVE__V1__CONTROL__INIT;
		Pave__V1__VolumeCreate v = PAVE__V1__VOLUME_CREATE__INIT;
		char name[32];

		if (creations[i].busy)
			continue;
		snprintf(name, sizeof name, "v%05u", creating++);
		v.name = name;
		v.size = chunk_count * CHUNK_BYTES;
		v.chunk_size = CHUNK_BYTES;
		v.policy = (char *)(uintptr_t) "secnumcloud-fr";
		m.body_case = PAVE__V1__CONTROL__BODY_VOLUME_CREATE;
		m.volume_create = &v;
		creations[i].busy = true;
		creations[i].call.done = volume_created;
		rpc_call_start(&admin.rpc, &creations[i].call, &m, 120000);
	}
}

static void wait_count(const char *what, const uint32_t *count, uint32_t wanted)
{
	const uint64_t end = now() + WAIT_NS;

	while (*count < wanted) {
		run_for(20 * NS_PER_MS);
		if (now() > end)
			die(what, "it takes too long");
	}
}

/* How long the driver took, and what it planned. */
static uint64_t plan(uint64_t *ret_moves)
{
	Pave__V1__Control m = PAVE__V1__CONTROL__INIT;
	Pave__V1__RebalancePlan p = PAVE__V1__REBALANCE_PLAN__INIT;
	const uint64_t begun = now();
	Pave__V1__Control *reply;
	uint64_t took;

	p.balance = true;
	p.moves_max = 100;
	m.body_case = PAVE__V1__CONTROL__BODY_REBALANCE_PLAN;
	m.rebalance_plan = &p;
	reply = admin_ask(&m);
	took = now() - begun;
	*ret_moves = reply->rebalance_plan_reply->move_count;
	pave__v1__control__free_unpacked(reply, NULL);
	return took;
}

/* -- figures ---------------------------------------------------------------------------------- */

static int compare(const void *a, const void *b)
{
	const uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

	return x < y ? -1 : x > y;
}

static double part_ms(const uint32_t *sorted, double part)
{
	return sorted[(size_t)((double)(age_count - 1) * part)] / 1e3;
}

static bool report(uint64_t cpu_ns, uint64_t wall_ns, uint64_t plan_ns, uint64_t moves)
{
	const uint32_t third_us = PERMIT_LIFETIME_MS * 1000 / 3;
	const uint64_t memory = driver_memory();
	uint32_t late = 0;
	bool good;

	if (age_count == 0)
		die("measuring", "no renewal");
	qsort(ages_us, age_count, sizeof *ages_us, compare);
	qsort(latencies_us, age_count, sizeof *latencies_us, compare);
	while (late < age_count && ages_us[age_count - 1 - late] > third_us)
		late++;
	good = late == 0 && failures == 0 && plan_ns < PLAN_MAX_NS && memory < MEMORY_MAX;
	printf("register: %u chunks in %u volumes, %u replicas each, on %u nodes; %u attached\n",
	       volume_count * chunk_count, volume_count, 3, node_count, attached);
	printf("permits: %.0f renewals a second over %.0f s; answered in %.2f ms (median), %.2f ms "
	       "(99 %%), %.2f ms (longest)\n",
	       age_count / ((double)wall_ns / 1e9), (double)wall_ns / 1e9,
	       part_ms(latencies_us, 0.5), part_ms(latencies_us, 0.99), part_ms(latencies_us, 1));
	printf("         the next one came after %.0f ms (median), %.0f ms (99 %%), %.0f ms "
	       "(longest); a third of the lifetime is %.0f ms: %u came later, %u failed\n",
	       part_ms(ages_us, 0.5), part_ms(ages_us, 0.99), part_ms(ages_us, 1), third_us / 1e3,
	       late, failures);
	printf(
	    "driver: %.0f %% of a core, %.0f us for each renewal and what else there was; largest "
	    "memory %.0f MiB\n",
	    100.0 * (double)cpu_ns / (double)wall_ns, (double)cpu_ns / 1e3 / age_count,
	    (double)memory / (1 << 20));
	printf("plan: %llu moves in %.2f s\n", (unsigned long long)moves, (double)plan_ns / 1e9);
	puts(good ? "within the bounds" : "OVER a bound");
	return good;
}

/* -- all of it -------------------------------------------------------------------------------- */

static void make_cluster(void)
{
	const int64_t wall = reactor_wall_ns(reactor);
	const int64_t day = 86400 * (int64_t)NS_PER_S;
	struct error err;
	char *text;

	snprintf(dir, sizeof dir, "/tmp/pave-scale-XXXXXX");
	if (mkdtemp(dir) == NULL)
		die(dir, strerror(errno));
	if (demo_init(&demo, NULL, &err) != 0 ||
	    demo_root(&demo, 1, wall - day, wall + 30 * day, &text, &err) != 0)
		die("authority", err.text);
	write_file("root", text);
	free(text);
	text = signing_key_private_pem(demo_key(&demo, DEMO_PLACEMENT));
	write_file("key", text);
	free(text);
}

static void remove_dir(void)
{
	pid_t pid;

	kill(driver, SIGKILL);
	waitpid(driver, NULL, 0);
	if (posix_spawnp(
		&pid, "rm", NULL, NULL,
		(char *const[]){(char *)(uintptr_t) "rm", (char *)(uintptr_t) "-rf", dir, NULL},
		environ) == 0)
		waitpid(pid, NULL, 0);
}

static void build(void)
{
	const uint32_t first = node_count - node_count / 10;

	peer_connect(&admin, ADMIN, 0);
	if (reactor_run_until(reactor, &admin_flag, now() + WAIT_NS) != 0)
		die("the driver", "does not greet");
	submit_evidence();
	for (uint32_t i = 0; i < first; i++)
		peer_connect(&nodes[i], NODE, i);
	wait_count("nodes", &nodes_up, first);
	create_some();
	wait_count("volumes", &created, volume_count);
	open_hosts();
	wait_count("attachments", &attached, volume_count);
	for (uint32_t i = first; i < node_count; i++)
		peer_connect(&nodes[i], NODE, i);
	wait_count("nodes", &nodes_up, node_count);
	run_for(SPREAD_ROUNDS * lease_ms * NS_PER_MS); /* what came in one burst spreads */
}

static bool measure(void)
{
	const uint64_t half = seconds * NS_PER_S / 2;
	uint64_t begun, cpu, plan_ns, moves;

	measuring = true;
	begun = now();
	cpu = driver_cpu_ns();
	run_for(half);
	plan_ns = plan(&moves);
	run_for(half);
	measuring = false;
	return report(driver_cpu_ns() - cpu, now() - begun, plan_ns, moves);
}

static const char help[] =
    "Usage: scale [OPTION...]\n"
    "A placement driver of its own with a large register, driven by simulated hosts and nodes.\n\n"
    "  --volumes N      attached volumes, each by a host of its own; up to 60000  (10000)\n"
    "  --chunks N       of each volume, of 256 MiB; up to 4096                    (100)\n"
    "  --nodes N        in twenty sites                                           (200)\n"
    "  --seconds N      of measuring, 2 to 3600                                   (30)\n"
    "  --register URL   etcd://HOST:PORT; else RocksDB\n"
    "  --help\n\n"
    "Printed: renewals a second, and whether each came within a third of the lifetime; the\n"
    "driver's CPU time and memory; how long a plan took.\n"
    "Exit status: 0 within the bounds (every renewal, a plan in 10 s, 2 GiB), 1 not, 2 usage.\n";

/* -1: all is said. */
static int parse(int argc, char **argv)
{
	static const struct option options[] = {{"volumes", required_argument, NULL, 'v'},
						{"chunks", required_argument, NULL, 'c'},
						{"nodes", required_argument, NULL, 'n'},
						{"seconds", required_argument, NULL, 's'},
						{"register", required_argument, NULL, 'r'},
						{"help", no_argument, NULL, 'h'},
						{0}};
	int c;

	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
		if (c == 'v')
			volume_count = (uint32_t)strtoul(optarg, NULL, 10);
		else if (c == 'c')
			chunk_count = (uint32_t)strtoul(optarg, NULL, 10);
		else if (c == 'n')
			node_count = (uint32_t)strtoul(optarg, NULL, 10);
		else if (c == 's')
			seconds = (uint32_t)strtoul(optarg, NULL, 10);
		else if (c == 'r')
			register_url = optarg;
		else if (c == 'h')
			fputs(help, stdout);
		else
			fputs("Try `scale --help`.\n", stderr);
		if (c == 'h' || c == '?')
			return c == 'h' ? -1 : 2;
	}
	if (optind != argc || volume_count == 0 || volume_count > 60000 || chunk_count == 0 ||
	    chunk_count > 4096 || node_count < SITES || node_count > PD_NODES_MAX || seconds < 2 ||
	    seconds > 3600) {
		fprintf(stderr,
			"scale: %u volumes of %u chunks on %u nodes for %u s%s%s: one of them is "
			"out of "
			"its bounds, or no option\nTry `scale --help`.\n",
			volume_count, chunk_count, node_count, seconds,
			optind != argc ? ", and " : "", optind != argc ? argv[optind] : "");
		return 2;
	}
	return 0;
}

int main(int argc, char **argv)
{
	const struct reactor_config config = {.name = "scale"};
	struct rlimit files;
	bool good;
	int rc = parse(argc, argv);

	if (rc != 0)
		return MAX(rc, 0);
	signal(SIGPIPE, SIG_IGN);
	if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
		files.rlim_cur = files.rlim_max;
		setrlimit(RLIMIT_NOFILE, &files);
	}
	nodes = calloc(node_count, sizeof *nodes);
	hosts = calloc(volume_count, sizeof *hosts);
	ages_us = malloc(AGES_MAX * sizeof *ages_us);
	latencies_us = malloc(AGES_MAX * sizeof *latencies_us);
	if (nodes == NULL || hosts == NULL || ages_us == NULL || latencies_us == NULL ||
	    reactor_create(&config, &reactor) != 0 ||
	    transport_tcp_create(reactor, false, &transport) != 0)
		die("start", "no memory, or no io_uring");
	make_cluster();
	start_driver();
	build();
	good = measure();
	remove_dir();
	return good ? 0 : 1;
}
