/* An RDMA device in memory, behind the table of verbs (net/rdma/verbs.h): queue pairs of one
 * process reach each other, at once, and every check that a device makes of keys, lengths, states
 * and limits is made. It refuses what the test wants refused. One device a process; one thread. */
#ifndef UNIT_FAKE_VERBS_H
#define UNIT_FAKE_VERBS_H

#include <stdbool.h>

#include "net/rdma/verbs.h"

enum fake_op { FAKE_SEND, FAKE_RECEIVE, FAKE_READ, FAKE_OPS };

struct fake_device {
	struct ibv_device_attr attr;
	enum ibv_port_state port_state;
	bool absent;	  /* the list is empty */
	bool deaf;	  /* what is sent vanishes, and nobody is told */
	bool hold;	  /* what is posted waits until the queue pair is in its error state */
	bool never_flush; /* and not even then does it come back */
	/* The next operation of this kind that would succeed ends with this; 0: it succeeds. */
	enum ibv_wc_status next_status[FAKE_OPS];
	bool corrupt_next; /* a bit of the next message is inverted */
	/* The call of this number, counted from 1, of those that can fail, does, with ENOMEM; 0:
	 * none.
	 */
	unsigned fail_at, calls;
	unsigned live; /* objects that were made and not destroyed */
	unsigned mr_count, qp_count;
	unsigned posts; /* calls of post_send */
};

extern struct fake_device fake_device;
extern const struct rdma_verbs fake_verbs;

/* As new: plenty of everything. Nothing of the last test may be alive. */
void fake_device_reset(void);

/* An event of the device; of its first queue pair, where it concerns one. */
void fake_device_event(enum ibv_event_type type);

#endif
