/* Durations on command lines: "10s", "2500ms", "2m", "14d". */
#ifndef COMMON_DURATION_H
#define COMMON_DURATION_H

#include <stdint.h>

/* The whole text, a whole number and a unit. -EINVAL, -ERANGE. */
int duration_parse_ms(const char *text, uint64_t *ret_ms);

#endif
