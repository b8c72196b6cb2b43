/* Error codes: 0, a negative errno, or a negative domain code from the table below. The domain
 * codes travel on the wire (as the positive number), so a number is never given to another meaning.
 */
#ifndef BASE_ERR_H
#define BASE_ERR_H

#define ERR_TABLE(X)                                                                               \
	X(E_FENCED, 1001, "a newer attachment has fenced this one")                                \
	X(E_NO_LEASE, 1002, "the node holds no lease: its site's eligibility is not proved")       \
	X(E_LEASE_EXPIRED, 1003, "the node's lease has run out")                                   \
	X(E_NO_PERMIT, 1004, "there is no permit for this volume on this connection")              \
	X(E_PERMIT_EXPIRED, 1005, "the permit has run out")                                        \
	X(E_NOT_IN_PERMIT, 1006, "the node is not in the permit")                                  \
	X(E_REVOKED, 1007, "the site's certificate was revoked or its label withdrawn")            \
	X(E_CLOCK_SKEW, 1008, "the clocks differ by more than the bound")                          \
	X(E_MAP_VERSION, 1009, "the map version is older than the one in force")                   \
	X(E_BAD_CRC, 1010, "a checksum does not match")                                            \
	X(E_BAD_FRAME, 1011, "the frame is malformed")                                             \
	X(E_BAD_SIGNATURE, 1012, "a signature is missing or does not verify")                      \
	X(E_BAD_DOCUMENT, 1013, "the document is malformed")                                       \
	X(E_ROLLBACK, 1014, "a newer version of this document was seen before")                    \
	X(E_WIRE_VERSION, 1015, "the peer speaks no protocol version that we speak")               \
	X(E_WRONG_CLUSTER, 1016, "it belongs to another cluster")                                  \
	X(E_WRONG_NODE, 1017, "it belongs to another node")                                        \
	X(E_CORRUPT, 1018, "the data on the disk does not check")                                  \
	X(E_DENIED, 1019, "refused by the placement policy")                                       \
	X(E_DISCONNECTED, 1020, "the connection was lost")                                         \
	X(E_FROZEN, 1021, "fewer eligible copies than the policy's min_acks")                      \
	X(E_STALE_REPLICA, 1022, "the replica is not current")                                     \
	X(E_STALE_EVIDENCE, 1023, "the evidence is too old")                                       \
	X(E_IN_USE, 1024, "it is in use")                                                          \
	X(E_UNREACHABLE, 1025, "the peer cannot be reached")                                       \
	X(E_LIMIT, 1026, "a named limit was reached")                                              \
	X(E_DEVICE, 1027, "the device that holds this, or may hold it, has failed or is missing")  \
	X(E_NOT_LEADER, 1028, "this placement driver does not lead at this moment")

enum err_code {
#define X(name, number, text) name = number,
	ERR_TABLE(X)
#undef X
};

/* The text of a code (sign ignored, errno included). Never NULL; static or thread-local memory. */
const char *err_text(int code);

/* The symbolic name, as "E_FENCED" or "ENOSPC". Never NULL. */
const char *err_name(int code);

#endif
