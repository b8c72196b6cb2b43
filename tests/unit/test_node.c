/* The node's data path and gates: what is served, and what is refused by the node itself, with
 * nothing stored. On simulated seams; the same against a real process:
 * tests/integration/node_refuses.c. */
#include <check.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/crc32c.h"
#include "engine/evidence/schema.h"
#include "tests/unit/test_node_rig.h"

static struct rig *rig;
static struct peer_host host, other;
static uint8_t *data, *back;

static void setup(void)
{
	rig = rig_create(1);
	data = aligned_alloc(BLOCK_SIZE, IO_SIZE_MAX);
	back = aligned_alloc(BLOCK_SIZE, IO_SIZE_MAX);
	peer_fill(data, IO_BLOCKS_MAX, 1);
	memset(&host, 0, sizeof(host));
	memset(&other, 0, sizeof(other));
}

static void teardown(void)
{
	peer_host_close(&host);
	peer_host_close(&other);
	rig_destroy(rig);
	free(data);
	free(back);
}

static struct node_stats stats_of(uint32_t node)
{
	struct node_stats stats;

	node_shard_get_stats(rig->nodes[node].shard, &stats);
	return stats;
}

static version_t v(generation_t generation, uint64_t seq)
{
	return version_make(generation, seq);
}

/* A write is refused with this code, and the store has not heard of it. */
static void expect_refused(struct peer_host *h, generation_t generation, int code)
{
	struct store_stats before, after;

	store_get_stats(rig->nodes[0].store, &before);
	ck_assert_int_eq(peer_host_write(h, 3, 0, 1, v(generation, 900), data), code);
	ck_assert_int_eq(peer_host_write(h, 3, 64, 32, v(generation, 901), data), code);
	ck_assert_int_eq(peer_host_zero(h, 3, 0, 1, v(generation, 902), false), code);
	store_get_stats(rig->nodes[0].store, &after);
	ck_assert_uint_eq(before.writes, after.writes);
	ck_assert_uint_eq(before.blocks_written, after.blocks_written);
}

/* -- served ----------------------------------------------------------------------------------- */

START_TEST(test_write_and_read)
{
	static const uint32_t counts[] = {1, 4, 5, 16, 17, 32, 64, 200, 256};
	block_no_t block = 10;

	rig_open(rig, &host, 0, 1);
	for (size_t i = 0; i < ARRAY_SIZE(counts); i++) {
		ck_assert_int_eq(
		    peer_host_write(&host, 2, block, counts[i], v(1, i + 1), data + 4096 * 0), 0);
		memset(back, 0xee, IO_SIZE_MAX);
		ck_assert_int_eq(peer_host_read(&host, 2, block, counts[i], back), 0);
		ck_assert_mem_eq(back, data, counts[i] * BLOCK_SIZE);
		block += counts[i];
	}
	ck_assert_uint_eq(stats_of(0).writes, ARRAY_SIZE(counts));
	ck_assert_uint_eq(stats_of(0).reads, ARRAY_SIZE(counts));
}
END_TEST

static struct frame traced(struct frame f, const void *payload)
{
	struct peer_request *q;
	struct frame reply;

	f.flags |= FRAME_F_TRACE;
	q = peer_host_send(&host, f, payload, false);
	ck_assert(peer_host_wait(&host, q));
	reply = q->reply;
	peer_request_free(q);
	ck_assert_int_eq(reply.status, 0);
	return reply;
}

/* The answer says how long each step took, and only when that was asked for. */
START_TEST(test_times_are_told)
{
	const struct frame write = {
	    .op = FRAME_WRITE, .chunk = 2, .block = 7, .block_count = 2, .version = v(1, 1)};
	const struct frame read = {.op = FRAME_READ, .chunk = 2, .block = 7, .block_count = 2};
	struct peer_request *q;
	struct frame reply;

	rig_open(rig, &host, 0, 1);
	reply = traced(write, data);
	ck_assert_uint_eq(reply.flags, FRAME_F_REPLY | FRAME_F_TRACE);
	ck_assert_uint_gt(reply.block, 1000); /* the simulated disk takes its time, in ns */
	ck_assert_uint_lt((uint64_t)reply.chunk + reply.block_count, reply.block);
	reply = traced(read, NULL);
	ck_assert_uint_eq(reply.flags, FRAME_F_REPLY | FRAME_F_TRACE);
	ck_assert_uint_gt(reply.block, 1000);
	q = peer_host_send(&host, read, NULL, false);
	ck_assert(peer_host_wait(&host, q));
	ck_assert_uint_eq(q->reply.flags, FRAME_F_REPLY);
	ck_assert_uint_eq(q->reply.block, 0);
	peer_request_free(q);
}
END_TEST

START_TEST(test_holes_zeroes_and_discard)
{
	const uint8_t *zeroes = calloc(8, BLOCK_SIZE);

	rig_open(rig, &host, 0, 1);
	ck_assert_int_eq(peer_host_read(&host, 5, 100, 8, back), 0);
	ck_assert_mem_eq(back, zeroes, 8 * BLOCK_SIZE);
	ck_assert_int_eq(peer_host_write(&host, 5, 100, 8, v(1, 1), data), 0);
	ck_assert_int_eq(peer_host_zero(&host, 5, 101, 2, v(1, 2), false), 0);
	ck_assert_int_eq(peer_host_zero(&host, 5, 105, 2, v(1, 3), true), 0);
	ck_assert_int_eq(peer_host_read(&host, 5, 100, 8, back), 0);
	memset(data + BLOCK_SIZE, 0, 2 * BLOCK_SIZE);
	memset(data + 5 * BLOCK_SIZE, 0, 2 * BLOCK_SIZE);
	ck_assert_mem_eq(back, data, 8 * BLOCK_SIZE);
	free((void *)(uintptr_t)zeroes);
}
END_TEST

/* Inverts a bit of the only copy of a block. */
static void rot(uint32_t node, const uint8_t *block)
{
	struct sim_disk *disk = rig->nodes[node].sim_disk;
	uint64_t at = 0;

	for (; at < rig->nodes[node].disk->size_bytes; at += BLOCK_SIZE) {
		sim_disk_peek(disk, at, back, BLOCK_SIZE);
		if (memcmp(back, block, BLOCK_SIZE) == 0)
			break;
	}
	ck_assert_uint_lt(at, rig->nodes[node].disk->size_bytes);
	back[99] ^= 4;
	sim_disk_poke(disk, at, back, BLOCK_SIZE);
}

/* The host that has the volume open is told, and only that one; until it has written it again. */
START_TEST(test_damage_is_told)
{
	struct peer_permit p = rig_permit(rig, 1, 1);
	uint32_t told;

	rig_open(rig, &host, 0, 1);
	rig_host(rig, &other, 0);
	p.volume = 77;
	ck_assert_int_eq(rig_try_open(&other, &p), 0);
	ck_assert_int_eq(peer_host_write(&host, 2, 10, 20, v(1, 1), data), 0);
	rot(0, data + 5 * BLOCK_SIZE);
	rot(0, data + 6 * BLOCK_SIZE);
	store_scrub(rig->nodes[0].store);
	rig_run_ms(rig, 2000);
	ck_assert_uint_ge(host.damage_count, 1);
	ck_assert_uint_eq(host.damage.chunk, 2);
	ck_assert_uint_eq(host.damage.block, 15);
	ck_assert_uint_eq(host.damage.block_count, 2);
	ck_assert_uint_eq(other.damage_count, 0);
	/* Again, for nothing was done about it. */
	told = host.damage_count;
	rig_run_ms(rig, 3500);
	ck_assert_uint_gt(host.damage_count, told);
	ck_assert_int_eq(peer_host_write(&host, 2, 15, 2, v(1, 2), data + 5 * BLOCK_SIZE), 0);
	rig_run_ms(rig, 1500);
	told = host.damage_count;
	rig_run_ms(rig, 10000);
	ck_assert_uint_eq(host.damage_count, told);
}
END_TEST

/* Whoever opens the volume next is told. */
START_TEST(test_damage_waits_for_a_host)
{
	rig_open(rig, &host, 0, 1);
	ck_assert_int_eq(peer_host_write(&host, 2, 10, 20, v(1, 1), data), 0);
	peer_host_close(&host);
	rot(0, data + 5 * BLOCK_SIZE);
	store_scrub(rig->nodes[0].store);
	rig_run_ms(rig, 5000);
	rig_open(rig, &other, 0, 2);
	rig_run_ms(rig, 4000);
	ck_assert_uint_ge(other.damage_count, 1);
	ck_assert_uint_eq(other.damage.block, 15);
}
END_TEST

static Pave__V1__ChunksReply *ask_chunks(struct peer_host *h, uint32_t from, uint32_t max)
{
	Pave__V1__Chunks ask = PAVE__V1__CHUNKS__INIT;
	Pave__V1__Control message = PAVE__V1__CONTROL__INIT;

	ask.from = from;
	ask.max = max;
	message.body_case = PAVE__V1__CONTROL__BODY_CHUNKS;
	message.chunks = &ask;
	ck_assert_int_eq(peer_host_ask(h, &message), 0);
	return h->call_reply->chunks_reply;
}

static Pave__V1__ChangesReply *ask_changes(struct peer_host *h, uint32_t chunk, version_t above)
{
	Pave__V1__Changes ask = PAVE__V1__CHANGES__INIT;
	Pave__V1__Control message = PAVE__V1__CONTROL__INIT;

	ask.chunk = chunk;
	ask.above = above;
	message.body_case = PAVE__V1__CONTROL__BODY_CHANGES;
	message.changes = &ask;
	ck_assert_int_eq(peer_host_ask(h, &message), 0);
	return h->call_reply->changes_reply;
}

START_TEST(test_chunks_and_changes)
{
	Pave__V1__ChunksReply *chunks;
	Pave__V1__ChangesReply *changes;

	rig_open(rig, &host, 0, 1);
	ck_assert_uint_eq(ask_chunks(&host, 0, 0)->n_chunks, 0);
	for (chunk_no_t c = 1; c < 6; c += 2)
		ck_assert_int_eq(peer_host_write(&host, c, 8, 4, v(1, c), data), 0);
	ck_assert_int_eq(peer_host_write(&host, 3, 20, 2, v(1, 9), data), 0);
	ck_assert_int_eq(peer_host_watermark(&host, 3, v(1, 4)), 0);
	chunks = ask_chunks(&host, 0, 2);
	ck_assert_uint_eq(chunks->n_chunks, 2);
	ck_assert(chunks->more);
	ck_assert_uint_eq(chunks->chunks[0]->chunk, 1);
	ck_assert_uint_eq(chunks->chunks[1]->chunk, 3);
	ck_assert_uint_eq(chunks->chunks[1]->watermark, v(1, 4));
	ck_assert_uint_eq(chunks->chunks[1]->newest, v(1, 9));
	chunks = ask_chunks(&host, chunks->next, 2);
	ck_assert_uint_eq(chunks->n_chunks, 1);
	ck_assert(!chunks->more);
	ck_assert_uint_eq(chunks->chunks[0]->chunk, 5);
	changes = ask_changes(&host, 3, v(1, 4));
	ck_assert_uint_eq(changes->n_changes, 1);
	ck_assert_uint_eq(changes->changes[0]->block, 20);
	ck_assert_uint_eq(changes->changes[0]->block_count, 2);
	ck_assert_uint_eq(changes->changes[0]->version, v(1, 9));
	ck_assert(!changes->more);
}
END_TEST

/* Many requests at once, as many as it is told; all are answered. */
START_TEST(test_inflight)
{
	static struct peer_request *q[2048];
	uint32_t count;

	rig_open(rig, &host, 0, 1);
	count = host.inflight_max;
	ck_assert_uint_eq(count, NODE_INFLIGHT_MAX);
	for (uint32_t i = 0; i < count; i++)
		q[i] = peer_host_send(&host,
				      (struct frame){.op = FRAME_WRITE,
						     .chunk = 1,
						     .block = i % 100,
						     .block_count = 1,
						     .version = v(1, i + 1)},
				      data, false);
	for (uint32_t i = 0; i < count; i++) {
		ck_assert(peer_host_wait(&host, q[i]));
		ck_assert_int_eq(q[i]->status, 0);
		peer_request_free(q[i]);
	}
	/* Reads of 1 MiB, over the memory that there is: they wait for each other. */
	for (uint32_t i = 0; i < 200; i++)
		q[i] = peer_host_send(
		    &host, (struct frame){.op = FRAME_READ, .chunk = 1, .block_count = 256}, NULL,
		    false);
	for (uint32_t i = 0; i < 200; i++) {
		ck_assert(peer_host_wait(&host, q[i]));
		ck_assert_int_eq(q[i]->status, 0);
		peer_request_free(q[i]);
	}
	ck_assert_uint_gt(stats_of(0).waited_memory, 0);
	ck_assert_uint_le(stats_of(0).memory_bytes, NODE_SHARD_MEMORY_MAX);
	ck_assert_uint_eq(stats_of(0).dropped, 0);
}
END_TEST

/* One session's many reads do not keep another's waiting. */
START_TEST(test_sessions_take_turns)
{
	static struct peer_request *many[500];
	struct peer_permit p;
	struct peer_request *q;

	rig_open(rig, &host, 0, 1);
	rig_host(rig, &other, 0);
	p = rig_permit(rig, 1, 1);
	p.volume = RIG_VOLUME + 1;
	ck_assert_int_eq(rig_try_open(&other, &p), 0);
	sim_disk_set_slowness(rig->nodes[0].sim_disk, 100);
	ck_assert_int_eq(peer_host_write(&host, 1, 0, 256, v(1, 1), data), 0);
	for (uint32_t i = 0; i < ARRAY_SIZE(many); i++)
		many[i] = peer_host_send(
		    &host, (struct frame){.op = FRAME_READ, .chunk = 1, .block_count = 256}, NULL,
		    false);
	for (uint32_t i = 0; i < 200; i++)
		ck_assert(sim_step(rig->world));
	q = peer_host_send(&other, (struct frame){.op = FRAME_READ, .chunk = 1, .block_count = 256},
			   NULL, false);
	ck_assert(peer_host_wait(&other, q));
	ck_assert_int_eq(q->status, 0);
	peer_request_free(q);
	ck_assert(!many[ARRAY_SIZE(many) - 1]->done);
	for (uint32_t i = 0; i < ARRAY_SIZE(many); i++) {
		ck_assert(peer_host_wait(&host, many[i]));
		ck_assert_int_eq(many[i]->status, 0);
		peer_request_free(many[i]);
	}
	ck_assert_uint_le(stats_of(0).memory_bytes, 2 * NODE_TX_SESSION_MAX);
}
END_TEST

/* -- refused ---------------------------------------------------------------------------------- */

START_TEST(test_no_volume_open)
{
	rig_host(rig, &host, 0);
	expect_refused(&host, 1, -E_NO_PERMIT);
}
END_TEST

START_TEST(test_permit_expires)
{
	struct peer_permit p;

	rig_open(rig, &host, 0, 1);
	ck_assert_int_eq(peer_host_write(&host, 1, 0, 1, v(1, 1), data), 0);
	/* It ends early by the clock bound. */
	rig_run_ms(rig, PERMIT_LIFETIME_MS - CLOCK_BOUND_NS / NS_PER_MS + 1);
	expect_refused(&host, 1, -E_PERMIT_EXPIRED);
	ck_assert_int_eq(peer_host_read(&host, 1, 0, 1, back), -E_PERMIT_EXPIRED);
	ck_assert_int_eq(peer_host_watermark(&host, 1, v(1, 1)), -E_PERMIT_EXPIRED);
	ck_assert_uint_eq(rig_chunks_held(&rig->nodes[0]), 1);
	/* The next one opens the gate again. */
	p = rig_permit(rig, 1, 2);
	ck_assert_int_eq(rig_update(&host, &p), 0);
	ck_assert_int_eq(peer_host_write(&host, 1, 0, 1, v(1, 2), data), 0);
	ck_assert_uint_gt(stats_of(0).refused_gate, 0);
}
END_TEST

/* Keeps the permit fresh while ms pass. */
static void run_with_permits(uint64_t ms, uint64_t *serial)
{
	for (uint64_t done = 0; done < ms; done += 1000) {
		struct peer_permit p = rig_permit(rig, 1, ++*serial);

		rig_update(&host, &p);
		rig_run_ms(rig, 1000);
	}
}

START_TEST(test_lease_expires)
{
	uint64_t serial = 1;

	rig_open(rig, &host, 0, 1);
	rig->pd.silent = true;
	run_with_permits(PERMIT_LIFETIME_MS + PERMIT_RENEW_MS, &serial);
	ck_assert_int_eq(rig->nodes[0].state.why, -E_LEASE_EXPIRED);
	expect_refused(&host, 1, -E_LEASE_EXPIRED);
	ck_assert_uint_eq(host.gate_closed_count, 1);
	ck_assert_int_eq(host.gate_closed_why, -E_LEASE_EXPIRED);
	rig->pd.silent = false;
	rig_wait_lease(&rig->nodes[0], true);
	run_with_permits(1000, &serial);
	ck_assert_int_eq(peer_host_write(&host, 1, 0, 1, v(1, 1), data), 0);
}
END_TEST

START_TEST(test_site_is_withdrawn)
{
	const int64_t now = reactor_wall_ns(sim_reactor(rig->pd_process));
	char *next = rig_revocations(rig, 2, "par", now - (int64_t)NS_PER_S);
	struct peer_permit p;

	rig_open(rig, &host, 0, 1);
	/* Whatever the driver goes on saying. */
	peer_pd_notice(&rig->pd, next);
	ck_assert(sim_run_flag(rig->world, &host.gate_closed));
	ck_assert_int_eq(host.gate_closed_why, -E_REVOKED);
	expect_refused(&host, 1, -E_REVOKED);
	rig->pd.revocations = next;
	rig_run_ms(rig, 20000);
	ck_assert_int_eq(rig->nodes[0].state.why, -E_REVOKED);
	p = rig_permit(rig, 1, 2);
	ck_assert_int_eq(rig_update(&host, &p), -E_REVOKED);
	expect_refused(&host, 1, -E_REVOKED);
	ck_assert_uint_eq(host.gate_closed_count, 1);
	/* The other site is as it was. */
	ck_assert_uint_ne(rig->nodes[1].state.deadline_ns, 0);
	rig->pd.revocations = rig->revocations;
	free(next);
}
END_TEST

START_TEST(test_not_in_permit)
{
	struct peer_permit p;

	rig_open(rig, &host, 0, 1);
	p = rig_permit(rig, 1, 2);
	p.nodes[0] = "n9";
	ck_assert_int_eq(rig_update(&host, &p), -E_NOT_IN_PERMIT);
	expect_refused(&host, 1, -E_NOT_IN_PERMIT);
	ck_assert(sim_run_flag(rig->world, &host.gate_closed));
	ck_assert_int_eq(host.gate_closed_why, -E_NOT_IN_PERMIT);
	/* The older permit does not come back. */
	p = rig_permit(rig, 1, 1);
	ck_assert_int_eq(rig_update(&host, &p), -E_ROLLBACK);
	expect_refused(&host, 1, -E_NOT_IN_PERMIT);
	/* Nor does another host get in with one that does not name the node, or its site. */
	rig_host(rig, &other, 0);
	p = rig_permit(rig, 2, 1);
	p.nodes[0] = "n9";
	ck_assert_int_eq(rig_try_open(&other, &p), -E_NOT_IN_PERMIT);
	p = rig_permit(rig, 2, 1);
	p.sites[0] = "rbx";
	ck_assert_int_eq(rig_try_open(&other, &p), -E_NOT_IN_PERMIT);
	expect_refused(&other, 2, -E_NO_PERMIT);
	/* What was refused has fenced nobody. */
	ck_assert_uint_eq(store_generation(rig->nodes[0].store, RIG_VOLUME), 1);
}
END_TEST

START_TEST(test_certificate_versions_differ)
{
	struct peer_permit p;

	rig_open(rig, &host, 0, 1);
	p = rig_permit(rig, 1, 2);
	p.site_version = 2;
	ck_assert_int_eq(rig_update(&host, &p), -E_STALE_EVIDENCE);
	expect_refused(&host, 1, -E_STALE_EVIDENCE);
}
END_TEST

START_TEST(test_forged_permits)
{
	struct peer_permit p;
	Pave__V1__Signed *s;
	struct demo stranger;
	struct error err;

	rig_host(rig, &host, 0);
	ck_assert_int_eq(demo_init(&stranger, NULL, &err), 0);
	p = rig_permit(rig, 1, 1);
	p.key = demo_key(&stranger, DEMO_PLACEMENT);
	ck_assert_int_eq(rig_try_open(&host, &p), -E_BAD_SIGNATURE);
	p.key = demo_key(&rig->demo, DEMO_AUTHORITY);
	ck_assert_int_eq(rig_try_open(&host, &p), -E_BAD_SIGNATURE);
	p.key = NULL;
	s = peer_permit_make(&p);
	s->payload.data[s->payload.len / 2] ^= 1;
	ck_assert_int_eq(peer_host_open(&host, s, RIG_CHUNK_SIZE), -E_BAD_SIGNATURE);
	peer_permit_free(s);
	p.demo = &stranger;
	p.key = demo_key(&rig->demo, DEMO_PLACEMENT);
	ck_assert_int_eq(rig_try_open(&host, &p), -E_WRONG_CLUSTER);
	ck_assert_int_eq(peer_host_open(&host, NULL, RIG_CHUNK_SIZE), -E_NO_PERMIT);
	p = rig_permit(rig, 1, 1);
	p.issued_at -= 20 * (int64_t)NS_PER_S;
	ck_assert_int_eq(rig_try_open(&host, &p), -E_PERMIT_EXPIRED);
	expect_refused(&host, 1, -E_NO_PERMIT);
	ck_assert_uint_eq(rig_chunks_held(&rig->nodes[0]), 0);
	ck_assert_uint_eq(store_generation(rig->nodes[0].store, RIG_VOLUME), 0);
	demo_deinit(&stranger);
}
END_TEST

/* Nor does it come into force again when this machine's clock steps back, before the next lease
 * shows it. */
START_TEST(test_an_expired_permit_stays_expired)
{
	const struct peer_permit p = rig_permit(rig, 1, 1);

	rig_host(rig, &host, 0);
	ck_assert_int_eq(rig_try_open(&host, &p), 0);
	rig_run_ms(rig, PERMIT_LIFETIME_MS + 1);
	rig->nodes[0].process->wall_offset_ns = -(int64_t)(PERMIT_LIFETIME_MS * NS_PER_MS);
	ck_assert_int_eq(rig_update(&host, &p), -E_PERMIT_EXPIRED);
	expect_refused(&host, 1, -E_PERMIT_EXPIRED);
	rig_host(rig, &other, 0);
	ck_assert_int_eq(rig_try_open(&other, &p), -E_PERMIT_EXPIRED);
	ck_assert_uint_ne(rig->nodes[0].state.deadline_ns, 0);
}
END_TEST

/* The driver's clock leapt forward after it was measured: a receipt that began before its permit
 * would contradict the ledger. */
START_TEST(test_a_receipt_begins_with_its_permit)
{
	struct permit permit = {.volume = 1, .generation = 1, .issued_at = 1000};
	struct receipt_counter c = {0};
	struct node_receipt r;
	const uint32_t crc = 0;

	ck_assert_int_eq(receipt_counter_init(&c), 0);
	receipt_count(&c, &permit, 1, FRAME_WRITE, false, v(1, 1), 0, 0, 1, &crc, 50, 400);
	receipt_count(&c, &permit, 1, FRAME_WRITE, false, v(1, 2), 0, 1, 1, &crc, 70, 420);
	ck_assert(receipt_close(&c, &r));
	ck_assert_int_eq(r.from, 1000);
	ck_assert_int_eq(r.until, 1020);
	receipt_count(&c, &permit, 1, FRAME_WRITE, false, v(1, 3), 0, 0, 1, &crc, 90, 1500);
	ck_assert(receipt_close(&c, &r));
	ck_assert_int_eq(r.from, 1500);
	receipt_counter_deinit(&c);
}
END_TEST

/* The record of a write in the chain, as proto/FORMAT.md has it: written here by hand. */
static size_t chain_record(uint8_t *p, version_t version, const uint32_t fields[4],
			   const uint32_t *crcs, uint32_t crc_count)
{
	size_t at = 0;

	for (unsigned i = 0; i < 8; i++)
		p[at++] = (uint8_t)(version >> (8 * i));
	for (unsigned k = 0; k < 4 + crc_count; k++)
		for (unsigned i = 0; i < 4; i++)
			p[at++] = (uint8_t)((k < 4 ? fields[k] : crcs[k - 4]) >> (8 * i));
	return at;
}

/* What a receipt says of the writes: how many, how much, from which version to which, and a hash
 * over all of their headers and CRCs, which anybody who has them can compute. */
START_TEST(test_what_a_receipt_says)
{
	enum { WRITES = 300, BLOCKS = 3 }; /* more than are hashed at once */
	struct permit permit = {.volume = 1, .generation = 1, .serial = 4, .issued_at = 10};
	struct receipt_counter c = {0};
	struct node_receipt r, second;
	uint8_t *bytes = malloc(WRITES * (24 + 4 * BLOCKS)), digest[32];
	uint32_t crcs[BLOCKS];
	size_t size = 0;

	ck_assert_int_eq(receipt_counter_init(&c), 0);
	for (int changed = 0; changed < 2; changed++) {
		size = 0;
		for (uint32_t i = 0; i < WRITES; i++) {
			const bool zero = i % 7 == 0;
			const uint32_t fields[] = {i % 5, i * 8, BLOCKS,
						   zero ? FRAME_ZERO | 1u << 8 : FRAME_WRITE};

			for (uint32_t k = 0; k < BLOCKS; k++)
				crcs[k] =
				    i * 0x01010101u + k + (changed != 0 && i == 150 && k == 2);
			permit.serial = 4 + i / 100;
			receipt_count(&c, &permit, 9, zero ? FRAME_ZERO : FRAME_WRITE, zero,
				      v(1, i + 1), i % 5, i * 8, BLOCKS, zero ? NULL : crcs,
				      100 + i, 1000);
			size += chain_record(bytes + size, v(1, i + 1), fields, crcs,
					     zero ? 0 : BLOCKS);
		}
		receipt_count_pulled(&c, &permit, 9, 11, 100 + WRITES, 1000);
		ck_assert(receipt_close(&c, changed == 0 ? &r : &second));
		ck_assert_int_eq(document_digest(bytes, size, digest), 0);
		ck_assert_mem_eq((changed == 0 ? &r : &second)->chain, digest, sizeof digest);
	}
	ck_assert_mem_ne(r.chain, second.chain, sizeof r.chain);
	ck_assert_uint_eq(r.count, WRITES);
	ck_assert_uint_eq(r.bytes, (WRITES - 43) * BLOCKS * BLOCK_SIZE); /* zeroes have none */
	ck_assert_uint_eq(r.first_version, v(1, 1));
	ck_assert_uint_eq(r.last_version, v(1, WRITES));
	ck_assert_uint_eq(r.first_serial, 4);
	ck_assert_uint_eq(r.last_serial, 6);
	ck_assert_uint_eq(r.site_version, 9);
	ck_assert_uint_eq(r.pulled_blocks, 11);
	ck_assert_int_eq(r.from, 1000);
	ck_assert_int_eq(r.until, 1000 + WRITES);
	/* Nothing since: nothing to tell. */
	ck_assert(!receipt_close(&c, &r));
	receipt_counter_deinit(&c);
	free(bytes);
}
END_TEST

START_TEST(test_fencing)
{
	struct peer_permit p;

	rig_open(rig, &host, 0, 1);
	ck_assert_int_eq(peer_host_write(&host, 1, 0, 1, v(1, 1), data), 0);
	rig_open(rig, &other, 0, 2);
	expect_refused(&host, 1, -E_FENCED);
	ck_assert(sim_run_flag(rig->world, &host.gate_closed));
	ck_assert_int_eq(host.gate_closed_why, -E_FENCED);
	p = rig_permit(rig, 1, 2);
	ck_assert_int_eq(rig_update(&host, &p), -E_FENCED);
	peer_host_close(&host);
	rig_host(rig, &host, 0);
	ck_assert_int_eq(rig_try_open(&host, &p), -E_FENCED);
	/* The same attachment may come again; its older connection ends: nothing that was sent on
	 * it may appear after the host has asked the newer one what is here. */
	p = rig_permit(rig, 2, 1);
	ck_assert_int_eq(rig_try_open(&host, &p), 0);
	ck_assert_int_eq(peer_host_write(&host, 1, 0, 1, v(2, 1), data), 0);
	ck_assert_int_eq(peer_host_write(&other, 1, 0, 1, v(2, 2), data), -E_DISCONNECTED);
	/* A version of another generation than the session's is no version. */
	ck_assert_int_eq(peer_host_write(&host, 1, 0, 1, v(1, 7), data), -E_FENCED);
	ck_assert_int_eq(peer_host_write(&host, 1, 0, 1, v(3, 7), data), -EINVAL);
	ck_assert_int_eq(peer_host_watermark(&host, 1, v(3, 7)), -EINVAL);
	peer_host_close(&host);
	peer_host_close(&other);
	/* The fence is durable. */
	rig_node_crash(&rig->nodes[0], SIM_POWER_LOSS);
	rig_node_start(&rig->nodes[0]);
	rig_wait_lease(&rig->nodes[0], true);
	rig_host(rig, &host, 0);
	p = rig_permit(rig, 1, 9);
	ck_assert_int_eq(rig_try_open(&host, &p), -E_FENCED);
	p = rig_permit(rig, 2, 9);
	ck_assert_int_eq(rig_try_open(&host, &p), 0);
	ck_assert_int_eq(peer_host_read(&host, 1, 0, 1, back), 0);
	ck_assert_mem_eq(back, data, BLOCK_SIZE);
}
END_TEST

/* A host that has lost its connection opens anew, and asks what is there: what it sent before has
 * been carried out by then, or never will be. */
START_TEST(test_reopen_waits_for_what_is_under_way)
{
	for (uint32_t steps = 0; steps < 40; steps++) {
		struct peer_request *q[20];
		struct peer_permit p;
		struct store_stats before, after;

		rig_open(rig, &host, 0, 1 + steps);
		sim_disk_set_slowness(rig->nodes[0].sim_disk, 1000);
		for (uint32_t i = 0; i < 20; i++)
			q[i] = peer_host_send(&host,
					      (struct frame){.op = FRAME_WRITE,
							     .chunk = 1,
							     .block = 100 * i,
							     .block_count = 1 + 99 * (i % 2),
							     .version = v(1 + steps, i + 1)},
					      data, false);
		for (uint32_t i = 0; i < 4 * steps; i++)
			ck_assert(sim_step(rig->world));
		rig_host(rig, &other, 0);
		p = rig_permit(rig, 1 + steps, 2);
		ck_assert_int_eq(rig_try_open(&other, &p), 0);
		store_get_stats(rig->nodes[0].store, &before);
		sim_disk_set_slowness(rig->nodes[0].sim_disk, 1);
		for (uint32_t i = 0; i < 20; i++) {
			peer_host_wait(&host, q[i]);
			peer_request_free(q[i]);
		}
		rig_run_ms(rig, 1000);
		store_get_stats(rig->nodes[0].store, &after);
		ck_assert_uint_eq(before.blocks_written, after.blocks_written);
		peer_host_close(&host);
		peer_host_close(&other);
	}
}
END_TEST

START_TEST(test_bad_crc)
{
	static const uint32_t counts[] = {1, 4, 8, 256};

	rig_open(rig, &host, 0, 1);
	for (size_t i = 0; i < ARRAY_SIZE(counts); i++) {
		struct peer_request *q = peer_host_send(&host,
							(struct frame){.op = FRAME_WRITE,
								       .chunk = 1,
								       .block_count = counts[i],
								       .version = v(1, i + 1)},
							data, true);

		ck_assert(peer_host_wait(&host, q));
		ck_assert_int_eq(q->status, -E_BAD_CRC);
		peer_request_free(q);
	}
	ck_assert_uint_eq(stats_of(0).refused_crc, ARRAY_SIZE(counts));
	ck_assert_uint_eq(rig_chunks_held(&rig->nodes[0]), 0);
	ck_assert_int_eq(peer_host_write(&host, 1, 0, 1, v(1, 1), data), 0);
}
END_TEST

START_TEST(test_out_of_the_chunk)
{
	const uint32_t blocks = RIG_CHUNK_SIZE / BLOCK_SIZE;

	rig_open(rig, &host, 0, 1);
	ck_assert_int_eq(peer_host_write(&host, 1, blocks, 1, v(1, 1), data), -EINVAL);
	ck_assert_int_eq(peer_host_write(&host, 1, blocks - 1, 2, v(1, 1), data), -EINVAL);
	ck_assert_int_eq(peer_host_zero(&host, 1, blocks - 1, 2, v(1, 1), false), -EINVAL);
	ck_assert_int_eq(peer_host_read(&host, 1, blocks, 1, back), -EINVAL);
	/* What stands for all chunks elsewhere is the number of none. */
	ck_assert_int_eq(peer_host_write(&host, UINT32_MAX, 0, 1, v(1, 1), data), -EINVAL);
	ck_assert_int_eq(peer_host_zero(&host, UINT32_MAX, 0, 1, v(1, 1), false), -EINVAL);
	ck_assert_int_eq(peer_host_read(&host, UINT32_MAX, 0, 1, back), -EINVAL);
	ck_assert_int_eq(peer_host_watermark(&host, UINT32_MAX, v(1, 1)), -EINVAL);
	ck_assert_uint_eq(rig_chunks_held(&rig->nodes[0]), 0);
	ck_assert_int_eq(peer_host_write(&host, 1, blocks - 1, 1, v(1, 1), data), 0);
	peer_host_close(&host);
	rig_host(rig, &host, 0);
	for (uint64_t size = 0; size < 3; size++) {
		static const uint64_t sizes[] = {0, CHUNK_SIZE_MIN / 2, 48u << 20};
		struct peer_permit p = rig_permit(rig, 1, 2);
		Pave__V1__Signed *s = peer_permit_make(&p);

		ck_assert_int_eq(peer_host_open(&host, s, sizes[size]), -EINVAL);
		peer_permit_free(s);
	}
}
END_TEST

START_TEST(test_read_only)
{
	struct peer_permit p;

	rig_host(rig, &host, 0);
	p = rig_permit(rig, 1, 1);
	host.read_only = true;
	ck_assert_int_eq(rig_try_open(&host, &p), 0);
	expect_refused(&host, 1, -EROFS);
	ck_assert_int_eq(peer_host_watermark(&host, 1, v(1, 1)), -EROFS);
	ck_assert_int_eq(peer_host_read(&host, 1, 0, 1, back), 0);
}
END_TEST

START_TEST(test_map_version)
{
	struct peer_permit p;

	rig_host(rig, &host, 0);
	p = rig_permit(rig, 1, 1);
	p.map_version = 5;
	ck_assert_int_eq(rig_try_open(&host, &p), 0);
	p = rig_permit(rig, 1, 2);
	p.map_version = 4;
	ck_assert_int_eq(rig_update(&host, &p), -E_MAP_VERSION);
	rig_host(rig, &other, 0);
	ck_assert_int_eq(rig_try_open(&other, &p), -E_MAP_VERSION);
	ck_assert_int_eq(peer_host_write(&host, 1, 0, 1, v(1, 1), data), 0);
}
END_TEST

/* Written, and durable; but the permit ends before the answer: never an acknowledgement. */
START_TEST(test_expires_between_write_and_answer)
{
	struct peer_request *q;
	struct peer_permit p;

	rig_open(rig, &host, 0, 1);
	sim_disk_set_slowness(rig->nodes[0].sim_disk, 200000);
	q = peer_host_send(
	    &host,
	    (struct frame){.op = FRAME_WRITE, .chunk = 1, .block_count = 1, .version = v(1, 1)},
	    data, false);
	ck_assert(peer_host_wait(&host, q));
	sim_disk_set_slowness(rig->nodes[0].sim_disk, 1);
	ck_assert_int_eq(q->status, -E_PERMIT_EXPIRED);
	peer_request_free(q);
	ck_assert_uint_eq(stats_of(0).refused_late, 1);
	ck_assert_uint_eq(stats_of(0).writes, 0);
	/* It was carried out, which is allowed. */
	p = rig_permit(rig, 1, 2);
	ck_assert_int_eq(rig_update(&host, &p), 0);
	ck_assert_int_eq(peer_host_read(&host, 1, 0, 1, back), 0);
	ck_assert_mem_eq(back, data, BLOCK_SIZE);
}
END_TEST

/* The process stands still between the write and the answer, for longer than the permit lives. */
START_TEST(test_paused_between_write_and_answer)
{
	struct peer_request *q;

	rig_open(rig, &host, 0, 1);
	q = peer_host_send(
	    &host,
	    (struct frame){.op = FRAME_WRITE, .chunk = 1, .block_count = 1, .version = v(1, 1)},
	    data, false);
	while (rig_chunks_held(&rig->nodes[0]) == 0) {
		struct store_stats stats;

		store_get_stats(rig->nodes[0].store, &stats);
		if (sim_disk_stats(rig->nodes[0].sim_disk)->writes > 0 && stats.writes > 0)
			break;
		ck_assert(!q->done);
		ck_assert(sim_step(rig->world));
	}
	sim_process_pause(rig->nodes[0].process);
	rig_run_ms(rig, PERMIT_LIFETIME_MS);
	sim_process_resume(rig->nodes[0].process);
	peer_host_wait(&host, q);
	ck_assert_int_ne(q->status, 0);
	peer_request_free(q);
}
END_TEST

struct vacating {
	struct node_vacate_op op;
	bool done;
};

static void vacate_done(struct node_vacate_op *op)
{
	container_of(op, struct vacating, op)->done = true;
}

static void vacate_start(struct vacating *x, bool whole)
{
	*x = (struct vacating){.op = {.done = vacate_done,
				      .volume = RIG_VOLUME,
				      .whole = whole,
				      .chunks = {5},
				      .chunk_count = whole ? 0 : 1}};
	node_shard_vacate(rig->nodes[0].shard, &x->op);
	ck_assert(!x->done);
}

/* A write to chunk 5 that has left the host, and is held back on its way. */
static struct peer_request *write_on_its_way(void)
{
	struct frame f = {.op = FRAME_WRITE, .chunk = 5, .block_count = 1, .version = v(1, 7)};
	struct peer_request *q;

	sim_net_cut(rig->host_process, rig->nodes[0].process, true);
	q = peer_host_send(&host, f, data, false);
	rig_run_ms(rig, 1);
	return q;
}

START_TEST(test_vacated_by_the_host)
{
	struct peer_request *q;
	struct vacating x;

	rig_open(rig, &host, 0, 1);
	q = write_on_its_way();
	vacate_start(&x, false);
	rig_run_ms(rig, 1000);
	ck_assert(!x.done);
	sim_net_heal_all(rig->world);
	ck_assert(rig->wait.until(rig->wait.arg, &x.done));
	ck_assert_uint_eq(host.vacates, 1);
	ck_assert_uint_eq(host.vacate_chunk, 5);
	/* What was sent before has arrived, and the session goes on. */
	ck_assert(peer_host_wait(&host, q));
	ck_assert_uint_eq(rig_chunks_held(&rig->nodes[0]), 1);
	ck_assert_int_eq(q->status, 0);
	peer_request_free(q);
	ck_assert_int_eq(peer_host_write(&host, 4, 0, 1, v(1, 8), data), 0);
}
END_TEST

/* Its host is silent, or says that it has not left: what it has on its way must not arrive. */
START_TEST(test_vacated_by_its_end)
{
	struct peer_request *q = NULL;
	struct vacating x;

	rig_open(rig, &host, 0, 1);
	rig_open(rig, &other, 1, 1);
	host.vacate_status = _i == 0 ? 1 : -E_IN_USE;
	if (_i == 0)
		q = write_on_its_way();
	vacate_start(&x, _i == 2);
	ck_assert(rig->wait.until(rig->wait.arg, &x.done));
	sim_net_heal_all(rig->world);
	ck_assert_uint_eq(stats_of(0).sessions, 0);
	rig_run_ms(rig, 10000);
	ck_assert(host.closed);
	ck_assert_uint_eq(rig_chunks_held(&rig->nodes[0]), 0);
	ck_assert_uint_eq(host.vacates, _i < 2);
	ck_assert_uint_eq(stats_of(1).sessions, 1);
	if (q != NULL)
		peer_request_free(q);
}
END_TEST

/* The process ends while it waits: nobody is told any more. */
START_TEST(test_crash_while_vacating)
{
	struct peer_request *q;
	struct vacating x;

	rig_open(rig, &host, 0, 1);
	q = write_on_its_way();
	vacate_start(&x, false);
	rig_run_ms(rig, 1000);
	rig_node_crash(&rig->nodes[0], SIM_KILL);
	rig_run_ms(rig, 1000);
	ck_assert(!x.done);
	peer_request_free(q);
}
END_TEST

START_TEST(test_vacated_with_nobody_there)
{
	struct vacating x;

	vacate_start(&x, _i == 1);
	ck_assert(rig->wait.until(rig->wait.arg, &x.done));
}
END_TEST

static Suite *suite(void)
{
	Suite *s = suite_create("node");
	TCase *served = tcase_create("served");
	TCase *refused = tcase_create("refused");

	tcase_add_checked_fixture(served, setup, teardown);
	tcase_add_test(served, test_write_and_read);
	tcase_add_test(served, test_times_are_told);
	tcase_add_test(served, test_holes_zeroes_and_discard);
	tcase_add_test(served, test_damage_is_told);
	tcase_add_test(served, test_damage_waits_for_a_host);
	tcase_add_test(served, test_chunks_and_changes);
	tcase_add_test(served, test_inflight);
	tcase_add_test(served, test_sessions_take_turns);
	tcase_set_timeout(served, 60);
	suite_add_tcase(s, served);
	tcase_add_checked_fixture(refused, setup, teardown);
	tcase_add_test(refused, test_no_volume_open);
	tcase_add_test(refused, test_permit_expires);
	tcase_add_test(refused, test_lease_expires);
	tcase_add_test(refused, test_site_is_withdrawn);
	tcase_add_test(refused, test_not_in_permit);
	tcase_add_test(refused, test_certificate_versions_differ);
	tcase_add_test(refused, test_forged_permits);
	tcase_add_test(refused, test_an_expired_permit_stays_expired);
	tcase_add_test(refused, test_a_receipt_begins_with_its_permit);
	tcase_add_test(refused, test_what_a_receipt_says);
	tcase_add_test(refused, test_fencing);
	tcase_add_test(refused, test_reopen_waits_for_what_is_under_way);
	tcase_add_test(refused, test_bad_crc);
	tcase_add_test(refused, test_out_of_the_chunk);
	tcase_add_test(refused, test_read_only);
	tcase_add_test(refused, test_map_version);
	tcase_add_test(refused, test_expires_between_write_and_answer);
	tcase_add_test(refused, test_paused_between_write_and_answer);
	tcase_add_test(refused, test_vacated_by_the_host);
	tcase_add_test(refused, test_crash_while_vacating);
	tcase_add_loop_test(refused, test_vacated_by_its_end, 0, 3);
	tcase_add_loop_test(refused, test_vacated_with_nobody_there, 0, 2);
	tcase_set_timeout(refused, 60);
	suite_add_tcase(s, refused);
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
