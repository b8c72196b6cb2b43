/* http: see http.h. Proxies of the environment are not used, because what goes through here decides
 * who leads. With TLS, which is 1.2 at least, a server's certificate is checked, and that it is of
 * the address that was asked for.
 *
 * Happy path: post -> [connection kept alive from the last time] -> 200 with JSON.
 *
 * Failure modes: no connection, no answer in time, 408, 429, 5xx, or something else than JSON: the
 * next server, once around. (408 is etcd's word for a request that it has cancelled, as it does
 * when it is stopped: it may have been carried out.) Any other status is a refusal: another server
 * would say the same. */
#include "engine/kv/http.h"

#include <curl/curl.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/assert.h"

struct reply {
	char *data; /* malloc'd */
	size_t size, room;
};

struct http {
	struct drivers servers;
	CURL *curl;
	struct curl_slist *headers;
	const char *scheme;
	char why[CURL_ERROR_SIZE]; /* what failed last, in more words */
};

void http_destroy(struct http *h)
{
	if (h == NULL)
		return;
	curl_slist_free_all(h->headers);
	if (h->curl != NULL)
		curl_easy_cleanup(h->curl);
	free(h);
}

static size_t take(char *data, size_t unit, size_t count, void *arg)
{
	struct reply *r = arg;
	const size_t size = unit * count;

	if (r->size + size > HTTP_REPLY_MAX)
		return 0;
	if (r->size + size > r->room) {
		const size_t room = (r->size + size) * 2;
		char *larger = realloc(r->data, room);

		if (larger == NULL)
			return 0;
		r->data = larger;
		r->room = room;
	}
	memcpy(r->data + r->size, data, size);
	r->size += size;
	return size;
}

static void use_tls(struct http *h, const struct http_tls *tls)
{
	curl_easy_setopt(h->curl, CURLOPT_PROTOCOLS_STR, "https");
	curl_easy_setopt(h->curl, CURLOPT_SSLVERSION, (long)CURL_SSLVERSION_TLSv1_2);
	curl_easy_setopt(h->curl, CURLOPT_SSL_VERIFYPEER, 1L);
	curl_easy_setopt(h->curl, CURLOPT_SSL_VERIFYHOST, 2L);
	if (tls->ca != NULL) {
		curl_easy_setopt(h->curl, CURLOPT_CAINFO, tls->ca);
		curl_easy_setopt(h->curl, CURLOPT_CAPATH, NULL);
	}
	if (tls->cert != NULL) {
		curl_easy_setopt(h->curl, CURLOPT_SSLCERT, tls->cert);
		curl_easy_setopt(h->curl, CURLOPT_SSLKEY, tls->key);
	}
	h->scheme = "https";
}

int http_create(const struct drivers *servers, const struct http_tls *tls, struct http **ret_http)
{
	struct http *h = calloc(1, sizeof *h);

	if (h == NULL || curl_global_init(CURL_GLOBAL_DEFAULT) != 0) {
		free(h);
		return -ENOMEM;
	}
	h->servers = *servers;
	h->curl = curl_easy_init();
	h->headers = curl_slist_append(NULL, "Content-Type: application/json");
	/* A large body is sent at once, and not after a second of waiting to be asked for it. */
	if (h->headers != NULL && curl_slist_append(h->headers, "Expect:") == NULL) {
		curl_slist_free_all(h->headers);
		h->headers = NULL;
	}
	if (h->curl == NULL || h->headers == NULL) {
		http_destroy(h);
		return -ENOMEM;
	}
	curl_easy_setopt(h->curl, CURLOPT_NOSIGNAL, 1L);
	curl_easy_setopt(h->curl, CURLOPT_PROXY, "");
	curl_easy_setopt(h->curl, CURLOPT_PROTOCOLS_STR, "http");
	h->scheme = "http";
	curl_easy_setopt(h->curl, CURLOPT_ERRORBUFFER, h->why);
	curl_easy_setopt(h->curl, CURLOPT_HTTPHEADER, h->headers);
	curl_easy_setopt(h->curl, CURLOPT_CONNECTTIMEOUT_MS, (long)HTTP_CONNECT_MS);
	curl_easy_setopt(h->curl, CURLOPT_WRITEFUNCTION, take);
	if (tls->on)
		use_tls(h, tls);
	*ret_http = h;
	return 0;
}

/* The server's own words, if they are JSON as etcd's are; else the start of them. */
static int refused(const struct http *h, const struct reply *r, long status, struct error *err)
{
	json_t *o = r->size > 0 ? json_loadb(r->data, r->size, 0, NULL) : NULL;
	const char *text = json_string_value(json_object_get(o, "error"));
	const bool passes = status == 408 || status == 429 || status >= 500 || status < 400;
	const int rc = passes ? -E_UNREACHABLE : -EINVAL;

	if (text != NULL)
		error_set(err, rc, "%s answers %ld: %.300s", drivers_current(&h->servers), status,
			  text);
	else
		error_set(err, rc, "%s answers %ld: %.*s", drivers_current(&h->servers), status,
			  (int)MIN(r->size, (size_t)200), r->data != NULL ? r->data : "");
	json_decref(o);
	return rc;
}

static int post_one(struct http *h, const char *path, const char *body, uint32_t timeout_ms,
		    json_t **ret_reply, struct error *err)
{
	char url[ADDR_SIZE_MAX + 64];
	struct reply r = {0};
	long status = 0;
	CURLcode code;
	int rc = 0;

	h->why[0] = '\0';
	snprintf(url, sizeof url, "%s://%s%s", h->scheme, drivers_current(&h->servers), path);
	curl_easy_setopt(h->curl, CURLOPT_URL, url);
	curl_easy_setopt(h->curl, CURLOPT_POSTFIELDS, body);
	curl_easy_setopt(h->curl, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)strlen(body));
	curl_easy_setopt(h->curl, CURLOPT_TIMEOUT_MS, (long)timeout_ms);
	curl_easy_setopt(h->curl, CURLOPT_WRITEDATA, &r);
	code = curl_easy_perform(h->curl);
	if (code != CURLE_OK) {
		rc = error_set(err, -E_UNREACHABLE, "%s: %s", drivers_current(&h->servers),
			       h->why[0] != '\0' ? h->why : curl_easy_strerror(code));
		goto out;
	}
	curl_easy_getinfo(h->curl, CURLINFO_RESPONSE_CODE, &status);
	if (status != 200) {
		rc = refused(h, &r, status, err);
		goto out;
	}
	*ret_reply = json_loadb(r.data != NULL ? r.data : "", r.size, 0, NULL);
	if (*ret_reply == NULL)
		rc = error_set(err, -E_UNREACHABLE, "%s answers something else than JSON",
			       drivers_current(&h->servers));
out:
	free(r.data);
	return rc;
}

int http_post(struct http *h, const char *path, const json_t *body, uint32_t timeout_ms,
	      json_t **ret_reply, struct error *err)
{
	char *text = json_dumps(body, JSON_COMPACT);
	int rc = -E_UNREACHABLE;

	if (text == NULL)
		return error_set(err, -ENOMEM, "no memory for a request");
	drivers_found(&h->servers);
	for (uint32_t i = 0; i < h->servers.count && rc == -E_UNREACHABLE; i++) {
		rc = post_one(h, path, text, timeout_ms, ret_reply, err);
		if (rc == -E_UNREACHABLE)
			drivers_next(&h->servers, NULL);
	}
	free(text);
	return rc;
}
