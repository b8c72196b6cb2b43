/* trust: see trust.h.
 *
 * The file (JSON, format version 1):
 *   {"format": "pave-trust", "version": 1, "sha256": HEX of the compact text of state,
 *    "state": {"root": ENVELOPE, "roots": [{"version", "sha256"}],
 *              "documents": [{"kind", "name", "version", "sha256", "disputed"}]}}
 *
 * Invariants: 1. what is in memory is in the file, but for a dispute that could not be written
 * (then memory is the stricter of the two). 2. the version of an entry never goes down. 3. the root
 * in force is the last of roots.
 *
 * Failure modes: a file that doesn't check is -E_CORRUPT and stays as it is; a save that fails
 * leaves the old state in force and in the file. */
#include "engine/evidence/trust.h"

#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/assert.h"
#include "engine/base/log.h"
#include "engine/base/text.h"
#include "engine/evidence/file.h"
#include "engine/evidence/model.h"
#include "engine/evidence/tighten.h"

#define TRUST_FORMAT	  "pave-trust"
#define TRUST_VERSION	  1
#define TRUST_FILE_MAX	  (16u << 20)
#define DIGEST_SIZE	  32u
#define DIGEST_TEXT_SIZE  (2 * DIGEST_SIZE + 1)
#define DOCUMENTS_STEP	  64u
#define REVOCATIONS_ENTRY "current" /* there is one snapshot a cluster */

enum kind { KIND_SITE, KIND_REVOCATIONS, KIND_POLICY, KIND_COUNT };

static const char *const kind_names[KIND_COUNT] = {"site", "revocations", "policy"};

struct seen {
	enum kind kind;
	char name[NAME_SIZE_MAX];
	int64_t version;
	uint8_t digest[DIGEST_SIZE];
	bool disputed; /* two contents under this version */
};

struct seen_root {
	int64_t version;
	uint8_t digest[DIGEST_SIZE];
};

struct trust {
	char *path; /* NULL: in memory only */
	struct root_document *root;
	char *root_envelope;
	size_t root_envelope_size;
	struct seen_root roots[TRUST_ROOTS_MAX];
	uint32_t root_count;
	struct seen *documents;
	uint32_t document_count, document_room;
};

/* -- saving ----------------------------------------------------------------------------------- */

static json_t *digest_json(const uint8_t *digest)
{
	char text[DIGEST_TEXT_SIZE];

	return json_string(text_hex(digest, DIGEST_SIZE, text, sizeof text));
}

static json_t *documents_json(const struct trust *t)
{
	json_t *list = json_array();
	int failed = list == NULL;

	for (uint32_t i = 0; i < t->document_count && failed == 0; i++) {
		const struct seen *s = &t->documents[i];

		failed = json_array_append_new(
		    list, json_pack("{s:s, s:s, s:I, s:o, s:b}", "kind", kind_names[s->kind],
				    "name", s->name, "version", (json_int_t)s->version, "sha256",
				    digest_json(s->digest), "disputed", s->disputed));
	}
	if (failed == 0)
		return list;
	json_decref(list);
	return NULL;
}

static json_t *roots_json(const struct trust *t)
{
	json_t *list = json_array();
	int failed = list == NULL;

	for (uint32_t i = 0; i < t->root_count && failed == 0; i++)
		failed = json_array_append_new(
		    list, json_pack("{s:I, s:o}", "version", (json_int_t)t->roots[i].version,
				    "sha256", digest_json(t->roots[i].digest)));
	if (failed == 0)
		return list;
	json_decref(list);
	return NULL;
}

/* The hash over the state, in a form that doesn't depend on how the file is laid out. */
static int state_digest(const json_t *state, uint8_t ret_digest[DIGEST_SIZE])
{
	char *text = json_dumps(state, JSON_COMPACT | JSON_SORT_KEYS);
	int rc = -ENOMEM;

	if (text != NULL)
		rc = document_digest(text, strlen(text), ret_digest);
	free(text);
	return rc;
}

static int save(const struct trust *t, struct error *err)
{
	uint8_t digest[DIGEST_SIZE];
	json_t *state, *file = NULL;
	char *text = NULL;
	int rc = -ENOMEM;

	if (t->path == NULL)
		return 0;
	state = json_pack("{s:s%, s:o, s:o}", "root", t->root_envelope, t->root_envelope_size,
			  "roots", roots_json(t), "documents", documents_json(t));
	if (state != NULL && state_digest(state, digest) == 0)
		file = json_pack("{s:s, s:i, s:o, s:O}", "format", TRUST_FORMAT, "version",
				 TRUST_VERSION, "sha256", digest_json(digest), "state", state);
	if (file != NULL)
		text = json_dumps(file, JSON_INDENT(1));
	if (text != NULL)
		rc = file_replace(t->path, text, strlen(text), 0600, err);
	else
		error_set(err, rc, "trust state %s: no memory", t->path);
	free(text);
	json_decref(file);
	json_decref(state);
	return rc;
}

/* -- loading ---------------------------------------------------------------------------------- */

static int corrupt(const struct trust *t, struct error *err, const char *why)
{
	return error_set(
	    err, -E_CORRUPT,
	    "trust state %s: %s; restore it from a backup, or remove it if you accept that "
	    "replays of older documents go unnoticed once",
	    t->path, why);
}

static bool parse_digest(const json_t *json, uint8_t *ret)
{
	const char *text = json_string_value(json);
	char back[DIGEST_TEXT_SIZE];

	if (text == NULL || json_string_length(json) != 2 * DIGEST_SIZE)
		return false;
	for (size_t i = 0; i < DIGEST_SIZE; i++) {
		unsigned value;

		if (sscanf(text + 2 * i, "%2x", &value) != 1)
			return false;
		ret[i] = (uint8_t)value;
	}
	return strcmp(text_hex(ret, DIGEST_SIZE, back, sizeof back), text) == 0;
}

static bool load_document(const json_t *json, struct seen *s)
{
	const char *kind = json_string_value(json_object_get(json, "kind"));
	const char *name = json_string_value(json_object_get(json, "name"));
	const json_t *disputed = json_object_get(json, "disputed");

	s->version = json_integer_value(json_object_get(json, "version"));
	s->disputed = json_is_true(disputed);
	s->kind = KIND_COUNT;
	for (int k = 0; kind != NULL && k < KIND_COUNT; k++)
		if (strcmp(kind_names[k], kind) == 0)
			s->kind = (enum kind)k;
	if (s->kind == KIND_COUNT || name == NULL || !text_is_name(name) || s->version < 1 ||
	    !json_is_boolean(disputed))
		return false;
	memcpy(s->name, name, strlen(name) + 1);
	return parse_digest(json_object_get(json, "sha256"), s->digest);
}

static bool load_documents(struct trust *t, const json_t *list)
{
	const json_t *value;
	size_t i;

	if (!json_is_array(list) || json_array_size(list) > TRUST_DOCUMENTS_MAX)
		return false;
	t->document_room = (uint32_t)json_array_size(list) + DOCUMENTS_STEP;
	t->documents = calloc(t->document_room, sizeof *t->documents);
	if (t->documents == NULL)
		return false;
	json_array_foreach (list, i, value) {
		if (!load_document(value, &t->documents[i]))
			return false;
		t->document_count++;
	}
	return true;
}

static bool load_roots(struct trust *t, const json_t *list)
{
	const json_t *value;
	size_t i;

	if (!json_is_array(list) || json_array_size(list) > TRUST_ROOTS_MAX)
		return false;
	json_array_foreach (list, i, value) {
		t->roots[i].version = json_integer_value(json_object_get(value, "version"));
		if (t->roots[i].version < 1 ||
		    !parse_digest(json_object_get(value, "sha256"), t->roots[i].digest))
			return false;
		t->root_count++;
	}
	return t->root_count > 0;
}

static int set_root_envelope(struct trust *t, const void *envelope, size_t size)
{
	char *copy = malloc(size + 1);

	if (copy == NULL)
		return -ENOMEM;
	memcpy(copy, envelope, size);
	copy[size] = '\0';
	free(t->root_envelope);
	t->root_envelope = copy;
	t->root_envelope_size = size;
	return 0;
}

static int load_state(struct trust *t, const json_t *file, struct error *err)
{
	const json_t *state = json_object_get(file, "state");
	const json_t *root = json_object_get(state, "root");
	const char *format = json_string_value(json_object_get(file, "format"));
	uint8_t stated[DIGEST_SIZE], digest[DIGEST_SIZE];
	int rc;

	if (format == NULL || strcmp(format, TRUST_FORMAT) != 0)
		return corrupt(t, err, "it is no trust state");
	if (json_integer_value(json_object_get(file, "version")) != TRUST_VERSION)
		return corrupt(t, err, "its format is of another version of pave");
	if (!json_is_object(state) || !parse_digest(json_object_get(file, "sha256"), stated))
		return corrupt(t, err, "it is not complete");
	rc = state_digest(state, digest);
	if (rc != 0)
		return error_set(err, rc, "trust state %s: no memory", t->path);
	if (memcmp(stated, digest, sizeof digest) != 0)
		return corrupt(t, err, "its checksum does not match");
	if (!json_is_string(root) || !load_roots(t, json_object_get(state, "roots")) ||
	    !load_documents(t, json_object_get(state, "documents")))
		return corrupt(t, err, "a member is missing or malformed");
	rc = set_root_envelope(t, json_string_value(root), json_string_length(root));
	if (rc != 0)
		return error_set(err, rc, "trust state %s: no memory", t->path);
	rc = root_open(t->root_envelope, t->root_envelope_size, NULL, &t->root, err);
	if (rc != 0)
		return rc == -ENOMEM ? rc : corrupt(t, err, "the root in it does not verify");
	return 0;
}

/* Leaves t without a root when there is no file. */
static int load(struct trust *t, struct error *err)
{
	json_error_t fault;
	json_t *file;
	char *text = NULL;
	size_t size = 0;
	int rc = file_read_whole(t->path, TRUST_FILE_MAX, &text, &size, err);

	if (rc == -ENOENT)
		return 0;
	if (rc == -EFBIG)
		return corrupt(t, err, "it is too large");
	if (rc != 0) {
		error_wrap(err, "trust state");
		return rc;
	}
	file = json_loadb(text, size, JSON_REJECT_DUPLICATES, &fault);
	free(text);
	if (file == NULL)
		return corrupt(t, err, "it is not well-formed JSON");
	rc = load_state(t, file, err);
	json_decref(file);
	return rc;
}

/* -- the root --------------------------------------------------------------------------------- */

static void remember_root(struct trust *t, const struct root_document *root)
{
	if (t->root_count == TRUST_ROOTS_MAX) {
		memmove(&t->roots[0], &t->roots[1], sizeof t->roots - sizeof t->roots[0]);
		t->root_count--;
	}
	t->roots[t->root_count].version = root->version;
	memcpy(t->roots[t->root_count].digest, root->digest, DIGEST_SIZE);
	t->root_count++;
}

static bool root_was_seen(const struct trust *t, const struct root_document *root)
{
	for (uint32_t i = 0; i < t->root_count; i++)
		if (t->roots[i].version == root->version &&
		    memcmp(t->roots[i].digest, root->digest, DIGEST_SIZE) == 0)
			return true;
	return false;
}

/* None of the keys that could sign for the role can any more. */
static bool role_is_replaced(const struct root_document *old, const struct root_document *new,
			     const char *name)
{
	const struct root_role *was = root_find_role(old, name);
	const struct root_role *is = root_find_role(new, name);

	if (was == NULL || is == NULL)
		return false;
	for (uint32_t i = 0; i < was->keys.count; i++)
		for (uint32_t k = 0; k < is->keys.count; k++)
			if (memcmp(root_find_key(old, *LIST_AT(&was->keys, const char *, i))
				       ->public_key,
				   root_find_key(new, *LIST_AT(&is->keys, const char *, k))
				       ->public_key,
				   ED25519_KEY_SIZE) == 0)
				return false;
	return true;
}

/* Whoever had a key that is replaced may have signed a version that nobody can go beyond. Where no
 * document of before can be verified any more none can be replayed either, so what was seen of that
 * kind is forgotten (as in TUF, 5.3.11). */
static void forget_replaced(struct trust *t, const struct root_document *old,
			    const struct root_document *new)
{
	const bool authority = role_is_replaced(old, new, "authority");
	const bool forget[KIND_COUNT] = {
	    [KIND_SITE] = authority || role_is_replaced(old, new, "auditor"),
	    [KIND_REVOCATIONS] = authority,
	    [KIND_POLICY] = role_is_replaced(old, new, "tenant"),
	};
	uint32_t kept = 0;

	for (uint32_t i = 0; i < t->document_count; i++)
		if (!forget[t->documents[i].kind])
			t->documents[kept++] = t->documents[i];
	t->document_count = kept;
}

/* Puts root in force once it is durable; takes it on success. */
static int install_root(struct trust *t, struct root_document *root, const void *envelope,
			size_t size, struct error *err)
{
	struct trust next = *t;
	int rc;

	next.root_envelope = NULL;
	next.documents = calloc(t->document_count + DOCUMENTS_STEP, sizeof *next.documents);
	next.document_room = t->document_count + DOCUMENTS_STEP;
	rc = next.documents == NULL ? -ENOMEM : set_root_envelope(&next, envelope, size);
	if (rc != 0) {
		free(next.documents);
		return error_set(err, rc, "trust root: no memory");
	}
	if (t->document_count > 0)
		memcpy(next.documents, t->documents, t->document_count * sizeof *next.documents);
	if (t->root != NULL)
		forget_replaced(&next, t->root, root);
	remember_root(&next, root);
	rc = save(&next, err);
	if (rc != 0) {
		free(next.root_envelope);
		free(next.documents);
		return rc;
	}
	root_free(t->root);
	free(t->root_envelope);
	free(t->documents);
	*t = next;
	t->root = root;
	return 0;
}

int trust_accept_root(struct trust *t, const void *envelope, size_t size, struct error *err)
{
	struct root_document *root = NULL;
	int rc = root_open(envelope, size, t->root, &root, err);

	if (rc == 0 && root->version > t->root->version) {
		rc = install_root(t, root, envelope, size, err);
		if (rc == 0)
			return 0;
	}
	root_free(root);
	return rc;
}

/* The root that the operator gave, against the one that the state holds. */
static int compare_root(struct trust *t, const struct root_document *given, const void *envelope,
			size_t size, struct error *err)
{
	if (given->version > t->root->version)
		return trust_accept_root(t, envelope, size, err);
	if (!uuid_equal(root_cluster(given), root_cluster(t->root)))
		return error_set(err, -E_WRONG_CLUSTER,
				 "trust root: it is of another cluster than the trust state%s%s",
				 t->path == NULL ? "" : " ", t->path == NULL ? "" : t->path);
	if (root_was_seen(t, given))
		return 0;
	return error_set(
	    err, -E_ROLLBACK,
	    "trust root: version %" PRId64 " was given, version %" PRId64
	    " is in force, and this is none of the roots that led to it; give the newest root",
	    given->version, t->root->version);
}

int trust_open(const char *path, const void *root_envelope, size_t root_size, struct trust **ret,
	       struct error *err)
{
	struct trust *t = calloc(1, sizeof *t);
	struct root_document *given = NULL;
	int rc = 0;

	if (t == NULL || (path != NULL && (t->path = strdup(path)) == NULL))
		rc = error_set(err, -ENOMEM, "trust state: no memory");
	if (rc == 0 && path != NULL)
		rc = load(t, err);
	if (rc == 0 && root_envelope != NULL)
		rc = root_open(root_envelope, root_size, NULL, &given, err);
	if (rc == 0 && t->root == NULL && given == NULL)
		rc = error_set(err, -ENOENT,
			       "trust root: none was given, and %s holds none; give --root",
			       path == NULL ? "memory" : path);
	else if (rc == 0 && t->root == NULL) {
		rc = install_root(t, given, root_envelope, root_size, err);
		given = rc == 0 ? NULL : given;
	} else if (rc == 0 && given != NULL) {
		rc = compare_root(t, given, root_envelope, root_size, err);
	}
	root_free(given);
	if (rc != 0) {
		trust_close(t);
		return rc;
	}
	*ret = t;
	return 0;
}

const struct root_document *trust_root(const struct trust *t)
{
	return t->root;
}

const void *trust_root_envelope(const struct trust *t, size_t *ret_size)
{
	*ret_size = t->root_envelope_size;
	return t->root_envelope;
}

void trust_close(struct trust *t)
{
	if (t == NULL)
		return;
	root_free(t->root);
	free(t->root_envelope);
	free(t->documents);
	free(t->path);
	free(t);
}

/* -- documents -------------------------------------------------------------------------------- */

static struct seen *find(const struct trust *t, enum kind kind, const char *name)
{
	for (uint32_t i = 0; i < t->document_count; i++)
		if (t->documents[i].kind == kind && strcmp(t->documents[i].name, name) == 0)
			return &t->documents[i];
	return NULL;
}

static int add(struct trust *t, const struct seen *s, struct error *err)
{
	int rc;

	if (t->document_count == TRUST_DOCUMENTS_MAX)
		return error_set(err, -E_LIMIT,
				 "trust state: it remembers %u documents, and can hold no more",
				 TRUST_DOCUMENTS_MAX);
	if (t->document_count == t->document_room) {
		uint32_t room = t->document_room + DOCUMENTS_STEP;
		struct seen *more = realloc(t->documents, room * sizeof *more);

		if (more == NULL)
			return error_set(err, -ENOMEM, "trust state: no memory");
		t->documents = more;
		t->document_room = room;
	}
	t->documents[t->document_count++] = *s;
	rc = save(t, err);
	if (rc != 0)
		t->document_count--;
	return rc;
}

/* Both contents are refused from now on. If that cannot be written down, memory still knows it. */
static int dispute(struct trust *t, struct seen *s, struct error *err)
{
	struct error save_err;

	if (!s->disputed) {
		s->disputed = true;
		log_error("evidence",
			  "%s %s: two contents under version %" PRId64 ": both are refused",
			  kind_names[s->kind], s->name, s->version);
		if (save(t, &save_err) != 0)
			log_error("evidence", "%s", save_err.text);
	}
	return error_set(err, -E_ROLLBACK,
			 "%s %s: two contents were signed as version %" PRId64
			 ", so both are refused; have "
			 "the authority sign a higher version",
			 kind_names[s->kind], s->name, s->version);
}

static int accept(struct trust *t, enum kind kind, const char *name, int64_t version,
		  const uint8_t *digest, struct error *err)
{
	struct seen now = {.kind = kind, .version = version};
	struct seen *s = find(t, kind, name);
	struct seen before;
	int rc;

	PRE(strlen(name) < NAME_SIZE_MAX);
	memcpy(now.name, name, strlen(name) + 1);
	memcpy(now.digest, digest, DIGEST_SIZE);
	if (s == NULL)
		return add(t, &now, err);
	if (version < s->version)
		return error_set(err, -E_ROLLBACK,
				 "%s %s: this is version %" PRId64 ", but version %" PRId64
				 " was seen before; take the newer one",
				 kind_names[kind], name, version, s->version);
	if (version == s->version) {
		if (!s->disputed && memcmp(s->digest, digest, DIGEST_SIZE) == 0)
			return 0;
		return dispute(t, s, err);
	}
	before = *s;
	*s = now;
	rc = save(t, err);
	if (rc != 0)
		*s = before;
	return rc;
}

int trust_accept_site(struct trust *t, const void *envelope, size_t size,
		      struct site_document **ret, struct error *err)
{
	struct site_document *d = NULL;
	int rc = site_open(envelope, size, t->root, &d, err);

	if (rc == 0)
		rc = accept(t, KIND_SITE, d->site, d->version, d->digest, err);
	if (rc != 0) {
		site_free(d);
		return rc;
	}
	*ret = d;
	return 0;
}

int trust_accept_revocations(struct trust *t, const void *envelope, size_t size,
			     struct revocations_document **ret, struct error *err)
{
	struct revocations_document *d = NULL;
	int rc = revocations_open(envelope, size, t->root, &d, err);

	if (rc == 0)
		rc = accept(t, KIND_REVOCATIONS, REVOCATIONS_ENTRY, d->version, d->digest, err);
	if (rc != 0) {
		revocations_free(d);
		return rc;
	}
	*ret = d;
	return 0;
}

/* It was checked when it came, so it is known after a restart without what it tightened. */
static bool was_accepted(const struct trust *t, const struct policy_document *d)
{
	const struct seen *s = find(t, KIND_POLICY, d->name);

	return s != NULL && !s->disputed && s->version == d->version &&
	       memcmp(s->digest, d->digest, DIGEST_SIZE) == 0;
}

static int open_policy(const struct trust *t, const void *envelope, size_t size,
		       const struct trust_policies *in_force, struct policy_document **ret,
		       bool *ret_by_operator, struct error *err)
{
	struct policy_document *d = NULL;
	struct error why;
	int rc = policy_open(envelope, size, t->root, ret, err);

	*ret_by_operator = false;
	if (rc != -E_BAD_SIGNATURE || root_find_role(t->root, "tenant") == NULL ||
	    policy_open_by_operator(envelope, size, t->root, &d, &why) != 0)
		return rc;
	rc = was_accepted(t, d)
		 ? 0
		 : policy_check_tightening(
		       in_force != NULL ? in_force->find(d->name, in_force->arg) : NULL, d, err);
	if (rc != 0) {
		policy_free(d);
		return rc;
	}
	*ret = d;
	*ret_by_operator = true;
	return 0;
}

int trust_accept_policy(struct trust *t, const void *envelope, size_t size,
			const struct trust_policies *in_force, struct policy_document **ret,
			bool *ret_by_operator, struct error *err)
{
	struct policy_document *d = NULL;
	bool by_operator;
	int rc = open_policy(t, envelope, size, in_force, &d, &by_operator, err);

	if (rc == 0)
		rc = accept(t, KIND_POLICY, d->name, d->version, d->digest, err);
	if (rc != 0) {
		policy_free(d);
		return rc;
	}
	*ret = d;
	if (ret_by_operator != NULL)
		*ret_by_operator = by_operator;
	return 0;
}

bool trust_quarantined(const struct trust *t, const char *site)
{
	const struct seen *s = find(t, KIND_SITE, site);
	const struct seen *snapshot = find(t, KIND_REVOCATIONS, REVOCATIONS_ENTRY);

	return (s != NULL && s->disputed) || (snapshot != NULL && snapshot->disputed);
}

bool trust_policy_disputed(const struct trust *t, const char *name)
{
	const struct seen *s = find(t, KIND_POLICY, name);

	return s != NULL && s->disputed;
}
