/* verbs: the table of libibverbs's own calls. Some of them are macros or inline functions, which
 * have no address; these go through functions of ours. No state, no failure modes of its own. */
#include "net/rdma/verbs.h"

static int query_port(struct ibv_context *context, uint8_t port, struct ibv_port_attr *ret)
{
	return ibv_query_port(context, port, ret);
}

static ssize_t query_gid_table(struct ibv_context *context, struct ibv_gid_entry *ret_entries,
			       size_t max)
{
	return ibv_query_gid_table(context, ret_entries, max, 0);
}

static struct ibv_mr *reg_mr(struct ibv_pd *pd, void *address, size_t size_bytes, int access)
{
	return ibv_reg_mr(pd, address, size_bytes, (unsigned)access);
}

static int req_notify_cq(struct ibv_cq *cq, int solicited_only)
{
	return ibv_req_notify_cq(cq, solicited_only);
}

static int poll_cq(struct ibv_cq *cq, int count, struct ibv_wc *ret_wcs)
{
	return ibv_poll_cq(cq, count, ret_wcs);
}

static int post_srq_recv(struct ibv_srq *srq, struct ibv_recv_wr *wr, struct ibv_recv_wr **ret_bad)
{
	return ibv_post_srq_recv(srq, wr, ret_bad);
}

static int post_send(struct ibv_qp *qp, struct ibv_send_wr *wr, struct ibv_send_wr **ret_bad)
{
	return ibv_post_send(qp, wr, ret_bad);
}

const struct rdma_verbs rdma_verbs_library = {
    .get_device_list = ibv_get_device_list,
    .free_device_list = ibv_free_device_list,
    .get_device_name = ibv_get_device_name,
    .open_device = ibv_open_device,
    .close_device = ibv_close_device,
    .query_device = ibv_query_device,
    .query_port = query_port,
    .query_gid_table = query_gid_table,
    .get_async_event = ibv_get_async_event,
    .ack_async_event = ibv_ack_async_event,
    .alloc_pd = ibv_alloc_pd,
    .dealloc_pd = ibv_dealloc_pd,
    .reg_mr = reg_mr,
    .dereg_mr = ibv_dereg_mr,
    .create_comp_channel = ibv_create_comp_channel,
    .destroy_comp_channel = ibv_destroy_comp_channel,
    .create_cq = ibv_create_cq,
    .destroy_cq = ibv_destroy_cq,
    .req_notify_cq = req_notify_cq,
    .get_cq_event = ibv_get_cq_event,
    .ack_cq_events = ibv_ack_cq_events,
    .poll_cq = poll_cq,
    .create_srq = ibv_create_srq,
    .destroy_srq = ibv_destroy_srq,
    .post_srq_recv = post_srq_recv,
    .create_qp = ibv_create_qp,
    .modify_qp = ibv_modify_qp,
    .destroy_qp = ibv_destroy_qp,
    .post_send = post_send,
};
