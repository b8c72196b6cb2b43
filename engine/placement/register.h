/* The register: what the placement driver knows, in memory, and in kv. It decides nothing.
 *
 * A change is made to the struct in memory, then saved (reg_save_...), all in one turn of the
 * reactor; whatever was saved between two flushes becomes durable together or not at all. Nobody is
 * answered before that:
 *
 *   change, reg_save_... -> reg_flush(commit) -> [kv batch: what was saved meanwhile by others
 * gathers in the next one] -> commit.done(0)
 *
 * So renewals of many attachments share a sync. If kv fails, or memory for what is to be saved, the
 * register is broken: memory is ahead of the disk, and every later flush fails with the first
 * cause; the driver answers no more (I2), and says so (on_broken), so that it is started again, or
 * another leads.
 *
 * Families and keys: META "meta"; DOCUMENTS "anchor" (the trust root), "site/NAME", "policy/NAME",
 * "policy/NAME/operator" (what tightens it), "revocations" (DSSE envelopes as they came); VOLUMES
 * and MAPS the id, big-endian; NODES the name. Values: register.proto.
 *
 * Thread: the driver's reactor. */
#ifndef PLACEMENT_REGISTER_H
#define PLACEMENT_REGISTER_H

/* Without memory for a place in a table the element is not in it (hh.tbl is NULL). */
#define HASH_NONFATAL_OOM 1
#include <uthash.h>

#include "engine/base/error.h"
#include "engine/base/types.h"
#include "engine/evidence/identity.h"
#include "engine/kv/kv.h"
#include "engine/placement/pd.h"

#define REG_FORMAT	   1u
#define REG_ADDRESSES_MAX  64u	/* shards of a node */
#define REG_OLDER_MAX	   16u	/* attachments of one volume that may still hold permits */
#define REG_MAP_NODES_MAX  255u /* a map's entry is one byte */
#define REG_CHUNKS_MAX	   (1u << 18)
#define REG_ENDPOINT_MAX   256u
#define REG_WALL_COARSE_NS (10 * (int64_t)NS_PER_S)
#define REG_MOVES_MAX	   16u		/* of one volume at once */
#define REG_SERIAL_GAP	   (1ull << 20) /* permits that are not noted one by one */

#define REG_DAMAGED_MAX 32u /* volumes, a node */

struct pd_session;
struct reg_layer;

enum node_state { NODE_DOWN, NODE_UP, NODE_REFUSED };

struct reg_scrub { /* ScrubState */
	bool running;
	uint64_t period_s, passes, total_bytes, done_bytes, rate, found, repaired;
	uint64_t needed_rate, max_rate;
	int64_t started_at, finished_at;
	uint32_t damaged;
};

struct reg_node {
	char name[NAME_SIZE_MAX];
	char site[NAME_SIZE_MAX];
	struct uuid device;
	bool has_device;
	char (*addresses)[ADDR_SIZE_MAX]; /* malloc'd */
	uint32_t address_count;
	struct identity_der certificate, ca; /* as it gave them; proved by its site's certificate */
	int64_t receipt_run;		     /* of the last receipt in the ledger */
	uint64_t receipt_serial;
	uint64_t size_bytes, live_bytes, free_bytes, reserve_bytes;
	int64_t last_seen; /* wall */
	bool drain;	   /* nothing is placed on it; what is there moves away */
	bool removed;	   /* counts as lost, and is forgotten when nothing is placed on it */
	uint64_t placed_chunks, placed_bytes; /* by the maps of all volumes that are not deleted */

	/* Of the running driver, not kept. */
	struct pd_session *session;
	bool refused;
	char reason[256];
	int64_t lease_until;
	int64_t clock_offset_ns;
	uint64_t operations;	       /* as it said last, */
	int64_t operations_at;	       /* at this moment; 0: never */
	uint64_t load;		       /* operations a second, lately */
	uint32_t learners, leavers;    /* moves to and from it, of all volumes */
	int64_t last_up;	       /* wall; 0: not seen up by this driver */
	uint32_t clock_late;	       /* requests in a row that came, or were written, too late */
	bool erasing;		       /* an Erase is in flight */
	uint64_t erase_again_ns;       /* nothing that has failed is asked of it before */
	struct reg_volume *erase_next; /* what is asked for next; while that is being looked for */
	uint32_t plan_index;	       /* while a plan is made */
	char trouble[256];	       /* of its devices, as it said last */
	uint64_t wiping_segments;      /* likewise: still to be wiped for an erasure */
	bool has_scrub;		       /* scrub is what it said last */
	struct reg_scrub scrub;
	volume_id_t damaged[REG_DAMAGED_MAX]; /* layers of which blocks are damaged there */
	uint32_t damaged_count;
	UT_hash_handle hh;
};

struct reg_attachment {
	generation_t generation;
	char holder[NAME_SIZE_MAX];
	char holder_site[NAME_SIZE_MAX];
	char endpoint[REG_ENDPOINT_MAX];
	bool read_only;
	bool maintenance; /* by a node, so that copies move */
	bool live;	  /* not released */
	uint64_t serial;
	int64_t bound;	  /* wall: no permit of it expires later */
	int64_t durable;  /* wall: so much of bound is on the disk, and may be given */
	uint64_t boot_ns; /* CLOCK_BOOTTIME of bound; 0: of an earlier run, not known */
};

struct reg_older {
	generation_t generation; /* 0: several, merged; nobody can release that */
	int64_t bound;
	uint64_t boot_ns;
};

struct replica_report { /* what the holder said of a node when it last renewed */
	char node[NAME_SIZE_MAX];
	char state[24];
	char transport[16];
	uint64_t lag, resync_left, resync_rate;
	uint64_t tx_frames, tx_bytes, rx_frames, rx_bytes, rx_copied_bytes; /* of the connection */
	uint32_t chunks_behind;
};

/* Why a copy moves; kept in the register. From INELIGIBLE on it presses: no pause or rate holds it
 * back. */
enum move_why {
	MOVE_WHY_NONE,
	MOVE_WHY_BALANCE,
	MOVE_WHY_DRAIN,
	MOVE_WHY_INELIGIBLE, /* its site lost its eligibility under the volume's policy */
	MOVE_WHY_LOST,	     /* the node was away for too long */
	MOVE_WHY_TOO_CLOSE,  /* to another copy of the chunk: `distinct` or `min_distance_km` */
	MOVE_WHY_COUNT
};

/* A replica that is being replaced: given to the host, not yet in the map. */
struct reg_move {
	chunk_no_t chunk;
	struct reg_node *from, *to; /* both in the volume's nodes */
	enum move_why why;
	int64_t since;
	uint64_t batch; /* that it was saved in; not kept */
};

/* A copy that the volume's map names no more: of its layers what no other volume holds there is to
 * be erased. The chunk may be beyond the volume's end. */
struct reg_drop {
	chunk_no_t chunk;
	struct reg_node *node;
	generation_t generation; /* of the attachment that may still use it */
	bool told;		 /* it knows that the copy is not wanted; not kept */
	bool released;		 /* it does so no more; not kept */
};

struct reg_volume {
	volume_id_t id;
	char name[NAME_SIZE_MAX];
	uint64_t size, chunk_size;
	char policy[NAME_SIZE_MAX];
	uint32_t replicas, min_acks;
	generation_t generation;
	int64_t created_at;
	uint64_t map_version;
	struct reg_node **nodes; /* of the map; malloc'd */
	uint32_t node_count;
	uint8_t *map; /* replicas bytes a chunk; malloc'd; NULL in a tombstone */
	uint32_t chunk_count;
	struct reg_move moves[REG_MOVES_MAX];
	uint32_t move_count;
	struct reg_drop *drops; /* malloc'd */
	uint32_t drop_count, drop_room;
	struct reg_attachment attachment;
	struct reg_older older[REG_OLDER_MAX];
	uint32_t older_count;
	volume_id_t top;	    /* layer; 0: id (layers.h) */
	volume_id_t family;	    /* 0: id */
	char origin[NAME_SIZE_MAX]; /* "": no snapshot's, no clone */
	bool seal_wanted;	    /* the top is to be sealed without a snapshot (layers.h) */
	bool deleted;
	struct reg_node **erase; /* of a tombstone; malloc'd */
	uint32_t erase_count;
	volume_id_t erase_layer; /* of a tombstone: what is to be erased; 0: id */
	int64_t erase_after;	 /* wall; not before: somebody may still read it */

	/* Of the running driver, not kept. */
	uint64_t erase_failed; /* which of all erasures that failed was its last one; 0: none */
	bool moves_changed;
	uint64_t size_batch;	    /* that its size was saved in: nobody is told of it before */
	uint64_t host_size;	    /* that its holder serves, as it said last; 0: it did not say */
	bool seal_pays;		    /* so its nodes say */
	uint64_t seal_after_ns;	    /* they are not asked before */
	uint64_t maintain_after_ns; /* no maintenance is asked for before */
	uint32_t idle_ticks;	    /* of a maintenance that has nothing to do */
	uint64_t repair_until_ns;   /* damage is a reason for a maintenance until then, */
	uint64_t repair_again_ns;   /* and from then on again; 0: there was none */
	struct reg_volume *kin_next, *kin_prev; /* of its family, by id; not for tombstones */
	struct pd_session *holder;
	struct replica_report *reports; /* malloc'd */
	uint32_t report_count;
	uint64_t layers_begun, layers_pause_ns, layers_work_ns; /* as the holder last said */
	uint64_t detach_deadline_ns; /* somebody asked for the end of the attachment; 0: nobody */
	UT_hash_handle hh;	     /* by id */
	UT_hash_handle hh_name;	     /* by name; not for tombstones */
};

struct reg_commit {
	void (*done)(struct reg_commit *c, int status); /* 0, or why the register is broken */
	struct reg_commit *next;
};

/* What was asked of the planner, and how far it is. */
struct reg_planner {
	bool paused;
	bool balancing; /* until no copy needs to move */
	uint64_t rate;	/* bytes a second; 0: as fast as it goes */
	uint32_t replace_after_s;
	int64_t started_at; /* of what is being done; 0: nothing is */
	uint64_t moves_total, moves_done;
	uint64_t bytes_total, bytes_done; /* estimated */
};

struct reg {
	struct reactor *reactor;
	struct kv *kv;
	struct uuid cluster;
	uint64_t next_volume;
	struct reg_planner planner;
	int64_t wall_high;
	int64_t wall_high_saved;
	uint32_t permit_lifetime_ms; /* of the permits that were given; 0: not known */
	struct reg_node *nodes;
	struct reg_volume *volumes;
	struct reg_volume *names;
	struct reg_layer *layers; /* layers.h */
	uint32_t volume_count;	  /* tombstones included */
	int broken;
	void (*on_broken)(struct reg *reg); /* once, inside of what broke it; may be NULL */

	struct kv_batch *open; /* what gathers */
	struct reg_commit *open_waiters;
	struct reg_commit *flight_waiters;
	struct kv_op op;
	bool in_flight;
	uint64_t open_no, flight_no, durable_no; /* numbers of batches */
	uint64_t parted_no; /* the batch with the last change that leaves a copy to be erased */
	struct reactor_task submit;
};

/* Loads everything (blocks). document is called for each of DOCUMENTS, nodes and volumes being
 * there already; it may refuse one with a negative code, which ends the loading. -E_CORRUPT,
 * -E_WRONG_CLUSTER, -ENOMEM, -EIO. On failure nothing is left. */
int reg_load(struct reg *reg, struct reactor *r, struct kv *kv, const struct uuid *cluster,
	     int (*document)(const char *key, const void *data, size_t size, void *arg), void *arg,
	     struct error *err);
/* Nothing may be in flight (reg_idle), or the kv is abandoned with it. Zeroed memory is allowed. */
void reg_deinit(struct reg *reg);
bool reg_idle(const struct reg *reg);

struct reg_node *reg_node_find(struct reg *reg, const char *name);
/* PRE: no map, no move, no drop and no tombstone names it, and it has no session. */
void reg_node_forget(struct reg *reg, struct reg_node *n);
/* NULL: PD_NODES_MAX, or no memory. */
struct reg_node *reg_node_add(struct reg *reg, const char *name, const char *site);
/* -ENOMEM. */
int reg_node_set_addresses(struct reg_node *n, char *const *addresses, size_t count);
/* Copied; both empty: it has none. -ENOMEM: as before. */
int reg_node_set_identity(struct reg_node *n, const ProtobufCBinaryData *certificate,
			  const ProtobufCBinaryData *ca);

struct reg_volume *reg_volume_find(struct reg *reg, const char *name);
struct reg_volume *reg_volume_by_id(struct reg *reg, volume_id_t id);
/* A volume with a new id. nodes and map are taken over (malloc'd). NULL: no memory, and they are
 * still the caller's. */
struct reg_volume *reg_volume_add(struct reg *reg, const char *name, uint32_t chunk_count,
				  uint32_t replicas, uint64_t chunk_size, struct reg_node **nodes,
				  uint32_t node_count, uint8_t *map);
/* -- moves: each saves what it changes, in the batch that gathers (reg_save_...) ----------------
 */

/* The move of the chunk; NULL: none. */
struct reg_move *reg_move_find(struct reg_volume *v, chunk_no_t chunk);
/* Whether the map names the node for the chunk. */
bool reg_holds(const struct reg_volume *v, chunk_no_t chunk, const struct reg_node *n);
/* Whether the node is one of the volume's, or may become one: of REG_MAP_NODES_MAX. */
bool reg_has_number(const struct reg_volume *v, const struct reg_node *n);
/* Whether a copy of the chunk may still be there that is to be erased. */
bool reg_drops(const struct reg_volume *v, chunk_no_t chunk, const struct reg_node *n);
/* to becomes the learner of the chunk. PRE: from holds it, to doesn't, no move of the chunk, no
 * drop on to. -E_LIMIT: REG_MOVES_MAX, or REG_MAP_NODES_MAX; -ENOMEM. */
int reg_move_begin(struct reg *reg, struct reg_volume *v, chunk_no_t chunk, struct reg_node *from,
		   struct reg_node *to, enum move_why why, int64_t now);
/* The one place where a map changes: the next version names to in the place of from, whose copy is
 * to be erased. -ENOMEM: nothing has changed. */
int reg_move_commit(struct reg *reg, struct reg_volume *v, struct reg_move *m);
/* The same at once, without a move: nobody has the volume attached. -ENOMEM, -E_LIMIT: nothing has
 * changed. */
int reg_replace(struct reg *reg, struct reg_volume *v, chunk_no_t chunk, struct reg_node *from,
		struct reg_node *to);
/* A copy that nobody uses, of a chunk that the map does not place there, is to be erased. -ENOMEM.
 */
int reg_drop_unused(struct reg *reg, struct reg_volume *v, chunk_no_t chunk, struct reg_node *n);
/* The volume ends with chunk chunk_count - 1; the copies of what lies beyond are to be erased. PRE:
 * it had more, no moves, and nobody has it. -ENOMEM: nothing has changed. */
int reg_shrink(struct reg *reg, struct reg_volume *v, uint32_t chunk_count);
/* The learner's copy is to be erased. -ENOMEM: nothing has changed. */
int reg_move_cancel(struct reg *reg, struct reg_volume *v, struct reg_move *m);
/* The node has erased these chunks (sorted or not), or is gone for ever (count 0: all of them). */
void reg_dropped(struct reg *reg, struct reg_volume *v, const struct reg_node *n,
		 const chunk_no_t *chunks, size_t count);
/* The same chunks come after all others that are to be erased. */
void reg_drops_last(struct reg_volume *v, const struct reg_node *n, const chunk_no_t *chunks,
		    size_t count);

/* The newest volume is of the family of `of` from now on. */
void reg_volume_join(struct reg_volume *v, struct reg_volume *of);
/* Another map; nodes and map are taken over (malloc'd). */
void reg_volume_set_map(struct reg_volume *v, struct reg_node **nodes, uint32_t node_count,
			uint8_t *map, uint32_t chunk_count);
/* Its nodes are those that map and moves name: what was copied from another volume may have more.
 */
void reg_volume_trim_nodes(struct reg_volume *v);
/* Whether a tombstone can name all that may have something of it: its nodes, and those that have
 * not erased yet what they had. */
bool reg_volume_fits_tombstone(const struct reg_volume *v);
/* Turns it into a tombstone: its name is free, its nodes, if they fit, are to erase it. -ENOMEM. */
int reg_volume_bury(struct reg *reg, struct reg_volume *v);
/* The places of v are places of the tombstone too. -E_LIMIT: they do not fit, and nothing has
 * changed; -ENOMEM breaks the register. */
int reg_volume_also_erase(struct reg *reg, struct reg_volume *tombstone,
			  const struct reg_volume *v);
/* The node has erased its copies. */
void reg_volume_erased(struct reg_volume *v, const struct reg_node *n);
/* Forgets a tombstone, in kv too. */
void reg_volume_forget(struct reg *reg, struct reg_volume *v);

/* Until when, by the wall clock, the attachment may hold a permit; 0: it can't any more. Both
 * clocks must say so: a wall clock that leaps forward ends nobody's permit. */
int64_t reg_attachment_end(const struct reg *reg, const struct reg_volume *v, int64_t now);
/* The attachment is taken over, and may hold a permit for a while yet. */
void reg_volume_add_older(struct reg_volume *v);
/* Another driver gave what permits there are: its clock is not this one's, so each counts as valid
 * for a lifetime from now. */
void reg_taken_over(struct reg *reg, uint64_t lifetime_ns);
void reg_volume_drop_older(struct reg_volume *v, generation_t generation);
/* The same of all older ones. Forgets those that ran out. */
int64_t reg_volume_older_end(const struct reg *reg, struct reg_volume *v, int64_t now);

void reg_save_meta(struct reg *reg);
void reg_save_planner(struct reg *reg);
void reg_save_node(struct reg *reg, const struct reg_node *n);
void reg_save_volume(struct reg *reg, const struct reg_volume *v);
void reg_save_map(struct reg *reg, const struct reg_volume *v);
void reg_save_document(struct reg *reg, const char *key, const void *data, size_t size);
void reg_delete_document(struct reg *reg, const char *key);

/* done runs once, never inline, when all that was saved before is durable. c is lent until then. */
void reg_flush(struct reg *reg, struct reg_commit *c);
/* What was changed in memory cannot be written down: nothing more is, from now on. on_broken hears
 * of it, if it is the first time. */
void reg_break(struct reg *reg, int status);
/* The number of the batch that what is saved now goes into, and whether it is durable. */
uint64_t reg_batch_no(const struct reg *reg);
bool reg_is_durable(const struct reg *reg, uint64_t batch_no);
/* Whether all that is to be erased, as memory has it, is so on the disk too: nobody may be told to
 * erase what would be a copy again after a crash, or to change a layer that somebody would stand on
 * again. */
bool reg_may_erase(const struct reg *reg);

/* The driver's wall clock: never goes back, over restarts coarsely. ret_back_ns (may be NULL): by
 * how much the clock of the machine is behind that. */
int64_t reg_now(struct reg *reg, int64_t *ret_back_ns);

#endif
