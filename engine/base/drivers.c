/* drivers: see drivers.h. The list is gone through in order; a leader that a follower named comes
 * in between, and counts as a try, so that two followers that name each other cause no storm. */
#include "engine/base/drivers.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "engine/base/assert.h"

int drivers_parse(const char *text, struct drivers *ret_drivers, struct error *err)
{
	struct drivers d = {.count = 0};

	for (const char *at = text;; at++) {
		const size_t size = strcspn(at, ",");

		if (size == 0)
			return error_set(err, -EINVAL,
					 "placement drivers \"%.200s\": one address is empty; give "
					 "HOST:PORT[,HOST:PORT...]",
					 text);
		if (size >= ADDR_SIZE_MAX)
			return error_set(err, -ENAMETOOLONG,
					 "placement driver %.60s...: the address is over %u bytes",
					 at, ADDR_SIZE_MAX - 1);
		if (d.count == DRIVERS_MAX)
			return error_set(err, -E_LIMIT,
					 "placement drivers \"%.200s...\": over %u addresses", text,
					 DRIVERS_MAX);
		memcpy(d.list[d.count++], at, size);
		at += size;
		if (*at == '\0')
			break;
	}
	*ret_drivers = d;
	return 0;
}

const char *drivers_current(const struct drivers *d)
{
	PRE(d->at < d->count);
	return d->leader[0] != '\0' ? d->leader : d->list[d->at];
}

bool drivers_several(const struct drivers *d)
{
	return d->count > 1 || d->leader[0] != '\0';
}

bool drivers_next(struct drivers *d, const char *leader)
{
	const bool named = leader != NULL && leader[0] != '\0' && strlen(leader) < ADDR_SIZE_MAX &&
			   strcmp(leader, drivers_current(d)) != 0;

	d->leader[0] = '\0';
	if (named)
		snprintf(d->leader, sizeof d->leader, "%s", leader);
	else
		d->at = (d->at + 1) % d->count;
	if (++d->tried < d->count)
		return false;
	d->tried = 0;
	return true;
}

void drivers_found(struct drivers *d)
{
	d->tried = 0;
}
