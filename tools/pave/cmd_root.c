/* pave root: show, rotate. */
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/text.h"
#include "engine/evidence/dsse.h"
#include "engine/evidence/file.h"
#include "tools/pave/client.h"
#include "tools/pave/cmd.h"

#define DOCUMENTS_MAX 200
#define MESSAGE_MAX   (3u << 20) /* of all envelopes together */

static const struct option no_options[] = {{0}};

/* The payload of an envelope that is a root. NULL: *err. */
static json_t *root_json(const void *data, size_t size, struct error *err)
{
	struct dsse_envelope *e = NULL;
	json_t *json = NULL;
	const void *payload;
	size_t payload_size;

	if (dsse_parse(data, size, &e, err) != 0)
		return NULL;
	payload = dsse_payload(e, &payload_size);
	if (strcmp(dsse_type(e), TYPE_ROOT) == 0)
		json = json_loadb(payload, payload_size, JSON_REJECT_DUPLICATES, NULL);
	if (json == NULL)
		error_set(err, -E_BAD_DOCUMENT, "it is no trust root, but of the type %.80s",
			  dsse_type(e));
	dsse_free(e);
	return json;
}

static const char *text_of(const json_t *o, const char *name)
{
	const char *text = json_string_value(json_object_get(o, name));

	return text != NULL ? text : "?";
}

static void print_root(const json_t *root)
{
	const json_t *roles = json_object_get(root, "roles"), *role, *keyid;
	const char *name;
	size_t i;

	printf("root        version %" JSON_INTEGER_FORMAT " of cluster %s\n",
	       json_integer_value(json_object_get(root, "version")), text_of(root, "cluster"));
	printf("valid       from %s until %s\n", text_of(root, "issued_at"),
	       text_of(root, "not_after"));
	json_object_foreach ((json_t *)(uintptr_t)roles, name, role) {
		const json_t *keys = json_object_get(role, "keys");

		printf("%-11s %" JSON_INTEGER_FORMAT " of", name,
		       json_integer_value(json_object_get(role, "threshold")));
		json_array_foreach (keys, i, keyid)
			printf("%s %s", i > 0 ? "," : "", json_string_value(keyid));
		putchar('\n');
	}
}

int cmd_root_show(int argc, char **argv)
{
	Pave__V1__Control m = PAVE__V1__CONTROL__INIT;
	Pave__V1__RootGet get = PAVE__V1__ROOT_GET__INIT;
	Pave__V1__Control *reply;
	struct error err;
	json_t *json;

	if (getopt_long(argc, argv, "", no_options, NULL) != -1 || optind != argc)
		return cmd_usage_error("it takes nothing");
	m.body_case = PAVE__V1__CONTROL__BODY_ROOT_GET;
	m.root_get = &get;
	if (client_ask(&m, PAVE__V1__CONTROL__BODY_ROOT_REPLY, 0, &reply, &err) != 0)
		return cmd_fail(&err);
	json = root_json(reply->root_reply->envelope.data, reply->root_reply->envelope.len, &err);
	pave__v1__control__free_unpacked(reply, NULL);
	if (json == NULL)
		return cmd_fail(&err);
	if (cli.json)
		return cmd_print_json(json);
	print_root(json);
	json_decref(json);
	return 0;
}

/* -- rotate ----------------------------------------------------------------------------------- */

struct files {
	ProtobufCBinaryData root;
	ProtobufCBinaryData documents[DOCUMENTS_MAX];
	size_t count;
	json_t *root_json;
};

static int read_file(const char *path, ProtobufCBinaryData *ret, struct error *err)
{
	char *data;
	int rc = file_read_whole(path, ENVELOPE_SIZE_MAX, &data, &ret->len, err);

	if (rc == 0)
		ret->data = (uint8_t *)data;
	return rc;
}

static int read_files(int argc, char **argv, struct files *f, struct error *err)
{
	size_t total;
	int rc = read_file(argv[optind], &f->root, err);

	if (rc != 0)
		return rc;
	f->root_json = root_json(f->root.data, f->root.len, err);
	if (f->root_json == NULL)
		return error_wrap(err, "%s", argv[optind]);
	total = f->root.len;
	for (int i = optind + 1; rc == 0 && i < argc; i++) {
		rc = read_file(argv[i], &f->documents[f->count], err);
		if (rc == 0)
			total += f->documents[f->count++].len;
	}
	if (rc == 0 && total > MESSAGE_MAX)
		rc = error_set(err, -E_LIMIT,
			       "the files have %zu bytes together, %u are the most: submit some of "
			       "them afterwards",
			       total, MESSAGE_MAX);
	return rc;
}

/* In a development cluster the other commands find the root in its directory. */
static int keep_root(const struct cluster_ref *cluster, const struct files *f, struct error *err)
{
	if (cluster->root[0] == '\0')
		return 0;
	return file_replace(cluster->root, (const char *)f->root.data, f->root.len, 0644, err);
}

static int submit(const struct cluster_ref *cluster, struct files *f, struct error *err)
{
	Pave__V1__Control m = PAVE__V1__CONTROL__INIT;
	Pave__V1__RootPut put = PAVE__V1__ROOT_PUT__INIT;
	Pave__V1__Control *reply;
	struct client *c = NULL;
	int rc = client_open(cluster, &c, err);

	put.envelope = f->root;
	put.documents = f->documents;
	put.n_documents = f->count;
	m.body_case = PAVE__V1__CONTROL__BODY_ROOT_PUT;
	m.root_put = &put;
	if (rc == 0)
		rc = client_call(c, &m, PAVE__V1__CONTROL__BODY_EMPTY, 0, &reply, err);
	if (rc == 0)
		pave__v1__control__free_unpacked(reply, NULL);
	client_close(c);
	return rc;
}

int cmd_root_rotate(int argc, char **argv)
{
	static struct files f;
	struct cluster_ref cluster;
	struct error err;
	int rc;

	if (getopt_long(argc, argv, "", no_options, NULL) != -1)
		return cmd_usage_error("it has no such option");
	if (optind == argc)
		return cmd_usage_error("FILE is missing");
	if (argc - optind - 1 > DOCUMENTS_MAX)
		return cmd_usage_error("%d documents, at most %d go with a root", argc - optind - 1,
				       DOCUMENTS_MAX);
	rc = read_files(argc, argv, &f, &err);
	if (rc == 0)
		rc = cmd_cluster(&cluster, &err);
	if (rc == 0)
		rc = submit(&cluster, &f, &err);
	if (rc == 0)
		rc = keep_root(&cluster, &f, &err);
	if (rc != 0) {
		rc = cmd_fail(&err);
	} else if (cli.json) {
		rc = cmd_print_json(json_pack("{s:O,s:I}", "version",
					      json_object_get(f.root_json, "version"), "documents",
					      (json_int_t)f.count));
	} else {
		printf("trust root version %" JSON_INTEGER_FORMAT
		       " is in force, with %zu documents; nodes and hosts were told\n",
		       json_integer_value(json_object_get(f.root_json, "version")), f.count);
	}
	json_decref(f.root_json);
	free(f.root.data);
	for (size_t i = 0; i < f.count; i++)
		free(f.documents[i].data);
	return rc;
}
