/* coverage: see coverage.h. */
#include "tests/sim/coverage.h"

#include <string.h>

#include "engine/base/assert.h"
#include "tests/sim/faults.h"

static void row(struct coverage *k, const char *name, uint64_t count)
{
	INVARIANT(k->row_count < COVERAGE_ROWS_MAX);
	k->rows[k->row_count++] =
	    (struct coverage_row){.name = name, .count = count, .seeds = count > 0};
}

static uint64_t met_at_io(const struct cluster *c, enum sim_io_action action)
{
	uint64_t sum = 0;

	for (uint32_t i = 0; i < c->machine_count; i++)
		sum += c->machines[i].process->io_faults[action];
	return sum;
}

static uint64_t lost_for_ever(const struct cluster *c, enum machine_kind kind)
{
	uint64_t sum = 0;

	for (uint32_t i = 0; i < c->machine_count; i++)
		sum += c->machines[i].kind == kind && c->machines[i].dead_for_ever;
	return sum;
}

static uint64_t has(const struct cluster *c, enum faults_course course)
{
	return c->courses >> course & 1;
}

static void take_faults(const struct cluster *c, struct coverage *k)
{
	for (uint32_t i = 0; i < FAULTS_KINDS; i++)
		row(k, faults_kind_name(i), c->stats.faults[i]);
	row(k, "I/Os that failed", met_at_io(c, SIM_IO_FAIL));
	row(k, "I/Os at which a process was killed", met_at_io(c, SIM_IO_KILL));
	row(k, "I/Os at which a machine lost power", met_at_io(c, SIM_IO_POWER_LOSS));
	row(k, "contests in silence", c->stats.contests_silent);
	row(k, "contests with a deaf node", c->stats.contests_deaf);
	row(k, "strands to the third act", c->stats.strands_done);
	row(k, "stops in mid-turn", c->world->stall_count);
	row(k, "stops over the end of evidence", c->stats.stops);
	row(k, "sites withdrawn in mid-write", c->stats.quarantines);
	row(k, "sites withdrawn for good", has(c, FAULTS_LAST_WITHDRAWAL));
	row(k, "revocation snapshots that run out soon", has(c, FAULTS_EXPIRY));
	row(k, "certificates that end soon", c->stats.certificates);
	row(k, "strangers", c->stats.strangers);
	row(k, "disks that were full", c->stats.full);
	row(k, "devices added", c->stats.devices_added);
	row(k, "devices retired", c->stats.devices_retired);
	row(k, "devices away for a while", c->stats.devices_away);
	row(k, "devices lost for ever", c->stats.devices_lost);
	row(k, "slow disks while layers settled", c->stats.slow_settlings);
	row(k, "nodes lost for ever", lost_for_ever(c, MACHINE_NODE));
	row(k, "drivers lost for ever", lost_for_ever(c, MACHINE_PD));
}

static uint64_t deleted_shots(const struct cluster *c)
{
	uint64_t sum = 0;

	for (uint32_t i = 0; i < c->shot_count; i++)
		sum += c->shots[i].deleted;
	return sum;
}

static void take_events(const struct cluster *c, struct coverage *k)
{
	struct oracle_stats os;

	oracle_get_stats(c->oracle, &os);
	row(k, "writes acknowledged", os.acknowledged);
	row(k, "writes refused", os.failed);
	row(k, "blocks checked", os.blocks_checked);
	row(k, "undecided writes seen", os.undecided_seen);
	row(k, "attachments", c->stats.attaches);
	row(k, "attachments that were fenced", c->stats.fenced);
	row(k, "migrations", c->stats.migrations);
	row(k, "snapshots", c->shot_count);
	row(k, "snapshots deleted", deleted_shots(c));
	row(k, "attachments of snapshots", c->stats.shot_attaches);
	row(k, "blocks of snapshots checked", os.shot_blocks);
	row(k, "drains and levellings", c->stats.moves);
	row(k, "copies moved", c->moves_done);
	row(k, "maintenances", c->stats.maintained);
	row(k, "elections", c->etcd != NULL ? c->stats.elections : 0);
	row(k, "blocks moved between devices", c->stats.device_blocks);
	row(k, "receipts", c->stats.receipts);
}

void coverage_take(const struct cluster *c, struct coverage *ret_coverage)
{
	*ret_coverage = (struct coverage){0};
	take_faults(c, ret_coverage);
	take_events(c, ret_coverage);
}

void coverage_add(struct coverage *total, const struct coverage *one)
{
	INVARIANT(total->row_count == 0 || total->row_count == one->row_count);
	total->row_count = one->row_count;
	for (uint32_t i = 0; i < one->row_count; i++) {
		total->rows[i].name = one->rows[i].name;
		total->rows[i].count += one->rows[i].count;
		total->rows[i].seeds += one->rows[i].seeds;
	}
}

void coverage_print(const struct coverage *k, FILE *to)
{
	for (uint32_t i = 0; i < k->row_count; i++)
		fprintf(to, "%-40s %10lu in %5lu seeds\n", k->rows[i].name, k->rows[i].count,
			k->rows[i].seeds);
}

uint32_t coverage_missing(const struct coverage *k, char *buf, size_t size)
{
	uint32_t missing = 0;
	size_t used = 0;

	buf[0] = '\0';
	for (uint32_t i = 0; i < k->row_count; i++) {
		if (k->rows[i].count > 0)
			continue;
		if (used < size)
			used += (size_t)snprintf(buf + used, size - used, "%s%s",
						 missing > 0 ? ", " : "", k->rows[i].name);
		missing++;
	}
	return missing;
}

uint64_t coverage_count(const struct coverage *k, const char *name)
{
	for (uint32_t i = 0; i < k->row_count; i++)
		if (strcmp(k->rows[i].name, name) == 0)
			return k->rows[i].count;
	return 0;
}
