/* The trust root: see documents.h. A root that was parsed can be used as it is: its keys are
 * loaded, every role's keys exist, and every threshold can be met. */
#include <errno.h>
#include <openssl/bio.h>
#include <openssl/pem.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/assert.h"
#include "engine/evidence/model.h"

/* The DER in front of the 32 bytes of an Ed25519 key: SEQUENCE { SEQUENCE { OID 1.3.101.112 }, BIT
 * STRING }. */
static const uint8_t spki_prefix[] = {0x30, 0x2a, 0x30, 0x05, 0x06, 0x03,
				      0x2b, 0x65, 0x70, 0x03, 0x21, 0x00};

static const char *const algs[] = {"ed25519", NULL};

static const struct member key_members[] = {
    {.name = "alg",
     .kind = MEMBER_CHOICE,
     .offset = offsetof(struct root_key, alg),
     .choices = algs,
     .required = true},
    {.name = "public",
     .kind = MEMBER_PEM,
     .offset = offsetof(struct root_key, public_pem),
     .min = 1,
     .required = true},
};
static const struct schema key_schema = {key_members, ARRAY_SIZE(key_members)};
static const struct member key_item = {.kind = MEMBER_OBJECT, .schema = &key_schema};

static const struct member keyid_item = {.kind = MEMBER_TEXT, .min = 1, .max = NAME_SIZE_MAX - 1};
static const struct member role_members[] = {
    {.name = "keys",
     .kind = MEMBER_LIST,
     .offset = offsetof(struct root_role, keys),
     .item = &keyid_item,
     .item_size = sizeof(const char *),
     .required = true},
    {.name = "threshold",
     .kind = MEMBER_INTEGER,
     .offset = offsetof(struct root_role, threshold),
     .min = 1,
     .max = LIST_MAX,
     .required = true},
};
static const struct schema role_schema = {role_members, ARRAY_SIZE(role_members)};
static const struct member role_item = {.kind = MEMBER_OBJECT, .schema = &role_schema};

#define AT(m) .offset = offsetof(struct root_document, m)
static const struct member root_members[] = {
    {.name = "cluster", .kind = MEMBER_UUID, AT(cluster), .required = true},
    {.name = "version",
     .kind = MEMBER_INTEGER,
     AT(version),
     .min = 1,
     .max = VERSION_MAX,
     .required = true},
    {.name = "issued_at", .kind = MEMBER_TIME, AT(issued_at)},
    {.name = "not_after", .kind = MEMBER_TIME, AT(not_after), .required = true},
    {.name = "keys",
     .kind = MEMBER_MAP,
     AT(keys),
     .item = &key_item,
     .item_size = sizeof(struct root_key),
     .required = true,
     .not_empty = true},
    {.name = "roles",
     .kind = MEMBER_MAP,
     AT(roles),
     .item = &role_item,
     .item_size = sizeof(struct root_role),
     .required = true,
     .not_empty = true},
};
#undef AT
static const struct schema root_schema = {root_members, ARRAY_SIZE(root_members)};

int ed25519_public_from_pem(const char *pem, uint8_t ret_key[ED25519_KEY_SIZE])
{
	char *name = NULL, *header = NULL;
	unsigned char *der = NULL;
	long der_size = 0;
	int rc = -EINVAL;
	BIO *bio = BIO_new_mem_buf(pem, -1);

	if (bio == NULL)
		return -ENOMEM;
	if (PEM_read_bio(bio, &name, &header, &der, &der_size) == 1 &&
	    strcmp(name, PEM_STRING_PUBLIC) == 0 && header[0] == '\0' &&
	    der_size == (long)(sizeof spki_prefix + ED25519_KEY_SIZE) &&
	    memcmp(der, spki_prefix, sizeof spki_prefix) == 0) {
		memcpy(ret_key, der + sizeof spki_prefix, ED25519_KEY_SIZE);
		rc = 0;
	}
	OPENSSL_free(name);
	OPENSSL_free(header);
	OPENSSL_free(der);
	BIO_free(bio);
	return rc;
}

const struct root_key *root_find_key(const struct root_document *d, const char *keyid)
{
	for (uint32_t i = 0; i < d->keys.count; i++)
		if (strcmp(LIST_AT(&d->keys, struct root_key, i)->keyid, keyid) == 0)
			return LIST_AT(&d->keys, struct root_key, i);
	return NULL;
}

const struct root_role *root_find_role(const struct root_document *d, const char *name)
{
	for (uint32_t i = 0; i < d->roles.count; i++) {
		const struct root_role *role = LIST_AT(&d->roles, struct root_role, i);

		if (strcmp(role->name, name) == 0)
			return role->keys.count > 0 ? role : NULL;
	}
	return NULL;
}

const char *root_role_key(const struct root_document *d, const char *role, uint32_t i)
{
	const struct root_role *r = root_find_role(d, role);

	return r != NULL && i < r->keys.count ? *LIST_AT(&r->keys, const char *, i) : NULL;
}

bool root_role_has_key(const struct root_role *role, const char *keyid)
{
	for (uint32_t i = 0; i < role->keys.count; i++)
		if (strcmp(*LIST_AT(&role->keys, const char *, i), keyid) == 0)
			return true;
	return false;
}

static int load_keys(struct root_document *d, struct error *err)
{
	for (uint32_t i = 0; i < d->keys.count; i++) {
		struct root_key *k = &((struct root_key *)d->keys.items)[i];
		char path[PATH_SIZE_MAX];

		snprintf(path, sizeof path, "keys.%s.public", k->keyid);
		if (ed25519_public_from_pem(k->public_pem, k->public_key) != 0)
			return document_error(err, "trust root", path, "not readable",
					      "an Ed25519 SubjectPublicKeyInfo in PEM is needed "
					      "(KEY.pub of `pave evidence keygen`)");
		k->pkey = EVP_PKEY_new_raw_public_key(EVP_PKEY_ED25519, NULL, k->public_key,
						      ED25519_KEY_SIZE);
		if (k->pkey == NULL)
			return error_set(err, -ENOMEM, "trust root: no memory");
	}
	return 0;
}

/* Whether an earlier key of the role is this key, by keyid or by what it is. */
static bool role_has_twin(const struct root_document *d, const struct root_role *role, uint32_t at)
{
	const struct root_key *k = root_find_key(d, *LIST_AT(&role->keys, const char *, at));

	for (uint32_t i = 0; i < at; i++) {
		const struct root_key *other =
		    root_find_key(d, *LIST_AT(&role->keys, const char *, i));

		if (memcmp(other->public_key, k->public_key, ED25519_KEY_SIZE) == 0)
			return true;
	}
	return false;
}

static int check_role(const struct root_document *d, const struct root_role *role,
		      struct error *err)
{
	char path[PATH_SIZE_MAX], value[32];
	int64_t distinct = 0;

	for (uint32_t i = 0; i < role->keys.count; i++) {
		const char *keyid = *LIST_AT(&role->keys, const char *, i);

		snprintf(path, sizeof path, "roles.%s.keys[%u]", role->name, i);
		if (root_find_key(d, keyid) == NULL)
			return document_error(err, "trust root", path, keyid,
					      "there is no such key in `keys`");
		distinct += !role_has_twin(d, role, i);
	}
	snprintf(path, sizeof path, "roles.%s.threshold", role->name);
	snprintf(value, sizeof value, "%lld", (long long)role->threshold);
	if (role->keys.count > 0 && role->threshold > distinct)
		return document_error(err, "trust root", path, value,
				      "the role has %lld different keys, so it could never be met",
				      (long long)distinct);
	return 0;
}

int root_parse(const void *json, size_t size_bytes, struct root_document **ret, struct error *err)
{
	struct root_document *d = calloc(1, sizeof *d);
	int rc;

	if (d == NULL)
		return error_set(err, -ENOMEM, "trust root: no memory");
	rc = schema_parse("trust root", "root", &root_schema, json, size_bytes, d, &d->json, err);
	if (rc == 0)
		rc = load_keys(d, err);
	for (uint32_t i = 0; rc == 0 && i < d->roles.count; i++)
		rc = check_role(d, LIST_AT(&d->roles, struct root_role, i), err);
	if (rc == 0 && d->issued_at != TIME_MISSING && d->issued_at >= d->not_after)
		rc = document_error(err, "trust root", "not_after", "not after issued_at",
				    "a root must be in force for some time");
	if (rc == 0)
		rc = document_digest(json, size_bytes, d->digest);
	if (rc != 0) {
		root_free(d);
		return rc;
	}
	*ret = d;
	return 0;
}

void root_free(struct root_document *d)
{
	if (d == NULL)
		return;
	for (uint32_t i = 0; i < d->keys.count; i++)
		EVP_PKEY_free(((struct root_key *)d->keys.items)[i].pkey);
	schema_release(&root_schema, d);
	json_decref(d->json);
	free(d);
}

const struct uuid *root_cluster(const struct root_document *d)
{
	return &d->cluster.uuid;
}

uint64_t root_version(const struct root_document *d)
{
	return (uint64_t)d->version;
}

int64_t root_not_after(const struct root_document *d)
{
	return d->not_after;
}

const uint8_t *root_digest(const struct root_document *d)
{
	return d->digest;
}
