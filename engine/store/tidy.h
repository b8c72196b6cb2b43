/* The tidier: puts back in order what was overwritten at random, while the disk has time for it.
 *
 * The cleaner sorts what it moves, but it moves what it must: the live blocks of one segment, which
 * are a few of each neighbourhood, and nothing of segments that are wholly live. So a volume that
 * was overwritten at random stays scattered, and reading it in sequence costs a disk read for each
 * block. The tidier goes through the index in order, a window at a time, of 1 MiB, or of a quarter
 * of that beside clients; where a window lies in more pieces than one for TIDY_RUN_BLOCKS blocks on
 * the average it is read and written again, in order, to the cold stream. It is a move like the
 * cleaner's: the same versions, and only where the index still has the old location.
 *
 *   RESTING --reason--> LOOKING --time for it, scattered, budget--> READING -> MOVING -> LOOKING..
 *      ^                   |
 *      +--- end of a pass -+
 *
 * When no read or write of a client came for TIDY_IDLE_NS: as fast as it goes. Beside clients:
 * never while one of their operations is under way, which it waits for; and it takes a share of the
 * time that falls with theirs (clients.h): TIDY_SHARE_MAX where they are at work for hardly any of
 * it, nothing where they are for TIDY_BUSY_MAX of it or more. So a client finds it at work for one
 * in eight of its operations at most, and then waits for no more than a few of the disk's: a window
 * has READER_RUNS_PER_READ reads under way or one group. What it cannot take back is such a window
 * that was begun; under heavy load none is.
 *
 * It also needs more segments available than where space is tight; the cleaner goes on making them,
 * for it begins above that. Beside clients it leaves them half of those in between, so that it
 * makes none of them pay for space. When there are no more once a window was read, the window waits
 * for them.
 *
 * What it may cost: a block for each that clients wrote, counted since the store was opened. So
 * write amplification rises by one at most (and by what cleaning after it costs), and only where
 * the disk rests at times. A pass begins when a TIDY_REASON_DEN-th of what is live was written
 * since the one before.
 *
 * Failure: what cannot be read stays where it is. */
#ifndef STORE_TIDY_H
#define STORE_TIDY_H

#include "engine/store/cleaner.h"

#define TIDY_IDLE_NS	NS_PER_S
#define TIDY_PAUSE_NS	NS_PER_MS	  /* between windows */
#define TIDY_YIELD_NS	(5 * NS_PER_MS)	  /* while a client's operation is under way */
#define TIDY_SAMPLE_NS	(100 * NS_PER_MS) /* clients' share of the time is measured over so much */
#define TIDY_BUSY_MAX	250u		  /* thousandths of the time */
#define TIDY_SHARE_MAX	125u		  /* likewise */
#define TIDY_WAIT_NS	(10 * NS_PER_MS)  /* for the cleaner */
#define TIDY_RUN_BLOCKS 16u
#define TIDY_REASON_DEN 16u
#define TIDY_LOOKS_MAX	64u /* windows looked at in one turn, where there is nothing to do */
#define TIDY_WINDOW	IO_BLOCKS_MAX
#define TIDY_BESIDE	(TIDY_WINDOW / 4) /* the window beside clients */
#define TIDY_NONE	UINT32_MAX

enum tidy_state { TIDY_RESTING, TIDY_LOOKING, TIDY_READING, TIDY_MOVING };

struct tidy {
	enum tidy_state state;
	struct reactor_timer timer;
	uint64_t clients_seen; /* operations, when it last looked */
	uint64_t client_ns;    /* when it last saw that there had been one */
	uint64_t sampled_ns;   /* clients were busy_seen_ns at work until then, */
	uint64_t busy_seen_ns;
	uint32_t busy;		 /* and this share of the time before, in thousandths */
	uint64_t began_ns;	 /* the timer fired, for what is under way */
	uint32_t window;	 /* blocks */
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
