/* text: see text.h. Written by hand because the C library has no strict, whole-text parser for
 * sizes or RFC 3339 times. */
#include "engine/base/text.h"

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

#include "engine/base/assert.h"

static const char size_units[] = "KMGTP";

int text_parse_size(const char *text, uint64_t *ret_bytes)
{
	char *end;
	const char *unit;
	unsigned long long n;
	unsigned shift = 0;

	if (!isdigit((unsigned char)text[0]))
		return -EINVAL;
	errno = 0;
	n = strtoull(text, &end, 10);
	if (errno != 0)
		return -ERANGE;
	if (*end != '\0' && strcmp(end, "B") != 0) {
		unit = strchr(size_units, *end);
		if (unit == NULL)
			return -EINVAL;
		shift = 10u * (unsigned)(unit - size_units + 1);
		end++;
		if (*end != '\0' && strcmp(end, "iB") != 0)
			return -EINVAL;
	}
	if (shift > 0 && n > (UINT64_MAX >> shift))
		return -ERANGE;
	*ret_bytes = (uint64_t)n << shift;
	return 0;
}

const char *text_size(uint64_t bytes, char *buf, size_t buf_size)
{
	unsigned unit = 0;
	uint64_t whole = bytes;

	while (whole >= 1024 && whole % 1024 == 0 && unit < 5) {
		whole /= 1024;
		unit++;
	}
	if (unit == 0 && bytes >= 1024) {
		while (whole >= 1024 && unit < 5) {
			whole /= 1024;
			unit++;
		}
		snprintf(buf, buf_size, "%.1f%ciB", (double)bytes / (double)(1ull << (10 * unit)),
			 size_units[unit - 1]);
	} else if (unit == 0) {
		snprintf(buf, buf_size, "%" PRIu64 "B", bytes);
	} else {
		snprintf(buf, buf_size, "%" PRIu64 "%ciB", whole, size_units[unit - 1]);
	}
	return buf;
}

static bool digits(const char *p, size_t n, int *ret)
{
	int v = 0;

	for (size_t i = 0; i < n; i++) {
		if (!isdigit((unsigned char)p[i]))
			return false;
		v = v * 10 + (p[i] - '0');
	}
	*ret = v;
	return true;
}

/* Reads ".fraction" if there is one; more than nine digits are cut. */
static const char *parse_fraction(const char *p, int64_t *ret_ns)
{
	int64_t scale = 100000000;

	*ret_ns = 0;
	if (*p != '.')
		return p;
	if (!isdigit((unsigned char)p[1]))
		return NULL;
	for (p++; isdigit((unsigned char)*p); p++) {
		*ret_ns += (*p - '0') * scale;
		scale /= 10;
	}
	return p;
}

static bool parse_offset(const char *p, int *ret_minutes)
{
	int h, m;

	if (strcmp(p, "Z") == 0 || strcmp(p, "z") == 0) {
		*ret_minutes = 0;
		return true;
	}
	if ((*p != '+' && *p != '-') || strlen(p) != 6 || p[3] != ':' || !digits(p + 1, 2, &h) ||
	    !digits(p + 4, 2, &m) || h > 23 || m > 59)
		return false;
	*ret_minutes = (*p == '-' ? -1 : 1) * (h * 60 + m);
	return true;
}

int text_parse_time(const char *text, int64_t *ret_unix_ns)
{
	struct tm tm = {0};
	struct tm back;
	int year, month, offset;
	int64_t ns;
	time_t t;
	const char *p;

	if (strlen(text) < 20 || text[4] != '-' || text[7] != '-' ||
	    (text[10] != 'T' && text[10] != 't') || text[13] != ':' || text[16] != ':')
		return -EINVAL;
	if (!digits(text, 4, &year) || !digits(text + 5, 2, &month) ||
	    !digits(text + 8, 2, &tm.tm_mday) || !digits(text + 11, 2, &tm.tm_hour) ||
	    !digits(text + 14, 2, &tm.tm_min) || !digits(text + 17, 2, &tm.tm_sec))
		return -EINVAL;
	if (year < 1970 || year > 2261 || month < 1 || month > 12 || tm.tm_hour > 23 ||
	    tm.tm_min > 59 || tm.tm_sec > 59)
		return -EINVAL;
	p = parse_fraction(text + 19, &ns);
	if (p == NULL || !parse_offset(p, &offset))
		return -EINVAL;
	tm.tm_year = year - 1900;
	tm.tm_mon = month - 1;
	back = tm;
	t = timegm(&back);
	/* A day that the month does not have was carried over. */
	if (back.tm_mday != tm.tm_mday || back.tm_mon != tm.tm_mon)
		return -EINVAL;
	t -= (time_t)offset * 60;
	*ret_unix_ns = (int64_t)t * (int64_t)NS_PER_S + ns;
	return 0;
}

const char *text_time(int64_t unix_ns, char *buf, size_t buf_size)
{
	time_t t = (time_t)(unix_ns / (int64_t)NS_PER_S);
	long ms = (long)(unix_ns % (int64_t)NS_PER_S / (int64_t)NS_PER_MS);
	struct tm tm;
	size_t len;

	if (unix_ns < 0) {
		snprintf(buf, buf_size, "never");
		return buf;
	}
	gmtime_r(&t, &tm);
	len = strftime(buf, buf_size, "%Y-%m-%dT%H:%M:%S", &tm);
	if (ms != 0)
		len += (size_t)snprintf(buf + len, buf_size - len, ".%03ld", ms);
	snprintf(buf + len, buf_size - len, "Z");
	return buf;
}

static int hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	if (c >= 'A' && c <= 'F')
		return c - 'A' + 10;
	return -1;
}

int text_parse_uuid(const char *text, struct uuid *ret_uuid)
{
	struct uuid u;
	const char *p = text;

	if (strlen(text) != 36)
		return -EINVAL;
	for (size_t i = 0; i < sizeof u.bytes; i++) {
		int hi, lo;

		if (i == 4 || i == 6 || i == 8 || i == 10)
			if (*p++ != '-')
				return -EINVAL;
		hi = hex_digit(p[0]);
		lo = hi < 0 ? -1 : hex_digit(p[1]);
		if (lo < 0)
			return -EINVAL;
		u.bytes[i] = (uint8_t)(hi << 4 | lo);
		p += 2;
	}
	*ret_uuid = u;
	return 0;
}

const char *text_uuid(const struct uuid *uuid, char *buf, size_t buf_size)
{
	size_t len = 0;

	PRE(buf_size >= 37);
	for (size_t i = 0; i < sizeof uuid->bytes; i++)
		len += (size_t)snprintf(buf + len, buf_size - len, "%s%02x",
					i == 4 || i == 6 || i == 8 || i == 10 ? "-" : "",
					uuid->bytes[i]);
	return buf;
}

bool uuid_equal(const struct uuid *a, const struct uuid *b)
{
	return memcmp(a->bytes, b->bytes, sizeof a->bytes) == 0;
}

void uuid_generate(struct uuid *ret_uuid)
{
	ssize_t n = getrandom(ret_uuid->bytes, sizeof ret_uuid->bytes, 0);

	POST(n == (ssize_t)sizeof ret_uuid->bytes);
	ret_uuid->bytes[6] = (uint8_t)((ret_uuid->bytes[6] & 0x0f) | 0x40);
	ret_uuid->bytes[8] = (uint8_t)((ret_uuid->bytes[8] & 0x3f) | 0x80);
}

const char *text_hex(const void *data, size_t size_bytes, char *buf, size_t buf_size)
{
	const uint8_t *p = data;

	PRE(buf_size >= 2 * size_bytes + 1);
	buf[0] = '\0';
	for (size_t i = 0; i < size_bytes; i++)
		snprintf(buf + 2 * i, 3, "%02x", p[i]);
	return buf;
}

bool text_is_name(const char *text)
{
	size_t len = strlen(text);

	if (len == 0 || len >= NAME_SIZE_MAX ||
	    !(islower((unsigned char)text[0]) || isdigit((unsigned char)text[0])))
		return false;
	for (size_t i = 0; i < len; i++) {
		unsigned char c = (unsigned char)text[i];

		if (!islower(c) && !isdigit(c) && c != '.' && c != '_' && c != '-')
			return false;
	}
	return true;
}
