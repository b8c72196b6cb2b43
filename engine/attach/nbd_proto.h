/* The NBD protocol's numbers and its pure decoders (NBD specification, doc/proto.md of the
 * NetworkBlockDevice project: fixed newstyle negotiation, structured replies, metadata contexts).
 * All integers on the wire are big-endian. */
#ifndef ATTACH_NBD_PROTO_H
#define ATTACH_NBD_PROTO_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define NBD_MAGIC_INIT	     0x4e42444d41474943ull /* "NBDMAGIC" */
#define NBD_MAGIC_OPTION     0x49484156454f5054ull /* "IHAVEOPT" */
#define NBD_MAGIC_OPT_REPLY  0x0003e889045565a9ull
#define NBD_MAGIC_REQUEST    0x25609513u
#define NBD_MAGIC_SIMPLE     0x67446698u
#define NBD_MAGIC_STRUCTURED 0x668e33efu

/* Handshake flags, of the server and of the client. */
#define NBD_FLAG_FIXED_NEWSTYLE 1u
#define NBD_FLAG_NO_ZEROES	2u

/* Transmission flags of an export. */
enum nbd_export_flag {
	NBD_EXPORT_HAS_FLAGS = 1u << 0,
	NBD_EXPORT_READ_ONLY = 1u << 1,
	NBD_EXPORT_FLUSH = 1u << 2,
	NBD_EXPORT_FUA = 1u << 3,
	NBD_EXPORT_TRIM = 1u << 5,
	NBD_EXPORT_WRITE_ZEROES = 1u << 6,
	NBD_EXPORT_DF = 1u << 7,
	NBD_EXPORT_MULTI_CONN = 1u << 8,
	NBD_EXPORT_FAST_ZERO = 1u << 11,
};

enum nbd_option {
	NBD_OPT_EXPORT_NAME = 1,
	NBD_OPT_ABORT = 2,
	NBD_OPT_LIST = 3,
	NBD_OPT_STARTTLS = 5,
	NBD_OPT_INFO = 6,
	NBD_OPT_GO = 7,
	NBD_OPT_STRUCTURED_REPLY = 8,
	NBD_OPT_LIST_META_CONTEXT = 9,
	NBD_OPT_SET_META_CONTEXT = 10,
};

enum nbd_option_reply {
	NBD_REP_ACK = 1,
	NBD_REP_SERVER = 2,
	NBD_REP_INFO = 3,
	NBD_REP_META_CONTEXT = 4,
};
#define NBD_REP_ERR_UNSUP   0x80000001u
#define NBD_REP_ERR_INVALID 0x80000003u
#define NBD_REP_ERR_UNKNOWN 0x80000006u
#define NBD_REP_ERR_TOO_BIG 0x80000009u

enum nbd_info { NBD_INFO_EXPORT = 0, NBD_INFO_NAME = 1, NBD_INFO_BLOCK_SIZE = 3 };

enum nbd_command {
	NBD_CMD_READ = 0,
	NBD_CMD_WRITE = 1,
	NBD_CMD_DISC = 2,
	NBD_CMD_FLUSH = 3,
	NBD_CMD_TRIM = 4,
	NBD_CMD_WRITE_ZEROES = 6,
	NBD_CMD_BLOCK_STATUS = 7,
};

enum nbd_command_flag {
	NBD_CMD_FLAG_FUA = 1u << 0,
	NBD_CMD_FLAG_NO_HOLE = 1u << 1,
	NBD_CMD_FLAG_DF = 1u << 2,
	NBD_CMD_FLAG_REQ_ONE = 1u << 3,
	NBD_CMD_FLAG_FAST_ZERO = 1u << 4,
};

enum nbd_reply_type { NBD_REPLY_NONE = 0, NBD_REPLY_OFFSET_DATA = 1, NBD_REPLY_BLOCK_STATUS = 5 };
#define NBD_REPLY_ERROR	    0x8001u
#define NBD_REPLY_FLAG_DONE 1u

#define NBD_STATE_HOLE 1u
#define NBD_STATE_ZERO 2u

/* Errors on the wire: these numbers are the protocol's, not the host's. */
enum nbd_error {
	NBD_EPERM = 1,
	NBD_EIO = 5,
	NBD_ENOMEM = 12,
	NBD_EINVAL = 22,
	NBD_ENOSPC = 28,
	NBD_EOVERFLOW = 75,
	NBD_ENOTSUP = 95,
	NBD_ESHUTDOWN = 108,
};

#define NBD_STRING_MAX	    4096u	/* the specification's bound of any string */
#define NBD_OPTION_SIZE_MAX (16u << 10) /* data of one option; more gets NBD_REP_ERR_TOO_BIG */
#define NBD_REQUEST_SIZE    28u
#define NBD_DATA_MAX	    (32u << 20) /* payload of one read or write */
#define NBD_BLOCK_MIN	    512u
#define NBD_BLOCK_PREFERRED 4096u
#define NBD_CONTEXT_ID	    1u /* ours for base:allocation */
#define NBD_CONTEXT_NAME    "base:allocation"
#define NBD_EXTENTS_MAX	    1024u

struct nbd_request_header {
	uint16_t flags;
	uint16_t command;
	uint64_t cookie; /* opaque: echoed as it came */
	uint64_t offset; /* bytes */
	uint32_t length; /* bytes */
};

/* False: the magic is wrong, and nothing that follows on the connection can be trusted. */
bool nbd_decode_request(const uint8_t raw[NBD_REQUEST_SIZE], struct nbd_request_header *ret);

/* What the export allows, for the check of a request. */
struct nbd_limits {
	uint64_t size; /* of the export, bytes */
	bool read_only;
	bool structured;
	bool context; /* base:allocation was negotiated */
};

/* 0, or the enum nbd_error that the request must be answered with; ret_text then says why. A
 * write's payload must be taken off the connection all the same. */
uint32_t nbd_check_request(const struct nbd_request_header *q, const struct nbd_limits *limits,
			   const char **ret_text);

/* Data of NBD_OPT_INFO and NBD_OPT_GO: name (not terminated, into data) and which information is
 * asked for. False: malformed. */
struct nbd_option_go {
	const char *name;
	uint32_t name_size;
	bool wants_name;
	bool wants_block_size;
};
bool nbd_decode_go(const uint8_t *data, uint32_t size, struct nbd_option_go *ret);

/* Data of NBD_OPT_LIST/SET_META_CONTEXT. ret_base: base:allocation is among the queries (or
 * "base:", or none, where list is true). False: malformed. */
bool nbd_decode_context(const uint8_t *data, uint32_t size, bool list, const char **ret_name,
			uint32_t *ret_name_size, bool *ret_base);

/* The answer to the guest for an engine's code (0 or negative). */
uint32_t nbd_error_from(int code);

#endif
