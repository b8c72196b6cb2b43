/* Small files read and replaced as a whole, for evidence, keys and the trust state. They block. */
#ifndef EVIDENCE_FILE_H
#define EVIDENCE_FILE_H

#include <sys/types.h>

#include "engine/base/error.h"
#include "engine/base/types.h"

/* malloc'd, with a NUL behind it that isn't counted. More than max_bytes is -EFBIG. A negative
 * errno; the text names the path. */
int file_read_whole(const char *path, size_t max_bytes, char **ret_data, size_t *ret_size,
		    struct error *err);

/* -EINVAL when something lies there that is no regular file (a device, a directory): renaming over
 * it would destroy it, or fail. */
int file_may_replace(const char *path, struct error *err);

/* Replaces path in one step: after a crash it holds the old bytes or the new ones, and once this
 * returned 0 the new ones. "PATH.new" is used on the way.
 * What is no regular file is not replaced (file_may_replace). */
int file_replace(const char *path, const void *data, size_t size_bytes, mode_t mode,
		 struct error *err);

/* Creates path, synced; -EEXIST when there is something of this name. The directory is synced too.
 */
int file_create(const char *path, const void *data, size_t size_bytes, mode_t mode,
		struct error *err);

#endif
