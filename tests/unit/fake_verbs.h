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
	bool hold_reads;  /* READs wait for fake_device_read_one */
	bool mute;	  /* nobody is woken by a completion */
	bool eat_buffers; /* a queue pair that is destroyed takes a receive buffer with it */
	unsigned cq_max;  /* completion queues are no larger, whatever was agreed on; 0: no limit */
	/* The next operation of this kind that would succeed ends with this; 0: it succeeds. */
	enum ibv_wc_status next_status[FAKE_OPS];
	bool late_sends; /* SENDs arrive, and are said to be done with fake_device_sends_done */
	/* The next message, as it lies in the receive buffer, is changed by this; NULL: it isn't.
	 */
	void (*edit_next)(uint8_t *bytes, uint32_t size_bytes);
	void (*taken)(void); /* completions were found, and are returned next; NULL */
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

/* Carries out the READ that was posted first of those that are held. false: there is none. */
bool fake_device_read_one(void);

/* The completions of the SENDs that were late_sends. */
void fake_device_sends_done(void);

/* A descriptor of the device hangs up, as when it is removed: that of the completion channel, or
 * that of its events. */
void fake_device_hang_up(bool of_channel);

/* An event of the device; of its first queue pair, where it concerns one. */
void fake_device_event(enum ibv_event_type type);

#endif
