/* Trace: where the time of a volume's operations goes, while somebody asks.
 *
 * While a trace is on, requests carry FRAME_F_TRACE to nodes that know it, and their answers bring
 * how long each step on the node took (proto/FORMAT.md). Of a write the answer that made the
 * majority is what counts: the time until then is what the guest waited.
 *
 *   submitted -host queue-> sent -network-> [received -node queue-> log begins -log-> durable
 *   -answer-> handed to the network] -network-> answered -host end-> done
 *
 * Off, it costs a compare with NULL for each frame and each operation. Thread: the reactor's. */
#ifndef VOLUME_TRACE_H
#define VOLUME_TRACE_H

#include "engine/volume/volume.h"

#define VOLUME_TRACE_MAX 64u

enum volume_trace_part {
	TRACE_HOST_QUEUE, /* waited for memory, window, gate, connection, or for an older write */
	TRACE_NETWORK,	  /* both ways, and the time in which neither side looked */
	TRACE_NODE_QUEUE, /* until its group was handed to the disk; of a read: for memory */
	TRACE_LOG,	  /* the group's write; of a read: the disk */
	TRACE_ANSWER,	  /* on the node, until the answer was handed to the network */
	TRACE_HOST_END,	  /* held on the host after the answer that decided it */
	VOLUME_TRACE_PARTS,
};

struct volume_trace_op {
	enum volume_op_kind kind;
	uint64_t offset;
	uint32_t size;
	uint64_t ended_ns; /* CLOCK_BOOTTIME */
	uint64_t total_ns; /* the sum of the parts, where told */
	bool told;	   /* the answer that decided it told its node's part */
	uint64_t parts_ns[VOLUME_TRACE_PARTS];
	char node[NAME_SIZE_MAX]; /* of that answer; "" when not told */
};

/* The present answer, on its way up. */
struct volume_trace_answer {
	bool told;
	uint64_t sent_ns, answered_ns;
	uint64_t parts_ns[VOLUME_TRACE_PARTS];
	uint32_t node;
};

/* The caller's; zeroed by volume_trace_start. [0]: reads, [1]: all that changes something. */
struct volume_trace {
	uint64_t begun_ns;
	uint64_t operations[2], told[2];
	uint64_t total_ns[2]; /* of those that told, as the parts */
	uint64_t parts_ns[2][VOLUME_TRACE_PARTS];
	uint32_t count, fastest;
	struct volume_trace_op slowest[VOLUME_TRACE_MAX]; /* in no order until volume_trace_stop */
	struct volume_trace_answer answer;
};

/* One at a time: -EBUSY. t is lent until volume_trace_stop, which must come before volume_close.
 * Operations that are in flight when it starts or stops may be left out. */
int volume_trace_start(struct volume *v, struct volume_trace *t);

/* Sorts: the slowest first. */
void volume_trace_stop(struct volume *v);

const char *volume_trace_part_name(enum volume_trace_part part);

/* -- for the other parts of the volume ----------------------------------------------------------
 */

struct vrequest;

/* An answer has come; a trace is on. */
void vtrace_answer(struct volume *v, const struct vrequest *q, const struct frame *f);

/* op ends; a trace is on, and its answer is that of the last piece. */
void vtrace_done(struct volume *v, const struct volume_op *op, uint64_t submitted_ns, int status);

#endif
