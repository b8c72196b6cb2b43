/* A host and what uses the volume on it: attaches, reads, writes, zeroes and discards at random,
 * checks with the oracle, detaches, attaches again. Several guests want the same volume.
 *
 *   DETACHED --timer--> OPENING --done--> ATTACHED --ended, or tired of it--> CLOSING --> DETACHED
 *       \--guest_migrate--> OPENING, prepared --timer--> (takes over)
 *
 * The memory of a guest outlives the crashes of its process. */
#ifndef SIM_GUEST_H
#define SIM_GUEST_H

#include "tests/sim/cluster.h"

#define GUEST_SLOTS	 8u
#define GUEST_BLOCKS_MAX 64u /* in one operation */

enum guest_phase { GUEST_DETACHED, GUEST_OPENING, GUEST_ATTACHED, GUEST_CLOSING };

struct guest_slot {
	struct guest *guest;
	struct volume_op op;
	struct volume_buffer *buffer;
	struct reactor_timer think;
	struct oracle_write write;
	struct oracle_read read;
	bool in_flight;
};

struct guest {
	struct machine *machine;
	uint32_t number;
	enum guest_phase phase;
	bool migrating;		/* opens the volume to take it over */
	bool wanted;		/* to be attached; else it detaches and stays away */
	bool quiet;		/* no operations of its own: it is being read back, or over */
	bool overwrites;	/* when quiet: it writes in every part instead */
	bool detach_due;	/* closes as soon as nothing is in flight */
	struct shot *shot;	/* attached, or being attached: a snapshot, which is only read */
	struct shot *verifying; /* when quiet: NULL: the volume */
	generation_t generation;
	struct volume *volume;
	struct volume_open_op open;
	struct reactor_timer timer;
	struct guest_slot slots[GUEST_SLOTS];
	uint64_t verified; /* blocks read back, or gone over, so far, when quiet */
	bool all_verified;
	uint64_t verify_errors;
};

struct guest *guest_create(struct machine *m, uint32_t number);
void guest_destroy(struct guest *g);
void guest_boot(struct guest *g);
void guest_crashed(struct guest *g);

/* Attaches now, if it may. False: it is busy with something else. */
bool guest_attach_now(struct guest *g);

/* Prepares to take the volume over from the other host, and does so some time later. False: it is
 * busy. */
bool guest_migrate(struct guest *g);

/* From now on it only reads all of the volume, or of a snapshot of it, block by block, until
 * all_verified. */
void guest_verify(struct guest *g, struct shot *shot);

/* Likewise, but it writes to some blocks in every part of the volume. */
void guest_overwrite(struct guest *g);

#endif
