/* findings: see findings.h. */
#include "tools/pave-inspect/findings.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>

#include "engine/base/assert.h"

static const struct {
	const char *name;
	bool damage;
	const char *text, *way_out;
} kinds[FINDING_KINDS] = {
#define X(kind, name, damage, text, way_out) {name, damage, text, way_out},
    FINDINGS(X)
#undef X
};

void findings_add(struct findings *f, enum finding_kind kind, uint64_t count, const char *fmt, ...)
{
	va_list ap;

	PRE(kind < FINDING_KINDS && count > 0);
	f->counts[kind] += count;
	if (f->shown[kind] == FINDINGS_SHOWN)
		return;
	va_start(ap, fmt);
	vsnprintf(f->texts[kind][f->shown[kind]++], FINDING_TEXT_SIZE, fmt, ap);
	va_end(ap);
}

bool findings_damage(const struct findings *f)
{
	for (uint32_t i = 0; i < FINDING_KINDS; i++)
		if (kinds[i].damage && f->counts[i] > 0)
			return true;
	return false;
}

void findings_report(const struct findings *f)
{
	for (uint32_t i = 0; i < FINDING_KINDS; i++) {
		if (f->counts[i] == 0)
			continue;
		printf("%" PRIu64 " %s: %s\n", f->counts[i], kinds[i].text, kinds[i].way_out);
		for (uint32_t k = 0; k < f->shown[i]; k++)
			printf("  %s\n", f->texts[i][k]);
		if (f->shown[i] == FINDINGS_SHOWN)
			printf("  (no more than %u are told)\n", FINDINGS_SHOWN);
	}
}

void findings_json(const struct findings *f, json_t *o)
{
	json_t *list = json_array();

	for (uint32_t i = 0; i < FINDING_KINDS; i++) {
		json_object_set_new(o, kinds[i].name, json_integer((json_int_t)f->counts[i]));
		for (uint32_t k = 0; k < f->shown[i]; k++)
			json_array_append_new(list, json_pack("{s:s,s:s}", "kind", kinds[i].name,
							      "text", f->texts[i][k]));
	}
	json_object_set_new(o, "findings", list);
}
