/* node shard: its life, its sessions as a whole, and the lease as they see it. See node.h, shard.h.
 *
 * Happy path: start listens; each accepted connection becomes a session; set_lease opens the gates;
 * stop ends every session and frees the shard when the last of them is gone.
 *
 * Failure modes: a connection over NODE_SESSIONS_MAX is closed at once, and so is the one that was
 * greeted first and has opened nothing; a lease that ends closes
 * every gate before set_lease returns. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <utlist.h>

#include "engine/base/assert.h"
#include "engine/base/log.h"
#include "engine/node/shard.h"

static void refused_rx(struct transport_conn *conn, const struct frame *f, void *arg)
{
	(void)conn;
	(void)f;
	(void)arg;
}

static void refused_closed(struct transport_conn *conn, int reason, void *arg)
{
	(void)conn;
	(void)reason;
	(void)arg;
}

/* For connections that are closed as soon as they are there. */
static const struct transport_handler refused_handler = {
    .rx = refused_rx,
    .closed = refused_closed,
};

/* There is no room: whoever needs none makes some. Its connection ends later; the next one that
 * comes finds the place. */
static void end_idle_session(struct node_shard *shard)
{
	const uint64_t now_ns = reactor_now_ns(shard_reactor(shard));
	struct node_session *s, *oldest = NULL;

	DL_FOREACH (shard->sessions, s)
		if (s->state == SESSION_GREETED && s->conn != NULL && !s->closing &&
		    now_ns >= s->greeted_ns + NODE_GREETED_MS * NS_PER_MS &&
		    (oldest == NULL || s->greeted_ns < oldest->greeted_ns))
			oldest = s;
	if (oldest == NULL)
		return;
	log_info("node", "ends a session of %s: it has opened nothing, and others want to",
		 oldest->peer);
	node_session_close(oldest);
}

static void shard_accepted(struct transport_conn *conn, void *arg)
{
	struct node_shard *shard = arg;

	conn->handler = &refused_handler;
	conn->arg = NULL;
	if (shard->stopping) {
		transport_close(conn);
	} else if (shard->session_count == NODE_SESSIONS_MAX) {
		shard->stats.dropped++;
		log_warn("node", "refused a connection from %s: %u are open, which is the limit",
			 conn->peer.address, NODE_SESSIONS_MAX);
		transport_close(conn);
		end_idle_session(shard);
	} else {
		node_session_accept(shard, conn);
	}
}

struct node_volume *node_shard_get_volume(struct node_shard *shard, volume_id_t id)
{
	struct node_volume *v;

	HASH_FIND(hh, shard->volumes, &id, sizeof(id), v);
	if (v == NULL) {
		v = calloc(1, sizeof(*v));
		if (v == NULL)
			return NULL;
		v->id = id;
		v->generation = pool_generation(shard->config.pool, id);
		HASH_ADD(hh, shard->volumes, id, sizeof(v->id), v);
		if (v->hh.tbl == NULL) {
			free(v);
			return NULL;
		}
	}
	v->session_count++;
	return v;
}

void node_shard_put_volume(struct node_shard *shard, struct node_volume *volume)
{
	PRE(volume->session_count > 0);
	if (--volume->session_count > 0)
		return;
	HASH_DEL(shard->volumes, volume);
	free(volume);
}

void node_shard_fence_sessions(struct node_shard *shard, struct node_volume *volume)
{
	struct node_session *s;

	DL_FOREACH (shard->sessions, s) {
		if (s->volume != volume || s->fenced || s->generation >= volume->generation)
			continue;
		s->fenced = true;
		node_session_update_gate(s);
	}
}

/* Under another trust root than it was verified under a permit counts if it verifies again, and no
 * longer than that root. */
static void verify_again(struct node_session *s)
{
	const struct root_document *root = trust_root(s->shard->config.trust);
	struct reactor *r = shard_reactor(s->shard);
	const uint64_t now_ns = reactor_now_ns(r);
	Pave__V1__Signed *packed;
	struct permit again = {0};
	struct error err;
	int rc = -ENOMEM;

	if (s->permit_packed == NULL || s->permit.root_version == root_version(root))
		return;
	error_set(&err, rc, "no memory to verify it");
	packed = pave__v1__signed__unpack(NULL, s->permit_packed_size, s->permit_packed);
	if (packed != NULL)
		rc = permit_open(packed, root, now_ns,
				 node_evidence_wall_ns(reactor_wall_ns(r), now_ns,
						       s->shard->lease.driver_clock_ns),
				 &again, &err);
	if (rc != 0)
		log_warn("node", "the permit of %s is void under the new trust root: %s", s->peer,
			 err.text);
	s->permit.root_version = root_version(root);
	s->permit.deadline_ns = rc == 0 ? MIN(s->permit.deadline_ns, again.deadline_ns) : 0;
	permit_deinit(&again);
	if (packed != NULL)
		pave__v1__signed__free_unpacked(packed, NULL);
}

void node_shard_set_lease(struct node_shard *shard, const struct node_lease_state *state)
{
	struct node_session *s;

	PRE(state->deadline_ns != 0 || state->why < 0);
	shard->lease = *state;
	DL_FOREACH (shard->sessions, s) {
		verify_again(s);
		node_session_update_gate(s);
	}
}

static void shard_free(struct node_shard *shard)
{
	struct node_volume *v, *tmp;

	node_damage_stop(shard);
	HASH_ITER (hh, shard->volumes, v, tmp) {
		HASH_DEL(shard->volumes, v);
		free(v);
	}
	node_fetch_free_all(shard);
	node_layered_free_all(shard);
	node_requests_free(shard);
	node_buffers_deinit(&shard->rx_memory);
	node_buffers_deinit(&shard->tx_memory);
	free(shard);
}

static void shard_stopped(struct reactor_task *task)
{
	struct node_shard *shard = container_of(task, struct node_shard, stop_task);
	void (*done)(void *arg) = shard->stop_done;
	void *arg = shard->stop_arg;

	/* A task of the shard may still be queued for this turn: it runs first. */
	node_damage_stop(shard);
	if (shard->serve_task.queued || shard->damage_task.queued) {
		reactor_defer(shard_reactor(shard), &shard->stop_task);
		return;
	}
	shard_free(shard);
	done(arg);
}

void node_shard_session_gone(struct node_shard *shard)
{
	PRE(shard->session_count > 0);
	shard->session_count--;
	if (shard->stopping && shard->session_count == 0)
		reactor_defer(shard_reactor(shard), &shard->stop_task);
}

void node_shard_stop(struct node_shard *shard, void (*done)(void *arg), void *arg)
{
	struct node_session *s, *tmp;

	PRE(!shard->stopping);
	shard->stopping = true;
	shard->stop_done = done;
	shard->stop_arg = arg;
	transport_unlisten(shard->listener);
	shard->listener = NULL;
	DL_FOREACH_SAFE (shard->sessions, s, tmp)
		node_session_close(s);
	if (shard->session_count == 0)
		reactor_defer(shard_reactor(shard), &shard->stop_task);
}

void node_shard_abandon(struct node_shard *shard)
{
	struct node_session *s, *tmp;

	DL_FOREACH_SAFE (shard->sessions, s, tmp) {
		s->vacating = false; /* who waits for it is gone too */
		node_session_destroy(s);
	}
	shard_free(shard);
}

/* One unit of each memory is taken and given back, so that whatever waits for memory waits for
 * something. */
static int memory_init(struct node_buffers *b, struct reactor *r, uint64_t bytes_max)
{
	struct node_buffer first;
	int rc = node_buffers_init(b, r, bytes_max);

	if (rc != 0)
		return rc;
	first = node_buffers_get(b, IO_SIZE_MAX);
	if (first.data == NULL)
		return -ENOMEM;
	node_buffers_put(b, &first);
	return 0;
}

int node_shard_start(const struct node_shard_config *config, struct node_shard **ret_shard,
		     struct error *err)
{
	struct node_shard *shard = calloc(1, sizeof(*shard));
	int rc = -ENOMEM;

	if (shard == NULL)
		return error_set(err, rc, "no memory for the node");
	shard->config = *config;
	shard->config.listen_address = NULL;
	shard->lease = (struct node_lease_state){.why = -E_NO_LEASE};
	shard->stop_task.run = shard_stopped;
	if (memory_init(&shard->rx_memory, config->reactor, NODE_RX_MEMORY_MAX) != 0 ||
	    memory_init(&shard->tx_memory, config->reactor, NODE_TX_MEMORY_MAX) != 0) {
		error_set(err, rc, "no memory for the node's buffers");
		goto fail;
	}
	rc = transport_listen(config->transport, config->listen_address, shard_accepted, shard,
			      &shard->listener, err);
	if (rc != 0) {
		error_wrap(err, "listening on %s", config->listen_address);
		goto fail;
	}
	node_damage_start(shard);
	*ret_shard = shard;
	return 0;
fail:
	shard_free(shard);
	return rc;
}

const char *node_shard_address(const struct node_shard *shard)
{
	return shard->listener != NULL ? shard->listener->address : "";
}

void node_shard_get_stats(const struct node_shard *shard, struct node_stats *ret_stats)
{
	*ret_stats = shard->stats;
	ret_stats->sessions = shard->session_count;
	ret_stats->memory_bytes = shard->rx_memory.peak_bytes + shard->tx_memory.peak_bytes;
}
