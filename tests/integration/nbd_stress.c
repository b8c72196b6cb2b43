/* nbd-stress: random stamped writes and verified reads over NBD that go on through the deaths of
 * everything at the other end.
 *
 * For each block it knows what was acknowledged last, and which writes after that nobody answered
 * (their connection was lost, or they failed): such a write may or may not have happened. A read
 * must return one of these; what it returned is from then on what is there (invariants I3 and I5).
 * Blocks carry their offset and the number of the write, so that a torn or misplaced one is seen
 * too.
 *
 *   nbd-stress --uri URI --size BYTES [--connections N] [--depth N] [--seconds N] --status FILE
 *
 * Runs until the time is over or SIGTERM, then reads everything once and prints a line of JSON;
 * SIGUSR1: reads everything in between, and goes on. SIGUSR2: leaves its connections, with what is
 * in flight there, and makes new ones. Exit 0: nothing was lost; 1: something was (the first is
 * named); 2 usage; 3 the server stayed away for RECONNECT_S. --status: rewritten
 * twice a second with the counts of acknowledged and failed operations, violations, times that
 * everything was read, and how many of the failed were answered with an error (the others lost
 * their connection); so that whoever breaks things can see that work goes on. */
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <libnbd.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define BLOCK	    4096u
#define BLOCKS_MAX  64u /* of one operation; most have up to BLOCKS_FEW */
#define BLOCKS_FEW  8u
#define MAYBE_MAX   6u
#define CONNS_MAX   4u
#define DEPTH_MAX   64u
#define RECONNECT_S 600

struct block_state {
	uint64_t
	    acked; /* number of the write that is surely there, unless one of maybe is; 0: zeroes */
	uint64_t maybe[MAYBE_MAX];
	uint8_t maybe_count;
	bool busy;
};

struct slot {
	bool active, write;
	int64_t cookie;
	uint64_t first; /* block */
	unsigned count;
	uint64_t number;
	uint8_t data[BLOCKS_MAX * BLOCK];
};

struct conn {
	struct nbd_handle *h; /* NULL: to be connected again */
	bool connecting;      /* not counted and not used before the server has answered */
	struct slot slots[DEPTH_MAX];
};

static struct {
	const char *uri, *status;
	uint64_t blocks;
	unsigned conn_count, depth, seconds;
	struct block_state *state;
	struct conn conns[CONNS_MAX];
	uint64_t next_number, acked_ops, failed_ops, error_ops, reconnects, random;
	uint64_t violations, verified;
	double last_ack, longest_gap; /* seconds */
} g = {.conn_count = 2, .depth = 16, .next_number = 1, .random = 88172645463325252ull};

static volatile sig_atomic_t stop_asked, verify_asked, reconnect_asked;

static void on_signal(int signal_number)
{
	if (signal_number == SIGUSR1)
		verify_asked = 1;
	else if (signal_number == SIGUSR2)
		reconnect_asked = 1;
	else
		stop_asked = 1;
}

static double now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

static uint64_t rnd(void)
{
	g.random ^= g.random << 13;
	g.random ^= g.random >> 7;
	g.random ^= g.random << 17;
	return g.random;
}

struct stamp {
	uint64_t block, number, mix;
};

static struct stamp stamp_of(uint64_t block, uint64_t number)
{
	struct stamp s = {0};

	if (number != 0)
		s = (struct stamp){block + 1, number,
				   (block * 31 + number) * 0x9e3779b97f4a7c15ull};
	return s;
}

static void fill_block(uint8_t *p, uint64_t block, uint64_t number)
{
	struct stamp s = stamp_of(block, number);

	for (unsigned at = 0; at < BLOCK; at += 512)
		memcpy(p + at, &s, sizeof s);
}

static bool holds(const uint8_t *p, uint64_t block, uint64_t number)
{
	struct stamp s = stamp_of(block, number);

	for (unsigned at = 0; at < BLOCK; at += 512)
		if (memcmp(p + at, &s, sizeof s) != 0)
			return false;
	return true;
}

static void violation(uint64_t block, const uint8_t *p)
{
	const struct block_state *b = &g.state[block];
	struct stamp s;

	if (g.violations++ >= 5)
		return;
	memcpy(&s, p, sizeof s);
	fprintf(stderr,
		"nbd-stress: block %" PRIu64 ": acknowledged is write %" PRIu64
		", possible %u more",
		block, b->acked, b->maybe_count);
	for (unsigned i = 0; i < b->maybe_count; i++)
		fprintf(stderr, " %" PRIu64, b->maybe[i]);
	fprintf(stderr, "; read: block %" PRIu64 " write %" PRIu64 " mix %" PRIx64 "%s\n",
		s.block - 1, s.number, s.mix,
		s.mix == stamp_of(s.block - 1, s.number).mix ? " (whole or torn stamp)"
							     : " (no stamp)");
}

/* What was read becomes what is there. */
static void check_block(uint64_t block, const uint8_t *p)
{
	struct block_state *b = &g.state[block];

	if (holds(p, block, b->acked)) {
		b->maybe_count = 0;
		return;
	}
	for (unsigned i = 0; i < b->maybe_count; i++) {
		if (holds(p, block, b->maybe[i])) {
			b->acked = b->maybe[i];
			b->maybe_count = 0;
			return;
		}
	}
	violation(block, p);
}

static void count_ack(void)
{
	const double at = now();

	if (g.acked_ops++ > 0 && at - g.last_ack > g.longest_gap)
		g.longest_gap = at - g.last_ack;
	g.last_ack = at;
}

static void finish(struct slot *s, bool ok)
{
	for (unsigned i = 0; i < s->count; i++) {
		struct block_state *b = &g.state[s->first + i];

		b->busy = false;
		if (ok && s->write) {
			b->acked = s->number;
			b->maybe_count = 0;
		} else if (ok) {
			check_block(s->first + i, s->data + i * BLOCK);
		} else if (s->write) {
			b->maybe[b->maybe_count++] = s->number;
		}
	}
	if (ok)
		count_ack();
	else
		g.failed_ops++;
	s->active = false;
}

static void drop(struct conn *c)
{
	for (unsigned i = 0; i < g.depth; i++)
		if (c->slots[i].active)
			finish(&c->slots[i], false);
	nbd_close(c->h);
	c->h = NULL;
	c->connecting = false;
}

static void start(struct conn *c, struct slot *s)
{
	unsigned count = 1 + (unsigned)(rnd() % (rnd() % 32 == 0 ? BLOCKS_MAX : BLOCKS_FEW));
	uint64_t first = rnd() % (g.blocks - count);
	bool full = false;

	for (unsigned i = 0; i < count; i++) {
		if (g.state[first + i].busy)
			return;
		full |= g.state[first + i].maybe_count == MAYBE_MAX;
	}
	s->first = first;
	s->count = count;
	s->write = !full && rnd() % 4 != 0;
	s->number = s->write ? g.next_number++ : 0;
	if (s->write)
		for (unsigned i = 0; i < count; i++)
			fill_block(s->data + i * BLOCK, first + i, s->number);
	s->cookie = s->write ? nbd_aio_pwrite(c->h, s->data, count * BLOCK, first * BLOCK,
					      NBD_NULL_COMPLETION, 0)
			     : nbd_aio_pread(c->h, s->data, count * BLOCK, first * BLOCK,
					     NBD_NULL_COMPLETION, 0);
	if (s->cookie < 0)
		return;
	s->active = true;
	for (unsigned i = 0; i < count; i++)
		g.state[first + i].busy = true;
}

static void reap(struct conn *c)
{
	for (unsigned i = 0; i < g.depth; i++) {
		struct slot *s = &c->slots[i];
		int r;

		if (!s->active)
			continue;
		r = nbd_aio_command_completed(c->h, (uint64_t)s->cookie);
		g.error_ops += r < 0 && nbd_aio_is_ready(c->h);
		if (r != 0)
			finish(s, r > 0);
	}
}

/* Does not wait for the server: one that does not answer yet must not keep the other connections
 * from taking what they get, for the server that they leave waits for that. */
static void connect_begin(struct conn *c)
{
	c->h = nbd_create();
	c->connecting = true;
	if (c->h == NULL || nbd_aio_connect_uri(c->h, g.uri) != 0)
		drop(c);
}

static void connect_go_on(struct conn *c)
{
	int r;

	do /* for as long as the server answers at once */
		r = nbd_poll(c->h, 5);
	while (r > 0 && nbd_aio_is_connecting(c->h));
	if (r < 0 || nbd_aio_is_dead(c->h) || nbd_aio_is_closed(c->h)) {
		drop(c);
	} else if (nbd_aio_is_ready(c->h)) {
		c->connecting = false;
		g.reconnects++;
	}
}

static void write_status(void)
{
	static double last;
	char tmp[4096];
	FILE *f;

	if (g.status == NULL || now() - last < 0.5)
		return;
	last = now();
	snprintf(tmp, sizeof tmp, "%s.new", g.status);
	f = fopen(tmp, "w");
	if (f == NULL)
		return;
	fprintf(f, "%" PRIu64 " %" PRIu64 " %" PRIu64 " %" PRIu64 " %" PRIu64 "\n", g.acked_ops,
		g.failed_ops, g.violations, g.verified, g.error_ops);
	fclose(f);
	rename(tmp, g.status);
}

/* One round of a connection; false: nothing can be done with it now. */
static bool turn(struct conn *c, bool begin)
{
	unsigned active = 0;

	if (c->h == NULL && begin)
		connect_begin(c);
	if (c->connecting)
		connect_go_on(c);
	if (c->h == NULL || c->connecting)
		return false;
	for (unsigned i = 0; begin && i < g.depth; i++)
		if (!c->slots[i].active)
			start(c, &c->slots[i]);
	if (nbd_poll(c->h, 20) < 0) {
		drop(c);
		return false;
	}
	reap(c);
	if (nbd_aio_is_dead(c->h) || nbd_aio_is_closed(c->h)) {
		drop(c);
		return false;
	}
	for (unsigned i = 0; i < g.depth; i++)
		active += c->slots[i].active;
	return begin || active > 0;
}

/* One connection to a server that answers, within RECONNECT_S; NULL: there was none. */
static struct nbd_handle *connect_wait(void)
{
	for (double begun = now(); now() - begun <= RECONNECT_S; poll(NULL, 0, 50)) {
		struct nbd_handle *h = nbd_create();

		if (h != NULL && nbd_connect_uri(h, g.uri) == 0) {
			g.reconnects++;
			return h;
		}
		nbd_close(h);
	}
	return NULL;
}

static int verify_all(void)
{
	static uint8_t data[256 * BLOCK];
	struct nbd_handle *h = connect_wait();

	if (h == NULL)
		return 3;
	for (uint64_t at = 0; at < g.blocks; at += 256) {
		uint64_t n = g.blocks - at < 256 ? g.blocks - at : 256;

		if (nbd_pread(h, data, n * BLOCK, at * BLOCK, 0) != 0) {
			fprintf(stderr, "nbd-stress: last read at block %" PRIu64 ": %s\n", at,
				nbd_get_error());
			return 1;
		}
		for (uint64_t i = 0; i < n; i++)
			check_block(at + i, data + i * BLOCK);
	}
	nbd_close(h);
	g.verified++;
	return g.violations == 0 ? 0 : 1;
}

/* Ends what is in flight. */
static void settle(void)
{
	for (unsigned i = 0; i < g.conn_count; i++) {
		while (g.conns[i].h != NULL && turn(&g.conns[i], false))
			;
		if (g.conns[i].h != NULL)
			drop(&g.conns[i]);
	}
}

static int load(void)
{
	double begun = now(), last_alive = begun;
	int rc = 0;

	while (rc == 0 && !stop_asked && g.violations == 0 &&
	       (g.seconds == 0 || now() - begun < g.seconds)) {
		bool alive = false;

		for (unsigned i = 0; reconnect_asked && i < g.conn_count; i++)
			if (g.conns[i].h != NULL)
				drop(&g.conns[i]);
		reconnect_asked = 0;
		for (unsigned i = 0; i < g.conn_count; i++)
			alive |= turn(&g.conns[i], true);
		write_status();
		if (verify_asked) {
			verify_asked = 0;
			settle();
			rc = verify_all();
			last_alive = now();
		} else if (alive) {
			last_alive = now();
		} else if (now() - last_alive > RECONNECT_S) {
			fprintf(stderr, "nbd-stress: %s: no connection for %d s: %s\n", g.uri,
				RECONNECT_S, nbd_get_error());
			return 3;
		} else {
			poll(NULL, 0, 50);
		}
	}
	settle();
	return rc;
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
	    {"uri", required_argument, NULL, 'u'},
	    {"size", required_argument, NULL, 's'},
	    {"depth", required_argument, NULL, 'd'},
	    {"connections", required_argument, NULL, 'c'},
	    {"seconds", required_argument, NULL, 't'},
	    {"status", required_argument, NULL, 'S'},
	    {"seed", required_argument, NULL, 'r'},
	    {0},
	};
	int c, rc;

	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
		switch (c) {
		case 'u':
			g.uri = optarg;
			break;
		case 's':
			g.blocks = strtoull(optarg, NULL, 10) / BLOCK;
			break;
		case 'd':
			g.depth = (unsigned)atoi(optarg);
			break;
		case 'c':
			g.conn_count = (unsigned)atoi(optarg);
			break;
		case 't':
			g.seconds = (unsigned)atoi(optarg);
			break;
		case 'S':
			g.status = optarg;
			break;
		case 'r':
			g.random ^= strtoull(optarg, NULL, 10) * 0x9e3779b97f4a7c15ull;
			break;
		default:
			return 2;
		}
	}
	if (g.uri == NULL || g.blocks < 2 * BLOCKS_MAX || g.depth == 0 || g.depth > DEPTH_MAX ||
	    g.conn_count == 0 || g.conn_count > CONNS_MAX) {
		fprintf(
		    stderr,
		    "usage: nbd-stress --uri URI --size BYTES [--connections 1..%u] [--depth 1..%u]"
		    " [--seconds N] [--status FILE] [--seed N]\n",
		    CONNS_MAX, DEPTH_MAX);
		return 2;
	}
	signal(SIGTERM, on_signal);
	signal(SIGINT, on_signal);
	signal(SIGUSR1, on_signal);
	signal(SIGUSR2, on_signal);
	signal(SIGPIPE, SIG_IGN);
	g.state = calloc(g.blocks, sizeof *g.state);
	if (g.state == NULL)
		return 2;
	rc = load();
	if (rc == 0)
		rc = verify_all();
	printf("{\"acknowledged\": %" PRIu64 ", \"failed\": %" PRIu64 ", \"connections\": %" PRIu64
	       ", \"violations\": %" PRIu64 ", \"errors\": %" PRIu64
	       ", \"longest_gap_ms\": %.1f}\n",
	       g.acked_ops, g.failed_ops, g.reconnects, g.violations, g.error_ops,
	       g.longest_gap * 1000);
	return rc;
}
