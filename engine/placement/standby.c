/* standby: see standby.h.
 *
 * Failure modes: over STANDBY_SESSIONS_MAX connections, or without memory, a newcomer is
 * disconnected at once. One that says nothing, or stays though it was told, is ended after
 * STANDBY_TIMEOUT_MS, and would else keep the others from being told. */
#include "engine/placement/standby.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <utlist.h>

#include "engine/base/assert.h"
#include "net/rpc/rpc.h"

struct session {
	struct standby *standby;
	struct transport_conn *conn;
	struct rpc rpc;
	struct reactor_timer timer;
	struct session *next, *prev;
};

struct standby {
	struct reactor *reactor;
	struct uuid cluster;
	const char *(*leader)(void *arg);
	void *arg;
	struct session *sessions;
	uint32_t count;	 /* of sessions */
	uint32_t others; /* connections that are being refused */
	struct reactor_task stop_task;
	void (*stopped)(void *arg);
	void *stopped_arg;
};

static void greet(struct session *s, uint64_t request_id, const Pave__V1__Hello *hello)
{
	Pave__V1__Control m = PAVE__V1__CONTROL__INIT;
	Pave__V1__HelloReply reply = PAVE__V1__HELLO_REPLY__INIT;

	if (rpc_agree(&s->rpc, hello->version_min, hello->version_max) != 0) {
		rpc_fail(&s->rpc, request_id, -E_WIRE_VERSION, err_text(-E_WIRE_VERSION));
		return;
	}
	reply.version = s->rpc.wire_version;
	reply.cluster.data = s->standby->cluster.bytes;
	reply.cluster.len = sizeof s->standby->cluster.bytes;
	reply.name = (char *)(uintptr_t) "pave-pd";
	reply.software = (char *)(uintptr_t)("pave " PAVE_VERSION);
	reply.standby = true;
	reply.leader = (char *)(uintptr_t)s->standby->leader(s->standby->arg);
	m.body_case = PAVE__V1__CONTROL__BODY_HELLO_REPLY;
	m.hello_reply = &reply;
	rpc_reply(&s->rpc, request_id, &m);
}

static void handle(struct rpc *rpc, const struct rpc_request *r, void *arg)
{
	struct session *s = arg;
	const char *leader = s->standby->leader(s->standby->arg);
	char text[ADDR_SIZE_MAX + 100];

	if (r->request_id == 0)
		return;
	if (r->message->body_case == PAVE__V1__CONTROL__BODY_HELLO) {
		greet(s, r->request_id, r->message->hello);
		return;
	}
	if (leader[0] != '\0')
		snprintf(text, sizeof text, "this placement driver does not lead: %s does", leader);
	else
		snprintf(text, sizeof text,
			 "this placement driver does not lead, and knows of none that does");
	rpc_fail(rpc, r->request_id, -E_NOT_LEADER, text);
}

static void rx(struct transport_conn *conn, const struct frame *f, void *arg)
{
	struct session *s = arg;

	if (f->op == FRAME_CONTROL)
		rpc_rx(&s->rpc, f);
	else
		transport_close(conn);
}

static void *rx_buffer(struct transport_conn *conn, const struct frame *f, void *arg)
{
	struct session *s = arg;

	(void)conn;
	return f->op == FRAME_CONTROL ? rpc_rx_buffer(&s->rpc, f) : NULL;
}

static void finish_stop(struct reactor_task *task)
{
	struct standby *s = container_of(task, struct standby, stop_task);
	void (*stopped)(void *arg) = s->stopped;
	void *arg = s->stopped_arg;

	free(s);
	stopped(arg);
}

static void stop_if_done(struct standby *s)
{
	if (s->stopped != NULL && s->count == 0 && s->others == 0) {
		s->stop_task.run = finish_stop;
		reactor_defer(s->reactor, &s->stop_task);
	}
}

static void closed(struct transport_conn *conn, int reason, void *arg)
{
	struct session *s = arg;
	struct standby *standby = s->standby;

	(void)conn;
	(void)reason;
	rpc_closed(&s->rpc);
	reactor_timer_cancel(standby->reactor, &s->timer);
	DL_DELETE(standby->sessions, s);
	standby->count--;
	free(s);
	stop_if_done(standby);
}

static void time_is_up(struct reactor_timer *timer)
{
	transport_close(container_of(timer, struct session, timer)->conn);
}

static const struct transport_handler handler = {
    .rx = rx, .rx_buffer = rx_buffer, .closed = closed};

static void refused_rx(struct transport_conn *conn, const struct frame *f, void *arg)
{
	(void)conn;
	(void)f;
	(void)arg;
}

static void refused_closed(struct transport_conn *conn, int reason, void *arg)
{
	struct standby *s = arg;

	(void)conn;
	(void)reason;
	s->others--;
	stop_if_done(s);
}

static const struct transport_handler refused_handler = {.rx = refused_rx,
							 .closed = refused_closed};

void standby_accept(struct standby *standby, struct transport_conn *conn)
{
	struct session *s = NULL;

	if (standby->count < STANDBY_SESSIONS_MAX && standby->stopped == NULL)
		s = calloc(1, sizeof *s);
	if (s == NULL) {
		conn->handler = &refused_handler;
		conn->arg = standby;
		standby->others++;
		transport_close(conn);
		return;
	}
	s->standby = standby;
	s->conn = conn;
	rpc_init(&s->rpc, conn, handle, s);
	s->timer.fire = time_is_up;
	reactor_timer_arm(standby->reactor, &s->timer,
			  reactor_now_ns(standby->reactor) + STANDBY_TIMEOUT_MS * NS_PER_MS);
	DL_APPEND(standby->sessions, s);
	standby->count++;
	conn->handler = &handler;
	conn->arg = s;
}

void standby_disconnect(struct standby *s)
{
	for (struct session *one = s->sessions; one != NULL; one = one->next)
		transport_close(one->conn);
}

int standby_create(struct reactor *r, const struct uuid *cluster, const char *(*leader)(void *arg),
		   void *arg, struct standby **ret_standby)
{
	struct standby *s = calloc(1, sizeof *s);

	if (s == NULL)
		return -ENOMEM;
	s->reactor = r;
	s->cluster = *cluster;
	s->leader = leader;
	s->arg = arg;
	*ret_standby = s;
	return 0;
}

void standby_stop(struct standby *s, void (*done)(void *arg), void *arg)
{
	PRE(s->stopped == NULL);
	s->stopped = done;
	s->stopped_arg = arg;
	standby_disconnect(s);
	stop_if_done(s);
}
