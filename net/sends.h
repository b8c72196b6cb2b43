/* What the transports over a network have in common in sending: the queue of frames, linked by
 * transport_send.next, and the count of them in their connection. For implementations of
 * transport.h only; thread: the reactor's. */
#ifndef NET_SENDS_H
#define NET_SENDS_H

#include "engine/base/assert.h"
#include "net/transport.h"

/* In the order of the calls. */
struct sends {
	struct transport_send *first, *last;
};

static inline void sends_append(struct sends *l, struct transport_send *s)
{
	s->next = NULL;
	if (l->first == NULL)
		l->first = s;
	else
		l->last->next = s;
	l->last = s;
}

/* NULL: there is none. */
static inline struct transport_send *sends_take(struct sends *l)
{
	struct transport_send *s = l->first;

	if (s != NULL)
		l->first = s->next;
	return s;
}

/* With header and CRCs. */
static inline uint64_t sends_size(const struct transport_send *s)
{
	return FRAME_HEADER_SIZE + 4ull * s->frame.crc_count + s->frame.payload_size;
}

/* A frame is handed over: its header is made, and it is queued. */
static inline void sends_begin(struct sends *l, struct transport_conn *conn,
			       struct transport_send *s)
{
	uint64_t given = 0;

	PRE(s->done != NULL && s->iov_count <= TRANSPORT_IOV_MAX);
	PRE(s->frame.wire_version >= FRAME_VERSION_MIN && s->frame.wire_version <= FRAME_VERSION);
	for (uint32_t i = 0; i < s->iov_count; i++)
		given += s->iov[i].iov_len;
	PRE(given == s->frame.payload_size);
	PRE(s->frame.crcs != NULL || s->frame.crc_count == 0);
	frame_encode_header(&s->frame, s->header);
	conn->queued_bytes += sends_size(s);
	sends_append(l, s);
}

/* And is done with; s belongs to its owner again. */
static inline void sends_end(struct transport_conn *conn, struct transport_send *s, int status)
{
	const uint64_t size = sends_size(s);

	INVARIANT(conn->queued_bytes >= size);
	conn->queued_bytes -= size;
	if (status == 0) {
		conn->stats.tx_frames++;
		conn->stats.tx_bytes += size;
	}
	s->done(s, status);
}

#endif
