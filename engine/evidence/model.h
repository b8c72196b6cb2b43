/* The parsed documents from inside, for the files of engine/evidence only. "Missing" is as schema.h
 * says. */
#ifndef EVIDENCE_MODEL_H
#define EVIDENCE_MODEL_H

#include <openssl/evp.h>

#include "engine/evidence/documents.h"
#include "engine/evidence/schema.h"

#define ED25519_KEY_SIZE 32u

/* -- trust root ------------------------------------------------------------------------------- */

struct root_key {
	const char *keyid;
	const char *alg;
	const char *public_pem;
	uint8_t public_key[ED25519_KEY_SIZE];
	EVP_PKEY *pkey;
};

struct root_role {
	const char *name;
	struct list keys; /* of const char *, keyids */
	int64_t threshold;
};

struct root_document {
	json_t *json;
	uint8_t digest[32];
	struct uuid_member cluster;
	int64_t version, issued_at, not_after;
	struct list keys;  /* of struct root_key */
	struct list roles; /* of struct root_role */
};

/* NULL: no such role, or one without keys. */
const struct root_role *root_find_role(const struct root_document *d, const char *name);
/* NULL: no such key. */
const struct root_key *root_find_key(const struct root_document *d, const char *keyid);
bool root_role_has_key(const struct root_role *role, const char *keyid);

/* An Ed25519 SubjectPublicKeyInfo in PEM (RFC 8410). -EINVAL. */
int ed25519_public_from_pem(const char *pem, uint8_t ret_key[ED25519_KEY_SIZE]);

/* -- site certificate ------------------------------------------------------------------------- */

struct holder {
	const char *name;
	struct jurisdiction jurisdiction;
	int64_t capital_ppm, votes_ppm;
	enum tristate veto, board_majority;
};

struct supplier {
	const char *role, *name;
	struct jurisdiction jurisdiction;
	enum tristate technical_access;
};

struct exposure {
	const char *law, *basis;
};

struct label {
	const char *scheme, *version, *service, *status, *decision;
	struct list layers; /* of const char * */
	int64_t from, until;
};

struct site_document {
	json_t *json;
	uint8_t digest[32];
	struct uuid_member cluster;
	const char *site;
	int64_t version, issued_at, not_before, not_after;
	struct {
		const char *country, *territory, *commune, *campus, *building;
		double latitude, longitude;
	} facility;
	struct {
		const char *legal_id, *name;
		struct jurisdiction seat, central_administration, main_establishment;
	} operator;
	struct {
		const char *as_of;
		struct list holders; /* of struct holder */
	} ownership;
	struct list suppliers;	       /* of struct supplier */
	struct list exposure;	       /* of struct exposure */
	struct list admin_locations;   /* of struct jurisdiction */
	struct list support_locations; /* of struct jurisdiction */
	struct list labels;	       /* of struct label */
	struct list services;	       /* of const char * */
	const char *node_ca_sha256;
};

/* -- revocation snapshot ---------------------------------------------------------------------- */

struct site_entry {
	const char *site;
	int64_t version;
};

struct withdrawal {
	const char *site, *reason;
	int64_t effective_from;
};

struct revocations_document {
	json_t *json;
	uint8_t digest[32];
	struct uuid_member cluster;
	int64_t version, issued_at, not_after;
	struct list sites;	 /* of struct site_entry */
	struct list withdrawals; /* of struct withdrawal */
};

/* -- placement policy ------------------------------------------------------------------------- */

struct label_rule {
	const char *scheme, *min_version, *layer, *status;
};

struct policy_document {
	json_t *json;
	uint8_t digest[32];
	struct uuid_member cluster; /* mostly missing: a policy may serve several clusters */
	const char *name;
	int64_t version, issued_at;
	struct list territory; /* of const char * */
	struct list labels;    /* of struct label_rule */
	struct {
		struct jurisdiction home;
		int64_t max_individual_ppm, max_collective_ppm;
		enum tristate veto, board_majority; /* TRUE: tolerated */
	} ownership;
	struct {
		struct jurisdiction seat, central_administration, main_establishment;
	} operator;
	struct {
		struct list operator, supplier, technical_access, admin,
		    support; /* of struct jurisdiction */
	} forbidden;
	struct list exposure; /* of const char * */
	int64_t replicas, min_acks;
	const char *distinct;
	double min_distance_km;
	const char *hosts;
	int64_t staleness_s;
	struct {
		const char *action;
		int64_t timeout_s;
	} on_loss;
	const char *erase; /* NULL: as "overwrite" */
};

#endif
