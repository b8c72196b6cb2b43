/* What peers send that they should not: greetings, control messages in any state, garbage, floods;
 * and the parts without I/O: the run table and the buffers. */
#include <check.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "engine/node/buffers.h"
#include "engine/node/run_table.h"
#include "tests/unit/test_node_rig.h"

static struct rig *rig;
static struct peer_host host;
static uint8_t *data;

static void setup(void)
{
	rig = rig_create(1);
	data = aligned_alloc(BLOCK_SIZE, IO_SIZE_MAX);
	peer_fill(data, IO_BLOCKS_MAX, 1);
	memset(&host, 0, sizeof(host));
}

static void teardown(void)
{
	peer_host_close(&host);
	rig_destroy(rig);
	free(data);
}

static struct node_stats stats(void)
{
	struct node_stats s;

	node_shard_get_stats(rig->nodes[0].shard, &s);
	return s;
}

static void connect_host(struct peer_host *h)
{
	peer_host_close(h);
	peer_host_init(h, sim_reactor(rig->host_process), rig->host_transport, rig->wait,
		       &rig->demo);
	ck_assert_int_eq(peer_host_connect(h, rig->nodes[0].name), 0);
}

/* The node serves as before. */
static void expect_well(generation_t generation)
{
	peer_host_close(&host);
	rig_open(rig, &host, 0, generation);
	ck_assert_int_eq(peer_host_write(&host, 1, 0, 1, version_make(generation, 1), data), 0);
}

/* -- greetings -------------------------------------------------------------------------------- */

static int greet(uint32_t min, uint32_t max, const struct uuid *cluster, const char *role,
		 const char *name)
{
	Pave__V1__Hello hello = PAVE__V1__HELLO__INIT;
	Pave__V1__Control message = PAVE__V1__CONTROL__INIT;

	hello.version_min = min;
	hello.version_max = max;
	if (cluster != NULL)
		hello.cluster = (ProtobufCBinaryData){16, (uint8_t *)(uintptr_t)cluster->bytes};
	hello.role = (char *)(uintptr_t)role;
	hello.name = (char *)(uintptr_t)name;
	message.body_case = PAVE__V1__CONTROL__BODY_HELLO;
	message.hello = &hello;
	return peer_host_ask(&host, &message);
}

START_TEST(test_hello)
{
	const struct uuid *ours = &rig->demo.cluster;
	const struct uuid foreign = {{9}};

	connect_host(&host);
	ck_assert_int_eq(greet(FRAME_VERSION + 1, FRAME_VERSION + 2, ours, "host", "h"),
			 -E_WIRE_VERSION);
	ck_assert_int_eq(greet(0, 0, ours, "host", "h"), -E_WIRE_VERSION);
	ck_assert_int_eq(greet(1, 1, &foreign, "host", "h"), -E_WRONG_CLUSTER);
	ck_assert_int_eq(greet(1, 1, NULL, "host", "h"), -E_WRONG_CLUSTER);
	ck_assert_int_eq(greet(1, 1, ours, "admin", "h"), -E_DENIED);
	ck_assert_int_eq(greet(1, 1, ours, "", "h"), -E_DENIED);
	ck_assert_int_eq(greet(1, 1, ours, "host", "no name"), -E_BAD_FRAME);
	ck_assert_int_eq(greet(1, 1, ours, "host", ""), -E_BAD_FRAME);
	/* Newer peers come down to us. */
	ck_assert_int_eq(greet(1, 7, ours, "host", "h"), 0);
	ck_assert_uint_eq(host.call_reply->hello_reply->version, FRAME_VERSION);
	ck_assert_str_eq(host.call_reply->hello_reply->name, "n1");
	ck_assert_int_eq(greet(1, 7, ours, "host", "h"), -E_BAD_FRAME);
	/* And we come down to older ones. */
	connect_host(&host);
	ck_assert_int_eq(greet(FRAME_VERSION_MIN, FRAME_VERSION_MIN, ours, "host", "h"), 0);
	ck_assert_uint_eq(host.call_reply->hello_reply->version, FRAME_VERSION_MIN);
}
END_TEST

START_TEST(test_no_hello)
{
	struct peer_request *q;
	struct peer_permit p = rig_permit(rig, 1, 1);

	/* Nothing is said: not for ever. */
	connect_host(&host);
	ck_assert(sim_run_flag(rig->world, &host.closed));
	/* Data, small and large, or an Open before the greeting. */
	for (uint32_t count = 1; count <= 256; count *= 16) {
		const struct frame f = {
		    .op = FRAME_WRITE, .block_count = count, .version = version_make(1, 1)};

		connect_host(&host);
		q = peer_host_send(&host, f, data, false);
		ck_assert(!peer_host_wait(&host, q));
		peer_request_free(q);
	}
	connect_host(&host);
	ck_assert_int_eq(rig_try_open(&host, &p), -E_DISCONNECTED);
	expect_well(1);
}
END_TEST

/* -- control messages ------------------------------------------------------------------------- */

/* Each kind of message, empty, in each state: answered with an error or the end, never a crash. */
START_TEST(test_empty_messages_in_each_state)
{
	static const int kinds[] = {PAVE__V1__CONTROL__BODY_OPEN,
				    PAVE__V1__CONTROL__BODY_PERMIT_UPDATE,
				    PAVE__V1__CONTROL__BODY_CHUNKS,
				    PAVE__V1__CONTROL__BODY_CHANGES,
				    PAVE__V1__CONTROL__BODY_PULL,
				    PAVE__V1__CONTROL__BODY_GATE_CLOSED,
				    PAVE__V1__CONTROL__BODY_LEASE_REQUEST,
				    PAVE__V1__CONTROL__BODY_ERASE,
				    PAVE__V1__CONTROL__BODY_EVIDENCE_NOTICE,
				    PAVE__V1__CONTROL__BODY_VOLUME_DELETE,
				    PAVE__V1__CONTROL__BODY__NOT_SET};
	Pave__V1__Open open = PAVE__V1__OPEN__INIT;
	Pave__V1__PermitUpdate update = PAVE__V1__PERMIT_UPDATE__INIT;
	Pave__V1__Chunks chunks = PAVE__V1__CHUNKS__INIT;
	Pave__V1__Changes changes = PAVE__V1__CHANGES__INIT;
	Pave__V1__Pull pull = PAVE__V1__PULL__INIT;
	Pave__V1__GateClosed closed = PAVE__V1__GATE_CLOSED__INIT;
	Pave__V1__LeaseRequest lease = PAVE__V1__LEASE_REQUEST__INIT;
	Pave__V1__Erase erase = PAVE__V1__ERASE__INIT;
	Pave__V1__EvidenceNotice notice = PAVE__V1__EVIDENCE_NOTICE__INIT;
	Pave__V1__VolumeDelete delete = PAVE__V1__VOLUME_DELETE__INIT;
	void *const bodies[] = {&open,	&update, &chunks, &changes, &pull, &closed,
				&lease, &erase,	 &notice, &delete,  NULL};

	for (uint32_t state = 0; state < 3; state++)
		for (size_t i = 0; i < ARRAY_SIZE(kinds); i++) {
			Pave__V1__Control message = PAVE__V1__CONTROL__INIT;
			int rc;

			message.body_case = kinds[i];
			message.open = bodies[i];
			connect_host(&host);
			if (state > 0)
				ck_assert_int_eq(peer_host_hello(&host, "host", "host"), 0);
			if (state == 2) {
				struct peer_permit p = rig_permit(rig, 1, 1 + i);

				ck_assert_int_eq(rig_try_open(&host, &p), 0);
			}
			rc = peer_host_ask(&host, &message);
			if (state == 2 && (kinds[i] == PAVE__V1__CONTROL__BODY_CHUNKS ||
					   kinds[i] == PAVE__V1__CONTROL__BODY_CHANGES))
				ck_assert_int_eq(rc, 0);
			else
				ck_assert_int_lt(rc, 0);
		}
	ck_assert_uint_eq(rig_chunks_held(&rig->nodes[0]), 0);
	expect_well(1);
}
END_TEST

struct raw {
	struct transport_send send;
	uint32_t crcs[64];
	uint8_t payload[4096];
	bool sent;
};

static void raw_sent(struct transport_send *send, int status)
{
	(void)status;
	container_of(send, struct raw, send)->sent = true;
}

/* A control frame whose CRCs are right and whose message is whatever it is. */
static void send_raw(struct peer_host *h, struct raw *raw, uint32_t size)
{
	raw->sent = false;
	raw->send.frame = (struct frame){.wire_version = FRAME_VERSION,
					 .op = FRAME_CONTROL,
					 .request_id = 77,
					 .payload_size = size,
					 .crc_count = frame_crc_count(size),
					 .crcs = raw->crcs};
	frame_payload_crcs(raw->payload, size, raw->crcs);
	raw->send.iov[0] = (struct iovec){raw->payload, size};
	raw->send.iov_count = size > 0;
	raw->send.done = raw_sent;
	transport_send(h->conn, &raw->send);
	ck_assert(sim_run_flag(rig->world, &raw->sent));
}

/* True messages with a few bytes changed, and bytes that were never a message. */
START_TEST(test_garbage)
{
	static struct raw raw;
	struct peer_permit p = rig_permit(rig, 1, 1);
	Pave__V1__Open open = PAVE__V1__OPEN__INIT;
	Pave__V1__Control message = PAVE__V1__CONTROL__INIT;
	uint8_t good[1024];
	size_t size;

	open.permit = peer_permit_make(&p);
	open.chunk_size = RIG_CHUNK_SIZE;
	message.body_case = PAVE__V1__CONTROL__BODY_OPEN;
	message.open = &open;
	size = pave__v1__control__get_packed_size(&message);
	ck_assert_uint_le(size, sizeof(good));
	pave__v1__control__pack(&message, good);
	peer_permit_free(open.permit);
	for (uint32_t round = 0; round < 3000; round++) {
		uint32_t n = (uint32_t)size;

		if (host.conn == NULL) {
			connect_host(&host);
			ck_assert_int_eq(peer_host_hello(&host, "host", "host"), 0);
		}
		memcpy(raw.payload, good, size);
		if (round % 3 == 0) {
			n = (uint32_t)sim_random_range(rig->world, 0, sizeof(raw.payload));
			for (uint32_t i = 0; i < n; i++)
				raw.payload[i] = (uint8_t)sim_random(rig->world);
		} else {
			for (uint32_t i = 0; i < round % 4 + 1; i++)
				raw.payload[sim_random_below(rig->world, size)] ^=
				    (uint8_t)(1u << sim_random_below(rig->world, 8));
			if (round % 5 == 0)
				n = (uint32_t)sim_random_below(rig->world, size);
		}
		send_raw(&host, &raw, n);
	}
	/* A change that hurts neither permit nor sense may open the volume: nothing more. */
	ck_assert_uint_eq(rig_chunks_held(&rig->nodes[0]), 0);
	ck_assert_uint_le(store_generation(rig->nodes[0].store, RIG_VOLUME), 1);
	expect_well(2);
}
END_TEST

static uint32_t any_of(const uint32_t *values, size_t count)
{
	return values[sim_random_below(rig->world, count)];
}

/* Data requests whose fields are anything that the decoder lets through. */
START_TEST(test_random_requests)
{
	static const uint32_t chunks[] = {0, 1, 2, UINT32_MAX - 1, UINT32_MAX};
	static const uint32_t blocks[] = {0, 1, 4095, 16383, 16384, 262143};
	static const uint32_t counts[] = {1, 2, 15, 16, 17, 255, 256};
	static const uint8_t ops[] = {FRAME_WRITE, FRAME_READ, FRAME_ZERO, FRAME_WATERMARK,
				      FRAME_FETCH};
	static const uint32_t generations[] = {0, 1, 2, GENERATION_MAX};
	static struct peer_request *q[16];
	struct sim_world *w = rig->world;

	for (uint32_t round = 0; round < 600; round++) {
		if (round % 50 == 0)
			expect_well(1);
		for (uint32_t i = 0; i < ARRAY_SIZE(q); i++) {
			struct frame f = {
			    .op = ops[sim_random_below(w, ARRAY_SIZE(ops))],
			    .chunk = any_of(chunks, ARRAY_SIZE(chunks)),
			    .block = any_of(blocks, ARRAY_SIZE(blocks)),
			    .version = version_make(any_of(generations, 4), 1 + round),
			    .watermark = version_make(any_of(generations, 4), round),
			};

			if (f.op == FRAME_WRITE || f.op == FRAME_READ || f.op == FRAME_ZERO) {
				f.block_count = any_of(counts, ARRAY_SIZE(counts));
				f.block = MIN(f.block, 262144 - f.block_count);
			}
			if (f.op == FRAME_ZERO && sim_chance(w, 1, 2))
				f.flags = FRAME_F_DISCARD;
			q[i] = peer_host_send(&host, f, f.op == FRAME_WRITE ? data : NULL,
					      sim_chance(w, 1, 8));
		}
		for (uint32_t i = 0; i < ARRAY_SIZE(q); i++) {
			peer_host_wait(&host, q[i]);
			ck_assert_int_ne(q[i]->status, -E_DISCONNECTED);
			peer_request_free(q[i]);
		}
	}
}
END_TEST

/* -- floods ----------------------------------------------------------------------------------- */

START_TEST(test_sessions_are_bounded)
{
	static struct peer_host many[NODE_SESSIONS_MAX + 2];
	uint32_t inflight = 0, i;

	for (i = 0; i < NODE_SESSIONS_MAX; i++) {
		peer_host_init(&many[i], sim_reactor(rig->host_process), rig->host_transport,
			       rig->wait, &rig->demo);
		ck_assert_int_eq(peer_host_connect(&many[i], rig->nodes[0].name), 0);
		ck_assert_int_eq(peer_host_hello(&many[i], "host", "host"), 0);
		ck_assert_uint_ge(many[i].inflight_max, NODE_INFLIGHT_MIN);
		inflight += many[i].inflight_max;
	}
	ck_assert_uint_le(inflight, NODE_REQUESTS_MAX);
	ck_assert_uint_eq(stats().sessions, NODE_SESSIONS_MAX);
	peer_host_init(&many[i], sim_reactor(rig->host_process), rig->host_transport, rig->wait,
		       &rig->demo);
	if (peer_host_connect(&many[i], rig->nodes[0].name) == 0)
		ck_assert(sim_run_flag(rig->world, &many[i].closed));
	ck_assert_uint_eq(stats().sessions, NODE_SESSIONS_MAX);
	peer_host_close(&many[7]);
	rig_run_ms(rig, 100);
	ck_assert_uint_eq(stats().sessions, NODE_SESSIONS_MAX - 1);
	expect_well(1);
	for (i = 0; i < NODE_SESSIONS_MAX + 1; i++)
		peer_host_close(&many[i]);
	rig_run_ms(rig, 1000);
	ck_assert_uint_eq(stats().sessions, 1);
}
END_TEST

/* Whoever is greeted and opens nothing keeps nobody out for ever; who has something open stays. */
START_TEST(test_who_opens_nothing_makes_room)
{
	static struct peer_host many[NODE_SESSIONS_MAX], late;
	struct peer_permit p;

	for (uint32_t i = 0; i < NODE_SESSIONS_MAX; i++) {
		peer_host_init(&many[i], sim_reactor(rig->host_process), rig->host_transport,
			       rig->wait, &rig->demo);
		ck_assert_int_eq(peer_host_connect(&many[i], rig->nodes[0].name), 0);
		ck_assert_int_eq(peer_host_hello(&many[i], "host", "host"), 0);
	}
	p = rig_permit(rig, 1, 1);
	ck_assert_int_eq(rig_try_open(&many[0], &p), 0);
	rig_run_ms(rig, NODE_GREETED_MS + 1000);
	ck_assert_uint_eq(stats().sessions, NODE_SESSIONS_MAX);
	peer_host_init(&late, sim_reactor(rig->host_process), rig->host_transport, rig->wait,
		       &rig->demo);
	if (peer_host_connect(&late, rig->nodes[0].name) == 0)
		ck_assert(sim_run_flag(rig->world, &late.closed));
	rig_run_ms(rig, 100);
	ck_assert_uint_eq(stats().sessions, NODE_SESSIONS_MAX - 1);
	ck_assert(!many[0].closed && many[1].closed && !many[2].closed);
	expect_well(2);
	ck_assert_uint_eq(stats().sessions, NODE_SESSIONS_MAX);
	peer_host_close(&late);
	for (uint32_t i = 0; i < NODE_SESSIONS_MAX; i++)
		peer_host_close(&many[i]);
	rig_run_ms(rig, 1000);
	ck_assert_uint_eq(stats().sessions, 1);
}
END_TEST

/* One that sends more than it was told loses its connection, and nobody else anything. */
START_TEST(test_too_many_requests)
{
	static struct peer_request *q[4 * NODE_INFLIGHT_MAX];
	uint32_t refused = 0;

	rig_open(rig, &host, 0, 1);
	sim_disk_set_slowness(rig->nodes[0].sim_disk, 1000);
	for (uint32_t i = 0; i < PEER_REQUESTS - 1; i++)
		q[i] = peer_host_send(&host,
				      (struct frame){.op = FRAME_WRITE,
						     .chunk = 1,
						     .block = i,
						     .block_count = 1,
						     .version = version_make(1, i + 1)},
				      data, false);
	for (uint32_t i = 0; i < PEER_REQUESTS - 1; i++) {
		refused += !peer_host_wait(&host, q[i]);
		peer_request_free(q[i]);
	}
	ck_assert_uint_gt(refused, 0);
	ck_assert(host.closed);
	ck_assert_uint_eq(stats().dropped, 1);
	sim_disk_set_slowness(rig->nodes[0].sim_disk, 1);
	rig_run_ms(rig, 2000);
	ck_assert_uint_eq(stats().sessions, 0);
	expect_well(2);
}
END_TEST

/* More large writes than there is memory for: the connection ends, what was answered is there. */
START_TEST(test_too_many_large_writes)
{
	static struct peer_request *q[600];
	uint32_t lost = 0;

	rig_open(rig, &host, 0, 1);
	sim_disk_set_slowness(rig->nodes[0].sim_disk, 1000);
	for (uint32_t i = 0; i < 600; i++)
		q[i] = peer_host_send(&host,
				      (struct frame){.op = FRAME_WRITE,
						     .chunk = 1,
						     .block_count = 256,
						     .version = version_make(1, i + 1)},
				      data, false);
	for (uint32_t i = 0; i < 600; i++) {
		lost += !peer_host_wait(&host, q[i]);
		peer_request_free(q[i]);
	}
	ck_assert_uint_gt(lost, 0);
	ck_assert_uint_le(stats().memory_bytes, NODE_SHARD_MEMORY_MAX);
	sim_disk_set_slowness(rig->nodes[0].sim_disk, 1);
	rig_run_ms(rig, 5000);
	expect_well(2);
}
END_TEST

/* Connections that come and go with requests in flight; then the node stops with many of them. */
START_TEST(test_connections_go_at_any_moment)
{
	for (uint32_t steps = 0; steps < 80; steps++) {
		struct peer_request *q[20];

		rig_open(rig, &host, 0, 1 + steps);
		for (uint32_t i = 0; i < 20; i++) {
			const struct frame f = {
			    .op = i % 4 == 3 ? FRAME_READ : FRAME_WRITE,
			    .chunk = 1,
			    .block = i * 100,
			    .block_count = i % 2 ? 1 : 100,
			    .version = i % 4 == 3 ? 0 : version_make(1 + steps, i + 1)};

			q[i] = peer_host_send(&host, f, i % 4 == 3 ? NULL : data, false);
		}
		for (uint32_t i = 0; i < steps; i++)
			ck_assert(sim_step(rig->world));
		if (steps % 2 == 0)
			sim_net_disconnect(rig->host_process, rig->nodes[0].process);
		else if (host.conn != NULL)
			transport_close(host.conn);
		for (uint32_t i = 0; i < 20; i++) {
			peer_host_wait(&host, q[i]);
			peer_request_free(q[i]);
		}
		rig_run_ms(rig, 1000);
		ck_assert_uint_eq(stats().sessions, 0);
		peer_host_close(&host);
	}
	expect_well(100);
}
END_TEST

/* -- the run table ---------------------------------------------------------------------------- */

START_TEST(test_run_table)
{
	static uint8_t payload[IO_SIZE_MAX];
	static struct node_run runs[RUN_TABLE_RUNS_MAX], got[RUN_TABLE_RUNS_MAX];
	uint32_t count = 0, data_blocks = 0, block = 0, got_count, size;

	for (uint32_t i = 0; i < 60; i++) {
		const uint32_t n = 1 + i % 7;

		runs[count++] = (struct node_run){block, n, version_make(1, i + 1), i % 5 == 0};
		data_blocks += i % 5 == 0 ? 0 : n;
		block += n + i % 3;
	}
	size = (1 + data_blocks) * BLOCK_SIZE;
	node_run_table_encode(runs, count, payload);
	ck_assert_int_eq(node_run_table_decode(payload, size, 10000, got, &got_count), 0);
	ck_assert_uint_eq(got_count, count);
	for (uint32_t i = 0; i < count; i++) {
		ck_assert_uint_eq(got[i].block, runs[i].block);
		ck_assert_uint_eq(got[i].block_count, runs[i].block_count);
		ck_assert_uint_eq(got[i].version, runs[i].version);
		ck_assert(got[i].zeroes == runs[i].zeroes);
	}
	/* What does not fit together is refused. */
	ck_assert_int_eq(node_run_table_decode(payload, size + BLOCK_SIZE, 10000, got, &got_count),
			 -E_BAD_FRAME);
	ck_assert_int_eq(node_run_table_decode(payload, size - BLOCK_SIZE, 10000, got, &got_count),
			 -E_BAD_FRAME);
	ck_assert_int_eq(node_run_table_decode(payload, size - 1, 10000, got, &got_count),
			 -E_BAD_FRAME);
	ck_assert_int_eq(node_run_table_decode(payload, size, block - 5, got, &got_count),
			 -E_BAD_FRAME);
	ck_assert_int_eq(node_run_table_decode(payload, 0, 10000, got, &got_count), -E_BAD_FRAME);
	runs[4].block = runs[3].block;
	node_run_table_encode(runs, count, payload);
	ck_assert_int_eq(node_run_table_decode(payload, size, 10000, got, &got_count),
			 -E_BAD_FRAME);
	node_run_table_encode(runs, 0, payload);
	ck_assert_int_eq(node_run_table_decode(payload, BLOCK_SIZE, 10000, got, &got_count), 0);
	ck_assert_uint_eq(got_count, 0);
	/* Every single bit of the head and the runs matters, or is within bounds all the same. */
	runs[4].block = runs[3].block + runs[3].block_count;
	node_run_table_encode(runs, count, payload);
	for (uint32_t bit = 0; bit < 8 * BLOCK_SIZE; bit++) {
		payload[bit / 8] ^= (uint8_t)(1u << (bit % 8));
		if (node_run_table_decode(payload, size, 10000, got, &got_count) == 0)
			for (uint32_t i = 0; i < got_count; i++)
				ck_assert_uint_le(got[i].block + got[i].block_count, 10000);
		payload[bit / 8] ^= (uint8_t)(1u << (bit % 8));
	}
}
END_TEST

/* -- buffers ---------------------------------------------------------------------------------- */

START_TEST(test_buffers)
{
	static struct node_buffer held[4096];
	static uint32_t sizes[4096];
	struct sim_world *w = rig->world;
	struct node_buffers b;
	uint32_t count = 0;

	ck_assert_int_eq(node_buffers_init(&b, sim_reactor(rig->host_process), 8 * IO_SIZE_MAX), 0);
	for (uint32_t round = 0; round < 200000; round++) {
		if (count < ARRAY_SIZE(held) && sim_chance(w, 11, 20)) {
			const uint32_t size =
			    (uint32_t)sim_random_range(w, 1, 1u << sim_random_range(w, 12, 20));
			struct node_buffer got = node_buffers_get(&b, size);

			if (got.data == NULL)
				continue;
			ck_assert_uint_eq((uintptr_t)got.data % BLOCK_SIZE, 0);
			/* Nobody else's: the two ends carry a mark. */
			memcpy(got.data, &round, MIN(size, sizeof(round)));
			got.data[size - 1] = (uint8_t)round;
			held[count] = got;
			sizes[count++] = size;
		} else if (count > 0) {
			const uint32_t i = (uint32_t)sim_random_below(w, count);

			if (sizes[i] >= sizeof(uint32_t) + 1) {
				uint32_t mark;

				memcpy(&mark, held[i].data, sizeof(mark));
				ck_assert_uint_eq((uint8_t)mark, held[i].data[sizes[i] - 1]);
			}
			node_buffers_put(&b, &held[i]);
			ck_assert_ptr_null(held[i].data);
			held[i] = held[--count];
			sizes[i] = sizes[count];
		}
		ck_assert_uint_le(b.used_bytes, 8 * IO_SIZE_MAX);
	}
	while (count > 0)
		node_buffers_put(&b, &held[--count]);
	ck_assert_uint_eq(b.used_bytes, 0);
	/* All of it can be had again, in one size. */
	for (uint32_t i = 0; i < 8; i++)
		ck_assert_ptr_nonnull(node_buffers_get(&b, IO_SIZE_MAX).data);
	ck_assert_ptr_null(node_buffers_get(&b, 1).data);
	node_buffers_deinit(&b);
}
END_TEST

static Suite *suite(void)
{
	Suite *s = suite_create("node_input");
	TCase *t = tcase_create("input");

	tcase_add_checked_fixture(t, setup, teardown);
	tcase_add_test(t, test_hello);
	tcase_add_test(t, test_no_hello);
	tcase_add_test(t, test_empty_messages_in_each_state);
	tcase_add_test(t, test_garbage);
	tcase_add_test(t, test_random_requests);
	tcase_add_test(t, test_sessions_are_bounded);
	tcase_add_test(t, test_who_opens_nothing_makes_room);
	tcase_add_test(t, test_too_many_requests);
	tcase_add_test(t, test_too_many_large_writes);
	tcase_add_test(t, test_connections_go_at_any_moment);
	tcase_add_test(t, test_run_table);
	tcase_add_test(t, test_buffers);
	tcase_set_timeout(t, 180);
	suite_add_tcase(s, t);
	return s;
}

int main(void)
{
	SRunner *runner = srunner_create(suite());
	int failed;

	srunner_run_all(runner, CK_NORMAL);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed != 0;
}
