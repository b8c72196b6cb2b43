/* Fuzzes what an auditor reads: records that follow each other as a chain should, with whatever in
 * them. The input is a list of records, each with its size before it (2 bytes, little-endian); they
 * get their numbers and hashes here, come behind the beginning of a true ledger, and are under a
 * signed head. What nodes and driver sign is signed here, too, so that it is judged. What must
 * hold: a replay ends with an error or with findings, and says the same when it is done again. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/assert.h"
#include "engine/evidence/demo.h"
#include "engine/ledger/history.h"
#include "tests/fuzz/fuzz.h"

#define NOW	    ((int64_t)1795428000 * (int64_t)NS_PER_S)
#define DAY	    ((int64_t)86400 * (int64_t)NS_PER_S)
#define RECORDS_MAX 64u

static struct demo demo;
static struct identity node;
static char *root;

/* A file that grows. */
struct file {
	uint8_t *bytes;
	size_t size;
	struct ledger_tip tip;
};

static struct file beginning;

static ProtobufCBinaryData data(const void *bytes, size_t size)
{
	return (ProtobufCBinaryData){size, (uint8_t *)(uintptr_t)bytes};
}

static char *name(const char *s)
{
	return (char *)(uintptr_t)s;
}

static void add_item(struct file *f, enum ledger_item_kind kind, const void *bytes, size_t size)
{
	f->bytes = realloc(f->bytes, f->size + LEDGER_ITEM_HEAD + size);
	INVARIANT(f->bytes != NULL);
	ledger_item_head(kind, size, f->bytes + f->size);
	memcpy(f->bytes + f->size + LEDGER_ITEM_HEAD, bytes, size);
	f->size += LEDGER_ITEM_HEAD + size;
}

static void add(struct file *f, Pave__V1__LedgerRecord *r, int64_t at)
{
	struct error err;
	uint8_t *bytes;
	size_t size;

	/* r lends the hash of the one before from the tip. */
	if (ledger_append(&f->tip, r, at, &bytes, &size, &err) == 0) {
		add_item(f, LEDGER_ITEM_RECORD, bytes, size);
		free(bytes);
	}
	r->prev = (ProtobufCBinaryData){0};
}

#define ADD(CASE, field, body)                                                                     \
	do {                                                                                       \
		Pave__V1__LedgerRecord r_ = PAVE__V1__LEDGER_RECORD__INIT;                         \
                                                                                                   \
		r_.body_case = PAVE__V1__LEDGER_RECORD__BODY_##CASE;                               \
		r_.field = (body);                                                                 \
		add(&beginning, &r_, NOW);                                                         \
	} while (0)

static void add_document(const char *kind, const char *envelope)
{
	Pave__V1__LedgerDocument d = PAVE__V1__LEDGER_DOCUMENT__INIT;

	d.kind = name(kind);
	d.name = name("");
	d.envelope = data(envelope, strlen(envelope));
	ADD(DOCUMENT, document, &d);
}

static void add_volume(void)
{
	Pave__V1__LedgerVolume v = PAVE__V1__LEDGER_VOLUME__INIT;
	Pave__V1__LedgerMap m = PAVE__V1__LEDGER_MAP__INIT;
	char *nodes[] = {name("par-1"), name("lyo-1")};
	static const uint8_t map[] = {0, 1, 1, 0};

	v.volume = m.volume = 7;
	v.name = name("vm");
	v.size = 32 << 20;
	v.chunk_size = 16 << 20;
	v.policy = name("dev");
	v.replicas = 2;
	v.min_acks = 1;
	ADD(VOLUME, volume, &v);
	m.map_version = 1;
	m.nodes = nodes;
	m.n_nodes = 2;
	m.map = data(map, sizeof map);
	ADD(MAP, map, &m);
}

static void add_node(const char *text, const char *site, const struct identity *id)
{
	Pave__V1__LedgerNode n = PAVE__V1__LEDGER_NODE__INIT;

	n.node = name(text);
	n.site = name(site);
	if (id != NULL) {
		n.certificate = data(id->certificate.data, id->certificate.size);
		n.ca = data(id->ca.data, id->ca.size);
	}
	ADD(NODE, node, &n);
}

static void set_up(void)
{
	static const uint8_t seed[32] = "fuzz";
	static const struct demo_entry entries[] = {{"par", 1, 0}, {"lyo", 1, 0}};
	Pave__V1__LedgerStart start = PAVE__V1__LEDGER_START__INIT;
	char *text;

	if (root != NULL)
		return;
	INVARIANT(demo_init(&demo, seed, NULL) == 0);
	INVARIANT(demo_root(&demo, 1, NOW - DAY, NOW + DAY, &root, NULL) == 0);
	INVARIANT(demo_identity(&demo, "par", "par-1", NOW - DAY, NOW + DAY, &node, NULL) == 0);
	beginning.size = LEDGER_MAGIC_LEN;
	beginning.bytes = malloc(LEDGER_MAGIC_LEN);
	INVARIANT(beginning.bytes != NULL);
	memcpy(beginning.bytes, LEDGER_MAGIC, LEDGER_MAGIC_LEN);
	start.root = data(root, strlen(root));
	ADD(START, start, &start);
	add_document("preset", policy_preset("dev"));
	for (size_t i = 0; i < ARRAY_SIZE(entries); i++) {
		INVARIANT(demo_site(&demo, entries[i].site, 1, NOW - DAY, NOW + DAY, &text, NULL) ==
			  0);
		add_document("site", text);
		free(text);
	}
	INVARIANT(demo_revocations(&demo, 1, NOW - 1, NOW + DAY, entries, 2, &text, NULL) == 0);
	add_document("revocations", text);
	free(text);
	add_node("par-1", "par", &node);
	add_node("lyo-1", "lyo", NULL);
	add_volume();
}

/* What it holds, signed. */
static void sign(Pave__V1__Signed **s, const char *type, struct signing_key *key)
{
	Pave__V1__Signed *signed_now = NULL;

	if (*s == NULL || (*s)->payload.len > DOCUMENT_SIZE_MAX)
		return;
	INVARIANT(
	    signed_make(type, (*s)->payload.data, (*s)->payload.len, key, &signed_now, NULL) == 0);
	pave__v1__signed__free_unpacked(*s, NULL);
	*s = signed_now;
}

static void sign_record(Pave__V1__LedgerRecord *r)
{
	if (r->body_case == PAVE__V1__LEDGER_RECORD__BODY_PERMIT)
		sign(&r->permit->permit, TYPE_PERMIT, demo_key(&demo, DEMO_PLACEMENT));
	else if (r->body_case == PAVE__V1__LEDGER_RECORD__BODY_LEASE)
		sign(&r->lease->lease, TYPE_LEASE, demo_key(&demo, DEMO_PLACEMENT));
	else if (r->body_case == PAVE__V1__LEDGER_RECORD__BODY_RECEIPT)
		sign(&r->receipt->receipt, TYPE_RECEIPT, node.key);
	else if (r->body_case == PAVE__V1__LEDGER_RECORD__BODY_ERASURE)
		sign(&r->erasure->report, TYPE_ERASURE, node.key);
}

static void add_records(struct file *f, const uint8_t *bytes, size_t size)
{
	for (uint32_t i = 0; i < RECORDS_MAX && size >= 2; i++) {
		const size_t want = bytes[0] | (size_t)bytes[1] << 8;
		const size_t have = MIN(want, size - 2);
		Pave__V1__LedgerRecord *r = pave__v1__ledger_record__unpack(NULL, have, bytes + 2);

		bytes += 2 + have;
		size -= 2 + have;
		if (r == NULL)
			continue;
		sign_record(r);
		free(r->prev.data);
		r->prev = (ProtobufCBinaryData){0};
		add(f, r, r->at);
		pave__v1__ledger_record__free_unpacked(r, NULL);
	}
}

static void add_head(struct file *f)
{
	Pave__V1__Signed *head;
	uint8_t packed[1024];

	INVARIANT(ledger_head_make(&f->tip, &demo.cluster, demo_key(&demo, DEMO_PLACEMENT), &head,
				   NULL) == 0);
	add_item(f, LEDGER_ITEM_SIGNED_HEAD, packed, pave__v1__signed__pack(head, packed));
	pave__v1__signed__free_unpacked(head, NULL);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
	const struct history_options options = {.until = INT64_MAX};
	struct file f;
	struct history *h = NULL, *again = NULL;
	struct error err;
	int rc;

	set_up();
	f = beginning;
	f.bytes = malloc(beginning.size);
	INVARIANT(f.bytes != NULL);
	memcpy(f.bytes, beginning.bytes, beginning.size);
	add_records(&f, bytes, size);
	add_head(&f);
	rc = history_replay(f.bytes, f.size, root, strlen(root), &options, &h, &err);
	INVARIANT(history_replay(f.bytes, f.size, root, strlen(root), &options, &again, &err) ==
		  rc);
	if (rc == 0)
		INVARIANT(h->finding_count == again->finding_count && h->tip.seq == again->tip.seq);
	history_free(h);
	history_free(again);
	free(f.bytes);
	return 0;
}
