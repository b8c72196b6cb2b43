/* audit: see audit.h. Here: where the ledger comes from, and what the commands share. */
#include "tools/pave/audit.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/text.h"
#include "engine/evidence/documents.h"
#include "engine/evidence/file.h"
#include "tools/pave/client.h"
#include "tools/pave/cmd.h"
#include "tools/pave/view.h"

const char audit_proves[] = "What this proves: that the authorities of the trust root asserted "
			    "what the certificates say, that the "
			    "placement driver gave permits and leases by them, and what the nodes "
			    "signed that they took in. It does "
			    "not prove that the certificates are true, nor anything about the law.";

int audit_replay(const struct audit_source *source, const struct history_options *options,
		 struct history **ret, struct error *err)
{
	struct cluster_ref cluster = {.root = ""};
	const char *root_path = source->root;
	char *file = NULL, *root = NULL;
	size_t size = 0, root_size = 0;
	int rc = 0;

	if (root_path == NULL) {
		rc = cmd_cluster(&cluster, err);
		root_path = cluster.root;
		if (rc == 0 && root_path[0] == '\0')
			rc = error_set(err, -EINVAL, "the trust root is needed: --root FILE");
		else if (rc != 0 && source->file != NULL)
			error_wrap(err, "without --root FILE, the trust root is that of a cluster");
	}
	if (rc == 0)
		rc = file_read_whole(root_path, ENVELOPE_SIZE_MAX, &root, &root_size, err);
	if (rc == 0 && source->file != NULL)
		rc = file_read_whole(source->file, AUDIT_FILE_MAX, &file, &size, err);
	else if (rc == 0)
		rc = audit_fetch(&file, &size, err);
	if (rc == 0) {
		rc = history_replay(file, size, root, root_size, options, ret, err);
		if (rc != 0)
			error_wrap(err, "%s",
				   source->file != NULL ? source->file : "the driver's ledger");
	}
	free(root);
	free(file);
	return rc;
}

json_t *audit_ledger_json(const struct history *h)
{
	char hash[2 * LEDGER_HASH_SIZE + 1];

	return json_pack(
	    "{s:I,s:o,s:o,s:I,s:s,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I}", "records",
	    (json_int_t)h->tip.seq, "first_at", view_time(h->first_at), "head_at",
	    view_time(h->head.at), "head_seq", (json_int_t)h->head.seq, "head_hash",
	    text_hex(h->head.hash, sizeof h->head.hash, hash, sizeof hash), "permits",
	    (json_int_t)h->permits, "leases", (json_int_t)h->leases, "receipts",
	    (json_int_t)h->receipt_count, "receipt_bytes", (json_int_t)h->receipts_bytes,
	    "erasures", (json_int_t)h->erasures, "erasures_signed", (json_int_t)h->erasures_signed,
	    "erasures_dropped", (json_int_t)h->erasures_by[0], "erasures_discarded",
	    (json_int_t)h->erasures_by[1], "erasures_overwritten", (json_int_t)h->erasures_by[2],
	    "erased_bytes", (json_int_t)h->erased_bytes, "erasure_longest_ms",
	    (json_int_t)h->erasure_longest_ms, "denials", (json_int_t)h->denials);
}

json_t *audit_findings_json(const struct history *h)
{
	json_t *list = json_array();

	for (uint32_t i = 0; i < h->kept_count; i++)
		json_array_append_new(
		    list, json_pack("{s:I,s:s,s:s}", "record", (json_int_t)h->findings[i].seq,
				    "kind", h->findings[i].note ? "note" : "contradiction", "text",
				    h->findings[i].text));
	return list;
}

json_t *audit_not_told_after(const struct history *h, int64_t at, bool of_file)
{
	return of_file && at > h->head.at ? view_time(h->head.at) : json_null();
}

json_t *audit_withdrawn_from(const struct history *h, const char *site, int64_t at)
{
	int64_t from;

	return h->revocations != NULL &&
		       revocations_withdrawn(h->revocations, site, at, &from, NULL)
		   ? view_time(from)
		   : json_null();
}

static bool holds(const struct history_volume *v, uint32_t chunk, const char *node)
{
	for (uint32_t i = 0; i < v->replicas; i++)
		if (strcmp(v->nodes[v->map[(size_t)chunk * v->replicas + i]], node) == 0)
			return true;
	return false;
}

json_t *audit_chunks_json(const struct history_volume *v, const char *node, uint32_t *ret_count)
{
	json_t *list = json_array();
	uint32_t count = 0;

	for (uint32_t c = 0; c < v->chunk_count;) {
		uint32_t end = c;

		while (end < v->chunk_count && holds(v, end, node))
			end++;
		if (end > c)
			json_array_append_new(list,
					      json_pack("[I,I]", (json_int_t)c, (json_int_t)end));
		count += end - c;
		c = end > c ? end : c + 1;
	}
	*ret_count = count;
	return list;
}

const struct history_permit *audit_permit_at(const struct history_volume *v, const char *node,
					     int64_t at, uint64_t *ret_site_version)
{
	for (uint32_t i = v->permit_count; i-- > 0;) {
		const struct history_permit *p = &v->permits[i];

		if (p->first->issued_at > at || (!p->open && p->expires_at <= at))
			continue;
		for (size_t j = 0; j < p->first->n_nodes; j++) {
			if (strcmp(p->first->nodes[j]->node, node) != 0)
				continue;
			*ret_site_version = p->first->nodes[j]->site_version;
			return p;
		}
	}
	return NULL;
}
