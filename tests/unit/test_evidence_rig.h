/* For the tests of engine/evidence: a demo authority that is the same in every run, and documents
 * that differ from its own in the members that a case names. */
#ifndef TEST_EVIDENCE_RIG_H
#define TEST_EVIDENCE_RIG_H

#include <jansson.h>

#include "engine/evidence/demo.h"

/* 2026-11-23T10:00:00Z */
#define RIG_NOW	 ((int64_t)1795428000 * (int64_t)NS_PER_S)
#define RIG_HOUR ((int64_t)3600 * (int64_t)NS_PER_S)
#define RIG_DAY	 (24 * RIG_HOUR)

struct rig {
	struct demo demo;
	char *root_envelope;
	struct root_document *root;
};

void rig_init(struct rig *rig);
void rig_deinit(struct rig *rig);

/* The payload of the demo's document; the caller decrefs. The certificate is par's version 3, in
 * force from a day before RIG_NOW for 300 days; the snapshot is version 41, issued an hour before
 * RIG_NOW for a day, lists par 3 and lyo 1. */
json_t *rig_root_json(const struct rig *rig);
json_t *rig_site_json(const struct rig *rig);
json_t *rig_revocations_json(const struct rig *rig);
json_t *rig_policy_json(const char *preset);

/* Sets the member at path ("ownership.holders.1.capital_ppm") to the JSON in text; NULL removes it.
 * Appends when the last part is the length of a list. */
void rig_set(json_t *json, const char *path, const char *text);

/* Signs with the keys named (NULL at the end); malloc'd. */
char *rig_sign(const struct rig *rig, const char *type, const json_t *json,
	       const char *const *keyids);
char *rig_sign_site(const struct rig *rig, const json_t *json);
char *rig_sign_revocations(const struct rig *rig, const json_t *json);

#endif
