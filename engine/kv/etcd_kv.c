/* etcd_kv: kv.h for the leader of a register on etcd. See etcd.h, etcd_core.h.
 *
 *   commit: batch -> pieces -> one: [transaction]
 *                           -> several: [journal piece]... [mark] [piece]... [journal and mark
 * gone]
 *
 * INVARIANTS
 *  1. At most one commit is on a worker, the head of the queue.
 *  2. Every transaction compares the revision at which the leader's key was created, and `seq`,
 * which it raises. So one that etcd carries out late, because an answer was lost and it was sent
 *     again, changes nothing; and one that was carried out although its answer was lost is known by
 *     what stands in `seq`.
 *  3. What is marked is carried out before anything else is read or written, by whoever leads.
 *
 * Failure modes: etcd cannot be reached: the commit waits on its worker, asking again, until it is
 * known that somebody else leads (etcd_store_lose), or the process ends. A refusal (a request too
 * large for etcd's configuration), or another leader's key: -EIO, and every commit after it. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "engine/base/assert.h"
#include "engine/base/log.h"
#include "engine/kv/etcd_core.h"

#define RETRY_NS   100000000L
#define READ_TRIES 20u /* of a read that etcd does not answer */
#define SEQ_SIZE   48u

struct etcd_store {
	struct kv head;
	char prefix[ETCD_PREFIX_MAX + 1];
	char leader_key[ETCD_KEY_MAX], seq_key[ETCD_KEY_MAX], mark_key[ETCD_KEY_MAX];
	char journal_prefix[ETCD_KEY_MAX];
	uint32_t family_count, large_families;
	int64_t created;
	uint64_t seq; /* the last one written; the commit's worker's, or the loading one's */
	atomic_bool lost, failed;
	bool told; /* that etcd does not answer; as seq */
	struct http *write_http, *read_http, *scan_http;
	struct etcd_image image;
	bool has_image;
	struct kv_op *commits; /* the queue; its head is on a worker */
	struct kv_op **commits_tail;
	struct kv_get_op *gets; /* likewise */
	struct kv_get_op **gets_tail;
	uint64_t in_flight;
};

struct commit {
	struct reactor_work work;
	struct etcd_store *store;
	struct kv_batch *batch;
	struct kv_op *next;
	int status;
};
_Static_assert(sizeof(struct commit) <= sizeof(((struct kv_op *)0)->impl), "impl is too small");

struct get {
	struct reactor_work work;
	struct etcd_store *store;
	struct kv_get_op *next;
	int status;
};
_Static_assert(sizeof(struct get) <= sizeof(((struct kv_get_op *)0)->impl), "impl is too small");

static struct etcd_store *store_of(struct kv *kv)
{
	return container_of(kv, struct etcd_store, head);
}

/* -- transactions of the leader's, on a worker ------------------------------------------------ */

static void seq_text(const struct etcd_store *s, uint64_t n, char ret[SEQ_SIZE])
{
	snprintf(ret, SEQ_SIZE, "%lld:%llu", (long long)s->created, (unsigned long long)n);
}

static bool is_value(const struct etcd_pairs *p, const char *text)
{
	return p->count == 1 && p->list[0].value_size == strlen(text) &&
	       memcmp(p->list[0].value, text, strlen(text)) == 0;
}

static void pause_before_retry(void)
{
	const struct timespec ts = {.tv_nsec = RETRY_NS};

	nanosleep(&ts, NULL);
}

/* No answer: whether to ask again. */
static bool goes_on(struct etcd_store *s, const struct error *err)
{
	if (!s->told)
		log_warn("etcd", "the register waits for etcd: %s", err->text);
	s->told = true;
	if (atomic_load(&s->lost))
		return false;
	pause_before_retry();
	return true;
}

static void answered(struct etcd_store *s)
{
	if (s->told)
		log_info("etcd", "the register goes on");
	s->told = false;
}

static int fail(struct etcd_store *s, const char *why)
{
	log_error("etcd", "a change of the register was not made: %s", why);
	atomic_store(&s->failed, true);
	return -EIO;
}

/* What a transaction does besides raising the counter. */
struct step {
	/* NULL: nothing. */
	int (*fill)(struct etcd_store *s, struct etcd_txn *t, const void *arg);
	const void *arg;
};

static int step_once(struct etcd_store *s, const struct step *step, bool *ret_done,
		     struct error *err)
{
	char now[SEQ_SIZE], next[SEQ_SIZE];
	struct etcd_txn_reply r = {0};
	struct etcd_txn t;
	int rc;

	seq_text(s, s->seq, now);
	seq_text(s, s->seq + 1, next);
	etcd_txn_init(&t);
	etcd_txn_if_created(&t, s->leader_key, s->created);
	etcd_txn_if_value(&t, s->seq_key, now);
	etcd_txn_put(&t, s->seq_key, strlen(s->seq_key), next, strlen(next), 0);
	etcd_txn_else_get(&t, s->leader_key);
	etcd_txn_else_get(&t, s->seq_key);
	if (step->fill != NULL && step->fill(s, &t, step->arg) != 0) {
		etcd_txn_drop(&t);
		return error_set(err, -E_CORRUPT, "a piece of the journal cannot be read");
	}
	rc = etcd_txn_commit(s->write_http, &t, ETCD_TIMEOUT_MS, &r, err);
	if (rc != 0)
		return rc;
	*ret_done =
	    r.succeeded || (r.got[0].count == 1 && r.got[0].list[0].create_revision == s->created &&
			    is_value(&r.got[1], next));
	etcd_txn_reply_deinit(&r);
	return 0;
}

static int step_run(struct etcd_store *s, const struct step *step)
{
	struct error err = {0};
	bool done = false;
	int rc;

	do {
		if (atomic_load(&s->lost) || atomic_load(&s->failed))
			return -EIO;
		rc = step_once(s, step, &done, &err);
	} while (rc == -E_UNREACHABLE && goes_on(s, &err));
	if (rc == -E_UNREACHABLE)
		return -EIO;
	answered(s);
	if (rc != 0)
		return fail(s, err.text);
	if (!done)
		return fail(s, "another placement driver leads");
	s->seq++;
	return 0;
}

static int fill_piece(struct etcd_store *s, struct etcd_txn *t, const void *arg)
{
	const struct etcd_bytes *b = arg;

	(void)s;
	return etcd_piece_fill(b->data, b->size, t);
}

struct journal_piece {
	const struct etcd_bytes *bytes;
	size_t index;
};

static size_t journal_key(const struct etcd_store *s, size_t index, char ret[ETCD_KEY_MAX])
{
	return (size_t)snprintf(ret, ETCD_KEY_MAX, "%.*s%08zx", (int)ETCD_PREFIX_MAX + 16,
				s->journal_prefix, index);
}

static int fill_journal(struct etcd_store *s, struct etcd_txn *t, const void *arg)
{
	const struct journal_piece *p = arg;
	char key[ETCD_KEY_MAX];
	const size_t size = journal_key(s, p->index, key);

	etcd_txn_put(t, key, size, p->bytes->data, p->bytes->size, 0);
	return 0;
}

static int fill_mark(struct etcd_store *s, struct etcd_txn *t, const void *arg)
{
	const size_t *count = arg;
	char text[24];

	snprintf(text, sizeof text, "%zu", *count);
	etcd_txn_put(t, s->mark_key, strlen(s->mark_key), text, strlen(text), 0);
	return 0;
}

static int fill_clear(struct etcd_store *s, struct etcd_txn *t, const void *arg)
{
	uint8_t end[ETCD_KEY_MAX];
	size_t size = strlen(s->journal_prefix);

	(void)arg;
	memcpy(end, s->journal_prefix, size);
	etcd_after_prefix(end, &size);
	etcd_txn_delete(t, s->journal_prefix, strlen(s->journal_prefix), end, size);
	etcd_txn_delete(t, s->mark_key, strlen(s->mark_key), "", 0);
	return 0;
}

static int write_large(struct etcd_store *s, const struct etcd_pieces *p)
{
	const struct step mark = {fill_mark, &p->count}, clear = {fill_clear, NULL};
	int rc = 0;

	for (size_t i = 0; rc == 0 && i < p->count; i++) {
		const struct journal_piece piece = {&p->list[i].bytes, i};

		rc = step_run(s, &(struct step){fill_journal, &piece});
	}
	if (rc == 0)
		rc = step_run(s, &mark);
	for (size_t i = 0; rc == 0 && i < p->count; i++)
		rc = step_run(s, &(struct step){fill_piece, &p->list[i].bytes});
	return rc == 0 ? step_run(s, &clear) : rc;
}

static void commit_work(struct reactor_work *work)
{
	struct commit *c = container_of(work, struct commit, work);
	struct etcd_store *s = c->store;
	struct etcd_pieces p = {.list = NULL};

	c->status = c->batch != NULL ? etcd_batch_pieces(c->batch, s->prefix, &p) : -ENOMEM;
	if (c->batch != NULL)
		etcd_batch_destroy(c->batch);
	c->batch = NULL;
	if (c->status == 0 && p.count == 0)
		c->status = step_run(s, &(struct step){NULL, NULL}); /* that it still leads */
	else if (c->status == 0 && p.count == 1)
		c->status = step_run(s, &(struct step){fill_piece, &p.list[0].bytes});
	else if (c->status == 0 && p.count > 1)
		c->status = write_large(s, &p);
	etcd_pieces_deinit(&p);
}

/* -- the queue of commits --------------------------------------------------------------------- */

static struct commit *commit_of(struct kv_op *op)
{
	return (struct commit *)(void *)op->impl;
}

static void commit_done(struct reactor_work *work)
{
	struct commit *c = container_of(work, struct commit, work);
	struct etcd_store *s = c->store;
	struct kv_op *op = container_of(c, struct kv_op, impl);

	INVARIANT(s->commits == op && s->in_flight > 0);
	s->commits = c->next;
	if (s->commits == NULL)
		s->commits_tail = &s->commits;
	else
		reactor_offload(s->head.reactor, &commit_of(s->commits)->work);
	s->in_flight--;
	op->done(op, c->status);
}

static void etcd_commit(struct kv *kv, struct kv_batch *b, struct kv_op *op)
{
	struct etcd_store *s = store_of(kv);
	struct commit *c = commit_of(op);
	bool was_empty = s->commits == NULL;

	PRE(op->done != NULL);
	*c = (struct commit){
	    .work = {.work = commit_work, .done = commit_done}, .store = s, .batch = b};
	*s->commits_tail = op;
	s->commits_tail = &c->next;
	s->in_flight++;
	if (was_empty)
		reactor_offload(kv->reactor, &c->work);
}

/* -- reading ---------------------------------------------------------------------------------- */

/* All pairs in [from, to), in order. On any thread. */
static int read_pairs(struct etcd_store *s, struct http *h, const uint8_t *from, size_t from_size,
		      const uint8_t *to, size_t to_size, struct etcd_image *image)
{
	uint8_t at[2 * ETCD_KEY_MAX];
	uint32_t limit = ETCD_PAGE_MIN, tries = 0;
	bool more = true;
	int rc = 0;

	memcpy(at, from, from_size);
	while (rc == 0 && more) {
		struct etcd_pairs p = {.list = NULL};
		struct error err;
		size_t bytes = 0;

		rc = etcd_range(h, at, from_size, to, to_size, limit, ETCD_TIMEOUT_MS, &p, &err);
		if (rc == -E_UNREACHABLE && ++tries < READ_TRIES && !atomic_load(&s->lost)) {
			/* It may be more than can be answered in time, after many small ones. */
			limit = MAX(limit / 2, 1u);
			pause_before_retry();
			rc = 0;
			continue;
		}
		if (rc != 0) {
			log_error("etcd", "the register cannot be read: %s", err.text);
			return rc == -ENOMEM ? rc : -EIO;
		}
		for (size_t i = 0; rc == 0 && i < p.count; i++) {
			rc = etcd_image_add(image, s->prefix, &p.list[i]);
			bytes += p.list[i].value_size;
		}
		more = p.more && p.count > 0;
		if (more && p.list[p.count - 1].key_size >= sizeof at) {
			rc = -E_CORRUPT;
		} else if (more) {
			from_size = p.list[p.count - 1].key_size;
			memcpy(at, p.list[p.count - 1].key, from_size);
			at[from_size++] = 0; /* the next key that there can be */
		}
		limit =
		    bytes > ETCD_PAGE_BYTES ? MAX(limit / 2, 1u) : MIN(limit * 2, ETCD_PAGE_MAX);
		tries = 0;
		etcd_pairs_deinit(&p);
	}
	return rc == 0 && image->parts_left != 0 ? -E_CORRUPT : rc;
}

static void get_work(struct reactor_work *work)
{
	struct get *g = container_of(work, struct get, work);
	struct kv_get_op *op = container_of(g, struct kv_get_op, impl);
	struct etcd_store *s = g->store;
	uint8_t from[ETCD_KEY_MAX], to[ETCD_KEY_MAX];
	struct etcd_image image = {.list = NULL};
	const size_t size = etcd_part_key(from, s->prefix, op->family, op->key, op->key_size, 0);

	memcpy(to, from, size);
	to[size - 3] = 1;
	g->status = read_pairs(s, s->read_http, from, size, to, size, &image);
	if (g->status == 0 && image.count == 0)
		g->status = -ENOENT;
	if (g->status == 0) {
		const struct etcd_record *r = &image.list[0];

		if (MIN(r->value_size, op->value_max) > 0)
			memcpy(op->value, r->data + r->key_size, MIN(r->value_size, op->value_max));
		op->value_size = r->value_size;
	}
	etcd_image_deinit(&image);
}

static struct get *get_of(struct kv_get_op *op)
{
	return (struct get *)(void *)op->impl;
}

static void get_done(struct reactor_work *work)
{
	struct get *g = container_of(work, struct get, work);
	struct etcd_store *s = g->store;
	struct kv_get_op *op = container_of(g, struct kv_get_op, impl);

	INVARIANT(s->gets == op && s->in_flight > 0);
	s->gets = g->next;
	if (s->gets == NULL)
		s->gets_tail = &s->gets;
	else
		reactor_offload(s->head.reactor, &get_of(s->gets)->work);
	s->in_flight--;
	op->done(op, g->status);
}

static void etcd_get(struct kv *kv, struct kv_get_op *op)
{
	struct etcd_store *s = store_of(kv);
	struct get *g = get_of(op);
	bool was_empty = s->gets == NULL;

	PRE(op->done != NULL && op->family < s->family_count && op->key_size <= sizeof op->key);
	*g = (struct get){.work = {.work = get_work, .done = get_done}, .store = s};
	*s->gets_tail = op;
	s->gets_tail = &g->next;
	s->in_flight++;
	if (was_empty)
		reactor_offload(kv->reactor, &g->work);
}

static int each_of(const struct etcd_image *m, uint32_t family, const void *prefix,
		   size_t prefix_size,
		   int (*each)(const void *key, size_t key_size, const void *value,
			       size_t value_size, void *arg),
		   void *arg)
{
	int rc = 0;

	for (size_t i = 0; rc == 0 && i < m->count; i++) {
		const struct etcd_record *r = &m->list[i];

		if (r->family != family || r->key_size < prefix_size ||
		    (prefix_size > 0 && memcmp(r->data, prefix, prefix_size) != 0))
			continue;
		rc = each(r->data, r->key_size, r->data + r->key_size, r->value_size, arg);
	}
	return rc;
}

/* Asks etcd, and blocks. */
static int scan_now(struct etcd_store *s, uint32_t family, const void *prefix, size_t prefix_size,
		    struct etcd_image *ret)
{
	uint8_t from[ETCD_KEY_MAX], to[ETCD_KEY_MAX];
	size_t from_size, to_size;

	PRE(prefix_size <= 64);
	from_size = etcd_part_key(from, s->prefix, family, prefix, prefix_size, 0) - 3;
	to_size = from_size;
	memcpy(to, from, from_size);
	etcd_after_prefix(to, &to_size);
	return read_pairs(s, s->scan_http, from, from_size, to, to_size, ret);
}

static int etcd_scan(struct kv *kv, uint32_t family, const void *prefix, size_t prefix_size,
		     int (*each)(const void *key, size_t key_size, const void *value,
				 size_t value_size, void *arg),
		     void *arg)
{
	struct etcd_store *s = store_of(kv);
	struct etcd_image image = {.list = NULL};
	int rc;

	PRE(family < s->family_count);
	if (s->has_image && (s->large_families & (1u << family)) == 0)
		return each_of(&s->image, family, prefix, prefix_size, each, arg);
	rc = scan_now(s, family, prefix, prefix_size, &image);
	if (rc == 0)
		rc = each_of(&image, family, prefix, prefix_size, each, arg);
	etcd_image_deinit(&image);
	return rc;
}

/* -- taking over, on a worker ----------------------------------------------------------------- */

/* The first write of a leadership: the counter is its own from now on. */
static int claim_once(struct etcd_store *s, bool *ret_done, struct error *err)
{
	struct etcd_pairs now = {.list = NULL};
	struct etcd_txn_reply r = {0};
	char mine[SEQ_SIZE];
	struct etcd_txn t;
	int rc = etcd_range(s->write_http, s->seq_key, strlen(s->seq_key), "", 0, 1,
			    ETCD_TIMEOUT_MS, &now, err);

	if (rc != 0)
		return rc;
	seq_text(s, 0, mine);
	if (is_value(&now, mine)) { /* an answer was lost */
		*ret_done = true;
	} else {
		etcd_txn_init(&t);
		etcd_txn_if_created(&t, s->leader_key, s->created);
		etcd_txn_if_changed(&t, s->seq_key, now.count > 0 ? now.list[0].mod_revision : 0);
		etcd_txn_put(&t, s->seq_key, strlen(s->seq_key), mine, strlen(mine), 0);
		etcd_txn_else_get(&t, s->leader_key);
		etcd_txn_else_get(&t, s->seq_key);
		rc = etcd_txn_commit(s->write_http, &t, ETCD_TIMEOUT_MS, &r, err);
		*ret_done = rc == 0 && (r.succeeded || is_value(&r.got[1], mine));
		etcd_txn_reply_deinit(&r);
	}
	etcd_pairs_deinit(&now);
	return rc;
}

static int claim(struct etcd_store *s)
{
	struct error err = {0};
	bool done = false;
	int rc;

	do
		rc = claim_once(s, &done, &err);
	while (rc == -E_UNREACHABLE && goes_on(s, &err));
	answered(s);
	if (rc == 0 && !done)
		return fail(s, "another placement driver leads already");
	return rc == 0 ? 0 : fail(s, err.text);
}

static int one_pair(struct etcd_store *s, const char *key, struct etcd_pairs *ret)
{
	struct error err;
	int rc = -E_UNREACHABLE;

	for (uint32_t i = 0; i < READ_TRIES && rc == -E_UNREACHABLE; i++) {
		rc = etcd_range(s->write_http, key, strlen(key), "", 0, 1, ETCD_TIMEOUT_MS, ret,
				&err);
		if (rc == -E_UNREACHABLE)
			pause_before_retry();
	}
	return rc == 0 ? 0 : fail(s, err.text);
}

/* What an earlier leader marked as whole is carried out; what it did not is dropped. */
static int finish_earlier(struct etcd_store *s)
{
	const struct step clear = {fill_clear, NULL};
	struct etcd_pairs mark = {.list = NULL};
	unsigned long count = 0;
	int rc = one_pair(s, s->mark_key, &mark);

	if (rc == 0 && mark.count > 0) {
		count = strtoul((const char *)mark.list[0].value, NULL, 10);
		log_info("etcd", "a batch of %lu pieces that an earlier leader marked is finished",
			 count);
	}
	etcd_pairs_deinit(&mark);
	for (unsigned long i = 0; rc == 0 && i < count; i++) {
		struct etcd_pairs piece = {.list = NULL};
		char key[ETCD_KEY_MAX];

		journal_key(s, i, key);
		rc = one_pair(s, key, &piece);
		if (rc == 0 && piece.count != 1)
			rc = fail(s, "a piece of the journal is missing");
		if (rc == 0) {
			const struct etcd_bytes b = {.data = piece.list[0].value,
						     .size = piece.list[0].value_size};

			rc = step_run(s, &(struct step){fill_piece, &b});
		}
		etcd_pairs_deinit(&piece);
	}
	return rc == 0 ? step_run(s, &clear) : rc;
}

int etcd_store_load(struct etcd_store *s)
{
	int rc = claim(s);

	if (rc == 0)
		rc = finish_earlier(s);
	for (uint32_t i = 0; rc == 0 && i < s->family_count; i++)
		if ((s->large_families & (1u << i)) == 0)
			rc = scan_now(s, i, "", 0, &s->image);
	s->has_image = rc == 0;
	return rc;
}

/* -- life ------------------------------------------------------------------------------------- */

void etcd_store_loaded(struct etcd_store *s)
{
	s->has_image = false;
	etcd_image_deinit(&s->image);
}

void etcd_store_lose(struct etcd_store *s)
{
	atomic_store(&s->lost, true);
}

bool etcd_store_failed(const struct etcd_store *s)
{
	return atomic_load(&s->failed);
}

struct kv *etcd_store_kv(struct etcd_store *s)
{
	return &s->head;
}

void etcd_store_destroy(struct etcd_store *s)
{
	if (s == NULL)
		return;
	PRE(s->in_flight == 0);
	etcd_image_deinit(&s->image);
	http_destroy(s->write_http);
	http_destroy(s->read_http);
	http_destroy(s->scan_http);
	free(s);
}

/* The store is the leadership's, which lives on: etcd_follow takes it down. */
static void etcd_close(struct kv *kv)
{
	PRE(store_of(kv)->in_flight == 0);
}

static const struct kv_ops etcd_ops = {
    .batch_create = etcd_batch_create,
    .batch_put = etcd_batch_put,
    .batch_delete = etcd_batch_delete,
    .batch_delete_range = etcd_batch_delete_range,
    .batch_destroy = etcd_batch_destroy,
    .commit = etcd_commit,
    .get = etcd_get,
    .scan = etcd_scan,
    .close = etcd_close,
};

int etcd_store_create(const struct etcd_config *config, const char *prefix, int64_t created,
		      struct etcd_store **ret_store)
{
	struct etcd_store *s = calloc(1, sizeof *s);

	if (s == NULL)
		return -ENOMEM;
	s->head = (struct kv){&etcd_ops, config->reactor};
	s->created = created;
	s->family_count = config->family_count;
	s->large_families = config->large_families;
	s->commits_tail = &s->commits;
	s->gets_tail = &s->gets;
	snprintf(s->prefix, sizeof s->prefix, "%s", prefix);
	snprintf(s->leader_key, sizeof s->leader_key, "%sleader", s->prefix);
	snprintf(s->seq_key, sizeof s->seq_key, "%sseq", s->prefix);
	snprintf(s->mark_key, sizeof s->mark_key, "%smark", s->prefix);
	snprintf(s->journal_prefix, sizeof s->journal_prefix, "%sjournal/", s->prefix);
	if (http_create(&config->servers, &config->tls, &s->write_http) != 0 ||
	    http_create(&config->servers, &config->tls, &s->read_http) != 0 ||
	    http_create(&config->servers, &config->tls, &s->scan_http) != 0) {
		etcd_store_destroy(s);
		return -ENOMEM;
	}
	*ret_store = s;
	return 0;
}
