/* placement devices: what an admin asks of a node's devices is passed on to the node, over the
 * connection on which it has its lease, and so is its answer. The driver keeps nothing of it. */
#include <errno.h>

#include "engine/placement/driver.h"

/* A device is formatted and opened, or what lies on it is counted. */
#define DEVICES_TIMEOUT_MS 60000u

static void answered(struct rpc_call *call, int status, const Pave__V1__Control *reply,
		     const char *text)
{
	struct pd_request *q = container_of(call, struct pd_request, forwarded);
	struct error err;

	if (status == 0 && reply->body_case != PAVE__V1__CONTROL__BODY_NODE_DEVICES_REPLY)
		status = -E_BAD_FRAME;
	if (status == 0) {
		request_reply(q, reply);
		return;
	}
	error_set(&err, status, "%s", text != NULL ? text : err_text(status));
	request_fail(q, &err);
}

void admin_node_devices(struct pd_request *q, const Pave__V1__Control *m)
{
	const char *name = m->node_devices->node;
	const struct reg_node *n = reg_node_find(&q->pd->reg, name);
	struct error err;

	if (n == NULL)
		error_set(&err, -ENOENT, "there is no node \"%.64s\": pave node list", name);
	else if (n->session == NULL)
		error_set(&err, -E_UNREACHABLE, "node %s is not connected now: pave node list",
			  name);
	if (n == NULL || n->session == NULL) {
		request_fail(q, &err);
		return;
	}
	q->forwarded.done = answered;
	rpc_call_start(&n->session->rpc, &q->forwarded, m, DEVICES_TIMEOUT_MS);
}
