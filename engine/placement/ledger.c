/* ledger: see ledger.h. In PD_KV_LEDGER: records under their number (8 bytes, big-endian), and
 * under "tip" the end of the chain (format 4, seq 8, at 8, hash 32; little-endian), so that
 * starting needs no look at the records.
 *
 * Failure: a record that cannot be packed for want of memory breaks the register, as any other
 * change that cannot be saved: the driver gives nothing that is not written down. */
#include "engine/placement/ledger.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/assert.h"
#include "engine/base/log.h"
#include "engine/evidence/permit.h"
#include "engine/evidence/schema.h"
#include "engine/placement/arena.h"
#include "engine/placement/register_codec.h"

#define TIP_KEY	    "tip"
#define TIP_FORMAT  1u
#define TIP_SIZE    (4u + 8u + 8u + LEDGER_HASH_SIZE)
#define DENIALS_MAX 131072u /* subjects remembered: twice the volumes; then the oldest go */
/* Of one subject so many are told in a time. */
#define DENIALS_SPAN_MAX 8u
#define DENIALS_SPAN_NS	 ((int64_t)(3600 * NS_PER_S))

struct ledger_span {
	char subject[NAME_SIZE_MAX];	   /* the volume's number in text, or the node's name */
	uint8_t content[LEDGER_HASH_SIZE]; /* of what does not change from one to the next */
	uint8_t frame[LEDGER_HASH_SIZE];   /* permits: of that without the nodes */
	char (*nodes)[NAME_SIZE_MAX];	   /* permits: sorted as in the permit */
	uint64_t *versions;
	uint32_t node_count;
	uint32_t generation;
	uint64_t batch;	    /* of the register; none may be given before it is durable */
	uint64_t serial;    /* of the newest */
	int64_t expires_at; /* of the longest */
	UT_hash_handle hh;
};

struct ledger_denial {
	char subject[2 * NAME_SIZE_MAX];
	int code;      /* that was told last */
	int64_t since; /* the span in which so many were told */
	uint32_t told;
	UT_hash_handle hh;
};

/* -- records ---------------------------------------------------------------------------------- */

void pd_ledger_key(uint64_t seq, uint8_t ret[PD_LEDGER_KEY_SIZE])
{
	for (unsigned i = 0; i < PD_LEDGER_KEY_SIZE; i++)
		ret[i] = (uint8_t)(seq >> (56 - 8 * i));
}

static void put_le(uint8_t *p, uint64_t value, unsigned size)
{
	for (unsigned i = 0; i < size; i++)
		p[i] = (uint8_t)(value >> (8 * i));
}

static uint64_t get_le(const uint8_t *p, unsigned size)
{
	uint64_t value = 0;

	for (unsigned i = 0; i < size; i++)
		value |= (uint64_t)p[i] << (8 * i);
	return value;
}

static void commit_begin(struct pd_ledger *l);

static void committed(struct reg_commit *c, int status)
{
	struct pd_ledger *l = container_of(c, struct pd_ledger, commit);

	l->busy = false;
	if (status == 0)
		l->durable = l->committing;
	if (l->again)
		commit_begin(l);
}

/* Notices when what was written so far is durable. It goes with whatever commit comes next. */
static void commit_begin(struct pd_ledger *l)
{
	l->again = l->busy;
	if (l->busy)
		return;
	l->busy = true;
	l->committing = l->tip;
	l->commit.done = committed;
	reg_flush(l->reg, &l->commit);
}

static void write_record(struct pd_ledger *l, Pave__V1__LedgerRecord *r)
{
	struct kv_batch *batch = reg_batch(l->reg);
	uint8_t key[PD_LEDGER_KEY_SIZE], tip[TIP_SIZE];
	struct error err = {0};
	uint8_t *bytes;
	size_t size;

	if (batch == NULL)
		return;
	if (ledger_append(&l->tip, r, reg_now(l->reg, NULL), &bytes, &size, &err) != 0) {
		log_error("pd", "%s", err.text);
		reg_break(l->reg, err.code);
		return;
	}
	pd_ledger_key(l->tip.seq, key);
	kv_batch_put(l->reg->kv, batch, PD_KV_LEDGER, key, sizeof key, bytes, size);
	free(bytes);
	put_le(tip, TIP_FORMAT, 4);
	put_le(tip + 4, l->tip.seq, 8);
	put_le(tip + 12, (uint64_t)l->tip.at, 8);
	memcpy(tip + 20, l->tip.hash, LEDGER_HASH_SIZE);
	kv_batch_put(l->reg->kv, batch, PD_KV_LEDGER, TIP_KEY, strlen(TIP_KEY), tip, sizeof tip);
	commit_begin(l);
}

#define RECORD(l, CASE, field, body)                                                               \
	do {                                                                                       \
		Pave__V1__LedgerRecord record_ = PAVE__V1__LEDGER_RECORD__INIT;                    \
                                                                                                   \
		record_.body_case = PAVE__V1__LEDGER_RECORD__BODY_##CASE;                          \
		record_.field = (body);                                                            \
		write_record((l), &record_);                                                       \
	} while (0)

static char *text(const char *s)
{
	return (char *)(uintptr_t)s;
}

static ProtobufCBinaryData data(const void *bytes, size_t size)
{
	return (ProtobufCBinaryData){size, (uint8_t *)(uintptr_t)bytes};
}

/* -- start and end ---------------------------------------------------------------------------- */

static int load_tip(const void *key, size_t key_size, const void *value, size_t value_size,
		    void *arg)
{
	struct pd_ledger *l = arg;
	const uint8_t *v = value;

	(void)key;
	if (key_size != strlen(TIP_KEY))
		return 0;
	if (value_size != TIP_SIZE || get_le(v, 4) != TIP_FORMAT)
		return -E_CORRUPT;
	l->tip.seq = get_le(v + 4, 8);
	l->tip.at = (int64_t)get_le(v + 12, 8);
	memcpy(l->tip.hash, v + 20, LEDGER_HASH_SIZE);
	return 0;
}

/* What an earlier run gave and did not end: it can be valid until the bound that it noted. */
static void end_earlier(struct pd_ledger *l)
{
	struct reg_volume *v;

	for (v = l->reg->volumes; v != NULL; v = v->hh.next) {
		Pave__V1__LedgerPermitEnd m = PAVE__V1__LEDGER_PERMIT_END__INIT;

		if (v->deleted || !v->attachment.live || v->attachment.bound == 0)
			continue;
		m.volume = v->id;
		m.generation = v->attachment.generation;
		m.last_serial = v->attachment.serial;
		m.expires_at = v->attachment.bound;
		m.why = text("restarted");
		RECORD(l, PERMIT_END, permit_end, &m);
	}
}

static int existing_document(const void *key, size_t key_size, const void *value, size_t value_size,
			     void *arg)
{
	struct pd_ledger *l = arg;
	char kind[2 * NAME_SIZE_MAX];
	char *name;

	if (key_size >= sizeof kind)
		return 0;
	memcpy(kind, key, key_size);
	kind[key_size] = '\0';
	name = strchr(kind, '/');
	if (name != NULL)
		*name++ = '\0';
	pd_ledger_document(l, kind, name != NULL ? name : "", 0, value, value_size);
	return 0;
}

/* A ledger that begins on a register that is there already begins with what that holds. */
static int write_existing(struct pd_ledger *l)
{
	int rc = kv_scan(l->reg->kv, PD_KV_DOCUMENTS, "", 0, existing_document, l);

	for (struct reg_node *n = l->reg->nodes; n != NULL; n = n->hh.next)
		pd_ledger_node(l, n);
	for (struct reg_volume *v = l->reg->volumes; v != NULL; v = v->hh.next) {
		if (v->deleted)
			continue;
		pd_ledger_volume(l, v, 0);
		pd_ledger_map(l, v);
	}
	return rc;
}

static void write_presets(struct pd_ledger *l)
{
	for (const char *const *name = policy_preset_names(); *name != NULL; name++) {
		const char *preset = policy_preset(*name);

		pd_ledger_document(l, "preset", *name, 0, preset, strlen(preset));
	}
}

int pd_ledger_start(struct pd_ledger *l, struct reg *reg, struct signing_key *key, const void *root,
		    size_t root_size, struct error *err)
{
	Pave__V1__LedgerStart m = PAVE__V1__LEDGER_START__INIT;
	bool first;
	int rc;

	*l = (struct pd_ledger){.reg = reg, .key = key};
	rc = kv_scan(reg->kv, PD_KV_LEDGER, TIP_KEY, strlen(TIP_KEY), load_tip, l);
	if (rc != 0)
		return error_set(err, rc,
				 "the end of the ledger cannot be read from the register: %s",
				 err_text(rc));
	l->durable = l->tip;
	m.cluster = data(reg->cluster.bytes, sizeof reg->cluster.bytes);
	m.software = text("pave-pd " PAVE_VERSION);
	m.root = data(root, root_size);
	first = l->tip.seq == 0;
	RECORD(l, START, start, &m);
	write_presets(l);
	if (first)
		rc = write_existing(l);
	end_earlier(l);
	return rc == 0 ? 0 : error_set(err, rc, "the register cannot be read: %s", err_text(rc));
}

static void span_free(struct ledger_span **table, struct ledger_span *s)
{
	HASH_DEL(*table, s);
	free(s->nodes);
	free(s->versions);
	free(s);
}

void pd_ledger_deinit(struct pd_ledger *l)
{
	struct ledger_span *s, *next;
	struct ledger_denial *d, *next_d;

	HASH_ITER (hh, l->permits, s, next)
		span_free(&l->permits, s);
	HASH_ITER (hh, l->leases, s, next)
		span_free(&l->leases, s);
	HASH_ITER (hh, l->denials, d, next_d) {
		HASH_DEL(l->denials, d);
		free(d);
	}
	if (l->head != NULL)
		pave__v1__signed__free_unpacked(l->head, NULL);
	l->head = NULL;
}

bool pd_ledger_idle(const struct pd_ledger *l)
{
	return !l->busy;
}

const Pave__V1__Signed *pd_ledger_head(struct pd_ledger *l)
{
	Pave__V1__Signed *head;
	struct error err;

	if (l->durable.seq == 0 || (l->head != NULL && l->head_seq == l->durable.seq))
		return l->head;
	if (ledger_head_make(&l->durable, &l->reg->cluster, l->key, &head, &err) != 0) {
		log_warn("pd", "the head of the ledger is not signed: %s", err.text);
		return NULL;
	}
	if (l->head != NULL)
		pave__v1__signed__free_unpacked(l->head, NULL);
	l->head = head;
	l->head_seq = l->durable.seq;
	return head;
}

/* -- evidence, nodes, volumes ----------------------------------------------------------------- */

void pd_ledger_document(struct pd_ledger *l, const char *kind, const char *name, uint64_t version,
			const void *envelope, size_t size)
{
	Pave__V1__LedgerDocument m = PAVE__V1__LEDGER_DOCUMENT__INIT;

	m.kind = text(kind);
	m.name = text(name);
	m.version = version;
	m.envelope = data(envelope, size);
	RECORD(l, DOCUMENT, document, &m);
}

void pd_ledger_node(struct pd_ledger *l, const struct reg_node *n)
{
	Pave__V1__LedgerNode m = PAVE__V1__LEDGER_NODE__INIT;

	m.node = text(n->name);
	m.site = text(n->site);
	m.device = data(n->device.bytes, sizeof n->device.bytes);
	m.certificate = data(n->certificate.data, n->certificate.size);
	m.ca = data(n->ca.data, n->ca.size);
	RECORD(l, NODE, node, &m);
}

void pd_ledger_volume(struct pd_ledger *l, const struct reg_volume *v, uint64_t policy_version)
{
	Pave__V1__LedgerVolume m = PAVE__V1__LEDGER_VOLUME__INIT;

	m.volume = v->id;
	m.name = text(v->name);
	m.size = v->size;
	m.chunk_size = v->chunk_size;
	m.policy = text(v->policy);
	m.policy_version = policy_version;
	m.replicas = v->replicas;
	m.min_acks = v->min_acks;
	RECORD(l, VOLUME, volume, &m);
}

void pd_ledger_map(struct pd_ledger *l, const struct reg_volume *v)
{
	Pave__V1__LedgerMap m = PAVE__V1__LEDGER_MAP__INIT;
	char *nodes[REG_MAP_NODES_MAX];

	for (uint32_t i = 0; i < v->node_count; i++)
		nodes[i] = v->nodes[i]->name;
	m.volume = v->id;
	m.map_version = v->map_version;
	m.n_nodes = v->node_count;
	m.nodes = nodes;
	m.map = data(v->map, (size_t)v->chunk_count * v->replicas);
	RECORD(l, MAP, map, &m);
}

void pd_ledger_move(struct pd_ledger *l, const struct reg_volume *v, chunk_no_t chunk,
		    const char *from, const char *to, const char *why)
{
	Pave__V1__LedgerMove m = PAVE__V1__LEDGER_MOVE__INIT;

	m.volume = v->id;
	m.map_version = v->map_version;
	m.chunk = chunk;
	m.from = text(from);
	m.to = text(to);
	m.why = text(why);
	RECORD(l, MOVE, move, &m);
}

void pd_ledger_volume_end(struct pd_ledger *l, const struct reg_volume *v)
{
	Pave__V1__LedgerVolumeEnd m = PAVE__V1__LEDGER_VOLUME_END__INIT;

	m.volume = v->id;
	RECORD(l, VOLUME_END, volume_end, &m);
}

void pd_ledger_erasure(struct pd_ledger *l, const Pave__V1__LedgerErasure *e)
{
	RECORD(l, ERASURE, erasure, (Pave__V1__LedgerErasure *)(uintptr_t)e);
}

void pd_ledger_taint(struct pd_ledger *l, const char *site, int64_t effective_from,
		     uint64_t revocations_version)
{
	Pave__V1__LedgerTaint m = PAVE__V1__LEDGER_TAINT__INIT;

	m.site = text(site);
	m.effective_from = effective_from;
	m.noticed_at = reg_now(l->reg, NULL);
	m.revocations_version = revocations_version;
	RECORD(l, TAINT, taint, &m);
}

void pd_ledger_receipt(struct pd_ledger *l, Pave__V1__Signed *receipt)
{
	Pave__V1__LedgerReceipt m = PAVE__V1__LEDGER_RECEIPT__INIT;

	m.receipt = receipt;
	RECORD(l, RECEIPT, receipt, &m);
}

/* What was told of the subject, made when there is nothing. NULL: no memory. */
static struct ledger_denial *denial_entry(struct pd_ledger *l, const char *key)
{
	struct ledger_denial *d;

	HASH_FIND_STR(l->denials, key, d);
	if (d != NULL)
		return d;
	d = l->denials; /* the oldest */
	if (HASH_COUNT(l->denials) >= DENIALS_MAX) {
		HASH_DEL(l->denials, d);
		free(d);
	}
	d = calloc(1, sizeof *d);
	if (d == NULL)
		return NULL;
	memcpy(d->subject, key, strlen(key) + 1);
	HASH_ADD_STR(l->denials, subject, d);
	if (d->hh.tbl != NULL)
		return d;
	free(d);
	return NULL;
}

/* Whoever is refused for one reason and another by turns fills no ledger with it. */
static bool denial_is_told(struct ledger_denial *d, int code, int64_t now)
{
	if (d->code == code)
		return false;
	if (d->told == 0 || now - d->since >= DENIALS_SPAN_NS) {
		d->since = now;
		d->told = 0;
	}
	if (d->told == DENIALS_SPAN_MAX)
		return false;
	d->told++;
	d->code = code;
	return true;
}

void pd_ledger_denial(struct pd_ledger *l, const char *what, const char *subject,
		      const struct error *why)
{
	Pave__V1__LedgerDenial m = PAVE__V1__LEDGER_DENIAL__INIT;
	char key[2 * NAME_SIZE_MAX];
	struct ledger_denial *d;

	snprintf(key, sizeof key, "%.20s/%.63s", what, subject);
	d = denial_entry(l, key);
	if (d != NULL && !denial_is_told(d, why->code, reg_now(l->reg, NULL)))
		return;
	m.what = text(what);
	m.subject = text(subject);
	m.code = (uint32_t)-why->code;
	m.text = text(why->text);
	RECORD(l, DENIAL, denial, &m);
}

static void granted(struct pd_ledger *l, const char *what, const char *subject)
{
	struct ledger_denial *d;
	char key[2 * NAME_SIZE_MAX];

	snprintf(key, sizeof key, "%.20s/%.63s", what, subject);
	HASH_FIND_STR(l->denials, key, d);
	if (d == NULL)
		return;
	HASH_DEL(l->denials, d);
	free(d);
}

/* -- permits and leases ----------------------------------------------------------------------- */

static void hash_message(const ProtobufCMessage *m, uint8_t ret[LEDGER_HASH_SIZE])
{
	size_t size = protobuf_c_message_get_packed_size(m);
	uint8_t *bytes = malloc(size + 1);

	/* Without memory it is like no other, and written down again: that is on the safe side. */
	memset(ret, 0, LEDGER_HASH_SIZE);
	if (bytes == NULL)
		return;
	protobuf_c_message_pack(m, bytes);
	if (document_digest(bytes, size, ret) != 0)
		memset(ret, 0, LEDGER_HASH_SIZE);
	free(bytes);
}

static void volume_subject(volume_id_t volume, char *buf, size_t size)
{
	snprintf(buf, size, "#%llu", (unsigned long long)volume);
}

static struct ledger_span *span_find(struct ledger_span *table, const char *subject)
{
	struct ledger_span *s;

	HASH_FIND_STR(table, subject, s);
	return s;
}

static struct ledger_span *span_make(struct ledger_span **table, const char *subject)
{
	struct ledger_span *s = calloc(1, sizeof *s);

	if (s == NULL)
		return NULL;
	memcpy(s->subject, subject, strlen(subject) + 1);
	HASH_ADD_STR(*table, subject, s);
	if (s->hh.tbl != NULL)
		return s;
	free(s);
	return NULL;
}

void pd_ledger_permit_end(struct pd_ledger *l, volume_id_t volume, int64_t expires_at,
			  const char *why)
{
	Pave__V1__LedgerPermitEnd m = PAVE__V1__LEDGER_PERMIT_END__INIT;
	char subject[NAME_SIZE_MAX];
	struct ledger_span *s;

	volume_subject(volume, subject, sizeof subject);
	s = span_find(l->permits, subject);
	if (s == NULL)
		return;
	m.volume = volume;
	m.generation = s->generation;
	m.last_serial = s->serial;
	/* Until when it might have had one is not until when it had one: a host that was away
	 * renews, and is refused; or its evidence ends before. */
	m.expires_at = MIN(expires_at, s->expires_at);
	m.why = text(why);
	RECORD(l, PERMIT_END, permit_end, &m);
	span_free(&l->permits, s);
}

/* Fewer nodes than the span's, and otherwise the same. */
static bool is_narrower(const struct ledger_span *s, const Pave__V1__Permit *p,
			const uint8_t frame[LEDGER_HASH_SIZE])
{
	uint32_t found = 0;

	if (memcmp(s->frame, frame, LEDGER_HASH_SIZE) != 0)
		return false;
	for (size_t i = 0; i < p->n_nodes; i++)
		for (uint32_t j = 0; j < s->node_count; j++)
			found += strcmp(s->nodes[j], p->nodes[i]->node) == 0 &&
				 s->versions[j] == p->nodes[i]->site_version;
	return found == p->n_nodes;
}

static bool span_take_nodes(struct ledger_span *s, const Pave__V1__Permit *p)
{
	s->nodes = calloc(p->n_nodes + 1, sizeof *s->nodes);
	s->versions = calloc(p->n_nodes + 1, sizeof *s->versions);
	if (s->nodes == NULL || s->versions == NULL)
		return false;
	for (size_t i = 0; i < p->n_nodes; i++) {
		snprintf(s->nodes[i], sizeof s->nodes[i], "%s", p->nodes[i]->node);
		s->versions[i] = p->nodes[i]->site_version;
	}
	s->node_count = (uint32_t)p->n_nodes;
	return true;
}

/* What does not change from one permit to the next, and that without the nodes. p comes back as it
 * was. */
static void permit_hashes(Pave__V1__Permit *p, uint8_t ret_content[LEDGER_HASH_SIZE],
			  uint8_t ret_frame[LEDGER_HASH_SIZE])
{
	Pave__V1__Permit m = *p;

	m.serial = 0;
	m.issued_at = m.expires_at = m.serve_after = 0;
	hash_message(&m.base, ret_content);
	m.n_nodes = 0;
	m.nodes = NULL;
	hash_message(&m.base, ret_frame);
}

/* batch: which has to be durable before this one, or one like it, is given. */
static void permit_opens(struct pd_ledger *l, const Pave__V1__Signed *s, const Pave__V1__Permit *p,
			 const char *subject, const uint8_t *content, const uint8_t *frame,
			 uint64_t batch)
{
	Pave__V1__LedgerPermit m = PAVE__V1__LEDGER_PERMIT__INIT;
	struct ledger_span *span = span_make(&l->permits, subject);

	m.permit = (Pave__V1__Signed *)(uintptr_t)s;
	RECORD(l, PERMIT, permit, &m);
	if (span == NULL || !span_take_nodes(span, p)) {
		reg_break(l->reg, -ENOMEM);
		return;
	}
	memcpy(span->content, content, LEDGER_HASH_SIZE);
	memcpy(span->frame, frame, LEDGER_HASH_SIZE);
	span->generation = p->generation;
	span->batch = batch;
	span->serial = p->serial;
	span->expires_at = p->expires_at;
}

/* A permit may name two hundred nodes: what it is unpacked into is taken and given back as one. */
static void *arena_alloc(void *arena, size_t size)
{
	return arena_get(arena, size);
}

static void arena_keep(void *arena, void *p)
{
	(void)arena;
	(void)p;
}

bool pd_ledger_permit(struct pd_ledger *l, const Pave__V1__Signed *s)
{
	struct arena arena = {0};
	ProtobufCAllocator allocator = {
	    .alloc = arena_alloc, .free = arena_keep, .allocator_data = &arena};
	Pave__V1__Permit *p = pave__v1__permit__unpack(&allocator, s->payload.len, s->payload.data);
	uint8_t content[LEDGER_HASH_SIZE], frame[LEDGER_HASH_SIZE];
	char subject[NAME_SIZE_MAX];
	struct ledger_span *span;
	uint64_t batch;

	if (p == NULL) {
		arena_deinit(&arena);
		reg_break(l->reg, -ENOMEM);
		return false;
	}
	permit_hashes(p, content, frame);
	volume_subject(p->volume, subject, sizeof subject);
	span = span_find(l->permits, subject);
	if (span != NULL && memcmp(span->content, content, LEDGER_HASH_SIZE) == 0) {
		span->serial = MAX(span->serial, p->serial);
		span->expires_at = MAX(span->expires_at, p->expires_at);
		batch = span->batch;
		goto out;
	}
	/* What is open covers one that only names fewer nodes. */
	batch = span != NULL && is_narrower(span, p, frame) ? span->batch : reg_batch_no(l->reg);
	if (span != NULL)
		pd_ledger_permit_end(l, p->volume, span->expires_at, "changed");
	granted(l, "permit", subject);
	permit_opens(l, s, p, subject, content, frame, batch);
out:
	arena_deinit(&arena);
	return reg_is_durable(l->reg, batch);
}

void pd_ledger_lease_end(struct pd_ledger *l, const char *node, const char *why)
{
	Pave__V1__LedgerLeaseEnd m = PAVE__V1__LEDGER_LEASE_END__INIT;
	struct ledger_span *s = span_find(l->leases, node);

	if (s == NULL)
		return;
	m.node = text(node);
	m.expires_at = s->expires_at;
	m.why = text(why);
	RECORD(l, LEASE_END, lease_end, &m);
	span_free(&l->leases, s);
}

void pd_ledger_released(struct pd_ledger *l, const struct reg_volume *v, generation_t generation)
{
	Pave__V1__LedgerPermitEnd m = PAVE__V1__LEDGER_PERMIT_END__INIT;
	char subject[NAME_SIZE_MAX];
	struct ledger_span *s;

	volume_subject(v->id, subject, sizeof subject);
	s = span_find(l->permits, subject);
	m.volume = v->id;
	m.generation = generation;
	/* A node that was stopped may still answer what was sent to it before: until the permit
	 * that it holds runs out. */
	m.expires_at = INT64_MAX;
	m.why = text("released");
	m.last_serial = UINT64_MAX; /* of an older one nobody has counted them */
	if (s != NULL && s->generation == generation) {
		m.last_serial = s->serial;
		m.expires_at = s->expires_at;
		span_free(&l->permits, s);
	}
	RECORD(l, PERMIT_END, permit_end, &m);
}

bool pd_ledger_lease(struct pd_ledger *l, const Pave__V1__Signed *s)
{
	Pave__V1__Lease *lease = pave__v1__lease__unpack(NULL, s->payload.len, s->payload.data);
	Pave__V1__LedgerLease m = PAVE__V1__LEDGER_LEASE__INIT;
	uint8_t content[LEDGER_HASH_SIZE];
	struct ledger_span *span;
	Pave__V1__Lease alike;
	bool durable;

	if (lease == NULL) {
		reg_break(l->reg, -ENOMEM);
		return false;
	}
	alike = *lease;
	alike.serial = 0;
	alike.issued_at = alike.expires_at = 0;
	alike.nonce = data(NULL, 0);
	alike.revocations_version = 0; /* it stands in the ledger by itself */
	hash_message(&alike.base, content);
	span = span_find(l->leases, lease->node);
	durable = span != NULL && reg_is_durable(l->reg, span->batch);
	if (span != NULL && memcmp(span->content, content, LEDGER_HASH_SIZE) == 0) {
		span->expires_at = MAX(span->expires_at, lease->expires_at);
	} else {
		durable = false;
		pd_ledger_lease_end(l, lease->node, "changed");
		granted(l, "lease", lease->node);
		m.lease = (Pave__V1__Signed *)(uintptr_t)s;
		RECORD(l, LEASE, lease, &m);
		span = span_make(&l->leases, lease->node);
		if (span == NULL) {
			reg_break(l->reg, -ENOMEM);
		} else {
			memcpy(span->content, content, LEDGER_HASH_SIZE);
			span->batch = reg_batch_no(l->reg);
			span->expires_at = lease->expires_at;
		}
	}
	pave__v1__lease__free_unpacked(lease, NULL);
	return durable;
}
