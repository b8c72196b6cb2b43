/* What every fuzzer defines: libFuzzer's entry, which replay.c calls too. Returns 0. A property
 * that does not hold ends the process with an INVARIANT. */
#ifndef FUZZ_FUZZ_H
#define FUZZ_FUZZ_H

#include <stddef.h>
#include <stdint.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#endif
