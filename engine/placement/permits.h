/* Permits and leases: what goes into them, and until when. Given only on fresh evidence, by a clock
 * that didn't go back; never longer than the evidence of any node in them, or of the host's site,
 * lasts.
 *
 * A permit is given in two steps: permits_reserve notes, in the register, until when this
 * attachment may have one (the caller flushes); once that is durable, permits_make builds and signs
 * it, from the evidence at that moment. So a driver that comes back after a crash knows the bound
 * of every permit it ever gave, whatever its clock says, and a newer attachment waits for it.
 *
 * Thread: the driver's reactor. */
#ifndef PLACEMENT_PERMITS_H
#define PLACEMENT_PERMITS_H

#include "engine/evidence/permit.h"
#include "engine/placement/register.h"
#include "engine/placement/verdicts.h"

/* A node whose evidence ends this soon is left out of a permit when others last longer, so that
 * they don't end with it. */
#define PERMIT_MARGIN_NS ((int64_t)(CLOCK_BOUND_NS + 300 * NS_PER_MS))

struct permits {
	struct reg *reg;
	struct verdicts *verdicts;
	struct signing_key *key;
	int64_t lifetime_ns;
	const struct pd_shared *shared; /* NULL: nobody else issues any */
	uint64_t lease_serial;
	uint64_t issued, refused;
};

/* The time by which all is judged; -E_CLOCK_SKEW when the machine's clock is behind what was seen
 * by more than the bound: then nothing may be issued. */
int permits_now(struct permits *p, int64_t *ret_now, struct error *err);

/* Whether this driver leads for certain; -E_NOT_LEADER: another may by now, and have changed what
 * this one believes. */
int permits_leads(const struct permits *p, struct error *err);

/* May this host attach it? -E_DENIED: its site isn't eligible while the policy asks for it, or no
 * node's is; -E_CLOCK_SKEW. ret_until (may be NULL): of the host's evidence. */
int permits_check(struct permits *p, struct reg_volume *v, const char *holder_site,
		  int64_t *ret_until, struct error *err);

/* Raises the bound of the attachment to a lifetime from now, and its serial, and saves them. Once
 * that is durable the caller passes *ret_bound to permits_durable. */
int permits_reserve(struct permits *p, struct reg_volume *v, int64_t *ret_bound, struct error *err);
void permits_durable(struct reg_volume *v, int64_t bound);

/* Signs a permit for the attachment as it is now, up to its durable bound. The errors of
 * permits_check; -E_NOT_LEADER: another driver may lead by now; -E_FENCED: the attachment is not
 * live; -E_STALE_EVIDENCE: the bound is past. */
int permits_make(struct permits *p, struct reg_volume *v, Pave__V1__Signed **ret,
		 struct error *err);

/* A lease for the node. -E_REVOKED, -E_STALE_EVIDENCE, -E_DENIED, -E_CLOCK_SKEW, -E_NOT_LEADER. */
int permits_lease(struct permits *p, const struct reg_node *n, const void *nonce, size_t nonce_size,
		  Pave__V1__Signed **ret, int64_t *ret_until, struct error *err);

#endif
