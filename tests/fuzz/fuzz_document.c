/* Fuzzes what people author: envelopes and the four documents, and the evaluation of whatever
 * parses. The first byte chooses; the rest is the text. What must hold: nothing but an error code
 * comes of nonsense, a document that parses evaluates, the verdict agrees with itself, and no
 * envelope that the demo authority didn't sign is believed. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/assert.h"
#include "engine/base/base64.h"
#include "engine/base/text.h"
#include "engine/evidence/demo.h"
#include "engine/evidence/evaluate.h"
#include "tests/fuzz/fuzz.h"

#define NOW ((int64_t)1795428000 * (int64_t)NS_PER_S)
#define DAY ((int64_t)86400 * (int64_t)NS_PER_S)

static struct demo demo;
static struct root_document *root;
static struct site_document *par;
static struct revocations_document *snapshot;
static struct policy_document *presets[3];

static void set_up(void)
{
	static const uint8_t seed[32] = "fuzz";
	static const struct demo_entry entries[] = {{"par", 1, 0}};
	char *text;

	if (root != NULL)
		return;
	INVARIANT(demo_init(&demo, seed, NULL) == 0);
	INVARIANT(demo_root(&demo, 1, NOW - DAY, NOW + DAY, &text, NULL) == 0);
	INVARIANT(root_open(text, strlen(text), NULL, &root, NULL) == 0);
	free(text);
	INVARIANT(demo_site(&demo, "par", 1, NOW - DAY, NOW + DAY, &text, NULL) == 0);
	INVARIANT(site_open(text, strlen(text), root, &par, NULL) == 0);
	free(text);
	INVARIANT(demo_revocations(&demo, 1, NOW - 1, NOW + DAY, entries, 1, &text, NULL) == 0);
	INVARIANT(revocations_open(text, strlen(text), root, &snapshot, NULL) == 0);
	free(text);
	for (size_t i = 0; i < 3; i++) {
		const char *preset = policy_preset(policy_preset_names()[i]);

		INVARIANT(policy_parse(preset, strlen(preset), &presets[i], NULL) == 0);
	}
}

static void judge(const struct site_document *site, const struct revocations_document *revocations,
		  const struct policy_document *policy)
{
	static struct verdict v;

	evaluate(site, revocations, policy, NOW, &v);
	INVARIANT(v.eligible == (v.failed_count == 0));
	INVARIANT(v.eligible ? v.until > NOW : v.until == 0);
	for (uint32_t i = 0; i < MIN(v.failed_count, FAILED_RULES_MAX); i++) {
		INVARIANT(v.failed[i].rule[0] != '\0' && v.failed[i].field[0] != '\0');
		INVARIANT(v.failed[i].value[0] != '\0' && v.failed[i].bound[0] != '\0');
	}
	evaluate_root(root, NOW, &v);
}

static void fuzz_site(const uint8_t *data, size_t size)
{
	struct site_document *d = NULL;
	struct error err;
	double lat, lon;

	if (site_parse(data, size, &d, &err) != 0)
		return;
	for (size_t i = 0; i < 3; i++)
		judge(d, snapshot, presets[i]);
	if (site_position(d, &lat, &lon))
		INVARIANT(distance_km(lat, lon, 48, 2) <= 20040);
	site_free(d);
}

static void fuzz_revocations(const uint8_t *data, size_t size)
{
	struct revocations_change change = {.issued_at = NOW,
					    .not_after = NOW + DAY,
					    .site = "par",
					    .withdraw = true,
					    .effective_from = NOW};
	struct revocations_document *d = NULL, *next = NULL;
	struct error err;
	char *text;

	if (revocations_parse(data, size, &d, &err) != 0)
		return;
	judge(par, d, presets[0]);
	/* What follows from it is well-formed too, unless it is full. */
	INVARIANT(revocations_amend(d, &change, &text, &err) == 0);
	if (revocations_parse(text, strlen(text), &next, &err) == 0)
		INVARIANT(revocations_withdrawn(next, "par", NOW, NULL, NULL));
	free(text);
	revocations_free(next);
	revocations_free(d);
}

static void fuzz_policy(const uint8_t *data, size_t size)
{
	struct policy_document *d = NULL;
	struct error err;

	if (policy_parse(data, size, &d, &err) != 0)
		return;
	INVARIANT(policy_replicas(d) >= 1 && policy_replicas(d) <= REPLICAS_MAX);
	judge(par, snapshot, d);
	policy_free(d);
}

static void fuzz_root(const uint8_t *data, size_t size)
{
	struct root_document *d = NULL;
	struct error err;

	if (root_parse(data, size, &d, &err) == 0)
		root_free(d);
}

static void fuzz_envelope(const uint8_t *data, size_t size)
{
	struct dsse_envelope *e = NULL;
	struct site_document *site = NULL;
	struct error err;
	uint8_t *bytes;
	size_t byte_count;
	char *text;

	if (dsse_parse(data, size, &e, &err) == 0) {
		dsse_verify_role(e, root, "authority", &err);
		dsse_free(e);
	}
	if (site_open(data, size, root, &site, &err) == 0) {
		INVARIANT(uuid_equal(site_cluster(site), &demo.cluster));
		site_free(site);
	}
	if (base64_decode((const char *)data, size, &bytes, &byte_count) == 0) {
		text = base64_encode(bytes, byte_count);
		INVARIANT(text != NULL && strlen(text) >= size && strlen(text) <= size + 2);
		free(text);
		free(bytes);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static void (*const kinds[])(const uint8_t *data, size_t size) = {
	    fuzz_site, fuzz_revocations, fuzz_policy, fuzz_root, fuzz_envelope};
	uint8_t *exact;

	if (size == 0)
		return 0;
	set_up();
	/* A copy of just this size, so that reading beyond it is seen. */
	exact = malloc(size - 1);
	if (size > 1)
		memcpy(exact, data + 1, size - 1);
	kinds[data[0] % (sizeof kinds / sizeof kinds[0])](exact, size - 1);
	free(exact);
	return 0;
}
