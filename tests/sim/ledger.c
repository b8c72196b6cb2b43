/* ledger: see ledger.h. */
#include "tests/sim/ledger.h"

#include <stdlib.h>
#include <string.h>

#include "engine/base/assert.h"
#include "engine/ledger/history.h"
#include "engine/placement/pd.h"
#include "tests/sim/pds.h"

struct file {
	uint8_t *bytes;
	size_t size, room;
	struct ledger_tip tip;
	struct error err;
	bool broken;
};

static void append(struct file *f, const void *bytes, size_t size)
{
	if (f->size + size > f->room) {
		f->room = 2 * (f->size + size);
		f->bytes = realloc(f->bytes, f->room);
		INVARIANT(f->bytes != NULL);
	}
	memcpy(f->bytes + f->size, bytes, size);
	f->size += size;
}

static void item(struct file *f, enum ledger_item_kind kind, const void *bytes, size_t size)
{
	uint8_t head[LEDGER_ITEM_HEAD];

	ledger_item_head(kind, size, head);
	append(f, head, sizeof(head));
	append(f, bytes, size);
}

static void each(const void *key, size_t key_size, const void *value, size_t value_size, void *arg)
{
	struct file *f = arg;
	Pave__V1__LedgerRecord *r;

	(void)key;
	if (key_size != 8 || f->broken) /* the tip's own key is shorter */
		return;
	item(f, LEDGER_ITEM_RECORD, value, value_size);
	f->broken = ledger_follow(&f->tip, value, value_size, &r, &f->err) != 0;
	if (!f->broken)
		pave__v1__ledger_record__free_unpacked(r, NULL);
}

static void judge(struct cluster *c, const struct file *f)
{
	const struct history_options options = {.until = INT64_MAX};
	struct history *h;
	struct error err = {0};

	if (history_replay(f->bytes, f->size, c->root, strlen(c->root), &options, &h, &err) != 0) {
		cluster_fail(c, "I7: the ledger is broken: %s", err.text);
		return;
	}
	for (uint32_t i = 0; i < h->kept_count && !c->failed; i++)
		if (!h->findings[i].note)
			cluster_fail(c, "I7: record %lu of %lu contradicts the evidence: %s",
				     h->findings[i].seq, h->tip.seq, h->findings[i].text);
	c->stats.records = h->tip.seq;
	c->stats.receipts = h->receipt_count;
	history_free(h);
}

void ledger_check(struct cluster *c)
{
	struct file f = {0};
	Pave__V1__Signed *head;
	uint8_t packed[1024];

	append(&f, LEDGER_MAGIC, LEDGER_MAGIC_LEN);
	pds_register_each(c, PD_KV_LEDGER, each, &f);
	if (f.broken || f.tip.seq == 0) {
		cluster_fail(c, "I7: the ledger is broken: %s",
			     f.broken ? f.err.text : "it is empty");
	} else if (ledger_head_make(&f.tip, &c->demo.cluster, demo_key(&c->demo, DEMO_PLACEMENT),
				    &head, &f.err) == 0) {
		item(&f, LEDGER_ITEM_SIGNED_HEAD, packed, pave__v1__signed__pack(head, packed));
		pave__v1__signed__free_unpacked(head, NULL);
		judge(c, &f);
	}
	free(f.bytes);
}
