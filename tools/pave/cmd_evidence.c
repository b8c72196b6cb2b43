/* pave evidence: the authority's own tools. Keys are made here, documents are checked and signed,
 * envelopes are verified against a trust root and shown. Nothing here talks to a cluster.
 *
 * Failure modes: a document that a verifier would refuse is not signed; a key is never overwritten;
 * what goes wrong is told on stderr and nothing else happens. Exit: 0 done, 1 failed, 2 usage. */
#include <errno.h>
#include <getopt.h>
#include <jansson.h>
#include <openssl/crypto.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "engine/base/text.h"
#include "engine/evidence/dsse.h"
#include "engine/evidence/file.h"
#include "tools/pave/cmd.h"
#include "tools/pave/offline.h"

#define GROUP "evidence"

static const char help[] =
    "usage: pave evidence keygen --out KEY [--keyid ID] [--json]\n"
    "       pave evidence sign --key KEYID=KEY [--key ...] --type TYPE IN --out OUT [--json]\n"
    "       pave evidence verify --root ROOT FILE [--json]\n"
    "       pave evidence show FILE [--json]\n"
    "\n"
    "keygen  Makes an Ed25519 key: KEY (PEM, PKCS #8, mode 0600) and KEY.pub, and prints its "
    "entry\n"
    "        for `keys` of a trust root. ID is its name there; the file's name when not given.\n"
    "sign    Checks the document IN and signs it: a DSSE envelope in OUT. TYPE is root, site,\n"
    "        revocations or policy, or the whole media type. IN may also be an envelope of that "
    "type\n"
    "        that somebody else signed before: the signatures are added to it.\n"
    "verify  Verifies an envelope under a trust root (an envelope too). A root is verified as the\n"
    "        successor of ROOT.\n"
    "show    Prints what is in an envelope, and verifies nothing.\n"
    "\n"
    "Exit status: 0 done, 1 failed or not valid, 2 usage.\n";

/* -- the four types --------------------------------------------------------------------------- */

#define CHECKER(kind)                                                                              \
	static int check_##kind(const void *json, size_t size, struct error *err)                  \
	{                                                                                          \
		struct kind##_document *d = NULL;                                                  \
		int rc = kind##_parse(json, size, &d, err);                                        \
                                                                                                   \
		kind##_free(d);                                                                    \
		return rc;                                                                         \
	}
CHECKER(root)
CHECKER(site)
CHECKER(revocations)
CHECKER(policy)

static int verify_root(const void *data, size_t size, const struct root_document *root, char *ret,
		       size_t ret_size, struct error *err)
{
	struct root_document *d = NULL;
	char until[40];
	int rc = root_open(data, size, root, &d, err);

	if (rc == 0)
		snprintf(ret, ret_size, "trust root, version %llu, until %s",
			 (unsigned long long)root_version(d),
			 text_time(root_not_after(d), until, sizeof until));
	root_free(d);
	return rc;
}

static int verify_site(const void *data, size_t size, const struct root_document *root, char *ret,
		       size_t ret_size, struct error *err)
{
	struct site_document *d = NULL;
	char from[40], until[40];
	int rc = site_open(data, size, root, &d, err);

	if (rc == 0)
		snprintf(ret, ret_size, "site certificate %s, version %llu, from %s until %s",
			 site_name(d), (unsigned long long)site_version(d),
			 text_time(site_not_before(d), from, sizeof from),
			 text_time(site_not_after(d), until, sizeof until));
	site_free(d);
	return rc;
}

static int verify_revocations(const void *data, size_t size, const struct root_document *root,
			      char *ret, size_t ret_size, struct error *err)
{
	struct revocations_document *d = NULL;
	char until[40];
	int rc = revocations_open(data, size, root, &d, err);

	if (rc == 0)
		snprintf(ret, ret_size, "revocation snapshot, version %llu, until %s",
			 (unsigned long long)revocations_version(d),
			 text_time(revocations_not_after(d), until, sizeof until));
	revocations_free(d);
	return rc;
}

static int verify_policy(const void *data, size_t size, const struct root_document *root, char *ret,
			 size_t ret_size, struct error *err)
{
	struct policy_document *d = NULL;
	int rc = policy_open(data, size, root, &d, err);

	if (rc == 0)
		snprintf(ret, ret_size, "placement policy %s, version %llu", policy_name(d),
			 (unsigned long long)policy_version(d));
	policy_free(d);
	return rc;
}

static const struct document_type {
	const char *name, *media_type;
	int (*check)(const void *json, size_t size, struct error *err);
	int (*verify)(const void *data, size_t size, const struct root_document *root, char *ret,
		      size_t ret_size, struct error *err);
} types[] = {
    {"root", TYPE_ROOT, check_root, verify_root},
    {"site", TYPE_SITE, check_site, verify_site},
    {"revocations", TYPE_REVOCATIONS, check_revocations, verify_revocations},
    {"policy", TYPE_POLICY, check_policy, verify_policy},
};

static const struct document_type *find_type(const char *name)
{
	for (size_t i = 0; i < ARRAY_SIZE(types); i++)
		if (strcmp(types[i].name, name) == 0 || strcmp(types[i].media_type, name) == 0)
			return &types[i];
	return NULL;
}

/* -- the command line ------------------------------------------------------------------------- */

struct options {
	const char *out, *keyid, *type, *root;
	const char *keys[SIGNATURES_MAX];
	size_t key_count;
	bool json;
	char **files;
	int file_count;
};

enum { OPT_OUT = 256, OPT_KEYID, OPT_KEY, OPT_TYPE, OPT_ROOT, OPT_JSON, OPT_CLUSTER };

static const struct option long_options[] = {
    {"out", required_argument, NULL, OPT_OUT},
    {"keyid", required_argument, NULL, OPT_KEYID},
    {"key", required_argument, NULL, OPT_KEY},
    {"type", required_argument, NULL, OPT_TYPE},
    {"root", required_argument, NULL, OPT_ROOT},
    {"json", no_argument, NULL, OPT_JSON},
    {"cluster", required_argument, NULL, OPT_CLUSTER}, /* taken everywhere, of no use here */
    {"help", no_argument, NULL, 'h'},
    {NULL, 0, NULL, 0},
};

/* -1: go on; else the exit status. */
static int parse_options(int argc, char **argv, struct options *o)
{
	int c;

	optind = 1;
	while ((c = getopt_long(argc, argv, "h", long_options, NULL)) != -1) {
		switch (c) {
		case OPT_OUT:
			o->out = optarg;
			break;
		case OPT_KEYID:
			o->keyid = optarg;
			break;
		case OPT_KEY:
			if (o->key_count == SIGNATURES_MAX)
				return offline_usage(GROUP, "--key is given more than %u times",
						     SIGNATURES_MAX);
			o->keys[o->key_count++] = optarg;
			break;
		case OPT_TYPE:
			o->type = optarg;
			break;
		case OPT_ROOT:
			o->root = optarg;
			break;
		case OPT_JSON:
			o->json = true;
			break;
		case OPT_CLUSTER:
			break;
		case 'h':
			fputs(help, stdout);
			return OFFLINE_DONE;
		default:
			fputs("see pave evidence --help\n", stderr);
			return OFFLINE_USAGE;
		}
	}
	o->files = argv + optind;
	o->file_count = argc - optind;
	return -1;
}

/* -- keygen ----------------------------------------------------------------------------------- */

static int write_key(const struct options *o, const char *pub_path, const char *private_pem,
		     const char *public_pem, struct error *err)
{
	int rc = file_create(o->out, private_pem, strlen(private_pem), 0600, err);

	if (rc == -EEXIST)
		return error_set(
		    err, rc, "%s exists already; a key is never overwritten: choose another name",
		    o->out);
	if (rc != 0)
		return rc;
	rc = file_create(pub_path, public_pem, strlen(public_pem), 0644, err);
	if (rc != 0) {
		unlink(
		    o->out); /* we made it a moment ago, and half a key pair would only confuse */
		if (rc == -EEXIST)
			error_set(err, rc, "%s exists already; choose another name for the key",
				  pub_path);
	}
	return rc;
}

static int keygen(const struct options *o)
{
	struct signing_key *key = NULL;
	char *pub_path = NULL, *private_pem = NULL, *public_pem = NULL;
	const char *slash, *keyid;
	struct error err;
	int rc;

	if (o->file_count != 0 || o->out == NULL)
		return offline_usage(GROUP, "keygen needs --out KEY and nothing else");
	slash = strrchr(o->out, '/');
	keyid = o->keyid != NULL ? o->keyid : slash == NULL ? o->out : slash + 1;
	rc = signing_key_generate(keyid, &key, &err);
	if (rc != 0)
		return offline_failed(GROUP, &err);
	private_pem = signing_key_private_pem(key);
	public_pem = signing_key_public_pem(key);
	if (asprintf(&pub_path, "%s.pub", o->out) < 0)
		pub_path = NULL;
	if (private_pem == NULL || public_pem == NULL || pub_path == NULL)
		rc = error_set(&err, -ENOMEM, "no memory");
	else
		rc = write_key(o, pub_path, private_pem, public_pem, &err);
	if (rc == 0)
		rc = offline_print_json(GROUP, json_pack("{s:{s:s, s:s}}", keyid, "alg", "ed25519",
							 "public", public_pem));
	else
		rc = offline_failed(GROUP, &err);
	if (private_pem != NULL)
		OPENSSL_cleanse(private_pem, strlen(private_pem));
	free(private_pem);
	free(public_pem);
	free(pub_path);
	signing_key_free(key);
	return rc;
}

/* -- sign ------------------------------------------------------------------------------------- */

/* "KEYID=KEY" */
static int read_key(const char *text, struct signing_key **ret, struct error *err)
{
	const char *equals = strchr(text, '=');
	char keyid[NAME_SIZE_MAX];

	if (equals == NULL || equals == text || (size_t)(equals - text) >= sizeof keyid ||
	    equals[1] == '\0')
		return error_set(err, -EINVAL,
				 "--key %.200s: KEYID=KEY is needed, the key's name in the "
				 "root and its file",
				 text);
	memcpy(keyid, text, (size_t)(equals - text));
	keyid[equals - text] = '\0';
	return signing_key_read(equals + 1, keyid, ret, err);
}

static int read_keys(const struct options *o, struct signing_key **keys, struct error *err)
{
	for (size_t i = 0; i < o->key_count; i++) {
		int rc = read_key(o->keys[i], &keys[i], err);

		if (rc != 0)
			return rc;
		for (size_t k = 0; k < i; k++)
			if (strcmp(signing_key_id(keys[k]), signing_key_id(keys[i])) == 0)
				return error_set(err, -EINVAL, "--key %s is given twice",
						 signing_key_id(keys[i]));
	}
	return 0;
}

/* Whether the file is an envelope already; what else it may be is told by the document's parser. */
static bool is_envelope(const char *data, size_t size)
{
	json_t *json = json_loadb(data, size, 0, NULL);
	bool yes = json_object_get(json, "payloadType") != NULL;

	json_decref(json);
	return yes;
}

static int sign_data(const struct document_type *type, const char *data, size_t size,
		     struct signing_key *const *keys, size_t key_count, char **ret_text,
		     struct error *err)
{
	struct dsse_envelope *e = NULL;
	const void *payload;
	size_t payload_size;
	int rc;

	if (!is_envelope(data, size)) {
		rc = type->check(data, size, err);
		return rc != 0 ? rc
			       : dsse_sign(type->media_type, data, size, keys, key_count, ret_text,
					   err);
	}
	rc = dsse_parse(data, size, &e, err);
	if (rc == 0 && strcmp(dsse_type(e), type->media_type) != 0)
		rc = error_set(err, -E_BAD_DOCUMENT, "the envelope is of type %s, --type says %s",
			       dsse_type(e), type->media_type);
	if (rc == 0) {
		payload = dsse_payload(e, &payload_size);
		rc = type->check(payload, payload_size, err);
	}
	if (rc == 0)
		rc = dsse_cosign(e, keys, key_count, ret_text, err);
	dsse_free(e);
	return rc;
}

static int sign(const struct options *o)
{
	const struct document_type *type = o->type == NULL ? NULL : find_type(o->type);
	struct signing_key *keys[SIGNATURES_MAX] = {NULL};
	char *data = NULL, *text = NULL;
	struct error err = {0};
	size_t size = 0;
	int rc;

	if (o->file_count != 1 || o->out == NULL || o->key_count == 0 || o->type == NULL)
		return offline_usage(
		    GROUP, "sign needs --key KEYID=KEY, --type TYPE, one IN, and --out OUT");
	if (type == NULL)
		return offline_usage(
		    GROUP,
		    "--type %s: root, site, revocations or policy is needed, or the media type",
		    o->type);
	rc = read_keys(o, keys, &err);
	if (rc == 0)
		rc = file_read_whole(o->files[0], ENVELOPE_SIZE_MAX, &data, &size, &err);
	if (rc == 0) {
		rc = sign_data(type, data, size, keys, o->key_count, &text, &err);
		if (rc != 0)
			error_wrap(&err, "%s", o->files[0]);
	}
	if (rc == 0)
		rc = file_replace(o->out, text, strlen(text), 0644, &err);
	if (rc == 0 && o->json)
		rc = offline_print_json(GROUP, json_pack("{s:s, s:s, s:i}", "out", o->out, "type",
							 type->media_type, "signatures_added",
							 (int)o->key_count));
	else if (rc == 0)
		printf("%s: %s, signed with %zu key%s\n", o->out, type->media_type, o->key_count,
		       o->key_count == 1 ? "" : "s");
	else
		rc = rc == -EINVAL && data == NULL ? offline_usage(GROUP, "%s", err.text)
						   : offline_failed(GROUP, &err);
	free(text);
	free(data);
	for (size_t i = 0; i < o->key_count; i++)
		signing_key_free(keys[i]);
	return rc;
}

/* -- verify, show ----------------------------------------------------------------------------- */

static int read_root(const char *path, struct root_document **ret, struct error *err)
{
	char *data = NULL;
	size_t size = 0;
	int rc = file_read_whole(path, ENVELOPE_SIZE_MAX, &data, &size, err);

	if (rc == 0) {
		rc = root_open(data, size, NULL, ret, err);
		if (rc != 0)
			error_wrap(err, "--root %s", path);
	}
	free(data);
	return rc;
}

static int verify_data(const char *data, size_t size, const struct root_document *root, char *ret,
		       size_t ret_size, struct error *err)
{
	const struct document_type *type;
	struct dsse_envelope *e = NULL;
	int rc = dsse_parse(data, size, &e, err);

	if (rc != 0)
		return rc;
	type = find_type(dsse_type(e));
	if (type == NULL || strcmp(type->media_type, dsse_type(e)) != 0)
		rc = error_set(
		    err, -E_BAD_DOCUMENT,
		    "payloadType is %s; root, site, revocations and policy documents can be "
		    "verified",
		    dsse_type(e));
	else
		rc = type->verify(data, size, root, ret, ret_size, err);
	dsse_free(e);
	return rc;
}

static int verify(const struct options *o)
{
	struct root_document *root = NULL;
	char *data = NULL;
	char summary[400];
	struct error err = {0};
	size_t size = 0;
	int rc;

	if (o->file_count != 1 || o->root == NULL)
		return offline_usage(GROUP, "verify needs --root ROOT and one FILE");
	rc = read_root(o->root, &root, &err);
	if (rc == 0)
		rc = file_read_whole(o->files[0], ENVELOPE_SIZE_MAX, &data, &size, &err);
	if (rc == 0) {
		rc = verify_data(data, size, root, summary, sizeof summary, &err);
		if (rc != 0)
			error_wrap(&err, "%s", o->files[0]);
	}
	if (o->json && (rc == 0 || data != NULL))
		offline_print_json(GROUP, json_pack("{s:b, s:s}", "valid", rc == 0,
						    rc == 0 ? "document" : "error",
						    rc == 0 ? summary : err.text));
	else if (rc == 0)
		printf("%s: valid: %s\n", o->files[0], summary);
	if (rc != 0)
		rc = offline_failed(GROUP, &err);
	free(data);
	root_free(root);
	return rc;
}

static json_t *envelope_json(const struct dsse_envelope *e)
{
	size_t size;
	const void *payload = dsse_payload(e, &size);
	json_t *document = json_loadb(payload, size, JSON_REJECT_DUPLICATES, NULL);
	json_t *signers = json_array();

	for (size_t i = 0; i < dsse_signature_count(e); i++)
		json_array_append_new(signers, json_string(dsse_signature_keyid(e, i)));
	return json_pack("{s:s, s:o, s:b, s:o}", "type", dsse_type(e), "signers", signers,
			 "verified", 0, "document", document == NULL ? json_null() : document);
}

static int show(const struct options *o)
{
	struct dsse_envelope *e = NULL;
	char *data = NULL;
	struct error err = {0};
	size_t size = 0;
	json_t *json, *document;
	int rc;

	if (o->file_count != 1)
		return offline_usage(GROUP, "show needs one FILE");
	rc = file_read_whole(o->files[0], ENVELOPE_SIZE_MAX, &data, &size, &err);
	if (rc == 0) {
		rc = dsse_parse(data, size, &e, &err);
		if (rc != 0)
			error_wrap(&err, "%s", o->files[0]);
	}
	free(data);
	if (rc != 0)
		return offline_failed(GROUP, &err);
	json = envelope_json(e);
	document = json_object_get(json, "document");
	if (!o->json) {
		printf("type: %s\nsigned by:", dsse_type(e));
		for (size_t i = 0; i < dsse_signature_count(e); i++)
			printf(" %s", dsse_signature_keyid(e, i));
		printf("%s (not verified)\n", dsse_signature_count(e) == 0 ? " nobody" : "");
	}
	if (json_is_null(document)) {
		fprintf(stderr, "pave evidence: %s: the payload is not well-formed JSON\n",
			o->files[0]);
		rc = OFFLINE_FAILED;
		json_decref(json);
	} else if (o->json) {
		rc = offline_print_json(GROUP, json);
	} else {
		rc = offline_print_json(GROUP, json_incref(document));
		json_decref(json);
	}
	dsse_free(e);
	return rc;
}

int cmd_evidence(int argc, char **argv)
{
	static const struct {
		const char *name;
		int (*run)(const struct options *o);
	} verbs[] = {{"keygen", keygen}, {"sign", sign}, {"verify", verify}, {"show", show}};
	struct options o = {0};
	int rc = parse_options(argc, argv, &o);

	if (rc >= 0)
		return rc;
	if (o.file_count == 0)
		return offline_usage(GROUP, "one of keygen, sign, verify, show is needed");
	for (size_t i = 0; i < ARRAY_SIZE(verbs); i++)
		if (strcmp(verbs[i].name, o.files[0]) == 0) {
			o.files++;
			o.file_count--;
			return verbs[i].run(&o);
		}
	return offline_usage(GROUP, "%s: one of keygen, sign, verify, show is needed", o.files[0]);
}
