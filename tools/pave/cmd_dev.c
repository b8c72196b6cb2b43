/* pave dev: up, down, status: a whole cluster on this machine. See dev.h. */
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "engine/base/text.h"
#include "engine/evidence/file.h"
#include "engine/evidence/permit.h"
#include "tools/common/duration.h"
#include "tools/pave/client.h"
#include "tools/pave/cmd.h"
#include "tools/pave/dev.h"
#include "tools/pave/process.h"
#include "tools/pave/snapshot.h"

#define DEVICE_SIZE_DEFAULT (8ull << 30)
#define DEVICE_SIZE_MIN	    (400ull << 20) /* of what a node formats */
#define LEASES_MS	    60000
#define STOP_MS		    20000u
#define POLL_NS		    100000000L

struct options {
	const char *dir, *sites;
	uint64_t device_size;
	uint64_t lifetime_ms;
	bool etcd;
	unsigned pds, etcds; /* 0: not given */
};

_Static_assert(DEV_PDS_MAX == DEV_ETCDS_MAX && DEV_PDS_MAX < 10, "one bound, of one digit");

static int parse_count(const char *text, unsigned *ret)
{
	if (text[0] < '1' || (unsigned)(text[0] - '0') > DEV_PDS_MAX || text[1] != '\0')
		return -EINVAL;
	*ret = (unsigned)(text[0] - '0');
	return 0;
}

static int parse(int argc, char **argv, bool up, struct options *o)
{
	static const struct option all[] = {{"dir", required_argument, NULL, 'd'},
					    {"sites", required_argument, NULL, 's'},
					    {"device-size", required_argument, NULL, 'S'},
					    {"permit-lifetime", required_argument, NULL, 'p'},
					    {"register", required_argument, NULL, 'r'},
					    {"pds", required_argument, NULL, 'n'},
					    {"etcds", required_argument, NULL, 'e'},
					    {0}};
	static const struct option only_dir[] = {{"dir", required_argument, NULL, 'd'}, {0}};
	int c;

	while ((c = getopt_long(argc, argv, "", up ? all : only_dir, NULL)) != -1) {
		switch (c) {
		case 'd':
			if (optarg[0] == '\0')
				return cmd_usage_error("--dir is empty");
			o->dir = optarg;
			break;
		case 's':
			o->sites = optarg;
			break;
		case 'S':
			if (text_parse_size(optarg, &o->device_size) != 0 ||
			    o->device_size < DEVICE_SIZE_MIN)
				return cmd_usage_error("--device-size %s: as 8GiB, 400MiB at least",
						       optarg);
			break;
		case 'p':
			if (duration_parse_ms(optarg, &o->lifetime_ms) != 0 ||
			    o->lifetime_ms < 1000 || o->lifetime_ms > PERMIT_LIFETIME_MAX_MS)
				return cmd_usage_error("--permit-lifetime %s: 1s to %us", optarg,
						       PERMIT_LIFETIME_MAX_MS / 1000);
			break;
		case 'r':
			if (strcmp(optarg, "etcd") != 0 && strcmp(optarg, "rocksdb") != 0)
				return cmd_usage_error("--register %s: rocksdb or etcd", optarg);
			o->etcd = strcmp(optarg, "etcd") == 0;
			break;
		case 'n':
		case 'e':
			if (parse_count(optarg, c == 'n' ? &o->pds : &o->etcds) != 0)
				return cmd_usage_error("--%s %s: 1 to %u",
						       c == 'n' ? "pds" : "etcds", optarg,
						       DEV_PDS_MAX);
			break;
		default:
			return cmd_usage_error("an option is not understood");
		}
	}
	if (!o->etcd && (o->pds > 1 || o->etcds > 0))
		return cmd_usage_error("several drivers want --register etcd");
	return optind == argc ? 0 : cmd_usage_error("it takes no operand");
}

/* -- the table -------------------------------------------------------------------------------- */

/* What the driver says of a node; "" when there is no answer. */
static const char *node_word(const Pave__V1__NodeListReply *r, const char *node)
{
	for (size_t i = 0; r != NULL && i < r->n_nodes; i++)
		if (strcmp(r->nodes[i]->node, node) == 0)
			return r->nodes[i]->state;
	return "";
}

struct rows {
	const struct dev_cluster *d;
	const Pave__V1__NodeListReply *answer;
	json_t *json;
	struct table table;
	unsigned running;
};

static void add_row(struct rows *r, const char *name, const char *program, const char *site,
		    pid_t pid, const char *address, const char *state, const char *log)
{
	r->running += pid != 0;
	json_array_append_new(r->json,
			      json_pack("{s:s,s:s,s:s?,s:o,s:s,s:s,s:s}", "name", name, "program",
					program, "site", site[0] != '\0' ? site : NULL, "pid",
					pid != 0 ? json_integer(pid) : json_null(), "address",
					address, "state", state, "log", log));
	table_add(&r->table, "%s", name);
	table_add(&r->table, "%s", program);
	table_add(&r->table, "%s", site);
	if (pid != 0)
		table_add(&r->table, "%d", (int)pid);
	else
		table_add(&r->table, "%s", "");
	table_add(&r->table, "%s", address);
	table_add(&r->table, "%s", state);
	table_add(&r->table, "%s", log);
}

static void add_daemon(struct rows *r, const char *name, const char *program, const char *site,
		       const char *address)
{
	const char *word = node_word(r->answer, name);
	char log[4400];
	pid_t pid = 0;

	if (!process_find(r->d->dir, name, &pid))
		word = "stopped";
	else if (word[0] == '\0')
		word = "running";
	snprintf(log, sizeof log, "%s/log/%s.log", r->d->dir, name);
	add_row(r, name, program, site, pid, address, word, log);
}

/* What follows the option among the arguments; "". */
static const char *argument(const char *argv, const char *option)
{
	for (const char *a = argv; *a != '\0'; a += strlen(a) + 1)
		if (strcmp(a, option) == 0)
			return a + strlen(a) + 1;
	return "";
}

static void add_attachment(pid_t pid, const char *argv, void *arg)
{
	const char *dir = argument(argv, "--dir");
	const char *slash = strrchr(dir, '/');
	char log[4400], name[NAME_SIZE_MAX + 16];

	snprintf(name, sizeof name, "attach:%.63s", slash != NULL ? slash + 1 : dir);
	snprintf(log, sizeof log, "%.4000s/attach.log", dir);
	add_row(arg, name, "pave-attach", argument(argv, "--site"), pid, argument(argv, "--nbd"),
		"running", log);
}

static int print_processes(const struct dev_cluster *d, const Pave__V1__NodeListReply *answer)
{
	static const char *const titles[] = {"NAME",	"PROGRAM", "SITE", "PID",
					     "ADDRESS", "STATE",   "LOG"};
	struct rows r = {.d = d, .answer = answer, .json = json_array()};
	struct error err;
	unsigned daemons;

	table_init(&r.table, ARRAY_SIZE(titles), titles);
	r.table.right[3] = true;
	for (unsigned i = 0; i < d->etcd_count; i++)
		add_daemon(&r, d->etcds[i].name, "etcd", "", d->etcds[i].address);
	for (unsigned i = 0; i < d->pd_count; i++)
		add_daemon(&r, d->pds[i].name, "pave-pd", "", d->pds[i].address);
	for (unsigned i = 0; i < d->node_count; i++)
		add_daemon(&r, d->nodes[i].name, "pave-node", d->nodes[i].site,
			   d->nodes[i].address);
	daemons = r.running;
	process_scan(d->dir, "pave-attach", add_attachment, &r, &err);
	if (cli.json) {
		table_discard(&r.table);
		return cmd_print_json(json_pack(
		    "{s:s,s:s,s:b,s:o}", "dir", d->dir, "pd", d->pd, "running",
		    daemons == d->node_count + d->pd_count + d->etcd_count, "processes", r.json));
	}
	json_decref(r.json);
	table_print(&r.table);
	return 0;
}

/* -- up --------------------------------------------------------------------------------------- */

static int add_sites(struct dev_cluster *d, const char *list, struct error *err)
{
	char names[1024];
	char *save = NULL;

	if (strlen(list) >= sizeof names)
		return error_set(err, -EINVAL, "--sites: the list is too long");
	memcpy(names, list, strlen(list) + 1);
	for (char *name = strtok_r(names, ",", &save); name != NULL;
	     name = strtok_r(NULL, ",", &save)) {
		struct dev_node *n = &d->nodes[d->node_count];
		bool there = false;

		if (!text_is_name(name) || strlen(name) > 32)
			return error_set(err, -EINVAL,
					 "--sites: \"%s\" is no name: a-z 0-9 . _ -, up to 32",
					 name);
		for (unsigned i = 0; i < d->node_count; i++)
			there |= strcmp(d->nodes[i].site, name) == 0;
		if (there)
			continue;
		if (d->node_count == DEV_SITES_MAX)
			return error_set(err, -E_LIMIT, "--sites: over %u sites", DEV_SITES_MAX);
		memset(n, 0, sizeof *n);
		snprintf(n->site, sizeof n->site, "%s", name);
		snprintf(n->name, sizeof n->name, "%.32s-1", name);
		d->node_count++;
	}
	return d->node_count > 0 ? 0 : error_set(err, -EINVAL, "--sites names no site");
}

static bool some_pd_runs(const struct dev_cluster *d)
{
	for (unsigned i = 0; i < d->pd_count; i++)
		if (process_find(d->dir, d->pds[i].name, NULL))
			return true;
	return false;
}

/* Of a cluster that is there: what was asked for and does not count at once. */
static void tell_later(const struct options *o, const struct dev_cluster *d)
{
	if (o->device_size != 0 && o->device_size != d->device_size)
		fprintf(stderr, "pave dev up: --device-size is for nodes that are new; those that "
				"are there keep their devices\n");
	if (o->lifetime_ms != 0 && o->lifetime_ms != d->permit_lifetime_ms && some_pd_runs(d))
		fprintf(stderr,
			"pave dev up: --permit-lifetime counts once the driver is started again: "
			"pave dev down --dir %s, and up\n",
			d->dir);
}

/* What is there already, plus what was asked for. */
static int describe(const char *dir, const struct options *o, struct dev_cluster *d,
		    struct error *err)
{
	struct error none;
	int rc = dev_load(dir, d, &none);

	if (rc != 0 && rc != -ENOENT) {
		*err = none;
		return rc;
	}
	if (rc == -ENOENT) {
		*d = (struct dev_cluster){.device_size = DEVICE_SIZE_DEFAULT,
					  .permit_lifetime_ms = PERMIT_LIFETIME_MS};
		snprintf(d->dir, sizeof d->dir, "%s", dir);
		dev_name_drivers(d, o->pds != 0 ? o->pds : (o->etcd ? 2 : 1),
				 o->etcd ? (o->etcds != 0 ? o->etcds : 1) : 0);
	} else if ((o->etcd && d->etcd_count == 0) || (o->pds != 0 && o->pds != d->pd_count) ||
		   (o->etcds != 0 && o->etcds != d->etcd_count)) {
		return error_set(err, -EEXIST,
				 "the cluster in %s was made with %u drivers and %u members of "
				 "etcd, which it keeps: make another one in another --dir",
				 dir, d->pd_count, d->etcd_count);
	}
	if (rc == 0)
		tell_later(o, d);
	if (o->device_size != 0)
		d->device_size = o->device_size;
	if (o->lifetime_ms != 0)
		d->permit_lifetime_ms = o->lifetime_ms;
	if (o->sites != NULL || rc == -ENOENT)
		return add_sites(d, o->sites != NULL ? o->sites : "par,lyo,rbx", err);
	return 0;
}

static int submit_sites(struct client *c, const struct dev_cluster *d, struct error *err)
{
	int rc = 0;

	for (unsigned i = 0; rc == 0 && i < d->node_count; i++) {
		Pave__V1__Control m = PAVE__V1__CONTROL__INIT;
		Pave__V1__SiteAdd add = PAVE__V1__SITE_ADD__INIT;
		Pave__V1__Control *reply;
		char path[4400];
		char *data;

		snprintf(path, sizeof path, "%s/evidence/site-%s.dsse.json", d->dir,
			 d->nodes[i].site);
		rc = file_read_whole(path, 2u << 20, &data, &add.envelope.len, err);
		if (rc != 0)
			break;
		add.envelope.data = (uint8_t *)data;
		m.body_case = PAVE__V1__CONTROL__BODY_SITE_ADD;
		m.site_add = &add;
		rc = client_call(c, &m, PAVE__V1__CONTROL__BODY_EMPTY, 0, &reply, err);
		free(data);
		if (rc == 0)
			pave__v1__control__free_unpacked(reply, NULL);
		else if (rc == -E_ROLLBACK || rc == -E_BAD_SIGNATURE)
			rc = 0; /* somebody has added a newer one, or replaced the root */
	}
	return rc;
}

/* The driver has a snapshot, or gets the one in D/evidence. */
static int submit_first_snapshot(struct client *c, const struct dev_cluster *d, struct error *err)
{
	Pave__V1__Control m = PAVE__V1__CONTROL__INIT;
	Pave__V1__RevocationsGet get = PAVE__V1__REVOCATIONS_GET__INIT;
	Pave__V1__Control *reply;
	char path[4400];
	char *data;
	size_t size;
	bool there;
	int rc;

	m.body_case = PAVE__V1__CONTROL__BODY_REVOCATIONS_GET;
	m.revocations_get = &get;
	rc = client_call(c, &m, PAVE__V1__CONTROL__BODY_REVOCATIONS_REPLY, 0, &reply, err);
	if (rc != 0)
		return rc;
	there = reply->revocations_reply->envelope.len > 0;
	pave__v1__control__free_unpacked(reply, NULL);
	if (there)
		return 0;
	snprintf(path, sizeof path, "%s/evidence/revocations.dsse.json", d->dir);
	rc = file_read_whole(path, 2u << 20, &data, &size, err);
	if (rc != 0)
		return rc;
	rc = snapshot_submit(c, data, err);
	free(data);
	return rc;
}

/* Which of the sites the snapshot doesn't list; -1: all are there. */
static int unlisted_site(const struct dev_cluster *d, const struct root_document *root)
{
	struct revocations_document *doc;
	char path[4400];
	char *data;
	size_t size;
	int found = -1;

	snprintf(path, sizeof path, "%s/evidence/revocations.dsse.json", d->dir);
	if (file_read_whole(path, 2u << 20, &data, &size, NULL) != 0)
		return -1;
	if (revocations_open(data, size, root, &doc, NULL) == 0) {
		for (unsigned i = 0; found < 0 && i < d->node_count; i++)
			if (revocations_site_version(doc, d->nodes[i].site) == 0)
				found = (int)i;
		revocations_free(doc);
	}
	free(data);
	return found;
}

/* A snapshot with the present time, that lists every site; withdrawals stay. */
static int refresh(struct client *c, const struct cluster_ref *ref, const struct dev_cluster *d,
		   struct error *err)
{
	struct snapshot_signers s = {.valid_for_ms = 24 * 3600 * 1000};
	struct revocations_change change = {0};
	int rc = snapshot_signers_complete(&s, ref, err);

	if (rc == 0)
		rc = snapshot_change(c, ref, &s, &change, err);
	for (unsigned i = 0; rc == 0 && i < d->node_count; i++) {
		int site = unlisted_site(d, s.root);

		if (site < 0)
			break;
		change =
		    (struct revocations_change){.site = d->nodes[site].site, .site_version = 1};
		rc = snapshot_change(c, ref, &s, &change, err);
	}
	snapshot_signers_deinit(&s);
	return rc;
}

/* A driver that was there already may have been started only just, and not listen yet. */
static int open_when_ready(const struct cluster_ref *ref, const struct dev_cluster *d,
			   struct client **ret, struct error *err)
{
	const struct timespec pause = {.tv_nsec = POLL_NS};
	const int64_t end = snapshot_now() + LEASES_MS * (int64_t)NS_PER_MS;
	int rc;

	for (;;) {
		rc = client_open(ref, ret, err);
		if (rc != -E_UNREACHABLE || !some_pd_runs(d) || snapshot_now() > end)
			return rc;
		nanosleep(&pause, NULL);
	}
}

static int submit_evidence(const struct cluster_ref *ref, const struct dev_cluster *d,
			   struct error *err)
{
	struct client *c = NULL;
	int rc = open_when_ready(ref, d, &c, err);

	if (rc == 0)
		rc = submit_sites(c, d, err);
	if (rc == 0)
		rc = submit_first_snapshot(c, d, err);
	if (rc == 0)
		rc = refresh(c, ref, d, err);
	client_close(c);
	return rc == 0 ? 0 : error_wrap(err, "submitting the demo evidence");
}

static int ask_nodes(struct client *c, Pave__V1__Control **ret, struct error *err)
{
	Pave__V1__Control m = PAVE__V1__CONTROL__INIT;
	Pave__V1__NodeList list = PAVE__V1__NODE_LIST__INIT;

	m.body_case = PAVE__V1__CONTROL__BODY_NODE_LIST;
	m.node_list = &list;
	return client_call(c, &m, PAVE__V1__CONTROL__BODY_NODE_LIST_REPLY, 0, ret, err);
}

/* A node that is up, or whose site isn't eligible and so has nothing to wait for. */
static bool is_settled(const Pave__V1__NodeListReply *r, const char *node)
{
	for (size_t i = 0; i < r->n_nodes; i++)
		if (strcmp(r->nodes[i]->node, node) == 0)
			return strcmp(r->nodes[i]->state, "up") == 0 ||
			       (strcmp(r->nodes[i]->state, "refused") == 0 &&
				!r->nodes[i]->eligible);
	return false;
}

/* Waits until every node has its lease. *ret is the last answer. */
static int wait_leases(const struct cluster_ref *ref, const struct dev_cluster *d,
		       Pave__V1__Control **ret, struct error *err)
{
	const struct timespec pause = {.tv_nsec = POLL_NS};
	struct client *c = NULL;
	int64_t end = snapshot_now() + LEASES_MS * (int64_t)NS_PER_MS;
	int rc = client_open(ref, &c, err);

	while (rc == 0) {
		const char *missing = NULL;

		rc = ask_nodes(c, ret, err);
		if (rc != 0)
			break;
		for (unsigned i = 0; missing == NULL && i < d->node_count; i++)
			if (!is_settled((*ret)->node_list_reply, d->nodes[i].name))
				missing = d->nodes[i].name;
		if (missing == NULL)
			break;
		pave__v1__control__free_unpacked(*ret, NULL);
		*ret = NULL;
		if (snapshot_now() > end)
			rc = error_set(err, -ETIMEDOUT,
				       "node %s has no lease after %d s: see %s/log/%s.log",
				       missing, LEASES_MS / 1000, d->dir, missing);
		else
			nanosleep(&pause, NULL);
	}
	client_close(c);
	return rc;
}

/* One that cannot start does not keep the others from it; the first of them is told. */
static int start_nodes(struct dev_cluster *d, struct error *err)
{
	struct error one;
	int rc = 0;

	for (unsigned i = 0; i < d->node_count; i++)
		if (dev_start_node(d, &d->nodes[i], &one) != 0 && rc == 0) {
			*err = one;
			rc = one.code;
		}
	return rc;
}

static int start_all(struct dev_cluster *d, struct error *err)
{
	char before[DRIVERS_TEXT_MAX];
	struct cluster_ref ref;
	int rc;

	memcpy(before, d->pd, sizeof before);
	rc = dev_start_pds(d, err);
	if (rc == 0)
		rc = dev_save(d, err);
	/* Nodes that were told another address can't find the driver any more. */
	for (unsigned i = 0;
	     rc == 0 && before[0] != '\0' && strcmp(before, d->pd) != 0 && i < d->node_count; i++)
		rc = process_stop(d->dir, d->nodes[i].name, STOP_MS, NULL, err);
	if (rc == 0)
		rc = cluster_resolve(d->dir, &ref, err);
	if (rc == 0)
		rc = submit_evidence(&ref, d, err);
	if (rc == 0)
		rc = start_nodes(d, err);
	/* Also after a failure: what runs is written down. */
	return dev_save(d, rc == 0 ? err : NULL) != 0 && rc == 0 ? err->code : rc;
}

int cmd_dev_up(int argc, char **argv)
{
	static struct dev_cluster d;
	struct options o = {0};
	struct cluster_ref ref;
	Pave__V1__Control *nodes = NULL;
	struct error err;
	char dir[4096];
	int rc = parse(argc, argv, true, &o);

	if (rc != 0)
		return rc;
	rc = dev_dir(o.dir, dir, sizeof dir, &err);
	if (rc == 0)
		rc = dev_lock(dir, &err);
	if (rc == 0)
		rc = process_adopt(dir, &err);
	if (rc == 0)
		rc = describe(dir, &o, &d, &err);
	if (rc == 0)
		rc = dev_make_evidence(&d, &err);
	if (rc == 0)
		rc = start_all(&d, &err);
	if (rc == 0)
		rc = cluster_resolve(d.dir, &ref, &err);
	if (rc == 0)
		rc = wait_leases(&ref, &d, &nodes, &err);
	if (rc != 0)
		return cmd_fail(&err);
	rc = print_processes(&d, nodes->node_list_reply);
	pave__v1__control__free_unpacked(nodes, NULL);
	if (rc == 0 && !cli.json)
		printf("\nexport PAVE_CLUSTER=%s\n", d.dir);
	return rc;
}

/* -- down, status ----------------------------------------------------------------------------- */

struct stops {
	const struct dev_cluster *d;
	struct error err;
	int rc;
	unsigned count;
};

static void tell_killed(const char *name, bool killed)
{
	if (killed)
		fprintf(stderr, "%s did not end by itself within %u s, and was killed\n", name,
			STOP_MS / 1000);
}

static void stop_attachment(pid_t pid, const char *argv, void *arg)
{
	struct stops *s = arg;
	bool killed;
	int rc = process_stop_found(s->d->dir, "pave-attach", pid, STOP_MS, &killed, &s->err);

	(void)argv;
	s->count++;
	tell_killed("pave-attach", killed);
	if (rc != 0)
		s->rc = rc;
}

static void stop_daemon(const char *name, void *arg)
{
	struct stops *s = arg;
	bool killed;
	int rc;

	s->count += process_find(s->d->dir, name, NULL);
	rc = process_stop(s->d->dir, name, STOP_MS, &killed, &s->err);
	tell_killed(name, killed);
	if (rc != 0)
		s->rc = rc;
}

static void stop_node(const char *name, void *arg)
{
	const struct stops *s = arg;

	if (!dev_is_pd(s->d, name) && !dev_is_etcd(s->d, name))
		stop_daemon(name, arg);
}

/* Attachments first, while there is somebody to detach from; the drivers last, and then what they
 * stand on. */
static int stop_all(struct stops *s)
{
	if (process_scan(s->d->dir, "pave-attach", stop_attachment, s, &s->err) != 0 ||
	    process_each(s->d->dir, stop_node, s, &s->err) != 0)
		return s->err.code;
	for (unsigned i = 0; i < s->d->pd_count; i++)
		stop_daemon(s->d->pds[i].name, s);
	for (unsigned i = 0; i < s->d->etcd_count; i++)
		stop_daemon(s->d->etcds[i].name, s);
	return s->rc;
}

int cmd_dev_down(int argc, char **argv)
{
	static struct dev_cluster d;
	struct options o = {0};
	struct stops s = {.d = &d};
	struct error err;
	char dir[4096];
	int rc = parse(argc, argv, false, &o);

	if (rc != 0)
		return rc;
	rc = dev_dir(o.dir, dir, sizeof dir, &err);
	if (rc == 0)
		rc = dev_load(dir, &d, &err);
	if (rc == 0)
		rc = dev_lock(dir, &err);
	if (rc == 0)
		rc = process_adopt(dir, &err);
	if (rc != 0)
		return cmd_fail(&err);
	rc = stop_all(&s);
	if (rc != 0)
		return cmd_fail(&s.err);
	if (cli.json)
		return cmd_print_json(
		    json_pack("{s:s,s:i}", "dir", d.dir, "stopped", (int)s.count));
	printf("%u processes stopped; the data stays in %s\n", s.count, d.dir);
	return 0;
}

int cmd_dev_status(int argc, char **argv)
{
	static struct dev_cluster d;
	struct options o = {0};
	struct cluster_ref ref;
	struct client *c = NULL;
	Pave__V1__Control *nodes = NULL;
	struct error err;
	char dir[4096];
	int rc = parse(argc, argv, false, &o);

	if (rc != 0)
		return rc;
	rc = dev_dir(o.dir, dir, sizeof dir, &err);
	if (rc == 0)
		rc = dev_load(dir, &d, &err);
	if (rc == 0)
		rc = cluster_resolve(dir, &ref, &err);
	if (rc != 0)
		return cmd_fail(&err);
	/* Without the driver there is still a table. */
	if (some_pd_runs(&d) && client_open(&ref, &c, &err) == 0 && ask_nodes(c, &nodes, &err) != 0)
		nodes = NULL;
	client_close(c);
	rc = print_processes(&d, nodes != NULL ? nodes->node_list_reply : NULL);
	if (nodes != NULL)
		pave__v1__control__free_unpacked(nodes, NULL);
	return rc;
}
