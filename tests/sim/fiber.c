/* fiber: see fiber.h. Stacks are kept for the next fiber of the process; below each lies a page
 * that cannot be touched. */
#include "tests/sim/fiber.h"

#include <stdlib.h>
#include <sys/mman.h>
#include <ucontext.h>

#include "engine/base/assert.h"

#define STACK_BYTES (256u << 10)

enum fiber_state { FREE, RUNNING, WAITING };

struct sim_fiber {
	struct sim_fiber *next; /* of the process */
	struct sim_process *process;
	uint64_t incarnation;
	enum fiber_state state;
	void (*fn)(void *arg);
	void *arg;
	uint8_t *memory; /* the guard page, then the stack */
	ucontext_t context, back;
};

static struct sim_fiber *current;

struct sim_fiber *sim_fiber_now(void)
{
	return current;
}

/* -- from one stack to the other ------------------------------------------------------------- */

/* The address sanitizer has to be told; absent from plain builds. */
void __sanitizer_start_switch_fiber(void **save, const void *bottom, size_t size)
    __attribute__((weak));
void __sanitizer_finish_switch_fiber(void *save, const void **ret_bottom, size_t *ret_size)
    __attribute__((weak));

static const void *main_bottom; /* of the stack that fibers are started from */
static size_t main_size;

static void announce(void **save, const void *bottom, size_t size)
{
	if (__sanitizer_start_switch_fiber != NULL)
		__sanitizer_start_switch_fiber(save, bottom, size);
}

static void arrived(void *save, const void **ret_bottom, size_t *ret_size)
{
	if (__sanitizer_finish_switch_fiber != NULL)
		__sanitizer_finish_switch_fiber(save, ret_bottom, ret_size);
}

static void switch_to(struct sim_fiber *f)
{
	void *save = NULL;

	PRE(current == NULL && f->process->world->now == f->process &&
	    f->incarnation == f->process->incarnation);
	current = f;
	f->state = RUNNING;
	announce(&save, f->memory + BLOCK_SIZE, STACK_BYTES);
	INVARIANT(swapcontext(&f->back, &f->context) == 0);
	arrived(save, NULL, NULL);
	current = NULL;
}

static void run(void)
{
	struct sim_fiber *f = current;

	arrived(NULL, &main_bottom, &main_size);
	f->fn(f->arg);
	f->state = FREE;
	announce(NULL, main_bottom, main_size); /* and its context's link leads back */
}

void sim_fiber_wait(void)
{
	struct sim_fiber *f = current;
	void *save = NULL;

	PRE(f != NULL);
	f->state = WAITING;
	announce(&save, main_bottom, main_size);
	INVARIANT(swapcontext(&f->context, &f->back) == 0);
	arrived(save, &main_bottom, &main_size);
}

void sim_fiber_wake(struct sim_fiber *f)
{
	PRE(f->state == WAITING);
	switch_to(f);
}

static void slept(void *arg)
{
	sim_fiber_wake(arg);
}

void sim_fiber_sleep(uint64_t ns)
{
	struct sim_process *p = current->process;

	sim_schedule(p->world, p, sim_process_delay(p, ns), slept, current);
	sim_fiber_wait();
}

/* -- beginning and end ----------------------------------------------------------------------- */

static struct sim_fiber *fiber_create(struct sim_process *p)
{
	struct sim_fiber *f = calloc(1, sizeof(*f));

	INVARIANT(f != NULL);
	f->memory = mmap(NULL, BLOCK_SIZE + STACK_BYTES, PROT_READ | PROT_WRITE,
			 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	INVARIANT(f->memory != MAP_FAILED);
	mprotect(f->memory, BLOCK_SIZE, PROT_NONE);
	f->process = p;
	f->next = p->fibers;
	p->fibers = f;
	return f;
}

static struct sim_fiber *free_fiber(struct sim_process *p)
{
	struct sim_fiber *f = p->fibers;

	while (f != NULL && f->state != FREE)
		f = f->next;
	return f != NULL ? f : fiber_create(p);
}

/* Apart, as the compiler takes every getcontext for one that comes back twice. */
__attribute__((noinline)) static void begin_context(ucontext_t *context)
{
	INVARIANT(getcontext(context) == 0);
}

void sim_fiber_start(struct sim_process *p, void (*fn)(void *arg), void *arg)
{
	struct sim_fiber *const f = free_fiber(p);

	f->incarnation = p->incarnation;
	f->fn = fn;
	f->arg = arg;
	begin_context(&f->context);
	f->context.uc_stack.ss_sp = f->memory + BLOCK_SIZE;
	f->context.uc_stack.ss_size = STACK_BYTES;
	f->context.uc_link = &f->back;
	makecontext(&f->context, run, 0);
	switch_to(f);
}

void sim_fiber_drop_all(struct sim_process *p)
{
	for (struct sim_fiber *f = p->fibers; f != NULL; f = f->next)
		f->state = FREE;
}

void sim_fiber_destroy_all(struct sim_process *p)
{
	while (p->fibers != NULL) {
		struct sim_fiber *f = p->fibers;

		p->fibers = f->next;
		munmap(f->memory, BLOCK_SIZE + STACK_BYTES);
		free(f);
	}
}
