/* node vacate: nothing that was sent before reaches copies that are to be erased. See node.h.
 *
 *   asked --Empty--> vacated
 *     \--refused, silent, or the connection has gone--> being ended --freed--> vacated
 *
 * A host that says so has had an answer to whatever it sent over this connection, and what it sent
 * over an earlier one is that session's matter, which is asked likewise. Without this, a write that
 * was delayed on its way begins the erased copy anew, and claims by its watermark what is gone.
 *
 * Failure modes: none; at worst sessions end, and their hosts connect again. */
#include <string.h>
#include <utlist.h>

#include "engine/base/assert.h"
#include "engine/base/log.h"
#include "engine/node/shard.h"

static void vacated(struct node_shard *shard)
{
	struct node_vacate_op *op = shard->vacate;

	PRE(op != NULL && op->waiting > 0);
	if (--op->waiting > 0)
		return;
	shard->vacate = NULL;
	reactor_defer(shard_reactor(shard), &op->task);
}

void node_vacate_session_gone(struct node_session *s)
{
	if (s->vacating)
		vacated(s->shard);
	s->vacating = false;
}

static void answered(struct rpc_call *call, int status, const Pave__V1__Control *reply,
		     const char *text)
{
	struct node_session *s = container_of(call, struct node_session, vacate_call);

	(void)reply;
	if (status == 0) {
		s->vacating = false;
		vacated(s->shard);
		return;
	}
	if (status == -E_DISCONNECTED)
		return; /* it is ending already */
	log_info("node", "ends a session of %s: it has not left what is to be erased: %s", s->peer,
		 text);
	node_session_close(s);
}

static void ask(struct node_session *s, struct node_vacate_op *op)
{
	Pave__V1__Control message = PAVE__V1__CONTROL__INIT;
	Pave__V1__Vacate vacate = PAVE__V1__VACATE__INIT;

	vacate.chunks = op->chunks;
	vacate.n_chunks = op->chunk_count;
	message.body_case = PAVE__V1__CONTROL__BODY_VACATE;
	message.vacate = &vacate;
	memset(&s->vacate_call, 0, sizeof(s->vacate_call));
	s->vacate_call.done = answered;
	rpc_call_start(&s->rpc, &s->vacate_call, &message, NODE_VACATE_MS);
}

/* Before its Open is answered a host sends nothing; nodes only read. */
static bool may_write(const struct node_session *s, volume_id_t volume)
{
	if (s->state != SESSION_OPEN || s->peer_is_node)
		return false;
	for (uint32_t i = 0; i < s->permit.layer_count; i++)
		if (s->permit.layers[i].id == volume)
			return true;
	return s->volume->id == volume;
}

static void report(struct reactor_task *task)
{
	struct node_vacate_op *op = container_of(task, struct node_vacate_op, task);

	op->done(op);
}

void node_shard_vacate(struct node_shard *shard, struct node_vacate_op *op)
{
	struct node_session *s, *tmp;

	PRE(shard->vacate == NULL && op->chunk_count <= NODE_VACATE_CHUNKS_MAX);
	op->task = (struct reactor_task){.run = report};
	op->waiting = 1; /* this loop */
	shard->vacate = op;
	DL_FOREACH_SAFE (shard->sessions, s, tmp) {
		if (!may_write(s, op->volume))
			continue;
		s->vacating = true;
		op->waiting++;
		if (op->whole)
			node_session_close(s);
		else if (s->conn != NULL && !s->closing)
			ask(s, op);
	}
	vacated(shard);
}
