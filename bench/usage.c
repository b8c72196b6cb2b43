/* usage: see usage.h. */
#include "bench/usage.h"

#include <ctype.h>
#include <dirent.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
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

static bool names(int pid, const char *const *texts, uint32_t text_count)
{
	char cmdline[8192];
	size_t n = read_proc(pid, "cmdline", cmdline, sizeof cmdline);

	for (size_t i = 0; i < n; i++)
		if (cmdline[i] == '\0')
			cmdline[i] = ' ';
	if (n == 0 || strncmp(cmdline, "perf ", 5) == 0)
		return false;
	for (uint32_t i = 0; i < text_count; i++)
		if (strstr(cmdline, texts[i]) != NULL)
			return true;
	return false;
}

static void read_name(int pid, const char *file, char *buf, size_t size)
{
	char comm[64] = "";

	read_proc(pid, file, comm, sizeof comm);
	comm[strcspn(comm, "\n")] = '\0';
	snprintf(buf, size, "%.*s", (int)size - 1, comm);
}

static uint64_t switches_of(int pid, const char *file)
{
	char buf[4096];
	uint64_t n = 0;

	if (read_proc(pid, file, buf, sizeof buf) == 0)
		return 0;
	for (const char *p = buf; (p = strstr(p, "ctxt_switches:")) != NULL; p++)
		n += strtoull(p + 14, NULL, 10);
	return n;
}

/* schedstat's run time is in ns, where stat's is in ticks of 10 ms. */
static void add_thread(struct process_usage *p, int tid)
{
	struct thread_usage *t;
	char file[64], buf[256];
	uint64_t cpu_us = 0, switches;

	snprintf(file, sizeof file, "task/%d/schedstat", tid);
	if (read_proc(p->pid, file, buf, sizeof buf) > 0)
		cpu_us = strtoull(buf, NULL, 10) / 1000;
	snprintf(file, sizeof file, "task/%d/status", tid);
	switches = switches_of(p->pid, file);
	p->switches += switches;
	if (p->thread_count < USAGE_THREADS_MAX) {
		t = &p->threads[p->thread_count++];
		*t = (struct thread_usage){.tid = tid};
		snprintf(file, sizeof file, "task/%d/comm", tid);
		read_name(p->pid, file, t->name, sizeof t->name);
	} else {
		t = &p->threads[USAGE_THREADS_MAX - 1];
	}
	t->cpu_us += cpu_us;
	t->switches += switches;
}

/* With what threads that have ended used. */
static uint64_t process_cpu_us(int pid)
{
	struct timespec ts;
	clockid_t clock;

	if (clock_getcpuclockid(pid, &clock) != 0 || clock_gettime(clock, &ts) != 0)
		return 0;
	return (uint64_t)ts.tv_sec * 1000000 + (uint64_t)ts.tv_nsec / 1000;
}

static void add(struct usage *u, int pid)
{
	struct process_usage *p = &u->processes[u->count];
	char path[64];
	struct dirent *e;
	DIR *d;

	snprintf(path, sizeof path, "/proc/%d/task", pid);
	d = opendir(path);
	if (u->count == USAGE_PROCESSES_MAX || d == NULL) {
		if (d != NULL)
			closedir(d);
		return;
	}
	*p = (struct process_usage){.pid = pid, .cpu_us = process_cpu_us(pid)};
	read_name(pid, "comm", p->name, sizeof p->name);
	while ((e = readdir(d)) != NULL)
		if (isdigit((unsigned char)e->d_name[0]))
			add_thread(p, atoi(e->d_name));
	closedir(d);
	u->count++;
}

/* user, nice, system, idle, iowait, irq, softirq, steal: of the first line of /proc/stat. */
static uint64_t machine_busy_us(void)
{
	unsigned long long v[8] = {0};
	FILE *f = fopen("/proc/stat", "r");
	uint64_t ticks;

	if (f == NULL)
		return 0;
	if (fscanf(f, "cpu %llu %llu %llu %llu %llu %llu %llu %llu", &v[0], &v[1], &v[2], &v[3],
		   &v[4], &v[5], &v[6], &v[7]) < 7)
		v[0] = 0;
	fclose(f);
	ticks = v[0] + v[1] + v[2] + v[5] + v[6];
	return ticks * 1000000 / (uint64_t)sysconf(_SC_CLK_TCK);
}

void usage_read(const char *const *texts, uint32_t text_count, struct usage *ret)
{
	struct dirent *e;
	DIR *d = opendir("/proc");

	ret->count = 0;
	ret->machine_busy_us = machine_busy_us();
	add(ret, getpid());
	if (d == NULL)
		return;
	while ((e = readdir(d)) != NULL) {
		int pid = atoi(e->d_name);

		if (pid > 0 && pid != getpid() && names(pid, texts, text_count))
			add(ret, pid);
	}
	closedir(d);
}

void usage_begin(struct usage *u)
{
	const uint32_t count = u->count;

	u->count = 0; /* this one is the first */
	add(u, getpid());
	u->count = count;
	u->machine_busy_us = machine_busy_us();
}

/* Threads that ended meanwhile take their time with them. */
static uint64_t less(uint64_t after, uint64_t before)
{
	return after > before ? after - before : 0;
}

static void diff_threads(struct process_usage *d, const struct process_usage *before)
{
	for (uint32_t i = 0; i < d->thread_count; i++)
		for (uint32_t k = 0; k < before->thread_count; k++)
			if (before->threads[k].tid == d->threads[i].tid) {
				const struct thread_usage *b = &before->threads[k];

				d->threads[i].cpu_us = less(d->threads[i].cpu_us, b->cpu_us);
				d->threads[i].switches = less(d->threads[i].switches, b->switches);
			}
}

struct process_usage usage_diff(const struct usage *before, const struct usage *after, uint32_t i)
{
	struct process_usage d = after->processes[i];

	for (uint32_t k = 0; k < before->count; k++) {
		const struct process_usage *b = &before->processes[k];

		if (b->pid != d.pid)
			continue;
		d.cpu_us = less(d.cpu_us, b->cpu_us);
		diff_threads(&d, b);
		/* Not of the sums: what a thread that has ended once did would be taken from what
		 * the others did since. */
		d.switches = 0;
		for (uint32_t t = 0; t < d.thread_count; t++)
			d.switches += d.threads[t].switches;
	}
	return d;
}
