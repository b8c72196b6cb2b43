/* map: see map.h. An array of pointers to entries. */
#include "tests/sim/map.h"

#include <stdlib.h>
#include <string.h>

#include "engine/base/assert.h"
#include "engine/base/types.h"

struct sim_entry *sim_entry_create(const void *key, size_t key_size, const void *value,
				   size_t value_size)
{
	struct sim_entry *e = malloc(sizeof(*e) + key_size + value_size);

	INVARIANT(e != NULL);
	e->key_size = key_size;
	e->value_size = value_size;
	if (key_size > 0)
		memcpy(e->bytes, key, key_size);
	if (value_size > 0)
		memcpy(e->bytes + key_size, value, value_size);
	return e;
}

int sim_key_compare(const void *a, size_t a_size, const void *b, size_t b_size)
{
	size_t n = MIN(a_size, b_size);
	int order = n > 0 ? memcmp(a, b, n) : 0;

	if (order != 0)
		return order;
	return a_size < b_size ? -1 : a_size > b_size;
}

size_t sim_map_lower_bound(const struct sim_map *m, const void *key, size_t key_size)
{
	size_t from = 0, to = m->count;

	while (from < to) {
		size_t mid = from + (to - from) / 2;
		const struct sim_entry *e = m->entries[mid];

		if (sim_key_compare(e->bytes, e->key_size, key, key_size) < 0)
			from = mid + 1;
		else
			to = mid;
	}
	return from;
}

static bool is_at(const struct sim_map *m, size_t at, const void *key, size_t key_size)
{
	return at < m->count &&
	       sim_key_compare(m->entries[at]->bytes, m->entries[at]->key_size, key, key_size) == 0;
}

struct sim_entry *sim_map_find(const struct sim_map *m, const void *key, size_t key_size)
{
	size_t at = sim_map_lower_bound(m, key, key_size);

	return is_at(m, at, key, key_size) ? m->entries[at] : NULL;
}

void sim_map_remove_range(struct sim_map *m, size_t from, size_t to)
{
	if (from >= to)
		return;
	for (size_t i = from; i < to; i++)
		free(m->entries[i]);
	memmove(m->entries + from, m->entries + to, (m->count - to) * sizeof(*m->entries));
	m->count -= to - from;
}

void sim_map_remove(struct sim_map *m, const void *key, size_t key_size)
{
	size_t at = sim_map_lower_bound(m, key, key_size);

	if (is_at(m, at, key, key_size))
		sim_map_remove_range(m, at, at + 1);
}

void sim_map_insert(struct sim_map *m, struct sim_entry *e)
{
	size_t at = sim_map_lower_bound(m, e->bytes, e->key_size);

	if (is_at(m, at, e->bytes, e->key_size)) {
		free(m->entries[at]);
		m->entries[at] = e;
		return;
	}
	if (m->count == m->max) {
		m->max = m->max == 0 ? 64 : m->max * 2;
		m->entries = reallocarray(m->entries, m->max, sizeof(struct sim_entry *));
		INVARIANT(m->entries != NULL);
	}
	memmove(m->entries + at + 1, m->entries + at, (m->count - at) * sizeof(*m->entries));
	m->entries[at] = e;
	m->count++;
}

void sim_map_deinit(struct sim_map *m)
{
	sim_map_remove_range(m, 0, m->count);
	free(m->entries);
	*m = (struct sim_map){0};
}
