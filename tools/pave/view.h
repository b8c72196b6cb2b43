/* How the CLI shows what the driver says: JSON with stable names (sizes in bytes, times RFC 3339 or
 * null, durations in the unit of the name), and short texts for tables. */
#ifndef PAVE_VIEW_H
#define PAVE_VIEW_H

#include <jansson.h>

#include "control.pb-c.h"

/* A time, or null for 0 (never, not known). */
json_t *view_time(int64_t unix_ns);
json_t *view_volume(const Pave__V1__VolumeInfo *v);
json_t *view_node(const Pave__V1__NodeInfo *n);
/* {"eligible", "until", "failed": [{"rule", "field", "value", "bound"}]}, as `policy check`. */
json_t *view_failed(Pave__V1__FailedRule *const *list, size_t count);
json_t *view_verdict(const Pave__V1__SiteVerdict *v);
json_t *view_site(const Pave__V1__SiteInfo *s);

/* Seconds are enough for a table; "" for 0. buf: at least 40. */
const char *view_time_text(int64_t unix_ns, char *buf, size_t size);
/* "1.2GiB", one decimal; for what was measured. */
const char *view_size_text(uint64_t bytes, char *buf, size_t size);

/* Tables on stdout; nothing for an empty list but a line that says so. */
void view_volumes(Pave__V1__VolumeInfo *const *list, size_t count);
void view_nodes(Pave__V1__NodeInfo *const *list, size_t count, const char *policy);
void view_sites(Pave__V1__SiteInfo *const *list, size_t count);

#endif
