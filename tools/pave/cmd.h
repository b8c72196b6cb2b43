/* The commands of `pave`, and what they share. A command is a line of the table in main.c and a
 * function; the global options (--cluster, --json, --help, --version) are taken out of argv before,
 * wherever they stand.
 *
 * Exit codes: 0 done, 1 failed, 2 usage, 3 refused by policy, 4 unreachable. Results go to stdout,
 * everything else to stderr. */
#ifndef PAVE_CMD_H
#define PAVE_CMD_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "engine/base/error.h"
#include "tools/common/cluster.h"

struct command {
	const char *name;    /* "volume create" */
	const char *summary; /* one line, for the list */
	const char *usage;   /* arguments and options, for --help; lines end with \n */
	/* argv[0] is the name. Returns the exit code. Options: getopt_long from optind 1. */
	int (*run)(int argc, char **argv);
	bool raw; /* gets the global options too, and helps itself */
};

extern const struct command commands[]; /* name NULL at the end */

/* Of this invocation. */
struct cli {
	const char *cluster; /* --cluster or PAVE_CLUSTER; NULL: neither */
	bool json;
	bool insecure;
	const struct command *command;
};
extern struct cli cli;

/* One line on stderr, and where help is. Returns 2. */
int cmd_usage_error(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

/* The error as one line on stderr. Returns the exit code that goes with err->code. */
int cmd_fail(const struct error *err);

/* The cluster that was named, or the development cluster in PAVE_DEV_DIR or ./pave-dev. */
int cmd_cluster(struct cluster_ref *ret, struct error *err);

/* The one operand that must be left after the options, or NULL after a line on stderr. */
const char *cmd_operand(int argc, char **argv, const char *what);

/* A size above 0, for what is named; false after a line on stderr. */
bool cmd_size(const char *what, const char *text, uint64_t *ret_bytes);

/* Prints o, indented, and frees it. Returns 0, or 1 when there is no memory. That stdout took it is
 * looked at once, when the command has ended (main.c). */
int cmd_print_json(json_t *o);

/* The folder that this program lies in; the others lie there too. */
int cmd_program_dir(char *buf, size_t size, struct error *err);

/* -- tables for people: columns as wide as their widest cell ---------------------------------- */

#define TABLE_COLUMNS_MAX 14u

struct table {
	unsigned columns;
	const char *const *titles;
	bool right[TABLE_COLUMNS_MAX]; /* numbers */
	char **cells;
	size_t count, room;
};

void table_init(struct table *t, unsigned columns, const char *const *titles);
/* The next cell, row by row; copied. "" is shown as "-". */
void table_add(struct table *t, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void table_print(struct table *t);   /* and frees it */
void table_discard(struct table *t); /* frees it only */

/* -- the commands ------------------------------------------------------------------------------ */

int cmd_volume_create(int argc, char **argv);
int cmd_volume_list(int argc, char **argv);
int cmd_volume_show(int argc, char **argv);
int cmd_volume_delete(int argc, char **argv);
int cmd_volume_map(int argc, char **argv);
int cmd_volume_snapshot(int argc, char **argv);
int cmd_volume_clone(int argc, char **argv);
int cmd_volume_rollback(int argc, char **argv);
int cmd_volume_resize(int argc, char **argv);
int cmd_volume_diff(int argc, char **argv);
int cmd_attach(int argc, char **argv);
int cmd_detach(int argc, char **argv);
int cmd_site_add(int argc, char **argv);
int cmd_site_list(int argc, char **argv);
int cmd_site_show(int argc, char **argv);
int cmd_site_revoke(int argc, char **argv);
int cmd_site_refresh(int argc, char **argv);
int cmd_node_list(int argc, char **argv);
int cmd_node_drain(int argc, char **argv);
int cmd_node_undrain(int argc, char **argv);
int cmd_node_add(int argc, char **argv);
int cmd_node_remove(int argc, char **argv);
int cmd_site_evacuate(int argc, char **argv);
int cmd_rebalance_plan(int argc, char **argv);
int cmd_rebalance_run(int argc, char **argv);
int cmd_rebalance_status(int argc, char **argv);
int cmd_rebalance_pause(int argc, char **argv);
int cmd_rebalance_resume(int argc, char **argv);
int cmd_rebalance_cancel(int argc, char **argv);
int cmd_rebalance_set(int argc, char **argv);
int cmd_node_device(int argc, char **argv);
int cmd_scrub_start(int argc, char **argv);
int cmd_scrub_status(int argc, char **argv);
int cmd_status(int argc, char **argv);
int cmd_evidence(int argc, char **argv);
int cmd_policy(int argc, char **argv);
int cmd_policy_list(int argc, char **argv);
int cmd_policy_show(int argc, char **argv);
int cmd_policy_put(int argc, char **argv);
int cmd_root_show(int argc, char **argv);
int cmd_root_rotate(int argc, char **argv);
int cmd_dev_up(int argc, char **argv);
int cmd_dev_down(int argc, char **argv);
int cmd_dev_status(int argc, char **argv);
int cmd_audit_export(int argc, char **argv);
int cmd_audit_verify(int argc, char **argv);
int cmd_audit_where(int argc, char **argv);
int cmd_audit_report(int argc, char **argv);
int cmd_trace(int argc, char **argv);
int cmd_completion(int argc, char **argv);

#endif
