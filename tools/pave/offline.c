/* offline: see offline.h. */
#include "tools/pave/offline.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

int offline_usage(const char *group, const char *fmt, ...)
{
	va_list ap;

	fprintf(stderr, "pave %s: ", group);
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fprintf(stderr, "; see pave %s --help\n", group);
	return OFFLINE_USAGE;
}

int offline_failed(const char *group, const struct error *err)
{
	fprintf(stderr, "pave %s: %s\n", group, err->text);
	return OFFLINE_FAILED;
}

int offline_print_json(const char *group, json_t *json)
{
	char *text = json == NULL ? NULL : json_dumps(json, JSON_INDENT(1));

	json_decref(json);
	if (text == NULL) {
		fprintf(stderr, "pave %s: no memory\n", group);
		return OFFLINE_FAILED;
	}
	puts(text);
	free(text);
	return OFFLINE_DONE;
}
