/* Unit tests of the trust state, of permits and of leases. The calls with which a file becomes
 * durable are wrapped, so that each of them can be made to fail, and the memory too. */
#include <check.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "engine/base/log.h"
#include "engine/base/text.h"
#include "engine/evidence/file.h"
#include "engine/evidence/permit.h"
#include "engine/evidence/trust.h"
#include "test_evidence_rig.h"

/* -- failures on demand ----------------------------------------------------------------------- */

static unsigned io_left, alloc_left; /* calls until one fails; 0: none does */
static bool io_failed, alloc_failed;
static char io_order[64]; /* the first letter of each call, once for those in a row */

static void note(char call)
{
	size_t len = strlen(io_order);

	if (len + 1 < sizeof io_order && (len == 0 || io_order[len - 1] != call))
		io_order[len] = call;
}

static bool fails(unsigned *left, bool *failed)
{
	if (*left == 0 || --*left > 0)
		return false;
	*failed = true;
	return true;
}

#define WRAP_IO(name, parameters, arguments)                                                       \
	int __real_##name parameters;                                                              \
	int __wrap_##name parameters;                                                              \
	int __wrap_##name parameters                                                               \
	{                                                                                          \
		note(#name[0]);                                                                    \
		if (fails(&io_left, &io_failed)) {                                                 \
			errno = EIO;                                                               \
			return -1;                                                                 \
		}                                                                                  \
		return __real_##name arguments;                                                    \
	}
WRAP_IO(fsync, (int fd), (fd))
WRAP_IO(rename, (const char *from, const char *to), (from, to))

ssize_t __real_write(int fd, const void *data, size_t size);
ssize_t __wrap_write(int fd, const void *data, size_t size);
ssize_t __wrap_write(int fd, const void *data, size_t size)
{
	note('w');
	if (fails(&io_left, &io_failed)) {
		errno = ENOSPC;
		return -1;
	}
	/* Short writes are the rule here, so that going on after one is tested as well. */
	return __real_write(fd, data, MIN(size, 1000));
}

#define WRAP_ALLOC(name, parameters, arguments)                                                    \
	void *__real_##name parameters;                                                            \
	void *__wrap_##name parameters;                                                            \
	void *__wrap_##name parameters                                                             \
	{                                                                                          \
		return fails(&alloc_left, &alloc_failed) ? NULL : __real_##name arguments;         \
	}
WRAP_ALLOC(malloc, (size_t size), (size))
WRAP_ALLOC(calloc, (size_t count, size_t size), (count, size))
WRAP_ALLOC(realloc, (void *old, size_t size), (old, size))

/* -- fixtures --------------------------------------------------------------------------------- */

static struct rig rig;
static char dir[64], path[96];

static void quiet(enum log_level level, const char *line)
{
	(void)level, (void)line;
}

static void setup(void)
{
	rig_init(&rig);
	snprintf(dir, sizeof dir, "/tmp/evidence-trust-XXXXXX");
	ck_assert_ptr_nonnull(mkdtemp(dir));
	snprintf(path, sizeof path, "%s/trust.json", dir);
	log_set_sink(quiet);
}

static void teardown(void)
{
	char beside[112];

	unlink(path);
	snprintf(beside, sizeof beside, "%s.new", path);
	unlink(beside);
	rmdir(dir);
	rig_deinit(&rig);
}

static struct trust *reopen(void)
{
	struct trust *t = NULL;
	struct error err = {0};

	ck_assert_msg(trust_open(path, rig.root_envelope, strlen(rig.root_envelope), &t, &err) == 0,
		      "%s", err.text);
	return t;
}

/* The site certificate of that version; note makes a difference in content without one in meaning.
 */
static char *site_envelope(unsigned version, const char *note)
{
	json_t *json = rig_site_json(&rig);
	char *envelope;

	json_object_set_new(json, "version", json_integer(version));
	json_object_set_new(json, "note", json_string(note));
	envelope = rig_sign_site(&rig, json);
	json_decref(json);
	return envelope;
}

static char *snapshot_envelope(unsigned version, const char *note)
{
	json_t *json = rig_revocations_json(&rig);
	char *envelope;

	json_object_set_new(json, "version", json_integer(version));
	json_object_set_new(json, "note", json_string(note));
	envelope = rig_sign_revocations(&rig, json);
	json_decref(json);
	return envelope;
}

static int accept_site(struct trust *t, unsigned version, const char *note)
{
	char *envelope = site_envelope(version, note);
	struct site_document *d = NULL;
	int rc = trust_accept_site(t, envelope, strlen(envelope), &d, NULL);

	site_free(d);
	free(envelope);
	return rc;
}

static int accept_snapshot(struct trust *t, unsigned version, const char *note)
{
	char *envelope = snapshot_envelope(version, note);
	struct revocations_document *d = NULL;
	int rc = trust_accept_revocations(t, envelope, strlen(envelope), &d, NULL);

	revocations_free(d);
	free(envelope);
	return rc;
}

static char *root_envelope_of(unsigned version, const char *note)
{
	json_t *json = rig_root_json(&rig);
	char *envelope;

	json_object_set_new(json, "version", json_integer(version));
	json_object_set_new(json, "note", json_string(note));
	envelope = rig_sign(&rig, TYPE_ROOT, json,
			    (const char *const[]){DEMO_AUTHORITY, DEMO_AUDITOR, NULL});
	json_decref(json);
	return envelope;
}

/* -- trust ------------------------------------------------------------------------------------ */

START_TEST(an_older_document_is_refused_after_a_restart_too)
{
	struct trust *t = reopen();

	ck_assert_int_eq(accept_site(t, 3, "a"), 0);
	ck_assert_int_eq(accept_site(t, 3, "a"), 0);
	ck_assert_int_eq(accept_site(t, 2, "a"), -E_ROLLBACK);
	ck_assert_int_eq(accept_snapshot(t, 41, "a"), 0);
	trust_close(t);
	t = reopen();
	ck_assert_int_eq(accept_site(t, 2, "a"), -E_ROLLBACK);
	ck_assert_int_eq(accept_snapshot(t, 40, "a"), -E_ROLLBACK);
	ck_assert_int_eq(accept_site(t, 3, "a"), 0);
	ck_assert_int_eq(accept_site(t, 5, "a"), 0);
	trust_close(t);
	t = reopen();
	ck_assert_int_eq(accept_site(t, 4, "a"), -E_ROLLBACK);
	ck_assert_int_eq(accept_site(t, 5, "a"), 0);
	ck_assert(!trust_quarantined(t, "par"));
	trust_close(t);
}
END_TEST

START_TEST(two_contents_under_one_version_are_both_refused)
{
	struct trust *t = reopen();

	ck_assert_int_eq(accept_site(t, 3, "a"), 0);
	ck_assert_int_eq(accept_site(t, 3, "b"), -E_ROLLBACK);
	ck_assert(trust_quarantined(t, "par"));
	ck_assert(!trust_quarantined(t, "lyo"));
	ck_assert_int_eq(accept_site(t, 3, "a"), -E_ROLLBACK);
	trust_close(t);
	t = reopen();
	ck_assert(trust_quarantined(t, "par"));
	ck_assert_int_eq(accept_site(t, 3, "a"), -E_ROLLBACK);
	ck_assert_int_eq(accept_site(t, 3, "b"), -E_ROLLBACK);
	ck_assert_int_eq(accept_site(t, 4, "a"), 0);
	ck_assert(!trust_quarantined(t, "par"));
	ck_assert_int_eq(accept_snapshot(t, 41, "a"), 0);
	ck_assert_int_eq(accept_snapshot(t, 41, "b"), -E_ROLLBACK);
	ck_assert(trust_quarantined(t, "lyo"));
	ck_assert_int_eq(accept_snapshot(t, 42, "b"), 0);
	ck_assert(!trust_quarantined(t, "lyo"));
	trust_close(t);
}
END_TEST

START_TEST(an_unsigned_document_leaves_no_trace)
{
	struct trust *t = reopen();
	json_t *json = rig_site_json(&rig);
	char *envelope =
	    rig_sign(&rig, TYPE_SITE, json, (const char *const[]){DEMO_AUTHORITY, NULL});
	struct site_document *d = NULL;

	rig_set(json, "version", "9");
	ck_assert_int_eq(trust_accept_site(t, envelope, strlen(envelope), &d, NULL),
			 -E_BAD_SIGNATURE);
	ck_assert_int_eq(accept_site(t, 3, "a"), 0);
	free(envelope);
	json_decref(json);
	trust_close(t);
}
END_TEST

START_TEST(policies_have_versions_of_their_own)
{
	struct trust *t = reopen();
	struct policy_document *d = NULL;
	char *envelope = NULL;

	ck_assert_int_eq(demo_policy(&rig.demo, "dev", &envelope, NULL), 0);
	ck_assert_int_eq(trust_accept_policy(t, envelope, strlen(envelope), NULL, &d, NULL, NULL),
			 0);
	ck_assert_str_eq(policy_name(d), "dev");
	policy_free(d);
	free(envelope);
	ck_assert_int_eq(demo_policy(&rig.demo, "cloud-de-confiance", &envelope, NULL), 0);
	ck_assert_int_eq(trust_accept_policy(t, envelope, strlen(envelope), NULL, &d, NULL, NULL),
			 0);
	policy_free(d);
	free(envelope);
	trust_close(t);
}
END_TEST

START_TEST(a_new_root_needs_the_old_one)
{
	struct trust *t = reopen();
	char *second = root_envelope_of(2, "a"), *other_second = root_envelope_of(2, "b");
	char *first_again = root_envelope_of(1, "another");
	struct rig stranger = rig;
	char *foreign;

	ck_assert_int_eq(trust_accept_root(t, second, strlen(second), NULL), 0);
	ck_assert_uint_eq(root_version(trust_root(t)), 2);
	ck_assert_int_eq(trust_accept_root(t, second, strlen(second), NULL), 0);
	ck_assert_int_eq(trust_accept_root(t, other_second, strlen(other_second), NULL),
			 -E_ROLLBACK);
	ck_assert_int_eq(trust_accept_root(t, rig.root_envelope, strlen(rig.root_envelope), NULL),
			 -E_ROLLBACK);
	/* A third root with new keys, which the old ones did not sign. */
	ck_assert_int_eq(demo_init(&stranger.demo, NULL, NULL), 0);
	stranger.demo.cluster = rig.demo.cluster;
	ck_assert_int_eq(demo_root(&stranger.demo, 3, RIG_NOW, RIG_NOW + RIG_DAY, &foreign, NULL),
			 0);
	ck_assert_int_eq(trust_accept_root(t, foreign, strlen(foreign), NULL), -E_BAD_SIGNATURE);
	trust_close(t);
	/* The operator's file still holds the first root: the newer one stays in force. */
	t = reopen();
	ck_assert_uint_eq(root_version(trust_root(t)), 2);
	trust_close(t);
	ck_assert_int_eq(trust_open(path, first_again, strlen(first_again), &t, NULL), -E_ROLLBACK);
	ck_assert_int_eq(trust_open(path, other_second, strlen(other_second), &t, NULL),
			 -E_ROLLBACK);
	ck_assert_int_eq(trust_open(path, foreign, strlen(foreign), &t, NULL), -E_BAD_SIGNATURE);
	ck_assert_int_eq(trust_open(path, NULL, 0, &t, NULL), 0);
	ck_assert_uint_eq(root_version(trust_root(t)), 2);
	trust_close(t);
	demo_deinit(&stranger.demo);
	free(foreign);
	free(first_again);
	free(other_second);
	free(second);
}
END_TEST

/* The authority's key is replaced: the new root is signed by the old threshold and by the new one.
 */
START_TEST(keys_are_replaced_by_both_thresholds)
{
	struct trust *t = reopen();
	json_t *json = rig_root_json(&rig);
	struct signing_key *keys[3] = {NULL, demo_key(&rig.demo, DEMO_AUDITOR),
				       demo_key(&rig.demo, DEMO_AUTHORITY)};
	char *pem, *text, *envelope = NULL;
	struct error err = {0};

	ck_assert_int_eq(signing_key_generate("authority-2", &keys[0], NULL), 0);
	pem = signing_key_public_pem(keys[0]);
	json_object_set_new(json_object_get(json, "keys"), "authority-2",
			    json_pack("{s:s, s:s}", "alg", "ed25519", "public", pem));
	rig_set(json, "version", "2");
	rig_set(json, "roles.root.keys", "[\"authority-2\", \"auditor-1\"]");
	rig_set(json, "roles.authority.keys", "[\"authority-2\"]");
	rig_set(json, "keys.authority-1", NULL);
	text = json_dumps(json, 0);
	/* New threshold only; old threshold only; both. */
	ck_assert_int_eq(dsse_sign(TYPE_ROOT, text, strlen(text), keys, 2, &envelope, NULL), 0);
	ck_assert_int_eq(trust_accept_root(t, envelope, strlen(envelope), &err), -E_BAD_SIGNATURE);
	free(envelope);
	ck_assert_int_eq(dsse_sign(TYPE_ROOT, text, strlen(text), keys + 1, 2, &envelope, NULL), 0);
	ck_assert_int_eq(trust_accept_root(t, envelope, strlen(envelope), &err), -E_BAD_SIGNATURE);
	free(envelope);
	ck_assert_int_eq(dsse_sign(TYPE_ROOT, text, strlen(text), keys, 3, &envelope, NULL), 0);
	ck_assert_msg(trust_accept_root(t, envelope, strlen(envelope), &err) == 0, "%s", err.text);
	/* From now on the old authority signs nothing. */
	ck_assert_int_eq(accept_site(t, 3, "a"), -E_BAD_SIGNATURE);
	free(envelope);
	free(text);
	free(pem);
	signing_key_free(keys[0]);
	json_decref(json);
	trust_close(t);
}
END_TEST

/* Whoever has stolen the authority's key signs a version that nobody can go beyond. The root that
 * replaces the key makes it forgotten; what other keys signed is not. */
START_TEST(what_a_stolen_key_signed_is_forgotten)
{
	struct trust *t = reopen();
	struct demo old = rig.demo, next = rig.demo;
	char *root, *same_keys;
	struct error err = {0};

	ck_assert_int_eq(signing_key_generate("authority-2", &next.keys[0], NULL), 0);
	ck_assert_int_eq(accept_site(t, 999, "stolen"), 0);
	ck_assert_int_eq(accept_snapshot(t, 999, "stolen"), 0);
	ck_assert_int_eq(
	    demo_root_after(&old, &old, 2, RIG_NOW, RIG_NOW + RIG_DAY, &same_keys, &err), 0);
	ck_assert_int_eq(trust_accept_root(t, same_keys, strlen(same_keys), &err), 0);
	ck_assert_int_eq(accept_site(t, 4, "new"), -E_ROLLBACK);
	ck_assert_int_eq(demo_root_after(&old, &next, 3, RIG_NOW, RIG_NOW + RIG_DAY, &root, &err),
			 0);
	ck_assert_msg(trust_accept_root(t, root, strlen(root), &err) == 0, "%s", err.text);
	ck_assert_int_eq(accept_site(t, 1000, "stolen"), -E_BAD_SIGNATURE);
	trust_close(t);
	t = reopen();
	ck_assert_uint_eq(root_version(trust_root(t)), 3);
	{
		char *site = NULL, *snapshot = NULL;
		const struct demo_entry entry = {"par", 4, 0};
		struct site_document *d = NULL;
		struct revocations_document *r = NULL;

		ck_assert_int_eq(
		    demo_site(&next, "par", 4, RIG_NOW, RIG_NOW + RIG_DAY, &site, &err), 0);
		ck_assert_int_eq(trust_accept_site(t, site, strlen(site), &d, &err), 0);
		ck_assert_int_eq(demo_revocations(&next, 42, RIG_NOW, RIG_NOW + RIG_DAY, &entry, 1,
						  &snapshot, &err),
				 0);
		ck_assert_int_eq(trust_accept_revocations(t, snapshot, strlen(snapshot), &r, &err),
				 0);
		site_free(d);
		revocations_free(r);
		free(site);
		free(snapshot);
	}
	trust_close(t);
	signing_key_free(next.keys[0]);
	free(root);
	free(same_keys);
}
END_TEST

START_TEST(without_any_root_there_is_no_trust)
{
	struct trust *t = NULL;

	ck_assert_int_eq(trust_open(path, NULL, 0, &t, NULL), -ENOENT);
	ck_assert_int_eq(access(path, F_OK), -1);
	ck_assert_int_eq(trust_open(NULL, rig.root_envelope, strlen(rig.root_envelope), &t, NULL),
			 0);
	ck_assert_int_eq(accept_site(t, 3, "a"), 0);
	ck_assert_int_eq(accept_site(t, 2, "a"), -E_ROLLBACK);
	trust_close(t);
}
END_TEST

/* Every byte of the file in turn is changed, and the file is cut at every length: it is refused, or
 * says the same. */
START_TEST(a_damaged_state_is_never_a_fresh_one)
{
	struct trust *t = reopen();
	char *data = NULL, *damaged;
	size_t size = 0;

	ck_assert_int_eq(accept_site(t, 3, "a"), 0);
	trust_close(t);
	ck_assert_int_eq(file_read_whole(path, 1 << 20, &data, &size, NULL), 0);
	damaged = malloc(size);
	for (size_t i = 0; i < 2 * size; i += 13) {
		size_t at = i % size;
		struct error err = {0};
		int rc;

		memcpy(damaged, data, size);
		damaged[at] ^= 0x15;
		ck_assert_int_eq(file_replace(path, damaged, i < size ? size : at, 0600, NULL), 0);
		rc = trust_open(path, rig.root_envelope, strlen(rig.root_envelope), &t, &err);
		if (rc == 0) { /* white space between members */
			ck_assert_int_eq(accept_site(t, 2, "a"), -E_ROLLBACK);
			trust_close(t);
		} else {
			ck_assert_msg(rc == -E_CORRUPT, "byte %zu: %d %s", at, rc, err.text);
		}
	}
	free(damaged);
	free(data);
}
END_TEST

/* What the damage above may have missed: a version that was lowered with care. */
START_TEST(a_lowered_version_is_noticed)
{
	struct trust *t = reopen();
	char *data = NULL, *at;
	size_t size = 0;

	ck_assert_int_eq(accept_site(t, 3, "a"), 0);
	trust_close(t);
	ck_assert_int_eq(file_read_whole(path, 1 << 20, &data, &size, NULL), 0);
	at = strstr(data, "\"version\": 3");
	ck_assert_ptr_nonnull(at);
	at[strlen("\"version\": ")] = '2';
	ck_assert_int_eq(file_replace(path, data, size, 0600, NULL), 0);
	ck_assert_int_eq(trust_open(path, rig.root_envelope, strlen(rig.root_envelope), &t, NULL),
			 -E_CORRUPT);
	free(data);
}
END_TEST

START_TEST(a_state_that_cannot_be_read_is_not_a_fresh_one)
{
	struct trust *t = NULL;

	/* A link to itself. */
	ck_assert_int_eq(symlink(path, path), 0);
	ck_assert_int_eq(trust_open(path, rig.root_envelope, strlen(rig.root_envelope), &t, NULL),
			 -ELOOP);
	unlink(path);
	ck_assert_int_eq(file_replace(path, "", 0, 0600, NULL), 0);
	ck_assert_int_eq(trust_open(path, rig.root_envelope, strlen(rig.root_envelope), &t, NULL),
			 -E_CORRUPT);
}
END_TEST

/* The bytes are durable before the name points to them, and then the name. */
START_TEST(a_save_is_synced_in_order)
{
	struct trust *t = reopen();

	memset(io_order, 0, sizeof io_order);
	ck_assert_int_eq(accept_site(t, 3, "a"), 0);
	ck_assert_str_eq(io_order, "wfrf");
	trust_close(t);
}
END_TEST

/* Every call that makes the file durable fails once: what was in force is in force, before and
 * after a restart, and the same document is accepted when the disk works again. */
START_TEST(a_save_that_fails_changes_nothing)
{
	unsigned n;

	for (n = 1;; n++) {
		struct trust *t = reopen();
		int rc;

		unlink(path);
		trust_close(t);
		t = reopen();
		ck_assert_int_eq(accept_site(t, 3, "a"), 0);
		io_left = n;
		io_failed = false;
		rc = accept_site(t, 4, "a");
		io_left = 0;
		if (!io_failed) {
			ck_assert_int_eq(rc, 0);
			trust_close(t);
			break;
		}
		ck_assert_int_lt(rc, 0);
		ck_assert_int_eq(accept_site(t, 3, "a"), 0); /* not a rollback: 4 is not in force */
		trust_close(t);
		t = reopen(); /* the file holds 3, or 4 if it was the directory that could not be
				 synced */
		ck_assert_int_eq(accept_site(t, 2, "a"), -E_ROLLBACK);
		ck_assert_int_eq(accept_site(t, 4, "a"), 0);
		trust_close(t);
	}
	ck_assert_uint_gt(n, 4);
}
END_TEST

/* Of our own memory: jansson 2.14 does not survive the loss of some of its. */
START_TEST(without_memory_nothing_is_accepted_and_nothing_leaks)
{
	char *site = site_envelope(4, "a"), *second = root_envelope_of(2, "a");
	unsigned n, refused = 0;

	for (n = 1;; n++) {
		struct trust *t = NULL;
		struct site_document *d = NULL;
		struct error err;
		int rc;

		alloc_left = n;
		alloc_failed = false;
		rc = trust_open(NULL, rig.root_envelope, strlen(rig.root_envelope), &t, &err);
		if (rc == 0)
			rc = trust_accept_site(t, site, strlen(site), &d, &err);
		if (rc == 0)
			rc = trust_accept_root(t, second, strlen(second), &err);
		alloc_left = 0;
		ck_assert_msg(!alloc_failed || rc < 0, "allocation %u failed, and nobody noticed",
			      n);
		refused += rc < 0;
		site_free(d);
		trust_close(t);
		if (!alloc_failed) {
			ck_assert_int_eq(rc, 0);
			break;
		}
	}
	ck_assert_uint_gt(refused, 15);
	free(site);
	free(second);
}
END_TEST

/* -- permits ---------------------------------------------------------------------------------- */

#define BOOT_NOW ((uint64_t)5000 * NS_PER_S)
#define SECOND	 ((int64_t)NS_PER_S)

struct permit_parts {
	Pave__V1__Permit permit;
	Pave__V1__PermitNode node[2];
	Pave__V1__PermitNode *nodes[2];
	uint8_t digest[32];
};

static void permit_init(struct permit_parts *p)
{
	pave__v1__permit__init(&p->permit);
	for (size_t i = 0; i < 2; i++) {
		pave__v1__permit_node__init(&p->node[i]);
		p->node[i].node = (char *)(i == 0 ? "n1" : "n2");
		p->node[i].site = (char *)(i == 0 ? "par" : "lyo");
		p->node[i].site_version = 3 + i;
		p->nodes[i] = &p->node[i];
	}
	memset(p->digest, 7, sizeof p->digest);
	p->permit.cluster.data = rig.demo.cluster.bytes;
	p->permit.cluster.len = 16;
	p->permit.volume = 9;
	p->permit.generation = 4;
	p->permit.serial = 2;
	p->permit.policy_digest.data = p->digest;
	p->permit.policy_digest.len = sizeof p->digest;
	p->permit.holder = (char *)"host-1";
	p->permit.holder_site = (char *)"par";
	p->permit.map_version = 6;
	p->permit.n_nodes = 2;
	p->permit.nodes = p->nodes;
	p->permit.issued_at = RIG_NOW;
	p->permit.expires_at = RIG_NOW + 10 * SECOND;
}

/* Signed as it is, without permit_make's checks, so that permit_open is what refuses. */
static int open_raw(const struct permit_parts *p, const char *keyid, int64_t wall,
		    struct permit *ret)
{
	uint8_t data[4096];
	size_t size = pave__v1__permit__pack(&p->permit, data);
	Pave__V1__Signed *s = NULL;
	struct error err = {0};
	int rc;

	ck_assert_uint_le(size, sizeof data);
	ck_assert_int_eq(signed_make(TYPE_PERMIT, data, size, demo_key(&rig.demo, keyid), &s, NULL),
			 0);
	rc = permit_open(s, rig.root, BOOT_NOW, wall, ret, &err);
	pave__v1__signed__free_unpacked(s, NULL);
	return rc;
}

START_TEST(a_permit_becomes_a_deadline)
{
	struct permit_parts p;
	struct permit permit = {0};
	struct gate gate = {0};

	permit_init(&p);
	/* One second after it was issued there are nine left, less the clock bound. */
	ck_assert_int_eq(open_raw(&p, DEMO_PLACEMENT, RIG_NOW + SECOND, &permit), 0);
	ck_assert_uint_eq(permit.deadline_ns, BOOT_NOW + 8500 * NS_PER_MS);
	ck_assert_uint_eq(permit.serve_after_ns, 0);
	ck_assert_uint_eq(permit.volume, 9);
	ck_assert_uint_eq(permit.generation, 4);
	ck_assert_str_eq(permit.holder, "host-1");
	ck_assert_uint_eq(permit.node_count, 2);
	ck_assert_uint_eq(permit_find_node(&permit, "n2")->site_version, 4);
	ck_assert_ptr_null(permit_find_node(&permit, "n3"));
	gate.deadline_ns = permit.deadline_ns;
	ck_assert(gate_open(&gate, permit.deadline_ns - 1));
	ck_assert(!gate_open(&gate, permit.deadline_ns));
	permit_deinit(&permit);
	permit_deinit(&permit);
}
END_TEST

START_TEST(deadlines_keep_the_clock_bound)
{
	static const struct {
		int64_t wall_ms; /* after RIG_NOW */
		int rc;
		uint64_t left_ms;
	} cases[] = {
	    {0, 0, 9500},
	    {-500, 0, 10000},
	    {-501, -E_CLOCK_SKEW, 0},
	    {9499, 0, 1},
	    {9500, -E_PERMIT_EXPIRED, 0},
	    {10000, -E_PERMIT_EXPIRED, 0},
	    {100000, -E_PERMIT_EXPIRED, 0},
	    {-3600000, -E_CLOCK_SKEW, 0},
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct permit_parts p;
		struct permit permit = {0};

		permit_init(&p);
		ck_assert_msg(open_raw(&p, DEMO_PLACEMENT,
				       RIG_NOW + cases[i].wall_ms * (int64_t)NS_PER_MS,
				       &permit) == cases[i].rc,
			      "%lld ms", (long long)cases[i].wall_ms);
		ck_assert_uint_eq(permit.deadline_ns,
				  cases[i].rc == 0 ? BOOT_NOW + cases[i].left_ms * NS_PER_MS : 0);
		permit_deinit(&permit);
	}
}
END_TEST

START_TEST(nothing_is_served_before_the_older_permit_ran_out)
{
	static const struct {
		int64_t after_ms; /* serve_after, after RIG_NOW */
		uint64_t wait_ms;
	} cases[] = {{4000, 4500}, {0, 500}, {-499, 1}, {-500, 0}, {-5000, 0}};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct permit_parts p;
		struct permit permit = {0};

		permit_init(&p);
		p.permit.serve_after = RIG_NOW + cases[i].after_ms * (int64_t)NS_PER_MS;
		ck_assert_int_eq(open_raw(&p, DEMO_PLACEMENT, RIG_NOW, &permit), 0);
		ck_assert_uint_eq(permit.serve_after_ns,
				  cases[i].wait_ms == 0 ? 0
							: BOOT_NOW + cases[i].wait_ms * NS_PER_MS);
		permit_deinit(&permit);
	}
}
END_TEST

/* A host's clock is not compared with the driver's: one that goes before it must not shorten the
 * wait. The permit was issued before it was read, and that is enough to know. */
START_TEST(a_clock_that_goes_before_does_not_end_the_wait)
{
	static const int64_t ahead_ms[] = {0, 500, 2000, 9000};

	for (size_t i = 0; i < ARRAY_SIZE(ahead_ms); i++) {
		struct permit_parts p;
		struct permit permit = {0};

		permit_init(&p);
		p.permit.serve_after = RIG_NOW + 9 * SECOND;
		ck_assert_int_eq(open_raw(&p, DEMO_PLACEMENT,
					  RIG_NOW + ahead_ms[i] * (int64_t)NS_PER_MS, &permit),
				 0);
		ck_assert_uint_ge(permit.serve_after_ns, BOOT_NOW + 9 * NS_PER_S);
		permit_deinit(&permit);
	}
}
END_TEST

START_TEST(a_permit_ends_with_its_root)
{
	struct permit_parts p;
	struct permit permit = {0};
	int64_t end = root_not_after(rig.root);

	permit_init(&p);
	p.permit.issued_at = end - 3 * SECOND;
	p.permit.expires_at = end + 7 * SECOND;
	ck_assert_int_eq(open_raw(&p, DEMO_PLACEMENT, end - 3 * SECOND, &permit), 0);
	ck_assert_uint_eq(permit.deadline_ns, BOOT_NOW + 2500 * NS_PER_MS);
	permit_deinit(&permit);
	ck_assert_int_eq(open_raw(&p, DEMO_PLACEMENT, end, &permit), -E_STALE_EVIDENCE);
}
END_TEST

START_TEST(permits_are_checked_before_they_are_believed)
{
	struct permit_parts p;
	struct permit permit = {0};

#define REFUSED(code, change)                                                                      \
	do {                                                                                       \
		permit_init(&p);                                                                   \
		change;                                                                            \
		ck_assert_int_eq(open_raw(&p, DEMO_PLACEMENT, RIG_NOW, &permit), code);            \
	} while (0)
	REFUSED(-E_BAD_DOCUMENT, p.permit.volume = 0);
	REFUSED(-E_BAD_DOCUMENT, p.permit.generation = 0);
	REFUSED(-E_BAD_DOCUMENT, p.permit.generation = GENERATION_MAX + 1);
	REFUSED(-E_BAD_DOCUMENT, p.permit.policy_digest.len = 31);
	REFUSED(-E_BAD_DOCUMENT, p.permit.holder = (char *)"");
	REFUSED(-E_BAD_DOCUMENT, p.permit.holder_site = (char *)"../par");
	REFUSED(-E_BAD_DOCUMENT, p.permit.n_nodes = 0);
	REFUSED(-E_BAD_DOCUMENT, p.node[1].node = (char *)"n1");
	REFUSED(-E_BAD_DOCUMENT, p.node[1].site_version = 0);
	REFUSED(-E_BAD_DOCUMENT, p.permit.expires_at = p.permit.issued_at);
	REFUSED(-E_BAD_DOCUMENT, p.permit.issued_at = -1);
	REFUSED(-E_BAD_DOCUMENT, p.permit.expires_at = RIG_NOW + 60 * SECOND + 1);
	REFUSED(-E_BAD_DOCUMENT, p.permit.expires_at = INT64_MAX);
	REFUSED(-E_BAD_DOCUMENT, p.permit.serve_after = INT64_MAX);
	REFUSED(-E_BAD_DOCUMENT, p.permit.serve_after = -1);
	REFUSED(-E_BAD_DOCUMENT, p.permit.cluster.len = 15);
	REFUSED(-E_WRONG_CLUSTER, p.permit.cluster.data = p.digest);
#undef REFUSED
	permit_init(&p);
	p.permit.expires_at = RIG_NOW + 60 * SECOND;
	ck_assert_int_eq(open_raw(&p, DEMO_PLACEMENT, RIG_NOW, &permit), 0);
	permit_deinit(&permit);
	ck_assert_int_eq(open_raw(&p, DEMO_AUTHORITY, RIG_NOW, &permit), -E_BAD_SIGNATURE);
	ck_assert_int_eq(open_raw(&p, DEMO_PLACEMENT, INT64_MIN, &permit), -E_CLOCK_SKEW);
}
END_TEST

START_TEST(a_permit_that_was_touched_is_refused)
{
	struct permit_parts p;
	struct permit permit = {0};
	Pave__V1__Signed *s = NULL;
	struct error err;

	permit_init(&p);
	ck_assert_int_eq(permit_make(&p.permit, demo_key(&rig.demo, DEMO_PLACEMENT), &s, &err), 0);
	ck_assert_int_eq(permit_open(s, rig.root, BOOT_NOW, RIG_NOW, &permit, &err), 0);
	permit_deinit(&permit);
	for (size_t i = 0; i < s->payload.len; i++) {
		s->payload.data[i] ^= 1;
		ck_assert_int_eq(permit_open(s, rig.root, BOOT_NOW, RIG_NOW, &permit, &err),
				 -E_BAD_SIGNATURE);
		s->payload.data[i] ^= 1;
	}
	for (size_t i = 0; i < s->signatures[0]->sig.len; i++) {
		s->signatures[0]->sig.data[i] ^= 0x80;
		ck_assert_int_eq(permit_open(s, rig.root, BOOT_NOW, RIG_NOW, &permit, &err),
				 -E_BAD_SIGNATURE);
		s->signatures[0]->sig.data[i] ^= 0x80;
	}
	/* A lease is no permit, whatever its bytes are. */
	free(s->payload_type);
	s->payload_type = strdup(TYPE_LEASE);
	ck_assert_int_eq(permit_open(s, rig.root, BOOT_NOW, RIG_NOW, &permit, &err),
			 -E_BAD_DOCUMENT);
	ck_assert_int_eq(permit_open(NULL, rig.root, BOOT_NOW, RIG_NOW, &permit, &err),
			 -E_BAD_SIGNATURE);
	pave__v1__signed__free_unpacked(s, NULL);
	p.permit.volume = 0;
	ck_assert_int_eq(permit_make(&p.permit, demo_key(&rig.demo, DEMO_PLACEMENT), &s, &err),
			 -E_BAD_DOCUMENT);
}
END_TEST

START_TEST(a_lease_answers_its_own_request)
{
	Pave__V1__Lease m = PAVE__V1__LEASE__INIT;
	Pave__V1__Signed *s = NULL;
	uint8_t nonce[16] = "fifteen letters";
	struct lease lease = {0};
	struct error err;

	m.cluster.data = rig.demo.cluster.bytes;
	m.cluster.len = 16;
	m.node = (char *)"n1";
	m.site = (char *)"par";
	m.site_version = 3;
	m.revocations_version = 41;
	m.issued_at = RIG_NOW;
	m.expires_at = RIG_NOW + 10 * SECOND;
	m.nonce.data = nonce;
	m.nonce.len = sizeof nonce;
	ck_assert_int_eq(lease_make(&m, demo_key(&rig.demo, DEMO_PLACEMENT), &s, &err), 0);
	ck_assert_int_eq(
	    lease_open(s, rig.root, nonce, sizeof nonce, BOOT_NOW, RIG_NOW, &lease, &err), 0);
	ck_assert_uint_eq(lease.deadline_ns, BOOT_NOW + 9500 * NS_PER_MS);
	ck_assert_str_eq(lease.site, "par");
	ck_assert_uint_eq(lease.revocations_version, 41);
	ck_assert_int_eq(
	    lease_open(s, rig.root, "sixteen letters", 16, BOOT_NOW, RIG_NOW, &lease, &err),
	    -E_BAD_DOCUMENT);
	ck_assert_int_eq(lease_open(s, rig.root, nonce, 15, BOOT_NOW, RIG_NOW, &lease, &err),
			 -E_BAD_DOCUMENT);
	ck_assert_int_eq(lease_open(s, rig.root, nonce, sizeof nonce, BOOT_NOW,
				    RIG_NOW + 10 * SECOND, &lease, &err),
			 -E_LEASE_EXPIRED);
	ck_assert_int_eq(
	    lease_open(s, rig.root, nonce, sizeof nonce, BOOT_NOW, RIG_NOW - SECOND, &lease, &err),
	    -E_CLOCK_SKEW);
	pave__v1__signed__free_unpacked(s, NULL);
	m.nonce.len = 0;
	ck_assert_int_eq(lease_make(&m, demo_key(&rig.demo, DEMO_PLACEMENT), &s, &err),
			 -E_BAD_DOCUMENT);
}
END_TEST

static void add_trust(Suite *s)
{
	TCase *tc = tcase_create("trust");

	tcase_set_timeout(tc, 100);
	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_add_test(tc, an_older_document_is_refused_after_a_restart_too);
	tcase_add_test(tc, two_contents_under_one_version_are_both_refused);
	tcase_add_test(tc, an_unsigned_document_leaves_no_trace);
	tcase_add_test(tc, policies_have_versions_of_their_own);
	tcase_add_test(tc, a_new_root_needs_the_old_one);
	tcase_add_test(tc, keys_are_replaced_by_both_thresholds);
	tcase_add_test(tc, what_a_stolen_key_signed_is_forgotten);
	tcase_add_test(tc, without_any_root_there_is_no_trust);
	tcase_add_test(tc, a_damaged_state_is_never_a_fresh_one);
	tcase_add_test(tc, a_lowered_version_is_noticed);
	tcase_add_test(tc, a_state_that_cannot_be_read_is_not_a_fresh_one);
	tcase_add_test(tc, a_save_is_synced_in_order);
	tcase_add_test(tc, a_save_that_fails_changes_nothing);
	tcase_add_test(tc, without_memory_nothing_is_accepted_and_nothing_leaks);
	suite_add_tcase(s, tc);
}

static void add_permits(Suite *s)
{
	TCase *tc = tcase_create("permits");

	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_add_test(tc, a_permit_becomes_a_deadline);
	tcase_add_test(tc, deadlines_keep_the_clock_bound);
	tcase_add_test(tc, nothing_is_served_before_the_older_permit_ran_out);
	tcase_add_test(tc, a_clock_that_goes_before_does_not_end_the_wait);
	tcase_add_test(tc, a_permit_ends_with_its_root);
	tcase_add_test(tc, permits_are_checked_before_they_are_believed);
	tcase_add_test(tc, a_permit_that_was_touched_is_refused);
	tcase_add_test(tc, a_lease_answers_its_own_request);
	suite_add_tcase(s, tc);
}

int main(void)
{
	Suite *s = suite_create("evidence trust");
	SRunner *sr = srunner_create(s);
	int failed;

	add_trust(s);
	add_permits(s);
	srunner_run_all(sr, CK_NORMAL);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed == 0 ? 0 : 1;
}
