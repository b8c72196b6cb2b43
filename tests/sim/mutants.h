/* Mutants: production code with one promise broken, which the simulator must find. They are made at
 * link time (ld's --wrap), so that production code knows nothing of them. */
#ifndef SIM_MUTANTS_H
#define SIM_MUTANTS_H

enum mutant {
	MUTANT_NONE,
	MUTANT_NOT_DURABLE,	   /* the log is acknowledged before it is durable */
	MUTANT_FENCE_FORGOTTEN,	   /* a node's fence doesn't survive its restart */
	MUTANT_FENCE_IGNORED,	   /* a node lets older generations write */
	MUTANT_EARLY_SERVE,	   /* a newer attachment serves while the older permit may live */
	MUTANT_UNANSWERED_READ,	   /* a read goes to a replica that hasn't answered a write */
	MUTANT_UNDECIDED_READ,	   /* a read doesn't wait for the majority of a write in flight */
	MUTANT_PULL_SKIPPED,	   /* resync doesn't fetch what the returning replica missed */
	MUTANT_PHANTOM_KEPT,	   /* resync leaves what only the returning replica holds */
	MUTANT_UNSEALED,	   /* a watermark is answered, and not kept */
	MUTANT_CRC_UNCHECKED,	   /* checksums always match */
	MUTANT_REVOCATION_IGNORED, /* every site is always eligible */
	MUTANTS
};

/* "none", "not-durable", ... NULL: no such number. */
const char *mutant_name(enum mutant m);

/* From now on. */
void mutant_set(enum mutant m);
enum mutant mutant_now(void);

#endif
