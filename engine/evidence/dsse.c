/* dsse: see dsse.h.
 *
 * Happy path: an envelope is taken apart strictly (one JSON object, no duplicate member, base64
 * without anything left over), the PAE of type and payload is built once, each signature by a key
 * of the role is verified over it, distinct keys are counted, and only then is the payload parsed.
 *
 * Failure modes: whatever doesn't check yields no document. The text of a bad signature tells the
 * role, the keys that it has, and what became of each signature, since "invalid" alone helps nobody
 * at night. */
#include "engine/evidence/dsse.h"

#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/assert.h"
#include "engine/base/base64.h"
#include "engine/base/text.h"
#include "engine/evidence/keys.h"
#include "engine/evidence/model.h"

#define TYPE_SIZE_MAX  256u
#define KEYID_SIZE_MAX 256u /* of foreign keys, which are passed over */

struct signature {
	char keyid[KEYID_SIZE_MAX];
	uint8_t *sig;
	size_t sig_size;
};

struct dsse_envelope {
	char type[TYPE_SIZE_MAX];
	uint8_t *payload;
	size_t payload_size;
	size_t signature_count;
	struct signature signatures[SIGNATURES_MAX];
};

/* DSSE v1: "DSSEv1" SP LEN(type) SP type SP LEN(body) SP body. malloc'd; NULL without memory. */
char *dsse_pae(const char *type, const void *payload, size_t payload_size, size_t *ret_size)
{
	size_t type_size = strlen(type);
	size_t head_max = type_size + 64;
	char *text = malloc(head_max + payload_size);
	int head;

	if (text == NULL)
		return NULL;
	head = snprintf(text, head_max, "DSSEv1 %zu %s %zu ", type_size, type, payload_size);
	INVARIANT(head > 0 && (size_t)head < head_max);
	if (payload_size > 0)
		memcpy(text + head, payload, payload_size);
	*ret_size = (size_t)head + payload_size;
	return text;
}

/* -- taking apart ----------------------------------------------------------------------------- */

static int envelope_error(struct error *err, const char *text)
{
	return error_set(err, -E_BAD_DOCUMENT, "DSSE envelope: %s", text);
}

static bool is_printable(const char *text)
{
	for (; *text != '\0'; text++)
		if ((unsigned char)*text < 0x20 || *text == 0x7f)
			return false;
	return true;
}

/* Copies a text member; false when it isn't one, is too long, or would not print. */
static bool take_text(const json_t *json, char *ret, size_t ret_size)
{
	const char *text = json_string_value(json);

	if (text == NULL || json_string_length(json) >= ret_size || !is_printable(text))
		return false;
	memcpy(ret, text, json_string_length(json) + 1);
	return true;
}

static int take_base64(const json_t *json, const char *name, uint8_t **ret, size_t *ret_size,
		       struct error *err)
{
	int rc;

	if (!json_is_string(json))
		return error_set(err, -E_BAD_DOCUMENT, "DSSE envelope: %s is missing or no text",
				 name);
	rc = base64_decode(json_string_value(json), json_string_length(json), ret, ret_size);
	if (rc == -EINVAL)
		return error_set(err, -E_BAD_DOCUMENT,
				 "DSSE envelope: %s is not base64; was the file cut or edited?",
				 name);
	if (rc != 0)
		return error_set(err, rc, "DSSE envelope: no memory");
	return 0;
}

static int take_signatures(const json_t *list, struct dsse_envelope *e, struct error *err)
{
	const json_t *value;
	size_t i;

	if (!json_is_array(list))
		return envelope_error(err, "signatures is missing or no list");
	if (json_array_size(list) > SIGNATURES_MAX)
		return error_set(err, -E_BAD_DOCUMENT,
				 "DSSE envelope: it has %zu signatures, at most %u are allowed",
				 json_array_size(list), SIGNATURES_MAX);
	json_array_foreach (list, i, value) {
		struct signature *s = &e->signatures[i];
		const json_t *keyid = json_object_get(value, "keyid");
		int rc;

		if (keyid != NULL && !take_text(keyid, s->keyid, sizeof s->keyid))
			return envelope_error(
			    err, "the keyid of a signature is no text, too long, or has "
				 "control characters");
		rc = take_base64(json_object_get(value, "sig"), "sig of a signature", &s->sig,
				 &s->sig_size, err);
		if (rc != 0)
			return rc;
		e->signature_count++;
	}
	return 0;
}

static int take_envelope(const json_t *json, struct dsse_envelope *e, struct error *err)
{
	int rc;

	if (!take_text(json_object_get(json, "payloadType"), e->type, sizeof e->type) ||
	    e->type[0] == '\0')
		return envelope_error(err, "payloadType is missing, no text, or too long; a signed "
					   "document is needed (`pave evidence sign` makes one)");
	rc = take_base64(json_object_get(json, "payload"), "payload", &e->payload, &e->payload_size,
			 err);
	if (rc == 0 && e->payload_size > DOCUMENT_SIZE_MAX)
		rc = error_set(err, -E_BAD_DOCUMENT,
			       "DSSE envelope: the payload has %zu bytes, at most %u are allowed",
			       e->payload_size, DOCUMENT_SIZE_MAX);
	return rc != 0 ? rc : take_signatures(json_object_get(json, "signatures"), e, err);
}

int dsse_parse(const void *json, size_t size_bytes, struct dsse_envelope **ret, struct error *err)
{
	struct dsse_envelope *e;
	json_error_t fault;
	json_t *root;
	int rc;

	if (size_bytes > ENVELOPE_SIZE_MAX)
		return error_set(err, -E_BAD_DOCUMENT,
				 "DSSE envelope: it has %zu bytes, at most %u are allowed",
				 size_bytes, ENVELOPE_SIZE_MAX);
	root = json_loadb(json, size_bytes, JSON_REJECT_DUPLICATES, &fault);
	if (root == NULL)
		return document_error(err, "DSSE envelope", "the file", "not well-formed",
				      "line %d, column %d: %s", fault.line, fault.column,
				      fault.text);
	e = calloc(1, sizeof *e);
	if (e == NULL)
		rc = error_set(err, -ENOMEM, "DSSE envelope: no memory");
	else
		rc = take_envelope(root, e, err);
	json_decref(root);
	if (rc != 0) {
		dsse_free(e);
		return rc;
	}
	*ret = e;
	return 0;
}

const char *dsse_type(const struct dsse_envelope *e)
{
	return e->type;
}

const void *dsse_payload(const struct dsse_envelope *e, size_t *ret_size)
{
	*ret_size = e->payload_size;
	return e->payload;
}

size_t dsse_signature_count(const struct dsse_envelope *e)
{
	return e->signature_count;
}

const char *dsse_signature_keyid(const struct dsse_envelope *e, size_t i)
{
	PRE(i < e->signature_count);
	return e->signatures[i].keyid;
}

void dsse_free(struct dsse_envelope *e)
{
	if (e == NULL)
		return;
	for (size_t i = 0; i < SIGNATURES_MAX; i++)
		free(e->signatures[i].sig);
	free(e->payload);
	free(e);
}

/* -- signing ---------------------------------------------------------------------------------- */

static json_t *signature_json(const char *keyid, const uint8_t *sig, size_t sig_size)
{
	char *text = base64_encode(sig, sig_size);
	json_t *json = NULL;

	if (text != NULL)
		json = json_pack("{s:s, s:s}", "keyid", keyid, "sig", text);
	free(text);
	return json;
}

static bool among(const char *keyid, struct signing_key *const *keys, size_t key_count)
{
	for (size_t i = 0; i < key_count; i++)
		if (strcmp(keys[i]->keyid, keyid) == 0)
			return true;
	return false;
}

/* e may be NULL: nobody has signed before. NULL without memory. */
static json_t *signatures_json(const struct dsse_envelope *e, struct signing_key *const *keys,
			       size_t key_count, const char *text, size_t text_size)
{
	json_t *list = json_array();
	uint8_t sig[ED25519_SIG_SIZE];
	int failed = list == NULL;

	for (size_t i = 0; e != NULL && i < e->signature_count && failed == 0; i++) {
		const struct signature *s = &e->signatures[i];

		if (!among(s->keyid, keys, key_count))
			failed = json_array_append_new(
			    list, signature_json(s->keyid, s->sig, s->sig_size));
	}
	for (size_t i = 0; i < key_count && failed == 0; i++) {
		failed = ed25519_sign(keys[i], text, text_size, sig);
		if (failed == 0)
			failed = json_array_append_new(
			    list, signature_json(keys[i]->keyid, sig, sizeof sig));
	}
	if (failed == 0)
		return list;
	json_decref(list);
	return NULL;
}

static int sign(const char *type, const void *payload, size_t payload_size,
		const struct dsse_envelope *e, struct signing_key *const *keys, size_t key_count,
		char **ret_json, struct error *err)
{
	size_t pae_size = 0;
	char *text = dsse_pae(type, payload, payload_size, &pae_size);
	char *payload_text = base64_encode(payload, payload_size);
	json_t *envelope = NULL;
	char *out = NULL;

	if (text != NULL && payload_text != NULL)
		envelope =
		    json_pack("{s:s, s:s, s:o}", "payloadType", type, "payload", payload_text,
			      "signatures", signatures_json(e, keys, key_count, text, pae_size));
	if (envelope != NULL)
		out = json_dumps(envelope, JSON_INDENT(1));
	json_decref(envelope);
	free(payload_text);
	free(text);
	if (out == NULL)
		return error_set(err, -ENOMEM,
				 "signing %s: no memory, or a key id that is not UTF-8", type);
	*ret_json = out;
	return 0;
}

int dsse_sign(const char *payload_type, const void *payload, size_t payload_size,
	      struct signing_key *const *keys, size_t key_count, char **ret_json, struct error *err)
{
	PRE(key_count > 0 && key_count <= SIGNATURES_MAX);
	PRE(strlen(payload_type) < TYPE_SIZE_MAX && payload_size <= DOCUMENT_SIZE_MAX);
	return sign(payload_type, payload, payload_size, NULL, keys, key_count, ret_json, err);
}

int dsse_cosign(const struct dsse_envelope *e, struct signing_key *const *keys, size_t key_count,
		char **ret_json, struct error *err)
{
	size_t kept = 0;

	PRE(key_count > 0 && key_count <= SIGNATURES_MAX);
	for (size_t i = 0; i < e->signature_count; i++)
		kept += !among(e->signatures[i].keyid, keys, key_count);
	if (kept + key_count > SIGNATURES_MAX)
		return error_set(err, -E_LIMIT,
				 "signing %s: it would have %zu signatures, at most %u are allowed",
				 e->type, kept + key_count, SIGNATURES_MAX);
	return sign(e->type, e->payload, e->payload_size, e, keys, key_count, ret_json, err);
}

/* -- verifying -------------------------------------------------------------------------------- */

struct signature_view {
	const char *keyid;
	const uint8_t *sig;
	size_t sig_size;
};

/* Appends to a text that ends where the buffer does. */
static void append(char *buf, size_t buf_size, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
static void append(char *buf, size_t buf_size, const char *fmt, ...)
{
	size_t len = strlen(buf);
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(buf + len, buf_size - len, fmt, ap);
	va_end(ap);
}

static void list_role_keys(const struct root_role *role, char *buf, size_t buf_size)
{
	buf[0] = '\0';
	for (uint32_t i = 0; i < role->keys.count; i++)
		append(buf, buf_size, "%s%s", i == 0 ? "" : ", ",
		       *LIST_AT(&role->keys, const char *, i));
}

/* NULL: the signature counts, and its key is noted; else what is wrong with it. */
static const char *judge(const struct root_document *root, const struct root_role *role,
			 const struct signature_view *s, const char *text, size_t text_size,
			 const struct root_key **counted, uint32_t *counted_count)
{
	const struct root_key *key = root_find_key(root, s->keyid);

	if (key == NULL)
		return "no key of the root";
	if (!root_role_has_key(role, s->keyid))
		return "not a key of this role";
	for (uint32_t i = 0; i < *counted_count; i++)
		if (memcmp(counted[i]->public_key, key->public_key, ED25519_KEY_SIZE) == 0)
			return "the same key again";
	if (!ed25519_verify(key->pkey, text, text_size, s->sig, s->sig_size))
		return "does not verify";
	counted[(*counted_count)++] = key;
	return NULL;
}

static int verify_role(const struct root_document *root, const char *role_name, const char *type,
		       const void *payload, size_t payload_size,
		       const struct signature_view *signatures, size_t signature_count,
		       struct error *err)
{
	const struct root_role *role = root_find_role(root, role_name);
	const struct root_key *counted[SIGNATURES_MAX];
	uint32_t counted_count = 0;
	char faults[500] = "", names[200];
	size_t text_size = 0;
	char *text;

	PRE(signature_count <= SIGNATURES_MAX);
	if (role == NULL)
		return error_set(
		    err, -E_BAD_SIGNATURE,
		    "%s: the trust root has no keys for the role %s, which must sign it", type,
		    role_name);
	text = dsse_pae(type, payload, payload_size, &text_size);
	if (text == NULL)
		return error_set(err, -ENOMEM, "%s: no memory", type);
	for (size_t i = 0; i < signature_count; i++) {
		const char *fault =
		    judge(root, role, &signatures[i], text, text_size, counted, &counted_count);

		if (fault != NULL)
			append(faults, sizeof faults, "; signature of \"%.64s\": %s",
			       signatures[i].keyid, fault);
	}
	free(text);
	if (counted_count >= role->threshold)
		return 0;
	list_role_keys(role, names, sizeof names);
	return error_set(err, -E_BAD_SIGNATURE,
			 "%s: %u valid signature%s by the role %s, %lld needed (its keys: %s)%s%s",
			 type, counted_count, counted_count == 1 ? "" : "s", role_name,
			 (long long)role->threshold, names, faults,
			 signature_count == 0 ? "; it is not signed at all" : "");
}

int dsse_verify_role(const struct dsse_envelope *e, const struct root_document *root,
		     const char *role, struct error *err)
{
	struct signature_view views[SIGNATURES_MAX];

	for (size_t i = 0; i < e->signature_count; i++)
		views[i] = (struct signature_view){e->signatures[i].keyid, e->signatures[i].sig,
						   e->signatures[i].sig_size};
	return verify_role(root, role, e->type, e->payload, e->payload_size, views,
			   e->signature_count, err);
}

/* -- opening ---------------------------------------------------------------------------------- */

/* Takes the envelope apart and verifies it for every role in roles (NULL at the end). */
static int open_envelope(const void *envelope, size_t size_bytes, const char *type,
			 const struct root_document *root, const char *const *roles,
			 struct dsse_envelope **ret, struct error *err)
{
	struct dsse_envelope *e = NULL;
	int rc = dsse_parse(envelope, size_bytes, &e, err);

	if (rc != 0)
		return rc;
	if (strcmp(e->type, type) != 0)
		rc = error_set(err, -E_BAD_DOCUMENT,
			       "DSSE envelope: payloadType is %s, but %s is needed here", e->type,
			       type);
	for (; rc == 0 && *roles != NULL; roles++)
		rc = dsse_verify_role(e, root, *roles, err);
	if (rc != 0) {
		dsse_free(e);
		return rc;
	}
	*ret = e;
	return 0;
}

static int check_cluster(const struct uuid *cluster, const struct root_document *root,
			 const char *what, struct error *err)
{
	char theirs[40], ours[40];

	if (uuid_equal(cluster, root_cluster(root)))
		return 0;
	return error_set(
	    err, -E_WRONG_CLUSTER,
	    "%s: cluster is %s, the trust root is of cluster %s; take the document that was "
	    "signed for this cluster",
	    what, text_uuid(cluster, theirs, sizeof theirs),
	    text_uuid(root_cluster(root), ours, sizeof ours));
}

static int check_succession(const struct root_document *root, const struct root_document *old,
			    struct error *err)
{
	int rc = check_cluster(root_cluster(root), old, "trust root", err);

	if (rc != 0)
		return rc;
	if (root->version > old->version ||
	    (root->version == old->version &&
	     memcmp(root->digest, old->digest, sizeof root->digest) == 0))
		return 0;
	return error_set(err, -E_ROLLBACK,
			 "trust root: version is %" PRId64 ", but version %" PRId64
			 "%s is in force; a new "
			 "root needs a higher version",
			 root->version, old->version,
			 root->version == old->version ? " with another content" : "");
}

int root_open(const void *envelope, size_t size_bytes, const struct root_document *old,
	      struct root_document **ret, struct error *err)
{
	static const char *const roles[] = {"root", NULL};
	static const char *const none[] = {NULL};
	struct dsse_envelope *e = NULL;
	struct root_document *d = NULL;
	int rc = open_envelope(envelope, size_bytes, TYPE_ROOT, old, old == NULL ? none : roles, &e,
			       err);

	if (rc != 0) {
		if (old != NULL)
			error_wrap(err, "by the trust root in force");
		return rc;
	}
	rc = root_parse(e->payload, e->payload_size, &d, err);
	if (rc == 0)
		rc = dsse_verify_role(e, d, "root", err);
	if (rc == 0 && old != NULL)
		rc = check_succession(d, old, err);
	dsse_free(e);
	if (rc != 0) {
		root_free(d);
		return rc;
	}
	*ret = d;
	return 0;
}

int site_open(const void *envelope, size_t size_bytes, const struct root_document *root,
	      struct site_document **ret, struct error *err)
{
	static const char *const roles[] = {"authority", "auditor", NULL};
	struct dsse_envelope *e = NULL;
	struct site_document *d = NULL;
	int rc = open_envelope(envelope, size_bytes, TYPE_SITE, root, roles, &e, err);

	if (rc != 0)
		return rc;
	rc = site_parse(e->payload, e->payload_size, &d, err);
	dsse_free(e);
	if (rc == 0)
		rc = check_cluster(site_cluster(d), root, "site certificate", err);
	if (rc != 0) {
		site_free(d);
		return rc;
	}
	*ret = d;
	return 0;
}

int revocations_open(const void *envelope, size_t size_bytes, const struct root_document *root,
		     struct revocations_document **ret, struct error *err)
{
	static const char *const roles[] = {"authority", NULL};
	struct dsse_envelope *e = NULL;
	struct revocations_document *d = NULL;
	int rc = open_envelope(envelope, size_bytes, TYPE_REVOCATIONS, root, roles, &e, err);

	if (rc != 0)
		return rc;
	rc = revocations_parse(e->payload, e->payload_size, &d, err);
	dsse_free(e);
	if (rc == 0)
		rc = check_cluster(revocations_cluster(d), root, "revocation snapshot", err);
	if (rc != 0) {
		revocations_free(d);
		return rc;
	}
	*ret = d;
	return 0;
}

static int policy_open_by(const char *role, const void *envelope, size_t size_bytes,
			  const struct root_document *root, struct policy_document **ret,
			  struct error *err)
{
	const char *roles[] = {role, NULL};
	struct dsse_envelope *e = NULL;
	struct policy_document *d = NULL;
	int rc = open_envelope(envelope, size_bytes, TYPE_POLICY, root, roles, &e, err);

	if (rc != 0)
		return rc;
	rc = policy_parse(e->payload, e->payload_size, &d, err);
	dsse_free(e);
	if (rc == 0 && d->cluster.present)
		rc = check_cluster(&d->cluster.uuid, root, "placement policy", err);
	if (rc != 0) {
		policy_free(d);
		return rc;
	}
	*ret = d;
	return 0;
}

int policy_open(const void *envelope, size_t size_bytes, const struct root_document *root,
		struct policy_document **ret, struct error *err)
{
	return policy_open_by(root_find_role(root, "tenant") != NULL ? "tenant" : "root", envelope,
			      size_bytes, root, ret, err);
}

int policy_open_by_operator(const void *envelope, size_t size_bytes,
			    const struct root_document *root, struct policy_document **ret,
			    struct error *err)
{
	return policy_open_by("root", envelope, size_bytes, root, ret, err);
}

/* -- the protobuf form ------------------------------------------------------------------------ */

/* Memory as protobuf-c's free expects it. */
static bool copy_bytes(ProtobufCBinaryData *ret, const void *data, size_t size_bytes)
{
	ret->data = malloc(MAX(size_bytes, 1));
	if (ret->data == NULL)
		return false;
	if (size_bytes > 0)
		memcpy(ret->data, data, size_bytes);
	ret->len = size_bytes;
	return true;
}

static bool fill_signed(Pave__V1__Signed *s, const char *type, const void *payload,
			size_t payload_size, const struct signing_key *key, const uint8_t *sig)
{
	Pave__V1__Signature *signature;

	s->payload_type = strdup(type);
	s->signatures = calloc(1, sizeof(Pave__V1__Signature *));
	signature = malloc(sizeof *signature);
	if (s->payload_type == NULL || s->signatures == NULL || signature == NULL) {
		free(signature);
		return false;
	}
	pave__v1__signature__init(signature);
	s->signatures[s->n_signatures++] = signature;
	signature->keyid = strdup(key->keyid);
	return signature->keyid != NULL && copy_bytes(&signature->sig, sig, ED25519_SIG_SIZE) &&
	       copy_bytes(&s->payload, payload, payload_size);
}

int signed_make(const char *payload_type, const void *payload, size_t payload_size,
		struct signing_key *key, Pave__V1__Signed **ret, struct error *err)
{
	size_t text_size = 0;
	char *text = dsse_pae(payload_type, payload, payload_size, &text_size);
	uint8_t sig[ED25519_SIG_SIZE];
	Pave__V1__Signed *s = malloc(sizeof *s);
	bool ok = text != NULL && s != NULL && ed25519_sign(key, text, text_size, sig) == 0;

	PRE(payload_size <= DOCUMENT_SIZE_MAX);
	free(text);
	if (s != NULL)
		pave__v1__signed__init(s);
	if (!ok || !fill_signed(s, payload_type, payload, payload_size, key, sig)) {
		pave__v1__signed__free_unpacked(s, NULL);
		return error_set(err, -ENOMEM, "signing %s: no memory", payload_type);
	}
	*ret = s;
	return 0;
}

int signed_verify(const Pave__V1__Signed *s, const char *payload_type,
		  const struct root_document *root, struct error *err)
{
	struct signature_view views[SIGNATURES_MAX];

	if (s == NULL)
		return error_set(err, -E_BAD_SIGNATURE, "%s: there is none", payload_type);
	if (strcmp(s->payload_type, payload_type) != 0)
		return error_set(err, -E_BAD_DOCUMENT, "a signed message has another type than %s",
				 payload_type);
	if (s->n_signatures > SIGNATURES_MAX || s->payload.len > DOCUMENT_SIZE_MAX)
		return error_set(
		    err, -E_BAD_DOCUMENT,
		    "%s: %zu signatures over %zu bytes, at most %u over %u are allowed",
		    payload_type, s->n_signatures, s->payload.len, SIGNATURES_MAX,
		    DOCUMENT_SIZE_MAX);
	for (size_t i = 0; i < s->n_signatures; i++) {
		const Pave__V1__Signature *sig = s->signatures[i];

		if (!is_printable(sig->keyid))
			return error_set(err, -E_BAD_DOCUMENT,
					 "%s: a key id has control characters", payload_type);
		views[i] = (struct signature_view){sig->keyid, sig->sig.data, sig->sig.len};
	}
	return verify_role(root, "placement", payload_type, s->payload.data, s->payload.len, views,
			   s->n_signatures, err);
}
