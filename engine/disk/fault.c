/* disk: the fault layer. See fault.h.
 *
 * Each operation gets a companion from a fixed pool, which is submitted to the disk below in its
 * place, changed as the fault that struck wants it; the caller's own operation is never changed,
 * but for its memory where a read is falsified. What is not done at all completes by a deferred
 * task, so that nothing is ever completed inside submit. */
#include "engine/disk/fault.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/assert.h"

#define ROAM_BITS 32771u /* to the next bit that is inverted: about a block, and odd */

struct companion {
	struct disk_op op;
	struct disk_op *original;
	struct fault_disk *disk;
	struct reactor_task task;
	struct reactor_timer timer;
	struct disk_fault fault; /* as it was when it struck */
	uint8_t *bounce;	 /* what is written in the place of the caller's memory */
	struct iovec iovs[DISK_IOV_MAX];
	bool is_struck;
	struct companion *next; /* free */
};

struct fault_disk {
	struct disk head;
	struct disk *inner;
	struct disk_fault_plan *plan;
	struct companion *free;
	uint32_t in_flight;
	struct companion pool[DISK_FAULT_OPS_MAX];
};

static void finish(struct companion *c, int status)
{
	struct fault_disk *disk = c->disk;
	struct disk_op *original = c->original;

	INVARIANT(disk->in_flight > 0);
	disk->in_flight--;
	free(c->bounce);
	c->bounce = NULL;
	c->next = disk->free;
	disk->free = c;
	original->done(original, status);
}

static void finish_undone(struct reactor_task *task)
{
	struct companion *c = container_of(task, struct companion, task);

	finish(c, c->fault.kind == DISK_FAULT_DROP ? 0 : c->fault.status);
}

static void flip(const struct disk_op *op, uint64_t bit)
{
	uint64_t at = bit % (op->size * 8) / 8;
	const struct iovec *iov = op->iovs;

	while (at >= iov->iov_len)
		at -= (iov++)->iov_len;
	((uint8_t *)iov->iov_base)[at] ^= (uint8_t)(1u << (bit % 8));
}

static void inner_done(struct disk_op *op, int status)
{
	struct companion *c = container_of(op, struct companion, op);

	if (status == 0 && c->is_struck && c->fault.kind == DISK_FAULT_FLIP &&
	    op->kind == DISK_READ)
		flip(op, c->fault.bit);
	if (status == 0 && c->is_struck && c->fault.kind == DISK_FAULT_SHORT)
		status = c->fault.status;
	finish(c, status);
}

static void delayed(struct reactor_timer *timer)
{
	struct companion *c = container_of(timer, struct companion, timer);

	disk_submit(c->disk->inner, &c->op);
}

static bool touches(const struct disk_fault *fault, const struct disk_op *op)
{
	if ((fault->on_kinds & DISK_FAULT_ON(op->kind)) == 0)
		return false;
	if (op->size < fault->size_min)
		return false;
	if (fault->to == 0)
		return true;
	return op->kind != DISK_FLUSH && op->offset < fault->to &&
	       op->offset + op->size > fault->from;
}

/* The fault that strikes op, or NULL. */
static struct disk_fault *find_fault(struct disk_fault_plan *plan, const struct disk_op *op)
{
	struct disk_fault *found = NULL;

	PRE(plan->count <= DISK_FAULTS_MAX);
	for (uint32_t i = 0; i < plan->count; i++) {
		struct disk_fault *fault = &plan->faults[i];

		if (!touches(fault, op))
			continue;
		if (fault->skip > 0) {
			fault->skip--;
		} else if (fault->every > 1 && ++fault->passed % fault->every != 0) {
			continue;
		} else if (found == NULL && fault->times > 0) {
			if (fault->times != DISK_FAULT_FOREVER)
				fault->times--;
			fault->hits++;
			found = fault;
		}
	}
	return found;
}

static struct companion *take_companion(struct fault_disk *disk, struct disk_op *op)
{
	struct companion *c = disk->free;

	PRE(c != NULL);
	disk->free = c->next;
	disk->in_flight++;
	c->disk = disk;
	c->original = op;
	c->is_struck = false;
	/* Not the whole of it: impl is large, and the implementation's to set. */
	c->op.kind = op->kind;
	c->op.durable = op->durable;
	c->op.offset = op->offset;
	c->op.size = op->size;
	c->op.iovs = op->iovs;
	c->op.iov_count = op->iov_count;
	c->op.done = inner_done;
	return c;
}

/* The caller's memory is not changed: what goes to the disk is a copy. */
static int flip_copy(struct companion *c)
{
	size_t at = 0;

	c->bounce = aligned_alloc(BLOCK_SIZE, c->op.size);
	if (c->bounce == NULL)
		return -ENOMEM;
	for (uint32_t i = 0; i < c->op.iov_count; i++) {
		memcpy(c->bounce + at, c->op.iovs[i].iov_base, c->op.iovs[i].iov_len);
		at += c->op.iovs[i].iov_len;
	}
	c->iovs[0] = (struct iovec){c->bounce, c->op.size};
	c->op.iovs = c->iovs;
	c->op.iov_count = 1;
	flip(&c->op, c->fault.bit);
	return 0;
}

/* Leaves the first half of the blocks of a read or write. False: that is none. */
static bool shorten(struct companion *c)
{
	uint64_t left = c->op.size / BLOCK_SIZE / 2 * BLOCK_SIZE;
	const struct iovec *iovs = c->op.iovs;
	uint32_t count = 0;

	if (left == 0 || (c->op.kind != DISK_READ && c->op.kind != DISK_WRITE))
		return false;
	c->op.size = left;
	while (left > 0) {
		c->iovs[count] =
		    (struct iovec){iovs[count].iov_base, MIN(iovs[count].iov_len, (size_t)left)};
		left -= c->iovs[count++].iov_len;
	}
	c->op.iovs = c->iovs;
	c->op.iov_count = count;
	return true;
}

static void complete_later(struct companion *c)
{
	c->task = (struct reactor_task){.run = finish_undone};
	reactor_defer(c->disk->head.reactor, &c->task);
}

static void fault_submit(struct disk *head, struct disk_op *op)
{
	struct fault_disk *disk = container_of(head, struct fault_disk, head);
	struct companion *c = take_companion(disk, op);
	struct disk_fault *fault = find_fault(disk->plan, op);

	disk->plan->submitted[op->kind]++;
	if (fault == NULL) {
		disk_submit(disk->inner, &c->op);
		return;
	}
	c->is_struck = true;
	c->fault = *fault;
	if (fault->roams)
		c->fault.bit += fault->hits * ROAM_BITS;
	switch (fault->kind) {
	case DISK_FAULT_ERROR:
	case DISK_FAULT_DROP:
		PRE(fault->kind == DISK_FAULT_DROP || fault->status < 0);
		complete_later(c);
		return;
	case DISK_FAULT_SHORT:
		PRE(fault->status < 0);
		if (!shorten(c)) {
			complete_later(c);
			return;
		}
		break;
	case DISK_FAULT_DELAY:
		c->timer = (struct reactor_timer){.fire = delayed};
		reactor_timer_arm(head->reactor, &c->timer,
				  reactor_now_ns(head->reactor) + fault->delay_ns);
		return;
	case DISK_FAULT_LIE:
		c->op.durable = false;
		break;
	case DISK_FAULT_MISDIRECT:
		c->op.offset = fault->elsewhere;
		break;
	case DISK_FAULT_FLIP:
		if (op->kind == DISK_WRITE && flip_copy(c) != 0) {
			c->fault.status = -ENOMEM;
			complete_later(c);
			return;
		}
		break;
	}
	disk_submit(disk->inner, &c->op);
}

static void fault_close(struct disk *head)
{
	struct fault_disk *disk = container_of(head, struct fault_disk, head);

	PRE(disk->in_flight == 0);
	disk_close(disk->inner);
	free(disk);
}

static const struct disk_ops fault_ops = {.submit = fault_submit, .close = fault_close};

int disk_fault_open(struct disk *inner, struct disk_fault_plan *plan, struct disk **ret_disk)
{
	struct fault_disk *disk = calloc(1, sizeof *disk);

	if (disk == NULL)
		return -ENOMEM;
	disk->head = *inner;
	disk->head.ops = &fault_ops;
	disk->inner = inner;
	disk->plan = plan;
	for (uint32_t i = 0; i < DISK_FAULT_OPS_MAX; i++) {
		disk->pool[i].next = disk->free;
		disk->free = &disk->pool[i];
	}
	*ret_disk = &disk->head;
	return 0;
}
