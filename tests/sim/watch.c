/* watch: see watch.h. */
#include "tests/sim/watch.h"

#include <string.h>

#include "engine/placement/driver.h"
#include "engine/placement/layers.h"
#include "tests/sim/checks.h"
#include "tests/sim/pds.h"

static const struct machine *machine_of(const struct sim_process *p)
{
	return p->app;
}

bool watch_is_allowed(const struct cluster *c, const struct machine *m, uint64_t at_ns)
{
	if (at_ns > c->snapshot_until_ns)
		return false;
	for (uint32_t i = 0; i < c->node_count; i++)
		if (strcmp(c->sites[i].name, m->site) == 0)
			return at_ns <=
			       MIN(c->sites[i].withdrawn_from_ns, c->sites[i].certified_until_ns);
	return true;
}

static void check_residency(struct cluster *c, const struct machine *m, uint64_t at_ns,
			    const char *what, const struct frame *f)
{
	if (watch_is_allowed(c, m, at_ns))
		return;
	cluster_fail(c,
		     "I1: %s of chunk %u, block %u, version %lx: site %s is not eligible any more",
		     what, f->chunk, f->block, f->version, m->site);
}

/* The host is a place too, be it one on a node, for maintenance. How long its evidence lasts is in
 * the permit, which its own clock and that of a node tell the end of. */
static void check_host(struct cluster *c, const struct machine *host, uint64_t at_ns,
		       const char *what, const struct frame *f)
{
	check_residency(c, host, at_ns - MIN(at_ns, CHECKS_CLOCK_SLACK_NS), what, f);
}

/* at_ns: when it leaves. */
static void watch_data(struct cluster *c, const struct machine *from, const struct machine *to,
		       uint64_t at_ns, const struct frame *f)
{
	bool is_reply = (f->flags & FRAME_F_REPLY) != 0;
	bool is_write = f->op == FRAME_WRITE || f->op == FRAME_ZERO;

	if (is_write && !is_reply && to->kind == MACHINE_NODE) {
		check_residency(c, to, at_ns, "bytes sent to a node", f);
		check_host(c, from, at_ns, "bytes sent by a host", f);
	}
	if (!is_reply || f->status != 0)
		return;
	checks_answer(c, from, at_ns);
	if (is_write)
		check_residency(c, from, at_ns, "bytes accepted by a node", f);
	if (f->op == FRAME_READ) {
		check_residency(c, from, at_ns, "bytes served by a node", f);
		check_host(c, to, at_ns, "bytes served to a host", f);
	}
	if (f->op == FRAME_FETCH) {
		check_residency(c, from, at_ns, "resync from a node", f);
		check_residency(c, to, at_ns, "resync to a node", f);
	}
}

static const Pave__V1__Signed *permit_in(const Pave__V1__Control *m)
{
	switch (m->body_case) {
	case PAVE__V1__CONTROL__BODY_ATTACH_REPLY:
		return m->attach_reply->permit;
	case PAVE__V1__CONTROL__BODY_RENEW_REPLY:
		return m->renew_reply->permit;
	case PAVE__V1__CONTROL__BODY_PERMIT_NOTICE:
		return m->permit_notice->permit;
	default:
		return NULL;
	}
}

/* A volume whose map says that this chunk is on the node, and that stands on the layer. */
static const struct reg_volume *who_has(struct reg *reg, const char *node, volume_id_t layer,
					chunk_no_t chunk)
{
	for (const struct reg_volume *v = reg->volumes; v != NULL; v = v->hh.next) {
		volume_id_t ids[LAYERS_MAX];
		uint32_t count = v->deleted ? 0 : layers_of(reg, v, ids, LAYERS_MAX);

		for (uint32_t i = 0; i < count && chunk < v->chunk_count; i++)
			for (uint32_t k = 0; ids[i] == layer && k < v->replicas; k++) {
				uint8_t place = v->map[(size_t)chunk * v->replicas + k];

				if (strcmp(v->nodes[place]->name, node) == 0)
					return v;
			}
	}
	return NULL;
}

/* Nobody is told to erase what some map says is there. */
static void check_erase(struct cluster *c, const struct machine *node, const Pave__V1__Erase *e)
{
	const struct pd *pd = pds_leading(c);
	struct reg *reg = pd != NULL ? (struct reg *)(uintptr_t)&pd->reg : NULL;
	const size_t chunks =
	    e->whole_volume ? CLUSTER_VOLUME_SIZE / CLUSTER_CHUNK_SIZE : e->n_chunks;

	for (size_t l = 0; reg != NULL && l <= e->n_more_layers; l++)
		for (size_t i = 0; i < chunks; i++) {
			volume_id_t layer = l == 0 ? e->volume : e->more_layers[l - 1];
			chunk_no_t chunk = e->whole_volume ? (chunk_no_t)i : e->chunks[i];
			const struct reg_volume *v =
			    who_has(reg, node->process->name, layer, chunk);

			if (v != NULL)
				cluster_fail(c,
					     "I3: node %s is told to erase chunk %u of layer %lu, "
					     "which volume %s has there",
					     node->process->name, chunk, layer, v->name);
		}
}

/* What a driver sends: permits, with their generation, and leases; and what is to be erased. */
static void watch_driver(struct cluster *c, const struct machine *from, const struct machine *to,
			 uint64_t at_ns, const struct transport_send *send)
{
	Pave__V1__Control *m;
	Pave__V1__Permit *permit;
	uint32_t h = 0;

	if (send->iov_count != 1)
		return;
	while (h < CLUSTER_HOSTS && c->hosts[h] != to)
		h++;
	m = pave__v1__control__unpack(NULL, send->iov[0].iov_len, send->iov[0].iov_base);
	if (m == NULL)
		return;
	if (permit_in(m) != NULL)
		pds_issued(c, from, "permit");
	if (m->body_case == PAVE__V1__CONTROL__BODY_LEASE_REPLY && m->lease_reply->lease != NULL) {
		pds_issued(c, from, "lease");
		checks_lease_sent(c, to, at_ns);
	}
	if (m->body_case == PAVE__V1__CONTROL__BODY_ERASE)
		check_erase(c, to, m->erase);
	if (h < CLUSTER_HOSTS && permit_in(m) != NULL) {
		checks_permit_sent(c, h, at_ns);
		permit = pave__v1__permit__unpack(NULL, permit_in(m)->payload.len,
						  permit_in(m)->payload.data);
		if (permit != NULL && m->body_case == PAVE__V1__CONTROL__BODY_ATTACH_REPLY)
			c->offered[h] = permit->generation;
		if (permit != NULL)
			pave__v1__permit__free_unpacked(permit, NULL);
	}
	pave__v1__control__free_unpacked(m, NULL);
}

static void observe(const struct sim_process *from, const struct sim_process *to,
		    const struct transport_send *send, void *arg)
{
	struct cluster *c = arg;
	const struct machine *sender = machine_of(from), *receiver = machine_of(to);
	const uint64_t at_ns = checks_time(sender);

	if (send->frame.op != FRAME_CONTROL)
		watch_data(c, sender, receiver, at_ns, &send->frame);
	else if (sender->kind == MACHINE_PD)
		watch_driver(c, sender, receiver, at_ns, send);
}

void watch_begin(struct cluster *c)
{
	sim_net_observe(c->world, observe, c);
}
