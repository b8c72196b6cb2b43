/* engine/ledger: a ledger as a driver would write it (test_ledger_rig.h), and everything that can
 * be done to it. */
#include <check.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "test_ledger_rig.h"

START_TEST(an_ordinary_ledger_has_nothing_to_tell)
{
	struct book b;
	struct history *h;
	struct history_volume *v;

	book_init(&b);
	put_ordinary_life(&b);
	sign_head(&b);
	h = replay_whole(&b);
	ck_assert_uint_eq(h->finding_count, 0);
	ck_assert_uint_eq(h->note_count, 1); /* lyo-1 has no identity */
	ck_assert_uint_eq(h->receipt_count, 1);
	v = history_find_volume(h, "vm");
	ck_assert_ptr_nonnull(v);
	ck_assert_uint_eq(v->permit_count, 2);
	ck_assert(!v->permits[0].open && v->permits[1].open);
	history_free(h);
	book_deinit(&b);
}
END_TEST

/* Each record changed, removed, exchanged with the next, repeated: found, and named. */
START_TEST(a_record_that_was_touched_is_named)
{
	struct book b;
	unsigned order[RECORDS_MAX];
	char word[64];

	book_init(&b);
	put_ordinary_life(&b);
	sign_head(&b);
	for (unsigned i = 0; i < b.count; i++) {
		for (size_t at = 0; at < b.size[i]; at += 1 + b.size[i] / 40) {
			b.bytes[i][at] ^= 1;
			in_order(order, b.count);
			refused(&b, order, b.count, "record");
			b.bytes[i][at] ^= 1;
		}
		if (i + 1 == b.count)
			continue;
		for (unsigned j = 0; j < b.count; j++)
			order[j] = j + (j >= i);
		snprintf(word, sizeof word, "record %u is missing", i + 1);
		refused(&b, order, b.count - 1, word);
		in_order(order, b.count);
		order[i] = i + 1;
		order[i + 1] = i;
		snprintf(word, sizeof word, "record %u is missing", i + 1);
		refused(&b, order, b.count, word);
		for (unsigned j = 0; j <= b.count; j++)
			order[j] = j - (j > i);
		snprintf(word, sizeof word, "record %u stands in the place of record %u", i + 1,
			 i + 2);
		refused(&b, order, b.count + 1, word);
	}
	book_deinit(&b);
}
END_TEST

START_TEST(an_end_that_was_cut_off_is_found)
{
	struct book b;
	struct history *h = NULL;
	struct error err = {0};
	unsigned order[RECORDS_MAX];
	size_t size;
	char *file;

	book_init(&b);
	put_ordinary_life(&b);
	sign_head(&b);
	in_order(order, b.count);
	for (unsigned n = 1; n < b.count; n++)
		refused(&b, order, n, "cut off");
	file = file_of(&b, order, b.count, &size);
	for (size_t cut = 1; cut < size; cut += 97) {
		ck_assert_int_ne(replay(&b, file, size - cut, &h, &err), 0);
		ck_assert_ptr_null(h);
		/* Of a file of which the first record is there, the last one that is. */
		if (size - cut > LEDGER_MAGIC_LEN + LEDGER_ITEM_HEAD + b.size[0])
			ck_assert_msg(strstr(err.text, "record") != NULL, "%s", err.text);
	}
	ck_assert_int_ne(
	    replay(&b, file, LEDGER_MAGIC_LEN + 2 * LEDGER_ITEM_HEAD + b.size[0] + 1, &h, &err), 0);
	ck_assert_ptr_nonnull(strstr(err.text, "after record 1: the file is cut short"));
	free(file);
	/* Without a head nobody vouches for the end. */
	pave__v1__signed__free_unpacked(b.head, NULL);
	b.head = NULL;
	refused(&b, order, b.count, "no signed head");
	book_deinit(&b);
}
END_TEST

/* Who can write the file but not sign makes a chain that is whole, and not the signed one. */
START_TEST(a_ledger_written_anew_is_not_the_signed_one)
{
	struct book b, forged;
	unsigned order[RECORDS_MAX];

	book_init(&b);
	put_ordinary_life(&b);
	sign_head(&b);
	book_init(&forged);
	forged.now += 5; /* other times, so other hashes */
	put_ordinary_life(&forged);
	forged.head = b.head;
	b.head = NULL;
	ck_assert_uint_eq(forged.count, b.count);
	in_order(order, forged.count);
	refused(&forged, order, forged.count, "written anew");
	book_deinit(&forged);
	book_deinit(&b);
}
END_TEST

/* What is added to an ordinary ledger, and what is said of it. */
static void contradicts(void (*add)(struct book *b), const char *word, bool note)
{
	struct book b;
	struct history *h;
	bool found = false;

	book_init(&b);
	put_ordinary_life(&b);
	add(&b);
	sign_head(&b);
	h = replay_whole(&b);
	for (uint32_t i = 0; i < h->kept_count; i++)
		found = found ||
			(h->findings[i].note == note && strstr(h->findings[i].text, word) != NULL);
	ck_assert_msg(found, "nothing says \"%s\"", word);
	ck_assert_uint_eq(h->finding_count, note ? 0 : 1);
	history_free(h);
	book_deinit(&b);
}

static void permit_after_withdrawal(struct book *b)
{
	put_permit_end(b, 2, "changed", b->now + 10 * (int64_t)NS_PER_S);
	put_evidence(b, 2, b->now - RIG_HOUR);
	put_permit(b, &(struct permit_case){.generation = 2, .serial = 2});
}

static void permit_of_old_certificate(struct book *b)
{
	put_permit_end(b, 2, "changed", b->now + 10 * (int64_t)NS_PER_S);
	put_permit(b, &(struct permit_case){.generation = 2, .serial = 2, .par_version = 2});
}

static void permit_by_another_key(struct book *b)
{
	put_permit_end(b, 2, "changed", b->now + 10 * (int64_t)NS_PER_S);
	put_permit(b, &(struct permit_case){.generation = 2, .serial = 2, .signer = DEMO_TENANT});
}

static void two_writers(struct book *b)
{
	put_permit_end(b, 2, "taken-over", b->now + 10 * (int64_t)NS_PER_S);
	put_permit(b, &(struct permit_case){.generation = 3, .serial = 1});
}

static void put_lease(struct book *b)
{
	static const uint8_t nonce[16] = {1};
	Pave__V1__Lease m = PAVE__V1__LEASE__INIT;
	Pave__V1__LedgerLease l = PAVE__V1__LEDGER_LEASE__INIT;
	struct error err = {0};

	m.cluster = data(b->rig.demo.cluster.bytes, 16);
	m.node = name("par-1");
	m.site = name("par");
	m.site_version = 3;
	m.revocations_version = 1;
	m.serial = 1;
	m.nonce = data(nonce, sizeof nonce);
	m.issued_at = b->now;
	m.expires_at = b->now + 10 * (int64_t)NS_PER_S;
	ck_assert_msg(lease_make(&m, demo_key(&b->rig.demo, DEMO_PLACEMENT), &l.lease, &err) == 0,
		      "%s", err.text);
	PUT(b, LEASE, lease, &l);
	pave__v1__signed__free_unpacked(l.lease, NULL);
}

/* Of a snapshot that ends in five seconds. */
static void lease_for_too_long(struct book *b)
{
	put_lease(b);
	b->now = RIG_NOW + RIG_DAY - 5 * (int64_t)NS_PER_S;
	put_lease(b);
}

static char *make_policy(void)
{
	json_t *json = rig_policy_json("dev");
	char *policy;

	rig_set(json, "hosts", "\"eligible\"");
	rig_set(json, "version", "2");
	policy = json_dumps(json, 0);
	json_decref(json);
	return policy;
}

/* The tenant's: the host must be in an eligible site. The text, for permits under it. */
static char *put_policy(struct book *b)
{
	struct signing_key *tenant = demo_key(&b->rig.demo, DEMO_TENANT);
	char *policy = make_policy(), *envelope;
	struct error err = {0};

	ck_assert_int_eq(
	    dsse_sign(TYPE_POLICY, policy, strlen(policy), &tenant, 1, &envelope, &err), 0);
	put_document(b, "policy", "dev", envelope);
	free(envelope);
	return policy;
}

/* Its certificate ends after so many seconds. */
static void put_permit_at_the_host(struct book *b, unsigned seconds)
{
	const struct demo_entry entries[] = {{"par", 3, 0}, {"lyo", 1, 0}, {"rbx", 1, 0}};
	char *policy = put_policy(b);
	char *site, *snapshot;
	struct error err = {0};

	ck_assert_int_eq(demo_site(&b->rig.demo, "rbx", 1, RIG_NOW - RIG_DAY,
				   b->now + seconds * (int64_t)NS_PER_S, &site, &err),
			 0);
	ck_assert_int_eq(demo_revocations(&b->rig.demo, 2, b->now - RIG_HOUR, b->now + RIG_DAY,
					  entries, 3, &snapshot, &err),
			 0);
	put_document(b, "site", "rbx", site);
	put_document(b, "revocations", "", snapshot);
	put_permit_end(b, 2, "changed", b->now + 10 * (int64_t)NS_PER_S);
	put_permit(b, &(struct permit_case){
			  .generation = 2, .serial = 2, .policy = policy, .holder_site = "rbx"});
	free(policy);
	free(site);
	free(snapshot);
}

static void permit_for_too_long_at_the_host(struct book *b)
{
	put_permit_at_the_host(b, 6);
}

/* -- what goes on after the evidence has ended, by permits that are not written --------------- */

static void after_s(struct book *b, unsigned seconds)
{
	b->now += seconds * (int64_t)NS_PER_S;
}

static void put_end_after_s(struct book *b, unsigned seconds, const char *why)
{
	after_s(b, seconds);
	put_permit_end(b, 2, why, b->now + 10 * (int64_t)NS_PER_S);
}

static void permits_after_withdrawal(struct book *b)
{
	put_evidence(b, 2, b->now - RIG_HOUR);
	put_end_after_s(b, 120, "changed");
}

static void permits_after_withdrawal_until_refused(struct book *b)
{
	put_evidence(b, 2, b->now - RIG_HOUR);
	put_end_after_s(b, 300, "denied");
}

static void permits_after_withdrawal_and_a_snapshot(struct book *b)
{
	put_evidence(b, 2, b->now - RIG_HOUR);
	after_s(b, 600);
	put_evidence(b, 3, b->now - RIG_HOUR);
	put_end_after_s(b, 60, "released");
}

static void permits_after_the_snapshot_ended(struct book *b)
{
	put_end_after_s(b, 86400 + 120, "changed");
}

static void permits_under_the_policy_before(struct book *b)
{
	free(put_policy(b));
	put_end_after_s(b, 120, "changed");
}

static void permits_after_the_end_of_the_host(struct book *b)
{
	put_permit_at_the_host(b, 60);
	put_end_after_s(b, 120, "changed");
}

static void leases_after_withdrawal(struct book *b)
{
	Pave__V1__LedgerLeaseEnd m = PAVE__V1__LEDGER_LEASE_END__INIT;

	put_lease(b);
	put_evidence(b, 2, b->now - RIG_HOUR);
	after_s(b, 120);
	m.node = name("par-1");
	m.expires_at = b->now;
	m.why = name("refused");
	PUT(b, LEASE_END, lease_end, &m);
}

static void writes_after_withdrawal(struct book *b)
{
	put_evidence(b, 2, b->now - RIG_HOUR);
	after_s(b, 120);
	put_receipt(b, &(struct receipt_case){
			   .generation = 2, .first_serial = 1, .last_serial = 40, .serial = 2});
}

/* Withdrawn, and restored five minutes later: what was given in between is told after that. */
static void permits_in_between(struct book *b)
{
	put_evidence(b, 2, b->now);
	after_s(b, 300);
	put_evidence(b, 3, 0);
	put_permit_end(b, 2, "changed", b->now - 100 * (int64_t)NS_PER_S);
}

static void writes_in_between(struct book *b)
{
	put_evidence(b, 2, b->now);
	after_s(b, 300);
	put_evidence(b, 3, 0);
	after_s(b, 100);
	put_evidence(b, 4, 0);
	put_receipt(b, &(struct receipt_case){.generation = 2,
					      .first_serial = 1,
					      .last_serial = 40,
					      .serial = 2,
					      .from = -250 * (int64_t)NS_PER_S,
					      .until = -200 * (int64_t)NS_PER_S});
}

/* A policy that nobody's key stands behind any more is none. */
static void permit_under_a_void_policy(struct book *b)
{
	struct demo old = b->rig.demo, next = b->rig.demo;
	char *policy, *root;

	put_permit_end(b, 2, "changed", b->now + 10 * (int64_t)NS_PER_S);
	policy = put_policy(b);
	ck_assert_int_eq(signing_key_generate("tenant-b", &next.keys[3], NULL), 0);
	ck_assert_int_eq(
	    demo_root_after(&old, &next, 2, RIG_NOW - RIG_DAY, RIG_NOW + RIG_DAY, &root, NULL), 0);
	put_document(b, "root", "", root);
	put_permit(b, &(struct permit_case){
			  .generation = 2, .serial = 2, .policy = policy, .holder_site = "par"});
	signing_key_free(next.keys[3]);
	free(policy);
	free(root);
}

static void permit_out_of_the_blue(struct book *b)
{
	put_permit(b, &(struct permit_case){.generation = 2, .serial = 2});
}

static void receipt_without_permit(struct book *b)
{
	put_receipt(b, &(struct receipt_case){.generation = 9, .first_serial = 1, .serial = 2});
}

static void receipt_before_permit(struct book *b)
{
	put_receipt(b, &(struct receipt_case){
			   .generation = 2, .first_serial = 1, .serial = 2, .from = -RIG_HOUR});
}

static void receipt_after_the_end(struct book *b)
{
	put_permit_end(b, 2, "released", b->now);
	put_receipt(b, &(struct receipt_case){
			   .generation = 2, .first_serial = 1, .serial = 2, .until = RIG_HOUR});
}

static void receipt_by_another_key(struct book *b)
{
	put_receipt(b, &(struct receipt_case){
			   .generation = 2, .first_serial = 1, .serial = 2, .other_key = true});
}

static void receipt_of_another_ledger(struct book *b)
{
	put_receipt(b, &(struct receipt_case){.generation = 2,
					      .first_serial = 1,
					      .serial = 2,
					      .head_seq = b->tip.seq,
					      .head_byte = 1});
}

static void receipt_again(struct book *b)
{
	put_receipt(b, &(struct receipt_case){.generation = 2, .first_serial = 1, .serial = 1});
}

static void receipt_of_nothing(struct book *b)
{
	Pave__V1__LedgerReceipt l = PAVE__V1__LEDGER_RECEIPT__INIT;

	PUT(b, RECEIPT, receipt, &l);
}

/* The map has rows of two. */
static void volume_with_more_copies(struct book *b)
{
	Pave__V1__LedgerVolume v = PAVE__V1__LEDGER_VOLUME__INIT;
	Pave__V1__LedgerMap m = PAVE__V1__LEDGER_MAP__INIT;
	char *nodes[] = {name("par-1"), name("lyo-1")};

	v.volume = 7;
	v.name = name("vm");
	v.policy = name("dev");
	v.replicas = UINT32_MAX;
	PUT(b, VOLUME, volume, &v);
	/* What lay beyond the end of this one is looked up in the one before. */
	m.volume = 7;
	m.map_version = 2;
	m.nodes = nodes;
	m.n_nodes = 2;
	PUT(b, MAP, map, &m);
}

static void receipts_missing(struct book *b)
{
	put_receipt(b, &(struct receipt_case){.generation = 2, .first_serial = 1, .serial = 4});
}

static void taint(struct book *b)
{
	Pave__V1__LedgerTaint m = PAVE__V1__LEDGER_TAINT__INIT;

	m.site = name("par");
	m.effective_from = RIG_NOW - RIG_HOUR;
	m.noticed_at = b->now;
	PUT(b, TAINT, taint, &m);
}

static void taint_untold(struct book *b)
{
	put_evidence(b, 2, RIG_NOW - RIG_HOUR);
}

/* The authority's key is replaced; what it signed is reissued, or not. */
static void put_root(struct book *b, bool reissue)
{
	struct demo old = b->rig.demo, next = b->rig.demo;
	char *root;

	put_permit_end(b, 2, "changed", b->now + 10 * (int64_t)NS_PER_S);
	ck_assert_int_eq(signing_key_generate("authority-2", &next.keys[0], NULL), 0);
	ck_assert_int_eq(
	    demo_root_after(&old, &next, 2, RIG_NOW - RIG_DAY, RIG_NOW + RIG_DAY, &root, NULL), 0);
	put_document(b, "root", "", root);
	b->rig.demo = next;
	if (reissue) {
		put_site(b, "par", 3);
		put_site(b, "lyo", 1);
	}
	put_evidence(b, 2, 0);
	put_permit(b, &(struct permit_case){.generation = 2, .serial = 2});
	b->rig.demo = old;
	signing_key_free(next.keys[0]);
	free(root);
}

struct erasure_case {
	const char *node; /* NULL: par-1 */
	chunk_no_t signed_chunk, chunk;
	int64_t started_at;		       /* of the record, after what was signed */
	bool other_key, is_unsigned, one_more; /* one_more: chunk than was signed, is recorded */
	const char *method, *signed_method;    /* NULL: discard; the other: as recorded */
	uint64_t more_segments, more_ms;       /* than was signed, are recorded */
};

static void put_erasure(struct book *b, const struct erasure_case *c)
{
	Pave__V1__ErasureReport r = PAVE__V1__ERASURE_REPORT__INIT;
	Pave__V1__LedgerErasure m = PAVE__V1__LEDGER_ERASURE__INIT;
	chunk_no_t signed_chunk = c->signed_chunk, chunks[] = {c->chunk, c->chunk + 1};
	uint8_t bytes[512];
	struct error err;

	r.cluster = data(b->rig.demo.cluster.bytes, 16);
	r.node = name("par-1");
	r.site = name("par");
	r.layer = 7;
	r.chunks = &signed_chunk;
	r.n_chunks = 1;
	r.started_at = b->now;
	/* The driver's clock was set back by an hour before it made the record. */
	r.done_at = b->now + 3600 * (int64_t)NS_PER_S;
	m.method = name(c->method != NULL ? c->method : "discard");
	r.method = c->signed_method != NULL ? name(c->signed_method) : m.method;
	r.segments = 3;
	r.bytes = m.bytes = 96 * MIB;
	r.took_ms = 1234;
	m.segments = r.segments + c->more_segments;
	m.took_ms = r.took_ms + c->more_ms;
	m.volume = 7;
	m.node = name(c->node != NULL ? c->node : "par-1");
	m.site = name("par");
	m.chunks = chunks;
	m.n_chunks = c->one_more ? 2 : 1;
	m.started_at = c->is_unsigned ? 0 : b->now + c->started_at;
	m.done_at = b->now;
	if (!c->is_unsigned)
		ck_assert_int_eq(
		    signed_make(TYPE_ERASURE, bytes, pave__v1__erasure_report__pack(&r, bytes),
				c->other_key ? demo_key(&b->rig.demo, DEMO_PLACEMENT) : b->node.key,
				&m.report, &err),
		    0);
	PUT(b, ERASURE, erasure, &m);
	if (m.report != NULL)
		pave__v1__signed__free_unpacked(m.report, NULL);
}

static void erasure_by_another_key(struct book *b)
{
	put_erasure(b, &(struct erasure_case){.other_key = true});
}

static void erasure_of_another_chunk(struct book *b)
{
	put_erasure(b, &(struct erasure_case){.signed_chunk = 1, .chunk = 0});
}

static void erasure_of_more_chunks(struct book *b)
{
	put_erasure(b, &(struct erasure_case){.one_more = true});
}

static void erasure_of_another_node(struct book *b)
{
	put_erasure(b, &(struct erasure_case){.node = "lyo-1"});
}

static void erasure_at_another_time(struct book *b)
{
	put_erasure(b, &(struct erasure_case){.started_at = 1});
}

static void erasure_without_signature(struct book *b)
{
	put_erasure(b, &(struct erasure_case){.is_unsigned = true});
}

static void erasure_by_another_method(struct book *b)
{
	put_erasure(b, &(struct erasure_case){.method = "overwrite", .signed_method = "discard"});
}

static void erasure_of_more_segments(struct book *b)
{
	put_erasure(b, &(struct erasure_case){.more_segments = 1});
}

static void erasure_in_another_time(struct book *b)
{
	put_erasure(b, &(struct erasure_case){.more_ms = 1});
}

static void erasure_that_only_dropped(struct book *b)
{
	put_erasure(b, &(struct erasure_case){.method = "drop"});
}

static void unsigned_site(struct book *b)
{
	char *text;

	ck_assert_int_eq(
	    demo_site(&b->rig.demo, "rbx", 1, RIG_NOW - RIG_DAY, RIG_NOW + RIG_DAY, &text, NULL),
	    0);
	memcpy(strstr(text, "\"sig\": \"") + 8, "AAAAAAAA", 8);
	put_document(b, "site", "rbx", text);
	free(text);
}

static void false_identity(struct book *b)
{
	put_node(b, "par-2", "par", &b->node);
}

/* Certificates that were signed again under the new root count; those of before don't. */
START_TEST(a_root_may_follow_another)
{
	struct book b;
	struct history *h;

	for (int reissue = 0; reissue < 2; reissue++) {
		book_init(&b);
		put_ordinary_life(&b);
		put_root(&b, reissue == 1);
		sign_head(&b);
		h = replay_whole(&b);
		/* Of par and of lyo. */
		ck_assert_uint_eq(h->finding_count, reissue == 1 ? 0 : 2);
		history_free(h);
		book_deinit(&b);
	}
}
END_TEST

static const struct {
	void (*add)(struct book *b);
	const char *word;
	bool note;
} mistakes[] = {
    {permit_after_withdrawal, "was not eligible", false},
    {permit_of_old_certificate, "was not eligible", false},
    {permit_by_another_key, "a permit:", false},
    {permit_for_too_long_at_the_host, "in which its host is", false},
    {permit_under_a_void_policy, "under another policy", false},
    {permits_after_withdrawal, "and the evidence of site par, which they rest on", false},
    {permits_after_withdrawal_until_refused, "and the evidence of site par", false},
    {permits_after_withdrawal_and_a_snapshot, "and the evidence of site par", false},
    {permits_after_the_snapshot_ended, "like number 1 of generation 2 went on until", false},
    {permits_under_the_policy_before, "like number 1 of generation 2 went on until", false},
    {permits_after_the_end_of_the_host, "and the evidence of site rbx", false},
    {leases_after_withdrawal, "leases of node par-1 went on until", false},
    {writes_after_withdrawal, "took in writes of volume vm until", false},
    {writes_in_between, "took in writes of volume vm until", false},
    {permits_in_between, "like number 1 of generation 2 went on until", false},
    {lease_for_too_long, "outlives the evidence of site par: revocations.not_after", false},
    {two_writers, "may serve while", false},
    {permit_out_of_the_blue, "whose end is not told", false},
    {receipt_without_permit, "none that names it", false},
    {receipt_before_permit, "none that names it", false},
    {receipt_after_the_end, "none that names it", false},
    {receipt_by_another_key, "does not verify", false},
    {receipt_of_another_ledger, "two ledgers", false},
    {receipt_again, "comes after number", false},
    {receipt_of_nothing, "a receipt: there is none", false},
    {volume_with_more_copies, "and its map is of 2", false},
    {receipts_missing, "receipts 2 to 3", true},
    {taint, "told late: 1 receipts are tainted", true},
    {taint_untold, "wrote no notice of it: 1 more receipts are tainted", true},
    {erasure_by_another_key, "does not verify", false},
    {erasure_of_another_chunk, "is not what the record says", false},
    {erasure_of_more_chunks, "is not what the record says", false},
    {erasure_of_another_node, "proved identity", false},
    {erasure_at_another_time, "is not what the record says", false},
    {erasure_without_signature, "has not signed that", true},
    {erasure_by_another_method, "is not what the record says", false},
    {erasure_of_more_segments, "is not what the record says", false},
    {erasure_in_another_time, "is not what the record says", false},
    {erasure_that_only_dropped, "by \"drop\", and policy dev", true},
    {unsigned_site, "document site rbx", false},
    {false_identity, "its identity is not proved", false},
};

START_TEST(what_contradicts_the_evidence_is_found)
{
	contradicts(mistakes[_i].add, mistakes[_i].word, mistakes[_i].note);
}
END_TEST

/* One that the node signed counts, and is counted. */
/* What was given before the evidence ended may last until a while after that, and be told later. */
START_TEST(what_ended_in_time_is_no_contradiction)
{
	struct book b;
	struct history *h;

	book_init(&b);
	put_ordinary_life(&b);
	if (_i < 4)
		put_evidence(&b, 2, b.now - RIG_HOUR);
	if (_i == 0)
		put_end_after_s(&b, 1, "changed");
	else if (_i == 1)
		put_end_after_s(&b, 60, "denied"); /* as drivers told it that count by the bound */
	else if (_i == 2)
		put_end_after_s(&b, 600, "restarted");
	if (_i == 3) {
		after_s(&b, 120);
		put_receipt(&b, &(struct receipt_case){.generation = 2,
						       .first_serial = 1,
						       .last_serial = 4,
						       .serial = 2,
						       .from = -115 * (int64_t)NS_PER_S,
						       .until = -111 * (int64_t)NS_PER_S});
	}
	if (_i == 4) {
		after_s(&b, 27 * 3600);
		put_evidence(&b, 2, 0);
		put_permit_end(&b, 2, "changed", RIG_NOW + 23 * RIG_HOUR - (int64_t)NS_PER_S);
	}
	if (_i == 5) { /* the driver's next version, which brings other presets */
		char *preset = make_policy();

		put_document(&b, "preset", "dev", preset);
		put_end_after_s(&b, 1, "restarted");
		put_permit(
		    &b, &(struct permit_case){
			    .generation = 2, .serial = 2, .policy = preset, .holder_site = "par"});
		free(preset);
	}
	if (_i == 6) { /* restored, and told of by a clock that is a little late */
		put_evidence(&b, 2, b.now);
		after_s(&b, 300);
		put_evidence(&b, 3, 0);
		put_receipt(&b, &(struct receipt_case){.generation = 2,
						       .first_serial = 1,
						       .last_serial = 4,
						       .serial = 2,
						       .from = -(int64_t)NS_PER_S / 5});
		put_end_after_s(&b, 20, "denied");
	}
	sign_head(&b);
	h = replay_whole(&b);
	for (uint32_t i = 0; i < h->kept_count; i++)
		ck_assert_msg(h->findings[i].note, "%s", h->findings[i].text);
	history_free(h);
	book_deinit(&b);
}
END_TEST

/* Told in time, and by every snapshot since: what came in before is not tainted. */
START_TEST(what_was_told_in_time_taints_nothing)
{
	struct history *h;
	struct book b;

	book_init(&b);
	put_ordinary_life(&b);
	/* It takes effect at once (0), or was announced (1). */
	put_evidence(&b, 2, b.now - b.now % (int64_t)NS_PER_S + _i * 60 * (int64_t)NS_PER_S);
	put_permit_end(&b, 2, "changed", b.now + (int64_t)NS_PER_S);
	put_receipt(&b, &(struct receipt_case){.generation = 2,
					       .first_serial = 1,
					       .last_serial = 1,
					       .serial = 2,
					       .until = (int64_t)NS_PER_S / 4});
	after_s(&b, 1200);
	put_evidence(&b, 3, RIG_NOW + _i * 60 * (int64_t)NS_PER_S);
	sign_head(&b);
	h = replay_whole(&b);
	ck_assert_uint_eq(h->finding_count, 0);
	for (uint32_t i = 0; i < h->receipt_count; i++)
		ck_assert(!h->receipts[i].tainted);
	history_free(h);
	book_deinit(&b);
}
END_TEST

START_TEST(a_signed_erasure)
{
	const struct history_volume *v;
	struct book b;
	struct history *h;

	book_init(&b);
	put_ordinary_life(&b);
	put_erasure(&b, &(struct erasure_case){.node = NULL});
	sign_head(&b);
	h = replay_whole(&b);
	ck_assert_uint_eq(h->finding_count, 0);
	ck_assert_uint_eq(h->erasures, 1);
	ck_assert_uint_eq(h->erasures_signed, 1);
	ck_assert_uint_eq(h->note_count, 1); /* a node without identity */
	ck_assert_uint_eq(h->erasures_by[1], 1);
	ck_assert_uint_eq(h->erasure_longest_ms, 1234);
	v = history_find_volume(h, "#7");
	ck_assert_ptr_nonnull(v);
	ck_assert_ptr_nonnull(v->erasures);
	ck_assert_str_eq(v->erasures->node, "par-1");
	ck_assert_str_eq(v->erasures->method, "discard");
	ck_assert_uint_eq(v->erasures->segments, 3);
	ck_assert_uint_eq(v->erasures->took_ms, 1234);
	ck_assert(v->erasures->is_signed && !v->erasures->whole);
	ck_assert_ptr_null(v->erasures->next);
	history_free(h);
	book_deinit(&b);
}
END_TEST

/* A record of the time before methods were told: it says nothing of what the node signed. */
START_TEST(an_erasure_of_an_older_driver)
{
	struct book b;
	struct history *h;

	book_init(&b);
	put_ordinary_life(&b);
	put_erasure(&b, &(struct erasure_case){.method = "", .signed_method = "drop"});
	sign_head(&b);
	h = replay_whole(&b);
	ck_assert_uint_eq(h->finding_count, 0);
	ck_assert_uint_eq(h->erasures_by[0], 1);
	history_free(h);
	book_deinit(&b);
}
END_TEST

/* A move leaves a copy behind until its erasure is told. */
START_TEST(a_copy_is_there_until_it_is_erased)
{
	Pave__V1__LedgerMove move = PAVE__V1__LEDGER_MOVE__INIT;
	Pave__V1__LedgerErasure erasure = PAVE__V1__LEDGER_ERASURE__INIT;
	uint32_t chunk = 1;
	struct book b;
	struct history *h;

	book_init(&b);
	move.volume = 7;
	move.map_version = 2;
	move.chunk = 1;
	move.from = name("lyo-1");
	move.to = name("rbx-1");
	move.why = name("drain");
	PUT(&b, MOVE, move, &move);
	sign_head(&b);
	h = replay_whole(&b);
	ck_assert_uint_eq(h->finding_count, 0);
	ck_assert_ptr_nonnull(history_find_volume(h, "vm")->leftovers);
	ck_assert_str_eq(history_find_volume(h, "vm")->leftovers->node, "lyo-1");
	history_free(h);
	erasure.volume = 7;
	erasure.node = name("lyo-1");
	erasure.chunks = &chunk;
	erasure.n_chunks = 1;
	PUT(&b, ERASURE, erasure, &erasure);
	sign_head(&b);
	h = replay_whole(&b);
	ck_assert_ptr_null(history_find_volume(h, "vm")->leftovers);
	history_free(h);
	book_deinit(&b);
}
END_TEST

/* So does a volume that becomes smaller: both copies of chunk 1, of which one is erased. */
START_TEST(a_copy_beyond_the_end_is_there_until_it_is_erased)
{
	Pave__V1__LedgerErasure erasure = PAVE__V1__LEDGER_ERASURE__INIT;
	Pave__V1__LedgerMap map = PAVE__V1__LEDGER_MAP__INIT;
	const struct history_leftover *l;
	struct history *h;
	struct book b;

	book_init(&b);
	map.volume = erasure.volume = 7;
	map.map_version = map.n_nodes = 2;
	map.nodes = (char *[]){name("lyo-1"), name("par-1")};
	map.map = data((uint8_t[]){0, 1}, 2);
	PUT(&b, MAP, map, &map);
	erasure.node = name("lyo-1");
	erasure.chunks = (uint32_t[]){1};
	erasure.n_chunks = 1;
	PUT(&b, ERASURE, erasure, &erasure);
	sign_head(&b);
	h = replay_whole(&b);
	ck_assert_uint_eq(h->finding_count, 0);
	l = history_find_volume(h, "vm")->leftovers;
	ck_assert(l != NULL && l->next == NULL && l->chunk == 1 && strcmp(l->node, "par-1") == 0);
	history_free(h);
	book_deinit(&b);
}
END_TEST

START_TEST(identities_are_read_and_written)
{
	char dir[] = "/tmp/pave-identity-XXXXXX";
	struct identity id = {0}, back = {0};
	struct error err = {0};
	struct rig rig;
	char prefix[64], command[96];

	rig_init(&rig);
	ck_assert_ptr_nonnull(mkdtemp(dir));
	snprintf(prefix, sizeof prefix, "%s/identity", dir);
	ck_assert_int_eq(
	    demo_identity(&rig.demo, "par", "par-1", RIG_NOW, RIG_NOW + RIG_DAY, &id, &err), 0);
	ck_assert_msg(identity_write(prefix, &id, &err) == 0, "%s", err.text);
	ck_assert_msg(identity_read(prefix, "par-1", &back, &err) == 0, "%s", err.text);
	ck_assert_uint_eq(back.certificate.size, id.certificate.size);
	ck_assert_int_eq(memcmp(back.certificate.data, id.certificate.data, id.certificate.size),
			 0);
	identity_deinit(&back);
	/* The key of somebody else under this certificate. */
	signing_key_free(id.key);
	ck_assert_int_eq(signing_key_generate("par-1", &id.key, &err), 0);
	snprintf(command, sizeof command, "%s.key", prefix);
	ck_assert_int_eq(remove(command), 0);
	ck_assert_int_eq(identity_write(prefix, &id, &err), 0);
	ck_assert_int_eq(identity_read(prefix, "par-1", &back, &err), -E_BAD_DOCUMENT);
	ck_assert_ptr_nonnull(strstr(err.text, "is not the key"));
	identity_deinit(&id);
	for (const char *const *end = (const char *const[]){"key", "crt", "ca", NULL}; *end != NULL;
	     end++) {
		snprintf(command, sizeof command, "%s.%s", prefix, *end);
		remove(command);
	}
	remove(dir);
	rig_deinit(&rig);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("ledger");
	TCase *tcase = tcase_create("ledger");
	SRunner *runner;
	int failed;

	tcase_set_timeout(tcase, 120);
	tcase_add_test(tcase, an_ordinary_ledger_has_nothing_to_tell);
	tcase_add_test(tcase, a_record_that_was_touched_is_named);
	tcase_add_test(tcase, an_end_that_was_cut_off_is_found);
	tcase_add_test(tcase, a_ledger_written_anew_is_not_the_signed_one);
	tcase_add_loop_test(tcase, what_contradicts_the_evidence_is_found, 0, ARRAY_SIZE(mistakes));
	tcase_add_loop_test(tcase, what_ended_in_time_is_no_contradiction, 0, 7);
	tcase_add_loop_test(tcase, what_was_told_in_time_taints_nothing, 0, 2);
	tcase_add_test(tcase, a_copy_is_there_until_it_is_erased);
	tcase_add_test(tcase, a_copy_beyond_the_end_is_there_until_it_is_erased);
	tcase_add_test(tcase, a_root_may_follow_another);
	tcase_add_test(tcase, a_signed_erasure);
	tcase_add_test(tcase, an_erasure_of_an_older_driver);
	tcase_add_test(tcase, identities_are_read_and_written);
	suite_add_tcase(suite, tcase);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed == 0 ? 0 : 1;
}
