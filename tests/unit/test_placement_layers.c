/* The driver and layers: what permits name, who may settle a snapshot, what is erased when, and
 * that all of it outlives a crash of the driver. */
#include <check.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "tests/unit/test_placement_rig.h"

#define SIZE (256ull << 20)

static struct rig *rig;
static struct peer *admin, *host;
static struct peer *nodes[3];

static void setup(void)
{
	rig = rig_create(1);
	admin = peer_new(rig, "admin", "test");
	rig_three(rig, admin, nodes);
	host = peer_new(rig, "host", "h1");
	ck_assert_msg(ask_create(admin, "v", SIZE, "secnumcloud-fr") == 0, "%s", admin->text);
}

static void teardown(void)
{
	rig_destroy(rig);
}

/* After a crash of the driver, of which it hears first. */
static void come_back(struct peer *p, const char *role, const char *name)
{
	ck_assert(sim_run_flag(rig->world, &p->closed));
	ck_assert_int_eq(peer_connect(p, role, name), 0);
}

static void start_delete(const char *name)
{
	Pave__V1__Control m = PAVE__V1__CONTROL__INIT;
	Pave__V1__VolumeDelete d = PAVE__V1__VOLUME_DELETE__INIT;

	d.name = (char *)(uintptr_t)name;
	m.body_case = PAVE__V1__CONTROL__BODY_VOLUME_DELETE;
	m.volume_delete = &d;
	peer_ask_start(admin, &m);
}

static void start_resize(const char *name, uint64_t size, bool force)
{
	Pave__V1__Control m = PAVE__V1__CONTROL__INIT;
	Pave__V1__VolumeResize r = PAVE__V1__VOLUME_RESIZE__INIT;

	r.name = (char *)(uintptr_t)name;
	r.size = size;
	r.force = force;
	m.body_case = PAVE__V1__CONTROL__BODY_VOLUME_RESIZE;
	m.volume_resize = &r;
	peer_ask_start(admin, &m);
}

static int ask_resize_by(const char *name, uint64_t size, bool force)
{
	start_resize(name, size, force);
	return peer_ask_wait(admin);
}

static const Pave__V1__VolumeInfo *info(void)
{
	return admin->reply->volume_get_reply->info;
}

/* The permit names these layers from the top, so many of them open. */
static void expect_layers(const struct permit *p, const volume_id_t *ids, uint32_t count,
			  uint32_t open)
{
	ck_assert_uint_eq(p->layer_count, count);
	for (uint32_t i = 0; i < count; i++) {
		ck_assert_uint_eq(p->layers[i].id, ids[i]);
		ck_assert_int_eq(p->layers[i].open, i < open);
	}
}
#define EXPECT_LAYERS(p, open, ...)                                                                \
	expect_layers(p, (const volume_id_t[]){__VA_ARGS__},                                       \
		      sizeof((const volume_id_t[]){__VA_ARGS__}) / sizeof(volume_id_t), open)

/* v was attached, as generation 1, and nobody has it any more. */
static volume_id_t attached_once(void)
{
	struct permit p;
	volume_id_t v;

	ck_assert_int_eq(ask_attach(host, "v", "h1", "par"), 0);
	p = reply_permit(host);
	v = p.volume;
	permit_deinit(&p);
	ck_assert_int_eq(ask_detach(host, v, 1), 0);
	return v;
}

/* Attaches v as generation 1, takes a snapshot, settles it. Returns the new top. */
static volume_id_t settled_snapshot(volume_id_t *ret_volume)
{
	struct permit p;
	volume_id_t v, top;

	ck_assert_int_eq(ask_attach(host, "v", "h1", "par"), 0);
	p = reply_permit(host);
	v = p.volume;
	EXPECT_LAYERS(&p, 1, v);
	permit_deinit(&p);
	start_snapshot(admin, "v", "s");
	rig_run_ms(rig, 500);
	/* The host has a permit with both; the admin waits. */
	ck_assert(!admin->answered);
	ck_assert_uint_eq(host->permit_notices, 1);
	top = host->notice.layers[0].id;
	EXPECT_LAYERS(&host->notice, 2, top, v);
	ck_assert_int_eq(renew_sealed(host, v, 1, v), 0);
	p = reply_permit(host);
	EXPECT_LAYERS(&p, 1, top, v);
	permit_deinit(&p);
	ck_assert_int_eq(peer_ask_wait(admin), 0);
	ck_assert_str_eq(info()->name, "v@s");
	ck_assert(!info()->settling);
	*ret_volume = v;
	return top;
}

START_TEST(snapshot_of_an_attached_volume)
{
	struct peer *h2 = peer_new(rig, "host", "h2");
	volume_id_t v, top = settled_snapshot(&v);
	struct permit p;

	ck_assert_int_eq(ask_attach(h2, "v@s", "h2", "par"), -EROFS);
	ck_assert_int_eq(ask_attach_read_only(h2, "v@s"), 0);
	p = reply_permit(h2);
	EXPECT_LAYERS(&p, 1, p.volume, v);
	ck_assert(p.generation > 1);
	ck_assert_uint_eq(h2->reply->attach_reply->family, v);
	permit_deinit(&p);
	/* All of it is still so after a crash of the driver. */
	rig_pd_crash(rig, SIM_POWER_LOSS);
	rig_pd_start(rig);
	come_back(admin, "admin", "test");
	ck_assert_int_eq(ask_volume(admin, "v"), 0);
	ck_assert_uint_eq(info()->n_layers, 2);
	ck_assert_uint_eq(info()->layers[0], top);
	ck_assert_uint_eq(info()->layers[1], v);
	ck_assert(!info()->settling);
	ck_assert_int_eq(ask_volume(admin, "v@s"), 0);
	ck_assert_str_eq(info()->origin, "v");
	/* A snapshot is no volume that one could snapshot, and holds its volume. */
	ck_assert_int_eq(ask_snapshot(admin, "v", "s"), -EEXIST);
	ck_assert_int_eq(ask_snapshot(admin, "v@s", "t"), -EINVAL);
	ck_assert_int_eq(ask_snapshot(admin, "v", "S/"), -EINVAL);
	ck_assert_int_eq(ask_snapshot(admin, "w", "s"), -ENOENT);
	ck_assert_int_eq(ask_delete(admin, "v"), -E_IN_USE);
	ck_assert_int_eq(ask_rollback(admin, "v@s"), -E_IN_USE);
}
END_TEST

/* Only the volume's own attachment settles it, whichever that is; till then nobody reads it. */
START_TEST(settled_by_the_next_attachment)
{
	struct peer *h2 = peer_new(rig, "host", "h2");
	struct permit p;
	volume_id_t v, top;

	v = attached_once();
	ck_assert_int_eq(ask_snapshot(admin, "v", "s"),
			 0); /* nobody holds it: nobody is waited for */
	ck_assert(info()->settling);
	ck_assert_int_eq(ask_attach_read_only(h2, "v@s"), -E_IN_USE);
	ck_assert_int_eq(ask_clone(admin, "v@s", "w"), 0);
	ck_assert_int_eq(ask_attach(h2, "w", "h2", "par"), -E_IN_USE);
	ck_assert_ptr_nonnull(strstr(h2->text, "attach v once"));
	ck_assert_int_eq(ask_snapshot(admin, "v", "t"), -E_IN_USE);
	rig_pd_crash(rig, SIM_POWER_LOSS);
	rig_pd_start(rig);
	come_back(admin, "admin", "test");
	come_back(host, "host", "h1");
	come_back(h2, "host", "h2");
	ck_assert_int_eq(ask_attach(host, "v", "h1", "par"), 0);
	p = reply_permit(host);
	top = p.layers[0].id;
	EXPECT_LAYERS(&p, 2, top, v);
	permit_deinit(&p);
	/* The older generation, and another layer, settle nothing. */
	ck_assert_int_eq(renew_sealed(host, v, 1, v), -E_FENCED);
	ck_assert_int_eq(renew_sealed(host, v, 2, top), 0);
	ck_assert_int_eq(ask_attach_read_only(h2, "v@s"), -E_IN_USE);
	ck_assert_int_eq(renew_sealed(host, v, 2, v), 0);
	ck_assert_int_eq(ask_attach_read_only(h2, "v@s"), 0);
	ck_assert_int_eq(ask_attach(h2, "w", "h2", "par"), 0);
	p = reply_permit(h2);
	EXPECT_LAYERS(&p, 1, p.volume, v);
	permit_deinit(&p);
}
END_TEST

static uint32_t maintains(void)
{
	return nodes[0]->maintains + nodes[1]->maintains + nodes[2]->maintains;
}

/* Clones of a volume that nobody attaches again would wait for ever: a node settles it. */
START_TEST(settled_by_a_node)
{
	struct peer *keeper = peer_new(rig, "host", "n1");
	const volume_id_t v = attached_once();

	rig_run_ms(rig, 3000);
	ck_assert_uint_eq(maintains(), 0);
	ck_assert_int_eq(ask_snapshot(admin, "v", "s"), 0);
	ck_assert_int_eq(ask_clone(admin, "v@s", "w"), 0);
	rig_run_ms(rig, 3000);
	ck_assert_uint_ge(maintains(), 1);
	ck_assert_int_eq(ask_maintenance_of(keeper, "v", "n1"), 0);
	ck_assert_int_eq(renew_sealed(keeper, v, 2, v), 0);
	ck_assert_int_eq(ask_attach(host, "w", "h1", "par"), 0);
	ck_assert_uint_eq(keeper->detach_notices, 0);
	ck_assert_int_eq(ask_rollback(admin, "v@s"), -E_IN_USE);
	ck_assert_ptr_nonnull(strstr(admin->text, "node n1 has it for maintenance"));
	/* Then there is nothing to be done. */
	for (int i = 0; keeper->detach_notices == 0 && i < 60; i++)
		rig_run_ms(rig, 1000);
	ck_assert_uint_ge(keeper->detach_notices, 1);
}
END_TEST

/* Whoever else stands on what only its owner settles would wait for that for ever. */
START_TEST(the_owner_of_what_is_not_settled_stays)
{
	struct peer *h2 = peer_new(rig, "host", "h2");
	const volume_id_t v = attached_once();
	struct permit p;

	ck_assert_int_eq(ask_snapshot(admin, "v", "s"), 0);
	ck_assert(info()->settling);
	ck_assert_int_eq(ask_clone(admin, "v@s", "w"), 0);
	ck_assert_int_eq(ask_delete(admin, "v@s"), 0);
	ck_assert_int_eq(ask_delete(admin, "v"), -E_IN_USE);
	ck_assert_msg(strstr(admin->text, "w stands on") != NULL &&
			  strstr(admin->text, "attach v once") != NULL,
		      "%s", admin->text);
	ck_assert_int_eq(ask_attach(host, "v", "h1", "par"), 0);
	ck_assert_int_eq(renew_sealed(host, v, 2, v), 0);
	ck_assert_int_eq(ask_detach(host, v, 2), 0);
	ck_assert_int_eq(ask_delete(admin, "v"), 0);
	ck_assert_int_eq(ask_attach(h2, "w", "h2", "par"), 0);
	p = reply_permit(h2);
	EXPECT_LAYERS(&p, 1, p.volume, v);
	permit_deinit(&p);
}
END_TEST

/* One that nobody stands on but the volume goes with it. */
START_TEST(what_is_not_settled_goes_with_its_owner)
{
	const volume_id_t v = attached_once();

	ck_assert_int_eq(ask_snapshot(admin, "v", "s"), 0);
	ck_assert_int_eq(ask_delete(admin, "v@s"), 0);
	ck_assert_msg(ask_delete(admin, "v") == 0, "%s", admin->text);
	rig_run_ms(rig, 2000);
	ck_assert_uint_eq(nodes[0]->erased_layers >> v & 1, 1);
}
END_TEST

/* What was never attached has nothing to settle. */
START_TEST(snapshot_of_a_new_volume)
{
	struct peer *h2 = peer_new(rig, "host", "h2");

	ck_assert_int_eq(ask_snapshot(admin, "v", "s"), 0);
	ck_assert(!info()->settling);
	ck_assert_int_eq(ask_attach_read_only(h2, "v@s"), 0);
}
END_TEST

static void wait_erased(uint32_t count)
{
	for (uint32_t i = 0; i < 100; i++) {
		if (nodes[0]->erases >= count)
			break;
		rig_run_ms(rig, 100);
	}
	ck_assert_uint_eq(nodes[0]->erases, count);
}

/* A layer goes with the last that needs it. */
START_TEST(layers_are_dropped)
{
	volume_id_t v, top = settled_snapshot(&v);
	volume_id_t clone;

	ck_assert_int_eq(ask_clone(admin, "v@s", "w"), 0);
	clone = info()->id;
	ck_assert_str_eq(info()->origin, "v@s");
	ck_assert_int_eq(ask_clone(admin, "v@s", "w"), -EEXIST);
	ck_assert_int_eq(ask_clone(admin, "v", "x"), -EINVAL);
	ck_assert_int_eq(ask_clone(admin, "v@s", "x@y"), -EINVAL);
	ck_assert_int_eq(ask_detach(host, v, 1), 0);
	ck_assert_int_eq(ask_rollback(admin, "v@s"), 0);
	ck_assert_uint_eq(info()->n_layers, 2);
	ck_assert_uint_ne(info()->layers[0], top);
	ck_assert_uint_eq(info()->layers[1], v);
	wait_erased(1);
	ck_assert_uint_eq(nodes[0]->erase_volume, top);
	ck_assert_int_eq(ask_delete(admin, "v@s"), 0);
	wait_erased(2);
	ck_assert_uint_ne(nodes[0]->erase_volume, v);
	ck_assert_int_eq(ask_delete(admin, "v"), 0);
	wait_erased(3);
	ck_assert_uint_ne(nodes[0]->erase_volume, v);
	/* The clone was the last to stand on it. */
	ck_assert_int_eq(ask_delete(admin, "w"), 0);
	wait_erased(5);
	ck_assert(nodes[0]->erase_volume == v || nodes[0]->erase_volume == clone);
	/* Nothing is left, and the driver starts from that. */
	rig_pd_crash(rig, SIM_POWER_LOSS);
	rig_pd_start(rig);
	come_back(admin, "admin", "test");
	ck_assert_int_eq(ask_volume(admin, "v"), -ENOENT);
	ck_assert_int_eq(ask_volume(admin, "w"), -ENOENT);
}
END_TEST

/* A host that was cut off believes in what was there before, and so does its guest; its map may be
 * another one, too. */
START_TEST(a_rollback_ends_what_has_lapsed)
{
	volume_id_t v;

	(void)settled_snapshot(&v);
	ck_assert_int_eq(ask_rollback(admin, "v@s"), -E_IN_USE);
	rig_run_ms(rig, LIFETIME_MS + 5000);
	ck_assert_msg(ask_rollback(admin, "v@s") == 0, "%s", admin->text);
	ck_assert_int_eq(ask_renew(host, v, 1), -E_FENCED);
	ck_assert_int_eq(ask_attach(host, "v", "h1", "par"), 0);
}
END_TEST

START_TEST(layers_are_bounded)
{
	uint32_t taken = 0;
	char name[8];

	do {
		snprintf(name, sizeof(name), "s%u", taken);
	} while (ask_snapshot(admin, "v", name) == 0 && ++taken < PERMIT_LAYERS_MAX);
	ck_assert_int_eq(admin->status, -E_LIMIT);
	ck_assert_uint_eq(taken, PERMIT_LAYERS_MAX - 2);
	ck_assert_int_eq(ask_attach(host, "v", "h1", "par"), 0);
}
END_TEST

START_TEST(resize)
{
	const uint64_t larger = 3 * SIZE + (1 << 20);

	uint64_t version;

	ck_assert_int_eq(ask_snapshot(admin, "v", "s"), 0);
	version = info()->map_version;
	ck_assert_int_eq(ask_resize(admin, "v", larger), 0);
	ck_assert_uint_eq(info()->size, larger);
	/* Two maps of one version would contradict each other in the ledger. */
	ck_assert_uint_eq(info()->map_version, version + 1);
	ck_assert_int_eq(ask_resize(admin, "v", SIZE), -E_IN_USE);
	ck_assert_int_eq(ask_resize(admin, "v", larger + 1), -EINVAL);
	ck_assert_int_eq(ask_resize(admin, "v@s", larger), -EROFS);
	ck_assert_int_eq(ask_rollback(admin, "v@s"), -EINVAL);
	rig_pd_crash(rig, SIM_POWER_LOSS);
	rig_pd_start(rig);
	come_back(admin, "admin", "test");
	come_back(host, "host", "h1");
	ck_assert_int_eq(ask_attach(host, "v", "h1", "par"), 0);
	ck_assert_uint_eq(host->reply->attach_reply->size, larger);
	ck_assert_uint_eq(host->reply->attach_reply->map.len,
			  (larger + host->reply->attach_reply->chunk_size - 1) /
			      host->reply->attach_reply->chunk_size * 3);
	ck_assert_int_eq(ask_volume(admin, "v@s"), 0);
	ck_assert_uint_eq(info()->size, SIZE);
}
END_TEST

static void refused(uint64_t size, int status, const char *word)
{
	ck_assert_int_eq(ask_resize_by("v", size, true), status);
	ck_assert_msg(strstr(admin->text, word) != NULL, "%s", admin->text);
}

/* Only with --force, by whole chunks, while nobody has it and nobody shares it; what lay beyond the
 * end is erased, on all nodes, and only then may the volume grow there again. */
START_TEST(a_volume_becomes_smaller)
{
	const uint64_t chunk = 64ull << 20;

	ck_assert_int_eq(ask_resize(admin, "v", 4 * chunk + BLOCK_SIZE), 0);
	ck_assert_int_eq(ask_resize(admin, "v", 2 * chunk), -E_IN_USE);
	ck_assert_msg(strstr(admin->text, "--force") != NULL, "%s", admin->text);
	refused(chunk / 2, -EINVAL, "its chunks, 64");
	refused(2 * chunk + BLOCK_SIZE, -EINVAL, "to 128MiB, or 192MiB");
	refused(4 * chunk + BLOCK_SIZE - 512, -EINVAL, "multiple of 4096");
	ck_assert_int_eq(ask_snapshot(admin, "v", "s"), 0);
	refused(2 * chunk, -E_IN_USE, "v@s");
	ck_assert_int_eq(ask_delete(admin, "v@s"), 0);
	ck_assert_int_eq(ask_attach(host, "v", "h1", "par"), 0);
	refused(2 * chunk, -E_IN_USE, "attached by h1");
	ck_assert_int_eq(ask_volume(admin, "v"), 0);
	ck_assert_uint_eq(info()->size, 4 * chunk + BLOCK_SIZE);
	/* It lapses, and the host may think that it has it still. */
	rig_run_ms(rig, 2 * LIFETIME_MS);
	for (uint32_t i = 0; i < 3; i++) {
		nodes[i]->erase_hold = true;
		nodes[i]->erases = 0;
		nodes[i]->erase_chunk_count = 0;
	}
	ck_assert_msg(ask_resize_by("v", 2 * chunk, true) == 0, "%s", admin->text);
	ck_assert_uint_eq(info()->size, 2 * chunk);
	ck_assert_int_eq(ask_renew(host, 1, 1), -E_FENCED);
	rig_pd_crash(rig, SIM_POWER_LOSS);
	rig_pd_start(rig);
	come_back(admin, "admin", "test");
	come_back(host, "host", "h1");
	for (uint32_t i = 0; i < 3; i++) {
		static const char *const names[] = {"n1", "n2", "n3"};

		come_back(nodes[i], "node", names[i]);
		ck_assert_int_eq(ask_lease(nodes[i], names[i], rig_sites[i], (uint8_t)(i + 1), 0),
				 0);
	}
	rig_run_ms(rig, 2000);
	ck_assert_int_eq(ask_attach(host, "v", "h1", "par"), 0);
	ck_assert_uint_eq(host->reply->attach_reply->size, 2 * chunk);
	ck_assert_uint_eq(host->reply->attach_reply->map.len, 2 * 3);
	ck_assert_int_eq(ask_resize(admin, "v", 3 * chunk), -E_IN_USE);
	ck_assert_int_eq(ask_resize(admin, "v", 2 * chunk), 0);
	for (uint32_t i = 0; i < 3; i++) {
		ck_assert_uint_eq(nodes[i]->erase_volume, nodes[0]->erase_volume);
		ck_assert_uint_eq(nodes[i]->erase_chunk_count, 3);
		for (uint32_t c = 0; c < 3; c++)
			ck_assert_uint_eq(nodes[i]->erase_chunks[c], 2 + c);
		nodes[i]->erase_hold = false;
		peer_answer_erase(nodes[i]);
	}
	rig_run_ms(rig, 2000);
	ck_assert_msg(ask_resize(admin, "v", 3 * chunk) == 0, "%s", admin->text);
	ck_assert_uint_eq(info()->size, 3 * chunk);
}
END_TEST

/* The same of what a member has in common with one that became smaller before: it must not begin
 * with what the other one gave up. */
START_TEST(a_clone_of_what_became_smaller_grows)
{
	const uint64_t chunk = 64ull << 20;

	for (uint32_t i = 0; i < 3; i++)
		nodes[i]->erase_hold = true;
	ck_assert_msg(ask_resize_by("v", 2 * chunk, true) == 0, "%s", admin->text);
	rig_run_ms(rig, 2000);
	ck_assert_int_eq(ask_snapshot(admin, "v", "s"), 0);
	ck_assert_int_eq(ask_clone(admin, "v@s", "w"), 0);
	ck_assert_int_eq(ask_resize(admin, "w", 3 * chunk), -E_IN_USE);
	ck_assert_msg(strstr(admin->text, "node n") != NULL, "%s", admin->text);
	ck_assert_int_eq(ask_volume(admin, "w"), 0);
	ck_assert_uint_eq(info()->size, 2 * chunk);
	/* What lay in its own chunks is none of the other's business. */
	ck_assert_int_eq(ask_resize(admin, "w", 2 * chunk), 0);
	for (uint32_t i = 0; i < 3; i++) {
		nodes[i]->erase_hold = false;
		peer_answer_erase(nodes[i]);
	}
	rig_run_ms(rig, 2000);
	ck_assert_msg(ask_resize(admin, "w", 3 * chunk) == 0, "%s", admin->text);
}
END_TEST

/* -- what is not durable yet ------------------------------------------------------------------ */

/* The driver dies while the commit is under way, and with it what was asked for. */
static void crash_undoes(void)
{
	rig->pd_process->fate = SIM_FATE_DROP;
	ck_assert(!admin->answered);
	rig_pd_crash(rig, SIM_KILL);
	sim_kv_slow_commits(rig->kv, 0);
	rig_pd_start(rig);
	come_back(admin, "admin", "test");
}

/* Else a volume of which nobody said that it is gone would have lost its copies. */
START_TEST(nothing_is_erased_that_a_crash_may_bring_back)
{
	volume_id_t v, top = settled_snapshot(&v);

	ck_assert_int_eq(ask_create(admin, "w", SIZE, "secnumcloud-fr"), 0);
	ck_assert_int_eq(ask_detach(host, v, 1), 0);
	sim_kv_slow_commits(rig->kv, 3600 * NS_PER_S);
	if (_i == 0)
		start_rollback(admin, "v@s");
	else if (_i == 1)
		start_delete("w");
	else
		start_resize("w", SIZE / 2, true);
	rig_run_ms(rig, 5000);
	for (uint32_t n = 0; n < 3; n++)
		ck_assert_uint_eq(nodes[n]->erases, 0);
	crash_undoes();
	ck_assert_int_eq(ask_volume(admin, "v"), 0);
	ck_assert_uint_eq(info()->layers[0], top);
	ck_assert_int_eq(ask_volume(admin, "w"), 0);
	ck_assert_uint_eq(info()->size, SIZE);
}
END_TEST

static int ask_diff(const char *from, const char *to, uint64_t offset)
{
	Pave__V1__Control m = PAVE__V1__CONTROL__INIT;
	Pave__V1__VolumeDiff d = PAVE__V1__VOLUME_DIFF__INIT;

	d.from = (char *)(uintptr_t)from;
	d.to = (char *)(uintptr_t)to;
	d.offset = offset;
	m.body_case = PAVE__V1__CONTROL__BODY_VOLUME_DIFF;
	m.volume_diff = &d;
	return peer_ask(admin, &m);
}

static void expect_extent(size_t i, uint64_t block, uint64_t count, bool zero)
{
	const Pave__V1__VolumeDiffReply *r = admin->reply->volume_diff_reply;

	ck_assert_uint_lt(i, r->n_extents);
	ck_assert_uint_eq(r->extents[i]->offset, block * BLOCK_SIZE);
	ck_assert_uint_eq(r->extents[i]->size, count * BLOCK_SIZE);
	ck_assert_int_eq(r->extents[i]->zero, zero);
}

/* What any node of a majority says was changed is told; of the layers that only one stands on. */
START_TEST(diff)
{
	volume_id_t v, top = settled_snapshot(&v);
	const Pave__V1__VolumeDiffReply *r;

	ck_assert_int_eq(ask_create(admin, "w", SIZE, "secnumcloud-fr"), 0);
	memcpy(nodes[0]->runs, (uint32_t[]){4, 4, 0, 100, 1, 1}, 6 * sizeof(uint32_t));
	nodes[0]->run_values = 6;
	for (uint32_t n = 1; n < 3; n++) {
		memcpy(nodes[n]->runs, (uint32_t[]){6, 4, 1}, 3 * sizeof(uint32_t));
		nodes[n]->run_values = 3;
	}
	ck_assert_msg(ask_diff("v@s", "v", 0) == 0, "%s", admin->text);
	r = admin->reply->volume_diff_reply;
	ck_assert_uint_eq(r->n_extents, 3);
	expect_extent(0, 4, 4, false);
	expect_extent(1, 8, 2, true);
	/* It alone says so: nobody may have acknowledged that. */
	expect_extent(2, 100, 1, false);
	ck_assert_int_eq(r->more, r->next < SIZE);
	ck_assert_uint_eq(r->size, SIZE);
	for (uint32_t n = 0; n < 3; n++) {
		ck_assert_uint_eq(nodes[n]->changes_layer_count, 1);
		ck_assert_uint_eq(nodes[n]->changes_layers[0], top);
	}
	/* From a block on. */
	ck_assert_int_eq(ask_diff("v@s", "v", 9 * BLOCK_SIZE), 0);
	expect_extent(0, 100, 1, false);
	/* One less, two less. */
	nodes[0]->changes_refuse = true;
	ck_assert_int_eq(ask_diff("v@s", "v", 0), 0);
	ck_assert_uint_eq(admin->reply->volume_diff_reply->n_extents, 1);
	expect_extent(0, 6, 4, true);
	peer_close(nodes[2]);
	rig_run_ms(rig, 100);
	ck_assert_int_eq(ask_diff("v@s", "v", 0), -E_UNREACHABLE);
	/* Nobody has to be asked where nothing differs. */
	ck_assert_int_eq(ask_diff("v@s", "v@s", 0), 0);
	ck_assert_uint_eq(admin->reply->volume_diff_reply->n_extents, 0);
	ck_assert_int_eq(ask_diff("v", "v@s", 0), -EINVAL);
	ck_assert_int_eq(ask_diff("v@s", "x", 0), -ENOENT);
	ck_assert_int_eq(ask_diff("v@s", "v", SIZE), -EINVAL);
	ck_assert_int_eq(ask_diff("v@s", "w", 0), -EINVAL);
}
END_TEST

/* One that tells of a block twice, in one answer or in two, is not listened to: nobody else says
 * that there are zeroes. Nor is one that tells of blocks that no chunk has. */
START_TEST(a_node_has_one_word_on_a_block)
{
	static const uint32_t told[3][6] = {
	    {0, 8, 1, 4, 4, 1}, {0, 8, 1, 4, 4, 1}, {0, 8, 1, 8, UINT32_MAX, 1}};
	volume_id_t v;

	(void)settled_snapshot(&v);
	memcpy(nodes[0]->runs, told[_i], sizeof told[_i]);
	nodes[0]->run_values = 6;
	nodes[0]->runs_at_once = _i > 0;
	memcpy(nodes[1]->runs, (uint32_t[]){100, 4, 1}, 3 * sizeof(uint32_t));
	nodes[1]->run_values = 3;
	ck_assert_msg(ask_diff("v@s", "v", 0) == 0, "%s", admin->text);
	ck_assert_uint_eq(admin->reply->volume_diff_reply->n_extents, 1);
	expect_extent(0, 100, 4, false);
	nodes[2]->changes_refuse = true;
	ck_assert_int_eq(ask_diff("v@s", "v", 0), -E_UNREACHABLE);
	ck_assert_ptr_nonnull(strstr(admin->text, "1 of its nodes could tell"));
}
END_TEST

/* v's snapshots s and t, both settled; returns the layer that t stands on and s does not. */
static volume_id_t two_snapshots(void)
{
	volume_id_t v, upper = settled_snapshot(&v);

	start_snapshot(admin, "v", "t");
	rig_run_ms(rig, 500);
	ck_assert_int_eq(renew_sealed(host, v, 1, upper), 0);
	ck_assert_int_eq(peer_ask_wait(admin), 0);
	return upper;
}

/* What is zeroes in the first of the two may be anything in the second. */
START_TEST(zeroes_are_told_of_the_second_state)
{
	volume_id_t layer = two_snapshots();

	ck_assert_int_eq(ask_clone(admin, "v@s", "w"), 0);
	for (uint32_t n = 0; n < 3; n++) {
		memcpy(nodes[n]->runs, (uint32_t[]){10, 5, 1}, 3 * sizeof(uint32_t));
		nodes[n]->run_values = 3;
		nodes[n]->changes_of = layer;
	}
	ck_assert_msg(ask_diff("v@s", "v@t", 0) == 0, "%s", admin->text);
	expect_extent(0, 10, 5, true);
	ck_assert_msg(ask_diff("v@t", "v@s", 0) == 0, "%s", admin->text);
	expect_extent(0, 10, 5, false);
	ck_assert_msg(ask_diff("v@t", "w", 0) == 0, "%s", admin->text);
	expect_extent(0, 10, 5, false);
}
END_TEST

/* t's layer is to be merged into the one below, as s is deleted. Returns it. */
static volume_id_t deleted_snapshot(void)
{
	volume_id_t upper = two_snapshots();

	for (uint32_t n = 0; n < 3; n++) {
		nodes[n]->merge_has = 1;
		nodes[n]->merge_blocks = 7;
		nodes[n]->merge_lower_whole = true;
	}
	ck_assert_int_eq(ask_delete(admin, "v@s"), 0);
	return upper;
}

/* Time passes, with leases and renewals. */
static void live(volume_id_t v, unsigned seconds)
{
	static const char *const names[] = {"n1", "n2", "n3"};

	for (unsigned i = 0; i < seconds; i++) {
		rig_run_ms(rig, 1000);
		for (uint32_t n = 0; n < 3; n++)
			ask_lease(nodes[n], names[n], rig_sites[n], (uint8_t)(n + 1), 0);
		ck_assert_int_eq(renew_sealed(host, v, 1, 0), 0);
	}
}

START_TEST(a_deleted_snapshots_layer_is_merged)
{
	volume_id_t upper = deleted_snapshot(), v = 1, top = host->notice.layers[0].id;
	struct permit p;

	live(v, 4);
	for (uint32_t n = 0; n < 3; n++) {
		ck_assert_uint_ge(nodes[n]->merges, 2); /* until nothing had to be written */
		ck_assert_uint_eq(nodes[n]->merge_upper, upper);
		ck_assert_uint_eq(nodes[n]->merge_lower, v);
		ck_assert(!nodes[n]->merge_fresh);
	}
	p = reply_permit(host);
	EXPECT_LAYERS(&p, 1, top, v);
	permit_deinit(&p);
	/* Who has an older permit may still read it. */
	ck_assert_uint_eq(nodes[0]->erased_layers >> upper & 1, 0);
	live(v, LIFETIME_MS / 1000 + 7);
	for (uint32_t n = 0; n < 3; n++)
		ck_assert_uint_eq(nodes[n]->erased_layers >> upper & 1, 1);
	ck_assert_uint_eq(nodes[0]->erased_layers >> v & 1, 0);
	rig_pd_crash(rig, SIM_POWER_LOSS);
	rig_pd_start(rig);
	come_back(admin, "admin", "test");
	ck_assert_int_eq(ask_volume(admin, "v@t"), 0);
	ck_assert_uint_eq(info()->n_layers, 2);
	ck_assert_uint_eq(info()->layers[1], v);
}
END_TEST

static void all_come_back(void)
{
	static const char *const names[] = {"n1", "n2", "n3"};

	come_back(admin, "admin", "test");
	come_back(host, "host", "h1");
	for (uint32_t n = 0; n < 3; n++)
		come_back(nodes[n], "node", names[n]);
}

/* A layer of which something has been brought to the one below, or to which something of the one
 * above has been brought, is in no other merge before; also for the next driver. */
START_TEST(a_merge_that_has_begun_ends_before_its_neighbours_begin)
{
	const volume_id_t second = two_snapshots(), third = host->notice.layers[0].id, v = 1;
	const volume_id_t lower = _i % 2 == 0 ? second : v, other = _i % 2 == 0 ? v : second;

	start_snapshot(admin, "v", "u");
	rig_run_ms(rig, 500);
	ck_assert_int_eq(renew_sealed(host, v, 1, third), 0);
	ck_assert_int_eq(peer_ask_wait(admin), 0);
	for (uint32_t n = 0; n < 3; n++) {
		nodes[n]->merge_has = 1;
		nodes[n]->merge_lower_whole = true;
	}
	nodes[0]->merge_refuse = lower;
	ck_assert_int_eq(ask_delete(admin, lower == v ? "v@s" : "v@t"), 0);
	live(v, 5);
	ck_assert_uint_eq(nodes[1]->merge_lower, lower);
	ck_assert_int_eq(ask_delete(admin, lower == v ? "v@t" : "v@s"), 0);
	if (_i >= 2) {
		rig_pd_crash(rig, SIM_POWER_LOSS);
		rig_pd_start(rig);
		all_come_back();
	}
	for (unsigned i = 0; i < 60; i++) {
		live(v, 1);
		ck_assert_uint_ne(nodes[1]->merge_lower, other);
	}
	nodes[0]->merge_refuse = 0;
	live(v, 60);
	ck_assert_uint_eq(nodes[1]->merge_lower, v);
	ck_assert_int_eq(ask_volume(admin, "v@u"), 0);
	ck_assert_uint_eq(info()->n_layers, 2);
}
END_TEST

/* A copy that is not whole, or not there, ends it: nothing changes. */
START_TEST(a_merge_wants_every_copy)
{
	volume_id_t upper = deleted_snapshot(), v = 1;

	nodes[2]->merge_has = 0;
	live(v, 8);
	ck_assert_uint_eq(nodes[0]->merges, 0);
	nodes[2]->merge_has = 1;
	nodes[2]->merge_lower_whole = false;
	live(v, 30);
	ck_assert_uint_eq(nodes[0]->merges, 0);
	ck_assert_int_eq(ask_volume(admin, "v"), 0);
	ck_assert_uint_eq(info()->n_layers, 3);
	/* Nobody has anything of the lower one: then it may begin there. */
	nodes[0]->merge_lower_whole = nodes[1]->merge_lower_whole = false;
	live(v, 30);
	ck_assert(nodes[2]->merge_fresh);
	ck_assert_int_eq(ask_volume(admin, "v"), 0);
	ck_assert_uint_eq(info()->n_layers, 2);
	(void)upper;
}
END_TEST

/* A merge broke off when some copies of what the lower layer never had had got their last word: the
 * others get it, and it goes on. With blocks in it, they are to be restored first. */
START_TEST(a_merge_goes_on_among_last_words)
{
	volume_id_t v = 1;

	deleted_snapshot();
	nodes[1]->merge_lower_whole = nodes[2]->merge_lower_whole = false;
	live(v, 8);
	ck_assert_uint_eq(nodes[0]->merges, 0);
	nodes[0]->merge_lower_empty = true;
	live(v, 30);
	ck_assert(!nodes[0]->merge_fresh);
	ck_assert(nodes[1]->merge_fresh);
	ck_assert(nodes[2]->merge_fresh);
	ck_assert_int_eq(ask_volume(admin, "v"), 0);
	ck_assert_uint_eq(info()->n_layers, 2);
}
END_TEST

/* The snapshot that was to be deleted may be there again after a crash, and is what it was. */
START_TEST(nothing_is_merged_under_what_a_crash_may_bring_back)
{
	two_snapshots();
	for (uint32_t n = 0; n < 3; n++) {
		nodes[n]->merge_has = 1;
		nodes[n]->merge_blocks = 7;
		nodes[n]->merge_lower_whole = true;
	}
	sim_kv_slow_commits(rig->kv, 3600 * NS_PER_S);
	start_delete("v@s");
	rig_run_ms(rig, 5000);
	for (uint32_t n = 0; n < 3; n++)
		ck_assert_uint_eq(nodes[n]->merges, 0);
	crash_undoes();
	ck_assert_int_eq(ask_volume(admin, "v@s"), 0);
}
END_TEST

/* A merge knows the nodes that it asks: one that is removed meanwhile is forgotten after it. */
START_TEST(a_node_is_removed_amid_a_merge)
{
	volume_id_t v = 1;

	deleted_snapshot();
	nodes[1]->merge_hold = true;
	live(v, 3);
	ck_assert_uint_ne(nodes[1]->merge_held, 0);
	ck_assert_int_eq(ask_detach(host, v, 1), 0);
	ck_assert_int_eq(ask_delete(admin, "v@t"), 0);
	ck_assert_int_eq(ask_delete(admin, "v"), 0);
	rig_run_ms(rig, 2000);
	peer_close(nodes[0]);
	ck_assert_msg(ask_remove(admin, "n1", false) == 0, "%s", admin->text);
	rig_run_ms(rig, 3000);
	ck_assert_int_eq(ask_remove(admin, "n1", true), 0);
	peer_answer_merge(nodes[1]);
	rig_run_ms(rig, 3000);
	ck_assert_int_eq(ask_remove(admin, "n1", true), -ENOENT);
}
END_TEST

/* A crash of the driver in between: the next one begins anew. */
START_TEST(a_merge_outlives_the_driver)
{
	deleted_snapshot();
	rig_run_ms(rig, 1500);
	rig_pd_crash(rig, SIM_POWER_LOSS);
	rig_pd_start(rig);
	all_come_back();
	live(1, 30);
	ck_assert_int_eq(ask_volume(admin, "v"), 0);
	ck_assert_uint_eq(info()->n_layers, 2);
}
END_TEST

/* A driver that leads no more ends in its process, which goes on: nothing of it may stay. (Leaks
 * are the address sanitizer's to find.) */
START_TEST(a_driver_ends_amid_a_merge)
{
	deleted_snapshot();
	rig_run_ms(rig, (uint64_t)_i * 100);
	rig_pd_end(rig);
	rig_pd_crash(rig, SIM_KILL);
	rig_pd_start(rig);
	all_come_back();
	live(1, 30);
	ck_assert_int_eq(ask_volume(admin, "v"), 0);
	ck_assert_uint_eq(info()->n_layers, 2);
}
END_TEST

/* -- a snapshot that moves by itself ------------------------------------------------------------
 */

static size_t active_moves(void)
{
	return ask_status(admin)->n_active;
}

/* Somebody reads a snapshot, so it moves by itself. What begins in its places begins without those
 * that it is about to have: else the target of a move that is given up would be one of its nodes
 * for ever, also when it was removed. */
START_TEST(a_member_begins_while_its_snapshot_moves)
{
	struct peer *reader = peer_new(rig, "host", "h2"), *n4;
	generation_t generation;
	volume_id_t v, own;
	struct permit p;

	(void)settled_snapshot(&v);
	ck_assert_int_eq(ask_detach(host, v, 1), 0);
	ck_assert_int_eq(ask_site_add(admin, rig->sites[3]), 0);
	n4 = peer_new(rig, "node", "n4");
	ck_assert_int_eq(ask_lease(n4, "n4", rig_sites[3], 4, 0), 0);
	ck_assert_msg(ask_attach_read_only(reader, "v@s") == 0, "%s", reader->text);
	p = reply_permit(reader);
	own = p.volume;
	generation = p.generation;
	permit_deinit(&p);
	ck_assert_int_eq(ask_drain(admin, "n1", false), 0);
	rig_run_ms(rig, 3000);
	ck_assert_uint_eq(active_moves(), SIZE / (64ull << 20));
	if (_i == 0)
		ck_assert_msg(ask_clone(admin, "v@s", "w") == 0, "%s", admin->text);
	else
		ck_assert_msg(ask_rollback(admin, "v@s") == 0, "%s", admin->text);
	ck_assert_int_eq(ask_drain(admin, "n1", true), 0);
	rig_run_ms(rig, 2000);
	ck_assert_uint_eq(active_moves(), 0);
	ck_assert_int_eq(ask_renew(reader, own, generation), 0); /* is told, and says so: */
	ck_assert_int_eq(ask_renew(reader, own, generation), 0);
	rig_run_ms(rig, 2000);
	peer_close(n4);
	ck_assert_msg(ask_remove(admin, "n4", false) == 0, "%s", admin->text);
	rig_run_ms(rig, 2000);
	ck_assert_int_eq(ask_remove(admin, "n4", true), -ENOENT); /* forgotten */
	rig_pd_crash(rig, SIM_POWER_LOSS);
	rig_pd_start(rig);
	come_back(admin, "admin", "test");
	ck_assert_int_eq(ask_volume(admin, _i == 0 ? "w" : "v"), 0);
	ck_assert_uint_eq(admin->reply->volume_get_reply->n_nodes, 3);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("placement_layers");
	TCase *tc = tcase_create("layers");
	SRunner *runner;
	int failed;

	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_set_timeout(tc, 60);
	tcase_add_test(tc, snapshot_of_an_attached_volume);
	tcase_add_test(tc, settled_by_the_next_attachment);
	tcase_add_test(tc, settled_by_a_node);
	tcase_add_test(tc, the_owner_of_what_is_not_settled_stays);
	tcase_add_test(tc, what_is_not_settled_goes_with_its_owner);
	tcase_add_test(tc, snapshot_of_a_new_volume);
	tcase_add_test(tc, layers_are_dropped);
	tcase_add_test(tc, a_rollback_ends_what_has_lapsed);
	tcase_add_test(tc, layers_are_bounded);
	tcase_add_test(tc, resize);
	tcase_add_test(tc, a_volume_becomes_smaller);
	tcase_add_test(tc, a_clone_of_what_became_smaller_grows);
	tcase_add_loop_test(tc, nothing_is_erased_that_a_crash_may_bring_back, 0, 3);
	tcase_add_test(tc, diff);
	tcase_add_loop_test(tc, a_node_has_one_word_on_a_block, 0, 3);
	tcase_add_test(tc, zeroes_are_told_of_the_second_state);
	tcase_add_test(tc, a_deleted_snapshots_layer_is_merged);
	tcase_add_loop_test(tc, a_merge_that_has_begun_ends_before_its_neighbours_begin, 0, 4);
	tcase_add_test(tc, a_merge_wants_every_copy);
	tcase_add_test(tc, a_merge_goes_on_among_last_words);
	tcase_add_test(tc, nothing_is_merged_under_what_a_crash_may_bring_back);
	tcase_add_test(tc, a_node_is_removed_amid_a_merge);
	tcase_add_test(tc, a_merge_outlives_the_driver);
	tcase_add_loop_test(tc, a_driver_ends_amid_a_merge, 0, 30);
	tcase_add_loop_test(tc, a_member_begins_while_its_snapshot_moves, 0, 2);
	suite_add_tcase(suite, tc);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_NORMAL);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed == 0 ? 0 : 1;
}
