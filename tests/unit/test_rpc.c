/* Control messages over a real connection: two rpcs that call each other, and a peer that says what
 * it must not. */
#include <check.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "net/rpc/rpc.h"
#include "tests/unit/net_wait.h"

/* What the server does with a request. */
enum manner { ANSWER, FAIL, SILENCE, ANSWER_LARGE, ANSWER_TOO_LARGE, HANG_UP };

struct end {
	struct transport_conn *conn;
	struct rpc rpc;
	enum manner manner;
	uint64_t requests, notices;
	uint64_t last_id;
	size_t last_name_size;
	uint64_t rx_frames;
	bool is_ready, is_closed, raw; /* raw: frames are counted, not passed to the rpc */
	int reason;
};

struct asked {
	struct rpc_call call;
	uint64_t done_count;
	int status;
	char text[200];
	uint32_t version; /* of the HelloReply */
	size_t name_size;
	struct asked *again;  /* started from done */
	struct asked *victim; /* cancelled from done */
	struct rpc *rpc;
};

static struct transport *transport;
static struct transport_listener *listener;
static struct end client, server;
static bool inside_call;

/* A Hello with a name of this size. */
static char *long_name(size_t size)
{
	char *name = malloc(size + 1);

	memset(name, 'n', size);
	name[size] = '\0';
	return name;
}

static void answer(struct rpc *rpc, uint64_t id, size_t name_size)
{
	Pave__V1__Control message = PAVE__V1__CONTROL__INIT;
	Pave__V1__HelloReply reply = PAVE__V1__HELLO_REPLY__INIT;
	char *name = long_name(name_size);

	reply.version = 7;
	reply.name = name;
	message.body_case = PAVE__V1__CONTROL__BODY_HELLO_REPLY;
	message.hello_reply = &reply;
	inside_call = true;
	rpc_reply(rpc, id, &message);
	inside_call = false;
	free(name);
}

static void handle(struct rpc *rpc, const struct rpc_request *request, void *arg)
{
	struct end *end = arg;

	ck_assert(!inside_call);
	ck_assert_ptr_eq(rpc, &end->rpc);
	ck_assert_int_eq(request->message->body_case, PAVE__V1__CONTROL__BODY_HELLO);
	end->last_name_size = strlen(request->message->hello->name);
	end->last_id = request->request_id;
	if (request->request_id == 0)
		end->notices++;
	else
		end->requests++;
	inside_call = true;
	switch (end->manner) {
	case ANSWER:
		answer(rpc, request->request_id, 5);
		break;
	case FAIL:
		rpc_fail(rpc, request->request_id, -E_DENIED,
			 "site par\x1b[31m is \xc2\x9bnot eligible");
		break;
	case ANSWER_LARGE:
		answer(rpc, request->request_id, 3000000);
		break;
	case ANSWER_TOO_LARGE:
		answer(rpc, request->request_id, FRAME_CONTROL_MAX);
		break;
	case HANG_UP:
		transport_close(rpc->conn);
		break;
	case SILENCE:
		break;
	}
	inside_call = false;
}

static void end_ready(struct transport_conn *conn, void *arg)
{
	(void)conn;
	((struct end *)arg)->is_ready = true;
}

static void *end_rx_buffer(struct transport_conn *conn, const struct frame *f, void *arg)
{
	(void)conn;
	return rpc_rx_buffer(&((struct end *)arg)->rpc, f);
}

static void end_rx(struct transport_conn *conn, const struct frame *f, void *arg)
{
	struct end *end = arg;

	(void)conn;
	end->rx_frames++;
	if (!end->raw)
		rpc_rx(&end->rpc, f);
}

static void end_closed(struct transport_conn *conn, int reason, void *arg)
{
	struct end *end = arg;

	(void)conn;
	ck_assert(!end->is_closed);
	end->is_closed = true;
	end->reason = reason;
	end->conn = NULL;
	rpc_closed(&end->rpc);
	ck_assert_uint_eq(end->rpc.call_count, 0);
}

static const struct transport_handler handler = {
    .ready = end_ready, .rx_buffer = end_rx_buffer, .rx = end_rx, .closed = end_closed};

static void accepted(struct transport_conn *conn, void *arg)
{
	struct end *end = arg;

	end->conn = conn;
	conn->handler = &handler;
	conn->arg = end;
	rpc_init(&end->rpc, conn, handle, end);
	end->is_ready = true;
}

static void setup(void)
{
	const struct reactor_config config = {.name = "test", .memory_bytes = 4 * MIB};

	ck_assert_int_eq(reactor_create(&config, &reactor), 0);
	ck_assert_int_eq(transport_tcp_create(reactor, false, &transport), 0);
	ck_assert_int_eq(
	    transport_listen(transport, "127.0.0.1:0", accepted, &server, &listener, NULL), 0);
	ck_assert_int_eq(
	    transport_connect(transport, listener->address, &handler, &client, &client.conn), 0);
	rpc_init(&client.rpc, client.conn, handle, &client);
	wait_flag(&client.is_ready);
	wait_flag(&server.is_ready);
}

static void teardown(void)
{
	if (client.conn != NULL)
		transport_close(client.conn);
	if (server.conn != NULL)
		transport_close(server.conn);
	wait_flag(&client.is_closed);
	wait_flag(&server.is_closed);
	transport_unlisten(listener);
	transport_destroy(transport);
	one_turn();
	one_turn();
	reactor_destroy(reactor);
}

static void start(struct rpc *rpc, struct asked *a, size_t name_size, uint32_t timeout_ms);

static void asked_done(struct rpc_call *call, int status, const Pave__V1__Control *reply,
		       const char *text)
{
	struct asked *a = container_of(call, struct asked, call);

	ck_assert(!inside_call);
	ck_assert_ptr_nonnull(text);
	ck_assert((status == 0) == (reply != NULL));
	a->done_count++;
	a->status = status;
	strncpy(a->text, text, sizeof(a->text) - 1);
	if (reply != NULL) {
		ck_assert_int_eq(reply->body_case, PAVE__V1__CONTROL__BODY_HELLO_REPLY);
		a->version = reply->hello_reply->version;
		a->name_size = strlen(reply->hello_reply->name);
	}
	if (a->victim != NULL)
		rpc_call_cancel(&a->victim->call);
	if (a->again != NULL)
		start(a->rpc, a->again, 1, 0);
}

static void hello(Pave__V1__Control *message, Pave__V1__Hello *body, char *name)
{
	pave__v1__control__init(message);
	pave__v1__hello__init(body);
	body->name = name;
	message->body_case = PAVE__V1__CONTROL__BODY_HELLO;
	message->hello = body;
}

static void start(struct rpc *rpc, struct asked *a, size_t name_size, uint32_t timeout_ms)
{
	Pave__V1__Control message;
	Pave__V1__Hello body;
	char *name = long_name(name_size);

	hello(&message, &body, name);
	a->rpc = rpc;
	a->call.done = asked_done;
	inside_call = true;
	rpc_call_start(rpc, &a->call, &message, timeout_ms);
	inside_call = false;
	free(name);
}

/* -- calls ----------------------------------------------------------------------------------- */

START_TEST(test_call_and_reply)
{
	static const size_t sizes[] = {0, 10, 20000, 3000000};
	struct asked a[ARRAY_SIZE(sizes)] = {0};

	for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
		server.manner = i == 2 ? ANSWER_LARGE : ANSWER;
		start(&client.rpc, &a[i], sizes[i], 0);
		wait_count(&a[i].done_count, 1);
		ck_assert_int_eq(a[i].status, 0);
		ck_assert_uint_eq(a[i].version, 7);
		ck_assert_uint_eq(a[i].name_size, i == 2 ? 3000000 : 5);
		ck_assert_uint_eq(server.last_name_size, sizes[i]);
	}
	ck_assert_uint_eq(client.rpc.call_count, 0);
	ck_assert_uint_eq(client.rpc.queued_bytes, 0);
	/* A call may be used again when it is done. */
	start(&client.rpc, &a[0], 3, 0);
	wait_count(&a[0].done_count, 2);
	ck_assert_int_eq(a[0].status, 0);
}
END_TEST

/* Either side may ask, at the same time, with the same numbers. */
START_TEST(test_both_ways)
{
	struct asked a[100] = {0}, b[100] = {0};

	for (size_t i = 0; i < ARRAY_SIZE(a); i++) {
		start(&client.rpc, &a[i], 9, 0);
		start(&server.rpc, &b[i], 9, 0);
	}
	for (size_t i = 0; i < ARRAY_SIZE(a); i++) {
		wait_count(&a[i].done_count, 1);
		wait_count(&b[i].done_count, 1);
		ck_assert_int_eq(a[i].status, 0);
		ck_assert_int_eq(b[i].status, 0);
	}
	ck_assert_uint_eq(server.requests, 100);
	ck_assert_uint_eq(client.requests, 100);
}
END_TEST

START_TEST(test_fail_carries_code_and_text)
{
	struct asked a = {0};

	server.manner = FAIL;
	start(&client.rpc, &a, 1, 0);
	wait_count(&a.done_count, 1);
	ck_assert_int_eq(a.status, -E_DENIED);
	/* Nothing that a terminal would obey. */
	ck_assert_str_eq(a.text, "site par [31m is   not eligible");
	ck_assert(!client.is_closed);
}
END_TEST

START_TEST(test_fail_without_text)
{
	struct asked a = {0};

	server.manner = SILENCE;
	start(&client.rpc, &a, 1, 0);
	wait_count(&server.requests, 1);
	rpc_fail(&server.rpc, server.last_id, -ENOENT, NULL);
	wait_count(&a.done_count, 1);
	ck_assert_int_eq(a.status, -ENOENT);
	ck_assert_str_eq(a.text, err_text(-ENOENT));
}
END_TEST

START_TEST(test_notice)
{
	Pave__V1__Control message;
	Pave__V1__Hello body;
	char name[] = "abc";
	struct asked a = {0};

	hello(&message, &body, name);
	rpc_notify(&client.rpc, &message); /* the server answers it, which goes nowhere */
	start(&client.rpc, &a, 1, 0);
	wait_count(&a.done_count, 1);
	ck_assert_int_eq(a.status, 0);
	ck_assert_uint_eq(server.notices, 1);
	ck_assert_uint_eq(server.requests, 1);
	ck_assert_uint_eq(client.rx_frames, 1);
}
END_TEST

START_TEST(test_timeout)
{
	struct asked a = {0};
	uint64_t begin_ns;

	server.manner = SILENCE;
	reactor_refresh(reactor);
	begin_ns = reactor_now_ns(reactor);
	start(&client.rpc, &a, 1, 50);
	wait_count(&a.done_count, 1);
	ck_assert_int_eq(a.status, -ETIMEDOUT);
	ck_assert_uint_ge(reactor_now_ns(reactor) - begin_ns, 49 * NS_PER_MS);
	/* The answer that comes too late is dropped, and hurts nobody. */
	answer(&server.rpc, server.last_id, 5);
	wait_count(&client.rx_frames, 1);
	ck_assert(!client.is_closed);
	ck_assert_uint_eq(a.done_count, 1);
}
END_TEST

START_TEST(test_cancel)
{
	struct asked a = {0}, b = {0}, never = {0};

	rpc_call_cancel(&never.call);
	server.manner = SILENCE;
	start(&client.rpc, &a, 1, 20);
	start(&client.rpc, &b, 1, 60);
	rpc_call_cancel(&a.call);
	rpc_call_cancel(&a.call);
	ck_assert_uint_eq(client.rpc.call_count, 1);
	wait_count(&b.done_count, 1);
	ck_assert_uint_eq(a.done_count, 0);
	ck_assert_uint_eq(client.rpc.call_count, 0);
}
END_TEST

START_TEST(test_disconnect_ends_all_calls)
{
	struct asked a[5] = {0}, late = {0}, cancelled = {0};

	server.manner = SILENCE;
	for (size_t i = 0; i < ARRAY_SIZE(a); i++)
		start(&client.rpc, &a[i], 1, 0);
	start(&client.rpc, &cancelled, 1, 0);
	a[0].again = &late; /* it fails, too, but not from inside */
	a[1].victim = &cancelled;
	wait_count(&server.requests, 6);
	transport_close(server.conn);
	wait_flag(&client.is_closed);
	ck_assert_int_eq(client.reason, -E_DISCONNECTED);
	for (size_t i = 0; i < ARRAY_SIZE(a); i++) {
		ck_assert_uint_eq(a[i].done_count, 1);
		ck_assert_int_eq(a[i].status, -E_DISCONNECTED);
	}
	wait_count(&late.done_count, 1);
	ck_assert_int_eq(late.status, -E_DISCONNECTED);
	ck_assert_uint_eq(cancelled.done_count, 0);
	/* Harmless, and without effect: */
	answer(&client.rpc, 5, 5);
	rpc_fail(&client.rpc, 5, -EIO, "x");
}
END_TEST

/* Nor does a call that could not be sent come to its end later, when what holds it may be gone. */
START_TEST(test_disconnect_ends_what_could_not_be_sent)
{
	struct asked large = {0}, cancelled = {0};

	start(&client.rpc, &large, FRAME_CONTROL_MAX, 0);
	start(&client.rpc, &cancelled, FRAME_CONTROL_MAX, 0);
	rpc_call_cancel(&cancelled.call);
	ck_assert_uint_eq(large.done_count, 0);
	rpc_closed(&client.rpc);
	ck_assert_uint_eq(large.done_count, 1);
	ck_assert_int_eq(large.status, -E_DISCONNECTED);
	ck_assert_uint_eq(cancelled.done_count, 0);
}
END_TEST

/* A call that is started after that outlives its rpc. */
START_TEST(test_failed_call_outlives_rpc)
{
	struct rpc *gone = malloc(sizeof(*gone));
	struct asked a = {0}, b = {0};

	rpc_init(gone, client.conn, handle, &client);
	rpc_closed(gone);
	start(gone, &a, 1, 0);
	start(gone, &b, 1, 0);
	free(gone);
	rpc_call_cancel(&b.call);
	wait_count(&a.done_count, 1);
	ck_assert_int_eq(a.status, -E_DISCONNECTED);
	ck_assert_uint_eq(b.done_count, 0);
}
END_TEST

START_TEST(test_peer_hangs_up_in_handler)
{
	struct asked a = {0};

	server.manner = HANG_UP;
	start(&client.rpc, &a, 100000, 0);
	wait_count(&a.done_count, 1);
	ck_assert_int_eq(a.status, -E_DISCONNECTED);
}
END_TEST

START_TEST(test_oversized)
{
	struct asked a = {0}, b = {0}, c = {0};

	start(&client.rpc, &a, FRAME_CONTROL_MAX, 0);
	ck_assert_uint_eq(a.done_count, 0);
	wait_count(&a.done_count, 1);
	ck_assert_int_eq(a.status, -E_LIMIT);
	ck_assert_uint_eq(server.rx_frames, 0);
	server.manner = ANSWER_TOO_LARGE;
	start(&client.rpc, &b, 1, 0);
	wait_count(&b.done_count, 1);
	ck_assert_int_eq(b.status, -E_LIMIT);
	server.manner = ANSWER;
	start(&client.rpc, &c, FRAME_CONTROL_MAX - 100, 0);
	wait_count(&c.done_count, 1);
	ck_assert_int_eq(c.status, 0);
}
END_TEST

START_TEST(test_calls_are_bounded)
{
	static struct asked a[RPC_CALLS_MAX + 1];

	server.manner = SILENCE;
	for (size_t i = 0; i < ARRAY_SIZE(a); i++)
		start(&client.rpc, &a[i], 1, 0);
	ck_assert_uint_eq(client.rpc.call_count, RPC_CALLS_MAX);
	wait_count(&a[RPC_CALLS_MAX].done_count, 1);
	ck_assert_int_eq(a[RPC_CALLS_MAX].status, -E_LIMIT);
	ck_assert_uint_eq(a[0].done_count, 0);
	wait_count(&server.requests, RPC_CALLS_MAX);
	for (uint64_t id = 1; id <= RPC_CALLS_MAX; id++)
		answer(&server.rpc, id, 5);
	for (size_t i = 0; i < RPC_CALLS_MAX; i++)
		wait_count(&a[i].done_count, 1);
}
END_TEST

/* Nobody takes what is sent: it ends at RPC_QUEUE_BYTES_MAX, not when memory does. */
START_TEST(test_queue_is_bounded)
{
	Pave__V1__Control message;
	Pave__V1__Hello body;
	char *name = long_name(1000000);
	unsigned sent = 0;

	hello(&message, &body, name);
	for (; sent < 100; sent++)
		rpc_notify(&client.rpc, &message);
	ck_assert_uint_le(client.rpc.queued_bytes, RPC_QUEUE_BYTES_MAX);
	wait_flag(&client.is_closed);
	ck_assert_int_eq(client.reason, 0);
	free(name);
}
END_TEST

/* The same of many small ones: what they take is counted, not what they say. */
START_TEST(test_queue_of_small_messages_is_bounded)
{
	const unsigned most = RPC_QUEUE_BYTES_MAX / sizeof(struct transport_send);
	Pave__V1__Control message;
	Pave__V1__Hello body;
	char name[] = "";
	unsigned sent = 0;

	hello(&message, &body, name);
	while (sent <= most && !client.rpc.cut_off) {
		rpc_notify(&client.rpc, &message);
		sent++;
	}
	ck_assert_uint_le(sent, most);
	ck_assert_uint_le(client.rpc.queued_bytes, RPC_QUEUE_BYTES_MAX);
	wait_flag(&client.is_closed);
}
END_TEST

/* -- bad input ------------------------------------------------------------------------------- */

struct raw_send {
	struct transport_send send;
	uint32_t crc;
	uint8_t payload[BLOCK_SIZE];
};

static void raw_done(struct transport_send *send, int status)
{
	(void)send;
	(void)status;
}

/* Sends the server such a frame and expects that it hangs up without having passed anything on. */
static void expect_hang_up(struct frame f, const void *payload, bool bad_crc)
{
	static struct raw_send raw;
	struct asked a = {0};

	client.raw = true;
	server.manner = SILENCE;
	start(&server.rpc, &a, 1, 0); /* request 1 of the server, for replies to contradict */
	wait_count(&client.rx_frames, 1);
	raw = (struct raw_send){.send.frame = f, .send.done = raw_done};
	memcpy(raw.payload, payload, f.payload_size);
	frame_payload_crcs(raw.payload, f.payload_size, &raw.crc);
	raw.crc ^= bad_crc ? 1 : 0;
	raw.send.frame.wire_version = FRAME_VERSION;
	raw.send.frame.op = FRAME_CONTROL;
	raw.send.frame.crc_count = frame_crc_count(f.payload_size);
	raw.send.frame.crcs = &raw.crc;
	raw.send.iov[0] = (struct iovec){raw.payload, f.payload_size};
	raw.send.iov_count = 1;
	transport_send(client.conn, &raw.send);
	wait_flag(&client.is_closed);
	wait_flag(&server.is_closed);
	ck_assert_int_eq(server.reason, 0);
	ck_assert_uint_eq(server.rx_frames, 1);
	ck_assert_uint_eq(server.requests + server.notices, 0);
	ck_assert_uint_eq(a.done_count, 1);
	ck_assert_int_eq(a.status, -E_DISCONNECTED);
}

static uint32_t pack_status(uint32_t status, uint8_t *ret)
{
	Pave__V1__Control message = PAVE__V1__CONTROL__INIT;

	message.status = status;
	return (uint32_t)pave__v1__control__pack(&message, ret);
}

START_TEST(test_bad_payload_crc)
{
	uint8_t buf[50];
	uint32_t size = pack_status(3, buf);

	expect_hang_up((struct frame){.request_id = 1, .payload_size = size}, buf, true);
}
END_TEST

START_TEST(test_bad_protobuf)
{
	expect_hang_up((struct frame){.request_id = 1, .payload_size = 4}, "\xff\xff\xff\xff",
		       false);
}
END_TEST

/* A message of a few bytes that asks for gigabytes: a length that goes beyond the end. */
START_TEST(test_bad_protobuf_length)
{
	expect_hang_up((struct frame){.request_id = 1, .payload_size = 6},
		       "\x52\xff\xff\xff\xff\x07", false);
}
END_TEST

START_TEST(test_reply_without_number)
{
	expect_hang_up((struct frame){.flags = FRAME_F_REPLY}, "", false);
}
END_TEST

START_TEST(test_reply_that_contradicts_its_header)
{
	uint8_t buf[50];
	uint32_t size = pack_status(3, buf);

	expect_hang_up(
	    (struct frame){
		.flags = FRAME_F_REPLY, .request_id = 1, .status = 4, .payload_size = size},
	    buf, false);
}
END_TEST

START_TEST(test_success_that_contradicts_its_header)
{
	uint8_t buf[50];
	uint32_t size = pack_status(3, buf);

	expect_hang_up(
	    (struct frame){.flags = FRAME_F_REPLY, .request_id = 1, .payload_size = size}, buf,
	    false);
}
END_TEST

/* Two bytes an element on the wire, many times that in memory. */
START_TEST(test_unpacking_is_bounded)
{
	const size_t count = 1500000;
	uint8_t *buf = malloc(2 * count + 20), *p = buf;
	struct transport_send send = {.done = raw_done};
	uint32_t crcs[FRAME_CRCS_MAX];
	uint32_t body = (uint32_t)(2 * count), size;

	/* chunks_reply (24): chunks (1), again and again, each empty */
	*p++ = 0xc2;
	*p++ = 0x01;
	for (; body >= 0x80; body >>= 7)
		*p++ = (uint8_t)(body | 0x80);
	*p++ = (uint8_t)body;
	for (size_t i = 0; i < count; i++) {
		*p++ = 0x0a;
		*p++ = 0x00;
	}
	size = (uint32_t)(p - buf);
	frame_payload_crcs(buf, size, crcs);
	send.frame = (struct frame){.wire_version = FRAME_VERSION,
				    .op = FRAME_CONTROL,
				    .request_id = 1,
				    .payload_size = size,
				    .crc_count = frame_crc_count(size),
				    .crcs = crcs};
	send.iov[0] = (struct iovec){buf, size};
	send.iov_count = 1;
	transport_send(client.conn, &send);
	wait_flag(&server.is_closed);
	wait_flag(&client.is_closed);
	ck_assert_uint_eq(server.requests, 0);
	free(buf);
}
END_TEST

static void add_calls(TCase *tc)
{
	tcase_add_test(tc, test_call_and_reply);
	tcase_add_test(tc, test_both_ways);
	tcase_add_test(tc, test_fail_carries_code_and_text);
	tcase_add_test(tc, test_fail_without_text);
	tcase_add_test(tc, test_notice);
	tcase_add_test(tc, test_timeout);
	tcase_add_test(tc, test_cancel);
	tcase_add_test(tc, test_disconnect_ends_all_calls);
	tcase_add_test(tc, test_disconnect_ends_what_could_not_be_sent);
	tcase_add_test(tc, test_failed_call_outlives_rpc);
	tcase_add_test(tc, test_peer_hangs_up_in_handler);
	tcase_add_test(tc, test_oversized);
	tcase_add_test(tc, test_calls_are_bounded);
	tcase_add_test(tc, test_queue_is_bounded);
	tcase_add_test(tc, test_queue_of_small_messages_is_bounded);
}

static void add_bad_input(TCase *tc)
{
	tcase_add_test(tc, test_bad_payload_crc);
	tcase_add_test(tc, test_bad_protobuf);
	tcase_add_test(tc, test_bad_protobuf_length);
	tcase_add_test(tc, test_reply_without_number);
	tcase_add_test(tc, test_reply_that_contradicts_its_header);
	tcase_add_test(tc, test_success_that_contradicts_its_header);
	tcase_add_test(tc, test_unpacking_is_bounded);
}

static TCase *add_case(Suite *suite, const char *name)
{
	TCase *tc = tcase_create(name);

	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_set_timeout(tc, 60);
	suite_add_tcase(suite, tc);
	return tc;
}

int main(void)
{
	Suite *suite = suite_create("rpc");
	SRunner *runner = srunner_create(suite);
	int failed;

	add_calls(add_case(suite, "calls"));
	add_bad_input(add_case(suite, "bad input"));
	srunner_run_all(runner, CK_NORMAL);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
