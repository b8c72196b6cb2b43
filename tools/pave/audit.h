/* pave audit: an exported ledger, or the driver's as it is now, replayed (engine/ledger/history.h),
 * and what is shown of it. */
#ifndef PAVE_AUDIT_H
#define PAVE_AUDIT_H

#include <jansson.h>
#include <stdio.h>

#include "engine/ledger/history.h"

#define AUDIT_FILE_MAX (4ull << 30) /* bytes of an exported ledger */

/* What every command of audit takes. */
struct audit_source {
	const char *file; /* NULL: asked from the driver */
	const char *root; /* NULL: of the cluster's directory */
};

/* Replays it. The errors of history_replay, of the file, of the driver. */
int audit_replay(const struct audit_source *source, const struct history_options *options,
		 struct history **ret, struct error *err);

/* The driver's ledger as an exported file: written to out, or into memory (malloc'd). */
int audit_write(FILE *out, uint64_t *ret_records, struct error *err);
int audit_fetch(char **ret, size_t *ret_size, struct error *err);

/* "what this proves", for people: one paragraph, no line end. */
extern const char audit_proves[];

/* The ledger in one object: records, first, last, head. */
json_t *audit_ledger_json(const struct history *h);
json_t *audit_findings_json(const struct history *h);

/* Chunks of the volume that the node holds, as half-open ranges. */
json_t *audit_chunks_json(const struct history_volume *v, const char *node, uint32_t *ret_count);

/* The permits in force at a moment that name the node: the last, or NULL. */
const struct history_permit *audit_permit_at(const struct history_volume *v, const char *node,
					     int64_t at, uint64_t *ret_site_version);

/* -- audit_report.c --------------------------------------------------------------------------- */

/* What happened to a volume in [from, to): collected while replaying. */
struct audit_event {
	int64_t at;
	uint64_t seq;
	char kind[16];
	char text[300];
};

struct audit_report {
	const char *volume; /* name, or #id */
	int64_t from, to;
	struct audit_event *events;
	size_t count, room;
	bool failed; /* no memory */
};

void audit_report_event(const struct history *h, const Pave__V1__LedgerRecord *r, void *report);
/* A page for a person, whole in itself. */
void audit_report_html(FILE *out, const struct audit_report *report, const struct history *h,
		       const struct history_volume *v);
json_t *audit_report_json(const struct audit_report *report, const struct history *h,
			  const struct history_volume *v);
void audit_report_deinit(struct audit_report *report);

/* -- audit_map.c ------------------------------------------------------------------------------ */

/* A map of France as SVG with the sites of the volume's copies. */
void audit_map_svg(FILE *out, const struct history *h, const struct history_volume *v);
/* Text with the characters that mean something in HTML replaced. */
void audit_html_text(FILE *out, const char *text);

#endif
