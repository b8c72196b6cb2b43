/* The log: what is written goes through one of two streams, gathered in groups.
 *
 * A stream has one open segment, to which it appends; hot for clients, cold for what the cleaner
 * and resync move. A group is header and data blocks in one durable write. While one is being
 * written the next operations wait in the stream's queues, and the pump, a deferred task at the end
 * of a turn, makes the next group of them: when nothing is in flight any more, or, up to
 * in_flight_max of them, when enough waits to be worth a group beside it (fill_blocks). So what
 * comes alone leaves at once, small writes share groups the more the busier the disk is, because a
 * durable write costs the same whatever it holds, and large ones overlap.
 *
 * Invariants:
 * 1. Groups are applied to the index, and their operations acknowledged, in the order of their
 *    sequence in the stream, each after the one before it is durable. Only then do reads see them.
 * 2. Every group names the one before it in its stream, so recovery follows one chain.
 * 3. A group's place is in a segment that a durable checkpoint lists as reserved or open.
 * 4. What a group changes in the index is held by the look-ups of its operations, from before they
 *    were queued until they are done: applying a group waits for nothing and cannot fail.
 * 5. The first failed write ends all writing (store->failed): the chain must not go on past it.
 *
 * A group:  FREE --pump--> GATHERING --submit--> WRITING --done--> WRITTEN --its turn--> applied,
 * FREE
 *
 * An operation that doesn't fit into what is left of a group or a segment is split: it is done when
 * its last part is.
 *
 * A small payload is copied into the group that is taken next, the stage, when it comes: while it
 * is in the cache, and so that its owner may have it back at once (store_write.copy). It lies where
 * it will be when all before it fits. Before anything else is written over it, and before the group
 * leaves without it, it is copied on: to the next stage, or to the memory that its owner gave. */
#ifndef STORE_WLOG_H
#define STORE_WLOG_H

#include "engine/store/item.h"

#define WLOG_GROUPS_IN_FLIGHT	   8u
#define WLOG_GROUPS_IN_FLIGHT_MAX  16u
#define WLOG_COLD_GROUPS_IN_FLIGHT 4u
#define WLOG_FILL_BLOCKS	   64u /* what a group beside others must have to write */
#define WLOG_COLD_SHARE		   64u /* entries of a cold group: what fits one block of header */

enum wlog_kind { WLOG_HOT, WLOG_COLD, WLOG_STREAMS };

struct wlog_group {
	struct disk_op op;
	struct wlog_stream *stream;
	struct wlog_group *next; /* in the free list, or the next one in flight */
	bool complete;
	int status;
	uint32_t stage; /* the number that it had as the stage; 0: nothing waits in it any more */
	uint32_t staged_items; /* which lie in it, and are not of it yet */
	uint64_t seq;
	uint64_t begun_ns; /* handed to the disk */
	uint32_t segment;
	uint32_t first_block; /* in the segment */
	uint32_t share;	      /* entries that it should take, to leave some to the next */
	uint32_t room;	      /* blocks that it may take, headers included */
	uint32_t header_blocks;
	uint32_t data_blocks;
	uint32_t entry_count;
	uint32_t growth;
	uint32_t iov_count;
	struct iovec iovs[DISK_IOV_MAX]; /* [0] is the header's */
	struct format_entry entries[FORMAT_GROUP_ENTRIES_MAX];
	uint32_t crcs[FORMAT_GROUP_DATA_MAX];
	struct item *items[FORMAT_GROUP_ENTRIES_MAX];
	uint8_t
	    *buffer; /* FORMAT_GROUP_BLOCKS_MAX blocks: the header's, right-aligned, then data */
};

struct wlog_stream {
	struct store *store;
	uint8_t kind;
	bool traced;		  /* somebody wants to know when the next group is written */
	bool stalled;		  /* there is work, but no space for it */
	bool segment_is_clients;  /* the open segment was opened without going into the reserve */
	struct item_queue urgent; /* hot: all without data; cold: the cleaner's */
	struct item_queue data;
	uint32_t waiting_blocks; /* of data that clients and resync write, not yet gathered */
	struct wlog_group *groups_free;
	struct wlog_group *next; /* the stage: it is taken next, or NULL */
	uint32_t stage;		 /* its number, from 1 */
	uint32_t staged_blocks;	 /* of data that lie in it already */
	uint32_t staged_items;
	struct wlog_group *head; /* in flight, in order */
	struct wlog_group *tail;
	uint32_t in_flight, in_flight_max;
	uint32_t segment;     /* open, or SEGMENT_NONE */
	uint32_t offset;      /* in it, blocks: where the next group goes */
	uint64_t last_seq;    /* submitted */
	uint64_t durable_seq; /* applied */
};

struct wlog {
	struct wlog_stream streams[WLOG_STREAMS];
	struct wlog_group *groups; /* all */
	uint32_t group_count;
	uint32_t fill_blocks;
	struct reactor_task pump;
	uint64_t next_seq;
	uint64_t pending_growth; /* of what is gathered and not applied */
	uint32_t unapplied;	 /* groups in flight */
};

int wlog_init(struct store *store, uint32_t groups_in_flight, uint32_t fill_blocks);
void wlog_deinit(struct store *store);

/* The time at which the next group begins is to be exact, for item.begun_ns. */
void wlog_trace(struct store *store, enum wlog_kind kind);

/* Queues an operation, whose look-up (lookup.h) is done. */
void wlog_submit(struct store *store, struct item *item, enum wlog_kind kind, bool urgent);

/* Has the pump run at the end of this turn. After anything that may have made space. */
void wlog_kick(struct store *store);

/* Fails what is queued with -ENOSPC: there is nothing left to reclaim. */
void wlog_no_space(struct store *store, enum wlog_kind kind);

/* A stream that writes to this segment goes on in another one. */
void wlog_leave_segment(struct store *store, uint32_t segment);

/* Nothing queued, nothing in flight. */
bool wlog_is_idle(const struct store *store);

/* Something of the store's users is queued: it may be waiting for space. */
bool wlog_has_waiting(const struct store *store);

/* Of a segment with groups in flight: where the first of them begins; else UINT32_MAX. */
uint32_t wlog_first_unapplied(const struct store *store, uint32_t segment);

#endif
