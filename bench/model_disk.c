/* model_disk: see model_disk.h. */
#include "bench/model_disk.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "engine/base/assert.h"

struct model_disk {
	struct disk head;
	struct sim_process *process;
	struct model_disk_config config;
	struct model_disk_stats stats;
	uint64_t busy_until_ns;
	uint8_t *contents;
};

struct model_op {
	struct model_disk *disk;
};

static struct model_disk *model_of(struct disk *disk)
{
	return container_of(disk, struct model_disk, head);
}

static void copy(struct model_disk *d, const struct disk_op *op)
{
	uint8_t *at = d->contents + op->offset;

	for (uint32_t i = 0; i < op->iov_count; i++) {
		if (op->kind == DISK_READ)
			memcpy(op->iovs[i].iov_base, at, op->iovs[i].iov_len);
		else
			memcpy(at, op->iovs[i].iov_base, op->iovs[i].iov_len);
		at += op->iovs[i].iov_len;
	}
}

static void complete(void *arg)
{
	struct disk_op *op = arg;
	struct model_op *m = (struct model_op *)(void *)op->impl;

	if (op->kind == DISK_READ || op->kind == DISK_WRITE)
		copy(m->disk, op);
	op->done(op, 0);
}

static void submit(struct disk *disk, struct disk_op *op)
{
	struct model_disk *d = model_of(disk);
	const struct model_disk_config *c = &d->config;
	uint64_t now_ns = d->process->world->now_ns;
	uint64_t hold_ns = c->op_ns, delay_ns = 0;

	((struct model_op *)(void *)op->impl)->disk = d;
	if (op->kind == DISK_READ) {
		d->stats.reads++;
		d->stats.read_bytes += op->size;
		delay_ns = c->read_ns;
	} else if (op->kind == DISK_WRITE) {
		d->stats.writes++;
		d->stats.written_bytes += op->size;
		delay_ns = c->write_ns;
	}
	if (op->kind == DISK_READ || op->kind == DISK_WRITE)
		hold_ns += op->size * NS_PER_S / c->bytes_per_s;
	d->stats.busy_ns += hold_ns;
	d->busy_until_ns = MAX(d->busy_until_ns, now_ns) + hold_ns;
	sim_schedule(d->process->world, d->process, d->busy_until_ns + delay_ns - now_ns, complete,
		     op);
}

static void close_disk(struct disk *disk)
{
	struct model_disk *d = model_of(disk);

	munmap(d->contents, d->config.size_bytes);
	free(d);
}

static const struct disk_ops model_ops = {.submit = submit, .close = close_disk};

struct disk *model_disk_create(struct sim_process *p, const struct model_disk_config *config)
{
	struct model_disk *d = calloc(1, sizeof *d);

	PRE(config->size_bytes % BLOCK_SIZE == 0 && config->bytes_per_s > 0);
	if (d == NULL)
		return NULL;
	d->contents = mmap(NULL, config->size_bytes, PROT_READ | PROT_WRITE,
			   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (d->contents == MAP_FAILED) {
		free(d);
		return NULL;
	}
	d->config = *config;
	d->process = p;
	d->head = (struct disk){
	    .ops = &model_ops, .reactor = sim_reactor(p), .size_bytes = config->size_bytes};
	snprintf(d->head.name, sizeof d->head.name, "%s", "model");
	return &d->head;
}

const struct model_disk_stats *model_disk_stats(struct disk *disk)
{
	return &model_of(disk)->stats;
}
