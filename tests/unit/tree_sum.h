/* What a directory is: name, kind, size, time of change and checksum of everything in it, as a
 * number that is another one when any of that is. Each test program includes this once. */
#ifndef UNIT_TREE_SUM_H
#define UNIT_TREE_SUM_H

#include <check.h>
#include <fcntl.h>
#include <ftw.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "engine/base/crc32c.h"

/* Added up, so the order in which they are found does not count. */
static uint64_t tree_total;

static inline int tree_add(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	const int64_t numbers[] = {type, st->st_size, st->st_mode, st->st_mtim.tv_sec,
				   st->st_mtim.tv_nsec};
	uint32_t crc = crc32c(0, path, strlen(path));
	uint32_t content = 0;
	char data[4096];
	ssize_t n = 0;
	int fd = -1;

	(void)ftw;
	if (type == FTW_F)
		fd = open(path, O_RDONLY | O_CLOEXEC);
	while (fd >= 0 && (n = read(fd, data, sizeof data)) > 0)
		content = crc32c(content, data, (size_t)n);
	ck_assert(n == 0);
	if (fd >= 0)
		close(fd);
	crc = crc32c(crc, numbers, sizeof numbers);
	tree_total += (uint64_t)crc << 32 | content;
	return 0;
}

static inline uint64_t tree_sum(const char *path)
{
	tree_total = 0;
	ck_assert_int_eq(nftw(path, tree_add, 8, FTW_PHYS), 0);
	return tree_total;
}

#endif
