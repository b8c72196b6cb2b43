/* What the faults have in common (faults.c, faults_disks.c, faults_evidence.c): a stream of
 * randomness for each, and the ends that they carry. Private to them. */
#ifndef SIM_FAULT_H
#define SIM_FAULT_H

#include "tests/sim/cluster.h"

/* One that goes on: what it takes to end it. */
struct ending {
	struct cluster *cluster;
	uint64_t stream;
	struct machine *a, *b;
	uint32_t site;
	void (*end)(struct ending *e);
};

/* The next of a stream. */
uint64_t fault_random(uint64_t *stream);

/* Of the fault whose turn it is. */
uint64_t fault_below(struct cluster *c, uint64_t n);
uint64_t fault_range(struct cluster *c, uint64_t from, uint64_t to);
bool fault_chance(struct cluster *c, uint64_t numerator, uint64_t denominator);
struct machine *fault_node(struct cluster *c);
/* The host that has the volume, or a snapshot, attached; NULL: none. */
struct machine *fault_attached_host(struct cluster *c);

/* For fault_run_ending: end is called, in a stream of its own. */
struct ending *fault_ending(struct cluster *c, struct machine *a, struct machine *b, uint32_t site,
			    void (*end)(struct ending *e));
void fault_run_ending(void *arg);

/* At some moment of the next max_ns. */
void fault_end_later(struct cluster *c, struct machine *a, struct machine *b, uint32_t site,
		     uint64_t max_ns, void (*end)(struct ending *e));

/* An end: the site is certified again. */
void fault_end_withdrawal(struct ending *e);

/* An end: a crash of a, unless the faults are over. */
void fault_kill(struct ending *e);

#endif
