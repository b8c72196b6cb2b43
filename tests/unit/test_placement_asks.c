/* What is asked of the driver by the tests; see test_placement_rig.h. */
#include <check.h>
#include <string.h>

#include "tests/unit/test_placement_rig.h"

void start_lease(struct peer *p, const char *node, const char *site, uint8_t device,
		 int64_t skew_ns)
{
	Pave__V1__Control m = PAVE__V1__CONTROL__INIT;
	Pave__V1__LeaseRequest l = PAVE__V1__LEASE_REQUEST__INIT;
	uint8_t uuid[16] = {device};
	char *addresses[] = {(char *)(uintptr_t)node};
	Pave__V1__ScrubState scrub = PAVE__V1__SCRUB_STATE__INIT;
	uint8_t nonce[16] = {1, 2, 3};

	scrub.volumes = &p->damaged;
	scrub.n_volumes = p->damaged != 0;
	scrub.needed_rate = RIG_SCRUB_NEEDED;
	scrub.max_rate = RIG_SCRUB_MAX;
	l.scrub = &scrub;
	l.operations = p->operations;
	if (p->trouble != NULL)
		l.trouble = (char *)(uintptr_t)p->trouble;
	l.node = (char *)(uintptr_t)node;
	l.site = (char *)(uintptr_t)site;
	l.addresses = addresses;
	l.n_addresses = 1;
	l.nonce.data = nonce;
	l.nonce.len = sizeof nonce;
	l.device.data = uuid;
	l.device.len = sizeof uuid;
	l.wall = reactor_wall_ns(sim_reactor(p->process)) + skew_ns;
	l.size_bytes = l.free_bytes = 8ull << 30;
	m.body_case = PAVE__V1__CONTROL__BODY_LEASE_REQUEST;
	m.lease_request = &l;
	peer_ask_start(p, &m);
}

int ask_lease(struct peer *p, const char *node, const char *site, uint8_t device, int64_t skew_ns)
{
	start_lease(p, node, site, device, skew_ns);
	return peer_ask_wait(p);
}

struct lease reply_lease(struct peer *p)
{
	const uint8_t nonce[16] = {1, 2, 3};
	struct lease lease;
	struct error err = {0};

	ck_assert_int_eq(p->reply->body_case, PAVE__V1__CONTROL__BODY_LEASE_REPLY);
	ck_assert_msg(lease_open(p->reply->lease_reply->lease, trust_root(p->rig->trust), nonce,
				 sizeof nonce, reactor_now_ns(sim_reactor(p->process)),
				 reactor_wall_ns(sim_reactor(p->process)), &lease, &err) == 0,
		      "%s", err.text);
	return lease;
}

int ask_site_add(struct peer *p, const char *envelope)
{
	Pave__V1__Control m = PAVE__V1__CONTROL__INIT;
	Pave__V1__SiteAdd add = PAVE__V1__SITE_ADD__INIT;

	add.envelope.data = (uint8_t *)(uintptr_t)envelope;
	add.envelope.len = strlen(envelope);
	m.body_case = PAVE__V1__CONTROL__BODY_SITE_ADD;
	m.site_add = &add;
	return peer_ask(p, &m);
}

int ask_revocations(struct peer *p, const char *envelope)
{
	Pave__V1__Control m = PAVE__V1__CONTROL__INIT;
	Pave__V1__RevocationsPut put = PAVE__V1__REVOCATIONS_PUT__INIT;

	put.envelope.data = (uint8_t *)(uintptr_t)envelope;
	put.envelope.len = strlen(envelope);
	m.body_case = PAVE__V1__CONTROL__BODY_REVOCATIONS_PUT;
	m.revocations_put = &put;
	return peer_ask(p, &m);
}

int ask_create(struct peer *p, const char *name, uint64_t size, const char *policy)
{
	Pave__V1__Control m = PAVE__V1__CONTROL__INIT;
	Pave__V1__VolumeCreate c = PAVE__V1__VOLUME_CREATE__INIT;

	c.name = (char *)(uintptr_t)name;
	c.size = size;
	c.chunk_size = 64ull << 20;
	c.policy = (char *)(uintptr_t)policy;
	m.body_case = PAVE__V1__CONTROL__BODY_VOLUME_CREATE;
	m.volume_create = &c;
	return peer_ask(p, &m);
}

int ask_delete(struct peer *p, const char *name)
{
	Pave__V1__Control m = PAVE__V1__CONTROL__INIT;
	Pave__V1__VolumeDelete d = PAVE__V1__VOLUME_DELETE__INIT;

	d.name = (char *)(uintptr_t)name;
	m.body_case = PAVE__V1__CONTROL__BODY_VOLUME_DELETE;
	m.volume_delete = &d;
	return peer_ask(p, &m);
}

int ask_volume(struct peer *p, const char *name)
{
	Pave__V1__Control m = PAVE__V1__CONTROL__INIT;
	Pave__V1__VolumeGet g = PAVE__V1__VOLUME_GET__INIT;

	g.name = (char *)(uintptr_t)name;
	g.with_map = true;
	m.body_case = PAVE__V1__CONTROL__BODY_VOLUME_GET;
	m.volume_get = &g;
	return peer_ask(p, &m);
}

int ask_attach(struct peer *p, const char *volume, const char *holder, const char *site)
{
	Pave__V1__Control m = PAVE__V1__CONTROL__INIT;
	Pave__V1__Attach a = PAVE__V1__ATTACH__INIT;

	a.volume = (char *)(uintptr_t)volume;
	a.holder = (char *)(uintptr_t)holder;
	a.holder_site = (char *)(uintptr_t)site;
	a.endpoint = (char *)(uintptr_t) "unix:/x";
	m.body_case = PAVE__V1__CONTROL__BODY_ATTACH;
	m.attach = &a;
	return peer_ask(p, &m);
}

int ask_attach_if_free(struct peer *p, const char *volume, const char *holder, const char *site)
{
	Pave__V1__Control m = PAVE__V1__CONTROL__INIT;
	Pave__V1__Attach a = PAVE__V1__ATTACH__INIT;

	a.volume = (char *)(uintptr_t)volume;
	a.holder = (char *)(uintptr_t)holder;
	a.holder_site = (char *)(uintptr_t)site;
	a.endpoint = (char *)(uintptr_t) "unix:/x";
	a.if_free = true;
	m.body_case = PAVE__V1__CONTROL__BODY_ATTACH;
	m.attach = &a;
	return peer_ask(p, &m);
}

int ask_attach_read_only(struct peer *p, const char *volume)
{
	Pave__V1__Control m = PAVE__V1__CONTROL__INIT;
	Pave__V1__Attach a = PAVE__V1__ATTACH__INIT;
	char holder[] = "h2", site[] = "par";

	a.volume = (char *)(uintptr_t)volume;
	a.holder = holder;
	a.holder_site = site;
	a.read_only = true;
	m.body_case = PAVE__V1__CONTROL__BODY_ATTACH;
	m.attach = &a;
	return peer_ask(p, &m);
}

void start_rollback(struct peer *p, const char *source)
{
	Pave__V1__Control m = PAVE__V1__CONTROL__INIT;
	Pave__V1__VolumeRollback r = PAVE__V1__VOLUME_ROLLBACK__INIT;

	r.source = (char *)(uintptr_t)source;
	m.body_case = PAVE__V1__CONTROL__BODY_VOLUME_ROLLBACK;
	m.volume_rollback = &r;
	peer_ask_start(p, &m);
}

int ask_rollback(struct peer *p, const char *source)
{
	start_rollback(p, source);
	return peer_ask_wait(p);
}

int ask_renew(struct peer *p, volume_id_t volume, generation_t generation)
{
	Pave__V1__Control m = PAVE__V1__CONTROL__INIT;
	Pave__V1__Renew r = PAVE__V1__RENEW__INIT;

	r.volume = volume;
	r.generation = generation;
	m.body_case = PAVE__V1__CONTROL__BODY_RENEW;
	m.renew = &r;
	return peer_ask(p, &m);
}

int ask_maintenance_of(struct peer *p, const char *volume, const char *holder)
{
	Pave__V1__Control m = PAVE__V1__CONTROL__INIT;
	Pave__V1__Attach a = PAVE__V1__ATTACH__INIT;

	a.volume = (char *)(uintptr_t)volume;
	a.holder = (char *)(uintptr_t)holder;
	a.holder_site = (char *)(uintptr_t) "par";
	a.endpoint = (char *)(uintptr_t) "maintenance";
	a.maintenance = true;
	m.body_case = PAVE__V1__CONTROL__BODY_ATTACH;
	m.attach = &a;
	return peer_ask(p, &m);
}

int ask_resize(struct peer *p, const char *name, uint64_t size)
{
	Pave__V1__Control m = PAVE__V1__CONTROL__INIT;
	Pave__V1__VolumeResize r = PAVE__V1__VOLUME_RESIZE__INIT;

	r.name = (char *)(uintptr_t)name;
	r.size = size;
	m.body_case = PAVE__V1__CONTROL__BODY_VOLUME_RESIZE;
	m.volume_resize = &r;
	return peer_ask(p, &m);
}

int ask_detach(struct peer *p, volume_id_t volume, generation_t generation)
{
	Pave__V1__Control m = PAVE__V1__CONTROL__INIT;
	Pave__V1__Detach d = PAVE__V1__DETACH__INIT;

	d.volume = volume;
	d.generation = generation;
	m.body_case = PAVE__V1__CONTROL__BODY_DETACH;
	m.detach = &d;
	return peer_ask(p, &m);
}

void start_volume_detach(struct peer *p, const char *volume)
{
	Pave__V1__Control m = PAVE__V1__CONTROL__INIT;
	Pave__V1__VolumeDetach d = PAVE__V1__VOLUME_DETACH__INIT;

	d.name = (char *)(uintptr_t)volume;
	m.body_case = PAVE__V1__CONTROL__BODY_VOLUME_DETACH;
	m.volume_detach = &d;
	peer_ask_start(p, &m);
}

struct permit reply_permit(struct peer *p)
{
	const Pave__V1__Signed *s = NULL;
	struct permit permit = {0};
	struct error err = {0};

	ck_assert_msg(p->status == 0, "%s", p->text);
	if (p->reply->body_case == PAVE__V1__CONTROL__BODY_ATTACH_REPLY)
		s = p->reply->attach_reply->permit;
	else if (p->reply->body_case == PAVE__V1__CONTROL__BODY_RENEW_REPLY)
		s = p->reply->renew_reply->permit;
	ck_assert_ptr_nonnull(s);
	ck_assert_msg(permit_open(s, trust_root(p->rig->trust),
				  reactor_now_ns(sim_reactor(p->process)),
				  reactor_wall_ns(sim_reactor(p->process)), &permit, &err) == 0,
		      "%s", err.text);
	return permit;
}

/* -- moves ------------------------------------------------------------------------------------ */

void start_drain(struct peer *p, const char *node, bool undo)
{
	Pave__V1__Control m = PAVE__V1__CONTROL__INIT;
	Pave__V1__NodeDrain d = PAVE__V1__NODE_DRAIN__INIT;

	d.node = (char *)(uintptr_t)node;
	d.undo = undo;
	m.body_case = PAVE__V1__CONTROL__BODY_NODE_DRAIN;
	m.node_drain = &d;
	peer_ask_start(p, &m);
}

int ask_drain(struct peer *p, const char *node, bool undo)
{
	start_drain(p, node, undo);
	return peer_ask_wait(p);
}

int ask_set(struct peer *p, const char *action)
{
	Pave__V1__Control m = PAVE__V1__CONTROL__INIT;
	Pave__V1__RebalanceSet s = PAVE__V1__REBALANCE_SET__INIT;

	s.action = (char *)(uintptr_t)action;
	m.body_case = PAVE__V1__CONTROL__BODY_REBALANCE_SET;
	m.rebalance_set = &s;
	return peer_ask(p, &m);
}

const Pave__V1__RebalanceStatusReply *ask_status(struct peer *p)
{
	Pave__V1__Control m = PAVE__V1__CONTROL__INIT;
	Pave__V1__RebalanceStatus s = PAVE__V1__REBALANCE_STATUS__INIT;

	m.body_case = PAVE__V1__CONTROL__BODY_REBALANCE_STATUS;
	m.rebalance_status = &s;
	ck_assert_int_eq(peer_ask(p, &m), 0);
	return p->reply->rebalance_status_reply;
}

/* -- layers ----------------------------------------------------------------------------------- */

void start_snapshot(struct peer *p, const char *name, const char *snapshot)
{
	Pave__V1__Control m = PAVE__V1__CONTROL__INIT;
	Pave__V1__VolumeSnapshot s = PAVE__V1__VOLUME_SNAPSHOT__INIT;

	s.name = (char *)(uintptr_t)name;
	s.snapshot = (char *)(uintptr_t)snapshot;
	m.body_case = PAVE__V1__CONTROL__BODY_VOLUME_SNAPSHOT;
	m.volume_snapshot = &s;
	peer_ask_start(p, &m);
}

int ask_snapshot(struct peer *p, const char *name, const char *snapshot)
{
	start_snapshot(p, name, snapshot);
	return peer_ask_wait(p);
}

int ask_clone(struct peer *p, const char *source, const char *name)
{
	Pave__V1__Control m = PAVE__V1__CONTROL__INIT;
	Pave__V1__VolumeClone c = PAVE__V1__VOLUME_CLONE__INIT;

	c.source = (char *)(uintptr_t)source;
	c.name = (char *)(uintptr_t)name;
	m.body_case = PAVE__V1__CONTROL__BODY_VOLUME_CLONE;
	m.volume_clone = &c;
	return peer_ask(p, &m);
}

void start_remove(struct peer *p, const char *node, bool force)
{
	Pave__V1__Control m = PAVE__V1__CONTROL__INIT;
	Pave__V1__NodeRemove r = PAVE__V1__NODE_REMOVE__INIT;

	r.node = (char *)(uintptr_t)node;
	r.force = force;
	m.body_case = PAVE__V1__CONTROL__BODY_NODE_REMOVE;
	m.node_remove = &r;
	peer_ask_start(p, &m);
}

int ask_remove(struct peer *p, const char *node, bool force)
{
	start_remove(p, node, force);
	return peer_ask_wait(p);
}

int renew_sealed(struct peer *p, volume_id_t volume, generation_t generation, volume_id_t sealed)
{
	Pave__V1__Control m = PAVE__V1__CONTROL__INIT;
	Pave__V1__Renew r = PAVE__V1__RENEW__INIT;

	r.volume = volume;
	r.generation = generation;
	r.sealed = sealed;
	m.body_case = PAVE__V1__CONTROL__BODY_RENEW;
	m.renew = &r;
	return peer_ask(p, &m);
}
