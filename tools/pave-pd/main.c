/* pave-pd: the placement driver.
 *
 *   OPENING -- register loaded, listening --> SERVING -- SIGTERM --> ENDING: sessions, register
 *
 * Prints "ready ADDRESS" on stdout when it listens. Exit codes: 0 ended by SIGTERM, 1 failed, 2
 * usage.
 *
 * With --register it is one of several, and leads or follows: several.c.
 *
 * Under --dir: register (RocksDB, unless it lies elsewhere), trust.json (the evidence seen). */
#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/log.h"
#include "engine/base/text.h"
#include "engine/placement/pd.h"
#include "engine/reactor/io.h"
#include "tools/common/daemon.h"
#include "tools/common/duration.h"
#include "tools/pave-pd/several.h"

#define REGISTER_CACHE_BYTES (32u << 20)

struct driver {
	const char *dir, *root, *key, *key_id, *listen, *policy;
	const char *register_url, *name, *advertise;
	struct http_tls register_tls;
	uint32_t lifetime_ms, replace_after_s, leader_ttl_s;
	bool insecure, only_added, ending;
	int exit_code;
	struct reactor *reactor;
	struct transport *transport;
	struct trust *trust;
	struct kv *kv;
	struct signing_key *placement_key;
	struct pd *pd;
	struct several *several;
};

static const char usage[] =
    "Usage: pave-pd --dir DIR --root FILE --placement-key FILE [OPTION...]\n"
    "The placement driver: holds the evidence and the register, gives permits and leases.\n"
    "\n"
    "  --dir DIR               for the register and the evidence seen\n"
    "  --root FILE             the trust root (DSSE envelope); may be left out later on\n"
    "  --placement-key FILE    private key (PEM) that permits and leases are signed with\n"
    "  --key-id NAME           its name in the root (default placement-1)\n"
    "  --listen HOST:PORT      default 127.0.0.1:0, any free port\n"
    "  --register etcd://HOST:PORT[,HOST:PORT...]  the register lies on etcd; several drivers may\n"
    "                          share it, of which one leads\n"
    "  --register etcds://...  the same with TLS\n"
    "  --register-ca FILE      PEM: who certifies etcd's servers (default: the system's)\n"
    "  --register-cert FILE, --register-key FILE  PEM: what this driver shows them\n"
    "  --name NAME             of this driver, of several (default HOSTNAME-PORT)\n"
    "  --advertise HOST:PORT   where hosts, nodes and the CLI reach it (default: where it "
    "listens)\n"
    "  --leader-lease TIME     others take over so long after the leader fell silent (default 3s)\n"
    "  --permit-lifetime TIME  of permits and leases, as 10s or 2500ms (default 10s, most 60s)\n"
    "  --replace-after TIME    a node that is away for longer is replaced (default 15m)\n"
    "  --only-added-nodes      refuse nodes that were not added (pave node add)\n"
    "  --default-policy NAME   for volumes that name none (default secnumcloud-fr)\n"
    "  --insecure              allow addresses other than loopback, without TLS\n"
    "  --cluster-dir DIR       not looked at: the process names its cluster by it\n"
    "  --log-level LEVEL       error, warn, info (default), debug\n"
    "  --version, --help\n";

static void stopped(void *arg)
{
	struct driver *d = arg;

	d->pd = NULL;
	log_info("pd", "ended");
	reactor_stop(d->reactor);
}

static void register_failed(int status, void *arg)
{
	struct driver *d = arg;

	log_error("pd", "ending, because the register cannot be written: %s", err_text(status));
	d->exit_code = 1;
	reactor_stop(d->reactor);
}

static void on_signal(int signal_number, void *arg)
{
	struct driver *d = arg;

	if (d->ending)
		return;
	d->ending = true;
	log_info("pd", "%s: ending", strsignal(signal_number));
	if (d->several != NULL)
		several_stop(d->several, stopped, d);
	else
		pd_stop(d->pd, stopped, d);
}

/* A key that is not the root's would make permits that nobody believes: better to say so now. */
static int check_key(const struct driver *d, struct error *err)
{
	static const char type[] = "application/vnd.pave.self-test";
	Pave__V1__Signed *s;
	int rc = signed_make(type, "", 0, d->placement_key, &s, err);

	if (rc != 0)
		return rc;
	rc = signed_verify(s, type, trust_root(d->trust), err);
	pave__v1__signed__free_unpacked(s, NULL);
	if (rc != 0)
		error_wrap(err, "placement key %s is not key %s of the root's role placement",
			   d->key, d->key_id);
	return rc;
}

static int open_files(struct driver *d, struct error *err)
{
	char path[4200];
	int rc = daemon_open_trust(d->dir, d->root, &d->trust, err);

	if (rc != 0)
		return rc;
	rc = signing_key_read(d->key, d->key_id, &d->placement_key, err);
	if (rc == 0)
		rc = check_key(d, err);
	if (rc != 0)
		return rc;
	if (d->register_url != NULL)
		return 0;
	if (snprintf(path, sizeof path, "%s/register", d->dir) >= (int)sizeof path)
		return error_set(err, -ENAMETOOLONG, "directory %s: the name is too long", d->dir);
	return kv_rocks_open(d->reactor, path, pd_kv_family_names, PD_KV_FAMILIES,
			     REGISTER_CACHE_BYTES, &d->kv, err);
}

static int start_alone(struct driver *d, struct error *err)
{
	const struct pd_config config = {.reactor = d->reactor,
					 .transport = d->transport,
					 .kv = d->kv,
					 .trust = d->trust,
					 .placement_key = d->placement_key,
					 .listen_address = d->listen,
					 .permit_lifetime_ms = d->lifetime_ms,
					 .replace_after_s = d->replace_after_s,
					 .only_added = d->only_added,
					 .default_policy = d->policy,
					 .failed = register_failed,
					 .arg = d};

	return pd_start(&config, &d->pd, err);
}

static int start_shared(struct driver *d, struct error *err)
{
	const struct several_config config = {.pd = {.reactor = d->reactor,
						     .transport = d->transport,
						     .trust = d->trust,
						     .placement_key = d->placement_key,
						     .permit_lifetime_ms = d->lifetime_ms,
						     .replace_after_s = d->replace_after_s,
						     .only_added = d->only_added,
						     .default_policy = d->policy},
					      .register_url = d->register_url,
					      .tls = d->register_tls,
					      .listen_address = d->listen,
					      .name = d->name,
					      .advertise = d->advertise,
					      .leader_ttl_s = d->leader_ttl_s,
					      .insecure = d->insecure};

	return several_start(&config, &d->several, err);
}

static int run(struct driver *d, struct error *err)
{
	const struct reactor_config config = {
	    .name = "pd", .worker_count = d->register_url != NULL ? SEVERAL_WORKERS : PD_WORKERS};
	const char *address;
	int rc = reactor_create(&config, &d->reactor);

	if (rc != 0)
		return error_set(err, rc, "io_uring: %s", err_text(rc));
	rc = transport_tcp_create(d->reactor, d->insecure, &d->transport);
	if (rc != 0)
		return error_set(err, rc, "transport: %s", err_text(rc));
	rc = open_files(d, err);
	if (rc == 0)
		rc = d->register_url != NULL ? start_shared(d, err) : start_alone(d, err);
	if (rc != 0)
		return rc;
	rc = reactor_on_terminate(d->reactor, on_signal, d);
	if (rc != 0)
		return error_set(err, rc, "signals: %s", err_text(rc));
	address = d->several != NULL ? several_address(d->several) : pd_address(d->pd);
	log_info("pd", "serves at %s", address);
	daemon_ready(address);
	rc = reactor_run(d->reactor);
	return rc == 0 ? 0 : error_set(err, rc, "reactor: %s", err_text(rc));
}

static int parse_lifetime(struct driver *d, const char *text)
{
	uint64_t ms;

	if (duration_parse_ms(text, &ms) != 0 || ms < 1000 || ms > PERMIT_LIFETIME_MAX_MS) {
		fprintf(stderr, "pave-pd: --permit-lifetime %s: 1s to %us, as 10s or 2500ms\n",
			text, PERMIT_LIFETIME_MAX_MS / 1000);
		return 2;
	}
	d->lifetime_ms = (uint32_t)ms;
	return 0;
}

static int parse_leader_lease(struct driver *d, const char *text)
{
	uint64_t ms;

	if (duration_parse_ms(text, &ms) != 0 || ms % 1000 != 0 || ms / 1000 < SEVERAL_TTL_MIN_S ||
	    ms / 1000 > SEVERAL_TTL_MAX_S) {
		fprintf(stderr, "pave-pd: --leader-lease %s: %us to %us, in whole seconds\n", text,
			SEVERAL_TTL_MIN_S, SEVERAL_TTL_MAX_S);
		return 2;
	}
	d->leader_ttl_s = (uint32_t)(ms / 1000);
	return 0;
}

static int parse_replace_after(struct driver *d, const char *text)
{
	uint64_t ms;

	if (duration_parse_ms(text, &ms) != 0 || ms < 1000 || ms / 1000 > UINT32_MAX) {
		fprintf(stderr, "pave-pd: --replace-after %s: 1s to 49710d, as 15m\n", text);
		return 2;
	}
	d->replace_after_s = (uint32_t)(ms / 1000);
	return 0;
}

/* 0, 2, or -1 when the answer was printed. */
static int take_option(struct driver *d, int c)
{
	switch (c) {
	case 'd':
		d->dir = optarg;
		return 0;
	case 'r':
		d->root = optarg;
		return 0;
	case 'k':
		d->key = optarg;
		return 0;
	case 'K':
		d->key_id = optarg;
		return 0;
	case 'L':
		d->listen = optarg;
		return 0;
	case 'G':
		d->register_url = optarg;
		return 0;
	case 'a':
		d->register_tls.ca = optarg;
		return 0;
	case 'c':
		d->register_tls.cert = optarg;
		return 0;
	case 'e':
		d->register_tls.key = optarg;
		return 0;
	case 'N':
		d->name = optarg;
		return 0;
	case 'A':
		d->advertise = optarg;
		return 0;
	case 'T':
		return parse_leader_lease(d, optarg);
	case 't':
		return parse_lifetime(d, optarg);
	case 'R':
		return parse_replace_after(d, optarg);
	case 'P':
		d->policy = optarg;
		return 0;
	case 'O':
		d->only_added = true;
		return 0;
	case 'I':
		d->insecure = true;
		return 0;
	case 'C':
		return 0;
	case 'l':
		return daemon_log_level("pave-pd", optarg) != 0 ? 2 : 0;
	case 'V':
		puts("pave-pd " PAVE_VERSION);
		return -1;
	case 'h':
		fputs(usage, stdout);
		return -1;
	default:
		fputs("Try `pave-pd --help`.\n", stderr);
		return 2;
	}
}

static int parse(struct driver *d, int argc, char **argv)
{
	static const struct option options[] = {
	    {"dir", required_argument, NULL, 'd'},
	    {"root", required_argument, NULL, 'r'},
	    {"placement-key", required_argument, NULL, 'k'},
	    {"key-id", required_argument, NULL, 'K'},
	    {"listen", required_argument, NULL, 'L'},
	    {"register", required_argument, NULL, 'G'},
	    {"register-ca", required_argument, NULL, 'a'},
	    {"register-cert", required_argument, NULL, 'c'},
	    {"register-key", required_argument, NULL, 'e'},
	    {"name", required_argument, NULL, 'N'},
	    {"advertise", required_argument, NULL, 'A'},
	    {"leader-lease", required_argument, NULL, 'T'},
	    {"permit-lifetime", required_argument, NULL, 't'},
	    {"replace-after", required_argument, NULL, 'R'},
	    {"default-policy", required_argument, NULL, 'P'},
	    {"only-added-nodes", no_argument, NULL, 'O'},
	    {"insecure", no_argument, NULL, 'I'},
	    {"cluster-dir", required_argument, NULL, 'C'},
	    {"log-level", required_argument, NULL, 'l'},
	    {"version", no_argument, NULL, 'V'},
	    {"help", no_argument, NULL, 'h'},
	    {0},
	};
	int c, rc = 0;

	d->listen = "127.0.0.1:0";
	d->key_id = "placement-1";
	while (rc == 0 && (c = getopt_long(argc, argv, "h", options, NULL)) != -1)
		rc = take_option(d, c);
	if (rc != 0)
		return rc;
	if (optind != argc || d->dir == NULL || d->key == NULL) {
		fputs("pave-pd: --dir and --placement-key are needed (and --root the first time), "
		      "and nothing else\nTry `pave-pd --help`.\n",
		      stderr);
		return 2;
	}
	return 0;
}

int main(int argc, char **argv)
{
	static struct driver d;
	struct error err = {0};
	int rc = parse(&d, argc, argv);

	if (rc != 0)
		return rc < 0 ? 0 : rc;
	signal(SIGPIPE, SIG_IGN);
	log_set_name("pave-pd");
	daemon_many_files();
	if (run(&d, &err) != 0) {
		fprintf(stderr, "pave-pd: %s\n", err.text);
		d.exit_code = 1;
	}
	if (d.exit_code != 0)
		return d.exit_code; /* what was begun ends with the process, as after a crash */
	kv_close(d.kv);
	transport_destroy(d.transport);
	signing_key_free(d.placement_key);
	trust_close(d.trust);
	reactor_destroy(d.reactor);
	return 0;
}
