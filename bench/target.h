/* What is loaded: a Pavé volume through its client (target_volume.c), or any NBD server
 * (target_nbd.c), behind one interface.
 *
 * Thread: the reactor's. An operation is embedded by its owner: prepared once, then taken memory
 * for, submitted, and given back any number of times, and released at the end. done runs once for
 * each submit, never inline. */
#ifndef BENCH_TARGET_H
#define BENCH_TARGET_H

#include "bench/nbd_client.h"
#include "engine/base/error.h"
#include "engine/volume/volume.h"

struct target;

struct target_op {
	void (*done)(struct target_op *op, int status); /* 0 or negative */
	bool write;
	uint64_t offset;
	uint32_t size;
	uint8_t *data; /* from get to put; a read fills it */
	/* The target's: */
	struct target *target;
	uint8_t *memory;
	struct volume_buffer *buffer;
	union {
		struct volume_op volume;
		struct nbd_op nbd;
	} u;
};

/* What the target counts of itself; nothing for NBD. Each that rises is a cause of slow operations
 * that the bench can name. */
struct target_counts {
	uint64_t permits, read_retries, reconciled_blocks, resyncs, repairs, freezes;
	uint64_t layers_begun, layers_pause_ns, layers_work_ns; /* volume.h; the longest ever */
};

struct target_ops {
	int (*prepare)(struct target *t, struct target_op *op, uint32_t size_max); /* -ENOMEM */
	void (*release)(struct target_op *op);
	bool (*get)(struct target *t, struct target_op *op); /* memory for op->size; else wait */
	void (*put)(struct target *t, struct target_op *op);
	void (*submit)(struct target *t, struct target_op *op);
	void (*on_room)(struct target *t, struct reactor_task *task);
	void (*counts)(struct target *t, struct target_counts *ret);
	void (*close)(struct target *t, void (*done)(void *arg), void *arg);
};

struct target {
	const struct target_ops *ops;
	struct reactor *reactor;
	uint64_t size;
	uint32_t depth_max; /* operations in flight that it takes */
	/* The target's: */
	struct volume *volume;
	struct nbd_client *nbd;
};

/* The volume is open, and the target's from now on. */
void target_volume_init(struct target *t, struct reactor *r, struct volume *v);

/* Connects and negotiates, blocking; uri as nbd+unix:///NAME?socket=PATH or nbd://HOST:PORT/NAME.
 * Loopback only, unless insecure. -EINVAL, -EACCES, -E_UNREACHABLE, -EROFS with the text. */
int target_nbd_open(struct target *t, struct reactor *r, const char *uri, bool insecure,
		    struct error *err);

#endif
