/* snapshot: see snapshot.h.
 *
 * The present snapshot is verified under the root before anything is built on it, so that a driver
 * that lies cannot get an authority to sign away a withdrawal of a forged one. */
#include "tools/pave/snapshot.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <time.h>
#include <unistd.h>

#include "engine/evidence/demo.h"
#include "engine/evidence/file.h"

#define CHANGE_TRIES	     8u
#define VALID_FOR_DEFAULT_NS (24 * 3600 * (int64_t)NS_PER_S)

int64_t snapshot_now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_REALTIME, &ts);
	return (int64_t)ts.tv_sec * (int64_t)NS_PER_S + ts.tv_nsec;
}

int snapshot_signers_add(struct snapshot_signers *s, const char *text, struct error *err)
{
	const char *equals = strchr(text, '=');
	char keyid[NAME_SIZE_MAX];
	int rc;

	if (equals == NULL || equals == text || equals - text >= NAME_SIZE_MAX || equals[1] == '\0')
		return error_set(err, -EINVAL, "--key %s: KEYID=FILE is wanted, as %s=key.pem",
				 text, DEMO_AUTHORITY);
	if (s->key_count == SIGNATURES_MAX)
		return error_set(err, -E_LIMIT, "over %u keys", SIGNATURES_MAX);
	memcpy(keyid, text, (size_t)(equals - text));
	keyid[equals - text] = '\0';
	rc = signing_key_read(equals + 1, keyid, &s->keys[s->key_count], err);
	if (rc == 0 && s->key_count++ == 0)
		snprintf(s->lock_path, sizeof s->lock_path, "%s", equals + 1);
	return rc;
}

void snapshot_signers_deinit(struct snapshot_signers *s)
{
	for (size_t i = 0; i < s->key_count; i++)
		signing_key_free(s->keys[i]);
	root_free(s->root);
	memset(s, 0, sizeof *s);
}

int snapshot_signers_complete(struct snapshot_signers *s, const struct cluster_ref *cluster,
			      struct error *err)
{
	const char *root_path = s->root_path[0] != '\0' ? s->root_path : cluster->root;
	char path[4300], key[4400] = "";
	const char *keyid;
	char *data;
	size_t size;
	int rc;

	if (root_path[0] == '\0')
		return error_set(
		    err, -EINVAL,
		    "--root FILE is missing: the present snapshot is verified under it");
	rc = file_read_whole(root_path, ENVELOPE_SIZE_MAX, &data, &size, err);
	if (rc != 0)
		return rc;
	rc = root_open(data, size, NULL, &s->root, err);
	free(data);
	if (rc != 0)
		return error_wrap(err, "%s", root_path);
	if (s->key_count > 0)
		return 0;
	if (cluster->dir[0] == '\0')
		return error_set(err, -EINVAL,
				 "--key KEYID=FILE is missing: the authority's key signs the "
				 "snapshot");
	/* The newest name that the root has for it, and that there is a file of. */
	for (uint32_t i = 0; (keyid = root_role_key(s->root, "authority", i)) != NULL; i++) {
		snprintf(path, sizeof path, "%.4000s/authority/%.63s.pem", cluster->dir, keyid);
		if (access(path, R_OK) == 0)
			snprintf(key, sizeof key, "%.63s=%.4200s", keyid, path);
	}
	if (key[0] == '\0')
		return error_set(err, -EACCES,
				 "%s/authority has no key of the role authority that can be read: "
				 "be its owner, or give --key KEYID=FILE",
				 cluster->dir);
	rc = snapshot_signers_add(s, key, err);
	return rc == 0 ? 0 : error_wrap(err, "the development cluster's authority");
}

int snapshot_submit(struct client *c, const char *envelope, struct error *err)
{
	Pave__V1__Control m = PAVE__V1__CONTROL__INIT;
	Pave__V1__RevocationsPut put = PAVE__V1__REVOCATIONS_PUT__INIT;
	Pave__V1__Control *reply;
	int rc;

	put.envelope.data = (uint8_t *)(uintptr_t)envelope;
	put.envelope.len = strlen(envelope);
	m.body_case = PAVE__V1__CONTROL__BODY_REVOCATIONS_PUT;
	m.revocations_put = &put;
	rc = client_call(c, &m, PAVE__V1__CONTROL__BODY_EMPTY, 0, &reply, err);
	if (rc == 0)
		pave__v1__control__free_unpacked(reply, NULL);
	return rc;
}

static int get_present(struct client *c, const struct root_document *root,
		       struct revocations_document **ret, struct error *err)
{
	Pave__V1__Control m = PAVE__V1__CONTROL__INIT;
	Pave__V1__RevocationsGet get = PAVE__V1__REVOCATIONS_GET__INIT;
	Pave__V1__Control *reply;
	const ProtobufCBinaryData *e;
	int rc;

	m.body_case = PAVE__V1__CONTROL__BODY_REVOCATIONS_GET;
	m.revocations_get = &get;
	rc = client_call(c, &m, PAVE__V1__CONTROL__BODY_REVOCATIONS_REPLY, 0, &reply, err);
	if (rc != 0)
		return rc;
	e = &reply->revocations_reply->envelope;
	if (e->len == 0)
		rc = error_set(err, -ENOENT,
			       "the driver has no revocation snapshot yet: sign the first one "
			       "(pave evidence sign)");
	else
		rc = revocations_open(e->data, e->len, root, ret, err);
	pave__v1__control__free_unpacked(reply, NULL);
	return rc == 0 ? 0 : error_wrap(err, "the driver's present snapshot");
}

static void set_times(const struct revocations_document *old, const struct snapshot_signers *s,
		      struct revocations_change *change)
{
	int64_t valid = VALID_FOR_DEFAULT_NS;

	if (s->valid_for_ms != 0)
		valid = (int64_t)(s->valid_for_ms * NS_PER_MS);
	else if (revocations_not_after(old) > revocations_issued_at(old) &&
		 revocations_issued_at(old) > 0)
		valid = revocations_not_after(old) - revocations_issued_at(old);
	change->issued_at = snapshot_now();
	change->not_after = change->issued_at + valid;
}

static int change_once(struct client *c, const struct cluster_ref *cluster,
		       struct snapshot_signers *s, struct revocations_change *change,
		       struct error *err)
{
	struct revocations_document *old = NULL;
	char *json = NULL;
	char *envelope = NULL;
	char path[4400];
	int64_t before;
	int rc = get_present(c, s->root, &old, err);

	if (rc != 0)
		goto out;
	if (change->site != NULL && change->withdraw &&
	    revocations_site_version(old, change->site) == 0) {
		rc = error_set(err, -ENOENT,
			       "the snapshot doesn't list a site \"%s\": pave site list",
			       change->site);
		goto out;
	}
	set_times(old, s, change);
	rc = revocations_amend(old, change, &json, err);
	if (rc == 0)
		rc = dsse_sign(TYPE_REVOCATIONS, json, strlen(json), s->keys, s->key_count,
			       &envelope, err);
	if (rc == 0)
		rc = snapshot_submit(c, envelope, err);
	if (rc != 0)
		goto out;
	s->result_version = revocations_version(old) + 1;
	s->result_not_after = change->not_after;
	s->result_from = change->effective_from;
	if (change->withdraw && revocations_withdrawn(old, change->site, INT64_MAX, &before, NULL))
		s->result_from = MIN(s->result_from, before);
	if (cluster->dir[0] != '\0') {
		snprintf(path, sizeof path, "%s/evidence/revocations.dsse.json", cluster->dir);
		rc = file_replace(path, envelope, strlen(envelope), 0644, err);
	}
out:
	revocations_free(old);
	free(json);
	free(envelope);
	return rc;
}

int snapshot_change(struct client *c, const struct cluster_ref *cluster, struct snapshot_signers *s,
		    struct revocations_change *change, struct error *err)
{
	/* Where it cannot be locked the tries are left. */
	int fd = open(s->lock_path, O_RDONLY | O_CLOEXEC);
	int rc = -E_ROLLBACK;

	if (fd >= 0)
		flock(fd, LOCK_EX);
	for (unsigned i = 0; i < CHANGE_TRIES && rc == -E_ROLLBACK; i++)
		rc = change_once(c, cluster, s, change, err);
	if (fd >= 0)
		close(fd);
	return rc;
}
