/* Unit tests of the register on etcd (engine/kv/etcd.h), on an etcd that each test starts for
 * itself on the loopback. http_post is wrapped: an answer may be lost, the leader may die at any
 * request, and a request may come a second time, late. */
#include <arpa/inet.h>
#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "engine/base/types.h"
#include "engine/kv/etcd.h"
#include "engine/kv/http.h"

#define PATIENCE_NS (120 * NS_PER_S)
/* Leases: where nobody is to lose one, because a machine may take a break; and where somebody is.
 */
#define LONG_S	60u
#define SHORT_S 4u

enum { SMALL, LARGE, FAMILIES };

static char dir[64];
static unsigned port;
static pid_t server;
static struct reactor *reactor;

/* -- requests that fail ----------------------------------------------------------------------- */

int __real_http_post(struct http *h, const char *path, const json_t *body, uint32_t timeout_ms,
		     json_t **ret_reply, struct error *err);
int __wrap_http_post(struct http *h, const char *path, const json_t *body, uint32_t timeout_ms,
		     json_t **ret_reply, struct error *err);

static atomic_int posts_left = -1; /* of transactions, until nothing is answered; -1: no end */
static atomic_bool sends_last;	   /* the one that is not answered is carried out */
static atomic_bool dead;
static atomic_bool loses_once; /* only one answer is lost */
static atomic_bool mutes_a;    /* member a lays its leader's key down, and etcd never hears it */
static atomic_int range_max;   /* pairs that etcd answers with in time; 0: as many as asked for */
static atomic_int lease_s;     /* that etcd grants in place of what is asked for; 0: as asked */
static json_t *kept;	       /* the last transaction */

/* The leader's key as member a writes it begins with {"name":"a", in base64. */
static bool is_of_a(const json_t *body)
{
	char *text = json_dumps(body, JSON_COMPACT);
	const bool found = strstr(text, "\"eyJuYW1lIjoiYSIs") != NULL;

	free(text);
	return found;
}

int __wrap_http_post(struct http *h, const char *path, const json_t *body, uint32_t timeout_ms,
		     json_t **ret_reply, struct error *err)
{
	const bool counts = strcmp(path, "/v3/kv/txn") == 0;
	json_t *dropped = NULL;

	if (atomic_load(&dead) || (atomic_load(&mutes_a) && counts && is_of_a(body)))
		return error_set(err, -E_UNREACHABLE, "the test does not let it through");
	if (atomic_load(&range_max) > 0 && strcmp(path, "/v3/kv/range") == 0 &&
	    json_integer_value(json_object_get(body, "limit")) > atomic_load(&range_max))
		return error_set(err, -E_UNREACHABLE, "the test takes too long for that");
	if (atomic_load(&lease_s) > 0 && strcmp(path, "/v3/lease/grant") == 0) {
		json_t *longer = json_pack("{s:i}", "TTL", atomic_load(&lease_s));
		int rc = __real_http_post(h, path, longer, timeout_ms, ret_reply, err);

		json_decref(longer);
		return rc;
	}
	if (counts && atomic_load(&posts_left) >= 0 && atomic_fetch_sub(&posts_left, 1) == 0) {
		atomic_store(&dead, !atomic_load(&loses_once));
		if (atomic_load(&sends_last) &&
		    __real_http_post(h, path, body, timeout_ms, &dropped, err) == 0)
			json_decref(dropped);
		return error_set(err, -E_UNREACHABLE, "the test loses this answer");
	}
	if (counts && json_array_size(json_object_get(body, "failure")) == 2) {
		json_decref(kept);
		kept = json_deep_copy(body);
	}
	return __real_http_post(h, path, body, timeout_ms, ret_reply, err);
}

/* -- the server ------------------------------------------------------------------------------- */

static unsigned free_port(void)
{
	struct sockaddr_in a = {.sin_family = AF_INET};
	socklen_t size = sizeof a;
	int fd = socket(AF_INET, SOCK_STREAM, 0);

	a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	ck_assert_int_eq(bind(fd, (struct sockaddr *)&a, sizeof a), 0);
	ck_assert_int_eq(getsockname(fd, (struct sockaddr *)&a, &size), 0);
	close(fd);
	return ntohs(a.sin_port);
}

static void pause_ms(unsigned ms)
{
	const struct timespec ts = {.tv_sec = ms / 1000, .tv_nsec = (long)(ms % 1000) * 1000000};

	nanosleep(&ts, NULL);
}

static bool answers(void)
{
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
	int fd = socket(AF_INET, SOCK_STREAM, 0);
	bool ok;

	a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	ok = connect(fd, (struct sockaddr *)&a, sizeof a) == 0;
	close(fd);
	return ok;
}

static char ca[96], server_cert[96], server_key[96], client_cert[96], client_key[96], other_ca[96];

/* Of the test's own authority and another one. */
static void make_certificates(void)
{
	static const char script[] =
	    "cd \"$1\"\n"
	    "new='openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days "
	    "2'\n"
	    "for ca in ca other-ca; do $new -keyout $ca.key -out $ca.pem -subj /CN=$ca; done\n"
	    "for who in server client; do\n"
	    "  $new -CA ca.pem -CAkey ca.key -keyout $who.key -out $who.pem -subj /CN=$who \\\n"
	    "    -addext subjectAltName=IP:127.0.0.1 -addext basicConstraints=CA:FALSE\n"
	    "done\n";
	pid_t pid = fork();
	int status;

	ck_assert_int_ge(pid, 0);
	if (pid == 0) {
		dup2(open("/dev/null", O_RDWR), 2);
		execlp("sh", "sh", "-ec", script, "sh", dir, NULL);
		_exit(127);
	}
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	ck_assert_msg(status == 0, "no certificates: is openssl there?");
	snprintf(ca, sizeof ca, "%s/ca.pem", dir);
	snprintf(other_ca, sizeof other_ca, "%s/other-ca.pem", dir);
	snprintf(server_cert, sizeof server_cert, "%s/server.pem", dir);
	snprintf(server_key, sizeof server_key, "%s/server.key", dir);
	snprintf(client_cert, sizeof client_cert, "%s/client.pem", dir);
	snprintf(client_key, sizeof client_key, "%s/client.key", dir);
}

/* With TLS it wants to see certificates of its authority too. */
static void start_server(bool tls)
{
	char client[64], peer[64], member[80], data[96];

	port = free_port();
	snprintf(client, sizeof client, "%s://127.0.0.1:%u", tls ? "https" : "http", port);
	snprintf(peer, sizeof peer, "http://127.0.0.1:%u", free_port());
	snprintf(member, sizeof member, "t=%s", peer);
	snprintf(data, sizeof data, "%s/data", dir);
	server = fork();
	ck_assert_int_ge(server, 0);
	if (server == 0) {
		int null = open("/dev/null", O_RDWR);

		prctl(PR_SET_PDEATHSIG, SIGKILL);
		dup2(null, 1);
		dup2(null, 2);
		execlp("etcd", "etcd", "--name", "t", "--data-dir", data, "--listen-client-urls",
		       client, "--advertise-client-urls", client, "--listen-peer-urls", peer,
		       "--initial-advertise-peer-urls", peer, "--initial-cluster", member,
		       tls ? "--client-cert-auth" : NULL, "--trusted-ca-file", ca, "--cert-file",
		       server_cert, "--key-file", server_key, NULL);
		_exit(127);
	}
	for (int i = 0; i < 600 && !answers(); i++) {
		ck_assert_msg(waitpid(server, NULL, WNOHANG) == 0,
			      "etcd does not run: `tools/packages test` installs it");
		pause_ms(50);
	}
	ck_assert(answers());
}

static void set_up_any(bool tls)
{
	struct reactor_config config = {.name = "test", .worker_count = 2 * ETCD_WORKERS};

	snprintf(dir, sizeof dir, "/tmp/pave-test-etcd-XXXXXX");
	ck_assert_ptr_nonnull(mkdtemp(dir));
	if (tls)
		make_certificates();
	start_server(tls);
	ck_assert_int_eq(reactor_create(&config, &reactor), 0);
}

static void set_up(void)
{
	set_up_any(false);
}

static void set_up_tls(void)
{
	set_up_any(true);
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	(void)st;
	(void)type;
	(void)ftw;
	return remove(path);
}

static void tear_down(void)
{
	reactor_destroy(reactor);
	kill(server, SIGKILL);
	waitpid(server, NULL, 0);
	nftw(dir, remove_one, 16, FTW_DEPTH | FTW_PHYS);
	json_decref(kept);
	kept = NULL;
}

/* -- members ---------------------------------------------------------------------------------- */

struct member {
	struct etcd *etcd;
	bool elected, lost, stopped;
	unsigned elections;
};

static bool *waited;

static bool waits_for(bool *flag, uint64_t ns)
{
	waited = flag;
	reactor_refresh(reactor);
	return reactor_run_until(reactor, flag, reactor_now_ns(reactor) + ns) == 0;
}

static void on_elected(void *arg)
{
	struct member *m = arg;

	m->elected = true;
	m->elections++;
}

static void on_lost(void *arg)
{
	struct member *m = arg;

	m->lost = true;
}

static void on_stopped(void *arg)
{
	struct member *m = arg;

	m->stopped = true;
}

static void join_with(struct member *m, const char *name, uint32_t ttl_s, struct http_tls tls)
{
	char servers[64], address[64];
	struct error err = {0};
	struct etcd_config config = {.reactor = reactor,
				     .prefix = "/test/",
				     .name = name,
				     .address = address,
				     .ttl_s = ttl_s,
				     .tls = tls,
				     .family_count = FAMILIES,
				     .large_families = 1u << LARGE,
				     .elected = on_elected,
				     .lost = on_lost,
				     .arg = m};

	*m = (struct member){.etcd = NULL};
	snprintf(servers, sizeof servers, "127.0.0.1:%u", port);
	snprintf(address, sizeof address, "%s:1", name);
	ck_assert_int_eq(drivers_parse(servers, &config.servers, &err), 0);
	ck_assert_msg(etcd_open(&config, &m->etcd, &err) == 0, "%s", err.text);
}

static void join_as(struct member *m, const char *name, uint32_t ttl_s)
{
	join_with(m, name, ttl_s, (struct http_tls){.on = false});
}

static bool comes_to_issue(struct member *m)
{
	bool never = false;

	for (int i = 0; i < 600 && !etcd_may_issue(m->etcd); i++)
		waits_for(&never, NS_PER_S / 10);
	return etcd_may_issue(m->etcd);
}

static void lead(struct member *m, const char *name, uint32_t ttl_s)
{
	join_as(m, name, ttl_s);
	ck_assert(waits_for(&m->elected, PATIENCE_NS));
	ck_assert(comes_to_issue(m));
}

static void leave(struct member *m)
{
	etcd_stop(m->etcd, on_stopped, m);
	ck_assert(waits_for(&m->stopped, PATIENCE_NS));
}

/* -- what is in it ---------------------------------------------------------------------------- */

static bool finished;
static int last_status;

static void commit_done(struct kv_op *op, int status)
{
	(void)op;
	last_status = status;
	finished = true;
}

static struct kv_op op = {.done = commit_done};

static void begin_commit(struct member *m, struct kv_batch *b)
{
	finished = false;
	last_status = 1;
	kv_commit(etcd_kv(m->etcd), b, &op);
	ck_assert(!finished);
}

static int commit(struct member *m, struct kv_batch *b)
{
	begin_commit(m, b);
	ck_assert(waits_for(&finished, PATIENCE_NS));
	return last_status;
}

static void put(struct member *m, struct kv_batch *b, uint32_t family, const char *key,
		const char *value)
{
	kv_batch_put(etcd_kv(m->etcd), b, family, key, strlen(key), value, strlen(value));
}

static int put_one(struct member *m, uint32_t family, const char *key, const char *value)
{
	struct kv_batch *b = kv_batch_create(etcd_kv(m->etcd));

	put(m, b, family, key, value);
	return commit(m, b);
}

static char scanned[4096];

static int append(const void *key, size_t key_size, const void *value, size_t value_size, void *arg)
{
	size_t len = strlen(scanned);

	(void)arg;
	snprintf(scanned + len, sizeof scanned - len, "%.*s=%.*s ", (int)key_size,
		 (const char *)key, (int)value_size, (const char *)value);
	return 0;
}

static const char *scan(struct member *m, uint32_t family, const char *prefix)
{
	scanned[0] = '\0';
	ck_assert_int_eq(kv_scan(etcd_kv(m->etcd), family, prefix, strlen(prefix), append, NULL),
			 0);
	return scanned;
}

static void get_done(struct kv_get_op *get, int status)
{
	(void)get;
	last_status = status;
	finished = true;
}

static char *got;
static size_t got_size;

static int get(struct member *m, uint32_t family, const char *key)
{
	struct kv_get_op get_op = {
	    .done = get_done, .family = family, .key_size = strlen(key), .value_max = 8 << 20};

	free(got);
	got = malloc(get_op.value_max);
	get_op.value = got;
	memcpy(get_op.key, key, get_op.key_size);
	finished = false;
	kv_get(etcd_kv(m->etcd), &get_op);
	ck_assert(waits_for(&finished, PATIENCE_NS));
	got_size = get_op.value_size;
	return last_status;
}

/* -- tests ------------------------------------------------------------------------------------ */

START_TEST(what_is_committed_is_there)
{
	struct member m;
	struct kv_batch *b;

	lead(&m, "a", LONG_S);
	etcd_loaded(m.etcd);
	b = kv_batch_create(etcd_kv(m.etcd));
	put(&m, b, SMALL, "x1", "one");
	put(&m, b, SMALL, "x2", "two");
	put(&m, b, SMALL, "y", "three");
	put(&m, b, LARGE, "x1", "other");
	put(&m, b, SMALL, "x2", "two again"); /* the last one counts */
	ck_assert_int_eq(commit(&m, b), 0);
	ck_assert_str_eq(scan(&m, SMALL, ""), "x1=one x2=two again y=three ");
	ck_assert_str_eq(scan(&m, SMALL, "x"), "x1=one x2=two again ");
	ck_assert_str_eq(scan(&m, LARGE, ""), "x1=other ");
	b = kv_batch_create(etcd_kv(m.etcd));
	kv_batch_delete(etcd_kv(m.etcd), b, SMALL, "x1", 2);
	kv_batch_delete(etcd_kv(m.etcd), b, SMALL, "y", 1);
	put(&m, b, SMALL, "y", "back");
	put(&m, b, SMALL, "z", "short-lived");
	kv_batch_delete(etcd_kv(m.etcd), b, SMALL, "z", 1);
	ck_assert_int_eq(commit(&m, b), 0);
	ck_assert_str_eq(scan(&m, SMALL, ""), "x2=two again y=back ");
	b = kv_batch_create(etcd_kv(m.etcd));
	put(&m, b, SMALL, "a", "in the range");
	kv_batch_delete_range(etcd_kv(m.etcd), b, SMALL, "a", 1, "y", 1);
	put(&m, b, SMALL, "b", "after it");
	ck_assert_int_eq(commit(&m, b), 0);
	ck_assert_str_eq(scan(&m, SMALL, ""), "b=after it y=back ");
	ck_assert_int_eq(get(&m, SMALL, "y"), 0);
	ck_assert_uint_eq(got_size, 4);
	ck_assert_int_eq(get(&m, SMALL, "x"), -ENOENT);
	ck_assert_int_eq(commit(&m, kv_batch_create(etcd_kv(m.etcd))), 0);
	leave(&m);
}
END_TEST

START_TEST(a_value_may_be_larger_than_a_request)
{
	const size_t size = (3 << 20) + 17;
	char *large = malloc(size);
	struct member m;
	struct kv_batch *b;

	for (size_t i = 0; i < size; i++)
		large[i] = (char)('a' + i * 7 % 23);
	lead(&m, "a", LONG_S);
	etcd_loaded(m.etcd);
	b = kv_batch_create(etcd_kv(m.etcd));
	kv_batch_put(etcd_kv(m.etcd), b, SMALL, "large", 5, large, size);
	put(&m, b, SMALL, "next", "one");
	ck_assert_int_eq(commit(&m, b), 0);
	ck_assert_int_eq(get(&m, SMALL, "large"), 0);
	ck_assert_uint_eq(got_size, size);
	ck_assert_mem_eq(got, large, size);
	/* Shorter, and longer again: nothing of what was there before comes back. */
	for (size_t next = size / 3; next < size; next += size / 3) {
		memset(large, 'z', next);
		b = kv_batch_create(etcd_kv(m.etcd));
		kv_batch_put(etcd_kv(m.etcd), b, SMALL, "large", 5, large, next);
		ck_assert_int_eq(commit(&m, b), 0);
		ck_assert_int_eq(get(&m, SMALL, "large"), 0);
		ck_assert_uint_eq(got_size, next);
		ck_assert_mem_eq(got, large, next);
	}
	b = kv_batch_create(etcd_kv(m.etcd));
	kv_batch_delete(etcd_kv(m.etcd), b, SMALL, "large", 5);
	ck_assert_int_eq(commit(&m, b), 0);
	ck_assert_str_eq(scan(&m, SMALL, ""), "next=one ");
	leave(&m);
	free(large);
}
END_TEST

START_TEST(one_leads_and_the_other_takes_over)
{
	struct member a, b;
	const struct etcd_member *members;
	bool never = false;

	lead(&a, "a", LONG_S);
	ck_assert_int_eq(put_one(&a, SMALL, "k", "of a"), 0);
	join_as(&b, "b", LONG_S);
	ck_assert(!waits_for(&b.elected, 2 * NS_PER_S)); /* it has looked eight times */
	ck_assert(!etcd_may_issue(b.etcd));
	ck_assert_str_eq(etcd_leader(b.etcd)->address, "a:1");
	for (int i = 0; i < 600 && etcd_members(b.etcd, &members) != 2; i++)
		waits_for(&never, NS_PER_S / 10);
	ck_assert_uint_eq(etcd_members(b.etcd, &members), 2);
	leave(&a);
	ck_assert(waits_for(&b.elected, PATIENCE_NS));
	ck_assert(comes_to_issue(&b));
	ck_assert_str_eq(scan(&b, SMALL, ""), "k=of a ");
	leave(&b);
}
END_TEST

/* A leader that is not heard of any more stops by itself, before another begins; it can change
 * nothing when it comes back. */
START_TEST(a_leader_that_is_cut_off_stops_first)
{
	struct member a, b;
	bool never = false;

	lead(&a, "a", SHORT_S);
	ck_assert_int_eq(put_one(&a, SMALL, "k", "of a"), 0);
	/* b lives in the same process: only a is cut off, by a stop of its beats. */
	etcd_yield(a.etcd);
	ck_assert(waits_for(&a.lost, PATIENCE_NS));
	ck_assert(!etcd_may_issue(a.etcd));
	ck_assert_int_eq(put_one(&a, SMALL, "k", "too late"), -EIO);
	join_as(&b, "b", SHORT_S);
	ck_assert(waits_for(&b.elected, PATIENCE_NS));
	ck_assert_int_eq(put_one(&a, SMALL, "k", "too late"), -EIO);
	ck_assert_str_eq(scan(&b, SMALL, ""), "k=of a ");
	etcd_follow(a.etcd);
	ck_assert(!waits_for(&never, 1 * NS_PER_S));
	ck_assert(!etcd_may_issue(a.etcd));
	leave(&a);
	leave(&b);
}
END_TEST

/* a leads for short times, b follows, and for two of these nobody takes what a touches. On a
 * machine that stands still for so long a does lose it: then once more. */
static void lead_beside(struct member *a, struct member *b)
{
	for (int tries = 0; tries < 5; tries++) {
		lead(a, "a", SHORT_S);
		ck_assert_int_eq(put_one(a, SMALL, "k", "of a"), 0);
		join_as(b, "b", LONG_S); /* what counts is how long a may issue */
		if (!waits_for(&b->elected, 2 * SHORT_S * NS_PER_S) && !a->lost)
			return;
		leave(a);
		leave(b);
	}
	ck_abort_msg("what is touched was taken, five times");
}

/* A new leader of etcd lets every lease begin anew: so does this one, for ten minutes. Whoever
 * follows counts for itself how long the key was not touched. */
START_TEST(a_key_that_stands_still_is_taken)
{
	struct member a, b;

	atomic_store(&lease_s, 600);
	lead_beside(&a, &b);
	ck_assert_int_eq(put_one(&a, SMALL, "k", "of a still"), 0);
	atomic_store(&mutes_a, true);
	ck_assert(waits_for(&b.elected, PATIENCE_NS));
	ck_assert(!etcd_may_issue(a.etcd));
	ck_assert_int_eq(put_one(&a, SMALL, "k", "too late"), -EIO);
	ck_assert(comes_to_issue(&b));
	ck_assert_str_eq(scan(&b, SMALL, ""), "k=of a still ");
	atomic_store(&mutes_a, false);
	ck_assert(a.lost || waits_for(&a.lost, PATIENCE_NS));
	ck_assert(etcd_may_issue(b.etcd));
	atomic_store(&lease_s, 0);
	etcd_follow(a.etcd);
	leave(&a);
	leave(&b);
}
END_TEST

START_TEST(without_etcd_all_waits_and_goes_on)
{
	struct member m;
	struct kv_batch *b;
	bool never = false;

	lead(&m, "a", ETCD_TTL_MIN_S);
	etcd_loaded(m.etcd);
	kill(server, SIGSTOP);
	b = kv_batch_create(etcd_kv(m.etcd));
	put(&m, b, SMALL, "k", "v");
	begin_commit(&m, b);
	ck_assert(!waits_for(&never, 4 * NS_PER_S)); /* two leases long */
	ck_assert(!finished);
	ck_assert(!etcd_may_issue(m.etcd));
	ck_assert(!m.lost);
	kill(server, SIGCONT);
	ck_assert(waits_for(&finished, PATIENCE_NS));
	/* It either leads on, or knows that it does not: its lease may have run out first. */
	if (last_status == 0) {
		ck_assert_str_eq(scan(&m, SMALL, ""), "k=v ");
		for (int i = 0; i < 600 && !etcd_may_issue(m.etcd) && !m.lost; i++)
			waits_for(&never, NS_PER_S / 10);
	} else {
		ck_assert(m.lost || waits_for(&m.lost, PATIENCE_NS));
	}
	if (m.lost) {
		m.elected = false;
		etcd_follow(m.etcd);
		ck_assert(waits_for(&m.elected, PATIENCE_NS));
	}
	ck_assert(comes_to_issue(&m));
	leave(&m);
}
END_TEST

/* -- whole or not at all ---------------------------------------------------------------------- */

#define MANY 250 /* three pieces: a journal of three, a mark, three, and the end */

static struct kv_batch *many(struct member *m, const char *value)
{
	struct kv_batch *b = kv_batch_create(etcd_kv(m->etcd));
	char key[16];

	for (int i = 0; i < MANY; i++) {
		snprintf(key, sizeof key, "k%03d", i);
		put(m, b, SMALL, key, value);
	}
	return b;
}

struct count {
	int old, new;
};

static int count_one(const void *key, size_t key_size, const void *value, size_t value_size,
		     void *arg)
{
	struct count *c = arg;

	(void)key;
	(void)key_size;
	ck_assert_uint_eq(value_size, 3);
	c->old += memcmp(value, "old", 3) == 0;
	c->new += memcmp(value, "new", 3) == 0;
	return 0;
}

/* The leader dies at its n-th transaction. true: it did not come so far. */
static bool dies_at(int n, bool sent)
{
	struct count c = {0, 0};
	struct member a, b;
	bool survived, told;

	lead(&a, "a", LONG_S);
	etcd_loaded(a.etcd);
	ck_assert_int_eq(commit(&a, many(&a, "old")), 0);
	atomic_store(&sends_last, sent);
	begin_commit(&a, many(&a, "new"));
	atomic_store(&posts_left, n);
	while (!finished && !atomic_load(&dead))
		waits_for(&finished, NS_PER_S / 20);
	survived = !atomic_load(&dead);
	atomic_store(&posts_left, -1);
	told = finished && last_status == 0;
	etcd_give_up(a.etcd);
	if (!finished)
		waits_for(&finished, PATIENCE_NS);
	told = told || last_status == 0;
	if (!survived)
		ck_assert(!told);
	/* It is gone without a word; its lease runs out. */
	atomic_store(&dead, false);
	etcd_stop(a.etcd, on_stopped, &a);
	ck_assert(waits_for(&a.stopped, PATIENCE_NS));
	lead(&b, "b", LONG_S);
	ck_assert_int_eq(kv_scan(etcd_kv(b.etcd), SMALL, "", 0, count_one, &c), 0);
	ck_assert_msg((c.old == MANY && c.new == 0) || (c.old == 0 && c.new == MANY),
		      "dead at %d: %d of the old and %d of the new", n, c.old, c.new);
	if (told)
		ck_assert_int_eq(c.new, MANY);
	leave(&b);
	return survived;
}

START_TEST(a_large_batch_is_whole_or_not_there)
{
	bool over = false;
	int n = 0;

	while (!over)
		over = dies_at(n++, _i == 1);
	ck_assert_int_gt(n, 7); /* or nothing was tried */
}
END_TEST

/* Else no driver could read the register any more, and none would lead. */
START_TEST(what_is_too_much_at_once_is_read_in_pieces)
{
	struct count c = {0, 0};
	struct member a, b;

	lead(&a, "a", LONG_S);
	etcd_loaded(a.etcd);
	ck_assert_int_eq(commit(&a, many(&a, "old")), 0);
	leave(&a);
	atomic_store(&range_max, 20);
	lead(&b, "b", LONG_S);
	ck_assert_int_eq(kv_scan(etcd_kv(b.etcd), SMALL, "", 0, count_one, &c), 0);
	ck_assert_int_eq(c.old, MANY);
	atomic_store(&range_max, 0);
	leave(&b);
}
END_TEST

START_TEST(an_answer_that_is_lost_is_no_loss)
{
	struct member m;

	lead(&m, "a", LONG_S);
	etcd_loaded(m.etcd);
	atomic_store(&loses_once, true);
	for (int sent = 0; sent < 2; sent++) {
		atomic_store(&sends_last, sent == 1);
		for (int n = 0; n < 9; n++) {
			struct count c = {0, 0};

			ck_assert_int_eq(commit(&m, many(&m, "old")), 0);
			atomic_store(&posts_left, n);
			ck_assert_int_eq(commit(&m, many(&m, "new")), 0);
			atomic_store(&posts_left, -1);
			ck_assert_int_eq(kv_scan(etcd_kv(m.etcd), SMALL, "", 0, count_one, &c), 0);
			ck_assert_int_eq(c.new, MANY);
			ck_assert(!m.lost);
		}
	}
	leave(&m);
}
END_TEST

START_TEST(a_request_that_comes_late_changes_nothing)
{
	struct drivers servers;
	struct error err = {0};
	struct http *h;
	json_t *late, *reply = NULL;
	char text[64];
	struct member m;

	lead(&m, "a", LONG_S);
	etcd_loaded(m.etcd);
	ck_assert_int_eq(put_one(&m, SMALL, "k", "first"), 0);
	late = json_deep_copy(kept);
	ck_assert_int_eq(put_one(&m, SMALL, "k", "second"), 0);
	snprintf(text, sizeof text, "127.0.0.1:%u", port);
	ck_assert_int_eq(drivers_parse(text, &servers, &err), 0);
	ck_assert_int_eq(http_create(&servers, &(struct http_tls){.on = false}, &h), 0);
	ck_assert_int_eq(__real_http_post(h, "/v3/kv/txn", late, 5000, &reply, &err), 0);
	ck_assert(!json_is_true(json_object_get(reply, "succeeded")));
	json_decref(reply);
	json_decref(late);
	ck_assert_str_eq(scan(&m, SMALL, ""), "k=second ");
	ck_assert_int_eq(put_one(&m, SMALL, "k", "third"), 0);
	ck_assert_str_eq(scan(&m, SMALL, ""), "k=third ");
	http_destroy(h);
	leave(&m);
}
END_TEST

/* -- TLS -------------------------------------------------------------------------------------- */

/* What the server says to a request with these. */
static int post_with(struct http_tls tls, struct error *err)
{
	json_t *body = json_pack("{s:s}", "key", "bm9uZQ=="), *reply = NULL;
	struct drivers servers;
	char text[64];
	struct http *h;
	int rc;

	snprintf(text, sizeof text, "127.0.0.1:%u", port);
	ck_assert_int_eq(drivers_parse(text, &servers, err), 0);
	ck_assert_int_eq(http_create(&servers, &tls, &h), 0);
	rc = __real_http_post(h, "/v3/kv/range", body, 5000, &reply, err);
	json_decref(body);
	json_decref(reply);
	http_destroy(h);
	return rc;
}

START_TEST(both_sides_show_who_they_are)
{
	const struct http_tls good = {true, ca, client_cert, client_key};
	struct error err = {0};
	struct member m;

	for (int i = 0; i < 100 && post_with(good, &err) != 0; i++)
		pause_ms(100); /* until it has elected itself */
	ck_assert_msg(post_with(good, &err) == 0, "%s", err.text);
	/* A server that somebody else certifies is none; nor does the server take anybody. */
	ck_assert_int_eq(
	    post_with((struct http_tls){true, other_ca, client_cert, client_key}, &err),
	    -E_UNREACHABLE);
	ck_assert_msg(strstr(err.text, "certificate") != NULL, "%s", err.text);
	ck_assert_int_eq(post_with((struct http_tls){true, NULL, client_cert, client_key}, &err),
			 -E_UNREACHABLE);
	ck_assert_int_eq(post_with((struct http_tls){.on = true, .ca = ca}, &err), -E_UNREACHABLE);
	ck_assert_int_ne(post_with((struct http_tls){.on = false}, &err), 0);
	/* And all that a register does. */
	join_with(&m, "a", LONG_S, good);
	ck_assert(waits_for(&m.elected, PATIENCE_NS));
	etcd_loaded(m.etcd);
	ck_assert_int_eq(put_one(&m, SMALL, "k", "v"), 0);
	leave(&m);
	join_with(&m, "b", LONG_S, good);
	ck_assert(waits_for(&m.elected, PATIENCE_NS));
	ck_assert_str_eq(scan(&m, SMALL, ""), "k=v ");
	leave(&m);
}
END_TEST

/* -- refusals --------------------------------------------------------------------------------- */

/* A server on the port that answers one request with this status, and ends. */
static void answer_with(int fd, int status)
{
	char request[4096], answer[128];
	int conn = accept(fd, NULL, NULL);

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (conn < 0 || read(conn, request, sizeof request) <= 0)
		_exit(1);
	snprintf(answer, sizeof answer,
		 "HTTP/1.1 %d X\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{}", status);
	_exit(write(conn, answer, strlen(answer)) < 0);
}

static int post_to_one_that_says(int status, struct error *err)
{
	struct sockaddr_in a = {.sin_family = AF_INET};
	socklen_t size = sizeof a;
	int fd = socket(AF_INET, SOCK_STREAM, 0), rc;
	pid_t pid;

	a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	ck_assert_int_eq(bind(fd, (struct sockaddr *)&a, sizeof a), 0);
	ck_assert_int_eq(listen(fd, 1), 0);
	ck_assert_int_eq(getsockname(fd, (struct sockaddr *)&a, &size), 0);
	port = ntohs(a.sin_port);
	pid = fork();
	ck_assert_int_ge(pid, 0);
	if (pid == 0)
		answer_with(fd, status);
	close(fd);
	rc = post_with((struct http_tls){.on = false}, err);
	ck_assert_int_eq(waitpid(pid, NULL, 0), pid);
	return rc;
}

/* Of a request that a server gave up nobody knows whether it was carried out: it is asked again,
 * and not taken for refused. */
START_TEST(what_is_refused_for_good)
{
	static const int unknown[] = {408, 429, 500, 503, 504}, refused[] = {400, 401, 404, 412};
	struct error err = {0};

	for (size_t i = 0; i < ARRAY_SIZE(unknown); i++)
		ck_assert_msg(post_to_one_that_says(unknown[i], &err) == -E_UNREACHABLE, "%d: %s",
			      unknown[i], err.text);
	for (size_t i = 0; i < ARRAY_SIZE(refused); i++)
		ck_assert_msg(post_to_one_that_says(refused[i], &err) == -EINVAL, "%d: %s",
			      refused[i], err.text);
	ck_assert_int_eq(post_to_one_that_says(200, &err), 0);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("etcd");
	TCase *tc = tcase_create("etcd"), *tls = tcase_create("tls"), *http = tcase_create("http");
	SRunner *runner;
	int failed;

	tcase_add_checked_fixture(tc, set_up, tear_down);
	tcase_set_timeout(tc, 240);
	tcase_add_test(tc, what_is_committed_is_there);
	tcase_add_test(tc, a_value_may_be_larger_than_a_request);
	tcase_add_test(tc, one_leads_and_the_other_takes_over);
	tcase_add_test(tc, a_leader_that_is_cut_off_stops_first);
	tcase_add_test(tc, a_key_that_stands_still_is_taken);
	tcase_add_test(tc, without_etcd_all_waits_and_goes_on);
	tcase_add_loop_test(tc, a_large_batch_is_whole_or_not_there, 0, 2);
	tcase_add_test(tc, what_is_too_much_at_once_is_read_in_pieces);
	tcase_add_test(tc, an_answer_that_is_lost_is_no_loss);
	tcase_add_test(tc, a_request_that_comes_late_changes_nothing);
	suite_add_tcase(suite, tc);
	tcase_add_checked_fixture(tls, set_up_tls, tear_down);
	tcase_set_timeout(tls, 240);
	tcase_add_test(tls, both_sides_show_who_they_are);
	suite_add_tcase(suite, tls);
	tcase_add_test(http, what_is_refused_for_good);
	suite_add_tcase(suite, http);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
