/* cluster: see cluster.h. cluster.json is written by `pave dev up` (tools/pave/dev_layout.h). */
#include "tools/common/cluster.h"

#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static const char *text_member(const json_t *o, const char *name)
{
	const char *text = json_string_value(json_object_get(o, name));

	return text != NULL ? text : "";
}

static int read_dir(const char *dir, struct cluster_ref *ref, struct error *err)
{
	char path[4200];
	json_error_t je;
	json_t *o;
	int rc = 0;

	if (strlen(dir) >= sizeof ref->dir)
		return error_set(err, -ENAMETOOLONG, "cluster %.80s...: the name is too long", dir);
	snprintf(path, sizeof path, "%s/cluster.json", dir);
	o = json_load_file(path, JSON_REJECT_DUPLICATES, &je);
	if (o == NULL)
		return error_set(err, -E_BAD_DOCUMENT,
				 "cluster %s: cluster.json cannot be read (%s): is it a directory "
				 "that `pave dev up --dir` made?",
				 dir, je.text);
	snprintf(ref->dir, sizeof ref->dir, "%s", dir);
	snprintf(ref->pd, sizeof ref->pd, "%s", text_member(o, "pd"));
	snprintf(ref->site, sizeof ref->site, "%s", text_member(o, "host_site"));
	if (snprintf(ref->root, sizeof ref->root, "%s/%s", dir, text_member(o, "root")) >=
	    (int)sizeof ref->root)
		rc = error_set(err, -ENAMETOOLONG, "cluster %s: the name of the root is too long",
			       dir);
	else if (ref->pd[0] == '\0' || text_member(o, "root")[0] == '\0')
		rc = error_set(err, -E_BAD_DOCUMENT,
			       "cluster %s: cluster.json names no driver or no root", dir);
	json_decref(o);
	return rc;
}

static bool are_addresses(const char *text)
{
	struct drivers d;

	if (strchr(text, '/') != NULL || strlen(text) >= DRIVERS_TEXT_MAX ||
	    drivers_parse(text, &d, NULL) != 0)
		return false;
	for (uint32_t i = 0; i < d.count; i++) {
		const char *colon = strrchr(d.list[i], ':');

		if (colon == NULL || colon[1] == '\0' ||
		    strspn(colon + 1, "0123456789") != strlen(colon + 1))
			return false;
	}
	return true;
}

int cluster_resolve(const char *text, struct cluster_ref *ret_ref, struct error *err)
{
	struct cluster_ref ref = {0};
	struct stat st;
	char *dir;
	int rc = 0;

	if (stat(text, &st) == 0 && S_ISDIR(st.st_mode)) {
		/* Processes are known by it, from wherever they were started. */
		dir = realpath(text, NULL);
		rc = dir == NULL
			 ? error_set(err, -errno, "cluster %.200s: %s", text, err_text(errno))
			 : read_dir(dir, &ref, err);
		free(dir);
	} else if (are_addresses(text)) {
		snprintf(ref.pd, sizeof ref.pd, "%s", text);
	} else {
		rc = error_set(err, -ENOENT,
			       "cluster %.200s: there is no such directory, and it is no HOST:PORT "
			       "(nor several, with commas between); give --cluster or PAVE_CLUSTER "
			       "one of the two",
			       text);
	}
	if (rc == 0)
		*ret_ref = ref;
	return rc;
}
