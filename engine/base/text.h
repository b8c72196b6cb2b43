/* Text forms of the values that users read and write: sizes (10GiB), times (RFC 3339, UTC), UUIDs,
 * hexadecimal, base64, names. Parsers accept the whole text or nothing, and leave the result
 * untouched on failure. */
#ifndef BASE_TEXT_H
#define BASE_TEXT_H

#include "engine/base/types.h"

/* "512", "64KiB", "10GiB", "1TiB" (also K, M, G, T for the same binary units). -EINVAL, -ERANGE. */
int text_parse_size(const char *text, uint64_t *ret_bytes);

/* The largest binary unit that divides it, as "10GiB"; else with one decimal, as "1.5GiB". */
const char *text_size(uint64_t bytes, char *buf, size_t buf_size);

/* RFC 3339 with "Z" or a numeric offset, fraction allowed, to nanoseconds since the epoch, 1970 to
 * 2262. -EINVAL. */
int text_parse_time(const char *text, int64_t *ret_unix_ns);

/* "2026-11-23T10:00:00Z"; milliseconds are shown when they are not zero. buf: at least 32. */
const char *text_time(int64_t unix_ns, char *buf, size_t buf_size);

int text_parse_uuid(const char *text, struct uuid *ret_uuid);		    /* -EINVAL */
const char *text_uuid(const struct uuid *uuid, char *buf, size_t buf_size); /* buf: at least 37 */
bool uuid_equal(const struct uuid *a, const struct uuid *b);

/* Random, version 4, from getrandom(2). For tools only: engines take randomness from the reactor.
 */
void uuid_generate(struct uuid *ret_uuid);

/* Lower-case hexadecimal; buf: 2 * size + 1. */
const char *text_hex(const void *data, size_t size_bytes, char *buf, size_t buf_size);

/* 1 to NAME_SIZE_MAX - 1 of [a-z0-9._-], beginning with a letter or digit. */
bool text_is_name(const char *text);

#endif
