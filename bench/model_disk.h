/* A disk for benches in virtual time: its contents lie in memory, its time is that of a simple
 * queue, so that what it shows is a property of the store and not of the machine below.
 *
 * The model: one server, first come first served. An operation holds it for op_ns and for its size
 * at bytes_per_s, and completes read_ns or write_ns after that: these overlap. A durable write is
 * durable when it completes. Nothing fails.
 *
 * Thread: that of the process's reactor (tests/sim/process.h). */
#ifndef BENCH_MODEL_DISK_H
#define BENCH_MODEL_DISK_H

#include "engine/disk/disk.h"
#include "tests/sim/process.h"

struct model_disk_config {
	uint64_t size_bytes;
	uint64_t bytes_per_s;
	uint64_t op_ns;
	uint64_t read_ns, write_ns;
};

struct model_disk_stats {
	uint64_t reads, writes, read_bytes, written_bytes;
	uint64_t busy_ns; /* of the server */
};

/* NULL: there is no memory for it. Closed by disk_close. */
struct disk *model_disk_create(struct sim_process *p, const struct model_disk_config *config);
const struct model_disk_stats *model_disk_stats(struct disk *disk);

#endif
