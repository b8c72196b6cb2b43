/* trace server: see trace.h.
 *
 *   ACCEPTING --client--> READING --line--> TRACING --time over--> SENDING --> ACCEPTING
 *   ACCEPTING --no descriptor--> PAUSING --time over--> ACCEPTING
 *
 * One operation is in flight, and in READING and TRACING the timer; in PAUSING the timer alone.
 * TRACING receives, which nothing but the end of it completes: the client's, or our own when the
 * time is over. Stopping cancels or cuts short what is under way; the last completion frees.
 * Failure: a client that says nothing, or anything else, or goes away, is let go of: another may
 * wait. Without descriptors it asks again now and then. */
#include "engine/attach/trace.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "engine/attach/unix_socket.h"
#include "engine/base/assert.h"
#include "engine/base/log.h"
#include "engine/reactor/io.h"
#include "engine/volume/trace.h"

#define LINE_SIZE	64u
#define ANSWER_SIZE	(64u << 10)
#define TRACE_BACKLOG	4
#define ACCEPT_RETRY_MS 100u /* after accept(2) failed for want of something */

enum trace_state {
	TRACE_IDLE,
	TRACE_ACCEPTING,
	TRACE_PAUSING,
	TRACE_READING,
	TRACE_TRACING,
	TRACE_SENDING,
};

struct trace_server {
	struct reactor *reactor;
	struct volume *volume;
	enum trace_state state;
	int fd, client;
	char path[UNIX_PATH_MAX];
	struct reactor_io io;
	struct reactor_timer timer;
	struct volume_trace trace;
	unsigned count; /* of operations that are wanted */
	uint32_t line_size;
	char line[LINE_SIZE];
	char answer[ANSWER_SIZE];
	struct iovec iov;
	struct msghdr msg;
	bool over; /* TRACING: it is time to answer */
	bool stopping;
	void (*stopped)(void *arg);
	void *stopped_arg;
	struct reactor_task stop_task;
};

static void step_done(struct reactor_io *io, int32_t result);

static void accept_next(struct trace_server *s)
{
	reactor_timer_cancel(s->reactor, &s->timer);
	if (s->client >= 0)
		close(s->client);
	s->client = -1;
	if (s->stopping) {
		s->state = TRACE_IDLE;
		reactor_defer(s->reactor, &s->stop_task);
		return;
	}
	s->state = TRACE_ACCEPTING;
	reactor_io_accept(s->reactor, &s->io, s->fd);
}

/* -- the answer -------------------------------------------------------------------------------- */

struct text {
	char *at;
	size_t left;
};

static void put(struct text *t, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

static void put(struct text *t, const char *fmt, ...)
{
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vsnprintf(t->at, t->left, fmt, ap);
	va_end(ap);
	INVARIANT(n >= 0 && (size_t)n < t->left); /* ANSWER_SIZE holds VOLUME_TRACE_MAX of them */
	t->at += n;
	t->left -= (size_t)n;
}

static void put_parts(struct text *t, const uint64_t *parts_ns, uint64_t divide_by)
{
	for (uint32_t i = 0; i < VOLUME_TRACE_PARTS; i++)
		put(t, "%s\"%s\":%.3f", i > 0 ? "," : "",
		    volume_trace_part_name((enum volume_trace_part)i),
		    (double)parts_ns[i] / 1e3 / (double)MAX(divide_by, 1u));
}

static void put_kind(struct text *t, const struct volume_trace *trace, uint32_t changes)
{
	const uint64_t n = trace->told[changes];

	put(t,
	    "\"%s\":{\"operations\":%" PRIu64 ",\"told\":%" PRIu64
	    ",\"mean_us\":%.3f,\"parts_us\":{",
	    changes ? "writes" : "reads", trace->operations[changes], n,
	    (double)trace->total_ns[changes] / 1e3 / (double)MAX(n, 1u));
	put_parts(t, trace->parts_ns[changes], n);
	put(t, "}},");
}

static const char *kind_name(enum volume_op_kind kind)
{
	static const char *const names[] = {
	    [VOLUME_READ] = "read",	  [VOLUME_WRITE] = "write", [VOLUME_ZERO] = "zero",
	    [VOLUME_DISCARD] = "discard", [VOLUME_FLUSH] = "flush",
	};

	return names[kind];
}

static void put_op(struct text *t, const struct trace_server *s, const struct volume_trace_op *op)
{
	put(t,
	    "{\"kind\":\"%s\",\"offset\":%" PRIu64 ",\"size\":%u,\"at_s\":%.6f,\"total_us\":%.3f,"
	    "\"node\":\"%s\",\"parts_us\":",
	    kind_name(op->kind), op->offset, op->size,
	    (double)(op->ended_ns - s->trace.begun_ns) / 1e9, (double)op->total_ns / 1e3, op->node);
	if (op->told) {
		put(t, "{");
		put_parts(t, op->parts_ns, 1);
		put(t, "}}");
	} else {
		put(t, "null}");
	}
}

static void answer(struct trace_server *s)
{
	struct text t = {s->answer, sizeof s->answer};
	const uint32_t count = MIN(s->count, s->trace.count);

	put(&t, "{");
	put_kind(&t, &s->trace, 0);
	put_kind(&t, &s->trace, 1);
	put(&t, "\"slowest\":[");
	for (uint32_t i = 0; i < count; i++) {
		put(&t, "%s", i > 0 ? ",\n" : "");
		put_op(&t, s, &s->trace.slowest[i]);
	}
	put(&t, "]}\n");
	s->iov = (struct iovec){s->answer, (size_t)(t.at - s->answer)};
	s->msg = (struct msghdr){.msg_iov = &s->iov, .msg_iovlen = 1};
	s->state = TRACE_SENDING;
	reactor_io_sendmsg(s->reactor, &s->io, s->client, &s->msg);
}

/* -- steps ------------------------------------------------------------------------------------- */

static void receive(struct trace_server *s)
{
	reactor_io_recv(s->reactor, &s->io, s->client, s->line + s->line_size,
			LINE_SIZE - s->line_size);
}

/* What is being received ends; what was put off begins. */
static void time_over(struct reactor_timer *timer)
{
	struct trace_server *s = container_of(timer, struct trace_server, timer);

	if (s->state == TRACE_PAUSING) {
		accept_next(s);
		return;
	}
	s->over = s->state == TRACE_TRACING;
	shutdown(s->client, s->over ? SHUT_RD : SHUT_RDWR);
}

static void arm(struct trace_server *s, uint64_t ms)
{
	reactor_timer_arm(s->reactor, &s->timer, reactor_now_ns(s->reactor) + ms * NS_PER_MS);
}

static void accepted(struct trace_server *s, int32_t result)
{
	if (result >= 0)
		s->client = result;
	if (s->stopping || result == -ECONNABORTED || result == -EINTR) {
		accept_next(s);
	} else if (result < 0) {
		/* There are no descriptors left, say: at once it would be the same. */
		log_warn("trace", "accept: %s; trying again", strerror(-result));
		s->state = TRACE_PAUSING;
		arm(s, ACCEPT_RETRY_MS);
	} else {
		s->line_size = 0;
		s->state = TRACE_READING;
		arm(s, TRACE_LINE_MS);
		receive(s);
	}
}

static void line_arrived(struct trace_server *s, int32_t result)
{
	unsigned seconds;

	if (result <= 0) {
		accept_next(s);
		return;
	}
	s->line_size += (uint32_t)result;
	s->line[MIN(s->line_size, LINE_SIZE - 1)] = '\0';
	if (strchr(s->line, '\n') == NULL && s->line_size < LINE_SIZE - 1) {
		receive(s);
		return;
	}
	if (s->line_size == LINE_SIZE ||
	    sscanf(s->line, "trace %u %u\n", &seconds, &s->count) != 2 || seconds == 0 ||
	    seconds > TRACE_SECONDS_MAX || volume_trace_start(s->volume, &s->trace) != 0) {
		accept_next(s);
		return;
	}
	s->state = TRACE_TRACING;
	s->over = false;
	arm(s, seconds * 1000ull);
	receive(s);
}

static void trace_ends(struct trace_server *s)
{
	reactor_timer_cancel(s->reactor, &s->timer);
	volume_trace_stop(s->volume);
	if (s->over)
		answer(s);
	else
		accept_next(s);
}

static void step_done(struct reactor_io *io, int32_t result)
{
	struct trace_server *s = container_of(io, struct trace_server, io);

	switch (s->state) {
	case TRACE_ACCEPTING:
		accepted(s, result);
		return;
	case TRACE_READING:
		line_arrived(s, s->stopping ? 0 : result);
		return;
	case TRACE_TRACING:
		trace_ends(s);
		return;
	case TRACE_SENDING:
		accept_next(s);
		return;
	case TRACE_IDLE:
	case TRACE_PAUSING:
		break;
	}
	INVARIANT(false);
}

/* -- life -------------------------------------------------------------------------------------- */

static void stop_task(struct reactor_task *task)
{
	struct trace_server *s = container_of(task, struct trace_server, stop_task);
	void (*done)(void *arg) = s->stopped;
	void *arg = s->stopped_arg;

	unix_unlisten(s->fd, s->path);
	free(s);
	done(arg);
}

int trace_listen(struct reactor *r, const char *path, struct trace_server **ret, struct error *err)
{
	struct trace_server *s = calloc(1, sizeof *s);
	int rc;

	if (s == NULL)
		return error_set(err, -ENOMEM, "no memory");
	s->reactor = r;
	s->client = -1;
	s->io.done = step_done;
	s->timer.fire = time_over;
	s->stop_task.run = stop_task;
	/* No volume waits for it. */
	rc = unix_listen(path, 0600, TRACE_BACKLOG, 0, &s->fd, err);
	if (rc != 0) {
		free(s);
		return rc;
	}
	snprintf(s->path, sizeof s->path, "%s", path);
	*ret = s;
	return 0;
}

void trace_serve(struct trace_server *s, struct volume *volume)
{
	PRE(s->volume == NULL && s->state == TRACE_IDLE);
	s->volume = volume;
	accept_next(s);
}

void trace_stop(struct trace_server *s, void (*done)(void *arg), void *arg)
{
	PRE(!s->stopping);
	s->stopping = true;
	s->stopped = done;
	s->stopped_arg = arg;
	if (s->state == TRACE_IDLE)
		reactor_defer(s->reactor, &s->stop_task);
	else if (s->state == TRACE_PAUSING)
		accept_next(s);
	else if (s->state == TRACE_ACCEPTING)
		reactor_io_cancel(s->reactor, &s->io);
	else if (s->state != TRACE_SENDING) /* what is known so far is told */
		time_over(&s->timer);
}
