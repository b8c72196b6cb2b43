/* What pave-inspect finds wrong between index and device: counted, and the first few of each kind
 * told one by one, with their places. */
#ifndef PAVE_INSPECT_FINDINGS_H
#define PAVE_INSPECT_FINDINGS_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#define FINDINGS_SHOWN	  16u /* of each kind */
#define FINDING_TEXT_SIZE 240u

#define FINDING_SCRUB                                                                              \
	"attach their volumes, and `pave scrub start` has them repaired from other replicas"
#define FINDING_REBUILD "--rebuild-index makes a new one (pave-inspect(8) says what that keeps)"

/* What it is called, in code and in JSON; whether it is damage; what is said of the count; and the
 * way out. */
#define FINDINGS(X)                                                                                \
	X(BAD, "bad_blocks", true, "BLOCKS that the index refers to DO NOT CHECK", FINDING_SCRUB)  \
	X(HEADERLESS_GOOD, "headerless_good_blocks", true,                                         \
	  "BLOCKS that the index refers to LIE UNDER NO VALID HEADER, and check",                  \
	  FINDING_SCRUB "; until then a new index would lack them")                                \
	X(HEADERLESS_BAD, "headerless_bad_blocks", true,                                           \
	  "BLOCKS that the index refers to LIE UNDER NO VALID HEADER, and do not check",           \
	  FINDING_SCRUB)                                                                           \
	X(CONTRADICTION, "contradictions", true,                                                   \
	  "BLOCKS: A GROUP SAYS SOMETHING ELSE of their place than the index", FINDING_REBUILD)    \
	X(SHARED, "shared_places", true, "PLACES ARE REFERRED TO TWICE by the index",              \
	  FINDING_REBUILD)                                                                         \
	X(OUTSIDE, "outside_places", true,                                                         \
	  "PLACES that the index refers to ARE NOT IN ANY SEGMENT of the shard", FINDING_REBUILD)  \
	X(MISSING, "missing_blocks", true,                                                         \
	  "BLOCKS of groups that the index covers ARE NOT IN IT, in their version or a newer one", \
	  FINDING_REBUILD)                                                                         \
	X(LOST_PAGE, "lost_pages", true, "PAGES that exist, as their chunks say, ARE NOT THERE",   \
	  FINDING_REBUILD)                                                                         \
	X(ODD_PAGE, "odd_pages", true, "PAGES ARE NOT AS THEIR CHUNKS SAY", FINDING_REBUILD)       \
	X(COUNT, "wrong_counts", true,                                                             \
	  "SEGMENTS ARE SAID TO HAVE MORE OR FEWER LIVE BLOCKS than pages refer to",               \
	  FINDING_REBUILD)                                                                         \
	X(STALE, "reused_segments", true,                                                          \
	  "SEGMENTS HAVE BEEN USED AGAIN since: THE INDEX IS OLDER THAN THE DEVICE",               \
	  "give the newer one, if there is one; " FINDING_REBUILD)                                 \
	X(UNSURE, "unsure_blocks", false,                                                          \
	  "blocks of groups are not in the index, nor does it count them: they were erased, and "  \
	  "the entry that said so has been overwritten since",                                     \
	  "nothing is to be done")                                                                 \
	X(SUPERSEDED, "superseded_blocks", false,                                                  \
	  "blocks are not where the index has them, but the log after it has them anew",           \
	  "the node sees to it when it starts")

#define X(kind, name, damage, text, way_out) FINDING_##kind,
enum finding_kind { FINDINGS(X) FINDING_KINDS };
#undef X

struct findings {
	uint64_t counts[FINDING_KINDS];
	uint32_t shown[FINDING_KINDS];
	char texts[FINDING_KINDS][FINDINGS_SHOWN][FINDING_TEXT_SIZE];
};

/* count: of blocks, pages or segments that this one is about. */
void findings_add(struct findings *f, enum finding_kind kind, uint64_t count, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));

bool findings_damage(const struct findings *f);

/* To stdout: a line for each kind that there is, and below it those that are told. */
void findings_report(const struct findings *f);

/* Puts the counts of all kinds into o, and under "findings" what is told. */
void findings_json(const struct findings *f, json_t *o);

#endif
