/* A simulated process on its own simulated machine: a reactor on virtual time, the media (disks,
 * kvs) of the machine, and the ways in which both can fail.
 *
 *   create -- start --> RUNNING -- crash --> DOWN -- start --> RUNNING (the next incarnation)
 *                          | pause ^
 *                          v       | resume
 *                          PAUSED (SIGSTOP: no event runs, connections stay)
 *
 * A turn is as reactor.h says: everything that is due at this moment for this process, the deferred
 * tasks, the timers. A crash from within the process's own turn (by a fault at an I/O) takes effect
 * when the callback that runs returns; nothing that the callback still asks for happens.
 *
 * A crash: no callback of the incarnation ever runs again; timers and tasks are forgotten (their
 * fields reset); in-flight I/O is kept, dropped or torn; connections break. Then on_crash runs, in
 * which the owner may free what it has (store_abandon and the like); what is not freed is leaked
 * on purpose, and the leak sanitizer is told so for everything that is reachable from what the
 * simulator was lent. Memory of reactor_memory lives until the next start. */
#ifndef SIM_PROCESS_H
#define SIM_PROCESS_H

#include "engine/reactor/reactor.h"
#include "engine/reactor/timers.h"
#include "tests/sim/world.h"

enum sim_crash {
	SIM_KILL,	/* SIGKILL: what completed is kept, as in the page cache */
	SIM_POWER_LOSS, /* what was not made durable may be dropped or torn as well */
};

/* What becomes of each I/O in flight, and of each unsynced write at a power loss. */
enum sim_fate { SIM_FATE_RANDOM, SIM_FATE_KEEP, SIM_FATE_DROP, SIM_FATE_TEAR };

/* What happens at an I/O: of a disk (submit) or of a kv (commit). */
enum sim_io_action {
	SIM_IO_NORMAL,
	SIM_IO_FAIL, /* it fails with -EIO */
	SIM_IO_KILL, /* the process dies with this I/O in flight */
	SIM_IO_POWER_LOSS,
	SIM_IO_ACTIONS
};

/* A disk or a kv: what outlives the process. */
struct sim_media {
	struct sim_media *next;
	/* The process has crashed with how, or (alive false before) the power of its machine. */
	void (*crash)(struct sim_media *m, enum sim_crash how);
	void (*destroy)(struct sim_media *m);
};

struct sim_memory;
struct sim_fiber;

struct sim_process {
	struct reactor reactor; /* what production code is given */
	struct sim_world *world;
	char name[NAME_SIZE_MAX];
	uint32_t index;
	bool alive, paused;
	bool doomed; /* a crash is pending until the callback returns */
	enum sim_crash doom;
	uint64_t incarnation;
	uint64_t boot_offset_ns; /* its CLOCK_BOOTTIME minus virtual time */
	int64_t wall_offset_ns;	 /* the error of its wall clock; change it at will */
	uint64_t work_ns; /* what its worker takes besides, as on a slow disk; change it at will */
	bool workers_block; /* what its workers do may wait: fiber.h */
	enum sim_fate fate;
	uint64_t io_count; /* since the process was created */
	uint64_t io_fault_at;
	enum sim_io_action io_fault;
	uint64_t io_faults[SIM_IO_ACTIONS];			     /* that an I/O has met */
	void (*on_crash)(struct sim_process *p, enum sim_crash how); /* may be NULL */
	void *app; /* the user's; its reach counts as abandoned by a crash */

	struct timers timers;
	uint64_t wake_ns;     /* virtual time of the wake-up that is scheduled */
	uint64_t wake_for_ns; /* of the deadline that it is for */
	struct reactor_task *tasks, **tasks_tail;
	bool turn_scheduled;
	uint64_t stalled_until_ns; /* stopped in mid-turn: virtual time at which it goes on */
	struct sim_memory *memory;
	struct sim_fiber *fibers;
	struct sim_media *media;
	struct sim_event *held; /* events that came while it was paused */
	size_t held_count, held_max;
};

/* It begins down. name: unique, copied. */
struct sim_process *sim_process_create(struct sim_world *w, const char *name);
void sim_process_start(struct sim_process *p);
void sim_process_crash(struct sim_process *p, enum sim_crash how);

/* No effect on one that is down. */
void sim_process_pause(struct sim_process *p);
void sim_process_resume(struct sim_process *p);

/* The n-th I/O from now on (1 is the next one) meets this action. One at a time. */
void sim_process_on_io(struct sim_process *p, uint64_t n, enum sim_io_action action);

static inline struct reactor *sim_reactor(struct sim_process *p)
{
	return &p->reactor;
}

/* The process that a simulated reactor belongs to. */
struct sim_process *sim_process_of(const struct reactor *r);

/* -- for the other parts of the simulator ---------------------------------------------------- */

/* Counts an I/O and tells what happens to it; the crash itself is set going here. */
enum sim_io_action sim_process_io(struct sim_process *p);
void sim_process_add_media(struct sim_process *p, struct sim_media *m);
void sim_process_turn(struct sim_process *p, const struct sim_event *e);
void sim_process_hold(struct sim_process *p, const struct sim_event *e);
void sim_process_destroy(struct sim_process *p);

/* What runs in its present turn has blocked it for so long: it goes on after that. */
void sim_process_stall(struct sim_process *p, uint64_t ns);

/* CLOCK_BOOTTIME, as it reads it now. */
uint64_t sim_process_boot_ns(const struct sim_process *p);

/* Tells the leak sanitizer that this, and what it reaches, was abandoned. NULL is allowed. */
void sim_abandon(const void *p);

/* A delay for what this process does now: more when it was stopped in mid-turn. */
uint64_t sim_process_delay(const struct sim_process *p, uint64_t delay_ns);

#endif
