/* micro: the parts, each by itself. One command, a subcommand each; see micro.c. */
#ifndef BENCH_MICRO_H
#define BENCH_MICRO_H

/* Subcommands: as main, argv[0] is their name. They return the exit code. */
int micro_store(int argc, char **argv);
int micro_cpu(int argc, char **argv);

#endif
