/* pave site: add, list, show, revoke, refresh; pave policy put. */
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/text.h"
#include "engine/evidence/dsse.h"
#include "engine/evidence/file.h"
#include "tools/common/duration.h"
#include "tools/pave/client.h"
#include "tools/pave/cmd.h"
#include "tools/pave/snapshot.h"
#include "tools/pave/view.h"

static const struct option no_options[] = {{0}};

/* -- submitting documents --------------------------------------------------------------------- */

static const char *only_operand(int argc, char **argv, const char *what)
{
	if (getopt_long(argc, argv, "", no_options, NULL) != -1) {
		cmd_usage_error("it has no such option");
		return NULL;
	}
	return cmd_operand(argc, argv, what);
}

/* Reads an envelope and makes sure that it is of the type, before anybody is asked. */
static int read_envelope(const char *path, const char *type, char **ret_data, size_t *ret_size,
			 struct dsse_envelope **ret, struct error *err)
{
	int rc = file_read_whole(path, ENVELOPE_SIZE_MAX, ret_data, ret_size, err);

	if (rc != 0)
		return rc;
	rc = dsse_parse(*ret_data, *ret_size, ret, err);
	if (rc == 0 && strcmp(dsse_type(*ret), type) != 0) {
		rc = error_set(err, -E_BAD_DOCUMENT, "it is of the type %.80s, not %s",
			       dsse_type(*ret), type);
		dsse_free(*ret);
	}
	if (rc != 0) {
		error_wrap(err, "%s", path);
		free(*ret_data);
	}
	return rc;
}

static int submitted(const char *path, const char *what)
{
	if (cli.json)
		return cmd_print_json(json_pack("{s:s}", "submitted", path));
	printf("%s: the driver has taken the %s in\n", path, what);
	return 0;
}

int cmd_site_add(int argc, char **argv)
{
	const char *path = only_operand(argc, argv, "FILE");
	Pave__V1__Control m = PAVE__V1__CONTROL__INIT;
	Pave__V1__SiteAdd add = PAVE__V1__SITE_ADD__INIT;
	Pave__V1__Control *reply;
	struct dsse_envelope *e;
	struct site_document *site = NULL;
	struct error err;
	const void *payload;
	size_t size, payload_size;
	char *data;
	int rc;

	if (path == NULL)
		return 2;
	if (read_envelope(path, TYPE_SITE, &data, &size, &e, &err) != 0)
		return cmd_fail(&err);
	payload = dsse_payload(e, &payload_size);
	/* The driver verifies it; here the parse is for a readable message only. */
	rc = site_parse(payload, payload_size, &site, &err);
	dsse_free(e);
	if (rc != 0) {
		error_wrap(&err, "%s", path);
		free(data);
		return cmd_fail(&err);
	}
	add.envelope.data = (uint8_t *)data;
	add.envelope.len = size;
	m.body_case = PAVE__V1__CONTROL__BODY_SITE_ADD;
	m.site_add = &add;
	rc = client_ask(&m, PAVE__V1__CONTROL__BODY_EMPTY, 0, &reply, &err);
	free(data);
	if (rc != 0) {
		site_free(site);
		return cmd_fail(&err);
	}
	pave__v1__control__free_unpacked(reply, NULL);
	if (cli.json)
		rc = cmd_print_json(json_pack("{s:s,s:I}", "site", site_name(site), "version",
					      (json_int_t)site_version(site)));
	else
		printf("site %s: the driver has taken certificate version %" PRIu64
		       " in; it counts once the revocation snapshot lists that version\n",
		       site_name(site), site_version(site));
	site_free(site);
	return rc;
}

int cmd_policy_put(int argc, char **argv)
{
	const char *path = only_operand(argc, argv, "FILE");
	Pave__V1__Control m = PAVE__V1__CONTROL__INIT;
	Pave__V1__PolicyPut put = PAVE__V1__POLICY_PUT__INIT;
	Pave__V1__Control *reply;
	struct dsse_envelope *e;
	struct error err;
	size_t size;
	char *data;
	int rc;

	if (path == NULL)
		return 2;
	if (read_envelope(path, TYPE_POLICY, &data, &size, &e, &err) != 0)
		return cmd_fail(&err);
	dsse_free(e);
	put.envelope.data = (uint8_t *)data;
	put.envelope.len = size;
	m.body_case = PAVE__V1__CONTROL__BODY_POLICY_PUT;
	m.policy_put = &put;
	rc = client_ask(&m, PAVE__V1__CONTROL__BODY_EMPTY, 0, &reply, &err);
	free(data);
	if (rc != 0)
		return cmd_fail(&err);
	pave__v1__control__free_unpacked(reply, NULL);
	return submitted(path, "policy");
}

/* -- list, show ------------------------------------------------------------------------------- */

static int ask_sites(const char *site, Pave__V1__Control **ret)
{
	Pave__V1__Control m = PAVE__V1__CONTROL__INIT;
	Pave__V1__SiteList list = PAVE__V1__SITE_LIST__INIT;
	struct error err;

	list.site = (char *)(uintptr_t)site;
	m.body_case = PAVE__V1__CONTROL__BODY_SITE_LIST;
	m.site_list = &list;
	if (client_ask(&m, PAVE__V1__CONTROL__BODY_SITE_LIST_REPLY, 0, ret, &err) != 0)
		return cmd_fail(&err);
	return 0;
}

int cmd_site_list(int argc, char **argv)
{
	Pave__V1__Control *reply;
	const Pave__V1__SiteListReply *r;
	int rc;

	if (getopt_long(argc, argv, "", no_options, NULL) != -1 || optind != argc)
		return cmd_usage_error("it takes nothing");
	rc = ask_sites("", &reply);
	if (rc != 0)
		return rc;
	r = reply->site_list_reply;
	if (cli.json) {
		json_t *array = json_array();

		for (size_t i = 0; i < r->n_sites; i++)
			json_array_append_new(array, view_site(r->sites[i]));
		rc = cmd_print_json(json_pack("{s:o}", "sites", array));
	} else {
		view_sites(r->sites, r->n_sites);
	}
	pave__v1__control__free_unpacked(reply, NULL);
	return rc;
}

static void print_site(const Pave__V1__SiteInfo *s)
{
	char a[40], b[40];

	printf("site        %s, certificate version %" PRIu64 "\n", s->site, s->version);
	printf("where       campus %s, %s\n", s->campus, s->territory);
	printf("operator    %s\n", s->operator_name);
	printf("valid       %s to %s\n", view_time_text(s->not_before, a, sizeof a),
	       view_time_text(s->not_after, b, sizeof b));
	if (s->revoked || s->revoked_from != 0)
		printf("revoked     from %s%s%s%s\n", view_time_text(s->revoked_from, a, sizeof a),
		       s->revoked ? "" : " on, not yet", s->reason[0] != '\0' ? ": " : "",
		       s->reason);
	for (size_t i = 0; i < s->n_verdicts; i++) {
		const Pave__V1__SiteVerdict *v = s->verdicts[i]->verdict;

		if (v == NULL)
			continue;
		if (v->eligible)
			printf("\nunder %s: eligible until %s (%s of %s)\n", s->verdicts[i]->policy,
			       view_time_text(v->until, a, sizeof a), v->until_field,
			       v->until_source);
		else
			printf("\nunder %s: not eligible\n", s->verdicts[i]->policy);
		for (size_t j = 0; j < v->n_failed; j++)
			printf("  fails %s: %s is %s, the bound is %s (%s)\n", v->failed[j]->rule,
			       v->failed[j]->field, v->failed[j]->value, v->failed[j]->bound,
			       v->failed[j]->source);
	}
}

static json_t *with_certificate(json_t *o, const Pave__V1__SiteInfo *s)
{
	struct dsse_envelope *e;
	const void *payload;
	size_t size;

	if (s->envelope.len == 0 || dsse_parse(s->envelope.data, s->envelope.len, &e, NULL) != 0)
		return o;
	payload = dsse_payload(e, &size);
	json_object_set_new(o, "certificate", json_loadb(payload, size, 0, NULL));
	dsse_free(e);
	return o;
}

int cmd_site_show(int argc, char **argv)
{
	const char *name = only_operand(argc, argv, "SITE");
	Pave__V1__Control *reply;
	const Pave__V1__SiteInfo *s;
	int rc;

	if (name == NULL)
		return 2;
	rc = ask_sites(name, &reply);
	if (rc != 0)
		return rc;
	if (reply->site_list_reply->n_sites != 1) {
		pave__v1__control__free_unpacked(reply, NULL);
		fprintf(stderr, "pave site show: the driver's answer names no site\n");
		return 1;
	}
	s = reply->site_list_reply->sites[0];
	if (cli.json)
		rc = cmd_print_json(with_certificate(view_site(s), s));
	else
		print_site(s);
	pave__v1__control__free_unpacked(reply, NULL);
	return rc;
}

/* -- revoke, refresh -------------------------------------------------------------------------- */

struct change_options {
	struct snapshot_signers signers;
	struct revocations_change change;
	char site[NAME_SIZE_MAX];
};

static int take_site_version(struct change_options *o, const char *text)
{
	const char *equals = strchr(text, '=');
	char *end;

	if (equals == NULL || equals - text >= NAME_SIZE_MAX)
		return cmd_usage_error("--site %s: SITE=VERSION is wanted", text);
	if (o->change.site != NULL)
		return cmd_usage_error("--site %s: one site in each snapshot, and it was %s "
				       "already: give the command once for each",
				       text, o->site);
	memcpy(o->site, text, (size_t)(equals - text));
	o->site[equals - text] = '\0';
	errno = 0;
	o->change.site_version = strtoull(equals + 1, &end, 10);
	if (!text_is_name(o->site) || *end != '\0' || errno != 0 || o->change.site_version == 0)
		return cmd_usage_error("--site %s: SITE=VERSION is wanted", text);
	o->change.site = o->site;
	return 0;
}

static int take_change_option(struct change_options *o, int c)
{
	struct error err;

	switch (c) {
	case 'e':
		if (text_parse_time(optarg, &o->change.effective_from) != 0)
			return cmd_usage_error("--effective-from %s: a time is wanted, as "
					       "2026-11-23T10:00:00Z",
					       optarg);
		return 0;
	case 'r':
		o->change.reason = optarg;
		return 0;
	case 'v':
		if (duration_parse_ms(optarg, &o->signers.valid_for_ms) != 0 ||
		    o->signers.valid_for_ms < 1000 ||
		    o->signers.valid_for_ms > 400ull * 24 * 3600 * 1000)
			return cmd_usage_error("--valid-for %s: as 24h, 1s to 400 days", optarg);
		return 0;
	case 'k':
		return snapshot_signers_add(&o->signers, optarg, &err) == 0 ? 0 : cmd_fail(&err);
	case 'R':
		snprintf(o->signers.root_path, sizeof o->signers.root_path, "%s", optarg);
		return 0;
	case 's':
		return take_site_version(o, optarg);
	default:
		return cmd_usage_error("an option is not understood");
	}
}

/* A snapshot that lists a version which nobody has makes the site ineligible at once. */
static int check_version(struct client *c, const struct revocations_change *change,
			 struct error *err)
{
	Pave__V1__Control m = PAVE__V1__CONTROL__INIT;
	Pave__V1__SiteList list = PAVE__V1__SITE_LIST__INIT;
	Pave__V1__Control *reply;
	uint64_t version = 0;
	int rc;

	list.site = (char *)(uintptr_t)change->site;
	m.body_case = PAVE__V1__CONTROL__BODY_SITE_LIST;
	m.site_list = &list;
	rc = client_call(c, &m, PAVE__V1__CONTROL__BODY_SITE_LIST_REPLY, 0, &reply, err);
	if (rc == -ENOENT)
		return error_set(err, rc,
				 "--site %s=%" PRIu64 ": the driver has no certificate of that "
				 "site: pave site add comes first",
				 change->site, change->site_version);
	if (rc != 0)
		return rc;
	if (reply->site_list_reply->n_sites == 1)
		version = reply->site_list_reply->sites[0]->version;
	pave__v1__control__free_unpacked(reply, NULL);
	if (version == change->site_version)
		return 0;
	return error_set(err, -EINVAL,
			 "--site %s=%" PRIu64 ": the driver has version %" PRIu64
			 " of its certificate; give that one, or another certificate first (pave "
			 "site add)",
			 change->site, change->site_version, version);
}

static int run_change(struct change_options *o)
{
	struct cluster_ref cluster;
	struct client *c = NULL;
	struct error err;
	int rc = cmd_cluster(&cluster, &err);

	if (rc == 0)
		rc = snapshot_signers_complete(&o->signers, &cluster, &err);
	if (rc == 0)
		rc = client_open(&cluster, &c, &err);
	if (rc == 0 && o->change.site != NULL && !o->change.withdraw)
		rc = check_version(c, &o->change, &err);
	if (rc == 0)
		rc = snapshot_change(c, &cluster, &o->signers, &o->change, &err);
	client_close(c);
	return rc == 0 ? 0 : cmd_fail(&err);
}

static int print_change(const struct change_options *o, const char *what)
{
	const bool earlier = o->signers.result_from < o->change.effective_from;
	char until[40], from[40], asked[40];

	if (cli.json)
		return cmd_print_json(json_pack(
		    "{s:s?,s:I,s:o,s:o}", "site", o->change.site, "revocations_version",
		    (json_int_t)o->signers.result_version, "revocations_until",
		    view_time(o->signers.result_not_after), "effective_from",
		    o->change.withdraw ? view_time(o->signers.result_from) : json_null()));
	text_time(o->signers.result_from, from, sizeof from);
	if (o->change.withdraw && earlier)
		printf("site %s is revoked from %s on: it was withdrawn from then on already, and "
		       "that counts, not %s; ",
		       o->change.site, from,
		       text_time(o->change.effective_from, asked, sizeof asked));
	else if (o->change.withdraw)
		printf("site %s is revoked from %s on; ", o->change.site, from);
	printf("snapshot version %" PRIu64 ", until %s, is in force: %s\n",
	       o->signers.result_version,
	       view_time_text(o->signers.result_not_after, until, sizeof until), what);
	return 0;
}

int cmd_site_revoke(int argc, char **argv)
{
	static const struct option options[] = {{"effective-from", required_argument, NULL, 'e'},
						{"reason", required_argument, NULL, 'r'},
						{"valid-for", required_argument, NULL, 'v'},
						{"key", required_argument, NULL, 'k'},
						{"root", required_argument, NULL, 'R'},
						{0}};
	struct change_options o = {.change = {.withdraw = true}};
	int c, rc = 0;

	while (rc == 0 && (c = getopt_long(argc, argv, "", options, NULL)) != -1)
		rc = take_change_option(&o, c);
	if (rc == 0) {
		o.change.site = cmd_operand(argc, argv, "SITE");
		rc = o.change.site == NULL ? 2 : 0;
	}
	if (rc == 0 && o.change.effective_from == 0)
		o.change.effective_from = snapshot_now();
	if (rc == 0)
		rc = run_change(&o);
	if (rc == 0)
		rc = print_change(&o, "every node and host was told");
	snapshot_signers_deinit(&o.signers);
	return rc;
}

int cmd_site_refresh(int argc, char **argv)
{
	static const struct option options[] = {{"site", required_argument, NULL, 's'},
						{"valid-for", required_argument, NULL, 'v'},
						{"key", required_argument, NULL, 'k'},
						{"root", required_argument, NULL, 'R'},
						{0}};
	struct change_options o = {0};
	int c, rc = 0;

	while (rc == 0 && (c = getopt_long(argc, argv, "", options, NULL)) != -1)
		rc = take_change_option(&o, c);
	if (rc == 0 && optind != argc)
		rc = cmd_usage_error("it takes no operand");
	if (rc == 0)
		rc = run_change(&o);
	if (rc == 0)
		rc = print_change(&o, "every node and host was told");
	snapshot_signers_deinit(&o.signers);
	return rc;
}
