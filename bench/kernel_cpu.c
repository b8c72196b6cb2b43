/* kernel_cpu: see kernel_cpu.h. */
#include "bench/kernel_cpu.h"

#include <dirent.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/types.h"

static bool read_line(const char *pid, const char *file, char *buf, int size)
{
	char path[300];
	FILE *f;
	bool read;

	snprintf(path, sizeof path, "/proc/%s/%s", pid, file);
	f = fopen(path, "r");
	if (f == NULL)
		return false;
	read = fgets(buf, size, f) != NULL;
	fclose(f);
	return read;
}

static bool is_kernels(const char *pid)
{
	static const char *const names[] = {"kworker", "jbd2", "ksoftirqd"};
	char comm[64];

	if (atoi(pid) <= 0 || !read_line(pid, "comm", comm, sizeof comm))
		return false;
	for (uint32_t i = 0; i < ARRAY_SIZE(names); i++)
		if (strncmp(comm, names[i], strlen(names[i])) == 0)
			return true;
	return false;
}

void kernel_cpu_read(struct kernel_cpu *ret)
{
	DIR *proc = opendir("/proc");
	struct dirent *e;
	char line[128];

	ret->count = 0;
	while (proc != NULL && ret->count < KERNEL_CPU_THREADS_MAX && (e = readdir(proc)) != NULL) {
		if (!is_kernels(e->d_name) || !read_line(e->d_name, "schedstat", line, sizeof line))
			continue;
		ret->threads[ret->count].pid = atoi(e->d_name);
		ret->threads[ret->count++].ns = strtoull(line, NULL, 10);
	}
	if (proc != NULL)
		closedir(proc);
}

static uint64_t used_before(const struct kernel_cpu *before, int pid)
{
	for (uint32_t i = 0; i < before->count; i++)
		if (before->threads[i].pid == pid)
			return before->threads[i].ns;
	return 0;
}

uint64_t kernel_cpu_since(const struct kernel_cpu *before)
{
	static struct kernel_cpu now;
	uint64_t ns = 0;

	kernel_cpu_read(&now);
	for (uint32_t i = 0; i < now.count; i++)
		ns += now.threads[i].ns -
		      MIN(now.threads[i].ns, used_before(before, now.threads[i].pid));
	return ns;
}
