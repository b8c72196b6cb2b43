/* faults_evidence: see faults_evidence.h. They draw from a stream of their own, and come in a share
 * of the seeds, so that the others, and those of tests/sim/regressions, run as they did without
 * them.
 */
#include "tests/sim/faults_evidence.h"

#include <string.h>

#include "tests/sim/bays.h"
#include "tests/sim/checks.h"
#include "tests/sim/fault.h"
#include "tests/sim/faults.h"

#define GAP_MIN_NS (3 * NS_PER_S)
#define GAP_MAX_NS (15 * NS_PER_S)
#define BEFORE_MIN_NS                                                                              \
	(CLOCK_BOUND_NS + 20 * NS_PER_MS) /* deadlines come before the end by that                 \
					   */
#define BEFORE_MAX_NS	  (CLOCK_BOUND_NS + 300 * NS_PER_MS)
#define AFTER_MAX_NS	  NS_PER_S
#define SLOWNESS_MIN	  20u
#define SLOWNESS_MAX	  200u
#define ALONE_MIN_NS	  (20 * NS_PER_MS)
#define ALONE_MAX_NS	  (300 * NS_PER_MS)
#define QUARANTINE_MIN_NS (100 * NS_PER_MS)
#define QUARANTINE_MAX_NS (3 * NS_PER_S)
#define LAST_MAX_NS	  (3 * NS_PER_S)
#define WITHDRAWN_MAX_NS  (20 * NS_PER_S)

static void run_later(struct cluster *c, uint64_t delay_ns, struct ending *e)
{
	sim_schedule(c->world, NULL, delay_ns, fault_run_ending, e);
}

/* -- stopped over the end of a lease or permit, in three acts -------------------------------------
 */

/* When what it was given last runs out; UINT64_MAX: never asked. */
static uint64_t evidence_until(const struct cluster *c, const struct machine *m)
{
	const uint64_t lifetime_ns = (uint64_t)c->permit_lifetime_ms * NS_PER_MS;

	for (uint32_t n = 0; n < c->node_count; n++)
		if (c->nodes[n] == m)
			return c->lease_sent_ns[n] + lifetime_ns;
	for (uint32_t h = 0; h < CLUSTER_HOSTS; h++)
		if (c->hosts[h] == m)
			return c->permit_sent_ns[h] + lifetime_ns + CHECKS_CLOCK_SLACK_NS;
	return UINT64_MAX;
}

static void cut_from_drivers(struct cluster *c, struct machine *m, bool cut)
{
	for (uint32_t p = 0; p < c->pd_count; p++) {
		sim_net_cut(c->pds[p]->process, m->process, cut);
		sim_net_cut(m->process, c->pds[p]->process, cut);
	}
}

/* Act 3: it goes on with what is queued. */
static void stop_ends(struct ending *e)
{
	struct cluster *c = e->cluster;

	if (c->faults_over)
		return;
	sim_process_resume(e->a->process);
	cut_from_drivers(c, e->a, false);
	if (e->a->kind == MACHINE_NODE)
		bays_set_slowness(e->a->bays, 1);
}

/* Act 2: it is stopped. */
static void stop_begins(struct ending *e)
{
	struct cluster *c = e->cluster;
	const uint64_t until_ns = evidence_until(c, e->a);

	if (c->faults_over)
		return;
	sim_process_pause(e->a->process);
	run_later(c, until_ns - MIN(until_ns, c->world->now_ns) + fault_below(c, AFTER_MAX_NS),
		  fault_ending(c, e->a, NULL, 0, stop_ends));
}

/* Act 1: its lease, or permit, is the last for a while. A slow disk sees to it that something is in
 * flight when that ends. */
static void stop_over_end(struct cluster *c, struct machine *m)
{
	const uint64_t host_ns = m->kind == MACHINE_HOST ? CHECKS_CLOCK_SLACK_NS : 0;
	const uint64_t before_ns = host_ns + fault_range(c, BEFORE_MIN_NS, BEFORE_MAX_NS);
	const uint64_t until_ns = evidence_until(c, m);
	const uint64_t at_ns = c->world->now_ns + before_ns;
	struct machine *slow = m->kind == MACHINE_NODE ? m : fault_node(c);

	if (until_ns < at_ns || !m->process->alive)
		return;
	c->stats.stops++;
	sim_trace(c->world, m->process, "is to be stopped when its evidence ends, at %llu ms",
		  until_ns / NS_PER_MS);
	cut_from_drivers(c, m, true);
	bays_set_slowness(slow->bays, fault_range(c, SLOWNESS_MIN, SLOWNESS_MAX));
	run_later(c, until_ns - at_ns, fault_ending(c, m, NULL, 0, stop_begins));
}

/* -- quarantine in mid-write, in four acts --------------------------------------------------- */

static void cut_from_nodes(struct cluster *c, struct machine *host, const struct machine *but,
			   bool cut)
{
	for (uint32_t n = 0; n < c->node_count; n++)
		if (c->nodes[n] != but)
			sim_net_cut(host->process, c->nodes[n]->process, cut);
}

/* Act 4: all nodes hear the host again. */
static void quarantine_ends(struct ending *e)
{
	if (!e->cluster->faults_over)
		cut_from_nodes(e->cluster, e->a, NULL, false);
}

/* Act 3: another node answers, but a third. */
static void quarantine_answer(struct ending *e)
{
	struct cluster *c = e->cluster;
	struct machine *other;

	if (c->faults_over)
		return;
	do
		other = fault_node(c);
	while (other == e->b);
	sim_net_cut(e->a->process, other->process, false);
	run_later(c, fault_below(c, LAST_MAX_NS), fault_ending(c, e->a, NULL, 0, quarantine_ends));
}

/* Act 2: the site of the one that has answered is withdrawn. */
static void quarantine_withdraw(struct ending *e)
{
	struct cluster *c = e->cluster;

	if (c->faults_over)
		return;
	if (cluster_withdraw(c, e->site, true)) {
		c->stats.revocations++;
		fault_end_later(c, NULL, NULL, e->site, WITHDRAWN_MAX_NS, fault_end_withdrawal);
	}
	run_later(c, fault_range(c, QUARANTINE_MIN_NS, QUARANTINE_MAX_NS),
		  fault_ending(c, e->a, e->b, 0, quarantine_answer));
}

/* Act 1: for a moment what the host writes gets to one node only, which is not in its own site. */
static void quarantine(struct cluster *c, struct machine *host)
{
	uint32_t site;

	do
		site = (uint32_t)fault_below(c, c->node_count);
	while (strcmp(c->sites[site].name, host->site) == 0);
	c->stats.quarantines++;
	sim_trace(c->world, NULL, "quarantine: what %s writes gets to %s only, whose site goes",
		  host->process->name, c->nodes[site]->process->name);
	cut_from_nodes(c, host, c->nodes[site], true);
	run_later(c, fault_range(c, ALONE_MIN_NS, ALONE_MAX_NS),
		  fault_ending(c, host, c->nodes[site], site, quarantine_withdraw));
}

/* -- choosing -------------------------------------------------------------------------------- */

static bool has_them(uint64_t seed)
{
	/* None of tests/sim/regressions, when this came. */
	const uint64_t x = seed % 23;

	return x == 14 || x == 16 || x == 20;
}

static void next_one(void *arg)
{
	struct cluster *c = arg;
	struct machine *host = fault_attached_host(c);
	uint64_t what;

	if (c->faults_over)
		return;
	c->fault_stream = c->world->seed * 0xd6e8feb86659fd93ull + c->stats.evidence_faults++;
	what = fault_below(c, 3);
	if (what == 0)
		stop_over_end(c, fault_node(c));
	else if (what == 1 && host != NULL)
		stop_over_end(c, host);
	else if (host != NULL)
		quarantine(c, host);
	sim_schedule(c->world, NULL, fault_range(c, GAP_MIN_NS, GAP_MAX_NS), next_one, c);
}

void faults_evidence_begin(struct cluster *c)
{
	if (has_them(c->world->seed) && faults_course(c, FAULTS_EVIDENCE))
		sim_schedule(c->world, NULL, GAP_MIN_NS, next_one, c);
}
