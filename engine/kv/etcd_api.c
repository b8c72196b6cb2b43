/* etcd_api: see etcd_api.h. 64-bit numbers are decimal text in this JSON; what is 0, false or empty
 * is left out of replies. */
#include "engine/kv/etcd_api.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/assert.h"
#include "engine/base/base64.h"

static json_t *bytes_json(const void *data, size_t size)
{
	char *text = base64_encode(data, size);
	json_t *s = text != NULL ? json_string_nocheck(text) : NULL;

	free(text);
	return s;
}

static json_t *number_json(int64_t n)
{
	char text[24];

	snprintf(text, sizeof text, "%lld", (long long)n);
	return json_string(text);
}

/* A number that isn't there is 0. */
static int64_t number_of(const json_t *o, const char *name)
{
	const json_t *n = json_object_get(o, name);

	if (json_is_integer(n))
		return json_integer_value(n);
	return json_is_string(n) ? strtoll(json_string_value(n), NULL, 10) : 0;
}

static int bytes_of(const json_t *o, const char *name, uint8_t **ret, size_t *ret_size)
{
	const json_t *s = json_object_get(o, name);

	return base64_decode(s != NULL && json_is_string(s) ? json_string_value(s) : "",
			     s != NULL && json_is_string(s) ? json_string_length(s) : 0, ret,
			     ret_size);
}

void etcd_pairs_deinit(struct etcd_pairs *p)
{
	for (size_t i = 0; i < p->count; i++) {
		free(p->list[i].key);
		free(p->list[i].value);
	}
	free(p->list);
	*p = (struct etcd_pairs){.list = NULL};
}

static int take_pairs(const json_t *range, struct etcd_pairs *ret, struct error *err)
{
	const json_t *kvs = json_object_get(range, "kvs");
	const size_t count = json_array_size(kvs);
	struct etcd_pairs p = {.more = json_is_true(json_object_get(range, "more"))};

	p.list = calloc(count + 1, sizeof *p.list);
	if (p.list == NULL)
		return error_set(err, -ENOMEM, "no memory for what etcd answers");
	for (size_t i = 0; i < count; i++) {
		const json_t *kv = json_array_get(kvs, i);
		struct etcd_pair *pair = &p.list[p.count++];

		if (bytes_of(kv, "key", &pair->key, &pair->key_size) != 0 ||
		    bytes_of(kv, "value", &pair->value, &pair->value_size) != 0) {
			etcd_pairs_deinit(&p);
			return error_set(err, -E_UNREACHABLE,
					 "etcd answers with a key or value that cannot be read");
		}
		pair->create_revision = number_of(kv, "create_revision");
		pair->mod_revision = number_of(kv, "mod_revision");
		pair->lease = number_of(kv, "lease");
	}
	*ret = p;
	return 0;
}

/* -- transactions ----------------------------------------------------------------------------- */

void etcd_txn_init(struct etcd_txn *t)
{
	*t = (struct etcd_txn){json_array(), json_array(), json_array()};
}

void etcd_txn_drop(struct etcd_txn *t)
{
	json_decref(t->compare);
	json_decref(t->success);
	json_decref(t->failure);
	*t = (struct etcd_txn){NULL, NULL, NULL};
}

/* A list without memory for an element is dropped, which etcd_txn_commit notices. */
static void append(json_t **list, json_t *element)
{
	if (*list == NULL || element == NULL || json_array_append_new(*list, element) != 0) {
		if (*list == NULL)
			json_decref(element);
		json_decref(*list);
		*list = NULL;
	}
}

static void compare(struct etcd_txn *t, const char *key, const char *target, const char *field,
		    json_t *value)
{
	append(&t->compare, json_pack("{s:s,s:s,s:o,s:o}", "target", target, "result", "EQUAL",
				      "key", bytes_json(key, strlen(key)), field, value));
}

void etcd_txn_if_created(struct etcd_txn *t, const char *key, int64_t revision)
{
	compare(t, key, "CREATE", "create_revision", number_json(revision));
}

void etcd_txn_if_changed(struct etcd_txn *t, const char *key, int64_t revision)
{
	compare(t, key, "MOD", "mod_revision", number_json(revision));
}

void etcd_txn_if_value(struct etcd_txn *t, const char *key, const char *value)
{
	compare(t, key, "VALUE", "value", bytes_json(value, strlen(value)));
}

void etcd_txn_put(struct etcd_txn *t, const void *key, size_t key_size, const void *value,
		  size_t value_size, int64_t lease)
{
	append(&t->success,
	       json_pack("{s:{s:o,s:o,s:o}}", "request_put", "key", bytes_json(key, key_size),
			 "value", bytes_json(value, value_size), "lease", number_json(lease)));
}

void etcd_txn_delete(struct etcd_txn *t, const void *from, size_t from_size, const void *to,
		     size_t to_size)
{
	append(&t->success,
	       json_pack("{s:{s:o,s:o}}", "request_delete_range", "key",
			 bytes_json(from, from_size), "range_end", bytes_json(to, to_size)));
}

void etcd_txn_else_get(struct etcd_txn *t, const char *key)
{
	append(&t->failure,
	       json_pack("{s:{s:o}}", "request_range", "key", bytes_json(key, strlen(key))));
}

static int take_reply(const json_t *o, struct etcd_txn_reply *r, struct error *err)
{
	const json_t *responses = json_object_get(o, "responses");
	int rc = 0;

	r->succeeded = json_is_true(json_object_get(o, "succeeded"));
	r->revision = number_of(json_object_get(o, "header"), "revision");
	if (r->revision <= 0)
		return error_set(err, -E_UNREACHABLE, "etcd's answer names no revision");
	for (size_t i = 0; !r->succeeded && rc == 0 && i < ARRAY_SIZE(r->got); i++) {
		const json_t *one = json_array_get(responses, i);

		if (one != NULL)
			rc = take_pairs(json_object_get(one, "response_range"), &r->got[i], err);
	}
	return rc;
}

int etcd_txn_commit(struct http *h, struct etcd_txn *t, uint32_t timeout_ms,
		    struct etcd_txn_reply *ret, struct error *err)
{
	struct etcd_txn_reply r = {0};
	json_t *body = NULL, *o = NULL;
	int rc = -ENOMEM;

	if (t->compare != NULL && t->success != NULL && t->failure != NULL)
		body = json_pack("{s:O,s:O,s:O}", "compare", t->compare, "success", t->success,
				 "failure", t->failure);
	etcd_txn_drop(t);
	if (body == NULL)
		return error_set(err, rc, "no memory for a transaction");
	rc = http_post(h, "/v3/kv/txn", body, timeout_ms, &o, err);
	json_decref(body);
	if (rc == 0)
		rc = take_reply(o, &r, err);
	json_decref(o);
	if (rc == 0)
		*ret = r;
	else
		etcd_txn_reply_deinit(&r);
	return rc;
}

void etcd_txn_reply_deinit(struct etcd_txn_reply *r)
{
	for (size_t i = 0; i < ARRAY_SIZE(r->got); i++)
		etcd_pairs_deinit(&r->got[i]);
}

/* -- the rest --------------------------------------------------------------------------------- */

int etcd_range(struct http *h, const void *from, size_t from_size, const void *to, size_t to_size,
	       uint32_t limit, uint32_t timeout_ms, struct etcd_pairs *ret, struct error *err)
{
	json_t *body = json_pack("{s:o,s:o,s:i}", "key", bytes_json(from, from_size), "range_end",
				 bytes_json(to, to_size), "limit", (int)limit);
	json_t *o = NULL;
	int rc;

	if (body == NULL)
		return error_set(err, -ENOMEM, "no memory for a request");
	rc = http_post(h, "/v3/kv/range", body, timeout_ms, &o, err);
	json_decref(body);
	if (rc == 0)
		rc = take_pairs(o, ret, err);
	json_decref(o);
	return rc;
}

int etcd_grant(struct http *h, uint32_t ttl_s, uint32_t timeout_ms, int64_t *ret_lease,
	       struct error *err)
{
	json_t *body = json_pack("{s:o}", "TTL", number_json((int64_t)ttl_s));
	json_t *o = NULL;
	int rc;

	if (body == NULL)
		return error_set(err, -ENOMEM, "no memory for a request");
	rc = http_post(h, "/v3/lease/grant", body, timeout_ms, &o, err);
	json_decref(body);
	if (rc == 0 && number_of(o, "TTL") < (int64_t)ttl_s)
		rc = error_set(err, -E_UNREACHABLE, "etcd grants %lld s where %u were asked for",
			       (long long)number_of(o, "TTL"), ttl_s);
	if (rc == 0) {
		*ret_lease = number_of(o, "ID");
		POST(rc == 0);
	}
	json_decref(o);
	return rc;
}

int etcd_revoke(struct http *h, int64_t lease, uint32_t timeout_ms, struct error *err)
{
	json_t *body = json_pack("{s:o}", "ID", number_json(lease));
	json_t *o = NULL;
	int rc;

	if (body == NULL)
		return error_set(err, -ENOMEM, "no memory for a request");
	rc = http_post(h, "/v3/lease/revoke", body, timeout_ms, &o, err);
	json_decref(body);
	json_decref(o);
	return rc;
}

void etcd_after_prefix(uint8_t *prefix, size_t *size)
{
	while (*size > 0 && prefix[*size - 1] == 0xff)
		(*size)--;
	PRE(*size > 0);
	prefix[*size - 1]++;
}
