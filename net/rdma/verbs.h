/* The calls of libibverbs that this module makes, as a table: production fills it with the
 * library's (verbs.c), tests with a device in memory that fails on demand. The only header that
 * includes infiniband/verbs.h. Each is as its man page says; where the library returns NULL or -1,
 * errno says why, where it returns a number, that is the (positive) errno. */
#ifndef RDMA_VERBS_H
#define RDMA_VERBS_H

#include <infiniband/verbs.h>
#include <sys/types.h>

struct rdma_verbs {
	struct ibv_device **(*get_device_list)(int *ret_count);
	void (*free_device_list)(struct ibv_device **list);
	const char *(*get_device_name)(struct ibv_device *device);
	struct ibv_context *(*open_device)(struct ibv_device *device);
	int (*close_device)(struct ibv_context *context);
	int (*query_device)(struct ibv_context *context, struct ibv_device_attr *ret_attr);
	int (*query_port)(struct ibv_context *context, uint8_t port, struct ibv_port_attr *ret);
	ssize_t (*query_gid_table)(struct ibv_context *context, struct ibv_gid_entry *ret_entries,
				   size_t max);
	int (*get_async_event)(struct ibv_context *context, struct ibv_async_event *ret_event);
	void (*ack_async_event)(struct ibv_async_event *event);

	struct ibv_pd *(*alloc_pd)(struct ibv_context *context);
	int (*dealloc_pd)(struct ibv_pd *pd);
	struct ibv_mr *(*reg_mr)(struct ibv_pd *pd, void *address, size_t size_bytes, int access);
	int (*dereg_mr)(struct ibv_mr *mr);

	struct ibv_comp_channel *(*create_comp_channel)(struct ibv_context *context);
	int (*destroy_comp_channel)(struct ibv_comp_channel *channel);
	struct ibv_cq *(*create_cq)(struct ibv_context *context, int entries, void *arg,
				    struct ibv_comp_channel *channel, int vector);
	int (*destroy_cq)(struct ibv_cq *cq);
	int (*req_notify_cq)(struct ibv_cq *cq, int solicited_only);
	int (*get_cq_event)(struct ibv_comp_channel *channel, struct ibv_cq **ret_cq,
			    void **ret_arg);
	void (*ack_cq_events)(struct ibv_cq *cq, unsigned count);
	int (*poll_cq)(struct ibv_cq *cq, int count, struct ibv_wc *ret_wcs);

	struct ibv_srq *(*create_srq)(struct ibv_pd *pd, struct ibv_srq_init_attr *attr);
	int (*destroy_srq)(struct ibv_srq *srq);
	int (*post_srq_recv)(struct ibv_srq *srq, struct ibv_recv_wr *wr,
			     struct ibv_recv_wr **ret_bad);

	struct ibv_qp *(*create_qp)(struct ibv_pd *pd, struct ibv_qp_init_attr *attr);
	int (*modify_qp)(struct ibv_qp *qp, struct ibv_qp_attr *attr, int mask);
	int (*destroy_qp)(struct ibv_qp *qp);
	int (*post_send)(struct ibv_qp *qp, struct ibv_send_wr *wr, struct ibv_send_wr **ret_bad);
};

extern const struct rdma_verbs rdma_verbs_library;

#endif
