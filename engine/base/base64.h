/* Base64 (RFC 4648): the standard alphabet and the URL-safe one are read, with or without padding,
 * the standard one is written. Strict: no other byte, one alphabet in one text, no bits left over.
 */
#ifndef BASE_BASE64_H
#define BASE_BASE64_H

#include <stddef.h>
#include <stdint.h>

/* malloc'd, NUL-terminated; NULL without memory. */
char *base64_encode(const void *data, size_t size_bytes);

/* malloc'd, with a NUL behind it that isn't counted. -EINVAL, -ENOMEM. */
int base64_decode(const char *text, size_t text_size, uint8_t **ret_data, size_t *ret_size);

#endif
