/* A placement driver that is one of several on a register on etcd: it follows, or leads.
 *
 * Thread: the driver's reactor. */
#ifndef PAVE_PD_SEVERAL_H
#define PAVE_PD_SEVERAL_H

#include "engine/kv/etcd.h"
#include "engine/placement/pd.h"

#define SEVERAL_WORKERS	  (ETCD_WORKERS + PD_WORKERS)
#define SEVERAL_TTL_MIN_S ETCD_TTL_MIN_S
#define SEVERAL_TTL_MAX_S ETCD_TTL_MAX_S
#define SEVERAL_STOP_MS	  5000u /* what waits for etcd when the process has to end fails then */

struct several;

struct several_config {
	struct pd_config pd;	  /* but for kv, listen_address, shared, failed and arg */
	const char *register_url; /* etcd:// or etcds://HOST:PORT[,HOST:PORT...] */
	struct http_tls tls;	  /* of etcds://; `on` is the address's to say */
	const char *listen_address;
	const char *name;      /* NULL: the host's, and the port */
	const char *advertise; /* what others are told; NULL: where it listens */
	uint32_t leader_ttl_s; /* 0: ETCD_TTL_DEFAULT_S */
	bool insecure;	       /* etcd may be elsewhere than on the loopback without TLS */
};

/* Listens, and follows. -EINVAL: the register's address or the name; what transport_listen returns;
 * -ENOMEM. */
int several_start(const struct several_config *config, struct several **ret_several,
		  struct error *err);
const char *several_address(const struct several *s);
/* Lets go of the leadership, if it has it, so that another takes over at once. */
void several_stop(struct several *s, void (*done)(void *arg), void *arg);

#endif
