/* faults_disks: see faults_disks.h. Each kind draws from a stream of its own, and comes in a share
 * of the seeds, so that the others, and those of tests/sim/regressions, run as they did without it.
 */
#include "tests/sim/faults_disks.h"

#include "engine/placement/driver.h"
#include "engine/placement/layers.h"
#include "tests/sim/bays.h"
#include "tests/sim/fault.h"
#include "tests/sim/faults.h"
#include "tests/sim/pds.h"

#define SLOW_MAX_NS	 (15 * NS_PER_S)
#define DEVICES_GAP_NS	 (5 * NS_PER_S)
#define DEVICE_CRASH_NS	 (2 * NS_PER_S)
#define DEVICE_AWAY_NS	 (20 * NS_PER_S)
#define DEVICE_IO_AHEAD	 300u
#define LOOK_GAP_NS	 (200 * NS_PER_MS)
#define SETTLING_GAP_NS	 (400 * NS_PER_MS)
#define SETTLING_SLOW_NS (6 * NS_PER_S)
#define WORK_MAX_NS	 (200 * NS_PER_MS)

/* -- slow disks ------------------------------------------------------------------------------ */

static void end_slowness(struct ending *e)
{
	bays_set_slowness(e->a->bays, 1);
	e->a->process->work_ns = 0;
}

bool faults_slow_disk(struct cluster *c)
{
	struct machine *m = fault_node(c);

	bays_set_slowness(m->bays, fault_range(c, 5, 400));
	fault_end_later(c, m, NULL, 0, SLOW_MAX_NS, end_slowness);
	return true;
}

bool faults_slow_settling(uint64_t seed)
{
	/* None of tests/sim/regressions, when this came. */
	const uint64_t x = seed % 17;

	return x == 5 || x == 11 || x == 14;
}

static bool has_child(const struct pd *pd, const struct reg_layer *parent)
{
	for (const struct reg_layer *l = pd->reg.layers; l != NULL; l = l->hh.next)
		if (l->parent == parent->id)
			return true;
	return false;
}

/* A layer is being settled or merged, or a copy or what a deleted volume left is being erased, as
 * far as the driver that leads knows. */
static bool layers_settle(const struct cluster *c)
{
	const struct pd *pd = pds_leading(c);

	for (const struct reg_layer *l = pd != NULL ? pd->reg.layers : NULL; l != NULL;
	     l = l->hh.next)
		if (l->merging != 0 || (!l->sealed && has_child(pd, l)))
			return true;
	for (const struct reg_volume *v = pd != NULL ? pd->reg.volumes : NULL; v != NULL;
	     v = v->hh.next)
		if (v->deleted && v->erase_count > 0)
			return true;
	return false;
}

static void slow_one(struct cluster *c, struct machine *m)
{
	const uint64_t factor = fault_range(c, 5, 400);

	bays_set_slowness(m->bays, factor);
	/* The index lies on a disk too. */
	if (fault_chance(c, 1, 2))
		m->process->work_ns = fault_range(c, NS_PER_MS, WORK_MAX_NS);
	sim_trace(c->world, m->process, "layers settle: its disks are %lu times as slow", factor);
	fault_end_later(c, m, NULL, 0, SETTLING_SLOW_NS, end_slowness);
}

/* Of one node, or more. In some seeds so often that disks are slow nearly all the time, in others
 * so that layers get somewhere in between. */
static void next_settling(void *arg)
{
	struct cluster *c = arg;
	const uint64_t one_in = c->world->seed / 17 % 2 == 0 ? 4 : 20;

	if (c->faults_over)
		return;
	c->fault_stream = c->world->seed * 0x8cb92ba72f3d8dd7ull + c->stats.settlings;
	if (layers_settle(c)) {
		c->stats.settlings++;
		if (fault_chance(c, 1, one_in)) {
			const uint64_t count = fault_range(c, 1, c->node_count);

			c->stats.slow_settlings++;
			for (uint64_t i = 0; i < count; i++)
				slow_one(c, fault_node(c));
		}
	}
	sim_schedule(c->world, NULL, SETTLING_GAP_NS, next_settling, c);
}

/* -- devices that come and go ---------------------------------------------------------------- */

static void device_back(struct ending *e)
{
	struct cluster *c = e->cluster;

	if (c->faults_over || !bays_give_back(e->a->bays))
		return;
	sim_process_crash(e->a->process, SIM_KILL);
}

/* Its cable is pulled: the node goes on without it from its next start on, until it is back. */
static void take_device_away(struct cluster *c, struct machine *m)
{
	if (!bays_take_away(m->bays, fault_below(c, UINT32_MAX)))
		return;
	c->stats.devices_away++;
	sim_process_crash(m->process, fault_chance(c, 1, 2) ? SIM_KILL : SIM_POWER_LOSS);
	fault_end_later(c, m, NULL, 0, DEVICE_AWAY_NS, device_back);
}

/* In the midst of what has just begun, or a little later. */
static void crash_around(struct cluster *c, struct machine *m)
{
	if (fault_chance(c, 1, 2))
		return;
	if (fault_chance(c, 1, 2)) {
		c->stats.kills++;
		fault_end_later(c, m, NULL, 0, DEVICE_CRASH_NS, fault_kill);
		return;
	}
	c->stats.io_crashes++;
	sim_process_on_io(m->process, 1 + fault_below(c, DEVICE_IO_AHEAD),
			  fault_chance(c, 1, 2) ? SIM_IO_KILL : SIM_IO_POWER_LOSS);
}

static void next_device(void *arg)
{
	struct cluster *c = arg;
	struct machine *m;
	uint64_t what, draw;

	if (c->faults_over)
		return;
	c->fault_stream = c->world->seed * 0xb5026f5aa96619e9ull + c->stats.device_faults++;
	m = fault_node(c);
	what = fault_below(c, 10);
	draw = fault_below(c, UINT32_MAX);
	if (what == 0)
		take_device_away(c, m);
	else if (what < 5 ? bays_add(m->bays, draw) : bays_retire(m->bays, draw))
		crash_around(c, m);
	sim_schedule(c->world, NULL, fault_below(c, DEVICES_GAP_NS), next_device, c);
}

static void look(void *arg)
{
	struct cluster *c = arg;

	for (uint32_t n = 0; n < c->node_count; n++)
		bays_look(c->nodes[n]->bays);
	sim_schedule(c->world, NULL, LOOK_GAP_NS, look, c);
}

/* -- begin and end --------------------------------------------------------------------------- */

void faults_disks_begin(struct cluster *c)
{
	if (bays_are_many(c->world->seed) && faults_course(c, FAULTS_DEVICES)) {
		sim_schedule(c->world, NULL, NS_PER_S, next_device, c);
		sim_schedule(c->world, NULL, LOOK_GAP_NS, look, c);
	}
	if (faults_slow_settling(c->world->seed) && faults_course(c, FAULTS_SETTLING))
		sim_schedule(c->world, NULL, SETTLING_GAP_NS, next_settling, c);
}

void faults_disks_end(struct cluster *c)
{
	for (uint32_t n = 0; n < c->node_count; n++) {
		struct machine *m = c->nodes[n];

		bays_set_slowness(m->bays, 1);
		m->process->work_ns = 0;
		if (bays_give_back(m->bays))
			sim_process_crash(m->process, SIM_KILL);
	}
}

bool faults_disks_lose(struct cluster *c, struct machine *m)
{
	if (!bays_are_many(c->world->seed))
		return false;
	c->fault_stream = c->world->seed * 0x94d049bb133111ebull;
	if (fault_chance(c, 1, 4) || !bays_lose(m->bays, fault_below(c, UINT32_MAX)))
		return false;
	c->stats.devices_lost++;
	sim_process_crash(m->process, SIM_POWER_LOSS);
	return true;
}
