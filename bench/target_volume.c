/* target volume: the volume client itself, as an attached host has it, with no NBD in between. */
#include "bench/target.h"

static int prepare(struct target *t, struct target_op *op, uint32_t size_max)
{
	(void)size_max;
	op->target = t;
	return 0;
}

static void release(struct target_op *op)
{
	(void)op;
}

static bool get(struct target *t, struct target_op *op)
{
	op->buffer = volume_buffer_get(t->volume, op->size);
	op->data = op->buffer != NULL ? op->buffer->data : NULL;
	return op->buffer != NULL;
}

static void put(struct target *t, struct target_op *op)
{
	volume_buffer_put(t->volume, op->buffer);
	op->buffer = NULL;
	op->data = NULL;
}

static void submitted_done(struct volume_op *v, int status)
{
	struct target_op *op = container_of(v, struct target_op, u.volume);

	op->done(op, status);
}

static void submit(struct target *t, struct target_op *op)
{
	op->u.volume = (struct volume_op){
	    .done = submitted_done,
	    .kind = op->write ? VOLUME_WRITE : VOLUME_READ,
	    .offset = op->offset,
	    .size = op->size,
	    .buffer = op->buffer,
	};
	/* What was in the buffer before is not what it holds now. */
	op->buffer->crcs_known = false;
	volume_submit(t->volume, &op->u.volume);
}

static void on_room(struct target *t, struct reactor_task *task)
{
	volume_on_room(t->volume, task);
}

static void counts(struct target *t, struct target_counts *ret)
{
	struct volume_stats s;

	volume_get_stats(t->volume, &s);
	*ret = (struct target_counts){
	    .permits = s.permits,
	    .read_retries = s.read_retries,
	    .reconciled_blocks = s.reconciled_blocks,
	    .resyncs = s.resyncs,
	    .repairs = s.repairs,
	    .freezes = s.freezes,
	    .layers_begun = s.layers_begun,
	    .layers_pause_ns = s.layers_pause_ns,
	    .layers_work_ns = s.layers_work_ns,
	};
}

static void close_volume(struct target *t, void (*done)(void *arg), void *arg)
{
	volume_close(t->volume, done, arg);
}

static const struct target_ops volume_ops = {
    .prepare = prepare,
    .release = release,
    .get = get,
    .put = put,
    .submit = submit,
    .on_room = on_room,
    .counts = counts,
    .close = close_volume,
};

void target_volume_init(struct target *t, struct reactor *r, struct volume *v)
{
	*t = (struct target){
	    .ops = &volume_ops,
	    .reactor = r,
	    .size = volume_size(v) / BLOCK_SIZE * BLOCK_SIZE,
	    .depth_max = VOLUME_OPS_MAX,
	    .volume = v,
	};
}
