/* pave node add: a node is admitted to a site under an identity, before it comes.
 *
 * The identity is a key of the node's own and a certificate of the site's node CA, whose hash
 * stands in the site's certificate (engine/evidence/identity.h). Whoever has the CA's key makes it
 * here; in a development cluster that is the demo authority, and the node is one more of those that
 * `pave dev up` starts. */
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "engine/base/text.h"
#include "tools/pave/client.h"
#include "tools/pave/cmd.h"
#include "tools/pave/dev.h"
#include "tools/pave/snapshot.h"

#define DAYS_DEFAULT 365u
#define DAYS_MAX     3650u
#define HOUR_NS	     (3600 * (int64_t)NS_PER_S)

struct add {
	const char *node, *site, *ca_key, *out;
	unsigned long days;
	struct cluster_ref cluster;
	struct dev_cluster dev; /* when it is one, and no CA key was given */
	struct identity id;
};

static int parse(struct add *a, int argc, char **argv)
{
	static const struct option options[] = {{"site", required_argument, NULL, 's'},
						{"ca-key", required_argument, NULL, 'k'},
						{"out", required_argument, NULL, 'o'},
						{"days", required_argument, NULL, 'd'},
						{0}};
	char *end;
	int c;

	a->days = DAYS_DEFAULT;
	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
		switch (c) {
		case 's':
			a->site = optarg;
			break;
		case 'k':
			a->ca_key = optarg;
			break;
		case 'o':
			a->out = optarg;
			break;
		case 'd':
			a->days = strtoul(optarg, &end, 10);
			if (*end != '\0' || a->days == 0 || a->days > DAYS_MAX)
				return cmd_usage_error("--days %s: 1 to %u", optarg, DAYS_MAX);
			break;
		default:
			return cmd_usage_error("an option is not understood");
		}
	}
	a->node = cmd_operand(argc, argv, "NODE");
	if (a->node == NULL)
		return 2;
	if (a->site == NULL)
		return cmd_usage_error("--site SITE is missing");
	if (!text_is_name(a->node) || !text_is_name(a->site))
		return cmd_usage_error("\"%s\" is no name: up to %u of a-z 0-9 . _ -, beginning "
				       "with a letter or digit",
				       text_is_name(a->node) ? a->site : a->node,
				       NAME_SIZE_MAX - 1);
	if ((a->ca_key == NULL) != (a->out == NULL))
		return cmd_usage_error("--ca-key FILE and --out PREFIX go together");
	return 0;
}

/* The cluster's id, as the driver's trust root has it. */
static int ask_cluster(struct client *c, struct uuid *ret, struct error *err)
{
	Pave__V1__Control m = PAVE__V1__CONTROL__INIT;
	Pave__V1__RootGet get = PAVE__V1__ROOT_GET__INIT;
	struct root_document *root = NULL;
	Pave__V1__Control *reply;
	int rc;

	m.body_case = PAVE__V1__CONTROL__BODY_ROOT_GET;
	m.root_get = &get;
	rc = client_call(c, &m, PAVE__V1__CONTROL__BODY_ROOT_REPLY, 0, &reply, err);
	if (rc != 0)
		return rc;
	rc = root_open(reply->root_reply->envelope.data, reply->root_reply->envelope.len, NULL,
		       &root, err);
	pave__v1__control__free_unpacked(reply, NULL);
	if (rc == 0)
		*ret = *root_cluster(root);
	root_free(root);
	return rc;
}

/* By the CA whose key was given. Its certificate is made anew: what counts of it is the key. */
static int issue(struct add *a, const struct uuid *cluster, struct error *err)
{
	const int64_t from = snapshot_now() - HOUR_NS;
	const int64_t until = from + (int64_t)a->days * 24 * HOUR_NS;
	struct signing_key *ca = NULL;
	int rc = signing_key_read(a->ca_key, "node-ca", &ca, err);

	if (rc == 0)
		rc = identity_make_ca(ca, a->site, from, until, &a->id.ca, err);
	if (rc == 0)
		rc = signing_key_generate(a->node, &a->id.key, err);
	if (rc == 0)
		rc = identity_issue(ca, &a->id.ca, cluster, a->site, a->node, a->id.key, from,
				    until, &a->id.certificate, err);
	signing_key_free(ca);
	return rc;
}

static int make_identity(struct add *a, struct client *c, struct error *err)
{
	struct uuid cluster;
	int rc;

	if (a->ca_key != NULL) {
		rc = ask_cluster(c, &cluster, err);
		return rc == 0 ? issue(a, &cluster, err) : rc;
	}
	if (a->cluster.dir[0] == '\0')
		return error_set(
		    err, -EINVAL,
		    "--ca-key FILE and --out PREFIX are missing: the node CA of site %s "
		    "signs for the node",
		    a->site);
	/* What another adds meanwhile is in it, too. */
	rc = dev_lock(a->cluster.dir, err);
	if (rc == 0)
		rc = dev_load(a->cluster.dir, &a->dev, err);
	return rc == 0 ? dev_make_node(&a->dev, a->node, a->site, &a->id, err) : rc;
}

static int submit(const struct add *a, struct client *c, struct error *err)
{
	Pave__V1__Control m = PAVE__V1__CONTROL__INIT;
	Pave__V1__NodeAdd add = PAVE__V1__NODE_ADD__INIT;
	Pave__V1__Control *reply;
	int rc;

	add.node = (char *)(uintptr_t)a->node;
	add.site = (char *)(uintptr_t)a->site;
	add.certificate = (ProtobufCBinaryData){a->id.certificate.size, a->id.certificate.data};
	add.ca = (ProtobufCBinaryData){a->id.ca.size, a->id.ca.data};
	m.body_case = PAVE__V1__CONTROL__BODY_NODE_ADD;
	m.node_add = &add;
	rc = client_call(c, &m, PAVE__V1__CONTROL__BODY_EMPTY, 0, &reply, err);
	if (rc == 0)
		pave__v1__control__free_unpacked(reply, NULL);
	return rc;
}

static int print_added(const struct add *a)
{
	const char *in = a->out != NULL ? a->out : a->cluster.dir;

	if (cli.json)
		return cmd_print_json(
		    json_pack("{s:s,s:s,s:s}", "node", a->node, "site", a->site, "identity", in));
	printf("node %s is admitted to site %s; ", a->node, a->site);
	if (a->out != NULL)
		printf("start it with: pave-node --name %s --site %s --identity %s ...\n", a->node,
		       a->site, a->out);
	else
		printf("start it with: pave dev up --dir %s\n", a->cluster.dir);
	return 0;
}

/* An identity that was refused is of no use, and would be in the way of the next. */
static void remove_identity(const struct add *a)
{
	static const char *const ends[] = {"key", "crt", "ca"};
	char path[4600];

	for (size_t i = 0; i < ARRAY_SIZE(ends); i++) {
		if (a->out != NULL)
			snprintf(path, sizeof path, "%.4500s.%s", a->out, ends[i]);
		else
			snprintf(path, sizeof path, "%.4300s/nodes/%.63s/identity.%s",
				 a->cluster.dir, a->node, ends[i]);
		unlink(path);
	}
}

int cmd_node_add(int argc, char **argv)
{
	static struct add a;
	struct client *c = NULL;
	struct error err;
	int rc = parse(&a, argc, argv);

	if (rc != 0)
		return rc;
	rc = cmd_cluster(&a.cluster, &err);
	if (rc == 0)
		rc = client_open(&a.cluster, &c, &err);
	if (rc == 0)
		rc = make_identity(&a, c, &err);
	/* Files first: a node that is admitted without them could never come. */
	if (rc == 0 && a.out != NULL)
		rc = identity_write(a.out, &a.id, &err);
	if (rc == 0) {
		rc = submit(&a, c, &err);
		if (rc != 0 && rc != -E_UNREACHABLE)
			remove_identity(&a);
	}
	if (rc == 0 && a.out == NULL)
		rc = dev_save(&a.dev, &err);
	client_close(c);
	identity_deinit(&a.id);
	return rc == 0 ? print_added(&a) : cmd_fail(&err);
}
