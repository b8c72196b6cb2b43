/* report, for people: see report.h. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "bench/report.h"
#include "engine/base/text.h"

#define SLOW_SHOWN 5u

static double us(uint64_t ns)
{
	return (double)ns / 1e3;
}

static double per_op(const struct run *run, double n)
{
	return run->total.operations == 0 ? 0 : n / (double)run->total.operations;
}

static void print_latency(const char *name, const struct histogram *h)
{
	if (h->total == 0)
		return;
	printf("  %-6s mean %8.1f  p50 %8.1f  p99 %8.1f  p99.9 %8.1f  p99.99 %8.1f  max %8.1f us\n",
	       name, histogram_mean(h) / 1e3, us(histogram_percentile(h, 50)),
	       us(histogram_percentile(h, 99)), us(histogram_percentile(h, 99.9)),
	       us(histogram_percentile(h, 99.99)), us(h->max_ns));
}

static void print_job(const struct job_spec *j)
{
	const struct pattern_spec *p = &j->pattern;
	char size[32];

	printf("%s: %s %s", j->name, p->random ? "random" : "sequential",
	       p->read_percent == 100 ? "reads"
	       : p->read_percent == 0 ? "writes"
				      : "reads and writes");
	if (p->read_percent > 0 && p->read_percent < 100)
		printf(" (%u %% reads)", p->read_percent);
	for (uint32_t i = 0; i < p->size_count; i++)
		printf("%s%s", i == 0 ? ", " : "/",
		       text_size(p->sizes[i].bytes, size, sizeof size));
	if (p->zipf > 0)
		printf(", zipf %g", p->zipf);
	if (j->depth > 0)
		printf(", depth %u", j->depth);
	if (j->rate > 0)
		printf(", %s arrivals at %g/s", j->even ? "even" : "poisson", j->rate);
}

static void print_rates(const struct load_result *r, double seconds)
{
	printf(": %.0f/s, %.1f MiB/s", (double)r->operations / seconds,
	       (double)r->bytes / seconds / (double)MIB);
	if (r->missed > 0)
		printf(", %" PRIu64 " due and not begun", r->missed);
	putchar('\n');
	print_latency("read", &r->read_latency);
	print_latency("write", &r->write_latency);
}

/* Threads of one name in one line: io_uring makes workers as it needs them. */
static void print_threads(const struct run *run, const struct process_usage *u)
{
	bool told[USAGE_THREADS_MAX] = {false};

	for (uint32_t i = 0; i < u->thread_count && u->thread_count > 1; i++) {
		uint64_t cpu_us = 0;
		uint32_t n = 0;

		for (uint32_t k = i; k < u->thread_count && !told[i]; k++) {
			if (k != i &&
			    (told[k] || strcmp(u->threads[k].name, u->threads[i].name) != 0))
				continue;
			told[k] = k != i;
			cpu_us += u->threads[k].cpu_us;
			n++;
		}
		if (per_op(run, (double)cpu_us) >= 0.01)
			printf("    %-15s %4u x  %7.2f us CPU\n", u->threads[i].name, n,
			       per_op(run, (double)cpu_us));
	}
}

static void print_usage(const struct run *run)
{
	double total = 0;

	for (uint32_t i = 0; i < run->after.count; i++) {
		const struct process_usage u = usage_diff(&run->before, &run->after, i);

		total += (double)u.cpu_us;
		if (per_op(run, (double)u.cpu_us) < 0.005)
			continue;
		printf("  %-16s %7d  %7.2f us CPU, %5.3f context switches", u.name, u.pid,
		       per_op(run, (double)u.cpu_us), per_op(run, (double)u.switches));
		if (run->calls_counted)
			printf(", %5.3f system calls", per_op(run, (double)u.calls));
		printf(" an operation\n");
		print_threads(run, &u);
	}
	printf("  all processes             %7.2f us CPU (machine %.2f); host: %.3f io_uring_enter "
	       "an operation, %" PRIu64 " permits\n",
	       per_op(run, total),
	       per_op(run, (double)(run->after.machine_busy_us - run->before.machine_busy_us)),
	       per_op(run, (double)run->enter_calls), run->counts.permits);
}

/* The same moment slows many down: the slowest stands for those that ended with it. */
static bool is_told(const struct slowest *s, uint32_t i)
{
	for (uint32_t k = 0; k < i; k++)
		if (s->ops[k].at_ns < s->ops[i].at_ns + NS_PER_MS &&
		    s->ops[i].at_ns < s->ops[k].at_ns + NS_PER_MS)
			return true;
	return false;
}

static void print_slowest(const struct slowest *s)
{
	char causes[256];
	uint32_t shown = 0;

	if (s->count == 0)
		return;
	printf("  slowest moments, and what else happened then:\n");
	for (uint32_t i = 0; i < s->count && shown < SLOW_SHOWN; i++) {
		const struct slow_op *op = &s->ops[i];

		if (is_told(s, i))
			continue;
		shown++;
		printf("    %8.1f us at %7.3f s  %-5s  %s%s%s\n", us(op->latency_ns),
		       (double)op->at_ns / 1e9, op->write ? "write" : "read",
		       slowest_causes(op, causes, sizeof causes), op->where[0] != '\0' ? "; " : "",
		       op->where);
	}
}

static void print_trace(const struct volume_trace *t)
{
	for (uint32_t changes = 0; changes < 2; changes++) {
		const double n = (double)t->told[changes];

		if (t->told[changes] == 0)
			continue;
		printf("  %-6s mean %.1f us:", changes ? "write" : "read",
		       us(t->total_ns[changes]) / n);
		for (uint32_t i = 0; i < VOLUME_TRACE_PARTS; i++)
			printf("%s %s %.1f", i > 0 ? "," : "",
			       volume_trace_part_name((enum volume_trace_part)i),
			       us(t->parts_ns[changes][i]) / n);
		putchar('\n');
	}
}

static void print_wire(const struct run *run)
{
	const struct rdma_counters *c = &run->wire.rdma;

	for (uint32_t i = 0; i < run->wire.count; i++) {
		const struct volume_connection *w = &run->wire.connections[i];

		printf("  %-16s over %s: %.3f frames in %.3f calls out, %.3f in %.3f in, %.0f of "
		       "%.0f bytes copied in, an operation\n",
		       w->node, w->transport, per_op(run, (double)w->stats.tx_frames),
		       per_op(run, (double)w->stats.tx_calls),
		       per_op(run, (double)w->stats.rx_frames),
		       per_op(run, (double)w->stats.rx_calls),
		       per_op(run, (double)w->stats.rx_copied_bytes),
		       per_op(run, (double)w->stats.rx_bytes));
	}
	if (c->messages > 0)
		printf("  rdma, an operation: %.3f messages (%.3f of credits alone), %.3f calls to "
		       "post, %.3f wake-ups, %.3f asked for, %.3f payloads pulled, %.0f bytes "
		       "copied out, %.3f registrations\n",
		       per_op(run, (double)c->messages), per_op(run, (double)c->acks),
		       per_op(run, (double)c->post_calls), per_op(run, (double)c->events),
		       per_op(run, (double)c->notify_calls), per_op(run, (double)c->pulls),
		       per_op(run, (double)c->copied_bytes), per_op(run, (double)c->registrations));
}

static void print_verified(const struct report *r)
{
	if (r->options->verify)
		printf(", %" PRIu64 " blocks verified", r->verified_blocks);
}

/* What a run on a healthy volume has none of: then its figures are not only of the load. */
static void print_counts(const struct target_counts *c)
{
	if (c->layers_begun > 0)
		printf("  meanwhile: %" PRIu64
		       " times a layer began; held writes back for %.2f ms at most, and other work "
		       "for layers for %.2f ms\n",
		       c->layers_begun, (double)c->layers_pause_ns / 1e6,
		       (double)c->layers_work_ns / 1e6);
	if (c->resyncs + c->repairs + c->freezes + c->reconciled_blocks == 0)
		return;
	printf("  meanwhile: %" PRIu64 " resyncs, %" PRIu64 " repairs, %" PRIu64
	       " times writes were held, %" PRIu64 " blocks reconciled\n",
	       c->resyncs, c->repairs, c->freezes, c->reconciled_blocks);
}

static void print_run(const struct report *r, const struct run *run)
{
	const struct options *o = r->options;

	for (uint32_t i = 0; i < o->job_count; i++) {
		print_job(&o->jobs[i]);
		if (o->job_count == 1) {
			printf(", %.1f s", run->seconds);
			print_verified(r);
			print_rates(&run->total, run->seconds);
		} else {
			print_rates(&run->jobs[i], run->seconds);
		}
	}
	if (o->job_count > 1) {
		printf("together, %.1f s", run->seconds);
		print_verified(r);
		print_rates(&run->total, run->seconds);
	}
	print_usage(run);
	print_wire(run);
	print_counts(&run->counts);
	if (run->traced)
		print_trace(&run->trace);
	print_slowest(&run->slowest);
}

static uint64_t cpu_of(const struct run *run)
{
	uint64_t n = 0;

	for (uint32_t i = 0; i < run->after.count; i++)
		n += usage_diff(&run->before, &run->after, i).cpu_us;
	return n;
}

static void print_ramp(const struct report *r)
{
	const bool rate = r->options->ramp.kind == RAMP_RATE;
	struct job_spec job = r->options->jobs[0];

	job.depth = rate ? job.depth : 0;
	job.rate = 0;
	print_job(&job);
	printf("; %u s each", r->options->seconds);
	print_verified(r);
	printf("\n%10s %10s %10s %10s %10s %10s %10s %9s\n", rate ? "rate" : "depth", "done/s",
	       "MiB/s", "mean us", "p50 us", "p99 us", "p99.9 us", "CPU us/op");
	for (uint32_t i = 0; i < r->run_count; i++) {
		const struct run *run = &r->runs[i];
		struct histogram all;

		run_latency(run, &all);
		printf("%10.0f %10.0f %10.1f %10.1f %10.1f %10.1f %10.1f %9.2f%s\n", run->step,
		       (double)run->total.operations / run->seconds,
		       (double)run->total.bytes / run->seconds / (double)MIB,
		       histogram_mean(&all) / 1e3, us(histogram_percentile(&all, 50)),
		       us(histogram_percentile(&all, 99)), us(histogram_percentile(&all, 99.9)),
		       per_op(run, (double)cpu_of(run)), i == r->knee ? "  <- the knee" : "");
	}
	if (r->knee == r->run_count && !r->interrupted)
		printf("no knee: already the first rate was not carried\n");
}

void report_text(const struct report *r)
{
	if (r->interrupted)
		printf("ended before its time; until then:\n");
	if (r->options->ramp.kind != RAMP_NONE)
		print_ramp(r);
	else
		print_run(r, &r->runs[0]);
}
