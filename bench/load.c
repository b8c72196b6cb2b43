/* load: see load.h.
 *
 * A slot: IDLE --due, memory got--> IN FLIGHT --done: checked, counted--> IDLE
 *           \--no memory--> WAITING --room--> as before
 *
 * Happy path: `go` starts as many operations of a job as may begin now: in a closed loop one for
 * each idle slot, in an open one for each that is due. It runs when the load starts, when a slot
 * becomes idle, when there is room, and when the next operation is due. The job is over when its
 * time is, or its pass, and no slot is in flight. */
#include "bench/load.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/assert.h"

/* Draws of a place; then the next one that is free is taken. By Zipf's law with a high exponent
 * nearly all draws are of places that are busy. */
#define CHOICES_MAX 64u

struct job;

struct slot {
	struct target_op op;
	struct job *job;
	struct slot *next; /* idle */
	uint64_t begun_ns;
};

struct job {
	struct load *load;
	struct job_spec spec;
	struct pattern pattern;
	struct slot *slots, *idle;
	uint32_t in_flight;
	bool waiting, over;
	double due_ns; /* of the next one, since the begin; open loop */
	struct reactor_timer due;
	struct load_result result;
};

struct load {
	struct load_config c;
	struct stamps *stamps;
	void (*done)(void *arg);
	void *arg;
	uint64_t begun_ns;
	uint32_t jobs_left;
	bool stopping, room_asked;
	struct reactor_task room, finished;
	struct timeline timeline;
	struct slowest slowest;
	struct load_result total;
	struct job jobs[];
};

static void go(struct job *j);

/* -- ends -------------------------------------------------------------------------------------- */

static void finished(struct reactor_task *task)
{
	struct load *l = container_of(task, struct load, finished);

	slowest_end(&l->slowest);
	l->done(l->arg);
}

static void count_missed(struct job *j)
{
	/* Of a load that was told to end sooner, what would have been due later is not missed. */
	const double end = (double)MIN(j->load->c.duration_ns, j->result.elapsed_ns);

	if (j->spec.rate > 0 && j->due_ns < end)
		j->result.missed = (uint64_t)ceil((end - j->due_ns) * j->spec.rate / 1e9);
}

static void maybe_over(struct job *j)
{
	struct load *l = j->load;

	if (j->over || j->in_flight > 0 || !l->stopping)
		return;
	j->over = true;
	reactor_timer_cancel(l->c.reactor, &j->due);
	j->result.elapsed_ns = reactor_now_ns(l->c.reactor) - l->begun_ns;
	if (j->result.first_error == 0 && !l->c.once)
		count_missed(j);
	if (--l->jobs_left == 0)
		reactor_defer(l->c.reactor, &l->finished);
}

/* -- one operation ----------------------------------------------------------------------------- */

static void count(struct job *j, const struct slot *s, uint64_t now)
{
	struct load *l = j->load;
	struct load_result *r = &j->result;
	const uint64_t took = now - s->begun_ns;

	r->operations++;
	r->bytes += s->op.size;
	if (s->op.write) {
		r->writes++;
		histogram_add(&r->write_latency, took);
	} else {
		r->reads++;
		histogram_add(&r->read_latency, took);
	}
	timeline_add(&l->timeline, now - l->begun_ns, s->op.size, took);
	if (took > slowest_threshold(&l->slowest)) {
		const struct slow_op slow = {
		    .at_ns = now - l->begun_ns,
		    .latency_ns = took,
		    .offset = s->op.offset,
		    .size = s->op.size,
		    .write = s->op.write,
		};

		slowest_add(&l->slowest, &slow);
	}
}

static void check_read(struct job *j, const struct target_op *op)
{
	const struct stamps_checked c =
	    stamps_check(j->load->stamps, op->offset, op->size, op->data);

	if (c.bad > 0 && j->result.mismatches == 0)
		j->result.first_bad_offset = c.first_bad;
	j->result.verified += c.checked;
	j->result.mismatches += c.bad;
}

static void op_done(struct target_op *op, int status)
{
	struct slot *s = container_of(op, struct slot, op);
	struct job *j = s->job;
	struct load *l = j->load;

	stamps_release(l->stamps, op->offset, op->size);
	if (status != 0) {
		if (j->result.errors++ == 0)
			j->result.first_error = status;
		l->stopping = true;
	} else {
		count(j, s, reactor_now_ns(l->c.reactor));
		if (!op->write && l->c.verify)
			check_read(j, op);
	}
	l->c.target->ops->put(l->c.target, op);
	s->next = j->idle;
	j->idle = s;
	j->in_flight--;
	go(j);
}

/* A place that no other operation is at. Ranges are large enough for one to be found: by load_check
 * half of the places are free at least. */
static void choose(struct job *j, struct pattern_op *ret)
{
	struct load *l = j->load;
	uint32_t tries = 0;

	*ret = pattern_next(&j->pattern);
	while (!l->c.once && stamps_busy(l->stamps, ret->offset, ret->size))
		if (tries++ < CHOICES_MAX)
			pattern_again(&j->pattern, ret);
		else
			pattern_beside(&j->pattern, ret);
}

static void ask_for_room(struct job *j)
{
	struct load *l = j->load;

	j->waiting = true;
	if (l->room_asked)
		return;
	l->room_asked = true;
	l->c.target->ops->on_room(l->c.target, &l->room);
}

/* Starts one, whose time runs from begun_ns. False: no memory now. */
static bool start(struct job *j, uint64_t begun_ns)
{
	struct load *l = j->load;
	struct target *t = l->c.target;
	struct slot *s = j->idle;
	struct pattern_op op;

	s->op.size = pattern_size_max(&j->spec.pattern);
	if (!t->ops->get(t, &s->op)) {
		ask_for_room(j);
		return false;
	}
	choose(j, &op);
	j->idle = s->next;
	j->in_flight++;
	s->begun_ns = begun_ns;
	s->op.done = op_done;
	s->op.write = op.write;
	s->op.offset = op.offset;
	s->op.size = op.size;
	stamps_take(l->stamps, op.offset, op.size);
	if (op.write)
		stamps_write(l->stamps, op.offset, op.size, s->op.data);
	t->ops->submit(t, &s->op);
	return true;
}

/* -- the loops --------------------------------------------------------------------------------- */

static double gap_ns(struct job *j)
{
	const double mean = 1e9 / j->spec.rate;

	return j->spec.even ? mean : -log(pattern_uniform(&j->pattern)) * mean;
}

static void go_open(struct job *j)
{
	struct load *l = j->load;
	const uint64_t now = reactor_now_ns(l->c.reactor);

	while (!l->stopping && j->idle != NULL && j->due_ns <= (double)(now - l->begun_ns)) {
		if (!start(j, l->begun_ns + (uint64_t)j->due_ns))
			return;
		j->due_ns += gap_ns(j);
	}
	if (!l->stopping && j->idle != NULL)
		reactor_timer_arm(l->c.reactor, &j->due,
				  l->begun_ns +
				      MIN((uint64_t)MIN(j->due_ns, 1e18) + 1, l->c.duration_ns));
}

static void go_closed(struct job *j)
{
	struct load *l = j->load;
	const uint64_t range = j->spec.pattern.range;
	const uint64_t now = reactor_now_ns(l->c.reactor);

	while (!l->stopping && j->idle != NULL) {
		if (l->c.once && j->pattern.cursor + pattern_size_max(&j->spec.pattern) > range) {
			l->stopping = true;
			break;
		}
		if (!start(j, now))
			return;
	}
}

static void go(struct job *j)
{
	struct load *l = j->load;

	if (!l->c.once && reactor_now_ns(l->c.reactor) - l->begun_ns >= l->c.duration_ns)
		l->stopping = true;
	if (!j->waiting || l->stopping) {
		if (j->spec.rate > 0)
			go_open(j);
		else
			go_closed(j);
	}
	maybe_over(j);
}

static void due(struct reactor_timer *t)
{
	go(container_of(t, struct job, due));
}

static void room(struct reactor_task *task)
{
	struct load *l = container_of(task, struct load, room);

	l->room_asked = false;
	for (uint32_t i = 0; i < l->c.job_count; i++)
		l->jobs[i].waiting = false;
	for (uint32_t i = 0; i < l->c.job_count; i++)
		if (!l->jobs[i].over)
			go(&l->jobs[i]);
}

/* -- life -------------------------------------------------------------------------------------- */

/* What is in flight where this job chooses its places, in bytes that are kept from it: a smaller
 * operation keeps all of a place from it, a larger one several. */
static uint64_t in_flight_at(const struct job_spec *jobs, uint32_t job_count, uint32_t job)
{
	const struct pattern_spec *p = &jobs[job].pattern;
	const uint64_t size = pattern_size_max(p);
	uint64_t bytes = 0;

	for (uint32_t i = 0; i < job_count; i++) {
		const struct pattern_spec *q = &jobs[i].pattern;

		if (i == job || (q->start < p->start + p->range && p->start < q->start + q->range))
			bytes += jobs[i].depth * MAX(size, pattern_size_max(q));
	}
	return bytes;
}

int load_check(const struct job_spec *jobs, uint32_t job_count, uint64_t target_size,
	       uint32_t depth_max, struct error *err)
{
	uint32_t depth = 0;

	for (uint32_t i = 0; i < job_count; i++) {
		const struct pattern_spec *p = &jobs[i].pattern;

		depth += jobs[i].depth;
		if (p->start > target_size || p->range > target_size - p->start)
			return error_set(err, -EINVAL,
					 "job %s: its range ends at byte %llu, the volume at %llu",
					 jobs[i].name,
					 p->range > UINT64_MAX - p->start
					     ? ~0ull
					     : (unsigned long long)(p->start + p->range),
					 (unsigned long long)target_size);
	}
	for (uint32_t i = 0; i < job_count; i++) {
		const uint64_t range = jobs[i].pattern.range;
		const uint64_t need = 4 * in_flight_at(jobs, job_count, i);

		if (range < need)
			return error_set(err, -EINVAL,
					 "job %s: a range of %llu bytes; depth %u%s needs at least "
					 "%llu (four times what is in flight)",
					 jobs[i].name, (unsigned long long)range, jobs[i].depth,
					 job_count > 1 ? ", with the other jobs there," : "",
					 (unsigned long long)need);
	}
	if (depth > MIN(LOAD_DEPTH_MAX, depth_max))
		return error_set(err, -E_LIMIT, "depth %u of all jobs together; %u is the bound",
				 depth, MIN(LOAD_DEPTH_MAX, depth_max));
	return 0;
}

static int job_init(struct load *l, struct job *j, const struct job_spec *spec, uint64_t seed)
{
	j->load = l;
	j->spec = *spec;
	j->due.fire = due;
	pattern_init(&j->pattern, &spec->pattern, seed);
	j->slots = calloc(spec->depth, sizeof *j->slots);
	if (j->slots == NULL)
		return -ENOMEM;
	for (uint32_t i = 0; i < spec->depth; i++) {
		struct slot *s = &j->slots[i];
		const int rc = l->c.target->ops->prepare(l->c.target, &s->op,
							 pattern_size_max(&spec->pattern));

		if (rc != 0)
			return rc;
		s->job = j;
		s->next = j->idle;
		j->idle = s;
	}
	return 0;
}

struct load *load_start(const struct load_config *config, struct stamps *stamps,
			void (*done)(void *arg), void *arg)
{
	struct load *l = calloc(1, sizeof *l + config->job_count * sizeof l->jobs[0]);

	PRE(config->job_count > 0 && config->job_count <= LOAD_JOBS_MAX);
	if (l == NULL)
		return NULL;
	l->c = *config;
	l->stamps = stamps;
	l->done = done;
	l->arg = arg;
	l->room.run = room;
	l->finished.run = finished;
	for (uint32_t i = 0; i < config->job_count; i++)
		if (job_init(l, &l->jobs[i], &config->jobs[i], config->seed + i) != 0) {
			load_destroy(l);
			return NULL;
		}
	reactor_refresh(config->reactor);
	l->begun_ns = reactor_now_ns(config->reactor);
	l->jobs_left = config->job_count;
	slowest_begin(&l->slowest, config->reactor, config->target);
	for (uint32_t i = 0; i < config->job_count; i++) {
		struct job *j = &l->jobs[i];

		j->due_ns = j->spec.rate > 0 ? gap_ns(j) : 0;
		go(j);
	}
	return l;
}

void load_stop(struct load *l)
{
	l->stopping = true;
	for (uint32_t i = 0; i < l->c.job_count; i++)
		maybe_over(&l->jobs[i]);
}

uint64_t load_operations(const struct load *l)
{
	uint64_t n = 0;

	for (uint32_t i = 0; i < l->c.job_count; i++)
		n += l->jobs[i].result.operations;
	return n;
}

static void add_result(struct load_result *t, const struct load_result *r)
{
	if (t->mismatches == 0)
		t->first_bad_offset = r->first_bad_offset;
	if (t->first_error == 0)
		t->first_error = r->first_error;
	t->operations += r->operations;
	t->bytes += r->bytes;
	t->errors += r->errors;
	t->verified += r->verified;
	t->mismatches += r->mismatches;
	t->missed += r->missed;
	t->reads += r->reads;
	t->writes += r->writes;
	t->elapsed_ns = MAX(t->elapsed_ns, r->elapsed_ns);
	histogram_merge(&t->read_latency, &r->read_latency);
	histogram_merge(&t->write_latency, &r->write_latency);
}

const struct load_result *load_total(struct load *l)
{
	l->total = (struct load_result){0};
	for (uint32_t i = 0; i < l->c.job_count; i++)
		add_result(&l->total, &l->jobs[i].result);
	return &l->total;
}

const struct load_result *load_job(const struct load *l, uint32_t job)
{
	return &l->jobs[job].result;
}

const struct timeline *load_timeline(const struct load *l)
{
	return &l->timeline;
}

const struct slowest *load_slowest(const struct load *l)
{
	return &l->slowest;
}

void load_destroy(struct load *l)
{
	if (l == NULL)
		return;
	for (uint32_t i = 0; i < l->c.job_count; i++) {
		struct job *j = &l->jobs[i];

		for (uint32_t k = 0; j->slots != NULL && k < j->spec.depth; k++)
			if (j->slots[k].op.target != NULL)
				l->c.target->ops->release(&j->slots[k].op);
		free(j->slots);
	}
	free(l);
}
