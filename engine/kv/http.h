/* JSON over HTTP or HTTPS, by POST, to one of several servers that are as good as one another;
 * blocks. The only user of libcurl.
 *
 * Thread: one at a time for each struct http. */
#ifndef KV_HTTP_H
#define KV_HTTP_H

#include <jansson.h>
#include <stdint.h>

#include "engine/base/drivers.h"
#include "engine/base/error.h"

#define HTTP_REPLY_MAX	(256u << 20) /* bytes; a reply over it is refused */
#define HTTP_CONNECT_MS 500u

struct http;

/* PEM files, as etcd's own clients have them. */
struct http_tls {
	bool on;	  /* else nothing below counts */
	const char *ca;	  /* of whoever certifies the servers; NULL: as the system has it */
	const char *cert; /* that this process shows, with its key; NULL: none */
	const char *key;
};

/* servers is copied; the files' names are lent until http_destroy. -ENOMEM. The first call must
 * come before other threads are started. */
int http_create(const struct drivers *servers, const struct http_tls *tls, struct http **ret_http);
void http_destroy(struct http *h); /* NULL is allowed */

/* Sends body to the server that answered last, and to the others in turn when it does not answer
 * within timeout_ms, or says that it cannot now. So it may be carried out more than once.
 * 0: *ret_reply is the caller's. -E_UNREACHABLE: none could; whether it was carried out is not
 * known. -EINVAL: refused for good (4xx, but for 408 and 429). -ENOMEM. *err says why (NULL is
 * allowed). */
int http_post(struct http *h, const char *path, const json_t *body, uint32_t timeout_ms,
	      json_t **ret_reply, struct error *err);

#endif
