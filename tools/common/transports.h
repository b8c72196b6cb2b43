/* The transport of a daemon, as its command line asks for it: TCP, or RDMA over TCP (net/rdma).
 *
 *   --transport auto|tcp|rdma   auto (default): RDMA where this machine and the peer have it
 *   --rdma-device NAME          default: the first device with an active port
 *   --rdma-poll-us N            polls for so long before it sleeps (default 0) */
#ifndef COMMON_TRANSPORTS_H
#define COMMON_TRANSPORTS_H

#include <stdio.h>

#include "engine/base/error.h"
#include "net/transport.h"

enum transports_choice { TRANSPORTS_AUTO, TRANSPORTS_TCP, TRANSPORTS_RDMA };

struct transports_options {
	enum transports_choice choice;
	const char *device; /* NULL: any */
	uint32_t poll_us;
};

/* Values of getopt_long for these options; a program's own lie below them. */
enum { TRANSPORTS_OPTION = 0x7400, TRANSPORTS_DEVICE, TRANSPORTS_POLL };

/* For a program's table of long options. */
#define TRANSPORTS_LONG_OPTIONS                                                                    \
	{"transport", required_argument, NULL, TRANSPORTS_OPTION},                                 \
	    {"rdma-device", required_argument, NULL, TRANSPORTS_DEVICE},                           \
	{                                                                                          \
		"rdma-poll-us", required_argument, NULL, TRANSPORTS_POLL                           \
	}

/* For a program's usage. */
#define TRANSPORTS_USAGE                                                                           \
	"  --transport WHICH   auto (default: RDMA with who has it, else TCP), tcp, or rdma\n"     \
	"  --rdma-device NAME  default: the first with an active port\n"                           \
	"  --rdma-poll-us N    looks for completions so long before it sleeps (default 0)\n"

/* Takes one of these options. 0; 2 after a line on stderr; -1: it is none of them. */
int transports_option(struct transports_options *o, const char *program, int option,
		      const char *value);

struct transports {
	struct transport *tcp;
	struct transport *rdma; /* NULL: not used */
};

/* pd: the drivers' addresses, which are always reached over TCP; "": there are none, as in a test
 * that is the driver itself. It outlives the transports. Where RDMA is not asked for and cannot be
 * had, TCP alone is used, with a warning if there is a device. -EINVAL, -EACCES: one of the
 * addresses cannot be connected to (address_check_peer). Errors else: what the transports say. */
int transports_open(const struct transports_options *o, struct reactor *r, bool insecure,
		    const char *pd, struct transports *ret, struct error *err);

/* The one to listen and connect with. */
static inline struct transport *transports_use(const struct transports *t)
{
	return t->rdma != NULL ? t->rdma : t->tcp;
}

/* No connection may be left. Runs the reactor for a moment: what RDMA waited for ends. */
void transports_close(struct transports *t, struct reactor *r);

#endif
