/* client: see client.h. */
#include "tools/pave/client.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "engine/base/assert.h"
#include "net/rpc/rpc.h"
#include "net/tcp/address.h"
#include "net/transport.h"
#include "tools/pave/cmd.h"

#define CLIENT_MEMORY_BYTES (16u << 20)
#define CLIENT_SEVERAL_MS   2000u  /* for one of several drivers to greet */
#define CLIENT_ELECTION_MS  15000u /* for one of them to lead */
#define CLIENT_PAUSE_NS	    200000000L

struct client {
	struct reactor *reactor;
	struct transport *transport;
	struct transport_conn *conn; /* NULL once closed */
	struct rpc rpc;
	struct drivers drivers;
	char address[ADDR_SIZE_MAX]; /* of the one that was asked last */
	bool standby;		     /* which does not lead; leader: whom it named */
	char leader[ADDR_SIZE_MAX];
	bool ready, closed;
	bool flag; /* what reactor_run_until waits for */
	int reason;

	struct rpc_call call;
	int status;
	char text[900];
	Pave__V1__Control *reply;
};

static void on_ready(struct transport_conn *conn, void *arg)
{
	struct client *c = arg;

	(void)conn;
	c->ready = true;
	c->flag = true;
}

static void on_request(struct rpc *rpc, const struct rpc_request *request, void *arg)
{
	(void)arg;
	rpc_fail(rpc, request->request_id, -EOPNOTSUPP, "the CLI answers nothing");
}

static void on_rx(struct transport_conn *conn, const struct frame *f, void *arg)
{
	struct client *c = arg;

	if (f->op == FRAME_CONTROL)
		rpc_rx(&c->rpc, f);
	else
		transport_close(conn);
}

static void *on_rx_buffer(struct transport_conn *conn, const struct frame *f, void *arg)
{
	struct client *c = arg;

	(void)conn;
	return f->op == FRAME_CONTROL ? rpc_rx_buffer(&c->rpc, f) : NULL;
}

static void on_closed(struct transport_conn *conn, int reason, void *arg)
{
	struct client *c = arg;

	(void)conn;
	c->reason = reason;
	c->closed = true;
	c->flag = true;
	if (c->ready)
		rpc_closed(&c->rpc);
	c->conn = NULL;
}

static const struct transport_handler handler = {
    .ready = on_ready, .rx = on_rx, .rx_buffer = on_rx_buffer, .closed = on_closed};

static void on_reply(struct rpc_call *call, int status, const Pave__V1__Control *reply,
		     const char *text)
{
	struct client *c = container_of(call, struct client, call);

	c->status = status;
	c->flag = true;
	c->text[0] = '\0';
	if (status != 0) {
		snprintf(c->text, sizeof c->text, "%s",
			 text != NULL && text[0] != '\0' ? text : err_text(status));
		return;
	}
	/* The reply is lent; what the caller gets is its own. */
	size_t size = pave__v1__control__get_packed_size(reply);
	uint8_t *packed = malloc(size + 1);

	if (packed != NULL) {
		pave__v1__control__pack(reply, packed);
		c->reply = pave__v1__control__unpack(NULL, size, packed);
		free(packed);
	}
	if (c->reply == NULL)
		c->status = -ENOMEM;
}

static int run(struct client *c, uint32_t timeout_ms)
{
	return reactor_run_until(c->reactor, &c->flag,
				 reactor_now_ns(c->reactor) + timeout_ms * NS_PER_MS);
}

int client_call(struct client *c, const Pave__V1__Control *m, Pave__V1__Control__BodyCase expected,
		uint32_t timeout_ms, Pave__V1__Control **ret, struct error *err)
{
	if (timeout_ms == 0)
		timeout_ms = CLIENT_CALL_MS;
	if (c->conn == NULL)
		return error_set(err, -E_UNREACHABLE,
				 "the placement driver at %s closed the connection", c->address);
	c->flag = false;
	c->reply = NULL;
	c->call.done = on_reply;
	reactor_refresh(c->reactor);
	rpc_call_start(&c->rpc, &c->call, m, timeout_ms);
	/* The call's own deadline ends it; this bound is only a net. */
	if (run(c, timeout_ms + 5000) != 0) {
		rpc_call_cancel(&c->call);
		c->status = -ETIMEDOUT;
	}
	if (c->status == -ETIMEDOUT || c->status == -E_DISCONNECTED)
		return error_set(err, -E_UNREACHABLE, "the placement driver at %s %s", c->address,
				 c->status == -ETIMEDOUT ? "did not answer in time"
							 : "closed the connection");
	if (c->status != 0)
		return error_set(err, c->status, "%s",
				 c->text[0] != '\0' ? c->text : err_text(c->status));
	if (c->reply->body_case != expected) {
		pave__v1__control__free_unpacked(c->reply, NULL);
		return error_set(err, -E_BAD_FRAME,
				 "the placement driver at %s answered something else than was "
				 "asked: is it of another version?",
				 c->address);
	}
	*ret = c->reply;
	return 0;
}

static int greet(struct client *c, struct error *err)
{
	Pave__V1__Control m = PAVE__V1__CONTROL__INIT;
	Pave__V1__Hello hello = PAVE__V1__HELLO__INIT;
	Pave__V1__Control *reply;
	int rc;

	hello.version_min = FRAME_VERSION_MIN;
	hello.version_max = FRAME_VERSION;
	hello.role = (char *)(uintptr_t) "admin";
	hello.name = (char *)(uintptr_t) "pave";
	hello.software = (char *)(uintptr_t)("pave " PAVE_VERSION);
	m.body_case = PAVE__V1__CONTROL__BODY_HELLO;
	m.hello = &hello;
	rc = client_call(c, &m, PAVE__V1__CONTROL__BODY_HELLO_REPLY,
			 drivers_several(&c->drivers) ? CLIENT_SEVERAL_MS : 0, &reply, err);
	if (rc != 0)
		return rc;
	if (rpc_agree(&c->rpc, reply->hello_reply->version, reply->hello_reply->version) != 0) {
		rc = error_set(err, -E_WIRE_VERSION,
			       "the placement driver at %s has chosen wire version %u, this "
			       "program speaks %u to %u",
			       c->address, reply->hello_reply->version, FRAME_VERSION_MIN,
			       FRAME_VERSION);
	} else if (reply->hello_reply->standby) {
		c->standby = true;
		snprintf(c->leader, sizeof c->leader, "%.*s", (int)sizeof c->leader - 1,
			 reply->hello_reply->leader);
		rc = error_set(
		    err, -E_NOT_LEADER,
		    "the placement driver at %s does not lead, and knows of %s%s", c->address,
		    c->leader[0] != '\0' ? "another that does: " : "none that does", c->leader);
	}
	pave__v1__control__free_unpacked(reply, NULL);
	return rc;
}

static int connect_to(struct client *c, const struct cluster_ref *cluster, struct error *err)
{
	int rc = address_check_peer(c->address, cli.insecure, err);

	if (rc != 0)
		error_wrap(err, "placement driver");
	else if ((rc = transport_connect(c->transport, c->address, &handler, c, &c->conn)) != 0)
		error_set(err, rc, "placement driver address %s: %s", c->address, err_text(rc));
	if (rc != 0) {
		c->closed = true;
		return rc;
	}
	if (run(c, CLIENT_CONNECT_MS) == 0 && c->ready && c->conn != NULL) {
		rpc_init(&c->rpc, c->conn, on_request, c);
		return 0;
	}
	if (c->closed && (c->reason == -EACCES || c->reason == -EPERM))
		return error_set(err, c->reason, "placement driver address %s: %s", c->address,
				 err_text(c->reason));
	return error_set(err, -E_UNREACHABLE, "cannot reach the placement driver at %s: %s%s%s%s",
			 c->address, c->closed ? err_text(c->reason) : "no answer",
			 cluster->dir[0] != '\0' ? "; is it running? pave dev up --dir " : "",
			 cluster->dir, cluster->dir[0] != '\0' ? " starts it" : "");
}

/* The connection is closed, and nothing of it is left. False: it does not end. */
static bool disconnect(struct client *c)
{
	if (!c->closed)
		transport_close(c->conn);
	/* closed follows; until then the connection uses our memory. */
	while (!c->closed) {
		c->flag = false;
		reactor_refresh(c->reactor);
		if (run(c, CLIENT_CONNECT_MS) != 0 && !c->closed)
			return false;
	}
	return true;
}

/* One try at one driver. */
static int open_one(struct client *c, const struct cluster_ref *cluster, struct error *err)
{
	int rc;

	snprintf(c->address, sizeof c->address, "%s", drivers_current(&c->drivers));
	c->ready = c->closed = c->flag = c->standby = false;
	c->leader[0] = '\0';
	reactor_refresh(c->reactor);
	rc = connect_to(c, cluster, err);
	return rc == 0 ? greet(c, err) : rc;
}

/* Until one leads. A single driver that cannot be reached is not waited for. */
static int open_leader(struct client *c, const struct cluster_ref *cluster, struct error *err)
{
	const struct timespec pause = {.tv_nsec = CLIENT_PAUSE_NS};
	const uint64_t end = reactor_now_ns(c->reactor) + CLIENT_ELECTION_MS * NS_PER_MS;
	int rc;

	for (;;) {
		rc = open_one(c, cluster, err);
		if (rc != -E_UNREACHABLE && rc != -E_NOT_LEADER)
			return rc;
		if ((!drivers_several(&c->drivers) && !c->standby) || !disconnect(c))
			return rc;
		reactor_refresh(c->reactor);
		if (reactor_now_ns(c->reactor) >= end)
			return rc;
		if (drivers_next(&c->drivers, c->leader))
			nanosleep(&pause, NULL);
	}
}

int client_open(const struct cluster_ref *cluster, struct client **ret, struct error *err)
{
	const struct reactor_config config = {.name = "pave", .memory_bytes = CLIENT_MEMORY_BYTES};
	struct client *c = calloc(1, sizeof *c);
	int rc;

	if (c == NULL)
		return error_set(err, -ENOMEM, "no memory");
	c->closed = true; /* until there is a connection */
	rc = drivers_parse(cluster->pd, &c->drivers, err);
	if (rc != 0)
		goto fail;
	rc = reactor_create(&config, &c->reactor);
	if (rc != 0) {
		error_set(err, rc, "io_uring: %s", err_text(rc));
		goto fail;
	}
	rc = transport_tcp_create(c->reactor, cli.insecure, &c->transport);
	if (rc != 0) {
		error_set(err, rc, "transport: %s", err_text(rc));
		goto fail;
	}
	rc = open_leader(c, cluster, err);
	if (rc != 0)
		goto fail;
	*ret = c;
	return 0;
fail:
	client_close(c);
	return rc;
}

void client_close(struct client *c)
{
	if (c == NULL)
		return;
	if (!disconnect(c))
		return; /* the process ends anyway */
	transport_destroy(c->transport);
	reactor_destroy(c->reactor);
	free(c);
}

int client_ask(const Pave__V1__Control *m, Pave__V1__Control__BodyCase expected,
	       uint32_t timeout_ms, Pave__V1__Control **ret, struct error *err)
{
	struct cluster_ref cluster;
	struct client *c = NULL;
	int rc = cmd_cluster(&cluster, err);

	if (rc == 0)
		rc = client_open(&cluster, &c, err);
	if (rc == 0)
		rc = client_call(c, m, expected, timeout_ms, ret, err);
	client_close(c);
	return rc;
}
