/* A demo authority: keys, trust root, site certificates, snapshots and policies that look like real
 * ones, for `pave dev up`, the simulator and the tests. Everything in them is invented; nothing
 * here is trusted by any other cluster, because the keys are made on the spot. Pure but for the
 * random source when no seed is given.
 *
 * Texts that are returned are DSSE envelopes, malloc'd and NUL-terminated, the caller's to free. */
#ifndef EVIDENCE_DEMO_H
#define EVIDENCE_DEMO_H

#include "engine/evidence/identity.h"

/* Names of the keys in the root, in this order in struct demo. */
#define DEMO_AUTHORITY "authority-1"
#define DEMO_AUDITOR   "auditor-1"
#define DEMO_PLACEMENT "placement-1"
#define DEMO_TENANT    "tenant-a"
#define DEMO_KEY_COUNT 4u

/* The caller may also fill it itself, with keys read from files (demo_key_names tells which), or
 * with others in their places, of other names. */
struct demo {
	struct uuid cluster;
	struct signing_key *keys[DEMO_KEY_COUNT];
};

extern const char *const demo_key_names[DEMO_KEY_COUNT];

/* seed: 32 bytes from which cluster and keys follow; NULL: random. Ed25519 signs without
 * randomness, so with a seed every text repeats. -ENOMEM. */
int demo_init(struct demo *d, const uint8_t *seed, struct error *err);
void demo_deinit(struct demo *d); /* zeroed memory is allowed */

/* NULL: no such name. */
struct signing_key *demo_key(const struct demo *d, const char *keyid);

/* Roles: root {authority-1, auditor-1} 2, authority, auditor, placement, tenant 1 each. Times are
 * written in whole seconds, rounded down. */
int demo_root(const struct demo *d, uint64_t version, int64_t issued_at, int64_t not_after,
	      char **ret_envelope, struct error *err);

/* The root of d as the successor of before's: signed by the keys of both. */
int demo_root_after(const struct demo *before, const struct demo *d, uint64_t version,
		    int64_t issued_at, int64_t not_after, char **ret_envelope, struct error *err);

/* par is in Saint-Denis, lyo in Lyon, rbx in Roubaix; mrs, sxb, bod, tls, nte, rns are in other
 * French cities; run is on La Reunion and nou in Noumea; fra (Frankfurt) is European without a
 * label, and iad (Virginia) has an American operator under American law. Any other name is
 * somewhere in France. Each on a campus of its own, "NAME-1". */
int demo_site(const struct demo *d, const char *name, uint64_t version, int64_t not_before,
	      int64_t not_after, char **ret_envelope, struct error *err);

/* The identity of a node: the CA whose hash demo_site writes has issued it. The same again for the
 * same names and times. */
int demo_identity(const struct demo *d, const char *site, const char *node, int64_t not_before,
		  int64_t not_after, struct identity *ret, struct error *err);

struct demo_entry {
	const char *site;
	uint64_t version;
	int64_t withdrawn_from; /* 0: it is not */
};

int demo_revocations(const struct demo *d, uint64_t version, int64_t issued_at, int64_t not_after,
		     const struct demo_entry *entries, size_t entry_count, char **ret_envelope,
		     struct error *err);

/* The next snapshot after old, as revocations_amend makes it, signed. */
int demo_revocations_amend(const struct demo *d, const struct revocations_document *old,
			   const struct revocations_change *change, char **ret_envelope,
			   struct error *err);

/* A preset's document signed by the tenant. -EINVAL: no such preset. */
int demo_policy(const struct demo *d, const char *preset, char **ret_envelope, struct error *err);

#endif
