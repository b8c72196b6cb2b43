/* For the tests of engine/volume: a driver and nodes that do what the test says, on the simulated
 * network and virtual time, with hosts that run the real volume.
 *
 * A fake node keeps blocks with their versions, watermarks and the fence in the test's memory, so
 * they survive its crashes as if durable, and the test can look at them and change them. */
#ifndef TEST_VOLUME_RIG_H
#define TEST_VOLUME_RIG_H

#include "engine/evidence/demo.h"
#include "engine/volume/volume.h"
#include "net/rpc/rpc.h"
#include "tests/sim/net.h"

#define RIG_NODES	 3u /* of the map */
#define RIG_ALL_NODES	 4u /* and one more, for what moves */
#define RIG_LAYERS	 4u
#define RIG_HOSTS	 2u
#define RIG_CHUNKS	 2u
#define RIG_CHUNKS_MAX	 4u /* that it may grow to */
#define RIG_CHUNK_SIZE	 (16u << 20)
#define RIG_CHUNK_BLOCKS (RIG_CHUNK_SIZE / BLOCK_SIZE)
#define RIG_BLOCKS	 (RIG_CHUNKS * RIG_CHUNK_BLOCKS)
#define RIG_VOLUME	 9u
#define RIG_FREEZE_S	 6u
#define RIG_CONNS	 64u

struct rig;

struct fake_block {
	version_t version;
	uint8_t *data; /* NULL: zeroes */
};

struct fake_chunk {
	version_t watermark;
	struct fake_block blocks[RIG_CHUNK_BLOCKS];
};

struct fake_node;

/* One answer that waits for the test, or for the network. */
struct fake_reply {
	struct transport_send send;
	struct fake_node *node;
	struct fake_conn *conn;
	uint64_t epoch; /* of the connection */
	struct fake_reply *next;
	uint32_t crcs[IO_BLOCKS_MAX];
	uint8_t *data;
	bool delayed; /* the frame of a write, to be stored first */
	struct frame write;
};

struct fake_conn {
	struct fake_node *node;
	struct transport_conn *conn;
	struct rpc rpc;
	uint64_t epoch;
	generation_t generation;
	uint32_t shard;
	void *rx;
};

struct fake_node {
	struct rig *rig;
	uint32_t number;
	const char *name, *site;
	struct sim_process *process;
	struct transport *transport;
	struct transport_listener *listener, *second_listener;
	const char *second_address; /* of its second shard */
	struct fake_conn conns[RIG_CONNS];
	struct fake_chunk chunks[RIG_CHUNKS_MAX];
	generation_t generation;
	uint64_t epochs;

	/* What the test wants of it. */
	bool delay_writes;    /* not even stored before fake_release */
	bool hold_writes;     /* stored at once, answered at fake_release */
	bool hold_reads;      /* answered, with the content of then, at fake_release */
	int write_status;     /* writes are refused with this, nothing is stored */
	uint8_t wire_version; /* that it speaks at most; 0: the newest */
	bool full;	      /* of its space only the reserve is left: for what settles a chunk */
	int write_lies;	      /* writes are stored, and answered with this */
	bool device_failed;   /* of chunk 0: -E_DEVICE for all that is asked of it */
	uint64_t doubt_layer; /* it cannot tell what it has of it, and has nothing; 0: of none */
	int read_status;
	int open_status;
	bool corrupt_reads;	/* what it sends does not check */
	uint64_t corrupt_block; /* of the volume: stored badly, until written again */
	bool has_corrupt_block;
	bool silent_chunks;    /* it does not say what it holds */
	uint64_t silent_layer; /* of this one it does not */
	bool tells_half;       /* of chunk 0 it does, and then no more */
	bool hold_pulls;
	block_no_t stop_pulls_at; /* what lies from there on is not copied, and nothing answered */
	bool any_content;	  /* blocks are not the rig's stamps: compared byte by byte */
	bool traces;		  /* it tells how long its steps took, when it is asked: these */
	uint32_t queue_ns, log_ns, answer_ns;
	struct fake_reply *held;
	uint32_t delayed;

	/* What it saw. */
	uint64_t connects;
	uint64_t writes, reads, watermarks, pulls, changes, payload_bytes, pulled_blocks, opens,
	    settles;
	uint64_t copied_blocks; /* that came by pulls, whether they were there or not */
	uint64_t updates;	/* of the permit */
};

struct fake_pd {
	struct sim_process *process;
	struct transport *transport;
	struct transport_listener *listener;
	struct rpc rpcs[RIG_HOSTS * 8];
	struct transport_conn *conns[RIG_HOSTS * 8];
	bool in_use[RIG_HOSTS * 8];
	generation_t generation;
	uint64_t serial;
	int64_t last_expiry; /* wall, of any permit of this generation */
	int64_t older_bound; /* the same of older generations that were not released */
	bool silent;	     /* renewals are not answered */
	int refuse;	     /* renewals are refused with this */
	uint32_t nodes;	     /* mask: which are in the permits */
	/* So many were taken, and of all layers the upper ones, so many, are open; 0: no layer is
	 * told of, there is the one that was. */
	uint32_t snapshots, open_layers;
	uint32_t min_acks;
	uint32_t shards;  /* of each node: 1, or 2 */
	uint32_t unknown; /* mask: nodes whose addresses are not told */
	uint64_t size;	  /* not 0: it says that the volume has so many bytes, and an empty map */
	uint64_t bytes;	  /* of the volume */
	bool
	    on_new_node; /* chunks beyond RIG_CHUNKS lie on the fourth node, and not on the first */
	int growth_lies; /* what it says of the volume's growth is nonsense, of kinds 1 to 6 */
	uint32_t lifetime_ms;
	uint64_t attaches, renews, detaches, prepares;
	int prepare_status; /* not 0: the answer */
	/* Whoever wants the end of the attachment that is there waits for its Detach. */
	struct rpc *release_rpc;
	uint64_t release_id;
	/* A replica that is replaced: rig_move. */
	bool moving;
	uint32_t move_chunk, move_from, move_to; /* nodes */
	bool commit_silent;			 /* the change is made, and not answered */
	int commit_status;			 /* it is not made: the answer */
	bool moved;				 /* it was made */
	uint64_t commits;			 /* asked for */
	uint32_t moving_reported;		 /* chunks, in the last renewal */
	uint64_t size_reported;			 /* likewise */
	char states[RIG_NODES][32];		 /* as the last renewal told */
};

struct rig_host {
	struct rig *rig;
	const char *name;
	struct sim_process *process;
	struct transport *transport;
	struct trust *trust;
	struct volume *volume;
	struct volume_open_op open;
	bool opened;
	int open_status;
	struct error open_error;
	bool ended, closed;
	int ended_why;
	bool read_only;
	bool migrates, prepared; /* opens to take over; is ready to */
};

struct rig {
	struct sim_world *world;
	struct demo demo;
	char *root;
	struct fake_pd pd;
	struct fake_node nodes[RIG_ALL_NODES];
	struct rig_host hosts[RIG_HOSTS];
};

struct rig *rig_create(uint64_t seed);
void rig_destroy(struct rig *rig);
void rig_run_ms(struct rig *rig, uint64_t ms);
bool rig_wait(struct rig *rig, const bool *flag, uint64_t ms);

/* -- hosts ------------------------------------------------------------------------------------- */

void rig_open_start(struct rig_host *h);
void rig_open(struct rig_host *h); /* must succeed */
void rig_close(struct rig_host *h);
void rig_crash_host(struct rig_host *h); /* and starts its process again, with nothing open */

/* An operation under way. stamp: what every block is filled with, its number mixed in. */
struct rig_op {
	struct volume_op op;
	struct rig_host *host;
	struct volume_buffer *buffer;
	bool done;
	int status;
};

void rig_start_write(struct rig_host *h, struct rig_op *o, uint64_t block, uint32_t count,
		     uint32_t stamp);
void rig_start_zero(struct rig_host *h, struct rig_op *o, uint64_t block, uint32_t count,
		    bool discard);
void rig_start_read(struct rig_host *h, struct rig_op *o, uint64_t block, uint32_t count);
/* Waits for it, gives the buffer back. */
int rig_finish(struct rig_op *o);
/* Of a read that is done: the stamp of its block i. */
uint32_t rig_stamp_of(const struct rig_op *o, uint32_t i);

int rig_write(struct rig_host *h, uint64_t block, uint32_t count, uint32_t stamp);
/* 0 and one stamp for all blocks (asserted); or the error. */
int rig_read(struct rig_host *h, uint64_t block, uint32_t count, uint32_t *ret_stamp);
void rig_must_read(struct rig_host *h, uint64_t block, uint32_t count, uint32_t stamp);
struct volume_stats rig_stats(struct rig_host *h);

/* -- nodes ------------------------------------------------------------------------------------- */

void fake_crash(struct fake_node *n);
void fake_start(struct fake_node *n);
void fake_release(struct fake_node *n); /* what is held, and holds no more */
uint32_t fake_stamp(const struct fake_node *n, uint64_t block);
version_t fake_version(const struct fake_node *n, uint64_t block);
/* Puts a write of its own there: a phantom. */
void fake_put(struct fake_node *n, uint64_t block, version_t version, uint32_t stamp);
/* Says to every host that blocks of a chunk do not check on n. */
void fake_tell_damage(struct fake_node *n, uint32_t chunk, uint32_t block, uint32_t block_count);
/* All nodes hold the same stamp in every block that any of them holds. */
void rig_must_agree(struct rig *rig);

/* -- driver ------------------------------------------------------------------------------------ */

/* Sends permits for the nodes of the mask to whoever is connected. */
void rig_permit(struct rig *rig, uint32_t nodes);
void rig_notify_detach(struct rig *rig);
/* The volume has so many bytes from now on, and hosts are told; or only when they renew. */
void rig_grow(struct rig *rig, uint64_t bytes, bool notice);
/* The chunk moves from one node to another, which comes into the permit; or it doesn't any more. */
void rig_move(struct rig *rig, uint32_t chunk, uint32_t from, uint32_t to);
void rig_move_drop(struct rig *rig);

#endif
