/* A survey of a device without its index: what can be told from the superblocks and the segments
 * alone. For offline tools and tests: it blocks, it allocates, and nobody else may write meanwhile.
 *
 * A segment is read from its first block; a group counts where its header checks and names this
 * device, this segment and this place. Behind the last group of the segment's newest use (epoch)
 * there may be remains of older ones: they are told apart by their epoch. Inside of a use, blocks
 * that belong to no group are a damaged header with what it covered.
 *
 * Nothing that is read is trusted; whatever does not check is counted, and passed over. */
#ifndef STORE_SURVEY_H
#define STORE_SURVEY_H

#include "engine/store/format.h"

/* Reads size bytes at offset, both multiples of BLOCK_SIZE. 0 or -EIO. */
struct survey_device {
	int (*read)(void *arg, uint64_t offset, size_t size, void *data);
	void *arg;
	uint64_t size_bytes;
	const char *name;
};

struct survey_super {
	int status[FORMAT_SUPER_COPIES]; /* 0; -ENOENT: none; -E_CORRUPT; -EIO */
	struct format_super copies[FORMAT_SUPER_COPIES];
	struct error errors[FORMAT_SUPER_COPIES];
	int best; /* the copy that counts, or -1 */
};

/* 0; -E_CORRUPT: no copy is valid, or it does not fit the device; -EIO. */
int survey_read_super(const struct survey_device *d, struct survey_super *ret_super,
		      struct error *err);

struct survey_group {
	struct format_group header;
	const struct format_entry *entries;
	const uint32_t *crcs;	/* of the data blocks */
	uint32_t data_location; /* of the first data block, on the device */
	uint32_t bad_blocks;	/* data blocks that do not check; 0 when they are not looked at */
	uint32_t known_bad_blocks; /* of these: FORMAT_FLAG_BAD */
	const bool *block_is_bad;  /* a data block; NULL when they are not looked at */
};

struct survey_segment {
	uint32_t no;
	uint32_t epoch;	     /* of its newest use; 0: it was never used */
	uint32_t groups;     /* of that use */
	uint32_t old_groups; /* of earlier ones */
	uint32_t used;	     /* blocks, up to the end of the last group of that use */
	uint32_t lost;	     /* blocks before that that belong to no group */
	uint32_t first_lost;
	uint32_t unreadable; /* blocks */
	uint64_t last_seq;
};

struct survey_sink {
	/* Each group of the newest use of each segment, in the order of their places. Not 0 ends
	 * the survey. */
	int (*group)(const struct survey_group *group, void *arg);
	/* After the groups of a segment. */
	int (*segment)(const struct survey_segment *segment, void *arg);
	void *arg;
};

/* Surveys every segment; with_data: reads and checks the data blocks too. 0, -ENOMEM, or what a
 * sink returned. A block that can not be read counts as one that does not check. */
int survey_run(const struct survey_device *d, const struct format_super *super, bool with_data,
	       const struct survey_sink *sink);

#endif
