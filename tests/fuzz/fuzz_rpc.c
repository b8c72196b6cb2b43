/* Control messages: any payload, as request, as reply with a status, or as notice, is handled or
 * ends the connection, and leaves nothing behind. The first byte chooses; the rest is protobuf. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/assert.h"
#include "engine/base/log.h"
#include "net/rpc/rpc.h"
#include "tests/fuzz/fuzz.h"

static bool closed;
static unsigned handled, done_count;

static void fake_arm(struct reactor *r, struct reactor_timer *t, uint64_t deadline_ns)
{
	(void)r;
	(void)t;
	(void)deadline_ns;
}

static void fake_cancel(struct reactor *r, struct reactor_timer *t)
{
	(void)r;
	(void)t;
}

static void fake_send(struct transport_conn *conn, struct transport_send *s)
{
	(void)conn;
	s->done(s, 0); /* earlier than a transport may, which rpc must not mind here */
}

static void fake_close(struct transport_conn *conn)
{
	(void)conn;
	closed = true;
}

static const struct reactor_ops reactor_ops = {.timer_arm = fake_arm, .timer_cancel = fake_cancel};
static const struct transport_ops transport_ops = {.send = fake_send, .close = fake_close};

static void handle(struct rpc *rpc, const struct rpc_request *request, void *arg)
{
	(void)arg;
	handled++;
	/* What was unpacked packs again, to the request's own sender. */
	if (request->message->status == 0)
		rpc_reply(rpc, request->request_id, request->message);
}

static void call_done(struct rpc_call *call, int status, const Pave__V1__Control *reply,
		      const char *text)
{
	(void)call;
	INVARIANT((status == 0) == (reply != NULL) && status <= 0 && text != NULL);
	for (; *text != '\0'; text++)
		INVARIANT((unsigned char)*text >= ' ' && *text != 0x7f);
	done_count++;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static uint32_t crcs[FRAME_CRCS_MAX];
	struct reactor reactor = {.ops = &reactor_ops};
	struct transport transport = {.ops = &transport_ops, .reactor = &reactor};
	struct transport_conn conn = {.transport = &transport, .peer.address = "fuzz"};
	const Pave__V1__Control nothing = PAVE__V1__CONTROL__INIT;
	struct rpc_call call = {.done = call_done};
	struct frame f = {.op = FRAME_CONTROL};
	struct rpc rpc;

	if (size < 2 || size - 2 > FRAME_CONTROL_MAX)
		return 0;
	log_set_level(LOG_ERROR);
	closed = false;
	handled = 0;
	done_count = 0;
	rpc_init(&rpc, &conn, handle, NULL);
	rpc_call_start(&rpc, &call, &nothing, 0);
	f.flags = data[0] & FRAME_F_REPLY;
	f.request_id = (data[0] >> 1) & 3;
	f.status = f.flags != 0 ? data[1] : 0;
	f.payload_size = (uint32_t)(size - 2);
	f.crc_count = frame_crc_count(f.payload_size);
	frame_payload_crcs(data + 2, f.payload_size, crcs);
	f.crcs = crcs;
	f.payload = data + 2;
	if (f.payload_size > TRANSPORT_COPY_MAX) {
		void *memory = rpc_rx_buffer(&rpc, &f);

		memcpy(memory, data + 2, f.payload_size);
		f.payload = memory;
	}
	rpc_rx(&rpc, &f);
	INVARIANT(!closed || handled + done_count == 0);
	INVARIANT(done_count <= 1);
	rpc_closed(&rpc);
	INVARIANT(done_count == 1 && rpc.queued_bytes == 0);
	return 0;
}
