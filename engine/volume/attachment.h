/* The conversation with the placement driver: attach, renew, detach; and the permit in force with
 * the host's gate.
 *
 *   CONNECTING -> GREETING -> ATTACHING -> ATTACHED <-> (connection lost: back-off, Hello, Renew)
 *                                 |            |
 *                                 v            v
 *                              refused      DETACHING -> DETACHED
 *
 * A host that is to take the volume over goes another way from GREETING to ATTACHING:
 *
 *   GREETING -> PREPARING (Prepare) -> PREPARED --vattach_take_over--> RELEASING (VolumeDetach) ->
 * ATTACHING
 *
 * and from there the same once it was told to, also over another connection.
 *
 * There may be several drivers, of which one leads: whoever is not reachable, or does not lead,
 * makes room for the next (base/drivers.h).
 *
 * The gate closes by time when no newer permit comes, and at once when the driver says that there
 * is none. A lost connection alone closes nothing. */
#ifndef VOLUME_ATTACHMENT_H
#define VOLUME_ATTACHMENT_H

#include "engine/base/drivers.h"
#include "engine/volume/volume.h"
#include "net/rpc/rpc.h"

#define VATTACH_OPEN_TIMEOUT_MS	  10000u /* until the first permit */
#define VATTACH_DETACH_TIMEOUT_MS 3000u
/* For whoever has the volume; more than the lifetimes of permits after which it has none. */
#define VATTACH_RELEASE_TIMEOUT_MS 120000u
/* With several drivers one that hangs must leave time to find another. */
#define VATTACH_ELSEWHERE_MS 3000u

enum vattach_state {
	VATTACH_CONNECTING,
	VATTACH_GREETING,
	VATTACH_PREPARING, /* asks whether it might attach, and who the nodes are */
	VATTACH_PREPARED,  /* waits to be told */
	VATTACH_RELEASING, /* whoever has the volume lets go */
	VATTACH_ATTACHING,
	VATTACH_ATTACHED, /* the permit is ours; connected is a matter of its own */
	VATTACH_DETACHING,
	VATTACH_OVER,
};

struct vattach {
	struct volume *volume;
	struct drivers drivers;
	char leader[ADDR_SIZE_MAX]; /* whom a driver that does not lead named; "" */
	enum vattach_state state;
	bool greeted; /* the connection may be used */
	bool calling; /* call is in flight */
	bool closing;
	bool prepared;	/* once */
	bool take_over; /* told to; also where there is nothing to take over */
	bool released;	/* nobody has the volume, or did a moment ago */
	struct transport_conn *conn;
	struct rpc rpc;
	struct rpc_call call;
	struct reactor_timer timer; /* retry, or the next renewal */
	uint32_t backoff_ms;
	uint32_t renew_ms;
	uint64_t opened_ns;
	uint64_t size_told; /* of the volume, in a notice: asked for once no call is in flight */
	int why;	    /* the last failure */
	char why_text[256];

	struct permit permit;
	Pave__V1__Signed *signed_permit;
	struct gate gate;
};

void vattach_start(struct vattach *a, struct volume *v);
void vattach_take_over(struct vattach *a);
/* Releases the permit at the driver, as far as that can be reached. state becomes VATTACH_OVER and
 * conn NULL; volume_event tells. */
void vattach_detach(struct vattach *a);
/* The same without releasing. */
void vattach_stop(struct vattach *a);
/* Renews now. False: it cannot at this moment. */
bool vattach_renew(struct vattach *a);
void vattach_tick(struct vattach *a);
void vattach_deinit(struct vattach *a); /* memory only */

static inline bool vattach_gate_open(const struct vattach *a, uint64_t now_ns)
{
	return gate_open(&a->gate, now_ns);
}

#endif
