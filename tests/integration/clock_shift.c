/* A test's wall clock: preloaded into a process (LD_PRELOAD), it adds what the file that
 * PAVE_TEST_CLOCK names holds (an int64 of nanoseconds, in the order of the machine) to
 * CLOCK_REALTIME, and nothing to the other clocks. The file may be written while the process runs:
 * the clock steps then. No program of Pave knows of it. */
#include <dlfcn.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define NS_PER_S 1000000000ll

static const volatile int64_t *shift_ns;
static int (*real_gettime)(clockid_t clock, struct timespec *ts);

__attribute__((constructor)) static void find_shift(void)
{
	const char *path = getenv("PAVE_TEST_CLOCK");
	int fd = path != NULL ? open(path, O_RDONLY | O_CLOEXEC) : -1;
	void *p;

	*(void **)&real_gettime = dlsym(RTLD_NEXT, "clock_gettime"); /* as dlsym(3) has it */
	if (fd < 0)
		return;
	p = mmap(NULL, sizeof *shift_ns, PROT_READ, MAP_SHARED, fd, 0);
	close(fd);
	if (p != MAP_FAILED)
		shift_ns = p;
}

int clock_gettime(clockid_t clock, struct timespec *ts);

int clock_gettime(clockid_t clock, struct timespec *ts)
{
	int rc = real_gettime(clock, ts);
	int64_t ns;

	if (rc != 0 || clock != CLOCK_REALTIME || shift_ns == NULL)
		return rc;
	ns = ts->tv_sec * NS_PER_S + ts->tv_nsec + *shift_ns;
	ts->tv_sec = ns / NS_PER_S;
	ts->tv_nsec = ns % NS_PER_S;
	return 0;
}
