/* The scripts beside pave-bench: compare, plot.py. They lie in the source tree's bench folder, or
 * where PAVE_BENCH_SCRIPTS says. */
#ifndef BENCH_SCRIPTS_H
#define BENCH_SCRIPTS_H

/* Becomes the script: does not return but with an exit code, when it cannot be run. argv ends with
 * NULL; argv[0] is replaced. */
int script_exec(const char *name, char **argv);

/* Runs it with text on its stdin, and waits. Returns its exit code; 1 when it cannot be run. */
int script_feed(const char *name, const char *argument, const char *text);

#endif
