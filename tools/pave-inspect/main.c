/* pave-inspect: looks at a node's device while no node runs on it.
 *
 *   superblocks -> survey of all segments, with the index beside it if one is given (and then after
 *   one that learns what must be known before) -> report
 *   --rebuild-index: two surveys -> a new index
 *
 * Nothing is written to the device, but for a damaged copy of the superblock with --repair; nothing
 * to an index, but for a new one with --rebuild-index. Exit codes: 0 everything checks, 1 it could
 * not be done, 2 usage, 3 damage was found. */
#include <dirent.h>
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "engine/base/log.h"
#include "engine/base/text.h"
#include "engine/store/rebuild.h"
#include "engine/store/store.h"
#include "tools/pave-inspect/findings.h"
#include "tools/pave-inspect/inspect.h"

#define EXIT_DAMAGE    3
#define MEMORY_DEFAULT (512 * MIB)
#define MEMORY_MIN     (64 * KIB)

struct inspect {
	const char *path, *index, *new_index;
	uint64_t memory_bytes; /* 0: it was not said */
	bool repair, dump, json;
	struct inspect_device device;
	struct survey_super super;
	const struct format_super *best;
	struct compare *compare;
	struct inspect_totals totals;
	struct compare_totals compared;
	struct findings findings;
	struct rebuild_stats rebuilt;
	uint32_t slot;
	bool damage;
};

static const char usage[] =
    "Usage: pave-inspect DEVICE [--index DIR [--memory SIZE]] [--rebuild-index DIR] [--repair]\n"
    "                    [--dump] [--json]\n"
    "Looks at a node's device while the node does not run: superblocks, segments, groups.\n"
    "\n"
    "  --index DIR          compare with this index (the directory `index` under the node's "
    "--dir),\n"
    "                       both ways; nothing in it is changed\n"
    "  --memory SIZE        for what of the index is compared at a time: less means going through "
    "it\n"
    "                       more often (512MiB by default)\n"
    "  --rebuild-index DIR  make a new index from the device alone, in an empty directory, or "
    "beside\n"
    "                       those of other devices of the node\n"
    "  --repair             write a damaged copy of the superblock again from the other one\n"
    "  --dump               print every segment, group and entry too\n"
    "  --json               for programs; with --dump an object a line\n"
    "  --version, --help\n"
    "Exit codes: 0 everything checks, 1 it could not be done, 2 usage, 3 damage was found.\n";

/* -- the survey ------------------------------------------------------------------------------- */

static int take_group(const struct survey_group *group, void *arg)
{
	const struct format_group *g = &group->header;
	struct inspect *x = arg;
	struct inspect_totals *t = &x->totals;
	uint32_t shard = g->segment % x->best->shard_count;

	t->groups[g->stream]++;
	t->entries += g->entry_count;
	t->data_blocks += g->data_blocks;
	t->bad_blocks += group->bad_blocks;
	t->last_seq[shard][g->stream] = MAX(t->last_seq[shard][g->stream], g->seq);
	format_group_tell_durable(g, t->durable_seq[shard]);
	if (x->dump)
		dump_group(group, x->json);
	return x->compare != NULL ? compare_group(x->compare, group) : 0;
}

static int take_segment(const struct survey_segment *segment, void *arg)
{
	struct inspect *x = arg;
	struct inspect_totals *t = &x->totals;

	t->segments++;
	t->used_segments += segment->groups > 0;
	t->damaged_segments += segment->lost > 0 || segment->unreadable > 0;
	t->old_groups += segment->old_groups;
	t->lost_blocks += segment->lost;
	t->unreadable_blocks += segment->unreadable;
	if (x->dump)
		dump_segment(segment, x->json);
	return x->compare != NULL ? compare_segment(x->compare, segment) : 0;
}

static int survey(struct inspect *x, struct error *err)
{
	struct survey_sink sink = {.group = take_group, .segment = take_segment, .arg = x};
	int rc = survey_run(&x->device.survey, x->best, true, &sink);

	if (rc == 0 && x->compare != NULL)
		rc = compare_finish(x->compare, &x->compared);
	if (rc != 0)
		return error_set(err, rc, "%s: %s", x->path, err_text(rc));
	return 0;
}

/* -- what is damage --------------------------------------------------------------------------- */

/* Without an index every block that does not check counts. With it only those that it refers to: of
 * what was overwritten nobody wants anything any more. */
static void judge(struct inspect *x)
{
	const struct inspect_totals *t = &x->totals;

	for (uint32_t i = 0; i < FORMAT_SUPER_COPIES; i++)
		x->damage = x->damage || x->super.status[i] != 0;
	if (x->index != NULL)
		x->damage = x->damage || findings_damage(&x->findings);
	else if (x->new_index != NULL)
		x->damage = x->damage || x->rebuilt.bad_blocks > 0 || x->rebuilt.lost_blocks > 0;
	else
		x->damage = x->damage || t->bad_blocks > 0 || t->lost_blocks > 0 ||
			    t->unreadable_blocks > 0;
}

/* -- repair ----------------------------------------------------------------------------------- */

static int repair_super(struct inspect *x, struct error *err)
{
	uint8_t *block = aligned_alloc(BLOCK_SIZE, BLOCK_SIZE);
	int rc = 0;

	if (block == NULL)
		return error_set(err, -ENOMEM, "no memory");
	format_super_encode(x->best, block);
	for (uint32_t i = 0; i < FORMAT_SUPER_COPIES && rc == 0; i++) {
		if (x->super.status[i] == 0 && x->super.copies[i].sequence == x->best->sequence)
			continue;
		rc = inspect_write_block(&x->device, format_super_offset(i), block);
		if (rc == 0) {
			fprintf(stderr, "copy %u of the superblock was written again\n", i);
			x->super.status[i] = 0;
			x->super.copies[i] = *x->best;
		}
	}
	free(block);
	return rc == 0 ? 0
		       : error_set(err, rc, "%s: the superblock cannot be written: %s", x->path,
				   err_text(rc));
}

/* -- a new index ------------------------------------------------------------------------------ */

struct slots {
	bool used[FORMAT_SLOTS_MAX];
	bool has_device;
	const struct uuid *device;
};

static int take_slot(const void *key, size_t key_size, const void *value, size_t value_size,
		     void *arg)
{
	struct format_checkpoint record;
	struct slots *s = arg;
	uint32_t prefix;

	if (format_key_node_decode(key, key_size, &prefix) < 0)
		return 0;
	s->used[prefix / FORMAT_SHARDS_MAX] = true;
	if (format_checkpoint_decode(value, value_size, &record) == 0 &&
	    uuid_equal(&record.device, s->device))
		s->has_device = true;
	return 0;
}

static int choose_slot(struct inspect *x, struct kv *kv, struct error *err)
{
	struct slots s = {.device = &x->best->device};
	int rc = kv_scan(kv, STORE_KV_NODE, "", 0, take_slot, &s);

	if (rc != 0)
		return error_set(err, rc, "index %s: it cannot be read: %s", x->new_index,
				 err_text(rc));
	if (s.has_device)
		return error_set(err, -EEXIST,
				 "index %s: it has an index of this device already: move the "
				 "directory away, or name another one",
				 x->new_index);
	while (x->slot < FORMAT_SLOTS_MAX && s.used[x->slot])
		x->slot++;
	if (x->slot == FORMAT_SLOTS_MAX)
		return error_set(err, -E_LIMIT, "index %s: it has those of %u devices, the most",
				 x->new_index, FORMAT_SLOTS_MAX);
	return 0;
}

/* The node's directory, or one of somebody else, is easily named instead. */
static int may_hold_index(const char *dir, struct error *err)
{
	char current[4400];
	struct dirent *e;
	bool empty = true;
	DIR *d = opendir(dir);

	if (d == NULL && errno == ENOENT)
		return 0; /* it is made */
	if (d == NULL)
		return error_set(err, -errno, "index %s: %s", dir, err_text(errno));
	while (empty && (e = readdir(d)) != NULL)
		empty = strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0;
	closedir(d);
	snprintf(current, sizeof current, "%s/CURRENT", dir);
	return empty || access(current, F_OK) == 0
		   ? 0
		   : error_set(err, -ENOTEMPTY,
			       "index %s: the directory is not empty, and what is in it is no "
			       "index: name "
			       "another one",
			       dir);
}

static int rebuild_index(struct inspect *x, struct error *err)
{
	struct rebuild *r = rebuild_create(&x->device.survey, x->best);
	struct kv *kv = NULL;
	int rc = r != NULL ? 0 : error_set(err, -ENOMEM, "no memory");

	if (rc == 0)
		rc = may_hold_index(x->new_index, err);
	if (rc == 0)
		rc = kv_rocks_open(x->device.reactor, x->new_index, store_kv_family_names,
				   STORE_KV_FAMILIES, 0, &kv, err);
	if (rc == 0)
		rc = choose_slot(x, kv, err);
	if (rc == 0)
		rc = rebuild_run(r, err);
	if (rc == 0)
		rc = rebuild_write(r, kv, x->slot, inspect_commit, &x->device, err);
	if (rc == 0)
		rebuild_get_stats(r, &x->rebuilt);
	kv_close(kv);
	rebuild_destroy(r);
	return rc;
}

/* -- reports ---------------------------------------------------------------------------------- */

static json_t *integer(uint64_t n)
{
	return json_integer((json_int_t)n);
}

static json_t *super_json(const struct inspect *x)
{
	json_t *copies = json_array();
	char cluster[40], device[40];
	json_t *o;

	for (uint32_t i = 0; i < FORMAT_SUPER_COPIES; i++)
		json_array_append_new(
		    copies,
		    json_string(x->super.status[i] == 0 ? "valid" : x->super.errors[i].text));
	o = json_pack("{s:s,s:s,s:s,s:i,s:i,s:i}", "cluster",
		      text_uuid(&x->best->cluster, cluster, sizeof cluster), "node", x->best->node,
		      "device", text_uuid(&x->best->device, device, sizeof device), "shard_count",
		      (int)x->best->shard_count, "segment_count", (int)x->best->segment_count,
		      "segment_bytes", (int)x->best->segment_bytes);
	json_object_set_new(o, "superblocks", copies);
	return o;
}

static json_t *survey_json(const struct inspect *x)
{
	const struct inspect_totals *t = &x->totals;
	json_t *o = json_object();

	json_object_set_new(o, "used_segments", integer(t->used_segments));
	json_object_set_new(o, "damaged_segments", integer(t->damaged_segments));
	json_object_set_new(o, "hot_groups", integer(t->groups[0]));
	json_object_set_new(o, "cold_groups", integer(t->groups[1]));
	json_object_set_new(o, "old_groups", integer(t->old_groups));
	json_object_set_new(o, "entries", integer(t->entries));
	json_object_set_new(o, "data_blocks", integer(t->data_blocks));
	json_object_set_new(o, "bad_blocks", integer(t->bad_blocks));
	json_object_set_new(o, "lost_blocks", integer(t->lost_blocks));
	json_object_set_new(o, "unreadable_blocks", integer(t->unreadable_blocks));
	return o;
}

static json_t *compared_json(const struct inspect *x)
{
	const struct compare_totals *c = &x->compared;
	json_t *o = json_object();

	json_object_set_new(o, "checkpoint", integer(c->checkpoint));
	json_object_set_new(o, "pages", integer(c->pages));
	json_object_set_new(o, "blocks", integer(c->blocks));
	json_object_set_new(o, "matching_blocks", integer(c->matching));
	json_object_set_new(o, "later_groups", integer(c->later_groups));
	json_object_set_new(o, "stale", json_boolean(x->findings.counts[FINDING_STALE] > 0));
	findings_json(&x->findings, o);
	return o;
}

static json_t *rebuilt_json(const struct inspect *x)
{
	const struct rebuild_stats *r = &x->rebuilt;
	json_t *o = json_object();

	json_object_set_new(o, "slot", integer(x->slot));
	json_object_set_new(o, "groups", integer(r->groups));
	json_object_set_new(o, "torn_groups", integer(r->torn_groups));
	json_object_set_new(o, "volumes", integer(r->volumes));
	json_object_set_new(o, "chunks", integer(r->chunks));
	json_object_set_new(o, "pages", integer(r->pages));
	json_object_set_new(o, "blocks", integer(r->blocks));
	json_object_set_new(o, "zero_blocks", integer(r->zero_blocks));
	json_object_set_new(o, "bad_blocks", integer(r->bad_blocks));
	json_object_set_new(o, "lost_blocks", integer(r->lost_blocks));
	json_object_set_new(o, "unreadable_blocks", integer(r->unreadable_blocks));
	json_object_set_new(o, "exact", json_boolean(r->complete));
	return o;
}

static void report_json(const struct inspect *x)
{
	json_t *o = super_json(x);

	if (x->new_index == NULL)
		json_object_set_new(o, "survey", survey_json(x));
	else
		json_object_set_new(o, "rebuilt", rebuilt_json(x));
	if (x->compare != NULL)
		json_object_set_new(o, "index", compared_json(x));
	json_object_set_new(o, "damage", json_boolean(x->damage));
	json_dumpf(o, stdout, x->dump ? JSON_COMPACT : JSON_INDENT(2));
	putchar('\n');
	json_decref(o);
}

static void report_super(const struct inspect *x)
{
	char cluster[40], device[40], size[32];

	printf("%s: device %s of node %s, cluster %s: %u segments of %s, %u shard%s\n", x->path,
	       text_uuid(&x->best->device, device, sizeof device), x->best->node,
	       text_uuid(&x->best->cluster, cluster, sizeof cluster), x->best->segment_count,
	       text_size(x->best->segment_bytes, size, sizeof size), x->best->shard_count,
	       x->best->shard_count == 1 ? "" : "s");
	for (uint32_t i = 0; i < FORMAT_SUPER_COPIES; i++)
		if (x->super.status[i] != 0)
			printf(
			    "superblock, copy %u: DAMAGED: %s (--repair writes it again from the "
			    "other one; so does the node when it starts)\n",
			    i, x->super.errors[i].text);
}

static void report_survey(const struct inspect *x)
{
	const struct inspect_totals *t = &x->totals;

	printf("segments: %u in use or of use before, %u never used\n", t->used_segments,
	       t->segments - t->used_segments);
	printf("groups: %" PRIu64 " hot, %" PRIu64 " cold, and %" PRIu64
	       " remains of earlier uses; %" PRIu64 " entries, %" PRIu64 " blocks\n",
	       t->groups[0], t->groups[1], t->old_groups, t->entries, t->data_blocks);
	for (uint32_t i = 0; i < x->best->shard_count; i++)
		printf("shard %u: last group %" PRIu64 " hot (known to be durable up to %" PRIu64
		       "), %" PRIu64 " cold (%" PRIu64 ")\n",
		       i, t->last_seq[i][0], t->durable_seq[i][0], t->last_seq[i][1],
		       t->durable_seq[i][1]);
	if (t->bad_blocks > 0)
		printf("%" PRIu64 " BLOCKS DO NOT CHECK%s\n", t->bad_blocks,
		       x->index == NULL ? " (whether they are still wanted only the index knows: "
					  "--index)"
					: "");
	if (t->lost_blocks > 0)
		printf("%" PRIu64 " BLOCKS in %u segments BELONG TO NO GROUP: a header there does "
		       "not check\n",
		       t->lost_blocks, t->damaged_segments);
	if (t->unreadable_blocks > 0)
		printf("%" PRIu64 " BLOCKS CANNOT BE READ\n", t->unreadable_blocks);
}

static void report_compared(const struct inspect *x)
{
	const struct compare_totals *c = &x->compared;

	printf("index: checkpoint %" PRIu64 ", %" PRIu64 " pages, %" PRIu64 " blocks: %" PRIu64
	       " as their groups say; %" PRIu64 " groups are later than it\n",
	       c->checkpoint, c->pages, c->blocks, c->matching, c->later_groups);
	findings_report(&x->findings);
}

static void report_rebuilt(const struct inspect *x)
{
	const struct rebuild_stats *r = &x->rebuilt;

	printf("new index in %s: %" PRIu64 " volumes, %" PRIu64 " chunks, %" PRIu64
	       " blocks of data, %" PRIu64 " zeroed or discarded; from %" PRIu64 " groups\n",
	       x->new_index, r->volumes, r->chunks, r->blocks, r->zero_blocks, r->groups);
	if (r->bad_blocks > 0)
		printf("%" PRIu64
		       " BLOCKS DO NOT CHECK: another replica repairs them when they are "
		       "read, or by `pave scrub start`\n",
		       r->bad_blocks);
	if (r->lost_blocks > 0)
		printf("%" PRIu64 " BLOCKS BELONG TO NO GROUP, and are not in the new index\n",
		       r->lost_blocks);
	if (r->complete) {
		printf("The log is complete: the index is exact.\n");
		return;
	}
	printf("Segments have been used again, so the index is not exact:\n"
	       "- every write that this node acknowledged is in it;\n"
	       "- zeroes and discards, and erased copies, may be missing, and older content be "
	       "there instead;\n"
	       "- watermarks are 0: the node claims nothing, and is brought up to date by resync "
	       "when its volumes are\n"
	       "  attached. Have the other replicas of its volumes running then; do not rebuild "
	       "more than a minority of them.\n");
}

static void report(const struct inspect *x)
{
	if (x->json) {
		report_json(x);
		return;
	}
	report_super(x);
	if (x->new_index != NULL)
		report_rebuilt(x);
	else
		report_survey(x);
	if (x->compare != NULL)
		report_compared(x);
	if (!x->damage)
		printf("Everything checks.\n");
}

/* -- start ------------------------------------------------------------------------------------ */

static int run(struct inspect *x, struct error *err)
{
	int rc = inspect_open(x->path, &x->device, err);

	if (rc != 0)
		return rc;
	if (x->device.disk->size_bytes < FORMAT_SEGMENTS_OFFSET)
		return error_set(err, -EINVAL, "%s: %llu bytes are too few for a node's device",
				 x->path, (unsigned long long)x->device.disk->size_bytes);
	rc = survey_read_super(&x->device.survey, &x->super, err);
	if (rc != 0)
		return rc;
	x->best = &x->super.copies[x->super.best];
	if (x->repair)
		rc = repair_super(x, err);
	if (rc == 0 && x->index != NULL)
		rc = compare_open(&x->device, x->index, x->best,
				  x->memory_bytes > 0 ? x->memory_bytes : MEMORY_DEFAULT,
				  &x->findings, &x->compare, err);
	if (rc == 0)
		rc = x->new_index != NULL ? rebuild_index(x, err) : survey(x, err);
	if (rc != 0)
		return rc;
	judge(x);
	report(x);
	return 0;
}

/* 0, 2, or -1 when the answer was printed. */
static int parse(struct inspect *x, int argc, char **argv)
{
	static const struct option options[] = {
	    {"index", required_argument, NULL, 'i'},
	    {"rebuild-index", required_argument, NULL, 'b'},
	    {"memory", required_argument, NULL, 'm'},
	    {"repair", no_argument, NULL, 'r'},
	    {"dump", no_argument, NULL, 'd'},
	    {"json", no_argument, NULL, 'j'},
	    {"version", no_argument, NULL, 'V'},
	    {"help", no_argument, NULL, 'h'},
	    {0},
	};
	int c;

	while ((c = getopt_long(argc, argv, "h", options, NULL)) != -1) {
		switch (c) {
		case 'i':
			x->index = optarg;
			break;
		case 'b':
			x->new_index = optarg;
			break;
		case 'm':
			if (text_parse_size(optarg, &x->memory_bytes) == 0 &&
			    x->memory_bytes >= MEMORY_MIN)
				break;
			fprintf(stderr,
				"pave-inspect: --memory %s: a size of at least 64KiB is needed\n",
				optarg);
			return 2;
		case 'r':
			x->repair = true;
			break;
		case 'd':
			x->dump = true;
			break;
		case 'j':
			x->json = true;
			break;
		case 'V':
			puts("pave-inspect " PAVE_VERSION);
			return -1;
		case 'h':
			fputs(usage, stdout);
			return -1;
		default:
			fputs("Try `pave-inspect --help`.\n", stderr);
			return 2;
		}
	}
	if (x->memory_bytes > 0 && x->index == NULL) {
		fputs("pave-inspect: --memory is for --index\n"
		      "Try `pave-inspect --help`.\n",
		      stderr);
		return 2;
	}
	if (optind == argc - 1 && (x->new_index == NULL || (x->index == NULL && !x->dump))) {
		x->path = argv[optind];
		return 0;
	}
	fputs(optind == argc - 1
		  ? "pave-inspect: --rebuild-index stands without --index and --dump\n"
		  : "pave-inspect: one device is needed\n",
	      stderr);
	fputs("Try `pave-inspect --help`.\n", stderr);
	return 2;
}

int main(int argc, char **argv)
{
	static struct inspect x;
	struct error err = {0};
	int rc = parse(&x, argc, argv);

	if (rc != 0)
		return rc < 0 ? 0 : rc;
	log_set_name("pave-inspect");
	if (run(&x, &err) != 0) {
		fprintf(stderr, "pave-inspect: %s\n", err.text);
		return 1; /* what is open ends with the process */
	}
	compare_close(x.compare);
	inspect_close(&x.device);
	if (fflush(stdout) != 0) {
		fputs("pave-inspect: the output cannot be written\n", stderr);
		return 1;
	}
	return x.damage ? EXIT_DAMAGE : 0;
}
