/* A simulated disk (engine/disk/disk.h) that outlives the process that uses it.
 *
 * Sparse, in memory, with a delay for each operation; operations in flight complete in any order.
 * A write takes its data when it completes, so memory that its owner reuses too early shows.
 *
 * Crashes. Writes in flight are each kept, dropped, or torn at 512 bytes, independently. What has
 * completed survives SIM_KILL. With volatile_cache, SIM_POWER_LOSS also keeps, drops or tears each
 * completed write on its own that no later flush or durable write has covered; without it, what has
 * completed is durable. The process's fate (process.h) can force one of the outcomes.
 * A discard leaves each block of its range as it was, or as zeroes. */
#ifndef SIM_DISK_H
#define SIM_DISK_H

#include "engine/disk/disk.h"
#include "tests/sim/process.h"

struct sim_disk;

struct sim_disk_stats {
	uint64_t reads, writes, flushes, discards; /* submitted, over all incarnations */
	uint64_t read_bytes, written_bytes;
};

/* A disk of p's machine, all zeroes. It goes with the world. */
struct sim_disk *sim_disk_create(struct sim_process *p, const char *name, uint64_t size_bytes,
				 bool volatile_cache);

/* For p's present incarnation. One opener at a time (PRE); a crash closes it. */
struct disk *sim_disk_open(struct sim_disk *d);

/* I/Os submitted so far, over all incarnations. */
uint64_t sim_disk_io_count(const struct sim_disk *d);
const struct sim_disk_stats *sim_disk_stats(const struct sim_disk *d);

/* The n-th I/O of this disk from now on (1 is the next one) meets this action. */
void sim_disk_on_io(struct sim_disk *d, uint64_t n, enum sim_io_action action);

/* Until changed back, every I/O takes this many times as long. 1 at first. */
void sim_disk_set_slowness(struct sim_disk *d, uint64_t factor);

/* From now on a discard leaves zeroes only; a power loss may undo it, as ever. */
void sim_disk_obey_discards(struct sim_disk *d);

/* Behind the owner's back, at once: for tests of what is on the disk, and of bit rot. The contents
 * are as the process would read them now. */
void sim_disk_peek(struct sim_disk *d, uint64_t offset, void *buf, size_t size_bytes);
void sim_disk_poke(struct sim_disk *d, uint64_t offset, const void *buf, size_t size_bytes);

#endif
