/* address: see address.h. */
#include "net/tcp/address.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "engine/base/assert.h"
#include "engine/base/err.h"
#include "engine/base/types.h"

#define ADDRESS_RETRY_MS 10u

static const struct sockaddr_in *as_v4(const struct address *a)
{
	return (const struct sockaddr_in *)(const void *)&a->storage;
}

static const struct sockaddr_in6 *as_v6(const struct address *a)
{
	return (const struct sockaddr_in6 *)(const void *)&a->storage;
}

static int parse_port(const char *text, in_port_t *ret_port)
{
	unsigned port = 0;

	if (*text == '\0')
		return -EINVAL;
	for (; *text != '\0'; text++) {
		if (*text < '0' || *text > '9')
			return -EINVAL;
		port = port * 10 + (unsigned)(*text - '0');
		if (port > UINT16_MAX)
			return -EINVAL;
	}
	*ret_port = htons((uint16_t)port);
	return 0;
}

/* The host without brackets, and where the port begins. A bare IPv6 address is refused: which colon
 * ends it cannot be told. */
static int split(const char *text, char *ret_host, size_t host_size, const char **ret_port)
{
	const char *begin = text, *end;

	if (*text == '[') {
		begin = text + 1;
		end = strchr(begin, ']');
		if (end == NULL || end[1] != ':')
			return -EINVAL;
		*ret_port = end + 2;
	} else {
		end = strchr(begin, ':');
		if (end == NULL || strchr(end + 1, ':') != NULL)
			return -EINVAL;
		*ret_port = end + 1;
	}
	if (end == begin || (size_t)(end - begin) >= host_size)
		return -EINVAL;
	memcpy(ret_host, begin, (size_t)(end - begin));
	ret_host[end - begin] = '\0';
	return 0;
}

int address_parse(const char *text, struct address *ret_address)
{
	char host[ADDR_SIZE_MAX];
	struct sockaddr_in v4 = {.sin_family = AF_INET};
	struct sockaddr_in6 v6 = {.sin6_family = AF_INET6};
	struct address a = {0};
	const char *port_text;
	in_port_t port;

	if (split(text, host, sizeof(host), &port_text) != 0 || parse_port(port_text, &port) != 0)
		return -EINVAL;
	if (strcmp(host, "localhost") == 0)
		snprintf(host, sizeof(host), "127.0.0.1");
	if (*text != '[' && inet_pton(AF_INET, host, &v4.sin_addr) == 1) {
		v4.sin_port = port;
		a.size = sizeof(v4);
		memcpy(&a.storage, &v4, sizeof(v4));
	} else if (*text == '[' && inet_pton(AF_INET6, host, &v6.sin6_addr) == 1) {
		v6.sin6_port = port;
		a.size = sizeof(v6);
		memcpy(&a.storage, &v6, sizeof(v6));
	} else {
		return -EINVAL;
	}
	*ret_address = a;
	return 0;
}

int address_check_peer(const char *text, bool insecure, struct error *err)
{
	struct address a;

	if (address_parse(text, &a) != 0 || address_port(&a) == 0)
		return error_set(
		    err, -EINVAL,
		    "%s: a numeric HOST:PORT is needed, with a port from 1 to 65535, as "
		    "127.0.0.1:7400 or [::1]:7400",
		    text);
	if (!insecure && !address_is_loopback(&a))
		return error_set(
		    err, -EACCES,
		    "%s: it is not on the loopback, and there is no TLS yet; --insecure "
		    "allows it",
		    text);
	return 0;
}

int address_parse_offered(const char *text, struct address *ret_address)
{
	char alone[ADDR_SIZE_MAX];
	const size_t size = strcspn(text, "+");

	for (const char *p = text + size; *p != '\0'; p++) {
		const bool is_name = (*p >= 'a' && *p <= 'z') || (*p >= '0' && *p <= '9');

		if (!is_name && (*p != '+' || p[1] == '+' || p[1] == '\0'))
			return -EINVAL;
	}
	if (size >= sizeof(alone))
		return -EINVAL;
	memcpy(alone, text, size);
	alone[size] = '\0';
	return address_parse(alone, ret_address);
}

bool address_offers(const char *text, const char *transport)
{
	const size_t size = strlen(transport);

	for (const char *p = strchr(text, '+'); p != NULL; p = strchr(p + 1, '+'))
		if (strncmp(p + 1, transport, size) == 0 &&
		    (p[1 + size] == '+' || p[1 + size] == '\0'))
			return true;
	return false;
}

int address_offer(const char *text, const char *transport, char *buf)
{
	const bool offers = address_offers(text, transport);
	int size = snprintf(buf, ADDR_SIZE_MAX, "%s%s%s", text, offers ? "" : "+",
			    offers ? "" : transport);

	return size >= 0 && (unsigned)size < ADDR_SIZE_MAX ? 0 : -E_LIMIT;
}

int address_listen(struct address *address, int fd, int backlog)
{
	const struct timespec pause = {.tv_nsec = (long)(ADDRESS_RETRY_MS * NS_PER_MS)};
	struct sockaddr *a = (struct sockaddr *)&address->storage;
	const int one = 1;

	if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one)) != 0)
		return -errno;
	for (uint32_t waited_ms = 0; bind(fd, a, address->size) != 0;
	     waited_ms += ADDRESS_RETRY_MS) {
		if (errno != EADDRINUSE || waited_ms >= ADDRESS_LISTEN_WAIT_MS)
			return -errno;
		nanosleep(&pause, NULL);
	}
	if (listen(fd, backlog) != 0 || getsockname(fd, a, &address->size) != 0)
		return -errno;
	return 0;
}

unsigned address_port(const struct address *a)
{
	return ntohs(a->storage.ss_family == AF_INET ? as_v4(a)->sin_port : as_v6(a)->sin6_port);
}

bool address_is_loopback(const struct address *a)
{
	uint32_t v4;

	if (a->storage.ss_family == AF_INET)
		return ntohl(as_v4(a)->sin_addr.s_addr) >> 24 == 127;
	if (a->storage.ss_family != AF_INET6)
		return false;
	if (!IN6_IS_ADDR_V4MAPPED(&as_v6(a)->sin6_addr))
		return IN6_IS_ADDR_LOOPBACK(&as_v6(a)->sin6_addr);
	memcpy(&v4, &as_v6(a)->sin6_addr.s6_addr[12], sizeof(v4));
	return ntohl(v4) >> 24 == 127;
}

bool address_equal(const struct address *a, const struct address *b)
{
	if (a->storage.ss_family != b->storage.ss_family || address_port(a) != address_port(b))
		return false;
	if (a->storage.ss_family == AF_INET)
		return as_v4(a)->sin_addr.s_addr == as_v4(b)->sin_addr.s_addr;
	return memcmp(&as_v6(a)->sin6_addr, &as_v6(b)->sin6_addr, sizeof(struct in6_addr)) == 0;
}

void address_format(const struct address *a, char *buf, size_t buf_size)
{
	char host[INET6_ADDRSTRLEN] = "?";

	PRE(buf_size >= ADDR_SIZE_MAX);
	if (a->storage.ss_family == AF_INET) {
		inet_ntop(AF_INET, &as_v4(a)->sin_addr, host, sizeof(host));
		snprintf(buf, buf_size, "%s:%u", host, address_port(a));
	} else {
		inet_ntop(AF_INET6, &as_v6(a)->sin6_addr, host, sizeof(host));
		snprintf(buf, buf_size, "[%s]:%u", host, address_port(a));
	}
}
