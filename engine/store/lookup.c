/* lookup: see lookup.h. */
#include "engine/store/lookup.h"

#include <errno.h>
#include <stdlib.h>

#include "engine/base/assert.h"
#include "engine/base/log.h"
#include "engine/store/core.h"
#include "engine/store/recovery.h"

static void retry_run(struct reactor_task *task);
static void fetch_done(struct kv_get_op *op, int status);
static void blind_retry_fire(struct reactor_timer *timer);

int lookups_init(struct store *store)
{
	struct lookups *t = &store->lookups;

	t->retry.run = retry_run;
	t->blind_retry.fire = blind_retry_fire;
	t->fetches = calloc(LOOKUP_FETCHES_MAX, sizeof *t->fetches);
	if (t->fetches == NULL)
		return -ENOMEM;
	for (uint32_t i = 0; i < LOOKUP_FETCHES_MAX; i++) {
		t->fetches[i].store = store;
		t->fetches[i].next = t->free;
		t->free = &t->fetches[i];
	}
	return 0;
}

void lookups_deinit(struct store *store)
{
	if (store->lookups.blind_retry.fire != NULL)
		reactor_timer_cancel(store->reactor, &store->lookups.blind_retry);
	free(store->lookups.fetches);
	store->lookups.fetches = NULL;
}

bool lookups_are_idle(const struct store *store)
{
	const struct lookups *t = &store->lookups;

	return t->in_flight == 0 && (store->index.blind_count == 0 || store->failed != 0) &&
	       t->gate.head == NULL && t->readers.head == NULL && t->writers.head == NULL &&
	       t->movers.head == NULL && t->failed.head == NULL && t->erases.head == NULL;
}

void lookup_retry(struct store *store)
{
	if (store->serving)
		reactor_defer(store->reactor, &store->lookups.retry);
}

static void push(struct lookup_queue *q, struct lookup *l)
{
	l->next = NULL;
	if (q->head == NULL)
		q->head = l;
	else
		q->tail->next = l;
	q->tail = l;
}

static struct lookup *pop(struct lookup_queue *q)
{
	struct lookup *l = q->head;

	if (l != NULL)
		q->head = l->next;
	return l;
}

/* -- who may ---------------------------------------------------------------------------------- */

static uint32_t first_page(const struct lookup *l)
{
	return l->block >> PAGE_SHIFT;
}

static uint32_t page_span(const struct lookup *l)
{
	if (l->block_count == 0)
		return 0;
	return ((l->block + l->block_count - 1) >> PAGE_SHIFT) - first_page(l) + 1;
}

static bool changes_pages(const struct lookup *l)
{
	return l->kind == LOOKUP_WRITE || l->kind == LOOKUP_MOVE;
}

/* An erase comes first, or what was erased is still being buried. */
static bool is_gated(struct store *store, const struct lookup *l)
{
	const struct index_volume *volume;
	const struct index_chunk *chunk;

	if (!changes_pages(l))
		return false;
	chunk = index_find_chunk(&store->index, l->volume, l->chunk);
	if (chunk != NULL)
		return chunk->erasures > 0 || chunk->volume->erasures > 0;
	volume = index_find_volume(&store->index, l->volume);
	if (volume != NULL && volume->erasures > 0)
		return true;
	return l->kind == LOOKUP_WRITE && volume != NULL &&
	       index_is_dead(&store->index, l->volume, l->chunk);
}

static void push_gated(struct store *store, struct lookup *l)
{
	l->was_gated = true;
	push(&store->lookups.gate, l);
}

static struct lookup_queue *queue_of(struct store *store, const struct lookup *l)
{
	if (l->kind == LOOKUP_WRITE)
		return &store->lookups.writers;
	return l->kind == LOOKUP_MOVE ? &store->lookups.movers : &store->lookups.readers;
}

static uint32_t *counter_of(struct store *store, const struct lookup *l)
{
	if (l->kind == LOOKUP_WRITE)
		return &store->lookups.writing;
	return l->kind == LOOKUP_MOVE ? &store->lookups.moving : &store->lookups.reading;
}

/* Whether so many pages more may be held. One look-up alone always may. */
static bool is_allowed(struct store *store, const struct lookup *l)
{
	const struct index *ix = &store->index;
	uint32_t held = *counter_of(store, l);
	uint32_t max = ix->held_max;

	if (changes_pages(l)) {
		held += ix->dirty_page_count + ix->collected_count + ix->blind_count;
		max = ix->dirty_max;
	}
	if (l->kind == LOOKUP_MOVE)
		max += INDEX_MOVES_MAX;
	return held == 0 || page_span(l) == 0 || held + page_span(l) <= max;
}

/* -- pages from kv ---------------------------------------------------------------------------- */

static struct lookup **waiters_of(struct index_page *page)
{
	return page->blind ? &index_blind_of(page)->waiters : &page->loading.waiters;
}

static struct index_page **wanted_next_of(struct index_page *page)
{
	return page->blind ? &index_blind_of(page)->wanted_next : &page->loading.next;
}

static void start_fetch(struct store *store, struct index_page *page)
{
	struct lookups *t = &store->lookups;
	struct lookup_fetch *f = t->free;

	page->state = INDEX_LOADING;
	*waiters_of(page) = NULL;
	*wanted_next_of(page) = NULL;
	if (f == NULL) {
		if (t->wanted_head == NULL)
			t->wanted_head = page;
		else
			*wanted_next_of(t->wanted_tail) = page;
		t->wanted_tail = page;
		return;
	}
	t->free = f->next;
	t->in_flight++;
	f->page = page;
	f->op.done = fetch_done;
	f->op.family = STORE_KV_PAGES;
	f->op.key_size = format_key_page(store->prefix, page->chunk->volume->id, page->chunk->no,
					 page->no, f->op.key);
	f->op.value = f->value;
	f->op.value_max = sizeof f->value;
	kv_get(store->kv, &f->op);
}

/* What was written to it is acknowledged, and waits for it to be read. */
static bool is_owed(const struct index_page *page)
{
	return page->blind && index_blind_of(page)->listed;
}

void lookup_blind_failed(struct store *store)
{
	struct reactor_timer *timer = &store->lookups.blind_retry;

	if (timer->heap_slot == 0)
		reactor_timer_arm(store->reactor, timer,
				  reactor_now_ns(store->reactor) + BLIND_RETRY_NS);
}

static void blind_retry_fire(struct reactor_timer *timer)
{
	struct store *store = container_of(timer, struct store, lookups.blind_retry);

	if (store->failed != 0)
		return;
	if (store->lookups.blind_tries++ == BLIND_TRIES) {
		store_fail(store, -EIO, "reading the index, for what was written,");
		return;
	}
	for (struct index_blind *b = store->index.blinds; b != NULL; b = b->next)
		if (b->page->state == INDEX_FAILED)
			start_fetch(store, b->page);
}

/* Locations must lie in data blocks of our own segments that are in use, or were when a checkpoint
 * put the page (checkpoint.h, 4). */
static bool slots_are_sane(const struct store *store, const struct format_slot *slots)
{
	const struct segments *t = &store->segments;

	for (uint32_t i = 0; i < PAGE_BLOCKS; i++) {
		uint32_t no;

		if (!format_slot_has_data(&slots[i]))
			continue;
		no = segments_of(t, slots[i].location);
		if (no >= t->count || t->array[no].state == SEGMENT_FOREIGN ||
		    (t->array[no].state == SEGMENT_FREE && t->array[no].live == 0))
			return false;
	}
	return true;
}

/* The page gets its slots, or is FAILED. */
static void page_read(struct store *store, struct index_page *page, int status, const void *value,
		      size_t size)
{
	struct format_slot slots[PAGE_BLOCKS];

	if (status == 0 &&
	    (format_page_decode(value, size, slots) < 0 || !slots_are_sane(store, slots)))
		status = -E_CORRUPT;
	if (status == 0) {
		store->stats.index_reads++;
		store->lookups.blind_tries = 0;
		if (page->blind)
			blind_see(store, page, slots);
		else
			index_fill_page(&store->index, page, slots);
		return;
	}
	/* What exists and is not in memory is in kv. */
	if (status == -ENOENT)
		status = -E_CORRUPT;
	page->state = INDEX_FAILED;
	store->stats.index_errors++;
	log_error("store",
		  "%s: page %u of chunk %u of volume %llu cannot be read from the index: %s",
		  store->disk->name, page->no, page->chunk->no,
		  (unsigned long long)page->chunk->volume->id, err_text(status));
	if (is_owed(page))
		lookup_blind_failed(store);
}

struct load {
	struct store *store;
	struct index_page *page;
};

static int load_value(const void *key, size_t key_size, const void *value, size_t value_size,
		      void *arg)
{
	struct load *load = arg;

	(void)key;
	(void)key_size;
	page_read(load->store, load->page, 0, value, value_size);
	return 0;
}

/* Where it stands, while the store is being opened. */
static void page_load(struct store *store, struct index_page *page)
{
	struct load load = {store, page};
	uint8_t key[FORMAT_KEY_MAX];
	size_t key_size =
	    format_key_page(store->prefix, page->chunk->volume->id, page->chunk->no, page->no, key);
	int rc;

	page->state = INDEX_LOADING;
	rc = kv_scan(store->kv, STORE_KV_PAGES, key, key_size, load_value, &load);
	if (rc < 0 || page->state == INDEX_LOADING)
		page_read(store, page, rc < 0 ? rc : -ENOENT, NULL, 0);
}

/* -- holding ---------------------------------------------------------------------------------- */

static void unpin(struct store *store, struct index_page *page, bool narrow)
{
	INVARIANT(page->pins > 0);
	if (--page->pins > 0 || page->state == INDEX_LOADING || page->dirty || is_owed(page))
		return;
	if (page->state == INDEX_FAILED || !index_page_exists(page->chunk, page->no))
		index_drop_page(&store->index, page);
	else if (narrow)
		index_narrow_page(&store->index, page);
}

/* What it held is there for others. */
static void release(struct store *store, struct lookup *l)
{
	uint32_t span = page_span(l);

	if (l->counted)
		*counter_of(store, l) -= span;
	l->counted = false;
	if (queue_of(store, l)->head != NULL || store->lookups.erases.head != NULL)
		lookup_retry(store);
	if (l->held == NULL)
		return;
	for (uint32_t i = 0; l->pinned != 0; i++) {
		if ((l->pinned >> i & 1) == 0)
			continue;
		l->pinned &= ~(1u << i);
		unpin(store,
		      i == 0 ? l->first
			     : index_find_page(&store->index, l->held, first_page(l) + i),
		      changes_pages(l));
	}
	INVARIANT(l->held->holds > 0);
	l->held->holds--;
	if (changes_pages(l)) {
		INVARIANT(l->held->writers > 0);
		l->held->writers--;
		l->held->volume->writers--;
	}
	l->held = NULL;
}

/* 0, -ENOMEM: it is pinned, or not. now: read it here. */
static int pin_page(struct store *store, struct lookup *l, uint32_t i, bool now)
{
	struct index *ix = &store->index;
	page_no_t no = first_page(l) + i;
	struct index_page *page = index_find_page(ix, l->held, no);
	bool made = page == NULL;
	bool exists = !made || index_page_exists(l->held, no);

	if (!exists && l->kind != LOOKUP_WRITE)
		return 0;
	if (made && index_make_page(ix, l->held, no, !exists, &page) < 0)
		return -ENOMEM;
	page->pins++;
	page->used = true;
	l->pinned |= 1u << i;
	if (i == 0)
		l->first = page;
	if ((made && exists) || page->state == INDEX_FAILED) {
		if (now)
			page_load(store, page);
		else
			start_fetch(store, page);
	}
	/* A write waits for no page. */
	if (l->kind != LOOKUP_WRITE || now)
		return 0;
	if (page->state < INDEX_RUN)
		return page->blind ? 0 : index_blind_page(ix, page);
	return index_widen_page(ix, page);
}

/* As many pages exist as may, and some of these would be new. */
static bool is_full(const struct store *store, const struct lookup *l)
{
	const struct index *ix = &store->index;
	uint32_t span = page_span(l);

	if (ix->page_count + span <= ix->pages_max)
		return false;
	for (uint32_t i = 0; i < span; i++)
		if (!index_page_exists(l->held, first_page(l) + i))
			return true;
	return false;
}

/* Holds the chunk and its pages, which may have to be read. */
static int hold(struct store *store, struct lookup *l, bool now)
{
	uint32_t span = page_span(l);
	int rc = 0;

	*counter_of(store, l) += span;
	l->counted = true;
	if (l->kind == LOOKUP_WRITE)
		rc = index_get_chunk(&store->index, l->volume, l->chunk, &l->held);
	else if (l->kind != LOOKUP_BURY)
		l->held = index_find_chunk(&store->index, l->volume, l->chunk);
	if (rc == 0 && l->held != NULL) {
		l->held->holds++;
		if (changes_pages(l)) {
			l->held->writers++;
			l->held->volume->writers++;
		}
		/* What is in the log was admitted when it was written. */
		if (l->kind == LOOKUP_WRITE && !now && is_full(store, l))
			rc = -ENOSPC;
		for (uint32_t i = 0; rc == 0 && i < span; i++)
			rc = pin_page(store, l, i, now);
	}
	if (rc < 0)
		release(store, l);
	return rc;
}

/* Pages that came while others were read: they are held too. 0, -ENOMEM; *ret_any: there are some.
 */
static int pin_new_pages(struct store *store, struct lookup *l, bool *ret_any)
{
	uint32_t span = page_span(l);
	int rc = 0;

	*ret_any = false;
	for (uint32_t i = 0; rc == 0 && l->held != NULL && i < span; i++) {
		if ((l->pinned >> i & 1) != 0 || !index_page_exists(l->held, first_page(l) + i))
			continue;
		rc = pin_page(store, l, i, false);
		*ret_any = true;
	}
	return rc;
}

/* Goes on until a page is still being read. 0: all are here; 1: waits; or an error, and nothing is
 * held. */
static int wait_for_pages(struct store *store, struct lookup *l)
{
	bool any = true;
	int rc = 0;

	while (rc == 0 && any) {
		for (; l->pinned >> l->next_page != 0; l->next_page++) {
			struct index_page *page;

			if ((l->pinned >> l->next_page & 1) == 0)
				continue;
			page =
			    index_find_page(&store->index, l->held, first_page(l) + l->next_page);
			if (page->state != INDEX_LOADING)
				continue;
			l->next = *waiters_of(page);
			*waiters_of(page) = l;
			return 1;
		}
		rc = pin_new_pages(store, l, &any);
		l->next_page = 0;
	}
	for (uint32_t i = 0; rc == 0 && l->pinned >> i != 0; i++) {
		struct index_page *page;

		if ((l->pinned >> i & 1) == 0)
			continue;
		page = index_find_page(&store->index, l->held, first_page(l) + i);
		if (page->state == INDEX_FAILED)
			rc = -EIO;
		else if (changes_pages(l))
			rc = index_widen_page(&store->index, page);
	}
	if (rc < 0)
		release(store, l);
	return rc;
}

static int begin(struct store *store, struct lookup *l)
{
	int rc = hold(store, l, false);

	return rc < 0 || l->kind == LOOKUP_WRITE ? rc : wait_for_pages(store, l);
}

const struct index_page *lookup_page(const struct store *store, const struct lookup *l,
				     block_no_t block)
{
	page_no_t no = block >> PAGE_SHIFT;

	if (l->held == NULL || l->held->dead || (l->pinned >> (no - first_page(l)) & 1) == 0)
		return NULL;
	return index_find_page(&store->index, l->held, no);
}

struct format_slot lookup_slot(const struct store *store, const struct lookup *l, block_no_t block)
{
	const struct index_page *page = lookup_page(store, l, block);

	return page != NULL ? index_slot(page, block % PAGE_BLOCKS) : (struct format_slot){0};
}

int lookup_begin(struct store *store, struct lookup *l)
{
	struct lookup_queue *q = queue_of(store, l);
	int rc;

	PRE(l->done != NULL && l->block_count <= IO_BLOCKS_MAX &&
	    (l->block_count > 0 || l->kind == LOOKUP_WRITE));
	l->pinned = 0;
	l->next_page = 0;
	l->counted = false;
	l->was_gated = false;
	if (l->kind != LOOKUP_BURY)
		l->held = NULL;
	if (is_gated(store, l)) {
		push_gated(store, l);
		return 1;
	}
	if (page_span(l) > 0 && (q->head != NULL || !is_allowed(store, l))) {
		push(q, l);
		lookup_retry(store);
		return 1;
	}
	rc = begin(store, l);
	if (rc < 0 && l->kind == LOOKUP_READ) {
		push(&store->lookups.failed, l);
		lookup_retry(store);
		return 1;
	}
	return rc;
}

void lookup_end(struct store *store, struct lookup *l)
{
	release(store, l);
}

/* -- reading ---------------------------------------------------------------------------------- */

static void fetch_done(struct kv_get_op *op, int status)
{
	struct lookup_fetch *f = container_of(op, struct lookup_fetch, op);
	struct store *store = f->store;
	struct lookups *t = &store->lookups;
	struct index_page *page = f->page;
	struct lookup *l = *waiters_of(page);
	struct index_page *wanted = t->wanted_head;

	page->pins++;
	page_read(store, page, status, f->value, MIN(op->value_size, sizeof f->value));
	f->next = t->free;
	t->free = f;
	t->in_flight--;
	if (wanted != NULL) {
		struct lookup *waiters = *waiters_of(wanted);

		t->wanted_head = *wanted_next_of(wanted);
		start_fetch(store, wanted);
		*waiters_of(wanted) = waiters;
	}
	while (l != NULL) {
		struct lookup *next = l->next;
		int rc = wait_for_pages(store, l);

		if (rc <= 0)
			l->done(l, rc);
		l = next;
	}
	unpin(store, page, true);
	if (store->recovery != NULL) {
		if (t->in_flight == 0)
			recovery_pages_read(store);
		return;
	}
	if (wlog_has_waiting(store))
		wlog_kick(store);
	/* What was blind is dirty now, and a checkpoint can make room of it. */
	if (t->writers.head != NULL || t->movers.head != NULL)
		lookup_retry(store);
	store_close_tick(store);
}

void lookup_ahead(struct store *store, struct index_chunk *chunk, page_no_t no)
{
	struct index_page *page;

	PRE(!store->serving);
	if (index_page_exists(chunk, no) && index_find_page(&store->index, chunk, no) == NULL &&
	    index_make_page(&store->index, chunk, no, false, &page) == 0)
		start_fetch(store, page);
}

int lookup_now(struct store *store, struct lookup *l)
{
	int rc;

	PRE(!store->serving);
	*l = (struct lookup){.volume = l->volume,
			     .chunk = l->chunk,
			     .block = l->block,
			     .block_count = l->block_count,
			     .kind = l->kind,
			     .held = l->kind == LOOKUP_BURY ? l->held : NULL};
	rc = hold(store, l, true);
	if (rc == 0)
		rc = wait_for_pages(store, l);
	INVARIANT(rc <= 0);
	return rc;
}

/* -- erases ----------------------------------------------------------------------------------- */

static bool erase_may_go(struct store *store, struct item *item)
{
	const struct store_erase_op *op = ITEM_OWNER(item, struct store_erase_op);
	const struct index_chunk *chunk = item_op_of(item)->lookup.held;

	if (chunk != NULL)
		return chunk->writers == 0;
	return index_find_volume(&store->index, op->volume)->writers == 0;
}

void lookup_submit_erase(struct store *store, struct item *item)
{
	const struct store_erase_op *op = ITEM_OWNER(item, struct store_erase_op);
	struct index_volume *volume = index_find_volume(&store->index, op->volume);
	struct lookup *l = &item_op_of(item)->lookup;

	l->held = NULL;
	if (op->chunk != UINT32_MAX)
		l->held = index_find_chunk(&store->index, op->volume, op->chunk);
	if (volume == NULL || (op->chunk != UINT32_MAX && l->held == NULL) ||
	    (volume->chunks == NULL && volume->writers == 0)) {
		/* There is nothing, and what is being written is asked for again. */
		item_complete_later(store, item, 0);
		return;
	}
	item->held = true;
	if (l->held != NULL) {
		l->held->erasures++;
		l->held->holds++;
	} else {
		volume->erasures++;
	}
	item_push(&store->lookups.erases, item);
	lookup_retry(store);
}

void lookup_erased(struct store *store, struct item *item)
{
	const struct store_erase_op *op = ITEM_OWNER(item, struct store_erase_op);
	struct index_chunk *chunk = item_op_of(item)->lookup.held;
	struct index_volume *volume = index_find_volume(&store->index, op->volume);

	item->held = false;
	if (chunk != NULL) {
		chunk->erasures--;
		chunk->holds--;
	} else {
		volume->erasures--;
		index_settle_volume(&store->index, volume);
	}
	lookup_retry(store);
}

static void release_erases(struct store *store)
{
	struct item_queue q = store->lookups.erases;
	struct item *item;

	store->lookups.erases = (struct item_queue){0};
	while ((item = item_pop(&q)) != NULL) {
		if (erase_may_go(store, item) || store->failed != 0)
			wlog_submit(store, item, WLOG_HOT, true);
		else
			item_push(&store->lookups.erases, item);
	}
}

/* -- again ------------------------------------------------------------------------------------ */

static void begin_and_tell(struct store *store, struct lookup *l)
{
	int rc = begin(store, l);

	if (rc <= 0)
		l->done(l, rc);
}

static void retry_queue(struct store *store, struct lookup_queue *q)
{
	while (q->head != NULL && is_allowed(store, q->head)) {
		struct lookup *l = pop(q);

		if (is_gated(store, l))
			push_gated(store, l);
		else
			begin_and_tell(store, l);
	}
}

static void retry_gate(struct store *store)
{
	struct lookup_queue q = store->lookups.gate;
	struct lookup *l;

	store->lookups.gate = (struct lookup_queue){0};
	while ((l = pop(&q)) != NULL) {
		if (l->block_count == 0)
			l->done(l, -E_STALE_REPLICA);
		else if (is_gated(store, l))
			push_gated(store, l);
		else
			push(queue_of(store, l), l);
	}
}

/* Nothing more is written: whoever waits to write waits in vain. */
static void fail_queue(struct lookup_queue *q, int status)
{
	struct lookup *l;

	while ((l = pop(q)) != NULL)
		l->done(l, status);
}

static void retry_run(struct reactor_task *task)
{
	struct store *store = container_of(task, struct store, lookups.retry);
	struct lookups *t = &store->lookups;

	release_erases(store);
	fail_queue(&t->failed, -ENOMEM);
	if (store->failed != 0) {
		fail_queue(&t->gate, store->failed);
		fail_queue(&t->movers, store->failed);
		fail_queue(&t->writers, store->failed);
	}
	retry_gate(store);
	retry_queue(store, &t->movers);
	retry_queue(store, &t->writers);
	retry_queue(store, &t->readers);
	if ((t->movers.head != NULL || t->writers.head != NULL) &&
	    store->index.dirty_page_count > 0)
		checkpoint_want(store);
	store_close_tick(store);
}
