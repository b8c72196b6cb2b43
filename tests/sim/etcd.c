/* etcd (simulated): see etcd.h; what it holds is in etcd_store.c.
 *
 * A request is on its way to a server (`arrive`, an event of the world), held there (no majority,
 * or the server is cut off: `go_on`), carried out, and its answer on the way back (`answer`, an
 * event of the asker). The asker's patience (`time_out`) is its own matter: what it gave up is
 * carried out all the same. Requests live until the etcd is destroyed, so whatever comes late finds
 * them.
 */
#include "tests/sim/etcd.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "engine/base/assert.h"
#include "engine/kv/etcd_core.h"
#include "engine/kv/http.h"
#include "tests/sim/etcd_store.h"
#include "tests/sim/fiber.h"

#define TRAVEL_MIN_NS	  (100 * 1000ull)
#define TRAVEL_MAX_NS	  (2 * NS_PER_MS)
#define SPIKE_ONE_IN	  200u
#define SPIKE_MAX_NS	  (80 * NS_PER_MS)
#define LATE_ONE_IN	  1000u
#define LATE_MAX_NS	  (4 * NS_PER_S)
#define GO_ON_MAX_NS	  (100 * NS_PER_MS)
#define GO_ON_LATE_NS	  (8 * NS_PER_S)
#define LEASE_MORE_NS	  (500 * NS_PER_MS)
#define STALL_MAX_NS	  (8 * NS_PER_S)
#define OP_HEADER_SIZE	  9u
#define HELD_ONE_IN	  2u
#define GO_ON_LATE_ONE_IN 4u

struct request {
	struct request *next;
	struct sim_etcd *etcd;
	struct sim_process *process;
	uint64_t incarnation; /* of the process */
	struct sim_fiber *fiber;
	uint32_t server;
	const char *path; /* a literal of etcd_api.c's */
	json_t *body;	  /* NULL: carried out, or lost */
	json_t *reply;
	bool held, over;
	int status; /* when over */
};

struct sim_etcd {
	struct sim_world *world;
	struct sim_etcd_store store;
	struct request *requests;
	uint32_t cut[SIM_PROCESSES_MAX]; /* servers, by the process's index */
	bool halted;
	uint32_t ops_max; /* 0: as production has it */
};

struct http {
	struct drivers servers;
};

static struct sim_etcd *the_etcd;

/* -- leases ---------------------------------------------------------------------------------- */

static void end_lease(void *arg)
{
	const int64_t id = (int64_t)(intptr_t)arg;
	struct sim_etcd *e = the_etcd;
	struct sim_lease *l = sim_etcd_store_lease(&e->store, id);

	/* Without a majority none ends; then it begins anew. */
	if (l == NULL || e->halted || e->world->now_ns < l->until_ns)
		return;
	sim_trace(e->world, NULL, "etcd: lease %ld has run out", (long)(id & 0xffffff));
	sim_etcd_store_end_lease(&e->store, id);
}

static void begin_lease(struct sim_etcd *e, struct sim_lease *l)
{
	const uint64_t ns = l->ttl_ns + sim_random_below(e->world, LEASE_MORE_NS);

	l->until_ns = e->world->now_ns + ns;
	sim_schedule(e->world, NULL, ns, end_lease, (void *)(intptr_t)l->id);
}

/* -- the way of a request -------------------------------------------------------------------- */

static uint64_t travel_ns(struct sim_etcd *e)
{
	struct sim_world *w = e->world;
	uint64_t ns = sim_random_range(w, TRAVEL_MIN_NS, TRAVEL_MAX_NS);

	if (sim_chance(w, 1, SPIKE_ONE_IN))
		ns += sim_random_below(w, SPIKE_MAX_NS);
	if (sim_chance(w, 1, LATE_ONE_IN))
		ns += sim_random_below(w, LATE_MAX_NS);
	return ns;
}

static bool is_cut(const struct sim_etcd *e, const struct request *r)
{
	return (e->cut[r->process->index] >> r->server & 1) != 0;
}

static bool asker_lives(const struct request *r)
{
	return r->process->alive && r->process->incarnation == r->incarnation;
}

static void lose(struct request *r)
{
	json_decref(r->body);
	r->body = NULL;
}

static void carry_out(struct request *r)
{
	struct sim_etcd *e = r->etcd;
	struct sim_lease *newest = e->store.leases;

	r->reply = sim_etcd_store_post(&e->store, r->path, r->body);
	r->status = r->reply != NULL ? 0 : -EINVAL;
	lose(r);
	if (e->store.leases != newest && strcmp(r->path, "/v3/lease/grant") == 0)
		begin_lease(e, e->store.leases);
}

static void finish(struct request *r, int status)
{
	r->over = true;
	r->status = status;
	sim_fiber_wake(r->fiber);
}

static void answer(void *arg)
{
	struct request *r = arg;

	if (!r->over && !is_cut(r->etcd, r))
		finish(r, r->status);
}

static void time_out(void *arg)
{
	struct request *r = arg;

	if (r->over)
		return;
	json_decref(r->reply);
	r->reply = NULL;
	finish(r, -E_UNREACHABLE);
}

static void arrive(void *arg)
{
	struct request *r = arg;
	struct sim_etcd *e = r->etcd;

	if (r->body == NULL)
		return;
	/* What a dead machine has sent may still have been on its way, or not. */
	if (!r->held && !asker_lives(r) && sim_chance(e->world, 1, 2)) {
		lose(r);
		return;
	}
	if (e->halted || is_cut(e, r)) {
		r->held = sim_chance(e->world, 1, HELD_ONE_IN);
		if (!r->held)
			lose(r);
		return;
	}
	r->held = false;
	carry_out(r);
	if (r->over) {
		json_decref(r->reply);
		r->reply = NULL;
	} else if (asker_lives(r)) {
		sim_schedule(e->world, r->process, travel_ns(e), answer, r);
	}
}

/* What was held goes on, if nothing is in its way any more. */
static void go_on(struct sim_etcd *e)
{
	for (struct request *r = e->requests; r != NULL; r = r->next) {
		uint64_t ns;

		if (!r->held || e->halted || is_cut(e, r))
			continue;
		ns = sim_random_below(e->world, sim_chance(e->world, 1, GO_ON_LATE_ONE_IN)
						    ? GO_ON_LATE_NS
						    : GO_ON_MAX_NS);
		sim_schedule(e->world, NULL, ns, arrive, r);
	}
}

/* -- who asks -------------------------------------------------------------------------------- */

static struct request *request_create(struct sim_etcd *e, struct sim_process *p, uint32_t server,
				      const char *path, const json_t *body)
{
	struct request *r = calloc(1, sizeof(*r));

	INVARIANT(r != NULL);
	*r = (struct request){.next = e->requests,
			      .etcd = e,
			      .process = p,
			      .incarnation = p->incarnation,
			      .fiber = sim_fiber_now(),
			      .server = server,
			      .path = path,
			      .body = json_incref((json_t *)(uintptr_t)body)};
	e->requests = r;
	return r;
}

/* On a worker. */
static void post_and_wait(struct request *r, uint32_t timeout_ms)
{
	struct sim_etcd *e = r->etcd;
	struct sim_process *p = r->process;
	const bool sent = !p->doomed;

	if (strcmp(r->path, "/v3/kv/txn") == 0)
		sim_process_io(p);
	if (sent)
		sim_schedule(e->world, NULL, sim_process_delay(p, travel_ns(e)), arrive, r);
	sim_schedule(e->world, p, sim_process_delay(p, timeout_ms * NS_PER_MS), time_out, r);
	sim_fiber_wait();
}

/* On the reactor's thread, which stands still meanwhile. */
static void post_at_once(struct request *r, uint32_t timeout_ms)
{
	struct sim_etcd *e = r->etcd;

	r->over = true;
	if (e->halted || is_cut(e, r)) {
		lose(r);
		r->status = -E_UNREACHABLE;
		/* Nobody knows here when it will be over: it asks in vain, but not for minutes. */
		if (sim_process_delay(r->process, 0) < STALL_MAX_NS)
			sim_process_stall(r->process, timeout_ms * NS_PER_MS);
		return;
	}
	carry_out(r);
	sim_process_stall(r->process, 2 * travel_ns(e));
}

static int post_one(struct http *h, const char *path, const json_t *body, uint32_t timeout_ms,
		    json_t **ret_reply, struct error *err)
{
	struct sim_etcd *e = the_etcd;
	struct request *r;
	int status;

	PRE(e != NULL && e->world->now != NULL);
	r = request_create(e, e->world->now, h->servers.at % SIM_ETCD_SERVERS, path, body);
	if (r->fiber != NULL)
		post_and_wait(r, timeout_ms);
	else
		post_at_once(r, timeout_ms);
	status = r->status;
	if (status == 0)
		*ret_reply = r->reply;
	else
		error_set(err, status, "%s %s", drivers_current(&h->servers),
			  status == -EINVAL ? "refuses it" : "does not answer");
	r->reply = NULL;
	return status;
}

int http_post(struct http *h, const char *path, const json_t *body, uint32_t timeout_ms,
	      json_t **ret_reply, struct error *err)
{
	int rc = -E_UNREACHABLE;

	for (uint32_t i = 0; i < h->servers.count && rc == -E_UNREACHABLE; i++) {
		rc = post_one(h, path, body, timeout_ms, ret_reply, err);
		if (rc == -E_UNREACHABLE)
			drivers_next(&h->servers, NULL);
	}
	return rc;
}

int http_create(const struct drivers *servers, const struct http_tls *tls, struct http **ret_http)
{
	struct http *h = calloc(1, sizeof(*h));

	(void)tls;
	INVARIANT(h != NULL);
	h->servers = *servers;
	*ret_http = h;
	return 0;
}

void http_destroy(struct http *h)
{
	free(h);
}

/* -- faults ---------------------------------------------------------------------------------- */

void sim_etcd_cut(struct sim_etcd *e, const struct sim_process *p, uint32_t servers)
{
	if (e->cut[p->index] == servers)
		return;
	sim_trace(e->world, NULL, "%s does not reach %x of etcd", p->name, servers);
	e->cut[p->index] = servers;
	go_on(e);
}

void sim_etcd_halt(struct sim_etcd *e, bool halted)
{
	if (e->halted == halted)
		return;
	sim_trace(e->world, NULL, "etcd has %s majority", halted ? "no" : "a");
	e->halted = halted;
	for (struct sim_lease *l = e->store.leases; l != NULL && !halted; l = l->next)
		begin_lease(e, l);
	go_on(e);
}

void sim_etcd_heal_all(struct sim_etcd *e)
{
	for (uint32_t i = 0; i < e->world->process_count; i++)
		sim_etcd_cut(e, e->world->processes[i], 0);
	sim_etcd_halt(e, false);
}

/* -- small pieces, so that batches of a few operations are large ones -------------------------- */

void sim_etcd_split(struct sim_etcd *e, uint32_t ops_max)
{
	e->ops_max = ops_max;
}

/* As engine/kv/etcd_batch.c writes it. */
static size_t op_size(const uint8_t *at)
{
	uint32_t value_size;
	uint16_t from_size, to_size;

	memcpy(&from_size, at + 1, sizeof(from_size));
	memcpy(&to_size, at + 3, sizeof(to_size));
	memcpy(&value_size, at + 5, sizeof(value_size));
	return OP_HEADER_SIZE + from_size + to_size + value_size;
}

static void split_one(const struct etcd_piece *from, uint32_t ops_max, struct etcd_pieces *to)
{
	const uint8_t *at = from->bytes.data;

	for (uint32_t i = 0; i < from->ops; i++) {
		if (i % ops_max == 0) {
			to->list = reallocarray(to->list, to->count + 1, sizeof(*to->list));
			INVARIANT(to->list != NULL);
			to->list[to->count++] = (struct etcd_piece){.ops = 0};
		}
		etcd_bytes_add(&to->list[to->count - 1].bytes, at, op_size(at));
		to->list[to->count - 1].ops++;
		at += op_size(at);
	}
	INVARIANT(at == from->bytes.data + from->bytes.size);
}

int __real_etcd_batch_pieces(const struct kv_batch *b, const char *prefix, struct etcd_pieces *ret);
int __wrap_etcd_batch_pieces(const struct kv_batch *b, const char *prefix, struct etcd_pieces *ret);
int __wrap_etcd_batch_pieces(const struct kv_batch *b, const char *prefix, struct etcd_pieces *ret)
{
	struct etcd_pieces all = {.list = NULL}, small = {.list = NULL};
	const int rc = __real_etcd_batch_pieces(b, prefix, &all);

	if (rc != 0 || the_etcd == NULL || the_etcd->ops_max == 0) {
		*ret = all;
		return rc;
	}
	for (size_t i = 0; i < all.count; i++)
		split_one(&all.list[i], the_etcd->ops_max, &small);
	if (small.count > 1)
		sim_trace(the_etcd->world, the_etcd->world->now, "a batch of %zu pieces",
			  small.count);
	etcd_pieces_deinit(&all);
	*ret = small;
	return 0;
}

/* -- in truth -------------------------------------------------------------------------------- */

const void *sim_etcd_value(const struct sim_etcd *e, const char *key, size_t *ret_size)
{
	const struct sim_entry *entry = sim_map_find(&e->store.keys, key, strlen(key));

	return entry != NULL ? sim_etcd_store_value(entry, ret_size) : NULL;
}

void sim_etcd_each(const struct sim_etcd *e, const char *prefix,
		   void (*each)(const void *key, size_t key_size, const void *value,
				size_t value_size, void *arg),
		   void *arg)
{
	const struct sim_map *m = &e->store.keys;
	const size_t size = strlen(prefix);

	for (size_t i = sim_map_lower_bound(m, prefix, size); i < m->count; i++) {
		const struct sim_entry *entry = m->entries[i];
		size_t value_size;
		const void *value = sim_etcd_store_value(entry, &value_size);

		if (entry->key_size < size || memcmp(entry->bytes, prefix, size) != 0)
			break;
		each(entry->bytes, entry->key_size, value, value_size, arg);
	}
}

/* -- life ------------------------------------------------------------------------------------ */

struct sim_etcd *sim_etcd_create(struct sim_world *w)
{
	struct sim_etcd *e = calloc(1, sizeof(*e));

	INVARIANT(e != NULL);
	PRE(the_etcd == NULL);
	e->world = w;
	sim_etcd_store_init(&e->store);
	the_etcd = e;
	return e;
}

void sim_etcd_destroy(struct sim_etcd *e)
{
	if (e == NULL)
		return;
	while (e->requests != NULL) {
		struct request *r = e->requests;

		e->requests = r->next;
		json_decref(r->body);
		json_decref(r->reply);
		free(r);
	}
	sim_etcd_store_deinit(&e->store);
	free(e);
	the_etcd = NULL;
}

/* -- the clock, as engine/kv/etcd.c and etcd_kv.c read it ------------------------------------- */

/* The process that is asked about from outside of its turns. */
static const struct sim_process *clock_of;

int __real_clock_gettime(clockid_t id, struct timespec *ret);
int __wrap_clock_gettime(clockid_t id, struct timespec *ret);
int __wrap_clock_gettime(clockid_t id, struct timespec *ret)
{
	const struct sim_process *p = clock_of;
	uint64_t ns;

	if (p == NULL && the_etcd != NULL)
		p = the_etcd->world->now;
	if (p == NULL || id != CLOCK_BOOTTIME)
		return __real_clock_gettime(id, ret);
	ns = sim_process_boot_ns(p);
	*ret =
	    (struct timespec){.tv_sec = (time_t)(ns / NS_PER_S), .tv_nsec = (long)(ns % NS_PER_S)};
	return 0;
}

int __real_nanosleep(const struct timespec *ts, struct timespec *rest);
int __wrap_nanosleep(const struct timespec *ts, struct timespec *rest);
int __wrap_nanosleep(const struct timespec *ts, struct timespec *rest)
{
	struct sim_process *p = the_etcd != NULL ? the_etcd->world->now : NULL;
	const uint64_t ns = (uint64_t)ts->tv_sec * NS_PER_S + (uint64_t)ts->tv_nsec;

	if (p == NULL)
		return __real_nanosleep(ts, rest);
	if (sim_fiber_now() != NULL)
		sim_fiber_sleep(ns);
	else if (sim_process_delay(p, 0) < STALL_MAX_NS)
		sim_process_stall(p, ns);
	return 0;
}

bool sim_etcd_may_issue(const struct etcd *etcd, const struct sim_process *p)
{
	bool may;

	clock_of = p;
	may = etcd_may_issue(etcd);
	clock_of = NULL;
	return may;
}
