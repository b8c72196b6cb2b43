/* pave policy list, show: what is in force in the driver, if a cluster is given; else the presets
 * as they ship with this program.
 *
 * On stdout there is the document or the table alone; what else there is to say of a document goes
 * to stderr, so that `pave policy show NAME >FILE` gives one to start from. */
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "engine/base/text.h"
#include "engine/evidence/documents.h"
#include "tools/pave/client.h"
#include "tools/pave/cmd.h"

static const struct option no_options[] = {{0}};

/* -- as they ship ----------------------------------------------------------------------------- */

static int list_presets(void)
{
	json_t *names;

	if (!cli.json) {
		for (const char *const *name = policy_preset_names(); *name != NULL; name++)
			puts(*name);
		fputs("These ship with this program; what is in force in a cluster: --cluster, or "
		      "PAVE_CLUSTER.\n",
		      stderr);
		return 0;
	}
	names = json_array();
	for (const char *const *name = policy_preset_names(); *name != NULL; name++)
		json_array_append_new(names, json_string(*name));
	return cmd_print_json(names);
}

static int show_preset(const char *name)
{
	const char *preset = policy_preset(name);
	struct error err;

	if (preset == NULL) {
		error_set(
		    &err, -ENOENT,
		    "%.200s: there is no preset of this name (pave policy list); of what is in "
		    "force in a cluster: --cluster, or PAVE_CLUSTER",
		    name);
		return cmd_fail(&err);
	}
	fprintf(stderr,
		"%s: the preset as it ships with this program; what is in force in a cluster: "
		"--cluster, or PAVE_CLUSTER\n",
		name);
	return cmd_print_json(json_loads(preset, 0, NULL));
}

/* -- in force --------------------------------------------------------------------------------- */

static int ask_policies(const char *policy, Pave__V1__Control **ret)
{
	Pave__V1__Control m = PAVE__V1__CONTROL__INIT;
	Pave__V1__PolicyList list = PAVE__V1__POLICY_LIST__INIT;
	struct error err;
	int rc;

	list.policy = (char *)(uintptr_t)policy;
	m.body_case = PAVE__V1__CONTROL__BODY_POLICY_LIST;
	m.policy_list = &list;
	rc = client_ask(&m, PAVE__V1__CONTROL__BODY_POLICY_LIST_REPLY, 0, ret, &err);
	if (rc == -EOPNOTSUPP)
		error_set(&err, rc,
			  "the placement driver is older than this program and cannot tell its "
			  "policies: update it, or ask without a cluster for the presets");
	return rc == 0 ? 0 : cmd_fail(&err);
}

static const char *digest_text(const Pave__V1__PolicyInfo *p, char *buf, size_t size)
{
	return p->digest.len == 32 ? text_hex(p->digest.data, p->digest.len, buf, size) : "";
}

static const char *signer_text(const Pave__V1__PolicyInfo *p)
{
	return strcmp(p->signed_by, "preset") == 0 ? "nobody (the preset as it ships)"
						   : p->signed_by;
}

static json_t *policy_json(const Pave__V1__PolicyInfo *p)
{
	char digest[2 * 32 + 1];

	return json_pack("{s:s,s:I,s:s,s:s,s:b}", "policy", p->policy, "version",
			 (json_int_t)p->version, "signed_by", p->signed_by, "digest",
			 digest_text(p, digest, sizeof digest), "disputed", (int)p->disputed);
}

static int list_in_force(const Pave__V1__PolicyListReply *r)
{
	static const char *const titles[] = {"POLICY", "VERSION", "SIGNED BY", "DIGEST"};
	json_t *array = json_array();
	char digest[2 * 32 + 1];
	struct table t;

	if (cli.json) {
		for (size_t i = 0; i < r->n_policies; i++)
			json_array_append_new(array, policy_json(r->policies[i]));
		return cmd_print_json(json_pack("{s:o}", "policies", array));
	}
	json_decref(array);
	table_init(&t, ARRAY_SIZE(titles), titles);
	t.right[1] = true;
	for (size_t i = 0; i < r->n_policies; i++) {
		const Pave__V1__PolicyInfo *p = r->policies[i];

		table_add(&t, "%s", p->policy);
		table_add(&t, "%" PRIu64, p->version);
		table_add(&t, "%s%s", signer_text(p),
			  p->disputed ? "; disputed: two contents" : "");
		table_add(&t, "%s", digest_text(p, digest, sizeof digest));
	}
	table_print(&t);
	return 0;
}

static int show_in_force(const Pave__V1__PolicyInfo *p)
{
	json_t *document = json_loadb((const char *)p->document.data, p->document.len, 0, NULL);
	char digest[2 * 32 + 1];
	json_t *o;

	if (document == NULL) {
		fprintf(stderr, "pave policy show: the driver's answer holds no document\n");
		return 1;
	}
	if (cli.json) {
		o = policy_json(p);
		json_object_set_new(o, "document", document);
		return cmd_print_json(o);
	}
	fprintf(stderr,
		"%s: version %" PRIu64 ", in force in the driver; signed by %s; digest %s\n",
		p->policy, p->version, signer_text(p), digest_text(p, digest, sizeof digest));
	if (p->disputed)
		fprintf(stderr,
			"%s: two contents were seen under this version, so that no site is "
			"eligible under it; a higher version ends that (pave policy put)\n",
			p->policy);
	return cmd_print_json(document);
}

/* -- the commands ----------------------------------------------------------------------------- */

int cmd_policy_list(int argc, char **argv)
{
	Pave__V1__Control *reply;
	int rc;

	if (getopt_long(argc, argv, "", no_options, NULL) != -1 || optind != argc)
		return cmd_usage_error("it takes nothing");
	if (cli.cluster == NULL)
		return list_presets();
	rc = ask_policies("", &reply);
	if (rc != 0)
		return rc;
	rc = list_in_force(reply->policy_list_reply);
	pave__v1__control__free_unpacked(reply, NULL);
	return rc;
}

int cmd_policy_show(int argc, char **argv)
{
	Pave__V1__Control *reply;
	const char *name;
	int rc;

	if (getopt_long(argc, argv, "", no_options, NULL) != -1)
		return cmd_usage_error("it has no such option");
	name = cmd_operand(argc, argv, "POLICY");
	if (name == NULL)
		return 2;
	if (cli.cluster == NULL)
		return show_preset(name);
	rc = ask_policies(name, &reply);
	if (rc != 0)
		return rc;
	if (reply->policy_list_reply->n_policies == 1) {
		rc = show_in_force(reply->policy_list_reply->policies[0]);
	} else {
		fprintf(stderr, "pave policy show: the driver's answer names no policy\n");
		rc = 1;
	}
	pave__v1__control__free_unpacked(reply, NULL);
	return rc;
}
