/* receipt: see receipt.h. */
#include "engine/node/receipt.h"

#include <errno.h>
#include <openssl/evp.h>
#include <string.h>

#include "engine/base/assert.h"

#define RECORD_SIZE 24u

int receipt_counter_init(struct receipt_counter *c)
{
	c->digest = EVP_MD_CTX_new();
	c->used = 0;
	c->body = (struct node_receipt){0};
	return c->digest != NULL ? 0 : -ENOMEM;
}

void receipt_counter_deinit(struct receipt_counter *c)
{
	EVP_MD_CTX_free(c->digest);
	c->digest = NULL;
}

bool receipt_same_permit(const struct permit *a, const struct permit *b)
{
	if (a->volume != b->volume || a->generation != b->generation ||
	    a->map_version != b->map_version || a->read_only != b->read_only ||
	    a->node_count != b->node_count || strcmp(a->holder, b->holder) != 0 ||
	    strcmp(a->holder_site, b->holder_site) != 0 ||
	    memcmp(a->policy_digest, b->policy_digest, sizeof a->policy_digest) != 0)
		return false;
	for (uint32_t i = 0; i < a->node_count; i++)
		if (strcmp(a->nodes[i].node, b->nodes[i].node) != 0 ||
		    strcmp(a->nodes[i].site, b->nodes[i].site) != 0 ||
		    a->nodes[i].site_version != b->nodes[i].site_version)
			return false;
	return true;
}

static void begin(struct receipt_counter *c, const struct permit *permit, uint64_t site_version,
		  uint64_t now_ns, int64_t wall_ns)
{
	struct node_receipt *b = &c->body;

	*b = (struct node_receipt){
	    .volume = permit->volume,
	    .generation = permit->generation,
	    .first_serial = permit->serial,
	    .site_version = site_version,
	    /* A driver's clock that has leapt forward since it was measured said at least this. */
	    .from = MAX(wall_ns, permit->issued_at),
	};
	memcpy(b->policy_digest, permit->policy_digest, sizeof b->policy_digest);
	c->began_ns = now_ns;
	c->used = 0;
	/* It only sets up memory that is there: a failure shows in the chain, which is then zero.
	 */
	if (EVP_DigestInit_ex(c->digest, EVP_sha256(), NULL) != 1)
		memset(b->chain, 0, sizeof b->chain);
}

static void put32(uint8_t *p, uint32_t v)
{
	for (unsigned i = 0; i < 4; i++)
		p[i] = (uint8_t)(v >> (8 * i));
}

static void hash_buffer(struct receipt_counter *c)
{
	EVP_DigestUpdate(c->digest, c->buffer, c->used);
	c->used = 0;
}

static bool is_empty(const struct receipt_counter *c)
{
	return c->body.count == 0 && c->body.pulled_blocks == 0;
}

void receipt_count(struct receipt_counter *c, const struct permit *permit, uint64_t site_version,
		   uint8_t op, bool discard, version_t version, chunk_no_t chunk, block_no_t block,
		   uint32_t block_count, const uint32_t *crcs, uint64_t now_ns, int64_t wall_ns)
{
	const size_t crcs_size = crcs != NULL ? block_count * sizeof *crcs : 0;
	struct node_receipt *b = &c->body;
	uint8_t *p;

	PRE(RECORD_SIZE + crcs_size <= RECEIPT_BUFFER);
	if (is_empty(c))
		begin(c, permit, site_version, now_ns, wall_ns);
	if (c->used + RECORD_SIZE + crcs_size > RECEIPT_BUFFER)
		hash_buffer(c);
	p = c->buffer + c->used;
	put32(p, (uint32_t)version);
	put32(p + 4, (uint32_t)(version >> 32));
	put32(p + 8, chunk);
	put32(p + 12, block);
	put32(p + 16, block_count);
	put32(p + 20, op | (uint32_t)discard << 8);
	if (crcs_size > 0)
		memcpy(p + RECORD_SIZE, crcs, crcs_size);
	c->used += RECORD_SIZE + (uint32_t)crcs_size;
	if (b->count == 0)
		b->first_version = version;
	b->count++;
	b->bytes += crcs != NULL ? (uint64_t)block_count * BLOCK_SIZE : 0;
	b->last_version = MAX(b->last_version, version);
	b->last_serial = permit->serial;
	c->last_ns = now_ns;
}

void receipt_count_pulled(struct receipt_counter *c, const struct permit *permit,
			  uint64_t site_version, uint64_t blocks, uint64_t now_ns, int64_t wall_ns)
{
	if (blocks == 0)
		return;
	if (is_empty(c))
		begin(c, permit, site_version, now_ns, wall_ns);
	c->body.pulled_blocks += blocks;
	c->body.last_serial = permit->serial;
	c->last_ns = now_ns;
}

bool receipt_close(struct receipt_counter *c, struct node_receipt *ret)
{
	if (is_empty(c))
		return false;
	hash_buffer(c);
	if (EVP_DigestFinal_ex(c->digest, c->body.chain, NULL) != 1)
		memset(c->body.chain, 0, sizeof c->body.chain);
	c->body.until = c->body.from + (int64_t)(c->last_ns - c->began_ns);
	*ret = c->body;
	c->body = (struct node_receipt){0};
	return true;
}
