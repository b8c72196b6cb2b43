/* Maintenance of detached volumes: the driver asks a node to have one attached, so that its copies
 * can move. The node starts `pave-attach VOLUME --maintain` beside itself: a process of its own,
 * because it needs memory and may fail, and the node must not have less or fail with it. The driver
 * ends the attachment when nothing of the volume has to move any more, or somebody wants it.
 *
 * Thread: the reactor's of the lease. */
#ifndef PAVE_NODE_MAINTAIN_H
#define PAVE_NODE_MAINTAIN_H

#include <stdbool.h>
#include <sys/types.h>

struct maintain {
	/* Of the node, lent. */
	const char *name, *site, *pd, *root, *dir, *cluster_dir;
	bool insecure;

	pid_t child; /* 0: none */
	char seen_dir[4200], holder[128];
};

/* At most one volume at a time: while there is a child this does nothing, and the driver asks
 * again. */
void maintain_volume(struct maintain *m, const char *volume);

/* Tells the child to end, which it also does by itself when the node has gone. */
void maintain_stop(struct maintain *m);

#endif
