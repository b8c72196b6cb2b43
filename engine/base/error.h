/* An error with its story, for the control path: the first cause's code is kept, and each layer on
 * the way up may put its context in front. What a user reads names the thing, the value, the bound,
 * and the way out. The data path uses bare codes (err.h). */
#ifndef BASE_ERROR_H
#define BASE_ERROR_H

#include "engine/base/err.h"

struct error {
	int code; /* negative, or 0 for none */
	char text[1000];
};

/* Sets *err (NULL is allowed) and returns code, which must be negative. */
int error_set(struct error *err, int code, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

/* Puts "context: " in front of the text. Keeps the code and returns it. */
int error_wrap(struct error *err, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

#endif
