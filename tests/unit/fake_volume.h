/* A volume in memory behind the contract of engine/volume/volume.h, for tests of what sits on it.
 * Operations complete in a later turn of the reactor, in the order of their submission, unless they
 * are held. */
#ifndef TESTS_FAKE_VOLUME_H
#define TESTS_FAKE_VOLUME_H

#include <stdatomic.h>

#include "engine/volume/volume.h"

struct volume {
	struct reactor *reactor;
	uint64_t size;
	bool read_only;
	uint8_t *data;
	bool *allocated;		      /* a block */
	struct volume_op *queue, *queue_last; /* linked through impl[0] */
	struct reactor_task run, release;
	struct reactor_task *room;
	uint32_t buffers_max, buffers_used;
	/* Set from any thread. */
	_Atomic int fail_writes; /* status of every write from now on; 0: none */
	_Atomic bool
	    delay_reads;   /* reads take some turns longer than writes submitted after them */
	_Atomic bool hold; /* operations wait until this is taken back, by fake_volume_release */
	_Atomic bool early_reads; /* reads overtake writes that were submitted before them */
	_Atomic uint32_t ops_begun, ops_seen;
};

struct volume *fake_volume_create(struct reactor *r, uint64_t size);
void fake_volume_release(struct volume *v); /* from any thread; once */
/* The first of those that are held goes on, alone. From any thread, when the last one has. */
void fake_volume_let_one(struct volume *v);
void fake_volume_destroy(struct volume *v);

#endif
