/* nbd_proto: see nbd_proto.h. No state, no I/O: the fuzz target feeds these. */
#include "engine/attach/nbd_proto.h"

#include <errno.h>
#include <string.h>

#include "engine/attach/bytes.h"
#include "engine/base/err.h"

bool nbd_decode_request(const uint8_t raw[NBD_REQUEST_SIZE], struct nbd_request_header *ret)
{
	if (get_be32(raw) != NBD_MAGIC_REQUEST)
		return false;
	ret->flags = get_be16(raw + 4);
	ret->command = get_be16(raw + 6);
	memcpy(&ret->cookie, raw + 8, sizeof ret->cookie);
	ret->offset = get_be64(raw + 16);
	ret->length = get_be32(raw + 24);
	return true;
}

/* The flags that each command allows. */
static bool flags_allowed(const struct nbd_request_header *q, const struct nbd_limits *limits)
{
	uint16_t allowed;

	switch (q->command) {
	case NBD_CMD_READ:
		/* FUA on a read means nothing, and the specification lets clients send it. */
		allowed = NBD_CMD_FLAG_FUA;
		if (limits->structured)
			allowed |= NBD_CMD_FLAG_DF;
		break;
	case NBD_CMD_WRITE:
	case NBD_CMD_TRIM:
	case NBD_CMD_FLUSH:
		allowed = NBD_CMD_FLAG_FUA;
		break;
	case NBD_CMD_WRITE_ZEROES:
		allowed = NBD_CMD_FLAG_FUA | NBD_CMD_FLAG_NO_HOLE | NBD_CMD_FLAG_FAST_ZERO;
		break;
	case NBD_CMD_BLOCK_STATUS:
		allowed = NBD_CMD_FLAG_FUA | NBD_CMD_FLAG_REQ_ONE;
		break;
	default:
		allowed = 0xffff;
	}
	return (q->flags & ~allowed) == 0;
}

static bool changes_data(uint16_t command)
{
	return command == NBD_CMD_WRITE || command == NBD_CMD_TRIM ||
	       command == NBD_CMD_WRITE_ZEROES;
}

uint32_t nbd_check_request(const struct nbd_request_header *q, const struct nbd_limits *limits,
			   const char **ret_text)
{
	switch (q->command) {
	case NBD_CMD_DISC:
		return 0;
	case NBD_CMD_FLUSH:
	case NBD_CMD_READ:
	case NBD_CMD_WRITE:
	case NBD_CMD_TRIM:
	case NBD_CMD_WRITE_ZEROES:
		break;
	case NBD_CMD_BLOCK_STATUS:
		if (limits->context)
			break;
		*ret_text = "block status was asked for without a negotiated context";
		return NBD_EINVAL;
	default:
		*ret_text = "unknown command";
		return NBD_EINVAL;
	}
	if (!flags_allowed(q, limits)) {
		*ret_text = "a flag that this command does not take";
		return NBD_EINVAL;
	}
	if (q->command == NBD_CMD_FLUSH)
		return 0;
	if (limits->read_only && changes_data(q->command)) {
		*ret_text = "the volume is attached read-only";
		return NBD_EPERM;
	}
	if ((q->command == NBD_CMD_READ || q->command == NBD_CMD_WRITE) &&
	    q->length > NBD_DATA_MAX) {
		*ret_text = "longer than 32 MiB";
		return q->command == NBD_CMD_READ ? NBD_EOVERFLOW : NBD_EINVAL;
	}
	if (q->length == 0) {
		*ret_text = "empty range";
		return NBD_EINVAL;
	}
	if (q->offset > limits->size || q->length > limits->size - q->offset) {
		*ret_text = "beyond the end of the volume";
		return q->command == NBD_CMD_WRITE || q->command == NBD_CMD_WRITE_ZEROES
			   ? NBD_ENOSPC
			   : NBD_EINVAL;
	}
	return 0;
}

bool nbd_decode_go(const uint8_t *data, uint32_t size, struct nbd_option_go *ret)
{
	uint32_t name_size;
	uint16_t count;

	if (size < 6)
		return false;
	name_size = get_be32(data);
	if (name_size > NBD_STRING_MAX || name_size > size - 6)
		return false;
	count = get_be16(data + 4 + name_size);
	if (size - 6 - name_size != 2u * count)
		return false;
	*ret = (struct nbd_option_go){
	    .name = (const char *)data + 4,
	    .name_size = name_size,
	};
	for (uint32_t i = 0; i < count; i++) {
		uint16_t info = get_be16(data + 6 + name_size + 2 * i);

		ret->wants_name |= info == NBD_INFO_NAME;
		ret->wants_block_size |= info == NBD_INFO_BLOCK_SIZE;
	}
	return true;
}

static bool query_matches(const uint8_t *text, uint32_t size, bool list)
{
	static const char name[] = NBD_CONTEXT_NAME;

	if (size == sizeof name - 1 && memcmp(text, name, size) == 0)
		return true;
	return list && size == 5 && memcmp(text, "base:", 5) == 0;
}

bool nbd_decode_context(const uint8_t *data, uint32_t size, bool list, const char **ret_name,
			uint32_t *ret_name_size, bool *ret_base)
{
	uint32_t name_size, count, at;

	if (size < 8)
		return false;
	name_size = get_be32(data);
	if (name_size > NBD_STRING_MAX || name_size > size - 8)
		return false;
	count = get_be32(data + 4 + name_size);
	at = 8 + name_size;
	*ret_base = list && count == 0;
	for (uint32_t i = 0; i < count; i++) {
		uint32_t query_size;

		if (size - at < 4)
			return false;
		query_size = get_be32(data + at);
		at += 4;
		if (query_size > NBD_STRING_MAX || query_size > size - at)
			return false;
		*ret_base |= query_matches(data + at, query_size, list);
		at += query_size;
	}
	*ret_name = (const char *)data + 4;
	*ret_name_size = name_size;
	return at == size;
}

uint32_t nbd_error_from(int code)
{
	switch (code < 0 ? -code : code) {
	case 0:
		return 0;
	case ENOSPC:
		return NBD_ENOSPC;
	case EROFS:
	case EPERM:
		return NBD_EPERM;
	case EINVAL:
		return NBD_EINVAL;
	case ENOMEM:
	case E_LIMIT:
		return NBD_ENOMEM;
	case E_FENCED:
	case ECANCELED:
		return NBD_ESHUTDOWN;
	default:
		return NBD_EIO;
	}
}
