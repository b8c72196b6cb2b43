/* process: see process.h.
 *
 * Invariants: events of an incarnation carry its number, so a crash needs to remove nothing from
 * the world's queue; wake_ns is the earliest wake-up in the queue for timers, a little after the
 * deadline wake_for_ns that it is there for, so that arming a timer costs an event only when it
 * becomes the first. */
#include "tests/sim/process.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "engine/base/assert.h"
#include "tests/sim/fiber.h"
#include "tests/sim/net.h"

#define TIMER_LATE_MAX_NS 20000u
#define POST_DELAY_NS	  2000u
#define WORK_DELAY_MIN_NS 5000u
#define WORK_DELAY_MAX_NS 500000u
#define STALL_ONE_IN	  5000u
#define STALL_MAX_NS	  (15 * NS_PER_S)

/* Mapped, so that large pools cost nothing until they are touched; a page that cannot be touched
 * follows each. */
struct sim_memory {
	struct sim_memory *next;
	void *data;
	size_t mapped_bytes;
};

static const struct reactor_ops sim_ops;

/* Of the sanitizer's runtime; absent from plain builds. */
void __lsan_ignore_object(const void *p) __attribute__((weak));

void sim_abandon(const void *p)
{
	if (p != NULL && __lsan_ignore_object != NULL)
		__lsan_ignore_object(p);
}

struct sim_process *sim_process_of(const struct reactor *r)
{
	PRE(r->ops == &sim_ops);
	return container_of(r, struct sim_process, reactor);
}

uint64_t sim_process_delay(const struct sim_process *p, uint64_t delay_ns)
{
	uint64_t now_ns = p->world->now_ns;

	return delay_ns + (p->stalled_until_ns > now_ns ? p->stalled_until_ns - now_ns : 0);
}

static bool in_turn(const struct sim_process *p)
{
	return p->world->now == p;
}

uint64_t sim_process_boot_ns(const struct sim_process *p)
{
	return p->world->now_ns + sim_process_delay(p, 0) + p->boot_offset_ns;
}

void sim_process_stall(struct sim_process *p, uint64_t ns)
{
	PRE(in_turn(p));
	p->stalled_until_ns = p->world->now_ns + sim_process_delay(p, ns);
}

static void set_now(struct sim_process *p)
{
	uint64_t now_ns = sim_process_boot_ns(p);

	if (now_ns > p->reactor.now_ns)
		p->reactor.now_ns = now_ns;
}

/* -- turns ----------------------------------------------------------------------------------- */

static void nothing(void *arg)
{
	(void)arg;
}

static void turn_for_tasks(void *arg)
{
	struct sim_process *p = arg;

	p->turn_scheduled = false;
}

/* Makes sure that the first timer is woken up for. */
static void schedule_wake(struct sim_process *p)
{
	uint64_t next_ns = timers_next(&p->timers);
	uint64_t at_ns;

	if (next_ns == TIMERS_NEVER)
		return;
	/* Times before the machine booted can be asked for: they are due at once. */
	at_ns = next_ns > p->boot_offset_ns ? next_ns - p->boot_offset_ns : 0;
	at_ns = MAX(at_ns, p->world->now_ns);
	if (at_ns >= p->wake_for_ns)
		return;
	p->wake_for_ns = at_ns;
	p->wake_ns = at_ns + sim_random_below(p->world, TIMER_LATE_MAX_NS);
	sim_schedule(p->world, p, p->wake_ns - p->world->now_ns, nothing, NULL);
}

static void run_tasks(struct sim_process *p)
{
	while (p->tasks != NULL && !p->doomed) {
		struct reactor_task *t = p->tasks;

		p->tasks = t->next;
		if (p->tasks == NULL)
			p->tasks_tail = &p->tasks;
		t->queued = false;
		p->reactor.refreshed = false;
		t->run(t);
	}
}

static void go_on(void *arg)
{
	sim_process_resume(arg);
}

/* A process that was stopped in mid-turn stays stopped after it for as long. */
static void end_stall(struct sim_process *p)
{
	uint64_t left_ns = sim_process_delay(p, 0);

	if (left_ns == 0)
		return;
	p->paused = true;
	sim_schedule(p->world, NULL, left_ns, go_on, p);
}

void sim_process_turn(struct sim_process *p, const struct sim_event *first)
{
	struct sim_world *w = p->world;
	struct sim_event e = *first;

	INVARIANT(p->alive && !p->paused && w->now == NULL);
	w->now = p;
	set_now(p);
	if (w->now_ns >= p->wake_ns)
		p->wake_ns = p->wake_for_ns = UINT64_MAX;
	while (!p->doomed) {
		p->reactor.refreshed = false;
		e.fn(e.arg);
		if (!sim_world_take_due(w, p, &e))
			break;
	}
	run_tasks(p);
	p->reactor.refreshed = false;
	if (!p->doomed)
		timers_fire(&p->timers, p->reactor.now_ns);
	run_tasks(p);
	p->reactor.refreshed = false;
	w->now = NULL;
	if (p->doomed) {
		sim_process_crash(p, p->doom);
		return;
	}
	schedule_wake(p);
	end_stall(p);
}

void sim_process_hold(struct sim_process *p, const struct sim_event *e)
{
	if (p->held_count == p->held_max) {
		p->held_max = p->held_max == 0 ? 64 : p->held_max * 2;
		p->held = reallocarray(p->held, p->held_max, sizeof(*p->held));
		INVARIANT(p->held != NULL);
	}
	p->held[p->held_count++] = *e;
}

/* -- the reactor's operations ---------------------------------------------------------------- */

static int64_t sim_wall_ns(struct reactor *r)
{
	struct sim_process *p = sim_process_of(r);

	return SIM_EPOCH_NS + (int64_t)(p->world->now_ns + sim_process_delay(p, 0)) +
	       p->wall_offset_ns;
}

static void sim_fill_random(struct reactor *r, void *buf, size_t size_bytes)
{
	struct sim_process *p = sim_process_of(r);
	uint8_t *to = buf;

	while (size_bytes > 0) {
		uint64_t x = sim_random(p->world);
		size_t n = MIN(size_bytes, sizeof(x));

		memcpy(to, &x, n);
		to += n;
		size_bytes -= n;
	}
}

static void sim_timer_arm(struct reactor *r, struct reactor_timer *t, uint64_t deadline_ns)
{
	struct sim_process *p = sim_process_of(r);

	PRE(p->alive);
	timers_arm(&p->timers, t, deadline_ns, r->now_ns);
	if (!in_turn(p))
		schedule_wake(p);
}

static void sim_timer_cancel(struct reactor *r, struct reactor_timer *t)
{
	struct sim_process *p = sim_process_of(r);

	/* After a crash an owner that cleans up may still cancel what was forgotten. */
	if (t->heap_slot != 0)
		timers_cancel(&p->timers, t);
}

static void sim_defer(struct reactor *r, struct reactor_task *t)
{
	struct sim_process *p = sim_process_of(r);

	PRE(p->alive && t->run != NULL);
	if (t->queued)
		return;
	t->queued = true;
	t->next = NULL;
	*p->tasks_tail = t;
	p->tasks_tail = &t->next;
	if (!in_turn(p) && !p->turn_scheduled) {
		p->turn_scheduled = true;
		sim_schedule(p->world, p, 0, turn_for_tasks, p);
	}
}

static void run_posted(void *arg)
{
	struct reactor_task *t = arg;

	t->run(t);
}

static void sim_post(struct reactor *r, struct reactor_task *t)
{
	struct sim_process *p = sim_process_of(r);

	PRE(p->alive);
	sim_schedule(p->world, p, sim_process_delay(p, POST_DELAY_NS), run_posted, t);
}

static void work_done(void *arg)
{
	struct reactor_work *w = arg;

	w->done(w);
}

static void work_now(void *arg)
{
	struct reactor_work *w = arg;
	struct sim_process *p = sim_process_of(w->reactor);

	w->work(w);
	sim_schedule(p->world, p, sim_random_below(p->world, WORK_DELAY_MIN_NS), work_done, w);
}

static void work_run(void *arg)
{
	struct reactor_work *w = arg;
	struct sim_process *p = sim_process_of(w->reactor);

	if (p->workers_block)
		sim_fiber_start(p, work_now, w);
	else
		work_now(w);
}

static void sim_offload(struct reactor *r, struct reactor_work *w)
{
	struct sim_process *p = sim_process_of(r);
	uint64_t delay_ns = sim_random_range(p->world, WORK_DELAY_MIN_NS, WORK_DELAY_MAX_NS);

	PRE(p->alive);
	sim_schedule(p->world, p, sim_process_delay(p, delay_ns + p->work_ns), work_run, w);
}

static void *sim_memory(struct reactor *r, size_t size_bytes)
{
	struct sim_process *p = sim_process_of(r);
	struct sim_memory *m = malloc(sizeof(*m));

	PRE(p->alive);
	if (m == NULL)
		return NULL;
	m->mapped_bytes = ROUND_UP(MAX(size_bytes, 1), BLOCK_SIZE) + BLOCK_SIZE;
	m->data = mmap(NULL, m->mapped_bytes, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (m->data == MAP_FAILED) {
		free(m);
		return NULL;
	}
	mprotect((uint8_t *)m->data + m->mapped_bytes - BLOCK_SIZE, BLOCK_SIZE, PROT_NONE);
	m->next = p->memory;
	p->memory = m;
	return m->data;
}

static void sim_memory_put(struct reactor *r, void *data, size_t size_bytes)
{
	struct sim_process *p = sim_process_of(r);

	(void)size_bytes;
	for (struct sim_memory **m = &p->memory; data != NULL && *m != NULL; m = &(*m)->next) {
		struct sim_memory *found = *m;

		if (found->data != data)
			continue;
		*m = found->next;
		munmap(found->data, found->mapped_bytes);
		free(found);
		return;
	}
}

static void sim_refresh(struct reactor *r)
{
	struct sim_process *p = sim_process_of(r);
	struct sim_world *w = p->world;

	if (w->check_mid_turns && in_turn(p) && sim_chance(w, 1, STALL_ONE_IN)) {
		w->stall_count++;
		p->stalled_until_ns = w->now_ns + sim_random_below(w, STALL_MAX_NS);
		sim_trace(w, p, "stopped in mid-turn for %llu ms",
			  sim_process_delay(p, 0) / NS_PER_MS);
	}
	if (!w->stops_unseen)
		set_now(p);
}

static const struct reactor_ops sim_ops = {
    .wall_ns = sim_wall_ns,
    .random = sim_fill_random,
    .timer_arm = sim_timer_arm,
    .timer_cancel = sim_timer_cancel,
    .defer = sim_defer,
    .post = sim_post,
    .offload = sim_offload,
    .memory = sim_memory,
    .memory_put = sim_memory_put,
    .refresh = sim_refresh,
};

/* -- life and death -------------------------------------------------------------------------- */

struct sim_process *sim_process_create(struct sim_world *w, const char *name)
{
	struct sim_process *p = calloc(1, sizeof(*p));

	INVARIANT(p != NULL);
	PRE(w->process_count < SIM_PROCESSES_MAX);
	PRE(strlen(name) < sizeof(p->name));
	snprintf(p->name, sizeof(p->name), "%s", name);
	p->world = w;
	p->index = w->process_count;
	p->reactor.ops = &sim_ops;
	p->tasks_tail = &p->tasks;
	p->wake_ns = p->wake_for_ns = UINT64_MAX;
	/* No two machines booted at the same moment: a deadline that travels shows. */
	p->boot_offset_ns = NS_PER_S + sim_random_below(w, 100000 * NS_PER_S);
	INVARIANT(timers_init(&p->timers) == 0);
	w->processes[w->process_count++] = p;
	return p;
}

static void free_memory(struct sim_process *p)
{
	while (p->memory != NULL) {
		struct sim_memory *m = p->memory;

		p->memory = m->next;
		munmap(m->data, m->mapped_bytes);
		free(m);
	}
}

void sim_process_start(struct sim_process *p)
{
	PRE(!p->alive && !in_turn(p));
	free_memory(p);
	p->alive = true;
	p->incarnation++;
	set_now(p);
	sim_trace(p->world, p, "started");
	sim_net_started(p);
}

/* Timers and tasks of the dead are reset, so that an owner may clean up or start again. */
static void forget(struct sim_process *p)
{
	for (uint32_t i = 1; i <= p->timers.count; i++) {
		p->timers.heap[i].timer->heap_slot = 0;
		sim_abandon(p->timers.heap[i].timer);
	}
	p->timers.count = 0;
	while (p->tasks != NULL) {
		struct reactor_task *t = p->tasks;

		p->tasks = t->next;
		t->queued = false;
		sim_abandon(t);
	}
	p->tasks_tail = &p->tasks;
	for (size_t i = 0; i < p->held_count; i++)
		sim_abandon(p->held[i].arg);
	p->held_count = 0;
	sim_abandon(p->app);
}

void sim_process_crash(struct sim_process *p, enum sim_crash how)
{
	bool was_alive = p->alive;

	if (in_turn(p)) {
		if (!p->doomed)
			p->doom = how;
		p->doomed = true;
		return;
	}
	if (!was_alive && how == SIM_KILL)
		return;
	sim_trace(p->world, p, how == SIM_KILL ? "killed" : "power lost");
	p->alive = p->paused = p->doomed = p->turn_scheduled = false;
	p->stalled_until_ns = 0;
	/* Of a stop in mid-turn it had seen the end, which it did not live to. */
	p->reactor.now_ns = 0;
	p->wake_ns = p->wake_for_ns = UINT64_MAX;
	p->io_fault = SIM_IO_NORMAL;
	forget(p);
	sim_fiber_drop_all(p);
	for (struct sim_media *m = p->media; m != NULL; m = m->next)
		m->crash(m, how);
	if (!was_alive)
		return;
	sim_net_crash(p, how);
	p->world->crash_count++;
	if (p->on_crash != NULL)
		p->on_crash(p, how);
}

void sim_process_pause(struct sim_process *p)
{
	PRE(!in_turn(p));
	if (!p->alive || p->paused)
		return;
	sim_trace(p->world, p, "paused");
	p->paused = true;
}

void sim_process_resume(struct sim_process *p)
{
	if (!p->alive || !p->paused || p->world->now_ns < p->stalled_until_ns)
		return;
	sim_trace(p->world, p, "resumed");
	p->paused = false;
	for (size_t i = 0; i < p->held_count; i++) {
		struct sim_event e = p->held[i];

		e.time_ns = p->world->now_ns;
		e.order = p->world->next_order++;
		sim_world_push(p->world, &e);
	}
	p->held_count = 0;
}

void sim_process_on_io(struct sim_process *p, uint64_t n, enum sim_io_action action)
{
	PRE(n > 0);
	p->io_fault_at = p->io_count + n;
	p->io_fault = action;
}

enum sim_io_action sim_process_io(struct sim_process *p)
{
	enum sim_io_action action = p->io_fault;

	PRE(p->alive);
	p->io_count++;
	if (action == SIM_IO_NORMAL || p->io_count != p->io_fault_at)
		return SIM_IO_NORMAL;
	p->io_fault = SIM_IO_NORMAL;
	p->io_faults[action]++;
	sim_trace(p->world, p, "fault %d at I/O %lu", (int)action, p->io_count);
	if (action == SIM_IO_FAIL)
		return action;
	p->doomed = true;
	p->doom = action == SIM_IO_KILL ? SIM_KILL : SIM_POWER_LOSS;
	if (!in_turn(p))
		sim_schedule(p->world, p, 0, nothing, NULL);
	return action;
}

void sim_process_add_media(struct sim_process *p, struct sim_media *m)
{
	struct sim_media **at = &p->media;

	while (*at != NULL)
		at = &(*at)->next;
	m->next = NULL;
	*at = m;
}

void sim_process_destroy(struct sim_process *p)
{
	while (p->media != NULL) {
		struct sim_media *m = p->media;

		p->media = m->next;
		m->destroy(m);
	}
	free_memory(p);
	sim_fiber_destroy_all(p);
	free(p->held);
	timers_deinit(&p->timers);
	free(p);
}
