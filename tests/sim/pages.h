/* The contents of the blocks of simulated disks: 4 KiB each, of which few bytes are kept when that
 * is enough to say what all are. Most of what a disk holds are the stamps of the oracle, and
 * zeroes; kept whole they would be hundreds of megabytes, which each run would touch for the first
 * time.
 *
 * A page is a pointer, NULL for zeroes. Thread: one. Memory is never given back, only used again.
 */
#ifndef SIM_PAGES_H
#define SIM_PAGES_H

#include <stddef.h>

#include "engine/base/types.h"

struct sim_page;

/* Puts bytes into the page: [offset, offset + size) lies within BLOCK_SIZE. */
void sim_page_write(struct sim_page **page, size_t offset, const void *from, size_t size);
void sim_page_read(const struct sim_page *page, size_t offset, void *to, size_t size);
/* Costs nothing: the two are one until either is written to. *to is zeroes before. */
void sim_page_copy(struct sim_page **to, const struct sim_page *from);
void sim_page_drop(struct sim_page **page); /* zeroes after it */

#endif
