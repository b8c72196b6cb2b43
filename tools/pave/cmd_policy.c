/* pave policy check: whether a site may hold data under a policy, from files alone. Nothing here
 * talks to a cluster; list and show are in cmd_policies.c, put in cmd_site.c.
 *
 * Happy path: the root is opened by itself, the three other envelopes under it, then one
 * call of evaluate() at the time given. With --seen all of them pass through a trust state, which
 * remembers what was seen. Failure modes: an envelope that doesn't verify, or is older than one
 * that was seen, is exit 1 and never a verdict; a rule that fails is exit 3, with all of them.
 * Exit: 0 eligible, 1 failed, 2 usage, 3 refused. */
#include <errno.h>
#include <getopt.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "engine/base/text.h"
#include "engine/evidence/dsse.h"
#include "engine/evidence/evaluate.h"
#include "engine/evidence/file.h"
#include "engine/evidence/trust.h"
#include "tools/pave/cmd.h"
#include "tools/pave/offline.h"

#define GROUP "policy"

static const char help[] =
    "usage: pave policy check --policy NAME-or-FILE --site FILE --revocations FILE --root FILE\n"
    "                         [--at TIME] [--seen FILE] [--json]\n"
    "       pave policy list [--json]\n"
    "       pave policy show POLICY [--json]\n"
    "       pave policy put FILE\n"
    "\n"
    "check  Tells whether the site is eligible under the policy, and until when, or every rule "
    "that\n"
    "       failed. All files are signed envelopes (`pave evidence sign`); --policy may also be "
    "the\n"
    "       name of a preset (a file of that name is ./NAME). TIME is RFC 3339, now when not "
    "given.\n"
    "       --seen keeps in FILE, which is made when missing, the highest version that was seen of "
    "each\n"
    "       document: an older one, or another content of the same version, is refused from then "
    "on.\n"
    "       --json: {\"eligible\": bool, \"until\": TIME or null, \"until_field\", "
    "\"until_source\",\n"
    "       \"failed\": [{\"rule\", \"field\", \"value\", \"bound\", \"source\"}]}\n"
    "list, show, put: see pave help policy list, and so on.\n"
    "\n"
    "Exit status: 0 eligible or done, 1 failed (a file is unreadable, unsigned, malformed or older "
    "than\n"
    "one seen before), 2 usage, 3 refused by the policy.\n";

struct options {
	const char *policy, *site, *revocations, *root, *at, *seen;
	bool json;
	char **files;
	int file_count;
};

struct evidence {
	const char *seen;		  /* the file; NULL: nothing is remembered, */
	struct trust *trust;		  /* and there is none */
	struct root_document *given_root; /* without trust */
	const struct root_document *root; /* in force */
	struct site_document *site;
	struct revocations_document *revocations;
	struct policy_document *policy;
};

enum {
	OPT_POLICY = 256,
	OPT_SITE,
	OPT_REVOCATIONS,
	OPT_ROOT,
	OPT_AT,
	OPT_SEEN,
	OPT_JSON,
	OPT_CLUSTER
};

static const struct option long_options[] = {
    {"policy", required_argument, NULL, OPT_POLICY},
    {"site", required_argument, NULL, OPT_SITE},
    {"revocations", required_argument, NULL, OPT_REVOCATIONS},
    {"root", required_argument, NULL, OPT_ROOT},
    {"at", required_argument, NULL, OPT_AT},
    {"seen", required_argument, NULL, OPT_SEEN},
    {"json", no_argument, NULL, OPT_JSON},
    {"cluster", required_argument, NULL, OPT_CLUSTER}, /* taken everywhere, of no use here */
    {"help", no_argument, NULL, 'h'},
    {NULL, 0, NULL, 0},
};

/* -1: go on; else the exit status. */
static int parse_options(int argc, char **argv, struct options *o)
{
	int c;

	optind = 1;
	while ((c = getopt_long(argc, argv, "h", long_options, NULL)) != -1) {
		switch (c) {
		case OPT_POLICY:
			o->policy = optarg;
			break;
		case OPT_SITE:
			o->site = optarg;
			break;
		case OPT_REVOCATIONS:
			o->revocations = optarg;
			break;
		case OPT_ROOT:
			o->root = optarg;
			break;
		case OPT_AT:
			o->at = optarg;
			break;
		case OPT_SEEN:
			o->seen = optarg;
			break;
		case OPT_JSON:
			o->json = true;
			break;
		case OPT_CLUSTER:
			break;
		case 'h':
			fputs(help, stdout);
			return OFFLINE_DONE;
		default:
			fputs("see pave policy --help\n", stderr);
			return OFFLINE_USAGE;
		}
	}
	o->files = argv + optind;
	o->file_count = argc - optind;
	return -1;
}

/* -- check ------------------------------------------------------------------------------------ */

typedef int open_fn(const void *data, size_t size, struct evidence *e, struct error *err);

static int open_root(const void *data, size_t size, struct evidence *e, struct error *err)
{
	int rc;

	if (e->seen == NULL) {
		rc = root_open(data, size, NULL, &e->given_root, err);
		e->root = e->given_root;
		return rc;
	}
	rc = trust_open(e->seen, data, size, &e->trust, err);
	if (rc == 0)
		e->root = trust_root(e->trust); /* a newer one, if that was seen */
	return rc;
}

static int open_site(const void *data, size_t size, struct evidence *e, struct error *err)
{
	return e->trust != NULL ? trust_accept_site(e->trust, data, size, &e->site, err)
				: site_open(data, size, e->root, &e->site, err);
}

static int open_revocations(const void *data, size_t size, struct evidence *e, struct error *err)
{
	return e->trust != NULL
		   ? trust_accept_revocations(e->trust, data, size, &e->revocations, err)
		   : revocations_open(data, size, e->root, &e->revocations, err);
}

static int open_policy(const void *data, size_t size, struct evidence *e, struct error *err)
{
	return e->trust != NULL
		   ? trust_accept_policy(e->trust, data, size, NULL, &e->policy, NULL, err)
		   : policy_open(data, size, e->root, &e->policy, err);
}

static int open_file(const char *option, const char *path, open_fn *open, struct evidence *e,
		     struct error *err)
{
	char *data = NULL;
	size_t size = 0;
	int rc = file_read_whole(path, ENVELOPE_SIZE_MAX, &data, &size, err);

	if (rc == 0)
		rc = open(data, size, e, err);
	free(data);
	return rc == 0 ? 0 : error_wrap(err, "%s %s", option, path);
}

static int open_named_policy(const char *name, struct evidence *e, struct error *err)
{
	const char *preset = policy_preset(name);
	int rc;

	if (preset != NULL)
		return policy_parse(preset, strlen(preset), &e->policy, err);
	rc = open_file("--policy", name, open_policy, e, err);
	if (rc == -ENOENT)
		return error_set(
		    err, rc,
		    "--policy %.200s: there is neither a preset nor a file of this name; "
		    "`pave policy list` names the presets",
		    name);
	return rc;
}

/* The root comes first: the others are verified under it. */
static int open_evidence(const struct options *o, struct evidence *e, struct error *err)
{
	int rc = open_file("--root", o->root, open_root, e, err);

	if (rc == 0)
		rc = open_file("--site", o->site, open_site, e, err);
	if (rc == 0)
		rc = open_file("--revocations", o->revocations, open_revocations, e, err);
	return rc != 0 ? rc : open_named_policy(o->policy, e, err);
}

static json_t *verdict_json(const struct verdict *v)
{
	json_t *failed_rules = json_array();
	char until[40];

	for (uint32_t i = 0; i < MIN(v->failed_count, FAILED_RULES_MAX); i++) {
		const struct failed_rule *f = &v->failed[i];

		json_array_append_new(failed_rules,
				      json_pack("{s:s, s:s, s:s, s:s, s:s}", "rule", f->rule,
						"field", f->field, "value", f->value, "bound",
						f->bound, "source", f->source));
	}
	return json_pack("{s:b, s:o, s:s?, s:s?, s:o}", "eligible", v->eligible, "until",
			 v->eligible ? json_string(text_time(v->until, until, sizeof until))
				     : json_null(),
			 "until_field", v->eligible ? v->until_field : NULL, "until_source",
			 v->eligible ? v->until_source : NULL, "failed", failed_rules);
}

static void print_verdict(const struct verdict *v, const struct evidence *e, int64_t at)
{
	const char *site = site_name(e->site), *policy = policy_name(e->policy);
	char time[40];

	if (v->eligible) {
		printf("%s is eligible under %s until %s, which is %s of %s\n", site, policy,
		       text_time(v->until, time, sizeof time), v->until_field, v->until_source);
		return;
	}
	printf("%s is refused under %s at %s: %u rule%s failed\n", site, policy,
	       text_time(at, time, sizeof time), v->failed_count, v->failed_count == 1 ? "" : "s");
	for (uint32_t i = 0; i < MIN(v->failed_count, FAILED_RULES_MAX); i++)
		printf("  %s: %s is %s, must be: %s (%s)\n", v->failed[i].rule, v->failed[i].field,
		       v->failed[i].value, v->failed[i].bound, v->failed[i].source);
	if (v->failed_count > FAILED_RULES_MAX)
		printf("  and %u more\n", v->failed_count - FAILED_RULES_MAX);
}

static int64_t wall_now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_REALTIME, &ts);
	return (int64_t)ts.tv_sec * (int64_t)NS_PER_S + ts.tv_nsec;
}

static int check(const struct options *o)
{
	static struct verdict v; /* too large for a stack */
	struct evidence e = {.seen = o->seen};
	struct error err = {0};
	int64_t at = wall_now();
	int rc;

	if (o->file_count != 0 || o->policy == NULL || o->site == NULL || o->revocations == NULL ||
	    o->root == NULL)
		return offline_usage(
		    GROUP,
		    "check needs --policy, --site, --revocations and --root, and nothing else");
	if (o->at != NULL && text_parse_time(o->at, &at) != 0)
		return offline_usage(GROUP, "--at %s: a time is needed, as 2026-11-23T10:00:00Z",
				     o->at);
	rc = open_evidence(o, &e, &err);
	if (rc != 0) {
		rc = offline_failed(GROUP, &err);
		goto out;
	}
	evaluate(e.site, e.revocations, e.policy, at, &v);
	evaluate_root(e.root, at, &v);
	if (!o->json)
		print_verdict(&v, &e, at);
	else if (offline_print_json(GROUP, verdict_json(&v)) != OFFLINE_DONE)
		rc = OFFLINE_FAILED;
	if (rc == 0)
		rc = v.eligible ? OFFLINE_DONE : OFFLINE_REFUSED;
out:
	policy_free(e.policy);
	revocations_free(e.revocations);
	site_free(e.site);
	root_free(e.given_root);
	trust_close(e.trust);
	return rc;
}

int cmd_policy(int argc, char **argv)
{
	struct options o = {0};
	int rc = parse_options(argc, argv, &o);

	if (rc >= 0)
		return rc;
	if (o.file_count == 0)
		return offline_usage(GROUP, "one of check, list, show, put is needed");
	if (strcmp(o.files[0], "check") != 0)
		return offline_usage(GROUP, "%s: one of check, list, show, put is needed",
				     o.files[0]);
	o.files++;
	o.file_count--;
	return check(&o);
}
