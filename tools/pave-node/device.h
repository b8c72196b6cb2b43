/* The node's devices, before the pool has them: created when missing, opened, remembered.
 *
 * Thread: the one that starts the node; both block. */
#ifndef PAVE_NODE_DEVICE_H
#define PAVE_NODE_DEVICE_H

#include "engine/pool/pool.h"

/* Creates the file with size_bytes if there is nothing at path. 0 or an error with its text. */
int device_create_missing(const char *path, uint64_t size_bytes, struct error *err);

/* Opens the devices named on the command line, and those that the index knows besides, and puts
 * them into op. One that is there and cannot be opened is the pool's to judge; a file that is not
 * there is created with size_bytes, but never one that the index knows. 0, or an error with its
 * text: what was opened is in op all the same, and the caller's to close. node: whose faults
 * (faults.h) lie over the disks. */
int device_open_all(struct pool_open_op *op, const char *const *paths, uint32_t path_count,
		    uint64_t size_bytes, const char *node, struct error *err);

#endif
