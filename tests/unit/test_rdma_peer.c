/* What a peer may say that it should not, in messages that decode and in set-up: it ends the
 * connection, and touches nothing else. See test_rdma.c. */
#include <check.h>
#include <errno.h>
#include <string.h>

#include "control.pb-c.h"
#include "engine/base/crc32c.h"
#include "net/rdma/message.h"
#include "net/tcp/address.h"
#include "tests/unit/rdma_world.h"

/* -- messages --------------------------------------------------------------------------------- */

#define CREDITS_AT  2u
#define PULLED_AT   4u
#define RESERVED_AT 6u
#define SIZE_AT	    8u
#define CRC_AT	    12u

/* The checksum of a head without segments. */
static void seal(uint8_t *bytes)
{
	const uint32_t crc = crc32c(0, bytes, CRC_AT);

	ck_assert_uint_eq(bytes[1], 0);
	memcpy(bytes + CRC_AT, &crc, sizeof crc);
}

static void put(uint8_t *bytes, uint32_t at, uint16_t value)
{
	memcpy(bytes + at, &value, sizeof value);
	seal(bytes);
}

static void invert_a_bit(uint8_t *bytes, uint32_t size_bytes)
{
	(void)size_bytes;
	bytes[3] ^= 4;
}

static void give_a_credit_too_many(uint8_t *bytes, uint32_t size_bytes)
{
	(void)size_bytes;
	put(bytes, CREDITS_AT, RDMA_CREDITS + 1);
}

static void say_a_size_that_is_not_its_own(uint8_t *bytes, uint32_t size_bytes)
{
	size_bytes++;
	memcpy(bytes + SIZE_AT, &size_bytes, sizeof size_bytes);
	seal(bytes);
}

static void use_what_is_reserved(uint8_t *bytes, uint32_t size_bytes)
{
	(void)size_bytes;
	put(bytes, RESERVED_AT, 1);
}

static void fetched_one(uint8_t *bytes, uint32_t size_bytes)
{
	(void)size_bytes;
	put(bytes, PULLED_AT, 1);
}

static void fetched_two(uint8_t *bytes, uint32_t size_bytes)
{
	(void)size_bytes;
	put(bytes, PULLED_AT, 2);
}

static void give_ten_credits(uint8_t *bytes, uint32_t size_bytes)
{
	(void)size_bytes;
	put(bytes, CREDITS_AT, 10);
}

static void must_end(struct side *side, int reason)
{
	wait_flag(&side->is_closed);
	ck_assert_int_eq(side->reason, reason);
}

static const struct edit {
	void (*edit)(uint8_t *bytes, uint32_t size_bytes);
	int reason;
} edits[] = {{invert_a_bit, -E_BAD_CRC},
	     {say_a_size_that_is_not_its_own, -E_BAD_FRAME},
	     {use_what_is_reserved, -E_BAD_FRAME},
	     {give_a_credit_too_many, -E_BAD_FRAME},
	     {fetched_one, -E_BAD_FRAME}};

START_TEST(test_message)
{
	connect_sides();
	fake_device.edit_next = edits[_i].edit;
	send_control(&client, 1, 100);
	must_end(&server, edits[_i].reason);
	ck_assert_uint_eq(server.rx_count, 0);
}
END_TEST

/* More payloads than were announced: the one that is there is still the sender's. */
START_TEST(test_fetched_too_many)
{
	connect_sides();
	fake_device.hold_reads = true;
	send_control(&client, 1, 100000);
	while (server.buffer == NULL)
		one_turn();
	fake_device.edit_next = fetched_two;
	send_control(&server, 1, 10);
	must_end(&client, -E_BAD_FRAME);
	ck_assert(fake_device_read_one());
	wait_flag(&server.is_closed);
	ck_assert_uint_eq(client.rx_count, 0);
	ck_assert_uint_eq(outgoing_failed, 1);
	ck_assert_uint_eq(outgoing_ok, 1);
}
END_TEST

/* A device may tell of a message that it was sent after the answer to it is there. */
START_TEST(test_fetched_before_it_is_known_to_be_sent)
{
	connect_sides();
	fake_device.late_sends = true;
	send_control(&client, 1, 100000);
	wait_count(&server.rx_count, 1);
	for (int i = 0; i < 20; i++)
		one_turn();
	ck_assert_uint_eq(outgoing_ok, 0);
	fake_device.late_sends = false;
	fake_device_sends_done();
	run_while(has_outgoing, NULL);
	ck_assert_uint_eq(outgoing_ok, 1);
}
END_TEST

/* Credits that were given twice: the first payload is not there yet, and behind it there is no room
 * for so many messages. */
START_TEST(test_more_messages_than_there_is_room_for)
{
	connect_sides();
	fake_device.hold_reads = true;
	send_control(&client, 1, 100000);
	for (unsigned i = 0; i < 10; i++)
		send_control(&client, i + 2, 10);
	while (server.buffer == NULL)
		one_turn();
	fake_device.edit_next = give_ten_credits;
	send_control(&server, 1, 10);
	for (unsigned i = 0; i < RDMA_CREDITS; i++)
		send_control(&client, i + 12, 10);
	must_end(&server, -E_BAD_FRAME);
	ck_assert_uint_eq(server.rx_count, 0);
	wait_flag(&client.is_closed);
}
END_TEST

/* -- set-up ----------------------------------------------------------------------------------- */

#define SETUP_ROOM 256u

/* What a good peer says. */
static Pave__V1__RdmaSetup good_setup(void)
{
	static uint8_t gid[32];
	Pave__V1__RdmaSetup s = PAVE__V1__RDMA_SETUP__INIT;

	s.version = RDMA_VERSION;
	s.gid = (ProtobufCBinaryData){16, gid};
	s.queue_pair = 77;
	s.sequence = 1234;
	s.mtu = 1024;
	s.credits = RDMA_CREDITS;
	s.message_size = RDMA_MESSAGE_MAX;
	s.reads = 1;
	return s;
}

/* The n-th thing to be wrong with it; the reason that it is refused for, or 0: there are no more.
 */
static int spoil(Pave__V1__RdmaSetup *s, int n)
{
	switch (n) {
	case 0:
		s->version = RDMA_VERSION + 1;
		return -E_WIRE_VERSION;
	case 1:
		s->gid.len = 15;
		return -EINVAL;
	case 2:
		s->gid.len = 17;
		return -EINVAL;
	case 3:
		s->lid = 1u << 16;
		return -EINVAL;
	case 4:
		s->queue_pair = 1u << 24;
		return -EINVAL;
	case 5:
		s->sequence = 1u << 24;
		return -EINVAL;
	case 6:
		s->mtu = 1025;
		return -EINVAL;
	case 7:
		s->mtu = 8192;
		return -EINVAL;
	case 8:
		s->credits = 1;
		return -EINVAL;
	case 9:
		s->credits = 1u << 16;
		return -EINVAL;
	case 10:
		s->message_size = RDMA_MESSAGE_MAX - 1;
		return -EINVAL;
	case 11:
		s->reads = 0;
		return -EINVAL;
	default:
		return 0;
	}
}
#define SPOILS 12

static void send_setup(struct side *side, uint16_t flags, uint64_t id, uint32_t status,
		       Pave__V1__RdmaSetup *setup)
{
	Pave__V1__Control m = PAVE__V1__CONTROL__INIT;
	uint8_t bytes[SETUP_ROOM];

	m.status = status;
	if (setup != NULL) {
		m.body_case = PAVE__V1__CONTROL__BODY_RDMA_SETUP;
		m.rdma_setup = setup;
	}
	ck_assert_uint_le(pave__v1__control__get_packed_size(&m), sizeof bytes);
	send_payload(side,
		     (struct frame){.op = FRAME_CONTROL,
				    .flags = flags,
				    .request_id = id,
				    .status = (int32_t)status,
				    .payload_size = (uint32_t)pave__v1__control__pack(&m, bytes)},
		     bytes);
}

static struct side raw; /* a peer of ours, on the carrier */

static void raw_connect(void)
{
	raw = (struct side){.in_order = true};
	ck_assert_int_eq(transport_connect(carrier, listener->address, &handler, &raw, &raw.conn),
			 0);
	wait_flag(&raw.is_ready);
}

START_TEST(test_asked_wrongly)
{
	Pave__V1__RdmaSetup s = good_setup();
	const int reason = spoil(&s, _i);

	raw_connect();
	send_setup(&raw, 0, 1, 0, &s);
	wait_count(&raw.rx_count, 1);
	ck_assert_int_eq(raw.last.status, -reason);
	ck_assert_uint_eq(raw.last.flags, FRAME_F_REPLY);
	side_end(&raw);
	run_while(is_device_used, NULL);
	connect_sides();
}
END_TEST

/* Having been answered, it may only be silent there. */
START_TEST(test_asked_twice)
{
	Pave__V1__RdmaSetup s = good_setup();

	raw_connect();
	send_setup(&raw, 0, 1, 0, &s);
	wait_count(&raw.rx_count, 1);
	ck_assert_int_eq(raw.last.status, 0);
	send_setup(&raw, 0, 2, 0, &s);
	wait_flag(&raw.is_closed);
	run_while(is_device_used, NULL);
	ck_assert_uint_eq(accepted_count, 0);
	ck_assert_uint_eq(raw.rx_count, 1);
}
END_TEST

START_TEST(test_asked_again_after_a_refusal)
{
	Pave__V1__RdmaSetup s = good_setup();

	raw_connect();
	spoil(&s, 11);
	send_setup(&raw, 0, 1, 0, &s);
	wait_count(&raw.rx_count, 1);
	s = good_setup();
	send_setup(&raw, 0, 2, 0, &s);
	wait_flag(&raw.is_closed);
	run_while(is_device_used, NULL);
	ck_assert_uint_eq(accepted_count, 0);
	ck_assert_uint_eq(raw.rx_count, 1);
}
END_TEST

/* Who connects and says nothing does not take the place of all others. */
START_TEST(test_so_many_who_say_nothing)
{
	static struct side many[RDMA_INTROS_MAX];
	Pave__V1__RdmaSetup s = good_setup();

	for (unsigned i = 0; i < RDMA_INTROS_MAX; i++) {
		many[i] = (struct side){.in_order = true};
		ck_assert_int_eq(transport_connect(carrier, listener->address, &handler, &many[i],
						   &many[i].conn),
				 0);
		wait_flag(&many[i].is_ready);
	}
	raw_connect();
	for (int i = 0; i < 200 && !many[0].is_closed; i++) /* long before RDMA_INTRODUCE_MS */
		one_turn();
	ck_assert(many[0].is_closed);
	ck_assert(!many[1].is_closed);
	send_setup(&raw, 0, 1, 0, &s);
	wait_count(&raw.rx_count, 1);
	ck_assert_int_eq(raw.last.status, 0);
	side_end(&raw);
	for (unsigned i = 0; i < RDMA_INTROS_MAX; i++)
		side_end(&many[i]);
}
END_TEST

/* Who was answered and has not said anything over RDMA yet is nobody's connection: it must not be
 * there any more when the listener's owner destroys the transport. */
START_TEST(test_listener_ends_before_the_first_message)
{
	Pave__V1__RdmaSetup s = good_setup();

	raw_connect();
	send_setup(&raw, 0, 1, 0, &s);
	wait_count(&raw.rx_count, 1);
	ck_assert_int_eq(raw.last.status, 0);
	transport_unlisten(listener);
	listener = NULL;
	for (int i = 0; i < 200 && !raw.is_closed; i++) /* long before RDMA_SETUP_MS */
		one_turn();
	ck_assert(raw.is_closed);
	ck_assert_uint_eq(accepted_count, 0);
	side_end(&raw);
}
END_TEST

/* -- set-up, answered ------------------------------------------------------------------------- */

static struct transport_listener *raw_listener;

static void raw_accepted(struct transport_conn *conn, void *arg)
{
	(void)arg;
	raw.conn = conn;
	conn->handler = &handler;
	conn->arg = &raw;
}

/* The client has asked us; raw.last is its question. */
static void be_asked(void)
{
	char address[ADDR_SIZE_MAX];
	struct error err;

	raw = (struct side){.in_order = true};
	ck_assert_int_eq(
	    transport_listen(carrier, "127.0.0.1:0", raw_accepted, NULL, &raw_listener, &err), 0);
	ck_assert_int_eq(address_offer(raw_listener->address, RDMA_TRANSPORT, address), 0);
	ck_assert_int_eq(transport_connect(transport, address, &handler, &client, &client.conn), 0);
	wait_count(&raw.rx_count, 1);
}

static void must_be_refused(int reason)
{
	wait_flag(&raw.is_closed);
	must_end(&client, reason);
	ck_assert(!client.is_ready);
	transport_unlisten(raw_listener);
	side_end(&raw);
	run_while(is_device_used, NULL);
}

START_TEST(test_answered_wrongly)
{
	Pave__V1__RdmaSetup s = good_setup();
	const int reason = spoil(&s, _i);

	be_asked();
	send_setup(&raw, FRAME_F_REPLY, raw.last.request_id, 0, &s);
	must_be_refused(reason);
}
END_TEST

START_TEST(test_answered_with_a_refusal)
{
	be_asked();
	send_setup(&raw, FRAME_F_REPLY, raw.last.request_id, E_LIMIT, NULL);
	must_be_refused(-E_LIMIT);
}
END_TEST

START_TEST(test_answer_to_nothing)
{
	Pave__V1__RdmaSetup s = good_setup();

	be_asked();
	send_setup(&raw, _i == 0 ? FRAME_F_REPLY : 0, raw.last.request_id + (_i == 0), 0, &s);
	must_be_refused(-E_BAD_FRAME);
}
END_TEST

START_TEST(test_answer_without_a_set_up)
{
	be_asked();
	send_setup(&raw, FRAME_F_REPLY, raw.last.request_id, 0, NULL);
	must_be_refused(-E_BAD_FRAME);
}
END_TEST

/* The good answer, to see that the others are not refused for what they have in common. */
START_TEST(test_answered_well)
{
	Pave__V1__RdmaSetup s = good_setup();

	be_asked();
	fake_device.deaf = true; /* nobody has that queue pair */
	send_setup(&raw, FRAME_F_REPLY, raw.last.request_id, 0, &s);
	run_while(has_outgoing, NULL);
	for (int i = 0; i < 20; i++)
		one_turn();
	ck_assert(!client.is_closed && !raw.is_closed);
	side_end(&raw);
	must_end(&client, -E_DISCONNECTED);
	transport_unlisten(raw_listener);
}
END_TEST

/* -- all of it -------------------------------------------------------------------------------- */

int main(void)
{
	Suite *suite = suite_create("rdma_peer");
	TCase *tc = add_world(suite, "messages", world_begin);

	tcase_add_loop_test(tc, test_message, 0, (int)ARRAY_SIZE(edits));
	tcase_add_test(tc, test_fetched_too_many);
	tcase_add_test(tc, test_fetched_before_it_is_known_to_be_sent);
	tcase_add_test(tc, test_more_messages_than_there_is_room_for);
	tc = add_world(suite, "asked", world_begin);
	tcase_add_loop_test(tc, test_asked_wrongly, 0, SPOILS);
	tcase_add_test(tc, test_asked_twice);
	tcase_add_test(tc, test_asked_again_after_a_refusal);
	tcase_add_test(tc, test_so_many_who_say_nothing);
	tcase_add_test(tc, test_listener_ends_before_the_first_message);
	tc = add_world(suite, "answered", world_begin);
	tcase_add_loop_test(tc, test_answered_wrongly, 0, SPOILS);
	tcase_add_test(tc, test_answered_with_a_refusal);
	tcase_add_loop_test(tc, test_answer_to_nothing, 0, 2);
	tcase_add_test(tc, test_answer_without_a_set_up);
	tcase_add_test(tc, test_answered_well);
	return run_suite(suite);
}
