/* err: the texts of the codes in err.h. */
#include "engine/base/err.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/assert.h"

const char *err_text(int code)
{
	int positive = code < 0 ? -code : code;

	switch (positive) {
	case 0:
		return "success";
#define X(name, number, text)                                                                      \
	case number:                                                                               \
		return text;
		ERR_TABLE(X)
#undef X
	default:
		return strerror(positive);
	}
}

const char *err_name(int code)
{
	int positive = code < 0 ? -code : code;
	const char *name;

	switch (positive) {
	case 0:
		return "OK";
#define X(name_, number, text)                                                                     \
	case number:                                                                               \
		return #name_;
		ERR_TABLE(X)
#undef X
	default:
		name = strerrorname_np(positive);
		return name != NULL ? name : "UNKNOWN";
	}
}

void assert_failed(const char *kind, const char *cond, const char *file, int line)
{
	fprintf(stderr, "%s violated: %s (%s:%d)\n", kind, cond, file, line);
	abort();
}
