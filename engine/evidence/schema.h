/* The reader of documents: tables say what the members are, one function walks them. Internal to
 * engine/evidence.
 *
 * A table names each member with its kind, its bounds and its place in a struct. A member that is
 * there must be of its kind and within its bounds; one that is not there leaves its place "missing"
 * (a value of each kind below); one that no table names is ignored, unless `critical` names it.
 *
 * The struct borrows its texts from the json value, which must outlive it. */
#ifndef EVIDENCE_SCHEMA_H
#define EVIDENCE_SCHEMA_H

#include <jansson.h>

#include "engine/base/error.h"
#include "engine/base/types.h"
#include "engine/evidence/places.h"

#define TEXT_SIZE_MAX	 512u		    /* bytes of any text in a document */
#define PEM_SIZE_MAX	 2048u		    /* bytes of a public key */
#define PATH_SIZE_MAX	 96u		    /* "ownership.holders[255].jurisdiction" and the like */
#define VERSION_MAX	 ((int64_t)1 << 53) /* what every JSON implementation can carry */
#define SHARES_MAX_PPM	 1000000
#define DOCUMENT_MAP_MAX 4096u /* members of a map, such as a snapshot's sites */

#define TIME_MISSING	INT64_MIN
#define INTEGER_MISSING INT64_MIN

/* The kind of a member, the C type at its place, and how "missing" looks there. */
enum member_kind {
	MEMBER_TEXT,		  /* const char *, NULL; min..max bytes */
	MEMBER_PEM,		  /* const char *, NULL; the only text with line ends */
	MEMBER_NAME,		  /* const char *, NULL; as text_is_name */
	MEMBER_CHOICE,		  /* const char *, NULL; one of choices */
	MEMBER_COUNTRY,		  /* const char *, NULL */
	MEMBER_SUBDIVISION,	  /* const char *, NULL; a country's code too */
	MEMBER_TERRITORY,	  /* const char *, NULL; of a policy */
	MEMBER_LABEL_VERSION,	  /* const char *, NULL; "3.2" */
	MEMBER_DATE,		  /* const char *, NULL; "2026-11-23" */
	MEMBER_TIME,		  /* int64_t, TIME_MISSING */
	MEMBER_INTEGER,		  /* int64_t, INTEGER_MISSING; min..max */
	MEMBER_NUMBER,		  /* double, NAN; min..max */
	MEMBER_BOOL,		  /* enum tristate, UNSTATED */
	MEMBER_UUID,		  /* struct uuid_member */
	MEMBER_JURISDICTION,	  /* struct jurisdiction, .text NULL; of a site */
	MEMBER_JURISDICTION_RULE, /* the same; of a policy */
	MEMBER_OBJECT,		  /* the members of schema, at the place */
	MEMBER_LIST,		  /* struct list of item_size each, read as item says */
	MEMBER_MAP, /* the same from an object: each begins with const char *, its name */
};

enum tristate { UNSTATED = -1, FALSE = 0, TRUE = 1 };

struct uuid_member {
	struct uuid uuid;
	bool present;
};

struct list {
	void *items; /* malloc'd */
	uint32_t count;
	bool present;
};

struct schema;

struct member {
	const char *name;
	enum member_kind kind;
	size_t offset;
	int64_t min, max;
	const char *const *choices;  /* NULL at the end */
	const struct schema *schema; /* of an object */
	const struct member *item;   /* of a list or map; offset is within the item */
	size_t item_size;
	bool required; /* without it the document cannot even be told from another */
	bool not_empty;
};

struct schema {
	const struct member *members;
	size_t member_count;
};

#define LIST_AT(list, type, i) (&((type const *)(list)->items)[i])

/* Parses size_bytes of JSON strictly (duplicate members, trailing bytes and NULs are refused),
 * checks `type` and `critical`, and reads the members. what: for texts, as "site certificate". On
 * failure *ret_json is untouched and nothing is kept. On success the caller owns *ret_json and
 * frees the lists with schema_release, then the json. -E_BAD_DOCUMENT, -ENOMEM. */
int schema_parse(const char *what, const char *type, const struct schema *schema, const void *data,
		 size_t size_bytes, void *ret_struct, json_t **ret_json, struct error *err);

void schema_release(const struct schema *schema, void *structure);

/* "3.10" against "3.2", by number; a part that isn't there counts as 0. <0, 0, >0. Both must be
 * well-formed. */
int label_version_compare(const char *a, const char *b);
bool label_version_is_valid(const char *text);

/* Sets err to "WHAT: PATH is VALUE: WHY; correct it and have the document signed again". */
int document_error(struct error *err, const char *what, const char *path, const char *value,
		   const char *why_fmt, ...) __attribute__((format(printf, 5, 6)));

/* SHA-256. -ENOMEM. */
int document_digest(const void *data, size_t size_bytes, uint8_t ret_digest[32]);

#endif
