/* fake_verbs: see fake_verbs.h. Posted work is carried out in post_send, and completes in the
 * queues, where poll_cq finds it; an armed completion queue makes its channel readable, once. */
#include "tests/unit/fake_verbs.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "engine/base/assert.h"
#include "engine/base/types.h"

#define QPS_MAX	   64
#define MRS_MAX	   512
#define HELD_MAX   128
#define EVENTS_MAX 8
#define READS_MAX  64

struct fake_cq {
	struct ibv_cq cq;
	struct ibv_wc *ring;
	unsigned size, first, end;
	bool armed, overrun;
};

struct fake_srq {
	struct ibv_srq srq;
	struct ibv_sge *sges;
	uint64_t *ids;
	unsigned size, first, end;
};

struct fake_qp {
	struct ibv_qp qp;
	enum ibv_qp_state state;
	uint32_t peer;
	unsigned size, sges;
	uint64_t held[HELD_MAX];
	unsigned held_count;
};

struct fake_read {
	uint32_t qp;
	struct ibv_send_wr wr;
	struct ibv_sge sge;
};

struct fake_mr {
	struct ibv_mr mr;
	int access;
};

struct fake_device fake_device;

static struct ibv_device device;
static struct ibv_context context;
static struct ibv_comp_channel channel;
static struct fake_qp *qps[QPS_MAX];
static struct fake_mr *mrs[MRS_MAX];
static struct ibv_async_event events[EVENTS_MAX];
static unsigned event_first, event_end;
static struct fake_cq *the_cq;
static bool is_broken; /* its completions are nobody's any more */
static struct fake_read reads[READS_MAX];
static unsigned read_first, read_end;
static uint32_t numbers = 100;

static bool fails(void)
{
	if (++fake_device.calls != fake_device.fail_at)
		return false;
	errno = ENOMEM;
	return true;
}

static void *make(size_t size)
{
	void *p = calloc(1, size);

	INVARIANT(p != NULL);
	fake_device.live++;
	return p;
}

static int destroy(void *p)
{
	free(p);
	fake_device.live--;
	return 0;
}

/* -- the device ------------------------------------------------------------------------------- */

static struct ibv_device **get_device_list(int *ret_count)
{
	struct ibv_device **list = make(2 * sizeof *list);

	*ret_count = fake_device.absent ? 0 : 1;
	list[0] = fake_device.absent ? NULL : &device;
	return list;
}

static void free_device_list(struct ibv_device **list)
{
	destroy(list);
}

/* -- its descriptors -------------------------------------------------------------------------- */

/* The ends of its descriptors that are ours: what is written there wakes whoever polls. */
static int event_end_fd, channel_end_fd;

/* The other end. */
static int wake_up_fd(int *ret_ours)
{
	int pair[2];

	INVARIANT(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) == 0);
	*ret_ours = pair[0];
	return pair[1];
}

static void wake_up(int ours)
{
	(void)!send(ours, "!", 1, MSG_NOSIGNAL | MSG_DONTWAIT);
}

static void close_both(int *ours, int others)
{
	if (*ours >= 0)
		close(*ours);
	*ours = -1;
	close(others);
}

void fake_device_hang_up(bool of_channel)
{
	int *ours = of_channel ? &channel_end_fd : &event_end_fd;

	close(*ours);
	*ours = -1;
	is_broken = true;
}

static const char *get_device_name(struct ibv_device *d)
{
	(void)d;
	return "fake0";
}

static struct ibv_context *open_device(struct ibv_device *d)
{
	(void)d;
	if (fails())
		return NULL;
	fake_device.live++;
	context.async_fd = wake_up_fd(&event_end_fd);
	return &context;
}

static int close_device(struct ibv_context *c)
{
	close_both(&event_end_fd, c->async_fd);
	fake_device.live--;
	return 0;
}

static int query_device(struct ibv_context *c, struct ibv_device_attr *ret_attr)
{
	(void)c;
	*ret_attr = fake_device.attr;
	return fails() ? ENOMEM : 0;
}

static int query_port(struct ibv_context *c, uint8_t port, struct ibv_port_attr *ret)
{
	(void)c;
	*ret = (struct ibv_port_attr){.state = fake_device.port_state,
				      .active_mtu = IBV_MTU_1024,
				      .link_layer = IBV_LINK_LAYER_ETHERNET};
	return port == 1 ? 0 : EINVAL;
}

static ssize_t query_gid_table(struct ibv_context *c, struct ibv_gid_entry *ret, size_t max)
{
	(void)c;
	PRE(max >= 2);
	if (fails())
		return -ENOMEM;
	for (unsigned i = 0; i < 2; i++)
		ret[i] = (struct ibv_gid_entry){.gid.raw = {[10] = 0xff, [11] = 0xff, 127, 0, 0, 1},
						.gid_index = i,
						.port_num = 1,
						.gid_type = 1 + i};
	return 2;
}

static int get_async_event(struct ibv_context *c, struct ibv_async_event *ret)
{
	uint64_t one;

	if (event_first == event_end) {
		errno = EAGAIN;
		return -1;
	}
	(void)!read(c->async_fd, &one, sizeof one);
	*ret = events[event_first++ % EVENTS_MAX];
	return 0;
}

static void ack_async_event(struct ibv_async_event *event)
{
	(void)event;
}

void fake_device_event(enum ibv_event_type type)
{
	struct ibv_async_event *e = &events[event_end++ % EVENTS_MAX];

	*e = (struct ibv_async_event){.event_type = type};
	is_broken = is_broken || type == IBV_EVENT_CQ_ERR || type == IBV_EVENT_SRQ_ERR ||
		    type == IBV_EVENT_DEVICE_FATAL;
	for (unsigned i = 0; i < QPS_MAX && e->element.qp == NULL; i++)
		if (qps[i] != NULL)
			e->element.qp = &qps[i]->qp;
	wake_up(event_end_fd);
}

/* -- memory ----------------------------------------------------------------------------------- */

static struct ibv_pd *alloc_pd(struct ibv_context *c)
{
	(void)c;
	return fails() ? NULL : make(sizeof(struct ibv_pd));
}

static int dealloc_pd(struct ibv_pd *pd)
{
	return destroy(pd);
}

static struct ibv_mr *reg_mr(struct ibv_pd *pd, void *address, size_t size_bytes, int access)
{
	struct fake_mr *mr;
	unsigned i = 0;

	if (fails())
		return NULL;
	while (i < MRS_MAX && mrs[i] != NULL)
		i++;
	if (i == MRS_MAX || fake_device.mr_count >= (unsigned)fake_device.attr.max_mr) {
		errno = ENOMEM;
		return NULL;
	}
	mr = make(sizeof *mr);
	mr->mr = (struct ibv_mr){
	    .pd = pd, .addr = address, .length = size_bytes, .lkey = 7000 + i, .rkey = 9000 + i};
	mr->access = access;
	mrs[i] = mr;
	fake_device.mr_count++;
	return &mr->mr;
}

static int dereg_mr(struct ibv_mr *mr)
{
	mrs[mr->lkey - 7000] = NULL;
	fake_device.mr_count--;
	return destroy(container_of(mr, struct fake_mr, mr));
}

static bool may_access(uint32_t index, uint64_t address, uint32_t size, int access)
{
	const struct fake_mr *mr = index < MRS_MAX ? mrs[index] : NULL;
	uint64_t base;

	if (mr == NULL || (access != 0 && (mr->access & access) == 0))
		return false;
	base = (uintptr_t)mr->mr.addr;
	return address >= base && address - base <= mr->mr.length &&
	       size <= mr->mr.length - (address - base);
}

/* -- completions ------------------------------------------------------------------------------ */

static struct ibv_comp_channel *create_comp_channel(struct ibv_context *c)
{
	(void)c;
	if (fails())
		return NULL;
	fake_device.live++;
	channel.fd = wake_up_fd(&channel_end_fd);
	return &channel;
}

static int destroy_comp_channel(struct ibv_comp_channel *c)
{
	close_both(&channel_end_fd, c->fd);
	fake_device.live--;
	return 0;
}

static struct ibv_cq *create_cq(struct ibv_context *c, int entries, void *arg,
				struct ibv_comp_channel *ch, int vector)
{
	struct fake_cq *cq;

	(void)vector;
	if (fails())
		return NULL;
	if (entries > fake_device.attr.max_cqe) {
		errno = EINVAL;
		return NULL;
	}
	cq = make(sizeof *cq);
	cq->cq = (struct ibv_cq){.context = c, .channel = ch, .cq_context = arg};
	cq->size = (unsigned)entries;
	if (fake_device.cq_max > 0)
		cq->size = MIN(cq->size, fake_device.cq_max);
	cq->ring = make(cq->size * sizeof *cq->ring);
	the_cq = cq;
	return &cq->cq;
}

static int destroy_cq(struct ibv_cq *cq)
{
	destroy(the_cq->ring);
	return destroy(container_of(cq, struct fake_cq, cq));
}

static int req_notify_cq(struct ibv_cq *cq, int solicited_only)
{
	(void)solicited_only;
	container_of(cq, struct fake_cq, cq)->armed = true;
	return 0;
}

static int get_cq_event(struct ibv_comp_channel *c, struct ibv_cq **ret_cq, void **ret_arg)
{
	uint64_t one;

	*ret_cq = &the_cq->cq;
	*ret_arg = NULL;
	return read(c->fd, &one, sizeof one) == sizeof one ? 0 : -1;
}

static void ack_cq_events(struct ibv_cq *cq, unsigned count)
{
	(void)cq;
	(void)count;
}

static int poll_cq(struct ibv_cq *head, int count, struct ibv_wc *ret_wcs)
{
	struct fake_cq *cq = container_of(head, struct fake_cq, cq);
	int n = 0;

	while (n < count && cq->first != cq->end)
		ret_wcs[n++] = cq->ring[cq->first++ % cq->size];
	if (n > 0 && fake_device.taken != NULL)
		fake_device.taken();
	return n;
}

static void completed(struct ibv_cq *head, uint64_t id, uint32_t qp, enum ibv_wc_status status,
		      uint32_t size)
{
	struct fake_cq *cq = container_of(head, struct fake_cq, cq);

	if (cq->end - cq->first == cq->size) {
		if (!cq->overrun)
			fake_device_event(IBV_EVENT_CQ_ERR);
		cq->overrun = true;
		return;
	}
	cq->ring[cq->end++ % cq->size] =
	    (struct ibv_wc){.wr_id = id,
			    .status = status,
			    .opcode = size > 0 ? IBV_WC_RECV : IBV_WC_SEND,
			    .qp_num = qp,
			    .byte_len = size};
	if (fake_device.mute)
		return;
	if (cq->armed)
		wake_up(channel_end_fd);
	cq->armed = false;
}

/* -- receive queue ---------------------------------------------------------------------------- */

static struct ibv_srq *create_srq(struct ibv_pd *pd, struct ibv_srq_init_attr *attr)
{
	struct fake_srq *srq;

	if (fails())
		return NULL;
	if (attr->attr.max_wr > (uint32_t)fake_device.attr.max_srq_wr) {
		errno = EINVAL;
		return NULL;
	}
	srq = make(sizeof *srq);
	srq->srq.pd = pd;
	srq->size = attr->attr.max_wr;
	srq->sges = make(srq->size * sizeof *srq->sges);
	srq->ids = make(srq->size * sizeof *srq->ids);
	return &srq->srq;
}

static int destroy_srq(struct ibv_srq *head)
{
	struct fake_srq *srq = container_of(head, struct fake_srq, srq);

	destroy(srq->sges);
	destroy(srq->ids);
	return destroy(srq);
}

static int post_srq_recv(struct ibv_srq *head, struct ibv_recv_wr *wr, struct ibv_recv_wr **ret_bad)
{
	struct fake_srq *srq = container_of(head, struct fake_srq, srq);

	*ret_bad = wr;
	if (fails() || srq->end - srq->first == srq->size)
		return ENOMEM;
	PRE(wr->next == NULL && wr->num_sge == 1);
	srq->sges[srq->end % srq->size] = *wr->sg_list;
	srq->ids[srq->end++ % srq->size] = wr->wr_id;
	return 0;
}

/* -- queue pairs ------------------------------------------------------------------------------ */

static struct ibv_qp *create_qp(struct ibv_pd *pd, struct ibv_qp_init_attr *attr)
{
	struct fake_qp *q;
	unsigned i = 0;

	if (fails())
		return NULL;
	while (i < QPS_MAX && qps[i] != NULL)
		i++;
	if (i == QPS_MAX || fake_device.qp_count >= (unsigned)fake_device.attr.max_qp) {
		errno = ENOMEM;
		return NULL;
	}
	q = make(sizeof *q);
	q->qp = (struct ibv_qp){.pd = pd,
				.send_cq = attr->send_cq,
				.recv_cq = attr->recv_cq,
				.srq = attr->srq,
				.qp_num = numbers++};
	q->size = attr->cap.max_send_wr;
	q->sges = attr->cap.max_send_sge;
	PRE(q->size <= HELD_MAX);
	qps[i] = q;
	fake_device.qp_count++;
	return &q->qp;
}

static struct fake_qp *find_qp(uint32_t number)
{
	for (unsigned i = 0; i < QPS_MAX; i++)
		if (qps[i] != NULL && qps[i]->qp.qp_num == number)
			return qps[i];
	return NULL;
}

/* What was posted and did not begin comes back. */
static void break_qp(struct fake_qp *q)
{
	q->state = IBV_QPS_ERR;
	for (unsigned i = 0; i < q->held_count && !fake_device.never_flush; i++)
		completed(q->qp.send_cq, q->held[i], q->qp.qp_num, IBV_WC_WR_FLUSH_ERR, 0);
	q->held_count = 0;
}

static int modify_qp(struct ibv_qp *head, struct ibv_qp_attr *attr, int mask)
{
	struct fake_qp *q = container_of(head, struct fake_qp, qp);

	PRE((mask & IBV_QP_STATE) != 0);
	if (attr->qp_state != IBV_QPS_ERR && fails())
		return ENOMEM;
	if (attr->qp_state == IBV_QPS_ERR) {
		break_qp(q);
		return 0;
	}
	PRE((unsigned)attr->qp_state == (unsigned)q->state + 1);
	q->state = attr->qp_state;
	if ((mask & IBV_QP_DEST_QPN) != 0)
		q->peer = attr->dest_qp_num;
	return 0;
}

/* Something that was posted to send was not heard of yet. */
static bool has_work(const struct fake_qp *q)
{
	const struct fake_cq *cq = container_of(q->qp.send_cq, struct fake_cq, cq);

	for (unsigned i = cq->first; i != cq->end; i++)
		if (cq->ring[i % cq->size].qp_num == q->qp.qp_num &&
		    cq->ring[i % cq->size].opcode == IBV_WC_SEND)
			return true;
	return q->held_count > 0;
}

static int destroy_qp(struct ibv_qp *head)
{
	struct fake_srq *srq = container_of(head->srq, struct fake_srq, srq);

	/* Unless it never comes, whoever destroys waits for it. */
	PRE(fake_device.never_flush || fake_device.mute || is_broken ||
	    !has_work(container_of(head, struct fake_qp, qp)));
	if (fake_device.eat_buffers && srq->first != srq->end)
		srq->first++;
	for (unsigned i = 0; i < QPS_MAX; i++)
		if (qps[i] != NULL && &qps[i]->qp == head)
			qps[i] = NULL;
	fake_device.qp_count--;
	return destroy(container_of(head, struct fake_qp, qp));
}

static enum ibv_wc_status injected(enum fake_op op)
{
	const enum ibv_wc_status status = fake_device.next_status[op];

	fake_device.next_status[op] = IBV_WC_SUCCESS;
	return status;
}

static enum ibv_wc_status gather(const struct ibv_send_wr *wr, uint8_t *to, uint32_t room,
				 uint32_t *ret_size)
{
	uint32_t size = 0;

	for (int i = 0; i < wr->num_sge; i++) {
		const struct ibv_sge *s = &wr->sg_list[i];

		if (!may_access(s->lkey - 7000, s->addr, s->length, 0))
			return IBV_WC_LOC_PROT_ERR;
		if (s->length > room - size)
			return IBV_WC_REM_INV_REQ_ERR;
		memcpy(to + size, (const void *)(uintptr_t)s->addr, s->length);
		size += s->length;
	}
	*ret_size = size;
	return IBV_WC_SUCCESS;
}

static enum ibv_wc_status carry_out_send(struct fake_qp *from, const struct ibv_send_wr *wr)
{
	struct fake_qp *to = find_qp(from->peer);
	enum ibv_wc_status status, received;
	struct fake_srq *srq;
	struct ibv_sge *into;
	uint32_t size = 0;
	uint64_t id;

	if (to == NULL || to->peer != from->qp.qp_num || to->state < IBV_QPS_RTR ||
	    to->state == IBV_QPS_ERR)
		return IBV_WC_RETRY_EXC_ERR;
	srq = container_of(to->qp.srq, struct fake_srq, srq);
	if (srq->first == srq->end)
		return IBV_WC_RNR_RETRY_EXC_ERR;
	into = &srq->sges[srq->first % srq->size];
	id = srq->ids[srq->first++ % srq->size];
	PRE(may_access(into->lkey - 7000, into->addr, into->length, IBV_ACCESS_LOCAL_WRITE));
	status = gather(wr, (uint8_t *)(uintptr_t)into->addr, into->length, &size);
	if (fake_device.edit_next != NULL)
		fake_device.edit_next((uint8_t *)(uintptr_t)into->addr, size);
	fake_device.edit_next = NULL;
	received = status != IBV_WC_SUCCESS ? IBV_WC_LOC_LEN_ERR : injected(FAKE_RECEIVE);
	completed(to->qp.recv_cq, id, to->qp.qp_num, received, size);
	if (received != IBV_WC_SUCCESS)
		break_qp(to);
	return status;
}

static enum ibv_wc_status carry_out_read(struct fake_qp *from, const struct ibv_send_wr *wr)
{
	const struct fake_qp *to = find_qp(from->peer);
	const struct ibv_sge *s = wr->sg_list;

	PRE(wr->num_sge == 1);
	if (to == NULL || to->state == IBV_QPS_ERR)
		return IBV_WC_RETRY_EXC_ERR;
	if (!may_access(s->lkey - 7000, s->addr, s->length, IBV_ACCESS_LOCAL_WRITE))
		return IBV_WC_LOC_PROT_ERR;
	if (!may_access(wr->wr.rdma.rkey - 9000, wr->wr.rdma.remote_addr, s->length,
			IBV_ACCESS_REMOTE_READ))
		return IBV_WC_REM_ACCESS_ERR;
	memcpy((void *)(uintptr_t)s->addr, (const void *)(uintptr_t)wr->wr.rdma.remote_addr,
	       s->length);
	return IBV_WC_SUCCESS;
}

/* SENDs that are done, of which nobody was told yet. */
static struct late_send {
	struct ibv_cq *cq;
	uint64_t id;
	uint32_t qp;
} late_sends[HELD_MAX];
static unsigned late_count;

void fake_device_sends_done(void)
{
	for (unsigned i = 0; i < late_count; i++)
		completed(late_sends[i].cq, late_sends[i].id, late_sends[i].qp, IBV_WC_SUCCESS, 0);
	late_count = 0;
}

static void finish(struct fake_qp *q, const struct ibv_send_wr *wr, enum fake_op op)
{
	enum ibv_wc_status status = IBV_WC_WR_FLUSH_ERR;

	if (q->state == IBV_QPS_RTS) {
		status = op == FAKE_SEND ? carry_out_send(q, wr) : carry_out_read(q, wr);
		if (status == IBV_WC_SUCCESS)
			status = injected(op);
	}
	if (fake_device.late_sends && op == FAKE_SEND && status == IBV_WC_SUCCESS) {
		PRE(late_count < HELD_MAX);
		late_sends[late_count++] =
		    (struct late_send){q->qp.send_cq, wr->wr_id, q->qp.qp_num};
		return;
	}
	completed(q->qp.send_cq, wr->wr_id, q->qp.qp_num, status, 0);
	if (status != IBV_WC_SUCCESS)
		break_qp(q);
}

static void carry_out(struct fake_qp *q, const struct ibv_send_wr *wr)
{
	const enum fake_op op = wr->opcode == IBV_WR_SEND ? FAKE_SEND : FAKE_READ;

	if (fake_device.hold || fake_device.deaf) {
		PRE(q->held_count < q->size); /* the send queue would be full */
		q->held[q->held_count++] = wr->wr_id;
	} else if (op == FAKE_READ && fake_device.hold_reads) {
		PRE(wr->num_sge == 1 && read_end - read_first < READS_MAX);
		reads[read_end++ % READS_MAX] = (struct fake_read){q->qp.qp_num, *wr, *wr->sg_list};
	} else {
		finish(q, wr, op);
	}
}

bool fake_device_read_one(void)
{
	struct fake_read *r = &reads[read_first % READS_MAX];
	struct fake_qp *q;

	if (read_first == read_end)
		return false;
	read_first++;
	r->wr.sg_list = &r->sge;
	q = find_qp(r->qp);
	if (q != NULL)
		finish(q, &r->wr, FAKE_READ);
	return true;
}

static int post_send(struct ibv_qp *head, struct ibv_send_wr *wr, struct ibv_send_wr **ret_bad)
{
	struct fake_qp *q = container_of(head, struct fake_qp, qp);

	fake_device.posts++;
	for (; wr != NULL; wr = wr->next) {
		*ret_bad = wr;
		if (fails())
			return ENOMEM;
		PRE(q->state == IBV_QPS_RTS || q->state == IBV_QPS_ERR);
		PRE(wr->num_sge >= 1 && wr->num_sge <= (int)q->sges);
		carry_out(q, wr);
	}
	return 0;
}

/* -- the table -------------------------------------------------------------------------------- */

void fake_device_reset(void)
{
	INVARIANT(fake_device.live == 0);
	event_first = event_end;
	read_first = read_end;
	late_count = 0;
	is_broken = false;
	fake_device = (struct fake_device){
	    .attr = {.max_qp = QPS_MAX,
		     .max_qp_wr = 1024,
		     .max_sge = 16,
		     .max_cqe = 65535,
		     .max_mr = MRS_MAX,
		     .max_srq_wr = 65535,
		     .max_qp_rd_atom = 16,
		     .max_qp_init_rd_atom = 16,
		     .phys_port_cnt = 1},
	    .port_state = IBV_PORT_ACTIVE,
	};
}

const struct rdma_verbs fake_verbs = {
    .get_device_list = get_device_list,
    .free_device_list = free_device_list,
    .get_device_name = get_device_name,
    .open_device = open_device,
    .close_device = close_device,
    .query_device = query_device,
    .query_port = query_port,
    .query_gid_table = query_gid_table,
    .get_async_event = get_async_event,
    .ack_async_event = ack_async_event,
    .alloc_pd = alloc_pd,
    .dealloc_pd = dealloc_pd,
    .reg_mr = reg_mr,
    .dereg_mr = dereg_mr,
    .create_comp_channel = create_comp_channel,
    .destroy_comp_channel = destroy_comp_channel,
    .create_cq = create_cq,
    .destroy_cq = destroy_cq,
    .req_notify_cq = req_notify_cq,
    .get_cq_event = get_cq_event,
    .ack_cq_events = ack_cq_events,
    .poll_cq = poll_cq,
    .create_srq = create_srq,
    .destroy_srq = destroy_srq,
    .post_srq_recv = post_srq_recv,
    .create_qp = create_qp,
    .modify_qp = modify_qp,
    .destroy_qp = destroy_qp,
    .post_send = post_send,
};
