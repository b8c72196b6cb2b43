/* several: see several.h.
 *
 *   FOLLOWING --elected--> LEADING --lost--> the driver ends --kv closed--> FOLLOWING
 *
 * One listener for both: whoever comes is passed to the driver when there is one, to the standby
 * when there is none.
 *
 * Failure modes: the driver cannot be started on the register (it is of another cluster, or does
 * not check): it yields, says why, and another may try; with none that can, there is no leader. */
#include "tools/pave-pd/several.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "engine/base/assert.h"
#include "engine/base/log.h"
#include "engine/base/text.h"
#include "engine/placement/standby.h"

#define SCHEME	   "etcd://"
#define TLS_SCHEME "etcds://"

struct several {
	struct several_config config;
	struct transport_listener *listener;
	char address[ADDR_SIZE_MAX]; /* where it listens */
	struct etcd *etcd;
	struct standby *standby;
	struct pd *pd;	/* leads, or ends */
	bool pd_ending; /* pd_stop was called */
	bool ending;
	struct pd_shared shared;
	struct reactor_timer give_up_timer;
	void (*stopped)(void *arg);
	void *stopped_arg;
};

/* -- what the driver asks --------------------------------------------------------------------- */

static bool may_issue(void *arg)
{
	const struct several *s = arg;

	return etcd_may_issue(s->etcd);
}

static size_t drivers(struct pd_driver list[PD_DRIVERS_MAX], void *arg)
{
	const struct several *s = arg;
	const struct etcd_member *members;
	const size_t count = MIN(etcd_members(s->etcd, &members), (size_t)PD_DRIVERS_MAX);

	for (size_t i = 0; i < count; i++) {
		list[i] = (struct pd_driver){.leads = members[i].leads};
		memcpy(list[i].name, members[i].name, sizeof list[i].name);
		memcpy(list[i].address, members[i].address, sizeof list[i].address);
	}
	return count;
}

static const char *leader_address(void *arg)
{
	const struct several *s = arg;
	const struct etcd_member *leader = etcd_leader(s->etcd);

	/* While it takes over, and while it ends, it serves nobody. */
	return strcmp(leader->address, s->config.advertise) == 0 ? "" : leader->address;
}

static void register_failed(int status, void *arg)
{
	struct several *s = arg;

	log_error("pd", "the register cannot be written (%s): another driver may lead",
		  err_text(status));
	etcd_yield(s->etcd);
}

/* -- to lead, and to follow ------------------------------------------------------------------- */

static void accepted(struct transport_conn *conn, void *arg)
{
	struct several *s = arg;

	if (s->pd != NULL && !s->pd_ending)
		pd_accept(s->pd, conn);
	else
		standby_accept(s->standby, conn);
}

static void elected(void *arg)
{
	struct several *s = arg;
	struct pd_config config = s->config.pd;
	struct error err;

	config.kv = etcd_kv(s->etcd);
	config.listen_address = NULL;
	config.shared = &s->shared;
	config.failed = register_failed;
	config.arg = s;
	if (pd_start(&config, &s->pd, &err) != 0) {
		log_error("pd", "cannot lead: %s", err.text);
		etcd_yield(s->etcd);
		return;
	}
	s->pd_ending = false;
	etcd_loaded(s->etcd);
	standby_disconnect(s->standby);
	log_info("pd", "leads: the register is taken over");
}

static void all_stopped(void *arg)
{
	struct several *s = arg;
	void (*stopped)(void *a) = s->stopped;
	void *stopped_arg = s->stopped_arg;

	reactor_timer_cancel(s->config.pd.reactor, &s->give_up_timer);
	free(s);
	stopped(stopped_arg);
}

static void etcd_stopped(void *arg)
{
	struct several *s = arg;

	standby_stop(s->standby, all_stopped, s);
}

static void pd_ended(void *arg)
{
	struct several *s = arg;

	s->pd = NULL;
	kv_close(etcd_kv(s->etcd));
	if (s->ending)
		etcd_stop(s->etcd, etcd_stopped, s);
	else
		etcd_follow(s->etcd);
}

static void lost(void *arg)
{
	struct several *s = arg;

	if (s->pd == NULL) {
		kv_close(etcd_kv(s->etcd));
		etcd_follow(s->etcd);
	} else if (!s->pd_ending) {
		s->pd_ending = true;
		pd_stop(s->pd, pd_ended, s);
	}
}

static void give_up(struct reactor_timer *t)
{
	struct several *s = container_of(t, struct several, give_up_timer);

	if (s->pd == NULL)
		return;
	log_warn("pd", "etcd does not answer: what waits for it is given up");
	etcd_give_up(s->etcd);
}

void several_stop(struct several *s, void (*done)(void *arg), void *arg)
{
	PRE(!s->ending);
	s->ending = true;
	s->stopped = done;
	s->stopped_arg = arg;
	transport_unlisten(s->listener);
	s->listener = NULL;
	reactor_timer_arm(s->config.pd.reactor, &s->give_up_timer,
			  reactor_now_ns(s->config.pd.reactor) + SEVERAL_STOP_MS * NS_PER_MS);
	if (s->pd == NULL) {
		etcd_stop(s->etcd, etcd_stopped, s);
	} else if (!s->pd_ending) {
		s->pd_ending = true;
		pd_stop(s->pd, pd_ended, s);
	}
}

/* -- start ------------------------------------------------------------------------------------ */

static bool is_loopback(const char *address)
{
	return strncmp(address, "127.", 4) == 0 || strncmp(address, "localhost:", 10) == 0 ||
	       strncmp(address, "[::1]:", 6) == 0;
}

static int check_file(const char *option, const char *path, struct error *err)
{
	if (path == NULL || access(path, R_OK) == 0)
		return 0;
	return error_set(err, -errno, "%s %.300s: %s", option, path, strerror(errno));
}

static int check_tls(const struct http_tls *tls, struct error *err)
{
	int rc;

	if (!tls->on) {
		if (tls->ca == NULL && tls->cert == NULL && tls->key == NULL)
			return 0;
		return error_set(err, -EINVAL,
				 "--register-ca, --register-cert and --register-key are for a "
				 "register at " TLS_SCHEME ", with TLS");
	}
	if ((tls->cert == NULL) != (tls->key == NULL))
		return error_set(err, -EINVAL,
				 "--register-cert and --register-key go together: give both");
	rc = check_file("--register-ca", tls->ca, err);
	if (rc == 0)
		rc = check_file("--register-cert", tls->cert, err);
	return rc == 0 ? check_file("--register-key", tls->key, err) : rc;
}

static int parse_url(const struct several_config *config, struct http_tls *ret_tls,
		     struct drivers *ret, struct error *err)
{
	const char *url = config->register_url, *servers = NULL;
	int rc;

	*ret_tls = config->tls;
	ret_tls->on = strncmp(url, TLS_SCHEME, strlen(TLS_SCHEME)) == 0;
	if (ret_tls->on)
		servers = url + strlen(TLS_SCHEME);
	else if (strncmp(url, SCHEME, strlen(SCHEME)) == 0)
		servers = url + strlen(SCHEME);
	if (servers == NULL)
		return error_set(err, -EINVAL,
				 "--register %.200s: give " SCHEME
				 "HOST:PORT[,HOST:PORT...], or " TLS_SCHEME "... with TLS",
				 url);
	rc = drivers_parse(servers, ret, err);
	if (rc != 0)
		return error_wrap(err, "--register");
	for (uint32_t i = 0; i < ret->count; i++) {
		if (strpbrk(ret->list[i], "/@?# ") != NULL || strchr(ret->list[i], ':') == NULL)
			return error_set(err, -EINVAL, "--register: \"%s\" is no HOST:PORT",
					 ret->list[i]);
		if (!ret_tls->on && !config->insecure && !is_loopback(ret->list[i]))
			return error_set(err, -EACCES,
					 "--register: etcd at %s is not on the loopback: reach it "
					 "with TLS (" TLS_SCHEME "), or give --insecure if its "
					 "network is closed",
					 ret->list[i]);
	}
	return check_tls(ret_tls, err);
}

/* The host's name and the port, of what a name may hold. */
static void default_name(const char *address, char *buf, size_t size)
{
	const char *colon = strrchr(address, ':');
	char host[40] = "pd";

	if (gethostname(host, sizeof host - 1) != 0)
		host[0] = '\0';
	snprintf(buf, size, "%s-%s", host, colon != NULL ? colon + 1 : "0");
	for (char *p = buf; *p != '\0'; p++) {
		*p = (char)tolower((unsigned char)*p);
		if (strchr("abcdefghijklmnopqrstuvwxyz0123456789-.", *p) == NULL)
			*p = '-';
	}
}

static int open_etcd(struct several *s, const struct http_tls *tls, const struct drivers *servers,
		     struct error *err)
{
	char prefix[64], id[40], name[NAME_SIZE_MAX];
	const struct etcd_config config = {
	    .reactor = s->config.pd.reactor,
	    .servers = *servers,
	    .tls = *tls,
	    .prefix = prefix,
	    .name = s->config.name != NULL ? s->config.name : name,
	    .address = s->config.advertise,
	    .ttl_s = s->config.leader_ttl_s,
	    .family_count = PD_KV_FAMILIES,
	    .large_families = 1u << PD_KV_LEDGER,
	    .elected = elected,
	    .lost = lost,
	    .arg = s,
	};

	snprintf(prefix, sizeof prefix, "/pave/%s/",
		 text_uuid(root_cluster(trust_root(s->config.pd.trust)), id, sizeof id));
	default_name(s->config.advertise, name, sizeof name);
	if (!text_is_name(config.name))
		return error_set(err, -EINVAL, "--name %.80s: a-z 0-9 . _ -, up to %u", config.name,
				 NAME_SIZE_MAX - 1);
	return etcd_open(&config, &s->etcd, err);
}

int several_start(const struct several_config *config, struct several **ret_several,
		  struct error *err)
{
	struct several *s = calloc(1, sizeof *s);
	struct drivers servers;
	struct http_tls tls;
	int rc;

	if (s == NULL)
		return error_set(err, -ENOMEM, "no memory");
	s->config = *config;
	s->shared = (struct pd_shared){.may_issue = may_issue, .drivers = drivers, .arg = s};
	s->give_up_timer.fire = give_up;
	rc = parse_url(config, &tls, &servers, err);
	if (rc != 0)
		goto fail;
	rc = standby_create(config->pd.reactor, root_cluster(trust_root(config->pd.trust)),
			    leader_address, s, &s->standby);
	if (rc != 0) {
		error_set(err, rc, "no memory");
		goto fail;
	}
	rc = transport_listen(config->pd.transport, config->listen_address, accepted, s,
			      &s->listener, err);
	if (rc != 0) {
		error_wrap(err, "listening on %s", config->listen_address);
		goto fail;
	}
	memcpy(s->address, s->listener->address, sizeof s->address);
	if (s->config.advertise == NULL)
		s->config.advertise = s->address;
	rc = open_etcd(s, &tls, &servers, err);
	if (rc != 0)
		goto fail; /* the process ends with what was begun */
	*ret_several = s;
	return 0;
fail:
	free(s);
	return rc;
}

const char *several_address(const struct several *s)
{
	return s->address;
}
