/* dev: see dev.h. Here: files and processes. The commands are in cmd_dev.c. */
#include "tools/pave/dev.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <limits.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "engine/base/text.h"
#include "engine/evidence/demo.h"
#include "engine/evidence/file.h"
#include "tools/pave/cmd.h"
#include "tools/pave/dev.h"
#include "tools/pave/process.h"
#include "tools/pave/snapshot.h"

#define DEV_CACHE "256MiB" /* of each node's index */
#define PATH_SIZE 4400
#define START_MS  30000u
/* Below the range that the kernel gives to connections (net.ipv4.ip_local_port_range), so that a
 * port is still free when its owner comes back. */
#define PORT_FIRST	20000u
#define PORT_COUNT	10000u
#define PORT_WAIT_STEPS 150 /* of 20 ms */
#define DAY_NS		(86400 * (int64_t)NS_PER_S)
#define CLUSTER_FORMAT	1

/* -- the directory ---------------------------------------------------------------------------- */

/* In place, as realpath has it; of what is not there, its folder. Returns its length. */
static int resolve(char *buf, size_t size)
{
	char last[NAME_MAX + 1] = "";
	char *path, *slash;
	size_t len;
	int n;

	for (len = strlen(buf); len > 1 && buf[len - 1] == '/'; len--)
		buf[len - 1] = '\0';
	path = realpath(buf, NULL);
	slash = strrchr(buf, '/');
	if (path == NULL && slash != buf && strlen(slash) < sizeof last &&
	    strcmp(slash, "/..") != 0 && strcmp(slash, "/.") != 0) {
		memcpy(last, slash, strlen(slash) + 1);
		*slash = '\0';
		path = realpath(buf, NULL);
		*slash = '/';
	}
	n = path == NULL ? (int)strlen(buf) : snprintf(buf, size, "%s%s", path, last);
	free(path);
	return n;
}

int dev_dir(const char *option, char *buf, size_t size, struct error *err)
{
	const char *dir = option;
	const char *env = getenv("PAVE_DEV_DIR");
	char here[4096];
	int n;

	/* An address names no directory. */
	if (dir == NULL && cli.cluster != NULL &&
	    (strchr(cli.cluster, '/') != NULL || strchr(cli.cluster, ':') == NULL))
		dir = cli.cluster;
	if (dir == NULL && env != NULL && env[0] != '\0')
		dir = env;
	if (dir == NULL)
		dir = "pave-dev";
	if (strncmp(dir, "./", 2) == 0)
		dir += 2;
	if (dir[0] == '/')
		n = snprintf(buf, size, "%s", dir);
	else if (getcwd(here, sizeof here) != NULL)
		n = snprintf(buf, size, "%s/%s", here, dir);
	else
		return error_set(err, -errno, "the working directory: %s", strerror(errno));
	/* As cluster_resolve names it, by which processes are known; one that is not there yet by
	 * what it will lie in. */
	if (n >= 0 && (size_t)n < size)
		n = resolve(buf, size);
	/* Room for what lies below it. */
	if (n < 0 || (size_t)n >= size || n > 3000)
		return error_set(err, -ENAMETOOLONG, "directory %.80s...: the name is too long",
				 dir);
	return 0;
}

static int make_dir(const char *path, mode_t mode, struct error *err)
{
	if (mkdir(path, mode) == 0 || errno == EEXIST)
		return 0;
	return error_set(err, -errno, "directory %s: %s", path, strerror(errno));
}

int dev_lock(const char *dir, struct error *err)
{
	static const char *const below[] = {"", "/evidence", "/pd", "/nodes", "/run", "/log"};
	char path[PATH_SIZE];
	int rc, fd;

	for (size_t i = 0; i < ARRAY_SIZE(below); i++) {
		snprintf(path, sizeof path, "%s%s", dir, below[i]);
		rc = make_dir(path, 0755, err);
		if (rc != 0)
			return rc;
	}
	snprintf(path, sizeof path, "%s/authority", dir);
	rc = make_dir(path, 0700, err);
	if (rc != 0)
		return rc;
	snprintf(path, sizeof path, "%s/run/lock", dir);
	fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0644);
	if (fd < 0 || flock(fd, LOCK_EX) != 0)
		return error_set(err, -errno, "%s: %s", path, strerror(errno));
	return 0;
}

/* -- cluster.json ----------------------------------------------------------------------------- */

static bool copy_text(char *dst, size_t size, const json_t *o, const char *name)
{
	const char *text = json_string_value(json_object_get(o, name));

	if (text == NULL || strlen(text) >= size)
		return false;
	memcpy(dst, text, strlen(text) + 1);
	return true;
}

int dev_load(const char *dir, struct dev_cluster *ret, struct error *err)
{
	struct dev_cluster d = {.node_count = 0};
	char path[PATH_SIZE];
	json_error_t je;
	json_t *o, *nodes, *n;
	size_t i;
	bool ok;

	snprintf(path, sizeof path, "%s/cluster.json", dir);
	if (access(path, F_OK) != 0)
		return error_set(err, -ENOENT,
				 "there is no development cluster in %s: `pave dev up --dir %s` "
				 "makes one",
				 dir, dir);
	o = json_load_file(path, JSON_REJECT_DUPLICATES, &je);
	if (o == NULL)
		return error_set(err, -E_BAD_DOCUMENT, "%s: line %d: %s", path, je.line, je.text);
	snprintf(d.dir, sizeof d.dir, "%s", dir);
	nodes = json_object_get(o, "nodes");
	d.device_size = (uint64_t)json_integer_value(json_object_get(o, "device_size_bytes"));
	d.permit_lifetime_ms =
	    (uint64_t)json_integer_value(json_object_get(o, "permit_lifetime_ms"));
	ok = json_integer_value(json_object_get(o, "format")) == CLUSTER_FORMAT &&
	     copy_text(d.pd, sizeof d.pd, o, "pd") && dev_load_drivers(&d, o) &&
	     json_is_array(nodes) && json_array_size(nodes) > 0 &&
	     json_array_size(nodes) <= DEV_SITES_MAX;
	json_array_foreach (nodes, i, n) {
		struct dev_node *node = &d.nodes[d.node_count];

		if (!ok)
			break;
		ok = copy_text(node->name, sizeof node->name, n, "node") &&
		     copy_text(node->site, sizeof node->site, n, "site") &&
		     copy_text(node->address, sizeof node->address, n, "address") &&
		     text_is_name(node->name) && text_is_name(node->site);
		d.node_count++;
	}
	json_decref(o);
	if (!ok)
		return error_set(err, -E_BAD_DOCUMENT,
				 "%s: not the description of a development cluster that this "
				 "version of pave writes",
				 path);
	*ret = d;
	return 0;
}

int dev_save(const struct dev_cluster *d, struct error *err)
{
	json_t *nodes = json_array();
	char path[PATH_SIZE];
	json_t *o;
	char *text;
	int rc;

	for (unsigned i = 0; i < d->node_count; i++)
		json_array_append_new(nodes,
				      json_pack("{s:s,s:s,s:s}", "node", d->nodes[i].name, "site",
						d->nodes[i].site, "address", d->nodes[i].address));
	o = json_pack("{s:i,s:s,s:s,s:s,s:I,s:I,s:o}", "format", CLUSTER_FORMAT, "pd", d->pd,
		      "root", "evidence/root.dsse.json", "host_site", d->nodes[0].site,
		      "device_size_bytes", (json_int_t)d->device_size, "permit_lifetime_ms",
		      (json_int_t)d->permit_lifetime_ms, "nodes", nodes);
	if (o != NULL)
		dev_save_drivers(d, o);
	text = o != NULL ? json_dumps(o, JSON_INDENT(2)) : NULL;
	json_decref(o);
	if (text == NULL)
		return error_set(err, -ENOMEM, "no memory");
	snprintf(path, sizeof path, "%s/cluster.json", d->dir);
	rc = file_replace(path, text, strlen(text), 0644, err);
	free(text);
	return rc;
}

/* -- evidence --------------------------------------------------------------------------------- */

static int key_path(char *buf, const char *dir, const char *keyid)
{
	return snprintf(buf, PATH_SIZE, "%s/authority/%s.pem", dir, keyid);
}

static int save_keys(const char *dir, const struct demo *demo, struct error *err)
{
	char path[PATH_SIZE];
	int rc = 0;

	for (size_t i = 0; rc == 0 && i < DEMO_KEY_COUNT; i++) {
		char *pem = signing_key_private_pem(demo->keys[i]);
		char *pub = signing_key_public_pem(demo->keys[i]);

		if (pem == NULL || pub == NULL) {
			rc = error_set(err, -ENOMEM, "no memory");
		} else {
			int n = key_path(path, dir, demo_key_names[i]);

			rc = file_replace(path, pem, strlen(pem), 0600, err);
			snprintf(path + n, sizeof path - (size_t)n, ".pub");
			if (rc == 0)
				rc = file_replace(path, pub, strlen(pub), 0644, err);
		}
		free(pem);
		free(pub);
	}
	return rc;
}

static int load_keys(const char *dir, const struct root_document *root, struct demo *demo,
		     struct error *err)
{
	char path[PATH_SIZE];
	int rc = 0;

	static const char *const roles[DEMO_KEY_COUNT] = {"authority", "auditor", "placement",
							  "tenant"};

	/* The root may have been replaced since: of each role's keys the last that is here. */
	demo->cluster = *root_cluster(root);
	for (size_t i = 0; rc == 0 && i < DEMO_KEY_COUNT; i++) {
		const char *name = demo_key_names[i], *keyid;

		for (uint32_t k = 0; (keyid = root_role_key(root, roles[i], k)) != NULL; k++) {
			key_path(path, dir, keyid);
			if (access(path, R_OK) == 0)
				name = keyid;
		}
		key_path(path, dir, name);
		rc = signing_key_read(path, name, &demo->keys[i], err);
	}
	return rc;
}

static int write_evidence(const char *dir, const char *kind, const char *name, const char *envelope,
			  struct error *err)
{
	char path[PATH_SIZE];

	snprintf(path, sizeof path, "%s/evidence/%s%s%s.dsse.json", dir, kind,
		 name[0] != '\0' ? "-" : "", name);
	return file_replace(path, envelope, strlen(envelope), 0644, err);
}

static bool has_evidence(const char *dir, const char *kind, const char *name)
{
	char path[PATH_SIZE];

	snprintf(path, sizeof path, "%s/evidence/%s%s%s.dsse.json", dir, kind,
		 name[0] != '\0' ? "-" : "", name);
	return access(path, F_OK) == 0;
}

/* The demo authority: read, or made. The keys are written before the root that names them, so that
 * a root that is there always has its keys. */
static int open_authority(const char *dir, struct demo *demo, struct error *err)
{
	struct root_document *root;
	char path[PATH_SIZE];
	char *data = NULL;
	int64_t now = snapshot_now();
	size_t size;
	int rc;

	if (!has_evidence(dir, "root", "")) {
		rc = demo_init(demo, NULL, err);
		if (rc == 0)
			rc = save_keys(dir, demo, err);
		if (rc == 0)
			rc = demo_root(demo, 1, now - DAY_NS, now + 730 * DAY_NS, &data, err);
		if (rc == 0)
			rc = write_evidence(dir, "root", "", data, err);
		free(data);
		return rc;
	}
	snprintf(path, sizeof path, "%s/evidence/root.dsse.json", dir);
	rc = file_read_whole(path, ENVELOPE_SIZE_MAX, &data, &size, err);
	if (rc != 0)
		return rc;
	rc = root_open(data, size, NULL, &root, err);
	free(data);
	if (rc != 0)
		return error_wrap(err, "%s", path);
	rc = load_keys(dir, root, demo, err);
	root_free(root);
	return rc;
}

/* Key and certificates of a node, from the demo CA of its site. */
static int make_identity(const struct dev_cluster *d, const struct dev_node *n,
			 const struct demo *demo, int64_t now, struct error *err)
{
	struct identity id = {0};
	char path[PATH_SIZE + 16];
	int rc;

	snprintf(path, sizeof path, "%s/nodes/%s/identity.key", d->dir, n->name);
	if (access(path, F_OK) == 0)
		return 0;
	snprintf(path, sizeof path, "%s/nodes/%s", d->dir, n->name);
	rc = make_dir(path, 0755, err);
	if (rc == 0)
		rc = demo_identity(demo, n->site, n->name, now - DAY_NS, now + 365 * DAY_NS, &id,
				   err);
	snprintf(path, sizeof path, "%s/nodes/%s/identity", d->dir, n->name);
	if (rc == 0)
		rc = identity_write(path, &id, err);
	identity_deinit(&id);
	return rc;
}

int dev_make_node(struct dev_cluster *d, const char *node, const char *site, struct identity *ret,
		  struct error *err)
{
	struct dev_node *n = &d->nodes[d->node_count];
	struct demo demo = {0};
	char path[PATH_SIZE];
	int rc = 0;

	for (unsigned i = 0; i < d->node_count; i++)
		if (strcmp(d->nodes[i].name, node) == 0)
			rc = error_set(err, -EEXIST, "node %s is in %s/cluster.json already", node,
				       d->dir);
	if (rc == 0 && d->node_count == DEV_SITES_MAX)
		rc = error_set(err, -E_LIMIT, "%u nodes are the most in a development cluster",
			       DEV_SITES_MAX);
	if (rc != 0)
		return rc;
	*n = (struct dev_node){.name = ""};
	snprintf(n->name, sizeof n->name, "%s", node);
	snprintf(n->site, sizeof n->site, "%s", site);
	rc = open_authority(d->dir, &demo, err);
	if (rc == 0)
		rc = make_identity(d, n, &demo, snapshot_now(), err);
	snprintf(path, sizeof path, "%s/nodes/%s/identity", d->dir, n->name);
	if (rc == 0)
		rc = identity_read(path, node, ret, err);
	if (rc == 0)
		d->node_count++;
	demo_deinit(&demo);
	return rc;
}

int dev_forget_node(const char *dir, const char *node, struct error *err)
{
	static struct dev_cluster d;
	int rc = dev_lock(dir, err);

	if (rc == 0)
		rc = dev_load(dir, &d, err);
	for (unsigned i = 0; rc == 0 && d.node_count > 1 && i < d.node_count; i++) {
		if (strcmp(d.nodes[i].name, node) != 0)
			continue;
		d.node_count--;
		memmove(&d.nodes[i], &d.nodes[i + 1], (d.node_count - i) * sizeof d.nodes[0]);
		return dev_save(&d, err);
	}
	return rc;
}

int dev_make_evidence(const struct dev_cluster *d, struct error *err)
{
	struct demo demo = {0};
	int64_t now = snapshot_now();
	char *text;
	int rc = open_authority(d->dir, &demo, err);

	for (unsigned i = 0; rc == 0 && i < d->node_count; i++) {
		if (has_evidence(d->dir, "site", d->nodes[i].site))
			continue;
		rc = demo_site(&demo, d->nodes[i].site, 1, now - DAY_NS, now + 365 * DAY_NS, &text,
			       err);
		if (rc != 0)
			break;
		rc = write_evidence(d->dir, "site", d->nodes[i].site, text, err);
		free(text);
	}
	for (unsigned i = 0; rc == 0 && i < d->node_count; i++)
		rc = make_identity(d, &d->nodes[i], &demo, now, err);
	if (rc == 0 && !has_evidence(d->dir, "revocations", "")) {
		struct demo_entry entries[DEV_SITES_MAX] = {0};

		for (unsigned i = 0; i < d->node_count; i++)
			entries[i] = (struct demo_entry){.site = d->nodes[i].site, .version = 1};
		rc = demo_revocations(&demo, 1, now, now + DAY_NS, entries, d->node_count, &text,
				      err);
		if (rc == 0) {
			rc = write_evidence(d->dir, "revocations", "", text, err);
			free(text);
		}
	}
	demo_deinit(&demo);
	return rc;
}

/* -- processes -------------------------------------------------------------------------------- */

static bool port_is_free(unsigned port)
{
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	int one = 1;
	bool free_now;

	if (fd < 0)
		return false;
	a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
	free_now = bind(fd, (struct sockaddr *)&a, sizeof a) == 0 && listen(fd, 1) == 0;
	close(fd);
	return free_now;
}

/* Of a process that was killed io_uring closes the sockets a moment after its end. */
static bool port_comes_free(unsigned port)
{
	const struct timespec step = {.tv_nsec = 20 * 1000 * 1000};
	bool free_now = port_is_free(port);

	for (int i = 0; i < PORT_WAIT_STEPS && !free_now; i++) {
		nanosleep(&step, NULL);
		free_now = port_is_free(port);
	}
	return free_now;
}

/* A process that is started again keeps its address if it can: others know it by that. */
void dev_choose_address(char address[ADDR_SIZE_MAX])
{
	const char *colon = strrchr(address, ':');
	unsigned port = colon != NULL ? (unsigned)strtoul(colon + 1, NULL, 10) : 0;

	if (port != 0 && !port_comes_free(port))
		port = 0;
	for (int i = 0; i < 1000 && (port == 0 || !port_is_free(port)); i++) {
		uint16_t r = 0;

		if (getrandom(&r, sizeof r, 0) != sizeof r)
			break;
		port = PORT_FIRST + r % PORT_COUNT;
	}
	snprintf(address, ADDR_SIZE_MAX, "127.0.0.1:%u", port);
}

/* Another process may take the port between our look and its start: then once more, elsewhere. */
int dev_start(const char *dir, const char *name, const char *program, char **argv, size_t listen_at,
	      char address[ADDR_SIZE_MAX], struct error *err)
{
	char ready[PROCESS_READY_SIZE];
	int rc = -1;

	for (int i = 0; i < 3; i++) {
		dev_choose_address(address);
		argv[listen_at] = address;
		rc = process_start(dir, name, program, argv, START_MS, ready, NULL, err);
		if (rc != 0 && strstr(err->text, "in use") == NULL)
			break;
		if (rc == 0) {
			snprintf(address, ADDR_SIZE_MAX, "%.*s", (int)ADDR_SIZE_MAX - 1, ready);
			break;
		}
		address[0] = '\0';
	}
	return rc;
}

int dev_start_node(struct dev_cluster *d, struct dev_node *n, struct error *err)
{
	char dir[PATH_SIZE], root[PATH_SIZE], device[PATH_SIZE + 16], size[32];
	char identity[PATH_SIZE + 16];
	char *argv[] = {(char *)(uintptr_t) "pave-node",
			(char *)(uintptr_t) "--name",
			n->name,
			(char *)(uintptr_t) "--site",
			n->site,
			(char *)(uintptr_t) "--pd",
			d->pd,
			(char *)(uintptr_t) "--root",
			root,
			(char *)(uintptr_t) "--dir",
			dir,
			(char *)(uintptr_t) "--device",
			device,
			(char *)(uintptr_t) "--device-size",
			size,
			(char *)(uintptr_t) "--identity",
			identity,
			(char *)(uintptr_t) "--cache",
			(char *)(uintptr_t)DEV_CACHE,
			(char *)(uintptr_t) "--listen",
			NULL,
			NULL};
	int rc;

	if (process_argument(d->dir, n->name, "--listen", n->address, sizeof n->address))
		return 0;
	snprintf(dir, sizeof dir, "%s/nodes/%s", d->dir, n->name);
	snprintf(device, sizeof device, "%s/device", dir);
	snprintf(identity, sizeof identity, "%s/identity", dir);
	snprintf(root, sizeof root, "%s/evidence/root.dsse.json", d->dir);
	snprintf(size, sizeof size, "%llu", (unsigned long long)d->device_size);
	rc = make_dir(dir, 0755, err);
	return rc == 0 ? dev_start(d->dir, n->name, "pave-node", argv, 20, n->address, err) : rc;
}
