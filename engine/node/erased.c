/* erased: what a node signs when it has erased copies. See lease.h; the driver puts it into the
 * ledger, where an auditor finds who says that what is gone, and since when. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "engine/ledger/chain.h"
#include "engine/node/lease.h"

/* false: no memory. */
static bool copy_numbers(void **ret, size_t *ret_count, const void *numbers, size_t count,
			 size_t size)
{
	if (count == 0)
		return true;
	*ret = malloc(count * size);
	if (*ret == NULL)
		return false;
	memcpy(*ret, numbers, count * size);
	*ret_count = count;
	return true;
}

Pave__V1__ErasureReport *node_erasure_begin(const Pave__V1__Erase *what)
{
	Pave__V1__ErasureReport *r = malloc(sizeof *r);

	if (r == NULL)
		return NULL;
	pave__v1__erasure_report__init(r);
	r->layer = what->volume;
	r->whole = what->whole_volume;
	if (!copy_numbers((void **)&r->more_layers, &r->n_more_layers, what->more_layers,
			  what->n_more_layers, sizeof *r->more_layers) ||
	    (!what->whole_volume && !copy_numbers((void **)&r->chunks, &r->n_chunks, what->chunks,
						  what->n_chunks, sizeof *r->chunks))) {
		pave__v1__erasure_report__free_unpacked(r, NULL);
		return NULL;
	}
	return r;
}

int node_erasure_sign(struct node_lease *k, Pave__V1__ErasureReport *report,
		      const struct node_erasure *done, Pave__V1__Signed **ret, struct error *err)
{
	struct node_identity *me = &k->config.identity;
	Pave__V1__ErasureReport m = *report;
	uint8_t *bytes;
	size_t size;
	int rc;

	*ret = NULL;
	if (k->config.proof == NULL)
		return 0;
	m.cluster = (ProtobufCBinaryData){sizeof me->cluster.bytes, me->cluster.bytes};
	m.node = me->name;
	m.site = me->site;
	m.done_at = node_lease_driver_wall(k);
	m.started_at = m.done_at - (int64_t)(done->took_ms * NS_PER_MS);
	m.method = (char *)(uintptr_t)done->method;
	m.segments = done->segments;
	m.bytes = done->bytes;
	m.took_ms = done->took_ms;
	size = pave__v1__erasure_report__get_packed_size(&m);
	bytes = malloc(size);
	if (bytes == NULL)
		return error_set(err, -ENOMEM, "no memory for the report of an erasure");
	pave__v1__erasure_report__pack(&m, bytes);
	rc = signed_make(TYPE_ERASURE, bytes, size, k->config.proof->key, ret, err);
	free(bytes);
	return rc;
}
