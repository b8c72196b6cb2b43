/* daemon: see daemon.h. */
#include "tools/common/daemon.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include "engine/base/log.h"
#include "engine/evidence/permit.h"

int daemon_log_level(const char *program, const char *level)
{
	enum log_level parsed;

	if (log_level_parse(level, &parsed) != 0) {
		fprintf(stderr, "%s: log level '%s': choose error, warn, info or debug\n", program,
			level);
		return -EINVAL;
	}
	log_set_level(parsed);
	return 0;
}

void daemon_many_files(void)
{
	struct rlimit files;

	if (getrlimit(RLIMIT_NOFILE, &files) != 0 || files.rlim_cur == files.rlim_max)
		return;
	files.rlim_cur = files.rlim_max;
	setrlimit(RLIMIT_NOFILE, &files);
}

void daemon_ready(const char *where)
{
	printf("ready %s\n", where);
	fflush(stdout);
}

int daemon_exit_code(int status)
{
	switch (status) {
	case 0:
		return 0;
	case -E_DENIED:
	case -E_REVOKED:
	case -E_NOT_IN_PERMIT:
	case -E_STALE_EVIDENCE:
		return 3;
	case -E_UNREACHABLE:
	case -E_DISCONNECTED:
	case -ECONNREFUSED:
	case -ETIMEDOUT:
		return 4;
	default:
		return 1;
	}
}

int daemon_read_file(const char *path, size_t max, char **ret_data, size_t *ret_size,
		     struct error *err)
{
	FILE *f = fopen(path, "rb");
	char *data = NULL;
	size_t size;
	int rc = 0;

	if (f == NULL)
		return error_set(err, -errno, "file %s: %s", path, strerror(errno));
	data = malloc(max + 2);
	if (data == NULL) {
		rc = error_set(err, -ENOMEM, "file %s: no memory", path);
		goto out;
	}
	size = fread(data, 1, max + 1, f);
	if (ferror(f)) {
		rc = error_set(err, -EIO, "file %s: it cannot be read", path);
		goto out;
	}
	if (size > max) {
		rc = error_set(err, -E_LIMIT, "file %s: larger than the bound of %zu bytes", path,
			       max);
		goto out;
	}
	data[size] = '\0';
	*ret_data = data;
	*ret_size = size;
	data = NULL;
out:
	free(data);
	fclose(f);
	return rc;
}

int daemon_open_trust(const char *dir, const char *root_path, struct trust **ret_trust,
		      struct error *err)
{
	char path[4096];
	char *root = NULL;
	size_t root_size = 0;
	int rc;

	if (!GATE_CHECKED)
		log_error("build",
			  "BUILT WITHOUT THE CHECKS OF PERMITS AND LEASES (-Dunchecked_permits): "
			  "residency is not enforced; for measuring only");
	if (mkdir(dir, 0755) != 0 && errno != EEXIST)
		return error_set(err, -errno, "directory %s: %s", dir, strerror(errno));
	if (snprintf(path, sizeof path, "%s/trust.json", dir) >= (int)sizeof path)
		return error_set(err, -ENAMETOOLONG, "directory %s: the name is too long", dir);
	if (root_path != NULL) {
		rc = daemon_read_file(root_path, ENVELOPE_SIZE_MAX, &root, &root_size, err);
		if (rc != 0)
			return rc;
	}
	rc = trust_open(path, root, root_size, ret_trust, err);
	free(root);
	return rc;
}
