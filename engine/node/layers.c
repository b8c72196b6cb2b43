/* node layers: reading a volume that has several layers (engine/ARCHITECTURE.md, "Snapshots"), and
 * what a newer permit says of them.
 *
 *   read the layer that was asked for --> what has no version there: read the next one below -->
 * ...
 *                                     --> all have one, or there is no layer below: answer
 *
 * A block that was discarded has a version: it hides what lies below.
 *
 * INVARIANTS
 *  1. Only layers that the session's permit names are read, in its order: those that it named when
 *     the read began.
 *  2. A volume with one layer never comes here.
 *
 * Failure modes: an error of one layer is the answer; another replica is asked then. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <utlist.h>

#include "engine/base/assert.h"
#include "engine/base/log.h"
#include "engine/node/shard.h"

/* Every other block may be missing. */
#define RUNS_MAX (IO_BLOCKS_MAX / 2 + 1)

struct layered_run {
	struct store_read op;
	struct node_layered *read;
};

struct node_layered {
	struct node_layered *next; /* free */
	struct node_shard *shard;
	struct node_request *request;
	volume_id_t layers[PERMIT_LAYERS_MAX]; /* from the one asked for down */
	uint32_t layer_count;
	uint32_t depth; /* of layers: being read */
	uint32_t reading;
	int status;
	version_t versions[IO_BLOCKS_MAX];
	struct layered_run runs[RUNS_MAX];
};

static struct node_layered *take(struct node_shard *shard)
{
	struct node_layered *l = shard->free_layered;

	if (l != NULL) {
		shard->free_layered = l->next;
		return l;
	}
	if (shard->layered_count == NODE_LAYERED_MAX)
		return NULL;
	l = calloc(1, sizeof(*l));
	if (l != NULL)
		shard->layered[shard->layered_count++] = l;
	return l;
}

void node_layered_free_all(struct node_shard *shard)
{
	for (uint32_t i = 0; i < shard->layered_count; i++)
		free(shard->layered[i]);
	shard->layered_count = 0;
	shard->free_layered = NULL;
}

static void finish(struct node_layered *l)
{
	struct node_shard *shard = l->shard;
	struct node_request *q = l->request;
	const int status = l->status;

	l->next = shard->free_layered;
	shard->free_layered = l;
	if (shard->waiting != NULL)
		node_requests_wake(shard);
	node_request_complete(q, status);
}

static void read_depth(struct node_layered *l);

static void run_done(struct store_read *op, int status)
{
	struct node_layered *l = container_of(op, struct layered_run, op)->read;

	if (status == -E_BAD_CRC)
		log_warn("node", "layer %llu chunk %u block %u does not check on the disk",
			 (unsigned long long)op->volume, op->chunk, op->block + op->bad_block);
	if (l->status == 0)
		l->status = status;
	if (--l->reading > 0)
		return;
	l->depth++;
	if (l->status != 0 || l->depth == l->layer_count)
		finish(l);
	else
		read_depth(l);
}

/* Reads in the layer what none above it has. */
static void read_depth(struct node_layered *l)
{
	struct node_request *q = l->request;
	const uint32_t count = q->ask.block_count;
	uint32_t runs = 0;

	for (uint32_t i = 0; i < count;) {
		struct layered_run *run = &l->runs[runs];
		uint32_t n = 0;

		while (i + n < count && l->versions[i + n] == 0)
			n++;
		if (n == 0) {
			i++;
			continue;
		}
		run->read = l;
		run->op = (struct store_read){
		    .done = run_done,
		    .volume = l->layers[l->depth],
		    .chunk = q->ask.chunk,
		    .block = q->ask.block + i,
		    .block_count = n,
		    .data = q->buffer.data + (size_t)i * BLOCK_SIZE,
		    .ret_crcs = &q->crcs[i],
		    .ret_versions = &l->versions[i],
		};
		runs++;
		i += n;
	}
	if (runs == 0) {
		finish(l);
		return;
	}
	l->reading = runs;
	for (uint32_t i = 0; i < runs; i++)
		pool_read(l->shard->config.pool, &l->runs[i].op);
}

bool node_layered_begin(struct node_request *q)
{
	const struct permit *p = &q->session->permit;
	struct node_layered *l = take(q->session->shard);
	uint32_t at = 0;

	if (l == NULL)
		return false;
	l->shard = q->session->shard;
	l->request = q;
	l->depth = 0;
	l->status = 0;
	l->layer_count = 0;
	while (at < p->layer_count && p->layers[at].id != q->layer)
		at++;
	while (at < p->layer_count)
		l->layers[l->layer_count++] = p->layers[at++].id;
	if (l->layer_count == 0) /* a newer permit names it no more */
		l->layers[l->layer_count++] = q->layer;
	memset(l->versions, 0, q->ask.block_count * sizeof(l->versions[0]));
	read_depth(l);
	return true;
}

/* -- permits ---------------------------------------------------------------------------------- */

void node_layers_sealed(struct node_session *s)
{
	struct node_session *t;

	if (s->permit.layer_count < 2)
		return;
	DL_FOREACH (s->shard->sessions, t) {
		for (uint32_t i = 0; t != s && i < t->permit.layer_count; i++) {
			const struct permit_layer *l =
			    permit_find_layer(&s->permit, t->permit.layers[i].id);

			if (l != NULL && !l->open)
				t->permit.layers[i].open = false;
		}
	}
}
