/* The frame codec: the layout to the byte, what each operation must look like, and that nothing
 * else is accepted. */
#include <check.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/crc32c.h"
#include "net/frame/frame.h"

static struct frame write_frame(void)
{
	return (struct frame){
	    .wire_version = FRAME_VERSION,
	    .op = FRAME_WRITE,
	    .request_id = 0x0102030405060708ull,
	    .chunk = 0x11121314,
	    .block = 0x00012324,
	    .block_count = 3,
	    .payload_size = 3 * BLOCK_SIZE,
	    .version = version_make(0x313233, 0x3435363738ull),
	    .watermark = version_make(0x313233, 0x3435363737ull),
	    .crc_count = 3,
	};
}

static void seal(uint8_t *h)
{
	const uint32_t crc = crc32c(0, h, 60);

	for (int i = 0; i < 4; i++)
		h[60 + i] = (uint8_t)(crc >> (8 * i));
}

/* What the decoder says to f; an encoder that is not ours may send anything. */
static int judge(const struct frame *f)
{
	uint8_t h[FRAME_HEADER_SIZE];
	struct frame got, sane = *f;

	sane.payload_size = MIN(f->payload_size, FRAME_CONTROL_MAX);
	sane.crc_count = frame_crc_count(sane.payload_size);
	frame_encode_header(&sane, h);
	for (int i = 0; i < 4; i++)
		h[28 + i] = (uint8_t)(f->payload_size >> (8 * i));
	h[52] = (uint8_t)f->crc_count;
	h[53] = (uint8_t)(f->crc_count >> 8);
	seal(h);
	return frame_decode_header(h, &got);
}

START_TEST(test_layout)
{
	const struct frame f = write_frame();
	static const uint8_t want[60] = {'P',  'V',  'F',  '1',	 FRAME_VERSION,
					 2,    0,    0,	   8,	 7,
					 6,    5,    4,	   3,	 2,
					 1,    0x14, 0x13, 0x12, 0x11,
					 0x24, 0x23, 0x01, 0x00, 3,
					 0,    0,    0,	   0,	 0x30,
					 0,    0,    0x38, 0x37, 0x36,
					 0x35, 0x34, 0x33, 0x32, 0x31,
					 0x37, 0x37, 0x36, 0x35, 0x34,
					 0x33, 0x32, 0x31, 0,	 0,
					 0,    0,    3,	   0,	 0,
					 0,    0,    0,	   0,	 0};
	uint8_t h[FRAME_HEADER_SIZE], sealed[FRAME_HEADER_SIZE];
	struct frame got;

	frame_encode_header(&f, h);
	ck_assert_mem_eq(h, want, sizeof(want));
	memcpy(sealed, want, sizeof(want));
	seal(sealed);
	ck_assert_mem_eq(h, sealed, sizeof(sealed));
	ck_assert_int_eq(frame_decode_header(h, &got), 0);
	ck_assert_uint_eq(got.request_id, f.request_id);
	ck_assert_uint_eq(got.chunk, f.chunk);
	ck_assert_uint_eq(got.block, f.block);
	ck_assert_uint_eq(got.block_count, f.block_count);
	ck_assert_uint_eq(got.payload_size, f.payload_size);
	ck_assert_uint_eq(got.version, f.version);
	ck_assert_uint_eq(got.watermark, f.watermark);
	ck_assert_uint_eq(got.crc_count, f.crc_count);
	ck_assert_ptr_null(got.crcs);
	ck_assert_ptr_null(got.payload);
}
END_TEST

/* Every single flipped bit is noticed, as what it is, and the result stays untouched. */
START_TEST(test_flipped_bits)
{
	const struct frame f = write_frame();
	uint8_t h[FRAME_HEADER_SIZE];

	for (unsigned bit = 0; bit < 8 * FRAME_HEADER_SIZE; bit++) {
		struct frame got = {.op = 99};

		frame_encode_header(&f, h);
		h[bit / 8] ^= (uint8_t)(1u << (bit % 8));
		ck_assert_int_eq(frame_decode_header(h, &got),
				 bit < 32 ? -E_BAD_FRAME : -E_BAD_CRC);
		ck_assert_uint_eq(got.op, 99);
	}
}
END_TEST

START_TEST(test_versions)
{
	struct frame f = write_frame();

	f.wire_version = FRAME_VERSION + 1;
	ck_assert_int_eq(judge(&f), -E_WIRE_VERSION);
	f.wire_version = FRAME_VERSION_MIN - 1;
	ck_assert_int_eq(judge(&f), -E_WIRE_VERSION);
	f.wire_version = FRAME_VERSION;
	ck_assert_int_eq(judge(&f), 0);
}
END_TEST

START_TEST(test_reserved)
{
	const struct frame f = write_frame();
	uint8_t h[FRAME_HEADER_SIZE];
	struct frame got;

	for (unsigned i = 54; i < 56; i++) {
		frame_encode_header(&f, h);
		h[i] = 1;
		seal(h);
		ck_assert_int_eq(frame_decode_header(h, &got), -E_BAD_FRAME);
	}
}
END_TEST

START_TEST(test_layer)
{
	struct frame f = write_frame();
	uint8_t h[FRAME_HEADER_SIZE];
	struct frame got;

	f.layer = 0x12345678;
	frame_encode_header(&f, h);
	ck_assert_int_eq(frame_decode_header(h, &got), 0);
	ck_assert_uint_eq(got.layer, f.layer);
	/* Neither answers nor control messages are of a layer. */
	f = (struct frame){
	    .wire_version = FRAME_VERSION, .op = FRAME_WRITE, .flags = FRAME_F_REPLY};
	ck_assert_int_eq(judge(&f), 0);
	f.layer = 1;
	ck_assert_int_eq(judge(&f), -E_BAD_FRAME);
	f = (struct frame){.wire_version = FRAME_VERSION, .op = FRAME_CONTROL, .layer = 1};
	ck_assert_int_eq(judge(&f), -E_BAD_FRAME);
}
END_TEST

/* Each begins with a good frame of its operation. */
#define BAD(change)                                                                                \
	do {                                                                                       \
		struct frame keep = f;                                                             \
		ck_assert_int_eq(judge(&f), 0);                                                    \
		change;                                                                            \
		ck_assert_int_eq(judge(&f), -E_BAD_FRAME);                                         \
		f = keep;                                                                          \
	} while (0)
#define GOOD(change)                                                                               \
	do {                                                                                       \
		struct frame keep = f;                                                             \
		change;                                                                            \
		ck_assert_int_eq(judge(&f), 0);                                                    \
		f = keep;                                                                          \
	} while (0)

START_TEST(test_requests)
{
	struct frame f = write_frame();

	BAD(f.op = 0);
	BAD(f.op = FRAME_FETCH + 1);
	BAD(f.op = 255);
	BAD(f.flags = 32);
	GOOD(f.flags = FRAME_F_SETTLE);
	BAD(f.flags = FRAME_F_SETTLE; f.wire_version = FRAME_VERSION_SETTLE - 1);
	GOOD(f.wire_version = FRAME_VERSION_SETTLE - 1);
	GOOD(f.flags = FRAME_F_TRACE);
	BAD(f.flags = FRAME_F_TRACE | FRAME_F_MORE);
	BAD(f.flags = 0x8000);
	BAD(f.flags = FRAME_F_DISCARD);
	BAD(f.flags = FRAME_F_MORE);
	BAD(f.status = 5);
	BAD(f.status = -5);
	BAD(f.crc_count = 2);
	BAD(f.crc_count = 4);
	BAD(f.payload_size -= 1);
	BAD(f.payload_size += BLOCK_SIZE; f.crc_count++);
	BAD(f.block_count = 0; f.payload_size = 0; f.crc_count = 0);
	BAD(f.block_count = 0x100003); /* its product with 4096 overflows to the same size */
	BAD(f.block_count = IO_BLOCKS_MAX + 1; f.payload_size = f.block_count * BLOCK_SIZE;
	    f.crc_count = IO_BLOCKS_MAX + 1);
	BAD(f.block = (1u << 18) - 2);
	BAD(f.block = UINT32_MAX);
	BAD(f.version = 0);
	BAD(f.version = version_make(7, 0));
	GOOD(f.block = (1u << 18) - 3);
	GOOD(f.block_count = IO_BLOCKS_MAX; f.payload_size = IO_SIZE_MAX;
	     f.crc_count = IO_BLOCKS_MAX);
}
END_TEST

START_TEST(test_requests_without_payload)
{
	struct frame f = write_frame();

	f.op = FRAME_READ;
	f.payload_size = 0;
	f.crc_count = 0;
	BAD(f.payload_size = BLOCK_SIZE; f.crc_count = 1);
	BAD(f.block_count = 0);
	BAD(f.block_count = IO_BLOCKS_MAX + 1);
	BAD(f.flags = FRAME_F_DISCARD);
	GOOD(f.flags = FRAME_F_TRACE);

	f.op = FRAME_ZERO;
	GOOD(f.flags = FRAME_F_DISCARD | FRAME_F_TRACE);
	GOOD(f.flags = FRAME_F_DISCARD);
	BAD(f.flags = FRAME_F_DISCARD | FRAME_F_MORE);
	BAD(f.block_count = IO_BLOCKS_MAX + 1);
	BAD(f.version = 0);
	BAD(f.payload_size = BLOCK_SIZE; f.crc_count = 1);

	f.op = FRAME_WATERMARK;
	BAD(f.flags = FRAME_F_TRACE; f.payload_size = 0; f.crc_count = 0);
	BAD(f.payload_size = 1; f.crc_count = 1);
	BAD(f.flags = FRAME_F_MORE);

	f.op = FRAME_FETCH;
	f.version = 0;
	BAD(f.block = 1u << 18);
	BAD(f.payload_size = 1; f.crc_count = 1);
	GOOD(f.block = (1u << 18) - 1);

	f.op = FRAME_CONTROL;
	GOOD(f.payload_size = 1; f.crc_count = 1);
	GOOD(f.payload_size = FRAME_CONTROL_MAX; f.crc_count = FRAME_CRCS_MAX);
	BAD(f.payload_size = FRAME_CONTROL_MAX + 1; f.crc_count = FRAME_CRCS_MAX + 1);
	BAD(f.payload_size = UINT32_MAX; f.crc_count = 0);
	BAD(f.flags = FRAME_F_MORE);
	BAD(f.status = 1);
}
END_TEST

START_TEST(test_replies)
{
	struct frame f = {
	    .wire_version = 1, .op = FRAME_WRITE, .flags = FRAME_F_REPLY, .request_id = 9};

	GOOD(f.status = ENOSPC);
	GOOD(f.status = E_FENCED);
	GOOD(f.status = FRAME_STATUS_MAX);
	BAD(f.status = FRAME_STATUS_MAX + 1);
	BAD(f.status = -1);
	BAD(f.status = INT32_MIN);
	BAD(f.payload_size = BLOCK_SIZE; f.crc_count = 1);
	BAD(f.flags |= FRAME_F_DISCARD);
	BAD(f.flags |= FRAME_F_MORE);
	GOOD(f.flags |= FRAME_F_TRACE; f.chunk = f.block = f.block_count = UINT32_MAX);
	BAD(f.flags |= FRAME_F_TRACE; f.status = ENOSPC);
	BAD(f.op = FRAME_WATERMARK; f.flags |= FRAME_F_TRACE);
	BAD(f.op = 0);
	BAD(f.op = 0; f.status = 5);
	BAD(f.op = 7; f.status = 5);

	f.op = FRAME_READ;
	f.payload_size = IO_SIZE_MAX;
	f.crc_count = IO_BLOCKS_MAX;
	GOOD(f.status = 5; f.payload_size = 0; f.crc_count = 0);
	BAD(f.payload_size = 0; f.crc_count = 0);
	BAD(f.status = 5);
	BAD(f.payload_size -= 1);
	BAD(f.payload_size += BLOCK_SIZE; f.crc_count++);
	GOOD(f.flags |= FRAME_F_TRACE; f.block = UINT32_MAX);

	f.op = FRAME_FETCH;
	BAD(f.flags |= FRAME_F_TRACE);
	GOOD(f.flags |= FRAME_F_MORE; f.block = 1u << 18);
	BAD(f.flags |= FRAME_F_MORE; f.status = 5; f.payload_size = 0; f.crc_count = 0);
	BAD(f.block = (1u << 18) + 1);
	BAD(f.payload_size += BLOCK_SIZE; f.crc_count++);
	GOOD(f.payload_size = 4097; f.crc_count = 2);

	f.op = FRAME_CONTROL;
	GOOD(f.status = E_DENIED; f.payload_size = 20; f.crc_count = 1);
	BAD(f.status = FRAME_STATUS_MAX + 1);
	BAD(f.flags |= FRAME_F_DISCARD);
}
END_TEST

START_TEST(test_payload_crcs)
{
	static const uint32_t sizes[] = {0, 1, 4095, 4096, 4097, 8192, 100000, FRAME_CONTROL_MAX};
	uint8_t *data = malloc(FRAME_CONTROL_MAX);
	uint32_t crcs[FRAME_CRCS_MAX];

	for (uint32_t i = 0; i < FRAME_CONTROL_MAX; i++)
		data[i] = (uint8_t)(i * 2654435761u >> 13);
	for (size_t s = 0; s < ARRAY_SIZE(sizes); s++) {
		struct frame f = {.payload_size = sizes[s],
				  .crc_count = frame_crc_count(sizes[s]),
				  .payload = data,
				  .crcs = crcs};
		const uint32_t places[] = {0, sizes[s] / 2, sizes[s] - 1};

		ck_assert_uint_eq(f.crc_count, (sizes[s] + 4095) / 4096);
		frame_payload_crcs(data, sizes[s], crcs);
		ck_assert(frame_payload_ok(&f));
		for (size_t p = 0; sizes[s] != 0 && p < ARRAY_SIZE(places); p++) {
			data[places[p]] ^= 0x40;
			ck_assert(!frame_payload_ok(&f));
			data[places[p]] ^= 0x40;
		}
		if (f.crc_count != 0) {
			crcs[f.crc_count - 1] ^= 1;
			ck_assert(!frame_payload_ok(&f));
		}
	}
	free(data);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("frame");
	TCase *tc = tcase_create("frame");
	SRunner *runner;
	int failed;

	tcase_add_test(tc, test_layout);
	tcase_add_test(tc, test_flipped_bits);
	tcase_add_test(tc, test_versions);
	tcase_add_test(tc, test_reserved);
	tcase_add_test(tc, test_layer);
	tcase_add_test(tc, test_requests);
	tcase_add_test(tc, test_requests_without_payload);
	tcase_add_test(tc, test_replies);
	tcase_add_test(tc, test_payload_crcs);
	suite_add_tcase(suite, tc);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_NORMAL);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
