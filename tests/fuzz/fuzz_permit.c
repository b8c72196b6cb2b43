/* Fuzzes machine evidence. The first byte chooses: a signed message as it comes from the wire (then
 * nothing of it is believed, since no placement key signed it), or the payload of a permit or lease
 * that a placement key did sign (then whatever is believed is within its bounds). */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/assert.h"
#include "engine/base/text.h"
#include "engine/evidence/demo.h"
#include "engine/evidence/permit.h"
#include "tests/fuzz/fuzz.h"

#define NOW	 ((int64_t)1795428000 * (int64_t)NS_PER_S)
#define DAY	 ((int64_t)86400 * (int64_t)NS_PER_S)
#define BOOT_NOW (1000 * NS_PER_S)

static struct demo demo;
static struct root_document *root;
static const uint8_t nonce[4] = {1, 2, 3, 4};

static void set_up(void)
{
	/* Cluster and keys follow from it, so the inputs that are kept stay good. */
	static const uint8_t seed[32] = "fuzz";
	char *text;

	if (root != NULL)
		return;
	INVARIANT(demo_init(&demo, seed, NULL) == 0);
	INVARIANT(demo_root(&demo, 1, NOW - DAY, NOW + DAY, &text, NULL) == 0);
	INVARIANT(root_open(text, strlen(text), NULL, &root, NULL) == 0);
	free(text);
}

static void fuzz_wire(const uint8_t *data, size_t size)
{
	Pave__V1__Signed *s = pave__v1__signed__unpack(NULL, size, data);
	struct permit permit = {0};
	struct lease lease = {0};
	struct error err;

	if (s == NULL)
		return;
	INVARIANT(permit_open(s, root, BOOT_NOW, NOW, &permit, &err) != 0);
	INVARIANT(lease_open(s, root, nonce, sizeof nonce, BOOT_NOW, NOW, &lease, &err) != 0);
	pave__v1__signed__free_unpacked(s, NULL);
}

static void check_permit(const struct permit *p)
{
	INVARIANT(p->deadline_ns > BOOT_NOW);
	INVARIANT(p->deadline_ns <= BOOT_NOW + PERMIT_LIFETIME_MAX_MS * NS_PER_MS);
	INVARIANT(p->serve_after_ns == 0 || p->serve_after_ns > BOOT_NOW);
	INVARIANT(p->serve_after_ns <= BOOT_NOW + 3 * PERMIT_LIFETIME_MAX_MS * NS_PER_MS);
	INVARIANT(p->volume != 0 && p->generation >= 1 && p->generation <= GENERATION_MAX);
	INVARIANT(p->node_count >= 1 && p->node_count <= PERMIT_NODES_MAX);
	INVARIANT(text_is_name(p->holder));
	for (uint32_t i = 0; i < p->node_count; i++) {
		INVARIANT(text_is_name(p->nodes[i].node) && text_is_name(p->nodes[i].site));
		INVARIANT(permit_find_node(p, p->nodes[i].node) == &p->nodes[i]);
	}
}

static void fuzz_permit(const uint8_t *data, size_t size)
{
	Pave__V1__Signed *s = NULL;
	struct permit p = {0};
	struct error err;

	INVARIANT(signed_make(TYPE_PERMIT, data, size, demo_key(&demo, DEMO_PLACEMENT), &s, &err) ==
		  0);
	if (permit_open(s, root, BOOT_NOW, NOW, &p, &err) == 0)
		check_permit(&p);
	permit_deinit(&p);
	pave__v1__signed__free_unpacked(s, NULL);
}

static void fuzz_lease(const uint8_t *data, size_t size)
{
	Pave__V1__Signed *s = NULL;
	struct lease l = {0};
	struct error err;

	INVARIANT(signed_make(TYPE_LEASE, data, size, demo_key(&demo, DEMO_PLACEMENT), &s, &err) ==
		  0);
	if (lease_open(s, root, nonce, sizeof nonce, BOOT_NOW, NOW, &l, &err) == 0) {
		INVARIANT(l.deadline_ns > BOOT_NOW);
		INVARIANT(l.deadline_ns <= BOOT_NOW + PERMIT_LIFETIME_MAX_MS * NS_PER_MS);
		INVARIANT(text_is_name(l.node) && text_is_name(l.site));
	}
	pave__v1__signed__free_unpacked(s, NULL);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static void (*const kinds[])(const uint8_t *data, size_t size) = {fuzz_wire, fuzz_permit,
									  fuzz_lease};

	if (size == 0 || size > DOCUMENT_SIZE_MAX)
		return 0;
	set_up();
	kinds[data[0] % (sizeof kinds / sizeof kinds[0])](data + 1, size - 1);
	return 0;
}
