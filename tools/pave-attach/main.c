/* pave-attach: attaches one volume and serves it over NBD, until it is told to detach.
 *
 *   OPENING --volume_open (--migrate: as far as it goes, then SIGUSR1)--> SERVING --SIGTERM, detach
 * asked for, or fenced--> DRAINING (NBD) --> CLOSING (volume) --> exit
 *
 * Prints "ready URI" on stdout when the volume can be used; with --migrate before that "prepared",
 * and after it how long nobody served the volume at most, in milliseconds. Exit codes: 0 detached
 * cleanly, 1 failed or fenced, 2 usage, 3 refused by policy, 4 the placement driver cannot be
 * reached. */
#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "engine/attach/nbd.h"
#include "engine/attach/trace.h"
#include "engine/base/log.h"
#include "engine/base/text.h"
#include "engine/reactor/io.h"
#include "tools/common/daemon.h"
#include "tools/common/transports.h"

#define TRACE_AGAIN_MS 1000u /* while another attachment has the socket */

enum phase { OPENING, SERVING, DRAINING, CLOSING };

struct attach {
	enum phase phase;
	bool opening; /* volume_open is in flight */
	int exit_code;
	const char *volume_name, *pd, *root, *dir, *nbd, *site;
	char holder[NAME_SIZE_MAX];
	bool read_only, insecure, force, maintain, migrate;
	uint64_t told_ns; /* to take over; 0: not yet */
	struct reactor *reactor;
	struct transports_options transport;
	struct transports transports;
	struct trust *trust;
	struct volume *volume;
	struct nbd_server *server;
	struct trace_server *trace; /* NULL: there is no socket for it */
	bool trace_is_taken;	    /* by another attachment, which may end */
	struct reactor_timer trace_timer;
	struct volume_open_op open;
};

static const char usage[] =
    "Usage: pave-attach VOLUME --pd HOST:PORT --root FILE --dir DIR --nbd unix:PATH|HOST:PORT\n"
    "Attaches a volume and serves it over NBD until SIGTERM or `pave detach VOLUME`.\n"
    "\n"
    "  --pd HOST:PORT      the placement driver; several with commas between\n"
    "  --root FILE         the trust root (DSSE envelope) that this host believes\n"
    "  --dir DIR           where this host remembers the evidence it has seen\n"
    "  --nbd ADDRESS       unix:PATH, or HOST:PORT (port 0: any)\n"
    "  --site SITE         the site that this host stands in (policies may ask for it)\n"
    "  --holder NAME       this host's name, for people (default: the host's name)\n"
    "  --maintain          instead of --nbd: serve nobody; for copies of it to move, until "
    "somebody\n"
    "                      attaches it. pave-node starts it so\n"
    "  --cluster-dir DIR   not looked at: the process names its cluster by it\n"
    "  --read-only         serve it read-only\n"
    "  --migrate           prepare to take it over from the host that has it, say \"prepared\", "
    "and\n"
    "                      do it on SIGUSR1\n"
    "  --force             take it over from another host that has attached it and is "
    "alive\n" TRANSPORTS_USAGE
    "  --insecure          allow addresses other than loopback, without TLS\n"
    "  --log-level LEVEL   error, warn, info (default), debug\n"
    "  --version, --help\n";

static void closed(void *arg)
{
	struct attach *a = arg;

	a->volume = NULL;
	log_info("attach", "volume %s: detached", a->volume_name);
	reactor_stop(a->reactor);
}

static void trace_ended(void *arg)
{
	struct attach *a = arg;

	a->trace = NULL;
	a->phase = CLOSING;
	if (a->volume != NULL)
		volume_close(a->volume, closed, a);
	else
		reactor_stop(a->reactor);
}

static void drained(void *arg)
{
	struct attach *a = arg;

	a->server = NULL;
	if (a->trace != NULL)
		trace_stop(a->trace, trace_ended, a);
	else
		trace_ended(a);
}

static void detach(struct attach *a, int exit_code)
{
	if (a->phase != OPENING && a->phase != SERVING)
		return;
	/* While opening nothing was served, so nothing can be lost: the permit runs out by itself.
	 */
	a->exit_code = exit_code;
	a->phase = DRAINING;
	reactor_timer_cancel(a->reactor, &a->trace_timer);
	if (a->server != NULL)
		nbd_stop(a->server, drained, a);
	else
		drained(a);
}

static void on_signal(int signal_number, void *arg)
{
	log_info("attach", "%s: detaching", strsignal(signal_number));
	detach(arg, 0);
}

static void prepared(void *arg)
{
	struct attach *a = arg;

	log_info("attach", "volume %s: prepared; SIGUSR1 takes it over", a->volume_name);
	puts("prepared");
	fflush(stdout);
}

static void on_user_signal(int signal_number, void *arg)
{
	struct attach *a = arg;

	(void)signal_number;
	if (!a->opening || a->told_ns != 0)
		return;
	log_info("attach", "volume %s: takes over", a->volume_name);
	a->told_ns = reactor_now_ns(a->reactor);
	volume_take_over(&a->open);
}

static void on_ended(int why, void *arg)
{
	struct attach *a = arg;

	if (why == 0)
		log_info("attach", "volume %s: a detach was asked for", a->volume_name);
	else
		log_error("attach", "volume %s: %s", a->volume_name, err_text(why));
	detach(a, why == 0 ? 0 : 1);
}

/* From the signal on: the other host goes on serving until it has heard of it. */
static void ready(const struct attach *a)
{
	const uint64_t took_ns = reactor_now_ns(a->reactor) - a->told_ns;
	char text[1100];

	if (!a->migrate) {
		daemon_ready(nbd_uri(a->server));
		return;
	}
	log_info("attach", "volume %s: taken over within %.1f ms", a->volume_name,
		 (double)took_ns / NS_PER_MS);
	snprintf(text, sizeof text, "%s %.1f", nbd_uri(a->server), (double)took_ns / NS_PER_MS);
	daemon_ready(text);
}

/* A volume without it is as good. */
static void open_trace(struct attach *a)
{
	const bool again = a->trace_is_taken;
	char path[4200];
	struct error err;

	snprintf(path, sizeof path, "%.4000s/trace.sock", a->dir);
	a->trace_is_taken = trace_listen(a->reactor, path, &a->trace, &err) == -EADDRINUSE;
	if (a->trace == NULL && !again)
		log_warn("attach", "`pave trace` will not work: %s", err.text);
	else if (a->trace != NULL && again)
		log_info("attach", "`pave trace` works from now on");
}

/* The attachment that this one took over from may have the same directory, and with that the
 * socket, until it has ended; one that hangs does that long after it has lost the volume. */
static void serve_trace(struct attach *a)
{
	if (a->trace_is_taken)
		open_trace(a);
	if (a->trace != NULL)
		trace_serve(a->trace, a->volume);
	else if (a->trace_is_taken)
		reactor_timer_arm(a->reactor, &a->trace_timer,
				  reactor_now_ns(a->reactor) + TRACE_AGAIN_MS * NS_PER_MS);
}

static void trace_again(struct reactor_timer *timer)
{
	serve_trace(container_of(timer, struct attach, trace_timer));
}

static void opened(struct volume_open_op *op, int status, struct volume *v, const struct error *err)
{
	struct attach *a = container_of(op, struct attach, open);

	a->opening = false;
	if (status != 0) {
		fprintf(stderr, "pave-attach: %s\n", err->text);
		detach(a, daemon_exit_code(status));
		return;
	}
	if (a->phase != OPENING) {
		a->volume = v; /* told to end meanwhile: drained goes on */
		return;
	}
	a->volume = v;
	a->phase = SERVING;
	if (a->maintain) {
		log_info("attach", "volume %s: attached for maintenance", a->volume_name);
		return;
	}
	nbd_serve(a->server, v);
	serve_trace(a);
	log_info("attach", "volume %s: %llu bytes%s at %s", a->volume_name,
		 (unsigned long long)volume_size(v), volume_read_only(v) ? ", read-only," : "",
		 nbd_uri(a->server));
	ready(a);
}

/* 0, 2, or -1 when the answer was printed. */
static int take_option(struct attach *a, int c)
{
	int rc = transports_option(&a->transport, "pave-attach", c, optarg);

	if (rc >= 0)
		return rc;
	switch (c) {
	case 'p':
		a->pd = optarg;
		return 0;
	case 'r':
		a->root = optarg;
		return 0;
	case 'd':
		a->dir = optarg;
		return 0;
	case 'n':
		a->nbd = optarg;
		return 0;
	case 's':
		a->site = optarg;
		return 0;
	case 'H':
		snprintf(a->holder, sizeof a->holder, "%s", optarg);
		return 0;
	case 'M':
		a->maintain = true;
		return 0;
	case 'C':
		return 0;
	case 'R':
		a->read_only = true;
		return 0;
	case 'F':
		a->force = true;
		return 0;
	case 'm':
		a->migrate = true;
		return 0;
	case 'I':
		a->insecure = true;
		return 0;
	case 'l':
		return daemon_log_level("pave-attach", optarg) != 0 ? 2 : 0;
	case 'V':
		puts("pave-attach " PAVE_VERSION);
		return -1;
	case 'h':
		fputs(usage, stdout);
		return -1;
	default:
		fputs("Try `pave-attach --help`.\n", stderr);
		return 2;
	}
}

static int parse(struct attach *a, int argc, char **argv)
{
	static const struct option options[] = {
	    {"pd", required_argument, NULL, 'p'},
	    {"root", required_argument, NULL, 'r'},
	    {"dir", required_argument, NULL, 'd'},
	    {"nbd", required_argument, NULL, 'n'},
	    {"site", required_argument, NULL, 's'},
	    {"holder", required_argument, NULL, 'H'},
	    {"maintain", no_argument, NULL, 'M'},
	    {"cluster-dir", required_argument, NULL, 'C'},
	    {"read-only", no_argument, NULL, 'R'},
	    {"force", no_argument, NULL, 'F'},
	    {"migrate", no_argument, NULL, 'm'},
	    TRANSPORTS_LONG_OPTIONS,
	    {"insecure", no_argument, NULL, 'I'},
	    {"log-level", required_argument, NULL, 'l'},
	    {"version", no_argument, NULL, 'V'},
	    {"help", no_argument, NULL, 'h'},
	    {0},
	};
	int c, rc = 0;

	gethostname(a->holder, sizeof a->holder - 1);
	a->site = "";
	while (rc == 0 && (c = getopt_long(argc, argv, "h", options, NULL)) != -1)
		rc = take_option(a, c);
	if (rc != 0)
		return rc;
	if (optind != argc - 1 || a->pd == NULL || a->pd[0] == '\0' || a->root == NULL ||
	    a->dir == NULL || (a->nbd == NULL) != a->maintain || (a->maintain && a->migrate)) {
		fputs("pave-attach: VOLUME, --pd, --root, --dir and --nbd (or --maintain) are "
		      "needed\n"
		      "Try `pave-attach --help`.\n",
		      stderr);
		return 2;
	}
	a->volume_name = argv[optind];
	return 0;
}

/* Nobody else would end a maintenance that the node has left behind. */
static void die_with_parent(void)
{
	prctl(PR_SET_PDEATHSIG, SIGTERM);
	if (getppid() == 1)
		raise(SIGTERM);
}

static int run(struct attach *a, struct error *err)
{
	const struct reactor_config config = {.name = "attach"};
	struct nbd_config nbd = {
	    .export_name = a->volume_name,
	    .address = a->nbd,
	    .insecure = a->insecure,
	};
	int rc;

	rc = daemon_open_trust(a->dir, a->root, &a->trust, err);
	if (rc != 0)
		return rc;
	rc = reactor_create(&config, &a->reactor);
	if (rc != 0)
		return error_set(err, rc, "io_uring: %s", err_text(rc));
	rc = transports_open(&a->transport, a->reactor, a->insecure, a->pd, &a->transports, err);
	if (rc != 0)
		return rc;
	rc = reactor_on_terminate(a->reactor, on_signal, a);
	if (rc != 0)
		return error_set(err, rc, "signals: %s", err_text(rc));
	if (a->migrate)
		rc = reactor_on_user_signal(a->reactor, on_user_signal, a);
	if (rc != 0)
		return error_set(err, rc, "signals: %s", err_text(rc));
	nbd.reactor = a->reactor;
	if (a->maintain)
		die_with_parent();
	else
		rc = nbd_listen(&nbd, &a->server, err);
	if (rc != 0)
		return rc;
	a->trace_timer.fire = trace_again;
	if (!a->maintain)
		open_trace(a);
	a->open = (struct volume_open_op){
	    .done = opened,
	    .config =
		{
		    .reactor = a->reactor,
		    .transport = transports_use(&a->transports),
		    .trust = a->trust,
		    .pd_address = a->pd,
		    .name = a->volume_name,
		    .holder = a->holder,
		    .holder_site = a->site,
		    .endpoint = a->maintain ? "maintenance" : a->nbd,
		    .maintenance = a->maintain,
		    .read_only = a->read_only,
		    .if_free = !a->force,
		    .prepared = a->migrate ? prepared : NULL,
		    .ended = on_ended,
		    .arg = a,
		},
	};
	a->opening = true;
	volume_open(&a->open);
	rc = reactor_run(a->reactor);
	return rc == 0 ? 0 : error_set(err, rc, "reactor: %s", err_text(rc));
}

int main(int argc, char **argv)
{
	struct attach a = {0};
	struct error err = {0};
	int rc = parse(&a, argc, argv);

	if (rc != 0)
		return rc < 0 ? 0 : rc;
	signal(SIGPIPE, SIG_IGN);
	log_set_name(a.volume_name);
	if (run(&a, &err) != 0) {
		fprintf(stderr, "pave-attach: %s\n", err.text);
		a.exit_code = 1;
	}
	/* What an opening that was cut short holds goes with the process. */
	if (!a.opening) {
		transports_close(&a.transports, a.reactor);
		trust_close(a.trust);
		reactor_destroy(a.reactor);
	}
	return a.exit_code;
}
