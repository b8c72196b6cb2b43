/* pave-node: one node of the cluster: a device, its index, the answers to hosts, and the lease.
 *
 *   OPENING --device open--> SERVING --SIGTERM--> ENDING: lease, sessions, store, in this order
 *
 * Prints "ready ADDRESS" on stdout when it listens; a lease comes (and goes) later, and until then
 * everything is refused. Exit codes: 0 ended by SIGTERM, all written; 1 failed; 2 usage.
 *
 * Under --dir: index (RocksDB), trust.json (the evidence seen). */
#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "engine/base/log.h"
#include "engine/base/text.h"
#include "engine/node/node.h"
#include "engine/reactor/io.h"
#include "engine/store/format.h"
#include "net/rdma/rdma.h"
#include "net/tcp/address.h"
#include "tools/common/daemon.h"
#include "tools/common/duration.h"
#include "tools/common/transports.h"
#include "tools/pave-node/device.h"
#include "tools/pave-node/devices.h"
#include "tools/pave-node/erase.h"
#include "tools/pave-node/layer_work.h"
#include "tools/pave-node/lease_watch.h"
#include "tools/pave-node/maintain.h"

#define SCRUB_PERIOD_S (14u * 86400)

#define DRAIN_NS (20 * NS_PER_MS)

/* Neither evidence nor a page of the index must wait behind a checkpoint. */
#define WORKERS 4

#define CACHE_BYTES_MIN (8 * MIB)

enum phase { OPENING, SERVING, ENDING };

struct node {
	enum phase phase;
	int exit_code;
	const char *name, *site, *pd, *root, *dir, *listen, *advertise, *certificate, *proof;
	const char *device_paths[POOL_DEVICES_MAX];
	uint32_t device_count;
	uint64_t device_size, resync_rate;
	uint64_t scrub_period_s;
	uint64_t cache_bytes; /* of the index's pages */
	bool insecure;
	char index_path[4200];

	struct reactor *reactor;
	struct transports_options transport;
	struct transports transports;
	char offered[ADDR_SIZE_MAX]; /* what is advertised, with RDMA */
	struct trust *trust;
	struct kv *kv;
	struct node_identity identity;
	struct identity key; /* zeroed: it has none */
	struct pool_open_op opening;
	struct pool *pool;
	struct node_shard *shard;
	struct node_lease *lease;
	struct lease_watch watch;
	struct reactor_timer watch_timer;
	struct eraser *eraser;
	struct layer_work *layer_work;
	struct devices *devices;
	struct maintain maintain;
	struct error err; /* why it failed */
};

static const char usage[] =
    "Usage: pave-node --name NAME --site SITE --pd HOST:PORT --root FILE --dir DIR --device "
    "PATH...\n"
    "Keeps copies of volumes on its devices, and serves them to hosts that hold a permit.\n"
    "\n"
    "  --name NAME         of this node, unique in the cluster\n"
    "  --site SITE         the site that it stands in\n"
    "  --pd HOST:PORT      the placement driver; several with commas between\n"
    "  --root FILE         the trust root (DSSE envelope)\n"
    "  --dir DIR           for the index and the evidence seen\n"
    "  --device PATH       block device or file; an empty one is formatted; up to 16 of them.\n"
    "                      Devices that were added to the node later are found by themselves\n"
    "  --device-size SIZE  creates the file with this size when it is not there, as 8GiB\n"
    "  --listen HOST:PORT  default 127.0.0.1:0, any free port\n"
    "  --advertise ADDRESS the HOST:PORT where others reach it, if a forwarder is in between\n"
    "  --certificate FILE  the site's certificate; default: the driver sends it\n"
    "  --cache SIZE        memory for the index's pages (default 1GiB; at least 8MiB)\n"
    "  --scrub-period TIME everything live is read again within it, as 14d (default); 0: only when "
    "asked\n"
    "  --identity PREFIX   PREFIX.key, .crt, .ca: key and certificates that receipts are signed "
    "with\n"
    "  --shards N          reactors; only 1 in this version\n"
    "  --resync-rate SIZE  bytes a second that this node copies from others to catch up\n"
    "                      (default 200MiB; 0: no limit)\n" TRANSPORTS_USAGE
    "  --insecure          allow addresses other than loopback, without TLS\n"
    "  --cluster-dir DIR   not looked at: the process names its cluster by it\n"
    "  --log-level LEVEL   error, warn, info (default), debug\n"
    "  --version, --help\n";

/* -- ending ----------------------------------------------------------------------------------- */

static void pool_closed(void *arg)
{
	struct node *n = arg;

	n->pool = NULL;
	devices_destroy(n->devices);
	n->devices = NULL;
	log_info("node", "all is written; ending");
	reactor_stop(n->reactor);
}

static void end_pool(struct node *n)
{
	if (n->pool != NULL)
		pool_close(n->pool, pool_closed, n);
	else
		reactor_stop(n->reactor);
}

static void layer_work_ended(void *arg)
{
	struct node *n = arg;

	n->layer_work = NULL;
	end_pool(n);
}

static void end_layer_work(struct node *n)
{
	if (n->layer_work != NULL)
		layer_work_stop(n->layer_work, layer_work_ended, n);
	else
		end_pool(n);
}

static void erases_ended(void *arg)
{
	struct node *n = arg;

	n->eraser = NULL;
	end_layer_work(n);
}

static void end_erases(struct node *n)
{
	if (n->eraser != NULL)
		eraser_stop(n->eraser, erases_ended, n);
	else
		end_layer_work(n);
}

static void lease_stopped(void *arg)
{
	struct node *n = arg;

	n->lease = NULL;
	end_erases(n);
}

/* The last receipts come when the sessions end, so the lease ends after them. */
static void shard_stopped(void *arg)
{
	struct node *n = arg;

	n->shard = NULL;
	if (n->lease != NULL)
		node_lease_stop(n->lease, lease_stopped, n);
	else
		end_erases(n);
}

static void end_shard(struct node *n)
{
	if (n->shard != NULL)
		node_shard_stop(n->shard, shard_stopped, n);
	else
		shard_stopped(n);
}

static void end(struct node *n, int exit_code)
{
	if (n->phase == ENDING)
		return;
	n->exit_code = exit_code;
	reactor_timer_cancel(n->reactor, &n->watch_timer);
	maintain_stop(&n->maintain);
	/* While the device is being opened, opened() goes on with the end. */
	if (n->phase == SERVING) {
		n->phase = ENDING;
		end_shard(n);
	}
	n->phase = ENDING;
}

static void on_signal(int signal_number, void *arg)
{
	log_info("node", "%s: ending", strsignal(signal_number));
	end(arg, 0);
}

/* -- serving ---------------------------------------------------------------------------------- */

static void lease_changed(const struct node_lease_state *state, void *arg)
{
	struct node *n = arg;

	if (n->shard != NULL)
		node_shard_set_lease(n->shard, state);
}

static void receipt_made(const struct node_receipt *receipt, void *arg)
{
	struct node *n = arg;

	if (n->lease != NULL)
		node_lease_receipt(n->lease, receipt);
}

static void fill_stats(struct store_stats *ret_stats, void *arg)
{
	struct node *n = arg;

	pool_get_stats(n->pool, ret_stats);
}

static uint64_t operations(void *arg)
{
	const struct node *n = arg;
	struct node_stats stats = {0};

	if (n->shard != NULL)
		node_shard_get_stats(n->shard, &stats);
	return stats.reads + stats.writes;
}

static uint32_t damage(struct store_damage *ret_damage, uint32_t max, void *arg)
{
	const struct node *n = arg;

	return pool_damage(n->pool, ret_damage, max);
}

static void maintain(const char *volume, void *arg)
{
	struct node *n = arg;

	if (n->phase == SERVING)
		maintain_volume(&n->maintain, volume);
}

static void scrub(void *arg)
{
	struct node *n = arg;

	pool_scrub(n->pool);
}

static void devices(uint64_t token, const Pave__V1__NodeDevices *what, void *arg)
{
	struct node *n = arg;

	devices_ask(n->devices, token, what);
}

static void lease_answer(uint64_t token, int status, const char *text,
			 const Pave__V1__Control *message, void *arg)
{
	struct node *n = arg;

	if (n->lease != NULL)
		node_lease_answer(n->lease, token, status, text, message);
}

static void trouble(char *buf, size_t size, void *arg)
{
	struct node *n = arg;

	pool_trouble(n->pool, buf, size);
}

static void erased(uint64_t token, int status, const struct node_erasure *done, void *arg)
{
	struct node *n = arg;

	if (n->lease != NULL)
		node_lease_erased(n->lease, token, status, done);
}

static void erase(uint64_t token, const Pave__V1__Erase *what, void *arg)
{
	struct node *n = arg;

	eraser_add(n->eraser, token, what);
}

static void layers(uint64_t token, const Pave__V1__Control *what, void *arg)
{
	struct node *n = arg;

	layer_work_add(n->layer_work, token, what);
}

static int start_lease(struct node *n, struct error *err)
{
	const char *address = n->advertise != NULL ? n->advertise : node_shard_address(n->shard);
	struct node_lease_config config = {
	    .reactor = n->reactor,
	    .transport = transports_use(&n->transports),
	    .trust = n->trust,
	    .identity = n->identity,
	    .device = *pool_node(n->pool),
	    .pd_address = n->pd,
	    .shard_addresses = &address,
	    .shard_count = 1,
	    .changed = lease_changed,
	    .stats = fill_stats,
	    .operations = operations,
	    .damage = damage,
	    .erase = erase,
	    .layers = layers,
	    .scrub = scrub,
	    .proof = n->key.key != NULL ? &n->key : NULL,
	    .devices = devices,
	    .trouble = trouble,
	    .maintain = maintain,
	    .arg = n,
	};
	char *certificate = NULL;
	size_t size = 0;
	int rc = 0;

	if (n->transports.rdma != NULL) { /* the listener's says so itself */
		if (address_offer(address, RDMA_TRANSPORT, n->offered) != 0)
			return error_set(err, -E_LIMIT, "--advertise %s: it is too long", address);
		address = n->offered;
	}
	if (n->certificate != NULL)
		rc = daemon_read_file(n->certificate, ENVELOPE_SIZE_MAX, &certificate, &size, err);
	if (rc == 0) {
		config.site_certificate = certificate;
		config.site_certificate_size = size;
		rc = node_lease_start(&config, &n->lease, err);
	}
	free(certificate);
	return rc;
}

static bool may_store(void *arg)
{
	const struct node *n = arg;

	return n->lease != NULL && node_lease_is_held(n->lease);
}

static void watch_lease(struct reactor_timer *timer)
{
	struct node *n = container_of(timer, struct node, watch_timer);
	const uint64_t now_ns = reactor_now_ns(n->reactor);
	struct node_lease_stats stats;
	uint64_t silent_ns;

	node_lease_get_stats(n->lease, &stats);
	switch (lease_watch_step(&n->watch, now_ns, node_lease_is_held(n->lease),
				 stats.granted + stats.refused, &silent_ns)) {
	case LEASE_WORD_NONE:
		break;
	case LEASE_WORD_SILENT:
		log_warn("node",
			 "no lease, and no answer of the placement driver (--pd %s) for %llu s: "
			 "nothing is stored or served until it gives one; is it running, and the "
			 "address right? It is asked on, without another word",
			 n->pd, (unsigned long long)(silent_ns / NS_PER_S));
		break;
	case LEASE_WORD_OVER:
		log_info("node", "the placement driver answers again, after %llu s",
			 (unsigned long long)(silent_ns / NS_PER_S));
		break;
	}
	reactor_timer_arm(n->reactor, timer, now_ns + LEASE_WATCH_STEP_NS);
}

static int serve(struct node *n, struct error *err)
{
	struct node_shard_config config = {
	    .reactor = n->reactor,
	    .transport = transports_use(&n->transports),
	    .pool = n->pool,
	    .trust = n->trust,
	    .identity = n->identity,
	    .listen_address = n->listen,
	    .resync_rate = n->resync_rate,
	    .receipt = receipt_made,
	    .arg = n,
	};
	const struct layer_work_config work = {
	    .reactor = n->reactor,
	    .pool = n->pool,
	    .rate = n->resync_rate,
	    .may_store = may_store,
	    .answer = lease_answer,
	    .arg = n,
	};
	int rc = layer_work_start(&work, &n->layer_work);

	if (rc == 0)
		rc = eraser_start(n->reactor, n->pool, &n->shard, n->layer_work, erased, n,
				  &n->eraser);
	if (rc == 0)
		rc = devices_start(n->reactor, n->pool, lease_answer, n, &n->devices);
	if (rc != 0)
		return error_set(err, rc, "no memory");
	rc = node_shard_start(&config, &n->shard, err);
	if (rc != 0)
		return rc;
	n->maintain.name = n->name;
	n->maintain.site = n->site;
	n->maintain.pd = n->pd;
	n->maintain.root = n->root;
	n->maintain.dir = n->dir;
	n->maintain.insecure = n->insecure;
	rc = start_lease(n, err);
	if (rc != 0)
		return rc;
	n->watch_timer.fire = watch_lease;
	watch_lease(&n->watch_timer);
	log_info("node", "node %s in site %s serves at %s", n->name, n->site,
		 node_shard_address(n->shard));
	daemon_ready(node_shard_address(n->shard));
	return 0;
}

static void opened(struct pool_open_op *op, int status, struct pool *pool, const struct error *err)
{
	struct node *n = container_of(op, struct node, opening);
	const bool ending = n->phase == ENDING;
	int rc = status;

	n->pool = pool;
	n->phase = SERVING;
	if (status != 0)
		n->err = *err;
	else if (!ending)
		rc = serve(n, &n->err);
	if (rc != 0)
		fprintf(stderr, "pave-node: %s\n", n->err.text);
	if (rc != 0 || ending)
		end(n, rc != 0 ? 1 : n->exit_code);
}

/* -- start ------------------------------------------------------------------------------------ */

static int open_files(struct node *n, struct error *err)
{
	int rc = daemon_open_trust(n->dir, n->root, &n->trust, err);

	if (rc == 0 && n->proof != NULL)
		rc = identity_read(n->proof, n->name, &n->key, err);
	if (rc != 0)
		return rc;
	snprintf(n->index_path, sizeof n->index_path, "%s/index", n->dir);
	return kv_rocks_open(n->reactor, n->index_path, store_kv_family_names, STORE_KV_FAMILIES, 0,
			     &n->kv, err);
}

static int run(struct node *n, struct error *err)
{
	const struct reactor_config config = {
	    .name = "node",
	    .worker_count = WORKERS,
	    .memory_bytes = NODE_SHARD_MEMORY_MAX + POOL_DEVICES_MAX * STORE_REACTOR_MEMORY_MAX,
	};
	struct pool_open_op *op = &n->opening;
	int rc = reactor_create(&config, &n->reactor);

	if (rc != 0)
		return error_set(err, rc, "io_uring: %s", err_text(rc));
	rc = transports_open(&n->transport, n->reactor, n->insecure, n->pd, &n->transports, err);
	if (rc != 0)
		return rc;
	rc = reactor_on_terminate(n->reactor, on_signal, n);
	if (rc != 0)
		return error_set(err, rc, "signals: %s", err_text(rc));
	rc = open_files(n, err);
	if (rc != 0)
		return rc;
	n->identity.cluster = *root_cluster(trust_root(n->trust));
	snprintf(n->identity.name, sizeof n->identity.name, "%s", n->name);
	snprintf(n->identity.site, sizeof n->identity.site, "%s", n->site);
	*op = (struct pool_open_op){
	    .done = opened,
	    .config = {.reactor = n->reactor,
		       .kv = n->kv,
		       .scrub_period_s = n->scrub_period_s,
		       .identity = {.cluster = n->identity.cluster, .shard_count = 1}},
	};
	snprintf(op->config.identity.node, sizeof op->config.identity.node, "%s", n->name);
	rc = device_open_all(op, n->device_paths, n->device_count, n->device_size, n->name, err);
	if (rc != 0)
		return rc;
	/* Those that were added while it ran are among them, too. */
	op->config.cache_bytes = MAX(CACHE_BYTES_MIN, n->cache_bytes / op->disk_count);
	log_info("node", "the index of each of %u devices has %llu MiB of cache", op->disk_count,
		 (unsigned long long)(op->config.cache_bytes >> 20));
	pool_open(op);
	rc = reactor_run(n->reactor);
	return rc == 0 ? 0 : error_set(err, rc, "reactor: %s", err_text(rc));
}

static int parse_shards(const char *text)
{
	if (strcmp(text, "1") == 0)
		return 0;
	fprintf(stderr,
		"pave-node: --shards %s: this version runs one shard a process; start several "
		"nodes, each on a device of its own\n",
		text);
	return 2;
}

/* Before there is a file of a size that cannot be used, and that stays. */
static int parse_size(struct node *n, const char *text)
{
	const uint64_t least =
	    FORMAT_SEGMENTS_OFFSET + (uint64_t)FORMAT_SEGMENTS_MIN * FORMAT_SEGMENT_USUAL_MIN;
	char size[32];

	if (text_parse_size(text, &n->device_size) == 0 && n->device_size >= least) {
		n->device_size = ROUND_UP(n->device_size, BLOCK_SIZE);
		return 0;
	}
	fprintf(stderr, "pave-node: --device-size %s: a size of at least %s is needed, as 8GiB\n",
		text, text_size(least, size, sizeof size));
	return 2;
}

static int parse_scrub_period(struct node *n, const char *text)
{
	uint64_t ms = 0;

	if (strcmp(text, "0") == 0 || (duration_parse_ms(text, &ms) == 0 && ms >= 60000)) {
		n->scrub_period_s = ms / 1000;
		return 0;
	}
	fprintf(
	    stderr,
	    "pave-node: --scrub-period %.40s: a time of at least 1m is needed, as 14d, or 0 for "
	    "never\n",
	    text);
	return 2;
}

static int parse_cache(struct node *n, const char *text)
{
	if (text_parse_size(text, &n->cache_bytes) == 0 && n->cache_bytes >= CACHE_BYTES_MIN)
		return 0;
	fprintf(stderr, "pave-node: --cache %.100s: a size of at least 8MiB is needed, as 1GiB\n",
		text);
	return 2;
}

static int parse_resync_rate(struct node *n, const char *text)
{
	if (text_parse_size(text, &n->resync_rate) == 0 &&
	    (n->resync_rate == 0 || n->resync_rate >= BLOCK_SIZE))
		return 0;
	fprintf(stderr,
		"pave-node: --resync-rate %.100s: bytes a second from 4KiB on are needed, as "
		"50MiB; or 0 for no limit\n",
		text);
	return 2;
}

static int parse_advertise(struct node *n, const char *text)
{
	if (strrchr(text, ':') != NULL && strlen(text) < ADDR_SIZE_MAX) {
		n->advertise = text;
		return 0;
	}
	fprintf(stderr, "pave-node: --advertise %.100s: HOST:PORT is needed, as 192.0.2.1:7400\n",
		text);
	return 2;
}

static int take_device(struct node *n, const char *path)
{
	if (n->device_count == POOL_DEVICES_MAX) {
		fprintf(stderr, "pave-node: --device %.100s: a node may have %u devices\n", path,
			POOL_DEVICES_MAX);
		return 2;
	}
	n->device_paths[n->device_count++] = path;
	return 0;
}

/* 0, 2, or -1 when the answer was printed. */
static int take_option(struct node *n, int c)
{
	int rc = transports_option(&n->transport, "pave-node", c, optarg);

	if (rc >= 0)
		return rc;
	switch (c) {
	case 'n':
		n->name = optarg;
		return 0;
	case 's':
		n->site = optarg;
		return 0;
	case 'p':
		n->pd = optarg;
		return 0;
	case 'r':
		n->root = optarg;
		return 0;
	case 'd':
		n->dir = optarg;
		return 0;
	case 'D':
		return take_device(n, optarg);
	case 'S':
		return parse_size(n, optarg);
	case 'L':
		n->listen = optarg;
		return 0;
	case 'a':
		return parse_advertise(n, optarg);
	case 'R':
		return parse_resync_rate(n, optarg);
	case 'K':
		return parse_cache(n, optarg);
	case 'c':
		n->certificate = optarg;
		return 0;
	case 'P':
		return parse_scrub_period(n, optarg);
	case 'i':
		n->proof = optarg;
		return 0;
	case 'N':
		return parse_shards(optarg);
	case 'I':
		n->insecure = true;
		return 0;
	case 'C':
		n->maintain.cluster_dir = optarg;
		return 0;
	case 'l':
		return daemon_log_level("pave-node", optarg) != 0 ? 2 : 0;
	case 'V':
		puts("pave-node " PAVE_VERSION);
		return -1;
	case 'h':
		fputs(usage, stdout);
		return -1;
	default:
		fputs("Try `pave-node --help`.\n", stderr);
		return 2;
	}
}

static int parse(struct node *n, int argc, char **argv)
{
	static const struct option options[] = {
	    {"name", required_argument, NULL, 'n'},
	    {"site", required_argument, NULL, 's'},
	    {"pd", required_argument, NULL, 'p'},
	    {"root", required_argument, NULL, 'r'},
	    {"dir", required_argument, NULL, 'd'},
	    {"device", required_argument, NULL, 'D'},
	    {"device-size", required_argument, NULL, 'S'},
	    {"listen", required_argument, NULL, 'L'},
	    {"advertise", required_argument, NULL, 'a'},
	    {"certificate", required_argument, NULL, 'c'},
	    {"cache", required_argument, NULL, 'K'},
	    {"scrub-period", required_argument, NULL, 'P'},
	    {"resync-rate", required_argument, NULL, 'R'},
	    {"identity", required_argument, NULL, 'i'},
	    {"shards", required_argument, NULL, 'N'},
	    TRANSPORTS_LONG_OPTIONS,
	    {"insecure", no_argument, NULL, 'I'},
	    {"cluster-dir", required_argument, NULL, 'C'},
	    {"log-level", required_argument, NULL, 'l'},
	    {"version", no_argument, NULL, 'V'},
	    {"help", no_argument, NULL, 'h'},
	    {0},
	};
	int c, rc = 0;

	n->listen = "127.0.0.1:0";
	n->scrub_period_s = SCRUB_PERIOD_S;
	n->resync_rate = NODE_RESYNC_RATE;
	n->cache_bytes = STORE_CACHE_BYTES;
	while (rc == 0 && (c = getopt_long(argc, argv, "h", options, NULL)) != -1)
		rc = take_option(n, c);
	if (rc != 0)
		return rc;
	if (optind != argc || n->name == NULL || n->site == NULL || n->pd == NULL ||
	    n->pd[0] == '\0' || n->root == NULL || n->dir == NULL || n->device_count == 0) {
		fputs("pave-node: --name, --site, --pd, --root, --dir and --device are needed, and "
		      "nothing else\nTry `pave-node --help`.\n",
		      stderr);
		return 2;
	}
	if (!text_is_name(n->name) || !text_is_name(n->site)) {
		fprintf(stderr,
			"pave-node: \"%s\" is no name: --name and --site take 1 to %u of a-z, 0-9, "
			"'.', '_' and '-', beginning with a letter or digit\n",
			text_is_name(n->name) ? n->site : n->name, NAME_SIZE_MAX - 1);
		return 2;
	}
	return 0;
}

int main(int argc, char **argv)
{
	static struct node n;
	const bool never = false;
	struct error err = {0};
	int rc = parse(&n, argc, argv);

	if (rc != 0)
		return rc < 0 ? 0 : rc;
	signal(SIGPIPE, SIG_IGN);
	log_set_name(n.name);
	if (run(&n, &err) != 0) {
		fprintf(stderr, "pave-node: %s\n", err.text);
		return 1; /* what was begun ends with the process, as after a crash */
	}
	/* The listener's accept is still being cancelled; nobody tells when it was. */
	reactor_refresh(n.reactor);
	reactor_run_until(n.reactor, &never, reactor_now_ns(n.reactor) + DRAIN_NS);
	kv_close(n.kv);
	transports_close(&n.transports, n.reactor);
	trust_close(n.trust);
	identity_deinit(&n.key);
	reactor_destroy(n.reactor);
	return n.exit_code;
}
