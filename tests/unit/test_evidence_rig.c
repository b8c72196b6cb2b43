/* test_evidence_rig: see test_evidence_rig.h. */
#include "test_evidence_rig.h"

#include <check.h>
#include <stdlib.h>
#include <string.h>

void rig_init(struct rig *rig)
{
	static const uint8_t seed[32] = "the same authority in every run";
	struct error err = {0};

	ck_assert_int_eq(demo_init(&rig->demo, seed, &err), 0);
	ck_assert_int_eq(demo_root(&rig->demo, 1, RIG_NOW - RIG_DAY, RIG_NOW + 700 * RIG_DAY,
				   &rig->root_envelope, &err),
			 0);
	rig->root = NULL;
	ck_assert_msg(
	    root_open(rig->root_envelope, strlen(rig->root_envelope), NULL, &rig->root, &err) == 0,
	    "%s", err.text);
}

void rig_deinit(struct rig *rig)
{
	root_free(rig->root);
	free(rig->root_envelope);
	demo_deinit(&rig->demo);
}

/* Takes the envelope. */
static json_t *payload_json(char *envelope)
{
	struct dsse_envelope *e = NULL;
	const void *payload;
	size_t size;
	json_t *json;

	ck_assert_int_eq(dsse_parse(envelope, strlen(envelope), &e, NULL), 0);
	payload = dsse_payload(e, &size);
	json = json_loadb(payload, size, 0, NULL);
	ck_assert_ptr_nonnull(json);
	dsse_free(e);
	free(envelope);
	return json;
}

json_t *rig_root_json(const struct rig *rig)
{
	return payload_json(strdup(rig->root_envelope));
}

json_t *rig_site_json(const struct rig *rig)
{
	char *envelope = NULL;

	ck_assert_int_eq(demo_site(&rig->demo, "par", 3, RIG_NOW - RIG_DAY, RIG_NOW + 299 * RIG_DAY,
				   &envelope, NULL),
			 0);
	return payload_json(envelope);
}

json_t *rig_revocations_json(const struct rig *rig)
{
	static const struct demo_entry entries[] = {{"par", 3, 0}, {"lyo", 1, 0}};
	char *envelope = NULL;

	ck_assert_int_eq(demo_revocations(&rig->demo, 41, RIG_NOW - RIG_HOUR,
					  RIG_NOW + 23 * RIG_HOUR, entries, ARRAY_SIZE(entries),
					  &envelope, NULL),
			 0);
	return payload_json(envelope);
}

json_t *rig_policy_json(const char *preset)
{
	json_t *json = json_loads(policy_preset(preset), 0, NULL);

	ck_assert_ptr_nonnull(json);
	return json;
}

static json_t *step(json_t *json, const char *name)
{
	json_t *next = json_is_array(json) ? json_array_get(json, strtoul(name, NULL, 10))
					   : json_object_get(json, name);

	ck_assert_msg(next != NULL, "no member %s", name);
	return next;
}

void rig_set(json_t *json, const char *path, const char *text)
{
	char *copy = strdup(path), *name = copy, *dot;
	json_t *value = NULL;
	int rc;

	while ((dot = strchr(name, '.')) != NULL) {
		*dot = '\0';
		json = step(json, name);
		name = dot + 1;
	}
	if (text != NULL) {
		value = json_loads(text, JSON_DECODE_ANY, NULL);
		ck_assert_msg(value != NULL, "not JSON: %s", text);
	}
	if (text == NULL)
		rc = json_object_del(json, name);
	else if (!json_is_array(json))
		rc = json_object_set_new(json, name, value);
	else if (strtoul(name, NULL, 10) == json_array_size(json))
		rc = json_array_append_new(json, value);
	else
		rc = json_array_set_new(json, strtoul(name, NULL, 10), value);
	ck_assert_msg(rc == 0, "%s could not be set", path);
	free(copy);
}

char *rig_sign(const struct rig *rig, const char *type, const json_t *json,
	       const char *const *keyids)
{
	char *text = json_dumps(json, JSON_INDENT(2));
	struct signing_key *keys[SIGNATURES_MAX];
	char *envelope = NULL;
	size_t count = 0;

	for (; *keyids != NULL; keyids++)
		keys[count++] = demo_key(&rig->demo, *keyids);
	ck_assert_int_eq(dsse_sign(type, text, strlen(text), keys, count, &envelope, NULL), 0);
	free(text);
	return envelope;
}

char *rig_sign_site(const struct rig *rig, const json_t *json)
{
	return rig_sign(rig, TYPE_SITE, json,
			(const char *const[]){DEMO_AUTHORITY, DEMO_AUDITOR, NULL});
}

char *rig_sign_revocations(const struct rig *rig, const json_t *json)
{
	return rig_sign(rig, TYPE_REVOCATIONS, json, (const char *const[]){DEMO_AUTHORITY, NULL});
}
