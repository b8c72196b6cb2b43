/* mutants of the devices of a node: see mutants.h. */
#include "engine/pool/core.h"
#include "tests/sim/mutants.h"

void __real_mover_note_change(struct pool *pool, block_no_t block, uint32_t block_count);
void __wrap_mover_note_change(struct pool *pool, block_no_t block, uint32_t block_count);
void __wrap_mover_note_change(struct pool *pool, block_no_t block, uint32_t block_count)
{
	if (mutant_now() != MUTANT_MOVE_STALE)
		__real_mover_note_change(pool, block, block_count);
}

void __real_record_put_move(struct kv *kv, struct kv_batch *batch, const struct move_record *r);
void __wrap_record_put_move(struct kv *kv, struct kv_batch *batch, const struct move_record *r);
void __wrap_record_put_move(struct kv *kv, struct kv_batch *batch, const struct move_record *r)
{
	if (mutant_now() != MUTANT_MOVE_UNRECORDED)
		__real_record_put_move(kv, batch, r);
}

typedef int record_chunk(volume_id_t volume, chunk_no_t chunk, void *arg);

int __real_record_scan_chunks(struct kv *kv, uint32_t slot, uint32_t shard, record_chunk *each,
			      void *arg);
int __wrap_record_scan_chunks(struct kv *kv, uint32_t slot, uint32_t shard, record_chunk *each,
			      void *arg);
int __wrap_record_scan_chunks(struct kv *kv, uint32_t slot, uint32_t shard, record_chunk *each,
			      void *arg)
{
	if (mutant_now() == MUTANT_ABSENT_DENIED)
		return 0;
	return __real_record_scan_chunks(kv, slot, shard, each, arg);
}

void __real_mover_search(struct pool *pool);
void __wrap_mover_search(struct pool *pool);
void __wrap_mover_search(struct pool *pool)
{
	if (mutant_now() == MUTANT_ABSENT_DENIED)
		pool->absent = false;
	__real_mover_search(pool);
}
