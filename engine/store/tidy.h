/* The tidier: puts back in order what was overwritten at random, while nobody wants the disk.
 *
 * The cleaner sorts what it moves, but it moves what it must: the live blocks of one segment, which
 * are a few of each neighbourhood, and nothing of segments that are wholly live. So a volume that
 * was overwritten at random stays scattered, and reading it in sequence costs a disk read for each
 * block. The tidier goes through the index in order, a window of 1 MiB at a time; where a window
 * lies in more pieces than one for TIDY_RUN_BLOCKS blocks on the average it is read and written
 * again, in order, to the cold stream. It is a move like the cleaner's: the same versions, and only
 * where the index still has the old location.
 *
 *   RESTING --reason, idle, budget--> LOOKING --scattered--> READING -> MOVING -> LOOKING ...
 *      ^                                 |
 *      +--- end of a pass, or a client --+
 *
 * When: no operation of a client came for TIDY_IDLE_NS, and more segments are available than where
 * space is tight; the cleaner goes on making them, for it begins above that. When there are no more
 * once a window was read, the window waits for them. A client's operation ends it after the window
 * under way.
 *
 * What it may cost: a block for each that clients wrote, counted since the store was opened. So
 * write amplification rises by one at most (and by what cleaning after it costs), and only for
 * volumes that rest at times. A pass begins when a TIDY_REASON_DEN-th of what is live was written
 * since the one before.
 *
 * Failure: what cannot be read stays where it is. */
#ifndef STORE_TIDY_H
#define STORE_TIDY_H

#include "engine/store/cleaner.h"

#define TIDY_IDLE_NS	NS_PER_S
#define TIDY_PAUSE_NS	NS_PER_MS	 /* between windows */
#define TIDY_WAIT_NS	(10 * NS_PER_MS) /* for the cleaner */
#define TIDY_RUN_BLOCKS 16u
#define TIDY_REASON_DEN 16u
#define TIDY_LOOKS_MAX	64u /* windows looked at in one turn, where there is nothing to do */
#define TIDY_WINDOW	IO_BLOCKS_MAX
#define TIDY_NONE	UINT32_MAX

enum tidy_state { TIDY_RESTING, TIDY_LOOKING, TIDY_READING, TIDY_MOVING };

struct tidy {
	enum tidy_state state;
	struct reactor_timer timer;
	uint64_t clients_seen;	 /* operations, when it last looked */
	uint64_t written_seen;	 /* blocks of clients: what the budget was counted from */
	uint64_t written_passed; /* blocks of clients when the last pass began */
	uint64_t budget;	 /* blocks */
	volume_id_t volume;	 /* where the pass is */
	chunk_no_t chunk;
	block_no_t block;
	bool looking_up, holds, reading;
	struct lookup lookup;
	struct store_read read;
	uint8_t *data;
	uint32_t crcs[TIDY_WINDOW];
	version_t versions[TIDY_WINDOW];
	uint32_t moves_in_flight;
	struct cleaner_move moves[TIDY_WINDOW];
};

int tidy_init(struct store *store);
void tidy_deinit(struct store *store);

/* Clients have written: there may be something to do later. */
void tidy_kick(struct store *store);

/* Nothing in flight. */
bool tidy_is_idle(const struct store *store);

#endif
