/* What the three daemons do alike at start-up. */
#ifndef COMMON_DAEMON_H
#define COMMON_DAEMON_H

#include "engine/base/error.h"
#include "engine/evidence/trust.h"

/* Sets the log's level; -EINVAL after a line on stderr that tells the choices. */
int daemon_log_level(const char *program, const char *level);

/* As many open files as the system lets it have: each connection is one. */
void daemon_many_files(void);

/* Tells whoever started this process that it serves: "ready WHERE" on stdout, then stdout is not
 * used again. */
void daemon_ready(const char *where);

/* 0 done, 1 failed, 3 refused by policy, 4 unreachable. */
int daemon_exit_code(int status);

/* A whole file, malloc'd and NUL-terminated. -E_LIMIT over max bytes, or the errno; the text names
 * the path. */
int daemon_read_file(const char *path, size_t max, char **ret_data, size_t *ret_size,
		     struct error *err);

/* Makes dir if it is not there, and opens the trust state DIR/trust.json with the root in root_path
 * (NULL: the one that the state holds). */
int daemon_open_trust(const char *dir, const char *root_path, struct trust **ret_trust,
		      struct error *err);

#endif
