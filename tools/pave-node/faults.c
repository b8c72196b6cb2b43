/* faults: see faults.h. */
#include "tools/pave-node/faults.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/log.h"
#include "engine/disk/fault.h"

#define SUPERBLOCKS_BYTES (2u << 20)

static struct disk_fault_plan plan; /* as long as the process */

static int parse_kind(const char *text, enum disk_fault_kind *ret_kind)
{
	static const struct {
		const char *name;
		enum disk_fault_kind kind;
	} kinds[] = {{"flip", DISK_FAULT_FLIP},	  {"drop", DISK_FAULT_DROP},
		     {"lie", DISK_FAULT_LIE},	  {"misdirect", DISK_FAULT_MISDIRECT},
		     {"error", DISK_FAULT_ERROR}, {"short", DISK_FAULT_SHORT}};

	for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++)
		if (strcmp(text, kinds[i].name) == 0) {
			*ret_kind = kinds[i].kind;
			return 0;
		}
	return -EINVAL;
}

static int parse_on(const char *text, uint32_t *ret_on)
{
	static const struct {
		const char *name;
		enum disk_op_kind kind;
	} kinds[] = {{"read", DISK_READ}, {"write", DISK_WRITE}, {"flush", DISK_FLUSH}};

	for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++)
		if (strcmp(text, kinds[i].name) == 0) {
			*ret_on = DISK_FAULT_ON(kinds[i].kind);
			return 0;
		}
	return -EINVAL;
}

/* One fault, if it is this node's. */
static int parse_one(const char *node, const char *text, const struct disk *disk, struct error *err)
{
	struct disk_fault fault = {.status = -EIO, .roams = true};
	char name[64], kind[16], on[16];
	uint64_t elsewhere = 0;
	int n = sscanf(text, " %63s %15s %15s %" SCNu64 " %" SCNu64 " %" SCNu64, name, kind, on,
		       &fault.every, &fault.times, &elsewhere);

	if (n < 5 || parse_kind(kind, &fault.kind) != 0 || parse_on(on, &fault.on_kinds) != 0 ||
	    elsewhere % BLOCK_SIZE != 0 || (fault.kind == DISK_FAULT_MISDIRECT && n < 6))
		return error_set(err, -EINVAL,
				 "PAVE_TEST_DISK_FAULTS: \"%.80s\" is not NODE KIND ON EVERY TIMES "
				 "[ELSEWHERE]",
				 text);
	if (strcmp(name, node) != 0)
		return 0;
	if (plan.count == DISK_FAULTS_MAX)
		return error_set(err, -EINVAL, "PAVE_TEST_DISK_FAULTS: more than %u faults",
				 DISK_FAULTS_MAX);
	if (fault.times == 0)
		fault.times = DISK_FAULT_FOREVER;
	if (fault.on_kinds != DISK_FAULT_ON(DISK_FLUSH)) {
		fault.from = SUPERBLOCKS_BYTES;
		fault.to = disk->size_bytes;
	}
	fault.elsewhere = elsewhere;
	plan.faults[plan.count++] = fault;
	log_error("node",
		  "A TEST: this disk has faults on purpose: %s, each %" PRIu64 "th %s, %" PRIu64
		  " times",
		  kind, fault.every, on, fault.times);
	return 0;
}

int faults_from_environment(const char *node, struct disk **disk, struct error *err)
{
	const char *text = getenv("PAVE_TEST_DISK_FAULTS");
	int rc = 0;

	while (rc == 0 && text != NULL && *text != '\0') {
		const char *end = strchrnul(text, ';');
		char one[160];

		snprintf(one, sizeof one, "%.*s", (int)(end - text), text);
		rc = parse_one(node, one, *disk, err);
		text = *end == ';' ? end + 1 : end;
	}
	if (rc != 0 || plan.count == 0)
		return rc;
	rc = disk_fault_open(*disk, &plan, disk);
	return rc == 0 ? 0 : error_set(err, rc, "no memory");
}
