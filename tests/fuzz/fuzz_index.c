/* The index in kv: keys and values of every family. The first byte chooses; what decodes keeps its
 * bounds and encodes to the same bytes. */
#include <string.h>

#include "engine/base/assert.h"
#include "engine/store/format.h"
#include "tests/fuzz/fuzz.h"

static void check_page(const uint8_t *data, size_t size)
{
	struct format_slot slots[PAGE_BLOCKS], back[PAGE_BLOCKS];
	size_t again_size;
	uint8_t again[FORMAT_PAGE_VALUE_MAX];
	int rc = format_page_decode(data, size, slots);

	INVARIANT(rc == 0 || rc == -E_CORRUPT);
	if (rc != 0)
		return;
	for (uint32_t i = 0; i < PAGE_BLOCKS; i++)
		INVARIANT((slots[i].version == 0) == (slots[i].location == LOCATION_NONE));
	/* There are two forms; what is written is the shorter one, and says the same. */
	again_size = format_page_encode(slots, again);
	INVARIANT(again_size <= FORMAT_PAGE_VALUE_MAX);
	INVARIANT(format_page_decode(again, again_size, back) == 0);
	for (uint32_t i = 0; i < PAGE_BLOCKS; i++)
		INVARIANT(back[i].version == slots[i].version &&
			  back[i].location == slots[i].location &&
			  (!format_slot_has_data(&slots[i]) || back[i].crc == slots[i].crc));
}

static void check_segment(const uint8_t *data, size_t size)
{
	struct format_segment segment;
	struct format_traces traces;
	uint8_t again[FORMAT_VALUE_MAX];
	int rc = format_segment_decode(data, size, &segment, &traces);

	INVARIANT(rc == 0 || rc == -E_CORRUPT);
	if (rc != 0)
		return;
	INVARIANT(segment.state < FORMAT_SEGMENT_STATES && segment.stream <= 1);
	INVARIANT(segment.live <= FORMAT_SEGMENT_LIVE_MAX);
	if (segment.version == FORMAT_INDEX_VERSION)
		INVARIANT(format_segment_encode(&segment, &traces, again) == size &&
			  memcmp(again, data, size) == 0);
}

static void check_checkpoint(const uint8_t *data, size_t size)
{
	struct format_checkpoint checkpoint;
	uint8_t again[FORMAT_VALUE_MAX];
	int rc = format_checkpoint_decode(data, size, &checkpoint);

	INVARIANT(rc == 0 || rc == -E_CORRUPT);
	if (rc != 0)
		return;
	INVARIANT(checkpoint.last_seq[0] < checkpoint.next_seq &&
		  checkpoint.last_seq[1] < checkpoint.next_seq);
	INVARIANT(format_checkpoint_encode(&checkpoint, again) == size);
}

static void check_scrub(const uint8_t *data, size_t size)
{
	struct format_scrub scrub;
	uint8_t again[FORMAT_SCRUB_VALUE_MAX];

	if (format_scrub_decode(data, size, &scrub) != 0)
		return;
	INVARIANT(scrub.damage_count <= FORMAT_DAMAGE_MAX);
	INVARIANT(format_scrub_encode(&scrub, again) == size && memcmp(again, data, size) == 0);
}

static void check_replica(const uint8_t *data, size_t size)
{
	struct format_chunk chunk;
	struct format_leaf leaves[FORMAT_CHUNK_LEAVES];
	const struct format_leaf *places[FORMAT_CHUNK_LEAVES];
	uint8_t again[FORMAT_CHUNK_VALUE_MAX];
	generation_t generation;

	for (uint32_t i = 0; i < FORMAT_CHUNK_LEAVES; i++)
		places[i] = &leaves[i];
	if (format_chunk_decode(data, size, &chunk, leaves) == 0 &&
	    chunk.version == FORMAT_CHUNK_VERSION)
		INVARIANT(format_chunk_encode(&chunk, places, again) == size &&
			  memcmp(again, data, size) == 0);
	if (format_fence_decode(data, size, &generation) == 0)
		INVARIANT(generation <= GENERATION_MAX &&
			  format_fence_encode(generation, again) == size &&
			  memcmp(again, data, size) == 0);
}

static void check_keys(const uint8_t *data, size_t size)
{
	volume_id_t volume;
	uint32_t segment, prefix;
	chunk_no_t chunk;
	page_no_t page;
	uint8_t again[FORMAT_KEY_MAX];
	uint32_t shard = size >= 2 ? (uint32_t)(data[0] << 8 | data[1]) : 0;

	if (format_key_node_decode(data, size, &prefix) == 0)
		INVARIANT(format_key_node(prefix, again) == size && memcmp(again, data, size) == 0);
	if (format_key_page_decode(data, size, &volume, &chunk, &page) == 0)
		INVARIANT(format_key_page(shard, volume, chunk, page, again) == size &&
			  memcmp(again, data, size) == 0);
	if (format_key_chunk_decode(data, size, &volume, &chunk) == 0)
		INVARIANT(format_key_chunk(shard, volume, chunk, again) == size &&
			  memcmp(again, data, size) == 0);
	if (format_key_segment_decode(data, size, &segment) == 0)
		INVARIANT(format_key_segment(shard, segment, again) == size &&
			  memcmp(again, data, size) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static void (*const checks[])(const uint8_t *data, size_t size) = {
	    check_page, check_segment, check_checkpoint, check_replica, check_keys, check_scrub,
	};

	if (size > 0)
		checks[data[0] % ARRAY_SIZE(checks)](data + 1, size - 1);
	return 0;
}
