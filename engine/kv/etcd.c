/* etcd: who leads. See etcd.h; the transactions of a leader are in etcd_kv.c.
 *
 * A beat is one look at the leader's key, on a worker, at most one at a time:
 *
 *   FOLLOWING  every 250 ms: read it.
 *                untouched for as long as its holder may issue by it: delete it, if it still is
 *                gone: ask for a lease, and put the key if it is still gone
 *   LEADING    every quarter of the lease's time: a new lease, and the key put under it if its
 *   (LOADING)  revisions are those that were seen last. What comes of it:
 *                HELD     the deadline moves
 *                UNKNOWN  etcd did not answer: the deadline stays, and passes
 *                LOST     the key is gone, or another's
 *
 * The compare of the last revision (mod_revision) keeps a put that etcd carries out late from
 * laying the key under an older lease again. One that was carried out although its answer was lost
 * shows by its lease.
 *
 * Failure modes: memory runs out in a beat: UNKNOWN. Loading fails: as LOST. */
#include "engine/kv/etcd.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "engine/base/assert.h"
#include "engine/base/log.h"
#include "engine/base/text.h"
#include "engine/kv/etcd_core.h"

#define FOLLOW_NS	(250 * NS_PER_MS)
#define RETRY_NS	(200 * NS_PER_MS)
#define MEMBER_TTL_S	10u
#define MEMBER_EVERY_NS (3 * NS_PER_S)

enum state { FOLLOWING, LOADING, LEADING, LOST, STOPPING };

enum outcome { OTHER_LEADS, NOBODY_LEADS, WON, HELD, UNKNOWN, GONE };

struct beat {
	struct reactor_work work;
	struct http *http;
	bool leads;	/* wants to hold the key, and not to win it */
	bool resigns;	/* gives the lease back instead */
	bool registers; /* says that it is there, and looks who else is */
	int64_t created, modified, lease;
	int64_t held; /* the lease that the key was put under last */
	/* Of the last lease that was asked for: until when the key certainly stands, if it is put
	 * under it. */
	uint64_t until_ns;
	/* Who follows: the key's revision, and since when it is known to be that one. */
	int64_t seen_revision;
	uint64_t seen_ns;
	enum outcome outcome;
	struct error err;
	struct etcd_member leader;
	uint32_t leader_ttl_s; /* that it counts by; 0: it does not say */
	struct etcd_member members[ETCD_MEMBERS_MAX];
	size_t member_count;
};

struct load {
	struct reactor_work work;
	struct etcd_store *store;
	int status;
};

struct etcd {
	struct etcd_config config;
	char prefix[ETCD_PREFIX_MAX + 1], name[NAME_SIZE_MAX], address[ADDR_SIZE_MAX];
	char leader_key[ETCD_KEY_MAX], members_prefix[ETCD_KEY_MAX], value[512];
	enum state state;
	struct beat beat;
	bool beating, loading, reachable, told;
	bool yields;	      /* it wants to lead no more */
	bool must_resign;     /* the lease that is left would keep the others waiting */
	uint64_t deadline_ns; /* nothing may be issued from then on */
	uint64_t registered_ns;
	struct reactor_timer timer;
	struct load load;
	struct etcd_store *store;
	struct etcd_member leader;
	struct etcd_member members[ETCD_MEMBERS_MAX];
	size_t member_count;
	struct reactor_task stop_task;
	void (*stopped)(void *arg);
	void *stopped_arg;
};

static uint64_t boot_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_BOOTTIME, &ts);
	return (uint64_t)ts.tv_sec * NS_PER_S + (uint64_t)ts.tv_nsec;
}

/* -- a beat, on a worker: touches only the beat and what does not change ----------------------- */

static struct etcd *etcd_of(struct beat *b)
{
	return container_of(b, struct etcd, beat);
}

static void read_leader(struct beat *b, const struct etcd_pair *p)
{
	json_t *o = json_loadb((const char *)p->value, p->value_size, 0, NULL);
	const char *name = json_string_value(json_object_get(o, "name"));
	const char *address = json_string_value(json_object_get(o, "address"));
	const json_int_t ttl_s = json_integer_value(json_object_get(o, "ttl_s"));
	struct etcd_member *m = &b->leader;

	*m = (struct etcd_member){.leads = true};
	if (name != NULL && address != NULL) {
		snprintf(m->name, sizeof m->name, "%.*s", (int)sizeof m->name - 1, name);
		snprintf(m->address, sizeof m->address, "%.*s", (int)sizeof m->address - 1,
			 address);
	}
	b->leader_ttl_s = ttl_s >= ETCD_TTL_MIN_S && ttl_s <= ETCD_TTL_MAX_S ? (uint32_t)ttl_s : 0;
	json_decref(o);
}

/* The key as it is now. */
static enum outcome look(struct beat *b, const struct etcd_pairs *p)
{
	const struct etcd_pair *key = &p->list[0];

	if (p->count == 0)
		return b->leads ? GONE : NOBODY_LEADS;
	read_leader(b, key);
	if (b->leads && key->create_revision != b->created)
		return GONE;
	if (b->lease == 0 || key->lease != b->lease) {
		if (!b->leads)
			return OTHER_LEADS;
		b->modified = key->mod_revision; /* an earlier put was carried out after all */
		return UNKNOWN;
	}
	/* Put by ourselves, and the answer was lost. */
	b->created = key->create_revision;
	b->modified = key->mod_revision;
	return b->leads ? HELD : WON;
}

/* A new lease, and the key under it. */
static enum outcome take_key(struct beat *b)
{
	struct etcd *e = etcd_of(b);
	const uint32_t ttl_s = e->config.ttl_s;
	const uint64_t asked_ns = boot_ns();
	struct etcd_txn_reply r = {0};
	struct etcd_txn t;
	enum outcome outcome;

	b->lease = 0;
	if (etcd_grant(b->http, ttl_s, ETCD_BEAT_MS, &b->lease, &b->err) != 0)
		return UNKNOWN;
	b->until_ns = asked_ns + ttl_s * NS_PER_S;
	etcd_txn_init(&t);
	etcd_txn_if_created(&t, e->leader_key, b->leads ? b->created : 0);
	if (b->leads)
		etcd_txn_if_changed(&t, e->leader_key, b->modified);
	etcd_txn_put(&t, e->leader_key, strlen(e->leader_key), e->value, strlen(e->value),
		     b->lease);
	etcd_txn_else_get(&t, e->leader_key);
	if (etcd_txn_commit(b->http, &t, ETCD_BEAT_MS, &r, &b->err) != 0)
		return UNKNOWN;
	if (r.succeeded) {
		b->modified = r.revision;
		if (!b->leads)
			b->created = r.revision;
		outcome = b->leads ? HELD : WON;
	} else {
		outcome = look(b, &r.got[0]);
		if (outcome == UNKNOWN)
			error_set(&b->err, -EAGAIN, "an earlier put of the leader's key came late");
	}
	etcd_txn_reply_deinit(&r);
	return outcome;
}

/* Whether the key stands still: nothing may be issued by it any more. Its holder counts from before
 * it asked for the key to be put in this revision, and here it is counted from after that. */
static bool stands_still(struct beat *b, const struct etcd_pair *key)
{
	const uint64_t read_ns = boot_ns();

	if (key->mod_revision != b->seen_revision) {
		b->seen_revision = key->mod_revision;
		b->seen_ns = read_ns;
	}
	return b->leader_ttl_s > 0 && read_ns - b->seen_ns >= b->leader_ttl_s * NS_PER_S;
}

/* Takes it away from its holder, who can touch it no more. Its lease may live on for long: whoever
 * comes to lead etcd lets every lease begin anew. */
static enum outcome take_away(struct beat *b)
{
	struct etcd *e = etcd_of(b);
	struct etcd_txn_reply r = {0};
	struct etcd_txn t;
	bool gone;

	etcd_txn_init(&t);
	etcd_txn_if_changed(&t, e->leader_key, b->seen_revision);
	etcd_txn_delete(&t, e->leader_key, strlen(e->leader_key), "", 0);
	if (etcd_txn_commit(b->http, &t, ETCD_BEAT_MS, &r, &b->err) != 0)
		return UNKNOWN;
	gone = r.succeeded;
	etcd_txn_reply_deinit(&r);
	return gone ? NOBODY_LEADS : OTHER_LEADS;
}

static enum outcome follow(struct beat *b)
{
	struct etcd *e = etcd_of(b);
	struct etcd_pairs p = {.list = NULL};
	enum outcome outcome;

	if (etcd_range(b->http, e->leader_key, strlen(e->leader_key), "", 0, 1, ETCD_BEAT_MS, &p,
		       &b->err) != 0)
		return UNKNOWN;
	outcome = look(b, &p);
	if (outcome == OTHER_LEADS && stands_still(b, &p.list[0]))
		outcome = take_away(b);
	etcd_pairs_deinit(&p);
	return outcome == NOBODY_LEADS ? take_key(b) : outcome;
}

/* Failing only means that people see an older list. */
static void meet_others(struct beat *b)
{
	struct etcd *e = etcd_of(b);
	const size_t prefix_size = strlen(e->members_prefix);
	char key[ETCD_KEY_MAX + NAME_SIZE_MAX];
	uint8_t end[ETCD_KEY_MAX];
	size_t end_size = prefix_size;
	struct etcd_txn_reply r = {0};
	struct etcd_pairs p = {.list = NULL};
	struct etcd_txn t;
	int64_t lease;

	if (etcd_grant(b->http, MEMBER_TTL_S, ETCD_BEAT_MS, &lease, NULL) != 0)
		return;
	snprintf(key, sizeof key, "%s%s", e->members_prefix, e->name);
	etcd_txn_init(&t);
	etcd_txn_put(&t, key, strlen(key), e->address, strlen(e->address), lease);
	if (etcd_txn_commit(b->http, &t, ETCD_BEAT_MS, &r, NULL) != 0)
		return;
	etcd_txn_reply_deinit(&r);
	memcpy(end, e->members_prefix, prefix_size);
	etcd_after_prefix(end, &end_size);
	if (etcd_range(b->http, e->members_prefix, prefix_size, end, end_size, ETCD_MEMBERS_MAX,
		       ETCD_BEAT_MS, &p, NULL) != 0)
		return;
	b->member_count = 0;
	for (size_t i = 0; i < p.count && i < ETCD_MEMBERS_MAX; i++) {
		struct etcd_member *m = &b->members[b->member_count++];

		snprintf(m->name, sizeof m->name, "%.*s", (int)sizeof m->name - 1,
			 (const char *)p.list[i].key + prefix_size);
		snprintf(m->address, sizeof m->address, "%.*s", (int)sizeof m->address - 1,
			 (const char *)p.list[i].value);
	}
	etcd_pairs_deinit(&p);
}

static void beat_work(struct reactor_work *work)
{
	struct beat *b = container_of(work, struct beat, work);

	b->err = (struct error){0};
	b->leader = (struct etcd_member){.leads = false};
	if (b->resigns) {
		if (b->held != 0)
			etcd_revoke(b->http, b->held, ETCD_BEAT_MS, &b->err);
		return;
	}
	b->outcome = b->leads ? take_key(b) : follow(b);
	/* Who leads must not wait for a list. */
	if (b->registers && !(b->leads && b->outcome == UNKNOWN))
		meet_others(b);
}

/* -- on the reactor --------------------------------------------------------------------------- */

static void beat_start(struct etcd *e);

static uint64_t now(const struct etcd *e)
{
	return reactor_now_ns(e->config.reactor);
}

static void beat_after(struct etcd *e, uint64_t ns)
{
	reactor_timer_arm(e->config.reactor, &e->timer, now(e) + ns);
}

static void finish_stop(struct reactor_task *task)
{
	struct etcd *e = container_of(task, struct etcd, stop_task);
	void (*stopped)(void *arg) = e->stopped;
	void *arg = e->stopped_arg;

	etcd_store_destroy(e->store);
	http_destroy(e->beat.http);
	free(e);
	stopped(arg);
}

/* It leads no more. */
static void lose(struct etcd *e)
{
	const bool told = e->state == LEADING;

	log_warn("etcd", "%s leads no more", e->name);
	e->deadline_ns = 0;
	e->state = LOST;
	if (e->store != NULL)
		etcd_store_lose(e->store);
	if (told)
		e->config.lost(e->config.arg);
	else if (!e->loading)
		etcd_follow(e);
}

static void load_done(struct reactor_work *work)
{
	struct etcd *e = container_of(container_of(work, struct load, work), struct etcd, load);

	e->loading = false;
	if (e->state == STOPPING) {
		beat_start(e);
		return;
	}
	if (e->state == LOST) {
		etcd_follow(e);
		return;
	}
	if (e->load.status != 0) {
		log_error("etcd", "the register was not read (%s): another may try",
			  err_text(e->load.status));
		lose(e);
		return;
	}
	e->state = LEADING;
	log_info("etcd", "%s leads", e->name);
	e->config.elected(e->config.arg);
}

static void load_work(struct reactor_work *work)
{
	struct load *l = container_of(work, struct load, work);

	l->status = etcd_store_load(l->store);
}

static void won(struct etcd *e)
{
	log_info("etcd", "%s is elected, and reads the register", e->name);
	e->state = LOADING;
	e->beat.leads = true;
	if (etcd_store_create(&e->config, e->prefix, e->beat.created, &e->store) != 0) {
		log_error("etcd", "no memory for the register");
		lose(e);
		return;
	}
	e->loading = true;
	e->load = (struct load){.work = {.work = load_work, .done = load_done}, .store = e->store};
	reactor_offload(e->config.reactor, &e->load.work);
}

static void note(struct etcd *e)
{
	const struct beat *b = &e->beat;

	e->reachable = b->outcome != UNKNOWN;
	if (!e->reachable && !e->told)
		log_warn("etcd", "not reachable: %s", b->err.text);
	else if (e->reachable && e->told)
		log_info("etcd", "reachable again");
	e->told = !e->reachable;
	if (b->outcome == OTHER_LEADS || b->outcome == GONE) {
		if (strcmp(e->leader.name, b->leader.name) != 0 && b->leader.name[0] != '\0')
			log_info("etcd", "%s at %s leads", b->leader.name, b->leader.address);
		e->leader = b->leader;
	} else if (b->outcome == WON || b->outcome == HELD) {
		e->leader = (struct etcd_member){.leads = true};
		snprintf(e->leader.name, sizeof e->leader.name, "%s", e->name);
		snprintf(e->leader.address, sizeof e->leader.address, "%s", e->address);
	}
	if (b->registers && b->member_count > 0) {
		memcpy(e->members, b->members, sizeof e->members);
		e->member_count = b->member_count;
	}
	for (size_t i = 0; i < e->member_count; i++)
		e->members[i].leads = strcmp(e->members[i].name, e->leader.name) == 0;
}

static void take_outcome(struct etcd *e, enum outcome outcome)
{
	const bool led = e->state == LOADING || e->state == LEADING;

	if (e->state == FOLLOWING && !e->must_resign && outcome == WON) {
		e->deadline_ns = e->beat.until_ns - ETCD_CLOCK_BOUND_NS;
		won(e);
	} else if (led && outcome == HELD) {
		e->deadline_ns = e->beat.until_ns - ETCD_CLOCK_BOUND_NS;
	}
	if (led && (outcome == GONE || e->yields || etcd_store_failed(e->store)))
		lose(e);
}

static void beat_done(struct reactor_work *work)
{
	struct etcd *e = container_of(container_of(work, struct beat, work), struct etcd, beat);
	struct beat *b = &e->beat;
	const uint64_t rhythm = e->config.ttl_s * NS_PER_S / 4;

	e->beating = false;
	if (e->state == STOPPING) {
		if (b->resigns) {
			e->stop_task.run = finish_stop;
			reactor_defer(e->config.reactor, &e->stop_task);
		} else {
			beat_start(e);
		}
		return;
	}
	if (b->resigns) {
		b->lease = b->held = 0;
	} else {
		note(e);
		if (b->outcome == WON || b->outcome == HELD)
			b->held = b->lease;
		take_outcome(e, b->outcome);
	}
	if (e->beating || e->state == LOST)
		return; /* etcd_follow goes on */
	if (e->must_resign)
		beat_start(e);
	else
		beat_after(e,
			   e->state == FOLLOWING ? FOLLOW_NS : (e->reachable ? rhythm : RETRY_NS));
}

static void beat_start(struct etcd *e)
{
	struct beat *b = &e->beat;

	if (e->beating || (e->state == STOPPING && e->loading))
		return;
	reactor_timer_cancel(e->config.reactor, &e->timer);
	b->resigns = e->state == STOPPING || e->must_resign;
	e->must_resign = false;
	b->leads = e->state == LOADING || e->state == LEADING;
	b->registers = e->registered_ns == 0 || now(e) - e->registered_ns >= MEMBER_EVERY_NS;
	if (b->registers)
		e->registered_ns = now(e);
	b->work = (struct reactor_work){.work = beat_work, .done = beat_done};
	e->beating = true;
	reactor_offload(e->config.reactor, &b->work);
}

static void timer_fired(struct reactor_timer *t)
{
	beat_start(container_of(t, struct etcd, timer));
}

void etcd_follow(struct etcd *e)
{
	PRE(e->state == LOST && !e->loading);
	etcd_store_destroy(e->store);
	e->store = NULL;
	e->state = FOLLOWING;
	e->yields = false;
	e->must_resign = true;
	if (!e->beating)
		beat_start(e);
}

void etcd_yield(struct etcd *e)
{
	e->yields = true;
	if (!e->beating && (e->state == LOADING || e->state == LEADING))
		beat_after(e, 0);
}

/* -- what others see -------------------------------------------------------------------------- */

bool etcd_may_issue(const struct etcd *e)
{
	return e->state == LEADING && boot_ns() < e->deadline_ns;
}

bool etcd_reachable(const struct etcd *e)
{
	return e->reachable;
}

const struct etcd_member *etcd_leader(const struct etcd *e)
{
	return &e->leader;
}

size_t etcd_members(const struct etcd *e, const struct etcd_member **ret_members)
{
	*ret_members = e->members;
	return e->member_count;
}

struct kv *etcd_kv(struct etcd *e)
{
	PRE(e->store != NULL);
	return etcd_store_kv(e->store);
}

void etcd_loaded(struct etcd *e)
{
	etcd_store_loaded(e->store);
}

void etcd_give_up(struct etcd *e)
{
	if (e->store != NULL)
		etcd_store_lose(e->store);
}

/* -- life ------------------------------------------------------------------------------------- */

static int make_names(struct etcd *e, const struct etcd_config *config, struct error *err)
{
	json_t *o;
	char *text;

	if (strlen(config->prefix) > ETCD_PREFIX_MAX || !text_is_name(config->name) ||
	    strlen(config->address) >= ADDR_SIZE_MAX)
		return error_set(err, -EINVAL,
				 "prefix, name or address of a member of the register on etcd is "
				 "too long or no name");
	snprintf(e->prefix, sizeof e->prefix, "%s", config->prefix);
	snprintf(e->name, sizeof e->name, "%s", config->name);
	snprintf(e->address, sizeof e->address, "%s", config->address);
	snprintf(e->leader_key, sizeof e->leader_key, "%sleader", e->prefix);
	snprintf(e->members_prefix, sizeof e->members_prefix, "%smembers/", e->prefix);
	o = json_pack("{s:s,s:s,s:i}", "name", e->name, "address", e->address, "ttl_s",
		      (int)e->config.ttl_s);
	text = o != NULL ? json_dumps(o, JSON_COMPACT) : NULL;
	json_decref(o);
	if (text == NULL)
		return error_set(err, -ENOMEM, "no memory");
	snprintf(e->value, sizeof e->value, "%s", text);
	free(text);
	return 0;
}

int etcd_open(const struct etcd_config *config, struct etcd **ret_etcd, struct error *err)
{
	struct etcd *e = calloc(1, sizeof *e);
	int rc;

	if (e == NULL)
		return error_set(err, -ENOMEM, "no memory");
	e->config = *config;
	if (e->config.ttl_s == 0)
		e->config.ttl_s = ETCD_TTL_DEFAULT_S;
	PRE(e->config.ttl_s >= ETCD_TTL_MIN_S && e->config.ttl_s <= ETCD_TTL_MAX_S);
	PRE(config->family_count <= KV_FAMILIES_MAX);
	rc = make_names(e, config, err);
	if (rc == 0 && http_create(&config->servers, &config->tls, &e->beat.http) != 0)
		rc = error_set(err, -ENOMEM, "no memory for HTTP");
	if (rc != 0) {
		free(e);
		return rc;
	}
	e->timer.fire = timer_fired;
	beat_after(e, 0);
	*ret_etcd = e;
	return 0;
}

void etcd_stop(struct etcd *e, void (*done)(void *arg), void *arg)
{
	PRE(e->state != STOPPING);
	e->stopped = done;
	e->stopped_arg = arg;
	e->state = STOPPING;
	e->deadline_ns = 0;
	etcd_give_up(e);
	beat_start(e);
}
