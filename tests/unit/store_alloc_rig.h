/* Opening what lies on the rig's disks, with one allocation after the other failing. */
#ifndef UNIT_STORE_ALLOC_RIG_H
#define UNIT_STORE_ALLOC_RIG_H

#include <errno.h>
#include <string.h>

#include "alloc_fail.h"
#include "test_store_rig.h"

#define RUNS_MAX 3000u

/* Opens with the n-th allocation failing. False: there were not so many. */
static inline bool open_fails(struct rig *rig, uint64_t n)
{
	bool failed;
	int rc;

	alloc_fail_at(n);
	rc = rig_open(rig);
	failed = alloc_failed();
	alloc_fail_at(0);
	if (!failed)
		ck_assert_int_eq(rc, 0);
	if (rc == 0) /* it could do without */
		return failed;
	ck_assert_int_eq(rc, -ENOMEM);
	ck_assert_msg(strstr(rig->err.text, "memory") != NULL, "%s", rig->err.text);
	ck_assert(rig->store == NULL && rig->pool == NULL);
	return true;
}

/* The process is down; live: alloc_live() before all. Ends the rig. */
static inline void opens_at_last(struct rig *rig, uint64_t live, uint64_t allocations_min)
{
	uint64_t n = 1;

	ck_assert_uint_eq(alloc_live(), live);
	for (; open_fails(rig, n); n++) {
		if (rig->store != NULL || rig->pool != NULL)
			rig_verify(rig);
		rig_crash(rig, SIM_KILL);
		ck_assert_uint_eq(alloc_live(), live);
		ck_assert_uint_lt(n, RUNS_MAX);
	}
	ck_assert_uint_gt(n, allocations_min);
	rig_verify(rig);
	rig_close(rig);
	ck_assert_uint_eq(alloc_live(), live);
	rig_deinit(rig);
}

#endif
