/* The layers of an attached volume (engine/ARCHITECTURE.md, "Snapshots"). The permit names them.
 *
 * The top one takes the guest's writes. A snapshot puts an empty one above it:
 *
 *   OPEN (top) --a permit with another one above--> SEALING --a majority has its last word of every
 * chunk--> settled: the driver is told --a permit in which it is sealed--> SEALED
 *
 * While a layer is SEALING it has chunks, windows and replicas' states of its own; what was in
 * flight to it is decided as ever, a chunk that has no current replica is reconciled, one that is
 * behind is resynced. The guest's writes go to the layer above from the turn in which the permit
 * came, so nobody waits. Reads look at both: a slot must be current in each.
 *
 * The last word of a chunk is a watermark that says "sealed" (version_is_sealed), durable on a
 * majority. None is sent before a majority has a watermark of all that was decided (invariant 4).
 * An attachment that finds a layer SEALING, because an earlier one did not get so far, does the
 * same.
 *
 * Of a SEALED layer a replica has each chunk WHOLE (it has the last word), or it holds nothing and
 * nobody in a majority has more (the chunk was never touched), or it must restore it: it may lack
 * blocks, and may hold some that were never acknowledged. Its node pulls exactly what another one
 * has (Pull.exact). Until then the guest reads nothing from it in this chunk. A learner (move.h) is
 * given every sealed layer in the same way; what its node holds already, for another volume of the
 * family, is not pulled again.
 *
 * INVARIANTS
 *  1. A majority that is present holds at least one WHOLE copy of every chunk that the layer was
 *     sealed with; so when a majority is known and none is, or ever was WHOLE, there is nothing.
 *  2. A layer is told to be settled when every chunk is: none of its writes is undecided, and none
 *     that failed is on its way to a node any more.
 *  3. A chunk that was settled without a last word, as nobody ever wrote to it, is written to by
 *     nobody, be it a watermark: copies that hold something, none of them WHOLE, are good for
 * nothing.
 *  4. All copies with a last word show the same, whichever attachment gave it: the next one may
 *     settle the layer without those that have one already, and by then nothing can win that they
 *     lack.
 *
 * Failure modes: a replica that is away when its layer is sealed is restored when it comes back. */
#ifndef VOLUME_LAYERS_H
#define VOLUME_LAYERS_H

#include "engine/volume/quorum.h"
#include "engine/volume/replica.h"

#define VRESTORES_MAX	  8u
#define VRESTORES_EACH	  4u /* of one replica */
#define VRESTORE_RETRY_MS 500u

/* What one turn does for layers at most: so many chunks are gone through, and the rest comes with
 * later turns, VLAYERS_STEP_NS apart, in which the guest's operations are served too. */
#define VLAYERS_PIECE	1024u
#define VLAYERS_STEP_NS 100000u

struct vchunk;
struct vset;

enum vsealed_state {
	VSEALED_UNKNOWN,
	VSEALED_EMPTY, /* holds no block of the chunk */
	/* The same, before a learner began: who can be reached is asked anew, for a merge may have
	 * written there since, and have broken off. */
	VSEALED_WAS_EMPTY,
	VSEALED_PART, /* holds something, and not the last word */
	VSEALED_WHOLE,
	VSEALED_DOUBT, /* its node cannot tell now: a device is missing there */
};

struct vsealed {
	volume_id_t id;
	/* enum vsealed_state; of each chunk's slots, and behind them whether it was touched:
	 * somebody was WHOLE once, and held something. That outlives what nodes say later: one may
	 * have lost its disk, another miss a device. */
	uint8_t *states;
	struct vset *set; /* what it was while it was open: states of chunks that are not `taken`
			   * are there; NULL: all are here */
};

struct vrestore {
	struct volume *volume;
	struct rpc_call call;
	bool busy;
	bool looking;	/* at what it holds; nothing is pulled yet */
	bool repairing; /* some blocks, of a copy that is whole */
	struct vreplica *replica;
	volume_id_t layer;
	chunk_no_t chunk;
	uint32_t slot;
};

struct vlayers {
	volume_id_t settled; /* the layer that is, and that the driver may be told of; 0: none */
	bool told;
	uint64_t began_ns;	   /* the work of this turn */
	uint64_t switched_ns;	   /* writes are held back since then; 0: they are not */
	uint32_t changes;	   /* of the list of sealed layers, ever */
	uint32_t retired;	   /* layers that ceased to be open, ever */
	uint32_t piece;		   /* VLAYERS_PIECE, or as the config says */
	struct reactor_timer work; /* there is more to do than one turn does */
	/* begin.c: the layer that will be put above the top one. */
	struct vset *coming;
	uint32_t prepared;     /* chunks of it */
	struct vchunk *stale;  /* of the top layer: changed since they were prepared */
	struct vchunk *queued; /* likewise, and prepared again; writes wait for them */
	bool restore_wanted;   /* something may have to be restored */
	bool restore_found;    /* in this round, which has restore_left to look at */
	uint64_t restore_left, restore_next;
	uint64_t restore_after_ns;
	uint32_t restore_at; /* the next source, by turns */
	struct vrestore restores[VRESTORES_MAX];
};

/* Sets up the layers of the permit in force. -ENOMEM, -E_BAD_DOCUMENT. */
int vlayers_init(struct volume *v, const uint8_t *map);
void vlayers_deinit(struct volume *v);
void vlayers_stop(struct volume *v);

/* Another permit is in force: takes over what it says of layers, before it goes to the nodes. */
void vlayers_permit(struct volume *v);

/* For Renew; 0: nothing to tell. */
volume_id_t vlayers_settled(const struct volume *v);

/* No layer is being settled, nor about to be: the chunks of the top one may change their members.
 */
bool vlayers_settled_below(const struct volume *v);

/* Whether there is one layer only. */
bool vlayers_single(const struct volume *v);

/* Blocks of a sealed layer are damaged on the node: they are pulled from another one, if that is
 * possible now. The node says so again until it is done. */
void vlayers_repair(struct volume *v, struct vreplica *r, volume_id_t layer, chunk_no_t chunk,
		    block_no_t block, uint32_t block_count);
/* The slot's node cannot tell what it holds of the chunk in some sealed layer: a device is missing
 * there. */
bool vlayers_in_doubt(const struct vchunk *c, uint32_t slot);
/* Slots that have all that the sealed layers hold of the chunk. */
vmask_t vlayers_good(struct vchunk *c);
/* Whether the slot, be it the learner's, is known to have all that the sealed layers hold of the
 * chunk. */
bool vlayers_slot_has_all(const struct vchunk *c, uint32_t slot);
/* Nothing is known of the slot: another replica is there. */
void vlayers_slot_begins(struct vchunk *c, uint32_t slot);
void vlayers_members_changed(struct vchunk *c);
/* Nothing that restores the slot is under way. */
bool vlayers_slot_is_quiet(const struct vchunk *c, uint32_t slot);
/* Slots that have all that lies below c's layer. */
vmask_t vlayers_whole(struct vchunk *c);

/* The slot's replica is connected again. When it has lost the last word that it had answered, it
 * has none; and the chunk is settled no more, unless the driver may have been told: then the slot
 * is restored once the layer is sealed. */
void vlayers_replica_ready(struct vchunk *c, uint32_t slot);

/* The chunk, of a layer that is being sealed, is about to be reconciled, which writes to it. When
 * it was settled because nothing was ever written to it, it is not settled any more. False: that is
 * too late, for the driver may have been told; nothing may be written, and the chunk need not be
 * opened, as the permit in which its layer is sealed comes with the next answer. */
bool vlayers_touch(struct vchunk *c);

/* -- scanning a replica (replica.c) ------------------------------------------------------------ */

volume_id_t vlayers_id(const struct volume *v, uint32_t sealed);
void vlayers_scan_begin(struct volume *v, uint32_t sealed, const struct vreplica *r);
void vlayers_take_state(struct volume *v, uint32_t sealed, const struct vreplica *r,
			chunk_no_t chunk, version_t watermark, version_t newest);
/* The node cannot tell what it holds of the chunk. */
void vlayers_doubt(struct volume *v, uint32_t sealed, const struct vreplica *r, chunk_no_t chunk);
void vlayers_scanned(struct volume *v, uint32_t sealed, const struct vreplica *r);

/* A node has the permit that it was held back for. */
void vlayers_released(struct volume *v);
/* What is being prepared is void: slots have other replicas, or the layer is not wanted. */
void vlayers_prepare_again(struct volume *v);
/* The chunk has got a write, or one to wait: a layer that is being prepared above it must know. */
void vlayers_changed(struct vchunk *c);
/* What a chunk of a layer that is being sealed was done with may be so no more. */
void vlayers_undone(struct vchunk *c);

void vlayers_event(struct volume *v);
void vlayers_tick(struct volume *v);

#endif
