/* file: see file.h. */
#include "engine/evidence/file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define READ_STEP (64u << 10)

static int fault(struct error *err, const char *path, const char *doing, int error_number)
{
	return error_set(err, -error_number, "%s: %s: %s", path, doing, err_text(error_number));
}

static ssize_t read_some(int fd, char *data, size_t size)
{
	ssize_t n;

	do
		n = read(fd, data, size);
	while (n < 0 && errno == EINTR);
	return n;
}

int file_read_whole(const char *path, size_t max_bytes, char **ret_data, size_t *ret_size,
		    struct error *err)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
	size_t size = 0, room = 0;
	char *data = NULL;
	int rc = 0;

	if (fd < 0)
		return fault(err, path, "it cannot be opened", errno);
	for (;;) {
		ssize_t n;

		if (size + 1 >= room) {
			char *more = realloc(data, room + READ_STEP);

			if (more == NULL) {
				rc = fault(err, path, "reading", ENOMEM);
				goto out;
			}
			data = more;
			room += READ_STEP;
		}
		n = read_some(fd, data + size, room - size - 1);
		if (n < 0) {
			rc = fault(err, path, "it cannot be read", errno);
			goto out;
		}
		size += (size_t)n;
		if (size > max_bytes) {
			rc = error_set(err, -EFBIG, "%s: it has more than %zu bytes", path,
				       max_bytes);
			goto out;
		}
		if (n == 0)
			break;
	}
	data[size] = '\0';
	*ret_data = data;
	*ret_size = size;
	data = NULL;
out:
	free(data);
	close(fd);
	return rc;
}

static int write_synced(const char *path, const char *data, size_t size, int flags, mode_t mode,
			struct error *err)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW | flags, mode);
	int rc = 0;

	if (fd < 0)
		return fault(err, path, "it cannot be created", errno);
	while (size > 0 && rc == 0) {
		ssize_t n = write(fd, data, size);

		if (n < 0 && errno != EINTR)
			rc = fault(err, path, "it cannot be written", errno);
		if (n > 0) {
			data += n;
			size -= (size_t)n;
		}
	}
	if (rc == 0 && fsync(fd) != 0)
		rc = fault(err, path, "it cannot be synced", errno);
	if (close(fd) != 0 && rc == 0)
		rc = fault(err, path, "it cannot be closed", errno);
	if (rc != 0)
		unlink(path);
	return rc;
}

/* The name in the directory is durable only once the directory is. */
static int sync_directory(const char *path, struct error *err)
{
	const char *slash = strrchr(path, '/');
	char *directory = slash == NULL	  ? strdup(".")
			  : slash == path ? strdup("/")
					  : strndup(path, (size_t)(slash - path));
	int fd, rc = 0;

	if (directory == NULL)
		return fault(err, path, "syncing", ENOMEM);
	fd = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0 || fsync(fd) != 0)
		rc = fault(err, directory, "the directory cannot be synced", errno);
	if (fd >= 0)
		close(fd);
	free(directory);
	return rc;
}

int file_may_replace(const char *path, struct error *err)
{
	struct stat st;

	if (stat(path, &st) != 0 || S_ISREG(st.st_mode))
		return 0;
	return error_set(err, -EINVAL,
			 "%s: it is no regular file, and would be lost; give another name", path);
}

int file_replace(const char *path, const void *data, size_t size_bytes, mode_t mode,
		 struct error *err)
{
	char *temporary = NULL;
	int rc = file_may_replace(path, err);

	if (rc != 0)
		return rc;
	if (asprintf(&temporary, "%s.new", path) < 0)
		return fault(err, path, "writing", ENOMEM);
	rc = write_synced(temporary, data, size_bytes, O_TRUNC, mode, err);
	if (rc == 0 && rename(temporary, path) != 0) {
		rc = fault(err, path, "it cannot be replaced", errno);
		unlink(temporary);
	}
	if (rc == 0)
		rc = sync_directory(path, err);
	free(temporary);
	return rc;
}

int file_create(const char *path, const void *data, size_t size_bytes, mode_t mode,
		struct error *err)
{
	int rc = write_synced(path, data, size_bytes, O_EXCL, mode, err);

	return rc != 0 ? rc : sync_directory(path, err);
}
