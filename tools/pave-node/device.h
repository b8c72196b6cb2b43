/* The node's device: created when missing, formatted when empty, never when it belongs to somebody.
 *
 * Thread: the reactor's. */
#ifndef PAVE_NODE_DEVICE_H
#define PAVE_NODE_DEVICE_H

#include "engine/disk/disk.h"
#include "engine/kv/kv.h"
#include "engine/store/store.h"

/* Where both superblocks lie, and what most other formats begin with. */
#define DEVICE_PROBE_SIZE (2u << 20)

/* Embedded by its owner; lent until done, which runs once, never inline. */
struct device_open {
	/* status 0: store is open. Else err tells the story, and disk and kv are the caller's to
	 * close all the same. */
	void (*done)(struct device_open *op, int status, struct store *store,
		     const struct error *err);
	struct reactor *reactor;
	struct disk *disk;  /* lent; of at least DEVICE_PROBE_SIZE */
	struct kv *kv;	    /* lent */
	uint8_t *probe;	    /* DEVICE_PROBE_SIZE bytes of reactor_memory; lent */
	const char *device; /* for people */
	const char *index;  /* likewise */
	uint64_t scrub_period_s;
	struct store_identity identity;

	bool index_used; /* the rest is its own */
	struct disk_op io;
	struct store_format_op format;
	struct store_open_op open;
};

/* Whatever the device holds that is not all zeroes is opened, and refused if it is not this node's.
 * An empty one is formatted, unless the index says that this node has had a device already. */
void device_open(struct device_open *op);

/* Creates the file with size_bytes if there is nothing at path. 0 or an error with its text. */
int device_create_missing(const char *path, uint64_t size_bytes, struct error *err);

#endif
