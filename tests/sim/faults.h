/* What goes wrong in a simulated cluster: at random moments a random fault, and what mends it. */
#ifndef SIM_FAULTS_H
#define SIM_FAULTS_H

#include "tests/sim/cluster.h"

#define FAULTS_MAX   4096u /* that can be left out, by number */
#define FAULTS_KINDS 28u   /* of them */

/* What goes wrong, or on, besides the faults that have numbers: each in some seeds, again and again
 * or at the end. It can be left out as a whole, by name. */
#define FAULTS_COURSES(X)                                                                          \
	X(MOVES, "moves")	  /* nodes are drained, levelling is asked for */                  \
	X(SNAPSHOTS, "snapshots") /* of the volume: taken and deleted */                           \
	X(MIGRATIONS, "migrations")                                                                \
	X(CERTIFICATES, "certificates") /* that end soon */                                        \
	X(EXPIRY, "expiry")		/* of revocation snapshots: they run out soon */           \
	X(STRANGERS, "strangers")	/* who fill disks */                                       \
	X(DEVICES, "devices")		/* that are added, retired and away */                     \
	X(SETTLING, "settling")		/* disks are slow while layers settle */                   \
	X(EVIDENCE, "evidence") /* it ends while one is stopped, or a write is under way */        \
	X(STALLS, "stalls")	/* processes stop in mid-turn */                                   \
	X(LOSS, "loss")		/* of a node, a device, a driver, for ever, at the end */          \
	X(LAST_WITHDRAWAL, "last-withdrawal") /* for good, when the faults are over */             \
	X(LAST_ROT, "last-rot")		      /* likewise */

enum faults_course {
#define FAULTS_COURSE_(name, text) FAULTS_##name,
	FAULTS_COURSES(FAULTS_COURSE_)
#undef FAULTS_COURSE_
	    FAULTS_COURSES_COUNT
};

struct faults_left_out {
	uint32_t courses; /* bits */
	bool faults[FAULTS_MAX];
};

/* "moves", ...; "kill", "contest", ... */
const char *faults_course_name(enum faults_course course);
const char *faults_kind_name(uint32_t kind);

/* Faults begin now: number 0, 1, ..., but for what c->left_out names. */
void faults_begin(struct cluster *c);

/* This seed has the course (c->courses says so from now on). False: it is left out. */
bool faults_course(struct cluster *c, enum faults_course course);

/* No new ones; everything is mended: links heal, processes go on or are booted, clocks are right,
 * sites are certified again. A node may be chosen to be lost for ever: pass its number, or
 * CLUSTER_NODES for none. */
void faults_end(struct cluster *c, uint32_t lost_node);

/* Once more after the end, when no node is lost: some blocks rot where others have rotted, when
 * nobody writes them anew any more. */
void faults_rot(struct cluster *c);

#endif
