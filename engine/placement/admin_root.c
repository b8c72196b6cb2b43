/* The driver and its admins: the trust root. See driver.h.
 *
 * A new root: verified by the thresholds of both (trust.h), and by this driver's own key, which it
 * must know. From that turn on nothing counts that does not verify under it; what was reissued and
 * came along is taken in at once, so that whoever prepared it well is not without evidence for a
 * moment. Then nodes and hosts are told, and the admin when it is durable.
 *
 * A crash between trust and register leaves a root that trust knows and the register doesn't, which
 * only other drivers would read there: the next root brings it in order. */
#include <errno.h>
#include <string.h>

#include "engine/base/log.h"
#include "engine/evidence/permit.h"
#include "engine/placement/driver.h"

void admin_root_get(struct pd_request *q, const Pave__V1__Control *m)
{
	Pave__V1__Control reply = PAVE__V1__CONTROL__INIT;
	Pave__V1__RootReply r = PAVE__V1__ROOT_REPLY__INIT;

	(void)m;
	r.envelope.data = (uint8_t *)(uintptr_t)trust_root_envelope(q->pd->trust, &r.envelope.len);
	reply.body_case = PAVE__V1__CONTROL__BODY_ROOT_REPLY;
	reply.root_reply = &r;
	request_reply(q, &reply);
}

/* What this driver signs must go on being believed. */
static int check_own_key(struct pd *pd, const ProtobufCBinaryData *e, struct error *err)
{
	struct root_document *next = NULL;
	Pave__V1__Signed *s = NULL;
	struct error why;
	int rc = root_open(e->data, e->len, trust_root(pd->trust), &next, err);

	if (rc == 0)
		rc = signed_make(TYPE_PERMIT, "", 0, pd->permits.key, &s, err);
	if (rc == 0 && signed_verify(s, TYPE_PERMIT, next, &why) != 0)
		rc = error_set(
		    err, -E_IN_USE,
		    "trust root version %llu: its role placement does not know the key %s of this "
		    "driver, so nobody would believe a permit: first put a root that knows both "
		    "keys, start the driver with the other one, then put this",
		    (unsigned long long)root_version(next), signing_key_id(pd->permits.key));
	if (s != NULL)
		pave__v1__signed__free_unpacked(s, NULL);
	root_free(next);
	return rc;
}

static void root_committed(struct pd_request *q)
{
	pd_evidence_changed(q->pd);
	request_done(q);
}

/* It is in force, and differs from the one before. */
static void root_changed(struct pd *pd, const ProtobufCBinaryData *e)
{
	const uint32_t dropped = verdicts_root_changed(&pd->verdicts);

	log_info("pd", "trust root version %llu; %u documents are void under it",
		 (unsigned long long)root_version(trust_root(pd->trust)), dropped);
	reg_save_document(&pd->reg, PD_ROOT_KEY, e->data, e->len);
	pd_ledger_document(&pd->ledger, "root", "", root_version(trust_root(pd->trust)), e->data,
			   e->len);
}

void admin_root_put(struct pd_request *q, const Pave__V1__Control *m)
{
	const Pave__V1__RootPut *put = m->root_put;
	struct pd *pd = q->pd;
	const uint64_t before = root_version(trust_root(pd->trust));
	struct error err = {0}, first = {0};

	if (check_own_key(pd, &put->envelope, &err) != 0 ||
	    trust_accept_root(pd->trust, put->envelope.data, put->envelope.len, &err) != 0) {
		log_warn("pd", "trust root refused: %s", err.text);
		request_fail(q, &err);
		return;
	}
	if (root_version(trust_root(pd->trust)) != before)
		root_changed(pd, &put->envelope);
	for (size_t i = 0; i < put->n_documents; i++) {
		if (admin_take_document(pd, &put->documents[i], &err) == 0)
			continue;
		log_warn("pd", "with the trust root came a document that is refused: %s", err.text);
		if (first.code == 0)
			first = err;
	}
	if (first.code == 0) {
		request_commit(q, root_committed);
		return;
	}
	/* The root is in force whatever came with it. */
	error_wrap(&first, "the trust root is in force, but not all that came with it");
	pd_background_flush(pd);
	pd_evidence_changed(pd);
	request_fail(q, &first);
}
