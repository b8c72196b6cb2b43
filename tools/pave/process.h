/* Background processes of a development cluster: each has a name, a log D/log/NAME.log, and a file
 * D/run/NAME.pid with its pid and its start time, so that a pid that was used again is never taken
 * for it; and it names D in its command line, so that one of another cluster isn't either. They are
 * in sessions of their own and outlive whoever started them. */
#ifndef PAVE_PROCESS_H
#define PAVE_PROCESS_H

#include <stdbool.h>
#include <sys/types.h>

#include "engine/base/error.h"
#include "engine/base/types.h"

#define PROCESS_READY_SIZE 512u

/* Starts PROGRAM (beside this one) with argv, waits until it prints "ready WHERE" on stdout, and
 * copies WHERE. On failure it isn't running, and the text holds the last line of its log, with its
 * exit code in *ret_exit (may be NULL; -1: none). */
int process_start(const char *dir, const char *name, const char *program, char *const argv[],
		  unsigned timeout_ms, char ret_ready[PROCESS_READY_SIZE], int *ret_exit,
		  struct error *err);

/* The same for a program that says nothing when it is ready, found by PATH; stdout goes to the log
 * too. It may end at any moment after. */
int process_spawn(const char *dir, const char *name, const char *program, char *const argv[],
		  struct error *err);

/* Whether it runs. ret_pid may be NULL. */
bool process_find(const char *dir, const char *name, pid_t *ret_pid);

/* What follows the option in its command line. false: it has no such option, or doesn't run. */
bool process_argument(const char *dir, const char *name, const char *option, char *buf,
		      size_t size);

/* SIGTERM, and SIGKILL if it doesn't end in time; waits for its end. 0 also when it didn't run.
 * ret_killed (may be NULL): SIGKILL was needed. */
int process_stop(const char *dir, const char *name, unsigned timeout_ms, bool *ret_killed,
		 struct error *err);

/* Calls each for every D/run/NAME.pid, in the order of the names. */
int process_each(const char *dir, void (*each)(const char *name, void *arg), void *arg,
		 struct error *err);

/* Processes of this program that others started for D: those whose arguments name a path below it,
 * which is not that of another cluster below it.
 * argv: NUL-separated, ended by an empty one. */
int process_scan(const char *dir, const char *program,
		 void (*each)(pid_t pid, const char *argv, void *arg), void *arg,
		 struct error *err);
/* Notes the pave-pd and pave-node processes of D that no D/run/NAME.pid tells of, under the last
 * part of their --dir, which is their name: who started them was ended before it had noted them. */
int process_adopt(const char *dir, struct error *err);

/* As process_stop, for one that process_scan found; it is looked at again before it is signalled.
 */
int process_stop_found(const char *dir, const char *program, pid_t pid, unsigned timeout_ms,
		       bool *ret_killed, struct error *err);

#endif
