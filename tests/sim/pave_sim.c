/* pave-sim: runs simulated clusters, each from its seed (seed.h), and checks them: one, many, or
 * many with each mutant (explore.h).
 *
 * Exit codes: 0 every seed passed, or every mutant was found; 1 one failed, or was not; 2 usage. */
#include <getopt.h>
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/sim/explore.h"

/* Memory that is given back is soon asked for again; the pools of a process that starts are fresh
 * pages, which cost nothing until they are touched. */
#define MEMORY_KEPT_BYTES (256 << 20)
#define MEMORY_POOL_BYTES (1 << 20)

#define RUNS_MAX   100u
#define PATIENCE_S 300u

struct options {
	struct explore_options explore; /* its first seed is the one of --seed, too */
	bool one, minimise, no_minimise, mutants;
};

static const char usage[] =
    "Usage: pave-sim --seed S [--trace] | --seeds N [--from S] [--jobs J] [--mutants]\n"
    "Runs a whole cluster in one process on virtual time, with faults, and checks it.\n"
    "\n"
    "  --seed S       runs this seed\n"
    "  --seeds N      runs N seeds, each in a process of its own, up to the first that fails;\n"
    "                 of that it finds the least that fails (--minimise)\n"
    "  --from S       the first of them (default 1)\n"
    "  --jobs J       so many at once (default 1)\n"
    "  --minutes M    virtual time with faults (default 1)\n"
    "  --no-faults    nothing goes wrong\n"
    "  --covered      with --seeds: fails, too, when some fault or event came in none of them\n"
    "  --minimise     with --seed: leaves out as much as it can of what goes wrong in a seed that\n"
    "                 fails; the last line is the command that replays what is left\n"
    "  --no-minimise  with --seeds: not\n"
    "  --runs N       to minimise takes N runs at most (default 100), and begins none\n"
    "  --patience S   when it has taken S seconds (default 300)\n"
    "  --only LIST    of all faults only these, by number, or none: as --minimise printed it\n"
    "  --without LIST courses that are left out, by name, or all: moves,snapshots,...\n"
    "  --trace        the whole timeline goes to stderr\n"
    "  --mutant NAME  breaks one promise of the code on purpose; some seed must find it\n"
    "  --mutants[=LIST] every mutant, or these, each with up to --seeds seeds: fails when no "
    "check\n"
    "                 finds one, or a seed that does so fails without it\n"
    "  --verbose      with --seeds: what happened in each of them, and in all\n"
    "  --help\n";

/* What a crash abandons is not a leak (process.h). Asked by the leak sanitizer. */
int __lsan_is_turned_off(void);
int __lsan_is_turned_off(void)
{
	return 1;
}

/* -- lists ----------------------------------------------------------------------------------- */

/* The next name of a list by commas, copied; false: there is none. */
static bool next_name(const char **list, char *buf, size_t size)
{
	const size_t length = strcspn(*list, ",");

	if (length == 0)
		return false;
	snprintf(buf, size, "%.*s", (int)length, *list);
	*list += length + ((*list)[length] == ',');
	return true;
}

static bool parse_mutant(const char *text, enum mutant *ret_mutant)
{
	for (enum mutant m = MUTANT_NONE; m < MUTANTS; m++) {
		if (strcmp(mutant_name(m), text) == 0) {
			*ret_mutant = m;
			return true;
		}
	}
	fprintf(stderr, "pave-sim: there is no mutant %s\n", text);
	return false;
}

/* list NULL: all. */
static bool parse_mutants(struct options *o, const char *list)
{
	char name[64];
	enum mutant m;

	o->mutants = true;
	for (m = MUTANT_NONE + 1; m < MUTANTS; m++)
		o->explore.mutants[m] = list == NULL;
	while (list != NULL && next_name(&list, name, sizeof(name))) {
		if (!parse_mutant(name, &m))
			return false;
		o->explore.mutants[m] = true;
	}
	return true;
}

static bool parse_without(struct faults_left_out *left_out, const char *list)
{
	char name[64];

	while (next_name(&list, name, sizeof(name))) {
		uint32_t found = strcmp(name, "all") == 0 ? UINT32_MAX : 0;

		for (uint32_t i = 0; i < FAULTS_COURSES_COUNT; i++)
			if (strcmp(name, faults_course_name(i)) == 0)
				found |= 1u << i;
		if (found == 0) {
			fprintf(stderr, "pave-sim: --without %s: there is none such, but all",
				name);
			for (uint32_t i = 0; i < FAULTS_COURSES_COUNT; i++)
				fprintf(stderr, ", %s", faults_course_name(i));
			fputc('\n', stderr);
			return false;
		}
		left_out->courses |= found;
	}
	return true;
}

static bool parse_only(struct faults_left_out *left_out, const char *text)
{
	memset(left_out->faults, true, sizeof(left_out->faults));
	while (*text != '\0' && strcmp(text, "none") != 0) {
		char *end;
		unsigned long n = strtoul(text, &end, 10);

		if (end == text || n >= FAULTS_MAX || (*end != ',' && *end != '\0')) {
			fprintf(stderr,
				"pave-sim: --only %s: numbers below %u are needed, as 3,17\n", text,
				FAULTS_MAX);
			return false;
		}
		left_out->faults[n] = false;
		text = *end == ',' ? end + 1 : end;
	}
	return true;
}

/* -- options --------------------------------------------------------------------------------- */

static const struct option options[] = {
    {"seed", required_argument, NULL, 's'},
    {"seeds", required_argument, NULL, 'n'},
    {"from", required_argument, NULL, 'f'},
    {"jobs", required_argument, NULL, 'j'},
    {"minutes", required_argument, NULL, 'm'},
    {"no-faults", no_argument, NULL, 'F'},
    {"trace", no_argument, NULL, 't'},
    {"verbose", no_argument, NULL, 'v'},
    {"mutant", required_argument, NULL, 'M'},
    {"mutants", optional_argument, NULL, 'A'},
    {"minimise", no_argument, NULL, 'i'},
    {"no-minimise", no_argument, NULL, 'I'},
    {"runs", required_argument, NULL, 'r'},
    {"patience", required_argument, NULL, 'p'},
    {"only", required_argument, NULL, 'o'},
    {"without", required_argument, NULL, 'w'},
    {"covered", no_argument, NULL, 'c'},
    {"help", no_argument, NULL, 'h'},
    {0},
};

/* What takes no value. */
static void set_flag(struct options *o, int ch)
{
	struct explore_options *e = &o->explore;

	switch (ch) {
	case 'F':
		e->seed.faults = false;
		break;
	case 't':
		e->seed.trace = true;
		break;
	case 'i':
		o->minimise = true;
		break;
	case 'I':
		o->no_minimise = true;
		break;
	case 'c':
		e->covered = true;
		break;
	case 'v':
		e->verbose = true;
		break;
	default:
		break;
	}
}

static bool set(struct options *o, int ch, const char *value)
{
	struct explore_options *e = &o->explore;

	switch (ch) {
	case 's':
		e->first = strtoull(value, NULL, 0);
		o->one = true;
		break;
	case 'n':
		e->count = strtoull(value, NULL, 0);
		break;
	case 'f':
		e->first = strtoull(value, NULL, 0);
		break;
	case 'j':
		e->jobs = (uint32_t)strtoul(value, NULL, 0);
		break;
	case 'm':
		e->seed.minutes = strtod(value, NULL);
		break;
	case 'r':
		e->runs_max = (uint32_t)strtoul(value, NULL, 0);
		break;
	case 'p':
		e->patience_s = (uint32_t)strtoul(value, NULL, 0);
		break;
	case 'M':
		return parse_mutant(value, &e->seed.mutant);
	case 'A':
		return parse_mutants(o, value);
	case 'o':
		return parse_only(&e->seed.left_out, value);
	case 'w':
		return parse_without(&e->seed.left_out, value);
	default:
		set_flag(o, ch);
		break;
	}
	return true;
}

/* What goes together, and within the bounds. */
static bool is_usable(const struct options *o)
{
	const struct explore_options *e = &o->explore;

	if (o->one == (e->count > 0))
		return false;
	if (o->one && (o->mutants || e->covered || o->no_minimise))
		return false;
	if (!o->one && o->minimise)
		return false;
	if (e->jobs >= 1 && e->jobs <= EXPLORE_JOBS_MAX)
		return true;
	fprintf(stderr, "pave-sim: --jobs %u: from 1 to %u are possible\n", e->jobs,
		EXPLORE_JOBS_MAX);
	return false;
}

/* 0; 1: help was asked for; -1: it cannot be done. */
static int parse(struct options *o, int argc, char **argv)
{
	int ch;

	while ((ch = getopt_long(argc, argv, "h", options, NULL)) != -1) {
		if (ch == 'h')
			return 1;
		if (ch == '?' || !set(o, ch, optarg))
			return -1;
	}
	o->explore.minimise = !o->no_minimise;
	o->explore.seed.statistics = o->one || o->explore.verbose;
	return optind == argc && is_usable(o) ? 0 : -1;
}

int main(int argc, char **argv)
{
	static struct options o = {.explore = {.first = 1,
					       .jobs = 1,
					       .runs_max = RUNS_MAX,
					       .patience_s = PATIENCE_S,
					       .seed = {.minutes = 1.0, .faults = true}}};
	static struct seed_outcome outcome;
	int rc = parse(&o, argc, argv);
	bool ok;

	if (rc != 0) {
		fputs(usage, rc < 0 ? stderr : stdout);
		return rc < 0 ? 2 : 0;
	}
	mallopt(M_MMAP_THRESHOLD, MEMORY_POOL_BYTES);
	mallopt(M_TRIM_THRESHOLD, MEMORY_KEPT_BYTES);
	if (o.minimise)
		ok = explore_least(&o.explore);
	else if (o.one)
		ok = seed_run(o.explore.first, &o.explore.seed, &outcome);
	else
		ok = o.mutants ? explore_mutants(&o.explore) : explore(&o.explore);
	return ok ? 0 : 1;
}
