/* report, as JSON: see report.h. Times are in microseconds. */
#include "bench/report.h"

static json_t *number(double x)
{
	return json_real(x);
}

static double us(uint64_t ns)
{
	return (double)ns / 1e3;
}

void run_latency(const struct run *run, struct histogram *ret)
{
	*ret = run->total.read_latency;
	histogram_merge(ret, &run->total.write_latency);
}

/* [[percent, us], ...]: the inverse of the distribution, at each of its slots that is used. */
static json_t *curve(const struct histogram *h)
{
	json_t *a = json_array();
	uint64_t seen = 0;

	for (uint32_t i = 0; i < HISTOGRAM_ROWS * HISTOGRAM_STEPS; i++) {
		if (h->counts[i] == 0)
			continue;
		seen += h->counts[i];
		json_array_append_new(a,
				      json_pack("[f, f]", 100.0 * (double)seen / (double)h->total,
						us(MIN(histogram_top(i), h->max_ns))));
	}
	return a;
}

static json_t *latency_json(const struct histogram *h)
{
	static const struct {
		const char *name;
		double percent;
	} points[] = {{"p50_us", 50}, {"p90_us", 90},	  {"p95_us", 95},
		      {"p99_us", 99}, {"p99_9_us", 99.9}, {"p99_99_us", 99.99}};
	json_t *o = json_object();

	json_object_set_new(o, "operations", json_integer((json_int_t)h->total));
	json_object_set_new(o, "mean_us", number(histogram_mean(h) / 1e3));
	for (uint32_t i = 0; i < ARRAY_SIZE(points); i++)
		json_object_set_new(o, points[i].name,
				    number(us(histogram_percentile(h, points[i].percent))));
	json_object_set_new(o, "max_us", number(us(h->max_ns)));
	json_object_set_new(o, "curve", curve(h));
	return o;
}

static json_t *timeline_json(const struct timeline *t)
{
	json_t *a = json_array();
	const double seconds = (double)t->step_ns / 1e9;

	for (uint32_t i = 0; i < t->count; i++) {
		const struct timeline_step *s = &t->steps[i];

		json_array_append_new(
		    a, json_pack("[f, f, f, f]", i * seconds, (double)s->operations / seconds,
				 (double)s->bytes / seconds / (double)MIB, us(s->latency_max_ns)));
	}
	return a;
}

static json_t *slowest_json(const struct slowest *s)
{
	json_t *a = json_array();

	for (uint32_t i = 0; i < s->count; i++) {
		const struct slow_op *op = &s->ops[i];
		json_t *causes = json_array();

		for (unsigned c = 0; c < SLOWEST_CAUSES; c++)
			if ((op->causes & 1u << c) != 0)
				json_array_append_new(
				    causes, json_string(slowest_cause_name((enum slowest_cause)c)));
		json_array_append_new(
		    a, json_pack("{s:f, s:f, s:s, s:I, s:i, s:o, s:s}", "at_s",
				 (double)op->at_ns / 1e9, "latency_us", us(op->latency_ns), "kind",
				 op->write ? "write" : "read", "offset", (json_int_t)op->offset,
				 "size", (int)op->size, "causes", causes, "where", op->where));
	}
	return a;
}

static double per_op(const struct run *run, uint64_t n)
{
	return run->total.operations == 0 ? 0 : (double)n / (double)run->total.operations;
}

static json_t *threads_json(const struct run *run, const struct process_usage *p)
{
	json_t *a = json_array();

	for (uint32_t i = 0; i < p->thread_count; i++)
		if (p->threads[i].cpu_us > 0)
			json_array_append_new(
			    a, json_pack("{s:s, s:i, s:f, s:f}", "name", p->threads[i].name, "tid",
					 p->threads[i].tid, "cpu_us_per_op",
					 per_op(run, p->threads[i].cpu_us), "switches_per_op",
					 per_op(run, p->threads[i].switches)));
	return a;
}

/* Appends the processes; returns their CPU time together. */
static uint64_t processes_json(const struct run *run, json_t *a)
{
	uint64_t cpu_us = 0;

	for (uint32_t i = 0; i < run->after.count; i++) {
		const struct process_usage u = usage_diff(&run->before, &run->after, i);
		json_t *o;

		cpu_us += u.cpu_us;
		if (u.cpu_us == 0 && i > 0)
			continue;
		o = json_pack("{s:s, s:i, s:f, s:f, s:o}", "name", u.name, "pid", u.pid,
			      "cpu_us_per_op", per_op(run, u.cpu_us), "switches_per_op",
			      per_op(run, u.switches), "threads", threads_json(run, &u));
		if (run->calls_counted)
			json_object_set_new(o, "calls_per_op", number(per_op(run, u.calls)));
		json_array_append_new(a, o);
	}
	return cpu_us;
}

static json_t *sizes_json(const struct pattern_spec *p)
{
	json_t *a = json_array();

	for (uint32_t i = 0; i < p->size_count; i++)
		json_array_append_new(
		    a, json_pack("[i, i]", (int)p->sizes[i].bytes, (int)p->sizes[i].weight));
	return a;
}

static void add_rates(json_t *o, const struct load_result *r, double seconds)
{
	json_object_set_new(o, "operations", json_integer((json_int_t)r->operations));
	json_object_set_new(o, "iops", number((double)r->operations / seconds));
	json_object_set_new(o, "mib_per_s", number((double)r->bytes / seconds / (double)MIB));
	json_object_set_new(o, "missed", json_integer((json_int_t)r->missed));
	json_object_set_new(o, "reads", latency_json(&r->read_latency));
	json_object_set_new(o, "writes", latency_json(&r->write_latency));
}

static json_t *job_json(const struct job_spec *j, const struct load_result *r, double seconds)
{
	json_t *o =
	    json_pack("{s:s, s:b, s:i, s:f, s:o, s:i, s:f, s:s, s:I, s:I}", "name", j->name,
		      "random", j->pattern.random, "read_percent", (int)j->pattern.read_percent,
		      "zipf", j->pattern.zipf, "sizes", sizes_json(&j->pattern), "depth",
		      (int)j->depth, "rate", j->rate, "arrivals",
		      j->rate == 0 ? "closed"
		      : j->even	   ? "even"
				   : "poisson",
		      "start", (json_int_t)j->pattern.start, "range", (json_int_t)j->pattern.range);

	if (r != NULL)
		add_rates(o, r, seconds);
	return o;
}

static json_t *trace_json(const struct volume_trace *t, uint32_t changes)
{
	const double n = (double)MAX(t->told[changes], 1u);
	json_t *parts = json_object();

	for (uint32_t i = 0; i < VOLUME_TRACE_PARTS; i++)
		json_object_set_new(parts, volume_trace_part_name((enum volume_trace_part)i),
				    number(us(t->parts_ns[changes][i]) / n));
	return json_pack("{s:I, s:f, s:o}", "told", (json_int_t)t->told[changes], "mean_us",
			 us(t->total_ns[changes]) / n, "parts_us", parts);
}

static json_t *wire_json(const struct run *run)
{
	const struct rdma_counters *c = &run->wire.rdma;
	json_t *connections = json_array();

	for (uint32_t i = 0; i < run->wire.count; i++) {
		const struct volume_connection *w = &run->wire.connections[i];
		const struct transport_stats *s = &w->stats;

		json_array_append_new(
		    connections,
		    json_pack("{s:s, s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:I}", "node", w->node,
			      "transport", w->transport, "tx_frames", (json_int_t)s->tx_frames,
			      "tx_bytes", (json_int_t)s->tx_bytes, "tx_calls",
			      (json_int_t)s->tx_calls, "rx_frames", (json_int_t)s->rx_frames,
			      "rx_bytes", (json_int_t)s->rx_bytes, "rx_calls",
			      (json_int_t)s->rx_calls, "rx_copied_bytes",
			      (json_int_t)s->rx_copied_bytes));
	}
	return json_pack("{s:o, s:{s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I}}", "connections",
			 connections, "rdma", "messages", (json_int_t)c->messages, "acks",
			 (json_int_t)c->acks, "post_calls", (json_int_t)c->post_calls, "wake_ups",
			 (json_int_t)c->events, "notify_calls", (json_int_t)c->notify_calls,
			 "pulls", (json_int_t)c->pulls, "pulled_bytes", (json_int_t)c->pulled_bytes,
			 "copied_bytes", (json_int_t)c->copied_bytes, "registrations",
			 (json_int_t)c->registrations);
}

static void add_counts(json_t *o, const struct target_counts *c)
{
	json_object_set_new(o, "permits_renewed", json_integer((json_int_t)c->permits));
	json_object_set_new(o, "read_retries", json_integer((json_int_t)c->read_retries));
	json_object_set_new(o, "reconciled_blocks", json_integer((json_int_t)c->reconciled_blocks));
	json_object_set_new(o, "resyncs", json_integer((json_int_t)c->resyncs));
	json_object_set_new(o, "repairs", json_integer((json_int_t)c->repairs));
	json_object_set_new(o, "freezes", json_integer((json_int_t)c->freezes));
	json_object_set_new(o, "layers_begun", json_integer((json_int_t)c->layers_begun));
	json_object_set_new(o, "layers_pause_us", json_real((double)c->layers_pause_ns / 1e3));
	json_object_set_new(o, "layers_work_us", json_real((double)c->layers_work_ns / 1e3));
}

static json_t *run_json(const struct report *r, const struct run *run)
{
	const struct options *opt = r->options;
	json_t *o = json_object(), *jobs = json_array(), *processes = json_array();
	const uint64_t cpu_us = processes_json(run, processes);
	struct histogram all;

	run_latency(run, &all);
	add_rates(o, &run->total, run->seconds);
	json_object_set_new(o, "step", number(run->step));
	json_object_set_new(o, "seconds", number(run->seconds));
	json_object_set_new(o, "all", latency_json(&all));
	json_object_set_new(o, "cpu_us_per_op", number(per_op(run, cpu_us)));
	json_object_set_new(
	    o, "machine_cpu_us_per_op",
	    number(per_op(run, run->after.machine_busy_us - run->before.machine_busy_us)));
	json_object_set_new(o, "host_enter_calls_per_op", number(per_op(run, run->enter_calls)));
	add_counts(o, &run->counts);
	json_object_set_new(o, "wire", wire_json(run));
	json_object_set_new(o, "processes", processes);
	for (uint32_t i = 0; i < opt->job_count; i++) {
		struct job_spec j = opt->jobs[i];

		if (opt->ramp.kind == RAMP_DEPTH)
			j.depth = (uint32_t)run->step;
		else if (opt->ramp.kind == RAMP_RATE)
			j.rate = run->step;
		json_array_append_new(
		    jobs, job_json(&j, run->jobs != NULL ? &run->jobs[i] : NULL, run->seconds));
	}
	json_object_set_new(o, "jobs", jobs);
	json_object_set_new(o, "timeline", timeline_json(&run->timeline));
	json_object_set_new(o, "slowest", slowest_json(&run->slowest));
	if (run->traced)
		json_object_set_new(o, "trace",
				    json_pack("{s:o, s:o}", "reads", trace_json(&run->trace, 0),
					      "writes", trace_json(&run->trace, 1)));
	return o;
}

static const char *rw_name(const struct pattern_spec *p)
{
	static const char *const names[2][3] = {{"write", "rw", "read"},
						{"randwrite", "randrw", "randread"}};

	return names[p->random][p->read_percent == 0 ? 0 : p->read_percent == 100 ? 2 : 1];
}

/* What all jobs, sizes and steps have in common; null where there is more than one. */
static void add_pattern(json_t *o, const struct options *opt)
{
	const struct job_spec *j = &opt->jobs[0];
	const bool one = opt->job_count == 1;

	json_object_set_new(o, "rw", one ? json_string(rw_name(&j->pattern)) : json_null());
	json_object_set_new(o, "bs",
			    one && j->pattern.size_count == 1
				? json_integer(j->pattern.sizes[0].bytes)
				: json_null());
	json_object_set_new(
	    o, "depth", one && opt->ramp.kind != RAMP_DEPTH ? json_integer(j->depth) : json_null());
}

json_t *report_json(const struct report *r)
{
	const struct options *opt = r->options;
	json_t *o = r->run_count == 1 ? run_json(r, &r->runs[0]) : json_object();

	json_object_set_new(o, "target", json_string(opt->nbd != NULL ? opt->nbd : opt->volume));
	json_object_set_new(o, "over", json_string(opt->nbd != NULL ? "nbd" : "client"));
	add_pattern(o, opt);
	json_object_set_new(o, "interrupted", json_boolean(r->interrupted));
	json_object_set_new(o, "verified", json_boolean(opt->verify && !r->interrupted));
	if (opt->verify)
		json_object_set_new(o, "verified_blocks",
				    json_integer((json_int_t)r->verified_blocks));
	if (opt->ramp.kind != RAMP_NONE) {
		json_t *steps = json_array();

		for (uint32_t i = 0; i < r->run_count; i++)
			json_array_append_new(steps, run_json(r, &r->runs[i]));
		json_object_set_new(o, "ramp",
				    json_string(opt->ramp.kind == RAMP_DEPTH ? "depth" : "rate"));
		json_object_set_new(o, "steps", steps);
		json_object_set_new(o, "knee",
				    r->knee < r->run_count ? number(r->runs[r->knee].step)
							   : json_null());
	}
	return o;
}
