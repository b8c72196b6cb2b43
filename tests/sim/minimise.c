/* minimise: see minimise.h. */
#include "tests/sim/minimise.h"

#include <string.h>

#include "engine/base/types.h"

/* Leaves out the next `size` faults from *at on that are still in. False: there are none. */
static bool leave_out(bool *left_out, uint32_t fault_count, uint32_t *at, uint32_t size)
{
	uint32_t n = 0;

	for (; *at < fault_count && n < size; (*at)++) {
		if (left_out[*at])
			continue;
		left_out[*at] = true;
		n++;
	}
	return n > 0;
}

uint32_t minimise(uint32_t fault_count, minimise_run_fn *run, void *arg, bool *left_out)
{
	bool before[4096];
	uint32_t runs = 0, left = 0;

	fault_count = MIN(fault_count, (uint32_t)ARRAY_SIZE(before));
	for (uint32_t size = (fault_count + 1) / 2; size > 0; size /= 2) {
		uint32_t at = 0;

		while (runs < MINIMISE_RUNS_MAX) {
			memcpy(before, left_out, sizeof(before));
			if (!leave_out(left_out, fault_count, &at, size))
				break;
			runs++;
			if (!run(left_out, arg))
				memcpy(left_out, before, sizeof(before));
		}
	}
	for (uint32_t i = 0; i < fault_count; i++)
		left += !left_out[i];
	return left;
}
