/* device: the device, its queues, and waiting for completions. See conn.h.
 *
 * Happy path: rdma_device_open when the first connection is made, rdma_device_close when the last
 * is gone. Completions are taken when the channel says so: rdma_poll, then the notification is
 * asked for, then once more rdma_poll for what came in between. With poll_us the question for the
 * notification waits until nothing has come for so long.
 *
 * Failure modes: whatever the device refuses is the failure of the connection that needed it. An
 * event that says that the device, or one of the shared queues, is broken ends all connections; the
 * next one opens it anew. */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "engine/base/assert.h"
#include "engine/base/log.h"
#include "net/rdma/conn.h"
#include "net/tcp/address.h"

#define GID_TYPE_ROCE_V2 2u /* enum ibv_gid_type of rdma-core, in a header that is not for us */

/* -- opening ---------------------------------------------------------------------------------- */

static int errno_or(int fallback)
{
	return errno != 0 ? -errno : fallback;
}

/* The first of its ports that is up. 0: none. */
static uint8_t active_port(struct rdma *t, struct ibv_context *context, uint8_t port_count)
{
	for (unsigned p = 1; p <= port_count; p++)
		if (t->verbs->query_port(context, (uint8_t)p, &t->port_attr) == 0 &&
		    t->port_attr.state == IBV_PORT_ACTIVE)
			return (uint8_t)p;
	return 0;
}

/* Opens this one if it can be used. */
static bool open_one(struct rdma *t, struct ibv_device *device, struct ibv_device_attr *ret_attr)
{
	struct ibv_context *context = t->verbs->open_device(device);

	if (context == NULL)
		return false;
	if (t->verbs->query_device(context, ret_attr) == 0)
		t->port = active_port(t, context, ret_attr->phys_port_cnt);
	if (t->port == 0) {
		t->verbs->close_device(context);
		return false;
	}
	t->context = context;
	return true;
}

static int choose_device(struct rdma *t, struct ibv_device_attr *ret_attr, struct error *err)
{
	struct ibv_device **list;
	bool seen = false;
	int count = 0;

	t->port = 0;
	list = t->verbs->get_device_list(&count);
	for (int i = 0; list != NULL && i < count && t->context == NULL; i++) {
		if (t->device[0] != '\0' &&
		    strcmp(t->verbs->get_device_name(list[i]), t->device) != 0)
			continue;
		seen = true;
		open_one(t, list[i], ret_attr);
	}
	if (list != NULL)
		t->verbs->free_device_list(list);
	if (t->context != NULL)
		return 0;
	if (t->device[0] != '\0' && !seen)
		return error_set(err, -ENODEV,
				 "there is no RDMA device \"%s\"; `ibv_devices` lists those that "
				 "there are",
				 t->device);
	if (seen)
		return error_set(err, -ENODEV,
				 "no RDMA device has an active port that this process may use; see "
				 "`ibv_devinfo`, or use --transport tcp");
	return error_set(err, -ENODEV,
			 "this machine has no RDMA device (`ibv_devices` lists none): use "
			 "--transport tcp, or auto");
}

/* How many connections the device has room for. */
static void set_limits(struct rdma *t, const struct ibv_device_attr *attr)
{
	const uint32_t cqes = attr->max_cqe > 0 ? (uint32_t)attr->max_cqe : 0;
	const uint32_t wrs = attr->max_srq_wr > 0 ? (uint32_t)attr->max_srq_wr : 0;
	const uint32_t qps = attr->max_qp > 0 ? (uint32_t)attr->max_qp : 0;
	uint32_t max = RDMA_CONNS_MAX;

	max = MIN(max, cqes < RDMA_CREDITS ? 0 : (cqes - RDMA_CREDITS) / RDMA_CONN_CQES);
	max = MIN(max, wrs < RDMA_CREDITS ? 0 : wrs / RDMA_CREDITS - 1);
	t->conns_max = MIN(max, qps);
	t->sges_max = attr->max_sge > 0 ? MIN((uint32_t)attr->max_sge, RDMA_SGES_MAX) : 1;
	t->reads_max = (uint8_t)MIN(MIN(attr->max_qp_rd_atom, attr->max_qp_init_rd_atom), 16);
	if (t->reads_max == 0 || attr->max_qp_wr < (int)RDMA_SEND_QUEUE)
		t->conns_max = 0;
}

static int make_queues(struct rdma *t)
{
	struct ibv_srq_init_attr srq = {
	    .attr = {.max_wr = (t->conns_max + 1) * RDMA_CREDITS, .max_sge = 1}};
	const int cqes = (int)(t->conns_max * RDMA_CONN_CQES + RDMA_CREDITS);

	if (t->conns_max == 0)
		return -E_LIMIT;
	errno = 0;
	t->pd = t->verbs->alloc_pd(t->context);
	if (t->pd == NULL)
		return errno_or(-ENOMEM);
	t->channel = t->verbs->create_comp_channel(t->context);
	if (t->channel == NULL)
		return errno_or(-ENOMEM);
	/* A wake-up that brought nothing must not stop the reactor. */
	if (fcntl(t->channel->fd, F_SETFL, O_NONBLOCK) != 0 ||
	    fcntl(t->context->async_fd, F_SETFL, O_NONBLOCK) != 0)
		return -errno;
	t->cq = t->verbs->create_cq(t->context, cqes, NULL, t->channel, 0);
	if (t->cq == NULL)
		return errno_or(-ENOMEM);
	t->srq = t->verbs->create_srq(t->pd, &srq);
	return t->srq != NULL ? 0 : errno_or(-ENOMEM);
}

int rdma_device_open(struct rdma *t, struct error *err)
{
	struct ibv_device_attr attr = {0};
	int rc;

	if (t->context != NULL)
		return t->failed ? error_set(err, -ENODEV, "the RDMA device has failed") : 0;
	t->failed = false;
	rc = choose_device(t, &attr, err);
	if (rc != 0)
		return rc;
	set_limits(t, &attr);
	rc = make_queues(t);
	if (rc == 0)
		return 0;
	error_set(err, rc, "the RDMA device cannot be used: %s%s", err_text(rc),
		  rc == -ENOMEM ? " (raise the limit of locked memory, RLIMIT_MEMLOCK)" : "");
	rdma_device_close(t);
	return rc;
}

/* What cannot be given back is a device that is gone: there is nobody to tell. */
void rdma_device_close(struct rdma *t)
{
	PRE(t->qp_count == 0 && !t->channel_polled && !t->event_polled);
	if (t->context == NULL)
		return;
	if (t->srq != NULL)
		t->verbs->destroy_srq(t->srq);
	if (t->cq != NULL)
		t->verbs->destroy_cq(t->cq);
	if (t->channel != NULL)
		t->verbs->destroy_comp_channel(t->channel);
	rdma_memory_close(t);
	t->rx_free_count = 0;
	t->rx_used = 0;
	t->rx_lost = 0;
	if (t->pd != NULL)
		t->verbs->dealloc_pd(t->pd);
	t->verbs->close_device(t->context);
	t->srq = NULL;
	t->cq = NULL;
	t->channel = NULL;
	t->pd = NULL;
	t->context = NULL;
	t->failed = false;
}

/* -- addresses -------------------------------------------------------------------------------- */

/* The address of ours from which this peer is reached, as a GID. */
static bool local_gid(const char *peer_address, union ibv_gid *ret)
{
	struct address a, own = {.size = sizeof own.storage};
	struct sockaddr_in6 v6;
	struct sockaddr_in v4;
	bool known;
	int fd;

	if (address_parse(peer_address, &a) != 0)
		return false;
	fd = socket(a.storage.ss_family, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return false;
	known = connect(fd, (const struct sockaddr *)&a.storage, a.size) == 0 &&
		getsockname(fd, (struct sockaddr *)&own.storage, &own.size) == 0;
	close(fd);
	if (!known)
		return false;
	*ret = (union ibv_gid){0};
	if (own.storage.ss_family == AF_INET) {
		memcpy(&v4, &own.storage, sizeof v4);
		ret->raw[10] = 0xff;
		ret->raw[11] = 0xff;
		memcpy(ret->raw + 12, &v4.sin_addr, 4);
	} else {
		memcpy(&v6, &own.storage, sizeof v6);
		memcpy(ret->raw, &v6.sin6_addr, 16);
	}
	return true;
}

static unsigned gid_rank(const struct ibv_gid_entry *e, const union ibv_gid *own)
{
	static const uint8_t v4_mapped[12] = {[10] = 0xff, [11] = 0xff};
	unsigned rank = 1;

	if (own != NULL && memcmp(e->gid.raw, own->raw, 16) == 0)
		rank += 4;
	if (e->gid_type == GID_TYPE_ROCE_V2)
		rank += 2;
	if (memcmp(e->gid.raw, v4_mapped, sizeof v4_mapped) == 0)
		rank += 1;
	return rank;
}

int rdma_device_gid(struct rdma *t, const char *peer_address, struct ibv_gid_entry *ret)
{
	struct ibv_gid_entry entries[RDMA_GIDS_MAX];
	ssize_t count = t->verbs->query_gid_table(t->context, entries, RDMA_GIDS_MAX);
	union ibv_gid own;
	const bool known = local_gid(peer_address, &own);
	unsigned best = 0;

	for (ssize_t i = 0; i < count; i++) {
		const unsigned rank = gid_rank(&entries[i], known ? &own : NULL);

		if (entries[i].port_num == t->port && rank > best) {
			best = rank;
			*ret = entries[i];
		}
	}
	return best > 0 ? 0 : -ENODEV;
}

/* -- receive buffers -------------------------------------------------------------------------- */

uint8_t *rdma_receive_memory(const struct rdma *t, uint16_t slot)
{
	return t->rx_arenas[slot / RDMA_ARENA_SLOTS]->memory +
	       (size_t)(slot % RDMA_ARENA_SLOTS) * RDMA_SLOT_SIZE;
}

static uint32_t rx_wanted(const struct rdma *t)
{
	return t->qp_count * RDMA_CREDITS + MIN(t->rx_lost, RDMA_CREDITS);
}

static int post_receive(struct rdma *t, uint16_t slot)
{
	struct ibv_sge sge = {(uintptr_t)rdma_receive_memory(t, slot), RDMA_SLOT_SIZE,
			      t->rx_arenas[slot / RDMA_ARENA_SLOTS]->mr->lkey};
	struct ibv_recv_wr wr = {.wr_id = RDMA_WR_RECEIVE | slot, .sg_list = &sge, .num_sge = 1};
	struct ibv_recv_wr *bad;

	return -t->verbs->post_srq_recv(t->srq, &wr, &bad);
}

/* Posts as many as are wanted, beside those that hold something. */
static int fill_receive_queue(struct rdma *t)
{
	while (t->rx_used < rx_wanted(t)) {
		int rc;

		if (t->rx_free_count == 0) {
			const uint32_t first = t->rx_arena_count * RDMA_ARENA_SLOTS;
			struct rdma_arena *arena =
			    t->rx_arena_count < RDMA_RX_ARENAS_MAX ? rdma_arena_get(t) : NULL;

			if (arena == NULL)
				return -ENOMEM;
			t->rx_arenas[t->rx_arena_count++] = arena;
			for (uint32_t i = RDMA_ARENA_SLOTS; i > 0; i--)
				t->rx_free[t->rx_free_count++] = (uint16_t)(first + i - 1);
		}
		rc = post_receive(t, t->rx_free[t->rx_free_count - 1]);
		if (rc != 0)
			return rc;
		t->rx_free_count--;
		t->rx_used++;
	}
	return 0;
}

int rdma_receive_more(struct rdma *t)
{
	int rc;

	if (t->qp_count >= t->conns_max)
		return -E_LIMIT;
	t->qp_count++;
	rc = fill_receive_queue(t);
	if (rc != 0)
		t->qp_count--;
	return rc;
}

/* One message may have been on its way into a buffer when the queue pair was destroyed, and takes
 * that buffer with it. Those are replaced, up to an arena's worth until the device is closed. */
void rdma_receive_less(struct rdma *t)
{
	INVARIANT(t->qp_count > 0);
	t->qp_count--;
	t->rx_lost++;
}

void rdma_receive_again(struct rdma *t, uint16_t slot)
{
	INVARIANT(t->rx_used > 0);
	if (t->rx_used <= rx_wanted(t) && post_receive(t, slot) == 0)
		return;
	t->rx_used--;
	t->rx_free[t->rx_free_count++] = slot;
	INVARIANT(t->rx_free_count <= t->rx_arena_count * RDMA_ARENA_SLOTS);
}

/* -- completions ------------------------------------------------------------------------------ */

static void take(struct rdma *t, const struct ibv_wc *wc)
{
	struct rdma_conn *c = rdma_conn_find(t, wc->qp_num);

	if ((wc->wr_id & RDMA_WR_RECEIVE) != 0) {
		const uint16_t slot = (uint16_t)wc->wr_id;

		if (c != NULL && wc->status == IBV_WC_SUCCESS) {
			rdma_rx_message(c, slot, wc->byte_len);
			return;
		}
		rdma_receive_again(t, slot);
		if (c != NULL)
			rdma_conn_failed(c, wc->status);
		return;
	}
	if (c == NULL || c->id != (uint32_t)(wc->wr_id >> 16))
		return; /* of one that is gone */
	INVARIANT(c->tx_posted > 0);
	c->tx_posted--;
	if (wc->status != IBV_WC_SUCCESS)
		rdma_conn_failed(c, wc->status);
	else if ((uint16_t)wc->wr_id == RDMA_WR_READ)
		rdma_rx_read_done(c);
	else
		rdma_tx_done(c, (uint16_t)wc->wr_id);
	rdma_conn_settle(c);
}

static void end_all(struct rdma *t, const char *why)
{
	struct rdma_conn *next;

	if (t->failed)
		return;
	log_error("rdma", "%s: all connections over RDMA end", why);
	t->failed = true;
	for (struct rdma_conn *c = t->conns; c != NULL; c = next) {
		next = c->next;
		rdma_conn_end(c, -E_DISCONNECTED);
	}
}

static void arm_channel(struct rdma *t)
{
	t->channel_polled = true;
	reactor_io_poll(t->head.reactor, &t->channel_io, t->channel->fd, POLLIN);
}

/* Returns whether all were taken; a bounded number is in one turn. */
static bool poll_batches(struct rdma *t, bool *ret_any)
{
	struct ibv_wc wcs[RDMA_POLL_BATCH];

	*ret_any = false;
	for (uint32_t i = 0; i < RDMA_POLL_BATCHES; i++) {
		int n = t->verbs->poll_cq(t->cq, RDMA_POLL_BATCH, wcs);

		t->counters.poll_calls++;
		/* They may have come long after the turn began, if the process was stopped since:
		 * whoever hears of them must not judge them by the time that it was then. */
		if (n > 0)
			reactor_refresh(t->head.reactor);
		for (int k = 0; k < n; k++)
			take(t, &wcs[k]);
		*ret_any = *ret_any || n > 0;
		if (n < 0)
			log_warn("rdma", "the completion queue cannot be read: %s", err_text(n));
		if (n < (int)RDMA_POLL_BATCH)
			return true;
	}
	return false;
}

void rdma_poll(struct rdma *t)
{
	bool any;

	if (t->cq != NULL && !t->failed)
		poll_batches(t, &any);
}

static bool is_idle(const struct rdma *t)
{
	return t->conn_count == 0 || t->failed;
}

/* Takes what is there, and sees to it that it is called again: by the channel when something comes,
 * or in the next turn (which doesn't sleep while that timer is due). */
static void poll_and_wait(struct rdma *t)
{
	struct reactor *r = t->head.reactor;
	bool any, drained = poll_batches(t, &any);

	if (t->poll_ns > 0) {
		reactor_refresh(r);
		if (any)
			t->busy_until_ns = reactor_now_ns(r) + t->poll_ns;
		drained = drained && reactor_now_ns(r) >= t->busy_until_ns;
	}
	if (drained && !is_idle(t)) {
		/* What came before the question is told by nobody: it is looked for once more. */
		t->counters.notify_calls++;
		t->verbs->req_notify_cq(t->cq, 0);
		drained = poll_batches(t, &any);
	}
	if (is_idle(t))
		return;
	if (!drained)
		reactor_timer_arm(r, &t->again, reactor_now_ns(r));
	else if (!t->channel_polled)
		arm_channel(t);
}

static void poll_again(struct reactor_timer *timer)
{
	struct rdma *t = container_of(timer, struct rdma, again);

	if (!is_idle(t))
		poll_and_wait(t);
}

/* The descriptor says that the device is gone. */
static bool is_hung_up(int32_t result)
{
	return result > 0 && (result & (POLLERR | POLLHUP | POLLNVAL)) != 0;
}

static void channel_ready(struct reactor_io *io, int32_t result)
{
	struct rdma *t = container_of(io, struct rdma, channel_io);
	struct ibv_cq *cq;
	void *arg;

	t->channel_polled = false;
	if (t->conn_count == 0) {
		rdma_wait_end(t);
		return;
	}
	if (is_hung_up(result))
		end_all(t, "the RDMA device was removed");
	if (t->failed)
		return;
	if (t->verbs->get_cq_event(t->channel, &cq, &arg) == 0) {
		t->counters.events++;
		t->verbs->ack_cq_events(cq, 1);
	}
	poll_and_wait(t);
}

/* -- events of the device --------------------------------------------------------------------- */

static void take_event(struct rdma *t, const struct ibv_async_event *event)
{
	struct rdma_conn *next;

	switch ((int)event->event_type) {
	case IBV_EVENT_CQ_ERR:
		end_all(t, "the completion queue has overrun");
		return;
	case IBV_EVENT_SRQ_ERR:
		end_all(t, "the receive queue is broken");
		return;
	case IBV_EVENT_DEVICE_FATAL:
		end_all(t, "the RDMA device has failed or was removed");
		return;
	case IBV_EVENT_QP_FATAL:
	case IBV_EVENT_QP_REQ_ERR:
	case IBV_EVENT_QP_ACCESS_ERR:
		for (struct rdma_conn *c = t->conns; c != NULL; c = next) {
			next = c->next;
			if (c->qp != NULL && c->qp == event->element.qp)
				rdma_conn_failed(c, IBV_WC_FATAL_ERR);
		}
		return;
	default: /* a port that went down comes back, or the sends' retries run out */
		return;
	}
}

static void arm_events(struct rdma *t)
{
	t->event_polled = true;
	reactor_io_poll(t->head.reactor, &t->event_io, t->context->async_fd, POLLIN);
}

static void event_ready(struct reactor_io *io, int32_t result)
{
	struct rdma *t = container_of(io, struct rdma, event_io);
	struct ibv_async_event event;

	t->event_polled = false;
	if (t->conn_count == 0) {
		rdma_wait_end(t);
		return;
	}
	if (is_hung_up(result))
		end_all(t, "the RDMA device was removed");
	while (!t->failed && t->verbs->get_async_event(t->context, &event) == 0) {
		take_event(t, &event);
		t->verbs->ack_async_event(&event);
	}
	if (t->conn_count > 0 && !t->failed)
		arm_events(t);
}

/* -- waiting ---------------------------------------------------------------------------------- */

void rdma_wait_begin(struct rdma *t)
{
	t->channel_io.done = channel_ready;
	t->event_io.done = event_ready;
	t->again.fire = poll_again;
	if (t->failed)
		return;
	if (!t->event_polled)
		arm_events(t);
	if (!t->channel_polled)
		poll_and_wait(t);
}

void rdma_wait_end(struct rdma *t)
{
	reactor_timer_cancel(t->head.reactor, &t->again);
	if (t->channel_polled)
		reactor_io_cancel(t->head.reactor, &t->channel_io);
	if (t->event_polled)
		reactor_io_cancel(t->head.reactor, &t->event_io);
	if (!t->channel_polled && !t->event_polled)
		rdma_device_close(t);
	rdma_free_if_unused(t);
}

void rdma_free_if_unused(struct rdma *t)
{
	if (t->destroyed && t->listener_count == 0 && !t->channel_polled && !t->event_polled &&
	    t->context == NULL)
		free(t);
}
