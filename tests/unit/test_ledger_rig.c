/* See test_ledger_rig.h. */
#include "test_ledger_rig.h"

#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "engine/evidence/permit.h"

/* -- writing ---------------------------------------------------------------------------------- */

void put(struct book *b, Pave__V1__LedgerRecord *r)
{
	struct error err = {0};

	ck_assert_uint_lt(b->count, RECORDS_MAX);
	ck_assert_int_eq(
	    ledger_append(&b->tip, r, b->now, &b->bytes[b->count], &b->size[b->count], &err), 0);
	b->count++;
	b->now += (int64_t)NS_PER_MS;
}

void put_document(struct book *b, const char *kind, const char *of, char *envelope)
{
	Pave__V1__LedgerDocument m = PAVE__V1__LEDGER_DOCUMENT__INIT;

	m.kind = name(kind);
	m.name = name(of);
	m.envelope = data(envelope, strlen(envelope));
	PUT(b, DOCUMENT, document, &m);
}

static void put_start(struct book *b)
{
	Pave__V1__LedgerStart m = PAVE__V1__LEDGER_START__INIT;

	m.cluster = data(b->rig.demo.cluster.bytes, 16);
	m.root = data(b->rig.root_envelope, strlen(b->rig.root_envelope));
	PUT(b, START, start, &m);
}

void put_evidence(struct book *b, uint64_t snapshot, int64_t par_withdrawn)
{
	const struct demo_entry entries[] = {{"par", 3, par_withdrawn}, {"lyo", 1, 0}};
	char *text;

	ck_assert_int_eq(demo_revocations(&b->rig.demo, snapshot, b->now - RIG_HOUR,
					  b->now + RIG_DAY, entries, 2, &text, NULL),
			 0);
	put_document(b, "revocations", "", text);
	free(text);
}

void put_site(struct book *b, const char *site, uint64_t version)
{
	char *text;

	ck_assert_int_eq(demo_site(&b->rig.demo, site, version, RIG_NOW - RIG_DAY,
				   RIG_NOW + 299 * RIG_DAY, &text, NULL),
			 0);
	put_document(b, "site", site, text);
	free(text);
}

void put_node(struct book *b, const char *node, const char *site, const struct identity *id)
{
	Pave__V1__LedgerNode m = PAVE__V1__LEDGER_NODE__INIT;

	m.node = name(node);
	m.site = name(site);
	if (id != NULL) {
		m.certificate = data(id->certificate.data, id->certificate.size);
		m.ca = data(id->ca.data, id->ca.size);
	}
	PUT(b, NODE, node, &m);
}

static void put_volume(struct book *b)
{
	Pave__V1__LedgerVolume v = PAVE__V1__LEDGER_VOLUME__INIT;
	Pave__V1__LedgerMap m = PAVE__V1__LEDGER_MAP__INIT;
	char *nodes[] = {name("par-1"), name("lyo-1")};
	static const uint8_t map[] = {0, 1, 1, 0};

	v.volume = 7;
	v.name = name("vm");
	v.size = 32 << 20;
	v.chunk_size = 16 << 20;
	v.policy = name("dev");
	v.replicas = 2;
	v.min_acks = 1;
	PUT(b, VOLUME, volume, &v);
	m.volume = 7;
	m.map_version = 1;
	m.nodes = nodes;
	m.n_nodes = 2;
	m.map = data(map, sizeof map);
	PUT(b, MAP, map, &m);
}

void put_permit(struct book *b, const struct permit_case *c)
{
	struct policy_document *policy = NULL;
	const char *preset = c->policy != NULL ? c->policy : policy_preset("dev");
	Pave__V1__Permit m = PAVE__V1__PERMIT__INIT;
	Pave__V1__PermitNode par = PAVE__V1__PERMIT_NODE__INIT, lyo = PAVE__V1__PERMIT_NODE__INIT;
	Pave__V1__PermitNode *nodes[] = {&par, &lyo};
	Pave__V1__LedgerPermit l = PAVE__V1__LEDGER_PERMIT__INIT;
	struct error err = {0};

	ck_assert_int_eq(policy_parse(preset, strlen(preset), &policy, &err), 0);
	par.node = name("par-1");
	par.site = name("par");
	par.site_version = c->par_version != 0 ? c->par_version : 3;
	lyo.node = name("lyo-1");
	lyo.site = name("lyo");
	lyo.site_version = 1;
	m.cluster = data(b->rig.demo.cluster.bytes, 16);
	m.volume = 7;
	m.generation = c->generation;
	m.serial = c->serial;
	m.policy_digest = data(policy_digest(policy), 32);
	m.holder = name("host");
	if (c->holder_site != NULL)
		m.holder_site = name(c->holder_site);
	m.map_version = 1;
	m.nodes = nodes;
	m.n_nodes = 2;
	m.issued_at = b->now;
	m.expires_at = b->now + 10 * (int64_t)NS_PER_S;
	m.serve_after = c->serve_after;
	if (c->signer == NULL) {
		ck_assert_int_eq(
		    permit_make(&m, demo_key(&b->rig.demo, DEMO_PLACEMENT), &l.permit, &err), 0);
	} else {
		uint8_t bytes[512];
		size_t size = pave__v1__permit__pack(&m, bytes);

		ck_assert_int_eq(signed_make(TYPE_PERMIT, bytes, size,
					     demo_key(&b->rig.demo, c->signer), &l.permit, &err),
				 0);
	}
	PUT(b, PERMIT, permit, &l);
	pave__v1__signed__free_unpacked(l.permit, NULL);
	policy_free(policy);
}

void put_permit_end(struct book *b, generation_t generation, const char *why, int64_t expires)
{
	Pave__V1__LedgerPermitEnd m = PAVE__V1__LEDGER_PERMIT_END__INIT;

	m.volume = 7;
	m.generation = generation;
	m.last_serial = 100;
	m.expires_at = expires;
	m.why = name(why);
	PUT(b, PERMIT_END, permit_end, &m);
}

void put_receipt(struct book *b, const struct receipt_case *c)
{
	Pave__V1__Receipt m = PAVE__V1__RECEIPT__INIT;
	Pave__V1__LedgerReceipt l = PAVE__V1__LEDGER_RECEIPT__INIT;
	struct ledger_tip at = b->tip;
	uint8_t bytes[1024];
	struct error err = {0};
	size_t size;

	m.cluster = data(b->rig.demo.cluster.bytes, 16);
	m.node = name("par-1");
	m.site = name("par");
	m.site_version = 3;
	m.volume = 7;
	m.generation = c->generation;
	m.first_serial = c->first_serial;
	m.last_serial = c->last_serial;
	m.count = 5;
	m.bytes = 5 * 4096;
	m.run = 1;
	m.serial = c->serial;
	m.from = b->now + c->from;
	m.until = b->now + c->until;
	if (c->head_seq != 0) {
		at.hash[0] = (uint8_t)(at.hash[0] + c->head_byte);
		m.head_seq = c->head_seq;
		m.head_hash = data(at.hash, sizeof at.hash);
	}
	size = pave__v1__receipt__pack(&m, bytes);
	ck_assert_int_eq(
	    signed_make(TYPE_RECEIPT, bytes, size,
			c->other_key ? demo_key(&b->rig.demo, DEMO_PLACEMENT) : b->node.key,
			&l.receipt, &err),
	    0);
	PUT(b, RECEIPT, receipt, &l);
	pave__v1__signed__free_unpacked(l.receipt, NULL);
}

void sign_head(struct book *b)
{
	struct error err = {0};

	if (b->head != NULL)
		pave__v1__signed__free_unpacked(b->head, NULL);
	ck_assert_int_eq(ledger_head_make(&b->tip, &b->rig.demo.cluster,
					  demo_key(&b->rig.demo, DEMO_PLACEMENT), &b->head, &err),
			 0);
}

/* Evidence, two nodes, a volume: nothing given yet. */
void book_init(struct book *b)
{
	const char *preset = policy_preset("dev");
	struct error err = {0};

	*b = (struct book){.now = RIG_NOW};
	rig_init(&b->rig);
	ck_assert_int_eq(demo_identity(&b->rig.demo, "par", "par-1", RIG_NOW - RIG_DAY,
				       RIG_NOW + RIG_DAY, &b->node, &err),
			 0);
	put_start(b);
	put_document(b, "preset", "dev", name(preset));
	put_site(b, "par", 3);
	put_site(b, "lyo", 1);
	put_evidence(b, 1, 0);
	put_node(b, "par-1", "par", &b->node);
	put_node(b, "lyo-1", "lyo", NULL);
	put_volume(b);
}

void book_deinit(struct book *b)
{
	for (unsigned i = 0; i < b->count; i++)
		free(b->bytes[i]);
	if (b->head != NULL)
		pave__v1__signed__free_unpacked(b->head, NULL);
	identity_deinit(&b->node);
	rig_deinit(&b->rig);
}

/* -- files ------------------------------------------------------------------------------------ */

static void add_item(char **file, size_t *size, enum ledger_item_kind kind, const void *bytes,
		     size_t item_size)
{
	uint8_t head[LEDGER_ITEM_HEAD];

	ledger_item_head(kind, item_size, head);
	*file = realloc(*file, *size + sizeof head + item_size);
	memcpy(*file + *size, head, sizeof head);
	memcpy(*file + *size + sizeof head, bytes, item_size);
	*size += sizeof head + item_size;
}

/* The file of the records in this order, and the head. */
char *file_of(const struct book *b, const unsigned *order, unsigned count, size_t *ret_size)
{
	char *file = malloc(LEDGER_MAGIC_LEN);
	size_t size = LEDGER_MAGIC_LEN;
	uint8_t head[1024];

	memcpy(file, LEDGER_MAGIC, LEDGER_MAGIC_LEN);
	for (unsigned i = 0; i < count; i++)
		add_item(&file, &size, LEDGER_ITEM_RECORD, b->bytes[order[i]], b->size[order[i]]);
	if (b->head != NULL)
		add_item(&file, &size, LEDGER_ITEM_SIGNED_HEAD, head,
			 pave__v1__signed__pack(b->head, head));
	*ret_size = size;
	return file;
}

int replay(const struct book *b, const char *file, size_t size, struct history **ret,
	   struct error *err)
{
	const struct history_options options = {.until = INT64_MAX};

	return history_replay(file, size, b->rig.root_envelope, strlen(b->rig.root_envelope),
			      &options, ret, err);
}

void in_order(unsigned *order, unsigned count)
{
	for (unsigned i = 0; i < count; i++)
		order[i] = i;
}

struct history *replay_whole(const struct book *b)
{
	unsigned order[RECORDS_MAX];
	struct history *h = NULL;
	struct error err = {0};
	size_t size;
	char *file;

	in_order(order, b->count);
	file = file_of(b, order, b->count, &size);
	ck_assert_msg(replay(b, file, size, &h, &err) == 0, "%s", err.text);
	free(file);
	return h;
}

void refused(const struct book *b, const unsigned *order, unsigned count, const char *word)
{
	struct history *h = NULL;
	struct error err = {0};
	size_t size;
	char *file = file_of(b, order, count, &size);

	ck_assert_int_ne(replay(b, file, size, &h, &err), 0);
	ck_assert_msg(strstr(err.text, word) != NULL, "\"%s\" is not in: %s", word, err.text);
	free(file);
}

void put_ordinary_life(struct book *b)
{
	put_permit(b, &(struct permit_case){.generation = 1, .serial = 1});
	put_receipt(b, &(struct receipt_case){.generation = 1,
					      .first_serial = 1,
					      .last_serial = 3,
					      .serial = 1,
					      .head_seq = b->tip.seq});
	put_permit_end(b, 1, "released", b->now);
	put_permit(b, &(struct permit_case){.generation = 2, .serial = 1});
}
