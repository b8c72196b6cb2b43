/* The NBD decoders. The first byte chooses: a request and its check, GO, or a metadata context; the
 * rest is what the client sent. Names that are given back must lie inside of the input. */
#include <string.h>

#include "engine/attach/nbd_proto.h"
#include "engine/base/assert.h"
#include "tests/fuzz/fuzz.h"

static void inside(const char *name, uint32_t name_size, const uint8_t *data, size_t size)
{
	INVARIANT((const uint8_t *)name >= data);
	INVARIANT((const uint8_t *)name + name_size <= data + size);
}

static void request(const uint8_t *data, size_t size, uint8_t flags)
{
	const struct nbd_limits limits = {
	    .size = 1u << 30,
	    .read_only = (flags & 4) != 0,
	    .structured = (flags & 8) != 0,
	    .context = (flags & 16) != 0,
	};
	struct nbd_request_header q;
	const char *text = NULL;
	uint32_t error;

	if (size < NBD_REQUEST_SIZE || !nbd_decode_request(data, &q))
		return;
	error = nbd_check_request(&q, &limits, &text);
	INVARIANT((error == 0) == (text == NULL));
	if (error != 0 || q.command == NBD_CMD_DISC || q.command == NBD_CMD_FLUSH)
		return;
	INVARIANT(q.length > 0 && q.offset + q.length <= limits.size);
	if (q.command == NBD_CMD_READ || q.command == NBD_CMD_WRITE)
		INVARIANT(q.length <= NBD_DATA_MAX);
	if (limits.read_only)
		INVARIANT(q.command == NBD_CMD_READ || q.command == NBD_CMD_BLOCK_STATUS);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct nbd_option_go go;
	const char *name;
	uint32_t name_size;
	bool base;
	uint8_t kind;

	if (size < 1)
		return 0;
	kind = data[0];
	data++;
	size--;
	switch (kind & 3) {
	case 0:
		request(data, size, kind);
		break;
	case 1:
		if (nbd_decode_go(data, (uint32_t)size, &go))
			inside(go.name, go.name_size, data, size);
		break;
	default:
		if (nbd_decode_context(data, (uint32_t)size, (kind & 3) == 2, &name, &name_size,
				       &base))
			inside(name, name_size, data, size);
		break;
	}
	return 0;
}
