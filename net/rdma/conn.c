/* conn: the life of a connection. See conn.h, and rdma.h for its states.
 *
 * Happy path: rdma_conn_create; a queue pair (rdma_conn_make_qp) when the control connection is
 * there; rdma_conn_join when the peer's end is known; OPEN with the peer's first message. At the
 * end the queue pair goes to its error state, which brings back what is posted, and is destroyed.
 *
 * Failure modes: each completion that is no success, the end of the control connection, what the
 * peer should not send, and set-up that takes longer than RDMA_SETUP_MS end the connection. When
 * what is posted does not come back within RDMA_FLUSH_MS the queue pair is destroyed all the same:
 * after that no device touches the memory. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <utlist.h>

#include "engine/base/assert.h"
#include "engine/base/log.h"
#include "net/rdma/conn.h"

#define QP_TIMEOUT   15 /* 4.096 us * 2^15 = 134 ms before a packet is sent again */
#define QP_RETRIES   7
#define QP_RNR_TIMER 12 /* 0.64 ms */
#define QP_RNR_EVER  7	/* a buffer that went down is replaced a little later */
#define QP_HOPS	     64

/* -- table of queue pairs --------------------------------------------------------------------- */

struct rdma_conn *rdma_conn_find(const struct rdma *t, uint32_t qp_num)
{
	struct rdma_conn *c = t->by_qp[qp_num % RDMA_QP_BUCKETS];

	while (c != NULL && c->qp->qp_num != qp_num)
		c = c->bucket_next;
	return c;
}

static void table_add(struct rdma *t, struct rdma_conn *c)
{
	struct rdma_conn **bucket = &t->by_qp[c->qp->qp_num % RDMA_QP_BUCKETS];

	c->bucket_next = *bucket;
	*bucket = c;
}

static void table_remove(struct rdma *t, struct rdma_conn *c)
{
	struct rdma_conn **at = &t->by_qp[c->qp->qp_num % RDMA_QP_BUCKETS];

	while (*at != c)
		at = &(*at)->bucket_next;
	*at = c->bucket_next;
}

/* -- the queue pair --------------------------------------------------------------------------- */

static int make_qp(struct rdma_conn *c)
{
	struct rdma *t = conn_rdma(c);
	struct ibv_qp_init_attr init = {
	    .send_cq = t->cq,
	    .recv_cq = t->cq,
	    .srq = t->srq,
	    .cap = {.max_send_wr = RDMA_SEND_QUEUE, .max_send_sge = t->sges_max},
	    .qp_type = IBV_QPT_RC,
	    .sq_sig_all = 1,
	};
	struct ibv_qp_attr attr = {
	    .qp_state = IBV_QPS_INIT,
	    .port_num = t->port,
	    .qp_access_flags = IBV_ACCESS_REMOTE_READ,
	};
	int rc;

	errno = 0;
	c->qp = t->verbs->create_qp(t->pd, &init);
	if (c->qp == NULL)
		return errno != 0 ? -errno : -ENOMEM;
	rc = t->verbs->modify_qp(
	    c->qp, &attr, IBV_QP_STATE | IBV_QP_PKEY_INDEX | IBV_QP_PORT | IBV_QP_ACCESS_FLAGS);
	if (rc == 0) {
		table_add(t, c);
		return 0;
	}
	t->verbs->destroy_qp(c->qp);
	c->qp = NULL;
	return -rc;
}

int rdma_conn_make_qp(struct rdma_conn *c)
{
	struct rdma *t = conn_rdma(c);
	struct error err;
	int rc = rdma_device_open(t, &err);

	if (rc == 0)
		rc = rdma_device_gid(t, c->head.peer.address, &c->gid);
	if (rc != 0)
		return rc;
	rc = rdma_receive_more(t);
	if (rc != 0)
		return rc;
	c->arena = rdma_arena_get(t);
	rc = c->arena != NULL ? make_qp(c) : -ENOMEM;
	if (rc != 0) {
		rdma_receive_less(t);
		return rc;
	}
	reactor_random(t->head.reactor, &c->sequence, sizeof c->sequence);
	c->sequence &= 0xffffff;
	rdma_wait_begin(t);
	return 0;
}

static bool mtu_code(uint32_t bytes, enum ibv_mtu *ret)
{
	for (unsigned code = IBV_MTU_256; code <= IBV_MTU_4096; code++)
		if (bytes == 128u << code) {
			*ret = (enum ibv_mtu)code;
			return true;
		}
	return false;
}

static int to_receive(struct rdma_conn *c, const Pave__V1__RdmaSetup *peer, enum ibv_mtu mtu)
{
	struct rdma *t = conn_rdma(c);
	struct ibv_qp_attr attr = {
	    .qp_state = IBV_QPS_RTR,
	    .path_mtu = MIN(mtu, t->port_attr.active_mtu),
	    .dest_qp_num = peer->queue_pair,
	    .rq_psn = peer->sequence,
	    .max_dest_rd_atomic = t->reads_max,
	    .min_rnr_timer = QP_RNR_TIMER,
	    .ah_attr = {.dlid = (uint16_t)peer->lid, .port_num = t->port},
	};

	if (t->port_attr.link_layer == IBV_LINK_LAYER_ETHERNET) {
		attr.ah_attr.is_global = 1;
		attr.ah_attr.grh.hop_limit = QP_HOPS;
		attr.ah_attr.grh.sgid_index = (uint8_t)c->gid.gid_index;
		memcpy(attr.ah_attr.grh.dgid.raw, peer->gid.data, 16);
	}
	return -t->verbs->modify_qp(c->qp, &attr,
				    IBV_QP_STATE | IBV_QP_AV | IBV_QP_PATH_MTU | IBV_QP_DEST_QPN |
					IBV_QP_RQ_PSN | IBV_QP_MAX_DEST_RD_ATOMIC |
					IBV_QP_MIN_RNR_TIMER);
}

static int to_send(struct rdma_conn *c, const Pave__V1__RdmaSetup *peer)
{
	struct rdma *t = conn_rdma(c);
	struct ibv_qp_attr attr = {
	    .qp_state = IBV_QPS_RTS,
	    .timeout = QP_TIMEOUT,
	    .retry_cnt = QP_RETRIES,
	    .rnr_retry = QP_RNR_EVER,
	    .sq_psn = c->sequence,
	    .max_rd_atomic = (uint8_t)MIN(peer->reads, t->reads_max),
	};

	return -t->verbs->modify_qp(c->qp, &attr,
				    IBV_QP_STATE | IBV_QP_TIMEOUT | IBV_QP_RETRY_CNT |
					IBV_QP_RNR_RETRY | IBV_QP_SQ_PSN | IBV_QP_MAX_QP_RD_ATOMIC);
}

int rdma_conn_join(struct rdma_conn *c, const Pave__V1__RdmaSetup *peer)
{
	enum ibv_mtu mtu;
	int rc;

	if (peer->version != RDMA_VERSION)
		return -E_WIRE_VERSION;
	if (peer->gid.len != 16 || peer->lid > UINT16_MAX || peer->queue_pair > 0xffffff ||
	    peer->sequence > 0xffffff || !mtu_code(peer->mtu, &mtu) || peer->credits < 2 ||
	    peer->credits > UINT16_MAX || peer->message_size < RDMA_MESSAGE_MAX || peer->reads == 0)
		return -EINVAL;
	rc = to_receive(c, peer, mtu);
	if (rc == 0)
		rc = to_send(c, peer);
	if (rc != 0)
		return rc;
	c->credits = peer->credits;
	c->credits_max = peer->credits;
	return 0;
}

/* -- end -------------------------------------------------------------------------------------- */

static bool is_quiet(const struct rdma_conn *c)
{
	return c->control == NULL && (c->qp == NULL || c->tx_posted == 0 || c->flush_over);
}

static void give_back_queues(struct rdma_conn *c)
{
	struct rdma *t = conn_rdma(c);

	if (c->qp != NULL) {
		table_remove(t, c);
		t->verbs->destroy_qp(c->qp);
		c->qp = NULL;
		rdma_receive_less(t);
	}
	c->tx_posted = 0;
	rdma_rx_drop(c);
	if (c->arena != NULL)
		rdma_arena_put(t, c->arena);
	c->arena = NULL;
}

static void conn_finish(struct reactor_task *task)
{
	struct rdma_conn *c = container_of(task, struct rdma_conn, end_task);
	struct rdma *t = conn_rdma(c);

	if (!is_quiet(c))
		return; /* what is deferred cannot be taken back */
	INVARIANT(c->state == RDMA_ENDING);
	reactor_timer_cancel(t->head.reactor, &c->timer);
	give_back_queues(c);
	rdma_tx_fail(c);
	POST(c->head.queued_bytes == 0);
	c->state = RDMA_GONE;
	INVARIANT(t->conn_count > 0);
	t->conn_count--;
	DL_DELETE(t->conns, c);
	if (c->listener != NULL)
		rdma_listener_forget(c);
	if (c->owned)
		c->head.handler->closed(&c->head, c->reason, c->head.arg);
	free(c);
	if (t->conn_count == 0)
		rdma_wait_end(t);
}

void rdma_conn_settle(struct rdma_conn *c)
{
	if (c->state == RDMA_ENDING && is_quiet(c))
		reactor_defer(c->head.transport->reactor, &c->end_task);
}

void rdma_conn_end(struct rdma_conn *c, int reason)
{
	struct rdma *t = conn_rdma(c);
	struct ibv_qp_attr attr = {.qp_state = IBV_QPS_ERR};
	const bool was_set_up = c->state == RDMA_OPEN;

	PRE(reason <= 0);
	if (c->state == RDMA_ENDING || c->state == RDMA_GONE)
		return;
	c->state = RDMA_ENDING;
	c->reason = reason;
	if (!was_set_up && !c->passive && c->control_ready && reason != 0)
		rdma_fallback_note(t, c->address, reason);
	if (was_set_up && reason != 0)
		t->counters.lost++;
	/* Without this the queue pair's work does not come back; then its time runs out. */
	if (c->qp != NULL)
		t->verbs->modify_qp(c->qp, &attr, IBV_QP_STATE);
	if (c->control != NULL)
		transport_close(c->control);
	reactor_timer_arm(t->head.reactor, &c->timer,
			  reactor_now_ns(t->head.reactor) + RDMA_FLUSH_MS * NS_PER_MS);
	rdma_conn_settle(c);
}

void rdma_conn_failed(struct rdma_conn *c, enum ibv_wc_status status)
{
	if (c->state == RDMA_ENDING || c->state == RDMA_GONE)
		return;
	if (status != IBV_WC_WR_FLUSH_ERR)
		log_warn("rdma", "%s: the connection is lost: %s", c->head.peer.address,
			 ibv_wc_status_str(status));
	rdma_conn_end(c, -E_DISCONNECTED);
}

static void timer_fired(struct reactor_timer *timer)
{
	struct rdma_conn *c = container_of(timer, struct rdma_conn, timer);

	if (c->state == RDMA_ENDING) {
		c->flush_over = true;
		rdma_conn_settle(c);
	} else {
		rdma_conn_end(c, -ETIMEDOUT);
	}
}

/* -- beginning -------------------------------------------------------------------------------- */

void rdma_conn_established(struct rdma_conn *c)
{
	PRE(c->state == RDMA_GREETING);
	reactor_timer_cancel(c->head.transport->reactor, &c->timer);
	c->state = RDMA_OPEN;
	if (c->passive) {
		c->greet = true;
		rdma_listener_accept(c);
	} else if (c->head.handler->ready != NULL) {
		c->head.handler->ready(&c->head, c->head.arg);
	}
	rdma_tx_kick(c);
}

int rdma_conn_create(struct rdma *t, struct rdma_conn **ret_conn)
{
	struct rdma_conn *c;

	if (t->conn_count >= RDMA_CONNS_MAX)
		return -E_LIMIT;
	c = calloc(1, sizeof *c);
	if (c == NULL)
		return -ENOMEM;
	c->head.transport = &t->head;
	c->id = ++t->id_count;
	c->state = RDMA_INTRODUCING;
	c->end_task.run = conn_finish;
	c->timer.fire = timer_fired;
	rdma_tx_init(c);
	DL_APPEND(t->conns, c);
	t->conn_count++;
	*ret_conn = c;
	return 0;
}
