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

/* The driver's ledger as an exported file: written to out, or into memory (malloc'd). That stdout
 * took it is for main() to see. */
int audit_write(FILE *out, uint64_t *ret_records, struct error *err);
int audit_fetch(char **ret, size_t *ret_size, struct error *err);

/* "what this proves", for people: one paragraph, no line end. */
extern const char audit_proves[];

/* The ledger in one object: records, first, last, head. */
json_t *audit_ledger_json(const struct history *h);
json_t *audit_findings_json(const struct history *h);
/* Since when a file tells nothing, if that is before the moment; null: it tells of all up to then,
 * as the driver does. */
json_t *audit_not_told_after(const struct history *h, int64_t at, bool of_file);
/* Since when the site's certificate was withdrawn at that moment, by the revocation snapshot in
 * force; null: it was not. */
json_t *audit_withdrawn_from(const struct history *h, const char *site, int64_t at);

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

/* How many chunks a node held by the map, and how many had left it and were not known to be erased:
 * from that moment on. */
struct audit_sample {
	int64_t at;
	uint32_t holder, chunks, waiting;
};

struct audit_holder {
	char node[NAME_SIZE_MAX];
	uint32_t chunks, waiting;
	uint32_t told_chunks, told_waiting; /* in its last sample */
};

struct audit_copies { /* since the volume was made; zeroed at first */
	struct audit_holder *holders;
	uint32_t holder_count;
	struct audit_sample *samples; /* in the order of time */
	size_t count, room;
	bool failed; /* no memory */
};

struct audit_report {
	const char *volume; /* name, or #id */
	int64_t from, to;
	bool of_file; /* not the driver's ledger as it is now */
	struct audit_event *events;
	size_t count, room;
	struct audit_copies copies;
	bool failed; /* no memory */
};

void audit_report_event(const struct history *h, const Pave__V1__LedgerRecord *r, void *report);
/* A page for a person, whole in itself. */
void audit_report_html(FILE *out, const struct audit_report *report, const struct history *h,
		       const struct history_volume *v);
json_t *audit_report_json(const struct audit_report *report, const struct history *h,
			  const struct history_volume *v);
void audit_report_deinit(struct audit_report *report);

/* -- audit_copies.c --------------------------------------------------------------------------- */

/* A record that history has taken in. */
void audit_copies_event(struct audit_copies *c, const struct history_volume *v,
			const Pave__V1__LedgerRecord *r);
/* A row a node: above the line what it held, below what had left it and was still there. */
void audit_copies_svg(FILE *out, const struct audit_copies *c, int64_t from, int64_t to);
json_t *audit_copies_json(const struct audit_copies *c, int64_t from);
void audit_copies_deinit(struct audit_copies *c);

/* -- audit_map.c ------------------------------------------------------------------------------ */

/* A map of France as SVG with the sites of the volume's copies. */
void audit_map_svg(FILE *out, const struct history *h, const struct history_volume *v);
/* Text with the characters that mean something in HTML replaced. */
void audit_html_text(FILE *out, const char *text);

#endif
