/* transports: see transports.h. */
#include "tools/common/transports.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/drivers.h"
#include "engine/base/log.h"
#include "engine/base/types.h"
#include "net/rdma/rdma.h"
#include "net/tcp/address.h"

#define DRAIN_NS (20 * NS_PER_MS)

static int choose(struct transports_options *o, const char *program, const char *value)
{
	static const char *const names[] = {
	    [TRANSPORTS_AUTO] = "auto", [TRANSPORTS_TCP] = "tcp", [TRANSPORTS_RDMA] = "rdma"};

	for (unsigned i = 0; i < ARRAY_SIZE(names); i++)
		if (strcmp(value, names[i]) == 0) {
			o->choice = (enum transports_choice)i;
			return 0;
		}
	fprintf(stderr, "%s: --transport %.40s: auto, tcp or rdma\n", program, value);
	return 2;
}

static int set_poll(struct transports_options *o, const char *program, const char *value)
{
	char *end;
	unsigned long us;

	errno = 0;
	us = strtoul(value, &end, 10);
	if (value[0] >= '0' && value[0] <= '9' && *end == '\0' && errno == 0 &&
	    us <= RDMA_POLL_US_MAX) {
		o->poll_us = (uint32_t)us;
		return 0;
	}
	fprintf(stderr, "%s: --rdma-poll-us %.40s: microseconds, 0 to %u\n", program, value,
		RDMA_POLL_US_MAX);
	return 2;
}

int transports_option(struct transports_options *o, const char *program, int option,
		      const char *value)
{
	switch (option) {
	case TRANSPORTS_OPTION:
		return choose(o, program, value);
	case TRANSPORTS_DEVICE:
		o->device = value;
		return 0;
	case TRANSPORTS_POLL:
		return set_poll(o, program, value);
	default:
		return -1;
	}
}

int transports_open(const struct transports_options *o, struct reactor *r, bool insecure,
		    const char *pd, struct transports *ret, struct error *err)
{
	struct transports t = {0};
	struct rdma_config config = {
	    .reactor = r,
	    .device = o->device,
	    .required = o->choice == TRANSPORTS_RDMA,
	    .plain_addresses = pd,
	    .poll_us = o->poll_us,
	};
	struct drivers drivers = {0};
	int rc = pd[0] != '\0' ? drivers_parse(pd, &drivers, err) : 0;

	if (rc != 0)
		return rc;
	for (uint32_t i = 0; i < drivers.count; i++)
		if (address_check_peer(drivers.list[i], insecure, err) != 0)
			return error_wrap(err, "placement driver");
	rc = transport_tcp_create(r, insecure, &t.tcp);
	if (rc != 0)
		return error_set(err, rc, "transport: %s", err_text(rc));
	config.carrier = t.tcp;
	if (o->choice != TRANSPORTS_TCP)
		rc = transport_rdma_create(&config, &t.rdma, err);
	if (rc != 0 && o->choice == TRANSPORTS_RDMA) {
		transport_destroy(t.tcp);
		return error_wrap(err, "--transport rdma");
	}
	if (rc != 0 && (rc != -ENODEV || o->device != NULL))
		log_warn("transport", "%s; TCP is used", err->text);
	*ret = t;
	return 0;
}

void transports_close(struct transports *t, struct reactor *r)
{
	static const bool never = false;

	if (t->rdma != NULL) {
		transport_destroy(t->rdma);
		reactor_refresh(r);
		reactor_run_until(r, &never, reactor_now_ns(r) + DRAIN_NS);
	}
	transport_destroy(t->tcp);
	*t = (struct transports){0};
}
