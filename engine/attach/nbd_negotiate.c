/* NBD negotiation: the options of the fixed newstyle handshake.
 *
 * Invariant: an option is only looked at when the answers to the one before have left, so OUT_SIZE
 * bounds what is kept. Failure: what is malformed gets NBD_REP_ERR_INVALID and the client may go
 * on; only EXPORT_NAME has no error reply, and ends the connection. */
#include <stdio.h>
#include <string.h>

#include "engine/attach/bytes.h"
#include "engine/attach/nbd_private.h"
#include "engine/base/assert.h"

static uint16_t export_flags(const struct nbd_conn *c)
{
	uint16_t flags = NBD_EXPORT_HAS_FLAGS | NBD_EXPORT_FLUSH | NBD_EXPORT_FUA |
			 NBD_EXPORT_TRIM | NBD_EXPORT_WRITE_ZEROES | NBD_EXPORT_MULTI_CONN |
			 NBD_EXPORT_FAST_ZERO;

	if (c->structured)
		flags |= NBD_EXPORT_DF;
	if (volume_read_only(c->server->volume))
		flags |= NBD_EXPORT_READ_ONLY;
	return flags;
}

static void reply(struct nbd_conn *c, uint32_t option, uint32_t type, const void *data,
		  uint32_t size)
{
	uint8_t *p = c->out + c->out_size;

	PRE(c->out_size + 20 + size <= OUT_SIZE);
	p = put_be64(p, NBD_MAGIC_OPT_REPLY);
	p = put_be32(p, option);
	p = put_be32(p, type);
	p = put_be32(p, size);
	if (size > 0)
		memcpy(p, data, size);
	c->out_size += 20 + size;
}

static void reply_text(struct nbd_conn *c, uint32_t option, uint32_t type, const char *text)
{
	reply(c, option, type, text, (uint32_t)strlen(text));
}

void negotiate_too_big(struct nbd_conn *c, uint32_t option)
{
	reply_text(c, option, NBD_REP_ERR_TOO_BIG, "option data over 16 KiB");
}

static bool name_is_ours(const struct nbd_server *s, const char *name, uint32_t size)
{
	return size == 0 ||
	       (size == strlen(s->export_name) && memcmp(name, s->export_name, size) == 0);
}

static void unknown_export(struct nbd_conn *c, uint32_t option)
{
	char text[NAME_SIZE_MAX + 64];

	snprintf(text, sizeof text, "no such export: this server serves '%s'",
		 c->server->export_name);
	reply_text(c, option, NBD_REP_ERR_UNKNOWN, text);
}

static bool option_export_name(struct nbd_conn *c, const uint8_t *data, uint32_t size)
{
	uint8_t *p = c->out + c->out_size;

	if (!name_is_ours(c->server, (const char *)data, size)) {
		conn_fail(c, "the client asked for an export that is not served here");
		return false;
	}
	p = put_be64(p, volume_size(c->server->volume));
	put_be16(p, export_flags(c));
	c->out_size += 10;
	if (!c->no_zeroes) {
		memset(c->out + c->out_size, 0, 124);
		c->out_size += 124;
	}
	c->rx_state = RX_REQUEST;
	return true;
}

static void option_list(struct nbd_conn *c, uint32_t size)
{
	uint8_t data[4 + NAME_SIZE_MAX];
	uint32_t name_size = (uint32_t)strlen(c->server->export_name);

	if (size != 0) {
		reply_text(c, NBD_OPT_LIST, NBD_REP_ERR_INVALID, "LIST takes no data");
		return;
	}
	put_be32(data, name_size);
	memcpy(data + 4, c->server->export_name, name_size);
	reply(c, NBD_OPT_LIST, NBD_REP_SERVER, data, 4 + name_size);
	reply(c, NBD_OPT_LIST, NBD_REP_ACK, NULL, 0);
}

static void option_go(struct nbd_conn *c, uint32_t option, const uint8_t *data, uint32_t size)
{
	struct nbd_option_go go;
	uint8_t info[2 + NBD_STRING_MAX];
	uint8_t *p;

	if (!nbd_decode_go(data, size, &go)) {
		reply_text(c, option, NBD_REP_ERR_INVALID, "malformed INFO or GO");
		return;
	}
	if (!name_is_ours(c->server, go.name, go.name_size)) {
		unknown_export(c, option);
		return;
	}
	p = put_be16(info, NBD_INFO_EXPORT);
	p = put_be64(p, volume_size(c->server->volume));
	put_be16(p, export_flags(c));
	reply(c, option, NBD_REP_INFO, info, 12);
	if (go.wants_name) {
		uint32_t name_size = (uint32_t)strlen(c->server->export_name);

		put_be16(info, NBD_INFO_NAME);
		memcpy(info + 2, c->server->export_name, name_size);
		reply(c, option, NBD_REP_INFO, info, 2 + name_size);
	}
	/* Sent unasked too: a client that doesn't know it ignores it. */
	p = put_be16(info, NBD_INFO_BLOCK_SIZE);
	p = put_be32(p, NBD_BLOCK_MIN);
	p = put_be32(p, NBD_BLOCK_PREFERRED);
	put_be32(p, NBD_DATA_MAX);
	reply(c, option, NBD_REP_INFO, info, 14);
	reply(c, option, NBD_REP_ACK, NULL, 0);
	if (option == NBD_OPT_GO)
		c->rx_state = RX_REQUEST;
}

static void option_context(struct nbd_conn *c, uint32_t option, const uint8_t *data, uint32_t size)
{
	uint8_t context[4 + sizeof NBD_CONTEXT_NAME];
	const char *name;
	uint32_t name_size;
	bool list = option == NBD_OPT_LIST_META_CONTEXT;
	bool base;

	if (!c->structured) {
		reply_text(c, option, NBD_REP_ERR_INVALID, "negotiate structured replies first");
		return;
	}
	if (!nbd_decode_context(data, size, list, &name, &name_size, &base)) {
		reply_text(c, option, NBD_REP_ERR_INVALID, "malformed metadata query");
		return;
	}
	if (!name_is_ours(c->server, name, name_size)) {
		unknown_export(c, option);
		return;
	}
	if (!list)
		c->context = base;
	if (base) {
		put_be32(context, list ? 0 : NBD_CONTEXT_ID);
		memcpy(context + 4, NBD_CONTEXT_NAME, sizeof NBD_CONTEXT_NAME - 1);
		reply(c, option, NBD_REP_META_CONTEXT, context, 4 + sizeof NBD_CONTEXT_NAME - 1);
	}
	reply(c, option, NBD_REP_ACK, NULL, 0);
}

bool negotiate_option(struct nbd_conn *c, uint32_t option, const uint8_t *data, uint32_t size)
{
	switch (option) {
	case NBD_OPT_EXPORT_NAME:
		return option_export_name(c, data, size);
	case NBD_OPT_ABORT:
		reply(c, option, NBD_REP_ACK, NULL, 0);
		c->rx_state = RX_END;
		return true;
	case NBD_OPT_LIST:
		option_list(c, size);
		return true;
	case NBD_OPT_INFO:
	case NBD_OPT_GO:
		option_go(c, option, data, size);
		return true;
	case NBD_OPT_STRUCTURED_REPLY:
		if (size != 0) {
			reply_text(c, option, NBD_REP_ERR_INVALID,
				   "STRUCTURED_REPLY takes no data");
			return true;
		}
		c->structured = true;
		reply(c, option, NBD_REP_ACK, NULL, 0);
		return true;
	case NBD_OPT_LIST_META_CONTEXT:
	case NBD_OPT_SET_META_CONTEXT:
		option_context(c, option, data, size);
		return true;
	default:
		reply_text(c, option, NBD_REP_ERR_UNSUP, "this server does not know the option");
		return true;
	}
}
