/* fetch: see fetch.h. */
#include "engine/volume/fetch.h"

#include <errno.h>

#include "engine/base/assert.h"
#include "engine/volume/core.h"

static void ask_changes(struct vfetch *f);

static void finish(struct vfetch *f, int status)
{
	f->busy = false;
	f->done(f, status);
}

static void state_done(struct rpc_call *call, int status, const Pave__V1__Control *reply,
		       const char *text)
{
	struct vfetch *f = container_of(call, struct vfetch, call);
	struct vslot *s = &f->chunk->slots[f->slot];

	(void)text;
	if (status == 0 && reply->body_case != PAVE__V1__CONTROL__BODY_CHUNKS_REPLY)
		status = -E_BAD_FRAME;
	if (status == 0) {
		const Pave__V1__ChunksReply *r = reply->chunks_reply;
		bool listed = false;

		s->reported_watermark = s->reported_newest = 0;
		for (size_t i = 0; i < r->n_chunks; i++) {
			if (r->chunks[i]->chunk != f->chunk->no)
				continue;
			s->reported_watermark = r->chunks[i]->watermark;
			s->reported_newest = r->chunks[i]->newest;
			listed = true;
			status = -(int)MIN(r->chunks[i]->status, (uint32_t)FRAME_STATUS_MAX);
		}
		if (!listed)
			status = -(int)MIN(r->absent_status, (uint32_t)FRAME_STATUS_MAX);
		s->fresh = s->outstanding == 0;
	}
	finish(f, status);
}

void vfetch_state(struct vfetch *f, struct vchunk *c, uint32_t slot,
		  void (*done)(struct vfetch *f, int status), void *owner)
{
	Pave__V1__Control message = PAVE__V1__CONTROL__INIT;
	Pave__V1__Chunks chunks = PAVE__V1__CHUNKS__INIT;

	PRE(!f->busy);
	*f = (struct vfetch){.chunk = c, .slot = slot, .busy = true, .done = done, .owner = owner};
	chunks.from = c->no;
	chunks.max = 1;
	chunks.layer = c->layer;
	message.body_case = PAVE__V1__CONTROL__BODY_CHUNKS;
	message.chunks = &chunks;
	f->call.done = state_done;
	rpc_call_start(&c->slots[slot].replica->rpc, &f->call, &message, 0);
}

static int take_changes(struct vfetch *f, const Pave__V1__ChangesReply *reply)
{
	for (size_t i = 0; i < reply->n_changes; i++) {
		const Pave__V1__Change *ch = reply->changes[i];
		const struct vplan_run run = {
		    .block = ch->block,
		    .block_count = ch->block_count,
		    .version = ch->version,
		    .zero = ch->zero,
		};
		int rc;

		if (ch->version <= f->above || f->list->count >= vchunk_blocks(f->chunk))
			return -E_BAD_FRAME;
		rc = vplan_list_add(f->list, &run);
		if (rc != 0)
			return rc;
	}
	if (reply->more && reply->next <= f->from)
		return -E_BAD_FRAME;
	f->from = reply->more ? reply->next : UINT32_MAX;
	return 0;
}

static void changes_done(struct rpc_call *call, int status, const Pave__V1__Control *reply,
			 const char *text)
{
	struct vfetch *f = container_of(call, struct vfetch, call);

	(void)text;
	if (status == 0 && reply->body_case != PAVE__V1__CONTROL__BODY_CHANGES_REPLY)
		status = -E_BAD_FRAME;
	if (status == 0)
		status = take_changes(f, reply->changes_reply);
	f->pages++;
	if (status != 0 || f->from == UINT32_MAX || f->pages == f->pages_max)
		finish(f, status);
	else
		ask_changes(f);
}

static void ask_changes(struct vfetch *f)
{
	Pave__V1__Control message = PAVE__V1__CONTROL__INIT;
	Pave__V1__Changes changes = PAVE__V1__CHANGES__INIT;

	changes.chunk = f->chunk->no;
	changes.above = f->above;
	changes.layer = f->layer;
	changes.from = f->from;
	message.body_case = PAVE__V1__CONTROL__BODY_CHANGES;
	message.changes = &changes;
	f->call.done = changes_done;
	rpc_call_start(&f->chunk->slots[f->slot].replica->rpc, &f->call, &message, 0);
}

static void begin_changes(struct vfetch *f, const struct vfetch *what)
{
	PRE(!f->busy);
	*f = *what;
	f->busy = true;
	ask_changes(f);
}

void vfetch_changes(struct vfetch *f, struct vchunk *c, uint32_t slot, version_t above,
		    block_no_t from, uint32_t pages_max, struct vplan_list *list,
		    void (*done)(struct vfetch *f, int status), void *owner)
{
	begin_changes(f, &(struct vfetch){
			     .chunk = c,
			     .slot = slot,
			     .layer = c->layer,
			     .above = above,
			     .from = from,
			     .pages_max = pages_max,
			     .list = list,
			     .done = done,
			     .owner = owner,
			 });
}

void vfetch_sealed(struct vfetch *f, struct vchunk *c, volume_id_t layer, uint32_t slot,
		   block_no_t from, uint32_t pages_max, struct vplan_list *list,
		   void (*done)(struct vfetch *f, int status), void *owner)
{
	begin_changes(f, &(struct vfetch){
			     .chunk = c,
			     .slot = slot,
			     .layer = layer,
			     .from = from,
			     .pages_max = pages_max,
			     .list = list,
			     .done = done,
			     .owner = owner,
			 });
}

void vfetch_cancel(struct vfetch *f)
{
	if (f->busy)
		rpc_call_cancel(&f->call);
	f->busy = false;
}
