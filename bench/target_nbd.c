/* target nbd: any NBD server. An operation keeps its own memory, made when it is prepared. */
#include <errno.h>
#include <stdlib.h>

#include "bench/target.h"

static int prepare(struct target *t, struct target_op *op, uint32_t size_max)
{
	op->target = t;
	op->memory = aligned_alloc(BLOCK_SIZE, size_max);
	return op->memory != NULL ? 0 : -ENOMEM;
}

static void release(struct target_op *op)
{
	free(op->memory);
	op->memory = NULL;
}

static bool get(struct target *t, struct target_op *op)
{
	(void)t;
	op->data = op->memory;
	return true;
}

static void put(struct target *t, struct target_op *op)
{
	(void)t;
	op->data = NULL;
}

static void submitted_done(struct nbd_op *n, int status)
{
	struct target_op *op = container_of(n, struct target_op, u.nbd);

	op->done(op, status);
}

static void submit(struct target *t, struct target_op *op)
{
	op->u.nbd = (struct nbd_op){
	    .done = submitted_done,
	    .write = op->write,
	    .offset = op->offset,
	    .size = op->size,
	    .data = op->data,
	};
	nbd_client_submit(t->nbd, &op->u.nbd);
}

static void on_room(struct target *t, struct reactor_task *task)
{
	reactor_defer(t->reactor, task); /* there always is some */
}

static void counts(struct target *t, struct target_counts *ret)
{
	(void)t;
	*ret = (struct target_counts){0};
}

static void close_nbd(struct target *t, void (*done)(void *arg), void *arg)
{
	nbd_client_close(t->nbd);
	done(arg);
}

static const struct target_ops nbd_ops = {
    .prepare = prepare,
    .release = release,
    .get = get,
    .put = put,
    .submit = submit,
    .on_room = on_room,
    .counts = counts,
    .close = close_nbd,
};

int target_nbd_open(struct target *t, struct reactor *r, const char *uri, bool insecure,
		    struct error *err)
{
	*t = (struct target){.ops = &nbd_ops, .reactor = r, .depth_max = NBD_CLIENT_DEPTH_MAX};
	if (nbd_client_open(r, uri, insecure, &t->nbd, err) != 0)
		return err->code;
	t->size = nbd_client_size(t->nbd) / BLOCK_SIZE * BLOCK_SIZE;
	return 0;
}
