/* cluster_cpu: see cluster_cpu.h. */
#include "bench/cluster_cpu.h"

#include <ctype.h>
#include <dirent.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static size_t read_proc(int pid, const char *file, char *buf, size_t size)
{
	char path[160];
	FILE *f;
	size_t n;

	snprintf(path, sizeof path, "/proc/%d/%s", pid, file);
	f = fopen(path, "r");
	if (f == NULL)
		return 0;
	n = fread(buf, 1, size - 1, f);
	buf[n] = '\0';
	fclose(f);
	return n;
}

static bool names_dir(int pid, const char *dir)
{
	char cmdline[8192];
	size_t n = read_proc(pid, "cmdline", cmdline, sizeof cmdline);

	for (size_t i = 0; i < n; i++)
		if (cmdline[i] == '\0')
			cmdline[i] = ' ';
	return n > 0 && strstr(cmdline, dir) != NULL && strncmp(cmdline, "perf ", 5) != 0;
}

/* schedstat's run time is in ns, where stat's is in ticks of 10 ms. It is a thread's, so threads
 * are added up. */
static uint64_t cpu_us_of(int pid)
{
	char path[64], file[96], buf[256];
	uint64_t ns = 0;
	struct dirent *e;
	DIR *d;

	snprintf(path, sizeof path, "/proc/%d/task", pid);
	d = opendir(path);
	if (d == NULL)
		return 0;
	while ((e = readdir(d)) != NULL) {
		if (!isdigit((unsigned char)e->d_name[0]))
			continue;
		snprintf(file, sizeof file, "task/%.20s/schedstat", e->d_name);
		if (read_proc(pid, file, buf, sizeof buf) > 0)
			ns += strtoull(buf, NULL, 10);
	}
	closedir(d);
	return ns / 1000;
}

static uint64_t switches_of(int pid)
{
	char buf[8192];
	uint64_t n = 0;

	if (read_proc(pid, "status", buf, sizeof buf) == 0)
		return 0;
	for (const char *p = buf; (p = strstr(p, "ctxt_switches:")) != NULL; p++)
		n += strtoull(p + 14, NULL, 10);
	return n;
}

static void add(struct cluster_usage *u, int pid)
{
	struct process_usage *p = &u->processes[u->count];
	char comm[64] = "";

	if (u->count == CLUSTER_PROCESSES_MAX)
		return;
	read_proc(pid, "comm", comm, sizeof comm);
	comm[strcspn(comm, "\n")] = '\0';
	p->pid = pid;
	snprintf(p->name, sizeof p->name, "%.31s", comm);
	p->cpu_us = cpu_us_of(pid);
	p->switches = switches_of(pid);
	u->count++;
}

void cluster_usage_read(const char *dir, struct cluster_usage *ret)
{
	struct dirent *e;
	DIR *d = opendir("/proc");

	ret->count = 0;
	add(ret, getpid());
	if (d == NULL)
		return;
	while (dir != NULL && (e = readdir(d)) != NULL) {
		int pid = atoi(e->d_name);

		if (pid > 0 && pid != getpid() && names_dir(pid, dir))
			add(ret, pid);
	}
	closedir(d);
}

struct process_usage cluster_usage_diff(const struct cluster_usage *before,
					const struct cluster_usage *after, uint32_t i)
{
	struct process_usage d = after->processes[i];

	for (uint32_t k = 0; k < before->count; k++) {
		if (before->processes[k].pid == d.pid) {
			d.cpu_us -= before->processes[k].cpu_us;
			d.switches -= before->processes[k].switches;
		}
	}
	return d;
}
