/* A disk over another disk that fails on demand, for tests: the same code above meets real files,
 * the simulator's disks, and faults on either, through the one interface of disk.h.
 *
 * Thread: the reactor's of the disk below. */
#ifndef DISK_FAULT_H
#define DISK_FAULT_H

#include "engine/disk/disk.h"

#define DISK_FAULTS_MAX 16u
#define DISK_FAULT_OPS_MAX                                                                         \
	1024u /* operations in flight; one more is a mistake of the test (PRE)                     \
	       */
#define DISK_FAULT_FOREVER UINT64_MAX

enum disk_fault_kind {
	DISK_FAULT_ERROR,     /* it fails with `status`, and does nothing */
	DISK_FAULT_DELAY,     /* it begins delay_ns later */
	DISK_FAULT_DROP,      /* it succeeds, and does nothing: a lost write, a flush that lies */
	DISK_FAULT_LIE,	      /* a durable write is done, but not durably */
	DISK_FAULT_FLIP,      /* what a read returns, or what a write leaves on the disk, has bit
			       * number `bit` of its range inverted */
	DISK_FAULT_MISDIRECT, /* it goes to the offset `elsewhere` instead */
	DISK_FAULT_SHORT, /* the first half of its blocks is done, then it fails with `status` */
};

#define DISK_FAULT_ON(kind) (1u << (kind))
#define DISK_FAULT_ON_ALL   UINT32_MAX

/* Strikes operations of the kinds in on_kinds that touch [from, to): not the first `skip` of them,
 * then the next `times`; with `every` only each every-th of those. */
struct disk_fault {
	enum disk_fault_kind kind;
	uint32_t on_kinds; /* DISK_FAULT_ON(DISK_READ) | ... */
	uint64_t from, to; /* bytes; to == 0: the whole disk, flushes too */
	uint64_t size_min; /* only operations of so many bytes or more */
	uint64_t skip;
	uint64_t times;
	uint64_t every, passed; /* 0: each; passed is the layer's */
	int status;		/* -EIO, -ENOSPC, ... */
	uint64_t delay_ns;
	uint64_t bit;	    /* modulo the bits of the range */
	bool roams;	    /* another bit each time */
	uint64_t elsewhere; /* bytes; multiple of BLOCK_SIZE; the operation must fit there */
	uint64_t hits;	    /* counted by the layer: how often it struck */
};

/* The test's, and read at each submit: it may be changed at any time. The first fault that matches
 * strikes; of the others that match, only `skip` counts down. */
struct disk_fault_plan {
	struct disk_fault faults[DISK_FAULTS_MAX];
	uint32_t count;
	uint64_t submitted[4]; /* counted by the layer, by enum disk_op_kind */
};

/* Takes inner over: closing the new disk closes it. plan is lent until then. 0 or -ENOMEM. */
int disk_fault_open(struct disk *inner, struct disk_fault_plan *plan, struct disk **ret_disk);

#endif
