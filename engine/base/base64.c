/* base64: see base64.h. By hand because OpenSSL's decoder skips what it doesn't know and knows one
 * alphabet. */
#include "engine/base/base64.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/assert.h"

static const char alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

char *base64_encode(const void *data, size_t size_bytes)
{
	const uint8_t *in = data;
	size_t groups = (size_bytes + 2) / 3;
	char *text = malloc(groups * 4 + 1);

	if (text == NULL)
		return NULL;
	for (size_t g = 0; g < groups; g++) {
		size_t left = size_bytes - 3 * g;
		uint32_t bits = (uint32_t)in[3 * g] << 16;

		bits |= left > 1 ? (uint32_t)in[3 * g + 1] << 8 : 0;
		bits |= left > 2 ? (uint32_t)in[3 * g + 2] : 0;
		text[4 * g] = alphabet[bits >> 18];
		text[4 * g + 1] = alphabet[bits >> 12 & 63];
		text[4 * g + 2] = left > 1 ? alphabet[bits >> 6 & 63] : '=';
		text[4 * g + 3] = left > 2 ? alphabet[bits & 63] : '=';
	}
	text[groups * 4] = '\0';
	return text;
}

/* -1: not of either alphabet. url_safe is set by the first digit that only one of them has. */
static int digit_value(char c, int *url_safe)
{
	if (c >= 'A' && c <= 'Z')
		return c - 'A';
	if (c >= 'a' && c <= 'z')
		return c - 'a' + 26;
	if (c >= '0' && c <= '9')
		return c - '0' + 52;
	if (c != '+' && c != '/' && c != '-' && c != '_')
		return -1;
	if (*url_safe < 0)
		*url_safe = c == '-' || c == '_';
	if (*url_safe != (c == '-' || c == '_'))
		return -1;
	return c == '+' || c == '-' ? 62 : 63;
}

int base64_decode(const char *text, size_t text_size, uint8_t **ret_data, size_t *ret_size)
{
	size_t digits = text_size, size = 0;
	uint32_t bits = 0;
	unsigned bit_count = 0;
	int url_safe = -1;
	uint8_t *data;

	while (digits > 0 && text_size - digits < 2 && text[digits - 1] == '=')
		digits--;
	if (digits % 4 == 1 || (digits != text_size && text_size % 4 != 0))
		return -EINVAL;
	data = malloc(digits / 4 * 3 + 3);
	if (data == NULL)
		return -ENOMEM;
	for (size_t i = 0; i < digits; i++) {
		int value = digit_value(text[i], &url_safe);

		if (value < 0)
			goto invalid;
		bits = bits << 6 | (uint32_t)value;
		bit_count += 6;
		if (bit_count >= 8) {
			bit_count -= 8;
			data[size++] = (uint8_t)(bits >> bit_count);
			bits &= (1u << bit_count) - 1;
		}
	}
	if (bits != 0)
		goto invalid;
	INVARIANT(size < digits / 4 * 3 + 3);
	data[size] = 0;
	*ret_data = data;
	*ret_size = size;
	return 0;
invalid:
	free(data);
	return -EINVAL;
}
