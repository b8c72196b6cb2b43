/* Making the next revocation snapshot: what `site revoke`, `site refresh` and `dev up` share. */
#ifndef PAVE_SNAPSHOT_H
#define PAVE_SNAPSHOT_H

#include "engine/evidence/dsse.h"
#include "tools/pave/client.h"

/* Keys that sign it, and the root that the present one must verify under. */
struct snapshot_signers {
	struct signing_key *keys[SIGNATURES_MAX];
	size_t key_count;
	struct root_document *root;
	char root_path[4200];	 /* "": the cluster's own */
	char lock_path[4200];	 /* the first key's file */
	uint64_t valid_for_ms;	 /* 0: as long as the one before */
	uint64_t result_version; /* what was made */
	int64_t result_not_after;
	int64_t result_from; /* since when it withdraws the site: of several the earliest counts */
};

/* Fills in what the command line left open from the development cluster: its root, its authority's
 * key. */
int snapshot_signers_complete(struct snapshot_signers *s, const struct cluster_ref *cluster,
			      struct error *err);
/* "KEYID=FILE". */
int snapshot_signers_add(struct snapshot_signers *s, const char *text, struct error *err);
void snapshot_signers_deinit(struct snapshot_signers *s);

/* Gets the driver's snapshot, verifies it, makes the next one with the change (its times are filled
 * in here), signs it, submits it; in a development cluster also leaves it in D/evidence.
 *
 * Two contents of one version would put every site into quarantine until there is a higher one:
 * whoever signs with the same key file waits until the one before is done, and when somebody
 * elsewhere has been faster the change is signed again, as the version after his. */
int snapshot_change(struct client *c, const struct cluster_ref *cluster, struct snapshot_signers *s,
		    struct revocations_change *change, struct error *err);

/* Submits an envelope, and waits until it is in force. */
int snapshot_submit(struct client *c, const char *envelope, struct error *err);

/* Now, ns since 1970. */
int64_t snapshot_now(void);

#endif
