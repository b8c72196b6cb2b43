/* error: see error.h. Texts that don't fit are cut, never overrun. */
#include "engine/base/error.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "engine/base/assert.h"

int error_set(struct error *err, int code, const char *fmt, ...)
{
	va_list ap;

	PRE(code < 0);
	if (err == NULL)
		return code;
	err->code = code;
	va_start(ap, fmt);
	vsnprintf(err->text, sizeof err->text, fmt, ap);
	va_end(ap);
	return code;
}

int error_wrap(struct error *err, const char *fmt, ...)
{
	char context[400];
	char whole[sizeof err->text];
	va_list ap;

	PRE(err == NULL || err->code < 0);
	if (err == NULL)
		return -E_CORRUPT;
	va_start(ap, fmt);
	vsnprintf(context, sizeof context, fmt, ap);
	va_end(ap);
	snprintf(whole, sizeof whole, "%.399s: %.590s", context, err->text);
	memcpy(err->text, whole, sizeof err->text);
	return err->code;
}
