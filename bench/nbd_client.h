/* A small asynchronous NBD client on the reactor: one connection, simple replies, requests of one
 * turn in one send. For pave-bench; it asks for no more of the protocol than a load needs.
 *
 * Thread: the reactor's. An operation is lent from submit until done, which runs once, never
 * inline: 0, the server's error, or -E_DISCONNECTED when the connection was lost. */
#ifndef BENCH_NBD_CLIENT_H
#define BENCH_NBD_CLIENT_H

#include "engine/base/error.h"
#include "engine/reactor/io.h"

#define NBD_CLIENT_DEPTH_MAX 1024u
#define NBD_CLIENT_IOV_MAX   512u
#define NBD_CLIENT_RX_SIZE   (1u << 20)

struct nbd_op {
	void (*done)(struct nbd_op *op, int status);
	bool write;
	uint64_t offset;
	uint32_t size;
	uint8_t *data; /* lent until done */
	struct nbd_op *next;
	uint8_t header[28];
	uint32_t place;
};

struct nbd_client;

/* Connects and negotiates; blocks. See target_nbd_open. */
int nbd_client_open(struct reactor *r, const char *uri, bool insecure, struct nbd_client **ret,
		    struct error *err);
uint64_t nbd_client_size(const struct nbd_client *c);
void nbd_client_submit(struct nbd_client *c, struct nbd_op *op);

/* Nothing may be in flight. */
void nbd_client_close(struct nbd_client *c);

#endif
