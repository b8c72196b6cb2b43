/* Whether a policy is at least as strict as another: the operator may tighten a policy, and only
 * the tenant may loosen it (DOCUMENTS.md, "Who may change a policy"). Pure. */
#ifndef EVIDENCE_TIGHTEN_H
#define EVIDENCE_TIGHTEN_H

#include "engine/evidence/documents.h"

struct policy_change {	/* one rule that was loosened */
	char field[96]; /* of the policy, as "ownership.max_individual_ppm" */
	char was[160];	/* in force; "(missing)": nothing was eligible */
	char is[160];	/* now */
};

/* True when something that `was` refuses may pass under `is`; *ret is the first such rule. It errs
 * on the strict side: what it cannot prove to be at least as strict counts as loosened. How long
 * writes are held (on_loss) is no matter of strictness. */
bool policy_loosens(const struct policy_document *was, const struct policy_document *is,
		    struct policy_change *ret);

/* Whether the operator may put `next` in the place of `in_force` (NULL: there is none). -E_DENIED:
 * it loosens something, which the text names; -E_ROLLBACK. */
int policy_check_tightening(const struct policy_document *in_force,
			    const struct policy_document *next, struct error *err);

#endif
