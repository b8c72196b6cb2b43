/* What the commands share that talk to no cluster: `pave evidence`, `pave policy`. group is the
 * first word of theirs. */
#ifndef PAVE_OFFLINE_H
#define PAVE_OFFLINE_H

#include <jansson.h>

#include "engine/base/error.h"

enum { OFFLINE_DONE, OFFLINE_FAILED, OFFLINE_USAGE, OFFLINE_REFUSED }; /* exit codes */

/* One line on stderr, and where help is. OFFLINE_USAGE. */
int offline_usage(const char *group, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* The error as one line on stderr. OFFLINE_FAILED. */
int offline_failed(const char *group, const struct error *err);
/* Prints json, which may be NULL for lack of memory, and frees it. OFFLINE_DONE, OFFLINE_FAILED. */
int offline_print_json(const char *group, json_t *json);

#endif
