/* Mutants: production code with one promise broken, which the simulator must find. They are made at
 * link time (ld's --wrap) and by what the simulated machines hand to the code, so that production
 * code knows nothing of them. */
#ifndef SIM_MUTANTS_H
#define SIM_MUTANTS_H

enum mutant {
	MUTANT_NONE,
	MUTANT_NOT_DURABLE,	/* the log is acknowledged before it is durable */
	MUTANT_FENCE_FORGOTTEN, /* a node's fence doesn't survive its restart */
	MUTANT_CRC_UNCHECKED,	/* checksums always match */
	MUTANT_LEASE_IGNORED,	/* a node goes on for long after its lease */
	MUTANT_UNSEALED,	/* a watermark is answered, and not kept */
	MUTANTS
};

/* "none", "not-durable", ... NULL: no such number. */
const char *mutant_name(enum mutant m);

/* From now on. */
void mutant_set(enum mutant m);
enum mutant mutant_now(void);

#endif
