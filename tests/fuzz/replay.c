/* replay: runs a fuzzer's entry over kept inputs, with any compiler: each regular file that is
 * named, or that lies in a directory that is named. Fails when there was none, so that a corpus
 * that got lost is noticed. */
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "tests/fuzz/fuzz.h"

#define INPUT_SIZE_MAX (16u << 20)

static unsigned long run_count;

static int run_file(const char *path)
{
	FILE *f = fopen(path, "rb");
	uint8_t *data = malloc(INPUT_SIZE_MAX);
	size_t size;
	int rc = -1;

	if (f == NULL || data == NULL) {
		fprintf(stderr, "replay: %s: %s\n", path, strerror(errno));
		goto out;
	}
	size = fread(data, 1, INPUT_SIZE_MAX, f);
	/* Memory of just that size, so that a byte too far is seen. */
	data = realloc(data, size > 0 ? size : 1);
	rc = LLVMFuzzerTestOneInput(data, size);
	run_count++;
out:
	free(data);
	if (f != NULL)
		fclose(f);
	return rc;
}

static int run_path(const char *path)
{
	struct stat st;
	struct dirent *entry;
	DIR *dir;
	int rc = 0;

	if (stat(path, &st) != 0) {
		fprintf(stderr, "replay: %s: %s\n", path, strerror(errno));
		return -1;
	}
	if (!S_ISDIR(st.st_mode))
		return run_file(path);
	dir = opendir(path);
	while (dir != NULL && rc == 0 && (entry = readdir(dir)) != NULL) {
		char file[4096];

		snprintf(file, sizeof(file), "%s/%s", path, entry->d_name);
		if (stat(file, &st) == 0 && S_ISREG(st.st_mode))
			rc = run_file(file);
	}
	if (dir != NULL)
		closedir(dir);
	return rc;
}

int main(int argc, char **argv)
{
	int rc = 0;

	for (int i = 1; i < argc && rc == 0; i++)
		rc = run_path(argv[i]);
	printf("%lu inputs\n", run_count);
	return rc == 0 && run_count > 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
