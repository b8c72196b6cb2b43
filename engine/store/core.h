/* The store as its parts see it. Each part has its own header; this one only puts them together. */
#ifndef STORE_CORE_H
#define STORE_CORE_H

#include "engine/store/blind.h"
#include "engine/store/bury.h"
#include "engine/store/checkpoint.h"
#include "engine/store/cleaner.h"
#include "engine/store/clients.h"
#include "engine/store/index.h"
#include "engine/store/lookup.h"
#include "engine/store/reader.h"
#include "engine/store/scrub.h"
#include "engine/store/segment.h"
#include "engine/store/space.h"
#include "engine/store/tidy.h"
#include "engine/store/upkeep.h"
#include "engine/store/wipe.h"
#include "engine/store/wlog.h"

struct store {
	struct store_config config;
	struct reactor *reactor;
	struct disk *disk;
	struct kv *kv;
	struct format_super super;
	uint32_t prefix; /* of its keys in kv */
	int failed;	 /* 0, or why nothing more can be written */
	bool serving;	 /* recovered, not yet closed */
	bool closing;

	struct index index;
	struct lookups lookups;
	struct bury bury;
	struct segments segments;
	struct wlog wlog;
	struct space space;
	struct reader reader;
	struct checkpoint checkpoint;
	struct cleaner cleaner;
	struct tidy tidy;
	struct upkeep upkeep;
	struct wipe wipe;
	struct scrub scrub;
	struct recovery *recovery; /* while opening */

	uint32_t ops_in_flight; /* of the user, up to STORE_OPS_MAX */
	struct clients clients; /* of these the reads and writes */
	struct item_queue finished;
	struct reactor_task finish_task;

	void (*closed)(void *arg);
	void *closed_arg;
	struct reactor_task close_task;

	struct store_stats stats;
};

/* Ends all writing: what is queued and what comes fails with status. Reads go on. */
void store_fail(struct store *store, int status, const char *what);

/* Goes on closing when what it waits for may have happened. */
void store_close_tick(struct store *store);

#endif
