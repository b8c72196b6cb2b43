/* schema: see schema.h.
 *
 * Happy path: jansson parses, `critical` is compared with the names in the tables, every member is
 * set to missing and then read if it is there. Failure modes: the first member that is wrong ends
 * the parse, and its text tells the path, the value and the bound; lists that were read until then
 * are released. */
#include "engine/evidence/schema.h"

#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <openssl/evp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/assert.h"
#include "engine/base/text.h"
#include "engine/evidence/documents.h"

#define LABEL_VERSION_DIGITS_MAX 9u
#define LABEL_VERSION_PARTS_MAX	 8u

struct reader {
	const char *what;
	struct error *err;
	char path[PATH_SIZE_MAX];
};

int document_error(struct error *err, const char *what, const char *path, const char *value,
		   const char *why_fmt, ...)
{
	char why[300];
	va_list ap;

	va_start(ap, why_fmt);
	vsnprintf(why, sizeof why, why_fmt, ap);
	va_end(ap);
	/* What is cited may come from anybody: nothing in it may move a terminal's cursor. */
	for (char *p = why; *p != '\0'; p++)
		if ((unsigned char)*p < 0x20 || *p == 0x7f)
			*p = '?';
	return error_set(err, -E_BAD_DOCUMENT,
			 "%s: %s is %.120s: %s; correct it and have the document signed again",
			 what, path, value, why);
}

int document_digest(const void *data, size_t size_bytes, uint8_t ret_digest[32])
{
	return EVP_Digest(data, size_bytes, ret_digest, NULL, EVP_sha256(), NULL) == 1 ? 0
										       : -ENOMEM;
}

/* A short form of the value for an error text, without control characters. */
static const char *value_text(const json_t *json, char *buf, size_t buf_size)
{
	char *dump;

	if (json_is_object(json) || json_is_array(json)) {
		snprintf(buf, buf_size, "%s of %zu", json_is_object(json) ? "an object" : "a list",
			 json_is_object(json) ? json_object_size(json) : json_array_size(json));
		return buf;
	}
	dump = json_dumps(json, JSON_ENCODE_ANY | JSON_ENSURE_ASCII);
	snprintf(buf, buf_size, "%.100s", dump == NULL ? "(unprintable)" : dump);
	free(dump);
	return buf;
}

static int wrong(struct reader *rd, const json_t *json, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
static int wrong(struct reader *rd, const json_t *json, const char *fmt, ...)
{
	char why[300], value[128];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(why, sizeof why, fmt, ap);
	va_end(ap);
	return document_error(rd->err, rd->what, rd->path[0] == '\0' ? "the document" : rd->path,
			      value_text(json, value, sizeof value), "%s", why);
}

/* -- label versions --------------------------------------------------------------------------- */

bool label_version_is_valid(const char *text)
{
	size_t digits = 0, parts = 1;

	for (const char *p = text; *p != '\0'; p++) {
		if (isdigit((unsigned char)*p)) {
			if (++digits > LABEL_VERSION_DIGITS_MAX)
				return false;
		} else if (*p == '.' && digits > 0) {
			digits = 0;
			if (++parts > LABEL_VERSION_PARTS_MAX)
				return false;
		} else {
			return false;
		}
	}
	return digits > 0;
}

int label_version_compare(const char *a, const char *b)
{
	PRE(label_version_is_valid(a) && label_version_is_valid(b));
	while (*a != '\0' || *b != '\0') {
		char *end_a, *end_b;
		unsigned long x = strtoul(a, &end_a, 10);
		unsigned long y = strtoul(b, &end_b, 10);

		if (x != y)
			return x < y ? -1 : 1;
		a = end_a + (*end_a == '.');
		b = end_b + (*end_b == '.');
	}
	return 0;
}

/* -- texts ------------------------------------------------------------------------------------ */

static bool is_date(const char *text)
{
	char whole[32];
	int64_t ns;

	if (strlen(text) != 10)
		return false;
	snprintf(whole, sizeof whole, "%sT00:00:00Z", text);
	return text_parse_time(whole, &ns) == 0;
}

static bool has_control(const char *text, size_t size, bool line_ends)
{
	for (size_t i = 0; i < size; i++) {
		unsigned char c = (unsigned char)text[i];

		if ((c < 0x20 || c == 0x7f) && !(line_ends && (c == '\n' || c == '\r')))
			return true;
	}
	return false;
}

static bool is_choice(const char *const *choices, const char *text)
{
	for (; *choices != NULL; choices++)
		if (strcmp(*choices, text) == 0)
			return true;
	return false;
}

/* NULL: the text is well-formed; else what it should be. */
static const char *text_fault(const struct member *m, const char *text)
{
	switch (m->kind) {
	case MEMBER_NAME:
		return text_is_name(text) ? NULL
					  : "a name has 1 to 63 of a-z 0-9 . _ - and begins with a "
					    "letter or digit";
	case MEMBER_COUNTRY:
		return country_is_known(text) ? NULL
					      : "an assigned ISO 3166-1 alpha-2 code is needed";
	case MEMBER_SUBDIVISION:
		return country_is_known(text) || subdivision_is_known(text)
			   ? NULL
			   : "an ISO 3166-2 code is needed, or the country's code where there is "
			     "none";
	case MEMBER_TERRITORY:
		return territory_is_known(text)
			   ? NULL
			   : "an ISO 3166-1 or 3166-2 code is needed, or one of the "
			     "sets FR-metropolitan, FR, EU, EEA, any";
	case MEMBER_LABEL_VERSION:
		return label_version_is_valid(text) ? NULL
						    : "numbers with dots are needed, as \"3.2\"";
	case MEMBER_DATE:
		return is_date(text) ? NULL : "a date is needed, as \"2026-11-23\"";
	case MEMBER_CHOICE:
		return is_choice(m->choices, text) ? NULL
						   : "it is none of the values that are known";
	default:
		return NULL;
	}
}

static int read_text(struct reader *rd, const struct member *m, const json_t *json,
		     const char **ret)
{
	size_t max = m->kind == MEMBER_PEM ? PEM_SIZE_MAX : TEXT_SIZE_MAX;
	const char *text = json_string_value(json);
	const char *fault;

	if (text == NULL)
		return wrong(rd, json, "a text is needed");
	if (m->max > 0)
		max = (size_t)m->max;
	if (json_string_length(json) > max)
		return wrong(rd, json, "at most %zu bytes are allowed, it has %zu", max,
			     json_string_length(json));
	if (json_string_length(json) < (size_t)m->min)
		return wrong(rd, json, "at least %zu bytes are needed", (size_t)m->min);
	if (has_control(text, json_string_length(json), m->kind == MEMBER_PEM))
		return wrong(rd, json, "control characters are not allowed");
	fault = text_fault(m, text);
	if (fault != NULL)
		return wrong(rd, json, "%s", fault);
	*ret = text;
	return 0;
}

/* Another offset than UTC's would be as clear, but two readers might show it differently. */
static int read_time(struct reader *rd, const json_t *json, int64_t *ret)
{
	const char *text = json_string_value(json);
	size_t len = json_string_length(json);

	if (text == NULL || text_parse_time(text, ret) != 0 ||
	    (toupper((unsigned char)text[len - 1]) != 'Z' && strcmp(text + len - 6, "+00:00") != 0))
		return wrong(rd, json,
			     "a time is needed, RFC 3339 in UTC, 1970 to 2261, as "
			     "\"2026-11-23T10:00:00Z\"");
	return 0;
}

/* -- numbers ---------------------------------------------------------------------------------- */

static int read_integer(struct reader *rd, const struct member *m, const json_t *json, int64_t *ret)
{
	int64_t value = json_integer_value(json);

	if (!json_is_integer(json) || value < m->min || value > m->max)
		return wrong(rd, json, "a whole number from %lld to %lld is needed",
			     (long long)m->min, (long long)m->max);
	*ret = value;
	return 0;
}

static int read_number(struct reader *rd, const struct member *m, const json_t *json, double *ret)
{
	double value = json_number_value(json);

	if (!json_is_number(json) || !(value >= (double)m->min && value <= (double)m->max))
		return wrong(rd, json, "a number from %lld to %lld is needed", (long long)m->min,
			     (long long)m->max);
	*ret = value;
	return 0;
}

static int read_uuid(struct reader *rd, const json_t *json, struct uuid_member *ret)
{
	const char *text = json_string_value(json);

	if (text == NULL || text_parse_uuid(text, &ret->uuid) != 0)
		return wrong(rd, json, "a UUID is needed");
	ret->present = true;
	return 0;
}

static int read_jurisdiction(struct reader *rd, const struct member *m, const json_t *json,
			     struct jurisdiction *ret)
{
	bool in_rule = m->kind == MEMBER_JURISDICTION_RULE;
	const char *text = json_string_value(json);

	if (text == NULL || jurisdiction_parse(text, in_rule, ret) != 0)
		return wrong(rd, json,
			     "an assigned ISO 3166-1 alpha-2 code is needed, or EU or EEA%s",
			     in_rule ? ", or any of these with \"!\" before it, or any" : "");
	return 0;
}

/* -- structure -------------------------------------------------------------------------------- */

static int read_member(struct reader *rd, const struct member *m, const json_t *json, char *base);

static void set_missing(const struct schema *schema, char *base);

static void set_member_missing(const struct member *m, char *place)
{
	switch (m->kind) {
	case MEMBER_TIME:
	case MEMBER_INTEGER:
		*(int64_t *)(void *)place = INTEGER_MISSING;
		break;
	case MEMBER_NUMBER:
		*(double *)(void *)place = (double)NAN;
		break;
	case MEMBER_BOOL:
		*(enum tristate *)(void *)place = UNSTATED;
		break;
	case MEMBER_OBJECT:
		set_missing(m->schema, place);
		break;
	default: /* NULL, false and 0 are what the zeroed struct holds */
		break;
	}
}

static void set_missing(const struct schema *schema, char *base)
{
	for (size_t i = 0; i < schema->member_count; i++)
		set_member_missing(&schema->members[i], base + schema->members[i].offset);
}

/* Puts ".name" or "[i]" behind the path; returns the length to go back to. */
static size_t path_enter(struct reader *rd, const char *name, size_t index)
{
	size_t len = strlen(rd->path);

	if (name != NULL)
		snprintf(rd->path + len, sizeof rd->path - len, "%s%.64s", len == 0 ? "" : ".",
			 name);
	else
		snprintf(rd->path + len, sizeof rd->path - len, "[%zu]", index);
	return len;
}

static int read_object(struct reader *rd, const struct schema *schema, const json_t *json,
		       char *base)
{
	if (!json_is_object(json))
		return wrong(rd, json, "an object is needed");
	for (size_t i = 0; i < schema->member_count; i++) {
		const struct member *m = &schema->members[i];
		const json_t *value = json_object_get(json, m->name);
		size_t len;
		int rc = 0;

		if (value == NULL && !m->required)
			continue;
		len = path_enter(rd, m->name, 0);
		if (value == NULL)
			rc = document_error(rd->err, rd->what, rd->path, "(missing)",
					    "without it nobody can tell what the document is");
		else
			rc = read_member(rd, m, value, base);
		if (rc != 0)
			return rc;
		rd->path[len] = '\0';
	}
	return 0;
}

static int list_alloc(struct reader *rd, const struct member *m, const json_t *json, size_t count,
		      size_t max, struct list *list)
{
	if (count > max)
		return wrong(rd, json, "at most %zu members are allowed", max);
	if (count == 0 && m->not_empty)
		return wrong(rd, json, "it may not be empty");
	list->items = calloc(MAX(count, 1), m->item_size);
	if (list->items == NULL)
		return error_set(rd->err, -ENOMEM, "%s: no memory", rd->what);
	list->present = true;
	return 0;
}

static int read_list(struct reader *rd, const struct member *m, const json_t *json,
		     struct list *list)
{
	const json_t *value;
	size_t i;
	int rc;

	if (!json_is_array(json))
		return wrong(rd, json, "a list is needed");
	rc = list_alloc(rd, m, json, json_array_size(json), LIST_MAX, list);
	if (rc != 0)
		return rc;
	json_array_foreach (json, i, value) {
		char *item = (char *)list->items + i * m->item_size;
		size_t len = path_enter(rd, NULL, i);

		list->count++;
		set_member_missing(m->item, item + m->item->offset);
		rc = read_member(rd, m->item, value, item);
		if (rc != 0)
			return rc;
		rd->path[len] = '\0';
	}
	return 0;
}

static int read_map(struct reader *rd, const struct member *m, const json_t *json,
		    struct list *list)
{
	json_t *object = (json_t *)json; /* jansson's iterators take no const */
	int rc;

	if (!json_is_object(json))
		return wrong(rd, json, "an object is needed");
	rc = list_alloc(rd, m, json, json_object_size(json), DOCUMENT_MAP_MAX, list);
	for (void *it = json_object_iter(object); rc == 0 && it != NULL;
	     it = json_object_iter_next(object, it)) {
		const char *name = json_object_iter_key(it);
		char *item = (char *)list->items + (size_t)list->count * m->item_size;
		size_t len;

		if (strlen(name) == 0 || strlen(name) >= NAME_SIZE_MAX ||
		    has_control(name, strlen(name), false))
			return wrong(rd, json,
				     "the name of a member has 1 to %u bytes and no "
				     "control characters",
				     NAME_SIZE_MAX - 1);
		len = path_enter(rd, name, 0);
		*(const char **)(void *)item = name;
		list->count++;
		set_member_missing(m->item, item + m->item->offset);
		rc = read_member(rd, m->item, json_object_iter_value(it), item);
		if (rc == 0)
			rd->path[len] = '\0';
	}
	return rc;
}

static int read_member(struct reader *rd, const struct member *m, const json_t *json, char *base)
{
	void *place = base + m->offset;

	switch (m->kind) {
	case MEMBER_TIME:
		return read_time(rd, json, place);
	case MEMBER_INTEGER:
		return read_integer(rd, m, json, place);
	case MEMBER_NUMBER:
		return read_number(rd, m, json, place);
	case MEMBER_BOOL:
		if (!json_is_boolean(json))
			return wrong(rd, json, "true or false is needed");
		*(enum tristate *)place = json_is_true(json) ? TRUE : FALSE;
		return 0;
	case MEMBER_UUID:
		return read_uuid(rd, json, place);
	case MEMBER_JURISDICTION:
	case MEMBER_JURISDICTION_RULE:
		return read_jurisdiction(rd, m, json, place);
	case MEMBER_OBJECT:
		return read_object(rd, m->schema, json, place);
	case MEMBER_LIST:
		return read_list(rd, m, json, place);
	case MEMBER_MAP:
		return read_map(rd, m, json, place);
	default:
		return read_text(rd, m, json, place);
	}
}

static void release_member(const struct member *m, char *place)
{
	struct list *list = (struct list *)(void *)place;

	if (m->kind == MEMBER_OBJECT) {
		schema_release(m->schema, place);
	} else if (m->kind == MEMBER_LIST || m->kind == MEMBER_MAP) {
		for (uint32_t i = 0; i < list->count; i++)
			release_member(m->item,
				       (char *)list->items + i * m->item_size + m->item->offset);
		free(list->items);
		*list = (struct list){0};
	}
}

void schema_release(const struct schema *schema, void *structure)
{
	for (size_t i = 0; i < schema->member_count; i++)
		release_member(&schema->members[i], (char *)structure + schema->members[i].offset);
}

static bool schema_knows(const struct schema *schema, const char *name)
{
	for (size_t i = 0; i < schema->member_count; i++) {
		const struct member *m = &schema->members[i];
		const struct schema *inner = m->schema != NULL ? m->schema
					     : m->item != NULL ? m->item->schema
							       : NULL;

		if (strcmp(m->name, name) == 0 || (inner != NULL && schema_knows(inner, name)))
			return true;
	}
	return false;
}

static int check_critical(struct reader *rd, const struct schema *schema, const json_t *json)
{
	const json_t *critical = json_object_get(json, "critical");
	const json_t *name;
	size_t i;

	snprintf(rd->path, sizeof rd->path, "critical");
	if (critical == NULL)
		goto out;
	if (!json_is_array(critical) || json_array_size(critical) > LIST_MAX)
		return wrong(rd, critical, "a list of at most %u names is needed", LIST_MAX);
	json_array_foreach (critical, i, name) {
		snprintf(rd->path, sizeof rd->path, "critical[%zu]", i);
		if (!json_is_string(name))
			return wrong(rd, name, "the name of a member is needed");
		if (strcmp(json_string_value(name), "type") != 0 &&
		    strcmp(json_string_value(name), "critical") != 0 &&
		    !schema_knows(schema, json_string_value(name)))
			return wrong(rd, name,
				     "this version of pave does not know that member, and the "
				     "document says that it must; use a newer pave");
	}
out:
	rd->path[0] = '\0';
	return 0;
}

static int check_type(struct reader *rd, const char *type, const json_t *json)
{
	const json_t *value = json_object_get(json, "type");

	snprintf(rd->path, sizeof rd->path, "type");
	if (value == NULL)
		return document_error(rd->err, rd->what, rd->path, "(missing)", "\"%s\" is needed",
				      type);
	if (!json_is_string(value) || strcmp(json_string_value(value), type) != 0)
		return wrong(rd, value, "\"%s\" is needed", type);
	rd->path[0] = '\0';
	return 0;
}

int schema_parse(const char *what, const char *type, const struct schema *schema, const void *data,
		 size_t size_bytes, void *ret_struct, json_t **ret_json, struct error *err)
{
	struct reader rd = {.what = what, .err = err};
	json_error_t fault;
	json_t *json = NULL;
	int rc;

	if (size_bytes > DOCUMENT_SIZE_MAX)
		return error_set(err, -E_BAD_DOCUMENT,
				 "%s: it has %zu bytes, at most %u are allowed", what, size_bytes,
				 DOCUMENT_SIZE_MAX);
	json = json_loadb(data, size_bytes, JSON_REJECT_DUPLICATES, &fault);
	if (json == NULL)
		return document_error(err, what, "the document", "not well-formed",
				      "line %d, column %d: %s; one JSON object without duplicate "
				      "members is needed",
				      fault.line, fault.column, fault.text);
	set_missing(schema, ret_struct);
	if (!json_is_object(json))
		rc = wrong(&rd, json, "an object is needed");
	else
		rc = check_type(&rd, type, json);
	if (rc == 0)
		rc = check_critical(&rd, schema, json);
	if (rc == 0)
		rc = read_object(&rd, schema, json, ret_struct);
	if (rc != 0) {
		schema_release(schema, ret_struct);
		json_decref(json);
		return rc;
	}
	*ret_json = json;
	return 0;
}
