/* world: see world.h.
 *
 * The queue is a binary heap of plain structs; events of dead incarnations are dropped when they
 * come to its head. The randomness is xoshiro256** (Blackman, Vigna) seeded by splitmix64. */
#include "tests/sim/world.h"

#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/assert.h"
#include "engine/base/err.h"
#include "engine/base/log.h"
#include "tests/sim/net.h"
#include "tests/sim/process.h"

static struct sim_world *log_world;

/* -- life ------------------------------------------------------------------------------------ */

static uint64_t splitmix(uint64_t *state)
{
	uint64_t z = (*state += 0x9e3779b97f4a7c15ull);

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
	return z ^ (z >> 31);
}

struct sim_world *sim_world_create(uint64_t seed)
{
	struct sim_world *w = calloc(1, sizeof(*w));
	uint64_t state = seed;

	INVARIANT(w != NULL);
	w->seed = seed;
	for (int i = 0; i < 4; i++)
		w->rng[i] = splitmix(&state);
	w->trace_hash = 0xcbf29ce484222325ull;
	return w;
}

void sim_world_destroy(struct sim_world *w)
{
	if (w == NULL)
		return;
	if (log_world == w) {
		log_world = NULL;
		log_set_sink(NULL);
	}
	for (uint32_t i = 0; i < w->process_count; i++)
		sim_process_crash(w->processes[i], SIM_KILL);
	sim_net_destroy(w);
	for (uint32_t i = 0; i < w->process_count; i++)
		sim_process_destroy(w->processes[i]);
	free(w->heap);
	free(w->trace);
	free(w);
}

/* -- randomness ------------------------------------------------------------------------------ */

static uint64_t rotl(uint64_t x, int k)
{
	return (x << k) | (x >> (64 - k));
}

uint64_t sim_random(struct sim_world *w)
{
	uint64_t *s = w->rng;
	uint64_t result = rotl(s[1] * 5, 7) * 9;
	uint64_t t = s[1] << 17;

	s[2] ^= s[0];
	s[3] ^= s[1];
	s[1] ^= s[2];
	s[0] ^= s[3];
	s[2] ^= t;
	s[3] = rotl(s[3], 45);
	return result;
}

uint64_t sim_random_below(struct sim_world *w, uint64_t n)
{
	PRE(n > 0);
	return sim_random(w) % n;
}

uint64_t sim_random_range(struct sim_world *w, uint64_t from, uint64_t to)
{
	PRE(from <= to);
	return from + sim_random_below(w, to - from + 1);
}

bool sim_chance(struct sim_world *w, uint64_t numerator, uint64_t denominator)
{
	return sim_random_below(w, denominator) < numerator;
}

/* -- the queue ------------------------------------------------------------------------------- */

static bool before(const struct sim_event *a, const struct sim_event *b)
{
	return a->time_ns != b->time_ns ? a->time_ns < b->time_ns : a->order < b->order;
}

void sim_world_push(struct sim_world *w, const struct sim_event *e)
{
	size_t i = w->heap_count;

	PRE(e->time_ns >= w->now_ns);
	if (w->heap_count == w->heap_max) {
		w->heap_max = w->heap_max == 0 ? 256 : w->heap_max * 2;
		w->heap = reallocarray(w->heap, w->heap_max, sizeof(*w->heap));
		INVARIANT(w->heap != NULL);
	}
	w->heap_count++;
	while (i > 0 && before(e, &w->heap[(i - 1) / 2])) {
		w->heap[i] = w->heap[(i - 1) / 2];
		i = (i - 1) / 2;
	}
	w->heap[i] = *e;
}

static struct sim_event pop(struct sim_world *w)
{
	struct sim_event top = w->heap[0];
	struct sim_event last = w->heap[--w->heap_count];
	size_t i = 0;

	for (;;) {
		size_t child = 2 * i + 1;

		if (child >= w->heap_count)
			break;
		if (child + 1 < w->heap_count && before(&w->heap[child + 1], &w->heap[child]))
			child++;
		if (!before(&w->heap[child], &last))
			break;
		w->heap[i] = w->heap[child];
		i = child;
	}
	w->heap[i] = last;
	return top;
}

static bool is_dead(const struct sim_event *e)
{
	return e->process != NULL &&
	       (!e->process->alive || e->incarnation != e->process->incarnation);
}

/* Drops dead events from the head. */
static bool head_is_live(struct sim_world *w)
{
	while (w->heap_count > 0 && is_dead(&w->heap[0]))
		pop(w);
	return w->heap_count > 0;
}

void sim_schedule(struct sim_world *w, struct sim_process *p, uint64_t delay_ns,
		  void (*fn)(void *arg), void *arg)
{
	struct sim_event e = {
	    .time_ns = w->now_ns + delay_ns,
	    .order = w->next_order++,
	    .process = p,
	    .incarnation = p != NULL ? p->incarnation : 0,
	    .fn = fn,
	    .arg = arg,
	};

	sim_world_push(w, &e);
}

bool sim_world_take_due(struct sim_world *w, const struct sim_process *p, struct sim_event *ret)
{
	if (!head_is_live(w) || w->heap[0].process != p || w->heap[0].time_ns != w->now_ns)
		return false;
	*ret = pop(w);
	return true;
}

/* So that code which tests call outside of any turn sees the present time. */
static void refresh_all(struct sim_world *w)
{
	for (uint32_t i = 0; i < w->process_count; i++)
		reactor_refresh(&w->processes[i]->reactor);
}

bool sim_step(struct sim_world *w)
{
	struct sim_event e;

	if (!head_is_live(w))
		return false;
	e = pop(w);
	INVARIANT(e.time_ns >= w->now_ns);
	w->now_ns = e.time_ns;
	w->event_count++;
	if (e.process == NULL) {
		refresh_all(w);
		e.fn(e.arg);
	} else if (e.process->paused) {
		sim_process_hold(e.process, &e);
	} else {
		sim_process_turn(e.process, &e);
	}
	return true;
}

int sim_run_until(struct sim_world *w, uint64_t deadline_ns, bool (*cond)(void *arg), void *arg)
{
	uint64_t crashes = w->crash_count;
	int rc = 0;

	while (cond == NULL || !cond(arg)) {
		if (w->crash_count != crashes) {
			rc = -E_DISCONNECTED;
			break;
		}
		if (!head_is_live(w)) {
			rc = -ENODATA;
			break;
		}
		if (w->heap[0].time_ns > deadline_ns) {
			w->now_ns = MAX(w->now_ns, deadline_ns);
			rc = -ETIMEDOUT;
			break;
		}
		sim_step(w);
	}
	refresh_all(w);
	return rc;
}

static bool flag_is_set(void *arg)
{
	return *(const bool *)arg;
}

bool sim_run_flag(struct sim_world *w, const bool *flag)
{
	return sim_run_until(w, w->now_ns + 3600 * NS_PER_S, flag_is_set,
			     (void *)(uintptr_t)flag) == 0;
}

void sim_run_for(struct sim_world *w, uint64_t delay_ns)
{
	uint64_t deadline_ns = w->now_ns + delay_ns;

	while (head_is_live(w) && w->heap[0].time_ns <= deadline_ns)
		sim_step(w);
	w->now_ns = deadline_ns;
	refresh_all(w);
}

/* -- the trace ------------------------------------------------------------------------------- */

static void hash_word(struct sim_world *w, uint64_t word)
{
	const uint64_t h = (w->trace_hash ^ word) * 0x9e3779b97f4a7c15ull;

	w->trace_hash = h ^ (h >> 32);
}

static void hash_bytes(struct sim_world *w, const void *data, size_t size)
{
	const uint8_t *p = data;
	uint64_t word;

	for (; size >= sizeof(word); size -= sizeof(word), p += sizeof(word)) {
		memcpy(&word, p, sizeof(word));
		hash_word(w, word);
	}
	word = size;
	memcpy((uint8_t *)&word + 1, p, size);
	hash_word(w, word);
}

static void print_line(const struct sim_world *w, const struct sim_trace_line *l, FILE *to)
{
	char buf[SIM_TRACE_TEXT];

	if (l->words != NULL)
		l->words(w, l->values, buf, sizeof(buf));
	fprintf(to, "%6llu.%09llu  %-8s  %s\n", l->time_ns / NS_PER_S, l->time_ns % NS_PER_S,
		l->process == 0 ? "*" : w->processes[l->process - 1]->name,
		l->words != NULL ? buf : l->text);
}

/* The next line, without its content. scratch: where it goes when none is kept. */
static struct sim_trace_line *next_line(struct sim_world *w, const struct sim_process *p,
					struct sim_trace_line *scratch)
{
	struct sim_trace_line *l = scratch;

	if (!w->trace_off) {
		if (w->trace == NULL) {
			w->trace = calloc(SIM_TRACE_LINES, sizeof(*w->trace));
			INVARIANT(w->trace != NULL);
		}
		l = &w->trace[w->trace_count % SIM_TRACE_LINES];
	}
	w->trace_count++;
	l->time_ns = w->now_ns;
	l->process = p != NULL ? p->index + 1 : 0;
	hash_word(w, l->time_ns);
	hash_word(w, l->process);
	return l;
}

static void trace_text(struct sim_world *w, const struct sim_process *p, const char *fmt,
		       va_list ap)
{
	struct sim_trace_line scratch;
	struct sim_trace_line *l = next_line(w, p, &scratch);

	l->words = NULL;
	vsnprintf(l->text, sizeof(l->text), fmt, ap);
	hash_bytes(w, l->text, strlen(l->text));
	if (w->trace_to != NULL)
		print_line(w, l, w->trace_to);
}

void sim_trace_note(struct sim_world *w, const struct sim_process *p, sim_trace_words *words,
		    const uint64_t *values, uint32_t count)
{
	struct sim_trace_line scratch;
	struct sim_trace_line *l = next_line(w, p, &scratch);

	PRE(count <= SIM_TRACE_VALUES);
	l->words = words;
	memcpy(l->values, values, count * sizeof(*values));
	for (uint32_t i = 0; i < count; i++)
		hash_word(w, values[i]);
	if (w->trace_to != NULL)
		print_line(w, l, w->trace_to);
}

void sim_trace(struct sim_world *w, const struct sim_process *p, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	trace_text(w, p, fmt, ap);
	va_end(ap);
}

void sim_trace_print(const struct sim_world *w, FILE *to, uint64_t max)
{
	uint64_t kept = MIN(w->trace_count, SIM_TRACE_LINES);
	uint64_t n = MIN(kept, max);

	if (w->trace == NULL)
		return;
	for (uint64_t i = w->trace_count - n; i < w->trace_count; i++)
		print_line(w, &w->trace[i % SIM_TRACE_LINES], to);
}

uint64_t sim_trace_hash(const struct sim_world *w)
{
	return w->trace_hash;
}

static void log_to_trace(enum log_level level, const char *line)
{
	const char *text = strchr(line, ' '); /* the real time has no place in a trace */

	(void)level;
	if (log_world != NULL)
		sim_trace(log_world, log_world->now, "log%s", text != NULL ? text : "");
}

void sim_world_take_log(struct sim_world *w)
{
	log_world = w;
	log_set_sink(log_to_trace);
}

struct sim_world *sim_world_now(void)
{
	return log_world;
}
