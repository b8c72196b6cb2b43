/* pave-inspect: what its parts share. */
#ifndef PAVE_INSPECT_H
#define PAVE_INSPECT_H

#include <jansson.h>

#include "engine/kv/kv.h"
#include "engine/store/survey.h"

/* A device, read by blocking calls. */
struct inspect_device {
	struct reactor *reactor;
	struct disk *disk;
	uint8_t *bounce; /* memory that the disk may read into */
	struct survey_device survey;
};

/* Opens it exclusively. */
int inspect_open(const char *path, struct inspect_device *ret_device, struct error *err);
void inspect_close(struct inspect_device *d);

/* One block, durably. */
int inspect_write_block(struct inspect_device *d, uint64_t offset, const void *block);

/* Makes a batch durable, and takes it over. arg: the struct inspect_device. */
int inspect_commit(struct kv *kv, struct kv_batch *batch, void *arg);

/* As kv_get. 0, -ENOENT, -EIO, -E_CORRUPT. */
int inspect_get(struct inspect_device *d, struct kv *kv, uint32_t family, const uint8_t *key,
		size_t key_size, void *value, size_t value_max, size_t *ret_value_size);

/* What a survey found. */
struct inspect_totals {
	uint32_t segments, used_segments, damaged_segments;
	uint64_t groups[2], old_groups; /* by stream */
	uint64_t entries, data_blocks, bad_blocks;
	uint64_t lost_blocks, unreadable_blocks;
	uint64_t last_seq[FORMAT_SHARDS_MAX][2], durable_seq[FORMAT_SHARDS_MAX][2];
};

/* -- dump.c ----------------------------------------------------------------------------------- */

void dump_group(const struct survey_group *group, bool json);
void dump_segment(const struct survey_segment *segment, bool json);

/* -- compare.c: the index against the device --------------------------------------------------- */

struct compare;
struct findings;

struct compare_totals {
	uint64_t pages, blocks; /* blocks: those with data that the index refers to */
	uint64_t matching;	/* a group says the same, and the block checks */
	uint64_t later_groups;	/* after the checkpoint: recovery goes through them */
	uint64_t checkpoint;	/* its number */
};

/* Opens the index to look, and surveys the device a first time. memory_bytes: for references at a
 * time. What is found goes to findings. -ENOENT: there is no index, or it is of another device. */
int compare_open(struct inspect_device *d, const char *path, const struct format_super *super,
		 uint64_t memory_bytes, struct findings *findings, struct compare **ret_compare,
		 struct error *err);
/* Sinks of a survey with data. */
int compare_group(struct compare *c, const struct survey_group *group);
int compare_segment(struct compare *c, const struct survey_segment *segment);
/* After the survey: looks at what no group has named. */
int compare_finish(struct compare *c, struct compare_totals *ret_totals);
void compare_close(struct compare *c); /* NULL is allowed */

#endif
