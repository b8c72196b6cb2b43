/* node control requests: what a greeted peer asks for: Open, PermitUpdate, Chunks, Changes, Pull.
 * See shard.h.
 *
 * INVARIANTS
 *  1. A permit is in force only after its signature was verified against the root, and a newer one
 *     of the same attachment replaces it, never an older one.
 *  2. The generation of a volume rises here as soon as a newer one is being opened: the older
 *     sessions are closed before the fence is written, never after.
 *
 * Failure modes: whatever is refused is answered with code and text; the session goes on with what
 * it had. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <utlist.h>

#include "engine/base/assert.h"
#include "engine/base/log.h"
#include "engine/node/shard.h"

#define CHUNKS_MAX 16384u /* in one answer */

/* -- permits ---------------------------------------------------------------------------------- */

static int pack_permit(const Pave__V1__Signed *signed_permit, uint8_t **ret_packed,
		       size_t *ret_size)
{
	const size_t size = pave__v1__signed__get_packed_size(signed_permit);
	uint8_t *packed = malloc(size > 0 ? size : 1);

	if (packed == NULL)
		return -ENOMEM;
	*ret_size = pave__v1__signed__pack(signed_permit, packed);
	*ret_packed = packed;
	return 0;
}

static int check_map_version(const struct permit *permit, const struct node_volume *v,
			     struct error *err)
{
	if (permit->map_version >= v->map_version)
		return 0;
	return error_set(err, -E_MAP_VERSION,
			 "the permit is for map version %llu of volume %llu; version %llu was seen "
			 "here",
			 (unsigned long long)permit->map_version, (unsigned long long)v->id,
			 (unsigned long long)v->map_version);
}

/* Whether a permit may take the place of the one in force on this session. */
static int check_follows(const struct node_session *s, const struct permit *permit,
			 struct error *err)
{
	const struct permit *old = &s->permit;

	if (permit->volume != old->volume || permit->generation != old->generation ||
	    strcmp(permit->holder, old->holder) != 0)
		return error_set(err, -EINVAL,
				 "the permit is of another attachment (volume %llu generation %u) "
				 "than the one in force here (volume %llu generation %u)",
				 (unsigned long long)permit->volume, permit->generation,
				 (unsigned long long)old->volume, old->generation);
	if (permit->serial < old->serial)
		return error_set(
		    err, -E_ROLLBACK, "the permit has serial %llu, the one in force here %llu",
		    (unsigned long long)permit->serial, (unsigned long long)old->serial);
	return check_map_version(permit, s->volume, err);
}

/* Verifies it and puts it into s, where the one before is freed. On failure nothing changes. */
static int take_permit(struct node_session *s, const Pave__V1__Signed *signed_permit,
		       struct error *err)
{
	struct reactor *r = shard_reactor(s->shard);
	const int64_t wall_ns = node_evidence_wall_ns(reactor_wall_ns(r), reactor_now_ns(r),
						      s->shard->lease.driver_clock_ns);
	struct permit permit = {0};
	uint8_t *packed = NULL;
	size_t size = 0;
	int rc;

	if (signed_permit == NULL)
		return error_set(err, -E_NO_PERMIT, "the message carries no permit");
	rc = permit_open(signed_permit, trust_root(s->shard->config.trust), reactor_now_ns(r),
			 wall_ns, &permit, err);
	if (rc != 0)
		return rc;
	if (permit.volume == 0 || permit.generation == 0 || permit.generation > GENERATION_MAX)
		rc = error_set(err, -E_BAD_DOCUMENT, "the permit names no volume or generation");
	else if (s->state == SESSION_OPEN)
		rc = check_follows(s, &permit, err);
	if (rc == 0 && pack_permit(signed_permit, &packed, &size) != 0)
		rc = error_set(err, -ENOMEM, "no memory for a permit");
	if (rc != 0) {
		permit_deinit(&permit);
		return rc;
	}
	/* One receipt covers permits of one kind, without a time between them when there was none.
	 */
	if (!receipt_same_permit(&s->permit, &permit) ||
	    reactor_now_ns(r) >= s->permit.deadline_ns ||
	    reactor_now_ns(r) >= s->receipt.began_ns + RECEIPT_INTERVAL_NS)
		node_session_close_receipt(s);
	permit_deinit(&s->permit);
	free(s->permit_packed);
	s->permit = permit;
	s->permit_packed = packed;
	s->permit_packed_size = size;
	node_layers_sealed(s);
	return 0;
}

/* What a person reads when the gate refuses. */
static int gate_error(const struct node_session *s, int why, struct error *err)
{
	const struct node_identity *me = &s->shard->config.identity;

	return error_set(err, why, "node %s in site %s: %s", me->name, me->site, err_text(why));
}

/* -- Open ------------------------------------------------------------------------------------- */

/* Back to GREETED: nothing was opened. */
static void open_undo(struct node_session *s)
{
	if (s->volume != NULL)
		node_shard_put_volume(s->shard, s->volume);
	s->volume = NULL;
	permit_deinit(&s->permit);
	free(s->permit_packed);
	s->permit_packed = NULL;
	s->state = SESSION_GREETED;
	s->fenced = false;
	node_session_update_gate(s);
}

static void open_refuse(struct node_session *s, uint64_t request_id, const struct error *err)
{
	struct node_shard *shard = s->shard;

	shard->stats.refused_opens++;
	if (err->code == -E_FENCED)
		shard->stats.refused_fence++;
	log_info("node", "refused to open a volume for %s: %s", s->peer, err->text);
	open_undo(s);
	node_session_fail(s, request_id, err->code, err->text);
}

static void open_answer(struct node_session *s)
{
	Pave__V1__Control message = PAVE__V1__CONTROL__INIT;
	Pave__V1__OpenReply reply = PAVE__V1__OPEN_REPLY__INIT;

	s->state = SESSION_OPEN;
	node_session_update_gate(s);
	log_info("node", "opened volume %llu generation %u for %s%s%s",
		 (unsigned long long)s->volume->id, s->generation, s->peer_is_node ? "node " : "",
		 s->peer, s->read_only ? ", to read" : "");
	reply.generation = s->volume->generation;
	message.body_case = PAVE__V1__CONTROL__BODY_OPEN_REPLY;
	message.open_reply = &reply;
	node_session_reply(s, s->open_request, &message);
}

static int fenced_error(const struct node_session *s, struct error *err)
{
	return error_set(err, -E_FENCED,
			 "volume %llu is open here under generation %u; this attachment is of "
			 "generation %u: it has ended",
			 (unsigned long long)s->volume->id, s->volume->generation, s->generation);
}

/* What earlier sessions of the same attachment still have under way. The host asks this session
 * what is here, and relies on the answer; nothing that it sent before may appear afterwards. Writes
 * of an older generation cannot: the fence is in the log before them, or they are before it. */
static bool is_quiet(const struct node_session *s)
{
	const struct node_session *t;
	bool quiet = true;

	DL_FOREACH (s->shard->sessions, t)
		if (t != s && t->volume == s->volume && !t->peer_is_node &&
		    t->generation == s->generation && (t->inflight > 0 || t->pulls != NULL))
			quiet = false;
	return quiet;
}

static void close_earlier(struct node_session *s)
{
	struct node_session *t, *next;

	DL_FOREACH_SAFE (s->shard->sessions, t, next)
		if (t != s && t->volume == s->volume && !t->peer_is_node &&
		    t->generation == s->generation)
			node_session_close(t);
}

/* The last step of an Open: it may have been fenced, or its host have gone, while it waited. */
static void open_go_on(struct node_session *s)
{
	struct error err;

	if (s->conn == NULL || s->closing)
		return;
	if (s->fenced) {
		fenced_error(s, &err);
		open_refuse(s, s->open_request, &err);
	} else {
		open_answer(s);
	}
}

void node_open_resume(struct node_shard *shard, struct node_volume *volume)
{
	struct node_session *s, *next;

	DL_FOREACH_SAFE (shard->sessions, s, next) {
		if (s->volume != volume || !s->open_waiting || !is_quiet(s))
			continue;
		s->open_waiting = false;
		volume->opens_waiting--;
		open_go_on(s);
	}
}

static void open_when_quiet(struct node_session *s)
{
	close_earlier(s);
	if (is_quiet(s)) {
		open_answer(s);
		return;
	}
	s->open_waiting = true;
	s->volume->opens_waiting++;
}

static void fence_done(struct store_fence_op *op, int status)
{
	struct node_session *s = container_of(op, struct node_session, fence);
	struct error err;

	s->fencing = false;
	if (s->conn == NULL || s->closing) {
		node_session_release(s);
		return;
	}
	if (status == 0 && !s->fenced) {
		open_when_quiet(s);
		return;
	}
	if (s->fenced || status == -E_FENCED)
		fenced_error(s, &err);
	else
		error_set(&err, status, "volume %llu could not be fenced: %s",
			  (unsigned long long)s->volume->id, err_text(status));
	open_refuse(s, s->open_request, &err);
}

/* In state OPENING, with a verified permit: everything else that an Open needs. */
static int open_check(struct node_session *s, struct error *err)
{
	int rc;

	node_session_update_gate(s);
	if (!gate_open(&s->gate, reactor_now_ns(shard_reactor(s->shard))))
		return gate_error(s, s->gate.why, err);
	s->volume = node_shard_get_volume(s->shard, s->permit.volume);
	if (s->volume == NULL)
		return error_set(err, -ENOMEM, "no memory for another volume");
	if (s->generation < s->volume->generation)
		return fenced_error(s, err);
	rc = check_map_version(&s->permit, s->volume, err);
	if (rc == 0)
		s->volume->map_version = s->permit.map_version;
	return rc;
}

static void handle_open(struct node_session *s, uint64_t request_id, const Pave__V1__Open *open)
{
	const uint64_t chunk_size = open->chunk_size;
	struct error err = {0};
	int rc = 0;

	if (s->state != SESSION_GREETED) {
		node_session_fail(s, request_id, -EINVAL,
				  "this connection has a volume open already: one a connection");
		return;
	}
	if (chunk_size < CHUNK_SIZE_MIN || chunk_size > CHUNK_SIZE_MAX ||
	    (chunk_size & (chunk_size - 1)) != 0)
		rc = error_set(&err, -EINVAL,
			       "chunk size %llu: a power of two from %llu to %llu is needed",
			       (unsigned long long)chunk_size, CHUNK_SIZE_MIN, CHUNK_SIZE_MAX);
	if (rc == 0)
		rc = take_permit(s, open->permit, &err);
	if (rc == 0) {
		s->state = SESSION_OPENING;
		s->open_request = request_id;
		s->generation = s->permit.generation;
		s->chunk_blocks = (uint32_t)(chunk_size / BLOCK_SIZE);
		/* A read-only permit alone does not make the session so: its host may have to
		 * settle what an earlier one left undecided, by writing again what is here. What
		 * the guest would write it refuses itself. */
		s->read_only = open->read_only;
		rc = open_check(s, &err);
	}
	if (rc != 0) {
		open_refuse(s, request_id, &err);
		return;
	}
	if (s->peer_is_node) {
		open_answer(s);
		return;
	}
	s->volume->generation = s->generation;
	node_shard_fence_sessions(s->shard, s->volume);
	s->fencing = true;
	s->fence = (struct store_fence_op){
	    .done = fence_done, .volume = s->volume->id, .generation = s->generation};
	pool_fence(s->shard->config.pool, &s->fence);
}

static void handle_permit_update(struct node_session *s, uint64_t request_id,
				 const Pave__V1__PermitUpdate *update)
{
	struct error err = {0};
	int rc;

	if (s->state != SESSION_OPEN) {
		node_session_fail(s, request_id, -E_NO_PERMIT,
				  "no volume is open on this connection");
		return;
	}
	rc = take_permit(s, update->permit, &err);
	if (rc == 0) {
		s->volume->map_version = s->permit.map_version;
		node_session_update_gate(s);
		node_pull_permit_changed(s);
	}
	if (rc == 0 && s->gate.deadline_ns == 0)
		rc = gate_error(s, s->gate.why, &err);
	if (rc == 0) {
		node_session_reply_empty(s, request_id);
		return;
	}
	s->shard->stats.refused_opens++;
	node_session_fail(s, request_id, rc, err.text);
}

/* The layer that a message names; 0 and answered: the permit names none such. */
static volume_id_t find_layer(struct node_session *s, uint64_t request_id, volume_id_t id)
{
	const struct permit_layer *layer = permit_find_layer(&s->permit, id);

	if (layer != NULL)
		return layer->id;
	node_session_fail(s, request_id, -E_NO_PERMIT, "the permit does not name that layer");
	return 0;
}

/* -- Chunks and Changes ----------------------------------------------------------------------- */

static void handle_chunks(struct node_session *s, uint64_t request_id, const Pave__V1__Chunks *ask)
{
	const volume_id_t layer = find_layer(s, request_id, ask->layer);
	const uint32_t max = ask->max == 0 ? CHUNKS_MAX : MIN(ask->max, CHUNKS_MAX);
	struct store_chunk_state *states = malloc(max * sizeof(*states));
	Pave__V1__ChunkState *items = malloc(max * sizeof(*items));
	Pave__V1__ChunkState **list = malloc(max * sizeof(*list));
	Pave__V1__Control message = PAVE__V1__CONTROL__INIT;
	Pave__V1__ChunksReply reply = PAVE__V1__CHUNKS_REPLY__INIT;
	uint32_t count;

	if (layer == 0)
		goto out;
	if (states == NULL || items == NULL || list == NULL) {
		node_session_fail(s, request_id, -ENOMEM, "no memory for the list of chunks");
		goto out;
	}
	count = pool_chunks(s->shard->config.pool, layer, ask->from, states, max);
	for (uint32_t i = 0; i < count; i++) {
		pave__v1__chunk_state__init(&items[i]);
		items[i].chunk = states[i].chunk;
		items[i].watermark = states[i].watermark;
		items[i].newest = states[i].newest;
		items[i].status = (uint32_t)-states[i].status;
		list[i] = &items[i];
	}
	reply.n_chunks = count;
	reply.chunks = list;
	reply.absent_status = (uint32_t)-pool_absent(s->shard->config.pool);
	reply.more = count == max && states[count - 1].chunk < UINT32_MAX;
	reply.next = reply.more ? states[count - 1].chunk + 1 : 0;
	message.body_case = PAVE__V1__CONTROL__BODY_CHUNKS_REPLY;
	message.chunks_reply = &reply;
	node_session_reply(s, request_id, &message);
out:
	free(states);
	free(items);
	free(list);
}

struct node_changes {
	struct node_changes *prev, *next; /* of the session */
	struct node_session *session;
	uint64_t request_id;
	struct store_changes_op op;
	struct store_change changes[STORE_CHANGES_MAX];
};

static void changes_answer(const struct node_changes *job)
{
	const uint32_t count = job->op.count;
	Pave__V1__Change *items = malloc((count + 1) * sizeof(*items));
	Pave__V1__Change **list = malloc((count + 1) * sizeof(*list));
	Pave__V1__Control message = PAVE__V1__CONTROL__INIT;
	Pave__V1__ChangesReply reply = PAVE__V1__CHANGES_REPLY__INIT;

	if (items == NULL || list == NULL) {
		node_session_fail(job->session, job->request_id, -ENOMEM,
				  "no memory for the list of changes");
		goto out;
	}
	for (uint32_t i = 0; i < count; i++) {
		pave__v1__change__init(&items[i]);
		items[i].block = job->changes[i].block;
		items[i].block_count = job->changes[i].block_count;
		items[i].version = job->changes[i].version;
		items[i].zero = job->changes[i].zero;
		list[i] = &items[i];
	}
	reply.n_changes = count;
	reply.changes = list;
	reply.more = job->op.next != UINT32_MAX;
	reply.next = reply.more ? job->op.next : 0;
	message.body_case = PAVE__V1__CONTROL__BODY_CHANGES_REPLY;
	message.changes_reply = &reply;
	node_session_reply(job->session, job->request_id, &message);
out:
	free(items);
	free(list);
}

static void changes_done(struct store_changes_op *op, int status)
{
	struct node_changes *job = container_of(op, struct node_changes, op);
	struct node_session *s = job->session;

	if (status == 0)
		status = node_session_check_now(s);
	if (status == 0)
		changes_answer(job);
	else
		node_session_fail(s, job->request_id, status, "the changes could not be listed");
	DL_DELETE(s->changes, job);
	free(job);
	node_session_control_end(s);
}

void node_changes_destroy_all(struct node_session *s)
{
	struct node_changes *job, *tmp;

	DL_FOREACH_SAFE (s->changes, job, tmp) {
		DL_DELETE(s->changes, job);
		free(job);
	}
}

static void handle_changes(struct node_session *s, uint64_t request_id,
			   const Pave__V1__Changes *ask)
{
	const volume_id_t layer = find_layer(s, request_id, ask->layer);
	struct node_changes *job;

	if (layer == 0)
		return;
	if (ask->from >= s->chunk_blocks || ask->chunk == UINT32_MAX) {
		node_session_fail(s, request_id, -EINVAL,
				  "no chunk has that number, or that block to start from");
		return;
	}
	if (!node_session_control_begin(s, request_id))
		return;
	job = malloc(sizeof(*job));
	if (job == NULL) {
		node_session_fail(s, request_id, -ENOMEM, "no memory for the list of changes");
		node_session_control_end(s);
		return;
	}
	DL_APPEND(s->changes, job);
	job->session = s;
	job->request_id = request_id;
	job->op = (struct store_changes_op){
	    .done = changes_done,
	    .volume = layer,
	    .chunk = ask->chunk,
	    .above = ask->above,
	    .from = ask->from,
	    .changes = job->changes,
	    .max = STORE_CHANGES_MAX,
	};
	pool_changes(s->shard->config.pool, &job->op);
}

/* -- all of them ------------------------------------------------------------------------------ */

/* What needs an open gate. */
static void handle_open_request(struct node_session *s, uint64_t request_id,
				const Pave__V1__Control *m)
{
	const int why = node_session_check(s);
	struct error err;

	if (why != 0) {
		gate_error(s, why, &err);
		node_session_fail(s, request_id, why, err.text);
		return;
	}
	switch (m->body_case) {
	case PAVE__V1__CONTROL__BODY_CHUNKS:
		handle_chunks(s, request_id, m->chunks);
		break;
	case PAVE__V1__CONTROL__BODY_CHANGES:
		handle_changes(s, request_id, m->changes);
		break;
	default:
		node_pull_begin(s, request_id, m->pull);
		break;
	}
}

void node_session_handle(struct rpc *rpc, const struct rpc_request *request, void *arg)
{
	struct node_session *s = arg;
	const Pave__V1__Control *m = request->message;

	(void)rpc;
	if (s->closing || request->request_id == 0)
		return;
	if (m->body_case == PAVE__V1__CONTROL__BODY_HELLO) {
		node_session_hello(s, request->request_id, m->hello);
		return;
	}
	if (s->state == SESSION_CONNECTED) {
		s->shard->stats.dropped++;
		node_session_close(s);
		return;
	}
	switch (m->body_case) {
	case PAVE__V1__CONTROL__BODY_OPEN:
		handle_open(s, request->request_id, m->open);
		break;
	case PAVE__V1__CONTROL__BODY_PERMIT_UPDATE:
		handle_permit_update(s, request->request_id, m->permit_update);
		break;
	case PAVE__V1__CONTROL__BODY_CHUNKS:
	case PAVE__V1__CONTROL__BODY_CHANGES:
	case PAVE__V1__CONTROL__BODY_PULL:
		handle_open_request(s, request->request_id, m);
		break;
	default:
		node_session_fail(s, request->request_id, -EOPNOTSUPP,
				  "a node does not answer this kind of message");
		break;
	}
}
