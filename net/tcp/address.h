/* "HOST:PORT" and socket addresses. No names are looked up: that would block the reactor, and until
 * there is TLS a name proves nothing. */
#ifndef TCP_ADDRESS_H
#define TCP_ADDRESS_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/socket.h>

#include "engine/base/error.h"

struct address {
	struct sockaddr_storage storage;
	socklen_t size;
};

/* "127.0.0.1:7400", "[::1]:7400", "localhost:7400"; port 0 to 65535. 0 or -EINVAL. */
int address_parse(const char *text, struct address *ret_address);

/* Whether it can be connected to: -EINVAL (no such address, or port 0), or, unless insecure,
 * -EACCES (not on the loopback). The text names it and the way out. */
int address_check_peer(const char *text, bool insecure, struct error *err);

/* "HOST:PORT+rdma" is an address with transports that its node offers beside TCP, each after a '+',
 * of a-z and 0-9. Reads the address alone: 0 or -EINVAL. */
int address_parse_offered(const char *text, struct address *ret_address);

/* Whether the address offers this transport; and puts that behind it, unless it is there already:
 * 0, or -E_LIMIT when it is too long. buf: ADDR_SIZE_MAX. */
bool address_offers(const char *text, const char *transport);
int address_offer(const char *text, const char *transport, char *buf);

/* Has fd, a stream socket, listen at *address, which is then the one with the true port. Blocks, up
 * to ADDRESS_LISTEN_WAIT_MS, while the address is in use: where a killed process listened with its
 * ring the kernel does for a moment yet. For start-up. 0 or a negative errno. */
#define ADDRESS_LISTEN_WAIT_MS 2000u
int address_listen(struct address *address, int fd, int backlog);

unsigned address_port(const struct address *a);
bool address_is_loopback(const struct address *a);
bool address_equal(const struct address *a, const struct address *b);

/* The form that address_parse reads. buf: ADDR_SIZE_MAX. */
void address_format(const struct address *a, char *buf, size_t buf_size);

#endif
