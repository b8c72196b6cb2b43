/* The simulated world: virtual time, one queue of events, one source of randomness, one trace.
 *
 * Everything that happens in a simulation is an event in this queue, ordered by (virtual time,
 * order of scheduling), so a run is a function of its seed: the same seed gives the same trace,
 * whose hash tests compare. Nothing here or above reads a real clock, an address or a hash table's
 * order.
 *
 * An event belongs to a process (process.h) or, with NULL, to the world itself. The event of a
 * process that has crashed since never runs; that of a paused one waits until it goes on.
 *
 * Thread: one. Memory: when it runs out the program ends; these are tests. */
#ifndef SIM_WORLD_H
#define SIM_WORLD_H

#include <stdio.h>

#include "engine/base/types.h"

#define SIM_PROCESSES_MAX 32u
#define SIM_TRACE_LINES	  8192u
#define SIM_TRACE_TEXT	  160u
#define SIM_TRACE_VALUES  12u

/* Wall clock at virtual time 0: 2026-11-23T10:00:00Z. */
#define SIM_EPOCH_NS 1795428000000000000ll

struct sim_process;
struct sim_net;
struct sim_world;

struct sim_event {
	uint64_t time_ns;
	uint64_t order;
	struct sim_process *process; /* NULL: the world's */
	uint64_t incarnation;
	void (*fn)(void *arg);
	void *arg;
};

/* Puts the values of a note into words. */
typedef void sim_trace_words(const struct sim_world *w, const uint64_t *values, char *buf,
			     size_t size);

struct sim_trace_line {
	uint64_t time_ns;
	uint32_t process;	/* index + 1; 0: the world */
	sim_trace_words *words; /* NULL: text is there */
	union {
		char text[SIM_TRACE_TEXT];
		uint64_t values[SIM_TRACE_VALUES];
	};
};

/* Read the fields freely; change them by the functions. */
struct sim_world {
	uint64_t seed;
	uint64_t now_ns;
	uint64_t next_order;
	uint64_t rng[4];
	struct sim_event *heap; /* from 0 */
	size_t heap_count, heap_max;
	struct sim_process *processes[SIM_PROCESSES_MAX];
	uint32_t process_count;
	uint64_t crash_count;	 /* of all processes */
	uint64_t event_count;	 /* that ran */
	uint64_t stall_count;	 /* processes that were stopped in mid-turn */
	struct sim_net *net;	 /* net.c's; NULL until a transport is made */
	struct sim_process *now; /* the process whose turn it is */
	struct sim_trace_line *trace;
	uint64_t trace_count;
	uint64_t trace_hash;
	bool trace_off;	      /* only the hash is kept: for loops of many short runs */
	FILE *trace_to;	      /* NULL; or every line goes there as it happens */
	bool check_mid_turns; /* reactor_refresh may find that the process was stopped meanwhile */
	bool stops_unseen;    /* and does not: a mutant */
};

struct sim_world *sim_world_create(uint64_t seed);

/* Kills what is alive (on_crash runs); processes, disks and kvs go with it. NULL is allowed. */
void sim_world_destroy(struct sim_world *w);

/* Randomness from the seed. */
uint64_t sim_random(struct sim_world *w);
uint64_t sim_random_below(struct sim_world *w, uint64_t n);		    /* [0, n), n > 0 */
uint64_t sim_random_range(struct sim_world *w, uint64_t from, uint64_t to); /* [from, to] */
bool sim_chance(struct sim_world *w, uint64_t numerator, uint64_t denominator);

/* Runs fn(arg) after delay_ns of virtual time as an event of p (NULL: of the world). */
void sim_schedule(struct sim_world *w, struct sim_process *p, uint64_t delay_ns,
		  void (*fn)(void *arg), void *arg);

/* Runs the next event, and with it the turn of its process. False: the queue is empty. */
bool sim_step(struct sim_world *w);

/* Steps until cond(arg) is true: 0. -ETIMEDOUT: virtual time would pass deadline_ns (it is then
 * deadline_ns). -E_DISCONNECTED: some process has crashed meanwhile. -ENODATA: nothing is left to
 * happen. cond may be NULL: never true. */
int sim_run_until(struct sim_world *w, uint64_t deadline_ns, bool (*cond)(void *arg), void *arg);

/* The same for a flag, for at most an hour of virtual time. True: the flag is set. */
bool sim_run_flag(struct sim_world *w, const bool *flag);

/* Steps until delay_ns have passed, whatever crashes. */
void sim_run_for(struct sim_world *w, uint64_t delay_ns);

/* One line of the timeline. p may be NULL. */
void sim_trace(struct sim_world *w, const struct sim_process *p, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

/* The same for what happens often: a line is put into words when somebody reads it. values: at most
 * SIM_TRACE_VALUES, numbers only (a pointer is another in each run). */
void sim_trace_note(struct sim_world *w, const struct sim_process *p, sim_trace_words *words,
		    const uint64_t *values, uint32_t count);

/* The last lines, up to max (and SIM_TRACE_LINES), oldest first. */
void sim_trace_print(const struct sim_world *w, FILE *to, uint64_t max);

uint64_t sim_trace_hash(const struct sim_world *w);

/* Sends the production code's log_line to the trace of this world until it is destroyed. */
void sim_world_take_log(struct sim_world *w);

/* The world whose log is taken, for code that has no other way to it. */
struct sim_world *sim_world_now(void);

/* -- for the other parts of the simulator ---------------------------------------------------- */

/* Takes the head of the queue if it is due at time_ns for p, as part of p's present turn. */
bool sim_world_take_due(struct sim_world *w, const struct sim_process *p, struct sim_event *ret);
void sim_world_push(struct sim_world *w, const struct sim_event *e);

#endif
