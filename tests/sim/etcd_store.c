/* etcd_store: see etcd_store.h. Keys and values are base64 in requests and replies, 64-bit numbers
 * decimal text. Each entry of the map has a `struct meta` in front of its value. */
#include "tests/sim/etcd_store.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/assert.h"
#include "engine/base/base64.h"
#include "engine/base/types.h"

/* etcd's own bounds of a transaction, by default. */
#define OPS_MAX	  128u
#define BYTES_MAX (3u << 19)

struct meta {
	int64_t created, modified, lease;
};

struct text { /* bytes out of base64; malloc'd */
	uint8_t *data;
	size_t size;
};

static struct text text_of(const json_t *o, const char *name)
{
	const json_t *s = json_object_get(o, name);
	struct text t = {NULL, 0};

	INVARIANT(base64_decode(s != NULL ? json_string_value(s) : "",
				s != NULL ? json_string_length(s) : 0, &t.data, &t.size) == 0);
	return t;
}

static int64_t number_of(const json_t *o, const char *name)
{
	const json_t *n = json_object_get(o, name);

	if (json_is_integer(n))
		return json_integer_value(n);
	return json_is_string(n) ? strtoll(json_string_value(n), NULL, 10) : 0;
}

static json_t *number(int64_t n)
{
	char text[24];

	snprintf(text, sizeof(text), "%lld", (long long)n);
	return json_string(text);
}

static json_t *base64(const void *data, size_t size)
{
	char *text = base64_encode(data, size);
	json_t *s = json_string_nocheck(text);

	free(text);
	return s;
}

static struct meta meta_of(const struct sim_entry *e)
{
	struct meta m;

	INVARIANT(e->value_size >= sizeof(m));
	memcpy(&m, e->bytes + e->key_size, sizeof(m));
	return m;
}

const void *sim_etcd_store_value(const struct sim_entry *e, size_t *ret_size)
{
	*ret_size = e->value_size - sizeof(struct meta);
	return e->bytes + e->key_size + sizeof(struct meta);
}

/* The entries of a request's key, or of [key, range_end), by number. */
static void find_range(const struct sim_etcd_store *s, const json_t *o, size_t *ret_from,
		       size_t *ret_to)
{
	const struct text key = text_of(o, "key"), end = text_of(o, "range_end");

	*ret_from = sim_map_lower_bound(&s->keys, key.data, key.size);
	if (end.size > 0)
		*ret_to = MAX(sim_map_lower_bound(&s->keys, end.data, end.size), *ret_from);
	else
		*ret_to = *ret_from + (sim_map_find(&s->keys, key.data, key.size) != NULL);
	free(key.data);
	free(end.data);
}

static json_t *range(const struct sim_etcd_store *s, const json_t *o)
{
	const size_t limit = (size_t)number_of(o, "limit");
	json_t *kvs = json_array();
	size_t from, to, end;

	find_range(s, o, &from, &to);
	end = limit > 0 ? MIN(to, from + limit) : to;
	for (size_t i = from; i < end; i++) {
		const struct sim_entry *e = s->keys.entries[i];
		const struct meta m = meta_of(e);
		size_t size;
		const void *value = sim_etcd_store_value(e, &size);

		json_array_append_new(kvs, json_pack("{s:o,s:o,s:o,s:o,s:o}", "key",
						     base64(e->bytes, e->key_size), "value",
						     base64(value, size), "create_revision",
						     number(m.created), "mod_revision",
						     number(m.modified), "lease", number(m.lease)));
	}
	return json_pack("{s:o,s:b}", "kvs", kvs, "more", (int)(end < to));
}

/* -- transactions ---------------------------------------------------------------------------- */

static bool holds(const struct sim_etcd_store *s, const json_t *compare)
{
	const char *target = json_string_value(json_object_get(compare, "target"));
	const struct text key = text_of(compare, "key"), value = text_of(compare, "value");
	const struct sim_entry *e = sim_map_find(&s->keys, key.data, key.size);
	const struct meta m = e != NULL ? meta_of(e) : (struct meta){0};
	bool ok;

	INVARIANT(strcmp(json_string_value(json_object_get(compare, "result")), "EQUAL") == 0);
	if (strcmp(target, "CREATE") == 0) {
		ok = m.created == number_of(compare, "create_revision");
	} else if (strcmp(target, "MOD") == 0) {
		ok = m.modified == number_of(compare, "mod_revision");
	} else {
		size_t size = 0;
		const void *is = e != NULL ? sim_etcd_store_value(e, &size) : NULL;

		INVARIANT(strcmp(target, "VALUE") == 0);
		ok = e != NULL && size == value.size && memcmp(is, value.data, size) == 0;
	}
	free(key.data);
	free(value.data);
	return ok;
}

static bool is_in(const json_t *put, const json_t *range)
{
	const struct text key = text_of(put, "key"), from = text_of(range, "key"),
			  to = text_of(range, "range_end");
	const int above = sim_key_compare(key.data, key.size, from.data, from.size);
	const bool in =
	    to.size == 0 ? above == 0
			 : above >= 0 && sim_key_compare(key.data, key.size, to.data, to.size) < 0;

	free(key.data);
	free(from.data);
	free(to.data);
	return in;
}

/* Whether an operation after the i-th, a put, touches its key too, or a deletion anywhere. */
static bool is_touched_twice(const json_t *ops, size_t i)
{
	const json_t *put = json_object_get(json_array_get(ops, i), "request_put");

	for (size_t j = 0; j < json_array_size(ops); j++) {
		const json_t *op = json_array_get(ops, j);
		const json_t *other = json_object_get(op, "request_put");
		const json_t *gone = json_object_get(op, "request_delete_range");

		if (j > i && other != NULL &&
		    json_equal(json_object_get(put, "key"), json_object_get(other, "key")))
			return true;
		if (gone != NULL && is_in(put, gone))
			return true;
	}
	return false;
}

/* Whether etcd takes it at all: no key is touched twice, and it is not too large. */
static bool is_sound(struct sim_etcd_store *s, const json_t *ops)
{
	size_t bytes = 0;

	for (size_t i = 0; i < json_array_size(ops); i++) {
		const json_t *put = json_object_get(json_array_get(ops, i), "request_put");

		if (put == NULL)
			continue;
		bytes += json_string_length(json_object_get(put, "value")) / 4 * 3;
		if (number_of(put, "lease") != 0 &&
		    sim_etcd_store_lease(s, number_of(put, "lease")) == NULL)
			return false;
		if (is_touched_twice(ops, i))
			return false;
	}
	return json_array_size(ops) <= OPS_MAX && bytes <= BYTES_MAX;
}

static void do_put(struct sim_etcd_store *s, const json_t *o)
{
	const struct text key = text_of(o, "key"), value = text_of(o, "value");
	const struct sim_entry *old = sim_map_find(&s->keys, key.data, key.size);
	const struct meta m = {.created = old != NULL ? meta_of(old).created : s->revision,
			       .modified = s->revision,
			       .lease = number_of(o, "lease")};
	uint8_t *both = malloc(sizeof(m) + value.size);

	INVARIANT(both != NULL);
	memcpy(both, &m, sizeof(m));
	memcpy(both + sizeof(m), value.data, value.size);
	sim_map_insert(&s->keys,
		       sim_entry_create(key.data, key.size, both, sizeof(m) + value.size));
	free(both);
	free(key.data);
	free(value.data);
}

static void carry_out(struct sim_etcd_store *s, const json_t *ops)
{
	s->revision++;
	for (size_t i = 0; i < json_array_size(ops); i++) {
		const json_t *op = json_array_get(ops, i);
		const json_t *put = json_object_get(op, "request_put");
		size_t from, to;

		if (put != NULL) {
			do_put(s, put);
			continue;
		}
		find_range(s, json_object_get(op, "request_delete_range"), &from, &to);
		sim_map_remove_range(&s->keys, from, to);
	}
}

static json_t *txn(struct sim_etcd_store *s, const json_t *body)
{
	const json_t *compare = json_object_get(body, "compare");
	const json_t *success = json_object_get(body, "success");
	const json_t *failure = json_object_get(body, "failure");
	json_t *responses = json_array();
	bool ok = true;

	for (size_t i = 0; i < json_array_size(compare); i++)
		ok = ok && holds(s, json_array_get(compare, i));
	if (ok && !is_sound(s, success)) {
		json_decref(responses);
		return NULL;
	}
	if (ok)
		carry_out(s, success);
	for (size_t i = 0; !ok && i < json_array_size(failure); i++)
		json_array_append_new(responses,
				      json_pack("{s:o}", "response_range",
						range(s, json_object_get(json_array_get(failure, i),
									 "request_range"))));
	return json_pack("{s:{s:o},s:b,s:o}", "header", "revision", number(s->revision),
			 "succeeded", (int)ok, "responses", responses);
}

/* -- leases ---------------------------------------------------------------------------------- */

struct sim_lease *sim_etcd_store_lease(struct sim_etcd_store *s, int64_t id)
{
	struct sim_lease *l = s->leases;

	while (l != NULL && l->id != id)
		l = l->next;
	return l;
}

static json_t *grant(struct sim_etcd_store *s, const json_t *body)
{
	struct sim_lease *l = calloc(1, sizeof(*l));

	INVARIANT(l != NULL);
	*l = (struct sim_lease){.next = s->leases,
				.id = ++s->last_lease,
				.ttl_ns = (uint64_t)number_of(body, "TTL") * NS_PER_S};
	s->leases = l;
	return json_pack("{s:o,s:o}", "ID", number(l->id), "TTL", number(number_of(body, "TTL")));
}

void sim_etcd_store_end_lease(struct sim_etcd_store *s, int64_t id)
{
	struct sim_lease **at = &s->leases, *l;

	while (*at != NULL && (*at)->id != id)
		at = &(*at)->next;
	l = *at;
	if (l == NULL)
		return;
	*at = l->next;
	free(l);
	for (size_t i = s->keys.count; i > 0; i--) {
		if (meta_of(s->keys.entries[i - 1]).lease != id)
			continue;
		s->revision++;
		sim_map_remove_range(&s->keys, i - 1, i);
	}
}

static json_t *revoke(struct sim_etcd_store *s, const json_t *body)
{
	const int64_t id = number_of(body, "ID");

	if (sim_etcd_store_lease(s, id) == NULL)
		return NULL;
	sim_etcd_store_end_lease(s, id);
	return json_object();
}

/* -- life ------------------------------------------------------------------------------------ */

json_t *sim_etcd_store_post(struct sim_etcd_store *s, const char *path, const json_t *body)
{
	if (strcmp(path, "/v3/kv/txn") == 0)
		return txn(s, body);
	if (strcmp(path, "/v3/kv/range") == 0)
		return range(s, body);
	if (strcmp(path, "/v3/lease/grant") == 0)
		return grant(s, body);
	INVARIANT(strcmp(path, "/v3/lease/revoke") == 0);
	return revoke(s, body);
}

void sim_etcd_store_init(struct sim_etcd_store *s)
{
	/* As of a new etcd; and a lease is no small number. */
	*s = (struct sim_etcd_store){.revision = 1, .last_lease = 7000000000000000000ll};
}

void sim_etcd_store_deinit(struct sim_etcd_store *s)
{
	sim_map_deinit(&s->keys);
	while (s->leases != NULL) {
		struct sim_lease *l = s->leases;

		s->leases = l->next;
		free(l);
	}
}
