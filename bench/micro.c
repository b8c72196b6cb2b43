/* micro: how fast the parts are, each by itself.
 *
 *   micro store --dir DIR ...	the store alone on a device, production interface (micro_store.c)
 *   micro frame|crc|permit|group|index [--seconds 1] [--json]   what costs only CPU (micro_cpu.c)
 *
 * Exit codes: 0; 1 it failed; 2 usage. */
#include "bench/micro.h"

#include <stdio.h>
#include <string.h>

static const char usage[] =
    "usage: micro store --dir DIR [OPTION ...] [WORKLOAD ...]\n"
    "       micro frame|crc|permit|group|index|all [--seconds N] [--json]\n"
    "The parts of Pav\u00e9, each by itself. `micro store --help` shows more.\n";

int main(int argc, char **argv)
{
	if (argc >= 2 && (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0)) {
		fputs(usage, stdout);
		return 0;
	}
	if (argc >= 2 && strcmp(argv[1], "store") == 0)
		return micro_store(argc - 1, argv + 1);
	if (argc >= 2 && argv[1][0] != '-')
		return micro_cpu(argc - 1, argv + 1);
	fputs(usage, stderr);
	return 2;
}
