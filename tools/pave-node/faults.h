/* Faults of the disk under a real node, for tests: PAVE_TEST_DISK_FAULTS in its environment.
 *
 *   PAVE_TEST_DISK_FAULTS='NODE KIND ON EVERY TIMES [ELSEWHERE]; ...'
 *
 * NODE: the node that it is for. KIND: flip, drop, misdirect, lie, error, short
 * (engine/disk/fault.h). ON: read, write, flush. Each EVERY-th such operation is struck, TIMES
 * times at most (0: for ever), but none on the superblocks. ELSEWHERE: bytes, for misdirect. error
 * and short fail with EIO. */
#ifndef PAVE_NODE_FAULTS_H
#define PAVE_NODE_FAULTS_H

#include "engine/disk/disk.h"

/* Puts the fault layer over *disk if the environment says so, and logs it loudly. 0, -EINVAL with
 * what cannot be understood, -ENOMEM. */
int faults_from_environment(const char *node, struct disk **disk, struct error *err);

#endif
