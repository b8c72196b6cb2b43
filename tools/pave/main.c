/* pave: the command of people. Here: the table of commands, global options, help, and what all
 * commands share (cmd.h). */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "engine/base/log.h"
#include "engine/base/text.h"
#include "tools/common/daemon.h"
#include "tools/pave/cmd.h"

#define ARGS_MAX 256

struct cli cli;

const struct command commands[] = {
    {"dev up", "start a whole cluster on this machine, with a demo authority",
     "[--dir D] [--sites par,lyo,rbx] [--device-size 8GiB] [--permit-lifetime 10s]\n"
     "[--register rocksdb|etcd] [--pds 2] [--etcds 1]\n"
     "  On a directory that is there already it starts what is not running, keeps all data, and "
     "refreshes the\n"
     "  revocation snapshot. D: else --cluster, PAVE_CLUSTER, PAVE_DEV_DIR, or ./pave-dev.\n"
     "  --register etcd: --pds drivers, of which one leads, on --etcds members of etcd.\n",
     cmd_dev_up, false},
    {"dev down", "stop that cluster; its data stays", "[--dir D]\n", cmd_dev_down, false},
    {"dev status", "the processes of that cluster", "[--dir D]\n", cmd_dev_status, false},
    {"volume create", "make a volume", "NAME --size SIZE [--policy POLICY] [--chunk-size 256MiB]\n",
     cmd_volume_create, false},
    {"volume list", "all volumes", "\n", cmd_volume_list, false},
    {"volume show", "one volume, and whether its sites are eligible", "NAME\n", cmd_volume_show,
     false},
    {"volume snapshot", "keep what a volume holds now, as VOLUME@SNAPSHOT",
     "VOLUME SNAPSHOT\n"
     "  Nothing is copied; an attached host goes on writing. VOLUME@SNAPSHOT is listed, shown, "
     "attached\n"
     "  (--read-only) and deleted as a volume is.\n",
     cmd_volume_snapshot, false},
    {"volume clone", "make a volume that begins as a snapshot", "VOLUME@SNAPSHOT NAME\n",
     cmd_volume_clone, false},
    {"volume rollback", "take a detached volume back to one of its snapshots",
     "VOLUME@SNAPSHOT\n  What was written since then is erased.\n", cmd_volume_rollback, false},
    {"volume diff", "which extents a snapshot and a later state may differ in",
     "VOLUME@SNAPSHOT [VOLUME@SNAPSHOT|VOLUME]\n"
     "  Without a second: the volume as it is now, attached or not. Nothing is read but the nodes' "
     "indexes.\n",
     cmd_volume_diff, false},
    {"volume resize", "make a volume larger, or smaller",
     "VOLUME SIZE [--force]\n"
     "  Larger also while it is attached: NBD clients that connect from then on see the new size.\n"
     "  Smaller only with --force, by whole chunks, detached, without snapshots: what lies beyond "
     "the "
     "end is erased.\n",
     cmd_volume_resize, false},
    {"volume delete", "delete a volume; its nodes erase their copies", "NAME\n", cmd_volume_delete,
     false},
    {"volume map", "every chunk: its nodes, sites, state", "NAME\n", cmd_volume_map, false},
    {"attach", "serve a volume over NBD",
     "NAME --nbd unix:PATH|HOST:PORT [--read-only] [--force] [--detach] [--site SITE]\n"
     "     [--transport auto|tcp|rdma] [--migrate] [--state DIR] [--root FILE]\n"
     "  --detach: in the background. --force: another host that has it attached and is alive is "
     "fenced.\n"
     "  With the address of a driver, --state (for the evidence seen) and --root (the trust root) "
     "are needed.\n"
     "  --migrate: prepares to take it over from the host that has it, and does so on SIGUSR1.\n",
     cmd_attach, false},
    {"detach", "end the attachment of a volume cleanly", "NAME\n", cmd_detach, false},
    {"trace", "where the time of a volume's slowest operations goes",
     "NAME [--seconds 10] [--slowest 10] [--state DIR]\n"
     "  Asks the attachment on this host, in the directory that `pave attach` keeps it in.\n",
     cmd_trace, false},
    {"site add", "submit a signed site certificate", "FILE\n", cmd_site_add, false},
    {"site list", "all sites, and which policies they fulfil", "\n", cmd_site_list, false},
    {"site show", "one site: its certificate, and every rule that it fails", "SITE\n",
     cmd_site_show, false},
    {"site revoke", "withdraw a site: signs and submits the next revocation snapshot",
     "SITE [--effective-from TIME] [--reason TEXT] [--valid-for 24h] [--key KEYID=FILE]... [--root "
     "FILE]\n"
     "  --valid-for: of the snapshot; without it as long as the one before.\n"
     "  In a development cluster key and root are found by themselves.\n",
     cmd_site_revoke, false},
    {"site refresh", "sign and submit the next revocation snapshot, with new times",
     "[--site SITE=VERSION] [--valid-for 24h] [--key KEYID=FILE]... [--root FILE]\n"
     "  --site: puts this version of its certificate, which the driver has, in force, and lifts "
     "its\n"
     "  withdrawals. --valid-for: without it as long as the one before.\n",
     cmd_site_refresh, false},
    {"site evacuate", "move everything away from all nodes of a site", "SITE [--undo]\n",
     cmd_site_evacuate, false},
    {"root show", "the trust root in force: its keys by role", "\n", cmd_root_show, false},
    {"root rotate", "put a new trust root in force, everywhere",
     "FILE [DOCUMENT...]\n"
     "  FILE is signed by the threshold of the root in force and by its own (pave evidence sign "
     "--type root).\n"
     "  What does not verify under it is void at once; DOCUMENT: certificates, snapshot and "
     "policies that\n"
     "  were signed again, taken in with it.\n",
     cmd_root_rotate, false},
    {"policy list", "the policies in force in the driver; without a cluster, the presets",
     "\n  In force: the version, who signed it (tenant, operator; nobody: the preset), and its "
     "digest.\n"
     "  A cluster is what --cluster or PAVE_CLUSTER names.\n",
     cmd_policy_list, false},
    {"policy show", "the document of a policy, as it is in force; without a cluster, of a preset",
     "POLICY\n"
     "  From where `pave policy list` has it. Which version it is, and who signed it, is told on "
     "stderr, and\n"
     "  by --json.\n",
     cmd_policy_show, false},
    {"policy put", "submit a signed placement policy", "FILE\n", cmd_policy_put, false},
    {"policy", "check SITE files under a policy, offline", "", cmd_policy, true},
    {"audit export", "write the ledger of the placement driver into a file", "--out FILE|-\n",
     cmd_audit_export, false},
    {"audit verify", "check an exported ledger, offline, with the trust root alone",
     "FILE [--root ROOT]\n"
     "  The chain, every signature, and every permit and lease against the evidence of its time. "
     "Exit 1 "
     "when\n"
     "  something was changed, removed, put elsewhere or cut off, or contradicts the evidence.\n",
     cmd_audit_verify, false},
    {"audit where", "which sites held a volume at a time, under which certificates",
     "VOLUME [--at TIME] [--file LEDGER] [--root ROOT]\n  Without --file the driver is asked.\n",
     cmd_audit_where, false},
    {"audit report", "a report on a volume for a person, with a map",
     "VOLUME --out FILE.html|- [--from TIME] [--to TIME] [--file LEDGER] [--root ROOT]\n",
     cmd_audit_report, false},
    {"evidence", "the authority's tools: keygen, sign, verify, show", "", cmd_evidence, true},
    {"node list", "all nodes: state, space, eligibility, lag", "\n", cmd_node_list, false},
    {"node add", "admit a node to a site, under an identity of its own",
     "NODE --site SITE [--ca-key FILE --out PREFIX] [--days 365]\n"
     "  Makes the node's key and certificate (PREFIX.key, .crt, .ca: pave-node --identity PREFIX) "
     "and\n"
     "  has the driver note that the name is theirs. --ca-key: of the site's node CA, which its "
     "certificate\n"
     "  names. In a development cluster both are found by themselves.\n",
     cmd_node_add, false},
    {"node drain", "move everything away from a node; nothing is placed on it any more", "NODE\n",
     cmd_node_drain, false},
    {"node undrain", "take that back", "NODE\n", cmd_node_undrain, false},
    {"node device", "the devices of a node: list, add and retire them, online",
     "list NODE | add NODE PATH | retire NODE PATH\n"
     "  PATH: on the node, from /; for retire also the uuid.\n"
     "  add: formats an empty device and takes it in.\n"
     "  retire: its chunks move to the others, then the node lets go of it.\n",
     cmd_node_device, false},
    {"node remove", "forget a node that is stopped and empty, or lost",
     "NODE [--force]\n"
     "  --force: it is lost; its copies are replaced at once.\n",
     cmd_node_remove, false},
    {"rebalance plan", "what would move: copies, bytes, why, how long, how full the nodes get",
     "[--all]\n", cmd_rebalance_plan, false},
    {"rebalance run", "level the nodes by what is placed on them for their size",
     "[--rate 100MiB|none]\n", cmd_rebalance_run, false},
    {"rebalance status", "what moves, how far it is", "\n", cmd_rebalance_status, false},
    {"rebalance pause", "begin no more moves but those that restore copies", "\n",
     cmd_rebalance_pause, false},
    {"rebalance resume", "go on", "\n", cmd_rebalance_resume, false},
    {"rebalance cancel", "end the levelling", "\n", cmd_rebalance_cancel, false},
    {"rebalance set", "bounds for all moves",
     "[--rate 100MiB|none] [--replace-after 15m]\n"
     "  --rate: bytes a second, for moves that no lost copy is the reason of.\n"
     "  --replace-after: a node that is away for longer is lost, and its copies are made anew.\n",
     cmd_rebalance_set, false},
    {"scrub start", "have nodes read everything that is live again, now", "[NODE]\n",
     cmd_scrub_start, false},
    {"scrub status", "how far they are, and what was found and repaired", "[NODE]\n",
     cmd_scrub_status, false},
    {"status", "the cluster at a glance", "\n", cmd_status, false},
    {"completion", "completion for a shell", "bash\n  source <(pave completion bash)\n",
     cmd_completion, false},
    {NULL, NULL, NULL, NULL, false},
};

static const char global_options[] =
    "Everywhere:\n"
    "  --cluster DIR|HOST:PORT  the cluster (or PAVE_CLUSTER; else PAVE_DEV_DIR or ./pave-dev);\n"
    "                           several drivers with commas between\n"
    "  --json                   for programs\n"
    "  --insecure               allow a driver that is not on the loopback, without TLS\n"
    "  --help, --version\n"
    "Sizes as 10GiB, times as 2026-11-23T10:00:00Z. Exit codes: 0 done, 1 failed, 2 usage,\n"
    "3 refused by policy, 4 unreachable.\n";

/* -- what commands share ---------------------------------------------------------------------- */

int cmd_usage_error(const char *fmt, ...)
{
	va_list ap;

	fprintf(stderr, "pave %s: ", cli.command != NULL ? cli.command->name : "");
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fprintf(stderr, "\nTry `pave %s%s--help`.\n", cli.command != NULL ? cli.command->name : "",
		cli.command != NULL ? " " : "");
	return 2;
}

int cmd_fail(const struct error *err)
{
	fprintf(stderr, "pave %s: %s\n", cli.command != NULL ? cli.command->name : "", err->text);
	return daemon_exit_code(err->code);
}

int cmd_cluster(struct cluster_ref *ret, struct error *err)
{
	const char *dev = getenv("PAVE_DEV_DIR");
	char path[4200];

	if (cli.cluster != NULL)
		return cluster_resolve(cli.cluster, ret, err);
	if (dev == NULL || dev[0] == '\0')
		dev = "./pave-dev";
	snprintf(path, sizeof path, "%s/cluster.json", dev);
	if (access(path, F_OK) == 0)
		return cluster_resolve(dev, ret, err);
	return error_set(err, -ENOENT,
			 "which cluster? Give --cluster DIR or HOST:PORT, or set PAVE_CLUSTER "
			 "(there is no development cluster in %s either)",
			 dev);
}

const char *cmd_operand(int argc, char **argv, const char *what)
{
	extern int optind;

	if (optind == argc - 1 && argv[optind][0] != '\0')
		return argv[optind];
	if (optind < argc - 1)
		cmd_usage_error("one %s is wanted, not %d", what, argc - optind);
	else
		cmd_usage_error("%s is %s", what, optind < argc ? "empty" : "missing");
	return NULL;
}

bool cmd_size(const char *what, const char *text, uint64_t *ret_bytes)
{
	uint64_t bytes = 0;
	int rc = text_parse_size(text, &bytes);

	if (rc == -ERANGE)
		cmd_usage_error("%s \"%s\" is 16EiB or more, which no volume can have", what, text);
	else if (rc != 0 || bytes == 0)
		cmd_usage_error("%s \"%s\" is no size above 0: as 512MiB, 10GiB", what, text);
	else
		*ret_bytes = bytes;
	return rc == 0 && bytes > 0;
}

int cmd_print_json(json_t *o)
{
	int rc = json_dumpf(o, stdout, JSON_INDENT(2));

	json_decref(o);
	putchar('\n');
	if (rc == 0 || ferror(stdout))
		return 0; /* main() looks at stdout */
	fprintf(stderr, "pave: no memory for the output\n");
	return 1;
}

int cmd_program_dir(char *buf, size_t size, struct error *err)
{
	ssize_t n = readlink("/proc/self/exe", buf, size - 1);
	char *slash;

	if (n < 0)
		return error_set(err, -errno, "/proc/self/exe: %s", err_text(errno));
	buf[n] = '\0';
	slash = strrchr(buf, '/');
	if (slash == NULL)
		return error_set(err, -ENOENT, "/proc/self/exe names no folder");
	*slash = '\0';
	return 0;
}

/* -- tables ----------------------------------------------------------------------------------- */

void table_init(struct table *t, unsigned columns, const char *const *titles)
{
	memset(t, 0, sizeof *t);
	t->columns = columns;
	t->titles = titles;
}

void table_add(struct table *t, const char *fmt, ...)
{
	char *cell = NULL;
	va_list ap;

	if (t->count == t->room) {
		size_t room = t->room != 0 ? t->room * 2 : 64;
		char **cells = realloc(t->cells, room * sizeof *cells);

		if (cells == NULL)
			exit(1);
		t->cells = cells;
		t->room = room;
	}
	va_start(ap, fmt);
	if (vasprintf(&cell, fmt, ap) < 0)
		exit(1);
	va_end(ap);
	t->cells[t->count++] = cell;
}

/* In characters: bytes that go on a UTF-8 sequence take no room. */
static int width(const char *text)
{
	int n = 0;

	for (; *text != '\0'; text++)
		n += (*text & 0xC0) != 0x80;
	return n;
}

static void print_cell(const char *text, int wide, bool right, bool last)
{
	int fill = wide - width(text);

	if (right)
		printf("%*s%s", fill > 0 ? fill : 0, "", text);
	else
		printf("%s%*s", text, last || fill < 0 ? 0 : fill, "");
	fputs(last ? "\n" : "  ", stdout);
}

void table_print(struct table *t)
{
	int wide[TABLE_COLUMNS_MAX];

	for (unsigned c = 0; c < t->columns; c++) {
		wide[c] = width(t->titles[c]);
		for (size_t i = c; i < t->count; i += t->columns)
			if (width(t->cells[i]) > wide[c])
				wide[c] = width(t->cells[i]);
	}
	for (unsigned c = 0; c < t->columns; c++)
		print_cell(t->titles[c], wide[c], t->right[c], c + 1 == t->columns);
	for (size_t i = 0; i < t->count; i++) {
		unsigned c = (unsigned)(i % t->columns);

		print_cell(t->cells[i][0] != '\0' ? t->cells[i] : "-", wide[c], t->right[c],
			   c + 1 == t->columns);
	}
	table_discard(t);
}

void table_discard(struct table *t)
{
	for (size_t i = 0; i < t->count; i++)
		free(t->cells[i]);
	free(t->cells);
	memset(t, 0, sizeof *t);
}

/* -- finding the command ---------------------------------------------------------------------- */

static int help(const struct command *c)
{
	if (c != NULL) {
		int first = (int)strcspn(c->usage, "\n");

		printf("Usage: pave %s %.*s\n%s\n%s\n%s", c->name, first, c->usage, c->summary,
		       c->usage[first] != '\0' ? c->usage + first + 1 : "", global_options);
		return 0;
	}
	printf("Usage: pave COMMAND [ARGUMENT...]\n"
	       "Pavé: volumes replicated on certified sites, and nowhere else.\n\n");
	for (c = commands; c->name != NULL; c++)
		printf("  %-16s %s\n", c->name, c->summary);
	printf("\n%sHelp on one: pave help COMMAND, or pave COMMAND --help\n", global_options);
	return 0;
}

/* How many words of the arguments name the command; 0: they don't. */
static int match(const struct command *c, int argc, char **argv)
{
	const char *space = strchr(c->name, ' ');

	if (space == NULL)
		return argc >= 1 && strcmp(argv[0], c->name) == 0 ? 1 : 0;
	return argc >= 2 && strlen(argv[0]) == (size_t)(space - c->name) &&
		       strncmp(argv[0], c->name, strlen(argv[0])) == 0 &&
		       strcmp(argv[1], space + 1) == 0
		   ? 2
		   : 0;
}

static int unknown_command(int argc, char **argv, bool wants_help)
{
	size_t len = argc > 0 ? strlen(argv[0]) : 0;
	bool any = false;

	if (argc == 0) {
		if (wants_help)
			return help(NULL);
		fprintf(stderr, "pave: a command is missing\nTry `pave --help`.\n");
		return 2;
	}
	for (const struct command *c = commands; c->name != NULL; c++)
		any |= strncmp(c->name, argv[0], len) == 0 && c->name[len] == ' ';
	if (!any) {
		fprintf(stderr, "pave: there is no command \"%s\"\nTry `pave --help`.\n", argv[0]);
		return 2;
	}
	if (argc > 1 && !wants_help)
		fprintf(stderr, "pave: there is no command \"%s %s\"\n", argv[0], argv[1]);
	for (const struct command *c = commands; c->name != NULL; c++)
		if (strncmp(c->name, argv[0], len) == 0 && c->name[len] == ' ')
			fprintf(wants_help ? stdout : stderr, "  pave %-16s %s\n", c->name,
				c->summary);
	return wants_help ? 0 : 2;
}

/* Takes the global options out of the arguments. Returns how many are left, or -1 after a line on
 * stderr. */
static int take_global(int argc, char **argv, char **left, bool *ret_help, bool *ret_version)
{
	int n = 0;

	for (int i = 1; i < argc; i++) {
		if (strcmp(argv[i], "--") == 0) {
			while (i < argc && n < ARGS_MAX)
				left[n++] = argv[i++];
			break;
		}
		if (strcmp(argv[i], "--json") == 0) {
			cli.json = true;
		} else if (strcmp(argv[i], "--insecure") == 0) {
			cli.insecure = true;
		} else if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0) {
			*ret_help = true;
		} else if (strcmp(argv[i], "--version") == 0) {
			*ret_version = true;
		} else if (strncmp(argv[i], "--cluster=", 10) == 0) {
			cli.cluster = argv[i] + 10;
		} else if (strcmp(argv[i], "--cluster") == 0) {
			if (++i == argc) {
				fprintf(stderr, "pave: --cluster wants DIR or HOST:PORT\n");
				return -1;
			}
			cli.cluster = argv[i];
		} else if (n < ARGS_MAX) {
			left[n++] = argv[i];
		}
		/* That of the environment counts as not set; this would be where we stand. */
		if (cli.cluster != NULL && cli.cluster[0] == '\0') {
			fprintf(stderr, "pave: --cluster is empty: DIR or HOST:PORT is wanted\n");
			return -1;
		}
	}
	if (n == ARGS_MAX) {
		fprintf(stderr, "pave: over %d arguments\n", ARGS_MAX);
		return -1;
	}
	return n;
}

/* The command's word goes, all the rest stays in its order. only_help: of `pave help COMMAND`. */
static int run_raw(const struct command *c, int argc, char **argv, const char *word, bool only_help)
{
	char *args[ARGS_MAX + 2];
	int n = 1;

	args[0] = (char *)(uintptr_t)c->name;
	if (only_help)
		args[n++] = (char *)(uintptr_t) "--help";
	for (int i = 1; i < argc && n <= ARGS_MAX && !only_help; i++) {
		if (argv[i] == word)
			continue;
		args[n++] = argv[i];
	}
	args[n] = NULL;
	return c->run(n, args);
}

static bool reader_left(void)
{
	struct pollfd p = {.fd = STDOUT_FILENO};

	return poll(&p, 1, 0) > 0 && (p.revents & POLLERR) != 0;
}

/* What was said is part of what was asked for: a report that is not there was not given. A reader
 * who has seen enough need not be told. */
static int with_output(int rc)
{
	const bool failed = ferror(stdout);

	errno = 0;
	if (fflush(stdout) == 0 && !failed)
		return rc;
	if (errno != EPIPE && !reader_left())
		fprintf(stderr, "pave%s%s: %sthe output cannot be written%s%s\n",
			cli.command != NULL ? " " : "",
			cli.command != NULL ? cli.command->name : "",
			rc == 0 ? "it was done, but " : "", errno != 0 ? ": " : "",
			errno != 0 ? strerror(errno) : "");
	return rc != 0 ? rc : 1;
}

static int run(int argc, char **argv)
{
	char *left[ARGS_MAX + 1];
	bool wants_help = false, wants_version = false, only_help = false;
	int n, words = 0;
	const struct command *c;

	log_set_level(LOG_ERROR);
	cli.cluster = getenv("PAVE_CLUSTER");
	if (cli.cluster != NULL && cli.cluster[0] == '\0')
		cli.cluster = NULL;
	n = take_global(argc, argv, left, &wants_help, &wants_version);
	if (n < 0)
		return 2;
	left[n] = NULL;
	if (wants_version) {
		puts("pave " PAVE_VERSION);
		return 0;
	}
	if (n > 0 && strcmp(left[0], "help") == 0) { /* the same as COMMAND --help */
		wants_help = only_help = true;
		memmove(left, left + 1, (size_t)n * sizeof *left);
		n--;
	}
	for (c = commands; c->name != NULL; c++) {
		words = match(c, n, left);
		if (words > 0)
			break;
	}
	if (c->name == NULL)
		return unknown_command(n, left, wants_help);
	cli.command = c;
	if (c->raw)
		return run_raw(c, argc, argv, left[0], only_help);
	if (wants_help)
		return help(c);
	left[words - 1] = (char *)(uintptr_t)c->name;
	return c->run(n - words + 1, left + words - 1);
}

int main(int argc, char **argv)
{
	signal(SIGPIPE, SIG_IGN);
	return with_output(run(argc, argv));
}
