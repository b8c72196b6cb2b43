/* disk: what every implementation shares: the checks of a caller's mistakes. See disk.h. */
#include "engine/disk/disk.h"

#include "engine/base/assert.h"

static bool is_aligned(uint64_t n)
{
	return n % BLOCK_SIZE == 0;
}

static void check_iovs(const struct disk_op *op)
{
	uint64_t sum = 0;

	PRE(op->iovs != NULL && op->iov_count >= 1 && op->iov_count <= DISK_IOV_MAX);
	for (uint32_t i = 0; i < op->iov_count; i++) {
		PRE(op->iovs[i].iov_len > 0 && is_aligned(op->iovs[i].iov_len));
		PRE(is_aligned((uintptr_t)op->iovs[i].iov_base));
		sum += op->iovs[i].iov_len;
	}
	PRE(sum == op->size);
}

void disk_submit(struct disk *disk, struct disk_op *op)
{
	PRE(op->done != NULL);
	if (op->kind != DISK_FLUSH) {
		PRE(is_aligned(op->offset) && is_aligned(op->size) && op->size > 0);
		PRE(op->size <= disk->size_bytes && op->offset <= disk->size_bytes - op->size);
	}
	if (op->kind == DISK_READ || op->kind == DISK_WRITE) {
		PRE(op->size <= DISK_IO_SIZE_MAX);
		check_iovs(op);
	}
	disk->ops->submit(disk, op);
}

void disk_close(struct disk *disk)
{
	if (disk != NULL)
		disk->ops->close(disk);
}
