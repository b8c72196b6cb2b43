/* The driver's ledger in pieces, and into a file (pave audit export). */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "engine/ledger/chain.h"
#include "tools/pave/audit.h"
#include "tools/pave/client.h"
#include "tools/pave/cmd.h"

#define READ_MS 60000u

static void put_item(FILE *out, enum ledger_item_kind kind, const void *bytes, size_t size)
{
	uint8_t head[LEDGER_ITEM_HEAD];

	ledger_item_head(kind, size, head);
	fwrite(head, 1, sizeof head, out);
	fwrite(bytes, 1, size, out);
}

static int put_head(FILE *out, const Pave__V1__Signed *head, struct error *err)
{
	size_t size;
	uint8_t *bytes;

	if (head == NULL)
		return error_set(err, -E_BAD_DOCUMENT, "the driver has sent no signed head");
	size = pave__v1__signed__get_packed_size(head);
	bytes = malloc(size + 1);
	if (bytes == NULL)
		return error_set(err, -ENOMEM, "no memory");
	pave__v1__signed__pack(head, bytes);
	put_item(out, LEDGER_ITEM_SIGNED_HEAD, bytes, size);
	free(bytes);
	return 0;
}

int audit_write(FILE *out, uint64_t *ret_records, struct error *err)
{
	Pave__V1__Control m = PAVE__V1__CONTROL__INIT, *reply;
	Pave__V1__LedgerRead ask = PAVE__V1__LEDGER_READ__INIT;
	struct cluster_ref cluster;
	struct client *c = NULL;
	bool more = true;
	int rc = cmd_cluster(&cluster, err);

	if (rc == 0)
		rc = client_open(&cluster, &c, err);
	ask.from = 1;
	m.body_case = PAVE__V1__CONTROL__BODY_LEDGER_READ;
	m.ledger_read = &ask;
	fwrite(LEDGER_MAGIC, 1, LEDGER_MAGIC_LEN, out);
	while (rc == 0 && more) {
		const Pave__V1__LedgerReadReply *r;

		rc = client_call(c, &m, PAVE__V1__CONTROL__BODY_LEDGER_READ_REPLY, READ_MS, &reply,
				 err);
		if (rc != 0)
			break;
		r = reply->ledger_read_reply;
		for (size_t i = 0; i < r->n_records; i++)
			put_item(out, LEDGER_ITEM_RECORD, r->records[i].data, r->records[i].len);
		more = r->more && r->next > ask.from;
		if (!r->more)
			rc = put_head(out, r->head, err);
		ask.from = r->next;
		pave__v1__control__free_unpacked(reply, NULL);
	}
	client_close(c);
	if (rc == 0 && out != stdout && (fflush(out) != 0 || ferror(out)))
		rc = error_set(err, -EIO, "it cannot be written: %s", strerror(errno));
	*ret_records = ask.from - 1;
	return rc;
}

int audit_fetch(char **ret, size_t *ret_size, struct error *err)
{
	char *text = NULL;
	uint64_t records;
	FILE *out = open_memstream(&text, ret_size);
	int rc;

	if (out == NULL)
		return error_set(err, -ENOMEM, "no memory");
	rc = audit_write(out, &records, err);
	fclose(out);
	if (rc != 0)
		free(text);
	else
		*ret = text;
	return rc;
}
